//! Parts of a registry that ARM knows and of which there are none here: a list of them is
//! empty, one of them is not found, and none can be made.

use http::{Method, StatusCode};
use portolan_auth::access::{Action, Target};
use portolan_service::{Ctx, Error, Kind, Registry};
use serde_json::json;

use super::{ArmTarget, Response, list_of, no_such_method, no_such_type, respond};
use crate::App;

/// Each type as it is spelled, with who may see it.
const TYPES: [(&str, Action); 12] = [
    ("agentPools", Action::RegistryRead),
    ("connectedRegistries", Action::ConnectedRegistryRead),
    ("credentialSets", Action::CredentialSetRead),
    ("exportPipelines", Action::RegistryRead),
    ("importPipelines", Action::RegistryRead),
    ("pipelineRuns", Action::RegistryRead),
    ("privateEndpointConnections", Action::PrivateEndpointRead),
    ("privateLinkResources", Action::RegistryRead),
    ("replications", Action::ReplicationRead),
    ("taskRuns", Action::RegistryRead),
    ("tasks", Action::TaskRead),
    ("webhooks", Action::WebhookRead),
];

/// What a private link would lead to: of this type there is one, which tools look up before
/// they ask for a link. No link can be made.
const LINKS: &str = "privateLinkResources";

fn links(app: &App, ctx: &Ctx, target: &ArmTarget, rest: &[String]) -> Result<Response, Error> {
    const GROUP: &str = "registry";
    let registry = &*target.registry;
    app.service.check(ctx, registry, &Target::Registry, Action::RegistryRead)?;
    let value = json!({
        "id": registry.resource_id.child(LINKS, GROUP),
        "name": GROUP,
        "type": "Microsoft.ContainerRegistry/registries/privateLinkResources",
        "properties": {
            "groupId": GROUP,
            "requiredMembers": [GROUP],
            "requiredZoneNames": ["privatelink.azurecr.io"],
        },
    });
    match rest {
        [] => Ok(list_of(vec![value])),
        [name] if name.eq_ignore_ascii_case(GROUP) => Ok(respond::json(StatusCode::OK, &value)),
        [name, ..] => Err(not_found(registry, LINKS, name)),
    }
}

fn not_found(registry: &Registry, kind: &str, name: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "ResourceNotFound",
        format!(
            "The Resource 'Microsoft.ContainerRegistry/registries/{}/{kind}/{}' under resource group '{}' was not found.",
            registry.name,
            name.escape_debug(),
            registry.group
        ),
    )
}

/// Whether `word` is one of these types, in any case.
pub(super) fn is(word: &str) -> bool {
    find(word).is_some()
}

fn find(word: &str) -> Option<(&'static str, Action)> {
    TYPES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word))
}

/// Answer what follows a registry's path, for these types.
pub(super) fn handle(
    app: &App,
    ctx: &Ctx,
    target: &ArmTarget,
    rest: &[String],
    method: &Method,
) -> Result<Response, Error> {
    let (kind, action) = rest.first().and_then(|word| find(word)).ok_or_else(no_such_type)?;
    let registry = &*target.registry;
    let may = |action| app.service.check(ctx, registry, &Target::Registry, action);
    if kind == LINKS && method == Method::GET {
        return links(app, ctx, target, &rest[1..]);
    }
    match (rest.len(), method) {
        (1, &Method::GET) => may(action).map(|()| list_of(Vec::new())),
        (1, method) => Err(no_such_method(method)),
        (2, &Method::PUT) => {
            may(Action::RegistryWrite)?;
            Err(Error::new(
                Kind::Invalid,
                "OperationNotSupported",
                format!("This server has no {kind} of registries, and none can be made."),
            ))
        }
        (2, &Method::DELETE) => may(Action::RegistryWrite).map(|()| respond::empty(StatusCode::NO_CONTENT)),
        _ => {
            may(action)?;
            Err(not_found(registry, kind, rest.get(1).map_or("", String::as_str)))
        }
    }
}
