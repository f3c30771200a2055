//! Blobs as rows: which content there is, and which repository may read it.

use std::time::Duration;

use portolan_types::{Digest, RepoName, Timestamp};

use super::gc::{self, Review};
use super::tx::{all, one};
use super::{RowExt, Tx, usage};
use crate::Result;

/// Let a repository read a blob whose file is in place. Until a manifest needs it the
/// link lasts for `grace`, counted anew by every call. When the repository's registry holds
/// more bytes for it: how many now.
pub fn link(
    tx: &mut dyn Tx,
    repo: i64,
    digest: &Digest,
    size: u64,
    now: Timestamp,
    grace: Duration,
) -> Result<Option<u64>> {
    tx.execute(
        "INSERT INTO blob (digest, size, created) VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO NOTHING",
        &[digest.into(), size.into(), now.into()],
    )?;
    let row = &[repo.into(), digest.into(), now.into()];
    let sql = "INSERT INTO repo_blob (repo, digest, linked) VALUES (?1, ?2, ?3) ON CONFLICT (repo, digest) DO NOTHING";
    let held = match tx.execute(sql, row)? {
        0 => {
            tx.execute("UPDATE repo_blob SET linked = ?3 WHERE repo = ?1 AND digest = ?2", row)?;
            None
        }
        _ => usage::linked(tx, repo, digest, size)?,
    };
    gc::enqueue(tx, Review::Link { repo, digest: *digest }, now.plus(grace))?;
    Ok(held)
}

/// The size of a blob in bytes, if this repository may read it.
pub fn size_in(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<Option<u64>> {
    one(
        tx,
        "SELECT blob.size FROM repo_blob JOIN blob ON blob.digest = repo_blob.digest \
         WHERE repo_blob.repo = ?1 AND repo_blob.digest = ?2",
        &[repo.into(), digest.into()],
        |row| row.uint(0),
    )
}

/// Those of `digests` that this repository may not read.
pub fn missing(tx: &mut dyn Tx, repo: i64, digests: &[Digest]) -> Result<Vec<Digest>> {
    let mut missing = Vec::new();
    for digest in digests {
        let sql = "SELECT 1 FROM repo_blob WHERE repo = ?1 AND digest = ?2";
        if one(tx, sql, &[repo.into(), digest.into()], |_| Ok(()))?.is_none() {
            missing.push(*digest);
        }
    }
    Ok(missing)
}

/// Take the link away. True when it was there.
pub fn unlink(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<bool> {
    let was_there =
        tx.execute("DELETE FROM repo_blob WHERE repo = ?1 AND digest = ?2", &[repo.into(), digest.into()])? > 0;
    if was_there {
        usage::unlinked(tx, repo, digest)?;
    }
    Ok(was_there)
}

/// Whether a row says that this content is stored.
pub fn exists(tx: &mut dyn Tx, digest: &Digest) -> Result<bool> {
    Ok(one(tx, "SELECT 1 FROM blob WHERE digest = ?1", &[digest.into()], |_| Ok(()))?.is_some())
}

/// The size in bytes that a blob's row says, whoever may read it.
pub fn stored_size(tx: &mut dyn Tx, digest: &Digest) -> Result<Option<u64>> {
    one(tx, "SELECT size FROM blob WHERE digest = ?1", &[digest.into()], |row| row.uint(0))
}

/// Whether any repository may read it.
pub fn is_linked(tx: &mut dyn Tx, digest: &Digest) -> Result<bool> {
    Ok(one(tx, "SELECT 1 FROM repo_blob WHERE digest = ?1 LIMIT 1", &[digest.into()], |_| Ok(()))?.is_some())
}

/// Which of these blobs some repository of the registry may read.
pub fn in_registry(tx: &mut dyn Tx, registry: i64, digests: &[Digest]) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    for digest in digests {
        let sql =
            "SELECT 1 FROM repo_blob b JOIN repo r ON r.id = b.repo WHERE b.digest = ?1 AND r.registry = ?2 LIMIT 1";
        if one(tx, sql, &[digest.into(), registry.into()], |_| Ok(()))?.is_some() {
            found.push(*digest);
        }
    }
    Ok(found)
}

/// Repositories of the registry that may read this blob, by name, `limit` at most.
pub fn holders(tx: &mut dyn Tx, registry: i64, digest: &Digest, limit: usize) -> Result<Vec<RepoName>> {
    all(
        tx,
        "SELECT r.name FROM repo_blob b JOIN repo r ON r.id = b.repo WHERE b.digest = ?1 AND r.registry = ?2 \
         ORDER BY r.name LIMIT ?3",
        &[digest.into(), registry.into(), limit.into()],
        |row| row.parsed(0),
    )
}
