//! The authority: one per server, issues and verifies every token.
//!
//! Verifying costs an RSA operation the first time a token is seen; after that the token
//! is found in a bounded memory, and only its times are looked at again. The memory holds
//! nothing but tokens that verified, so strangers cannot fill it. Whether the *principal*
//! is still welcome is not asked here: callers compare with the state they hold.
//!
//! Signing costs an RSA operation too. Clients ask for the same access token over and over
//! (docker once for every push and pull), so one that was issued within the last minute is
//! handed out again; the caller has checked the credential anew each time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use portolan_types::{Secret, Timestamp};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::access::{ActionSet, Grant};
use crate::keys::{Jwk, KeyRing, SigningKey};
use crate::master::{KeyError, MasterKey};
use crate::token::{
    ACCESS, AccessToken, AdminClaim, DirectoryClaims, DirectoryToken, Permissions, REFRESH, REGISTRY_ISSUER,
    RefreshToken, RegistryClaims, Subject, TokenError,
};

/// Longest token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Memory for verified tokens.
const VERIFIED_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Access tokens kept to be handed out again.
const ISSUED_MAX: usize = 4_096;
/// How long an access token is handed out again.
const REISSUE_MAX: Duration = Duration::from_secs(60);
/// Grants of a token that is kept; larger ones are rare and are signed anew.
const REISSUE_GRANTS_MAX: usize = 8;
/// How far in the future a token may begin, for servers whose clocks differ.
const SKEW_SECS_MAX: i64 = 60;

/// Issues and verifies tokens; holds the master key and the signing keys.
pub struct Authority {
    master: MasterKey,
    ring: RwLock<Arc<KeyRing>>,
    verified: Cache<Box<str>, Arc<Verified>, TokenWeight>,
    issued: Cache<AccessKey, Issued>,
}

/// What two requests for the same access token have in common.
#[derive(PartialEq, Eq, Hash)]
struct AccessKey {
    login_server: Box<str>,
    registry: i64,
    tenant: Uuid,
    subject: Subject,
    grants: Box<[Grant]>,
    lifetime: Duration,
}

/// A token and how long it lasts.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The token.
    pub token: Secret<String>,
    /// Seconds until it expires.
    pub expires_in_secs: u64,
    /// When it was issued.
    pub issued: Timestamp,
}

/// What a new directory token is to say.
#[derive(Clone, Copy, Debug)]
pub struct NewDirectoryToken<'a> {
    /// `{server}/{tenant}/v2.0`, as the discovery document says.
    pub issuer: &'a str,
    /// The resource it is for.
    pub audience: &'a str,
    /// The tenant.
    pub tenant: Uuid,
    /// Object id.
    pub object_id: Uuid,
    /// Application id.
    pub app_id: Option<Uuid>,
    /// How long it lasts.
    pub lifetime: Duration,
}

/// The registry a registry token is for.
#[derive(Clone, Copy, Debug)]
pub struct RegistryAudience<'a> {
    /// Its login server.
    pub login_server: &'a str,
    /// Its row.
    pub id: i64,
}

/// A token that verified.
struct Verified {
    not_before: i64,
    expires: i64,
    what: What,
}

enum What {
    Directory { audience: String, token: Arc<DirectoryToken> },
    Refresh { audience: String, registry: i64, token: Arc<RefreshToken> },
    Access { audience: String, registry: i64, token: Arc<AccessToken> },
}

#[derive(Clone)]
struct TokenWeight;

impl Weighter<Box<str>, Arc<Verified>> for TokenWeight {
    /// The token's text, and about as much again for what it was parsed into.
    fn weight(&self, token: &Box<str>, _: &Arc<Verified>) -> u64 {
        2 * token.len() as u64 + 128
    }
}

impl Authority {
    /// An authority without signing keys; [`Authority::install`] gives it some.
    pub fn new(master: MasterKey) -> Authority {
        Authority {
            master,
            ring: RwLock::default(),
            verified: Cache::with_weighter(16 * 1024, VERIFIED_BYTES_MAX, TokenWeight),
            issued: Cache::new(ISSUED_MAX),
        }
    }

    /// Take these signing keys into use, the signing one first, in place of any before.
    pub fn install(&self, keys: Vec<SigningKey>) {
        *self.ring.write() = Arc::new(KeyRing::new(keys));
        self.verified.clear();
        self.issued.clear();
    }

    /// The master key.
    pub fn master(&self) -> &MasterKey {
        &self.master
    }

    /// HMAC-SHA256 of `data` under the key for `purpose`.
    pub fn hmac(&self, purpose: &str, data: &[u8]) -> [u8; 32] {
        self.master.hmac(purpose, data)
    }

    /// Whether `tag` is [`Authority::hmac`] of the same purpose and data, in constant time.
    pub fn verify_hmac(&self, purpose: &str, data: &[u8], tag: &[u8]) -> bool {
        self.master.verify_hmac(purpose, data, tag)
    }

    /// The public keys, for the key set document.
    pub fn jwks(&self) -> Vec<Jwk> {
        self.ring.read().jwks()
    }

    /// Issue a directory token.
    pub fn issue_directory(&self, new: &NewDirectoryToken<'_>, now: Timestamp) -> Result<Issued, KeyError> {
        let (iat, exp) = span(now, new.lifetime);
        let claims = DirectoryClaims {
            aud: new.audience.to_owned(),
            iss: new.issuer.to_owned(),
            iat,
            nbf: iat,
            exp,
            appid: new.app_id,
            appidacr: new.app_id.map(|_| "1".to_owned()),
            idtyp: if new.app_id.is_some() { "app" } else { "user" }.to_owned(),
            oid: new.object_id,
            sub: new.object_id,
            tid: new.tenant,
            uti: Uuid::new_v4().to_string(),
            ver: "2.0".to_owned(),
        };
        self.issue(&claims, new.lifetime, now)
    }

    /// Issue a registry refresh token for somebody of the directory. `may` is what they may
    /// do now, told in the `permissions` claim and decided anew at every use.
    pub fn issue_refresh(
        &self,
        registry: RegistryAudience<'_>,
        tenant: Uuid,
        who: &DirectoryToken,
        may: ActionSet,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Issued, KeyError> {
        let permissions = Permissions { actions: may.scope_map_words(), not_actions: Vec::new() };
        let mut claims = registry_claims(registry, tenant, REFRESH, who.object_id.to_string(), lifetime, now);
        claims.oid = Some(who.object_id);
        claims.appid = who.app_id;
        claims.permissions = Some(permissions);
        self.issue(&claims, lifetime, now)
    }

    /// A registry access token over these grants: a new one, or one of the last minute's
    /// that says the same. The caller has checked, now, that `subject` is who asks.
    pub fn issue_access(
        &self,
        registry: RegistryAudience<'_>,
        tenant: Uuid,
        subject: &Subject,
        grants: &[Grant],
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Issued, KeyError> {
        let key = AccessKey {
            login_server: registry.login_server.into(),
            registry: registry.id,
            tenant,
            subject: subject.clone(),
            grants: grants.into(),
            lifetime,
        };
        if let Some(kept) = self.issued.get(&key) {
            let age = now.since(kept.issued);
            if kept.issued <= now && age < REISSUE_MAX.min(lifetime / 10) {
                return Ok(Issued { expires_in_secs: kept.expires_in_secs.saturating_sub(age.as_secs()), ..kept });
            }
        }
        let issued = self.sign_access(registry, tenant, subject, grants, lifetime, now)?;
        if grants.len() <= REISSUE_GRANTS_MAX {
            self.issued.insert(key, issued.clone());
        }
        Ok(issued)
    }

    fn sign_access(
        &self,
        registry: RegistryAudience<'_>,
        tenant: Uuid,
        subject: &Subject,
        grants: &[Grant],
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Issued, KeyError> {
        let sub = match subject {
            Subject::Directory { object_id, .. } => object_id.to_string(),
            Subject::Admin { .. } => "admin".to_owned(),
            Subject::Anonymous => "anonymous".to_owned(),
        };
        let mut claims = registry_claims(registry, tenant, ACCESS, sub, lifetime, now);
        match subject {
            Subject::Directory { object_id, app_id } => {
                claims.oid = Some(*object_id);
                claims.appid = *app_id;
            }
            Subject::Admin { which, generation } => {
                claims.generation = Some(AdminClaim { which: u8::from(which.index() == 1), generation: *generation });
            }
            Subject::Anonymous => {}
        }
        claims.access = Some(grants.to_vec());
        self.issue(&claims, lifetime, now)
    }

    /// Verify a directory token for an audience that `accepts` says is ours.
    pub fn verify_directory(
        &self,
        token: &str,
        accepts: impl FnOnce(&str) -> bool,
        now: Timestamp,
    ) -> Result<Arc<DirectoryToken>, TokenError> {
        match &self.verify(token, now)?.what {
            What::Directory { audience, token } if accepts(audience) => Ok(token.clone()),
            What::Directory { .. } => Err(TokenError::Audience),
            _ => Err(TokenError::Kind),
        }
    }

    /// Verify a registry refresh token.
    pub fn verify_refresh(
        &self,
        token: &str,
        registry: RegistryAudience<'_>,
        now: Timestamp,
    ) -> Result<Arc<RefreshToken>, TokenError> {
        match &self.verify(token, now)?.what {
            What::Refresh { audience, registry: id, token }
                if *id == registry.id && audience == registry.login_server =>
            {
                Ok(token.clone())
            }
            What::Refresh { .. } => Err(TokenError::Audience),
            _ => Err(TokenError::Kind),
        }
    }

    /// Verify a registry access token.
    pub fn verify_access(
        &self,
        token: &str,
        registry: RegistryAudience<'_>,
        now: Timestamp,
    ) -> Result<Arc<AccessToken>, TokenError> {
        match &self.verify(token, now)?.what {
            What::Access { audience, registry: id, token }
                if *id == registry.id && audience == registry.login_server =>
            {
                Ok(token.clone())
            }
            What::Access { .. } => Err(TokenError::Audience),
            _ => Err(TokenError::Kind),
        }
    }

    fn issue(&self, claims: &impl Serialize, lifetime: Duration, now: Timestamp) -> Result<Issued, KeyError> {
        let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Crypto("write claims"))?;
        let ring = self.ring.read().clone();
        let token = ring.active().ok_or(KeyError::Crypto("no signing key"))?.sign(&claims)?;
        Ok(Issued { token: Secret::new(token), expires_in_secs: lifetime.as_secs(), issued: now })
    }

    fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Verified>, TokenError> {
        let verified = match self.verified.get(token) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.verify_signature(token)?);
                if now.unix_secs() < verified.expires {
                    self.verified.insert(token.into(), verified.clone());
                }
                verified
            }
        };
        if now.unix_secs() >= verified.expires {
            self.verified.remove(token);
            return Err(TokenError::Expired);
        }
        if now.unix_secs() + SKEW_SECS_MAX < verified.not_before {
            return Err(TokenError::NotYetValid);
        }
        Ok(verified)
    }

    fn verify_signature(&self, token: &str) -> Result<Verified, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        if header.alg != jsonwebtoken::Algorithm::RS256 {
            return Err(TokenError::Invalid);
        }
        let ring = self.ring.read().clone();
        let key = header.kid.as_deref().and_then(|kid| ring.find(kid)).ok_or(TokenError::Invalid)?;
        if let Some(claims) = decode::<RegistryClaims>(token, key)? {
            return registry_token(claims);
        }
        let claims = decode::<DirectoryClaims>(token, key)?.ok_or(TokenError::Invalid)?;
        if claims.iss == REGISTRY_ISSUER || !claims.iss.ends_with(&format!("/{}/v2.0", claims.tid)) {
            return Err(TokenError::Invalid);
        }
        let token = DirectoryToken {
            object_id: claims.oid,
            app_id: claims.appid,
            tenant: claims.tid,
            issued: Timestamp::from_unix_secs(claims.iat),
        };
        Ok(Verified {
            not_before: claims.nbf,
            expires: claims.exp,
            what: What::Directory { audience: claims.aud, token: Arc::new(token) },
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({:?})", self.ring.read())
    }
}

/// Check the signature and read the claims; `None` when the signature is good and the
/// claims are not a `C`.
fn decode<C: DeserializeOwned>(token: &str, key: &SigningKey) -> Result<Option<C>, TokenError> {
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    // Times and audience are checked by the caller, against its own clock and names.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    match jsonwebtoken::decode::<C>(token, key.decoding(), &validation) {
        Ok(data) => Ok(Some(data.claims)),
        Err(e) if matches!(e.kind(), jsonwebtoken::errors::ErrorKind::Json(_)) => Ok(None),
        Err(_) => Err(TokenError::Invalid),
    }
}

fn registry_token(claims: RegistryClaims) -> Result<Verified, TokenError> {
    if claims.iss != REGISTRY_ISSUER {
        return Err(TokenError::Invalid);
    }
    let issued = Timestamp::from_unix_secs(claims.iat);
    let what = match claims.grant_type.as_str() {
        REFRESH => {
            let object_id = claims.oid.ok_or(TokenError::Invalid)?;
            let token = RefreshToken { object_id, app_id: claims.appid, issued };
            What::Refresh { audience: claims.aud, registry: claims.rid, token: Arc::new(token) }
        }
        ACCESS => {
            let subject = claims.subject().ok_or(TokenError::Invalid)?;
            let grants = claims.access.unwrap_or_default().into();
            let token = AccessToken { subject, grants, issued };
            What::Access { audience: claims.aud, registry: claims.rid, token: Arc::new(token) }
        }
        _ => return Err(TokenError::Invalid),
    };
    Ok(Verified { not_before: claims.nbf, expires: claims.exp, what })
}

fn registry_claims(
    registry: RegistryAudience<'_>,
    tenant: Uuid,
    grant_type: &str,
    sub: String,
    lifetime: Duration,
    now: Timestamp,
) -> RegistryClaims {
    let (iat, exp) = span(now, lifetime);
    RegistryClaims {
        jti: Uuid::new_v4().to_string(),
        sub,
        nbf: iat,
        exp,
        iat,
        iss: REGISTRY_ISSUER.to_owned(),
        aud: registry.login_server.to_owned(),
        version: "1.0".to_owned(),
        rid: registry.id,
        grant_type: grant_type.to_owned(),
        tenant,
        oid: None,
        appid: None,
        generation: None,
        permissions: None,
        access: None,
        roles: Vec::new(),
    }
}

fn span(now: Timestamp, lifetime: Duration) -> (i64, i64) {
    (now.unix_secs(), now.plus(lifetime).unix_secs())
}

#[cfg(test)]
mod tests {
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

    fn access(authority: &Authority) -> String {
        let tenant = Uuid::from_u128(1);
        authority.issue_access(REG, tenant, &someone(), &grants(), HOUR, NOW).unwrap().token.into_exposed()
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
        let who =
            DirectoryToken { object_id: Uuid::from_u128(7), app_id: None, tenant: Uuid::from_u128(1), issued: NOW };
        let issued = authority.issue_refresh(REG, who.tenant, &who, ActionSet::ALL, HOUR, NOW);
        issued.unwrap().token.into_exposed()
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
        for subject in [admin, Subject::Anonymous] {
            let issued = a.issue_access(REG, Uuid::nil(), &subject, &[], HOUR, NOW).unwrap();
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
        let torn = resigned(&a, &access(&a), |c| c["gen"] = json!({"which": 0, "generation": 0}));
        assert_eq!(a.verify_access(&torn, REG, NOW).unwrap_err(), TokenError::Invalid);
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
        refused("an unknown key id", &edited(&token, |h, _| h["kid"] = json!("x")));

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
            a.issue_access(REG, Uuid::nil(), subject, grants, HOUR, now).unwrap()
        };
        let first = ask(&someone(), &grants(), 0);
        let again = ask(&someone(), &grants(), 59);
        assert_eq!(first.token, again.token);
        assert_eq!(again.expires_in_secs, 3_600 - 59);
        assert_ne!(first.token, ask(&someone(), &grants(), 61).token);
        assert_ne!(first.token, ask(&someone(), &[], 0).token);
        let admin = |generation| Subject::Admin { which: AdminPassword::First, generation };
        assert_ne!(ask(&admin(0), &[], 0).token, ask(&admin(1), &[], 0).token, "a renewed password is another holder");
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
}
