//! What operators ask: `/healthz`, `/readyz`, `/metrics`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use super::{Door, Request, Response, error, respond};
use crate::app::App;
use crate::drain::Phase;

/// Upper bounds of the latency histogram, in microseconds.
const BUCKETS_MICROS: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// Answer `/healthz`, `/readyz` and `/metrics`.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    if !matches!(*req.method(), Method::GET | Method::HEAD) {
        return respond::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    match req.uri().path() {
        "/healthz" => respond::text(StatusCode::OK, "ok\n"),
        "/readyz" => match app.drain.phase() {
            Phase::Serving => respond::text(StatusCode::OK, "ready\n"),
            Phase::Starting => respond::text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Phase::Draining => respond::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        "/metrics" => respond::bytes_of(
            StatusCode::OK,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            metrics(app).await.into(),
        ),
        _ => error::unknown_path(),
    }
}

/// The counters, and what the store says of runs and uploads.
async fn metrics(app: &App) -> String {
    let mut out = app.metrics.render();
    if let Ok((queued, running)) = app.tasks.load().await {
        head(&mut out, "portolan_runs_queued", "gauge", "Runs that wait for a worker.");
        let _ = writeln!(out, "portolan_runs_queued {queued}");
        head(&mut out, "portolan_runs_running", "gauge", "Runs under way in this process.");
        let _ = writeln!(out, "portolan_runs_running {running}");
    }
    if let Ok(open) = app.service.uploads_open().await {
        head(&mut out, "portolan_uploads_open", "gauge", "Uploads under way.");
        let _ = writeln!(out, "portolan_uploads_open {open}");
    }
    out
}

/// The counters behind `/metrics`; all relaxed atomics, since each stands alone.
pub struct Metrics {
    doors: [DoorMetrics; Door::ALL.len()],
    /// Requests whose answer is not finished.
    pub in_flight: AtomicI64,
    /// Connections open.
    pub connections: AtomicI64,
    /// Connections accepted since the start.
    pub connections_total: AtomicU64,
    /// TLS handshakes that failed.
    pub handshakes_failed_total: AtomicU64,
    /// Handlers that panicked.
    pub panics_total: AtomicU64,
    /// Bytes of answers' bodies.
    pub body_bytes_total: AtomicU64,
    /// Blobs that garbage collection deleted.
    pub gc_blobs_total: AtomicU64,
    /// Uploads that garbage collection forgot.
    pub gc_uploads_total: AtomicU64,
}

struct DoorMetrics {
    /// By status, from 100 to 599.
    status: Box<[AtomicU64]>,
    buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
    micros_total: AtomicU64,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        Metrics {
            doors: std::array::from_fn(|_| DoorMetrics {
                status: (0..500).map(|_| AtomicU64::new(0)).collect(),
                buckets: std::array::from_fn(|_| AtomicU64::new(0)),
                micros_total: AtomicU64::new(0),
            }),
            in_flight: AtomicI64::new(0),
            connections: AtomicI64::new(0),
            connections_total: AtomicU64::new(0),
            handshakes_failed_total: AtomicU64::new(0),
            panics_total: AtomicU64::new(0),
            body_bytes_total: AtomicU64::new(0),
            gc_blobs_total: AtomicU64::new(0),
            gc_uploads_total: AtomicU64::new(0),
        }
    }

    /// Count a finished request.
    pub fn finished(&self, door: Door, status: StatusCode, took: Duration, body_bytes: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let metrics = &self.doors[door as usize];
        if let Some(count) = metrics.status.get(usize::from(status.as_u16()).wrapping_sub(100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let bucket = BUCKETS_MICROS.iter().position(|max| micros <= *max).unwrap_or(BUCKETS_MICROS.len());
        metrics.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        metrics.micros_total.fetch_add(micros, Ordering::Relaxed);
        self.body_bytes_total.fetch_add(body_bytes, Ordering::Relaxed);
    }

    /// In the Prometheus text format.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(8 * 1024);
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        head(&mut out, "portolan_requests_total", "counter", "Requests answered, by front door and status.");
        for door in Door::ALL {
            for (i, count) in self.doors[door as usize].status.iter().enumerate() {
                let count = load(count);
                if count > 0 {
                    let (door, status) = (door.name(), i + 100);
                    let _ = writeln!(out, "portolan_requests_total{{door=\"{door}\",status=\"{status}\"}} {count}");
                }
            }
        }
        let name = "portolan_request_duration_seconds";
        head(&mut out, name, "histogram", "From the headers of a request to the end of its answer.");
        for door in Door::ALL {
            let metrics = &self.doors[door as usize];
            let door = door.name();
            let mut below = 0;
            for (bucket, max) in metrics.buckets.iter().zip(BUCKETS_MICROS) {
                below += load(bucket);
                let _ = writeln!(out, "{name}_bucket{{door=\"{door}\",le=\"{}\"}} {below}", seconds(max));
            }
            below += load(&metrics.buckets[BUCKETS_MICROS.len()]);
            let _ = writeln!(out, "{name}_bucket{{door=\"{door}\",le=\"+Inf\"}} {below}");
            let _ = writeln!(out, "{name}_sum{{door=\"{door}\"}} {}", seconds(load(&metrics.micros_total)));
            let _ = writeln!(out, "{name}_count{{door=\"{door}\"}} {below}");
        }
        let now = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0).unsigned_abs();
        for (name, kind, help, value) in [
            ("portolan_requests_in_flight", "gauge", "Requests whose answer is not finished.", now(&self.in_flight)),
            ("portolan_connections", "gauge", "Connections open.", now(&self.connections)),
            ("portolan_connections_total", "counter", "Connections accepted.", load(&self.connections_total)),
            (
                "portolan_tls_handshakes_failed_total",
                "counter",
                "TLS handshakes that failed.",
                load(&self.handshakes_failed_total),
            ),
            ("portolan_panics_total", "counter", "Handlers that panicked.", load(&self.panics_total)),
            ("portolan_response_body_bytes_total", "counter", "Bytes of answers.", load(&self.body_bytes_total)),
            (
                "portolan_gc_blobs_total",
                "counter",
                "Blobs that garbage collection deleted.",
                load(&self.gc_blobs_total),
            ),
            (
                "portolan_gc_uploads_total",
                "counter",
                "Uploads that garbage collection forgot.",
                load(&self.gc_uploads_total),
            ),
        ] {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        }
        out
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_door_status_and_time() {
        let m = Metrics::new();
        m.finished(Door::V2, StatusCode::OK, Duration::from_micros(80), 10);
        m.finished(Door::V2, StatusCode::OK, Duration::from_secs(100), 5);
        m.finished(Door::Arm, StatusCode::NOT_FOUND, Duration::from_micros(300), 0);
        let text = m.render();
        for line in [
            r#"portolan_requests_total{door="v2",status="200"} 2"#,
            r#"portolan_requests_total{door="arm",status="404"} 1"#,
            r#"portolan_request_duration_seconds_bucket{door="v2",le="0.0001"} 1"#,
            r#"portolan_request_duration_seconds_bucket{door="v2",le="30"} 1"#,
            r#"portolan_request_duration_seconds_bucket{door="v2",le="+Inf"} 2"#,
            r#"portolan_request_duration_seconds_sum{door="v2"} 100.00008"#,
            "portolan_response_body_bytes_total 15",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
