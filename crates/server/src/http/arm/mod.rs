//! Azure Resource Manager: resource groups, registries and what is in them.
//!
//! Any `api-version` is taken: clients of one release use several. Paths are compared
//! without regard to case. Operations are finished when they are answered, so that clients
//! have nothing to poll; but for the removal of groups and large registries ([`operation`]).
//!
//! Every change is told to the activity log before it is tried and when it has ended
//! ([`activity`]), here, where no handler can forget to.

mod absent;
mod activity;
mod build_options;
mod cache_rule;
mod filter;
pub mod group;
mod host;
mod identity;
mod lock;
mod naming;
mod operation;
pub mod path;
mod provider;
pub mod registry;
mod relay;
mod resources;
mod role;
mod run;
mod security;
pub mod subscription;
mod token;

use std::sync::Arc;

use axum::body::Body;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use portolan_auth::access::Principal;
use portolan_service::{Ctx, Error, Kind};
use portolan_types::{GroupName, RegistryName, limits};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use activity::Told;
pub use path::ArmTarget;
use path::{ArmPath, Extension, Place};

use super::caller::{base_url, control_plane};
use super::{Request, Response, error, respond};
use crate::App;

/// Answer a request to the control plane.
pub async fn handle(app: &Arc<App>, req: Request) -> Response {
    let (parts, body) = req.into_parts();
    let base = base_url(app, &parts);
    told(app, &base, parts, body).await.unwrap_or_else(|e| refusal(app, &base, &e))
}

/// Answer somebody who is known, and tell the activity log.
async fn told(app: &Arc<App>, base: &str, mut parts: Parts, body: Body) -> Result<Response, Error> {
    let ctx = control_plane(app, &parts)?;
    if ctx.principal == Principal::Anonymous {
        return Err(Error::new(
            Kind::Unauthenticated,
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.",
        ));
    }
    let Some(told) = Told::begin(app, &ctx, &parts).await? else { return route(app, base, ctx, parts, body).await };
    parts.extensions.insert(told.event());
    let res = route(app, base, ctx, parts, body).await.unwrap_or_else(|e| refusal(app, base, &e));
    // The body is not `Sync`: what the log needs of the answer goes alone.
    let (status, note) = (res.status(), res.extensions().get::<error::Note>().cloned());
    told.end(app, status, note).await;
    Ok(res)
}

fn refusal(app: &App, base: &str, e: &Error) -> Response {
    let mut res = error::arm(e);
    if e.kind == Kind::Unauthenticated {
        challenge(app, base, e, &mut res);
    }
    res
}

async fn route(app: &Arc<App>, base: &str, ctx: Ctx, parts: Parts, body: Body) -> Result<Response, Error> {
    let method = parts.method.clone();
    let place = match ArmPath::parse(parts.uri.path()) {
        ArmPath::Tenants => return subscription::tenants(app, &method),
        ArmPath::Subscriptions => return subscription::list(app, &method),
        ArmPath::Provider(rest) => return provider::of_tenant(app, &method, &rest),
        ArmPath::In { subscription, place } => {
            subscription::known(app, &subscription)?;
            place
        }
        ArmPath::Extension(on) => return extension(app, base, &ctx, &parts, body, &on).await,
        ArmPath::Unknown => return Err(no_such_path()),
    };
    match place {
        Place::Subscription => subscription::show(app, &method),
        Place::Resources => resources::list(app, &ctx, &parts, None).await,
        Place::Groups => group::list(app, &ctx, &parts).await,
        Place::Group(name) => group::one(app, base, &ctx, &parts, body, &name).await,
        Place::GroupResources(name) => resources::list(app, &ctx, &parts, Some(&group_name(&name)?)).await,
        Place::Providers => provider::list(app, &method),
        Place::Locations => provider::locations(app, &method),
        Place::OperationResult(id) => operation::result(app, base, &ctx, &method, &id).await,
        Place::Provider { namespace, rest } => in_provider(app, base, &ctx, &parts, body, &namespace, &rest).await,
        Place::Registries(group) => registry::list(app, &ctx, &method, Some(&group_name(&group)?)),
        Place::Registry { group, registry, rest } => {
            in_registry(app, base, ctx, parts, body, (&group, &registry), &rest).await
        }
        Place::Identities(group) => identity::list(app, &ctx, &method, Some(&group_name(&group)?)).await,
        Place::Identity { group, identity: name, rest } => {
            identity::handle(app, base, &ctx, &parts, body, (&group_name(&group)?, &name), &rest).await
        }
        Place::Extension(on) => extension(app, base, &ctx, &parts, body, &on).await,
        Place::Other => Err(no_such_type()),
    }
}

/// `/subscriptions/{s}/providers/{namespace}/…`
async fn in_provider(
    app: &Arc<App>,
    base: &str,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    namespace: &str,
    rest: &[String],
) -> Result<Response, Error> {
    let words: Vec<String> = rest.iter().map(|r| r.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ours = namespace.eq_ignore_ascii_case(path::PROVIDER);
    match (words.as_slice(), &parts.method) {
        (["registries"], method) if ours => registry::list(app, ctx, method, None),
        (["userassignedidentities"], method) if namespace.eq_ignore_ascii_case("Microsoft.ManagedIdentity") => {
            identity::list(app, ctx, method, None).await
        }
        (["checknameavailability"], &Method::POST) if ours => registry::check_name(app, ctx, body).await,
        (["locations", _, "operationstatuses", _], _) if ours => operation::status(app, ctx, parts, &rest[3]).await,
        (["locations", _, "operationresults", _], method) if ours => {
            operation::result(app, base, ctx, method, &rest[3]).await
        }
        ([], &Method::GET) | (["register"], &Method::POST) => provider::one(app, namespace),
        _ => Err(no_such_type()),
    }
}

/// `{scope}/providers/{namespace}/{type}[/…]`: what can be put on any resource.
async fn extension(
    app: &Arc<App>,
    base: &str,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    on: &Extension,
) -> Result<Response, Error> {
    let kind = on.rest.first().map(|kind| kind.to_ascii_lowercase()).unwrap_or_default();
    match (on.namespace.as_str(), kind.as_str()) {
        ("microsoft.authorization", "roleassignments" | "roledefinitions" | "denyassignments") => {
            role::handle(app, ctx, parts, body, on).await
        }
        ("microsoft.authorization", "locks") => lock::handle(app, ctx, parts, body, on).await,
        ("microsoft.insights", "eventtypes") => activity::handle(app, ctx, parts, base, on).await,
        ("microsoft.security", "pricings") => security::pricings(app, ctx, parts, body, on).await,
        ("microsoft.security", "assessments") => security::assessments(app, ctx, &parts.method, on),
        _ => Err(no_such_type()),
    }
}

/// A registry and what is inside it.
async fn in_registry(
    app: &Arc<App>,
    base: &str,
    ctx: Ctx,
    parts: Parts,
    body: Body,
    (group, name): (&str, &str),
    rest: &[String],
) -> Result<Response, Error> {
    let group = group_name(group)?;
    let name: RegistryName = name.parse().map_err(|_| {
        Error::new(
            Kind::Invalid,
            "InvalidResourceName",
            "Registry names may contain only letters and digits and must be 5 to 50 characters long.",
        )
    })?;
    let inside = rest.first().map(|r| r.to_ascii_lowercase()).unwrap_or_default();
    match (inside.as_str(), rest.len()) {
        ("", _) => registry::one(app, base, &ctx, &parts, body, &group, &name).await,
        ("listcredentials", 1) => registry::list_credentials(app, &ctx, &parts.method, &group, &name),
        ("regeneratecredential", 1) => registry::regenerate(app, &ctx, &parts.method, body, &group, &name).await,
        ("listrepositoryusages", 1) => registry::repo_usages(app, &ctx, &parts, base, (&group, &name)).await,
        ("listusages", 1) if parts.method == Method::GET => registry::usages(app, &ctx, &group, &name).await,
        ("listusages", 1) => Err(no_such_method(&parts.method)),
        _ => {
            let target = ArmTarget { registry: app.service.find_registry(&ctx, &group, &name)?, base: base.to_owned() };
            match inside.as_str() {
                "listbuildsourceuploadurl" | "schedulerun" | "runs" => {
                    run::handle(app, &ctx, &target, rest, &parts, body).await
                }
                "customdomains" => host::handle(app, &ctx, &target, rest, &parts, body).await,
                "cacherules" => cache_rule::handle(app, &ctx, &target, rest, &parts, body).await,
                "scopemaps" | "tokens" | "generatecredentials" => {
                    token::handle(app, &ctx, &target, rest, &parts, body).await
                }
                word if absent::is(word) => absent::handle(app, &ctx, &target, rest, &parts.method),
                _ => Err(no_such_type()),
            }
        }
    }
}

/// A group's name out of a path.
fn group_name(text: &str) -> Result<GroupName, Error> {
    text.parse().map_err(|why: portolan_types::InvalidName| {
        Error::new(Kind::Invalid, "InvalidResourceGroup", format!("The resource group name is not valid: {}.", why.why))
    })
}

/// Read a JSON body. An absent one is an empty object: several clients leave it out.
async fn json_body<T: DeserializeOwned>(body: Body) -> Result<T, Error> {
    let bytes = respond::read_body(body, limits::CONTROL_BODY_BYTES_MAX).await?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|why| {
        Error::new(
            Kind::Invalid,
            "InvalidRequestContent",
            format!("The request content was invalid and could not be deserialized: '{why}'."),
        )
    })
}

/// Whether `word` is a type of a registry's parts of which there are none here.
pub(super) fn is_absent(word: &str) -> bool {
    absent::is(word)
}

/// Read bytes as each of the bodies that ARM requests have; how many they could be.
#[cfg(feature = "fuzzing")]
pub(crate) fn bodies(bytes: &[u8]) -> usize {
    let registry = serde_json::from_slice::<registry::RegistryBody>(bytes).ok().map(|b| b.into_input().is_ok());
    let run = serde_json::from_slice::<run::RunRequest>(bytes).is_ok();
    let rule = serde_json::from_slice::<cache_rule::RuleBody>(bytes).is_ok();
    let token = serde_json::from_slice::<token::TokenBody>(bytes).ok().map(|b| b.into_input().is_ok()).is_some();
    let map = serde_json::from_slice::<token::ScopeMapBody>(bytes).ok().map(|b| b.into_input()).is_some();
    let new = serde_json::from_slice::<token::GenerateBody>(bytes).is_ok();
    [registry.is_some(), run, rule, token, map, new].into_iter().map(usize::from).sum()
}

/// Whether a `$filter` of `/resources` is understood.
#[cfg(feature = "fuzzing")]
pub(crate) fn filter(text: &str) -> bool {
    filter::parse(text).is_ok()
}

/// `{"value": […]}`
fn list_of(items: Vec<Value>) -> Response {
    respond::json(StatusCode::OK, &json!({"value": items}))
}

/// 405 for a method that a resource does not have.
fn no_such_method(method: &Method) -> Error {
    Error::new(
        Kind::Unsupported,
        "MethodNotAllowed",
        format!("The HTTP method '{method}' is not supported by this resource."),
    )
}

fn no_such_type() -> Error {
    Error::new(
        Kind::NotFound,
        "InvalidResourceType",
        "The resource type could not be found in the namespace for this api version.",
    )
}

fn no_such_path() -> Error {
    Error::new(Kind::NotFound, "NotFound", "The requested path is not an Azure Resource Manager path.")
}

/// Where to get a token, as ARM tells on a 401.
fn challenge(app: &App, base: &str, e: &Error, res: &mut Response) {
    let text = format!(
        "Bearer authorization_uri=\"{base}/{}\", error=\"invalid_token\", error_description=\"{}\"",
        app.service.tenant_id(),
        e.message.replace(['"', '\\'], "'")
    );
    if let Ok(value) = HeaderValue::from_str(&text) {
        res.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
}
