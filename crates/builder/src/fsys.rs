//! Paths inside a root that is not ours: an image, a layer, a context.
//!
//! Whatever lies under such a root was made by someone else, symbolic links included, so
//! no path below it is ever handed to the kernel as a plain string. Every look-up starts at
//! a directory descriptor and is done by `openat2` with `RESOLVE_IN_ROOT`: absolute links
//! and `..` stay inside, as they would after a `chroot`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::cancel::Cancel;

/// How many links a path may go through, as the kernel has it.
const LINKS_MAX: usize = 40;
/// How deep a directory tree may be. The kernel has no such limit; a recursion here has.
pub(crate) const DEPTH_MAX: usize = 1_000;
/// Folders that removing keeps open at one time.
const REMOVE_DEPTH_MAX: usize = 64;
/// The longest list of attribute names and the longest value that Linux allows.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Open a directory that is ours by its host path.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// `openat2` that stays inside `root`. An empty path is the root itself.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        // EAGAIN says that something moved while the kernel was checking for an escape.
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

/// A directory inside `root`, links followed.
pub(crate) fn dir_in(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open_in(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// A regular file inside `root`, links followed, read whole; `None` when it is not there or
/// longer than `bytes_max`.
pub(crate) fn read_in(root: BorrowedFd<'_>, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    // Not blocking, in case the image has a FIFO in the file's place.
    let file = match open_in(root, path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fd) => File::from(fd),
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > bytes_max {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Whether an error says that a path leads nowhere.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Status without following a link in the last component; `None` when it is not there.
pub(crate) fn lstat_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The kind of file a status tells of.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The time of last modification a status tells of.
pub(crate) fn mtime(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ }
}

/// Times for `utimensat` that set only the modification time.
pub(crate) fn mtime_only(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT }, last_modification: mtime }
}

/// The target of a link.
pub(crate) fn readlink_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OsString> {
    Ok(OsString::from_vec(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes()))
}

/// The components of a path as they count under a root: no root, no `.`; `..` takes one
/// back, but not beyond the root.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Where `path` leads inside `root` once every link on the way is followed. The last
/// component and those behind a missing one need not be there.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &Path) -> io::Result<PathBuf> {
    let mut rest: Vec<OsString> = components_reversed(path);
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let parent = open_in(root, &at, OFlags::PATH);
        let is_link = match &parent {
            Ok(parent) => lstat_at(parent.as_fd(), &name)?.is_some_and(|stat| kind(&stat) == FileType::Symlink),
            Err(_) => false,
        };
        match parent {
            Ok(parent) if is_link => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                let target = PathBuf::from(readlink_at(parent.as_fd(), &name)?);
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                rest.extend(components_reversed(&target));
            }
            _ => at = next,
        }
    }
    Ok(at)
}

fn components_reversed(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    parts.reverse();
    parts
}

/// Make the directory `path` inside `root`, and its parents, where they are missing; links
/// on the way are followed. What is made gets mode 0755, the owner and, where given, the
/// modification time. A parent's set-group-ID bit is inherited, and without an owner its
/// group too, as docker's are. Returns the directory.
pub(crate) fn make_dirs(
    root: BorrowedFd<'_>,
    path: &Path,
    owner: Option<(u32, u32)>,
    mtime: Option<Timespec>,
) -> io::Result<OwnedFd> {
    match dir_in(root, path) {
        Err(error) if is_missing(&error) => {}
        other => return other,
    }
    let path = resolve(root, path)?;
    let mut at = dir_in(root, Path::new(""))?;
    for part in path.components() {
        let name = part.as_os_str();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = match rustix::fs::openat(&at, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let next = rustix::fs::openat(&at, name, flags, Mode::empty())?;
                let inherited = rustix::fs::fstat(&next)?.st_mode & 0o2000;
                if let Some(owner) = owner {
                    rustix::fs::fchown(&next, uid(owner.0), gid(owner.1))?;
                }
                rustix::fs::fchmod(&next, Mode::from_raw_mode(0o755 | inherited))?;
                if let Some(mtime) = mtime {
                    rustix::fs::futimens(&next, &mtime_only(mtime))?;
                }
                next
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(at)
}

/// A user id for rustix.
pub(crate) fn uid(id: u32) -> Option<rustix::fs::Uid> {
    // The all-ones value means "leave as it is" to the kernel.
    (id != u32::MAX).then(|| rustix::fs::Uid::from_raw(id))
}

/// A group id for rustix.
pub(crate) fn gid(id: u32) -> Option<rustix::fs::Gid> {
    (id != u32::MAX).then(|| rustix::fs::Gid::from_raw(id))
}

/// The names in a directory, sorted bytewise, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Remove `name` in `dir`, with everything under it; nothing there is fine. However deep it
/// is and however much is in it: what lies deep is moved up first, beside `name`.
pub(crate) fn remove_all(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    remove_all_until(dir, name, &Cancel::new())
}

/// The same, until told to stop; then the rest is left.
pub(crate) fn remove_all_until(dir: BorrowedFd<'_>, name: &OsStr, stop: &Cancel) -> io::Result<()> {
    let mut todo = vec![name.to_owned()];
    while let Some(name) = todo.pop() {
        remove_at_depth((dir, &mut todo, stop), dir, &name, 0)?;
    }
    Ok(())
}

/// `top` is where to move what is deep, and what was moved.
fn remove_at_depth(
    top: (BorrowedFd<'_>, &mut Vec<OsString>, &Cancel),
    dir: BorrowedFd<'_>,
    name: &OsStr,
    depth: usize,
) -> io::Result<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let (top, moved, stop) = top;
    stop.check()?;
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    if depth >= REMOVE_DEPTH_MAX {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let aside = OsString::from(format!(".deep-{}-{serial}", std::process::id()));
        rustix::fs::renameat(dir, name, top, &aside)?;
        moved.push(aside);
        return Ok(());
    }
    let inner = rustix::fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Not all names at once: there may be millions. Reading goes on after what was removed.
    loop {
        let mut found = false;
        for entry in rustix::fs::Dir::read_from(&inner)? {
            let entry = entry?;
            let child = entry.file_name();
            if !matches!(child.to_bytes(), b"." | b"..") {
                found = true;
                remove_at_depth((top, moved, stop), inner.as_fd(), OsStr::from_bytes(child.to_bytes()), depth + 1)?;
            }
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if found => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A host path for `name` in an open directory, for the calls that know no `at` form. Only
/// the last component is looked up, so no link before it can lead astray; it must not be
/// empty, or the call would see the link in `/proc`.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    use std::os::fd::AsRawFd;
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(name);
    path
}

/// The extended attributes of `name` in `dir` (not of what it links to), sorted by name.
pub(crate) fn xattrs(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let path = proc_path(dir, name);
    // Most files have none, and the query tells so without a buffer.
    match rustix::fs::llistxattr_query(&path) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut list = vec![0u8; XATTR_BYTES_MAX];
    let length = rustix::fs::llistxattr(&path, &mut list[..])?;
    let mut value = vec![0u8; XATTR_BYTES_MAX];
    let mut out = Vec::new();
    for key in list[..length].split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        match rustix::fs::lgetxattr(&path, key, &mut value[..]) {
            Ok(length) => out.push((OsStr::from_bytes(key).to_owned(), value[..length].to_vec())),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// Set an extended attribute of `name` in `dir` (not of what it links to).
pub(crate) fn set_xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(proc_path(dir, name), key, value, XattrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_never_leave_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        std::fs::create_dir_all(inside.join("real/deep")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(inside.join("secret"), "inside").unwrap();
        symlink("/real", inside.join("abs")).unwrap();
        symlink("../../../../secret", inside.join("real/up")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        let root = open_root(&inside).unwrap();
        let root = root.as_fd();
        assert_eq!(resolve(root, Path::new("/abs/deep/../new/x")).unwrap(), Path::new("real/new/x"));
        assert_eq!(read_in(root, Path::new("abs/up"), 100).unwrap().unwrap(), b"inside");
        assert_eq!(read_in(root, Path::new("../secret"), 100).unwrap().unwrap(), b"inside");
        assert_eq!(read_in(root, Path::new("secret"), 3).unwrap(), None);
        assert!(resolve(root, Path::new("loop/x")).is_err());
        make_dirs(root, Path::new("abs/made/here"), None, None).unwrap();
        assert!(inside.join("real/made/here").is_dir());
        assert!(!dir.path().join("made").exists());
        remove_all(root, OsStr::new("real")).unwrap();
        assert!(!inside.join("real").exists());
    }
}
