//! Scope maps: what the repository tokens of a registry may do, by names.
//!
//! A registry has those that its owners make, and a few that every registry has and nobody
//! changes ([`SYSTEM`]). What the actions mean is [`portolan_auth::access::ScopeMap`]'s. A
//! change is effective with the next request of every token that has the map, whatever access
//! token it shows.

use portolan_auth::access::{Action, ScopeMap, Target};
use portolan_store::meta::scope_map::{self, ScopeMapRow};
use portolan_types::{ScopeMapName, Timestamp};

use crate::registries::Registry;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// Longest description, in characters (az's figure).
pub const DESCRIPTION_CHARS_MAX: usize = 256;

/// A scope map that every registry has.
#[derive(Clone, Copy, Debug)]
pub struct SystemScopeMap {
    /// Its name, in lower case.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// What it allows.
    pub actions: &'static [&'static str],
}

const PULL: &str = "repositories/*/content/read";
const PUSH: &str = "repositories/*/content/write";
const READ_METADATA: &str = "repositories/*/metadata/read";
const WRITE_METADATA: &str = "repositories/*/metadata/write";

/// The scope maps that every registry has, by name.
pub const SYSTEM: &[SystemScopeMap] = &[
    SystemScopeMap {
        name: "_repositories_admin",
        description: "Can perform all read, write and delete operations on the registry",
        actions: &[READ_METADATA, WRITE_METADATA, PULL, PUSH, "repositories/*/content/delete"],
    },
    SystemScopeMap {
        name: "_repositories_pull",
        description: "Can pull any repository of the registry",
        actions: &[PULL],
    },
    SystemScopeMap {
        name: "_repositories_pull_metadata_read",
        description: "Can pull any repository of the registry and read its metadata",
        actions: &[PULL, READ_METADATA],
    },
    SystemScopeMap {
        name: "_repositories_push",
        description: "Can push to any repository of the registry",
        actions: &[PULL, PUSH],
    },
    SystemScopeMap {
        name: "_repositories_push_metadata_write",
        description: "Can push to any repository of the registry, and read and write its metadata",
        actions: &[PULL, PUSH, READ_METADATA, WRITE_METADATA],
    },
];

/// The system scope map of this name, in any case.
pub(crate) fn system(name: &str) -> Option<&'static SystemScopeMap> {
    SYSTEM.iter().find(|map| map.name.eq_ignore_ascii_case(name))
}

/// A scope map, as the control plane shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeMapInfo {
    /// Its name, in the case it was given.
    pub name: String,
    /// For people.
    pub description: String,
    /// What it allows, in lower case, each once, in the order given.
    pub actions: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// Whether every registry has it.
    pub is_system: bool,
}

/// What a PUT or PATCH gives; what is absent stays as it is.
#[derive(Clone, Debug, Default)]
pub struct ScopeMapInput {
    /// For people.
    pub description: Option<String>,
    /// What it is to allow; needed to make one.
    pub actions: Option<Vec<String>>,
}

fn shown(row: ScopeMapRow) -> ScopeMapInfo {
    ScopeMapInfo {
        name: row.name.to_string(),
        description: row.description,
        actions: row.actions,
        created: row.created,
        is_system: false,
    }
}

fn shown_system(map: &SystemScopeMap, registry: &Registry) -> ScopeMapInfo {
    ScopeMapInfo {
        name: map.name.to_owned(),
        description: map.description.to_owned(),
        actions: map.actions.iter().map(|a| (*a).to_owned()).collect(),
        created: registry.created,
        is_system: true,
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "InvalidParameter", message)
}

fn not_found(registry: &Registry, name: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "ResourceNotFound",
        format!(
            "The Resource 'Microsoft.ContainerRegistry/registries/{}/scopeMaps/{}' was not found.",
            registry.name,
            name.escape_debug()
        ),
    )
}

/// A name out of a path.
fn parsed(name: &str) -> Result<ScopeMapName> {
    name.parse()
        .map_err(|e: portolan_types::InvalidName| Error::new(Kind::Invalid, "InvalidResourceName", e.to_string()))
}

/// The actions as they are kept.
fn checked(actions: &[String]) -> Result<Vec<String>> {
    ScopeMap::parse(actions).map_err(|why| invalid(why.to_string()))?;
    let mut kept: Vec<String> = Vec::with_capacity(actions.len());
    for action in actions {
        let action = action.to_ascii_lowercase();
        if !kept.contains(&action) {
            kept.push(action);
        }
    }
    Ok(kept)
}

/// A text for people, of a bounded length and without control characters.
fn description(text: &str) -> Result<String> {
    if text.chars().count() > DESCRIPTION_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(invalid(format!(
            "a scope map's description can have {DESCRIPTION_CHARS_MAX} characters, all printable"
        )));
    }
    Ok(text.to_owned())
}

impl Service {
    /// The scope maps of a registry by name, those after the one called `after`, at most
    /// `limit` of its own; the system ones come first. Whether there are more.
    pub async fn list_scope_maps(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<ScopeMapInfo>, bool)> {
        self.check(ctx, registry, &Target::Registry, Action::ScopeMapRead)?;
        let (id, key) = (registry.id, after.to_ascii_lowercase());
        let rows = self.meta.read(move |tx| scope_map::list(tx, id, &key, limit + 1).map_err(Error::from)).await?;
        let more = rows.len() > limit;
        let mut maps = Vec::new();
        if after.is_empty() {
            maps.extend(SYSTEM.iter().map(|map| shown_system(map, registry)));
        }
        maps.extend(rows.into_iter().take(limit).map(shown));
        Ok((maps, more))
    }

    /// One scope map.
    pub async fn scope_map(&self, ctx: &Ctx, registry: &Registry, name: &str) -> Result<ScopeMapInfo> {
        self.check(ctx, registry, &Target::Registry, Action::ScopeMapRead)?;
        if let Some(map) = system(name) {
            return Ok(shown_system(map, registry));
        }
        let Ok(wanted) = parsed(name) else { return Err(not_found(registry, name)) };
        let id = registry.id;
        let found = self.meta.read(move |tx| scope_map::get(tx, id, &wanted).map_err(Error::from)).await?;
        found.map(shown).ok_or_else(|| not_found(registry, name))
    }

    /// Make a scope map, or change the one of that name. The second answer is true when it is
    /// new.
    ///
    /// Errors: `InvalidParameter`, which names the action; `InvalidResourceName`;
    /// `CannotModifySystemScopeMap`; `ScopeMapsQuotaExceeded` when the registry's tier has no
    /// room.
    pub async fn put_scope_map(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        name: &str,
        input: ScopeMapInput,
    ) -> Result<(ScopeMapInfo, bool)> {
        self.write_scope_map(ctx, registry, name, input, true).await
    }

    /// Change a scope map.
    ///
    /// Errors: as [`Service::put_scope_map`], and `ResourceNotFound`.
    pub async fn patch_scope_map(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        name: &str,
        input: ScopeMapInput,
    ) -> Result<ScopeMapInfo> {
        self.write_scope_map(ctx, registry, name, input, false).await.map(|(map, _)| map)
    }

    async fn write_scope_map(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        name: &str,
        input: ScopeMapInput,
        may_create: bool,
    ) -> Result<(ScopeMapInfo, bool)> {
        self.check(ctx, registry, &Target::Registry, Action::ScopeMapWrite)?;
        refuse_system(name)?;
        let wanted = parsed(name)?;
        let actions = input.actions.as_deref().map(checked).transpose()?;
        let text = input.description.as_deref().map(description).transpose()?;
        let (id, now, max) = (registry.id, ctx.now, self.scope_maps_max(registry));
        let missing = not_found(registry, name);
        self.alter(move |tx| {
            let before = scope_map::get(tx, id, &wanted)?;
            let row = match before {
                Some(row) => ScopeMapRow {
                    actions: actions.unwrap_or(row.actions),
                    description: text.unwrap_or(row.description),
                    ..row
                },
                None if !may_create => return Err(missing),
                None => {
                    if scope_map::count(tx, id)? >= max {
                        return Err(Error::new(
                            Kind::Conflict,
                            "ScopeMapsQuotaExceeded",
                            format!("A registry of this SKU can have {max} scope maps."),
                        ));
                    }
                    ScopeMapRow {
                        name: wanted,
                        description: text.unwrap_or_default(),
                        actions: actions.ok_or_else(|| invalid("`properties.actions` is missing"))?,
                        created: now,
                    }
                }
            };
            let new = scope_map::put(tx, id, &row)?;
            Ok((shown(row), new))
        })
        .await
    }

    /// Delete a scope map; false when there was none. Tokens that had it are left without one
    /// and may do nothing.
    pub async fn delete_scope_map(&self, ctx: &Ctx, registry: &Registry, name: &str) -> Result<bool> {
        self.check(ctx, registry, &Target::Registry, Action::ScopeMapDelete)?;
        refuse_system(name)?;
        let Ok(wanted) = parsed(name) else { return Ok(false) };
        let id = registry.id;
        self.alter(move |tx| scope_map::delete(tx, id, &wanted).map_err(Error::from)).await
    }

    fn scope_maps_max(&self, registry: &Registry) -> u64 {
        self.tier(registry).scope_maps_max
    }
}

fn refuse_system(name: &str) -> Result<()> {
    match system(name) {
        None => Ok(()),
        Some(map) => Err(Error::new(
            Kind::Invalid,
            "CannotModifySystemScopeMap",
            format!("The scope map {} is system-defined and cannot be changed or deleted.", map.name),
        )),
    }
}
