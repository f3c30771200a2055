//! Roles: definitions, and who holds them where.
//!
//! A *definition* is a set of operations by a name: Azure's built-in ones are in the program,
//! custom ones in the database. An *assignment* gives a principal a definition at a scope and
//! below it, and may have a condition. Both are in the snapshot, where every definition is
//! compiled to the set of actions that a decision reads, so that a change holds for the next
//! request here, and within a second on every other server.
//!
//! Who may give roles: whoever may write role assignments at the scope, and nobody else. That
//! is the one door by which rights grow, so that other doors are held to it: a custom role can
//! only be made or widened beyond what its author may do by somebody who may give roles
//! wherever it can be assigned ([`Service::put_role_definition`]), and the last assignment that
//! lets anybody give roles in the subscription cannot be taken away.

mod assignment;
mod definition;

use std::collections::HashMap;
use std::sync::Arc;

use portolan_auth::access::{ActionSet, Assignment, Condition, roles};
use portolan_store::meta::{self, Tx};
use portolan_types::ResourceId;
use uuid::Uuid;

pub use assignment::{AssignmentFilter, AssignmentInput, RoleAssignment};
pub use definition::{RoleDefinition, RoleDefinitionInput};

use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::{Ctx, Error, Kind, Result};

/// Custom roles (Azure's number).
const DEFINITIONS_MAX: usize = 5_000;
/// Role assignments (Azure's number for a subscription).
const ASSIGNMENTS_MAX: usize = 4_000;
/// Characters of the name of a role (Azure's number).
const NAME_CHARS_MAX: usize = 512;
/// Characters of a description (Azure's number).
const DESCRIPTION_CHARS_MAX: usize = 2_048;
/// Scopes at which one custom role can be assigned.
const SCOPES_MAX: usize = 100;

/// What the snapshot has of roles.
#[derive(Default)]
pub(crate) struct Roles {
    /// Custom ones, by name.
    definitions: Vec<Arc<RoleDefinition>>,
    /// In the order they were given.
    assignments: Vec<Arc<RoleAssignment>>,
    /// Number of the custom roles' places by their ids.
    by_id: HashMap<Uuid, usize>,
}

impl Roles {
    fn custom(&self, id: Uuid) -> Option<&Arc<RoleDefinition>> {
        self.definitions.get(*self.by_id.get(&id)?)
    }

    /// The definition of that id, built in or not.
    fn definition(&self, id: Uuid) -> Option<RoleDefinition> {
        match self.custom(id) {
            Some(custom) => Some(RoleDefinition::clone(custom)),
            None => portolan_auth::access::role(id).map(RoleDefinition::built_in),
        }
    }

    /// What a role may do.
    fn actions(&self, id: Uuid) -> Option<ActionSet> {
        self.custom(id).map(|d| d.actions).or_else(|| portolan_auth::access::role(id).map(|r| r.actions))
    }
}

/// Read roles, and hand every principal what it holds.
///
/// What cannot be read allows nothing: a definition written by a newer server may say more
/// than this one understands.
pub(crate) fn read_all(tx: &mut dyn Tx, snapshot: &mut Snapshot) -> Result<()> {
    let mut found = Roles::default();
    for row in meta::role::list_definitions(tx)? {
        let (id, name) = (row.id, row.name.clone());
        match RoleDefinition::from_row(row) {
            Some(definition) => {
                found.by_id.insert(definition.id, found.definitions.len());
                found.definitions.push(Arc::new(definition));
            }
            None => tracing::error!(%id, %name, "a stored role cannot be read and allows nothing"),
        }
    }
    for row in meta::role::list(tx)? {
        let assignment = RoleAssignment::from_row(row);
        let condition = assignment.condition.as_deref().map(Condition::parse).transpose();
        let state = snapshot.principals.get_mut(&assignment.principal);
        match (state, found.actions(assignment.role), condition) {
            (Some(state), Some(actions), Ok(condition)) => state.assignments.push(Assignment {
                scope: assignment.scope.key(),
                actions,
                condition: condition.map(Arc::new),
            }),
            (Some(_), Some(_), Err(why)) => {
                tracing::error!(id = %assignment.id, %why, "a stored condition cannot be read: its role is not given");
            }
            _ => {}
        }
        found.assignments.push(Arc::new(assignment));
    }
    snapshot.roles = found;
    Ok(())
}

impl Service {
    /// The id of a scope as it was given when what it names was made, if that is there: the
    /// subscription, a group, a registry, or something in a group.
    ///
    /// Errors: `ResourceGroupNotFound`, `ResourceNotFound`, `MissingSubscription`.
    async fn known_scope(&self, scope: &ResourceId) -> Result<ResourceId> {
        let key = scope.key();
        let subscription = ResourceId::subscription(&self.subscription_id());
        if key == subscription.key() {
            return Ok(subscription);
        }
        if !scope.is_within(&subscription) {
            return Err(Error::new(
                Kind::NotFound,
                "MissingSubscription",
                "The request did not have a subscription or a valid tenant level resource provider.",
            ));
        }
        let parts: Vec<&str> = scope.0.split('/').filter(|p| !p.is_empty()).collect();
        let is = |at: usize, word: &str| parts.get(at).is_some_and(|part: &&str| part.eq_ignore_ascii_case(word));
        let no_such = || {
            Error::new(
                Kind::NotFound,
                "ResourceNotFound",
                format!("The resource '{}' was not found.", scope.0.escape_debug()),
            )
        };
        // /subscriptions/{s}/resourceGroups/{g}[/providers/{ns}/{type}/{name}[/{type}/{name}]…]
        let resource = parts.len() >= 8 && parts.len().is_multiple_of(2) && is(4, "providers");
        if !is(2, "resourceGroups") || !(parts.len() == 4 || resource) {
            return Err(no_such());
        }
        if is(5, "Microsoft.ContainerRegistry") && is(6, "registries") {
            let found = self.snapshot.load().registry(&parts[7].to_lowercase()).cloned();
            let found = found.filter(|r| scope.is_within(&r.resource_id)).ok_or_else(no_such)?;
            let rest = parts[8..].iter().map(|part| format!("/{part}")).collect::<String>();
            return Ok(ResourceId(format!("{}{rest}", found.resource_id)));
        }
        let name = parts[3].parse().map_err(|_| no_such())?;
        let row = self
            .meta
            .read(move |tx| meta::group::get(tx, &name)?.ok_or_else(|| crate::registries::group_not_found(&name)));
        let group = ResourceId::group(&self.subscription_id(), row.await?.name.as_str());
        let rest = parts[4..].iter().map(|part| format!("/{part}")).collect::<String>();
        Ok(ResourceId(format!("{group}{rest}")))
    }

    /// What stands for a scope in questions of who may: the subscription for what is above it.
    fn asked_scope(&self, scope: &ResourceId) -> ResourceId {
        if scope.key().is_empty() { ResourceId::subscription(&self.subscription_id()) } else { scope.clone() }
    }
}

/// Who is acting, for `createdBy` and `updatedBy`.
fn author(ctx: &Ctx) -> Option<Uuid> {
    match &ctx.principal {
        portolan_auth::access::Principal::Directory { object_id, .. } => Some(*object_id),
        _ => None,
    }
}

/// Refuse a text that is too long, or holds what no text should.
fn check_text(what: &str, text: &str, chars_max: usize) -> Result<()> {
    let fine = text.chars().count() <= chars_max && !text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c));
    if fine {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        "InvalidRequestContent",
        format!("The {what} has at most {chars_max} characters, and no control characters."),
    ))
}

/// The last part of a role definition's id, which may also be given alone.
pub fn role_id(text: &str) -> Result<Uuid> {
    let name = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    Uuid::try_parse(name).map_err(|_| {
        let shown: String = text.chars().take(200).collect();
        Error::new(
            Kind::Invalid,
            "InvalidRoleDefinitionId",
            format!(
                "The role definition ID '{}' is not valid. The role definition ID must be a GUID.",
                shown.escape_debug()
            ),
        )
    })
}

/// Every built-in role.
fn built_in() -> impl Iterator<Item = RoleDefinition> {
    roles().iter().map(RoleDefinition::built_in)
}
