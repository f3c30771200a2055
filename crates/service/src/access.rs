//! The one question before every act: may this caller do that here?

use portolan_auth::access::{self, Action, Assignment, Principal, RegistryFacts, Resource, Target};
use portolan_types::ResourceId;
use serde_json::json;

use crate::registries::Registry;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Reach, Result};

impl Service {
    /// Whether the caller may do `action` to `target` in `registry`. From memory, without
    /// a query: cheap enough for every request.
    ///
    /// Errors, for the data plane: `UNAUTHORIZED` with the scope to ask for when a wider
    /// token or a sign-in could help, `DENIED` when neither could. Control actions on the
    /// registry answer in ARM's words.
    pub fn check(&self, ctx: &Ctx, registry: &Registry, target: &Target, action: Action) -> Result<()> {
        let resource = registry.resource();
        let may = self.may(&ctx.principal, action, &resource);
        if access::scope_word(action).is_none() {
            let reaches = ctx.reach == Reach::Principal;
            return if may && reaches { Ok(()) } else { Err(control_refusal(ctx, action, &registry.resource_id)) };
        }
        match &ctx.reach {
            Reach::Grants(grants) if !access::grants_allow(grants, target, action) => Err(unauthorized(target, action)),
            _ if may => Ok(()),
            _ if ctx.principal == Principal::Anonymous => Err(unauthorized(target, action)),
            _ => Err(denied(target, action)),
        }
    }

    /// Whether the caller may do a control action at `scope` (a subscription, a group, or a
    /// registry that need not exist).
    pub fn check_control(&self, ctx: &Ctx, scope: &ResourceId, action: Action) -> Result<()> {
        let key = scope.key();
        let resource = Resource { scope: &key, registry: None };
        if ctx.reach == Reach::Principal && self.may(&ctx.principal, action, &resource) {
            Ok(())
        } else {
            Err(control_refusal(ctx, action, scope))
        }
    }

    /// Whether the principal may, whatever it came with says.
    pub(crate) fn may(&self, principal: &Principal, action: Action, resource: &Resource<'_>) -> bool {
        self.with_assignments(principal, |held| access::decide(principal, held, action, resource))
    }

    /// What `principal` may do in `registry` now.
    pub(crate) fn allowed(&self, principal: &Principal, registry: &Registry) -> access::ActionSet {
        self.with_assignments(principal, |held| access::allowed(principal, held, &registry.resource()))
    }

    /// Hand over the roles that `principal` holds: none when it is unknown or disabled.
    fn with_assignments<T>(&self, principal: &Principal, use_them: impl FnOnce(&[Assignment]) -> T) -> T {
        match principal {
            Principal::Directory { object_id, .. } => {
                let snapshot = self.snapshot.load();
                match snapshot.principals.get(object_id) {
                    Some(state) if state.enabled => use_them(&state.assignments),
                    _ => use_them(&[]),
                }
            }
            _ => use_them(&[]),
        }
    }
}

impl Registry {
    /// What the access decision needs to know of it.
    pub(crate) fn resource(&self) -> Resource<'_> {
        Resource {
            scope: &self.scope,
            registry: Some(RegistryFacts {
                name: &self.name,
                admin_enabled: self.admin_enabled,
                anonymous_pull: self.anonymous_pull,
            }),
        }
    }
}

/// 401 with the scope that would help, as ACR and docker's registry word it.
pub(crate) fn unauthorized(target: &Target, action: Action) -> Error {
    let mut error = Error::new(Kind::Unauthenticated, "UNAUTHORIZED", "authentication required");
    error.challenge = Some(access::scope_text(target, action));
    error.detail = Some(wanted(target, action));
    error
}

fn denied(target: &Target, action: Action) -> Error {
    Error::new(Kind::Forbidden, "DENIED", "requested access to the resource is denied")
        .with_detail(wanted(target, action))
}

fn wanted(target: &Target, action: Action) -> serde_json::Value {
    let word = access::scope_word(action).unwrap_or("pull");
    match target {
        Target::Registry => json!([{"Type": "registry", "Name": "catalog", "Action": word}]),
        Target::Repo(name) => json!([{"Type": "repository", "Name": name, "Action": word}]),
    }
}

/// ARM's refusal, which names the caller, the operation and the scope.
fn control_refusal(ctx: &Ctx, action: Action, scope: &ResourceId) -> Error {
    let who = match &ctx.principal {
        Principal::Anonymous => {
            return Error::new(
                Kind::Unauthenticated,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
            );
        }
        Principal::Directory { object_id, .. } => object_id.to_string(),
        Principal::AdminUser(name) => format!("admin user {name}"),
        Principal::Token { name, .. } => format!("token {name}"),
        Principal::System => "system".to_owned(),
    };
    let operation = match action {
        Action::ControlRead => "read",
        Action::ControlWrite => "write",
        Action::ListCredentials => "listCredentials/action",
        Action::RunTasks => "scheduleRun/action",
        Action::ReadTasks => "runs/read",
        Action::AssignRoles => "roleAssignments/write",
        _ => "data",
    };
    Error::new(
        Kind::Forbidden,
        "AuthorizationFailed",
        format!(
            "The client '{who}' does not have authorization to perform action '{operation}' over scope '{scope}' \
             or the scope is invalid. If access was recently granted, please refresh your credentials."
        ),
    )
}
