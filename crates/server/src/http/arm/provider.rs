//! Resource providers as clients look them up: which types there are, by which `api-version`s
//! they may be asked for, which operations roles can allow, and where things can be.
//!
//! `az resource …` will not ask for a type whose versions it was not told; the libraries list
//! operations; `az account list-locations` and `--location "East US"` want locations.

use http::{Method, StatusCode};
use portolan_auth::access::Action;
use portolan_service::{Error, Kind};
use serde_json::{Value, json};

use super::path::PROVIDER;
use super::{Response, list_of, no_such_type, respond};
use crate::App;

/// What is served of a provider.
struct Known {
    namespace: &'static str,
    /// Its types, each with what can be in one where that is so.
    types: &'static [&'static str],
    /// What clients are told to ask with, newest first. Any version is taken.
    versions: &'static [&'static str],
}

/// Every provider that has anything here.
const PROVIDERS: [Known; 6] = [
    Known {
        namespace: PROVIDER,
        types: &[
            "registries",
            "registries/cacheRules",
            "registries/connectedRegistries",
            "registries/credentialSets",
            "registries/privateEndpointConnections",
            "registries/replications",
            "registries/runs",
            "registries/scopeMaps",
            "registries/tasks",
            "registries/tokens",
            "registries/webhooks",
            "checkNameAvailability",
            "operations",
        ],
        versions: &["2026-09-01-preview", "2025-11-01", "2025-03-01-preview", "2023-07-01"],
    },
    Known {
        namespace: "Microsoft.ManagedIdentity",
        types: &["userAssignedIdentities", "userAssignedIdentities/federatedIdentityCredentials"],
        versions: &["2024-11-30", "2023-01-31"],
    },
    Known {
        namespace: "Microsoft.Authorization",
        types: &["roleAssignments", "roleDefinitions", "locks"],
        versions: &["2022-04-01", "2020-05-01"],
    },
    Known { namespace: "Microsoft.Resources", types: &["subscriptions", "resourceGroups"], versions: &["2024-11-01"] },
    Known { namespace: "Microsoft.Insights", types: &["eventtypes"], versions: &["2017-03-01-preview", "2015-04-01"] },
    Known {
        namespace: "Microsoft.Security",
        types: &["pricings", "assessments"],
        versions: &["2024-01-01", "2023-01-01", "2021-06-01"],
    },
];

/// `GET /subscriptions/{s}/providers`, and the same without a subscription.
pub(super) fn list(app: &App, method: &Method) -> Result<Response, Error> {
    get_only(method)?;
    Ok(list_of(PROVIDERS.iter().map(|known| value(app, known)).collect()))
}

/// `GET /subscriptions/{s}/providers/{ns}` and its `register`: always registered.
pub(super) fn one(app: &App, namespace: &str) -> Result<Response, Error> {
    Ok(respond::json(StatusCode::OK, &value(app, known(namespace)?)))
}

/// `/providers/…` without a subscription.
pub(super) fn of_tenant(app: &App, method: &Method, rest: &[String]) -> Result<Response, Error> {
    match rest {
        [] => list(app, method),
        [namespace] => {
            get_only(method)?;
            one(app, namespace)
        }
        [namespace, operations] if operations.eq_ignore_ascii_case("operations") => {
            get_only(method)?;
            Ok(list_of(operations_of(known(namespace)?.namespace)))
        }
        _ => Err(no_such_type()),
    }
}

#[allow(dead_code)]
/// `GET /subscriptions/{s}/locations`: where things here can be said to be. Groups and registries
/// may name any other place too.
pub(super) fn locations(app: &App, method: &Method) -> Result<Response, Error> {
    get_only(method)?;
    let region = app.service.region();
    Ok(list_of(vec![json!({
        "id": format!("/subscriptions/{}/locations/{region}", app.service.subscription_id()),
        "name": region,
        "type": "Region",
        "displayName": region,
        "regionalDisplayName": region,
        "metadata": {"regionType": "Physical", "regionCategory": "Recommended", "pairedRegion": []},
    })]))
}

fn known(namespace: &str) -> Result<&'static Known, Error> {
    PROVIDERS.iter().find(|known| known.namespace.eq_ignore_ascii_case(namespace)).ok_or_else(|| {
        let shown: String = namespace.chars().take(64).collect();
        let why = format!("The resource namespace '{}' is invalid.", shown.escape_debug());
        Error::new(Kind::NotFound, "InvalidResourceNamespace", why)
    })
}

fn value(app: &App, known: &Known) -> Value {
    let types: Vec<Value> = known
        .types
        .iter()
        .map(|kind| {
            json!({
                "resourceType": kind,
                "locations": [app.service.region()],
                "apiVersions": known.versions,
                "defaultApiVersion": known.versions.first(),
                "capabilities": "None",
            })
        })
        .collect();
    json!({
        "id": format!("/subscriptions/{}/providers/{}", app.service.subscription_id(), known.namespace),
        "namespace": known.namespace,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": types,
    })
}

/// The operations of a provider that roles tell apart, as `az provider operation` and the
/// libraries' `operations.list` show them.
fn operations_of(namespace: &str) -> Vec<Value> {
    Action::ALL
        .iter()
        .filter_map(|action| {
            let name = action.operation();
            let (provider, rest) = name.split_once('/')?;
            let (resource, what) = rest.rsplit_once('/')?;
            provider.eq_ignore_ascii_case(namespace).then(|| {
                json!({
                    "name": name,
                    "display": {
                        "provider": provider,
                        "resource": resource,
                        "operation": what,
                        "description": format!("{what} of {resource}"),
                    },
                    "origin": "user,system",
                    "isDataAction": action.is_data(),
                })
            })
        })
        .collect()
}

fn get_only(method: &Method) -> Result<(), Error> {
    if method == Method::GET { Ok(()) } else { Err(super::no_such_method(method)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_of_their_provider() {
        let names: Vec<Value> = operations_of(PROVIDER).iter().map(|o| o["name"].clone()).collect();
        assert!(names.contains(&json!("Microsoft.ContainerRegistry/registries/read")));
        assert!(!names.contains(&json!("Microsoft.Authorization/locks/read")));
        let data = operations_of(PROVIDER).into_iter().filter(|o| o["isDataAction"] == true).count();
        assert!(data > 0 && data < names.len());
    }

    #[test]
    fn namespaces_are_told_apart_without_case() {
        assert_eq!(known("microsoft.containerregistry").map(|k| k.namespace).ok(), Some(PROVIDER));
        assert!(known("Microsoft.Nothing").is_err());
    }
}
