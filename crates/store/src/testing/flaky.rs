//! A blob store whose calls fail: the first ones or the n-th, before they do anything or after
//! they did it, slowly, or with a body that breaks in the middle.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use portolan_types::{Digest, UploadId};

use crate::blob::{BlobWriter, Blobs, BoxFuture, ByteStream, Ingest, Objects, Reader, Sweep, Uploads};
use crate::{Error, Result};

/// How a call fails.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The disk is full.
    Full,
    /// The disk is broken.
    Io,
}

/// Fails the first calls that would touch storage, then behaves as the store inside. A
/// failing call does nothing and takes nothing from its body.
#[derive(Debug)]
pub struct Flaky<B> {
    inner: B,
    /// Calls to go well before the next fails.
    skip: AtomicUsize,
    left: AtomicUsize,
    /// Fail after the call did its work, not before.
    late: AtomicBool,
    latency_millis: AtomicU64,
    /// After so many bytes the next body breaks off; `u64::MAX` for never.
    torn_at: AtomicU64,
    fault: Fault,
}

impl<B: Blobs> Flaky<B> {
    /// Wrap `inner`; the first `calls` calls fail with `fault`.
    pub fn new(inner: B, calls: usize, fault: Fault) -> Flaky<B> {
        Flaky {
            inner,
            skip: AtomicUsize::new(0),
            left: AtomicUsize::new(calls),
            late: AtomicBool::new(false),
            latency_millis: AtomicU64::new(0),
            torn_at: AtomicU64::new(u64::MAX),
            fault,
        }
    }

    /// Fail the next `calls` calls too.
    pub fn fail_next(&self, calls: usize) {
        self.left.store(calls, Ordering::SeqCst);
    }

    /// Fail the `nth` call from now (from 1) and no other; with `late`, after it did its work.
    pub fn fail_at(&self, nth: usize, late: bool) {
        self.skip.store(nth.saturating_sub(1), Ordering::SeqCst);
        self.late.store(late, Ordering::SeqCst);
        self.left.store(1, Ordering::SeqCst);
    }

    /// Break the next body, coming or going, after so many bytes.
    pub fn tear_at(&self, bytes: u64) {
        self.torn_at.store(bytes, Ordering::SeqCst);
    }

    /// Fail no more; whether there was nothing left to fail.
    pub fn clear(&self) -> bool {
        self.late.store(false, Ordering::SeqCst);
        let torn = self.torn_at.swap(u64::MAX, Ordering::SeqCst) == u64::MAX;
        self.left.swap(0, Ordering::SeqCst) == 0 && torn
    }

    /// Take so long for each call.
    pub fn set_latency(&self, latency: Duration) {
        self.latency_millis.store(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn torn(&self, body: ByteStream) -> ByteStream {
        let mut left = self.torn_at.swap(u64::MAX, Ordering::SeqCst);
        if left == u64::MAX {
            return body;
        }
        Box::pin(body.map(move |piece| {
            let piece = piece?;
            match left.checked_sub(piece.len() as u64) {
                Some(rest) => {
                    left = rest;
                    Ok(piece)
                }
                None => Err(std::io::ErrorKind::ConnectionReset.into()),
            }
        }))
    }

    fn check(&self) -> Result<()> {
        if self.left.load(Ordering::SeqCst) > 0
            && self.skip.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |skip| skip.checked_sub(1)).is_ok()
        {
            return Ok(());
        }
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Err(_) => Ok(()),
            Ok(_) => Err(match self.fault {
                Fault::Full => Error::Full,
                Fault::Io => Error::io("use a broken disk", std::io::Error::other("made to fail")),
            }),
        }
    }

    fn then<'a, T: Send + 'a>(&'a self, call: BoxFuture<'a, Result<T>>) -> BoxFuture<'a, Result<T>> {
        let (verdict, late) = (self.check(), self.late.load(Ordering::SeqCst));
        let latency = Duration::from_millis(self.latency_millis.load(Ordering::SeqCst));
        Box::pin(async move {
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            match verdict {
                Ok(()) => call.await,
                Err(e) if late => call.await.and(Err(e)),
                Err(e) => Err(e),
            }
        })
    }
}

impl<B: Blobs> Reader for Flaky<B> {
    fn size(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<u64>>> {
        self.then(self.inner.size(digest))
    }

    fn read(&self, digest: &Digest, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        let read = self.then(self.inner.read(digest, range));
        Box::pin(async move { read.await.map(|body| self.torn(body)) })
    }

    fn open(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<std::fs::File>>> {
        self.then(self.inner.open(digest))
    }

    fn local_path(&self, digest: &Digest) -> Option<PathBuf> {
        self.inner.local_path(digest)
    }

    fn fetch(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<PathBuf>>> {
        self.then(self.inner.fetch(digest))
    }

    fn signed_url(&self, digest: &Digest, lifetime: Duration) -> BoxFuture<'_, Result<Option<String>>> {
        self.then(self.inner.signed_url(digest, lifetime))
    }
}

impl<B: Blobs> Ingest for Flaky<B> {
    fn put(&self, expected: &Digest, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        self.then(self.inner.put(expected, self.torn(body), bytes_max))
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.check()?;
        self.inner.writer()
    }

    fn sync(&self, digests: &[Digest]) -> Result<()> {
        self.check()?;
        self.inner.sync(digests)
    }
}

impl<B: Blobs> Uploads for Flaky<B> {
    fn create(&self, id: UploadId) -> BoxFuture<'_, Result<()>> {
        self.then(self.inner.create(id))
    }

    fn append(
        &self,
        id: UploadId,
        offset: Option<u64>,
        body: ByteStream,
        total_max: u64,
    ) -> BoxFuture<'_, Result<u64>> {
        self.then(self.inner.append(id, offset, self.torn(body), total_max))
    }

    fn length(&self, id: UploadId) -> BoxFuture<'_, Result<Option<u64>>> {
        self.then(self.inner.length(id))
    }

    fn finish(&self, id: UploadId, digest: &Digest) -> BoxFuture<'_, Result<u64>> {
        self.then(self.inner.finish(id, digest))
    }

    fn abort(&self, id: UploadId) -> BoxFuture<'_, Result<bool>> {
        self.then(self.inner.abort(id))
    }
}

impl<B: Blobs> Sweep for Flaky<B> {
    fn delete(&self, digest: &Digest) -> BoxFuture<'_, Result<bool>> {
        self.then(self.inner.delete(digest))
    }

    fn stale_uploads(&self, older: SystemTime) -> BoxFuture<'_, Result<Vec<UploadId>>> {
        self.then(self.inner.stale_uploads(older))
    }

    fn list(&self, after: Option<Digest>, items_max: usize) -> BoxFuture<'_, Result<Vec<(Digest, u64)>>> {
        self.then(self.inner.list(after, items_max))
    }
}

impl<B: Blobs> Objects for Flaky<B> {
    fn object_put(&self, key: &str, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        self.then(self.inner.object_put(key, body, bytes_max))
    }

    fn object_append(&self, key: &str, bytes: &[u8]) -> Result<u64> {
        self.check()?;
        self.inner.object_append(key, bytes)
    }

    fn object_sync(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        self.then(self.inner.object_sync(key))
    }

    fn object_len(&self, key: &str) -> BoxFuture<'_, Result<Option<u64>>> {
        self.then(self.inner.object_len(key))
    }

    fn object_read(&self, key: &str, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        self.then(self.inner.object_read(key, range))
    }

    fn object_path(&self, key: &str) -> Option<PathBuf> {
        self.inner.object_path(key)
    }

    fn object_delete(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        self.then(self.inner.object_delete(key))
    }

    fn object_concat(&self, key: &str, parts: &[String]) -> BoxFuture<'_, Result<u64>> {
        self.then(self.inner.object_concat(key, parts))
    }
}
