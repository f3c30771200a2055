//! Cache rules: which upstream repositories appear under which names of a registry.
//!
//! `source` is `host/path`, `target` a repository; both may end in `/*` (or be `*` alone
//! for the target), and then what the star stands for is carried over. Of the rules that
//! match, the one with the longest source wins.

use portolan_types::Timestamp;

use super::{Row, RowExt, Tx, all, one};
use crate::Result;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRule {
    /// Its name, in the case it was given.
    pub name: String,
    /// `docker.io/library/*`, `mcr.microsoft.com/dotnet/sdk`, …
    pub source: String,
    /// `*`, `hub/*`, `dotnet-sdk`, …
    pub target: String,
    /// ARM id of the credential set to sign in upstream with.
    pub credential: Option<String>,
    /// When it was made.
    pub created: Timestamp,
}

const COLUMNS: &str = "name, source, target, credential, created";

fn read(row: &dyn Row) -> Result<CacheRule> {
    Ok(CacheRule {
        name: row.text(0)?,
        source: row.text(1)?,
        target: row.text(2)?,
        credential: row.opt_text(3)?,
        created: row.time(4)?,
    })
}

/// The rules every new registry has: Docker Hub's official images under their bare names,
/// all others under `user/name`. Registry creation calls this in its own transaction.
pub fn insert_defaults(tx: &mut dyn Tx, registry: i64, now: Timestamp) -> Result<()> {
    for (name, source, target) in [("docker-official", "docker.io/library/*", "*"), ("docker-hub", "docker.io/*", "*")]
    {
        let rule = CacheRule {
            name: name.into(),
            source: source.into(),
            target: target.into(),
            credential: None,
            created: now,
        };
        put(tx, registry, &rule)?;
    }
    Ok(())
}

/// Write a rule; one of the same name (case does not matter) is replaced but for its
/// creation time. True when it is new.
pub fn put(tx: &mut dyn Tx, registry: i64, rule: &CacheRule) -> Result<bool> {
    let before = get(tx, registry, &rule.name)?;
    tx.execute(
        "INSERT INTO cache_rule (registry, key, name, source, target, credential, created) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (registry, key) \
         DO UPDATE SET source = excluded.source, target = excluded.target, credential = excluded.credential",
        &[
            registry.into(),
            rule.name.to_ascii_lowercase().into(),
            (&rule.name).into(),
            (&rule.source).into(),
            (&rule.target).into(),
            rule.credential.as_deref().into(),
            rule.created.into(),
        ],
    )?;
    Ok(before.is_none())
}

/// One rule by name; case does not matter.
pub fn get(tx: &mut dyn Tx, registry: i64, name: &str) -> Result<Option<CacheRule>> {
    let sql = format!("SELECT {COLUMNS} FROM cache_rule WHERE registry = ?1 AND key = ?2");
    one(tx, &sql, &[registry.into(), name.to_ascii_lowercase().into()], read)
}

/// Every rule of a registry by name, at most `limit`.
pub fn list(tx: &mut dyn Tx, registry: i64, limit: usize) -> Result<Vec<CacheRule>> {
    let sql = format!("SELECT {COLUMNS} FROM cache_rule WHERE registry = ?1 ORDER BY key LIMIT ?2");
    all(tx, &sql, &[registry.into(), limit.into()], read)
}

/// How many rules a registry has.
pub fn count(tx: &mut dyn Tx, registry: i64) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM cache_rule WHERE registry = ?1";
    Ok(one(tx, sql, &[registry.into()], |row| row.uint(0))?.unwrap_or(0))
}

/// Remove a rule; false when there was none.
pub fn delete(tx: &mut dyn Tx, registry: i64, name: &str) -> Result<bool> {
    let sql = "DELETE FROM cache_rule WHERE registry = ?1 AND key = ?2";
    Ok(tx.execute(sql, &[registry.into(), name.to_ascii_lowercase().into()])? > 0)
}
