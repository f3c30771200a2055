//! Where a managed identity gets its tokens, in the three forms that clients know.
//!
//! - App Service: `GET /msi/token` with `X-IDENTITY-HEADER` (`IDENTITY_ENDPOINT`,
//!   `IDENTITY_HEADER`).
//! - MSI: the same address with the header `secret` (`MSI_ENDPOINT`, `MSI_SECRET`).
//! - A virtual machine: `GET /metadata/identity/oauth2/token` with `Metadata: true`
//!   (`AZURE_POD_IDENTITY_AUTHORITY_HOST`).
//!
//! The first two are opened by the identity's secret. The last has none: it is for the
//! addresses that the operator has given identities (setting `managed_identity_addresses`),
//! and off without. There the address is the one that the connection has, whatever headers
//! say; a request that came through a proxy is refused, as Azure does, since somebody may have
//! talked it into asking.

use http::header::HeaderName;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_auth::authority::Issued;
use portolan_service::directory::{MayAsk, Wanted};
use portolan_service::{Error, Kind};
use portolan_types::{Secret, Timestamp};
use serde_json::json;
use uuid::Uuid;

use super::no_store;
use crate::App;
use crate::http::caller::{self, base_url};
use crate::http::respond::{self, field};
use crate::http::{Conn, Response};

/// Longest resource a token may be asked for, and longest id of an identity.
const FIELD_BYTES_MAX: usize = 1_024;
/// Headers by which proxies tell that they are there.
const FORWARDED: [&str; 4] = ["x-forwarded-for", "forwarded", "via", "x-forwarded-host"];

/// `GET /msi/token`
pub(super) fn endpoint(app: &App, parts: &Parts) -> Result<Response, Error> {
    get_only(&parts.method)?;
    let given = header(parts, "x-identity-header").or_else(|| header(parts, "secret"));
    let secret = Secret::new(given.unwrap_or_default().to_owned());
    let (resource, wanted) = query(parts)?;
    let who = secret.expose().split('.').next().and_then(|id| Uuid::try_parse(id).ok()).map(|id| id.to_string());
    if let Some(who) = &who {
        caller::claim(app, None, parts, who);
    }
    let attempt = app.rates.attempt(caller::peer(parts), who.as_deref())?;
    let base = base_url(app, parts);
    let may = MayAsk::Secret(&secret);
    let found = attempt.answered(app.service.identity_token(&base, may, &wanted, &resource, Timestamp::now()))?;
    Ok(answer(&found, &resource))
}

/// `GET /metadata/identity/oauth2/token`
pub(super) fn machine(app: &App, parts: &Parts) -> Result<Response, Error> {
    get_only(&parts.method)?;
    if !header(parts, "metadata").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Err(Error::new(
            Kind::Invalid,
            "invalid_request",
            "Required metadata header not specified or not correct",
        ));
    }
    if FORWARDED.iter().any(|name| parts.headers.contains_key(*name)) {
        return Err(Error::new(
            Kind::Invalid,
            "invalid_request",
            "A request for a machine's token must not come through a proxy",
        ));
    }
    let Some(address) = parts.extensions.get::<Conn>().map(|conn| conn.peer.ip().to_canonical()) else {
        return Err(nobody());
    };
    let own = app.settings.managed_identity_addresses.of(address);
    if own.is_empty() {
        return Err(nobody());
    }
    let (resource, wanted) = query(parts)?;
    app.rates.token(address)?;
    let base = base_url(app, parts);
    let may = MayAsk::Address(address, &own);
    let found = app.service.identity_token(&base, may, &wanted, &resource, Timestamp::now())?;
    Ok(answer(&found, &resource))
}

fn nobody() -> Error {
    Error::new(Kind::Invalid, "invalid_request", "Identity not found")
}

fn get_only(method: &Method) -> Result<(), Error> {
    match *method {
        Method::GET => Ok(()),
        _ => Err(Error::new(Kind::Unsupported, "invalid_request", "Only GET is allowed here")),
    }
}

/// What the token is to be for, and of which identity.
fn query(parts: &Parts) -> Result<(String, Wanted), Error> {
    let query = respond::query(&parts.uri);
    let any = |names: &[&str]| {
        names.iter().find_map(|name| field(&query, name)).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let wanted = Wanted {
        client_id: any(&["client_id", "clientid"]),
        object_id: any(&["principal_id", "object_id"]),
        resource_id: any(&["mi_res_id", "msi_res_id"]),
    };
    let resource = any(&["resource"]).ok_or_else(|| super::token::missing("resource"))?;
    let long = [Some(&resource), wanted.client_id.as_ref(), wanted.object_id.as_ref(), wanted.resource_id.as_ref()]
        .into_iter()
        .flatten()
        .any(|text| text.len() > FIELD_BYTES_MAX || text.chars().any(char::is_control));
    match long {
        true => {
            Err(Error::new(Kind::Invalid, "invalid_resource", "AADSTS500011: The resource principal was not found."))
        }
        false => Ok((resource, wanted)),
    }
}

fn header<'a>(parts: &'a Parts, name: &'static str) -> Option<&'a str> {
    let mut values = parts.headers.get_all(HeaderName::from_static(name)).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Both forms of time that clients read, as texts.
fn answer((issued, client_id): &(Issued, Uuid), resource: &str) -> Response {
    let ends = issued.issued.unix_secs().saturating_add(i64::try_from(issued.expires_in_secs).unwrap_or(i64::MAX));
    let body = json!({
        "access_token": issued.token.expose(),
        "client_id": client_id,
        "expires_in": issued.expires_in_secs.to_string(),
        "expires_on": ends.to_string(),
        "ext_expires_in": issued.expires_in_secs.to_string(),
        "not_before": issued.issued.unix_secs().to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    no_store(respond::json(StatusCode::OK, &body))
}
