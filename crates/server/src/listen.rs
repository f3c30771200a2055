//! Listeners and connections: TCP, TLS, HTTP/1.1 and HTTP/2.
//!
//! One loop for each listener takes connections while fewer than `connections_max` are
//! open (and closes those of an address that has too many), and each connection lives in a
//! task of its own; its requests run in that task (HTTP/1.1) or in those of the HTTP/2
//! connection. Every stage has a limit in time: the handshake, the headers, a slow body
//! (`http::intake`), a client that does not take what we write, a connection without a
//! request (here).
//!
//! *HTTP/2 floods:* streams that are reset at once count against
//! [`H2_RESETS_PENDING_MAX`] until they are taken off the queue, those that we must reset
//! ourselves against [`H2_RESETS_OWN_MAX`] in all; one more, and the connection is closed
//! (CVE-2023-44487, CVE-2025-8671). What is queued for a stream that the client does not
//! read is at most [`H2_SEND_BYTES_MAX`]. A client may keep its TCP connection busy with
//! pings and yet take no answer, by never opening its window: [`Watch`] sees that.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::http::rate::network;
use crate::http::{Conn, Live, OpsOnly, edge};
use crate::pace::{Demand, Pace};
use crate::sendfile::{Files, Socket};

/// Connections the kernel keeps for us until we accept them.
const BACKLOG: i32 = 1_024;
/// The largest single read from an HTTP/1.1 connection: large, for uploads.
const READ_BYTES_MAX: usize = 256 * 1024;
/// HTTP/2 streams that the client reset before we got to them.
const H2_RESETS_PENDING_MAX: usize = 32;
/// HTTP/2 streams that we reset for what the client did, on one connection.
const H2_RESETS_OWN_MAX: usize = 256;
/// What of an answer waits to be sent on one HTTP/2 stream.
const H2_SEND_BYTES_MAX: usize = 256 * 1024;
/// Headers that hyper takes without an allocation; it answers 431 to more.
const HYPER_HEADERS_MAX: u32 = 100;
/// Connections to the address of `metrics_listen`.
pub(crate) const OPS_CONNECTIONS_MAX: usize = 64;
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
    /// Open connections by address, of all listeners together.
    pub(crate) peers: Arc<Peers>,
    /// Whether it is the address for operators.
    pub(crate) ops_only: bool,
}

/// How many connections each address has.
pub(crate) struct Peers {
    /// 0 for no limit.
    max: u32,
    open: Mutex<HashMap<u128, u32>>,
}

/// A connection's place among those of its address.
struct Place(Arc<Peers>, u128);

impl Peers {
    pub(crate) fn new(max: u32) -> Peers {
        Peers { max, open: Mutex::default() }
    }

    /// A place for one more of that address, if there is one.
    fn enter(self: &Arc<Peers>, ip: IpAddr) -> Option<Place> {
        let network = network(ip);
        let mut open = self.open.lock();
        let count = open.entry(network).or_insert(0);
        if self.max > 0 && *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), network))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.open.lock();
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

impl Listener {
    /// Take connections until the server drains; then finish those that are busy, for at
    /// most `deadline`, and drop the rest. The number dropped.
    pub(crate) async fn serve(self, app: Arc<App>) -> usize {
        let Listener { tcp, tls, permits, peers, ops_only } = self;
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
                    let Some(place) = peers.enter(peer.ip()) else {
                        app.metrics.connections_refused_total.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(peer = %peer.ip(), "its address has too many connections");
                        continue;
                    };
                    let (app, tls, http) = (app.clone(), tls.clone(), http.clone());
                    connections.spawn(async move {
                        connection(app, tls, http, stream, peer, ops_only).await;
                        drop((permit, place));
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
        .max_buf_size(header_bytes_max.max(READ_BYTES_MAX));
    if settings.headers_max.0 > HYPER_HEADERS_MAX {
        http.http1().max_headers(usize::try_from(settings.headers_max.0).unwrap_or(usize::MAX));
    }
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(settings.http2_streams_max.0)
        .max_pending_accept_reset_streams(H2_RESETS_PENDING_MAX)
        .max_local_error_reset_streams(H2_RESETS_OWN_MAX)
        .max_send_buf_size(H2_SEND_BYTES_MAX)
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
    ops_only: bool,
) {
    let _open = Open::count(&app);
    // Small answers must not wait for Nagle's algorithm.
    let _ = stream.set_nodelay(true);
    let stream = Socket::new(stream);
    let files = stream.files();
    let live = Arc::new(Live::default());
    let settings = &app.settings;
    let demand = Demand { window: settings.body_idle_timeout_secs.secs(), bytes_min: settings.body_window_bytes_min.0 };
    let stream = Patient::new(stream, demand, live.clone());
    let Some(tls) = tls else {
        let conn = Conn { scheme: "http", peer };
        return requests(app, &http, stream, conn, Watch::new(live, demand), Some(files), ops_only).await;
    };
    let handshake = tokio::time::timeout(app.settings.tls_handshake_timeout_secs.secs(), tls.accept(stream));
    let stream = tokio::select! {
        biased;
        handshake = handshake => handshake,
        () = app.drain.begun() => return,
    };
    match stream {
        Ok(Ok(stream)) => {
            let conn = Conn { scheme: "https", peer };
            requests(app, &http, stream, conn, Watch::new(live, demand), None, ops_only).await;
        }
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
    mut watch: Watch,
    files: Option<Files>,
    ops_only: bool,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn({
        let (app, live) = (app.clone(), watch.live.clone());
        move |mut req: http::Request<Incoming>| {
            let (app, live) = (app.clone(), live.clone());
            // HTTP/2 frames what it writes, and several answers at once.
            if let Some(files) = files.as_ref().filter(|_| req.version() <= http::Version::HTTP_11) {
                req.extensions_mut().insert(files.clone());
            }
            if ops_only {
                req.extensions_mut().insert(OpsOnly);
            }
            async move { Ok::<_, std::convert::Infallible>(edge::serve(app, conn, live, req).await) }
        }
    });
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let draining = app.drain.begun();
    tokio::pin!(draining);
    let mut closing = false;
    let result = loop {
        tokio::select! {
            biased;
            result = serving.as_mut() => break result,
            () = &mut draining, if !closing => {
                // A connection that never asked for anything would be waited for in vain.
                if watch.live.begun.load(Ordering::Relaxed) == 0 {
                    return;
                }
                closing = true;
                serving.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(watch.demand.window) => match watch.look() {
                Seen::Busy => {}
                // Told to go once, it is given a window to do so.
                Seen::Idle if closing => return,
                Seen::Idle => {
                    closing = true;
                    serving.as_mut().graceful_shutdown();
                }
                Seen::Stalled => {
                    tracing::debug!(peer = %conn.peer.ip(), "it does not take its answers");
                    return;
                }
            },
        }
    };
    if let Err(why) = result {
        tracing::debug!(peer = %conn.peer.ip(), %why, "connection");
    }
}

/// Looks at a connection once in a window.
struct Watch {
    live: Arc<Live>,
    demand: Demand,
    begun: u32,
    ended: u32,
    written: u64,
}

/// What [`Watch`] sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Requests come or are worked on.
    Busy,
    /// No request in a whole window.
    Idle,
    /// Answers wait for the client, and nearly nothing of them went out in a window.
    Stalled,
}

impl Watch {
    fn new(live: Arc<Live>, demand: Demand) -> Watch {
        Watch { live, demand, begun: 0, ended: 0, written: 0 }
    }

    fn look(&mut self) -> Seen {
        let load = |n: &std::sync::atomic::AtomicU32| n.load(Ordering::Relaxed);
        let (begun, ended, responding) = (load(&self.live.begun), load(&self.live.ended), load(&self.live.responding));
        let written = self.live.written.load(Ordering::Relaxed);
        let still = (begun, ended) == (self.begun, self.ended);
        let moved = written.saturating_sub(self.written);
        (self.begun, self.ended, self.written) = (begun, ended, written);
        let open = begun.wrapping_sub(ended);
        if still && open == 0 {
            Seen::Idle
        } else if still && open == responding && moved < self.demand.bytes_min {
            Seen::Stalled
        } else {
            Seen::Busy
        }
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

/// A stream whose writes fail when the other end takes too little for too long.
struct Patient {
    stream: Socket,
    pace: Pace,
    live: Arc<Live>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: Socket, demand: Demand, live: Arc<Live>) -> Patient {
        Patient { stream, pace: Pace::new(demand), live, sleep: None }
    }

    /// Let a write that is pending run into the time limit.
    fn limit(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let too_slow = || Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.live.written.fetch_add(bytes as u64, Ordering::Relaxed);
                return if self.pace.moved(bytes as u64, Instant::now) { written } else { too_slow() };
            }
            Poll::Ready(Err(_)) => return written,
            Poll::Pending => {}
        }
        if !self.pace.is_waiting() {
            let until = self.pace.waits(Instant::now());
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(until),
                none => *none = Some(Box::pin(tokio::time::sleep_until(until))),
            }
        }
        while let Some(sleep) = &mut self.sleep
            && sleep.as_mut().poll(cx).is_ready()
        {
            let now = Instant::now();
            if !self.pace.look(now) {
                return too_slow();
            }
            // Enough went in this window; now for the next.
            sleep.as_mut().reset(self.pace.waits(now));
        }
        Poll::Pending
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
        // A socket has nothing to flush, and waits for nothing.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let peers = Arc::new(Peers::new(2));
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let (one, two) = (peers.enter(a).unwrap(), peers.enter(a).unwrap());
        assert!(peers.enter(a).is_none());
        assert!(peers.enter(b).is_some());
        drop(one);
        let three = peers.enter(a).unwrap();
        assert!(peers.enter(a).is_none());
        drop((two, three));
        assert!(peers.open.lock().is_empty(), "nothing is kept of who is gone");
        let any = Arc::new(Peers::new(0));
        assert_eq!((0..100).filter_map(|_| any.enter(a)).collect::<Vec<_>>().len(), 100);
    }

    #[test]
    fn a_watch_tells_the_idle_and_the_stalled_from_the_busy() {
        let live = Arc::new(Live::default());
        let mut watch = Watch::new(live.clone(), Demand { window: Duration::from_secs(1), bytes_min: 100 });
        let set = |begun, ended, responding, written| {
            live.begun.store(begun, Ordering::Relaxed);
            live.ended.store(ended, Ordering::Relaxed);
            live.responding.store(responding, Ordering::Relaxed);
            live.written.store(written, Ordering::Relaxed);
        };
        assert_eq!(watch.look(), Seen::Idle, "nothing was ever asked for");
        set(1, 0, 0, 0);
        assert_eq!(watch.look(), Seen::Busy, "a request came");
        assert_eq!(watch.look(), Seen::Busy, "its handler takes its time");
        set(1, 0, 1, 50);
        assert_eq!(watch.look(), Seen::Stalled, "pings alone are no answer");
        set(1, 0, 1, 500);
        assert_eq!(watch.look(), Seen::Busy, "slow, but it goes on");
        set(2, 1, 1, 500);
        assert_eq!(watch.look(), Seen::Busy, "another request");
        set(2, 2, 0, 500);
        assert_eq!(watch.look(), Seen::Busy, "its answer ended");
        assert_eq!(watch.look(), Seen::Idle);
    }
}
