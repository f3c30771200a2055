//! Tenants, subscriptions and resource providers: there is one of each that matters.

use http::{Method, StatusCode};
use portolan_service::{Error, Kind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::path::PROVIDER;
use super::{Response, list_of, no_such_method, no_such_type, respond};
use crate::App;

/// Resource types of our provider, for `az provider show`.
const TYPES: [&str; 4] = ["registries", "registries/runs", "registries/tasks", "registries/cacheRules"];

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

/// `GET /subscriptions/{s}/providers`
pub(super) fn providers(app: &App, method: &Method) -> Result<Response, Error> {
    get_only(method)?;
    Ok(list_of(vec![provider_value(app)]))
}

/// `GET /subscriptions/{s}/providers/{ns}` and its `register`: always registered.
pub(super) fn provider(app: &App, namespace: &str) -> Result<Response, Error> {
    if !namespace.eq_ignore_ascii_case(PROVIDER) {
        let shown: String = namespace.chars().take(64).collect();
        let why = format!("The resource namespace '{}' is invalid.", shown.escape_debug());
        return Err(Error::new(Kind::NotFound, "InvalidResourceNamespace", why));
    }
    Ok(respond::json(StatusCode::OK, &provider_value(app)))
}

/// `/providers/…` without a subscription.
pub(super) fn tenant_provider(app: &App, method: &Method, rest: &[String]) -> Result<Response, Error> {
    match rest {
        [] => providers(app, method),
        [namespace] => {
            get_only(method)?;
            provider(app, namespace)
        }
        _ => Err(no_such_type()),
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

fn provider_value(app: &App) -> Value {
    let types: Vec<Value> =
        TYPES.iter().map(|t| json!({"resourceType": t, "locations": [], "apiVersions": []})).collect();
    json!({
        "id": format!("/subscriptions/{}/providers/{PROVIDER}", app.service.subscription_id()),
        "namespace": PROVIDER,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": types,
    })
}

fn get_only(method: &Method) -> Result<(), Error> {
    if method == Method::GET { Ok(()) } else { Err(no_such_method(method)) }
}
