//! Certificates as credentials of applications: a client proves that it has the key by
//! signing an assertion (RFC 7523, section 2.2), as MSAL does.
//!
//! The certificate is a way to write down a public key and nothing more: it was registered by
//! somebody with the right to, so its issuer, its names and its own signature do not count.
//! Its dates do.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use portolan_types::Timestamp;
use serde_json::{Map, Value};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::foreign::{header, in_time, signed};
use crate::token::TokenError;

/// Longest certificate that is looked at, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// RSA keys have so many bits; smaller ones can be broken, larger ones cost us.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// How long an assertion may last at most, in seconds. MSAL makes them for ten minutes.
const ASSERTION_SECS_MAX: i64 = 24 * 3_600;

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate itself, in DER.
    pub der: Vec<u8>,
    /// SHA-1 over it: what Graph and `x5t` name it by.
    pub thumbprint: [u8; 20],
    /// Its subject, for people.
    pub subject: String,
    /// It is good from here,
    pub not_before: Timestamp,
    /// until here.
    pub not_after: Timestamp,
}

/// Why a certificate is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Too large, or no certificate.
    #[error("it is no X.509 certificate in base64 or PEM")]
    Syntax,
    /// A kind or size of key that we do not take.
    #[error("its key must be RSA of 2048 to 8192 bits, or on the curve P-256 or P-384")]
    Key,
}

impl Certificate {
    /// Read a certificate as Graph's `keyCredentials` have it: base64 of the DER, perhaps with
    /// line breaks and the words of PEM around it, or base64 of such a PEM.
    pub fn read(text: &str) -> Result<Certificate, CertificateError> {
        if text.len() > 4 * CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::Syntax);
        }
        let body: String = text.lines().filter(|l| !l.starts_with("-----")).flat_map(str::split_whitespace).collect();
        let bytes = STANDARD.decode(body).map_err(|_| CertificateError::Syntax)?;
        if bytes.starts_with(b"-----BEGIN CERTIFICATE-----") {
            let pem = String::from_utf8(bytes).map_err(|_| CertificateError::Syntax)?;
            let body: String =
                pem.lines().filter(|l| !l.starts_with("-----")).flat_map(str::split_whitespace).collect();
            return Certificate::from_der(STANDARD.decode(body).map_err(|_| CertificateError::Syntax)?);
        }
        Certificate::from_der(bytes)
    }

    /// From its DER form, with nothing after it.
    pub fn from_der(der: Vec<u8>) -> Result<Certificate, CertificateError> {
        let (not_before, not_after, subject) = {
            let parsed = parse(&der).ok_or(CertificateError::Syntax)?;
            key(&parsed).ok_or(CertificateError::Key)?;
            let validity = parsed.validity();
            let time = |t: x509_parser::time::ASN1Time| Timestamp::from_unix_secs(t.timestamp());
            (time(validity.not_before), time(validity.not_after), parsed.subject().to_string())
        };
        let thumbprint = sha1(&der);
        Ok(Certificate { der, thumbprint, subject, not_before, not_after })
    }
}

/// Check an assertion by which the client `client_id` shows that it has the key of one of
/// these certificates (DER). Which one it was.
///
/// Errors: `Expired` and `NotYetValid` for the assertion's times or the certificate's;
/// `Audience` when it was made for somebody else; `Invalid` for everything else.
pub fn verify_assertion<'a>(
    assertion: &str,
    certificates: impl Iterator<Item = &'a [u8]>,
    client_id: &str,
    accepts: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Result<usize, TokenError> {
    let header = header(assertion)?;
    let wanted = |value: &Option<String>| value.as_deref().map(|t| URL_SAFE_NO_PAD.decode(t.trim_end_matches('=')));
    let (x5t, x5t_s256) = (wanted(&header.x5t), wanted(&header.x5t_s256));
    let named = |der: &[u8]| {
        let one = x5t.as_ref().is_none_or(|t| t.as_deref() == Ok(&sha1(der)[..]));
        let other = x5t_s256.as_ref().is_none_or(|t| t.as_deref() == Ok(digest(&SHA256, der).as_ref()));
        one && other
    };
    for (at, der) in certificates.enumerate().filter(|(_, der)| named(der)) {
        let Some(parsed) = parse(der) else { continue };
        let Some((algorithms, key)) = key(&parsed) else { continue };
        if !algorithms.contains(&header.alg) {
            continue;
        }
        let Some(claims) = signed(assertion, &key, header.alg) else { continue };
        let now_secs = now.unix_secs();
        if now_secs >= parsed.validity().not_after.timestamp() {
            return Err(TokenError::Expired);
        }
        if now_secs < parsed.validity().not_before.timestamp() {
            return Err(TokenError::NotYetValid);
        }
        return check(&claims, client_id, accepts, now).map(|()| at);
    }
    Err(TokenError::Invalid)
}

/// The claims of an assertion: RFC 7523, section 3.
fn check(
    claims: &Map<String, Value>,
    client_id: &str,
    accepts: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Result<(), TokenError> {
    let is_client =
        |name: &str| claims.get(name).and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case(client_id));
    if !is_client("iss") || !is_client("sub") {
        return Err(TokenError::Invalid);
    }
    let expires = in_time(claims, now)?;
    if expires.saturating_sub(now.unix_secs()) > ASSERTION_SECS_MAX {
        return Err(TokenError::NotYetValid);
    }
    let good = match claims.get("aud") {
        Some(Value::String(one)) => accepts(one),
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).any(accepts),
        _ => false,
    };
    if good { Ok(()) } else { Err(TokenError::Audience) }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return None;
    }
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, parsed)| parsed)
}

/// A certificate's key, and the algorithms that it may sign with.
fn key(parsed: &X509Certificate<'_>) -> Option<(&'static [Algorithm], DecodingKey)> {
    match parsed.public_key().parsed().ok()? {
        PublicKey::RSA(rsa) => {
            let modulus = rsa.modulus.iter().position(|b| *b != 0).map(|at| &rsa.modulus[at..])?;
            let exponent = rsa.exponent.iter().position(|b| *b != 0).map(|at| &rsa.exponent[at..])?;
            let known = RSA_BITS.contains(&(modulus.len() * 8)) && exponent.len() <= 8;
            known.then(|| {
                let algorithms: &[Algorithm] = &[
                    Algorithm::RS256,
                    Algorithm::RS384,
                    Algorithm::RS512,
                    Algorithm::PS256,
                    Algorithm::PS384,
                    Algorithm::PS512,
                ];
                (algorithms, DecodingKey::from_rsa_raw_components(modulus, exponent))
            })
        }
        PublicKey::EC(point) => {
            // An uncompressed point: 4, x, y.
            let (algorithms, half): (&[Algorithm], usize) = match point.data().len() {
                65 => (&[Algorithm::ES256], 32),
                97 => (&[Algorithm::ES384], 48),
                _ => return None,
            };
            let [4, rest @ ..] = point.data() else { return None };
            let (x, y) = rest.split_at_checked(half)?;
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            DecodingKey::from_ec_components(&x, &y).ok().map(|key| (algorithms, key))
        }
        _ => None,
    }
}

fn sha1(der: &[u8]) -> [u8; 20] {
    let mut out = [0; 20];
    for (o, b) in out.iter_mut().zip(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()) {
        *o = *b;
    }
    out
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
