//! Builds over HTTP: contexts, runs, logs, base images. By the built binary, since steps
//! run in processes of it.

use std::io::Write;
use std::time::Duration;

use portolan_testkit::{Child, Site, postgres};
use portolan_types::{Digest, media_type};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

/// One registry on one server, for building.
pub(crate) struct Yard {
    pub(crate) child: Child,
    pub(crate) site: Site,
    pub(crate) registry: &'static str,
    pub(crate) login_server: String,
    pub(crate) data: tempfile::TempDir,
}

/// What became of a run.
pub(crate) struct Ended {
    pub(crate) run: Value,
    pub(crate) log: String,
    pub(crate) complete: String,
}

impl Yard {
    pub(crate) async fn start() -> Yard {
        Yard::start_with("").await
    }

    /// With more settings, as lines of a configuration file.
    pub(crate) async fn start_with(settings: &str) -> Yard {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("settings.toml");
        std::fs::write(&file, settings).unwrap();
        let file = file.display().to_string();
        let child = Child::start(data.path(), &["--listen-http", "127.0.0.1:0", "--config", &file]).await.unwrap();
        let site = child.site().unwrap();
        let login_server = site.make_registry("yard1").await.unwrap();
        Yard { child, site, registry: "yard1", login_server, data }
    }

    async fn arm(&self, method: Method, rest: &str, body: Option<Value>) -> Response {
        self.site.arm(method, &format!("{}/{rest}", Site::registry_path(self.registry)), body).await.unwrap()
    }

    pub(crate) async fn json(&self, method: Method, rest: &str, body: Option<Value>) -> Value {
        let res = self.arm(method, rest, body).await;
        let (status, text) = (res.status(), res.text().await.unwrap());
        assert!(status.is_success(), "{rest}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Where a context goes: its relative path and signed address.
    async fn place(&self) -> (String, String) {
        let place = self.json(Method::POST, "listBuildSourceUploadUrl", None).await;
        let text = |name: &str| place[name].as_str().unwrap().to_owned();
        (text("relativePath"), text("uploadUrl"))
    }

    pub(crate) async fn upload(&self, context: Vec<u8>) -> String {
        let (path, url) = self.place().await;
        let put = self.site.client.put(url).header("x-ms-blob-type", "BlockBlob").body(context).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
        path
    }

    /// Order a build; `change` goes over the usual order.
    pub(crate) async fn order(&self, context: Vec<u8>, change: Value) -> String {
        let source = self.upload(context).await;
        let mut order = json!({
            "type": "DockerBuildRequest", "imageNames": [], "isPushEnabled": true, "sourceLocation": source,
            "platform": {"os": "linux", "architecture": host_architecture()}, "dockerFilePath": "Dockerfile",
            "arguments": [], "credentials": {},
        });
        for (name, value) in change.as_object().unwrap() {
            order[name] = value.clone();
        }
        let run = self.json(Method::POST, "scheduleRun", Some(order)).await;
        run["properties"]["runId"].as_str().unwrap().to_owned()
    }

    async fn log_url(&self, run: &str) -> String {
        let link = self.json(Method::POST, &format!("runs/{run}/listLogSasUrl"), None).await;
        link["logLink"].as_str().unwrap().to_owned()
    }

    /// Follow a run's log as our command line does, to the end or to a line with `until`.
    pub(crate) async fn follow(&self, run: &str, until: Option<&str>) -> (String, Option<String>) {
        let url = format!("{}&wait=20", self.log_url(run).await);
        let mut log = String::new();
        loop {
            let window = format!("bytes={}-", log.len());
            let res = self.site.client.get(&url).header("x-ms-range", window).send().await.unwrap();
            let complete = header(&res, "x-ms-meta-complete");
            match res.status() {
                StatusCode::PARTIAL_CONTENT => log.push_str(&res.text().await.unwrap()),
                StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND => {}
                other => panic!("{other}: {}", res.text().await.unwrap()),
            }
            if complete.is_some() || until.is_some_and(|until| log.contains(until)) {
                return (log, complete);
            }
        }
    }

    pub(crate) async fn ended(&self, run: &str) -> Ended {
        let (log, complete) = self.follow(run, None).await;
        let run = self.json(Method::GET, &format!("runs/{run}"), None).await;
        Ended { run, log, complete: complete.unwrap() }
    }

    pub(crate) async fn build(&self, context: Vec<u8>, change: Value) -> Ended {
        let run = self.order(context, change).await;
        self.ended(&run).await
    }

    pub(crate) async fn built(&self, context: Vec<u8>, change: Value) -> Ended {
        let ended = self.build(context, change).await;
        assert_eq!((ended.status(), ended.complete.as_str()), ("Succeeded", "successful"), "{}", ended.log);
        ended
    }

    /// Put a small system into the registry as `busybox:1`.
    pub(crate) async fn base(&self) {
        let dockerfile = "FROM scratch\nADD rootfs.tar /\nENV BASE=yes\nCMD [\"/bin/sh\"]\n";
        let files = context(&[("Dockerfile", dockerfile.as_bytes()), ("rootfs.tar", &rootfs())]);
        self.built(files, json!({"imageNames": ["busybox:1"]})).await;
    }

    pub(crate) async fn manifest(&self, repo: &str, reference: &str) -> Value {
        let token = self.site.token(&self.login_server, &format!("repository:{repo}:pull")).await.unwrap();
        let path = format!("/v2/{repo}/manifests/{reference}");
        let req = self.site.registry(&self.login_server, &token, Method::GET, &path);
        let res = req.header("accept", media_type::DOCKER_MANIFEST).send().await.unwrap();
        assert_eq!(res.status(), StatusCode::OK, "{repo}:{reference}");
        res.json().await.unwrap()
    }

    pub(crate) async fn blob(&self, repo: &str, digest: &str) -> Vec<u8> {
        let token = self.site.token(&self.login_server, &format!("repository:{repo}:pull")).await.unwrap();
        let req = self.site.registry(&self.login_server, &token, Method::GET, &format!("/v2/{repo}/blobs/{digest}"));
        req.send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap().to_vec()
    }

    /// Names and contents of the files in the image's layers, later ones over earlier ones.
    pub(crate) async fn files(&self, repo: &str, tag: &str) -> std::collections::BTreeMap<String, String> {
        let manifest = self.manifest(repo, tag).await;
        let mut files = std::collections::BTreeMap::new();
        for layer in manifest["layers"].as_array().unwrap() {
            let bytes = self.blob(repo, layer["digest"].as_str().unwrap()).await;
            let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
            for entry in tar.entries().unwrap() {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                files.insert(name, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        files
    }
}

impl Ended {
    pub(crate) fn status(&self) -> &str {
        self.run["properties"]["status"].as_str().unwrap()
    }

    pub(crate) fn error(&self) -> &str {
        self.run["properties"]["runErrorMessage"].as_str().unwrap_or_default()
    }
}

fn header(res: &Response, name: &str) -> Option<String> {
    res.headers().get(name).map(|v| v.to_str().unwrap().to_owned())
}

fn host_architecture() -> String {
    portolan_types::Platform::host().architecture
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A packed context.
pub(crate) fn context(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar_of(files)).unwrap();
    gzip.finish().unwrap()
}

/// A context of a Dockerfile alone.
pub(crate) fn dockerfile(text: &str) -> Vec<u8> {
    context(&[("Dockerfile", text.as_bytes())])
}

/// The smallest system that can run steps: the static busybox that `./test` installs.
fn rootfs() -> Vec<u8> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| std::fs::read(path).ok());
    let busybox = busybox.expect("these tests need the package busybox-static");
    let mut tar = tar::Builder::new(tar_of_head(&busybox));
    for tool in ["sh", "ls", "cat", "echo", "id", "mkdir", "sleep", "test", "true", "false"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{tool}"), "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}

/// An archive without its end, to add to.
fn tar_of_head(busybox: &[u8]) -> Vec<u8> {
    let passwd = b"root:x:0:0:root:/root:/bin/sh\n";
    let mut bytes = tar_of(&[("bin/busybox", busybox), ("etc/passwd", passwd), ("tmp/.keep", b"")]);
    bytes.truncate(bytes.len() - 1024);
    bytes
}

#[tokio::test]
async fn from_nothing_to_an_image_with_steps_stages_and_arguments() {
    let yard = Yard::start().await;
    yard.base().await;
    let text = "FROM busybox:1 AS build\n\
                ARG TOKEN\n\
                ARG MODE=slow\n\
                RUN echo \"token $TOKEN mode $MODE\" && echo made > /made\n\
                FROM HOST/busybox:1\n\
                ENV APP=1\n\
                COPY . /app/\n\
                COPY --from=build /made /app/made\n"
        .replace("HOST", &yard.login_server);
    let copy = "0123456789abcdef0123456789abcdef_Dockerfile";
    let files = context(&[("Dockerfile", text.as_bytes()), ("a.txt", b"alpha"), (copy, text.as_bytes())]);
    let order = json!({
        "imageNames": ["app:{{.Run.ID}}", "app:latest", "team/app:v1"], "dockerFilePath": copy,
        "arguments": [
            {"type": "Argument", "name": "TOKEN", "value": "hunter2", "isSecret": true},
            {"type": "Argument", "name": "MODE", "value": "fast", "isSecret": false},
        ],
    });
    let ended = yard.built(files.clone(), order.clone()).await;

    assert!(ended.log.ends_with("\r\n") && !ended.log.replace("\r\n", "").contains('\n'), "{:?}", ended.log);
    let said = " token *** mode fast\r\n";
    assert!(ended.log.contains(said), "{}", ended.log);
    assert!(!ended.log.contains("hunter2"), "{}", ended.log);
    assert!(ended.log.contains("Run ID: cb2 was successful after "), "{}", ended.log);
    let properties = &ended.run["properties"];
    assert_eq!(ended.run["name"], "cb2");
    assert_eq!(ended.run["type"], "Microsoft.ContainerRegistry/registries/runs");
    assert!(ended.run["id"].as_str().unwrap().ends_with("/registries/yard1/runs/cb2"));
    assert_eq!(properties["runType"], "QuickBuild");
    assert_eq!(properties["platform"], json!({"os": "linux", "architecture": host_architecture()}));
    let images = properties["outputImages"].as_array().unwrap();
    let names: Vec<_> =
        images.iter().map(|i| (i["repository"].as_str().unwrap(), i["tag"].as_str().unwrap())).collect();
    assert_eq!(names, [("app", "cb2"), ("app", "latest"), ("team/app", "v1")]);
    assert!(images.iter().all(|i| i["registry"] == yard.login_server.as_str() && i["digest"] == images[0]["digest"]));
    assert!(!ended.run.to_string().contains("hunter2"));
    for name in ["portolan.db", "portolan.db-wal"] {
        // What PostgreSQL keeps in its files is not for us to look at.
        let bytes = match postgres::is_chosen() {
            true => Vec::new(),
            false => std::fs::read(yard.data.path().join(name)).unwrap(),
        };
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{name}");
    }

    let manifest = yard.manifest("team/app", "v1").await;
    let config = yard.blob("team/app", manifest["config"]["digest"].as_str().unwrap()).await;
    assert!(!String::from_utf8_lossy(&config).contains("hunter2"));
    let config: Value = serde_json::from_slice(&config).unwrap();
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env.contains(&json!("BASE=yes")) && env.contains(&json!("APP=1")), "{env:?}");
    let files_in = yard.files("app", "latest").await;
    assert_eq!(files_in["app/made"], "made\n");
    assert_eq!(files_in["app/a.txt"], "alpha");
    assert!(!files_in.keys().any(|name| name.contains("0123456789abcdef")), "the client's copy of the Dockerfile");

    // The same again, by another name: every step is known.
    let again = yard.built(files, order).await;
    assert!(again.log.contains("CACHED") && !again.log.contains(said), "{}", again.log);
    assert_eq!(again.run["properties"]["outputImages"][0]["tag"], "cb3");

    // Newest first; found by what it stored.
    let ids = |runs: &Value| -> Vec<String> {
        runs["value"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&yard.json(Method::GET, "runs?$top=2", None).await), ["cb3", "cb2"]);
    let by_image = format!(
        "runs?$top=15&$filter=contains(OutputImageManifests,%20'team/app@{}')",
        properties["outputImages"][0]["digest"].as_str().unwrap()
    );
    assert!(ids(&yard.json(Method::GET, &by_image, None).await).contains(&"cb2".to_owned()));
    let kept = yard.json(Method::PATCH, "runs/cb2", Some(json!({"isArchiveEnabled": true}))).await;
    assert_eq!(kept["properties"]["isArchiveEnabled"], true);
    // Nothing of a run is left outside the store.
    assert_eq!(std::fs::read_dir(yard.data.path().join("build/runs")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_wrong_is_said_where_people_look() {
    let yard = Yard::start().await;
    yard.base().await;
    let check = async |context: Vec<u8>, change: Value, status: &str, complete: &str, words: &str| {
        let ended = yard.build(context, change).await;
        assert_eq!((ended.status(), ended.complete.as_str()), (status, complete), "{}", ended.log);
        for text in [&ended.log, ended.error()] {
            assert!(text.contains(words), "no {words:?} in:\n{text}");
        }
        assert_eq!(ended.run["properties"]["outputImages"], json!([]));
    };
    let failed = async |context: Vec<u8>, change: Value, words: &str| {
        check(context, change, "Failed", "failed", words).await;
    };
    failed(dockerfile("FROM busybox:1\nRNU echo\n"), json!({}), "Dockerfile:2").await;
    failed(dockerfile("FROM busybox:1\nRUN false\n"), json!({}), "exit code: 1").await;
    failed(dockerfile("FROM busybox:1\nCOPY absent /x\n"), json!({}), "absent").await;
    failed(context(&[("x", b"")]), json!({}), "Dockerfile was not found in the build context").await;
    failed(dockerfile("FROM busybox:1\n"), json!({"dockerFilePath": "../../etc/passwd"}), "out of the build context")
        .await;
    failed(dockerfile("FROM busybox:1\n"), json!({"target": "nope"}), "nope").await;
    failed(b"not an archive".to_vec(), json!({}), "the build context was refused").await;
    let host = format!("FROM {}/absent:1\n", yard.login_server);
    failed(dockerfile(&host), json!({}), "does not exist in this registry").await;
    // Nothing listens there, which is told at once.
    failed(dockerfile("FROM 127.0.0.1:1/x/y:1\n"), json!({}), "cannot pull 127.0.0.1:1/x/y:1").await;
    let other = if host_architecture() == "arm64" { "amd64" } else { "arm64" };
    let platform = json!({"platform": {"os": "linux", "architecture": other}});
    failed(dockerfile("FROM busybox:1\n"), platform, &format!("the build wants linux/{other}")).await;
    check(dockerfile("FROM busybox:1\nRUN sleep 600\n"), json!({"timeout": 1}), "Timeout", "timedout", "1 seconds")
        .await;

    // What cannot even be ordered.
    let refused = async |change: Value, words: &str| {
        let mut order = json!({"type": "DockerBuildRequest", "sourceLocation": yard.upload(Vec::new()).await});
        for (name, value) in change.as_object().unwrap() {
            order[name] = value.clone();
        }
        let res = yard.arm(Method::POST, "scheduleRun", Some(order)).await;
        assert_eq!(res.status(), StatusCode::BAD_REQUEST, "{change}");
        let error: Value = res.json().await.unwrap();
        assert!(error["error"]["message"].as_str().unwrap().contains(words), "{error}");
    };
    refused(json!({"type": "EncodedTaskRunRequest"}), "task files").await;
    refused(json!({"type": "Nope"}), "Nope").await;
    refused(json!({"sourceLocation": "source/nope"}), "source/nope").await;
    refused(json!({"imageNames": ["Not:valid"]}), "Not:valid").await;
    refused(json!({"imageNames": ["a:{{.Run.Nope}}"]}), "{{.Run.Nope}}").await;
    refused(json!({"imageNames": ["ghcr.io/a/b:1"]}), "ghcr.io").await;
    refused(json!({"timeout": 100_000}), "28800").await;
    refused(json!({"platform": {"os": "windows"}}), "windows").await;
    for (method, rest, status) in [
        (Method::GET, "runs/cb999", StatusCode::NOT_FOUND),
        (Method::POST, "runs/cb999/cancel", StatusCode::NOT_FOUND),
        (Method::DELETE, "runs/cb1", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "runs?$filter=Name%20eq%20'x'", StatusCode::BAD_REQUEST),
        (Method::GET, "scheduleRun", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        assert_eq!(yard.arm(method, rest, None).await.status(), status, "{rest}");
    }
}

#[tokio::test]
async fn a_cancelled_build_stops() {
    let yard = Yard::start().await;
    yard.base().await;
    let order = json!({"imageNames": ["never:1"]});
    let run = yard.order(dockerfile("FROM busybox:1\nRUN echo begun && sleep 600\n"), order).await;
    let (log, complete) = yard.follow(&run, Some(" begun\r\n")).await;
    assert_eq!(complete, None, "{log}");
    yard.json(Method::POST, &format!("runs/{run}/cancel"), None).await;
    let ended = yard.ended(&run).await;
    assert_eq!((ended.status(), ended.complete.as_str()), ("Canceled", "canceled"), "{}", ended.log);
    assert!(ended.log.contains(&format!("Run ID: {run} was canceled after ")), "{}", ended.log);
    // The worker is free again.
    yard.built(dockerfile("FROM busybox:1\n"), json!({})).await;
}

#[tokio::test]
async fn a_killed_server_ends_its_runs_when_it_is_back() {
    let yard = Yard::start().await;
    yard.base().await;
    let run = yard.order(dockerfile("FROM busybox:1\nRUN echo begun && sleep 600\n"), json!({})).await;
    yard.follow(&run, Some(" begun\r\n")).await;
    let Yard { child, data, login_server, .. } = yard;
    child.kill9().await.unwrap();

    let child = Child::start(data.path(), &["--listen-http", "127.0.0.1:0"]).await.unwrap();
    let site = child.site().unwrap();
    let yard = Yard { child, site, registry: "yard1", data, login_server };
    // On a database that others may use too, it is begun anew, by whoever is there.
    if portolan_testkit::postgres::chosen_for(yard.data.path()).is_some() {
        yard.follow(&run, Some("begins it anew (attempt 2 of 3)\r\n")).await;
        yard.json(Method::POST, &format!("runs/{run}/cancel"), None).await;
        assert_eq!(yard.ended(&run).await.status(), "Canceled");
        return;
    }
    let ended = yard.ended(&run).await;
    assert_eq!((ended.status(), ended.complete.as_str()), ("Error", "internalerror"));
    assert_eq!(ended.error(), "the server stopped during this run");
    assert!(ended.log.contains(" begun\r\n") && ended.log.ends_with("the server stopped during this run\r\n"));
    // What was stored before is good, and so is what comes after.
    yard.built(dockerfile("FROM busybox:1\nRUN echo again\n"), json!({"imageNames": ["after:1"]})).await;
    assert_eq!(yard.child.terminate().await.unwrap().0, Some(0));
}

#[tokio::test]
async fn a_base_image_from_another_registry_is_kept() {
    let upstream = Yard::start().await;
    upstream.base().await;
    let open = json!({"properties": {"anonymousPullEnabled": true}});
    assert!(
        upstream
            .site
            .arm(Method::PATCH, &Site::registry_path("yard1"), Some(open))
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let host = upstream.site.http_url.clone().unwrap().replace("http://", "");
    let yard = Yard::start_with("build_fetch_allow = \"127.0.0.0/8\"\n").await;

    // Without a rule: pulled, kept for later builds, in no repository.
    let text = format!("FROM {host}/busybox:1\nRUN echo on top\n");
    let first = yard.built(dockerfile(&text), json!({"imageNames": ["top:1"]})).await;
    assert!(first.log.contains(&format!("pulling {host}/busybox:1")), "{}", first.log);
    let second = yard.built(dockerfile(&text.replace("on top", "higher")), json!({})).await;
    assert!(second.log.contains("pulled 0.0 MB"), "{}", second.log);
    assert_eq!(
        yard.manifest("top", "1").await["layers"][0],
        upstream.manifest("busybox", "1").await["layers"][0],
        "the base's layer is in the image"
    );

    // With a rule: stored under its name, and found there when the upstream is gone.
    let rule = json!({"properties": {"sourceRepository": format!("{host}/*"), "targetRepository": "far/*"}});
    let made = yard.arm(Method::PUT, "cacheRules/far-away", Some(rule.clone())).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(yard.arm(Method::PUT, "cacheRules/FAR-AWAY", Some(rule)).await.status(), StatusCode::OK);
    yard.built(dockerfile(&text), json!({})).await;
    let theirs = upstream.manifest("busybox", "1").await;
    assert_eq!(yard.manifest("far/busybox", "1").await, theirs);
    upstream.child.kill9().await.unwrap();
    let after = yard.built(dockerfile(&text.replace("on top", "alone")), json!({})).await;
    assert!(after.log.contains("using far/busybox:1 of this registry"), "{}", after.log);

    let rules = yard.json(Method::GET, "cacheRules", None).await;
    let names: Vec<_> = rules["value"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["docker-hub", "docker-official", "far-away"]);
    let rule = yard.json(Method::GET, "cacheRules/far-away", None).await;
    assert_eq!(rule["properties"]["targetRepository"], "far/*");
    assert_eq!(yard.arm(Method::DELETE, "cacheRules/far-away", None).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(yard.arm(Method::DELETE, "cacheRules/far-away", None).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(yard.arm(Method::GET, "cacheRules/far-away", None).await.status(), StatusCode::NOT_FOUND);
    let bad = json!({"properties": {"sourceRepository": "ubuntu", "targetRepository": "ubuntu"}});
    assert_eq!(yard.arm(Method::PUT, "cacheRules/wrong", Some(bad)).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn content_that_a_strange_manifest_names_is_not_given_away() {
    // A stranger's registry answers a manifest that names a layer it does not have; this
    // server has it, in another registry.
    let mut yard = Yard::start_with("build_fetch_allow = \"127.0.0.0/8\"\n").await;
    yard.base().await;
    let secret_layer = yard.manifest("busybox", "1").await["layers"][0].clone();
    yard.login_server = yard.site.make_registry("other1").await.unwrap();
    yard.registry = "other1";
    let config = json!({"architecture": host_architecture(), "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"x")]}, "config": {}})
    .to_string();
    let digest = Digest::of(config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST, "layers": [secret_layer],
        "config": {"mediaType": media_type::DOCKER_CONFIG, "size": config.len(), "digest": digest},
    })
    .to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    tokio::spawn(stranger(listener, manifest, config));
    let ended = yard.build(dockerfile(&format!("FROM {host}/x/y:1\n")), json!({"imageNames": ["loot:1"]})).await;
    assert_eq!(ended.status(), "Failed", "{}", ended.log);
    assert!(ended.error().contains(&format!("cannot pull {host}/x/y:1: layer sha256:")), "{}", ended.error());
}

/// A registry that has one manifest, its configuration, and no layers.
async fn stranger(listener: tokio::net::TcpListener, manifest: String, config: String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut socket, _)) = listener.accept().await {
        let (manifest, config) = (manifest.clone(), config.clone());
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if socket.read(&mut byte).await.unwrap_or(0) == 0 || head.first() == Some(&0x16) {
                    return;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let (status, kind, body) = if head.contains("/manifests/") {
                ("200 OK", media_type::DOCKER_MANIFEST, manifest)
            } else if head.contains(&Digest::of(config.as_bytes()).hex()) {
                ("200 OK", "application/octet-stream", config)
            } else if head.contains("/blobs/") {
                ("404 Not Found", "application/json", "{}".to_owned())
            } else {
                ("200 OK", "application/json", "{}".to_owned())
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        });
    }
}

#[tokio::test]
async fn contexts_in_blocks_and_logs_in_windows() {
    let yard = Yard::start().await;
    let client = &yard.site.client;
    let packed = dockerfile("FROM scratch\nLABEL a=b\n");
    let (path, url) = yard.place().await;
    assert!(url.split('?').next().unwrap().matches('/').count() >= 6, "account, container and blob: {url}");
    let (left, right) = packed.split_at(packed.len() / 2);
    for (id, bytes) in [("Yg==", right), ("YQ==", left)] {
        let block = format!("{url}&comp=block&blockid={}", id.replace('=', "%3D"));
        let put = client.put(block).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let list = async |xml: &str| {
        let put = client.put(format!("{url}&comp=blocklist")).body(xml.to_owned()).send().await.unwrap();
        (put.status(), header(&put, "x-ms-error-code").unwrap_or_default())
    };
    let refused = |code: &str| (StatusCode::BAD_REQUEST, code.to_owned());
    assert_eq!(list("<BlockList><Latest>Yw==</Latest></BlockList>").await, refused("InvalidBlockList"));
    assert_eq!(list("<BlockList><Latest>").await, refused("InvalidXmlDocument"));
    let good =
        "<?xml version='1.0' encoding='utf-8'?><BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest></BlockList>";
    assert_eq!(list(good).await.0, StatusCode::CREATED);

    // Nobody gets in with an address that is not quite it.
    let tampered = [
        url.replace("sp=w", "sp=r"),
        url.replace("/source/", "/source/0"),
        url.replace("se=", "se=9"),
        format!("{}?comp=block&blockid=YQ==", url.split('?').next().unwrap()),
        url.replace("sig=", "sig=AAAA"),
    ];
    for bad in tampered {
        let put = client.put(&bad).body("x").send().await.unwrap();
        assert_eq!(put.status(), StatusCode::FORBIDDEN, "{bad}");
        assert_eq!(header(&put, "x-ms-error-code").as_deref(), Some("AuthenticationFailed"));
        assert!(put.text().await.unwrap().contains("<Code>AuthenticationFailed</Code>"));
    }
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::FORBIDDEN, "it is for writing");

    let order = json!({"type": "DockerBuildRequest", "sourceLocation": path, "dockerFilePath": "Dockerfile"});
    let run = yard.json(Method::POST, "scheduleRun", Some(order)).await["name"].as_str().unwrap().to_owned();
    let ended = yard.ended(&run).await;
    assert_eq!(ended.status(), "Succeeded", "{}", ended.log);
    assert_eq!(ended.run["properties"]["outputImages"], json!([]), "no names, nothing stored");

    let url = yard.log_url(&run).await;
    let length = ended.log.len();
    let head = client.head(&url).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(&head, "content-length"), Some(length.to_string()));
    assert_eq!(header(&head, "x-ms-meta-complete").as_deref(), Some("successful"));
    let window = async |name: &str, range: &str| {
        let res = client.get(&url).header(name.to_owned(), range.to_owned()).send().await.unwrap();
        (res.status().as_u16(), header(&res, "content-range").unwrap_or_default(), res.text().await.unwrap())
    };
    assert_eq!(
        window("x-ms-range", "bytes=0-9").await,
        (206, format!("bytes 0-9/{length}"), ended.log[..10].to_owned())
    );
    assert_eq!(
        window("range", "bytes=5-999999").await,
        (206, format!("bytes 5-{}/{length}", length - 1), ended.log[5..].to_owned())
    );
    let beyond = window("x-ms-range", &format!("bytes={length}-{}", length + 4095)).await;
    assert_eq!((beyond.0, beyond.1), (416, format!("bytes */{length}")));
    let whole = client.get(&url).send().await.unwrap();
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(whole.text().await.unwrap(), ended.log);
    assert_eq!(client.put(&url).body("x").send().await.unwrap().status(), StatusCode::FORBIDDEN, "it is for reading");
    assert_eq!(client.delete(&url).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_log_that_has_not_begun_is_not_found() {
    // One worker, which is busy: the second run waits.
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("p.toml"), "build_parallel_max = 1\n").unwrap();
    let config = data.path().join("p.toml");
    let child = Child::start(data.path(), &["--config", config.to_str().unwrap()]).await.unwrap();
    let site = child.site().unwrap();
    let login_server = site.make_registry("yard1").await.unwrap();
    let yard = Yard { child, site, registry: "yard1", login_server, data };
    yard.base().await;
    let first = yard.order(dockerfile("FROM busybox:1\nRUN echo begun && sleep 600\n"), json!({})).await;
    yard.follow(&first, Some(" begun\r\n")).await;
    let second = yard.order(dockerfile("FROM busybox:1\n"), json!({})).await;
    let url = yard.log_url(&second).await;
    for req in [yard.site.client.head(&url), yard.site.client.get(&url)] {
        let res = req.send().await.unwrap();
        assert_eq!(res.status(), StatusCode::NOT_FOUND);
        assert_eq!(header(&res, "x-ms-error-code").as_deref(), Some("BlobNotFound"));
    }
    let queued = yard.json(Method::GET, "runs?$filter=Status%20eq%20'Queued'", None).await;
    assert_eq!(queued["value"][0]["name"], second.as_str());
    // Whoever waits is told as soon as there is something.
    let waiting = yard.site.client.get(format!("{url}&wait=30")).timeout(Duration::from_secs(60)).send();
    let cancel = format!("runs/{first}/cancel");
    let (waited, _) = tokio::join!(waiting, yard.json(Method::POST, &cancel, None));
    assert_eq!(waited.unwrap().status(), StatusCode::OK);
    assert_eq!(yard.ended(&second).await.status(), "Succeeded");
}

#[tokio::test]
async fn nobody_builds_without_the_right() {
    let yard = Yard::start().await;
    let path = format!(
        "{}/subscriptions/{}{}",
        yard.site.url,
        yard.site.bootstrap.subscription_id,
        Site::registry_path("yard1")
    );
    for (method, rest) in [
        (Method::POST, "listBuildSourceUploadUrl"),
        (Method::POST, "scheduleRun"),
        (Method::GET, "runs"),
        (Method::POST, "runs/cb1/cancel"),
        (Method::POST, "runs/cb1/listLogSasUrl"),
        (Method::GET, "cacheRules"),
        (Method::PUT, "cacheRules/some-rule"),
    ] {
        let res = yard.site.client.request(method, format!("{path}/{rest}")).send().await.unwrap();
        assert_eq!(res.status(), StatusCode::UNAUTHORIZED, "{rest}");
    }
}

/// Where roles are asked for each repository, ordering a build opens none.
#[tokio::test]
async fn in_the_abac_mode_a_build_has_its_callers_rights_and_no_others() {
    let yard = Yard::start().await;
    let mode = json!({"properties": {"roleAssignmentMode": "AbacRepositoryPermissions"}});
    let changed = yard.site.arm(Method::PATCH, &Site::registry_path(yard.registry), Some(mode)).await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK, "{}", changed.text().await.unwrap());
    let files = || context(&[("Dockerfile", b"FROM scratch\nADD file /\n"), ("file", b"x")]);
    let order = |image: &str, identity: Option<&str>| json!({"imageNames": [image], "credentials": {"sourceRegistry": {"identity": identity}}});
    for identity in [None, Some("[caller]")] {
        let ended = yard.build(files(), order("app:v1", identity)).await;
        assert_eq!(ended.status(), "Failed", "the owner has no content here: {identity:?} {}", ended.log);
    }
    let held = yard.site.arm(Method::GET, "/providers/Microsoft.Authorization/roleAssignments", None).await.unwrap();
    let held: Value = held.json().await.unwrap();
    let writer = json!({"properties": {
        "roleDefinitionId": "2a1e307c-b015-4ebd-883e-5b7698a07328",
        "principalId": held["value"][0]["properties"]["principalId"],
        "condition": "@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringEquals 'app'",
        "conditionVersion": "2.0",
    }});
    let id = "providers/Microsoft.Authorization/roleAssignments/00000000-0000-4000-8000-000000000001";
    yard.json(Method::PUT, id, Some(writer)).await;
    yard.built(files(), order("app:v1", Some("[caller]"))).await;
    for (image, identity) in [("app:v2", None), ("other:v1", Some("[caller]"))] {
        let ended = yard.build(files(), order(image, identity)).await;
        assert_eq!(ended.status(), "Failed", "{image} {identity:?} {}", ended.log);
    }
}
