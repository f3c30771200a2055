//! Manifests over HTTP.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use portolan_service::{Error, Kind, StoredManifest};
use portolan_types::{Reference, RepoName, limits};

use super::{CONTENT_DIGEST, Call, located, none_match, set};
use crate::http::{Response, respond};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Text that is no reference names no manifest: 404, as the conformance tests want it.
fn known(reference: &str) -> Result<Reference, Error> {
    reference.parse().map_err(|e| {
        let code = if reference.contains(':') { "DIGEST_INVALID" } else { "MANIFEST_UNKNOWN" };
        let kind = if reference.contains(':') { Kind::Invalid } else { Kind::NotFound };
        Error::new(kind, code, format!("{e}"))
    })
}

/// GET and HEAD.
pub(super) async fn get(call: &Call<'_>, name: &RepoName, reference: &str) -> Result<Response, Error> {
    let reference = known(reference)?;
    let manifest = call.service.get_manifest(&call.ctx, &call.registry, name, &reference).await?;
    if none_match(call.parts, &manifest.etag) {
        let mut response = respond::empty(StatusCode::NOT_MODIFIED);
        identify(&mut response, &manifest)?;
        return Ok(response);
    }
    let body = if call.parts.method == Method::HEAD { Body::empty() } else { Body::from(manifest.bytes.clone()) };
    let mut response = Response::new(body);
    identify(&mut response, &manifest)?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value(&manifest.content_type)?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(manifest.bytes.len()));
    Ok(response)
}

fn identify(response: &mut Response, manifest: &StoredManifest) -> Result<(), Error> {
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(&manifest.digest_text)?);
    headers.insert(header::ETAG, value(&manifest.etag)?);
    Ok(())
}

/// Without a copy: the bytes are shared.
fn value(bytes: &Bytes) -> Result<HeaderValue, Error> {
    HeaderValue::from_maybe_shared(bytes.clone())
        .map_err(|e| Error::new(Kind::Internal, "UNKNOWN", "a header cannot be written").with_source(e))
}

pub(super) async fn put(call: &Call<'_>, name: &RepoName, reference: &str, body: Body) -> Result<Response, Error> {
    let reference: Reference = reference.parse().map_err(|e| {
        let code = if reference.contains(':') { "DIGEST_INVALID" } else { "TAG_INVALID" };
        Error::new(Kind::Invalid, code, format!("{e}"))
    })?;
    call.service.check_push(&call.ctx, &call.registry, name).await?;
    let bytes = respond::read_body(body, limits::MANIFEST_BYTES_MAX).await.map_err(|e| match e.kind {
        Kind::TooLarge => Error::new(
            Kind::TooLarge,
            "SIZE_INVALID",
            format!("the manifest is larger than {} bytes", limits::MANIFEST_BYTES_MAX),
        ),
        _ => e,
    })?;
    let content_type = match call.parts.headers.get(header::CONTENT_TYPE) {
        Some(value) => Some(value.to_str().map_err(|_| {
            Error::new(Kind::Invalid, "MANIFEST_INVALID", "the Content-Type header is not a media type")
        })?),
        None => None,
    };
    let done = call.service.put_manifest(&call.ctx, &call.registry, name, &reference, bytes, content_type).await?;
    let digest = done.digest.to_string();
    let mut response = located(StatusCode::CREATED, &format!("/v2/{name}/manifests/{digest}"))?;
    set(&mut response, CONTENT_DIGEST, &digest)?;
    if let Some(subject) = done.subject {
        set(&mut response, SUBJECT, &subject.to_string())?;
    }
    Ok(response)
}

pub(super) async fn delete(call: &Call<'_>, name: &RepoName, reference: &str) -> Result<Response, Error> {
    call.service.delete_manifest(&call.ctx, &call.registry, name, &known(reference)?).await?;
    Ok(respond::empty(StatusCode::ACCEPTED))
}
