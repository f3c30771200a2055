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
//! beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

struct Options {
    rounds: usize,
    files: usize,
    only: Vec<String>,
    json: Option<PathBuf>,
    bin: PathBuf,
}

const USAGE: &str =
    "usage: cargo xtask bench build [--rounds N (5)] [--quick] [--only CASE,…] [--json FILE] [--bin PATH]
cases: run30, copy20k, flask, fastapi, stages8";

/// One Dockerfile with its context, made on disk.
struct Case {
    name: &'static str,
    what: &'static str,
    dir: PathBuf,
    /// The file that a *touched* round changes.
    touch: PathBuf,
}

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
        for mut engine in world.engines() {
            eprintln!("{} with {}", case.name, engine.name());
            match measure(engine.as_mut(), case, options.rounds) {
                Ok(row) => rows.push(row),
                Err(e) => eprintln!("  {} could not build {}: {e:#}", engine.name(), case.name),
            }
        }
    }
    print_table(&rows, &cases);
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&rows.iter().map(Row::json).collect::<Vec<_>>())?)?;
    }
    Ok(())
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        files: 20_000,
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

/// The servers that a round needs; all end when this is dropped.
struct World {
    work: PathBuf,
    bin: PathBuf,
    login_server: String,
    registry: String,
    children: Vec<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // dockerd unmounts and stops containers on SIGTERM; a plain kill would leave them.
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }
}

impl World {
    fn start(work: &Path, root: &Path, options: &Options) -> Result<World> {
        let mut world = World {
            work: work.to_owned(),
            bin: options.bin.clone(),
            login_server: String::new(),
            registry: String::new(),
            children: Vec::new(),
        };
        // Debian's registry, for docker and buildah to push to.
        let port = free_port()?;
        world.registry = format!("localhost:{port}");
        let config = work.join("registry.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
                work.join("registry").display()
            ),
        )?;
        world.spawn("registry.log", Command::new("docker-registry").arg("serve").arg(&config))?;
        let socket = format!("unix://{}", work.join("docker.sock").display());
        world.spawn(
            "dockerd.log",
            Command::new("dockerd")
                .args(["--host", &socket])
                .arg("--data-root")
                .arg(work.join("docker"))
                .arg("--exec-root")
                .arg(work.join("docker-exec"))
                .arg("--pidfile")
                .arg(work.join("docker.pid")),
        )?;
        fs::write(
            work.join("storage.conf"),
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/containers\"\nrunroot = \"{0}/containers-run\"\n",
                work.display()
            ),
        )?;
        fs::write(work.join("auth.json"), "{}")?;
        let data = work.join("data");
        world.spawn(
            "portolan.log",
            Command::new(&options.bin).args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data),
        )?;
        let bootstrap = data.join("bootstrap.json");
        wait_for("portolan", || {
            fs::read_to_string(work.join("portolan.log")).is_ok_and(|log| log.contains("portolan ready"))
        })?;
        wait_for("dockerd", || world.docker().arg("version").output().is_ok_and(|o| o.status.success()))?;
        world.portolan(&["login", "--bootstrap", &bootstrap.to_string_lossy(), "-o", "none"])?;
        world.portolan(&["group", "create", "--name", "bench", "--location", "local", "-o", "none"])?;
        world.portolan(&["acr", "create", "-g", "bench", "-n", "benchreg", "--sku", "Premium", "-o", "none"])?;
        world.login_server = world
            .portolan(&["acr", "show", "-n", "benchreg", "--query", "loginServer", "-o", "tsv"])?
            .trim()
            .to_owned();
        world.bases(root)?;
        Ok(world)
    }

    fn spawn(&mut self, log: &str, command: &mut Command) -> Result<()> {
        let log = fs::File::create(self.work.join(log))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {:?}", command.get_program()))?;
        self.children.push(child);
        Ok(())
    }

    /// The base images, put into all three engines under the names the Dockerfiles use.
    fn bases(&self, root: &Path) -> Result<()> {
        for (kind, name) in [("busybox", "busybox:latest"), ("python", "python:3.11-slim")] {
            let dir = root.join("target/base-images").join(kind);
            if !dir.join("Dockerfile").exists() {
                succeed(Command::new(root.join("scripts/base-image")).arg(kind).arg(&dir))?;
            }
            let dir = dir.to_string_lossy().into_owned();
            self.portolan(&["acr", "build", "-r", "benchreg", "-t", name, &dir])?;
            succeed(self.docker().args(["build", "-q", "-t", name, &dir]))?;
            succeed(self.buildah().args(["bud", "-q", "-t", &format!("docker.io/library/{name}"), &dir]))?;
        }
        Ok(())
    }

    fn portolan(&self, args: &[&str]) -> Result<String> {
        succeed(Command::new(&self.bin).args(args).env("PORTOLAN_CONFIG_DIR", self.work.join("profile")))
    }

    fn docker(&self) -> Command {
        // The client that belongs to the daemon: a newer one wants a plugin for BuildKit.
        let program = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.work.join("docker.sock").display()))
            .env("DOCKER_CONFIG", self.work.join("docker-config"))
            .env("DOCKER_BUILDKIT", "1");
        command
    }

    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        command
            .env("CONTAINERS_STORAGE_CONF", self.work.join("storage.conf"))
            .env("REGISTRY_AUTH_FILE", self.work.join("auth.json"))
            .env("BUILDAH_RUNTIME", "runc");
        command
    }

    fn engines(&self) -> Vec<Box<dyn Engine + '_>> {
        vec![Box::new(Ours { world: self }), Box::new(Docker(self)), Box::new(Buildah(self))]
    }
}

/// One way to get from a context to an image in a registry.
trait Engine {
    fn name(&self) -> &'static str;
    /// Forget every step done before, and what was pushed stays.
    fn forget(&mut self) -> Result<()>;
    /// Build and store under `tag`; `cold` may not use the cache. Answers how long the build
    /// alone took, before the push, where the two are apart.
    fn build(&mut self, case: &Case, tag: &str, cold: bool) -> Result<Option<Duration>>;
    /// Milliseconds the server itself took for the last build, where that is known.
    fn server_ms(&self) -> Option<f64> {
        None
    }
}

struct Ours<'a> {
    world: &'a World,
}

impl Engine for Ours<'_> {
    fn name(&self) -> &'static str {
        "portolan"
    }

    fn forget(&mut self) -> Result<()> {
        Ok(())
    }

    fn build(&mut self, case: &Case, tag: &str, cold: bool) -> Result<Option<Duration>> {
        let image = format!("{}:{tag}", case.name);
        let dir = case.dir.to_string_lossy().into_owned();
        let mut args = vec!["acr", "build", "-r", "benchreg", "-t", &image];
        if cold {
            args.push("--no-cache");
        }
        args.push(&dir);
        self.world.portolan(&args)?;
        Ok(None)
    }

    fn server_ms(&self) -> Option<f64> {
        let times = self
            .world
            .portolan(&["acr", "task", "list-runs", "-r", "benchreg", "--top", "1", "-o", "json"])
            .ok()
            .and_then(|out| serde_json::from_str::<serde_json::Value>(&out).ok())?;
        let run = times.get(0)?;
        let at = |name: &str| run.get(name).and_then(|v| v.as_str()).and_then(seconds_of_day);
        let took = at("finishTime")? - at("startTime")?;
        (took >= 0.0).then_some(took * 1000.0)
    }
}

/// Seconds since midnight of an RFC 3339 time.
fn seconds_of_day(time: &str) -> Option<f64> {
    let clock = time.split('T').nth(1)?;
    let clock = clock.trim_end_matches('Z').split('+').next()?;
    let mut parts = clock.split(':').map(|p| p.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

struct Docker<'a>(&'a World);

impl Engine for Docker<'_> {
    fn name(&self) -> &'static str {
        "docker BuildKit"
    }

    fn forget(&mut self) -> Result<()> {
        succeed(self.0.docker().args(["builder", "prune", "-af"])).map(drop)
    }

    fn build(&mut self, case: &Case, tag: &str, cold: bool) -> Result<Option<Duration>> {
        let image = format!("{}/{}:{tag}", self.0.registry, case.name);
        let mut command = self.0.docker();
        command.args(["build", "-q", "--network", "host", "-t", &image]);
        if cold {
            command.arg("--no-cache");
        }
        let start = Instant::now();
        succeed(command.arg(&case.dir))?;
        let built = start.elapsed();
        succeed(self.0.docker().args(["push", "-q", &image]))?;
        Ok(Some(built))
    }
}

struct Buildah<'a>(&'a World);

impl Engine for Buildah<'_> {
    fn name(&self) -> &'static str {
        "buildah"
    }

    fn forget(&mut self) -> Result<()> {
        Ok(())
    }

    fn build(&mut self, case: &Case, tag: &str, cold: bool) -> Result<Option<Duration>> {
        let image = format!("{}/{}:{tag}", self.0.registry, case.name);
        let mut command = self.0.buildah();
        command.args(["bud", "-q", "--layers", "--network", "host", "--pull-never", "-t", &image]);
        if cold {
            command.arg("--no-cache");
        }
        let start = Instant::now();
        succeed(command.arg(&case.dir))?;
        let built = start.elapsed();
        succeed(self.0.buildah().args(["push", "-q", "--tls-verify=false", &image]))?;
        Ok(Some(built))
    }
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

fn cases(work: &Path, root: &Path, options: &Options) -> Result<Vec<Case>> {
    let dir = |name: &str| -> Result<PathBuf> {
        let dir = work.join("ctx").join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    };
    let mut cases = Vec::new();

    let run30 = dir("run30")?;
    let mut text = String::from("FROM busybox\nCOPY source /source\n");
    for i in 0..30 {
        text.push_str(&format!("RUN echo {i} >/step{i}\n"));
    }
    fs::write(run30.join("Dockerfile"), text)?;
    let touch = run30.join("source");
    cases.push(Case { name: "run30", what: "30 RUN steps on busybox, after one COPY", dir: run30, touch });

    let copy = dir("copy20k")?;
    fs::write(copy.join("Dockerfile"), "FROM busybox\nCOPY . /src/\n")?;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for i in 0..options.files {
        let sub = copy.join(format!("d{:03}", i % 200));
        fs::create_dir_all(&sub)?;
        let mut body = Vec::with_capacity(10_000);
        while body.len() < 10_000 {
            // Source-like content: words from a small set, so that it compresses as code does.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            body.extend_from_slice(format!("let value_{:x} = call({:x});\n", seed % 4096, seed >> 40).as_bytes());
        }
        fs::write(sub.join(format!("f{i}.rs")), body)?;
    }
    let touch = copy.join("d000/f0.rs");
    cases.push(Case { name: "copy20k", what: "COPY of 20,000 files of 10 kB", dir: copy, touch });

    for (name, example, file, what) in [
        ("flask", "flask-echo", "app.py", "examples/flask-echo: pip install and a COPY"),
        ("fastapi", "fastapi-echo", "main.py", "examples/fastapi-echo: two stages with a venv"),
    ] {
        let to = dir(name)?;
        let from = root.join("examples").join(example);
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        cases.push(Case { name, what, touch: to.join(file), dir: to });
    }

    let stages = dir("stages8")?;
    let mut text = String::new();
    for i in 0..8 {
        text.push_str(&format!("FROM busybox AS s{i}\nCOPY source /source\nRUN sleep 1 && echo {i} >/out{i}\n"));
    }
    text.push_str("FROM busybox\n");
    for i in 0..8 {
        text.push_str(&format!("COPY --from=s{i} /out{i} /\n"));
    }
    fs::write(stages.join("Dockerfile"), text)?;
    let touch = stages.join("source");
    cases.push(Case {
        name: "stages8",
        what: "eight stages of one second that do not need each other",
        dir: stages,
        touch,
    });

    if !options.only.is_empty() {
        cases.retain(|c| options.only.iter().any(|o| o == c.name));
    }
    if cases.is_empty() {
        bail!("--only names no case\n{USAGE}");
    }
    Ok(cases)
}

fn succeed(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("run {:?}", command.get_program()))?;
    if !out.status.success() {
        let err = String::from_utf8_lossy(&out.stderr);
        let tail: String = err.chars().rev().take(800).collect::<Vec<_>>().into_iter().rev().collect();
        bail!("{:?} {}: {tail}", command.get_program(), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while !ready() {
        if Instant::now() > end {
            bail!("{what} did not become ready within 60 s");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
