//! One connection: what it is set to, its prepared statements, and how a statement runs.
//!
//! A round trip to the server is what costs, so what must go before a statement (`BEGIN`
//! and the lock, the end of one savepoint and the start of the next) travels with it: both
//! are written to the socket together, and the server works through them in order. When the
//! first fails the transaction is spoilt, so that the second does nothing.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{TryStreamExt as _, future};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::super::{Row, Value};
use super::config::Server;
use super::error::{Failure, name, text};
use super::value::{Param, PgRow};
use super::{error, sql};
use crate::{Error, Result};

/// Prepared statements kept per connection.
const STATEMENTS_MAX: usize = 256;
/// What the server gives a statement before it is cancelled.
const STATEMENT_SECS_MAX: u64 = 60;
/// What a writer waits for the writers of other servers.
const LOCK_SECS_MAX: u64 = 20;
/// How long the server lets a transaction wait for our next statement: then we are taken
/// for dead, and the lock goes to the next.
const IDLE_SECS_MAX: u64 = 20;
/// How long we wait for an answer: longer than the server needs to cancel a statement.
const ANSWER_SECS_MAX: u64 = STATEMENT_SECS_MAX + 15;
/// The oldest server that knows `pg_current_xact_id` (13).
const VERSION_MIN: u32 = 130_000;

/// An open connection.
pub(super) struct Session {
    pub(super) client: Client,
    connection: JoinHandle<()>,
    statements: HashMap<String, Prepared>,
    /// Counts uses, to find the statement that was not used for the longest time.
    uses: u64,
    /// The schema's own lock: all servers on this schema and nobody else take it.
    pub(super) lock: i32,
    /// The history the server is on: another after a standby took over. `None` when it
    /// does not say.
    pub(super) timeline: Option<String>,
    /// The id of the transaction that is open, once `BEGIN` asked for it.
    pub(super) transaction: Option<String>,
}

struct Prepared {
    statement: Statement,
    used: u64,
}

/// Why there is no connection.
pub(super) enum Refusal {
    /// It may be there later: not started yet, restarting, out of connections.
    Later(String),
    /// It will not be better by waiting: a wrong password, no such database.
    Never(String),
}

impl Refusal {
    pub(super) fn text(&self) -> &str {
        match self {
            Refusal::Later(why) | Refusal::Never(why) => why,
        }
    }
}

/// Open a connection; the second of the pair yields what the server says unasked.
pub(super) async fn connect(
    server: &Server,
) -> Result<
    (
        Client,
        tokio_postgres::Connection<
            tokio_postgres::Socket,
            <tokio_postgres_rustls::MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<
                tokio_postgres::Socket,
            >>::Stream,
        >,
    ),
    Refusal,
>{
    let (config, tls) = server.with_password().map_err(|e| Refusal::Never(e.to_string()))?;
    match config.connect(tls).await {
        Ok(connected) => Ok(connected),
        Err(e) => {
            let why = format!("connect to the database {}: {}", server.place, text(&e));
            let code = e.as_db_error().map(|db| db.code().code().to_owned());
            match code.as_deref() {
                // Not started yet, no connection free.
                Some(code) if code.starts_with("57P") || code.starts_with("53") => Err(Refusal::Later(why)),
                Some(_) => Err(Refusal::Never(why)),
                // A refused connection and a failed TLS handshake look alike; waiting is bounded.
                None => Err(Refusal::Later(why)),
            }
        }
    }
}

impl Session {
    pub(super) async fn open(server: &Server) -> Result<Session, Refusal> {
        let (client, connection) = connect(server).await?;
        let connection = tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(why = error::text(&e), "a connection to the database ended");
            }
        });
        let mut session = Session {
            client,
            connection,
            statements: HashMap::new(),
            uses: 0,
            lock: 0,
            timeline: None,
            transaction: None,
        };
        let set_up = tokio::time::timeout(Duration::from_secs(ANSWER_SECS_MAX), session.set_up()).await;
        match set_up.unwrap_or_else(|_| Err(Refusal::Later("the database does not answer".to_owned()))) {
            Ok(()) => Ok(session),
            Err(Refusal::Later(why)) => Err(Refusal::Later(format!("{}: {why}", server.place))),
            Err(Refusal::Never(why)) => Err(Refusal::Never(format!("{}: {why}", server.place))),
        }
    }

    async fn set_up(&mut self) -> Result<(), Refusal> {
        let later = |e: tokio_postgres::Error| Refusal::Later(format!("set up a connection: {}", text(&e)));
        let secs = |secs: u64| format!("'{secs}s'");
        let statements = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET jit = off; SET client_min_messages = warning; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'; \
             SELECT current_setting('server_version_num') AS version, current_setting('server_encoding') AS encoding, \
             current_schema() AS schema, current_setting('fsync') AS fsync",
            secs(STATEMENT_SECS_MAX),
            secs(LOCK_SECS_MAX),
            secs(IDLE_SECS_MAX),
        );
        let said = self.client.simple_query(&statements).await.map_err(later)?;
        let get = |name: &str| text_column(&said, name);
        let version = get("version").and_then(|v| v.parse::<u32>().ok()).unwrap_or(0);
        if version < VERSION_MIN {
            return Err(Refusal::Never(format!(
                "this is PostgreSQL {}; version {} or newer is needed",
                version / 10_000,
                VERSION_MIN / 10_000
            )));
        }
        let encoding = get("encoding").unwrap_or_default();
        if encoding != "UTF8" {
            return Err(Refusal::Never(format!(
                "the database is in the encoding {encoding}; make one in UTF8 \
                 (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
            )));
        }
        let Some(schema) = get("schema") else {
            return Err(Refusal::Never("no schema of the search path exists".to_owned()));
        };
        self.lock = hash(schema.as_bytes());
        // Managed servers may not let everybody ask.
        let timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline";
        self.timeline = match self.client.simple_query(timeline).await {
            Ok(said) => text_column(&said, "timeline"),
            // A connection that broke says nothing about the server.
            Err(e) if name(&e).1 => return Err(later(e)),
            Err(_) => None,
        };
        Ok(())
    }

    /// Warn about a server that does not keep what it acknowledges.
    pub(super) async fn is_fsync_off(&self) -> bool {
        let said = self.client.simple_query("SELECT current_setting('fsync') AS fsync").await;
        said.is_ok_and(|said| text_column(&said, "fsync").as_deref() == Some("off"))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Run statements without parameters; the last value of a column of that name.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Failure> {
        bounded(async { simple(&self.client, sql).await }).await
    }

    /// Run `before` (may be empty) and then one statement, in one round trip when the
    /// statement is known. How many rows it changed or returned.
    pub(super) async fn run(
        &mut self,
        before: &str,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<u64, Failure> {
        bounded(self.run_unbounded(before, sql, params, each)).await
    }

    async fn run_unbounded(
        &mut self,
        mut before: &str,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<u64, Failure> {
        if !self.statements.contains_key(sql) {
            let text = sql::rewritten(sql);
            let (went, prepared) = future::join(self.before(before), self.client.prepare(&text)).await;
            self.note(went?);
            before = "";
            let statement = prepared.map_err(statement_failure)?;
            self.keep(sql, statement);
        }
        self.uses += 1;
        let (uses, Some(prepared)) = (self.uses, self.statements.get_mut(sql)) else {
            return Err(Failure::Statement(Error::Database("a prepared statement is gone".to_owned())));
        };
        prepared.used = uses;
        let statement = prepared.statement.clone();
        let query = async {
            let rows = self.client.query_raw(&statement, params.iter().map(Param)).await.map_err(statement_failure)?;
            let mut rows = std::pin::pin!(rows);
            while let Some(row) = rows.try_next().await.map_err(statement_failure)? {
                each(&PgRow(&row)).map_err(Failure::Row)?;
            }
            Ok(rows.rows_affected().unwrap_or(0))
        };
        let (went, answer) = future::join(self.before(before), query).await;
        self.note(went?);
        answer
    }

    async fn before(&self, sql: &str) -> Result<Option<String>, Failure> {
        if sql.is_empty() {
            return Ok(None);
        }
        match simple(&self.client, sql).await {
            Ok(said) => Ok(text_column(&said, "transaction")),
            Err(Failure::Statement(e)) => Err(Failure::Aborted(e)),
            Err(failure) => Err(failure),
        }
    }

    fn note(&mut self, transaction: Option<String>) {
        if transaction.is_some() {
            self.transaction = transaction;
        }
    }

    fn keep(&mut self, sql: &str, statement: Statement) {
        if self.statements.len() >= STATEMENTS_MAX {
            let oldest = self.statements.iter().min_by_key(|(_, p)| p.used).map(|(sql, _)| sql.clone());
            if let Some(oldest) = oldest {
                self.statements.remove(&oldest);
            }
        }
        self.statements.insert(sql.to_owned(), Prepared { statement, used: self.uses });
    }

    /// Take leave of the server.
    pub(super) async fn close(self) {
        let Session { client, connection, statements, .. } = self;
        drop(statements);
        drop(client);
        // It ends when the goodbye is written; a dead connection is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), connection).await;
    }
}

pub(super) async fn simple(client: &Client, sql: &str) -> Result<Vec<SimpleQueryMessage>, Failure> {
    client.simple_query(sql).await.map_err(statement_failure)
}

pub(super) fn statement_failure(e: tokio_postgres::Error) -> Failure {
    match name(&e) {
        (error, true) => Failure::Lost(error),
        (error, false) => Failure::Statement(error),
    }
}

/// No answer is waited for without end; a connection that gives none is given up.
pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(Duration::from_secs(ANSWER_SECS_MAX), work).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::Lost(Error::Busy)),
    }
}

/// The value under a column's name in the answers to some simple statements.
pub(super) fn text_column(said: &[SimpleQueryMessage], name: &str) -> Option<String> {
    said.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(name).ok().flatten().map(str::to_owned),
        _ => None,
    })
}

/// FNV-1a: the same on every server.
pub(super) fn hash(bytes: &[u8]) -> i32 {
    bytes.iter().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193)).cast_signed()
}
