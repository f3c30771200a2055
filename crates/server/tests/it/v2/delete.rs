//! Deleting: tags, manifests, blobs.

use super::*;

#[tokio::test]
async fn tags_and_manifests() {
    let h = Hub::start().await;
    let pushed = h.image("app", "v1", "x").await;
    let manifest: Value = serde_json::from_slice(&pushed.manifest).unwrap();
    for tag in ["v2", "v3"] {
        h.put("app", tag, &manifest).await;
    }
    h.image("app", "stays", "y").await;
    let delete = async |what: &str| h.send(Method::DELETE, format!("/v2/app/manifests/{what}")).await;
    let is_there = async |what: &str| h.send(Method::HEAD, format!("/v2/app/manifests/{what}")).await.status() == 200;
    let digest = pushed.digest.to_string();
    // A tag goes alone.
    assert_eq!(delete("v1").await.status(), StatusCode::ACCEPTED);
    assert!(!is_there("v1").await && is_there("v2").await && is_there(&digest).await);
    assert_eq!(refusal(delete("v1").await).await, code(404, "MANIFEST_UNKNOWN"));
    // A manifest goes with every tag that points to it.
    assert_eq!(delete(&digest).await.status(), StatusCode::ACCEPTED);
    for gone in ["v2", "v3", &digest] {
        assert!(!is_there(gone).await, "{gone}");
    }
    assert_eq!(h.json("/v2/app/tags/list").await["tags"], json!(["stays"]));
    assert_eq!(refusal(delete(&digest).await).await, code(404, "MANIFEST_UNKNOWN"));
    assert_eq!(refusal(delete("sha256:12").await).await, code(400, "DIGEST_INVALID"));
    let elsewhere = h.send(Method::DELETE, format!("/v2/other/manifests/{digest}")).await;
    assert_eq!(refusal(elsewhere).await, code(404, "NAME_UNKNOWN"));
    h.stop().await;
}

#[tokio::test]
async fn the_last_manifest_takes_its_repository() {
    let h = Hub::start().await;
    let digest = h.image("app", "v1", "x").await.digest;
    let path = format!("/v2/app/manifests/{digest}");
    assert_eq!(h.send(Method::DELETE, &path).await.status(), StatusCode::ACCEPTED);
    assert_eq!(refusal(h.send(Method::DELETE, &path).await).await, code(404, "NAME_UNKNOWN"));
    assert_eq!(h.json("/v2/_catalog").await, json!({"repositories": []}));
    h.stop().await;
}

#[tokio::test]
async fn blobs() {
    let h = Hub::start().await;
    let digest = h.blob("app", b"content").await;
    let path = format!("/v2/app/blobs/{digest}");
    assert_eq!(h.send(Method::DELETE, &path).await.status(), StatusCode::ACCEPTED);
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(refusal(h.send(method, &path).await).await, code(404, "BLOB_UNKNOWN"));
    }
    assert_eq!(h.send(Method::HEAD, &path).await.status(), StatusCode::NOT_FOUND);
    // It can be pushed again.
    assert_eq!(h.blob("app", b"content").await, digest);
    assert_eq!(h.send(Method::HEAD, &path).await.status(), StatusCode::OK);
    // What a manifest needs is not deleted, and the answer says what is allowed.
    let pushed = h.image("app", "v1", "x").await;
    let needed = h.send(Method::DELETE, format!("/v2/app/blobs/{}", pushed.layers[0])).await;
    assert_eq!(head(&needed, "allow"), "GET, HEAD");
    assert_eq!(refusal(needed).await, code(405, "UNSUPPORTED"));
    assert_eq!(refusal(h.send(Method::DELETE, "/v2/app/blobs/sha256:12").await).await, code(400, "DIGEST_INVALID"));
    h.stop().await;
}

#[tokio::test]
async fn what_is_locked_stays() {
    let h = Hub::start().await;
    let pushed = h.image("app", "v1", "x").await;
    let manifest: Value = serde_json::from_slice(&pushed.manifest).unwrap();
    let scope = "repository:app:metadata_read,metadata_write";
    let token = h.t.site.token(&h.login, scope).await.unwrap();
    let lock = h.t.site.registry(&h.login, &token, Method::PATCH, "/acr/v1/app/_tags/v1");
    let locked = lock.json(&json!({"writeEnabled": false, "deleteEnabled": false})).send().await.unwrap();
    assert_eq!(locked.status(), StatusCode::OK);
    for path in ["/v2/app/manifests/v1".to_owned(), format!("/v2/app/manifests/{}", pushed.digest)] {
        let res = h.send(Method::DELETE, &path).await;
        assert_eq!(refusal(res).await, code(405, "DENIED"), "{path}");
    }
    let other = h.image("app", "v2", "y").await;
    let other: Value = serde_json::from_slice(&other.manifest).unwrap();
    let res = h.put("app", "v1", &other).await;
    assert_eq!(head(&res, "allow"), "GET, HEAD, DELETE");
    assert_eq!(refusal(res).await, code(405, "DENIED"));
    let both = h.put("app", &format!("{}?tag=free&tag=v1", pushed.digest), &manifest).await;
    assert_eq!(refusal(both).await, code(405, "DENIED"), "one locked tag stops all of them");
    assert_eq!(h.send(Method::HEAD, "/v2/app/manifests/free").await.status(), StatusCode::NOT_FOUND);
    h.stop().await;
}
