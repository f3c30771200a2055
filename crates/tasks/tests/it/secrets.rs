//! Values of secret build arguments: where they may be seen, and where not.

use std::path::Path;

use portolan_store::meta::run;
use portolan_tasks::{BuildArg, NamedSecret, NamedSource, Outcome, RunStatus, SshAgent, TasksConfig};
use portolan_types::Timestamp;

use super::*;

fn arg(name: &str, value: &str, secret: bool) -> BuildArg {
    BuildArg { name: name.into(), value: value.to_owned().into(), secret }
}

/// The files under `folder` that hold `text`.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).unwrap().windows(text.len()).any(|w| w == text.as_bytes()) {
            found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

#[tokio::test]
async fn secrets_go_with_the_run() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let mut new = order(&tasks, &[]).await;
    new.build.args = vec![arg("TOKEN", "hunter2", true), arg("MODE", "fast", false)];
    let run = tasks.schedule(new, Timestamp::now()).await.unwrap();
    assert!(!format!("{run:?}").contains("hunter2"));
    let work = works.recv().await.unwrap();
    assert_eq!(work.job.build.args[0].value.expose(), "hunter2");
    work.log.line("token is hunter2, mode is fast");
    work.done.send(Outcome::Failed("could not use hunter2".into())).unwrap();
    let (run, text) = ended(&tasks, &run.id).await;
    assert!(text.starts_with("token is ***, mode is fast\r\n") && !text.contains("hunter2"), "{text}");
    let id = run.id.clone();
    let row = place.meta.read(move |tx| run::get(tx, REGISTRY, &id)).await.unwrap().unwrap();
    assert!(!row.spec.contains("hunter2") && row.spec.contains("fast"), "{}", row.spec);
    assert!(!run.error.unwrap().contains("hunter2"));
}

#[tokio::test]
async fn no_file_shows_a_secret() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let mut new = order(&tasks, &[]).await;
    new.build.args = vec![arg("TOKEN", "correct horse battery staple", true), arg("MODE", "seen by everybody", false)];
    let value = |text: &str| text.as_bytes().to_vec().into();
    new.build.options.secrets = vec![NamedSecret { id: "pip".into(), value: value("a secret of the build") }];
    let agent = SshAgent { id: "default".into(), keys: vec![value("a private key")], forward: false };
    new.build.options.ssh = vec![agent];
    let source = "https://user:swordfish@example.com/a.git".to_owned();
    new.build.options.contexts = vec![NamedSource { name: "lib".into(), source }];
    let options = new.build.options.clone();
    let run = tasks.schedule(new, Timestamp::now()).await.unwrap();
    let nowhere = |when: &str| {
        // What is not secret shows that the row was looked at.
        let seen = files_with(place.dir.path(), "seen by everybody");
        assert!(seen.iter().any(|f| f.starts_with("portolan.db")), "{when}: {seen:?}");
        for secret in ["correct horse battery staple", "a secret of the build", "a private key", "swordfish"] {
            let shown = files_with(place.dir.path(), secret);
            assert!(shown.is_empty(), "{when}, {secret}: {shown:?}");
        }
    };
    nowhere("queued");
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let work = works.recv().await.unwrap();
    assert_eq!(work.job.build.args[0].value.expose(), "correct horse battery staple");
    assert_eq!(work.job.build.options, options);
    work.log.line("the token is correct horse battery staple, and a secret of the build, and a private key");
    nowhere("running");
    work.done.send(Outcome::Failed("bad token: correct horse battery staple".into())).unwrap();
    ended(&tasks, &run.id).await;
    nowhere("ended");
    place.meta.close().await;
    nowhere("closed");
}

#[tokio::test]
async fn another_master_key_opens_nothing() {
    let place = Place::new();
    let before = place.tasks(TasksConfig::default()).await;
    let mut new = order(&before, &[]).await;
    new.build.args = vec![arg("TOKEN", "hunter2", true)];
    let sealed = before.schedule(new, Timestamp::now()).await.unwrap();
    let plain = schedule(&before, &[]).await;

    let after = place.tasks_with(2, TasksConfig::default()).await;
    let (runner, mut works) = handed();
    after.start_workers(1, runner);
    let work = works.recv().await.unwrap();
    assert_eq!(work.job.id, plain.id, "what has no secrets needs no key");
    work.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    let (run, text) = ended(&after, &sealed.id).await;
    assert_eq!(run.status, RunStatus::Error);
    let why = "the secrets of this run were sealed with another master key; order the run again";
    assert_eq!(run.error.as_deref(), Some(why));
    assert!(text.ends_with(&format!(". Error: {why}\r\n")), "{text}");
    ended(&after, &plain.id).await;
}
