//! Repositories.
//!
//! A row appears with the first upload or manifest, and people see the repository once a
//! manifest is in it. When the last manifest goes, people no longer see it; the row goes
//! when its last linked blob has been reviewed ([`super::gc`]).

use portolan_types::{RepoName, Timestamp};

use super::event::Change;
use super::tx::{all, next_id, one};
use super::{Row, RowExt, Tx, Value, usage};
use crate::{Error, Result};

/// ACR's `changeableAttributes`: what may be done to a repository, tag or manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// It may be deleted.
    pub delete: bool,
    /// It may be overwritten or deleted.
    pub write: bool,
    /// Lists show it.
    pub list: bool,
    /// It may be pulled.
    pub read: bool,
}

impl Attributes {
    /// What everything begins with.
    pub const ALL: Attributes = Attributes { delete: true, write: true, list: true, read: true };

    /// Whether a delete is allowed: both locks forbid it.
    pub fn deletable(self) -> bool {
        self.delete && self.write
    }

    /// The stored form.
    pub fn to_bits(self) -> i64 {
        i64::from(self.delete) | i64::from(self.write) << 1 | i64::from(self.list) << 2 | i64::from(self.read) << 3
    }

    /// From the stored form.
    pub fn from_bits(bits: i64) -> Attributes {
        Attributes { delete: bits & 1 != 0, write: bits & 2 != 0, list: bits & 4 != 0, read: bits & 8 != 0 }
    }
}

/// A change of some attributes; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributesPatch {
    /// New `deleteEnabled`.
    pub delete: Option<bool>,
    /// New `writeEnabled`.
    pub write: Option<bool>,
    /// New `listEnabled`.
    pub list: Option<bool>,
    /// New `readEnabled`.
    pub read: Option<bool>,
}

impl AttributesPatch {
    /// The attributes after the change.
    pub fn apply(self, to: Attributes) -> Attributes {
        Attributes {
            delete: self.delete.unwrap_or(to.delete),
            write: self.write.unwrap_or(to.write),
            list: self.list.unwrap_or(to.list),
            read: self.read.unwrap_or(to.read),
        }
    }
}

/// In what order a list comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// By name (tags, repositories) or digest (manifests).
    #[default]
    Name,
    /// Oldest change first.
    TimeAsc,
    /// Newest change first.
    TimeDesc,
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repo {
    /// Its id, never given out twice.
    pub id: i64,
    /// Its name.
    pub name: RepoName,
    /// Its locks.
    pub attributes: Attributes,
    /// When its first manifest came.
    pub created: Timestamp,
    /// When a tag or manifest last changed.
    pub updated: Timestamp,
    /// Whether a manifest is in it, so that people see it.
    pub visible: bool,
}

const COLUMNS: &str = "id, name, attrs, created, updated, \
     CASE WHEN EXISTS (SELECT 1 FROM manifest WHERE manifest.repo = repo.id) THEN 1 ELSE 0 END";

fn map(row: &dyn Row) -> Result<Repo> {
    let visible = row.bool(5)?;
    Ok(Repo {
        id: row.int(0)?,
        name: row.parsed(1)?,
        // Locks do not outlive the content they were set on.
        attributes: if visible { Attributes::from_bits(row.int(2)?) } else { Attributes::ALL },
        created: row.time(3)?,
        updated: row.time(4)?,
        visible,
    })
}

/// The repository of that name, visible or not.
pub fn find(tx: &mut dyn Tx, registry: i64, name: &RepoName) -> Result<Option<Repo>> {
    let sql = format!("SELECT {COLUMNS} FROM repo WHERE registry = ?1 AND name = ?2");
    one(tx, &sql, &[registry.into(), name.into()], map)
}

/// The repository of that name; made, not yet visible, when it is not there.
/// `Error::NotFound` when the registry was deleted while the request was on its way: rows
/// under its number would belong to nobody.
pub fn ensure(tx: &mut dyn Tx, change: &Change, name: &RepoName) -> Result<Repo> {
    if let Some(repo) = find(tx, change.registry, name)? {
        return Ok(repo);
    }
    let there = one(tx, "SELECT id FROM registry WHERE id = ?1", &[change.registry.into()], |row| row.int(0))?;
    if there.is_none() {
        return Err(Error::NotFound("the registry".to_owned()));
    }
    let id = next_id(tx, "repo")?;
    tx.execute(
        "INSERT INTO repo (id, registry, name, attrs, created, updated, hlc, region) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)",
        &[
            id.into(),
            change.registry.into(),
            name.into(),
            Attributes::ALL.to_bits().into(),
            change.now.into(),
            change.stamp.hlc.into(),
            (&*change.stamp.region).into(),
        ],
    )?;
    Ok(Repo {
        id,
        name: name.clone(),
        attributes: Attributes::ALL,
        created: change.now,
        updated: change.now,
        visible: false,
    })
}

/// Note that a tag or manifest changed. `first` when the first manifest is coming: the
/// repository begins now, without locks.
pub fn touch(tx: &mut dyn Tx, change: &Change, id: i64, first: bool) -> Result<()> {
    let (now, hlc, region) = (change.now, change.stamp.hlc, &*change.stamp.region);
    if first {
        tx.execute(
            "UPDATE repo SET attrs = ?2, created = ?3, updated = ?3, hlc = ?4, region = ?5 WHERE id = ?1",
            &[id.into(), Attributes::ALL.to_bits().into(), now.into(), hlc.into(), region.into()],
        )?;
    } else {
        tx.execute(
            "UPDATE repo SET updated = ?2, hlc = ?3, region = ?4 WHERE id = ?1",
            &[id.into(), now.into(), hlc.into(), region.into()],
        )?;
    }
    Ok(())
}

/// Set the locks.
pub fn set_attributes(tx: &mut dyn Tx, change: &Change, id: i64, attributes: Attributes) -> Result<()> {
    tx.execute(
        "UPDATE repo SET attrs = ?2, updated = ?3, hlc = ?4, region = ?5 WHERE id = ?1",
        &[
            id.into(),
            attributes.to_bits().into(),
            change.now.into(),
            change.stamp.hlc.into(),
            (&*change.stamp.region).into(),
        ],
    )?;
    Ok(())
}

/// Where the next page of a list begins: after this key, and in orders by time after this
/// time and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After<K> {
    /// The last item's time, in orders by time.
    pub time: Option<Timestamp>,
    /// The last item's name or digest.
    pub key: K,
}

/// Visible, listable repositories. `after.time` is looked up when it is absent and the
/// order is by time.
pub fn list(
    tx: &mut dyn Tx,
    registry: i64,
    order: Order,
    after: Option<After<String>>,
    limit: usize,
) -> Result<Vec<Repo>> {
    let mut params: Vec<Value<'_>> = vec![registry.into(), limit.into()];
    let mut filter = String::new();
    if let Some(after) = after {
        let time = match (order, after.time) {
            (Order::Name, _) | (_, Some(_)) => after.time,
            _ => one(
                tx,
                "SELECT updated FROM repo WHERE registry = ?1 AND name = ?2",
                &[registry.into(), after.key.as_str().into()],
                |row| row.time(0),
            )?,
        };
        filter = page_filter(order, "updated", "name", &mut params, time, after.key.into());
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM repo WHERE registry = ?1 AND (attrs & 4) <> 0 \
         AND EXISTS (SELECT 1 FROM manifest WHERE manifest.repo = repo.id){filter} ORDER BY {} LIMIT ?2",
        order_by(order, "updated", "name"),
    );
    all(tx, &sql, &params, map)
}

/// The `ORDER BY` of a list.
pub(super) fn order_by(order: Order, time: &str, key: &str) -> String {
    match order {
        Order::Name => key.to_owned(),
        Order::TimeAsc => format!("{time}, {key}"),
        Order::TimeDesc => format!("{time} DESC, {key}"),
    }
}

/// The condition that skips what earlier pages showed; binds its values at the end of
/// `params`. A time that is not known makes the list begin anew.
pub(super) fn page_filter<'a>(
    order: Order,
    time_column: &str,
    key_column: &str,
    params: &mut Vec<Value<'a>>,
    time: Option<Timestamp>,
    key: Value<'a>,
) -> String {
    let (a, b) = (params.len() + 1, params.len() + 2);
    match (order, time) {
        (Order::Name, _) => {
            params.push(key);
            format!(" AND {key_column} > ?{a}")
        }
        (_, None) => String::new(),
        (order, Some(time)) => {
            params.push(time.into());
            params.push(key);
            let sign = if order == Order::TimeAsc { '>' } else { '<' };
            format!(" AND ({time_column} {sign} ?{a} OR ({time_column} = ?{a} AND {key_column} > ?{b}))")
        }
    }
}

/// How many manifests and tags a repository has.
pub fn counts(tx: &mut dyn Tx, id: i64) -> Result<(u64, u64)> {
    let sql = "SELECT (SELECT COUNT(*) FROM manifest WHERE repo = ?1), (SELECT COUNT(*) FROM tag WHERE repo = ?1)";
    one(tx, sql, &[id.into()], |row| Ok((row.uint(0)?, row.uint(1)?)))?
        .ok_or_else(|| Error::Corrupt("a count has no row".into()))
}

/// Drop the row when nothing is left in the repository. True when it went.
pub fn remove_if_unused(tx: &mut dyn Tx, id: i64) -> Result<bool> {
    let gone = tx.execute(
        "DELETE FROM repo WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM manifest WHERE repo = ?1) \
         AND NOT EXISTS (SELECT 1 FROM repo_blob WHERE repo = ?1) AND NOT EXISTS (SELECT 1 FROM upload WHERE repo = ?1)",
        &[id.into()],
    )?;
    if gone > 0 {
        usage::repo_removed(tx, id)?;
    }
    Ok(gone > 0)
}

/// Delete everything a registry holds, as its last hour: for the deletion of the registry
/// itself. Its blobs are reviewed at once; the files of its uploads are found idle later.
pub fn delete_registry(tx: &mut dyn Tx, registry: i64, now: Timestamp) -> Result<()> {
    let own = "(SELECT id FROM repo WHERE registry = ?1)";
    usage::registry_removed(tx, registry)?;
    for table in ["tag", "manifest_ref", "manifest", "upload"] {
        tx.execute(&format!("DELETE FROM {table} WHERE repo IN {own}"), &[registry.into()])?;
    }
    tx.execute(
        &format!(
            "INSERT INTO gc_queue (kind, repo, digest, due) SELECT DISTINCT 2, 0, digest, CAST(?2 AS BIGINT) FROM repo_blob \
             WHERE repo IN {own} ON CONFLICT (kind, repo, digest) DO NOTHING"
        ),
        &[registry.into(), now.into()],
    )?;
    tx.execute(&format!("DELETE FROM repo_blob WHERE repo IN {own}"), &[registry.into()])?;
    tx.execute(&format!("DELETE FROM gc_queue WHERE kind = 1 AND repo IN {own}"), &[registry.into()])?;
    tx.execute("DELETE FROM repo WHERE registry = ?1", &[registry.into()])?;
    Ok(())
}
