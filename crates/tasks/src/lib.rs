//! Runs of builds: the queue, the workers, the contexts they build from and the logs they
//! leave.
//!
//! The life of a run: a client stages a context ([`Tasks::stage_context`]) and orders a run
//! of it ([`Tasks::schedule`]), which is a row in `Queued`. A worker
//! ([`Tasks::start_workers`]) takes the row under a lease, hands it to the [`Runner`] and
//! keeps the lease while the runner works; the runner writes to the [`RunLog`] and gives up
//! when the [`CancelFlag`] is raised (somebody cancelled, time is up, the server stops). The
//! worker writes the last words into the log, then the final status into the row: whoever
//! sees a final status sees a whole log.
//!
//! A run whose worker died is found by its lease. Where several processes work on one
//! database it is queued again, and its log says so, as long as its image was not being
//! stored and it was not tried [`TasksConfig::attempts_max`] times. Else, and in a server
//! that is alone and had begun, it ends as `Error` and says why.
//!
//! Registries, and in them those who order runs, take turns (`store::meta::turn`); a run that
//! waits is told its place in its log.
//!
//! *Architecture invariant:* nothing here knows HTTP, how an image is built, or who may
//! order a run.

mod cancel;
mod context;
mod error;
pub mod filter;
mod log;
mod model;
mod options;
mod order;
mod place;
mod queue;
pub mod template;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_store::blob::{Blobs, BoxFuture};
use portolan_store::meta::Meta;
use portolan_types::{RunId, limits};
use tokio::sync::{Notify, watch};

pub use cancel::{CancelFlag, StopReason};
pub use context::{CONTEXT_SECS_MAX, StagedContext, context_key, is_uploaded};
pub use error::{Error, Result};
pub use log::{RunLog, log_key};
pub use model::{
    BuildArg, BuildSpec, ImageName, Job, Lease, NewRun, Outcome, OutputImage, Run, RunKind, RunRegistry, RunStatus,
};
pub use options::{BuildOptions, NamedSecret, NamedSource, SshAgent};
pub use order::Seal;
pub use portolan_store::meta::run::RunFilter;
pub use portolan_store::meta::turn::TurnLimits;
pub use queue::LogState;

/// Does the work of a run. `server` implements it with the build engine.
pub trait Runner: Send + Sync {
    /// Carry out `job`, telling `log` about it. When `cancel` is raised, stop within two
    /// seconds and answer [`Outcome::Stopped`]. Everything it made for itself is gone when
    /// it answers.
    fn run(&self, job: Job, log: RunLog, cancel: CancelFlag) -> BoxFuture<'_, Outcome>;
}

/// How runs are kept.
#[derive(Clone, Debug)]
pub struct TasksConfig {
    /// Runs that may wait at one time, in all registries.
    pub queue_max: u64,
    /// How long a worker's lease on a run lasts without being renewed, in seconds.
    pub lease_secs: u64,
    /// How long rows and logs of finished runs are kept unless archived, in seconds.
    pub keep_secs: u64,
    /// Bytes of one run's log.
    pub log_bytes_max: u64,
    /// Whether this process alone uses the database. Then every run that is under way when
    /// it starts has lost its worker, however long its lease.
    pub alone: bool,
    /// Of those that wait, how many may be of one registry.
    pub queue_registry_max: u64,
    /// Runs under way in all processes together, and of one registry; 0 is no limit.
    pub running: TurnLimits,
    /// How often a run is taken from the queue whose worker is lost, before it ends.
    pub attempts_max: u64,
    /// What people call this process.
    pub name: String,
}

impl Default for TasksConfig {
    fn default() -> TasksConfig {
        TasksConfig {
            queue_max: 1000,
            lease_secs: 30,
            keep_secs: 30 * 24 * 3600,
            log_bytes_max: limits::RUN_LOG_BYTES_MAX,
            alone: true,
            queue_registry_max: 500,
            running: TurnLimits::default(),
            attempts_max: 3,
            name: "this server".to_owned(),
        }
    }
}

/// All runs of this server. Share it in the `Arc` that [`Tasks::open`] gives.
pub struct Tasks {
    meta: Meta,
    blobs: Arc<dyn Blobs>,
    seal: Arc<dyn Seal>,
    config: TasksConfig,
    /// The name this process takes leases under.
    owner: String,
    /// Runs that this process works on.
    live: Mutex<HashMap<(i64, RunId), Live>>,
    /// Counts changes of runs in this process, for those who wait for one.
    changes: watch::Sender<u64>,
    /// Something was queued.
    work: Notify,
    /// No more runs are to be taken.
    stopping: watch::Sender<bool>,
    workers: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

#[derive(Clone)]
struct Live {
    cancel: CancelFlag,
    log: RunLog,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tasks({})", self.owner)
    }
}
