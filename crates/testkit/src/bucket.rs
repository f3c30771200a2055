//! Storage services for tests: servers that speak S3, Azure Blob Storage and Google Cloud
//! Storage, each on a port of the loopback interface and with a folder of its own.
//!
//! One server of a kind serves all tests of a process; [`bucket`] gives each a bucket of its
//! own. `scripts/test-tools` installs the servers; it is run when one is missing. A shell
//! keeps watch: it reads a pipe that only the test process has open, so that however that
//! ends, the shell stops the server and removes its folder.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a server may take to listen.
const WAIT_SECS_MAX: u64 = 60;
/// Azurite's well-known account.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const S3_ACCOUNT: &str = "portolan-tests";
const S3_SECRET: &str = "a secret for tests only";

/// A service to keep blobs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// versitygw: conditional writes, multipart, copies of ranges, signed URLs.
    S3,
    /// azurite, of Microsoft: everything of it that is needed.
    Azure,
    /// Google's XML API, translated (`gcs.js`) for versitygw: the test servers for GCS that
    /// there are know the JSON API only.
    Gcs,
}

/// A bucket of a test's own, empty, and how to get in. The fields are those of the settings
/// `blobs` and `blob_…`.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// `s3://…`
    pub url: String,
    /// `http://127.0.0.1:…`
    pub endpoint: String,
    /// Access key id, or storage account.
    pub account: Option<String>,
    /// Secret access key, or account's key.
    pub secret: Option<String>,
    /// A service account's key.
    pub credentials_file: Option<PathBuf>,
}

impl Bucket {
    /// As settings in the environment of a server.
    pub fn env(&self) -> Vec<(String, String)> {
        let file = self.credentials_file.as_ref().map(|path| path.display().to_string());
        let all = [
            ("BLOBS", Some(self.url.clone())),
            ("BLOB_ENDPOINT", Some(self.endpoint.clone())),
            ("BLOB_ACCOUNT", self.account.clone()),
            ("BLOB_SECRET", self.secret.clone()),
            ("BLOB_CREDENTIALS_FILE", file),
        ];
        all.into_iter().filter_map(|(name, value)| Some((format!("PORTOLAN_{name}"), value?))).collect()
    }
}

/// A new bucket in the shared server of its kind.
pub fn bucket(service: Service) -> Bucket {
    static SERVERS: [OnceLock<Server>; 3] = [const { OnceLock::new() }; 3];
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let server = SERVERS[service as usize].get_or_init(|| Server::start(service));
    server.bucket(&format!("bucket{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// What makes a test binary keep blobs in buckets: set by [`again`], or by hand for a single
/// test (`PORTOLAN_TEST_BLOBS=s3 cargo test …`, or `azure`, `gcs`).
const CHOICE: &str = "PORTOLAN_TEST_BLOBS";

impl Service {
    const ALL: [Service; 3] = [Service::S3, Service::Azure, Service::Gcs];

    fn name(self) -> &'static str {
        match self {
            Service::S3 => "s3",
            Service::Azure => "azure",
            Service::Gcs => "gcs",
        }
    }
}

/// The bucket for what a test would otherwise keep in the folder `data`; the same for the
/// same folder. `None` when this run keeps blobs on disk.
pub fn chosen_for(data: &Path) -> Option<Bucket> {
    static BUCKETS: Mutex<BTreeMap<PathBuf, Bucket>> = Mutex::new(BTreeMap::new());
    let choice = std::env::var(CHOICE).ok()?;
    let service = Service::ALL.into_iter().find(|service| service.name() == choice)?;
    let mut buckets = BUCKETS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Some(buckets.entry(data.to_owned()).or_insert_with(|| bucket(service)).clone())
}

/// Run the tests of this test binary again, with blobs in buckets: those whose names have one
/// of `filters` in them, without those that have one of `skip`.
pub fn again(service: Service, filters: &[&str], skip: &[&str]) {
    let mut tests = Command::new(std::env::current_exe().expect("find this test binary"));
    tests.args(filters);
    for name in skip {
        tests.args(["--skip", name]);
    }
    let done = tests.env(CHOICE, service.name()).env_remove("RUST_BACKTRACE").output().expect("run the tests again");
    let printed = String::from_utf8_lossy(&done.stdout);
    let summary = printed.lines().rev().find(|line| line.starts_with("test result:")).unwrap_or_default();
    let good = done.status.success() && summary.contains(" passed") && !summary.contains(" 0 passed");
    assert!(good, "on {}:\n{printed}{}", service.name(), String::from_utf8_lossy(&done.stderr));
    println!("on {}: {summary}", service.name());
}

/// A server of one kind, for a test that stops it.
pub struct Server {
    service: Service,
    folder: PathBuf,
    port: u16,
    watch: Option<Child>,
}

impl Server {
    /// Start one.
    pub fn start(service: Service) -> Server {
        let tools = tools();
        let folder = std::env::temp_dir().join(format!("portolan-bucket-{}-{}", std::process::id(), service as usize));
        let folder = (0..)
            .map(|n| folder.with_extension(n.to_string()))
            .find(|folder| std::fs::create_dir(folder).is_ok())
            .expect("make a folder for the server");
        std::fs::create_dir(folder.join("data")).expect("make a folder for the server");
        let port = free_port();
        let mut server = Server { service, folder, port, watch: None };
        server.watch = Some(server.run(&tools));
        server
    }

    fn run(&self, tools: &Path) -> Child {
        let data = self.folder.join("data").display().to_string();
        let port = self.port.to_string();
        let (name, args): (&str, Vec<String>) = match self.service {
            Service::S3 => {
                let address = format!("127.0.0.1:{port}");
                let args =
                    ["--port", &address, "--access", S3_ACCOUNT, "--secret", S3_SECRET, "--quiet", "posix", &data];
                ("versitygw", args.map(str::to_owned).to_vec())
            }
            Service::Azure => {
                let args = ["--location", &data, "--blobHost", "127.0.0.1", "--blobPort", &port, "--silent"];
                let more = ["--skipApiVersionCheck", "--disableTelemetry"];
                ("azurite", args.into_iter().chain(more).map(str::to_owned).collect())
            }
            // Two processes: the translator before, the S3 server behind it.
            Service::Gcs => {
                let script = self.folder.join("gcs.js");
                std::fs::write(&script, include_str!("gcs.js")).expect("write the translator");
                let behind = free_port();
                let servers = "\"$1\" --port 127.0.0.1:$2 --access \"$3\" --secret \"$4\" --quiet posix \"$5\" & first=$!; \
                               node \"$6\" \"$7\" $2 \"$3\" \"$4\" & second=$!; \
                               trap 'kill $first $second' TERM; wait";
                let s3 = tools.join("versitygw").display().to_string();
                let (behind, script) = (behind.to_string(), script.display().to_string());
                let args = ["-c", servers, "gcs", &s3, &behind, S3_ACCOUNT, S3_SECRET, &data, &script, &port];
                ("/bin/sh", args.map(str::to_owned).to_vec())
            }
        };
        // Caught and not ignored: what is ignored stays so in the shells below.
        let script = "folder=$1; shift; trap : INT TERM HUP; \"$@\" </dev/null & read -r stop; kill $!; wait; \
                      [ \"$stop\" = keep ] || rm -rf \"$folder\"";
        let mut watch = Command::new("/bin/sh");
        watch.args(["-c", script, "watch"]).arg(&self.folder).arg(tools.join(name)).args(args);
        let log = std::fs::File::create(self.folder.join("log")).expect("make a log");
        let watch = watch
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("share a log"))
            .stderr(log)
            .spawn()
            .expect("start the shell that watches the server");
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(WAIT_SECS_MAX), "{name} does not listen:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        watch
    }

    /// Stop it; what it holds stays.
    pub fn stop(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        let mut pipe = watch.stdin.take().expect("have the server's pipe");
        pipe.write_all(b"keep\n").expect("tell the server's shell to stop");
        drop(pipe);
        watch.wait().expect("wait for the server's shell");
    }

    /// Start it again after [`Server::stop`], on the same port.
    pub fn resume(&mut self) {
        self.watch = Some(self.run(&tools()));
    }

    /// An empty bucket in it.
    pub fn bucket(&self, name: &str) -> Bucket {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let folder = self.folder.join("data").join(name);
        match self.service {
            Service::S3 => {
                std::fs::create_dir(&folder).expect("make a bucket");
                Bucket {
                    url: format!("s3://{name}/some/prefix"),
                    endpoint,
                    account: Some(S3_ACCOUNT.to_owned()),
                    secret: Some(S3_SECRET.to_owned()),
                    credentials_file: None,
                }
            }
            Service::Azure => {
                make_container(self.port, name);
                Bucket {
                    url: format!("az://{name}"),
                    endpoint: format!("{endpoint}/{AZURE_ACCOUNT}"),
                    account: Some(AZURE_ACCOUNT.to_owned()),
                    secret: Some(AZURE_KEY.to_owned()),
                    credentials_file: None,
                }
            }
            Service::Gcs => {
                std::fs::create_dir(&folder).expect("make a bucket");
                let key = self.folder.join("key.json");
                if !key.exists() {
                    std::fs::write(&key, node(GCS_KEY, &[])).expect("write a service account's key");
                }
                Bucket {
                    url: format!("gs://{name}/some/prefix"),
                    endpoint,
                    account: None,
                    secret: None,
                    credentials_file: Some(key),
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut watch) = self.watch.take() {
            drop(watch.stdin.take());
            let _ = watch.wait();
        }
    }
}

/// A service account with a key: it signs its tokens itself, and URLs.
const GCS_KEY: &str = r#"
const { privateKey } = require('crypto').generateKeyPairSync('rsa', { modulusLength: 2048,
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' }, publicKeyEncoding: { type: 'spki', format: 'pem' } });
console.log(JSON.stringify({ type: 'service_account', private_key_id: 'test',
  private_key: privateKey, client_email: 'tests@portolan.example' }));
"#;

/// Azure's "Create Container", signed with the account's key.
const MAKE_CONTAINER: &str = r#"
const [port, name, account, key] = process.argv.slice(1);
const path = `/${account}/${name}`, date = new Date().toUTCString(), version = '2021-12-02';
const text = ['PUT', '', '', '', '', '', '', '', '', '', '', '', `x-ms-date:${date}`, `x-ms-version:${version}`,
  `/${account}${path}`, 'restype:container'].join('\n');
const sign = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text).digest('base64');
const headers = { 'x-ms-date': date, 'x-ms-version': version, 'content-length': 0,
  authorization: `SharedKey ${account}:${sign}` };
require('http').request({ host: '127.0.0.1', port, path: `${path}?restype=container`, method: 'PUT', headers }, (res) => {
  res.resume();
  if (res.statusCode !== 201) { console.error(res.statusCode); process.exit(1); }
}).end();
"#;

fn make_container(port: u16, name: &str) {
    node(MAKE_CONTAINER, &[&port.to_string(), name, AZURE_ACCOUNT, AZURE_KEY]);
}

/// Run a script of Node.js, which azurite needs anyway.
fn node(script: &str, args: &[&str]) -> Vec<u8> {
    let done = Command::new("node").args(["-e", script]).args(args).output().expect("run node");
    assert!(done.status.success(), "node: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// The folder with the servers, installed by the first who needs them.
fn tools() -> PathBuf {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS
        .get_or_init(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            let installed = Command::new(root.join("scripts/test-tools")).output().expect("run scripts/test-tools");
            assert!(installed.status.success(), "scripts/test-tools: {}", String::from_utf8_lossy(&installed.stderr));
            match std::env::var_os("PORTOLAN_TEST_TOOLS") {
                Some(path) => PathBuf::from(path),
                None => root.join("target/tools").canonicalize().expect("find the installed servers"),
            }
        })
        .clone()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("find a free port");
    listener.local_addr().expect("ask for the port").port()
}
