//! What the data plane keeps in memory: caches, the clock that stamps rows, and the locks
//! that keep the garbage collector and pushes of the same content apart.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use portolan_auth::access::Principal;
use portolan_store::meta::event::{self, Change, Stamp};
use portolan_store::meta::{Meta, Tx};
use portolan_types::{Digest, Timestamp, UploadId};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tracing::Instrument;

use crate::cache::{Caches, Evict};
use crate::ctx::with_request_id;
use crate::peers::Peer;
use crate::registries::Registry;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// The data plane's state, one per server.
pub(crate) struct Content {
    pub(crate) caches: Caches,
    pub(crate) locks: DigestLocks,
    /// Held by a round of the garbage collector.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// Uploads of one request: they have no row, and live as long as the request.
    direct: Mutex<HashSet<UploadId>>,
    /// When this process began to take uploads.
    pub(crate) opened: Timestamp,
    /// This server among others on its database; none when it is alone.
    pub(crate) peer: Option<Arc<Peer>>,
    clock: Clock,
    region: Arc<str>,
}

impl Content {
    /// Begin with empty caches, and a clock that goes on from the newest event.
    pub(crate) async fn open(meta: &Meta, region: &str, peer: Option<Arc<Peer>>) -> Result<Arc<Content>> {
        let last = meta.read(|tx| event::last_hlc(tx).map_err(Error::from)).await?;
        Ok(Arc::new(Content {
            caches: Caches::new(),
            locks: DigestLocks::new(),
            collecting: tokio::sync::Mutex::new(()),
            direct: Mutex::default(),
            opened: Timestamp::now(),
            peer,
            clock: Clock(AtomicI64::new(last)),
            region: Arc::from(region),
        }))
    }

    /// Whether a request is at work on an upload of its own under that id.
    pub(crate) fn is_direct(&self, id: UploadId) -> bool {
        self.direct.lock().contains(&id)
    }
}

/// An upload that begins and ends within one request. While this lives the collector leaves
/// the upload's file alone, however old it looks.
pub(crate) struct DirectUpload {
    /// Its id in the blob store.
    pub(crate) id: UploadId,
    content: Arc<Content>,
}

impl DirectUpload {
    pub(crate) fn begin(content: &Arc<Content>) -> DirectUpload {
        let id = UploadId::random();
        content.direct.lock().insert(id);
        DirectUpload { id, content: Arc::clone(content) }
    }
}

impl Drop for DirectUpload {
    fn drop(&mut self) {
        self.content.direct.lock().remove(&self.id);
    }
}

/// A hybrid logical clock: the time, pushed forward so that no value comes twice and none
/// goes back, whatever the system's clock does.
struct Clock(AtomicI64);

impl Clock {
    /// Go on from a stamp of another server.
    fn heard(&self, stamp: i64) {
        self.0.fetch_max(stamp, Ordering::Relaxed);
    }

    fn stamp(&self, now: Timestamp) -> i64 {
        let next = |last: i64| now.0.max(last.saturating_add(1));
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }
}

const STRIPES: usize = 256;

/// Locks on content by digest, striped. A push holds the shared side from before its file
/// is put in place until its rows are committed; the collector holds the exclusive side
/// from its last look at the rows until the file is gone (see [`crate::gc`]).
pub(crate) struct DigestLocks {
    stripes: Vec<Arc<RwLock<()>>>,
    /// Pushes waiting for the collector, for the test of exactly that.
    #[cfg(test)]
    pub(crate) waiting: std::sync::atomic::AtomicUsize,
}

impl DigestLocks {
    fn new() -> DigestLocks {
        DigestLocks {
            stripes: (0..STRIPES).map(|_| Arc::new(RwLock::new(()))).collect(),
            #[cfg(test)]
            waiting: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    fn stripe(&self, digest: &Digest) -> Arc<RwLock<()>> {
        let at = digest.bytes().first().map_or(0, |b| usize::from(*b));
        Arc::clone(&self.stripes[at % STRIPES])
    }

    /// The side of pushes and of questions that lead to a push.
    pub(crate) async fn shared(&self, digest: &Digest) -> OwnedRwLockReadGuard<()> {
        #[cfg(test)]
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let guard = self.stripe(digest).read_owned().await;
        #[cfg(test)]
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        guard
    }

    /// The shared side for many digests, each stripe once and in one order, so that two
    /// callers cannot wait for each other.
    pub(crate) async fn shared_all(&self, digests: &[Digest]) -> Vec<OwnedRwLockReadGuard<()>> {
        let mut stripes: Vec<usize> =
            digests.iter().map(|d| d.bytes().first().map_or(0, |b| usize::from(*b)) % STRIPES).collect();
        stripes.sort_unstable();
        stripes.dedup();
        #[cfg(test)]
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guards = Vec::with_capacity(stripes.len());
        for at in stripes {
            guards.push(Arc::clone(&self.stripes[at]).read_owned().await);
        }
        #[cfg(test)]
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        guards
    }

    /// Count a push that waits for a deletion by another server, for the tests.
    #[cfg(test)]
    pub(crate) fn note_waiting(&self) -> impl Drop + '_ {
        struct Waiting<'l>(&'l DigestLocks);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.waiting.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(self)
    }

    /// The collector's side.
    pub(crate) async fn exclusive(&self, digest: &Digest) -> OwnedRwLockWriteGuard<()> {
        self.stripe(digest).write_owned().await
    }
}

impl Service {
    /// What every row that this request writes is marked with.
    pub(crate) fn change(&self, ctx: &Ctx, registry: &Registry) -> Change {
        Change {
            registry: registry.id,
            actor: owner(&ctx.principal),
            request: ctx.request_id.clone(),
            now: ctx.now,
            stamp: Stamp { hlc: self.content.clock.stamp(ctx.now), region: Arc::clone(&self.content.region) },
        }
    }

    /// [`Service::commit`] of what is logged and stamped. Servers on one database share a
    /// region and have clocks of their own, so there a stamp is moved past the newest one in
    /// the log: transactions are serial, so stamps go up in the order of the commits.
    pub(crate) async fn commit_change<T, F>(&self, change: Change, f: F) -> Result<T>
    where
        F: FnOnce(&mut dyn Tx, &Change, &mut Vec<Evict>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (shared, content) = (self.is_shared(), Arc::clone(&self.content));
        self.commit((), move |tx, evict| {
            let mut change = change;
            if shared {
                change.stamp.hlc = change.stamp.hlc.max(event::last_hlc(tx)?.saturating_add(1));
                content.clock.heard(change.stamp.hlc);
            }
            f(tx, &change, evict)
        })
        .await
    }

    /// Write, and when it is committed drop from the caches what `f` put on its list. A
    /// task of its own does both, holding `guard` until then: a client that goes away in
    /// the middle cannot leave a committed change beside a cache that does not know it.
    pub(crate) async fn commit<T, F>(&self, guard: impl Send + 'static, f: F) -> Result<T>
    where
        F: FnOnce(&mut dyn Tx, &mut Vec<Evict>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (meta, content) = (self.meta.clone(), Arc::clone(&self.content));
        detached(async move {
            let done = meta
                .write(move |tx| {
                    let mut evict = Vec::new();
                    f(tx, &mut evict).map(|value| (value, evict))
                })
                .await;
            let done = done.map(|(value, evict)| {
                content.caches.evict(evict);
                value
            });
            drop(guard);
            done
        })
        .await
    }
}

/// Run to the end even when the caller goes away.
pub(crate) async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let task = match crate::ctx::request_id() {
        Some(id) => tokio::spawn(with_request_id(id, work).in_current_span()),
        None => tokio::spawn(work.in_current_span()),
    };
    task.await.unwrap_or_else(|cause| {
        Err(Error::new(Kind::Internal, "UNKNOWN", "the server failed in the middle of this").with_source(cause))
    })
}

/// A name for the caller that stays the same between requests: who owns an upload, who
/// caused an event.
pub(crate) fn owner(principal: &Principal) -> String {
    match principal {
        Principal::Anonymous => "anonymous".to_owned(),
        Principal::Directory { object_id, .. } => format!("directory:{object_id}"),
        Principal::AdminUser(registry) => format!("admin:{}", registry.key()),
        Principal::Token { registry, name } => format!("token:{}/{name}", registry.key()),
        Principal::System => "system".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back() {
        let clock = Clock(AtomicI64::new(0));
        let stamps: Vec<i64> = [5, 5, 3, 10, 9].map(|t| clock.stamp(Timestamp(t))).into();
        assert_eq!(stamps, [5, 6, 7, 10, 11]);
    }
}
