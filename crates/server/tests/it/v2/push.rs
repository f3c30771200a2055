//! Pushing manifests.

use super::*;

#[tokio::test]
async fn a_push_is_answered_with_where_it_is() {
    let h = Hub::start().await;
    let pushed = h.image("app", "v1", "x").await;
    let manifest: Value = serde_json::from_slice(&pushed.manifest).unwrap();
    let digest = pushed.digest.to_string();
    for reference in ["v2", &digest] {
        let res = h.put("app", reference, &manifest).await;
        assert_eq!(res.status(), StatusCode::CREATED);
        assert_eq!(head(&res, "docker-content-digest"), digest);
        assert_eq!(head(&res, "location"), format!("/v2/app/manifests/{digest}"));
        assert_eq!((head(&res, "oci-subject"), head(&res, "oci-tag")), ("", ""));
        let got = h.send(Method::GET, head(&res, "location")).await;
        assert_eq!(got.bytes().await.unwrap(), pushed.manifest, "a pullable manifest URL");
    }
    h.stop().await;
}

#[tokio::test]
async fn every_media_type_in_use_comes_back_byte_for_byte() {
    let h = Hub::start().await;
    let image = h.image("app", "v1", "x").await;
    let size = image.manifest.len();
    let blob = h.blob("app", b"content").await;
    let config = h.blob("app", b"{}").await;
    let of = |kind: &str, digest: &Digest, size: usize| json!({"mediaType": kind, "digest": digest, "size": size});
    let foreign = json!({"mediaType": media_type::DOCKER_FOREIGN_LAYER, "digest": Digest::of(b"elsewhere"), "size": 9,
        "urls": ["https://example.com/layer"]});
    for (kind, document) in [
        (
            media_type::DOCKER_MANIFEST,
            json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST,
                "config": of(media_type::DOCKER_CONFIG, &config, 2),
                "layers": [of(media_type::DOCKER_LAYER_GZIP, &blob, 7), foreign]}),
        ),
        (
            media_type::DOCKER_LIST,
            json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST,
                "manifests": [of(media_type::OCI_MANIFEST, &image.digest, size)]}),
        ),
        (media_type::OCI_INDEX, index_of(&[(&image.digest, size, "amd64")])),
        (
            media_type::OCI_INDEX,
            json!({"schemaVersion": 2, "manifests": null, "artifactType": "application/vnd.example"}),
        ),
        (
            media_type::OCI_MANIFEST,
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/vnd.example",
                "config": of(media_type::OCI_EMPTY, &config, 2), "layers": [], "unknown": {"kept": [1, null]}}),
        ),
        (
            "application/vnd.oci.artifact.manifest.v1+json",
            json!({"mediaType": media_type::OCI_ARTIFACT, "artifactType": "application/vnd.example",
                "blobs": [of("text/plain", &blob, 7)]}),
        ),
        // Types that nobody here knows, of shapes that mean something else.
        ("application/vnd.cncf.oras.artifact.manifest.v1+json", json!({"blobs": [of("text/plain", &blob, 7)]})),
        ("application/vnd.example.unknown+json", json!({"layers": 3, "config": [], "schemaVersion": "x"})),
    ] {
        // Blanks of its own: what is served is what was sent, not what was understood.
        let bytes = format!(" {} \n", serde_json::to_string_pretty(&document).unwrap()).into_bytes();
        let digest = Digest::of(&bytes).to_string();
        let res = h.put_as("app", "any", kind, bytes.clone()).await;
        assert_eq!(
            (res.status(), head(&res, "docker-content-digest")),
            (StatusCode::CREATED, digest.as_str()),
            "{kind}"
        );
        let got = h.send(Method::GET, "/v2/app/manifests/any").await;
        assert_eq!(head(&got, "content-type"), kind);
        assert_eq!(got.bytes().await.unwrap(), bytes, "{kind}");
    }
    h.stop().await;
}

#[tokio::test]
async fn what_a_manifest_is_the_header_says_or_else_the_document() {
    let h = Hub::start().await;
    let image = h.image("app", "v1", "x").await;
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let put = async |kind: Option<&str>, document: &Value| {
        let mut req = h.ask(Method::PUT, "/v2/app/manifests/any").body(serde_json::to_vec(document).unwrap());
        if let Some(kind) = kind {
            req = req.header("content-type", kind);
        }
        req.send().await.unwrap()
    };
    let mut untyped = manifest.clone();
    untyped.as_object_mut().unwrap().remove("mediaType");
    let index = json!({"schemaVersion": 2, "manifests": []});
    for (header, document, served) in [
        (None, &manifest, media_type::OCI_MANIFEST),
        (None, &untyped, media_type::OCI_MANIFEST),
        (None, &index, media_type::OCI_INDEX),
        (Some("application/json"), &manifest, media_type::OCI_MANIFEST),
        (Some(media_type::OCI_MANIFEST), &untyped, media_type::OCI_MANIFEST),
        // "The registry SHOULD ignore parameters on the `Content-Type` header."
        (Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), &manifest, media_type::OCI_MANIFEST),
    ] {
        let res = put(header, document).await;
        assert_eq!(res.status(), StatusCode::CREATED, "{header:?}");
        let got = h.send(Method::HEAD, "/v2/app/manifests/any").await;
        assert_eq!(head(&got, "content-type"), served, "{header:?}");
    }
    assert_eq!(refusal(put(Some(media_type::OCI_INDEX), &manifest).await).await, code(400, "MANIFEST_INVALID"));
    assert_eq!(refusal(put(Some("not a media type"), &untyped).await).await, code(400, "MANIFEST_INVALID"));
    h.stop().await;
}

#[tokio::test]
async fn refused_manifests() {
    let h = Hub::start().await;
    let (absent, other) = (Digest::of(b"absent"), Digest::of(b"other"));
    let image = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": absent, "size": 6},
        "layers": [{"mediaType": media_type::OCI_LAYER, "digest": other, "size": 5}]});
    let res = h.put("app", "v1", &image).await;
    assert_eq!(res.status(), StatusCode::NOT_FOUND);
    let body: Value = res.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
    let missing = body["errors"][0]["detail"]["missing"].as_array().unwrap();
    assert!(missing.contains(&json!(absent)) && missing.contains(&json!(other)), "{missing:?}");
    let sparse = index_of(&[(&absent, 6, "amd64")]);
    let res = h.put_as("app", "v1", media_type::OCI_INDEX, serde_json::to_vec(&sparse).unwrap()).await;
    assert_eq!(refusal(res).await, code(404, "MANIFEST_BLOB_UNKNOWN"));

    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": []})).unwrap();
    let schema1 = serde_json::to_vec(&json!({"schemaVersion": 1, "name": "app", "tag": "v1", "fsLayers": []})).unwrap();
    let five_mib = vec![b' '; 5 * 1024 * 1024];
    for (reference, kind, bytes, expect) in [
        ("v1", media_type::OCI_MANIFEST, &five_mib, code(413, "SIZE_INVALID")),
        ("v1", media_type::OCI_MANIFEST, &b"{".to_vec(), code(400, "MANIFEST_INVALID")),
        ("v1", media_type::OCI_MANIFEST, &Vec::new(), code(400, "MANIFEST_INVALID")),
        ("v1", media_type::OCI_MANIFEST, &index, code(400, "MANIFEST_INVALID")),
        ("v1", "application/vnd.example.unknown", &b"not json".to_vec(), code(400, "MANIFEST_INVALID")),
        ("v1", media_type::DOCKER_SCHEMA1, &schema1, code(400, "MANIFEST_INVALID")),
        ("v1", media_type::DOCKER_SCHEMA1_SIGNED, &schema1, code(400, "MANIFEST_INVALID")),
        ("v1", "application/json", &schema1, code(400, "MANIFEST_INVALID")),
        (&absent.to_string(), media_type::OCI_INDEX, &index, code(400, "DIGEST_INVALID")),
        ("sha256:baddigeststring", media_type::OCI_INDEX, &index, code(400, "DIGEST_INVALID")),
        (".bad", media_type::OCI_INDEX, &index, code(400, "TAG_INVALID")),
        (&"a".repeat(129), media_type::OCI_INDEX, &index, code(400, "TAG_INVALID")),
    ] {
        let res = h.put_as("app", reference, kind, bytes.clone()).await;
        assert_eq!(refusal(res).await, expect, "{reference} {kind}");
    }
    let res = h.put_as("UPPER", "v1", media_type::OCI_INDEX, index).await;
    assert_eq!(refusal(res).await, code(400, "NAME_INVALID"));
    assert_eq!(refusal(h.send(Method::GET, "/v2/app/manifests/v1").await).await, code(404, "NAME_UNKNOWN"));
    assert_eq!(refusal(h.send(Method::GET, "/v2/forbidden/manifests/v1").await).await, code(401, "UNAUTHORIZED"));
    h.stop().await;
}

#[tokio::test]
async fn a_manifest_of_four_mebibytes_is_taken() {
    let h = Hub::start().await;
    let config = h.blob("app", b"{}").await;
    let mut manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": [],
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": config, "size": 2}, "annotations": {"a": ""}});
    let room = 4 * 1024 * 1024 - serde_json::to_vec(&manifest).unwrap().len();
    manifest["annotations"]["a"] = json!("x".repeat(room));
    assert_eq!(h.put("app", "large", &manifest).await.status(), StatusCode::CREATED);
    manifest["annotations"]["a"] = json!("x".repeat(room + 1));
    assert_eq!(refusal(h.put("app", "larger", &manifest).await).await, code(413, "SIZE_INVALID"));
    h.stop().await;
}

#[tokio::test]
async fn tags_in_the_query() {
    let h = Hub::start().await;
    let image = h.image("app", "v1", "x").await;
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let res = h.put("app", &format!("{}?tag=a&tag=b", image.digest), &manifest).await;
    assert_eq!(res.status(), StatusCode::CREATED);
    let tags: Vec<&str> = res.headers().get_all("oci-tag").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(tags, ["a", "b"]);
    let list = h.json("/v2/app/tags/list").await;
    assert_eq!(list["tags"], json!(["a", "b", "v1"]));
    let many: String = (0..101).map(|i| format!("&tag=t{i}")).collect();
    for query in ["tag=.bad".to_owned(), many] {
        let res = h.put("app", &format!("{}?{query}", image.digest), &manifest).await;
        assert_eq!(refusal(res).await, code(400, "TAG_INVALID"));
    }
    assert_eq!(h.json("/v2/app/tags/list").await, list, "and none of them was set");
    h.stop().await;
}

#[tokio::test]
async fn a_list_under_a_tag_is_not_overwritten_unseen() {
    let h = Hub::start().await;
    let empty = |note: &str| json!({"schemaVersion": 2, "manifests": [], "annotations": {"note": note}});
    let put = async |name: &str, value: &str, note: &str| {
        let req = h.ask(Method::PUT, "/v2/app/manifests/list").header("content-type", media_type::OCI_INDEX);
        let bytes = serde_json::to_vec(&empty(note)).unwrap();
        req.header(name, value).body(bytes).send().await.unwrap()
    };
    assert_eq!(refusal(put("if-match", "*", "first").await).await, code(412, "DENIED"));
    let first = put("if-none-match", "*", "first").await;
    assert_eq!(first.status(), StatusCode::CREATED);
    let seen = format!("\"{}\"", head(&first, "docker-content-digest"));
    assert_eq!(refusal(put("if-none-match", "*", "second").await).await, code(412, "DENIED"));
    assert_eq!(put("if-match", &seen, "second").await.status(), StatusCode::CREATED);
    assert_eq!(refusal(put("if-match", &seen, "third").await).await, code(412, "DENIED"));
    let now = h.json("/v2/app/manifests/list").await;
    assert_eq!(now["annotations"]["note"], "second", "the refused ones changed nothing");
    // Nor deleted.
    let delete = async |value: &str| h.with(Method::DELETE, "/v2/app/manifests/list", "if-match", value).await;
    assert_eq!(refusal(delete(&seen).await).await, code(412, "DENIED"));
    assert_eq!(delete("*").await.status(), StatusCode::ACCEPTED);
    h.stop().await;
}
