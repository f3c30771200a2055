//! Managed identities: whoever runs in a place asks an endpoint beside it for tokens. Three
//! forms are in use: App Service's, the older MSI's, and that of a machine's metadata service.

use portolan_types::{Secret, Timestamp};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::token::Token;
use crate::transport;

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub enum ManagedEndpoint {
    /// `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`.
    AppService {
        /// The address.
        url: String,
        /// What proves that we are in the place.
        header: Secret<String>,
    },
    /// `MSI_ENDPOINT` and `MSI_SECRET`.
    Msi {
        /// The address.
        url: String,
        /// What proves that we are in the place.
        secret: Secret<String>,
    },
    /// A machine's metadata service (IMDS), where our address is the proof.
    Imds {
        /// Scheme and host, such as `http://169.254.169.254`.
        host: String,
    },
}

/// Which identity, where there are several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The only one.
    #[default]
    Only,
    /// By its application id.
    ClientId(String),
    /// By its object id.
    ObjectId(String),
    /// By its ARM id.
    ResourceId(String),
}

/// A managed identity, and where it is asked for.
#[derive(Clone, Debug)]
pub struct ManagedIdentity {
    /// Whom to ask.
    pub endpoint: ManagedEndpoint,
    /// Which one.
    pub which: Which,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret<String>,
    /// A number, in text or not.
    expires_on: Option<Value>,
}

impl ManagedIdentity {
    pub(super) async fn token(&self, http: &reqwest::Client, resource: &str) -> Result<Token> {
        let bad = |url: &str| Error::Local(format!("the managed identity's endpoint is not an address: {url}"));
        let (text, version) = match &self.endpoint {
            ManagedEndpoint::AppService { url, .. } => (url.clone(), "2019-08-01"),
            ManagedEndpoint::Msi { url, .. } => (url.clone(), "2017-09-01"),
            ManagedEndpoint::Imds { host } => {
                (format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/')), "2018-02-01")
            }
        };
        let mut url = Url::parse(&text).map_err(|_| bad(&text))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(&text));
        }
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("api-version", version).append_pair("resource", resource);
            match (&self.which, &self.endpoint) {
                (Which::Only, _) => {}
                (Which::ClientId(id), ManagedEndpoint::Msi { .. }) => drop(query.append_pair("clientid", id)),
                (Which::ClientId(id), _) => drop(query.append_pair("client_id", id)),
                (Which::ObjectId(id), _) => drop(query.append_pair("object_id", id)),
                (Which::ResourceId(id), ManagedEndpoint::Imds { .. }) => drop(query.append_pair("msi_res_id", id)),
                (Which::ResourceId(id), _) => drop(query.append_pair("mi_res_id", id)),
            }
        }
        let request = || {
            let request = http.get(url.clone()).header("metadata", "true");
            match &self.endpoint {
                ManagedEndpoint::AppService { header, .. } => request.header("x-identity-header", header.expose()),
                ManagedEndpoint::Msi { secret, .. } => request.header("secret", secret.expose()),
                ManagedEndpoint::Imds { .. } => request,
            }
        };
        let answer: Answer = transport::read_json(transport::send_retried(&url, request).await?).await?;
        if answer.access_token.expose().is_empty() {
            return Err(Error::protocol(&url, "the endpoint gave no token"));
        }
        let now = Timestamp::now();
        let until = answer.expires_on.as_ref().and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok()));
        Ok(Token::new(answer.access_token, until.map(|until| until - now.unix_secs()), now))
    }
}
