//! Blobs in a bucket: S3 and what speaks like it, Azure Blob Storage, Google Cloud Storage.
//!
//! ```text
//! <prefix>/portolan               marker: the bucket holds blobs of this version of the layout
//! <prefix>/blobs/sha256/<2 hex>/<64 hex>
//! <prefix>/blobs/sha512/<2 hex>/<128 hex>
//!                                 content: complete and verified before it got this key
//! <prefix>/uploads/<uuid>/…       uploads between two requests      (upload.rs)
//! <prefix>/objects/<key>          build contexts                    (object.rs)
//! <prefix>/segments/<key>/…       run logs                          (object.rs)
//! ```
//!
//! Any number of servers use one bucket; no server keeps anything to itself that another
//! would need, but the last second of a run's log and the layers of a build under way
//! (local.rs). All three services list what was written before, at once and everywhere.
//!
//! A key under `blobs/` appears in one of three ways, each in one step of the service: a
//! `PUT` of bytes whose digest is known to be right, a multipart upload completed when it
//! is, a copy of bytes that were hashed when they came. Acknowledged means: in the bucket.

mod assemble;
mod client;
mod local;
mod object;
mod place;
mod send;
mod upload;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use object_store::path::Path as Key;
use portolan_types::{Algorithm, Digest, Hasher, UploadId};
use tokio::runtime::Runtime;

pub(super) use self::place::Place;

use self::client::Client;
use self::local::{Local, file_stream};
use self::send::{Budget, Order, send};
use super::{BlobConfig, BlobWriter, BoxFuture, ByteStream, Ingest, Reader, Sweep};
use crate::{Error, Result};

/// The smallest part that every service takes.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
/// The largest part: 24 of them may be in memory at once.
const PART_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long the bucket may take to answer when the store is opened.
const OPEN_SECS_MAX: u64 = 20;
/// How long closing the store waits for the ends of logs.
const CLOSE_SECS_MAX: u64 = 5;
/// What the marker says.
const MARKER: &str = "portolan blobs 1\n";

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// A blob store in a bucket. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct BucketBlobs(Arc<Inner>);

struct Inner {
    client: Arc<Client>,
    budget: Arc<Budget>,
    local: Local,
    uploads: upload::Table,
    tails: object::Tails,
    sizes: assemble::Sizes,
    /// For calls that block, which may come from any thread. `None` once it is closing.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for BucketBlobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BucketBlobs({})", self.0.client.place.shown())
    }
}

impl BucketBlobs {
    /// Open the store that `config` names, with what stays on this machine under
    /// `<data>/bucket`. Blocks; call it while starting. Takes the same few requests however
    /// much is stored.
    pub fn open(config: &BlobConfig, data: &Path) -> Result<BucketBlobs> {
        Self::open_with(config, data, assemble::Sizes::default())
    }

    /// As [`BucketBlobs::open`], copying by ranges from `copy_bytes_max` on: for tests, to
    /// which 5 GB are too much.
    #[doc(hidden)]
    pub fn open_copying(config: &BlobConfig, data: &Path, copy_bytes_max: u64) -> Result<BucketBlobs> {
        Self::open_with(config, data, assemble::Sizes { copy_bytes_max })
    }

    fn open_with(config: &BlobConfig, data: &Path, sizes: assemble::Sizes) -> Result<BucketBlobs> {
        let refused = |why: String| Error::Io { what: why, source: std::io::ErrorKind::InvalidInput.into() };
        let place = Place::parse(&config.url).map_err(refused)?;
        let shown = place.shown();
        let client = place.connect(config).map_err(|why| refused(format!("{shown} cannot be used: {why}")))?;
        let root = data.join("bucket");
        let local = Local::open(&root, config.cache_bytes_max)?;
        let part_bytes = config.part_bytes.clamp(PART_BYTES_MIN, PART_BYTES_MAX) as usize;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket")
            .enable_all()
            .build()
            .map_err(|e| Error::io("start the bucket's threads", e))?;
        let inner = Arc::new(Inner {
            client: Arc::new(client),
            budget: Arc::new(Budget::new(root.join("tmp"), part_bytes)),
            local,
            uploads: upload::Table::default(),
            tails: object::Tails::default(),
            sizes,
            runtime: Some(runtime),
        });
        let blobs = BucketBlobs(inner);
        let client = Arc::clone(&blobs.0.client);
        blobs.wait(async move { client.greet().await })?;
        if let Some(runtime) = &blobs.0.runtime {
            runtime.spawn(object::keep_flushing(Arc::downgrade(&blobs.0)));
        }
        Ok(blobs)
    }

    /// Do async work from a thread that may block, whatever runtime it belongs to.
    fn wait<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let runtime = self.0.runtime.as_ref().ok_or(Error::Busy)?;
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            let _ = done.send(work.await);
        });
        wait.recv().unwrap_or_else(|e| Err(Error::io("use the bucket", std::io::Error::other(e))))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let ends = std::mem::take(&mut self.tails);
        if !ends.is_empty() {
            let client = Arc::clone(&self.client);
            let (tell, wait) = std::sync::mpsc::sync_channel(1);
            runtime.spawn(async move {
                ends.flush(&client).await;
                let _ = tell.send(());
            });
            if wait.recv_timeout(Duration::from_secs(CLOSE_SECS_MAX)).is_err() {
                tracing::warn!("the last lines of a log are lost: the bucket does not answer");
            }
        }
        runtime.shutdown_background();
    }
}

impl Client {
    /// See that the bucket is there, lets us in and knows our layout; one sentence when not.
    async fn greet(&self) -> Result<()> {
        let shown = self.place.shown();
        let noun = self.kind().noun();
        let say = |what: String, kind: std::io::ErrorKind| Error::Io { what, source: kind.into() };
        let limit = Duration::from_secs(OPEN_SECS_MAX);
        let Ok(greeted) = tokio::time::timeout(limit, self.mark()).await else {
            let what = format!(
                "the {noun} {shown} did not answer within {OPEN_SECS_MAX} seconds: check the endpoint and the network"
            );
            return Err(say(what, std::io::ErrorKind::TimedOut));
        };
        match greeted {
            Ok(()) => Ok(()),
            Err(Error::NotFound(_)) => {
                let what = format!("there is no {noun} {shown}: make it first, or correct the setting `blobs`");
                Err(say(what, std::io::ErrorKind::NotFound))
            }
            Err(Error::Busy) => {
                let what = format!("the {noun} {shown} cannot be reached: check the endpoint and the network");
                Err(say(what, std::io::ErrorKind::NotConnected))
            }
            Err(e) => Err(e),
        }
    }

    async fn mark(&self) -> Result<()> {
        let key = self.key("portolan");
        // The first opener makes the marker. Whoever comes later finds it, and learns by
        // being refused that the bucket can refuse.
        if self.put_new(&key, MARKER.into()).await? {
            if self.is_conditional() && self.put_new(&key, MARKER.into()).await? {
                self.unconditional();
            }
            return Ok(());
        }
        match self.get_small(&key).await? {
            Some(text) if text == MARKER.as_bytes() => Ok(()),
            Some(_) => Err(Error::Corrupt(format!(
                "{} was written by a newer version of Portolan, or by something else: its marker {key} is not ours",
                self.place.shown()
            ))),
            None => Err(Error::NotFound(format!("the marker {key}"))),
        }
    }
}

impl Inner {
    fn blob_key(&self, digest: &Digest) -> Key {
        let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
        self.client.key(&format!("blobs/{algorithm}/{}/{hex}", &hex[..2]))
    }

    fn digest_of(&self, key: &Key) -> Option<Digest> {
        let mut parts = self.client.rest(key)?.strip_prefix("blobs/")?.split('/');
        let (algorithm, folder, hex) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = parts.next().is_none() && hex.starts_with(folder);
        ours.then(|| format!("{algorithm}:{hex}").parse().ok()).flatten()
    }

    async fn list(&self, after: Option<Digest>, items_max: usize) -> Result<Vec<(Digest, u64)>> {
        let mut found = Vec::new();
        for algorithm in ALGORITHMS {
            if after.is_some_and(|after| after.algorithm() > algorithm) {
                continue;
            }
            let folder = format!("blobs/{}", algorithm.as_str());
            let mut keys = match after.filter(|after| after.algorithm() == algorithm) {
                Some(after) => self.client.list_after(&folder, &self.blob_key(&after)),
                None => self.client.list(&folder),
            };
            // Keys are listed in their order, which is that of the digests.
            while found.len() < items_max {
                let Some(meta) = keys.try_next().await? else { break };
                // Anything else in there is not ours and not listed.
                if let Some(digest) = self.digest_of(&meta.location) {
                    found.push((digest, meta.size));
                }
            }
        }
        Ok(found)
    }
}

impl Reader for BucketBlobs {
    fn size(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<u64>>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        Box::pin(async move {
            if let Some(len) = inner.local.staged_len(&digest) {
                return Ok(Some(len));
            }
            Ok(inner.client.head(&inner.blob_key(&digest)).await?.map(|meta| meta.size))
        })
    }

    fn read(&self, digest: &Digest, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        Box::pin(async move {
            if let Ok(file) = std::fs::File::open(inner.local.staged_path(&digest)) {
                let len = file.metadata().map_err(|e| Error::io("look at blob", e))?.len();
                let end = range.end.min(len);
                return Ok(file_stream(file, range.start.min(end), end));
            }
            let body = inner.client.read(&inner.blob_key(&digest), range).await?;
            body.ok_or_else(|| Error::NotFound(format!("blob {digest}")))
        })
    }

    fn local_path(&self, digest: &Digest) -> Option<PathBuf> {
        self.0.local.path(digest)
    }

    fn fetch(&self, digest: &Digest) -> BoxFuture<'_, Result<Option<PathBuf>>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        Box::pin(async move { inner.fetch(digest).await })
    }

    fn signed_url(&self, digest: &Digest, lifetime: Duration) -> BoxFuture<'_, Result<Option<String>>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        Box::pin(async move { inner.client.signed(&inner.blob_key(&digest), lifetime).await.map(Some) })
    }
}

impl Ingest for BucketBlobs {
    fn put(&self, expected: &Digest, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        let (inner, expected) = (Arc::clone(&self.0), *expected);
        Box::pin(async move {
            let order = Order {
                key: inner.blob_key(&expected),
                upload: UploadId::random(),
                hasher: Some(Hasher::new(expected.algorithm())),
                bytes_max,
                keep_part: false,
                expected: Some(expected),
            };
            send(&inner.client, &inner.budget, order, body).await.map(|sent| sent.len)
        })
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(local::Writer::create(Arc::clone(&self.0))?))
    }

    fn sync(&self, digests: &[Digest]) -> Result<()> {
        let mut digests = digests.to_vec();
        digests.sort_unstable();
        digests.dedup();
        let inner = Arc::clone(&self.0);
        self.wait(async move { inner.sync(digests).await })
    }
}

impl Sweep for BucketBlobs {
    fn delete(&self, digest: &Digest) -> BoxFuture<'_, Result<bool>> {
        let (inner, digest) = (Arc::clone(&self.0), *digest);
        Box::pin(async move {
            let staged = inner.local.forget(&digest).map_err(|e| Error::io("remove a blob", e))?;
            let key = inner.blob_key(&digest);
            let there = inner.client.head(&key).await?.is_some();
            if there {
                inner.client.delete(vec![key]).await?;
            }
            Ok(staged || there)
        })
    }

    fn stale_uploads(&self, older: SystemTime) -> BoxFuture<'_, Result<Vec<UploadId>>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.stale_uploads(older).await })
    }

    fn list(&self, after: Option<Digest>, items_max: usize) -> BoxFuture<'_, Result<Vec<(Digest, u64)>>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.list(after, items_max).await })
    }
}
