//! What a pull asks, in one query each, for servers that may not answer from memory.

use portolan_types::{Digest, Reference, RepoName, Timestamp};

use super::repo::Attributes;
use super::tx::one;
use super::{RowExt, Tx, Value, repo};
use crate::Result;

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nobody sees a repository of that name.
    NoRepo,
    /// The repository has no such manifest or tag.
    NoManifest,
    /// A manifest.
    Manifest {
        /// The repository's id.
        repo: i64,
        /// The manifest.
        digest: Digest,
        /// The type it is served under.
        media_type: String,
        /// The repository, the tag and the manifest may all be read.
        readable: bool,
    },
}

/// The manifest that a reference in a repository names.
pub fn manifest(tx: &mut dyn Tx, registry: i64, name: &RepoName, reference: &Reference) -> Result<Named> {
    let (sql, key): (&str, Value<'_>) = match reference {
        Reference::Tag(tag) => (
            "SELECT repo.id, manifest.digest, manifest.media_type, repo.attrs & tag.attrs & manifest.attrs \
             FROM repo JOIN tag ON tag.repo = repo.id \
             JOIN manifest ON manifest.repo = repo.id AND manifest.digest = tag.digest \
             WHERE repo.registry = ?1 AND repo.name = ?2 AND tag.name = ?3",
            tag.into(),
        ),
        Reference::Digest(digest) => (
            "SELECT repo.id, manifest.digest, manifest.media_type, repo.attrs & manifest.attrs \
             FROM repo JOIN manifest ON manifest.repo = repo.id \
             WHERE repo.registry = ?1 AND repo.name = ?2 AND manifest.digest = ?3",
            digest.into(),
        ),
    };
    let found = one(tx, sql, &[registry.into(), name.into(), key], |row| {
        Ok(Named::Manifest {
            repo: row.int(0)?,
            digest: row.digest(1)?,
            media_type: row.text(2)?,
            readable: Attributes::from_bits(row.int(3)?).read,
        })
    })?;
    Ok(match found {
        Some(found) => found,
        None if repo::find(tx, registry, name)?.is_some_and(|r| r.visible) => Named::NoManifest,
        None => Named::NoRepo,
    })
}

/// A repository and one of its blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepoBlob {
    /// The repository's id.
    pub repo: i64,
    /// The repository may be read.
    pub readable: bool,
    /// Bytes, if the repository may read the blob.
    pub size: Option<u64>,
    /// When the link to it will be reviewed, if a review waits.
    pub review_due: Option<Timestamp>,
}

/// A blob of the repository of that name, seen or not; `None` when there is no such
/// repository.
pub fn blob(tx: &mut dyn Tx, registry: i64, name: &RepoName, digest: &Digest) -> Result<Option<RepoBlob>> {
    one(
        tx,
        "SELECT repo.id, repo.attrs, \
         CASE WHEN EXISTS (SELECT 1 FROM manifest WHERE manifest.repo = repo.id) THEN 1 ELSE 0 END, \
         blob.size, gc_queue.due FROM repo \
         LEFT JOIN repo_blob ON repo_blob.repo = repo.id AND repo_blob.digest = ?3 \
         LEFT JOIN blob ON blob.digest = repo_blob.digest \
         LEFT JOIN gc_queue ON gc_queue.kind = 1 AND gc_queue.repo = repo.id AND gc_queue.digest = ?3 \
         WHERE repo.registry = ?1 AND repo.name = ?2",
        &[registry.into(), name.into(), digest.into()],
        |row| {
            // Locks do not outlive the content they were set on.
            let readable = !row.bool(2)? || Attributes::from_bits(row.int(1)?).read;
            Ok(RepoBlob { repo: row.int(0)?, readable, size: row.opt_uint(3)?, review_due: row.opt_time(4)? })
        },
    )
}
