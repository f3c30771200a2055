//! `…/providers/Microsoft.ContainerRegistry/registries[/{r}]`: the registry resource and
//! the actions on it.

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_auth::password::AdminPassword;
use portolan_service::registries::{Credentials, NameCheck, Registry, RegistryInput};
use portolan_service::{Ctx, Error, Kind};
use portolan_types::{GroupName, RegistryName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Response, json_body, list_of, no_such_method, respond};
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
    app: &App,
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
            let existed = service.delete_registry(ctx, group, name).await?;
            Ok(respond::empty(if existed { StatusCode::OK } else { StatusCode::NO_CONTENT }))
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

/// `GET …/resources[?$filter=…]`: how clients find the group that a registry is in.
pub(super) fn resources(app: &App, ctx: &Ctx, parts: &Parts, group: Option<&GroupName>) -> Result<Response, Error> {
    if parts.method != Method::GET {
        return Err(no_such_method(&parts.method));
    }
    let query = respond::query(&parts.uri);
    let filter = Filter::parse(respond::field(&query, "$filter").unwrap_or_default())?;
    let registries = app.service.list_registries(ctx, group)?;
    let items = registries.iter().filter(|r| filter.takes(r)).map(|r| {
        json!({
            "id": r.resource_id,
            "name": r.name,
            "type": TYPE,
            "location": r.location,
            "sku": {"name": r.sku.as_str(), "tier": r.sku.as_str()},
            "tags": r.tags,
        })
    });
    Ok(list_of(items.collect()))
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
    let wire = |u: &portolan_service::registries::Usage| json!({"name": u.name, "limit": u.limit, "currentValue": u.current, "unit": u.unit});
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

/// `$filter` of `/resources`: comparisons with `eq`, joined by `and`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Filter {
    kind: Option<String>,
    name: Option<String>,
    group: Option<String>,
    location: Option<String>,
}

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Filter, Error> {
        let invalid = || {
            Error::new(
                Kind::Invalid,
                "InvalidFilterInQueryString",
                "Invalid $filter: use resourceType, name, resourceGroup or location with `eq`, joined by `and`.",
            )
        };
        let mut filter = Filter::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (field, after) = rest.split_once(' ').ok_or_else(invalid)?;
            let after = after.trim_start();
            let value = after.get(..3).filter(|w| w.eq_ignore_ascii_case("eq ")).and_then(|_| quoted(&after[3..]));
            let (value, after) = value.ok_or_else(invalid)?;
            let slot = match field.to_ascii_lowercase().as_str() {
                "resourcetype" => &mut filter.kind,
                "name" => &mut filter.name,
                "resourcegroup" => &mut filter.group,
                "location" => &mut filter.location,
                _ => return Err(invalid()),
            };
            *slot = Some(value);
            rest = after.trim();
            if !rest.is_empty() {
                rest = rest
                    .get(..4)
                    .filter(|w| w.eq_ignore_ascii_case("and "))
                    .map(|_| rest[4..].trim_start())
                    .ok_or_else(invalid)?;
                if rest.is_empty() {
                    return Err(invalid());
                }
            }
        }
        Ok(filter)
    }

    fn takes(&self, r: &Registry) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(is));
        same(&self.kind, TYPE)
            && same(&self.name, r.name.as_str())
            && same(&self.group, r.group.as_str())
            && same(&self.location, &r.location)
    }
}

/// An OData text at the start of `text` (`'it''s'`), and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.trim_start().strip_prefix('\'')?;
    let mut value = String::new();
    loop {
        let end = rest.find('\'')?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let f = Filter::parse("resourceType eq 'Microsoft.ContainerRegistry/registries' and name eq 'it''s'").unwrap();
        assert_eq!(f.kind.as_deref(), Some(TYPE));
        assert_eq!(f.name.as_deref(), Some("it's"));
        assert_eq!(Filter::parse("").unwrap(), Filter::default());
        for bad in [
            "name",
            "name eq",
            "name eq x",
            "name eq 'x",
            "name ne 'x'",
            "a eq 'b'",
            "name eq 'x' or name eq 'y'",
            "name eq 'x' and ",
            "name eq 'x' and",
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
