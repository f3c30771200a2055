//! One error of the rules, two renderings: OCI and ACR's data plane, or ARM.
//!
//! Rendering is one of the last steps of a request. It leaves a [`Note`] on the response;
//! the edge (`super::edge`) writes it to the log, once, with the request's id.

use http::{HeaderValue, StatusCode, header};
use portolan_service::{Error, Kind};
use serde_json::{Value, json};

use super::{Conn, Response, host, respond};

/// What an OCI answer needs to know of the place it is given from.
#[derive(Clone, Copy, Debug)]
pub struct OciRim<'a> {
    /// Host and port of the registry as clients name it, for the challenge's realm and service.
    pub login_server: &'a str,
    /// `https` or `http`, as the client came.
    pub scheme: &'a str,
}

impl<'a> OciRim<'a> {
    /// The rim of a request: the host it named and the scheme it came by.
    pub fn of(parts: &'a http::request::Parts) -> OciRim<'a> {
        OciRim {
            login_server: host::of(parts).unwrap_or("localhost"),
            scheme: parts.extensions.get::<Conn>().map_or("https", |conn| conn.scheme),
        }
    }
}

/// When a client that met an overloaded server is to try again.
const UNAVAILABLE_RETRY_SECS: u32 = 2;

/// What the log is to say about an answer that is an error; travels in the response's
/// extensions from the renderer to the edge.
#[derive(Clone, Debug)]
pub struct Note {
    /// The code that the client got.
    pub code: &'static str,
    /// The sentence that the client got.
    pub message: String,
    /// The cause and its causes, for the log only.
    pub cause: Option<String>,
}

/// The HTTP status of a kind of error.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        Kind::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        Kind::Full => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An error as the OCI distribution specification and ACR's data plane have it:
/// `{"errors":[{"code","message","detail"}]}`, with the challenge on a 401.
pub fn oci(error: &Error, rim: &OciRim<'_>) -> Response {
    let detail = match (&error.detail, &error.challenge) {
        (Some(detail), _) => detail.clone(),
        (None, Some(scope)) if !scope.is_empty() => scope_detail(scope),
        _ => Value::Null,
    };
    let body = json!({"errors": [{"code": error.code, "message": error.message, "detail": detail}]});
    let mut res = respond::json(status(error.kind), &body);
    if error.kind == Kind::Unauthenticated {
        let OciRim { login_server, scheme } = rim;
        // Clients split this on the space and the commas: one space, none after a comma.
        let mut challenge =
            format!("Bearer realm=\"{scheme}://{login_server}/oauth2/token\",service=\"{login_server}\"");
        if let Some(scope) = error.challenge.as_deref().filter(|scope| !scope.is_empty()) {
            challenge.push_str(",scope=\"");
            challenge.push_str(scope);
            challenge.push('"');
        }
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            res.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
    }
    finish(res, error)
}

/// An error as Azure Resource Manager has it: `{"error":{"code","message"}}`, the hint in
/// brackets after the sentence.
pub fn arm(error: &Error) -> Response {
    let message = match &error.hint {
        Some(hint) => format!("{} ({hint})", error.message),
        None => error.message.clone(),
    };
    let mut body = json!({"error": {"code": arm_code(error), "message": message}});
    // ARM's details are errors themselves; those of the data plane are of another kind.
    let is_errors = |list: &&Value| list.as_array().is_some_and(|l| l.iter().all(|e| e["code"].is_string()));
    if let Some(details) = error.detail.as_ref().filter(is_errors) {
        body["error"]["details"] = details.clone();
    }
    let mut res = respond::json(status(error.kind), &body);
    if error.kind == Kind::Unauthenticated {
        res.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    finish(res, error)
}

/// Azure's code for an error whose own is of the data plane (`TOOMANYREQUESTS`): rules are
/// shared by both.
fn arm_code(error: &Error) -> &'static str {
    if !error.code.bytes().all(|c| c.is_ascii_uppercase() || c == b'_') {
        return error.code;
    }
    match error.kind {
        Kind::Invalid | Kind::RangeNotSatisfiable => "InvalidRequestContent",
        Kind::Unauthenticated => "AuthenticationFailed",
        Kind::Forbidden => "AuthorizationFailed",
        Kind::NotFound => "NotFound",
        Kind::Unsupported => "MethodNotAllowed",
        Kind::Conflict => "Conflict",
        Kind::PreconditionFailed => "PreconditionFailed",
        Kind::TooLarge => "RequestContentTooLarge",
        Kind::TooMany { .. } => "TooManyRequests",
        Kind::Full => "InsufficientStorage",
        Kind::Unavailable => "ServiceUnavailable",
        Kind::Internal => "InternalServerError",
    }
}

/// The answer to a request that does not say for which host it is, in the door's form.
pub fn bad_host(door: super::Door, why: &'static str) -> Response {
    let e = Error::new(Kind::Invalid, "NAME_INVALID", why);
    match door {
        super::Door::V2 | super::Door::Acr | super::Door::Oauth2 => {
            oci(&e, &OciRim { login_server: "localhost", scheme: "https" })
        }
        _ => arm(&Error { code: "InvalidHost", ..e }),
    }
}

/// The answer to a path that nothing serves.
pub fn unknown_path() -> Response {
    arm(&Error::new(Kind::NotFound, "NotFound", "nothing is served at this path"))
}

/// Scopes such as `repository:NAME:pull,push`, with blanks between them, as docker's registry
/// puts them into `detail`.
fn scope_detail(scopes: &str) -> Value {
    let mut all = Vec::new();
    for scope in scopes.split(' ') {
        let (kind, rest) = scope.split_once(':').unwrap_or((scope, ""));
        let (name, actions) = rest.rsplit_once(':').unwrap_or((rest, ""));
        all.extend(actions.split(',').map(|action| json!({"Type": kind, "Name": name, "Action": action})));
    }
    Value::Array(all)
}

/// Add what an error's kind asks for beside its body, and leave the error for the logs.
pub(super) fn finish(mut res: Response, error: &Error) -> Response {
    if let Kind::TooMany { retry_after_secs } = error.kind {
        res.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_secs));
    }
    if error.kind == Kind::Unavailable {
        res.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(UNAVAILABLE_RETRY_SECS));
    }
    let note = Note { code: error.code, message: error.message.clone(), cause: causes(error) };
    res.extensions_mut().insert(note);
    res
}

/// The chain of causes below an error, joined by `: `.
fn causes(error: &Error) -> Option<String> {
    let mut text: Option<String> = None;
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let one = cause.to_string();
        text = Some(match text {
            Some(all) if all.ends_with(&one) => all,
            Some(all) => format!("{all}: {one}"),
            None => one,
        });
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    async fn shown(res: Response) -> String {
        let (parts, body) = res.into_parts();
        let body = respond::read_body(body, 10_000).await.unwrap();
        let challenge = parts.headers.get("www-authenticate").map_or("-", |v| v.to_str().unwrap());
        format!("{} {challenge} {}", parts.status.as_u16(), String::from_utf8_lossy(&body))
    }

    #[tokio::test]
    async fn the_challenge_has_one_space_and_none_after_commas() {
        let mut e = Error::new(Kind::Unauthenticated, "UNAUTHORIZED", "authentication required");
        e.challenge = Some("repository:a/b:pull,push".into());
        let rim = OciRim { login_server: "localhost:8443", scheme: "https" };
        expect![[r#"401 Bearer realm="https://localhost:8443/oauth2/token",service="localhost:8443",scope="repository:a/b:pull,push" {"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"repository","Name":"a/b","Action":"pull"},{"Type":"repository","Name":"a/b","Action":"push"}]}]}"#]]
        .assert_eq(&shown(oci(&e, &rim)).await);
        e.challenge = Some(String::new());
        expect![[r#"401 Bearer realm="https://localhost:8443/oauth2/token",service="localhost:8443" {"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#]]
        .assert_eq(&shown(oci(&e, &rim)).await);
    }

    #[tokio::test]
    async fn arm_has_one_error_with_its_hint() {
        let e = Error::new(Kind::NotFound, "ResourceGroupNotFound", "Resource group 'rg' could not be found.")
            .with_hint("create it first");
        expect![[r#"404 - {"error":{"code":"ResourceGroupNotFound","message":"Resource group 'rg' could not be found. (create it first)"}}"#]]
        .assert_eq(&shown(arm(&e)).await);
    }

    #[tokio::test]
    async fn arm_has_azures_codes_whatever_rule_refused() {
        let e: Error = portolan_store::Error::Busy.into();
        expect![[r#"503 - {"error":{"code":"ServiceUnavailable","message":"the server is overloaded; try again"}}"#]]
            .assert_eq(&shown(arm(&e)).await);
        let e = Error::new(Kind::Forbidden, "DENIED", "no").with_detail(json!([{"Type": "repository"}]));
        expect![[r#"403 - {"error":{"code":"AuthorizationFailed","message":"no"}}"#]].assert_eq(&shown(arm(&e)).await);
    }

    #[test]
    fn the_cause_goes_to_the_log_and_not_to_the_client() {
        let io = std::io::Error::other("disk on fire");
        let e: Error = portolan_store::Error::io("write blob", io).into();
        let note = arm(&e).extensions().get::<Note>().cloned().unwrap();
        assert!(!note.message.contains("fire"));
        assert_eq!(note.cause.as_deref(), Some("write blob: disk on fire"));
    }
}
