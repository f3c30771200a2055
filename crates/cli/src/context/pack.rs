//! A folder into a compressed tar stream.
//!
//! The same folder gives the same entries in the same order (by name, bytewise, a folder
//! before what is in it), so that nothing depends on the order in which a disk lists
//! files. Links stay links, hard links too, sockets and the like are left
//! out. Owner and group are 0, as docker has them in an image; modes and times are kept.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use portolan_types::ignore::Ignore;
use portolan_types::limits;
use zstd::stream::write::Encoder;

use super::progress::Progress;
use crate::error::{Failure, Result};

/// What is read ahead of the compressor, in chunks.
pub(super) const QUEUE_CHUNKS: usize = 8;
/// The size of a chunk.
const CHUNK_BYTES: usize = 512 * 1024;
/// zstd's scale, the least: the server is near, and what is sent is unpacked at once. It is
/// three times as fast as the least of gzip, and packs better.
pub(super) const LEVEL: i32 = 1;

/// A folder that is going to be packed.
#[derive(Debug)]
pub(crate) struct Pack {
    root: PathBuf,
    ignore: Ignore,
    /// Files that are in the archive but not in the folder, at its root.
    extra: Vec<(String, Vec<u8>)>,
    dockerfile_path: String,
    /// What of the folder is needed; see [`Pack::narrow`].
    only: Option<Vec<Wanted>>,
}

/// A part of the folder.
#[derive(Clone, Debug)]
struct Wanted {
    path: PathBuf,
    /// Whether something in it is matched with a pattern.
    pattern: bool,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Entries.
    pub entries: u64,
    /// Bytes in files, unpacked.
    pub bytes: u64,
}

/// Counts what goes along, within the limits.
#[derive(Default)]
pub(super) struct Within(Packed);

impl Within {
    pub(super) fn count(&mut self, metadata: &Metadata) -> Result<()> {
        self.0.entries += 1;
        self.0.bytes += if metadata.is_file() { metadata.len() } else { 0 };
        self.0.within_limits()
    }
}

impl Packed {
    fn within_limits(&self) -> Result<()> {
        if self.entries > limits::CONTEXT_ENTRIES_MAX {
            return Err(too_much("files", limits::CONTEXT_ENTRIES_MAX));
        }
        if self.bytes > limits::CONTEXT_UNPACKED_BYTES_MAX {
            return Err(too_much("bytes", limits::CONTEXT_UNPACKED_BYTES_MAX));
        }
        Ok(())
    }
}

impl Pack {
    /// Look at a folder: read its Dockerfile and ignore file.
    ///
    /// `dockerfile`: a path as the user gave it, taken from the folder, or, if it is not
    /// there, from where we are, as docker does. `unique`: 32 hex digits.
    pub(crate) fn new(root: &Path, dockerfile: Option<&str>, unique: &str) -> Result<Pack> {
        is_folder(root)?;
        let file = dockerfile.unwrap_or("Dockerfile");
        let path = find_dockerfile(root, file)?;
        let text = read_limited(&path, limits::DOCKERFILE_BYTES_MAX)?;
        let name = path.file_name().map_or_else(|| "Dockerfile".to_owned(), |n| n.to_string_lossy().into_owned());
        let dockerfile_path = format!("{unique}_{name}");
        let mut extra = vec![(dockerfile_path.clone(), text)];
        let ignore = match find_ignore(root, &path)? {
            Some((from, text)) => {
                let ignore = Ignore::parse(&text).map_err(|e| Failure::new(format!("{}: {e}", from.display())))?;
                // The server goes by the same file when it copies, wherever it lies here.
                extra.push((format!("{dockerfile_path}.dockerignore"), text.into_bytes()));
                ignore
            }
            None => Ignore::default(),
        };
        Ok(Pack { root: root.to_owned(), ignore, extra, dockerfile_path, only: None })
    }

    /// Look at a folder that is one more context of a build: it has no Dockerfile, but what its
    /// `.dockerignore` says holds.
    pub(crate) fn folder(root: &Path) -> Result<Pack> {
        is_folder(root)?;
        let path = root.join(".dockerignore");
        let ignore = match path.is_file() {
            true => {
                let text = String::from_utf8(read_limited(&path, limits::DOCKERFILE_BYTES_MAX)?)
                    .map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))?;
                Ignore::parse(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?
            }
            false => Ignore::default(),
        };
        Ok(Pack { root: root.to_owned(), ignore, extra: Vec::new(), dockerfile_path: String::new(), only: None })
    }

    /// A context of nothing but a Dockerfile.
    pub(crate) fn dockerfile_only(text: Vec<u8>, unique: &str) -> Pack {
        let dockerfile_path = format!("{unique}_Dockerfile");
        let extra = vec![(dockerfile_path.clone(), text)];
        Pack { root: PathBuf::new(), ignore: Ignore::default(), extra, dockerfile_path, only: None }
    }

    /// Where the Dockerfile is in the archive.
    pub(crate) fn dockerfile_path(&self) -> &str {
        &self.dockerfile_path
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The Dockerfile's text.
    pub(crate) fn dockerfile(&self) -> &[u8] {
        self.extra.first().map(|(_, text)| text.as_slice()).unwrap_or_default()
    }

    /// Files that go along but are not in the folder.
    pub(super) fn extra(&self) -> &[(String, Vec<u8>)] {
        &self.extra
    }

    /// From now on only what is at `paths` and below goes along, and the folders on the way; a
    /// last component `*` stands for a pattern. False, and nothing changes, when a path leads
    /// through a link: what it leads to is elsewhere.
    pub(crate) fn narrow(&mut self, paths: &[String]) -> bool {
        let wanted = |path: &String| {
            let (path, pattern) = match path.strip_suffix("/*") {
                Some(folder) => (PathBuf::from(folder), true),
                None => (PathBuf::from(path), false),
            };
            let plain = path
                .ancestors()
                .filter(|p| !p.as_os_str().is_empty())
                .all(|part| fs::symlink_metadata(self.root.join(part)).map_or(true, |at| !at.is_symlink()));
            plain.then_some(Wanted { path, pattern })
        };
        let only: Option<Vec<Wanted>> = paths.iter().map(wanted).collect();
        self.only = only;
        self.only.is_some()
    }

    /// Undo [`Pack::narrow`].
    pub(crate) fn widen(&mut self) {
        self.only = None;
    }

    /// Whether a link among what goes along may lead to something that does not: one that a
    /// pattern matches is followed.
    pub(super) fn follows_links(&self) -> bool {
        self.only.iter().flatten().any(|wanted| wanted.pattern)
    }

    /// Whether something goes along as far as [`Pack::narrow`] says.
    fn is_wanted(&self, relative: &Path) -> bool {
        let Some(only) = &self.only else { return true };
        only.iter().any(|wanted| relative.starts_with(&wanted.path) || wanted.path.starts_with(relative))
    }

    /// Write the archive. Files are read on a thread of their own.
    pub(crate) fn write(&self, out: impl Write, progress: &Progress) -> Result<Packed> {
        std::thread::scope(|scope| {
            let (sender, chunks) = sync_channel::<Vec<u8>>(QUEUE_CHUNKS);
            let reading = scope.spawn(move || self.read(Ahead::new(sender), progress));
            let compressed = (|| {
                let mut zstd = Encoder::new(out, LEVEL)?;
                // The server notices what was damaged on the way.
                zstd.include_checksum(true)?;
                for chunk in chunks {
                    zstd.write_all(&chunk)?;
                }
                io::Result::Ok(zstd)
            })();
            // With the queue gone the reading thread has stopped.
            let packed = reading.join().map_err(|_| Failure::new("packing the build context broke off"))?;
            let zstd = compressed.map_err(cannot_write)?;
            let packed = packed?;
            zstd.finish().and_then(|mut out| out.flush()).map_err(cannot_write)?;
            Ok(packed)
        })
    }

    /// The archive, not compressed.
    fn read(&self, out: Ahead, progress: &Progress) -> Result<Packed> {
        let mut archive =
            Archive { names: HashMap::new(), tar: tar::Builder::new(out), progress, packed: Packed::default() };
        for (name, contents) in &self.extra {
            archive.contents(name, contents)?;
        }
        self.walk(&mut |relative, full, metadata| {
            archive.entry(relative, full, metadata)?;
            archive.packed.within_limits()
        })?;
        let packed = archive.packed;
        archive.tar.into_inner().and_then(|mut out| out.flush()).map_err(cannot_write)?;
        Ok(packed)
    }

    /// What there is to pack, without reading it.
    pub(crate) fn measure(&self) -> Result<Packed> {
        let mut packed = Packed::default();
        self.walk(&mut |_, _, metadata| {
            packed.entries += 1;
            packed.bytes += if metadata.is_file() { metadata.len() } else { 0 };
            packed.within_limits()
        })?;
        Ok(packed)
    }

    /// Call `visit` with everything that goes along: path in the context, path here, what it is.
    pub(super) fn walk(&self, visit: &mut impl FnMut(&Path, &Path, &Metadata) -> Result<()>) -> Result<()> {
        if self.root.as_os_str().is_empty() {
            return Ok(());
        }
        // Folders left out themselves, in which something may still be wanted.
        let mut held: Vec<(PathBuf, Metadata)> = Vec::new();
        let mut stack: Vec<PathBuf> = self.list(Path::new(""))?;
        while let Some(relative) = stack.pop() {
            if !self.is_wanted(&relative) {
                continue;
            }
            held.retain(|(dir, _)| relative.starts_with(dir));
            let full = self.root.join(&relative);
            let text = relative.to_string_lossy();
            let ignored = self.ignore.matches(&text);
            let metadata = match fs::symlink_metadata(&full) {
                Ok(metadata) => metadata,
                // Gone since it was listed: an editor's temporary file, most likely.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) if ignored => continue,
                Err(error) => return Err(cannot_read(&full, &error)),
            };
            if metadata.is_dir() && ignored {
                if self.ignore.may_include_below(&text) {
                    stack.extend(self.list(&relative)?);
                    held.push((relative, metadata));
                }
                continue;
            }
            if ignored {
                continue;
            }
            for (dir, metadata) in held.drain(..) {
                visit(&dir, &self.root.join(&dir), &metadata)?;
            }
            visit(&relative, &full, &metadata)?;
            if metadata.is_dir() {
                stack.extend(self.list(&relative)?);
            }
        }
        Ok(())
    }

    /// What is in a folder, the last first: the list is put on a stack.
    fn list(&self, relative: &Path) -> Result<Vec<PathBuf>> {
        let full = self.root.join(relative);
        let read = || -> io::Result<Vec<OsString>> { fs::read_dir(&full)?.map(|e| Ok(e?.file_name())).collect() };
        let mut names = read().map_err(|e| cannot_read(&full, &e))?;
        names.sort_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
        Ok(names.into_iter().map(|name| relative.join(name)).collect())
    }
}

/// Writes into the compressor's queue, a chunk at a time.
pub(super) struct Ahead {
    sender: SyncSender<Vec<u8>>,
    pending: Vec<u8>,
}

impl Ahead {
    pub(super) fn new(sender: SyncSender<Vec<u8>>) -> Ahead {
        Ahead { sender, pending: Vec::new() }
    }
}

impl Write for Ahead {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(CHUNK_BYTES);
        }
        let take = bytes.len().min(CHUNK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&bytes[..take]);
        if self.pending.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.pending);
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload ended");
        if chunk.is_empty() { Ok(()) } else { self.sender.send(chunk).map_err(gone) }
    }
}

/// An archive being written.
struct Archive<'a> {
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), PathBuf>,
    tar: tar::Builder<Ahead>,
    progress: &'a Progress,
    packed: Packed,
}

impl Archive<'_> {
    /// A file that is not on disk.
    fn contents(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(contents.len() as u64);
        self.packed.entries += 1;
        self.tar.append_data(&mut header, name, contents).map_err(cannot_write)
    }

    /// Under what name the same file went already.
    fn first_name(&mut self, relative: &Path, metadata: &Metadata) -> Option<PathBuf> {
        if !metadata.is_file() || metadata.nlink() < 2 {
            return None;
        }
        match self.names.entry((metadata.dev(), metadata.ino())) {
            Entry::Occupied(first) => Some(first.get().clone()),
            Entry::Vacant(none) => {
                none.insert(relative.to_owned());
                None
            }
        }
    }

    fn entry(&mut self, relative: &Path, full: &Path, metadata: &Metadata) -> Result<()> {
        let kind = metadata.file_type();
        let mut header = tar::Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        let done = if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            self.tar.append_data(&mut header, relative, io::empty())
        } else if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            let target = fs::read_link(full).map_err(|e| cannot_read(full, &e))?;
            self.tar.append_link(&mut header, relative, target)
        } else if let Some(first) = self.first_name(relative, metadata) {
            header.set_entry_type(tar::EntryType::Link);
            self.tar.append_link(&mut header, relative, first)
        } else if kind.is_file() {
            let file = fs::File::open(full).map_err(|e| cannot_read(full, &e))?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(metadata.len());
            let mut exact = Exact { file, left: metadata.len(), progress: self.progress };
            self.packed.bytes += metadata.len();
            self.tar.append_data(&mut header, relative, &mut exact)
        } else {
            // Sockets, pipes and devices mean nothing on another machine.
            return Ok(());
        };
        done.map_err(|e| Failure::new(format!("cannot pack {}: {e}", relative.display())))?;
        self.packed.entries += 1;
        if kind.is_file() {
            self.progress.item();
        }
        Ok(())
    }
}

/// A file as long as it was when it was looked at: one that grows is cut, one that shrinks
/// is filled up, since its length is already in the archive.
pub(super) struct Exact<'a> {
    pub(super) file: fs::File,
    pub(super) left: u64,
    pub(super) progress: &'a Progress,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let mut got = self.file.read(&mut buffer[..want])?;
        if got == 0 {
            buffer[..want].fill(0);
            got = want;
        }
        self.left -= got as u64;
        self.progress.add(got as u64);
        Ok(got)
    }
}

/// The Dockerfile: inside the folder, else where we are.
fn find_dockerfile(root: &Path, file: &str) -> Result<PathBuf> {
    let inside = root.join(file);
    let here = PathBuf::from(file);
    let found = [inside, here].into_iter().find(|p| p.is_file());
    found.ok_or_else(|| {
        Failure::new(format!("Unable to find '{file}' in '{}'.", root.display()))
            .hint("name the Dockerfile, from the context's folder, with -f")
    })
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the folder.
fn find_ignore(root: &Path, dockerfile: &Path) -> Result<Option<(PathBuf, String)>> {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(".dockerignore");
    let found = [PathBuf::from(own), root.join(".dockerignore")].into_iter().find(|p| p.is_file());
    let Some(path) = found else {
        return Ok(None);
    };
    let bytes = read_limited(&path, limits::DOCKERFILE_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))?;
    Ok(Some((path, text)))
}

fn is_folder(root: &Path) -> Result<()> {
    match fs::metadata(root) {
        Ok(at) if at.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(format!("{} is not a folder", root.display()))
            .hint("the build context is a folder; name a Dockerfile inside it with -f")),
        Err(_) => Err(Failure::new(format!("Unable to find '{}'.", root.display()))
            .hint("the build context is a folder here, such as `.`, or the address of a git repository")),
    }
}

fn read_limited(path: &Path, bytes_max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| cannot_read(path, &e))?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(|e| cannot_read(path, &e))?;
    if bytes.len() > bytes_max {
        return Err(Failure::new(format!("{} is larger than {bytes_max} bytes", path.display())));
    }
    Ok(bytes)
}

pub(super) fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("cannot read {}: {error}", path.display()));
    if error.kind() == io::ErrorKind::PermissionDenied {
        return failure.hint("leave it out with a line in .dockerignore");
    }
    failure
}

/// Whoever reads the archive has stopped: their reason counts, not ours.
pub(super) fn cannot_write(error: io::Error) -> Failure {
    Failure::new(format!("cannot send the build context: {error}"))
}

fn too_much(what: &str, max: u64) -> Failure {
    Failure::new(format!("the build context has more than {max} {what}"))
        .hint("leave out what the build does not need with .dockerignore")
}
