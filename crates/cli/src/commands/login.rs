//! `portolan login`, `portolan logout`: all the ways in that az has.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use portolan_api::identity::person::{self, ANY_TENANT};
use portolan_api::transport::{self, TransportOptions};
use portolan_types::Secret;
use serde_json::Value;

use super::Context;
use super::account::accounts_of;
use crate::args::text_or_file;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::profile::{Bootstrap, ConfigDir, Identity, Profile, Who};
use crate::session::Session;

/// How to sign in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  On the server's machine:  portolan login --bootstrap data/bootstrap.json
  A service principal:      portolan login --server https://host:8443 --ca-file ca.pem \\
                                --service-principal -u APP_ID -p SECRET --tenant TENANT_ID
  A person, by name:        portolan login --server https://host:8443 -u ada@example.com < password
  A person, in a browser:   portolan login --server https://host:8443 --use-device-code
  What runs somewhere:      portolan login --server https://host:8443 --identity

The server and its certificates are kept: later sign-ins need not name them.")]
pub struct LoginArgs {
    /// The bootstrap.json that the server's first start left in its data folder.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "username", "password", "tenant", "service_principal", "identity", "use_device_code"])]
    pub bootstrap: Option<PathBuf>,
    /// The server's address, such as https://host:8443; the one of the time before when not given.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Certificates (PEM) to trust beside the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// User name or service principal application ID.
    #[arg(short = 'u', long, value_name = "NAME|APP_ID")]
    pub username: Option<String>,
    /// User password or service principal secret, or @FILE; read from stdin when not given.
    #[arg(short = 'p', long, value_name = "SECRET", value_parser = text_or_file)]
    pub password: Option<String>,
    /// The tenant.
    #[arg(short = 't', long, value_name = "TENANT_ID")]
    pub tenant: Option<String>,
    /// Sign in even if there is no subscription to see.
    #[arg(long)]
    pub allow_no_subscriptions: bool,
    /// Sign in by a code that is typed into a browser, here or elsewhere.
    #[arg(long, conflicts_with_all = ["username", "password", "service_principal", "identity"])]
    pub use_device_code: bool,
    /// Sign in as a service principal.
    #[arg(long, requires = "username")]
    pub service_principal: bool,
    /// A service principal's certificate and private key, in one PEM file.
    #[arg(long, value_name = "FILE", requires = "service_principal", conflicts_with_all = ["password", "federated_token"])]
    pub certificate: Option<PathBuf>,
    /// Another issuer's token that the service principal's federated credential names, or @FILE.
    #[arg(long, value_name = "TOKEN", value_parser = text_or_file, requires = "service_principal", conflicts_with = "password")]
    pub federated_token: Option<String>,
    /// Sign in as the managed identity that the environment offers.
    #[arg(short = 'i', long, conflicts_with_all = ["username", "password", "service_principal", "tenant"])]
    pub identity: bool,
    /// Of several managed identities, the one with this application ID.
    #[arg(long, value_name = "ID", requires = "identity", help_heading = "Managed Identity")]
    pub client_id: Option<String>,
    /// Of several managed identities, the one with this object ID.
    #[arg(
        long,
        value_name = "ID",
        requires = "identity",
        help_heading = "Managed Identity",
        conflicts_with = "client_id"
    )]
    pub object_id: Option<String>,
    /// Of several managed identities, the one with this resource ID.
    #[arg(long, value_name = "ID", requires = "identity", help_heading = "Managed Identity", conflicts_with_all = ["client_id", "object_id"])]
    pub resource_id: Option<String>,
    /// Taken for az's sake: tokens are for the whole server.
    #[arg(long, num_args = 1.., hide = true)]
    pub scope: Vec<String>,
    /// Taken for az's sake: certificates are always sent by their thumbprint.
    #[arg(long, hide = true)]
    pub use_cert_sn_issuer: bool,
    /// Taken for az's sake: there is one subscription to ask about.
    #[arg(long, alias = "skip-sub", hide = true)]
    pub skip_subscription_discovery: bool,
}

/// Who is to sign out.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Only if this is who is signed in.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
}

pub(super) async fn login(ctx: &Context, args: LoginArgs) -> Result<Output> {
    let allow_none = args.allow_no_subscriptions;
    let (profile, accounts) = sign_in(ctx, profile(ctx, args).await?, allow_none).await?;
    ConfigDir::find()?.set_profile(&profile)?;
    Ok(Output::value(accounts))
}

/// Try a profile: fetch a token with it and pick the subscription. Answers the profile to
/// keep, and its accounts as `az login` prints them.
pub(super) async fn sign_in(ctx: &Context, mut profile: Profile, allow_none: bool) -> Result<(Profile, Value)> {
    // Nothing of an earlier sign-in is used or changed until this one has succeeded.
    let session = Session::trying(profile.clone())?;
    if let Who::Managed { .. } = profile.who {
        // Its tenant stands in its token, as for az.
        let token = session.arm.sign_in().arm_token().await?;
        profile.tenant_id =
            token.claim("tid").ok_or_else(|| Failure::new("The managed identity's token does not say its tenant."))?;
    }
    let subscriptions = session.arm.subscriptions().await?;
    if let (Who::User { refresh_token, .. }, Some(now)) = (&mut profile.who, session.arm.sign_in().refresh_token()) {
        *refresh_token = now;
    }
    let wanted = ctx.global.subscription.as_deref().unwrap_or(&profile.subscription_id).to_owned();
    match chosen(&subscriptions, &wanted) {
        Some(chosen) => (profile.subscription_id, profile.subscription_name) = chosen,
        None if allow_none => {}
        None if wanted.is_empty() => {
            return Err(Failure::new(format!("No subscriptions found for {}.", profile.who.name()))
                .hint("ask an owner for a role, or sign in with --allow-no-subscriptions"));
        }
        None => return Err(not_seen(&wanted)),
    }
    let accounts = accounts_of(&profile, &subscriptions);
    Ok((profile, accounts))
}

/// The subscription meant by an id or name, or the first when none is meant: id and name.
pub(super) fn chosen(subscriptions: &[Value], wanted: &str) -> Option<(String, String)> {
    let id = |s: &Value| s.get("subscriptionId").and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = |s: &Value| s.get("displayName").and_then(Value::as_str).unwrap_or_default().to_owned();
    subscriptions
        .iter()
        .find(|s| id(s).eq_ignore_ascii_case(wanted) || name(s).eq_ignore_ascii_case(wanted))
        .or_else(|| subscriptions.first().filter(|_| wanted.is_empty()))
        .map(|s| (id(s), name(s)))
}

pub(super) fn not_seen(wanted: &str) -> Failure {
    Failure::new(format!("The subscription of '{wanted}' doesn't exist, or is not one this identity sees."))
        .hint("see the ones there are: `portolan account list -o table`")
}

async fn profile(ctx: &Context, args: LoginArgs) -> Result<Profile> {
    if let Some(file) = &args.bootstrap {
        let (bootstrap, ca_pem) = Bootstrap::read(file)?;
        return Ok(bootstrap.into_profile(own_ca(args.ca_file)?.or(ca_pem)));
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
    let ca_pem = own_ca(args.ca_file)?.or(before.as_ref().and_then(|b| b.ca_pem.clone()));
    let tenant = args.tenant.or_else(|| before.as_ref().map(|b| b.tenant_id.clone()));
    let made = |who: Who, tenant_id: String| Profile {
        server: server.clone(),
        tenant_id,
        subscription_id: String::new(),
        subscription_name: String::new(),
        who,
        ca_pem: ca_pem.clone(),
    };
    if args.identity {
        let which = match (args.client_id, args.object_id, args.resource_id) {
            (Some(id), ..) => Identity::ClientId(id),
            (_, Some(id), _) => Identity::ObjectId(id),
            (.., Some(id)) => Identity::ResourceId(id),
            _ => Identity::Only,
        };
        return Ok(made(Who::Managed { managed_identity: which }, String::new()));
    }
    if args.service_principal {
        let client_id = args.username.ok_or_else(|| Failure::usage("--username/-u, the application ID, is missing"))?;
        let tenant = tenant.ok_or_else(|| Failure::usage("--tenant/-t, the tenant's ID, is missing"))?;
        let who = match (args.certificate, args.federated_token, args.password) {
            (Some(file), ..) => {
                let certificate = std::fs::canonicalize(&file)
                    .map_err(|e| Failure::new(format!("cannot read the certificate {}: {e}", file.display())))?;
                Who::Certificate { client_id, certificate }
            }
            (_, Some(token), _) => Who::Federated { client_id, federated_token: Secret::new(token) },
            (.., Some(secret)) => Who::Secret { client_id, client_secret: Secret::new(secret) },
            _ => Who::Secret { client_id, client_secret: secret_from_stdin("the service principal's secret")? },
        };
        return Ok(made(who, tenant));
    }
    let http = transport::http_client(&TransportOptions {
        ca_pem: ca_pem.as_ref().map(|p| p.clone().into_bytes()),
        user_agent: None,
    })?;
    let base = transport::base_url(&server)?;
    let tenant = tenant.unwrap_or_else(|| ANY_TENANT.to_owned());
    let (person, _) = match args.username {
        Some(username) => {
            let password = match args.password {
                Some(password) => Secret::new(password),
                None => secret_from_stdin("the password")?,
            };
            person::by_password(&http, &base, &tenant, &username, &password).await?
        }
        None => {
            let code = person::device_code(&http, &base, &tenant).await?;
            // Not `say`: without it the command would wait for nothing.
            eprintln!("{}", code.message);
            ctx.talk.detail(format_args!("waiting for {} at {}", code.user_code, code.verification_uri));
            person::by_device_code(&http, &base, &tenant, &code).await?
        }
    };
    Ok(made(Who::User { user_name: person.name, refresh_token: person.refresh }, person.tenant))
}

fn own_ca(file: Option<PathBuf>) -> Result<Option<String>> {
    let read = |file: PathBuf| {
        std::fs::read_to_string(&file)
            .map_err(|e| Failure::new(format!("cannot read the CA file {}: {e}", file.display())))
    };
    file.map(read).transpose()
}

fn secret_from_stdin(what: &str) -> Result<Secret<String>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage(format!("--password/-p, {what}, is missing"))
            .hint("to keep it out of the shell's history, pipe it in: `portolan login … < secret-file`"));
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    let secret = line.trim_end_matches(['\n', '\r']);
    if secret.is_empty() { Err(Failure::usage("no secret came on stdin")) } else { Ok(Secret::new(secret.to_owned())) }
}

pub(super) fn logout(ctx: &Context, args: LogoutArgs) -> Result<Output> {
    let config = ConfigDir::find()?;
    match (config.profile().ok().flatten(), args.username) {
        (None, _) => ctx.talk.say("Nobody was signed in."),
        (Some(profile), Some(name)) if !profile.who.name().eq_ignore_ascii_case(&name) => {
            return Err(Failure::new(format!("'{name}' is not signed in: {} is.", profile.who.name())));
        }
        _ => {}
    }
    config.clear()?;
    Ok(Output::none())
}
