//! `portolan acr check-health`: one thing after the other, until something is wrong.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use clap::Args;
use portolan_api::acr::AcrClient;
use serde_json::Value;

use super::docker::{client, which};
use super::{Context, signed_in};
use crate::args::RegistryLogin;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::session::Session;
use crate::talk::Talk;

/// `portolan acr check-health`
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// The name of the container registry.
    #[arg(short = 'n', long = "name", value_name = "REGISTRY", env = "AZURE_DEFAULTS_ACR", hide_env = true)]
    name: Option<String>,
    /// Check what you may do in this repository.
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Go on after an error.
    #[arg(long)]
    ignore_errors: bool,
    /// Virtual networks are Azure's.
    #[arg(long, hide = true)]
    vnet: Option<String>,
    /// Taken for az's sake: nothing is pulled here, so nothing is asked.
    #[arg(short = 'y', long)]
    yes: bool,
}

/// Everything there is to be allowed in a repository.
const ACTIONS: &[&str] = &["pull", "push", "metadata_write", "metadata_read", "delete"];

/// What is said, and what ends it.
struct Report {
    talk: Talk,
    ignore_errors: bool,
}

impl Report {
    fn pass(&self, what: impl std::fmt::Display) {
        self.talk.say(format_args!("{what} : OK"));
    }

    /// With `--ignore-errors`, said and gone on from.
    fn fail(&self, title: &str, message: impl std::fmt::Display, hint: Option<String>) -> Result<()> {
        let mut failure = Failure::new(format!("An error occurred: {title}\n{message}"));
        failure.hint = hint;
        if !self.ignore_errors {
            return Err(failure);
        }
        self.talk.failure(&failure);
        Ok(())
    }
}

pub(super) async fn run(ctx: &Context, args: HealthArgs) -> Result<Output> {
    if args.vnet.is_some() {
        return Err(Failure::new("Virtual networks are a service of Azure, which is not part of this server."));
    }
    let report = Report { talk: ctx.talk, ignore_errors: args.ignore_errors };
    container_client(&report)?;
    report.talk.say(format_args!("Portolan version: {}", env!("CARGO_PKG_VERSION")));
    match &args.name {
        Some(name) => {
            signed_in(ctx, async |session: &Session| {
                registry(session, &report, name, args.repository.as_deref()).await?;
                Ok(Output::none())
            })
            .await?;
        }
        None => report.talk.warn("Registry name must be provided to check connectivity."),
    }
    helm(&report)?;
    Ok(Output::none())
}

/// A program's first line, or what it said on its way out.
fn ask(program: &OsStr, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn container_client(report: &Report) -> Result<()> {
    let program = match client() {
        Ok(program) => program,
        Err(_) => {
            return report.fail(
                "DOCKER_COMMAND_ERROR",
                "Please verify if Docker client is installed and running.",
                Some("neither docker nor podman is needed for `portolan acr build` and `portolan acr pull`".into()),
            );
        }
    };
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    match ask(program.as_os_str(), &["version", "--format", "{{.Client.Version}}"]) {
        Ok(version) => report.talk.say(format_args!("{name} version: {version}")),
        Err(why) if why.contains("daemon") || why.contains("connect") => report.fail(
            "DOCKER_DAEMON_ERROR",
            format_args!("Please verify if Docker daemon is running, or try restarting it.\n{why}"),
            None,
        )?,
        Err(why) => report.fail(
            "DOCKER_VERSION_ERROR",
            format_args!("An error occurred while retrieving Docker version. Please try verifying it manually.\n{why}"),
            None,
        )?,
    }
    Ok(())
}

fn helm(report: &Report) -> Result<()> {
    let Some(program) = which(OsStr::new("helm")) else {
        // Nothing of a registry's needs it.
        report.talk.say("Helm is not installed: charts cannot be pushed from here");
        return Ok(());
    };
    match ask(program.as_os_str(), &["version", "--short"]) {
        Ok(version) => report.talk.say(format_args!("Helm version: {version}")),
        Err(why) => report.fail(
            "HELM_VERSION_ERROR",
            format_args!("An error occurred while retrieving Helm version.\n{why}"),
            None,
        )?,
    }
    Ok(())
}

async fn registry(session: &Session, report: &Report, name: &str, repository: Option<&str>) -> Result<()> {
    let found = match session.registry_to_use(name, None).await {
        Ok(found) => found,
        Err(error) => {
            return report.fail(
                "LOGIN_SERVER_ERROR",
                format_args!("An error occurred while retrieving the login server for registry '{name}'.\n{error}"),
                error.hint.clone(),
            );
        }
    };
    let server = &found.login_server;
    // Login servers that have a port in them are names all the same.
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => (host, port.parse().unwrap_or(443)),
        _ => (server.as_str(), 443u16),
    };
    let bare = host.trim_matches(['[', ']']);
    // What clients take for this machine without asking anybody (RFC 6761, 6.3).
    let local = bare.to_ascii_lowercase().ends_with(".localhost");
    let looked_up = match local {
        true => Some(std::net::IpAddr::from([127, 0, 0, 1])),
        false => tokio::net::lookup_host((bare, port)).await.ok().and_then(|mut all| all.next()).map(|a| a.ip()),
    };
    match looked_up {
        Some(address) => report.pass(format_args!("DNS lookup to {server} at IP {address}")),
        None => {
            return report.fail(
                "CONNECTIVITY_DNS_ERROR",
                format_args!("Failed to reach DNS for registry '{server}'. Please check if the spelling is correct and your network connectivity."),
                None,
            );
        }
    }
    let client = session.data_plane(&found, &RegistryLogin::default())?;
    match client.challenge().await {
        Ok(()) => report.pass(format_args!("Challenge endpoint https://{server}/v2/")),
        Err(error) if error.status() == Some(403) => {
            return report.fail(
                "CONNECTIVITY_FORBIDDEN_ERROR",
                format_args!("Looks like you don't have access to registry '{server}'. To see configured firewall rules, run 'portolan acr show --query networkRuleSet --name {name}'.\n{error}"),
                None,
            );
        }
        Err(error) if error.status() == Some(429) => {
            return report.fail(
                "CONNECTIVITY_TOOMANYREQUESTS_ERROR",
                format_args!("Too many requests, access to registry '{server}' was denied. Please wait a moment before trying again."),
                None,
            );
        }
        Err(error) => {
            let title = match error.to_string().contains("ertificate") {
                true => "CONNECTIVITY_SSL_ERROR",
                false => "CONNECTIVITY_CHALLENGE_ERROR",
            };
            let said = error.to_string();
            let hint = Failure::from(error).hint;
            return report.fail(title, format_args!("Registry '{server}' did not issue a challenge.\n{said}"), hint);
        }
    }
    match client.refresh_token().await {
        Ok(_) => report.pass(format_args!("Fetch refresh token for registry '{server}'")),
        Err(error) => {
            return report.fail(
                "CONNECTIVITY_REFRESH_TOKEN_ERROR",
                format_args!("Access to registry '{server}' was denied. {error}"),
                Some("sign in again: `portolan login`".into()),
            );
        }
    }
    access(session, report, &client, server, &found.group, name, repository).await
}

async fn access(
    session: &Session,
    report: &Report,
    client: &AcrClient,
    server: &str,
    group: &str,
    name: &str,
    repository: Option<&str>,
) -> Result<()> {
    let scope = match repository {
        Some(repository) => format!("repository:{repository}:{}", ACTIONS.join(",")),
        None => "registry:catalog:*".to_owned(),
    };
    let token = match client.access_token(&scope).await {
        Ok(token) => token,
        Err(error) => {
            return report.fail(
                "CONNECTIVITY_ACCESS_TOKEN_ERROR",
                format_args!("Access to registry '{server}' was denied. {error}"),
                None,
            );
        }
    };
    let Some(repository) = repository else {
        report.pass(format_args!("Fetch access token for registry '{server}'"));
        let registry = portolan_api::arm::RegistryRef { group: group.to_owned(), name: name.to_owned() };
        // Who may not look sees one line less.
        let shown = session.arm.registry(&registry).await.unwrap_or_default();
        if shown.pointer("/properties/roleAssignmentMode") == Some(&Value::from("AbacRepositoryPermissions")) {
            report.talk.warn("Note: Please run the command with the '--repository' flag to check your read and write access to a specific repository.");
        }
        return Ok(());
    };
    let granted = token.granted_actions();
    let (has, lacks): (Vec<&str>, Vec<&str>) = ACTIONS.iter().partition(|a| granted.iter().any(|g| g == *a));
    if lacks.is_empty() {
        report.pass(format_args!("Fetch access token for repository '{repository}' in registry '{server}'"));
        return Ok(());
    }
    report.fail(
        "CONNECTIVITY_ACCESS_TOKEN_ERROR",
        format_args!(
            "You have {} permissions to the repository. You are lacking {} repository permissions. Please verify if you have full read, write, and delete permissions to the repository in the registry.",
            if has.is_empty() { "no".to_owned() } else { has.join(", ") },
            lacks.join(", ")
        ),
        None,
    )
}
