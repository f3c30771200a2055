//! A context in memory: names and metadata in a table, contents end to end in one file, or in
//! that and others that earlier contexts left.
//!
//! A context of 20,000 files is read once from its archive. It is hashed on the way, so that
//! a build of which nothing changed touches no file at all, and what is copied is written
//! once, to where it belongs. Nothing here depends on what the file system allows.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use portolan_types::{Algorithm, Hasher};
use rustix::fs::{FileType, Stat, Timespec};
use rustix::io::Errno;

use super::{Contents, Hash};
use crate::cancel::Cancel;
use crate::fsys;
use crate::tarball::{Entry, Kind};
use crate::unpack::{UnpackError, keep_xattr};

/// Contents are moved in pieces of this many bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// One component of a path, and a whole path, bytes: what Linux takes.
const NAME_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 4096;
/// How many links a path may go through, as the kernel has it.
const LINKS_MAX: usize = 40;
/// Attributes of all entries together, bytes. They are kept in memory.
const XATTR_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A node's place in the table; the root is 0.
pub(crate) type Id = u32;

const ROOT: Id = 0;

/// A context, read.
#[derive(Debug)]
pub(crate) struct Packed {
    nodes: Vec<Node>,
    /// What is in files: the context's own file first, then those of others.
    contents: Vec<Arc<File>>,
    /// A status of our own contents' file: what a node does not know is taken from it.
    template: Stat,
}

/// Extended attributes, sorted by name. Most nodes have none, and there may be millions.
type Xattrs = Box<[(OsString, Vec<u8>)]>;

#[derive(Debug)]
struct Node {
    mode: u32,
    mtime: Timespec,
    /// Whether it has more than one name.
    linked: bool,
    body: Body,
    xattrs: Option<Xattrs>,
}

#[derive(Debug)]
enum Body {
    Folder(BTreeMap<OsString, Id>),
    File { at: u64, size: u64, place: Box<(u32, Hash)> },
    Link(OsString),
    Fifo,
}

impl Node {
    fn folder(mode: u32, mtime: Timespec) -> Node {
        Node { mode, mtime, linked: false, body: Body::Folder(BTreeMap::new()), xattrs: None }
    }
}

impl Packed {
    fn node(&self, id: Id) -> io::Result<&Node> {
        Ok(self.nodes.get(id as usize).ok_or(Errno::NOENT)?)
    }

    fn folder(&self, id: Id) -> io::Result<&BTreeMap<OsString, Id>> {
        match &self.node(id)?.body {
            Body::Folder(children) => Ok(children),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    pub(super) fn child(&self, dir: Id, name: &OsStr) -> Option<Id> {
        self.folder(dir).ok()?.get(name).copied()
    }

    fn child_node(&self, dir: Id, name: &OsStr) -> io::Result<&Node> {
        self.node(self.child(dir, name).ok_or(Errno::NOENT)?)
    }

    pub(super) fn stat(&self, id: Id) -> io::Result<Stat> {
        let node = self.node(id)?;
        let (kind, size) = match &node.body {
            Body::Folder(_) => (FileType::Directory, 0),
            Body::File { size, .. } => (FileType::RegularFile, *size),
            Body::Link(target) => (FileType::Symlink, target.len() as u64),
            Body::Fifo => (FileType::Fifo, 0),
        };
        let mut stat = self.template;
        stat.st_mode = kind.as_raw_mode() | node.mode;
        stat.st_ino = u64::from(id);
        stat.st_nlink = if node.linked { 2 } else { 1 };
        (stat.st_uid, stat.st_gid, stat.st_rdev) = (0, 0, 0);
        stat.st_size = i64::try_from(size).unwrap_or(i64::MAX);
        stat.st_mtime = node.mtime.tv_sec as _;
        stat.st_mtime_nsec = node.mtime.tv_nsec as _;
        Ok(stat)
    }

    pub(super) fn names(&self, dir: Id) -> io::Result<Vec<OsString>> {
        Ok(self.folder(dir)?.keys().cloned().collect())
    }

    pub(super) fn readlink(&self, dir: Id, name: &OsStr) -> io::Result<OsString> {
        match &self.child_node(dir, name)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    pub(super) fn xattrs(&self, dir: Id, name: &OsStr) -> Vec<(OsString, Vec<u8>)> {
        self.child_node(dir, name)
            .ok()
            .and_then(|node| node.xattrs.as_ref().map(|list| list.to_vec()))
            .unwrap_or_default()
    }

    pub(super) fn hash(&self, dir: Id, name: &OsStr) -> Option<Hash> {
        match &self.child_node(dir, name).ok()?.body {
            Body::File { place, .. } => Some(place.1),
            _ => None,
        }
    }

    /// A directory in another that is no link.
    pub(super) fn dir_at(&self, dir: Id, name: &OsStr) -> io::Result<Id> {
        let id = self.child(dir, name).ok_or(Errno::NOENT)?;
        self.folder(id).map(|_| id)
    }

    pub(super) fn file(&self, dir: Id, name: &OsStr) -> io::Result<Contents<'_>> {
        match &self.child_node(dir, name)?.body {
            Body::File { at, size, place } => self.part(*at, *size, place.0),
            Body::Folder(_) => Err(Errno::ISDIR.into()),
            _ => Err(Errno::LOOP.into()),
        }
    }

    fn part(&self, at: u64, size: u64, file: u32) -> io::Result<Contents<'_>> {
        let file = self.contents.get(file as usize).ok_or(Errno::NOENT)?;
        Ok(Contents::part(file.as_fd(), at, size))
    }

    /// Where a path leads; what [`fsys::resolve`] is for a tree on disk.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let reversed = |path: &Path| -> Vec<OsString> {
            let parts = path.components().filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_owned()),
                Component::ParentDir => Some("..".into()),
                _ => None,
            });
            let mut parts: Vec<OsString> = parts.collect();
            parts.reverse();
            parts
        };
        let mut rest = reversed(path);
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let node = self.plain(&at).and_then(|dir| self.child(dir, &name)).and_then(|id| self.node(id).ok());
            match node.map(|node| &node.body) {
                Some(Body::Link(target)) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    let target = Path::new(target);
                    if target.is_absolute() {
                        at = PathBuf::new();
                    }
                    rest.extend(reversed(target));
                }
                _ => at.push(name),
            }
        }
        Ok(at)
    }

    /// The node at a path without links.
    fn plain(&self, path: &Path) -> Option<Id> {
        path.components().try_fold(ROOT, |dir, part| self.child(dir, part.as_os_str()))
    }

    /// A directory, links followed.
    pub(super) fn dir(&self, path: &Path) -> io::Result<Id> {
        let id = self.plain(&self.resolve(path)?).ok_or(Errno::NOENT)?;
        self.folder(id).map(|_| id)
    }

    /// A regular file, links followed, read whole; `None` when it is not there or longer than
    /// `bytes_max`.
    pub(crate) fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let real = match self.resolve(path) {
            Ok(real) => real,
            Err(error) if fsys::is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let node = self.plain(&real).and_then(|id| self.node(id).ok());
        match node.map(|node| &node.body) {
            Some(Body::File { at, size, place }) if *size <= bytes_max => {
                let mut bytes = Vec::new();
                self.part(*at, *size, place.0)?.read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            _ => Ok(None),
        }
    }

    /// Whether there is a regular file, links followed.
    pub(crate) fn holds_file(&self, path: &Path) -> bool {
        let node = self.resolve(path).ok().and_then(|real| self.plain(&real)).and_then(|id| self.node(id).ok());
        node.is_some_and(|node| matches!(node.body, Body::File { .. }))
    }

    /// Take `name`, an entry of the root that is no directory, out. Whether it was there.
    pub(crate) fn remove(&mut self, name: &OsStr) -> bool {
        let leaf = self.child(ROOT, name).is_some_and(|id| self.folder(id).is_err());
        if leaf && let Some(Node { body: Body::Folder(children), .. }) = self.nodes.first_mut() {
            return children.remove(name).is_some();
        }
        false
    }
}

/// Where a file's contents come from.
pub(crate) enum From<'r> {
    /// They follow here, to the end.
    Here(&'r mut dyn Read),
    /// The context before it, or an earlier file of this one, has them.
    There(Piece),
}

/// A part of a file that holds a file's contents.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Its place in the table of files; see [`Builder::lend`].
    pub(crate) file: u32,
    pub(crate) at: u64,
    pub(crate) size: u64,
    pub(crate) hash: Hash,
}

/// Takes an archive's entries one after the other, as hostile as they may be.
pub(crate) struct Builder<'a> {
    tree: Packed,
    cancel: &'a Cancel,
    entries_max: u64,
    bytes_max: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Written to the contents' file, or about to be.
    at: u64,
    xattr_bytes: usize,
    /// The parent of the entry before: most entries come in runs from one directory.
    parent: (PathBuf, Id),
    now: Timespec,
    out: BufWriter<File>,
    piece: Vec<u8>,
}

fn refused(sentence: impl Into<String>) -> UnpackError {
    UnpackError::Refused(sentence.into())
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

impl<'a> Builder<'a> {
    /// `contents`: an empty file, open for reading and writing, for what is in files.
    pub(crate) fn new(contents: File, entries_max: u64, bytes_max: u64, cancel: &'a Cancel) -> io::Result<Builder<'a>> {
        let template = rustix::fs::fstat(&contents)?;
        // The file was made a moment ago.
        let now = fsys::mtime(&template);
        let out = BufWriter::with_capacity(PIECE_BYTES, contents.try_clone()?);
        let tree = Packed { nodes: vec![Node::folder(0o755, now)], contents: vec![Arc::new(contents)], template };
        Ok(Builder {
            tree,
            cancel,
            entries_max,
            bytes_max,
            entries: 0,
            bytes: 0,
            at: 0,
            xattr_bytes: 0,
            parent: (PathBuf::new(), ROOT),
            now,
            out,
            piece: vec![0; PIECE_BYTES],
        })
    }

    /// Everything is in.
    pub(crate) fn finish(mut self) -> io::Result<Packed> {
        self.out.flush()?;
        Ok(self.tree)
    }

    /// Take contents from another file, too. Its place in the table.
    pub(crate) fn lend(&mut self, file: Arc<File>) -> io::Result<u32> {
        let place = u32::try_from(self.tree.contents.len()).map_err(|_| Errno::NFILE)?;
        self.tree.contents.push(file);
        Ok(place)
    }

    /// The next entry, whose contents follow; they are read to their end.
    pub(crate) fn entry(&mut self, entry: &Entry, contents: &mut dyn Read) -> Result<(), UnpackError> {
        self.entry_from(entry, From::Here(contents)).map(drop)
    }

    /// The next entry. Answers where a file's contents are.
    pub(crate) fn entry_from(&mut self, entry: &Entry, contents: From<'_>) -> Result<Option<Piece>, UnpackError> {
        self.cancel.check()?;
        self.entries += 1;
        if entry.size > self.bytes_max - self.bytes {
            return Err(refused(format!("the archive unpacks to more than {} bytes", self.bytes_max)));
        }
        let path = clean(&entry.path)?;
        let Some(name) = path.file_name() else {
            // The root itself: what it looks like is ours to say.
            return if self.entries > self.entries_max { Err(self.too_many()) } else { Ok(None) };
        };
        let parent = self.parent(path.parent().unwrap_or(Path::new("")), entry)?;
        if self.entries > self.entries_max {
            return Err(self.too_many());
        }
        let mut found = None;
        let body = match entry.kind {
            Kind::Dir => return self.dir(parent, name, entry).map(|()| None),
            Kind::HardLink => return self.hard_link(parent, name, entry).map(|()| None),
            Kind::File => {
                let piece = match contents {
                    From::Here(contents) => self.file(contents)?,
                    From::There(piece) => {
                        // Counted as if it had come: no context is larger than another.
                        self.bytes += piece.size;
                        piece
                    }
                };
                let Piece { file, at, size, hash } = piece;
                let body = Body::File { at, size, place: Box::new((file, hash)) };
                found = Some(Piece { file, at, size, hash });
                body
            }
            Kind::Symlink => {
                check_symlink(entry, &path)?;
                Body::Link(OsStr::from_bytes(&entry.link).to_owned())
            }
            Kind::Fifo => Body::Fifo,
            Kind::CharDevice | Kind::BlockDevice => {
                return Err(refused(format!(
                    "the archive has a device, {}: devices are not allowed",
                    show(&entry.path)
                )));
            }
        };
        let xattrs = self.xattrs(entry)?;
        let mode = if entry.kind == Kind::Symlink { 0o777 } else { entry.mode };
        let id = self.add(Node { mode, mtime: entry.mtime, linked: false, body, xattrs })?;
        self.put(parent, name, id);
        Ok(found)
    }

    fn too_many(&self) -> UnpackError {
        refused(format!("the archive has more than {} entries", self.entries_max))
    }

    fn add(&mut self, node: Node) -> Result<Id, UnpackError> {
        let id = Id::try_from(self.tree.nodes.len()).map_err(|_| self.too_many())?;
        self.tree.nodes.push(node);
        Ok(id)
    }

    /// Give a node a name; what had it before gives way, with all that was in it.
    fn put(&mut self, parent: Id, name: &OsStr, id: Id) {
        let mut old = None;
        if let Some(Node { body: Body::Folder(children), .. }) = self.tree.nodes.get_mut(parent as usize) {
            old = children.insert(name.to_owned(), id);
        }
        // The directory remembered may have been below it.
        if old.is_some_and(|old| self.tree.folder(old).is_ok()) {
            self.parent = (PathBuf::new(), ROOT);
        }
    }

    /// The directory at `path`; made, with its parents, where the archive left it out.
    fn parent(&mut self, path: &Path, entry: &Entry) -> Result<Id, UnpackError> {
        if self.parent.0 == path {
            return Ok(self.parent.1);
        }
        let mut at = ROOT;
        for part in path.components() {
            let name = part.as_os_str();
            at = match self.tree.child(at, name) {
                None => {
                    // Counted as an entry: an archive of deep paths is a bomb, too.
                    self.entries_max = self.entries_max.saturating_sub(1);
                    if self.entries > self.entries_max {
                        return Err(self.too_many());
                    }
                    let id = self.add(Node::folder(0o755, self.now))?;
                    self.put(at, name, id);
                    id
                }
                Some(id) => match &self.tree.node(id)?.body {
                    Body::Folder(_) => id,
                    Body::Link(_) => {
                        return Err(refused(format!(
                            "the archive has a path that goes through a link: {}",
                            show(&entry.path)
                        )));
                    }
                    _ => {
                        return Err(refused(format!(
                            "the archive has a path under something that is no directory: {}",
                            show(&entry.path)
                        )));
                    }
                },
            };
        }
        self.parent = (path.to_owned(), at);
        Ok(at)
    }

    fn file(&mut self, contents: &mut dyn Read) -> Result<Piece, UnpackError> {
        let begin = self.at;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        loop {
            let n = match contents.read(&mut self.piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(crate::unpack::refuse_invalid(error)),
            };
            // An archive says how much there is; a download need not.
            if self.at - begin + n as u64 > self.bytes_max - self.bytes {
                return Err(refused(format!("the archive unpacks to more than {} bytes", self.bytes_max)));
            }
            hasher.update(&self.piece[..n]);
            self.out.write_all(&self.piece[..n])?;
            self.at += n as u64;
            self.cancel.check()?;
        }
        let size = self.at - begin;
        self.bytes += size;
        let hash = Hash::try_from(hasher.finish().bytes()).map_err(|_| io::Error::other("a hash of another length"))?;
        Ok(Piece { file: 0, at: begin, size, hash })
    }

    fn dir(&mut self, parent: Id, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        let xattrs = self.xattrs(entry)?;
        let there = self.tree.child(parent, name).filter(|id| self.tree.folder(*id).is_ok());
        if let Some(id) = there
            && let Some(node) = self.tree.nodes.get_mut(id as usize)
        {
            (node.mode, node.mtime) = (entry.mode, entry.mtime);
            if xattrs.is_some() {
                node.xattrs = xattrs;
            }
            return Ok(());
        }
        let id = self.add(Node { xattrs, ..Node::folder(entry.mode, entry.mtime) })?;
        self.put(parent, name, id);
        Ok(())
    }

    fn hard_link(&mut self, parent: Id, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        let target = clean(&entry.link).map_err(|_| leads_outside(entry))?;
        let found = self.tree.plain(&target).filter(|id| self.tree.folder(*id).is_err());
        let Some(id) = found else {
            return Err(refused(format!(
                "the archive has a hard link to something that is not in it: {} to {}",
                show(&entry.path),
                show(&entry.link)
            )));
        };
        if self.tree.child(parent, name) == Some(id) {
            return Ok(());
        }
        if let Some(node) = self.tree.nodes.get_mut(id as usize) {
            node.linked = true;
        }
        self.put(parent, name, id);
        Ok(())
    }

    fn xattrs(&mut self, entry: &Entry) -> Result<Option<Xattrs>, UnpackError> {
        let mut kept: BTreeMap<OsString, Vec<u8>> = BTreeMap::new();
        for (key, value) in &entry.xattrs {
            if key.starts_with(b"user.") && keep_xattr(key) {
                self.xattr_bytes += key.len() + value.len();
                if self.xattr_bytes > XATTR_BYTES_MAX {
                    return Err(refused(format!("the archive has more than {XATTR_BYTES_MAX} bytes of attributes")));
                }
                kept.insert(OsStr::from_bytes(key).to_owned(), value.clone());
            }
        }
        Ok((!kept.is_empty()).then(|| kept.into_iter().collect()))
    }
}

/// The path inside the context, without `.` and doubled slashes.
fn clean(path: &[u8]) -> Result<PathBuf, UnpackError> {
    if path.contains(&0) {
        return Err(refused("the archive has a path with a zero byte"));
    }
    let mut out = PathBuf::new();
    let mut depth = 0;
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) if name.len() > NAME_BYTES_MAX => {
                return Err(refused(format!("the archive has a name that is too long: {}", show(name.as_bytes()))));
            }
            Component::Normal(name) => {
                out.push(name);
                depth += 1;
            }
            Component::ParentDir => {
                return Err(refused(format!("the archive has a path with \"..\": {}", show(path))));
            }
            _ => {}
        }
    }
    if out.as_os_str().len() > PATH_BYTES_MAX || depth > fsys::DEPTH_MAX {
        return Err(refused(format!("the archive has a path that is too long, of {} bytes", path.len())));
    }
    // `/` alone is how some packers name the root itself.
    if path.starts_with(b"/") && depth > 0 {
        return Err(refused(format!("the archive has an absolute path: {}", show(path))));
    }
    Ok(out)
}

fn leads_outside(entry: &Entry) -> UnpackError {
    refused(format!("the archive has a link that leads outside: {} to {}", show(&entry.path), show(&entry.link)))
}

fn check_symlink(entry: &Entry, path: &Path) -> Result<(), UnpackError> {
    if entry.link.is_empty() || entry.link.contains(&0) {
        return Err(refused(format!("the archive has a link to nothing: {}", show(&entry.path))));
    }
    if entry.link.len() >= PATH_BYTES_MAX {
        return Err(refused(format!("the archive has a link that is too long: {}", show(&entry.path))));
    }
    let mut depth = path.components().count() as i64 - 1;
    for part in Path::new(OsStr::from_bytes(&entry.link)).components() {
        match part {
            Component::RootDir | Component::Prefix(_) => return Err(leads_outside(entry)),
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
        }
        if depth < 0 {
            return Err(leads_outside(entry));
        }
    }
    Ok(())
}
