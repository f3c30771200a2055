//! What can go wrong between us and a server, shaped by what the caller can do about it.

use http::{HeaderMap, StatusCode};
use portolan_types::Digest;
use serde::Deserialize;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke: name resolution, refusal, TLS, time-out. Trying again
    /// later may help.
    #[error("cannot reach {url}: {why}")]
    Unreachable {
        /// Scheme, host and port; never a path or query, which may hold a signature.
        url: String,
        /// The innermost cause, as the system words it.
        why: String,
        /// Whether there was a connection, which then broke.
        connected: bool,
    },
    /// The server answered, and the answer is no.
    #[error("{0}")]
    Refused(Refusal),
    /// The server's answer is not what the protocol calls for.
    #[error("unexpected answer from {url}: {why}")]
    Protocol {
        /// Scheme, host and port.
        url: String,
        /// What was wrong with it.
        why: String,
    },
    /// Content came that does not hash to the digest it was asked for by.
    #[error("content does not match its digest: asked for {expected}, got {got}")]
    Mismatch {
        /// What was asked for.
        expected: Box<Digest>,
        /// What came.
        got: Box<Digest>,
    },
    /// More bytes than the limit.
    #[error("{what} is larger than {bytes_max} bytes")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// The limit.
        bytes_max: u64,
    },
    /// Something on this side: an address that does not parse, a CA file that is no PEM.
    #[error("{0}")]
    Local(String),
}

/// An error answer, from whichever of the three error formats it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The machine-readable code: `NAME_UNKNOWN`, `ResourceNotFound`, `invalid_client`, …;
    /// the status's name when the body had none.
    pub code: String,
    /// The sentence for people.
    pub message: String,
    /// The server's id of the request, for its log.
    pub request_id: Option<String>,
    /// How long the server asks us to wait before we try again, in seconds.
    pub retry_after_secs: Option<u64>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({}) {}", self.code, self.message)
    }
}

#[derive(Deserialize)]
struct Body {
    errors: Option<Vec<Item>>,
    error: Option<ErrorMember>,
    error_description: Option<String>,
    /// Docker Hub's token service and some proxies.
    details: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    code: Option<String>,
    message: Option<String>,
    detail: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorMember {
    Arm(Item),
    OAuth(String),
}

/// A message longer than this is cut: it is shown on one terminal.
const MESSAGE_CHARS_MAX: usize = 2_000;

impl Refusal {
    /// Read an error answer. Any body will do: JSON in the OCI, ARM or OAuth form, or text.
    pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
        let request_id = ["x-ms-correlation-request-id", "x-ms-request-id"]
            .iter()
            .find_map(|name| headers.get(*name).and_then(|v| v.to_str().ok()).map(str::to_owned));
        let retry_after_secs =
            headers.get(http::header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse().ok());
        let (code, message) = match serde_json::from_slice::<Body>(body) {
            Ok(body) => from_json(body),
            Err(_) => (None, plain_text(headers, body)),
        };
        let reason = || status.canonical_reason().unwrap_or("Error").to_owned();
        let message: String = message.filter(|m| !m.is_empty()).unwrap_or_else(reason);
        Refusal {
            status: status.as_u16(),
            code: code.filter(|c| !c.is_empty()).unwrap_or_else(|| reason().replace(' ', "")),
            message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
            request_id,
            retry_after_secs,
        }
    }
}

fn from_json(body: Body) -> (Option<String>, Option<String>) {
    let item = |item: Item| {
        let message = match (item.message, item.detail) {
            (Some(message), Some(serde_json::Value::String(detail))) if detail != message => {
                Some(format!("{message}: {detail}"))
            }
            (message, _) => message,
        };
        (item.code, message)
    };
    match (body.errors.and_then(|e| e.into_iter().next()), body.error) {
        (Some(first), _) => item(first),
        (None, Some(ErrorMember::Arm(error))) => item(error),
        (None, Some(ErrorMember::OAuth(code))) => (Some(code), body.error_description.or(body.message)),
        (None, None) => (None, body.details.or(body.message)),
    }
}

/// A text body is worth showing; an HTML page is not.
fn plain_text(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let html = headers.get(http::header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/html"));
    let text = std::str::from_utf8(body).ok()?.trim();
    (!html && !text.starts_with('<')).then(|| text.to_owned())
}

impl Error {
    /// Whether the server says that the thing asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// The refusal's code, such as `MANIFEST_UNKNOWN`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. } => true,
            Error::Refused(refusal) => refusal.status >= 500 || matches!(refusal.status, 408 | 429),
            _ => false,
        }
    }

    /// Whether the server did not look at the request, since there were too many: even one
    /// that must not be done twice can be made again.
    pub fn is_limited(&self) -> bool {
        matches!(self, Error::Refused(refusal) if refusal.status == 429)
    }

    /// How long the server asks us to wait, in seconds.
    pub fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Error::Refused(refusal) => refusal.retry_after_secs,
            _ => None,
        }
    }

    /// Whether nobody answered at the address at all.
    pub fn is_no_connection(&self) -> bool {
        matches!(self, Error::Unreachable { connected: false, .. })
    }

    pub(crate) fn mismatch(expected: Digest, got: Digest) -> Error {
        Error::Mismatch { expected: Box::new(expected), got: Box::new(got) }
    }

    pub(crate) fn protocol(url: &reqwest::Url, why: impl Into<String>) -> Error {
        Error::Protocol { url: origin(url), why: why.into() }
    }

    /// From a failed send or a broken body.
    pub(crate) fn transport(fallback: &reqwest::Url, error: reqwest::Error) -> Error {
        let url = origin(error.url().unwrap_or(fallback));
        if error.is_decode() && !error.is_body() {
            return Error::Protocol { url, why: innermost(&error) };
        }
        if error.is_redirect() {
            return Error::Protocol { url, why: format!("redirect refused: {}", innermost(&error)) };
        }
        let connected = !error.is_connect();
        let why = if error.is_timeout() {
            if !connected { "no answer to the connection in time".into() } else { "no answer in time".into() }
        } else {
            innermost(&error)
        };
        Error::Unreachable { url, why, connected }
    }
}

/// `scheme://host[:port]`: what may be shown of an address.
pub(crate) fn origin(url: &reqwest::Url) -> String {
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or("?"))
}

/// The last cause in the chain: `Connection refused (os error 111)` rather than
/// `error sending request`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> (String, String) {
        let refusal = Refusal::read(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes());
        (refusal.code, refusal.message)
    }

    #[test]
    fn three_formats_and_none() {
        let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            read(
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known","detail":{"name":"x"}}]}"#
            ),
            own("NAME_UNKNOWN", "repository name not known")
        );
        assert_eq!(
            read(
                404,
                r#"{"error":{"code":"ResourceGroupNotFound","message":"Resource group 'rg' could not be found."}}"#
            ),
            own("ResourceGroupNotFound", "Resource group 'rg' could not be found.")
        );
        assert_eq!(
            read(401, r#"{"error":"invalid_client","error_description":"AADSTS7000215: wrong secret"}"#),
            own("invalid_client", "AADSTS7000215: wrong secret")
        );
        assert_eq!(read(503, "try later"), own("ServiceUnavailable", "try later"));
        assert_eq!(read(502, "<html>"), own("BadGateway", "Bad Gateway"));
        assert_eq!(read(404, ""), own("NotFound", "Not Found"));
    }
}
