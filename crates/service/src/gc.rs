//! Collecting garbage while the registry is in use.
//!
//! Everything that may have made something garbage left a review in the queue, in its own
//! transaction, with the time from which it may go (see `store::meta::gc`). A round of
//! [`Service::collect_garbage`] takes what is due and looks again:
//!
//! 1. A *link* (this repository may read that blob) goes when no manifest of the
//!    repository needs the blob. A fresh link has [`LINK_GRACE`] for its manifest to come,
//!    one that a deleted manifest needed has [`UNLINK_GRACE`], and one that a push asked
//!    about with HEAD, and so will not upload again, has [`TOUCH_GRACE`] from then.
//! 2. A *blob* goes when no link and no lease is left: first its row, in one transaction
//!    that also leaves a *file* review behind, then the file, then that review. A crash in
//!    between is picked up by the next round.
//! 3. Uploads without a byte for [`UPLOAD_IDLE`] are forgotten; so are upload files without
//!    a row, unless the one request that they belong to is still under way.
//!
//! **Against pushes at the same time.** The danger is in the middle of 2: the row is gone,
//! the file not yet, and a push of the same content finds the file in place, commits a new
//! row, answers 201, and then the file is deleted. So the collector holds the content's
//! lock exclusively from its transaction until the file is gone, and a push holds it shared
//! from before it puts its file in place until its rows are committed
//! (`content::DigestLocks`). A mount or a manifest needs no lock: it only adds rows that
//! lean on a link, and the collector looks for links and references in the transaction in
//! which it removes. The lock also orders HEAD and step 1. Locks are in this process; when
//! several servers share a store, one of them collects, and the lock becomes the
//! database's.
//!
//! A crash after a pushed file was put in place and before its rows were committed leaves
//! a file that nothing names. It answers no request; the next push of that content adopts it.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use portolan_store::meta::gc::{self, LinkVerdict, Review};
use portolan_store::meta::{repo, upload};
use portolan_types::{Digest, Timestamp, UploadId};

use crate::cache::Evict;
use crate::content::detached;
use crate::service::Service;
use crate::{Error, Result};

/// How long an uploaded or mounted blob waits for a manifest that needs it.
pub const LINK_GRACE: Duration = Duration::from_secs(24 * 3_600);
/// How long a blob stays after the last manifest that needed it went.
pub const UNLINK_GRACE: Duration = Duration::from_secs(600);
/// How long a blob stays after a push asked whether it is here.
pub const TOUCH_GRACE: Duration = Duration::from_secs(3_600);
/// How long an upload may go without a byte.
pub const UPLOAD_IDLE: Duration = Duration::from_secs(24 * 3_600);

/// How long what may be garbage is left alone, as this server is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graces {
    /// See [`LINK_GRACE`].
    pub link: Duration,
    /// See [`UNLINK_GRACE`].
    pub unlink: Duration,
    /// See [`TOUCH_GRACE`].
    pub touch: Duration,
    /// See [`UPLOAD_IDLE`].
    pub upload_idle: Duration,
}

impl Default for Graces {
    fn default() -> Graces {
        Graces { link: LINK_GRACE, unlink: UNLINK_GRACE, touch: TOUCH_GRACE, upload_idle: UPLOAD_IDLE }
    }
}
/// Reviews, and idle uploads, of one round.
pub const ROUND_ITEMS_MAX: usize = 10_000;
/// Reviews at one time.
const PARALLEL_MAX: usize = 8;
/// Reviews read from the queue at one time.
const BATCH_ITEMS_MAX: usize = 500;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Links taken away.
    pub links: u64,
    /// Blobs deleted.
    pub blobs: u64,
    /// Uploads forgotten.
    pub uploads: u64,
    /// Reviews that failed and will be tried again; each was logged.
    pub failed: u64,
}

impl Service {
    /// One round: everything that is due at `now`, up to [`ROUND_ITEMS_MAX`]. Call it every
    /// minute or so; rounds may not overlap, and a second call waits for the first.
    ///
    /// Errors: a store that cannot be read. One item that fails does not stop the others.
    pub async fn collect_garbage(&self, now: Timestamp) -> Result<Collected> {
        let _round = self.content.collecting.lock().await;
        let mut collected = Collected::default();
        self.meta.write(move |tx| gc::expire_leases(tx, now).map_err(Error::from)).await?;
        self.expire_uploads(now, &mut collected).await?;
        let mut seen = 0;
        while seen < ROUND_ITEMS_MAX {
            let batch = self.meta.read(move |tx| gc::due(tx, now, BATCH_ITEMS_MAX).map_err(Error::from)).await?;
            if batch.is_empty() {
                break;
            }
            seen += batch.len();
            let failed_before = collected.failed;
            let results = futures_util::stream::iter(batch)
                .map(|review| async move { (review, self.review(review, now).await) })
                .buffer_unordered(PARALLEL_MAX)
                .collect::<Vec<_>>()
                .await;
            for (review, result) in results {
                match (review, result) {
                    (Review::Link { .. }, Ok(gone)) => collected.links += u64::from(gone),
                    (_, Ok(gone)) => collected.blobs += u64::from(gone),
                    (_, Err(error)) => {
                        tracing::error!(%error, ?review, cause = ?error.source, "collect garbage");
                        collected.failed += 1;
                    }
                }
            }
            if collected.failed > failed_before {
                // What failed is still in the queue: leave it to the next round.
                break;
            }
        }
        Ok(collected)
    }

    async fn review(&self, review: Review, now: Timestamp) -> Result<bool> {
        match review {
            Review::Link { repo, digest } => self.review_link(repo, digest, now).await,
            Review::Blob(digest) | Review::File(digest) => self.review_content(review, digest, now).await,
        }
    }

    async fn review_link(&self, repo: i64, digest: Digest, now: Timestamp) -> Result<bool> {
        let guard = self.content.locks.exclusive(&digest).await;
        let touched = self.content.caches.touched.get(&(repo, digest));
        let grace = self.config.graces.touch;
        let spared_until = touched.map(|at| at.plus(grace)).filter(|until| *until > now);
        self.commit(guard, move |tx, evict| {
            let review = Review::Link { repo, digest };
            if let Some(until) = spared_until {
                gc::enqueue(tx, review, until)?;
                return Ok(false);
            }
            match gc::review_link(tx, repo, &digest, now, now)? {
                LinkVerdict::Kept => Ok(false),
                LinkVerdict::Removed { .. } => {
                    evict.push(Evict::Blob(repo, digest));
                    Ok(true)
                }
            }
        })
        .await
    }

    async fn review_content(&self, review: Review, digest: Digest, now: Timestamp) -> Result<bool> {
        let guard = self.content.locks.exclusive(&digest).await;
        let (meta, blobs) = (self.meta.clone(), std::sync::Arc::clone(&self.blobs));
        detached(async move {
            let gone = meta
                .write(move |tx| {
                    Ok::<_, Error>(match review {
                        Review::File(_) => gc::review_file(tx, &digest, now)?,
                        _ => gc::review_blob(tx, &digest, now)?,
                    })
                })
                .await?;
            if gone {
                blobs.delete(&digest).await?;
                meta.write(move |tx| gc::dequeue(tx, &Review::File(digest)).map_err(Error::from)).await?;
            }
            drop(guard);
            Ok(gone)
        })
        .await
    }

    async fn expire_uploads(&self, now: Timestamp, collected: &mut Collected) -> Result<()> {
        let before = Timestamp(
            now.0.saturating_sub(i64::try_from(self.config.graces.upload_idle.as_micros()).unwrap_or(i64::MAX)),
        );
        let idle = self.meta.read(move |tx| upload::idle(tx, before, ROUND_ITEMS_MAX).map_err(Error::from)).await?;
        for (id, repo) in idle {
            collected.uploads += u64::from(self.forget_upload(id, Some(repo)).await?);
        }
        // Files whose row is gone: the registry was deleted, or the row was never written.
        let Ok(micros) = u64::try_from(before.0) else { return Ok(()) };
        let older = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
        for id in self.blobs.stale_uploads(older).await?.into_iter().take(ROUND_ITEMS_MAX) {
            if self.content.is_direct(id) {
                continue;
            }
            if !self.meta.read(move |tx| upload::exists(tx, id).map_err(Error::from)).await? {
                collected.uploads += u64::from(self.forget_upload(id, None).await?);
            }
        }
        Ok(())
    }

    /// Forget an upload unless a request is writing to it just now.
    async fn forget_upload(&self, id: UploadId, repo: Option<i64>) -> Result<bool> {
        match self.blobs.abort(id).await {
            Err(portolan_store::Error::Conflict(_)) => return Ok(false),
            Err(e) => return Err(e.into()),
            Ok(_) => {}
        }
        self.commit((), move |tx, _| {
            upload::delete(tx, id)?;
            if let Some(repo) = repo {
                repo::remove_if_unused(tx, repo)?;
            }
            Ok(true)
        })
        .await
    }
}
