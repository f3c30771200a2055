//! Registries: made, shown, changed and removed by the control plane.

use std::str::FromStr;
use std::sync::Arc;

use portolan_auth::access::{Action, Principal, RoleMode, Target};
use portolan_auth::password::{self, AdminPassword};
use portolan_store::meta::registry::RegistryRow;
use portolan_store::meta::{self, Tx};
use portolan_types::{GroupName, RegistryName, ResourceId, Secret, Timestamp};
use serde_json::{Map, Value};

use crate::network::NetworkRules;
use crate::properties;
use crate::registry_identity::RegistryIdentity;
use crate::service::{Service, ServiceConfig};
use crate::snapshot::login_server;
use crate::tiers::{self, Tiers};
use crate::{Ctx, Error, Kind, Result};

/// A registry. Handed around as `Arc<Registry>`; a change makes a new value.
#[derive(Clone, Debug, PartialEq)]
pub struct Registry {
    /// Its number: what rows of content refer to. Never used twice.
    pub id: i64,
    /// Its name, in the case it was given.
    pub name: RegistryName,
    /// The group it is in.
    pub group: GroupName,
    /// Where it says it is: `eastus`.
    pub location: String,
    /// Host and, where it has one, port that clients sign in to.
    pub login_server: String,
    /// Its tier.
    pub sku: Sku,
    /// Whether it answers at the server's own address when there is no domain.
    pub is_default: bool,
    /// Whether its admin user may sign in.
    pub admin_enabled: bool,
    /// How often each admin password was renewed.
    pub admin_generations: [u32; 2],
    /// Whether anybody may pull.
    pub anonymous_pull: bool,
    /// From where its data plane may be reached.
    pub(crate) network: NetworkRules,
    /// Hosts (with the port, where there is one) that serve its blobs; see [`crate::hosts`].
    pub data_endpoints: Vec<String>,
    /// Hosts besides the login server that serve it, one for each region.
    pub regional_endpoints: Vec<String>,
    /// How it takes roles for its content.
    pub role_mode: RoleMode,
    /// ARM tags.
    pub tags: Map<String, Value>,
    /// ARM's settable `properties`, complete with their defaults.
    pub properties: Map<String, Value>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Its identities, its own first.
    pub identities: Vec<RegistryIdentity>,
    /// Its ARM id.
    pub resource_id: ResourceId,
    /// [`ResourceId::key`] of that, for the access decision.
    pub(crate) scope: String,
}

/// The name of a registry's tier; what it stands for is in [`crate::tiers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Sku {
    /// The smallest.
    Basic,
    /// In between.
    Standard,
    /// The largest.
    Premium,
}

impl Sku {
    /// The name that clients compare.
    pub fn as_str(self) -> &'static str {
        match self {
            Sku::Basic => "Basic",
            Sku::Standard => "Standard",
            Sku::Premium => "Premium",
        }
    }
}

impl FromStr for Sku {
    type Err = Error;

    /// In any case.
    fn from_str(text: &str) -> Result<Sku> {
        [Sku::Basic, Sku::Standard, Sku::Premium]
            .into_iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    "InvalidSku",
                    format!("The sku '{}' is not valid. Use Basic, Standard or Premium.", text.escape_debug()),
                )
            })
    }
}

/// What a PUT or PATCH gives; what is absent stays as it is.
#[derive(Clone, Debug, Default)]
pub struct RegistryInput {
    /// Where it is to say it is; needed to make one.
    pub location: Option<String>,
    /// Its tier; needed to make one.
    pub sku: Option<Sku>,
    /// All its tags.
    pub tags: Option<Map<String, Value>>,
    /// Members of ARM's `properties`.
    pub properties: Map<String, Value>,
}

/// The answer to "may a registry have this name?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameCheck {
    /// Yes, and it would answer here.
    Available {
        /// The login server it would have.
        login_server: String,
    },
    /// No registry can have it.
    Invalid(String),
    /// One has it.
    Taken(String),
}

/// The admin user's name and passwords.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The registry's name.
    pub username: String,
    /// `password` and `password2`.
    pub passwords: [(AdminPassword, Secret<String>); 2],
}

impl Registry {
    pub(crate) fn from_row(row: RegistryRow, subscription: &uuid::Uuid, config: &ServiceConfig) -> Result<Registry> {
        let object = |text: &str| {
            serde_json::from_str::<Map<String, Value>>(text)
                .map_err(|_| Error::from(portolan_store::Error::Corrupt(format!("JSON of registry {}", row.name))))
        };
        let (tags, stored) = (object(&row.tags)?, object(&row.properties)?);
        let properties = properties::with_defaults(stored);
        let resource_id = ResourceId::registry(subscription, row.group.as_str(), row.name.as_str());
        let (data_endpoints, regional_endpoints) =
            crate::hosts::endpoints(&row.name.key(), &row.location, &properties, config);
        Ok(Registry {
            id: row.id,
            login_server: login_server(&row.name.key(), row.is_default, config),
            sku: row.sku.parse()?,
            location: row.location,
            is_default: row.is_default,
            admin_enabled: row.admin_enabled,
            admin_generations: row.admin_generations,
            anonymous_pull: properties.get(properties::ANONYMOUS_PULL) == Some(&Value::Bool(true)),
            role_mode: properties
                .get(properties::ROLE_ASSIGNMENT_MODE)
                .and_then(Value::as_str)
                .and_then(RoleMode::parse)
                .unwrap_or_default(),
            tags,
            network: NetworkRules::read(&properties),
            data_endpoints,
            regional_endpoints,
            properties,
            created: row.created,
            updated: row.updated,
            identities: Vec::new(),
            scope: resource_id.key(),
            resource_id,
            name: row.name,
            group: row.group,
        })
    }
}

impl Service {
    /// The registry that answers at `host` (with or without port, in any case), from memory.
    pub fn registry_by_host(&self, host: &str) -> Option<Arc<Registry>> {
        self.snapshot.load().registry_at(host).cloned()
    }

    /// The registry of this name, in any case. Errors: `NotFound`. Asks nobody whether the
    /// caller may see it: for the server's own use and before a [`Service::check`].
    pub fn registry(&self, name: &str) -> Result<Arc<Registry>> {
        self.snapshot.load().registry(&name.to_ascii_lowercase()).cloned().ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "ResourceNotFound",
                format!("The registry '{}' was not found.", name.escape_debug()),
            )
        })
    }

    /// The registry with this number, from memory.
    pub fn registry_by_id(&self, id: i64) -> Option<Arc<Registry>> {
        self.snapshot.load().registries.iter().find(|r| r.id == id).cloned()
    }

    /// What registries' login servers end in, without the dot: what clients append to a
    /// registry's name when they know no more.
    pub fn login_server_suffix(&self) -> String {
        login_server("", false, &self.config).trim_start_matches('.').to_owned()
    }

    /// The registry of a group, for handlers of what is inside it, who ask what the caller
    /// may do there. Not found is told only to callers who may read the group.
    pub fn find_registry(&self, ctx: &Ctx, group: &GroupName, name: &RegistryName) -> Result<Arc<Registry>> {
        match self.snapshot.load().registry(&name.key()) {
            Some(registry) if registry.group.key() == group.key() => Ok(registry.clone()),
            _ => {
                let id = ResourceId::registry(&self.subscription_id(), group.as_str(), name.as_str());
                self.check_control(ctx, &id, Action::RegistryRead)?;
                Err(not_found(group, name))
            }
        }
    }

    /// Show a registry of a group.
    pub fn show_registry(&self, ctx: &Ctx, group: &GroupName, name: &RegistryName) -> Result<Arc<Registry>> {
        self.registry_in(ctx, group, name, Action::RegistryRead)
    }

    /// The registry of a group, after asking whether the caller may do `action` to it. A
    /// caller who may not even see the place is told so before it learns whether it exists.
    pub fn registry_in(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &RegistryName,
        action: Action,
    ) -> Result<Arc<Registry>> {
        let id = ResourceId::registry(&self.subscription_id(), group.as_str(), name.as_str());
        match self.snapshot.load().registry(&name.key()) {
            Some(registry) if registry.group.key() == group.key() => {
                self.check(ctx, registry, &Target::Registry, action)?;
                Ok(registry.clone())
            }
            _ => {
                self.check_control(ctx, &id, action)?;
                Err(not_found(group, name))
            }
        }
    }

    /// The registries that the caller may see, of one group or of all.
    pub fn list_registries(&self, ctx: &Ctx, group: Option<&GroupName>) -> Result<Vec<Arc<Registry>>> {
        self.signed_in(ctx)?;
        let snapshot = self.snapshot.load();
        let key = group.map(GroupName::key);
        let in_group = |r: &Registry| key.as_ref().is_none_or(|k| r.group.key() == *k);
        let visible = |r: &Registry| self.check(ctx, r, &Target::Registry, Action::RegistryRead).is_ok();
        Ok(snapshot.registries.iter().filter(|r| in_group(r) && visible(r)).cloned().collect())
    }

    /// Make a registry, or change the one that is there, as ARM's PUT does: what is not
    /// given stays. Whether it is new.
    ///
    /// Errors: `ResourceGroupNotFound`; `AlreadyInUse` when another group has a registry of
    /// this name; `LocationRequired`, `InvalidSku` and `InvalidRequestContent` for what is
    /// missing or wrong; `InvalidResourceLocation` for a registry that is somewhere else.
    pub async fn put_registry(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &RegistryName,
        input: RegistryInput,
    ) -> Result<(Arc<Registry>, bool)> {
        let id = ResourceId::registry(&self.subscription_id(), group.as_str(), name.as_str());
        self.check_control(ctx, &id, Action::RegistryWrite)?;
        let (group, wanted, now, tiers) = (group.clone(), name.clone(), ctx.now, self.config.tiers);
        let created = self
            .alter(move |tx| {
                let group = meta::group::get(tx, &group)?.ok_or_else(|| group_not_found(&group))?;
                crate::operations::not_going(tx, &id)?;
                match meta::registry::get(tx, &wanted)? {
                    Some(row) if row.group.key() == group.name.key() => {
                        if let Some(location) = &input.location
                            && normal_location(location)? != row.location
                        {
                            return Err(elsewhere(&row, location));
                        }
                        change(tx, &tiers, row, &input, now).map(|()| false)
                    }
                    Some(row) => Err(in_use(&row.name)),
                    None => create(tx, &tiers, group.name, wanted, &input, now).map(|()| true),
                }
            })
            .await?;
        Ok((self.registry(name.as_str())?, created))
    }

    /// Change a registry, as ARM's PATCH does: only what is given.
    pub async fn patch_registry(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &RegistryName,
        input: RegistryInput,
    ) -> Result<Arc<Registry>> {
        self.registry_in(ctx, group, name, Action::RegistryWrite)?;
        let tiers = self.config.tiers;
        self.change_registry(ctx, group, name, move |tx, row, now| change(tx, &tiers, row, &input, now)).await
    }

    /// Whether a registry may have this name.
    pub fn check_name(&self, ctx: &Ctx, name: &str) -> Result<NameCheck> {
        self.signed_in(ctx)?;
        let snapshot = self.snapshot.load();
        Ok(match name.parse::<RegistryName>() {
            Err(why) => NameCheck::Invalid(why.to_string()),
            Ok(name) if snapshot.registry(&name.key()).is_some() => {
                NameCheck::Taken(format!("The registry {name} is already in use."))
            }
            Ok(name) => {
                let is_default = !snapshot.registries.iter().any(|r| r.is_default);
                NameCheck::Available { login_server: login_server(&name.key(), is_default, &self.config) }
            }
        })
    }

    /// The admin user's name and passwords.
    ///
    /// Errors: `UnAuthorizedForCredentialOperations` while the admin user is off.
    pub fn list_credentials(&self, ctx: &Ctx, group: &GroupName, name: &RegistryName) -> Result<Credentials> {
        let registry = self.registry_in(ctx, group, name, Action::ListCredentials)?;
        self.credentials(&registry)
    }

    /// Make a new one of the admin user's passwords; all tokens got with the old one end.
    pub async fn regenerate_credential(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &RegistryName,
        which: AdminPassword,
    ) -> Result<Credentials> {
        let registry = self.registry_in(ctx, group, name, Action::ListCredentials)?;
        self.credentials(&registry)?;
        let renew = move |tx: &mut dyn Tx, mut row: RegistryRow, now| {
            let generation = &mut row.admin_generations[which.index()];
            *generation = generation.wrapping_add(1);
            row.updated = now;
            meta::registry::update(tx, &row).map_err(Error::from)
        };
        let registry = self.change_registry(ctx, group, name, renew).await?;
        self.credentials(&registry)
    }

    /// Change the row of a registry that [`Service::registry_in`] has found.
    async fn change_registry(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &RegistryName,
        change: impl FnOnce(&mut dyn Tx, RegistryRow, Timestamp) -> Result<()> + Send + 'static,
    ) -> Result<Arc<Registry>> {
        let (group, wanted, now) = (group.clone(), name.clone(), ctx.now);
        self.alter(move |tx| match meta::registry::get(tx, &wanted)? {
            Some(row) if row.group.key() == group.key() => change(tx, row, now),
            _ => Err(not_found(&group, &wanted)),
        })
        .await?;
        self.registry(name.as_str())
    }

    fn credentials(&self, registry: &Registry) -> Result<Credentials> {
        if !registry.admin_enabled {
            return Err(Error::new(
                Kind::Invalid,
                "UnAuthorizedForCredentialOperations",
                format!(
                    "Cannot perform credential operations for {} as admin user is disabled. Kindly enable admin user \
                     as per docs: https://docs.microsoft.com/en-us/azure/container-registry/container-registry-authentication#admin-account",
                    registry.resource_id
                ),
            ));
        }
        let master = self.authority.master();
        Ok(Credentials {
            username: registry.name.to_string(),
            passwords: AdminPassword::BOTH
                .map(|w| (w, password::admin(master, registry.id, w, registry.admin_generations[w.index()]))),
        })
    }

    /// Refuse callers who did not say who they are.
    pub(crate) fn signed_in(&self, ctx: &Ctx) -> Result<()> {
        match ctx.principal {
            Principal::Anonymous => {
                self.check_control(ctx, &ResourceId::subscription(&self.subscription_id()), Action::RegistryRead)
            }
            _ => Ok(()),
        }
    }
}

/// ARM's words for a registry that is not there.
pub(crate) fn not_found(group: &GroupName, name: &RegistryName) -> Error {
    Error::new(
        Kind::NotFound,
        "ResourceNotFound",
        format!(
            "The Resource 'Microsoft.ContainerRegistry/registries/{name}' under resource group '{group}' was not found. \
             For more details please go to https://aka.ms/ARMResourceNotFoundFix"
        ),
    )
}

/// ARM's words for a group that is not there.
pub(crate) fn group_not_found(group: &GroupName) -> Error {
    Error::new(Kind::NotFound, "ResourceGroupNotFound", format!("Resource group '{group}' could not be found."))
}

fn in_use(name: &RegistryName) -> Error {
    Error::new(
        Kind::Conflict,
        "AlreadyInUse",
        format!("The registry name '{name}' is already in use by a registry in another resource group."),
    )
    .with_hint("choose another name; `az acr check-name` tells whether one is free")
}

fn elsewhere(row: &RegistryRow, wanted: &str) -> Error {
    Error::new(
        Kind::Conflict,
        "InvalidResourceLocation",
        format!(
            "The resource '{}' already exists in location '{}' in resource group '{}'. A resource with the same name \
             cannot be created in location '{}'. Please select a new resource name.",
            row.name,
            row.location,
            row.group,
            wanted.escape_debug()
        ),
    )
}

/// `East US` and `eastus` are one place.
pub(crate) fn normal_location(text: &str) -> Result<String> {
    let place: String = text.chars().filter(|c| *c != ' ').flat_map(char::to_lowercase).collect();
    if place.is_empty() {
        return Err(Error::new(
            Kind::Invalid,
            "LocationRequired",
            "The location property is required for this definition.",
        ));
    }
    if place.len() > 64 || !place.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Err(Error::new(
            Kind::Invalid,
            "LocationNotAvailableForResourceType",
            format!("The provided location '{}' is not a location name.", text.escape_debug()),
        ));
    }
    Ok(place)
}

/// Tags as ARM limits them, as JSON.
pub(crate) fn tags_json(tags: &Map<String, Value>) -> Result<String> {
    let invalid = |why: &str| Error::new(Kind::Invalid, "InvalidTag", format!("The tags are invalid: {why}."));
    if tags.len() > 50 {
        return Err(invalid("there may be at most 50"));
    }
    for (name, value) in tags {
        let Value::String(value) = value else { return Err(invalid("values must be texts")) };
        if name.is_empty() || name.chars().count() > 512 || value.chars().count() > 256 {
            return Err(invalid("a name has 1 to 512 characters and a value at most 256"));
        }
    }
    serde_json::to_string(tags).map_err(|e| invalid(&e.to_string()))
}

fn create(
    tx: &mut dyn Tx,
    tiers: &Tiers,
    group: GroupName,
    name: RegistryName,
    input: &RegistryInput,
    now: Timestamp,
) -> Result<()> {
    let location = normal_location(input.location.as_deref().unwrap_or_default())?;
    let sku = input.sku.ok_or_else(|| {
        Error::new(Kind::Invalid, "InvalidSku", "The sku is required. Use Basic, Standard or Premium.")
    })?;
    let mut stored = Map::new();
    properties::apply(&mut stored, &input.properties, now)?;
    tiers::check(tiers, None, (sku, &properties::with_defaults(stored.clone())))?;
    let row = RegistryRow {
        id: 0,
        name,
        group,
        location,
        sku: sku.as_str().to_owned(),
        is_default: false,
        admin_enabled: properties::admin_user(&input.properties)?.unwrap_or(false),
        admin_generations: [0, 0],
        tags: tags_json(input.tags.as_ref().unwrap_or(&Map::new()))?,
        properties: json_text(&stored)?,
        created: now,
        updated: now,
    };
    let id = meta::registry::insert(tx, &row)?;
    meta::cache_rule::insert_defaults(tx, id, now)?;
    Ok(())
}

fn change(tx: &mut dyn Tx, tiers: &Tiers, mut row: RegistryRow, input: &RegistryInput, now: Timestamp) -> Result<()> {
    let mut stored: Map<String, Value> = serde_json::from_str(&row.properties)
        .map_err(|_| portolan_store::Error::Corrupt(format!("JSON of registry {}", row.name)))?;
    properties::check_fixed(&stored, &input.properties)?;
    let before = (row.sku.parse()?, properties::with_defaults(stored.clone()));
    properties::apply(&mut stored, &input.properties, now)?;
    let sku = input.sku.unwrap_or(before.0);
    let after = properties::with_defaults(stored.clone());
    tiers::check(tiers, Some((before.0, &before.1)), (sku, &after))?;
    row.properties = json_text(&stored)?;
    row.sku = sku.as_str().to_owned();
    if let Some(tags) = &input.tags {
        row.tags = tags_json(tags)?;
    }
    if let Some(on) = properties::admin_user(&input.properties)? {
        row.admin_enabled = on;
    }
    row.updated = now;
    Ok(meta::registry::update(tx, &row)?)
}

/// Remove a registry, its roles and its contents in one transaction.
pub(crate) fn delete_with_contents(tx: &mut dyn Tx, id: i64, scope: &ResourceId, now: Timestamp) -> Result<()> {
    meta::repo::delete_registry(tx, id, now)?;
    meta::role::delete_within(tx, scope)?;
    meta::repo_token::delete_registry(tx, id)?;
    meta::host::delete_registry(tx, id)?;
    crate::registry_identity::delete_all(tx, id)?;
    meta::registry::delete(tx, id)?;
    Ok(())
}

fn json_text(map: &Map<String, Value>) -> Result<String> {
    serde_json::to_string(map)
        .map_err(|e| Error::new(Kind::Invalid, "InvalidRequestContent", format!("The properties are invalid: {e}")))
}
