//! Blobs: downloads that pick themselves up when they break, uploads that are skipped
//! when the registry has the content.

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use portolan_types::digest::Hasher;
use portolan_types::{Digest, RepoName, limits};

use super::{RegistryClient, header, location, pull, push};
use crate::error::{Error, Result};
use crate::transport;

/// Bytes as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How often one download may be taken up again where it broke.
const RESUMES_MAX: u32 = 5;

impl RegistryClient {
    /// A blob's length in bytes, or `None` when the registry does not have it.
    pub async fn blob_size(&self, repo: &RepoName, digest: &Digest) -> Result<Option<u64>> {
        self.blob_size_as(repo, digest, &pull(repo)).await
    }

    async fn blob_size_as(&self, repo: &RepoName, digest: &Digest, scope: &str) -> Result<Option<u64>> {
        let url = self.url(repo, &format!("blobs/{digest}"))?;
        match self.exchange(&url, scope, |http| http.head(url.clone())).await {
            // `content_length` would be the length of this answer's body, which is none.
            Ok(response) => {
                Ok(Some(header(&response, CONTENT_LENGTH.as_str()).and_then(|n| n.parse().ok()).unwrap_or(0)))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Get a blob: its length in bytes, and its bytes. The stream ends with an error
    /// (`InvalidData`) when the bytes do not hash to `digest`, and one that breaks off is
    /// taken up again where it broke.
    pub async fn blob(&self, repo: &RepoName, digest: &Digest) -> Result<(u64, ByteStream)> {
        let (length, body) = self.blob_from(repo, digest, 0).await?;
        if length > limits::BLOB_BYTES_MAX {
            return Err(Error::TooLarge { what: "the blob", bytes_max: limits::BLOB_BYTES_MAX });
        }
        let download = Download {
            client: self.clone(),
            repo: repo.clone(),
            digest: *digest,
            length,
            offset: 0,
            hasher: Some(Hasher::new(digest.algorithm())),
            body: Some(body),
            resumes: 0,
        };
        let body = stream::try_unfold(download, |mut download| async move {
            Ok(download.next().await?.map(|bytes| (bytes, download)))
        });
        Ok((length, Box::pin(body)))
    }

    /// The blob from `offset` on: its whole length, and the bytes.
    async fn blob_from(&self, repo: &RepoName, digest: &Digest, offset: u64) -> Result<(u64, ByteStream)> {
        let url = self.url(repo, &format!("blobs/{digest}"))?;
        let request = |http: &reqwest::Client| match offset {
            0 => http.get(url.clone()),
            _ => http.get(url.clone()).header(RANGE, format!("bytes={offset}-")),
        };
        let response = self.exchange(&url, &pull(repo), request).await?;
        let length = if offset == 0 {
            response.content_length()
        } else if response.status() == StatusCode::PARTIAL_CONTENT {
            header(&response, CONTENT_RANGE.as_str()).and_then(|r| r.rsplit('/').next().and_then(|n| n.parse().ok()))
        } else {
            return Err(Error::protocol(&url, "the registry cannot resume a download"));
        };
        let length = length.ok_or_else(|| Error::protocol(&url, "the blob came without its length"))?;
        let body =
            response.bytes_stream().map(move |chunk| chunk.map_err(|e| io::Error::other(Error::transport(&url, e))));
        Ok((length, Box::pin(body)))
    }

    /// Push a blob unless the repository has it. `body` gives the content from its first
    /// byte; it is called again for every try. Answers whether bytes were sent.
    pub async fn push_blob_if_missing(
        &self,
        repo: &RepoName,
        digest: &Digest,
        size: u64,
        body: impl Fn() -> ByteStream,
    ) -> Result<bool> {
        let scope = push(repo);
        if self.blob_size_as(repo, digest, &scope).await?.is_some() {
            return Ok(false);
        }
        let begin = self.url(repo, "blobs/uploads/")?;
        let mut tries = 1;
        loop {
            let begun =
                self.exchange(&begin, &scope, |http| http.post(begin.clone()).header(CONTENT_LENGTH, 0)).await?;
            let mut url = location(&begun)?;
            url.query_pairs_mut().append_pair("digest", &digest.to_string());
            let request = |http: &reqwest::Client| {
                http.put(url.clone())
                    .header(CONTENT_LENGTH, size)
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(reqwest::Body::wrap_stream(body()))
            };
            // `exchange_once`: a broken upload starts over with a new session, not with
            // a second PUT to this one.
            match self.exchange_once(&url, &scope, &request).await {
                Ok(_) => return Ok(true),
                Err((error, wait)) if error.is_transient() && tries < transport::TRIES_MAX => {
                    tokio::time::sleep(wait.unwrap_or_else(|| transport::backoff(tries))).await;
                    tracing::debug!(%error, tries, "pushing the blob again");
                    tries += 1;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

/// A download under way.
struct Download {
    client: RegistryClient,
    repo: RepoName,
    digest: Digest,
    length: u64,
    offset: u64,
    /// `None` once the end was reached.
    hasher: Option<Hasher>,
    body: Option<ByteStream>,
    resumes: u32,
}

impl Download {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.hasher.is_none() {
                return Ok(None);
            }
            let chunk = match &mut self.body {
                Some(body) => body.next().await,
                None => None,
            };
            match chunk {
                Some(Ok(bytes)) => return self.take(bytes).map(Some),
                None if self.offset == self.length => return self.finish(),
                Some(Err(error)) => self.resume(Some(error)).await?,
                None => self.resume(None).await?,
            }
        }
    }

    fn take(&mut self, bytes: Bytes) -> io::Result<Bytes> {
        self.offset += bytes.len() as u64;
        if self.offset > self.length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the blob is longer than it was said to be"));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        Ok(bytes)
    }

    fn finish(&mut self) -> io::Result<Option<Bytes>> {
        let got = self.hasher.take().map(Hasher::finish);
        match got {
            Some(got) if got != self.digest => {
                Err(io::Error::new(io::ErrorKind::InvalidData, Error::mismatch(self.digest, got)))
            }
            _ => Ok(None),
        }
    }

    async fn resume(&mut self, error: Option<io::Error>) -> io::Result<()> {
        let error = error.unwrap_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the download broke off"));
        self.body = None;
        if self.resumes >= RESUMES_MAX {
            return Err(error);
        }
        self.resumes += 1;
        tracing::debug!(%error, offset = self.offset, "taking up the download");
        tokio::time::sleep(transport::backoff(self.resumes)).await;
        let (length, body) = self.client.blob_from(&self.repo, &self.digest, self.offset).await.map_err(|_| error)?;
        if length != self.length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the blob's length changed during the download"));
        }
        self.body = Some(body);
        Ok(())
    }
}
