//! Scope maps: named lists of actions on the repositories of a registry.
//!
//! A change here is a change of what the registry's tokens may do:
//! [`repo_token::changed`](super::repo_token::changed) counts it.

use portolan_types::{ScopeMapName, Timestamp};

use super::{Row, RowExt, Tx, all, one, repo_token};
use crate::{Error, Result};

/// One scope map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeMapRow {
    /// Its name, in the case it was given.
    pub name: ScopeMapName,
    /// For people.
    pub description: String,
    /// What it allows, as it was given: `repositories/a/content/read`.
    pub actions: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
}

fn read(row: &dyn Row) -> Result<ScopeMapRow> {
    Ok(ScopeMapRow {
        name: row.parsed(0)?,
        description: row.text(1)?,
        actions: row.text(2)?.lines().map(str::to_owned).collect(),
        created: row.time(3)?,
    })
}

/// Write a scope map; one of the same name (case does not matter) is replaced but for its
/// name and creation time. True when it is new.
pub fn put(tx: &mut dyn Tx, registry: i64, map: &ScopeMapRow) -> Result<bool> {
    let before = get(tx, registry, &map.name)?;
    if map.actions.iter().any(|action| action.is_empty() || action.contains(['\n', '\r'])) {
        return Err(Error::Unstorable("an action that is not one line".into()));
    }
    tx.execute(
        "INSERT INTO scope_map (registry, key, name, description, actions, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (registry, key) DO UPDATE SET description = excluded.description, actions = excluded.actions",
        &[
            registry.into(),
            map.name.key().into(),
            (&map.name).into(),
            (&map.description).into(),
            map.actions.join("\n").into(),
            map.created.into(),
        ],
    )?;
    repo_token::changed(tx, registry)?;
    Ok(before.is_none())
}

/// One scope map by name.
pub fn get(tx: &mut dyn Tx, registry: i64, name: &ScopeMapName) -> Result<Option<ScopeMapRow>> {
    let sql = "SELECT name, description, actions, created FROM scope_map WHERE registry = ?1 AND key = ?2";
    one(tx, sql, &[registry.into(), name.key().into()], read)
}

/// The scope maps of a registry by name, those after the one with this key, at most `limit`.
pub fn list(tx: &mut dyn Tx, registry: i64, after: &str, limit: usize) -> Result<Vec<ScopeMapRow>> {
    let sql = "SELECT name, description, actions, created FROM scope_map \
               WHERE registry = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
    all(tx, sql, &[registry.into(), after.into(), limit.into()], read)
}

/// How many scope maps a registry has.
pub fn count(tx: &mut dyn Tx, registry: i64) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM scope_map WHERE registry = ?1";
    Ok(one(tx, sql, &[registry.into()], |row| row.uint(0))?.unwrap_or(0))
}

/// Remove a scope map; tokens that had it are left without one, so that another of the same
/// name gives them nothing. False when there was none.
pub fn delete(tx: &mut dyn Tx, registry: i64, name: &ScopeMapName) -> Result<bool> {
    let params = &[registry.into(), name.key().into()];
    tx.execute("UPDATE repo_token SET scope_map = NULL WHERE registry = ?1 AND scope_map = ?2", params)?;
    let existed = tx.execute("DELETE FROM scope_map WHERE registry = ?1 AND key = ?2", params)? > 0;
    if existed {
        repo_token::changed(tx, registry)?;
    }
    Ok(existed)
}
