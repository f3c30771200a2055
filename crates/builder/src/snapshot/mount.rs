//! The overlay mount of an active snapshot.
//!
//! The mount is *detached*: it hangs on a file descriptor and on no directory. Nobody else
//! on the machine can see it, it does not spread into other mount namespaces, and it is gone
//! when the descriptor is, `kill -9` included. It is reached as `/proc/self/fd/N`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::thread::UnshareFlags;

/// What goes into a mount. Directories are named below two open ones, which keeps every
/// path short: the kernel takes at most 255 bytes for one, or 4 KiB for all.
pub(super) struct Overlay<'a> {
    /// The directory that holds the lower ones.
    pub layers: BorrowedFd<'a>,
    /// Names of the lower directories, lowest first; at least one.
    pub lowers: &'a [String],
    /// The directory that holds `fs` (the upper one), `work` and, for old kernels, `mnt`.
    pub active: BorrowedFd<'a>,
}

// `redirect_dir` and `metacopy` would leave files in the upper directory that mean nothing
// without the lower ones; a layer is made from the upper directory alone.
// In a user namespace the kernel takes no `off` for the first; `nofollow` makes none either.
fn options() -> [(&'static str, &'static str); 3] {
    let redirect = if crate::rootless::in_user_namespace() { "nofollow" } else { "off" };
    [("redirect_dir", redirect), ("metacopy", "off"), ("index", "off")]
}

/// A folder whose mount shows the ids that `namespace` maps those on disk to. An overlay over
/// what is below it shows the same.
pub(super) fn mapped(dir: &Path, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, dir, flags)?;
    crate::exec::idmap(mount.as_fd(), namespace).map_err(|error| {
        let hint = "user namespaces for builds need Linux 5.19 and a file system such as ext4, xfs or btrfs";
        io::Error::new(error.kind(), format!("show {} with other ids: {error} ({hint})", dir.display()))
    })?;
    Ok(mount)
}

/// Mount an overlay of a store's folders as they look through [`mapped`]. Before Linux 6.15
/// overlayfs takes no layers from a mount that is attached nowhere; so this happens in a
/// mount namespace that a thread makes for itself and in which nobody else is.
pub(super) fn overlay_attached(
    store: &Path,
    namespace: BorrowedFd<'_>,
    lowers: &[String],
    work: &str,
) -> io::Result<OwnedFd> {
    let mount = || -> io::Result<OwnedFd> {
        unshare_mounts()?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let here = mapped(store, namespace)?;
        move_mount(here.as_fd(), "", CWD, store, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        let layers = crate::fsys::open_root(&store.join("layers"))?;
        let active = crate::fsys::open_root(&store.join(work))?;
        overlay(&Overlay { layers: layers.as_fd(), lowers, active: active.as_fd() })
    };
    std::thread::scope(|scope| {
        scope.spawn(mount).join().unwrap_or_else(|_| Err(io::Error::other("the thread that mounts died")))
    })
}

#[allow(unsafe_code, reason = "the call is unsafe only for what shares file descriptor tables")]
fn unshare_mounts() -> io::Result<()> {
    // SAFETY: neither flag touches the descriptor table; the thread ends with what it did.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?)
}

/// Mount it.
pub(super) fn overlay(overlay: &Overlay<'_>) -> io::Result<OwnedFd> {
    match with_options(overlay) {
        // Before Linux 6.8 layers cannot be given one by one.
        Err(Errno::INVAL | Errno::NOSYS) => with_string(overlay),
        other => other.map_err(io::Error::from),
    }
    .map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "builds need root",
            _ => "the data folder must be on a file system that overlayfs can write to, such as ext4, xfs or btrfs",
        };
        io::Error::new(error.kind(), format!("mount an overlay file system: {error} ({hint})"))
    })
}

fn below(dir: BorrowedFd<'_>, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

fn with_options(overlay: &Overlay<'_>) -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "source", "overlay")?;
    for lower in overlay.lowers.iter().rev() {
        fsconfig_set_string(fs.as_fd(), "lowerdir+", below(overlay.layers, lower))?;
    }
    fsconfig_set_string(fs.as_fd(), "upperdir", below(overlay.active, "fs"))?;
    fsconfig_set_string(fs.as_fd(), "workdir", below(overlay.active, "work"))?;
    for (key, value) in options() {
        fsconfig_set_string(fs.as_fd(), key, value)?;
    }
    if crate::rootless::in_user_namespace() {
        fsconfig_set_flag(fs.as_fd(), "userxattr")?;
    }
    // Package managers sync after every file; what is lost with the machine's power is only
    // a cache, and is thrown away at the next boot.
    fsconfig_set_flag(fs.as_fd(), "volatile")?;
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn with_string(overlay: &Overlay<'_>) -> io::Result<OwnedFd> {
    let lowers: Vec<String> = overlay.lowers.iter().rev().map(|lower| below(overlay.layers, lower)).collect();
    let mut data = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        lowers.join(":"),
        below(overlay.active, "fs"),
        below(overlay.active, "work")
    );
    for (key, value) in options() {
        data.push_str(&format!(",{key}={value}"));
    }
    if crate::rootless::in_user_namespace() {
        data.push_str(",userxattr");
    }
    if data.len() > 4_000 {
        return Err(io::Error::other("the image has too many layers for this kernel: Linux 6.8 or later takes more"));
    }
    let target = below(overlay.active, "mnt");
    match rustix::fs::mkdir(&target, rustix::fs::Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    mount("overlay", &target, "overlay", MountFlags::empty(), Some(CString::new(data)?.as_c_str()))?;
    let detached = open_tree(CWD, &target, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    // Nobody else uses it yet, so it goes at once.
    unmount(&target, UnmountFlags::DETACH)?;
    Ok(detached?)
}

/// A detached copy of the mount that `path` leads into, from `path` down.
pub(crate) fn detached_copy(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match open_tree(CWD, path, flags) {
        // Linux before 6.15 copies no mount that is itself detached; that one can still be
        // attached somewhere, once.
        Err(Errno::INVAL) => {
            use rustix::fs::{Mode, OFlags};
            Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsys;

    #[test]
    fn both_ways_of_mounting_take_a_hundred_layers_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layers = dir.path().join("layers");
        let mut names = Vec::new();
        for n in 0..100 {
            std::fs::create_dir_all(layers.join(n.to_string())).unwrap();
            std::fs::write(layers.join(format!("{n}/{n}")), "x").unwrap();
            std::fs::write(layers.join(format!("{n}/top")), n.to_string()).unwrap();
            names.push(n.to_string());
        }
        let layers = fsys::open_root(&layers).unwrap();
        for (index, way) in
            [with_options as fn(&Overlay<'_>) -> _, |o: &Overlay<'_>| with_string(o).map_err(|_| Errno::IO)]
                .iter()
                .enumerate()
        {
            let active = dir.path().join(format!("active{index}"));
            std::fs::create_dir_all(active.join("fs")).unwrap();
            std::fs::create_dir_all(active.join("work")).unwrap();
            let active = fsys::open_root(&active).unwrap();
            let fd = way(&Overlay { layers: layers.as_fd(), lowers: &names, active: active.as_fd() }).unwrap();
            let root = format!("/proc/self/fd/{}", fd.as_raw_fd());
            assert_eq!(std::fs::read_to_string(format!("{root}/top")).unwrap(), "99");
            assert_eq!(std::fs::read_dir(&root).unwrap().count(), 101);
            std::fs::write(format!("{root}/new"), "y").unwrap();
            drop(fd);
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(dir.path().to_str().unwrap()));
            assert!(dir.path().join(format!("active{index}/fs/new")).exists());
        }
    }
}
