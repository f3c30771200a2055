//! The identities of registries: ARM's `identity`.
//!
//! A registry can have an identity of its own, a managed identity that lives and dies with
//! it, and any number of user-assigned ones. Here they are given, shown and taken away; roles
//! can be given to their principals like to anybody. Who uses a user-assigned one must be
//! allowed to assign it.

use portolan_auth::access::Action;
use portolan_store::meta::principal::PrincipalRow;
use portolan_store::meta::registry_identity::IdentityRow;
use portolan_store::meta::{self, Tx};
use portolan_types::{GroupName, RegistryName, ResourceId, Timestamp};
use uuid::Uuid;

use crate::directory::{PrincipalKind, identity_id, remove_principal};
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// User-assigned identities of one registry.
const USER_ASSIGNED_MAX: usize = 32;

/// One identity of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryIdentity {
    /// The id of a user-assigned one; none for the registry's own.
    pub id: Option<String>,
    /// Its object id, which roles are given to.
    pub principal: Uuid,
    /// Its application id.
    pub client: Uuid,
    /// The directory it is in.
    pub tenant: Uuid,
}

impl RegistryIdentity {
    pub(crate) fn from_row(row: IdentityRow, tenant: Uuid) -> RegistryIdentity {
        RegistryIdentity { id: row.identity, principal: row.principal, client: row.client, tenant }
    }
}

/// Which identities a registry is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentitiesInput {
    /// Whether one of its own.
    pub own: bool,
    /// The ids of all its user-assigned ones; those it has stay when absent.
    pub assigned: Option<Vec<String>>,
}

impl Service {
    /// Give a registry exactly these identities.
    ///
    /// Errors: `FailedIdentityOperation` for an identity that is not there;
    /// `AuthorizationFailed` for one that the caller may not assign.
    pub async fn set_registry_identities(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &RegistryName,
        input: IdentitiesInput,
    ) -> Result<()> {
        let registry = self.registry_in(ctx, group, name, Action::RegistryWrite)?;
        let had = |id: &str| {
            let key = id.to_lowercase();
            registry.identities.iter().any(|i| i.id.as_deref().is_some_and(|i| i.to_lowercase() == key))
        };
        let mut wanted = Vec::new();
        for id in input.assigned.iter().flatten() {
            let parsed = parse(id).ok_or_else(|| no_such_identity(id))?;
            let id = identity_id(&self.subscription_id(), parsed.0.as_str(), &parsed.1);
            if wanted.iter().any(|(other, _): &(ResourceId, _)| other.key() == id.key()) {
                continue;
            }
            if !had(&id.0) {
                self.check_control(ctx, &id, Action::IdentityAssign)?;
            }
            wanted.push((id, parsed));
        }
        if wanted.len() > USER_ASSIGNED_MAX {
            return Err(Error::new(
                Kind::Invalid,
                "FailedIdentityOperation",
                format!("A registry can have at most {USER_ASSIGNED_MAX} user-assigned identities."),
            ));
        }
        let (id, display, now) = (registry.id, registry.name.to_string(), ctx.now);
        let subscription = self.subscription_id();
        let keep = input.assigned.is_none();
        self.alter(move |tx| {
            let before = meta::registry_identity::of(tx, id)?;
            set_own(tx, id, &before, input.own.then_some(display), now)?;
            if keep {
                return Ok(());
            }
            let is_wanted = |text: &str| wanted.iter().any(|(w, _)| w.key() == text.to_lowercase());
            for gone in before.iter().filter_map(|i| i.identity.as_deref()).filter(|i| !is_wanted(i)) {
                meta::registry_identity::delete(tx, id, Some(gone))?;
            }
            for (text, (group, name)) in &wanted {
                let there = |i: &IdentityRow| i.identity.as_deref().is_some_and(|i| i.to_lowercase() == text.key());
                if before.iter().any(there) {
                    continue;
                }
                let row = meta::managed_identity::get(tx, group, name)?.ok_or_else(|| no_such_identity(&text.0))?;
                let text = identity_id(&subscription, row.group.as_str(), &row.name);
                let row = IdentityRow {
                    registry: id,
                    identity: Some(text.0),
                    principal: row.principal,
                    client: row.app_id,
                    created: now,
                };
                meta::registry_identity::insert(tx, &row)?;
            }
            Ok(())
        })
        .await
    }
}

/// Make the registry's own identity, under this name, or remove it.
fn set_own(tx: &mut dyn Tx, registry: i64, before: &[IdentityRow], name: Option<String>, now: Timestamp) -> Result<()> {
    match (before.iter().find(|i| i.identity.is_none()), name) {
        (None, Some(display_name)) => {
            let (principal, client) = (Uuid::new_v4(), Uuid::new_v4());
            let row = PrincipalRow {
                object_id: principal,
                app_id: Some(client),
                kind: PrincipalKind::ManagedIdentity.as_str().to_owned(),
                display_name,
                enabled: true,
                valid_from: Timestamp(0),
                created: now,
                user_name: None,
                properties: "{}".to_owned(),
            };
            meta::principal::insert(tx, &row)?;
            let row = IdentityRow { registry, identity: None, principal, client, created: now };
            Ok(meta::registry_identity::insert(tx, &row)?)
        }
        (Some(own), None) => {
            meta::registry_identity::delete(tx, registry, None)?;
            remove_principal(tx, own.principal)
        }
        _ => Ok(()),
    }
}

/// Take every identity from a registry that is going away.
pub(crate) fn delete_all(tx: &mut dyn Tx, registry: i64) -> Result<()> {
    let before = meta::registry_identity::of(tx, registry)?;
    set_own(tx, registry, &before, None, Timestamp(0))?;
    meta::registry_identity::delete_all(tx, registry)?;
    Ok(())
}

/// The group and the name in the id of a managed identity.
fn parse(id: &str) -> Option<(GroupName, String)> {
    let parts: Vec<&str> = id.split('/').filter(|p| !p.is_empty()).collect();
    let [_, _, groups, group, providers, namespace, kind, name] = parts.as_slice() else { return None };
    let same = [
        (*groups, "resourceGroups"),
        (*providers, "providers"),
        (*namespace, "Microsoft.ManagedIdentity"),
        (*kind, "userAssignedIdentities"),
    ];
    let is_identity = same.iter().all(|(given, word)| given.eq_ignore_ascii_case(word));
    is_identity.then(|| Some((group.parse().ok()?, (*name).to_owned()))).flatten()
}

fn no_such_identity(id: &str) -> Error {
    Error::new(
        Kind::Invalid,
        "FailedIdentityOperation",
        format!("Resource '{}' was not found: it is not a managed identity here.", id.escape_debug()),
    )
}
