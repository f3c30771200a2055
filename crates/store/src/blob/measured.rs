//! A blob store that counts what it is asked: how often, how long, how many bytes, how
//! many failures. It changes nothing and knows nothing of who asks.
//!
//! Each operation is also a span of the trace it is part of (target `portolan::trace`),
//! which costs one comparison when nobody listens.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use portolan_types::{Digest, UploadId};
use tracing::Instrument;

use super::{BlobWriter, Blobs, BoxFuture, ByteStream, Ingest, Objects, Reader, Sweep, Uploads};
use crate::stats::Operation;
use crate::{Error, Result};

macro_rules! operations {
    ($( $name:ident = $text:literal ),+ $(,)?) => {
        /// What a blob store is asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are those of the traits' methods")]
        pub enum BlobOp { $($name),+ }

        impl BlobOp {
            /// Every operation, in the order of the counters.
            pub const ALL: &[BlobOp] = &[$(BlobOp::$name),+];

            /// The name in metrics and traces.
            pub fn name(self) -> &'static str {
                match self { $(BlobOp::$name => $text),+ }
            }
        }
    };
}

operations! {
    Size = "size",
    Read = "read",
    Open = "open",
    Fetch = "fetch",
    SignedUrl = "signed_url",
    Put = "put",
    Commit = "commit",
    Sync = "sync",
    Create = "create",
    Append = "append",
    Length = "length",
    Finish = "finish",
    Abort = "abort",
    Delete = "delete",
    StaleUploads = "stale_uploads",
    List = "list",
    ObjectPut = "object_put",
    ObjectAppend = "object_append",
    ObjectLen = "object_len",
    ObjectRead = "object_read",
    ObjectDelete = "object_delete",
    ObjectConcat = "object_concat",
}

/// The figures of one store.
#[derive(Debug)]
pub struct BlobStats {
    /// Which engine it is: `fs`, `s3`, ….
    pub engine: &'static str,
    operations: [Operation; BlobOp::ALL.len()],
}

impl BlobStats {
    /// The figures of one operation.
    pub fn of(&self, op: BlobOp) -> &Operation {
        &self.operations[op as usize]
    }

    fn done<T>(&self, op: BlobOp, began: Instant, result: &Result<T>) {
        let figures = self.of(op);
        figures.times.record(began.elapsed());
        if result.as_ref().is_err_and(is_ours) {
            figures.errors_total.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether the store is at fault, not the request.
fn is_ours(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Full | Error::Busy | Error::Corrupt(_) | Error::Database(_))
}

/// The store itself.
pub struct Measured {
    inner: Arc<dyn Blobs>,
    stats: Arc<BlobStats>,
}

impl Measured {
    /// Count what `inner`, of that engine, is asked.
    pub fn new(inner: Arc<dyn Blobs>, engine: &'static str) -> Measured {
        let operations = std::array::from_fn(|_| Operation::default());
        Measured { inner, stats: Arc::new(BlobStats { engine, operations }) }
    }

    /// The figures.
    pub fn stats(&self) -> Arc<BlobStats> {
        Arc::clone(&self.stats)
    }

    fn run<'a, T: 'a>(
        &'a self,
        op: BlobOp,
        work: impl Future<Output = Result<T>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        let span =
            tracing::trace_span!(target: "portolan::trace", "blob", otel.name = op.name(), engine = self.stats.engine);
        let counted = async move {
            let began = Instant::now();
            let result = work.await;
            self.stats.done(op, began, &result);
            result
        };
        if span.is_disabled() { Box::pin(counted) } else { Box::pin(counted.instrument(span)) }
    }

    fn blocking<T>(&self, op: BlobOp, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let result = work();
        self.stats.done(op, began, &result);
        result
    }

    fn count(&self, op: BlobOp, stream: ByteStream) -> ByteStream {
        Box::pin(Counted { stream, stats: Arc::clone(&self.stats), op })
    }
}

/// A stream whose bytes are counted.
struct Counted {
    stream: ByteStream,
    stats: Arc<BlobStats>,
    op: BlobOp,
}

impl Stream for Counted {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let next = self.stream.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &next {
            self.stats.of(self.op).bytes_total.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl Reader for Measured {
    fn size(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<u64>>> {
        self.run(BlobOp::Size, self.inner.size(digest))
    }

    fn read(&self, digest: &Digest, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        let stream = self.inner.read(digest, range);
        self.run(BlobOp::Read, async move { Ok(self.count(BlobOp::Read, stream.await?)) })
    }

    // What the kernel sends from the file is in the counters of the listeners.
    fn open(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<std::fs::File>>> {
        self.run(BlobOp::Open, self.inner.open(digest))
    }

    fn local_path(&self, digest: &Digest) -> Option<PathBuf> {
        self.inner.local_path(digest)
    }

    fn fetch(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<PathBuf>>> {
        self.run(BlobOp::Fetch, self.inner.fetch(digest))
    }

    fn signed_url(&self, digest: &Digest, lifetime: Duration) -> BoxFuture<'_, Result<Option<String>>> {
        self.run(BlobOp::SignedUrl, self.inner.signed_url(digest, lifetime))
    }
}

impl Ingest for Measured {
    fn put(&self, expected: &Digest, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        self.run(BlobOp::Put, self.inner.put(expected, self.count(BlobOp::Put, body), bytes_max))
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(Writer { inner: self.inner.writer()?, stats: Arc::clone(&self.stats) }))
    }

    fn sync(&self, digests: &[Digest]) -> Result<()> {
        self.blocking(BlobOp::Sync, || self.inner.sync(digests))
    }
}

struct Writer {
    inner: Box<dyn BlobWriter>,
    stats: Arc<BlobStats>,
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.stats.of(BlobOp::Commit).bytes_total.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl BlobWriter for Writer {
    fn commit(self: Box<Self>, digest: &Digest) -> Result<u64> {
        let began = Instant::now();
        let result = self.inner.commit(digest);
        self.stats.done(BlobOp::Commit, began, &result);
        result
    }
}

impl Uploads for Measured {
    fn create(&self, id: UploadId) -> BoxFuture<'_, Result<()>> {
        self.run(BlobOp::Create, self.inner.create(id))
    }

    fn append(
        &self,
        id: UploadId,
        offset: Option<u64>,
        body: ByteStream,
        total_max: u64,
    ) -> BoxFuture<'_, Result<u64>> {
        self.run(BlobOp::Append, self.inner.append(id, offset, self.count(BlobOp::Append, body), total_max))
    }

    fn length(&self, id: UploadId) -> BoxFuture<'_, Result<Option<u64>>> {
        self.run(BlobOp::Length, self.inner.length(id))
    }

    fn finish(&self, id: UploadId, digest: &Digest) -> BoxFuture<'_, Result<u64>> {
        self.run(BlobOp::Finish, self.inner.finish(id, digest))
    }

    fn abort(&self, id: UploadId) -> BoxFuture<'_, Result<bool>> {
        self.run(BlobOp::Abort, self.inner.abort(id))
    }
}

impl Sweep for Measured {
    fn delete(&self, digest: &Digest) -> BoxFuture<'_, Result<bool>> {
        self.run(BlobOp::Delete, self.inner.delete(digest))
    }

    fn stale_uploads(&self, older: SystemTime) -> BoxFuture<'_, Result<Vec<UploadId>>> {
        self.run(BlobOp::StaleUploads, self.inner.stale_uploads(older))
    }

    fn list(&self, after: Option<Digest>, items_max: usize) -> BoxFuture<'_, Result<Vec<(Digest, u64)>>> {
        self.run(BlobOp::List, self.inner.list(after, items_max))
    }
}

impl Objects for Measured {
    fn object_put(&self, key: &str, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        self.run(BlobOp::ObjectPut, self.inner.object_put(key, self.count(BlobOp::ObjectPut, body), bytes_max))
    }

    fn object_append(&self, key: &str, bytes: &[u8]) -> Result<u64> {
        let figures = self.stats.of(BlobOp::ObjectAppend);
        figures.bytes_total.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.blocking(BlobOp::ObjectAppend, || self.inner.object_append(key, bytes))
    }

    fn object_sync(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        self.run(BlobOp::ObjectAppend, self.inner.object_sync(key))
    }

    fn object_len(&self, key: &str) -> BoxFuture<'_, Result<Option<u64>>> {
        self.run(BlobOp::ObjectLen, self.inner.object_len(key))
    }

    fn object_read(&self, key: &str, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        let stream = self.inner.object_read(key, range);
        self.run(BlobOp::ObjectRead, async move { Ok(self.count(BlobOp::ObjectRead, stream.await?)) })
    }

    fn object_path(&self, key: &str) -> Option<PathBuf> {
        self.inner.object_path(key)
    }

    fn object_delete(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        self.run(BlobOp::ObjectDelete, self.inner.object_delete(key))
    }

    fn object_concat(&self, key: &str, parts: &[String]) -> BoxFuture<'_, Result<u64>> {
        self.run(BlobOp::ObjectConcat, self.inner.object_concat(key, parts))
    }
}
