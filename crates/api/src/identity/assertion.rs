//! A service principal's word for itself, signed with its certificate's key (RFC 7523; the
//! header as Entra ID documents it for certificate credentials).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portolan_types::{Digest, Secret, Timestamp};
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use crate::error::{Error, Result};

/// How long an assertion is good: it is used at once.
const LIFE_SECS: i64 = 600;

/// The assertion of `client_id` for the token endpoint `audience`. `pem` holds a certificate
/// and its private RSA key, in either order.
pub(super) fn signed(client_id: &str, audience: &str, pem: &Secret<String>, now: Timestamp) -> Result<Secret<String>> {
    let bad = |what: &str| Error::Local(format!("the certificate file {what}"));
    let pem = pem.expose().as_bytes();
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| bad("has no certificate (PEM) in it"))?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| bad("has no private key (PEM) in it"))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| bad("has a private key of a kind that is not known"))?;
    let signer = key
        .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
        .ok_or_else(|| bad("has a private key that is not an RSA key"))?;
    let header = json!({
        "alg": "RS256",
        "typ": "JWT",
        "x5t#S256": URL_SAFE_NO_PAD.encode(Digest::of(&certificate).bytes()),
    });
    let claims = json!({
        "aud": audience,
        "iss": client_id,
        "sub": client_id,
        "jti": unique(client_id, now),
        "iat": now.unix_secs(),
        "nbf": now.unix_secs(),
        "exp": now.unix_secs() + LIFE_SECS,
    });
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = signer.sign(text.as_bytes()).map_err(|e| Error::Local(format!("cannot sign: {e}")))?;
    Ok(Secret::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

/// Another each time: the server takes one of a kind once.
fn unique(client_id: &str, now: Timestamp) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{client_id} {} {} {count}", now.rfc3339_7(), std::process::id());
    Digest::of(text.as_bytes()).hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_will_not_do() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = signed("app", "https://h/t", &String::from(pem).into(), Timestamp::now()).unwrap_err();
            assert!(error.to_string().starts_with("the certificate file has no"), "{error}");
        }
    }

    #[test]
    fn no_two_are_alike() {
        let now = Timestamp::now();
        assert_ne!(unique("app", now), unique("app", now));
    }
}
