//! `/oauth2/exchange` and `/oauth2/token`: registry tokens, as ACR, docker, containerd and
//! the Azure clients ask for them.
//!
//! `POST /oauth2/exchange` turns a directory token into a refresh token of one registry;
//! `POST` and `GET /oauth2/token` turn a refresh token or a sign-in into an access token.
//! The registry is the one that `service` names, else the one at the request's host.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use portolan_auth::authority::Issued;
use portolan_service::registry_auth::SignIn;
use portolan_service::{Error, Kind, Registry};
use portolan_types::Timestamp;
use serde_json::json;

use super::caller::{self, Credentials};
use super::error::{OciRim, oci};
use super::respond::{self, field};
use super::{Request, Response, host};
use crate::App;

/// A form of these endpoints: a token or two and some scopes.
const FORM_BYTES_MAX: usize = 256 * 1024;

/// Answer a request to `/oauth2/…`.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    // Before the body is read: a flood is to cost little.
    if let Err(e) = app.rates.token(caller::peer(&parts)) {
        return oci(&e, &OciRim::of(&parts));
    }
    let answer = match (parts.uri.path().trim_end_matches('/'), &parts.method) {
        ("/oauth2/exchange", &Method::POST) => match respond::form(body, FORM_BYTES_MAX).await {
            Ok(form) => exchange(app, &parts, &form),
            Err(e) => Err(e),
        },
        ("/oauth2/token", &Method::POST) => match respond::form(body, FORM_BYTES_MAX).await {
            Ok(form) => post_token(app, &parts, &form),
            Err(e) => Err(e),
        },
        ("/oauth2/token", &Method::GET) => get_token(app, &parts),
        ("/oauth2/exchange" | "/oauth2/token", _) => {
            Err(Error::new(Kind::Unsupported, "UNSUPPORTED", "this address does not answer to that method"))
        }
        _ => Err(Error::new(Kind::NotFound, "NOT_FOUND", "nothing is served at this path")),
    };
    let mut res = answer.unwrap_or_else(|e| oci(&e, &OciRim::of(&parts)));
    res.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    res
}

fn exchange(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    // The older words name what the form holds besides the access token.
    if !matches!(field(form, "grant_type"), Some("access_token" | "access_token_refresh_token")) {
        return Err(bad_request("grant_type must be access_token"));
    }
    let registry = registry(app, parts, field(form, "service"))?;
    let token = field(form, "access_token").filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| bad_request("access_token is missing"))?;
    let attempt = app.rates.attempt(caller::peer(parts), None)?;
    let (issued, principal) = attempt.answered(app.service.exchange_for(&registry, token, Timestamp::now()))?;
    caller::name(parts, &principal);
    Ok(respond::json(StatusCode::OK, &json!({"refresh_token": issued.token.expose()})))
}

fn post_token(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    let registry = registry(app, parts, field(form, "service"))?;
    let text = |name| field(form, name).unwrap_or_default();
    let sign_in = match field(form, "grant_type") {
        Some("refresh_token") => SignIn::Refresh(text("refresh_token")),
        Some("password") => match (text("username"), text("password")) {
            ("", "") => SignIn::Anonymous,
            (user, password) => {
                caller::claim(app, Some(&registry), parts, user);
                SignIn::Password { user, password }
            }
        },
        _ => return Err(bad_request("grant_type must be refresh_token or password")),
    };
    issue(app, parts, &registry, sign_in, form)
}

fn get_token(app: &App, parts: &Parts) -> Result<Response, Error> {
    let query = respond::query(&parts.uri);
    let registry = registry(app, parts, field(&query, "service"))?;
    match caller::credentials(parts) {
        Some(Credentials::Basic { user, password }) => {
            caller::claim(app, Some(&registry), parts, &user);
            issue(app, parts, &registry, SignIn::Password { user: &user, password: password.expose() }, &query)
        }
        Some(Credentials::None) => issue(app, parts, &registry, SignIn::Anonymous, &query),
        Some(Credentials::Bearer(_)) | None => Err(Error::new(
            Kind::Unauthenticated,
            "UNAUTHORIZED",
            "authentication required: send the user name and password as Basic",
        )),
    }
}

fn issue(
    app: &App,
    parts: &Parts,
    registry: &Registry,
    sign_in: SignIn<'_>,
    fields: &[(String, String)],
) -> Result<Response, Error> {
    let scopes: Vec<&str> = fields.iter().filter(|(k, _)| k == "scope").map(|(_, v)| v.as_str()).collect();
    let attempt = caller::attempt(app, parts, registry, &sign_in)?;
    let issued = app.service.access_token_for(registry, sign_in, &scopes, Timestamp::now());
    let (issued, principal) = match attempt {
        Some(attempt) => attempt.answered(issued)?,
        None => issued?,
    };
    caller::name(parts, &principal);
    Ok(respond::json(StatusCode::OK, &answer(&issued)))
}

/// `access_token` is what ACR answers and OAuth names; `token`, `expires_in` and
/// `issued_at` are docker's (distribution, "Token Authentication Specification").
fn answer(issued: &Issued) -> serde_json::Value {
    json!({
        "access_token": issued.token.expose(),
        "token": issued.token.expose(),
        "expires_in": issued.expires_in_secs,
        "issued_at": issued.issued.rfc3339(),
    })
}

/// The registry of a request, if its network rules let the client in.
fn registry(app: &App, parts: &Parts, service: Option<&str>) -> Result<Arc<Registry>, Error> {
    let named = service.filter(|s| !s.is_empty()).or_else(|| host::of(parts));
    let registry = named.and_then(|host| app.service.registry_by_host(host)).ok_or_else(|| {
        Error::new(Kind::NotFound, "NAME_UNKNOWN", "no registry answers at this address")
            .with_hint("`service` must be the login server of a registry")
    })?;
    app.service.check_network(&registry, caller::peer(parts))?;
    Ok(registry)
}

fn bad_request(why: &str) -> Error {
    Error::new(Kind::Invalid, "BAD_REQUEST", why)
}
