//! Users, service principals and managed identities: who may be given a role.

use portolan_types::Timestamp;
use uuid::Uuid;

use super::{Row, RowExt, Tx, Value, all, one};
use crate::Result;

/// One principal of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalRow {
    /// Object id.
    pub object_id: Uuid,
    /// Application id; service principals and managed identities have one.
    pub app_id: Option<Uuid>,
    /// `ServicePrincipal`, `User` or `ManagedIdentity`.
    pub kind: String,
    /// For people.
    pub display_name: String,
    /// Whether it may do anything.
    pub enabled: bool,
    /// Tokens issued before this time are refused.
    pub valid_from: Timestamp,
    /// When it was made.
    pub created: Timestamp,
    /// What a user signs in with: `alice@example.com`, in the case it was given.
    pub user_name: Option<String>,
    /// JSON object: what else Graph was told of it.
    pub properties: String,
}

const COLUMNS: &str = "object_id, app_id, kind, display_name, enabled, valid_from, created, user_name, properties";

fn read(row: &dyn Row) -> Result<PrincipalRow> {
    Ok(PrincipalRow {
        object_id: row.uuid(0)?,
        app_id: row.opt_uuid(1)?,
        kind: row.text(2)?,
        display_name: row.text(3)?,
        enabled: row.bool(4)?,
        valid_from: row.time(5)?,
        created: row.time(6)?,
        user_name: row.opt_text(7)?,
        properties: row.text(8)?,
    })
}

/// The form that user names are compared in.
pub fn user_key(user_name: &str) -> String {
    user_name.to_lowercase()
}

/// Every principal.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<PrincipalRow>> {
    all(tx, &format!("SELECT {COLUMNS} FROM directory_principal ORDER BY created, object_id"), &[], read)
}

/// Principals in the order of their object ids, after the id `after`, at most `items_max`.
pub fn page(tx: &mut dyn Tx, after: &str, items_max: usize) -> Result<Vec<PrincipalRow>> {
    let sql = format!("SELECT {COLUMNS} FROM directory_principal WHERE object_id > ?1 ORDER BY object_id LIMIT ?2");
    all(tx, &sql, &[after.into(), items_max.into()], read)
}

/// The principal with this object id.
pub fn get(tx: &mut dyn Tx, object_id: Uuid) -> Result<Option<PrincipalRow>> {
    let sql = format!("SELECT {COLUMNS} FROM directory_principal WHERE object_id = ?1");
    one(tx, &sql, &[object_id.into()], read)
}

/// The principal of an application.
pub fn by_app(tx: &mut dyn Tx, app_id: Uuid) -> Result<Option<PrincipalRow>> {
    let sql = format!("SELECT {COLUMNS} FROM directory_principal WHERE app_id = ?1");
    one(tx, &sql, &[app_id.into()], read)
}

/// The user who signs in with this name, in any case.
pub fn by_user_name(tx: &mut dyn Tx, user_name: &str) -> Result<Option<PrincipalRow>> {
    let sql = format!("SELECT {COLUMNS} FROM directory_principal WHERE user_key = ?1");
    one(tx, &sql, &[user_key(user_name).into()], read)
}

/// How many principals there are.
pub fn count(tx: &mut dyn Tx) -> Result<u64> {
    Ok(one(tx, "SELECT COUNT(*) FROM directory_principal", &[], |row| row.uint(0))?.unwrap_or(0))
}

/// Make a principal. `Error::Conflict` when one of its ids or its user name is taken.
pub fn insert(tx: &mut dyn Tx, principal: &PrincipalRow) -> Result<()> {
    tx.execute(
        "INSERT INTO directory_principal \
         (object_id, app_id, kind, display_name, enabled, valid_from, created, user_key, user_name, properties) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        &[
            principal.object_id.into(),
            principal.app_id.into(),
            (&principal.kind).into(),
            (&principal.display_name).into(),
            principal.enabled.into(),
            principal.valid_from.into(),
            principal.created.into(),
            principal.user_name.as_deref().map(user_key).into(),
            principal.user_name.as_ref().into(),
            (&principal.properties).into(),
        ],
    )?;
    Ok(())
}

/// Write what may change of a principal: its names, whether it may act, from when its tokens
/// are good, its properties. Whether it is there; `Error::Conflict` when its user name is taken.
pub fn update(tx: &mut dyn Tx, principal: &PrincipalRow) -> Result<bool> {
    let changed = tx.execute(
        "UPDATE directory_principal SET display_name = ?2, enabled = ?3, valid_from = ?4, user_key = ?5, \
         user_name = ?6, properties = ?7 WHERE object_id = ?1",
        &[
            principal.object_id.into(),
            (&principal.display_name).into(),
            principal.enabled.into(),
            principal.valid_from.into(),
            principal.user_name.as_deref().map(user_key).into(),
            principal.user_name.as_ref().into(),
            (&principal.properties).into(),
        ],
    )?;
    Ok(changed > 0)
}

/// Let a principal act or forbid it to; whether it is there. Forbidding ends its tokens:
/// those issued before `now` are not good again when it is allowed again.
pub fn set_enabled(tx: &mut dyn Tx, object_id: Uuid, enabled: bool, now: Timestamp) -> Result<bool> {
    let sql = if enabled {
        "UPDATE directory_principal SET enabled = 1 WHERE object_id = ?1"
    } else {
        "UPDATE directory_principal SET enabled = 0, valid_from = ?2 WHERE object_id = ?1"
    };
    let params: &[Value<'_>] = &[object_id.into(), now.into()];
    Ok(tx.execute(sql, if enabled { &params[..1] } else { params })? > 0)
}

/// End the tokens that a principal got before `now`: a credential of its was taken away.
pub fn end_tokens(tx: &mut dyn Tx, object_id: Uuid, now: Timestamp) -> Result<()> {
    tx.execute(
        "UPDATE directory_principal SET valid_from = ?2 WHERE object_id = ?1 AND valid_from < ?2",
        &[object_id.into(), now.into()],
    )?;
    Ok(())
}

/// Remove a principal; whether it was there. Its credentials and roles are for the caller to
/// remove with it.
pub fn delete(tx: &mut dyn Tx, object_id: Uuid) -> Result<bool> {
    Ok(tx.execute("DELETE FROM directory_principal WHERE object_id = ?1", &[object_id.into()])? > 0)
}

/// Take away every role that a principal holds: it is going away.
pub fn delete_assignments(tx: &mut dyn Tx, object_id: Uuid) -> Result<u64> {
    tx.execute("DELETE FROM role_assignment WHERE principal = ?1", &[object_id.into()])
}
