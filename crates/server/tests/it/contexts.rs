//! What builds build from: folders of which only the news travels, repositories, files on the
//! web; and what they must not be able to fetch. Against a web server of the test's own, with
//! the repositories of git's own `http-backend`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use portolan_types::Digest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::builds::{Yard, context, dockerfile};

/// A web server: files, redirects, repositories, large files.
struct Web {
    port: u16,
    state: Arc<State>,
    dir: tempfile::TempDir,
}

#[derive(Default)]
struct State {
    /// Contents and `ETag` by path.
    files: Mutex<HashMap<String, (Vec<u8>, String)>>,
    redirects: Mutex<HashMap<String, String>>,
    /// What must be in `Authorization` for repositories.
    password: Mutex<Option<String>>,
    /// Paths asked for, and the status of each answer.
    seen: Mutex<Vec<(String, u16)>>,
    root: Mutex<PathBuf>,
}

impl Web {
    async fn start() -> Web {
        let dir = tempfile::tempdir().unwrap();
        let names = ["pub.localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();
        let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        *state.root.lock() = dir.path().join("repos");
        std::fs::create_dir_all(dir.path().join("repos")).unwrap();
        tokio::spawn({
            let state = state.clone();
            async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    let (acceptor, state) = (acceptor.clone(), state.clone());
                    tokio::spawn(async move {
                        if let Ok(mut tls) = acceptor.accept(tcp).await {
                            answer(&mut tls, &state, port).await;
                            let _ = tls.shutdown().await;
                        }
                    });
                }
            }
        });
        Web { port, state, dir }
    }

    fn url(&self, path: &str) -> String {
        format!("https://pub.localhost:{}{path}", self.port)
    }

    fn file(&self, path: &str, contents: &[u8]) {
        let etag = format!("\"{}\"", Digest::of(contents).short());
        self.state.files.lock().insert(path.to_owned(), (contents.to_vec(), etag));
    }

    /// Statuses of the answers to requests for a path.
    fn seen(&self, path: &str) -> Vec<u16> {
        self.state.seen.lock().iter().filter(|(p, _)| p == path).map(|(_, status)| *status).collect()
    }

    fn repo(&self, name: &str) -> PathBuf {
        self.dir.path().join("repos").join(name)
    }

    /// Make a repository of these files; the commit.
    fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        let repo = self.repo(name);
        if !repo.exists() {
            std::fs::create_dir_all(&repo).unwrap();
            git(&repo, &["init", "-q", "-b", "main", "."]);
        }
        for (path, text) in files {
            let path = repo.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        git(&repo, &["add", "-A"]);
        git(&repo, &["commit", "-q", "-m", "x"]);
        git(&repo, &["rev-parse", "HEAD"])
    }

    /// Settings under which builds reach this server by its name, and by nothing else.
    fn settings(&self) -> String {
        format!(
            "build_fetch_allow = \"pub.localhost\"\nbuild_fetch_ca_file = \"{}\"\n",
            self.dir.path().join("ca.pem").display()
        )
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let done = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

async fn answer(io: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), state: &Arc<State>, port: u16) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if io.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let header = |name: &str| {
        head.lines()
            .filter_map(|l| l.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.to_owned())
    };
    let length: usize = header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = bytes[end..].to_vec();
    while body.len() < length {
        if io.read_buf(&mut body).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (status, headers, out) = respond(state, port, &method, path, query, &header, body).await;
    state.seen.lock().push((path.to_owned(), status));
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", out.len());
    let _ = io.write_all(head.as_bytes()).await;
    let _ = io.write_all(&out).await;
}

async fn respond(
    state: &Arc<State>,
    port: u16,
    method: &str,
    path: &str,
    query: &str,
    header: &(dyn Fn(&str) -> Option<String> + Sync),
    body: Vec<u8>,
) -> (u16, String, Vec<u8>) {
    if let Some(to) = state.redirects.lock().get(path) {
        return (302, format!("Location: {to}\r\n"), Vec::new());
    }
    if path.ends_with("/info/lfs/objects/batch") {
        let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let objects: Vec<_> = asked["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| {
                let href = format!("https://pub.localhost:{port}/lfs/{}", o["oid"].as_str().unwrap());
                json!({"oid": o["oid"], "size": o["size"], "actions": {"download": {"href": href}}})
            })
            .collect();
        return (200, String::new(), json!({"objects": objects}).to_string().into_bytes());
    }
    if let Some((contents, etag)) = state.files.lock().get(path) {
        let headers = format!("ETag: {etag}\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        return match header("if-none-match").as_deref() == Some(etag.as_str()) {
            true => (304, headers, Vec::new()),
            false => (200, headers, contents.clone()),
        };
    }
    if !path.contains(".git/") {
        return (404, String::new(), Vec::new());
    }
    let password = state.password.lock().clone();
    if password.is_some() && header("authorization") != password {
        return (401, "WWW-Authenticate: Basic realm=\"x\"\r\n".into(), Vec::new());
    }
    let mut cgi = Command::new("git");
    cgi.arg("http-backend")
        .env("GIT_PROJECT_ROOT", &*state.root.lock())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let out = tokio::task::spawn_blocking(move || {
        let mut child = cgi.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &body));
        let out = child.wait_with_output().unwrap().stdout;
        let _ = writing.join();
        out
    })
    .await
    .unwrap();
    let end = out.windows(4).position(|w| w == b"\r\n\r\n").map_or(out.len(), |n| n + 4);
    let head = String::from_utf8_lossy(&out[..end]).into_owned();
    let status = head.lines().find_map(|l| l.strip_prefix("Status: ")).and_then(|s| s[..3].parse().ok()).unwrap_or(200);
    let headers: String = head.lines().filter(|l| l.starts_with("Content-Type")).map(|l| format!("{l}\r\n")).collect();
    (status, headers, out[end..].to_vec())
}

fn from(source: &str) -> serde_json::Value {
    json!({"sourceLocation": source, "imageNames": ["out:1"]})
}

/// A Dockerfile that keeps everything.
const ALL: &str = "FROM scratch\nCOPY . /\n";

#[tokio::test]
async fn repositories_by_branch_tag_commit_and_folder() {
    let web = Web::start().await;
    let first =
        web.commit("app.git", &[("Dockerfile", ALL), ("v", "one"), ("sub/Dockerfile", ALL), ("sub/s", "below")]);
    git(&web.repo("app.git"), &["tag", "-a", "-m", "x", "v1"]);
    git(&web.repo("app.git"), &["checkout", "-q", "-b", "next"]);
    web.commit("app.git", &[("v", "two")]);
    git(&web.repo("app.git"), &["checkout", "-q", "main"]);
    let yard = Yard::start_with(&web.settings()).await;
    let repo = web.url("/app.git");
    let cases = [
        (repo.clone(), "v", "one"),
        (format!("{repo}#next"), "v", "two"),
        (format!("{repo}#v1"), "v", "one"),
        (format!("{repo}#{first}"), "v", "one"),
        (format!("{repo}#{}", &first[..10]), "v", "one"),
        (format!("{repo}#main:sub"), "s", "below"),
        (format!("{repo}?branch=next&subdir=sub"), "s", "below"),
    ];
    for (source, name, text) in cases {
        let ended = yard.built(context(&[]), from(&source)).await;
        let files = yard.files("out", "1").await;
        assert_eq!(files.get(name).map(String::as_str), Some(text), "{source}");
        assert!(!files.keys().any(|k| k.contains(".git/")), "{source}: {files:?}");
        assert!(ended.log.contains("Fetching https://pub.localhost:"), "{}", ended.log);
    }
    for (bad, why) in [
        (format!("{repo}#absent"), "no branch, tag or commit"),
        (format!("{repo}#main:absent"), "no folder"),
        (format!("{}#main", web.url("/none.git")), "git:"),
        ("file:///etc".to_owned(), "build_git_folder"),
        (format!("{repo}?commit=0000000"), "was expected"),
    ] {
        let ended = yard.build(context(&[]), from(&bad)).await;
        assert_eq!(ended.status(), "Failed", "{bad}: {}", ended.log);
        assert!(ended.error().contains(why), "{bad}: {}", ended.error());
    }
}

#[tokio::test]
async fn submodules_large_files_and_passwords() {
    let web = Web::start().await;
    web.commit("lib.git", &[("lib", "library")]);
    let large = "large\n".repeat(1000);
    let oid = Digest::of(large.as_bytes()).hex();
    web.file(&format!("/lfs/{oid}"), large.as_bytes());
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n", large.len());
    web.commit(
        "app.git",
        &[("Dockerfile", ALL), (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n"), ("a.bin", &pointer)],
    );
    let lib = web.repo("lib.git").display().to_string();
    git(&web.repo("app.git"), &["submodule", "--quiet", "add", &lib, "deps/lib"]);
    git(&web.repo("app.git"), &["config", "-f", ".gitmodules", "submodule.deps/lib.url", "../lib.git"]);
    web.commit("app.git", &[("x", "y")]);
    *web.state.password.lock() = Some(format!("Basic {}", STANDARD.encode("x-access-token:hush-hush")));

    let yard = Yard::start_with(&web.settings()).await;
    let mut order = from(&web.url("/app.git#main"));
    let refused = yard.build(context(&[]), order.clone()).await;
    assert_eq!(refused.status(), "Failed");
    assert!(refused.error().contains("GIT_AUTH_TOKEN"), "{}", refused.error());
    order["buildOptions"] = json!({"secrets": [{"id": "GIT_AUTH_TOKEN", "value": STANDARD.encode("hush-hush")}]});
    let ended = yard.built(context(&[]), order).await;
    let files = yard.files("out", "1").await;
    assert_eq!(files["deps/lib/lib"], "library");
    assert_eq!(files["a.bin"], large);
    assert!(!ended.log.contains("hush"), "{}", ended.log);

    // In the address it is as good, and as secret.
    let address = web.url("/app.git#main").replace("https://", "https://x-access-token:hush-hush@");
    let ended = yard.built(context(&[]), from(&address)).await;
    let shown = format!("{} {}", ended.run, ended.log);
    assert!(!shown.contains("hush") && ended.log.contains("Fetching https://pub.localhost"), "{shown}");

    // A pointer to something else than it says is refused.
    web.file(&format!("/lfs/{oid}"), large.replace('l', "L").as_bytes());
    let ended = yard.build(context(&[]), from(&address)).await;
    assert!(ended.error().contains("not what its pointer says"), "{}", ended.error());
}

#[tokio::test]
async fn repositories_of_this_machine_where_the_operator_says() {
    let web = Web::start().await;
    web.commit("in.git", &[("Dockerfile", ALL), ("v", "one")]);
    let outside = tempfile::tempdir().unwrap();
    git(outside.path(), &["init", "-q", "."]);
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    git(outside.path(), &["add", "-A"]);
    git(outside.path(), &["commit", "-q", "-m", "x"]);
    let folder = web.dir.path().join("repos");
    let yard = Yard::start_with(&format!("build_git_folder = \"{}\"\n", folder.display())).await;
    yard.built(context(&[]), from(&format!("file://{}#main", web.repo("in.git").display()))).await;
    assert_eq!(yard.files("out", "1").await["v"], "one");

    let out = outside.path().display();
    git(&web.repo("in.git"), &["submodule", "--quiet", "add", &out.to_string(), "sub"]);
    web.commit("in.git", &[("x", "y")]);
    std::os::unix::fs::symlink(outside.path(), folder.join("link.git")).unwrap();
    for bad in [
        format!("file://{out}"),
        format!("file://{}", folder.join("link.git").display()),
        format!("file://{}/../../{}", folder.display(), out),
        format!("file://{}#main", web.repo("in.git").display()),
    ] {
        let ended = yard.build(context(&[]), from(&bad)).await;
        assert_eq!(ended.status(), "Failed", "{bad}");
        assert!(ended.error().contains("build_git_folder"), "{bad}: {}", ended.error());
    }
}

#[tokio::test]
async fn archives_and_dockerfiles_on_the_web_and_what_add_names() {
    let web = Web::start().await;
    web.file("/ctx.tar.gz", &context(&[("Dockerfile", ALL.as_bytes()), ("f", b"from the archive")]));
    web.file("/Dockerfile", b"FROM scratch\nLABEL a=b\nADD https://pub.localhost:PORT/data /d/\n".to_vec().as_slice());
    web.file("/data", b"downloaded");
    let repo = web.commit("lib.git", &[("lib", "library"), ("sub/s", "below")]);
    let yard = Yard::start_with(&web.settings()).await;
    yard.built(context(&[]), from(&web.url("/ctx.tar.gz"))).await;
    assert_eq!(yard.files("out", "1").await["f"], "from the archive");
    let text = format!("FROM scratch\nADD {} /d/\n", web.url("/data"));
    web.file("/Dockerfile", text.as_bytes());
    yard.built(context(&[]), from(&web.url("/Dockerfile"))).await;
    assert_eq!(yard.files("out", "1").await["d/data"], "downloaded");

    // Asked for again, and not sent again.
    yard.built(context(&[]), from(&web.url("/Dockerfile"))).await;
    assert_eq!(web.seen("/data"), [200, 304]);
    web.file("/data", b"other");
    yard.built(context(&[]), from(&web.url("/Dockerfile"))).await;
    assert_eq!((web.seen("/data"), yard.files("out", "1").await["d/data"].as_str()), (vec![200, 304, 200], "other"));

    // With a checksum it is fetched once, and refused when it is another.
    let digest = Digest::of(b"other");
    let sum = |d: &str| dockerfile(&format!("FROM scratch\nADD --checksum={d} {} /sum/x\n", web.url("/data")));
    yard.built(sum(&digest.to_string()), json!({"imageNames": ["out:1"]})).await;
    let asked = web.seen("/data").len();
    yard.built(sum(&digest.to_string()), json!({"imageNames": ["out:1"]})).await;
    assert_eq!((web.seen("/data").len(), yard.files("out", "1").await["sum/x"].as_str()), (asked, "other"));
    let wrong = yard.build(sum(&Digest::of(b"x").to_string()), json!({})).await;
    assert!(wrong.error().contains("has the checksum"), "{}", wrong.error());

    let text = format!(
        "FROM scratch\nADD {0}#main:sub /sub/\nADD --keep-git-dir=true {0} /all\nADD --checksum={repo} {0} /pinned\n",
        web.url("/lib.git")
    );
    yard.built(dockerfile(&text), json!({"imageNames": ["out:1"]})).await;
    let files = yard.files("out", "1").await;
    assert_eq!(
        (files["sub/s"].as_str(), files["all/lib"].as_str(), files["pinned/lib"].as_str()),
        ("below", "library", "library")
    );
    assert!(files.contains_key("all/.git/HEAD") && !files.contains_key("pinned/.git/HEAD"));
}

#[tokio::test]
async fn contexts_with_names() {
    let web = Web::start().await;
    web.commit("lib.git", &[("lib", "library")]);
    let yard = Yard::start_with(&web.settings()).await;
    yard.base().await;
    let uploaded = yard.upload(context(&[("u", b"uploaded")])).await;
    let text = "FROM base\nCOPY --from=lib /lib /got/\nCOPY --from=up u /got/\nRUN --mount=from=up,target=/m cp /m/u /got/run\n\
                FROM up AS alone\nFROM scratch\nCOPY --from=0 /got /\nCOPY --from=alone /u /alone\n";
    let order = json!({"imageNames": ["out:1"], "buildOptions": {"contexts": [
        {"name": "lib", "source": web.url("/lib.git#main")},
        {"name": "up", "source": uploaded},
        {"name": "base", "source": format!("docker-image://{}/busybox:1", yard.login_server)},
    ]}});
    yard.built(dockerfile(text), order).await;
    let files = yard.files("out", "1").await;
    let got = |name: &str| files[name].as_str();
    assert_eq!((got("lib"), got("u"), got("run"), got("alone")), ("library", "uploaded", "uploaded", "uploaded"));
}

#[tokio::test]
async fn what_the_server_must_not_fetch_for_anybody() {
    let web = Web::start().await;
    web.file("/secret", b"FROM scratch\nLABEL stolen=yes\n");
    let literal = format!("https://127.0.0.1:{}", web.port);
    for (path, to) in [
        ("/to-literal", format!("{literal}/secret")),
        ("/to-name", format!("https://localhost:{}/secret", web.port)),
        ("/to-metadata", "http://169.254.169.254/latest/meta-data/".into()),
        ("/evil.git/info/refs", format!("{literal}/app.git/info/refs?service=git-upload-pack")),
    ] {
        web.state.redirects.lock().insert(path.into(), to);
    }
    web.commit("app.git", &[("Dockerfile", ALL)]);
    // A submodule on an address that is closed, though the repository's is open.
    web.commit("host.git", &[("Dockerfile", ALL)]);
    git(&web.repo("host.git"), &["submodule", "--quiet", "add", &web.repo("app.git").display().to_string(), "sub"]);
    git(&web.repo("host.git"), &["config", "-f", ".gitmodules", "submodule.sub.url", &format!("{literal}/app.git")]);
    web.commit("host.git", &[("x", "y")]);
    let yard = Yard::start_with(&web.settings()).await;
    let sources = [
        format!("{literal}/secret"),
        format!("https://localhost:{}/secret", web.port),
        format!("https://[::ffff:127.0.0.1]:{}/secret", web.port),
        format!("https://2130706433:{}/secret", web.port),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        web.url("/to-literal"),
        web.url("/to-name"),
        web.url("/to-metadata"),
        format!("{literal}/app.git"),
        web.url("/evil.git"),
        web.url("/host.git"),
    ];
    for source in sources {
        let ended = yard.build(context(&[]), from(&source)).await;
        assert_eq!(ended.status(), "Failed", "{source}: {}", ended.log);
    }
    for text in [
        format!("FROM scratch\nADD {literal}/secret /x\n"),
        format!("FROM scratch\nADD {literal}/app.git /x\n"),
        format!("FROM 127.0.0.1:{}/x:1\n", web.port),
        "FROM 169.254.169.254/x:1\n".to_owned(),
    ] {
        let ended = yard.build(dockerfile(&text), json!({})).await;
        assert_eq!(ended.status(), "Failed", "{text}: {}", ended.log);
        assert!(ended.error().contains("build_fetch_allow"), "{text}: {}", ended.error());
    }
    assert_eq!(web.seen("/secret"), [0u16; 0], "nothing was asked of a closed address");
    assert_eq!(web.seen("/app.git/info/refs"), [0u16; 0]);
    assert!(!web.seen("/to-literal").is_empty() && !web.seen("/host.git/info/refs").is_empty());
}

/// Our own command line, signed in.
struct Cli {
    binary: PathBuf,
    config: tempfile::TempDir,
}

impl Cli {
    fn new(yard: &Yard) -> Cli {
        let cli = Cli { binary: portolan_testkit::binary().unwrap(), config: tempfile::tempdir().unwrap() };
        let bootstrap = yard.child.data.join("bootstrap.json");
        cli.run(&["login", "--bootstrap", &bootstrap.display().to_string()]);
        cli
    }

    fn run(&self, args: &[&str]) -> String {
        let done =
            Command::new(&self.binary).args(args).env("PORTOLAN_CONFIG_DIR", self.config.path()).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{args:?}: {text}");
        text
    }
}

#[tokio::test]
async fn only_the_news_of_a_folder_travels() {
    let yard = Yard::start().await;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("Dockerfile", "FROM scratch\nCOPY src /src/\n");
    write("src/a", "one");
    write("src/b", "two");
    write("not-needed", "three");
    write("src/ignored", "four");
    write(".dockerignore", "src/ignored\n");
    std::fs::hard_link(dir.path().join("src/a"), dir.path().join("src/hard")).unwrap();
    let root = dir.path().display().to_string();
    let (say, files) = build(&yard, &root).await;
    // The Dockerfile, the ignore file, a and b; hard is a again.
    assert!(say.contains(" 4 new, "), "{say}");
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["src", "src/a", "src/b", "src/hard"]);
    let (say, _) = build(&yard, &root).await;
    assert!(say.contains(" 0 new, "), "{say}");
    write("src/b", "changed");
    let (say, files) = build(&yard, &root).await;
    assert!(say.contains(" 1 new, ") && files["src/b"] == "changed", "{say}");
    // Back to what it was: that is here still.
    write("src/b", "two");
    let (say, files) = build(&yard, &root).await;
    assert!(say.contains(" 0 new, ") && files["src/b"] == "two", "{say}");
}

async fn build(yard: &Yard, root: &str) -> (String, std::collections::BTreeMap<String, String>) {
    let cli = Cli::new(yard);
    let root = root.to_owned();
    let say =
        tokio::task::spawn_blocking(move || cli.run(&["acr", "build", "-r", "yard1", "-t", "out:1", &root])).await;
    let say = say.unwrap();
    let line = say.lines().find(|l| l.contains("Sent the build context")).unwrap_or_default().to_owned();
    (line, yard.files("out", "1").await)
}
