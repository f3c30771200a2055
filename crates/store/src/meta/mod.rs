//! Metadata: one schema, one set of plain queries, two engines.
//!
//! Every query is a plain synchronous function over [`Tx`]; it does not know which engine
//! runs it. [`Meta`] takes a closure of such calls and runs it where the engine wants it
//! run: on SQLite, writes go to one writer thread that puts many closures into one
//! transaction (each in its own savepoint) and answers them after one fsync; reads go to
//! a pool of read connections. Parameters are written `?1`, `?2`, …
//!
//! A closure may be dropped unrun when the store closes, and runs at most once.

use std::borrow::Cow;

use crate::Result;

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
/// when the column has another type.
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
}
