//! Signing in: OAuth 2.0 client credentials against the server's own directory.

use portolan_types::{Secret, Timestamp};
use reqwest::Url;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::token::Token;
use crate::transport;

/// The audience of tokens for the registry's data plane, in every cloud.
pub const ACR_RESOURCE: &str = "https://containerregistry.azure.net";

/// A service principal, and where it signs in.
#[derive(Clone, Debug)]
pub struct SignIn {
    http: reqwest::Client,
    base: Url,
    tenant: String,
    client_id: String,
    client_secret: Secret<String>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret<String>,
    expires_in: Option<i64>,
}

impl SignIn {
    /// `base`: the server's address. Nothing is sent yet.
    pub fn new(
        http: reqwest::Client,
        base: Url,
        tenant: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: Secret<String>,
    ) -> SignIn {
        SignIn { http, base, tenant: tenant.into(), client_id: client_id.into(), client_secret }
    }

    /// The tenant it signs in to.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The server's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// A token for `resource` (scope `<resource>/.default`).
    pub async fn token(&self, resource: &str) -> Result<Token> {
        let tenant = transport::segment(&self.tenant);
        let url = transport::join(&self.base, &format!("/{tenant}/oauth2/v2.0/token"))?;
        let scope = format!("{}/.default", resource.trim_end_matches('/'));
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose()),
            ("scope", &scope),
        ];
        let response = transport::send_retried(&url, || self.http.post(url.clone()).form(&fields)).await?;
        let answer: Answer = transport::read_json(response).await?;
        if answer.access_token.expose().is_empty() {
            return Err(Error::protocol(&url, "the sign-in gave no token"));
        }
        Ok(Token::new(answer.access_token, answer.expires_in, Timestamp::now()))
    }

    /// A token for the control plane, whose audience is the server itself.
    pub async fn arm_token(&self) -> Result<Token> {
        let origin = crate::error::origin(&self.base);
        self.token(&origin).await
    }
}
