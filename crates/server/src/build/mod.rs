//! Building images: the engine's ports over the store, base images from this and other
//! registries, and the [`Runner`](portolan_tasks::Runner) that carries out a run.
//!
//! The life of a build run ([`run`]): the context is read into a file of its own, the
//! engine builds on threads that may block, its layers and configuration go straight into
//! the blob store, and at the end the repository is given them ([`Service::link_build_blobs`])
//! and the manifest under every tag. There is no push. The file has no name: it goes
//! when the run ends, however it ends.

mod attest;
mod cache;
mod check;
mod content;
mod door;
mod fetched;
mod git;
mod images;
mod lfs;
mod meter;
mod platforms;
mod remote;
mod run;
mod source;
pub(crate) mod ssh;
mod steps;
pub(crate) mod stock;
mod tell;
mod upstream;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use portolan_api::egress::Egress;
use portolan_api::registry::RegistryClient;
use portolan_api::web::WebClient;
use portolan_builder::{DefaultNetwork, DiskLimits, Engine, EngineConfig, StepLimits, UserNamespace};
use portolan_service::Service;
use portolan_types::Secret;
use tokio::runtime::Handle;

/// How builds are set up.
#[derive(Clone, Debug)]
pub struct BuildConfig {
    /// A folder of the builds' own: snapshots, contexts.
    pub state_dir: PathBuf,
    /// Program and arguments of the process that a step runs in; `None` for this program's
    /// own `build-run`.
    pub step_command: Option<Vec<OsString>>,
    /// Steps of one build that run at once; `None` for the engine's usual number.
    pub parallel_max: Option<usize>,
    /// What one step may use.
    pub limits: StepLimits,
    /// Where emulators of other processors are.
    pub emulators_dir: PathBuf,
    /// What steps may take of the disk.
    pub disk: DiskLimits,
    /// What steps can reach.
    pub network: DefaultNetwork,
    /// Bytes of content that step records may keep in the store.
    pub cache_bytes_max: u64,
    /// Where builds may have things fetched from.
    pub egress: Egress,
    /// Where repositories on this machine may be, for `file://` addresses.
    pub git_folder: Option<PathBuf>,
    /// Certificates (PEM) to trust, beside the system's, where builds fetch from.
    pub fetch_ca_file: Option<PathBuf>,
    /// Bytes of build contexts' files to keep for the next build from the same folder.
    pub contexts_bytes_max: u64,
    /// Bytes of unpacked layers and of step results to keep ready under `state_dir`.
    pub snapshots_bytes_max: u64,
    /// Bytes of the folders of cache mounts.
    pub caches_bytes_max: u64,
    /// Whether `RUN --network=host` is allowed.
    pub allow_host_network: bool,
    /// Whether `RUN --security=insecure` is allowed.
    pub allow_insecure: bool,
    /// Whether steps get user namespaces.
    pub user_namespace: UserNamespace,
    /// Whether programs in steps may get rights that who starts them has not.
    pub new_privileges: bool,
    /// The OCI runtime of steps; `None` for the engine's own.
    pub runtime: Option<PathBuf>,
}

/// How often snapshots are looked through for ones to remove.
const EVICT_EVERY: Duration = Duration::from_secs(15 * 60);

/// Carries out build runs. One per server.
pub struct Builds {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    /// Records of steps, of all registries.
    steps: Arc<steps::StoreSteps>,
    runs_dir: PathBuf,
    /// What earlier contexts left.
    stock: Arc<stock::Shelves>,
    /// Where clients answer for their ssh agents.
    relays: Arc<ssh::Relays>,
}

/// What every run of a server uses.
struct Shared {
    service: Arc<Service>,
    runtime: Handle,
    /// Clients of other registries, by host.
    upstreams: Mutex<HashMap<String, RegistryClient>>,
    /// Where builds may have things fetched from.
    egress: Arc<Egress>,
    git_folder: Option<PathBuf>,
    fetch_ca_file: Option<PathBuf>,
    /// What is in it.
    fetch_ca: Option<Vec<u8>>,
    web: WebClient,
    /// Downloads that are kept.
    fetched_dir: PathBuf,
}

impl Builds {
    /// Set builds up over an open store. Call it on the runtime that runs will use. Blocks
    /// while it sweeps what a killed server left.
    pub fn open(service: Arc<Service>, config: BuildConfig) -> anyhow::Result<Builds> {
        let runtime = Handle::current();
        let runs_dir = config.state_dir.join("runs");
        sweep(&runs_dir).with_context(|| format!("clear {}", runs_dir.display()))?;
        let engine_dir = config.state_dir.join("engine");
        std::fs::create_dir_all(&engine_dir).with_context(|| format!("make {}", engine_dir.display()))?;
        let mut engine = EngineConfig::new(engine_dir);
        engine.limits = config.limits;
        engine.emulators_dir = config.emulators_dir;
        engine.disk = config.disk;
        engine.network = config.network;
        engine.caches_bytes_max = config.caches_bytes_max;
        engine.allow_host_network = config.allow_host_network;
        engine.allow_insecure = config.allow_insecure;
        engine.user_namespace = config.user_namespace;
        engine.new_privileges = config.new_privileges;
        engine.runtime = config.runtime;
        // The same on every server: they share the step cache.
        engine.key_salt = Secret::new(service.authority.hmac("build step keys", b"secret arguments"));
        if let Some(parallel) = config.parallel_max {
            engine.parallel_max = parallel;
        }
        if let Some(command) = config.step_command {
            engine.step_command = command;
        }
        let content = Arc::new(content::StoreContent::new(service.blobs.clone(), runtime.clone()));
        let steps = steps::StoreSteps::open(&service, config.cache_bytes_max);
        let engine = Arc::new(
            Engine::open(engine, content, Arc::new(NoImages), Arc::new(NoSteps)).context("open the build engine")?,
        );
        tokio::spawn(evict(Arc::downgrade(&engine), config.snapshots_bytes_max));
        let egress = Arc::new(config.egress);
        let fetch_ca = config.fetch_ca_file.as_ref().map(|file| {
            std::fs::read(file).with_context(|| format!("read {} (setting build_fetch_ca_file)", file.display()))
        });
        let fetch_ca = fetch_ca.transpose()?;
        let web = WebClient::new(egress.clone(), fetch_ca.as_deref()).context("set up downloads for builds")?;
        let stock = stock::Shelves::open(config.state_dir.join("stock"), config.contexts_bytes_max);
        let stock = Arc::new(stock.context("open what earlier build contexts left")?);
        stock
            .retain(&|id| service.registry_by_id(id).is_some())
            .context("drop contexts of registries that are gone")?;
        Ok(Builds {
            shared: Arc::new(Shared {
                service,
                runtime,
                upstreams: Mutex::default(),
                egress,
                git_folder: config.git_folder,
                fetch_ca_file: config.fetch_ca_file,
                fetch_ca,
                web,
                fetched_dir: config.state_dir.join("fetched"),
            }),
            engine,
            steps,
            runs_dir,
            stock,
            relays: Arc::default(),
        })
    }
}

impl Builds {
    /// Where clients answer for the ssh agents of runs that are carried out here.
    pub(crate) fn relays(&self) -> Arc<ssh::Relays> {
        self.relays.clone()
    }

    /// What contexts left, if clients may rely on it: the worker that gets a run must have it,
    /// and only a server that is alone on its database knows who that will be.
    pub(crate) fn stock_to_offer(&self) -> Option<Arc<stock::Shelves>> {
        let offered = !self.shared.service.meta.is_shared() && self.stock.keeps_something();
        offered.then(|| self.stock.clone())
    }
}

/// Make an empty folder for runs. What a killed server left in it may be millions of files:
/// it is put aside and removed while the server starts.
fn sweep(dir: &Path) -> std::io::Result<()> {
    let aside = dir.with_extension("old");
    if !aside.exists() && dir.exists() {
        std::fs::rename(dir, &aside)?;
    }
    std::thread::spawn(move || match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "remove what earlier runs left");
        }
        _ => {}
    });
    // Only when the last start was cut short, too, is there anything in it still.
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::fs::create_dir_all(dir)
}

/// Keep the engine's snapshots within their limit, for as long as there is an engine.
async fn evict(engine: Weak<Engine>, bytes_max: u64) {
    let mut timer = tokio::time::interval(EVICT_EVERY);
    loop {
        timer.tick().await;
        let Some(engine) = engine.upgrade() else { return };
        let done = tokio::task::spawn_blocking(move || engine.evict(bytes_max)).await;
        match done {
            Ok(Ok(0)) => {}
            Ok(Ok(bytes)) => tracing::info!(bytes, "removed build snapshots"),
            Ok(Err(error)) => tracing::warn!(%error, "remove build snapshots"),
            Err(error) => tracing::error!(%error, "remove build snapshots"),
        }
    }
}

/// Every build brings its registry's: [`steps::RegistrySteps`].
struct NoSteps;

impl portolan_builder::ports::StepCache for NoSteps {
    fn get(&self, _: &portolan_types::Digest) -> Option<Vec<u8>> {
        None
    }

    fn put(&self, _: &portolan_types::Digest, _: &[u8]) {}
}

/// What an order says of caches and attestations, looked at before a run is made of it. The
/// error is a sentence that names the option.
pub(crate) fn check_options(options: &portolan_tasks::BuildOptions) -> Result<(), String> {
    cache::Wishes::read(options)?;
    attest::Wishes::read(options)?;
    Ok(())
}

pub(crate) use remote::check_named;

/// Whether an address is one that builds can fetch a context from. The error says what is
/// wrong and repeats nothing of it.
pub(crate) fn check_source(address: &str) -> Result<(), String> {
    remote::Address::read(address).map(drop)
}

/// Every build brings its own: [`images::RunImages`].
struct NoImages;

impl portolan_builder::ports::Images for NoImages {
    fn resolve(
        &self,
        image: &portolan_types::ImageRef,
        _: &portolan_types::Platform,
        _: &dyn Fn(&str),
    ) -> Result<portolan_builder::ports::BaseImage, String> {
        Err(format!("{image}: this build has no source of images"))
    }
}
