//! One binary: the server (`portolan serve`), more machines for its builds (`portolan worker`), what is done to its store while it is down
//! (`portolan check`, `portolan migrate`), the process of a build step (`portolan build-run`,
//! started by the server only) and the command line (everything else).

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use portolan_server::maintenance;

/// A self-hosted container registry that speaks Azure Container Registry's language and
/// builds images itself.
///
/// The commands and their flags are those of the Azure CLI: with `alias az=portolan`, what
/// is written for `az acr` runs as it is.
#[derive(Debug, Parser)]
#[command(
    name = "portolan",
    version,
    propagate_version = false,
    infer_long_args = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    after_help = "First steps:
  portolan serve                                     start a server; its data goes to ./data
  portolan login --bootstrap data/bootstrap.json     sign in to it as its owner
  portolan group create -n rg -l local               make a resource group
  portolan acr create -g rg -n myreg --sku Basic     make a registry
  portolan acr build -r myreg -t app:v1 .            build an image, without docker"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(portolan_server::ServeArgs),
    /// Carry out builds of servers that share a database and a bucket, on this machine.
    Worker(portolan_server::WorkerArgs),
    /// Check the store of a server that is not running, and repair it.
    Check(maintenance::CheckArgs),
    /// Move a registry to another database or blob store.
    Migrate(maintenance::MigrateArgs),
    /// Make one more owner of a store whose server is not running, when no secret is known.
    RecoverOwner(maintenance::RecoverOwnerArgs),
    #[command(flatten)]
    Client(Box<portolan_cli::Command>),
}

fn main() -> ExitCode {
    // Before anything else: the process of a build step must start fast, with one thread
    // and nothing opened.
    if std::env::args_os().nth(1).is_some_and(|first| first == "build-run") {
        return exit_code(portolan_builder::exec::step_main());
    }
    match Cli::parse().command {
        Command::Serve(args) => {
            rootless();
            ended(portolan_server::run(args))
        }
        Command::Worker(args) => {
            rootless();
            ended(portolan_server::run_worker(args))
        }
        Command::Check(args) => maintained(maintenance::check(&args)),
        Command::Migrate(args) => maintained(maintenance::migrate(&args)),
        Command::RecoverOwner(args) => maintained(maintenance::recover_owner(&args)),
        Command::Client(command) => exit_code(portolan_cli::run(*command)),
    }
}

/// Let a server of an unprivileged user build images. While there is one thread still.
fn rootless() {
    use portolan_builder::rootless::{Rootless, enter};
    match enter(&["/proc/self/exe".into(), "build-run".into()]) {
        Ok(None | Some(Rootless::Ids(_))) => {}
        Ok(Some(Rootless::OneId)) => eprintln!(
            "WARNING: this user has no subordinate ids: builds work only with images whose files all belong to root \
             (see /etc/subuid, /etc/subgid and newuidmap)"
        ),
        Err(reason) => eprintln!("WARNING: {reason}"),
    }
}

fn ended(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With every cause.
            eprintln!("ERROR: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn maintained(done: Result<u8, impl std::fmt::Display>) -> ExitCode {
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ERROR: {error:#}");
            ExitCode::from(maintenance::EXIT_FAILED)
        }
    }
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn long_options_may_be_cut_short_as_in_az() {
        assert!(Cli::try_parse_from(["portolan", "acr", "list", "--out", "table"]).is_ok());
    }

    #[test]
    fn typos_are_answered_with_a_suggestion() {
        let error = Cli::try_parse_from(["portolan", "acr", "biuld"]).unwrap_err().to_string();
        assert!(error.contains("'build'"), "{error}");
    }
}
