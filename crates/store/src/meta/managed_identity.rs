//! Managed identities, as far as they are resources in a group; as principals they are in
//! `meta::principal`.

use portolan_types::{GroupName, Timestamp};
use uuid::Uuid;

use super::{Row, RowExt, Tx, all, one};
use crate::Result;

/// Where one managed identity is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRow {
    /// Its principal, by object id.
    pub principal: Uuid,
    /// Its application id, by which clients name it.
    pub app_id: Uuid,
    /// Its group, in the case the group was given.
    pub group: GroupName,
    /// Its name, in the case it was given; unique in its group in any case.
    pub name: String,
    /// Where it says it is.
    pub location: String,
    /// JSON object of texts.
    pub tags: String,
    /// When it was made.
    pub created: Timestamp,
}

const SELECT: &str = "SELECT i.principal, p.app_id, g.name, i.name, i.location, i.tags, p.created \
    FROM managed_identity i JOIN directory_principal p ON p.object_id = i.principal \
    JOIN resource_group g ON g.key = i.group_key";

fn read(row: &dyn Row) -> Result<IdentityRow> {
    Ok(IdentityRow {
        principal: row.uuid(0)?,
        app_id: row.uuid(1)?,
        group: row.parsed(2)?,
        name: row.text(3)?,
        location: row.text(4)?,
        tags: row.text(5)?,
        created: row.time(6)?,
    })
}

/// Every managed identity, in the order of groups and names.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<IdentityRow>> {
    all(tx, &format!("{SELECT} ORDER BY i.group_key, i.key"), &[], read)
}

/// The managed identities of a group, in the order of their names.
pub fn in_group(tx: &mut dyn Tx, group: &GroupName) -> Result<Vec<IdentityRow>> {
    all(tx, &format!("{SELECT} WHERE i.group_key = ?1 ORDER BY i.key"), &[group.key().into()], read)
}

/// The identity of that name, in any case.
pub fn get(tx: &mut dyn Tx, group: &GroupName, name: &str) -> Result<Option<IdentityRow>> {
    let sql = format!("{SELECT} WHERE i.group_key = ?1 AND i.key = ?2");
    one(tx, &sql, &[group.key().into(), name.to_lowercase().into()], read)
}

/// Where a principal is, if it is a managed identity.
pub fn of(tx: &mut dyn Tx, principal: Uuid) -> Result<Option<IdentityRow>> {
    one(tx, &format!("{SELECT} WHERE i.principal = ?1"), &[principal.into()], read)
}

/// Make one whose principal is there. `Error::Conflict` when its group has one of that name,
/// or there is no such group.
pub fn insert(tx: &mut dyn Tx, row: &IdentityRow) -> Result<()> {
    tx.execute(
        "INSERT INTO managed_identity (principal, group_key, key, name, location, tags, updated) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        &[
            row.principal.into(),
            row.group.key().into(),
            row.name.to_lowercase().into(),
            (&row.name).into(),
            (&row.location).into(),
            (&row.tags).into(),
            row.created.into(),
        ],
    )?;
    Ok(())
}

/// Write its tags; whether it is there.
pub fn set_tags(tx: &mut dyn Tx, principal: Uuid, tags: &str, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE managed_identity SET tags = ?2, updated = ?3 WHERE principal = ?1";
    Ok(tx.execute(sql, &[principal.into(), tags.into(), now.into()])? > 0)
}
