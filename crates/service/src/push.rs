//! Content on its way into the store, kept apart from the garbage collector.
//!
//! [`Push`] is what every way of bringing content in holds from before its file gets its
//! name until its rows are committed; `gc` tells what for. Alone on a database it is a lock
//! in this process. On a shared one it is rows besides, which the collector of any server
//! looks at (`store::meta::peer`):
//!
//! 1. [`Push::begin`] commits a row. From here on nobody begins to delete the content.
//! 2. [`Push::ready`] waits for a deletion that had begun before, if there is one.
//! 3. The caller puts the file in place.
//! 4. [`Push::land`] commits the caller's rows and takes its own away, in one transaction.
//!    When its own are gone, this server was taken for dead meanwhile and the content may
//!    have been deleted: the push begins anew at 1, and goes on only if the content is there.
//!
//! A push that fails leaves a review behind, so that a file without rows does not stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use portolan_store::blob::Blobs;
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::{Meta, Tx, peer};
use portolan_types::{Digest, Timestamp, UploadId};
use tokio::sync::OwnedRwLockReadGuard;

use crate::content::Content;
use crate::peers::{LIFE, Peer};
use crate::service::Service;
use crate::{Error, Kind, Result};

/// How long a push waits for a deletion of the same content. Longer than a deletion may take.
const WAIT_SECS_MAX: u64 = 90;
/// How often it looks, at first and at most.
const LOOK_MILLIS: u64 = 10;
const LOOK_MILLIS_MAX: u64 = 500;
/// How often a push begins anew.
const TRIES_MAX: usize = 3;

/// See the module.
pub(crate) struct Push {
    meta: Meta,
    blobs: Arc<dyn Blobs>,
    content: Arc<Content>,
    digests: Vec<Digest>,
    /// The caller's clock, and when it was read.
    now: (Timestamp, Instant),
    guards: Vec<OwnedRwLockReadGuard<()>>,
    /// On a shared database.
    row: Option<Row>,
    /// The content may have been put in place.
    placed: bool,
}

struct Row {
    peer: Arc<Peer>,
    n: i64,
    source: Source,
    /// What somebody may be deleting still.
    busy: Vec<Digest>,
    open: bool,
}

/// Where the content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It is in the store already.
    Store,
    /// An upload that has no row of its own.
    Direct(UploadId),
    /// An upload that has one; the push claims it.
    Upload(UploadId),
}

/// Numbers for what this server has in hand.
#[derive(Default)]
pub(crate) struct Numbers(AtomicI64);

impl Numbers {
    pub(crate) fn next(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Push {
    /// Begin to bring this content in.
    ///
    /// Errors: `BLOB_UPLOAD_INVALID` as `Conflict` while another request writes to the upload.
    pub(crate) async fn begin(service: &Service, digests: Vec<Digest>, source: Source, now: Timestamp) -> Result<Push> {
        let peer = service.content.peer.clone().filter(|_| !digests.is_empty());
        let row = peer.map(|peer| Row { n: 0, peer, source, busy: Vec::new(), open: false });
        let mut push = Push {
            meta: service.meta.clone(),
            blobs: Arc::clone(&service.blobs),
            content: Arc::clone(&service.content),
            digests,
            now: (now, Instant::now()),
            guards: Vec::new(),
            row,
            placed: false,
        };
        push.announce().await?;
        Ok(push)
    }

    async fn announce(&mut self) -> Result<()> {
        let now = self.time();
        let Some(row) = &mut self.row else { return Ok(()) };
        row.n = row.peer.numbers.next();
        // From here on a row may be there, even when the answer does not come.
        row.open = true;
        let (digests, source, server, n) = (self.digests.clone(), row.source, row.peer.id.clone(), row.n);
        let busy = self
            .meta
            .write(move |tx| {
                let clock = Timestamp::now();
                let until = clock.plus(LIFE);
                if let Source::Upload(id) = source
                    && !peer::claim_upload(tx, id, &server, n, until, clock)?
                {
                    return Ok(None);
                }
                let direct = match source {
                    Source::Direct(id) => Some(id),
                    _ => None,
                };
                peer::begin_push(tx, &server, n, &digests, direct, until)?;
                Ok::<_, Error>(Some(peer::deleting(tx, &digests, now)?))
            })
            .await?;
        match busy {
            Some(busy) => row.busy = busy,
            None => {
                row.open = false;
                return Err(crate::uploads::busy());
            }
        }
        Ok(())
    }

    /// Wait until nobody is deleting this content. The caller then puts it in place.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        self.placed = true;
        if self.guards.is_empty() {
            self.guards = self.content.locks.shared_all(&self.digests).await;
        }
        let Some(row) = &self.row else { return Ok(()) };
        let mut busy = row.busy.clone();
        #[cfg(test)]
        let _waiting = (!busy.is_empty()).then(|| self.content.locks.note_waiting());
        let until = Instant::now() + Duration::from_secs(WAIT_SECS_MAX);
        let mut pause = Duration::from_millis(LOOK_MILLIS);
        while !busy.is_empty() {
            if Instant::now() >= until {
                let message = "the same content is just being deleted; try again";
                return Err(Error::new(Kind::Unavailable, "UNAVAILABLE", message));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(LOOK_MILLIS_MAX));
            let (digests, now) = (busy.clone(), self.time());
            // Reading is enough as long as the deletion goes on.
            let done = self.meta.read({
                let digests = digests.clone();
                move |tx| {
                    for digest in &digests {
                        if gc::due_of(tx, &Review::File(*digest))?.is_some_and(|due| due > now) {
                            return Ok::<_, Error>(false);
                        }
                    }
                    Ok(true)
                }
            });
            if done.await? {
                busy = self.meta.write(move |tx| peer::deleting(tx, &digests, now).map_err(Error::from)).await?;
            }
        }
        if let Some(row) = &mut self.row {
            row.busy.clear();
        }
        Ok(())
    }

    /// Commit the rows that say the content is here: what `f` writes. It may run more than
    /// once; only one run is kept.
    pub(crate) async fn land<T, F>(self, f: F) -> Result<T>
    where
        F: Fn(&mut dyn Tx) -> Result<T> + Clone + Send + 'static,
        T: Send + 'static,
    {
        self.commit(f, true).await
    }

    /// [`Push::land`] of rows that hold the content if it is here.
    pub(crate) async fn hold<T, F>(self, f: F) -> Result<T>
    where
        F: Fn(&mut dyn Tx) -> Result<T> + Clone + Send + 'static,
        T: Send + 'static,
    {
        self.commit(f, false).await
    }

    async fn commit<T, F>(mut self, f: F, needed: bool) -> Result<T>
    where
        F: Fn(&mut dyn Tx) -> Result<T> + Clone + Send + 'static,
        T: Send + 'static,
    {
        for _ in 0..TRIES_MAX {
            let own = self.row.as_ref().map(|row| (row.peer.id.clone(), row.n));
            let f = f.clone();
            let done = self
                .meta
                .write(move |tx| match own {
                    Some((server, n)) if !peer::end_push(tx, &server, n)? => Ok(None),
                    _ => f(tx).map(Some),
                })
                .await?;
            if let Some(value) = done {
                if let Some(row) = &mut self.row {
                    row.open = false;
                }
                return Ok(value);
            }
            tracing::warn!("other servers took this one for dead in the middle of a push; it begins anew");
            self.announce().await?;
            self.ready().await?;
            if needed && let Some(digest) = self.missing().await? {
                let message = format!("the content of {digest} was lost while it came in; push it again");
                return Err(Error::new(Kind::Unavailable, "UNAVAILABLE", message));
            }
        }
        Err(Error::new(Kind::Unavailable, "UNAVAILABLE", "the server is too slow to finish this; try again"))
    }

    async fn missing(&self) -> Result<Option<Digest>> {
        for digest in &self.digests {
            if self.blobs.size(digest).await?.is_none() {
                return Ok(Some(*digest));
            }
        }
        Ok(None)
    }

    fn time(&self) -> Timestamp {
        self.now.0.plus(self.now.1.elapsed())
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        let now = self.time();
        let Some(row) = self.row.take().filter(|row| row.open) else { return };
        let (meta, guards, placed) = (self.meta.clone(), std::mem::take(&mut self.guards), self.placed);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let (server, n) = (row.peer.id.clone(), row.n);
            let done = meta.write(move |tx| {
                if placed {
                    peer::abandon_push(tx, &server, n, now)?;
                }
                peer::end_push(tx, &server, n).map_err(Error::from)
            });
            let done = done.await;
            if let Err(error) = done {
                // It goes with the server's row, at the latest.
                tracing::warn!(%error, "take back what a failed push announced");
            }
            drop(guards);
        });
    }
}
