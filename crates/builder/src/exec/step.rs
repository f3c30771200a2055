//! The step process: one per step, single-threaded, and gone with it.
//!
//! libcontainer forks without executing, which is sound only in a process without threads;
//! that is why the engine's own program is started once more for each step. This process
//! gets a mount namespace of its own with a small file system in memory, where the runtime's
//! bundle and state live and vanish; then it has libcontainer make the sandbox, reports the
//! first process's id, and waits for its end or for the engine's: when the socket closes,
//! because the engine was killed, the step is killed too.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsmount, fsopen, mount, mount_change, mount_remount, move_mount, unmount,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use rustix::thread::UnshareFlags;

use super::builtin::Builtin;
use super::emulate;
use super::runc::{self, Refusal, Runc};
use super::spec;
use super::userns;
use super::wire::{self, GO, Job, JobMount, MAPPED, Order, Report};

/// Where this process's own file system goes. It covers the cgroups on purpose: the engine
/// looks after those itself, and libcontainer is to find none.
pub(super) const BASE: &str = "/sys/fs/cgroup";
/// How often something is unmounted from one place.
const STACKED_MOUNTS_MAX: usize = 8;
/// Exit status of a step process that could not report.
const EXIT_SOFTWARE: i32 = 70;

/// The step process: reads a step from standard input, runs it, reports back. Call it
/// before anything else has started a thread; returns the process's exit status.
pub fn step_main() -> i32 {
    let Ok(socket) = take_socket() else { return EXIT_SOFTWARE };
    match step(&socket) {
        Ok(()) => 0,
        Err(reason) => match wire::send(&socket, &Report::Failed(reason), &[]) {
            Ok(()) => 0,
            Err(_) => EXIT_SOFTWARE,
        },
    }
}

/// Standard input is the socket; the step's own is to be empty.
fn take_socket() -> io::Result<UnixStream> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null)?;
    Ok(UnixStream::from(socket))
}

fn step(socket: &UnixStream) -> Result<(), String> {
    let (job, descriptors) = match wire::receive::<Order>(socket) {
        Ok(Some((Order::Run(job), descriptors))) => (*job, descriptors),
        Ok(Some((Order::Map { pid, uid, gid }, _))) => {
            let count = crate::rootless::map(pid, uid, gid)?;
            return wire::send(socket, &Report::Mapped(count), &[]).map_err(|error| error.to_string());
        }
        Ok(Some((Order::Hold, _))) => return hold(socket).map_err(|error| error.to_string()),
        Ok(None) => return Ok(()),
        Err(error) => return Err(format!("read the step: {error}")),
    };
    prepare(socket, &job, descriptors).map_err(|error| format!("prepare the sandbox: {error}"))?;
    if let Some(emulator) = &job.emulator {
        emulate::register(emulator, job.userns, Path::new(if job.runtime.is_some() { runc::BASE } else { BASE }))?;
    }
    let mut sandbox: Box<dyn Sandbox> = match &job.runtime {
        None => Box::new(Builtin::create(&job)?),
        Some(runtime) => match Runc::create(&job, runtime) {
            Ok(sandbox) => Box::new(sandbox),
            Err(Refusal::Failed(reason)) => return Err(reason),
            Err(Refusal::NotRun(code, why)) => {
                let name = job.argv.first().map(String::as_str).unwrap_or_default();
                let _ = rustix::io::write(io::stderr(), format!("exec {name}: {why}\n").as_bytes());
                return wire::send(socket, &Report::Exited(code), &[]).map_err(|error| error.to_string());
            }
        },
    };
    let pid = sandbox.pid();
    let init = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("open the sandbox's process: {error}"))?;
    let result = attend(socket, &mut *sandbox, pid, init);
    if result.is_err() {
        // It may still be waiting to be started.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    let report = result?;
    if let Some(report) = report {
        // When the engine is gone nobody listens.
        let _ = wire::send(socket, &report, &[]);
    }
    Ok(())
}

/// A sandbox that stands, with a first process that waits.
pub(super) trait Sandbox {
    /// The first process.
    fn pid(&self) -> Pid;
    /// Let it become the step's program. The error is a sentence.
    fn start(&mut self) -> Result<(), String>;
}

/// Start the program when told to, kill it when told to, and wait for its end.
fn attend(socket: &UnixStream, sandbox: &mut dyn Sandbox, pid: Pid, init: OwnedFd) -> Result<Option<Report>, String> {
    let failed = |error: io::Error| format!("attend the step: {error}");
    wire::send(socket, &Report::Created(pid.as_raw_nonzero().get()), &[]).map_err(failed)?;
    let mut listening = true;
    let mut killed = false;
    loop {
        let mut fds = vec![PollFd::new(&init, PollFlags::IN)];
        if listening {
            fds.push(PollFd::new(socket, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(failed(error.into())),
        }
        let ended = !fds[0].revents().is_empty();
        let spoken = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if ended {
            return match waitpid(Some(pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => Ok(Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Report::Exited(code),
                    (None, signal) => Report::Signaled(signal.unwrap_or(9)),
                })),
                Ok(None) | Err(Errno::INTR) => continue,
                Err(error) => Err(failed(error.into())),
            };
        }
        if spoken {
            let mut byte = [0u8];
            let n = rustix::net::recv(socket, &mut byte, rustix::net::RecvFlags::empty()).map_or(0, |(n, _)| n);
            match byte {
                [GO] if n == 1 && !killed => sandbox.start().map_err(|error| format!("start the step: {error}"))?,
                _ => {
                    listening = n == 1;
                    killed = true;
                    // The kernel kills the whole pid namespace with its first process.
                    let _ = pidfd_send_signal(&init, Signal::KILL);
                }
            }
        }
    }
}

/// A namespace for mounts, a file system in memory, the root attached in it, the bundle.
fn prepare(socket: &UnixStream, job: &Job, descriptors: Vec<OwnedFd>) -> io::Result<()> {
    unshare_mounts()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|error| match error {
        // Neither this nor the change of root works where / is a plain folder.
        rustix::io::Errno::INVAL => io::Error::other(
            "the server runs in a chroot whose / is no mount point; bind-mount the new root onto itself and pivot into it",
        ),
        other => other.into(),
    })?;
    let at = if job.runtime.is_some() { runc::BASE } else { BASE };
    // An OCI runtime, on the other hand, does not work where there are none at all.
    let stacked = if job.runtime.is_some() { 0 } else { STACKED_MOUNTS_MAX };
    for _ in 0..stacked {
        if unmount(BASE, UnmountFlags::DETACH).is_err() {
            break;
        }
    }
    // A rootless server has no right to the one of the machine's network.
    let sys = if job.userns && job.network { sysfs().ok() } else { None };
    if job.userns {
        userns::unshare(UnshareFlags::NEWNS)?;
        wire::send(socket, &Report::Unshared, &[])?;
        let mut byte = [0u8];
        let n = rustix::net::recv(socket, &mut byte, rustix::net::RecvFlags::empty()).map(|(n, _)| n)?;
        if n != 1 || byte != [MAPPED] {
            return Err(io::Error::other("the build was cancelled"));
        }
        userns::become_root()?;
    }
    mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0700,size=16m"))?;
    stand_in_for_cgroups(at)?;
    let base = PathBuf::from(at);
    let root = base.join("root");
    fs::create_dir(&root)?;
    fs::create_dir(base.join("state"))?;
    let mut descriptors = descriptors.into_iter();
    let attach = |fd: OwnedFd, to: &Path| {
        move_mount(fd.as_fd(), "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|error| io::Error::other(format!("attach {}: {error}", to.display())))
    };
    let missing = || io::Error::other("a mount came without its descriptor");
    attach(descriptors.next().ok_or_else(missing)?, &root)?;
    // In a user namespace nobody makes devices, so those in an image are not the step's.
    if job.lock_devices || job.userns {
        mount_remount(&root, MountFlags::BIND | MountFlags::NODEV, c"")?;
    }
    let binds = job.mounts.iter().filter(|mount| matches!(mount, JobMount::Bind { .. }));
    for (index, _) in binds.enumerate() {
        let fd = descriptors.next().ok_or_else(missing)?;
        let to = base.join(format!("bind{index}"));
        let stat = rustix::fs::fstat(&fd)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
            fs::create_dir(&to)?;
        } else {
            fs::write(&to, "")?;
        }
        attach(fd, &to)?;
    }
    for (index, (_, text)) in job.files.iter().enumerate() {
        fs::write(base.join(format!("file{index}")), text)?;
        rustix::fs::chmod(base.join(format!("file{index}")), Mode::from_raw_mode(0o644))?;
    }
    for (index, mount) in job.mounts.iter().filter(|mount| matches!(mount, JobMount::Secret { .. })).enumerate() {
        let JobMount::Secret { value, mode, uid, gid, .. } = mount else { continue };
        let path = base.join(format!("secret{index}"));
        fs::write(&path, "")?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o600))?;
        fs::write(&path, value)?;
        rustix::fs::chown(&path, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
        // After the owner: a change of owner takes bits away.
        rustix::fs::chmod(&path, Mode::from_raw_mode(*mode))?;
    }
    let sys = match sys {
        Some(sys) => {
            let to = base.join("sys");
            fs::create_dir(&to)?;
            attach(sys, &to)?;
            Some(format!("{at}/sys"))
        }
        None => None,
    };
    let numbered = |what: &'static str| move |i: usize| format!("{at}/{what}{i}");
    let places = (numbered("bind"), numbered("file"), numbered("secret"));
    let spec = spec::spec(job, &format!("{at}/root"), places.0, places.1, places.2, sys.as_deref())?;
    fs::write(base.join("config.json"), serde_json::to_vec(&spec)?)
}

/// In a namespace of a rootless server the cgroups' mounts are locked: they can be covered, but
/// are listed still, and libcontainer wants to put the step into each. It may, into files of
/// the cover that mean nothing; the engine looks after the real ones.
fn stand_in_for_cgroups(cover: &str) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    for line in mounts.lines().filter(|line| line.contains(" - cgroup ")) {
        let Some(place) = line.split(' ').nth(4).filter(|place| Path::new(place).starts_with(cover)) else { continue };
        // It looks in this process's own group.
        for path in own.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let group = Path::new(place).join(path.trim_start_matches('/'));
            if group.components().all(|part| part != std::path::Component::ParentDir) {
                fs::create_dir_all(&group)?;
                fs::write(group.join("cgroup.procs"), "")?;
            }
        }
    }
    Ok(())
}

/// `/sys` of the network that the step is in. A user namespace may only mount the one of a
/// network that belongs to it.
fn sysfs() -> io::Result<OwnedFd> {
    let fs = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Make a user namespace and stay in it until the engine has seen it.
fn hold(socket: &UnixStream) -> io::Result<()> {
    userns::unshare(UnshareFlags::empty())?;
    wire::send(socket, &Report::Unshared, &[])?;
    let _ = rustix::net::recv(socket, &mut [0u8], rustix::net::RecvFlags::empty())?;
    Ok(())
}

#[allow(
    unsafe_code,
    reason = "the call is unsafe only for what shares file descriptor tables, which mounts do not touch"
)]
fn unshare_mounts() -> io::Result<()> {
    // SAFETY: NEWNS leaves the descriptor table alone, and this process has one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?)
}
