//! Scopes of token requests: `repository:NAME:pull,push`, `registry:catalog:*`.
//!
//! A scope is what a client asks to have in an access token. What it may not have is left out
//! of the token, as ACR does; what is not a scope at all is passed over.

use portolan_auth::access::{Action, ActionSet, Grant, scope_word};
use portolan_types::RepoName;

/// What a scope names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// The registry's catalog.
    Catalog,
    /// Every repository alike.
    Every,
    /// One repository, which need not exist.
    Repository(&'a RepoName),
}

/// Scopes one token request may ask for.
const SCOPES_MAX: usize = 256;
/// Longest scope that is looked at.
const SCOPE_BYTES_MAX: usize = 1_024;

/// The data actions of a repository, in the order of a wildcard's expansion.
const REPOSITORY_ACTIONS: [Action; 5] =
    [Action::Pull, Action::Push, Action::Delete, Action::MetadataRead, Action::MetadataWrite];

/// The part of `scopes` that `may` allows, one grant for each resource, in the order asked.
pub(crate) fn granted(scopes: &[&str], may: impl Fn(Wanted<'_>) -> ActionSet) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    for scope in scopes.iter().flat_map(|s| s.split(' ')).filter(|s| !s.is_empty()).take(SCOPES_MAX) {
        let Some((kind, name, actions)) = parse(scope) else { continue };
        let actions = match kind {
            "registry" if name == "catalog" => catalog_actions(actions, may(Wanted::Catalog)),
            "repository" if name == "*" => repository_actions(actions, may(Wanted::Every)),
            "repository" => match name.parse::<RepoName>() {
                Ok(name) => repository_actions(actions, may(Wanted::Repository(&name))),
                Err(_) => continue,
            },
            _ => continue,
        };
        if actions.is_empty() {
            continue;
        }
        let grant = match grants.iter_mut().find(|g| g.kind == kind && g.name == name) {
            Some(grant) => grant,
            None => {
                grants.push(Grant { kind: kind.to_owned(), name: name.to_owned(), actions: Vec::new() });
                let last = grants.len() - 1;
                &mut grants[last]
            }
        };
        for action in actions {
            if !grant.actions.contains(&action) {
                grant.actions.push(action);
            }
        }
        // All there is, said once.
        if grant.actions.iter().any(|a| a == "*") {
            grant.actions = vec!["*".to_owned()];
        }
    }
    grants
}

/// `type:name:action,action`; the type may carry a class in brackets, which says nothing here.
fn parse(scope: &str) -> Option<(&str, &str, &str)> {
    if scope.len() > SCOPE_BYTES_MAX {
        return None;
    }
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
    Some((kind, name, actions))
}

fn catalog_actions(asked: &str, may: ActionSet) -> Vec<String> {
    let asked = asked.split(',').any(|a| a == "*");
    if asked && may.contains(Action::CatalogList) { vec!["*".to_owned()] } else { Vec::new() }
}

fn repository_actions(asked: &str, may: ActionSet) -> Vec<String> {
    let allowed = |action: &Action| may.contains(*action);
    let word = |action: Action| scope_word(action).unwrap_or_default().to_owned();
    let mut out = Vec::new();
    for one in asked.split(',') {
        if one == "*" {
            if REPOSITORY_ACTIONS.iter().all(allowed) {
                return vec!["*".to_owned()];
            }
            out.extend(REPOSITORY_ACTIONS.into_iter().filter(allowed).map(word));
        } else {
            out.extend(REPOSITORY_ACTIONS.into_iter().filter(allowed).map(word).filter(|w| w == one));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: ActionSet = ActionSet::DATA;
    const PULLS: ActionSet = ActionSet::of(&[Action::Pull, Action::MetadataRead, Action::CatalogList]);

    fn check(scopes: &[&str], may: ActionSet, expected: &str) {
        let got: Vec<String> =
            granted(scopes, |_| may).iter().map(|g| format!("{}:{}:{}", g.kind, g.name, g.actions.join(","))).collect();
        assert_eq!(got.join(" "), expected, "{scopes:?}");
    }

    #[test]
    fn what_is_granted() {
        check(&["repository:a:push,pull"], ALL, "repository:a:push,pull");
        check(&["repository:a:push,pull"], PULLS, "repository:a:pull");
        check(&["repository:a:delete"], PULLS, "");
        check(
            &["repository:a:pull repository:b:pull", "repository:a:push"],
            ALL,
            "repository:a:pull,push repository:b:pull",
        );
        check(&["registry:catalog:* repository:*:*"], ALL, "registry:catalog:* repository:*:*");
        check(&["repository:*:*"], PULLS, "repository:*:pull,metadata_read");
        check(&["repository:a:pull,pull,pull"], ALL, "repository:a:pull");
        check(&["repository:a:pull repository:a:*", "repository:a:push"], ALL, "repository:a:*");
        check(&["repository(plugin):a:pull"], ALL, "repository:a:pull");
        check(&["repository:a:metadata_write,metadata_read"], ALL, "repository:a:metadata_write,metadata_read");
    }

    #[test]
    fn tricks_in_scopes_grant_nothing() {
        for scope in [
            "",
            "repository",
            "repository:a",
            "repository::pull",
            "repository:A:pull",
            "repository:a/../b:pull",
            "repository:a,b:pull",
            "repository:**:pull",
            "repository:a:",
            "repository:a:PULL",
            "repository:a:pull\n",
            "registry:other:*",
            "registry:catalog:pull",
            "registry:*:*",
            ":a:pull",
            "repository:a\u{0}:pull",
            "repository:catalog/*:pull",
        ] {
            check(&[scope], ALL, "");
        }
        check(&[&format!("repository:{}:pull", "a".repeat(300))], ALL, "");
    }
}
