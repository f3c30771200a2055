//! Fetching from git repositories, with the machine's own `git`.
//!
//! A repository is a stranger's. `git` is started with an empty environment, no configuration
//! but ours, no hooks, no credentials and nobody to ask; it may speak only the protocols that
//! the address itself uses, and connects only through a [`Door`]. Submodules are walked here,
//! one level at a time, so that each address is looked at before git is given it. Large files
//! (LFS) are fetched here too, without `git-lfs`: its own client goes round proxies to the
//! loopback. Passwords travel in git's environment, never among its arguments.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_api::egress::Egress;
use portolan_builder::remote::{GitSource, without_password};
use portolan_tasks::CancelFlag;
use portolan_types::{Secret, limits};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::door::Door;
use super::lfs;

/// How long one `git` may take, in seconds.
const GIT_SECS_MAX: u64 = 30 * 60;
/// What is read of what `git` prints.
const OUTPUT_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How often a checkout's size is looked at, in seconds.
const MEASURE_EVERY_SECS: u64 = 2;
/// How deep submodules may nest, and how many there may be.
const SUBMODULE_DEPTH_MAX: usize = 8;
const SUBMODULES_MAX: usize = 256;

/// What fetching needs to know of its surroundings.
#[derive(Clone)]
pub(super) struct Git {
    pub(super) egress: Arc<Egress>,
    /// Repositories on this machine may be below this folder, and nowhere else.
    pub(super) local_root: Option<PathBuf>,
    pub(super) cancel: CancelFlag,
    /// What a host's repositories are asked with: `Authorization` headers.
    pub(super) credentials: Vec<(String, Secret<String>)>,
    /// Certificates (PEM) to trust beside the system's.
    pub(super) ca_file: Option<PathBuf>,
    /// Where an agent for `ssh` listens.
    pub(super) web: portolan_api::web::WebClient,
}

/// A checked-out repository.
#[derive(Clone, Debug)]
pub(super) struct Checkout {
    /// The folder that counts: the repository's, or the one below it that was asked for.
    pub(super) root: PathBuf,
}

/// What `git` runs in.
struct Session<'g> {
    git: &'g Git,
    door: Door,
    home: PathBuf,
    protocols: &'static str,
    /// `http.<url>.extraheader` and its like.
    config: Vec<(String, String)>,
}

impl Git {
    /// The commit that a source means now, as 40 or 64 hexadecimal digits.
    pub(super) async fn commit(&self, source: &GitSource, scratch: &Path) -> Result<String, String> {
        if let Some(commit) = source.names_commit() {
            let commit = commit.to_ascii_lowercase();
            return self.expected(source, commit);
        }
        let (session, url) = self.session(source, scratch).await?;
        let wanted = source.reference.as_deref().unwrap_or("HEAD");
        let peeled = format!("{wanted}^{{}}");
        let listed = session.run(scratch, &["ls-remote", "--", &url, wanted, &peeled]).await?;
        let found = best(&String::from_utf8_lossy(&listed), wanted);
        if let Some(commit) = found {
            return self.expected(source, commit);
        }
        // The beginning of a commit's name: only a whole clone knows.
        if (7..40).contains(&wanted.len()) && wanted.bytes().all(|c| c.is_ascii_hexdigit()) {
            let dir = scratch.join("names");
            session.init(&dir, &url).await?;
            session.fetch_all(&dir).await?;
            let name = format!("{wanted}^{{commit}}");
            let found = session.run(&dir, &["rev-parse", "--verify", "--quiet", &name]).await.ok();
            let found = found.map(|out| String::from_utf8_lossy(&out).trim().to_owned()).filter(|c| is_commit(c));
            remove(&dir).await;
            if let Some(commit) = found {
                return self.expected(source, commit);
            }
        }
        Err(format!("{} has no branch, tag or commit {wanted:?}", without_password(&source.url)))
    }

    fn expected(&self, source: &GitSource, commit: String) -> Result<String, String> {
        match &source.commit {
            Some(expected) if !commit.starts_with(&expected.to_ascii_lowercase()) => {
                Err(format!("{} is commit {commit} now, and {expected} was expected", source.shown()))
            }
            _ => Ok(commit),
        }
    }

    /// Check a commit out below `scratch`, an empty folder.
    pub(super) async fn check_out(
        &self,
        source: &GitSource,
        commit: &str,
        keep_git_dir: bool,
        scratch: &Path,
    ) -> Result<Checkout, String> {
        let (session, url) = self.session(source, scratch).await?;
        let root = scratch.join("tree");
        session.init(&root, &url).await?;
        session.fetch(&root, commit, source.reference.as_deref()).await?;
        session.run(&root, &["checkout", "--quiet", "--force", "--detach", commit]).await?;
        lfs::fetch(self, &url, &session.headers(&url), &root).await?;
        if !source.no_submodules {
            session.submodules(&root, &url).await?;
        }
        if !keep_git_dir {
            let tree = root.clone();
            tokio::task::spawn_blocking(move || drop_git_dirs(&tree, 0))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| format!("remove .git: {e}"))?;
        }
        let root = match &source.subdir {
            None => root,
            Some(subdir) => below(&root, subdir)
                .await
                .ok_or_else(|| format!("{} has no folder {subdir:?} at {commit}", without_password(&source.url)))?,
        };
        Ok(Checkout { root })
    }

    /// A session for a source, and its address without a password.
    async fn session(&self, source: &GitSource, scratch: &Path) -> Result<(Session<'_>, String), String> {
        let home = scratch.join("home");
        std::fs::create_dir_all(&home).map_err(|e| format!("make a folder: {e}"))?;
        let (url, own) = split_password(&source.url);
        let lower = url.to_ascii_lowercase();
        let (url, protocols) = if lower.starts_with("https://") {
            (url, "https")
        } else if lower.starts_with("http://") {
            (url, "http:https")
        } else if let Some(path) = lower.strip_prefix("file://") {
            let path = &url[url.len() - path.len()..];
            (format!("file://{}", self.local(path)?.display()), "file")
        } else {
            return Err(format!(
                "{} cannot be fetched: repositories are fetched by https; hint: write the address with https://, \
                 and pass a token with --secret id=GIT_AUTH_TOKEN",
                without_password(&source.url)
            ));
        };
        let mut config = Vec::new();
        for (host, header) in &self.credentials {
            if host.is_empty() || host_of(&url).is_some_and(|h| h.eq_ignore_ascii_case(host)) {
                config.push((format!("http.{}/.extraheader", origin(&url)), header.expose().clone()));
                break;
            }
        }
        if let Some(basic) = own {
            config.retain(|(name, _)| !name.ends_with("extraheader"));
            config.push((format!("http.{}/.extraheader", origin(&url)), format!("Authorization: Basic {basic}")));
        }
        if let Some(ca) = &self.ca_file {
            config.push(("http.sslCAInfo".into(), ca.display().to_string()));
        }
        let door = Door::open(self.egress.clone()).await.map_err(|e| format!("open a way out: {e}"))?;
        Ok((Session { git: self, door, home, protocols, config }, url))
    }

    /// A repository on this machine, if it is where such may be.
    pub(super) fn local(&self, path: &str) -> Result<PathBuf, String> {
        let refused = || {
            format!(
                "file://{path}: builds may not read repositories of this machine there; hint: the server's operator \
                 names a folder for them with the setting build_git_folder"
            )
        };
        let root = self.local_root.as_ref().and_then(|root| std::fs::canonicalize(root).ok()).ok_or_else(refused)?;
        let real = std::fs::canonicalize(path).map_err(|_| refused())?;
        if real.starts_with(&root) { Ok(real) } else { Err(refused()) }
    }
}

impl Session<'_> {
    /// The headers that requests to a repository carry.
    fn headers(&self, url: &str) -> Vec<(String, String)> {
        let name = format!("http.{}/.extraheader", origin(url));
        let ours = self.config.iter().filter(|(n, _)| *n == name);
        ours.filter_map(|(_, v)| v.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned()))).collect()
    }

    async fn init(&self, dir: &Path, url: &str) -> Result<(), String> {
        std::fs::create_dir_all(dir).map_err(|e| format!("make a folder: {e}"))?;
        self.run(dir, &["init", "--quiet", "--template=", "--initial-branch=main", "."]).await?;
        self.run(dir, &["remote", "add", "origin", "--", url]).await.map(drop)
    }

    /// Bring a commit: alone if the server gives it so, else with what leads to it.
    async fn fetch(&self, dir: &Path, commit: &str, reference: Option<&str>) -> Result<(), String> {
        let quiet = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--depth=1", "origin"];
        let alone = self.run(dir, &[&quiet[..], &[commit]].concat()).await;
        let Err(first) = alone else { return Ok(()) };
        if let Some(reference) = reference.filter(|r| !is_commit(r))
            && self.run(dir, &[&quiet[..], &[reference]].concat()).await.is_ok()
            && self.has(dir, commit).await
        {
            return Ok(());
        }
        self.fetch_all(dir).await.map_err(|_| first)?;
        match self.has(dir, commit).await {
            true => Ok(()),
            false => Err(format!("the repository has no commit {commit}")),
        }
    }

    async fn fetch_all(&self, dir: &Path) -> Result<(), String> {
        let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "origin"];
        self.run(dir, &[&fetch[..], &all].concat()).await.map(drop)
    }

    async fn has(&self, dir: &Path, commit: &str) -> bool {
        self.run(dir, &["cat-file", "-e", &format!("{commit}^{{commit}}")]).await.is_ok()
    }

    /// Check out submodules, and theirs. Every address is looked at first: it must be of the
    /// repository's own protocol, and within the folder for local ones.
    async fn submodules(&self, root: &Path, url: &str) -> Result<(), String> {
        let mut todo = vec![(root.to_owned(), url.to_owned(), 0)];
        let mut count = 0;
        while let Some((dir, url, depth)) = todo.pop() {
            for (path, address) in self.listed_submodules(&dir, &url).await? {
                count += 1;
                if count > SUBMODULES_MAX || depth >= SUBMODULE_DEPTH_MAX {
                    return Err(format!(
                        "the repository has more than {SUBMODULES_MAX} submodules, or nests them deeper than \
                         {SUBMODULE_DEPTH_MAX}"
                    ));
                }
                let Some(commit) = self.pinned(&dir, &path).await? else { continue };
                let into = below_new(&dir, &path).await.ok_or("a submodule's path leads out of the repository")?;
                self.init(&into, &address).await?;
                self.fetch(&into, &commit, None).await.map_err(|why| format!("submodule {path}: {why}"))?;
                self.run(&into, &["checkout", "--quiet", "--force", "--detach", &commit]).await?;
                lfs::fetch(self.git, &address, &self.headers(&address), &into).await?;
                todo.push((into, address, depth + 1));
            }
        }
        Ok(())
    }

    /// Paths and addresses of a repository's submodules.
    async fn listed_submodules(&self, dir: &Path, url: &str) -> Result<Vec<(String, String)>, String> {
        let file = dir.join(".gitmodules");
        if !std::fs::symlink_metadata(&file).is_ok_and(|at| at.is_file()) {
            return Ok(Vec::new());
        }
        let args = ["config", "--null", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$"];
        let listed = self.run(dir, &args).await?;
        let mut all: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
        for record in String::from_utf8_lossy(&listed).split('\0') {
            let Some((key, value)) = record.split_once('\n') else { continue };
            let Some((name, what)) = key.rsplit_once('.') else { continue };
            let entry = all.entry(name.to_owned()).or_default();
            match what {
                "path" => entry.0 = Some(value.to_owned()),
                _ => entry.1 = Some(value.to_owned()),
            }
        }
        let mut out = Vec::new();
        for (path, address) in all.into_values() {
            let (Some(path), Some(address)) = (path, address) else { continue };
            out.push((path, self.submodule_address(url, &address)?));
        }
        Ok(out)
    }

    /// Where a submodule is, if it may be fetched.
    fn submodule_address(&self, parent: &str, address: &str) -> Result<String, String> {
        let refused = || format!("the submodule at {} cannot be fetched", without_password(address));
        let address = match address.starts_with("./") || address.starts_with("../") {
            true => relative(parent, address).ok_or_else(refused)?,
            false => address.to_owned(),
        };
        let lower = address.to_ascii_lowercase();
        if lower.starts_with("https://") || (lower.starts_with("http://") && self.protocols.contains("http:")) {
            return Ok(split_password(&address).0);
        }
        if self.protocols != "file" {
            // Also one by ssh on the very host that answers in https, as is common.
            return by_https(&address).ok_or_else(refused);
        }
        let path = address.strip_prefix("file://").unwrap_or(&address);
        if !path.starts_with('/') {
            return Err(refused());
        }
        Ok(format!("file://{}", self.git.local(path)?.display()))
    }

    /// The commit of a submodule in the checkout's tree.
    async fn pinned(&self, dir: &Path, path: &str) -> Result<Option<String>, String> {
        let listed = self.run(dir, &["ls-files", "--stage", "-z", "--", &format!(":(literal){path}")]).await?;
        let text = String::from_utf8_lossy(&listed).into_owned();
        let mut words = text.split([' ', '\t', '\0']);
        let (mode, commit) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok((mode == "160000" && is_commit(commit)).then(|| commit.to_owned()))
    }

    /// Run `git` in a folder; what it printed.
    async fn run(&self, dir: &Path, args: &[&str]) -> Result<Vec<u8>, String> {
        let door = self.door.url();
        let mut command = Command::new("git");
        command
            .args(args)
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("HOME", &self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("GIT_ALLOW_PROTOCOL", protocols(self.protocols))
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_CEILING_DIRECTORIES", &self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // The operator's own proxy goes on deciding what may be reached.
        let outer = [
            "https_proxy",
            "HTTPS_PROXY",
            "http_proxy",
            "HTTP_PROXY",
            "all_proxy",
            "ALL_PROXY",
            "no_proxy",
            "NO_PROXY",
        ];
        let given: Vec<_> =
            outer.iter().filter_map(|n| Some((*n, std::env::var_os(n).filter(|v| !v.is_empty())?))).collect();
        if given.is_empty() {
            command
                .env("http_proxy", &door)
                .env("https_proxy", &door)
                .env("HTTPS_PROXY", &door)
                .env("ALL_PROXY", &door);
        } else {
            command.envs(given);
        }
        let fixed = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.untrackedCache", "false"),
            ("credential.helper", ""),
            ("protocol.version", "2"),
            ("safe.directory", "*"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("submodule.recurse", "false"),
            ("advice.detachedHead", "false"),
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", "120"),
            // The filters of large files are ours: see `lfs`.
            ("filter.lfs.required", "false"),
        ];
        let all = fixed.iter().map(|(n, v)| (n.to_string(), v.to_string())).chain(self.config.iter().cloned());
        let mut count = 0;
        for (name, value) in all {
            command.env(format!("GIT_CONFIG_KEY_{count}"), name).env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                "git is not installed on this server; hint: its operator installs it (apt install git), or clone the \
                 repository and build the folder"
                    .to_owned()
            }
            _ => format!("start git: {e}"),
        })?;
        let group = child.id();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (out, err, status) = tokio::join!(read(stdout), read(stderr), child.wait());
            (out, err, status)
        };
        let measured = self.home.parent().unwrap_or(dir).to_owned();
        let ended = tokio::select! {
            ended = work => Ok(ended),
            _ = self.git.cancel.raised() => Err("the build was cancelled".to_owned()),
            () = tokio::time::sleep(Duration::from_secs(GIT_SECS_MAX)) => {
                Err(format!("git took longer than {GIT_SECS_MAX} seconds"))
            }
            () = outgrown(measured) => {
                Err(format!("the repository is larger than {} bytes", limits::CONTEXT_UNPACKED_BYTES_MAX))
            }
        };
        if ended.is_err() {
            kill(group);
        }
        let (out, err, status) = ended?;
        let status = status.map_err(|e| format!("wait for git: {e}"))?;
        if status.success() {
            return Ok(out);
        }
        Err(self.complaint(&err))
    }

    /// What git said, in one line, without what it must not say.
    fn complaint(&self, err: &[u8]) -> String {
        let text = String::from_utf8_lossy(err);
        let line = text.lines().rev().find(|l| l.starts_with("fatal:") || l.starts_with("error:"));
        let mut line = line.or(text.lines().last()).unwrap_or("it gave no reason").to_owned();
        for secret in self.config.iter().filter(|(n, _)| n.ends_with("extraheader")).map(|(_, v)| v) {
            line = line.replace(secret.as_str(), "***");
        }
        let line = line.replace(&self.door.url(), "the proxy");
        let line: String = line.chars().filter(|c| !c.is_control()).take(500).collect();
        let hint = if line.contains("could not read Username") || line.contains("Authentication failed") {
            "; hint: the repository is private or absent: pass a token with --secret id=GIT_AUTH_TOKEN"
        } else if line.contains("403") && line.contains("CONNECT")
            || line.contains("The requested URL returned error: 403")
        {
            "; hint: the address may be closed to builds on this server (setting build_fetch_allow)"
        } else {
            ""
        };
        format!("git: {line}{hint}")
    }
}

fn protocols(allowed: &'static str) -> &'static str {
    match allowed {
        "http:https" => "http:https",
        "file" => "file",
        _ => "https",
    }
}

async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(pipe) = pipe {
        // What is too much is not read, and git ends at its next line.
        let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut out).await;
    }
    out
}

/// End everything that a `git` started.
fn kill(group: Option<u32>) {
    let pid = group.and_then(|g| i32::try_from(g).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already, most likely.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// Comes when the folder is larger than a context may be.
async fn outgrown(dir: PathBuf) {
    loop {
        tokio::time::sleep(Duration::from_secs(MEASURE_EVERY_SECS)).await;
        let dir = dir.clone();
        let size = tokio::task::spawn_blocking(move || size(&dir, 0)).await.unwrap_or(0);
        if size > limits::CONTEXT_UNPACKED_BYTES_MAX {
            return;
        }
    }
}

fn size(dir: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |e: std::fs::DirEntry| match e.metadata() {
        Ok(at) if at.is_dir() && depth < 256 => size(&e.path(), depth + 1),
        Ok(at) => at.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// Remove every `.git` of a checkout.
fn drop_git_dirs(dir: &Path, depth: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        if entry.file_name() == ".git" {
            if is_dir { std::fs::remove_dir_all(entry.path())? } else { std::fs::remove_file(entry.path())? }
        } else if is_dir && depth < 256 {
            drop_git_dirs(&entry.path(), depth + 1)?;
        }
    }
    Ok(())
}

async fn remove(dir: &Path) {
    if let Err(error) = tokio::fs::remove_dir_all(dir).await {
        tracing::debug!(%error, "remove a clone");
    }
}

/// A folder of a checkout; links in the path must stay inside.
async fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let root = tokio::fs::canonicalize(root).await.ok()?;
    let real = tokio::fs::canonicalize(root.join(path.trim_start_matches('/'))).await.ok()?;
    (real.starts_with(&root) && real.is_dir()).then_some(real)
}

/// A folder for a submodule: below the checkout, through no link, empty.
async fn below_new(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path);
    if !relative.components().all(|c| matches!(c, Component::Normal(name) if name != ".git")) {
        return None;
    }
    let mut at = root.to_owned();
    for part in relative.components() {
        at.push(part);
        match std::fs::symlink_metadata(&at) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return None,
            Err(_) => std::fs::create_dir(&at).ok()?,
        }
    }
    // git makes the folder of each submodule; anything in it was put there by the tree.
    std::fs::read_dir(&at).ok()?.next().is_none().then_some(at)
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|c| c.is_ascii_hexdigit())
}

/// What a listing of references says that a name means, as git itself decides: the name as it
/// is, a tag, a branch. Of a tag the commit, not the tag.
fn best(listing: &str, name: &str) -> Option<String> {
    let found: Vec<(&str, &str)> = listing.lines().filter_map(|l| l.split_once('\t')).collect();
    let commit =
        |full: &str| found.iter().find(|(_, n)| *n == full).map(|(c, _)| (*c).to_owned()).filter(|c| is_commit(c));
    [name.to_owned(), format!("refs/{name}"), format!("refs/tags/{name}"), format!("refs/heads/{name}")]
        .iter()
        .find_map(|full| commit(&format!("{full}^{{}}")).or_else(|| commit(full)))
}

/// The address without user and password, and those as base64 of `user:password`.
fn split_password(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else { return (url.to_owned(), None) };
    let user = percent_encoding::percent_decode_str(user).decode_utf8_lossy().into_owned();
    // A token alone is a user's name to git; forges want it as a password, too.
    let pair = match user.split_once(':') {
        Some(_) => user,
        None => format!("{user}:"),
    };
    (format!("{scheme}://{host}{path}"), Some(STANDARD.encode(pair)))
}

/// `https://host:port`
fn origin(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    format!("{scheme}://{}", rest.split('/').next().unwrap_or_default())
}

fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split('/').next()?;
    Some(authority.rsplit_once(':').map_or(authority, |(host, _)| host))
}

/// A submodule's address relative to the repository's.
fn relative(parent: &str, address: &str) -> Option<String> {
    let (origin, path) = parent.split_once("://")?;
    let mut parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    for part in address.split('/') {
        match part {
            "." | "" => {}
            // The host stays.
            ".." if parts.len() > 1 => drop(parts.pop()),
            ".." => return None,
            name => parts.push(name),
        }
    }
    Some(format!("{origin}://{}", parts.join("/")))
}

/// `https://host/path` of `git@host:path` and `ssh://git@host/path`.
fn by_https(address: &str) -> Option<String> {
    if let Some(rest) = address.strip_prefix("ssh://") {
        let (authority, path) = rest.split_once('/')?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        return Some(format!("https://{}/{path}", host.split(':').next()?));
    }
    let (host, path) = address.strip_prefix("git@")?.split_once(':')?;
    Some(format!("https://{host}/{}", path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_means() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let listing =
            format!("{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n{a}\trefs/heads/x/main\n");
        assert_eq!(best(&listing, "v1"), Some(c));
        assert_eq!(best(&listing, "refs/heads/v1"), Some(a.clone()));
        assert_eq!(best(&listing, "main"), None, "another branch ends so");
        assert_eq!(best(&format!("{a}\tHEAD\n"), "HEAD"), Some(a));
    }

    #[test]
    fn addresses_of_submodules() {
        let parent = "https://h.example/a/b.git";
        assert_eq!(relative(parent, "../c.git").as_deref(), Some("https://h.example/a/c.git"));
        assert_eq!(relative(parent, "./c").as_deref(), Some("https://h.example/a/b.git/c"));
        assert_eq!(relative(parent, "../../../x"), None);
        assert_eq!(by_https("git@h.example:a/b.git").as_deref(), Some("https://h.example/a/b.git"));
        assert_eq!(by_https("ssh://git@h.example:22/a/b").as_deref(), Some("https://h.example/a/b"));
        assert_eq!(by_https("ext::sh -c x"), None);
        assert_eq!(split_password("https://u:p%40@h/x"), ("https://h/x".into(), Some(STANDARD.encode("u:p@"))));
        assert_eq!(split_password("https://tok@h/x").1, Some(STANDARD.encode("tok:")));
        assert_eq!(host_of("https://h.example:8443/x"), Some("h.example"));
    }
}
