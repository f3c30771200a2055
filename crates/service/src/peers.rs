//! Several servers on one database, exactly as right as one.
//!
//! **What is asked each time.** Where a tag points, which manifests and blobs a repository
//! has, and their locks: on a shared database they are read from it for every request, with
//! one query, and never from memory. A push that one server has acknowledged is what the next
//! request at any other sees. Only a manifest's bytes, which no write can change under their
//! digest, are kept.
//!
//! **What is told.** Registries, principals, roles, secrets and signing keys are kept in
//! memory whole ([`crate::snapshot`]). A transaction that changes one of them counts up a
//! version and tells the others; each reads all of it anew when it is told, and looks at the
//! version twice a second ([`LOOK`]) in case it was not. So a change is effective everywhere
//! within a second, and a notice that is lost costs half of that. A new signing key signs
//! when it is [`KEY_SETTLE`] old, so that every server knows it by then.
//!
//! **What is held.** A server has a row that it renews ([`BEAT`]) and that ends [`LIFE`]
//! after the last time; what it has in hand hangs on that row (`store::meta::peer`):
//! content on its way in ([`crate::push`]) and uploads it writes to. A server that was taken
//! for dead and lives finds its rows gone, and begins anew what it was doing. Nobody's clock
//! decides whether a commit is right; clocks that differ by more than some seconds cost
//! retries. A server that is started again on its folder ends at once what it had in hand.
//!
//! **Who works.** One server collects garbage at a time: the one with the duty
//! ([`DUTY`]), which another takes over when it is not renewed. Two at once would do no harm.
//!
//! Alone on a database (SQLite) a server does none of this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portolan_store::meta::{Meta, Notice, Tx, next_id, peer};
use portolan_types::{Timestamp, UploadId};
use uuid::Uuid;

use crate::push::Numbers;
use crate::service::Service;
use crate::{Error, Result};

/// How long a server is taken for alive after it was last heard of.
pub const LIFE: Duration = Duration::from_secs(20);
/// How often a server is heard of.
pub const BEAT: Duration = Duration::from_secs(4);
/// How often the version of what is kept in memory is looked at.
pub const LOOK: Duration = Duration::from_millis(500);
/// How long a duty stays with a server that does not renew it.
pub const DUTY: Duration = Duration::from_secs(45);
/// How old a signing key must be to sign.
pub(crate) const KEY_SETTLE: Duration = Duration::from_secs(5);

/// The sequence that counts changes of what is kept in memory.
pub(crate) const VERSION: &str = "snapshot";
/// What the others are told then.
const CHANGED: &str = "snapshot";
/// The duty of collecting garbage.
pub(crate) const GARBAGE: &str = "collect garbage";

/// This server among those that share its database.
pub(crate) struct Peer {
    /// Another at every start.
    pub(crate) id: String,
    pub(crate) numbers: Numbers,
    /// A signing key is too young to sign.
    pub(crate) unsettled: AtomicBool,
}

impl Peer {
    /// Make this server known, and end what it had in hand at an earlier start.
    pub(crate) async fn join(meta: &Meta, name: Option<&str>) -> Result<Arc<Peer>> {
        let start = Uuid::new_v4();
        let id = name.map_or_else(|| start.to_string(), |name| format!("{name}/{start}"));
        let peer = Peer { id, numbers: Numbers::default(), unsettled: AtomicBool::new(false) };
        let (id, now) = (peer.id.clone(), Timestamp::now());
        let earlier = name.map(|name| format!("{name}/"));
        let join = meta.write(move |tx| {
            for other in peer::all_ids(tx)? {
                if earlier.as_deref().is_some_and(|earlier| other.starts_with(earlier)) {
                    peer::leave(tx, &other, now)?;
                }
            }
            peer::renew(tx, &id, now.plus(LIFE)).map_err(Error::from)
        });
        join.await?;
        Ok(Arc::new(peer))
    }
}

impl Service {
    /// Whether other servers may be at work on the same database.
    pub fn is_shared(&self) -> bool {
        self.content.peer.is_some()
    }

    /// How many servers are at work on this database.
    pub async fn servers(&self) -> Result<u64> {
        match &self.content.peer {
            None => Ok(1),
            Some(_) => self.meta.read(|tx| peer::count(tx, Timestamp::now()).map_err(Error::from)).await,
        }
    }

    /// Keep this server in step with the others for as long as the answer is awaited, and
    /// hand on to `other` what they say that is not for here: `None` when something may have
    /// been missed. One task does this; it never ends.
    pub async fn keep_up(&self, other: impl Fn(Option<&str>)) {
        let Some(own) = &self.content.peer else { return std::future::pending().await };
        let mut look = tokio::time::interval(LOOK);
        let mut beat = tokio::time::interval(BEAT);
        for timer in [&mut look, &mut beat] {
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        let mut notice = Box::pin(self.meta.notice());
        loop {
            let done = tokio::select! {
                heard = &mut notice => {
                    notice = Box::pin(self.meta.notice());
                    match heard {
                        Notice::Told(text) if text == CHANGED => self.look().await,
                        Notice::Told(text) => {
                            other(Some(&text));
                            Ok(())
                        }
                        Notice::Missed => {
                            other(None);
                            self.look().await
                        }
                    }
                }
                _ = look.tick() => self.look().await,
                _ = beat.tick() => self.beat(&own.id).await,
            };
            if let Err(error) = done {
                tracing::warn!(%error, cause = ?error.source, "keep up with the other servers");
            }
        }
    }

    /// Read what is kept in memory anew if it was changed.
    pub(crate) async fn look(&self) -> Result<()> {
        let known = self.snapshot.load().version;
        let version = self.meta.read(|tx| version(tx)).await?;
        if version != known {
            self.refresh().await?;
            self.load_signing_keys().await?;
        } else if self.content.peer.as_ref().is_some_and(|own| own.unsettled.load(Ordering::Relaxed)) {
            self.load_signing_keys().await?;
        }
        Ok(())
    }

    async fn beat(&self, own: &str) -> Result<()> {
        let (id, now) = (own.to_owned(), Timestamp::now());
        let gone = self
            .meta
            .write(move |tx| {
                peer::renew(tx, &id, now.plus(LIFE))?;
                peer::expire(tx, now, now).map_err(Error::from)
            })
            .await?;
        if gone > 0 {
            tracing::warn!(servers = gone, "servers that were not heard of are taken for dead");
        }
        Ok(())
    }

    /// Say that this server is ending. What it still has in hand is given up.
    pub async fn leave(&self) -> Result<()> {
        let Some(own) = &self.content.peer else { return Ok(()) };
        let (id, now) = (own.id.clone(), Timestamp::now());
        self.meta.write(move |tx| peer::leave(tx, &id, now).map_err(Error::from)).await
    }

    /// Take on, or keep, the duty of collecting garbage.
    pub(crate) async fn collects(&self) -> Result<bool> {
        let Some(own) = &self.content.peer else { return Ok(true) };
        let (id, now) = (own.id.clone(), Timestamp::now());
        self.meta.write(move |tx| peer::take_duty(tx, GARBAGE, &id, now.plus(DUTY), now).map_err(Error::from)).await
    }

    /// Write what is kept in memory, tell the others, and keep the new.
    pub(crate) async fn alter<T, F>(&self, f: F) -> Result<T>
    where
        F: FnOnce(&mut dyn Tx) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let shared = self.is_shared();
        let value = self
            .meta
            .write(move |tx| {
                let value = f(tx)?;
                if shared {
                    next_id(tx, VERSION)?;
                    tx.notify(CHANGED)?;
                }
                Ok::<_, Error>(value)
            })
            .await?;
        self.refresh().await?;
        Ok(value)
    }

    /// Become the one request that writes to an upload, on any server. `None` while another
    /// does.
    pub(crate) async fn claim_upload(&self, id: UploadId) -> Result<Option<Claim>> {
        let Some(own) = self.content.peer.clone() else { return Ok(Some(Claim(None))) };
        let n = own.numbers.next();
        let mut claim = Held { meta: self.meta.clone(), peer: own, upload: id, n, open: true };
        let (server, now) = (claim.peer.id.clone(), Timestamp::now());
        let write =
            self.meta.write(move |tx| peer::claim_upload(tx, id, &server, n, now.plus(LIFE), now).map_err(Error::from));
        if write.await? {
            return Ok(Some(Claim(Some(claim))));
        }
        claim.open = false;
        Ok(None)
    }
}

/// The count of changes of what is kept in memory; 0 where it is not counted.
pub(crate) fn version(tx: &mut dyn Tx) -> Result<i64> {
    Ok(portolan_store::meta::sequence(tx, VERSION)?)
}

/// The right to write to an upload, given back when it is dropped.
pub(crate) struct Claim(Option<Held>);

impl Claim {
    /// Give it back, and wait until that is done: the client's next request may go to
    /// another server.
    pub(crate) async fn release(mut self) -> Result<()> {
        let Some(mut held) = self.0.take() else { return Ok(()) };
        let done = held.delete().await;
        held.open = done.is_err();
        done
    }
}

struct Held {
    meta: Meta,
    peer: Arc<Peer>,
    upload: UploadId,
    n: i64,
    open: bool,
}

impl Held {
    fn delete(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let (meta, server, upload, n) = (self.meta.clone(), self.peer.id.clone(), self.upload, self.n);
        async move { meta.write(move |tx| peer::release_upload(tx, upload, &server, n).map_err(Error::from)).await }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(runtime) = self.open.then(tokio::runtime::Handle::try_current).and_then(std::result::Result::ok)
        else {
            return;
        };
        let delete = self.delete();
        runtime.spawn(async move {
            if let Err(error) = delete.await {
                tracing::warn!(%error, "let go of an upload");
            }
        });
    }
}
