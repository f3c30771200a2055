//! `portolan acr custom-domain …`: host names of a registry's own, with their certificates.
//! ACR has no such commands.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use portolan_types::Secret;
use serde_json::{Value, json};

use super::{Context, signed_in};
use crate::args::Registry;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::session::Session;

/// Size of a PEM file, in bytes.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// `portolan acr custom-domain …`
#[derive(Debug, Args)]
pub(crate) struct CustomDomainArgs {
    #[command(subcommand)]
    command: CustomDomainCommand,
}

/// A custom domain by its host name.
#[derive(Debug, Args)]
struct Domain {
    #[command(flatten)]
    registry: Registry,
    /// The host name, such as images.example.com.
    #[arg(short = 'n', long, value_name = "HOST")]
    name: String,
}

#[derive(Debug, Subcommand)]
enum CustomDomainCommand {
    /// Let a registry answer at a host name, or change the certificate it has there.
    Create {
        #[command(flatten)]
        domain: Domain,
        /// The certificate and what it was issued by (PEM); without one the server's own serves.
        #[arg(long, value_name = "FILE", requires = "key_file")]
        certificate_file: Option<PathBuf>,
        /// The certificate's private key (PEM).
        #[arg(long, value_name = "FILE", requires = "certificate_file")]
        key_file: Option<PathBuf>,
        /// Take the certificate away again.
        #[arg(long, conflicts_with = "certificate_file")]
        no_certificate: bool,
    },
    /// List the host names of a registry.
    List {
        #[command(flatten)]
        registry: Registry,
    },
    /// Show a host name.
    Show {
        #[command(flatten)]
        domain: Domain,
    },
    /// Let a registry answer at a host name no more.
    Delete {
        #[command(flatten)]
        domain: Domain,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
}

pub(super) async fn run(ctx: &Context, args: CustomDomainArgs) -> Result<Output> {
    if let CustomDomainCommand::Delete { yes, .. } = &args.command {
        ctx.talk.confirm("Are you sure you want to perform this operation?", *yes)?;
    }
    signed_in(ctx, async |session: &Session| {
        let arm = &session.arm;
        match &args.command {
            CustomDomainCommand::Create { domain, certificate_file, key_file, no_certificate } => {
                let chain = match no_certificate {
                    true => Some(String::new()),
                    false => certificate_file.as_deref().map(pem).transpose()?,
                };
                let key = key_file.as_deref().map(pem).transpose()?.map(Secret::new);
                let made = at(session, &domain.registry, async |r| {
                    let key = key.as_ref().map(|k| k.expose().as_str());
                    Ok(arm.put_custom_domain(r, &domain.name, chain.as_deref(), key).await?)
                });
                Ok(Output::value(shown(&made.await?)))
            }
            CustomDomainCommand::List { registry } => {
                let all = at(session, registry, async |r| Ok(arm.custom_domains(r).await?)).await?;
                Ok(Output::value(all.iter().map(shown).collect::<Value>()))
            }
            CustomDomainCommand::Show { domain } => {
                let one = at(session, &domain.registry, async |r| Ok(arm.custom_domain(r, &domain.name).await?));
                Ok(Output::value(shown(&one.await?)))
            }
            CustomDomainCommand::Delete { domain, .. } => {
                at(session, &domain.registry, async |r| Ok(arm.delete_custom_domain(r, &domain.name).await?)).await?;
                Ok(Output::none())
            }
        }
    })
    .await
}

async fn at<T>(
    session: &Session,
    registry: &Registry,
    work: impl AsyncFn(&portolan_api::arm::RegistryRef) -> Result<T>,
) -> Result<T> {
    session.with_registry(&registry.name, registry.resource_group.as_deref(), work).await
}

fn pem(file: &Path) -> Result<String> {
    let failed = |why: &dyn std::fmt::Display| Failure::new(format!("cannot read {}: {why}", file.display()));
    if std::fs::metadata(file).map_err(|e| failed(&e))?.len() > PEM_BYTES_MAX {
        return Err(failed(&format_args!("it has more than {PEM_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(file).map_err(|e| failed(&e))
}

/// In az's manner: the properties beside the name.
fn shown(domain: &Value) -> Value {
    let property = |name: &str| domain.get("properties").and_then(|p| p.get(name)).cloned();
    json!({
        "certificate": property("certificate"),
        "creationDate": property("creationDate"),
        "hostName": property("hostName"),
        "id": domain.get("id"),
        "name": domain.get("name"),
        "provisioningState": property("provisioningState"),
    })
}
