//! What tokens say, how they end, and every forgery we could think of.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::access::ActionSet;
use crate::password::AdminPassword;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);
const REG: RegistryAudience<'static> = RegistryAudience { login_server: "localhost:8443", id: 1 };

fn authority() -> Authority {
    let authority = Authority::new(MasterKey::new(&[5; 32]));
    authority.install(vec![SigningKey::generate().unwrap().0]);
    authority
}

fn someone() -> Subject {
    Subject::Directory { object_id: Uuid::from_u128(7), app_id: Some(Uuid::from_u128(8)) }
}

fn grants() -> Vec<Grant> {
    vec![Grant { kind: "repository".into(), name: "a".into(), actions: vec!["pull".into()] }]
}

fn issued(authority: &Authority, subject: &Subject, grants: &[Grant], now: Timestamp) -> Issued {
    issued_since(authority, subject, Timestamp(0), grants, now)
}

fn issued_since(a: &Authority, subject: &Subject, since: Timestamp, grants: &[Grant], now: Timestamp) -> Issued {
    let tenant = Uuid::from_u128(1);
    a.issue_access(&NewAccessToken { registry: REG, tenant, subject, since, grants, lifetime: HOUR }, now).unwrap()
}

fn access(authority: &Authority) -> String {
    issued(authority, &someone(), &grants(), NOW).token.into_exposed()
}

fn directory(authority: &Authority, audience: &str) -> String {
    let tenant = Uuid::from_u128(1);
    let new = NewDirectoryToken {
        issuer: &format!("https://localhost:8443/{tenant}/v2.0"),
        audience,
        tenant,
        object_id: Uuid::from_u128(7),
        app_id: None,
        lifetime: HOUR,
    };
    authority.issue_directory(&new, NOW).unwrap().token.into_exposed()
}

fn refresh(authority: &Authority) -> String {
    let who = DirectoryToken { object_id: Uuid::from_u128(7), app_id: None, tenant: Uuid::from_u128(1), issued: NOW };
    let new = NewRefreshToken { registry: REG, who: &who, may: ActionSet::ALL, by_repository: false, lifetime: HOUR };
    authority.issue_refresh(&new, NOW).unwrap().token.into_exposed()
}

fn part(token: &str, i: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(i).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The token with its header and claims put through `edit`, and the signature kept.
fn edited(token: &str, edit: impl FnOnce(&mut Value, &mut Value)) -> String {
    let (mut header, mut claims) = (part(token, 0), part(token, 1));
    edit(&mut header, &mut claims);
    format!("{}.{}.{}", encode(&header), encode(&claims), token.split('.').nth(2).unwrap())
}

/// The same claims signed by our own key, after `edit`: what a server with another
/// clock or an older version might have signed.
fn resigned(authority: &Authority, token: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut claims = part(token, 1);
    edit(&mut claims);
    authority.ring.read().active().unwrap().sign(claims.to_string().as_bytes()).unwrap()
}

#[test]
fn tokens_say_what_was_put_in() {
    let a = authority();
    let token = a.verify_access(&access(&a), REG, NOW).unwrap();
    assert_eq!((token.subject.clone(), token.grants.to_vec()), (someone(), grants()));
    let admin = Subject::Admin { which: AdminPassword::Second, generation: 3 };
    let token = Subject::Token { name: "my-token".parse().unwrap(), password: 12 };
    for subject in [admin, token, Subject::Anonymous] {
        let issued = issued(&a, &subject, &[], NOW);
        assert_eq!(a.verify_access(issued.token.expose(), REG, NOW).unwrap().subject, subject);
    }
    assert_eq!(a.verify_refresh(&refresh(&a), REG, NOW).unwrap().object_id, Uuid::from_u128(7));
    let d = a.verify_directory(&directory(&a, "x"), |aud| aud == "x", NOW).unwrap();
    assert_eq!((d.object_id, d.tenant), (Uuid::from_u128(7), Uuid::from_u128(1)));
}

#[test]
fn claims_are_those_of_acr() {
    let a = authority();
    let claims = part(&access(&a), 1);
    assert_eq!(claims["iss"], "Azure Container Registry");
    assert_eq!(claims["aud"], "localhost:8443");
    assert_eq!(claims["grant_type"], "access_token");
    assert_eq!(claims["version"], "1.0");
    assert_eq!(claims["access"], json!([{"type": "repository", "name": "a", "actions": ["pull"]}]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3_600);
    assert!(claims["jti"].is_string() && claims["roles"].is_array());
    let claims = part(&refresh(&a), 1);
    assert_eq!(claims["grant_type"], "refresh_token");
    assert_eq!(claims["permissions"]["notActions"], json!([]));
    assert!(claims["permissions"]["actions"].as_array().unwrap().contains(&json!("read")));
    assert_eq!(part(&refresh(&a), 0)["alg"], "RS256");
}

#[test]
fn times_are_kept() {
    let a = authority();
    let token = access(&a);
    let check = |t: &str, secs: i64| a.verify_access(t, REG, Timestamp(NOW.0 + secs * 1_000_000)).map(|_| ());
    assert_eq!(check(&token, 3_599), Ok(()));
    assert_eq!(check(&token, 3_600), Err(TokenError::Expired), "also when it was seen before");
    assert_eq!(check(&token, 3_600), Err(TokenError::Expired));
    assert_eq!(check(&token, 0), Ok(()), "being refused once does not make it bad");
    assert_eq!(check(&token, -30), Ok(()), "clocks differ a little");
    assert_eq!(check(&token, -61), Err(TokenError::NotYetValid));
    let later = resigned(&a, &token, |c| c["nbf"] = json!(NOW.unix_secs() + 1_000));
    assert_eq!(check(&later, 0), Err(TokenError::NotYetValid));
}

#[test]
fn audiences_and_kinds_are_kept_apart() {
    let a = authority();
    let other = RegistryAudience { login_server: "other.localhost:8443", id: 2 };
    let reborn = RegistryAudience { id: 3, ..REG };
    for elsewhere in [other, reborn] {
        assert_eq!(a.verify_access(&access(&a), elsewhere, NOW).unwrap_err(), TokenError::Audience);
        assert_eq!(a.verify_refresh(&refresh(&a), elsewhere, NOW).unwrap_err(), TokenError::Audience);
    }
    assert_eq!(a.verify_directory(&directory(&a, "x"), |_| false, NOW).unwrap_err(), TokenError::Audience);
    assert_eq!(a.verify_access(&refresh(&a), REG, NOW).unwrap_err(), TokenError::Kind);
    assert_eq!(a.verify_access(&directory(&a, "localhost:8443"), REG, NOW).unwrap_err(), TokenError::Kind);
    assert_eq!(a.verify_refresh(&access(&a), REG, NOW).unwrap_err(), TokenError::Kind);
    assert_eq!(a.verify_directory(&access(&a), |_| true, NOW).unwrap_err(), TokenError::Kind);
    let posing = resigned(&a, &directory(&a, "x"), |c| c["iss"] = json!(REGISTRY_ISSUER));
    assert_eq!(a.verify_directory(&posing, |_| true, NOW).unwrap_err(), TokenError::Invalid);
    let foreign = resigned(&a, &access(&a), |c| c["iss"] = json!("https://evil.example"));
    assert_eq!(a.verify_access(&foreign, REG, NOW).unwrap_err(), TokenError::Invalid);
    for (claim, value) in [("gen", json!({"which": 0, "generation": 0})), ("pwd", json!(1))] {
        let torn = resigned(&a, &access(&a), |c| c[claim] = value);
        assert_eq!(a.verify_access(&torn, REG, NOW).unwrap_err(), TokenError::Invalid, "{claim}");
    }
    let nobody = Subject::Anonymous;
    let nobody = issued(&a, &nobody, &[], NOW).token.into_exposed();
    for (sub, pwd) in [("admin", Value::Null), ("a/b", json!(1)), ("", json!(1)), ("my-token", Value::Null)] {
        let torn = resigned(&a, &nobody, |c| {
            c["sub"] = json!(sub);
            c["pwd"] = pwd;
        });
        assert_eq!(a.verify_access(&torn, REG, NOW).unwrap_err(), TokenError::Invalid, "{sub}");
    }
}

#[test]
fn forgeries_are_refused() {
    let a = authority();
    let token = access(&a);
    a.verify_access(&token, REG, NOW).unwrap();
    let refused = |what: &str, forged: &str| {
        assert_eq!(a.verify_access(forged, REG, NOW).unwrap_err(), TokenError::Invalid, "{what}");
    };
    let grab = |c: &mut Value| c["access"] = json!([{"type": "repository", "name": "*", "actions": ["*"]}]);
    refused("changed claims", &edited(&token, |_, c| grab(c)));
    refused(
        "no algorithm",
        &edited(&token, |h, c| {
            h["alg"] = json!("none");
            grab(c)
        }),
    );
    refused(
        "no algorithm, no signature",
        &format!("{}.{}.", encode(&json!({"alg": "none"})), encode(&part(&token, 1))),
    );
    refused("another algorithm", &edited(&token, |h, _| h["alg"] = json!("RS512")));
    refused(
        "no key id",
        &edited(&token, |h, _| {
            h.as_object_mut().unwrap().remove("kid");
        }),
    );
    for kid in [json!("x"), json!(""), json!(null), json!(1), json!("../../master.key"), json!("' OR '1'='1")] {
        refused("an unknown key id", &edited(&token, |h, _| h["kid"] = kid));
    }
    // A key brought along, by value or by address, is not looked at.
    let mine = SigningKey::generate().unwrap().0;
    let signed = mine.sign(part(&token, 1).to_string().as_bytes()).unwrap();
    for (name, value) in [
        ("jwk", serde_json::to_value(mine.jwk()).unwrap()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
    ] {
        refused("a key of the caller's", &edited(&signed, |h, _| h[name] = value.clone()));
        refused(
            "a key of the caller's under our id",
            &edited(&signed, |h, _| {
                h["kid"] = part(&token, 0)["kid"].clone();
                h[name] = value;
            }),
        );
    }

    // HS256 with the public key as the shared secret.
    let (mut header, mut claims) = (part(&token, 0), part(&token, 1));
    header["alg"] = json!("HS256");
    grab(&mut claims);
    let signing_input = format!("{}.{}", encode(&header), encode(&claims));
    let jwk = a.jwks().remove(0);
    for secret in [jwk.n.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(&jwk.n).unwrap(), Vec::new()] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let tag = aws_lc_rs::hmac::sign(&key, signing_input.as_bytes());
        refused("HS256 with the public key", &format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(tag)));
    }

    // Another server's key under our key's id.
    let other = SigningKey::generate().unwrap().1;
    let kid = a.jwks().remove(0).kid;
    let stranger = SigningKey::from_pkcs8(&kid, &other).unwrap();
    refused("a stranger's signature", &stranger.sign(part(&token, 1).to_string().as_bytes()).unwrap());

    let (head, signature) = token.rsplit_once('.').unwrap();
    refused("no signature", &format!("{head}."));
    refused("half a signature", &format!("{head}.{}", &signature[..signature.len() / 2]));
    refused("a fourth part", &format!("{token}.x"));
    for nonsense in ["", ".", "..", "a.b.c", "é.é.é", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
        refused("nonsense", nonsense);
    }
    // Nothing of this took the good token's place.
    a.verify_access(&token, REG, NOW).unwrap();
    assert_eq!(a.verified.len(), 1, "what was refused is not remembered");
}

#[test]
fn a_key_is_replaced_without_logging_anyone_out() {
    let a = authority();
    let (old, pkcs8) = SigningKey::generate().unwrap();
    let kid = old.kid().to_owned();
    a.install(vec![old]);
    let token = access(&a);
    let reopened = SigningKey::from_pkcs8(&kid, &pkcs8).unwrap();
    a.install(vec![SigningKey::generate().unwrap().0, reopened]);
    a.verify_access(&token, REG, NOW).unwrap();
    assert_ne!(part(&access(&a), 0)["kid"], json!(kid), "the new key signs");
    a.install(vec![SigningKey::generate().unwrap().0]);
    assert_eq!(a.verify_access(&token, REG, NOW).unwrap_err(), TokenError::Invalid);
    assert!(Authority::new(MasterKey::new(&[1; 32])).jwks().is_empty());
}

#[test]
fn the_same_token_is_handed_out_for_a_minute() {
    let a = authority();
    let ask = |subject: &Subject, grants: &[Grant], secs: i64| {
        let now = Timestamp(NOW.0 + secs * 1_000_000);
        issued(&a, subject, grants, now)
    };
    let first = ask(&someone(), &grants(), 0);
    let again = ask(&someone(), &grants(), 59);
    assert_eq!(first.token, again.token);
    assert_eq!(again.expires_in_secs, 3_600 - 59);
    assert_ne!(first.token, ask(&someone(), &grants(), 61).token);
    assert_ne!(first.token, ask(&someone(), &[], 0).token);
    let admin = |generation| Subject::Admin { which: AdminPassword::First, generation };
    assert_ne!(ask(&admin(0), &[], 0).token, ask(&admin(1), &[], 0).token, "a renewed password is another holder");
    let token = |password| Subject::Token { name: "my-token".parse().unwrap(), password };
    assert_ne!(ask(&token(1), &[], 0).token, ask(&token(2), &[], 0).token, "and so is another password of a token");
    // Whoever's tokens were all ended gets none of them again.
    let at = |micros| Timestamp(NOW.0 + micros);
    let catalog = [Grant { kind: "registry".into(), name: "catalog".into(), actions: vec!["*".into()] }];
    let before = issued(&a, &someone(), &catalog, at(0));
    assert_eq!(before.token, issued(&a, &someone(), &catalog, at(1)).token);
    let after = issued_since(&a, &someone(), at(2), &catalog, at(3));
    assert_ne!(before.token, after.token);
    let read = a.verify_access(after.token.expose(), REG, at(4)).unwrap();
    assert_eq!(read.issued, at(3), "to the microsecond");
}

#[test]
fn sealed_keys_open() {
    let master = MasterKey::new(&[5; 32]);
    let (key, pkcs8) = SigningKey::generate().unwrap();
    let sealed = SigningKey::seal(&master, key.kid(), &pkcs8).unwrap();
    let opened = SigningKey::unseal(&master, key.kid(), &sealed).unwrap();
    assert_eq!(opened.jwk().n, key.jwk().n);
    assert!(SigningKey::unseal(&master, "other", &sealed).is_err());
    assert!(!format!("{key:?}").contains(&key.jwk().n));
}

#[test]
fn an_id_token_opens_nothing() {
    let authority = authority();
    let tenant = Uuid::from_u128(1);
    let new = NewDirectoryToken {
        issuer: &format!("https://localhost:8443/{tenant}/v2.0"),
        audience: "https://localhost:8443",
        tenant,
        object_id: Uuid::from_u128(7),
        app_id: None,
        lifetime: HOUR,
    };
    let person = Person {
        user_name: "alice@example.com",
        display_name: "Alice",
        client: Uuid::from_u128(9),
        signed_in: NOW,
        methods: &["pwd"],
        nonce: Some("n1"),
    };
    let id = authority.issue_id(&new, &person, NOW).unwrap().token.into_exposed();
    let claims = part(&id, 1);
    assert_eq!(
        (&claims["aud"], &claims["preferred_username"], &claims["nonce"]),
        (&json!(Uuid::from_u128(9)), &json!("alice@example.com"), &json!("n1"))
    );
    // Even by somebody who takes any audience.
    assert_eq!(authority.verify_directory(&id, |_| true, NOW).unwrap_err(), TokenError::Invalid);
    assert_eq!(authority.verify_access(&id, REG, NOW).unwrap_err(), TokenError::Invalid);
    let token = authority.issue_user(&new, &person, NOW).unwrap().token.into_exposed();
    let read = authority.verify_directory(&token, |a| a == "https://localhost:8443", NOW).unwrap();
    assert_eq!((read.object_id, read.app_id, read.issued), (Uuid::from_u128(7), None, NOW));
    assert_eq!((&part(&token, 1)["upn"], &part(&token, 1)["idtyp"]), (&json!("alice@example.com"), &json!("user")));
}

#[test]
fn a_directory_token_knows_when_it_was_issued_within_the_second() {
    let authority = authority();
    let tenant = Uuid::from_u128(1);
    let new = NewDirectoryToken {
        issuer: &format!("https://localhost:8443/{tenant}/v2.0"),
        audience: "a",
        tenant,
        object_id: Uuid::from_u128(7),
        app_id: None,
        lifetime: HOUR,
    };
    let late = Timestamp(NOW.0 + 999_999);
    let token = authority.issue_directory(&new, late).unwrap().token.into_exposed();
    assert_eq!(authority.verify_directory(&token, |_| true, late).unwrap().issued, late);
}
