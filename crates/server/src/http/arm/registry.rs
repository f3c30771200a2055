//! `…/providers/Microsoft.ContainerRegistry/registries[/{r}]`: the registry resource and
//! the actions on it.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use portolan_auth::password::AdminPassword;
use portolan_service::activity::Event;
use portolan_service::registries::{Credentials, NameCheck, Registry, RegistryInput};
use portolan_service::registry_identity::{IdentitiesInput, RegistryIdentity};
use portolan_service::usages::{Figures, PAGE_ITEMS_MAX};
use portolan_service::{Ctx, Error, Kind};
use portolan_types::{GroupName, RegistryName, RepoName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Response, json_body, list_of, no_such_method, operation, respond};
use crate::App;

const TYPE: &str = "Microsoft.ContainerRegistry/registries";

/// Body of PUT and PATCH; members that ARM reports itself are left unread.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RegistryBody {
    location: Option<String>,
    sku: Option<SkuBody>,
    tags: Option<Map<String, Value>>,
    properties: Option<Map<String, Value>>,
    identity: Option<IdentityBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    user_assigned_identities: Option<Map<String, Value>>,
}

impl IdentityBody {
    /// Which identities ARM's words ask for; an identity that is null is to go.
    fn input(&self) -> Result<IdentitiesInput, Error> {
        let mut input = IdentitiesInput { own: false, assigned: Some(Vec::new()) };
        for word in self.kind.as_deref().unwrap_or("None").split(',').map(str::trim) {
            match word.to_ascii_lowercase().as_str() {
                "systemassigned" => input.own = true,
                "userassigned" => {
                    let given = self.user_assigned_identities.as_ref();
                    let kept = |map: &Map<String, Value>| {
                        map.iter().filter(|(_, v)| !v.is_null()).map(|(id, _)| id.clone()).collect()
                    };
                    input.assigned = given.map(kept);
                }
                "none" | "" => {}
                _ => {
                    return Err(Error::new(
                        Kind::Invalid,
                        "InvalidRequestContent",
                        "The request content was invalid: `identity.type` must be SystemAssigned, UserAssigned, both, or None.",
                    ));
                }
            }
        }
        Ok(input)
    }
}

#[derive(Debug, Deserialize)]
struct SkuBody {
    name: Option<String>,
}

impl RegistryBody {
    pub(super) fn into_input(self) -> Result<RegistryInput, Error> {
        Ok(RegistryInput {
            location: self.location,
            sku: self.sku.and_then(|s| s.name).map(|name| name.parse()).transpose()?,
            tags: self.tags,
            properties: self.properties.unwrap_or_default(),
        })
    }
}

/// One registry: PUT, PATCH, GET, HEAD, DELETE.
pub(super) async fn one(
    app: &Arc<App>,
    base: &str,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    group: &GroupName,
    name: &RegistryName,
) -> Result<Response, Error> {
    let service = &app.service;
    match parts.method {
        Method::GET => Ok(respond::json(StatusCode::OK, &to_wire(&*service.show_registry(ctx, group, name)?))),
        Method::HEAD => match service.show_registry(ctx, group, name) {
            Ok(_) => Ok(respond::empty(StatusCode::NO_CONTENT)),
            Err(e) if e.kind == Kind::NotFound => Ok(respond::empty(StatusCode::NOT_FOUND)),
            Err(e) => Err(e),
        },
        Method::PUT => {
            let body = json_body::<RegistryBody>(body).await?;
            let identities = body.identity.as_ref().map(IdentityBody::input).transpose()?;
            let (mut registry, created) = service.put_registry(ctx, group, name, body.into_input()?).await?;
            if let Some(identities) = identities {
                service.set_registry_identities(ctx, group, name, identities).await?;
                registry = service.show_registry(ctx, group, name)?;
            }
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &to_wire(&registry)))
        }
        Method::PATCH => {
            let body = json_body::<RegistryBody>(body).await?;
            let identities = body.identity.as_ref().map(IdentityBody::input).transpose()?;
            let mut input = body.into_input()?;
            if let Some(identities) = identities {
                service.set_registry_identities(ctx, group, name, identities).await?;
            }
            // PATCH cannot move a registry; clients that send back what they read do not mean to.
            input.location = None;
            let registry = service.patch_registry(ctx, group, name, input).await?;
            Ok(respond::json(StatusCode::OK, &to_wire(&registry)))
        }
        Method::DELETE => {
            let told = parts.extensions.get::<Event>().cloned();
            match service.begin_registry_deletion(ctx, group, name, told).await? {
                Some(operation) => operation::soon(app, base, &operation).await,
                None => Ok(respond::empty(StatusCode::NO_CONTENT)),
            }
        }
        _ => Err(no_such_method(&parts.method)),
    }
}

/// `GET …/registries` of a group or of the subscription.
pub(super) fn list(app: &App, ctx: &Ctx, method: &Method, group: Option<&GroupName>) -> Result<Response, Error> {
    if method != Method::GET {
        return Err(no_such_method(method));
    }
    let registries = app.service.list_registries(ctx, group)?;
    Ok(list_of(registries.iter().map(|r| to_wire(r)).collect()))
}

/// `POST …/checkNameAvailability`
pub(super) async fn check_name(app: &App, ctx: &Ctx, body: Body) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Wanted {
        name: Option<String>,
    }
    let wanted: Wanted = json_body(body).await?;
    let name = wanted.name.unwrap_or_default();
    let answer = match app.service.check_name(ctx, &name)? {
        NameCheck::Available { login_server } => {
            json!({"nameAvailable": true, "availableLoginServerName": login_server})
        }
        NameCheck::Invalid(why) => json!({"nameAvailable": false, "reason": "Invalid", "message": why}),
        NameCheck::Taken(why) => json!({"nameAvailable": false, "reason": "AlreadyExists", "message": why}),
    };
    Ok(respond::json(StatusCode::OK, &answer))
}

/// `POST …/listCredentials`
pub(super) fn list_credentials(
    app: &App,
    ctx: &Ctx,
    method: &Method,
    group: &GroupName,
    name: &RegistryName,
) -> Result<Response, Error> {
    if method != Method::POST {
        return Err(no_such_method(method));
    }
    Ok(credentials_to_wire(&app.service.list_credentials(ctx, group, name)?))
}

/// `POST …/regenerateCredential`
pub(super) async fn regenerate(
    app: &App,
    ctx: &Ctx,
    method: &Method,
    body: Body,
    group: &GroupName,
    name: &RegistryName,
) -> Result<Response, Error> {
    #[derive(Deserialize)]
    struct Which {
        name: Option<String>,
    }
    if method != Method::POST {
        return Err(no_such_method(method));
    }
    let which: Which = json_body(body).await?;
    let which = AdminPassword::BOTH
        .into_iter()
        .find(|p| which.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(p.as_str())))
        .ok_or_else(|| {
            Error::new(Kind::Invalid, "InvalidRequestContent", "The password name must be password or password2.")
        })?;
    Ok(credentials_to_wire(&app.service.regenerate_credential(ctx, group, name, which).await?))
}

/// `GET …/listUsages`
pub(super) async fn usages(app: &App, ctx: &Ctx, group: &GroupName, name: &RegistryName) -> Result<Response, Error> {
    let usages = app.service.usages(ctx, group, name).await?;
    let wire = |u: &portolan_service::usages::Usage| json!({"name": u.name, "limit": u.limit, "currentValue": u.current, "unit": u.unit});
    Ok(list_of(usages.iter().map(wire).collect()))
}

/// `GET …/listRepositoryUsages[?$top=N&$skipToken=NAME]`: what each repository holds. Not
/// ACR's, whose figures are of whole registries.
pub(super) async fn repo_usages(
    app: &App,
    ctx: &Ctx,
    parts: &Parts,
    base: &str,
    (group, name): (&GroupName, &RegistryName),
) -> Result<Response, Error> {
    if parts.method != Method::GET {
        return Err(no_such_method(&parts.method));
    }
    let query = respond::query(&parts.uri);
    let field = |name: &str| query.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    let top = field("$top").map_or(Ok(PAGE_ITEMS_MAX), |n| {
        let why = "$top must be a whole number above 0";
        n.parse().ok().filter(|n| *n > 0).ok_or_else(|| Error::new(Kind::Invalid, "InvalidRequestContent", why))
    })?;
    let top = top.min(PAGE_ITEMS_MAX);
    let after = field("$skiptoken").unwrap_or_default();
    let found = app.service.repo_usages(ctx, group, name, after, top + 1).await?;
    let wire = |(repo, figures): &(RepoName, Figures)| {
        json!({
            "name": repo,
            "bytes": figures.bytes,
            "uniqueBytes": figures.unique_bytes,
            "sharedBytes": figures.shared_bytes(),
        })
    };
    let page = &found[..found.len().min(top)];
    let mut answer = json!({"value": page.iter().map(wire).collect::<Vec<_>>()});
    if let (true, Some((last, _))) = (found.len() > top, page.last()) {
        let last = utf8_percent_encode(last.as_str(), NON_ALPHANUMERIC);
        answer["nextLink"] = format!("{base}{}?$top={top}&$skipToken={last}", parts.uri.path()).into();
    }
    Ok(respond::json(StatusCode::OK, &answer))
}

/// A registry as ARM shows it.
pub(super) fn to_wire(registry: &Registry) -> Value {
    let mut properties = json!({
        "loginServer": registry.login_server,
        "creationDate": registry.created.rfc3339_arm(),
        "provisioningState": "Succeeded",
        "adminUserEnabled": registry.admin_enabled,
        "dataEndpointHostNames": registry.data_endpoints,
        "regionalEndpointHostNames": registry.regional_endpoints,
        "privateEndpointConnections": [],
    });
    for (name, value) in &registry.properties {
        properties[name] = value.clone();
    }
    let mut value = json!({
        "id": registry.resource_id,
        "name": registry.name,
        "type": TYPE,
        "location": registry.location,
        "tags": registry.tags,
        "sku": {"name": registry.sku.as_str(), "tier": registry.sku.as_str()},
        "properties": properties,
    });
    if !registry.identities.is_empty() {
        value["identity"] = identity_to_wire(&registry.identities);
    }
    value
}

fn identity_to_wire(identities: &[RegistryIdentity]) -> Value {
    let own = identities.iter().find(|i| i.id.is_none());
    let assigned: Map<String, Value> = identities
        .iter()
        .filter_map(|i| Some((i.id.clone()?, json!({"principalId": i.principal, "clientId": i.client}))))
        .collect();
    let kind = match (own.is_some(), assigned.is_empty()) {
        (true, false) => "SystemAssigned, UserAssigned",
        (true, true) => "SystemAssigned",
        (false, _) => "UserAssigned",
    };
    let mut value = json!({"type": kind});
    if let Some(own) = own {
        value["principalId"] = json!(own.principal);
        value["tenantId"] = json!(own.tenant);
    }
    if !assigned.is_empty() {
        value["userAssignedIdentities"] = Value::Object(assigned);
    }
    value
}

fn credentials_to_wire(credentials: &Credentials) -> Response {
    let passwords: Vec<Value> = credentials
        .passwords
        .iter()
        .map(|(which, password)| json!({"name": which.as_str(), "value": password.expose()}))
        .collect();
    respond::json(StatusCode::OK, &json!({"username": credentials.username, "passwords": passwords}))
}
