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
    ACCESS, AccessToken, AdminClaim, DirectoryClaims, DirectoryToken, IdClaims, Permissions, REFRESH, REGISTRY_ISSUER,
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
    since: Timestamp,
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

/// A person who signed in, as their tokens tell.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// What they sign in with: `alice@example.com`.
    pub user_name: &'a str,
    /// For people.
    pub display_name: &'a str,
    /// The client application that they signed in by.
    pub client: Uuid,
    /// When they proved who they are.
    pub signed_in: Timestamp,
    /// How (`amr` of RFC 8176): `pwd`.
    pub methods: &'a [&'a str],
    /// What the client wants to find in the id token.
    pub nonce: Option<&'a str>,
}

/// The registry a registry token is for.
#[derive(Clone, Copy, Debug)]
pub struct RegistryAudience<'a> {
    /// Its login server.
    pub login_server: &'a str,
    /// Its row.
    pub id: i64,
}

/// What a new registry refresh token is to say.
#[derive(Clone, Copy, Debug)]
pub struct NewRefreshToken<'a> {
    /// The registry.
    pub registry: RegistryAudience<'a>,
    /// For whom it speaks.
    pub who: &'a DirectoryToken,
    /// What they may do now: told in the `permissions` claim, and decided anew at every use.
    pub may: ActionSet,
    /// Whether the registry has permissions for each repository; clients tell such registries
    /// by the claim `aad_identity`.
    pub by_repository: bool,
    /// How long it lasts.
    pub lifetime: Duration,
}

/// What a new registry access token is to say.
#[derive(Clone, Copy, Debug)]
pub struct NewAccessToken<'a> {
    /// The registry.
    pub registry: RegistryAudience<'a>,
    /// The tenant.
    pub tenant: Uuid,
    /// For whom it speaks.
    pub subject: &'a Subject,
    /// Tokens of this subject that were issued before are refused: none of them is handed out
    /// again.
    pub since: Timestamp,
    /// What it opens.
    pub grants: &'a [Grant],
    /// How long it lasts.
    pub lifetime: Duration,
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
            iat_us: u32::try_from(now.0.rem_euclid(1_000_000)).ok(),
            azp: None,
            name: None,
            upn: None,
            scp: None,
            amr: None,
        };
        self.issue(&claims, new.lifetime, now)
    }

    /// Issue a directory token for a person, with what Entra says of people.
    pub fn issue_user(
        &self,
        new: &NewDirectoryToken<'_>,
        person: &Person<'_>,
        now: Timestamp,
    ) -> Result<Issued, KeyError> {
        let (iat, exp) = span(now, new.lifetime);
        let claims = DirectoryClaims {
            aud: new.audience.to_owned(),
            iss: new.issuer.to_owned(),
            iat,
            nbf: iat,
            exp,
            appid: None,
            appidacr: None,
            idtyp: "user".to_owned(),
            oid: new.object_id,
            sub: new.object_id,
            tid: new.tenant,
            uti: Uuid::new_v4().to_string(),
            ver: "2.0".to_owned(),
            iat_us: u32::try_from(now.0.rem_euclid(1_000_000)).ok(),
            azp: Some(person.client),
            name: Some(person.display_name.to_owned()),
            upn: Some(person.user_name.to_owned()),
            scp: Some("user_impersonation".to_owned()),
            amr: Some(person.methods.iter().map(|m| (*m).to_owned()).collect()),
        };
        self.issue(&claims, new.lifetime, now)
    }

    /// Issue an id token: it tells the client who signed in. `new.audience` is not looked at.
    pub fn issue_id(
        &self,
        new: &NewDirectoryToken<'_>,
        person: &Person<'_>,
        now: Timestamp,
    ) -> Result<Issued, KeyError> {
        let (iat, exp) = span(now, new.lifetime);
        let claims = IdClaims {
            aud: person.client,
            iss: new.issuer,
            iat,
            nbf: iat,
            exp,
            auth_time: person.signed_in.unix_secs(),
            oid: new.object_id,
            sub: new.object_id,
            tid: new.tenant,
            name: person.display_name,
            preferred_username: person.user_name,
            nonce: person.nonce,
            amr: person.methods,
            ver: "2.0",
        };
        self.issue(&claims, new.lifetime, now)
    }

    /// Issue a registry refresh token for somebody of the directory.
    pub fn issue_refresh(&self, new: &NewRefreshToken<'_>, now: Timestamp) -> Result<Issued, KeyError> {
        let who = new.who;
        let permissions = Permissions { actions: new.may.scope_map_words(), not_actions: Vec::new() };
        let sub = who.object_id.to_string();
        let mut claims = registry_claims(new.registry, who.tenant, REFRESH, sub, new.lifetime, now);
        claims.oid = Some(who.object_id);
        claims.appid = who.app_id;
        claims.aad_identity = new.by_repository.then(|| who.object_id.to_string());
        claims.permissions = Some(permissions);
        self.issue(&claims, new.lifetime, now)
    }

    /// A registry access token over these grants: a new one, or one of the last minute's
    /// that says the same. The caller has checked, now, that its subject is who asks.
    pub fn issue_access(&self, new: &NewAccessToken<'_>, now: Timestamp) -> Result<Issued, KeyError> {
        let key = AccessKey {
            login_server: new.registry.login_server.into(),
            registry: new.registry.id,
            tenant: new.tenant,
            subject: new.subject.clone(),
            since: new.since,
            grants: new.grants.into(),
            lifetime: new.lifetime,
        };
        if let Some(kept) = self.issued.get(&key) {
            let age = now.since(kept.issued);
            if kept.issued <= now && age < REISSUE_MAX.min(new.lifetime / 10) {
                return Ok(Issued { expires_in_secs: kept.expires_in_secs.saturating_sub(age.as_secs()), ..kept });
            }
        }
        let issued = self.sign_access(new, now)?;
        if new.grants.len() <= REISSUE_GRANTS_MAX {
            self.issued.insert(key, issued.clone());
        }
        Ok(issued)
    }

    fn sign_access(&self, new: &NewAccessToken<'_>, now: Timestamp) -> Result<Issued, KeyError> {
        let sub = match new.subject {
            Subject::Directory { object_id, .. } => object_id.to_string(),
            Subject::Admin { .. } => "admin".to_owned(),
            Subject::Token { name, .. } => name.to_string(),
            Subject::Anonymous => "anonymous".to_owned(),
        };
        let mut claims = registry_claims(new.registry, new.tenant, ACCESS, sub, new.lifetime, now);
        match new.subject {
            Subject::Directory { object_id, app_id } => {
                claims.oid = Some(*object_id);
                claims.appid = *app_id;
            }
            Subject::Admin { which, generation } => {
                claims.generation = Some(AdminClaim { which: u8::from(which.index() == 1), generation: *generation });
            }
            Subject::Token { password, .. } => claims.password = Some(*password),
            Subject::Anonymous => {}
        }
        claims.access = Some(new.grants.to_vec());
        self.issue(&claims, new.lifetime, now)
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
        let token =
            DirectoryToken { object_id: claims.oid, app_id: claims.appid, tenant: claims.tid, issued: claims.issued() };
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
    let issued = claims.issued();
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
        iat_us: u32::try_from(now.0.rem_euclid(1_000_000)).ok(),
        iss: REGISTRY_ISSUER.to_owned(),
        aud: registry.login_server.to_owned(),
        version: "1.0".to_owned(),
        rid: registry.id,
        grant_type: grant_type.to_owned(),
        tenant,
        oid: None,
        appid: None,
        generation: None,
        password: None,
        aad_identity: None,
        permissions: None,
        access: None,
        roles: Vec::new(),
    }
}

fn span(now: Timestamp, lifetime: Duration) -> (i64, i64) {
    (now.unix_secs(), now.plus(lifetime).unix_secs())
}

#[cfg(test)]
mod tests;
