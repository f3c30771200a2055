//! Sign-ins that are under way, and who people are at an organisation's own provider.

use portolan_types::Timestamp;
use uuid::Uuid;

use super::{Row, RowExt, Tx, one};
use crate::Result;

/// A client that waits for a person to sign in elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// SHA-256 of the device code, in hex.
    pub device: String,
    /// What the person types, without its hyphen.
    pub user_code: String,
    /// The client application.
    pub client: Uuid,
    /// The scopes it asked for.
    pub scope: String,
    /// Where it was started.
    pub address: String,
    /// What the person said.
    pub answer: Answer,
    /// When it was started.
    pub created: Timestamp,
    /// When it is over.
    pub expires: Timestamp,
}

/// What the person at the other end of a device sign-in said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing so far.
    Waiting,
    /// Yes.
    Allowed {
        /// Who it was.
        principal: Uuid,
        /// How they proved it.
        method: String,
        /// When.
        signed_in: Timestamp,
    },
    /// No.
    Refused,
}

const DEVICE: &str = "device, user_code, client, scope, address, state, principal, method, signed_in, created, expires";

fn device(row: &dyn Row) -> Result<DeviceRow> {
    let answer = match (row.text(5)?.as_str(), row.opt_uuid(6)?, row.opt_text(7)?, row.opt_time(8)?) {
        ("allowed", Some(principal), Some(method), Some(signed_in)) => Answer::Allowed { principal, method, signed_in },
        ("waiting", ..) => Answer::Waiting,
        _ => Answer::Refused,
    };
    Ok(DeviceRow {
        device: row.text(0)?,
        user_code: row.text(1)?,
        client: row.uuid(2)?,
        scope: row.text(3)?,
        address: row.text(4)?,
        answer,
        created: row.time(9)?,
        expires: row.time(10)?,
    })
}

/// Begin a device sign-in. `Error::Conflict` when one of its codes is taken.
pub fn insert_device(tx: &mut dyn Tx, row: &DeviceRow) -> Result<()> {
    tx.execute(
        "INSERT INTO sign_in_device (device, user_code, client, scope, address, state, created, expires) \
         VALUES (?1, ?2, ?3, ?4, ?5, 'waiting', ?6, ?7)",
        &[
            (&row.device).into(),
            (&row.user_code).into(),
            row.client.into(),
            (&row.scope).into(),
            (&row.address).into(),
            row.created.into(),
            row.expires.into(),
        ],
    )?;
    Ok(())
}

/// How many device sign-ins there are: all, and those started at `address`.
pub fn count_devices(tx: &mut dyn Tx, address: &str) -> Result<(u64, u64)> {
    let all = one(tx, "SELECT COUNT(*) FROM sign_in_device", &[], |row| row.uint(0))?;
    let sql = "SELECT COUNT(*) FROM sign_in_device WHERE address = ?1";
    let here = one(tx, sql, &[address.into()], |row| row.uint(0))?;
    Ok((all.unwrap_or(0), here.unwrap_or(0)))
}

/// The device sign-in of that device code's hash.
pub fn device_by_hash(tx: &mut dyn Tx, hash: &str) -> Result<Option<DeviceRow>> {
    one(tx, &format!("SELECT {DEVICE} FROM sign_in_device WHERE device = ?1"), &[hash.into()], device)
}

/// The device sign-in of that user code.
pub fn device_by_user_code(tx: &mut dyn Tx, code: &str) -> Result<Option<DeviceRow>> {
    one(tx, &format!("SELECT {DEVICE} FROM sign_in_device WHERE user_code = ?1"), &[code.into()], device)
}

/// Answer a device sign-in that waits and is not over. Whether there was one.
pub fn answer_device(tx: &mut dyn Tx, hash: &str, answer: &Answer, now: Timestamp) -> Result<bool> {
    let (state, principal, method, at) = match answer {
        Answer::Waiting => return Ok(false),
        Answer::Refused => ("refused", None, None, None),
        Answer::Allowed { principal, method, signed_in } => {
            ("allowed", Some(*principal), Some(method.as_str()), Some(*signed_in))
        }
    };
    let n = tx.execute(
        "UPDATE sign_in_device SET state = ?2, principal = ?3, method = ?4, signed_in = ?5 \
         WHERE device = ?1 AND state = 'waiting' AND expires > ?6",
        &[hash.into(), state.into(), principal.into(), method.into(), at.into(), now.into()],
    )?;
    Ok(n > 0)
}

/// End a device sign-in: its tokens are being fetched. Whether it was still there.
pub fn take_device(tx: &mut dyn Tx, hash: &str) -> Result<bool> {
    Ok(tx.execute("DELETE FROM sign_in_device WHERE device = ?1", &[hash.into()])? > 0)
}

/// Forget device sign-ins and redeemed codes that were over before `before`.
pub fn sweep(tx: &mut dyn Tx, before: Timestamp) -> Result<()> {
    tx.execute("DELETE FROM sign_in_device WHERE expires < ?1", &[before.into()])?;
    tx.execute("DELETE FROM sign_in_code WHERE expires < ?1", &[before.into()])?;
    Ok(())
}

/// Note that an authorization code was redeemed. Whether it was the first time.
pub fn redeem_code(tx: &mut dyn Tx, id: &str, expires: Timestamp) -> Result<bool> {
    let known = one(tx, "SELECT 1 FROM sign_in_code WHERE id = ?1", &[id.into()], |row| row.int(0))?;
    if known.is_some() {
        return Ok(false);
    }
    tx.execute("INSERT INTO sign_in_code (id, expires) VALUES (?1, ?2)", &[id.into(), expires.into()])?;
    Ok(true)
}

/// Who somebody of another provider is here.
pub fn linked(tx: &mut dyn Tx, issuer: &str, subject: &str) -> Result<Option<Uuid>> {
    let sql = "SELECT principal FROM sign_in_link WHERE issuer = ?1 AND subject = ?2";
    one(tx, sql, &[issuer.into(), subject.into()], |row| row.uuid(0))
}

/// Note who somebody of another provider is here. `Error::Conflict` when it is known.
pub fn link(tx: &mut dyn Tx, issuer: &str, subject: &str, principal: Uuid, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO sign_in_link (issuer, subject, principal, created) VALUES (?1, ?2, ?3, ?4)",
        &[issuer.into(), subject.into(), principal.into(), now.into()],
    )?;
    Ok(())
}

/// Whether somebody of this provider is this principal.
pub fn is_linked(tx: &mut dyn Tx, issuer: &str, principal: Uuid) -> Result<bool> {
    let sql = "SELECT 1 FROM sign_in_link WHERE issuer = ?1 AND principal = ?2 LIMIT 1";
    Ok(one(tx, sql, &[issuer.into(), principal.into()], |row| row.int(0))?.is_some())
}
