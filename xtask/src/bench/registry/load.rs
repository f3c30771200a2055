//! Keep-alive connections that repeat one operation until the time is up.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::servers::Server;

/// A request's body.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// No body.
pub(super) fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// A body with a length.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body of unknown length, sent in chunks.
pub(super) fn chunked(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    let frames = pieces.map(|piece| Ok(hyper::body::Frame::data(piece)));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// One connection.
pub(super) struct Client<'a> {
    server: &'a Server,
    sender: SendRequest<Body>,
}

impl<'a> Client<'a> {
    pub(super) async fn connect(server: &'a Server) -> Result<Client<'a>> {
        let stream = TcpStream::connect(server.addr).await.with_context(|| format!("connect to {}", server.addr))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its error is the sender's error too, and told there.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Client { server, sender })
    }

    /// Send a request; `headers` beside the host and the token.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.server.host);
        if let Some(token) = &self.server.token {
            request = request.header("authorization", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(body)?).await?)
    }

    /// Send a request, expect `status`, read the body to its end; its length.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
        status: StatusCode,
    ) -> Result<(hyper::HeaderMap, u64)> {
        let response = self.send(method.clone(), path, headers, body).await?;
        let (parts, mut body) = response.into_parts();
        if parts.status != status {
            let text = body.collect().await?.to_bytes();
            bail!("{method} {path}: {} {}", parts.status, String::from_utf8_lossy(&text));
        }
        let mut len = 0;
        while let Some(frame) = body.frame().await {
            len += frame?.data_ref().map_or(0, Bytes::len) as u64;
        }
        Ok((parts.headers, len))
    }
}

/// What one case on one server came to.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// Microseconds of each operation, sorted.
    micros: Vec<u64>,
    /// Bytes moved, in bodies.
    bytes: u64,
    secs: f64,
    cpu_micros: f64,
    /// The server's peak of resident memory, in MiB.
    pub(super) peak_mib: f64,
}

impl Sample {
    /// Operations in a second.
    pub(super) fn rate(&self) -> f64 {
        self.micros.len() as f64 / self.secs
    }

    /// MiB in a second.
    pub(super) fn mib_per_sec(&self) -> f64 {
        self.bytes as f64 / 1_048_576.0 / self.secs
    }

    /// The server's CPU time of one operation.
    pub(super) fn cpu_micros_per_op(&self) -> f64 {
        self.cpu_micros / self.micros.len().max(1) as f64
    }

    /// The time within which the share `part` of the operations ended.
    pub(super) fn percentile_ms(&self, part: f64) -> f64 {
        let at = ((self.micros.len() as f64 * part) as usize).min(self.micros.len().saturating_sub(1));
        self.micros.get(at).map_or(0.0, |micros| *micros as f64 / 1000.0)
    }
}

/// Repeat `operation` on `conns` connections for `time`, at least once on each. It gets
/// a number that no other call of this sample has, and returns the bytes it moved.
pub(super) async fn drive(
    server: &Server,
    conns: usize,
    time: Duration,
    operation: impl AsyncFn(&mut Client<'_>, u64) -> Result<u64>,
) -> Result<Sample> {
    let more = |n, at: Duration| n < conns as u64 || at < time;
    repeat(server, conns, more, operation).await
}

/// Call `operation` with each number below `count`, on `conns` connections.
pub(super) async fn each(
    server: &Server,
    conns: usize,
    count: u64,
    operation: impl AsyncFn(&mut Client<'_>, u64) -> Result<u64>,
) -> Result<Sample> {
    repeat(server, conns, |n, _| n < count, operation).await
}

async fn repeat(
    server: &Server,
    conns: usize,
    more: impl Fn(u64, Duration) -> bool,
    operation: impl AsyncFn(&mut Client<'_>, u64) -> Result<u64>,
) -> Result<Sample> {
    let mut clients = Vec::with_capacity(conns);
    for _ in 0..conns {
        clients.push(Client::connect(server).await?);
    }
    server.reset_peak();
    let cpu = server.cpu_micros()?;
    let begin = Instant::now();
    let (operation, more) = (&operation, &more);
    let runs = clients.into_iter().enumerate().map(|(conn, mut client)| async move {
        let (mut micros, mut bytes) = (Vec::new(), 0);
        for n in (conn as u64..).step_by(conns) {
            let at = Instant::now();
            if !more(n, at.duration_since(begin)) {
                break;
            }
            bytes += operation(&mut client, n).await?;
            micros.push(at.elapsed().as_micros() as u64);
        }
        anyhow::Ok((micros, bytes))
    });
    let done = futures_util::future::try_join_all(runs).await?;
    let mut sample = Sample {
        secs: begin.elapsed().as_secs_f64(),
        cpu_micros: server.cpu_micros()? - cpu,
        peak_mib: server.peak_mib()?,
        ..Sample::default()
    };
    for (micros, bytes) in done {
        sample.micros.extend(micros);
        sample.bytes += bytes;
    }
    sample.micros.sort_unstable();
    Ok(sample)
}
