//! Pulling: manifests and blobs, whole, in part, under conditions.

use portolan_types::digest::Algorithm;

use super::*;

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
        assert_eq!(only_head.status(), StatusCode::OK);
        assert_eq!(head(&only_head, "content-length"), pushed.manifest.len().to_string());
        assert_eq!(head(&only_head, "content-type"), media_type::OCI_MANIFEST);
        assert_eq!(head(&only_head, "docker-content-digest"), digest);
        assert!(only_head.bytes().await.unwrap().is_empty());
    }
    h.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_a_404() {
    let h = Hub::start().await;
    let absent = Digest::of(b"absent");
    assert_eq!(refusal(h.send(Method::GET, "/v2/app/manifests/v1").await).await, code(404, "NAME_UNKNOWN"));
    h.image("app", "v1", "x").await;
    for (reference, expect) in [
        ("v9".to_owned(), code(404, "MANIFEST_UNKNOWN")),
        (absent.to_string(), code(404, "MANIFEST_UNKNOWN")),
        (".bad".to_owned(), code(404, "MANIFEST_UNKNOWN")),
        ("a".repeat(129), code(404, "MANIFEST_UNKNOWN")),
        ("sha256:baddigeststring".to_owned(), code(400, "DIGEST_INVALID")),
        ("md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), code(400, "DIGEST_INVALID")),
    ] {
        let path = format!("/v2/app/manifests/{reference}");
        assert_eq!(refusal(h.send(Method::GET, &path).await).await, expect, "{reference}");
        let only_head = h.send(Method::HEAD, &path).await;
        assert_eq!(only_head.status().as_u16(), expect.0);
        assert!(only_head.bytes().await.unwrap().is_empty());
    }
    assert_eq!(h.send(Method::HEAD, format!("/v2/app/blobs/{absent}")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(refusal(h.send(Method::GET, format!("/v2/app/blobs/{absent}")).await).await, code(404, "BLOB_UNKNOWN"));
    assert_eq!(refusal(h.send(Method::GET, "/v2/app/blobs/sha256:12").await).await, code(400, "DIGEST_INVALID"));
    for name in ["UPPER", "a..b", "a___b", "-a", "a-", "a/-/b"] {
        let res = h.send(Method::GET, format!("/v2/{name}/manifests/v1")).await;
        assert_eq!(refusal(res).await, code(400, "NAME_INVALID"), "{name}");
    }
    h.stop().await;
}

#[tokio::test]
async fn a_manifest_is_served_whatever_is_accepted() {
    // "MUST provide the expected manifest, with a response code that MUST be `200 OK`."
    let h = Hub::start().await;
    let digest = h.image("app", "v1", "x").await.digest;
    for reference in ["v1".to_owned(), digest.to_string()] {
        let path = format!("/v2/app/manifests/{reference}");
        for accept in [
            media_type::OCI_MANIFEST,
            "*/*",
            "application/*;q=0.5, text/html",
            media_type::DOCKER_MANIFEST,
            "text/html",
            "application/vnd.oci.image.manifest.v1+json;q=0",
            "",
        ] {
            let got = h.with(Method::GET, &path, "accept", accept).await;
            assert_eq!(got.status(), StatusCode::OK, "{accept}");
            // Never with parameters.
            assert_eq!(head(&got, "content-type"), media_type::OCI_MANIFEST, "{accept}");
            assert_eq!(head(&got, "vary"), "", "it does not vary");
        }
    }
    h.stop().await;
}

#[tokio::test]
async fn a_client_that_knows_no_indexes_gets_the_image_of_a_tag() {
    let h = Hub::start().await;
    let amd64 = h.image("app", "amd64", "for amd64").await;
    let arm64 = h.image("app", "arm64", "for arm64").await;
    let index =
        index_of(&[(&arm64.digest, arm64.manifest.len(), "arm64"), (&amd64.digest, amd64.manifest.len(), "amd64")]);
    let bytes = serde_json::to_vec(&index).unwrap();
    assert_eq!(h.put_as("app", "multi", media_type::OCI_INDEX, bytes.clone()).await.status(), 201);
    let digest = Digest::of(&bytes);
    let docker_and_oci = format!("{}, {}", media_type::DOCKER_MANIFEST, media_type::OCI_MANIFEST);
    for (reference, accept, expect) in [
        // Docker's registry: "an image manifest for linux/amd64".
        ("multi".to_owned(), media_type::OCI_MANIFEST, &amd64.digest),
        ("multi".to_owned(), docker_and_oci.as_str(), &amd64.digest),
        ("multi".to_owned(), media_type::OCI_INDEX, &digest),
        ("multi".to_owned(), "*/*", &digest),
        ("multi".to_owned(), "", &digest),
        // An image of a type that is not asked for either is no help.
        ("multi".to_owned(), media_type::DOCKER_MANIFEST, &digest),
        // A digest names one document.
        (digest.to_string(), media_type::OCI_MANIFEST, &digest),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let res = h.with(method, format!("/v2/app/manifests/{reference}"), "accept", accept).await;
            assert_eq!(res.status(), StatusCode::OK);
            assert_eq!(head(&res, "docker-content-digest"), expect.to_string(), "{reference} {accept:?}");
            let varies = reference == "multi";
            assert_eq!(head(&res, "vary"), if varies { "accept" } else { "" });
        }
    }
    // With no image for it there is only the index.
    let alone = index_of(&[(&arm64.digest, arm64.manifest.len(), "arm64")]);
    assert_eq!(
        h.put_as("app", "alone", media_type::OCI_INDEX, serde_json::to_vec(&alone).unwrap()).await.status(),
        201
    );
    let res = h.with(Method::GET, "/v2/app/manifests/alone", "accept", media_type::OCI_MANIFEST).await;
    assert_eq!(head(&res, "content-type"), media_type::OCI_INDEX);
    h.stop().await;
}

#[tokio::test]
async fn conditions_of_get_and_head() {
    let h = Hub::start().await;
    let pushed = h.image("app", "v1", "layer").await;
    let blob = pushed.layers[0];
    for (path, digest) in [
        ("/v2/app/manifests/v1".to_owned(), pushed.digest),
        (format!("/v2/app/manifests/{}", pushed.digest), pushed.digest),
        (format!("/v2/app/blobs/{blob}"), blob),
    ] {
        let etag = format!("\"{digest}\"");
        for method in [Method::GET, Method::HEAD] {
            for (name, value, status) in [
                ("if-none-match", etag.clone(), 304),
                ("if-none-match", format!("W/{etag}"), 304),
                ("if-none-match", format!("\"other\", {etag}"), 304),
                ("if-none-match", "*".to_owned(), 304),
                ("if-none-match", "\"other\"".to_owned(), 200),
                ("if-match", etag.clone(), 200),
                ("if-match", "*".to_owned(), 200),
                ("if-match", "\"other\"".to_owned(), 412),
                ("if-match", format!("W/{etag}"), 412),
                // There is no date to compare it with.
                ("if-modified-since", "Mon, 01 Jan 2035 00:00:00 GMT".to_owned(), 200),
            ] {
                let res = h.with(method.clone(), &path, name, &value).await;
                assert_eq!(res.status().as_u16(), status, "{method} {path} {name}: {value}");
                if status == 304 {
                    assert_eq!(head(&res, "etag"), etag);
                    assert_eq!(head(&res, "docker-content-digest"), digest.to_string());
                    assert!(res.bytes().await.unwrap().is_empty());
                }
            }
        }
        // What is not there is not "not modified".
        let absent = path.replace(&digest.to_string(), &Digest::of(b"absent").to_string()).replace("v1", "v9");
        assert_eq!(h.with(Method::GET, &absent, "if-none-match", "*").await.status(), StatusCode::NOT_FOUND);
    }
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
    assert_eq!(got.status(), StatusCode::OK);
    assert_eq!(head(&got, "docker-content-digest"), digest.to_string());
    assert_eq!(head(&got, "etag"), format!("\"{digest}\""));
    assert_eq!(got.bytes().await.unwrap(), &b"0123456789"[..]);
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=0-0", 206, "bytes 0-0/10", "0"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=-99", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=5-100", 206, "bytes 5-9/10", "56789"),
        ("Bytes=2-4", 206, "bytes 2-4/10", "234"),
        // Several ranges, another unit, nonsense: a server may ignore the header.
        ("bytes=0-1,3-4", 200, "", "0123456789"),
        ("lines=0-1", 200, "", "0123456789"),
        ("bytes=a-b", 200, "", "0123456789"),
    ] {
        let res = h.with(Method::GET, &path, "range", range).await;
        assert_eq!((res.status().as_u16(), head(&res, "content-range")), (status, content_range), "{range}");
        assert_eq!(head(&res, "content-length"), body.len().to_string(), "{range}");
        assert_eq!(res.text().await.unwrap(), body, "{range}");
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=5-2"] {
        let res = h.with(Method::GET, &path, "range", range).await;
        assert_eq!((res.status().as_u16(), head(&res, "content-range")), (416, "bytes */10"), "{range}");
        assert_eq!(refusal(res).await, code(416, "SIZE_INVALID"));
    }
    // HEAD has no ranges (RFC 9110, section 14.2).
    assert_eq!(h.with(Method::HEAD, &path, "range", "bytes=2-4").await.status(), StatusCode::OK);
    h.stop().await;
}

#[tokio::test]
async fn a_part_only_of_what_the_client_has() {
    let h = Hub::start().await;
    let digest = h.blob("app", b"0123456789").await;
    let path = format!("/v2/app/blobs/{digest}");
    for (validator, status) in [
        (format!("\"{digest}\""), 206),
        ("\"old\"".to_owned(), 200),
        (format!("W/\"{digest}\""), 200),
        ("Mon, 01 Jan 2035 00:00:00 GMT".to_owned(), 200),
    ] {
        let req = h.ask(Method::GET, &path).header("range", "bytes=2-4").header("if-range", &validator);
        assert_eq!(req.send().await.unwrap().status().as_u16(), status, "{validator}");
    }
    // A blob of nothing has no part.
    let empty = h.blob("app", b"").await;
    let res = h.with(Method::GET, format!("/v2/app/blobs/{empty}"), "range", "bytes=0-").await;
    assert_eq!((res.status().as_u16(), head(&res, "content-range")), (416, "bytes */0"));
    let res = h.send(Method::GET, format!("/v2/app/blobs/{empty}")).await;
    assert_eq!((res.status().as_u16(), head(&res, "content-length")), (200, "0"));
    h.stop().await;
}

#[tokio::test]
async fn sha512_from_end_to_end() {
    let h = Hub::start().await;
    let sha512 = |bytes: &[u8]| Digest::of_with(Algorithm::Sha512, bytes);
    let layer = b"a layer under the longer hash";
    // By POST and PUT, in one POST, in chunks.
    let upload = h.send(Method::POST, "/v2/app/blobs/uploads/?digest-algorithm=sha512").await;
    assert_eq!(upload.status(), StatusCode::ACCEPTED);
    let upload = head(&upload, "location").to_owned();
    assert_eq!(h.ask(Method::PATCH, &upload).body(&layer[..10]).send().await.unwrap().status(), 202);
    let end = format!("{upload}?digest={}", sha512(layer));
    let res = h.ask(Method::PUT, end).body(&layer[10..]).send().await.unwrap();
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(head(&res, "location"), format!("/v2/app/blobs/{}", sha512(layer)));
    assert_eq!(h.send(Method::GET, head(&res, "location")).await.bytes().await.unwrap(), &layer[..]);
    let part = h.with(Method::GET, format!("/v2/app/blobs/{}", sha512(layer)), "range", "bytes=2-6").await;
    assert_eq!(part.text().await.unwrap(), "layer");
    let whole = format!("/v2/app/blobs/uploads/?digest={}", sha512(b"{}"));
    assert_eq!(h.ask(Method::POST, &whole).body("{}").send().await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(
        refusal(h.ask(Method::POST, &whole).body("[]").send().await.unwrap()).await,
        code(400, "DIGEST_INVALID")
    );
    let unknown = h.send(Method::POST, "/v2/app/blobs/uploads/?digest-algorithm=blake3").await;
    assert_eq!(refusal(unknown).await, code(400, "DIGEST_INVALID"));
    // The other algorithm's digest of the same bytes names nothing.
    let other = format!("/v2/app/blobs/{}", Digest::of(layer));
    assert_eq!(h.send(Method::HEAD, other).await.status(), StatusCode::NOT_FOUND);

    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": sha512(b"{}"), "size": 2},
        "layers": [{"mediaType": media_type::OCI_LAYER, "digest": sha512(layer), "size": layer.len()}]});
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let (long, short) = (sha512(&bytes), Digest::of(&bytes));
    // Under its sha512 digest and two tags at once.
    let res = h.put("app", &format!("{long}?tag=long&tag=long-too"), &manifest).await;
    assert_eq!((res.status(), head(&res, "docker-content-digest")), (StatusCode::CREATED, long.to_string().as_str()));
    assert_eq!(head(&res, "location"), format!("/v2/app/manifests/{long}"));
    // The same bytes by a tag alone are named by sha256.
    let res = h.put("app", "short", &manifest).await;
    assert_eq!(head(&res, "docker-content-digest"), short.to_string());
    for (reference, digest) in [
        ("long".to_owned(), long),
        ("long-too".to_owned(), long),
        (long.to_string(), long),
        ("short".to_owned(), short),
    ] {
        let got = h.send(Method::GET, format!("/v2/app/manifests/{reference}")).await;
        assert_eq!(head(&got, "docker-content-digest"), digest.to_string());
        assert_eq!(got.bytes().await.unwrap(), bytes);
    }
    let wrong = sha512(b"something else").to_string();
    assert_eq!(refusal(h.put("app", &wrong, &manifest).await).await, code(400, "DIGEST_INVALID"));
    // A referrer of a sha512 subject.
    let signature = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/sig",
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": sha512(b"{}"), "size": 2}, "layers": [],
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": long, "size": bytes.len()}});
    let res = h.put("app", "sig", &signature).await;
    assert_eq!(head(&res, "oci-subject"), long.to_string());
    let list = h.json(format!("/v2/app/referrers/{long}")).await;
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(h.send(Method::DELETE, format!("/v2/app/manifests/{long}")).await.status(), StatusCode::ACCEPTED);
    assert_eq!(h.send(Method::HEAD, "/v2/app/manifests/long").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(h.send(Method::HEAD, "/v2/app/manifests/short").await.status(), StatusCode::OK);
    h.stop().await;
}
