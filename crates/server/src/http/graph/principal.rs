//! `/v1.0/servicePrincipals[/…]`

use axum::body::Body;
use http::{Method, StatusCode};
use portolan_service::Error;
use portolan_service::directory::{Holder, ServicePrincipalInput};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::application::app_id;
use super::wire::{self, no_passwords, take_keys};
use super::{Ask, bad_request, id, no_such_method, no_such_path, password, read_object, take_switch, take_text};
use crate::http::{Response, respond};

/// Members that Graph sets itself; command lines send them back.
const READ_ONLY: &[&str] = &[
    "addIns",
    "appDisplayName",
    "appOwnerOrganizationId",
    "appRoles",
    "createdDateTime",
    "deletedDateTime",
    "id",
    "oauth2PermissionScopes",
    "servicePrincipalNames",
    "servicePrincipalType",
    "signInAudience",
];

pub(super) async fn handle(ask: &Ask<'_>, rest: &[String], body: Body) -> Result<Response, Error> {
    let Some((which, inside)) = rest.split_first() else { return all(ask, body).await };
    let id = match app_id(which) {
        Some(app_id) => ask.app.service.service_principal_by_app_id(ask.ctx, app_id?).await?.object_id,
        None => id(which)?,
    };
    let words: Vec<String> = inside.iter().map(|w| w.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => one(ask, id, body).await,
        ["addpassword"] => password::add(ask, Holder::ServicePrincipal, id, body).await,
        ["removepassword"] => password::remove(ask, Holder::ServicePrincipal, id, body).await,
        ["owners" | "approleassignments" | "approleassignedto" | "oauth2permissiongrants" | "memberof"] => {
            ask.nothing(&Method::GET)
        }
        ["getmembergroups" | "checkmembergroups"] => ask.nothing(&Method::POST),
        ["owners", ..] => Err(bad_request("Service principals have no owners here; roles say who may change them.")),
        _ => Err(no_such_path()),
    }
}

async fn all(ask: &Ask<'_>, body: Body) -> Result<Response, Error> {
    let tenant = ask.app.service.tenant_id();
    match *ask.method {
        Method::GET => {
            let (filter, page) = ask.list()?;
            let found = ask.app.service.service_principals(ask.ctx, filter, page).await?;
            Ok(ask.page("servicePrincipals", found, |one| wire::principal(one, tenant)))
        }
        Method::POST => {
            let mut body = read_object(body).await?;
            let app_id = take_text(&mut body, "appId")?.ok_or_else(|| bad_request("Property 'appId' is required."))?;
            let app_id = Uuid::try_parse(&app_id).map_err(|_| {
                bad_request(&format!(
                    "The appId '{}' of the service principal does not reference a valid application object.",
                    super::shown(&app_id)
                ))
            })?;
            let made = ask.app.service.create_service_principal(ask.ctx, app_id, input(body)?).await?;
            Ok(ask.object(StatusCode::CREATED, "servicePrincipals", wire::principal(&made, tenant)))
        }
        _ => Err(no_such_method(ask.method)),
    }
}

async fn one(ask: &Ask<'_>, id: Uuid, body: Body) -> Result<Response, Error> {
    match *ask.method {
        Method::GET => {
            let found = ask.app.service.service_principal(ask.ctx, id).await?;
            let tenant = ask.app.service.tenant_id();
            Ok(ask.object(StatusCode::OK, "servicePrincipals", wire::principal(&found, tenant)))
        }
        Method::PATCH => {
            let mut body = read_object(body).await?;
            body.remove("appId");
            ask.app.service.update_service_principal(ask.ctx, id, input(body)?).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        Method::DELETE => {
            ask.app.service.delete_service_principal(ask.ctx, id).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(no_such_method(ask.method)),
    }
}

fn input(mut body: Map<String, Value>) -> Result<ServicePrincipalInput, Error> {
    body.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
    no_passwords(&mut body)?;
    Ok(ServicePrincipalInput {
        display_name: take_text(&mut body, "displayName")?,
        enabled: take_switch(&mut body, "accountEnabled")?,
        keys: take_keys(&mut body)?,
        properties: body,
    })
}
