//! Requests that two readers might read differently, and paths that lead elsewhere.

use super::{Answer, Target};

/// A begun upload with these headers and body, and behind it another request. A server that
/// takes the second for the body of the first, or the other way round, is one that a proxy
/// can be led past.
#[tokio::test]
async fn ambiguous_requests_are_refused_and_end_their_connection() {
    let target = Target::start().await;
    let base = format!("host: {}\r\nauthorization: Bearer {}\r\n", target.login, target.token);
    let second = format!("GET /v2/smuggled/tags/list HTTP/1.1\r\n{base}\r\n");
    for (headers, body, statuses) in [
        // Both lengths: chunked counts, and nothing more is read (RFC 9112, 6.1).
        ("content-length: 6\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", &[202, 400][..]),
        ("transfer-encoding: chunked\r\ncontent-length: 4\r\n", "0\r\n\r\n", &[202, 400]),
        ("content-length: 0\r\ncontent-length: 5\r\n", "", &[400]),
        ("content-length: 0, 5\r\n", "", &[400]),
        ("content-length: +0\r\n", "", &[400]),
        ("content-length: -1\r\n", "", &[400]),
        ("content-length: 0x0\r\n", "", &[400]),
        ("content-length: 99999999999999999999999\r\n", "", &[400]),
        ("transfer-encoding: xchunked\r\n", "0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n", &[400]),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n", &[400]),
        ("transfer-encoding: \u{b}chunked\r\n", "0\r\n\r\n", &[400]),
        ("transfer-encoding : chunked\r\n", "0\r\n\r\n", &[400]),
        ("x: a\r\n transfer-encoding: chunked\r\n", "0\r\n\r\n", &[400]),
        ("x: a\rtransfer-encoding: chunked\r\n", "0\r\n\r\n", &[400]),
        ("x: a\0\r\n", "", &[400]),
        (": a\r\n", "", &[400]),
    ] {
        let request = format!("POST /v2/a/blobs/uploads/ HTTP/1.1\r\n{base}{headers}\r\n{body}{second}");
        let (answer, closed) = target.raw(request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        let first = Answer::read(&answer).status;
        assert!(closed && statuses.contains(&first), "{headers:?}: {closed} {text}");
        assert_eq!(text.matches("HTTP/1.").count(), 1, "{headers:?}: {text}");
        assert!(!text.contains("smuggled"), "{headers:?}: {text}");
    }
    // HTTP/1.0 has no chunks.
    let request =
        format!("POST /v2/a/blobs/uploads/ HTTP/1.0\r\n{base}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{second}");
    let (answer, closed) = target.raw(request.as_bytes()).await;
    assert!(closed && Answer::read(&answer).status == 400, "{}", String::from_utf8_lossy(&answer));
    target.unharmed().await;
}

#[tokio::test]
async fn the_host_is_one_and_the_same() {
    let target = Target::start().await;
    let sign_in = format!("authorization: Bearer {}\r\nconnection: close\r\n", target.token);
    let login = &target.login;
    for (line, hosts, status) in [
        ("GET /v2/ HTTP/1.1", vec![login.as_str(), "other"], 400),
        ("GET /v2/ HTTP/1.1", vec![login, login], 400),
        ("GET /v2/ HTTP/1.1", vec![], 400),
        ("GET http://other/v2/ HTTP/1.1", vec![login], 404),
        (&format!("GET http://{login}/v2/ HTTP/1.1"), vec!["other"], 200),
        ("GET /v2/ HTTP/1.1", vec![&format!("{login}, other")], 400),
        ("GET /v2/ HTTP/1.1", vec!["other/../x"], 400),
    ] {
        let hosts: String = hosts.iter().map(|h| format!("host: {h}\r\n")).collect();
        let (answer, _) = target.raw(format!("{line}\r\n{hosts}{sign_in}\r\n").as_bytes()).await;
        assert_eq!(Answer::read(&answer).status, status, "{line} {hosts}");
    }
    target.unharmed().await;
}

/// Sizes of chunks that are none, and what may stand beside them, in bounds.
#[tokio::test]
async fn chunks_are_read_to_the_letter() {
    let target = Target::start().await;
    let digest = portolan_types::Digest::of(b"x");
    let many = |what: &str, n: usize| what.repeat(n);
    for (body, whole) in [
        ("1\r\nx\r\n0\r\n\r\n".to_owned(), true),
        ("1;a=b\r\nx\r\n0\r\na: b\r\n\r\n".to_owned(), true),
        ("-1\r\nx\r\n0\r\n\r\n".to_owned(), false),
        ("0x1\r\nx\r\n0\r\n\r\n".to_owned(), false),
        ("1\r\nxY\r\n0\r\n\r\n".to_owned(), false),
        ("1\nx\n0\n\n".to_owned(), false),
        ("FFFFFFFFFFFFFFFFF\r\nx".to_owned(), false),
        (format!("1;{}\r\nx\r\n0\r\n\r\n", many("a", 200_000)), false),
        (format!("1\r\nx\r\n0\r\n{}\r\n", many("a: b\r\n", 20_000)), false),
        (format!("{}0\r\n\r\n", many(&format!("1;{}\r\nx\r\n", many("a", 1_000)), 500)), false),
    ] {
        let path = format!("/v2/a/blobs/uploads/?digest={digest}");
        let answer = target.send("POST", &path, &[("transfer-encoding", "chunked")], body.as_bytes()).await;
        let shown = &body[..body.len().min(60)];
        match whole {
            true => assert_eq!(answer.status, 201, "{shown}: {answer:?}"),
            false => assert_eq!(answer.refusal(), (400, "BLOB_UPLOAD_INVALID".to_owned()), "{shown}"),
        }
    }
    target.unharmed().await;
}

#[tokio::test]
async fn floods_of_headers_and_long_paths_are_cut_off() {
    let target = Target::start().await;
    let many: String = (0..2_000).map(|n| format!("x{n}: y\r\n")).collect();
    let long = |path: String| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    for (request, status) in [
        (format!("GET /v2/ HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431),
        (format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(1024 * 1024)), 431),
        (long(format!("/v2/{}", "a".repeat(100_000))), 414),
        (long(format!("/v2/{}", "a".repeat(20_000))), 414),
        (long(format!("/v2/_catalog?last={}", "a".repeat(20_000))), 414),
    ] {
        let (answer, closed) = target.raw(request.as_bytes()).await;
        let status_was = Answer::read(&answer).status;
        // A server that hangs up over unread bytes may not get its word through.
        assert!(closed && (status_was == status || answer.is_empty()), "{status}: {status_was}");
    }
    target.unharmed().await;
}

#[tokio::test]
async fn no_path_leads_out_of_a_registry() {
    let target = Target::start().await;
    let name = (400, "NAME_INVALID");
    let nothing = (404, "UNSUPPORTED");
    let long = "a/".repeat(200);
    let tag = "t".repeat(129);
    for (path, get, put) in [
        ("/v2/..%2f..%2fetc/passwd/manifests/x", name, name),
        ("/v2/%2e%2e/manifests/x", name, name),
        ("/v2/a/../b/manifests/x", name, name),
        ("/v2/a%00b/manifests/x", name, name),
        ("/v2//a/manifests/x", name, name),
        ("/v2/a\\b/manifests/x", name, name),
        ("/v2/a%5cb/manifests/x", name, name),
        ("/v2/%c0%ae%c0%ae/manifests/x", name, name),
        ("/v2/a%252fb/manifests/x", name, name),
        ("/v2/a;b/manifests/x", name, name),
        ("/v2/A/manifests/x", name, name),
        ("/v2/%d0%b0/manifests/x", name, name),
        (&format!("/v2/{long}manifests/x"), name, name),
        ("/v2/a/manifests/%00", (404, "MANIFEST_UNKNOWN"), (400, "TAG_INVALID")),
        ("/v2/a/manifests/..", (404, "MANIFEST_UNKNOWN"), (400, "TAG_INVALID")),
        ("/v2/a/manifests/%F0%9F%98%80", (404, "MANIFEST_UNKNOWN"), (400, "TAG_INVALID")),
        (&format!("/v2/a/manifests/{tag}"), (404, "MANIFEST_UNKNOWN"), (400, "TAG_INVALID")),
        ("/v2/a/manifests/%2e%2e%2f", nothing, nothing),
        ("/v2/a/blobs/uploads/../../x", nothing, nothing),
        ("/v2/a/blobs/uploads/%2e%2e", (404, "BLOB_UPLOAD_UNKNOWN"), (404, "BLOB_UPLOAD_UNKNOWN")),
        ("/acr/v1/..%2f/_tags", name, name),
        ("/acr/v1/a/_manifests/..", (400, "DIGEST_INVALID"), (400, "DIGEST_INVALID")),
    ] {
        for (method, (status, code)) in [("GET", get), ("PUT", put), ("DELETE", get)] {
            let answer = target.send(method, path, &[("content-type", "application/json")], b"").await;
            assert_eq!(answer.refusal(), (status, code.to_owned()), "{method} {path}");
        }
    }
    // Digests of one function's name and the other's length, and such.
    for digest in [
        &format!("sha256:{}", "a".repeat(128)),
        &format!("sha512:{}", "a".repeat(64)),
        &format!("sha256:{}", "A".repeat(64)),
        &format!("sha256:{}", "g".repeat(64)),
        "sha256:",
    ] {
        for path in ["blobs", "referrers", "manifests"] {
            let answer = target.send("GET", &format!("/v2/a/{path}/{digest}"), &[], b"").await;
            assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".to_owned()), "{path} {digest}");
        }
    }
    let catalog = target.send("GET", "/v2/_catalog", &[], b"").await;
    assert!(String::from_utf8_lossy(&catalog.body).contains("\"repositories\":[]"), "{catalog:?}");
    target.unharmed().await;
}

/// Positions, numbers and filters of lists that no list has.
#[tokio::test]
async fn lists_begin_anywhere_and_are_bounded() {
    let target = Target::start().await;
    target.t.site.push_image(&target.login, "a", "v1", &[b"layer"]).await.unwrap();
    let subject = format!("sha256:{}", "1".repeat(64));
    for last in
        ["%00", "%ff", "%F0%9F%98%80", "..%2f", "%27%20OR%201=1--", "%25", "%5c", "%e2%80%ae", &"z".repeat(4_000)]
    {
        for (path, whole) in [
            ("/v2/_catalog", "\"repositories\""),
            ("/v2/a/tags/list", "\"tags\""),
            (&format!("/v2/a/referrers/{subject}"), "\"manifests\""),
        ] {
            for query in ["last=", "n=1&last=", "n=0&last=", "n=99999999999999999999&last=", "artifactType="] {
                let answer = target.send("GET", &format!("{path}?{query}{last}"), &[], b"").await;
                let text = String::from_utf8_lossy(&answer.body);
                match answer.status {
                    200 => assert!(text.contains(whole), "{path} {query}{last}: {text}"),
                    400 => drop(answer.refusal()),
                    other => panic!("{path} {query}{last}: {other} {text}"),
                }
            }
        }
    }
    for n in ["-1", "x", "1.5", "0x1", "%00", "١"] {
        let answer = target.send("GET", &format!("/v2/_catalog?n={n}"), &[], b"").await;
        assert_eq!(answer.status, 400, "{n}: {answer:?}");
    }
    target.unharmed().await;
}
