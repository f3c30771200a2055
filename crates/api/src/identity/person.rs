//! People: by name and password, or by a code that they type into a browser (RFC 8628).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portolan_types::{Secret, Timestamp};
use reqwest::Url;
use serde::Deserialize;

use super::{Answer, CLIENT_ID, ask, token_url};
use crate::error::{Error, Result};
use crate::token::Token;
use crate::transport;

/// The tenant to ask for when it is not known: the answer says which it is.
pub const ANY_TENANT: &str = "organizations";
/// How often a device code is asked about, when the server does not say.
const INTERVAL_SECS_DEFAULT: u64 = 5;
/// The longest wait between two questions.
const INTERVAL_SECS_MAX: u64 = 60;

/// Somebody who has signed in.
#[derive(Clone, Debug)]
pub struct Person {
    /// For all tokens to come.
    pub refresh: Secret<String>,
    /// The tenant.
    pub tenant: String,
    /// The name they sign in with.
    pub name: String,
}

/// What a person is told.
#[derive(Clone, Debug, Deserialize)]
pub struct DeviceCode {
    /// The sentence to show, with the address and the code in it.
    pub message: String,
    /// The code to type.
    pub user_code: String,
    /// Where to type it.
    pub verification_uri: String,
    device_code: Secret<String>,
    expires_in: u64,
    interval: Option<u64>,
}

fn scope(base: &Url) -> String {
    format!("{}/.default offline_access openid profile", crate::error::origin(base))
}

/// Sign a person in by name and password (RFC 6749, 4.3). Answers the person and a token for
/// the control plane.
pub async fn by_password(
    http: &reqwest::Client,
    base: &Url,
    tenant: &str,
    username: &str,
    password: &Secret<String>,
) -> Result<(Person, Token)> {
    let url = token_url(base, tenant)?;
    let scope = scope(base);
    let fields = [
        ("grant_type", "password"),
        ("client_id", CLIENT_ID),
        ("username", username),
        ("password", password.expose()),
        ("scope", &scope),
    ];
    signed_in(&url, ask(http, &url, &fields).await?)
}

/// Begin a sign-in in a browser, here or elsewhere.
pub async fn device_code(http: &reqwest::Client, base: &Url, tenant: &str) -> Result<DeviceCode> {
    let url = transport::join(base, &format!("/{}/oauth2/v2.0/devicecode", transport::segment(tenant)))?;
    let scope = scope(base);
    let fields = [("client_id", CLIENT_ID), ("scope", &scope)];
    transport::read_json(transport::send_retried(&url, || http.post(url.clone()).form(&fields)).await?).await
}

/// Wait until the person has typed the code, or it has run out.
pub async fn by_device_code(
    http: &reqwest::Client,
    base: &Url,
    tenant: &str,
    code: &DeviceCode,
) -> Result<(Person, Token)> {
    let url = token_url(base, tenant)?;
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", CLIENT_ID),
        ("device_code", code.device_code.expose()),
    ];
    let mut pause_secs = code.interval.unwrap_or(INTERVAL_SECS_DEFAULT).clamp(1, INTERVAL_SECS_MAX);
    let end = tokio::time::Instant::now() + Duration::from_secs(code.expires_in);
    loop {
        match ask(http, &url, &fields).await {
            Err(error) if error.code() == Some("authorization_pending") => {}
            // RFC 8628, 3.5: five seconds more each time.
            Err(error) if error.code() == Some("slow_down") => pause_secs = (pause_secs + 5).min(INTERVAL_SECS_MAX),
            answer => return signed_in(&url, answer?),
        }
        if tokio::time::Instant::now() >= end {
            return Err(Error::protocol(&url, "the code has run out before it was typed: sign in again"));
        }
        tokio::time::sleep(Duration::from_secs(pause_secs)).await;
    }
}

fn signed_in(url: &Url, answer: Answer) -> Result<(Person, Token)> {
    #[derive(Deserialize)]
    struct Claims {
        tid: String,
        preferred_username: Option<String>,
        oid: Option<String>,
    }
    let missing = |what: &str| Error::protocol(url, format!("the sign-in gave no {what}"));
    let refresh = answer.refresh_token.ok_or_else(|| missing("refresh token"))?;
    let id_token = answer.id_token.ok_or_else(|| missing("id token"))?;
    // Nothing is verified: it came from the server itself, over TLS, and is only shown.
    let claims = id_token.expose().split('.').nth(1).and_then(|p| URL_SAFE_NO_PAD.decode(p).ok());
    let claims: Claims = claims
        .and_then(|c| serde_json::from_slice(&c).ok())
        .ok_or_else(|| Error::protocol(url, "the id token does not parse"))?;
    let name = claims.preferred_username.or(claims.oid).unwrap_or_default();
    let person = Person { refresh, tenant: claims.tid, name };
    Ok((person, Token::new(answer.access_token, answer.expires_in, Timestamp::now())))
}
