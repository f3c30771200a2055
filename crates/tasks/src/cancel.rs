//! The flag that stops a run.

use std::sync::Arc;

use tokio::sync::watch;

/// Why a run is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it.
    Canceled,
    /// Its time is up.
    Timeout,
    /// The server is stopping, or the lease went to somebody else.
    Shutdown,
}

/// A flag that is raised once and tells why. Cheap to clone; readable from threads and tasks.
#[derive(Clone, Debug)]
pub struct CancelFlag(Arc<watch::Sender<Option<StopReason>>>);

impl Default for CancelFlag {
    fn default() -> CancelFlag {
        CancelFlag(Arc::new(watch::Sender::new(None)))
    }
}

impl CancelFlag {
    /// A flag that is down.
    pub fn new() -> CancelFlag {
        CancelFlag::default()
    }

    /// Raise it. The first reason stays.
    pub fn raise(&self, reason: StopReason) {
        self.0.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(reason);
            }
            first
        });
    }

    /// Why it was raised, if it was.
    pub fn reason(&self) -> Option<StopReason> {
        *self.0.borrow()
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.reason().is_some()
    }

    /// Wait until it is raised.
    pub async fn raised(&self) -> StopReason {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(reason) = *receiver.borrow_and_update() {
                return reason;
            }
            // The sender lives in `self`, so this cannot fail.
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_reason_stays_and_wakes() {
        let flag = CancelFlag::new();
        assert!(!flag.is_raised());
        let waiter = tokio::spawn({
            let flag = flag.clone();
            async move { flag.raised().await }
        });
        flag.raise(StopReason::Timeout);
        flag.raise(StopReason::Canceled);
        assert_eq!(waiter.await.unwrap(), StopReason::Timeout);
        assert_eq!(flag.raised().await, StopReason::Timeout);
    }
}
