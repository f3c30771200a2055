//! Records of build steps done before, by cache key.
//!
//! A record is of one registry, and the key says of which: its writer makes it from the
//! registry and the engine's own key. The column is for what is done with all records of one.
//!
//! A record is the engine's own; what it needs kept in the blob store is held by leases
//! that its writer takes and gives back (`gc`). Rows are evicted oldest use first.

use portolan_types::{Digest, Timestamp};

use super::{RowExt, Tx, all, one};
use crate::Result;

/// The record under `key`.
pub fn get(tx: &mut dyn Tx, key: &Digest) -> Result<Option<Vec<u8>>> {
    one(tx, "SELECT record FROM step_cache WHERE key = ?1", &[key.into()], |row| row.bytes(0))
}

/// Keep a record of a registry in place of the one under the same key. `bytes`: size of the
/// content it keeps alive.
pub fn put(tx: &mut dyn Tx, registry: i64, key: &Digest, record: &[u8], bytes: u64, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO step_cache (key, record, bytes, last_used, registry) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (key) DO UPDATE SET record = excluded.record, bytes = excluded.bytes, \
         last_used = excluded.last_used, registry = excluded.registry",
        &[key.into(), record.into(), bytes.into(), now.into(), registry.into()],
    )?;
    Ok(())
}

/// Note that records were used.
pub fn touch(tx: &mut dyn Tx, keys: &[Digest], now: Timestamp) -> Result<()> {
    for key in keys {
        let sql = "UPDATE step_cache SET last_used = ?2 WHERE key = ?1 AND last_used < ?2";
        tx.execute(sql, &[key.into(), now.into()])?;
    }
    Ok(())
}

/// How many records there are, and how many bytes of content they keep alive.
pub fn totals(tx: &mut dyn Tx) -> Result<(u64, u64)> {
    let sql = "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM step_cache";
    Ok(one(tx, sql, &[], |row| Ok((row.uint(0)?, row.uint(1)?)))?.unwrap_or((0, 0)))
}

/// A record, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepInfo {
    /// Its key.
    pub key: Digest,
    /// Bytes of the content it keeps alive.
    pub bytes: u64,
    /// When it was last used.
    pub last_used: Timestamp,
}

/// The records that were not used for the longest time, at most `limit`.
pub fn oldest(tx: &mut dyn Tx, limit: usize) -> Result<Vec<StepInfo>> {
    let sql = "SELECT key, bytes, last_used FROM step_cache ORDER BY last_used, key LIMIT ?1";
    all(tx, sql, &[limit.into()], |row| {
        Ok(StepInfo { key: row.digest(0)?, bytes: row.uint(1)?, last_used: row.time(2)? })
    })
}

/// Records of registries that are gone, at most `limit`.
pub fn orphans(tx: &mut dyn Tx, limit: usize) -> Result<Vec<Digest>> {
    let sql = "SELECT key FROM step_cache WHERE registry <> 0 AND registry NOT IN (SELECT id FROM registry) LIMIT ?1";
    all(tx, sql, &[limit.into()], |row| row.digest(0))
}

/// Forget a record; false when there was none.
pub fn delete(tx: &mut dyn Tx, key: &Digest) -> Result<bool> {
    Ok(tx.execute("DELETE FROM step_cache WHERE key = ?1", &[key.into()])? > 0)
}
