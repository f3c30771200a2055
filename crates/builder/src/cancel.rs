//! Stopping a build from outside.
//!
//! A [`Cancel`] is made per build and cloned to everyone who works for it. Work that can
//! look does so between pieces ([`Cancel::check`]); work that waits on something else (a
//! running step) registers a killer, which runs once, on the thread that cancels.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

type Killer = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    next: AtomicU64,
    killers: Mutex<HashMap<u64, Killer>>,
}

/// The flag that stops a build. Clones are the same flag; there is no way back.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

/// What [`Cancel::check`] answers once the build is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the build was cancelled")]
pub struct Cancelled;

impl From<Cancelled> for io::Error {
    fn from(cancelled: Cancelled) -> io::Error {
        // Not `Interrupted`: readers and writers of the standard library retry that one.
        io::Error::other(cancelled)
    }
}

impl Cancel {
    /// A flag that is not raised.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Raise the flag and run every registered killer. Again does nothing.
    pub fn cancel(&self) {
        let killers = {
            let mut killers = self.0.killers.lock();
            self.0.cancelled.store(true, Ordering::SeqCst);
            std::mem::take(&mut *killers)
        };
        for (_, killer) in killers {
            killer();
        }
    }

    /// Whether the flag is raised.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// `Err` when the flag is raised: for `?` between two pieces of work.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Run `killer` when the flag is raised, unless the guard is dropped before; at once
    /// when it is raised already.
    pub fn on_cancel(&self, killer: impl FnOnce() + Send + 'static) -> CancelGuard {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut killers = self.0.killers.lock();
        if self.is_cancelled() {
            drop(killers);
            killer();
        } else {
            killers.insert(id, Box::new(killer));
        }
        CancelGuard { cancel: self.clone(), id }
    }

    /// Whether `error` says no more than that the build was cancelled.
    pub fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Cancelled>())
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

/// Keeps a killer registered; dropping it takes the killer back.
#[derive(Debug)]
pub struct CancelGuard {
    cancel: Cancel,
    id: u64,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        let killer = self.cancel.0.killers.lock().remove(&self.id);
        drop(killer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killers_run_once_and_only_while_guarded() {
        let cancel = Cancel::new();
        let count = Arc::new(AtomicU64::new(0));
        let add = |n: u64| {
            let count = count.clone();
            move || {
                count.fetch_add(n, Ordering::SeqCst);
            }
        };
        let kept = cancel.on_cancel(add(1));
        drop(cancel.on_cancel(add(10)));
        assert!(cancel.check().is_ok());
        cancel.clone().cancel();
        cancel.cancel();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(kept);
        let _late = cancel.on_cancel(add(100));
        assert_eq!(count.load(Ordering::SeqCst), 101);
        let error = io::Error::from(cancel.check().unwrap_err());
        assert!(Cancel::is_cause_of(&error));
    }
}
