//! A layer out of the top of a [`Chain`].
//!
//! The top layer's directory is walked once, in the order of names, and written as a tar: new
//! and changed entries as they are, overlayfs's whiteouts as `.wh.` files (image-spec,
//! layer.md). A directory that is there only because something below it changed, and looks
//! as it did before, appears only if something below it does.

mod compress;
mod redate;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use portolan_types::oci::Descriptor;
use portolan_types::{Digest, media_type};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec};
use rustix::io::Errno;

use self::compress::Compressor;
pub use self::redate::redate;
use crate::cancel::Cancel;
use crate::fsys;
use crate::ports::Content;
use crate::snapshot::Chain;
use crate::tarball::{self, BLOCK, Entry, Kind};
use crate::unpack::{is_whiteout, opaque_xattr};

/// A layer in the content store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The compressed blob, of media type [`portolan_types::media_type::DOCKER_LAYER_GZIP`].
    pub blob: Descriptor,
    /// Whether it holds no entry at all.
    pub empty: bool,
}

/// Write the top layer of `chain`, as it differs from the layers below, to `content` (not
/// yet durable). May run on any thread, beside steps that build on the same chain.
/// `epoch_secs_max` clamps modification times (SOURCE_DATE_EPOCH).
pub fn write_layer(
    chain: &Chain,
    content: &dyn Content,
    epoch_secs_max: Option<i64>,
    cancel: &Cancel,
) -> io::Result<Layer> {
    let mut dirs = chain.dirs().rev();
    let top = dirs.next().ok_or_else(|| io::Error::other("an empty chain has no layer to write"))?;
    let top = fsys::open_root(top)?;
    let lowers = dirs.map(fsys::open_root).collect::<io::Result<Vec<OwnedFd>>>()?;
    let (compressed, entries) = std::thread::scope(|scope| {
        let out = Compressor::new(scope, content.create()?)?;
        let mut walk = Walk {
            out,
            lowers: &lowers,
            epoch_secs_max,
            cancel,
            pending: Vec::new(),
            links: HashMap::new(),
            entries: 0,
            path: Vec::new(),
        };
        let every_lower: Vec<usize> = (0..lowers.len()).collect();
        walk.dir(top.as_fd(), &every_lower, 0)?;
        walk.out.buffer().extend_from_slice(&[0; 2 * BLOCK]);
        walk.out.filled()?;
        Ok::<_, io::Error>((walk.out.finish()?, walk.entries))
    })?;
    Ok(Layer {
        diff_id: compressed.diff_id,
        blob: Descriptor::new(media_type::DOCKER_LAYER_GZIP, compressed.blob, compressed.size),
        empty: entries == 0,
    })
}

struct Walk<'a, 'scope, 'env> {
    out: Compressor<'scope, 'env>,
    /// The layers below, uppermost first.
    lowers: &'a [OwnedFd],
    epoch_secs_max: Option<i64>,
    cancel: &'a Cancel,
    /// Unchanged directories on the way down, to be written if something below is.
    pending: Vec<Entry>,
    /// Files with several names: where each was first written, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
    /// Of the directory under way, with a slash at the end; empty for the root.
    path: Vec<u8>,
}

impl Walk<'_, '_, '_> {
    /// Everything in one directory. `lowers` are those layers below that have it too.
    fn dir(&mut self, dir: BorrowedFd<'_>, lowers: &[usize], depth: usize) -> io::Result<()> {
        if depth > fsys::DEPTH_MAX {
            return Err(io::Error::other("the layer's directories are too deep"));
        }
        self.cancel.check()?;
        for name in fsys::names(dir)? {
            self.cancel.check()?;
            let Some(stat) = fsys::lstat_at(dir, &name)? else { continue };
            let parent = self.path.len();
            self.path.extend_from_slice(name.as_bytes());
            let result = if is_whiteout(&stat) {
                self.path.truncate(parent);
                self.path.extend_from_slice(b".wh.");
                self.path.extend_from_slice(name.as_bytes());
                self.write(&self.whiteout())
            } else if fsys::kind(&stat) == FileType::Directory {
                self.subdir(dir, &name, &stat, lowers, depth)
            } else {
                self.leaf(dir, &name, &stat)
            };
            self.path.truncate(parent);
            result?;
        }
        Ok(())
    }

    fn subdir(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        lowers: &[usize],
        depth: usize,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let all = fsys::xattrs(parent, name)?;
        let opaque = is_opaque(&all);
        let (below, below_stat) = self.lookup(lowers)?;
        let xattrs = kept(all);
        let changed = opaque
            || match below_stat {
                Some((layer, before)) => !same_dir(stat, &before) || self.lower_xattrs(layer)? != xattrs,
                None => true,
            };
        let mut entry = self.entry(stat, Kind::Dir, xattrs);
        entry.path.push(b'/');
        self.path.push(b'/');
        let pending = self.pending.len();
        self.pending.push(entry);
        if changed {
            self.flush_pending()?;
        }
        if opaque && below_stat.is_some() {
            self.path.extend_from_slice(b".wh..wh..opq");
            let whiteout = self.whiteout();
            self.path.truncate(self.path.len() - b".wh..wh..opq".len());
            self.write(&whiteout)?;
        }
        self.dir(dir.as_fd(), if opaque { &[] } else { &below }, depth + 1)?;
        self.pending.truncate(pending);
        Ok(())
    }

    fn leaf(&mut self, parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<()> {
        let kind = match fsys::kind(stat) {
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            // A socket means nothing without the process that made it.
            _ => return Ok(()),
        };
        let mut entry = self.entry(stat, kind, Vec::new());
        if stat.st_nlink > 1 && kind != Kind::Dir {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => {
                    entry.kind = Kind::HardLink;
                    entry.link = first.clone();
                    return self.write(&entry);
                }
                None => {
                    self.links.insert((stat.st_dev, stat.st_ino), entry.path.clone());
                }
            }
        }
        entry.xattrs = kept(fsys::xattrs(parent, name)?);
        match kind {
            Kind::File => {
                entry.size = u64::try_from(stat.st_size).unwrap_or(0);
                self.write(&entry)?;
                self.contents(parent, name, entry.size)
            }
            Kind::Symlink => {
                entry.link = fsys::readlink_at(parent, name)?.as_bytes().to_vec();
                self.write(&entry)
            }
            _ => {
                entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                self.write(&entry)
            }
        }
    }

    fn contents(&mut self, parent: BorrowedFd<'_>, name: &OsStr, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.out.room());
            let buffer = self.out.buffer();
            let start = buffer.len();
            buffer.resize(start + most, 0);
            let n = loop {
                match rustix::io::read(&file, &mut buffer[start..]) {
                    Err(Errno::INTR) => {}
                    other => break other?,
                }
            };
            buffer.truncate(start + n);
            if n == 0 {
                return Err(io::Error::other("a file of a finished layer became shorter"));
            }
            left -= n as u64;
            self.out.filled()?;
            self.cancel.check()?;
        }
        let padding = tarball::padding(size);
        let buffer = self.out.buffer();
        buffer.resize(buffer.len() + padding, 0);
        self.out.filled()
    }

    /// The layers among `lowers` that have the directory under way, and what it looks like
    /// to someone above them: the first layer that has anything there, and its status.
    #[allow(clippy::type_complexity, reason = "used in one place")]
    fn lookup(&self, lowers: &[usize]) -> io::Result<(Vec<usize>, Option<(usize, Stat)>)> {
        let path = OsStr::from_bytes(&self.path);
        let mut below = Vec::new();
        let mut first = None;
        for &layer in lowers {
            let Some(root) = self.lowers.get(layer) else { break };
            // Every component before the last is known to be a directory there.
            let stat = match rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(error.into()),
            };
            if is_whiteout(&stat) {
                break;
            }
            first = first.or(Some((layer, stat)));
            if fsys::kind(&stat) != FileType::Directory {
                break;
            }
            below.push(layer);
            if is_opaque(&self.xattrs_in(layer)?) {
                break;
            }
        }
        Ok((below, first))
    }

    fn xattrs_in(&self, layer: usize) -> io::Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
        match self.lowers.get(layer) {
            Some(root) => fsys::xattrs(root.as_fd(), OsStr::from_bytes(&self.path)),
            None => Ok(Vec::new()),
        }
    }

    fn lower_xattrs(&self, layer: usize) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(kept(self.xattrs_in(layer)?))
    }

    fn entry(&self, stat: &Stat, kind: Kind, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
        let seconds = fsys::mtime(stat).tv_sec;
        let seconds = self.epoch_secs_max.map_or(seconds, |most| seconds.min(most));
        Entry {
            path: self.path.clone(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: 0,
            // Whole seconds, as docker writes them.
            mtime: Timespec { tv_sec: seconds, tv_nsec: 0 },
            link: Vec::new(),
            device: (0, 0),
            xattrs,
        }
    }

    fn whiteout(&self) -> Entry {
        Entry {
            path: self.path.clone(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timespec { tv_sec: 0, tv_nsec: 0 },
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn flush_pending(&mut self) -> io::Result<()> {
        for entry in std::mem::take(&mut self.pending) {
            self.write_header(&entry)?;
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.flush_pending()?;
        self.write_header(entry)
    }

    fn write_header(&mut self, entry: &Entry) -> io::Result<()> {
        self.entries += 1;
        tarball::write_header(entry, self.out.buffer());
        self.out.filled()
    }
}

fn is_opaque(xattrs: &[(std::ffi::OsString, Vec<u8>)]) -> bool {
    xattrs.iter().any(|(key, value)| key == opaque_xattr() && value == b"y")
}

/// Attributes that belong into a layer: capabilities of programs, and the user's own.
fn kept(xattrs: Vec<(std::ffi::OsString, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    xattrs
        .into_iter()
        .map(|(key, value)| (key.as_bytes().to_vec(), value))
        .filter(|(key, _)| {
            key == b"security.capability" || (key.starts_with(b"user.") && !key.starts_with(b"user.overlay."))
        })
        .collect()
}

fn same_dir(now: &Stat, before: &Stat) -> bool {
    now.st_mode == before.st_mode
        && now.st_uid == before.st_uid
        && now.st_gid == before.st_gid
        && now.st_mtime == before.st_mtime
        && now.st_mtime_nsec == before.st_mtime_nsec
}
