//! Two server processes on one PostgreSQL and one bucket: one registry to its clients.

use std::path::Path;
use std::time::{Duration, Instant};

use portolan_testkit::bucket::{Bucket, Service, bucket};
use portolan_testkit::{Child, Site, postgres};
use portolan_types::Digest;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

/// For what must happen by itself.
const WAIT: Duration = Duration::from_secs(60);

/// What both servers are told (`portolan.toml`), and the folder of each.
pub(crate) struct Setup {
    dir: tempfile::TempDir,
}

impl Setup {
    pub(crate) fn new(more: &str) -> Setup {
        let Bucket { url, endpoint, account, secret, .. } = bucket(Service::S3);
        let (account, secret) = (account.unwrap(), secret.unwrap());
        let config = format!(
            "database = '{}'\nblobs = '{url}'\nblob_endpoint = '{endpoint}'\nblob_account = '{account}'\n\
             blob_secret = '{secret}'\npublic_address = 'localhost:5443'\nlisten_http = '127.0.0.1:0'\n{more}",
            postgres::database()
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("portolan.toml"), &config).unwrap();
        Setup { dir }
    }

    /// The same for one server, which is called what it listens at.
    pub(crate) fn of_one(more: &str) -> Setup {
        let setup = Setup::new(more);
        let config = setup.dir.path().join("portolan.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let text: String =
            text.lines().filter(|l| !l.starts_with("public_address")).map(|l| format!("{l}\n")).collect();
        std::fs::write(&config, text).unwrap();
        setup
    }

    pub(crate) fn data(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn start(&self, name: &str) -> anyhow::Result<Child> {
        let config = self.dir.path().join("portolan.toml");
        Child::start(&self.data(name), &["--config", config.to_str().unwrap()]).await
    }

    /// A worker with the master key of server `a` and what else it is told.
    pub(crate) async fn worker(&self, name: &str, more: &str) -> anyhow::Result<Child> {
        let (data, config) = (self.data(name), self.dir.path().join(format!("{name}.toml")));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::copy(self.data("a").join("master.key"), data.join("master.key")).unwrap();
        let same = std::fs::read_to_string(self.dir.path().join("portolan.toml")).unwrap();
        let same: String =
            same.lines().filter(|line| !line.starts_with("listen_http")).map(|l| format!("{l}\n")).collect();
        std::fs::write(&config, format!("{same}{more}")).unwrap();
        Child::start_worker(&data, &["--config", config.to_str().unwrap(), "--name", name]).await
    }

    /// Both, the second with the first one's master key; the first is `a`.
    pub(crate) async fn both(&self) -> (Node, Node) {
        let a = self.start("a").await.unwrap();
        std::fs::create_dir(self.data("b")).unwrap();
        std::fs::copy(self.data("a").join("master.key"), self.data("b").join("master.key")).unwrap();
        let b = self.start("b").await.unwrap();
        let owner = self.data("a").join("bootstrap.json");
        (Node::new(a, &owner), Node::new(b, &owner))
    }
}

/// One of the servers, and its plain listener as the owner's site.
pub(crate) struct Node {
    child: Child,
    pub(crate) site: Site,
    user: String,
    password: String,
}

impl Node {
    fn new(child: Child, owner: &Path) -> Node {
        let mut site = Site::open(owner).unwrap();
        let (_, rest) = child.ready.split_once('(').unwrap();
        site.url = rest.split_once(')').unwrap().0.to_owned();
        Node { child, site, user: String::new(), password: String::new() }
    }

    /// Make a registry; its admin user is who asks from now on.
    pub(crate) async fn make_registry(&mut self, name: &str) {
        self.site.make_registry(name).await.unwrap();
        let list = format!("{}/listCredentials", Site::registry_path(name));
        let credentials: Value = self.site.arm(Method::POST, &list, None).await.unwrap().json().await.unwrap();
        self.user = credentials["username"].as_str().unwrap().to_owned();
        self.password = credentials["passwords"][0]["value"].as_str().unwrap().to_owned();
    }

    pub(crate) fn know(&mut self, other: &Node) {
        (self.user, self.password) = (other.user.clone(), other.password.clone());
    }

    /// Somebody else asks from now on.
    pub(crate) fn sign_in_as(&mut self, user: &str, password: &str) {
        (self.user, self.password) = (user.to_owned(), password.to_owned());
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match path.starts_with("http") {
            // What a server says is the address of both.
            true => format!("{}{}", self.site.url, &path[path.find("/v2/").unwrap()..]),
            false => format!("{}{path}", self.site.url),
        };
        self.site.client.request(method, url).basic_auth(&self.user, Some(&self.password))
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path).send().await.unwrap()
    }

    async fn status(&self, path: &str) -> StatusCode {
        self.get(path).await.status()
    }

    /// Wait until this server answers so.
    pub(crate) async fn until(&self, path: &str, wanted: StatusCode) -> Duration {
        let begun = Instant::now();
        loop {
            let status = self.status(path).await;
            if status == wanted {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < WAIT, "{path}: {status}, not {wanted}");
        }
    }

    async fn push_blob(&self, repo: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{repo}/blobs/uploads/?digest={digest}");
        let done = self.ask(Method::POST, &path).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(done.status(), StatusCode::CREATED, "{}", done.text().await.unwrap());
        digest
    }

    async fn put_manifest(&self, repo: &str, tag: &str, layer: &[u8]) -> (StatusCode, Digest) {
        let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = Digest::of(&bytes);
        let put = self.ask(Method::PUT, &format!("/v2/{repo}/manifests/{tag}"));
        let put = put.header("content-type", "application/vnd.oci.image.manifest.v1+json").body(bytes);
        (put.send().await.unwrap().status(), digest)
    }

    pub(crate) async fn push(&self, repo: &str, tag: &str, layer: &[u8]) -> Digest {
        self.push_blob(repo, b"{}").await;
        self.push_blob(repo, layer).await;
        let (status, digest) = self.put_manifest(repo, tag, layer).await;
        assert_eq!(status, StatusCode::CREATED);
        digest
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_upload_chunk_by_chunk_between_two_servers_with_a_kill_in_between() {
    let setup = Setup::new("");
    let (mut a, mut b) = setup.both().await;
    a.make_registry("shared").await;
    b.know(&a);
    b.until("/v2/", StatusCode::OK).await;

    let begun = a.ask(Method::POST, "/v2/app/blobs/uploads/").send().await.unwrap();
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let mut location = begun.headers()["location"].to_str().unwrap().to_owned();
    let mut all: Vec<u8> = Vec::new();
    for n in 0..8u8 {
        let (here, there) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let chunk = vec![n; 300_000];
        let range = format!("{}-{}", all.len(), all.len() + chunk.len() - 1);
        let patch = here.ask(Method::PATCH, &location).header("content-range", range).body(chunk.clone());
        let patched = patch.send().await.unwrap();
        assert_eq!(patched.status(), StatusCode::ACCEPTED, "chunk {n}");
        all.extend_from_slice(&chunk);
        location = patched.headers()["location"].to_str().unwrap().to_owned();
        let status = there.get(&location).await;
        assert_eq!(status.status(), StatusCode::NO_CONTENT);
        assert_eq!(status.headers()["range"], format!("0-{}", all.len() - 1));
    }
    // The server that took the first chunk dies; what it acknowledged is there.
    let Node { child, .. } = a;
    child.kill9().await.unwrap();
    let status = b.get(&location).await;
    assert_eq!(status.headers()["range"], format!("0-{}", all.len() - 1));
    let range = format!("{}-{}", all.len() + 1, all.len() + 6);
    let patched = b.ask(Method::PATCH, &location).header("content-range", range).body("from b").send().await.unwrap();
    assert_eq!(patched.status(), StatusCode::RANGE_NOT_SATISFIABLE, "one byte too far");
    let range = format!("{}-{}", all.len(), all.len() + 5);
    let patched = b.ask(Method::PATCH, &location).header("content-range", range).body("from b").send().await.unwrap();
    assert_eq!(patched.status(), StatusCode::ACCEPTED);
    all.extend_from_slice(b"from b");

    // It comes back, and ends what the other went on with.
    let mut again = Node::new(setup.start("a").await.unwrap(), &setup.data("a").join("bootstrap.json"));
    again.know(&b);
    let digest = Digest::of(&all);
    let sign = if location.contains('?') { '&' } else { '?' };
    let put = again.ask(Method::PUT, &format!("{location}{sign}digest={digest}")).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED, "{}", put.text().await.unwrap());
    for node in [&again, &b] {
        let blob = node.get(&format!("/v2/app/blobs/{digest}")).await;
        assert_eq!(blob.status(), StatusCode::OK);
        assert_eq!(Digest::of(&blob.bytes().await.unwrap()), digest);
    }
    assert_eq!(b.status(&location).await, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_acknowledged_the_other_answers() {
    let setup = Setup::new("");
    let (mut a, mut b) = setup.both().await;
    let ca = |name: &str| std::fs::read(setup.data(name).join("tls/ca.pem")).unwrap();
    assert_eq!(ca("a"), ca("b"), "clients trust both");
    assert!(!setup.data("b").join("bootstrap.json").exists(), "there is one owner");
    a.make_registry("shared").await;
    b.know(&a);
    b.until("/v2/", StatusCode::OK).await;

    // Tags: two hundred moves, each asked for at the other at once.
    a.push("app", "v1", b"layer 0").await;
    for n in 1..4 {
        b.push_blob("app", format!("layer {n}").as_bytes()).await;
    }
    let mut stale = 0;
    for n in 0..200 {
        let (here, there) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let (status, digest) = here.put_manifest("app", "v1", format!("layer {}", n % 4).as_bytes()).await;
        assert_eq!(status, StatusCode::CREATED);
        let seen = there.get("/v2/app/manifests/v1").await;
        assert_eq!(seen.status(), StatusCode::OK);
        stale += usize::from(seen.headers()["docker-content-digest"] != digest.to_string().as_str());
    }
    assert_eq!(stale, 0, "of 200 answers");

    // Deletions.
    for n in 0..20 {
        let (here, there) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let (_, digest) = here.put_manifest("app", "gone", b"layer 1").await;
        let path = format!("/v2/app/manifests/{digest}");
        assert_eq!(there.status(&path).await, StatusCode::OK);
        let gone = here.ask(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(gone.status(), StatusCode::ACCEPTED);
        assert_eq!(there.status(&path).await, StatusCode::NOT_FOUND);
        assert_eq!(there.status("/v2/app/manifests/gone").await, StatusCode::NOT_FOUND);
        // Of the first it took the other tag along.
        here.put_manifest("app", "v1", b"layer 0").await;
    }

    // The admin user is turned off at one, and refused at both.
    let off = json!({"properties": {"adminUserEnabled": false}});
    let done = a.site.arm(Method::PATCH, &Site::registry_path("shared"), Some(off)).await.unwrap();
    assert_eq!(done.status(), StatusCode::OK);
    assert_eq!(a.status("/v2/app/manifests/v1").await, StatusCode::UNAUTHORIZED);
    let took = b.until("/v2/app/manifests/v1", StatusCode::UNAUTHORIZED).await;
    println!("refused at the other server after {took:?}");
    for node in [a, b] {
        assert_eq!(node.child.terminate().await.unwrap().0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_collects_while_the_other_takes_the_same_content() {
    let graces = "gc_interval_secs = 1\ngc_link_grace_secs = 1\ngc_unlink_grace_secs = 1\ngc_touch_grace_secs = 1\n";
    let setup = Setup::new(graces);
    let (mut a, mut b) = setup.both().await;
    a.make_registry("shared").await;
    b.know(&a);
    b.until("/v2/", StatusCode::OK).await;
    let until = Instant::now() + Duration::from_secs(12);
    let mut rounds = 0;
    while Instant::now() < until {
        for n in 0..3 {
            let layer = format!("the same layer {n}");
            // Not everything waits for its manifest: with a grace of one second it may go
            // before, and the client is told.
            let digest = loop {
                b.push_blob("app", b"{}").await;
                b.push_blob("app", layer.as_bytes()).await;
                match b.put_manifest("app", "v1", layer.as_bytes()).await {
                    (StatusCode::CREATED, digest) => break digest,
                    (status, _) => assert_eq!(status, StatusCode::NOT_FOUND),
                }
            };
            for node in [&a, &b] {
                let blob = node.get(&format!("/v2/app/blobs/{}", Digest::of(layer.as_bytes()))).await;
                assert_eq!(blob.status(), StatusCode::OK);
                assert_eq!(blob.bytes().await.unwrap(), layer.as_bytes());
            }
            let gone = a.ask(Method::DELETE, &format!("/v2/app/manifests/{digest}")).send().await.unwrap();
            assert_eq!(gone.status(), StatusCode::ACCEPTED);
            rounds += 1;
        }
    }
    let metrics = async |node: &Node| node.get("/metrics").await.text().await.unwrap();
    let blobs = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("portolan_gc_blobs_total")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let begun = Instant::now();
    loop {
        let collected = blobs(&metrics(&a).await) + blobs(&metrics(&b).await);
        if collected >= 3.0 {
            println!("{rounds} pushes, {collected} blobs collected in between");
            break;
        }
        assert!(begun.elapsed() < WAIT, "nothing is collected");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_with_another_master_key_or_none_is_refused() {
    let setup = Setup::new("");
    let a = setup.start("a").await.unwrap();
    let Err(refused) = setup.start("b").await else { panic!("it was let in without a key") };
    assert!(format!("{refused:#}").contains("master.key is missing, but the database is there"), "{refused:#}");
    std::fs::write(setup.data("b").join("master.key"), "7".repeat(64)).unwrap();
    let Err(refused) = setup.start("b").await else { panic!("it was let in with another key") };
    let refused = format!("{refused:#}");
    assert!(refused.contains("is not the one that the database was set up with"), "{refused}");
    assert!(refused.contains("copy master.key"), "{refused}");
    assert_eq!(a.terminate().await.unwrap().0, Some(0));
}
