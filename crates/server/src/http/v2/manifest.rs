//! Manifests over HTTP.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use portolan_service::{Error, Kind, PutOptions, StoredManifest};
use portolan_types::{Reference, RepoName, Tag, limits, media_type};

use super::{CONTENT_DIGEST, Call, accept, condition, located, set};
use crate::http::{Response, respond};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Text that is no reference names no manifest: 404, as the conformance tests want it.
fn known(reference: &str) -> Result<Reference, Error> {
    reference.parse().map_err(|e| {
        let code = if reference.contains(':') { "DIGEST_INVALID" } else { "MANIFEST_UNKNOWN" };
        let kind = if reference.contains(':') { Kind::Invalid } else { Kind::NotFound };
        Error::new(kind, code, format!("{e}"))
    })
}

/// GET and HEAD. What is stored is what is served, whatever `Accept` says ("MUST provide the
/// expected manifest, with a response code that MUST be `200 OK`"), with one exception of
/// Docker's registry: a client that takes images and no indexes gets, for the tag of an
/// index, its image for Linux on amd64.
pub(super) async fn get(call: &Call<'_>, name: &RepoName, reference: &str) -> Result<Response, Error> {
    let reference = known(reference)?;
    let (service, ctx, registry) = (call.service, &call.ctx, &call.registry);
    let mut manifest = service.get_manifest(ctx, registry, name, &reference).await?;
    let varies = matches!(reference, Reference::Tag(_)) && media_type::is_index(&manifest.media_type);
    if varies
        && !accept::takes(call.parts, &manifest.media_type)
        && (accept::takes(call.parts, media_type::OCI_MANIFEST)
            || accept::takes(call.parts, media_type::DOCKER_MANIFEST))
        && let Some(image) = service.image_of_index(ctx, registry, name, &manifest).await?
        && accept::takes(call.parts, &image.media_type)
    {
        manifest = image;
    }
    let read = condition::of_read(call.parts, &manifest.etag)?;
    let body = match read {
        condition::Read::Go if call.parts.method != Method::HEAD => Body::from(manifest.bytes.clone()),
        _ => Body::empty(),
    };
    let mut response = Response::new(body);
    identify(&mut response, &manifest)?;
    let headers = response.headers_mut();
    if varies {
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
    }
    if read == condition::Read::NotModified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
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

/// The tags that the query asks for besides the reference: `?tag=a&tag=b`, how a manifest
/// gets its digest and its tags in one request (distribution-spec after 1.1).
fn further_tags(parts: &http::request::Parts) -> Result<Vec<Tag>, Error> {
    let query = respond::query(&parts.uri);
    let named = query.iter().filter(|(key, _)| key == "tag");
    let tags =
        named.map(|(_, tag)| tag.parse::<Tag>().map_err(|e| Error::new(Kind::Invalid, "TAG_INVALID", format!("{e}"))));
    let tags = tags.collect::<Result<Vec<Tag>, Error>>()?;
    if tags.len() > limits::PUT_TAGS_MAX {
        let message = format!("one request may set at most {} tags", limits::PUT_TAGS_MAX);
        return Err(Error::new(Kind::Invalid, "TAG_INVALID", message));
    }
    Ok(tags)
}

pub(super) async fn put(call: &Call<'_>, name: &RepoName, reference: &str, body: Body) -> Result<Response, Error> {
    let reference: Reference = reference.parse().map_err(|e| {
        let code = if reference.contains(':') { "DIGEST_INVALID" } else { "TAG_INVALID" };
        Error::new(Kind::Invalid, code, format!("{e}"))
    })?;
    let tags = further_tags(call.parts)?;
    call.service.check_push(&call.ctx, &call.registry, name).await?;
    let bytes = respond::read_body(body, call.service.config.manifest_bytes_max).await.map_err(|e| match e.kind {
        Kind::TooLarge => Error::new(
            Kind::TooLarge,
            "SIZE_INVALID",
            format!("the manifest is larger than {} bytes", call.service.config.manifest_bytes_max),
        ),
        _ => e,
    })?;
    let content_type = match call.parts.headers.get(header::CONTENT_TYPE) {
        Some(value) => Some(value.to_str().map_err(|_| {
            Error::new(Kind::Invalid, "MANIFEST_INVALID", "the Content-Type header is not a media type")
        })?),
        None => None,
    };
    let conditions = condition::of_write(call.parts);
    let options = PutOptions { content_type, tags: &tags, conditions: &conditions };
    let done = call.service.put_manifest_with(&call.ctx, &call.registry, name, &reference, bytes, &options).await?;
    let digest = done.digest.to_string();
    let mut response = located(StatusCode::CREATED, &format!("/v2/{name}/manifests/{digest}"))?;
    set(&mut response, CONTENT_DIGEST, &digest)?;
    if let Some(subject) = done.subject {
        set(&mut response, SUBJECT, &subject.to_string())?;
    }
    for tag in &tags {
        // A tag's characters are all a header's.
        let value = HeaderValue::from_str(tag.as_str());
        value
            .map(|value| response.headers_mut().append(TAG, value))
            .map_err(|e| Error::new(Kind::Internal, "UNKNOWN", "a header cannot be written").with_source(e))?;
    }
    Ok(response)
}

pub(super) async fn delete(call: &Call<'_>, name: &RepoName, reference: &str) -> Result<Response, Error> {
    let conditions = condition::of_write(call.parts);
    let (service, reference) = (call.service, known(reference)?);
    service.delete_manifest_if(&call.ctx, &call.registry, name, &reference, &conditions).await?;
    Ok(respond::empty(StatusCode::ACCEPTED))
}
