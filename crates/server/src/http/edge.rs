//! What every request passes before and after its door.
//!
//! Before: the limits that hold for every request, a request id, the connection's facts, a
//! bound on how slow a body may be. After: the common headers, the caught panic, the lines
//! in the logs, the counters, the span of the trace. A request counts as finished when the
//! last byte of its answer was handed over or its connection went away.

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
use portolan_service::ctx::with_request_id;
use portolan_service::{Error, Kind};
use portolan_types::Timestamp;
use tracing::{Instrument, Span};

use super::audit;
use super::error::{self, Note, OciRim};
use super::intake::Intake;
use super::metrics::Limit;
use super::route::Route;
use super::{Conn, Door, Live, RequestId, Response, Who, client, dispatch, host};
use crate::app::App;
use crate::otel;
use crate::pace::Demand;
use crate::sink::Line;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Take one request through its door.
pub async fn serve(
    app: Arc<App>,
    conn: Conn,
    live: Arc<Live>,
    req: http::Request<Incoming>,
) -> http::Response<Tracked> {
    let settings = &app.settings;
    let demand = Demand { window: settings.body_idle_timeout_secs.secs(), bytes_min: settings.body_window_bytes_min.0 };
    let over = over_limit(&app, &req);
    let (parts, body) = req.into_parts();
    let (body, received) = if body.is_end_stream() {
        (Body::empty(), None)
    } else {
        let received = Arc::new(AtomicU64::new(0));
        (Body::new(Intake::new(body, &parts.headers, demand, received.clone())), Some(received))
    };
    if let Some(limit) = over {
        let (end, _) = End::begin(app, conn, live, &parts, received);
        return refused(limit, &parts, end);
    }
    let conn = match client::behind_proxies(settings, conn, &parts.headers) {
        Ok(conn) => conn,
        Err(why) => {
            let (mut end, _) = End::begin(app.clone(), conn, live, &parts, received);
            let e = Error::new(Kind::Invalid, "UNSUPPORTED", why);
            let res = in_form(end.door, parts.headers.get(header::HOST), conn, e, "InvalidClientAddress");
            end.status = res.status();
            return finish(res, end);
        }
    };
    through(app, conn, live, http::Request::from_parts(parts, body), received).await
}

/// The limit that a request is over, if it is.
fn over_limit<B>(app: &App, req: &http::Request<B>) -> Option<Limit> {
    let settings = &app.settings;
    let uri = req.uri().path_and_query().map_or(0, |p| p.as_str().len());
    // As HTTP/1.1 would write them. hyper's own limit is on its buffer, which must be larger
    // than this for speed.
    let headers: usize = req.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if uri as u64 > settings.uri_bytes_max.0 {
        Some(Limit::Uri)
    } else if (uri + headers) as u64 > settings.header_bytes_max.0 {
        Some(Limit::HeaderBytes)
    } else if req.headers().len() as u64 > u64::from(settings.headers_max.0) {
        Some(Limit::Headers)
    } else if app.metrics.in_flight.load(Ordering::Relaxed) >= i64::from(settings.requests_max.0)
        && Door::of(req.uri().path()) != Door::Ops
    {
        Some(Limit::Requests)
    } else {
        None
    }
}

/// The answer to a request over a limit, in the caller's form; logged and counted like any
/// other.
fn refused(limit: Limit, parts: &http::request::Parts, mut end: End) -> http::Response<Tracked> {
    let settings = &end.app.settings;
    let (status, kind, oci, arm, message) = match limit {
        Limit::Uri => (
            Some(StatusCode::URI_TOO_LONG),
            Kind::Invalid,
            "URI_TOO_LONG",
            "UriTooLong",
            format!("the path and query are longer than {} bytes", settings.uri_bytes_max.0),
        ),
        Limit::HeaderBytes => (
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Kind::Invalid,
            "HEADER_TOO_LARGE",
            "HeaderTooLarge",
            format!("the headers are larger than {} bytes", settings.header_bytes_max.0),
        ),
        Limit::Headers => (
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Kind::Invalid,
            "HEADER_TOO_LARGE",
            "HeaderTooLarge",
            format!("there are more than {} headers", settings.headers_max.0),
        ),
        Limit::Requests => (
            None,
            Kind::Unavailable,
            "UNAVAILABLE",
            "ServerBusy",
            format!("more than {} requests are in flight; try again", settings.requests_max.0),
        ),
    };
    end.app.metrics.refused(limit);
    let mut res = in_form(end.door, parts.headers.get(header::HOST), end.peer, Error::new(kind, oci, message), arm);
    if let Some(status) = status {
        *res.status_mut() = status;
    }
    end.status = res.status();
    finish(res, end)
}

/// An error in the form of the door's clients; `arm` is its code there.
fn in_form(door: Door, host: Option<&HeaderValue>, conn: Conn, e: Error, arm: &'static str) -> Response {
    match door {
        Door::V2 | Door::Acr | Door::Oauth2 => {
            let host = host.and_then(|h| h.to_str().ok()).unwrap_or("localhost");
            error::oci(&e, &OciRim { login_server: host, scheme: conn.scheme })
        }
        _ => error::arm(&Error { code: arm, ..e }),
    }
}

/// [`serve`] for any body, of which `received` counts the bytes.
async fn through(
    app: Arc<App>,
    conn: Conn,
    live: Arc<Live>,
    req: super::Request,
    received: Option<Arc<AtomicU64>>,
) -> http::Response<Tracked> {
    let (parts, body) = req.into_parts();
    let (mut end, id_value) = End::begin(app.clone(), conn, live, &parts, received);
    let mut req = http::Request::from_parts(parts, body);
    let correlation = sane(req.headers().get(&CORRELATION_ID)).unwrap_or_else(|| id_value.clone());
    let client_id = sane(req.headers().get(&CLIENT_REQUEST_ID));
    let door = end.door;
    let rim_host =
        matches!(door, Door::V2 | Door::Acr | Door::Oauth2).then(|| req.headers().get(header::HOST).cloned());
    let extensions = req.extensions_mut();
    extensions.insert(conn);
    extensions.insert(RequestId(end.id.to_string()));
    extensions.insert(end.who.clone());

    let handler = with_request_id(end.id.clone(), app.memory.around(dispatch(app.clone(), req)));
    let answered = match end.span.is_disabled() {
        true => caught(handler).await,
        false => caught(handler.instrument(end.span.clone())).await,
    };
    let mut res = match answered {
        Some(res) => res,
        None => {
            app.metrics.panics_total.fetch_add(1, Ordering::Relaxed);
            let e = Error::new(Kind::Internal, "UNKNOWN", "the server failed to handle this request");
            in_form(door, rim_host.flatten().as_ref(), conn, e, "InternalServerError")
        }
    };
    end.status = res.status();
    end.answered = true;
    if let Some(note) = res.extensions_mut().remove::<Note>() {
        complain(&end, &note);
        end.code = Some(note.code);
    }
    end.audit();
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
fn finish(mut res: Response, mut end: End) -> http::Response<Tracked> {
    if end.method == Method::HEAD && !res.body().is_end_stream() {
        if let Some(length) = res.body().size_hint().exact()
            && !res.headers().contains_key(header::CONTENT_LENGTH)
        {
            res.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        *res.body_mut() = Body::empty();
    }
    end.live.responding.fetch_add(1, Ordering::Relaxed);
    end.responding = true;
    let (parts, body) = res.into_parts();
    http::Response::from_parts(parts, Tracked { body, end })
}

/// What a handler answers; `None` when it panicked (the panic hook has logged it). What it
/// held is dropped, and nothing else is shared with it but what locks and transactions guard.
async fn caught<T>(handler: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(handler).catch_unwind().await.ok()
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
    live: Arc<Live>,
    began: Instant,
    door: Door,
    route: Route,
    method: Method,
    uri: Uri,
    id: Arc<str>,
    who: Who,
    peer: Conn,
    /// What the logs say of the client, when somebody reads them.
    client: Option<Client>,
    span: Span,
    status: StatusCode,
    /// The error's code, for the audit log.
    code: Option<&'static str>,
    received: Option<Arc<AtomicU64>>,
    sent: u64,
    whole: bool,
    answered: bool,
    responding: bool,
}

/// Headers that the logs repeat.
struct Client {
    host: Option<Box<str>>,
    agent: Option<HeaderValue>,
    /// The trace that the client says this is part of.
    trace: Option<Box<str>>,
    has_credentials: bool,
}

impl End {
    /// Count a request in, and give it its id, also as a header's value.
    fn begin(
        app: Arc<App>,
        conn: Conn,
        live: Arc<Live>,
        parts: &http::request::Parts,
        received: Option<Arc<AtomicU64>>,
    ) -> (End, HeaderValue) {
        let id = next_id();
        // Sixteen bytes as hex and hyphens: always a header value.
        let id_value = HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("-"));
        let path = parts.uri.path();
        let door = Door::of(path);
        let route = Route::of(door, path);
        let headers = &parts.headers;
        let client = (app.access.is_on() || app.audit.is_on()).then(|| Client {
            host: host::of(parts).map(Into::into),
            agent: headers.get(header::USER_AGENT).cloned(),
            trace: otel::trace_id(headers).map(Into::into),
            has_credentials: headers.contains_key(header::AUTHORIZATION),
        });
        let span = tracing::trace_span!(
            target: "portolan::trace",
            "request",
            otel.name = tracing::field::Empty,
            otel.kind = "server",
            otel.status_code = tracing::field::Empty,
            http.request.method = parts.method.as_str(),
            http.route = route.as_str(),
            http.response.status_code = tracing::field::Empty,
            url.scheme = conn.scheme,
            server.address = tracing::field::Empty,
            client.address = tracing::field::Empty,
            portolan.request_id = &*id,
            portolan.principal = tracing::field::Empty,
        );
        if !span.is_disabled() {
            otel::follow(&span, headers);
            span.record("otel.name", format!("{} {}", parts.method, route.as_str()));
            span.record("client.address", conn.peer.ip().to_string());
            if let Some(host) = host::of(parts) {
                span.record("server.address", host);
            }
        }
        app.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        live.begun.fetch_add(1, Ordering::Relaxed);
        let end = End {
            app,
            live,
            began: Instant::now(),
            door,
            route,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            id: id.into(),
            who: Who::default(),
            peer: conn,
            client,
            span,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: None,
            received,
            sent: 0,
            whole: false,
            answered: false,
            responding: false,
        };
        (end, id_value)
    }

    fn received(&self) -> u64 {
        self.received.as_ref().map_or(0, |n| n.load(Ordering::Relaxed))
    }

    /// The audit log's line, if this is something that it tells of.
    fn audit(&self) {
        let Some(client) = self.client.as_ref().filter(|_| self.app.audit.is_on()) else { return };
        // A client asks every few seconds whether the person is done.
        if self.code == Some("authorization_pending") {
            return;
        }
        let status = self.answered.then_some(self.status);
        let Some((event, outcome)) =
            audit::of(self.route, &self.method, self.uri.path(), status, client.has_credentials)
        else {
            return;
        };
        let mut line = Line::at(Timestamp::now());
        line.text("log", "audit").text("event", event).text("outcome", outcome);
        if self.answered {
            line.number("status", u64::from(self.status.as_u16()));
        }
        line.maybe("code", self.code);
        if matches!(self.door, Door::V2 | Door::Acr | Door::Oauth2) {
            let registry = self.app.service.registry_by_host(client.host.as_deref().unwrap_or_default());
            line.maybe("registry", registry.as_ref().map(|r| r.name.as_str()));
            let (repository, reference) = self.route.subject(self.uri.path());
            line.maybe("repository", repository).maybe("reference", reference);
        }
        line.text("method", self.method.as_str()).text("path", self.uri.path());
        self.about_client(&mut line, client);
        self.app.audit.write(line);
    }

    fn about_client(&self, line: &mut Line, client: &Client) {
        let (kind, id) = self.who.get().unwrap_or(("anonymous", ""));
        line.text("principal_kind", kind).text("principal_id", id);
        let mut ip = String::with_capacity(40);
        // Writing to a String cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut ip, format_args!("{}", self.peer.peer.ip()));
        line.text("client", &ip);
        if let Some(agent) = &client.agent {
            line.text("user_agent", &String::from_utf8_lossy(agent.as_bytes()));
        }
        line.text("request_id", &self.id).maybe("trace_id", client.trace.as_deref());
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.live.ended.fetch_add(1, Ordering::Relaxed);
        if self.responding {
            self.live.responding.fetch_sub(1, Ordering::Relaxed);
        }
        self.app.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        let received = self.received();
        self.app.metrics.finished(self.route, &self.method, self.status, took, (received, self.sent));
        if !self.answered && !self.responding {
            // The client went away before it was answered; what it asked for may be done.
            self.audit();
        }
        if !self.span.is_disabled() {
            self.span.record("http.response.status_code", self.status.as_u16());
            if let Some((kind, id)) = self.who.get() {
                self.span.record("portolan.principal", format!("{kind}:{id}"));
            }
            if self.status.is_server_error() {
                self.span.record("otel.status_code", "ERROR");
            }
        }
        let Some(client) = self.client.as_ref().filter(|_| self.app.access.is_on()) else { return };
        let mut line = Line::at(Timestamp::now());
        line.text("log", "access").text("method", self.method.as_str()).text("route", self.route.as_str());
        // The path without its query: queries carry signatures and codes.
        line.text("path", self.uri.path());
        line.number("status", u64::from(self.status.as_u16()));
        line.millis("ms", u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        line.number("bytes_in", received).number("bytes_out", self.sent).flag("whole", self.whole);
        line.text("scheme", self.peer.scheme);
        self.about_client(&mut line, client);
        self.app.access.offer(line);
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
            Some(Ok(frame)) => self.end.sent += frame.data_ref().map_or(0, |data| data.len() as u64),
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
            let e = Error::new(Kind::Internal, "UNKNOWN", "the server failed to handle this request");
            let res = in_form(door, None, conn, e, "InternalServerError");
            assert_eq!(res.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = super::super::memory::read_body(res.into_body(), 1_000).await.unwrap();
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
