//! Why a build ended without an image.

use std::fmt;

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The Dockerfile cannot be built: a syntax error, an unknown stage, a source file that
    /// is not there, a base image that cannot be had.
    Dockerfile,
    /// A `RUN` step ended with this status (128 + n when signal n ended it).
    Step {
        /// The exit status.
        exit_code: i32,
    },
    /// The build was cancelled.
    Cancelled,
    /// A step ran longer than it may.
    Timeout,
    /// The machine or the engine failed (a full disk, say).
    Internal,
}

/// Why a build ended without an image.
#[derive(Clone, Debug)]
pub struct BuildError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// A sentence for the log, with `file:line` and a hint where there is one.
    pub message: String,
    /// The lines of the Dockerfile around the guilty one, numbered and marked with `>>>`.
    pub excerpt: Option<String>,
}

impl BuildError {
    /// An error without a place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> BuildError {
        BuildError { kind, message: message.into(), excerpt: None }
    }

    /// The build was cancelled.
    pub fn cancelled() -> BuildError {
        BuildError::new(ErrorKind::Cancelled, "the build was cancelled")
    }

    /// With the guilty lines of the Dockerfile.
    pub fn with_excerpt(mut self, excerpt: String) -> BuildError {
        self.excerpt = Some(excerpt);
        self
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BuildError {}
