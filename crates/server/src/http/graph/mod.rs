//! `/v1.0/…`: the part of Microsoft Graph that command lines use: users, applications, service
//! principals, and who is behind an object id.
//!
//! Answers have Graph's members where they mean something here, and those that clients read
//! besides. Groups do not exist here: they are listed as none, so that who asks for the groups
//! of somebody is told the truth. Owners of applications likewise.

mod application;
mod password;
mod principal;
mod user;
mod wire;

use std::sync::Arc;

use axum::body::Body;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use portolan_auth::access::Principal;
use portolan_service::directory::{DirectoryObject, Filter, Found, IDS_MAX, PAGE_ITEMS, PAGE_ITEMS_MAX, Page};
use portolan_service::{Ctx, Error, Kind};
use portolan_types::{Timestamp, limits};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::caller::{base_url, graph};
use super::{Request, RequestId, Response, respond};
use crate::App;

/// Parts of a path; more is no path of ours.
const PARTS_MAX: usize = 8;

/// One request, with what every handler needs.
struct Ask<'a> {
    app: &'a App,
    ctx: &'a Ctx,
    method: &'a Method,
    /// `https://host[:port]`, for links to the next page.
    base: &'a str,
    query: Vec<(String, String)>,
}

/// Answer a request to Graph.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    match route(app, &parts, body).await {
        Ok(res) => res,
        Err(e) => failure(app, &parts, &e),
    }
}

async fn route(app: &App, parts: &Parts, body: Body) -> Result<Response, Error> {
    let ctx = graph(app, parts)?;
    if ctx.principal == Principal::Anonymous {
        return Err(Error::new(Kind::Unauthenticated, "InvalidAuthenticationToken", "Access token is empty."));
    }
    let path = split(parts.uri.path()).ok_or_else(no_such_path)?;
    let words: Vec<String> = path.iter().map(|part| part.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let base = base_url(app, parts);
    let query = respond::query(&parts.uri);
    let ask = Ask { app, ctx: &ctx, method: &parts.method, base: &base, query };
    match words.as_slice() {
        [_, "applications", ..] => application::handle(&ask, &path[2..], body).await,
        [_, "serviceprincipals", ..] => principal::handle(&ask, &path[2..], body).await,
        [_, "users", ..] => user::handle(&ask, &path[2..], body).await,
        [_, "me"] => user::me(&ask).await,
        [_, "me", "ownedobjects" | "memberof" | "transitivememberof"] => ask.nothing(&Method::GET),
        [_, "me", ..] => Err(no_such_path()),
        [_, "directoryobjects", "getbyids" | "microsoft.graph.getbyids"] => by_ids(&ask, body).await,
        [_, "directoryobjects", _] => one_object(&ask, &path[2]).await,
        [
            _,
            "directoryobjects",
            _,
            "checkmembergroups" | "getmembergroups" | "checkmemberobjects" | "getmemberobjects",
        ] => ask.nothing(&Method::POST),
        [_, "groups" | "oauth2permissiongrants"] => ask.nothing(&Method::GET),
        [_, "groups", _, ..] => Err(no_such(&path[2])),
        [_, "organization"] => organization(&ask),
        _ => Err(no_such_path()),
    }
}

impl Ask<'_> {
    /// A list that is always empty.
    fn nothing(&self, method: &Method) -> Result<Response, Error> {
        match self.method == method {
            true => Ok(respond::json(StatusCode::OK, &json!({"value": []}))),
            false => Err(no_such_method(self.method)),
        }
    }

    /// The filter and page that the query asks for.
    fn list(&self) -> Result<(Filter, Page), Error> {
        for name in ["$search", "$orderby", "$skip", "$apply"] {
            if respond::field(&self.query, name).is_some() {
                let why = format!("The query option '{name}' is not supported.");
                return Err(Error::new(Kind::Invalid, "Request_UnsupportedQuery", why));
            }
        }
        let filter = Filter::parse(respond::field(&self.query, "$filter").unwrap_or_default())?;
        let items_max = match respond::field(&self.query, "$top") {
            Some(text) => text.parse::<usize>().ok().filter(|n| (1..=PAGE_ITEMS_MAX).contains(n)).ok_or_else(|| {
                bad_request(&format!(
                    "Invalid page size specified: '{}'. Must be between 1 and {PAGE_ITEMS_MAX} inclusive.",
                    shown(text)
                ))
            })?,
            None => PAGE_ITEMS,
        };
        let after = respond::field(&self.query, "$skiptoken").unwrap_or_default();
        if !after.is_empty() && Uuid::try_parse(after).is_err() {
            return Err(bad_request("The skip token is not one of ours."));
        }
        Ok((filter, Page { after: after.to_owned(), items_max }))
    }

    /// A page as Graph answers it, with the address of the next.
    fn page<T>(&self, what: &str, found: Found<T>, write: impl Fn(&T) -> Value) -> Response {
        let mut body = json!({
            "@odata.context": format!("{}/v1.0/$metadata#{what}", self.base),
            "value": found.items.iter().map(write).collect::<Vec<_>>(),
        });
        if let Some(after) = found.next {
            let kept = self.query.iter().filter(|(name, _)| name != "$skiptoken");
            let all: Vec<(&str, &str)> =
                kept.map(|(k, v)| (k.as_str(), v.as_str())).chain([("$skiptoken", after.as_str())]).collect();
            let query = serde_urlencoded::to_string(all).unwrap_or_default();
            body["@odata.nextLink"] = json!(format!("{}/v1.0/{what}?{query}", self.base));
        }
        respond::json(StatusCode::OK, &body)
    }

    /// One object as Graph answers it.
    fn object(&self, status: StatusCode, what: &str, mut value: Value) -> Response {
        if let Value::Object(members) = &mut value {
            let context = json!(format!("{}/v1.0/$metadata#{what}/$entity", self.base));
            members.insert("@odata.context".to_owned(), context);
        }
        respond::json(status, &value)
    }
}

/// `POST /directoryObjects/getByIds`
async fn by_ids(ask: &Ask<'_>, body: Body) -> Result<Response, Error> {
    if ask.method != Method::POST {
        return Err(no_such_method(ask.method));
    }
    let body = read_object(body).await?;
    let ids = body.get("ids").and_then(Value::as_array).ok_or_else(|| bad_request("Property 'ids' is required."))?;
    if ids.len() > IDS_MAX {
        return Err(bad_request(&format!("Too many ids were given: at most {IDS_MAX}.")));
    }
    let ids: Option<Vec<Uuid>> = ids.iter().map(|id| Uuid::try_parse(id.as_str()?).ok()).collect();
    let ids = ids.ok_or_else(|| bad_request("Invalid GUID in 'ids'."))?;
    let types = body.get("types").and_then(Value::as_array);
    let wanted = |kind: &str| {
        types.is_none_or(|types| {
            types
                .iter()
                .filter_map(Value::as_str)
                .any(|t| t.eq_ignore_ascii_case(kind) || t.eq_ignore_ascii_case("directoryObject"))
        })
    };
    let found = ask.app.service.directory_objects(ask.ctx, &ids).await?;
    let tenant = ask.app.service.tenant_id();
    let values: Vec<Value> = found
        .iter()
        .filter(|object| match object {
            DirectoryObject::User(_) => wanted("user"),
            DirectoryObject::ServicePrincipal(_) => wanted("servicePrincipal"),
        })
        .map(|object| wire::object(object, tenant))
        .collect();
    Ok(respond::json(
        StatusCode::OK,
        &json!({"@odata.context": format!("{}/v1.0/$metadata#directoryObjects", ask.base), "value": values}),
    ))
}

/// `GET /directoryObjects/{id}`
async fn one_object(ask: &Ask<'_>, id: &str) -> Result<Response, Error> {
    if ask.method != Method::GET {
        return Err(no_such_method(ask.method));
    }
    let id = Uuid::try_parse(id).map_err(|_| no_such(id))?;
    let found = ask.app.service.directory_objects(ask.ctx, &[id]).await?;
    let object = found.first().ok_or_else(|| no_such(&id.to_string()))?;
    Ok(ask.object(StatusCode::OK, "directoryObjects", wire::object(object, ask.app.service.tenant_id())))
}

/// `GET /organization`: the tenant.
fn organization(ask: &Ask<'_>) -> Result<Response, Error> {
    if ask.method != Method::GET {
        return Err(no_such_method(ask.method));
    }
    let tenant = json!({"id": ask.app.service.tenant_id(), "displayName": "Portolan", "verifiedDomains": []});
    Ok(respond::json(StatusCode::OK, &json!({"value": [tenant]})))
}

/// The parts of a path, decoded; `kind(id)` and `kind('name')` are two parts.
fn split(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut parts = Vec::new();
    for part in path.split('/') {
        let part = percent_decode_str(part).decode_utf8().ok()?.into_owned();
        if part.is_empty() || part == "." || part == ".." || part.chars().any(|c| c == '/' || c.is_control()) {
            return None;
        }
        match part.split_once('(').and_then(|(kind, key)| Some((kind, key.strip_suffix(')')?))) {
            Some((kind, key)) if !kind.is_empty() => {
                let key = unquoted(key).unwrap_or_else(|| key.to_owned());
                if ["", ".", ".."].iter().any(|dots| key == *dots || kind == *dots) {
                    return None;
                }
                parts.push(kind.to_owned());
                parts.push(key);
            }
            _ => parts.push(part),
        }
        if parts.len() > PARTS_MAX {
            return None;
        }
    }
    Some(parts)
}

fn unquoted(text: &str) -> Option<String> {
    Some(text.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'"))
}

/// Read a JSON object. `@odata` members say how it is written, and are left out.
async fn read_object(body: Body) -> Result<Map<String, Value>, Error> {
    let bytes = respond::read_body(body, limits::CONTROL_BODY_BYTES_MAX).await?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    let mut object: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|_| bad_request("Unable to read JSON request payload."))?;
    object.retain(|name, _| !name.contains('@'));
    Ok(object)
}

/// Take a text out of an object; `None` when it is absent or `null`.
fn take_text(object: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Error> {
    match object.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(name)),
    }
}

/// Take a switch out of an object. Command lines send it as a word, too.
fn take_switch(object: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Error> {
    match object.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(on)),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(invalid(name)),
    }
}

fn take_time(object: &mut Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Error> {
    match take_text(object, name)? {
        None => Ok(None),
        Some(text) => Timestamp::parse(&text).map(Some).ok_or_else(|| invalid(name)),
    }
}

fn invalid(name: &str) -> Error {
    bad_request(&format!("Invalid value specified for property '{name}'."))
}

fn bad_request(message: &str) -> Error {
    Error::new(Kind::Invalid, "Request_BadRequest", message)
}

fn no_such(id: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "Request_ResourceNotFound",
        format!(
            "Resource '{}' does not exist or one of its queried reference-property objects are not present.",
            shown(id)
        ),
    )
}

fn no_such_path() -> Error {
    Error::new(
        Kind::Invalid,
        "BadRequest",
        "Resource not found for the segment: this server has no such part of Graph.",
    )
}

/// Refuse every method but POST.
fn post_only(ask: &Ask<'_>) -> Result<(), Error> {
    if ask.method == Method::POST { Ok(()) } else { Err(no_such_method(ask.method)) }
}

fn no_such_method(method: &Method) -> Error {
    Error::new(
        Kind::Unsupported,
        "Request_BadRequest",
        format!("Specified HTTP method '{method}' is not allowed for the request target."),
    )
}

/// The id of an object in a path.
fn id(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|_| no_such(text))
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect::<String>().escape_debug().to_string()
}

/// An error as Graph has it.
fn failure(app: &App, parts: &Parts, e: &Error) -> Response {
    let id = parts.extensions.get::<RequestId>().map_or("", |id| &id.0);
    let code = match e.code {
        "BODY_INVALID" | "SIZE_INVALID" => "Request_BadRequest",
        "UNKNOWN" => "InternalServerError",
        code => code,
    };
    let body = json!({"error": {
        "code": code,
        "message": e.message,
        "innerError": {"date": Timestamp::now().rfc3339(), "request-id": id, "client-request-id": id},
    }});
    let mut res = respond::json(super::error::status(e.kind), &body);
    if e.kind == Kind::Unauthenticated {
        let base = base_url(app, parts);
        let text = format!("Bearer realm=\"\", authorization_uri=\"{base}/common/oauth2/v2.0/authorize\"");
        if let Ok(value) = HeaderValue::from_str(&text) {
            res.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
    }
    super::error::finish(res, e)
}

/// The parts of a path.
#[cfg(feature = "fuzzing")]
pub(crate) fn parts(path: &str) -> Option<Vec<String>> {
    split(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_be_in_brackets() {
        let parts = |path: &str| split(path).map(|p| p.join("|"));
        assert_eq!(parts("/v1.0/users/a%40b.c").as_deref(), Some("v1.0|users|a@b.c"));
        assert_eq!(parts("/v1.0/users('$a@b''c')").as_deref(), Some("v1.0|users|$a@b'c"));
        assert_eq!(
            parts("/v1.0/applications(appId='x')/owners/").as_deref(),
            Some("v1.0|applications|appId='x'|owners")
        );
        for bad in [
            "/v1.0//users",
            "/v1.0/users/..",
            "/v1.0/users/%2e%2e",
            "/v1.0/users/a%2Fb",
            "/v1.0/a/b/c/d/e/f/g/h/i",
            "/v1.0/users/%ff",
            "/v1.0/users('..')",
            "/v1.0/users('')",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
