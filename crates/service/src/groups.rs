//! Resource groups: the folders that registries are in.

use std::collections::BTreeMap;

use portolan_auth::access::Action;
use portolan_store::meta::group::GroupRow;
use portolan_store::meta::{self, Tx};
use portolan_types::{GroupName, ResourceId, Timestamp};
use serde_json::{Map, Value};

use crate::registries::{group_not_found, normal_location, tags_json};
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result, operations};

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
    /// When it last changed.
    pub updated: Timestamp,
    /// Whether it is being removed.
    pub going: bool,
}

impl Group {
    fn from_row(row: GroupRow, going: bool) -> Result<Group> {
        let tags = serde_json::from_str(&row.tags)
            .map_err(|_| portolan_store::Error::Corrupt(format!("JSON of group {}", row.name)))?;
        Ok(Group { name: row.name, location: row.location, tags, created: row.created, updated: row.updated, going })
    }
}

impl Service {
    /// Make a group, or give it these tags when it is there. Whether it is new.
    ///
    /// Errors: `LocationRequired`; `InvalidResourceGroupLocation` for a group that is
    /// somewhere else; `ResourceGroupBeingDeleted`.
    pub async fn put_group(
        &self,
        ctx: &Ctx,
        name: &GroupName,
        location: Option<&str>,
        tags: Option<&Map<String, Value>>,
    ) -> Result<(Group, bool)> {
        self.check_group(ctx, name, Action::GroupWrite)?;
        let location = normal_location(location.unwrap_or_default())?;
        let tags = tags.map(tags_json).transpose()?;
        let scope = ResourceId::group(&self.subscription_id(), name.as_str());
        let (name, now) = (name.clone(), ctx.now);
        let (row, created) = self
            .meta
            .write(move |tx| {
                operations::not_going(tx, &scope)?;
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
        Ok((Group::from_row(row, false)?, created))
    }

    /// Show a group.
    pub async fn show_group(&self, ctx: &Ctx, name: &GroupName) -> Result<Group> {
        self.check_group(ctx, name, Action::GroupRead)?;
        let wanted = name.clone();
        let row = self.meta.read(move |tx| meta::group::get(tx, &wanted)).await?;
        let row = row.ok_or_else(|| group_not_found(name))?;
        let going = self.is_going(&row.name);
        Group::from_row(row, going)
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
            .filter(|r| self.check_group(ctx, &r.name, Action::GroupRead).is_ok())
            .map(|row| {
                let going = self.is_going(&row.name);
                Group::from_row(row, going)
            })
            .collect()
    }

    /// Change a group, as ARM's PATCH does: its tags, when there are any in what is given.
    pub async fn patch_group(&self, ctx: &Ctx, name: &GroupName, tags: Option<&Map<String, Value>>) -> Result<Group> {
        let group = self.show_group(ctx, name).await?;
        Ok(self.put_group(ctx, name, Some(&group.location), tags).await?.0)
    }

    /// Whether a group is being removed, as far as this server knows.
    fn is_going(&self, name: &GroupName) -> bool {
        let scope = ResourceId::group(&self.subscription_id(), name.as_str());
        self.snapshot.load().going.contains(&scope.key())
    }

    fn check_group(&self, ctx: &Ctx, name: &GroupName, action: Action) -> Result<()> {
        self.check_control(ctx, &ResourceId::group(&self.subscription_id(), name.as_str()), action)
    }
}

/// Remove the row of a group that is empty, and the roles that were held at it.
pub(crate) fn delete_row(tx: &mut dyn Tx, name: &GroupName, scope: &ResourceId) -> Result<()> {
    crate::directory::delete_in_group(tx, name)?;
    meta::role::delete_within(tx, scope)?;
    meta::group::delete(tx, name)?;
    Ok(())
}

/// ARM's words for what cannot be the name of a group.
pub(crate) fn invalid_name(text: &str) -> Error {
    Error::new(
        Kind::Invalid,
        "InvalidResourceGroup",
        format!("The resource group name '{}' is not valid.", text.escape_debug()),
    )
}
