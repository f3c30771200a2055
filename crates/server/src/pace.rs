//! Whether somebody who is waited for gets anything done.
//!
//! A limit on silence alone is passed by one byte every so often. So what counts is the
//! time that *we* waited for the other side, and what came of it: within each window of
//! waiting so many bytes must have moved. Time in which we did other things (a slow disk,
//! a slow handler) does not count against the client.

use std::time::Duration;

use tokio::time::Instant;

/// What a client must get done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// The window: so much waiting.
    pub(crate) window: Duration,
    /// Bytes that must move in a window.
    pub(crate) bytes_min: u64,
}

/// How one direction of one transfer does. Told of the clock, it has none of its own.
#[derive(Debug)]
pub(crate) struct Pace {
    demand: Demand,
    /// Waited in this window, in the waits that are over.
    waited: Duration,
    /// Moved in this window.
    bytes: u64,
    /// Since when we wait, if we do.
    since: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(demand: Demand) -> Pace {
        Pace { demand, waited: Duration::ZERO, bytes: 0, since: None }
    }

    /// We wait, as of now. When to look again: then the window is over.
    pub(crate) fn waits(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        since + self.demand.window.saturating_sub(self.waited)
    }

    /// Whether we wait already.
    pub(crate) fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// The wait, if there was one, is over: so many bytes moved. False when the window is
    /// over and they are too few.
    pub(crate) fn moved(&mut self, bytes: u64, now: impl FnOnce() -> Instant) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let Some(since) = self.since.take() else { return true };
        self.waited += now().saturating_duration_since(since);
        self.turn()
    }

    /// The window is over and we still wait. False when what came in it is too little.
    pub(crate) fn look(&mut self, now: Instant) -> bool {
        if let Some(since) = self.since {
            self.waited += now.saturating_duration_since(since);
            self.since = Some(now);
        }
        self.turn()
    }

    fn turn(&mut self) -> bool {
        if self.waited < self.demand.window {
            return true;
        }
        let enough = self.bytes >= self.demand.bytes_min;
        self.waited = Duration::ZERO;
        self.bytes = 0;
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn pace() -> (Pace, Instant) {
        (Pace::new(Demand { window: 10 * SEC, bytes_min: 100 }), Instant::now())
    }

    #[test]
    fn silence_ends_with_the_window() {
        let (mut pace, start) = pace();
        assert_eq!(pace.waits(start), start + 10 * SEC);
        assert!(pace.look(start + 9 * SEC));
        assert!(!pace.look(start + 10 * SEC));
    }

    #[test]
    fn a_byte_now_and_then_is_not_enough() {
        let (mut pace, start) = pace();
        let mut now = start;
        let mut good = 0;
        loop {
            pace.waits(now);
            now += SEC;
            if !pace.moved(1, || now) {
                break;
            }
            good += 1;
            assert!(good < 1_000, "it goes on for ever");
        }
        assert_eq!(now, start + 10 * SEC);
    }

    #[test]
    fn a_slow_client_that_keeps_to_the_demand_goes_on() {
        let (mut pace, start) = pace();
        let mut now = start;
        for _ in 0..1_000 {
            pace.waits(now);
            now += SEC;
            assert!(pace.moved(10, || now));
        }
    }

    #[test]
    fn our_own_time_is_not_the_clients() {
        let (mut pace, start) = pace();
        let mut now = start;
        for _ in 0..1_000 {
            pace.waits(now);
            assert!(pace.moved(1, || now));
            // The disk takes its time.
            now += 60 * SEC;
            assert!(!pace.is_waiting());
        }
    }
}
