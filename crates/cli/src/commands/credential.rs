//! `portolan acr credential …`: the admin user's name and passwords.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::Context;
use crate::args::NamedRegistry;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::output::table::member;
use crate::session::Session;

/// `portolan acr credential …`
#[derive(Debug, Args)]
pub(crate) struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Show the admin user's name and passwords.
    Show {
        #[command(flatten)]
        registry: NamedRegistry,
    },
    /// Make one of the admin user's passwords anew; the old one stops working.
    Renew {
        #[command(flatten)]
        registry: NamedRegistry,
        /// Which password.
        #[arg(long, value_enum, ignore_case = true)]
        password_name: PasswordName,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PasswordName {
    Password,
    Password2,
}

pub(super) async fn run(ctx: &Context, args: CredentialArgs) -> Result<Output> {
    let session = Session::open(&ctx.global)?;
    let arm = &session.arm;
    let credentials = match &args.command {
        CredentialCommand::Show { registry } => {
            let shown = session.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
                Ok(arm.registry_credentials(r).await?)
            });
            shown.await.map_err(|e| admin_hint(e, &registry.name))?
        }
        CredentialCommand::Renew { registry, password_name } => {
            let which = match password_name {
                PasswordName::Password => "password",
                PasswordName::Password2 => "password2",
            };
            let renewed = session.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
                Ok(arm.renew_registry_credential(r, which).await?)
            });
            renewed.await.map_err(|e| admin_hint(e, &registry.name))?
        }
    };
    session.keep();
    Ok(Output::with_columns(credentials, columns))
}

fn admin_hint(failure: Failure, registry: &str) -> Failure {
    if failure.message.to_ascii_lowercase().contains("admin") {
        return failure
            .or_hint(|| format!("enable the admin user: `portolan acr update -n {registry} --admin-enabled true`"));
    }
    failure
}

fn columns(item: &Value) -> Vec<(&'static str, String)> {
    vec![
        ("USERNAME", member(item, &["username"])),
        ("PASSWORD", member(item, &["passwords", "0", "value"])),
        ("PASSWORD2", member(item, &["passwords", "1", "value"])),
    ]
}
