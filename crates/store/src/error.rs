//! What can go wrong below the rules, shaped by what the layer above can do about it.

/// A failure of the database or the blob store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unique or foreign key stood in the way: somebody else got there first.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The thing does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// Content did not have the digest it was to have; nothing was stored.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was promised.
        expected: Box<portolan_types::Digest>,
        /// What came.
        actual: Box<portolan_types::Digest>,
    },
    /// An append did not start where the upload ends.
    #[error("upload has {have} bytes, the chunk starts at {got}")]
    OffsetMismatch {
        /// Bytes the upload holds.
        have: u64,
        /// Where the chunk claimed to start.
        got: u64,
    },
    /// More bytes than the caller allowed.
    #[error("content is larger than {max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max: u64,
    },
    /// The body broke off before its end.
    #[error("the body broke off")]
    Interrupted(#[source] std::io::Error),
    /// The disk (or the quota on it) is full; the write did not happen.
    #[error("no space left to store this")]
    Full,
    /// Too much waiting work; try again.
    #[error("the store is overloaded")]
    Busy,
    /// A row or file does not have the shape this version writes.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// No engine keeps such a value: a text with a NUL in it. Nothing was changed.
    #[error("this cannot be stored: {0}")]
    Unstorable(String),
    /// Any other failure of the operating system.
    #[error("{what}")]
    Io {
        /// What was being done: `write blob`, `open database`, …
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Any other failure of the database.
    #[error("database: {0}")]
    Database(String),
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Content came with another digest than the one it was to have.
    pub fn mismatch(expected: portolan_types::Digest, actual: portolan_types::Digest) -> Error {
        Error::DigestMismatch { expected: expected.into(), actual: actual.into() }
    }

    /// Wrap an IO error, keeping a full disk apart from the rest.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Error {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Full,
            _ => Error::Io { what: what.into(), source },
        }
    }
}
