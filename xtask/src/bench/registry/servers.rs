//! The servers, started on free ports over temporary folders.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Clock ticks in a second, as `/proc` counts CPU time on Linux.
const TICKS_PER_SEC: f64 = 100.0;
/// The repository that nearly everything happens in.
pub(super) const REPO: &str = "bench/app";
/// Where blobs are mounted to, each round in a repository of its own.
pub(super) const MOUNTS: &str = "bench/mounts";
/// The registry that we make on our server.
pub(super) const REGISTRY: &str = "benchreg";
/// How long a server may take to answer after its start.
const START_SECS_MAX: u64 = 60;

/// A running server. Ends when dropped.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) addr: SocketAddr,
    /// For the `Host` header.
    pub(super) host: String,
    /// For the `Authorization` header.
    pub(super) token: Option<String>,
    /// From the start of the process to its first answer.
    pub(super) start_millis: f64,
    child: Child,
    /// How it is started again.
    again: Vec<String>,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; the run is over either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn spawn(command: &[String], log: &Path) -> Result<Child> {
    let (program, args) = command.split_first().context("no program")?;
    let log = fs::File::create(log)?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {program}"))
}

impl Server {
    /// Debian's docker-registry, without authentication.
    pub(super) async fn docker_registry(work: &Path) -> Result<Server> {
        let addr = free_addr()?;
        let (config, root) = (work.join("registry.yml"), work.join("docker-registry"));
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{cache: {{blobdescriptor: inmemory}}, filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: {addr}}}\n",
                root.display()
            ),
        )?;
        let command = ["docker-registry", "serve", &config.to_string_lossy()].map(str::to_owned).to_vec();
        Server::start("docker-registry", addr, command, work.join("docker-registry.log"))
            .await
            .context("docker-registry is in the Debian package of that name")
    }

    /// Ours over a folder of its own, `name` below `work`, with a registry and a token for
    /// `scopes`.
    pub(super) async fn portolan(work: &Path, name: &'static str, bin: &Path, scopes: &[String]) -> Result<Server> {
        // Both stay when it is started again: tokens are for a login server, port and all.
        let (addr, tls, data) = (free_addr()?, free_addr()?.to_string(), work.join(name));
        let mut command: Vec<String> = vec![bin.to_string_lossy().into_owned()];
        command.extend(["serve", "--listen", &tls, "--listen-http", &addr.to_string()].map(str::to_owned));
        command.extend(["--data".to_owned(), data.to_string_lossy().into_owned()]);
        let mut server = Server::start(name, addr, command, work.join(format!("{name}.log"))).await?;
        server.sign_in(&data.join("bootstrap.json"), scopes).await?;
        Ok(server)
    }

    async fn start(name: &'static str, addr: SocketAddr, again: Vec<String>, log: PathBuf) -> Result<Server> {
        let begin = Instant::now();
        let child = spawn(&again, &log)?;
        let mut server =
            Server { name, addr, host: addr.to_string(), token: None, start_millis: 0.0, child, again, log };
        server.answering(begin).await?;
        Ok(server)
    }

    /// End it in peace.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "{} cannot be told to end", self.name);
        for _ in 0..START_SECS_MAX * 100 {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("{} does not end", self.name)
    }

    /// Start it again over the same folder.
    pub(super) async fn resume(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.child = spawn(&self.again, &self.log)?;
        self.answering(begin).await
    }

    /// Wait for its first answer and note how long it took.
    async fn answering(&mut self, begin: Instant) -> Result<()> {
        while begin.elapsed() < Duration::from_secs(START_SECS_MAX) {
            if answers(self.addr).await {
                self.start_millis = begin.elapsed().as_secs_f64() * 1000.0;
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let text = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{} ended with {status}: {text}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bail!("{} does not answer: see {}", self.name, self.log.display())
    }

    /// From the owner's credentials to a token for the repository.
    async fn sign_in(&mut self, bootstrap: &Path, scopes: &[String]) -> Result<()> {
        let bootstrap: Value = serde_json::from_slice(&fs::read(bootstrap).context("read bootstrap.json")?)?;
        let text = |member: &str| Ok::<_, anyhow::Error>(member_of(&bootstrap, member)?.to_owned());
        let (tenant, subscription) = (text("tenantId")?, text("subscriptionId")?);
        let base = format!("http://{}", self.addr);
        let client = reqwest::Client::builder().no_proxy().build()?;

        let form = [
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", text("clientId")?),
            ("client_secret", text("clientSecret")?),
            ("scope", "https://management.core.windows.net//.default".to_owned()),
        ];
        let answer = json_of(client.post(format!("{base}/{tenant}/oauth2/v2.0/token")).form(&form)).await?;
        let directory = member_of(&answer, "access_token")?.to_owned();

        let group = format!("{base}/subscriptions/{subscription}/resourceGroups/bench");
        let registry = format!("{group}/providers/Microsoft.ContainerRegistry/registries/{REGISTRY}");
        let put = |url: String, version: &str, body: Value| {
            client.put(format!("{url}?api-version={version}")).bearer_auth(&directory).json(&body)
        };
        json_of(put(group, "2024-11-01", json!({"location": "local"}))).await?;
        let body = json!({"location": "local", "sku": {"name": "Premium"}});
        let answer = json_of(put(registry, "2025-11-01", body)).await?;
        self.host = match answer.pointer("/properties/loginServer").and_then(Value::as_str) {
            Some(host) => host.to_owned(),
            None => bail!("the registry has no login server: {answer}"),
        };

        let form = [
            ("grant_type", "access_token"),
            ("service", &self.host),
            ("tenant", &tenant),
            ("access_token", &directory),
        ];
        let exchange = client.post(format!("{base}/oauth2/exchange")).header("host", &self.host).form(&form);
        let answer = json_of(exchange).await?;
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("service", &self.host),
            ("refresh_token", member_of(&answer, "refresh_token")?),
        ];
        form.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        let token = client.post(format!("{base}/oauth2/token")).header("host", &self.host).form(&form);
        self.token = Some(format!("Bearer {}", member_of(&json_of(token).await?, "access_token")?));
        Ok(())
    }

    /// The process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time spent so far, user and system.
    pub(super) fn cpu_micros(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("the server has ended")?;
        // The second field is the program's name in parentheses and may hold spaces.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = |n: usize| rest.split_whitespace().nth(n).and_then(|f| f.parse::<f64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("read /proc/<pid>/stat")?;
        Ok((user + system) / TICKS_PER_SEC * 1e6)
    }

    /// Begin a new peak of resident memory.
    pub(super) fn reset_peak(&self) {
        // Where the kernel does not allow it, the peak is that of the whole run.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    /// The peak of resident memory.
    pub(super) fn peak_mib(&self) -> Result<f64> {
        self.memory_mib("VmHWM:")
    }

    /// Resident memory now.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        self.memory_mib("VmRSS:")
    }

    fn memory_mib(&self, line: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status
            .lines()
            .find_map(|text| text.strip_prefix(line)?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
            .context("read /proc/<pid>/status")?;
        Ok(kib / 1024.0)
    }
}

/// Whether something that speaks HTTP answers, whatever it says.
async fn answers(addr: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut begin = [0; 8];
        stream.read_exact(&mut begin).await?;
        std::io::Result::Ok(&begin == b"HTTP/1.1")
    };
    ask.await.unwrap_or(false)
}

pub(super) fn member_of<'a>(value: &'a Value, member: &str) -> Result<&'a str> {
    value.get(member).and_then(Value::as_str).with_context(|| format!("no {member} in the answer"))
}

pub(super) async fn json_of(request: reqwest::RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await?;
    if !status.is_success() {
        bail!("{url}: {status} {text}");
    }
    Ok(serde_json::from_str(&text)?)
}
