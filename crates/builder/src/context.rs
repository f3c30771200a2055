//! Unpacking a build context that a client sent.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use portolan_types::limits;

use crate::cancel::Cancel;
use crate::fsys;
use crate::unpack::{self, Rules, UnpackError, Whiteouts};

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

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextInfo {
    /// Entries written.
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
    #[error("unpack the build context: {0}")]
    Io(#[from] io::Error),
}

/// Unpack the archive (tar, plain or compressed with gzip, zstd, bzip2 or xz) into `dest`, an empty
/// directory. Nothing outside `dest` is touched, whatever the archive says. Everything
/// belongs to root afterwards, as files of a context do. On an error `dest` holds a part and
/// should be removed.
pub fn unpack(
    archive: impl Read + Send,
    dest: &Path,
    limits: &ContextLimits,
    cancel: &Cancel,
) -> Result<ContextInfo, ContextError> {
    let rules = Rules {
        whiteouts: Whiteouts::Plain,
        strict: true,
        make_parents: true,
        owner: None,
        entries_max: limits.entries_max,
        bytes_max: limits.bytes_max,
    };
    let dest = fsys::open_root(dest)?;
    let mut tar = unpack::decompress(archive).map_err(from_io)?;
    match unpack::unpack(&mut tar, dest.as_fd(), &rules, cancel) {
        Ok(done) => Ok(ContextInfo { entries: done.entries, bytes: done.bytes }),
        Err(UnpackError::Cancelled(_)) => Err(ContextError::Cancelled),
        Err(UnpackError::Io(error)) => Err(from_io(error)),
        Err(other) => Err(ContextError::Refused(format!("the build context was refused: {other}"))),
    }
}

fn from_io(error: io::Error) -> ContextError {
    if error.kind() == io::ErrorKind::InvalidData {
        ContextError::Refused(format!("the build context was refused: {error}"))
    } else {
        ContextError::Io(error)
    }
}
