//! `portolan azure-cli setup`: point a real `az` at this server.
//!
//! What az needs: a cloud whose endpoints are ours, no question to the public cloud about
//! our authority (`core.instance_discovery=false`), a CA bundle that holds our CA beside
//! the public ones, and a sign-in. It goes into a profile of its own, unless the user's is
//! asked for, so that nothing of the user's own Azure is touched.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};

use super::Context;
use super::docker::which;
use super::login::sign_in;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::profile::{Bootstrap, ConfigDir, Identity, Profile, Who};

/// `portolan azure-cli …`
#[derive(Debug, Args)]
pub struct AzureCliArgs {
    #[command(subcommand)]
    command: AzureCliCommand,
}

#[derive(Debug, Subcommand)]
enum AzureCliCommand {
    /// Point az at this server and sign it in; prints the exports to use.
    #[command(after_help = "Example:
  eval \"$(portolan azure-cli setup --bootstrap data/bootstrap.json)\"
  az acr list -o table")]
    Setup(SetupArgs),
}

/// `portolan azure-cli setup`
#[derive(Debug, Args)]
struct SetupArgs {
    /// The server's bootstrap.json; who is signed in here when not given.
    #[arg(long, value_name = "FILE")]
    bootstrap: Option<PathBuf>,
    /// The az to use; the first on the PATH when not given.
    #[arg(long, value_name = "PROGRAM")]
    az: Option<PathBuf>,
    /// The name the server gets among az's clouds.
    #[arg(long, value_name = "NAME", default_value = "Portolan")]
    cloud: String,
    /// Change the user's own az profile in place of one kept apart.
    #[arg(long)]
    user_profile: bool,
}

pub(super) async fn run(ctx: &Context, args: AzureCliArgs) -> Result<Output> {
    let AzureCliCommand::Setup(args) = args.command;
    let az = match &args.az {
        Some(az) => which(az.as_os_str()),
        None => which(OsStr::new("az")),
    };
    let az = az.ok_or_else(|| {
        Failure::new("The Azure CLI, az, is not installed here.")
            .hint("install it with `pip install azure-cli`, or name it with --az")
    })?;
    let config = ConfigDir::find()?;
    let profile = match &args.bootstrap {
        Some(file) => {
            let (bootstrap, ca_pem) = Bootstrap::read(file)?;
            bootstrap.into_profile(ca_pem)
        }
        None => config.profile()?.ok_or_else(|| {
            Failure::usage("nobody is signed in here: give --bootstrap FILE, or sign in with `portolan login`")
        })?,
    };
    if !profile.server.starts_with("https://") {
        return Err(Failure::new(format!("az signs in over TLS only, and the server is {}", profile.server))
            .hint("use the server's https address"));
    }
    // Our own sign-in first: its errors are clearer than az's.
    let (profile, _) = sign_in(ctx, profile, true).await?;
    let bundle = match &profile.ca_pem {
        Some(pem) => Some(config.write("azure-ca-bundle.pem", bundle(pem).as_bytes())?),
        None => None,
    };
    let azure_dir = match args.user_profile {
        true => None,
        false => Some(config.path().join("azure")),
    };
    // `@file`: az reads the value from the file, and the secret stays off the process list.
    let secret = match &profile.who {
        Who::Secret { client_secret: secret, .. } | Who::Federated { federated_token: secret, .. } => {
            Some(config.write("azure-secret", secret.expose().as_bytes())?)
        }
        _ => None,
    };
    let az = Az { ctx, program: &az, bundle: bundle.as_deref(), azure_dir: azure_dir.as_deref() };
    let done = az.set_up(&args.cloud, &profile, secret.as_deref());
    if let Some(secret) = &secret {
        let _ = std::fs::remove_file(secret);
    }
    done?;
    if let Some(bundle) = &bundle {
        println!("export REQUESTS_CA_BUNDLE={}", quoted(bundle));
    }
    if let Some(dir) = &azure_dir {
        println!("export AZURE_CONFIG_DIR={}", quoted(dir));
    }
    ctx.talk.say(format_args!(
        "az is signed in to {} as cloud {}. In a new shell, use the exports above first.",
        profile.server, args.cloud
    ));
    Ok(Output::none())
}

struct Az<'a> {
    ctx: &'a Context,
    program: &'a Path,
    bundle: Option<&'a Path>,
    azure_dir: Option<&'a Path>,
}

impl Az<'_> {
    fn set_up(&self, cloud: &str, profile: &Profile, secret: Option<&Path>) -> Result<()> {
        self.must(&[
            "config",
            "set",
            "core.instance_discovery=false",
            "core.collect_telemetry=no",
            "--only-show-errors",
        ])?;
        // A cloud registered before may hold another server's endpoints.
        if self.run(&["cloud", "show", "--name", cloud, "--output", "none"]).is_ok_and(|o| o.status.success()) {
            self.must(&["cloud", "set", "--name", "AzureCloud", "--output", "none"])?;
            self.must(&["cloud", "unregister", "--name", cloud])?;
        }
        self.must(&["cloud", "register", "--name", cloud, "--endpoint-resource-manager", &profile.server])?;
        self.must(&["cloud", "set", "--name", cloud, "--output", "none"])?;
        self.forget_discovery();
        let secret = secret.map(|s| format!("@{}", s.display())).unwrap_or_default();
        let mut login = vec!["login", "--allow-no-subscriptions", "--output", "none"];
        let certificate;
        match &profile.who {
            Who::Secret { client_id, .. } => {
                login.extend(["--service-principal", "--username", client_id, "--password", &secret]);
            }
            Who::Federated { client_id, .. } => {
                login.extend(["--service-principal", "--username", client_id, "--federated-token", &secret]);
            }
            Who::Certificate { client_id, certificate: file } => {
                certificate = file.display().to_string();
                login.extend(["--service-principal", "--username", client_id, "--certificate", &certificate]);
            }
            // A person proves it to az as to anybody: in a browser.
            Who::User { .. } => login.push("--use-device-code"),
            Who::Managed { managed_identity } => {
                login.push("--identity");
                match managed_identity {
                    Identity::Only => {}
                    Identity::ClientId(id) => login.extend(["--client-id", id]),
                    Identity::ObjectId(id) => login.extend(["--object-id", id]),
                    Identity::ResourceId(id) => login.extend(["--resource-id", id]),
                }
                return self.must(&login);
            }
        }
        login.extend(["--tenant", &profile.tenant_id]);
        match &profile.who {
            Who::User { .. } => self.shown(&login),
            _ => self.must(&login),
        }
    }

    /// Run az with what it says for all to see.
    fn shown(&self, args: &[&str]) -> Result<()> {
        let status = self.command(args).stdout(Stdio::null()).status();
        match status.map_err(|e| Failure::new(format!("cannot run {}: {e}", self.program.display())))?.success() {
            true => Ok(()),
            false => Err(Failure::new("az login failed")),
        }
    }

    /// az keeps what it learned of an authority on disk, for good.
    fn forget_discovery(&self) {
        let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".azure"));
        let dir = self.azure_dir.map(Path::to_owned).or_else(|| {
            std::env::var_os("AZURE_CONFIG_DIR").filter(|d| !d.is_empty()).map(PathBuf::from).or_else(home)
        });
        if let Some(dir) = dir {
            let _ = std::fs::remove_file(dir.join("msal_http_cache.bin"));
        }
    }

    fn run(&self, args: &[&str]) -> Result<std::process::Output> {
        let done = self.command(args).output();
        done.map_err(|e| Failure::new(format!("cannot run {}: {e}", self.program.display())))
    }

    fn command(&self, args: &[&str]) -> Command {
        self.ctx.talk.detail(format_args!("az {}", args.join(" ")));
        let mut command = Command::new(self.program);
        command.args(args).stdin(Stdio::null());
        if let Some(bundle) = self.bundle {
            command.env("REQUESTS_CA_BUNDLE", bundle);
        }
        if let Some(dir) = self.azure_dir {
            command.env("AZURE_CONFIG_DIR", dir);
        }
        command
    }

    fn must(&self, args: &[&str]) -> Result<()> {
        let output = self.run(args)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let doing = args.iter().take_while(|a| !a.starts_with('-')).copied().collect::<Vec<_>>().join(" ");
        Err(Failure::new(format!("az {doing} failed: {}", said.trim())))
    }
}

/// The system's certificates and ours: az takes one file in place of the public CAs.
fn bundle(own: &str) -> String {
    let places = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = named.into_iter().chain(places.map(PathBuf::from)).find_map(|p| std::fs::read_to_string(p).ok());
    let mut all = system.unwrap_or_default();
    if !all.is_empty() && !all.ends_with('\n') {
        all.push('\n');
    }
    all.push_str(own);
    all
}

/// For a POSIX shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_survive_any_path() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
        assert!(bundle("OWN").ends_with("OWN"));
    }
}
