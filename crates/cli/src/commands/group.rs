//! `portolan group …`: resource groups.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Context;
use crate::args;
use crate::error::Result;
use crate::output::table::member;
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan group …`
#[derive(Debug, Args)]
pub struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

/// A group by name.
#[derive(Debug, Args)]
struct Named {
    /// Name of the resource group.
    #[arg(
        short = 'n',
        short_alias = 'g',
        long,
        alias = "resource-group",
        value_name = "GROUP",
        env = "AZURE_DEFAULTS_GROUP",
        hide_env = true
    )]
    name: String,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Create a resource group.
    Create {
        #[command(flatten)]
        group: Named,
        /// Location, such as eastus.
        #[arg(short = 'l', long, value_parser = args::location, env = "AZURE_DEFAULTS_LOCATION", hide_env = true)]
        location: String,
        /// Space-separated tags: key[=value] [key[=value] ...].
        #[arg(long, num_args = 0.., value_name = "KEY=VALUE")]
        tags: Option<Vec<String>>,
    },
    /// Show a resource group.
    Show {
        #[command(flatten)]
        group: Named,
    },
    /// List resource groups.
    List,
    /// Delete a resource group and everything in it.
    Delete {
        #[command(flatten)]
        group: Named,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
        /// Do not wait for the end.
        #[arg(long)]
        no_wait: bool,
    },
    /// Tell whether a resource group exists.
    Exists {
        #[command(flatten)]
        group: Named,
    },
    /// Wait until a deletion (or creation) has come to its end.
    Wait {
        #[command(flatten)]
        group: Named,
        /// Wait until it is gone.
        #[arg(long, required_unless_present = "created")]
        deleted: bool,
        /// Wait until it is there.
        #[arg(long, conflicts_with = "deleted", alias = "exists")]
        created: bool,
        /// The longest wait, in seconds.
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
}

pub(super) async fn run(ctx: &Context, args: GroupArgs) -> Result<Output> {
    // Asked before anything is sent, and before a missing sign-in is complained about.
    if let GroupCommand::Delete { yes, .. } = &args.command {
        ctx.talk.confirm("Are you sure you want to perform this operation?", *yes)?;
    }
    let session = Session::open(&ctx.global)?;
    let output = with(&session, args.command).await;
    session.keep();
    output
}

async fn with(session: &Session, command: GroupCommand) -> Result<Output> {
    let arm = &session.arm;
    Ok(match command {
        GroupCommand::Create { group, location, tags } => {
            let tags = tags.as_deref().map(args::tags);
            Output::value(shape::group(arm.put_group(&group.name, &location, tags.as_ref()).await?))
        }
        GroupCommand::Show { group } => Output::value(shape::group(arm.group(&group.name).await?)),
        GroupCommand::List => Output::with_columns(shape::each(arm.groups().await?, shape::group), |item| {
            vec![
                ("Name", member(item, &["name"])),
                ("Location", member(item, &["location"])),
                ("Status", member(item, &["properties", "provisioningState"])),
            ]
        }),
        GroupCommand::Delete { group, no_wait, .. } => {
            arm.delete_group(&group.name, !no_wait).await?;
            Output::none()
        }
        GroupCommand::Exists { group } => Output::value(exists(session, &group.name).await?),
        GroupCommand::Wait { group, deleted, timeout, .. } => {
            let begun = std::time::Instant::now();
            while exists(session, &group.name).await? == deleted {
                if begun.elapsed().as_secs() >= timeout {
                    return Err(crate::error::Failure::new("Wait operation timed-out."));
                }
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            Output::none()
        }
    })
}

async fn exists(session: &Session, name: &str) -> Result<bool> {
    match session.arm.group(name).await {
        Ok::<Value, _>(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
