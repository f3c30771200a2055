//! Steps as the log shows them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portolan_types::Digest;

use crate::event::{Event, StepId, Stream};

/// Numbers steps and hands events on.
pub(super) struct Log<'a> {
    events: &'a (dyn Fn(Event) + Sync),
    next: AtomicU32,
}

/// One step in the log.
pub(super) struct StepLog<'a> {
    events: &'a (dyn Fn(Event) + Sync),
    step: StepId,
    begun: Instant,
}

impl<'a> Log<'a> {
    pub(super) fn new(events: &'a (dyn Fn(Event) + Sync)) -> Log<'a> {
        Log { events, next: AtomicU32::new(1) }
    }

    pub(super) fn step(&self, title: &str) -> StepLog<'a> {
        let step = self.next.fetch_add(1, Ordering::Relaxed);
        (self.events)(Event::StepStarted { step, title: title.to_owned() });
        StepLog { events: self.events, step, begun: Instant::now() }
    }

    pub(super) fn warning(&self, text: &str) {
        (self.events)(Event::Warning { text: text.to_owned() });
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
