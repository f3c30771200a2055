//! The servers of a round: ours, a docker daemon, and Debian's registry for the others to
//! push to. All end when the world is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Options;

/// The servers that a round needs; all end when this is dropped.
pub(super) struct World {
    pub(super) work: PathBuf,
    bin: PathBuf,
    login_server: String,
    pub(super) registry: String,
    children: Vec<Child>,
    /// Our server's process.
    pub(super) server: u32,
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
    pub(super) fn start(work: &Path, root: &Path, options: &Options) -> Result<World> {
        let mut world = World {
            work: work.to_owned(),
            bin: options.bin.clone(),
            login_server: String::new(),
            registry: String::new(),
            children: Vec::new(),
            server: 0,
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
        world.server = world.children.last().map_or(0, Child::id);
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

    pub(super) fn portolan(&self, args: &[&str]) -> Result<String> {
        succeed(Command::new(&self.bin).args(args).env("PORTOLAN_CONFIG_DIR", self.work.join("profile")))
    }

    pub(super) fn docker(&self) -> Command {
        // The client that belongs to the daemon: a newer one wants a plugin for BuildKit.
        let program = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.work.join("docker.sock").display()))
            .env("DOCKER_CONFIG", self.work.join("docker-config"))
            .env("DOCKER_BUILDKIT", "1");
        command
    }

    pub(super) fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        command
            .env("CONTAINERS_STORAGE_CONF", self.work.join("storage.conf"))
            .env("REGISTRY_AUTH_FILE", self.work.join("auth.json"))
            .env("BUILDAH_RUNTIME", "runc");
        command
    }
}

pub(super) fn succeed(command: &mut Command) -> Result<String> {
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
