//! Running one `RUN` step, shut off from the host.
//!
//! A step sees its own root file system and nothing of the host's, its own processes, host
//! name and shared memory, docker's devices and capabilities; it shares the network unless
//! told not to. The engine makes the cgroup and looks after output, time and cancelling; a
//! *step process* ([`step_main`]), the engine's own program started again, makes the sandbox
//! through libcontainer. When the step's first process ends, or the step is cancelled, or the
//! step process or the engine dies, the kernel ends every process of the step.

mod builtin;
mod cgroup;
mod disk;
mod emulate;
pub mod network;
mod runc;
mod seccomp;
mod spec;
mod step;
mod stubs;
mod userns;
mod wire;

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portolan_types::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub use disk::{BuildDisk, DiskLimits, Excess};
pub use emulate::{Emulator, emulator_for};
pub use step::step_main;
pub use userns::UserNs;
pub(crate) use userns::{become_root, idmap, is_whole, unshare};
pub(crate) use wire::{Order, Report, receive, send};

use self::cgroup::Cgroup;
use self::stubs::Stubs;
use self::wire::{GO, Job, JobMount, KILL, MAPPED};
use crate::cancel::Cancel;
use crate::fsys;
use crate::user::User;

/// Output is passed on in pieces of at most this many bytes.
const OUTPUT_BYTES: usize = 64 * 1024;
/// How long a killed step may take to be gone before the step process is killed as well.
const KILL_GRACE: Duration = Duration::from_millis(1_500);
/// The host's list of name servers, copied into a step.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The largest copy made of it.
const RESOLV_CONF_BYTES_MAX: u64 = 64 * 1024;
/// How long the trial of a sandbox may take, seconds.
const TRIAL_SECS_MAX: u64 = 20;
/// What a step's machine is called.
const HOSTNAME: &str = "build";
/// The `PATH` of a step whose environment has none. Source: moby `DefaultPathEnvUnix`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How steps are run on this machine.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// Program and arguments of the step process, which calls [`step_main`]. The server's
    /// is `/proc/self/exe build-run`.
    pub step_command: Vec<OsString>,
    /// A folder of the engine's own. Nothing is kept in it; the cgroups of its steps are
    /// named after it, so that [`sweep`] finds them again.
    pub state_dir: PathBuf,
    /// Whether steps get cgroups. Without, only their time is limited, and devices are kept
    /// from them by a root file system and a `/dev` that allow none.
    pub cgroups: bool,
    /// The user namespaces of steps. With one, [`StepSpec::root`] must be mounted for it, see
    /// [`Store::begin_for_step`](crate::snapshot::Store::begin_for_step). `None`: root in a
    /// step is root on the host.
    pub userns: Option<Arc<UserNs>>,
    /// Whether docker's filter of system calls is put over steps.
    pub seccomp: bool,
    /// Whether a step's programs may get rights that who starts them has not: `sudo`, `ping`
    /// and all else that is set-user-ID or has capabilities of its own.
    pub new_privileges: bool,
    /// What [`Network::Default`] is.
    pub network: DefaultNetwork,
    /// An OCI runtime (`runc`, `crun`) that makes the sandboxes instead of libcontainer.
    pub runtime: Option<PathBuf>,
    /// What the steps' machine is called.
    pub hostname: String,
}

impl ExecConfig {
    /// Cgroups and the filter of system calls, no new privileges, no user namespace.
    pub fn new(step_command: Vec<OsString>, state_dir: PathBuf) -> ExecConfig {
        ExecConfig {
            step_command,
            state_dir,
            cgroups: true,
            userns: None,
            seccomp: true,
            new_privileges: false,
            network: DefaultNetwork::Host,
            runtime: None,
            hostname: HOSTNAME.to_owned(),
        }
    }

    /// Whether this step is in the host's network.
    fn shares_network(&self, step: &StepSpec<'_>) -> bool {
        match step.network {
            Network::Host => true,
            Network::None => false,
            Network::Default => matches!(self.network, DefaultNetwork::Host),
        }
    }

    /// What this step may reach from a network of its own, if it has one.
    fn policy(&self, step: &StepSpec<'_>) -> Option<&Arc<network::Policy>> {
        match (&self.network, step.network) {
            (DefaultNetwork::Own(policy), Network::Default) => Some(policy),
            _ => None,
        }
    }

    /// The ids of this step.
    fn ids(&self, step: &StepSpec<'_>) -> Option<&UserNs> {
        if step.insecure { None } else { self.userns.as_deref() }
    }
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
    /// Output that is passed on, bytes. The rest is read and thrown away.
    pub output_bytes_max: Option<u64>,
    /// Bytes that its processes read from or write to the disk of the state folder in a
    /// second, each way.
    pub io_bytes_per_sec_max: Option<u64>,
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
    /// A file that is only in memory, and gone with the step.
    Secret {
        /// Absolute path inside the step.
        target: String,
        /// What it says.
        value: Secret<Vec<u8>>,
        /// Its permission bits.
        mode: u32,
        /// Whom it belongs to inside the step.
        uid: u32,
        /// Its group inside the step.
        gid: u32,
    },
}

impl StepMount {
    /// Where it is inside the step.
    pub fn target(&self) -> &str {
        match self {
            StepMount::Bind { target, .. } | StepMount::Tmpfs { target, .. } | StepMount::Secret { target, .. } => {
                target
            }
        }
    }
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
    /// What else it sees, in the order in which it is mounted.
    pub mounts: Vec<StepMount>,
    /// Variables whose values nobody may see but the step's program: they take the place of
    /// others of the same name.
    pub secret_env: Vec<(String, Secret<String>)>,
    /// What it can reach.
    pub network: Network,
    /// What it may take of the disk; `None` for all of it.
    pub disk: Option<StepDisk<'a>>,
    /// `RUN --security=insecure`: with every capability and nothing of the kernel hidden.
    /// Whoever may say this may do anything to the machine.
    pub insecure: bool,
    /// What runs its programs, when this machine cannot by itself; see [`emulator_for`].
    pub emulator: Option<Emulator>,
}

/// Where a step's files are, and what of the disk the build may take.
#[derive(Clone, Copy, Debug)]
pub struct StepDisk<'a> {
    /// The host's directory that everything lies in which the step writes into its root.
    pub upper: &'a Path,
    /// The other folders that it can write to, each with the bytes that are in it.
    pub also: &'a [(PathBuf, u64)],
    /// What the build has taken already.
    pub build: &'a BuildDisk,
}

/// The network that a step gets where nothing else was asked for.
#[derive(Clone, Debug, Default)]
pub enum DefaultNetwork {
    /// The network of the host.
    #[default]
    Host,
    /// A network of the step's own, out of which it reaches what the policy lets it.
    Own(Arc<network::Policy>),
    /// A loopback device and nothing else.
    None,
}

/// What a step can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// What the engine gives to steps.
    #[default]
    Default,
    /// A loopback device and nothing else.
    None,
    /// The network of the host.
    Host,
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
    /// It took more of the disk than it may; every process of the step is gone.
    #[error("{0}")]
    Excess(Excess),
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
    cancel.check().map_err(|_| ExecError::Cancelled)?;
    let root = fsys::open_root(step.root)?;
    let first = config.ids(step).map_or(0, UserNs::root);
    drop(fsys::make_dirs(root.as_fd(), Path::new(&step.cwd), Some((first, first)), None)?);
    let group = if config.cgroups { Cgroup::create(&config.state_dir, &step.limits) } else { Cgroup::default() };
    let mut stubs = Stubs::of(first);
    let result = job(config, step, root.as_fd(), &mut stubs, !group.devices)
        .and_then(|job| run_job(config, step, job, &group, out, cancel));
    let cleaned = stubs.remove(root.as_fd());
    let exit = result?;
    cleaned?;
    Ok(exit)
}

/// Remove what a killed engine left behind: its steps' cgroups, with any process in them.
/// Everything else of a step ends with its processes. Call it before any step runs.
pub fn sweep(state_dir: &Path) -> io::Result<()> {
    cgroup::sweep(state_dir)
}

/// Make a sandbox on an empty root file system, as a trial. The error says what does not work.
pub(crate) fn try_sandbox(config: &ExecConfig, root: &Path) -> io::Result<()> {
    let step = StepSpec {
        root,
        // Not there, so all went well up to the program.
        argv: vec!["/trial".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: User::root(),
        limits: StepLimits { secs_max: Some(TRIAL_SECS_MAX), ..StepLimits::default() },
        mounts: Vec::new(),
        secret_env: Vec::new(),
        network: Network::Host,
        disk: None,
        insecure: false,
        emulator: None,
    };
    match run(config, &step, &|_, _| {}, &Cancel::new()) {
        Ok(Exit { code: 127, .. }) => Ok(()),
        Ok(Exit { code, .. }) => Err(io::Error::other(format!("a trial ended with status {code}"))),
        Err(ExecError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// What to tell the step process. Makes the places to mount on.
fn job(
    config: &ExecConfig,
    step: &StepSpec<'_>,
    root: BorrowedFd<'_>,
    stubs: &mut Stubs,
    lock_devices: bool,
) -> Result<Job, ExecError> {
    if step.argv.is_empty() {
        return Err(ExecError::Start("there is no program to run".to_owned()));
    }
    let inner = |path: PathBuf| {
        path.into_os_string()
            .into_string()
            .map(|path| format!("/{path}"))
            .map_err(|path| ExecError::Start(format!("a mount point is not UTF-8: {}", path.display())))
    };
    for dir in ["proc", "sys", "dev"] {
        if stubs.place(root, dir, true)?.is_none_or(|place| place != Path::new(dir)) {
            return Err(ExecError::Start(format!("/{dir} of the image is not a directory")));
        }
    }
    let mut mounts = Vec::new();
    for mount in &step.mounts {
        let (target, dir) = match mount {
            StepMount::Bind { source, target, .. } => (target, std::fs::metadata(source)?.is_dir()),
            StepMount::Tmpfs { target, .. } => (target, true),
            StepMount::Secret { target, .. } => (target, false),
        };
        let place = stubs.place(root, target, dir)?.filter(|place| !place.as_os_str().is_empty());
        let place =
            place.ok_or_else(|| ExecError::Start(format!("cannot mount on {target}: it is of another kind")))?;
        mounts.push(match mount {
            StepMount::Bind { writable, .. } => JobMount::Bind { target: inner(place)?, writable: *writable },
            StepMount::Tmpfs { bytes_max, .. } => JobMount::Tmpfs { target: inner(place)?, bytes_max: *bytes_max },
            StepMount::Secret { value, mode, uid, gid, .. } => JobMount::Secret {
                target: inner(place)?,
                value: value.expose().clone(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            },
        });
    }
    let mut files = Vec::new();
    let mut name_servers = resolv_conf()?;
    if config.policy(step).is_some() {
        name_servers = network::resolv_conf(&name_servers);
    }
    let hosts = format!("127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (target, text) in [("etc/hosts", hosts), ("etc/resolv.conf", name_servers)] {
        if let Some(place) = stubs.place(root, target, false)? {
            files.push((inner(place)?, text));
        }
    }
    let mut env = step.env.clone();
    env.retain(|(name, _)| step.secret_env.iter().all(|(secret, _)| secret != name));
    env.extend(step.secret_env.iter().map(|(name, value)| (name.clone(), value.expose().clone())));
    for (name, value) in [("PATH", PATH_DEFAULT), ("HOME", &step.user.home)] {
        if !env.iter().any(|(key, _)| key == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    if env.iter().any(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0'))
        || step.argv.iter().any(|arg| arg.contains('\0'))
    {
        return Err(ExecError::Start("an argument or variable has a zero byte or no name".to_owned()));
    }
    Ok(Job {
        argv: step.argv.clone(),
        env,
        cwd: step.cwd.clone(),
        uid: step.user.uid,
        gid: step.user.gid,
        groups: step.user.groups.clone(),
        hostname: config.hostname.clone(),
        network: config.shares_network(step),
        insecure: step.insecure,
        userns: config.ids(step).is_some(),
        seccomp: config.seccomp && !step.insecure,
        new_privileges: config.new_privileges || step.insecure,
        runtime: config.runtime.as_ref().map(|path| path.display().to_string()),
        emulator: step.emulator.clone(),
        lock_devices,
        mounts,
        files,
    })
}

fn resolv_conf() -> io::Result<String> {
    match std::fs::File::open(RESOLV_CONF) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(RESOLV_CONF_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn run_job(
    config: &ExecConfig,
    step: &StepSpec<'_>,
    job: Job,
    group: &Cgroup,
    out: &(dyn Fn(Stream, &[u8]) + Sync),
    cancel: &Cancel,
) -> Result<Exit, ExecError> {
    let ids = config.ids(step);
    let mut descriptors = vec![userns::copy_for_step(step.root, ids)?];
    for mount in &step.mounts {
        if let StepMount::Bind { source, .. } = mount {
            descriptors.push(userns::copy_for_step(source, ids)?);
        }
    }
    if descriptors.len() > wire::DESCRIPTORS_MAX {
        return Err(ExecError::Start("the step has too many mounts".to_owned()));
    }
    let mut running = Running::start(config, if job.userns { config.userns.clone() } else { None })?;
    running.policy = config.policy(step).cloned();
    let mut watch = step.disk.map(|disk| disk.build.watch(disk.upper, disk.also)).transpose()?;
    running.give_streams(ids.map_or(0, UserNs::root), &step.user)?;
    let killer = running.killer.clone();
    let _guard = cancel.on_cancel(move || killer.kill());
    // A step process that died meanwhile is noticed when its socket is read.
    let _ = wire::send(
        &running.killer.socket,
        &Order::Run(Box::new(job)),
        &descriptors.iter().map(AsFd::as_fd).collect::<Vec<_>>(),
    );
    drop(descriptors);
    let deadline = step.limits.secs_max.map(|secs| Instant::now() + Duration::from_secs(secs));
    let limited = Limited::new(out, step.limits.output_bytes_max);
    let report = running.attend(group, deadline, watch.as_mut(), &|stream, bytes| limited.pass(stream, bytes), cancel);
    let out_of_memory = group.out_of_memory();
    drop(running);
    let (report, end) = report?;
    if cancel.is_cancelled() {
        return Err(ExecError::Cancelled);
    }
    if let End::Excess(excess) = end {
        return Err(ExecError::Excess(excess));
    }
    if let Some(excess) = watch.map(|watch| watch.last(cancel)).transpose()?.flatten() {
        return Err(ExecError::Excess(excess));
    }
    if let End::TimedOut = end {
        return Err(ExecError::TimedOut(Duration::from_secs(step.limits.secs_max.unwrap_or_default())));
    }
    match report {
        Some(Report::Exited(code)) => Ok(Exit { code, out_of_memory }),
        Some(Report::Signaled(signal)) => Ok(Exit { code: 128 + signal, out_of_memory }),
        Some(Report::Failed(reason)) => Err(ExecError::Start(reason)),
        Some(Report::Unshared | Report::Mapped(_) | Report::Created(_)) | None => {
            Err(ExecError::Start("the step process ended without a report".to_owned()))
        }
    }
}

/// How a step came to its end.
enum End {
    /// By itself, or by being cancelled.
    Itself,
    TimedOut,
    Excess(Excess),
}

/// Passes a step's output on, up to a limit.
struct Limited<'a> {
    out: &'a (dyn Fn(Stream, &[u8]) + Sync),
    max: Option<u64>,
    passed: AtomicU64,
}

impl<'a> Limited<'a> {
    fn new(out: &'a (dyn Fn(Stream, &[u8]) + Sync), max: Option<u64>) -> Limited<'a> {
        Limited { out, max, passed: AtomicU64::new(0) }
    }

    fn pass(&self, stream: Stream, bytes: &[u8]) {
        let Some(max) = self.max else { return (self.out)(stream, bytes) };
        let before = self.passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if before >= max {
            return;
        }
        let room = usize::try_from(max - before).unwrap_or(usize::MAX);
        (self.out)(stream, &bytes[..bytes.len().min(room)]);
        if bytes.len() >= room {
            (self.out)(Stream::Stderr, format!("\n[output clipped: a step may print {max} bytes]\n").as_bytes());
        }
    }
}

/// Ends a step from any thread.
#[derive(Debug)]
struct Killer {
    socket: UnixStream,
    /// The step's first process, once there is one. The descriptor names that process and
    /// never a later one with its number.
    init: Mutex<Option<OwnedFd>>,
}

impl Killer {
    fn kill(&self) {
        let _ = rustix::net::send(
            &self.socket,
            &[KILL],
            rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT,
        );
        if let Some(init) = &*self.init.lock() {
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
    }
}

/// A step process and the ends of its pipes. Dropping it leaves nothing running.
struct Running {
    child: Child,
    killer: Arc<Killer>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    ids: Option<Arc<UserNs>>,
    /// What it may reach from a network of its own.
    policy: Option<Arc<network::Policy>>,
    link: Option<network::Link>,
}

impl Running {
    fn start(config: &ExecConfig, ids: Option<Arc<UserNs>>) -> Result<Running, ExecError> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut words = config.step_command.iter();
        let program = words.next().ok_or_else(|| ExecError::Start("no step command is configured".to_owned()))?;
        let mut child = Command::new(program)
            .args(words)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| ExecError::Start(format!("start {}: {error}", program.display())))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Running {
            child,
            killer: Arc::new(Killer { socket: ours, init: Mutex::new(None) }),
            stdout,
            stderr,
            ids,
            policy: None,
            link: None,
        })
    }

    /// Let the step's user open its standard streams anew, as `/dev/stderr` does: the pipes
    /// are the server's otherwise.
    fn give_streams(&self, first: u32, user: &User) -> io::Result<()> {
        let id = |id: u32| id.checked_add(first).filter(|id| *id != u32::MAX);
        let (Some(uid), Some(gid)) = (id(user.uid), id(user.gid)) else { return Ok(()) };
        for stream in [self.stdout.as_ref().map(AsFd::as_fd), self.stderr.as_ref().map(AsFd::as_fd)] {
            let Some(stream) = stream else { continue };
            match rustix::fs::fchown(stream, fsys::uid(uid), fsys::gid(gid)) {
                // A rootless server has not all ids; then this is as it was.
                Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Pass on output until everything has ended. Says how, and whether time ran out.
    fn attend(
        &mut self,
        group: &Cgroup,
        deadline: Option<Instant>,
        mut watch: Option<&mut disk::Watch<'_>>,
        out: &dyn Fn(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<(Option<Report>, End), ExecError> {
        let mut buffer = vec![0u8; OUTPUT_BYTES];
        let mut report = None;
        let mut listening = true;
        let mut end = End::Itself;
        let mut killed_at: Option<Instant> = None;
        while listening || self.stdout.is_some() || self.stderr.is_some() {
            if killed_at.is_none() && cancel.is_cancelled() {
                self.killer.kill();
                killed_at = Some(Instant::now());
            }
            if killed_at.is_none() && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                end = End::TimedOut;
                self.killer.kill();
                killed_at = Some(Instant::now());
            }
            if let (None, Some(watch)) = (killed_at, &mut watch) {
                match watch.look(cancel) {
                    Ok(Some(excess)) => {
                        end = End::Excess(excess);
                        self.killer.kill();
                        killed_at = Some(Instant::now());
                    }
                    Ok(None) => {}
                    Err(error) if Cancel::is_cause_of(&error) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            if killed_at.is_some_and(|at| at.elapsed() > KILL_GRACE) {
                // The sandbox was still being made. Its processes die with the step process.
                let _ = self.child.kill();
                return Ok((report, end));
            }
            let look = watch.is_some().then(|| Instant::now() + disk::LOOK_EVERY);
            let next = match killed_at {
                Some(at) => Some(at + KILL_GRACE),
                None => deadline.into_iter().chain(look).min(),
            };
            let ready = self.wait(listening, next)?;
            if ready.stdout && !pass(&mut self.stdout, &mut buffer, &|bytes| out(Stream::Stdout, bytes))? {
                self.stdout = None;
            }
            if ready.stderr && !pass(&mut self.stderr, &mut buffer, &|bytes| out(Stream::Stderr, bytes))? {
                self.stderr = None;
            }
            if let (true, Some(link)) = (ready.notes, &self.link) {
                out(Stream::Stderr, &link.read_notes());
            }
            if ready.socket {
                match wire::receive::<Report>(&self.killer.socket) {
                    Ok(Some((Report::Unshared, _))) => self.unshared()?,
                    Ok(Some((Report::Created(pid), _))) => self.created(pid, group, cancel)?,
                    Ok(Some((ended, _))) => report = Some(ended),
                    Ok(None) | Err(_) => listening = false,
                }
            }
        }
        Ok((report, end))
    }

    /// The step process is in a new user namespace: give it its ids.
    fn unshared(&self) -> Result<(), ExecError> {
        let Some(ids) = &self.ids else { return Ok(()) };
        ids.map(self.child.id()).map_err(|error| ExecError::Start(format!("give the step its ids: {error}")))?;
        rustix::net::send(&self.killer.socket, &[MAPPED], rustix::net::SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        Ok(())
    }

    /// The sandbox stands and waits: put it under its limits and let it go.
    fn created(&mut self, pid: i32, group: &Cgroup, cancel: &Cancel) -> Result<(), ExecError> {
        let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
        *self.killer.init.lock() = Some(pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?);
        if cancel.is_cancelled() {
            self.killer.kill();
            return Ok(());
        }
        group.add(pid)?;
        if let Some(policy) = &self.policy {
            self.link = Some(
                network::Link::attach(pid, policy)
                    .map_err(|error| ExecError::Start(format!("give the step a network of its own: {error}")))?,
            );
        }
        rustix::net::send(&self.killer.socket, &[GO], rustix::net::SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        Ok(())
    }

    fn wait(&self, listening: bool, until: Option<Instant>) -> io::Result<Ready> {
        let sources = [
            listening.then(|| self.killer.socket.as_fd()),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
            self.link.as_ref().map(network::Link::notes),
        ];
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut events = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut ready = |source: Option<BorrowedFd<'_>>| source.is_some() && events.next().unwrap_or(false);
        let [socket, stdout, stderr, notes] = sources;
        Ok(Ready { socket: ready(socket), stdout: ready(stdout), stderr: ready(stderr), notes: ready(notes) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.killer.kill();
        let _ = self.killer.socket.shutdown(std::net::Shutdown::Both);
        // It goes by itself in a moment; `kill` above saw to what it waits for.
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "wait for a step process");
        }
    }
}

struct Ready {
    socket: bool,
    stdout: bool,
    stderr: bool,
    notes: bool,
}

/// Pass on what is there. False at the end of the pipe.
fn pass(pipe: &mut Option<impl Read>, buffer: &mut [u8], out: &dyn Fn(&[u8])) -> io::Result<bool> {
    let Some(pipe) = pipe else { return Ok(false) };
    match pipe.read(buffer) {
        Ok(0) => Ok(false),
        Ok(n) => {
            out(&buffer[..n]);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
    }
}
