//! Metadata: one schema, one set of plain queries, two engines.
//!
//! Every query is a plain synchronous function over [`Tx`]; it does not know which engine
//! runs it. [`Meta`] takes a closure of such calls and runs it where the engine wants it
//! run: writes go to one writer thread that puts many closures into one transaction (each
//! in its own savepoint) and answers them when it is on disk; reads go to a pool of read
//! connections. Write transactions are serial: on SQLite since there is one writer, on
//! PostgreSQL since each takes one lock that all servers share. So a closure that looked
//! before it wrote need not look again. Parameters are written `?1`, `?2`, …
//!
//! A closure may be dropped unrun when the store closes, and runs at most once.
//!
//! *SQL for both engines:* one text, in the words that both know. Columns are BIGINT, TEXT
//! and BLOB, and say so in capitals: PostgreSQL is given BYTEA, and TEXT that sorts by bytes.
//! A parameter that stands where its type cannot be seen (`SELECT DISTINCT ?1`) is written
//! `CAST(?1 AS BIGINT)`. TEXT cannot hold a NUL on PostgreSQL.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::Instrument;

use crate::stats::{MetaStats, Operation};
use crate::{Error, Result};

pub mod activity;
pub mod application;
pub mod blob;
pub mod cache_rule;
pub mod check;
pub mod credential;
pub mod event;
#[doc(hidden)]
pub mod faults;
pub mod federated;
pub mod gc;
pub mod group;
pub mod host;
mod job;
pub mod key;
pub mod lock;
pub mod managed_identity;
pub mod manifest;
pub mod object;
pub mod operation;
pub mod peer;
mod postgres;
pub mod principal;
pub mod pull;
mod queue;
pub mod registry;
pub mod registry_identity;
pub mod repo;
pub mod repo_token;
pub mod role;
pub mod run;
pub mod schema;
pub mod scope_map;
pub mod security_plan;
pub mod setting;
pub mod sign_in;
mod sqlite;
pub mod step;
pub mod tag;
pub mod transfer;
pub mod turn;
pub mod tx;
pub mod upload;
pub mod usage;

pub use postgres::PostgresConfig;
pub use tx::{RowExt, all, digest_bytes, digest_from_bytes, next_id, one, sequence};

/// A value bound to a query or read from a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// BIGINT: numbers, booleans (0 and 1), times in microseconds.
    Int(i64),
    /// TEXT.
    Text(Cow<'a, str>),
    /// BLOB (BYTEA): digests in [`digest_bytes`] form, manifests byte for byte.
    Blob(Cow<'a, [u8]>),
}

/// A row of a result, columns counted from 0. Each getter fails with `Error::Corrupt`
/// when the column has another type. [`RowExt`] has the typed getters.
pub trait Row {
    /// Column `i` as it is.
    fn get(&self, i: usize) -> Result<Value<'_>>;
}

/// One transaction, as queries see it.
pub trait Tx {
    /// Run a statement; the number of rows it changed. A unique violation is `Error::Conflict`.
    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64>;
    /// Run a query and hand each row to `each`.
    fn query(&mut self, sql: &str, params: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()>;
    /// Tell the other servers on this database something when, and only when, this
    /// transaction commits: at most [`NOTICE_BYTES_MAX`] bytes, without a NUL. Does nothing
    /// where there can be no other server. They hear it through [`Meta::notice`].
    fn notify(&mut self, text: &str) -> Result<()>;
}

/// Bytes of one notice: what PostgreSQL's NOTIFY takes, less what says who sent it.
pub const NOTICE_BYTES_MAX: usize = 7_900;

/// What another server on the same database did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It committed a transaction that said this.
    Told(String),
    /// Notices may have been lost (the connection was): anything may have changed.
    Missed,
}

/// The database. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Meta {
    engine: Arc<Engine>,
    /// What is to fail, in tests.
    faults: Option<Arc<faults::Faults>>,
}

struct Engine {
    name: &'static str,
    threads: queue::Threads,
    /// What there is between servers on one database.
    shared: Option<postgres::Shared>,
    stats: Arc<MetaStats>,
}

/// One closure's figures: counted in when made, out when dropped.
struct Counted {
    stats: Arc<MetaStats>,
    began: Instant,
}

impl Counted {
    fn begin(engine: &Engine) -> Counted {
        let stats = Arc::clone(&engine.stats);
        stats.in_flight.fetch_add(1, Ordering::Relaxed);
        Counted { stats, began: Instant::now() }
    }

    /// The engine answered, or could not.
    fn end<T>(self, operation: fn(&MetaStats) -> &Operation, answered: bool, result: T) -> T {
        let figures = operation(&self.stats);
        figures.times.record(self.began.elapsed());
        if !answered {
            figures.errors_total.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stats.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Meta {
    /// Open the SQLite database at `path`, make it if it is not there, and bring its
    /// schema up to this version. Blocks; call it while starting.
    ///
    /// Fails when another process has it open (after a short wait, for a server that is just
    /// being restarted) and when a newer version wrote it.
    pub fn open_sqlite(path: &Path) -> Result<Meta> {
        let stats = Arc::new(MetaStats::default());
        let threads = sqlite::open(path, schema::MIGRATIONS, &stats)?;
        Ok(Meta { engine: Arc::new(Engine { name: "sqlite", threads, shared: None, stats }), faults: None })
    }

    /// Connect to a PostgreSQL database that any number of servers share, and bring its
    /// schema up to this version. Blocks for at most `config.wait` and the time of the
    /// migrations; call it while starting.
    ///
    /// Fails when the database cannot be reached in time, refuses the user, is not in
    /// UTF-8, is too old, or was written by a newer version. The text of the error says
    /// which; it never holds the password.
    pub fn open_postgres(config: &PostgresConfig) -> Result<Meta> {
        let stats = Arc::new(MetaStats::default());
        let (threads, shared) = postgres::open(config, schema::MIGRATIONS, &stats)?;
        Ok(Meta { engine: Arc::new(Engine { name: "postgres", threads, shared: Some(shared), stats }), faults: None })
    }

    /// Whether other servers may be at work on this database: then what is kept in memory
    /// is out of date until [`Meta::notice`] says so.
    pub fn is_shared(&self) -> bool {
        self.engine.shared.is_some()
    }

    /// The next thing that another server did. One task asks, again and again. Waits for
    /// ever where there can be no other server.
    pub async fn notice(&self) -> Notice {
        match &self.engine.shared {
            Some(shared) => shared.notice().await,
            None => std::future::pending().await,
        }
    }

    /// The engine's name: `sqlite` or `postgres`.
    pub fn engine_name(&self) -> &'static str {
        self.engine.name
    }

    /// What it was given to do so far.
    pub fn stats(&self) -> &MetaStats {
        &self.engine.stats
    }

    /// Run queries on one consistent snapshot. Writing through `f`'s transaction fails.
    pub async fn read<T, E, F>(&self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let counted = Counted::begin(&self.engine);
        let (job, answer) = job::asynchronous(self.planned(f));
        let work = async {
            self.engine.threads.readers.send(job).await?;
            Ok(answer.await)
        };
        let span = tracing::trace_span!(target: "portolan::trace", "db.read", engine = self.engine.name);
        let answer: Result<_, Error> = if span.is_disabled() { work.await } else { work.instrument(span).await };
        let answered = matches!(answer, Ok(Ok(_)));
        counted.end(|stats| &stats.reads, answered, flat(answer))
    }

    /// Run queries in a transaction and answer when it is committed and on disk. An `Err`
    /// from `f` undoes what this closure did and nothing else.
    pub async fn write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let counted = Counted::begin(&self.engine);
        let (job, answer) = job::asynchronous(self.timed(self.planned(f), &counted));
        let work = async {
            self.engine.threads.writer.send(job).await?;
            Ok(answer.await)
        };
        let span = tracing::trace_span!(target: "portolan::trace", "db.write", engine = self.engine.name);
        let answer: Result<_, Error> = if span.is_disabled() { work.await } else { work.instrument(span).await };
        let answered = matches!(answer, Ok(Ok(_)));
        self.committed(counted.end(|stats| &stats.writes, answered, flat(answer)))
    }

    /// [`Meta::read`] for a thread that may block. Not for async code.
    pub fn read_blocking<T, E, F>(&self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let counted = Counted::begin(&self.engine);
        let (job, answer) = job::blocking(self.planned(f));
        let answer = self.engine.threads.readers.send_blocking(job).map(|()| answer.recv());
        let answered = matches!(answer, Ok(Ok(_)));
        counted.end(|stats| &stats.reads, answered, flat(answer))
    }

    /// [`Meta::write`] for a thread that may block. Not for async code.
    pub fn write_blocking<T, E, F>(&self, f: F) -> Result<T, E>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let counted = Counted::begin(&self.engine);
        let (job, answer) = job::blocking(self.timed(self.planned(f), &counted));
        let answer = self.engine.threads.writer.send_blocking(job).map(|()| answer.recv());
        let answered = matches!(answer, Ok(Ok(_)));
        self.committed(counted.end(|stats| &stats.writes, answered, flat(answer)))
    }

    /// `f`, noting how long it waited for its turn.
    fn timed<T, E, F>(&self, f: F, counted: &Counted) -> impl FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: 'static,
        E: 'static,
    {
        let (stats, queued) = (Arc::clone(&self.engine.stats), counted.began);
        move |tx: &mut dyn Tx| {
            stats.waits.record(queued.elapsed());
            f(tx)
        }
    }

    /// The same store, failing as the plan says. For tests.
    #[doc(hidden)]
    pub fn with_faults(&self, faults: &Arc<faults::Faults>) -> Meta {
        Meta { engine: Arc::clone(&self.engine), faults: Some(Arc::clone(faults)) }
    }

    /// `f` under the plan, if there is one.
    fn planned<T, E, F>(&self, f: F) -> impl FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static
    where
        F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
        T: 'static,
        E: From<Error> + 'static,
    {
        let faults = self.faults.clone();
        move |tx: &mut dyn Tx| {
            let Some(faults) = &faults else { return f(tx) };
            faults.pass(faults::Point::Begin)?;
            let value = f(&mut faults::Planned { tx, faults })?;
            faults.pass(faults::Point::Commit)?;
            Ok(value)
        }
    }

    /// What a caller is told of a transaction that was committed.
    fn committed<T, E: From<Error>>(&self, result: Result<T, E>) -> Result<T, E> {
        match (&self.faults, &result) {
            (Some(faults), Ok(_)) => faults.pass(faults::Point::AfterCommit).map_err(E::from).and(result),
            _ => result,
        }
    }

    /// Answer everything already queued, then close the database. Later calls, on any
    /// clone, fail with [`Error::Busy`].
    pub async fn close(&self) {
        let engine = Arc::clone(&self.engine);
        // A join error means that closing panicked, which was reported where it happened.
        let _ = tokio::task::spawn_blocking(move || {
            if let Some(shared) = &engine.shared {
                shared.close();
            }
            engine.threads.close();
        })
        .await;
    }
}

/// The answer of a closure whose engine may be closed, or closing.
fn flat<T, E: From<Error>, C>(answer: Result<Result<Result<T, E>, C>, Error>) -> Result<T, E> {
    match answer {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(E::from(Error::Busy)),
        Err(e) => Err(E::from(e)),
    }
}

impl std::fmt::Debug for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Meta({})", self.engine.name)
    }
}
