//! Rows on their way from one database to another: every table of the schema, in pages, as
//! values.
//!
//! [`TABLES`] names each table that moves, with its columns, parents before children; a
//! test holds it to the schema, so that a new table or column cannot be forgotten. What
//! does not move is in [`LEFT`], with the reason.

use portolan_types::Hasher;

use super::tx::{all, one};
use super::{Row, Tx, Value};
use crate::Result;

/// A table that moves.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its primary key: rows come in its order.
    pub key: &'static [&'static str],
    /// Every column, the key's first.
    pub columns: &'static [&'static str],
    /// Rows in one page: fewer where a row may be large.
    pub page_items: usize,
}

macro_rules! tables {
    ($( $name:ident [$($key:ident),+] $($column:ident)* / $page:literal; )+) => {
        /// Every table that moves.
        pub const TABLES: &[Table] = &[$( Table {
            name: stringify!($name),
            key: &[$(stringify!($key)),+],
            columns: &[$(stringify!($key),)+ $(stringify!($column)),*],
            page_items: $page,
        }, )+];
    };
}

tables! {
    sequence [name] value / 500;
    setting [name] value / 500;
    resource_group [key] name location tags created updated / 500;
    registry [id] key name group_key location sku is_default admin_enabled admin_generation admin_generation2 tags
        properties created updated / 500;
    directory_principal [object_id] app_id kind display_name enabled valid_from created user_key user_name
        properties / 100;
    directory_application [object_id] app_id display_name properties created / 100;
    directory_credential [id] owner kind name value hint created starts expires / 100;
    federated_credential [id] owner key name issuer subject audiences description created / 500;
    managed_identity [principal] group_key key name location tags updated / 500;
    signing_key [kid] sealed created inactive_since / 500;
    role_assignment [id] scope_key scope principal role created description condition_text created_by updated
        updated_by / 100;
    role_definition [id] key name description permissions scopes created created_by updated updated_by / 10;
    cache_rule [registry, key] name source target credential created / 500;
    scope_map [registry, key] name description actions created / 100;
    repo_token [registry, key] name scope_map enabled created / 500;
    repo_token_password [registry, token, which] id hash created expires / 500;
    repo_token_change [registry] version / 500;
    repo [id] registry name attrs created updated hlc region / 500;
    blob [digest] size created / 500;
    repo_blob [repo, digest] linked / 500;
    blob_use [registry, digest] size holders holder_sum / 500;
    storage_use [repo, registry] bytes unique_bytes / 500;
    registry_host [host] registry certificate sealed_key created updated / 32;
    manifest [repo, digest] media_type size image_size config_media_type architecture os subject artifact_type
        annotations attrs created updated hlc region bytes / 32;
    manifest_ref [repo, parent, kind, child] / 500;
    tag [repo, name] digest attrs created updated hlc region / 500;
    event [seq] registry repo kind tag digest media_type size actor request at hlc region / 500;
    gc_queue [kind, repo, digest] due / 500;
    lease [holder, digest] until / 500;
    run_seq [registry] last / 500;
    run [registry, seq] id status kind created started finished updated os architecture variant cpu timeout_secs
        archived task spec context error cancel lease_owner lease_until / 100;
    run_turn [registry, seq] caller attempts storing worker telling told / 500;
    run_image [registry, seq, n] repo tag digest / 500;
    run_event [seq] registry run status at / 500;
    object [key] kind registry size created expires / 500;
    step_cache [key] record bytes last_used registry / 32;
    management_lock [scope_key, key] scope name level notes created updated / 500;
    activity [seq] at correlation caller operation status resource detail / 100;
    operation [id] kind scope_key scope principal detail status code message created ended leased_until / 100;
    security_plan [key] name tier sub_plan extensions enabled updated / 500;
    registry_identity [registry, key] identity principal client created / 500;
    sign_in_code [id] expires / 500;
    sign_in_link [issuer, subject] principal created / 500;
}

/// Tables that stay, and why.
pub const LEFT: &[(&str, &str)] = &[
    ("migration", "the target's own schema"),
    ("upload", "uploads under way begin again: their bytes are where only their store finds them"),
    ("object_block", "build contexts that were still being uploaded are uploaded again"),
    ("server", "servers that are running"),
    ("push", "what they have in hand"),
    ("upload_writer", "what they have in hand"),
    ("duty", "what they do for the others"),
    ("turn_served", "whose run was taken last: everybody has a turn again"),
    ("sign_in_device", "who was about to sign in begins again"),
];

/// Settings under this prefix are about moving and do not move.
pub const OWN_PREFIX: &str = "migrate.";

/// A row, in the order of its table's columns.
pub type Values = Vec<Value<'static>>;

fn owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Int(n) => Value::Int(n),
        Value::Text(text) => Value::Text(text.into_owned().into()),
        Value::Blob(bytes) => Value::Blob(bytes.into_owned().into()),
    }
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

fn marks(from: usize, n: usize) -> String {
    (from..from + n).map(|i| format!("?{i}")).collect::<Vec<_>>().join(", ")
}

/// A page of a table: the rows after the one with this key.
pub fn page(tx: &mut dyn Tx, table: &Table, after: &[Value<'static>]) -> Result<Vec<Values>> {
    let (columns, key, n) = (list(table.columns), list(table.key), table.key.len());
    let mut params = after.to_vec();
    let filter = match (after.is_empty(), n) {
        (true, _) => String::new(),
        (false, 1) => format!(" WHERE {key} > ?1"),
        (false, _) => format!(" WHERE ({key}) > ({})", marks(1, n)),
    };
    params.push(table.page_items.into());
    let limit = params.len();
    let sql = format!("SELECT {columns} FROM {}{filter} ORDER BY {key} LIMIT ?{limit}", table.name);
    let width = table.columns.len();
    all(tx, &sql, &params, |row: &dyn Row| (0..width).map(|i| row.get(i).map(owned)).collect())
}

/// The key of a row.
pub fn key_of(table: &Table, row: &Values) -> Values {
    row.iter().take(table.key.len()).cloned().collect()
}

/// Whether a row is about moving itself.
pub fn is_own(table: &Table, row: &Values) -> bool {
    table.name == "setting" && matches!(row.first(), Some(Value::Text(name)) if name.starts_with(OWN_PREFIX))
}

/// Write a page down.
pub fn insert(tx: &mut dyn Tx, table: &Table, rows: &[Values]) -> Result<()> {
    let sql =
        format!("INSERT INTO {} ({}) VALUES ({})", table.name, list(table.columns), marks(1, table.columns.len()));
    for row in rows {
        tx.execute(&sql, row)?;
    }
    Ok(())
}

/// Whether a table has no row (but those about moving).
pub fn is_empty(tx: &mut dyn Tx, table: &Table) -> Result<bool> {
    let mut empty = true;
    let key = list(table.key);
    tx.query(&format!("SELECT {key} FROM {} LIMIT 10", table.name), &[], &mut |row| {
        let first = row.get(0).map(owned)?;
        empty &= is_own(table, &vec![first]);
        Ok(())
    })?;
    Ok(empty)
}

/// Take every row out of a table but those about moving.
pub fn clear(tx: &mut dyn Tx, table: &Table) -> Result<()> {
    let filter = if table.name == "setting" { format!(" WHERE name NOT LIKE '{OWN_PREFIX}%'") } else { String::new() };
    tx.execute(&format!("DELETE FROM {}{filter}", table.name), &[])?;
    Ok(())
}

/// How many rows a table has that does not move.
pub fn count(tx: &mut dyn Tx, table: &str) -> Result<u64> {
    use super::RowExt as _;
    // Names come from the lists above.
    Ok(one(tx, &format!("SELECT COUNT(*) FROM {table}"), &[], |row| row.uint(0))?.unwrap_or(0))
}

/// The sum of a table's rows: their number and the sum of their hashes, which does not
/// depend on the order they come in (texts sort differently from engine to engine).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Rows.
    pub rows: u64,
    hash: [u64; 4],
}

impl Sum {
    /// Add a row.
    pub fn add(&mut self, row: &Values) {
        let mut hasher = Hasher::new(portolan_types::Algorithm::Sha256);
        for value in row {
            let (kind, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Int(n) => {
                    hasher.update(&[1]);
                    hasher.update(&n.to_le_bytes());
                    continue;
                }
                Value::Text(text) => (2, text.as_bytes()),
                Value::Blob(bytes) => (3, bytes),
            };
            hasher.update(&[kind]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        self.rows += 1;
        for (sum, part) in self.hash.iter_mut().zip(hasher.finish().bytes().chunks_exact(8)) {
            *sum = sum.wrapping_add(part.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Meta, RowExt as _};
    use super::*;
    use crate::Error;

    /// The schema as SQLite has it after every step, beside the lists above.
    #[tokio::test]
    async fn every_table_and_column_moves_or_is_left_for_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open_sqlite(&dir.path().join("meta.db")).unwrap();
        let found = meta.read(|tx| {
            let tables = all(
                tx,
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
                &[],
                |row| row.text(0),
            )?;
            let mut found = Vec::new();
            for table in tables {
                let sql = format!("SELECT name, pk FROM pragma_table_info('{table}')");
                found.push((table, all(tx, &sql, &[], |row| Ok((row.text(0)?, row.int(1)?)))?));
            }
            Ok::<_, Error>(found)
        });
        let found = found.await.unwrap();
        meta.close().await;
        for (table, columns) in &found {
            let Some(moves) = TABLES.iter().find(|t| t.name == table) else {
                assert!(LEFT.iter().any(|(left, _)| left == table), "table {table} is in neither list");
                continue;
            };
            let names: BTreeSet<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, moves.columns.iter().copied().collect(), "columns of {table}");
            let mut key: Vec<(i64, &str)> =
                columns.iter().filter(|(_, pk)| *pk > 0).map(|(name, pk)| (*pk, name.as_str())).collect();
            key.sort_unstable();
            assert_eq!(key.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), moves.key, "key of {table}");
        }
        for name in TABLES.iter().map(|t| t.name).chain(LEFT.iter().map(|(name, _)| *name)) {
            assert!(found.iter().any(|(table, _)| table == name), "there is no table {name}");
        }
    }

    #[test]
    fn sums_tell_rows_apart_and_do_not_mind_their_order() {
        let rows: [Values; 3] = [vec![1.into(), "ab".into()], vec![2.into(), "a".into()], vec![2.into(), Value::Null]];
        let sum = |order: &[usize]| {
            let mut sum = Sum::default();
            order.iter().for_each(|i| sum.add(&rows[*i]));
            sum
        };
        assert_eq!(sum(&[0, 1, 2]), sum(&[2, 0, 1]));
        assert_ne!(sum(&[0, 1]), sum(&[0, 2]));
        assert_ne!(sum(&[0]), sum(&[0, 0]));
    }
}
