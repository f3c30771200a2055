//! Tokens for a registry: met challenges, kept by scope until they run out.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use portolan_types::Secret;
use reqwest::Url;
use serde::Deserialize;

use super::challenge::Challenge;
use super::{Credentials, Shared};
use crate::error::{Error, Result};
use crate::transport;

/// Tokens kept for one registry; when full, all are dropped and fetched again.
const TOKENS_MAX: usize = 256;
/// A token's life when the answer does not say (Docker token specification).
const LIFE_SECS_DEFAULT: u64 = 60;
/// How long before its end a token is not used any more.
const MARGIN_SECS: u64 = 10;

/// How the next request is to be authorized.
#[derive(Clone, Debug)]
pub(super) enum Authorization {
    Bearer(Secret<String>),
    Basic { username: String, password: Secret<String> },
}

impl Authorization {
    pub(super) fn apply(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Authorization::Bearer(token) => request.bearer_auth(token.expose()),
            Authorization::Basic { username, password } => request.basic_auth(username, Some(password.expose())),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<String, (Authorization, Instant)>>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<Secret<String>>,
    access_token: Option<Secret<String>>,
    expires_in: Option<u64>,
}

impl Tokens {
    /// What to send first, if a token for `scope` is at hand.
    pub(super) fn kept(&self, scope: &str) -> Option<Authorization> {
        let kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.get(scope).filter(|(_, until)| Instant::now() < *until).map(|(a, _)| a.clone())
    }

    fn keep(&self, scope: &str, authorization: &Authorization, life: Duration) {
        let mut kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.len() >= TOKENS_MAX {
            kept.clear();
        }
        kept.insert(scope.to_owned(), (authorization.clone(), Instant::now() + life));
    }

    pub(super) fn forget(&self, scope: &str) {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(scope);
    }

    /// Meet a challenge. `None` when there is nothing to meet it with.
    pub(super) async fn meet(
        &self,
        shared: &Shared,
        challenge: Challenge,
        scope: &str,
    ) -> Result<Option<Authorization>> {
        let Shared { http, base, credentials, egress, .. } = shared;
        let (realm, service, asked) = match (challenge, credentials) {
            (Challenge::Basic, Credentials::Basic { username, password }) => {
                let basic = Authorization::Basic { username: username.clone(), password: password.clone() };
                self.keep(scope, &basic, Duration::from_secs(3600));
                return Ok(Some(basic));
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
        };
        let realm = realm_url(base, &realm, !matches!(credentials, Credentials::Anonymous))?;
        egress.check(&realm)?;
        // The scope we mean to use wins over the one in the challenge: a challenge to a
        // `HEAD` asks for pull only, when a push is to follow.
        let wanted = if scope.is_empty() { asked.unwrap_or_default() } else { scope.to_owned() };
        let mut fields: Vec<(&str, &str)> = Vec::new();
        fields.extend(service.as_deref().map(|s| ("service", s)));
        fields.extend(wanted.split(' ').filter(|s| !s.is_empty()).map(|s| ("scope", s)));
        let request = match credentials {
            Credentials::Anonymous => http.get(realm.clone()).query(&fields),
            Credentials::Basic { username, password } => {
                fields.push(("account", username));
                http.get(realm.clone()).query(&fields).basic_auth(username, Some(password.expose()))
            }
            Credentials::Refresh(token) => {
                fields.extend([("grant_type", "refresh_token"), ("client_id", "portolan")]);
                fields.push(("refresh_token", token.expose()));
                http.post(realm.clone()).form(&fields)
            }
        };
        let answer = transport::send(request, &realm).await?;
        let answer: Answer = transport::read_json(answer).await?;
        let token = answer.access_token.or(answer.token).filter(|t| !t.expose().is_empty());
        let token = token.ok_or_else(|| Error::protocol(&realm, "the token service gave no token"))?;
        let bearer = Authorization::Bearer(token);
        let life = answer.expires_in.unwrap_or(LIFE_SECS_DEFAULT).clamp(1, 24 * 3600).saturating_sub(MARGIN_SECS);
        self.keep(scope, &bearer, Duration::from_secs(life));
        Ok(Some(bearer))
    }
}

/// Where to fetch the token. A secret never goes from an https registry to an http realm.
fn realm_url(base: &Url, realm: &str, secret: bool) -> Result<Url> {
    let url = base.join(realm).map_err(|_| Error::protocol(base, "the challenge's realm is not an address"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::protocol(base, "the challenge's realm is neither http nor https"));
    }
    if secret && base.scheme() == "https" && url.scheme() != "https" {
        return Err(Error::protocol(base, "the challenge would have credentials sent without TLS"));
    }
    Ok(url)
}
