//! A bucket and the few things done with it, with failures in our words.

use std::error::Error as _;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::client::HttpClient;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};

use super::place::{Kind, Place};
use crate::blob::ByteStream;
use crate::{Error, Result};

/// Bytes of an object that is read whole: a record or a note of ours.
const SMALL_BYTES_MAX: u64 = 64 * 1024;

/// The faces of one client.
pub(super) struct Stores {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) parts: Arc<dyn MultipartStore>,
    pub(super) signer: Arc<dyn Signer>,
    /// For S3: what the library has no call for.
    pub(super) raw: Option<HttpClient>,
}

/// One bucket, and the prefix in it that is ours.
pub(super) struct Client {
    pub(super) place: Place,
    pub(super) stores: Stores,
    /// Whether the bucket refuses to write what is there already, when told to.
    conditional: AtomicBool,
}

impl Client {
    pub(super) fn new(place: Place, stores: Stores) -> Client {
        Client { place, stores, conditional: AtomicBool::new(true) }
    }

    pub(super) fn kind(&self) -> Kind {
        self.place.kind
    }

    /// The key of something of ours.
    pub(super) fn key(&self, rest: &str) -> Key {
        match self.place.prefix.is_empty() {
            true => Key::from(rest),
            false => Key::from(format!("{}/{rest}", self.place.prefix)),
        }
    }

    /// What [`Client::key`] put the prefix before.
    pub(super) fn rest<'k>(&self, key: &'k Key) -> Option<&'k str> {
        match self.place.prefix.is_empty() {
            true => Some(key.as_ref()),
            false => key.as_ref().strip_prefix(self.place.prefix.as_str())?.strip_prefix('/'),
        }
    }

    /// What there is to know about an object, or `None` when it is not here.
    pub(super) async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        match self.stores.objects.head(key).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error("look at an object", e)),
        }
    }

    /// A record of ours, or `None` when it is not here.
    pub(super) async fn get_small(&self, key: &Key) -> Result<Option<Bytes>> {
        let what = "read a record";
        match self.stores.objects.get(key).await {
            Ok(found) if found.meta.size > SMALL_BYTES_MAX => Err(Error::Corrupt(format!("{key} is no record"))),
            Ok(found) => found.bytes().await.map(Some).map_err(|e| self.error(what, e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(what, e)),
        }
    }

    /// The bytes in `range`, cut at the object's end; `None` when it is not here.
    pub(super) async fn read(&self, key: &Key, range: Range<u64>) -> Result<Option<ByteStream>> {
        let nothing = || -> ByteStream { Box::pin(stream::empty()) };
        let start = range.start;
        let range = match range {
            Range { start: 0, end: u64::MAX } => None,
            Range { start, end } if start >= end => return Ok(self.head(key).await?.map(|_| nothing())),
            Range { start, end: u64::MAX } => Some(GetRange::Offset(start)),
            range => Some(GetRange::Bounded(range)),
        };
        let options = GetOptions { range, ..GetOptions::default() };
        match self.stores.objects.get_opts(key, options).await {
            Ok(found) => Ok(Some(Box::pin(found.into_stream().map_err(io::Error::other)))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            // A range that begins at the end or behind it holds nothing; services and the
            // library say so in several ways.
            Err(e) => match self.head(key).await? {
                Some(meta) if start >= meta.size => Ok(Some(nothing())),
                Some(_) => Err(self.error("read an object", e)),
                None => Ok(None),
            },
        }
    }

    /// Store a small object, in the place of what was there.
    pub(super) async fn put(&self, key: &Key, payload: PutPayload) -> Result<()> {
        self.stores.objects.put(key, payload).await.map(drop).map_err(|e| self.error("write an object", e))
    }

    /// Store a small object if there is none under its key; whether that was so. A bucket
    /// that cannot tell says yes.
    pub(super) async fn put_new(&self, key: &Key, payload: PutPayload) -> Result<bool> {
        if self.conditional.load(Ordering::Relaxed) {
            match self.stores.objects.put_opts(key, payload.clone(), PutMode::Create.into()).await {
                Ok(_) => return Ok(true),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    return Ok(false);
                }
                Err(e) if unsupported(&e) => self.unconditional(),
                Err(e) => return Err(self.error("write an object", e)),
            }
        }
        if self.head(key).await?.is_some() {
            return Ok(false);
        }
        self.put(key, payload).await.map(|()| true)
    }

    /// The bucket writes what is there already, whatever it is told.
    pub(super) fn unconditional(&self) {
        if self.conditional.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                bucket = self.place.shown(),
                "this store does not support conditional writes: two servers that add to one upload in the same \
                 moment are told apart only when the upload is finished"
            );
        }
    }

    /// Whether [`Client::put_new`] is one atomic step.
    pub(super) fn is_conditional(&self) -> bool {
        self.conditional.load(Ordering::Relaxed)
    }

    /// Remove objects; fine when some are not here.
    pub(super) async fn delete(&self, keys: Vec<Key>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let keys = stream::iter(keys.into_iter().map(Ok)).boxed();
        let mut done = self.stores.objects.delete_stream(keys);
        while let Some(one) = done.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(self.error("remove objects", e)),
            }
        }
        Ok(())
    }

    /// Everything under a prefix, as the service lists it.
    pub(super) fn list(&self, rest: &str) -> BoxStream<'_, Result<ObjectMeta>> {
        let prefix = self.key(rest);
        let found = self.stores.objects.list(Some(&prefix));
        found.map_err(|e| self.error("list objects", e)).boxed()
    }

    /// The same, behind a key.
    pub(super) fn list_after(&self, rest: &str, after: &Key) -> BoxStream<'_, Result<ObjectMeta>> {
        let prefix = self.key(rest);
        let found = self.stores.objects.list_with_offset(Some(&prefix), after);
        found.map_err(|e| self.error("list objects", e)).boxed()
    }

    /// A URL for GET, for whoever has it.
    pub(super) async fn signed(&self, key: &Key, lifetime: Duration) -> Result<String> {
        let signed = self.stores.signer.signed_url(http::Method::GET, key, lifetime).await;
        signed.map(|url| url.to_string()).map_err(|e| self.error("sign a URL", e))
    }

    /// A failure in our words: what was being done, and who is at fault. What the service
    /// said is kept as the source, for the log.
    pub(super) fn error(&self, what: &str, e: object_store::Error) -> Error {
        use object_store::Error as E;
        let (noun, shown) = (self.kind().noun(), self.place.shown());
        match e {
            E::NotFound { path, .. } => Error::NotFound(format!("{path} in {shown}")),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                let what = format!("{what}: the {noun} {shown} does not let this server in; check its credentials");
                Error::Io { what, source: io::Error::new(io::ErrorKind::PermissionDenied, e) }
            }
            e if is_busy(&e) => {
                tracing::warn!(error = %Chain(&e), bucket = shown, "{what}: the bucket is overloaded or out of reach");
                Error::Busy
            }
            e => Error::Io { what: format!("{what} in {shown}"), source: io::Error::other(Chain(&e).to_string()) },
        }
    }
}

/// An error and what lies under it, on one line.
pub(super) struct Chain<'e>(pub(super) &'e (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut at = self.0.source();
        while let Some(e) = at {
            let text = e.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            at = e.source();
        }
        Ok(())
    }
}

/// Whether the service was too busy, too slow or not there: worth another try later.
pub(super) fn is_busy(e: &object_store::Error) -> bool {
    let mut at: Option<&(dyn std::error::Error + 'static)> = e.source();
    while let Some(e) = at {
        if let Some(http) = e.downcast_ref::<object_store::client::HttpError>() {
            use object_store::client::HttpErrorKind as K;
            return matches!(http.kind(), K::Connect | K::Timeout | K::Interrupted | K::Request);
        }
        at = e.source();
    }
    let said = Chain(e).to_string();
    matches!(status_of(&said), Some(408 | 429 | 500..=599)) || said.contains("SlowDown")
}

/// The HTTP status in what the library says of a failed request; it keeps the number itself
/// out of reach.
fn status_of(said: &str) -> Option<u16> {
    let (_, rest) = said.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn unsupported(e: &object_store::Error) -> bool {
    let said = Chain(e).to_string();
    matches!(e, object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. })
        || status_of(&said) == Some(501)
        || said.contains("NotImplemented")
}
