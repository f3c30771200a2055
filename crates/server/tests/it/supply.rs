//! Builds over HTTP: whose steps are found again, other builders' caches, and what is attached
//! to an image.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_testkit::{Child, Site};
use portolan_types::{Digest, media_type};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::builds::{Ended, Yard, context, dockerfile};

const STEPS: &str = "FROM busybox:1\nRUN cat /proc/sys/kernel/random/uuid > /once\nRUN cat /once > /twice\n";

impl Yard {
    /// Go over to another registry of the same server.
    async fn move_to(&mut self, registry: &'static str) {
        self.login_server = self.site.make_registry(registry).await.unwrap();
        self.registry = registry;
    }

    /// A manifest's bytes as any client gets them.
    async fn raw(&self, repo: &str, reference: &str) -> Vec<u8> {
        let token = self.site.token(&self.login_server, &format!("repository:{repo}:pull")).await.unwrap();
        let path = format!("/v2/{repo}/manifests/{reference}");
        let req = self.site.registry(&self.login_server, &token, Method::GET, &path);
        let accept = [media_type::OCI_INDEX, media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST].join(", ");
        let res = req.header("accept", accept).send().await.unwrap();
        assert_eq!(res.status(), StatusCode::OK, "{repo}:{reference}");
        res.bytes().await.unwrap().to_vec()
    }

    async fn document(&self, repo: &str, reference: &str) -> Value {
        serde_json::from_slice(&self.raw(repo, reference).await).unwrap()
    }

    async fn referrers(&self, repo: &str, digest: &str) -> Vec<Value> {
        let token = self.site.token(&self.login_server, &format!("repository:{repo}:pull")).await.unwrap();
        let path = format!("/v2/{repo}/referrers/{digest}");
        let res = self.site.registry(&self.login_server, &token, Method::GET, &path).send().await.unwrap();
        let list: Value = res.error_for_status().unwrap().json().await.unwrap();
        list["manifests"].as_array().unwrap().clone()
    }

    /// Put blobs and a manifest into the registry we are in.
    async fn push(&self, repo: &str, tag: &str, blobs: &[Vec<u8>], manifest: &[u8], kind: &str) {
        let token = self.site.token(&self.login_server, &format!("repository:{repo}:pull,push")).await.unwrap();
        for blob in blobs {
            let path = format!("/v2/{repo}/blobs/uploads/?digest={}", Digest::of(blob));
            let req = self.site.registry(&self.login_server, &token, Method::POST, &path);
            let res = req.header("content-type", "application/octet-stream").body(blob.clone()).send().await.unwrap();
            assert_eq!(res.status(), StatusCode::CREATED);
        }
        let path = format!("/v2/{repo}/manifests/{tag}");
        let req = self.site.registry(&self.login_server, &token, Method::PUT, &path);
        let res = req.header("content-type", kind).body(manifest.to_vec()).send().await.unwrap();
        assert_eq!(res.status(), StatusCode::CREATED, "{}", res.text().await.unwrap());
    }
}

fn cached(ended: &Ended) -> usize {
    ended.log.lines().filter(|line| line.ends_with(" CACHED")).count()
}

fn top(ended: &Ended) -> String {
    ended.run["properties"]["outputImages"][0]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn steps_are_found_by_their_own_registry_only_and_after_a_restart() {
    let mut yard = Yard::start().await;
    yard.base().await;
    let order = json!({"imageNames": ["app:1"]});
    let first = yard.built(dockerfile(STEPS), order.clone()).await;
    let again = yard.built(dockerfile(STEPS), order.clone()).await;
    assert_eq!(top(&again), top(&first), "{}", again.log);

    // Another registry, the very same base image, the very same Dockerfile.
    yard.move_to("yard2").await;
    yard.base().await;
    let other = yard.built(dockerfile(STEPS), order.clone()).await;
    assert_eq!(cached(&other), 0, "a step of another registry was found: {}", other.log);
    assert_ne!(top(&other), top(&first));

    // The records outlive the process, each with its registry.
    let Yard { child, registry, login_server, data, .. } = yard;
    child.terminate().await.unwrap();
    let child = Child::start(data.path(), &["--listen-http", "127.0.0.1:0"]).await.unwrap();
    let site = child.site().unwrap();
    let mut yard = Yard { child, site, registry, login_server, data };
    for (registry, before) in [("yard2", &other), ("yard1", &first)] {
        yard.move_to(registry).await;
        let found = yard.built(dockerfile(STEPS), order.clone()).await;
        assert_eq!(top(&found), top(before), "{}", found.log);
    }
    let anew = yard.built(dockerfile(STEPS), json!({"imageNames": ["app:1"], "noCache": true})).await;
    assert_ne!(top(&anew), top(&first), "{}", anew.log);
}

#[tokio::test]
async fn a_cache_goes_by_way_of_a_registry() {
    let mut yard = Yard::start().await;
    yard.base().await;
    let host = yard.login_server.clone();
    for (repo, options, index) in [("cache", "mode=max", false), ("oldcache", "mode=max,image-manifest=false", true)] {
        let to = format!("type=registry,ref={host}/{repo}:1,{options}");
        let order = json!({"imageNames": ["app:1"], "buildOptions": {"cacheTo": [to]}});
        let first = yard.built(dockerfile(STEPS), order).await;
        assert!(first.log.contains(&format!("Exported cache to {host}/{repo}:1: 2 steps")), "{}", first.log);
        let manifest = yard.document(repo, "1").await;
        let (config, layers) = match index {
            false => (manifest["config"].clone(), manifest["layers"].as_array().unwrap().clone()),
            true => {
                let mut all = manifest["manifests"].as_array().unwrap().clone();
                (all.pop().unwrap(), all)
            }
        };
        assert_eq!(config["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
        assert!(layers.iter().all(|l| l["annotations"]["containerd.io/uncompressed"].is_string()), "{manifest}");

        // Carried to a registry where nothing was built: every step is found there.
        let mut blobs = Vec::new();
        for blob in layers.iter().chain([&config]) {
            blobs.push(yard.blob(repo, blob["digest"].as_str().unwrap()).await);
        }
        let bytes = yard.raw(repo, "1").await;
        let kind = manifest["mediaType"].as_str().unwrap().to_owned();
        let image = yard.raw("busybox", "1").await;
        let parsed: Value = serde_json::from_slice(&image).unwrap();
        let mut base = Vec::new();
        for blob in parsed["layers"].as_array().unwrap().iter().chain([&parsed["config"]]) {
            base.push(yard.blob("busybox", blob["digest"].as_str().unwrap()).await);
        }
        yard.move_to(if index { "yard3" } else { "yard2" }).await;
        yard.push("busybox", "1", &base, &image, parsed["mediaType"].as_str().unwrap()).await;
        yard.push(repo, "1", &blobs, &bytes, &kind).await;
        let from = format!("type=registry,ref={}/{repo}:1", yard.login_server);
        let order = json!({"imageNames": ["app:1"], "buildOptions": {"cacheFrom": [from, "type=registry,ref=HOST/no:1".replace("HOST", &yard.login_server)]}});
        let found = yard.built(dockerfile(STEPS), order).await;
        assert!(found.log.contains(": 2 steps") && found.log.contains("/no:1 failed: "), "{}", found.log);
        assert_eq!(cached(&found), 3, "{}", found.log);
        assert_eq!(top(&found), top(&first), "{}", found.log);
        yard.move_to("yard1").await;
    }

    // What cannot be written fails the build, unless it need not be.
    for (more, status) in [("", "Failed"), (",ignore-error=true", "Succeeded")] {
        let to = format!("type=registry,ref=elsewhere.example/cache:1{more}");
        let ended = yard.build(dockerfile(STEPS), json!({"buildOptions": {"cacheTo": [to]}})).await;
        assert_eq!(ended.status(), status, "{}", ended.log);
        assert!(ended.log.contains("to its own registry only"), "{}", ended.log);
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_option_is_said_at_once_and_without_its_value() {
    let yard = Yard::start().await;
    for (options, words) in [
        (json!({"cacheFrom": ["type=s3,secret_access_key=hush"]}), "--cache-from"),
        (json!({"cacheTo": ["type=registry,ref=hush hush"]}), "--cache-to"),
        (json!({"provenance": "mode=hush"}), "--provenance"),
        (json!({"sbom": "generator=hush"}), "--sbom"),
        (json!({"annotations": ["hush:a=b"]}), "--annotation"),
        (json!({"sourceDateEpoch": -1}), "sourceDateEpoch"),
    ] {
        let order = json!({
            "type": "DockerBuildRequest", "imageNames": [], "isPushEnabled": false, "sourceLocation": "x",
            "platform": {"os": "linux"}, "dockerFilePath": "Dockerfile", "buildOptions": options,
        });
        let path = format!("{}/scheduleRun", Site::registry_path("yard1"));
        let res = yard.site.arm(Method::POST, &path, Some(order)).await.unwrap();
        let (status, text) = (res.status(), res.text().await.unwrap());
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.contains(words) && !text.contains("hush"), "{text}");
    }
}

#[tokio::test]
async fn attestations_are_where_clients_look_and_hold_no_secret() {
    let yard = Yard::start().await;
    yard.base().await;
    let text = "FROM busybox:1\nARG TOKEN\nARG MODE\nRUN echo $TOKEN > /dev/null\n\
        COPY status /var/lib/dpkg/status\n";
    let status = b"Package: bash\nStatus: install ok installed\nVersion: 5.2\nArchitecture: amd64\n";
    let files = || context(&[("Dockerfile", text.as_bytes()), ("status", status)]);
    let order = json!({
           "imageNames": ["app:1"],
           "arguments": [
               {"type": "Argument", "name": "TOKEN", "value": "hunter2", "isSecret": true},
    {"type": "Argument", "name": "MODE", "value": "fast", "isSecret": false},
           ],
           "noCache": true,
           "buildOptions": {
               "provenance": "mode=max", "sbom": "true", "sourceDateEpoch": 1_700_000_000,
               "annotations": ["org.example.a=b", "index:org.example.c=d"],
           },
       });
    let ended = yard.built(files(), order.clone()).await;
    let index = yard.document("app", "1").await;
    assert_eq!(index["mediaType"], media_type::OCI_INDEX);
    assert_eq!(index["annotations"]["org.example.c"], "d");
    let children = index["manifests"].as_array().unwrap();
    let (image, attestation) = (&children[0], &children[1]);
    assert_eq!(attestation["platform"], json!({"os": "unknown", "architecture": "unknown"}));
    assert_eq!(attestation["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    let manifest = yard.document("app", image["digest"].as_str().unwrap()).await;
    assert_eq!(
        (&manifest["mediaType"], &manifest["annotations"]["org.example.a"]),
        (&json!(media_type::OCI_MANIFEST), &json!("b"))
    );

    let child = yard.document("app", attestation["digest"].as_str().unwrap()).await;
    let mut statements = Vec::new();
    for layer in child["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        let bytes = yard.blob("app", layer["digest"].as_str().unwrap()).await;
        let told = String::from_utf8(bytes.clone()).unwrap();
        assert!(!told.contains("hunter2"), "{told}");
        let statement: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(statement["predicateType"], layer["annotations"]["in-toto.io/predicate-type"]);
        let hex = image["digest"].as_str().unwrap().trim_start_matches("sha256:");
        assert_eq!(statement["subject"][0]["digest"]["sha256"], hex);
        statements.push(statement);
    }
    let (sbom, provenance) = (&statements[0]["predicate"], &statements[1]["predicate"]);
    assert_eq!(sbom["spdxVersion"], "SPDX-2.3");
    assert_eq!(sbom["packages"][1]["name"], "bash");
    let definition = &provenance["buildDefinition"];
    let args = &definition["externalParameters"]["request"]["args"];
    assert_eq!((&args["build-arg:MODE"], &args["build-arg:TOKEN"]), (&json!("fast"), &json!("***")));
    let base = definition["resolvedDependencies"][0]["uri"].as_str().unwrap();
    assert!(base.starts_with("pkg:docker/busybox@1?platform=linux%2F"), "{base}");
    let kept = provenance["runDetails"]["metadata"]["portolan"]["dockerfile"]["data"].as_str().unwrap();
    assert_eq!(STANDARD.decode(kept).unwrap(), text.as_bytes());

    // As referrers of the image and of what the tag names.
    let index_digest = top(&ended);
    for subject in [image["digest"].as_str().unwrap(), &index_digest] {
        let found = yard.referrers("app", subject).await;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|r| r["artifactType"] == "application/vnd.in-toto+json"), "{found:?}");
        let mut kinds: Vec<_> =
            found.iter().filter_map(|r| r["annotations"]["in-toto.io/predicate-type"].as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"]);
    }

    // Built again, all of it is the same: image, attestations, index, referrers.
    assert_eq!(top(&yard.built(files(), order).await), index_digest);
    assert_eq!(yard.referrers("app", &index_digest).await.len(), 2);

    // Not asked for, not there.
    yard.built(files(), json!({"imageNames": ["plain:1"], "buildOptions": {"provenance": "false"}})).await;
    let plain = yard.document("plain", "1").await;
    assert_eq!(plain["mediaType"], media_type::DOCKER_MANIFEST);
}
