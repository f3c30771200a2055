//! `…/providers/Microsoft.ContainerRegistry/registries[/{r}]`: the registry resource and
//! the actions on it.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_auth::password::AdminPassword;
use portolan_service::activity::Event;
use portolan_service::registries::{Credentials, NameCheck, Registry, RegistryInput};
use portolan_service::{Ctx, Error, Kind};
use portolan_types::{GroupName, RegistryName};
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
            let input = json_body::<RegistryBody>(body).await?.into_input()?;
            let (registry, created) = service.put_registry(ctx, group, name, input).await?;
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &to_wire(&registry)))
        }
        Method::PATCH => {
            let mut input = json_body::<RegistryBody>(body).await?.into_input()?;
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

/// A registry as ARM shows it.
pub(super) fn to_wire(registry: &Registry) -> Value {
    let mut properties = json!({
        "loginServer": registry.login_server,
        "creationDate": registry.created.rfc3339_arm(),
        "provisioningState": "Succeeded",
        "adminUserEnabled": registry.admin_enabled,
        "dataEndpointHostNames": [],
        "privateEndpointConnections": [],
    });
    for (name, value) in &registry.properties {
        properties[name] = value.clone();
    }
    json!({
        "id": registry.resource_id,
        "name": registry.name,
        "type": TYPE,
        "location": registry.location,
        "tags": registry.tags,
        "sku": {"name": registry.sku.as_str(), "tier": registry.sku.as_str()},
        "properties": properties,
    })
}

fn credentials_to_wire(credentials: &Credentials) -> Response {
    let passwords: Vec<Value> = credentials
        .passwords
        .iter()
        .map(|(which, password)| json!({"name": which.as_str(), "value": password.expose()}))
        .collect();
    respond::json(StatusCode::OK, &json!({"username": credentials.username, "passwords": passwords}))
}
