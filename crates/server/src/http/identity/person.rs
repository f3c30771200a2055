//! The grants by which clients get tokens for a person.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::request::Parts;
use portolan_auth::access::Principal;
use portolan_service::sign_in::{Client, Scopes, SignedIn, device};
use portolan_service::{Error, Kind};
use portolan_types::{Secret, Timestamp};
use serde_json::json;

use super::no_store;
use super::token::missing;
use crate::App;
use crate::http::caller::{self, base_url};
use crate::http::respond::{self, field};
use crate::http::{Response, rate};

/// `password`: the client has the person's password itself.
pub(super) async fn password(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    let client = client(app, form)?;
    let (user, password) = (required(form, "username")?, required(form, "password")?);
    caller::claim(app, None, parts, user);
    let base = base_url(app, parts);
    let scopes = Scopes::parse(field(form, "scope"), field(form, "resource"), &base)?;
    let attempt = app.rates.attempt(caller::peer(parts), Some(user))?;
    let (password, now) = (Secret::new(password.to_owned()), Timestamp::now());
    match app.service.password_sign_in(&base, &client, user, &password, &scopes, now).await {
        Ok(Some(signed_in)) => {
            attempt.succeeded();
            Ok(answer(parts, &signed_in))
        }
        Ok(None) => Err(Error::new(
            Kind::Invalid,
            "invalid_grant",
            "AADSTS50126: Error validating credentials due to invalid username or password.",
        )),
        Err(e) => {
            attempt.give_back();
            Err(e)
        }
    }
}

/// `refresh_token`: the client has signed somebody in before.
pub(super) fn refresh(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    let client = client(app, form)?;
    let token = required(form, "refresh_token")?;
    let base = base_url(app, parts);
    let scopes = match (field(form, "scope"), field(form, "resource")) {
        (None, None) => None,
        (scope, resource) => Some(Scopes::parse(scope, resource, &base)?),
    };
    let attempt = app.rates.attempt(caller::peer(parts), None)?;
    let signed_in = app.service.refresh_sign_in(&base, &client, token, scopes, Timestamp::now());
    guessed(attempt, signed_in).map(|signed_in| answer(parts, &signed_in))
}

/// `authorization_code`: the person's browser brought the client a code.
pub(super) async fn code(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    let client = client(app, form)?;
    let (code, redirect) = (required(form, "code")?, required(form, "redirect_uri")?);
    let verifier = required(form, "code_verifier")?;
    let attempt = app.rates.attempt(caller::peer(parts), None)?;
    let base = base_url(app, parts);
    let signed_in = app.service.redeem_code(&base, &client, code, redirect, verifier, Timestamp::now()).await;
    guessed(attempt, signed_in).map(|signed_in| answer(parts, &signed_in))
}

/// `urn:ietf:params:oauth:grant-type:device_code`: the client waits for a person elsewhere.
pub(super) async fn device_code(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    let client = client(app, form)?;
    let code = field(form, "device_code").or(field(form, "code")).filter(|c| !c.is_empty());
    let code = code.ok_or_else(|| missing("device_code"))?;
    let attempt = app.rates.attempt(caller::peer(parts), None)?;
    let signed_in = app.service.redeem_device(&base_url(app, parts), &client, code, Timestamp::now()).await;
    guessed(attempt, signed_in).map(|signed_in| answer(parts, &signed_in))
}

/// The device authorization endpoint: begin to wait.
pub(super) async fn begin_device(app: &App, parts: &Parts, form: &[(String, String)]) -> Result<Response, Error> {
    let client = client(app, form)?;
    let base = base_url(app, parts);
    let address = caller::peer(parts).to_canonical().to_string();
    let scope = field(form, "scope").unwrap_or_default();
    let begun = app.service.begin_device(&client, scope, &address, Timestamp::now()).await?;
    let uri = format!("{base}/devicelogin");
    let body = json!({
        "user_code": begun.user_code,
        "device_code": begun.device_code.expose(),
        "verification_uri": uri,
        "verification_uri_complete": format!("{uri}?user_code={}", begun.user_code),
        "expires_in": device::LIFE.as_secs(),
        "interval": device::INTERVAL_SECS,
        "message": format!(
            "To sign in, use a web browser to open the page {uri} and enter the code {} to authenticate.",
            begun.user_code
        ),
    });
    Ok(no_store(respond::json(StatusCode::OK, &body)))
}

/// Whether a user's name belongs to this directory: MSAL asks before it sends a password.
/// The same for every name, so that nobody learns who exists.
pub(super) fn user_realm(app: &App, parts: &Parts) -> Response {
    let host = crate::http::host::without_port(&base_url(app, parts)["https://".len()..]).to_owned();
    respond::json(
        StatusCode::OK,
        &json!({
            "ver": "1.0",
            "account_type": "Managed",
            "domain_name": host,
            "cloud_instance_name": host,
            "cloud_audience_urn": "urn:federation:MicrosoftOnline",
        }),
    )
}

fn client(app: &App, form: &[(String, String)]) -> Result<Client, Error> {
    app.service.sign_in_client(required(form, "client_id")?)
}

fn required<'a>(form: &'a [(String, String)], name: &str) -> Result<&'a str, Error> {
    field(form, name).filter(|value| !value.is_empty()).ok_or_else(|| missing(name))
}

/// Count a token or code that is none of ours as a guess; what is only too old, revoked or
/// not ready is not one.
fn guessed<T>(attempt: rate::Attempt<'_>, result: Result<T, Error>) -> Result<T, Error> {
    match &result {
        Ok(_) => attempt.succeeded(),
        Err(e) if e.code == "bad_verification_code" || e.message.starts_with("AADSTS9002313") => {}
        Err(_) => attempt.give_back(),
    }
    result
}

fn answer(parts: &Parts, signed_in: &SignedIn) -> Response {
    let SignedIn { access, object_id, tenant, .. } = signed_in;
    caller::name(parts, &Principal::Directory { object_id: *object_id, app_id: None });
    let info = json!({"uid": object_id, "utid": tenant}).to_string();
    let mut body = json!({
        "token_type": "Bearer",
        "expires_in": access.expires_in_secs,
        "ext_expires_in": access.expires_in_secs,
        "access_token": access.token.expose(),
        "id_token": signed_in.id_token.expose(),
        "client_info": URL_SAFE_NO_PAD.encode(info),
    });
    if !signed_in.scope.is_empty() {
        body["scope"] = json!(signed_in.scope);
    }
    if let Some(refresh) = &signed_in.refresh {
        body["refresh_token"] = json!(refresh.expose());
    }
    no_store(respond::json(StatusCode::OK, &body))
}
