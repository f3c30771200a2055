//! PostgreSQL for tests: clusters of a test's own, gone when the test process is.
//!
//! [`database`] gives an empty database (a schema, which is as good and made in no time) in
//! the cluster that all tests of the process share; that one is fast and does not care for
//! power failures. [`Cluster::start`] makes a cluster for one test: to stop, to kill, to
//! fill.
//!
//! A cluster lives in a folder under `/tmp` and listens on a port of the loopback interface
//! and on a unix socket in the folder. A shell keeps watch over it: it reads a pipe that only
//! the test process has open, so that however that ends, the shell stops the cluster and
//! removes the folder.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// The superuser that tests connect as.
pub const USER: &str = "portolan";
/// What an empty password would not show: connections over TCP need it.
pub const PASSWORD: &str = "a test's password";

/// An empty database of a test's own in the shared cluster: its URL. What is in it goes with
/// the test process.
pub fn database() -> String {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(Durability::Fast)).database()
}

/// Whether a cluster waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fsync=off`: for tests about rules.
    Fast,
    /// As people run it: for tests about crashes and speed.
    Real,
}

/// A PostgreSQL cluster.
pub struct Cluster {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    durability: Durability,
    owner: Option<(u32, u32)>,
    databases: AtomicUsize,
    /// Holds the pipe that the shell reads.
    _watch: Child,
}

impl Cluster {
    /// Make a cluster and start it.
    pub fn start(durability: Durability) -> Cluster {
        let bin = bin();
        let owner = unprivileged();
        let folder = std::env::temp_dir().join(format!("portolan-pg-{}", unique()));
        std::fs::create_dir(&folder).expect("make a folder for PostgreSQL");
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("close the folder");
        if let Some((uid, gid)) = owner {
            chown(&folder, Some(uid), Some(gid)).expect("give the folder to PostgreSQL's user");
        }
        let script = format!(
            "trap '' INT TERM HUP; read -r _; '{bin}/pg_ctl' -D '{folder}/data' -m immediate -w stop >/dev/null 2>&1; \
             rm -rf '{folder}'",
            bin = bin.display(),
            folder = folder.display()
        );
        let mut watch = Command::new("/bin/sh");
        watch.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        watch.current_dir("/").process_group(0);
        if let Some((uid, gid)) = owner {
            watch.uid(uid).gid(gid);
        }
        let watch = watch.spawn().expect("start the shell that watches PostgreSQL");
        let port = free_port();
        let cluster = Cluster { bin, folder, port, durability, owner, databases: AtomicUsize::new(0), _watch: watch };

        let password = cluster.folder.join("password");
        std::fs::write(&password, PASSWORD).expect("write a password");
        if let Some((uid, gid)) = owner {
            chown(&password, Some(uid), Some(gid)).expect("give the password away");
        }
        let mut initdb = cluster.tool("initdb");
        initdb.args(["--username", USER, "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions"]);
        initdb.args(["--auth-local", "trust", "--auth-host", "scram-sha-256", "--no-sync"]);
        initdb.arg("--pwfile").arg(&password).arg("-D").arg(cluster.data());
        run(initdb);
        cluster.resume();
        cluster
    }

    /// Start it again after [`Cluster::stop`] or [`Cluster::kill`].
    pub fn resume(&self) {
        let settings = match self.durability {
            Durability::Fast => "-c fsync=off -c synchronous_commit=off -c full_page_writes=off",
            Durability::Real => "",
        };
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c max_connections=500 \
             -c shared_buffers=32MB -c autovacuum_naptime=10s {settings}",
            self.port,
            self.folder.display(),
        );
        let mut start = self.tool("pg_ctl");
        start.arg("-D").arg(self.data()).arg("-l").arg(self.folder.join("log")).args(["-w", "-o", &options, "start"]);
        run(start);
    }

    /// Stop it as an operator does: connections are ended, everything is written.
    pub fn stop(&self) {
        self.stop_by("fast");
    }

    /// Stop it as a crash does: it recovers from its log when it is resumed.
    pub fn kill(&self) {
        self.stop_by("immediate");
    }

    fn stop_by(&self, mode: &str) {
        let mut stop = self.tool("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-m", mode, "-w", "stop"]);
        run(stop);
    }

    /// An empty database: its URL, over the unix socket, without a password.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE SCHEMA {name}"));
        self.url(&format!("options=-csearch_path%3D{name}"))
    }

    /// The URL of the database `postgres` over the unix socket, with `query` behind the `?`.
    pub fn url(&self, query: &str) -> String {
        let socket = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{socket}:{}/postgres?{query}", self.port)
    }

    /// The same over TCP, where [`PASSWORD`] is asked for.
    pub fn tcp_url(&self, query: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres?{query}", self.port)
    }

    /// Its port of the loopback interface.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with its data.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Write a file that only the server can read into its data folder.
    pub fn put(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        std::fs::write(&path, text).expect("write a file for PostgreSQL");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("close the file");
        if let Some((uid, gid)) = self.owner {
            chown(&path, Some(uid), Some(gid)).expect("give the file to PostgreSQL's user");
        }
    }

    /// What the server wrote into its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Run a statement as the superuser; what `psql -At` prints.
    pub fn sql(&self, sql: &str) -> String {
        let mut psql = self.tool("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", "postgres", "-c", sql]);
        psql.arg("-h").arg(&self.folder).args(["-p", &self.port.to_string()]);
        run(psql)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir("/").stdin(Stdio::null()).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Run to its end; what it printed. A server it leaves behind may keep its output open, so
/// that goes to a file.
fn run(mut command: Command) -> String {
    let mut out = tempfile();
    let file = |f: &std::fs::File| Stdio::from(f.try_clone().expect("share a file"));
    let status = command.stdout(file(&out)).stderr(file(&out)).status();
    let status = status.unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let mut text = String::new();
    std::io::Seek::rewind(&mut out).expect("go to the beginning");
    out.read_to_string(&mut text).expect("read what it printed");
    assert!(status.success(), "{command:?}: {status}\n{text}");
    text.trim_end().to_owned()
}

/// A file without a name.
fn tempfile() -> std::fs::File {
    let path = std::env::temp_dir().join(format!("portolan-out-{}", unique()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).expect("make a file");
    std::fs::remove_file(&path).expect("take its name away");
    file
}

fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    format!("{}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed), now.as_nanos())
}

/// A port that was free a moment ago, and that no outgoing connection takes while the
/// cluster is stopped: below those that the kernel gives out.
fn free_port() -> u16 {
    static TRIED: AtomicUsize = AtomicUsize::new(0);
    let first = usize::try_from(std::process::id()).expect("a process id is a number") * 7;
    for _ in 0..10_000 {
        let port = 20_000 + (first + TRIED.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let port = u16::try_from(port).expect("it is below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("there is no free port");
}

/// Where PostgreSQL's programs are: Debian keeps them out of the `PATH`.
fn bin() -> PathBuf {
    let mut found = Vec::new();
    for version in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let number = version.file_name().to_string_lossy().parse::<u32>().unwrap_or(0);
        found.push((number, version.path().join("bin")));
    }
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let newest_first = found.into_iter().rev().map(|(_, bin)| bin);
    newest_first
        .chain(std::env::split_paths(&path))
        .find(|bin| ["initdb", "pg_ctl", "postgres", "psql"].iter().all(|tool| bin.join(tool).exists()))
        .expect("the tests need PostgreSQL 15 or newer: apt-get install postgresql")
}

/// Whom PostgreSQL is run as when the tests are root's: it refuses root.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("there is a user postgres or nobody"))
}

/// What makes a test binary run its tests on PostgreSQL: set by [`again`], or by hand for a
/// single test (`PORTOLAN_TEST_DATABASE=postgres cargo test …`).
const CHOICE: &str = "PORTOLAN_TEST_DATABASE";

/// The URL of the database for what a test would otherwise keep in SQLite at `path`; the
/// same for the same path. `None` when this run is on SQLite.
pub fn chosen_for(path: &Path) -> Option<String> {
    static URLS: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());
    is_chosen().then(|| {
        let mut urls = URLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        urls.entry(path.to_owned()).or_insert_with(database).clone()
    })
}

/// Whether this run is on PostgreSQL.
pub fn is_chosen() -> bool {
    std::env::var_os(CHOICE).is_some_and(|choice| choice == "postgres")
}

/// Run the tests of this test binary again, on PostgreSQL: those whose names have one of
/// `filters` in them (none: all), without those that have one of `skip`. To be called by a test
/// whose own name has `on_postgres` in it.
pub fn again(filters: &[&str], skip: &[&str]) {
    if is_chosen() {
        return;
    }
    let mut tests = Command::new(std::env::current_exe().expect("find this test binary"));
    tests.args(filters).args(["--skip", "on_postgres"]);
    for name in skip {
        tests.args(["--skip", name]);
    }
    let printed = run({
        tests.env(CHOICE, "postgres").env_remove("RUST_BACKTRACE");
        tests
    });
    let summary = printed.lines().rev().find(|line| line.starts_with("test result:")).unwrap_or_default();
    assert!(summary.contains(" passed") && !summary.contains(" 0 passed"), "no test was run: {printed}");
    println!("on PostgreSQL: {summary}");
}
