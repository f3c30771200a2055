//! The review queue of the garbage collector, and the leases that hold blobs.
//!
//! Whatever may have made something garbage puts it here in its own transaction, with the
//! time from which it may go. A review looks at the references again inside a transaction
//! of its own, so that a push which committed in between keeps what it needs. Removing a
//! blob's row leaves a [`Review::File`] behind until the file is gone too: a crash between
//! the two is picked up by the next round.

use std::time::Duration;

use portolan_types::{Digest, Timestamp};

use super::tx::{all, one};
use super::{RowExt, Tx, Value, blob, manifest, peer, repo};
use crate::{Error, Result};

/// How long a blob is left alone that somebody is just pushing.
const PUSH_WAIT: Duration = Duration::from_secs(1);

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

/// When a review is due; `None` when there is none.
pub fn due_of(tx: &mut dyn Tx, review: &Review) -> Result<Option<Timestamp>> {
    let sql = "SELECT due FROM gc_queue WHERE kind = ?1 AND repo = ?2 AND digest = ?3";
    one(tx, sql, &review.key(), |row| row.time(0))
}

/// Put a review off to then, if there is one and it is due earlier.
pub fn put_off(tx: &mut dyn Tx, review: &Review, due: Timestamp) -> Result<()> {
    let [kind, repo, digest] = review.key();
    let sql = "UPDATE gc_queue SET due = ?4 WHERE kind = ?1 AND repo = ?2 AND digest = ?3 AND due < ?4";
    tx.execute(sql, &[kind, repo, digest, due.into()])?;
    Ok(())
}

/// How many reviews there are, due or not, counted up to `limit`.
pub fn waiting(tx: &mut dyn Tx, limit: usize) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM gc_queue LIMIT ?1) AS few";
    Ok(one(tx, sql, &[limit.into()], |row| row.uint(0))?.unwrap_or(0))
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

/// Remove a blob's row if no repository may read it, no lease holds it and nobody is just
/// pushing it. True when the file is to be deleted: the caller does so before `until`,
/// keeping pushes of the same content out until then (by a lock, or by the review that this
/// leaves behind), and then dequeues [`Review::File`].
pub fn review_blob(tx: &mut dyn Tx, digest: &Digest, now: Timestamp, until: Timestamp) -> Result<bool> {
    let review = Review::Blob(*digest);
    if !is_due(tx, &review, now)? {
        return Ok(false);
    }
    if let Some(until) = leased_until(tx, digest, now)? {
        enqueue(tx, review, until)?;
        return Ok(false);
    }
    if peer::is_pushed(tx, digest)? {
        // Its link will have a review of its own; this one is for a push that fails.
        enqueue(tx, review, now.plus(PUSH_WAIT))?;
        return Ok(false);
    }
    dequeue(tx, &review)?;
    if blob::is_linked(tx, digest)? {
        return Ok(false);
    }
    tx.execute("DELETE FROM blob WHERE digest = ?1", &[digest.into()])?;
    enqueue(tx, Review::File(*digest), until)?;
    Ok(true)
}

/// Whether the file of a [`Review::File`] is to be deleted, before `until`: nobody pushed
/// the content again, or is about to, and nobody else is deleting it.
pub fn review_file(tx: &mut dyn Tx, digest: &Digest, now: Timestamp, until: Timestamp) -> Result<bool> {
    let review = Review::File(*digest);
    if !is_due(tx, &review, now)? {
        return Ok(false);
    }
    if blob::exists(tx, digest)? || leased_until(tx, digest, now)?.is_some() || peer::is_pushed(tx, digest)? {
        dequeue(tx, &review)?;
        return Ok(false);
    }
    enqueue(tx, review, until)?;
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
        "INSERT INTO gc_queue (kind, repo, digest, due) SELECT DISTINCT 2, 0, digest, CAST(?1 AS BIGINT) FROM lease WHERE until <= ?1 \
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::event::{self, Change, EventKind, Stamp, Subject};
    use super::super::group::{self, GroupRow};
    use super::super::manifest::{NewManifest, put};
    use super::super::registry::{self, RegistryRow};
    use portolan_testkit::postgres;

    use super::super::{Meta, PostgresConfig, tag};
    use super::*;

    const T: Timestamp = Timestamp(1_000_000_000);
    const GRACE: Duration = Duration::from_secs(60);

    fn change(registry: i64, hlc: i64) -> Change {
        let stamp = Stamp { hlc, region: Arc::from("here") };
        Change { registry, actor: "system".into(), request: "r".into(), now: T, stamp }
    }

    fn image(bytes: &'static [u8], blobs: &[Digest]) -> NewManifest {
        NewManifest {
            digest: Digest::of(bytes),
            media_type: "a/b".into(),
            bytes: bytes.into(),
            image_size: 1,
            config_media_type: None,
            architecture: None,
            os: None,
            subject: None,
            artifact_type: None,
            annotations: None,
            blobs: blobs.to_vec(),
            manifests: Vec::new(),
        }
    }

    /// Numbers 1 and 2.
    fn two_registries(tx: &mut dyn Tx) -> Result<()> {
        let group =
            GroupRow { name: "rg".parse().unwrap(), location: "l".into(), tags: "{}".into(), created: T, updated: T };
        group::put(tx, &group)?;
        for name in ["first", "second"] {
            let row = RegistryRow {
                id: 0,
                name: name.parse().unwrap(),
                group: group.name.clone(),
                location: "l".into(),
                sku: "Basic".into(),
                is_default: false,
                admin_enabled: false,
                admin_generations: [0, 0],
                tags: "{}".into(),
                properties: "{}".into(),
                created: T,
                updated: T,
            };
            registry::insert(tx, &row)?;
        }
        Ok(())
    }

    /// Run on a database without content.
    async fn with<R: Send + 'static>(f: impl FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static) -> R {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        let meta = match postgres::chosen_for(&path) {
            Some(url) => Meta::open_postgres(&PostgresConfig::new(url)),
            None => Meta::open_sqlite(&path),
        };
        let meta = meta.unwrap();
        let out = meta
            .write(|tx| {
                two_registries(tx)?;
                f(tx)
            })
            .await
            .unwrap();
        meta.close().await;
        out
    }

    #[test]
    fn the_same_on_postgres() {
        postgres::again(&["meta::gc::"], &[]);
    }

    #[tokio::test]
    async fn a_review_is_put_off_and_not_brought_forward() {
        with(|tx| {
            let review = Review::Blob(Digest::of(b"x"));
            enqueue(tx, review, T.plus(GRACE))?;
            enqueue(tx, review, T)?;
            assert!(due(tx, T, 10)?.is_empty());
            enqueue(tx, review, T.plus(GRACE * 2))?;
            assert!(due(tx, T.plus(GRACE), 10)?.is_empty());
            assert_eq!(due(tx, T.plus(GRACE * 2), 10)?, [review]);
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_manifest_that_came_in_time_keeps_its_link() {
        with(|tx| {
            let (kept, lost) = (Digest::of(b"kept"), Digest::of(b"lost"));
            let repo = repo::ensure(tx, &change(1, 1), &"a".parse().unwrap())?.id;
            for digest in [kept, lost] {
                blob::link(tx, repo, &digest, 4, T, GRACE)?;
            }
            put(tx, &change(1, 2), repo, &image(b"{}", &[kept]))?;
            let now = T.plus(GRACE);
            assert_eq!(review_link(tx, repo, &kept, now, now)?, LinkVerdict::Kept);
            assert_eq!(review_link(tx, repo, &lost, now, now)?, LinkVerdict::Removed { repo_removed: false });
            assert!(review_blob(tx, &lost, now, now)? && !blob::exists(tx, &lost)?);
            assert_eq!(due(tx, now, 10)?, [Review::File(lost)]);
            // The content comes again before its file is gone.
            blob::link(tx, repo, &lost, 4, now, GRACE)?;
            assert!(!review_file(tx, &lost, now, now)?);
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn an_empty_repository_goes_with_its_last_link() {
        with(|tx| {
            let name = "a".parse().unwrap();
            let digest = Digest::of(b"x");
            let id = repo::ensure(tx, &change(1, 1), &name)?.id;
            blob::link(tx, id, &digest, 1, T, GRACE)?;
            assert!(!repo::remove_if_unused(tx, id)?);
            let now = T.plus(GRACE);
            assert_eq!(review_link(tx, id, &digest, now, now)?, LinkVerdict::Removed { repo_removed: true });
            assert!(repo::find(tx, 1, &name)?.is_none());
            assert_ne!(repo::ensure(tx, &change(1, 2), &name)?.id, id, "ids are not used again");
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_deleted_registry_leaves_reviews_and_nothing_of_others() {
        with(|tx| {
            let (own, shared) = (Digest::of(b"own"), Digest::of(b"shared"));
            for (registry, blobs) in [(1, &[own, shared][..]), (2, &[shared])] {
                let change = change(registry, registry);
                let id = repo::ensure(tx, &change, &"a".parse().unwrap())?.id;
                for digest in blobs {
                    blob::link(tx, id, digest, 3, T, GRACE)?;
                }
                let manifest = image(b"{}", blobs);
                put(tx, &change, id, &manifest)?;
                tag::put(tx, &change, id, &"v1".parse().unwrap(), &manifest.digest)?;
            }
            assert_eq!(super::super::usage::of_registry(tx, 1)?.bytes, 6);
            repo::delete_registry(tx, 1, T)?;
            assert!(repo::find(tx, 1, &"a".parse().unwrap())?.is_none());
            let other = repo::find(tx, 2, &"a".parse().unwrap())?.unwrap();
            assert!(other.visible && tag::find(tx, other.id, &"v1".parse().unwrap())?.is_some());
            assert!(review_blob(tx, &own, T, T)? && !review_blob(tx, &shared, T, T)?);
            assert_eq!(blob::size_in(tx, other.id, &shared)?, Some(3));
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn events_keep_their_order_and_the_newest_stamp() {
        with(|tx| {
            assert_eq!(event::last_hlc(tx)?, 0);
            for (hlc, kind) in [(5, EventKind::ManifestPushed), (9, EventKind::TagSet), (12, EventKind::TagDeleted)] {
                event::append(tx, &change(1, hlc), &"a".parse().unwrap(), kind, Subject::default())?;
            }
            assert_eq!(event::last_hlc(tx)?, 12);
            let kinds = event::after(tx, 1, 1, 10)?.into_iter().map(|e| e.kind).collect::<Vec<_>>();
            assert_eq!(kinds, ["tag.set", "tag.deleted"]);
            assert!(event::after(tx, 2, 0, 10)?.is_empty());
            Ok(())
        })
        .await;
    }
}
