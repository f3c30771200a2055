//! Telling runs that wait their place in the queue, in their own logs: whoever follows the log
//! sees why nothing happens yet.
//!
//! A log has one writer at a time. While a run waits that is the teller, for the moment in
//! which it has marked the run in its row (`turn::to_tell`); no worker takes a marked run.

use std::sync::Arc;
use std::time::Duration;

use portolan_store::meta::turn;
use portolan_store::meta::{Tx, run};
use portolan_types::Timestamp;

use crate::queue::announce_log;
use crate::{Error, Result, Tasks, log_key};

/// How often places are looked at.
const TELL_SECS: u64 = 2;
/// A run that waits shorter is told nothing.
const WAIT_MILLIS: u64 = 1_500;
/// For how long a log may be in hand; after that somebody died over it.
const IN_HAND_SECS: u64 = 10;
/// Runs told in one round.
const TOLD_MAX: usize = 50;

impl Tasks {
    /// Tell places that have changed, once. Runs by itself every few seconds.
    pub async fn tell_places(&self, now: Timestamp) -> Result<usize> {
        let waiting = self.meta.read(|tx| run::queued(tx).map_err(Error::from)).await?;
        if waiting == 0 {
            return Ok(0);
        }
        let since = Timestamp(now.0.saturating_sub_unsigned(WAIT_MILLIS * 1_000));
        let until = now.plus(Duration::from_secs(IN_HAND_SECS));
        let look = move |tx: &mut dyn Tx| turn::to_tell(tx, now, since, until, TOLD_MAX, false).map_err(Error::from);
        // A look costs no writing transaction.
        if self.meta.read(look).await?.is_empty() {
            return Ok(0);
        }
        let mark = move |tx: &mut dyn Tx| {
            let told = turn::to_tell(tx, now, since, until, TOLD_MAX, true)?;
            for run in &told {
                announce_log(tx, run.registry, &run.id(), now)?;
            }
            Ok::<_, Error>(told)
        };
        let told = self.meta.write(mark).await?;
        for run in &told {
            let log = self.log(run.registry, &run.id(), &[]).await?;
            let text = sentence(run.before);
            // Appending may block.
            let written = tokio::task::spawn_blocking(move || log.note(&text)).await;
            if let Err(cause) = written {
                tracing::error!(%cause, "tell a run its place in the queue");
            }
            // The next to write is whoever takes the run.
            if let Err(error) = self.blobs.object_sync(&log_key(run.registry, &run.id())).await {
                tracing::warn!(%error, "keep what a run was told of its place in the queue");
            }
        }
        let count = told.len();
        self.meta.write(move |tx| turn::was_told(tx, &told).map_err(Error::from)).await?;
        self.work.notify_one();
        self.changed();
        Ok(count)
    }
}

fn sentence(before: u64) -> String {
    match before {
        0 => "Waiting for a worker: this run is the next".to_owned(),
        1 => "Waiting in the queue: 1 run is before this one".to_owned(),
        n => format!("Waiting in the queue: {n} runs are before this one"),
    }
}

/// Tells places until the process drains.
pub(crate) async fn teller(tasks: Arc<Tasks>) {
    let mut stopping = tasks.stopping.subscribe();
    while !*stopping.borrow_and_update() {
        if let Err(error) = tasks.tell_places(Timestamp::now()).await {
            tracing::error!(%error, "tell runs their place in the queue");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(TELL_SECS)) => {}
            _ = stopping.changed() => {}
        }
    }
}
