//! What operators ask: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use portolan_service::{Error, Kind};
use portolan_types::Secret;

use super::caller::{self, Credentials};
pub use super::metrics::Metrics;
use super::metrics::{self, Page};
use super::{Request, Response, error, respond};
use crate::app::App;
use crate::drain::Phase;

/// Answer `/healthz`, `/readyz` and `/metrics`.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    if app.settings.metrics_listen.is_some() && req.uri().path() == "/metrics" {
        return error::unknown_path();
    }
    answer(app, req).await
}

/// [`handle`] for the address that `metrics_listen` names.
pub async fn answer(app: &Arc<App>, req: Request) -> Response {
    if !matches!(*req.method(), Method::GET | Method::HEAD) {
        return respond::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let (parts, _) = req.into_parts();
    match parts.uri.path() {
        "/healthz" => respond::text(StatusCode::OK, "ok\n"),
        "/readyz" => match app.drain.phase() {
            Phase::Serving => respond::text(StatusCode::OK, "ready\n"),
            Phase::Starting => respond::text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Phase::Draining => respond::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        "/metrics" if !may_read(app, &parts) => {
            let e = Error::new(Kind::Unauthenticated, "AuthenticationFailed", "the metrics ask for their token");
            let mut res = error::arm(&e);
            res.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"metrics\""));
            res
        }
        "/metrics" => respond::bytes_of(
            StatusCode::OK,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            page(app).await.into(),
        ),
        _ => error::unknown_path(),
    }
}

/// Whether the request shows the token, where one is set.
fn may_read(app: &App, parts: &Parts) -> bool {
    let Some(expected) = &app.metrics_token else { return true };
    match caller::credentials(parts) {
        Some(Credentials::Bearer(token)) => same(expected, &token),
        _ => false,
    }
}

/// Compared without telling by the time it takes how much of it is right.
fn same(a: &Secret<String>, b: &Secret<String>) -> bool {
    let (a, b) = (a.expose().as_bytes(), b.expose().as_bytes());
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | std::hint::black_box(a ^ b)) == 0
}

/// Every figure there is.
async fn page(app: &App) -> String {
    let mut page = Page::new();
    app.metrics.render(&mut page, app.memory.refused());
    metrics::rates(&mut page, &app.rates);
    let (used, max) = app.memory.used();
    page.one("portolan_body_memory_bytes", used);
    page.one("portolan_body_memory_max_bytes", max);
    metrics::blobs(&mut page, &app.blob_stats);
    metrics::database(&mut page, app.service.meta.engine_name(), app.service.meta.stats());
    let caches = app.service.cache_figures();
    for (name, one) in [
        ("portolan_cache_hits_total", (|c| c.hits) as fn(&portolan_service::CacheFigures) -> u64),
        ("portolan_cache_misses_total", |c| c.misses),
        ("portolan_cache_entries", |c| c.entries),
    ] {
        page.begin(name);
        for cache in &caches {
            page.sample(&[cache.name], one(cache));
        }
    }
    if let Ok(open) = app.service.uploads_open().await {
        page.one("portolan_uploads_open", open);
    }
    if let Ok((queued, running)) = app.tasks.load().await {
        page.one("portolan_runs_queued", queued);
        page.one("portolan_runs_running", running as u64);
    }
    page.begin("portolan_log_lines_lost_total");
    for (name, sink) in [("access", &app.access), ("audit", &app.audit)] {
        let (dropped, failed) = sink.lost();
        page.sample(&[name, "full"], dropped);
        page.sample(&[name, "failed"], failed);
    }
    metrics::process(&mut page);
    page.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_same_or_not() {
        let secret = |text: &str| Secret::new(text.to_owned());
        assert!(same(&secret("abc"), &secret("abc")));
        assert!(!same(&secret("abc"), &secret("abd")) && !same(&secret("abc"), &secret("ab")));
    }
}
