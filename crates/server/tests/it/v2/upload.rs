//! Pushing blobs: in one request, in two, in chunks; status, resuming, cancelling.

use super::*;

/// Whether there is a UUID in the last part of a location.
fn ends_in_a_uuid(location: &str) -> bool {
    let id = location.rsplit('/').next().unwrap();
    id.len() == 36 && id.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-')
}

#[tokio::test]
async fn post_then_put() {
    let h = Hub::start().await;
    let begun = h.send(Method::POST, "/v2/app/blobs/uploads/").await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    assert_eq!((head(&begun, "range"), head(&begun, "content-length")), ("0-0", "0"));
    let location = head(&begun, "location");
    assert!(location.starts_with("/v2/app/blobs/uploads/") && ends_in_a_uuid(location), "{location}");
    assert!(location.ends_with(head(&begun, "docker-upload-uuid")));
    assert_eq!(head(&begun, "oci-chunk-min-length"), "", "chunks of any size are taken");
    let digest = Digest::of(b"content");
    let put =
        h.ask(Method::PUT, format!("{location}?digest={digest}")).header("content-type", "application/octet-stream");
    let res = put.body("content").send().await.unwrap();
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(head(&res, "docker-content-digest"), digest.to_string());
    assert_eq!(head(&res, "location"), format!("/v2/app/blobs/{digest}"));
    assert_eq!(h.send(Method::GET, head(&res, "location")).await.text().await.unwrap(), "content");
    // With no slash at the end, as some clients write it, and for an empty blob.
    let begun = h.send(Method::POST, "/v2/app/blobs/uploads").await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let empty = Digest::of(b"");
    let res = h.send(Method::PUT, format!("{}?digest={empty}", head(&begun, "location"))).await;
    assert_eq!(res.status(), StatusCode::CREATED);
    h.stop().await;
}

#[tokio::test]
async fn one_post() {
    let h = Hub::start().await;
    let digest = Digest::of(b"whole");
    let post = |body: &'static str| h.ask(Method::POST, format!("/v2/app/blobs/uploads/?digest={digest}")).body(body);
    let res = post("whole").send().await.unwrap();
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(head(&res, "location"), format!("/v2/app/blobs/{digest}"));
    assert_eq!(head(&res, "docker-content-digest"), digest.to_string());
    assert_eq!(h.send(Method::GET, head(&res, "location")).await.text().await.unwrap(), "whole");
    for wrong in ["something else", ""] {
        assert_eq!(refusal(post(wrong).send().await.unwrap()).await, code(400, "DIGEST_INVALID"));
    }
    for bad in ["sha256:12", "md5:d41d8cd98f00b204e9800998ecf8427e", "nonsense"] {
        let res = h.ask(Method::POST, format!("/v2/app/blobs/uploads/?digest={bad}")).body("whole");
        assert_eq!(refusal(res.send().await.unwrap()).await, code(400, "DIGEST_INVALID"), "{bad}");
    }
    h.stop().await;
}

#[tokio::test]
async fn in_chunks() {
    let h = Hub::start().await;
    let upload = h.start_upload("app").await;
    let patch = async |range: Option<&str>, bytes: &'static str| {
        let mut req = h.ask(Method::PATCH, &upload).header("content-type", "application/octet-stream").body(bytes);
        if let Some(range) = range {
            req = req.header("content-range", range);
        }
        req.send().await.unwrap()
    };
    // The first must begin with 0.
    let res = patch(Some("1-5"), "01234").await;
    assert_eq!((res.status().as_u16(), head(&res, "range"), head(&res, "location")), (416, "0-0", upload.as_str()));
    let res = patch(Some("0-4"), "01234").await;
    assert_eq!((res.status().as_u16(), head(&res, "range")), (202, "0-4"));
    assert_eq!(head(&res, "location"), upload);
    // Again, with a gap, with an overlap, not in the form of a range.
    for wrong in ["0-4", "7-11", "4-8", "five", "5", "9-5", ""] {
        let res = patch(Some(wrong), "56789").await;
        assert_eq!((head(&res, "range"), head(&res, "location")), ("0-4", upload.as_str()), "{wrong}");
        assert_eq!(refusal(res).await, code(416, "BLOB_UPLOAD_INVALID"), "{wrong}");
    }
    assert_eq!(refusal(patch(Some("5-7"), "56789").await).await, code(400, "SIZE_INVALID"));
    let status = h.send(Method::GET, &upload).await;
    assert_eq!((status.status().as_u16(), head(&status, "range")), (204, "0-4"), "and none of that was taken");
    // Streamed, with no range.
    let res = patch(None, "567").await;
    assert_eq!((res.status().as_u16(), head(&res, "range")), (202, "0-7"));
    // The rest comes with the PUT that ends it, which must be in its place as well.
    let digest = Digest::of(b"0123456789");
    let end =
        |range: &str| h.ask(Method::PUT, format!("{upload}?digest={digest}")).header("content-range", range).body("89");
    let res = end("7-8").send().await.unwrap();
    assert_eq!((res.status().as_u16(), head(&res, "range")), (416, "0-7"));
    let res = end("8-9").send().await.unwrap();
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(head(&res, "location"), format!("/v2/app/blobs/{digest}"));
    assert_eq!(head(&res, "docker-content-digest"), digest.to_string());
    assert_eq!(h.send(Method::GET, head(&res, "location")).await.text().await.unwrap(), "0123456789");
    assert_eq!(refusal(h.send(Method::GET, &upload).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    h.stop().await;
}

#[tokio::test]
async fn status_of_an_upload() {
    let h = Hub::start().await;
    let upload = h.start_upload("app").await;
    for (bytes, range) in [("", "0-0"), ("a", "0-0"), ("bc", "0-2")] {
        if !bytes.is_empty() {
            assert_eq!(h.ask(Method::PATCH, &upload).body(bytes).send().await.unwrap().status(), 202);
        }
        let res = h.send(Method::GET, &upload).await;
        assert_eq!((res.status(), head(&res, "range")), (StatusCode::NO_CONTENT, range));
        assert_eq!(head(&res, "location"), upload);
        assert!(res.headers().get("content-length").is_none(), "204 has no length");
    }
    let nonsense = h.send(Method::GET, "/v2/app/blobs/uploads/not-a-uuid").await;
    assert_eq!(refusal(nonsense).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    h.stop().await;
}

#[tokio::test]
async fn what_ends_an_upload() {
    let h = Hub::start().await;
    let digest = Digest::of(b"whole");
    // No digest: it goes on.
    let upload = h.start_upload("app").await;
    assert_eq!(refusal(h.ask(Method::PUT, &upload).body("x").send().await.unwrap()).await, code(400, "DIGEST_INVALID"));
    assert_eq!(h.send(Method::GET, &upload).await.status(), StatusCode::NO_CONTENT);
    // Another digest: it is over.
    let res = h.ask(Method::PUT, format!("{upload}?digest={digest}")).body("not it").send().await.unwrap();
    assert_eq!(refusal(res).await, code(400, "DIGEST_INVALID"));
    assert_eq!(refusal(h.send(Method::GET, &upload).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    // A cancel.
    let upload = h.start_upload("app").await;
    assert_eq!(h.send(Method::DELETE, &upload).await.status(), StatusCode::NO_CONTENT);
    for method in [Method::GET, Method::DELETE, Method::PATCH] {
        assert_eq!(refusal(h.send(method, &upload).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    }
    let res = h.send(Method::PUT, format!("{upload}?digest={digest}")).await;
    assert_eq!(refusal(res).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    h.stop().await;
}

#[tokio::test]
async fn an_upload_is_resumed_where_it_broke_off() {
    let h = Hub::start().await;
    let upload = h.start_upload("app").await;
    // A client that says ten bytes, sends four and goes away.
    let broken = async {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(h.t.server.http.unwrap()).await.unwrap();
        let head = format!(
            "PATCH {upload} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-range: 0-9\r\ncontent-length: 10\r\n\r\n0123",
            h.login, h.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    broken.await;
    // However much came, the status says it, and the rest is taken from there on.
    let held = loop {
        let res = h.send(Method::GET, &upload).await;
        assert_eq!(res.status(), StatusCode::NO_CONTENT);
        let (_, last) = head(&res, "range").split_once('-').unwrap();
        let last: usize = last.parse().unwrap();
        // Until the server has seen the end of the connection the upload is being written.
        let next = if last == 0 { 0 } else { last + 1 };
        let rest = &"0123456789"[next..];
        let req = h.ask(Method::PATCH, &upload).header("content-range", format!("{next}-9")).body(rest);
        let res = req.send().await.unwrap();
        match res.status().as_u16() {
            202 => break head(&res, "range").to_owned(),
            409 | 416 => tokio::task::yield_now().await,
            other => panic!("{other}"),
        }
    };
    assert_eq!(held, "0-9");
    let digest = Digest::of(b"0123456789");
    assert_eq!(h.send(Method::PUT, format!("{upload}?digest={digest}")).await.status(), StatusCode::CREATED);
    h.stop().await;
}
