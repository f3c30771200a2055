//! Managed identities: service principals that are resources of a group.
//!
//! Where Azure's machines get a token from an address that only they reach, a machine here
//! proves that it may ask: by a secret that goes with the endpoint (the App Service and MSI
//! forms), by its address where the operator has said which address is which identity (the
//! IMDS form), or with a token of its own issuer (see [`super::federated`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_auth::access::Action;
use portolan_auth::authority::Issued;
use portolan_auth::password;
use portolan_store::meta::credential::{CredentialKind, CredentialRow};
use portolan_store::meta::managed_identity::IdentityRow;
use portolan_store::meta::principal::PrincipalRow;
use portolan_store::meta::{self, Tx};
use portolan_types::{GroupName, ResourceId, Secret, Timestamp};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{OBJECTS_MAX, PrincipalKind, too_many};
use crate::keys::key_error;
use crate::registries::{group_not_found, normal_location, tags_json};
use crate::service::Service;
use crate::snapshot::{PrincipalState, Snapshot};
use crate::{Ctx, Error, Kind, Result};

/// A managed identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Its ARM id.
    pub id: ResourceId,
    /// Its group.
    pub group: GroupName,
    /// Its name.
    pub name: String,
    /// Where it says it is.
    pub location: String,
    /// ARM tags.
    pub tags: BTreeMap<String, String>,
    /// What clients name it by (`clientId`).
    pub client_id: Uuid,
    /// Its object id, which roles are given to (`principalId`).
    pub principal_id: Uuid,
    /// When it was made.
    pub created: Timestamp,
}

/// What to set on a managed identity.
#[derive(Clone, Debug, Default)]
pub struct IdentityInput {
    /// Where it says it is; the group's place for a new one when absent.
    pub location: Option<String>,
    /// ARM tags.
    pub tags: Option<Map<String, Value>>,
}

/// Which managed identity somebody wants a token for. None of them: the only one that they may
/// ask for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By `clientId`.
    pub client_id: Option<String>,
    /// By `principalId`.
    pub object_id: Option<String>,
    /// By ARM id.
    pub resource_id: Option<String>,
}

/// How somebody proves that they may ask for an identity's tokens.
#[derive(Clone, Copy, Debug)]
pub enum MayAsk<'a> {
    /// By the secret that goes with the endpoint.
    Secret(&'a Secret<String>),
    /// By their address, which the operator has given identities: their client ids.
    Address(IpAddr, &'a [Uuid]),
}

/// The ARM id of a managed identity.
pub(crate) fn resource_id(subscription: &Uuid, group: &str, name: &str) -> ResourceId {
    ResourceId(format!(
        "/subscriptions/{subscription}/resourcegroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    ))
}

pub(super) fn not_found(group: &GroupName, name: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "ResourceNotFound",
        format!(
            "The Resource 'Microsoft.ManagedIdentity/userAssignedIdentities/{name}' under resource group '{group}' was \
             not found."
        ),
    )
}

impl ManagedIdentity {
    fn from_row(row: IdentityRow, subscription: &Uuid) -> Result<ManagedIdentity> {
        let tags = serde_json::from_str(&row.tags)
            .map_err(|_| portolan_store::Error::Corrupt(format!("JSON of identity {}", row.principal)))?;
        Ok(ManagedIdentity {
            id: resource_id(subscription, row.group.as_str(), &row.name),
            group: row.group,
            name: row.name,
            location: row.location,
            tags,
            client_id: row.app_id,
            principal_id: row.principal,
            created: row.created,
        })
    }
}

/// Azure's rule: 3 to 128 letters, digits, `-` and `_`, the first a letter or digit.
fn identity_name(name: &str) -> Result<()> {
    let good = (3..=128).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        && name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
    match good {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Invalid,
            "InvalidResourceName",
            "Identity names have 3 to 128 letters, digits, '-' and '_', the first a letter or digit.",
        )),
    }
}

impl Service {
    pub(super) fn may_identity(&self, ctx: &Ctx, group: &GroupName, name: &str, write: bool) -> Result<()> {
        self.may_identity_do(ctx, group, name, if write { Action::IdentityWrite } else { Action::IdentityRead })
    }

    fn may_identity_do(&self, ctx: &Ctx, group: &GroupName, name: &str, action: Action) -> Result<()> {
        identity_name(name)?;
        self.check_control(ctx, &resource_id(&self.subscription_id(), group.as_str(), name), action)
    }

    /// Make a managed identity, or give it these tags when it is there. Whether it is new.
    pub async fn put_identity(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &str,
        input: &IdentityInput,
    ) -> Result<(ManagedIdentity, bool)> {
        self.may_identity(ctx, group, name, true)?;
        let tags = input.tags.as_ref().map(tags_json).transpose()?;
        let location = input.location.as_deref().map(normal_location).transpose()?;
        let (group, name, now, subscription) = (group.clone(), name.to_owned(), ctx.now, self.subscription_id());
        self.alter(move |tx| {
            let folder = meta::group::get(tx, &group)?.ok_or_else(|| group_not_found(&group))?;
            if let Some(row) = meta::managed_identity::get(tx, &group, &name)? {
                if location.is_some_and(|wanted| wanted != row.location) {
                    return Err(Error::new(
                        Kind::Conflict,
                        "InvalidResourceLocation",
                        format!("The resource '{}' already exists in location '{}'.", row.name, row.location),
                    ));
                }
                let tags = tags.unwrap_or_else(|| "{}".to_owned());
                meta::managed_identity::set_tags(tx, row.principal, &tags, now)?;
                return Ok((ManagedIdentity::from_row(IdentityRow { tags, ..row }, &subscription)?, false));
            }
            if meta::principal::count(tx)? >= OBJECTS_MAX {
                return Err(too_many());
            }
            let principal = PrincipalRow {
                object_id: Uuid::new_v4(),
                app_id: Some(Uuid::new_v4()),
                kind: PrincipalKind::ManagedIdentity.as_str().to_owned(),
                display_name: name.clone(),
                enabled: true,
                valid_from: Timestamp(0),
                created: now,
                user_name: None,
                properties: "{}".to_owned(),
            };
            meta::principal::insert(tx, &principal)?;
            let row = IdentityRow {
                principal: principal.object_id,
                app_id: principal.app_id.unwrap_or_default(),
                group: folder.name,
                name,
                location: location.unwrap_or(folder.location),
                tags: tags.unwrap_or_else(|| "{}".to_owned()),
                created: now,
            };
            meta::managed_identity::insert(tx, &row)?;
            Ok((ManagedIdentity::from_row(row, &subscription)?, true))
        })
        .await
    }

    /// Give a managed identity other tags.
    pub async fn patch_identity(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &str,
        tags: Option<&Map<String, Value>>,
    ) -> Result<ManagedIdentity> {
        let there = self.identity(ctx, group, name).await?;
        let tags = match tags {
            Some(tags) => tags.clone(),
            None => there.tags.into_iter().map(|(k, v)| (k, Value::String(v))).collect(),
        };
        let input = IdentityInput { location: None, tags: Some(tags) };
        self.put_identity(ctx, group, name, &input).await.map(|(identity, _)| identity)
    }

    /// A managed identity.
    pub async fn identity(&self, ctx: &Ctx, group: &GroupName, name: &str) -> Result<ManagedIdentity> {
        self.may_identity(ctx, group, name, false)?;
        let (group, name, subscription) = (group.clone(), name.to_owned(), self.subscription_id());
        self.meta
            .read(move |tx| match meta::managed_identity::get(tx, &group, &name)? {
                Some(row) => ManagedIdentity::from_row(row, &subscription),
                None => Err(not_found(&group, &name)),
            })
            .await
    }

    /// The managed identities of a group, or of all, that the caller may read.
    pub async fn identities(&self, ctx: &Ctx, group: Option<&GroupName>) -> Result<Vec<ManagedIdentity>> {
        let (wanted, subscription) = (group.cloned(), self.subscription_id());
        let rows = self
            .meta
            .read(move |tx| match &wanted {
                Some(group) => match meta::group::get(tx, group)? {
                    Some(_) => Ok(meta::managed_identity::in_group(tx, group)?),
                    None => Err(group_not_found(group)),
                },
                None => Ok(meta::managed_identity::list(tx)?),
            })
            .await?;
        let all: Result<Vec<_>> = rows.into_iter().map(|row| ManagedIdentity::from_row(row, &subscription)).collect();
        let may = |i: &ManagedIdentity| self.check_control(ctx, &i.id, Action::IdentityRead).is_ok();
        Ok(all?.into_iter().filter(may).collect())
    }

    /// Delete a managed identity with its roles; whether it was there.
    pub async fn delete_identity(&self, ctx: &Ctx, group: &GroupName, name: &str) -> Result<bool> {
        self.may_identity_do(ctx, group, name, Action::IdentityDelete)?;
        let (group, name) = (group.clone(), name.to_owned());
        self.alter(move |tx| {
            let Some(row) = meta::managed_identity::get(tx, &group, &name)? else { return Ok(false) };
            super::principal::remove(tx, row.principal)?;
            Ok(true)
        })
        .await
    }

    /// Make another secret that an identity's endpoint is asked with, in place of the one
    /// before. It is told here and never again. Whoever has it has the identity.
    pub async fn renew_identity_secret(&self, ctx: &Ctx, group: &GroupName, name: &str) -> Result<Secret<String>> {
        self.may_identity_do(ctx, group, name, Action::IdentityAssign)?;
        let (group, name, now) = (group.clone(), name.to_owned(), ctx.now);
        let secret = password::generate().map_err(key_error)?;
        let value = password::hash(&secret).map_err(key_error)?;
        let app_id = self
            .alter(move |tx| {
                let row = meta::managed_identity::get(tx, &group, &name)?.ok_or_else(|| not_found(&group, &name))?;
                meta::credential::delete_kind(tx, row.principal, CredentialKind::Password)?;
                meta::principal::end_tokens(tx, row.principal, now)?;
                let credential = CredentialRow {
                    id: Uuid::new_v4(),
                    owner: row.principal,
                    kind: CredentialKind::Password,
                    name: Some("endpoint".to_owned()),
                    value,
                    hint: None,
                    created: now,
                    starts: None,
                    expires: None,
                };
                meta::credential::insert(tx, &credential)?;
                Ok(row.app_id)
            })
            .await?;
        Ok(Secret::new(format!("{}.{}", app_id.simple(), secret.expose())))
    }

    /// A directory token for a managed identity, and its client id. From memory.
    ///
    /// Errors: `Unauthenticated` for a wrong secret; `invalid_request` when the caller may not
    /// ask for the identity it wants, or must say which.
    pub fn identity_token(
        &self,
        base: &str,
        may: MayAsk<'_>,
        wanted: &Wanted,
        resource: &str,
        now: Timestamp,
    ) -> Result<(Issued, Uuid)> {
        let snapshot = self.snapshot.load();
        let own: Vec<&PrincipalState> = match may {
            MayAsk::Secret(secret) => vec![by_secret(&snapshot, secret.expose(), now).ok_or_else(wrong_secret)?],
            MayAsk::Address(_, ids) => {
                ids.iter().filter_map(|id| snapshot.application(*id)).filter(is_usable).collect()
            }
        };
        let given = |text: &Option<String>, id: &dyn Fn(&PrincipalState) -> Option<Uuid>, state: &PrincipalState| {
            text.as_ref().is_none_or(|text| Uuid::try_parse(text).ok().is_some_and(|wanted| id(state) == Some(wanted)))
        };
        let fits = |state: &&&PrincipalState| {
            given(&wanted.client_id, &|s| s.app_id, state)
                && given(&wanted.object_id, &|s| Some(s.object_id), state)
                && wanted
                    .resource_id
                    .as_ref()
                    .is_none_or(|id| state.resource.as_ref().is_some_and(|own| *own == ResourceId(id.clone()).key()))
        };
        let found: Vec<_> = own.iter().filter(fits).collect();
        let [state] = found.as_slice() else {
            let why = match found.is_empty() {
                true => "Identity not found",
                false => {
                    "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"
                }
            };
            return Err(Error::new(Kind::Invalid, "invalid_request", why));
        };
        let issued = self.application_token(base, state.object_id, state.app_id, resource, now)?;
        Ok((issued, state.app_id.unwrap_or_default()))
    }
}

fn is_usable(state: &&PrincipalState) -> bool {
    state.kind == PrincipalKind::ManagedIdentity && state.enabled
}

/// The identity whose endpoint's secret this is.
fn by_secret<'a>(snapshot: &'a Snapshot, given: &str, now: Timestamp) -> Option<&'a PrincipalState> {
    let (app_id, secret) = given.split_once('.').unwrap_or(("", given));
    let state = Uuid::try_parse(app_id).ok().and_then(|id| snapshot.application(id)).filter(is_usable);
    let secrets = state.map_or(&[][..], |state| &state.secrets);
    let at = password::verify_any(secrets.iter().map(|s| &s.hash[..]), secret);
    state.filter(|_| at.is_some_and(|at| secrets[at].is_good(now)))
}

fn wrong_secret() -> Error {
    Error::new(Kind::Unauthenticated, "unauthorized", "The secret of the identity endpoint is wrong.")
}

/// Remove the principal of an identity that is going away, with what it holds.
pub(crate) fn remove_principal(tx: &mut dyn Tx, id: Uuid) -> Result<()> {
    super::principal::remove(tx, id)
}

/// Remove the managed identities of a group that is going away. How many.
pub(crate) fn delete_in_group(tx: &mut dyn Tx, group: &GroupName) -> Result<usize> {
    let rows = meta::managed_identity::in_group(tx, group)?;
    for row in &rows {
        super::principal::remove(tx, row.principal)?;
    }
    Ok(rows.len())
}
