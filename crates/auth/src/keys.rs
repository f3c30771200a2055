//! RS256 signing keys.
//!
//! A key's life: made once ([`SigningKey::generate`]), kept by the caller sealed
//! ([`SigningKey::seal`]), opened at every start. Several may be live: the newest signs,
//! all verify, so that a key can be replaced without logging anyone out. The public
//! halves are published as a JSON Web Key Set (RFC 7517).

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::master::{KeyError, MasterKey, random};

const SEAL_PURPOSE: &str = "signing-key";

/// A private signing key with its id.
pub struct SigningKey {
    /// The key id (`kid`) in token headers and in the key set.
    kid: String,
    pair: RsaKeyPair,
    decoding: jsonwebtoken::DecodingKey,
    jwk: Jwk,
}

/// One public key of the key set.
#[derive(Clone, Debug, Serialize)]
pub struct Jwk {
    /// Always `RSA`.
    pub kty: &'static str,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub key_use: &'static str,
    /// Always `RS256`.
    pub alg: &'static str,
    /// The key id.
    pub kid: String,
    /// Modulus, base64url.
    pub n: String,
    /// Exponent, base64url.
    pub e: String,
}

impl SigningKey {
    /// Make a new 2048-bit key with a random id, and its PKCS#8 form for [`SigningKey::seal`].
    /// Takes some tens of milliseconds.
    pub fn generate() -> Result<(SigningKey, Vec<u8>), KeyError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Crypto("make RSA key"))?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Crypto("write RSA key"))?;
        let kid = URL_SAFE_NO_PAD.encode(random::<16>()?);
        let pkcs8 = der.as_ref().to_vec();
        Ok((SigningKey::from_pkcs8(&kid, &pkcs8)?, pkcs8))
    }

    /// From its PKCS#8 form.
    pub fn from_pkcs8(kid: &str, pkcs8: &[u8]) -> Result<SigningKey, KeyError> {
        let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| KeyError::Crypto("read RSA key"))?;
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let decoding = jsonwebtoken::DecodingKey::from_rsa_raw_components(&public.n, &public.e);
        let jwk = Jwk {
            kty: "RSA",
            key_use: "sig",
            alg: "RS256",
            kid: kid.to_owned(),
            n: URL_SAFE_NO_PAD.encode(&public.n),
            e: URL_SAFE_NO_PAD.encode(&public.e),
        };
        Ok(SigningKey { kid: kid.to_owned(), pair, decoding, jwk })
    }

    /// The key id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The private key encrypted for storage, bound to its id.
    pub fn seal(master: &MasterKey, kid: &str, pkcs8: &[u8]) -> Result<Vec<u8>, KeyError> {
        master.seal(SEAL_PURPOSE, kid, pkcs8)
    }

    /// The inverse of [`SigningKey::seal`].
    pub fn unseal(master: &MasterKey, kid: &str, sealed: &[u8]) -> Result<SigningKey, KeyError> {
        SigningKey::from_pkcs8(kid, &master.open(SEAL_PURPOSE, kid, sealed)?)
    }

    /// The public half.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    pub(crate) fn decoding(&self) -> &jsonwebtoken::DecodingKey {
        &self.decoding
    }

    /// A compact JWS over `claims` (JSON). The key pair is kept parsed, so a signature is
    /// one RSA operation; the library's own `encode` would read the key anew each time.
    pub(crate) fn sign(&self, claims: &[u8]) -> Result<String, KeyError> {
        let header = format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{}"}}"#, self.kid);
        let mut token = String::with_capacity((header.len() + claims.len()) * 4 / 3 + 360);
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| KeyError::Crypto("sign"))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        Ok(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// The keys in use: the first signs, all verify.
#[derive(Debug, Default)]
pub struct KeyRing(Vec<SigningKey>);

impl KeyRing {
    /// From the live keys, the signing one first.
    pub fn new(keys: Vec<SigningKey>) -> KeyRing {
        KeyRing(keys)
    }

    /// The key that signs, if there is any.
    pub fn active(&self) -> Option<&SigningKey> {
        self.0.first()
    }

    /// The key with this id.
    pub fn find(&self, kid: &str) -> Option<&SigningKey> {
        self.0.iter().find(|k| k.kid == kid)
    }

    /// The public halves, the signing one first.
    pub fn jwks(&self) -> Vec<Jwk> {
        self.0.iter().map(|k| k.jwk.clone()).collect()
    }
}
