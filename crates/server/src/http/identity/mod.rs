//! The identity provider: what Microsoft Entra is to Azure, as far as clients read it.
//!
//! `GET /metadata/endpoints` tells a client where everything is; OpenID discovery and the
//! key set tell it where tokens come from and who verifies them; the token endpoint gives
//! a service principal a directory token for its secret.

mod assertion;
mod discovery;
mod keys;
mod login;
mod managed;
mod page;
mod person;
pub mod provider;
mod token;

use std::sync::Arc;

use axum::body::Body;
use http::header::{CACHE_CONTROL, PRAGMA};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use portolan_service::{Error, Kind};
use portolan_types::Timestamp;
use serde_json::json;

use super::caller;
use super::respond;
use super::{Request, RequestId, Response};
use crate::App;

const FORM_BYTES_MAX: usize = 256 * 1024;

/// Answer a request to the identity provider.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    let path = parts.uri.path().trim_matches('/').to_ascii_lowercase();
    let words: Vec<&str> = path.split('/').collect();
    let get = parts.method == Method::GET || parts.method == Method::HEAD;
    let post = parts.method == Method::POST;
    let answer = match words.as_slice() {
        ["metadata", "endpoints"] if get => Ok(respond::json(StatusCode::OK, &discovery::endpoints(app, &parts))),
        [tenant, "v2.0", ".well-known", "openid-configuration"] | [tenant, ".well-known", "openid-configuration"]
            if get =>
        {
            known_tenant(app, tenant).map(|()| respond::json(StatusCode::OK, &discovery::discovery(app, &parts)))
        }
        [tenant, "discovery", "v2.0", "keys"] | [tenant, "discovery", "keys"] if get => known_tenant(app, tenant)
            .map(|()| respond::json(StatusCode::OK, &json!({"keys": app.service.authority.jwks()}))),
        [tenant, "discovery", "v2.0", "keys"] if post => keys::renew(app, &parts, tenant, body).await,
        ["msi", "token"] => managed::endpoint(app, &parts),
        ["metadata", "identity", "oauth2", "token"] => managed::machine(app, &parts),
        [tenant, "oauth2", "v2.0", "token"] | [tenant, "oauth2", "token"] if post => {
            match read_form(app, &parts, tenant, body).await {
                Ok(form) => token::token(app, &parts, &form).await,
                Err(e) => Err(e),
            }
        }
        [tenant, "oauth2", "v2.0", "devicecode"] | [tenant, "oauth2", "devicecode"] if post => {
            match read_form(app, &parts, tenant, body).await {
                Ok(form) => person::begin_device(app, &parts, &form).await,
                Err(e) => Err(e),
            }
        }
        ["common", "userrealm", _] if get => Ok(person::user_realm(app, &parts)),
        ["devicelogin"] if get => Ok(login::device(app, &parts).await),
        [tenant, "oauth2", "v2.0", page] | [tenant, "oauth2", page] if PAGES.contains(page) && (get || post) => {
            return match known_tenant(app, tenant) {
                Ok(()) => pages(app, &parts, page, body).await,
                Err(e) => page::problem(&e, &parts),
            };
        }
        _ => return super::error::unknown_path(),
    };
    answer.unwrap_or_else(|e| failure(&e, &parts))
}

/// What people see, under `/{tenant}/oauth2/v2.0/`.
const PAGES: [&str; 6] = ["authorize", "sign-in", "logout", "password", "provider", "callback"];

/// Answer with a page.
async fn pages(app: &App, parts: &Parts, page: &str, body: Body) -> Response {
    let get = parts.method != Method::POST;
    match (page, get) {
        // A client may post what it asks for; it is a visit all the same.
        ("authorize", true) => return login::authorize(app, parts),
        ("logout", _) => return login::logout(app, parts),
        ("password", true) => return login::password_form(app, parts, "", None),
        ("provider", true) => return provider::depart(app, parts).await,
        ("callback", true) => return provider::arrive(app, parts).await,
        _ if get => return super::error::unknown_path(),
        _ => {}
    }
    let fields = match app.rates.token(caller::peer(parts)) {
        Ok(()) => respond::form(body, FORM_BYTES_MAX).await,
        Err(e) => Err(e),
    };
    match (page, fields) {
        (_, Err(e)) => page::problem(&e, parts),
        ("sign-in", Ok(fields)) => login::submit(app, parts, &fields).await,
        ("password", Ok(fields)) => login::change_password(app, parts, &fields).await,
        _ => super::error::unknown_path(),
    }
}

/// The form of a request for tokens; refused before it is read when there are too many.
async fn read_form(app: &App, parts: &Parts, tenant: &str, body: Body) -> Result<Vec<(String, String)>, Error> {
    app.rates.token(caller::peer(parts))?;
    known_tenant(app, tenant)?;
    respond::form(body, FORM_BYTES_MAX).await
}

fn known_tenant(app: &App, tenant: &str) -> Result<(), Error> {
    if ["common", "organizations"].contains(&tenant) || tenant == app.service.tenant_id().to_string() {
        return Ok(());
    }
    let shown: String = tenant.chars().take(64).collect();
    Err(Error::new(
        Kind::Invalid,
        "invalid_tenant",
        format!(
            "AADSTS90002: Tenant '{}' not found. Check to make sure you have the correct tenant ID.",
            shown.escape_debug()
        ),
    ))
}

/// An error as RFC 6749, section 5.2, has it, with the members that Entra adds.
fn failure(error: &Error, parts: &Parts) -> Response {
    let status = super::error::status(error.kind);
    let trace = parts.extensions.get::<RequestId>().map_or("", |id| &id.0);
    let number =
        error.message.strip_prefix("AADSTS").and_then(|m| m.split(':').next()).and_then(|n| n.parse::<u32>().ok());
    let mut body = json!({
        "error": error.code,
        "error_description": format!("{} Trace ID: {trace}", error.message),
        "error_codes": number.into_iter().collect::<Vec<_>>(),
        "timestamp": Timestamp::now().rfc3339(),
        "trace_id": trace,
        "correlation_id": trace,
    });
    if parts.uri.path().to_ascii_lowercase().starts_with("/msi/") {
        // What App Service says, and MSAL shows.
        body["statusCode"] = status.as_u16().into();
        body["message"] = error.message.clone().into();
    }
    super::error::finish(no_store(respond::json(status, &body)), error)
}

fn no_store(mut res: Response) -> Response {
    res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    res.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    res
}
