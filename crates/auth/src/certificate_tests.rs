//! Assertions signed with certificates, as MSAL makes them, and those that it would not.

use jsonwebtoken::{EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const TOKEN_ENDPOINT: &str = "https://localhost:8443/t/oauth2/v2.0/token";

struct Pair {
    pem: String,
    der: Vec<u8>,
    key: KeyPair,
}

fn pair(algorithm: &'static SignatureAlgorithm, years: std::ops::Range<i32>) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    Pair { pem: certificate.pem(), der: certificate.der().to_vec(), key }
}

fn rsa() -> Pair {
    pair(&PKCS_RSA_SHA256, 2020..2040)
}

fn claims() -> Value {
    let now = NOW.unix_secs();
    json!({"iss": CLIENT, "sub": CLIENT, "aud": TOKEN_ENDPOINT, "nbf": now, "exp": now + 600, "jti": "1"})
}

fn thumbprint(der: &[u8], wide: bool) -> String {
    match wide {
        true => URL_SAFE_NO_PAD.encode(digest(&SHA256, der)),
        false => URL_SAFE_NO_PAD.encode(sha1(der)),
    }
}

fn sign(pair: &Pair, algorithm: Algorithm, claims: &Value, change: impl FnOnce(&mut Header)) -> String {
    let mut header = Header::new(algorithm);
    header.x5t = Some(thumbprint(&pair.der, false));
    change(&mut header);
    let pem = pair.key.serialize_pem();
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
        Algorithm::HS256 => EncodingKey::from_secret(&pair.der),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
    };
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

fn verify(token: &str, certificates: &[&Pair]) -> Result<usize, TokenError> {
    let ders = certificates.iter().map(|pair| pair.der.as_slice());
    verify_assertion(token, ders, CLIENT, |a| a == TOKEN_ENDPOINT, NOW)
}

#[test]
fn assertions_prove_that_the_client_has_the_key() {
    let (one, two) = (rsa(), rsa());
    let token = sign(&two, Algorithm::RS256, &claims(), |_| {});
    assert_eq!(verify(&token, &[&one, &two]), Ok(1));
    // What newer libraries send.
    let wide = sign(&one, Algorithm::PS256, &claims(), |h| {
        h.x5t = None;
        h.x5t_s256 = Some(thumbprint(&one.der, true));
    });
    assert_eq!(verify(&wide, &[&one, &two]), Ok(0));
    // Without a thumbprint, any that verifies.
    assert_eq!(verify(&sign(&two, Algorithm::RS256, &claims(), |h| h.x5t = None), &[&one, &two]), Ok(1));
    let curve = pair(&PKCS_ECDSA_P256_SHA256, 2020..2040);
    assert_eq!(verify(&sign(&curve, Algorithm::ES256, &claims(), |_| {}), &[&curve]), Ok(0));
}

#[test]
fn other_assertions_are_refused() {
    let (own, stranger) = (rsa(), rsa());
    let now = NOW.unix_secs();
    let good = || claims();
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        sign(&own, Algorithm::RS256, &claims, |_| {})
    };
    for (what, token, expected) in [
        ("another key", sign(&stranger, Algorithm::RS256, &good(), |_| {}), TokenError::Invalid),
        (
            "another key under our thumbprint",
            sign(&stranger, Algorithm::RS256, &good(), |h| h.x5t = Some(thumbprint(&own.der, false))),
            TokenError::Invalid,
        ),
        (
            "two thumbprints that differ",
            sign(&own, Algorithm::RS256, &good(), |h| h.x5t_s256 = Some(thumbprint(&stranger.der, true))),
            TokenError::Invalid,
        ),
        ("the certificate as a secret", sign(&own, Algorithm::HS256, &good(), |_| {}), TokenError::Invalid),
        ("another issuer", with("iss", json!("99999999-2222-3333-4444-555555555555")), TokenError::Invalid),
        ("another subject", with("sub", json!("99999999-2222-3333-4444-555555555555")), TokenError::Invalid),
        ("another audience", with("aud", json!("https://login.example/t/oauth2/v2.0/token")), TokenError::Audience),
        ("no audience", with("aud", Value::Null), TokenError::Audience),
        ("expired", with("exp", json!(now - 61)), TokenError::Expired),
        ("without an end", with("exp", Value::Null), TokenError::Invalid),
        ("for a year", with("exp", json!(now + 365 * 86_400)), TokenError::NotYetValid),
        ("for later", with("nbf", json!(now + 3_600)), TokenError::NotYetValid),
        ("critical", sign(&own, Algorithm::RS256, &good(), |h| h.crit = Some(vec!["x".into()])), TokenError::Invalid),
        ("rubbish", "a.b.c".to_owned(), TokenError::Invalid),
    ] {
        assert_eq!(verify(&token, &[&own]), Err(expected), "{what}");
    }
    let token = sign(&own, Algorithm::RS256, &good(), |_| {});
    assert_eq!(verify(&token, &[]), Err(TokenError::Invalid));
    let (old, new) = (pair(&PKCS_RSA_SHA256, 2000..2010), pair(&PKCS_RSA_SHA256, 2040..2041));
    assert_eq!(verify(&sign(&old, Algorithm::RS256, &good(), |_| {}), &[&old]), Err(TokenError::Expired));
    assert_eq!(verify(&sign(&new, Algorithm::RS256, &good(), |_| {}), &[&new]), Err(TokenError::NotYetValid));
}

#[test]
fn certificates_come_in_several_wrappings() {
    let pair = rsa();
    let plain = STANDARD.encode(&pair.der);
    let bare: String = pair.pem.lines().filter(|l| !l.starts_with('-')).collect::<Vec<_>>().join("\n");
    for text in [plain.clone(), pair.pem.clone(), bare, STANDARD.encode(&pair.pem)] {
        let read = Certificate::read(&text).unwrap();
        assert_eq!((read.der.as_slice(), read.thumbprint), (pair.der.as_slice(), sha1(&pair.der)));
        assert!(read.not_before < NOW && NOW < read.not_after);
    }
    let mut more = pair.der.clone();
    more.push(0);
    for bad in ["", "!", "AAAA", &plain[..200], &STANDARD.encode(more), &"A".repeat(100_000)] {
        assert_eq!(Certificate::read(bad).unwrap_err(), CertificateError::Syntax);
    }
    let weak = super::Certificate::from_der(pair_of_kind_we_refuse());
    assert_eq!(weak.unwrap_err(), CertificateError::Key);
}

/// A certificate with an Ed25519 key.
fn pair_of_kind_we_refuse() -> Vec<u8> {
    pair(&rcgen::PKCS_ED25519, 2020..2040).der
}
