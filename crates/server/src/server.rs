//! One server from start to end, without a process around it.
//!
//! Start: folder, lock, listeners, master key, store, rules, certificate, owner, then the
//! first connection is taken. Everything that can fail does so before that. End: see
//! [`crate::drain`].

use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portolan_api::egress::Egress;
use portolan_auth::{Authority, MasterKey};
use portolan_builder::exec::network::{self, Gate, Policy};
use portolan_builder::{DefaultNetwork, DiskLimits, StepLimits};
use portolan_service::gc::Graces;
use portolan_service::tiers::Tiers;
use portolan_service::{Service, ServiceConfig};
use portolan_store::blob::{BlobStats, Blobs, Measured};
use portolan_store::meta::{Meta, PostgresConfig};
use portolan_tasks::{Tasks, TasksConfig, TurnLimits};
use portolan_types::limits::RUN_SECS_MAX;
use portolan_types::{Secret, Timestamp};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::build::{BuildConfig, Builds};
use crate::drain::{Drain, Phase};
use crate::http::memory::Memory;
use crate::http::ops::Metrics;
use crate::http::rate::Rates;
use crate::issuers::Issuers;
use crate::listen::{self, Listener, Peers};
use crate::seal::RunSeal;
use crate::settings::{BuildNetwork, Settings};
use crate::sink::{LogTarget, Sink};
use crate::tls::Tls;
use crate::{background, bootstrap, files, maintenance};

/// How long to wait for a server on the same data folder that is just ending.
const LOCK_WAIT_MILLIS_MAX: u64 = 3_000;
const LOCK_RETRY_MILLIS: u64 = 50;
/// Shorter tokens can be guessed.
const METRICS_TOKEN_BYTES_MIN: usize = 16;

/// Starts servers.
pub struct Server;

/// A server that takes requests. Dropping it without [`RunningServer::shutdown`] is like
/// killing it: what was acknowledged is on disk.
pub struct RunningServer {
    /// What its handlers see.
    pub app: Arc<App>,
    /// Where it listens with TLS.
    pub https: SocketAddr,
    /// Where it listens without.
    pub http: Option<SocketAddr>,
    /// Where it answers operators, when that is an address of its own.
    pub metrics_http: Option<SocketAddr>,
    /// The data folder, absolute.
    pub data: PathBuf,
    /// The owner's credentials, absolute; see [`bootstrap::Bootstrap`].
    pub bootstrap: PathBuf,
    /// The CA to trust; none with the operator's certificate.
    pub ca_file: Option<PathBuf>,
    tls: Arc<Tls>,
    listeners: Vec<JoinHandle<usize>>,
    timers: JoinSet<()>,
    /// Held until the end.
    _lock: File,
}

impl Server {
    /// Start a server and return when it takes requests.
    pub async fn start(settings: Settings) -> anyhow::Result<RunningServer> {
        let mut settings = settings;
        files::private_dir(&settings.data)
            .with_context(|| format!("make the data folder {}", settings.data.display()))?;
        settings.data = std::fs::canonicalize(&settings.data)
            .with_context(|| format!("find the data folder {}", settings.data.display()))?;
        let data = settings.data.clone();
        let lock = lock(&data).await?;

        let bound = |addr: SocketAddr, name: &str| {
            let tcp = listen::bind(addr).with_context(|| format!("listen on {addr} (setting {name})"))?;
            let addr = tcp.local_addr().context("ask for the address listened on")?;
            anyhow::Ok((tcp, addr))
        };
        let (tcp, https) = bound(settings.listen, "listen")?;
        let plain = settings.listen_http.map(|addr| bound(addr, "listen_http")).transpose()?;
        let http = plain.as_ref().map(|(_, addr)| *addr);
        let ops = settings.metrics_listen.map(|addr| bound(addr, "metrics_listen")).transpose()?;
        let metrics_http = ops.as_ref().map(|(_, addr)| *addr);
        let sink = |name, target: &LogTarget| {
            Sink::open(name, target).with_context(|| format!("open the {name} log {target:?} (setting {name}_log)"))
        };
        let (access, audit) = (sink("access", &settings.access_log)?, sink("audit", &settings.audit_log)?);
        let metrics_token = settings.metrics_token_file.as_deref().map(token_of).transpose()?;

        let database = data.join("portolan.db");
        let now = Timestamp::now();
        let (meta, master) = open_sealed(&settings, &database).await?;
        maintenance::refuse_moved(&meta).await?;
        let authority = Arc::new(Authority::new(master));
        portolan_service::check_master_key(&meta, &authority).await.map_err(hinted)?;
        if meta.is_shared() {
            crate::tls::share(&settings, &meta, authority.master(), now)
                .await
                .context("share the CA with other servers")?;
        }
        let tls = Arc::new(Tls::open(&settings, https, now)?);
        let ca_file = tls.ca_file();

        let public = public_authority(&settings, https);
        let Core { service, tasks, blob_stats } = open_core(&settings, meta, authority, https, http).await?;

        let url = format!("https://{public}");
        let bootstrap = data.join("bootstrap.json");
        bootstrap::ensure(&service, &bootstrap, &url, ca_file.clone(), now).await?;

        let builds = open_builds(&settings, &service, &public, https).await?;

        tls.serve_hosts(&service);
        let app = Arc::new(App {
            rates: Rates::new(&settings),
            provider: crate::sign_in::client(&settings)?,
            issuers: Issuers::new(settings.federation_ca_file.as_deref())?,
            memory: Memory::new(settings.body_memory_bytes_max.0),
            relays: builds.relays(),
            stock: builds.stock_to_offer(),
            service,
            tasks,
            blob_stats,
            metrics_token,
            access,
            audit,
            settings: Arc::new(settings),
            url,
            drain: Drain::new(),
            metrics: Arc::new(Metrics::new()),
        });
        app.tasks.start_workers(if app.settings.build_here { slots(&app.settings) } else { 0 }, Arc::new(builds));
        let timers = background::start(&app, &tls);
        let connections_max = usize::try_from(app.settings.connections_max.0).unwrap_or(usize::MAX);
        let permits = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        let peers = Arc::new(Peers::new(app.settings.connections_per_address_max));
        let listener =
            |tcp, tls| Listener { tcp, tls, permits: permits.clone(), peers: peers.clone(), ops_only: false };
        // Its connections are counted by themselves: a server that is full can still be asked why.
        let ops = ops.map(|(tcp, _)| Listener {
            tcp,
            tls: None,
            permits: Arc::new(Semaphore::new(listen::OPS_CONNECTIONS_MAX)),
            peers: Arc::new(Peers::new(0)),
            ops_only: true,
        });
        let acceptor = TlsAcceptor::from(tls.config.clone());
        app.drain.advance(Phase::Serving);
        let listeners = std::iter::once((tcp, Some(acceptor)))
            .chain(plain.map(|(tcp, _)| (tcp, None)))
            .map(|(tcp, tls)| listener(tcp, tls))
            .chain(ops)
            .map(|listener| tokio::spawn(listener.serve(app.clone())))
            .collect();
        tracing::info!(url = app.url, %https, http = http.map(tracing::field::display), data = %data.display(), "ready");
        Ok(RunningServer {
            app,
            https,
            http,
            metrics_http,
            data,
            bootstrap,
            ca_file,
            tls,
            listeners,
            timers,
            _lock: lock,
        })
    }
}

impl RunningServer {
    /// `portolan ready: https://localhost:8443 (http://127.0.0.1:8080) data=/… bootstrap=/…`;
    /// the last part only where the owner's credentials are.
    pub fn ready_line(&self) -> String {
        let http = self.http.map(|addr| format!(" (http://{addr})")).unwrap_or_default();
        let bootstrap = match self.bootstrap.exists() {
            true => format!(" bootstrap={}", self.bootstrap.display()),
            false => String::new(),
        };
        format!("portolan ready: {}{http} data={}{bootstrap}", self.app.url, self.data.display())
    }

    /// Read the certificate again, and open the log files anew (SIGHUP).
    pub fn reload(&self) {
        for sink in [&self.app.access, &self.app.audit] {
            if let Err(why) = sink.reopen() {
                tracing::error!(%why, ?sink, "open a log anew; the old file stays in use");
            }
        }
        match self.tls.refresh(Timestamp::now(), true) {
            Ok(true) => tracing::info!("another TLS certificate is in use"),
            Ok(false) => tracing::info!("the TLS certificate is the same as before"),
            Err(why) => tracing::error!(why = format!("{why:#}"), "keep the TLS certificate in use"),
        }
    }

    /// Finish what is in flight, within the setting `drain_timeout_secs`, and close the store.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.app.drain.advance(Phase::Draining);
        // Requests that follow a run's log end with the run, so runs and requests end together.
        let runs = tokio::spawn({
            let app = self.app.clone();
            async move { app.tasks.drain(app.settings.drain_timeout_secs.secs()).await }
        });
        let mut dropped = 0;
        for listener in self.listeners.drain(..) {
            dropped += listener.await.context("end a listener")?;
        }
        if dropped > 0 {
            tracing::warn!(connections = dropped, "the time to finish is over; requests in flight are dropped");
        }
        runs.await.context("end the runs")?;
        self.timers.shutdown().await;
        if let Err(error) = self.app.service.leave().await {
            tracing::warn!(%error, "other servers will find out by themselves that this one is gone");
        }
        self.app.service.meta.close().await;
        self.app.access.flush();
        self.app.audit.flush();
        tracing::info!("closed");
        Ok(())
    }
}

/// What a server and a worker have in common: the rules over an open store, and its runs.
pub(crate) struct Core {
    pub(crate) service: Arc<Service>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) blob_stats: Arc<BlobStats>,
}

/// Open the blob store, the rules and the queue over `meta`, for a server that listens there.
pub(crate) async fn open_core(
    settings: &Settings,
    meta: Meta,
    authority: Arc<Authority>,
    https: SocketAddr,
    http: Option<SocketAddr>,
) -> anyhow::Result<Core> {
    let blobs = open_blobs(settings).await?;
    let measured = Measured::new(blobs, crate::storage::name(settings));
    let (blob_stats, blobs): (_, Arc<dyn Blobs>) = (measured.stats(), Arc::new(measured));
    let public = public_authority(settings, https);
    let config = ServiceConfig {
        server: Some(files::name_of(&settings.data).context("name this server")?),
        region: settings.region.clone(),
        domain: settings.domain.as_ref().map(|d| d.0.clone()),
        other_authorities: other_authorities(&public, https, http),
        public_authority: public,
        uploads_max: usize::try_from(settings.uploads_max.0).unwrap_or(usize::MAX),
        uploads_per_identity_max: usize::try_from(settings.uploads_per_identity_max.0).unwrap_or(usize::MAX),
        manifest_bytes_max: usize::try_from(settings.manifest_bytes_max.0).unwrap_or(usize::MAX),
        blob_bytes_max: settings.layer_bytes_max.0,
        graces: graces(settings),
        tiers: tiers(settings),
        private_networks: settings.private_networks.clone(),
        directory_token_lifetime: settings.token_directory_secs.secs(),
        refresh_token_lifetime: settings.token_refresh_secs.secs(),
        access_token_lifetime: settings.token_access_secs.secs(),
        sign_in: crate::sign_in::config(settings)?,
    };
    let seal = Arc::new(RunSeal(authority.clone()));
    // First the rules: they refuse a master key that is not this database's.
    let service = Service::open(meta.clone(), blobs.clone(), authority, config).await;
    let service = Arc::new(service.map_err(hinted).context("open the registry's rules")?);
    let runs = TasksConfig {
        alone: !meta.is_shared(),
        queue_max: u64::from(settings.build_queue_max.0),
        queue_registry_max: u64::from(settings.build_queue_registry_max.0),
        running: TurnLimits {
            total_max: u64::from(settings.build_total_max),
            registry_max: u64::from(settings.build_registry_max),
        },
        lease_secs: u64::from(settings.build_lost_secs.0),
        attempts_max: u64::from(settings.build_attempts_max.0),
        name: worker_name(settings),
        ..TasksConfig::default()
    };
    let tasks = Tasks::open(meta, blobs, seal, runs).await.context("open the queue of runs")?;
    Ok(Core { service, tasks, blob_stats })
}

/// What this process is called in logs of builds.
pub(crate) fn worker_name(settings: &Settings) -> String {
    match &settings.build_worker_name {
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        Some(name) => name.clone(),
    }
}

/// Builds at one time on this machine.
pub(crate) fn slots(settings: &Settings) -> usize {
    usize::try_from(settings.build_parallel_max.0).unwrap_or(usize::MAX)
}

/// Set builds up. `public` is what clients call the servers, `at` where one of them listens.
pub(crate) async fn open_builds(
    settings: &Settings,
    service: &Arc<Service>,
    public: &str,
    at: SocketAddr,
) -> anyhow::Result<Builds> {
    let network = build_network(settings, public, at)?;
    let (service, config) = (service.clone(), build_config(settings, network));
    tokio::task::spawn_blocking(move || Builds::open(service, config)).await.context("set up builds")?
}

/// A refusal of the rules, with what to try.
pub(crate) fn hinted(e: portolan_service::Error) -> anyhow::Error {
    match e.hint.clone() {
        Some(hint) => anyhow::anyhow!("{}; hint: {hint}", e.message),
        None => e.into(),
    }
}

/// Open the metadata and read the key that what is sealed in it is sealed under. The key is
/// made for a database that is new, and for no other.
async fn open_sealed(settings: &Settings, path: &Path) -> anyhow::Result<(Meta, MasterKey)> {
    let known = bootstrap::read_master_key(&settings.data, settings.master_key_file.as_deref())?;
    let was_there = settings.database.is_none() && path.exists();
    let meta = open_meta(settings, path).await?;
    let master = match known {
        Some(master) => master,
        None => {
            let used = was_there
                || portolan_service::has_master_key(&meta).await.context("ask the database for its master key")?;
            bootstrap::make_master_key(&settings.data, used.then_some("the database is there"))?
        }
    };
    Ok((meta, master))
}

/// Open the blob store, and see that it can do what the settings ask of it.
async fn open_blobs(settings: &Settings) -> anyhow::Result<Arc<dyn Blobs>> {
    let mine = settings.clone();
    let opened = tokio::task::spawn_blocking(move || crate::storage::open(&mine)).await;
    let blobs = opened.context("open the blob store")??;
    if settings.blob_redirect {
        let lifetime = settings.blob_redirect_secs.secs();
        let url = blobs.signed_url(&portolan_types::Digest::of(b""), lifetime).await;
        if url.context("sign a URL of the bucket (setting blob_redirect)")?.is_none() {
            bail!("blob_redirect is set, but blobs are in the data folder: set blobs too, or neither");
        }
    }
    Ok(blobs)
}

/// Open the metadata: PostgreSQL when a setting names one, else SQLite at `path`.
pub(crate) async fn open_meta(settings: &Settings, path: &Path) -> anyhow::Result<Meta> {
    let Some(url) = &settings.database else {
        return Meta::open_sqlite(path).with_context(|| format!("open the database {}", path.display()));
    };
    let config = PostgresConfig {
        url: url.0.clone(),
        password_file: settings.database_password_file.clone(),
        readers: usize::try_from(settings.database_readers.0).unwrap_or(usize::MAX),
        wait: settings.database_wait_secs.secs(),
    };
    let opened = tokio::task::spawn_blocking(move || Meta::open_postgres(&config)).await;
    opened.context("open the database")?.context("open the database (setting database)")
}

/// One server at a time for each data folder. The kernel lets go of the lock when its
/// holder ends, however it ends.
pub(crate) async fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let mut waited = 0;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if waited < LOCK_WAIT_MILLIS_MAX => {
                tokio::time::sleep(Duration::from_millis(LOCK_RETRY_MILLIS)).await;
                waited += LOCK_RETRY_MILLIS;
            }
            Err(TryLockError::WouldBlock) => bail!(
                "another server is running on the data folder {}; stop it, or use another folder (--data DIR)",
                data.display()
            ),
            Err(TryLockError::Error(why)) => {
                return Err(why).with_context(|| format!("lock the data folder {}", data.display()));
            }
        }
    }
}

/// How long what may be garbage is left alone.
pub(crate) fn graces(settings: &Settings) -> Graces {
    Graces {
        link: settings.gc_link_grace_secs.secs(),
        unlink: settings.gc_unlink_grace_secs.secs(),
        touch: settings.gc_touch_grace_secs.secs(),
        upload_idle: settings.gc_upload_idle_secs.secs(),
    }
}

/// What each SKU allows.
fn tiers(settings: &Settings) -> Tiers {
    let azure = Tiers::default();
    Tiers {
        basic: settings.tier_basic.apply(azure.basic),
        standard: settings.tier_standard.apply(azure.standard),
        premium: settings.tier_premium.apply(azure.premium),
    }
}

/// A token from a file: its first line.
pub(crate) fn token_of(path: &Path) -> anyhow::Result<Secret<String>> {
    let at = || format!("{} (setting metrics_token_file)", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", at()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < METRICS_TOKEN_BYTES_MIN {
        bail!("{} holds no token of at least {METRICS_TOKEN_BYTES_MIN} characters", at());
    }
    Ok(Secret::new(token.to_owned()))
}

/// What build steps can reach. `public` is what clients call this server, `https` where it
/// listens. Takes a few milliseconds.
fn build_network(settings: &Settings, public: &str, https: SocketAddr) -> anyhow::Result<DefaultNetwork> {
    let own = || {
        let (name, port) = match public.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') => (name, port.parse().unwrap_or(https.port())),
            _ => (public, 443),
        };
        let local = |ip: IpAddr| match ip {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            other => other,
        };
        let gate = Gate { name: name.to_ascii_lowercase(), port, to: SocketAddr::new(local(https.ip()), https.port()) };
        DefaultNetwork::Own(Arc::new(Policy {
            allow: settings.build_network_allow.0.clone(),
            deny: settings.build_network_deny.0.clone(),
            gates: vec![gate],
            name_servers: Vec::new(),
        }))
    };
    Ok(match settings.build_network {
        BuildNetwork::Host => DefaultNetwork::Host,
        BuildNetwork::None => DefaultNetwork::None,
        wanted => match (network::probe(), wanted) {
            (Ok(()), _) => own(),
            (Err(reason), BuildNetwork::Own) => {
                bail!("build steps cannot have networks of their own (setting build_network): {reason}")
            }
            (Err(reason), _) => {
                tracing::warn!(%reason, "build steps cannot have networks of their own: they share the network of this machine (setting build_network)");
                DefaultNetwork::Host
            }
        },
    })
}

/// How builds are set up.
fn build_config(settings: &Settings, network: DefaultNetwork) -> BuildConfig {
    BuildConfig {
        state_dir: settings.data.join("build"),
        step_command: None,
        parallel_max: usize::try_from(settings.build_steps_parallel_max).ok().filter(|n| *n > 0),
        limits: StepLimits {
            memory_bytes_max: Some(settings.build_memory_bytes_max.0),
            pids_max: Some(u64::from(settings.build_pids_max.0)),
            cpus: (settings.build_cpus_max > 0).then(|| f64::from(settings.build_cpus_max)),
            secs_max: Some(RUN_SECS_MAX),
            output_bytes_max: Some(settings.build_output_bytes_max.0),
            io_bytes_per_sec_max: settings.build_io_bytes_per_sec_max.map(|max| max.0),
        },
        disk: DiskLimits {
            step_bytes_max: Some(settings.build_step_bytes_max.0),
            step_files_max: Some(u64::from(settings.build_step_files_max.0)),
            build_bytes_max: Some(settings.build_bytes_max.0),
            free_bytes_min: Some(settings.build_free_bytes_min.0),
        },
        network,
        emulators_dir: settings.build_emulators_dir.clone(),
        cache_bytes_max: settings.build_cache_bytes_max.0,
        egress: Egress { allow: settings.build_fetch_allow.0.clone(), private: settings.build_fetch_private },
        git_folder: settings.build_git_folder.clone(),
        fetch_ca_file: settings.build_fetch_ca_file.clone(),
        contexts_bytes_max: settings.build_contexts_bytes_max.0,
        snapshots_bytes_max: settings.build_snapshots_bytes_max.0,
        caches_bytes_max: settings.build_caches_bytes_max.0,
        allow_host_network: settings.build_allow_host_network,
        allow_insecure: settings.build_allow_insecure,
        user_namespace: settings.build_user_namespace.0,
        new_privileges: settings.build_new_privileges,
        runtime: settings.build_runtime.clone(),
    }
}

/// Host and port by which clients reach the server.
pub(crate) fn public_authority(settings: &Settings, https: SocketAddr) -> String {
    if let Some(address) = &settings.public_address {
        return address.as_str().to_owned();
    }
    let host = settings.domain.as_ref().map_or("localhost", |domain| domain.0.as_str());
    match https.port() {
        443 => host.to_owned(),
        port => format!("{host}:{port}"),
    }
}

/// The other ways to write the same server.
fn other_authorities(public: &str, https: SocketAddr, http: Option<SocketAddr>) -> Vec<String> {
    let mut all = Vec::new();
    for addr in std::iter::once(https).chain(http) {
        let port = addr.port();
        let ip = addr.ip();
        let own = (!ip.is_unspecified() && !ip.is_loopback()).then(|| addr.to_string());
        let names = [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        for name in names.into_iter().chain(own) {
            if name != public && !all.contains(&name) {
                all.push(name);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{DomainName, HostPort, Value};

    #[test]
    fn the_public_address_is_the_setting_the_domain_or_localhost() {
        let mut settings = Settings::defaults().unwrap();
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        assert_eq!(public_authority(&settings, at(8443)), "localhost:8443");
        settings.domain = Some(DomainName("reg.example".into()));
        assert_eq!(public_authority(&settings, at(8443)), "reg.example:8443");
        assert_eq!(public_authority(&settings, at(443)), "reg.example");
        settings.public_address = Some(HostPort::parse("lb.example:5000").unwrap());
        assert_eq!(public_authority(&settings, at(443)), "lb.example:5000");
    }

    #[tokio::test]
    async fn one_server_for_each_folder() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).await.unwrap();
        let why = lock(dir.path()).await.unwrap_err().to_string();
        assert!(why.contains("another server is running on the data folder"), "{why}");
        drop(held);
        lock(dir.path()).await.unwrap();
    }
}
