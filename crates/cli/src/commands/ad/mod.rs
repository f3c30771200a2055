//! `portolan ad …`: the directory, in az's words, over Microsoft Graph's.

mod app;
mod credential;
mod find;
mod sp;
mod user;

use clap::{Args, Subcommand};
use serde_json::Value;

pub(super) use self::find::{Found, assignee, names_of, object_type};
use super::{Context, signed_in};
use crate::error::Result;
use crate::output::Output;
use crate::output::table::member;
use crate::session::Session;

/// `portolan ad …`
#[derive(Debug, Args)]
pub struct AdArgs {
    #[command(subcommand)]
    command: AdCommand,
}

#[derive(Debug, Subcommand)]
enum AdCommand {
    /// Manage service principals: what programs sign in as.
    #[command(subcommand)]
    Sp(Box<sp::SpCommand>),
    /// Manage applications, whose service principals programs sign in as.
    #[command(subcommand)]
    App(Box<app::AppCommand>),
    /// Manage users: people.
    #[command(subcommand)]
    User(Box<user::UserCommand>),
    /// Show who is signed in.
    #[command(subcommand)]
    SignedInUser(user::SignedInCommand),
}

pub(super) async fn run(ctx: &Context, args: AdArgs) -> Result<Output> {
    signed_in(ctx, async |session: &Session| match args.command {
        AdCommand::Sp(command) => sp::run(ctx, session, *command).await,
        AdCommand::App(command) => app::run(ctx, session, *command).await,
        AdCommand::User(command) => user::run(session, *command).await,
        AdCommand::SignedInUser(command) => user::signed_in_user(session, command).await,
    })
    .await
}

/// What of a list.
#[derive(Debug, Default, Args)]
struct Listing {
    /// Object's display name or its prefix.
    #[arg(long)]
    display_name: Option<String>,
    /// OData filter, such as "displayName eq 'test'".
    #[arg(long, value_name = "ODATA")]
    filter: Option<String>,
    /// List all, however many.
    #[arg(long)]
    all: bool,
    /// Only what the signed-in user owns.
    #[arg(long)]
    show_mine: bool,
}

/// As many as are shown without a filter or `--all`.
const SHOWN_MAX: usize = 100;

impl Listing {
    /// The objects of a collection, filtered by what was said and by `more`.
    async fn of(&self, ctx: &Context, session: &Session, collection: &str, more: Vec<String>) -> Result<Vec<Value>> {
        if self.show_mine {
            let kind = match collection {
                "applications" => "#microsoft.graph.application",
                _ => "#microsoft.graph.servicePrincipal",
            };
            let mut owned = session.graph().list("me/ownedObjects", None, None).await?;
            owned.retain(|o| o.get("@odata.type").and_then(Value::as_str) == Some(kind));
            return Ok(owned);
        }
        let mut filters: Vec<String> = self.filter.iter().cloned().collect();
        filters.extend(more);
        if let Some(name) = &self.display_name {
            filters.push(format!("startswith(displayName,{})", portolan_api::graph::quoted(name)));
        }
        if !filters.is_empty() || self.all {
            let filter = filters.join(" and ");
            return Ok(session
                .graph()
                .list(collection, Some(&filter).filter(|f| !f.is_empty()).map(|f| f.as_str()), None)
                .await?);
        }
        let mut items = session.graph().list(collection, None, Some(SHOWN_MAX + 1)).await?;
        if items.len() > SHOWN_MAX {
            ctx.talk.warn("The result is not complete. You can still use '--all' to get all of them with long latency expected, or provide a filter through command arguments");
            items.truncate(SHOWN_MAX);
        }
        Ok(items)
    }
}

/// Applications and service principals as a table, by name.
fn by_name(mut items: Vec<Value>) -> Output {
    let name = |v: &Value| v.get("displayName").and_then(Value::as_str).unwrap_or_default().to_owned();
    items.sort_by_key(name);
    Output::with_columns(items, |item| {
        vec![
            ("DisplayName", member(item, &["displayName"])),
            ("Id", member(item, &["id"])),
            ("AppId", member(item, &["appId"])),
            ("CreatedDateTime", member(item, &["createdDateTime"])),
        ]
    })
}
