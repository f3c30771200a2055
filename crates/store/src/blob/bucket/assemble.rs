//! One object made of others, inside the bucket where the service can.
//!
//! | sources | S3 | Azure, GCS |
//! |---|---|---|
//! | none | an empty `PUT` | an empty `PUT` |
//! | one, up to [`COPY_BYTES_MAX`] | one copy request | one copy request |
//! | one, larger | copied by ranges, side by side | one copy request |
//! | several, none but the last below 5 MiB | copied by ranges | through this server |
//! | several, some of them small | through this server | through this server |
//!
//! What goes through this server is hashed again on its way.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderName, HeaderValue, Method};
use object_store::client::{HttpRequestBody, HttpResponse};
use object_store::multipart::PartId;
use object_store::path::Path as Key;
use object_store::signer::SignedUrlOptions;
use object_store::{ObjectStoreExt as _, PutPayload};
use portolan_types::{Digest, Hasher, UploadId};

use super::Inner;
use super::client::{Client, is_busy};
use super::place::Kind;
use super::send::{Order, send};
use crate::blob::{BoxFuture, ByteStream};
use crate::{Error, Result};

/// The largest object copied in one request on S3: beyond, the copy takes long enough to be
/// worth doing side by side (and beyond 5 GB it is refused).
const COPY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What S3 wants of every part but the last.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
/// Parts of one object on S3.
const PARTS_MAX: u64 = 10_000;
/// Ranges copied at the same time.
const COPIES_AT_ONCE: usize = 8;
/// How often one range is tried.
const TRIES_MAX: u32 = 5;
/// How long the signature of one request holds.
const SIGNED_SECS: u64 = 600;
/// How often to look whether a copy is there, waiting twice as long each time from 20 ms:
/// five minutes in all.
const LOOKS_MAX: u32 = 13;

/// How objects are put together; a test makes everything smaller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) copy_bytes_max: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { copy_bytes_max: COPY_BYTES_MAX }
    }
}

impl Inner {
    /// Make the object `to` of `sources`, one after the other. `upload` is the name under
    /// which an unfinished one is noted; `expected` its digest, where it is known.
    pub(super) async fn assemble(
        &self,
        sources: &[(Key, u64)],
        to: &Key,
        upload: UploadId,
        expected: Option<Digest>,
    ) -> Result<()> {
        let client = &self.client;
        let sources: Vec<_> = sources.iter().filter(|(_, len)| *len > 0).cloned().collect();
        let Some(((_, last), before)) = sources.split_last() else {
            return client.put(to, PutPayload::new()).await;
        };
        let by_ranges = client.kind() == Kind::S3 && before.iter().all(|(_, len)| *len >= PART_BYTES_MIN);
        if let [(from, len)] = &sources[..]
            && (!by_ranges || *last <= self.sizes.copy_bytes_max)
        {
            if self.copy(from, to, *len).await? {
                return Ok(());
            }
        } else if by_ranges {
            return self.copy_ranges(&sources, to, upload).await;
        }
        self.carry(&sources, to, upload, expected).await
    }

    /// Copy a whole object; whether the copy came out right.
    async fn copy(&self, from: &Key, to: &Key, len: u64) -> Result<bool> {
        let client = &self.client;
        client.stores.objects.copy(from, to).await.map_err(|e| client.error("copy an object", e))?;
        if client.kind() == Kind::S3 {
            return Ok(true);
        }
        // Azure may answer before the copy is done (not within one account, as far as
        // documented), and there are servers that take the request for something else.
        for look in 0..LOOKS_MAX {
            if client.head(to).await?.is_some_and(|meta| meta.size == len) {
                return Ok(true);
            }
            if client.kind() == Kind::Gcs {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20 << look)).await;
        }
        Ok(false)
    }

    /// The bytes go through this server.
    async fn carry(&self, sources: &[(Key, u64)], to: &Key, upload: UploadId, expected: Option<Digest>) -> Result<()> {
        let order = Order {
            key: to.clone(),
            upload,
            hasher: expected.map(|expected| Hasher::new(expected.algorithm())),
            bytes_max: u64::MAX,
            keep_part: false,
            expected,
        };
        match send(&self.client, &self.budget, order, chained(Arc::clone(&self.client), sources.to_vec())).await {
            Ok(_) => Ok(()),
            Err(Error::Interrupted(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound(format!("what was to become {to}")))
            }
            Err(Error::Interrupted(e)) => Err(Error::io("read an upload", e)),
            Err(e) => Err(e),
        }
    }

    /// S3 puts an object together out of ranges of others.
    async fn copy_ranges(&self, sources: &[(Key, u64)], to: &Key, upload: UploadId) -> Result<()> {
        let client = &self.client;
        let ranges = ranges(sources, self.sizes.copy_bytes_max);
        let note = client.key(&format!("uploads/{upload}/parts-{}", UploadId::random()));
        let begun = client.stores.parts.create_multipart(to).await;
        let id = begun.map_err(|e| client.error("begin an object in parts", e))?;
        let copied = async {
            client.put(&note, format!("{to}\n{id}\n").into()).await?;
            let copies = ranges.iter().enumerate().map(|(number, (from, start, end))| -> BoxFuture<'_, _> {
                Box::pin(client.copy_range(to, &id, number + 1, from, *start, *end))
            });
            let copies: Vec<_> = copies.collect();
            let parts: Vec<PartId> = stream::iter(copies).buffered(COPIES_AT_ONCE).try_collect().await?;
            let whole = client.stores.parts.complete_multipart(to, &id, parts).await;
            whole.map_err(|e| client.error("put an object together", e))
        };
        match copied.await {
            Ok(_) => self.discard(vec![note]).await,
            Err(e) => {
                if client.abort_parts(to, &id).await.is_ok() {
                    self.discard(vec![note]).await;
                }
                return Err(e);
            }
        }
        Ok(())
    }
}

/// `sources` cut into ranges of at most `max` bytes (or more, where there would be too many),
/// none but the last below what S3 takes.
fn ranges(sources: &[(Key, u64)], max: u64) -> Vec<(Key, u64, u64)> {
    let total: u64 = sources.iter().map(|(_, len)| len).sum();
    let max = max.max(total / (PARTS_MAX / 2)).max(2 * PART_BYTES_MIN);
    let mut ranges = Vec::new();
    for (key, len) in sources {
        let count = len.div_ceil(max);
        let each = len.div_ceil(count.max(1));
        ranges.extend((0..count).map(|n| (key.clone(), n * each, len.min(&((n + 1) * each)).to_owned())));
    }
    ranges
}

/// Objects one after the other, as one body.
fn chained(client: Arc<Client>, sources: Vec<(Key, u64)>) -> ByteStream {
    let bodies = stream::iter(sources).then(move |(key, len)| {
        let client = Arc::clone(&client);
        async move {
            let body = client.read(&key, 0..len).await.map_err(std::io::Error::other)?;
            body.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
        }
    });
    Box::pin(bodies.try_flatten())
}

impl Client {
    /// Forget a multipart upload; fine when it is not there.
    pub(super) async fn abort_parts(&self, key: &Key, id: &str) -> Result<()> {
        match self.stores.parts.abort_multipart(key, &id.to_owned()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.error("forget an object in parts", e)),
        }
    }

    /// S3's `UploadPartCopy`, which the library does not have: sent with its client, under
    /// its signature.
    async fn copy_range(&self, to: &Key, id: &str, number: usize, from: &Key, start: u64, end: u64) -> Result<PartId> {
        let what = "copy a part of an object";
        let fail = |why: String| Error::Io {
            what: format!("{what} in {}", self.place.shown()),
            source: std::io::Error::other(why),
        };
        let Some(raw) = &self.stores.raw else { return Err(fail("this service has no such call".into())) };
        let headers = [
            (HeaderName::from_static("x-amz-copy-source"), format!("/{}/{from}", self.place.bucket)),
            (HeaderName::from_static("x-amz-copy-source-range"), format!("bytes={start}-{}", end - 1)),
        ];
        let mut tried = 0;
        loop {
            tried += 1;
            let mut options =
                SignedUrlOptions::new().with_query([("partNumber", number.to_string()), ("uploadId", id.to_owned())]);
            let mut request = http::Request::builder().method(Method::PUT);
            for (name, value) in &headers {
                let value = HeaderValue::from_str(value).map_err(|e| fail(e.to_string()))?;
                options = options.with_signed_header(name.clone(), value.clone());
                request = request.header(name, value);
            }
            let lifetime = Duration::from_secs(SIGNED_SECS);
            let url = self.stores.signer.signed_url_opts(Method::PUT, to, lifetime, &options).await;
            let url = url.map_err(|e| self.error(what, e))?;
            let request = request.uri(url.as_str()).body(HttpRequestBody::empty()).map_err(|e| fail(e.to_string()))?;
            let (status, said) = match raw.execute(request).await {
                Ok(response) => text_of(response).await,
                Err(e) => {
                    let e = object_store::Error::Generic { store: "S3", source: Box::new(e) };
                    match is_busy(&e) && tried < TRIES_MAX {
                        true => (503, String::new()),
                        false => return Err(self.error(what, e)),
                    }
                }
            };
            // A copy that fails while it runs is told in the body of a 200.
            let etag = said.split_once("<ETag>").and_then(|(_, rest)| rest.split_once("</ETag>"));
            match (status, etag) {
                (200, Some((etag, _))) => return Ok(PartId { content_id: unescaped(etag) }),
                (404, _) => return Err(Error::NotFound(format!("{from} in {}", self.place.shown()))),
                (200 | 429 | 500.., _) if tried < TRIES_MAX => {
                    tokio::time::sleep(Duration::from_millis(100 << tried)).await;
                }
                (429 | 503, _) => return Err(Error::Busy),
                _ => return Err(fail(format!("{status} {}", said.chars().take(500).collect::<String>()))),
            }
        }
    }
}

/// The quotes of an ETag, which services write in two ways.
fn unescaped(etag: &str) -> String {
    etag.replace("&quot;", "\"").replace("&#34;", "\"")
}

async fn text_of(response: HttpResponse) -> (u16, String) {
    let status = response.status().as_u16();
    match response.into_body().bytes().await {
        Ok(bytes) => (status, String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => (503, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_and_are_large_enough() {
        const MIB: u64 = 1024 * 1024;
        for lens in [&[100 * MIB][..], &[5 * MIB, 5 * MIB, 1], &[11 * MIB + 1], &[20_000 * 1024 * MIB, 3], &[1]] {
            let sources: Vec<_> = lens.iter().enumerate().map(|(n, len)| (Key::from(format!("s{n}")), *len)).collect();
            let cut = ranges(&sources, 10 * MIB);
            assert!(cut.len() as u64 <= PARTS_MAX);
            for (key, len) in &sources {
                let mine: Vec<_> = cut.iter().filter(|(from, ..)| from == key).collect();
                assert_eq!((mine[0].1, mine[mine.len() - 1].2), (0, *len));
                assert!(mine.windows(2).all(|pair| pair[0].2 == pair[1].1));
            }
            assert!(cut[..cut.len() - 1].iter().all(|(_, start, end)| end - start >= PART_BYTES_MIN), "{cut:?}");
        }
    }
}
