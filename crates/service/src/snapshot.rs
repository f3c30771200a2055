//! What every request asks for, kept in memory: registries by name and host, principals
//! with their roles and secrets.
//!
//! The database is the truth. Whoever changes one of these rows does it through
//! `Service::alter`, which after the commit reads all of them anew in one transaction and
//! swaps the whole ([`Service::refresh`]), and has the other servers do the same; readers
//! never wait and never see half a change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use portolan_auth::access::{Assignment, ScopeMap};
use portolan_store::meta::credential::CredentialKind;
use portolan_store::meta::{self, Tx};
use portolan_types::{RegistryName, Timestamp};
use uuid::Uuid;

use crate::Result;
use crate::directory::{PrincipalKind, identity_id};
use crate::hosts::{self, HostKind, HostState};
use crate::locks::{self, Lock};
use crate::operations;
use crate::peers::version;
use crate::registries::Registry;
use crate::registry_identity::RegistryIdentity;
use crate::roles::{self, Roles};
use crate::service::{Service, ServiceConfig};
use crate::token_state::{self, TokenState, Tokens};

/// Names of the settings.
pub(crate) const TENANT: &str = "tenant";
pub(crate) const SUBSCRIPTION: &str = "subscription";

/// One consistent reading.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Which change it is as of; see [`crate::peers`].
    pub version: i64,
    /// Nil before the first start has finished.
    pub tenant: Uuid,
    /// Nil before the first start has finished.
    pub subscription: Uuid,
    /// In the order they were made.
    pub registries: Vec<Arc<Registry>>,
    by_key: HashMap<String, Arc<Registry>>,
    by_host: HashMap<String, Arc<Registry>>,
    /// Hosts besides: endpoints for data, regions' and custom ones.
    hosts: HashMap<String, HostState>,
    pub principals: HashMap<Uuid, PrincipalState>,
    by_app: HashMap<Uuid, Uuid>,
    /// Users by their names in lower case.
    by_user: HashMap<String, Uuid>,
    /// Repository tokens, by their registry's row.
    tokens: Tokens,
    /// Role definitions and assignments, for showing them.
    pub roles: Roles,
    /// Locks, by scope and name.
    pub locks: Vec<Lock>,
    /// What is being removed, in key form.
    pub going: HashSet<String>,
}

/// A principal as decisions need it.
pub(crate) struct PrincipalState {
    pub object_id: Uuid,
    pub app_id: Option<Uuid>,
    pub kind: PrincipalKind,
    /// For people.
    pub display_name: String,
    /// What a user signs in with: `alice@example.com`.
    pub user_name: Option<String>,
    pub enabled: bool,
    /// Tokens issued before this are refused.
    pub valid_from: Timestamp,
    /// Its own, and those of its application.
    pub secrets: Vec<SecretState>,
    pub certificates: Vec<CertificateState>,
    pub federated: Vec<FederatedState>,
    /// Where a managed identity is: its ARM id in key form.
    pub resource: Option<String>,
    pub assignments: Vec<Assignment>,
}

/// A secret as sign-in needs it.
pub(crate) struct SecretState {
    pub hash: Vec<u8>,
    pub starts: Option<Timestamp>,
    pub expires: Option<Timestamp>,
}

impl SecretState {
    /// Whether it has begun and has not expired.
    pub(crate) fn is_good(&self, now: Timestamp) -> bool {
        within(self.starts, self.expires, now)
    }
}

/// A certificate whose key may sign assertions.
pub(crate) struct CertificateState {
    /// The certificate, in DER.
    pub der: Vec<u8>,
    starts: Option<Timestamp>,
    expires: Option<Timestamp>,
}

impl CertificateState {
    /// Whether it has begun and has not expired, as its credential says.
    pub(crate) fn is_good(&self, now: Timestamp) -> bool {
        within(self.starts, self.expires, now)
    }
}

/// How much clocks of clients may be ahead of ours when they say from when a credential is
/// good.
const START_SKEW: std::time::Duration = std::time::Duration::from_secs(300);

fn within(starts: Option<Timestamp>, expires: Option<Timestamp>, now: Timestamp) -> bool {
    starts.is_none_or(|start| start <= now.plus(START_SKEW)) && expires.is_none_or(|end| now < end)
}

/// Whose tokens of which issuer speak for a principal. All are compared as they stand.
pub(crate) struct FederatedState {
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
}

impl Snapshot {
    /// The registry of this name, in key form.
    pub(crate) fn registry(&self, key: &str) -> Option<&Arc<Registry>> {
        self.by_key.get(key)
    }

    /// The registry that answers at this host.
    pub(crate) fn registry_at(&self, host: &str) -> Option<&Arc<Registry>> {
        if host.bytes().any(|c| c.is_ascii_uppercase()) {
            return self.registry_at(&host.to_ascii_lowercase());
        }
        self.by_host.get(host).or_else(|| self.by_host.get(without_port(host)))
    }

    /// What answers at this host (without port, in any case), if it is not a login server.
    pub(crate) fn host(&self, host: &str) -> Option<&HostState> {
        if host.bytes().any(|c| c.is_ascii_uppercase()) {
            return self.hosts.get(&host.to_ascii_lowercase());
        }
        self.hosts.get(host)
    }

    /// The principal of this application.
    pub(crate) fn application(&self, app_id: Uuid) -> Option<&PrincipalState> {
        self.principals.get(self.by_app.get(&app_id)?)
    }

    /// The user who signs in by this name, in any case.
    pub(crate) fn user(&self, name: &str) -> Option<&PrincipalState> {
        self.principals.get(self.by_user.get(&name.to_lowercase())?)
    }

    /// The repository token of this name, in any case, of the registry of this row.
    pub(crate) fn token(&self, registry: i64, name: &str) -> Option<&TokenState> {
        self.tokens.get(&registry)?.get(name)
    }

    /// What a repository token may do.
    pub(crate) fn scope_map(&self, registry: &RegistryName, token: &str) -> Option<&ScopeMap> {
        self.token(self.registry(&registry.key())?.id, token).filter(|t| t.enabled)?.scope_map.as_deref()
    }

    /// Hand what principals prove who they are with to each: what is an application's, to its
    /// principal.
    fn read_credentials(&mut self, tx: &mut dyn Tx) -> Result<()> {
        let applications: HashMap<Uuid, Uuid> = meta::application::ids(tx)?
            .into_iter()
            .filter_map(|(object_id, app_id)| Some((object_id, *self.by_app.get(&app_id)?)))
            .collect();
        let principal = |owner: Uuid| *applications.get(&owner).unwrap_or(&owner);
        for row in meta::credential::list(tx)? {
            let Some(state) = self.principals.get_mut(&principal(row.owner)) else { continue };
            let (starts, expires) = (row.starts, row.expires);
            match row.kind {
                CredentialKind::Password => state.secrets.push(SecretState { hash: row.value, starts, expires }),
                CredentialKind::Certificate => {
                    state.certificates.push(CertificateState { der: row.value, starts, expires });
                }
            }
        }
        for row in meta::federated::list(tx)? {
            let Some(state) = self.principals.get_mut(&principal(row.owner)) else { continue };
            let audiences = serde_json::from_str(&row.audiences)
                .map_err(|_| portolan_store::Error::Corrupt(format!("JSON of federated credential {}", row.id)))?;
            state.federated.push(FederatedState { issuer: row.issuer, subject: row.subject, audiences });
        }
        Ok(())
    }

    /// Read all of it; `before` is what was read last, for what did not change since.
    fn read(tx: &mut dyn Tx, config: &ServiceConfig, before: &Snapshot) -> Result<Snapshot> {
        let id = |text: Option<String>| text.and_then(|t| Uuid::try_parse(&t).ok()).unwrap_or_default();
        let tenant = id(meta::setting::get(tx, TENANT)?);
        let subscription = id(meta::setting::get(tx, SUBSCRIPTION)?);
        let mut snapshot = Snapshot { version: version(tx)?, tenant, subscription, ..Snapshot::default() };
        let mut identities: HashMap<i64, Vec<RegistryIdentity>> = HashMap::new();
        for row in meta::registry_identity::list(tx)? {
            let registry = row.registry;
            identities.entry(registry).or_default().push(RegistryIdentity::from_row(row, tenant));
        }
        for row in meta::registry::list(tx)? {
            let mut registry = Registry::from_row(row, &subscription, config)?;
            registry.identities = identities.remove(&registry.id).unwrap_or_default();
            let registry = Arc::new(registry);
            for host in own_hosts(&registry, config) {
                snapshot.by_host.entry(host).or_insert_with(|| registry.clone());
            }
            snapshot.by_key.insert(registry.name.key(), registry.clone());
            snapshot.registries.push(registry);
        }
        snapshot.hosts = hosts::read_all(tx, &snapshot.registries)?;
        for (host, state) in snapshot.hosts.iter().filter(|(_, state)| state.kind != HostKind::Data) {
            snapshot.by_host.entry(host.clone()).or_insert_with(|| state.registry.clone());
        }
        for row in meta::principal::list(tx)? {
            if let Some(app_id) = row.app_id {
                snapshot.by_app.insert(app_id, row.object_id);
            }
            if let Some(name) = &row.user_name {
                snapshot.by_user.insert(meta::principal::user_key(name), row.object_id);
            }
            let state = PrincipalState {
                object_id: row.object_id,
                app_id: row.app_id,
                kind: PrincipalKind::parse(&row.kind).unwrap_or(PrincipalKind::ServicePrincipal),
                display_name: row.display_name,
                user_name: row.user_name,
                enabled: row.enabled,
                valid_from: row.valid_from,
                secrets: Vec::new(),
                certificates: Vec::new(),
                federated: Vec::new(),
                resource: None,
                assignments: Vec::new(),
            };
            snapshot.principals.insert(row.object_id, state);
        }
        snapshot.read_credentials(tx)?;
        for row in meta::managed_identity::list(tx)? {
            if let Some(state) = snapshot.principals.get_mut(&row.principal) {
                state.resource = Some(identity_id(&subscription, row.group.as_str(), &row.name).key());
            }
        }
        roles::read_all(tx, &mut snapshot)?;
        snapshot.tokens = token_state::read(tx, &before.tokens)?;
        locks::read_all(tx, &mut snapshot)?;
        operations::read_all(tx, &mut snapshot)?;
        Ok(snapshot)
    }
}

impl Service {
    /// Read everything kept in memory anew; when it returns, decisions here see what was
    /// committed before. Changes that other servers must see go through `alter`.
    pub async fn refresh(&self) -> Result<()> {
        let _one_at_a_time = self.refreshing.lock().await;
        let config = self.config.clone();
        let before = self.snapshot.load_full();
        let snapshot = self.meta.read(move |tx| Snapshot::read(tx, &config, &before)).await?;
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }
}

/// The login server of a registry. With a domain `D`: `NAME.D`. Without one, the default
/// registry's is the server's own address, and another's is a name below it, or below
/// `localhost` when the server is known by a bare address. The port is the server's.
pub(crate) fn login_server(key: &str, is_default: bool, config: &ServiceConfig) -> String {
    let public = config.public_authority.to_ascii_lowercase();
    let host = without_port(&public);
    let port = &public[host.len()..];
    match &config.domain {
        Some(domain) => format!("{key}.{}{port}", domain.trim_matches('.').to_ascii_lowercase()),
        None if is_default => public,
        None if is_address(host) => format!("{key}.localhost{port}"),
        None => format!("{key}.{host}{port}"),
    }
}

/// Every host (in lower case) that leads to a registry.
fn own_hosts(registry: &Registry, config: &ServiceConfig) -> Vec<String> {
    let mut hosts = vec![
        registry.login_server.clone(),
        without_port(&registry.login_server).to_owned(),
        format!("{}.localhost", registry.name.key()),
    ];
    if registry.is_default && config.domain.is_none() {
        hosts.extend(config.other_authorities.iter().map(|a| without_port(a).to_ascii_lowercase()));
        if is_loopback(without_port(&config.public_authority)) {
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        }
    }
    hosts
}

/// `host[:port]` without the port, IPv6 addresses in brackets.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.is_empty()
                && port.bytes().all(|c| c.is_ascii_digit())
                && (!name.starts_with('[') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Whether the host (without port) is this machine itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(public: &str, domain: Option<&str>) -> ServiceConfig {
        ServiceConfig { public_authority: public.into(), domain: domain.map(str::to_owned), ..ServiceConfig::default() }
    }

    #[test]
    fn login_servers() {
        let check = |public: &str, domain: Option<&str>, first: &str, second: &str| {
            let config = config(public, domain);
            assert_eq!(login_server("one11", true, &config), first);
            assert_eq!(login_server("two22", false, &config), second);
        };
        check("localhost:8443", None, "localhost:8443", "two22.localhost:8443");
        check("10.0.0.5:8443", None, "10.0.0.5:8443", "two22.localhost:8443");
        check("[::1]:8443", None, "[::1]:8443", "two22.localhost:8443");
        check("Images.Example.com", None, "images.example.com", "two22.images.example.com");
        check("localhost:8443", Some("azurecr.io"), "one11.azurecr.io:8443", "two22.azurecr.io:8443");
        check("api.example.com", Some(".cr.example.com"), "one11.cr.example.com", "two22.cr.example.com");
    }

    #[test]
    fn ports_come_off() {
        for (host, without) in
            [("a:1", "a"), ("a", "a"), ("[::1]:5", "[::1]"), ("[::1]", "[::1]"), (":1", ":1"), ("a:b", "a:b")]
        {
            assert_eq!(without_port(host), without);
        }
    }
}
