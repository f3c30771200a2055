//! Running one `RUN` step, shut off from the host.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::user::User;

/// How steps are run on this machine.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// Program and arguments of the step process, which calls [`step_main`]. The server's
    /// is `/proc/self/exe build-run`.
    pub step_command: Vec<OsString>,
    /// A folder of the engine's own, for bundles and generated files.
    pub state_dir: PathBuf,
}

/// What one step may use. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepLimits {
    /// Memory of all its processes together, bytes, page cache included.
    pub memory_bytes_max: Option<u64>,
    /// Processes and threads at one time.
    pub pids_max: Option<u64>,
    /// Processor time per second, in processors: `1.5` is one and a half.
    pub cpus: Option<f64>,
    /// Wall-clock time, seconds.
    pub secs_max: Option<u64>,
}

/// Something mounted into a step besides its root file system.
#[derive(Clone, Debug)]
pub enum StepMount {
    /// A file or directory of the engine's (a cache, a context, another stage).
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path inside the step.
        target: String,
        /// Whether the step may write to it.
        writable: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Absolute path inside the step.
        target: String,
        /// How much it may hold.
        bytes_max: Option<u64>,
    },
}

/// One step.
#[derive(Clone, Debug)]
pub struct StepSpec<'a> {
    /// The root file system, mounted and writable.
    pub root: &'a Path,
    /// Program and arguments; the program is sought along the `PATH` of `env`.
    pub argv: Vec<String>,
    /// Environment; `PATH` and `HOME` are added where missing.
    pub env: Vec<(String, String)>,
    /// Absolute working directory inside the root; made when missing.
    pub cwd: String,
    /// Who it runs as.
    pub user: User,
    /// What it may use.
    pub limits: StepLimits,
    /// What else it sees.
    pub mounts: Vec<StepMount>,
    /// Whether it shares the host's network; without it there is only a loopback device.
    pub network: bool,
}

/// Where a piece of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit status; 128 + n when signal n ended it; 126 and 127 when the program could
    /// not be run or found, as a shell says.
    pub code: i32,
    /// Whether the memory limit had a process killed. Then `code` is usually 137.
    pub out_of_memory: bool,
}

/// Why a step did not end of itself.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// [`Cancel`] was raised; every process of the step is gone.
    #[error("the build was cancelled")]
    Cancelled,
    /// The time limit was reached; every process of the step is gone.
    #[error("the step ran longer than {} s and was stopped", .0.as_secs())]
    TimedOut(Duration),
    /// The sandbox could not be made.
    #[error("cannot start the step: {0}")]
    Start(String),
    /// The machine failed.
    #[error("run the step: {0}")]
    Io(#[from] io::Error),
}

/// Run `step` and wait for its end. `out` gets the output as it comes, on this thread.
pub fn run(
    config: &ExecConfig,
    step: &StepSpec<'_>,
    out: &(dyn Fn(Stream, &[u8]) + Sync),
    cancel: &Cancel,
) -> Result<Exit, ExecError> {
    let _ = (config, step, out, cancel);
    Err(ExecError::Start("not here yet".to_owned()))
}

/// The step process: reads a step from standard input, runs it, reports back. Call it
/// before anything else has started a thread; returns the process's exit status.
pub fn step_main() -> i32 {
    70
}

/// Remove what a killed server left under `state_dir`: bundles, cgroups.
pub fn sweep(state_dir: &Path) -> io::Result<()> {
    let _ = state_dir;
    Ok(())
}
