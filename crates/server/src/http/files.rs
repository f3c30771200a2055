//! `/blob/r<registry>/files/<owner>`: what our own command line asks before it sends a build
//! context, so that only what is needed and not here already travels.
//!
//! ```text
//! PUT …&comp=needs    {"dockerfile": base64, "target": text, "buildArgs": [[name, value]], "platform": text}
//!                     → {"all": false, "paths": ["src", "lib/*"]}
//! PUT …&comp=listing  the listing of the context (portolan_types::listing)
//!                     → u32…, little-endian: the numbers of the files whose contents are wanted
//! ```
//!
//! The address is signed and comes with the place for the context
//! (`listBuildSourceUploadUrl`). Nothing is stored; contents that are here stay for as long as
//! the build may take to begin.

use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use portolan_builder::needs::{Needs, context_needs};
use portolan_service::Kind;
use portolan_types::{Platform, limits, listing};
use serde::Deserialize;
use serde_json::json;

use super::blob::Refusal;
use super::{Response, respond};
use crate::App;
use crate::build::stock::Owner;

/// A listing that is read whole: half a million files. Who has more sends an archive.
const LISTING_BYTES_MAX: usize = 32 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    dockerfile: String,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    build_args: Vec<(String, String)>,
    #[serde(default)]
    platform: Option<String>,
}

/// Answer a question about a context.
pub(super) async fn answer(app: &Arc<App>, owner: &Owner, comp: Option<&str>, body: Body) -> Result<Response, Refusal> {
    match comp {
        Some("needs") => needs(app, owner, body).await,
        Some("listing") => missing(app, owner, body).await,
        _ => Err(bad("comp must be needs or listing.")),
    }
}

fn bad(why: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "InvalidQueryParameterValue", why)
}

fn internal() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "The server failed. Try again.")
}

async fn read(body: Body, bytes_max: usize) -> Result<bytes::Bytes, Refusal> {
    respond::read_body(body, bytes_max).await.map_err(|e| match e.kind {
        Kind::Unavailable => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServerBusy", e.message),
        Kind::TooLarge => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge", e.message),
        _ => Refusal::new(StatusCode::BAD_REQUEST, "IncompleteBody", e.message),
    })
}

async fn needs(app: &Arc<App>, owner: &Owner, body: Body) -> Result<Response, Refusal> {
    let body = read(body, limits::CONTROL_BODY_BYTES_MAX).await?;
    let question: Question = serde_json::from_slice(&body).map_err(|e| bad(format!("The question: {e}.")))?;
    let dockerfile = STANDARD.decode(&question.dockerfile).map_err(|_| bad("dockerfile must be base64."))?;
    if dockerfile.len() > limits::DOCKERFILE_BYTES_MAX {
        return Err(bad("The Dockerfile is too long."));
    }
    let platform = question.platform.and_then(|p| p.parse().ok()).unwrap_or_else(Platform::host);
    let shelf = app.stock.as_ref().and_then(|stock| stock.shelf(owner).ok());
    if shelf.is_some_and(|shelf| shelf.is_whole(&dockerfile)) {
        return Ok(respond::json(StatusCode::OK, &json!({"all": true})));
    }
    let work = move || context_needs(&dockerfile, question.target.as_deref(), &question.build_args, &platform);
    let needs = tokio::task::spawn_blocking(work).await.map_err(|_| internal())?;
    Ok(respond::json(
        StatusCode::OK,
        &match needs {
            Needs::All => json!({"all": true}),
            Needs::Paths(paths) => json!({"all": false, "paths": paths}),
        },
    ))
}

async fn missing(app: &Arc<App>, owner: &Owner, body: Body) -> Result<Response, Refusal> {
    let stock = app.stock.clone().ok_or_else(Refusal::not_found)?;
    let body = read(body, LISTING_BYTES_MAX).await?;
    let owner = owner.clone();
    let work = move || {
        let entries = listing::Reader::new(&body).map_err(|e| bad(e.to_string()))?;
        let mut wanted = Vec::new();
        for entry in entries {
            if let listing::Kind::File { size, hash } = entry.map_err(|e| bad(e.to_string()))?.kind {
                wanted.push((hash, size));
            }
        }
        let shelf = stock.shelf(&owner).map_err(|error| {
            tracing::error!(%error, "open what build contexts left");
            internal()
        })?;
        Ok::<_, Refusal>(shelf.missing(&wanted))
    };
    let missing: Vec<u32> = tokio::task::spawn_blocking(work).await.map_err(|_| internal())??;
    let bytes: Vec<u8> = missing.iter().flat_map(|n| n.to_le_bytes()).collect();
    Ok(respond::bytes_of(StatusCode::OK, HeaderValue::from_static("application/octet-stream"), bytes.into()))
}
