//! What lies on this machine beside the bucket: layers that a build has just made, and
//! copies of blobs that builds read.
//!
//! ```text
//! <data>/bucket/.lock                 held while the store is open
//! <data>/bucket/staged/<algorithm>-<hex>
//!                                     committed, readable on this server, not in the bucket yet;
//!                                     emptied at open
//! <data>/bucket/cache/<algorithm>-<hex>
//!                                     copies, verified when they came; the oldest go first
//! <data>/bucket/tmp/<n>               being written; emptied at open
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use portolan_types::{Digest, Hasher, UploadId};
use tokio::sync::Mutex as AsyncMutex;

use super::Inner;
use super::send::{Budget, Order, blocking, send};
use crate::blob::{BlobWriter, ByteStream};
use crate::{Error, Result};

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 128 * 1024;
/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Layers of one build that go to the bucket at the same time.
const UPLOADS_AT_ONCE: usize = 4;
/// Blobs that are fetched at the same time, of different digests.
const FETCHES: usize = 16;

/// The folders.
pub(super) struct Local {
    staged: PathBuf,
    cache: PathBuf,
    cache_bytes_max: u64,
    fetches: [AsyncMutex<()>; FETCHES],
    _lock: File,
}

impl Local {
    /// Make the folders under `root` and clear what an earlier process left half-done.
    pub(super) fn open(root: &Path, cache_bytes_max: u64) -> Result<Local> {
        let io = |e| Error::io("make the folders beside the bucket", e);
        for folder in ["staged", "cache", "tmp"] {
            fs::create_dir_all(root.join(folder)).map_err(io)?;
        }
        let lock = crate::lock::hold(&root.join(".lock"), root)?;
        for folder in ["staged", "tmp"] {
            for entry in fs::read_dir(root.join(folder)).map_err(io)? {
                fs::remove_file(entry.map_err(io)?.path()).map_err(io)?;
            }
        }
        Ok(Local {
            staged: root.join("staged"),
            cache: root.join("cache"),
            cache_bytes_max,
            fetches: std::array::from_fn(|_| AsyncMutex::new(())),
            _lock: lock,
        })
    }

    pub(super) fn staged_path(&self, digest: &Digest) -> PathBuf {
        self.staged.join(name(digest))
    }

    fn cache_path(&self, digest: &Digest) -> PathBuf {
        self.cache.join(name(digest))
    }

    /// The size of a blob that is staged.
    pub(super) fn staged_len(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.staged_path(digest)).ok().map(|m| m.len())
    }

    /// A file with the blob's bytes, if there is one.
    pub(super) fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let staged = self.staged_path(digest);
        if staged.exists() {
            return Some(staged);
        }
        let path = self.cache_path(digest);
        let file = File::options().read(true).open(&path).ok()?;
        // What was used last goes last. Without the mark it only goes earlier.
        let _ = file.set_modified(SystemTime::now());
        Some(path)
    }

    pub(super) fn forget(&self, digest: &Digest) -> io::Result<bool> {
        let mut there = false;
        for (path, counts) in [(self.staged_path(digest), true), (self.cache_path(digest), false)] {
            match fs::remove_file(path) {
                Ok(()) => there |= counts,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(there)
    }

    /// Make room for `len` bytes more; whether there can be.
    fn make_room(&self, len: u64) -> io::Result<bool> {
        if len > self.cache_bytes_max {
            return Ok(false);
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.cache)? {
            let entry = entry?;
            if let Ok(meta) = entry.metadata() {
                files.push((meta.modified()?, meta.len(), entry.path()));
            }
        }
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, size, path) in files {
            if total.saturating_add(len) <= self.cache_bytes_max {
                break;
            }
            // Whoever has it open reads on.
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(true)
    }
}

fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

/// A file that is removed unless it got another name.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A blob in the making.
pub(super) struct Writer {
    inner: Arc<Inner>,
    temp: Temp,
    buffer: BufWriter<File>,
    len: u64,
}

impl Writer {
    pub(super) fn create(inner: Arc<Inner>) -> Result<Writer> {
        let (temp, file) = create(&inner.budget).map_err(|e| Error::io("make a temporary file", e))?;
        Ok(Writer { inner, temp, buffer: BufWriter::with_capacity(BUFFER_BYTES, file), len: 0 })
    }
}

fn create(budget: &Budget) -> io::Result<(Temp, File)> {
    let path = budget.temp_path();
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    Ok((Temp(path), file))
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.buffer.write(bytes)?;
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffer.flush()
    }
}

impl BlobWriter for Writer {
    fn commit(mut self: Box<Self>, digest: &Digest) -> Result<u64> {
        let io = |e| Error::io("write blob", e);
        self.buffer.flush().map_err(io)?;
        // What is synced already may be written again by a build without a cache: it stays
        // readable as a copy, and `sync` finds it in the bucket.
        fs::rename(&self.temp.0, self.inner.local.staged_path(digest)).map_err(io)?;
        Ok(self.len)
    }
}

impl Inner {
    /// Bring staged blobs into the bucket.
    pub(super) async fn sync(self: Arc<Self>, digests: Vec<Digest>) -> Result<()> {
        let inner = &self;
        let uploads = digests.into_iter().map(|digest| async move { inner.sync_one(digest).await });
        let mut uploads = stream::iter(uploads).buffer_unordered(UPLOADS_AT_ONCE);
        while let Some(done) = uploads.next().await {
            done?;
        }
        Ok(())
    }

    async fn sync_one(&self, digest: Digest) -> Result<()> {
        let staged = self.local.staged_path(&digest);
        let there = self.client.head(&self.blob_key(&digest)).await?;
        let open = {
            let staged = staged.clone();
            blocking(move || match File::open(staged) {
                Ok(file) => Ok(Some((file.metadata()?.len(), file))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            })
        };
        let Some((len, file)) = open.await? else {
            return match there {
                Some(_) => Ok(()),
                None => Err(Error::NotFound(format!("blob {digest}"))),
            };
        };
        if there.is_none_or(|meta| meta.size != len) {
            let order = Order {
                key: self.blob_key(&digest),
                upload: UploadId::random(),
                hasher: Some(Hasher::new(digest.algorithm())),
                bytes_max: u64::MAX,
                keep_part: false,
                expected: Some(digest),
            };
            send(&self.client, &self.budget, order, file_stream(file, 0, len)).await?;
        }
        // The next build is likely to read it: it becomes a copy, where there is room. On disk
        // first: a copy that a power cut cut short would be believed.
        let (cache, room) = (self.local.cache_path(&digest), self.local.make_room(len));
        let moved = match room {
            Ok(true) => synced(staged.clone()).await.and_then(|()| fs::rename(&staged, cache)),
            Ok(false) => fs::remove_file(&staged),
            Err(e) => Err(e),
        };
        match moved {
            // Another build that made the same layer was first.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| Error::io("keep a blob beside its bucket", e)),
        }
    }

    /// A file with the blob's bytes, fetched and verified if there was none. `None` when it
    /// is too large to be kept; `NotFound` when it is nowhere.
    pub(super) async fn fetch(&self, digest: Digest) -> Result<Option<PathBuf>> {
        let slot = usize::from(digest.bytes().first().copied().unwrap_or_default()) % FETCHES;
        let _alone = self.local.fetches[slot].lock().await;
        if let Some(path) = self.local.path(&digest) {
            return Ok(Some(path));
        }
        let key = self.blob_key(&digest);
        let missing = || Error::NotFound(format!("blob {digest}"));
        let len = self.client.head(&key).await?.ok_or_else(missing)?.size;
        let io = |e| Error::io("keep a blob beside its bucket", e);
        if !self.local.make_room(len).map_err(io)? {
            return Ok(None);
        }
        let mut body = self.client.read(&key, 0..u64::MAX).await?.ok_or_else(missing)?;
        let (temp, file) = create(&self.budget).map_err(io)?;
        let mut state = (file, Hasher::new(digest.algorithm()));
        loop {
            let (mut batch, mut batched): (Vec<Bytes>, usize) = (Vec::new(), 0);
            while batched < CHUNK_BYTES
                && let Some(piece) = body.next().await
            {
                let piece = piece.map_err(|e| Error::io("read a blob from its bucket", e))?;
                batched += piece.len();
                batch.push(piece);
            }
            if batch.is_empty() {
                break;
            }
            state = blocking(move || {
                let (mut file, mut hasher) = state;
                for piece in &batch {
                    file.write_all(piece)?;
                    hasher.update(piece);
                }
                Ok((file, hasher))
            })
            .await?;
        }
        let actual = state.1.finish();
        if actual != digest {
            return Err(Error::Corrupt(format!("blob {digest} in {} has digest {actual}", self.client.place.shown())));
        }
        synced(temp.0.clone()).await.map_err(io)?;
        let path = self.local.cache_path(&digest);
        fs::rename(&temp.0, &path).map_err(io)?;
        Ok(Some(path))
    }
}

async fn synced(path: PathBuf) -> io::Result<()> {
    let work = tokio::task::spawn_blocking(move || File::open(path)?.sync_data());
    work.await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// A file's bytes from `start` to `end`, as a body.
pub(super) fn file_stream(file: File, start: u64, end: u64) -> ByteStream {
    use std::os::unix::fs::FileExt as _;
    let state = Some((file, start));
    Box::pin(stream::unfold(state, move |state| async move {
        let (file, at) = state?;
        let len = end.saturating_sub(at).min(CHUNK_BYTES as u64) as usize;
        if len == 0 {
            return None;
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at)?;
            Ok((file, Bytes::from(bytes)))
        });
        match read.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok((file, bytes)) => Some((Ok(bytes), Some((file, at + len as u64)))),
            Err(e) => Some((Err(e), None)),
        }
    }))
}
