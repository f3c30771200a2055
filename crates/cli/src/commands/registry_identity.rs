//! `portolan acr identity …`, `portolan acr encryption …`: which identities a registry has.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, signed_in};
use crate::args::NamedRegistry;
use crate::error::{Failure, Result};
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan acr identity …`
#[derive(Debug, Args)]
pub(crate) struct RegistryIdentityArgs {
    #[command(subcommand)]
    command: IdentityCommand,
}

#[derive(Debug, Subcommand)]
enum IdentityCommand {
    /// Show the registry's identities.
    Show {
        #[command(flatten)]
        registry: NamedRegistry,
    },
    /// Assign identities to the registry.
    Assign(Which),
    /// Take identities away from the registry.
    Remove(Which),
}

#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    registry: NamedRegistry,
    /// Space-separated names or resource IDs of identities; '[system]' for the registry's own.
    #[arg(long, num_args = 1.., required = true, value_name = "IDENTITY")]
    identities: Vec<String>,
}

/// `portolan acr encryption …`
#[derive(Debug, Args)]
pub(crate) struct EncryptionArgs {
    #[command(subcommand)]
    command: EncryptionCommand,
}

#[derive(Debug, Subcommand)]
enum EncryptionCommand {
    /// Show the customer-managed key, of which there is none.
    Show {
        #[command(flatten)]
        registry: NamedRegistry,
    },
}

const SYSTEM: &str = "[system]";

pub(super) async fn encryption(ctx: &Context, args: EncryptionArgs) -> Result<Output> {
    let EncryptionCommand::Show { registry } = args.command;
    signed_in(ctx, async |session: &Session| {
        let now = session.registry_object(&registry).await?;
        Ok(Output::value(now.pointer("/properties/encryption").cloned().unwrap_or(Value::Null)))
    })
    .await
}

pub(super) async fn run(ctx: &Context, args: RegistryIdentityArgs) -> Result<Output> {
    signed_in(ctx, async |session: &Session| match args.command {
        IdentityCommand::Show { registry } => {
            let now = session.registry_object(&registry).await?;
            Ok(Output::value(now.get("identity").cloned().unwrap_or(Value::Null)))
        }
        IdentityCommand::Assign(which) => change(session, which, true).await,
        IdentityCommand::Remove(which) => change(session, which, false).await,
    })
    .await
}

async fn change(session: &Session, which: Which, assign: bool) -> Result<Output> {
    let now = session.registry_object(&which.registry).await?;
    let id = now.get("id").and_then(Value::as_str).unwrap_or_default();
    let group = crate::output::group_of_id(id).unwrap_or_default().to_owned();
    let kind = now.pointer("/identity/type").and_then(Value::as_str).unwrap_or("None").to_ascii_lowercase();
    let mut system = kind.contains("systemassigned");
    let mut users: Vec<String> = now
        .pointer("/identity/userAssignedIdentities")
        .and_then(Value::as_object)
        .map(|users| users.keys().cloned().collect())
        .unwrap_or_default();
    if !assign && !system && users.is_empty() {
        return Err(Failure::new(format!(
            "The registry {} has no system or user assigned identities.",
            which.registry.name
        )));
    }
    // A merge patch takes a member away by `null`.
    let mut patch = json!({});
    for named in &which.identities {
        if named == SYSTEM {
            if !assign && !system {
                return Err(Failure::new("The registry does not have a system identity assigned."));
            }
            system = assign;
            continue;
        }
        let full = match named.starts_with('/') {
            true => named.clone(),
            false => format!(
                "{}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{named}",
                session.arm.subscription_scope()
            ),
        };
        let there = users.iter().position(|u| u.eq_ignore_ascii_case(&full));
        match (assign, there) {
            (true, None) => {
                patch[full.as_str()] = json!({});
                users.push(full);
            }
            (true, Some(_)) => {}
            (false, Some(at)) => patch[users.remove(at).as_str()] = Value::Null,
            (false, None) => {
                return Err(Failure::new(format!(
                    "The registry does not have specified user identity '{named}' assigned, so it cannot be removed."
                )));
            }
        }
    }
    let kind = match (system, users.is_empty()) {
        (true, true) => "SystemAssigned",
        (true, false) => "SystemAssigned, UserAssigned",
        (false, false) => "UserAssigned",
        (false, true) => "None",
    };
    let mut identity = json!({"type": kind});
    if patch.as_object().is_some_and(|p| !p.is_empty()) {
        identity["userAssignedIdentities"] = patch;
    }
    let body = json!({"identity": identity});
    let group = which.registry.resource_group.as_deref();
    let patched =
        session.with_registry(&which.registry.name, group, async |r| Ok(session.arm.patch_registry(r, &body).await?));
    Ok(Output::value(shape::registry(patched.await?)))
}
