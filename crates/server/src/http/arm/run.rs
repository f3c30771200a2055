//! `…/registries/{r}/listBuildSourceUploadUrl`, `/scheduleRun`, `/runs[/{id}[/…]]`: the
//! addresses of contexts and logs, and the runs of builds.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use portolan_auth::access::{Action, Principal, RoleMode, Target};
use portolan_service::{Ctx, Error, Kind, Registry};
use portolan_tasks::{BuildArg, BuildOptions, BuildSpec, NamedSource, NewRun, Run, RunKind, RunRegistry, filter};
use portolan_types::{Platform, RunId, Secret, Timestamp, limits};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::blob::{Permission, files_path, signed_url};
use super::{ArmTarget, Response, build_options, json_body, list_of, no_such_method, no_such_type, relay, respond};
use crate::App;
use crate::build::stock::Owner;

/// How long a context may take to be uploaded: every request of it begins within this.
const UPLOAD_SECS_MAX: u64 = 4 * 3600;
/// How long a log can be read by one address; longer than a run may take.
const LOG_SECS_MAX: u64 = 24 * 3600;
const TYPE: &str = "Microsoft.ContainerRegistry/registries/runs";

/// Answer what follows a registry's path, for the types named above.
pub(super) async fn handle(
    app: &Arc<App>,
    ctx: &Ctx,
    target: &ArmTarget,
    rest: &[String],
    parts: &Parts,
    body: Body,
) -> Result<Response, Error> {
    let words: Vec<String> = rest.iter().map(|r| r.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let method = &parts.method;
    match (words.as_slice(), method) {
        (["listbuildsourceuploadurl"], &Method::POST) => upload_url(app, ctx, target).await,
        (["schedulerun"], &Method::POST) => schedule(app, ctx, target, body).await,
        (["runs"], &Method::GET) => list(app, ctx, target, parts.uri.query().unwrap_or_default()).await,
        (["runs", id], &Method::GET) => show(app, ctx, target, id).await,
        (["runs", id], &Method::PATCH) => update(app, ctx, target, id, body).await,
        (["runs", id, "cancel"], &Method::POST) => cancel(app, ctx, target, id).await,
        (["runs", id, "relayagent"], &Method::POST) => relay::handle(app, ctx, target, id, body).await,
        (["runs", id, "listlogsasurl"], &Method::POST) => log_url(app, ctx, target, id).await,
        (["listbuildsourceuploadurl" | "schedulerun" | "runs"], _)
        | (["runs", _] | ["runs", _, "cancel" | "relayagent" | "listlogsasurl"], _) => Err(no_such_method(method)),
        _ => Err(no_such_type()),
    }
}

/// What a task error is to ARM's clients.
fn refused(error: portolan_tasks::Error) -> Error {
    use portolan_tasks::Error as T;
    match error {
        T::Invalid { code, message } => Error::new(Kind::Invalid, code, message),
        T::NotFound(message) => Error::new(Kind::NotFound, "ResourceNotFound", message),
        T::QueueFull { .. } => Error::new(Kind::TooMany { retry_after_secs: 15 }, "TooManyRequests", error.to_string()),
        T::Store(e) => e.into(),
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "InvalidRequest", message)
}

fn run_id(text: &str) -> Result<RunId, Error> {
    text.parse().map_err(|_| Error::new(Kind::NotFound, "ResourceNotFound", format!("there is no run {text}")))
}

async fn upload_url(app: &Arc<App>, ctx: &Ctx, target: &ArmTarget) -> Result<Response, Error> {
    app.service.check(ctx, &target.registry, &Target::Registry, Action::UploadContext)?;
    let staged = app.tasks.stage_context(target.registry.id, ctx.now).await.map_err(refused)?;
    let path = format!("r{}/{}", target.registry.id, staged.relative_path);
    let until = ctx.now.plus(Duration::from_secs(UPLOAD_SECS_MAX));
    let url = signed_url(&app.service.authority, &target.base, &path, Permission::Write, until);
    let mut answer = json!({"relativePath": staged.relative_path, "uploadUrl": url});
    // Ours: where a client learns which files need not be sent. Where roles are asked for
    // each repository, nobody profits from what another's build brought.
    let owner = match (target.registry.role_mode, &ctx.principal) {
        (RoleMode::Legacy, _) => Some(None),
        (RoleMode::Abac, Principal::Directory { object_id, .. }) => Some(Some(*object_id)),
        (RoleMode::Abac, _) => None,
    };
    if let (Some(_), Some(caller)) = (&app.stock, owner) {
        let path = files_path(&Owner { registry: target.registry.id, caller });
        answer["filesUrl"] = json!(signed_url(&app.service.authority, &target.base, &path, Permission::Write, until));
    }
    Ok(respond::json(StatusCode::OK, &answer))
}

async fn log_url(app: &Arc<App>, ctx: &Ctx, target: &ArmTarget, id: &str) -> Result<Response, Error> {
    let run = found(app, ctx, target, id, Action::RunLog).await?;
    let path = format!("r{}/logs/{}/rawtext.log", target.registry.id, run.id);
    let until = ctx.now.plus(Duration::from_secs(LOG_SECS_MAX));
    let url = signed_url(&app.service.authority, &target.base, &path, Permission::Read, until);
    Ok(respond::json(StatusCode::OK, &json!({ "logLink": url })))
}

pub(super) async fn found(
    app: &Arc<App>,
    ctx: &Ctx,
    target: &ArmTarget,
    id: &str,
    action: Action,
) -> Result<Run, Error> {
    app.service.check(ctx, &target.registry, &Target::Registry, action)?;
    let id = run_id(id)?;
    let run = app.tasks.get(target.registry.id, &id).await.map_err(refused)?;
    run.ok_or_else(|| Error::new(Kind::NotFound, "ResourceNotFound", format!("there is no run {id}")))
}

async fn show(app: &Arc<App>, ctx: &Ctx, target: &ArmTarget, id: &str) -> Result<Response, Error> {
    let run = found(app, ctx, target, id, Action::RunRead).await?;
    Ok(respond::json(StatusCode::OK, &to_wire(target, &run)))
}

async fn list(app: &Arc<App>, ctx: &Ctx, target: &ArmTarget, query: &str) -> Result<Response, Error> {
    app.service.check(ctx, &target.registry, &Target::Registry, Action::RunRead)?;
    let (mut top, mut filter) = (limits::PAGE_ITEMS_DEFAULT, String::new());
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |t: &str| percent_decode_str(&t.replace('+', " ")).decode_utf8_lossy().into_owned();
        match text(name).to_ascii_lowercase().as_str() {
            "$top" => {
                top = text(value).parse().map_err(|_| invalid("$top must be a whole number"))?;
            }
            "$filter" => filter = text(value),
            _ => {}
        }
    }
    let filter = filter::parse(&filter).map_err(invalid)?;
    let runs = app.tasks.list(target.registry.id, filter, top).await.map_err(refused)?;
    Ok(list_of(runs.iter().map(|run| to_wire(target, run)).collect()))
}

/// PATCH: ACR lets a client change whether a run is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunUpdate {
    is_archive_enabled: Option<bool>,
    properties: Option<Box<RunUpdate>>,
}

async fn update(app: &Arc<App>, ctx: &Ctx, target: &ArmTarget, id: &str, body: Body) -> Result<Response, Error> {
    let mut run = found(app, ctx, target, id, Action::RunWrite).await?;
    let update: RunUpdate = json_body(body).await?;
    let archived = update.is_archive_enabled.or_else(|| update.properties.and_then(|p| p.is_archive_enabled));
    if let Some(archived) = archived {
        run = app.tasks.set_archived(target.registry.id, &run.id, archived, ctx.now).await.map_err(refused)?;
    }
    Ok(respond::json(StatusCode::OK, &to_wire(target, &run)))
}

async fn cancel(app: &Arc<App>, ctx: &Ctx, target: &ArmTarget, id: &str) -> Result<Response, Error> {
    let run = found(app, ctx, target, id, Action::RunCancel).await?;
    let run = app.tasks.cancel(target.registry.id, &run.id, ctx.now).await.map_err(refused)?;
    Ok(respond::json(StatusCode::OK, &to_wire(target, &run)))
}

/// The body of scheduleRun; members of other types of run are left unread.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunRequest {
    #[serde(rename = "type", default)]
    kind: String,
    image_names: Option<Vec<String>>,
    is_push_enabled: Option<bool>,
    no_cache: Option<bool>,
    docker_file_path: Option<String>,
    target: Option<String>,
    arguments: Option<Vec<Argument>>,
    timeout: Option<i64>,
    platform: Option<PlatformBody>,
    agent_configuration: Option<AgentBody>,
    agent_pool_name: Option<String>,
    source_location: Option<String>,
    is_archive_enabled: Option<bool>,
    credentials: Option<CredentialsBody>,
    /// See [`super::build_options`].
    build_options: Option<Secret<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CredentialsBody {
    source_registry: Option<SourceRegistryBody>,
}

#[derive(Debug, Default, Deserialize)]
struct SourceRegistryBody {
    identity: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    name: String,
    value: Option<Secret<String>>,
    #[serde(default)]
    is_secret: bool,
}

#[derive(Debug, Deserialize)]
struct PlatformBody {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

#[derive(Debug, Deserialize)]
struct AgentBody {
    cpu: Option<u32>,
}

async fn schedule(app: &Arc<App>, ctx: &Ctx, target: &ArmTarget, body: Body) -> Result<Response, Error> {
    app.service.check(ctx, &target.registry, &Target::Registry, Action::ScheduleRun)?;
    let request: RunRequest = json_body(body).await?;
    let new = from_wire(ctx, target, request)?;
    let run = app.tasks.schedule(new, ctx.now).await.map_err(refused)?;
    tracing::info!(run = %run.id, registry = %target.registry.name, "run queued");
    Ok(respond::json(StatusCode::OK, &to_wire(target, &run)))
}

fn from_wire(ctx: &Ctx, target: &ArmTarget, request: RunRequest) -> Result<NewRun, Error> {
    match request.kind.to_ascii_lowercase().as_str() {
        "dockerbuildrequest" => {}
        "filetaskrunrequest" | "encodedtaskrunrequest" | "taskrunrequest" => {
            return Err(invalid(format!(
                "{} is not supported: this server builds Dockerfiles (`acr build`), it does not run task files",
                request.kind
            )));
        }
        "" => return Err(invalid("`type` is missing: expected DockerBuildRequest")),
        _ => return Err(invalid(format!("`{}` is not a type of run: expected DockerBuildRequest", request.kind))),
    }
    if let Some(pool) = request.agent_pool_name.filter(|p| !p.is_empty()) {
        return Err(invalid(format!("there is no agent pool `{pool}`: builds run on this server")));
    }
    let images = request.image_names.unwrap_or_default();
    let timeout_secs = match request.timeout {
        None => None,
        Some(secs) => Some(
            u64::try_from(secs)
                .map_err(|_| invalid(format!("timeout must be between 1 and {} seconds", limits::RUN_SECS_MAX)))?,
        ),
    };
    let args = request.arguments.unwrap_or_default();
    let (mut options, single) = build_options::read(request.build_options.map(Secret::into_exposed))?;
    if options.ssh.iter().any(|ssh| ssh.forward) {
        options.ssh_owner = match ctx.principal {
            Principal::Directory { object_id, .. } => Some(object_id),
            _ => return Err(invalid("buildOptions.ssh: only a user or a service principal can forward an agent")),
        };
    }
    let (context, remote) = source(request.source_location)?;
    let options = BuildOptions { source: remote, ..options };
    let build = BuildSpec {
        images: Vec::new(),
        push: request.is_push_enabled.unwrap_or(true) && !images.is_empty(),
        no_cache: request.no_cache.unwrap_or(false),
        dockerfile: request.docker_file_path.filter(|p| !p.is_empty()).unwrap_or_else(|| "Dockerfile".into()),
        target: request.target.filter(|t| !t.is_empty()),
        args: args
            .into_iter()
            .map(|a| BuildArg { name: a.name, value: a.value.unwrap_or_default(), secret: a.is_secret })
            .collect(),
        context,
        caller: caller(ctx, &target.registry, request.credentials)?,
        options,
    };
    let registry = &target.registry;
    Ok(NewRun {
        registry: RunRegistry {
            id: registry.id,
            name: registry.name.clone(),
            login_server: registry.login_server.clone(),
        },
        kind: RunKind::QuickBuild,
        image_names: images,
        build,
        platform: single.map_or_else(|| platform(request.platform), Ok)?,
        cpu: request.agent_configuration.and_then(|a| a.cpu).unwrap_or(2).clamp(1, 64),
        timeout_secs,
        archived: request.is_archive_enabled.unwrap_or(false),
        asker: asker(&ctx.principal),
    })
}

/// Who orders a run, as the queue tells people apart.
fn asker(principal: &Principal) -> String {
    match principal {
        Principal::Directory { object_id, .. } => object_id.to_string(),
        _ => String::new(),
    }
}

/// For whom a run reads and writes its registry. In the ABAC mode nobody's rights are taken
/// for granted: a run has those of its caller when the caller says so
/// (`az acr build --source-acr-auth-id [caller]`), else none. In the legacy mode whoever may
/// order a run may read and write by it.
fn caller(ctx: &Ctx, registry: &Registry, credentials: Option<CredentialsBody>) -> Result<Option<Uuid>, Error> {
    let identity = credentials.and_then(|c| c.source_registry).and_then(|s| s.identity).filter(|i| !i.is_empty());
    match (registry.role_mode, identity.as_deref(), &ctx.principal) {
        (RoleMode::Legacy, ..) | (RoleMode::Abac, None, _) => Ok(None),
        (RoleMode::Abac, Some("[caller]"), Principal::Directory { object_id, .. }) => Ok(Some(*object_id)),
        (RoleMode::Abac, Some(_), _) => Err(invalid(
            "a run reads and writes its registry as its caller or as nobody: the identity must be [caller]",
        )),
    }
}

/// The relative path of an uploaded context, or the address that the server is to fetch from.
fn source(location: Option<String>) -> Result<(String, Option<NamedSource>), Error> {
    let location = location.filter(|l| !l.is_empty()).ok_or_else(|| invalid("`sourceLocation` is missing"))?;
    if portolan_tasks::is_uploaded(&location) {
        return Ok((location, None));
    }
    // Nothing of it is repeated: there may be a password in it.
    crate::build::check_source(&location).map_err(|why| invalid(format!("sourceLocation: {why}")))?;
    Ok((String::new(), Some(NamedSource { name: String::new(), source: location })))
}

fn platform(body: Option<PlatformBody>) -> Result<Platform, Error> {
    let host = Platform::host();
    let Some(body) = body else { return Ok(host) };
    let os = body.os.filter(|os| !os.is_empty()).unwrap_or(host.os);
    if !os.eq_ignore_ascii_case("linux") {
        return Err(invalid(format!("images for {os} cannot be built here: use linux")));
    }
    let mut text = format!("{os}/{}", body.architecture.filter(|a| !a.is_empty()).unwrap_or(host.architecture));
    if let Some(variant) = body.variant.filter(|v| !v.is_empty()) {
        text = format!("{text}/{variant}");
    }
    text.parse().map_err(|e: portolan_types::InvalidName| invalid(e.to_string()))
}

/// A run as ARM shows it.
fn to_wire(target: &ArmTarget, run: &Run) -> Value {
    let registry = &target.registry;
    let time = |t: Option<Timestamp>| t.map(Timestamp::rfc3339_arm);
    let mut platform = json!({"os": run.platform.os, "architecture": run.platform.architecture});
    if let Some(variant) = &run.platform.variant {
        platform["variant"] = json!(variant);
    }
    let images: Vec<Value> = run
        .images
        .iter()
        .map(|i| json!({"registry": registry.login_server, "repository": i.repo, "tag": i.tag, "digest": i.digest}))
        .collect();
    json!({
        "id": registry.resource_id.child("runs", run.id.as_str()),
        "name": run.id,
        "type": TYPE,
        "properties": {
            "runId": run.id,
            "status": run.status.as_str(),
            "runType": run.kind.as_str(),
            "createTime": time(Some(run.created)),
            "startTime": time(run.started),
            "finishTime": time(run.finished),
            "lastUpdatedTime": time(Some(run.updated)),
            "outputImages": images,
            "task": run.task,
            "platform": platform,
            "agentConfiguration": {"cpu": run.cpu},
            "runErrorMessage": run.error,
            "isArchiveEnabled": run.archived,
            "imageUpdateTrigger": null,
            "sourceTrigger": null,
            "timerTrigger": null,
            "provisioningState": "Succeeded",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(value: Value) -> Option<PlatformBody> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn platforms() {
        let of = |value: Value| platform(body(value)).map(|p| p.to_string());
        assert_eq!(of(json!({"os": "linux", "architecture": "arm", "variant": "v7"})).unwrap(), "linux/arm/v7");
        assert_eq!(of(json!({"os": "Linux", "architecture": "x86"})).unwrap(), "linux/386");
        assert_eq!(of(json!({"os": "linux"})).unwrap(), Platform::host().to_string());
        assert!(of(json!({"os": "windows", "architecture": "amd64"})).is_err());
        for wrong in ["a,b", "a b", "a/b/c"] {
            assert!(of(json!({"os": "linux", "architecture": wrong})).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sources() {
        assert_eq!(source(Some("source/x.tar.gz".into())).unwrap().0, "source/x.tar.gz");
        for address in ["https://github.com/a/b.git#main:src", "https://h/x.tar.gz", "oci://h/y:z", "github.com/a/b"] {
            let (path, from) = source(Some(address.into())).unwrap();
            assert_eq!((path.as_str(), from.unwrap().source.as_str()), ("", address));
        }
        for bad in ["", "a/b.git", "ftp://h/x", "https://h/r.git#..", "/etc"] {
            assert!(source(Some(bad.into())).is_err(), "{bad}");
        }
    }
}
