//! Authorization codes (RFC 6749, section 4.1, with RFC 7636): a client opens the person's
//! browser, and gets its answer at a port of its own machine.
//!
//! Any program on the machine may listen at such a port, so a code is worth nothing without
//! the verifier that the client kept (PKCE, method S256; none goes without). A code lasts five
//! minutes and works once: redeeming it writes a row.

use std::time::Duration;

use portolan_auth::ticket::{self, Purpose};
use portolan_store::meta::sign_in;
use portolan_types::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Client, NONCE_BYTES_MAX, Proof, Scopes, SignedIn, invalid_grant, micros};
use crate::keys::key_error;
use crate::service::Service;
use crate::{Error, Kind, Result};

const LIFE: Duration = Duration::from_secs(5 * 60);
/// Longest address to go back to, in bytes.
const REDIRECT_BYTES_MAX: usize = 1_024;
/// Length of an S256 challenge: 32 bytes in base64url.
const CHALLENGE_CHARS: usize = 43;

/// What a client asks for by the person's browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRequest {
    /// The client application.
    #[serde(rename = "c")]
    pub client: Uuid,
    /// Where the browser goes back to.
    #[serde(rename = "u")]
    pub redirect: String,
    /// What the verifier must prove.
    #[serde(rename = "h")]
    pub challenge: String,
    /// What is asked for.
    #[serde(rename = "s")]
    pub scopes: Scopes,
    /// For the id token.
    #[serde(rename = "z", default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Ticket {
    #[serde(flatten)]
    proof: Proof,
    request: CodeRequest,
    id: Uuid,
    #[serde(rename = "e", with = "micros")]
    expires: Timestamp,
}

/// Whether a browser may be sent back to this address: a port of the person's own machine,
/// by plain HTTP, which never leaves it. RFC 8252, section 7.3.
pub fn is_own_machine(redirect: &str) -> bool {
    let Some(rest) = redirect.strip_prefix("http://") else { return false };
    if redirect.len() > REDIRECT_BYTES_MAX
        || !redirect.bytes().all(|c| c.is_ascii_graphic() && !b"\"'<>\\#@;,".contains(&c))
    {
        return false;
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    ["localhost", "127.0.0.1"].contains(&host) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

impl CodeRequest {
    /// Check what a client asks for by the person's browser, all but its id.
    ///
    /// Errors: `invalid_request`; the caller shows them to the person, since the address to
    /// go back to may be the very thing that is wrong.
    pub fn check(&self) -> Result<()> {
        let bad = |why: &str| Err(Error::new(Kind::Invalid, "invalid_request", why));
        if !is_own_machine(&self.redirect) {
            return bad(
                "AADSTS50011: The redirect URI is not one that an application may ask for: http://localhost or http://127.0.0.1, with a port.",
            );
        }
        let base64url = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
        if self.challenge.len() != CHALLENGE_CHARS || !self.challenge.bytes().all(base64url) {
            return bad("AADSTS9002325: Proof Key for Code Exchange with method S256 is required.");
        }
        if self.nonce.as_ref().is_some_and(|n| n.len() > NONCE_BYTES_MAX) {
            return bad("AADSTS9000411: The parameter 'nonce' is too long.");
        }
        Ok(())
    }
}

impl Service {
    /// A code for the client of `request`, for the browser to carry.
    pub fn authorization_code(&self, request: &CodeRequest, proof: Proof, now: Timestamp) -> Result<Secret<String>> {
        let ticket = Ticket { proof, request: request.clone(), id: Uuid::new_v4(), expires: now.plus(LIFE) };
        ticket::seal(self.authority.master(), Purpose::Code, &ticket).map_err(key_error)
    }

    /// What a client gets for its code.
    ///
    /// Errors: `invalid_grant` with Entra's number of the reason.
    pub async fn redeem_code(
        &self,
        base: &str,
        client: &Client,
        code: &str,
        redirect: &str,
        verifier: &str,
        now: Timestamp,
    ) -> Result<SignedIn> {
        let ticket: Ticket = ticket::open(self.authority.master(), Purpose::Code, code)
            .ok_or_else(|| invalid_grant("AADSTS9002313: Invalid request. The authorization code is malformed."))?;
        if ticket.request.client != client.id {
            return Err(invalid_grant("AADSTS70000: The provided authorization code was issued to another client."));
        }
        if ticket.request.redirect != redirect {
            return Err(invalid_grant(
                "AADSTS500112: The reply address does not match the reply address provided when requesting the authorization code.",
            ));
        }
        if now >= ticket.expires {
            return Err(invalid_grant("AADSTS70008: The provided authorization code has expired."));
        }
        if !ticket::proves(&ticket.request.challenge, verifier) {
            return Err(invalid_grant(
                "AADSTS501481: The Code_Verifier does not match the code_challenge supplied in the authorization request.",
            ));
        }
        let (id, expires) = (ticket.id.to_string(), ticket.expires);
        let first = self
            .meta
            .write(move |tx| {
                sign_in::sweep(tx, Timestamp(now.0.saturating_sub(2 * i64::try_from(LIFE.as_micros()).unwrap_or(0))))?;
                sign_in::redeem_code(tx, &id, expires)
            })
            .await?;
        if !first {
            return Err(invalid_grant("AADSTS54005: OAuth2 Authorization code was already redeemed."));
        }
        let request = &ticket.request;
        self.grant(base, client, ticket.proof, &request.scopes, request.nonce.as_deref(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_go_back_to_their_own_machine_only() {
        for good in ["http://localhost:8400", "http://localhost:8400/", "http://127.0.0.1:1/x?y=z", "http://localhost"]
        {
            assert!(is_own_machine(good), "{good}");
        }
        for bad in [
            "https://localhost:8400",
            "http://localhost.evil.example:8400",
            "http://evil.example",
            "http://localhost@evil.example",
            "http://localhost:80@evil.example/",
            "http://localhost:8400#x",
            "http://localhost:0",
            "http://localhost:99999",
            "http://localhost:8400/\r\nx: y",
            "http://localhost:8400/\"><script>",
            "http://localhost\\@evil.example",
            "http://[::1]:8400",
            "javascript:alert(1)",
            "",
        ] {
            assert!(!is_own_machine(bad), "{bad}");
        }
    }
}
