//! Resource groups: the folders that registries are in.

use std::collections::BTreeMap;

use portolan_auth::access::Action;
use portolan_store::meta;
use portolan_store::meta::group::GroupRow;
use portolan_types::{GroupName, ResourceId, Timestamp};
use serde_json::{Map, Value};

use crate::registries::{delete_with_contents, group_not_found, normal_location, tags_json};
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// Groups read in one step of a list.
const LIST_STEP: usize = 1_000;

/// A resource group.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name, in the case it was given.
    pub name: GroupName,
    /// Where it says it is.
    pub location: String,
    /// ARM tags.
    pub tags: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
}

impl Group {
    fn from_row(row: GroupRow) -> Result<Group> {
        let tags = serde_json::from_str(&row.tags)
            .map_err(|_| portolan_store::Error::Corrupt(format!("JSON of group {}", row.name)))?;
        Ok(Group { name: row.name, location: row.location, tags, created: row.created })
    }
}

impl Service {
    /// Make a group, or give it these tags when it is there. Whether it is new.
    ///
    /// Errors: `LocationRequired`; `InvalidResourceGroupLocation` for a group that is
    /// somewhere else.
    pub async fn put_group(
        &self,
        ctx: &Ctx,
        name: &GroupName,
        location: Option<&str>,
        tags: Option<&Map<String, Value>>,
    ) -> Result<(Group, bool)> {
        self.check_group(ctx, name, Action::ControlWrite)?;
        let location = normal_location(location.unwrap_or_default())?;
        let tags = tags.map(tags_json).transpose()?;
        let (name, now) = (name.clone(), ctx.now);
        let (row, created) = self
            .meta
            .write(move |tx| {
                let before = meta::group::get(tx, &name)?;
                if let Some(before) = &before
                    && before.location != location
                {
                    return Err(Error::new(
                        Kind::Conflict,
                        "InvalidResourceGroupLocation",
                        format!(
                            "Invalid resource group location '{location}'. The Resource group already exists in location '{}'.",
                            before.location
                        ),
                    ));
                }
                let kept = before.map(|b| b.tags);
                let tags = tags.or(kept).unwrap_or_else(|| "{}".to_owned());
                let row = GroupRow { name: name.clone(), location, tags, created: now, updated: now };
                let created = meta::group::put(tx, &row)?;
                let row = meta::group::get(tx, &name)?.ok_or_else(|| group_not_found(&name))?;
                Ok((row, created))
            })
            .await?;
        Ok((Group::from_row(row)?, created))
    }

    /// Show a group.
    pub async fn show_group(&self, ctx: &Ctx, name: &GroupName) -> Result<Group> {
        self.check_group(ctx, name, Action::ControlRead)?;
        let wanted = name.clone();
        let row = self.meta.read(move |tx| meta::group::get(tx, &wanted)).await?;
        Group::from_row(row.ok_or_else(|| group_not_found(name))?)
    }

    /// The groups that the caller may see, in the order of their names.
    pub async fn list_groups(&self, ctx: &Ctx) -> Result<Vec<Group>> {
        self.signed_in(ctx)?;
        let rows = self
            .meta
            .read(|tx| {
                let mut rows: Vec<GroupRow> = Vec::new();
                loop {
                    let after = rows.last().map(|r| r.name.key()).unwrap_or_default();
                    let more = meta::group::list(tx, &after, LIST_STEP)?;
                    let done = more.len() < LIST_STEP;
                    rows.extend(more);
                    if done {
                        return Ok::<_, Error>(rows);
                    }
                }
            })
            .await?;
        rows.into_iter()
            .filter(|r| self.check_group(ctx, &r.name, Action::ControlRead).is_ok())
            .map(Group::from_row)
            .collect()
    }

    /// Remove a group with every registry in it.
    ///
    /// Errors: `ResourceGroupNotFound`.
    pub async fn delete_group(&self, ctx: &Ctx, name: &GroupName) -> Result<()> {
        self.check_group(ctx, name, Action::ControlWrite)?;
        let (name, now, subscription) = (name.clone(), ctx.now, self.subscription_id());
        self.alter(move |tx| {
            let group = meta::group::get(tx, &name)?.ok_or_else(|| group_not_found(&name))?;
            for row in meta::registry::list_group(tx, &name)? {
                let scope = ResourceId::registry(&subscription, group.name.as_str(), row.name.as_str());
                delete_with_contents(tx, row.id, &scope, now)?;
            }
            meta::role::delete_within(tx, &ResourceId::group(&subscription, group.name.as_str()))?;
            meta::group::delete(tx, &name)?;
            Ok(())
        })
        .await
    }

    fn check_group(&self, ctx: &Ctx, name: &GroupName, action: Action) -> Result<()> {
        self.check_control(ctx, &ResourceId::group(&self.subscription_id(), name.as_str()), action)
    }
}
