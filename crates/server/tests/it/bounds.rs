//! Limits on sizes and numbers: the right status, the caller's form, and nothing changed.

use std::time::Duration;

use portolan_server::settings::{ByteSize, Positive};
use portolan_testkit::Site;
use portolan_types::Digest;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestServer;

async fn oci_code(res: Response) -> (u16, String) {
    let status = res.status().as_u16();
    let body: Value = res.json().await.unwrap();
    (status, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn long_paths_and_many_headers_are_refused_in_the_callers_form() {
    let t = TestServer::start_with(|s| {
        s.uri_bytes_max = ByteSize(1_000);
        s.headers_max = Positive(20);
    })
    .await;
    let long = |path: &str| t.site.client.get(format!("{}{path}?x={}", t.site.url, "a".repeat(1_000))).send();
    assert_eq!(oci_code(long("/v2/").await.unwrap()).await, (414, "URI_TOO_LONG".into()));
    let res = long("/subscriptions").await.unwrap();
    assert_eq!(res.status(), 414);
    assert!(res.headers().contains_key("x-content-type-options") || res.headers().contains_key("content-type"));
    assert_eq!(res.json::<Value>().await.unwrap()["error"]["code"], "UriTooLong");

    let many = |path: &str| {
        let req = t.site.client.get(format!("{}{path}", t.site.url));
        (0..30).fold(req, |req, n| req.header(format!("x-{n}"), "1")).send()
    };
    assert_eq!(oci_code(many("/v2/").await.unwrap()).await, (431, "HEADER_TOO_LARGE".into()));
    let res = many("/tenants").await.unwrap();
    assert_eq!(
        (res.status().as_u16(), res.json::<Value>().await.unwrap()["error"]["code"].clone()),
        (431, json!("HeaderTooLarge"))
    );
    // More than the parser has room for: refused all the same, over HTTP/1.1 and 2.
    let mut head = b"GET /v2/ HTTP/1.1\r\nhost: x\r\n".to_vec();
    for n in 0..500 {
        head.extend_from_slice(format!("x-{n}: 1\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    stream.write_all(&head).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn large_manifests_and_layers_are_refused_and_leave_nothing() {
    let t = TestServer::start_with(|s| {
        s.manifest_bytes_max = ByteSize(2_000);
        s.layer_bytes_max = ByteSize(10_000);
    })
    .await;
    let login = t.site.make_registry("sizes").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push,delete").await.unwrap();
    let too_large = (413, "SIZE_INVALID".to_owned());

    let manifest = vec![b' '; 2_001];
    let res = t.site.put_manifest(&login, &token, "a", "v1", &manifest).await.unwrap();
    assert_eq!(oci_code(res).await, too_large);

    let layer = vec![7u8; 10_001];
    let digest = Digest::of(&layer);
    let parts = layer.chunks(1_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>();
    let streamed = || {
        reqwest::Body::wrap_stream(futures_util::stream::iter(
            parts.iter().map(|p| Ok::<_, std::io::Error>(p.as_ref().unwrap().clone())).collect::<Vec<_>>(),
        ))
    };
    // In one request, with its length and without.
    let post = |body: reqwest::Body| {
        t.site
            .registry(&login, &token, Method::POST, &format!("/v2/a/blobs/uploads/?digest={digest}"))
            .body(body)
            .send()
    };
    assert_eq!(oci_code(post(layer.clone().into()).await.unwrap()).await, too_large);
    assert_eq!(oci_code(post(streamed()).await.unwrap()).await, too_large);
    // And in pieces, of which each is small enough.
    let upload = t.site.start_upload(&login, &token, "a").await.unwrap();
    let patch = |bytes: &[u8]| t.site.client.patch(&upload).bearer_auth(&token).body(bytes.to_vec()).send();
    assert_eq!(patch(&layer[..9_000]).await.unwrap().status(), 202);
    assert_eq!(oci_code(patch(&layer[9_000..]).await.unwrap()).await, too_large);
    let put = t.site.client.put(Site::finish_url(&upload, &digest)).bearer_auth(&token).body(layer[9_000..].to_vec());
    let status = put.send().await.unwrap().status();
    assert!(status.is_client_error(), "{status}");
    let get = t.site.registry(&login, &token, Method::HEAD, &format!("/v2/a/blobs/{digest}")).send().await.unwrap();
    assert_eq!(get.status(), 404);
    // What fits is taken.
    t.site.push_blob(&login, &token, "a", &layer[..10_000]).await.unwrap();
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn uploads_are_limited_by_identity_and_by_registry() {
    let t = TestServer::start_with(|s| {
        s.uploads_per_identity_max = Positive(3);
        s.uploads_max = Positive(5);
    })
    .await;
    let login = t.site.make_registry("uploads").await.unwrap();
    let owner = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    let path = format!("{}/listCredentials", Site::registry_path("uploads"));
    let admin: Value = t.site.arm(Method::POST, &path, Some(json!({}))).await.unwrap().json().await.unwrap();
    let password = admin["passwords"][0]["value"].as_str().unwrap();
    let url = format!("https://{login}/v2/a/blobs/uploads/");
    let as_owner = || t.site.client.post(&url).bearer_auth(&owner).send();
    let as_admin = || t.site.client.post(&url).basic_auth("uploads", Some(password)).send();
    let mut first = None;
    for _ in 0..3 {
        let res = as_owner().await.unwrap();
        assert_eq!(res.status(), 202);
        first.get_or_insert(Site::absolute(&login, res.headers()["location"].to_str().unwrap()));
    }
    let refused = as_owner().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    let (status, code) = oci_code(refused).await;
    assert_eq!((status, code.as_str()), (429, "TOOMANYREQUESTS"));
    for _ in 0..2 {
        assert_eq!(as_admin().await.unwrap().status(), 202);
    }
    // The admin user has had two of three, but the registry is full.
    assert_eq!(as_admin().await.unwrap().status(), 429);
    let gone = t.site.client.delete(first.unwrap()).bearer_auth(&owner).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(as_admin().await.unwrap().status(), 202);
    assert_eq!(as_owner().await.unwrap().status(), 429);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn requests_in_flight_are_limited_and_operators_still_answered() {
    let t = TestServer::start_with(|s| s.requests_max = Positive(2)).await;
    let http = t.server.http.unwrap();
    let held = async || {
        let mut stream = TcpStream::connect(http).await.unwrap();
        let head = b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\ncontent-type: application/x-www-form-urlencoded\r\n\r\ngrant";
        stream.write_all(head).await.unwrap();
        stream
    };
    let (mut one, _two) = (held().await, held().await);
    let in_flight = || t.server.app.metrics.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    while in_flight() < 2 {
        tokio::task::yield_now().await;
    }
    let res = t.get(format!("{}/v2/", t.http())).await;
    assert!(res.headers().contains_key("retry-after"));
    assert_eq!(oci_code(res).await, (503, "UNAVAILABLE".into()));
    let res = t.get(format!("{}/tenants", t.http())).await;
    assert_eq!(
        (res.status().as_u16(), res.json::<Value>().await.unwrap()["error"]["code"].clone()),
        (503, json!("ServerBusy"))
    );
    assert_eq!(t.get(format!("{}/healthz", t.http())).await.status(), 200);
    let metrics = t.get(format!("{}/metrics", t.http())).await.text().await.unwrap();
    assert!(metrics.contains("portolan_http_requests_refused_total{limit=\"requests_max\"} 2\n"), "{metrics}");
    one.write_all(b"_type").await.unwrap();
    let mut answer = [0; 12];
    one.read_exact(&mut answer).await.unwrap();
    while in_flight() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(t.get(format!("{}/v2/", t.http())).await.status(), 404, "no registry, but an answer");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let t = TestServer::start_with(|s| s.connections_per_address_max = 3).await;
    let http = t.server.http.unwrap();
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.map(|_| answer)
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(http).await.unwrap();
        assert_eq!(&ask(&mut stream).await.unwrap(), b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut more = TcpStream::connect(http).await.unwrap();
    assert!(ask(&mut more).await.is_err(), "one too many was answered");
    let refused = t.server.app.metrics.connections_refused_total.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(refused, 1);
    held.pop();
    // The place is free as soon as the server saw the end.
    let again = async {
        loop {
            let mut stream = TcpStream::connect(http).await.unwrap();
            if ask(&mut stream).await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.unwrap();
    drop(held);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn bodies_read_whole_stay_within_their_memory() {
    const MANIFEST: usize = 4 * 1024 * 1024;
    const BUDGET: u64 = 16 * 1024 * 1024;
    let t = TestServer::start_with(|s| s.body_memory_bytes_max = ByteSize(BUDGET)).await;
    let login = t.site.make_registry("memory").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    let put = |n: usize, first: usize| {
        let http = t.server.http.unwrap();
        let head = format!(
            "PUT /v2/a/manifests/v{n} HTTP/1.1\r\nhost: {login}\r\nauthorization: Bearer {token}\r\ncontent-length: {MANIFEST}\r\nconnection: close\r\n\r\n"
        );
        async move {
            let mut stream = TcpStream::connect(http).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b' '; first]).await.unwrap();
            stream
        }
    };
    // Four that have their place and never come to an end.
    let mut held = Vec::new();
    for n in 0..4 {
        held.push(put(n, 1_000).await);
    }
    let used = || t.server.app.memory.used();
    let full = async {
        while used().0 < BUDGET {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), full).await.expect("four manifests fill the budget");
    // Twelve more find none: they are told to come again, and the memory stays as it is.
    let refused = (4..16).map(|n| {
        let stream = put(n, 0);
        async {
            let mut stream = stream.await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        }
    });
    for answer in futures_util::future::join_all(refused).await {
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
        assert!(answer.contains("\"code\":\"UNAVAILABLE\""), "{answer}");
    }
    assert_eq!(used(), (BUDGET, BUDGET));
    assert_eq!(t.server.app.memory.refused(), 12);
    // The four end as what they are (blanks are no manifest), and give all back.
    for mut stream in held {
        stream.write_all(&vec![b' '; MANIFEST - 1_000]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    while used().0 > 0 {
        tokio::task::yield_now().await;
    }
    let pushed = t.site.push_image(&login, "a", "v1", &[b"small"]).await.unwrap();
    let got = t.site.registry(&login, &token, Method::GET, "/v2/a/manifests/v1").send().await.unwrap();
    assert_eq!((got.status(), got.bytes().await.unwrap()), (StatusCode::OK, pushed.manifest.into()));
    t.server.shutdown().await.unwrap();
}
