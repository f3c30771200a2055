//! The rules' own state: the store, the authority, and what is kept in memory.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan_auth::Authority;
use portolan_store::blob::Blobs;
use portolan_store::meta::Meta;
use portolan_types::{IpNet, limits};
use uuid::Uuid;

use crate::Result;
use crate::content::Content;
use crate::gc::Graces;
use crate::keys::{check_master_key, note_master_key};
use crate::peers::Peer;
use crate::sign_in::SignInConfig;
use crate::sign_in::password::Checker;
use crate::snapshot::Snapshot;
use crate::tiers::Tiers;

/// All rules of the registry. One per server; share it in an `Arc`.
pub struct Service {
    /// The database.
    pub meta: Meta,
    /// The blob store.
    pub blobs: Arc<dyn Blobs>,
    /// Tokens and keys.
    pub authority: Arc<Authority>,
    /// How this server is set up.
    pub config: ServiceConfig,
    /// Registries, principals and roles as last read, for decisions without a query.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Held while the snapshot is read anew, so that an older reading never replaces a newer.
    pub(crate) refreshing: tokio::sync::Mutex<()>,
    /// The data plane's caches, clock and locks.
    pub(crate) content: Arc<Content>,
    /// Checks people's passwords.
    pub(crate) checker: Checker,
}

/// How this server is set up, as far as the rules need to know.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// A name of this server's own that stays the same between its starts: what it had in
    /// hand when it was killed is given up when it starts again. Only asked for where servers
    /// share a database.
    pub server: Option<String>,
    /// The region that rows written here are stamped with.
    pub region: String,
    /// Registries answer at `NAME.<domain>[:port]`; without one, see
    /// [`registry_by_host`](Service::registry_by_host).
    pub domain: Option<String>,
    /// Host and port under which clients reach this server: `localhost:8443`.
    pub public_authority: String,
    /// Other hosts (with or without port) under which clients reach it.
    pub other_authorities: Vec<String>,
    /// Uploads that may be open at one time in one registry.
    pub uploads_max: usize,
    /// How long what may be garbage is left alone.
    pub graces: Graces,
    /// Uploads that one identity may have open at one time in one registry.
    pub uploads_per_identity_max: usize,
    /// The size of a manifest, in bytes; at most [`limits::MANIFEST_BYTES_MAX`].
    pub manifest_bytes_max: usize,
    /// The size of a blob, in bytes; at most [`limits::BLOB_BYTES_MAX`].
    pub blob_bytes_max: u64,
    /// How long a directory token lasts.
    pub directory_token_lifetime: Duration,
    /// How long a registry refresh token lasts (ACR: three hours).
    pub refresh_token_lifetime: Duration,
    /// How long a registry access token lasts (ACR: 75 minutes).
    pub access_token_lifetime: Duration,
    /// How people sign in.
    pub sign_in: SignInConfig,
    /// What each SKU allows.
    pub tiers: Tiers,
    /// Networks whose clients reach every registry, as Azure's private endpoints do, whatever
    /// its network rules say.
    pub private_networks: Vec<IpNet>,
}

impl Default for ServiceConfig {
    fn default() -> ServiceConfig {
        ServiceConfig {
            server: None,
            region: "local".to_owned(),
            domain: None,
            public_authority: "localhost:8443".to_owned(),
            other_authorities: Vec::new(),
            uploads_max: 10_000,
            uploads_per_identity_max: 10_000,
            manifest_bytes_max: limits::MANIFEST_BYTES_MAX,
            blob_bytes_max: limits::BLOB_BYTES_MAX,
            graces: Graces::default(),
            directory_token_lifetime: Duration::from_secs(3_600),
            refresh_token_lifetime: Duration::from_secs(3 * 3_600),
            access_token_lifetime: Duration::from_secs(75 * 60),
            sign_in: SignInConfig::default(),
            tiers: Tiers::default(),
            private_networks: Vec::new(),
        }
    }
}

impl Service {
    /// Start the rules over an open store: make or open the signing keys and read what is
    /// kept in memory.
    ///
    /// Errors: a store that cannot be read, or signing keys that another master key sealed.
    pub async fn open(
        meta: Meta,
        blobs: Arc<dyn Blobs>,
        authority: Arc<Authority>,
        config: ServiceConfig,
    ) -> Result<Service> {
        let shared = meta.is_shared();
        Service::open_as(shared, meta, blobs, authority, config).await
    }

    /// [`Service::open`] for a database that other servers use, whatever engine it is.
    pub(crate) async fn open_as(
        shared: bool,
        meta: Meta,
        blobs: Arc<dyn Blobs>,
        authority: Arc<Authority>,
        mut config: ServiceConfig,
    ) -> Result<Service> {
        check_master_key(&meta, &authority).await?;
        let peer = match shared {
            true => Some(Peer::join(&meta, config.server.as_deref()).await?),
            false => None,
        };
        if shared {
            // What a push asked about is not remembered by other servers: instead nothing
            // goes sooner than it could.
            config.graces.unlink = config.graces.unlink.max(config.graces.touch);
        }
        let content = Content::open(&meta, &config.region, peer).await?;
        let service = Service {
            meta,
            blobs,
            authority,
            config,
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            refreshing: tokio::sync::Mutex::new(()),
            content,
            checker: Checker::new()?,
        };
        service.load_signing_keys().await?;
        note_master_key(&service.meta, &service.authority).await?;
        service.refresh().await?;
        Ok(service)
    }

    /// The tenant's id; nil before the first start has finished.
    pub fn tenant_id(&self) -> Uuid {
        self.snapshot.load().tenant
    }

    /// The subscription's id; nil before the first start has finished.
    pub fn subscription_id(&self) -> Uuid {
        self.snapshot.load().subscription
    }

    /// The region that this server is in.
    pub fn region(&self) -> &str {
        &self.config.region
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service({})", self.config.public_authority)
    }
}
