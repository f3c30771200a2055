//! The command line: az's grammar, errors and output, over [`portolan_api`].
//!
//! Life of a command: the arguments say what ([`commands`]), the profile says where
//! ([`profile`]), a [`session`] makes clients of both, the command asks and answers an
//! [`output::Output`], which is printed. Data goes to stdout, everything said to people to
//! stderr ([`talk`]); a failure is one line, perhaps a hint, and an exit code ([`error`]).
//!
//! *Architecture invariant:* no HTTP here; requests are `portolan_api`'s.

mod args;
mod commands;
mod context;
mod error;
mod image;
mod log;
mod output;
mod profile;
mod session;
mod talk;
#[cfg(test)]
mod tests;

pub use args::Global;
pub use commands::Command;
use commands::Context;
use error::Failure;
use talk::Talk;

/// Run a command to its end. Answers the process's exit code.
pub fn run(command: Command) -> i32 {
    let global = command.global().clone();
    let talk = Talk::new(&global);
    start_log(&global);
    let context = Context { global: global.clone(), talk };
    // One thread: a command waits for one answer at a time, and a pool would take longer to
    // start than most commands run.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            talk.failure(&Failure::new(format!("cannot start: {error}")));
            return error::EXIT_FAILED;
        }
    };
    let printed = runtime.block_on(command.run(&context)).and_then(|output| output.print(&global, talk.color_out));
    // A thread that still packs, or a name that is still looked up, is not waited for.
    runtime.shutdown_background();
    match printed {
        Ok(()) => 0,
        Err(failure) => {
            talk.failure(&failure);
            failure.exit
        }
    }
}

/// `--debug` shows what the libraries trace, `--verbose` our own part of it.
fn start_log(global: &Global) {
    let filter = match (global.debug, global.verbose) {
        (true, _) => "debug",
        (false, true) => "portolan=info",
        (false, false) => return,
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .try_init();
}
