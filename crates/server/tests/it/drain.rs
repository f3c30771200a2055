//! Stopping while requests are in flight.

use bytes::Bytes;
use portolan_server::settings::Positive;
use portolan_testkit::Site;
use portolan_types::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestServer;

/// A body that is sent piece by piece, as the test says.
fn pieces() -> (tokio::sync::mpsc::Sender<Result<Bytes, std::io::Error>>, reqwest::Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = futures_util::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|piece| (piece, r)) });
    (sender, reqwest::Body::wrap_stream(stream))
}

#[tokio::test]
async fn an_upload_in_flight_is_finished_and_nothing_new_is_taken() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("drains").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    let upload = t.site.start_upload(&login, &token, "a").await.unwrap();
    let (sender, body) = pieces();
    let digest = Digest::of(b"one two");
    let put = t.site.client.put(Site::finish_url(&upload, &digest)).bearer_auth(&token).body(body);
    let put = tokio::spawn(put.send());
    sender.send(Ok(Bytes::from("one "))).await.unwrap();
    // The second piece fits only when the first was taken: the request is under way.
    let rest = sender.reserve().await.unwrap();
    let metrics = t.server.app.metrics.clone();
    while metrics.in_flight.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }

    let (app, https, data) = (t.server.app.clone(), t.server.https, t.data.clone());
    let ending = tokio::spawn(t.server.shutdown());
    app.drain.begun().await;
    // The listener is closed as soon as its loop sees the change.
    while TcpStream::connect(https).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!ending.is_finished());
    rest.send(Ok(Bytes::from("two")));
    drop(sender);
    assert_eq!(put.await.unwrap().unwrap().status(), 201);
    ending.await.unwrap().unwrap();
    drop(app);

    let t = TestServer::start_on(data, |_| {}).await;
    let login = t.site.url.trim_start_matches("https://").to_owned();
    let token = t.site.token(&login, "repository:a:pull").await.unwrap();
    let path = format!("/v2/a/blobs/{digest}");
    let res = t.site.registry(&login, &token, reqwest::Method::GET, &path).send().await.unwrap();
    assert_eq!(res.text().await.unwrap(), "one two");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_is_dropped_at_the_deadline() {
    let t = TestServer::start_with(|s| s.drain_timeout_secs = Positive(1)).await;
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    let head = b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\ncontent-type: application/x-www-form-urlencoded\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut first = [0; 25];
    // It asks for the body: the handler waits for it.
    stream.read_exact(&mut first).await.unwrap();
    t.server.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_draining_server_is_alive_and_not_ready() {
    let t = TestServer::start().await;
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    // One request open, so that its connection outlives the beginning of the end; its body
    // is the next request's turn.
    let head = b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\ncontent-type: application/x-www-form-urlencoded\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    let app = t.server.app.clone();
    let ending = tokio::spawn(t.server.shutdown());
    app.drain.begun().await;
    for (page, status) in [("/healthz", 200), ("/readyz", 503)] {
        let req = http::Request::get(page).header("host", "x").body(axum::body::Body::empty()).unwrap();
        assert_eq!(portolan_server::http::dispatch(app.clone(), req).await.status(), status, "{page}");
    }
    stream.write_all(b"grant_type").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 4") && rest.contains("connection: close"), "{rest}");
    drop(app);
    ending.await.unwrap().unwrap();
}
