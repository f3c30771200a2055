//! The token endpoint: which grant is asked for, and what it gives.

use http::StatusCode;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use portolan_service::{Error, Kind};
use portolan_types::{Secret, Timestamp};
use serde_json::json;

use super::{assertion, no_store, person};
use crate::App;
use crate::http::Response;
use crate::http::caller::{self, Credentials, base_url};
use crate::http::respond::{self, field};

/// Longest resource a token may be asked for.
const RESOURCE_BYTES_MAX: usize = 512;

/// Answer a token request whose form is read.
pub(super) async fn token(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    match field(form, "grant_type") {
        Some("client_credentials") => client_credentials(app, parts, form).await,
        Some("password") => person::password(app, parts, form).await,
        Some("refresh_token") => person::refresh(app, parts, form),
        Some("authorization_code") => person::code(app, parts, form).await,
        Some("urn:ietf:params:oauth:grant-type:device_code" | "device_code") => {
            person::device_code(app, parts, form).await
        }
        Some(other) => {
            let shown: String = other.chars().take(64).collect();
            let why = format!("AADSTS70003: The app requested an unsupported grant type '{}'.", shown.escape_debug());
            Err(Error::new(Kind::Invalid, "unsupported_grant_type", why))
        }
        None => Err(missing("grant_type")),
    }
}

/// `client_credentials`: a program signs in as itself.
async fn client_credentials(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    let issued = match assertion::of(form)? {
        Some(shown) => {
            let client_id = field(form, "client_id").ok_or_else(|| missing("client_id"))?;
            caller::claim(app, None, parts, client_id);
            assertion::token(app, parts, client_id, &shown, &resource(form)?).await?
        }
        None => {
            let (client_id, secret) = client(parts, form)?;
            caller::claim(app, None, parts, &client_id);
            let resource = resource(form)?;
            let base = base_url(app, parts);
            let attempt = app.rates.attempt(caller::peer(parts), Some(&client_id))?;
            let issued = app.service.client_token(&base, &client_id, secret.expose(), &resource, Timestamp::now());
            attempt.answered(issued)?
        }
    };
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

pub(super) fn missing(what: &str) -> Error {
    let why = format!("AADSTS900144: The request body must contain the following parameter: '{what}'.");
    Error::new(Kind::Invalid, "invalid_request", why)
}
