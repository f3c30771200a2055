//! Uploads under way: whose they are and since when they are idle. The bytes are in the
//! blob store under the same id.

use portolan_types::{RepoName, Timestamp, UploadId};

use super::tx::{all, one};
use super::{RowExt, Tx};
use crate::Result;

/// An upload.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its repository's id.
    pub repo: i64,
    /// When something was last appended, to within the hour.
    pub updated: Timestamp,
}

/// Begin an upload for `owner`.
pub fn insert(tx: &mut dyn Tx, id: UploadId, repo: i64, owner: &str, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO upload (id, repo, owner, created, updated) VALUES (?1, ?2, ?3, ?4, ?4)",
        &[id.into(), repo.into(), owner.into(), now.into()],
    )?;
    Ok(())
}

/// The upload of that id, if it is in this repository and `owner` began it.
pub fn find(tx: &mut dyn Tx, registry: i64, repo: &RepoName, id: UploadId, owner: &str) -> Result<Option<Upload>> {
    one(
        tx,
        "SELECT upload.repo, upload.updated FROM upload JOIN repo ON repo.id = upload.repo \
         WHERE upload.id = ?1 AND upload.owner = ?2 AND repo.registry = ?3 AND repo.name = ?4",
        &[id.into(), owner.into(), registry.into(), repo.into()],
        |row| Ok(Upload { repo: row.int(0)?, updated: row.time(1)? }),
    )
}

/// Note that something was appended.
pub fn touch(tx: &mut dyn Tx, id: UploadId, now: Timestamp) -> Result<()> {
    tx.execute("UPDATE upload SET updated = ?2 WHERE id = ?1", &[id.into(), now.into()])?;
    Ok(())
}

/// End an upload. True when it was there.
pub fn delete(tx: &mut dyn Tx, id: UploadId) -> Result<bool> {
    Ok(tx.execute("DELETE FROM upload WHERE id = ?1", &[id.into()])? > 0)
}

/// Whether there is such an upload, anybody's.
pub fn exists(tx: &mut dyn Tx, id: UploadId) -> Result<bool> {
    Ok(one(tx, "SELECT 1 FROM upload WHERE id = ?1", &[id.into()], |_| Ok(()))?.is_some())
}

/// Uploads with nothing appended since `before`, with their repositories.
pub fn idle(tx: &mut dyn Tx, before: Timestamp, limit: usize) -> Result<Vec<(UploadId, i64)>> {
    all(
        tx,
        "SELECT id, repo FROM upload WHERE updated < ?1 ORDER BY updated LIMIT ?2",
        &[before.into(), limit.into()],
        |row| Ok((row.parsed(0)?, row.int(1)?)),
    )
}

/// Uploads under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// In the registry.
    pub registry: u64,
    /// Of them, those that one owner began.
    pub owner: u64,
}

/// How many uploads a registry has under way, and how many of them `owner` began.
pub fn count(tx: &mut dyn Tx, registry: i64, owner: &str) -> Result<Open> {
    // By the uploads, which are few: a join would begin with the registry's repositories.
    let sql = "SELECT COUNT(*), COALESCE(SUM(CASE WHEN upload.owner = ?2 THEN 1 ELSE 0 END), 0) \
               FROM upload WHERE EXISTS (SELECT 1 FROM repo WHERE repo.id = upload.repo AND repo.registry = ?1)";
    let open =
        one(tx, sql, &[registry.into(), owner.into()], |row| Ok(Open { registry: row.uint(0)?, owner: row.uint(1)? }))?;
    Ok(open.unwrap_or_default())
}

/// How many uploads are under way in all registries.
pub fn count_all(tx: &mut dyn Tx) -> Result<u64> {
    Ok(one(tx, "SELECT COUNT(*) FROM upload", &[], |row| row.uint(0))?.unwrap_or(0))
}
