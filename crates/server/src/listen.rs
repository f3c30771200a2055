//! Listeners and connections: TCP, TLS, HTTP/1.1 and HTTP/2.
//!
//! One loop for each listener takes connections while fewer than `connections_max` are
//! open, and each connection lives in a task of its own; its requests run in that task
//! (HTTP/1.1) or in those of the HTTP/2 connection. Every stage has a limit in time: the
//! handshake, the headers, a stalled body (`http::edge`), a client that does not take
//! what we write (here).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::http::{Conn, edge};
use crate::sendfile::{Files, Socket};

/// Connections the kernel keeps for us until we accept them.
const BACKLOG: i32 = 1_024;
/// The largest single read from an HTTP/1.1 connection: large, for uploads.
const READ_BYTES_MAX: usize = 256 * 1024;
/// HTTP/2 requests at once on one connection.
const H2_STREAMS_MAX: u32 = 256;
/// How much of an upload may be under way on one HTTP/2 stream before we have read it.
const H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for the whole connection.
const H2_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Every so often an HTTP/2 client must show that it is there.
const H2_PING_SECS: u64 = 30;
/// Pause after a failed accept (no file descriptors left), so as not to spin.
const ACCEPT_RETRY_MILLIS: u64 = 100;

/// Bind an address. An IPv6 wildcard takes IPv4 too.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let domain = if addr.is_ipv6() { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// One listener, with TLS or without.
pub(crate) struct Listener {
    /// The bound socket.
    pub(crate) tcp: TcpListener,
    /// TLS, for the `https` listener.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Open connections of all listeners together.
    pub(crate) permits: Arc<Semaphore>,
}

impl Listener {
    /// Take connections until the server drains; then finish those that are busy, for at
    /// most `deadline`, and drop the rest. The number dropped.
    pub(crate) async fn serve(self, app: Arc<App>) -> usize {
        let Listener { tcp, tls, permits } = self;
        let http = Arc::new(http_builder(&app));
        let mut connections = JoinSet::new();
        let begun = app.drain.begun();
        tokio::pin!(begun);
        loop {
            // A permit first: connections over the limit wait in the kernel's queue.
            let permit = tokio::select! {
                biased;
                () = &mut begun => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                permit = permits.clone().acquire_owned() => match permit {
                    Ok(permit) => permit,
                    Err(_) => break,
                },
            };
            let accepted = tokio::select! {
                biased;
                () = &mut begun => break,
                accepted = tcp.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (app, tls, http) = (app.clone(), tls.clone(), http.clone());
                    connections.spawn(async move {
                        connection(app, tls, http, stream, peer).await;
                        drop(permit);
                    });
                }
                Err(why) => {
                    // A client that went away before we took it is its own affair.
                    if !matches!(why.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                        tracing::warn!(%why, "accept a connection");
                        tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MILLIS)).await;
                    }
                }
            }
        }
        drop(tcp);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(app.settings.drain_timeout_secs.secs(), all).await;
        connections.len()
    }
}

fn http_builder(app: &App) -> auto::Builder<TokioExecutor> {
    let settings = &app.settings;
    let header_bytes_max = usize::try_from(settings.header_bytes_max.0).unwrap_or(usize::MAX);
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout_secs.secs())
        .max_buf_size(header_bytes_max.max(READ_BYTES_MAX))
        .max_headers(128);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(Duration::from_secs(H2_PING_SECS))
        .keep_alive_timeout(Duration::from_secs(H2_PING_SECS));
    http
}

async fn connection(
    app: Arc<App>,
    tls: Option<TlsAcceptor>,
    http: Arc<auto::Builder<TokioExecutor>>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let _open = Open::count(&app);
    // Small answers must not wait for Nagle's algorithm.
    let _ = stream.set_nodelay(true);
    let stream = Socket::new(stream);
    let files = stream.files();
    let stream = Patient::new(stream, app.settings.body_idle_timeout_secs.secs());
    let Some(tls) = tls else {
        return requests(app, &http, stream, Conn { scheme: "http", peer }, Some(files)).await;
    };
    let handshake = tokio::time::timeout(app.settings.tls_handshake_timeout_secs.secs(), tls.accept(stream));
    let stream = tokio::select! {
        biased;
        handshake = handshake => handshake,
        () = app.drain.begun() => return,
    };
    match stream {
        Ok(Ok(stream)) => requests(app, &http, stream, Conn { scheme: "https", peer }, None).await,
        Ok(Err(why)) => {
            app.metrics.handshakes_failed_total.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(peer = %peer.ip(), %why, "TLS handshake");
        }
        Err(_) => {
            app.metrics.handshakes_failed_total.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(peer = %peer.ip(), "TLS handshake took too long");
        }
    }
}

/// The requests of one connection, until it closes or the server drains. `files` for a
/// connection without TLS.
async fn requests<S>(
    app: Arc<App>,
    http: &auto::Builder<TokioExecutor>,
    stream: S,
    conn: Conn,
    files: Option<Files>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Arc::new(AtomicU32::new(0));
    let service = service_fn({
        let (app, begun) = (app.clone(), begun.clone());
        move |mut req: http::Request<Incoming>| {
            begun.fetch_add(1, Ordering::Relaxed);
            let app = app.clone();
            // HTTP/2 frames what it writes, and several answers at once.
            if let Some(files) = files.as_ref().filter(|_| req.version() <= http::Version::HTTP_11) {
                req.extensions_mut().insert(files.clone());
            }
            async move { Ok::<_, std::convert::Infallible>(edge::serve(app, conn, req).await) }
        }
    });
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        biased;
        result = serving.as_mut() => result,
        () = app.drain.begun() => {
            // A connection that never asked for anything would be waited for in vain.
            if begun.load(Ordering::Relaxed) == 0 {
                return;
            }
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(why) = result {
        tracing::debug!(peer = %conn.peer.ip(), %why, "connection");
    }
}

/// Counts an open connection.
struct Open(Arc<App>);

impl Open {
    fn count(app: &Arc<App>) -> Open {
        app.metrics.connections.fetch_add(1, Ordering::Relaxed);
        app.metrics.connections_total.fetch_add(1, Ordering::Relaxed);
        Open(app.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose writes fail when the other end takes nothing for too long.
struct Patient {
    stream: Socket,
    idle: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Patient {
    fn new(stream: Socket, idle: Duration) -> Patient {
        Patient { stream, idle, sleep: None, armed: false }
    }

    /// Let a write that is pending run into the time limit.
    fn limit<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.armed = false;
            return written;
        }
        if !self.armed {
            self.armed = true;
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(tokio::time::Instant::now() + self.idle),
                none => *none = Some(Box::pin(tokio::time::sleep(self.idle))),
            }
        }
        match self.sleep.as_mut().map(|sleep| sleep.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            _ => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limit(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.limit(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.limit(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
