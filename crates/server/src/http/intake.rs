//! A request's body, on its way to a handler and after the handler is done with it.
//!
//! While a handler reads, a body on which too little comes for too long fails. When a handler
//! is done early (no rights, no space, a digest that cannot be right) bytes are still
//! coming, and an answer that meets a closed door is lost: TCP resets a connection that is
//! closed over unread bytes, and several clients forget the answer when its HTTP/2 stream
//! is reset while they send. So the rest is read and thrown away while the answer goes out,
//! for so many bytes and so long as is sensible; most clients stop by themselves when they
//! see the status.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::pace::{Demand, Pace};

/// Bytes of a body that are read for nothing.
const UNREAD_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long a body is read for nothing.
const UNREAD_SECS_MAX: u64 = 30;

/// A request's body that fails when too little comes for too long (see [`crate::pace`]), and
/// that is read to its end when it is dropped before.
pub(crate) struct Intake {
    /// None when it has failed: there is nothing more to read.
    body: Option<Incoming>,
    pace: Pace,
    window: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Bytes that came, for the logs.
    received: Arc<AtomicU64>,
    /// The client waits for a word before it sends. It gets the answer instead, and keeps
    /// its bytes.
    waits: bool,
}

impl Intake {
    /// The body of a request with these headers; what its client must get done, and where
    /// its bytes are counted.
    pub(crate) fn new(body: Incoming, headers: &http::HeaderMap, demand: Demand, received: Arc<AtomicU64>) -> Intake {
        let waits = headers.get(header::EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Intake { body: Some(body), pace: Pace::new(demand), window: demand.window, sleep: None, received, waits }
    }
}

impl Intake {
    fn too_slow<T>(&mut self) -> Poll<Option<Result<T, axum::BoxError>>> {
        self.body = None;
        let why = format!("too little came within {} seconds", self.window.as_secs());
        Poll::Ready(Some(Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why).into())))
    }
}

impl Body for Intake {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        self.waits = false;
        match polled {
            Poll::Ready(Some(Err(e))) => {
                self.body = None;
                return Poll::Ready(Some(Err(e.into())));
            }
            Poll::Ready(frame) => {
                let bytes = match &frame {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
                    _ => 0,
                };
                self.received.fetch_add(bytes, Ordering::Relaxed);
                if frame.is_some() && !self.pace.moved(bytes, Instant::now) {
                    return self.too_slow();
                }
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
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
                return self.too_slow();
            }
            // Enough came in this window; now for the next.
            let until = self.pace.waits(now);
            if let Some(sleep) = &mut self.sleep {
                sleep.as_mut().reset(until);
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.waits || body.is_end_stream() {
            return;
        }
        // Outside of a runtime the connection is gone as well.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(discard(body, UNREAD_BYTES_MAX, Duration::from_secs(UNREAD_SECS_MAX)));
        }
    }
}

/// Read a body for nothing: to its end, or until it breaks off, so many bytes came or that
/// much time is over. Dropping it then closes the door (HTTP/1.1: the connection; HTTP/2:
/// the stream).
async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B, bytes_max: u64, time_max: Duration) {
    let reading = async {
        let mut left = bytes_max;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Both ends are good ones: what is not read by then is refused.
    let _ = tokio::time::timeout(time_max, reading).await;
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// A body of pieces of ten bytes that ends after `ends_after`.
    fn pieces(ends_after: usize) -> impl Body<Data = Bytes, Error = io::Error> + Unpin {
        let piece = || Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"0123456789")));
        StreamBody::new(stream::iter((0..ends_after).map(move |_| piece())))
    }

    #[tokio::test]
    async fn what_is_read_for_nothing_is_bounded_in_bytes() {
        let mut body = pieces(10);
        discard(&mut body, 1_000, LONG).await;
        assert!(body.frame().await.is_none(), "all of a short one");
        let mut body = pieces(10);
        discard(&mut body, 35, LONG).await;
        let mut left = 0;
        while body.frame().await.is_some() {
            left += 1;
        }
        assert_eq!(left, 6, "no more than one piece over the limit of a long one");
    }

    #[tokio::test]
    async fn what_is_read_for_nothing_is_bounded_in_time() {
        let mut silent = StreamBody::new(stream::pending::<io::Result<Frame<Bytes>>>());
        discard(&mut silent, 1_000, Duration::from_millis(1)).await;
    }
}
