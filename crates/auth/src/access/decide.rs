//! The decision.

use std::sync::Arc;

use portolan_types::{RegistryName, RepoName};

use super::{Action, ActionSet, Condition, Principal, RoleMode, ScopeMap};

/// A role that a principal holds at a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The scope's [`ResourceId::key`](portolan_types::ResourceId::key); empty for everything.
    pub scope: String,
    /// What the role may do.
    pub actions: ActionSet,
    /// When it holds; always, if there is none.
    pub condition: Option<Arc<Condition>>,
}

/// What a principal holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held<'a> {
    /// Roles, for principals of the directory.
    pub assignments: &'a [Assignment],
    /// What a repository token may do.
    pub scope_map: Option<&'a ScopeMap>,
}

/// What an action is done to.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// Its ARM id, as [`ResourceId::key`](portolan_types::ResourceId::key).
    pub scope: &'a str,
    /// The registry it is or belongs to; none for subscriptions and groups.
    pub registry: Option<RegistryFacts<'a>>,
    /// The repository, for actions on one; none stands for the registry as a whole, and for
    /// every repository alike.
    pub repository: Option<&'a RepoName>,
}

/// What the decision needs to know of a registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryFacts<'a> {
    /// Its name.
    pub name: &'a RegistryName,
    /// Whether its admin user may sign in.
    pub admin_enabled: bool,
    /// Whether anybody may pull.
    pub anonymous_pull: bool,
    /// How it takes roles.
    pub mode: RoleMode,
}

/// Whether `principal`, who holds this, may do `action` to `resource`.
pub fn decide(principal: &Principal, held: &Held<'_>, action: Action, resource: &Resource<'_>) -> bool {
    among(principal, held, ActionSet::of(&[action]), resource).contains(action)
}

/// What `principal`, who holds this, may do to `resource`.
pub fn allowed(principal: &Principal, held: &Held<'_>, resource: &Resource<'_>) -> ActionSet {
    among(principal, held, ActionSet::ALL, resource)
}

/// Whether `principal` may do anything at all to the content of the registry that `resource`
/// is: to some repository, under some condition. Who of the directory may not is not given
/// tokens of that registry.
pub fn may_enter(principal: &Principal, held: &Held<'_>, resource: &Resource<'_>) -> bool {
    let (Principal::Directory { .. }, Some(registry)) = (principal, resource.registry) else { return true };
    let opens = ActionSet::DATA.iter().fold(ActionSet::NONE, |sum, action| sum.with(action.rights(registry.mode)));
    held.assignments.iter().any(|a| within(resource.scope, &a.scope) && !a.actions.and(opens).is_empty())
}

/// Those of the `wanted` actions that are allowed. The one place where anything is.
fn among(principal: &Principal, held: &Held<'_>, wanted: ActionSet, resource: &Resource<'_>) -> ActionSet {
    let open = match (principal, resource.registry) {
        (Principal::System, _) => ActionSet::ALL,
        (Principal::Directory { .. }, _) => return by_roles(held.assignments, wanted, resource),
        (Principal::AdminUser(of), Some(registry)) if registry.admin_enabled && same(of, registry.name) => {
            ActionSet::DATA
        }
        (Principal::Token { registry: of, .. }, Some(registry)) if same(of, registry.name) => {
            by_scope_map(held.scope_map, resource.repository)
        }
        (Principal::Anonymous, Some(registry)) if registry.anonymous_pull => {
            ActionSet::of(&[Action::Pull, Action::MetadataRead, Action::CatalogList])
        }
        (Principal::AdminUser(_) | Principal::Token { .. } | Principal::Anonymous, _) => ActionSet::NONE,
    };
    open.and(wanted)
}

fn by_roles(assignments: &[Assignment], wanted: ActionSet, resource: &Resource<'_>) -> ActionSet {
    // Outside of a registry there is no content, and so nothing that opens it.
    let rights = |action: Action| match resource.registry {
        Some(registry) => action.rights(registry.mode),
        None if action.is_data() => ActionSet::NONE,
        None => ActionSet::of(&[action]),
    };
    let needed = wanted.iter().fold(ActionSet::NONE, |sum, action| sum.with(rights(action)));
    let granted = assignments
        .iter()
        .filter(|a| within(resource.scope, &a.scope))
        .fold(ActionSet::NONE, |sum, a| sum.with(given(a, needed.without(sum), resource.repository)));
    let may = |action: &Action| !granted.and(rights(*action)).is_empty();
    wanted.iter().filter(may).fold(ActionSet::NONE, |sum, action| sum.with(ActionSet::of(&[action])))
}

/// Those of the `needed` rights that an assignment gives, its condition asked for each.
fn given(assignment: &Assignment, needed: ActionSet, repository: Option<&RepoName>) -> ActionSet {
    let given = assignment.actions.and(needed);
    let Some(condition) = &assignment.condition else { return given };
    // What is about the whole registry has no repository's name: neither the catalog nor, in
    // the legacy mode, content, which operations of the control plane open there.
    let name = |action: Action| repository.filter(|_| action.is_data() && action != Action::CatalogList);
    given
        .iter()
        .filter(|action| condition.holds(*action, name(*action)))
        .fold(ActionSet::NONE, |sum, action| sum.with(ActionSet::of(&[action])))
}

fn by_scope_map(map: Option<&ScopeMap>, repository: Option<&RepoName>) -> ActionSet {
    match (map, repository) {
        (None, _) => ActionSet::NONE,
        (Some(map), Some(repository)) => map.allowed(repository),
        (Some(map), None) => map.everywhere(),
    }
}

fn same(one: &RegistryName, other: &RegistryName) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

/// Whether `scope` is `outer` or lies below it; both in key form.
fn within(scope: &str, outer: &str) -> bool {
    scope.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
