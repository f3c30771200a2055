//! `/v2/` over HTTP: statuses, headers and bodies as clients look for them.

use portolan_types::{Digest, media_type};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::TestServer;

/// A server with one registry and a token for everything in a few repositories.
struct Hub {
    t: TestServer,
    login: String,
    token: String,
}

impl Hub {
    async fn start() -> Hub {
        let t = TestServer::start().await;
        let login = t.site.make_registry("hubtest").await.unwrap();
        let scope = "repository:app:pull,push,delete repository:team/sub/app:pull,push,delete \
                     repository:other:pull,push registry:catalog:*";
        let token = t.site.token(&login, scope).await.unwrap();
        Hub { t, login, token }
    }

    fn ask(&self, method: Method, path: impl AsRef<str>) -> RequestBuilder {
        self.t.site.registry(&self.login, &self.token, method, path.as_ref())
    }

    async fn send(&self, method: Method, path: impl AsRef<str>) -> Response {
        self.ask(method, path).send().await.unwrap()
    }

    async fn blob(&self, repo: &str, bytes: &[u8]) -> Digest {
        self.t.site.push_blob(&self.login, &self.token, repo, bytes).await.unwrap()
    }

    async fn image(&self, repo: &str, tag: &str, content: &str) -> portolan_testkit::Pushed {
        self.t.site.push_image(&self.login, repo, tag, &[content.as_bytes()]).await.unwrap()
    }

    async fn put(&self, repo: &str, reference: &str, manifest: &Value) -> Response {
        let bytes = serde_json::to_vec(manifest).unwrap();
        self.t.site.put_manifest(&self.login, &self.token, repo, reference, &bytes).await.unwrap()
    }

    async fn start_upload(&self, repo: &str) -> String {
        let res = self.send(Method::POST, format!("/v2/{repo}/blobs/uploads/")).await;
        assert_eq!(res.status(), StatusCode::ACCEPTED);
        assert_eq!(head(&res, "range"), "0-0");
        assert!(!head(&res, "docker-upload-uuid").is_empty());
        let location = head(&res, "location").to_owned();
        assert!(location.starts_with(&format!("/v2/{repo}/blobs/uploads/")), "{location}");
        location
    }

    async fn stop(self) {
        self.t.server.shutdown().await.unwrap();
    }
}

fn head<'a>(res: &'a Response, name: &str) -> &'a str {
    res.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

/// Status and first error code.
async fn refusal(res: Response) -> (u16, String) {
    let status = res.status().as_u16();
    let body: Value = res.json().await.unwrap();
    (status, body["errors"][0]["code"].as_str().unwrap_or("?").to_owned())
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn the_base_wants_a_sign_in() {
    let h = Hub::start().await;
    let bare = h.t.get(format!("https://{}/v2/", h.login)).await;
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    let realm = format!("Bearer realm=\"https://{0}/oauth2/token\",service=\"{0}\"", h.login);
    assert_eq!(head(&bare, "www-authenticate"), realm);
    assert_eq!(h.send(Method::GET, "/v2/").await.status(), StatusCode::OK);
    let bare = h.t.get(format!("https://{}/v2/a/b/tags/list", h.login)).await;
    assert_eq!(head(&bare, "www-authenticate"), format!("{realm},scope=\"repository:a/b:pull\""));
    let elsewhere = h.t.site.client.get(format!("{}/v2/", h.t.http())).header("host", "unknown.example");
    let elsewhere = elsewhere.send().await.unwrap();
    assert_eq!(refusal(elsewhere).await, code(404, "NAME_UNKNOWN"));
    h.stop().await;
}

#[tokio::test]
async fn manifests_come_back_as_they_went() {
    let h = Hub::start().await;
    let pushed = h.image("team/sub/app", "v1", "layer").await;
    let digest = pushed.digest.to_string();
    for reference in ["v1", digest.as_str(), &digest.replace(':', "%3A")] {
        let path = format!("/v2/team/sub/app/manifests/{reference}");
        let got = h.send(Method::GET, &path).await;
        assert_eq!(got.status(), StatusCode::OK);
        assert_eq!(head(&got, "content-type"), media_type::OCI_MANIFEST);
        assert_eq!(head(&got, "docker-content-digest"), digest);
        assert_eq!(head(&got, "etag"), format!("\"{digest}\""));
        assert_eq!(got.bytes().await.unwrap(), pushed.manifest);
        let only_head = h.send(Method::HEAD, &path).await;
        assert_eq!(head(&only_head, "content-length"), pushed.manifest.len().to_string());
        assert_eq!(head(&only_head, "docker-content-digest"), digest);
        assert!(only_head.bytes().await.unwrap().is_empty());
    }
    let same = h.ask(Method::GET, "/v2/team/sub/app/manifests/v1").header("if-none-match", format!("\"{digest}\""));
    assert_eq!(same.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    // A client that knows only the other family of types still gets what there is.
    let other = h.ask(Method::GET, "/v2/team/sub/app/manifests/v1").header("accept", media_type::DOCKER_MANIFEST);
    assert_eq!(head(&other.send().await.unwrap(), "content-type"), media_type::OCI_MANIFEST);
    h.stop().await;
}

#[tokio::test]
async fn refused_manifests() {
    let h = Hub::start().await;
    let absent = Digest::of(b"absent");
    let image = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": absent, "size": 6}, "layers": []});
    let res = h.put("app", "v1", &image).await;
    assert_eq!(res.status(), StatusCode::NOT_FOUND);
    let body: Value = res.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(body["errors"][0]["detail"]["missing"], json!([absent]));
    let put = async |path: &str, bytes: Vec<u8>, kind: &str| {
        let res = h.ask(Method::PUT, path).header("content-type", kind).body(bytes).send().await.unwrap();
        refusal(res).await
    };
    let five_mib = vec![b' '; 5 * 1024 * 1024];
    assert_eq!(put("/v2/app/manifests/v1", five_mib, media_type::OCI_MANIFEST).await, code(413, "SIZE_INVALID"));
    assert_eq!(
        put("/v2/app/manifests/v1", b"{".to_vec(), media_type::OCI_MANIFEST).await,
        code(400, "MANIFEST_INVALID")
    );
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": []})).unwrap();
    let path = format!("/v2/app/manifests/{absent}");
    assert_eq!(put(&path, index.clone(), media_type::OCI_INDEX).await, code(400, "DIGEST_INVALID"));
    assert_eq!(put("/v2/app/manifests/.bad", index.clone(), media_type::OCI_INDEX).await, code(400, "TAG_INVALID"));
    assert_eq!(put("/v2/UPPER/manifests/v1", index, media_type::OCI_INDEX).await, code(400, "NAME_INVALID"));
    assert_eq!(refusal(h.send(Method::GET, "/v2/app/manifests/v1").await).await, code(404, "NAME_UNKNOWN"));
    h.image("app", "v1", "x").await;
    assert_eq!(refusal(h.send(Method::GET, "/v2/app/manifests/v9").await).await, code(404, "MANIFEST_UNKNOWN"));
    assert_eq!(refusal(h.send(Method::GET, "/v2/app/manifests/.bad").await).await, code(404, "MANIFEST_UNKNOWN"));
    assert_eq!(refusal(h.send(Method::POST, "/v2/app/manifests/v1").await).await, code(405, "UNSUPPORTED"));
    assert_eq!(refusal(h.send(Method::GET, "/v2/forbidden/manifests/v1").await).await, code(401, "UNAUTHORIZED"));
    h.stop().await;
}

#[tokio::test]
async fn blobs_whole_and_in_part() {
    let h = Hub::start().await;
    let digest = h.blob("app", b"0123456789").await;
    let path = format!("/v2/app/blobs/{digest}");
    let only_head = h.send(Method::HEAD, &path).await;
    assert_eq!(only_head.status(), StatusCode::OK);
    assert_eq!((head(&only_head, "content-length"), head(&only_head, "accept-ranges")), ("10", "bytes"));
    assert_eq!(head(&only_head, "docker-content-digest"), digest.to_string());
    let got = h.send(Method::GET, &path).await;
    assert_eq!(head(&got, "etag"), format!("\"{digest}\""));
    assert_eq!(got.bytes().await.unwrap(), &b"0123456789"[..]);
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=5-100", 206, "bytes 5-9/10", "56789"),
        ("bytes=0-1,3-4", 200, "", "0123456789"),
    ] {
        let res = h.ask(Method::GET, &path).header("range", range).send().await.unwrap();
        assert_eq!((res.status().as_u16(), head(&res, "content-range")), (status, content_range), "{range}");
        assert_eq!(res.text().await.unwrap(), body, "{range}");
    }
    let outside = h.ask(Method::GET, &path).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!((outside.status().as_u16(), head(&outside, "content-range")), (416, "bytes */10"));
    let known = h.ask(Method::GET, &path).header("if-none-match", format!("\"{digest}\"")).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    let stale =
        h.ask(Method::GET, &path).header("range", "bytes=2-4").header("if-range", "\"old\"").send().await.unwrap();
    assert_eq!(stale.status(), StatusCode::OK);
    let absent = Digest::of(b"absent");
    assert_eq!(h.send(Method::HEAD, format!("/v2/app/blobs/{absent}")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(refusal(h.send(Method::GET, format!("/v2/app/blobs/{absent}")).await).await, code(404, "BLOB_UNKNOWN"));
    assert_eq!(refusal(h.send(Method::GET, "/v2/app/blobs/sha256:12").await).await, code(400, "DIGEST_INVALID"));
    assert_eq!(
        refusal(h.send(Method::GET, format!("/v2/other/blobs/{digest}")).await).await,
        code(404, "BLOB_UNKNOWN")
    );
    assert_eq!(h.send(Method::DELETE, &path).await.status(), StatusCode::ACCEPTED);
    assert_eq!(h.send(Method::HEAD, &path).await.status(), StatusCode::NOT_FOUND);
    h.stop().await;
}

#[tokio::test]
async fn an_upload_in_chunks() {
    let h = Hub::start().await;
    let upload = h.start_upload("app").await;
    let patch = async |range: Option<&str>, bytes: &'static str| {
        let mut req = h.ask(Method::PATCH, &upload).header("content-type", "application/octet-stream").body(bytes);
        if let Some(range) = range {
            req = req.header("content-range", range);
        }
        req.send().await.unwrap()
    };
    let res = patch(Some("0-4"), "01234").await;
    assert_eq!((res.status().as_u16(), head(&res, "range")), (202, "0-4"));
    assert_eq!(head(&res, "location"), upload);
    for wrong in ["0-4", "7-11"] {
        let res = patch(Some(wrong), "56789").await;
        assert_eq!((res.status().as_u16(), head(&res, "range"), head(&res, "location")), (416, "0-4", upload.as_str()));
    }
    assert_eq!(refusal(patch(Some("5-7"), "56789").await).await, code(400, "SIZE_INVALID"));
    assert_eq!(refusal(patch(Some("five"), "56789").await).await, code(400, "BLOB_UPLOAD_INVALID"));
    let status = h.send(Method::GET, &upload).await;
    assert_eq!((status.status().as_u16(), head(&status, "range")), (204, "0-4"));
    assert_eq!(head(&status, "location"), upload);
    let res = patch(None, "567").await;
    assert_eq!(head(&res, "range"), "0-7");
    // The rest comes with the PUT that ends it.
    let digest = Digest::of(b"0123456789");
    let end = h.ask(Method::PUT, format!("{upload}?digest={digest}")).header("content-range", "8-9").body("89");
    let res = end.send().await.unwrap();
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(head(&res, "location"), format!("/v2/app/blobs/{digest}"));
    assert_eq!(head(&res, "docker-content-digest"), digest.to_string());
    assert_eq!(h.send(Method::GET, head(&res, "location")).await.text().await.unwrap(), "0123456789");
    assert_eq!(refusal(h.send(Method::GET, &upload).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    h.stop().await;
}

#[tokio::test]
async fn other_ways_to_upload() {
    let h = Hub::start().await;
    let digest = Digest::of(b"whole");
    let post = |query: String| h.ask(Method::POST, format!("/v2/app/blobs/uploads/?{query}"));
    let res = post(format!("digest={digest}")).body("whole").send().await.unwrap();
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(head(&res, "location"), format!("/v2/app/blobs/{digest}"));
    let res = post(format!("digest={digest}")).body("something else").send().await.unwrap();
    assert_eq!(refusal(res).await, code(400, "DIGEST_INVALID"));

    // Mounts: from a repository that has it, from one that has not, from nowhere.
    let source = h.blob("other", b"shared").await;
    let res = post(format!("mount={source}&from=other")).send().await.unwrap();
    assert_eq!((res.status(), head(&res, "docker-content-digest")), (StatusCode::CREATED, source.to_string().as_str()));
    assert_eq!(h.send(Method::HEAD, format!("/v2/app/blobs/{source}")).await.status(), StatusCode::OK);
    for query in [
        format!("mount={}&from=other", Digest::of(b"absent")),
        format!("mount={}", Digest::of(b"absent")),
        format!("mount={source}&from=BAD"),
        format!("mount={}&from=forbidden", Digest::of(b"secret")),
    ] {
        assert_eq!(post(query.clone()).send().await.unwrap().status(), StatusCode::ACCEPTED, "{query}");
    }
    assert_eq!(refusal(post("mount=nonsense".into()).send().await.unwrap()).await, code(400, "DIGEST_INVALID"));

    // A mismatch at the end, a missing digest, a cancel.
    let upload = h.start_upload("app").await;
    assert_eq!(refusal(h.ask(Method::PUT, &upload).body("x").send().await.unwrap()).await, code(400, "DIGEST_INVALID"));
    let res = h.ask(Method::PUT, format!("{upload}?digest={digest}")).body("not it").send().await.unwrap();
    assert_eq!(refusal(res).await, code(400, "DIGEST_INVALID"));
    assert_eq!(refusal(h.send(Method::GET, &upload).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    let upload = h.start_upload("app").await;
    assert_eq!(h.send(Method::DELETE, &upload).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(refusal(h.send(Method::DELETE, &upload).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    let nonsense = h.send(Method::GET, "/v2/app/blobs/uploads/not-a-uuid").await;
    assert_eq!(refusal(nonsense).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    let empty = Digest::of(b"");
    let upload = h.start_upload("app").await;
    assert_eq!(h.send(Method::PUT, format!("{upload}?digest={empty}")).await.status(), StatusCode::CREATED);
    let got = h.send(Method::GET, format!("/v2/app/blobs/{empty}")).await;
    assert_eq!((head(&got, "content-length"), got.status()), ("0", StatusCode::OK));
    h.stop().await;
}

#[tokio::test]
async fn tags_and_catalog_in_pages() {
    let h = Hub::start().await;
    let pushed = h.image("app", "a", "x").await;
    for tag in ["c", "b"] {
        assert_eq!(h.put("app", tag, &serde_json::from_slice(&pushed.manifest).unwrap()).await.status(), 201);
    }
    h.image("team/sub/app", "v1", "y").await;
    let mut path = "/v2/app/tags/list?n=2".to_owned();
    let mut tags = Vec::new();
    while !path.is_empty() {
        let res = h.send(Method::GET, &path).await;
        assert_eq!(res.status(), StatusCode::OK);
        path = head(&res, "link")
            .strip_suffix(">; rel=\"next\"")
            .and_then(|l| l.strip_prefix('<'))
            .unwrap_or_default()
            .to_owned();
        let body: Value = res.json().await.unwrap();
        assert_eq!(body["name"], "app");
        tags.extend(body["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()));
    }
    assert_eq!(tags, ["a", "b", "c"]);
    let list = async |path: &str| h.send(Method::GET, path).await.json::<Value>().await.unwrap();
    assert_eq!(list("/v2/app/tags/list?n=0").await["tags"], json!([]));
    assert_eq!(list("/v2/app/tags/list?last=a").await["tags"], json!(["b", "c"]));
    assert_eq!(list("/v2/_catalog").await, json!({"repositories": ["app", "team/sub/app"]}));
    let first = h.send(Method::GET, "/v2/_catalog?n=1").await;
    assert_eq!(head(&first, "link"), "</v2/_catalog?last=app&n=1>; rel=\"next\"");
    for bad in ["n=-1", "n=x"] {
        let res = h.send(Method::GET, format!("/v2/_catalog?{bad}")).await;
        assert_eq!(refusal(res).await, code(400, "PAGINATION_NUMBER_INVALID"));
    }
    assert_eq!(refusal(h.send(Method::GET, "/v2/other/tags/list").await).await, code(404, "NAME_UNKNOWN"));
    h.stop().await;
}

#[tokio::test]
async fn referrers_and_subjects() {
    let h = Hub::start().await;
    let pushed = h.image("app", "v1", "x").await;
    let subject =
        json!({"mediaType": media_type::OCI_MANIFEST, "digest": pushed.digest, "size": pushed.manifest.len()});
    let artifact = |kind: &str| {
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind, "subject": subject,
            "config": {"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}"), "size": 2},
            "layers": [], "annotations": {"k": kind}})
    };
    h.blob("app", b"{}").await;
    for kind in ["application/sbom", "application/signature"] {
        let bytes = serde_json::to_vec(&artifact(kind)).unwrap();
        let res = h.put("app", &Digest::of(&bytes).to_string(), &artifact(kind)).await;
        assert_eq!((res.status().as_u16(), head(&res, "oci-subject")), (201, pushed.digest.to_string().as_str()));
    }
    let path = format!("/v2/app/referrers/{}", pushed.digest);
    let res = h.send(Method::GET, &path).await;
    assert_eq!(head(&res, "content-type"), media_type::OCI_INDEX);
    let body: Value = res.json().await.unwrap();
    assert_eq!((body["schemaVersion"].as_u64(), body["manifests"].as_array().unwrap().len()), (Some(2), 2));
    let res = h.send(Method::GET, format!("{path}?artifactType=application%2Fsbom")).await;
    assert_eq!(head(&res, "oci-filters-applied"), "artifactType");
    let body: Value = res.json().await.unwrap();
    let found = &body["manifests"][0];
    assert_eq!(found["artifactType"], "application/sbom");
    assert_eq!(found["annotations"], json!({"k": "application/sbom"}));
    assert_eq!(body["manifests"].as_array().unwrap().len(), 1);
    let none = h.send(Method::GET, format!("/v2/app/referrers/{}", Digest::of(b"nothing"))).await;
    assert_eq!(none.json::<Value>().await.unwrap()["manifests"], json!([]));
    h.stop().await;
}

#[tokio::test]
async fn deleting() {
    let h = Hub::start().await;
    let pushed = h.image("app", "v1", "x").await;
    let manifest: Value = serde_json::from_slice(&pushed.manifest).unwrap();
    h.put("app", "v2", &manifest).await;
    let delete = async |what: &str| h.send(Method::DELETE, format!("/v2/app/manifests/{what}")).await;
    let needed = h.send(Method::DELETE, format!("/v2/app/blobs/{}", pushed.layers[0])).await;
    assert_eq!(refusal(needed).await, code(405, "UNSUPPORTED"));
    assert_eq!(delete("v1").await.status(), StatusCode::ACCEPTED);
    assert_eq!(h.send(Method::HEAD, "/v2/app/manifests/v1").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(h.send(Method::HEAD, "/v2/app/manifests/v2").await.status(), StatusCode::OK);
    assert_eq!(delete(&pushed.digest.to_string()).await.status(), StatusCode::ACCEPTED);
    assert_eq!(refusal(delete(&pushed.digest.to_string()).await).await, code(404, "NAME_UNKNOWN"));
    let body: Value = h.send(Method::GET, "/v2/_catalog").await.json().await.unwrap();
    assert_eq!(body, json!({"repositories": []}));
    h.stop().await;
}
