//! What operations cost when there is much, beside what they cost when there is little.
//!
//! Two of our servers, one with a thousandth of the other's tags and repositories, filled
//! by the store's own seeder (`crates/store/src/bin/portolan-seed.rs`). Both are started anew in
//! every round and asked the same, in turn. What is asked for is a thousand tags spread
//! over all there are: first each once, from the database, then again and again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::cases::{MANIFEST_TYPE, SMALL_BYTES, content, digest_of, get, manifest, push, put_manifest};
use super::load::{Client, Sample, drive, each, empty};
use super::servers::{REGISTRY, Server};
use super::{Options, median, median_of};

/// The smaller of the two has so much less.
const SMALLER: u64 = 1_000;
/// Tags that are asked for.
const ASKED_TAGS: u64 = 1_000;
/// Tags and repositories in a page that both stores have.
const TAGS_PAGE: u64 = 20;
const REPOS_PAGE: u64 = 4;
/// The largest page.
const WHOLE_PAGE: u64 = 1_000;

#[derive(Clone, Copy, PartialEq)]
enum Ask {
    First,
    Get,
    Tags(Part, u64),
    Catalog(Part, u64),
    Put,
    PutAndDelete,
    Push,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    First,
    Middle,
    Last,
}

impl Part {
    const ALL: [Part; 3] = [Part::First, Part::Middle, Part::Last];

    /// How many of `count` come before a page of `page`.
    fn skipped(self, count: u64, page: u64) -> u64 {
        match self {
            Part::First => 0,
            Part::Middle => (count / 2).min(count.saturating_sub(page)),
            Part::Last => count.saturating_sub(page),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Part::First => "first",
            Part::Middle => "middle",
            Part::Last => "last",
        }
    }
}

impl Ask {
    fn all() -> Vec<Ask> {
        let mut all = vec![Ask::First, Ask::Get];
        for page in [TAGS_PAGE, WHOLE_PAGE] {
            all.extend(Part::ALL.map(|part| Ask::Tags(part, page)));
        }
        for page in [REPOS_PAGE, WHOLE_PAGE] {
            all.extend(Part::ALL.map(|part| Ask::Catalog(part, page)));
        }
        all.extend([Ask::Put, Ask::PutAndDelete, Ask::Push]);
        all
    }

    fn name(self) -> String {
        match self {
            Ask::First => "manifest GET, the first after a start".to_owned(),
            Ask::Get => "manifest GET".to_owned(),
            Ask::Tags(part, page) => format!("tags, {} page of {page}", part.name()),
            Ask::Catalog(part, page) => format!("catalog, {} page of {page}", part.name()),
            Ask::Put => "manifest PUT".to_owned(),
            Ask::PutAndDelete => "manifest PUT and DELETE".to_owned(),
            Ask::Push => "blob push 10 KiB".to_owned(),
        }
    }

    /// Whether the smaller store has as many entries for the page.
    fn compares(self) -> bool {
        !matches!(self, Ask::Tags(_, WHOLE_PAGE) | Ask::Catalog(_, WHOLE_PAGE))
    }
}

/// One of the two servers.
struct Store {
    server: Server,
    repositories: u64,
    tags: u64,
    /// Repositories that are written to.
    written: u64,
    starts: Vec<f64>,
    resident: Vec<f64>,
    peak: f64,
    samples: Vec<Vec<Sample>>,
}

impl Store {
    async fn fill(
        work: &Path,
        name: &'static str,
        [bin, seeder]: [&Path; 2],
        [repositories, tags, written]: [u64; 3],
    ) -> Result<Store> {
        let scopes = ["repository:*:*".to_owned(), "registry:catalog:*".to_owned()];
        let mut server = Server::portolan(work, name, bin, &scopes).await?;
        let blob = content(SMALL_BYTES, 1);
        push(&mut Client::connect(&server).await?, "bench/big", blob.clone()).await?;
        server.stop().await?;
        eprintln!("seeding {tags} tags in {repositories} repositories");
        let (db, digest) = (work.join(name).join("portolan.db"), digest_of(&blob));
        let status = Command::new(seeder)
            .arg(db)
            .args([REGISTRY, &repositories.to_string(), &tags.to_string(), &digest, &digest])
            .arg(SMALL_BYTES.to_string())
            .status()
            .context("run the seeder")?;
        ensure!(status.success(), "the seeder failed");
        let samples = Ask::all().iter().map(|_| Vec::new()).collect();
        Ok(Store { server, repositories, tags, written, starts: Vec::new(), resident: Vec::new(), peak: 0.0, samples })
    }

    /// As the seeder names them.
    fn tag(&self, n: u64) -> (String, String) {
        let (big, others) = (self.big(), (self.repositories - 1).max(1));
        let repository = match n.checked_sub(big) {
            None => "bench/big".to_owned(),
            Some(n) => repository(1 + n * others / (self.tags - big)),
        };
        (repository, format!("t{n:07}"))
    }

    /// Tags in the one large repository.
    fn big(&self) -> u64 {
        self.tags / 10
    }

    /// One of the tags that are asked for.
    fn asked(&self, n: u64) -> (String, String) {
        self.tag(n % ASKED_TAGS * (self.tags / ASKED_TAGS))
    }

    /// One of as many repositories as the smaller store has, for writes: so that both stores
    /// share the same number of them between two commits.
    fn written(&self, n: u64) -> String {
        let repositories = self.written;
        self.asked(n % repositories * (ASKED_TAGS / repositories)).0
    }

    async fn run(&self, ask: Ask, conns: usize, time: Duration, round: u64) -> Result<Sample> {
        let server = &self.server;
        let accept = [("accept", MANIFEST_TYPE)];
        // One at a time: what counts is how long a page takes, not how long the queue is.
        let list = async |path: String, page: u64| {
            drive(server, 1, time, async |client, _| {
                let len = get(client, &path, &[], StatusCode::OK, None).await?;
                ensure!(len > page, "a page of {page} is of {len} bytes");
                Ok(len)
            })
            .await
        };
        match ask {
            Ask::First | Ask::Get => {
                let paths: Vec<String> = (0..ASKED_TAGS)
                    .map(|n| {
                        let (repository, tag) = self.asked(n);
                        format!("/v2/{repository}/manifests/{tag}")
                    })
                    .collect();
                let one = async |client: &mut Client<'_>, n: u64| {
                    get(client, &paths[(n % ASKED_TAGS) as usize], &accept, StatusCode::OK, None).await
                };
                match ask {
                    Ask::First => each(server, conns, ASKED_TAGS, one).await,
                    _ => drive(server, conns, time, one).await,
                }
            }
            Ask::Tags(part, page) => {
                let last = match part.skipped(self.big(), page) {
                    0 => String::new(),
                    n => format!("&last=t{:07}", n - 1),
                };
                list(format!("/v2/bench/big/tags/list?n={page}{last}"), page.min(self.big())).await
            }
            Ask::Catalog(part, page) => {
                let last = match part.skipped(self.repositories, page) {
                    0 => String::new(),
                    1 => "&last=bench/big".to_owned(),
                    n => format!("&last={}", repository(n - 1)),
                };
                list(format!("/v2/_catalog?n={page}{last}"), page.min(self.repositories)).await
            }
            Ask::Put => {
                drive(server, conns, time, async |client, n| {
                    let bytes = manifest((round + 1) << 40 | n);
                    put_manifest(client, &self.written(n), &format!("r{round}-{n}"), bytes).await?;
                    Ok(0)
                })
                .await
            }
            Ask::PutAndDelete => {
                drive(server, conns, time, async |client, n| {
                    let bytes = manifest((round + 1) << 50 | n);
                    let (repository, digest) = (self.written(n), digest_of(&bytes.clone().into()));
                    put_manifest(client, &repository, &digest, bytes).await?;
                    let path = format!("/v2/{repository}/manifests/{digest}");
                    client.call(Method::DELETE, &path, &[], empty(), StatusCode::ACCEPTED).await?;
                    Ok(0)
                })
                .await
            }
            Ask::Push => {
                drive(server, conns, time, async |client, n| {
                    push(client, &self.written(n), content(SMALL_BYTES, (round + 1) << 45 | n)).await?;
                    Ok(SMALL_BYTES as u64)
                })
                .await
            }
        }
    }
}

fn repository(n: u64) -> String {
    format!("bench/r{n:06}")
}

/// What came of it.
pub(super) struct Scale {
    stores: [Store; 2],
}

/// Build the seeder. Together with the server, so that what is built already for the server
/// is not built once more for other features.
fn seeder() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "-p", "portolan", "-p", "portolan-store"])
        .args(["--bin", "portolan-seed"])
        .status()
        .context("build the seeder")?;
    ensure!(status.success(), "the seeder cannot be built");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(target.join("release/portolan-seed"))
}

/// Fill both stores and measure.
pub(super) async fn measure(options: &Options, work: &Path) -> Result<Scale> {
    let (repositories, tags) = (options.tags / 100, options.tags);
    let smaller = |n: u64| (n / SMALLER).max(1);
    let written = smaller(repositories).min(ASKED_TAGS);
    let seeder = seeder()?;
    let programs = [&*options.bin, &*seeder];
    let mut stores = [
        Store::fill(work, "portolan-few", programs, [smaller(repositories), smaller(tags), written]).await?,
        Store::fill(work, "portolan-many", programs, [repositories, tags, written]).await?,
    ];
    let time = Duration::from_secs_f64(options.secs as f64 / 4.0);
    for round in 0..options.rounds as u64 {
        for store in &mut stores {
            store.server.resume().await?;
            store.starts.push(store.server.start_millis);
            store.resident.push(store.server.resident_mib()?);
        }
        for (a, ask) in Ask::all().into_iter().enumerate() {
            for store in &mut stores {
                eprintln!("round {} of {}: {} with {} tags", round + 1, options.rounds, ask.name(), store.tags);
                let sample = store.run(ask, options.conns, time, round).await;
                let sample = sample.with_context(|| format!("{} on {}", ask.name(), store.server.name))?;
                store.peak = store.peak.max(sample.peak_mib);
                store.samples[a].push(sample);
            }
        }
        for store in &mut stores {
            store.server.stop().await?;
        }
    }
    Ok(Scale { stores })
}

impl Scale {
    /// Print the table; its rows for the file.
    pub(super) fn report(&self) -> Vec<Value> {
        let [few, many] = &self.stores;
        println!();
        println!(
            "With {} tags in {} repositories, and with {} in {}:",
            few.tags, few.repositories, many.tags, many.repositories
        );
        println!();
        println!("| operation | CPU µs/op, few | many | CPU × | p50 ms, few | many | p99 ms, many | ops/s, many |");
        println!("|---|--:|--:|--:|--:|--:|--:|--:|");
        let mut rows = Vec::new();
        for (a, ask) in Ask::all().into_iter().enumerate() {
            let of = |store: &Store, figure: &dyn Fn(&Sample) -> f64| median(&store.samples[a], figure);
            let cpu = [few, many].map(|store| of(store, &|s| s.cpu_micros_per_op()));
            let p50 = [few, many].map(|store| of(store, &|s| s.percentile_ms(0.50)));
            let (p99, rate) = (of(many, &|s| s.percentile_ms(0.99)), of(many, &|s| s.rate()));
            let name = ask.name();
            match ask.compares() {
                true => println!(
                    "| {name} | {:.1} | {:.1} | {:.2} | {:.3} | {:.3} | {p99:.3} | {rate:.1} |",
                    cpu[0],
                    cpu[1],
                    cpu[1] / cpu[0].max(0.001),
                    p50[0],
                    p50[1]
                ),
                false => println!("| {name} |  | {:.1} |  |  | {:.3} | {p99:.3} | {rate:.1} |", cpu[1], p50[1]),
            }
            rows.push(json!({
                "scale": name, "tags": [few.tags, many.tags], "comparable": ask.compares(),
                "cpuMicrosPerOp": cpu, "p50Ms": p50, "p99Ms": p99, "opsPerSec": rate,
            }));
        }
        println!();
        println!("| figure | {} tags | {} tags |", few.tags, many.tags);
        println!("|---|--:|--:|");
        for (name, figure) in [
            ("start to first answer, ms", (|store: &Store| median_of(store.starts.clone())) as fn(&Store) -> f64),
            ("memory after the start, MiB", |store: &Store| median_of(store.resident.clone())),
            ("peak of memory, MiB", |store: &Store| store.peak),
        ] {
            let values = [few, many].map(figure);
            println!("| {name} | {:.0} | {:.0} |", values[0], values[1]);
            rows.push(json!({"scale": name, "tags": [few.tags, many.tags], "values": values}));
        }
        rows
    }
}
