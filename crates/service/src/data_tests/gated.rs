//! A blob store that stops in the middle of a deletion until the test lets it go on, and
//! fails some.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use portolan_store::blob::{BlobWriter, BoxFuture, ByteStream, FsBlobs, Ingest, Objects, Reader, Sweep, Uploads};
use portolan_store::{Error, Result};
use portolan_types::{Digest, UploadId};
use tokio::sync::Semaphore;

/// Where the store and the test meet.
pub(super) struct Gate {
    /// Gets a permit when a deletion has begun.
    pub(super) entered: Semaphore,
    /// A deletion takes a permit before it removes the file.
    pub(super) release: Semaphore,
    /// Blobs put in place so far.
    pub(super) finished: AtomicUsize,
    /// Deletions still to fail.
    pub(super) failures: AtomicUsize,
}

impl Gate {
    pub(super) fn new() -> Arc<Gate> {
        Arc::new(Gate {
            entered: Semaphore::new(0),
            release: Semaphore::new(0),
            finished: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
        })
    }
}

pub(super) struct Gated {
    pub(super) inner: FsBlobs,
    pub(super) gate: Arc<Gate>,
}

impl Sweep for Gated {
    fn delete(&self, digest: &Digest) -> BoxFuture<'_, Result<bool>> {
        let digest = *digest;
        Box::pin(async move {
            self.gate.entered.add_permits(1);
            self.gate.release.acquire().await.unwrap().forget();
            let fails = |left: usize| left.checked_sub(1);
            if self.gate.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
                return Err(Error::io("delete blob", std::io::Error::other("made to fail")));
            }
            self.inner.delete(&digest).await
        })
    }

    fn stale_uploads(&self, older: SystemTime) -> BoxFuture<'_, Result<Vec<UploadId>>> {
        self.inner.stale_uploads(older)
    }

    fn list(&self, after: Option<Digest>, items_max: usize) -> BoxFuture<'_, Result<Vec<(Digest, u64)>>> {
        self.inner.list(after, items_max)
    }
}

impl Uploads for Gated {
    fn create(&self, id: UploadId) -> BoxFuture<'_, Result<()>> {
        self.inner.create(id)
    }

    fn append(
        &self,
        id: UploadId,
        offset: Option<u64>,
        body: ByteStream,
        total_max: u64,
    ) -> BoxFuture<'_, Result<u64>> {
        self.inner.append(id, offset, body, total_max)
    }

    fn length(&self, id: UploadId) -> BoxFuture<'_, Result<Option<u64>>> {
        self.inner.length(id)
    }

    fn finish(&self, id: UploadId, digest: &Digest) -> BoxFuture<'_, Result<u64>> {
        let digest = *digest;
        Box::pin(async move {
            let size = self.inner.finish(id, &digest).await?;
            self.gate.finished.fetch_add(1, Ordering::SeqCst);
            Ok(size)
        })
    }

    fn abort(&self, id: UploadId) -> BoxFuture<'_, Result<bool>> {
        self.inner.abort(id)
    }
}

impl Reader for Gated {
    fn size(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<u64>>> {
        self.inner.size(digest)
    }

    fn read(&self, digest: &Digest, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        self.inner.read(digest, range)
    }

    fn local_path(&self, digest: &Digest) -> Option<PathBuf> {
        self.inner.local_path(digest)
    }
}

impl Ingest for Gated {
    fn put(&self, expected: &Digest, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        self.inner.put(expected, body, bytes_max)
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.inner.writer()
    }

    fn sync(&self, digests: &[Digest]) -> Result<()> {
        self.inner.sync(digests)
    }
}

impl Objects for Gated {
    fn object_put(&self, key: &str, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        self.inner.object_put(key, body, bytes_max)
    }

    fn object_append(&self, key: &str, bytes: &[u8]) -> Result<u64> {
        self.inner.object_append(key, bytes)
    }

    fn object_len(&self, key: &str) -> BoxFuture<'_, Result<Option<u64>>> {
        self.inner.object_len(key)
    }

    fn object_read(&self, key: &str, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        self.inner.object_read(key, range)
    }

    fn object_path(&self, key: &str) -> Option<PathBuf> {
        self.inner.object_path(key)
    }

    fn object_delete(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        self.inner.object_delete(key)
    }

    fn object_concat(&self, key: &str, parts: &[String]) -> BoxFuture<'_, Result<u64>> {
        self.inner.object_concat(key, parts)
    }
}
