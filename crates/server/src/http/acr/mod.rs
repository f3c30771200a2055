//! ACR's data plane: attributes, tags and manifests as `az acr repository` and the SDKs
//! read them: `/acr/v1/`.

pub(crate) mod path;
pub(crate) mod wire;

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_service::{Error, Kind};
use portolan_types::{Tag, limits};
use serde_json::json;

use super::error::{self, OciRim};
use super::v2::list::{link, page_of};
use super::{Request, Response, caller, respond, v2};
use crate::app::App;
use path::Route;

/// Answer a request to `/acr/v1/…`.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    match serve(app, &parts, body).await {
        Ok(response) => response,
        Err(e) => error::oci(&e, &OciRim::of(&parts)),
    }
}

async fn serve(app: &Arc<App>, parts: &Parts, body: Body) -> Result<Response, Error> {
    let decoded = v2::path::decode(parts.uri.path())?;
    let route = path::parse(&decoded)?;
    let registry = v2::registry(app, parts)?;
    let ctx = caller::data_plane(app, &registry, parts)?;
    let service = &app.service;
    let server = registry.login_server.as_str();
    match (&parts.method, route) {
        (&Method::GET, Route::Catalog) => {
            let query = page_of(parts, limits::PAGE_ITEMS_DEFAULT)?;
            let page = service.catalog(&ctx, &registry, &query).await?;
            let mut response = respond::json(StatusCode::OK, &json!({ "repositories": page.items }));
            link(&mut response, "/acr/v1/_catalog", &query, page.next.as_deref(), &[])?;
            Ok(response)
        }
        (&Method::GET, Route::Repo(name)) => {
            let repo = service.repository(&ctx, &registry, &name).await?;
            Ok(respond::json(StatusCode::OK, &wire::repository(server, &repo)))
        }
        (&Method::PATCH, Route::Repo(name)) => {
            let patch = patch(body).await?;
            let repo = service.update_repository(&ctx, &registry, &name, patch).await?;
            Ok(respond::json(StatusCode::OK, &wire::repository(server, &repo)))
        }
        (&Method::DELETE, Route::Repo(name)) => {
            let gone = service.delete_repository(&ctx, &registry, &name).await?;
            let body = json!({ "manifestsDeleted": gone.manifests, "tagsDeleted": gone.tags });
            Ok(respond::json(StatusCode::ACCEPTED, &body))
        }
        (&Method::GET, Route::Tags(name)) => {
            let query = page_of(parts, limits::PAGE_ITEMS_DEFAULT)?;
            let parameters = respond::query(&parts.uri);
            let filter = respond::field(&parameters, "digest").filter(|d| !d.is_empty());
            let digest = filter.map(v2::path::digest).transpose()?;
            let page = service.tags(&ctx, &registry, &name, digest, &query).await?;
            let tags: Vec<_> = page.items.iter().map(wire::tag).collect();
            let body = json!({ "registry": server, "imageName": name, "tags": tags });
            let mut response = respond::json(StatusCode::OK, &body);
            let more: Vec<_> = filter.map(|d| ("digest", d)).into_iter().collect();
            link(&mut response, &format!("/acr/v1/{name}/_tags"), &query, page.next.as_deref(), &more)?;
            Ok(response)
        }
        (&Method::GET, Route::Tag(name, tag)) => {
            let found = service.tag(&ctx, &registry, &name, &known(tag)?).await?;
            let body = json!({ "registry": server, "imageName": name, "tag": wire::tag(&found) });
            Ok(respond::json(StatusCode::OK, &body))
        }
        (&Method::PATCH, Route::Tag(name, tag)) => {
            let patch = patch(body).await?;
            let found = service.update_tag(&ctx, &registry, &name, &known(tag)?, patch).await?;
            let body = json!({ "registry": server, "imageName": name, "tag": wire::tag(&found) });
            Ok(respond::json(StatusCode::OK, &body))
        }
        (&Method::DELETE, Route::Tag(name, tag)) => {
            service.untag(&ctx, &registry, &name, &known(tag)?).await?;
            Ok(respond::empty(StatusCode::ACCEPTED))
        }
        (&Method::GET, Route::Manifests(name)) => {
            let query = page_of(parts, limits::PAGE_ITEMS_DEFAULT)?;
            let page = service.manifests(&ctx, &registry, &name, &query).await?;
            let manifests: Vec<_> = page.items.iter().map(wire::manifest).collect();
            let body = json!({ "registry": server, "imageName": name, "manifests": manifests });
            let mut response = respond::json(StatusCode::OK, &body);
            link(&mut response, &format!("/acr/v1/{name}/_manifests"), &query, page.next.as_deref(), &[])?;
            Ok(response)
        }
        (&Method::GET, Route::Manifest(name, digest)) => {
            let found = service.manifest(&ctx, &registry, &name, digest).await?;
            let body = json!({ "registry": server, "imageName": name, "manifest": wire::manifest(&found) });
            Ok(respond::json(StatusCode::OK, &body))
        }
        (&Method::PATCH, Route::Manifest(name, digest)) => {
            let patch = patch(body).await?;
            let found = service.update_manifest(&ctx, &registry, &name, digest, patch).await?;
            let body = json!({ "registry": server, "imageName": name, "manifest": wire::manifest(&found) });
            Ok(respond::json(StatusCode::OK, &body))
        }
        (method, _) => {
            Err(Error::new(Kind::Unsupported, "UNSUPPORTED", format!("{method} is not supported at this path")))
        }
    }
}

/// Text that is no tag names no tag.
fn known(tag: &str) -> Result<Tag, Error> {
    tag.parse().map_err(|e| Error::new(Kind::NotFound, "TAG_UNKNOWN", format!("{e}")))
}

async fn patch(body: Body) -> Result<portolan_service::AttributesPatch, Error> {
    let bytes = respond::read_body(body, limits::CONTROL_BODY_BYTES_MAX).await?;
    wire::patch(&bytes)
}
