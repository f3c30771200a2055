//! Small helpers that queries are written with: values, typed columns, one row, all rows.

use std::borrow::Cow;
use std::str::FromStr;

use portolan_types::{
    Digest, GroupName, RegistryName, RepoName, RunId, ScopeMapName, Tag, Timestamp, TokenName, UploadId,
};
use uuid::Uuid;

use super::{Row, Tx, Value};
use crate::{Error, Result};

/// The first row of a query, or `None`.
pub fn one<T>(
    tx: &mut dyn Tx,
    sql: &str,
    params: &[Value<'_>],
    mut map: impl FnMut(&dyn Row) -> Result<T>,
) -> Result<Option<T>> {
    let mut found = None;
    tx.query(sql, params, &mut |row| {
        if found.is_none() {
            found = Some(map(row)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Every row of a query. Give lists a `LIMIT`.
pub fn all<T>(
    tx: &mut dyn Tx,
    sql: &str,
    params: &[Value<'_>],
    mut map: impl FnMut(&dyn Row) -> Result<T>,
) -> Result<Vec<T>> {
    let mut found = Vec::new();
    tx.query(sql, params, &mut |row| {
        found.push(map(row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Refuse what PostgreSQL cannot keep, on both engines alike: a store can be moved from one
/// to the other.
pub(super) fn storable(params: &[Value<'_>]) -> Result<()> {
    match params.iter().any(|value| matches!(value, Value::Text(text) if text.contains('\0'))) {
        true => Err(Error::Unstorable("a text with a NUL in it".to_owned())),
        false => Ok(()),
    }
}

/// The next number of the sequence `name`, counted from 1. Numbers of a transaction that is
/// undone are given out again.
pub fn next_id(tx: &mut dyn Tx, name: &str) -> Result<i64> {
    let sql = "INSERT INTO sequence (name, value) VALUES (?1, 1) \
               ON CONFLICT (name) DO UPDATE SET value = sequence.value + 1 RETURNING value";
    one(tx, sql, &[name.into()], |row| row.int(0))?.ok_or_else(|| Error::Database(format!("no value for {name}")))
}

/// The number that the sequence `name` gave out last; 0 when it gave out none.
pub fn sequence(tx: &mut dyn Tx, name: &str) -> Result<i64> {
    Ok(one(tx, "SELECT value FROM sequence WHERE name = ?1", &[name.into()], |row| row.int(0))?.unwrap_or(0))
}

/// The stored form of a digest: one byte for the algorithm (1 sha256, 2 sha512), then the hash.
pub fn digest_bytes(digest: &Digest) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + digest.bytes().len());
    out.push(match digest {
        Digest::Sha256(_) => 1,
        Digest::Sha512(_) => 2,
    });
    out.extend_from_slice(digest.bytes());
    out
}

/// The digest in its stored form, read back.
pub fn digest_from_bytes(bytes: &[u8]) -> Result<Digest> {
    let damaged = || Error::Corrupt("a digest column holds no digest".into());
    match bytes.split_first() {
        Some((1, hash)) => hash.try_into().map(Digest::Sha256).map_err(|_| damaged()),
        Some((2, hash)) => hash.try_into().map(Digest::Sha512).map_err(|_| damaged()),
        _ => Err(damaged()),
    }
}

/// Typed columns. The `opt_` forms take NULL; the others call it damage.
pub trait RowExt {
    /// A BIGINT.
    fn int(&self, i: usize) -> Result<i64>;
    /// A BIGINT or NULL.
    fn opt_int(&self, i: usize) -> Result<Option<i64>>;
    /// A BIGINT that is never negative: a size, a count.
    fn uint(&self, i: usize) -> Result<u64>;
    /// A size or count, or NULL.
    fn opt_uint(&self, i: usize) -> Result<Option<u64>>;
    /// A BIGINT of 0 or 1.
    fn bool(&self, i: usize) -> Result<bool>;
    /// A TEXT.
    fn text(&self, i: usize) -> Result<String>;
    /// A TEXT or NULL.
    fn opt_text(&self, i: usize) -> Result<Option<String>>;
    /// A BLOB.
    fn bytes(&self, i: usize) -> Result<Vec<u8>>;
    /// A BLOB or NULL.
    fn opt_bytes(&self, i: usize) -> Result<Option<Vec<u8>>>;
    /// A digest, in [`digest_bytes`] form.
    fn digest(&self, i: usize) -> Result<Digest>;
    /// A digest or NULL.
    fn opt_digest(&self, i: usize) -> Result<Option<Digest>>;
    /// A time, as microseconds.
    fn time(&self, i: usize) -> Result<Timestamp>;
    /// A time or NULL.
    fn opt_time(&self, i: usize) -> Result<Option<Timestamp>>;
    /// A UUID, as text.
    fn uuid(&self, i: usize) -> Result<Uuid>;
    /// A UUID or NULL.
    fn opt_uuid(&self, i: usize) -> Result<Option<Uuid>>;
    /// A TEXT with a grammar: a name, a tag.
    fn parsed<T: FromStr>(&self, i: usize) -> Result<T>;
    /// A TEXT with a grammar, or NULL.
    fn opt_parsed<T: FromStr>(&self, i: usize) -> Result<Option<T>>;
}

fn wrong(i: usize, what: &str) -> Error {
    Error::Corrupt(format!("column {i} is not {what}"))
}

fn unsigned(i: usize, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| wrong(i, "a size or count"))
}

fn uuid(i: usize, text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| wrong(i, "a UUID"))
}

fn parsed<T: FromStr>(i: usize, text: &str) -> Result<T> {
    text.parse().map_err(|_| wrong(i, std::any::type_name::<T>()))
}

impl<R: Row + ?Sized> RowExt for R {
    fn int(&self, i: usize) -> Result<i64> {
        self.opt_int(i)?.ok_or_else(|| wrong(i, "a number"))
    }

    fn opt_int(&self, i: usize) -> Result<Option<i64>> {
        match self.get(i)? {
            Value::Null => Ok(None),
            Value::Int(n) => Ok(Some(n)),
            _ => Err(wrong(i, "a number")),
        }
    }

    fn uint(&self, i: usize) -> Result<u64> {
        unsigned(i, self.int(i)?)
    }

    fn opt_uint(&self, i: usize) -> Result<Option<u64>> {
        self.opt_int(i)?.map(|n| unsigned(i, n)).transpose()
    }

    fn bool(&self, i: usize) -> Result<bool> {
        match self.int(i)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(wrong(i, "0 or 1")),
        }
    }

    fn text(&self, i: usize) -> Result<String> {
        self.opt_text(i)?.ok_or_else(|| wrong(i, "text"))
    }

    fn opt_text(&self, i: usize) -> Result<Option<String>> {
        match self.get(i)? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.into_owned())),
            _ => Err(wrong(i, "text")),
        }
    }

    fn bytes(&self, i: usize) -> Result<Vec<u8>> {
        self.opt_bytes(i)?.ok_or_else(|| wrong(i, "bytes"))
    }

    fn opt_bytes(&self, i: usize) -> Result<Option<Vec<u8>>> {
        match self.get(i)? {
            Value::Null => Ok(None),
            Value::Blob(bytes) => Ok(Some(bytes.into_owned())),
            _ => Err(wrong(i, "bytes")),
        }
    }

    fn digest(&self, i: usize) -> Result<Digest> {
        self.opt_digest(i)?.ok_or_else(|| wrong(i, "a digest"))
    }

    fn opt_digest(&self, i: usize) -> Result<Option<Digest>> {
        match self.get(i)? {
            Value::Null => Ok(None),
            Value::Blob(bytes) => digest_from_bytes(&bytes).map(Some),
            _ => Err(wrong(i, "a digest")),
        }
    }

    fn time(&self, i: usize) -> Result<Timestamp> {
        self.int(i).map(Timestamp)
    }

    fn opt_time(&self, i: usize) -> Result<Option<Timestamp>> {
        Ok(self.opt_int(i)?.map(Timestamp))
    }

    fn uuid(&self, i: usize) -> Result<Uuid> {
        self.opt_uuid(i)?.ok_or_else(|| wrong(i, "a UUID"))
    }

    fn opt_uuid(&self, i: usize) -> Result<Option<Uuid>> {
        match self.get(i)? {
            Value::Null => Ok(None),
            Value::Text(text) => uuid(i, &text).map(Some),
            _ => Err(wrong(i, "a UUID")),
        }
    }

    fn parsed<T: FromStr>(&self, i: usize) -> Result<T> {
        self.opt_parsed(i)?.ok_or_else(|| wrong(i, "text"))
    }

    fn opt_parsed<T: FromStr>(&self, i: usize) -> Result<Option<T>> {
        match self.get(i)? {
            Value::Null => Ok(None),
            Value::Text(text) => parsed(i, &text).map(Some),
            _ => Err(wrong(i, "text")),
        }
    }
}

impl From<i64> for Value<'_> {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}

impl From<i32> for Value<'_> {
    fn from(n: i32) -> Self {
        Value::Int(n.into())
    }
}

impl From<u32> for Value<'_> {
    fn from(n: u32) -> Self {
        Value::Int(n.into())
    }
}

impl From<u64> for Value<'_> {
    /// Sizes and counts. Beyond what a BIGINT holds (8 EiB) the value stays at the top.
    fn from(n: u64) -> Self {
        Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value<'_> {
    fn from(n: usize) -> Self {
        Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value<'_> {
    fn from(b: bool) -> Self {
        Value::Int(b.into())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Blob(Cow::Borrowed(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Value::Blob(Cow::Borrowed(bytes))
    }
}

impl<'a> From<&'a bytes::Bytes> for Value<'a> {
    fn from(bytes: &'a bytes::Bytes) -> Self {
        Value::Blob(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Value::Blob(Cow::Owned(bytes))
    }
}

impl From<Digest> for Value<'_> {
    fn from(digest: Digest) -> Self {
        Value::Blob(Cow::Owned(digest_bytes(&digest)))
    }
}

impl From<&Digest> for Value<'_> {
    fn from(digest: &Digest) -> Self {
        Value::Blob(Cow::Owned(digest_bytes(digest)))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(time: Timestamp) -> Self {
        Value::Int(time.0)
    }
}

impl From<Uuid> for Value<'_> {
    fn from(id: Uuid) -> Self {
        Value::Text(Cow::Owned(id.to_string()))
    }
}

impl From<&Uuid> for Value<'_> {
    fn from(id: &Uuid) -> Self {
        Value::Text(Cow::Owned(id.to_string()))
    }
}

impl From<UploadId> for Value<'_> {
    fn from(id: UploadId) -> Self {
        id.0.into()
    }
}

macro_rules! text_values {
    ($($name:ty),*) => {$(
        impl<'a> From<&'a $name> for Value<'a> {
            fn from(name: &'a $name) -> Self {
                Value::Text(Cow::Borrowed(name.as_str()))
            }
        }
    )*};
}

text_values!(RepoName, Tag, RegistryName, GroupName, RunId, TokenName, ScopeMapName);

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_stored_with_their_algorithm() {
        let short = Digest::of(b"a");
        let long = Digest::of_with(portolan_types::Algorithm::Sha512, b"a");
        for digest in [short, long] {
            assert_eq!(digest_from_bytes(&digest_bytes(&digest)).unwrap(), digest);
        }
        for damaged in [&[][..], &[1], &[3; 33], &digest_bytes(&long)[..64], &[1; 34]] {
            assert!(matches!(digest_from_bytes(damaged), Err(Error::Corrupt(_))));
        }
    }

    #[test]
    fn values() {
        assert_eq!(Value::from(u64::MAX), Value::Int(i64::MAX));
        assert_eq!(Value::from(None::<&str>), Value::Null);
        assert_eq!(Value::from(Some(true)), Value::Int(1));
    }
}
