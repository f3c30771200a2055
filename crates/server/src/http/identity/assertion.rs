//! Clients without a secret: `client_assertion` at the token endpoint (RFC 7523).

use http::request::Parts;
use portolan_auth::authority::Issued;
use portolan_service::assertions::Assertion;
use portolan_service::{Error, Kind};
use portolan_types::{Secret, Timestamp};

use super::token::missing;
use crate::App;
use crate::http::caller::{self, base_url};
use crate::http::respond::field;

/// The one kind of assertion that is taken.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The assertion of a form, if it has one.
///
/// Errors: `invalid_request` for a kind that is not taken.
pub(super) fn of(form: &[(String, String)]) -> Result<Option<Secret<String>>, Error> {
    let Some(assertion) = field(form, "client_assertion") else { return Ok(None) };
    match field(form, "client_assertion_type") {
        Some(JWT_BEARER) => Ok(Some(Secret::new(assertion.to_owned()))),
        Some(_) => Err(Error::new(
            Kind::Invalid,
            "invalid_request",
            format!("AADSTS50027: The client_assertion_type must be '{JWT_BEARER}'."),
        )),
        None => Err(missing("client_assertion_type")),
    }
}

/// A directory token for the assertion of `client_id`.
pub(super) async fn token(
    app: &App,
    parts: &Parts,
    client_id: &str,
    assertion: &Secret<String>,
    resource: &str,
) -> Result<Issued, Error> {
    let attempt = app.rates.attempt(caller::peer(parts), Some(client_id))?;
    attempt.answered(asked(app, parts, client_id, assertion, resource).await)
}

async fn asked(
    app: &App,
    parts: &Parts,
    client_id: &str,
    assertion: &Secret<String>,
    resource: &str,
) -> Result<Issued, Error> {
    let base = base_url(app, parts);
    match app.service.assertion(client_id, assertion)? {
        Assertion::Certificate => {
            app.service.certificate_token(&base, client_id, assertion, resource, Timestamp::now())
        }
        Assertion::Issuer { issuer, kid } => {
            let keys = app.issuers.keys(&issuer, kid.as_deref()).await?;
            let from = (issuer.as_str(), &*keys);
            app.service.federated_token(&base, client_id, assertion, from, resource, Timestamp::now())
        }
    }
}
