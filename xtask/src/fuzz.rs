//! `cargo xtask fuzz [--secs N] [TARGET]…`: libFuzzer over the targets of `crates/fuzz`.
//!
//! It needs no nightly compiler: coverage is one of LLVM's passes, asked for by flags, and
//! `libfuzzer-sys` brings the engine (a C++ compiler is needed). Each target runs for N
//! seconds from its corpus; the inputs that reach new code are then added to it, the
//! fewest that do. An input that breaks a property ends its target, is printed as the corpus
//! writes it and stays under `target/fuzz/found/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Coverage by edges, as libFuzzer reads it; comparisons, so that it can guess words.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// How long each target runs when nobody says otherwise.
const SECS_DEFAULT: u64 = 20;
/// An input that takes longer than this is a finding.
const INPUT_SECS_MAX: u64 = 5;
/// One allocation larger than this is a finding.
const ALLOCATION_MB_MAX: u64 = 256;
/// The corpus of one target as it is kept, in bytes of inputs: the shortest ones.
const CORPUS_BYTES_MAX: u64 = 48 * 1024;

/// Run the named targets, or all.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<()> {
    let (secs, names) = match args {
        ["--secs", secs, names @ ..] => (secs.parse().context("--secs takes a number of seconds")?, names),
        names => (SECS_DEFAULT, names),
    };
    let fuzz = Fuzz::build(root)?;
    let mut known = fuzz.targets()?;
    if let Some(name) = names.iter().find(|name| known.iter().all(|(k, _)| k != *name)) {
        let all: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        bail!("there is no target {name}: {}", all.join(" "));
    }
    known.retain(|(name, _)| names.is_empty() || names.contains(&name.as_str()));
    let mut broken = Vec::new();
    for (name, bytes_max) in &known {
        if !fuzz.one(name, *bytes_max, secs)? {
            broken.push(name.as_str());
        }
    }
    if !broken.is_empty() {
        bail!("properties do not hold: {}", broken.join(", "));
    }
    Ok(())
}

struct Fuzz {
    root: PathBuf,
    /// `target/fuzz`
    folder: PathBuf,
    /// The program under libFuzzer.
    guided: PathBuf,
}

impl Fuzz {
    fn build(root: &Path) -> Result<Fuzz> {
        let folder = root.join("target/fuzz");
        let host = host()?;
        let mut cargo = Command::new("cargo");
        cargo.current_dir(root).args(["build", "--quiet", "--package", "portolan-fuzz", "--target-dir"]).arg(&folder);
        // With --target, build scripts and macros are left without the flags.
        cargo.args(["--target", &host, "--config", "profile.dev.opt-level=1"]).env("RUSTFLAGS", FLAGS.join(" "));
        done(&mut cargo)?;
        let guided = folder.join(&host).join("debug/portolan-fuzz");
        Ok(Fuzz { root: root.to_owned(), folder, guided })
    }

    /// The program without libFuzzer, which lists, packs and tries.
    fn plain(&self) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&self.root).args(["run", "--quiet", "--package", "portolan-fuzz", "--"]);
        cargo
    }

    /// Names and longest inputs.
    fn targets(&self) -> Result<Vec<(String, u64)>> {
        let listed = self.plain().arg("list").output().context("list the targets")?;
        let listed = String::from_utf8(listed.stdout).context("list the targets")?;
        let line = |line: &str| {
            let (name, bytes) = line.split_once(' ')?;
            Some((name.to_owned(), bytes.parse().ok()?))
        };
        listed.lines().map(|l| line(l).with_context(|| format!("not a target: {l}"))).collect()
    }

    /// Whether every input kept to the properties.
    fn one(&self, name: &str, bytes_max: u64, secs: u64) -> Result<bool> {
        let [seeds, reached, found] = ["seeds", "reached", "found"].map(|f| self.folder.join(f).join(name));
        for folder in [&seeds, &reached] {
            match fs::remove_dir_all(folder) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).context("empty the last run's folder");
                }
                _ => fs::create_dir_all(folder).context("make a folder")?,
            }
        }
        fs::create_dir_all(&found).context("make a folder")?;
        done(self.plain().args(["unpack", name]).arg(&seeds))?;
        println!("{name}: {secs} s");
        let mut guided = Command::new(&self.guided);
        guided
            .env("PORTOLAN_FUZZ_TARGET", name)
            .args([&reached, &seeds])
            .arg(format!("-dict={}", seeds.with_extension("dict").display()))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg(format!("-max_total_time={secs}"))
            .arg(format!("-max_len={bytes_max}"))
            .arg(format!("-timeout={INPUT_SECS_MAX}"))
            .arg(format!("-malloc_limit_mb={ALLOCATION_MB_MAX}"))
            .args(["-print_final_stats=1", "-verbosity=0"]);
        if !guided.status().context("run libFuzzer")?.success() {
            let files = fs::read_dir(&found).context("read what was found")?;
            let files: Vec<PathBuf> = files.filter_map(|f| f.ok().map(|f| f.path())).collect();
            let _ = self.plain().args(["file", name]).args(files).status();
            return Ok(false);
        }
        let before = fs::read_dir(&seeds).context("read the corpus")?.count();
        done(
            Command::new(&self.guided)
                .env("PORTOLAN_FUZZ_TARGET", name)
                .args(["-merge=1", "-verbosity=0"])
                .args([&seeds, &reached]),
        )?;
        let kept = shorten(&seeds)?;
        done(self.plain().args(["pack", name]).arg(&seeds))?;
        println!("{name}: {before} inputs in the corpus before, {kept} now");
        Ok(true)
    }
}

/// Take the longest files out until what is left is small enough; how many are left.
fn shorten(folder: &Path) -> Result<usize> {
    let mut files = Vec::new();
    for file in fs::read_dir(folder).context("read the corpus")? {
        let file = file.context("read the corpus")?;
        files.push((file.metadata().context("read the corpus")?.len(), file.path()));
    }
    files.sort();
    let (mut bytes, mut kept) = (0, 0);
    for (length, path) in &files {
        bytes += length;
        if bytes <= CORPUS_BYTES_MAX {
            kept += 1;
        } else {
            fs::remove_file(path).context("shorten the corpus")?;
        }
    }
    Ok(kept)
}

/// The triple of this machine.
fn host() -> Result<String> {
    let told = Command::new("rustc").arg("-vV").output().context("ask rustc for its host")?;
    let told = String::from_utf8(told.stdout).context("ask rustc for its host")?;
    told.lines().find_map(|l| l.strip_prefix("host: ")).map(str::to_owned).context("rustc names no host")
}

fn done(command: &mut Command) -> Result<()> {
    if !command.status().with_context(|| format!("start {command:?}"))?.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}
