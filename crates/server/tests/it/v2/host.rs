//! The base, and for whom a request is: the parts of HTTP before the specification begins.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Send raw bytes to the plain listener and read until the server closes.
async fn raw(h: &Hub, request: &str) -> String {
    let mut stream = TcpStream::connect(h.t.server.http.unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_base_wants_a_sign_in() {
    let h = Hub::start().await;
    let bare = h.t.get(format!("https://{}/v2/", h.login)).await;
    assert_eq!(head(&bare, "docker-distribution-api-version"), "registry/2.0");
    let realm = format!("Bearer realm=\"https://{0}/oauth2/token\",service=\"{0}\"", h.login);
    assert_eq!(head(&bare, "www-authenticate"), realm);
    assert_eq!(refusal(bare).await, code(401, "UNAUTHORIZED"));
    for method in [Method::GET, Method::HEAD] {
        let base = h.send(method, "/v2/").await;
        assert_eq!((base.status(), head(&base, "docker-distribution-api-version")), (StatusCode::OK, "registry/2.0"));
    }
    assert_eq!(h.send(Method::GET, "/v2").await.status(), StatusCode::OK);
    let bare = h.t.get(format!("https://{}/v2/a/b/tags/list", h.login)).await;
    assert_eq!(head(&bare, "www-authenticate"), format!("{realm},scope=\"repository:a/b:pull\""));
    let elsewhere = h.t.site.client.get(format!("{}/v2/", h.t.http())).header("host", "unknown.example");
    assert_eq!(refusal(elsewhere.send().await.unwrap()).await, code(404, "NAME_UNKNOWN"));
    h.stop().await;
}

#[tokio::test]
async fn a_request_names_one_host() {
    let h = Hub::start().await;
    let login = &h.login;
    let close = "connection: close\r\n\r\n";
    for (hosts, status) in [
        (format!("host: {login}\r\n"), "401"),
        (format!("host: {login}\r\nhost: {login}\r\n"), "400"),
        (format!("host: {login}\r\nHost: other.example\r\n"), "400"),
        (String::new(), "400"),
        ("host: a/b\r\n".to_owned(), "400"),
        (format!("host: me@{login}\r\n"), "400"),
    ] {
        let answer = raw(&h, &format!("GET /v2/ HTTP/1.1\r\n{hosts}{close}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{hosts:?}: {answer}");
    }
    // Other doors refuse it in their own words.
    let answer = raw(&h, &format!("GET /tenants HTTP/1.1\r\nhost: a\r\nhost: b\r\n{close}")).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"InvalidHost\""), "{answer}");
    h.stop().await;
}

#[tokio::test]
async fn a_405_says_what_is_allowed() {
    let h = Hub::start().await;
    let digest = Digest::of(b"x");
    for (method, path, allowed) in [
        (Method::POST, "/v2/".to_owned(), "GET, HEAD"),
        (Method::DELETE, "/v2/_catalog".to_owned(), "GET, HEAD"),
        (Method::PUT, "/v2/app/tags/list".to_owned(), "GET, HEAD"),
        (Method::POST, format!("/v2/app/referrers/{digest}"), "GET, HEAD"),
        (Method::POST, "/v2/app/manifests/v1".to_owned(), "GET, HEAD, PUT, DELETE"),
        (Method::PUT, format!("/v2/app/blobs/{digest}"), "GET, HEAD, DELETE"),
        (Method::GET, "/v2/app/blobs/uploads/".to_owned(), "POST"),
        (Method::POST, "/v2/app/blobs/uploads/123".to_owned(), "GET, HEAD, PATCH, PUT, DELETE"),
    ] {
        let res = h.send(method.clone(), &path).await;
        assert_eq!(head(&res, "allow"), allowed, "{method} {path}");
        assert_eq!(refusal(res).await, code(405, "UNSUPPORTED"), "{method} {path}");
    }
    h.stop().await;
}

#[tokio::test]
async fn no_warnings_are_sent() {
    // "Warning" is for what the registry wants its users to be told; it has nothing to say.
    let h = Hub::start().await;
    h.image("app", "v1", "x").await;
    for path in ["/v2/", "/v2/app/manifests/v1", "/v2/app/tags/list", "/v2/nowhere/tags/list"] {
        assert_eq!(head(&h.send(Method::GET, path).await, "warning"), "", "{path}");
    }
    h.stop().await;
}
