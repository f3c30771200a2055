//! Named objects the blob store holds for builds: packed contexts and run logs.
//!
//! The row is written before the object and deleted after it, so that whatever is in the
//! store has a row that says when it may go, and a crash in between loses a row's object,
//! never an object's row.

use portolan_types::Timestamp;

use super::{Row, RowExt, Tx, all, one};
use crate::Result;

/// A packed build context.
pub const CONTEXT: &str = "context";
/// A run's log.
pub const LOG: &str = "log";

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key in the blob store.
    pub key: String,
    /// [`CONTEXT`] or [`LOG`].
    pub kind: String,
    /// The registry it belongs to.
    pub registry: i64,
    /// Bytes, once it is whole.
    pub size: Option<u64>,
    /// When it may be deleted; `None` while something needs it.
    pub expires: Option<Timestamp>,
}

const COLUMNS: &str = "key, kind, registry, size, expires";

fn read(row: &dyn Row) -> Result<Object> {
    Ok(Object {
        key: row.text(0)?,
        kind: row.text(1)?,
        registry: row.int(2)?,
        size: row.opt_uint(3)?,
        expires: row.opt_time(4)?,
    })
}

/// Announce an object; one with the same key keeps its row.
pub fn insert(tx: &mut dyn Tx, object: &Object, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO object (key, kind, registry, size, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (key) DO NOTHING",
        &[
            (&object.key).into(),
            (&object.kind).into(),
            object.registry.into(),
            object.size.into(),
            now.into(),
            object.expires.into(),
        ],
    )?;
    Ok(())
}

/// One object by key.
pub fn get(tx: &mut dyn Tx, key: &str) -> Result<Option<Object>> {
    one(tx, &format!("SELECT {COLUMNS} FROM object WHERE key = ?1"), &[key.into()], read)
}

/// Say that the object is whole. False when it was never announced.
pub fn set_size(tx: &mut dyn Tx, key: &str, size: u64) -> Result<bool> {
    Ok(tx.execute("UPDATE object SET size = ?2 WHERE key = ?1", &[key.into(), size.into()])? > 0)
}

/// Say when the object may go; `None`: not before this is called again.
pub fn set_expires(tx: &mut dyn Tx, key: &str, expires: Option<Timestamp>) -> Result<()> {
    tx.execute("UPDATE object SET expires = ?2 WHERE key = ?1", &[key.into(), expires.into()])?;
    Ok(())
}

/// Objects whose time is up, at most `limit`.
pub fn expired(tx: &mut dyn Tx, now: Timestamp, limit: usize) -> Result<Vec<Object>> {
    let sql = format!("SELECT {COLUMNS} FROM object WHERE expires <= ?1 ORDER BY expires LIMIT ?2");
    all(tx, &sql, &[now.into(), limit.into()], read)
}

/// Forget an object and its blocks, after its content is gone.
pub fn delete(tx: &mut dyn Tx, key: &str) -> Result<()> {
    tx.execute("DELETE FROM object_block WHERE object = ?1", &[key.into()])?;
    tx.execute("DELETE FROM object WHERE key = ?1", &[key.into()])?;
    Ok(())
}

/// Announce a block of an object in the making; a block sent again replaces the first.
pub fn put_block(tx: &mut dyn Tx, object: &str, block: &str, size: u64) -> Result<()> {
    tx.execute(
        "INSERT INTO object_block (object, block, size) VALUES (?1, ?2, ?3) \
         ON CONFLICT (object, block) DO UPDATE SET size = excluded.size",
        &[object.into(), block.into(), size.into()],
    )?;
    Ok(())
}

/// The blocks of an object in the making, at most `limit`: key and size.
pub fn blocks(tx: &mut dyn Tx, object: &str, limit: usize) -> Result<Vec<(String, u64)>> {
    let sql = "SELECT block, size FROM object_block WHERE object = ?1 ORDER BY block LIMIT ?2";
    all(tx, sql, &[object.into(), limit.into()], |row| Ok((row.text(0)?, row.uint(1)?)))
}

/// How many blocks an object in the making has, and their bytes.
pub fn blocks_total(tx: &mut dyn Tx, object: &str) -> Result<(u64, u64)> {
    let sql = "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM object_block WHERE object = ?1";
    Ok(one(tx, sql, &[object.into()], |row| Ok((row.uint(0)?, row.uint(1)?)))?.unwrap_or((0, 0)))
}

/// Forget the blocks of an object, after they were put together or thrown away.
pub fn delete_blocks(tx: &mut dyn Tx, object: &str) -> Result<()> {
    tx.execute("DELETE FROM object_block WHERE object = ?1", &[object.into()])?;
    Ok(())
}
