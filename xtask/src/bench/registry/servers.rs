//! The two servers, started on free ports over temporary folders.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::load::listening;

/// Clock ticks in a second, as `/proc` counts CPU time on Linux.
const TICKS_PER_SEC: f64 = 100.0;
/// The repository that everything happens in.
pub(super) const REPO: &str = "bench/app";

/// A running server. Ends when dropped.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) addr: SocketAddr,
    /// For the `Host` header.
    pub(super) host: String,
    /// For the `Authorization` header.
    pub(super) token: Option<String>,
    child: Child,
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

fn start(work: &Path, log: &str, command: &mut Command) -> Result<Child> {
    let log = fs::File::create(work.join(log))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {:?}", command.get_program()))
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
        let child = start(work, "docker-registry.log", Command::new("docker-registry").arg("serve").arg(&config))
            .context("docker-registry is in the Debian package of that name")?;
        let server = Server { name: "docker-registry", addr, host: addr.to_string(), token: None, child };
        listening(addr).await?;
        Ok(server)
    }

    /// Ours, with a registry and a token for [`REPO`].
    pub(super) async fn portolan(work: &Path, bin: &Path) -> Result<Server> {
        let (addr, data) = (free_addr()?, work.join("portolan"));
        let mut command = Command::new(bin);
        command.args(["serve", "--listen", "127.0.0.1:0", "--listen-http", &addr.to_string(), "--data"]).arg(&data);
        let child = start(work, "portolan.log", &mut command)?;
        let mut server = Server { name: "portolan", addr, host: addr.to_string(), token: None, child };
        ready(&mut server.child, &work.join("portolan.log")).await?;
        server.sign_in(&data.join("bootstrap.json")).await?;
        Ok(server)
    }

    /// From the owner's credentials to a token for the repository.
    async fn sign_in(&mut self, bootstrap: &PathBuf) -> Result<()> {
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
        let registry = format!("{group}/providers/Microsoft.ContainerRegistry/registries/benchreg");
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
        let scope = format!("repository:{REPO}:pull,push");
        let form = [
            ("grant_type", "refresh_token"),
            ("service", &self.host),
            ("scope", &scope),
            ("refresh_token", member_of(&answer, "refresh_token")?),
        ];
        let token = client.post(format!("{base}/oauth2/token")).header("host", &self.host).form(&form);
        self.token = Some(format!("Bearer {}", member_of(&json_of(token).await?, "access_token")?));
        Ok(())
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
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
            .context("read /proc/<pid>/status")?;
        Ok(kib / 1024.0)
    }
}

/// Wait for the line that our server prints when it is ready.
async fn ready(child: &mut Child, log: &Path) -> Result<()> {
    for _ in 0..300 {
        let text = fs::read_to_string(log)?;
        if text.contains("portolan ready") {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("portolan ended with {status}: {text}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("portolan is not ready after 30 seconds: see {}", log.display())
}

fn member_of<'a>(value: &'a Value, member: &str) -> Result<&'a str> {
    value.get(member).and_then(Value::as_str).with_context(|| format!("no {member} in the answer"))
}

async fn json_of(request: reqwest::RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await?;
    if !status.is_success() {
        bail!("{url}: {status} {text}");
    }
    Ok(serde_json::from_str(&text)?)
}
