//! Clients that are slow on purpose, leave what they began, or flood: they cost bounded
//! time and memory, and nobody else notices.

use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_server::settings::{ByteSize, Positive};
use portolan_testkit::{Child, Site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestServer;

/// Far above every limit that these tests set: only what would never end fails by it.
const NEVER: Duration = Duration::from_secs(120);

async fn impatient() -> TestServer {
    TestServer::start_with(|s| {
        s.header_read_timeout_secs = Positive(1);
        s.body_idle_timeout_secs = Positive(1);
        s.body_window_bytes_min = ByteSize(4 * 1024);
    })
    .await
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(NEVER, wait).await.unwrap_or_else(|_| panic!("it never came to pass: {what}"));
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_and_one_that_flows_is_not() {
    let t = impatient().await;
    let form = b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\ncontent-type: application/x-www-form-urlencoded\r\n\r\n";
    // One byte at a time: never silent for long, and never getting anywhere.
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    stream.write_all(form).await.unwrap();
    let (mut reads, mut writes) = stream.split();
    let trickle = async {
        while writes.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    let answer = async {
        let mut answer = Vec::new();
        let _ = reads.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::select! {
        answer = answer => answer,
        () = trickle => unreachable!(),
        () = tokio::time::sleep(NEVER) => panic!("it may trickle for ever"),
    };
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");

    // Slow, but more than what is asked for: it takes several windows, and is taken.
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    stream.write_all(form).await.unwrap();
    for _ in 0..40 {
        stream.write_all(&[b'a'; 5_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404", "the whole form was read");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let t = impatient().await;
    let login = t.site.make_registry("stall").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    // More than the kernel's buffers hold.
    let digest = t.site.push_blob(&login, &token, "a", &vec![1u8; 64 << 20]).await.unwrap();
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: {login}\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    until("the request ends", || t.server.app.metrics.in_flight.load(Ordering::Relaxed) == 0).await;
    t.server.shutdown().await.unwrap();
}

/// HTTP/2 frames by hand, to say what no client says.
mod h2 {
    pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const ACK: u8 = 1;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    /// `GET /healthz` (RFC 7541: indexed where the static table has it, else literal).
    pub(super) fn get(stream: u32) -> Vec<u8> {
        let mut block = vec![0x82, 0x86];
        for (name, value) in [(0x04u8, "/healthz"), (0x01, "localhost")] {
            block.push(name);
            block.push(u8::try_from(value.len()).unwrap());
            block.extend_from_slice(value.as_bytes());
        }
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
    }
}

/// Read frames until the connection ends: kinds and payloads. Pings are answered, so that
/// the connection looks alive.
async fn frames(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            break;
        }
        if head[3] == h2::PING && head[4] & h2::ACK == 0 {
            let _ = stream.write_all(&h2::frame(h2::PING, h2::ACK, 0, &payload)).await;
        }
        all.push((head[3], payload));
    }
    all
}

#[tokio::test]
async fn an_http2_client_that_never_opens_its_window_is_given_up() {
    let t = impatient().await;
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE (4) = 0: no byte of an answer's body may be sent.
    let mut first = [h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    first.extend(h2::get(1));
    stream.write_all(&first).await.unwrap();
    let seen = tokio::time::timeout(NEVER, frames(&mut stream)).await.expect("the server closes it");
    assert!(seen.iter().any(|(kind, _)| *kind == h2::HEADERS), "it was answered: {seen:?}");
    assert!(!seen.iter().any(|(kind, data)| *kind == h2::DATA && !data.is_empty()), "{seen:?}");
    until("the request ends", || t.server.app.metrics.in_flight.load(Ordering::Relaxed) == 0).await;
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_http2_connection_without_requests_is_closed() {
    let t = impatient().await;
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    let first = [h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[])[..], &h2::get(1)].concat();
    stream.write_all(&first).await.unwrap();
    let seen = tokio::time::timeout(NEVER, frames(&mut stream)).await.expect("the server closes it");
    assert!(seen.iter().any(|(kind, data)| *kind == h2::DATA && data == b"ok\n"), "{seen:?}");
    assert!(seen.iter().any(|(kind, _)| *kind == h2::GOAWAY), "it says so first: {seen:?}");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn streams_reset_as_soon_as_begun_end_the_connection() {
    let t = TestServer::start().await;
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    stream.write_all(&[h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[])[..]].concat()).await.unwrap();
    let mut flood = Vec::new();
    for n in 0..20_000u32 {
        let id = 2 * n + 1;
        flood.extend(h2::get(id));
        // CANCEL
        flood.extend(h2::frame(h2::RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    let _ = stream.write_all(&flood).await;
    let seen = tokio::time::timeout(NEVER, frames(&mut stream)).await.expect("the server closes it");
    // ENHANCE_YOUR_CALM, where the word still got through.
    for (_, payload) in seen.iter().filter(|(kind, _)| *kind == h2::GOAWAY) {
        assert_eq!(payload[4..8], 11u32.to_be_bytes(), "{payload:?}");
    }
    until("nothing is left in flight", || t.server.app.metrics.in_flight.load(Ordering::Relaxed) == 0).await;
    assert_eq!(t.get(format!("{}/healthz", t.http())).await.status(), 200);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn pings_and_settings_from_a_client_that_does_not_read_do_not_pile_up() {
    let t = impatient().await;
    for (kind, payload) in [(h2::PING, &[0u8; 8][..]), (h2::SETTINGS, &[0, 4, 0, 1, 0, 0][..])] {
        let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
        stream.write_all(&[h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[])[..]].concat()).await.unwrap();
        let flood = h2::frame(kind, 0, 0, payload).repeat(4_096);
        // The server answers each before it reads on; with nobody reading the answers it
        // stops reading, and then its patience ends.
        let ended = async { while stream.write_all(&flood).await.is_ok() {} };
        tokio::time::timeout(NEVER, ended).await.expect("the flood is taken for ever");
    }
    assert_eq!(t.get(format!("{}/healthz", t.http())).await.status(), 200);
    t.server.shutdown().await.unwrap();
}

/// A figure of a child's `/metrics`.
async fn figure(site: &Site, name: &str) -> u64 {
    let url = format!("{}/metrics", site.http_url.as_deref().unwrap());
    let text = site.client.get(url).send().await.unwrap().text().await.unwrap();
    let line =
        text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{name}\n{text}"));
    line.parse().unwrap()
}

#[tokio::test]
async fn ten_thousand_uploads_opened_and_left_cost_little_and_are_collected() {
    const UPLOADS: usize = 10_000;
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("p.toml");
    let text = "gc_upload_idle_secs = 20\ngc_interval_secs = 1\naccess_log = 'none'\naudit_log = 'none'\nuploads_max = 10000\n";
    std::fs::write(&config, text).unwrap();
    let child = Child::start(
        &data.path().join("data"),
        &["--listen-http", "127.0.0.1:0", "--config", config.to_str().unwrap()],
    )
    .await
    .unwrap();
    let site = child.site().unwrap();
    let login = site.make_registry("leftover").await.unwrap();
    let token = site.token(&login, "repository:a:pull,push").await.unwrap();
    let url = format!("{}/v2/a/blobs/uploads/", site.http_url.as_deref().unwrap());
    let begin = || site.client.post(&url).header("host", &login).bearer_auth(&token).send();
    let before = figure(&site, "process_resident_memory_bytes").await;
    let began = futures_util::StreamExt::fold(
        futures_util::StreamExt::buffer_unordered(futures_util::stream::iter((0..UPLOADS).map(|_| begin())), 64),
        0,
        |began, res| async move { began + usize::from(res.unwrap().status() == 202) },
    )
    .await;
    let (open, after) =
        (figure(&site, "portolan_uploads_open").await, figure(&site, "process_resident_memory_bytes").await);
    let grown = after.saturating_sub(before);
    eprintln!("{began} uploads begun, {open} open, memory {before} + {grown} bytes");
    assert_eq!(began, UPLOADS);
    // Well below 10 KiB for each; what grows is mostly the database's page cache.
    assert!(grown < 100 << 20, "{grown} bytes");
    if open == UPLOADS as u64 {
        // None is collected yet: one more is one too many.
        let refused = begin().await.unwrap();
        let is_429 = refused.status() == 429;
        assert!(is_429 || figure(&site, "portolan_uploads_open").await < UPLOADS as u64, "{}", refused.status());
    }
    let gone = async {
        while figure(&site, "portolan_uploads_open").await > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(NEVER, gone).await.expect("they are collected");
    let files = std::fs::read_dir(data.path().join("data/uploads")).map(|d| d.count()).unwrap_or(0);
    assert_eq!(files, 0, "files of uploads that are forgotten");
    assert_eq!(begin().await.unwrap().status(), 202);
    child.terminate().await.unwrap();
}
