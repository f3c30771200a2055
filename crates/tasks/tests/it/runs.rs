//! Ordering, listing, filtering, cancelling.

use std::time::Duration;

use portolan_store::meta::{run, step};
use portolan_tasks::{BuildArg, Error, Outcome, OutputImage, RunFilter, RunStatus, TasksConfig, filter};
use portolan_types::{Digest, Secret, Timestamp};

use super::*;

#[tokio::test]
async fn a_run_from_order_to_end() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let run = schedule(&tasks, &["app:v1", "app:{{.Run.ID}}"]).await;
    assert_eq!((run.id.as_str(), run.status, run.kind), ("cb1", RunStatus::Queued, RunKind::QuickBuild));
    assert_eq!(tasks.log_state(REGISTRY, &run.id).await.unwrap(), None, "no log before the first line");

    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let work = works.recv().await.unwrap();
    assert_eq!(get(&tasks, &run.id).await.status, RunStatus::Running);
    let names: Vec<String> = work.job.build.images.iter().map(|i| i.to_string()).collect();
    assert_eq!(names, ["app:v1", "app:cb1"]);
    assert_eq!(work.job.timeout_secs, 3600);

    // A follower sees each line when it is written.
    let begin = tasks.log_state(REGISTRY, &run.id).await.unwrap().map_or(0, |s| s.len);
    let follower = tokio::spawn({
        let (tasks, id) = (tasks.clone(), run.id.clone());
        async move { tasks.log_wait(REGISTRY, &id, begin, Duration::from_secs(60)).await.unwrap().unwrap() }
    });
    work.log.line("#1 hello");
    let state = follower.await.unwrap();
    assert_eq!((state.len, state.complete), (10, None));

    let digest = Digest::of(b"manifest");
    let image = |tag: &str| OutputImage { repo: "app".parse().unwrap(), tag: Some(tag.parse().unwrap()), digest };
    work.done.send(Outcome::Succeeded(vec![image("v1"), image("cb1")])).unwrap();
    let (run, text) = ended(&tasks, &run.id).await;
    assert_eq!((run.status, run.images.len(), run.error), (RunStatus::Succeeded, 2, None));
    assert!(run.started.is_some() && run.finished.is_some());
    let (first, last) = text.split_once("\r\n").unwrap();
    assert_eq!(first, "#1 hello");
    assert!(last.starts_with("Run ID: cb1 was successful after ") && last.ends_with("s\r\n"), "{last}");

    let events = place.meta.read(|tx| run::events_after(tx, REGISTRY, 0, 10)).await.unwrap();
    let statuses: Vec<_> = events.iter().map(|e| e.status.as_str()).collect();
    assert_eq!(statuses, ["Queued", "Started", "Running", "Succeeded"]);
}

#[tokio::test]
async fn newest_first_and_filtered() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    for _ in 0..3 {
        schedule(&tasks, &["app:v1"]).await;
    }
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let digest = Digest::of(b"manifest");
    for n in 1..=3u64 {
        let work = works.recv().await.unwrap();
        assert_eq!(work.job.id, RunId::nth(n), "the oldest goes first");
        let outcome = match n {
            2 => Outcome::Failed("no such file".into()),
            _ => Outcome::Succeeded(vec![OutputImage { repo: "app".parse().unwrap(), tag: None, digest }]),
        };
        work.done.send(outcome).unwrap();
        ended(&tasks, &RunId::nth(n)).await;
    }
    let ids = async |filter: &str, top| -> Vec<String> {
        let runs = tasks.list(REGISTRY, filter::parse(filter).unwrap(), top).await.unwrap();
        runs.iter().map(|r| r.id.to_string()).collect()
    };
    assert_eq!(ids("", 10).await, ["cb3", "cb2", "cb1"]);
    assert_eq!(ids("", 1).await, ["cb3"]);
    assert_eq!(ids("Status eq 'Failed'", 10).await, ["cb2"]);
    assert_eq!(ids(&format!("contains(OutputImageManifests, 'app@{digest}')"), 10).await, ["cb3", "cb1"]);
    assert_eq!(ids(&format!("contains(OutputImageManifests, 'other@{digest}')"), 10).await, [""; 0]);
    assert_eq!(ids("TaskName eq 'x'", 10).await, [""; 0]);
    assert_eq!(ids("RunId eq 'CB1' and Status eq 'Succeeded'", 10).await, ["cb1"]);
    let others = tasks.list(REGISTRY + 1, RunFilter::default(), 10).await.unwrap();
    assert!(others.is_empty(), "runs belong to their registry");

    let (_, text) = ended(&tasks, &RunId::nth(2)).await;
    assert!(text.contains("Run ID: cb2 failed after ") && text.contains(". Error: no such file\r\n"), "{text}");
    assert!(tasks.set_archived(REGISTRY, &RunId::nth(2), true, Timestamp::now()).await.unwrap().archived);
    assert_eq!(ids("IsArchiveEnabled eq true", 10).await, ["cb2"]);
}

#[tokio::test]
async fn orders_that_are_refused() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig { queue_max: 2, ..TasksConfig::default() }).await;
    let refused = async |change: &dyn Fn(&mut NewRun)| {
        let mut new = order(&tasks, &["app:v1"]).await;
        change(&mut new);
        match tasks.schedule(new, Timestamp::now()).await {
            Err(Error::Invalid { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(&|n| n.image_names = vec!["App:v1".into()]).await.contains("App:v1"));
    assert!(refused(&|n| n.image_names = vec!["a:{{.Run.Nope}}".into()]).await.contains("{{.Run.Nope}}"));
    assert!(refused(&|n| n.timeout_secs = Some(28_801)).await.contains("28800"));
    assert!(refused(&|n| n.timeout_secs = Some(0)).await.contains("timeout"));
    assert!(refused(&|n| n.build.context = "source/../x".into()).await.contains("not an uploaded"));
    assert!(refused(&|n| n.registry.id += 1).await.contains("no such build context"), "another registry's context");
    let bad = BuildArg { name: "A=B".into(), value: Secret::default(), secret: false };
    assert!(refused(&|n| n.build.args = vec![bad.clone()]).await.contains("A=B"));

    let mut never_sent = order(&tasks, &[]).await;
    never_sent.build.context = tasks.stage_context(REGISTRY, Timestamp::now()).await.unwrap().relative_path;
    let error = tasks.schedule(never_sent, Timestamp::now()).await.unwrap_err();
    assert!(error.to_string().contains("not uploaded"), "{error}");

    assert_eq!(schedule(&tasks, &[]).await.id.as_str(), "cb1", "what was refused takes no number");
    schedule(&tasks, &[]).await;
    let third = order(&tasks, &[]).await;
    assert!(matches!(tasks.schedule(third, Timestamp::now()).await, Err(Error::QueueFull { max: 2 })));
}

#[tokio::test]
async fn cancelled_while_it_waits() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let run = schedule(&tasks, &[]).await;
    let run = tasks.cancel(REGISTRY, &run.id, Timestamp::now()).await.unwrap();
    assert_eq!(run.status, RunStatus::Canceled);
    let (_, text) = ended(&tasks, &run.id).await;
    assert_eq!(text, "Run ID: cb1 was canceled after 0s\r\n");
    // Again, it stays as it is.
    assert_eq!(tasks.cancel(REGISTRY, &run.id, Timestamp::now()).await.unwrap().status, RunStatus::Canceled);
    assert!(matches!(tasks.cancel(REGISTRY, &RunId::nth(9), Timestamp::now()).await, Err(Error::NotFound(_))));
    // No worker gets it.
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let next = schedule(&tasks, &[]).await;
    assert_eq!(works.recv().await.unwrap().job.id, next.id);
}

#[tokio::test]
async fn cancelled_while_it_goes() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let run = schedule(&tasks, &[]).await;
    let work = works.recv().await.unwrap();
    assert_eq!(tasks.cancel(REGISTRY, &run.id, Timestamp::now()).await.unwrap().status, RunStatus::Running);
    work.cancel.raised().await;
    work.done.send(Outcome::Stopped).unwrap();
    let (run, text) = ended(&tasks, &run.id).await;
    assert_eq!(run.status, RunStatus::Canceled);
    assert!(text.starts_with("Run ID: cb1 was canceled after "), "{text}");
}

#[tokio::test]
async fn step_records_are_kept_by_their_last_use() {
    let place = Place::new();
    let keys: Vec<Digest> = (0..4u8).map(|n| Digest::of(&[n])).collect();
    let (found, totals, oldest) = place
        .meta
        .write(move |tx| {
            for (n, key) in keys.iter().enumerate() {
                step::put(tx, 1, key, b"{}", 10, Timestamp(n as i64))?;
            }
            step::put(tx, 1, &keys[1], b"{\"new\":1}", 20, Timestamp(1))?;
            step::touch(tx, &[keys[0]], Timestamp(100))?;
            step::touch(tx, &[keys[0]], Timestamp(50))?;
            let oldest = step::oldest(tx, 10)?;
            assert!(step::delete(tx, &keys[3])? && !step::delete(tx, &keys[3])?);
            Ok::<_, portolan_store::Error>((step::get(tx, &keys[1])?, step::totals(tx)?, oldest))
        })
        .await
        .unwrap();
    assert_eq!(found.unwrap(), b"{\"new\":1}");
    assert_eq!(totals, (3, 40));
    let order: Vec<i64> = oldest.iter().map(|o| o.last_used.0).collect();
    assert_eq!(order, [1, 2, 3, 100]);
}
