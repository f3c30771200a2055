//! Tags: names of manifests that can move.

use portolan_types::{Digest, Tag, Timestamp};

use super::event::Change;
use super::repo::{After, Attributes, Order, order_by, page_filter};
use super::tx::{all, one};
use super::{Row, RowExt, Tx, Value};
use crate::Result;

/// A tag.
#[derive(Clone, Debug)]
pub struct TagInfo {
    /// Its name.
    pub name: Tag,
    /// The manifest it names.
    pub digest: Digest,
    /// Its locks.
    pub attributes: Attributes,
    /// When it was first set.
    pub created: Timestamp,
    /// When it was last set, to whatever manifest.
    pub updated: Timestamp,
}

const COLUMNS: &str = "name, digest, attrs, created, updated";

fn map(row: &dyn Row) -> Result<TagInfo> {
    Ok(TagInfo {
        name: row.parsed(0)?,
        digest: row.digest(1)?,
        attributes: Attributes::from_bits(row.int(2)?),
        created: row.time(3)?,
        updated: row.time(4)?,
    })
}

/// The tag of that name.
pub fn find(tx: &mut dyn Tx, repo: i64, name: &Tag) -> Result<Option<TagInfo>> {
    let sql = format!("SELECT {COLUMNS} FROM tag WHERE repo = ?1 AND name = ?2");
    one(tx, &sql, &[repo.into(), name.into()], map)
}

/// Make the tag name this manifest.
pub fn put(tx: &mut dyn Tx, change: &Change, repo: i64, name: &Tag, digest: &Digest) -> Result<()> {
    tx.execute(
        "INSERT INTO tag (repo, name, digest, attrs, created, updated, hlc, region) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7) ON CONFLICT (repo, name) DO UPDATE SET \
         digest = excluded.digest, updated = excluded.updated, hlc = excluded.hlc, region = excluded.region",
        &[
            repo.into(),
            name.into(),
            digest.into(),
            Attributes::ALL.to_bits().into(),
            change.now.into(),
            change.stamp.hlc.into(),
            (&*change.stamp.region).into(),
        ],
    )?;
    Ok(())
}

/// Listable tags of a repository, of one manifest when `digest` is given. By name they come
/// in the order of the index `tag_order`, without regard to case.
pub fn list(
    tx: &mut dyn Tx,
    repo: i64,
    digest: Option<&Digest>,
    order: Order,
    after: Option<After<String>>,
    limit: usize,
) -> Result<Vec<TagInfo>> {
    let mut params: Vec<Value<'_>> = vec![repo.into(), limit.into()];
    let mut filter = String::new();
    if let Some(digest) = digest {
        params.push(digest.into());
        filter.push_str(" AND digest = ?3");
    }
    match (order, after) {
        (_, None) => {}
        (Order::Name, Some(after)) => {
            let (folded, name) = (params.len() + 1, params.len() + 2);
            params.push(after.key.to_ascii_lowercase().into());
            params.push(after.key.into());
            // The first comparison is the index's, the rest looks at the few it leaves.
            filter.push_str(&format!(" AND lower(name) >= ?{folded} AND (lower(name) > ?{folded} OR name > ?{name})"));
        }
        (_, Some(After { time: Some(time), key })) => {
            filter.push_str(&page_filter(order, "updated", "name", &mut params, Some(time), key.into()));
        }
        (_, Some(After { time: None, key })) => {
            let sql = "SELECT updated FROM tag WHERE repo = ?1 AND name = ?2";
            let time = one(tx, sql, &[repo.into(), key.as_str().into()], |row| row.time(0))?;
            filter.push_str(&page_filter(order, "updated", "name", &mut params, time, key.into()));
        }
    }
    let sorted = match (order, digest) {
        (Order::Name, None) => "lower(name), name".to_owned(),
        // A manifest's few tags are found by the digest's index and sorted; an order that an
        // index has would have all of the repository's tags walked over.
        (Order::Name, Some(_)) => "lower(name) || '', name".to_owned(),
        (order, _) => order_by(order, "updated", "name"),
    };
    let sql =
        format!("SELECT {COLUMNS} FROM tag WHERE repo = ?1 AND (attrs & 4) <> 0{filter} ORDER BY {sorted} LIMIT ?2");
    all(tx, &sql, &params, map)
}

/// Every tag of a manifest, listable or not.
pub fn of_manifest(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<Vec<TagInfo>> {
    // Sorted by hand, as in `list`.
    let sql = format!("SELECT {COLUMNS} FROM tag WHERE repo = ?1 AND digest = ?2 ORDER BY name || ''");
    all(tx, &sql, &[repo.into(), digest.into()], map)
}

/// Set the locks.
pub fn set_attributes(tx: &mut dyn Tx, change: &Change, repo: i64, name: &Tag, attributes: Attributes) -> Result<()> {
    tx.execute(
        "UPDATE tag SET attrs = ?3, updated = ?4, hlc = ?5, region = ?6 WHERE repo = ?1 AND name = ?2",
        &[
            repo.into(),
            name.into(),
            attributes.to_bits().into(),
            change.now.into(),
            change.stamp.hlc.into(),
            (&*change.stamp.region).into(),
        ],
    )?;
    Ok(())
}

/// Remove a tag. True when it was there.
pub fn delete(tx: &mut dyn Tx, repo: i64, name: &Tag) -> Result<bool> {
    Ok(tx.execute("DELETE FROM tag WHERE repo = ?1 AND name = ?2", &[repo.into(), name.into()])? > 0)
}
