//! Repository tokens: who may sign in to one registry, and the hashes of their passwords.
//!
//! Whoever changes a row here, or a scope map, counts the change ([`changed`]): servers keep
//! the tokens of a registry in memory and read them anew when its count is another.

use portolan_types::{Timestamp, TokenName};

use super::{Row, RowExt, Tx, all, next_id, one};
use crate::{Error, Result};

/// The sequence that numbers passwords.
const PASSWORDS: &str = "repo_token_password";

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Its name, in the case it was given.
    pub name: TokenName,
    /// The key of its scope map; none when that was deleted.
    pub scope_map: Option<String>,
    /// Whether it may sign in.
    pub enabled: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// One password of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordRow {
    /// Which: 1 or 2.
    pub which: u8,
    /// Its number, never used twice.
    pub id: i64,
    /// Version byte, salt, hash.
    pub hash: Vec<u8>,
    /// When it was made.
    pub created: Timestamp,
    /// When it stops working.
    pub expires: Option<Timestamp>,
}

fn read_token(row: &dyn Row) -> Result<TokenRow> {
    Ok(TokenRow { name: row.parsed(0)?, scope_map: row.opt_text(1)?, enabled: row.bool(2)?, created: row.time(3)? })
}

fn read_password(row: &dyn Row, at: usize) -> Result<PasswordRow> {
    let which = u8::try_from(row.int(at)?).map_err(|_| Error::Corrupt("a token has a third password".into()))?;
    Ok(PasswordRow {
        which,
        id: row.int(at + 1)?,
        hash: row.bytes(at + 2)?,
        created: row.time(at + 3)?,
        expires: row.opt_time(at + 4)?,
    })
}

/// Write a token; of one of the same name (case does not matter) the scope map and the status
/// are replaced. True when it is new.
pub fn put(tx: &mut dyn Tx, registry: i64, token: &TokenRow) -> Result<bool> {
    let before = get(tx, registry, &token.name)?;
    tx.execute(
        "INSERT INTO repo_token (registry, key, name, scope_map, enabled, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (registry, key) DO UPDATE SET scope_map = excluded.scope_map, enabled = excluded.enabled",
        &[
            registry.into(),
            token.name.key().into(),
            (&token.name).into(),
            token.scope_map.as_deref().into(),
            token.enabled.into(),
            token.created.into(),
        ],
    )?;
    changed(tx, registry)?;
    Ok(before.is_none())
}

/// One token by name.
pub fn get(tx: &mut dyn Tx, registry: i64, name: &TokenName) -> Result<Option<TokenRow>> {
    let sql = "SELECT name, scope_map, enabled, created FROM repo_token WHERE registry = ?1 AND key = ?2";
    one(tx, sql, &[registry.into(), name.key().into()], read_token)
}

/// The tokens of a registry by name, those after the one with this key, at most `limit`.
pub fn list(tx: &mut dyn Tx, registry: i64, after: &str, limit: usize) -> Result<Vec<TokenRow>> {
    let sql = "SELECT name, scope_map, enabled, created FROM repo_token \
               WHERE registry = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
    all(tx, sql, &[registry.into(), after.into(), limit.into()], read_token)
}

/// How many tokens a registry has.
pub fn count(tx: &mut dyn Tx, registry: i64) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM repo_token WHERE registry = ?1";
    Ok(one(tx, sql, &[registry.into()], |row| row.uint(0))?.unwrap_or(0))
}

/// Remove a token and its passwords; false when there was none.
pub fn delete(tx: &mut dyn Tx, registry: i64, name: &TokenName) -> Result<bool> {
    let sql = "DELETE FROM repo_token WHERE registry = ?1 AND key = ?2";
    let existed = tx.execute(sql, &[registry.into(), name.key().into()])? > 0;
    if existed {
        changed(tx, registry)?;
    }
    Ok(existed)
}

/// The passwords of a token, the first one first.
pub fn passwords(tx: &mut dyn Tx, registry: i64, name: &TokenName) -> Result<Vec<PasswordRow>> {
    let sql = "SELECT which, id, hash, created, expires FROM repo_token_password \
               WHERE registry = ?1 AND token = ?2 ORDER BY which";
    all(tx, sql, &[registry.into(), name.key().into()], |row| read_password(row, 0))
}

/// Every password of a registry's tokens whose key is above `after` and at most `until`, with
/// the token's key, in the order of the keys.
pub fn passwords_between(
    tx: &mut dyn Tx,
    registry: i64,
    after: &str,
    until: &str,
) -> Result<Vec<(String, PasswordRow)>> {
    let sql = "SELECT token, which, id, hash, created, expires FROM repo_token_password \
               WHERE registry = ?1 AND token > ?2 AND token <= ?3 ORDER BY token, which";
    all(tx, sql, &[registry.into(), after.into(), until.into()], |row| Ok((row.text(0)?, read_password(row, 1)?)))
}

/// Give a token a password in place of the one it has there. The row's own number is not
/// looked at; the new one is answered.
pub fn put_password(tx: &mut dyn Tx, registry: i64, name: &TokenName, password: &PasswordRow) -> Result<i64> {
    delete_password(tx, registry, name, password.which)?;
    let id = next_id(tx, PASSWORDS)?;
    tx.execute(
        "INSERT INTO repo_token_password (registry, token, which, id, hash, created, expires) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        &[
            registry.into(),
            name.key().into(),
            i64::from(password.which).into(),
            id.into(),
            (&password.hash).into(),
            password.created.into(),
            password.expires.into(),
        ],
    )?;
    changed(tx, registry)?;
    Ok(id)
}

/// Take a password away; false when it was not there.
pub fn delete_password(tx: &mut dyn Tx, registry: i64, name: &TokenName, which: u8) -> Result<bool> {
    let sql = "DELETE FROM repo_token_password WHERE registry = ?1 AND token = ?2 AND which = ?3";
    let existed = tx.execute(sql, &[registry.into(), name.key().into(), i64::from(which).into()])? > 0;
    if existed {
        changed(tx, registry)?;
    }
    Ok(existed)
}

/// Change when a password stops working; false when it is not there.
pub fn set_expiry(
    tx: &mut dyn Tx,
    registry: i64,
    name: &TokenName,
    which: u8,
    expires: Option<Timestamp>,
) -> Result<bool> {
    let sql = "UPDATE repo_token_password SET expires = ?4 WHERE registry = ?1 AND token = ?2 AND which = ?3";
    let params = [registry.into(), name.key().into(), i64::from(which).into(), expires.into()];
    let existed = tx.execute(sql, &params)? > 0;
    if existed {
        changed(tx, registry)?;
    }
    Ok(existed)
}

/// Count a change of a registry's tokens, their passwords or its scope maps.
pub(super) fn changed(tx: &mut dyn Tx, registry: i64) -> Result<()> {
    tx.execute(
        "INSERT INTO repo_token_change (registry, version) VALUES (?1, 1) \
         ON CONFLICT (registry) DO UPDATE SET version = repo_token_change.version + 1",
        &[registry.into()],
    )?;
    Ok(())
}

/// The count of changes of every registry that had any.
pub fn versions(tx: &mut dyn Tx) -> Result<Vec<(i64, i64)>> {
    let sql = "SELECT registry, version FROM repo_token_change ORDER BY registry";
    all(tx, sql, &[], |row| Ok((row.int(0)?, row.int(1)?)))
}

/// Remove a registry's tokens and scope maps: it is going away.
pub fn delete_registry(tx: &mut dyn Tx, registry: i64) -> Result<()> {
    for table in ["repo_token", "scope_map", "repo_token_change"] {
        tx.execute(&format!("DELETE FROM {table} WHERE registry = ?1"), &[registry.into()])?;
    }
    Ok(())
}
