//! Figures about work done, for whoever watches: counts, times, bytes. Relaxed atomics,
//! since each figure stands alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of a histogram's buckets, in microseconds; the last bucket has none.
pub const BOUNDS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 30_000_000,
];

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    micros_total: AtomicU64,
}

impl Histogram {
    /// Count one.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|max| *max < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros_total.fetch_add(micros, Ordering::Relaxed);
    }

    /// Add what it holds to `sum`.
    pub fn add_to(&self, sum: &mut Times) {
        for (to, from) in sum.buckets.iter_mut().zip(&self.buckets) {
            *to += from.load(Ordering::Relaxed);
        }
        sum.micros_total += self.micros_total.load(Ordering::Relaxed);
    }

    /// What it holds.
    pub fn read(&self) -> Times {
        let mut times = Times::default();
        self.add_to(&mut times);
        times
    }
}

/// A histogram as read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How many in each bucket of [`BOUNDS_MICROS`], and those above the last.
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// Their sum, in microseconds.
    pub micros_total: u64,
}

impl Times {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// One kind of operation.
#[derive(Debug, Default)]
pub struct Operation {
    /// How long each took, failed ones too.
    pub times: Histogram,
    /// Those that failed for reasons of the store: not "not found" or a bad digest.
    pub errors_total: AtomicU64,
    /// Bytes that went in or came out.
    pub bytes_total: AtomicU64,
}

/// Figures of a database.
#[derive(Debug, Default)]
pub struct MetaStats {
    /// Closures that read: from the call to the answer.
    pub reads: Operation,
    /// Closures that wrote: from the call to the commit.
    pub writes: Operation,
    /// Closures waiting or running.
    pub in_flight: AtomicU64,
    /// Transactions that wrote, of one closure or more.
    pub groups_total: AtomicU64,
    /// Closures in them.
    pub grouped_total: AtomicU64,
    /// The most closures that one of them held.
    pub group_size_max: AtomicU64,
    /// How long a closure that writes waited for its transaction.
    pub waits: Histogram,
}

impl MetaStats {
    /// Note a transaction of so many closures.
    pub fn group(&self, closures: usize) {
        self.groups_total.fetch_add(1, Ordering::Relaxed);
        self.grouped_total.fetch_add(closures as u64, Ordering::Relaxed);
        self.group_size_max.fetch_max(closures as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 1_000, 30_000_000, 30_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let times = histogram.read();
        assert_eq!(times.count(), 6);
        assert_eq!((times.buckets[0], times.buckets[1], times.buckets[3]), (2, 1, 1));
        assert_eq!((times.buckets[15], times.buckets[16]), (1, 1));
        assert_eq!(times.micros_total, 60_001_202);
    }
}
