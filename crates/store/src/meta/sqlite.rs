//! The embedded engine: one writer thread with group commit, a few reader threads.
//!
//! The writer takes what is queued (up to [`GROUP_JOBS_MAX`] closures), runs each in a
//! savepoint of one transaction, commits once and only then answers. SQLite in WAL mode
//! with `synchronous=FULL` makes that commit one fsync, so a hundred requests that arrive
//! together cost as much disk time as one. Readers have connections of their own that
//! cannot write and never wait for the writer.
//!
//! A file `<database>.lock` beside the database is held by `flock` while it is open: two
//! servers on one store would each trust their own caches.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use parking_lot::Mutex;
use portolan_types::Timestamp;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::job::Job;
use super::queue::{GROUP_JOBS_MAX, GROUP_MILLIS_MAX, Message, Queue, Threads, again, spawn};
use super::schema::{self, Migration};
use super::tx::storable;
use super::{Row, Tx, Value};
use crate::stats::MetaStats;
use crate::{Error, Result};

/// Prepared statements kept per connection.
const STATEMENTS_MAX: usize = 256;
/// Reader threads.
const READERS_MAX: usize = 4;
/// Under this much free space, an IO error of SQLite's is taken for a full disk: it does
/// not tell the two apart when growing its shared-memory file or syncing.
const FREE_BYTES_MIN: u64 = 1024 * 1024;

/// Open the database and start its threads.
pub(super) fn open(path: &Path, migrations: &'static [Migration], stats: &Arc<MetaStats>) -> Result<Threads> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = crate::lock::hold(Path::new(&lock), path)?;
    let space = Space(path.parent().map(Path::to_path_buf).unwrap_or_default());
    let mut connection = connect(path, Role::Writer).map_err(|e| space.name(e))?;
    migrate(&mut connection, migrations, &space)?;

    let (writer, jobs) = Queue::new();
    let (readers, questions) = Queue::new();
    let readers_len = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, READERS_MAX);
    let mut handles = Vec::with_capacity(1 + readers_len);
    for n in 0..readers_len {
        let connection = connect(path, Role::Reader).map_err(|e| space.name(e))?;
        let (questions, space) = (questions.clone(), space.clone());
        handles.push(spawn(format!("meta-read-{n}"), move || read_loop(&connection, &questions, &space))?);
    }
    let stats = Arc::clone(stats);
    handles.push(spawn("meta-write".into(), move || {
        write_loop(&connection, &jobs, &space, &stats);
        drop(connection);
        drop(lock);
    })?);
    Ok(Threads { writer, readers, readers_len, handles: Mutex::new(handles) })
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Writer,
    Reader,
}

fn connect(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Role::Writer {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -16384;
         PRAGMA mmap_size = 268435456;
         PRAGMA wal_autocheckpoint = 2000;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    if role == Role::Reader {
        connection.execute_batch("PRAGMA query_only = ON;")?;
    }
    Ok(connection)
}

fn migrate(connection: &mut Connection, known: &'static [Migration], space: &Space) -> Result<()> {
    let mut tx = SqliteTx { connection, space };
    schema::prepare(&mut tx)?;
    for migration in schema::pending(&mut tx, known)? {
        begin(connection).map_err(|e| space.name(e))?;
        let done = schema::apply(&mut SqliteTx { connection, space }, &migration, Timestamp::now());
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = connection.execute_batch(end).map_err(|e| space.name(e));
        done.and(ended)?;
        tracing::info!(step = migration.number, name = migration.name, "schema brought up to date");
    }
    Ok(())
}

fn begin(connection: &Connection) -> rusqlite::Result<()> {
    run(connection, "BEGIN IMMEDIATE")
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn read_loop(connection: &Connection, questions: &Receiver<Message>, space: &Space) {
    while let Ok(Message::Job(mut job, permit)) = questions.recv() {
        // One transaction, so that all queries of a closure see one state of the database.
        let failure = match run(connection, "BEGIN") {
            Ok(()) => {
                job.run(&mut SqliteTx { connection, space });
                // Nothing was changed, so how it ends does not matter; that it ended does.
                run(connection, "ROLLBACK").err()
            }
            Err(e) => Some(e),
        };
        drop(permit);
        job.answer(failure.map(|e| space.name(e)));
    }
}

fn write_loop(connection: &Connection, jobs: &Receiver<Message>, space: &Space, stats: &MetaStats) {
    let mut open = true;
    while open {
        let Ok(Message::Job(first, permit)) = jobs.recv() else { break };
        let mut next = Some((first, permit));
        let mut group: Vec<(Box<dyn Job>, Option<Error>)> = Vec::new();
        let until = Instant::now() + Duration::from_millis(GROUP_MILLIS_MAX);
        let mut lost = begin(connection).err().map(|e| space.name(e));
        while let Some((mut job, permit)) = next.take() {
            let failure = match &lost {
                Some(lost) => Some(again(lost)),
                None => match savepoint(connection, job.as_mut(), space) {
                    Ok(()) => None,
                    // SQLite undid the whole transaction (a full disk does that): what the
                    // others of this group did is gone too.
                    Err(e) => {
                        lost = Some(again(&e));
                        Some(e)
                    }
                },
            };
            drop(permit);
            group.push((job, failure));
            if lost.is_some() || group.len() == GROUP_JOBS_MAX || Instant::now() >= until {
                break;
            }
            match jobs.try_recv() {
                Ok(Message::Job(job, permit)) => next = Some((job, permit)),
                Ok(Message::Close) => open = false,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
        }
        if lost.is_none() {
            lost = run(connection, "COMMIT").err().map(|e| space.name(e));
        }
        if let Some(e) = &lost {
            tracing::error!(error = %e, jobs = group.len(), "a transaction was lost");
            if !connection.is_autocommit()
                && let Err(e) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(error = %e, "a transaction could not be undone");
            }
        }
        stats.group(group.len());
        for (job, failure) in group {
            job.answer(failure.or_else(|| lost.as_ref().map(again)));
        }
    }
    if let Err(e) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);") {
        tracing::warn!(error = %e, "the write-ahead log was left for the next start");
    }
}

/// Run a job in a savepoint. `Err` when the whole transaction is lost.
fn savepoint(connection: &Connection, job: &mut dyn Job, space: &Space) -> Result<()> {
    let name = |e| space.name(e);
    run(connection, "SAVEPOINT job").map_err(name)?;
    let keep = job.run(&mut SqliteTx { connection, space });
    if connection.is_autocommit() {
        return Err(if space.is_full() {
            Error::Full
        } else {
            Error::Database("the transaction was undone by the database".into())
        });
    }
    if !keep {
        run(connection, "ROLLBACK TO job").map_err(name)?;
    }
    run(connection, "RELEASE job").map_err(name)
}

/// Where the database is, to ask for free space when SQLite reports an error of input or
/// output.
#[derive(Clone)]
struct Space(PathBuf);

impl Space {
    fn is_full(&self) -> bool {
        let folder = if self.0.as_os_str().is_empty() { Path::new(".") } else { &self.0 };
        rustix::fs::statvfs(folder).is_ok_and(|s| s.f_bavail.saturating_mul(s.f_frsize) < FREE_BYTES_MIN)
    }

    /// Our name for SQLite's error.
    fn name(&self, e: rusqlite::Error) -> Error {
        let rusqlite::Error::SqliteFailure(code, message) = &e else {
            return Error::Database(e.to_string());
        };
        let text = || message.clone().unwrap_or_else(|| code.to_string());
        match code.code {
            ErrorCode::DiskFull => Error::Full,
            ErrorCode::SystemIoFailure if self.is_full() => Error::Full,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Error::Busy,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Error::Corrupt(text()),
            ErrorCode::ConstraintViolation
                if [
                    ffi::SQLITE_CONSTRAINT_UNIQUE,
                    ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
                    ffi::SQLITE_CONSTRAINT_ROWID,
                    ffi::SQLITE_CONSTRAINT_FOREIGNKEY,
                ]
                .contains(&code.extended_code) =>
            {
                Error::Conflict(text())
            }
            _ => Error::Database(text()),
        }
    }
}

struct SqliteTx<'c> {
    connection: &'c Connection,
    space: &'c Space,
}

impl Tx for SqliteTx<'_> {
    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        storable(params)?;
        let run = || -> rusqlite::Result<usize> {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.execute(rusqlite::params_from_iter(params))
        };
        run().map(|n| n as u64).map_err(|e| self.space.name(e))
    }

    fn query(&mut self, sql: &str, params: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()> {
        storable(params)?;
        let name = |e| self.space.name(e);
        let mut statement = self.connection.prepare_cached(sql).map_err(name)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params)).map_err(name)?;
        while let Some(row) = rows.next().map_err(name)? {
            each(&SqliteRow(row))?;
        }
        Ok(())
    }

    fn notify(&mut self, _: &str) -> Result<()> {
        // One server has the file.
        Ok(())
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(n) => ValueRef::Integer(*n),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

struct SqliteRow<'a, 's>(&'a rusqlite::Row<'s>);

impl Row for SqliteRow<'_, '_> {
    fn get(&self, i: usize) -> Result<Value<'_>> {
        match self.0.get_ref(i).map_err(|e| Error::Database(e.to_string()))? {
            ValueRef::Null => Ok(Value::Null),
            ValueRef::Integer(n) => Ok(Value::Int(n)),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Value::Text(text.into())),
                Err(_) => Err(Error::Corrupt(format!("column {i} is not UTF-8"))),
            },
            ValueRef::Blob(bytes) => Ok(Value::Blob(bytes.into())),
            ValueRef::Real(_) => Err(Error::Corrupt(format!("column {i} is a fraction"))),
        }
    }
}
