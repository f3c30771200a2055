//! `kill -9` at any moment of a mixed load, hundreds of times, and nothing acknowledged is
//! lost.
//!
//! Each site is one data folder and a few clients, each with a repository of its own and a
//! model of what it was told. A round: start the server, compare everything with the
//! models, go on pushing, tagging, deleting and collecting, kill. What was in flight may
//! have happened or not, but whole: a tag is the old or the new one, a manifest is there
//! with all it needs or is not there. What nobody was told of and nobody asked for must not
//! be there either. Every few rounds `portolan check` must find the store clean.
//!
//! `PORTOLAN_CRASH_SEED` repeats a run's choices (not its timing), `PORTOLAN_CRASH_ROUNDS`
//! says how many rounds each site has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use portolan_testkit::{Child, Digest, Site, bucket, postgres};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Clients of one site.
const CLIENTS: u64 = 4;
/// Manifests that one client keeps.
const MANIFESTS_MAX: usize = 10;
/// Contents that all clients of a site push again and again, so that one's deletion and
/// collection meets another's push.
const SHARED: u64 = 12;
/// Rounds between two checks.
const CHECK_EVERY: u64 = 25;
/// Rounds between two comparisons of everything.
const ALL_EVERY: u64 = 10;

/// A generator with a seed (xorshift): what it chooses can be had again.
#[derive(Clone)]
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let n = from.len() as u64;
        (n > 0).then(|| from[self.below(n) as usize].clone())
    }
}

fn content(id: u64) -> Vec<u8> {
    let mut rng = Rng::new(id + 1);
    let len = 100 + rng.below(30_000);
    (0..len.div_ceil(4)).flat_map(|_| rng.next().to_le_bytes()[..4].to_vec()).collect()
}

/// The request did not end well because the server is gone.
struct Gone;

type Answer = Result<(u16, BTreeMap<String, String>, Vec<u8>), Gone>;

/// The way to a site's registry, over plain HTTP, as its admin user.
#[derive(Clone)]
struct Http {
    site: Site,
    base: String,
    user: String,
    password: String,
}

impl Http {
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let mut req = self.site.client.request(method.parse().unwrap(), url);
        req = req.basic_auth(&self.user, Some(&self.password)).body(body);
        for (name, value) in headers {
            req = req.header(*name, *value);
        }
        let res = req.send().await.map_err(|_| Gone)?;
        let status = res.status().as_u16();
        let headers = res
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        let body = res.bytes().await.map_err(|_| Gone)?;
        Ok((status, headers, body.to_vec()))
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], Vec::new()).await
    }
}

/// What a client was told of a thing.
#[derive(Clone, Debug, PartialEq)]
enum Told<T> {
    /// It is so.
    Is(T),
    /// It was one and was asked to become the other, and no answer came.
    Either(T, T),
}

#[derive(Clone, Debug)]
struct Image {
    bytes: Vec<u8>,
    blobs: Vec<Digest>,
}

/// An upload that was left in the middle: where, the content, and the bytes acknowledged.
#[derive(Clone, Debug)]
struct Left {
    path: String,
    content: Vec<u8>,
    sent: usize,
}

/// One client, its repository, and what it was told.
struct Client {
    repo: String,
    others: Vec<String>,
    rng: Rng,
    fresh: u64,
    images: BTreeMap<Digest, (Image, Told<bool>)>,
    tags: BTreeMap<String, Told<Option<Digest>>>,
    /// Blobs acknowledged that may not be used by a manifest.
    blobs: BTreeSet<Digest>,
    /// Blobs that this client began to push under digests nobody else has, and never finished.
    unfinished: BTreeSet<Digest>,
    left: Option<Left>,
    /// Unused blobs may be collected while the test runs.
    collects: bool,
    acknowledged: u64,
}

impl Client {
    fn new(n: u64, seed: u64, collects: bool) -> Client {
        let name = |n: u64| format!("client{n}/app");
        Client {
            repo: name(n),
            others: (0..CLIENTS).filter(|other| *other != n).map(name).collect(),
            rng: Rng::new(seed ^ (n << 32)),
            fresh: (n + 1) << 32,
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            blobs: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            left: None,
            collects,
            acknowledged: 0,
        }
    }

    /// Do this and that until the server is gone.
    async fn work(&mut self, http: &Http) {
        while self.step(http).await.is_ok() {
            self.acknowledged += 1;
        }
    }

    async fn step(&mut self, http: &Http) -> Result<(), Gone> {
        let live: Vec<Digest> =
            self.images.iter().filter(|(_, (_, told))| *told == Told::Is(true)).map(|(d, _)| *d).collect();
        let many = live.len() >= MANIFESTS_MAX;
        match self.rng.below(100) {
            _ if many => self.delete_image(http, live).await,
            0..45 => self.push(http).await,
            45..60 => self.retag(http, live).await,
            60..70 => self.untag(http).await,
            70..80 => self.delete_image(http, live).await,
            80..90 => self.leave_upload(http).await,
            _ => self.read(http).await,
        }
    }

    fn unique(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    async fn push(&mut self, http: &Http) -> Result<(), Gone> {
        let layer = if self.rng.below(3) > 0 { self.rng.below(SHARED) } else { self.unique() };
        let layer = content(layer);
        let config = json!({"architecture": "amd64", "os": "linux", "n": self.unique()}).to_string().into_bytes();
        let describe =
            |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe("application/vnd.oci.image.config.v1+json", &config),
            "layers": [describe("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let image =
            Image { bytes: manifest.to_string().into_bytes(), blobs: vec![Digest::of(&config), Digest::of(&layer)] };
        for blob in [config, layer] {
            self.push_blob(http, &blob).await?;
        }
        self.put(http, image).await
    }

    /// Put a manifest under a tag.
    async fn put(&mut self, http: &Http, image: Image) -> Result<(), Gone> {
        let tag = format!("v{}", self.rng.below(6));
        let digest = Digest::of(&image.bytes);
        let had = matches!(self.images.get(&digest), Some((_, Told::Is(true))));
        let old = match self.tags.get(&tag) {
            Some(Told::Is(old)) => *old,
            _ => None,
        };
        self.images.insert(digest, (image.clone(), if had { Told::Is(true) } else { Told::Either(false, true) }));
        self.tags.insert(tag.clone(), Told::Either(old, Some(digest)));
        let path = format!("/v2/{}/manifests/{tag}", self.repo);
        let (status, _, body) = http.ask("PUT", &path, &[("content-type", MANIFEST)], image.bytes.clone()).await?;
        if status == 404 && self.collects {
            // What it needs was collected before it came; the client would push again.
            assert!(String::from_utf8_lossy(&body).contains("MANIFEST_BLOB_UNKNOWN"));
            if !had {
                self.images.remove(&digest);
            }
            self.tags.insert(tag, Told::Is(old));
            return Ok(());
        }
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        self.images.insert(digest, (image, Told::Is(true)));
        self.tags.insert(tag, Told::Is(Some(digest)));
        Ok(())
    }

    async fn push_blob(&mut self, http: &Http, bytes: &[u8]) -> Result<(), Gone> {
        let digest = Digest::of(bytes);
        let uploads = format!("/v2/{}/blobs/uploads/", self.repo);
        let octets = ("content-type", "application/octet-stream");
        match self.rng.below(4) {
            0 => {
                let (status, _, _) =
                    http.ask("POST", &format!("{uploads}?digest={digest}"), &[octets], bytes.to_vec()).await?;
                assert_eq!(status, 201);
            }
            1 => {
                let other = self.rng.pick(&self.others).unwrap();
                let path = format!("{uploads}?mount={digest}&from={other}");
                let (status, headers, _) = http.ask("POST", &path, &[], Vec::new()).await?;
                if status != 201 {
                    assert_eq!(status, 202);
                    finish(http, &headers["location"], &digest, bytes.to_vec()).await?;
                }
            }
            2 => {
                let (status, headers, _) = http.ask("POST", &uploads, &[], Vec::new()).await?;
                assert_eq!(status, 202);
                let half = bytes.len() / 2;
                let location = patch(http, &headers["location"], 0, &bytes[..half]).await?;
                let location = patch(http, &location, half, &bytes[half..]).await?;
                finish(http, &location, &digest, Vec::new()).await?;
            }
            _ => {
                let (status, headers, _) = http.ask("POST", &uploads, &[], Vec::new()).await?;
                assert_eq!(status, 202);
                finish(http, &headers["location"], &digest, bytes.to_vec()).await?;
            }
        }
        self.blobs.insert(digest);
        self.unfinished.remove(&digest);
        Ok(())
    }

    async fn retag(&mut self, http: &Http, live: Vec<Digest>) -> Result<(), Gone> {
        let Some(digest) = self.rng.pick(&live) else { return Ok(()) };
        let image = self.images[&digest].0.clone();
        self.put(http, image).await
    }

    async fn untag(&mut self, http: &Http) -> Result<(), Gone> {
        let set: Vec<(String, Digest)> = self
            .tags
            .iter()
            .filter_map(|(tag, told)| match told {
                Told::Is(Some(digest)) => Some((tag.clone(), *digest)),
                _ => None,
            })
            .collect();
        let Some((tag, digest)) = self.rng.pick(&set) else { return Ok(()) };
        self.tags.insert(tag.clone(), Told::Either(Some(digest), None));
        let (status, _, _) = http.ask("DELETE", &format!("/v2/{}/manifests/{tag}", self.repo), &[], Vec::new()).await?;
        assert_eq!(status, 202);
        self.tags.insert(tag, Told::Is(None));
        Ok(())
    }

    async fn delete_image(&mut self, http: &Http, live: Vec<Digest>) -> Result<(), Gone> {
        let Some(digest) = self.rng.pick(&live) else { return Ok(()) };
        let image = self.images[&digest].0.clone();
        self.images.insert(digest, (image.clone(), Told::Either(true, false)));
        let tags: Vec<String> =
            self.tags.iter().filter(|(_, told)| **told == Told::Is(Some(digest))).map(|(tag, _)| tag.clone()).collect();
        for tag in &tags {
            self.tags.insert(tag.clone(), Told::Either(Some(digest), None));
        }
        let path = format!("/v2/{}/manifests/{digest}", self.repo);
        let (status, _, _) = http.ask("DELETE", &path, &[], Vec::new()).await?;
        assert_eq!(status, 202);
        // Kept as a deleted one: it must not come back.
        self.images.insert(digest, (image, Told::Is(false)));
        for tag in tags {
            self.tags.insert(tag, Told::Is(None));
        }
        // What only it needed may be collected.
        let needed: BTreeSet<Digest> = self
            .images
            .values()
            .filter(|(_, told)| *told == Told::Is(true))
            .flat_map(|(i, _)| i.blobs.clone())
            .collect();
        self.blobs.retain(|blob| needed.contains(blob));
        let gone: Vec<Digest> =
            self.images.iter().filter(|(_, (_, told))| *told == Told::Is(false)).map(|(d, _)| *d).collect();
        if gone.len() > MANIFESTS_MAX * 2 {
            self.images.remove(&gone[0]);
        }
        Ok(())
    }

    /// Begin an upload, send a part, and leave it.
    async fn leave_upload(&mut self, http: &Http) -> Result<(), Gone> {
        let bytes = content(self.unique());
        let (status, headers, _) =
            http.ask("POST", &format!("/v2/{}/blobs/uploads/", self.repo), &[], Vec::new()).await?;
        assert_eq!(status, 202);
        self.unfinished.insert(Digest::of(&bytes));
        self.left = Some(Left { path: headers["location"].clone(), content: bytes.clone(), sent: 0 });
        let half = bytes.len() / 2;
        let path = patch(http, &headers["location"], 0, &bytes[..half]).await?;
        self.left = Some(Left { path, content: bytes, sent: half });
        Ok(())
    }

    async fn read(&mut self, http: &Http) -> Result<(), Gone> {
        let known: Vec<(String, Told<Option<Digest>>)> =
            self.tags.iter().map(|(t, d)| (t.clone(), d.clone())).collect();
        let Some((tag, told)) = self.rng.pick(&known) else { return Ok(()) };
        let (status, headers, body) = http.get(&format!("/v2/{}/manifests/{tag}", self.repo)).await?;
        match told {
            Told::Is(Some(digest)) => {
                assert_eq!((status, headers["docker-content-digest"].as_str()), (200, digest.to_string().as_str()));
                assert_eq!(Digest::of(&body), digest);
            }
            Told::Is(None) => assert_eq!(status, 404),
            Told::Either(..) => panic!("{tag} was not settled"),
        }
        Ok(())
    }

    /// Compare with the server, which nobody else writes to, and settle what was in flight.
    async fn compare(&mut self, http: &Http, all: bool) -> Result<(), Gone> {
        // Manifests.
        let mut there = BTreeSet::new();
        let digests: Vec<Digest> = self.images.keys().copied().collect();
        for digest in digests {
            let (image, told) = self.images[&digest].clone();
            let (status, _, body) = http.get(&format!("/v2/{}/manifests/{digest}", self.repo)).await?;
            let is = status == 200;
            assert!(is || status == 404, "{digest}: {status}");
            match told {
                Told::Is(expected) => assert_eq!(is, expected, "{}@{digest}", self.repo),
                Told::Either(..) => self.images.get_mut(&digest).unwrap().1 = Told::Is(is),
            }
            if is {
                assert_eq!(body, image.bytes, "{}@{digest}", self.repo);
                there.insert(digest);
            }
        }
        // Tags: each by itself, and no others.
        let mut expected = BTreeSet::new();
        let tags: Vec<String> = self.tags.keys().cloned().collect();
        for tag in tags {
            let (status, headers, _) = http.get(&format!("/v2/{}/manifests/{tag}", self.repo)).await?;
            let is: Option<Digest> = match status {
                200 => Some(headers["docker-content-digest"].parse().unwrap()),
                404 => None,
                other => panic!("{tag}: {other}"),
            };
            match &self.tags[&tag] {
                Told::Is(told) => assert_eq!(is, *told, "{}:{tag}", self.repo),
                Told::Either(old, new) => {
                    assert!(is == *old || is == *new, "{}:{tag} is {is:?}, was {old:?}, becomes {new:?}", self.repo);
                }
            }
            if let Some(digest) = is {
                assert!(there.contains(&digest), "{}:{tag} points at {digest}, which is not there", self.repo);
                expected.insert(tag.clone());
            }
            self.tags.insert(tag, Told::Is(is));
        }
        let (status, _, body) = http.get(&format!("/v2/{}/tags/list", self.repo)).await?;
        if there.is_empty() {
            assert_eq!(status, 404, "a repository without manifests is not seen");
        } else {
            let list: Value = serde_json::from_slice(&body).unwrap();
            let list: BTreeSet<String> = serde_json::from_value(list["tags"].clone()).unwrap_or_default();
            assert_eq!(list, expected, "{}", self.repo);
        }
        // Content.
        let mut blobs: BTreeSet<Digest> = there.iter().flat_map(|d| self.images[d].0.blobs.clone()).collect();
        if !self.collects {
            blobs.extend(&self.blobs);
        }
        let blobs: Vec<Digest> = blobs.into_iter().collect();
        let some = if all { blobs.clone() } else { (0..4).filter_map(|_| self.rng.pick(&blobs)).collect() };
        for digest in some {
            let (status, _, body) = http.get(&format!("/v2/{}/blobs/{digest}", self.repo)).await?;
            assert_eq!((status, Digest::of(&body)), (200, digest), "{}", self.repo);
        }
        for digest in std::mem::take(&mut self.unfinished) {
            let (status, _, _) =
                http.ask("HEAD", &format!("/v2/{}/blobs/{digest}", self.repo), &[], Vec::new()).await?;
            assert_eq!(status, 404, "{digest} was never finished");
        }
        // The upload that was left goes on where it was.
        if let Some(left) = self.left.take() {
            let path = local(&left.path);
            let (status, headers, _) = http.get(&path).await?;
            assert_eq!(status, 204, "{path}: {} bytes were acknowledged", left.sent);
            let have = headers["range"].rsplit_once('-').map_or(0, |(_, last)| last.parse::<usize>().unwrap());
            let have = if have == 0 { 0 } else { have + 1 };
            assert!(have >= left.sent && have <= left.content.len(), "{have} of {} bytes", left.sent);
            let location = patch(http, &headers["location"], have, &left.content[have..]).await?;
            finish(http, &location, &Digest::of(&left.content), Vec::new()).await?;
            self.blobs.insert(Digest::of(&left.content));
        }
        Ok(())
    }
}

/// The path of a location: the port changes from one start to the next.
fn local(location: &str) -> String {
    match location.split_once("://") {
        Some((_, rest)) => rest[rest.find('/').unwrap()..].to_owned(),
        None => location.to_owned(),
    }
}

async fn patch(http: &Http, location: &str, from: usize, bytes: &[u8]) -> Result<String, Gone> {
    if bytes.is_empty() {
        return Ok(location.to_owned());
    }
    let range = format!("{from}-{}", from + bytes.len() - 1);
    let headers = [("content-type", "application/octet-stream"), ("content-range", range.as_str())];
    let (status, headers, body) = http.ask("PATCH", &local(location), &headers, bytes.to_vec()).await?;
    assert_eq!(status, 202, "{}", String::from_utf8_lossy(&body));
    Ok(headers["location"].clone())
}

async fn finish(http: &Http, location: &str, digest: &Digest, bytes: Vec<u8>) -> Result<(), Gone> {
    let path = local(location);
    let path = format!("{path}{}digest={digest}", if path.contains('?') { '&' } else { '?' });
    let (status, _, body) = http.ask("PUT", &path, &[("content-type", "application/octet-stream")], bytes).await?;
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    Ok(())
}

/// `portolan check`: the exit code and the report.
pub(crate) fn check(args: &[&str]) -> (Option<i32>, Value, String) {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["check", "-o", "json"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap_or_default(), text)
}

struct Load {
    name: &'static str,
    data: PathBuf,
    config: PathBuf,
    rng: Rng,
    clients: Vec<Client>,
    kills: u64,
    kills_while_starting: u64,
}

impl Load {
    async fn start(&self) -> Child {
        Child::start(&self.data, &["--config", self.config.to_str().unwrap()]).await.unwrap()
    }

    /// Kill it before it is up.
    async fn fall_at_start(&mut self) {
        let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&self.config)
            .arg("--data")
            .arg(&self.data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(self.rng.below(150))).await;
        process.kill().await.unwrap();
        self.kills_while_starting += 1;
    }

    async fn rounds(&mut self, http: &Http, rounds: u64) {
        for round in 1..=rounds {
            if self.rng.below(10) == 0 {
                self.fall_at_start().await;
            }
            let server = self.start().await;
            let http = Http { base: server.site().unwrap().http_url.unwrap(), ..http.clone() };
            self.compare(&http, round % ALL_EVERY == 0).await;
            let life = Duration::from_millis(20 + self.rng.below(230));
            let clients = std::mem::take(&mut self.clients);
            let working: Vec<_> = clients
                .into_iter()
                .map(|mut client| {
                    let http = http.clone();
                    tokio::spawn(async move {
                        client.work(&http).await;
                        client
                    })
                })
                .collect();
            tokio::time::sleep(life).await;
            server.kill9().await.unwrap();
            self.kills += 1;
            for client in working {
                self.clients.push(client.await.unwrap());
            }
            if round % CHECK_EVERY == 0 || round == rounds {
                let (code, report, text) =
                    check(&["--data", self.data.to_str().unwrap(), "--config", self.config.to_str().unwrap()]);
                assert_eq!(code, Some(0), "{}, round {round}: {text}", self.name);
                println!("{}, round {round}: {} {}", self.name, report["checked"], report["garbage"]);
            }
        }
        let server = self.start().await;
        let http = Http { base: server.site().unwrap().http_url.unwrap(), ..http.clone() };
        self.compare(&http, true).await;
        let (code, _, log) = server.terminate().await.unwrap();
        assert_eq!(code, Some(0), "{log}");
    }

    async fn compare(&mut self, http: &Http, all: bool) {
        for client in &mut self.clients {
            assert!(client.compare(http, all).await.is_ok(), "the server went away by itself");
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn site(name: &'static str, folder: &Path, settings: &str, seed: u64, rounds: u64, collects: bool) {
    let data = folder.join("data");
    let config = folder.join("portolan.toml");
    std::fs::write(&config, format!("listen_http = \"127.0.0.1:0\"\nlog_filter = \"warn\"\n{settings}")).unwrap();
    let mut load = Load {
        name,
        data,
        config,
        rng: Rng::new(seed),
        clients: (0..CLIENTS).map(|n| Client::new(n, seed, collects)).collect(),
        kills: 0,
        kills_while_starting: 0,
    };
    let server = load.start().await;
    let site = server.site().unwrap();
    site.make_registry("crash").await.unwrap();
    let path = format!("{}/listCredentials", Site::registry_path("crash"));
    let admin: Value = site.arm("POST".parse().unwrap(), &path, None).await.unwrap().json().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let http = Http {
        base: String::new(),
        user: text(&admin["username"]),
        password: text(&admin["passwords"][0]["value"]),
        site,
    };
    server.kill9().await.unwrap();
    let begun = Instant::now();
    load.rounds(&http, rounds).await;
    let acknowledged: u64 = load.clients.iter().map(|c| c.acknowledged).sum();
    println!(
        "{name}: {} kills under load and {} while starting, {acknowledged} operations acknowledged, {} s, seed {seed}",
        load.kills,
        load.kills_while_starting,
        begun.elapsed().as_secs()
    );
    assert!(acknowledged > 0);
}

/// Two sites at the same time: one where nothing is collected, so that every blob that was
/// acknowledged must be there, and one where the collector runs all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let seed = number("PORTOLAN_CRASH_SEED", u64::from(std::process::id()));
    let rounds = number("PORTOLAN_CRASH_ROUNDS", 105);
    println!("PORTOLAN_CRASH_SEED={seed} PORTOLAN_CRASH_ROUNDS={rounds}");
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let short = "gc_interval_secs = 1\ngc_link_grace_secs = 1\ngc_unlink_grace_secs = 1\ngc_touch_grace_secs = 1\n";
    tokio::join!(
        site("without collection", one.path(), "gc_interval_secs = 86400\n", seed, rounds, false),
        site("with collection", two.path(), short, seed.wrapping_add(1), rounds, true),
    );
}

/// The same with the metadata in PostgreSQL, which is run as people run it, and the blobs in
/// S3. Fewer rounds: every start waits for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_on_postgres_and_s3() {
    let seed = number("PORTOLAN_CRASH_SEED", u64::from(std::process::id()));
    let rounds = number("PORTOLAN_CRASH_ROUNDS", 25).min(25);
    println!("PORTOLAN_CRASH_SEED={seed}");
    let cluster = postgres::Cluster::start(postgres::Durability::Real);
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("gc_interval_secs = 86400\n{}", shared(&cluster.database()));
    site("postgres and s3", folder.path(), &settings, seed, rounds, false).await;
}

/// Settings for a database and a bucket of the test's own.
pub(crate) fn shared(database: &str) -> String {
    let bucket = bucket::bucket(bucket::Service::S3);
    let mut settings = format!("database = {}\n", json!(database));
    let all = [
        ("blobs", Some(bucket.url)),
        ("blob_endpoint", Some(bucket.endpoint)),
        ("blob_account", bucket.account),
        ("blob_secret", bucket.secret),
        ("blob_region", Some("us-east-1".to_owned())),
    ];
    for (name, value) in all.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        settings.push_str(&format!("{name} = {}\n", json!(value)));
    }
    settings
}
