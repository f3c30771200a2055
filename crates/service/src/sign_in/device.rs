//! Device sign-in (RFC 8628): a client without a browser shows a code, a person types it at
//! `/devicelogin` on whatever has one, signs in, and the client, which asks every few seconds,
//! gets its tokens.
//!
//! The client may ask another server than the one the person signs in at: the state is a row.
//! It ends with the first fetch of the tokens.

use std::time::Duration;

use portolan_auth::{password, ticket};
use portolan_store::meta::sign_in::{self, Answer, DeviceRow};
use portolan_types::{Digest, Secret, Timestamp};

use super::{Client, Method, Proof, SCOPE_BYTES_MAX, Scopes, SignedIn, invalid_grant};
use crate::keys::key_error;
use crate::service::Service;
use crate::{Error, Kind, Result};

/// How long a person has.
pub const LIFE: Duration = Duration::from_secs(15 * 60);
/// How often a client asks.
pub const INTERVAL_SECS: u32 = 5;
/// How long an expired one is still known as such.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Device sign-ins at one time, of all and of those begun from one network.
const ALL_MAX: u64 = 20_000;
const NETWORK_MAX: u64 = 100;

/// A device sign-in has begun.
#[derive(Debug)]
pub struct Begun {
    /// For the client to ask with.
    pub device_code: Secret<String>,
    /// For the person to type.
    pub user_code: String,
}

/// A device sign-in as the person sees it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Names it to [`Service::answer_device`].
    pub id: String,
    /// Who asks.
    pub client: Client,
    /// From where it was begun.
    pub address: String,
}

/// What a person typed, as codes are stored: letters only, in upper case.
pub fn normal_code(typed: &str) -> String {
    typed.chars().filter(char::is_ascii_alphanumeric).take(32).map(|c| c.to_ascii_uppercase()).collect()
}

impl Service {
    /// Begin a device sign-in. `network` is where the client is: `address` as the person is
    /// shown it.
    ///
    /// Errors: `TooMany` when too many are under way.
    pub async fn begin_device(&self, client: &Client, scope: &str, address: &str, now: Timestamp) -> Result<Begun> {
        if !self.config.sign_in.device_codes {
            return Err(Error::new(
                Kind::Invalid,
                "unauthorized_client",
                "AADSTS7000113: Sign-in with a device code is switched off on this server.",
            ));
        }
        if scope.len() > SCOPE_BYTES_MAX || scope.chars().any(char::is_control) {
            return Err(Error::new(
                Kind::Invalid,
                "invalid_scope",
                "AADSTS70011: The provided value for 'scope' is not valid.",
            ));
        }
        let device_code = password::generate().map_err(key_error)?;
        let user_code = ticket::user_code().map_err(key_error)?;
        let row = DeviceRow {
            device: Digest::of(device_code.expose().as_bytes()).hex(),
            user_code: user_code.clone(),
            client: client.id,
            scope: scope.to_owned(),
            address: address.to_owned(),
            answer: Answer::Waiting,
            created: now,
            expires: now.plus(LIFE),
        };
        let swept = Timestamp(now.0.saturating_sub(i64::try_from(REMEMBERED.as_micros()).unwrap_or(i64::MAX)));
        self.meta
            .write(move |tx| {
                sign_in::sweep(tx, swept)?;
                let (all, here) = sign_in::count_devices(tx, &row.address)?;
                if all >= ALL_MAX || here >= NETWORK_MAX {
                    return Err(Error::new(
                        Kind::TooMany { retry_after_secs: 60 },
                        "temporarily_unavailable",
                        "AADSTS90055: Too many device sign-ins are under way; try again in a minute.",
                    ));
                }
                Ok::<_, Error>(sign_in::insert_device(tx, &row)?)
            })
            .await?;
        Ok(Begun { device_code, user_code })
    }

    /// What a client gets that waits for a person.
    ///
    /// Errors: `authorization_pending`, `expired_token`, `authorization_declined`,
    /// `bad_verification_code`.
    pub async fn redeem_device(
        &self,
        base: &str,
        client: &Client,
        device_code: &str,
        now: Timestamp,
    ) -> Result<SignedIn> {
        let unknown = || {
            Error::new(
                Kind::Invalid,
                "bad_verification_code",
                "AADSTS70018: Verification code is not valid, or was used before.",
            )
        };
        let hash = Digest::of(device_code.as_bytes()).hex();
        let row = {
            let hash = hash.clone();
            self.meta.read(move |tx| sign_in::device_by_hash(tx, &hash)).await?
        };
        let row = row.filter(|row| row.client == client.id).ok_or_else(unknown)?;
        if now >= row.expires {
            return Err(Error::new(
                Kind::Invalid,
                "expired_token",
                "AADSTS70020: The provided value for the input parameter 'device_code' has expired. Begin again.",
            ));
        }
        let (principal, method, signed_in) = match row.answer {
            Answer::Waiting => {
                return Err(Error::new(
                    Kind::Invalid,
                    "authorization_pending",
                    "AADSTS70016: OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
                ));
            }
            Answer::Refused => {
                return Err(Error::new(
                    Kind::Invalid,
                    "authorization_declined",
                    "AADSTS70006: The person declined the sign-in.",
                ));
            }
            Answer::Allowed { principal, method, signed_in } => (principal, method, signed_in),
        };
        if !self.meta.write(move |tx| sign_in::take_device(tx, &hash)).await? {
            return Err(unknown());
        }
        let method = Method::parse(&method).ok_or_else(unknown)?;
        let proof = Proof { object_id: principal, method, at: signed_in };
        let scopes = Scopes::parse(Some(&row.scope), None, base)?;
        self.grant(base, client, proof, &scopes, None, now)
    }

    /// The device sign-in that waits under what a person typed.
    ///
    /// Errors: `invalid_grant` when there is none.
    pub async fn waiting_device(&self, typed: &str, now: Timestamp) -> Result<Waiting> {
        let unknown =
            || invalid_grant("That code is not one that an application is waiting with. It may have expired.");
        let code = normal_code(typed);
        let row = self.meta.read(move |tx| sign_in::device_by_user_code(tx, &code)).await?;
        let row = row.filter(|row| row.answer == Answer::Waiting && now < row.expires).ok_or_else(unknown)?;
        let client = self.sign_in_client(&row.client.to_string())?;
        Ok(Waiting { id: row.device, client, address: row.address })
    }

    /// Let the waiting client have its tokens, or refuse it (no proof).
    ///
    /// Errors: `invalid_grant` when it no longer waits.
    pub async fn answer_device(&self, id: &str, proof: Option<Proof>, now: Timestamp) -> Result<()> {
        let answer = match proof {
            Some(proof) => Answer::Allowed {
                principal: proof.object_id,
                method: proof.method.as_str().to_owned(),
                signed_in: proof.at,
            },
            None => Answer::Refused,
        };
        let id = id.to_owned();
        let done = self.meta.write(move |tx| sign_in::answer_device(tx, &id, &answer, now)).await?;
        if done { Ok(()) } else { Err(invalid_grant("The application is no longer waiting. Begin again there.")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        for typed in ["BCDFGHJKL", "bcdf-ghjkl", " BCD FGH JKL ", "bcd\tfghjkl"] {
            assert_eq!(normal_code(typed), "BCDFGHJKL");
        }
        assert_eq!(normal_code(&"x".repeat(10_000)).len(), 32);
    }
}
