//! A folder as our own server takes it: a listing of everything with the hash of each file,
//! and only those contents that the server has not.
//!
//! Hashes are kept beside the profile, by device and inode with size and times, so that a
//! folder in which nothing changed is looked at and not read. A file that changed so shortly
//! before it was hashed that another change might have the same time is hashed again.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{SystemTime, UNIX_EPOCH};

use portolan_types::listing::{self, Kind};
use portolan_types::{Algorithm, Digest, Hasher};
use zstd::stream::write::Encoder;

use super::Pack;
use super::pack::{Ahead, Exact, LEVEL, QUEUE_CHUNKS, Within, cannot_read, cannot_write};
use super::progress::Progress;
use crate::error::{Failure, Result};

/// A file that changed less than this before it was hashed may change again unseen: the times
/// of some file systems are this coarse. Nanoseconds.
const SETTLED_NANOS: i128 = 2_000_000_000;
/// Files from which on a second thread is worth starting.
const FILES_PER_THREAD_MIN: usize = 64;
/// Threads that hash.
const THREADS_MAX: usize = 8;
const PIECE_BYTES: usize = 256 * 1024;

type Hash = [u8; 32];

/// A folder, listed.
pub(crate) struct Parcel {
    pack: Pack,
    listing: Vec<u8>,
    /// Where the contents of each file of the listing are.
    files: Vec<Content>,
    partial: bool,
}

struct Content {
    source: Source,
    size: u64,
    hash: Hash,
}

enum Source {
    /// Below the folder.
    Path(PathBuf),
    /// One of the files that are not in the folder.
    Extra(usize),
}

/// Something to be listed.
struct Item {
    path: Vec<u8>,
    mode: u32,
    mtime: u64,
    what: What,
}

enum What {
    Folder,
    Link(Vec<u8>),
    Again(Vec<u8>),
    File { full: PathBuf, known: Known, hash: Option<Hash> },
}

impl Parcel {
    /// List a folder. `paths`: what of it is needed ([`Pack::narrow`]); `None` for all.
    /// `hashes` is where hashes are kept.
    pub(crate) fn new(mut pack: Pack, paths: Option<&[String]>, hashes: &Path, progress: &Progress) -> Result<Parcel> {
        let partial = paths.is_some_and(|paths| pack.narrow(paths));
        let cache = HashCache::read(hashes);
        let mut items = Vec::new();
        let mut names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        let mut within = Within::default();
        let mut linked = false;
        pack.walk(&mut |relative, full, metadata| {
            within.count(metadata)?;
            linked |= metadata.is_symlink();
            items.extend(item(relative, full, metadata, &cache, &mut names)?);
            Ok(())
        })?;
        if partial && linked && pack.follows_links() {
            // What a link leads to may be elsewhere.
            pack.widen();
            return Parcel::new(pack, None, hashes, progress);
        }
        let now = nanos(SystemTime::now());
        hash_all(&mut items, progress)?;
        let mut writer = listing::Writer::default();
        let mut files = Vec::new();
        for (number, (name, contents)) in pack.extra().iter().enumerate() {
            let (size, hash) = (contents.len() as u64, of_bytes(contents));
            writer.push(name.as_bytes(), 0o644, 0, Kind::File { size, hash });
            files.push(Content { source: Source::Extra(number), size, hash });
        }
        let mut keep = HashCache::default();
        for item in items {
            let kind = match &item.what {
                What::Folder => Kind::Folder,
                What::Link(target) => Kind::Link(target),
                What::Again(first) => Kind::HardLink(first),
                What::File { full, known, hash } => {
                    let hash = hash.ok_or_else(|| Failure::new("a file was not read"))?;
                    keep.add(known, hash, now);
                    files.push(Content { source: Source::Path(full.clone()), size: known.size, hash });
                    Kind::File { size: known.size, hash }
                }
            };
            writer.push(&item.path, item.mode, item.mtime, kind);
        }
        if keep.0 != cache.0 {
            // A cache that cannot be written costs time.
            if let Err(error) = keep.write(hashes) {
                tracing::debug!(%error, path = %hashes.display(), "keep the hashes of a folder");
            }
        }
        Ok(Parcel { pack, listing: writer.finish(), files, partial })
    }

    /// What to ask the server about.
    pub(crate) fn listing(&self) -> &[u8] {
        &self.listing
    }

    /// Files and their bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.files.len() as u64, self.files.iter().map(|f| f.size).sum())
    }

    /// Whether it has only what the Dockerfile can ask for.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// The pack it was made from, to send all of it.
    pub(crate) fn into_pack(self) -> Pack {
        self.pack
    }

    /// Write the parcel with the contents of the files of these numbers, those that are alike
    /// once. Answers how many were written.
    pub(crate) fn write(&self, missing: &[u32], out: impl Write, progress: &Progress) -> Result<u64> {
        let mut seen = std::collections::HashSet::new();
        let files = missing.iter().filter_map(|n| Some((*n, self.files.get(*n as usize)?)));
        let sent: Vec<(u32, &Content)> = files.filter(|(_, f)| seen.insert(f.hash)).collect();
        if progress.is_shown() {
            progress.expect(sent.iter().map(|(_, f)| f.size).sum());
        }
        std::thread::scope(|scope| {
            let (sender, chunks) = sync_channel::<Vec<u8>>(QUEUE_CHUNKS);
            let sent = &sent;
            let reading = scope.spawn(move || {
                let mut out = Ahead::new(sender);
                self.plain(sent, &mut out, progress)?;
                out.flush().map_err(cannot_write)
            });
            let compressed = (|| {
                let mut zstd = Encoder::new(out, LEVEL)?;
                zstd.include_checksum(true)?;
                for chunk in chunks {
                    zstd.write_all(&chunk)?;
                }
                io::Result::Ok(zstd)
            })();
            let read = reading.join().map_err(|_| Failure::new("packing the build context broke off"))?;
            let zstd = compressed.map_err(cannot_write)?;
            read?;
            zstd.finish().and_then(|mut out| out.flush()).map_err(cannot_write)
        })?;
        Ok(sent.len() as u64)
    }

    fn plain(&self, sent: &[(u32, &Content)], out: &mut impl Write, progress: &Progress) -> Result<()> {
        let mut head = listing::PARCEL_MAGIC.to_vec();
        head.push(if self.partial { listing::PARTIAL } else { listing::WHOLE });
        head.extend_from_slice(&(self.listing.len() as u64).to_le_bytes());
        head.extend_from_slice(&self.listing);
        head.extend_from_slice(&u32::try_from(sent.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (number, _) in sent {
            head.extend_from_slice(&number.to_le_bytes());
        }
        out.write_all(&head).map_err(cannot_write)?;
        let mut piece = vec![0; PIECE_BYTES];
        for (_, content) in sent {
            match &content.source {
                Source::Extra(number) => {
                    let contents = self.pack.extra().get(*number).map(|(_, c)| c.as_slice()).unwrap_or_default();
                    out.write_all(contents).map_err(cannot_write)?;
                }
                Source::Path(full) => {
                    let file = fs::File::open(full).map_err(|e| cannot_read(full, &e))?;
                    let mut exact = Exact { file, left: content.size, progress };
                    loop {
                        match exact.read(&mut piece).map_err(|e| cannot_read(full, &e))? {
                            0 => break,
                            n => out.write_all(&piece[..n]).map_err(cannot_write)?,
                        }
                    }
                    progress.item();
                }
            }
        }
        Ok(())
    }
}

/// What to list for something in the folder; nothing for a socket.
fn item(
    relative: &Path,
    full: &Path,
    metadata: &Metadata,
    cache: &HashCache,
    names: &mut HashMap<(u64, u64), Vec<u8>>,
) -> Result<Option<Item>> {
    let kind = metadata.file_type();
    let path = relative.as_os_str().as_bytes().to_vec();
    let what = if kind.is_dir() {
        What::Folder
    } else if kind.is_symlink() {
        What::Link(fs::read_link(full).map_err(|e| cannot_read(full, &e))?.into_os_string().as_bytes().to_vec())
    } else if kind.is_file() {
        let first = (metadata.nlink() > 1).then(|| names.get(&(metadata.dev(), metadata.ino())).cloned()).flatten();
        match first {
            Some(first) => What::Again(first),
            None => {
                if metadata.nlink() > 1 {
                    names.insert((metadata.dev(), metadata.ino()), path.clone());
                }
                let known = Known::of(metadata);
                What::File { full: full.to_owned(), known, hash: cache.get(&known) }
            }
        }
    } else {
        // Sockets, pipes and devices mean nothing on another machine.
        return Ok(None);
    };
    let mtime = u64::try_from(metadata.mtime()).unwrap_or(0);
    Ok(Some(Item { path, mode: metadata.mode() & 0o7777, mtime, what }))
}

/// Hash the files whose hash is not known.
fn hash_all(items: &mut [Item], progress: &Progress) -> Result<()> {
    let mut todo: Vec<(&Path, u64, &mut Option<Hash>)> = items
        .iter_mut()
        .filter_map(|item| match &mut item.what {
            What::File { full, known, hash: hash @ None } => Some((full.as_path(), known.size, hash)),
            _ => None,
        })
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
    let threads = threads.min(todo.len() / FILES_PER_THREAD_MIN).max(1);
    let next = AtomicUsize::new(0);
    let todo: Vec<std::sync::Mutex<&mut (&Path, u64, &mut Option<Hash>)>> =
        todo.iter_mut().map(std::sync::Mutex::new).collect();
    let work = || -> Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        while let Some(slot) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut slot = slot.lock().map_err(|_| Failure::new("reading the build context broke off"))?;
            let (path, size) = (slot.0, slot.1);
            *slot.2 = Some(of_file(path, size, &mut piece, progress)?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let all = others.into_iter().map(|t| t.join().map_err(|_| Failure::new("reading the context broke off"))?);
        all.chain(std::iter::once(own)).collect()
    })
}

/// The hash of a file as long as it was when it was looked at.
fn of_file(path: &Path, size: u64, piece: &mut [u8], progress: &Progress) -> Result<Hash> {
    let file = fs::File::open(path).map_err(|e| cannot_read(path, &e))?;
    let mut exact = Exact { file, left: size, progress };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        match exact.read(piece).map_err(|e| cannot_read(path, &e))? {
            0 => return Ok(hash_of(&hasher.finish())),
            n => hasher.update(&piece[..n]),
        }
    }
}

fn of_bytes(bytes: &[u8]) -> Hash {
    hash_of(&Digest::of(bytes))
}

fn hash_of(digest: &Digest) -> Hash {
    digest.bytes().try_into().unwrap_or_default()
}

fn nanos(time: SystemTime) -> i128 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX))
}

/// By what a file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Known {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Known {
    fn of(metadata: &Metadata) -> Known {
        Known {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn numbers(&self) -> [u64; 7] {
        let signed = |n: i64| u64::from_le_bytes(n.to_le_bytes());
        let ((a, b), (c, d)) = (self.mtime, self.ctime);
        [self.device, self.inode, self.size, signed(a), signed(b), signed(c), signed(d)]
    }

    fn changed_nanos(&self) -> i128 {
        i128::from(self.ctime.0) * 1_000_000_000 + i128::from(self.ctime.1)
    }
}

/// Hashes of a folder's files.
#[derive(Debug, Default, PartialEq, Eq)]
struct HashCache(HashMap<[u64; 7], Hash>);

const CACHE_MAGIC: &[u8; 16] = b"portolan hash 1\n";
const CACHE_RECORD_BYTES: usize = 7 * 8 + 32;
/// Bytes of one folder's hashes; with more it has none.
const CACHE_BYTES_MAX: u64 = 256 * 1024 * 1024;

impl HashCache {
    /// Read one; what is damaged or not there is empty.
    fn read(path: &Path) -> HashCache {
        let mut bytes = Vec::new();
        let read = fs::File::open(path).and_then(|f| f.take(CACHE_BYTES_MAX).read_to_end(&mut bytes));
        let Some(records) = bytes.strip_prefix(CACHE_MAGIC).filter(|_| read.is_ok()) else {
            return HashCache::default();
        };
        let record = |r: &[u8]| {
            let mut numbers = [0; 7];
            for (number, bytes) in numbers.iter_mut().zip(r.chunks_exact(8)) {
                *number = u64::from_le_bytes(bytes.try_into().ok()?);
            }
            Some((numbers, r.get(56..88)?.try_into().ok()?))
        };
        HashCache(records.chunks_exact(CACHE_RECORD_BYTES).filter_map(record).collect())
    }

    fn get(&self, known: &Known) -> Option<Hash> {
        self.0.get(&known.numbers()).copied()
    }

    /// Remember a hash, unless the file may have changed since without its looking so. `now`:
    /// when hashing began.
    fn add(&mut self, known: &Known, hash: Hash, now: i128) {
        if now - known.changed_nanos() > SETTLED_NANOS {
            self.0.insert(known.numbers(), hash);
        }
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let mut bytes = CACHE_MAGIC.to_vec();
        bytes.reserve(self.0.len() * CACHE_RECORD_BYTES);
        for (numbers, hash) in &self.0 {
            for number in numbers {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(hash);
        }
        let draft = dir.join(format!("{}.{}.new", path.file_name().unwrap_or_default().display(), std::process::id()));
        fs::write(&draft, &bytes)?;
        fs::rename(&draft, path)
    }
}

/// Where the hashes of a folder are kept below `config`: one file a folder. Those of folders
/// not built for longest go when there are too many.
pub(crate) fn hashes_path(config: &Path, folder: &Path) -> PathBuf {
    let dir = config.join("hashes");
    let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let name = Digest::of(real.as_os_str().as_bytes()).hex();
    let path = dir.join(&name[..32]);
    if !path.exists() {
        make_room(&dir);
    }
    path
}

/// Folders whose hashes are kept.
const FOLDERS_MAX: usize = 64;

fn make_room(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut all: Vec<(SystemTime, PathBuf)> =
        entries.flatten().filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path()))).collect();
    all.sort();
    let surplus = (all.len() + 1).saturating_sub(FOLDERS_MAX);
    for (_, path) in all.into_iter().take(surplus) {
        // Somebody else may have been faster.
        let _ = fs::remove_file(path);
    }
}
