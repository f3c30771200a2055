//! The server: the HTTP edge over the rules, and the wiring of everything.
//!
//! [`run`] is `portolan serve`. It reads the settings, locks the data folder, opens the
//! listeners, the store and the rules, makes what a first start needs (master key, CA,
//! bootstrap credentials), says one line on standard output and serves until it is told
//! to stop; then it drains and closes the store. [`Server`] is the same without a process
//! around it, for tests.
//!
//! *Architecture invariant:* the only crate that speaks HTTP to clients; every rule is in
//! `portolan_service` or `portolan_tasks`.

pub mod app;
pub mod drain;
pub mod http;
pub mod settings;

pub use app::App;
pub use settings::{ServeArgs, Settings};

/// `portolan serve`: runs until the server is told to stop.
///
/// Errors: settings that cannot be used, an address that is taken, a data folder that is
/// in use or was written by a newer version.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    if args.print_settings_reference {
        print!("{}", settings::reference());
        return Ok(());
    }
    Err(anyhow::anyhow!("not wired yet"))
}
