//! The one question before every act: may this caller do that here?

use portolan_auth::access::{self, Action, ActionSet, Held, Principal, RegistryFacts, Resource, Target};
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
        let may = self.may(&ctx.principal, action, &registry.resource(target));
        if !action.is_data() {
            let reaches = ctx.reach == Reach::Principal;
            if !(may && reaches) {
                return Err(control_refusal(ctx, action, &registry.resource_id));
            }
            return self.unlocked(&registry.resource_id, action);
        }
        match &ctx.reach {
            Reach::Grants(grants) if !access::grants_allow(grants, target, action) => Err(unauthorized(target, action)),
            _ if may => Ok(()),
            _ if ctx.principal == Principal::Anonymous => Err(unauthorized(target, action)),
            _ => Err(denied(target, action)),
        }
    }

    /// Whether the caller may do a control action at `scope` (a subscription, a group, or a
    /// registry that need not exist), and no lock forbids it.
    pub fn check_control(&self, ctx: &Ctx, scope: &ResourceId, action: Action) -> Result<()> {
        if !self.may_control(ctx, scope, action) {
            return Err(control_refusal(ctx, action, scope));
        }
        self.unlocked(scope, action)
    }

    /// The same, for those who leave out of a list what the caller may not see.
    pub fn may_control(&self, ctx: &Ctx, scope: &ResourceId, action: Action) -> bool {
        let key = scope.key();
        let resource = Resource { scope: &key, registry: None, repository: None };
        ctx.reach == Reach::Principal && self.may(&ctx.principal, action, &resource)
    }

    /// What the caller may do at `scope`.
    pub(crate) fn allowed_at(&self, ctx: &Ctx, scope: &ResourceId) -> ActionSet {
        if ctx.reach != Reach::Principal {
            return ActionSet::NONE;
        }
        let key = scope.key();
        let resource = Resource { scope: &key, registry: None, repository: None };
        self.with_held(&ctx.principal, |held| access::allowed(&ctx.principal, held, &resource))
    }

    /// Whether the principal may, whatever it came with says.
    pub(crate) fn may(&self, principal: &Principal, action: Action, resource: &Resource<'_>) -> bool {
        self.with_held(principal, |held| access::decide(principal, held, action, resource))
    }

    /// What `principal` may do to `target` in `registry` now; to the registry as a whole and
    /// to every repository alike, if it is not one repository.
    pub(crate) fn allowed(&self, principal: &Principal, registry: &Registry, target: &Target) -> ActionSet {
        self.with_held(principal, |held| access::allowed(principal, held, &registry.resource(target)))
    }

    /// Whether `principal` is given tokens of this registry.
    pub(crate) fn may_enter(&self, principal: &Principal, registry: &Registry) -> bool {
        self.with_held(principal, |held| access::may_enter(principal, held, &registry.resource(&Target::Registry)))
    }

    /// Hand over what `principal` holds: nothing when it is unknown or disabled.
    fn with_held<T>(&self, principal: &Principal, use_it: impl FnOnce(&Held<'_>) -> T) -> T {
        match principal {
            Principal::Directory { object_id, .. } => {
                let snapshot = self.snapshot.load();
                match snapshot.principals.get(object_id) {
                    Some(state) if state.enabled => use_it(&Held { assignments: &state.assignments, scope_map: None }),
                    _ => use_it(&Held::default()),
                }
            }
            Principal::Token { registry, name } => {
                let snapshot = self.snapshot.load();
                use_it(&Held { assignments: &[], scope_map: snapshot.scope_map(registry, name) })
            }
            _ => use_it(&Held::default()),
        }
    }
}

impl Registry {
    /// What the access decision needs to know of it, and of what in it.
    pub(crate) fn resource<'a>(&'a self, target: &'a Target) -> Resource<'a> {
        Resource {
            scope: &self.scope,
            registry: Some(RegistryFacts {
                name: &self.name,
                admin_enabled: self.admin_enabled,
                anonymous_pull: self.anonymous_pull,
                mode: self.role_mode,
            }),
            repository: target.repository(),
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
    let operation = action.operation();
    Error::new(
        Kind::Forbidden,
        "AuthorizationFailed",
        format!(
            "The client '{who}' does not have authorization to perform action '{operation}' over scope '{scope}' \
             or the scope is invalid. If access was recently granted, please refresh your credentials."
        ),
    )
}
