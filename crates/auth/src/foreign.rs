//! Tokens of other issuers: an organisation's own OpenID provider, GitHub Actions, a
//! Kubernetes cluster.
//!
//! Their keys come as a JSON Web Key Set ([`Keys::parse`]), which the caller has fetched from
//! the issuer; times come as parameters. What a token says before its signature was checked
//! is good for one thing: to find out whose keys to fetch ([`unverified_issuer`]).
//!
//! What is closed here: a token may not choose how it is checked. Only signatures of public
//! keys count (never HMAC, never `none`); the algorithm must fit the kind of key, and the one
//! the key set names for it; a key for encryption verifies nothing; extensions that a token
//! calls critical and we do not know make it invalid (RFC 7515, section 4.1.11).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use portolan_types::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::authority::TOKEN_BYTES_MAX;
use crate::token::TokenError;

/// Keys of one issuer that are looked at; issuers have two or three.
const KEYS_MAX: usize = 64;
/// How far the clocks of an issuer and this server may be apart, in seconds.
const SKEW_SECS_MAX: i64 = 60;

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// The public keys of one issuer.
pub struct Keys(Vec<Key>);

struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// A token whose signature, times, issuer and audience were found right.
#[derive(Clone, Debug)]
pub struct Claims {
    /// `iss`
    pub issuer: String,
    /// `sub`
    pub subject: String,
    /// `aud`, one or several.
    pub audiences: Vec<String>,
    /// Every claim.
    pub all: Map<String, Value>,
}

/// Why keys could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is no JSON Web Key Set.
    #[error("it is no JSON Web Key Set")]
    Syntax,
    /// There is no key in it that a signature could be checked with.
    #[error("no key in it can check a signature")]
    Empty,
}

impl Keys {
    /// Read a key set (RFC 7517). Keys of kinds we do not know, or for other ends, are passed
    /// over.
    pub fn parse(json: &[u8]) -> Result<Keys, KeysError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| KeysError::Syntax)?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).take(KEYS_MAX).collect();
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Keys(keys)) }
    }

    /// Whether there is a key of that id, or one without an id: if not, the issuer may have
    /// changed its keys since they were fetched.
    pub fn may_know(&self, kid: Option<&str>) -> bool {
        self.0.iter().any(|key| key.fits(kid))
    }

    /// Check a token's signature, its times, its issuer, and that one of its audiences will do.
    pub fn verify(
        &self,
        token: &str,
        issuer: &str,
        accepts: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Result<Claims, TokenError> {
        let header = header(token)?;
        let claims = self
            .0
            .iter()
            .filter(|key| key.fits(header.kid.as_deref()) && key.algorithms.contains(&header.alg))
            .find_map(|key| signed(token, &key.key, header.alg))
            .ok_or(TokenError::Invalid)?;
        let claims = Claims::read(claims)?;
        if claims.issuer != issuer {
            return Err(TokenError::Invalid);
        }
        in_time(&claims.all, now)?;
        match claims.audiences.iter().any(|a| accepts(a)) {
            true => Ok(claims),
            false => Err(TokenError::Audience),
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.kid)).finish()
    }
}

impl Key {
    fn read(value: Value) -> Option<Key> {
        let named = match value.get("alg").and_then(Value::as_str) {
            Some(named) => Some(named.parse::<Algorithm>().ok()?),
            None => None,
        };
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|u| *u != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            // A secret key in a public document is nobody's secret.
            _ => return None,
        };
        algorithms.retain(|a| named.is_none_or(|named| *a == named));
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Key { kid: jwk.common.key_id, algorithms, key })
    }

    fn fits(&self, kid: Option<&str>) -> bool {
        match (self.kid.as_deref(), kid) {
            (Some(own), Some(wanted)) => own == wanted,
            _ => true,
        }
    }
}

impl Claims {
    fn read(all: Map<String, Value>) -> Result<Claims, TokenError> {
        let text = |name: &str| all.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(TokenError::Invalid);
        let audiences = match all.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => return Err(TokenError::Invalid),
        };
        Ok(Claims { issuer: text("iss")?, subject: text("sub")?, audiences, all })
    }

    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name).and_then(Value::as_str)
    }
}

/// Who a token says issued it, and the id of the key it says it was signed with. Nothing was
/// checked.
pub fn unverified_issuer(token: &str) -> Result<(String, Option<String>), TokenError> {
    let header = header(token)?;
    let claims: Map<String, Value> =
        jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| TokenError::Invalid)?;
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(TokenError::Invalid)?;
    Ok((issuer.to_owned(), header.kid))
}

/// Read the header of a token that is not too large, and has no extension that we would have
/// to understand.
pub(crate) fn header(token: &str) -> Result<jsonwebtoken::Header, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
    if header.crit.is_some() { Err(TokenError::Invalid) } else { Ok(header) }
}

/// The claims, when the signature is good.
pub(crate) fn signed(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<Map<String, Value>> {
    let mut validation = Validation::new(algorithm);
    // Times and names are checked by the caller, against its own clock and names.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation).ok().map(|data| data.claims)
}

/// Whether the token is good now; it must say until when. When that is.
pub(crate) fn in_time(claims: &Map<String, Value>, now: Timestamp) -> Result<i64, TokenError> {
    let secs = |name: &str| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        // Some issuers write fractions of a second.
        Some(value) => match (value.as_i64(), value.as_f64()) {
            (Some(n), _) => Ok(Some(n)),
            #[allow(clippy::cast_possible_truncation, reason = "a float that is too large stays at the end")]
            (None, Some(f)) => Ok(Some(f as i64)),
            _ => Err(TokenError::Invalid),
        },
    };
    let expires = secs("exp")?.ok_or(TokenError::Invalid)?;
    let now = now.unix_secs();
    if now >= expires.saturating_add(SKEW_SECS_MAX) {
        return Err(TokenError::Expired);
    }
    if secs("nbf")?.is_some_and(|nbf| now.saturating_add(SKEW_SECS_MAX) < nbf) {
        return Err(TokenError::NotYetValid);
    }
    Ok(expires)
}

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod tests;
