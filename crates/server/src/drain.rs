//! Ending gracefully.
//!
//! A server is *starting*, then *serving*, then *draining*. Draining begins with the first
//! SIGTERM or SIGINT (or `RunningServer::shutdown`): `/readyz` answers 503 so that load
//! balancers look elsewhere, listeners close, requests in flight are finished until the
//! deadline, background work stops, the store closes. A second signal ends the process at once.

use std::sync::Arc;

use tokio::sync::watch;

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not ready for requests yet.
    Starting,
    /// Ready.
    Serving,
    /// Finishing what it has.
    Draining,
}

/// The phase, shared by all parts of the server.
#[derive(Clone, Debug)]
pub struct Drain(Arc<watch::Sender<Phase>>);

impl Drain {
    /// A server that is starting.
    pub fn new() -> Drain {
        Drain(Arc::new(watch::Sender::new(Phase::Starting)))
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Go on to a later phase; there is no way back.
    pub fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let forward = to > *phase;
            if forward {
                *phase = to;
            }
            forward
        });
    }

    /// Wait until draining begins; at once when it has begun.
    pub async fn begun(&self) {
        let mut phase = self.0.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_go_forward() {
        let drain = Drain::new();
        drain.advance(Phase::Serving);
        drain.advance(Phase::Starting);
        assert_eq!(drain.phase(), Phase::Serving);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.begun().await }
        });
        drain.advance(Phase::Draining);
        waiting.await.unwrap();
        drain.begun().await;
    }
}
