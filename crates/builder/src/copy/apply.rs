//! Writing what was chosen.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::select::{Item, Source};
use super::{CopyError, CopyOpts, Plan};
use crate::cancel::Cancel;
use crate::fsys;
use crate::tarball;
use crate::tree::{Contents, Folder, Tree};
use crate::unpack::{self, Rules, UnpackError, Whiteouts};

/// Contents are moved in pieces of this many bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// From this size on it is worth asking the kernel to share or copy by itself.
const CLONE_BYTES_MIN: u64 = 128 * 1024;
/// Entries and bytes of an archive that `ADD` unpacks: as much as a layer's.
const ARCHIVE_ENTRIES_MAX: u64 = 10_000_000;
const ARCHIVE_BYTES_MAX: u64 = portolan_types::limits::BLOB_BYTES_MAX;

struct Copier<'a> {
    source_root: &'a Tree,
    dest_root: BorrowedFd<'a>,
    opts: &'a CopyOpts,
    cancel: &'a Cancel,
    /// Files with several names: where each was first written below the root.
    links: HashMap<(u64, u64), PathBuf>,
    /// Whether the two file systems have refused to share or copy among themselves.
    no_clone: bool,
    no_range: bool,
    piece: Vec<u8>,
}

pub(super) fn apply(
    plan: &Plan,
    dest_root: &Path,
    dest: &str,
    workdir: &str,
    opts: &CopyOpts,
    cancel: &Cancel,
) -> Result<(), CopyError> {
    let root = fsys::open_root(dest_root)?;
    let mut copier = Copier {
        source_root: &plan.root,
        dest_root: root.as_fd(),
        opts,
        cancel,
        links: HashMap::new(),
        no_clone: false,
        no_range: false,
        piece: vec![0; PIECE_BYTES],
    };
    let wanted = Path::new("/").join(workdir).join(dest);
    let last = dest.rsplit('/').next().unwrap_or_default();
    let mut into_dir = matches!(last, "" | "." | "..");
    let dest = fsys::resolve(root.as_fd(), &wanted)?;
    if !into_dir && plan.sources.len() > 1 {
        into_dir = fsys::dir_in(root.as_fd(), &dest).is_ok();
        if !into_dir {
            return Err(CopyError::User(
                "when more than one source file is copied, the destination must be a directory and end with a /"
                    .to_owned(),
            ));
        }
    }
    for source in &plan.sources {
        copier.source(source, &dest, into_dir)?;
    }
    Ok(())
}

impl Copier<'_> {
    fn source(&mut self, source: &Source, dest: &Path, into_dir: bool) -> Result<(), CopyError> {
        // As BuildKit does: names of one file stay together within a source, not across sources.
        self.links.clear();
        if source.dir {
            let to = self.make_dirs(dest)?;
            let from = self.source_root.dir(&source.path)?;
            return self.tree(&source.items, from, to, dest);
        }
        let Some(item) = source.items.first() else { return Ok(()) };
        let from = self.source_root.dir(source.path.parent().unwrap_or(Path::new("")))?;
        let from_name = source.path.file_name().unwrap_or_default();
        if self.opts.unpack && fsys::kind(&item.stat) == FileType::RegularFile && self.unpack(&from, from_name, dest)? {
            return Ok(());
        }
        if into_dir || fsys::dir_in(self.dest_root, dest).is_ok() {
            let to = self.make_dirs(dest)?;
            self.leaf(item, &from, from_name, to.as_fd(), &source.name, &dest.join(&source.name))
        } else {
            let parent = dest.parent().unwrap_or(Path::new(""));
            let to = self.make_dirs(parent)?;
            self.leaf(item, &from, from_name, to.as_fd(), dest.file_name().unwrap_or_default(), dest)
        }
    }

    fn make_dirs(&self, path: &Path) -> Result<OwnedFd, CopyError> {
        fsys::make_dirs(self.dest_root, path, self.opts.chown, None).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::NOTDIR | Errno::EXIST | Errno::LOOP) => {
                    CopyError::User(format!("cannot copy to non-directory: /{}", path.display()))
                }
                _ => error.into(),
            }
        })
    }

    /// The contents of a directory. Items come parents first, so a stack of open directories
    /// always has the parent of the next one.
    fn tree(&mut self, items: &[Item], from: Folder<'_>, to: OwnedFd, dest: &Path) -> Result<(), CopyError> {
        struct Level<'i, 't> {
            item: Option<&'i Item>,
            rel: &'i Path,
            from: Folder<'t>,
            to: OwnedFd,
        }
        let mut stack = vec![Level { item: None, rel: Path::new(""), from, to }];
        let close = |level: Level<'_, '_>| match level.item {
            // Last, because writing into it changed it.
            Some(item) => {
                rustix::fs::futimens(&level.to, &fsys::mtime_only(fsys::mtime(&item.stat))).map_err(io::Error::from)
            }
            None => Ok(()),
        };
        for item in items {
            let parent = item.rel.parent().unwrap_or(Path::new(""));
            while stack.last().is_some_and(|level| level.rel != parent) {
                stack.pop().map_or(Ok(()), close)?;
            }
            let Some(level) = stack.last() else { break };
            let name = item.rel.file_name().unwrap_or_default();
            if fsys::kind(&item.stat) == FileType::Directory {
                let to = self.dir(item, level.to.as_fd(), name, &dest.join(&item.rel))?;
                let from = level.from.dir(name)?;
                stack.push(Level { item: Some(item), rel: &item.rel, from, to });
            } else {
                self.leaf(item, &level.from, name, level.to.as_fd(), name, &dest.join(&item.rel))?;
            }
        }
        while let Some(level) = stack.pop() {
            close(level)?;
        }
        Ok(())
    }

    fn owner(&self, stat: &Stat) -> (u32, u32) {
        match self.opts.chown {
            Some(owner) => owner,
            None if self.opts.keep_owner => (stat.st_uid, stat.st_gid),
            None => (0, 0),
        }
    }

    fn mode(&self, stat: &Stat) -> Mode {
        let mode = match &self.opts.chmod {
            Some(chmod) => chmod.apply(stat.st_mode, fsys::kind(stat) == FileType::Directory),
            None => stat.st_mode,
        };
        Mode::from_raw_mode(mode & 0o7777)
    }

    fn dir(&mut self, item: &Item, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, CopyError> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let dir = open_dir(parent, name).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOTDIR | Errno::LOOP) => {
                CopyError::User(format!("cannot copy to non-directory: /{}", path.display()))
            }
            _ => error.into(),
        })?;
        self.fd_metadata(&dir, item)?;
        Ok(dir)
    }

    fn fd_metadata(&self, fd: &OwnedFd, item: &Item) -> io::Result<()> {
        let (uid, gid) = self.owner(&item.stat);
        rustix::fs::fchown(fd, fsys::uid(uid), fsys::gid(gid))?;
        rustix::fs::fchmod(fd, self.mode(&item.stat))?;
        for (key, value) in &item.xattrs {
            match rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Anything but a directory.
    fn leaf(
        &mut self,
        item: &Item,
        from: &Folder<'_>,
        from_name: &OsStr,
        to: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), CopyError> {
        self.cancel.check().map_err(|_| CopyError::Cancelled)?;
        let stat = &item.stat;
        if stat.st_nlink > 1 {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => {
                    let (first_dir, first_name) =
                        (first.parent().unwrap_or(Path::new("")), first.file_name().unwrap_or_default());
                    let first_dir = fsys::dir_in(self.dest_root, first_dir)?;
                    return create(to, name, path, || {
                        rustix::fs::linkat(&first_dir, first_name, to, name, AtFlags::empty())
                    });
                }
                None => {
                    self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
                }
            }
        }
        let kind = fsys::kind(stat);
        match kind {
            FileType::RegularFile => return self.file(item, from, from_name, to, name, path),
            FileType::Symlink => create(to, name, path, || rustix::fs::symlinkat(&item.link, to, name))?,
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                create(to, name, path, || {
                    rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
                })?;
            }
            _ => return Ok(()),
        }
        let (uid, gid) = self.owner(stat);
        let error = io::Error::from;
        rustix::fs::chownat(to, name, fsys::uid(uid), fsys::gid(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(error)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, self.mode(stat), AtFlags::empty()).map_err(error)?;
        }
        rustix::fs::utimensat(to, name, &fsys::mtime_only(fsys::mtime(stat)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(error)?;
        Ok(())
    }

    fn file(
        &mut self,
        item: &Item,
        from: &Folder<'_>,
        from_name: &OsStr,
        to: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), CopyError> {
        let mut source = from.file(from_name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = create(to, name, path, || rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600)))?;
        self.contents(&mut source, &file, u64::try_from(item.stat.st_size).unwrap_or(0))?;
        self.fd_metadata(&file, item)?;
        Ok(rustix::fs::futimens(&file, &fsys::mtime_only(fsys::mtime(&item.stat))).map_err(io::Error::from)?)
    }

    fn contents(&mut self, from: &mut Contents<'_>, to: &OwnedFd, size: u64) -> Result<(), CopyError> {
        let (fd, whole) = from.fd();
        if size >= CLONE_BYTES_MIN && whole && !self.no_clone {
            match rustix::fs::ioctl_ficlone(to, fd) {
                Ok(()) => return Ok(()),
                Err(_) => self.no_clone = true,
            }
        }
        if size >= CLONE_BYTES_MIN && !self.no_range {
            let mut copied = 0u64;
            while copied < size {
                self.cancel.check().map_err(|_| CopyError::Cancelled)?;
                let piece = usize::try_from(size - copied).unwrap_or(usize::MAX).min(64 << 20);
                match from.copy_range(to, piece) {
                    Ok(0) => break,
                    Ok(n) => copied += n as u64,
                    Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if copied == 0 => {
                        self.no_range = true;
                        break;
                    }
                    Err(error) => return Err(io::Error::from(error).into()),
                }
            }
        }
        // To the end, also where the file has become longer or the kernel copied only a part.
        loop {
            let n = match from.read(&mut self.piece)? {
                0 => return Ok(()),
                n => n,
            };
            let mut rest = &self.piece[..n];
            while !rest.is_empty() {
                let written = rustix::io::write(to, rest).map_err(io::Error::from)?;
                rest = &rest[written..];
            }
            if n as u64 == size {
                // The usual small file: no second read to see its end.
                return Ok(());
            }
            self.cancel.check().map_err(|_| CopyError::Cancelled)?;
        }
    }

    /// Unpack an archive into the directory `dest`. False when it is none.
    fn unpack(&mut self, from: &Folder<'_>, name: &OsStr, dest: &Path) -> Result<bool, CopyError> {
        if !is_archive(from.file(name)?)? {
            return Ok(false);
        }
        let file = from.file(name)?;
        let to = self.make_dirs(dest)?;
        let rules = Rules {
            whiteouts: Whiteouts::Plain,
            make_parents: true,
            owner: self.opts.chown,
            entries_max: ARCHIVE_ENTRIES_MAX,
            bytes_max: ARCHIVE_BYTES_MAX,
        };
        let refused = |reason: &dyn std::fmt::Display| CopyError::User(format!("unpack {}: {reason}", name.display()));
        let mut tar = unpack::decompress(file).map_err(|error| refused(&error))?;
        match unpack::unpack(&mut tar, to.as_fd(), &rules, self.cancel) {
            Ok(_) => Ok(true),
            Err(UnpackError::Cancelled(_)) => Err(CopyError::Cancelled),
            Err(UnpackError::Io(error)) => Err(error.into()),
            Err(other) => Err(refused(&other)),
        }
    }
}

fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Create with `make`; a file in the way gives way, a directory does not.
fn create<T>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    mut make: impl FnMut() -> rustix::io::Result<T>,
) -> Result<T, CopyError> {
    match make() {
        Err(Errno::EXIST) => {}
        other => return Ok(other.map_err(io::Error::from)?),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(make().map_err(io::Error::from)?),
        Err(Errno::ISDIR | Errno::PERM) => {
            Err(CopyError::User(format!("cannot replace directory /{} with a file", path.display())))
        }
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Whether a file is what `ADD` unpacks: a tar, compressed or not.
fn is_archive(file: Contents<'_>) -> io::Result<bool> {
    let tar = match unpack::decompress(file) {
        Ok(tar) => tar,
        Err(error) if error.raw_os_error().is_none() => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(matches!(tarball::Reader::new(tar).next(), Ok(Some(_))))
}
