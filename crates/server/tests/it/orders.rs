//! What a build can be ordered with beyond Azure's own order (`buildOptions`): read, refused by
//! name, kept from everybody.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_testkit::Site;
use reqwest::Method;
use serde_json::{Value, json};

use crate::builds::{Yard, context, dockerfile};

/// What the server says to an order with these options.
async fn refused(yard: &Yard, options: Value) -> (u16, String) {
    let order = json!({
        "type": "DockerBuildRequest", "imageNames": [], "isPushEnabled": false, "platform": {"os": "linux"},
        "sourceLocation": "source/00000000-0000-0000-0000-000000000000.tar.gz", "dockerFilePath": "Dockerfile",
        "buildOptions": options,
    });
    let path = format!("{}/scheduleRun", Site::registry_path(yard.registry));
    let res = yard.site.arm(Method::POST, &path, Some(order)).await.unwrap();
    let status = res.status().as_u16();
    let body: Value = res.json().await.unwrap();
    (status, body["error"]["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_option_is_never_left_out_quietly() {
    let yard = Yard::start().await;
    let hush = STANDARD.encode("hush");
    for (options, why) in [
        (json!({"colour": "red"}), "buildOptions: there is no option colour"),
        (json!({"secrets": [{"id": "a", "value": "hush!"}]}), "buildOptions.secrets[0].value: it is not base64"),
        (json!({"secrets": [{"id": "a,b", "value": hush}]}), "buildOptions.secrets[0].id: "),
        (json!({"ssh": [{"id": "default"}]}), "buildOptions.ssh[0]: it must have keys, or forward: true"),
        (json!({"platforms": ["linux/amd64", "plan9"]}), "buildOptions.platforms[1]: "),
        (json!({"labels": [{"name": "a"}]}), "buildOptions.labels[0].value: it must be text"),
        (json!({"annotations": ["hush"]}), "buildOptions.annotations[0]: it must be key=value"),
        (json!({"sourceDateEpoch": "yesterday"}), "buildOptions.sourceDateEpoch: it must be seconds since 1970"),
        (json!({"cacheTo": ["type=s3"]}), "buildOptions: "),
        (json!({"check": "hush"}), "buildOptions.check: it must be true or false"),
    ] {
        let (status, message) = refused(&yard, options.clone()).await;
        assert!(status == 400 && message.starts_with(why), "{options}: {status} {message}");
        assert!(!message.contains("hush"), "{message}");
    }
}

#[tokio::test]
async fn labels_go_over_the_dockerfiles() {
    let yard = Yard::start().await;
    let files = dockerfile("FROM scratch\nLABEL a=file b=file\nADD Dockerfile /\n");
    let options = json!({"labels": [{"name": "b", "value": "order"}, {"name": "c", "value": ""}]});
    yard.built(files, json!({"imageNames": ["labelled:1"], "buildOptions": options})).await;
    let manifest = yard.manifest("labelled", "1").await;
    let config = yard.blob("labelled", manifest["config"]["digest"].as_str().unwrap()).await;
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["config"]["Labels"], json!({"a": "file", "b": "order", "c": ""}));
}

#[tokio::test]
async fn a_check_builds_nothing() {
    let yard = Yard::start().await;
    let check = json!({"imageNames": ["checked:1"], "buildOptions": {"check": true}});
    let good = yard.built(dockerfile("FROM scratch\nADD Dockerfile /\n"), check.clone()).await;
    assert!(good.log.contains("Check complete, no warnings found."), "{}", good.log);
    assert_eq!(good.run["properties"]["outputImages"], json!([]));

    let bad = yard.build(dockerfile("FROM scratch AS Big\nMAINTAINER me\nADD Dockerfile /\n"), check).await;
    assert_eq!((bad.status(), bad.error()), ("Failed", "Check complete, 2 warnings have been found!"), "{}", bad.log);
    for text in
        ["WARNING: StageNameCasing - https://", "WARNING: MaintainerDeprecated - https://", "   2 | >>> MAINTAINER me"]
    {
        assert!(bad.log.contains(text), "{text}: {}", bad.log);
    }
    assert!(!bad.log.contains("exporting"), "{}", bad.log);

    let built = yard.built(dockerfile("FROM scratch AS Big\nADD Dockerfile /\n"), json!({})).await;
    let (steps, end) =
        built.log.split_once(" 1 warning found (use --check to expand):\r\n - StageNameCasing: ").unwrap();
    assert!(steps.contains("exporting") && !end.contains('#'), "warnings stand at the end: {}", built.log);
}

#[tokio::test]
async fn a_log_commands_no_terminal() {
    let yard = Yard::start().await;
    yard.base().await;
    let run = r#"printf '\033[2Ja\033]0;owned\007b\033[31mred\n\377\n#9 DONE 1.0s\n'"#;
    let built = yard.built(dockerfile(&format!("FROM busybox:1\nRUN {run}\n")), json!({})).await;
    let escapes: Vec<&str> = built.log.matches("\x1b[").collect();
    assert_eq!((escapes.len(), built.log.matches('\x1b').count()), (2, 2), "a colour and its end: {:?}", built.log);
    assert!(built.log.contains("ab\x1b[31mred\x1b[0m\r\n"), "{:?}", built.log);
    assert!(built.log.lines().any(|l| l.ends_with(" #9 DONE 1.0s") && !l.starts_with("#9")), "{:?}", built.log);
}

/// The files below `folder` that hold `text`.
fn files_with(folder: &Path, text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|w| w == text) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn what_is_secret_in_an_order_is_kept_from_everybody() {
    let yard = Yard::start().await;
    let secret = "a-secret-that-nobody-may-see";
    let options = json!({
        "secrets": [{"id": "token", "value": STANDARD.encode(secret)}],
        "labels": [{"name": "seen", "value": "by-everybody-who-looks"}],
    });
    let files = context(&[("Dockerfile", b"FROM scratch\nADD Dockerfile /\n".as_slice())]);
    let ended = yard.built(files, json!({"imageNames": ["kept:1"], "buildOptions": options})).await;
    assert!(!ended.run.to_string().contains(secret) && !ended.log.contains(secret));
    // What is no secret shows that the right places were looked at.
    assert!(!files_with(yard.data.path(), b"by-everybody-who-looks").is_empty());
    for form in [secret.to_owned(), STANDARD.encode(secret)] {
        assert_eq!(files_with(yard.data.path(), form.as_bytes()), [""; 0]);
    }
}
