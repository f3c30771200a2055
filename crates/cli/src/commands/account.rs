//! `portolan account …`

use clap::{Args, Subcommand, ValueEnum};
use portolan_types::Timestamp;
use serde_json::{Value, json};

use super::lock::{self, LockCommand};
use super::login::{chosen, not_seen};
use super::{Context, signed_in};
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
    Show {
        /// Name or ID of the subscription to show.
        #[arg(short = 's', long = "name", short_alias = 'n', value_name = "NAME|ID")]
        name: Option<String>,
    },
    /// List the subscriptions that can be used.
    List {
        /// Taken for az's sake: all are listed.
        #[arg(long, hide = true)]
        all: bool,
        /// Taken for az's sake: the server is always asked.
        #[arg(long, hide = true)]
        refresh: bool,
    },
    /// Use another subscription from now on.
    Set {
        /// Name or ID of the subscription; --subscription says the same.
        #[arg(short = 's', long = "name", short_alias = 'n', value_name = "NAME|ID")]
        name: Option<String>,
    },
    /// Sign out and forget everything.
    Clear,
    /// Get a token for the control plane, for other tools to use.
    GetAccessToken(TokenArgs),
    /// Manage locks on the subscription.
    #[command(subcommand)]
    Lock(LockCommand),
}

/// What the token is for.
#[derive(Debug, Args)]
struct TokenArgs {
    /// The resource the token is for; the control plane when not given.
    #[arg(long)]
    resource: Option<String>,
    /// The same as a scope, `<resource>/.default`.
    #[arg(long, num_args = 0.., conflicts_with = "resource")]
    scope: Vec<String>,
    /// A resource by the name of its kind.
    #[arg(long, value_enum, ignore_case = true, conflicts_with_all = ["resource", "scope"])]
    resource_type: Option<ResourceType>,
    /// The tenant: the one that is signed in to.
    #[arg(short = 't', long)]
    tenant: Option<String>,
    /// Name or ID of the subscription; --subscription says the same.
    #[arg(short = 's', long = "name", short_alias = 'n', value_name = "NAME|ID")]
    name: Option<String>,
}

/// az's names of resources. All that are served here are the server itself.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ResourceType {
    Arm,
    AadGraph,
    MsGraph,
}

pub(super) async fn run(ctx: &Context, args: AccountArgs) -> Result<Output> {
    match args.command {
        AccountCommand::Show { name } => {
            let profile = profile()?;
            match name.or_else(|| ctx.global.subscription.clone()) {
                None => Ok(Output::value(account(
                    &profile,
                    "environmentName",
                    &profile.subscription_id,
                    &profile.subscription_name,
                ))),
                Some(wanted) => {
                    let (id, name) = ask(ctx, &wanted).await?;
                    Ok(Output::value(account(&profile, "environmentName", &id, &name)))
                }
            }
        }
        AccountCommand::Set { name } => {
            let wanted = name.or_else(|| ctx.global.subscription.clone());
            let wanted = wanted.ok_or_else(|| Failure::usage("--name/-n or --subscription/-s is missing"))?;
            let (subscription_id, subscription_name) = ask(ctx, &wanted).await?;
            // Read again: the refresh token may be another since.
            let profile = Profile { subscription_id, subscription_name, ..profile()? };
            // What was kept of registries is of the subscription before.
            ConfigDir::find()?.set_profile(&profile)?;
            Ok(Output::none())
        }
        AccountCommand::Clear => {
            ConfigDir::find()?.clear()?;
            Ok(Output::none())
        }
        AccountCommand::Lock(command) => lock::at_subscription(ctx, command).await,
        AccountCommand::List { .. } => {
            signed_in(ctx, async |session: &Session| {
                let subscriptions = session.arm.subscriptions().await?;
                Ok(Output::with_columns(accounts_of(session.profile(), &subscriptions), columns))
            })
            .await
        }
        AccountCommand::GetAccessToken(args) => {
            signed_in(ctx, async |session: &Session| {
                let profile = session.profile();
                if let Some(tenant) = &args.tenant
                    && !tenant.eq_ignore_ascii_case(&profile.tenant_id)
                {
                    return Err(Failure::new(format!("'{tenant}' is not the tenant signed in to.")));
                }
                let scope = args.scope.iter().find_map(|s| s.strip_suffix("/.default"));
                let resource = args.resource.as_deref().or(scope);
                let token = session.directory_token(resource).await?;
                let expires = Timestamp::from_unix_secs(token.expires).rfc3339();
                Ok(Output::value(object([
                    ("accessToken", Value::from(token.secret.into_exposed())),
                    ("expiresOn", Value::from(expires)),
                    ("expires_on", Value::from(token.expires)),
                    ("subscription", Value::from(profile.subscription_id.clone())),
                    ("tenant", Value::from(profile.tenant_id.clone())),
                    ("tokenType", Value::from("Bearer")),
                ])))
            })
            .await
        }
    }
}

fn profile() -> Result<Profile> {
    ConfigDir::find()?.profile()?.ok_or_else(|| {
        Failure::new("Please run 'portolan login' to sign in.")
            .hint("on the server's machine: `portolan login --bootstrap DATA/bootstrap.json`")
    })
}

/// A subscription by id or name, as the server knows it.
async fn ask(ctx: &Context, wanted: &str) -> Result<(String, String)> {
    let session = Session::open(&ctx.global)?;
    let subscriptions = session.arm.subscriptions().await?;
    session.keep();
    chosen(&subscriptions, wanted).ok_or_else(|| not_seen(wanted))
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
        "user": profile.who.shown(),
    })
}

/// The accounts as `az login` and `az account list` print them; without a subscription, the
/// tenant stands for it.
pub(super) fn accounts_of(profile: &Profile, subscriptions: &[Value]) -> Value {
    let text = |s: &Value, key: &str| s.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if subscriptions.is_empty() {
        let name = "N/A(tenant level account)";
        return json!([account(profile, "cloudName", &profile.tenant_id, name)]);
    }
    subscriptions
        .iter()
        .map(|s| account(profile, "cloudName", &text(s, "subscriptionId"), &text(s, "displayName")))
        .collect()
}
