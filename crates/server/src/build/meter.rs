//! How far transfers are, as lines of docker's: `sha256:… 1.05MB / 29.13MB 0.3s`. Who shows a
//! log on a terminal makes bars of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

/// How often what moves is told.
const TELL_MILLIS: u64 = 500;

/// One transfer.
struct Meter {
    what: String,
    total: u64,
    moved: Arc<AtomicU64>,
    told: u64,
    begun: Instant,
}

/// The transfers of one step.
#[derive(Default)]
pub(super) struct Meters(Vec<Meter>);

impl Meters {
    /// A transfer of `total` bytes; what it counts is given back.
    pub(super) fn add(&mut self, what: String, total: u64) -> Arc<AtomicU64> {
        let moved = Arc::new(AtomicU64::new(0));
        self.0.push(Meter { what, total, moved: moved.clone(), told: 0, begun: Instant::now() });
        moved
    }

    /// Do `work`, and tell how far the transfers are while it goes on.
    pub(super) async fn during<T>(mut self, note: &dyn Fn(&str), work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut timer = tokio::time::interval(Duration::from_millis(TELL_MILLIS));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        timer.tick().await;
        loop {
            tokio::select! {
                done = &mut work => {
                    // What was over before it was told of is told of now, once.
                    self.tell(note);
                    return done;
                }
                _ = timer.tick() => self.tell(note),
            }
        }
    }

    fn tell(&mut self, note: &dyn Fn(&str)) {
        for meter in &mut self.0 {
            let moved = meter.moved.load(Ordering::Relaxed);
            if moved == meter.told {
                continue;
            }
            meter.told = moved;
            let secs = meter.begun.elapsed().as_secs_f64();
            let end = if moved >= meter.total { " done" } else { "" };
            note(&format!("{} {} / {} {secs:.1}s{end}", meter.what, amount(moved), amount(meter.total)));
        }
    }
}

/// Count the bytes of a body into `moved`.
pub(super) fn counted<E>(
    body: impl Stream<Item = Result<Bytes, E>>,
    moved: Arc<AtomicU64>,
) -> impl Stream<Item = Result<Bytes, E>> {
    body.inspect(move |part| {
        if let Ok(bytes) = part {
            moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    })
}

/// As docker writes an amount: powers of a thousand.
pub(super) fn amount(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes}B"),
        1_000..1_000_000 => format!("{:.2}kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}MB", bytes as f64 / 1e6),
        _ => format!("{:.2}GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn what_moved_is_told() {
        let mut meters = Meters::default();
        let (first, _second) = (meters.add("a".into(), 2_000), meters.add("b".into(), 7));
        let told = RefCell::new(Vec::new());
        let body = futures_util::stream::iter([Ok::<_, ()>(Bytes::from(vec![0; 2_000]))]);
        let work = async { counted(body, first).count().await };
        assert_eq!(meters.during(&|text| told.borrow_mut().push(text.to_owned()), work).await, 1);
        let told = told.into_inner();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("a 2.00kB / 2.00kB 0.") && told[0].ends_with("s done"), "{told:?}");
    }

    #[test]
    fn amounts() {
        let all = [999, 1_050, 29_130_000, 4_294_967_296].map(amount);
        assert_eq!(all, ["999B", "1.05kB", "29.13MB", "4.29GB"]);
    }
}
