//! Management locks: what may not be changed, or not be removed, whoever asks.

use portolan_types::{ResourceId, Timestamp};

use super::{Row, RowExt, Tx, all, one};
use crate::Result;

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRow {
    /// What it is on; all below is locked too.
    pub scope: ResourceId,
    /// Its name, in the case it was given; unique at its scope in any case.
    pub name: String,
    /// `CanNotDelete` or `ReadOnly`.
    pub level: String,
    /// Why, for people.
    pub notes: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

const COLUMNS: &str = "scope, name, level, notes, created, updated";

fn read(row: &dyn Row) -> Result<LockRow> {
    Ok(LockRow {
        scope: ResourceId(row.text(0)?),
        name: row.text(1)?,
        level: row.text(2)?,
        notes: row.opt_text(3)?,
        created: row.time(4)?,
        updated: row.time(5)?,
    })
}

/// Every lock, by scope and name. How many there may be is for the rules to bound.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<LockRow>> {
    all(tx, &format!("SELECT {COLUMNS} FROM management_lock ORDER BY scope_key, key"), &[], read)
}

/// How many there are.
pub fn count(tx: &mut dyn Tx) -> Result<u64> {
    Ok(one(tx, "SELECT COUNT(*) FROM management_lock", &[], |row| row.uint(0))?.unwrap_or(0))
}

/// The lock of this name, in any case, at exactly this scope.
pub fn get(tx: &mut dyn Tx, scope: &ResourceId, name: &str) -> Result<Option<LockRow>> {
    let sql = format!("SELECT {COLUMNS} FROM management_lock WHERE scope_key = ?1 AND key = ?2");
    one(tx, &sql, &[scope.key().into(), name.to_lowercase().into()], read)
}

/// Make a lock, or give the one that is there this level and these notes. Whether it is new.
pub fn put(tx: &mut dyn Tx, lock: &LockRow) -> Result<bool> {
    let (scope_key, key) = (lock.scope.key(), lock.name.to_lowercase());
    let changed = tx.execute(
        "UPDATE management_lock SET level = ?3, notes = ?4, updated = ?5 WHERE scope_key = ?1 AND key = ?2",
        &[(&scope_key).into(), (&key).into(), (&lock.level).into(), lock.notes.as_deref().into(), lock.updated.into()],
    )?;
    if changed > 0 {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO management_lock (scope_key, key, scope, name, level, notes, created, updated) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        &[
            (&scope_key).into(),
            (&key).into(),
            (&lock.scope.0).into(),
            (&lock.name).into(),
            (&lock.level).into(),
            lock.notes.as_deref().into(),
            lock.created.into(),
            lock.updated.into(),
        ],
    )?;
    Ok(true)
}

/// Remove a lock; whether it was there.
pub fn delete(tx: &mut dyn Tx, scope: &ResourceId, name: &str) -> Result<bool> {
    let sql = "DELETE FROM management_lock WHERE scope_key = ?1 AND key = ?2";
    Ok(tx.execute(sql, &[scope.key().into(), name.to_lowercase().into()])? > 0)
}
