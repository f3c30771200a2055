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
//! 3. Uploads without a byte for [`UPLOAD_IDLE`] are forgotten. Upload files without a row
//!    belong to one request; those of a process that is gone are forgotten at once, the
//!    others with their request.
//!
//! **Against pushes at the same time.** The danger is in the middle of 2: the row is gone,
//! the file not yet, and a push of the same content finds the file in place, commits a new
//! row, answers 201, and then the file is deleted. So the collector holds the content's
//! lock exclusively from its transaction until the file is gone, and a push holds it shared
//! from before it puts its file in place until its rows are committed
//! (`content::DigestLocks`, [`crate::push`]). A mount or a manifest needs no lock: it only
//! adds rows that lean on a link, and the collector looks for links and references in the
//! transaction in which it removes. The lock also orders HEAD and step 1.
//!
//! A crash after a pushed file was put in place and before its rows were committed leaves
//! a file that nothing names. It answers no request; the next push of that content adopts it.
//!
//! **With several servers on one database** locks in a process are not enough, and rows take
//! their place. Write transactions are serial. Let *P* be the transaction in which a push
//! announces itself, *F* the placing of its file, *L* the transaction that links it and ends
//! the push; *C* the collector's transaction, *D* the deletion of the file, *E* the
//! transaction that ends it. Between *C* and *E* a *file* review stands in the queue, due
//! [`CLAIM`] later, and says that somebody is deleting.
//!
//! - *P* before *C*: *C* sees the push and removes nothing until *L* or until the push is
//!   given up. After *L* it sees the link.
//! - *C* before *P*: *P* sees the file review, and *F* waits until it is gone. So *F* comes
//!   after *D*, and the file is put in place anew.
//! - The pusher dies after *P*: its server's row ends, and takes *P* away; the file, if *F*
//!   was done, gets a file review and is deleted unless it is linked. It dies after *L*:
//!   it was acknowledged, or not, and is there.
//! - The pusher pauses between *P* and *L* for so long that its server is taken for dead:
//!   *C* and *D* may come in between. *L* finds *P* gone, writes nothing, and the push begins
//!   again at *P*; the content that is not there any more is not acknowledged.
//! - The collector dies between *C* and *E*: the file review is left. A push waits until it
//!   is due, does away with it and keeps the file, if there still is one; with no push,
//!   whoever collects next finds it due and deletes.
//! - The collector pauses between *C* and *D*: it begins *D* only within [`DELETE_START`] of
//!   the beginning of *C* and gives it up after [`DELETE_TIME`], both far less than
//!   [`CLAIM`], by a clock that only counts. A pause between looking at that clock and the
//!   sending of the request is the one thing that only the storage could refuse: it would
//!   have to last for half a minute, in one place between two instructions, with a push of
//!   the same content waiting.
//! - Two servers collect at once: one of them has *C*; for the other the review is done. The
//!   duty to collect ([`crate::peers`]) saves work and protects nothing.
//! - *D* fails: the file review stays, and is due after [`CLAIM`], since nobody knows
//!   whether the storage will do it yet.
//!
//! A HEAD that leads to a push is kept in mind by one process only. There, instead, it puts
//! off the link's review in the queue, when there is one that would come too soon, and a
//! deleted manifest's blobs stay for the time that a HEAD is good for. A blob that comes in
//! one request has no upload row: its push row says whose its bytes are.

use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use portolan_store::meta::gc::{self, LinkVerdict, Review};
use portolan_store::meta::{blob, peer, repo, upload};
use portolan_types::{Digest, Timestamp, UploadId};

use crate::cache::Evict;
use crate::content::detached;
use crate::service::Service;
use crate::{Error, Kind, Result};

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
/// Waiting reviews are counted up to this number.
pub const WAITING_MAX: usize = 1_000_000;
/// Reviews at one time.
const PARALLEL_MAX: usize = 8;
/// Reviews read from the queue at one time.
const BATCH_ITEMS_MAX: usize = 500;
/// On a shared database: how long a deletion keeps pushes of the same content waiting when
/// it does not end.
pub const CLAIM: Duration = Duration::from_secs(60);
/// How soon after it was decided the deletion of a file begins, or not at all.
const DELETE_START: Duration = Duration::from_secs(10);
/// How long it may take.
const DELETE_TIME: Duration = Duration::from_secs(20);
/// How old an upload's bytes without a row must be on a shared database: the clocks of the
/// blob store and of the servers are not one.
const ROWLESS_AGE: Duration = Duration::from_secs(600);
/// The same where this process alone takes uploads: written before it began, and a little,
/// since files are dated by a coarser clock.
const ROWLESS_BEFORE_START: Duration = Duration::from_secs(1);
/// Uploads looked at in one transaction.
const LOOK_ITEMS_MAX: usize = 1_000;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Reviews looked at: all that a round costs.
    pub reviews: u64,
    /// Links taken away.
    pub links: u64,
    /// Blobs deleted.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
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
        if !self.collects().await? {
            return Ok(collected);
        }
        let (begun, shared) = (Instant::now(), self.is_shared());
        self.meta
            .write(move |tx| {
                if shared {
                    peer::expire(tx, Timestamp::now(), now)?;
                }
                gc::expire_leases(tx, now).map_err(Error::from)
            })
            .await?;
        self.expire_uploads(now, &mut collected).await?;
        let mut seen = 0;
        while seen < ROUND_ITEMS_MAX {
            // A claim counts from when it is made, not from when a long round began.
            let now = if shared { now.plus(begun.elapsed()) } else { now };
            let batch = self.meta.read(move |tx| gc::due(tx, now, BATCH_ITEMS_MAX).map_err(Error::from)).await?;
            // Another server may have taken over in the middle of a long round.
            if batch.is_empty() || !self.collects().await? {
                break;
            }
            seen += batch.len();
            collected.reviews += batch.len() as u64;
            let failed_before = collected.failed;
            let results = futures_util::stream::iter(batch)
                .map(|review| async move { (review, self.review(review, now).await) })
                .buffer_unordered(PARALLEL_MAX)
                .collect::<Vec<_>>()
                .await;
            for (review, result) in results {
                match (review, result) {
                    (_, Ok(None)) => {}
                    (Review::Link { .. }, Ok(Some(_))) => collected.links += 1,
                    (_, Ok(Some(bytes))) => {
                        collected.blobs += 1;
                        collected.bytes += bytes;
                    }
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

    /// How many reviews wait in the queue, due or not, counted up to [`WAITING_MAX`].
    ///
    /// Errors: a store that cannot be read.
    pub async fn garbage_waiting(&self) -> Result<u64> {
        self.meta.read(|tx| gc::waiting(tx, WAITING_MAX).map_err(Error::from)).await
    }

    /// The bytes that went; `None` when nothing did.
    async fn review(&self, review: Review, now: Timestamp) -> Result<Option<u64>> {
        match review {
            Review::Link { repo, digest } => self.review_link(repo, digest, now).await,
            Review::Blob(digest) | Review::File(digest) => self.review_content(review, digest, now).await,
        }
    }

    async fn review_link(&self, repo: i64, digest: Digest, now: Timestamp) -> Result<Option<u64>> {
        let guard = self.content.locks.exclusive(&digest).await;
        // Empty on a shared database.
        let touched = self.content.caches.touched.get(&(repo, digest));
        let grace = self.config.graces.touch;
        let spared_until = touched.map(|at| at.plus(grace)).filter(|until| *until > now);
        self.commit(guard, move |tx, evict| {
            let review = Review::Link { repo, digest };
            if let Some(until) = spared_until {
                gc::enqueue(tx, review, until)?;
                return Ok(None);
            }
            match gc::review_link(tx, repo, &digest, now, now)? {
                LinkVerdict::Kept => Ok(None),
                LinkVerdict::Removed { .. } => {
                    evict.push(Evict::Blob(repo, digest));
                    Ok(Some(0))
                }
            }
        })
        .await
    }

    async fn review_content(&self, review: Review, digest: Digest, now: Timestamp) -> Result<Option<u64>> {
        let (shared, begun) = (self.is_shared(), Instant::now());
        // Alone, the lock keeps others out, and the review can be tried again at once.
        let until = if shared { now.plus(CLAIM) } else { now };
        let guard = self.content.locks.exclusive(&digest).await;
        let (meta, blobs) = (self.meta.clone(), std::sync::Arc::clone(&self.blobs));
        detached(async move {
            let (gone, size) = meta
                .write(move |tx| {
                    let size = blob::stored_size(tx, &digest)?;
                    let gone = match review {
                        Review::File(_) => gc::review_file(tx, &digest, now, until)?,
                        _ => gc::review_blob(tx, &digest, now, until)?,
                    };
                    Ok::<_, Error>((gone, size))
                })
                .await?;
            // A file without a row: nothing else knows how long it is.
            let size = match size {
                None if gone => blobs.size(&digest).await?,
                size => size,
            };
            if gone && shared {
                if begun.elapsed() > DELETE_START {
                    let message = "too much time went by since the deletion of a file was decided";
                    return Err(Error::new(Kind::Unavailable, "UNAVAILABLE", message));
                }
                let delete = tokio::time::timeout(DELETE_TIME, blobs.delete(&digest)).await;
                delete.map_err(|e| {
                    let message = "the blob store did not delete a file in time";
                    Error::new(Kind::Unavailable, "UNAVAILABLE", message).with_source(e)
                })??;
            } else if gone {
                blobs.delete(&digest).await?;
            }
            if gone {
                meta.write(move |tx| gc::dequeue(tx, &Review::File(digest)).map_err(Error::from)).await?;
            }
            drop(guard);
            Ok(gone.then_some(size.unwrap_or(0)))
        })
        .await
    }

    async fn expire_uploads(&self, now: Timestamp, collected: &mut Collected) -> Result<()> {
        let before = Timestamp(now.0.saturating_sub(micros(self.config.graces.upload_idle)));
        let idle = self.meta.read(move |tx| upload::idle(tx, before, ROUND_ITEMS_MAX).map_err(Error::from)).await?;
        for (id, repo) in idle {
            collected.uploads += u64::from(self.forget_upload(id, Some(repo)).await?);
        }
        // Bytes without a row: the registry was deleted, or the server died under a request
        // that was an upload of its own. Those under way are known: rows come before bytes.
        let older = match self.is_shared() {
            true => before.max(Timestamp(now.0.saturating_sub(micros(ROWLESS_AGE)))),
            false => before.max(Timestamp(self.content.opened.0.saturating_sub(micros(ROWLESS_BEFORE_START)))),
        };
        let Ok(since_epoch) = u64::try_from(older.0) else { return Ok(()) };
        let older = SystemTime::UNIX_EPOCH + Duration::from_micros(since_epoch);
        let mut left = ROUND_ITEMS_MAX;
        for some in self.blobs.stale_uploads(older).await?.chunks(LOOK_ITEMS_MAX) {
            let some: Vec<UploadId> = some.iter().copied().filter(|id| !self.content.is_direct(*id)).collect();
            let rowless = self.meta.read(move |tx| {
                let mut rowless = Vec::new();
                for id in some {
                    if !upload::exists(tx, id)? && !peer::is_pushing_from(tx, id)? {
                        rowless.push(id);
                    }
                }
                Ok::<_, Error>(rowless)
            });
            for id in rowless.await?.into_iter().take(left) {
                left -= 1;
                collected.uploads += u64::from(self.forget_upload(id, None).await?);
            }
        }
        Ok(())
    }

    /// Forget an upload unless a request is writing to it just now.
    async fn forget_upload(&self, id: UploadId, repo: Option<i64>) -> Result<bool> {
        let Some(claim) = self.claim_upload(id).await? else { return Ok(false) };
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
            Ok(())
        })
        .await?;
        claim.release().await?;
        Ok(true)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
