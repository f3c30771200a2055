//! Issuing tokens: directory tokens for a secret, registry tokens for a directory token
//! or a sign-in. Nothing here writes: a token request costs no disk.

use portolan_auth::access::{Action, ActionSet, Grant, Principal, scope_word};
use portolan_auth::authority::{Issued, NewDirectoryToken, RegistryAudience};
use portolan_auth::password;
use portolan_auth::token::Subject;
use portolan_types::{RepoName, Timestamp};
use uuid::Uuid;

use crate::identity::bad_credentials;
use crate::keys::key_error;
use crate::registries::Registry;
use crate::service::Service;
use crate::{Error, Kind, Result};

/// Scopes one token request may ask for.
const SCOPES_MAX: usize = 256;
/// Longest scope that is looked at.
const SCOPE_BYTES_MAX: usize = 1_024;

/// The data actions of a repository, in the order of a wildcard's expansion.
const REPOSITORY_ACTIONS: [Action; 5] =
    [Action::Pull, Action::Push, Action::Delete, Action::MetadataRead, Action::MetadataWrite];

impl Registry {
    /// What tokens of this registry name as their audience.
    pub fn audience(&self) -> RegistryAudience<'_> {
        RegistryAudience { login_server: &self.login_server, id: self.id }
    }

    fn takes_control_tokens(&self) -> bool {
        let policy = self.properties.get("policies").and_then(|p| p.get("azureADAuthenticationAsArmPolicy"));
        policy.and_then(|p| p.get("status")).and_then(|s| s.as_str()) != Some("disabled")
    }
}

/// How somebody asks for a registry access token.
#[derive(Clone, Copy, Debug)]
pub enum SignIn<'a> {
    /// With a refresh token of the registry.
    Refresh(&'a str),
    /// With a user name and password: see [`Service::sign_in`].
    Password {
        /// The user name.
        user: &'a str,
        /// The password.
        password: &'a str,
    },
    /// Without saying who: good where anonymous pull is on.
    Anonymous,
}

impl Service {
    /// A directory token for a service principal that shows one of its secrets. `base` is
    /// `https://host[:port]` as the client knows this server, `resource` what the token is
    /// to be for.
    ///
    /// Errors: `invalid_client` with Entra's wording when the id or the secret is wrong;
    /// `invalid_request` for a tenant that is not ours.
    pub fn client_token(
        &self,
        base: &str,
        client_id: &str,
        secret: &str,
        resource: &str,
        now: Timestamp,
    ) -> Result<Issued> {
        let found = match Uuid::try_parse(client_id) {
            Ok(app_id) => self.check_secret(app_id, secret, now),
            Err(_) => None,
        };
        let Some((object_id, app_id)) = found else {
            password::verify_nobody(secret);
            return Err(Error::new(
                Kind::Unauthenticated,
                "invalid_client",
                "AADSTS7000215: Invalid client secret provided, or there is no such application. Ensure the secret \
                 being sent in the request is the client secret value, not the client secret ID.",
            ));
        };
        let tenant = self.tenant_id();
        let new = NewDirectoryToken {
            issuer: &format!("{base}/{tenant}/v2.0"),
            audience: resource,
            tenant,
            object_id,
            app_id,
            lifetime: self.config.directory_token_lifetime,
        };
        self.authority.issue_directory(&new, now).map_err(key_error)
    }

    /// A registry refresh token for a directory token. One that was got for the control
    /// plane is good too, unless the registry's policy `azureADAuthenticationAsArmPolicy`
    /// says no.
    pub fn exchange(&self, registry: &Registry, directory_token: &str, now: Timestamp) -> Result<Issued> {
        self.exchange_for(registry, directory_token, now).map(|(issued, _)| issued)
    }

    /// [`Service::exchange`], and who it was.
    pub fn exchange_for(
        &self,
        registry: &Registry,
        directory_token: &str,
        now: Timestamp,
    ) -> Result<(Issued, Principal)> {
        let token = self
            .authority
            .verify_directory(
                directory_token,
                |a| self.is_registry_audience(a) || (registry.takes_control_tokens() && self.is_control_audience(a)),
                now,
            )
            .map_err(|e| bad_credentials(&e.to_string()))?;
        if token.tenant != self.tenant_id() || !self.welcome(token.object_id, token.issued) {
            return Err(bad_credentials("the token is no longer valid"));
        }
        let subject = Subject::Directory { object_id: token.object_id, app_id: token.app_id };
        let principal = subject.principal(&registry.name);
        let may = self.allowed(&principal, registry);
        let issued = self
            .authority
            .issue_refresh(registry.audience(), token.tenant, &token, may, self.config.refresh_token_lifetime, now)
            .map_err(key_error)?;
        Ok((issued, principal))
    }

    /// A registry access token over those of `scopes` that its holder may have. Scopes may
    /// hold several, separated by spaces.
    ///
    /// Errors: `UNAUTHORIZED` when the sign-in is wrong. What is asked for and not granted
    /// is left out, as ACR does.
    pub fn access_token(
        &self,
        registry: &Registry,
        sign_in: SignIn<'_>,
        scopes: &[&str],
        now: Timestamp,
    ) -> Result<Issued> {
        self.access_token_for(registry, sign_in, scopes, now).map(|(issued, _)| issued)
    }

    /// [`Service::access_token`], and who it was.
    pub fn access_token_for(
        &self,
        registry: &Registry,
        sign_in: SignIn<'_>,
        scopes: &[&str],
        now: Timestamp,
    ) -> Result<(Issued, Principal)> {
        let subject = match sign_in {
            SignIn::Refresh(token) => self.refresh_subject(registry, token, now)?,
            SignIn::Password { user, password } => self.sign_in(registry, user, password, now)?,
            SignIn::Anonymous if registry.anonymous_pull => Subject::Anonymous,
            SignIn::Anonymous => return Err(bad_credentials("sign in first")),
        };
        let principal = subject.principal(&registry.name);
        let may = self.allowed(&principal, registry);
        let grants = granted(scopes, may);
        let issued = self
            .authority
            .issue_access(
                registry.audience(),
                self.tenant_id(),
                &subject,
                &grants,
                self.config.access_token_lifetime,
                now,
            )
            .map_err(key_error)?;
        Ok((issued, principal))
    }
}

/// The part of `scopes` that `may` allows, one grant for each resource, in the order asked.
pub(crate) fn granted(scopes: &[&str], may: ActionSet) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    for scope in scopes.iter().flat_map(|s| s.split(' ')).filter(|s| !s.is_empty()).take(SCOPES_MAX) {
        let Some((kind, name, actions)) = parse(scope) else { continue };
        let actions = match kind {
            "registry" if name == "catalog" => catalog_actions(actions, may),
            "repository" if name == "*" || name.parse::<RepoName>().is_ok() => repository_actions(actions, may),
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
    use portolan_auth::access::{ACR_PULL, OWNER, role};

    use super::*;

    fn check(scopes: &[&str], role_id: Uuid, expected: &str) {
        let may = role(role_id).unwrap().actions;
        let got: Vec<String> =
            granted(scopes, may).iter().map(|g| format!("{}:{}:{}", g.kind, g.name, g.actions.join(","))).collect();
        assert_eq!(got.join(" "), expected, "{scopes:?}");
    }

    #[test]
    fn what_is_granted() {
        check(&["repository:a:push,pull"], OWNER, "repository:a:push,pull");
        check(&["repository:a:push,pull"], ACR_PULL, "repository:a:pull");
        check(&["repository:a:delete"], ACR_PULL, "");
        check(
            &["repository:a:pull repository:b:pull", "repository:a:push"],
            OWNER,
            "repository:a:pull,push repository:b:pull",
        );
        check(&["registry:catalog:* repository:*:*"], OWNER, "registry:catalog:* repository:*:*");
        check(&["repository:*:*"], ACR_PULL, "repository:*:pull,metadata_read");
        check(&["repository:a:pull,pull,pull"], OWNER, "repository:a:pull");
        check(&["repository:a:pull repository:a:*", "repository:a:push"], OWNER, "repository:a:*");
        check(&["repository(plugin):a:pull"], OWNER, "repository:a:pull");
        check(&["repository:a:metadata_write,metadata_read"], OWNER, "repository:a:metadata_write,metadata_read");
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
            check(&[scope], OWNER, "");
        }
        check(&[&format!("repository:{}:pull", "a".repeat(300))], OWNER, "");
    }
}
