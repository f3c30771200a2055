//! One doer for work that several want at the same time: the same step of two builds, of two
//! platforms, of two stages.
//!
//! Whoever comes first to a piece of work *leads* it, the others wait. When the leader is
//! done, all have the result; when it was stopped, one of those who wait leads; when it
//! failed, each tries by itself, because why it failed is for each to see. A result can be
//! found as long as somebody holds it: the build that made it does so until the step cache
//! knows it.
//!
//! Nobody waits here who leads something or holds a permit, so nobody waits in a ring.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use portolan_types::Digest;

use crate::cancel::{Cancel, Cancelled};

/// Entries of a table at which dead ones are looked for.
const SWEEP_AT: usize = 1_024;

/// Work under way, and done, by what it is.
pub(crate) struct Flights<T>(Mutex<HashMap<Digest, Weak<Flight<T>>>>);

struct Flight<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    /// Nobody is at it.
    Free,
    /// With the build that is at it.
    Led(u64),
    /// Its leader failed.
    Failed,
    Done(T),
}

/// What comes of asking for some work.
pub(crate) enum Turn<T> {
    /// Do it; the others wait.
    Lead(Lead<T>),
    /// Do it for yourself.
    Alone,
    /// Somebody did.
    Done(T, Held<T>),
}

/// Who does the work. Dropping it says that somebody else may.
pub(crate) struct Lead<T>(Arc<Flight<T>>);

/// Keeps a result where others find it.
pub(crate) struct Held<T>(#[allow(dead_code, reason = "held for its lifetime")] Arc<Flight<T>>);

impl<T> Default for Flights<T> {
    fn default() -> Flights<T> {
        Flights(Mutex::default())
    }
}

impl<T: Clone + Send + 'static> Flights<T> {
    /// Take part in the work called `key`, for the build with the number `build`. Waits for
    /// its leader if it has one, until `stop` is raised; before that it calls `waiting` if the
    /// leader belongs to another build.
    pub(crate) fn join(
        &self,
        key: &Digest,
        stop: &Cancel,
        build: u64,
        waiting: impl FnOnce(),
    ) -> Result<Turn<T>, Cancelled> {
        let flight = self.flight(key);
        let mut waiting = Some(waiting);
        let mut waited = false;
        let _wake = stop.on_cancel({
            let flight = Arc::downgrade(&flight);
            move || {
                if let Some(flight) = flight.upgrade() {
                    // Under the lock, or it could come between a look and the wait after it.
                    let _state = flight.state.lock();
                    flight.changed.notify_all();
                }
            }
        });
        let mut state = flight.state.lock();
        loop {
            stop.check()?;
            match &*state {
                State::Done(value) => {
                    let value = value.clone();
                    drop(state);
                    return Ok(Turn::Done(value, Held(flight)));
                }
                State::Failed if waited => return Ok(Turn::Alone),
                State::Free | State::Failed => {
                    *state = State::Led(build);
                    drop(state);
                    return Ok(Turn::Lead(Lead(flight)));
                }
                State::Led(by) => {
                    waited = true;
                    if *by != build
                        && let Some(say) = waiting.take()
                    {
                        // Not under the lock: it may write to a log.
                        parking_lot::MutexGuard::unlocked(&mut state, say);
                        continue;
                    }
                    flight.changed.wait(&mut state);
                }
            }
        }
    }

    fn flight(&self, key: &Digest) -> Arc<Flight<T>> {
        let mut table = self.0.lock();
        if let Some(flight) = table.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        if table.len() >= SWEEP_AT {
            table.retain(|_, flight| flight.strong_count() > 0);
        }
        let flight = Arc::new(Flight { state: Mutex::new(State::Free), changed: Condvar::new() });
        table.insert(*key, Arc::downgrade(&flight));
        flight
    }
}

impl<T> Lead<T> {
    /// It is done: everybody who waits has `value`, and so has everybody who asks while the
    /// answer is kept.
    pub(crate) fn done(self, value: T) -> Held<T> {
        let flight = self.0.clone();
        *flight.state.lock() = State::Done(value);
        Held(flight)
    }

    /// It cannot be done.
    pub(crate) fn failed(self) {
        *self.0.state.lock() = State::Failed;
    }
}

impl<T> Drop for Lead<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if matches!(*state, State::Led(_)) {
            *state = State::Free;
        }
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    fn key() -> Digest {
        Digest::of(b"work")
    }

    #[test]
    fn one_leads_and_all_have_the_result() {
        let flights: Flights<u32> = Flights::default();
        let (stop, count) = (Cancel::new(), AtomicUsize::new(0));
        let held = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| match flights.join(&key(), &stop, 1, || {}).unwrap() {
                    Turn::Lead(lead) => {
                        count.fetch_add(1, Ordering::SeqCst);
                        held.lock().push(lead.done(7));
                    }
                    Turn::Done(value, keep) => {
                        assert_eq!(value, 7);
                        held.lock().push(keep);
                    }
                    Turn::Alone => panic!("nobody failed"),
                });
            }
        });
        assert_eq!(count.into_inner(), 1);
        // Nobody holds the result any more: it is done anew.
        held.lock().clear();
        assert!(matches!(flights.join(&key(), &stop, 1, || {}).unwrap(), Turn::Lead(_)));
    }

    /// A flight with a leader, and somebody who waits for it.
    fn with_one_waiting(end: impl FnOnce(Lead<u32>), check: impl FnOnce(Turn<u32>) + Send) {
        let flights: Flights<u32> = Flights::default();
        let stop = Cancel::new();
        let Turn::Lead(lead) = flights.join(&key(), &stop, 1, || {}).unwrap() else { panic!("the first leads") };
        let (waits, waiting) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| check(flights.join(&key(), &stop, 2, || waits.send(()).unwrap()).unwrap()));
            waiting.recv().unwrap();
            end(lead);
        });
    }

    #[test]
    fn who_waits_for_one_that_stops_leads() {
        with_one_waiting(drop, |turn| assert!(matches!(turn, Turn::Lead(_))));
    }

    #[test]
    fn who_waits_for_one_that_fails_tries_alone() {
        with_one_waiting(Lead::failed, |turn| assert!(matches!(turn, Turn::Alone)));
    }

    #[test]
    fn waiting_ends_with_the_build() {
        let flights: Flights<u32> = Flights::default();
        let (stop, mine) = (Cancel::new(), Cancel::new());
        let Turn::Lead(_lead) = flights.join(&key(), &stop, 1, || {}).unwrap() else { panic!("the first leads") };
        let (waits, waiting) = channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| flights.join(&key(), &mine, 2, || waits.send(()).unwrap()).is_err());
            waiting.recv().unwrap();
            mine.cancel();
            assert!(waiter.join().unwrap());
        });
    }
}
