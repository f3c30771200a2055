//! Steps as the log shows them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use portolan_types::Digest;

use crate::event::{Event, StepId, Stream};

/// Numbers steps and hands events on.
pub(super) struct Log<'a> {
    events: &'a (dyn Fn(Event) + Sync),
    next: AtomicU32,
    /// Which part of the build (platform) showed a step, by what the step is.
    shown: Mutex<HashMap<Digest, usize>>,
    /// Warnings so far: each is said once.
    warned: Mutex<HashSet<String>>,
}

/// Takes what another part of the build tells already.
static NOBODY: fn(Event) = |_| {};

/// One step in the log.
pub(super) struct StepLog<'a> {
    events: &'a (dyn Fn(Event) + Sync),
    step: StepId,
    begun: Instant,
}

impl<'a> Log<'a> {
    pub(super) fn new(events: &'a (dyn Fn(Event) + Sync)) -> Log<'a> {
        Log { events, next: AtomicU32::new(1), shown: Mutex::default(), warned: Mutex::default() }
    }

    /// A step that several parts of a build may have; `key` says which are the same. The part
    /// that comes first shows it, the others say nothing of it.
    pub(super) fn step_of(&self, part: usize, key: &Digest, title: &str) -> StepLog<'a> {
        if *self.shown.lock().entry(*key).or_insert(part) == part {
            return self.step(title);
        }
        StepLog { events: &NOBODY, step: 0, begun: Instant::now() }
    }

    pub(super) fn step(&self, title: &str) -> StepLog<'a> {
        let step = self.next.fetch_add(1, Ordering::Relaxed);
        (self.events)(Event::StepStarted { step, title: title.to_owned() });
        StepLog { events: self.events, step, begun: Instant::now() }
    }

    pub(super) fn warning(&self, text: &str) {
        if self.warned.lock().insert(text.to_owned()) {
            (self.events)(Event::Warning { text: text.to_owned() });
        }
    }

    pub(super) fn exported(&self, manifest: Digest, config: Digest) {
        (self.events)(Event::Exported { manifest, config });
    }
}

impl StepLog<'_> {
    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn note(&self, text: &str) {
        (self.events)(Event::Note { step: self.step, text: text.to_owned(), at: self.elapsed() });
    }

    pub(super) fn output(&self, stream: Stream, bytes: &[u8]) {
        (self.events)(Event::Output { step: self.step, stream, bytes: bytes.to_vec(), at: self.elapsed() });
    }

    pub(super) fn cached(self) {
        (self.events)(Event::Cached { step: self.step });
    }

    pub(super) fn done(self) {
        (self.events)(Event::Done { step: self.step, elapsed: self.elapsed() });
    }

    pub(super) fn failed(self, message: &str) {
        (self.events)(Event::Failed { step: self.step, message: message.to_owned() });
    }

    pub(super) fn cancelled(self) {
        (self.events)(Event::Cancelled { step: self.step });
    }
}
