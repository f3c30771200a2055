//! Named objects: contexts that are stored whole, and logs that grow.
//!
//! ```text
//! objects/<key>                   what was stored whole
//! segments/<key>/<offset>         what was added behind it, from this offset on
//! ```
//!
//! A bucket cannot add to an object. What is added is kept in memory, readable at once on
//! this server, and goes to the bucket within [`FLUSH_MILLIS`]: the last segment is written
//! again, longer, until it is [`SEGMENT_BYTES`] long, so that a log of a thousand lines is
//! not a thousand objects. Another server reads what is in the bucket. A process that is
//! killed loses what it added in that last moment, never anything before; one that closes
//! its store loses nothing.
//!
//! One server adds to one key at a time: a run belongs to the worker that leases it. One
//! that comes later goes on in a segment of its own, behind what it finds.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Key;
use parking_lot::Mutex;
use portolan_types::UploadId;
use tokio::sync::Mutex as AsyncMutex;

use super::client::Client;
use super::send::{Order, send};
use super::{BucketBlobs, Inner};
use crate::blob::{BoxFuture, ByteStream, Objects, is_key};
use crate::{Error, Result};

/// How often what was added goes to the bucket.
const FLUSH_MILLIS: u64 = 1000;
/// Bytes of a segment that is not written again.
const SEGMENT_BYTES: usize = 1024 * 1024;
/// Bytes added to one object and not in the bucket yet. Beyond that it is refused.
const PENDING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Ends that go to the bucket at the same time.
const FLUSHES_AT_ONCE: usize = 8;
/// An object that nothing is added to for so long is forgotten here.
const IDLE_SECS: u64 = 60;

/// Objects that this server adds to.
#[derive(Default)]
pub(super) struct Tails(Mutex<HashMap<String, Arc<Tail>>>);

impl Tails {
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Bring every object's end into the bucket.
    pub(super) async fn flush(&self, client: &Client) {
        let tails: Vec<_> = self.0.lock().iter().map(|(key, tail)| (key.clone(), Arc::clone(tail))).collect();
        let flushes = tails.into_iter().map(|(key, tail)| async move {
            if let Err(error) = client.flush(&key, &tail).await {
                tracing::warn!(%error, key, "the end of an object is not in the bucket yet");
            }
        });
        stream::iter(flushes).buffer_unordered(FLUSHES_AT_ONCE).collect::<()>().await;
    }
}

/// The end of an object.
struct Tail {
    state: Mutex<TailState>,
    /// Held while the end goes to the bucket.
    flush: AsyncMutex<()>,
}

struct TailState {
    /// Where our last segment begins.
    start: u64,
    /// What is in it, and what will be.
    bytes: Vec<u8>,
    /// How much of that is in the bucket.
    flushed: usize,
    used: Instant,
}

impl TailState {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// A stretch of an object.
struct Stretch {
    start: u64,
    len: u64,
    place: Stored,
}

enum Stored {
    Bucket(Key),
    Memory(Bytes),
}

fn missing(key: &str) -> Error {
    Error::NotFound(format!("object {}", key.escape_debug()))
}

fn checked(key: &str) -> Result<()> {
    if is_key(key) { Ok(()) } else { Err(missing(key)) }
}

fn whole_key(client: &Client, key: &str) -> Key {
    client.key(&format!("objects/{key}"))
}

fn segment_key(client: &Client, key: &str, start: u64) -> Key {
    client.key(&format!("segments/{key}/{start:016x}"))
}

impl Client {
    /// What the bucket has of an object, in order; nothing when it is not there.
    async fn stretches(&self, key: &str) -> Result<Vec<Stretch>> {
        let client = self;
        let whole = whole_key(client, key);
        let segments = async {
            let found: Vec<_> = client.list(&format!("segments/{key}")).try_collect().await?;
            let mut segments: Vec<Stretch> = found
                .into_iter()
                .filter_map(|meta| {
                    let start = u64::from_str_radix(meta.location.filename()?, 16).ok()?;
                    // Not of an object further down.
                    (meta.location == segment_key(client, key, start)).then_some(Stretch {
                        start,
                        len: meta.size,
                        place: Stored::Bucket(meta.location),
                    })
                })
                .collect();
            segments.sort_by_key(|segment| segment.start);
            Result::Ok(segments)
        };
        let (whole, segments) = tokio::try_join!(client.head(&whole), segments)?;
        let mut all = Vec::with_capacity(segments.len() + 1);
        if let Some(meta) = whole {
            all.push(Stretch { start: 0, len: meta.size, place: Stored::Bucket(meta.location) });
        }
        for segment in segments {
            let end = all.last().map_or(0, |last: &Stretch| last.start + last.len);
            match segment.start == end {
                true => all.push(segment),
                // Two servers added at once: what was first in its place counts.
                false if segment.start < end => {}
                false => break,
            }
        }
        Ok(all)
    }

    /// Bring an object's end into the bucket.
    async fn flush(&self, key: &str, tail: &Tail) -> Result<()> {
        let _alone = tail.flush.lock().await;
        loop {
            let (start, bytes, flushed) = {
                let state = tail.state.lock();
                (state.start, Bytes::copy_from_slice(&state.bytes), state.flushed)
            };
            if bytes.len() == flushed {
                return Ok(());
            }
            let at = segment_key(self, key, start);
            let written = match flushed {
                0 => self.put_new(&at, bytes.clone().into()).await?,
                _ => self.put(&at, bytes.clone().into()).await.map(|()| true)?,
            };
            if !written {
                // Another server went on with the object. Ours comes behind.
                let end = self.stretches(key).await?.last().map_or(0, |last| last.start + last.len);
                let mut state = tail.state.lock();
                if end <= state.start {
                    return Err(Error::Conflict(format!("object {key} is being changed elsewhere")));
                }
                state.start = end;
                continue;
            }
            let mut state = tail.state.lock();
            state.flushed = bytes.len();
            if bytes.len() >= SEGMENT_BYTES {
                state.start += bytes.len() as u64;
                state.bytes.drain(..bytes.len());
                state.flushed = 0;
            }
            return Ok(());
        }
    }
}

impl Inner {
    /// What there is of an object, this server's own end of it included.
    async fn all(&self, key: &str) -> Result<Option<Vec<Stretch>>> {
        let tail = self.tails.0.lock().get(key).cloned();
        let mut all = self.client.stretches(key).await?;
        if let Some(tail) = tail {
            let state = tail.state.lock();
            all.retain(|stretch| stretch.start < state.start);
            let end = all.last().map_or(0, |last| last.start + last.len);
            if end == state.start {
                let bytes = Bytes::copy_from_slice(&state.bytes);
                all.push(Stretch { start: state.start, len: bytes.len() as u64, place: Stored::Memory(bytes) });
            }
        }
        Ok(if all.is_empty() { None } else { Some(all) })
    }

    async fn object_read(&self, key: &str, range: Range<u64>) -> Result<ByteStream> {
        let all = self.all(key).await?.ok_or_else(|| missing(key))?;
        let client = Arc::clone(&self.client);
        let wanted: Vec<_> = all
            .into_iter()
            .filter_map(|Stretch { start, len, place }| {
                let from = range.start.max(start);
                let to = range.end.min(start + len);
                (from < to).then(|| (place, from - start..to - start))
            })
            .collect();
        let bodies = stream::iter(wanted).then(move |(place, range)| {
            let client = Arc::clone(&client);
            async move {
                let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
                match place {
                    Stored::Bucket(key) => {
                        let body = client.read(&key, range).await.map_err(std::io::Error::other)?;
                        body.ok_or_else(gone)
                    }
                    Stored::Memory(bytes) => {
                        let bytes = bytes.slice(range.start as usize..range.end as usize);
                        Ok(Box::pin(stream::once(async { Ok(bytes) })) as ByteStream)
                    }
                }
            }
        });
        Ok(Box::pin(bodies.try_flatten()))
    }

    async fn tail(&self, key: &str) -> Result<Arc<Tail>> {
        if let Some(tail) = self.tails.0.lock().get(key) {
            return Ok(Arc::clone(tail));
        }
        let start = self.client.stretches(key).await?.last().map_or(0, |last| last.start + last.len);
        let state = Mutex::new(TailState { start, bytes: Vec::new(), flushed: 0, used: Instant::now() });
        let tail = Arc::new(Tail { state, flush: AsyncMutex::new(()) });
        Ok(Arc::clone(self.tails.0.lock().entry(key.to_owned()).or_insert(tail)))
    }

    /// Bring every object's end into the bucket, and forget those that are idle.
    pub(super) async fn flush_all(&self) {
        self.tails.flush(&self.client).await;
        self.tails.0.lock().retain(|_, tail| {
            // Nobody can get hold of it but through this table.
            let alone = Arc::strong_count(tail) == 1;
            let state = tail.state.lock();
            let idle = state.used.elapsed() > Duration::from_secs(IDLE_SECS);
            !(alone && idle && state.flushed == state.bytes.len())
        });
    }

    async fn object_put(&self, key: String, body: ByteStream, bytes_max: u64) -> Result<u64> {
        let old = self.client.list(&format!("segments/{key}")).map_ok(|meta| meta.location).try_collect().await?;
        let order = Order {
            key: whole_key(&self.client, &key),
            upload: UploadId::random(),
            hasher: None,
            bytes_max,
            keep_part: false,
            expected: None,
        };
        let sent = send(&self.client, &self.budget, order, body).await?;
        self.tails.0.lock().remove(&key);
        self.client.delete(old).await?;
        Ok(sent.len)
    }

    async fn object_delete(&self, key: &str) -> Result<()> {
        self.tails.0.lock().remove(key);
        let mut keys: Vec<Key> = self
            .client
            .stretches(key)
            .await?
            .into_iter()
            .filter_map(|stretch| match stretch.place {
                Stored::Bucket(key) => Some(key),
                Stored::Memory(_) => None,
            })
            .collect();
        keys.sort_unstable();
        self.client.delete(keys).await
    }
}

/// Write the ends of objects to the bucket for as long as the store is open.
pub(super) async fn keep_flushing(inner: Weak<Inner>) {
    let mut tick = tokio::time::interval(Duration::from_millis(FLUSH_MILLIS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.flush_all().await;
    }
}

impl Objects for BucketBlobs {
    fn object_put(&self, key: &str, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        Box::pin(async move {
            checked(&key)?;
            inner.object_put(key, body, bytes_max).await
        })
    }

    fn object_append(&self, key: &str, bytes: &[u8]) -> Result<u64> {
        checked(key)?;
        let known = self.0.tails.0.lock().get(key).cloned();
        let tail = match known {
            Some(tail) => tail,
            None => {
                let (inner, key) = (Arc::clone(&self.0), key.to_owned());
                self.wait(async move { inner.tail(&key).await })?
            }
        };
        let mut state = tail.state.lock();
        if state.bytes.len() - state.flushed + bytes.len() > PENDING_BYTES_MAX {
            return Err(Error::Busy);
        }
        state.bytes.extend_from_slice(bytes);
        state.used = Instant::now();
        Ok(state.end())
    }

    fn object_sync(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        Box::pin(async move {
            let tail = inner.tails.0.lock().get(&key).cloned();
            match tail {
                Some(tail) => inner.client.flush(&key, &tail).await?,
                None => return Ok(()),
            }
            // From here on another process may add to it: what we know of its end is no more true.
            let mut tails = inner.tails.0.lock();
            let done = tails.get(&key).is_some_and(|tail| {
                let state = tail.state.lock();
                state.flushed == state.bytes.len()
            });
            if done {
                tails.remove(&key);
            }
            Ok(())
        })
    }

    fn object_len(&self, key: &str) -> BoxFuture<'_, Result<Option<u64>>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        Box::pin(async move {
            if !is_key(&key) {
                return Ok(None);
            }
            if let Some(tail) = inner.tails.0.lock().get(&key) {
                return Ok(Some(tail.state.lock().end()));
            }
            let all = inner.client.stretches(&key).await?;
            Ok(all.last().map(|last| last.start + last.len))
        })
    }

    fn object_read(&self, key: &str, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        Box::pin(async move {
            checked(&key)?;
            inner.object_read(&key, range).await
        })
    }

    fn object_path(&self, _key: &str) -> Option<std::path::PathBuf> {
        None
    }

    fn object_delete(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        Box::pin(async move {
            match is_key(&key) {
                true => inner.object_delete(&key).await,
                false => Ok(()),
            }
        })
    }

    fn object_concat(&self, key: &str, parts: &[String]) -> BoxFuture<'_, Result<u64>> {
        let (inner, key, parts) = (Arc::clone(&self.0), key.to_owned(), parts.to_vec());
        Box::pin(async move {
            checked(&key)?;
            let mut bodies = Vec::with_capacity(parts.len());
            for part in &parts {
                checked(part)?;
                // Looked for here, so that a missing one is named before anything is stored.
                if inner.all(part).await?.is_none() {
                    return Err(missing(part));
                }
                let (inner, part) = (Arc::clone(&inner), part.clone());
                bodies.push(async move { inner.object_read(&part, 0..u64::MAX).await.map_err(std::io::Error::other) });
            }
            let body = stream::iter(bodies).then(|body| body).try_flatten();
            inner.object_put(key, Box::pin(body), u64::MAX).await
        })
    }
}
