//! `portolan acr build`: pack, send, schedule, follow the log.

use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use portolan_api::arm::{Argument, BuildOptions, DockerBuildRequest, RegistryRef, RunPlatform};
use portolan_types::{Platform, limits};
use serde_json::Value;

use super::Context;
use super::run::columns;
use crate::args::Registry;
use crate::context::progress::{Progress, human_bytes};
use crate::context::{Pack, Source, upload};
use crate::error::{EXIT_INTERRUPTED, Failure, Result};
use crate::follow;
use crate::output::{Output, shape};
use crate::session::Session;

/// How long a cancelled run's last lines are waited for.
const CANCEL_SECS_MAX: u64 = 20;

/// `portolan acr build`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portolan acr build -r myreg -t app:v1 .
  portolan acr build -r myreg -t app:v1 -t app:latest -f deploy/Dockerfile --build-arg VERSION=1 .
  portolan acr build -r myreg -t app:dev https://github.com/owner/app.git#develop
  tar c Dockerfile src | portolan acr build -r myreg -t app:v1 -")]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    registry: Registry,
    /// Name and tag of the image, as -t repo/image:tag; many are given by many -t.
    #[arg(short = 't', long = "image", value_name = "IMAGE")]
    image_names: Vec<String>,
    /// The Dockerfile, from the context's folder.
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<String>,
    /// Build argument, as name=value; name alone takes the value from the environment.
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Build argument whose value is kept out of logs and listings.
    #[arg(long, value_name = "NAME[=VALUE]")]
    secret_build_arg: Vec<String>,
    /// The platform the image is for, as os[/arch[/variant]], such as linux/arm64.
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The stage to stop at.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// The longest the build may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=limits::RUN_SECS_MAX as i64))]
    timeout: Option<u32>,
    /// Build only; put nothing into the registry.
    #[arg(long)]
    no_push: bool,
    /// Do every step again. (Portolan's own; az has no such flag here.)
    #[arg(long)]
    no_cache: bool,
    /// Do not show the log; wait and show the run.
    #[arg(long)]
    no_logs: bool,
    /// Do not wait for the build's end.
    #[arg(long)]
    no_wait: bool,
    /// Show the log as it is, without colour.
    #[arg(long)]
    no_format: bool,
    /// Whether the build is logged in to its own registry. Builds here always are.
    #[arg(long, value_enum, ignore_case = true, hide_short_help = true)]
    auth_mode: Option<AuthMode>,
    /// Not supported: builds have no pools of agents here.
    #[arg(long, value_name = "POOL", hide_short_help = true)]
    agent_pool: Option<String>,
    /// Not supported: logs are kept by the server.
    #[arg(long, value_name = "IMAGE", hide_short_help = true)]
    log_template: Option<String>,
    /// Not supported: a build reads its own registry as the one who started it.
    #[arg(long, value_name = "IDENTITY", hide_short_help = true)]
    source_acr_auth_id: Option<String>,
    /// The source: a folder, the address of a git repository or archive, or - for a tar
    /// archive (or a lone Dockerfile) on stdin.
    #[arg(value_name = "SOURCE")]
    source: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AuthMode {
    #[value(name = "Default")]
    Default,
    #[value(name = "None")]
    None,
}

pub(super) async fn run(ctx: &Context, args: BuildArgs) -> Result<Output> {
    refuse_unsupported(&args)?;
    let platform = platform(args.platform.as_deref())?;
    let session = Session::open(&ctx.global)?;
    let interrupted = interrupted()?;
    tokio::pin!(interrupted);
    let kept = tokio::select! {
        kept = session.registry(&args.registry.name, args.registry.resource_group.as_deref()) => kept?,
        () = &mut interrupted => return Err(stopped()),
    };
    let mut request = DockerBuildRequest {
        image_names: image_names(&args.image_names, &kept.login_server)?,
        is_push_enabled: !args.no_push,
        no_cache: args.no_cache,
        source_location: None,
        platform,
        docker_file_path: String::new(),
        target: args.target.clone(),
        arguments: arguments(&args),
        timeout: args.timeout,
        build_options: BuildOptions::default(),
    };
    if request.image_names.is_empty() && request.is_push_enabled {
        ctx.talk.warn("'--image or -t' is not provided. Skipping image push after build.");
        request.is_push_enabled = false;
    }
    let registry = tokio::select! {
        sent = send_source(ctx, &session, &args, &mut request) => sent?,
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
    ctx.talk.say(format_args!("Queued a build with ID: {id}"));
    if args.no_wait {
        return Ok(Output::with_columns(shape::run(run), columns));
    }
    let name = &args.registry.name;
    let work = async {
        if args.no_logs {
            return wait_for_run(&session, &registry, &id, name).await;
        }
        let url = session.arm.log_url(&registry, &id).await?;
        let outcome = follow::to_stdout(session.http(), &url, ctx.talk.color_out && !args.no_format).await?;
        follow::judge(&outcome).map_err(|failure| {
            failure.or_hint(|| format!("see its log again: `portolan acr task logs -r {name} --run-id {id}`"))
        })?;
        Ok(Output::none())
    };
    tokio::pin!(work);
    let output = tokio::select! {
        output = &mut work => output,
        () = &mut interrupted => {
            ctx.talk.say(format_args!("Cancelling run {id} …"));
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

/// Writes the packed context; answers how many entries it has.
type PackWork = Box<dyn FnOnce(&mut dyn Write, &Progress) -> Result<u64> + Send>;

/// Pack and send the source, or note its address. Answers the registry that took it.
async fn send_source(
    ctx: &Context,
    session: &Session,
    args: &BuildArgs,
    request: &mut DockerBuildRequest,
) -> Result<RegistryRef> {
    let group = args.registry.resource_group.as_deref();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let source = Source::of(&args.source);
    let work: PackWork = match source {
        Source::Remote(address) => {
            request.source_location = Some(address);
            request.docker_file_path = args.file.clone().unwrap_or_else(|| "Dockerfile".into());
            // Nothing is sent: only make sure that the registry is where we think it is.
            let at = session.with_registry(&args.registry.name, group, async |r| {
                session.arm.registry(r).await?;
                Ok(r.clone())
            });
            return at.await;
        }
        Source::Folder(folder) => {
            // Before anything is asked of the server: mistakes here are the most common.
            let pack = Pack::new(Path::new(&folder), args.file.as_deref(), &unique)?;
            request.docker_file_path = pack.dockerfile_path().to_owned();
            Box::new(move |out, progress| {
                if progress.is_shown() {
                    // A second look at every file, so that the bar knows its end.
                    progress.expect(pack.measure()?.bytes);
                }
                Ok(pack.write(out, progress)?.entries)
            })
        }
        Source::Stdin => {
            let mut head = vec![0; 512];
            let length = read_full(&mut std::io::stdin(), &mut head)?;
            head.truncate(length);
            let rest = Cursor::new(head.clone()).chain(std::io::stdin());
            match StdinKind::of(&head) {
                StdinKind::Gzip => {
                    request.docker_file_path = args.file.clone().unwrap_or_else(|| "Dockerfile".into());
                    Box::new(move |out, progress| copy(rest, out, progress))
                }
                StdinKind::Tar => {
                    request.docker_file_path = args.file.clone().unwrap_or_else(|| "Dockerfile".into());
                    Box::new(move |out, progress| {
                        let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::new(1));
                        copy(rest, &mut gzip, progress)?;
                        gzip.finish().map(|_| 0).map_err(Failure::from)
                    })
                }
                StdinKind::Dockerfile => {
                    let mut text = Vec::new();
                    rest.take(limits::DOCKERFILE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
                    if text.len() > limits::DOCKERFILE_BYTES_MAX {
                        return Err(Failure::new("what came on stdin is neither a tar archive nor a Dockerfile"));
                    }
                    let pack = Pack::dockerfile_only(text, &unique);
                    request.docker_file_path = pack.dockerfile_path().to_owned();
                    Box::new(move |out, progress| Ok(pack.write(out, progress)?.entries))
                }
            }
        }
    };
    let place = session
        .with_registry(&args.registry.name, group, async |r| Ok((r.clone(), session.arm.source_upload(r).await?)));
    let (registry, place) = place.await?;
    let progress = Arc::new(Progress::files(&ctx.talk, "Sending the build context"));
    let sent = upload(session.http(), &place.upload_url, &progress, work).await;
    let (files, bytes) = progress.finish();
    let (_, sent) = sent?;
    let files = if files > 0 { format!("{files} files, ") } else { String::new() };
    ctx.talk.say(format_args!("Sent the build context: {files}{}, packed {}", human_bytes(bytes), human_bytes(sent)));
    request.source_location = Some(place.relative_path);
    Ok(registry)
}

/// What came on stdin.
enum StdinKind {
    Gzip,
    Tar,
    Dockerfile,
}

impl StdinKind {
    fn of(head: &[u8]) -> StdinKind {
        if head.starts_with(&[0x1f, 0x8b]) {
            StdinKind::Gzip
        } else if head.get(257..262) == Some(b"ustar") {
            StdinKind::Tar
        } else {
            StdinKind::Dockerfile
        }
    }
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Ok(length)
}

fn copy(mut from: impl Read, mut to: impl Write, progress: &Progress) -> Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(0);
        }
        to.write_all(&buffer[..n])?;
        progress.add(n as u64);
    }
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
    if args.log_template.is_some() {
        return refuse("--log-template", "logs are kept by the server; see `portolan acr task logs`");
    }
    if args.source_acr_auth_id.is_some() {
        return refuse("--source-acr-auth-id", "a build reads its own registry as the one who started it");
    }
    Ok(())
}

fn platform(text: Option<&str>) -> Result<RunPlatform> {
    let Some(text) = text else {
        return Ok(RunPlatform { os: "linux".into(), architecture: None, variant: None });
    };
    if text.contains(',') {
        return Err(Failure::usage(format!("--platform {text}: one platform for each build"))
            .hint("build for each platform by itself, under a tag of its own"));
    }
    if text.trim().eq_ignore_ascii_case("linux") {
        return platform(None);
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
        assert_eq!(platform(None).unwrap().architecture, None);
        assert_eq!(platform(Some("linux")).unwrap().architecture, None);
        let arm = platform(Some("linux/arm/v7")).unwrap();
        assert_eq!((arm.architecture.as_deref(), arm.variant.as_deref()), (Some("arm"), Some("v7")));
        assert_eq!(platform(Some("linux/amd64,linux/arm64")).unwrap_err().exit, 2);
        assert!(platform(Some("linux/a b")).is_err());
    }

    #[test]
    fn names_lose_their_registry() {
        let names =
            |list: &[&str]| image_names(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), "localhost:8443");
        assert_eq!(names(&["localhost:8443/a:v1", "b:{{.Run.ID}}", "c"]).unwrap(), ["a:v1", "b:{{.Run.ID}}", "c"]);
        assert!(names(&["Upper:v1"]).is_err() && names(&["a@sha256:00"]).is_err());
    }

    #[test]
    fn stdin_is_told_by_its_head() {
        assert!(matches!(StdinKind::of(&[0x1f, 0x8b, 8]), StdinKind::Gzip));
        assert!(matches!(StdinKind::of(b"FROM scratch"), StdinKind::Dockerfile));
        let header = tar::Header::new_gnu();
        assert!(matches!(StdinKind::of(header.as_bytes()), StdinKind::Tar));
    }
}
