//! The schema, as numbered steps that run at open.
//!
//! `migration` and `sequence` below are the engine's own. The rest is in
//! `schema/NNNN_*.sql`, which say beside each table who writes it and what makes a row
//! garbage. A step that has been released never changes; a later version adds another.
//! Each runs in one transaction and leaves a row in `migration`. A database with a step
//! that this version does not know was written by a newer one and is refused.

use portolan_types::Timestamp;

use super::tx::{all, one};
use super::{RowExt, Tx};
use crate::{Error, Result};

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number, counted from 1 without gaps.
    pub number: i64,
    /// What it brings.
    pub name: &'static str,
    /// The statements, each ended by `;`.
    pub sql: &'static str,
}

/// Every step this version knows, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "content", sql: include_str!("schema/0001_content.sql") },
    Migration { number: 2, name: "identity", sql: include_str!("schema/0002_identity.sql") },
    Migration { number: 3, name: "tasks", sql: include_str!("schema/0003_tasks.sql") },
    Migration { number: 4, name: "shared", sql: include_str!("schema/0004_shared.sql") },
    Migration { number: 5, name: "tag order", sql: include_str!("schema/0005_tag_order.sql") },
    Migration { number: 6, name: "directory", sql: include_str!("schema/0006_directory.sql") },
    Migration { number: 7, name: "roles", sql: include_str!("schema/0007_roles.sql") },
    Migration { number: 8, name: "tokens", sql: include_str!("schema/0008_tokens.sql") },
    Migration { number: 9, name: "hosts", sql: include_str!("schema/0009_hosts.sql") },
    Migration { number: 10, name: "governance", sql: include_str!("schema/0010_governance.sql") },
    Migration { number: 11, name: "sign in", sql: include_str!("schema/0011_sign_in.sql") },
    Migration { number: 12, name: "scale", sql: include_str!("schema/0012_scale.sql") },
    Migration { number: 13, name: "build cache", sql: include_str!("schema/0013_build_cache.sql") },
];

/// Make the engine's own tables.
pub(super) fn prepare(tx: &mut dyn Tx) -> Result<()> {
    tx.execute(
        "CREATE TABLE IF NOT EXISTS migration (number BIGINT PRIMARY KEY, name TEXT NOT NULL, applied BIGINT NOT NULL)",
        &[],
    )?;
    tx.execute("CREATE TABLE IF NOT EXISTS sequence (name TEXT PRIMARY KEY, value BIGINT NOT NULL)", &[])?;
    Ok(())
}

/// The steps of `known` still to run, after checking that the database is not ahead.
pub(super) fn pending(tx: &mut dyn Tx, known: &'static [Migration]) -> Result<Vec<Migration>> {
    let newest = known.last().map_or(0, |m| m.number);
    let ahead = one(tx, "SELECT MAX(number) FROM migration", &[], |row| row.opt_int(0))?.flatten().unwrap_or(0);
    if ahead > newest {
        return Err(Error::Database(format!(
            "a newer version of portolan wrote this database (schema {ahead}, this version knows {newest}): \
             run that version, or restore a backup made before it"
        )));
    }
    let applied = all(tx, "SELECT number FROM migration", &[], |row| row.int(0))?;
    Ok(known.iter().filter(|m| !applied.contains(&m.number)).copied().collect())
}

/// Run one step and record it.
pub(super) fn apply(tx: &mut dyn Tx, migration: &Migration, now: Timestamp) -> Result<()> {
    for statement in statements(migration.sql) {
        tx.execute(statement, &[])
            .map_err(|e| Error::Database(format!("schema step {} ({}): {e}", migration.number, migration.name)))?;
    }
    tx.execute(
        "INSERT INTO migration (number, name, applied) VALUES (?1, ?2, ?3)",
        &[migration.number.into(), migration.name.into(), now.into()],
    )?;
    Ok(())
}

/// Split a file of statements at each `;` that is not in a comment or a text; pieces that
/// are only comments are left out.
fn statements(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut empty) = (0, true);
    let mut chars = sql.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '-' if chars.peek().is_some_and(|(_, next)| *next == '-') => {
                chars.by_ref().find(|(_, c)| *c == '\n');
            }
            '\'' => {
                empty = false;
                chars.by_ref().find(|(_, c)| *c == '\'');
            }
            ';' => {
                if !empty {
                    found.push(sql[start..at].trim());
                }
                (start, empty) = (at + 1, true);
            }
            c => empty &= c.is_whitespace(),
        }
    }
    if !empty {
        found.push(sql[start..].trim());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gaps() {
        for (n, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.number, n, "{}", migration.name);
        }
    }

    #[test]
    fn statements_are_split_and_comments_left_out() {
        let sql = "-- first; really\nCREATE TABLE a (b TEXT DEFAULT ';--');\n-- only words\n\nCREATE INDEX c\n  ON a (b); -- end;\n";
        let found = statements(sql);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("';--')") && found[1].ends_with("ON a (b)"), "{found:?}");
    }
}
