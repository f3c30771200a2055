//! What can go wrong with runs, shaped by what the caller can do about it.

/// A failure of a task operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The order cannot be carried out as it stands: change it. The code is ARM's.
    #[error("{message}")]
    Invalid {
        /// The word clients look for.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// There is no such run or context.
    #[error("{0}")]
    NotFound(String),
    /// More runs wait than the queue holds; try again later.
    #[error("{max} runs are waiting already; try again when some are done")]
    QueueFull {
        /// The queue's length.
        max: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] portolan_store::Error),
}

impl Error {
    /// An order that cannot be carried out.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::Invalid { code: "InvalidRequest", message: message.into() }
    }
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
