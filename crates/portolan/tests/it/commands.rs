//! The guide's commands, one after the other.

use serde_json::json;

use crate::site::Cli;

#[tokio::test]
async fn build_list_pull_delete() {
    let cli = Cli::start().await;
    cli.write(
        "app/Dockerfile",
        "FROM scratch AS base\nARG VERSION=0\nLABEL version=$VERSION\nCOPY . /app\nFROM base\nCMD [\"/app/run\"]\n",
    );
    cli.write("app/run", "#!/bin/sh\n");
    cli.write("app/secret.env", "hush");
    cli.write("app/.dockerignore", "*.env\n");
    let log = cli.ok("acr build -r testreg -t echo:v1 -t echo:latest --build-arg VERSION=7 app").await;
    assert!(log.contains("COPY . /app") && log.contains("was successful"), "{log}");
    assert!(!log.contains('\r'), "lines end as here usual");
    cli.write("app/more", "x");
    cli.ok("acr build -r testreg -t echo:v2 app").await;

    assert_eq!(cli.ok("acr repository list -n testreg -o table").await, "Result\n--------\necho\n");
    assert_eq!(cli.json("acr repository show-tags -n testreg --repository echo").await, json!(["latest", "v1", "v2"]));
    let newest =
        cli.ok("acr repository show-tags -n testreg --repository echo --orderby time_desc --top 1 -o tsv").await;
    assert_eq!(newest, "v2\n");
    let digest = cli.ok("acr repository show -n testreg --image echo:latest --query digest -o tsv").await;
    let runs = cli.json("acr task list-runs -r testreg").await;
    assert_eq!((runs[0]["runId"].as_str(), runs[0]["status"].as_str()), (Some("cb2"), Some("Succeeded")));
    assert_eq!(cli.ok("acr task logs -r testreg --run-id cb1").await, log);

    // The image says what was asked of it, and the ignored file is not in it.
    let pulled = cli.json(&format!("acr pull {}/echo:v1 --to layout", cli.login_server)).await;
    assert_eq!(pulled["digest"], digest.trim());
    let blob = |digest: &str| std::fs::read(cli.path().join("layout/blobs/sha256").join(&digest[7..])).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&blob(pulled["layoutDigest"].as_str().unwrap())).unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
    assert_eq!(config["config"]["Labels"]["version"], "7");
    assert_eq!(config["config"]["Cmd"], json!(["/app/run"]));
    let names = layer_names(&blob(manifest["layers"][0]["digest"].as_str().unwrap()));
    assert!(names.iter().any(|n| n.ends_with("app/run")) && !names.iter().any(|n| n.contains("secret")), "{names:?}");
    assert!(!names.iter().any(|n| n.contains("_Dockerfile")), "the client's own copies stay out: {names:?}");

    // A tag's deletion takes its manifest and says which tags go with it.
    let refused = cli.run("acr repository delete -n testreg --image echo:v1").await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("Use --yes"), "{}", refused.err);
    let deleted = cli.run("acr repository delete -n testreg --image echo:v1 --yes").await;
    assert_eq!(deleted.code, 0, "{}", deleted.err);
    assert!(deleted.err.contains("'echo:latest', 'echo:v1'"), "{}", deleted.err);
    assert_eq!(cli.json("acr repository show-tags -n testreg --repository echo").await, json!(["v2"]));
    cli.ok("acr repository untag -n testreg --image echo:v2").await;
    let untagged = cli
        .ok("acr repository show-manifests -n testreg --repository echo --query [?tags[0]==null].digest -o tsv")
        .await;
    assert_eq!(untagged.lines().count(), 1, "{untagged}");
    cli.ok(&format!("acr repository delete -n testreg --image echo@{} -y", untagged.trim())).await;
    assert_eq!(cli.json("acr repository list -n testreg").await, json!([]));
    cli.stop().await;
}

fn layer_names(gzip: &[u8]) -> Vec<String> {
    let mut child = std::process::Command::new("tar")
        .arg("tz")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), gzip).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn exit_codes_and_hints() {
    let cli = Cli::start().await;
    cli.write("bad/Dockerfile", "FORM scratch\n");
    let bad = cli.run("acr build -r testreg -t bad:v1 bad").await;
    assert_eq!(bad.code, 1);
    assert!(bad.out.contains("did you mean FROM?") && bad.err.contains("Run failed"), "{}{}", bad.out, bad.err);
    for (line, code, said) in [
        ("acr build -r testreg -t a:v1 nowhere", 1, "Unable to find 'nowhere'"),
        ("acr build -r testreg -t A:v1 bad", 2, "repository name"),
        ("acr build -r testreg", 2, "<SOURCE>"),
        ("acr show -n absentreg", 3, "hint: see what is there"),
        ("acr repository show -n testreg --repository nope", 3, "(NAME_UNKNOWN)"),
        ("group show -n nope", 3, "ResourceGroupNotFound"),
        ("acr create -g nope -n otherreg --sku Basic", 3, "ResourceGroupNotFound"),
        ("acr delete -n testreg", 1, "--yes"),
        ("acr task logs -r testreg --run-id zz9", 3, "zz9"),
    ] {
        let done = cli.run(line).await;
        assert_eq!(done.code, code, "portolan {line}\n{}", done.err);
        assert!(done.err.contains(said), "portolan {line}\n{}", done.err);
        assert_eq!(done.out, "", "portolan {line}");
    }
    cli.ok("logout").await;
    let out = cli.run("acr list").await;
    assert_eq!(out.code, 1);
    assert!(out.err.contains("hint: on the server's machine"), "{}", out.err);
    cli.stop().await;
}

#[tokio::test]
async fn what_was_kept_from_before_does_no_harm() {
    let cli = Cli::start().await;
    cli.write("app/Dockerfile", "FROM scratch\nCOPY . /\n");
    cli.ok("acr build -r testreg -t a:v1 app").await;
    cli.ok("acr repository list -n testreg").await;
    // Another registry of the same name, in another group: the old tokens and place are void.
    cli.ok("group create -n rg2 -l local -o none").await;
    cli.ok("group delete -n rg -y").await;
    cli.ok("acr create -g rg2 -n testreg --sku Standard -o none").await;
    assert_eq!(cli.json("acr repository list -n testreg").await, json!([]));
    assert_eq!(cli.ok("acr show -n testreg --query sku.name -o tsv").await, "Standard\n");
    // A cache that somebody cut off in the middle is as good as none.
    std::fs::write(cli.path().join("profile/cache.json"), "{\"arm\": {\"tok").unwrap();
    assert_eq!(cli.json("acr repository list -n testreg").await, json!([]));
    cli.ok("acr delete -n testreg -y").await;
    assert_eq!(cli.run("acr repository list -n testreg").await.code, 3);
    cli.stop().await;
}

#[tokio::test]
async fn contexts_from_stdin_and_secrets_for_login() {
    let cli = Cli::start().await;
    let lone = cli.run_with("acr build -r testreg -t lone:{{.Run.ID}} -", b"FROM scratch\nLABEL a=b\n").await;
    assert_eq!(lone.code, 0, "{}{}", lone.out, lone.err);
    assert_eq!(cli.json("acr repository show-tags -n testreg --repository lone").await, json!(["cb1"]));

    cli.ok("acr update -n testreg --admin-enabled true -o none").await;
    let password = cli.ok("acr credential show -n testreg --query passwords[0].value -o tsv").await;
    let line = format!("acr repository list -n testreg -o tsv -u testreg -p {}", password.trim());
    assert_eq!(cli.ok(&line).await, "lone\n");
    let wrong = cli.run("acr repository list -n testreg -u testreg -p wrong").await;
    assert!(wrong.code == 1 && wrong.err.contains("check --username"), "{}", wrong.err);

    let bootstrap = std::fs::read_to_string(cli.path().join("data/bootstrap.json")).unwrap();
    let bootstrap: serde_json::Value = serde_json::from_str(&bootstrap).unwrap();
    let text = |key: &str| bootstrap[key].as_str().unwrap().to_owned();
    cli.ok("logout").await;
    let line = format!(
        "login --server {} --ca-file {} --service-principal -u {} -t {} -o none",
        text("server"),
        text("caFile"),
        text("clientId"),
        text("tenantId")
    );
    let wrong = cli.run_with(&line, b"wrong\n").await;
    assert!(wrong.code == 1 && wrong.err.contains("invalid_client"), "{}", wrong.err);
    assert_eq!(cli.run("account show").await.code, 1, "a failed sign-in leaves nobody signed in");
    let right = cli.run_with(&line, format!("{}\n", text("clientSecret")).as_bytes()).await;
    assert_eq!(right.code, 0, "{}", right.err);
    assert_eq!(cli.ok("acr list --query [].name -o tsv").await, "testreg\n");
    cli.stop().await;
}
