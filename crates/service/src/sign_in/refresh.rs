//! Refresh tokens of the directory: the next directory token without the person.
//!
//! A sealed text that says who, by which client, since when. Each use hands out a new one
//! that may lie unused as long again; the session as a whole ends some time after the sign-in
//! it began with. Nothing is stored, so nothing is written when one is used; an older one
//! stays good beside the newer until it runs out, as with Entra, and all of them end together
//! when the principal is disabled or its password is renewed.

use portolan_auth::ticket::{self, Purpose};
use portolan_types::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Client, Proof, Scopes, SignedIn, invalid_grant, micros};
use crate::Result;
use crate::keys::key_error;
use crate::service::Service;

#[derive(Serialize, Deserialize)]
struct Ticket {
    #[serde(flatten)]
    proof: Proof,
    #[serde(flatten)]
    scopes: Scopes,
    #[serde(rename = "c")]
    client: Uuid,
    #[serde(rename = "n")]
    tenant: Uuid,
    #[serde(rename = "e", with = "micros")]
    expires: Timestamp,
}

impl Service {
    /// A refresh token for a proof.
    pub(super) fn refresh_token(
        &self,
        client: Uuid,
        proof: Proof,
        scopes: &Scopes,
        now: Timestamp,
    ) -> Result<Secret<String>> {
        let config = &self.config.sign_in;
        let expires = now.plus(config.refresh_idle).min(self.session_end(proof));
        let ticket = Ticket { proof, scopes: scopes.clone(), client, tenant: self.tenant_id(), expires };
        ticket::seal(self.authority.master(), Purpose::Refresh, &ticket).map_err(key_error)
    }

    /// When the session of a proof is over.
    fn session_end(&self, proof: Proof) -> Timestamp {
        let config = &self.config.sign_in;
        let longest = match (&config.provider, proof.method) {
            (Some(provider), super::Method::Provider) => config.session.min(provider.session),
            _ => config.session,
        };
        proof.at.plus(longest)
    }

    /// What a client gets for a refresh token: tokens for the scopes it names, or for those
    /// of the sign-in.
    ///
    /// Errors: `invalid_grant` with Entra's number of the reason.
    pub fn refresh_sign_in(
        &self,
        base: &str,
        client: &Client,
        token: &str,
        scopes: Option<Scopes>,
        now: Timestamp,
    ) -> Result<SignedIn> {
        let ticket: Ticket = ticket::open(self.authority.master(), Purpose::Refresh, token)
            .filter(|ticket: &Ticket| ticket.tenant == self.tenant_id())
            .ok_or_else(|| {
                invalid_grant(
                    "AADSTS9002313: Invalid request. The refresh token is malformed or is not of this directory.",
                )
            })?;
        if ticket.client != client.id {
            return Err(invalid_grant("AADSTS70000: The provided refresh token was issued to another client."));
        }
        if now >= ticket.expires.min(self.session_end(ticket.proof)) {
            return Err(invalid_grant("AADSTS700082: The refresh token has expired. Sign in again."));
        }
        // A refresh token once asked for is followed by another, whether it is asked for again
        // or not.
        let scopes = Scopes { offline: true, ..scopes.unwrap_or(ticket.scopes) };
        self.grant(base, client, ticket.proof, &scopes, None, now)
    }
}
