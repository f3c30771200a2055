//! What a run is: the order that was placed, where it stands, what came of it.

use std::fmt;
use std::str::FromStr;

use portolan_store::meta::{Meta, turn};
use portolan_types::{Digest, Platform, RegistryName, RepoName, RunId, Secret, Tag, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::BuildOptions;

/// Where a run stands. The words are ACR's (`RunStatus` of the ARM API).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// Waiting for a worker.
    Queued,
    /// A worker took it.
    Started,
    /// Its steps are being done.
    Running,
    /// Done, and everything it was to store is stored.
    Succeeded,
    /// A step or the Dockerfile was at fault.
    Failed,
    /// Somebody cancelled it.
    Canceled,
    /// The server was at fault, or stopped.
    Error,
    /// It took longer than it was allowed.
    Timeout,
}

impl RunStatus {
    /// Every status, in the order of a run's life.
    pub const ALL: [RunStatus; 8] = [
        RunStatus::Queued,
        RunStatus::Started,
        RunStatus::Running,
        RunStatus::Succeeded,
        RunStatus::Failed,
        RunStatus::Canceled,
        RunStatus::Error,
        RunStatus::Timeout,
    ];

    /// The word the ARM API and the database use.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Queued => "Queued",
            RunStatus::Started => "Started",
            RunStatus::Running => "Running",
            RunStatus::Succeeded => "Succeeded",
            RunStatus::Failed => "Failed",
            RunStatus::Canceled => "Canceled",
            RunStatus::Error => "Error",
            RunStatus::Timeout => "Timeout",
        }
    }

    /// Whether the run is over.
    pub fn is_final(self) -> bool {
        !matches!(self, RunStatus::Queued | RunStatus::Started | RunStatus::Running)
    }

    /// The value of the log's `Complete` metadata, by which `az acr build` decides its exit
    /// code; `None` while the run goes on.
    pub fn log_complete(self) -> Option<&'static str> {
        match self {
            RunStatus::Queued | RunStatus::Started | RunStatus::Running => None,
            RunStatus::Succeeded => Some("successful"),
            RunStatus::Failed => Some("failed"),
            RunStatus::Canceled => Some("canceled"),
            RunStatus::Error => Some("internalerror"),
            RunStatus::Timeout => Some("timedout"),
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunStatus {
    type Err = ();
    /// Case does not matter.
    fn from_str(text: &str) -> Result<RunStatus, ()> {
        RunStatus::ALL.into_iter().find(|s| s.as_str().eq_ignore_ascii_case(text)).ok_or(())
    }
}

/// What started a run. The words are ACR's (`RunType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// `az acr build`
    QuickBuild,
    /// `az acr run`
    QuickRun,
    /// A task's build, by trigger or by hand.
    AutoBuild,
    /// A task's steps, by trigger or by hand.
    AutoRun,
}

impl RunKind {
    /// The word the ARM API and the database use.
    pub fn as_str(self) -> &'static str {
        match self {
            RunKind::QuickBuild => "QuickBuild",
            RunKind::QuickRun => "QuickRun",
            RunKind::AutoBuild => "AutoBuild",
            RunKind::AutoRun => "AutoRun",
        }
    }
}

impl FromStr for RunKind {
    type Err = ();
    fn from_str(text: &str) -> Result<RunKind, ()> {
        [RunKind::QuickBuild, RunKind::QuickRun, RunKind::AutoBuild, RunKind::AutoRun]
            .into_iter()
            .find(|k| k.as_str() == text)
            .ok_or(())
    }
}

/// One build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildArg {
    /// The ARG it sets.
    pub name: String,
    /// Its value. The run's row keeps it sealed if `secret`, and no longer than until the
    /// run ends.
    pub value: Secret<String>,
    /// Whether the value must not be seen: not in the log, not in an answer.
    pub secret: bool,
}

/// A name an image is to get, without the registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageName {
    /// The repository.
    pub repo: RepoName,
    /// The tag.
    pub tag: Tag,
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repo, self.tag)
    }
}

/// What to build: the Docker build of a quick build or of a task's step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildSpec {
    /// The names the image gets. Empty: build, store nothing.
    pub images: Vec<ImageName>,
    /// Whether to store the image under those names.
    pub push: bool,
    /// Do every step anew.
    pub no_cache: bool,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The stage to stop at.
    pub target: Option<String>,
    /// Build arguments, in the order given.
    pub args: Vec<BuildArg>,
    /// The object that holds the packed context.
    pub context: String,
    /// For whom it reads and writes a registry whose roles are asked for each repository, by
    /// object id; none: for nobody.
    pub caller: Option<Uuid>,
    /// What else was asked for. The run's row keeps it sealed, and no longer than until the
    /// run ends.
    pub options: BuildOptions,
}

/// The registry a run belongs to, as far as runs need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRegistry {
    /// `registry.id`.
    pub id: i64,
    /// Its name.
    pub name: RegistryName,
    /// Its host, with the port if it has one.
    pub login_server: String,
}

/// An order for a run.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// The registry.
    pub registry: RunRegistry,
    /// What started it.
    pub kind: RunKind,
    /// The names of the image as they were ordered, with `{{.Run.…}}` in them; see
    /// [`crate::template`]. They become [`BuildSpec::images`].
    pub image_names: Vec<String>,
    /// What to build; `images` is ignored.
    pub build: BuildSpec,
    /// What to build for.
    pub platform: Platform,
    /// Processors asked for; reported, not enforced.
    pub cpu: u32,
    /// How long it may take; `None` for [`portolan_types::limits::RUN_SECS_DEFAULT`].
    pub timeout_secs: Option<u64>,
    /// Keep its row and log for ever.
    pub archived: bool,
    /// Who ordered it, as the queue tells people apart; empty for nobody in particular.
    pub asker: String,
}

/// An image that a run stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputImage {
    /// The repository.
    pub repo: RepoName,
    /// The tag.
    pub tag: Option<Tag>,
    /// The manifest's digest.
    pub digest: Digest,
}

/// A run as it stands.
#[derive(Clone, Debug)]
pub struct Run {
    /// `registry.id` of its registry.
    pub registry: i64,
    /// Its id, unique in the registry.
    pub id: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// What started it.
    pub kind: RunKind,
    /// When it was ordered.
    pub created: Timestamp,
    /// When a worker took it.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// When its row last changed.
    pub updated: Timestamp,
    /// What it builds for.
    pub platform: Platform,
    /// Processors asked for.
    pub cpu: u32,
    /// How long it may take.
    pub timeout_secs: u64,
    /// Kept for ever.
    pub archived: bool,
    /// The task it belongs to.
    pub task: Option<String>,
    /// Why it did not succeed, as a sentence.
    pub error: Option<String>,
    /// What it stored.
    pub images: Vec<OutputImage>,
}

/// A run that a worker has taken: everything a [`crate::Runner`] needs.
#[derive(Clone, Debug)]
pub struct Job {
    /// `registry.id`.
    pub registry: i64,
    /// The run.
    pub id: RunId,
    /// What to build.
    pub build: BuildSpec,
    /// What to build for.
    pub platform: Platform,
    /// When the worker took it.
    pub started: Timestamp,
    /// How long it may take from then on.
    pub timeout_secs: u64,
    /// The worker's hold on it.
    pub lease: Lease,
}

/// A worker's hold on a run.
#[derive(Clone)]
pub struct Lease {
    pub(crate) meta: Meta,
    pub(crate) registry: i64,
    pub(crate) seq: u64,
    pub(crate) owner: String,
}

impl Lease {
    /// Say that what the run made is going to be stored: from here on nobody repeats the run.
    /// False when it is not this worker's any more; then nothing must be stored.
    pub async fn storing(&self) -> Result<bool, crate::Error> {
        let Lease { registry, seq, owner, .. } = self.clone();
        self.meta.write(move |tx| turn::storing(tx, registry, seq, &owner).map_err(crate::Error::from)).await
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}/{})", self.registry, self.seq)
    }
}

/// How a run ended, as its [`crate::Runner`] saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; these images were stored.
    Succeeded(Vec<OutputImage>),
    /// The order was at fault: the Dockerfile, a step, a name. A sentence for the caller.
    Failed(String),
    /// The server was at fault. A sentence for the caller.
    Error(String),
    /// It stopped because its [`crate::CancelFlag`] was raised.
    Stopped,
}
