//! `portolan acr build`: pack, send, schedule, follow the log.

mod agents;
mod args;
mod options;
mod result;
mod send;

use std::time::Duration;

use portolan_api::arm::{Argument, DockerBuildRequest, RegistryRef, RunPlatform};
use portolan_types::{Platform, limits};
use serde_json::Value;

use super::Context;
use super::run::columns;
use crate::error::{EXIT_INTERRUPTED, Failure, Result};
use crate::log::{self, Style, Voice};
use crate::output::{Output, shape};
use crate::session::Session;

pub(crate) use args::BuildArgs;

/// How long a cancelled run's last lines are waited for.
const CANCEL_SECS_MAX: u64 = 20;

pub(super) async fn run(ctx: &Context, args: BuildArgs) -> Result<Output> {
    refuse_unsupported(&args)?;
    let platform = platform(&args.platform)?;
    let chosen = options::choose(&args)?;
    if let (Some((name, _)), true) = (chosen.agents.first(), args.no_wait) {
        return Err(Failure::usage(format!("--ssh {name}: the agent here answers only while the build is followed"))
            .hint(format!("leave --no-wait out, or give a key: --ssh {name}=FILE")));
    }
    let session = Session::open(&ctx.global)?;
    let interrupted = interrupted()?;
    tokio::pin!(interrupted);
    let kept = tokio::select! {
        kept = session.registry(&args.registry.name, args.registry.resource_group.as_deref()) => kept?,
        () = &mut interrupted => return Err(stopped()),
    };
    let mut request = DockerBuildRequest {
        image_names: image_names(&args.image_names, &kept.login_server)?,
        is_push_enabled: !args.no_push && !args.check,
        no_cache: args.no_cache,
        source_location: None,
        platform,
        docker_file_path: String::new(),
        target: args.target.clone(),
        arguments: arguments(&args),
        timeout: args.timeout,
        log_template: args.log_template.clone().filter(|t| !t.is_empty()),
        credentials: args.source_acr_auth_id.as_deref().map(portolan_api::arm::RunCredentials::of),
        build_options: chosen.options,
    };
    if request.image_names.is_empty() && request.is_push_enabled {
        ctx.talk.warn("'--image or -t' is not provided. Skipping image push after build.");
        request.is_push_enabled = false;
    }
    let registry = tokio::select! {
        sent = async {
            let registry = send::source(ctx, &session, &args, &mut request).await?;
            let contexts = send::contexts(ctx, &session, &registry, &chosen.contexts, args.quiet).await?;
            request.build_options.contexts = contexts;
            Ok::<_, Failure>(registry)
        } => sent?,
        // Nothing has begun on the server; a half-sent context goes by itself.
        () = &mut interrupted => return Err(stopped()),
    };
    let run = session.arm.schedule_build(&registry, &request).await?;
    session.keep();
    let id =
        run.pointer("/properties/runId").or(run.get("name")).and_then(Value::as_str).unwrap_or_default().to_owned();
    if id.is_empty() {
        return Err(Failure::new("the server queued the build without a run ID"));
    }
    if !args.quiet {
        ctx.talk.say(format_args!("Queued a build with ID: {id}"));
    }
    if args.no_wait {
        return Ok(Output::with_columns(shape::run(run), columns));
    }
    let voice = Voice::default();
    let work = async {
        tokio::select! {
            output = attend(ctx, &session, &registry, &id, &args, &voice) => output,
            never = agents::answer(&session, &registry, &id, &chosen.agents, &ctx.talk, &voice) => match never {},
        }
    };
    tokio::pin!(work);
    let output = tokio::select! {
        output = &mut work => output,
        () = &mut interrupted => {
            voice.say(&ctx.talk, &format!("Cancelling run {id} … (Ctrl-C again leaves it to itself)"));
            let cancelled = session.arm.cancel_run(&registry, &id).await;
            if let Err(error) = &cancelled {
                ctx.talk.warn(format_args!("the run could not be cancelled: {error}"));
            } else {
                // The last lines, unless they are slow to come or Ctrl-C comes again.
                let _ = tokio::time::timeout(Duration::from_secs(CANCEL_SECS_MAX), work).await;
                ctx.talk.say(format_args!("Run {id} was cancelled."));
            }
            Err(stopped())
        }
    };
    session.keep();
    output
}

/// Follow a run to its end, and say what came of it.
async fn attend(
    ctx: &Context,
    session: &Session,
    registry: &RegistryRef,
    id: &str,
    args: &BuildArgs,
    voice: &Voice,
) -> Result<Output> {
    let name = &args.registry.name;
    if args.no_logs {
        return wait_for_run(session, registry, id, name).await;
    }
    let style = if args.quiet { Style::Quiet } else { args.progress };
    let url = session.arm.log_url(registry, id).await?;
    let ended = log::follow(session.http(), &url, style, args.no_format, &ctx.talk, voice).await?;
    log::judge(&ended.outcome).map_err(|failure| {
        failure.or_hint(|| format!("see its log again: `portolan acr task logs -r {name} --run-id {id}`"))
    })?;
    if result::is_wanted(args) {
        let run = session.arm.run(registry, id).await?;
        let digest = result::write(args, &run, &ended.seen)?;
        if let Some(digest) = digest.filter(|_| args.quiet) {
            println!("{digest}");
        }
    }
    Ok(Output::none())
}

fn stopped() -> Failure {
    Failure { exit: EXIT_INTERRUPTED, ..Failure::new("Interrupted.") }
}

/// Comes at the first Ctrl-C or SIGTERM; the second ends the process on the spot.
fn interrupted() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (first, came) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut first = Some(first);
        loop {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            match first.take() {
                Some(first) => drop(first.send(())),
                None => std::process::exit(EXIT_INTERRUPTED),
            }
        }
    });
    Ok(async move {
        if came.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// `--no-logs`: wait for the end, print the run.
async fn wait_for_run(session: &Session, registry: &RegistryRef, id: &str, name: &str) -> Result<Output> {
    let mut pause = Duration::from_millis(200);
    loop {
        let run = session.arm.run(registry, id).await?;
        let parsed: portolan_api::arm::Run =
            serde_json::from_value(run.clone()).map_err(|e| Failure::new(format!("the run does not parse: {e}")))?;
        if parsed.is_over() {
            let status = parsed.properties.status;
            if status == "Succeeded" {
                return Ok(Output::with_columns(shape::run(run), columns));
            }
            return Err(Failure::new(format!("The run with ID '{id}' finished with unsuccessful status '{status}'."))
                .hint(format!("see its log: `portolan acr task logs -r {name} --run-id {id}`")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

fn refuse_unsupported(args: &BuildArgs) -> Result<()> {
    let refuse = |flag: &str, why: &str| Err(Failure::usage(format!("{flag} is not supported: {why}")));
    if args.agent_pool.is_some() {
        return refuse("--agent-pool", "builds run on the server and its workers, which have no pools");
    }
    Ok(())
}

/// The run's own platform: the first of several, which are options.
fn platform(list: &[String]) -> Result<RunPlatform> {
    let Some(text) = list.first() else {
        return Ok(RunPlatform { os: "linux".into(), architecture: None, variant: None });
    };
    if list.len() == 1 && text.trim().eq_ignore_ascii_case("linux") {
        return platform(&[]);
    }
    let parsed: Platform = text.parse().map_err(|e: portolan_types::InvalidName| Failure::usage(e.to_string()))?;
    Ok(RunPlatform { os: parsed.os, architecture: Some(parsed.architecture), variant: parsed.variant })
}

/// The names without the registry's own host, which goes without saying.
fn image_names(names: &[String], login_server: &str) -> Result<Vec<String>> {
    if names.len() > limits::BUILD_TAGS_MAX {
        return Err(Failure::usage(format!("more than {} image names", limits::BUILD_TAGS_MAX)));
    }
    names
        .iter()
        .map(|name| {
            let name = name.strip_prefix(login_server).and_then(|n| n.strip_prefix('/')).unwrap_or(name);
            // `{{.Run.ID}}` and the like are the server's to fill in.
            if !name.contains("{{") {
                let image = crate::image::Image::parse(name).map_err(|e| Failure::usage(e.message))?;
                if matches!(image.which, crate::image::Which::Digest(_)) {
                    return Err(Failure::usage(format!("'{name}': an image is built under a tag, not a digest")));
                }
            }
            Ok(name.to_owned())
        })
        .collect()
}

fn arguments(args: &BuildArgs) -> Vec<Argument> {
    let argument = |text: &String, secret| {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text.clone(), std::env::var(text).unwrap_or_default()),
        };
        Argument::new(name, value, secret)
    };
    let plain = args.build_arg.iter().map(|a| argument(a, false));
    plain.chain(args.secret_build_arg.iter().map(|a| argument(a, true))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let platform = |list: &[&str]| platform(&list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(platform(&[]).unwrap().architecture, None);
        assert_eq!(platform(&["linux"]).unwrap().architecture, None);
        let arm = platform(&["linux/arm/v7"]).unwrap();
        assert_eq!((arm.architecture.as_deref(), arm.variant.as_deref()), (Some("arm"), Some("v7")));
        assert_eq!(platform(&["linux/arm64", "linux/amd64"]).unwrap().architecture.as_deref(), Some("arm64"));
        assert!(platform(&["linux/a b"]).is_err());
    }

    #[test]
    fn names_lose_their_registry() {
        let names =
            |list: &[&str]| image_names(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), "localhost:8443");
        assert_eq!(names(&["localhost:8443/a:v1", "b:{{.Run.ID}}", "c"]).unwrap(), ["a:v1", "b:{{.Run.ID}}", "c"]);
        assert!(names(&["Upper:v1"]).is_err() && names(&["a@sha256:00"]).is_err());
    }
}
