//! `/blob/…`: signed addresses for build contexts and run logs, in the part of the Azure
//! Blob protocol that clients use.
//!
//! ```text
//! PUT  /blob/r<registry>/source/<uuid>.tar.gz?se&sp=w&sig                 the whole context
//! PUT  …&comp=block&blockid=<base64>                                      one block of it
//! PUT  …&comp=blocklist   <BlockList><Latest>id</Latest>…</BlockList>     put together
//! GET  /blob/r<registry>/content/<algorithm>-<hex>?se&sp=r&sig            a blob, at a data endpoint
//! PUT  /blob/r<registry>/files/<owner>?se&sp=w&sig&comp=…                 see [`super::files`]
//! HEAD /blob/r<registry>/logs/<run>/rawtext.log?se&sp=r&sig               length, whether complete
//! GET  …   x-ms-range: bytes=a-b (or Range)                               a window of the log
//! GET  …&wait=<secs>                                                      the same, waiting for more
//! ```
//!
//! An address is signed over its path, its end (`se`, seconds since 1970) and what it is
//! for (`sp`), and is all the authority there is: it holds for nothing else and for no
//! longer. Paths have four parts because the Azure SDK wants account, container and blob
//! on hosts like `localhost`.
//!
//! `wait` (ours, at most [`WAIT_SECS_MAX`]): when the window begins at or beyond the end of
//! the log, the answer is held until there is more, the log is complete, or the time is
//! over. A follower asks for `bytes=<what it has>-` again and again and sees every line as
//! it is written. Nothing new is 416 with the length in `Content-Range`; a log that has not
//! begun is 404 `BlobNotFound`. `x-ms-meta-Complete` says that nothing more will come, and
//! how the run ended: `successful`, `failed`, `canceled`, `timedout` or `internalerror`.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::TryStreamExt;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use portolan_auth::Authority;
use portolan_service::Kind;
use portolan_store::blob::ByteStream;
use portolan_tasks::{Error, LogState};
use portolan_types::{Digest, RunId, Timestamp, limits};

use super::{Request, Response, caller, files, host, respond, v2};
use crate::App;
use crate::build::stock::Owner;

/// Longest time an answer is held for `wait`, in seconds.
pub const WAIT_SECS_MAX: u64 = 30;
/// What a list of blocks may be: 50,000 ids and their tags.
const BLOCK_LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A block's id, decoded (Azure's figure).
const BLOCK_ID_BYTES_MAX: usize = 64;
const PURPOSE: &str = "blob-url";

/// What a signed address may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Put a context.
    Write,
    /// Read a log.
    Read,
}

impl Permission {
    fn as_str(self) -> &'static str {
        match self {
            Permission::Write => "w",
            Permission::Read => "r",
        }
    }
}

/// A signed address below `base` (`https://host[:port]`). `path` is of characters that need
/// no encoding: `r7/source/….tar.gz`.
pub fn signed_url(authority: &Authority, base: &str, path: &str, may: Permission, until: Timestamp) -> String {
    let (path, se, sp) = (format!("/blob/{path}"), until.unix_secs().to_string(), may.as_str());
    let sig = URL_SAFE_NO_PAD.encode(authority.hmac(PURPOSE, signed_text(&path, &se, sp).as_bytes()));
    format!("{base}{path}?se={se}&sp={sp}&sig={sig}")
}

fn signed_text(path: &str, se: &str, sp: &str) -> String {
    format!("{path}|{se}|{sp}")
}

/// A refusal in this protocol's words.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into() }
    }

    fn not_signed() -> Refusal {
        // One answer whatever is wrong with the signature: the difference would be a hint.
        Refusal::new(
            StatusCode::FORBIDDEN,
            "AuthenticationFailed",
            "Server failed to authenticate the request. The address is not signed for this, or its time is over.",
        )
    }

    pub(super) fn not_found() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "BlobNotFound", "The specified blob does not exist.")
    }

    fn into_response(self, head: bool) -> Response {
        let message = self.message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{}</Code><Message>{message}</Message></Error>",
            self.code
        );
        let mut res = match head {
            true => respond::empty(self.status),
            false => respond::bytes_of(self.status, HeaderValue::from_static("application/xml"), xml.into()),
        };
        res.headers_mut().insert("x-ms-error-code", HeaderValue::from_static(self.code));
        res
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        use portolan_store::Error as S;
        match error {
            Error::NotFound(_) | Error::Store(S::NotFound(_)) => Refusal::not_found(),
            Error::Invalid { code, message } => Refusal::new(StatusCode::BAD_REQUEST, code, message),
            Error::QueueFull { .. } | Error::Store(S::Busy) => {
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServerBusy", "The server is busy; try again.")
            }
            Error::Store(S::TooLarge { max }) => Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestBodyTooLarge",
                format!("The request body is too large: the limit is {max} bytes."),
            ),
            Error::Store(S::Interrupted(_)) => {
                Refusal::new(StatusCode::BAD_REQUEST, "IncompleteBody", "The request body broke off.")
            }
            Error::Store(S::Full) => {
                Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "InsufficientStorage", "The server has no space left.")
            }
            Error::Store(cause) => {
                tracing::error!(%cause, "serve a signed address");
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "The server failed. Try again.")
            }
        }
    }
}

/// Answer a request to a signed address.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    let head = parts.method == Method::HEAD;
    match route(app, &parts, body).await {
        Ok(res) => res,
        Err(refusal) => refusal.into_response(head),
    }
}

/// What an address leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Context { registry: i64, relative_path: String },
    Log { registry: i64, run: RunId },
    Content { registry: i64, digest: Digest },
    Files(Owner),
}

/// The path for questions about a context, for [`signed_url`].
pub(super) fn files_path(owner: &Owner) -> String {
    format!("r{}/files/{}", owner.registry, owner.word())
}

/// The path of a blob's content for [`signed_url`].
pub(super) fn content_path(registry: i64, digest: &Digest) -> String {
    format!("r{registry}/content/{}", digest.to_string().replacen(':', "-", 1))
}

pub(super) fn place(path: &str) -> Option<Place> {
    let (account, rest) = path.strip_prefix("/blob/r")?.split_once('/')?;
    let registry = account.parse().ok().filter(|_| account.bytes().all(|c| c.is_ascii_digit()))?;
    if let Some(run) = rest.strip_prefix("logs/").and_then(|r| r.strip_suffix("/rawtext.log")) {
        return Some(Place::Log { registry, run: run.parse().ok()? });
    }
    if let Some(word) = rest.strip_prefix("files/") {
        return Some(Place::Files(Owner::of_word(registry, word)?));
    }
    if let Some(name) = rest.strip_prefix("content/") {
        return Some(Place::Content { registry, digest: name.replacen('-', ":", 1).parse().ok()? });
    }
    rest.starts_with("source/").then(|| Place::Context { registry, relative_path: rest.to_owned() })
}

async fn route(app: &Arc<App>, parts: &Parts, body: Body) -> Result<Response, Refusal> {
    let query = Query::read(parts.uri.query().unwrap_or_default());
    let path = parts.uri.path();
    let may = check(&app.service.authority, path, &query, Timestamp::now()).ok_or_else(Refusal::not_signed)?;
    match (place(path), &parts.method, may) {
        (Some(Place::Context { registry, relative_path }), &Method::PUT, Permission::Write) => {
            put(app, registry, &relative_path, &query, body).await
        }
        (Some(Place::Files(owner)), &Method::PUT, Permission::Write) => {
            files::answer(app, &owner, query.comp.as_deref(), body).await
        }
        (Some(Place::Log { registry, run }), &Method::HEAD | &Method::GET, Permission::Read) => {
            log(app, parts, registry, &run, &query).await
        }
        (Some(Place::Content { registry, digest }), &Method::HEAD | &Method::GET, Permission::Read) => {
            content(app, parts, registry, &digest).await
        }
        (Some(_), &Method::PUT | &Method::HEAD | &Method::GET, _) => Err(Refusal::not_signed()),
        (Some(_), _, _) => Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UnsupportedHttpVerb",
            "The resource doesn't support the specified HTTP verb.",
        )),
        (None, _, _) => Err(Refusal::not_found()),
    }
}

/// The members of a query that mean something here. Decoded, `+` being itself: base64 has it.
#[derive(Debug, Default)]
pub(super) struct Query {
    se: String,
    sp: String,
    sig: String,
    comp: Option<String>,
    blockid: Option<String>,
    wait: Option<String>,
}

impl Query {
    pub(super) fn read(text: &str) -> Query {
        let mut query = Query::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "se" => query.se = value,
                "sp" => query.sp = value,
                "sig" => query.sig = value,
                "comp" => query.comp = Some(value),
                "blockid" => query.blockid = Some(value),
                "wait" => query.wait = Some(value),
                _ => {}
            }
        }
        query
    }
}

pub(super) fn check(authority: &Authority, path: &str, query: &Query, now: Timestamp) -> Option<Permission> {
    let sig = URL_SAFE_NO_PAD.decode(query.sig.trim_end_matches('=')).ok()?;
    let text = signed_text(path, &query.se, &query.sp);
    if !authority.verify_hmac(PURPOSE, text.as_bytes(), &sig) {
        return None;
    }
    let until: i64 = query.se.parse().ok()?;
    let may = [Permission::Write, Permission::Read].into_iter().find(|p| p.as_str() == query.sp)?;
    (now.unix_secs() < until).then_some(may)
}

/// A blob, for whoever was given its address: only at the registry's data endpoint, while
/// that is on, and from where the registry may be reached.
async fn content(app: &Arc<App>, parts: &Parts, registry: i64, digest: &Digest) -> Result<Response, Refusal> {
    let host = host::without_port(host::of(parts).unwrap_or_default());
    let registry = app.service.data_endpoint_at(host).filter(|r| r.id == registry).ok_or_else(Refusal::not_found)?;
    app.service
        .check_network(&registry, caller::peer(parts))
        .map_err(|e| Refusal::new(StatusCode::FORBIDDEN, "AuthorizationFailure", e.message))?;
    let size = app.service.blobs.size(digest).await.map_err(Error::from)?.ok_or_else(Refusal::not_found)?;
    match v2::blob::wanted(parts, digest, size).map_err(refused)? {
        v2::blob::Answer::Done(response) => Ok(response),
        v2::blob::Answer::Part(status, part) => {
            v2::blob::send(&app.service, parts, digest, size, (status, part)).await.map_err(refused)
        }
    }
}

fn refused(e: portolan_service::Error) -> Refusal {
    match e.kind {
        Kind::NotFound => Refusal::not_found(),
        Kind::Invalid | Kind::PreconditionFailed => {
            Refusal::new(super::error::status(e.kind), "ConditionNotMet", e.message)
        }
        _ => {
            tracing::error!(error = %e, "serve a blob at a data endpoint");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "The server failed. Try again.")
        }
    }
}

async fn put(
    app: &Arc<App>,
    registry: i64,
    relative_path: &str,
    query: &Query,
    body: Body,
) -> Result<Response, Refusal> {
    match query.comp.as_deref() {
        None => {
            app.tasks.put_context(registry, relative_path, stream(body)).await?;
        }
        Some("block") => {
            let id = query.blockid.as_deref().and_then(block_id).ok_or_else(|| {
                Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "InvalidQueryParameterValue",
                    "blockid must be base64 of 1 to 64 bytes.",
                )
            })?;
            app.tasks.put_block(registry, relative_path, &id, stream(body)).await?;
        }
        Some("blocklist") => {
            let xml = respond::read_body(body, BLOCK_LIST_BYTES_MAX).await.map_err(|e| match e.kind {
                Kind::Unavailable => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServerBusy", e.message),
                Kind::TooLarge => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge", e.message),
                _ => Refusal::new(StatusCode::BAD_REQUEST, "InvalidXmlDocument", e.message),
            })?;
            let ids =
                block_list(&xml).map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, "InvalidXmlDocument", why))?;
            app.tasks.commit_blocks(registry, relative_path, &ids).await?;
        }
        Some(_) => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "InvalidQueryParameterValue",
                "comp must be block, blocklist or absent.",
            ));
        }
    }
    Ok(respond::empty(StatusCode::CREATED))
}

fn stream(body: Body) -> ByteStream {
    Box::pin(body.into_data_stream().map_err(io::Error::other))
}

fn block_id(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok().filter(|id| (1..=BLOCK_ID_BYTES_MAX).contains(&id.len()))
}

/// The ids in a `<BlockList>`, in order. `Latest`, `Uncommitted` and `Committed` mean the
/// same here: a context is put together once.
pub(super) fn block_list(xml: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    use quick_xml::events::Event;
    let xml = std::str::from_utf8(xml).map_err(|_| "The list of blocks is not UTF-8.")?;
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut ids: Vec<Vec<u8>> = Vec::new();
    let (mut depth, mut text) = (0u32, None::<String>);
    loop {
        match reader.read_event().map_err(|e| format!("The list of blocks is not XML: {e}"))? {
            Event::Start(tag) => {
                depth += 1;
                let name = tag.local_name();
                match (depth, name.as_ref()) {
                    (1, "BlockList") => {}
                    (2, "Latest" | "Uncommitted" | "Committed") => text = Some(String::new()),
                    _ => return Err("The list of blocks has an element that does not belong there.".into()),
                }
            }
            Event::Text(part) => {
                if let Some(text) = &mut text {
                    text.push_str(&part);
                }
            }
            // Ids are base64, which needs no entities.
            Event::GeneralRef(_) | Event::CData(_) => {
                return Err("The list of blocks has an id that is no base64.".into());
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                if let Some(text) = text.take() {
                    let id = block_id(text.trim()).ok_or("The list of blocks has an id that is no base64.")?;
                    if ids.len() >= limits::BLOCKS_MAX {
                        return Err(format!("The list of blocks is longer than {}.", limits::BLOCKS_MAX));
                    }
                    ids.push(id);
                }
            }
            Event::Eof if depth == 0 => return Ok(ids),
            Event::Eof => return Err("The list of blocks ends in the middle.".into()),
            _ => {}
        }
    }
}

async fn log(app: &Arc<App>, parts: &Parts, registry: i64, run: &RunId, query: &Query) -> Result<Response, Refusal> {
    let window = range(&parts.headers);
    let wait = match &query.wait {
        Some(secs) if parts.method == Method::GET => secs.parse().unwrap_or(0).min(WAIT_SECS_MAX),
        _ => 0,
    };
    let begin = window.as_ref().map_or(0, |w| w.start);
    let state = match wait {
        0 => app.tasks.log_state(registry, run).await?,
        secs => app.tasks.log_wait(registry, run, begin, Duration::from_secs(secs)).await?,
    };
    let state = state.ok_or_else(Refusal::not_found)?;
    if parts.method == Method::HEAD {
        let mut res = respond::empty(StatusCode::OK);
        res.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(state.len));
        describe(&mut res, state);
        return Ok(res);
    }
    let Some(window) = window else {
        return body_of(app, registry, run, state, 0..state.len, StatusCode::OK).await;
    };
    if window.start >= state.len {
        let mut res = Refusal::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
        )
        .into_response(false);
        set(&mut res, CONTENT_RANGE.as_str(), &format!("bytes */{}", state.len));
        describe(&mut res, state);
        return Ok(res);
    }
    let window = window.start..window.end.min(state.len);
    let mut res = body_of(app, registry, run, state, window.clone(), StatusCode::PARTIAL_CONTENT).await?;
    set(&mut res, CONTENT_RANGE.as_str(), &format!("bytes {}-{}/{}", window.start, window.end - 1, state.len));
    Ok(res)
}

async fn body_of(
    app: &Arc<App>,
    registry: i64,
    run: &RunId,
    state: LogState,
    window: Range<u64>,
    status: StatusCode,
) -> Result<Response, Refusal> {
    let length = window.end - window.start;
    let bytes = app.tasks.log_read(registry, run, window).await?;
    let mut res = Response::new(Body::from_stream(bytes));
    *res.status_mut() = status;
    res.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    describe(&mut res, state);
    Ok(res)
}

/// The headers that say what a log is and whether it is complete.
fn describe(res: &mut Response, state: LogState) {
    let headers = res.headers_mut();
    if !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    // What a build writes is not ours: a browser must not take it for a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert("x-ms-blob-type", HeaderValue::from_static("AppendBlob"));
    if let Some(complete) = state.complete {
        headers.insert("x-ms-meta-complete", HeaderValue::from_static(complete));
    }
}

fn set(res: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        res.headers_mut().insert(name, value);
    }
}

/// The window asked for: `x-ms-range` before `Range`, `bytes=a-b` or `bytes=a-`. Any other
/// form is as if it were not there (RFC 9110, 14.2).
pub(super) fn range(headers: &HeaderMap) -> Option<Range<u64>> {
    let text = headers.get("x-ms-range").or_else(|| headers.get(RANGE))?.to_str().ok()?;
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.trim().parse().ok()?;
    let end = match last.trim() {
        "" => u64::MAX,
        last => last.parse::<u64>().ok()?.checked_add(1)?,
    };
    (first < end).then_some(first..end)
}

#[cfg(test)]
mod tests {
    use portolan_auth::MasterKey;

    use super::*;

    const PATH: &str = "r7/source/00000000-0000-0000-0000-000000000000.tar.gz";

    #[test]
    fn a_signature_holds_for_one_thing_until_its_time() {
        let authority = Authority::new(MasterKey::new(&[7; 32]));
        let (now, until) = (Timestamp::from_unix_secs(1000), Timestamp::from_unix_secs(2000));
        let url = signed_url(&authority, "https://h:1", PATH, Permission::Write, until);
        let (path, query) = url.strip_prefix("https://h:1").unwrap().split_once('?').unwrap();
        let may = |path: &str, query: &str, now| check(&authority, path, &Query::read(query), now);
        assert_eq!(may(path, query, now), Some(Permission::Write));
        assert_eq!(may(path, &format!("comp=block&{query}&blockid=YQ%3D%3D"), now), Some(Permission::Write));
        assert_eq!(may(path, query, until), None, "its time is over");
        for (was, is) in [("sp=w", "sp=r"), ("se=2000", "se=9000"), ("sig=", "sig=A"), ("sig=", "x=")] {
            assert_eq!(may(path, &query.replace(was, is), now), None, "{is}");
        }
        assert_eq!(may(&path.replace("r7", "r8"), query, now), None);
        assert_eq!(may(path, "", now), None);
        let other = Authority::new(MasterKey::new(&[8; 32]));
        assert_eq!(check(&other, path, &Query::read(query), now), None);
    }

    #[test]
    fn places() {
        assert_eq!(
            place(&format!("/blob/{PATH}")),
            Some(Place::Context { registry: 7, relative_path: PATH[3..].to_owned() })
        );
        assert_eq!(
            place("/blob/r7/logs/cb1/rawtext.log"),
            Some(Place::Log { registry: 7, run: "cb1".parse().unwrap() })
        );
        for bad in
            ["/blob/r/source/x", "/blob/7/source/x", "/blob/r-7/source/x", "/blob/r7/logs/../x/rawtext.log", "/blob/r7"]
        {
            assert_eq!(place(bad), None, "{bad}");
        }
    }

    #[test]
    fn block_lists() {
        let list = |xml: &str| block_list(xml.as_bytes());
        let good = "<?xml version='1.0' encoding='utf-8'?>\n<BlockList><Latest>YQ==</Latest>\n <Uncommitted> YmI= </Uncommitted></BlockList>";
        assert_eq!(list(good).unwrap(), [b"a".to_vec(), b"bb".to_vec()]);
        assert!(list("<BlockList/>").unwrap().is_empty());
        for bad in [
            "<BlockList><Latest>!</Latest></BlockList>",
            "<BlockList><Latest>YQ==</Latest>",
            "<BlockList><Other>YQ==</Other></BlockList>",
            "<List><Latest>YQ==</Latest></List>",
            "<BlockList><Latest>&lol;</Latest></BlockList>",
            "<BlockList><Latest></Latest></BlockList>",
            "not xml <",
        ] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn windows() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            range(&headers)
        };
        assert_eq!(of("x-ms-range", "bytes=0-4095"), Some(0..4096));
        assert_eq!(of("range", "bytes=5-"), Some(5..u64::MAX));
        for bad in ["bytes=-5", "bytes=5-4", "bytes=a-b", "lines=0-1", "bytes=0-18446744073709551615"] {
            assert_eq!(of("range", bad), None, "{bad}");
        }
    }
}
