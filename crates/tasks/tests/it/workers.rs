//! Workers that stop, panic, take too long or are gone.

use std::time::Duration;

use portolan_store::meta::turn;
use portolan_tasks::{Outcome, RunStatus, StopReason, TasksConfig, TurnLimits};
use portolan_types::Timestamp;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn several_at_once() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    for _ in 0..3 {
        schedule(&tasks, &[]).await;
    }
    let (runner, mut works) = handed();
    tasks.start_workers(2, runner);
    let (first, second) = (works.recv().await.unwrap(), works.recv().await.unwrap());
    assert_eq!(tasks.load().await.unwrap(), (1, 2));
    assert!(works.try_recv().is_err());
    second.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    let third = works.recv().await.unwrap();
    assert_eq!(third.job.id, RunId::nth(3));
    for work in [first, third] {
        let id = work.job.id.clone();
        work.done.send(Outcome::Succeeded(Vec::new())).unwrap();
        assert_eq!(ended(&tasks, &id).await.0.status, RunStatus::Succeeded);
    }
}

#[tokio::test]
async fn too_long() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let mut new = order(&tasks, &[]).await;
    new.timeout_secs = Some(1);
    let run = tasks.schedule(new, Timestamp::now()).await.unwrap();
    let work = works.recv().await.unwrap();
    assert_eq!(work.cancel.raised().await, StopReason::Timeout);
    work.done.send(Outcome::Failed("killed".into())).unwrap();
    let (run, text) = ended(&tasks, &run.id).await;
    assert_eq!(run.status, RunStatus::Timeout);
    assert!(text.contains("timed out after ") && text.contains("the 1 seconds"), "{text}");
}

#[tokio::test]
async fn a_panic_ends_one_run_and_nothing_else() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let run = schedule(&tasks, &[]).await;
    drop(works.recv().await.unwrap().done);
    assert_eq!(ended(&tasks, &run.id).await.0.status, RunStatus::Error);
    let run = schedule(&tasks, &[]).await;
    works.recv().await.unwrap().done.send(Outcome::Succeeded(Vec::new())).unwrap();
    assert_eq!(ended(&tasks, &run.id).await.0.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_restart_ends_what_was_going_and_keeps_what_was_waiting() {
    let place = Place::new();
    let before = place.tasks(TasksConfig::default()).await;
    let (runner, mut works) = handed();
    before.start_workers(1, runner);
    let going = schedule(&before, &[]).await;
    let waiting = schedule(&before, &[]).await;
    let work = works.recv().await.unwrap();
    work.log.line("half");

    // The old server is still there and knows nothing: as after `kill -9`, only more so.
    let after = place.tasks(TasksConfig::default()).await;
    let (run, text) = ended(&after, &going.id).await;
    assert_eq!(run.status, RunStatus::Error);
    assert_eq!(run.error.as_deref(), Some("the server stopped during this run"));
    assert!(text.starts_with("half\r\nRun ID: cb1 failed after ") && text.ends_with("during this run\r\n"), "{text}");
    assert_eq!(get(&after, &waiting.id).await.status, RunStatus::Queued);

    // What the old worker says now changes nothing.
    work.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    let next = works.recv().await.unwrap();
    assert_eq!(next.job.id, waiting.id);
    assert_eq!(get(&after, &going.id).await.status, RunStatus::Error);
    next.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    assert_eq!(ended(&after, &waiting.id).await.0.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn what_never_began_is_queued_again() {
    let place = Place::new();
    let before = place.tasks(TasksConfig::default()).await;
    let run = schedule(&before, &["app:{{.Run.ID}}"]).await;
    let now = Timestamp::now();
    let claimed =
        place.meta.write(move |tx| turn::claim(tx, "somebody", "a worker", TurnLimits::default(), now, now.plus(HOUR)));
    let claimed = claimed.await.unwrap().unwrap().0;
    assert_eq!(claimed.status, "Started");

    let after = place.tasks(TasksConfig::default()).await;
    assert_eq!(get(&after, &run.id).await.status, RunStatus::Queued);
    let (runner, mut works) = handed();
    after.start_workers(1, runner);
    let work = works.recv().await.unwrap();
    assert_eq!(work.job.build.images[0].to_string(), "app:cb1");
    work.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    assert_eq!(ended(&after, &run.id).await.0.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_lost_lease_is_found_by_others() {
    let place = Place::new();
    let shared = TasksConfig { alone: false, lease_secs: 3, attempts_max: 1, ..TasksConfig::default() };
    let one = place.tasks(shared.clone()).await;
    let two = place.tasks(shared).await;
    let (runner, mut works) = handed();
    one.start_workers(1, runner);
    let run = schedule(&one, &[]).await;
    let work = works.recv().await.unwrap();

    two.sweep(Timestamp::now()).await.unwrap();
    assert_eq!(get(&two, &run.id).await.status, RunStatus::Running, "a lease that is kept is respected");
    one.sweep(Timestamp::now().plus(HOUR)).await.unwrap();
    assert_eq!(get(&one, &run.id).await.status, RunStatus::Running, "nobody takes a run from himself");
    two.sweep(Timestamp::now().plus(HOUR)).await.unwrap();
    assert_eq!(get(&two, &run.id).await.status, RunStatus::Error);

    // The worker finds out when it renews, and stops.
    assert_eq!(work.cancel.raised().await, StopReason::Shutdown);
    work.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    one.drain(HOUR).await;
    assert_eq!(get(&two, &run.id).await.status, RunStatus::Error);
}

#[tokio::test]
async fn a_cancel_reaches_a_worker_elsewhere() {
    let place = Place::new();
    let shared = TasksConfig { alone: false, lease_secs: 3, ..TasksConfig::default() };
    let one = place.tasks(shared.clone()).await;
    let two = place.tasks(shared).await;
    let (runner, mut works) = handed();
    one.start_workers(1, runner);
    let run = schedule(&two, &[]).await;
    let work = works.recv().await.unwrap();
    two.cancel(REGISTRY, &run.id, Timestamp::now()).await.unwrap();
    assert_eq!(work.cancel.raised().await, StopReason::Canceled);
    work.done.send(Outcome::Stopped).unwrap();
    assert_eq!(ended(&two, &run.id).await.0.status, RunStatus::Canceled);
}

/// The lease is renewed, and the wish found in the row, every thousand seconds: the notice is
/// what the worker hears.
#[tokio::test]
async fn a_notice_brings_a_cancel_from_elsewhere_at_once() {
    let place = Place::new();
    let shared = TasksConfig { alone: false, lease_secs: 3_000, ..TasksConfig::default() };
    let one = place.tasks(shared.clone()).await;
    let two = place.tasks(shared).await;
    let (runner, mut works) = handed();
    one.start_workers(1, runner);
    let run = schedule(&two, &[]).await;
    let work = works.recv().await.unwrap();
    two.cancel(REGISTRY, &run.id, Timestamp::now()).await.unwrap();
    for other in [None, Some(""), Some("run cancel "), Some("run cancel 1"), Some("run cancel x/y"), Some("snapshot")] {
        one.heard(other);
    }
    one.heard(Some(&format!("run cancel {REGISTRY}/{}", run.id)));
    assert_eq!(work.cancel.raised().await, StopReason::Canceled);
    work.done.send(Outcome::Stopped).unwrap();
    assert_eq!(ended(&two, &run.id).await.0.status, RunStatus::Canceled);
}

#[tokio::test]
async fn draining_lets_go_and_then_stops() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let going = schedule(&tasks, &[]).await;
    let work = works.recv().await.unwrap();
    let waiting = schedule(&tasks, &[]).await;
    let drained = tokio::spawn({
        let tasks = tasks.clone();
        async move { tasks.drain(Duration::ZERO).await }
    });
    assert_eq!(work.cancel.raised().await, StopReason::Shutdown);
    work.done.send(Outcome::Stopped).unwrap();
    drained.await.unwrap();
    let (run, _) = ended(&tasks, &going.id).await;
    assert_eq!((run.status, run.error.as_deref()), (RunStatus::Error, Some("the server stopped during this run")));
    assert_eq!(get(&tasks, &waiting.id).await.status, RunStatus::Queued);
}
