//! The edge: headers, ids, methods, time limits.

use std::time::Duration;

use portolan_server::settings::{ByteSize, Positive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestServer;

/// Send raw bytes and read until the server closes.
async fn raw(t: &TestServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn ids_are_ours_and_a_clients_own_is_echoed() {
    let t = TestServer::start().await;
    let url = format!("{}/v2/", t.http());
    let ask = |id: &'static str| t.site.client.get(&url).header("x-ms-client-request-id", id).send();
    let (one, two) = (ask("abc-1").await.unwrap(), ask("not sane").await.unwrap());
    let id = |res: &reqwest::Response, name: &str| res.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    assert_ne!(id(&one, "x-ms-request-id").unwrap(), id(&two, "x-ms-request-id").unwrap());
    assert_eq!(id(&one, "x-ms-request-id"), id(&one, "x-ms-correlation-request-id"));
    assert_eq!(id(&one, "x-ms-client-request-id").as_deref(), Some("abc-1"));
    assert_eq!(id(&two, "x-ms-client-request-id"), None);
    assert_eq!(id(&one, "docker-distribution-api-version").as_deref(), Some("registry/2.0"));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_unknown_path_is_a_404_in_json() {
    let t = TestServer::start().await;
    let res = t.get(format!("{}/no/such/page", t.site.url)).await;
    assert_eq!(res.status(), 404);
    let body: serde_json::Value = res.json().await.unwrap();
    assert_eq!(body["error"]["code"], "NotFound");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let t = TestServer::start().await;
    let request = b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = raw(&t, request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-length: 3\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let res = t.site.client.head(format!("{}/healthz", t.site.url)).send().await.unwrap();
    assert_eq!((res.status().as_u16(), res.headers()["content-length"].to_str().unwrap()), (200, "3"));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn headers_over_the_limit_are_refused_and_the_server_goes_on() {
    let t = TestServer::start_with(|s| s.header_bytes_max = ByteSize(16 * 1024)).await;
    let ask =
        |bytes: usize| t.site.client.get(format!("{}/healthz", t.http())).header("x-long", "a".repeat(bytes)).send();
    assert_eq!(ask(15 * 1024).await.unwrap().status(), 200);
    assert_eq!(ask(17 * 1024).await.unwrap().status(), 431);
    // Far over: hyper's own limit. It answers or hangs up; it does not read on.
    let mut request = b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ".to_vec();
    request.extend(std::iter::repeat_n(b'a', 1024 * 1024));
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    let _ = stream.write_all(&request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(ask(1).await.unwrap().status(), 200);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn bad_requests_do_no_harm() {
    let t = TestServer::start().await;
    for request in [
        &b"\x16\x03\x01\x00\x00 this is not http\r\n\r\n"[..],
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        let answer = raw(&t, request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"), "{answer}");
    }
    // Plain HTTP to the TLS port.
    let mut stream = TcpStream::connect(t.server.https).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(t.get(format!("{}/healthz", t.site.url)).await.status(), 200);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let t = TestServer::start_with(|s| {
        s.header_read_timeout_secs = Positive(1);
        s.tls_handshake_timeout_secs = Positive(1);
        s.body_idle_timeout_secs = Positive(1);
    })
    .await;
    let closes = async |addr: std::net::SocketAddr, first: &[u8]| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut answer = Vec::new();
        // Far above the limit: only a connection that is never closed fails here.
        let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.expect("closed");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let http = t.server.http.unwrap();
    closes(http, b"GET /v2/ HTTP/1.1\r\nhost:").await;
    closes(t.server.https, b"\x16\x03\x01").await;
    let form = b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\ncontent-type: application/x-www-form-urlencoded\r\n\r\ngrant_type=";
    let answer = closes(http, form).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn connections_over_the_limit_wait_and_are_served() {
    let t = TestServer::start_with(|s| s.connections_max = Positive(2)).await;
    let addr = t.server.http.unwrap();
    let one = TcpStream::connect(addr).await.unwrap();
    let two = TcpStream::connect(addr).await.unwrap();
    let waiting = tokio::spawn(async move {
        let mut three = TcpStream::connect(addr).await.unwrap();
        three.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        three.read_to_string(&mut answer).await.unwrap();
        answer
    });
    drop((one, two));
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 200"));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_body_is_asked_for_before_it_is_sent() {
    let t = TestServer::start().await;
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    let head = b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\ncontent-type: application/x-www-form-urlencoded\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"grant_type").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 4"), "{rest}");
    t.server.shutdown().await.unwrap();
}
