//! The figures behind `/metrics`: what is counted here, and what the other parts count,
//! written in the Prometheus text format (version 0.0.4).
//!
//! Every family stands once in [`FAMILIES`], with what it means; `docs/operations.md` shows
//! that table, and a test holds both to what the server answers. Labels come from fixed
//! lists (routes, methods, status classes, engines, operations), so the number of series
//! has a bound that no client can move: no name from outside is ever a label.
//!
//! Counting is a few relaxed additions in a part of the memory that few threads share
//! ([`SHARDS`]); summing up is left to whoever asks.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use portolan_store::blob::{BlobOp, BlobStats};
use portolan_store::stats::{BOUNDS_MICROS, Histogram, MetaStats, Operation, Times};

use super::garbage::GcMetrics;
use super::rate::{Class, Rates};
use super::route::{METHODS, Route, method_index};

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Type {
    /// As the text format writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        }
    }
}

/// A family of series.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Type,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn family(name: &'static str, kind: Type, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind, labels, help }
}

use Type::{Counter, Gauge};

/// Every family that `/metrics` may show, in its order.
pub const FAMILIES: &[Family] = &[
    family("portolan_build_info", Gauge, &["version"], "1, with the version of the server."),
    family(
        "portolan_http_requests_total",
        Counter,
        &["route", "method", "status"],
        "Requests answered, by template of the path, method and class of the status.",
    ),
    family(
        "portolan_http_request_duration_seconds",
        Type::Histogram,
        &["route", "method"],
        "From the headers of a request to the end of its answer.",
    ),
    family("portolan_http_request_body_bytes_total", Counter, &["route"], "Bytes of requests' bodies."),
    family("portolan_http_response_body_bytes_total", Counter, &["route"], "Bytes of answers' bodies."),
    family("portolan_http_requests_in_flight", Gauge, &[], "Requests whose answer is not finished."),
    family("portolan_http_requests_refused_total", Counter, &["limit"], "Requests refused by a limit of the server."),
    family("portolan_http_panics_total", Counter, &[], "Handlers that panicked."),
    family("portolan_connections", Gauge, &[], "Connections open."),
    family("portolan_connections_total", Counter, &[], "Connections accepted."),
    family(
        "portolan_connections_refused_total",
        Counter,
        &[],
        "Connections closed at once, since their address had too many.",
    ),
    family("portolan_tls_handshakes_failed_total", Counter, &[], "TLS handshakes that failed or took too long."),
    family("portolan_rate_limited_total", Counter, &["class"], "Requests refused by a rate."),
    family("portolan_rate_identities", Gauge, &[], "Identities and addresses whose rates are remembered."),
    family("portolan_body_memory_bytes", Gauge, &[], "Memory that request bodies read whole take up."),
    family("portolan_body_memory_max_bytes", Gauge, &[], "Memory that they may take up."),
    family(
        "portolan_blob_operation_duration_seconds",
        Type::Histogram,
        &["engine", "operation"],
        "Operations of the blob store; of a read, until its first byte can be sent.",
    ),
    family(
        "portolan_blob_operation_errors_total",
        Counter,
        &["engine", "operation"],
        "Operations of the blob store that failed for reasons of the storage.",
    ),
    family(
        "portolan_blob_operation_bytes_total",
        Counter,
        &["engine", "operation"],
        "Bytes that went into or came out of the blob store.",
    ),
    family(
        "portolan_db_operation_duration_seconds",
        Type::Histogram,
        &["engine", "operation"],
        "Work given to the database, from the call to the answer; of a write, to its commit.",
    ),
    family(
        "portolan_db_operation_errors_total",
        Counter,
        &["engine", "operation"],
        "Work that the database lost or had no room for.",
    ),
    family("portolan_db_operations_in_flight", Gauge, &["engine"], "Work that waits for the database or runs in it."),
    family(
        "portolan_db_queue_wait_seconds",
        Type::Histogram,
        &["engine"],
        "How long work that writes waited for its transaction.",
    ),
    family("portolan_db_transactions_total", Counter, &["engine"], "Transactions that wrote."),
    family(
        "portolan_db_transaction_operations_total",
        Counter,
        &["engine"],
        "Writes in those transactions: one transaction carries many.",
    ),
    family("portolan_db_transaction_operations_max", Gauge, &["engine"], "The most writes that one transaction held."),
    family("portolan_cache_hits_total", Counter, &["cache"], "Looks into a cache that found what they were for."),
    family("portolan_cache_misses_total", Counter, &["cache"], "Looks into a cache that did not."),
    family("portolan_cache_entries", Gauge, &["cache"], "Entries of a cache."),
    family("portolan_uploads_open", Gauge, &[], "Uploads under way."),
    family("portolan_runs_queued", Gauge, &[], "Runs that wait for a worker."),
    family("portolan_runs_running", Gauge, &[], "Runs under way in this process."),
    family("portolan_gc_rounds_total", Counter, &[], "Rounds of garbage collection."),
    family("portolan_gc_seconds_total", Counter, &[], "Time they took."),
    family("portolan_gc_reviews_total", Counter, &[], "Reviews that garbage collection looked at."),
    family("portolan_gc_links_total", Counter, &[], "Links of repositories to blobs that it took away."),
    family("portolan_gc_blobs_total", Counter, &[], "Blobs that garbage collection deleted."),
    family("portolan_gc_bytes_total", Counter, &[], "Their bytes."),
    family("portolan_gc_uploads_total", Counter, &[], "Uploads that garbage collection forgot."),
    family("portolan_gc_failed_total", Counter, &[], "Reviews that failed and were left for the next round."),
    family("portolan_gc_reviews_waiting", Gauge, &[], "Reviews in the queue after the last round, due or not."),
    family("portolan_gc_dry_run_blobs", Gauge, &[], "Blobs that would go now (setting gc_dry_run)."),
    family("portolan_gc_dry_run_bytes", Gauge, &[], "Their bytes."),
    family(
        "portolan_log_lines_lost_total",
        Counter,
        &["log", "reason"],
        "Lines of the access and audit log dropped (full) or not written (failed).",
    ),
    family("process_cpu_seconds_total", Counter, &[], "Processor time of the server."),
    family("process_resident_memory_bytes", Gauge, &[], "Memory of the server."),
    family("process_open_fds", Gauge, &[], "Open file descriptors."),
    family("process_max_fds", Gauge, &[], "File descriptors that may be open."),
    family("process_threads", Gauge, &[], "Threads."),
    family("process_start_time_seconds", Gauge, &[], "When the server started, in seconds since 1970."),
];

/// The table of all families, in Markdown, for `docs/operations.md`.
pub fn reference() -> String {
    let mut table = String::from("| name | type | labels | what |\n|---|---|---|---|\n");
    for f in FAMILIES {
        let labels: Vec<String> = f.labels.iter().map(|l| format!("`{l}`")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{}` | {} | {} | {} |", f.name, f.kind.as_str(), labels.join(", "), f.help);
    }
    table
}

/// Status classes as the label has them.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Parts of the memory in which requests are counted.
const SHARDS: usize = 8;

/// What a limit of the server refused a request for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Too large headers.
    HeaderBytes,
    /// Too many headers.
    Headers,
    /// Too long a path and query.
    Uri,
    /// Too many requests in flight.
    Requests,
}

impl Limit {
    const ALL: [Limit; 4] = [Limit::HeaderBytes, Limit::Headers, Limit::Uri, Limit::Requests];

    /// The setting that holds it.
    pub fn name(self) -> &'static str {
        match self {
            Limit::HeaderBytes => "header_bytes_max",
            Limit::Headers => "headers_max",
            Limit::Uri => "uri_bytes_max",
            Limit::Requests => "requests_max",
        }
    }
}

/// One thread's part, or that of a few.
struct Shard {
    /// By route and method.
    times: Box<[Histogram]>,
    /// By route, method and class.
    requests: Box<[AtomicU64]>,
    /// By route.
    received: Box<[AtomicU64]>,
    /// By route.
    sent: Box<[AtomicU64]>,
}

/// What the HTTP edge counts; all relaxed atomics, since each stands alone.
pub struct Metrics {
    shards: Box<[Shard]>,
    /// Requests whose answer is not finished.
    pub in_flight: AtomicI64,
    /// Connections open.
    pub connections: AtomicI64,
    /// Connections accepted since the start.
    pub connections_total: AtomicU64,
    /// Connections closed at once, since their address had too many.
    pub connections_refused_total: AtomicU64,
    /// TLS handshakes that failed.
    pub handshakes_failed_total: AtomicU64,
    /// Handlers that panicked.
    pub panics_total: AtomicU64,
    /// Of garbage collection.
    pub gc: GcMetrics,
    refused_total: [AtomicU64; Limit::ALL.len()],
}

fn zeros(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}

/// The shard of this thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        mine.get()
    })
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let (routes, pairs) = (Route::ALL.len(), Route::ALL.len() * METHODS.len());
        let one = || Shard {
            times: (0..pairs).map(|_| Histogram::default()).collect(),
            requests: zeros(pairs * CLASSES.len()),
            received: zeros(routes),
            sent: zeros(routes),
        };
        Metrics {
            shards: (0..SHARDS).map(|_| one()).collect(),
            in_flight: AtomicI64::new(0),
            connections: AtomicI64::new(0),
            connections_total: AtomicU64::new(0),
            connections_refused_total: AtomicU64::new(0),
            handshakes_failed_total: AtomicU64::new(0),
            panics_total: AtomicU64::new(0),
            gc: GcMetrics::default(),
            refused_total: Default::default(),
        }
    }

    /// Count a finished request: how long it took, and the bytes of its body and of its
    /// answer's.
    pub fn finished(
        &self,
        route: Route,
        method: &Method,
        status: StatusCode,
        took: Duration,
        (received, sent): (u64, u64),
    ) {
        let shard = &self.shards[shard()];
        let pair = route as usize * METHODS.len() + method_index(method);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        shard.requests[pair * CLASSES.len() + class].fetch_add(1, Ordering::Relaxed);
        shard.times[pair].record(took);
        if received > 0 {
            shard.received[route as usize].fetch_add(received, Ordering::Relaxed);
        }
        if sent > 0 {
            shard.sent[route as usize].fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// Count a request that a limit refused.
    pub fn refused(&self, limit: Limit) {
        self.refused_total[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests answered so far on a route, by method and class (`2xx`).
    pub fn requests(&self, route: Route, method: &Method, class: &str) -> u64 {
        let pair = route as usize * METHODS.len() + method_index(method);
        let class = CLASSES.iter().position(|c| *c == class);
        class.map_or(0, |class| self.sum(|shard| &shard.requests[pair * CLASSES.len() + class]))
    }

    fn sum(&self, one: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| one(shard).load(Ordering::Relaxed)).sum()
    }

    /// Write what is counted here, and how many requests there was no memory for.
    pub(crate) fn render(&self, page: &mut Page, memory_refused: u64) {
        let pairs = || Route::ALL.iter().flat_map(|route| (0..METHODS.len()).map(move |method| (*route, method)));
        page.begin("portolan_http_requests_total");
        for (route, method) in pairs() {
            let pair = route as usize * METHODS.len() + method;
            for (class, name) in CLASSES.iter().enumerate() {
                let count = self.sum(|shard| &shard.requests[pair * CLASSES.len() + class]);
                if count > 0 {
                    page.sample(&[route.as_str(), METHODS[method], name], count);
                }
            }
        }
        page.begin("portolan_http_request_duration_seconds");
        for (route, method) in pairs() {
            let mut times = Times::default();
            for shard in &self.shards {
                shard.times[route as usize * METHODS.len() + method].add_to(&mut times);
            }
            page.histogram(&[route.as_str(), METHODS[method]], &times);
        }
        for (name, received) in
            [("portolan_http_request_body_bytes_total", true), ("portolan_http_response_body_bytes_total", false)]
        {
            page.begin(name);
            for route in Route::ALL {
                let bytes = self.sum(|shard| match received {
                    true => &shard.received[*route as usize],
                    false => &shard.sent[*route as usize],
                });
                if bytes > 0 {
                    page.sample(&[route.as_str()], bytes);
                }
            }
        }
        let now = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0).unsigned_abs();
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        page.one("portolan_http_requests_in_flight", now(&self.in_flight));
        page.begin("portolan_http_requests_refused_total");
        for limit in Limit::ALL {
            page.sample(&[limit.name()], load(&self.refused_total[limit as usize]));
        }
        page.sample(&["body_memory_bytes_max"], memory_refused);
        page.one("portolan_http_panics_total", load(&self.panics_total));
        page.one("portolan_connections", now(&self.connections));
        page.one("portolan_connections_total", load(&self.connections_total));
        page.one("portolan_connections_refused_total", load(&self.connections_refused_total));
        page.one("portolan_tls_handshakes_failed_total", load(&self.handshakes_failed_total));
        self.gc.render(page);
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// The figures of the rates.
pub(crate) fn rates(page: &mut Page, rates: &Rates) {
    page.begin("portolan_rate_limited_total");
    for class in Class::ALL {
        page.sample(&[class.name()], rates.limited(class));
    }
    page.one("portolan_rate_identities", rates.remembered() as u64);
}

/// The figures of the blob store.
pub(crate) fn blobs(page: &mut Page, stats: &BlobStats) {
    let all = || BlobOp::ALL.iter().map(|op| (op.name(), stats.of(*op)));
    page.begin("portolan_blob_operation_duration_seconds");
    for (name, figures) in all() {
        page.histogram(&[stats.engine, name], &figures.times.read());
    }
    let mut counters = |family, one: fn(&Operation) -> &AtomicU64| {
        page.begin(family);
        for (name, figures) in all() {
            let count = one(figures).load(Ordering::Relaxed);
            if count > 0 {
                page.sample(&[stats.engine, name], count);
            }
        }
    };
    counters("portolan_blob_operation_errors_total", |figures| &figures.errors_total);
    counters("portolan_blob_operation_bytes_total", |figures| &figures.bytes_total);
}

/// The figures of the database.
pub(crate) fn database(page: &mut Page, engine: &'static str, stats: &MetaStats) {
    let both = [("read", &stats.reads), ("write", &stats.writes)];
    page.begin("portolan_db_operation_duration_seconds");
    for (name, figures) in both {
        page.histogram(&[engine, name], &figures.times.read());
    }
    let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
    page.begin("portolan_db_operation_errors_total");
    for (name, figures) in both {
        page.sample(&[engine, name], load(&figures.errors_total));
    }
    page.begin("portolan_db_operations_in_flight");
    page.sample(&[engine], load(&stats.in_flight));
    page.begin("portolan_db_queue_wait_seconds");
    page.histogram(&[engine], &stats.waits.read());
    for (name, value) in [
        ("portolan_db_transactions_total", &stats.groups_total),
        ("portolan_db_transaction_operations_total", &stats.grouped_total),
        ("portolan_db_transaction_operations_max", &stats.group_size_max),
    ] {
        page.begin(name);
        page.sample(&[engine], load(value));
    }
}

/// What the kernel says of this process. What it does not say is left out.
pub(crate) fn process(page: &mut Page) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which stands in brackets and may hold anything: state is field 3.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok());
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        page.begin("process_cpu_seconds_total");
        page.value(&[], &seconds((user + system).saturating_mul(1_000_000 / ticks)));
    }
    if let Some(pages) = field(24) {
        page.one("process_resident_memory_bytes", pages.saturating_mul(rustix::param::page_size() as u64));
    }
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        page.one("process_open_fds", fds.count() as u64);
    }
    if let Some(max) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        page.one("process_max_fds", max);
    }
    if let Some(threads) = field(20) {
        page.one("process_threads", threads);
    }
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|t| t.trim().parse::<u64>().ok());
    if let (Some(boot), Some(started)) = (boot, field(22)) {
        page.one("process_start_time_seconds", boot + started / ticks);
    }
}

/// A page in the text format in the making.
pub(crate) struct Page {
    out: String,
    family: Option<&'static Family>,
}

impl Page {
    pub(crate) fn new() -> Page {
        let mut page = Page { out: String::with_capacity(16 * 1024), family: None };
        page.begin("portolan_build_info");
        page.sample(&[env!("CARGO_PKG_VERSION")], 1);
        page
    }

    /// Begin a family. One that is not in the table shows nothing: a test sees to it that
    /// there is none.
    pub(crate) fn begin(&mut self, name: &str) {
        self.family = FAMILIES.iter().find(|f| f.name == name);
        debug_assert!(self.family.is_some(), "{name} is not in the table");
        if let Some(f) = self.family {
            let _ = writeln!(self.out, "# HELP {} {}\n# TYPE {} {}", f.name, f.help, f.name, f.kind.as_str());
        }
    }

    /// A series of the family, with a value for each of its labels.
    pub(crate) fn sample(&mut self, labels: &[&str], value: u64) {
        self.value(labels, &value.to_string());
    }

    pub(super) fn value(&mut self, labels: &[&str], value: &str) {
        self.line("", labels, None, value);
    }

    /// A family of one series.
    pub(crate) fn one(&mut self, name: &str, value: u64) {
        self.begin(name);
        self.sample(&[], value);
    }

    /// The series of a histogram; nothing as long as it is empty.
    pub(crate) fn histogram(&mut self, labels: &[&str], times: &Times) {
        if times.count() == 0 {
            return;
        }
        let mut below = 0;
        for (count, max) in times.buckets.iter().zip(BOUNDS_MICROS) {
            below += count;
            self.line("_bucket", labels, Some(&seconds(max)), &below.to_string());
        }
        let all = times.count().to_string();
        self.line("_bucket", labels, Some("+Inf"), &all);
        self.line("_sum", labels, None, &seconds(times.micros_total));
        self.line("_count", labels, None, &all);
    }

    fn line(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: &str) {
        let Some(f) = self.family else { return };
        debug_assert_eq!(f.labels.len(), labels.len(), "{}", f.name);
        let pairs = f.labels.iter().copied().zip(labels.iter().copied()).chain(le.map(|le| ("le", le)));
        let _ = write!(self.out, "{}{suffix}", f.name);
        for (i, (label, text)) in pairs.enumerate() {
            // Every value is one of ours and holds nothing that needs escaping.
            let _ = write!(self.out, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() || le.is_some() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    pub(crate) fn end(self) -> String {
        self.out
    }
}

pub(super) fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_method_class_and_time() {
        let m = Metrics::new();
        m.finished(Route::V2Manifest, &Method::GET, StatusCode::OK, Duration::from_micros(80), (0, 10));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                m.finished(
                    Route::V2Manifest,
                    &Method::GET,
                    StatusCode::PARTIAL_CONTENT,
                    Duration::from_secs(100),
                    (3, 5),
                );
            });
        });
        let odd = Method::from_bytes(b"BREW").unwrap();
        m.finished(Route::ArmGroup, &odd, StatusCode::NOT_FOUND, Duration::from_micros(300), (0, 0));
        m.refused(Limit::Uri);
        let mut page = Page::new();
        m.render(&mut page, 0);
        let text = page.end();
        let manifest = r#"route="/v2/{name}/manifests/{reference}",method="GET""#;
        for line in [
            format!(r#"portolan_http_requests_total{{{manifest},status="2xx"}} 2"#),
            r#"portolan_http_requests_total{route="/subscriptions/{subscription}/resourceGroups/{group}",method="other",status="4xx"} 1"#.to_owned(),
            format!(r#"portolan_http_request_duration_seconds_bucket{{{manifest},le="0.0001"}} 1"#),
            format!(r#"portolan_http_request_duration_seconds_bucket{{{manifest},le="30"}} 1"#),
            format!(r#"portolan_http_request_duration_seconds_bucket{{{manifest},le="+Inf"}} 2"#),
            format!(r#"portolan_http_request_duration_seconds_sum{{{manifest}}} 100.00008"#),
            r#"portolan_http_response_body_bytes_total{route="/v2/{name}/manifests/{reference}"} 15"#.to_owned(),
            r#"portolan_http_request_body_bytes_total{route="/v2/{name}/manifests/{reference}"} 3"#.to_owned(),
            r#"portolan_http_requests_refused_total{limit="uri_bytes_max"} 1"#.to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert_eq!(m.requests(Route::V2Manifest, &Method::GET, "2xx"), 2);
    }

    #[test]
    fn names_keep_to_the_conventions() {
        for (i, f) in FAMILIES.iter().enumerate() {
            assert!(FAMILIES[..i].iter().all(|g| g.name != f.name), "{} stands twice", f.name);
            assert!(f.name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{}", f.name);
            assert_eq!(f.name.ends_with("_total"), f.kind == Type::Counter, "{}", f.name);
            assert!(f.help.ends_with('.'), "{}", f.name);
        }
    }

    #[test]
    fn labels_need_no_escaping() {
        let plain = |text: &str| !text.contains(['"', '\\', '\n']);
        assert!(Route::ALL.iter().all(|r| plain(r.as_str())) && BlobOp::ALL.iter().all(|o| plain(o.name())));
    }
}
