//! Role definitions.

use portolan_auth::access::{Action, ActionSet, Permission, Role};
use portolan_store::meta;
use portolan_store::meta::role::DefinitionRow;
use portolan_types::{ResourceId, Timestamp};
use serde_json::json;
use uuid::Uuid;

use super::{DEFINITIONS_MAX, DESCRIPTION_CHARS_MAX, NAME_CHARS_MAX, SCOPES_MAX, author, built_in, check_text};
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDefinition {
    /// Its id, the same at every scope.
    pub id: Uuid,
    /// Its name; one of this name in all, in any case.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether it was made here.
    pub is_custom: bool,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// At and below which scopes it can be given; `/` for everywhere.
    pub scopes: Vec<ResourceId>,
    /// When it was made; none for built-in ones.
    pub created: Option<Timestamp>,
    /// By whom.
    pub created_by: Option<Uuid>,
    /// When it last changed.
    pub updated: Option<Timestamp>,
    /// By whom.
    pub updated_by: Option<Uuid>,
    /// The permissions, compiled.
    pub(crate) actions: ActionSet,
}

/// What a custom role is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleDefinitionInput {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// At and below which scopes it can be given.
    pub scopes: Vec<String>,
}

impl RoleDefinition {
    pub(super) fn built_in(role: &Role) -> RoleDefinition {
        RoleDefinition {
            id: role.id,
            name: role.name.to_owned(),
            description: role.description.to_owned(),
            is_custom: false,
            permissions: vec![role.permission.clone()],
            scopes: vec![ResourceId("/".to_owned())],
            created: None,
            created_by: None,
            updated: None,
            updated_by: None,
            actions: role.actions,
        }
    }

    /// `None` when what is stored is not what we write.
    pub(super) fn from_row(row: DefinitionRow) -> Option<RoleDefinition> {
        let permissions: Vec<Permission> = serde_json::from_str(&row.permissions).ok()?;
        let scopes: Vec<ResourceId> = serde_json::from_str(&row.scopes).ok()?;
        Some(RoleDefinition {
            id: row.id,
            name: row.name,
            description: row.description,
            is_custom: true,
            actions: compile(&permissions),
            permissions,
            scopes,
            created: Some(row.created),
            created_by: row.created_by,
            updated: Some(row.updated),
            updated_by: row.updated_by,
        })
    }

    /// Whether it can be given at `scope`.
    pub fn is_assignable(&self, scope: &ResourceId) -> bool {
        !self.is_custom || self.scopes.iter().any(|s| scope.is_within(s))
    }
}

fn compile(permissions: &[Permission]) -> ActionSet {
    permissions.iter().fold(ActionSet::NONE, |sum, p| sum.with(p.compile()))
}

impl Service {
    /// The roles that can be given at `scope`: built-in ones, then custom ones, by name. With
    /// `below`, those too that can only be given at something below it.
    pub fn list_role_definitions(&self, ctx: &Ctx, scope: &ResourceId, below: bool) -> Result<Vec<RoleDefinition>> {
        let scope = self.asked_scope(scope);
        self.check_control(ctx, &scope, Action::RoleDefinitionRead)?;
        let snapshot = self.snapshot.load();
        let reaches = |d: &&std::sync::Arc<RoleDefinition>| {
            d.is_assignable(&scope) || (below && d.scopes.iter().any(|s| s.is_within(&scope)))
        };
        let custom = snapshot.roles.definitions.iter().filter(reaches).map(|d| RoleDefinition::clone(d));
        Ok(built_in().chain(custom).collect())
    }

    /// Show a role.
    pub fn show_role_definition(&self, ctx: &Ctx, scope: &ResourceId, id: Uuid) -> Result<RoleDefinition> {
        self.check_control(ctx, &self.asked_scope(scope), Action::RoleDefinitionRead)?;
        self.snapshot.load().roles.definition(id).ok_or_else(|| not_found(id))
    }

    /// Make a custom role, or change one. Whether it is new.
    ///
    /// The caller must be allowed to write definitions wherever the role can be, and could be,
    /// assigned; and to give roles there, unless the role is within what the caller may do
    /// there anyway.
    pub async fn put_role_definition(
        &self,
        ctx: &Ctx,
        id: Uuid,
        input: RoleDefinitionInput,
    ) -> Result<(RoleDefinition, bool)> {
        let before = self.snapshot.load().roles.definition(id);
        if before.as_ref().is_some_and(|d| !d.is_custom) {
            return Err(Error::new(
                Kind::Forbidden,
                "BuiltInRoleDefinitionCannotBeUpdated",
                format!("The role definition '{id}' is built in and cannot be changed."),
            ));
        }
        let name = input.name.trim().to_owned();
        if name.is_empty() {
            return Err(invalid("The role definition must have a roleName."));
        }
        check_text("role's name", &name, NAME_CHARS_MAX)?;
        check_text("role's description", &input.description, DESCRIPTION_CHARS_MAX)?;
        Permission::check(&input.permissions).map_err(|why| invalid(why.to_string()))?;
        if input.scopes.is_empty() || input.scopes.len() > SCOPES_MAX {
            return Err(invalid(format!("The role definition must have 1 to {SCOPES_MAX} assignableScopes.")));
        }
        let actions = compile(&input.permissions);
        let mut scopes = Vec::new();
        for scope in input.scopes {
            let scope = ResourceId(scope);
            // Ask first, so that nobody learns of what is there by being refused.
            self.check_definition(ctx, &scope, actions)?;
            let scope = self.known_scope(&scope).await.map_err(|e| match e.code {
                "MissingSubscription" => invalid(format!(
                    "The assignable scope '{}' is not valid: it must be the subscription or in it.",
                    scope.0.chars().take(200).collect::<String>().escape_debug()
                )),
                _ => e,
            })?;
            scopes.push(scope);
        }
        for scope in before.iter().flat_map(|d| &d.scopes) {
            self.check_definition(ctx, scope, actions)?;
        }
        if self.list_names().any(|(other, text)| other != id && text.eq_ignore_ascii_case(&name)) {
            return Err(name_taken(&name));
        }
        let row = DefinitionRow {
            id,
            name: name.clone(),
            description: input.description,
            permissions: json!(input.permissions).to_string(),
            scopes: json!(scopes).to_string(),
            created: ctx.now,
            created_by: author(ctx),
            updated: ctx.now,
            updated_by: author(ctx),
        };
        let (row, new) = self
            .alter(move |tx| {
                let existing = meta::role::list_definitions(tx)?;
                if existing.iter().any(|d| d.id != id && d.name.to_lowercase() == row.name.to_lowercase()) {
                    return Err(name_taken(&row.name));
                }
                if existing.len() >= DEFINITIONS_MAX && existing.iter().all(|d| d.id != id) {
                    return Err(Error::new(
                        Kind::Conflict,
                        "RoleDefinitionLimitExceeded",
                        format!("There may be at most {DEFINITIONS_MAX} custom roles."),
                    ));
                }
                let new = meta::role::put_definition(tx, &row)?;
                let row = meta::role::get_definition(tx, id)?.ok_or_else(|| not_found(id))?;
                Ok((row, new))
            })
            .await?;
        let definition = RoleDefinition::from_row(row).ok_or_else(|| not_found(id))?;
        Ok((definition, new))
    }

    /// Remove a custom role; what it was, if it was there.
    ///
    /// Errors: `RoleDefinitionHasAssignments`.
    pub async fn delete_role_definition(
        &self,
        ctx: &Ctx,
        scope: &ResourceId,
        id: Uuid,
    ) -> Result<Option<RoleDefinition>> {
        let found = self.snapshot.load().roles.definition(id);
        let Some(definition) = found else {
            self.check_control(ctx, &self.asked_scope(scope), Action::RoleDefinitionDelete)?;
            return Ok(None);
        };
        if !definition.is_custom {
            return Err(Error::new(
                Kind::Forbidden,
                "BuiltInRoleDefinitionCannotBeDeleted",
                format!("The role definition '{id}' is built in and cannot be deleted."),
            ));
        }
        for scope in &definition.scopes {
            self.check_control(ctx, scope, Action::RoleDefinitionDelete)?;
        }
        let gone = self
            .alter(move |tx| {
                if meta::role::is_assigned(tx, id)? {
                    return Err(Error::new(
                        Kind::Invalid,
                        "RoleDefinitionHasAssignments",
                        format!("There are existing role assignments referencing role (code: '{id}')."),
                    ));
                }
                Ok(meta::role::delete_definition(tx, id)?)
            })
            .await?;
        Ok(gone.then_some(definition))
    }

    /// Whether the caller may write a definition of these actions that can be given at `scope`.
    fn check_definition(&self, ctx: &Ctx, scope: &ResourceId, actions: ActionSet) -> Result<()> {
        self.check_control(ctx, scope, Action::RoleDefinitionWrite)?;
        // Whoever holds the role already would be given what the author cannot give.
        if !self.allowed_at(ctx, scope).includes(actions) {
            self.check_control(ctx, scope, Action::RoleAssignmentWrite)?;
        }
        Ok(())
    }

    fn list_names(&self) -> impl Iterator<Item = (Uuid, String)> {
        let custom: Vec<_> = self.snapshot.load().roles.definitions.iter().map(|d| (d.id, d.name.clone())).collect();
        built_in().map(|d| (d.id, d.name)).chain(custom)
    }
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "InvalidRoleDefinition", why)
}

fn name_taken(name: &str) -> Error {
    Error::new(
        Kind::Conflict,
        "RoleDefinitionWithSameNameExists",
        format!(
            "A custom role with the same name already exists in this directory. Use a different name: '{}'.",
            name.escape_debug()
        ),
    )
}

pub(super) fn not_found(id: Uuid) -> Error {
    Error::new(
        Kind::NotFound,
        "RoleDefinitionDoesNotExist",
        format!("The specified role definition with ID '{id}' does not exist."),
    )
}
