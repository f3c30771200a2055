//! Manifests that are meant to hurt.

use portolan_types::{Digest, media_type};
use serde_json::{Value, json};

use super::Target;

const REFUSED: (u16, &str) = (400, "MANIFEST_INVALID");

#[tokio::test]
async fn manifests_that_are_meant_to_hurt_are_refused() {
    let target = Target::start().await;
    let config = target.blob("a", b"{}").await;
    let descriptor = |size: Value| json!({"mediaType": media_type::OCI_CONFIG, "digest": config, "size": size});
    let image = |layers: usize| {
        let layers = vec![descriptor(json!(2)); layers];
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": descriptor(json!(2)), "layers": layers})
    };
    let good = image(1).to_string();
    let sized = |size: &str| good.replacen("\"size\":2", &format!("\"size\":{size}"), 1);
    let missing: Vec<Value> =
        (0..9_000).map(|n| json!({"mediaType": "a/b", "digest": format!("sha256:{n:064x}"), "size": 1})).collect();
    let mut absent = image(0);
    absent["layers"] = json!(missing);
    for (what, manifest, refusal) in [
        ("deep lists", "[".repeat(100_000), REFUSED),
        ("deep objects", "{\"config\":".repeat(100_000), REFUSED),
        ("too many layers", image(10_001).to_string(), REFUSED),
        ("too large", format!("{}{}", " ".repeat(4 * 1024 * 1024), good), (413, "SIZE_INVALID")),
        ("layers that are not there", absent.to_string(), (404, "MANIFEST_BLOB_UNKNOWN")),
        ("a member twice", good.replacen('{', "{\"schemaVersion\":2,", 1), REFUSED),
        ("a digest twice", good.replacen("\"digest\"", &format!("\"digest\":\"{config}\",\"digest\""), 1), REFUSED),
        ("a negative size", sized("-1"), REFUSED),
        ("a size of 65 bits", sized("18446744073709551616"), REFUSED),
        ("a size that is a fraction", sized("2.5"), REFUSED),
        ("a size that is a text", sized("\"2\""), REFUSED),
        ("half a character", good.replacen('{', "{\"annotations\":{\"a\":\"\\ud800\"},", 1), REFUSED),
        ("a mark of byte order", format!("\u{feff}{good}"), REFUSED),
        ("two documents", format!("{good}{{}}"), REFUSED),
        ("none", String::new(), REFUSED),
        ("null", "null".to_owned(), REFUSED),
        ("a type that no header can carry", good.replacen("application/vnd", "a\\r\\nb: c", 1), REFUSED),
    ] {
        let typed: &[(&str, &str)] =
            if what.starts_with("a type") { &[] } else { &[("content-type", media_type::OCI_MANIFEST)] };
        let answer = target.send("PUT", "/v2/a/manifests/t", typed, manifest.as_bytes()).await;
        assert_eq!(answer.refusal(), (refusal.0, refusal.1.to_owned()), "{what}");
    }
    for (reference, code) in [
        (format!("sha256:{}", "0".repeat(64)), "DIGEST_INVALID"),
        (Digest::of_with(portolan_types::Algorithm::Sha512, b"other").to_string(), "DIGEST_INVALID"),
    ] {
        let path = format!("/v2/a/manifests/{reference}");
        let answer = target.send("PUT", &path, &[("content-type", media_type::OCI_MANIFEST)], good.as_bytes()).await;
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{reference}");
    }
    let tags = target.send("GET", "/v2/a/tags/list", &[], b"").await;
    assert!(!String::from_utf8_lossy(&tags.body).contains("\"t\""), "nothing was kept: {tags:?}");
    target.unharmed().await;
}

/// Odd documents that are allowed: they are kept, and cost nobody anything.
#[tokio::test]
async fn odd_manifests_are_kept_and_do_no_harm() {
    let target = Target::start().await;
    let config = target.blob("a", b"{}").await;
    let descriptor = |size: u64| {
        json!({"mediaType": media_type::OCI_CONFIG, "digest": config, "size": size,
        "urls": ["http://169.254.169.254/latest"], "data": "aGk="})
    };
    let subject = format!("sha256:{}", "1".repeat(64));
    let image = |size: u64| {
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": descriptor(size),
            "layers": [descriptor(size), descriptor(size)], "artifactType": "a\r\nx: y",
            "subject": {"mediaType": "a/b", "digest": subject, "size": u64::MAX}, "annotations": {"\0": "\u{202e}"}})
    };
    for size in [2, 1 << 63, u64::MAX] {
        let manifest = image(size).to_string();
        let headers = [("content-type", media_type::OCI_MANIFEST)];
        let put = target.send("PUT", "/v2/a/manifests/t", &headers, manifest.as_bytes()).await;
        // Sizes that do not add up may be refused; what is taken is whole.
        assert!([201, 400].contains(&put.status), "{put:?}");
        if put.status == 201 {
            let got = target.send("GET", "/v2/a/manifests/t", &[], b"").await;
            assert_eq!((got.status, got.body), (200, manifest.into_bytes()));
        }
    }
    // Nested to any depth where nobody looks.
    let nested = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let put =
        target.send("PUT", "/v2/a/manifests/n", &[("content-type", "application/x+json")], nested.as_bytes()).await;
    assert_eq!(put.status, 201, "{put:?}");
    for path in ["/acr/v1/a/_manifests", "/acr/v1/a/_tags", "/acr/v1/a"] {
        assert_eq!(target.send("GET", path, &[], b"").await.status, 401, "{path} needs another right");
    }
    let referrers =
        target.send("GET", &format!("/v2/a/referrers/{subject}?artifactType=a%0d%0ax:%20y"), &[], b"").await;
    let list: Value = serde_json::from_slice(&referrers.body).unwrap();
    assert!(list["manifests"].as_array().is_some_and(|m| !m.is_empty()), "{list}");
    target.unharmed().await;
}

/// Each index has the one before in it; the last is deleted, and the repository with it.
#[tokio::test]
async fn a_long_chain_of_indexes_is_no_deep_call() {
    let target = Target::start().await;
    let config = target.blob("a", b"{}").await;
    let descriptor = json!({"mediaType": media_type::OCI_CONFIG, "digest": config, "size": 2});
    let mut document = json!({"schemaVersion": 2, "config": descriptor, "layers": []}).to_string();
    let mut kind = media_type::OCI_MANIFEST;
    for _ in 0..300 {
        let put = target.send("PUT", "/v2/a/manifests/chain", &[("content-type", kind)], document.as_bytes()).await;
        assert_eq!(put.status, 201, "{put:?}");
        let child = json!({"mediaType": kind, "digest": Digest::of(document.as_bytes()), "size": document.len()});
        document = json!({"schemaVersion": 2, "manifests": [child]}).to_string();
        kind = media_type::OCI_INDEX;
    }
    let pulled = target.send("GET", "/v2/a/manifests/chain", &[], b"").await;
    assert_eq!(pulled.status, 200);
    let digest = Digest::of(&pulled.body);
    assert_eq!(target.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").await.status, 202);
    target.unharmed().await;
}
