//! User namespaces: root in a step is nobody on the host.
//!
//! Every step gets a user namespace of its own. Its ids from 0 up are ids of the host that
//! belong to nobody, so a process that breaks out of all else finds itself a stranger on the
//! host, and none of its capabilities counts there.
//!
//! On disk ids stay as images have them: layers, caches and contexts are the same with and
//! without namespaces, and whatever is not a step never sees other ids. What a step sees goes
//! through *idmapped* mounts, which the kernel shows with other ids than those on disk:
//! ids 0, 1, 2 … on disk are the host's `2^31`, `2^31 + 1`, `2^31 + 2` … behind such a mount,
//! and 0, 1, 2 … again inside the step. Docker takes no larger id than `2^31 - 1`, so all
//! fit. The overlay file system itself cannot be idmapped; its layers can (Linux 5.19).
//!
//! A server that is itself in a user namespace (rootless, or a container with one) has no
//! right to idmapped mounts. Its steps get a user namespace with the server's own ids: their
//! capabilities end at it, but their root is the server's.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

use super::wire::{self, Order, Report};

/// The host's id that a step's root is.
const FIRST: u32 = 1 << 31;
/// How many ids follow it: all that docker takes. The last of 32 bits stands for "none".
const COUNT: u32 = (1 << 31) - 1;
/// What the engine's own root is on disk behind an idmapped mount: overlayfs makes files in
/// its work folder as whoever mounted it, before it gives them to their owner.
const ENGINE: u32 = u32::MAX - 1;
/// The map of a namespace that maps nothing. Source: user_namespaces(7).
const WHOLE: [&str; 3] = ["0", "0", "4294967295"];
/// The most lines of a map that we copy; the kernel allows 340.
const LINES_MAX: usize = 340;

/// How the ids of steps stand to those of the host.
#[derive(Debug)]
pub struct UserNs {
    uid_map: String,
    gid_map: String,
    first: u32,
    /// A namespace whose map mounts are given, where ids differ.
    idmap: Option<OwnedFd>,
}

impl UserNs {
    /// What this machine allows. `step_command` is started once, see
    /// [`ExecConfig`](super::ExecConfig). The error is a sentence.
    pub fn open(step_command: &[std::ffi::OsString]) -> Result<UserNs, String> {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/self/{name}")).map_err(|error| format!("read /proc/self/{name}: {error}"))
        };
        let (uids, gids) = (read("uid_map")?, read("gid_map")?);
        if !is_whole(&uids) || !is_whole(&gids) {
            return Ok(UserNs { uid_map: same(&uids), gid_map: same(&gids), first: 0, idmap: None });
        }
        let steps = format!("0 {FIRST} {COUNT}\n");
        let mounts = format!("{steps}{ENGINE} 0 1\n");
        let idmap = hold(step_command, &mounts).map_err(|error| {
            format!(
                "make a user namespace: {error} (does the kernel allow them? see the sysctl user.max_user_namespaces)"
            )
        })?;
        Ok(UserNs { uid_map: steps.clone(), gid_map: steps, first: FIRST, idmap: Some(idmap) })
    }

    /// The host's id of a step's root.
    pub fn root(&self) -> u32 {
        self.first
    }

    /// The namespace whose map mounts for steps need. `None` where ids are the same.
    pub fn idmap(&self) -> Option<BorrowedFd<'_>> {
        self.idmap.as_ref().map(AsFd::as_fd)
    }

    /// Give a process in a new user namespace its ids.
    pub(super) fn map(&self, pid: u32) -> io::Result<()> {
        write_map(pid, "uid_map", &self.uid_map)?;
        write_map(pid, "gid_map", &self.gid_map)
    }
}

/// Whether a process with this map can have come out of no user namespace.
pub(crate) fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(WHOLE)
}

/// The map of a namespace below one with `map`, with the same ids.
fn same(map: &str) -> String {
    map.lines()
        .take(LINES_MAX)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (first, _, count) = (words.next()?, words.next()?, words.next()?);
            Some(format!("{first} {first} {count}\n"))
        })
        .collect()
}

fn write_map(pid: u32, name: &str, map: &str) -> io::Result<()> {
    let path = format!("/proc/{pid}/{name}");
    // Not `fs::write`: the kernel takes one write only, and the file is there.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, map.as_bytes()))
        .map_err(|error| io::Error::new(error.kind(), format!("write {path}: {error}")))
}

/// A user namespace with a map, kept by its descriptor alone.
fn hold(step_command: &[std::ffi::OsString], map: &str) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let (program, args) =
        step_command.split_first().ok_or_else(|| io::Error::other("no step command is configured"))?;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let made = (|| {
        wire::send(&ours, &Order::Hold, &[])?;
        match wire::receive::<Report>(&ours)? {
            Some((Report::Unshared, _)) => {}
            Some((Report::Failed(reason), _)) => return Err(io::Error::other(reason)),
            _ => return Err(io::Error::other("the step process ended without a report")),
        }
        for name in ["uid_map", "gid_map"] {
            write_map(child.id(), name, map)?;
        }
        Ok(rustix::fs::open(format!("/proc/{}/ns/user", child.id()), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    })();
    drop(ours);
    let _ = child.kill();
    let _ = child.wait();
    made
}

/// In the step process: leave the user namespace for a new one, without ids as yet, and the
/// namespaces `also` for new ones that belong to it.
#[allow(unsafe_code, reason = "the call is unsafe only for what shares file descriptor tables")]
pub(crate) fn unshare(also: UnshareFlags) -> io::Result<()> {
    // SAFETY: none of the flags that are used here touches the descriptor table, and this
    // process has one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | also) }?)
}

/// In the step process: become root of the namespace, now that it has ids.
pub(crate) fn become_root() -> io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    // Groups of the server's user; refused where a rootless server has one id only.
    let _ = rustix::thread::set_thread_groups(&[]);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // Or its own files below /proc would belong to the host's root.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    Ok(())
}

/// Show a detached mount with the ids that `namespace` maps the disk's to.
#[allow(unsafe_code, reason = "rustix has no such call yet")]
pub(crate) fn idmap(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    /// Source: `linux/mount.h`, `struct mount_attr`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        namespace: u64,
    }
    const IDMAP: u64 = 0x10_0000;
    let attributes = Attributes { set: IDMAP, clear: 0, propagation: 0, namespace: namespace.as_raw_fd() as u64 };
    // SAFETY: the path is an empty C string and `attributes` is as long as said; both are
    // alive until the call returns, and the kernel only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attributes,
            size_of::<Attributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A detached copy of the mount at `source`, from there down, as a step is to see it.
///
/// An overlay cannot be idmapped; its layers were, when it was mounted for a step.
pub(super) fn copy_for_step(source: &Path, ids: Option<&UserNs>) -> io::Result<OwnedFd> {
    let copy = crate::snapshot::detached_copy(source)?;
    let Some(namespace) = ids.and_then(UserNs::idmap) else { return Ok(copy) };
    if rustix::fs::fstatfs(&copy)?.f_type as i64 == OVERLAY_MAGIC {
        return Ok(copy);
    }
    idmap(copy.as_fd(), namespace).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("show {} to a user namespace: {error} (its file system may not know how)", source.display()),
        )
    })?;
    Ok(copy)
}

/// Source: `linux/magic.h`.
const OVERLAY_MAGIC: i64 = 0x794c_7630;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_copied() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("         0       1000          1\n         1     100000      65536\n"));
        assert_eq!(same("   0  1000   1\n   1  100000  65536\n"), "0 0 1\n1 1 65536\n");
        // No id is in both, and none is 32 ones.
        assert!(u64::from(FIRST) + u64::from(COUNT) == u64::from(u32::MAX) && ENGINE > COUNT);
    }
}
