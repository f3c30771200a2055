//! The three tokens, as claims and as what they mean.
//!
//! - A *directory token* says who somebody is, to one audience (ARM, Graph, the registry
//!   service). Claims as Microsoft Entra's: `aud iss iat nbf exp appid oid sub tid …`.
//! - A *registry refresh token* says it to one registry, for three hours; it is what
//!   `docker login` keeps. Issued by `/oauth2/exchange` for a directory token.
//! - A *registry access token* opens certain repositories of one registry for 75 minutes
//!   and carries the grants in `access`.
//!
//! The registry tokens have ACR's claims and issuer ("Azure Container Registry"), and three
//! of our own: `rid`, the registry's row, so that a name deleted and made again starts
//! clean, and `gen` or `pwd`, the generation of the admin password or the number of the
//! repository token's password it was got with, so that it ends with the password.

use std::sync::Arc;

use portolan_types::{RegistryName, Timestamp, TokenName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::{Grant, Principal};
use crate::password::AdminPassword;

/// The issuer of registry tokens.
pub const REGISTRY_ISSUER: &str = "Azure Container Registry";

/// Why a token was refused. All but [`TokenError::Expired`] mean "not one of ours".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, an algorithm other than RS256, an unknown key, or a wrong signature.
    #[error("the token is not valid")]
    Invalid,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// It will be good later.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It was issued for somebody else to accept.
    #[error("the token was issued for another audience")]
    Audience,
    /// One of our tokens, but of another kind (a refresh token where an access token belongs).
    #[error("the token is of another kind")]
    Kind,
}

/// For whom a registry access token speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user, service principal or managed identity.
    Directory {
        /// Object id.
        object_id: Uuid,
        /// Application id, where there is one.
        app_id: Option<Uuid>,
    },
    /// The admin user, by the password it was got with.
    Admin {
        /// Which of the two.
        which: AdminPassword,
        /// That password's generation.
        generation: u32,
    },
    /// A repository token of the registry, by the password it was got with.
    Token {
        /// Its name.
        name: TokenName,
        /// The number of the password, which no other ever has.
        password: i64,
    },
    /// Nobody: anonymous pull.
    Anonymous,
}

impl Subject {
    /// The principal, in `registry`.
    pub fn principal(&self, registry: &RegistryName) -> Principal {
        match self {
            Subject::Directory { object_id, app_id } => Principal::Directory { object_id: *object_id, app_id: *app_id },
            Subject::Admin { .. } => Principal::AdminUser(registry.clone()),
            Subject::Token { name, .. } => Principal::Token { registry: registry.clone(), name: name.to_string() },
            Subject::Anonymous => Principal::Anonymous,
        }
    }
}

/// A verified directory token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryToken {
    /// Object id of whoever it speaks for.
    pub object_id: Uuid,
    /// Its application id.
    pub app_id: Option<Uuid>,
    /// The tenant.
    pub tenant: Uuid,
    /// When it was issued.
    pub issued: Timestamp,
}

/// A verified registry refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// Object id of whoever it speaks for.
    pub object_id: Uuid,
    /// Its application id.
    pub app_id: Option<Uuid>,
    /// When it was issued.
    pub issued: Timestamp,
}

/// A verified registry access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// For whom it speaks.
    pub subject: Subject,
    /// What it opens.
    pub grants: Arc<[Grant]>,
    /// When it was issued.
    pub issued: Timestamp,
}

/// Claims of a directory token.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DirectoryClaims {
    pub aud: String,
    pub iss: String,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appid: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appidacr: Option<String>,
    pub idtyp: String,
    pub oid: Uuid,
    pub sub: Uuid,
    pub tid: Uuid,
    pub uti: String,
    pub ver: String,
    /// Microseconds to add to `iat`: a password may be renewed and used within one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat_us: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azp: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
}

impl DirectoryClaims {
    /// When the token was issued, to the microsecond if it says so.
    pub(crate) fn issued(&self) -> Timestamp {
        issued(self.iat, self.iat_us)
    }
}

/// Claims of an id token (OpenID Connect Core 1.0, section 2), with Entra's `oid`, `tid` and
/// `preferred_username`. It says to a client who signed in, and opens nothing: it lacks the
/// claims without which no directory token is read.
#[derive(Debug, Serialize)]
pub(crate) struct IdClaims<'a> {
    pub aud: Uuid,
    pub iss: &'a str,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub auth_time: i64,
    pub oid: Uuid,
    pub sub: Uuid,
    pub tid: Uuid,
    pub name: &'a str,
    pub preferred_username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<&'a str>,
    pub amr: &'a [&'a str],
    pub ver: &'static str,
}

/// Claims of a registry refresh or access token.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RegistryClaims {
    pub jti: String,
    pub sub: String,
    pub nbf: i64,
    pub exp: i64,
    pub iat: i64,
    /// Microseconds to add to `iat`, as in directory tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat_us: Option<u32>,
    pub iss: String,
    pub aud: String,
    pub version: String,
    pub rid: i64,
    pub grant_type: String,
    pub tenant: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appid: Option<Uuid>,
    #[serde(rename = "gen", default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<AdminClaim>,
    /// The password of a repository token.
    #[serde(rename = "pwd", default, skip_serializing_if = "Option::is_none")]
    pub password: Option<i64>,
    /// Object id of whoever it speaks for, in registries with permissions for each repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad_identity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Vec<Grant>>,
    #[serde(default)]
    pub roles: Vec<String>,
}

/// Which admin password a token was got with.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct AdminClaim {
    /// 0 or 1.
    pub which: u8,
    pub generation: u32,
}

/// `permissions` of a refresh token, in the words of scope maps.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Permissions {
    pub actions: Vec<String>,
    #[serde(rename = "notActions")]
    pub not_actions: Vec<String>,
}

pub(crate) const REFRESH: &str = "refresh_token";
pub(crate) const ACCESS: &str = "access_token";

fn issued(iat: i64, micros: Option<u32>) -> Timestamp {
    let micros = micros.filter(|us| *us < 1_000_000).unwrap_or(0);
    Timestamp(Timestamp::from_unix_secs(iat).0.saturating_add(i64::from(micros)))
}

impl RegistryClaims {
    /// When the token was issued, to the microsecond if it says so.
    pub(crate) fn issued(&self) -> Timestamp {
        issued(self.iat, self.iat_us)
    }

    /// For whom an access token speaks; nothing when the claims contradict themselves.
    pub(crate) fn subject(&self) -> Option<Subject> {
        match (self.oid, self.generation, self.password) {
            (Some(object_id), None, None) => Some(Subject::Directory { object_id, app_id: self.appid }),
            (None, Some(AdminClaim { which, generation }), None) => {
                let which = AdminPassword::BOTH.into_iter().find(|p| p.index() == usize::from(which))?;
                Some(Subject::Admin { which, generation })
            }
            (None, None, Some(password)) => Some(Subject::Token { name: self.sub.parse().ok()?, password }),
            (None, None, None) if self.sub == "anonymous" => Some(Subject::Anonymous),
            _ => None,
        }
    }
}
