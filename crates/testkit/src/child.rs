//! `portolan serve` as a child process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout, Command};

use crate::Site;

/// How long a server may take to be ready, or to end.
const WAIT_SECS_MAX: u64 = 60;

/// A running child; killed when dropped.
pub struct Child {
    process: tokio::process::Child,
    stdout: BufReader<ChildStdout>,
    log: tokio::task::JoinHandle<String>,
    /// The line it printed when it was ready.
    pub ready: String,
    /// Its data folder.
    pub data: PathBuf,
}

/// The binary under test: `PORTOLAN_BIN`, or the one of this workspace, built (once) by the
/// cargo that runs the test, so that it is there and never an old one.
pub fn binary() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os("PORTOLAN_BIN") {
        return Ok(PathBuf::from(path));
    }
    BUILT.get_or_init(|| build().map_err(|why| format!("{why:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = std::process::Command::new(cargo)
        .args(["build", "--quiet", "--package", "portolan", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .stdin(Stdio::null())
        .output()
        .context("run cargo")?;
    if !built.status.success() {
        bail!("cargo build -p portolan: {}", String::from_utf8_lossy(&built.stderr));
    }
    // target/debug/deps/it-… → target/debug/portolan
    let test = std::env::current_exe().context("find this test")?;
    let path = test.parent().and_then(Path::parent).map(|dir| dir.join("portolan")).unwrap_or_default();
    if !path.exists() {
        bail!("{} is not there: set PORTOLAN_BIN", path.display());
    }
    Ok(path)
}

impl Child {
    /// Start a server on `data`, on free ports, with more arguments, and wait for its line.
    /// One that ends before is an error with what it logged.
    pub async fn start(data: &Path, more: &[&str]) -> anyhow::Result<Child> {
        Child::of(&["serve", "--listen", "127.0.0.1:0"], data, more).await
    }

    /// Start a worker on `data`, as [`Child::start`] does a server.
    pub async fn start_worker(data: &Path, more: &[&str]) -> anyhow::Result<Child> {
        Child::of(&["worker"], data, more).await
    }

    async fn of(command: &[&str], data: &Path, more: &[&str]) -> anyhow::Result<Child> {
        let mut args: Vec<OsString> = command.iter().map(OsString::from).collect();
        args.extend(["--data".into(), data.into()]);
        args.extend(more.iter().map(OsString::from));
        let mut process = Command::new(binary()?)
            .args(&args)
            .env("PORTOLAN_LOG_FORMAT", "text")
            .envs(crate::bucket::chosen_for(data).map(|bucket| bucket.env()).unwrap_or_default())
            .envs(crate::postgres::chosen_for(data).map(|url| ("PORTOLAN_DATABASE", url)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the server")?;
        let stdout = process.stdout.take().context("take its output")?;
        let stderr = process.stderr.take().context("take its log")?;
        let log = tokio::spawn(collect(stderr));
        let mut stdout = BufReader::new(stdout);
        let mut ready = String::new();
        let line = tokio::time::timeout(Duration::from_secs(WAIT_SECS_MAX), stdout.read_line(&mut ready)).await;
        if !matches!(line, Ok(Ok(n)) if n > 0) {
            let _ = process.start_kill();
            let status = process.wait().await.context("wait for the server")?;
            bail!("the server did not get ready ({status}):\n{}", log.await.unwrap_or_default());
        }
        Ok(Child { process, stdout, log, ready: ready.trim_end().to_owned(), data: data.to_owned() })
    }

    /// A client for it.
    pub fn site(&self) -> anyhow::Result<Site> {
        let mut site = Site::open(&self.data.join("bootstrap.json"))?;
        site.http_url = self.ready.split_once('(').and_then(|(_, rest)| Some(rest.split_once(')')?.0.to_owned()));
        Ok(site)
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Send a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let pid =
            self.pid().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())).context("it has ended")?;
        rustix::process::kill_process(pid, signal).context("send a signal")
    }

    /// `kill -9`, and wait until it is gone.
    pub async fn kill9(mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("kill the server")
    }

    /// Wait for its end: the exit code (`None` when a signal ended it), what else it
    /// printed, and its log.
    pub async fn wait(mut self) -> anyhow::Result<(Option<i32>, String, String)> {
        let waiting = tokio::time::timeout(Duration::from_secs(WAIT_SECS_MAX), self.process.wait());
        let status = waiting.await.context("the server does not end")?.context("wait for the server")?;
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).await.context("read its output")?;
        Ok((status.code(), rest, self.log.await.unwrap_or_default()))
    }

    /// SIGTERM, and [`Child::wait`].
    pub async fn terminate(self) -> anyhow::Result<(Option<i32>, String, String)> {
        self.signal(rustix::process::Signal::TERM)?;
        self.wait().await
    }
}

async fn collect(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    let _ = stderr.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
