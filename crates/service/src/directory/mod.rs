//! The directory: users, applications, service principals and managed identities, and what
//! they prove who they are with.
//!
//! An [`Application`] is what a program is called; its [`ServicePrincipal`] is what may be
//! given roles. Both may have credentials, and either's open the same door. A [`User`] is a
//! person. A managed identity ([`ManagedIdentity`]) is a service principal whose credentials
//! nobody handles: it is a resource in a group, and its tokens come from an endpoint.
//!
//! Whoever may write here may become anybody: they can give any principal another secret. So
//! writing asks for [`Action::PrincipalWrite`] at the subscription, which only `Owner` and
//! `User Access Administrator` have of the built-in roles; and whoever has that could give
//! themselves any role anyway. Reading asks for [`Action::PrincipalRead`] there; anybody may
//! read of themselves. Managed identities are resources and ask for their own actions at their
//! own scope.
//!
//! Taking away a credential, or forbidding a principal to act, ends the tokens that it holds.
//! Nobody can delete or disable themselves: whoever does it can still undo it.

mod application;
mod credential;
mod federated;
mod kind;
mod managed;
mod principal;
mod query;
mod user;

pub use application::{Application, ApplicationInput};
pub use credential::{Credentials, Holder, KeyInfo, KeyInput, PasswordInfo, PasswordInput};
pub(crate) use federated::may_have as may_have_federated;
pub use federated::{FederatedCredential, FederatedInput, Owner};
pub use kind::PrincipalKind;
pub use managed::{IdentityInput, ManagedIdentity, MayAsk, Wanted};
pub(crate) use managed::{delete_in_group, remove_principal, resource_id as identity_id};
pub use principal::{ServicePrincipal, ServicePrincipalInput};
pub use query::{Filter, Found, PAGE_ITEMS, PAGE_ITEMS_MAX, Page};
pub use user::{User, UserInput};

use portolan_auth::access::{Action, Principal};
use portolan_types::ResourceId;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// Objects of one kind that the directory holds.
pub const OBJECTS_MAX: u64 = 50_000;
/// Passwords and certificates that one owner may have.
pub const CREDENTIALS_MAX: usize = 64;
/// Federated credentials that one owner may have (Entra: 20).
pub const FEDERATED_MAX: usize = 20;
/// Ids that are looked up in one request (Graph: 1000).
pub const IDS_MAX: usize = 1_000;
/// Longest name for people, in characters.
const NAME_CHARS_MAX: usize = 256;
/// What Graph may set on one object beside what has a meaning here, in bytes of JSON.
const PROPERTIES_BYTES_MAX: usize = 64 * 1024;

/// Any object of the directory, for lists of several kinds.
#[derive(Clone, Debug)]
pub enum DirectoryObject {
    /// A user.
    User(User),
    /// A service principal or managed identity.
    ServicePrincipal(ServicePrincipal),
}

impl Service {
    /// Whether the caller may read the directory, or this one of it.
    pub(crate) fn may_read_directory(&self, ctx: &Ctx, one: Option<Uuid>) -> Result<()> {
        if one.is_some() && one == own_id(ctx) {
            return Ok(());
        }
        let scope = ResourceId::subscription(&self.subscription_id());
        self.check_control(ctx, &scope, Action::PrincipalRead).map_err(refused)
    }

    pub(crate) fn may_write_directory(&self, ctx: &Ctx) -> Result<()> {
        let scope = ResourceId::subscription(&self.subscription_id());
        self.check_control(ctx, &scope, Action::PrincipalWrite).map_err(refused)
    }

    /// The users and service principals with these object ids; ids of nobody are passed over.
    pub async fn directory_objects(&self, ctx: &Ctx, ids: &[Uuid]) -> Result<Vec<DirectoryObject>> {
        if ids.len() > IDS_MAX {
            return Err(bad_request(format!("Too many ids were given: at most {IDS_MAX}.")));
        }
        let only_own = ids.iter().all(|id| Some(*id) == own_id(ctx));
        self.may_read_directory(ctx, own_id(ctx).filter(|_| only_own && !ids.is_empty()))?;
        let (ids, subscription) = (ids.to_vec(), self.subscription_id());
        self.meta
            .read(move |tx| {
                let mut found = Vec::new();
                for id in ids {
                    let Some(row) = portolan_store::meta::principal::get(tx, id)? else { continue };
                    found.push(match PrincipalKind::parse(&row.kind) {
                        Some(PrincipalKind::User) => DirectoryObject::User(User::from_row(row)?),
                        _ => DirectoryObject::ServicePrincipal(ServicePrincipal::load(tx, row, &subscription)?),
                    });
                }
                Ok(found)
            })
            .await
    }
}

/// The caller's own object id.
pub(crate) fn own_id(ctx: &Ctx) -> Option<Uuid> {
    match &ctx.principal {
        Principal::Directory { object_id, .. } => Some(*object_id),
        _ => None,
    }
}

/// Refuse to do to the caller what they could not undo.
fn not_oneself(ctx: &Ctx, id: Uuid, what: &str) -> Result<()> {
    match own_id(ctx) == Some(id) {
        true => Err(bad_request(format!("You cannot {what} the principal that you are signed in as."))),
        false => Ok(()),
    }
}

/// ARM's refusal in Graph's words.
fn refused(e: Error) -> Error {
    match e.kind {
        Kind::Forbidden => Error {
            code: "Authorization_RequestDenied",
            message: "Insufficient privileges to complete the operation.".to_owned(),
            ..e
        },
        _ => e,
    }
}

/// 400, in Graph's words.
pub(crate) fn bad_request(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "Request_BadRequest", message)
}

/// 404, in Graph's words.
fn no_such(id: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::NotFound,
        "Request_ResourceNotFound",
        format!("Resource '{id}' does not exist or one of its queried reference-property objects are not present."),
    )
}

fn too_many() -> Error {
    Error::new(
        Kind::Forbidden,
        "Directory_QuotaExceeded",
        format!("The directory object quota limit is exceeded: there may be {OBJECTS_MAX} of a kind."),
    )
}

/// A name for people, as it may be.
fn display_name(text: &str) -> Result<String> {
    let text = text.trim();
    let chars = text.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(bad_request(format!(
            "Invalid value specified for property 'displayName': it must have 1 to {NAME_CHARS_MAX} characters."
        )));
    }
    Ok(text.to_owned())
}

/// Write what `patch` sets into `properties`: members of `known` only, `null` takes away.
fn merge(mut properties: Map<String, Value>, patch: &Map<String, Value>, known: &[&str]) -> Result<Map<String, Value>> {
    for (name, value) in patch {
        if !known.contains(&name.as_str()) {
            let shown: String = name.chars().take(64).collect();
            return Err(bad_request(format!("Invalid property '{}'.", shown.escape_debug())));
        }
        match (value, properties.get_mut(name)) {
            (Value::Null, _) => {
                properties.remove(name);
            }
            // `web`, `api`, …: members that are not given stay.
            (Value::Object(given), Some(Value::Object(kept))) => {
                for (name, value) in given {
                    kept.insert(name.clone(), value.clone());
                }
            }
            (value, _) => {
                properties.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(properties)
}

fn properties_text(properties: &Map<String, Value>) -> Result<String> {
    let text = serde_json::to_string(properties).map_err(|e| bad_request(e.to_string()))?;
    match text.len() <= PROPERTIES_BYTES_MAX {
        true => Ok(text),
        false => Err(bad_request(format!("The object is larger than {PROPERTIES_BYTES_MAX} bytes."))),
    }
}

fn properties_read(text: &str, id: Uuid) -> Result<Map<String, Value>> {
    Ok(serde_json::from_str(text)
        .map_err(|_| portolan_store::Error::Corrupt(format!("JSON of directory object {id}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_set_what_is_known() {
        let own = |v: Value| v.as_object().unwrap().clone();
        let before = own(serde_json::json!({"web": {"a": 1, "b": 2}, "tags": ["x"]}));
        let patch = own(serde_json::json!({"web": {"a": 3}, "tags": null, "notes": "n"}));
        let after = merge(before.clone(), &patch, &["web", "tags", "notes"]).unwrap();
        assert_eq!(Value::Object(after), serde_json::json!({"web": {"a": 3, "b": 2}, "notes": "n"}));
        assert_eq!(merge(before, &patch, &["web", "tags"]).unwrap_err().code, "Request_BadRequest");
    }
}
