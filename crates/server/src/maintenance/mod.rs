//! Commands for whoever runs a store: `portolan check`, `migrate` and `recover-owner`.
//!
//! They open a store as a server does, with the same settings, and work on it while no
//! server has it (what runs beside one is said where it is asked for).

mod check;
mod migrate;
mod open;
mod owner;
mod progress;

pub use check::{CheckArgs, check};
pub use migrate::{MigrateArgs, migrate};
pub(crate) use open::refuse_moved;
pub use owner::{RecoverOwnerArgs, recover_owner};

/// How a command says what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Text for people.
    Table,
    /// One JSON document.
    Json,
}

/// The exit code of a command that could not do its work.
pub const EXIT_FAILED: u8 = 3;

fn print(text: &str) {
    use std::io::Write as _;
    // A reader that went away has what it wanted.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// Run a command on a runtime of its own, and log nothing but warnings.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    use anyhow::Context as _;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("portolan")
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}
