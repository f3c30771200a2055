//! Workers: taking runs from the queue, keeping their leases, ending them; and the sweeper
//! that ends what lost its worker and throws away what is old.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_store::blob::Blobs;
use portolan_store::meta::run::{self, RunRow};
use portolan_store::meta::turn::{self, Turn};
use portolan_store::meta::{Meta, Tx, object};
use portolan_types::{RunId, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::order::SealedSpec;
use crate::place::teller;
use crate::queue::{End, QUEUED, announce_log, secrets, status};
use crate::{
    BuildSpec, CancelFlag, Error, Job, Lease, Live, Outcome, Result, RunLog, RunStatus, Runner, Seal, StopReason,
    Tasks, TasksConfig, log_key,
};

/// What a run says whose server stopped under it.
const LOST: &str = "the server stopped during this run";
/// What a run says whose secrets do not open.
const SEALED: &str = "the secrets of this run were sealed with another master key; order the run again";
/// What a run says whose row nobody can read.
const UNREADABLE: &str = "the server could not read the order";
/// How often workers look for runs that another process queued.
const LOOK_SECS: u64 = 2;
/// How often the sweeper goes round.
const SWEEP_SECS: u64 = 15;
/// How long a runner may take to stop before its run is ended without it.
const STOP_SECS_MAX: u64 = 30;
/// How long it counts that somebody's run was taken.
const SERVED_SECS: u64 = 24 * 3600;
/// What one round of the sweeper takes on, of each kind.
const SWEEP_ITEMS_MAX: usize = 100;

impl Tasks {
    /// Open the runs of a store, and end or queue again those whose worker is gone. `seal`
    /// hides the values of secret build arguments from the store.
    pub async fn open(
        meta: Meta,
        blobs: Arc<dyn Blobs>,
        seal: Arc<dyn Seal>,
        config: TasksConfig,
    ) -> Result<Arc<Tasks>> {
        let tasks = Tasks {
            meta,
            blobs,
            seal,
            config,
            owner: Uuid::new_v4().to_string(),
            live: Mutex::default(),
            changes: watch::Sender::new(0),
            work: Notify::new(),
            stopping: watch::Sender::new(false),
            workers: Mutex::default(),
        };
        let now = Timestamp::now();
        let lost_at = if tasks.config.alone { Timestamp(i64::MAX) } else { now };
        while tasks.end_lost(lost_at, now).await? > 0 {}
        Ok(Arc::new(tasks))
    }

    /// Start `n` workers that carry out runs with `runner`, none if 0, the sweeper, and who
    /// tells runs their place. They live until [`Tasks::drain`].
    pub fn start_workers(self: &Arc<Tasks>, n: usize, runner: Arc<dyn Runner>) {
        let mut workers = self.workers.lock();
        for _ in 0..n {
            workers.push(tokio::spawn(worker(self.clone(), runner.clone())));
        }
        workers.push(tokio::spawn(sweeper(self.clone())));
        workers.push(tokio::spawn(teller(self.clone())));
    }

    /// Take no more runs, give those under way `grace` to finish, then stop them. Runs that
    /// wait stay in the queue for the next start.
    pub async fn drain(&self, grace: Duration) {
        self.stopping.send_replace(true);
        let mut workers = std::mem::take(&mut *self.workers.lock());
        let deadline = Instant::now() + grace;
        let mut told = false;
        for worker in &mut workers {
            if !told && tokio::time::timeout_at(deadline, &mut *worker).await.is_err() {
                for live in self.live.lock().values() {
                    live.cancel.raise(StopReason::Shutdown);
                }
                told = true;
                // A panicking worker was reported where it panicked.
                let _ = (&mut *worker).await;
            } else if told {
                let _ = worker.await;
            }
        }
    }

    /// Runs that wait, and runs under way in this process.
    pub async fn load(&self) -> Result<(u64, usize)> {
        let queued = self.meta.read(|tx| run::queued(tx).map_err(Error::from)).await?;
        Ok((queued, self.live.lock().len()))
    }

    /// One round of the sweeper: end runs whose lease is over, throw away contexts, logs
    /// and rows whose time is up. Runs by itself every few seconds; idempotent.
    pub async fn sweep(&self, now: Timestamp) -> Result<()> {
        self.end_lost(now, now).await?;
        let expired = self.meta.read(move |tx| object::expired(tx, now, SWEEP_ITEMS_MAX).map_err(Error::from)).await?;
        for object in expired {
            for (block, _) in self.blocks(&object.key).await? {
                self.blobs.object_delete(&block).await?;
            }
            self.blobs.object_delete(&object.key).await?;
            self.meta.write(move |tx| object::delete(tx, &object.key).map_err(Error::from)).await?;
        }
        let before = Timestamp(now.0.saturating_sub_unsigned(self.config.keep_secs.saturating_mul(1_000_000)));
        let yesterday = Timestamp(now.0.saturating_sub_unsigned(SERVED_SECS * 1_000_000));
        let prune = move |tx: &mut dyn Tx| {
            turn::prune(tx, yesterday)?;
            run::prune(tx, before, SWEEP_ITEMS_MAX).map_err(Error::from)
        };
        self.meta.write(prune).await?;
        Ok(())
    }

    /// End or queue again what lost its worker by `lost_at`; how many of them there were.
    async fn end_lost(&self, lost_at: Timestamp, now: Timestamp) -> Result<usize> {
        let lost = self.meta.read(move |tx| run::lost(tx, lost_at, SWEEP_ITEMS_MAX).map_err(Error::from)).await?;
        let mut count = 0;
        for row in lost {
            if self.live(row.registry, &row.id).is_some() {
                // Ours, only late with renewing; the worker finds out by itself.
                continue;
            }
            tracing::warn!(run = %row.id, registry = row.registry, status = %row.status, "a run lost its worker");
            if let Some(why) = self.why_not_again(&row, status(&row)? != RunStatus::Started, false).await? {
                let (status, error) = match row.cancel {
                    true => (RunStatus::Canceled, None),
                    false => (RunStatus::Error, Some(why)),
                };
                let owner = row.lease_owner.clone();
                let end = End::new(status, error, now);
                count += usize::from(self.end(row, owner.as_deref(), end, Duration::ZERO).await?);
            } else {
                count += usize::from(self.requeue(&row, row.lease_owner.clone(), false, now).await?);
            }
        }
        Ok(count)
    }

    /// Why a run that its worker left is not to be taken again; `None` when it is. `forgiven`:
    /// the worker was told to leave it, so that attempt does not count.
    async fn why_not_again(&self, row: &RunRow, begun: bool, forgiven: bool) -> Result<Option<String>> {
        if row.cancel {
            return Ok(Some(LOST.to_owned()));
        }
        let (registry, seq) = (row.registry, row.seq);
        let turn = self.meta.read(move |tx| turn::get(tx, registry, seq).map_err(Error::from)).await?;
        let worker = turn.worker.unwrap_or_default();
        if !forgiven && turn.attempts >= self.config.attempts_max.max(1) {
            return Ok(Some(match turn.attempts {
                0 | 1 => LOST.to_owned(),
                n => format!("{n} workers in turn were lost during this run, the last of them {worker}"),
            }));
        }
        // What never began can always begin again.
        if !begun {
            return Ok(None);
        }
        if self.config.alone {
            return Ok(Some(LOST.to_owned()));
        }
        Ok(turn.storing.then(|| {
            format!(
                "{worker} was lost while it stored what this run made, so it may be there or not; order the run again"
            )
        }))
    }

    /// Put a run that `owner` has, or had, back into the queue.
    async fn requeue(&self, row: &RunRow, owner: Option<String>, forgiven: bool, now: Timestamp) -> Result<bool> {
        let (registry, seq) = (row.registry, row.seq);
        let again = move |tx: &mut dyn Tx| {
            let again = turn::requeue(tx, registry, seq, owner.as_deref(), forgiven, now)?;
            if again {
                tx.notify(QUEUED)?;
            }
            Ok::<_, Error>(again)
        };
        let again = self.meta.write(again).await?;
        self.changed();
        self.work.notify_one();
        Ok(again)
    }

    fn lease_until(&self, now: Timestamp) -> Timestamp {
        now.plus(Duration::from_secs(self.config.lease_secs))
    }

    async fn claim(&self) -> Result<Option<(RunRow, Turn)>> {
        if self.meta.read(|tx| run::queued(tx).map_err(Error::from)).await? == 0 {
            return Ok(None);
        }
        let (owner, now) = (self.owner.clone(), Timestamp::now());
        let until = self.lease_until(now);
        let (worker, limits) = (self.config.name.clone(), self.config.running);
        let claimed = self
            .meta
            .write(move |tx| {
                let claimed = turn::claim(tx, &owner, &worker, limits, now, until)?;
                if let Some((row, _)) = &claimed {
                    announce_log(tx, row.registry, &row.id, now)?;
                }
                Ok::<_, Error>(claimed)
            })
            .await?;
        if claimed.is_some() {
            self.changed();
        }
        Ok(claimed)
    }

    /// Carry out one run that this process has claimed, to its end.
    async fn carry_out(self: &Arc<Tasks>, row: RunRow, turn: Turn, runner: &Arc<dyn Runner>) -> Result<()> {
        // For so long the lease may be ours without being renewed.
        let patience = Duration::from_secs(self.config.lease_secs);
        let spec = match self.order(&row) {
            Ok(spec) => spec,
            Err(why) => {
                let end = End::new(RunStatus::Error, Some(why.to_owned()), Timestamp::now());
                self.end(row, Some(&self.owner), end, patience).await?;
                return Ok(());
            }
        };
        let cancel = CancelFlag::new();
        if row.cancel {
            cancel.raise(StopReason::Canceled);
        }
        let log = self.log(row.registry, &row.id, &secrets(&spec)).await?;
        let key = (row.registry, row.id.clone());
        self.live.lock().insert(key.clone(), Live { cancel: cancel.clone(), log: log.clone() });
        let _gone = Gone { tasks: self, key };
        if let Some(before) = turn.worker {
            let (name, n, max) = (&self.config.name, turn.attempts, self.config.attempts_max.max(1));
            let text = format!("{before} left this run; {name} begins it anew (attempt {n} of {max})");
            let log = log.clone();
            // Appending may block; a line that is lost is not worth the run.
            let _ = tokio::task::spawn_blocking(move || log.note(&text)).await;
        }
        let (outcome, still_ours) = self.attend(&row, spec, runner, log, &cancel).await;
        if !still_ours {
            tracing::warn!(run = %row.id, "lost the lease of a run");
            return Ok(());
        }
        if let (Outcome::Stopped, Some(StopReason::Shutdown)) = (&outcome, cancel.reason())
            && self.why_not_again(&row, true, true).await?.is_none()
        {
            // This process is told to stop; another begins it anew, and goes on with its log:
            // what is still on the way would be written over what that one adds.
            if let Err(error) = self.blobs.object_sync(&log_key(row.registry, &row.id)).await {
                tracing::warn!(%error, run = %row.id, "keep the log of a run that is given back");
            }
            self.requeue(&row, Some(self.owner.clone()), true, Timestamp::now()).await?;
            return Ok(());
        }
        let (status, error, images) = match (outcome, cancel.reason()) {
            (Outcome::Succeeded(images), _) => (RunStatus::Succeeded, None, images),
            (_, Some(StopReason::Canceled)) => (RunStatus::Canceled, None, Vec::new()),
            (_, Some(StopReason::Timeout)) => {
                let error = format!("the run took longer than the {} seconds it was given", row.timeout_secs);
                (RunStatus::Timeout, Some(error), Vec::new())
            }
            (_, Some(StopReason::Shutdown)) => (RunStatus::Error, Some(LOST.to_owned()), Vec::new()),
            (Outcome::Failed(error), None) => (RunStatus::Failed, Some(error), Vec::new()),
            (Outcome::Error(error), None) => (RunStatus::Error, Some(error), Vec::new()),
            (Outcome::Stopped, None) => (RunStatus::Error, Some("the run stopped by itself".to_owned()), Vec::new()),
        };
        tracing::info!(run = %row.id, registry = row.registry, %status, "run ended");
        let end = End { status, error, images, now: Timestamp::now() };
        self.end(row, Some(&self.owner), end, patience).await?;
        Ok(())
    }

    /// What a run is to build, with its secrets; else why that cannot be told.
    fn order(&self, row: &RunRow) -> Result<BuildSpec, &'static str> {
        let spec: SealedSpec = serde_json::from_str(&row.spec).map_err(|cause| {
            tracing::error!(%cause, run = %row.id, "read a run's order");
            UNREADABLE
        })?;
        spec.open(row.registry, &row.id, &*self.seal).ok_or_else(|| {
            tracing::error!(run = %row.id, "a run's secrets do not open with this master key");
            SEALED
        })
    }

    /// Let the runner work, renew the lease beside it, and raise the flag when time is up.
    /// The second answer is false when the lease was lost.
    async fn attend(
        &self,
        row: &RunRow,
        spec: BuildSpec,
        runner: &Arc<dyn Runner>,
        log: RunLog,
        cancel: &CancelFlag,
    ) -> (Outcome, bool) {
        let (registry, seq) = (row.registry, row.seq);
        let (owner, now) = (self.owner.clone(), Timestamp::now());
        match self.meta.write(move |tx| run::running(tx, registry, seq, &owner, now).map_err(Error::from)).await {
            Ok(true) => self.changed(),
            Ok(false) => return (Outcome::Stopped, false),
            Err(error) => {
                tracing::error!(%error, run = %row.id, "mark a run as running");
                return (Outcome::Error("the server could not write its store".into()), true);
            }
        }
        let job = Job {
            registry,
            id: row.id.clone(),
            build: spec,
            platform: row.platform.clone(),
            started: row.started.unwrap_or(now),
            timeout_secs: row.timeout_secs,
            lease: Lease { meta: self.meta.clone(), registry, seq, owner: self.owner.clone() },
        };
        // A task of its own, so that a panic ends this run and nothing else.
        let mut work = tokio::spawn({
            let (runner, cancel) = (runner.clone(), cancel.clone());
            async move { runner.run(job, log, cancel).await }
        });
        let deadline = Instant::now() + Duration::from_secs(row.timeout_secs);
        let mut renew = tokio::time::interval(Duration::from_secs((self.config.lease_secs / 3).max(1)));
        let mut give_up = None;
        loop {
            tokio::select! {
                done = &mut work => {
                    return (done.unwrap_or_else(|cause| {
                        tracing::error!(%cause, run = %row.id, "a run panicked");
                        Outcome::Error("the server failed during this run".into())
                    }), true);
                }
                () = tokio::time::sleep_until(deadline), if !cancel.is_raised() => cancel.raise(StopReason::Timeout),
                _ = cancel.raised(), if give_up.is_none() => {
                    give_up = Some(Instant::now() + Duration::from_secs(STOP_SECS_MAX));
                }
                () = until(give_up) => {
                    tracing::error!(run = %row.id, "a run did not stop when told to");
                    work.abort();
                    return (Outcome::Stopped, true);
                }
                _ = renew.tick() => match self.renew(registry, seq).await {
                    Ok(Some(false)) => {}
                    Ok(Some(true)) => cancel.raise(StopReason::Canceled),
                    Ok(None) => {
                        cancel.raise(StopReason::Shutdown);
                        let _ = work.await;
                        return (Outcome::Stopped, false);
                    }
                    // The lease outlasts two failed renewals.
                    Err(error) => tracing::warn!(%error, run = %row.id, "renew a run's lease"),
                },
            }
        }
    }

    async fn renew(&self, registry: i64, seq: u64) -> Result<Option<bool>> {
        let owner = self.owner.clone();
        let until = self.lease_until(Timestamp::now());
        self.meta.write(move |tx| run::renew(tx, registry, seq, &owner, until).map_err(Error::from)).await
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Takes a run off the list of live ones, whatever happens.
struct Gone<'t> {
    tasks: &'t Tasks,
    key: (i64, RunId),
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.tasks.live.lock().remove(&self.key);
        self.tasks.changed();
    }
}

async fn worker(tasks: Arc<Tasks>, runner: Arc<dyn Runner>) {
    let mut stopping = tasks.stopping.subscribe();
    while !*stopping.borrow_and_update() {
        match tasks.claim().await {
            Ok(Some((row, turn))) => {
                // There may be more: wake a colleague before going to work.
                tasks.work.notify_one();
                let id = row.id.clone();
                if let Err(error) = tasks.carry_out(row, turn, &runner).await {
                    tracing::error!(%error, run = %id, "end a run");
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "take a run from the queue"),
        }
        tokio::select! {
            () = tasks.work.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(LOOK_SECS)) => {}
            _ = stopping.changed() => {}
        }
    }
}

async fn sweeper(tasks: Arc<Tasks>) {
    let mut stopping = tasks.stopping.subscribe();
    while !*stopping.borrow_and_update() {
        if let Err(error) = tasks.sweep(Timestamp::now()).await {
            tracing::error!(%error, "sweep runs");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(SWEEP_SECS)) => {}
            _ = stopping.changed() => {}
        }
    }
}
