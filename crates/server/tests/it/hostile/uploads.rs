//! Uploads and downloads that are taken apart.

use portolan_types::{Algorithm, Digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Target;

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn an_upload_is_its_repositorys_alone() {
    let target = Target::start().await;
    let upload = target.begin("a").await;
    let elsewhere = upload.replacen("/v2/a/", "/v2/b/", 1);
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = target.send(method, &elsewhere, &[], b"").await;
        assert_eq!(answer.refusal(), code(404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
    }
    let put = target.send("PUT", &format!("{elsewhere}?digest={}", Digest::of(b"")), &[], b"").await;
    assert_eq!(put.refusal(), code(404, "BLOB_UPLOAD_UNKNOWN"));
    // And its registry's.
    let other = target.t.site.make_registry("another").await.unwrap();
    let token = target.t.site.token(&other, "repository:a:pull,push").await.unwrap();
    let foreign = Target { t: target.t, login: other, token };
    assert_eq!(foreign.send("PATCH", &upload, &[], b"x").await.refusal(), code(404, "BLOB_UPLOAD_UNKNOWN"));
    let target = Target { t: foreign.t, login: target.login, token: target.token };
    let own = target.send("GET", &upload, &[], b"").await;
    assert_eq!((own.status, own.header("range")), (204, "0-0"));
    target.unharmed().await;
}

#[tokio::test]
async fn chunks_neither_overlap_nor_leave_gaps() {
    let target = Target::start().await;
    let upload = target.begin("a").await;
    let first = target.send("PATCH", &upload, &[("content-range", "0-4")], b"hello").await;
    assert_eq!((first.status, first.header("range")), (202, "0-4"));
    for range in [
        "3-7",
        "6-10",
        "0-4",
        "5-3",
        "5-",
        "-5",
        "x",
        "5-9,11-12",
        "4-8",
        "5-18446744073709551615",
        "18446744073709551611-18446744073709551615",
        "99999999999999999999-99999999999999999999",
    ] {
        let answer = target.send("PATCH", &upload, &[("content-range", range)], b"world").await;
        assert!([400, 416].contains(&answer.status), "{range}: {answer:?}");
        answer.refusal();
        if answer.status == 416 {
            assert_eq!(answer.header("range"), "0-4", "{range}");
        }
    }
    for range in ["5-8", "5-10"] {
        let answer = target.send("PATCH", &upload, &[("content-range", range)], b"world").await;
        assert_eq!(answer.refusal(), code(400, "SIZE_INVALID"), "{range}");
    }
    let second = target.send("PATCH", &upload, &[("content-range", "5-9")], b"world").await;
    assert_eq!((second.status, second.header("range")), (202, "0-9"));
    let done = target.send("PUT", &format!("{upload}?digest={}", Digest::of(b"helloworld")), &[], b"").await;
    assert_eq!(done.status, 201, "{done:?}");
    target.unharmed().await;
}

#[tokio::test]
async fn content_is_had_under_its_digest_only() {
    let target = Target::start().await;
    let sha512 = Digest::of_with(Algorithm::Sha512, b"q");
    for wrong in [
        format!("sha256:{}", "0".repeat(64)),
        format!("sha512:{}", "0".repeat(128)),
        format!("sha512:{}", Digest::of(b"q").hex()),
        format!("sha256:{}", sha512.hex()),
        format!("md5:{}", "0".repeat(32)),
        "..%2f..%2fx".to_owned(),
        String::new(),
    ] {
        let upload = target.begin("a").await;
        let put = target.send("PUT", &format!("{upload}?digest={wrong}"), &[], b"q").await;
        assert_eq!(put.refusal(), code(400, "DIGEST_INVALID"), "{wrong}");
        let whole = target.send("POST", &format!("/v2/a/blobs/uploads/?digest={wrong}"), &[], b"q").await;
        assert!(whole.status == 202 && wrong.is_empty() || whole.status == 400, "{wrong}: {whole:?}");
    }
    let absent = target.send("GET", &format!("/v2/a/blobs/{}", Digest::of(b"q")), &[], b"").await;
    assert_eq!(absent.refusal(), code(404, "BLOB_UNKNOWN"));
    // After a wrong digest there is no way on: the upload is over, or takes the right one.
    let upload = target.begin("a").await;
    target.send("PATCH", &upload, &[], b"q").await;
    let zeros = format!("{upload}?digest=sha256:{}", "0".repeat(64));
    assert_eq!(target.send("PUT", &zeros, &[], b"").await.refusal(), code(400, "DIGEST_INVALID"));
    let again = target.send("PUT", &format!("{upload}?digest={}", Digest::of(b"other")), &[], b"other").await;
    assert!([400, 404].contains(&again.status), "{again:?}");
    let upload = target.begin("a").await;
    assert_eq!(target.send("PUT", &format!("{upload}?digest={sha512}"), &[], b"q").await.status, 201);
    assert_eq!(target.send("GET", &format!("/v2/a/blobs/{sha512}"), &[], b"").await.body, b"q");
    let absent = target.send("GET", &format!("/v2/a/blobs/{}", Digest::of(b"q")), &[], b"").await;
    assert_eq!(absent.refusal(), code(404, "BLOB_UNKNOWN"), "each name for itself");
    target.unharmed().await;
}

#[tokio::test]
async fn ranges_lie_inside() {
    let target = Target::start().await;
    let bytes: Vec<u8> = (0..1_000u32).map(|n| n as u8).collect();
    let path = format!("/v2/a/blobs/{}", target.blob("a", &bytes).await);
    for (range, status, part) in [
        ("bytes=0-0", 206, 0..1),
        ("bytes=999-", 206, 999..1_000),
        ("bytes=0-18446744073709551615", 206, 0..1_000),
        ("bytes=0-99999999999999999999999999", 206, 0..1_000),
        ("bytes=-18446744073709551616", 206, 0..1_000),
        ("bytes=1000-", 416, 0..0),
        ("bytes=18446744073709551615-18446744073709551616", 416, 0..0),
        ("bytes=-0", 416, 0..0),
        ("bytes=+0-1", 200, 0..1_000),
        ("bytes=0x0-1", 200, 0..1_000),
        ("bytes=0--1", 200, 0..1_000),
        ("bytes==", 200, 0..1_000),
        ("bytes=0-0,-1", 200, 0..1_000),
        (&format!("bytes=0-0{}", ",1-1".repeat(1_000)), 200, 0..1_000),
    ] {
        let got = target.send("GET", &path, &[("range", range)], b"").await;
        let shown = &range[..range.len().min(50)];
        assert_eq!(got.status, status, "{shown}");
        match status {
            416 => assert_eq!((got.header("content-range"), got.refusal().0), ("bytes */1000", 416)),
            _ => assert!(got.body == bytes[part.clone()], "{shown}"),
        }
        if status == 206 {
            assert_eq!(got.header("content-range"), format!("bytes {}-{}/1000", part.start, part.end - 1));
        }
    }
    target.unharmed().await;
}

#[tokio::test]
async fn ten_thousand_pieces_are_one_blob() {
    let target = Target::start().await;
    let upload = target.begin("a").await;
    let pieces = "1\r\nx\r\n".repeat(10_000) + "0\r\n\r\n";
    let patch = target.send("PATCH", &upload, &[("transfer-encoding", "chunked")], pieces.as_bytes()).await;
    assert_eq!((patch.status, patch.header("range")), (202, "0-9999"), "{patch:?}");
    // And three hundred requests of one byte.
    let mut stream = target.connect().await;
    for at in 10_000..10_300 {
        let head = format!(
            "PATCH {upload} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: 1\r\ncontent-range: {at}-{at}\r\n\r\nx",
            target.login, target.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 202"), "{at}: {}", String::from_utf8_lossy(&answer));
    }
    let digest = Digest::of(&[b'x'; 10_300]);
    assert_eq!(target.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").await.status, 201);
    target.unharmed().await;
}

#[tokio::test]
async fn what_is_deleted_while_it_is_read_is_read_to_its_end() {
    let target = Target::start().await;
    let bytes: Vec<u8> = (0..16 * 1024 * 1024u32).map(|n| (n ^ (n >> 11)) as u8).collect();
    let path = format!("/v2/a/blobs/{}", target.blob("a", &bytes).await);
    let mut stream = target.connect().await;
    let get = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        target.login, target.token
    );
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut all = vec![0; 4_096];
    stream.read_exact(&mut all).await.unwrap();
    assert_eq!(target.send("DELETE", &path, &[], b"").await.status, 202);
    assert_eq!(target.send("GET", &path, &[], b"").await.refusal(), code(404, "BLOB_UNKNOWN"));
    stream.read_to_end(&mut all).await.unwrap();
    assert!(all.ends_with(&bytes) && all.starts_with(b"HTTP/1.1 200"));
    target.unharmed().await;
}

#[tokio::test]
async fn mounts_show_nothing_that_is_not_ones_own() {
    let target = Target::start().await;
    let digest = target.blob("a", b"mine").await;
    // A repository of the same registry that this token cannot pull.
    let owner = target.t.site.token(&target.login, "repository:secret:pull,push").await.unwrap();
    let secret = target.t.site.push_blob(&target.login, &owner, "secret", b"secret").await.unwrap();
    for (query, status) in [
        (format!("mount={digest}&from=a"), 201),
        (format!("mount={digest}&from=b"), 201),
        // Its owner may, with a token for it: the answer says which.
        (format!("mount={secret}&from=secret"), 401),
        (format!("mount={secret}"), 202),
        (format!("mount={secret}&from=a"), 202),
        (format!("mount={digest}&from=../a"), 202),
        (format!("mount=sha256:{}&from=a", "0".repeat(64)), 202),
    ] {
        let answer = target.send("POST", &format!("/v2/b/blobs/uploads/?{query}"), &[], b"").await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
    let absent = target.send("GET", &format!("/v2/b/blobs/{secret}"), &[], b"").await;
    assert_eq!(absent.refusal(), code(404, "BLOB_UNKNOWN"));
    target.unharmed().await;
}
