//! Registry authentication: how callers of a registry's data plane prove who they are, and
//! the tokens they get for it.
//!
//! A directory token buys a *refresh token* of one registry ([`Service::exchange`]). A refresh
//! token, or a user name and password, buys an *access token* over some repositories
//! ([`Service::access_token`]), or opens the data plane directly (Basic). Who may sign in so:
//! principals of the directory by their applications' secrets, the registry's admin user, its
//! repository tokens, and anybody where anonymous pull is on.
//!
//! Nothing here writes or asks the database: a token request costs no disk. What a token says
//! about its holder is compared with what is in memory each time it is shown, so that it ends
//! with the credential it was got with: a renewed admin password, a replaced or expired
//! password of a repository token, a disabled principal.

use portolan_auth::access::{ActionSet, Principal, RoleMode, Target};
use portolan_auth::authority::{Issued, NewAccessToken, NewRefreshToken, RegistryAudience};
use portolan_auth::password::{self, AdminPassword};
use portolan_auth::token::Subject;
use portolan_types::Timestamp;
use uuid::Uuid;

use crate::keys::key_error;
use crate::registries::Registry;
use crate::scopes::{Wanted, granted};
use crate::service::Service;
use crate::{Error, Kind, Reach, Result};

/// The user name that says "the password is a registry refresh token".
pub const NULL_USER: &str = "00000000-0000-0000-0000-000000000000";

/// How somebody asks for a registry access token.
#[derive(Clone, Copy)]
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

impl std::fmt::Debug for SignIn<'_> {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SignIn::Refresh(_) => write!(f, "Refresh"),
            SignIn::Password { user, .. } => write!(f, "Password({user:?})"),
            SignIn::Anonymous => write!(f, "Anonymous"),
        }
    }
}

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

impl Service {
    /// The caller of a registry's data plane, by an access token of that registry.
    pub fn data_plane_bearer(&self, registry: &Registry, token: &str, now: Timestamp) -> Result<(Principal, Reach)> {
        let token = self
            .authority
            .verify_access(token, registry.audience(), now)
            .map_err(|e| bad_credentials(&e.to_string()))?;
        if !self.still_good(registry, &token.subject, token.issued, now) {
            return Err(bad_credentials("the token is no longer valid"));
        }
        Ok((token.subject.principal(&registry.name), Reach::Grants(token.grants.clone())))
    }

    /// The caller of a registry's data plane, by Basic: see [`Service::sign_in`].
    pub fn data_plane_basic(
        &self,
        registry: &Registry,
        user: &str,
        password: &str,
        now: Timestamp,
    ) -> Result<(Principal, Reach)> {
        let subject = self.sign_in(registry, user, password, now)?;
        Ok((subject.principal(&registry.name), Reach::Principal))
    }

    /// Whether this is what somebody could be called who signs in: an id, or the name of a user,
    /// of the registry's admin user or of one of its repository tokens. For the logs, which must
    /// not hold a password that was typed in the wrong field.
    pub fn is_sign_in_name(&self, registry: Option<&Registry>, name: &str) -> bool {
        let snapshot = self.snapshot.load();
        let of_registry =
            |r: &Registry| name.eq_ignore_ascii_case(r.name.as_str()) || snapshot.token(r.id, name).is_some();
        Uuid::try_parse(name).is_ok() || snapshot.user(name).is_some() || registry.is_some_and(of_registry)
    }

    /// Check a user name and password as `docker login` sends them: the null GUID and a
    /// refresh token; the registry's name and an admin password; a repository token's name and
    /// one of its passwords; an application id and one of its secrets. The same answer to every
    /// wrong pair, after the same number of comparisons.
    pub fn sign_in(&self, registry: &Registry, user: &str, password: &str, now: Timestamp) -> Result<Subject> {
        let wrong = || bad_credentials("the user name or the password is wrong");
        if user == NULL_USER {
            return self.refresh_subject(registry, password, now);
        }
        if user.eq_ignore_ascii_case(registry.name.as_str()) {
            return self.admin_subject(registry, password).ok_or_else(wrong);
        }
        let snapshot = self.snapshot.load();
        let subject = match snapshot.token(registry.id, user) {
            Some(token) => {
                let found = password::verify_any(token.passwords.iter().map(|p| &p.hash[..]), password);
                found
                    .map(|at| &token.passwords[at])
                    .filter(|p| token.enabled && p.is_good(now))
                    .map(|p| Subject::Token { name: token.name.clone(), password: p.id })
            }
            None => self
                .check_secret(Uuid::try_parse(user).unwrap_or_default(), password, now)
                .map(|(object_id, app_id)| Subject::Directory { object_id, app_id }),
        };
        subject.ok_or_else(wrong)
    }

    /// For whom a refresh token of this registry speaks, if that principal is still welcome.
    pub(crate) fn refresh_subject(&self, registry: &Registry, token: &str, now: Timestamp) -> Result<Subject> {
        let token = self
            .authority
            .verify_refresh(token, registry.audience(), now)
            .map_err(|e| bad_credentials(&e.to_string()))?;
        let subject = Subject::Directory { object_id: token.object_id, app_id: token.app_id };
        if !self.still_good(registry, &subject, token.issued, now) {
            return Err(bad_credentials("the token is no longer valid"));
        }
        Ok(subject)
    }

    /// The admin user, when it may sign in and this is one of its passwords. Both are
    /// always compared.
    fn admin_subject(&self, registry: &Registry, given: &str) -> Option<Subject> {
        let mut found = None;
        for which in AdminPassword::BOTH {
            let generation = registry.admin_generations[which.index()];
            if password::verify_admin(self.authority.master(), registry.id, which, generation, given) {
                found = Some(Subject::Admin { which, generation });
            }
        }
        found.filter(|_| registry.admin_enabled)
    }

    /// Whether what a token says about its holder is still so.
    fn still_good(&self, registry: &Registry, subject: &Subject, issued: Timestamp, now: Timestamp) -> bool {
        match subject {
            Subject::Directory { object_id, .. } => self.welcome(*object_id, issued),
            Subject::Admin { which, generation } => {
                registry.admin_enabled && registry.admin_generations[which.index()] == *generation
            }
            Subject::Token { name, password } => {
                self.snapshot.load().token(registry.id, name.as_str()).is_some_and(|token| {
                    token.enabled && token.passwords.iter().any(|p| p.id == *password && p.is_good(now))
                })
            }
            Subject::Anonymous => registry.anonymous_pull,
        }
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
        self.check_entry(&principal, registry)?;
        let may = self.allowed(&principal, registry, &Target::Registry);
        let issued = self
            .authority
            .issue_refresh(
                &NewRefreshToken {
                    registry: registry.audience(),
                    who: &token,
                    may,
                    by_repository: registry.role_mode == RoleMode::Abac,
                    lifetime: self.config.refresh_token_lifetime,
                },
                now,
            )
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
        self.check_entry(&principal, registry)?;
        let grants = granted(scopes, |wanted| self.may_do(&principal, registry, wanted));
        let issued = self
            .authority
            .issue_access(
                &NewAccessToken {
                    registry: registry.audience(),
                    tenant: self.tenant_id(),
                    subject: &subject,
                    since: self.valid_from(&subject),
                    grants: &grants,
                    lifetime: self.config.access_token_lifetime,
                },
                now,
            )
            .map_err(key_error)?;
        Ok((issued, principal))
    }

    /// Refuse who may do nothing here: as in ACR, signing in fails, not the first pull.
    fn check_entry(&self, principal: &Principal, registry: &Registry) -> Result<()> {
        match self.may_enter(principal, registry) {
            true => Ok(()),
            false => Err(bad_credentials("there is no role that opens anything in this registry")
                .with_hint("assign a role such as AcrPull; in registries with permissions for each repository, Container Registry Repository Reader")),
        }
    }

    /// The time before which tokens of this subject are refused.
    fn valid_from(&self, subject: &Subject) -> Timestamp {
        match subject {
            Subject::Directory { object_id, .. } => {
                self.snapshot.load().principals.get(object_id).map_or(Timestamp(0), |p| p.valid_from)
            }
            _ => Timestamp(0),
        }
    }

    /// What `principal` may do to what one scope names.
    fn may_do(&self, principal: &Principal, registry: &Registry, wanted: Wanted<'_>) -> ActionSet {
        let target = match wanted {
            // As ACR does: there a wildcard says nothing about any one repository.
            Wanted::Every if registry.role_mode == RoleMode::Abac && is_of_directory(principal) => {
                return ActionSet::NONE;
            }
            Wanted::Catalog | Wanted::Every => Target::Registry,
            Wanted::Repository(name) => Target::Repo(name.clone()),
        };
        self.allowed(principal, registry, &target)
    }
}

fn is_of_directory(principal: &Principal) -> bool {
    matches!(principal, Principal::Directory { .. })
}

/// 401 for the data plane.
pub(crate) fn bad_credentials(why: &str) -> Error {
    let mut error = Error::new(Kind::Unauthenticated, "UNAUTHORIZED", format!("authentication required: {why}"));
    error.challenge = Some(String::new());
    error
}
