//! An OpenID provider of somebody else, as this server's client: where it is, which keys it
//! signs with, and what it gives for an authorization code.
//!
//! The addresses come from whoever runs this server or administers its directory. Still what
//! is fetched is bounded: https only (but for this machine itself), documents of a few
//! kilobytes, some seconds, and no redirects: a provider says where it is, and a redirect
//! would say it for somebody else. The discovery document must name the issuer that was asked
//! for (OpenID Connect Discovery 1.0, section 4.3).
//!
//! What came is kept for a while ([`OpenId::provider`], [`OpenId::key_set`]); a caller who
//! meets a key that is not in the set asks for a fresh one, which is fetched once in
//! [`FRESH_SECS_MIN`] at most, so that made-up key ids cannot turn this server against the
//! provider.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portolan_types::Secret;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::transport::{self, TransportOptions};

/// How long a whole exchange with a provider may take.
const EXCHANGE_SECS_MAX: u64 = 10;
/// A discovery document, a key set, a token answer.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;
/// How long what a provider said is kept.
pub const KEPT_SECS: u64 = 3_600;
/// How soon after a fetch the same may be fetched again.
pub const FRESH_SECS_MIN: u64 = 30;
/// Providers that are kept.
const PROVIDERS_MAX: usize = 256;
/// Longest issuer.
const ISSUER_BYTES_MAX: usize = 600;

/// Where a provider's endpoints are: its discovery document.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Provider {
    /// The issuer, as its tokens say.
    pub issuer: String,
    /// Where people are sent to sign in; an issuer that only signs has none.
    #[serde(default)]
    pub authorization_endpoint: Option<String>,
    /// Where codes are redeemed.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Where more is said of somebody who signed in.
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    /// Where people are sent to sign out.
    #[serde(default)]
    pub end_session_endpoint: Option<String>,
    /// How a client may prove who it is at the token endpoint.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

/// An authorization code to redeem.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// The code.
    pub code: &'a Secret<String>,
    /// Where the person was sent back to, as it was in the authorization request.
    pub redirect_uri: &'a str,
    /// The verifier of its PKCE challenge (RFC 7636).
    pub verifier: &'a Secret<String>,
    /// Our id there.
    pub client_id: &'a str,
    /// Our secret there, if it gave us one.
    pub client_secret: Option<&'a Secret<String>>,
}

/// What a provider gives for a code.
#[derive(Debug, Deserialize)]
pub struct Redeemed {
    /// Who signed in. Nothing of it was checked yet.
    pub id_token: Secret<String>,
    /// Opens the provider's [`Provider::userinfo_endpoint`].
    #[serde(default)]
    pub access_token: Option<Secret<String>>,
}

/// A client of OpenID providers, with a memory. One per server.
pub struct OpenId {
    http: reqwest::Client,
    kept: Mutex<HashMap<String, Arc<Mutex<Kept>>>>,
}

#[derive(Default)]
struct Kept {
    provider: Option<(Instant, Arc<Provider>)>,
    keys: Option<(Instant, Bytes)>,
    /// The last fetch that failed, and how.
    failed: Option<(Instant, String)>,
}

impl OpenId {
    /// `ca_pem`: certificates (PEM) trusted beside the system's.
    pub fn new(ca_pem: Option<Vec<u8>>) -> Result<OpenId> {
        let http = transport::http_client_without_redirects(&TransportOptions { ca_pem, user_agent: None })?;
        Ok(OpenId { http, kept: Mutex::default() })
    }

    /// Where the provider's endpoints are.
    ///
    /// Errors: `Local` for an issuer that is none; everything that a fetch can meet.
    pub async fn provider(&self, issuer: &str) -> Result<Arc<Provider>> {
        let kept = self.kept(issuer).await?;
        let mut kept = kept.lock().await;
        self.provider_of(issuer, &mut kept).await
    }

    /// The provider's key set, as it came. `stale`: one that was given before and lacks a key;
    /// another is fetched if that has been a while.
    pub async fn key_set(&self, issuer: &str, stale: Option<&Bytes>) -> Result<Bytes> {
        let kept = self.kept(issuer).await?;
        let mut kept = kept.lock().await;
        if let Some((at, keys)) = &kept.keys {
            let wanted = stale.is_none_or(|stale| stale != keys);
            let wait = if wanted { KEPT_SECS } else { FRESH_SECS_MIN };
            if at.elapsed() < Duration::from_secs(wait) {
                return Ok(keys.clone());
            }
        }
        // The discovery document is as old as the keys: a provider may have moved them.
        if kept.keys.is_some() {
            kept.provider = None;
        }
        let provider = self.provider_of(issuer, &mut kept).await?;
        match self.get(&provider.jwks_uri).await {
            Ok(keys) => {
                kept.keys = Some((Instant::now(), keys.clone()));
                Ok(keys)
            }
            Err(error) => Err(remember(&mut kept, error)),
        }
    }

    /// Redeem an authorization code.
    ///
    /// Errors: `Refused` with the provider's word when the code is not good.
    pub async fn redeem(&self, provider: &Provider, code: Code<'_>) -> Result<Redeemed> {
        let endpoint = provider
            .token_endpoint
            .as_deref()
            .ok_or_else(|| Error::Local(format!("{} has no token endpoint", provider.issuer)))?;
        let url = address(endpoint)?;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code.code.expose()),
            ("redirect_uri", code.redirect_uri),
            ("code_verifier", code.verifier.expose()),
            ("client_id", code.client_id),
        ];
        let mut request = self.http.post(url.clone()).timeout(Duration::from_secs(EXCHANGE_SECS_MAX));
        if let Some(secret) = code.client_secret {
            // Basic unless the provider says that it takes only the form.
            let methods = &provider.token_endpoint_auth_methods_supported;
            let has = |method: &str| methods.iter().any(|m| m == method);
            if has("client_secret_post") && !has("client_secret_basic") {
                fields.push(("client_secret", secret.expose()));
            } else {
                let encoded = |text: &str| transport::segment(text);
                request = request.basic_auth(encoded(code.client_id), Some(encoded(secret.expose())));
            }
        }
        let response = transport::send(request.form(&fields), &url).await?;
        let body = transport::read_body(response, "the token answer", DOCUMENT_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|_| Error::protocol(&url, "the answer has no id_token"))
    }

    /// What the provider says of somebody beside their id token, which may leave out all but
    /// the subject. The caller compares the subjects (OpenID Connect Core 1.0, section 5.3.2).
    /// Nothing when the provider has no such place.
    pub async fn user_info(&self, provider: &Provider, token: &Secret<String>) -> Result<Option<Map<String, Value>>> {
        let Some(endpoint) = &provider.userinfo_endpoint else { return Ok(None) };
        let url = address(endpoint)?;
        let request = self.http.get(url.clone()).timeout(Duration::from_secs(EXCHANGE_SECS_MAX));
        let response = transport::send(request.bearer_auth(token.expose()), &url).await?;
        let body = transport::read_body(response, "what the provider says of somebody", DOCUMENT_BYTES_MAX).await?;
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|_| Error::protocol(&url, "what it says of somebody does not parse"))
    }

    async fn kept(&self, issuer: &str) -> Result<Arc<Mutex<Kept>>> {
        if issuer.len() > ISSUER_BYTES_MAX {
            return Err(Error::Local("the issuer is too long".into()));
        }
        address(issuer)?;
        let mut kept = self.kept.lock().await;
        if kept.len() >= PROVIDERS_MAX && !kept.contains_key(issuer) {
            kept.clear();
        }
        Ok(kept.entry(issuer.to_owned()).or_default().clone())
    }

    async fn provider_of(&self, issuer: &str, kept: &mut Kept) -> Result<Arc<Provider>> {
        if let Some((at, provider)) = &kept.provider
            && at.elapsed() < Duration::from_secs(KEPT_SECS)
        {
            return Ok(provider.clone());
        }
        if let Some((at, why)) = &kept.failed
            && at.elapsed() < Duration::from_secs(1)
        {
            return Err(Error::Local(why.clone()));
        }
        match self.discover(issuer).await {
            Ok(provider) => {
                let provider = Arc::new(provider);
                kept.provider = Some((Instant::now(), provider.clone()));
                kept.failed = None;
                Ok(provider)
            }
            Err(error) => Err(remember(kept, error)),
        }
    }

    async fn discover(&self, issuer: &str) -> Result<Provider> {
        let text = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let body = self.get(&text).await?;
        let url = address(&text)?;
        let provider: Provider = serde_json::from_slice(&body)
            .map_err(|_| Error::protocol(&url, "its discovery document does not parse"))?;
        if provider.issuer != issuer {
            return Err(Error::protocol(&url, "its discovery document is another issuer's"));
        }
        for endpoint in [
            Some(&provider.jwks_uri),
            provider.authorization_endpoint.as_ref(),
            provider.token_endpoint.as_ref(),
            provider.userinfo_endpoint.as_ref(),
        ]
        .into_iter()
        .flatten()
        {
            address(endpoint)?;
        }
        Ok(provider)
    }

    async fn get(&self, text: &str) -> Result<Bytes> {
        let url = address(text)?;
        let request = self.http.get(url.clone()).timeout(Duration::from_secs(EXCHANGE_SECS_MAX));
        let response = transport::send(request, &url).await?;
        if !response.status().is_success() {
            return Err(Error::protocol(
                &url,
                format!("it answered {} where a document belongs", response.status().as_u16()),
            ));
        }
        transport::read_body(response, "the provider's document", DOCUMENT_BYTES_MAX).await
    }
}

impl std::fmt::Debug for OpenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenId")
    }
}

/// Note a failure, so that many who wait for the same provider do not all ask it.
fn remember(kept: &mut Kept, error: Error) -> Error {
    kept.failed = Some((Instant::now(), error.to_string()));
    error
}

/// Whether an issuer can be one: https, or this machine itself; no query, no fragment.
pub fn is_issuer(text: &str) -> bool {
    text.len() <= ISSUER_BYTES_MAX && address(text).is_ok_and(|url| url.query().is_none())
}

/// An address that may be fetched.
fn address(text: &str) -> Result<Url> {
    let bad = |why: &str| Error::Local(format!("the address {text:?} is not used: {why}"));
    let url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
    let host = url.host_str().ok_or_else(|| bad("it has no host"))?;
    let here = host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
        || host == "[::1]";
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        _ => return Err(bad("it must begin with https://")),
    }
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it has a user name or a fragment"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_https_or_this_machine() {
        for good in [
            "https://token.actions.example.com",
            "https://a/b/",
            "http://localhost:1/x",
            "http://127.0.0.1:9",
            "http://[::1]:9",
        ] {
            assert!(is_issuer(good), "{good}");
        }
        for bad in [
            "http://a",
            "ftp://a",
            "a",
            "",
            "https://u@a",
            "https://a#b",
            "https://a?b=c",
            "file:///etc/passwd",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
        ] {
            assert!(!is_issuer(bad), "{bad}");
        }
    }
}
