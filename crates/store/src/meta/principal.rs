//! Users, service principals and managed identities, and the hashes of their secrets.

use portolan_types::Timestamp;
use uuid::Uuid;

use super::{RowExt, Tx, Value, all};
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
}

/// The hash of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// Its id (`keyId`).
    pub id: Uuid,
    /// Whose it is.
    pub principal: Uuid,
    /// For people.
    pub name: String,
    /// Version byte, salt, hash.
    pub hash: Vec<u8>,
    /// When it was made.
    pub created: Timestamp,
    /// When it stops working.
    pub expires: Option<Timestamp>,
}

/// Every principal.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<PrincipalRow>> {
    let sql = "SELECT object_id, app_id, kind, display_name, enabled, valid_from, created \
               FROM directory_principal ORDER BY created, object_id";
    all(tx, sql, &[], |row| {
        Ok(PrincipalRow {
            object_id: row.uuid(0)?,
            app_id: row.opt_uuid(1)?,
            kind: row.text(2)?,
            display_name: row.text(3)?,
            enabled: row.bool(4)?,
            valid_from: row.time(5)?,
            created: row.time(6)?,
        })
    })
}

/// Every secret.
pub fn list_secrets(tx: &mut dyn Tx) -> Result<Vec<SecretRow>> {
    let sql = "SELECT id, principal, name, hash, created, expires FROM principal_secret ORDER BY created, id";
    all(tx, sql, &[], |row| {
        Ok(SecretRow {
            id: row.uuid(0)?,
            principal: row.uuid(1)?,
            name: row.text(2)?,
            hash: row.bytes(3)?,
            created: row.time(4)?,
            expires: row.opt_time(5)?,
        })
    })
}

/// Make a principal. `Error::Conflict` when one of its ids is taken.
pub fn insert(tx: &mut dyn Tx, principal: &PrincipalRow) -> Result<()> {
    tx.execute(
        "INSERT INTO directory_principal (object_id, app_id, kind, display_name, enabled, valid_from, created) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        &[
            principal.object_id.into(),
            principal.app_id.into(),
            (&principal.kind).into(),
            (&principal.display_name).into(),
            principal.enabled.into(),
            principal.valid_from.into(),
            principal.created.into(),
        ],
    )?;
    Ok(())
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

/// Give a principal a secret.
pub fn insert_secret(tx: &mut dyn Tx, secret: &SecretRow) -> Result<()> {
    tx.execute(
        "INSERT INTO principal_secret (id, principal, name, hash, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        &[
            secret.id.into(),
            secret.principal.into(),
            (&secret.name).into(),
            (&secret.hash).into(),
            secret.created.into(),
            secret.expires.into(),
        ],
    )?;
    Ok(())
}
