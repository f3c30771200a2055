//! Signing keys, sealed under the master key.

use portolan_types::Timestamp;

use super::{RowExt, Tx, all};
use crate::Result;

/// One signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its id.
    pub kid: String,
    /// The private key, sealed.
    pub sealed: Vec<u8>,
    /// Whether it may sign. The newest active key does.
    pub active: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// The keys that still verify, the one that signs first.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<KeyRow>> {
    let sql = "SELECT kid, sealed, active, created FROM signing_key WHERE retired IS NULL \
               ORDER BY active DESC, created DESC, kid";
    all(tx, sql, &[], |row| {
        Ok(KeyRow { kid: row.text(0)?, sealed: row.bytes(1)?, active: row.bool(2)?, created: row.time(3)? })
    })
}

/// Add a key.
pub fn insert(tx: &mut dyn Tx, key: &KeyRow) -> Result<()> {
    tx.execute(
        "INSERT INTO signing_key (kid, sealed, active, created) VALUES (?1, ?2, ?3, ?4)",
        &[(&key.kid).into(), (&key.sealed).into(), key.active.into(), key.created.into()],
    )?;
    Ok(())
}

/// Let the other keys verify and no longer sign.
pub fn deactivate_others(tx: &mut dyn Tx, kid: &str) -> Result<()> {
    tx.execute("UPDATE signing_key SET active = 0 WHERE kid <> ?1", &[kid.into()])?;
    Ok(())
}

/// End the keys that have not signed since `before`: made before it, and not active.
/// How many ended.
pub fn retire(tx: &mut dyn Tx, before: Timestamp, now: Timestamp) -> Result<u64> {
    tx.execute(
        "UPDATE signing_key SET retired = ?2 WHERE active = 0 AND created < ?1 AND retired IS NULL",
        &[before.into(), now.into()],
    )
}
