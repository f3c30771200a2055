//! `…/providers/Microsoft.ManagedIdentity/userAssignedIdentities[/{name}[/…]]`

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_service::directory::{FederatedCredential, FederatedInput, IdentityInput, ManagedIdentity, Owner};
use portolan_service::{Ctx, Error};
use portolan_types::GroupName;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Response, json_body, list_of, no_such_method, no_such_type, respond};
use crate::App;

const TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";
const FEDERATED_TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials";

#[derive(Debug, Deserialize)]
struct IdentityBody {
    location: Option<String>,
    tags: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct FederatedBody {
    properties: Option<FederatedProperties>,
}

#[derive(Debug, Default, Deserialize)]
struct FederatedProperties {
    issuer: Option<String>,
    subject: Option<String>,
    audiences: Option<Vec<String>>,
}

/// The identities of a group, or of the subscription.
pub(super) async fn list(app: &App, ctx: &Ctx, method: &Method, group: Option<&GroupName>) -> Result<Response, Error> {
    if method != Method::GET {
        return Err(no_such_method(method));
    }
    let all = app.service.identities(ctx, group).await?;
    Ok(list_of(all.iter().map(|i| to_wire(app, i)).collect()))
}

/// One identity and what is inside it.
pub(super) async fn handle(
    app: &App,
    base: &str,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    (group, name): (&GroupName, &str),
    rest: &[String],
) -> Result<Response, Error> {
    let words: Vec<String> = rest.iter().map(|w| w.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let owner = || Owner::Identity(group.clone(), name.to_owned());
    match words.as_slice() {
        [] => one(app, ctx, parts, body, group, name).await,
        ["generateendpointsecret"] => renew_secret(app, base, ctx, parts, group, name).await,
        ["federatedidentitycredentials"] if parts.method == Method::GET => {
            let identity = app.service.identity(ctx, group, name).await?;
            let all = app.service.federated(ctx, &owner()).await?;
            Ok(list_of(all.iter().map(|f| federated_to_wire(&identity, f)).collect()))
        }
        ["federatedidentitycredentials"] => Err(no_such_method(&parts.method)),
        ["federatedidentitycredentials", _] => federated(app, ctx, parts, body, &owner(), &rest[1]).await,
        _ => Err(no_such_type()),
    }
}

async fn one(
    app: &App,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    group: &GroupName,
    name: &str,
) -> Result<Response, Error> {
    let service = &app.service;
    match parts.method {
        Method::GET => Ok(respond::json(StatusCode::OK, &to_wire(app, &service.identity(ctx, group, name).await?))),
        Method::PUT => {
            let given: IdentityBody = json_body(body).await?;
            let input = IdentityInput { location: given.location, tags: given.tags };
            let (identity, created) = service.put_identity(ctx, group, name, &input).await?;
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &to_wire(app, &identity)))
        }
        Method::PATCH => {
            let given: IdentityBody = json_body(body).await?;
            let identity = service.patch_identity(ctx, group, name, given.tags.as_ref()).await?;
            Ok(respond::json(StatusCode::OK, &to_wire(app, &identity)))
        }
        Method::DELETE => match service.delete_identity(ctx, group, name).await? {
            true => Ok(respond::empty(StatusCode::OK)),
            false => Ok(respond::empty(StatusCode::NO_CONTENT)),
        },
        _ => Err(no_such_method(&parts.method)),
    }
}

/// `POST …/generateEndpointSecret`: ours. Azure's machines have an address that only they
/// reach; here whoever has this secret may ask for the identity's tokens.
async fn renew_secret(
    app: &App,
    base: &str,
    ctx: &Ctx,
    parts: &Parts,
    group: &GroupName,
    name: &str,
) -> Result<Response, Error> {
    if parts.method != Method::POST {
        return Err(no_such_method(&parts.method));
    }
    let secret = app.service.renew_identity_secret(ctx, group, name).await?;
    let endpoint = format!("{base}/msi/token");
    let body = json!({
        "identityEndpoint": endpoint,
        "identityHeader": secret.expose(),
        "msiEndpoint": endpoint,
        "msiSecret": secret.expose(),
    });
    Ok(respond::json(StatusCode::OK, &body))
}

async fn federated(
    app: &App,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    owner: &Owner,
    name: &str,
) -> Result<Response, Error> {
    let service = &app.service;
    let Owner::Identity(group, of) = owner else { return Err(no_such_type()) };
    match parts.method {
        Method::GET => {
            let identity = service.identity(ctx, group, of).await?;
            let found = service.one_federated(ctx, owner, name).await?;
            Ok(respond::json(StatusCode::OK, &federated_to_wire(&identity, &found)))
        }
        Method::PUT => {
            let given: FederatedBody = json_body(body).await?;
            let given = given.properties.unwrap_or_default();
            let input = FederatedInput {
                issuer: given.issuer,
                subject: given.subject,
                audiences: given.audiences,
                description: None,
            };
            let (made, created) = service.put_federated(ctx, owner, name, input, true).await?;
            let identity = service.identity(ctx, group, of).await?;
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &federated_to_wire(&identity, &made)))
        }
        Method::DELETE => match service.delete_federated(ctx, owner, name).await? {
            true => Ok(respond::empty(StatusCode::OK)),
            false => Ok(respond::empty(StatusCode::NO_CONTENT)),
        },
        _ => Err(no_such_method(&parts.method)),
    }
}

/// An identity as ARM has it.
pub(super) fn to_wire(app: &App, identity: &ManagedIdentity) -> Value {
    json!({
        "id": identity.id,
        "name": identity.name,
        "type": TYPE,
        "location": identity.location,
        "tags": identity.tags,
        "properties": {
            "clientId": identity.client_id,
            "principalId": identity.principal_id,
            "tenantId": app.service.tenant_id(),
        },
    })
}

fn federated_to_wire(identity: &ManagedIdentity, credential: &FederatedCredential) -> Value {
    json!({
        "id": identity.id.child("federatedIdentityCredentials", &credential.name),
        "name": credential.name,
        "type": FEDERATED_TYPE,
        "properties": {
            "issuer": credential.issuer,
            "subject": credential.subject,
            "audiences": credential.audiences,
        },
    })
}
