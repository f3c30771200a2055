//! Uploads: files that grow request by request.
//!
//! While the server runs, the state of each upload's hash is kept in memory. After a
//! restart the file is read again to rebuild it, once, when the upload is next touched.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use portolan_types::{Algorithm, Digest, Hasher, UploadId};
use rustix::io::Errno;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::super::{BoxFuture, ByteStream, Uploads};
use super::feed::{self, Batch, feed};
use super::{FsBlobs, Inner, hop, is_there, remove, sync_parent};
use crate::{Error, Result};

/// Uploads whose hash is kept in memory. Beyond that, idle ones are read again.
const STATES_MAX: usize = 10_000;
/// So much of an upload stays in the kernel's memory, for the pull that may follow.
const CACHED_BYTES: u64 = 8 * 1024 * 1024;
/// From here on a block is hashed beside its write.
const BESIDE_BYTES_MIN: usize = 256 * 1024;

/// Each known upload's state. Its lock is held by the one request at work on it, also
/// while that request's last batch is still being written after the client has gone.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<HashMap<UploadId, Arc<AsyncMutex<State>>>>);

#[allow(clippy::large_enum_variant, reason = "each is on the heap already, and most are the large one")]
#[derive(Debug)]
enum State {
    /// Not looked at since the server started.
    Unknown,
    /// So many bytes, and the SHA-256 state after them.
    Known(u64, Hasher),
    /// Finished or aborted while somebody waited.
    Gone,
}

impl Table {
    /// The state of an upload, for this caller alone.
    fn lock(&self, id: UploadId) -> Result<OwnedMutexGuard<State>> {
        let mut table = self.0.lock();
        if table.len() >= STATES_MAX {
            table.retain(|_, state| Arc::strong_count(state) > 1);
        }
        let state = table.entry(id).or_insert_with(|| Arc::new(AsyncMutex::new(State::Unknown)));
        Arc::clone(state)
            .try_lock_owned()
            .map_err(|_| Error::Conflict(format!("another request is at work on upload {id}")))
    }

    fn forget(&self, id: UploadId, mut state: OwnedMutexGuard<State>) {
        self.0.lock().remove(&id);
        *state = State::Gone;
    }

    /// Uploads on disk that were last written before `older` and that nobody is at work on.
    pub(super) fn stale(&self, inner: &Inner, older: SystemTime) -> Result<Vec<UploadId>> {
        let io = |e| Error::io("list uploads", e);
        let mut found = Vec::new();
        for entry in fs::read_dir(inner.root.join("uploads")).map_err(io)? {
            let entry = entry.map_err(io)?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<UploadId>().ok()) else { continue };
            let written = match entry.metadata().and_then(|m| m.modified()) {
                Ok(written) => written,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(io(e)),
            };
            let busy = self.0.lock().get(&id).is_some_and(|state| state.try_lock().is_err());
            if written < older && !busy {
                found.push(id);
            }
        }
        Ok(found)
    }
}

impl Inner {
    fn upload_path(&self, id: UploadId) -> PathBuf {
        self.root.join("uploads").join(id.to_string())
    }

    /// Lock an upload and make its state known.
    async fn upload(self: &Arc<Self>, id: UploadId) -> Result<OwnedMutexGuard<State>> {
        let state = self.uploads.lock(id)?;
        match *state {
            State::Known(..) => return Ok(state),
            State::Gone => return Err(unknown(id)),
            State::Unknown => {}
        }
        let inner = Arc::clone(self);
        hop(move || {
            let mut state = state;
            match hash(&inner.upload_path(id), Algorithm::Sha256) {
                Ok((len, hasher)) => {
                    *state = State::Known(len, hasher);
                    Ok(state)
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    inner.uploads.forget(id, state);
                    Err(unknown(id))
                }
                Err(e) => Err(Error::io("read upload", e)),
            }
        })
        .await
    }
}

fn unknown(id: UploadId) -> Error {
    Error::NotFound(format!("upload {id}"))
}

fn hash(path: &std::path::Path, algorithm: Algorithm) -> io::Result<(u64, Hasher)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 256 * 1024];
    let mut len = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((len, hasher)),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                len += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A body on its way into an upload. Holds the upload's lock until it is dropped, on
/// whatever thread that happens.
struct Sink {
    state: OwnedMutexGuard<State>,
    file: Growing,
}

impl feed::Sink for Sink {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let State::Known(len, hasher) = &mut *self.state else {
            return Err(Error::NotFound("the upload".into()));
        };
        let io = |e| Error::io("write upload", e);
        let at = *len;
        let (written, next, added) = match batch {
            Batch::Block(block) if block.as_ref().len() >= BESIDE_BYTES_MIN => {
                let block = Arc::new(block);
                let (mut next, bytes) = (hasher.clone(), Arc::clone(&block));
                let hash = move || {
                    next.update((*bytes).as_ref());
                    next
                };
                let bytes = (*block).as_ref();
                let (next, written) = feed::beside(hash, || self.file.write_block(at, bytes));
                (written, next.map_err(io)?, bytes.len())
            }
            batch => {
                let written = self.file.plain().and_then(|file| feed::write_all(file, at, batch.slices()));
                let (mut next, mut added) = (hasher.clone(), 0);
                for slice in batch.slices().filter(|_| written.is_ok()) {
                    next.update(slice);
                    added += slice.len();
                }
                (written, next, added)
            }
        };
        if let Err(e) = written {
            // Whatever part of the batch came through is not in the hash.
            self.file.plain().and_then(|file| file.set_len(at)).map_err(io)?;
            return Err(io(e));
        }
        *hasher = next;
        *len = at + added as u64;
        Ok(())
    }
}

/// The file of an upload while a request writes to it.
///
/// What comes after the first [`CACHED_BYTES`] goes from our memory to the disk without the
/// kernel's page cache (`O_DIRECT`): a large layer costs half the processor time then, does
/// not push what is being served out of memory, and is on the disk when it has arrived, so
/// that the sync at its end is short. The first pull reads it back, at the disk's rate.
struct Growing {
    path: PathBuf,
    plain: Option<File>,
    direct: Direct,
}

enum Direct {
    Untried,
    Open(File),
    /// The file system does not do it.
    Refused,
}

impl Growing {
    fn new(path: PathBuf) -> Growing {
        Growing { path, plain: None, direct: Direct::Untried }
    }

    fn plain(&mut self) -> io::Result<&File> {
        match &mut self.plain {
            Some(file) => Ok(file),
            none => Ok(none.insert(File::options().write(true).open(&self.path)?)),
        }
    }

    fn direct(&mut self) -> io::Result<Option<&File>> {
        if matches!(self.direct, Direct::Untried) {
            let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
            self.direct = match File::options().write(true).custom_flags(flags).open(&self.path) {
                Ok(file) => Direct::Open(file),
                Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Direct::Refused,
                Err(e) => return Err(e),
            };
        }
        match &self.direct {
            Direct::Open(file) => Ok(Some(file)),
            _ => Ok(None),
        }
    }

    /// Write all of a block, which is aligned in memory, at `at`.
    fn write_block(&mut self, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        let aligned = |at: u64, bytes: &[u8]| {
            at.is_multiple_of(feed::BLOCK_ALIGN as u64) && bytes.len().is_multiple_of(feed::BLOCK_ALIGN)
        };
        while at >= CACHED_BYTES
            && !bytes.is_empty()
            && aligned(at, bytes)
            && let Some(direct) = self.direct()?
        {
            match rustix::io::pwrite(direct, bytes, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    bytes = &bytes[n..];
                }
                Err(Errno::INTR) => {}
                // Here it wants another alignment, or does not do it after all.
                Err(Errno::INVAL) => self.direct = Direct::Refused,
                Err(e) => return Err(e.into()),
            }
        }
        let file = self.plain()?;
        feed::write_all(file, at, Some(bytes).into_iter().filter(|bytes| !bytes.is_empty()))
    }
}

impl Uploads for FsBlobs {
    fn create(&self, id: UploadId) -> BoxFuture<'_, Result<()>> {
        let inner = Arc::clone(&self.0);
        hop(move || {
            let mut state = inner.uploads.lock(id)?;
            match File::options().write(true).create_new(true).open(inner.upload_path(id)) {
                Ok(_) => {
                    *state = State::Known(0, Hasher::new(Algorithm::Sha256));
                    Ok(())
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    Err(Error::Conflict(format!("upload {id} is there already")))
                }
                Err(e) => {
                    inner.uploads.forget(id, state);
                    Err(Error::io("begin upload", e))
                }
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
            let state = inner.upload(id).await?;
            let State::Known(have, _) = *state else { return Err(unknown(id)) };
            if let Some(got) = offset
                && got != have
            {
                return Err(Error::OffsetMismatch { have, got });
            }
            let sink = Sink { state, file: Growing::new(inner.upload_path(id)) };
            let fed = feed(sink, &inner.blocks, body, total_max.saturating_sub(have)).await?;
            hop(move || match fed.into_part()? {
                (_, Some(Error::TooLarge { .. })) => Err(Error::TooLarge { max: total_max }),
                (_, Some(e)) => Err(e),
                (sink, None) => match *sink.state {
                    State::Known(len, _) => Ok(len),
                    State::Unknown | State::Gone => Err(unknown(id)),
                },
            })
            .await
        })
    }

    fn length(&self, id: UploadId) -> BoxFuture<'_, Result<Option<u64>>> {
        let inner = Arc::clone(&self.0);
        let known = inner.uploads.0.lock().get(&id).and_then(|state| match &*state.try_lock().ok()? {
            State::Known(len, _) => Some(*len),
            State::Unknown | State::Gone => None,
        });
        if known.is_some() {
            return Box::pin(std::future::ready(Ok(known)));
        }
        hop(move || match fs::metadata(inner.upload_path(id)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("look at upload", e)),
        })
    }

    fn finish(&self, id: UploadId, digest: &Digest) -> BoxFuture<'_, Result<u64>> {
        let (inner, expected) = (Arc::clone(&self.0), *digest);
        Box::pin(async move {
            let state = inner.upload(id).await?;
            hop(move || {
                let State::Known(len, hasher) = &*state else { return Err(unknown(id)) };
                let (path, len) = (inner.upload_path(id), *len);
                let io = |e| Error::io("finish upload", e);
                let actual = match expected.algorithm() {
                    Algorithm::Sha256 => hasher.clone().finish(),
                    // Rare enough to be a second pass over the file rather than a second
                    // hash of every upload.
                    Algorithm::Sha512 => hash(&path, Algorithm::Sha512).map_err(io)?.1.finish(),
                };
                if actual != expected {
                    return Err(Error::mismatch(expected, actual));
                }
                let blob = inner.blob_path(&expected);
                if is_there(&blob, len)? {
                    remove(&path)?;
                } else {
                    let file = File::options().write(true).open(&path).map_err(io)?;
                    match file.metadata().map_err(io)?.len() {
                        there if there < len => return Err(io(io::ErrorKind::UnexpectedEof.into())),
                        // What a write that failed half-way left, if it could not be cut off then.
                        there if there > len => file.set_len(len).map_err(io)?,
                        _ => {}
                    }
                    file.sync_data().map_err(io)?;
                    fs::rename(&path, &blob).map_err(io)?;
                }
                inner.uploads.forget(id, state);
                sync_parent(&blob)?;
                Ok(len)
            })
            .await
        })
    }

    fn abort(&self, id: UploadId) -> BoxFuture<'_, Result<bool>> {
        let inner = Arc::clone(&self.0);
        hop(move || {
            let state = inner.uploads.lock(id)?;
            let there = remove(&inner.upload_path(id))?;
            inner.uploads.forget(id, state);
            Ok(there)
        })
    }
}
