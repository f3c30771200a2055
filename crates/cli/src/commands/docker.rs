//! `portolan acr login`: log docker or podman in, or show the token for it.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use portolan_api::acr::TOKEN_USER;
use serde_json::Value;

use super::Context;
use crate::args::{NamedRegistry, RegistryLogin};
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::output::shape::object;
use crate::session::Session;

/// `portolan acr login`
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    registry: NamedRegistry,
    #[command(flatten)]
    login: RegistryLogin,
    /// Print a refresh token in place of logging docker in; needs no docker.
    #[arg(short = 't', long, conflicts_with_all = ["username", "password"])]
    expose_token: bool,
    /// Log in to a regional endpoint; there are none here.
    #[arg(long, value_name = "REGION", conflicts_with = "expose_token")]
    endpoint: Option<String>,
}

pub(super) async fn login(ctx: &Context, args: LoginArgs) -> Result<Output> {
    if let Some(region) = &args.endpoint {
        return Err(Failure::new(format!("Regional endpoint for '{region}' not found. Aborting login."))
            .hint(format!("see the endpoints: `portolan acr show-endpoints -n {}`", args.registry.name)));
    }
    let session = Session::open(&ctx.global)?;
    let group = args.registry.resource_group.as_deref();
    if !args.expose_token {
        // Looked for first: without it there is no use in a token.
        client()?;
    }
    // Asked anew: a login server that was remembered may have moved.
    session.forget(&args.registry.name);
    let found = session.registry_to_use(&args.registry.name, group).await?;
    let (username, password) = match (args.login.username.clone(), args.login.password.clone()) {
        (Some(username), Some(password)) => (username, password),
        _ => {
            let token = session.data_plane(&found, &args.login)?.refresh_token().await?;
            (TOKEN_USER.to_owned(), token.secret.into_exposed())
        }
    };
    session.keep();
    if args.expose_token {
        ctx.talk.warn(format_args!(
            "The token is a refresh token: log in with it, or exchange it at /oauth2/token, for example: docker login {} -u {TOKEN_USER} -p refreshToken",
            found.login_server
        ));
        return Ok(Output::value(object([
            ("accessToken", Value::from(password.clone())),
            ("loginServer", Value::from(found.login_server)),
            ("refreshToken", Value::from(password)),
            ("username", Value::from(TOKEN_USER)),
        ])));
    }
    log_in(ctx, &session, &found.login_server, &username, &password)?;
    Ok(Output::none())
}

/// The container client: `DOCKER_COMMAND`, docker, podman.
pub(super) fn client() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("DOCKER_COMMAND").filter(|c| !c.is_empty()) {
        return which(&named)
            .ok_or_else(|| Failure::new(format!("DOCKER_COMMAND names {}, which is not there", named.display())));
    }
    ["docker", "podman"].into_iter().find_map(|name| which(OsStr::new(name))).ok_or_else(|| {
        Failure::new("Neither docker nor podman is installed here.").hint(
            "`portolan acr login -n NAME --expose-token` prints a token for other clients; `portolan acr pull` needs no client at all",
        )
    })
}

/// A program on the `PATH`. Relative folders in the `PATH` are passed over: a program that
/// is handed a password must not come from wherever we happen to be.
pub(super) fn which(name: &OsStr) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|p| p.is_file());
    }
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn log_in(ctx: &Context, session: &Session, server: &str, username: &str, password: &str) -> Result<()> {
    let program = client()?;
    ctx.talk.detail(format_args!("{} login --username {username} --password-stdin {server}", program.display()));
    let cannot = |e: std::io::Error| Failure::new(format!("cannot run {}: {e}", program.display()));
    let mut child = Command::new(&program)
        .args(["login", "--username", username, "--password-stdin", server])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A client that ends without reading says why on its stderr.
        let _ = stdin.write_all(password.as_bytes());
    }
    let output = child.wait_with_output().map_err(cannot)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !said.trim().is_empty() {
        ctx.talk.say(said.trim_end());
    }
    if output.status.success() {
        return Ok(());
    }
    let failure = Failure::new(format!("Login failed: {} did not log in to {server}", program.display()));
    if said.contains("x509") || said.contains("certificate") {
        return Err(certificate_hint(failure, session, &program, server));
    }
    Err(failure)
}

/// How to make the client trust the server's own CA.
fn certificate_hint(failure: Failure, session: &Session, program: &std::path::Path, server: &str) -> Failure {
    let Some(pem) = &session.profile().ca_pem else {
        return failure;
    };
    let Ok(file) = session.config().write("ca.pem", pem.as_bytes()) else {
        return failure;
    };
    let podman = program.file_name().is_some_and(|n| n.to_string_lossy().contains("podman"));
    let dir = if podman { "$HOME/.config/containers/certs.d" } else { "/etc/docker/certs.d" };
    failure.hint(format!(
        "make it trust the server's CA: mkdir -p {dir}/{server} && cp {} {dir}/{server}/ca.crt",
        file.display()
    ))
}
