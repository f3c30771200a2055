//! Federated credentials: whose tokens of which OpenID issuer speak for an application or a
//! managed identity.

use portolan_types::Timestamp;
use uuid::Uuid;

use super::{Row, RowExt, Tx, all, one};
use crate::Result;

/// One federated credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedRow {
    /// Its id.
    pub id: Uuid,
    /// The object id of an application, or of a managed identity's principal.
    pub owner: Uuid,
    /// Unique for its owner, in any case.
    pub name: String,
    /// The issuer (`iss`), exactly.
    pub issuer: String,
    /// The subject (`sub`), exactly.
    pub subject: String,
    /// JSON array of texts: the audiences (`aud`) that will do, exactly.
    pub audiences: String,
    /// For people.
    pub description: Option<String>,
    /// When it was made.
    pub created: Timestamp,
}

const COLUMNS: &str = "id, owner, name, issuer, subject, audiences, description, created";

fn read(row: &dyn Row) -> Result<FederatedRow> {
    Ok(FederatedRow {
        id: row.uuid(0)?,
        owner: row.uuid(1)?,
        name: row.text(2)?,
        issuer: row.text(3)?,
        subject: row.text(4)?,
        audiences: row.text(5)?,
        description: row.opt_text(6)?,
        created: row.time(7)?,
    })
}

/// Every federated credential.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<FederatedRow>> {
    all(tx, &format!("SELECT {COLUMNS} FROM federated_credential ORDER BY created, id"), &[], read)
}

/// Those of one owner, oldest first.
pub fn of(tx: &mut dyn Tx, owner: Uuid) -> Result<Vec<FederatedRow>> {
    let sql = format!("SELECT {COLUMNS} FROM federated_credential WHERE owner = ?1 ORDER BY created, id");
    all(tx, &sql, &[owner.into()], read)
}

/// The one of an owner with that name, in any case, or that id.
pub fn find(tx: &mut dyn Tx, owner: Uuid, name_or_id: &str) -> Result<Option<FederatedRow>> {
    let sql = format!("SELECT {COLUMNS} FROM federated_credential WHERE owner = ?1 AND (key = ?2 OR id = ?2)");
    one(tx, &sql, &[owner.into(), name_or_id.to_lowercase().into()], read)
}

/// Make one. `Error::Conflict` when its owner has one of that name.
pub fn insert(tx: &mut dyn Tx, row: &FederatedRow) -> Result<()> {
    tx.execute(
        "INSERT INTO federated_credential (id, owner, key, name, issuer, subject, audiences, description, created) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        &[
            row.id.into(),
            row.owner.into(),
            row.name.to_lowercase().into(),
            (&row.name).into(),
            (&row.issuer).into(),
            (&row.subject).into(),
            (&row.audiences).into(),
            row.description.as_ref().into(),
            row.created.into(),
        ],
    )?;
    Ok(())
}

/// Write what may change: all but its name and ids. Whether it is there.
pub fn update(tx: &mut dyn Tx, row: &FederatedRow) -> Result<bool> {
    let changed = tx.execute(
        "UPDATE federated_credential SET issuer = ?3, subject = ?4, audiences = ?5, description = ?6 \
         WHERE owner = ?1 AND id = ?2",
        &[
            row.owner.into(),
            row.id.into(),
            (&row.issuer).into(),
            (&row.subject).into(),
            (&row.audiences).into(),
            row.description.as_ref().into(),
        ],
    )?;
    Ok(changed > 0)
}

/// Remove one; whether it was there.
pub fn delete(tx: &mut dyn Tx, owner: Uuid, id: Uuid) -> Result<bool> {
    let sql = "DELETE FROM federated_credential WHERE owner = ?1 AND id = ?2";
    Ok(tx.execute(sql, &[owner.into(), id.into()])? > 0)
}

/// Remove every one of an owner that is going away.
pub fn delete_all(tx: &mut dyn Tx, owner: Uuid) -> Result<()> {
    tx.execute("DELETE FROM federated_credential WHERE owner = ?1", &[owner.into()])?;
    Ok(())
}
