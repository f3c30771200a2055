//! What a `COPY` reads from: a directory tree on disk, or a context still in its archive.
//!
//! Both are asked the same few questions, with the same answers: look-ups stay inside the
//! root, links are followed as they would be after a `chroot`, names come sorted bytewise.

mod packed;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

pub(crate) use self::packed::{Builder, From, Packed, Piece};
use crate::fsys;

/// A SHA-256 of a file's contents.
pub(crate) type Hash = [u8; 32];

/// A tree of files that belongs to someone else.
#[derive(Debug)]
pub(crate) enum Tree {
    /// A directory on disk.
    Disk(OwnedFd),
    /// A context in memory, its contents in one file.
    Packed(Arc<Packed>),
}

impl Tree {
    /// Where `path` leads once every link on the way is followed. See [`fsys::resolve`].
    pub(crate) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        match self {
            Tree::Disk(root) => fsys::resolve(root.as_fd(), path),
            Tree::Packed(packed) => packed.resolve(path),
        }
    }

    /// A directory, links followed. The empty path is the root.
    pub(crate) fn dir(&self, path: &Path) -> io::Result<Folder<'_>> {
        match self {
            Tree::Disk(root) => Ok(Folder::Disk(fsys::dir_in(root.as_fd(), path)?)),
            Tree::Packed(packed) => Ok(Folder::Packed(packed, packed.dir(path)?)),
        }
    }

    /// A file whose last component is no link.
    pub(crate) fn file(&self, path: &Path) -> io::Result<Contents<'_>> {
        match self {
            Tree::Disk(root) => {
                // Not blocking: should it have become a FIFO, reading fails instead of waiting.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                Ok(Contents::whole(fsys::open_in(root.as_fd(), path, flags)?))
            }
            Tree::Packed(packed) => {
                let dir = packed.dir(path.parent().unwrap_or(Path::new("")))?;
                packed.file(dir, path.file_name().unwrap_or_default())
            }
        }
    }
}

/// One directory of a [`Tree`].
#[derive(Debug)]
pub(crate) enum Folder<'t> {
    /// On disk.
    Disk(OwnedFd),
    /// In memory.
    Packed(&'t Packed, packed::Id),
}

impl<'t> Folder<'t> {
    /// The directory's own status.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        match self {
            Folder::Disk(fd) => Ok(rustix::fs::fstat(fd)?),
            Folder::Packed(packed, id) => packed.stat(*id),
        }
    }

    /// The names in it, sorted bytewise.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        match self {
            Folder::Disk(fd) => fsys::names(fd.as_fd()),
            Folder::Packed(packed, id) => packed.names(*id),
        }
    }

    /// Status of an entry, no link followed; `None` when it is not there.
    pub(crate) fn lstat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match self {
            Folder::Disk(fd) => fsys::lstat_at(fd.as_fd(), name),
            Folder::Packed(packed, id) => packed.child(*id, name).map(|child| packed.stat(child)).transpose(),
        }
    }

    /// The target of a link.
    pub(crate) fn readlink(&self, name: &OsStr) -> io::Result<OsString> {
        match self {
            Folder::Disk(fd) => fsys::readlink_at(fd.as_fd(), name),
            Folder::Packed(packed, id) => packed.readlink(*id, name),
        }
    }

    /// Extended attributes of an entry, sorted by name.
    pub(crate) fn xattrs(&self, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        match self {
            Folder::Disk(fd) => fsys::xattrs(fd.as_fd(), name),
            Folder::Packed(packed, id) => Ok(packed.xattrs(*id, name)),
        }
    }

    /// The hash of a file's contents, where it is known without reading it.
    pub(crate) fn hash(&self, name: &OsStr) -> Option<Hash> {
        match self {
            Folder::Disk(_) => None,
            Folder::Packed(packed, id) => packed.hash(*id, name),
        }
    }

    /// A directory in it that is no link.
    pub(crate) fn dir(&self, name: &OsStr) -> io::Result<Folder<'t>> {
        match self {
            Folder::Disk(fd) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Ok(Folder::Disk(rustix::fs::openat(fd, name, flags, Mode::empty())?))
            }
            Folder::Packed(packed, id) => Ok(Folder::Packed(packed, packed.dir_at(*id, name)?)),
        }
    }

    /// A file in it that is no link.
    pub(crate) fn file(&self, name: &OsStr) -> io::Result<Contents<'t>> {
        match self {
            Folder::Disk(fd) => {
                // Not blocking: should it have become a FIFO, reading fails instead of waiting.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                Ok(Contents::whole(rustix::fs::openat(fd, name, flags, Mode::empty())?))
            }
            Folder::Packed(packed, id) => packed.file(*id, name),
        }
    }
}

/// The contents of one file: a file of its own, or a part of a larger one.
#[derive(Debug)]
pub(crate) struct Contents<'t> {
    file: Handle<'t>,
    at: u64,
    end: u64,
}

#[derive(Debug)]
enum Handle<'t> {
    Own(OwnedFd),
    Shared(BorrowedFd<'t>),
}

impl<'t> Contents<'t> {
    fn whole(file: OwnedFd) -> Contents<'static> {
        Contents { file: Handle::Own(file), at: 0, end: u64::MAX }
    }

    fn part(file: BorrowedFd<'t>, at: u64, size: u64) -> Contents<'t> {
        Contents { file: Handle::Shared(file), at, end: at.saturating_add(size) }
    }

    /// The file that holds the contents, and whether it holds nothing else.
    pub(crate) fn fd(&self) -> (BorrowedFd<'_>, bool) {
        match &self.file {
            Handle::Own(fd) => (fd.as_fd(), true),
            Handle::Shared(fd) => (*fd, false),
        }
    }

    /// Let the kernel copy at most `bytes` from here to the end of `to`. Returns how many.
    pub(crate) fn copy_range(&mut self, to: &OwnedFd, bytes: usize) -> rustix::io::Result<usize> {
        let most = bytes.min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let mut at = self.at;
        let n = rustix::fs::copy_file_range(self.fd().0, Some(&mut at), to, None, most)?;
        self.at = at;
        Ok(n)
    }
}

impl Read for Contents<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let n = loop {
            match rustix::io::pread(self.fd().0, &mut buf[..most], self.at) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        self.at += n as u64;
        Ok(n)
    }
}
