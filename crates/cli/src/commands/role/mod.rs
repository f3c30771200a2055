//! `portolan role …`: who may do what.

mod assignment;
mod definition;

use clap::{Args, Subcommand};
use portolan_api::graph::quoted;
use serde_json::Value;

pub(super) use self::assignment::give;
use super::{Context, signed_in};
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::session::Session;

/// `portolan role …`
#[derive(Debug, Args)]
pub struct RoleArgs {
    #[command(subcommand)]
    command: RoleCommand,
}

#[derive(Debug, Subcommand)]
enum RoleCommand {
    /// Manage who has which role where.
    #[command(subcommand)]
    Assignment(assignment::AssignmentCommand),
    /// Manage roles: what they allow.
    #[command(subcommand)]
    Definition(definition::DefinitionCommand),
}

pub(super) async fn run(ctx: &Context, args: RoleArgs) -> Result<Output> {
    signed_in(ctx, async |session: &Session| match args.command {
        RoleCommand::Assignment(command) => assignment::run(ctx, session, command).await,
        RoleCommand::Definition(command) => definition::run(session, command).await,
    })
    .await
}

/// The scope meant by `--scope` and `--resource-group`.
fn scope(session: &Session, scope: Option<&str>, group: Option<&str>) -> Result<String> {
    let subscription = session.arm.subscription_scope();
    match (scope, group) {
        (Some(_), Some(group)) => {
            Err(Failure::new(format!("Resource group \"{group}\" is redundant because scope is supplied")))
        }
        (Some(scope), None) => {
            let scope = if scope.len() > 1 { scope.trim_end_matches('/') } else { scope };
            Ok(if scope.starts_with('/') { scope.to_owned() } else { format!("/{scope}") })
        }
        (None, Some(group)) => Ok(format!("{subscription}/resourceGroups/{group}")),
        (None, None) => Ok(subscription),
    }
}

/// `{scope}/providers/Microsoft.Authorization/{what}`; the tenant's scope is `/`.
fn collection(scope: &str, what: &str) -> String {
    format!("{}/providers/Microsoft.Authorization/{what}", scope.trim_end_matches('/'))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn is_guid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok()
}

/// The last part of an ARM id: a role definition's GUID, whatever scope it was seen from.
fn last(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

/// The id of the role meant by a name, GUID or id.
async fn role_id(session: &Session, role: &str, scope: &str) -> Result<String> {
    if role.to_ascii_lowercase().contains("/providers/microsoft.authorization/roledefinitions/") {
        return Ok(role.to_owned());
    }
    if is_guid(role) {
        return Ok(format!("{}/{role}", collection(&session.arm.subscription_scope(), "roleDefinitions")));
    }
    let filter = format!("roleName eq {}", quoted(role));
    let found = session.arm.all_of(&collection(scope, "roleDefinitions"), Some(&filter)).await?;
    match found.as_slice() {
        [one] => Ok(text(one, "/id").to_owned()),
        [] => Err(Failure::new(format!("Role '{role}' doesn't exist."))
            .hint("see the roles: `portolan role definition list -o table`")),
        several => {
            let ids: Vec<&str> = several.iter().map(|r| text(r, "/id")).collect();
            Err(Failure::new(format!(
                "More than one role matches the given name '{role}'. Please pick a value from '{}'",
                ids.join(", ")
            )))
        }
    }
}
