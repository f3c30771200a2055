//! Signing in to the server's own directory: OAuth 2.0 as its clients speak it.
//!
//! A [`SignIn`] is who somebody is and how it is proven: a service principal by a secret, a
//! certificate or another issuer's token (RFC 6749, 4.4 and RFC 7523), a person by a refresh
//! token, a managed identity by being where it is. It gives tokens for any resource. A person's
//! first refresh token comes from [`person`].

mod assertion;
pub mod managed;
pub mod person;

use std::sync::{Arc, Mutex, PoisonError};

use portolan_types::{Secret, Timestamp};
use reqwest::Url;
use serde::Deserialize;

pub use self::managed::{ManagedEndpoint, ManagedIdentity, Which};
pub use self::person::{DeviceCode, Person};
use crate::error::{Error, Result};
use crate::token::Token;
use crate::transport;

/// The audience of tokens for the registry's data plane, in every cloud.
pub const ACR_RESOURCE: &str = "https://containerregistry.azure.net";

/// The public client that people sign in with: the Azure CLI's, which every directory that
/// serves it knows.
pub const CLIENT_ID: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

/// How somebody proves who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A service principal's secret.
    Secret {
        /// Its application id.
        client_id: String,
        /// The secret.
        secret: Secret<String>,
    },
    /// A service principal's certificate with its private RSA key, in PEM.
    Certificate {
        /// Its application id.
        client_id: String,
        /// Key and certificate.
        pem: Secret<String>,
    },
    /// A token of another issuer that a federated credential of the service principal names.
    Assertion {
        /// Its application id.
        client_id: String,
        /// The token.
        token: Secret<String>,
    },
    /// A person, signed in before.
    Refresh(Secret<String>),
    /// What runs here.
    Managed(ManagedIdentity),
}

/// Who signs in, and where.
#[derive(Clone, Debug)]
pub struct SignIn {
    http: reqwest::Client,
    base: Url,
    tenant: String,
    credential: Credential,
    /// The person's refresh token now: each one is answered with the next.
    refresh: Arc<Mutex<Option<Secret<String>>>>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret<String>,
    expires_in: Option<i64>,
    refresh_token: Option<Secret<String>>,
    id_token: Option<Secret<String>>,
}

impl SignIn {
    /// A service principal with a secret. `base`: the server's address. Nothing is sent yet.
    pub fn new(
        http: reqwest::Client,
        base: Url,
        tenant: impl Into<String>,
        client_id: impl Into<String>,
        secret: Secret<String>,
    ) -> SignIn {
        SignIn::with(http, base, tenant, Credential::Secret { client_id: client_id.into(), secret })
    }

    /// Anybody.
    pub fn with(http: reqwest::Client, base: Url, tenant: impl Into<String>, credential: Credential) -> SignIn {
        let refresh = match &credential {
            Credential::Refresh(token) => Some(token.clone()),
            _ => None,
        };
        SignIn { http, base, tenant: tenant.into(), credential, refresh: Arc::new(Mutex::new(refresh)) }
    }

    /// The tenant it signs in to.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The server's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// A person's refresh token as it is now, to be kept for the next time.
    pub fn refresh_token(&self) -> Option<Secret<String>> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A token for `resource` (scope `<resource>/.default`).
    pub async fn token(&self, resource: &str) -> Result<Token> {
        let resource = resource.trim_end_matches('/');
        let scope = format!("{resource}/.default");
        let url = token_url(&self.base, &self.tenant)?;
        let assertion;
        let mut fields: Vec<(&str, &str)> = match &self.credential {
            Credential::Managed(managed) => return managed.token(&self.http, resource).await,
            Credential::Secret { client_id, secret } => {
                vec![("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", secret.expose())]
            }
            Credential::Certificate { client_id, pem } => {
                assertion = assertion::signed(client_id, url.as_str(), pem, Timestamp::now())?;
                with_assertion(client_id, &assertion)
            }
            Credential::Assertion { client_id, token } => with_assertion(client_id, token),
            Credential::Refresh(_) => return self.refreshed(&url, &scope).await,
        };
        fields.push(("scope", &scope));
        let answer = ask(&self.http, &url, &fields).await?;
        Ok(Token::new(answer.access_token, answer.expires_in, Timestamp::now()))
    }

    async fn refreshed(&self, url: &Url, scope: &str) -> Result<Token> {
        let kept = self.refresh_token();
        let refresh = kept.ok_or_else(|| Error::Local("there is no refresh token: sign in".into()))?;
        let scope = format!("{scope} offline_access openid profile");
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT_ID),
            ("refresh_token", refresh.expose()),
            ("scope", &scope),
        ];
        let answer = ask(&self.http, url, &fields).await?;
        if let Some(next) = answer.refresh_token.filter(|t| !t.expose().is_empty()) {
            *self.refresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        }
        Ok(Token::new(answer.access_token, answer.expires_in, Timestamp::now()))
    }

    /// A token for the control plane, whose audience is the server itself.
    pub async fn arm_token(&self) -> Result<Token> {
        let origin = crate::error::origin(&self.base);
        self.token(&origin).await
    }
}

fn with_assertion<'a>(client_id: &'a str, assertion: &'a Secret<String>) -> Vec<(&'static str, &'a str)> {
    vec![
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.expose()),
    ]
}

fn token_url(base: &Url, tenant: &str) -> Result<Url> {
    transport::join(base, &format!("/{}/oauth2/v2.0/token", transport::segment(tenant)))
}

async fn ask(http: &reqwest::Client, url: &Url, fields: &[(&str, &str)]) -> Result<Answer> {
    let response = transport::send_retried(url, || http.post(url.clone()).form(fields)).await?;
    let answer: Answer = transport::read_json(response).await?;
    if answer.access_token.expose().is_empty() {
        return Err(Error::protocol(url, "the sign-in gave no token"));
    }
    Ok(answer)
}
