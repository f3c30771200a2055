//! Signing in at the organisation's own OpenID provider: there and back.
//!
//! The person leaves with a `state` that is sealed and bound to the browser's cookie: it holds
//! the errand, the nonce that the id token must repeat, and the verifier of the code. Only the
//! browser that left can come back with it. What the provider says is believed when its
//! signature, issuer, audience, times and nonce are right; who that is here, the rules say
//! (`portolan_service::sign_in::provider`).

use http::request::Parts;
use portolan_api::openid::{Code, OpenId};
use portolan_auth::foreign::{self, Claims, Keys};
use portolan_auth::ticket::{self, Purpose};
use portolan_service::sign_in::Proof;
use portolan_service::sign_in::provider::ProviderConfig;
use portolan_service::{Error, Kind};
use portolan_types::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use serde_urlencoded as urlencoded;

use super::login;
use super::page::{self, Errand};
use crate::App;
use crate::http::Response;
use crate::http::caller::{self, base_url};
use crate::http::respond::{self, field};

/// How long somebody may take to sign in there.
const AWAY_SECS: i64 = 15 * 60;
const CALLBACK: &str = "/common/oauth2/v2.0/callback";

/// This server as a client of the organisation's provider.
#[derive(Debug)]
pub struct OwnProvider {
    /// Asks it.
    pub openid: OpenId,
    /// Our id there.
    pub client_id: String,
    /// Our secret there.
    pub client_secret: Option<Secret<String>>,
    /// What we ask for: `openid profile email`.
    pub scopes: String,
}

/// Where somebody is who left for the provider; sealed.
#[derive(Serialize, Deserialize)]
struct Away {
    errand: Errand,
    cookie: String,
    nonce: String,
    verifier: String,
    base: String,
    until: i64,
}

fn configured(app: &App) -> Result<(&OwnProvider, &ProviderConfig), Error> {
    match (&app.provider, &app.service.config.sign_in.provider) {
        (Some(own), Some(config)) => Ok((own, config)),
        _ => Err(Error::new(Kind::NotFound, "NotFound", "This server has no other provider to sign in with.")),
    }
}

fn unreachable(config: &ProviderConfig, cause: portolan_api::Error) -> Error {
    Error::new(Kind::Unavailable, "temporarily_unavailable", format!("{} cannot be asked at the moment.", config.name))
        .with_source(cause)
}

/// `GET …/provider`: send the person there.
pub(super) async fn depart(app: &App, parts: &Parts) -> Response {
    match leave(app, parts).await {
        Ok(to) => login::see_other(&to),
        Err(e) => page::problem(&e, parts),
    }
}

async fn leave(app: &App, parts: &Parts) -> Result<String, Error> {
    let (own, config) = configured(app)?;
    app.rates.token(caller::peer(parts))?;
    let query = respond::query(&parts.uri);
    let errand = page::errand(app, parts, field(&query, "slip").unwrap_or_default())?;
    let cookie = page::cookie(parts).unwrap_or_default();
    let provider = own.openid.provider(&config.issuer).await.map_err(|e| unreachable(config, e))?;
    let endpoint = provider.authorization_endpoint.as_deref().ok_or_else(|| {
        Error::new(Kind::Unavailable, "temporarily_unavailable", format!("{} signs nobody in.", config.name))
    })?;
    let base = base_url(app, parts);
    let away = Away {
        errand,
        cookie,
        nonce: page::random_text(),
        verifier: format!("{}{}", page::random_text(), page::random_text()),
        base: base.clone(),
        until: Timestamp::now().unix_secs() + AWAY_SECS,
    };
    let state = ticket::seal(app.service.authority.master(), Purpose::Delegated, &away).map_err(|e| {
        Error::new(Kind::Internal, "InternalServerError", "the way there could not be made").with_source(e)
    })?;
    let fields = [
        ("response_type", "code"),
        ("response_mode", "query"),
        ("client_id", &own.client_id),
        ("redirect_uri", &format!("{base}{CALLBACK}")),
        ("scope", &own.scopes),
        ("state", state.expose()),
        ("nonce", &away.nonce),
        ("code_challenge", &ticket::challenge(&away.verifier)),
        ("code_challenge_method", "S256"),
    ];
    let joint = if endpoint.contains('?') { '&' } else { '?' };
    Ok(format!("{endpoint}{joint}{}", urlencoded::to_string(fields).unwrap_or_default()))
}

/// `GET …/callback`: the person is back.
pub(super) async fn arrive(app: &App, parts: &Parts) -> Response {
    match back(app, parts).await {
        Ok((errand, proof)) => login::complete(app, parts, &errand, proof).await,
        Err(e) => {
            if let Some(cause) = std::error::Error::source(&e) {
                tracing::warn!(%cause, "sign-in at the organisation's provider failed");
            }
            page::problem(&e, parts)
        }
    }
}

async fn back(app: &App, parts: &Parts) -> Result<(Errand, Proof), Error> {
    let (own, config) = configured(app)?;
    app.rates.token(caller::peer(parts))?;
    let query = respond::query(&parts.uri);
    let away: Option<Away> =
        ticket::open(app.service.authority.master(), Purpose::Delegated, field(&query, "state").unwrap_or_default());
    let now = Timestamp::now();
    let away = away
        .filter(|away| now.unix_secs() < away.until && page::cookie(parts).as_deref() == Some(away.cookie.as_str()))
        .ok_or_else(|| {
            Error::new(
                Kind::Forbidden,
                "foreign_page",
                "This sign-in was not begun in this browser, or took too long. Begin again.",
            )
        })?;
    let refused =
        |why: &str| Error::new(Kind::Forbidden, "access_denied", format!("{} did not sign you in: {why}", config.name));
    // RFC 9207: an answer of another provider is not this one's.
    if field(&query, "iss").is_some_and(|iss| iss != config.issuer) {
        return Err(refused("the answer is another provider's."));
    }
    let Some(code) = field(&query, "code").filter(|c| !c.is_empty()) else {
        let why = field(&query, "error_description").or(field(&query, "error")).unwrap_or("it did not say why.");
        return Err(refused(&why.chars().take(200).collect::<String>()));
    };
    let provider = own.openid.provider(&config.issuer).await.map_err(|e| unreachable(config, e))?;
    let code = Code {
        code: &Secret::new(code.to_owned()),
        redirect_uri: &format!("{}{CALLBACK}", away.base),
        verifier: &Secret::new(away.verifier.clone()),
        client_id: &own.client_id,
        client_secret: own.client_secret.as_ref(),
    };
    let redeemed = own
        .openid
        .redeem(&provider, code)
        .await
        .map_err(|e| refused("it does not know this sign-in.").with_source(e))?;
    let claims = verified(own, config, redeemed.id_token.expose(), now).await?;
    // A token for several audiences says which of them asked (OpenID Connect Core, 3.1.3.7).
    let party = claims.text("azp").unwrap_or(&own.client_id);
    if claims.text("nonce") != Some(away.nonce.as_str()) || party != own.client_id {
        return Err(refused("its answer is for another sign-in."));
    }
    let mut all = claims.all;
    if let (false, Some(token)) = (config.suffices(&all), &redeemed.access_token) {
        // Many providers put into an id token only what they must.
        let more = own.openid.user_info(&provider, token).await.map_err(|e| unreachable(config, e))?;
        // Of somebody else it says nothing of this one.
        for (name, value) in more.filter(|more| more.get("sub") == all.get("sub")).unwrap_or_default() {
            all.entry(name).or_insert(value);
        }
    }
    let who = config.admit(&all)?;
    caller::claim(app, None, parts, &who.user_name);
    let proof = app.service.provider_sign_in(config, &who, now).await?;
    Ok((away.errand, proof))
}

/// The claims of an id token that is the provider's own and for us.
async fn verified(own: &OwnProvider, config: &ProviderConfig, token: &str, now: Timestamp) -> Result<Claims, Error> {
    let bad = |why: String| {
        Error::new(
            Kind::Forbidden,
            "access_denied",
            format!("What {} says of you cannot be believed: {why}.", config.name),
        )
    };
    let parse = |set: &[u8]| Keys::parse(set).map_err(|e| bad(e.to_string()));
    let mut set = own.openid.key_set(&config.issuer, None).await.map_err(|e| unreachable(config, e))?;
    let mut keys = parse(&set)?;
    let (_, kid) = foreign::unverified_issuer(token).map_err(|e| bad(e.to_string()))?;
    if !keys.may_know(kid.as_deref()) {
        set = own.openid.key_set(&config.issuer, Some(&set)).await.map_err(|e| unreachable(config, e))?;
        keys = parse(&set)?;
    }
    keys.verify(token, &config.issuer, |audience| audience == own.client_id, now).map_err(|e| bad(e.to_string()))
}
