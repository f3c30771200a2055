//! Large blobs on their way out: byte for byte on every kind of connection, and cut where
//! they cannot be whole.
//!
//! On plain HTTP/1 connections the kernel sends them (`server::sendfile`), and what hyper
//! writes for them is placeholders. The content of these tests has no run of zeros, so one
//! placeholder that left would show.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use portolan_types::Digest;
use reqwest::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::TestServer;

const MIB: usize = 1024 * 1024;
/// Three pieces, the last an odd one; more than an upload leaves in the kernel's memory.
const LARGE_BYTES: usize = 9 * MIB + 12_345;
/// More than two sockets hold.
const HUGE_BYTES: usize = 40 * MIB;

/// Bytes without a zero, different at every place.
fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes().map(|byte| byte | 1));
    }
    out.truncate(len);
    out
}

/// A server with one blob.
struct Hub {
    t: TestServer,
    login: String,
    token: String,
    bytes: Vec<u8>,
    digest: Digest,
}

impl Hub {
    async fn with(len: usize) -> Hub {
        let t = TestServer::start().await;
        let login = t.site.make_registry("transfer").await.unwrap();
        let token = t.site.token(&login, "repository:app:pull,push").await.unwrap();
        let bytes = content(len, 7);
        let digest = t.site.push_blob(&login, &token, "app", &bytes).await.unwrap();
        Hub { t, login, token, bytes, digest }
    }

    fn path(&self) -> String {
        format!("/v2/app/blobs/{}", self.digest)
    }

    /// A request as it goes over the wire.
    fn request(&self, method: &str, path: &str, more: &str) -> String {
        let (host, token) = (&self.login, &self.token);
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n{more}\r\n")
    }

    async fn connect(&self) -> Wire {
        Wire(BufReader::new(TcpStream::connect(self.t.server.http.unwrap()).await.unwrap()))
    }

    /// A connection on which the server cannot get far ahead.
    async fn connect_narrow(&self) -> Wire {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 * 1024).unwrap();
        Wire(BufReader::new(socket.connect(self.t.server.http.unwrap()).await.unwrap()))
    }

    fn file(&self) -> PathBuf {
        let hex = self.digest.hex();
        let file = self.t.data.path().join("blobs/sha256").join(&hex[..2]).join(&hex);
        assert!(file.exists(), "{}", file.display());
        file
    }

    /// Let the kernel forget the file's content.
    fn chill(&self) {
        let file = fs::File::open(self.file()).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }

    async fn stop(self) {
        self.t.server.shutdown().await.unwrap();
    }
}

/// A connection, answer after answer.
struct Wire(BufReader<TcpStream>);

impl Wire {
    async fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// Status and length of the next answer.
    async fn head(&mut self) -> io::Result<(u16, usize)> {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(' ') {
                None if line.is_empty() => return Ok((status, length)),
                Some((version, rest)) if version.starts_with("http/1.") => status = rest[..3].parse().unwrap(),
                Some(("content-length:", value)) => length = value.parse().unwrap(),
                _ => {}
            }
        }
    }

    async fn answer(&mut self) -> (u16, Vec<u8>) {
        let (status, length) = self.head().await.unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        (status, body)
    }
}

/// Not `assert_eq`: nobody reads megabytes.
fn same(got: &[u8], want: &[u8], what: &str) {
    let differs = got.iter().zip(want).position(|(a, b)| a != b);
    assert!(
        got.len() == want.len() && differs.is_none(),
        "{what}: {} of {} bytes, differ at {differs:?}",
        got.len(),
        want.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_connection_carries_large_and_small_answers_in_turn() {
    let h = Hub::with(LARGE_BYTES).await;
    let mut wire = h.connect().await;
    let last = LARGE_BYTES - 1;
    for cold in [true, false] {
        if cold {
            h.chill();
        }
        wire.send(&h.request("GET", &h.path(), "")).await;
        let (status, body) = wire.answer().await;
        assert_eq!(status, 200);
        same(&body, &h.bytes, "all");
        for (from, to) in [
            (0, last),
            (1, last),
            (4 * MIB - 1, 4 * MIB + 200_000),
            (123_457, 123_457 + 128 * 1024 - 1),
            (last - 300_000, last),
            (last, last),
            (5, 70_000),
        ] {
            wire.send(&h.request("GET", &h.path(), &format!("range: bytes={from}-{to}\r\n"))).await;
            let (status, body) = wire.answer().await;
            assert_eq!(status, 206);
            same(&body, &h.bytes[from..=to], &format!("{from}-{to}"));
        }
        wire.send(&h.request("HEAD", &h.path(), "")).await;
        assert_eq!(wire.head().await.unwrap(), (200, LARGE_BYTES));
        wire.send(&h.request("GET", "/v2/", "")).await;
        assert_eq!(wire.answer().await.0, 200);
    }
    h.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_sent_at_once_are_answered_in_order() {
    let h = Hub::with(LARGE_BYTES).await;
    let mut wire = h.connect().await;
    let get = h.request("GET", &h.path(), "");
    let part = h.request("GET", &h.path(), "range: bytes=1000-4500000\r\n");
    let small = h.request("GET", &h.path(), "range: bytes=0-99\r\n");
    let (head, ping, none) = (
        h.request("HEAD", &h.path(), ""),
        h.request("GET", "/v2/", ""),
        h.request("GET", "/v2/app/manifests/none", ""),
    );
    wire.send(&format!("{ping}{get}{small}{part}{head}{none}{get}{ping}{part}")).await;
    assert_eq!(wire.answer().await.0, 200);
    same(&wire.answer().await.1, &h.bytes, "the first");
    same(&wire.answer().await.1, &h.bytes[..100], "a small part");
    same(&wire.answer().await.1, &h.bytes[1000..=4_500_000], "a large part");
    assert_eq!(wire.head().await.unwrap(), (200, LARGE_BYTES));
    assert_eq!(wire.answer().await.0, 404);
    same(&wire.answer().await.1, &h.bytes, "the second");
    assert_eq!(wire.answer().await.0, 200);
    same(&wire.answer().await.1, &h.bytes[1000..=4_500_000], "a large part again");
    h.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_and_closing_clients_get_the_bytes_too() {
    let h = Hub::with(LARGE_BYTES).await;
    let closing = h.request("GET", &h.path(), "connection: close\r\n");
    for request in [closing.clone(), closing.replace("HTTP/1.1", "HTTP/1.0")] {
        let mut wire = h.connect().await;
        wire.send(&request).await;
        let (status, length) = wire.head().await.unwrap();
        assert_eq!((status, length), (200, LARGE_BYTES));
        let mut body = Vec::new();
        wire.0.read_to_end(&mut body).await.unwrap();
        same(&body, &h.bytes, "to the end");
    }
    h.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_connections_carry_the_same_bytes() {
    let h = Hub::with(LARGE_BYTES).await;
    let plain = format!("{}{}", h.t.http(), h.path());
    let tls = format!("https://{}{}", h.login, h.path());
    let h2c = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let h1 = reqwest::Client::builder().no_proxy().build().unwrap();
    for cold in [true, false] {
        for (client, url, version) in [
            (&h2c, &plain, reqwest::Version::HTTP_2),
            (&h1, &plain, reqwest::Version::HTTP_11),
            (&h.t.site.client, &tls, reqwest::Version::HTTP_2),
        ] {
            if cold {
                h.chill();
            }
            let get = || client.get(url).bearer_auth(&h.token);
            let part = get().header("range", "bytes=77-5000000");
            let (all, again, part) = tokio::join!(get().send(), get().send(), part.send());
            for (res, want) in [(all, &h.bytes[..]), (again, &h.bytes[..]), (part, &h.bytes[77..=5_000_000])] {
                let res = res.unwrap();
                assert!(matches!(res.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT), "{}", res.status());
                assert_eq!(res.version(), version, "{url}");
                same(&res.bytes().await.unwrap(), want, url);
            }
        }
    }
    h.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_leaves_no_file_open() {
    let h = Hub::with(HUGE_BYTES).await;
    let open = || {
        let file = h.file();
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        links.filter(|link| fs::read_link(link.path()).is_ok_and(|target| target == file)).count()
    };
    for _ in 0..4 {
        let mut wire = h.connect_narrow().await;
        wire.send(&h.request("GET", &h.path(), "")).await;
        assert_eq!(wire.head().await.unwrap(), (200, HUGE_BYTES));
        let mut some = vec![0; 100_000];
        wire.0.read_exact(&mut some).await.unwrap();
        same(&some, &h.bytes[..100_000], "the beginning");
        assert!(open() > 0, "the answer is under way");
    }
    let closed = async {
        while open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.expect("the files are closed");
    let mut wire = h.connect().await;
    wire.send(&h.request("GET", &h.path(), "")).await;
    same(&wire.answer().await.1, &h.bytes, "the next client");
    h.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_cuts_the_answer() {
    let h = Hub::with(HUGE_BYTES).await;
    let kept = 5 * MIB;
    let mut wire = h.connect_narrow().await;
    wire.send(&h.request("GET", &h.path(), "")).await;
    assert_eq!(wire.head().await.unwrap(), (200, HUGE_BYTES));
    let mut body = vec![0; 10_000];
    wire.0.read_exact(&mut body).await.unwrap();
    fs::OpenOptions::new().write(true).open(h.file()).unwrap().set_len(kept as u64).unwrap();
    // A reset is as good an end as a close: what counts is that it is not a whole answer.
    let _ = wire.0.read_to_end(&mut body).await;
    assert!(body.len() < HUGE_BYTES, "the client takes it for the whole");
    let sure = body.len().min(kept);
    same(&body[..sure], &h.bytes[..sure], "what came before the cut");
    // And when it is cut before the answer begins.
    let mut wire = h.connect().await;
    wire.send(&h.request("GET", &h.path(), "range: bytes=6000000-7000000\r\n")).await;
    let got = match wire.head().await {
        Ok((_, length)) => {
            let mut body = Vec::new();
            let _ = wire.0.read_to_end(&mut body).await;
            body.len() < length
        }
        Err(_) => true,
    };
    assert!(got, "bytes that are not there");
    h.stop().await;
}
