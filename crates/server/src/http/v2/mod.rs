//! The registry API of docker, podman, containerd and the OCI: `/v2/`.
//!
//! Each handler takes the request apart, calls one function of `Service` and puts the
//! answer together. Conditions, ranges and header names are known here; rules are not.
//! Locations are relative (`/v2/…`): they hold under whatever name and proxy the client
//! came by.

mod accept;
pub(super) mod blob;
mod condition;
pub(crate) mod list;
mod manifest;
pub(crate) mod path;
pub(crate) mod range;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use portolan_auth::access::Principal;
use portolan_service::{Ctx, Error, Kind, Registry, Service};
use serde_json::json;

use super::error::{self, OciRim};
use super::{Request, Response, caller, host, respond};
use crate::app::App;
use path::Route;

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What every handler works with.
struct Call<'a> {
    service: &'a Service,
    registry: Arc<Registry>,
    ctx: Ctx,
    parts: &'a Parts,
    /// How long a URL of the storage is good that a blob's GET is sent to, when it is.
    redirect: Option<Duration>,
    /// How long an address at a data endpoint is good.
    link_lifetime: Duration,
}

/// Answer a request to `/v2/…`.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    match serve(app, &parts, body).await {
        Ok(response) => response,
        Err(e) => refusal(e, &parts),
    }
}

/// An error as clients of this API read it: under one of the specification's codes, and a
/// 405 with what is allowed (RFC 9110, section 15.5.6).
fn refusal(mut e: Error, parts: &Parts) -> Response {
    if error::status(e.kind).is_client_error() {
        e.code = listed(e.code);
    }
    let mut response = error::oci(&e, &OciRim::of(parts));
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let path = path::decode(parts.uri.path()).unwrap_or_default();
        let methods = path::parse(&path).map_or(&[][..], |route| route.methods());
        let allowed: Vec<&str> = methods.iter().copied().filter(|m| *m != parts.method.as_str()).collect();
        if let Ok(value) = HeaderValue::from_str(&allowed.join(", ")) {
            response.headers_mut().insert(header::ALLOW, value);
        }
    }
    response
}

/// The code of the specification for one of ours. "The `code` field MUST be one of the
/// following" (OCI distribution-spec, "Error Codes"); `TAG_INVALID` is one that it still
/// allows ("Legacy Docker support error codes").
fn listed(code: &'static str) -> &'static str {
    match code {
        "BLOB_UNKNOWN"
        | "BLOB_UPLOAD_INVALID"
        | "BLOB_UPLOAD_UNKNOWN"
        | "DIGEST_INVALID"
        | "MANIFEST_BLOB_UNKNOWN"
        | "MANIFEST_INVALID"
        | "MANIFEST_UNKNOWN"
        | "NAME_INVALID"
        | "NAME_UNKNOWN"
        | "SIZE_INVALID"
        | "UNAUTHORIZED"
        | "DENIED"
        | "UNSUPPORTED"
        | "TOOMANYREQUESTS"
        | "TAG_INVALID" => code,
        "REGISTRY_DISALLOWED_OPERATION" => "DENIED",
        "BODY_INVALID" => "SIZE_INVALID",
        "TAG_UNKNOWN" => "MANIFEST_UNKNOWN",
        _ => "UNSUPPORTED",
    }
}

async fn serve(app: &Arc<App>, parts: &Parts, body: axum::body::Body) -> Result<Response, Error> {
    let path = path::decode(parts.uri.path())?;
    let route = path::parse(&path)?;
    let registry = registry(app, parts)?;
    let ctx = caller::data_plane(app, &registry, parts)?;
    let link_lifetime = app.settings.blob_redirect_secs.secs();
    let redirect = app.settings.blob_redirect.then_some(link_lifetime);
    let call = Call { service: &app.service, registry, ctx, parts, redirect, link_lifetime };
    match (&parts.method, route) {
        (&Method::GET | &Method::HEAD, Route::Base) => base(&call),
        (&Method::GET | &Method::HEAD, Route::Catalog) => list::catalog(&call).await,
        (&Method::GET | &Method::HEAD, Route::Tags(name)) => list::tags(&call, &name).await,
        (&Method::GET | &Method::HEAD, Route::Referrers(name, digest)) => list::referrers(&call, &name, digest).await,
        (&Method::GET | &Method::HEAD, Route::Manifest(name, reference)) => {
            manifest::get(&call, &name, reference).await
        }
        (&Method::PUT, Route::Manifest(name, reference)) => manifest::put(&call, &name, reference, body).await,
        (&Method::DELETE, Route::Manifest(name, reference)) => manifest::delete(&call, &name, reference).await,
        (&Method::HEAD, Route::Blob(name, digest)) => blob::head(&call, &name, digest).await,
        (&Method::GET, Route::Blob(name, digest)) => blob::get(&call, &name, digest).await,
        (&Method::DELETE, Route::Blob(name, digest)) => blob::delete(&call, &name, digest).await,
        (&Method::POST, Route::Uploads(name)) => upload::start(&call, &name, body).await,
        (&Method::GET | &Method::HEAD, Route::Upload(name, id)) => upload::status(&call, &name, id).await,
        (&Method::PATCH, Route::Upload(name, id)) => upload::append(&call, &name, id, body).await,
        (&Method::PUT, Route::Upload(name, id)) => upload::finish(&call, &name, id, body).await,
        (&Method::DELETE, Route::Upload(name, id)) => upload::cancel(&call, &name, id).await,
        (method, _) => {
            Err(Error::new(Kind::Unsupported, "UNSUPPORTED", format!("{method} is not supported at this path")))
        }
    }
}

/// The registry that the request's host names, if its network rules let the client in.
pub(crate) fn registry(app: &App, parts: &Parts) -> Result<Arc<Registry>, Error> {
    let named = host::of(parts).unwrap_or("");
    let registry = app.service.registry_by_host(named).ok_or_else(|| {
        let message = format!("no registry answers at \"{}\"", named.escape_debug());
        Error::new(Kind::NotFound, "NAME_UNKNOWN", message)
            .with_hint("list the registries and their login servers with `acr list`")
    })?;
    app.service.check_network(&registry, caller::peer(parts))?;
    Ok(registry)
}

/// `/v2/`: whether the client speaks to a registry and is signed in to it.
fn base(call: &Call<'_>) -> Result<Response, Error> {
    if call.ctx.principal == Principal::Anonymous {
        let mut e = Error::new(Kind::Unauthenticated, "UNAUTHORIZED", "authentication required");
        e.challenge = Some(String::new());
        return Err(e);
    }
    Ok(respond::json(StatusCode::OK, &json!({})))
}

/// An empty answer with a location.
fn located(status: StatusCode, location: &str) -> Result<Response, Error> {
    let mut response = respond::empty(status);
    set(&mut response, header::LOCATION, location)?;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    Ok(response)
}

/// Set a header to text that was checked before it came here.
fn set(response: &mut Response, name: HeaderName, value: &str) -> Result<(), Error> {
    let value = HeaderValue::from_str(value)
        .map_err(|e| Error::new(Kind::Internal, "UNKNOWN", "a header cannot be written").with_source(e))?;
    response.headers_mut().insert(name, value);
    Ok(())
}

/// A request header as text.
fn header_text(parts: &Parts, name: HeaderName) -> Option<&str> {
    parts.headers.get(name)?.to_str().ok()
}

/// Whether `If-None-Match` names this entity tag (given with its quotes). Content never
/// changes under its digest, so weak and strong are the same.
pub(crate) fn none_match(parts: &Parts, etag: &[u8]) -> bool {
    parts.headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value.as_bytes().split(|c| *c == b',').map(<[u8]>::trim_ascii).any(|candidate| {
            let candidate = candidate.strip_prefix(b"W/").unwrap_or(candidate);
            candidate == b"*" || candidate == etag || etag.get(1..etag.len().saturating_sub(1)) == Some(candidate)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_the_specification() {
        for code in ["REGISTRY_DISALLOWED_OPERATION", "PAGINATION_NUMBER_INVALID", "BODY_INVALID", "anything else"] {
            assert_eq!(listed(listed(code)), listed(code));
            assert!(listed(code).bytes().all(|c| c.is_ascii_uppercase() || c == b'_'));
        }
        assert_eq!(listed("MANIFEST_UNKNOWN"), "MANIFEST_UNKNOWN");
        assert_eq!(listed("REGISTRY_DISALLOWED_OPERATION"), "DENIED");
    }
}
