//! The build engine: a Dockerfile and a context in, an image in the blob store out.
//!
//! `parse → instruct → graph → solve → { exec, copy } → snapshot → diff → export`, arrows
//! only to the right.
//!
//! The life of a build: [`Engine::build`] parses the Dockerfile into instructions, cuts them
//! into stages and keeps the stages that the target needs. Every stage is then *evaluated*,
//! which needs no file system: variables are expanded, the image configuration takes shape,
//! and what is left is a list of steps (copy, run, make a directory), each with a cache key.
//! Steps with a record in the [`ports::StepCache`] are done already. What the missing ones
//! stand on is materialised as snapshots, stages run side by side, layers are written in the
//! background while the next step runs, and at the end the configuration and the manifest
//! are put together.
//!
//! *Architecture invariant:* the engine never sees a repository, a registry or a network; it
//! reads and writes digests through [`ports`].

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portolan_types::oci::Descriptor;
use portolan_types::{Digest, Platform, Secret, Timestamp};

mod agent;
pub mod cache;
mod caches;
pub mod cancel;
pub mod context;
pub mod copy;
pub mod diff;
pub mod error;
pub mod event;
pub mod exec;
mod expand;
mod fsys;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod graph;
mod instruct;
pub mod lint;
mod named;
pub mod needs;
mod parse;
pub mod ports;
pub mod remote;
pub mod render;
pub mod rootless;
pub mod sbom;
pub mod snapshot;
mod solve;
mod tarball;
mod tree;
mod unpack;
pub mod user;

pub use cancel::Cancel;
pub use context::BuildContext;
pub use error::{BuildError, ErrorKind};
pub use event::Event;
pub use exec::{DefaultNetwork, DiskLimits, StepLimits, UserNs};
pub use named::NamedContext;

/// Platforms of one build.
pub const PLATFORMS_MAX: usize = 16;

/// What the folders of cache mounts may take up unless it is said otherwise.
const CACHES_BYTES_USUAL: u64 = 10 << 30;

/// Whether steps get user namespaces, in which their root is nobody on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserNamespace {
    /// Where the machine can; where it cannot, the reason is in the log of the server.
    #[default]
    Auto,
    /// An engine does not open where the machine cannot.
    Required,
    /// No.
    Off,
}

/// How an engine is set up. See [`EngineConfig::new`] for the usual values.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// A folder of the engine's own: snapshots, bundles of running steps. On a file system
    /// that overlayfs can use as an upper layer.
    pub state_dir: PathBuf,
    /// Program and arguments of the step process, which calls [`exec::step_main`].
    pub step_command: Vec<OsString>,
    /// How many steps of one build may run at once; at least 1 is used. Steps wait more than
    /// they compute (downloads, tests that sleep), so the usual value is more than the
    /// processors; see [`EngineConfig::parallel_usual`].
    pub parallel_max: usize,
    /// What one step may use.
    pub limits: StepLimits,
    /// What steps may take of the disk.
    pub disk: DiskLimits,
    /// What steps can reach, where the Dockerfile does not say.
    pub network: DefaultNetwork,
    /// Where QEMU's static user-mode emulators are, for steps on another processor's images.
    pub emulators_dir: PathBuf,
    /// Bytes that the folders of cache mounts may take up, of all tenants together.
    pub caches_bytes_max: u64,
    /// Whether `RUN --network=host` is allowed.
    pub allow_host_network: bool,
    /// Whether `RUN --security=insecure` is allowed. Whoever may build can then do anything
    /// to the machine.
    pub allow_insecure: bool,
    /// Whether steps get user namespaces.
    pub user_namespace: UserNamespace,
    /// Whether a step's programs may get rights that who starts them has not (`sudo`).
    pub new_privileges: bool,
    /// An OCI runtime (`runc`, `crun`) that makes the sandboxes of steps; `None` for the
    /// engine's own.
    pub runtime: Option<PathBuf>,
    /// What nobody outside knows: it goes into the keys of steps that depend on secret build
    /// arguments, so that no key tells anything about one. Servers that share a step cache
    /// share it.
    pub key_salt: Secret<[u8; 32]>,
}

impl EngineConfig {
    /// The engine under `state_dir`, with this very program as the step process
    /// (`/proc/self/exe build-run`) and no limits for steps.
    pub fn new(state_dir: PathBuf) -> EngineConfig {
        EngineConfig {
            state_dir,
            step_command: vec!["/proc/self/exe".into(), "build-run".into()],
            parallel_max: EngineConfig::parallel_usual(),
            limits: StepLimits::default(),
            disk: DiskLimits::default(),
            network: DefaultNetwork::Host,
            emulators_dir: "/usr/bin".into(),
            caches_bytes_max: CACHES_BYTES_USUAL,
            allow_host_network: false,
            allow_insecure: false,
            user_namespace: UserNamespace::default(),
            new_privileges: false,
            runtime: None,
            key_salt: Secret::new([0; 32]),
        }
    }

    /// Two steps for each processor, but at least 8 and at most 64.
    pub fn parallel_usual() -> usize {
        std::thread::available_parallelism().map_or(8, |n| (2 * n.get()).clamp(8, 64))
    }
}

/// One image to build.
#[derive(Clone)]
pub struct BuildRequest {
    /// The context.
    pub context: BuildContext,
    /// The Dockerfile's text.
    pub dockerfile: Vec<u8>,
    /// What to call it in errors, and the path in the context beside which
    /// `<name>.dockerignore` is looked for.
    pub dockerfile_name: String,
    /// The text of the ignore file. `None`: `<dockerfile_name>.dockerignore` in the context,
    /// else `.dockerignore`, else nothing is ignored.
    pub ignore: Option<String>,
    /// `--build-arg` values; the last of a name counts.
    pub build_args: Vec<(String, String)>,
    /// Names among `build_args` whose values never reach the log or the image's history.
    pub secret_args: Vec<String>,
    /// `--target`: a stage's name or number; the last stage when absent.
    pub target: Option<String>,
    /// What the image is to run on.
    pub platform: Platform,
    /// Run every step, whatever was done before. Results are kept for later builds.
    pub no_cache: bool,
    /// The time to write into the image for what this build makes.
    pub created: Timestamp,
    /// Labels to put on the image, over the Dockerfile's.
    pub labels: Vec<(String, String)>,
    /// Labels of what is built, where neither the Dockerfile nor `labels` sets them: where
    /// the sources came from. One that only the base image has is the base's, and gives way.
    pub origin_labels: Vec<(String, String)>,
    /// What `RUN --mount=type=secret` may see; the last of an id counts.
    pub secrets: Vec<BuildSecret>,
    /// What `RUN --mount=type=ssh` may use; the last of an id counts.
    pub ssh: Vec<SshForward>,
    /// Who fetches what `ADD` names that is elsewhere. `None`: nobody, and such an `ADD` fails.
    pub remotes: Option<Arc<dyn ports::Remotes>>,
    /// What names mean in this build instead of stages and images (`--build-context`).
    pub named_contexts: Vec<(String, NamedContext)>,
    /// Whose build this is. Builds of different tenants share no work and no results.
    pub tenant: String,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970: no time in the image is later, and the
    /// image's own times are this one, so that building again gives the same bytes. A build
    /// argument of this name means the same.
    pub source_date_epoch: Option<u64>,
    /// What to make for other builders' caches.
    pub cache_export: CacheExport,
    /// What to find out about the image.
    pub attest: Attest,
    /// Annotations for the image's manifest, which then is OCI's: Docker's has none. The last
    /// of a key counts.
    pub annotations: Vec<Annotation>,
    /// Write OCI's media types also where Docker's would do: for an image that gets into an
    /// OCI index.
    pub oci_types: bool,
}

/// What a build makes for the caches of other builders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheExport {
    /// [`Built::cache`]: `Some(true)` with the steps of all stages that were done
    /// (`mode=max`), `Some(false)` with those whose layers are in the image.
    pub registry: Option<bool>,
    /// The records of the image's own layers in its configuration (`type=inline`).
    pub inline: bool,
}

/// An annotation of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Whose image it is for; `None`: every platform's.
    pub platform: Option<Platform>,
    /// Its key: `org.opencontainers.image.source`.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What to find out about an image beside building it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attest {
    /// What packages are in it: [`Built::packages`].
    pub sbom: bool,
}

impl BuildRequest {
    /// A build of `dockerfile` from `context` for `platform`, with nothing else asked for.
    pub fn new(context: BuildContext, dockerfile: Vec<u8>, platform: Platform, created: Timestamp) -> BuildRequest {
        BuildRequest {
            context,
            dockerfile,
            dockerfile_name: "Dockerfile".to_owned(),
            ignore: None,
            build_args: Vec::new(),
            secret_args: Vec::new(),
            target: None,
            platform,
            no_cache: false,
            created,
            labels: Vec::new(),
            origin_labels: Vec::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            remotes: None,
            named_contexts: Vec::new(),
            tenant: String::new(),
            source_date_epoch: None,
            cache_export: CacheExport::default(),
            attest: Attest::default(),
            annotations: Vec::new(),
            oci_types: false,
        }
    }

    /// Values that must be seen nowhere: of secret build arguments and of secrets.
    pub(crate) fn confidential(&self) -> impl Iterator<Item = &[u8]> {
        let args = self.build_args.iter().filter(|(name, _)| self.secret_args.contains(name));
        let args = args.map(|(_, value)| value.as_bytes());
        args.chain(self.secrets.iter().map(|secret| secret.value.expose().as_slice()))
    }

    /// The `SOURCE_DATE_EPOCH` that holds, as far as it is one: a build fails over another.
    pub fn epoch(&self) -> Option<Timestamp> {
        self.epoch_secs().ok().flatten().map(Timestamp::from_unix_secs)
    }

    /// The `SOURCE_DATE_EPOCH` that holds: the option's, else the build argument's.
    pub(crate) fn epoch_secs(&self) -> Result<Option<i64>, BuildError> {
        /// The last second of the year 9999: what RFC 3339 can write.
        const EPOCH_SECS_MAX: u64 = 253_402_300_799;
        let given = self.build_args.iter().rev().find(|(name, _)| name == "SOURCE_DATE_EPOCH");
        let secs = match (self.source_date_epoch, given) {
            (Some(secs), _) => Some(secs),
            (None, Some((_, text))) if !text.is_empty() => Some(text.parse::<u64>().map_err(|_| {
                BuildError::new(ErrorKind::Dockerfile, "SOURCE_DATE_EPOCH is not a number of seconds since 1970")
            })?),
            _ => None,
        };
        match secs {
            None => Ok(None),
            Some(secs) if secs <= EPOCH_SECS_MAX => Ok(i64::try_from(secs).ok()),
            Some(_) => Err(BuildError::new(ErrorKind::Dockerfile, "SOURCE_DATE_EPOCH lies beyond the year 9999")),
        }
    }
}

/// A secret that a step may see. It is never written to a disk, and not part of any key.
#[derive(Clone, Debug)]
pub struct BuildSecret {
    /// What the Dockerfile calls it.
    pub id: String,
    /// Its bytes.
    pub value: Secret<Vec<u8>>,
}

/// An ssh agent that a step may use.
#[derive(Clone)]
pub struct SshForward {
    /// What the Dockerfile calls it; `default` where it says nothing.
    pub id: String,
    /// Who lists keys and signs.
    pub agent: Arc<dyn ports::SshAgent>,
}

impl fmt::Debug for BuildRequest {
    /// Without the Dockerfile's text and without the values of arguments, which may be
    /// secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<&str> = self.build_args.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("BuildRequest")
            .field("context", &self.context)
            .field("dockerfile_name", &self.dockerfile_name)
            .field("build_args", &args)
            .field("target", &self.target)
            .field("platform", &self.platform)
            .field("no_cache", &self.no_cache)
            .finish_non_exhaustive()
    }
}

/// A built image. The configuration and all layers are durable in [`ports::Content`]; the
/// manifest is the caller's to store.
#[derive(Clone, Debug)]
pub struct Built {
    /// What it runs on, as it was asked for.
    pub platform: Platform,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The images that were built on or copied from: as the Dockerfile names them, with the
    /// manifest that was used. In the order of first use, each once.
    pub base_images: Vec<(String, Digest)>,
    /// What [`CacheExport::registry`] asked for.
    pub cache: Option<cache::Exported>,
    /// What [`Attest::sbom`] asked for.
    pub packages: Option<sbom::Inventory>,
}

/// Builds images. One per process and state folder; builds may run side by side.
pub struct Engine {
    config: EngineConfig,
    content: Arc<dyn ports::Content>,
    images: Arc<dyn ports::Images>,
    cache: Arc<dyn ports::StepCache>,
    imported: Option<Arc<dyn ports::StepCache>>,
    snapshots: Arc<snapshot::Store>,
    /// The user namespaces of steps, if they get any.
    userns: Option<Arc<UserNs>>,
    caches: caches::Caches,
    folders: Arc<AtomicU64>,
    /// Work that builds share while it goes on.
    flights: Arc<solve::Shared>,
}

impl Engine {
    /// Open the engine's state, sweeping what a killed process left there.
    pub fn open(
        config: EngineConfig,
        content: Arc<dyn ports::Content>,
        images: Arc<dyn ports::Images>,
        cache: Arc<dyn ports::StepCache>,
    ) -> io::Result<Engine> {
        std::fs::create_dir_all(&config.state_dir)?;
        let snapshots = Arc::new(snapshot::Store::open(&config.state_dir.join("snapshots"), content.clone())?);
        let caches = caches::Caches::open(&config.state_dir.join("caches"), config.caches_bytes_max)?;
        let engine = Engine {
            config,
            content,
            images,
            cache,
            imported: None,
            snapshots,
            userns: None,
            caches,
            folders: Arc::default(),
            flights: Arc::default(),
        };
        // Behind the snapshots' lock, so nobody else is using these.
        exec::sweep(&engine.steps_dir())?;
        match std::fs::remove_dir_all(engine.scratch_root()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(engine.steps_dir())?;
        engine.settle_user_namespaces()
    }

    /// Have steps run in user namespaces, if that is wanted and this machine can: tried out.
    fn settle_user_namespaces(mut self) -> io::Result<Engine> {
        if self.config.user_namespace == UserNamespace::Off {
            return Ok(self);
        }
        let tried = UserNs::open(&self.config.step_command).map_err(io::Error::other).and_then(|ids| {
            let ids = Arc::new(ids);
            self.snapshots.serve_steps(ids.clone())?;
            let root = self.snapshots.begin_for_step(&snapshot::Chain::empty())?;
            let config = exec::ExecConfig { userns: Some(ids.clone()), ..self.exec_config() };
            exec::try_sandbox(&config, root.root())?;
            Ok(ids)
        });
        match tried {
            Ok(ids) => self.userns = Some(ids),
            Err(error) if self.config.user_namespace == UserNamespace::Required => {
                return Err(io::Error::new(error.kind(), format!("user namespaces for build steps: {error}")));
            }
            Err(error) => {
                tracing::warn!(%error, "no user namespaces for build steps: root in a step is root on this machine, but for its capabilities");
            }
        }
        Ok(self)
    }

    /// How steps are run.
    fn exec_config(&self) -> exec::ExecConfig {
        exec::ExecConfig {
            userns: self.userns.clone(),
            new_privileges: self.config.new_privileges,
            runtime: self.config.runtime.clone(),
            network: self.config.network.clone(),
            ..exec::ExecConfig::new(self.config.step_command.clone(), self.steps_dir())
        }
    }

    /// The same engine, sharing all its state, with base images from elsewhere. A server
    /// makes one for each build: what `FROM` may read depends on the registry that builds.
    /// Cheap.
    pub fn with_images(&self, images: Arc<dyn ports::Images>) -> Engine {
        Engine {
            config: self.config.clone(),
            content: self.content.clone(),
            images,
            cache: self.cache.clone(),
            imported: self.imported.clone(),
            snapshots: self.snapshots.clone(),
            userns: self.userns.clone(),
            caches: self.caches.clone(),
            folders: self.folders.clone(),
            flights: self.flights.clone(),
        }
    }

    /// The same engine for one build: its base images, its registry's step records, and
    /// records that came from elsewhere (`--cache-from`), which count where the registry has
    /// none. Cheap.
    pub fn for_build(
        &self,
        images: Arc<dyn ports::Images>,
        cache: Arc<dyn ports::StepCache>,
        imported: Option<Arc<dyn ports::StepCache>>,
    ) -> Engine {
        Engine { cache, imported, ..self.with_images(images) }
    }

    /// Build an image. Blocks; `events` is called from several threads. Raising `cancel`
    /// makes it return soon, with every process of it gone.
    pub fn build(
        &self,
        request: &BuildRequest,
        events: &(dyn Fn(Event) + Sync),
        cancel: &Cancel,
    ) -> Result<Built, BuildError> {
        let mut built = self.build_all(request, std::slice::from_ref(&request.platform), events, cancel)?;
        built.pop().ok_or_else(|| BuildError::new(ErrorKind::Internal, "a build came to nothing"))
    }

    /// Build an image for each of `platforms`, side by side; `request.platform` is not looked
    /// at. What is the same for several of them, such as a stage of `$BUILDPLATFORM`, is done
    /// once. The answers are in the order of `platforms`; when one fails, all do.
    ///
    /// Errors: as [`Engine::build`], and for no or more than [`PLATFORMS_MAX`] platforms.
    pub fn build_all(
        &self,
        request: &BuildRequest,
        platforms: &[Platform],
        events: &(dyn Fn(Event) + Sync),
        cancel: &Cancel,
    ) -> Result<Vec<Built>, BuildError> {
        solve::build(self, request, platforms, events, cancel)
    }

    /// Run the build checks and nothing else: base images are looked up, nothing is copied or
    /// run and the context is not looked at, but for its ignore file.
    pub fn check(
        &self,
        request: &BuildRequest,
        events: &(dyn Fn(Event) + Sync),
        cancel: &Cancel,
    ) -> Result<Vec<lint::Warning>, BuildError> {
        solve::check(self, request, events, cancel)
    }

    /// Remove the least recently used snapshots until at most `bytes_max` bytes are left.
    /// What is removed is unpacked or run again when it is needed. Reads every directory of
    /// the snapshots: not for every build.
    pub fn evict(&self, bytes_max: u64) -> io::Result<u64> {
        self.snapshots.evict(bytes_max)
    }

    /// Where the executor keeps what running steps need.
    fn steps_dir(&self) -> PathBuf {
        self.config.state_dir.join("steps")
    }

    fn scratch_root(&self) -> PathBuf {
        self.config.state_dir.join("scratch")
    }

    /// A folder that nobody else uses; not made yet.
    fn scratch_dir(&self) -> PathBuf {
        self.scratch_root().join(self.folders.fetch_add(1, Ordering::Relaxed).to_string())
    }
}
