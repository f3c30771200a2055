//! The review queue of the garbage collector, and the leases that hold blobs.
//!
//! Whatever may have made something garbage puts it here in its own transaction, with the
//! time from which it may go. A review looks at the references again inside a transaction
//! of its own, so that a push which committed in between keeps what it needs. Removing a
//! blob's row leaves a [`Review::File`] behind until the file is gone too: a crash between
//! the two is picked up by the next round.

use portolan_types::{Digest, Timestamp};

use super::tx::{all, one};
use super::{RowExt, Tx, Value, blob, manifest, repo};
use crate::{Error, Result};

/// Something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// A repository's link to a blob.
    Link {
        /// The repository.
        repo: i64,
        /// The blob.
        digest: Digest,
    },
    /// A blob that lost a link or a lease.
    Blob(Digest),
    /// A file whose blob row is gone.
    File(Digest),
}

impl Review {
    fn key(&self) -> [Value<'static>; 3] {
        match self {
            Review::Link { repo, digest } => [1.into(), (*repo).into(), digest.into()],
            Review::Blob(digest) => [2.into(), 0.into(), digest.into()],
            Review::File(digest) => [3.into(), 0.into(), digest.into()],
        }
    }
}

/// Ask for a review from `due` on. Asking again puts it off to the later time.
pub fn enqueue(tx: &mut dyn Tx, review: Review, due: Timestamp) -> Result<()> {
    let [kind, repo, digest] = review.key();
    tx.execute(
        "INSERT INTO gc_queue (kind, repo, digest, due) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (kind, repo, digest) DO UPDATE SET due = excluded.due WHERE gc_queue.due < excluded.due",
        &[kind, repo, digest, due.into()],
    )?;
    Ok(())
}

/// Reviews that are due, longest waiting first.
pub fn due(tx: &mut dyn Tx, now: Timestamp, limit: usize) -> Result<Vec<Review>> {
    all(
        tx,
        "SELECT kind, repo, digest FROM gc_queue WHERE due <= ?1 ORDER BY due LIMIT ?2",
        &[now.into(), limit.into()],
        |row| {
            let digest = row.digest(2)?;
            match row.int(0)? {
                1 => Ok(Review::Link { repo: row.int(1)?, digest }),
                2 => Ok(Review::Blob(digest)),
                3 => Ok(Review::File(digest)),
                other => Err(Error::Corrupt(format!("gc_queue has a row of kind {other}"))),
            }
        },
    )
}

/// Whether this review is (still) due.
pub fn is_due(tx: &mut dyn Tx, review: &Review, now: Timestamp) -> Result<bool> {
    let [kind, repo, digest] = review.key();
    let sql = "SELECT 1 FROM gc_queue WHERE kind = ?1 AND repo = ?2 AND digest = ?3 AND due <= ?4";
    Ok(one(tx, sql, &[kind, repo, digest, now.into()], |_| Ok(()))?.is_some())
}

/// The review is done.
pub fn dequeue(tx: &mut dyn Tx, review: &Review) -> Result<()> {
    tx.execute("DELETE FROM gc_queue WHERE kind = ?1 AND repo = ?2 AND digest = ?3", &review.key())?;
    Ok(())
}

/// What became of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkVerdict {
    /// It stays: a manifest needs the blob, or the review is no longer due.
    Kept,
    /// It went.
    Removed {
        /// The repository went too, being empty.
        repo_removed: bool,
    },
}

/// Take a link away if no manifest of its repository needs the blob, and have the blob
/// reviewed at `blob_due`.
pub fn review_link(
    tx: &mut dyn Tx,
    repo_id: i64,
    digest: &Digest,
    now: Timestamp,
    blob_due: Timestamp,
) -> Result<LinkVerdict> {
    let review = Review::Link { repo: repo_id, digest: *digest };
    if !is_due(tx, &review, now)? {
        return Ok(LinkVerdict::Kept);
    }
    dequeue(tx, &review)?;
    if manifest::needs_blob(tx, repo_id, digest)? {
        return Ok(LinkVerdict::Kept);
    }
    if blob::unlink(tx, repo_id, digest)? {
        enqueue(tx, Review::Blob(*digest), blob_due)?;
    }
    Ok(LinkVerdict::Removed { repo_removed: repo::remove_if_unused(tx, repo_id)? })
}

/// Remove a blob's row if no repository may read it and no lease holds it. True when the
/// file is to be deleted now: the caller does so, under the lock that keeps pushes of the
/// same content out, and then dequeues [`Review::File`].
pub fn review_blob(tx: &mut dyn Tx, digest: &Digest, now: Timestamp) -> Result<bool> {
    let review = Review::Blob(*digest);
    if !is_due(tx, &review, now)? {
        return Ok(false);
    }
    if let Some(until) = leased_until(tx, digest, now)? {
        enqueue(tx, review, until)?;
        return Ok(false);
    }
    dequeue(tx, &review)?;
    if blob::is_linked(tx, digest)? {
        return Ok(false);
    }
    tx.execute("DELETE FROM blob WHERE digest = ?1", &[digest.into()])?;
    enqueue(tx, Review::File(*digest), now)?;
    Ok(true)
}

/// Whether the file of a [`Review::File`] is to be deleted: nobody pushed the content again.
pub fn review_file(tx: &mut dyn Tx, digest: &Digest, now: Timestamp) -> Result<bool> {
    if blob::exists(tx, digest)? || leased_until(tx, digest, now)?.is_some() {
        dequeue(tx, &Review::File(*digest))?;
        return Ok(false);
    }
    Ok(true)
}

/// Hold a blob until then, whether or not a repository may read it. Holding it again
/// replaces the time.
pub fn hold(tx: &mut dyn Tx, holder: &str, digest: &Digest, until: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO lease (holder, digest, until) VALUES (?1, ?2, ?3) \
         ON CONFLICT (holder, digest) DO UPDATE SET until = excluded.until",
        &[holder.into(), digest.into(), until.into()],
    )?;
    Ok(())
}

/// What `holder` holds at `now`.
pub fn held(tx: &mut dyn Tx, holder: &str, now: Timestamp) -> Result<Vec<Digest>> {
    all(tx, "SELECT digest FROM lease WHERE holder = ?1 AND until > ?2", &[holder.into(), now.into()], |row| {
        row.digest(0)
    })
}

/// Let go of everything `holder` holds; each blob is reviewed from `due` on.
pub fn release(tx: &mut dyn Tx, holder: &str, due: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO gc_queue (kind, repo, digest, due) SELECT 2, 0, digest, ?2 FROM lease WHERE holder = ?1 \
         ON CONFLICT (kind, repo, digest) DO UPDATE SET due = excluded.due WHERE gc_queue.due > excluded.due",
        &[holder.into(), due.into()],
    )?;
    tx.execute("DELETE FROM lease WHERE holder = ?1", &[holder.into()])?;
    Ok(())
}

/// Forget leases whose time is over; each blob is reviewed.
pub fn expire_leases(tx: &mut dyn Tx, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO gc_queue (kind, repo, digest, due) SELECT DISTINCT 2, 0, digest, ?1 FROM lease WHERE until <= ?1 \
         ON CONFLICT (kind, repo, digest) DO UPDATE SET due = excluded.due WHERE gc_queue.due > excluded.due",
        &[now.into()],
    )?;
    tx.execute("DELETE FROM lease WHERE until <= ?1", &[now.into()])?;
    Ok(())
}

fn leased_until(tx: &mut dyn Tx, digest: &Digest, now: Timestamp) -> Result<Option<Timestamp>> {
    let sql = "SELECT MAX(until) FROM lease WHERE digest = ?1 AND until > ?2";
    Ok(one(tx, sql, &[digest.into(), now.into()], |row| row.opt_time(0))?.flatten())
}
