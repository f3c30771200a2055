//! Runs: the queue of what is to be built and the record of what was.
//!
//! A row is born `Queued`. [`claim`] gives it to a worker under a lease and makes it
//! `Started`; [`running`] says that its first step began; [`finish`] ends it. A worker
//! renews its lease while it works; a run whose lease is over ([`lost`]) is ended by whoever
//! finds it, or [`requeue`]d when no step of it had begun. Every change of state by a worker
//! names the worker, so that one who lost its lease changes nothing.

use portolan_types::{Digest, Platform, RepoName, RunId, Tag, Timestamp};

use super::{Row, RowExt, Tx, Value, all, next_id, one};
use crate::{Error, Result};

/// One run.
#[derive(Clone, Debug)]
pub struct RunRow {
    /// `registry.id`.
    pub registry: i64,
    /// Its number in the registry.
    pub seq: u64,
    /// Its id in the registry, [`RunId::nth`] of the number.
    pub id: RunId,
    /// `Queued`, `Started`, `Running`, or one of the final words.
    pub status: String,
    /// `QuickBuild`, …
    pub kind: String,
    /// When it was ordered.
    pub created: Timestamp,
    /// When a worker took it.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// When the row last changed.
    pub updated: Timestamp,
    /// What it builds for.
    pub platform: Platform,
    /// Processors asked for.
    pub cpu: u32,
    /// How long it may take once started.
    pub timeout_secs: u64,
    /// Kept for ever.
    pub archived: bool,
    /// The task it belongs to.
    pub task: Option<String>,
    /// What to build: JSON of the tasks crate.
    pub spec: String,
    /// The object that holds its context.
    pub context: Option<String>,
    /// Why it did not succeed.
    pub error: Option<String>,
    /// Somebody asked to cancel it.
    pub cancel: bool,
    /// The worker that has it.
    pub lease_owner: Option<String>,
}

/// An image that a run stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunImage {
    /// The repository.
    pub repo: RepoName,
    /// The tag.
    pub tag: Option<Tag>,
    /// The manifest's digest.
    pub digest: Digest,
}

/// What [`list`] is to find; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Runs of this task (case does not matter).
    pub task: Option<String>,
    /// Runs in this status.
    pub status: Option<String>,
    /// This run.
    pub id: Option<RunId>,
    /// Runs that stored this manifest.
    pub image: Option<(RepoName, Digest)>,
    /// Runs kept for ever, or the others.
    pub archived: Option<bool>,
}

const COLUMNS: &str = "registry, seq, id, status, kind, created, started, finished, updated, os, architecture, variant, \
                       cpu, timeout_secs, archived, task, spec, context, error, cancel, lease_owner";

fn read(row: &dyn Row) -> Result<RunRow> {
    Ok(RunRow {
        registry: row.int(0)?,
        seq: row.uint(1)?,
        id: row.parsed(2)?,
        status: row.text(3)?,
        kind: row.text(4)?,
        created: row.time(5)?,
        started: row.opt_time(6)?,
        finished: row.opt_time(7)?,
        updated: row.time(8)?,
        platform: Platform { os: row.text(9)?, architecture: row.text(10)?, variant: row.opt_text(11)? },
        cpu: u32::try_from(row.uint(12)?).unwrap_or(u32::MAX),
        timeout_secs: row.uint(13)?,
        archived: row.bool(14)?,
        task: row.opt_text(15)?,
        spec: row.text(16)?,
        context: row.opt_text(17)?,
        error: row.opt_text(18)?,
        cancel: row.bool(19)?,
        lease_owner: row.opt_text(20)?,
    })
}

/// One change of a run's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEvent {
    /// Its place in the event log.
    pub seq: i64,
    /// The run.
    pub run: RunId,
    /// The status it went into.
    pub status: String,
    /// When.
    pub at: Timestamp,
}

fn record(tx: &mut dyn Tx, registry: i64, run: &RunId, status: &str, at: Timestamp) -> Result<()> {
    let seq = next_id(tx, "event")?;
    tx.execute(
        "INSERT INTO run_event (seq, registry, run, status, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        &[seq.into(), registry.into(), run.into(), status.into(), at.into()],
    )?;
    Ok(())
}

/// Changes of runs' status after `seq`, oldest first, at most `limit`.
pub fn events_after(tx: &mut dyn Tx, registry: i64, seq: i64, limit: usize) -> Result<Vec<RunEvent>> {
    let sql = "SELECT seq, run, status, at FROM run_event WHERE registry = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    all(tx, sql, &[registry.into(), seq.into(), limit.into()], |row| {
        Ok(RunEvent { seq: row.int(0)?, run: row.parsed(1)?, status: row.text(2)?, at: row.time(3)? })
    })
}

/// Take the next run number of a registry, counted from 1.
pub fn next_seq(tx: &mut dyn Tx, registry: i64) -> Result<u64> {
    let sql = "INSERT INTO run_seq (registry, last) VALUES (?1, 1) \
               ON CONFLICT (registry) DO UPDATE SET last = run_seq.last + 1 RETURNING last";
    one(tx, sql, &[registry.into()], |row| row.uint(0))?.ok_or_else(|| Error::Database("no run number".into()))
}

/// Put a run into the queue. The lease columns of `run` are not read.
pub fn insert(tx: &mut dyn Tx, run: &RunRow) -> Result<()> {
    tx.execute(
        "INSERT INTO run (registry, seq, id, status, kind, created, started, finished, updated, os, architecture, \
         variant, cpu, timeout_secs, archived, task, spec, context, error, cancel, lease_owner, lease_until) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, NULL, NULL)",
        &[
            run.registry.into(),
            run.seq.into(),
            (&run.id).into(),
            (&run.status).into(),
            (&run.kind).into(),
            run.created.into(),
            run.started.into(),
            run.finished.into(),
            run.updated.into(),
            (&run.platform.os).into(),
            (&run.platform.architecture).into(),
            run.platform.variant.as_deref().into(),
            run.cpu.into(),
            run.timeout_secs.into(),
            run.archived.into(),
            run.task.as_deref().into(),
            (&run.spec).into(),
            run.context.as_deref().into(),
            run.error.as_deref().into(),
            run.cancel.into(),
        ],
    )?;
    record(tx, run.registry, &run.id, &run.status, run.updated)
}

/// One run by id.
pub fn get(tx: &mut dyn Tx, registry: i64, id: &RunId) -> Result<Option<RunRow>> {
    one(tx, &format!("SELECT {COLUMNS} FROM run WHERE registry = ?1 AND id = ?2"), &[registry.into(), id.into()], read)
}

/// Runs of a registry, newest first, at most `limit`.
pub fn list(tx: &mut dyn Tx, registry: i64, filter: &RunFilter, limit: usize) -> Result<Vec<RunRow>> {
    let mut sql = format!("SELECT {COLUMNS} FROM run WHERE registry = ?1");
    let mut params: Vec<Value<'_>> = vec![registry.into(), limit.into()];
    let mut bind = |sql: &mut String, before: &str, after: &str, value: Value<'static>| {
        params.push(value);
        sql.push_str(&format!(" AND {before}?{}{after}", params.len()));
    };
    if let Some(task) = &filter.task {
        bind(&mut sql, "LOWER(task) = ", "", task.to_lowercase().into());
    }
    if let Some(status) = &filter.status {
        bind(&mut sql, "status = ", "", status.clone().into());
    }
    if let Some(id) = &filter.id {
        bind(&mut sql, "id = ", "", id.as_str().to_owned().into());
    }
    if let Some(archived) = filter.archived {
        bind(&mut sql, "archived = ", "", archived.into());
    }
    if let Some((repo, digest)) = &filter.image {
        let image = "seq IN (SELECT i.seq FROM run_image i WHERE i.registry = ?1 AND i.digest = ";
        bind(&mut sql, image, "", digest.into());
        bind(&mut sql, "i.repo = ", ")", repo.as_str().to_owned().into());
    }
    sql.push_str(" ORDER BY seq DESC LIMIT ?2");
    all(tx, &sql, &params, read)
}

/// What a run stored, in the order it was stored.
pub fn images(tx: &mut dyn Tx, registry: i64, seq: u64) -> Result<Vec<RunImage>> {
    let sql = "SELECT repo, tag, digest FROM run_image WHERE registry = ?1 AND seq = ?2 ORDER BY n";
    all(tx, sql, &[registry.into(), seq.into()], |row| {
        Ok(RunImage { repo: row.parsed(0)?, tag: row.opt_parsed(1)?, digest: row.digest(2)? })
    })
}

/// How many runs wait for a worker, in all registries.
pub fn queued(tx: &mut dyn Tx) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM run WHERE finished IS NULL AND status = 'Queued'";
    Ok(one(tx, sql, &[], |row| row.uint(0))?.unwrap_or(0))
}

/// Give a run that waits to `owner` until `lease_until`: `Queued` → `Started`. Which one it is
/// to be, [`super::turn::claim`] says.
pub(super) fn take(
    tx: &mut dyn Tx,
    registry: i64,
    seq: u64,
    owner: &str,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Option<RunRow>> {
    let sql = format!(
        "UPDATE run SET status = 'Started', started = ?3, updated = ?3, lease_owner = ?4, lease_until = ?5 \
         WHERE registry = ?1 AND seq = ?2 AND status = 'Queued' RETURNING {COLUMNS}"
    );
    let claimed = one(tx, &sql, &[registry.into(), seq.into(), now.into(), owner.into(), lease_until.into()], read)?;
    if let Some(run) = &claimed {
        record(tx, registry, &run.id, &run.status, now)?;
    }
    Ok(claimed)
}

/// Its first step begins: `Started` → `Running`. False when `owner` has it no more.
pub fn running(tx: &mut dyn Tx, registry: i64, seq: u64, owner: &str, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE run SET status = 'Running', updated = ?4 \
               WHERE registry = ?1 AND seq = ?2 AND lease_owner = ?3 AND status = 'Started' RETURNING id, status";
    changed(tx, sql, &[registry.into(), seq.into(), owner.into(), now.into()], registry, now)
}

/// Run an update of one run that returns its id and status; whether it changed anything.
fn changed(tx: &mut dyn Tx, sql: &str, params: &[Value<'_>], registry: i64, now: Timestamp) -> Result<bool> {
    match one(tx, sql, params, |row| Ok((row.parsed::<RunId>(0)?, row.text(1)?)))? {
        Some((id, status)) => record(tx, registry, &id, &status, now).map(|()| true),
        None => Ok(false),
    }
}

/// Keep a lease until `lease_until`. `None` when `owner` has it no more, else whether
/// somebody asked to cancel the run.
pub fn renew(tx: &mut dyn Tx, registry: i64, seq: u64, owner: &str, lease_until: Timestamp) -> Result<Option<bool>> {
    let sql = "UPDATE run SET lease_until = ?4 \
               WHERE registry = ?1 AND seq = ?2 AND lease_owner = ?3 AND finished IS NULL RETURNING cancel";
    one(tx, sql, &[registry.into(), seq.into(), owner.into(), lease_until.into()], |row| row.bool(0))
}

/// Note that a run is to be cancelled, for the worker that has it.
pub fn ask_cancel(tx: &mut dyn Tx, registry: i64, seq: u64, now: Timestamp) -> Result<()> {
    let sql = "UPDATE run SET cancel = 1, updated = ?3 WHERE registry = ?1 AND seq = ?2 AND finished IS NULL";
    tx.execute(sql, &[registry.into(), seq.into(), now.into()])?;
    Ok(())
}

/// How a run ends.
#[derive(Clone, Debug)]
pub struct Ending<'a> {
    /// A final word.
    pub status: &'a str,
    /// Why it did not succeed.
    pub error: Option<&'a str>,
    /// The spec to keep, without secrets.
    pub spec: &'a str,
    /// What it stored.
    pub images: &'a [RunImage],
    /// When.
    pub now: Timestamp,
}

/// End a run that is not over. With `owner`: only if that worker has it. False when it was
/// over or somebody else's.
pub fn finish(tx: &mut dyn Tx, registry: i64, seq: u64, owner: Option<&str>, end: &Ending<'_>) -> Result<bool> {
    let sql = "UPDATE run SET status = ?3, error = ?4, spec = ?5, finished = ?6, updated = ?6, \
               lease_owner = NULL, lease_until = NULL \
               WHERE registry = ?1 AND seq = ?2 AND finished IS NULL AND (CAST(?7 AS TEXT) IS NULL OR lease_owner = ?7) \
               RETURNING id, status";
    let params = [
        registry.into(),
        seq.into(),
        end.status.into(),
        end.error.into(),
        end.spec.into(),
        end.now.into(),
        owner.into(),
    ];
    if !changed(tx, sql, &params, registry, end.now)? {
        return Ok(false);
    }
    for (n, image) in end.images.iter().enumerate() {
        tx.execute(
            "INSERT INTO run_image (registry, seq, n, repo, tag, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            &[
                registry.into(),
                seq.into(),
                n.into(),
                (&image.repo).into(),
                image.tag.as_ref().into(),
                (&image.digest).into(),
            ],
        )?;
    }
    Ok(true)
}

/// Runs that a worker took and whose lease is over at `now`, at most `limit`.
pub fn lost(tx: &mut dyn Tx, now: Timestamp, limit: usize) -> Result<Vec<RunRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM run WHERE finished IS NULL AND status IN ('Started', 'Running') AND lease_until <= ?1 \
         ORDER BY created LIMIT ?2"
    );
    all(tx, &sql, &[now.into(), limit.into()], read)
}

/// Put a run back into the queue that `owner` has or had: `Started`, `Running` → `Queued`.
pub(super) fn requeue(tx: &mut dyn Tx, registry: i64, seq: u64, owner: Option<&str>, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE run SET status = 'Queued', started = NULL, updated = ?3, lease_owner = NULL, lease_until = NULL \
               WHERE registry = ?1 AND seq = ?2 AND status IN ('Started', 'Running') AND finished IS NULL \
               AND (CAST(?4 AS TEXT) IS NULL OR lease_owner = ?4) RETURNING id, status";
    changed(tx, sql, &[registry.into(), seq.into(), now.into(), owner.into()], registry, now)
}

/// Keep a run for ever, or no longer than others.
pub fn set_archived(tx: &mut dyn Tx, registry: i64, id: &RunId, archived: bool, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE run SET archived = ?3, updated = ?4 WHERE registry = ?1 AND id = ?2";
    Ok(tx.execute(sql, &[registry.into(), id.into(), archived.into(), now.into()])? > 0)
}

/// Whether a run that is not over needs this context.
pub fn needs_context(tx: &mut dyn Tx, context: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM run WHERE context = ?1 AND finished IS NULL LIMIT 1";
    Ok(one(tx, sql, &[context.into()], |row| row.int(0))?.is_some())
}

/// Forget runs that ended before `before` and are not kept for ever, at most `limit`.
pub fn prune(tx: &mut dyn Tx, before: Timestamp, limit: usize) -> Result<u64> {
    let old = all(
        tx,
        "SELECT registry, seq, id FROM run WHERE finished < ?1 AND archived = 0 ORDER BY finished LIMIT ?2",
        &[before.into(), limit.into()],
        |row| Ok((row.int(0)?, row.uint(1)?, row.parsed::<RunId>(2)?)),
    )?;
    for (registry, seq, id) in &old {
        tx.execute("DELETE FROM run_event WHERE registry = ?1 AND run = ?2", &[(*registry).into(), id.into()])?;
        let key = [(*registry).into(), (*seq).into()];
        tx.execute("DELETE FROM run_image WHERE registry = ?1 AND seq = ?2", &key)?;
        tx.execute("DELETE FROM run WHERE registry = ?1 AND seq = ?2", &key)?;
    }
    Ok(old.len() as u64)
}
