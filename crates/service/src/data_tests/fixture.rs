//! A service on a temporary directory, and the few steps that most tests begin with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use portolan_auth::access::{Grant, Principal};
use portolan_auth::{Authority, MasterKey};
use portolan_store::blob::{Blobs, ByteStream, FsBlobs};
use portolan_store::meta::group::GroupRow;
use portolan_store::meta::registry::RegistryRow;
use portolan_store::meta::{self, Meta, PostgresConfig, Tx};
use portolan_testkit::postgres;
use portolan_types::{Digest, Reference, RepoName, ResourceId, Timestamp, media_type};
use serde_json::{Value, json};

use crate::registries::{Registry, Sku};
use crate::{Ctx, Error, PutManifest, Reach, Result, Service, ServiceConfig, StoredManifest};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

pub(super) struct World {
    pub(super) service: Arc<Service>,
    pub(super) registry: Arc<Registry>,
    pub(super) other: Arc<Registry>,
    pub(super) dir: Arc<tempfile::TempDir>,
}

/// The time every test begins at.
pub(super) fn start() -> Timestamp {
    Timestamp::parse("2026-11-23T12:00:00Z").unwrap()
}

pub(super) fn ctx() -> Ctx {
    at(start())
}

pub(super) fn at(now: Timestamp) -> Ctx {
    Ctx::system("test", now)
}

/// The admin user, with a token for no more than these repositories.
pub(super) fn limited(registry: &Registry, grants: &[(&str, &[&str])]) -> Ctx {
    let grants: Vec<Grant> = grants
        .iter()
        .map(|(name, actions)| Grant {
            kind: "repository".into(),
            name: (*name).into(),
            actions: actions.iter().map(|a| (*a).into()).collect(),
        })
        .collect();
    Ctx {
        principal: Principal::AdminUser(registry.name.clone()),
        reach: Reach::Grants(grants.into()),
        request_id: "test".into(),
        now: start(),
    }
}

pub(super) fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

pub(super) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub(super) fn body(bytes: impl Into<Bytes>) -> ByteStream {
    let bytes = bytes.into();
    Box::pin(futures_util::stream::iter([Ok(bytes)]))
}

fn registry(id: i64, name: &str) -> Arc<Registry> {
    let resource_id = ResourceId::registry(&uuid::Uuid::nil(), "rg", name);
    Arc::new(Registry {
        id,
        name: name.parse().unwrap(),
        group: "rg".parse().unwrap(),
        location: "local".into(),
        login_server: format!("{name}.localhost:8443"),
        sku: Sku::Premium,
        is_default: id == 1,
        admin_enabled: true,
        admin_generations: [0, 0],
        anonymous_pull: false,
        network: crate::network::NetworkRules::read(&serde_json::Map::new()),
        data_endpoints: Vec::new(),
        regional_endpoints: Vec::new(),
        role_mode: portolan_auth::access::RoleMode::Legacy,
        tags: Default::default(),
        properties: Default::default(),
        created: start(),
        updated: start(),
        identities: Vec::new(),
        scope: resource_id.key(),
        resource_id,
    })
}

/// In SQLite, or in PostgreSQL when the suite is run on that.
fn open_meta(path: &Path) -> Meta {
    let meta = match postgres::chosen_for(path) {
        Some(url) => Meta::open_postgres(&PostgresConfig { readers: 2, ..PostgresConfig::new(url) }),
        None => Meta::open_sqlite(path),
    };
    meta.unwrap()
}

async fn open(dir: &Path, blobs: Option<Arc<dyn Blobs>>) -> Service {
    let meta = open_meta(&dir.join("meta.db"));
    let blobs = blobs.unwrap_or_else(|| Arc::new(FsBlobs::open(&dir.join("blobs")).unwrap()));
    let authority = Arc::new(Authority::new(MasterKey::new(&[7; 32])));
    Service::open(meta, blobs, authority, ServiceConfig::default()).await.unwrap()
}

/// The rows of the two registries: numbers 1 and 2.
pub(super) async fn seed(service: &Service) {
    let seed = |tx: &mut dyn Tx| {
        let (created, updated) = (start(), start());
        let group =
            GroupRow { name: "rg".parse().unwrap(), location: "local".into(), tags: "{}".into(), created, updated };
        meta::group::put(tx, &group)?;
        for name in ["first", "second"] {
            let row = RegistryRow {
                id: 0,
                name: name.parse().unwrap(),
                group: group.name.clone(),
                location: "local".into(),
                sku: "Premium".into(),
                is_default: false,
                admin_enabled: true,
                admin_generations: [0, 0],
                tags: "{}".into(),
                properties: "{}".into(),
                created,
                updated,
            };
            meta::registry::insert(tx, &row)?;
        }
        Ok::<_, Error>(())
    };
    service.meta.write(seed).await.unwrap();
}

impl World {
    /// Around a service that has the two registries.
    pub(super) fn around(service: Arc<Service>, dir: Arc<tempfile::TempDir>) -> World {
        World { service, registry: registry(1, "first"), other: registry(2, "second"), dir }
    }

    pub(super) async fn new() -> World {
        World::with_blobs(|fs| Arc::new(fs)).await
    }

    /// With something around the blob store.
    pub(super) async fn with_blobs(wrap: impl FnOnce(FsBlobs) -> Arc<dyn Blobs>) -> World {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let blobs = wrap(FsBlobs::open(&dir.path().join("blobs")).unwrap());
        let service = Arc::new(open(dir.path(), Some(blobs)).await);
        seed(&service).await;
        World { service, registry: registry(1, "first"), other: registry(2, "second"), dir }
    }

    /// Stop and start again on the same data.
    pub(super) async fn reopened(self) -> World {
        let World { service, registry, other, dir } = self;
        service.meta.close().await;
        drop(service);
        let service = Arc::new(open(dir.path(), None).await);
        World { service, registry, other, dir }
    }

    pub(super) async fn blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let bytes = Bytes::copy_from_slice(bytes);
        self.service.put_blob(&ctx(), &self.registry, &repo(name), digest, body(bytes)).await.unwrap();
        digest
    }

    pub(super) async fn put(&self, now: Timestamp, name: &str, to: &str, manifest: &Value) -> Result<PutManifest> {
        let bytes = Bytes::from(serde_json::to_vec(manifest).unwrap());
        self.service.put_manifest(&at(now), &self.registry, &repo(name), &reference(to), bytes, None).await
    }

    /// Push an image of one layer under a tag; its digest. Different content, different image.
    pub(super) async fn image(&self, name: &str, tag: &str, content: &str) -> Digest {
        self.image_at(start(), name, tag, content).await
    }

    pub(super) async fn image_at(&self, now: Timestamp, name: &str, tag: &str, content: &str) -> Digest {
        self.blob(name, &config_bytes()).await;
        self.blob(name, content.as_bytes()).await;
        self.put(now, name, tag, &image_of(content)).await.unwrap().digest
    }

    pub(super) async fn get(&self, name: &str, what: &str) -> Result<Arc<StoredManifest>> {
        self.service.get_manifest(&ctx(), &self.registry, &repo(name), &reference(what)).await
    }

    pub(super) async fn read(&self, name: &str, digest: &Digest) -> Result<Vec<u8>> {
        let size = self.service.blob_size(&ctx(), &self.registry, &repo(name), digest).await?;
        let mut stream = self.service.read_blob(digest, 0..size).await?;
        let mut all = Vec::new();
        while let Some(chunk) = stream.next().await {
            all.extend_from_slice(&chunk.unwrap());
        }
        Ok(all)
    }

    /// Whether the blob store still has the file.
    pub(super) async fn stored(&self, digest: &Digest) -> bool {
        self.service.blobs.size(digest).await.unwrap().is_some()
    }
}

pub(super) fn config_bytes() -> Vec<u8> {
    json!({"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
        .to_string()
        .into_bytes()
}

pub(super) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

pub(super) fn image_of(content: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, &config_bytes()),
        "layers": [descriptor(media_type::OCI_LAYER_GZIP, content.as_bytes())],
    })
}

/// An artifact about `subject`, with nothing but the configuration.
pub(super) fn about(subject: &Digest, artifact_type: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor(media_type::OCI_CONFIG, &config_bytes()),
        "layers": [],
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 1},
        "annotations": {"note": artifact_type},
    })
}

pub(super) fn code<T>(result: Result<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(e) => e.code,
    }
}
