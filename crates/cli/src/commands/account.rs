//! `portolan account …`

use clap::{Args, Subcommand};
use portolan_types::Timestamp;
use serde_json::{Value, json};

use super::Context;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::output::shape::object;
use crate::output::table::member;
use crate::profile::{ConfigDir, Profile};
use crate::session::Session;

/// `portolan account …`
#[derive(Debug, Args)]
pub struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Show the subscription in use.
    Show,
    /// List the subscriptions that can be used.
    List,
    /// Get a token for the control plane, for other tools to use.
    GetAccessToken {
        /// The resource the token is for; the control plane when not given.
        #[arg(long, alias = "scope")]
        resource: Option<String>,
    },
}

pub(super) async fn run(ctx: &Context, args: AccountArgs) -> Result<Output> {
    match args.command {
        AccountCommand::Show => {
            let profile = ConfigDir::find()?.profile()?;
            let profile = profile.ok_or_else(|| {
                Failure::new("Please run 'portolan login' to sign in.")
                    .hint("on the server's machine: `portolan login --bootstrap DATA/bootstrap.json`")
            })?;
            Ok(Output::value(account(
                &profile,
                "environmentName",
                &profile.subscription_id,
                &profile.subscription_name,
            )))
        }
        AccountCommand::List => {
            let session = Session::open(&ctx.global)?;
            let subscriptions = session.arm.subscriptions().await?;
            session.keep();
            Ok(Output::with_columns(accounts_of(session.profile(), &subscriptions), columns))
        }
        AccountCommand::GetAccessToken { resource } => {
            let session = Session::open(&ctx.global)?;
            let token = session.directory_token(resource.as_deref()).await?;
            let expires = Timestamp::from_unix_secs(token.expires).rfc3339();
            let profile = session.profile();
            Ok(Output::value(object([
                ("accessToken", Value::from(token.secret.into_exposed())),
                ("expiresOn", Value::from(expires)),
                ("expires_on", Value::from(token.expires)),
                ("subscription", Value::from(profile.subscription_id.clone())),
                ("tenant", Value::from(profile.tenant_id.clone())),
                ("tokenType", Value::from("Bearer")),
            ])))
        }
    }
}

fn columns(item: &Value) -> Vec<(&'static str, String)> {
    vec![
        ("Name", member(item, &["name"])),
        ("CloudName", member(item, &["cloudName"])),
        ("SubscriptionId", member(item, &["id"])),
        ("TenantId", member(item, &["tenantId"])),
        ("State", member(item, &["state"])),
        ("IsDefault", member(item, &["isDefault"])),
    ]
}

/// `cloud`: what az calls the member with the cloud's name; `show` and `list` differ.
fn account(profile: &Profile, cloud: &str, id: &str, name: &str) -> Value {
    json!({
        cloud: "Portolan",
        "homeTenantId": profile.tenant_id,
        "id": id,
        "isDefault": id == profile.subscription_id,
        "managedByTenants": [],
        "name": name,
        "server": profile.server,
        "state": "Enabled",
        "tenantId": profile.tenant_id,
        "user": {"name": profile.client_id, "type": "servicePrincipal"},
    })
}

/// The accounts as `az login` and `az account list` print them.
pub(super) fn accounts_of(profile: &Profile, subscriptions: &[Value]) -> Value {
    let text = |s: &Value, key: &str| s.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    subscriptions
        .iter()
        .map(|s| account(profile, "cloudName", &text(s, "subscriptionId"), &text(s, "displayName")))
        .collect()
}
