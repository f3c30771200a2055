//! Ordering, finding and cancelling runs, and reading their logs.

use std::ops::Range;
use std::time::Duration;

use portolan_store::blob::ByteStream;
use portolan_store::meta::run::{self, Ending, RunFilter, RunImage, RunRow};
use portolan_store::meta::{Tx, object, turn};
use portolan_types::{RunId, Secret, Timestamp, limits};
use tokio::time::Instant;

use crate::context::{CONTEXT_SECS_MAX, context_key, is_uploaded};
use crate::order::SealedSpec;
use crate::template::{self, RunVars};
use crate::{
    BuildSpec, Error, Live, NewRun, OutputImage, Result, Run, RunLog, RunStatus, Seal, StopReason, Tasks, log_key,
};

/// The longest error that is kept with a run; the log has it whole.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// How soon ending a run is tried again when the store fails, in milliseconds; twice as
/// long after each further try, up to the maximum.
const END_RETRY_MILLIS: u64 = 250;
const END_RETRY_MILLIS_MAX: u64 = 4_000;

/// What processes on one database tell each other: a run waits, a run ended, a run is to be
/// cancelled (with its registry and id).
pub(crate) const QUEUED: &str = "run queued";
const CHANGED: &str = "run ended";
const CANCEL: &str = "run cancel ";

/// How a run ends.
#[derive(Clone)]
pub(crate) struct End {
    pub(crate) status: RunStatus,
    pub(crate) error: Option<String>,
    pub(crate) images: Vec<OutputImage>,
    pub(crate) now: Timestamp,
}

impl End {
    /// An end without images.
    pub(crate) fn new(status: RunStatus, error: Option<String>, now: Timestamp) -> End {
        End { status, error, images: Vec::new(), now }
    }
}

/// What there is of a run's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Its bytes.
    pub len: u64,
    /// [`RunStatus::log_complete`], once nothing more will come.
    pub complete: Option<&'static str>,
}

impl Tasks {
    /// Put a run into the queue. `context` of the order is the relative path of a staged
    /// context; it belongs to the run from here on.
    pub async fn schedule(&self, new: NewRun, now: Timestamp) -> Result<Run> {
        check(&new)?;
        let registry = new.registry.id;
        let (queue_max, queue_registry_max) = (self.config.queue_max, self.config.queue_registry_max);
        let seal = self.seal.clone();
        let uploaded = |path: &str| {
            let wrong = || Error::invalid(format!("`{path}` is not an uploaded build context"));
            context_key(registry, path).ok_or_else(wrong)
        };
        let context = match &new.build.options.source {
            Some(_) => None,
            None => Some(uploaded(&new.build.context)?),
        };
        let others = new.build.options.contexts.iter().map(|c| c.source.as_str()).filter(|s| is_uploaded(s));
        let others = others.map(uploaded).collect::<Result<Vec<String>>>()?;
        // They are not the run's own to remove: they stay until it must be over.
        let until = now.plus(Duration::from_secs(CONTEXT_SECS_MAX + limits::RUN_SECS_MAX));
        let run = self
            .meta
            .write(move |tx| {
                if run::queued(tx)? >= queue_max {
                    return Err(Error::QueueFull { max: queue_max });
                }
                let most = queue_registry_max;
                if turn::queued(tx, registry)? >= most {
                    return Err(Error::QueueFull { max: most });
                }
                for context in context.iter().chain(&others) {
                    match object::get(tx, context)? {
                        Some(object::Object { size: Some(_), .. }) => {}
                        Some(_) => return Err(Error::invalid("the build context was not uploaded")),
                        None => return Err(Error::invalid("there is no such build context; it may have expired")),
                    }
                }
                for other in &others {
                    object::set_expires(tx, other, Some(until))?;
                }
                let asker = new.asker.clone();
                let row = row(tx, new, context, &*seal, now)?;
                run::insert(tx, &row)?;
                turn::insert(tx, row.registry, row.seq, &asker)?;
                if let Some(context) = &row.context {
                    object::set_expires(tx, context, None)?;
                }
                tx.notify(QUEUED)?;
                from_row(row, Vec::new())
            })
            .await?;
        self.changed();
        self.work.notify_one();
        Ok(run)
    }

    /// One run.
    pub async fn get(&self, registry: i64, id: &RunId) -> Result<Option<Run>> {
        let id = id.clone();
        self.meta.read(move |tx| run::get(tx, registry, &id)?.map(|row| with_images(tx, row)).transpose()).await
    }

    /// Runs of a registry, newest first, at most `top`
    /// ([`limits::PAGE_ITEMS_MAX`](portolan_types::limits::PAGE_ITEMS_MAX) whatever it says).
    pub async fn list(&self, registry: i64, filter: RunFilter, top: usize) -> Result<Vec<Run>> {
        let top = top.min(limits::PAGE_ITEMS_MAX);
        self.meta
            .read(move |tx| {
                let rows = run::list(tx, registry, &filter, top)?;
                rows.into_iter().map(|row| with_images(tx, row)).collect()
            })
            .await
    }

    /// Keep a run for ever, or no longer than others.
    pub async fn set_archived(&self, registry: i64, id: &RunId, archived: bool, now: Timestamp) -> Result<Run> {
        let expires = (!archived).then(|| now.plus(Duration::from_secs(self.config.keep_secs)));
        let run_id = id.clone();
        self.meta
            .write(move |tx| {
                if run::set_archived(tx, registry, &run_id, archived, now)? {
                    object::set_expires(tx, &log_key(registry, &run_id), expires)?;
                }
                Ok::<_, Error>(())
            })
            .await?;
        self.get(registry, id).await?.ok_or_else(|| no_run(id))
    }

    /// Cancel a run: one that waits ends now, one that goes is told to stop, one that is
    /// over stays as it is.
    pub async fn cancel(&self, registry: i64, id: &RunId, now: Timestamp) -> Result<Run> {
        let run_id = id.clone();
        let row = self
            .meta
            .write(move |tx| {
                let row = run::get(tx, registry, &run_id)?.ok_or_else(|| no_run(&run_id))?;
                run::ask_cancel(tx, registry, row.seq, now)?;
                tx.notify(&format!("{CANCEL}{registry}/{run_id}"))?;
                Ok::<_, Error>(row)
            })
            .await?;
        if row.status == RunStatus::Queued.as_str() {
            // Its log must exist and be whole, or those who follow it wait for ever. A
            // worker that takes the run in this moment finds the wish in its row.
            self.end(row, None, End::new(RunStatus::Canceled, None, now), Duration::ZERO).await?;
        } else if let Some(live) = self.live(registry, id) {
            live.cancel.raise(StopReason::Canceled);
        }
        self.get(registry, id).await?.ok_or_else(|| no_run(id))
    }

    /// What there is of a run's log; `None` before its first line.
    pub async fn log_state(&self, registry: i64, id: &RunId) -> Result<Option<LogState>> {
        let run_id = id.clone();
        // The status first: a final one means that nothing is added after the length is read.
        let row = self.meta.read(move |tx| run::get(tx, registry, &run_id).map_err(Error::from)).await?;
        let Some(row) = row else { return Ok(None) };
        let complete = status(&row)?.log_complete();
        let len = self.blobs.object_len(&log_key(registry, id)).await?;
        Ok(len.map(|len| LogState { len, complete }))
    }

    /// The same, but wait up to `wait` until the log is longer than `beyond` bytes or
    /// complete.
    pub async fn log_wait(&self, registry: i64, id: &RunId, beyond: u64, wait: Duration) -> Result<Option<LogState>> {
        let deadline = Instant::now() + wait;
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let mut grown = self.live(registry, id).map(|live| live.log.watch());
            if let Some(grown) = &mut grown {
                grown.borrow_and_update();
            }
            let state = self.log_state(registry, id).await?;
            let enough = state.is_some_and(|s| s.complete.is_some() || s.len > beyond);
            if enough || Instant::now() >= deadline {
                return Ok(state);
            }
            // A worker in another process tells nobody here: look again after a second.
            let again = deadline.min(Instant::now() + Duration::from_secs(1));
            tokio::select! {
                _ = changes.changed() => {}
                () = more(grown) => {}
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }

    /// Bytes of a run's log.
    pub async fn log_read(&self, registry: i64, id: &RunId, range: Range<u64>) -> Result<ByteStream> {
        Ok(self.blobs.object_read(&log_key(registry, id), range).await?)
    }

    /// What another process on the same database told; `None` when something may have been
    /// missed. It only makes things happen sooner: workers look into the queue every few
    /// seconds, and into their run's row whenever they renew its lease.
    pub fn heard(&self, text: Option<&str>) {
        match text {
            None => {
                self.work.notify_one();
                self.changed();
            }
            Some(QUEUED) => self.work.notify_one(),
            Some(CHANGED) => self.changed(),
            Some(text) => {
                let run = text.strip_prefix(CANCEL).and_then(|run| run.split_once('/'));
                let Some((registry, id)) = run else { return };
                if let (Ok(registry), Ok(id)) = (registry.parse(), id.parse())
                    && let Some(live) = self.live(registry, &id)
                {
                    live.cancel.raise(StopReason::Canceled);
                }
            }
        }
    }

    pub(crate) fn live(&self, registry: i64, id: &RunId) -> Option<Live> {
        self.live.lock().get(&(registry, id.clone())).cloned()
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The log of a run, to go on with.
    pub(crate) async fn log(&self, registry: i64, id: &RunId, masked: &[Secret<String>]) -> Result<RunLog> {
        let key = log_key(registry, id);
        let len = self.blobs.object_len(&key).await?.unwrap_or(0);
        Ok(RunLog::new(self.blobs.clone(), key, len, self.config.log_bytes_max, masked))
    }

    /// End a run: its last words, then its row. With `owner`, only if that worker has it.
    /// False when it had ended already. While the store fails (a full disk), it is tried
    /// again until `patience` is over: the outcome is known here and nowhere else.
    pub(crate) async fn end(&self, row: RunRow, owner: Option<&str>, end: End, patience: Duration) -> Result<bool> {
        let spec: Option<SealedSpec> = serde_json::from_str(&row.spec).ok();
        let log = match self.live(row.registry, &row.id) {
            Some(live) => live.log,
            None => {
                let masked = spec.as_ref().map(|s| s.secrets(row.registry, &row.id, &*self.seal));
                self.log(row.registry, &row.id, &masked.unwrap_or_default()).await?
            }
        };
        // A step may have put a secret into its error.
        let end = End { error: end.error.map(|e| shortened(log.masked(&e))), ..end };
        let words = last_words(&row, end.status, end.error.as_deref(), end.now);
        let spec = spec.and_then(|s| serde_json::to_string(&s.without_secrets()).ok()).unwrap_or_default();
        let deadline = Instant::now() + patience;
        let mut wait = Duration::from_millis(END_RETRY_MILLIS);
        let (mut said, mut kept) = (false, false);
        loop {
            let last = Instant::now() + wait > deadline;
            said = said || say(&log, &words).await;
            // A row that says "over" promises a whole log, to whichever server is asked for
            // it, as long as there is hope for one.
            kept = kept || (said && self.blobs.object_sync(&log_key(row.registry, &row.id)).await.is_ok());
            if kept || last {
                match self.finish(&row, owner, &end, &spec).await {
                    Err(error) if !last => tracing::warn!(%error, run = %row.id, "end a run; it is tried again"),
                    ended => {
                        self.changed();
                        return ended;
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(END_RETRY_MILLIS_MAX));
        }
    }

    /// Write the end of a run into its row; false when it had ended already or is not
    /// `owner`'s any more.
    async fn finish(&self, row: &RunRow, owner: Option<&str>, end: &End, spec: &str) -> Result<bool> {
        let (row, end, spec) = (row.clone(), end.clone(), spec.to_owned());
        let owner = owner.map(str::to_owned);
        let keep = end.now.plus(Duration::from_secs(self.config.keep_secs));
        self.meta
            .write(move |tx| {
                let now = end.now;
                let images: Vec<RunImage> =
                    end.images.into_iter().map(|i| RunImage { repo: i.repo, tag: i.tag, digest: i.digest }).collect();
                let status = end.status.as_str();
                let end = Ending { status, error: end.error.as_deref(), spec: &spec, images: &images, now };
                let ended = run::finish(tx, row.registry, row.seq, owner.as_deref(), &end)?;
                if ended {
                    turn::remove(tx, row.registry, row.seq)?;
                    tx.notify(CHANGED)?;
                    let expires = (!row.archived).then_some(keep);
                    announce_log(tx, row.registry, &row.id, now)?;
                    object::set_expires(tx, &log_key(row.registry, &row.id), expires)?;
                    if let Some(context) = &row.context
                        && !run::needs_context(tx, context)?
                    {
                        object::set_expires(tx, context, Some(now))?;
                    }
                }
                Ok::<_, Error>(ended)
            })
            .await
    }
}

/// Write the last words of a run; whether they are in the log.
async fn say(log: &RunLog, words: &str) -> bool {
    let (log, words) = (log.clone(), words.to_owned());
    tokio::task::spawn_blocking(move || log.end(&words)).await.unwrap_or_else(|cause| {
        tracing::error!(%cause, "write the last words of a run");
        false
    })
}

/// Make the row that remembers a run's log.
pub(crate) fn announce_log(tx: &mut dyn Tx, registry: i64, id: &RunId, now: Timestamp) -> Result<()> {
    let key = log_key(registry, id);
    let log = object::Object { key, kind: object::LOG.into(), registry, size: None, expires: None };
    Ok(object::insert(tx, &log, now)?)
}

/// Values that must not be seen.
pub(crate) fn secrets(spec: &BuildSpec) -> Vec<Secret<String>> {
    let args = spec.args.iter().filter(|arg| arg.secret).map(|arg| arg.value.clone());
    args.chain(spec.options.secrets()).collect()
}

/// An error as it is kept and listed. It may quote a whole command, or a Dockerfile's line
/// of a megabyte, and a list holds a thousand runs.
fn shortened(mut error: String) -> String {
    if error.len() > ERROR_BYTES_MAX {
        error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
        error.push('…');
    }
    error
}

fn last_words(row: &RunRow, status: RunStatus, error: Option<&str>, now: Timestamp) -> String {
    let secs = now.since(row.started.unwrap_or(now)).as_millis().div_ceil(1000);
    let id = &row.id;
    let mut words = match status {
        RunStatus::Succeeded => format!("Run ID: {id} was successful after {secs}s"),
        RunStatus::Canceled => format!("Run ID: {id} was canceled after {secs}s"),
        RunStatus::Timeout => format!("Run ID: {id} timed out after {secs}s"),
        _ => format!("Run ID: {id} failed after {secs}s"),
    };
    if let Some(error) = error {
        words.push_str(". Error: ");
        words.push_str(error);
    }
    words
}

async fn more(grown: Option<tokio::sync::watch::Receiver<u64>>) {
    if let Some(mut grown) = grown
        && grown.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

pub(crate) fn no_run(id: &RunId) -> Error {
    Error::NotFound(format!("there is no run {id}"))
}

fn check(new: &NewRun) -> Result<()> {
    let max = limits::RUN_SECS_MAX;
    if new.timeout_secs.is_some_and(|secs| secs == 0 || secs > max) {
        return Err(Error::invalid(format!("timeout must be between 1 and {max} seconds")));
    }
    if new.build.dockerfile.is_empty() || new.build.dockerfile.contains('\0') {
        return Err(Error::invalid("dockerFilePath must name a file in the build context"));
    }
    if new.build.args.len() > 1000 {
        return Err(Error::invalid("more than 1000 build arguments"));
    }
    for arg in &new.build.args {
        if arg.name.is_empty() || arg.name.contains(['=', '\0', '\n']) {
            return Err(Error::invalid(format!("`{}` is not a name for a build argument", arg.name.escape_debug())));
        }
    }
    if new.asker.len() > 256 || new.asker.contains('\0') {
        return Err(Error::invalid("who orders the run is not a name"));
    }
    if new.image_names.iter().any(|name| name.len() > 1024) {
        return Err(Error::invalid("an image name is longer than 1024 characters"));
    }
    Ok(())
}

fn row(tx: &mut dyn Tx, new: NewRun, context: Option<String>, seal: &dyn Seal, now: Timestamp) -> Result<RunRow> {
    let seq = run::next_seq(tx, new.registry.id)?;
    let id = RunId::nth(seq);
    let vars = RunVars { id: &id, registry: &new.registry, platform: &new.platform, created: now };
    let images = template::image_names(&new.image_names, &vars).map_err(Error::invalid)?;
    let spec = BuildSpec { images, context: context.clone().unwrap_or_default(), ..new.build };
    let sealed = SealedSpec::seal(spec, new.registry.id, &id, seal).map_err(|source| {
        Error::Store(portolan_store::Error::Io { what: "seal the build arguments of a run".into(), source })
    })?;
    let spec = serde_json::to_string(&sealed)
        .map_err(|e| Error::Store(portolan_store::Error::Corrupt(format!("a build order: {e}"))))?;
    Ok(RunRow {
        registry: new.registry.id,
        seq,
        id,
        status: RunStatus::Queued.as_str().into(),
        kind: new.kind.as_str().into(),
        created: now,
        started: None,
        finished: None,
        updated: now,
        platform: new.platform,
        cpu: new.cpu,
        timeout_secs: new.timeout_secs.unwrap_or(limits::RUN_SECS_DEFAULT),
        archived: new.archived,
        task: None,
        spec,
        context,
        error: None,
        cancel: false,
        lease_owner: None,
    })
}

pub(crate) fn status(row: &RunRow) -> Result<RunStatus> {
    row.status.parse().map_err(|()| damaged(row, "status"))
}

fn damaged(row: &RunRow, what: &str) -> Error {
    Error::Store(portolan_store::Error::Corrupt(format!("run {} has no {what}", row.id)))
}

fn with_images(tx: &mut dyn Tx, row: RunRow) -> Result<Run> {
    let images = run::images(tx, row.registry, row.seq)?;
    from_row(row, images)
}

fn from_row(row: RunRow, images: Vec<RunImage>) -> Result<Run> {
    Ok(Run {
        status: status(&row)?,
        kind: row.kind.parse().map_err(|()| damaged(&row, "kind"))?,
        registry: row.registry,
        id: row.id,
        created: row.created,
        started: row.started,
        finished: row.finished,
        updated: row.updated,
        platform: row.platform,
        cpu: row.cpu,
        timeout_secs: row.timeout_secs,
        archived: row.archived,
        task: row.task,
        error: row.error,
        images: images.into_iter().map(|i| OutputImage { repo: i.repo, tag: i.tag, digest: i.digest }).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_are_cut_between_characters() {
        assert_eq!(shortened("short".into()), "short");
        let cut = shortened("é".repeat(ERROR_BYTES_MAX));
        assert!(cut.ends_with("é…") && cut.len() <= ERROR_BYTES_MAX + '…'.len_utf8(), "{}", cut.len());
        let odd = shortened(format!("x{}", "é".repeat(ERROR_BYTES_MAX)));
        assert!(odd.ends_with("é…") && odd.len() <= ERROR_BYTES_MAX + '…'.len_utf8());
    }
}
