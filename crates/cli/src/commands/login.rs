//! `portolan login`, `portolan logout`

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use portolan_types::Secret;
use serde_json::Value;

use super::Context;
use super::account::accounts_of;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::profile::{Bootstrap, ConfigDir, Profile};
use crate::session::Session;

/// How to sign in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  On the server's machine:  portolan login --bootstrap data/bootstrap.json
  From anywhere:            portolan login --server https://host:8443 --ca-file ca.pem \\
                                --service-principal -u APP_ID -p SECRET --tenant TENANT_ID")]
pub struct LoginArgs {
    /// The bootstrap.json that the server's first start left in its data folder.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "username", "password", "tenant", "service_principal"])]
    pub bootstrap: Option<PathBuf>,
    /// The server's address, such as https://host:8443.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Sign in as a service principal.
    #[arg(long)]
    pub service_principal: bool,
    /// The service principal's application ID.
    #[arg(short = 'u', long, value_name = "APP_ID")]
    pub username: Option<String>,
    /// The service principal's secret; read from stdin when not given.
    #[arg(short = 'p', long, value_name = "SECRET")]
    pub password: Option<String>,
    /// The tenant.
    #[arg(short = 't', long, value_name = "TENANT_ID")]
    pub tenant: Option<String>,
    /// Certificates (PEM) to trust beside the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Sign in even if there is no subscription to see.
    #[arg(long)]
    pub allow_no_subscriptions: bool,
}

/// Nothing.
#[derive(Debug, Args)]
pub struct LogoutArgs {}

pub(super) async fn login(ctx: &Context, args: LoginArgs) -> Result<Output> {
    let allow_none = args.allow_no_subscriptions;
    let (profile, accounts) = sign_in(ctx, profile(args)?, allow_none).await?;
    ConfigDir::find()?.set_profile(&profile)?;
    Ok(Output::value(accounts))
}

/// Try a profile: fetch a token with it and pick the subscription. Answers the profile to
/// keep, and its accounts as `az login` prints them.
pub(super) async fn sign_in(ctx: &Context, mut profile: Profile, allow_none: bool) -> Result<(Profile, Value)> {
    // Nothing of an earlier sign-in is used or changed until this one has succeeded.
    let session = Session::trying(profile.clone())?;
    let subscriptions = session.arm.subscriptions().await?;
    let wanted = ctx.global.subscription.as_deref().unwrap_or(&profile.subscription_id).to_owned();
    let id = |s: &Value| s.get("subscriptionId").and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = |s: &Value| s.get("displayName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let chosen = subscriptions
        .iter()
        .find(|s| id(s).eq_ignore_ascii_case(&wanted) || name(s).eq_ignore_ascii_case(&wanted))
        .or_else(|| subscriptions.first().filter(|_| wanted.is_empty()));
    match chosen {
        Some(chosen) => (profile.subscription_id, profile.subscription_name) = (id(chosen), name(chosen)),
        None if allow_none => {}
        None if wanted.is_empty() => {
            return Err(Failure::new("No subscriptions found for this identity.")
                .hint("ask an owner for a role, or sign in with --allow-no-subscriptions"));
        }
        None => return Err(Failure::new(format!("The subscription '{wanted}' is not one this identity sees."))),
    }
    let accounts = accounts_of(&profile, &subscriptions);
    Ok((profile, accounts))
}

fn profile(args: LoginArgs) -> Result<Profile> {
    if let Some(file) = &args.bootstrap {
        let (bootstrap, ca_pem) = Bootstrap::read(file)?;
        return Ok(Profile {
            server: bootstrap.server.trim_end_matches('/').to_owned(),
            tenant_id: bootstrap.tenant_id,
            subscription_id: bootstrap.subscription_id,
            subscription_name: String::new(),
            client_id: bootstrap.client_id,
            client_secret: bootstrap.client_secret,
            ca_pem: own_ca(args.ca_file)?.or(ca_pem),
        });
    }
    // `portolan login --service-principal …` again, to the server of the time before.
    let before = ConfigDir::find()?.profile().ok().flatten();
    let server = args.server.or_else(|| before.as_ref().map(|b| b.server.clone()));
    let Some(server) = server else {
        return Err(Failure::usage("the server is not known: give --bootstrap FILE or --server URL")
            .hint("on the server's machine: `portolan login --bootstrap DATA/bootstrap.json`"));
    };
    let server = server.trim_end_matches('/').to_owned();
    let before = before.filter(|b| b.server == server);
    let missing = |what: &str| Failure::usage(format!("{what} is missing"));
    let client_id = args.username.ok_or_else(|| missing("--username/-u, the service principal's application ID,"))?;
    let tenant = args.tenant.or_else(|| before.as_ref().map(|b| b.tenant_id.clone()));
    let tenant_id = tenant.ok_or_else(|| missing("--tenant/-t, the tenant's ID,"))?;
    let client_secret = match args.password {
        Some(password) => Secret::new(password),
        None => secret_from_stdin()?,
    };
    Ok(Profile {
        server,
        tenant_id,
        subscription_id: String::new(),
        subscription_name: String::new(),
        client_id,
        client_secret,
        ca_pem: own_ca(args.ca_file)?.or(before.and_then(|b| b.ca_pem)),
    })
}

fn own_ca(file: Option<PathBuf>) -> Result<Option<String>> {
    let read = |file: PathBuf| {
        std::fs::read_to_string(&file)
            .map_err(|e| Failure::new(format!("cannot read the CA file {}: {e}", file.display())))
    };
    file.map(read).transpose()
}

fn secret_from_stdin() -> Result<Secret<String>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("--password/-p, the service principal's secret, is missing")
            .hint("to keep it out of the shell's history, pipe it in: `portolan login … < secret-file`"));
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    let secret = line.trim_end_matches(['\n', '\r']);
    if secret.is_empty() { Err(Failure::usage("no secret came on stdin")) } else { Ok(Secret::new(secret.to_owned())) }
}

pub(super) fn logout(ctx: &Context) -> Result<Output> {
    let config = ConfigDir::find()?;
    if config.profile().ok().flatten().is_none() {
        ctx.talk.say("Nobody was signed in.");
    }
    config.clear()?;
    Ok(Output::none())
}
