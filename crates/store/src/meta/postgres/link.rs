//! A thread's way to the database: a connection that is made when it is needed and made
//! anew when it was lost.
//!
//! When the database goes away, work waits a few seconds for it, so that a restart of it is
//! a pause and not an error. After that work is refused at once, and the way is tried again
//! now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::config::Server;
use super::session::{Refusal, Session};
use crate::{Error, Result};

/// How long work waits when the database has just gone.
const OUTAGE_WAIT_SECS_MAX: u64 = 5;
/// Between two attempts, at first and at most.
const RETRY_MILLIS_MIN: u64 = 50;
const RETRY_MILLIS_MAX: u64 = 1_000;

pub(super) struct Link {
    server: Arc<Server>,
    runtime: Runtime,
    session: Option<Session>,
    outage: Option<Outage>,
    closing: Arc<AtomicBool>,
}

struct Outage {
    since: Instant,
    next: Instant,
    pause: Duration,
}

impl Link {
    pub(super) fn new(server: Arc<Server>, closing: Arc<AtomicBool>) -> Result<Link> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::io("start a runtime for the database", e))?;
        Ok(Link { server, runtime, session: None, outage: None, closing })
    }

    /// The first connection: waits for a database that is just starting.
    pub(super) fn open(&mut self, wait: Duration) -> Result<()> {
        let until = Instant::now() + wait;
        let mut told = false;
        loop {
            match self.runtime.block_on(Session::open(&self.server)) {
                Ok(session) => {
                    if self.runtime.block_on(session.is_fsync_off()) {
                        tracing::warn!(
                            database = self.server.place,
                            "fsync is off in this database: a power failure may lose what clients were told is stored"
                        );
                    }
                    self.session = Some(session);
                    return Ok(());
                }
                Err(Refusal::Later(why)) if Instant::now() < until => {
                    if !told {
                        tracing::warn!(why, secs_max = wait.as_secs(), "waiting for the database");
                        told = true;
                    }
                    std::thread::sleep(Duration::from_millis(RETRY_MILLIS_MIN * 4));
                }
                Err(refusal) => return Err(Error::Database(refusal.text().to_owned())),
            }
        }
    }

    /// The connection, made anew when there is none. `Busy` when the database is away for
    /// longer than work may wait.
    pub(super) fn session(&mut self) -> Result<(&Runtime, &mut Session)> {
        if self.session.as_ref().is_some_and(Session::is_closed) {
            self.lose();
        }
        while self.session.is_none() {
            self.reconnect()?;
        }
        match &mut self.session {
            Some(session) => Ok((&self.runtime, session)),
            None => Err(Error::Busy),
        }
    }

    /// The connection that a transaction was begun on. `Busy` when it is gone: another would
    /// know nothing of the transaction.
    pub(super) fn same_session(&mut self) -> Result<(&Runtime, &mut Session)> {
        match &mut self.session {
            Some(session) if !session.is_closed() => Ok((&self.runtime, session)),
            _ => Err(Error::Busy),
        }
    }

    /// One attempt, after a pause when the last one was just now.
    fn reconnect(&mut self) -> Result<()> {
        if let Some(outage) = &self.outage {
            let now = Instant::now();
            if now < outage.next {
                let patient = now.duration_since(outage.since) < Duration::from_secs(OUTAGE_WAIT_SECS_MAX);
                if !patient || self.closing.load(Ordering::Relaxed) {
                    return Err(Error::Busy);
                }
                std::thread::sleep(outage.next - now);
            }
        }
        match self.runtime.block_on(Session::open(&self.server)) {
            Ok(session) => {
                if let Some(outage) = self.outage.take() {
                    let secs = outage.since.elapsed().as_secs();
                    tracing::info!(database = self.server.place, secs, "the database is back");
                }
                self.session = Some(session);
            }
            Err(refusal) => {
                let now = Instant::now();
                match &mut self.outage {
                    Some(outage) => {
                        outage.pause = (outage.pause * 2).min(Duration::from_millis(RETRY_MILLIS_MAX));
                        outage.next = now + outage.pause;
                    }
                    None => {
                        tracing::error!(why = refusal.text(), "the database is away");
                        let pause = Duration::from_millis(RETRY_MILLIS_MIN);
                        self.outage = Some(Outage { since: now, next: now + pause, pause });
                    }
                }
            }
        }
        Ok(())
    }

    /// Forget the connection.
    pub(super) fn lose(&mut self) {
        // Dropping it closes it; there may be nobody to say goodbye to.
        self.session = None;
    }

    /// Close it properly.
    pub(super) fn close(mut self) {
        if let Some(session) = self.session.take() {
            self.runtime.block_on(session.close());
        }
    }
}
