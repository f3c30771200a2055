//! `…/registries/{r}/scopeMaps[/{name}]`, `…/tokens[/{name}]` and `…/generateCredentials`:
//! repository tokens and what they may do.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use portolan_service::repo_tokens::{NewPasswords, PasswordInfo, TokenInfo, TokenInput, TokenPassword};
use portolan_service::scope_maps::{ScopeMapInfo, ScopeMapInput};
use portolan_service::{Ctx, Error, Kind};
use portolan_types::Timestamp;
use portolan_types::limits::PAGE_ITEMS_MAX;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ArmTarget, Response, json_body, no_such_method, no_such_type, respond};
use crate::App;

const SCOPE_MAP_TYPE: &str = "Microsoft.ContainerRegistry/registries/scopeMaps";
const TOKEN_TYPE: &str = "Microsoft.ContainerRegistry/registries/tokens";

#[derive(Debug, Default, Deserialize)]
pub(super) struct ScopeMapBody {
    #[serde(default)]
    properties: ScopeMapProperties,
}

#[derive(Debug, Default, Deserialize)]
struct ScopeMapProperties {
    description: Option<String>,
    actions: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenBody {
    #[serde(default)]
    properties: TokenProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenProperties {
    scope_map_id: Option<String>,
    status: Option<String>,
    credentials: Option<CredentialsBody>,
}

#[derive(Debug, Default, Deserialize)]
struct CredentialsBody {
    certificates: Option<Vec<Value>>,
    passwords: Option<Vec<PasswordBody>>,
}

#[derive(Debug, Deserialize)]
struct PasswordBody {
    name: Option<String>,
    expiry: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GenerateBody {
    token_id: Option<String>,
    name: Option<String>,
    expiry: Option<String>,
}

impl TokenBody {
    pub(super) fn into_input(self) -> Result<TokenInput, Error> {
        let TokenProperties { scope_map_id, status, credentials } = self.properties;
        let credentials = credentials.unwrap_or_default();
        if credentials.certificates.is_some_and(|c| !c.is_empty()) {
            return Err(invalid("tokens sign in with passwords here, not with certificates"));
        }
        let password = |p: PasswordBody| -> Result<_, Error> {
            Ok((which(p.name.as_deref().unwrap_or_default())?, time(p.expiry.as_deref())?))
        };
        let passwords: Option<Result<Vec<_>, Error>> =
            credentials.passwords.map(|passwords| passwords.into_iter().map(password).collect());
        let passwords = passwords.transpose()?;
        let enabled = status.as_deref().map(enabled).transpose()?;
        Ok(TokenInput { scope_map_id: scope_map_id.filter(|id| !id.is_empty()), enabled, passwords })
    }
}

/// Answer what follows a registry's path, for tokens and scope maps.
pub(super) async fn handle(
    app: &Arc<App>,
    ctx: &Ctx,
    target: &ArmTarget,
    rest: &[String],
    parts: &Parts,
    body: Body,
) -> Result<Response, Error> {
    let (service, registry) = (&app.service, &*target.registry);
    let kind = rest.first().map(|kind| kind.to_ascii_lowercase()).unwrap_or_default();
    match (kind.as_str(), &rest[1..], &parts.method) {
        ("scopemaps", [], &Method::GET) => {
            let after = skip_token(&parts.uri);
            let (maps, more) = service.list_scope_maps(ctx, registry, &after, PAGE_ITEMS_MAX).await?;
            let next = maps.last().filter(|_| more).map(|map| next_link(target, &parts.uri, &map.name));
            Ok(page(maps.iter().map(|map| scope_map_to_wire(target, map)).collect(), next))
        }
        ("scopemaps", [name], &Method::GET) => {
            Ok(ok(&scope_map_to_wire(target, &service.scope_map(ctx, registry, name).await?)))
        }
        ("scopemaps", [name], &Method::PUT) => {
            let body: ScopeMapBody = json_body(body).await?;
            let (map, new) = service.put_scope_map(ctx, registry, name, body.into_input()).await?;
            Ok(respond::json(made(new), &scope_map_to_wire(target, &map)))
        }
        ("scopemaps", [name], &Method::PATCH) => {
            let body: ScopeMapBody = json_body(body).await?;
            Ok(ok(&scope_map_to_wire(target, &service.patch_scope_map(ctx, registry, name, body.into_input()).await?)))
        }
        ("scopemaps", [name], &Method::DELETE) => Ok(gone(service.delete_scope_map(ctx, registry, name).await?)),
        ("tokens", [], &Method::GET) => {
            let after = skip_token(&parts.uri);
            let (tokens, more) = service.list_tokens(ctx, registry, &after, PAGE_ITEMS_MAX).await?;
            let next = tokens.last().filter(|_| more).map(|token| next_link(target, &parts.uri, token.name.as_str()));
            Ok(page(tokens.iter().map(|token| token_to_wire(target, token)).collect(), next))
        }
        ("tokens", [name], &Method::GET) => Ok(ok(&token_to_wire(target, &service.token(ctx, registry, name).await?))),
        ("tokens", [name], &Method::PUT) => {
            let body: TokenBody = json_body(body).await?;
            let (token, new) = service.put_token(ctx, registry, name, body.into_input()?).await?;
            Ok(respond::json(made(new), &token_to_wire(target, &token)))
        }
        ("tokens", [name], &Method::PATCH) => {
            let body: TokenBody = json_body(body).await?;
            Ok(ok(&token_to_wire(target, &service.patch_token(ctx, registry, name, body.into_input()?).await?)))
        }
        ("tokens", [name], &Method::DELETE) => Ok(gone(service.delete_token(ctx, registry, name).await?)),
        ("generatecredentials", [], &Method::POST) => {
            let body: GenerateBody = json_body(body).await?;
            let token_id = body.token_id.unwrap_or_default();
            let which = body.name.as_deref().filter(|name| !name.is_empty()).map(which).transpose()?;
            let expires = time(body.expiry.as_deref())?;
            let made = service.generate_credentials(ctx, registry, &token_id, which, expires).await?;
            Ok(ok(&passwords_to_wire(&made)))
        }
        ("generatecredentials", [], method) | (_, [] | [_], method) => Err(no_such_method(method)),
        _ => Err(no_such_type()),
    }
}

impl ScopeMapBody {
    pub(super) fn into_input(self) -> ScopeMapInput {
        ScopeMapInput { description: self.properties.description, actions: self.properties.actions }
    }
}

fn ok(body: &Value) -> Response {
    respond::json(StatusCode::OK, body)
}

fn made(new: bool) -> StatusCode {
    if new { StatusCode::CREATED } else { StatusCode::OK }
}

fn gone(existed: bool) -> Response {
    respond::empty(if existed { StatusCode::OK } else { StatusCode::NO_CONTENT })
}

/// `{"value": […], "nextLink": "…"}`
fn page(items: Vec<Value>, next: Option<String>) -> Response {
    let mut body = json!({"value": items});
    if let Some(next) = next {
        body["nextLink"] = next.into();
    }
    ok(&body)
}

/// The name after which the page that is asked for begins.
fn skip_token(uri: &Uri) -> String {
    respond::field(&respond::query(uri), "$skiptoken").unwrap_or_default().to_owned()
}

/// Where the next page is: the same request, after `last`.
fn next_link(target: &ArmTarget, uri: &Uri, last: &str) -> String {
    let query = respond::query(uri);
    let version = respond::field(&query, "api-version").unwrap_or_default();
    let plain = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    format!("{}{}?api-version={}&$skiptoken={}", target.base, uri.path(), plain(version), plain(last))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "InvalidParameter", message)
}

fn which(name: &str) -> Result<TokenPassword, Error> {
    TokenPassword::named(name).ok_or_else(|| invalid("a password's name must be password1 or password2"))
}

fn enabled(status: &str) -> Result<bool, Error> {
    match status.to_ascii_lowercase().as_str() {
        "enabled" => Ok(true),
        "disabled" => Ok(false),
        _ => Err(invalid("`properties.status` must be enabled or disabled")),
    }
}

/// A time, as clients write it: with or without an offset, which is then UTC.
fn time(text: Option<&str>) -> Result<Option<Timestamp>, Error> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let read = Timestamp::parse(text)
        .or_else(|| Timestamp::parse(&format!("{text}Z")))
        .or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")));
    read.map(Some).ok_or_else(|| invalid("an expiry must be a time such as 2027-01-31T00:00:00Z"))
}

fn scope_map_to_wire(target: &ArmTarget, map: &ScopeMapInfo) -> Value {
    json!({
        "id": target.registry.resource_id.child("scopeMaps", &map.name),
        "name": map.name,
        "type": SCOPE_MAP_TYPE,
        "properties": {
            "description": map.description,
            "type": if map.is_system { "SystemDefined" } else { "UserDefined" },
            "creationDate": map.created.rfc3339_arm(),
            "provisioningState": "Succeeded",
            "actions": map.actions,
        },
    })
}

fn token_to_wire(target: &ArmTarget, token: &TokenInfo) -> Value {
    let id = &target.registry.resource_id;
    let mut properties = json!({
        "creationDate": token.created.rfc3339_arm(),
        "provisioningState": "Succeeded",
        "credentials": {"passwords": token.passwords.iter().map(|p| password_to_wire(p, None)).collect::<Vec<_>>()},
        "status": if token.enabled { "enabled" } else { "disabled" },
    });
    if let Some(map) = &token.scope_map {
        properties["scopeMapId"] = json!(id.child("scopeMaps", map));
    }
    json!({"id": id.child("tokens", token.name.as_str()), "name": token.name, "type": TOKEN_TYPE, "properties": properties})
}

fn password_to_wire(password: &PasswordInfo, value: Option<&str>) -> Value {
    let mut wire = json!({
        "name": password.which.as_str(),
        "creationTime": password.created.rfc3339_arm(),
        "expiry": password.expires.map(Timestamp::rfc3339_arm),
    });
    if let Some(value) = value {
        wire["value"] = value.into();
    }
    wire
}

fn passwords_to_wire(made: &NewPasswords) -> Value {
    let passwords: Vec<Value> =
        made.passwords.iter().map(|(info, value)| password_to_wire(info, Some(value.expose()))).collect();
    json!({"username": made.username, "passwords": passwords})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_clients_write_them() {
        let at = Timestamp::parse("2027-01-31T00:00:00Z");
        for text in ["2027-01-31T00:00:00Z", "2027-01-31T01:00:00+01:00", "2027-01-31T00:00:00", " 2027-01-31 "] {
            assert_eq!(time(Some(text)).unwrap(), at, "{text}");
        }
        assert_eq!(time(None).unwrap(), None);
        assert_eq!(time(Some("")).unwrap(), None);
        assert!(time(Some("9999-12-31T23:59:59.999999Z")).unwrap().is_some());
        for bad in ["tomorrow", "2027", "2027-02-30", "99999-01-01"] {
            assert!(time(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn bodies_of_tokens() {
        let read = |body: Value| serde_json::from_value::<TokenBody>(body).unwrap().into_input();
        let input = read(json!({"properties": {"status": "Disabled", "scopeMapId": "/x",
            "credentials": {"passwords": [{"name": "password2", "expiry": "2027-01-31"}]}}}))
        .unwrap();
        assert_eq!((input.enabled, input.scope_map_id.as_deref()), (Some(false), Some("/x")));
        let passwords = input.passwords.unwrap();
        assert!(matches!(passwords.as_slice(), [(TokenPassword::Second, Some(_))]));
        assert!(read(json!({})).unwrap().passwords.is_none());
        for bad in [
            json!({"properties": {"status": "on"}}),
            json!({"properties": {"credentials": {"passwords": [{"name": "password3"}]}}}),
            json!({"properties": {"credentials": {"passwords": [{}]}}}),
            json!({"properties": {"credentials": {"certificates": [{"name": "certificate1"}]}}}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
