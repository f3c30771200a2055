//! `portolan worker`: another machine for builds.
//!
//! A worker takes runs from the queue of servers that share a PostgreSQL database and a bucket,
//! and carries them out as a server does: the same runner, with a state folder of its own.
//! It serves no clients. Where `metrics_listen` is set it answers `/healthz`, `/readyz` and
//! `/metrics`. SIGTERM: it takes no more runs, those under way finish within
//! `drain_timeout_secs`, and what is left goes back into the queue. When it is killed, its
//! leases run out, and another begins its runs anew (`portolan_tasks`).

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use portolan_auth::Authority;
use portolan_service::check_master_key;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::drain::{Drain, Phase};
use crate::http::memory::Memory;
use crate::http::ops::Metrics;
use crate::http::rate::Rates;
use crate::issuers::Issuers;
use crate::listen::{self, Listener, Peers};
use crate::server::{self, Core};
use crate::settings::{ServeArgs, Settings};
use crate::sink::{LogTarget, Sink};
use crate::{bootstrap, files, maintenance};

/// The flags of `portolan worker`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WorkerArgs {
    /// Settings file (TOML), the servers' own will do; also PORTOLAN_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of this worker's own, with the servers' master.key in it [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// What logs of builds call this worker [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

impl From<WorkerArgs> for (ServeArgs, Option<String>) {
    fn from(args: WorkerArgs) -> (ServeArgs, Option<String>) {
        let WorkerArgs { config, data, name } = args;
        (ServeArgs { config, data, ..ServeArgs::default() }, name)
    }
}

/// A worker that takes runs.
pub(crate) struct RunningWorker {
    app: Arc<App>,
    ops: Option<(SocketAddr, JoinHandle<usize>)>,
    keeping_up: JoinHandle<()>,
    _lock: File,
}

/// Why settings do for a server and not for a worker; checked before anything is opened.
fn check(settings: &Settings) -> anyhow::Result<()> {
    if settings.database.is_none() {
        bail!(
            "a worker takes its builds from a database that it shares with servers, and the embedded one belongs to \
             a single server; hint: set `database` to the PostgreSQL that the servers use, or raise \
             build_parallel_max of the server"
        );
    }
    if settings.blobs.is_none() {
        bail!(
            "a worker reads and writes the servers' blobs, and those in a data folder belong to a single machine; \
             hint: set `blobs` to the bucket that the servers use"
        );
    }
    Ok(())
}

/// Where the servers listen, as this machine sees it: steps that ask for their registry by its
/// name are let through to there.
async fn address_of(public: &str) -> Option<SocketAddr> {
    let with_port = match public.contains(':') {
        true => public.to_owned(),
        false => format!("{public}:443"),
    };
    let mut found = tokio::net::lookup_host(with_port).await.ok()?;
    found.next()
}

/// Start a worker; it takes runs when this returns.
pub(crate) async fn start(settings: Settings) -> anyhow::Result<RunningWorker> {
    let mut settings = settings;
    check(&settings)?;
    files::private_dir(&settings.data).with_context(|| format!("make the data folder {}", settings.data.display()))?;
    settings.data = std::fs::canonicalize(&settings.data)
        .with_context(|| format!("find the data folder {}", settings.data.display()))?;
    let lock = server::lock(&settings.data).await?;
    let ops = match settings.metrics_listen {
        Some(addr) => {
            let tcp = listen::bind(addr).with_context(|| format!("listen on {addr} (setting metrics_listen)"))?;
            let addr = tcp.local_addr().context("ask for the address listened on")?;
            Some((tcp, addr))
        }
        None => None,
    };
    let metrics_token = settings.metrics_token_file.as_deref().map(server::token_of).transpose()?;

    let Some(master) = bootstrap::read_master_key(&settings.data, settings.master_key_file.as_deref())? else {
        bail!(
            "a worker needs the servers' master key; hint: copy master.key from a server's data folder to {}, or \
             name it in the setting master_key_file",
            settings.data.display()
        );
    };
    let meta = server::open_meta(&settings, &settings.data.join("portolan.db")).await?;
    maintenance::refuse_moved(&meta).await?;
    if !portolan_service::has_master_key(&meta).await.context("ask the database for its master key")? {
        bail!("no server has used this database yet; hint: start one first, it makes what a first start needs");
    }
    let authority = Arc::new(Authority::new(master));
    check_master_key(&meta, &authority).await.map_err(server::hinted)?;
    let public = server::public_authority(&settings, settings.listen);
    let Core { service, tasks, blob_stats } =
        server::open_core(&settings, meta, authority, settings.listen, None).await?;
    let at = address_of(&public).await.unwrap_or(settings.listen);
    let builds = server::open_builds(&settings, &service, &public, at).await?;
    let app = Arc::new(App {
        rates: Rates::new(&settings),
        provider: None,
        issuers: Issuers::new(settings.federation_ca_file.as_deref())?,
        memory: Memory::new(settings.body_memory_bytes_max.0),
        relays: builds.relays(),
        stock: None,
        service,
        tasks,
        blob_stats,
        metrics_token,
        access: Sink::open("access", &LogTarget::None).context("open no access log")?,
        audit: Sink::open("audit", &LogTarget::None).context("open no audit log")?,
        settings: Arc::new(settings),
        url: format!("https://{public}"),
        drain: Drain::new(),
        metrics: Arc::new(Metrics::new()),
    });
    let keeping_up = tokio::spawn({
        let app = app.clone();
        async move { app.service.keep_up(|text| app.tasks.heard(text)).await }
    });
    app.tasks.start_workers(server::slots(&app.settings), Arc::new(builds));
    app.drain.advance(Phase::Serving);
    let ops = ops.map(|(tcp, addr)| {
        let listener = Listener {
            tcp,
            tls: None,
            permits: Arc::new(Semaphore::new(listen::OPS_CONNECTIONS_MAX)),
            peers: Arc::new(Peers::new(0)),
            ops_only: true,
        };
        (addr, tokio::spawn(listener.serve(app.clone())))
    });
    tracing::info!(name = server::worker_name(&app.settings), data = %app.settings.data.display(), "worker ready");
    Ok(RunningWorker { app, ops, keeping_up, _lock: lock })
}

impl RunningWorker {
    /// `portolan worker ready: NAME slots=2 (http://127.0.0.1:9090) data=/…`.
    fn ready_line(&self) -> String {
        let settings = &self.app.settings;
        let ops = self.ops.as_ref().map(|(addr, _)| format!(" (http://{addr})")).unwrap_or_default();
        let (name, slots) = (server::worker_name(settings), server::slots(settings));
        format!("portolan worker ready: {name} slots={slots}{ops} data={}", settings.data.display())
    }

    /// Finish what is under way within the drain limit, give the rest back, leave.
    async fn shutdown(self) -> anyhow::Result<()> {
        let RunningWorker { app, ops, keeping_up, _lock } = self;
        app.drain.advance(Phase::Draining);
        app.tasks.drain(app.settings.drain_timeout_secs.secs()).await;
        if let Some((_, listener)) = ops {
            listener.await.context("end the listener")?;
        }
        keeping_up.abort();
        if let Err(error) = app.service.leave().await {
            tracing::warn!(%error, "the servers will find out by themselves that this worker is gone");
        }
        app.service.meta.close().await;
        tracing::info!("closed");
        Ok(())
    }
}

/// Work until told to stop.
pub(crate) async fn work(settings: Settings) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("listen for signals");
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let running = tokio::select! {
        running = start(settings) => running?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    // The one line that scripts wait for. Nobody reading it is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{}", running.ready_line());
    let _ = std::io::stdout().flush();
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("told to stop; finishing the builds under way");
    tokio::select! {
        result = running.shutdown() => result,
        _ = term.recv() => crate::now(),
        _ = int.recv() => crate::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_embedded_is_not_for_workers() {
        let mut settings = Settings::defaults().unwrap();
        let why = |settings: &Settings| check(settings).unwrap_err().to_string();
        assert!(why(&settings).contains("the embedded one belongs to a single server"), "{}", why(&settings));
        settings.database = Some(crate::settings::Value::parse("postgres://localhost/x").unwrap());
        assert!(why(&settings).contains("belong to a single machine"), "{}", why(&settings));
        settings.blobs = Some(crate::settings::Value::parse("s3://bucket").unwrap());
        check(&settings).unwrap();
    }
}
