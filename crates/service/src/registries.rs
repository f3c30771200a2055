//! Registries: made, shown, changed and removed by the control plane.

use std::str::FromStr;
use std::sync::Arc;

use portolan_auth::access::{Action, Principal, Target};
use portolan_auth::password::{self, AdminPassword};
use portolan_store::meta::registry::RegistryRow;
use portolan_store::meta::{self, Tx};
use portolan_types::{GroupName, RegistryName, ResourceId, Secret, Timestamp};
use serde_json::{Map, Value};

use crate::properties;
use crate::service::{Service, ServiceConfig};
use crate::snapshot::login_server;
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
    /// ARM tags.
    pub tags: Map<String, Value>,
    /// ARM's settable `properties`, complete with their defaults.
    pub properties: Map<String, Value>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Its ARM id.
    pub resource_id: ResourceId,
    /// [`ResourceId::key`] of that, for the access decision.
    pub(crate) scope: String,
}

/// A registry's tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Sku {
    /// 10 GiB included.
    Basic,
    /// 100 GiB included.
    Standard,
    /// 500 GiB included.
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

    /// Storage included, in bytes; what `show-usage` gives as the limit.
    pub fn included_bytes(self) -> u64 {
        const GIB: u64 = 1024 * 1024 * 1024;
        match self {
            Sku::Basic => 10 * GIB,
            Sku::Standard => 100 * GIB,
            Sku::Premium => 500 * GIB,
        }
    }
}

impl FromStr for Sku {
    type Err = Error;

    /// In any case.
    fn from_str(text: &str) -> Result<Sku> {
        [Sku::Basic, Sku::Standard, Sku::Premium].into_iter().find(|s| s.as_str().eq_ignore_ascii_case(text)).ok_or_else(
            || {
                Error::new(
                    Kind::Invalid,
                    "InvalidSku",
                    format!("The sku '{}' is not valid. Use Basic, Standard or Premium.", text.escape_debug()),
                )
            },
        )
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

/// One line of `show-usage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// `Size`, `Webhooks`, …
    pub name: &'static str,
    /// The most there may be; -1 for no limit.
    pub limit: i64,
    /// How much there is.
    pub current: i64,
    /// `Bytes` or `Count`.
    pub unit: &'static str,
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
        Ok(Registry {
            id: row.id,
            login_server: login_server(&row.name.key(), row.is_default, config),
            sku: row.sku.parse()?,
            location: row.location,
            is_default: row.is_default,
            admin_enabled: row.admin_enabled,
            admin_generations: row.admin_generations,
            anonymous_pull: properties.get(properties::ANONYMOUS_PULL) == Some(&Value::Bool(true)),
            tags,
            properties,
            created: row.created,
            updated: row.updated,
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
            Error::new(Kind::NotFound, "ResourceNotFound", format!("The registry '{}' was not found.", name.escape_debug()))
        })
    }

    /// The registry with this number, from memory.
    pub fn registry_by_id(&self, id: i64) -> Option<Arc<Registry>> {
        self.snapshot.load().registries.iter().find(|r| r.id == id).cloned()
    }

    /// Show a registry of a group.
    pub fn show_registry(&self, ctx: &Ctx, group: &GroupName, name: &RegistryName) -> Result<Arc<Registry>> {
        self.registry_in(ctx, group, name, Action::ControlRead)
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
        let visible = |r: &Registry| self.check(ctx, r, &Target::Registry, Action::ControlRead).is_ok();
        Ok(snapshot.registries.iter().filter(|r| in_group(r) && visible(r)).cloned().collect())
    }

    /// Refuse callers who did not say who they are.
    pub(crate) fn signed_in(&self, ctx: &Ctx) -> Result<()> {
        match ctx.principal {
            Principal::Anonymous => {
                self.check_control(ctx, &ResourceId::subscription(&self.subscription_id()), Action::ControlRead)
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
