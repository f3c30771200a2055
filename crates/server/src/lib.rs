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
mod background;
pub mod bootstrap;
pub mod build;
pub mod drain;
mod files;
pub mod http;
mod issuers;
mod listen;
pub mod maintenance;
pub mod otel;
mod pace;
mod seal;
mod sendfile;
pub mod server;
pub mod settings;
mod sign_in;
pub mod sink;
mod storage;
mod telemetry;
mod tls;
mod worker;

use std::io::Write;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

pub use app::App;
pub use server::{RunningServer, Server};
pub use settings::{ServeArgs, Settings};
pub use worker::WorkerArgs;

/// `portolan serve`: runs until the server is told to stop by SIGTERM or SIGINT, drains,
/// and returns. A second signal ends the process at once.
///
/// Errors: settings that cannot be used, an address that is taken, a data folder that is
/// in use or was written by a newer version.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    if args.print_settings_reference {
        print!("{}", settings::reference());
        return Ok(());
    }
    process(Settings::load(&settings::Sources::of_process(&args)?)?, serve)
}

/// `portolan worker`: carries out builds of servers elsewhere until it is told to stop, as
/// [`run`] does.
///
/// Errors: as [`run`], and settings that are for a single server.
pub fn run_worker(args: WorkerArgs) -> anyhow::Result<()> {
    let (args, name) = args.into();
    let mut sources = settings::Sources::of_process(&args)?;
    sources.flags.extend(name.map(|name| ("build_worker_name", name)));
    process(Settings::load(&sources)?, worker::work)
}

/// What every long-lived process of ours has around it.
fn process<W: Future<Output = anyhow::Result<()>>>(
    (settings, warnings): (Settings, Vec<String>),
    work: impl FnOnce(Settings) -> W,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("portolan")
        .build()
        .context("start the runtime")?;
    telemetry::init(&settings, runtime.handle())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    process_limits();
    let result = runtime.block_on(work(settings));
    // Needs the runtime, and waits for a few seconds at most.
    otel::shutdown();
    // What is left are blocking calls nobody waits for any more.
    runtime.shutdown_background();
    telemetry::flush();
    result
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("listen for signals");
    let (mut term, mut int, mut hup) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    let running = tokio::select! {
        running = Server::start(settings) => running?,
        // Told to stop before it was up: nothing is acknowledged yet.
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    // The one line that scripts wait for. Nobody reading it is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{}", running.ready_line());
    let _ = std::io::stdout().flush();
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => running.reload(),
        }
    }
    tracing::info!("told to stop; finishing what is in flight");
    tokio::select! {
        result = running.shutdown() => result,
        _ = term.recv() => now(),
        _ = int.recv() => now(),
    }
}

/// The second signal: everything acknowledged is on disk already.
fn now() -> ! {
    tracing::warn!("told to stop again; ending at once");
    telemetry::flush();
    std::process::exit(1)
}

/// Room for connections, and modes of new files that do not depend on who starts us: what
/// build steps write keeps the modes that images expect. Our own files are closed by the
/// data folder's mode and their own.
fn process_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
    let files = getrlimit(Resource::Nofile);
    if files.current < files.maximum
        && let Err(why) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })
    {
        tracing::warn!(%why, "raise the number of open files");
    }
    umask(rustix::fs::Mode::from_raw_mode(0o022));
}
