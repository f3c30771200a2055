//! Role assignments.

use portolan_auth::access::{Action, Condition};
use portolan_store::meta;
use portolan_store::meta::role::AssignmentRow;
use portolan_types::{ResourceId, Timestamp};
use uuid::Uuid;

use super::definition::not_found as no_such_role;
use super::{ASSIGNMENTS_MAX, DESCRIPTION_CHARS_MAX, author, check_text};
use crate::directory::PrincipalKind;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::{Ctx, Error, Kind, Result};

/// Who holds which role where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleAssignment {
    /// Its id.
    pub id: Uuid,
    /// Where.
    pub scope: ResourceId,
    /// Who, by object id.
    pub principal: Uuid,
    /// Which role definition.
    pub role: Uuid,
    /// What it is for.
    pub description: Option<String>,
    /// When it holds; always, if there is none.
    pub condition: Option<String>,
    /// When it was given.
    pub created: Timestamp,
    /// By whom.
    pub created_by: Option<Uuid>,
    /// When it last changed.
    pub updated: Timestamp,
    /// By whom.
    pub updated_by: Option<Uuid>,
}

/// What an assignment is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentInput {
    /// Which role definition.
    pub role: Uuid,
    /// Who, by object id.
    pub principal: Uuid,
    /// What the caller takes the principal for: `User`, `ServicePrincipal`.
    pub principal_type: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// When it holds.
    pub condition: Option<String>,
    /// The version of the condition's grammar.
    pub condition_version: Option<String>,
}

/// Which assignments a list is to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssignmentFilter {
    /// Only those at the scope and above it, which hold there; else those below it too.
    pub at_scope: bool,
    /// Only this principal's.
    pub principal: Option<Uuid>,
}

impl RoleAssignment {
    pub(super) fn from_row(row: AssignmentRow) -> RoleAssignment {
        RoleAssignment {
            id: row.id,
            scope: row.scope,
            principal: row.principal,
            role: row.role,
            description: row.description,
            condition: row.condition,
            created: row.created,
            created_by: row.created_by,
            updated: row.updated,
            updated_by: row.updated_by,
        }
    }

    /// Its ARM id.
    pub fn arm_id(&self) -> String {
        format!("{}/providers/Microsoft.Authorization/roleAssignments/{}", self.scope, self.id)
    }
}

impl Service {
    /// The assignments at, above and below `scope`, in the order they were given.
    pub fn list_role_assignments(
        &self,
        ctx: &Ctx,
        scope: &ResourceId,
        filter: AssignmentFilter,
    ) -> Result<Vec<RoleAssignment>> {
        let scope = self.asked_scope(scope);
        self.check_control(ctx, &scope, Action::RoleAssignmentRead)?;
        let shown = |a: &&std::sync::Arc<RoleAssignment>| {
            let reaches = scope.is_within(&a.scope) || (!filter.at_scope && a.scope.is_within(&scope));
            reaches && filter.principal.is_none_or(|p| p == a.principal)
        };
        let snapshot = self.snapshot.load();
        Ok(snapshot.roles.assignments.iter().filter(shown).map(|a| RoleAssignment::clone(a)).collect())
    }

    /// Show an assignment at exactly this scope.
    pub fn show_role_assignment(&self, ctx: &Ctx, scope: &ResourceId, id: Uuid) -> Result<RoleAssignment> {
        self.check_control(ctx, &self.asked_scope(scope), Action::RoleAssignmentRead)?;
        self.role_assignment(scope, id).ok_or_else(|| {
            Error::new(Kind::NotFound, "RoleAssignmentNotFound", format!("The role assignment '{id}' is not found."))
        })
    }

    fn role_assignment(&self, scope: &ResourceId, id: Uuid) -> Option<RoleAssignment> {
        let snapshot = self.snapshot.load();
        let found = snapshot.roles.assignments.iter().find(|a| a.id == id && a.scope.key() == scope.key());
        found.map(|a| RoleAssignment::clone(a))
    }

    /// What sort of principal it is, for showing an assignment; `Unknown` for one that is gone.
    pub fn principal_type(&self, principal: Uuid) -> &'static str {
        match self.snapshot.load().principals.get(&principal).map(|state| state.kind) {
            Some(PrincipalKind::User) => "User",
            Some(PrincipalKind::ServicePrincipal | PrincipalKind::ManagedIdentity) => "ServicePrincipal",
            None => "Unknown",
        }
    }

    /// Give a role, or change the description and the condition of the assignment of that id.
    /// Whether it is new.
    ///
    /// Errors: `RoleDefinitionDoesNotExist`; `RoleAssignmentScopeNotAssignableToRoleDefinition`;
    /// `PrincipalNotFound`; `InvalidRoleAssignmentCondition`; `RoleAssignmentExists` when the
    /// principal holds the role there by another assignment; `RoleAssignmentUpdateNotPermitted`.
    pub async fn put_role_assignment(
        &self,
        ctx: &Ctx,
        scope: &ResourceId,
        id: Uuid,
        input: AssignmentInput,
    ) -> Result<(RoleAssignment, bool)> {
        self.check_control(ctx, scope, Action::RoleAssignmentWrite)?;
        let scope = self.known_scope(scope).await?;
        let role = self.snapshot.load().roles.definition(input.role).ok_or_else(|| no_such_role(input.role))?;
        if !role.is_assignable(&scope) {
            return Err(Error::new(
                Kind::Invalid,
                "RoleAssignmentScopeNotAssignableToRoleDefinition",
                format!("The role '{}' cannot be assigned at the scope '{scope}'.", role.name.escape_debug()),
            ));
        }
        self.check_assignee(&input)?;
        check_text("description", input.description.as_deref().unwrap_or_default(), DESCRIPTION_CHARS_MAX)?;
        let condition = input.condition.filter(|c| !c.trim().is_empty());
        check_condition(condition.as_deref(), input.condition_version.as_deref())?;
        let row = AssignmentRow {
            id,
            scope,
            principal: input.principal,
            role: input.role,
            description: input.description.filter(|d| !d.is_empty()),
            condition,
            created: ctx.now,
            created_by: author(ctx),
            updated: ctx.now,
            updated_by: author(ctx),
        };
        let (row, new) = self
            .alter(move |tx| {
                crate::operations::not_going(tx, &row.scope)?;
                let new = match meta::role::get(tx, id)? {
                    Some(before) if !same_but_text(&before, &row) => return Err(not_to_be_moved()),
                    Some(_) => {
                        meta::role::update(tx, &row)?;
                        false
                    }
                    None => {
                        if meta::role::count(tx)? >= ASSIGNMENTS_MAX as u64 {
                            return Err(Error::new(
                                Kind::Conflict,
                                "RoleAssignmentLimitExceeded",
                                format!("No more role assignments can be created; there may be {ASSIGNMENTS_MAX}."),
                            ));
                        }
                        meta::role::insert(tx, &row).map_err(|e| match e {
                            portolan_store::Error::Conflict(_) => Error::new(
                                Kind::Conflict,
                                "RoleAssignmentExists",
                                "The role assignment already exists.",
                            ),
                            e => e.into(),
                        })?;
                        true
                    }
                };
                let row = meta::role::get(tx, id)?.ok_or_else(|| no_such_role(row.role))?;
                Ok((row, new))
            })
            .await?;
        Ok((RoleAssignment::from_row(row), new))
    }

    /// Take a role away; what the assignment was, if it was there.
    ///
    /// Errors: `LastRoleAssignment` for the last one by which anybody can give roles in the
    /// subscription: nobody could mend that.
    pub async fn delete_role_assignment(
        &self,
        ctx: &Ctx,
        scope: &ResourceId,
        id: Uuid,
    ) -> Result<Option<RoleAssignment>> {
        self.check_control(ctx, &self.asked_scope(scope), Action::RoleAssignmentDelete)?;
        let Some(assignment) = self.role_assignment(scope, id) else { return Ok(None) };
        let snapshot = self.snapshot.load_full();
        let gone = self
            .alter(move |tx| {
                // In the transaction, so that two who take one another's role away do not both
                // find that the other still has it.
                let rows = meta::role::list(tx)?;
                let (that, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.id == id);
                let opens = |row: &&AssignmentRow| opens_the_subscription(&snapshot, row);
                if that.iter().any(opens) && !others.iter().any(opens) {
                    return Err(Error::new(
                        Kind::Conflict,
                        "LastRoleAssignment",
                        "Cannot delete the last role assignment that lets anybody assign roles in the subscription.",
                    )
                    .with_hint("make another principal Owner of the subscription first"));
                }
                Ok(meta::role::delete(tx, id)?)
            })
            .await?;
        Ok(gone.then_some(assignment))
    }

    fn check_assignee(&self, input: &AssignmentInput) -> Result<()> {
        let snapshot = self.snapshot.load();
        let Some(state) = snapshot.principals.get(&input.principal) else {
            return Err(Error::new(
                Kind::Invalid,
                "PrincipalNotFound",
                format!(
                    "Principal {} does not exist in the directory {}. Check that you have the correct principal ID.",
                    input.principal, snapshot.tenant
                ),
            ));
        };
        let is = match state.kind {
            PrincipalKind::User => "User",
            PrincipalKind::ServicePrincipal | PrincipalKind::ManagedIdentity => "ServicePrincipal",
        };
        match input.principal_type.as_deref() {
            Some(said) if !said.is_empty() && !said.eq_ignore_ascii_case(is) => Err(Error::new(
                Kind::Invalid,
                "UnmatchedPrincipalType",
                format!(
                    "The PrincipalId '{}' has type '{is}', which is different from specified PrincipalType '{}'.",
                    input.principal,
                    said.chars().take(64).collect::<String>().escape_debug()
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether by this assignment somebody who can sign in may give roles in the subscription.
fn opens_the_subscription(snapshot: &Snapshot, row: &AssignmentRow) -> bool {
    ResourceId::subscription(&snapshot.subscription).is_within(&row.scope)
        && row.condition.is_none()
        && snapshot.roles.actions(row.role).is_some_and(|set| set.contains(Action::RoleAssignmentWrite))
        && snapshot.principals.get(&row.principal).is_some_and(|p| p.enabled)
}

/// Whether the two differ in nothing but description and condition.
fn same_but_text(before: &AssignmentRow, row: &AssignmentRow) -> bool {
    before.scope.key() == row.scope.key() && before.principal == row.principal && before.role == row.role
}

fn not_to_be_moved() -> Error {
    Error::new(
        Kind::Invalid,
        "RoleAssignmentUpdateNotPermitted",
        "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
    )
}

fn check_condition(condition: Option<&str>, version: Option<&str>) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Kind::Invalid, "InvalidRoleAssignmentCondition", why));
    let version = version.filter(|v| !v.is_empty());
    match (condition, version) {
        (_, Some(version)) if version != "2.0" => {
            let shown: String = version.chars().take(20).collect();
            refuse(format!("The condition version '{}' is not supported. Use 2.0.", shown.escape_debug()))
        }
        (Some(condition), _) => match Condition::parse(condition) {
            Ok(_) => Ok(()),
            Err(why) => refuse(why.to_string()),
        },
        (None, _) => Ok(()),
    }
}
