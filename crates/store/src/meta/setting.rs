//! Settings of the server that are made once and kept: one text for each name.

use super::{RowExt, Tx, one};
use crate::Result;

/// The value of a setting.
pub fn get(tx: &mut dyn Tx, name: &str) -> Result<Option<String>> {
    one(tx, "SELECT value FROM setting WHERE name = ?1", &[name.into()], |row| row.text(0))
}

/// Set it, whether it was there or not.
pub fn put(tx: &mut dyn Tx, name: &str, value: &str) -> Result<()> {
    tx.execute(
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &[name.into(), value.into()],
    )?;
    Ok(())
}

/// Take it away; fine when it is not there.
pub fn delete(tx: &mut dyn Tx, name: &str) -> Result<()> {
    tx.execute("DELETE FROM setting WHERE name = ?1", &[name.into()])?;
    Ok(())
}
