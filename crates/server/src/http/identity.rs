//! The identity provider: what Microsoft Entra is to Azure, as far as clients read it.
//!
//! `GET /metadata/endpoints` tells a client where everything is; OpenID discovery and the
//! key set tell it where tokens come from and who verifies them; the token endpoint gives
//! a service principal a directory token for its secret.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, PRAGMA};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use portolan_service::{Error, Kind};
use portolan_types::{Secret, Timestamp};
use serde_json::{Value, json};

use super::caller::{self, Credentials, base_url};
use super::error::Note;
use super::respond::{self, field};
use super::{Request, RequestId, Response, host};
use crate::App;

const FORM_BYTES_MAX: usize = 256 * 1024;
/// Longest resource a token may be asked for.
const RESOURCE_BYTES_MAX: usize = 512;

/// Answer a request to the identity provider.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    let path = parts.uri.path().trim_matches('/').to_ascii_lowercase();
    let words: Vec<&str> = path.split('/').collect();
    let get = parts.method == Method::GET || parts.method == Method::HEAD;
    let answer = match words.as_slice() {
        ["metadata", "endpoints"] if get => Ok(respond::json(StatusCode::OK, &endpoints(app, &parts))),
        [tenant, "v2.0", ".well-known", "openid-configuration"] | [tenant, ".well-known", "openid-configuration"]
            if get =>
        {
            known_tenant(app, tenant).map(|()| respond::json(StatusCode::OK, &discovery(app, &parts)))
        }
        [tenant, "discovery", "v2.0", "keys"] | [tenant, "discovery", "keys"] if get => known_tenant(app, tenant)
            .map(|()| respond::json(StatusCode::OK, &json!({"keys": app.service.authority.jwks()}))),
        [tenant, "oauth2", "v2.0", "token"] | [tenant, "oauth2", "token"] if parts.method == Method::POST => {
            let peer = caller::peer(&parts);
            let answer = match (app.rates.token(peer).and(known_tenant(app, tenant)), body) {
                (Ok(()), body) => match respond::form(body, FORM_BYTES_MAX).await {
                    Ok(form) => token(app, &parts, &form),
                    Err(e) => Err(e),
                },
                (Err(e), _) => Err(e),
            };
            if answer.as_ref().is_err_and(|e| e.kind == Kind::Unauthenticated) {
                app.rates.sign_in_failed(peer);
            }
            answer
        }
        _ => return super::error::unknown_path(),
    };
    answer.unwrap_or_else(|e| failure(&e, &parts))
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

/// The document that `az cloud register` reads.
fn endpoints(app: &App, parts: &Parts) -> Value {
    let base = base_url(app, parts);
    let suffix = app.service.login_server_suffix();
    let bare = host::without_port(app.service.authority_for(host::of(parts)));
    json!({
        "name": "Portolan",
        "portal": base,
        "resourceManager": base,
        "authentication": {
            "loginEndpoint": base,
            "audiences": [base],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "graphAudience": base,
        "graph": base,
        "microsoftGraphResourceId": base,
        "suffixes": {
            "acrLoginServer": suffix,
            "storage": bare,
            "keyVaultDns": format!("vault.{bare}"),
        },
    })
}

/// OpenID Connect Discovery 1.0, "OpenID Provider Metadata".
fn discovery(app: &App, parts: &Parts) -> Value {
    let base = base_url(app, parts);
    let tenant = app.service.tenant_id();
    json!({
        "issuer": format!("{base}/{tenant}/v2.0"),
        "authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{base}/{tenant}/oauth2/v2.0/token"),
        "device_authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/devicecode"),
        "jwks_uri": format!("{base}/{tenant}/discovery/v2.0/keys"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "response_types_supported": ["code", "id_token", "token"],
        "response_modes_supported": ["query", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "tid", "oid", "appid", "ver"],
    })
}

fn token(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    match field(form, "grant_type") {
        Some("client_credentials") => {}
        Some(other) => {
            let shown: String = other.chars().take(64).collect();
            let why = format!("AADSTS70003: The app requested an unsupported grant type '{}'.", shown.escape_debug());
            return Err(Error::new(Kind::Invalid, "unsupported_grant_type", why));
        }
        None => return Err(missing("grant_type")),
    }
    let (client_id, secret) = client(parts, form)?;
    caller::claim(parts, &client_id);
    let resource = resource(form)?;
    let base = base_url(app, parts);
    let issued = app.service.client_token(&base, &client_id, secret.expose(), &resource, Timestamp::now())?;
    let body = json!({
        "token_type": "Bearer",
        "expires_in": issued.expires_in_secs,
        "ext_expires_in": issued.expires_in_secs,
        "access_token": issued.token.expose(),
    });
    Ok(no_store(respond::json(StatusCode::OK, &body)))
}

/// The client's id and secret: in the form, or as Basic (RFC 6749, section 2.3.1, where
/// both are form-encoded first).
fn client(parts: &Parts, form: &[(String, String)]) -> Result<(String, Secret<String>), Error> {
    if let Some(id) = field(form, "client_id")
        && let Some(secret) = field(form, "client_secret")
    {
        return Ok((id.to_owned(), Secret::new(secret.to_owned())));
    }
    match caller::credentials(parts) {
        Some(Credentials::Basic { user, password }) => {
            let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
            Ok((decoded(&user), Secret::new(decoded(password.expose()))))
        }
        _ if field(form, "client_id").is_none() => Err(missing("client_id")),
        _ => Err(Error::new(
            Kind::Unauthenticated,
            "invalid_client",
            "AADSTS7000216: 'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
        )),
    }
}

/// What the token is to be for: a scope that ends in `/.default`, or the older `resource`.
fn resource(form: &[(String, String)]) -> Result<String, Error> {
    let resource = match (field(form, "scope"), field(form, "resource")) {
        (Some(scope), _) => {
            let default = scope.split_ascii_whitespace().find_map(|s| s.strip_suffix("/.default"));
            default.ok_or_else(|| {
                let shown: String = scope.chars().take(128).collect();
                Error::new(
                    Kind::Invalid,
                    "invalid_scope",
                    format!(
                        "AADSTS1002012: The provided value for scope {} is not valid. Client credential flows must have \
                         a scope value with /.default suffixed to the resource identifier (application ID URI).",
                        shown.escape_debug()
                    ),
                )
            })?
        }
        (None, Some(resource)) => resource,
        (None, None) => return Err(missing("scope")),
    };
    if resource.is_empty() || resource.len() > RESOURCE_BYTES_MAX || resource.chars().any(char::is_control) {
        return Err(Error::new(
            Kind::Invalid,
            "invalid_resource",
            "AADSTS500011: The resource principal was not found.",
        ));
    }
    Ok(resource.to_owned())
}

fn missing(what: &str) -> Error {
    let why = format!("AADSTS900144: The request body must contain the following parameter: '{what}'.");
    Error::new(Kind::Invalid, "invalid_request", why)
}

/// An error as RFC 6749, section 5.2, has it, with the members that Entra adds.
fn failure(error: &Error, parts: &Parts) -> Response {
    let status = super::error::status(error.kind);
    let trace = parts.extensions.get::<RequestId>().map_or("", |id| &id.0);
    let number =
        error.message.strip_prefix("AADSTS").and_then(|m| m.split(':').next()).and_then(|n| n.parse::<u32>().ok());
    let body = json!({
        "error": error.code,
        "error_description": format!("{} Trace ID: {trace}", error.message),
        "error_codes": number.into_iter().collect::<Vec<_>>(),
        "timestamp": Timestamp::now().rfc3339(),
        "trace_id": trace,
        "correlation_id": trace,
    });
    let mut res = no_store(respond::json(status, &body));
    res.extensions_mut().insert(Note { code: error.code, message: error.message.clone(), cause: None });
    res
}

fn no_store(mut res: Response) -> Response {
    res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    res.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    res
}
