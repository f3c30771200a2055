//! How a command fails: one line for the person, perhaps a hint, an exit code for scripts.

use std::fmt;

/// Anything went wrong.
pub(crate) const EXIT_FAILED: i32 = 1;
/// The command line does not parse.
pub(crate) const EXIT_USAGE: i32 = 2;
/// The thing asked for is not there.
pub(crate) const EXIT_NOT_FOUND: i32 = 3;
/// Ended by Ctrl-C.
pub(crate) const EXIT_INTERRUPTED: i32 = 130;

/// The crate's result.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// `(Code) Message` from a server, or our own sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The process's exit code.
    pub exit: i32,
    /// The HTTP status, when a server said no.
    pub status: Option<u16>,
    /// Nobody answered at the server's address.
    pub unreachable: bool,
}

impl Failure {
    /// A failure of our own.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, exit: EXIT_FAILED, status: None, unreachable: false }
    }

    /// A contradiction between arguments.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: EXIT_USAGE, ..Failure::new(message) }
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure { exit: EXIT_NOT_FOUND, ..Failure::new(message) }
    }

    /// With a hint, in place of any it had.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// With a hint, unless it has one.
    pub fn or_hint(mut self, hint: impl FnOnce() -> String) -> Failure {
        self.hint.get_or_insert_with(hint);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<portolan_api::Error> for Failure {
    fn from(error: portolan_api::Error) -> Failure {
        let status = error.status();
        let exit = if status == Some(404) { EXIT_NOT_FOUND } else { EXIT_FAILED };
        let hint = hint_for(&error);
        let unreachable = matches!(error, portolan_api::Error::Unreachable { .. });
        Failure { message: error.to_string(), hint, exit, status, unreachable }
    }
}

fn hint_for(error: &portolan_api::Error) -> Option<String> {
    use portolan_api::Error;
    let hint = match error {
        Error::Unreachable { why, .. } if why.contains("certificate") || why.contains("UnknownIssuer") => {
            "the server's certificate is not trusted here; sign in with `portolan login --bootstrap FILE`, or give its CA by `--ca-file`"
        }
        Error::Unreachable { url, why, .. } if url.starts_with("http://") && why.contains("HTTP version") => {
            "the server speaks TLS at this address: write https://"
        }
        Error::Unreachable { connected: false, .. } => "is the server running? `portolan serve` starts one",
        Error::Refused(refusal) => match (refusal.status, refusal.code.as_str()) {
            (_, "invalid_client" | "invalid_tenant" | "unauthorized_client") => {
                "sign in again: `portolan login --bootstrap FILE`"
            }
            (401, _) => "sign in again: `portolan login --bootstrap FILE`",
            (403, _) => "you are signed in, but not allowed to do this: ask an owner of the registry for a role",
            (404, "NAME_UNKNOWN") => "see what is there: `portolan acr repository list -n REGISTRY`",
            (404, "MANIFEST_UNKNOWN" | "TAG_UNKNOWN") => {
                "see the tags: `portolan acr repository show-tags -n REGISTRY --repository NAME`"
            }
            (404, "ResourceGroupNotFound") => {
                "see the groups: `portolan group list`; make one: `portolan group create -n NAME -l LOCATION`"
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(hint.to_owned())
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(error.to_string())
    }
}
