//! `portolan identity …`: managed identities.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, signed_in};
use crate::args;
use crate::error::Result;
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan identity …`
#[derive(Debug, Args)]
pub struct IdentityArgs {
    #[command(subcommand)]
    command: IdentityCommand,
}

/// An identity by name.
#[derive(Debug, Args)]
struct Named {
    /// The name of the identity resource.
    #[arg(short = 'n', long)]
    name: String,
    #[command(flatten)]
    group: Group,
}

#[derive(Debug, Args)]
struct Group {
    /// Name of resource group.
    #[arg(short = 'g', long, value_name = "GROUP", env = "AZURE_DEFAULTS_GROUP", hide_env = true)]
    resource_group: String,
}

#[derive(Debug, Subcommand)]
enum IdentityCommand {
    /// Create an identity.
    Create {
        #[command(flatten)]
        identity: Named,
        /// Location; the resource group's when not given.
        #[arg(short = 'l', long, value_parser = args::location, env = "AZURE_DEFAULTS_LOCATION", hide_env = true)]
        location: Option<String>,
        /// Space-separated tags: key[=value] [key[=value] ...].
        #[arg(long, num_args = 0.., value_name = "KEY=VALUE")]
        tags: Option<Vec<String>>,
        /// Taken for az's sake: there is one region.
        #[arg(long, hide = true)]
        isolation_scope: Option<String>,
    },
    /// List identities.
    List {
        /// Only those of a resource group.
        #[arg(short = 'g', long, value_name = "GROUP")]
        resource_group: Option<String>,
    },
    /// Show an identity.
    Show {
        #[command(flatten)]
        identity: Named,
    },
    /// Change an identity's tags.
    Update {
        #[command(flatten)]
        identity: Named,
        /// Space-separated tags: key[=value] [key[=value] ...]. Use '' to clear.
        #[arg(long, num_args = 0.., value_name = "KEY=VALUE")]
        tags: Option<Vec<String>>,
    },
    /// Delete an identity, and its roles with it.
    Delete {
        #[command(flatten)]
        identity: Named,
    },
    /// Make the secret by which a program asks for the identity's tokens (not in az).
    ///
    /// It prints what such a program has in its environment: IDENTITY_ENDPOINT and
    /// IDENTITY_HEADER, or MSI_ENDPOINT and MSI_SECRET. The secret of before stops working.
    GenerateSecret {
        #[command(flatten)]
        identity: Named,
    },
    /// Manage the outside issuers' tokens that stand for the identity.
    #[command(subcommand)]
    FederatedCredential(FederatedCommand),
}

/// A federated credential by name.
#[derive(Debug, Args)]
struct Federated {
    /// The name of the federated credential.
    #[arg(short = 'n', long)]
    name: String,
    #[command(flatten)]
    of: Of,
}

#[derive(Debug, Args)]
struct Of {
    /// The name of the identity resource.
    #[arg(long)]
    identity_name: String,
    #[command(flatten)]
    group: Group,
}

#[derive(Debug, Args)]
struct Trust {
    /// The issuer's address, as it stands in its tokens.
    #[arg(long)]
    issuer: Option<String>,
    /// Whom the issuer speaks of.
    #[arg(long)]
    subject: Option<String>,
    /// Space-separated audiences that tokens may have.
    #[arg(long, num_args = 1..)]
    audiences: Option<Vec<String>>,
}

#[derive(Debug, Subcommand)]
enum FederatedCommand {
    /// Take the tokens of an issuer for a subject.
    Create {
        #[command(flatten)]
        credential: Federated,
        #[command(flatten)]
        trust: Trust,
    },
    /// Change one.
    Update {
        #[command(flatten)]
        credential: Federated,
        #[command(flatten)]
        trust: Trust,
    },
    /// List them.
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Show one.
    Show {
        #[command(flatten)]
        credential: Federated,
    },
    /// Delete one.
    Delete {
        #[command(flatten)]
        credential: Federated,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
}

const PROVIDER: &str = "providers/Microsoft.ManagedIdentity/userAssignedIdentities";

fn id(session: &Session, group: &Group, name: &str) -> String {
    format!("{}/resourceGroups/{}/{PROVIDER}/{name}", session.arm.subscription_scope(), group.resource_group)
}

pub(super) async fn run(ctx: &Context, args: IdentityArgs) -> Result<Output> {
    if let IdentityCommand::FederatedCredential(FederatedCommand::Delete { yes, .. }) = &args.command {
        ctx.talk.confirm("Are you sure you want to perform this operation?", *yes)?;
    }
    signed_in(ctx, async |session: &Session| with(session, args.command).await).await
}

async fn with(session: &Session, command: IdentityCommand) -> Result<Output> {
    let arm = &session.arm;
    let shown = |identity: Value| Output::value(shape::identity(identity));
    Ok(match command {
        IdentityCommand::Create { identity, location, tags, .. } => {
            let location = match location {
                Some(location) => location,
                None => {
                    let group = arm.group(&identity.group.resource_group).await?;
                    group.get("location").and_then(Value::as_str).unwrap_or("local").to_owned()
                }
            };
            let mut body = json!({"location": location});
            if let Some(tags) = &tags {
                body["tags"] = args::tags(tags);
            }
            shown(arm.put_by_id(&id(session, &identity.group, &identity.name), &body).await?)
        }
        IdentityCommand::List { resource_group } => {
            let scope = arm.subscription_scope();
            let scope = resource_group.map_or(scope.clone(), |group| format!("{scope}/resourceGroups/{group}"));
            Output::value(shape::each(arm.all_of(&format!("{scope}/{PROVIDER}"), None).await?, shape::identity))
        }
        IdentityCommand::Show { identity } => shown(arm.by_id(&id(session, &identity.group, &identity.name)).await?),
        IdentityCommand::Update { identity, tags } => {
            let body = tags.as_deref().map_or_else(|| json!({}), |tags| json!({"tags": args::tags(tags)}));
            shown(arm.patch_by_id(&id(session, &identity.group, &identity.name), &body).await?)
        }
        IdentityCommand::Delete { identity } => {
            arm.delete_by_id(&id(session, &identity.group, &identity.name)).await?;
            Output::none()
        }
        IdentityCommand::GenerateSecret { identity } => {
            let id = id(session, &identity.group, &identity.name);
            Output::value(arm.post_by_id(&format!("{id}/generateEndpointSecret"), None).await?)
        }
        IdentityCommand::FederatedCredential(command) => federated(session, command).await?,
    })
}

async fn federated(session: &Session, command: FederatedCommand) -> Result<Output> {
    let arm = &session.arm;
    let all = |of: &Of| format!("{}/federatedIdentityCredentials", id(session, &of.group, &of.identity_name));
    let one = |credential: &Federated| format!("{}/{}", all(&credential.of), credential.name);
    let shown = |credential: Value| Output::value(shape::plain(credential));
    Ok(match command {
        FederatedCommand::Create { credential, trust } => {
            shown(arm.put_by_id(&one(&credential), &trust.body(json!({}))).await?)
        }
        FederatedCommand::Update { credential, trust } => {
            let mut now = arm.by_id(&one(&credential)).await?;
            let properties = now.get_mut("properties").map(Value::take).unwrap_or_else(|| json!({}));
            shown(arm.put_by_id(&one(&credential), &trust.body(properties)).await?)
        }
        FederatedCommand::List { of } => Output::value(shape::each(arm.all_of(&all(&of), None).await?, shape::plain)),
        FederatedCommand::Show { credential } => shown(arm.by_id(&one(&credential)).await?),
        FederatedCommand::Delete { credential, .. } => {
            arm.delete_by_id(&one(&credential)).await?;
            Output::none()
        }
    })
}

impl Trust {
    fn body(self, mut properties: Value) -> Value {
        if let Some(issuer) = self.issuer {
            properties["issuer"] = issuer.into();
        }
        if let Some(subject) = self.subject {
            properties["subject"] = subject.into();
        }
        if let Some(audiences) = self.audiences {
            properties["audiences"] = audiences.into();
        }
        json!({"properties": properties})
    }
}
