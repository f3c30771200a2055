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
    /// When it was made.
    pub created: Timestamp,
    /// When another began to sign in its place; none for the key that signs.
    pub inactive_since: Option<Timestamp>,
}

/// The keys that verify, the one that signs first.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<KeyRow>> {
    let sql = "SELECT kid, sealed, created, inactive_since FROM signing_key \
               ORDER BY CASE WHEN inactive_since IS NULL THEN 0 ELSE 1 END, created DESC, kid";
    all(tx, sql, &[], |row| {
        Ok(KeyRow { kid: row.text(0)?, sealed: row.bytes(1)?, created: row.time(2)?, inactive_since: row.opt_time(3)? })
    })
}

/// Add a key that signs from now on; those before it verify and no longer sign.
pub fn insert(tx: &mut dyn Tx, kid: &str, sealed: &[u8], now: Timestamp) -> Result<()> {
    tx.execute("UPDATE signing_key SET inactive_since = ?1 WHERE inactive_since IS NULL", &[now.into()])?;
    tx.execute(
        "INSERT INTO signing_key (kid, sealed, created) VALUES (?1, ?2, ?3)",
        &[kid.into(), sealed.into(), now.into()],
    )?;
    Ok(())
}

/// Remove the keys that have not signed since `before`. How many.
pub fn delete_inactive(tx: &mut dyn Tx, before: Timestamp) -> Result<u64> {
    tx.execute("DELETE FROM signing_key WHERE inactive_since < ?1", &[before.into()])
}
