//! Role assignments, and role definitions made here.

use portolan_types::{ResourceId, Timestamp};
use uuid::Uuid;

use super::{Row, RowExt, Tx, all, one};
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
    /// What it is for.
    pub description: Option<String>,
    /// When it holds, in Azure's grammar; always, if there is none.
    pub condition: Option<String>,
    /// When it was given.
    pub created: Timestamp,
    /// By whom, by object id.
    pub created_by: Option<Uuid>,
    /// When it last changed.
    pub updated: Timestamp,
    /// By whom, by object id.
    pub updated_by: Option<Uuid>,
}

const ASSIGNMENT: &str =
    "id, scope, principal, role, description, condition_text, created, created_by, updated, updated_by";

fn read_assignment(row: &dyn Row) -> Result<AssignmentRow> {
    let created = row.time(6)?;
    Ok(AssignmentRow {
        id: row.uuid(0)?,
        scope: ResourceId(row.text(1)?),
        principal: row.uuid(2)?,
        role: row.uuid(3)?,
        description: row.opt_text(4)?,
        condition: row.opt_text(5)?,
        created,
        created_by: row.opt_uuid(7)?,
        // Rows of older servers have no time of change.
        updated: row.opt_time(8)?.unwrap_or(created),
        updated_by: row.opt_uuid(9)?,
    })
}

/// Every assignment, in the order they were given. How many there may be is for the rules to
/// bound.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<AssignmentRow>> {
    all(tx, &format!("SELECT {ASSIGNMENT} FROM role_assignment ORDER BY created, id"), &[], read_assignment)
}

/// How many there are.
pub fn count(tx: &mut dyn Tx) -> Result<u64> {
    Ok(one(tx, "SELECT COUNT(*) FROM role_assignment", &[], |row| row.uint(0))?.unwrap_or(0))
}

/// The assignment of that id.
pub fn get(tx: &mut dyn Tx, id: Uuid) -> Result<Option<AssignmentRow>> {
    one(tx, &format!("SELECT {ASSIGNMENT} FROM role_assignment WHERE id = ?1"), &[id.into()], read_assignment)
}

/// Give a role. `Error::Conflict` when the same principal holds it there already.
pub fn insert(tx: &mut dyn Tx, assignment: &AssignmentRow) -> Result<()> {
    tx.execute(
        "INSERT INTO role_assignment (id, scope_key, scope, principal, role, description, condition_text, created, \
         created_by, updated, updated_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        &[
            assignment.id.into(),
            assignment.scope.key().into(),
            (&assignment.scope.0).into(),
            assignment.principal.into(),
            assignment.role.into(),
            assignment.description.as_deref().into(),
            assignment.condition.as_deref().into(),
            assignment.created.into(),
            assignment.created_by.into(),
            assignment.updated.into(),
            assignment.updated_by.into(),
        ],
    )?;
    Ok(())
}

/// Change what an assignment is for and when it holds.
pub fn update(tx: &mut dyn Tx, assignment: &AssignmentRow) -> Result<()> {
    tx.execute(
        "UPDATE role_assignment SET description = ?2, condition_text = ?3, updated = ?4, updated_by = ?5 WHERE id = ?1",
        &[
            assignment.id.into(),
            assignment.description.as_deref().into(),
            assignment.condition.as_deref().into(),
            assignment.updated.into(),
            assignment.updated_by.into(),
        ],
    )?;
    Ok(())
}

/// Take a role away; whether it was there.
pub fn delete(tx: &mut dyn Tx, id: Uuid) -> Result<bool> {
    Ok(tx.execute("DELETE FROM role_assignment WHERE id = ?1", &[id.into()])? > 0)
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

/// A role made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionRow {
    /// Its id.
    pub id: Uuid,
    /// Its name; one of this name in all, in any case.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// JSON: ARM's `permissions`.
    pub permissions: String,
    /// JSON: ids of the scopes at and below which it can be given.
    pub scopes: String,
    /// When it was made.
    pub created: Timestamp,
    /// By whom, by object id.
    pub created_by: Option<Uuid>,
    /// When it last changed.
    pub updated: Timestamp,
    /// By whom, by object id.
    pub updated_by: Option<Uuid>,
}

const DEFINITION: &str = "id, name, description, permissions, scopes, created, created_by, updated, updated_by";

fn read_definition(row: &dyn Row) -> Result<DefinitionRow> {
    Ok(DefinitionRow {
        id: row.uuid(0)?,
        name: row.text(1)?,
        description: row.text(2)?,
        permissions: row.text(3)?,
        scopes: row.text(4)?,
        created: row.time(5)?,
        created_by: row.opt_uuid(6)?,
        updated: row.time(7)?,
        updated_by: row.opt_uuid(8)?,
    })
}

/// Every definition, by name. How many there may be is for the rules to bound.
pub fn list_definitions(tx: &mut dyn Tx) -> Result<Vec<DefinitionRow>> {
    all(tx, &format!("SELECT {DEFINITION} FROM role_definition ORDER BY key"), &[], read_definition)
}

/// The definition of that id.
pub fn get_definition(tx: &mut dyn Tx, id: Uuid) -> Result<Option<DefinitionRow>> {
    one(tx, &format!("SELECT {DEFINITION} FROM role_definition WHERE id = ?1"), &[id.into()], read_definition)
}

/// Make a definition, or change the one of that id. Whether it is new. `Error::Conflict` when
/// another has the name.
pub fn put_definition(tx: &mut dyn Tx, definition: &DefinitionRow) -> Result<bool> {
    let key = definition.name.to_lowercase();
    let changed = tx.execute(
        "UPDATE role_definition SET key = ?2, name = ?3, description = ?4, permissions = ?5, scopes = ?6, \
         updated = ?7, updated_by = ?8 WHERE id = ?1",
        &[
            definition.id.into(),
            (&key).into(),
            (&definition.name).into(),
            (&definition.description).into(),
            (&definition.permissions).into(),
            (&definition.scopes).into(),
            definition.updated.into(),
            definition.updated_by.into(),
        ],
    )?;
    if changed > 0 {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO role_definition (id, key, name, description, permissions, scopes, created, created_by, updated, \
         updated_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        &[
            definition.id.into(),
            (&key).into(),
            (&definition.name).into(),
            (&definition.description).into(),
            (&definition.permissions).into(),
            (&definition.scopes).into(),
            definition.created.into(),
            definition.created_by.into(),
            definition.updated.into(),
            definition.updated_by.into(),
        ],
    )?;
    Ok(true)
}

/// Remove a definition; whether it was there.
pub fn delete_definition(tx: &mut dyn Tx, id: Uuid) -> Result<bool> {
    Ok(tx.execute("DELETE FROM role_definition WHERE id = ?1", &[id.into()])? > 0)
}

/// Whether anybody holds that role.
pub fn is_assigned(tx: &mut dyn Tx, role: Uuid) -> Result<bool> {
    Ok(one(tx, "SELECT 1 FROM role_assignment WHERE role = ?1 LIMIT 1", &[role.into()], |row| row.int(0))?.is_some())
}
