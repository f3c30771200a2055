//! Blobs on a local disk.
//!
//! ```text
//! <root>/.lock                    held while the store is open
//! <root>/blobs/sha256/<2 hex>/<64 hex>
//! <root>/blobs/sha512/<2 hex>/<128 hex>
//!                                 durable content: the file was synced before it got this name
//! <root>/staged/<algorithm>-<hex> committed, readable, not synced; emptied at open
//! <root>/tmp/<n>                  being written; emptied at open
//! <root>/uploads/<uuid>           uploads between two requests
//! <root>/objects/<key>            build contexts and run logs
//! ```
//!
//! A file comes under `blobs/` in one way only: written elsewhere on the same file system,
//! synced, renamed, folder synced. Hence a name under `blobs/` is a promise about the bytes
//! that holds after a power cut. Work on files runs on tokio's blocking threads; no thread
//! is held while a client is slow.

mod feed;
mod object;
mod pool;
mod read;
mod staged;
mod temp;
mod upload;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use portolan_types::{Algorithm, Digest, UploadId};

use self::pool::Pool;
use self::temp::Temp;
use super::{BlobWriter, BoxFuture, ByteStream, Ingest, Reader, Sweep};
use crate::{Error, Result};

/// A blob store in a folder. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub struct FsBlobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    uploads: upload::Table,
    temps: AtomicU64,
    /// What streams read into.
    chunks: Pool,
    /// What bodies are gathered in.
    blocks: Pool,
    _lock: fs::File,
}

/// Pooled chunks in all streams together; beyond that each has memory of its own.
const CHUNKS_MAX: usize = 512;
/// Chunks that are kept when no stream needs them.
const CHUNKS_KEPT_MAX: usize = 32;
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

impl FsBlobs {
    /// Open the store in `root`, make its folders if they are not there, and clear what an
    /// earlier process left half-written. Blocks; call it while starting. Takes the same
    /// time however much is stored.
    ///
    /// Fails when another process has the store open (after a short wait).
    pub fn open(root: &Path) -> Result<FsBlobs> {
        let io = |what: &'static str| move |e| Error::io(what, e);
        for folder in ["staged", "tmp", "uploads", "objects"] {
            fs::create_dir_all(root.join(folder)).map_err(io("make the blob folders"))?;
        }
        let lock = crate::lock::hold(&root.join(".lock"), root)?;
        for folder in ["staged", "tmp"] {
            clear(&root.join(folder)).map_err(io("clear what an earlier process left"))?;
        }
        // The folders are made once and for all, so that storing a blob never has to sync
        // more than the one it goes to.
        for algorithm in ALGORITHMS {
            let folder = root.join("blobs").join(algorithm.as_str());
            for n in 0..=255u8 {
                fs::create_dir_all(folder.join(format!("{n:02x}"))).map_err(io("make the blob folders"))?;
            }
            sync_folder(&folder)?;
        }
        sync_folder(&root.join("blobs"))?;
        sync_folder(root)?;
        Ok(FsBlobs(Arc::new(Inner {
            root: root.to_path_buf(),
            uploads: upload::Table::default(),
            temps: AtomicU64::new(0),
            chunks: Pool::new(read::CHUNK_BYTES_MAX, 1, CHUNKS_KEPT_MAX, CHUNKS_MAX),
            blocks: feed::blocks(),
            _lock: lock,
        })))
    }
}

impl Inner {
    /// Where a durable blob is.
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let mut path = self.root.join("blobs");
        path.push(digest.algorithm().as_str());
        path.push(&hex[..2]);
        path.push(hex);
        path
    }

    /// Where a blob is between `commit` and `sync`.
    fn staged_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("staged").join(format!("{}-{}", digest.algorithm().as_str(), digest.hex()))
    }

    fn temp(&self) -> Result<Temp> {
        let n = self.temps.fetch_add(1, Ordering::Relaxed);
        Temp::create(self.root.join("tmp").join(n.to_string()))
    }

    /// Open a blob, wherever it is.
    fn open_blob(&self, digest: &Digest) -> Result<fs::File> {
        // `sync` may move the file from the second place to the first between two looks.
        for path in [self.blob_path(digest), self.staged_path(digest), self.blob_path(digest)] {
            match fs::File::open(path) {
                Ok(file) => return Ok(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("open blob", e)),
            }
        }
        Err(Error::NotFound(format!("blob {digest}")))
    }

    /// Give a finished file its name, durably. Drops it when the blob is there already.
    fn place(&self, temp: Temp, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        if !is_there(&path, temp.len()?)? {
            temp.sync()?;
            temp.rename(&path)?;
        }
        // Also when the file was there: whoever put it there may not have come so far yet.
        sync_parent(&path)
    }
}

impl Reader for FsBlobs {
    fn size(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<u64>>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        hop(move || match inner.open_blob(&digest) {
            Ok(file) => file.metadata().map(|m| Some(m.len())).map_err(|e| Error::io("look at blob", e)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        })
    }

    fn read(&self, digest: &Digest, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        Box::pin(read::stream(inner.chunks.clone(), move || inner.open_blob(&digest), range))
    }

    fn open(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<fs::File>>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        hop(move || inner.open_blob(&digest).map(Some))
    }

    fn local_path(&self, digest: &Digest) -> Option<PathBuf> {
        let blob = self.0.blob_path(digest);
        [blob.clone(), self.0.staged_path(digest), blob].into_iter().find(|path| path.exists())
    }
}

impl Ingest for FsBlobs {
    fn put(&self, expected: &Digest, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        let (inner, expected) = (Arc::clone(&self.0), *expected);
        Box::pin(async move {
            let sink = temp::Sink::new(Arc::clone(&inner), Some(expected.algorithm()));
            let fed = feed::feed(sink, &inner.blocks, body, bytes_max).await?;
            hop(move || {
                let (temp, len, actual) = fed.into_whole()?.finish()?;
                match actual {
                    Some(actual) if actual != expected => return Err(Error::mismatch(expected, actual)),
                    _ => inner.place(temp, &expected)?,
                }
                Ok(len)
            })
            .await
        })
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(staged::Writer::create(Arc::clone(&self.0))?))
    }

    fn sync(&self, digests: &[Digest]) -> Result<()> {
        staged::sync(&self.0, digests)
    }
}

impl Sweep for FsBlobs {
    fn delete(&self, digest: &Digest) -> BoxFuture<'_, Result<bool>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        hop(move || {
            let staged = remove(&inner.staged_path(&digest))?;
            let durable = remove(&inner.blob_path(&digest))?;
            Ok(staged || durable)
        })
    }

    fn stale_uploads(&self, older: SystemTime) -> BoxFuture<'_, Result<Vec<UploadId>>> {
        let inner = Arc::clone(&self.0);
        hop(move || inner.uploads.stale(&inner, older))
    }

    fn list(&self, after: Option<Digest>, items_max: usize) -> BoxFuture<'_, Result<Vec<(Digest, u64)>>> {
        let inner = Arc::clone(&self.0);
        hop(move || list(&inner, after, items_max).map_err(|e| Error::io("list blobs", e)))
    }
}

fn list(inner: &Inner, after: Option<Digest>, items_max: usize) -> io::Result<Vec<(Digest, u64)>> {
    let mut found = Vec::new();
    for algorithm in ALGORITHMS {
        if after.is_some_and(|after| after.algorithm() > algorithm) {
            continue;
        }
        for n in 0..=255u8 {
            if after.is_some_and(|after| after.algorithm() == algorithm && after.bytes().first() > Some(&n)) {
                continue;
            }
            let folder = inner.root.join("blobs").join(algorithm.as_str()).join(format!("{n:02x}"));
            let mut here = Vec::new();
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name();
                // Anything else in there is not ours and not listed.
                let digest = name.to_str().and_then(|hex| format!("{}:{hex}", algorithm.as_str()).parse().ok());
                if let Some(digest) = digest
                    && after.is_none_or(|after| after < digest)
                {
                    here.push((digest, entry));
                }
            }
            here.sort_unstable_by_key(|(digest, _)| *digest);
            for (digest, entry) in here {
                if found.len() == items_max {
                    return Ok(found);
                }
                match entry.metadata() {
                    Ok(metadata) => found.push((digest, metadata.len())),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
        }
    }
    Ok(found)
}

/// Run file work on a blocking thread.
fn hop<'a, T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> BoxFuture<'a, Result<T>> {
    Box::pin(async move {
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|e| Err(Error::io("run work on a blocking thread", io::Error::other(e))))
    })
}

/// Whether a file of this length is at `path`. A file of another length under a blob's
/// name was damaged from outside, and is to be replaced.
fn is_there(path: &Path, len: u64) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len() == len),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("look for blob", e)),
    }
}

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("remove a file", e)),
    }
}

fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<()> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("sync a folder", e))
}

fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_folder)
}
