//! A build context that a client sent: read once from its archive, never unpacked.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_types::limits;

use crate::cancel::Cancel;
use crate::tarball::Reader;
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
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// The machine failed (a full disk, say).
    #[error("read the build context: {0}")]
    Io(#[from] io::Error),
}

/// A context, ready to copy from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    tree: Arc<Packed>,
    info: ContextInfo,
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
        let mut builder = Builder::new(contents, limits.entries_max, limits.bytes_max, cancel)?;
        let mut reader = Reader::new(unpack::decompress(archive).map_err(from_io)?);
        while let Some(entry) = reader.next().map_err(from_io)? {
            builder.entry(&entry, &mut reader).map_err(|error| match error {
                UnpackError::Cancelled(_) => ContextError::Cancelled,
                UnpackError::Io(error) => from_io(error),
                other => ContextError::Refused(format!("the build context was refused: {other}")),
            })?;
        }
        let info = ContextInfo { entries: builder.entries, bytes: builder.bytes };
        Ok(Context { tree: Arc::new(builder.finish()?), info })
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

/// Where a build takes the files of its context from.
#[derive(Clone, Debug)]
pub enum BuildContext {
    /// A folder on this machine, trusted to be left alone meanwhile.
    Folder(PathBuf),
    /// What a client sent.
    Packed(Context),
}

impl From<PathBuf> for BuildContext {
    fn from(folder: PathBuf) -> BuildContext {
        BuildContext::Folder(folder)
    }
}

fn from_io(error: io::Error) -> ContextError {
    match unpack::refuse_invalid(error) {
        UnpackError::Cancelled(_) => ContextError::Cancelled,
        UnpackError::Io(error) => ContextError::Io(error),
        other => ContextError::Refused(format!("the build context was refused: {other}")),
    }
}
