//! Blobs of a build: committed at once, durable together.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use portolan_types::Digest;

use super::super::BlobWriter;
use super::temp::Temp;
use super::{Inner, is_there, sync_folder};
use crate::{Error, Result};

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 128 * 1024;
/// Files synced side by side. The file system puts syncs that arrive together into one
/// commit of its journal, so this is faster than one after the other.
const SYNCS_MAX: usize = 8;

/// A blob in the making.
pub(super) struct Writer {
    inner: Arc<Inner>,
    buffer: BufWriter<Out>,
}

struct Out(Temp);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer {
    pub(super) fn create(inner: Arc<Inner>) -> Result<Writer> {
        let temp = inner.temp()?;
        Ok(Writer { inner, buffer: BufWriter::with_capacity(BUFFER_BYTES, Out(temp)) })
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffer.flush()
    }
}

impl BlobWriter for Writer {
    fn commit(self: Box<Self>, digest: &Digest) -> Result<u64> {
        let Writer { inner, buffer } = *self;
        let Out(temp) = buffer.into_inner().map_err(|e| Error::io("write blob", e.into_error()))?;
        let len = temp.len()?;
        if !is_there(&inner.blob_path(digest), len)? {
            temp.rename(&inner.staged_path(digest))?;
        }
        Ok(len)
    }
}

/// Move blobs from `staged/` to `blobs/`, synced.
pub(super) fn sync(inner: &Inner, digests: &[Digest]) -> Result<()> {
    let digests: BTreeSet<Digest> = digests.iter().copied().collect();
    let work: Vec<(PathBuf, PathBuf, Digest)> =
        digests.into_iter().map(|d| (inner.staged_path(&d), inner.blob_path(&d), d)).collect();
    each(&work, |(staged, blob, digest)| {
        let io = |e| Error::io("sync blob", e);
        match File::open(staged) {
            Ok(file) => file.sync_data().map_err(io)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return match blob.try_exists().map_err(io)? {
                    true => Ok(()),
                    false => Err(Error::NotFound(format!("blob {digest}"))),
                };
            }
            Err(e) => return Err(io(e)),
        }
        match fs::rename(staged, blob) {
            Ok(()) => Ok(()),
            // Another build that made the same layer was first.
            Err(e) if e.kind() == io::ErrorKind::NotFound && blob.try_exists().map_err(io)? => Ok(()),
            Err(e) => Err(io(e)),
        }
    })?;
    let folders: BTreeSet<_> = work.iter().filter_map(|(_, blob, _)| blob.parent()).collect();
    let folders: Vec<_> = folders.into_iter().collect();
    each(&folders, |folder| sync_folder(folder))
}

/// Run `task` for each item on a few threads; the first failure.
fn each<T: Sync>(items: &[T], task: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    if let [only] = items {
        return task(only);
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(e) = task(item) {
                failed.lock().get_or_insert(e);
                next.store(items.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..SYNCS_MAX.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    failed.into_inner().map_or(Ok(()), Err)
}
