//! Blobs: immutable content by digest, uploads in the making, and named objects (build
//! contexts and run logs).
//!
//! The life of a blob: bytes stream into an upload ([`Uploads`]) or a writer ([`Ingest`]),
//! hashed on the way; `finish` checks the digest, makes the bytes durable and gives them
//! their name in one atomic step. From then on they never change. [`Sweep`] removes them
//! when no row refers to them any more; which repository may read them is a row in the
//! database and not known here.
//!
//! A build writes many layers and needs none of them to outlive a power cut until a
//! manifest names them, so [`Ingest::writer`] leaves its blobs readable but *staged*, and
//! [`Ingest::sync`] makes a set of them durable together. A blob that was staged and not
//! synced is gone after a restart: it may not be whole, and its name must not say it is.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use portolan_types::{Digest, UploadId};

use crate::Result;

mod bucket;
mod config;
mod fs;
mod measured;

pub use bucket::BucketBlobs;
pub use config::{BlobConfig, CACHE_BYTES_MAX, PART_BYTES, open};
pub use fs::FsBlobs;
pub use measured::{BlobOp, BlobStats, Measured};

/// A future on the heap, since these traits are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Bytes on their way. As input: an error means that the body broke off. As output: an
/// error means that the storage failed in the middle, and the reader must be cut off.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Reading content by digest.
pub trait Reader {
    /// The size of the blob in bytes, or `None` when it is not here.
    fn size(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<u64>>>;

    /// The bytes of the blob in `range`, which is cut at the blob's end. `Error::NotFound`
    /// when it is not here.
    fn read(&self, digest: &Digest, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>>;

    /// The blob as an open file, for backends that have it as one and for callers that can
    /// have the kernel send it. `None` elsewhere: use [`Reader::read`]. `Error::NotFound`
    /// when the blob is not here.
    fn open(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<std::fs::File>>> {
        let _ = digest;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// A file with the blob's bytes, for backends that have one. Between this call and
    /// opening the file, `sync` may give the file its final place: on `NotFound`, ask again.
    fn local_path(&self, digest: &Digest) -> Option<PathBuf>;

    /// A file with the blob's bytes, fetched and verified when there was none; for work that
    /// reads a blob more than once, as builds do. `None` for one that is too large to keep,
    /// or not here: [`Reader::read`] knows.
    fn fetch(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<PathBuf>>> {
        Box::pin(std::future::ready(Ok(self.local_path(digest))))
    }

    /// A URL under which anybody can GET the blob for `lifetime`, from the storage itself;
    /// `None` for backends that cannot sign one. The blob is not looked for.
    fn signed_url(&self, digest: &Digest, lifetime: Duration) -> BoxFuture<'_, Result<Option<String>>> {
        let _ = (digest, lifetime);
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// Bringing content in whole.
pub trait Ingest {
    /// Store `body` under `expected`, hashing while it is written; durable when this
    /// returns. The number of bytes. Nothing is stored on `Error::DigestMismatch`,
    /// `TooLarge` (more than `bytes_max`), `Interrupted` or `Full`.
    fn put(&self, expected: &Digest, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>>;

    /// Begin content whose digest the caller computes. Blocks.
    fn writer(&self) -> Result<Box<dyn BlobWriter>>;

    /// Make everything committed through [`BlobWriter`] under these digests durable.
    /// Blocks. `Error::NotFound` names the first that is not here.
    fn sync(&self, digests: &[Digest]) -> Result<()>;
}

/// Content in the making. Dropping it leaves nothing behind.
pub trait BlobWriter: io::Write + Send {
    /// Give the bytes written their name; the number of bytes. They can be read at once and
    /// are durable after [`Ingest::sync`]. The caller answers for the digest: it computed it
    /// from the same bytes.
    fn commit(self: Box<Self>, digest: &Digest) -> Result<u64>;
}

/// Content that arrives in several requests.
pub trait Uploads {
    /// Begin an upload. `Error::Conflict` when the id is taken.
    fn create(&self, id: UploadId) -> BoxFuture<'_, Result<()>>;

    /// Add `body` at the end; the new length in bytes.
    ///
    /// With `offset`, the upload must be exactly so long (`Error::OffsetMismatch`). Bytes
    /// that arrived before the body broke off (`Interrupted`), before `total_max` was passed
    /// (`TooLarge`) or before the disk was full (`Full`) are kept, as far as they were
    /// written: ask [`Uploads::length`]. One append runs at a time; a second is told
    /// `Conflict`. `NotFound` when there is no such upload.
    fn append(&self, id: UploadId, offset: Option<u64>, body: ByteStream, total_max: u64)
    -> BoxFuture<'_, Result<u64>>;

    /// How many bytes the upload holds, or `None` when there is no such upload.
    fn length(&self, id: UploadId) -> BoxFuture<'_, Result<Option<u64>>>;

    /// Turn the upload into a blob, durable when this returns; its size. On
    /// `Error::DigestMismatch` the upload stays as it is, to be aborted by the caller.
    fn finish(&self, id: UploadId, digest: &Digest) -> BoxFuture<'_, Result<u64>>;

    /// Forget the upload. Whether there was one. `Conflict` while an append runs.
    fn abort(&self, id: UploadId) -> BoxFuture<'_, Result<bool>>;
}

/// What the garbage collector needs.
pub trait Sweep {
    /// Remove a blob; whether it was here.
    fn delete(&self, digest: &Digest) -> BoxFuture<'_, Result<bool>>;

    /// Uploads that nothing was added to since `older`.
    fn stale_uploads(&self, older: SystemTime) -> BoxFuture<'_, Result<Vec<UploadId>>>;

    /// Durable blobs in the order of their digests, after `after`, at most `items_max`.
    fn list(&self, after: Option<Digest>, items_max: usize) -> BoxFuture<'_, Result<Vec<(Digest, u64)>>>;
}

/// Named, mutable objects: build contexts, staged blocks and run logs.
///
/// A key is a relative path of one to [`KEY_PARTS_MAX`] parts of `[a-z0-9._-]`, none of them
/// beginning with a dot. There is no object under any other key (`Error::NotFound`), and
/// none can be stored.
pub trait Objects {
    /// Store `body` whole under `key`, in the place of what was there; durable when this
    /// returns. The number of bytes. On an error the old object stays.
    fn object_put(&self, key: &str, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>>;

    /// Add to the end of an object, making it if it is not there; its new length. Blocks.
    /// Readable here at once, by other servers within about a second. Survives the orderly
    /// end of the process; on disk `kill -9` too, in a bucket all but the last second. Not a
    /// power cut. One process at a time adds to one object.
    fn object_append(&self, key: &str, bytes: &[u8]) -> Result<u64>;

    /// Wait until what was added to an object can be read by every server, and let go of its
    /// end: another process may add to it from then on.
    fn object_sync(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        let _ = key;
        Box::pin(std::future::ready(Ok(())))
    }

    /// The object's length in bytes, or `None` when it is not here.
    fn object_len(&self, key: &str) -> BoxFuture<'_, Result<Option<u64>>>;

    /// The object's bytes in `range`, cut at the end it has now.
    fn object_read(&self, key: &str, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>>;

    /// A file with the object's bytes, for backends that have one.
    fn object_path(&self, key: &str) -> Option<PathBuf>;

    /// Remove an object; fine when it is not here.
    fn object_delete(&self, key: &str) -> BoxFuture<'_, Result<()>>;

    /// Store the bytes of `parts`, one after the other, under `key`; the length. The parts
    /// stay. `NotFound` names the first part that is not here.
    fn object_concat(&self, key: &str, parts: &[String]) -> BoxFuture<'_, Result<u64>>;
}

/// Parts of an object's key.
pub const KEY_PARTS_MAX: usize = 16;

/// Bytes in one part of a key: what file systems take.
const KEY_PART_BYTES_MAX: usize = 200;

/// Whether `key` can name an object. What passes is a relative path that stays below its
/// root on any file system.
fn is_key(key: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= KEY_PART_BYTES_MAX
            && !part.starts_with('.')
            && part.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
    };
    key.split('/').count() <= KEY_PARTS_MAX && key.split('/').all(part)
}

/// Everything a blob store does. Ask for the narrower roles where they are enough.
pub trait Blobs: Reader + Ingest + Uploads + Sweep + Objects + Send + Sync {}

impl<T: Reader + Ingest + Uploads + Sweep + Objects + Send + Sync> Blobs for T {}
