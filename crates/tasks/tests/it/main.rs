//! Runs over a real store: the queue, workers that come and go, contexts, logs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation here is a failed test")]

mod contexts;
mod ends;
mod runs;
mod secrets;
mod turns;
mod workers;

use std::path::Path;
use std::sync::Arc;

use futures_util::{TryStreamExt, stream};
use portolan_store::blob::{Blobs, BoxFuture, ByteStream, FsBlobs};
use portolan_store::meta::{Meta, PostgresConfig};
use portolan_tasks::{
    BuildOptions, BuildSpec, CancelFlag, Job, NewRun, Outcome, Run, RunKind, RunLog, RunRegistry, Runner, Seal, Tasks,
    TasksConfig,
};
use portolan_testkit::postgres;
use portolan_types::{Digest, RunId, Secret, Timestamp};
use tokio::sync::{mpsc, oneshot};

/// `registry.id` of the registry that the tests use.
const REGISTRY: i64 = 7;

/// A store in a folder of its own.
struct Place {
    meta: Meta,
    blobs: Arc<dyn Blobs>,
    dir: tempfile::TempDir,
}

/// In SQLite, or in PostgreSQL when the suite is run on that.
fn open_meta(path: &Path) -> Meta {
    let meta = match postgres::chosen_for(path) {
        Some(url) => Meta::open_postgres(&PostgresConfig { readers: 2, ..PostgresConfig::new(url) }),
        None => Meta::open_sqlite(path),
    };
    meta.unwrap()
}

#[test]
fn the_same_on_postgres() {
    // What PostgreSQL keeps in its files is not for us to look at.
    postgres::again(&[], &["no_file_shows_a_secret"]);
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let meta = open_meta(&dir.path().join("portolan.db"));
        let blobs: Arc<dyn Blobs> = Arc::new(FsBlobs::open(dir.path()).unwrap());
        Place { meta, blobs, dir }
    }

    async fn tasks(&self, config: TasksConfig) -> Arc<Tasks> {
        self.tasks_with(1, config).await
    }

    /// A server with another master key.
    async fn tasks_with(&self, key: u8, config: TasksConfig) -> Arc<Tasks> {
        Tasks::open(self.meta.clone(), self.blobs.clone(), Arc::new(Keyed(key)), config).await.unwrap()
    }
}

/// Seals with a key of eight bits: enough to see what is kept where. The server's own is
/// tested there.
struct Keyed(u8);

impl Keyed {
    fn mixed(&self, label: &str, text: &[u8]) -> Vec<u8> {
        let stream = Digest::of(format!("{}/{label}", self.0).as_bytes()).to_string();
        text.iter().zip(stream.bytes().skip(8).cycle()).map(|(a, b)| a ^ b).collect()
    }

    fn tag(&self, label: &str, text: &[u8]) -> String {
        Digest::of(&[&[self.0], label.as_bytes(), text].concat()).to_string()
    }
}

impl Seal for Keyed {
    fn seal(&self, label: &str, plain: &Secret<String>) -> std::io::Result<String> {
        let plain = plain.expose().as_bytes();
        Ok(format!("{} {:?}", self.tag(label, plain), self.mixed(label, plain)))
    }

    fn open(&self, label: &str, sealed: &str) -> Option<Secret<String>> {
        let (tag, mixed) = sealed.split_once(' ')?;
        let plain = self.mixed(label, &serde_json::from_str::<Vec<u8>>(mixed).ok()?);
        (tag == self.tag(label, &plain)).then(|| Secret::new(String::from_utf8(plain).unwrap()))
    }
}

/// Hands every job to the test, which decides what becomes of it.
struct Handed(mpsc::UnboundedSender<Work>);

struct Work {
    job: Job,
    log: RunLog,
    cancel: CancelFlag,
    done: oneshot::Sender<Outcome>,
}

impl Runner for Handed {
    fn run(&self, job: Job, log: RunLog, cancel: CancelFlag) -> BoxFuture<'_, Outcome> {
        let (done, outcome) = oneshot::channel();
        self.0.send(Work { job, log, cancel, done }).unwrap();
        // A test that drops its end has the run panic.
        Box::pin(async move { outcome.await.expect("the test gave no outcome") })
    }
}

fn handed() -> (Arc<Handed>, mpsc::UnboundedReceiver<Work>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Arc::new(Handed(sender)), receiver)
}

fn bytes(text: &str) -> ByteStream {
    let text = bytes::Bytes::copy_from_slice(text.as_bytes());
    Box::pin(stream::iter([Ok(text)]))
}

/// An order for a run of a context that is there.
async fn order(tasks: &Tasks, names: &[&str]) -> NewRun {
    let staged = tasks.stage_context(REGISTRY, Timestamp::now()).await.unwrap();
    tasks.put_context(REGISTRY, &staged.relative_path, bytes("a context")).await.unwrap();
    NewRun {
        registry: RunRegistry { id: REGISTRY, name: "myreg".parse().unwrap(), login_server: "localhost:8443".into() },
        kind: RunKind::QuickBuild,
        image_names: names.iter().map(|n| (*n).to_owned()).collect(),
        build: BuildSpec {
            images: Vec::new(),
            push: true,
            no_cache: false,
            dockerfile: "Dockerfile".into(),
            target: None,
            args: Vec::new(),
            context: staged.relative_path,
            caller: None,
            options: BuildOptions::default(),
        },
        platform: "linux/amd64".parse().unwrap(),
        cpu: 2,
        timeout_secs: None,
        archived: false,
        asker: String::new(),
    }
}

async fn schedule(tasks: &Tasks, names: &[&str]) -> Run {
    let new = order(tasks, names).await;
    tasks.schedule(new, Timestamp::now()).await.unwrap()
}

async fn get(tasks: &Tasks, id: &RunId) -> Run {
    tasks.get(REGISTRY, id).await.unwrap().unwrap()
}

/// Wait until a run is over, and read its log.
async fn ended(tasks: &Tasks, id: &RunId) -> (Run, String) {
    let minute = std::time::Duration::from_secs(60);
    let state = tasks.log_wait(REGISTRY, id, u64::MAX, minute).await.unwrap().unwrap();
    let run = get(tasks, id).await;
    assert!(run.status.is_final(), "{id} is {}", run.status);
    assert_eq!(state.complete, run.status.log_complete());
    (run, log(tasks, id).await)
}

async fn log(tasks: &Tasks, id: &RunId) -> String {
    let body = tasks.log_read(REGISTRY, id, 0..u64::MAX).await.unwrap();
    let parts: Vec<bytes::Bytes> = body.try_collect().await.unwrap();
    String::from_utf8(parts.concat()).unwrap()
}
