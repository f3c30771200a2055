//! A service over a store of its own.

use std::sync::Arc;

use portolan_auth::access::Principal;
use portolan_auth::{Authority, MasterKey};
use portolan_service::identity::Bootstrap;
use portolan_service::registries::RegistryInput;
use portolan_service::registry_auth::SignIn;
use portolan_service::{Ctx, Reach, Registry, Service, ServiceConfig, Sku};
use portolan_store::blob::FsBlobs;
use portolan_store::meta::{Meta, PostgresConfig};
use portolan_testkit::postgres;
use portolan_types::{GroupName, RegistryName, Timestamp};
use serde_json::{Value, json};

/// The time at which the tests play.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
/// Where the server says it is.
pub(crate) const BASE: &str = "https://localhost:8443";

/// A service, its owner's credentials and its folder.
pub(crate) struct Site {
    pub(crate) service: Service,
    pub(crate) bootstrap: Bootstrap,
    /// The owner, signed in to the control plane.
    pub(crate) owner: Ctx,
    pub(crate) dir: tempfile::TempDir,
}

impl Site {
    /// A store with an owner and nothing else.
    pub(crate) async fn new() -> Site {
        Site::with(ServiceConfig::default()).await
    }

    pub(crate) async fn with(config: ServiceConfig) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let service = open(dir.path(), config).await;
        let bootstrap = Bootstrap::generate().unwrap();
        service.adopt_bootstrap(&bootstrap, NOW).await.unwrap();
        let owner = signed_in(&service, &bootstrap);
        Site { service, bootstrap, owner, dir }
    }

    /// Make a registry in the group `rg`.
    pub(crate) async fn registry(&self, name: &str, properties: Value) -> Arc<Registry> {
        let group: GroupName = "rg".parse().unwrap();
        self.service.put_group(&self.owner, &group, Some("eastus"), None).await.unwrap();
        let input = RegistryInput {
            location: Some("eastus".into()),
            sku: Some(Sku::Standard),
            tags: None,
            properties: properties.as_object().cloned().unwrap_or_default(),
        };
        let name: RegistryName = name.parse().unwrap();
        self.service.put_registry(&self.owner, &group, &name, input).await.unwrap().0
    }

    /// A registry with its admin user on.
    pub(crate) async fn with_admin(&self, name: &str) -> Arc<Registry> {
        self.registry(name, json!({"adminUserEnabled": true})).await
    }

    /// A refresh token of the owner.
    pub(crate) fn refresh_token(&self, registry: &Registry, now: Timestamp) -> String {
        let token = self.directory_token("https://containerregistry.azure.net", now);
        self.service.exchange(registry, &token, now).unwrap().token.into_exposed()
    }

    /// A directory token of the owner.
    pub(crate) fn directory_token(&self, resource: &str, now: Timestamp) -> String {
        let Bootstrap { client_id, client_secret, .. } = &self.bootstrap;
        let issued =
            self.service.client_token(BASE, &client_id.to_string(), client_secret.expose(), resource, now).unwrap();
        issued.token.into_exposed()
    }

    /// An access token of the owner.
    pub(crate) fn access_token(&self, registry: &Registry, scope: &str, now: Timestamp) -> String {
        let refresh = self.refresh_token(registry, now);
        let issued = self.service.access_token(registry, SignIn::Refresh(&refresh), &[scope], now).unwrap();
        issued.token.into_exposed()
    }
}

/// Open the store in `dir`, as a start of the server does.
pub(crate) async fn open(dir: &std::path::Path, config: ServiceConfig) -> Service {
    let path = dir.join("portolan.db");
    let meta = match postgres::chosen_for(&path) {
        Some(url) => Meta::open_postgres(&PostgresConfig { readers: 2, ..PostgresConfig::new(url) }),
        None => Meta::open_sqlite(&path),
    };
    let meta = meta.unwrap();
    let blobs = Arc::new(FsBlobs::open(&dir.join("content")).unwrap());
    let authority = Arc::new(Authority::new(MasterKey::new(&[9; 32])));
    Service::open(meta, blobs, authority, config).await.unwrap()
}

/// The owner's context on the control plane.
pub(crate) fn signed_in(service: &Service, bootstrap: &Bootstrap) -> Ctx {
    let secret = bootstrap.client_secret.expose();
    let token = service.client_token(BASE, &bootstrap.client_id.to_string(), secret, BASE, NOW).unwrap();
    let principal = service.control_plane_bearer(token.token.expose(), NOW).unwrap();
    Ctx { principal, reach: Reach::Principal, request_id: "test".into(), now: NOW }
}

/// Nobody's context.
pub(crate) fn nobody() -> Ctx {
    Ctx { principal: Principal::Anonymous, reach: Reach::Principal, request_id: "test".into(), now: NOW }
}

/// Some seconds after [`NOW`].
pub(crate) fn later(secs: i64) -> Timestamp {
    Timestamp(NOW.0 + secs * 1_000_000)
}
