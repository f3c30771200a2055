//! `cargo xtask bench build`: our builder, docker's BuildKit and buildah on the same
//! Dockerfiles, side by side on one machine.
//!
//! Every figure is build *and* push: an image counts when it is stored in a registry. We
//! store while we build; docker and buildah push to Debian's docker-registry on loopback.
//! All three use the host's network and a base image that each already has.
//!
//! For each case and engine: *cold* (no step cache), *warm* (nothing changed), *touched*
//! (one source file changed). The figures are medians of `--rounds`, in milliseconds of
//! wall time at the command line; for ours the time the server took for the run stands
//! beside it. *layer* is another kind of figure: how much memory our server takes while it
//! writes one large layer.

mod cases;
mod engines;
mod layer;
mod world;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::cases::{Case, cases};
use self::engines::{Engine, engines};
use self::layer::Weight;
use self::world::World;

/// What was asked for.
struct Options {
    rounds: usize,
    files: usize,
    /// MiB of the large layer.
    layer_mib: u32,
    only: Vec<String>,
    json: Option<PathBuf>,
    bin: PathBuf,
}

const USAGE: &str =
    "usage: cargo xtask bench build [--rounds N (5)] [--quick] [--only CASE,…] [--json FILE] [--bin PATH]
cases: run30, copy20k, flask, fastapi, stages8, layer";

/// Run the benchmark and print its table on standard output.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    if !is_root() {
        bail!("bench build starts a docker daemon and builds: run it as root");
    }
    let work = tempfile::Builder::new().prefix("portolan-bench-build").tempdir_in("/var/tmp")?;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let world = World::start(work.path(), &root, &options)?;
    let cases = cases(work.path(), &root, &options)?;
    let mut rows = Vec::new();
    for case in &cases {
        for mut engine in engines(&world) {
            eprintln!("{} with {}", case.name, engine.name());
            match measure(engine.as_mut(), case, options.rounds) {
                Ok(row) => rows.push(row),
                Err(e) => eprintln!("  {} could not build {}: {e:#}", engine.name(), case.name),
            }
        }
    }
    let weight = match options.wants("layer") {
        true => Some(layer::weigh(&world, options.layer_mib)?),
        false => None,
    };
    print_table(&rows, &cases);
    if let Some(weight) = &weight {
        println!("{weight}");
    }
    if let Some(path) = &options.json {
        let mut json: Vec<_> = rows.iter().map(Row::json).collect();
        json.extend(weight.as_ref().map(Weight::json));
        fs::write(path, serde_json::to_vec_pretty(&json)?)?;
    }
    Ok(())
}

impl Options {
    fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == case)
    }
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        files: 20_000,
        layer_mib: 4096,
        only: Vec::new(),
        json: None,
        bin: PathBuf::from(std::env::var_os("PORTOLAN_BIN").unwrap_or_else(|| "target/release/portolan".into())),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--rounds" => options.rounds = value()?.parse::<usize>().context("--rounds takes a number")?.clamp(1, 50),
            "--quick" => {
                options.rounds = 1;
                options.files = 2_000;
                options.layer_mib = 256;
            }
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

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n")
}

struct Row {
    case: &'static str,
    engine: &'static str,
    cold_ms: f64,
    /// The cold build without its push; `None` where there is no push.
    cold_build_ms: Option<f64>,
    warm_ms: f64,
    touched_ms: f64,
    server_warm_ms: Option<f64>,
}

impl Row {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({"case": self.case, "engine": self.engine, "cold_ms": self.cold_ms, "cold_build_ms": self.cold_build_ms, "warm_ms": self.warm_ms,
            "touched_ms": self.touched_ms, "server_warm_ms": self.server_warm_ms})
    }
}

fn measure(engine: &mut dyn Engine, case: &Case, rounds: usize) -> Result<Row> {
    let (mut cold, mut warm, mut touched, mut server) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut built = Vec::new();
    let timed = |engine: &mut dyn Engine, tag: &str, no_cache: bool| -> Result<(f64, Option<f64>)> {
        let start = Instant::now();
        let built = engine.build(case, tag, no_cache)?;
        Ok((start.elapsed().as_secs_f64() * 1000.0, built.map(|b| b.as_secs_f64() * 1000.0)))
    };
    for round in 0..rounds {
        // A cold build makes other layers each time, so that its push has something to push.
        fs::write(&case.touch, format!("{} cold {round} {}\n", engine.name(), std::process::id()))?;
        engine.forget()?;
        let (whole, alone) = timed(engine, "cold", true)?;
        cold.push(whole);
        built.extend(alone);
        // The first build with the cache on may only fill it.
        timed(engine, "fill", false)?;
        warm.push(timed(engine, "warm", false)?.0);
        server.extend(engine.server_ms());
        fs::write(&case.touch, format!("{} touched {round} {}\n", engine.name(), std::process::id()))?;
        touched.push(timed(engine, "touched", false)?.0);
    }
    Ok(Row {
        case: case.name,
        engine: engine.name(),
        cold_ms: median(&mut cold),
        cold_build_ms: (!built.is_empty()).then(|| median(&mut built)),
        warm_ms: median(&mut warm),
        touched_ms: median(&mut touched),
        server_warm_ms: (!server.is_empty()).then(|| median(&mut server)),
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print_table(rows: &[Row], cases: &[Case]) {
    if rows.is_empty() {
        return;
    }
    println!("| case | engine | cold ms | cold, without the push ms | warm ms | touched ms | warm, server only ms |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for row in rows {
        let known = |ms: Option<f64>| ms.map_or_else(String::new, |ms| format!("{ms:.0}"));
        let (server, alone) = (known(row.server_warm_ms), known(row.cold_build_ms));
        println!(
            "| {} | {} | {:.0} | {alone} | {:.0} | {:.0} | {server} |",
            row.case, row.engine, row.cold_ms, row.warm_ms, row.touched_ms
        );
    }
    println!();
    for case in cases {
        println!("{}: {}", case.name, case.what);
    }
}
