//! Places to mount on that an image lacks.
//!
//! A mount needs something to stand on, and what is made for it must not end up in the
//! layer: it is made before the step, and removed after it unless the step made use of it.
//! The parents get their modification times back, so that a step that changed nothing leaves
//! nothing.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec};
use rustix::io::Errno;

use crate::fsys;

/// What was made, in the order it was made.
#[derive(Debug, Default)]
pub(super) struct Stubs {
    made: Vec<Stub>,
    owner: u32,
}

#[derive(Debug)]
struct Stub {
    parent: PathBuf,
    name: OsString,
    dir: bool,
    before: Timespec,
    after: Timespec,
}

impl Stubs {
    /// Stubs that belong to `owner`, a user and group of the host: the step's root.
    pub(super) fn of(owner: u32) -> Stubs {
        Stubs { made: Vec::new(), owner }
    }

    /// Make sure that `target` is there, as a directory or a file, and say where it really
    /// is: every link followed. `None` when something of the other kind is in its place.
    pub(super) fn place(&mut self, root: BorrowedFd<'_>, target: &str, dir: bool) -> io::Result<Option<PathBuf>> {
        let path = fsys::resolve(root, Path::new(target))?;
        let mut at = PathBuf::new();
        let count = path.components().count();
        for (index, part) in path.components().enumerate() {
            let (name, last) = (part.as_os_str(), index + 1 == count);
            let parent = fsys::dir_in(root, &at)?;
            let wanted = if last && !dir { FileType::RegularFile } else { FileType::Directory };
            match fsys::lstat_at(parent.as_fd(), name)? {
                Some(stat) if fsys::kind(&stat) == wanted => {}
                Some(_) => return Ok(None),
                None => {
                    let before = fsys::mtime(&rustix::fs::fstat(&parent)?);
                    if wanted == FileType::Directory {
                        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                    } else {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        drop(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?);
                    }
                    let (uid, gid) = (fsys::uid(self.owner), fsys::gid(self.owner));
                    rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                    let after = fsys::mtime(&rustix::fs::fstat(&parent)?);
                    let stub = Stub {
                        parent: at.clone(),
                        name: name.to_owned(),
                        dir: wanted == FileType::Directory,
                        before,
                        after,
                    };
                    self.made.push(stub);
                }
            }
            at.push(name);
        }
        Ok(Some(at))
    }

    /// Remove what is still as it was made.
    pub(super) fn remove(self, root: BorrowedFd<'_>) -> io::Result<()> {
        for stub in self.made.into_iter().rev() {
            let parent = match fsys::dir_in(root, &stub.parent) {
                Ok(parent) => parent,
                Err(error) if fsys::is_missing(&error) => continue,
                Err(error) => return Err(error),
            };
            let now = fsys::mtime(&rustix::fs::fstat(&parent)?);
            let removed = if stub.dir {
                rustix::fs::unlinkat(&parent, &stub.name, AtFlags::REMOVEDIR)
            } else {
                match fsys::lstat_at(parent.as_fd(), &stub.name)? {
                    Some(stat) if fsys::kind(&stat) == FileType::RegularFile && stat.st_size == 0 => {
                        rustix::fs::unlinkat(&parent, &stub.name, AtFlags::empty())
                    }
                    _ => continue,
                }
            };
            match removed {
                Ok(()) => {}
                // The step put something in, or something else in its place.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(error.into()),
            }
            let time = if now == stub.after { stub.before } else { now };
            rustix::fs::futimens(&parent, &fsys::mtime_only(time))?;
        }
        Ok(())
    }
}
