//! `portolan acr task …`: the runs of builds, and their logs.

use clap::{Args, Subcommand, ValueEnum};
use portolan_api::acr::AcrClient;
use portolan_api::arm::RegistryRef;
use serde_json::Value;

use super::Context;
use crate::args::{Registry, RegistryLogin};
use crate::error::{Failure, Result};
use crate::image::{Image, Which};
use crate::log::{self, Style, Voice};
use crate::output::table::{duration, member, time};
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan acr task …`
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    #[command(subcommand)]
    command: TaskCommand,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    #[value(name = "Queued")]
    Queued,
    #[value(name = "Started")]
    Started,
    #[value(name = "Running")]
    Running,
    #[value(name = "Succeeded")]
    Succeeded,
    #[value(name = "Failed")]
    Failed,
    #[value(name = "Canceled")]
    Canceled,
    #[value(name = "Error")]
    Error,
    #[value(name = "Timeout")]
    Timeout,
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// List runs, newest first.
    ListRuns {
        #[command(flatten)]
        registry: Registry,
        /// Only the runs of a task.
        #[arg(short = 'n', long, value_name = "TASK")]
        name: Option<String>,
        /// Only runs with this status.
        #[arg(long, value_enum, ignore_case = true)]
        run_status: Option<Status>,
        /// Only runs that made this image, as name:tag or name@digest.
        #[arg(short = 't', long, value_name = "IMAGE")]
        image: Option<String>,
        /// Limit the number of runs.
        #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        top: u32,
    },
    /// Show a run's log, live if it is still going; the newest run's when none is named.
    Logs {
        #[command(flatten)]
        registry: Registry,
        /// The run.
        #[arg(long, value_name = "RUN")]
        run_id: Option<String>,
        /// The newest run of a task.
        #[arg(short = 'n', long, value_name = "TASK")]
        name: Option<String>,
        /// The newest run that made this image.
        #[arg(short = 't', long, value_name = "IMAGE")]
        image: Option<String>,
        /// Print the log as it is, without colour.
        #[arg(long)]
        no_format: bool,
        /// How the log is shown.
        #[arg(long, value_enum, ignore_case = true, default_value = "plain")]
        progress: Style,
    },
    /// Show a run.
    ShowRun {
        #[command(flatten)]
        registry: Registry,
        /// The run.
        #[arg(long, value_name = "RUN")]
        run_id: String,
    },
    /// Cancel a run.
    CancelRun {
        #[command(flatten)]
        registry: Registry,
        /// The run.
        #[arg(long, value_name = "RUN")]
        run_id: String,
    },
}

pub(super) async fn run(ctx: &Context, args: TaskArgs) -> Result<Output> {
    let session = Session::open(&ctx.global)?;
    let output = on(ctx, &session, args.command).await;
    session.keep();
    output
}

async fn on(ctx: &Context, session: &Session, command: TaskCommand) -> Result<Output> {
    let arm = &session.arm;
    match command {
        TaskCommand::ListRuns { registry, name, run_status, image, top } => {
            let status = run_status.and_then(|s| s.to_possible_value()).map(|v| v.get_name().to_owned());
            let filter = filter(session, &registry, name.as_deref(), status.as_deref(), image.as_deref()).await?;
            let runs = session.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
                Ok(arm.runs(r, filter.as_deref(), top as usize).await?)
            });
            Ok(Output::with_columns(shape::each(runs.await?, shape::run), columns))
        }
        TaskCommand::ShowRun { registry, run_id } => {
            let run = session.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
                Ok(arm.run(r, &run_id).await?)
            });
            Ok(Output::with_columns(shape::run(run.await?), columns))
        }
        TaskCommand::CancelRun { registry, run_id } => {
            let cancel = session.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
                Ok(arm.cancel_run(r, &run_id).await?)
            });
            cancel.await?;
            Ok(Output::none())
        }
        TaskCommand::Logs { registry, run_id, name, image, no_format, progress } => {
            let filter = filter(session, &registry, name.as_deref(), None, image.as_deref()).await?;
            let url = session.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
                let run = match &run_id {
                    Some(run) => run.clone(),
                    None => newest(session, r, filter.as_deref()).await?,
                };
                if run_id.is_none() {
                    ctx.talk.say(format_args!("Showing logs for run ID: {run}"));
                }
                Ok(arm.log_url(r, &run).await?)
            });
            let url = url.await?;
            session.keep();
            // As az: the log's end decides nothing here, only the build's own command.
            log::follow(session.http(), &url, progress, no_format, &ctx.talk, &Voice::default()).await?;
            Ok(Output::none())
        }
    }
}

async fn newest(session: &Session, registry: &RegistryRef, filter: Option<&str>) -> Result<String> {
    let runs = session.arm.runs(registry, filter, 1).await?;
    let run = runs.first().and_then(|r| r.pointer("/properties/runId")).and_then(Value::as_str);
    run.map(str::to_owned).ok_or_else(|| {
        Failure::new("Could not find the last created run.").hint("build something: `portolan acr build`")
    })
}

/// The conditions as one OData filter.
async fn filter(
    session: &Session,
    registry: &Registry,
    task: Option<&str>,
    status: Option<&str>,
    image: Option<&str>,
) -> Result<Option<String>> {
    let quoted = |text: &str| text.replace('\'', "''");
    let mut terms = Vec::new();
    terms.extend(task.map(|t| format!("TaskName eq '{}'", quoted(t))));
    terms.extend(status.map(|s| format!("Status eq '{s}'")));
    if let Some(image) = image {
        let image = Image::parse(image)?;
        let digest = match &image.which {
            Which::Digest(digest) => digest.to_string(),
            Which::Tag(tag) => {
                let work = async |acr: &AcrClient| {
                    let scope = format!("repository:{}:metadata_read", image.repo);
                    let shown: Value = acr.get(&format!("/acr/v1/{}/_tags/{tag}", image.repo), &scope).await?;
                    Ok(shown.pointer("/tag/digest").and_then(Value::as_str).unwrap_or_default().to_owned())
                };
                let group = registry.resource_group.as_deref();
                session.with_data_plane(&registry.name, group, &RegistryLogin::default(), work).await?
            }
        };
        terms.push(format!("contains(OutputImageManifests, '{}@{digest}')", image.repo));
    }
    Ok(if terms.is_empty() { None } else { Some(terms.join(" and ")) })
}

/// A run's columns, as az has them.
pub(super) fn columns(item: &Value) -> Vec<(&'static str, String)> {
    vec![
        ("RUN ID", member(item, &["runId"])),
        ("TASK", member(item, &["task"])),
        ("PLATFORM", member(item, &["platform", "os"])),
        ("STATUS", member(item, &["status"])),
        ("TRIGGER", trigger(item)),
        ("STARTED", time(item, &["startTime"])),
        ("DURATION", duration(item, &["startTime"], &["finishTime"])),
    ]
}

fn trigger(item: &Value) -> String {
    let set = |key: &str| item.get(key).is_some_and(|v| !v.is_null());
    match item.pointer("/sourceTrigger/eventType").and_then(Value::as_str) {
        Some(event) => event.to_owned(),
        None if set("timerTrigger") => "Timer".into(),
        None if set("imageUpdateTrigger") => "Image Update".into(),
        None => "Manual".into(),
    }
}
