//! The writing side: one thread, one connection, many closures in one transaction.
//!
//! Each transaction begins by taking the lock of the schema, which every server's
//! transactions take and which ends with the transaction. So the write transactions of all
//! servers are serial, as SQLite's are, and each statement behind the lock sees all that was
//! committed before (READ COMMITTED: a snapshot for each statement). Closures that queue
//! while the lock is waited for go into the same transaction.
//!
//! Each closure runs in a savepoint, `job`. A closure that fails is undone by rolling back
//! to it. A closure may also catch the error of a statement and go on, as on SQLite;
//! PostgreSQL does nothing more in such a transaction until it is rolled back. So what a
//! closure has done is written down, and done again after a rollback to its savepoint when
//! it goes on: nobody else can have changed anything in between. (A savepoint for each
//! statement would do as well, and burn a transaction id for each.)
//!
//! When the connection breaks while `COMMIT` is under way, nobody knows whether it
//! happened. The transaction's id does: over a new connection the lock is taken, which the
//! old transaction held while it lasted, and then PostgreSQL is asked what became of it.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use futures_util::future;
use portolan_types::Timestamp;

use super::super::job::Job;
use super::super::queue::{GROUP_JOBS_MAX, GROUP_MILLIS_MAX, Message, again};
use super::super::schema::{self, Migration};
use super::super::tx::storable;
use super::super::{NOTICE_BYTES_MAX, Row, Tx, Value};
use super::error::Failure;
use super::link::Link;
use super::session::{Session, bounded, simple, statement_failure, text_column};
use super::sql;
use crate::stats::MetaStats;
use crate::{Error, Result};

/// The first half of the lock's key, "PORT"; the second is the schema's.
const LOCK_CLASS: i32 = 0x504f_5254;
/// How long to look for the outcome of a commit that was not answered.
const OUTCOME_SECS_MAX: u64 = 45;
/// What a migration may wait and take.
const MIGRATION_SECS_MAX: u64 = 24 * 60 * 60;

/// What has to be said before the next statement of a transaction.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    /// Begin, take the lock, ask for the transaction's id, set the first savepoint.
    Begin,
    /// The closure before was kept: its savepoint ends and the next begins.
    Next,
    /// The closure before was undone: its savepoint serves the next.
    Undo,
    Nothing,
}

impl Before {
    fn sql(self, session: &Session) -> String {
        match self {
            Before::Begin => format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
                 SELECT pg_advisory_xact_lock({LOCK_CLASS}, {}); \
                 SELECT pg_current_xact_id() AS transaction; SAVEPOINT job",
                session.lock
            ),
            Before::Next => "RELEASE SAVEPOINT job; SAVEPOINT job".to_owned(),
            Before::Undo => "ROLLBACK TO SAVEPOINT job".to_owned(),
            Before::Nothing => String::new(),
        }
    }
}

/// A statement that a closure ran, kept in case it has to be run again.
struct Done {
    sql: String,
    params: Vec<Value<'static>>,
}

/// What the closure that is running has done.
#[derive(Default)]
struct Current {
    /// A statement of it reached the server.
    sent: bool,
    /// Its last statement failed, and with it the transaction back to its savepoint.
    spoilt: bool,
    done: Vec<Done>,
    notices: Vec<String>,
}

/// One transaction, begun by its first statement.
struct WriteTx<'l> {
    link: &'l mut Link,
    channel: &'l Channel,
    before: Before,
    /// The connection or the transaction is gone; nothing more is done.
    lost: Option<Error>,
    current: Current,
    /// Some closure's changes are to be kept.
    keep: bool,
    notices: Vec<String>,
}

/// Under which name this process tells others of its changes.
pub(super) struct Channel {
    /// The channel is the schema's.
    pub(super) process: String,
}

impl Channel {
    pub(super) fn name(lock: i32) -> String {
        format!("portolan_{lock:08x}")
    }
}

impl WriteTx<'_> {
    fn statement(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<u64> {
        storable(params)?;
        if let Some(lost) = &self.lost {
            return Err(again(lost));
        }
        if self.current.spoilt {
            self.do_again()?;
        }
        // A connection may have died since it was last used; before anything was done over
        // it, another does as well.
        let mut may_retry = self.before == Before::Begin;
        loop {
            let mut rows = false;
            let mut each = |row: &dyn Row| {
                rows = true;
                each(row)
            };
            let open = match self.before {
                Before::Begin => self.link.session(),
                _ => self.link.same_session(),
            };
            let (runtime, session) = match open {
                Ok(open) => open,
                Err(e) => return Err(self.lose(e)),
            };
            let before = self.before.sql(session);
            let ran = runtime.block_on(session.run(&before, sql, params, &mut each));
            match ran {
                Err(Failure::Lost(_)) if may_retry && !rows => {
                    may_retry = false;
                    self.link.lose();
                    continue;
                }
                Err(Failure::Lost(e) | Failure::Aborted(e)) => return Err(self.lose(e)),
                Err(Failure::Statement(e)) => {
                    (self.before, self.current.sent, self.current.spoilt) = (Before::Nothing, true, true);
                    return Err(e);
                }
                Ok(_) | Err(Failure::Row(_)) => {}
            }
            (self.before, self.current.sent) = (Before::Nothing, true);
            if sql::writes(sql) {
                let params = params.iter().map(owned).collect();
                self.current.done.push(Done { sql: sql.to_owned(), params });
            }
            return ran.map_err(Failure::into_error);
        }
    }

    /// Make up for a statement that failed: back to the savepoint, and again what the
    /// closure had done since.
    fn do_again(&mut self) -> Result<()> {
        let Ok((runtime, session)) = self.link.same_session() else { return Err(self.lose(Error::Busy)) };
        let done = &self.current.done;
        let work = async {
            session.simple("ROLLBACK TO SAVEPOINT job").await?;
            for Done { sql, params } in done {
                session.run("", sql, params, &mut |_| Ok(())).await?;
            }
            Ok(())
        };
        match runtime.block_on(work) {
            Ok(()) => {
                self.current.spoilt = false;
                Ok(())
            }
            Err::<_, Failure>(failure) => Err(self.lose(failure.into_error())),
        }
    }

    /// The transaction is over, without its changes.
    fn lose(&mut self, e: Error) -> Error {
        self.link.lose();
        self.lost = Some(again(&e));
        e
    }

    /// Run a closure in its savepoint.
    fn run(&mut self, job: &mut dyn Job) {
        let keep = job.run(self);
        self.end_closure(keep);
    }

    fn end_closure(&mut self, keep: bool) {
        if keep && self.current.spoilt && self.lost.is_none() {
            // The failure is noted in `lost`.
            let _ = self.do_again();
        }
        let mut current = std::mem::take(&mut self.current);
        if self.lost.is_some() {
            return;
        }
        if keep {
            self.keep = true;
            self.notices.append(&mut current.notices);
        }
        if current.sent {
            self.before = if keep { Before::Next } else { Before::Undo };
        }
    }

    fn is_begun(&self) -> bool {
        self.before != Before::Begin
    }

    /// End the transaction. `Ok` when the changes of all closures that are to be kept are
    /// on disk.
    fn commit(mut self) -> Result<()> {
        if let Some(lost) = self.lost {
            return Err(lost);
        }
        if self.notices.is_empty() && !self.is_begun() {
            return Ok(());
        }
        if !self.keep {
            // When it cannot be said, the connection is gone, which does it too.
            if let Ok((runtime, session)) = self.link.same_session() {
                session.transaction = None;
                if runtime.block_on(session.simple("ROLLBACK")).is_err() {
                    self.link.lose();
                }
            }
            return Ok(());
        }
        let open = if self.is_begun() { self.link.same_session() } else { self.link.session() };
        let (runtime, session) = open?;
        let (transaction, timeline) = (session.transaction.take(), session.timeline.clone());
        match runtime.block_on(end(session, self.before, self.channel, std::mem::take(&mut self.notices))) {
            Ok(()) => Ok(()),
            Err(Failure::Lost(_)) => {
                self.link.lose();
                outcome(self.link, transaction, timeline)
            }
            Err(failure) => {
                // Rolled back, or spoilt and rolled back with the connection.
                self.link.lose();
                Err(failure.into_error())
            }
        }
    }
}

/// Send the notices and `COMMIT`. The savepoint's release in front fails in a transaction
/// that is spoilt, where a bare `COMMIT` would roll back and not say so.
async fn end(session: &mut Session, before: Before, channel: &Channel, notices: Vec<String>) -> Result<(), Failure> {
    let first = match before {
        // Notices alone: nothing was begun.
        Before::Begin | Before::Undo => before.sql(session),
        Before::Next | Before::Nothing => String::new(),
    };
    let commit = "RELEASE SAVEPOINT job; COMMIT";
    let client = &session.client;
    if notices.is_empty() {
        let all = if first.is_empty() { commit.to_owned() } else { format!("{first}; {commit}") };
        return bounded(simple(client, &all)).await.map(drop);
    }
    let notices = notices.iter().map(|text| format!("{} {text}", channel.process)).collect::<Vec<_>>();
    let name = Channel::name(session.lock);
    let work = async {
        let tell = client.prepare("SELECT pg_notify($1, said) FROM unnest($2::text[]) AS said");
        let tell = tell.await.map_err(statement_failure)?;
        let (begun, told, committed) = future::join3(
            simple(client, &first),
            async { client.execute(&tell, &[&name, &notices]).await.map_err(statement_failure) },
            simple(client, commit),
        )
        .await;
        begun?;
        told?;
        committed.map(drop)
    };
    bounded(work).await
}

/// What became of a transaction whose `COMMIT` was not answered.
fn outcome(link: &mut Link, transaction: Option<String>, timeline: Option<String>) -> Result<()> {
    let unknown = || {
        Error::Database(
            "the connection to the database was lost while a change was committed, and it cannot be found out \
             whether it was"
                .to_owned(),
        )
    };
    let Some(transaction) = transaction.filter(|id| id.bytes().all(|b| b.is_ascii_digit())) else {
        return Err(unknown());
    };
    let until = Instant::now() + Duration::from_secs(OUTCOME_SECS_MAX);
    while Instant::now() < until {
        let Ok((runtime, session)) = link.session() else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        // After a standby took over, the same number may be another's.
        if timeline.is_none() || session.timeline != timeline {
            break;
        }
        let ask =
            format!("{}; SELECT pg_xact_status('{transaction}'::xid8) AS status; ROLLBACK", Before::Begin.sql(session));
        let said = runtime.block_on(session.simple(&ask));
        match said.map(|said| text_column(&said, "status")) {
            Ok(Some(status)) if status == "committed" => {
                tracing::warn!(transaction, "a commit that was not answered had happened");
                return Ok(());
            }
            Ok(Some(status)) if status == "aborted" => return Err(Error::Busy),
            _ => link.lose(),
        }
    }
    tracing::error!(transaction, "the outcome of a commit is not known");
    Err(unknown())
}

fn owned(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Int(n) => Value::Int(*n),
        Value::Text(text) => Value::Text(text.clone().into_owned().into()),
        Value::Blob(bytes) => Value::Blob(bytes.clone().into_owned().into()),
    }
}

impl Tx for WriteTx<'_> {
    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        self.statement(sql, params, &mut |_| Ok(()))
    }

    fn query(&mut self, sql: &str, params: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()> {
        self.statement(sql, params, each).map(drop)
    }

    fn notify(&mut self, text: &str) -> Result<()> {
        if text.len() > NOTICE_BYTES_MAX || text.contains('\0') {
            return Err(Error::Unstorable("a notice that is too long or has a NUL in it".to_owned()));
        }
        self.current.notices.push(text.to_owned());
        Ok(())
    }
}

/// Take closures and run them, until the store closes.
pub(super) fn write_loop(link: &mut Link, channel: &Channel, jobs: &Receiver<Message>, stats: &MetaStats) {
    let mut open = true;
    while open {
        let Ok(Message::Job(first, permit)) = jobs.recv() else { break };
        let mut next = Some((first, permit));
        let mut group: Vec<Box<dyn Job>> = Vec::new();
        let mut until = None;
        let mut tx = begin(link, channel);
        while let Some((mut job, permit)) = next.take() {
            tx.run(job.as_mut());
            drop(permit);
            group.push(job);
            // Counted from here, since the first closure waited for the lock.
            let until = *until.get_or_insert_with(|| Instant::now() + Duration::from_millis(GROUP_MILLIS_MAX));
            if tx.lost.is_some() || group.len() == GROUP_JOBS_MAX || Instant::now() >= until {
                break;
            }
            match jobs.try_recv() {
                Ok(Message::Job(job, permit)) => next = Some((job, permit)),
                Ok(Message::Close) => open = false,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
        }
        let lost = tx.commit().err();
        stats.group(group.len());
        if let Some(e) = &lost {
            tracing::error!(error = %e, jobs = group.len(), "a transaction was lost");
        }
        for job in group {
            job.answer(lost.as_ref().map(again));
        }
    }
}

fn begin<'l>(link: &'l mut Link, channel: &'l Channel) -> WriteTx<'l> {
    WriteTx {
        link,
        channel,
        before: Before::Begin,
        lost: None,
        current: Current::default(),
        keep: false,
        notices: Vec::new(),
    }
}

/// Bring the schema up to this version, one step in each transaction. Other servers that do
/// the same at the same moment wait for the lock and find it done.
pub(super) fn migrate(link: &mut Link, channel: &Channel, known: &'static [Migration]) -> Result<()> {
    loop {
        let (runtime, session) = link.session()?;
        let patient = format!("SET lock_timeout = '{MIGRATION_SECS_MAX}s'; SET statement_timeout = 0");
        runtime.block_on(session.simple(&patient)).map_err(Failure::into_error)?;
        let mut tx = begin(link, channel);
        let step = step(&mut tx, known);
        tx.end_closure(step.is_ok());
        let ended = tx.commit();
        let step = step?;
        ended?;
        match step {
            Some(step) => tracing::info!(step = step.number, name = step.name, "schema brought up to date"),
            None => break,
        }
    }
    // The connection goes on with the limits of every other.
    link.lose();
    Ok(())
}

/// Run the first step that is missing.
fn step(tx: &mut WriteTx<'_>, known: &'static [Migration]) -> Result<Option<Migration>> {
    schema::prepare(tx)?;
    let Some(step) = schema::pending(tx, known)?.first().copied() else { return Ok(None) };
    schema::apply(tx, &step, Timestamp::now())?;
    Ok(Some(step))
}
