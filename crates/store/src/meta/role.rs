//! Role assignments.

use portolan_types::{ResourceId, Timestamp};
use uuid::Uuid;

use super::{RowExt, Tx, all};
use crate::Result;

/// Who holds which role where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentRow {
    /// Its id.
    pub id: Uuid,
    /// Where.
    pub scope: ResourceId,
    /// Who, by object id.
    pub principal: Uuid,
    /// Which role definition.
    pub role: Uuid,
    /// When it was given.
    pub created: Timestamp,
}

/// Every assignment.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<AssignmentRow>> {
    let sql = "SELECT id, scope, principal, role, created FROM role_assignment ORDER BY created, id";
    all(tx, sql, &[], |row| {
        Ok(AssignmentRow {
            id: row.uuid(0)?,
            scope: ResourceId(row.text(1)?),
            principal: row.uuid(2)?,
            role: row.uuid(3)?,
            created: row.time(4)?,
        })
    })
}

/// Give a role. `Error::Conflict` when the same principal holds it there already.
pub fn insert(tx: &mut dyn Tx, assignment: &AssignmentRow) -> Result<()> {
    tx.execute(
        "INSERT INTO role_assignment (id, scope_key, scope, principal, role, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        &[
            assignment.id.into(),
            assignment.scope.key().into(),
            (&assignment.scope.0).into(),
            assignment.principal.into(),
            assignment.role.into(),
            assignment.created.into(),
        ],
    )?;
    Ok(())
}

/// Remove the assignments at `scope` and below it: the scope is going away. How many.
pub fn delete_within(tx: &mut dyn Tx, scope: &ResourceId) -> Result<u64> {
    let key = scope.key();
    let below = format!("{key}/");
    tx.execute(
        "DELETE FROM role_assignment WHERE scope_key = ?1 OR substr(scope_key, 1, ?3) = ?2",
        &[(&key).into(), (&below).into(), below.chars().count().into()],
    )
}
