//! Tokens of other issuers, and every way we could think of to pass one off.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::keys::SigningKey;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const ISSUER: &str = "https://token.example";

fn key() -> SigningKey {
    SigningKey::generate().unwrap().0
}

fn set(keys: &[Value]) -> Keys {
    Keys::parse(&serde_json::to_vec(&json!({"keys": keys})).unwrap()).unwrap()
}

fn public(key: &SigningKey) -> Value {
    serde_json::to_value(key.jwk()).unwrap()
}

fn claims() -> Value {
    let now = NOW.unix_secs();
    json!({"iss": ISSUER, "sub": "repo:me/it:ref:refs/heads/main", "aud": "api://AzureADTokenExchange",
           "iat": now, "nbf": now, "exp": now + 300, "jti": "1"})
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = claims();
    change(&mut claims);
    claims
}

fn sign(key: &SigningKey, claims: &Value) -> String {
    key.sign(&serde_json::to_vec(claims).unwrap()).unwrap()
}

fn verify(keys: &Keys, token: &str) -> Result<Claims, TokenError> {
    keys.verify(token, ISSUER, |a| a == "api://AzureADTokenExchange", NOW)
}

/// A token put together by hand, without a signature that means anything.
fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_good_token_says_who_it_speaks_for() {
    let (key, other) = (key(), key());
    let keys = set(&[public(&other), public(&key)]);
    let token = sign(&key, &claims());
    let read = verify(&keys, &token).unwrap();
    assert_eq!((read.issuer.as_str(), read.subject.as_str()), (ISSUER, "repo:me/it:ref:refs/heads/main"));
    assert_eq!(
        (read.audiences.as_slice(), read.text("jti")),
        (&["api://AzureADTokenExchange".to_owned()][..], Some("1"))
    );
    let several = sign(&key, &with(|c| c["aud"] = json!(["x", "api://AzureADTokenExchange"])));
    assert!(verify(&keys, &several).is_ok());
    assert_eq!(unverified_issuer(&token).unwrap(), (ISSUER.to_owned(), Some(key.kid().to_owned())));
    assert!(keys.may_know(Some(key.kid())) && !keys.may_know(Some("another")));
}

#[test]
fn times_issuer_and_audience_count() {
    let key = key();
    let keys = set(&[public(&key)]);
    let now = NOW.unix_secs();
    for (claims, expected) in [
        (with(|c| c["exp"] = json!(now - 61)), TokenError::Expired),
        (with(|c| c["exp"] = json!(-1)), TokenError::Expired),
        (with(|c| c["exp"] = json!("soon")), TokenError::Invalid),
        (with(|c| c["exp"] = Value::Null), TokenError::Invalid),
        (with(|c| c["nbf"] = json!(now + 61)), TokenError::NotYetValid),
        (with(|c| c["nbf"] = json!(i64::MAX)), TokenError::NotYetValid),
        (with(|c| c["iss"] = json!("https://token.example/")), TokenError::Invalid),
        (with(|c| c["iss"] = json!("https://TOKEN.example")), TokenError::Invalid),
        (with(|c| c["iss"] = json!([ISSUER])), TokenError::Invalid),
        (with(|c| c["aud"] = json!("api://azureadtokenexchange")), TokenError::Audience),
        (with(|c| c["aud"] = json!([])), TokenError::Audience),
        (with(|c| c["aud"] = json!(7)), TokenError::Invalid),
        (with(|c| c["sub"] = json!(7)), TokenError::Invalid),
        (json!([1]), TokenError::Invalid),
    ] {
        assert_eq!(verify(&keys, &sign(&key, &claims)).unwrap_err(), expected, "{claims}");
    }
    // Clocks are a little apart.
    assert!(verify(&keys, &sign(&key, &with(|c| c["exp"] = json!(now - 59)))).is_ok());
    assert!(verify(&keys, &sign(&key, &with(|c| c["nbf"] = json!(now as f64 + 58.5)))).is_ok());
}

#[test]
fn forgeries_are_refused() {
    let (key, stranger) = (key(), key());
    let keys = set(&[public(&key)]);
    let good = sign(&key, &claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let kid = key.kid();
    let other = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&with(|c| c["sub"] = json!("me"))).unwrap());
    // The public key as the secret of a symmetric signature: "key confusion".
    let confused = |secret: &[u8]| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let modulus = URL_SAFE_NO_PAD.decode(&key.jwk().n).unwrap();
    let document = serde_json::to_vec(&public(&key)).unwrap();
    for (what, token) in [
        ("nothing", String::new()),
        ("two parts", head.to_owned()),
        ("another's signature", sign(&stranger, &claims())),
        ("other claims under it", format!("{header}.{other}.{signature}")),
        ("no signature", format!("{head}.")),
        ("none", forged(&json!({"alg": "none", "kid": kid}), &claims(), b"")),
        ("None", forged(&json!({"alg": "None", "kid": kid}), &claims(), b"")),
        ("no alg", forged(&json!({"kid": kid}), &claims(), b"")),
        ("HS256 with the modulus", confused(&modulus)),
        ("HS256 with its text", confused(key.jwk().n.as_bytes())),
        ("HS256 with the document", confused(&document)),
        ("ES256", forged(&json!({"alg": "ES256", "kid": kid}), &claims(), &[1; 64])),
        ("too large", "x".repeat(TOKEN_BYTES_MAX + 1)),
    ] {
        assert_eq!(verify(&keys, &token).unwrap_err(), TokenError::Invalid, "{what}");
    }
    // The key in the token's own header counts for nothing.
    let own = json!({"alg": "RS256", "kid": kid, "jwk": public(&stranger), "jku": "https://evil.example"});
    let signed = sign(&stranger, &claims());
    let signature = URL_SAFE_NO_PAD.decode(signed.rsplit_once('.').unwrap().1).unwrap();
    assert!(verify(&keys, &forged(&own, &claims(), &signature)).is_err());
}

#[test]
fn critical_extensions_that_are_not_known_make_a_token_invalid() {
    let (key, pkcs8) = SigningKey::generate().unwrap();
    let keys = set(&[public(&key)]);
    let token = |crit: Option<Vec<String>>| {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(key.kid().to_owned());
        header.crit = crit;
        let key = EncodingKey::from_rsa_der(&pkcs1(&pkcs8));
        jsonwebtoken::encode(&header, &claims(), &key).unwrap()
    };
    assert!(verify(&keys, &token(None)).is_ok());
    assert_eq!(verify(&keys, &token(Some(vec!["exp".into()]))).unwrap_err(), TokenError::Invalid);
}

/// The RSA key inside a PKCS#8 document: what follows its fixed header of 26 bytes.
fn pkcs1(pkcs8: &[u8]) -> Vec<u8> {
    pkcs8[26..].to_vec()
}

#[test]
fn key_sets_say_what_their_keys_are_for() {
    let key = key();
    let token = sign(&key, &claims());
    let but = |name: &str, value: Value| {
        let mut public = public(&key);
        public[name] = value;
        public
    };
    assert!(verify(&set(&[but("use", Value::Null)]), &token).is_ok());
    assert!(verify(&set(&[but("alg", Value::Null)]), &token).is_ok());
    assert!(verify(&set(&[but("kid", Value::Null)]), &token).is_ok(), "a key without an id may be anyone");
    // A key for something else, beside one that would verify nothing of this.
    let other = public(&self::key());
    for bad in
        [but("use", json!("enc")), but("alg", json!("RS512")), but("alg", json!("RSA-OAEP")), but("kid", json!("x"))]
    {
        assert!(verify(&set(&[other.clone(), bad.clone()]), &token).is_err(), "{bad}");
    }
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"});
    for (text, why) in [
        ("", KeysError::Syntax),
        ("[]", KeysError::Syntax),
        (r#"{"keys":{}}"#, KeysError::Syntax),
        (r#"{"keys":[]}"#, KeysError::Empty),
        (r#"{"keys":[1,{"kty":"XYZ"}]}"#, KeysError::Empty),
        (&format!(r#"{{"keys":[{secret}]}}"#), KeysError::Empty),
    ] {
        assert_eq!(Keys::parse(text.as_bytes()).unwrap_err(), why, "{text}");
    }
    let many: Vec<Value> = (0..1_000).map(|n| but("kid", json!(n.to_string()))).collect();
    assert_eq!(set(&many).0.len(), KEYS_MAX);
}
