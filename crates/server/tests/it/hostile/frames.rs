//! HTTP/2 written by hand, and noise where TLS should be.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Target;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header as a literal that is not indexed, without Huffman.
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let mut out = vec![u8::try_from(text.len().min(127)).unwrap()];
        if text.len() >= 127 {
            let mut rest = text.len() - 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
        [out, text.as_bytes().to_vec()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

fn request(method: &str, path: &str) -> Vec<u8> {
    [header(":method", method), header(":scheme", "http"), header(":path", path), header(":authority", "h")].concat()
}

/// Streams that a client may open: odd numbers.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

/// What the server said: kinds of frames with their streams; whether it closed.
struct Said {
    frames: Vec<(u8, u32)>,
    closed: bool,
}

impl Said {
    fn count(&self, kind: u8) -> usize {
        self.frames.iter().filter(|(k, _)| *k == kind).count()
    }

    /// The connection was ended, in words or by hanging up.
    fn ended(&self) -> bool {
        self.closed && (self.count(GOAWAY) > 0 || self.count(HEADERS) == 0)
    }
}

impl Target {
    async fn frames(&self, bytes: &[u8]) -> Said {
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, b""), bytes.to_vec()].concat();
        let (answer, closed) = self.raw(&hello).await;
        let mut frames = Vec::new();
        let mut rest = &answer[..];
        while let [a, b, c, kind, _, s @ ..] = rest
            && s.len() >= 4
        {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            frames.push((*kind, u32::from_be_bytes([s[0], s[1], s[2], s[3]])));
            rest = s[4..].get(length..).unwrap_or(&[]);
        }
        Said { frames, closed }
    }
}

#[tokio::test]
async fn malformed_requests_end_their_stream_or_connection() {
    let target = Target::start().await;
    let head = |block: Vec<u8>| frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let plus = |name: &str, value: &str| head([request("GET", "/healthz"), header(name, value)].concat());
    let good = target.frames(&head(request("GET", "/healthz"))).await;
    assert_eq!((good.count(HEADERS), good.count(DATA)), (1, 1), "the client itself is right");
    let pseudo = [header(":method", "GET"), header(":scheme", "http"), header("a", "b"), header(":path", "/healthz")];
    for (what, bytes) in [
        ("no path", head([header(":method", "GET"), header(":scheme", "http"), header(":authority", "h")].concat())),
        ("two paths", plus(":path", "/v2/")),
        ("a pseudo header after others", head(pseudo.concat())),
        ("an unknown pseudo header", plus(":evil", "x")),
        ("upper case", plus("X-A", "b")),
        ("a connection's header", plus("connection", "close")),
        ("chunked", plus("transfer-encoding", "chunked")),
        ("a line break in a value", plus("x", "a\r\nb: c")),
        ("a NUL in a value", plus("x", "a\0")),
        ("a line break in the path", head(request("GET", "/v2/\r\nx/tags/list"))),
        ("a path without a slash", head(request("GET", "healthz"))),
        ("no text in the path", head(request("GET", ""))),
        ("a length that is not the body's", {
            let block = [request("POST", "/oauth2/token"), header("content-length", "10")].concat();
            [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, b"abc")].concat()
        }),
        ("a server's stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &request("GET", "/healthz"))),
        ("stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &request("GET", "/healthz"))),
        ("data for no stream", frame(DATA, END_STREAM, 1, b"x")),
        ("noise for headers", head(vec![0xff; 6])),
        ("index 0", head(vec![0x80])),
        (
            "a table larger than allowed",
            head([vec![0x3f, 0xff, 0xff, 0xff, 0x7f], request("GET", "/healthz")].concat()),
        ),
        ("a frame larger than allowed", vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]),
        ("more padding than frame", frame(DATA, 8, 1, &[0xff])),
        ("a window of nothing", frame(WINDOW, 0, 0, &[0; 4])),
        ("a window too wide", frame(WINDOW, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
        ("a promise from a client", frame(5, END_HEADERS, 1, &request("GET", "/healthz"))),
    ] {
        let said = target.frames(&bytes).await;
        assert_eq!(said.count(HEADERS), 0, "{what}: it was answered");
        assert!(said.count(RESET) == 1 || said.ended(), "{what}: {:?}", said.frames);
    }
    target.unharmed().await;
}

/// Each of these has taken a server down somewhere. The connection ends; or the server keeps
/// up, and owes the client nothing that adds up.
#[tokio::test]
async fn floods_of_frames_end_the_connection() {
    let target = Target::start().await;
    let get = request("GET", "/v2/");
    let filler = header("x", &"y".repeat(1_000));
    let flood = |each: &dyn Fn(u32) -> Vec<u8>, count| streams(count).flat_map(each).collect::<Vec<u8>>();
    let open = frame(HEADERS, 0, 1, &get);
    for (what, bytes) in [
        ("continuations", [open.clone(), frame(CONTINUATION, 0, 1, &filler).repeat(10_000)].concat()),
        ("empty continuations", [open.clone(), frame(CONTINUATION, 0, 1, b"").repeat(100_000)].concat()),
        ("headers out of a table", {
            let kept = [vec![0x40], header("x", &"a".repeat(4_000))[1..].to_vec()].concat();
            let again = frame(CONTINUATION, 0, 1, &[0xbe; 16_000]).repeat(60);
            [frame(HEADERS, 0, 1, &[get.clone(), kept].concat()), again, frame(CONTINUATION, END_HEADERS, 1, b"")]
                .concat()
        }),
        (
            "streams reset at once",
            flood(
                &|s| [frame(HEADERS, END_HEADERS | END_STREAM, s, &get), frame(RESET, 0, s, &[0, 0, 0, 8])].concat(),
                10_000,
            ),
        ),
        (
            "streams that we must reset",
            flood(
                &|s| [frame(HEADERS, END_HEADERS | END_STREAM, s, &get), frame(WINDOW, 0, s, &[0; 4])].concat(),
                10_000,
            ),
        ),
        (
            "data of nothing",
            [frame(HEADERS, END_HEADERS, 1, &request("POST", "/oauth2/token")), frame(DATA, 0, 1, b"").repeat(200_000)]
                .concat(),
        ),
        (
            "streams left open",
            flood(&|s| frame(HEADERS, END_HEADERS, s, &request("POST", "/v2/a/blobs/uploads/")), 3_000),
        ),
    ] {
        let said = target.frames(&bytes).await;
        assert!(said.ended(), "{what}: {} frames", said.frames.len());
    }
    // What asks for no answer, or for one that the client takes, may go on.
    for bytes in [
        frame(SETTINGS, 0, 0, b"").repeat(20_000),
        frame(PING, 0, 0, b"12345678").repeat(20_000),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(20_000),
    ] {
        target.frames(&bytes).await;
    }
    target.unharmed().await;
}

/// Noise, records without end and a greeting in pieces: the handshake is given up, and the
/// next client is served.
#[tokio::test]
async fn noise_where_tls_should_be_is_hung_up_on() {
    let target = Target::start().await;
    let mut seed = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    })
    .take(100_000)
    .collect();
    let record = |kind: u8, length: u16, body: &[u8]| [&[kind, 3, 1], &length.to_be_bytes()[..], body].concat();
    for (what, bytes) in [
        ("plain HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("noise", noise),
        ("a record too long", record(22, 0xffff, &[0; 70_000])),
        ("alerts", record(21, 2, &[1, 0]).repeat(1_000)),
        ("empty records", record(22, 0, b"").repeat(10_000)),
        ("changes of cipher", record(20, 1, &[1]).repeat(10_000)),
        (
            "a greeting of 16 MiB",
            [record(22, 5, &[1, 0xff, 0xff, 0xff, 3]), record(22, 16_384, &[0; 16_384]).repeat(100)].concat(),
        ),
    ] {
        let mut stream = TcpStream::connect(target.t.server.https).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        // Far above what it takes; what is not hung up on fails here.
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{what}: still connected");
        assert!(answer.len() < 1_000, "{what}: {} bytes of answer", answer.len());
    }
    target.unharmed().await;
}
