//! What users, service principals and applications prove who they are with: hashes of
//! passwords, and certificates.

use portolan_types::Timestamp;
use uuid::Uuid;

use super::{Row, RowExt, Tx, all, one};
use crate::{Error, Result};

/// What a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A password, or a client's secret.
    Password,
    /// A certificate whose key signs assertions.
    Certificate,
}

impl CredentialKind {
    fn as_str(self) -> &'static str {
        match self {
            CredentialKind::Password => "password",
            CredentialKind::Certificate => "certificate",
        }
    }
}

/// One credential.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialRow {
    /// Its id (`keyId`).
    pub id: Uuid,
    /// The object id of whose it is: a principal or an application.
    pub owner: Uuid,
    /// What it is.
    pub kind: CredentialKind,
    /// For people.
    pub name: Option<String>,
    /// The hash of a password, or a certificate in DER.
    pub value: Vec<u8>,
    /// The first characters of a password that the server made.
    pub hint: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it begins to work.
    pub starts: Option<Timestamp>,
    /// When it stops working.
    pub expires: Option<Timestamp>,
}

impl std::fmt::Debug for CredentialRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CredentialRow({} of {})", self.id, self.owner)
    }
}

const COLUMNS: &str = "id, owner, kind, name, value, hint, created, starts, expires";

fn read(row: &dyn Row) -> Result<CredentialRow> {
    let kind = match row.text(2)?.as_str() {
        "password" => CredentialKind::Password,
        "certificate" => CredentialKind::Certificate,
        _ => return Err(Error::Corrupt("a credential of no known kind".to_owned())),
    };
    Ok(CredentialRow {
        id: row.uuid(0)?,
        owner: row.uuid(1)?,
        kind,
        name: row.opt_text(3)?,
        value: row.bytes(4)?,
        hint: row.opt_text(5)?,
        created: row.time(6)?,
        starts: row.opt_time(7)?,
        expires: row.opt_time(8)?,
    })
}

/// Every credential.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<CredentialRow>> {
    all(tx, &format!("SELECT {COLUMNS} FROM directory_credential ORDER BY created, id"), &[], read)
}

/// The credentials of one owner, oldest first.
pub fn of(tx: &mut dyn Tx, owner: Uuid) -> Result<Vec<CredentialRow>> {
    let sql = format!("SELECT {COLUMNS} FROM directory_credential WHERE owner = ?1 ORDER BY created, id");
    all(tx, &sql, &[owner.into()], read)
}

/// The credential with this id.
pub fn get(tx: &mut dyn Tx, id: Uuid) -> Result<Option<CredentialRow>> {
    one(tx, &format!("SELECT {COLUMNS} FROM directory_credential WHERE id = ?1"), &[id.into()], read)
}

/// Add a credential. `Error::Conflict` when its id is taken.
pub fn insert(tx: &mut dyn Tx, credential: &CredentialRow) -> Result<()> {
    tx.execute(
        "INSERT INTO directory_credential (id, owner, kind, name, value, hint, created, starts, expires) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        &[
            credential.id.into(),
            credential.owner.into(),
            credential.kind.as_str().into(),
            credential.name.as_ref().into(),
            (&credential.value).into(),
            credential.hint.as_ref().into(),
            credential.created.into(),
            credential.starts.into(),
            credential.expires.into(),
        ],
    )?;
    Ok(())
}

/// Remove a credential of that owner; whether it was there.
pub fn delete(tx: &mut dyn Tx, owner: Uuid, id: Uuid) -> Result<bool> {
    let sql = "DELETE FROM directory_credential WHERE owner = ?1 AND id = ?2";
    Ok(tx.execute(sql, &[owner.into(), id.into()])? > 0)
}

/// Remove the credentials of one kind that an owner has. How many.
pub fn delete_kind(tx: &mut dyn Tx, owner: Uuid, kind: CredentialKind) -> Result<u64> {
    let sql = "DELETE FROM directory_credential WHERE owner = ?1 AND kind = ?2";
    tx.execute(sql, &[owner.into(), kind.as_str().into()])
}

/// Remove every credential of an owner that is going away.
pub fn delete_all(tx: &mut dyn Tx, owner: Uuid) -> Result<()> {
    tx.execute("DELETE FROM directory_credential WHERE owner = ?1", &[owner.into()])?;
    Ok(())
}
