//! Tenants and subscriptions: there is one of each.

use http::{Method, StatusCode};
use portolan_service::{Error, Kind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Response, list_of, no_such_method, respond};
use crate::App;

/// `GET /tenants`
pub(super) fn tenants(app: &App, method: &Method) -> Result<Response, Error> {
    get_only(method)?;
    let id = app.service.tenant_id();
    Ok(list_of(vec![json!({
        "id": format!("/tenants/{id}"),
        "tenantId": id,
        "displayName": "Portolan",
        "tenantCategory": "Home",
    })]))
}

/// `GET /subscriptions`
pub(super) fn list(app: &App, method: &Method) -> Result<Response, Error> {
    get_only(method)?;
    Ok(list_of(vec![subscription(app)]))
}

/// `GET /subscriptions/{s}`
pub(super) fn show(app: &App, method: &Method) -> Result<Response, Error> {
    get_only(method)?;
    Ok(respond::json(StatusCode::OK, &subscription(app)))
}

/// Refuse a subscription that is not ours.
pub(super) fn known(app: &App, given: &str) -> Result<(), Error> {
    match Uuid::try_parse(given) {
        Ok(id) if id == app.service.subscription_id() => Ok(()),
        Ok(id) => Err(Error::new(
            Kind::NotFound,
            "SubscriptionNotFound",
            format!("The subscription '{id}' could not be found."),
        )),
        Err(_) => {
            let shown: String = given.chars().take(64).collect();
            let why =
                format!("The provided subscription identifier '{}' is malformed or invalid.", shown.escape_debug());
            Err(Error::new(Kind::Invalid, "InvalidSubscriptionId", why))
        }
    }
}

fn subscription(app: &App) -> Value {
    let id = app.service.subscription_id();
    json!({
        "id": format!("/subscriptions/{id}"),
        "subscriptionId": id,
        "tenantId": app.service.tenant_id(),
        "displayName": "Portolan",
        "state": "Enabled",
        "subscriptionPolicies": {"quotaId": "PayAsYouGo", "spendingLimit": "Off"},
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
    })
}

fn get_only(method: &Method) -> Result<(), Error> {
    if method == Method::GET { Ok(()) } else { Err(no_such_method(method)) }
}
