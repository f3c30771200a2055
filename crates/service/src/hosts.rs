//! Host names of registries besides their login servers.
//!
//! * *Data endpoint* `NAME.LOCATION.data.<domain>`, where `dataEndpointEnabled` is on: the GET
//!   of a blob is answered with a signed address there, and nothing else is served there.
//! * *Regional endpoint* `NAME.LOCATION.geo.<domain>`, where `regionalEndpoints` is on: the
//!   registry, as at its login server.
//! * *Custom hosts*, each given to one registry by whoever may write it: the registry too.
//!   One may have a certificate of its own, whose key is kept sealed under the master key and
//!   never shown again.
//!
//! A custom host cannot take a name away from anybody: names that lead somewhere already, and
//! names below this server's own, are refused, and in [`Snapshot`](crate::snapshot) the
//! server's own names come first.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_auth::access::{Action, Target};
use portolan_store::meta::host::{self, HostRow};
use portolan_store::meta::{self, Tx};
use portolan_types::{Secret, Timestamp};
use serde_json::{Map, Value};

use crate::identity::below;
use crate::keys::key_error;
use crate::registries::Registry;
use crate::service::{Service, ServiceConfig};
use crate::snapshot::{login_server, without_port};
use crate::{Ctx, Error, Kind, Result};

/// Custom hosts that one registry may have.
pub const HOSTS_MAX: u64 = 100;

const SEAL_PURPOSE: &str = "host-key";

/// Where a host of this module leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// Signed addresses of blobs.
    Data,
    /// The registry.
    Regional,
    /// The registry, under a name that somebody gave it.
    Custom,
}

/// A host and what answers there.
#[derive(Clone, Debug)]
pub(crate) struct HostState {
    pub kind: HostKind,
    pub registry: Arc<Registry>,
    pub certificate: Option<Arc<HostCertificate>>,
}

/// The certificate of a custom host.
#[derive(Debug)]
pub struct HostCertificate {
    host: String,
    chain: String,
    sealed_key: Vec<u8>,
}

impl HostCertificate {
    /// The certificate and what it was issued by (PEM).
    pub fn chain(&self) -> &str {
        &self.chain
    }
}

/// A custom host, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomHost {
    /// The name, in lower case.
    pub host: String,
    /// Its certificate and what that was issued by (PEM), if it has its own.
    pub chain: Option<String>,
    /// When it was given to the registry.
    pub created: Timestamp,
}

/// A certificate for a custom host, checked by the caller: the key belongs to it, and it is
/// for that host.
#[derive(Debug)]
pub enum NewCertificate {
    /// What there is stays.
    Keep,
    /// The server's own certificate serves.
    None,
    /// This one: the chain and the key, both PEM.
    Own(String, Secret<String>),
}

impl Registry {
    /// The host of its data endpoint, without a port, where it has one.
    pub fn data_host(&self) -> Option<&str> {
        self.data_endpoints.first().map(|host| without_port(host))
    }
}

/// Where a registry's data endpoint and its regional endpoint answer, with the port; empty
/// where they are off.
pub(crate) fn endpoints(
    key: &str,
    location: &str,
    properties: &Map<String, Value>,
    config: &ServiceConfig,
) -> (Vec<String>, Vec<String>) {
    let suffix = login_server("", false, config);
    let list = |on: bool, what| on.then(|| format!("{key}.{location}.{what}{suffix}")).into_iter().collect();
    let data = properties.get("dataEndpointEnabled").and_then(Value::as_bool) == Some(true);
    let regional = properties.get("regionalEndpoints").and_then(Value::as_str) == Some("Enabled");
    (list(data, "data"), list(regional, "geo"))
}

/// Every host of this module: the custom ones and the endpoints that are on.
pub(crate) fn read_all(tx: &mut dyn Tx, registries: &[Arc<Registry>]) -> Result<HashMap<String, HostState>> {
    let mut all = HashMap::new();
    for registry in registries {
        for (hosts, kind) in
            [(&registry.data_endpoints, HostKind::Data), (&registry.regional_endpoints, HostKind::Regional)]
        {
            for host in hosts {
                let state = HostState { kind, registry: registry.clone(), certificate: None };
                all.insert(without_port(host).to_owned(), state);
            }
        }
    }
    let by_id: HashMap<i64, &Arc<Registry>> = registries.iter().map(|r| (r.id, r)).collect();
    for row in host::list(tx)? {
        let Some(registry) = by_id.get(&row.registry) else { continue };
        let certificate = row
            .certificate
            .map(|(chain, sealed_key)| Arc::new(HostCertificate { host: row.host.clone(), chain, sealed_key }));
        let state = HostState { kind: HostKind::Custom, registry: (*registry).clone(), certificate };
        all.entry(row.host).or_insert(state);
    }
    Ok(all)
}

impl Service {
    /// The registry whose data endpoint is at this host (without port).
    pub fn data_endpoint_at(&self, host: &str) -> Option<Arc<Registry>> {
        let snapshot = self.snapshot.load();
        let state = snapshot.host(host)?;
        (state.kind == HostKind::Data).then(|| state.registry.clone())
    }

    /// Whether a host (without port, in lower case) is one of this module's, so that the
    /// server's own certificate does not name it; and the certificate that it has.
    pub fn certificate_of(&self, host: &str) -> Option<Option<Arc<HostCertificate>>> {
        self.snapshot.load().host(host).map(|state| state.certificate.clone())
    }

    /// The private key of a certificate (PEM).
    pub fn host_key(&self, certificate: &HostCertificate) -> Result<Secret<String>> {
        let key = self
            .authority
            .master()
            .open(SEAL_PURPOSE, &certificate.host, &certificate.sealed_key)
            .map_err(key_error)?;
        let text = String::from_utf8(key);
        text.map(Secret::new).map_err(|e| {
            Error::new(Kind::Internal, "UNKNOWN", "a host's key cannot be read").with_source(e.utf8_error())
        })
    }

    /// The custom hosts of a registry, by name.
    pub async fn list_hosts(&self, ctx: &Ctx, registry: &Registry) -> Result<Vec<CustomHost>> {
        self.check(ctx, registry, &Target::Registry, Action::RegistryRead)?;
        let id = registry.id;
        let mut rows = self.meta.read(|tx| host::list(tx).map_err(Error::from)).await?;
        rows.retain(|row| row.registry == id);
        Ok(rows.into_iter().map(shown).collect())
    }

    /// A custom host of a registry.
    ///
    /// Errors: `ResourceNotFound`.
    pub async fn custom_host(&self, ctx: &Ctx, registry: &Registry, name: &str) -> Result<CustomHost> {
        self.check(ctx, registry, &Target::Registry, Action::RegistryRead)?;
        let (id, wanted) = (registry.id, name.to_ascii_lowercase());
        let row = self.meta.read(move |tx| host::get(tx, &wanted).map_err(Error::from)).await?;
        row.filter(|row| row.registry == id).map(shown).ok_or_else(|| not_found(name))
    }

    /// Whether the caller may give hosts to a registry.
    pub fn check_host_write(&self, ctx: &Ctx, registry: &Registry) -> Result<()> {
        self.check(ctx, registry, &Target::Registry, Action::RegistryWrite)
    }

    /// Give a host to a registry, or change its certificate. Whether it is new.
    ///
    /// Errors: `InvalidHostName`; `HostNameInUse`; `TooManyHosts`.
    pub async fn put_host(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        name: &str,
        certificate: NewCertificate,
    ) -> Result<(CustomHost, bool)> {
        self.check(ctx, registry, &Target::Registry, Action::RegistryWrite)?;
        let name = name.to_ascii_lowercase();
        self.check_host_name(&name)?;
        let sealed = match certificate {
            NewCertificate::Keep => None,
            NewCertificate::None => Some(None),
            NewCertificate::Own(chain, key) => {
                let master = self.authority.master();
                let sealed = master.seal(SEAL_PURPOSE, &name, key.expose().as_bytes()).map_err(key_error)?;
                Some(Some((chain, sealed)))
            }
        };
        let (id, now) = (registry.id, ctx.now);
        self.alter(move |tx| {
            let before = host::get(tx, &name)?;
            if before.as_ref().is_some_and(|row| row.registry != id) {
                return Err(in_use(&name));
            }
            if before.is_none() && host::count(tx, id)? >= HOSTS_MAX {
                let message = format!("A registry can have {HOSTS_MAX} hosts of its own.");
                return Err(Error::new(Kind::Conflict, "TooManyHosts", message));
            }
            let new = before.is_none();
            let (kept, created) = before.map_or((None, now), |row| (row.certificate, row.created));
            let row = HostRow { host: name, registry: id, certificate: sealed.unwrap_or(kept), created, updated: now };
            meta::host::put(tx, &row)?;
            Ok((shown(row), new))
        })
        .await
    }

    /// Take a host away from a registry; whether it had it.
    pub async fn delete_host(&self, ctx: &Ctx, registry: &Registry, name: &str) -> Result<bool> {
        self.check(ctx, registry, &Target::Registry, Action::RegistryWrite)?;
        let (id, name) = (registry.id, name.to_ascii_lowercase());
        self.alter(move |tx| host::delete(tx, id, &name).map_err(Error::from)).await
    }

    /// Whether a name may be given to a registry at all.
    fn check_host_name(&self, name: &str) -> Result<()> {
        let invalid = |why: &str| Error::new(Kind::Invalid, "InvalidHostName", format!("The host name {why}."));
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        };
        let dns = name.len() <= 253 && name.contains('.') && name.split('.').all(label);
        let numbers = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
        if !dns || numbers {
            return Err(invalid("must be a DNS name with a dot, such as images.example.com"));
        }
        let custom = self.snapshot.load().host(name).is_some_and(|state| state.kind == HostKind::Custom);
        if custom {
            return Ok(());
        }
        let own = [&self.config.public_authority].into_iter().chain(&self.config.other_authorities);
        let own = own.map(|a| without_port(a)).chain(self.config.domain.as_deref());
        let ours = own.chain(["localhost"]).any(|own| below(name, own.trim_matches('.')));
        if ours || self.is_own_host(name) || self.snapshot.load().host(name).is_some() {
            return Err(invalid("is this server's own, or below it"));
        }
        Ok(())
    }
}

fn shown(row: HostRow) -> CustomHost {
    CustomHost { host: row.host, chain: row.certificate.map(|(chain, _)| chain), created: row.created }
}

fn not_found(name: &str) -> Error {
    let message = format!("The host '{}' is none of this registry's.", name.escape_debug());
    Error::new(Kind::NotFound, "ResourceNotFound", message)
}

fn in_use(name: &str) -> Error {
    Error::new(Kind::Conflict, "HostNameInUse", format!("The host name '{name}' is another registry's."))
}
