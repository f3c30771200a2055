//! Isolation: a blob is read only through a repository that has it, on every route, and an
//! upload is there only for who began it.

use portolan_testkit::Site;

use super::*;

/// What every route says of a blob that the repository does not have.
async fn cannot_be_read(h: &Hub, repo: &str, secret: &Digest) {
    let path = format!("/v2/{repo}/blobs/{secret}");
    assert_eq!(h.send(Method::HEAD, &path).await.status(), StatusCode::NOT_FOUND, "HEAD {repo}");
    for (name, value) in [
        ("accept", "*/*".to_owned()),
        ("range", "bytes=0-3".to_owned()),
        ("range", "bytes=-1".to_owned()),
        ("range", "bytes=999-".to_owned()),
        ("if-none-match", format!("\"{secret}\"")),
        ("if-none-match", "*".to_owned()),
        ("if-match", format!("\"{secret}\"")),
    ] {
        let res = h.with(Method::GET, &path, name, &value).await;
        assert_eq!(refusal(res).await, code(404, "BLOB_UNKNOWN"), "GET {repo} {name}: {value}");
    }
    assert_eq!(refusal(h.send(Method::DELETE, &path).await).await, code(404, "BLOB_UNKNOWN"), "DELETE {repo}");
    // Naming it in a manifest gives nothing either.
    let config = h.blob(repo, b"{}").await;
    for (config, layer) in [(&config, secret), (secret, &config)] {
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": media_type::OCI_EMPTY, "digest": config, "size": 2},
            "layers": [{"mediaType": media_type::OCI_LAYER, "digest": layer, "size": 6}]});
        assert_eq!(refusal(h.put(repo, "v1", &manifest).await).await, code(404, "MANIFEST_BLOB_UNKNOWN"), "{repo}");
    }
    // An unknown type may name what it likes; it is still not there to be read.
    let unknown = serde_json::to_vec(&json!({"layers": [{"digest": secret}]})).unwrap();
    let res = h.put_as(repo, "unknown", "application/vnd.example+json", unknown).await;
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(h.send(Method::HEAD, &path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn knowing_a_digest_gives_nothing() {
    let h = Hub::start().await;
    let secret = h.blob("other", b"secret").await;
    cannot_be_read(&h, "app", &secret).await;
    let pushed = h.image("other", "v1", "private").await;
    for reference in ["v1".to_owned(), pushed.digest.to_string()] {
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            let path = format!("/v2/app/manifests/{reference}");
            assert_eq!(h.send(method, path).await.status(), StatusCode::NOT_FOUND);
        }
    }
    let listed = h.json(format!("/v2/app/referrers/{}", pushed.digest)).await;
    assert_eq!(listed["manifests"], json!([]));
    // Where it is, it is still to be read.
    assert_eq!(h.send(Method::GET, format!("/v2/other/blobs/{secret}")).await.text().await.unwrap(), "secret");
    h.stop().await;
}

#[tokio::test]
async fn registries_share_nothing() {
    let h = Hub::start().await;
    let secret = h.blob("app", b"secret").await;
    let there = h.t.site.make_registry("second").await.unwrap();
    let scope = "repository:app:pull,push,delete repository:mine:pull,push,delete";
    let token = h.t.site.token(&there, scope).await.unwrap();
    // The same repository's name in another registry is another repository.
    let ask = |method: Method, path: String| h.t.site.registry(&there, &token, method, &path);
    for path in [format!("/v2/app/blobs/{secret}"), format!("/v2/mine/blobs/{secret}")] {
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            assert_eq!(ask(method, path.clone()).send().await.unwrap().status(), StatusCode::NOT_FOUND);
        }
    }
    for query in [format!("mount={secret}&from=app"), format!("mount={secret}")] {
        let res = ask(Method::POST, format!("/v2/mine/blobs/uploads/?{query}")).send().await.unwrap();
        assert_eq!(res.status(), StatusCode::ACCEPTED, "{query}");
    }
    // Nor does a token of one open the other.
    for (login, token) in [(&h.login, &token), (&there, &h.token)] {
        let res =
            h.t.site.registry(login, token, Method::GET, &format!("/v2/app/blobs/{secret}")).send().await.unwrap();
        assert_eq!(refusal(res).await, code(401, "UNAUTHORIZED"));
    }
    // An upload of one registry is not there in the other, under the same repository's name.
    let upload = h.start_upload("app").await;
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let res = ask(method.clone(), upload.clone()).send().await.unwrap();
        assert_eq!(refusal(res).await, code(404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
    }
    h.stop().await;
}

#[tokio::test]
async fn a_mount_needs_the_right_to_pull_the_source() {
    let h = Hub::start().await;
    let secret = h.blob("other", b"secret").await;
    // Its holder may pull from the source, this token may not: it is refused, not mounted.
    let only = h.t.site.token(&h.login, "repository:app:pull,push repository:other:push").await.unwrap();
    for (query, status) in [(format!("mount={secret}&from=other"), 401), (format!("mount={secret}"), 202)] {
        let path = format!("/v2/app/blobs/uploads/?{query}");
        let res = h.t.site.registry(&h.login, &only, Method::POST, &path).send().await.unwrap();
        assert_eq!(res.status().as_u16(), status, "{query}");
    }
    cannot_be_read(&h, "app", &secret).await;
    // Nor is one that cannot push to the target mounted for.
    let puller = h.t.site.token(&h.login, "repository:app:pull repository:other:pull").await.unwrap();
    let path = format!("/v2/app/blobs/uploads/?mount={secret}&from=other");
    let res = h.t.site.registry(&h.login, &puller, Method::POST, &path).send().await.unwrap();
    assert_eq!(refusal(res).await, code(401, "UNAUTHORIZED"));
    h.stop().await;
}

#[tokio::test]
async fn an_upload_is_there_for_who_began_it_alone() {
    let h = Hub::start().await;
    let path = format!("{}/listCredentials", Site::registry_path("hubtest"));
    let credentials: Value = h.t.site.arm(Method::POST, &path, None).await.unwrap().json().await.unwrap();
    let password = credentials["passwords"][0]["value"].as_str().unwrap();
    // The admin user may do everything here; these uploads are not its.
    let as_admin = |method: Method, path: String| {
        let req = h.t.site.client.request(method, format!("https://{}{path}", h.login));
        req.basic_auth("hubtest", Some(password))
    };
    let upload = h.start_upload("app").await;
    assert_eq!(h.ask(Method::PATCH, &upload).body("sec").send().await.unwrap().status(), StatusCode::ACCEPTED);
    let digest = Digest::of(b"secret");
    let end = format!("{upload}?digest={digest}");
    for (method, path) in [
        (Method::GET, &upload),
        (Method::HEAD, &upload),
        (Method::PATCH, &upload),
        (Method::PUT, &end),
        (Method::DELETE, &upload),
    ] {
        let res = as_admin(method.clone(), path.clone()).body("ret").send().await.unwrap();
        assert_eq!(res.status(), StatusCode::NOT_FOUND, "{method}");
    }
    // Nor in another repository, even for who began it.
    let elsewhere = upload.replace("/v2/app/", "/v2/other/");
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let res = h.send(method.clone(), &elsewhere).await;
        assert_eq!(refusal(res).await, code(404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
    }
    // All of that left it as it was.
    let res = h.send(Method::GET, &upload).await;
    assert_eq!((res.status().as_u16(), head(&res, "range")), (204, "0-2"));
    assert_eq!(h.ask(Method::PUT, &end).body("ret").send().await.unwrap().status(), StatusCode::CREATED);
    // And the other way round.
    let begun = as_admin(Method::POST, "/v2/app/blobs/uploads/".to_owned()).send().await.unwrap();
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let theirs = h.send(Method::GET, head(&begun, "location")).await;
    assert_eq!(refusal(theirs).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    h.stop().await;
}
