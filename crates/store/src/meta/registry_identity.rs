//! The identities that registries were given: ARM's `identity` of a resource.

use portolan_types::Timestamp;
use uuid::Uuid;

use super::{Row, RowExt, Tx, all};
use crate::Result;

/// One identity of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRow {
    /// The registry's number.
    pub registry: i64,
    /// The ARM id of a user-assigned identity; none for the registry's own.
    pub identity: Option<String>,
    /// Object id of its principal.
    pub principal: Uuid,
    /// Its application id.
    pub client: Uuid,
    /// When it was given.
    pub created: Timestamp,
}

fn read(row: &dyn Row) -> Result<IdentityRow> {
    Ok(IdentityRow {
        registry: row.int(0)?,
        identity: Some(row.text(1)?).filter(|id| !id.is_empty()),
        principal: row.uuid(2)?,
        client: row.uuid(3)?,
        created: row.time(4)?,
    })
}

/// Every identity of every registry, the registry's own first.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<IdentityRow>> {
    let sql = "SELECT registry, identity, principal, client, created FROM registry_identity ORDER BY registry, key";
    all(tx, sql, &[], read)
}

/// The identities of one registry, its own first.
pub fn of(tx: &mut dyn Tx, registry: i64) -> Result<Vec<IdentityRow>> {
    let sql = "SELECT registry, identity, principal, client, created FROM registry_identity \
               WHERE registry = ?1 ORDER BY key";
    all(tx, sql, &[registry.into()], read)
}

/// Give a registry an identity that it does not have.
pub fn insert(tx: &mut dyn Tx, identity: &IdentityRow) -> Result<()> {
    let text = identity.identity.as_deref().unwrap_or_default();
    tx.execute(
        "INSERT INTO registry_identity (registry, key, identity, principal, client, created) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        &[
            identity.registry.into(),
            text.to_lowercase().into(),
            text.into(),
            identity.principal.into(),
            identity.client.into(),
            identity.created.into(),
        ],
    )?;
    Ok(())
}

/// Take an identity from a registry (its own, when there is no id); whether it had it.
pub fn delete(tx: &mut dyn Tx, registry: i64, identity: Option<&str>) -> Result<bool> {
    let key = identity.unwrap_or_default().to_lowercase();
    Ok(tx.execute("DELETE FROM registry_identity WHERE registry = ?1 AND key = ?2", &[registry.into(), key.into()])?
        > 0)
}

/// Take every identity from a registry: it is going away.
pub fn delete_all(tx: &mut dyn Tx, registry: i64) -> Result<u64> {
    tx.execute("DELETE FROM registry_identity WHERE registry = ?1", &[registry.into()])
}

/// Take an identity from every registry that has it: its principal is going away.
pub fn forget(tx: &mut dyn Tx, principal: Uuid) -> Result<u64> {
    tx.execute("DELETE FROM registry_identity WHERE principal = ?1", &[principal.into()])
}
