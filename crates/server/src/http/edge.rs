//! What every request passes before and after its door.
//!
//! Before: a request id, the connection's facts, a bound on how long a body may stall.
//! After: the common headers, the caught panic, the line in the log, the counters. A
//! request counts as finished when the last byte of its answer was handed over or its
//! connection went away.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use portolan_service::{Error, Kind};

use super::error::{self, Note, OciRim};
use super::intake::Intake;
use super::{Conn, Door, RequestId, Response, Who, dispatch};
use crate::app::App;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Take one request through its door.
pub async fn serve(app: Arc<App>, conn: Conn, req: http::Request<Incoming>) -> http::Response<Tracked> {
    let idle = app.settings.body_idle_timeout_secs.secs();
    let fits = header_bytes(&req) <= app.settings.header_bytes_max.0;
    let (parts, body) = req.into_parts();
    let body = if body.is_end_stream() { Body::empty() } else { Body::new(Intake::new(body, &parts.headers, idle)) };
    if !fits {
        // hyper's own limit is on its buffer, which must be larger than this for speed.
        return refused(app, conn, parts);
    }
    through(app, conn, http::Request::from_parts(parts, body)).await
}

/// The size of a request's line and headers, as HTTP/1.1 would write them.
fn header_bytes<B>(req: &http::Request<B>) -> u64 {
    let line = req.uri().path_and_query().map_or(0, |p| p.as_str().len());
    let headers: usize = req.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (line + headers) as u64
}

/// The answer to headers over the limit; logged and counted like any other.
fn refused(app: Arc<App>, conn: Conn, parts: http::request::Parts) -> http::Response<Tracked> {
    let max = app.settings.header_bytes_max.0;
    let e = Error::new(Kind::Invalid, "HEADER_TOO_LARGE", format!("the headers are larger than {max} bytes"));
    let mut res = error::oci(&e, &OciRim { login_server: "localhost", scheme: conn.scheme });
    *res.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    app.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
    let end = End {
        began: Instant::now(),
        door: Door::of(parts.uri.path()),
        method: parts.method,
        uri: parts.uri,
        id: next_id(),
        who: Who::default(),
        peer: conn,
        status: res.status(),
        bytes: 0,
        whole: false,
        app,
    };
    finish(res, end)
}

/// [`serve`] for any body.
pub async fn through(app: Arc<App>, conn: Conn, mut req: super::Request) -> http::Response<Tracked> {
    let began = Instant::now();
    let id = next_id();
    // Sixteen bytes as hex and hyphens: always a header value.
    let id_value = HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("-"));
    let correlation = sane(req.headers().get(&CORRELATION_ID)).unwrap_or_else(|| id_value.clone());
    let client_id = sane(req.headers().get(&CLIENT_REQUEST_ID));
    let who = Who::default();
    let door = Door::of(req.uri().path());
    let (method, uri) = (req.method().clone(), req.uri().clone());
    let rim_host =
        matches!(door, Door::V2 | Door::Acr | Door::Oauth2).then(|| req.headers().get(header::HOST).cloned());
    let extensions = req.extensions_mut();
    extensions.insert(conn);
    extensions.insert(RequestId(id.clone()));
    extensions.insert(who.clone());

    app.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
    let mut end = End {
        app: app.clone(),
        began,
        door,
        method,
        uri,
        id,
        who,
        peer: conn,
        status: StatusCode::INTERNAL_SERVER_ERROR,
        bytes: 0,
        whole: false,
    };

    let mut res = match caught(dispatch(app.clone(), req)).await {
        Some(res) => res,
        None => {
            app.metrics.panics_total.fetch_add(1, Ordering::Relaxed);
            panicked(rim_host.flatten().as_ref(), door, conn)
        }
    };
    end.status = res.status();
    if let Some(note) = res.extensions_mut().remove::<Note>() {
        complain(&end, &note);
    }
    let headers = res.headers_mut();
    headers.insert(REQUEST_ID, id_value);
    headers.insert(CORRELATION_ID, correlation);
    if let Some(client_id) = client_id {
        headers.insert(CLIENT_REQUEST_ID, client_id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if door == Door::V2 {
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    }
    finish(res, end)
}

/// Hand the answer over; of an answer to HEAD only the headers, with the length that GET
/// would have.
fn finish(mut res: Response, end: End) -> http::Response<Tracked> {
    if end.method == Method::HEAD && !res.body().is_end_stream() {
        if let Some(length) = res.body().size_hint().exact()
            && !res.headers().contains_key(header::CONTENT_LENGTH)
        {
            res.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        *res.body_mut() = Body::empty();
    }
    let (parts, body) = res.into_parts();
    http::Response::from_parts(parts, Tracked { body, end })
}

/// What a handler answers; `None` when it panicked (the panic hook has logged it). What it
/// held is dropped, and nothing else is shared with it but what locks and transactions guard.
async fn caught<T>(handler: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(handler).catch_unwind().await.ok()
}

/// The answer when a handler panicked, in the caller's form.
fn panicked(host: Option<&HeaderValue>, door: Door, conn: Conn) -> Response {
    let e = Error::new(Kind::Internal, "UNKNOWN", "the server failed to handle this request");
    match door {
        Door::V2 | Door::Acr | Door::Oauth2 => {
            let host = host.and_then(|h| h.to_str().ok()).unwrap_or("localhost");
            error::oci(&e, &OciRim { login_server: host, scheme: conn.scheme })
        }
        _ => error::arm(&Error { code: "InternalServerError", ..e }),
    }
}

/// The one place where a failed request's error is logged.
fn complain(end: &End, note: &Note) {
    let (id, path, status) = (&end.id, end.uri.path(), end.status.as_u16());
    let cause = note.cause.as_deref().unwrap_or("-");
    if end.status.is_server_error() {
        tracing::error!(request_id = %id, method = %end.method, path, status, code = note.code, cause, "{}", note.message);
    } else {
        tracing::debug!(request_id = %id, method = %end.method, path, status, code = note.code, cause, "{}", note.message);
    }
}

/// A request id: the form of a UUID, unique over restarts by its random part, counted
/// within the process, so that it costs no system call.
fn next_id() -> String {
    use std::sync::OnceLock;
    static PROCESS: OnceLock<uuid::Uuid> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(uuid::Uuid::new_v4).as_u128();
    let count = u128::from(COUNT.fetch_add(1, Ordering::Relaxed)) & 0xffff_ffff_ffff;
    uuid::Uuid::from_u128((process & !0xffff_ffff_ffff) | count).to_string()
}

/// A client's id that may stand in our headers and logs.
fn sane(value: Option<&HeaderValue>) -> Option<HeaderValue> {
    value
        .filter(|v| {
            (1..=64).contains(&v.len()) && v.as_bytes().iter().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(c))
        })
        .cloned()
}

/// What is known of a request when it ends; dropping it writes the log line.
struct End {
    app: Arc<App>,
    began: Instant,
    door: Door,
    method: Method,
    uri: Uri,
    id: String,
    who: Who,
    peer: Conn,
    status: StatusCode,
    bytes: u64,
    whole: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.app.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.app.metrics.finished(self.door, self.status, took, self.bytes);
        // The path without its query: queries carry signatures and codes.
        tracing::info!(
            target: "portolan::access",
            request_id = self.id,
            method = self.method.as_str(),
            path = self.uri.path(),
            status = self.status.as_u16(),
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            bytes = self.bytes,
            who = self.who.get().unwrap_or("-"),
            peer = %self.peer.peer.ip(),
            scheme = self.peer.scheme,
            whole = self.whole,
            "request"
        );
    }
}

/// An answer's body that knows when it is over.
pub struct Tracked {
    body: Body,
    end: End,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.end.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(why)) => {
                tracing::warn!(request_id = %self.end.id, path = self.end.uri.path(), %why, "an answer broke off");
            }
            None => {}
        }
        self.end.whole = self.body.is_end_stream() || frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_look_like_uuids() {
        let (a, b) = (next_id(), next_id());
        assert_ne!(a, b);
        assert!(uuid::Uuid::try_parse(&a).is_ok());
        assert_eq!(a[..23], b[..23]);
    }

    #[tokio::test]
    async fn a_panic_becomes_a_500_in_the_callers_form() {
        assert_eq!(caught(async { 1 }).await, Some(1));
        let out_of_bounds = async {
            tokio::task::yield_now().await;
            [0u8; 1][std::hint::black_box(1)]
        };
        assert_eq!(caught(out_of_bounds).await, None);
        let conn = Conn { scheme: "https", peer: ([127, 0, 0, 1], 1).into() };
        for (door, member) in [(Door::V2, "errors"), (Door::Arm, "error")] {
            let res = panicked(None, door, conn);
            assert_eq!(res.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = super::super::respond::read_body(res.into_body(), 1_000).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(body.get(member).is_some(), "{body}");
        }
    }

    #[test]
    fn a_clients_id_is_echoed_only_when_harmless() {
        let of = |text: &'static str| sane(Some(&HeaderValue::from_static(text))).is_some();
        assert!(of("0f8fad5b-d9cb-469f-a165-70867728950e") && of("run_1.2"));
        assert!(!of("") && !of("a b") && !of("a\"b"));
        assert!(sane(Some(&HeaderValue::from_str(&"a".repeat(65)).unwrap())).is_none());
    }
}
