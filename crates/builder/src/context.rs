//! A build context that a client sent, or that was fetched for it: read once from its
//! archive, never unpacked.
//!
//! Three things come as a context. An archive, from any client. A parcel, from our own: a
//! listing of everything, and only those contents that the server lacked
//! ([`Context::receive`]). And what is put together from several sources, such as the layers
//! of an OCI artifact ([`Assembly`]).

mod parcel;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_types::{limits, listing};

pub use self::parcel::{Received, Stock};
use crate::cancel::Cancel;
use crate::tarball::{Entry, Kind, Reader};
use crate::tree::{Builder, Packed};
use crate::unpack::{self, UnpackError};

/// How large a context may be.
#[derive(Clone, Copy, Debug)]
pub struct ContextLimits {
    /// Entries in the archive.
    pub entries_max: u64,
    /// Bytes of all files together, unpacked.
    pub bytes_max: u64,
}

impl Default for ContextLimits {
    fn default() -> ContextLimits {
        ContextLimits { entries_max: limits::CONTEXT_ENTRIES_MAX, bytes_max: limits::CONTEXT_UNPACKED_BYTES_MAX }
    }
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextInfo {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// Why a context was refused.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The archive is broken, hostile or too large: a sentence for the log.
    #[error("{0}")]
    Refused(String),
    /// A parcel relies on contents that are not in stock any more.
    #[error("{MISSING}")]
    Missing,
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// The machine failed (a full disk, say).
    #[error("read the build context: {0}")]
    Io(#[from] io::Error),
}

/// What is said when contents that a client left out are gone.
pub const MISSING: &str =
    "files of the build context that were sent before are no longer kept here; hint: build again, and they are sent";

/// A context, ready to copy from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    tree: Arc<Packed>,
    info: ContextInfo,
    partial: bool,
}

impl Context {
    /// Read an archive (tar, plain or compressed with gzip, zstd, bzip2 or xz). What is in
    /// files goes to `contents`, an empty file open for reading and writing; it may be
    /// unlinked. Everything belongs to root, as files of a context do.
    pub fn read(
        archive: impl Read + Send,
        contents: File,
        limits: &ContextLimits,
        cancel: &Cancel,
    ) -> Result<Context, ContextError> {
        let mut assembly = Assembly::new(contents, limits, cancel)?;
        assembly.archive(archive)?;
        assembly.finish()
    }

    /// Read what a client sent: an archive, or a parcel that leaves out what is in `stock`.
    /// Also answers the contents that came with a parcel, with their places in `contents`.
    pub fn receive(
        archive: impl Read + Send,
        contents: File,
        stock: &dyn Stock,
        limits: &ContextLimits,
        cancel: &Cancel,
    ) -> Result<(Context, Vec<Received>), ContextError> {
        let mut plain = unpack::decompress(archive).map_err(from_io)?;
        let mut head = Vec::new();
        (&mut plain).take(listing::PARCEL_MAGIC.len() as u64).read_to_end(&mut head).map_err(from_io)?;
        if head == listing::PARCEL_MAGIC {
            return parcel::read(plain, contents, stock, limits, cancel);
        }
        let mut assembly = Assembly::new(contents, limits, cancel)?;
        assembly.entries(io::Cursor::new(head).chain(plain))?;
        Ok((assembly.finish()?, Vec::new()))
    }

    /// Whether the client left out what it thought that no instruction asks for.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// How large it is.
    pub fn info(&self) -> ContextInfo {
        self.info
    }

    /// A regular file, whole; links are followed inside the context. `None` when it is not
    /// there or longer than `bytes_max`.
    pub fn file(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        self.tree.read(path, bytes_max)
    }

    /// Whether there is a regular file at `path`, links followed inside the context.
    pub fn holds_file(&self, path: &Path) -> bool {
        self.tree.holds_file(path)
    }

    /// Take `name`, an entry at the context's root that is no directory, out. False when
    /// there is none, or when there are clones of this context.
    pub fn remove(&mut self, name: &str) -> bool {
        Arc::get_mut(&mut self.tree).is_some_and(|tree| tree.remove(OsStr::new(name)))
    }

    pub(crate) fn tree(&self) -> &Arc<Packed> {
        &self.tree
    }
}

/// A context in the making, from one archive or file after the other. What comes later
/// replaces what came before.
pub struct Assembly<'a> {
    builder: Builder<'a>,
}

impl<'a> Assembly<'a> {
    /// Begin. `contents` as for [`Context::read`].
    pub fn new(contents: File, limits: &ContextLimits, cancel: &'a Cancel) -> Result<Assembly<'a>, ContextError> {
        Ok(Assembly { builder: Builder::new(contents, limits.entries_max, limits.bytes_max, cancel)? })
    }

    /// Everything in an archive, plain or compressed.
    pub fn archive(&mut self, archive: impl Read + Send) -> Result<(), ContextError> {
        self.entries(unpack::decompress(archive).map_err(from_io)?)
    }

    fn entries(&mut self, archive: impl Read) -> Result<(), ContextError> {
        let mut reader = Reader::new(archive);
        while let Some(entry) = reader.next().map_err(from_io)? {
            self.builder.entry(&entry, &mut reader).map_err(entry_error)?;
        }
        Ok(())
    }

    /// One file. `mtime` in seconds since 1970.
    pub fn file(&mut self, path: &str, mode: u32, mtime: i64, mut contents: impl Read) -> Result<(), ContextError> {
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::File,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: rustix::fs::Timespec { tv_sec: mtime, tv_nsec: 0 },
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        };
        self.builder.entry(&entry, &mut contents).map_err(entry_error)
    }

    /// All of it is in.
    pub fn finish(self) -> Result<Context, ContextError> {
        let info = ContextInfo { entries: self.builder.entries, bytes: self.builder.bytes };
        Ok(Context { tree: Arc::new(self.builder.finish()?), info, partial: false })
    }
}

/// Where a build takes the files of its context from.
#[derive(Clone, Debug)]
pub enum BuildContext {
    /// A folder on this machine, trusted to be left alone meanwhile.
    Folder(PathBuf),
    /// What a client sent.
    Packed(Context),
}

impl BuildContext {
    /// A regular file, whole; links are followed inside the context. `None` when it is not
    /// there or longer than `bytes_max`.
    pub fn file(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        match self {
            BuildContext::Folder(folder) => {
                use std::os::fd::AsFd;
                crate::fsys::read_in(crate::fsys::open_root(folder)?.as_fd(), path, bytes_max)
            }
            BuildContext::Packed(context) => context.file(path, bytes_max),
        }
    }

    /// Whether there is a regular file at `path`, links followed inside the context.
    pub fn holds_file(&self, path: &Path) -> bool {
        match self {
            BuildContext::Folder(_) => matches!(self.file(path, u64::MAX >> 1), Ok(Some(_))),
            BuildContext::Packed(context) => context.holds_file(path),
        }
    }
}

impl From<PathBuf> for BuildContext {
    fn from(folder: PathBuf) -> BuildContext {
        BuildContext::Folder(folder)
    }
}

fn entry_error(error: UnpackError) -> ContextError {
    match error {
        UnpackError::Cancelled(_) => ContextError::Cancelled,
        UnpackError::Io(error) => from_io(error),
        other => ContextError::Refused(format!("the build context was refused: {other}")),
    }
}

fn from_io(error: io::Error) -> ContextError {
    match unpack::refuse_invalid(error) {
        UnpackError::Cancelled(_) => ContextError::Cancelled,
        UnpackError::Io(error) => ContextError::Io(error),
        other => ContextError::Refused(format!("the build context was refused: {other}")),
    }
}
