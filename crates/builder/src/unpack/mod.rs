//! Archives onto disk: image layers, the archives of `ADD`.
//!
//! One walk over the entries serves both; [`Rules`] says what whiteouts mean and whose the
//! files become. Every path is looked up inside the destination ([`crate::fsys`]); what an
//! archive may do outside it is nothing.

mod compression;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, XattrFlags, makedev};
use rustix::io::Errno;

pub(crate) use compression::decompress;

use crate::cancel::{Cancel, Cancelled};
use crate::fsys;
use crate::tarball::{Entry, Kind, Reader};

/// Contents are moved in pieces of this many bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// What marks a directory that hides everything below it.
pub(crate) fn opaque_xattr() -> &'static str {
    // Only the machine's own root may write the first; see the overlay option `userxattr`.
    if crate::rootless::in_user_namespace() { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// What `.wh.` files mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// Nothing: they are files.
    Plain,
    /// The destination is one layer of an overlay: leave overlay's own marks.
    Mark,
    /// The destination is the merged tree: remove what they name.
    Delete,
}

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub whiteouts: Whiteouts,
    /// Whether a parent that the archive leaves out is made; else it is [`UnpackError::NeedsLowers`].
    pub make_parents: bool,
    /// Owner of everything, instead of what the archive says.
    pub owner: Option<(u32, u32)>,
    pub entries_max: u64,
    pub bytes_max: u64,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub entries: u64,
    pub bytes: u64,
    /// Whether the archive said what the destination itself is to look like.
    pub root: bool,
}

/// Why an archive was not unpacked. What was written so far stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The archive is at fault: a sentence.
    #[error("{0}")]
    Refused(String),
    /// Under [`Whiteouts::Mark`]: the archive says too little to stand alone (a parent
    /// directory left out, a hard link to a file of a lower layer). Unpack it again on top
    /// of the merged lower layers.
    #[error("the layer does not stand alone")]
    NeedsLowers,
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Unpack `archive` (an uncompressed tar) into `dest`. Reads to the end of the archive, not
/// of the stream.
pub(crate) fn unpack(
    archive: &mut dyn Read,
    dest: BorrowedFd<'_>,
    rules: &Rules,
    cancel: &Cancel,
) -> Result<Unpacked, UnpackError> {
    let mut unpacker = Unpacker {
        dest,
        rules,
        cancel,
        parent: None,
        dir_times: Vec::new(),
        written: HashSet::new(),
        done: Unpacked::default(),
        piece: vec![0; PIECE_BYTES],
    };
    let mut reader = Reader::new(archive);
    while let Some(entry) = reader.next().map_err(refuse_invalid)? {
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()
}

/// Broken archives are the sender's fault, failing disks are not.
pub(crate) fn refuse_invalid(error: io::Error) -> UnpackError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            UnpackError::Refused(error.to_string())
        }
        _ if Cancel::is_cause_of(&error) => UnpackError::Cancelled(Cancelled),
        _ => UnpackError::Io(error),
    }
}

struct Unpacker<'a> {
    dest: BorrowedFd<'a>,
    rules: &'a Rules,
    cancel: &'a Cancel,
    /// The parent of the entry before: most entries come in runs from one directory.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Set at the end, when nothing is written into the directories any more.
    dir_times: Vec<(PathBuf, Timespec)>,
    /// What this archive wrote, under [`Whiteouts::Delete`]: whiteouts spare it.
    written: HashSet<PathBuf>,
    done: Unpacked,
    piece: Vec<u8>,
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry, contents: &mut dyn Read) -> Result<(), UnpackError> {
        self.cancel.check()?;
        self.done.entries += 1;
        if self.done.entries > self.rules.entries_max {
            return Err(UnpackError::Refused(format!("the archive has more than {} entries", self.rules.entries_max)));
        }
        if entry.size > self.rules.bytes_max - self.done.bytes {
            return Err(UnpackError::Refused(format!(
                "the archive unpacks to more than {} bytes",
                self.rules.bytes_max
            )));
        }
        let path = clean(&entry.path)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.root_entry(entry);
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.parent(&parent_path, entry)?;
        let result = self.entry_in(parent.as_fd(), entry, &path, &name, contents);
        if self.parent.is_none() {
            self.parent = Some((parent_path, parent));
        }
        result
    }

    fn entry_in(
        &mut self,
        parent: BorrowedFd<'_>,
        entry: &Entry,
        path: &Path,
        name: &OsStr,
        contents: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        if self.rules.whiteouts != Whiteouts::Plain
            && let Some(hidden) = name.as_bytes().strip_prefix(b".wh.")
        {
            return self.whiteout(parent, path, hidden);
        }
        if self.rules.whiteouts == Whiteouts::Delete {
            self.written.insert(path.to_owned());
        }
        match entry.kind {
            Kind::File => self.file(parent, entry, name, contents),
            Kind::Dir => self.dir(parent, entry, path, name),
            Kind::HardLink => self.hard_link(parent, entry, name),
            Kind::Symlink => {
                check_symlink(entry)?;
                self.create(parent, name, || rustix::fs::symlinkat(&entry.link[..], parent, name))?;
                self.metadata_at(parent, name, entry)
            }
            Kind::Fifo => {
                self.create(parent, name, || {
                    rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(entry.mode), 0)
                })?;
                self.metadata_at(parent, name, entry)
            }
            // Nobody makes devices in a user namespace. The layer stays as it is; only steps on
            // it do not see this one, nor could they use it.
            Kind::CharDevice | Kind::BlockDevice if crate::rootless::in_user_namespace() => Ok(()),
            Kind::CharDevice | Kind::BlockDevice => {
                let kind =
                    if entry.kind == Kind::CharDevice { FileType::CharacterDevice } else { FileType::BlockDevice };
                if kind == FileType::CharacterDevice && entry.device == (0, 0) {
                    return Err(UnpackError::Refused(format!(
                        "{} is a device 0:0, which only overlay file systems use",
                        show(&entry.path)
                    )));
                }
                let device = makedev(entry.device.0, entry.device.1);
                self.create(parent, name, || {
                    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(entry.mode), device)
                })?;
                self.metadata_at(parent, name, entry)
            }
        }
    }

    fn parent(&mut self, path: &Path, entry: &Entry) -> Result<OwnedFd, UnpackError> {
        if let Some((cached, fd)) = self.parent.take()
            && cached == path
        {
            return Ok(fd);
        }
        match fsys::dir_in(self.dest, path) {
            Ok(fd) => Ok(fd),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) if self.rules.make_parents => {
                    Ok(fsys::make_dirs(self.dest, path, Some(self.rules.owner.unwrap_or((0, 0))), None)?)
                }
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
                    if self.rules.whiteouts == Whiteouts::Mark && !self.rules.make_parents =>
                {
                    Err(UnpackError::NeedsLowers)
                }
                Some(Errno::NOTDIR | Errno::LOOP) => Err(UnpackError::Refused(format!(
                    "the archive has a path under something that is no directory: {}",
                    show(&entry.path)
                ))),
                _ => Err(error.into()),
            },
        }
    }

    /// Create with `make`; what is there already gives way.
    fn create<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        mut make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T, UnpackError> {
        match make() {
            Err(Errno::EXIST) => {
                fsys::remove_all(parent, name)?;
                self.parent = None;
                Ok(make().map_err(io::Error::from)?)
            }
            other => Ok(other.map_err(io::Error::from)?),
        }
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        entry: &Entry,
        name: &OsStr,
        contents: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.create(parent, name, || rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)))?;
        loop {
            let n = match contents.read(&mut self.piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(refuse_invalid(error)),
            };
            let mut rest = &self.piece[..n];
            while !rest.is_empty() {
                let written = rustix::io::write(&fd, rest).map_err(io::Error::from)?;
                rest = &rest[written..];
            }
            self.done.bytes += n as u64;
            self.cancel.check()?;
        }
        if let Some((uid, gid)) = self.owner(entry) {
            rustix::fs::fchown(&fd, fsys::uid(uid), fsys::gid(gid)).map_err(io::Error::from)?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode)).map_err(io::Error::from)?;
        for (key, value) in kept_xattrs(entry) {
            settle(rustix::fs::fsetxattr(&fd, key, value, XattrFlags::empty()))?;
        }
        rustix::fs::futimens(&fd, &fsys::mtime_only(entry.mtime)).map_err(io::Error::from)?;
        Ok(())
    }

    fn dir(&mut self, parent: BorrowedFd<'_>, entry: &Entry, path: &Path, name: &OsStr) -> Result<(), UnpackError> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = fsys::lstat_at(parent, name)?;
                let is_dir = there.is_some_and(|stat| fsys::kind(&stat) == FileType::Directory);
                if !is_dir {
                    let was_whiteout = there.is_some_and(|stat| is_whiteout(&stat));
                    self.create(parent, name, || rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)))?;
                    if was_whiteout && self.rules.whiteouts == Whiteouts::Mark {
                        fsys::set_xattr(parent, name, OsStr::new(opaque_xattr()), b"y")?;
                    }
                }
            }
            Err(error) => return Err(io::Error::from(error).into()),
        }
        self.metadata_at(parent, name, entry)?;
        self.dir_times.push((path.to_owned(), entry.mtime));
        Ok(())
    }

    fn hard_link(&mut self, parent: BorrowedFd<'_>, entry: &Entry, name: &OsStr) -> Result<(), UnpackError> {
        let target = clean(&entry.link).map_err(|_| {
            UnpackError::Refused(format!(
                "the archive has a link that leads outside: {} to {}",
                show(&entry.path),
                show(&entry.link)
            ))
        })?;
        let nothing = || match self.rules {
            Rules { whiteouts: Whiteouts::Mark, make_parents: false, .. } => UnpackError::NeedsLowers,
            _ => UnpackError::Refused(format!(
                "the archive has a hard link to something that is not in it: {} to {}",
                show(&entry.path),
                show(&entry.link)
            )),
        };
        let Some(target_name) = target.file_name() else {
            return Err(nothing());
        };
        let dir = match fsys::dir_in(self.dest, target.parent().unwrap_or(Path::new(""))) {
            Ok(dir) => dir,
            Err(error) if fsys::is_missing(&error) => return Err(nothing()),
            Err(error) => return Err(error.into()),
        };
        match fsys::lstat_at(dir.as_fd(), target_name)? {
            Some(stat) if !is_whiteout(&stat) && fsys::kind(&stat) != FileType::Directory => {
                // A link to itself must not remove what it names.
                let same = fsys::lstat_at(parent, name)?
                    .is_some_and(|own| own.st_dev == stat.st_dev && own.st_ino == stat.st_ino);
                if same {
                    return Ok(());
                }
            }
            _ => return Err(nothing()),
        }
        self.create(parent, name, || rustix::fs::linkat(&dir, target_name, parent, name, AtFlags::empty()))
    }

    fn whiteout(&mut self, parent: BorrowedFd<'_>, path: &Path, hidden: &[u8]) -> Result<(), UnpackError> {
        let dir = path.parent().unwrap_or(Path::new(""));
        if hidden == b".wh..opq" {
            if self.rules.whiteouts == Whiteouts::Mark {
                Ok(rustix::fs::fsetxattr(parent, opaque_xattr(), b"y", XattrFlags::empty()).map_err(io::Error::from)?)
            } else {
                for name in fsys::names(parent)? {
                    self.delete_unless_written(parent, &dir.join(&name), &name)?;
                }
                Ok(())
            }
        } else if hidden.starts_with(b".wh.") {
            // Bookkeeping of aufs.
            Ok(())
        } else if hidden.is_empty() || hidden == b"." || hidden == b".." {
            Err(UnpackError::Refused(format!(
                "the layer has a whiteout of nothing: {}",
                show(path.as_os_str().as_bytes())
            )))
        } else {
            let name = OsStr::from_bytes(hidden);
            if self.rules.whiteouts == Whiteouts::Delete {
                return self.delete_unless_written(parent, &dir.join(name), name);
            }
            match rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
                // The whiteout is of the lower layers' entry, not of this layer's own.
                Ok(()) => Ok(()),
                Err(Errno::EXIST) => {
                    if fsys::lstat_at(parent, name)?.is_some_and(|stat| fsys::kind(&stat) == FileType::Directory) {
                        fsys::set_xattr(parent, name, OsStr::new(opaque_xattr()), b"y")?;
                    }
                    Ok(())
                }
                Err(error) => Err(io::Error::from(error).into()),
            }
        }
    }

    /// Remove `path` from the merged tree, but keep what this archive itself put there.
    fn delete_unless_written(&mut self, parent: BorrowedFd<'_>, path: &Path, name: &OsStr) -> Result<(), UnpackError> {
        let is_dir = fsys::lstat_at(parent, name)?.is_some_and(|stat| fsys::kind(&stat) == FileType::Directory);
        let keeps_below = is_dir && self.written.iter().any(|written| written.starts_with(path) && written != path);
        if self.written.contains(path) && !is_dir {
            return Ok(());
        }
        if !self.written.contains(path) && !keeps_below {
            self.parent = None;
            return Ok(fsys::remove_all(parent, name)?);
        }
        if path.components().count() > fsys::DEPTH_MAX {
            return Err(UnpackError::Refused("the layer's directories are too deep".to_owned()));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(io::Error::from)?;
        for child in fsys::names(inner.as_fd())? {
            self.delete_unless_written(inner.as_fd(), &path.join(&child), &child)?;
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Dir || self.rules.whiteouts == Whiteouts::Plain {
            return Ok(());
        }
        self.done.root = true;
        let root = fsys::dir_in(self.dest, Path::new(""))?;
        if let Some((uid, gid)) = self.owner(entry) {
            rustix::fs::fchown(&root, fsys::uid(uid), fsys::gid(gid)).map_err(io::Error::from)?;
        }
        rustix::fs::fchmod(&root, Mode::from_raw_mode(entry.mode)).map_err(io::Error::from)?;
        for (key, value) in kept_xattrs(entry) {
            settle(rustix::fs::fsetxattr(&root, key, value, XattrFlags::empty()))?;
        }
        self.dir_times.push((PathBuf::new(), entry.mtime));
        Ok(())
    }

    /// Owner, mode, attributes and time of anything but a file; a directory's time waits.
    fn metadata_at(&self, parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        if let Some((uid, gid)) = self.owner(entry) {
            rustix::fs::chownat(parent, name, fsys::uid(uid), fsys::gid(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io::Error::from)?;
        }
        if entry.kind != Kind::Symlink {
            // Made a moment ago and no link, so the name cannot lead elsewhere.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(io::Error::from)?;
        }
        for (key, value) in kept_xattrs(entry) {
            settle(rustix::fs::lsetxattr(fsys::proc_path(parent, name), key, value, XattrFlags::empty()))?;
        }
        if entry.kind != Kind::Dir {
            rustix::fs::utimensat(parent, name, &fsys::mtime_only(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io::Error::from)?;
        }
        Ok(())
    }

    /// Whom to give it to; `None` where it has the right owner from birth.
    fn owner(&self, entry: &Entry) -> Option<(u32, u32)> {
        match self.rules.owner {
            Some((0, 0)) => None,
            Some(owner) => Some(owner),
            None => Some((entry.uid, entry.gid)),
        }
    }

    fn finish(self) -> Result<Unpacked, UnpackError> {
        for (path, mtime) in &self.dir_times {
            // A later entry may have replaced the directory.
            if let Ok(dir) = fsys::dir_in(self.dest, path) {
                rustix::fs::futimens(&dir, &fsys::mtime_only(*mtime)).map_err(io::Error::from)?;
            }
        }
        Ok(self.done)
    }
}

/// The path inside the destination, without `.` and doubled slashes.
fn clean(path: &[u8]) -> Result<PathBuf, UnpackError> {
    if path.contains(&0) {
        return Err(UnpackError::Refused("the archive has a path with a zero byte".to_owned()));
    }
    let mut out = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir if !out.pop() => {
                return Err(UnpackError::Refused(format!("the archive has a path with \"..\": {}", show(path))));
            }
            _ => {}
        }
    }
    Ok(out)
}

fn check_symlink(entry: &Entry) -> Result<(), UnpackError> {
    if entry.link.is_empty() || entry.link.contains(&0) {
        return Err(UnpackError::Refused(format!("the archive has a link to nothing: {}", show(&entry.path))));
    }
    Ok(())
}

fn kept_xattrs(entry: &Entry) -> impl Iterator<Item = (&OsStr, &[u8])> {
    let kept = entry.xattrs.iter().filter(|(key, _)| keep_xattr(key));
    kept.map(|(key, value)| (OsStr::from_bytes(key), &value[..]))
}

/// Whether an attribute is the file's own and not overlay's bookkeeping.
pub(crate) fn keep_xattr(key: &[u8]) -> bool {
    !key.starts_with(b"trusted.overlay.") && !key.starts_with(b"user.overlay.")
}

/// Whether a status is of overlay's mark for a removed entry.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    fsys::kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Attributes that this file system or kernel does not take are left out, as docker does.
fn settle(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
