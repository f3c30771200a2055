//! Parts of a registry that ARM knows and of which there are none here: a list of them is
//! empty, one of them is not found, and none can be made.

use http::{Method, StatusCode};
use portolan_auth::access::{Action, Target};
use portolan_service::{Ctx, Error, Kind};

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
            let name = rest.get(1).map(|n| n.escape_debug().to_string()).unwrap_or_default();
            Err(Error::new(
                Kind::NotFound,
                "ResourceNotFound",
                format!(
                    "The Resource 'Microsoft.ContainerRegistry/registries/{}/{kind}/{name}' under resource group '{}' was not found.",
                    registry.name, registry.group
                ),
            ))
        }
    }
}
