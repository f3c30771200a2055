//! Sign-in of people: how they prove who they are, and what their clients get for it.
//!
//! A person proves who they are with a password ([`password`]) or at the organisation's own
//! provider ([`provider`]): a [`Proof`]. A client gets hold of a proof in one of four ways:
//! it has the password itself; it waits while the person signs in elsewhere ([`device`]); it
//! gets a code through the person's browser ([`code`]); it shows a refresh token of an
//! earlier time ([`refresh`]). For each it gets the same ([`SignedIn`]): a directory token, a
//! refresh token and an id token.
//!
//! What clients hold between the steps is sealed (`auth::ticket`), so that every server can
//! read it and none stores it. Two things must be stored, since they work once: device codes
//! and redeemed authorization codes. That is one row for a person's sign-in, never for a
//! refresh.
//!
//! All of it ends at once when the principal is disabled or its sessions are ended: a proof
//! older than the principal's `valid_from` is no proof.

pub mod code;
pub mod device;
pub mod password;
pub mod provider;
pub mod refresh;

use std::time::Duration;

use portolan_auth::authority::{Issued, NewDirectoryToken, Person};
use portolan_store::meta;
use portolan_types::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::keys::key_error;
use crate::service::Service;
use crate::{Error, Kind, Result};

/// Longest resource that a token may be asked for, in bytes.
pub const RESOURCE_BYTES_MAX: usize = 512;
/// Longest scope parameter, in bytes.
pub const SCOPE_BYTES_MAX: usize = 4_096;
/// Longest nonce, in bytes.
pub const NONCE_BYTES_MAX: usize = 512;

/// Client applications that everybody has: their ids and names, as Azure knows them.
const PUBLIC_CLIENTS: [(Uuid, &str); 3] = [
    (Uuid::from_u128(0x04b07795_8ddb_461a_bbee_02f9e1bf7b46), "Azure CLI"),
    (Uuid::from_u128(0x1950a258_227b_4e31_a9cf_717495945fc2), "Azure PowerShell"),
    (Uuid::from_u128(0xaebc6443_996d_45c2_90f0_388ff96faa56), "Visual Studio Code"),
];

/// How people may sign in here.
#[derive(Clone, Debug)]
pub struct SignInConfig {
    /// Whether people may sign in with passwords of this directory.
    pub passwords: bool,
    /// Whether a client may wait for a person who signs in elsewhere.
    pub device_codes: bool,
    /// How long a refresh token may lie unused.
    pub refresh_idle: Duration,
    /// How long after a sign-in its refresh tokens end, however often they were used.
    pub session: Duration,
    /// The organisation's own provider.
    pub provider: Option<provider::ProviderConfig>,
}

impl Default for SignInConfig {
    fn default() -> SignInConfig {
        SignInConfig {
            passwords: true,
            device_codes: true,
            refresh_idle: Duration::from_secs(14 * 86_400),
            session: Duration::from_secs(90 * 86_400),
            provider: None,
        }
    }
}

/// How somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// With a password.
    #[serde(rename = "pwd")]
    Password,
    /// At the organisation's own provider.
    #[serde(rename = "fed")]
    Provider,
}

impl Method {
    /// The word in `amr`.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Password => "pwd",
            Method::Provider => "fed",
        }
    }

    fn parse(text: &str) -> Option<Method> {
        [Method::Password, Method::Provider].into_iter().find(|m| m.as_str() == text)
    }
}

/// That somebody proved who they are, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Who.
    #[serde(rename = "o")]
    pub object_id: Uuid,
    /// How.
    #[serde(rename = "m")]
    pub method: Method,
    /// When, in microseconds.
    #[serde(rename = "a", with = "micros")]
    pub at: Timestamp,
}

/// Times in tickets: microseconds since the epoch.
pub(crate) mod micros {
    use portolan_types::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(t: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(t.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(d).map(Timestamp)
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scopes {
    /// What the directory token is to be for.
    #[serde(rename = "r")]
    pub resource: String,
    /// The words as they were given, for the answer.
    #[serde(rename = "t")]
    pub text: String,
    /// Whether a refresh token is wanted.
    #[serde(rename = "f")]
    pub offline: bool,
}

impl Scopes {
    /// Read the `scope` parameter, or the older `resource`. A client that names no resource
    /// means `graph`, the directory's own.
    ///
    /// Errors: `invalid_scope`.
    pub fn parse(scope: Option<&str>, resource: Option<&str>, graph: &str) -> Result<Scopes> {
        let text = scope.unwrap_or_default();
        let bad =
            || Error::new(Kind::Invalid, "invalid_scope", "AADSTS70011: The provided value for 'scope' is not valid.");
        if text.len() > SCOPE_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(bad());
        }
        let mut found = resource.filter(|_| scope.is_none()).map(str::to_owned);
        let mut offline = scope.is_none();
        for word in text.split_ascii_whitespace() {
            match word {
                "offline_access" => offline = true,
                "openid" | "profile" | "email" => {}
                _ if found.is_some() => {}
                word => {
                    found = match word.strip_suffix("/.default") {
                        Some(resource) => Some(resource.to_owned()),
                        None if word.contains("://") => word.rsplit_once('/').map(|(resource, _)| resource.to_owned()),
                        None => None,
                    }
                }
            }
        }
        let resource = found.unwrap_or_else(|| graph.to_owned());
        if resource.is_empty() || resource.len() > RESOURCE_BYTES_MAX || resource.chars().any(char::is_control) {
            return Err(bad());
        }
        Ok(Scopes { resource, text: text.to_owned(), offline })
    }
}

/// What a client gets for a proof.
#[derive(Debug)]
pub struct SignedIn {
    /// The directory token.
    pub access: Issued,
    /// For the next one, without the person; where it was asked for.
    pub refresh: Option<Secret<String>>,
    /// Who it is, for the client.
    pub id_token: Secret<String>,
    /// Object id.
    pub object_id: Uuid,
    /// The tenant.
    pub tenant: Uuid,
    /// The scopes granted.
    pub scope: String,
}

/// A client application that people sign in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its id.
    pub id: Uuid,
    /// Its name, for the person to see.
    pub name: String,
}

/// The error of a grant that is not good, in Entra's words.
pub(crate) fn invalid_grant(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "invalid_grant", message)
}

impl Service {
    /// The client application of this id: one that everybody has, or one of the directory.
    ///
    /// Errors: `unauthorized_client`.
    pub fn sign_in_client(&self, id: &str) -> Result<Client> {
        let found = Uuid::try_parse(id).ok().and_then(|id| {
            if let Some((_, name)) = PUBLIC_CLIENTS.iter().find(|(known, _)| *known == id) {
                return Some(Client { id, name: (*name).to_owned() });
            }
            let snapshot = self.snapshot.load();
            let state = snapshot.application(id).filter(|state| state.enabled)?;
            Some(Client { id, name: state.display_name.clone() })
        });
        found.ok_or_else(|| {
            let shown: String = id.chars().take(64).collect();
            Error::new(
                Kind::Invalid,
                "unauthorized_client",
                format!(
                    "AADSTS700016: Application with identifier '{}' was not found in the directory.",
                    shown.escape_debug()
                ),
            )
        })
    }

    /// What `client` gets for `proof`. `base` is `https://host[:port]` as the client knows
    /// this server.
    ///
    /// Errors: `invalid_grant` when the principal is gone, disabled, or ended its sessions
    /// after the proof.
    pub(crate) fn grant(
        &self,
        base: &str,
        client: &Client,
        proof: Proof,
        scopes: &Scopes,
        nonce: Option<&str>,
        now: Timestamp,
    ) -> Result<SignedIn> {
        let snapshot = self.snapshot.load();
        let (tenant, lifetime) = (snapshot.tenant, self.config.directory_token_lifetime);
        let Some(state) = crate::identity::live(&snapshot, proof.object_id, proof.at) else { return Err(revoked()) };
        let new = NewDirectoryToken {
            issuer: &format!("{base}/{tenant}/v2.0"),
            audience: &scopes.resource,
            tenant,
            object_id: proof.object_id,
            app_id: None,
            lifetime,
        };
        let person = Person {
            user_name: state.user_name.as_deref().unwrap_or(&state.display_name),
            display_name: &state.display_name,
            client: client.id,
            signed_in: proof.at,
            methods: &[proof.method.as_str()],
            nonce,
        };
        let access = self.authority.issue_user(&new, &person, now).map_err(key_error)?;
        let id_token = self.authority.issue_id(&new, &person, now).map_err(key_error)?.token;
        let refresh = match scopes.offline {
            true => Some(self.refresh_token(client.id, proof, scopes, now)?),
            false => None,
        };
        Ok(SignedIn { access, refresh, id_token, object_id: proof.object_id, tenant, scope: scopes.text.clone() })
    }

    /// End every sign-in of somebody, everywhere: what they hold is no longer good, and they
    /// must prove again who they are.
    pub async fn end_sessions(&self, object_id: Uuid, now: Timestamp) -> Result<()> {
        self.alter(move |tx| Ok(meta::principal::end_tokens(tx, object_id, now)?)).await
    }
}

/// The error of a proof that is no longer one.
fn revoked() -> Error {
    invalid_grant(
        "AADSTS50173: The provided grant has expired due to it being revoked, a fresh auth token is needed. The user \
         might have changed or reset their password, or be disabled.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_name_a_resource() {
        for (scope, resource, expected, offline) in [
            (Some("https://h:8443/.default offline_access openid profile"), None, "https://h:8443", true),
            (
                Some("openid https://management.core.windows.net//.default"),
                None,
                "https://management.core.windows.net/",
                false,
            ),
            (Some("https://h/user_impersonation"), None, "https://h", false),
            (Some("User.Read openid"), None, "graph", false),
            (Some("openid"), Some("https://h"), "graph", false),
            (None, Some("https://h"), "https://h", true),
            (None, None, "graph", true),
            (Some("api-id/.default https://other/.default"), None, "api-id", false),
        ] {
            let got = Scopes::parse(scope, resource, "graph").unwrap();
            assert_eq!((got.resource.as_str(), got.offline), (expected, offline), "{scope:?}");
        }
        for bad in ["/.default", "a\u{7}", &"x".repeat(5_000), &format!("https://{}/.default", "x".repeat(600))] {
            assert!(Scopes::parse(Some(bad), None, "graph").is_err(), "{bad}");
        }
    }
}
