//! Our names for PostgreSQL's errors.

use tokio_postgres::error::SqlState;

use crate::Error;

/// Why a statement gave no result, by what is left of the transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// The statement failed: its transaction does nothing more until it is rolled back to
    /// a savepoint.
    Statement(Error),
    /// The statements that went before it failed: the transaction is over.
    Aborted(Error),
    /// The connection is gone, and the transaction with it.
    Lost(Error),
    /// The caller did not like a row; the transaction is as it was.
    Row(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::Statement(e) | Failure::Aborted(e) | Failure::Lost(e) | Failure::Row(e) => e,
        }
    }
}

/// Our name for an error, and whether the connection is gone.
pub(super) fn name(e: &tokio_postgres::Error) -> (Error, bool) {
    let Some(db) = e.as_db_error() else {
        if e.is_closed() || source_is_io(e) {
            return (Error::Busy, true);
        }
        return (Error::Database(text(e)), false);
    };
    let said = || format!("{} ({})", db.message(), db.code().code());
    let code = db.code();
    let error = match code.code() {
        // Another got there first.
        "23505" | "23503" => Error::Conflict(db.message().to_owned()),
        "53100" => Error::Full,
        // Deadlock, serialization, lock timeout, cancelled (its own time limit), out of
        // memory, of connections.
        "40P01" | "40001" | "55P03" | "57014" | "53200" | "53300" => Error::Busy,
        // Damaged pages and indexes.
        "XX001" | "XX002" => Error::Corrupt(said()),
        _ if is_gone(code) => Error::Busy,
        _ => Error::Database(said()),
    };
    (error, is_gone(code))
}

/// Whether the server says this and closes the connection: it is shutting down, starting,
/// or ended an idle session.
fn is_gone(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("08") || code.starts_with("57P") || code == "25P03"
}

fn source_is_io(e: &tokio_postgres::Error) -> bool {
    let mut source = std::error::Error::source(e);
    while let Some(e) = source {
        if e.is::<std::io::Error>() {
            return true;
        }
        source = e.source();
    }
    false
}

/// An error with its causes, in one line.
pub(super) fn text(e: &tokio_postgres::Error) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(e) = source {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = e.source();
    }
    text
}
