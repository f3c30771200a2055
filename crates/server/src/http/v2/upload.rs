//! Uploads over HTTP: begun by POST, fed by PATCH, finished by PUT; whole blobs in one POST
//! or PUT; mounts.

use std::io;
use std::ops::Range;

use axum::body::Body;
use futures_util::TryStreamExt;
use http::{HeaderName, StatusCode, header};
use portolan_service::{Error, Kind};
use portolan_store::blob::ByteStream;
use portolan_types::digest::Algorithm;
use portolan_types::{Digest, RepoName, UploadId};

use super::range::{self, held};
use super::{CONTENT_DIGEST, Call, header_text, located, path, set};
use crate::http::error::{self, OciRim};
use crate::http::{Response, respond};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

fn stream(body: Body) -> ByteStream {
    Box::pin(body.into_data_stream().map_err(io::Error::other))
}

fn upload_id(text: &str) -> Result<UploadId, Error> {
    text.parse().map_err(|e| Error::new(Kind::NotFound, "BLOB_UPLOAD_UNKNOWN", format!("{e}")))
}

/// What an upload's state is told by, in every answer about it.
fn state(status: StatusCode, name: &RepoName, id: UploadId, length: u64) -> Result<Response, Error> {
    let mut response = located(status, &format!("/v2/{name}/blobs/uploads/{id}"))?;
    set(&mut response, header::RANGE, &held(length))?;
    set(&mut response, UPLOAD_UUID, &id.to_string())?;
    if status == StatusCode::NO_CONTENT {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Ok(response)
}

fn created(name: &RepoName, digest: Digest) -> Result<Response, Error> {
    let text = digest.to_string();
    let mut response = located(StatusCode::CREATED, &format!("/v2/{name}/blobs/{text}"))?;
    set(&mut response, CONTENT_DIGEST, &text)?;
    Ok(response)
}

pub(super) async fn start(call: &Call<'_>, name: &RepoName, body: Body) -> Result<Response, Error> {
    let query = respond::query(&call.parts.uri);
    let (service, ctx, registry) = (call.service, &call.ctx, &call.registry);
    if let Some(mount) = respond::field(&query, "mount") {
        let from = respond::field(&query, "from").filter(|f| !f.is_empty()).map(str::parse).transpose();
        // A source or a digest that cannot be is not there: the client uploads.
        if let (Ok(digest), Ok(from)) = (path::digest(mount), from)
            && service.mount_blob(ctx, registry, name, digest, from.as_ref()).await?
        {
            return created(name, digest);
        }
    } else if let Some(digest) = respond::field(&query, "digest") {
        let digest = path::digest(digest)?;
        check_length(call, None)?;
        service.put_blob(ctx, registry, name, digest, stream(body)).await?;
        return created(name, digest);
    }
    if let Some(algorithm) = respond::field(&query, "digest-algorithm")
        && ![Algorithm::Sha256, Algorithm::Sha512].iter().any(|known| known.as_str() == algorithm)
    {
        let message = "unsupported digest algorithm: use sha256 or sha512";
        return Err(Error::new(Kind::Invalid, "DIGEST_INVALID", message));
    }
    let id = service.start_upload(ctx, registry, name).await?;
    state(StatusCode::ACCEPTED, name, id, 0)
}

pub(super) async fn status(call: &Call<'_>, name: &RepoName, id: &str) -> Result<Response, Error> {
    let id = upload_id(id)?;
    let length = call.service.upload_length(&call.ctx, &call.registry, name, id).await?;
    state(StatusCode::NO_CONTENT, name, id, length)
}

/// The chunk that the headers announce.
struct Chunk {
    offset: Option<u64>,
    bytes_max: Option<u64>,
}

fn chunk(call: &Call<'_>) -> Result<Chunk, Error> {
    let range = match call.parts.headers.get(header::CONTENT_RANGE) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(range::chunk).ok_or_else(|| {
            let message = "the Content-Range header is not `<first>-<last>`";
            Error::new(Kind::RangeNotSatisfiable, "BLOB_UPLOAD_INVALID", message)
        })?),
    };
    check_length(call, range.clone())?;
    Ok(Chunk { offset: range.as_ref().map(|r| r.start), bytes_max: range.map(|r| r.end - r.start) })
}

/// Refuse a body before its bytes come when its length says that it cannot be right.
fn check_length(call: &Call<'_>, range: Option<Range<u64>>) -> Result<(), Error> {
    let Some(text) = header_text(call.parts, header::CONTENT_LENGTH) else { return Ok(()) };
    let Ok(length) = text.parse::<u64>() else { return Ok(()) };
    if let Some(range) = range
        && range.end - range.start != length
    {
        let message = format!("Content-Range announces {} bytes, Content-Length {length}", range.end - range.start);
        return Err(Error::new(Kind::Invalid, "SIZE_INVALID", message));
    }
    let max = call.service.config.blob_bytes_max;
    if length > max {
        let message = format!("the content is larger than {max} bytes");
        return Err(Error::new(Kind::TooLarge, "SIZE_INVALID", message));
    }
    Ok(())
}

async fn feed(call: &Call<'_>, name: &RepoName, id: UploadId, body: Body) -> Result<u64, Error> {
    let Chunk { offset, bytes_max } = chunk(call)?;
    call.service.append_upload(&call.ctx, &call.registry, name, id, offset, stream(body), bytes_max).await
}

/// The answer to a chunk in the wrong place says what is held, so that the client can go on.
async fn misplaced(call: &Call<'_>, name: &RepoName, id: UploadId, e: Error) -> Result<Response, Error> {
    if e.kind != Kind::RangeNotSatisfiable {
        return Err(e);
    }
    let length = call.service.upload_length(&call.ctx, &call.registry, name, id).await?;
    let mut response = error::oci(&e, &OciRim::of(call.parts));
    set(&mut response, header::LOCATION, &format!("/v2/{name}/blobs/uploads/{id}"))?;
    set(&mut response, header::RANGE, &held(length))?;
    set(&mut response, UPLOAD_UUID, &id.to_string())?;
    Ok(response)
}

pub(super) async fn append(call: &Call<'_>, name: &RepoName, id: &str, body: Body) -> Result<Response, Error> {
    let id = upload_id(id)?;
    match feed(call, name, id, body).await {
        Ok(length) => state(StatusCode::ACCEPTED, name, id, length),
        Err(e) => misplaced(call, name, id, e).await,
    }
}

pub(super) async fn finish(call: &Call<'_>, name: &RepoName, id: &str, body: Body) -> Result<Response, Error> {
    let id = upload_id(id)?;
    let query = respond::query(&call.parts.uri);
    let digest = respond::field(&query, "digest").ok_or_else(|| {
        Error::new(
            Kind::Invalid,
            "DIGEST_INVALID",
            "the `digest` parameter is missing: PUT ends an upload under its digest",
        )
    })?;
    let digest = path::digest(digest)?;
    if !http_body::Body::is_end_stream(&body)
        && let Err(e) = feed(call, name, id, body).await
    {
        return misplaced(call, name, id, e).await;
    }
    call.service.finish_upload(&call.ctx, &call.registry, name, id, digest).await?;
    created(name, digest)
}

pub(super) async fn cancel(call: &Call<'_>, name: &RepoName, id: &str) -> Result<Response, Error> {
    call.service.cancel_upload(&call.ctx, &call.registry, name, upload_id(id)?).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}
