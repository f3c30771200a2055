//! `cargo xtask bench registry`: our server and Debian's docker-registry, side by side on
//! one machine, driven by one client over plain HTTP on loopback.
//!
//! Ours answers as it is shipped: every data request carries a token that is checked, and
//! every write is synced to disk, file and folder, before it is acknowledged. docker-registry
//! runs without authentication on its file system driver, which syncs files but not the
//! folders they are named in, and with its in-memory cache of blob descriptors.
//!
//! The two take turns case by case, `--rounds` times; the figures are medians over rounds.
//! CPU is the server's user and system time over the operations of the case, in steps of
//! 10 ms; the peak of memory is reset before each case.

mod cases;
mod load;
mod process;
mod scale;
mod servers;
pub(super) mod tokens;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use cases::Case;
use load::Sample;
use servers::{MOUNTS, REPO, Server};

const USAGE: &str = "usage: cargo xtask bench registry [--rounds N (5)] [--seconds S (2)] [--conns N (16)]
                                 [--tags N (1000000)] [--quick] [--only CASE,…] [--json FILE] [--bin PATH]
cases: ping, manifest-get, manifest-head, manifest-digest, crowd, blob-10k-get, range-64k, blob-100m-get,
blob-10k-push, manifest-put, mount, blob-1g-push; and process (start and memory), scale (many tags)
The client shares the machine with the servers: `cargo run --release -p xtask -- bench registry` makes it cheaper.";

struct Options {
    rounds: usize,
    secs: u64,
    conns: usize,
    large_bytes: usize,
    tags: u64,
    only: Vec<String>,
    json: Option<PathBuf>,
    bin: PathBuf,
}

/// Run the benchmark and print its table on standard output.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        secs: 2,
        conns: 16,
        large_bytes: 1024 * 1024 * 1024,
        tags: 1_000_000,
        only: Vec::new(),
        json: None,
        bin: PathBuf::from(std::env::var_os("PORTOLAN_BIN").unwrap_or_else(|| "target/release/portolan".into())),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        let number = |text: String| text.parse::<usize>().with_context(|| format!("{arg} takes a number"));
        match arg.as_str() {
            "--rounds" => options.rounds = number(value()?)?.clamp(1, 50),
            "--seconds" => options.secs = number(value()?)?.clamp(1, 600) as u64,
            "--conns" => options.conns = number(value()?)?.clamp(1, 256),
            // In whole millions: the smaller store has a thousandth, and a thousand are asked for.
            "--tags" => options.tags = (number(value()?)?.clamp(1_000_000, 100_000_000) as u64) / 1_000_000 * 1_000_000,
            "--quick" => (options.rounds, options.secs, options.large_bytes) = (1, 1, 128 * 1024 * 1024),
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--json" => options.json = Some(value()?.into()),
            "--bin" => options.bin = value()?.into(),
            _ => bail!("unknown argument {arg}\n{USAGE}"),
        }
    }
    options.bin = options.bin.canonicalize().with_context(|| {
        format!("no binary at {}: run `cargo build --release -p portolan` first", options.bin.display())
    })?;
    Ok(options)
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

async fn measure(options: &Options) -> Result<()> {
    let work = tempfile::Builder::new().prefix("portolan-bench-registry").tempdir_in("/var/tmp")?;
    let cases: Vec<Case> =
        cases::all(options.conns, options.large_bytes).into_iter().filter(|case| options.wants(case.name)).collect();
    if cases.is_empty() && !options.wants("process") && !options.wants("scale") {
        bail!("no such case\n{USAGE}");
    }
    let mut rows = vec![machine()];
    if options.wants("process") || !cases.is_empty() {
        let mut scopes = vec![format!("repository:{REPO}:pull,push")];
        scopes.extend((0..options.rounds).map(|round| format!("repository:{MOUNTS}{round}:pull,push")));
        let mut servers = [
            Server::portolan(work.path(), "portolan", &options.bin, &scopes).await?,
            Server::docker_registry(work.path()).await?,
        ];
        let process = match options.wants("process") {
            true => Some(process::measure(options, &mut servers).await?),
            false => None,
        };
        if !cases.is_empty() {
            rows.extend(side_by_side(options, &cases, &servers).await?);
        }
        if let Some(process) = process {
            rows.extend(process.report());
        }
    }
    // With the other servers ended: their memory and their threads are out of the way.
    if options.wants("scale") {
        rows.extend(scale::measure(options, work.path()).await?.report());
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    Ok(())
}

/// What it was measured on.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
    };
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let machine = json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"), "processors": processors,
        "memory": field(&read("/proc/meminfo"), "MemTotal"), "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").trim(),
    });
    println!("Machine: {machine}\n");
    json!({ "machine": machine })
}

async fn side_by_side(options: &Options, cases: &[Case], servers: &[Server; 2]) -> Result<Vec<Value>> {
    for server in servers {
        cases::prepare(server).await.with_context(|| format!("prepare {}", server.name))?;
    }
    let mut samples: BTreeMap<(usize, usize), Vec<Sample>> = BTreeMap::new();
    for round in 0..options.rounds {
        for (c, case) in cases.iter().enumerate() {
            for (s, server) in servers.iter().enumerate() {
                eprintln!("round {} of {}: {} on {}", round + 1, options.rounds, case.name, server.name);
                let sample = case.run(server, Duration::from_secs(options.secs), round as u64).await;
                let sample = sample.with_context(|| format!("{} on {}", case.name, server.name))?;
                samples.entry((c, s)).or_default().push(sample);
            }
        }
    }
    Ok(report(options, cases, servers, &samples))
}

/// The median of one figure over the rounds.
fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median_of(samples.iter().map(figure).collect())
}

fn median_of(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

fn report(
    options: &Options,
    cases: &[Case],
    servers: &[Server],
    samples: &BTreeMap<(usize, usize), Vec<Sample>>,
) -> Vec<Value> {
    println!("| case | conns | server | ops/s | MiB/s | p50 ms | p99 ms | CPU µs/op | peak MiB | rate × | CPU × |");
    println!("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut rows = Vec::new();
    for (c, case) in cases.iter().enumerate() {
        let of = |s: usize, figure: &dyn Fn(&Sample) -> f64| {
            samples.get(&(c, s)).map_or(0.0, |samples| median(samples, figure))
        };
        for (s, server) in servers.iter().enumerate() {
            let rate = of(s, &|x| x.rate());
            let cpu = of(s, &|x| x.cpu_micros_per_op());
            let [mib, p50, p99, peak] = [
                of(s, &|x| x.mib_per_sec()),
                of(s, &|x| x.percentile_ms(0.50)),
                of(s, &|x| x.percentile_ms(0.99)),
                of(s, &|x| x.peak_mib),
            ];
            // How ours compares stands in our row.
            let (rate_ratio, cpu_ratio) = match s {
                0 => (ratio(rate, of(1, &|x| x.rate())), ratio(cpu, of(1, &|x| x.cpu_micros_per_op()))),
                _ => (String::new(), String::new()),
            };
            println!(
                "| {} | {} | {} | {rate:.1} | {mib:.1} | {p50:.3} | {p99:.3} | {cpu:.1} | {peak:.0} | {rate_ratio} | {cpu_ratio} |",
                case.what, case.conns, server.name
            );
            rows.push(json!({
                "case": case.name, "server": server.name, "conns": case.conns, "rounds": options.rounds,
                "opsPerSec": rate, "mibPerSec": mib, "p50Ms": p50, "p99Ms": p99, "cpuMicrosPerOp": cpu, "peakMib": peak,
            }));
        }
    }
    rows
}

fn ratio(ours: f64, theirs: f64) -> String {
    if theirs > 0.0 { format!("{:.2}", ours / theirs) } else { String::new() }
}
