//! Resource groups.

use portolan_types::{GroupName, Timestamp};

use super::{Row, RowExt, Tx, all, one};
use crate::Result;

/// One resource group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Its name, in the case it was given.
    pub name: GroupName,
    /// Where it says it is.
    pub location: String,
    /// JSON object of texts.
    pub tags: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

const COLUMNS: &str = "name, location, tags, created, updated";

fn read(row: &dyn Row) -> Result<GroupRow> {
    Ok(GroupRow {
        name: row.parsed(0)?,
        location: row.text(1)?,
        tags: row.text(2)?,
        created: row.time(3)?,
        updated: row.time(4)?,
    })
}

/// The group of this name, in any case.
pub fn get(tx: &mut dyn Tx, name: &GroupName) -> Result<Option<GroupRow>> {
    one(tx, &format!("SELECT {COLUMNS} FROM resource_group WHERE key = ?1"), &[name.key().into()], read)
}

/// Make the group, or give it these tags when it is there. Its name, place and time of
/// making stay as they were. Whether it is new.
pub fn put(tx: &mut dyn Tx, group: &GroupRow) -> Result<bool> {
    let changed = tx.execute(
        "UPDATE resource_group SET tags = ?2, updated = ?3 WHERE key = ?1",
        &[group.name.key().into(), (&group.tags).into(), group.updated.into()],
    )?;
    if changed > 0 {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO resource_group (key, name, location, tags, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        &[
            group.name.key().into(),
            (&group.name).into(),
            (&group.location).into(),
            (&group.tags).into(),
            group.created.into(),
            group.updated.into(),
        ],
    )?;
    Ok(true)
}

/// Groups in the order of their names, after the name whose key is `after`, at most `items_max`.
pub fn list(tx: &mut dyn Tx, after: &str, items_max: usize) -> Result<Vec<GroupRow>> {
    let sql = format!("SELECT {COLUMNS} FROM resource_group WHERE key > ?1 ORDER BY key LIMIT ?2");
    all(tx, &sql, &[after.into(), items_max.into()], read)
}

/// Remove the group; whether it was there. `Error::Conflict` while it holds registries.
pub fn delete(tx: &mut dyn Tx, name: &GroupName) -> Result<bool> {
    Ok(tx.execute("DELETE FROM resource_group WHERE key = ?1", &[name.key().into()])? > 0)
}
