//! One error for every front door, shaped by what the caller can do about it.
//!
//! A rule fails with a [`Kind`] (what to do), a code (the word clients look for: an OCI
//! code such as `MANIFEST_UNKNOWN`, or an ARM code such as `ResourceNotFound`) and a
//! sentence for people. `server::http::error` renders it as OCI or ARM JSON as one of the
//! last steps; whoever handles the error logs it, once.

use serde_json::Value;

/// What the caller can do about it. Each kind has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: change the request.
    Invalid,
    /// 401: sign in.
    Unauthenticated,
    /// 403: ask somebody for the right.
    Forbidden,
    /// 404
    NotFound,
    /// 405: this thing cannot do that, for anybody.
    Unsupported,
    /// 409: the state of the thing forbids it.
    Conflict,
    /// 412
    PreconditionFailed,
    /// 413
    TooLarge,
    /// 416
    RangeNotSatisfiable,
    /// 429: wait this many seconds.
    TooMany {
        /// For the `Retry-After` header.
        retry_after_secs: u32,
    },
    /// 507: no space left.
    Full,
    /// 503: try again later.
    Unavailable,
    /// 500: our fault; the cause is logged, not told.
    Internal,
}

/// A failed rule.
#[derive(Debug)]
pub struct Error {
    /// What the caller can do.
    pub kind: Kind,
    /// The word clients look for.
    pub code: &'static str,
    /// A sentence for people, without secrets.
    pub message: String,
    /// Machine-readable detail, for the OCI form.
    pub detail: Option<Value>,
    /// What to try, for people.
    pub hint: Option<String>,
    /// With [`Kind::Unauthenticated`] on the data plane: the scope to ask a token for,
    /// e.g. `repository:flask-echo:pull`; empty for a challenge without scope.
    pub challenge: Option<String>,
    /// The cause, for the log only.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind with its code and sentence.
    pub fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Error {
        Error { kind, code, message: message.into(), detail: None, hint: None, challenge: None, source: None }
    }

    /// Add machine-readable detail.
    pub fn with_detail(mut self, detail: Value) -> Error {
        self.detail = Some(detail);
        self
    }

    /// Add a hint for people.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Add the cause, for the log.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({}) {}", self.code, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

impl From<portolan_store::Error> for Error {
    fn from(e: portolan_store::Error) -> Error {
        use portolan_store::Error as S;
        let (kind, code, message) = match &e {
            S::DigestMismatch { expected, actual } => {
                (Kind::Invalid, "DIGEST_INVALID", format!("the content has digest {actual}, not {expected}"))
            }
            S::OffsetMismatch { have, got } => (
                Kind::RangeNotSatisfiable,
                "BLOB_UPLOAD_INVALID",
                format!("the upload holds {have} bytes, the chunk begins at {got}"),
            ),
            S::TooLarge { max } => (Kind::TooLarge, "SIZE_INVALID", format!("the content is larger than {max} bytes")),
            S::Interrupted(_) => (Kind::Invalid, "BLOB_UPLOAD_INVALID", "the request body broke off".to_owned()),
            S::NotFound(what) => (Kind::NotFound, "NOT_FOUND", format!("{what} does not exist")),
            S::Conflict(_) => (Kind::Conflict, "CONFLICT", "somebody else changed this at the same time".to_owned()),
            S::Unstorable(what) => (Kind::Invalid, "MANIFEST_INVALID", format!("this cannot be stored: {what}")),
            S::Full => (Kind::Full, "INSUFFICIENT_STORAGE", "the server has no space left to store this".to_owned()),
            S::Busy => (Kind::Unavailable, "UNAVAILABLE", "the server is overloaded; try again".to_owned()),
            S::Corrupt(_) | S::Io { .. } | S::Database(_) => {
                (Kind::Internal, "UNKNOWN", "the server could not read or write its store".to_owned())
            }
        };
        Error::new(kind, code, message).with_source(e)
    }
}
