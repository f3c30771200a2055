//! Answers that are ready before the request's body is: the client reads them whatever it
//! is doing, and the connection goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::TestServer;

/// Much more than all the buffers between a client and a handler hold.
const BODY_BYTES: usize = 48 * 1024 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

/// Requests that are refused before their bytes are read, with the status.
const REFUSED: [(&str, &str, u16); 5] = [
    ("PUT", "/v2/a/manifests/v1", 413),
    ("PATCH", "/v2/a/blobs/uploads/7", 404),
    ("POST", "/v2/a/blobs/uploads/?digest=sha256:12", 400),
    ("PUT", "/v2/A/manifests/v1", 400),
    ("PUT", "/v2/a/tags/list", 405),
];

/// Read one answer with a `content-length`; its head and body.
async fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole answer"));
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a whole answer");
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_gets_the_answer() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("early").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    let piece = vec![b'x'; PIECE_BYTES];
    let cases = REFUSED.iter().map(|r| (*r, true)).chain([(("PUT", "/v2/a/manifests/v1", 401), false)]);
    for ((method, path, status), signed_in) in cases {
        let authorization = if signed_in { format!("authorization: Bearer {token}\r\n") } else { String::new() };
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: {login}\r\n{authorization}content-length: {BODY_BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..BODY_BYTES / PIECE_BYTES {
            stream.write_all(&piece).await.expect("the server takes the bytes");
        }
        let (head, body) = answer(&mut stream).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {head}");
        assert!(body.starts_with("{\"errors\":["), "{body}");
    }
    // And it is the same connection all the time.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.0.starts_with("HTTP/1.1 200 "));
    drop(stream);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_that_waits_for_a_word_keeps_its_bytes() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("early").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    for (method, path, status) in REFUSED {
        let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {login}\r\nauthorization: Bearer {token}\r\ncontent-length: {BODY_BYTES}\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (head, _) = answer(&mut stream).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {head}");
    }
    t.server.shutdown().await.unwrap();
}

/// A body that counts what is taken of it, and says how much when it is let go.
struct Counted(Arc<AtomicU64>, Option<oneshot::Sender<u64>>);

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.1.take().unwrap().send(self.0.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn an_http2_stream_is_not_reset_while_the_client_sends() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("early").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    for (method, path, status) in REFUSED {
        let (done, all) = oneshot::channel();
        let counted = Counted(Arc::default(), Some(done));
        let pieces = futures_util::stream::unfold((counted, 0), |(counted, sent)| async move {
            if sent == BODY_BYTES {
                return None;
            }
            counted.0.fetch_add(PIECE_BYTES as u64, Ordering::SeqCst);
            Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; PIECE_BYTES])), (counted, sent + PIECE_BYTES)))
        });
        let method = method.parse().unwrap();
        let req = t.site.registry(&login, &token, method, path).header("content-length", BODY_BYTES);
        let res = req.body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
        assert_eq!((res.version(), res.status().as_u16()), (reqwest::Version::HTTP_2, status), "{path}");
        assert!(res.text().await.unwrap().starts_with("{\"errors\":["));
        assert_eq!(all.await.unwrap(), BODY_BYTES as u64, "{path}");
    }
    t.server.shutdown().await.unwrap();
}
