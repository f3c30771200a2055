//! A body on its way into one object: hashed, in parts, with bounded memory.
//!
//! A body that fits in one part is one `PUT`. A longer one is a multipart upload: while a
//! few parts travel, the next is gathered and hashed. Parts are gathered in memory as long
//! as the [`Budget`] of the whole process lasts; beyond that, in files, so that a thousand
//! slow clients cost disk and not memory, and hold nobody up.
//!
//! An object appears when it is complete and nothing of it before. What a killed process
//! left of a multipart upload is found by the note it wrote first (see `upload.rs`).

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use object_store::PutPayload;
use object_store::multipart::PartId;
use object_store::path::Path as Key;
use portolan_types::{Digest, Hasher, UploadId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::client::Client;
use crate::blob::{BoxFuture, ByteStream};
use crate::{Error, Result};

/// Parts gathered or sent from memory at the same time, in the whole process.
const MEMORY_PARTS_MAX: usize = 24;
/// Parts loaded from files at the same time, besides.
const FILE_PARTS_MAX: usize = 4;
/// Parts of one body that travel at the same time.
const IN_FLIGHT_MAX: usize = 3;
/// A body that has sent no more than this needs no place in the budget.
const FREE_BYTES_MAX: usize = 64 * 1024;
/// Bytes hashed (and written to a file) in one hop to a blocking thread.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Pieces below this are put together: each kept by itself would cost more than its bytes.
const PIECE_BYTES_MIN: usize = 16 * 1024;
/// Parts of the first size. Then they grow, because services count: S3 takes 10,000.
const PARTS_BEFORE_GROWTH: usize = 1000;
/// How often a long upload says that somebody is at work on it.
const NOTE_SECS: u64 = 300;

/// What all bodies under way may hold together.
pub(super) struct Budget {
    memory: Arc<Semaphore>,
    files: Arc<Semaphore>,
    folder: PathBuf,
    named: AtomicU64,
    pub(super) part_bytes: usize,
}

impl Budget {
    /// `folder` is where parts are gathered that find no place in memory.
    pub(super) fn new(folder: PathBuf, part_bytes: usize) -> Budget {
        Budget {
            memory: Arc::new(Semaphore::new(MEMORY_PARTS_MAX)),
            files: Arc::new(Semaphore::new(FILE_PARTS_MAX)),
            folder,
            named: AtomicU64::new(0),
            part_bytes,
        }
    }

    /// A file without a name.
    fn file(&self) -> io::Result<File> {
        let path = self.temp_path();
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    /// A name in the folder that nobody has.
    pub(super) fn temp_path(&self) -> PathBuf {
        self.folder.join(self.named.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn part_bytes(&self, number: usize) -> usize {
        self.part_bytes * (1 + number / PARTS_BEFORE_GROWTH)
    }
}

/// Where a body goes, and on what terms.
pub(super) struct Order {
    pub(super) key: Key,
    /// Under whose name an unfinished multipart upload is noted.
    pub(super) upload: UploadId,
    pub(super) hasher: Option<Hasher>,
    pub(super) bytes_max: u64,
    /// Keep what arrived when the body breaks off. Else there is no object then.
    pub(super) keep_part: bool,
    /// What the whole must have.
    pub(super) expected: Option<Digest>,
}

/// What came of it.
pub(super) struct Sent {
    /// Bytes in the object. Without any there is no object, unless the body was whole.
    pub(super) len: u64,
    pub(super) hasher: Option<Hasher>,
    /// Why the body broke off, when a part of it was to be kept.
    pub(super) broken: Option<Error>,
}

/// Send `body` into an object. With `expected`, the object appears only if the digest is
/// right.
pub(super) async fn send(client: &Arc<Client>, budget: &Arc<Budget>, order: Order, body: ByteStream) -> Result<Sent> {
    let Order { key, upload, hasher, bytes_max, keep_part, expected } = order;
    let mut gather = Gather::new(Arc::clone(budget), body, hasher, bytes_max);
    let mut parts = Parts::new(Arc::clone(client), Arc::clone(budget), key.clone(), upload);
    let mut broken = None;
    let done = async {
        loop {
            let part = gather.part(parts.begun).await?;
            let last = gather.ended;
            if let Some(why) = gather.broken.take() {
                match keep_part {
                    true => broken = Some(why),
                    false => return Err(why),
                }
            }
            if last {
                let hasher = gather.hasher().await?;
                if let (Some(expected), Some(hasher)) = (expected, &hasher) {
                    let actual = hasher.clone().finish();
                    if actual != expected {
                        return Err(Error::mismatch(expected, actual));
                    }
                }
                if parts.begun > 0 {
                    if part.len > 0 {
                        parts.send(part).await?;
                    }
                    parts.complete().await?;
                } else if part.len > 0 || broken.is_none() {
                    let payload = part.load(budget).await?;
                    client.put(&key, payload.0).await?;
                }
                return Ok(hasher);
            }
            parts.send(part).await?;
        }
    };
    match done.await {
        Ok(hasher) => Ok(Sent { len: gather.total, hasher, broken }),
        Err(e) => {
            parts.abort().await;
            Err(e)
        }
    }
}

/// Bytes gathered for one part.
struct Part {
    held: Held,
    len: usize,
}

enum Held {
    Memory(Vec<Bytes>, Option<OwnedSemaphorePermit>),
    File(File),
}

impl Part {
    /// The bytes, and what must be held while they travel.
    async fn load(self, budget: &Budget) -> Result<(PutPayload, Option<OwnedSemaphorePermit>)> {
        match self.held {
            Held::Memory(pieces, permit) => Ok((pieces.into_iter().collect(), permit)),
            Held::File(mut file) => {
                let permit = Arc::clone(&budget.files).acquire_owned().await.map_err(|_| Error::Busy)?;
                let len = self.len;
                let bytes = blocking(move || {
                    let mut bytes = Vec::with_capacity(len);
                    file.rewind()?;
                    file.read_to_end(&mut bytes)?;
                    Ok(Bytes::from(bytes))
                });
                Ok((bytes.await?.into(), Some(permit)))
            }
        }
    }
}

/// What is hashed and written on a blocking thread, one batch after the other.
struct Work {
    hasher: Option<Hasher>,
    file: Option<File>,
}

/// A body, cut into parts.
struct Gather {
    budget: Arc<Budget>,
    body: ByteStream,
    bytes_max: u64,
    total: u64,
    ended: bool,
    broken: Option<Error>,
    /// A piece of which the last part took the front.
    rest: Bytes,
    work: Option<Work>,
    running: Option<JoinHandle<Result<Work>>>,
}

impl Gather {
    fn new(budget: Arc<Budget>, body: ByteStream, hasher: Option<Hasher>, bytes_max: u64) -> Gather {
        let work = Some(Work { hasher, file: None });
        Gather {
            budget,
            body,
            bytes_max,
            total: 0,
            ended: false,
            broken: None,
            rest: Bytes::new(),
            work,
            running: None,
        }
    }

    /// What all batches made of the hash.
    async fn hasher(&mut self) -> Result<Option<Hasher>> {
        Ok(self.idle().await?.hasher.clone())
    }

    async fn idle(&mut self) -> Result<&mut Work> {
        if let Some(running) = self.running.take() {
            self.work = Some(running.await.map_err(|e| Error::io("write a batch", io::Error::other(e)))??);
        }
        self.work.as_mut().ok_or(Error::Busy)
    }

    /// Hash a batch, and write it when the part is in a file, while the next is gathered.
    async fn batch(&mut self, batch: Vec<Bytes>) -> Result<()> {
        self.idle().await?;
        let Some(mut work) = self.work.take() else { return Err(Error::Busy) };
        self.running = Some(tokio::task::spawn_blocking(move || {
            for piece in &batch {
                if let Some(hasher) = &mut work.hasher {
                    hasher.update(piece);
                }
                if let Some(file) = &mut work.file {
                    file.write_all(piece).map_err(|e| Error::io("keep a part for its bucket", e))?;
                }
            }
            Ok(work)
        }));
        Ok(())
    }

    async fn piece(&mut self) -> Option<Bytes> {
        if !self.rest.is_empty() {
            return Some(std::mem::take(&mut self.rest));
        }
        loop {
            match self.body.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => match self.total.checked_add(piece.len() as u64) {
                    Some(total) if total <= self.bytes_max => {
                        self.total = total;
                        return Some(piece);
                    }
                    _ => {
                        self.broken = Some(Error::TooLarge { max: self.bytes_max });
                        return None;
                    }
                },
                Some(Err(e)) => {
                    self.broken = Some(Error::Interrupted(e));
                    return None;
                }
                None => return None,
            }
        }
    }

    /// The next part, full unless the body has ended.
    async fn part(&mut self, number: usize) -> Result<Part> {
        let size = self.budget.part_bytes(number);
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut small = BytesMut::new();
        let (mut len, mut batched, mut batch_len) = (0, 0, 0);
        let (mut permit, mut in_file) = (None, false);
        while len < size {
            let Some(mut piece) = self.piece().await else {
                self.ended = true;
                break;
            };
            if piece.len() > size - len {
                self.rest = piece.split_off(size - len);
            }
            len += piece.len();
            batch_len += piece.len();
            if piece.len() < PIECE_BYTES_MIN {
                small.extend_from_slice(&piece);
                if small.len() >= 4 * PIECE_BYTES_MIN {
                    pieces.push(small.split().freeze());
                }
            } else {
                if !small.is_empty() {
                    pieces.push(small.split().freeze());
                }
                pieces.push(piece);
            }
            if permit.is_none() && !in_file && len > FREE_BYTES_MAX {
                permit = Arc::clone(&self.budget.memory).try_acquire_owned().ok();
                if permit.is_none() {
                    in_file = true;
                    let (budget, before) = (Arc::clone(&self.budget), pieces[..batched].to_vec());
                    let file = blocking(move || {
                        let mut file = budget.file()?;
                        before.iter().try_for_each(|piece| file.write_all(piece))?;
                        Ok(file)
                    });
                    let file = file.await?;
                    self.idle().await?.file = Some(file);
                    pieces.drain(..batched);
                    batched = 0;
                }
            }
            if batch_len >= BATCH_BYTES_MAX {
                if !small.is_empty() {
                    pieces.push(small.split().freeze());
                }
                batch_len = 0;
                self.batch(pieces[batched..].to_vec()).await?;
                match in_file {
                    true => pieces.clear(),
                    false => batched = pieces.len(),
                }
            }
        }
        if !small.is_empty() {
            pieces.push(small.freeze());
        }
        if batched < pieces.len() {
            self.batch(pieces[batched..].to_vec()).await?;
        }
        let held = match self.file(in_file).await? {
            Some(file) => Held::File(file),
            None => Held::Memory(pieces, permit),
        };
        Ok(Part { held, len })
    }

    async fn file(&mut self, in_file: bool) -> Result<Option<File>> {
        match in_file {
            true => Ok(self.idle().await?.file.take()),
            false => Ok(None),
        }
    }
}

/// A multipart upload, begun with its first part.
struct Parts {
    client: Arc<Client>,
    budget: Arc<Budget>,
    key: Key,
    note: Key,
    id: Option<String>,
    noted: Instant,
    begun: usize,
    in_flight: FuturesUnordered<BoxFuture<'static, Result<(usize, PartId)>>>,
    done: Vec<Option<PartId>>,
}

impl Parts {
    fn new(client: Arc<Client>, budget: Arc<Budget>, key: Key, upload: UploadId) -> Parts {
        let note = client.key(&format!("uploads/{upload}/parts-{}", UploadId::random()));
        Parts {
            client,
            budget,
            key,
            note,
            id: None,
            noted: Instant::now(),
            begun: 0,
            in_flight: FuturesUnordered::new(),
            done: Vec::new(),
        }
    }

    async fn id(&mut self) -> Result<String> {
        let client = Arc::clone(&self.client);
        let id = match &self.id {
            Some(id) if self.noted.elapsed() < Duration::from_secs(NOTE_SECS) => return Ok(id.clone()),
            Some(id) => id.clone(),
            None => {
                let begun = client.stores.parts.create_multipart(&self.key).await;
                let id = begun.map_err(|e| client.error("begin an object in parts", e))?;
                self.id = Some(id.clone());
                id
            }
        };
        // From here on, whoever finds the note can clear away what we might leave.
        client.put(&self.note, format!("{}\n{id}\n", self.key).into()).await?;
        self.noted = Instant::now();
        Ok(id)
    }

    /// Send a part, when there is room for one more on the way.
    async fn send(&mut self, part: Part) -> Result<()> {
        let id = self.id().await?;
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.one_done().await?;
        }
        let (client, budget, key, number) =
            (Arc::clone(&self.client), Arc::clone(&self.budget), self.key.clone(), self.begun);
        self.begun += 1;
        self.done.push(None);
        let sending = tokio::spawn(async move {
            let (payload, _permit) = part.load(&budget).await?;
            let sent = client.stores.parts.put_part(&key, &id, number, payload).await;
            sent.map(|part| (number, part)).map_err(|e| client.error("write a part of an object", e))
        });
        let sending = AbortOnDrop(sending);
        self.in_flight.push(Box::pin(async move {
            let mut sending = sending;
            (&mut sending.0).await.map_err(|e| Error::io("send a part", io::Error::other(e)))?
        }));
        Ok(())
    }

    async fn one_done(&mut self) -> Result<()> {
        if let Some(done) = self.in_flight.next().await {
            let (number, part) = done?;
            if let Some(place) = self.done.get_mut(number) {
                *place = Some(part);
            }
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.one_done().await?;
        }
        let parts = std::mem::take(&mut self.done).into_iter().flatten().collect();
        let Some(id) = &self.id else { return Ok(()) };
        let whole = self.client.stores.parts.complete_multipart(&self.key, id, parts).await;
        whole.map_err(|e| self.client.error("put an object together", e))?;
        self.id = None;
        self.forget_note().await;
        Ok(())
    }

    /// Leave nothing behind.
    async fn abort(&mut self) {
        self.in_flight.clear();
        let Some(id) = self.id.take() else { return };
        if let Err(e) = self.client.abort_parts(&self.key, &id).await {
            // The note stays, and with it the chance to clear this away later.
            tracing::warn!(key = %self.key, error = %e, "an upload in parts was left behind for now");
            return;
        }
        self.forget_note().await;
    }

    async fn forget_note(&mut self) {
        if let Err(e) = self.client.delete(vec![self.note.clone()]).await {
            tracing::warn!(key = %self.note, error = %e, "a note was left behind for now");
        }
    }
}

impl Drop for Parts {
    /// A request that is dropped in the middle leaves nothing behind either, if it can.
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let (client, key, note) = (Arc::clone(&self.client), self.key.clone(), self.note.clone());
        runtime.spawn(async move {
            if client.abort_parts(&key, &id).await.is_ok() {
                let _ = client.delete(vec![note]).await;
            }
        });
    }
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Run file work on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(|e| Error::io("keep a part for its bucket", e))
}
