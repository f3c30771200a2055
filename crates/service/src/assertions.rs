//! Sign-in of programs without a secret: they show an assertion (RFC 7523), which is either
//! signed with the key of a certificate that was registered here, or a token of another issuer
//! that an application or managed identity was told to trust.
//!
//! Of which kind it is, the assertion says itself ([`Service::assertion`]): it is issued by
//! the client, or by somebody else. The keys of somebody else are fetched only from issuers
//! that this very client trusts, so that strangers cannot send the server anywhere.

use portolan_auth::authority::Issued;
use portolan_auth::certificate;
use portolan_auth::foreign::{Keys, unverified_issuer};
use portolan_auth::token::TokenError;
use portolan_types::{Secret, Timestamp};
use uuid::Uuid;

use crate::directory::may_have_federated;
use crate::service::Service;
use crate::snapshot::{PrincipalState, Snapshot, without_port};
use crate::{Error, Kind, Result};

/// Longest assertion, in bytes.
pub const ASSERTION_BYTES_MAX: usize = 32 * 1024;
/// The audience that assertions of federated workloads have by custom.
pub const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// Whose keys an assertion is to be checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assertion {
    /// The client's own: see [`Service::certificate_token`].
    Certificate,
    /// Those of an issuer that the client trusts: see [`Service::federated_token`].
    Issuer {
        /// The issuer.
        issuer: String,
        /// Which of its keys.
        kid: Option<String>,
    },
}

impl Service {
    /// Whose keys a client's assertion is to be checked with. Nothing of it is checked yet.
    ///
    /// Errors: `invalid_client` when the client is not there, or does not trust the issuer.
    pub fn assertion(&self, client_id: &str, assertion: &Secret<String>) -> Result<Assertion> {
        let bad = || refused("AADSTS50027: JWT token is invalid or malformed.");
        if assertion.expose().len() > ASSERTION_BYTES_MAX {
            return Err(bad());
        }
        let (issuer, kid) = unverified_issuer(assertion.expose()).map_err(|_| bad())?;
        if issuer.eq_ignore_ascii_case(client_id) {
            return Ok(Assertion::Certificate);
        }
        let snapshot = self.snapshot.load();
        let trusted =
            client(&snapshot, client_id).is_some_and(|state| state.federated.iter().any(|f| f.issuer == issuer));
        if !trusted {
            return Err(refused(format!(
                "AADSTS700211: No matching federated identity record found for presented assertion issuer '{}'.",
                shown(&issuer)
            )));
        }
        Ok(Assertion::Issuer { issuer, kid })
    }

    /// A directory token for a client that shows that it has the key of one of its
    /// certificates. `base` is `https://host[:port]` as the client knows this server.
    ///
    /// Errors: `invalid_client`.
    pub fn certificate_token(
        &self,
        base: &str,
        client_id: &str,
        assertion: &Secret<String>,
        resource: &str,
        now: Timestamp,
    ) -> Result<Issued> {
        let snapshot = self.snapshot.load();
        let state = client(&snapshot, client_id).ok_or_else(|| {
            refused("AADSTS700027: The certificate used to sign the client assertion is not registered.")
        })?;
        let good = state.certificates.iter().filter(|c| c.is_good(now)).map(|c| c.der.as_slice());
        certificate::verify_assertion(assertion.expose(), good, client_id, |a| self.is_token_audience(a), now)
            .map_err(|e| {
                refused(match e {
                    TokenError::Expired => {
                        "AADSTS700024: Client assertion is not within its valid time range, or its certificate is not."
                    }
                    TokenError::NotYetValid => "AADSTS700024: Client assertion is not within its valid time range.",
                    TokenError::Audience => {
                        "AADSTS700023: Client assertion audience claim does not match Realm issuer."
                    }
                    _ => {
                        "AADSTS700027: The certificate with identifier used to sign the client assertion is not \
                         registered on application, or the signature is wrong."
                    }
                })
            })?;
        self.application_token(base, state.object_id, state.app_id, resource, now)
    }

    /// A directory token for a client that shows a token of an issuer it trusts, whose keys
    /// these are. Issuer, subject and audience must be those of one federated credential.
    ///
    /// Errors: `invalid_client`.
    pub fn federated_token(
        &self,
        base: &str,
        client_id: &str,
        assertion: &Secret<String>,
        (issuer, keys): (&str, &Keys),
        resource: &str,
        now: Timestamp,
    ) -> Result<Issued> {
        let snapshot = self.snapshot.load();
        let state =
            client(&snapshot, client_id).ok_or_else(|| refused("AADSTS700016: The application was not found."))?;
        let claims = keys.verify(assertion.expose(), issuer, |_| true, now).map_err(|e| {
            refused(match e {
                TokenError::Expired | TokenError::NotYetValid => {
                    "AADSTS700024: Client assertion is not within its valid time range."
                }
                _ => {
                    "AADSTS5000611: The signature of the presented assertion cannot be verified with its issuer's keys."
                }
            })
        })?;
        let mut same =
            state.federated.iter().filter(|f| f.issuer == claims.issuer && f.subject == claims.subject).peekable();
        if same.peek().is_none() {
            return Err(refused(format!(
                "AADSTS700213: No matching federated identity record found for presented assertion subject '{}'. Check \
                 your federated identity credential Subject, Audience and Issuer against the presented assertion.",
                shown(&claims.subject)
            )));
        }
        if !same.any(|f| claims.audiences.iter().any(|a| f.audiences.contains(a))) {
            return Err(refused(format!(
                "AADSTS700212: No matching federated identity record found for presented assertion audience '{}'.",
                shown(claims.audiences.first().map_or("", String::as_str))
            )));
        }
        self.application_token(base, state.object_id, state.app_id, resource, now)
    }

    /// Whether an assertion with this audience was made for our token endpoint: its address,
    /// or the issuer's.
    fn is_token_audience(&self, audience: &str) -> bool {
        let Some((host, path)) = audience.strip_prefix("https://").and_then(|rest| rest.split_once('/')) else {
            return false;
        };
        let tenant = self.tenant_id().to_string();
        let ours = [tenant.as_str(), "common", "organizations"];
        let known = match path.trim_end_matches('/').split('/').collect::<Vec<_>>().as_slice() {
            [t, "oauth2", "v2.0", "token"] | [t, "oauth2", "token"] => ours.iter().any(|o| o.eq_ignore_ascii_case(t)),
            [t, "v2.0"] | [t] => tenant.eq_ignore_ascii_case(t),
            _ => false,
        };
        known && self.is_own_host(host) && !without_port(host).is_empty()
    }
}

/// The enabled principal of a client id.
fn client<'a>(snapshot: &'a Snapshot, client_id: &str) -> Option<&'a PrincipalState> {
    let state = snapshot.application(Uuid::try_parse(client_id).ok()?)?;
    (state.enabled && may_have_federated(state.kind)).then_some(state)
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Kind::Unauthenticated, "invalid_client", message)
}

/// What may be shown of a text that somebody sent.
fn shown(text: &str) -> String {
    text.chars().take(256).collect::<String>().escape_debug().to_string()
}
