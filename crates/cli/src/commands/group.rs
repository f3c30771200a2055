//! `portolan group …`: resource groups.

use clap::{Args, Subcommand};
use portolan_api::graph::quoted;
use serde_json::{Value, json};

use super::Context;
use super::lock::{self, LockCommand};
use crate::args::{self, Change};
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
        /// The ID of the resource that manages the group.
        #[arg(long)]
        managed_by: Option<String>,
    },
    /// Change a resource group's tags.
    Update {
        #[command(flatten)]
        group: Named,
        /// Space-separated tags: key[=value] [key[=value] ...]. Use '' to clear.
        #[arg(long, num_args = 0.., value_name = "KEY=VALUE")]
        tags: Option<Vec<String>>,
        #[command(flatten)]
        change: Change,
    },
    /// Manage locks on a resource group.
    #[command(subcommand)]
    Lock(LockCommand),
    /// Show a resource group.
    Show {
        #[command(flatten)]
        group: Named,
    },
    /// List resource groups.
    List {
        /// Only those with a tag: key[=value].
        #[arg(long, value_name = "KEY=VALUE")]
        tag: Option<String>,
    },
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
        /// Taken for az's sake: there are no virtual machines here.
        #[arg(short = 'f', long, num_args = 1.., hide = true)]
        force_deletion_types: Vec<String>,
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
    if let GroupCommand::Lock(command) = args.command {
        return lock::at_group(ctx, command).await;
    }
    let session = Session::open(&ctx.global)?;
    let output = with(&session, args.command).await;
    session.keep();
    output
}

async fn with(session: &Session, command: GroupCommand) -> Result<Output> {
    let arm = &session.arm;
    Ok(match command {
        GroupCommand::Create { group, location, tags, managed_by } => {
            let tags = tags.as_deref().map(args::tags);
            let made = match managed_by {
                None => arm.put_group(&group.name, &location, tags.as_ref()).await?,
                Some(by) => {
                    let mut body = json!({"location": location, "managedBy": by});
                    if let Some(tags) = tags {
                        body["tags"] = tags;
                    }
                    arm.put_by_id(&id(session, &group.name), &body).await?
                }
            };
            Output::value(shape::group(made))
        }
        GroupCommand::Update { group, tags, change } => {
            // As az does it: the whole group as it is, changed, put again.
            let mut body = arm.group(&group.name).await?;
            if let Some(tags) = tags {
                body["tags"] = args::tags(&tags);
            }
            change.apply(&mut body)?;
            if let Some(members) = body.as_object_mut() {
                members.retain(|key, _| matches!(key.as_str(), "location" | "tags" | "managedBy"));
            }
            Output::value(shape::group(arm.put_by_id(&id(session, &group.name), &body).await?))
        }
        // Taken out before.
        GroupCommand::Lock(_) => Output::none(),
        GroupCommand::Show { group } => Output::value(shape::group(arm.group(&group.name).await?)),
        GroupCommand::List { tag } => {
            let filter = tag.map(|tag| match tag.split_once('=') {
                Some((key, value)) => format!("tagname eq {} and tagvalue eq {}", quoted(key), quoted(value)),
                None => format!("tagname eq {}", quoted(&tag)),
            });
            let all = format!("{}/resourceGroups", arm.subscription_scope());
            let groups = arm.all_of(&all, filter.as_deref()).await?;
            Output::with_columns(shape::each(groups, shape::group), |item| {
                vec![
                    ("Name", member(item, &["name"])),
                    ("Location", member(item, &["location"])),
                    ("Status", member(item, &["properties", "provisioningState"])),
                ]
            })
        }
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

/// A group's ARM id.
fn id(session: &Session, group: &str) -> String {
    format!("{}/resourceGroups/{group}", session.arm.subscription_scope())
}

async fn exists(session: &Session, name: &str) -> Result<bool> {
    match session.arm.group(name).await {
        Ok::<Value, _>(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
