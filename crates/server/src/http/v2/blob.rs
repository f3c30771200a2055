//! Blobs over HTTP: HEAD, GET with one range, DELETE.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use portolan_service::{Error, Kind, Service};
use portolan_store::blob::ByteStream;
use portolan_types::{Digest, RepoName};

use super::range::{self, Wanted};
use super::{CONTENT_DIGEST, Call, condition, header_text, set};
use crate::http::{Conn, Response, blob as signed, host, respond};
use crate::sendfile::{FILE_BYTES_MIN, FileBody, Files};

/// Content under a digest never changes; caches between us and the client may not share it.
const CACHE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

fn described(response: &mut Response, digest: &str, etag: &str) -> Result<(), Error> {
    set(response, CONTENT_DIGEST, digest)?;
    set(response, header::ETAG, etag)?;
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, CACHE);
    Ok(())
}

pub(super) async fn head(call: &Call<'_>, name: &RepoName, digest: Digest) -> Result<Response, Error> {
    let size = call.service.blob_exists(&call.ctx, &call.registry, name, &digest).await?;
    let text = digest.to_string();
    let etag = format!("\"{text}\"");
    let mut response = respond::empty(StatusCode::OK);
    described(&mut response, &text, &etag)?;
    if condition::of_read(call.parts, etag.as_bytes())? == condition::Read::NotModified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, OCTETS);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

pub(super) async fn get(call: &Call<'_>, name: &RepoName, digest: Digest) -> Result<Response, Error> {
    let size = call.service.blob_size(&call.ctx, &call.registry, name, &digest).await?;
    let (status, part) = match wanted(call.parts, &digest, size)? {
        Answer::Done(response) => return Ok(response),
        Answer::Part(status, part) => (status, part),
    };
    if let Some(host) = call.registry.data_host() {
        return elsewhere(&at_data_endpoint(call, host, &digest), &digest.to_string());
    }
    if let Some(lifetime) = call.redirect
        && let Some(url) = call.service.blobs.signed_url(&digest, lifetime).await?
    {
        return elsewhere(&url, &digest.to_string());
    }
    send(call.service, call.parts, &digest, size, (status, part)).await
}

/// A signed address of the blob at the registry's data endpoint: by the scheme and port that
/// the client came by.
fn at_data_endpoint(call: &Call<'_>, host: &str, digest: &Digest) -> String {
    let scheme = call.parts.extensions.get::<Conn>().map_or("https", |conn| conn.scheme);
    let named = host::of(call.parts).unwrap_or_default();
    let port = named.strip_prefix(host::without_port(named)).unwrap_or_default();
    let base = format!("{scheme}://{host}{port}");
    let until = call.ctx.now.plus(call.link_lifetime);
    let path = signed::content_path(call.registry.id, digest);
    signed::signed_url(&call.service.authority, &base, &path, signed::Permission::Read, until)
}

/// What a request for a blob is to be answered with.
pub(in crate::http) enum Answer {
    /// This: there is nothing to send.
    Done(Response),
    /// These bytes, under this status.
    Part(StatusCode, Range<u64>),
}

/// Read the conditions and the range of a request for a blob of `size` bytes.
pub(in crate::http) fn wanted(parts: &Parts, digest: &Digest, size: u64) -> Result<Answer, Error> {
    let text = digest.to_string();
    let etag = format!("\"{text}\"");
    if condition::of_read(parts, etag.as_bytes())? == condition::Read::NotModified {
        let mut response = respond::empty(StatusCode::NOT_MODIFIED);
        described(&mut response, &text, &etag)?;
        return Ok(Answer::Done(response));
    }
    // `If-Range` with another tag: the client has a part of something else.
    let resumes = header_text(parts, header::IF_RANGE).is_none_or(|tag| tag == etag);
    let header = header_text(parts, header::RANGE).filter(|_| resumes);
    match range::wanted(header, size) {
        Wanted::All => Ok(Answer::Part(StatusCode::OK, 0..size)),
        Wanted::Part(part) => Ok(Answer::Part(StatusCode::PARTIAL_CONTENT, part)),
        Wanted::Outside => {
            let message = format!("the range is outside of the blob's {size} bytes");
            let e = Error::new(Kind::RangeNotSatisfiable, "SIZE_INVALID", message);
            let mut response = crate::http::error::oci(&e, &crate::http::error::OciRim::of(parts));
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"))?;
            Ok(Answer::Done(response))
        }
    }
}

/// Send a part of a blob that the caller may read.
pub(in crate::http) async fn send(
    service: &Service,
    parts: &Parts,
    digest: &Digest,
    size: u64,
    (status, part): (StatusCode, Range<u64>),
) -> Result<Response, Error> {
    let text = digest.to_string();
    let length = part.end - part.start;
    let body = match length {
        0 => Body::empty(),
        _ => content(service, parts, digest, part.clone()).await?,
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    described(&mut response, &text, &format!("\"{text}\""))?;
    if status == StatusCode::PARTIAL_CONTENT {
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {}-{}/{size}", part.start, part.end - 1))?;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, OCTETS);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// Another address gives the blob, whole or a range of it, as the client asks. The answer
/// must not outlive the URL in it.
fn elsewhere(url: &str, digest: &str) -> Result<Response, Error> {
    let mut response = respond::empty(StatusCode::TEMPORARY_REDIRECT);
    set(&mut response, header::LOCATION, url)?;
    set(&mut response, CONTENT_DIGEST, digest)?;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The bytes in `part`, which is not empty: sent by the kernel where the store has a file and
/// the connection can, and it is long enough to be worth it.
async fn content(service: &Service, parts: &Parts, digest: &Digest, part: Range<u64>) -> Result<Body, Error> {
    let length = part.end - part.start;
    if length >= FILE_BYTES_MIN
        && let Some(files) = parts.extensions.get::<Files>()
        && let Some(file) = service.open_blob(digest).await?
    {
        return Ok(Body::new(FileBody::new(files.clone(), file, part)));
    }
    Ok(Body::new(Exactly { stream: service.read_blob(digest, part).await?, left: length }))
}

pub(super) async fn delete(call: &Call<'_>, name: &RepoName, digest: Digest) -> Result<Response, Error> {
    call.service.delete_blob(&call.ctx, &call.registry, name, digest).await?;
    Ok(respond::empty(StatusCode::ACCEPTED))
}

/// A stream whose length is known: it ends with its last byte, not with one more look, and
/// one that ends early is an error, so that the client cannot take a part for the whole.
struct Exactly {
    stream: ByteStream,
    left: u64,
}

impl http_body::Body for Exactly {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match ready!(Stream::poll_next(self.stream.as_mut(), cx)) {
            Some(Ok(piece)) => piece,
            Some(Err(e)) => return Poll::Ready(Some(Err(e))),
            None => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
        };
        match self.left.checked_sub(piece.len() as u64) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(io::Error::other("the store gave more than it has")))),
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: &'static [&'static str], left: u64) -> io::Result<Bytes> {
        let stream = futures_util::stream::iter(pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))));
        let body = Exactly { stream: Box::pin(stream), left };
        http_body_util::BodyExt::collect(body).await.map(|all| all.to_bytes())
    }

    #[tokio::test]
    async fn a_body_is_exactly_as_long_as_it_says() {
        assert_eq!(read(&["ab", "c"], 3).await.unwrap(), "abc");
        assert!(read(&["ab"], 3).await.is_err() && read(&["abcd"], 3).await.is_err());
    }
}
