//! The garbage collector's figures, as `/metrics` shows them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_service::check::GarbagePreview;
use portolan_service::gc::Collected;

use super::metrics::{Page, seconds};

/// What rounds of the collector did since the start; all relaxed atomics, since each
/// stands alone.
#[derive(Debug, Default)]
pub struct GcMetrics {
    rounds_total: AtomicU64,
    micros_total: AtomicU64,
    reviews_total: AtomicU64,
    links_total: AtomicU64,
    blobs_total: AtomicU64,
    bytes_total: AtomicU64,
    uploads_total: AtomicU64,
    failed_total: AtomicU64,
    /// As of the last round.
    waiting: AtomicU64,
    /// What the last dry round would have removed.
    would_blobs: AtomicU64,
    would_bytes: AtomicU64,
}

impl GcMetrics {
    /// Count a round that took so long and left `waiting` reviews.
    pub fn collected(&self, round: &Collected, waiting: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for (total, more) in [
            (&self.rounds_total, 1),
            (&self.micros_total, micros),
            (&self.reviews_total, round.reviews),
            (&self.links_total, round.links),
            (&self.blobs_total, round.blobs),
            (&self.bytes_total, round.bytes),
            (&self.uploads_total, round.uploads),
            (&self.failed_total, round.failed),
        ] {
            total.fetch_add(more, Ordering::Relaxed);
        }
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Note what a dry round found.
    pub fn previewed(&self, would: &GarbagePreview) {
        self.waiting.store(would.reviews, Ordering::Relaxed);
        self.would_blobs.store(would.blobs, Ordering::Relaxed);
        self.would_bytes.store(would.bytes, Ordering::Relaxed);
    }

    pub(super) fn render(&self, page: &mut Page) {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        page.one("portolan_gc_rounds_total", load(&self.rounds_total));
        page.begin("portolan_gc_seconds_total");
        page.value(&[], &seconds(load(&self.micros_total)));
        page.one("portolan_gc_reviews_total", load(&self.reviews_total));
        page.one("portolan_gc_links_total", load(&self.links_total));
        page.one("portolan_gc_blobs_total", load(&self.blobs_total));
        page.one("portolan_gc_bytes_total", load(&self.bytes_total));
        page.one("portolan_gc_uploads_total", load(&self.uploads_total));
        page.one("portolan_gc_failed_total", load(&self.failed_total));
        page.one("portolan_gc_reviews_waiting", load(&self.waiting));
        page.one("portolan_gc_dry_run_blobs", load(&self.would_blobs));
        page.one("portolan_gc_dry_run_bytes", load(&self.would_bytes));
    }
}
