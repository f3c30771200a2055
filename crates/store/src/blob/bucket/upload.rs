//! Uploads, chunk by chunk, by any server on the bucket.
//!
//! ```text
//! uploads/<id>/begun              there is such an upload
//! uploads/<id>/at-<offset>        record: the chunk that begins at this offset, its length,
//!                                 where its bytes are, and the hash after it
//! uploads/<id>/data-<random>      the bytes of one chunk
//! uploads/<id>/parts-<random>     note: a multipart upload that somebody began
//! ```
//!
//! A chunk's bytes go to a name of their own; then its record is written *if there is none
//! at that offset*. That one write is the commit: of two servers that add at the same
//! offset one wins, and the other's bytes are removed. Each record names the data of the
//! one before, so that the records of one upload are one chain, also in a store without
//! conditional writes, where the loser may have written over the winner.
//!
//! The record holds the state of the hash, so whichever server finishes the upload knows
//! its digest without reading it. The blob is made by a copy inside the bucket.
//!
//! Chunks that this server saw are kept in mind, which saves asking for them again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Key;
use parking_lot::Mutex;
use portolan_types::{Algorithm, Digest, Hasher, UploadId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};

use super::client::Client;
use super::send::{Order, Sent, send};
use super::{BucketBlobs, Inner};
use crate::blob::{BoxFuture, ByteStream, Uploads};
use crate::{Error, Result};

/// Uploads whose chunks are kept in mind. Beyond that, idle ones are asked for again.
const STATES_MAX: usize = 10_000;
/// Chunks of one upload: what can be put together again in one go.
const CHUNKS_MAX: usize = 10_000;
/// Records asked for at the same time.
const RECORDS_AT_ONCE: usize = 16;
/// How long to wait for an append that has ended here and is being written down.
const ENDING_SECS_MAX: u64 = 60;

/// The uploads this server has to do with.
#[derive(Default)]
pub(super) struct Table(Mutex<HashMap<UploadId, Entry>>);

#[derive(Clone, Default)]
struct Entry {
    state: Arc<AsyncMutex<State>>,
    /// The body has ended, or its client has gone: what is left does not take long.
    ending: Arc<AtomicBool>,
}

/// What is known of an upload. Its lock is held by the one request at work on it.
#[allow(clippy::large_enum_variant, reason = "each is on the heap already, and most are the large one")]
#[derive(Default)]
enum State {
    #[default]
    Unknown,
    Known(Chain),
    /// Finished or aborted while somebody waited.
    Gone,
}

/// An upload, as far as it has come.
#[derive(Clone)]
pub(super) struct Chain {
    chunks: Vec<Chunk>,
    len: u64,
    hasher: Hasher,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    from: u64,
    len: u64,
    /// The last part of the key of its bytes.
    data: String,
}

impl Chain {
    fn new() -> Chain {
        Chain { chunks: Vec::new(), len: 0, hasher: Hasher::new(Algorithm::Sha256) }
    }

    fn last(&self) -> &str {
        self.chunks.last().map_or("", |chunk| &chunk.data)
    }
}

/// A chunk and what binds it to those before.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    chunk: Chunk,
    after: String,
    state: Vec<u8>,
}

impl Record {
    fn write(&self) -> String {
        let Record { chunk: Chunk { from, len, data }, after, state } = self;
        format!("portolan-chunk 1\n{from}\n{len}\n{data}\n{after}\n{}\n", portolan_types::digest::hex(state))
    }

    fn read(text: &[u8]) -> Option<Record> {
        let mut lines = std::str::from_utf8(text).ok()?.lines();
        if lines.next()? != "portolan-chunk 1" {
            return None;
        }
        let (from, len) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
        let name = |text: &str| text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        let (data, after) = (lines.next()?.to_owned(), lines.next()?.to_owned());
        let state = unhex(lines.next()?)?;
        let good = data.starts_with("data-") && name(&data) && name(&after) && u64::checked_add(from, len).is_some();
        good.then_some(Record { chunk: Chunk { from, len, data }, after, state })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    if !text.len().is_multiple_of(2) || text.len() > 2048 {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn unknown(id: UploadId) -> Error {
    Error::NotFound(format!("upload {id}"))
}

fn key(client: &Client, id: UploadId, name: &str) -> Key {
    client.key(&format!("uploads/{id}/{name}"))
}

fn record_name(offset: u64) -> String {
    format!("at-{offset:016x}")
}

impl Table {
    fn entry(&self, id: UploadId) -> Entry {
        let mut table = self.0.lock();
        if table.len() >= STATES_MAX {
            table.retain(|_, entry| Arc::strong_count(&entry.state) > 1);
        }
        table.entry(id).or_default().clone()
    }

    /// The state of an upload, for this caller alone. An append whose body has ended is
    /// waited for; one whose body still comes is a `Conflict`.
    async fn lock(&self, id: UploadId) -> Result<(Entry, OwnedMutexGuard<State>)> {
        let entry = self.entry(id);
        let busy = || Error::Conflict(format!("another request is at work on upload {id}"));
        let state = match Arc::clone(&entry.state).try_lock_owned() {
            Ok(state) => state,
            Err(_) if entry.ending.load(Ordering::SeqCst) => {
                let waiting = Arc::clone(&entry.state).lock_owned();
                tokio::time::timeout(Duration::from_secs(ENDING_SECS_MAX), waiting).await.map_err(|_| busy())?
            }
            Err(_) => return Err(busy()),
        };
        match *state {
            State::Gone => Err(unknown(id)),
            _ => Ok((entry, state)),
        }
    }

    fn forget(&self, id: UploadId, mut state: OwnedMutexGuard<State>) {
        self.0.lock().remove(&id);
        *state = State::Gone;
    }

    fn is_busy(&self, id: UploadId) -> bool {
        self.0.lock().get(&id).is_some_and(|entry| entry.state.try_lock().is_err())
    }
}

impl Inner {
    /// Read on in an upload's chain, from `known`. `NotFound` when there is no such upload.
    async fn chain(&self, id: UploadId, known: Chain) -> Result<Chain> {
        let client = &*self.client;
        let mut chain = known;
        let mut offsets = BTreeSet::new();
        let mut begun = false;
        let mut found = client.list(&format!("uploads/{id}"));
        while let Some(meta) = found.try_next().await? {
            match meta.location.filename() {
                Some("begun") => begun = true,
                Some(name) => {
                    let offset = name.strip_prefix("at-").and_then(|hex| u64::from_str_radix(hex, 16).ok());
                    offsets.extend(offset.filter(|offset| *offset >= chain.len));
                }
                None => {}
            }
        }
        if !begun {
            return Err(unknown(id));
        }
        let mut records = stream::iter(offsets)
            .map(|offset| async move {
                let key = key(client, id, &record_name(offset));
                let Some(text) = client.get_small(&key).await? else { return Ok(None) };
                Record::read(&text).map(Some).ok_or_else(|| Error::Corrupt(format!("the record {key}")))
            })
            .buffered(RECORDS_AT_ONCE);
        while let Some(record) = records.try_next().await? {
            let Some(record) = record else { break };
            if record.chunk.from != chain.len || record.after != chain.last() {
                break;
            }
            let hasher = Hasher::resume(Algorithm::Sha256, &record.state)
                .ok_or_else(|| Error::Corrupt(format!("the state of upload {id}")))?;
            chain = Chain { len: chain.len + record.chunk.len, hasher, chunks: chain.chunks };
            chain.chunks.push(record.chunk);
        }
        Ok(chain)
    }

    /// What this server knows of an upload, or all there is to know when that is nothing.
    async fn known<'s>(&self, id: UploadId, state: &'s mut State) -> Result<&'s mut Chain> {
        if let State::Unknown = state {
            *state = State::Known(self.chain(id, Chain::new()).await?);
        }
        match state {
            State::Known(chain) => Ok(chain),
            State::Unknown | State::Gone => Err(unknown(id)),
        }
    }

    /// Look whether another server has gone on with the upload.
    async fn look_again<'s>(&self, id: UploadId, state: &'s mut State) -> Result<&'s mut Chain> {
        let known = match state {
            State::Known(chain) => chain.clone(),
            State::Unknown | State::Gone => Chain::new(),
        };
        *state = State::Known(self.chain(id, known).await?);
        self.known(id, state).await
    }

    async fn append(
        self: Arc<Self>,
        id: UploadId,
        offset: Option<u64>,
        body: ByteStream,
        total_max: u64,
        entry: Entry,
        mut state: OwnedMutexGuard<State>,
    ) -> Result<u64> {
        let client = &*self.client;
        let mut chain = self.known(id, &mut state).await?;
        // Without an offset the caller counts on our knowing the end.
        let moved = match offset {
            Some(got) => got != chain.len,
            None => client.head(&key(client, id, &record_name(chain.len))).await?.is_some(),
        };
        if moved {
            chain = self.look_again(id, &mut state).await?;
        }
        let from = chain.len;
        if let Some(got) = offset
            && got != from
        {
            return Err(Error::OffsetMismatch { have: from, got });
        }
        if chain.chunks.len() >= CHUNKS_MAX {
            return Err(Error::Conflict(format!(
                "upload {id} has {CHUNKS_MAX} chunks, which is as many as it may have"
            )));
        }
        let data = format!("data-{}", UploadId::random());
        let order = Order {
            key: key(client, id, &data),
            upload: id,
            hasher: Some(chain.hasher.clone()),
            bytes_max: total_max.saturating_sub(from),
            keep_part: true,
            expected: None,
        };
        let Sent { len, hasher, broken } = send(&self.client, &self.budget, order, body).await?;
        entry.ending.store(true, Ordering::SeqCst);
        let broken = broken.map(|why| match why {
            Error::TooLarge { .. } => Error::TooLarge { max: total_max },
            other => other,
        });
        if len > 0 {
            let Some(hasher) = hasher else { return Err(Error::Corrupt("an upload without a hash".into())) };
            let chunk = Chunk { from, len, data };
            self.commit(id, &mut state, chunk, hasher, offset).await?;
        } else {
            // A whole body without bytes left an object without bytes.
            self.discard(vec![key(client, id, &data)]).await;
        }
        match (broken, &*state) {
            (Some(why), _) => Err(why),
            (None, State::Known(chain)) => Ok(chain.len),
            (None, _) => Err(unknown(id)),
        }
    }

    /// Write a chunk's record: from here on the chunk is part of the upload.
    async fn commit(
        &self,
        id: UploadId,
        state: &mut State,
        chunk: Chunk,
        hasher: Hasher,
        offset: Option<u64>,
    ) -> Result<()> {
        let client = &*self.client;
        let State::Known(chain) = &mut *state else { return Err(unknown(id)) };
        let record = Record { chunk, after: chain.last().to_owned(), state: hasher.save() };
        let at = key(client, id, &record_name(record.chunk.from));
        let ours = client.put_new(&at, record.write().into()).await?
            // An answer that was lost on the way made us write it twice.
            || client.get_small(&at).await?.and_then(|text| Record::read(&text)).as_ref() == Some(&record);
        if ours {
            chain.len += record.chunk.len;
            chain.chunks.push(record.chunk);
            chain.hasher = hasher;
            return Ok(());
        }
        self.discard(vec![key(client, id, &record.chunk.data)]).await;
        let chain = self.look_again(id, state).await?;
        match offset {
            Some(got) => Err(Error::OffsetMismatch { have: chain.len, got }),
            None => Err(Error::Conflict(format!("another server went on with upload {id}"))),
        }
    }

    /// Remove what nobody needs; what stays is found by the sweep.
    pub(super) async fn discard(&self, keys: Vec<Key>) {
        if let Err(e) = self.client.delete(keys).await {
            tracing::warn!(error = %e, "parts of an upload were left behind for now");
        }
    }

    /// The digest of everything in the chain. SHA-512 is rare enough to be read for.
    async fn digest(&self, id: UploadId, chain: &Chain, algorithm: Algorithm) -> Result<Digest> {
        if algorithm == Algorithm::Sha256 {
            return Ok(chain.hasher.clone().finish());
        }
        let mut hasher = Hasher::new(algorithm);
        for chunk in &chain.chunks {
            let key = key(&self.client, id, &chunk.data);
            let mut bytes = self.client.read(&key, 0..u64::MAX).await?.ok_or_else(|| unknown(id))?;
            while let Some(piece) = bytes.try_next().await.map_err(|e| Error::io("read an upload", e))? {
                hasher.update(&piece);
            }
        }
        Ok(hasher.finish())
    }

    async fn finish(self: Arc<Self>, id: UploadId, expected: Digest) -> Result<u64> {
        let (entry, mut state) = self.uploads.lock(id).await?;
        let mut chain = match self.known(id, &mut state).await {
            Ok(chain) => chain.clone(),
            Err(Error::NotFound(_)) => {
                self.uploads.forget(id, state);
                return Err(unknown(id));
            }
            Err(e) => return Err(e),
        };
        let mut actual = self.digest(id, &chain, expected.algorithm()).await?;
        if actual != expected {
            let before = chain.len;
            chain = self.look_again(id, &mut state).await?.clone();
            if chain.len != before {
                actual = self.digest(id, &chain, expected.algorithm()).await?;
            }
        }
        if actual != expected {
            return Err(Error::mismatch(expected, actual));
        }
        entry.ending.store(true, Ordering::SeqCst);
        let blob = self.blob_key(&expected);
        // A large blob that is here already is not copied again.
        let large = chain.len > self.budget.part_bytes as u64;
        let there = large && self.client.head(&blob).await?.is_some_and(|meta| meta.size == chain.len);
        if !there {
            let sources: Vec<_> =
                chain.chunks.iter().map(|chunk| (key(&self.client, id, &chunk.data), chunk.len)).collect();
            match self.assemble(&sources, &blob, id, Some(expected)).await {
                // Another server finished the same upload.
                Err(Error::NotFound(_))
                    if self.client.head(&blob).await?.is_some_and(|meta| meta.size == chain.len) => {}
                other => other?,
            }
        }
        let mut keys = vec![key(&self.client, id, "begun")];
        for chunk in &chain.chunks {
            keys.extend([key(&self.client, id, &record_name(chunk.from)), key(&self.client, id, &chunk.data)]);
        }
        self.discard(keys).await;
        self.uploads.forget(id, state);
        Ok(chain.len)
    }

    /// Remove everything under an upload's name, also what is not an upload any more.
    async fn abort(&self, id: UploadId) -> Result<bool> {
        let client = &*self.client;
        let state = match self.uploads.lock(id).await {
            Ok((_, state)) => state,
            Err(Error::NotFound(_)) => return Ok(false),
            Err(e) => return Err(e),
        };
        let found: Vec<_> = client.list(&format!("uploads/{id}")).try_collect().await?;
        // First of all it is no upload any more, whatever comes between.
        let begun = key(client, id, "begun");
        let (first, rest): (Vec<_>, Vec<_>) = found.into_iter().map(|m| m.location).partition(|key| *key == begun);
        let there = !first.is_empty() || !rest.is_empty();
        client.delete(first).await?;
        for note in rest.iter().filter(|key| key.filename().is_some_and(|name| name.starts_with("parts-"))) {
            let Some(text) = client.get_small(note).await? else { continue };
            let mut lines = std::str::from_utf8(&text).unwrap_or_default().lines();
            if let (Some(key), Some(parts)) = (lines.next(), lines.next()) {
                client.abort_parts(&Key::from(key), parts).await?;
            }
        }
        client.delete(rest).await?;
        self.uploads.forget(id, state);
        Ok(there)
    }

    pub(super) async fn stale_uploads(&self, older: SystemTime) -> Result<Vec<UploadId>> {
        let mut last: HashMap<UploadId, SystemTime> = HashMap::new();
        let mut found = self.client.list("uploads");
        while let Some(meta) = found.try_next().await? {
            let id = self.client.rest(&meta.location).and_then(|rest| rest.strip_prefix("uploads/")?.split('/').next());
            let Some(id) = id.and_then(|id| id.parse().ok()) else { continue };
            let written = SystemTime::from(meta.last_modified);
            last.entry(id).and_modify(|last| *last = written.max(*last)).or_insert(written);
        }
        let stale = last.into_iter().filter(|(id, written)| *written < older && !self.uploads.is_busy(*id));
        Ok(stale.map(|(id, _)| id).collect())
    }

    async fn length(&self, id: UploadId) -> Result<Option<u64>> {
        let known = match self.uploads.lock(id).await {
            Ok((_, state)) => match &*state {
                State::Known(chain) => chain.clone(),
                State::Unknown | State::Gone => Chain::new(),
            },
            // Asking is allowed while an append runs.
            Err(Error::Conflict(_)) => Chain::new(),
            Err(Error::NotFound(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        match self.chain(id, known).await {
            Ok(chain) => Ok(Some(chain.len)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Uploads for BucketBlobs {
    fn create(&self, id: UploadId) -> BoxFuture<'_, Result<()>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let (_, mut state) = inner.uploads.lock(id).await?;
            let conflict = || Error::Conflict(format!("upload {id} is there already"));
            if let State::Known(_) = *state {
                return Err(conflict());
            }
            match inner.client.put_new(&key(&inner.client, id, "begun"), "\n".into()).await? {
                true => {
                    *state = State::Known(Chain::new());
                    Ok(())
                }
                false => Err(conflict()),
            }
        })
    }

    fn append(
        &self,
        id: UploadId,
        offset: Option<u64>,
        body: ByteStream,
        total_max: u64,
    ) -> BoxFuture<'_, Result<u64>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let (entry, state) = inner.uploads.lock(id).await?;
            entry.ending.store(false, Ordering::SeqCst);
            // The work goes on to a good end when the caller does not wait for it: what the
            // client sent before it went away is kept.
            let (stay, gone) = oneshot::channel::<()>();
            let _leaver = Leaver { _stay: stay, ending: Arc::clone(&entry.ending) };
            let body = until(body, gone);
            let work = tokio::spawn(async move {
                let done = Arc::clone(&inner).append(id, offset, body, total_max, entry.clone(), state).await;
                entry.ending.store(true, Ordering::SeqCst);
                done
            });
            work.await.map_err(|e| Error::io("append to an upload", std::io::Error::other(e)))?
        })
    }

    fn length(&self, id: UploadId) -> BoxFuture<'_, Result<Option<u64>>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.length(id).await })
    }

    fn finish(&self, id: UploadId, digest: &Digest) -> BoxFuture<'_, Result<u64>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        Box::pin(async move {
            // A client that goes away must not leave the work half done.
            let work = tokio::spawn(inner.finish(id, digest));
            work.await.map_err(|e| Error::io("finish an upload", std::io::Error::other(e)))?
        })
    }

    fn abort(&self, id: UploadId) -> BoxFuture<'_, Result<bool>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.abort(id).await })
    }
}

/// Says, when it is dropped, that nobody waits for an append any more.
struct Leaver {
    _stay: oneshot::Sender<()>,
    ending: Arc<AtomicBool>,
}

impl Drop for Leaver {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
    }
}

/// `body`, breaking off when its reader has gone.
fn until(body: ByteStream, gone: oneshot::Receiver<()>) -> ByteStream {
    let state = Some((body, gone));
    Box::pin(stream::unfold(state, |state| async move {
        let (mut body, mut gone) = state?;
        let piece = tokio::select! {
            biased;
            _ = &mut gone => Some(Err(std::io::ErrorKind::ConnectionAborted.into())),
            piece = body.next() => piece,
        };
        let next = matches!(piece, Some(Ok(_))).then_some((body, gone));
        piece.map(|piece| (piece, next))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let chunk = Chunk { from: 7, len: 10, data: "data-0a".into() };
        let record = Record { chunk, after: String::new(), state: vec![0, 255, 16] };
        assert_eq!(Record::read(record.write().as_bytes()), Some(record));
        for bad in [
            "",
            "portolan-chunk 2\n0\n1\ndata-a\n\n00\n",
            "portolan-chunk 1\n0\n1\nx/../y\n\n00\n",
            "portolan-chunk 1\n0\n1\ndata-a\n\n0\n",
            "portolan-chunk 1\n18446744073709551615\n1\ndata-a\n\n00\n",
            "portolan-chunk 1\n0\n1\ndata-a\n\nzz\n",
        ] {
            assert_eq!(Record::read(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
