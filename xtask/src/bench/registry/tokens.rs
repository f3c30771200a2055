//! `cargo xtask bench tokens`: `GET /oauth2/token` as `docker login` and every push and pull
//! after it ask for it, on a server that has one core to itself.
//!
//! Four credentials, each known to the server: a service principal's secret, the admin user, a
//! repository token, and a refresh token. Of each, *same* asks for one repository over and
//! over, as a client does that pulls an image in parts, and *new* for another repository each
//! time, which the server signs a new token for. A last run counts the calls that make the
//! disk wait: there must be none.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::load::{drive, empty};
use super::servers::{REGISTRY, REPO, Server, json_of, member_of};

const USAGE: &str = "usage: cargo xtask bench tokens [--seconds S (3)] [--conns N (16)] [--json FILE] [--bin PATH]
The server runs on core 0 alone (`taskset`), the client on the others; `strace` counts the calls that sync.";

/// What must be reached with credentials that are known, on one core.
const PER_SEC_MIN: f64 = 2_000.0;
/// What one request may cost.
const CPU_MICROS_MAX: f64 = 1_000.0;
/// The core of the server.
const CORE: &str = "0";

struct Options {
    secs: u64,
    conns: usize,
    json: Option<PathBuf>,
    bin: PathBuf,
}

/// Run it and print its table on standard output. An error when a figure is not reached.
pub(in crate::bench) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

fn parse(args: &[String]) -> Result<Options> {
    let bin = PathBuf::from(std::env::var_os("PORTOLAN_BIN").unwrap_or_else(|| "target/release/portolan".into()));
    let mut options = Options { secs: 3, conns: 16, json: None, bin };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--seconds" => options.secs = value()?.parse::<u64>().context(USAGE)?.clamp(1, 600),
            "--conns" => options.conns = value()?.parse::<usize>().context(USAGE)?.clamp(1, 256),
            "--json" => options.json = Some(value()?.into()),
            "--bin" => options.bin = value()?.into(),
            _ => bail!("unknown argument {arg}\n{USAGE}"),
        }
    }
    let missing = || format!("no binary at {}: run `cargo build --release -p portolan` first", options.bin.display());
    options.bin = options.bin.canonicalize().with_context(missing)?;
    Ok(options)
}

/// Who asks, and the header that says it.
struct Credential {
    name: &'static str,
    header: String,
}

async fn measure(options: &Options) -> Result<()> {
    let work = tempfile::Builder::new().prefix("portolan-bench-tokens").tempdir_in("/var/tmp")?;
    let mut rows = vec![super::machine()];
    let mut server = Server::portolan(work.path(), "portolan", &options.bin, &[]).await?;
    let credentials = credentials(&server, &work.path().join("portolan/bootstrap.json")).await?;
    server.token = None;
    pin(server.id(), CORE)?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if processors > 1 {
        pin(std::process::id(), &format!("1-{}", processors - 1))?;
    }
    let time = Duration::from_secs(options.secs);
    let mut missed = Vec::new();
    println!("| credential | token | requests/s | CPU, µs | p50, ms | p99, ms |");
    println!("|---|---|--:|--:|--:|--:|");
    for credential in &credentials {
        for (kind, new) in [("same", false), ("new", true)] {
            ask(&server, options.conns, Duration::from_millis(300), credential, new).await?;
            let sample = ask(&server, options.conns, time, credential, new).await?;
            let (rate, cpu) = (sample.rate(), sample.cpu_micros_per_op());
            let (p50, p99) = (sample.percentile_ms(0.5), sample.percentile_ms(0.99));
            println!("| {} | {kind} | {rate:.0} | {cpu:.0} | {p50:.2} | {p99:.2} |", credential.name);
            rows.push(json!({
                "credential": credential.name, "token": kind, "perSec": rate, "cpuMicros": cpu,
                "p50Ms": p50, "p99Ms": p99,
            }));
            if cpu > CPU_MICROS_MAX || (!new && rate < PER_SEC_MIN) {
                missed.push(format!("{} ({kind}): {rate:.0}/s, {cpu:.0} µs", credential.name));
            }
        }
    }
    let synced = synced(&server, options, &credentials[0]).await?;
    println!("\nCalls that sync, in a second of new tokens: {synced}");
    rows.push(json!({ "syncCalls": synced }));
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    ensure!(missed.is_empty(), "not reached: {}", missed.join("; "));
    ensure!(synced == 0, "a token request makes the disk wait");
    Ok(())
}

/// Ask for tokens on all connections.
async fn ask(
    server: &Server,
    conns: usize,
    time: Duration,
    credential: &Credential,
    new: bool,
) -> Result<super::load::Sample> {
    drive(server, conns, time, async |client, n| {
        let repo = if new { format!("{REPO}{n}") } else { REPO.to_owned() };
        let path = format!(
            "/oauth2/token?account=docker&client_id=docker&offline_token=true&scope=repository%3A{repo}%3Apull%2Cpush&service={}",
            server.host
        );
        let headers = [("authorization", credential.header.as_str())];
        let (_, len) = client.call(Method::GET, &path, &headers, empty(), StatusCode::OK).await?;
        Ok(len)
    })
    .await
}

/// Keep every thread of a process on these cores.
fn pin(process: u32, cores: &str) -> Result<()> {
    let pid = process.to_string();
    let status = Command::new("taskset").args(["-a", "-p", "-c", cores, &pid]).stdout(Stdio::null()).status();
    ensure!(status.context("taskset is in the Debian package util-linux")?.success(), "pin process {pid} to {cores}");
    Ok(())
}

/// How many calls that wait for the disk a second of requests makes.
async fn synced(server: &Server, options: &Options, credential: &Credential) -> Result<usize> {
    let log = tempfile::NamedTempFile::new()?;
    let pid = server.id().to_string();
    let calls = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync";
    let mut strace = Command::new("strace")
        .args(["-f", "-q", "-e", calls, "-p", &pid, "-o"])
        .arg(log.path())
        .stderr(Stdio::null())
        .spawn()
        .context("strace is in the Debian package of that name")?;
    // It has begun when the kernel says that somebody traces.
    let traced = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|by| by.trim() != "0"))
    };
    for _ in 0..500 {
        if traced() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ensure!(traced(), "strace does not begin");
    let asked = ask(server, options.conns, Duration::from_secs(1), credential, true).await;
    // strace lets go of the server when it is told to end.
    Command::new("kill").args(["-INT", &strace.id().to_string()]).status()?;
    strace.wait()?;
    asked?;
    Ok(fs::read_to_string(log.path())?.lines().filter(|line| line.contains("sync")).count())
}

/// One credential of each kind.
async fn credentials(server: &Server, bootstrap: &std::path::Path) -> Result<Vec<Credential>> {
    let bootstrap: Value = serde_json::from_slice(&fs::read(bootstrap).context("read bootstrap.json")?)?;
    let text = |member: &str| member_of(&bootstrap, member);
    let (tenant, client_id, secret) = (text("tenantId")?, text("clientId")?, text("clientSecret")?);
    let base = format!("http://{}", server.addr);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_secret", secret),
        ("scope", "https://management.core.windows.net//.default"),
    ];
    let answer = json_of(client.post(format!("{base}/{tenant}/oauth2/v2.0/token")).form(&form)).await?;
    let directory = member_of(&answer, "access_token")?;

    let id = format!(
        "/subscriptions/{}/resourceGroups/bench/providers/Microsoft.ContainerRegistry/registries/{REGISTRY}",
        text("subscriptionId")?
    );
    let send = async |method: Method, rest: &str, body: Value| {
        let url = format!("{base}{id}{rest}?api-version=2025-11-01");
        json_of(client.request(method, url).bearer_auth(directory).json(&body)).await
    };
    send(Method::PATCH, "", json!({"properties": {"adminUserEnabled": true}})).await?;
    let admin = send(Method::POST, "/listCredentials", json!({})).await?;
    let map = format!("{id}/scopeMaps/_repositories_push");
    send(Method::PUT, "/tokens/benchtoken", json!({"properties": {"scopeMapId": map}})).await?;
    let made =
        send(Method::POST, "/generateCredentials", json!({"tokenId": format!("{id}/tokens/benchtoken")})).await?;
    let form =
        [("grant_type", "access_token"), ("service", &server.host), ("tenant", tenant), ("access_token", directory)];
    let exchange = client.post(format!("{base}/oauth2/exchange")).header("host", &server.host).form(&form);
    let refresh = json_of(exchange).await?;
    let password = |answer: &Value| -> Result<String> {
        let value = answer.pointer("/passwords/0/value").and_then(Value::as_str);
        Ok(value.context("no password in the answer")?.to_owned())
    };
    let basic = |name, user: &str, password: &str| -> Result<Credential> {
        let built = client.get(&base).basic_auth(user, Some(password)).build()?;
        let header = built.headers().get("authorization").context("no header")?.to_str()?.to_owned();
        Ok(Credential { name, header })
    };
    Ok(vec![
        basic("service principal", client_id, secret)?,
        basic("admin user", REGISTRY, &password(&admin)?)?,
        basic("repository token", "benchtoken", &password(&made)?)?,
        basic("refresh token", "00000000-0000-0000-0000-000000000000", member_of(&refresh, "refresh_token")?)?,
    ])
}
