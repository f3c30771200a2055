//! Whose turn it is, and what becomes of runs whose worker is lost.

use std::time::Duration;

use portolan_tasks::{Outcome, RunStatus, StopReason, TasksConfig, TurnLimits};
use portolan_types::Timestamp;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Several processes on one database, with leases that nobody renews in time for a test.
fn shared(name: &str) -> TasksConfig {
    TasksConfig { alone: false, lease_secs: 3_000, name: name.to_owned(), ..TasksConfig::default() }
}

async fn schedule_as(tasks: &Tasks, registry: i64, asker: &str) -> RunId {
    let staged = tasks.stage_context(registry, Timestamp::now()).await.unwrap();
    tasks.put_context(registry, &staged.relative_path, bytes("a context")).await.unwrap();
    let mut new = order(tasks, &[]).await;
    new.registry.id = registry;
    new.build.context = staged.relative_path;
    new.asker = asker.to_owned();
    tasks.schedule(new, Timestamp::now()).await.unwrap().id
}

#[tokio::test]
async fn nobody_waits_for_all_that_another_ordered() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    for (registry, asker) in [(7, "a"), (7, "a"), (7, "a"), (7, "b"), (8, "c"), (8, "c"), (9, "d")] {
        schedule_as(&tasks, registry, asker).await;
    }
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let mut order = Vec::new();
    for _ in 0..7 {
        let work = works.recv().await.unwrap();
        order.push(format!("{} {}", work.job.registry, work.job.id));
        work.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    }
    assert_eq!(order, ["7 cb1", "8 cb1", "9 cb1", "7 cb4", "8 cb2", "7 cb2", "7 cb3"]);
}

#[tokio::test]
async fn limits_hold_over_all_processes() {
    let place = Place::new();
    let limits = TurnLimits { total_max: 3, registry_max: 1 };
    let config = |name| TasksConfig { running: limits, ..shared(name) };
    let (one, two) = (place.tasks(config("one")).await, place.tasks(config("two")).await);
    let (runner, mut works) = handed();
    for registry in [7, 7, 8, 9, 10] {
        schedule_as(&one, registry, "").await;
    }
    one.start_workers(4, runner.clone());
    two.start_workers(4, runner);
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(works.recv().await.unwrap());
    }
    let mut registries: Vec<i64> = first.iter().map(|work| work.job.registry).collect();
    registries.sort_unstable();
    assert_eq!(registries, [7, 8, 9]);
    // Both have looked into the queue again by the time that a run has gone through it.
    assert_eq!(one.load().await.unwrap().0, 2);
    assert!(works.try_recv().is_err());
    let seven = first.iter().position(|work| work.job.registry == 7).unwrap();
    first.remove(seven).done.send(Outcome::Succeeded(Vec::new())).unwrap();
    let next = works.recv().await.unwrap();
    assert_eq!(next.job.registry, 10, "who was never served comes first");
    for work in first.into_iter().chain([next]) {
        work.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    }
    let last = works.recv().await.unwrap();
    assert_eq!((last.job.registry, last.job.id.clone()), (7, RunId::nth(2)));
    last.done.send(Outcome::Succeeded(Vec::new())).unwrap();
}

#[tokio::test]
async fn one_registry_does_not_fill_the_queue() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig { queue_registry_max: 2, ..TasksConfig::default() }).await;
    schedule_as(&tasks, 7, "a").await;
    schedule_as(&tasks, 7, "b").await;
    let new = order(&tasks, &[]).await;
    let why = tasks.schedule(new, Timestamp::now()).await.unwrap_err().to_string();
    assert_eq!(why, "2 runs are waiting already; try again when some are done");
    schedule_as(&tasks, 8, "a").await;
}

#[tokio::test]
async fn a_run_whose_worker_is_lost_begins_anew() {
    let place = Place::new();
    let (one, two) = (place.tasks(shared("one")).await, place.tasks(shared("two")).await);
    let (runner, mut works) = handed();
    one.start_workers(1, runner.clone());
    let run = schedule(&one, &["app:v1"]).await;
    let lost = works.recv().await.unwrap();
    lost.log.line("half");

    two.sweep(Timestamp::now().plus(HOUR)).await.unwrap();
    assert_eq!(get(&two, &run.id).await.status, RunStatus::Queued);
    two.start_workers(1, runner);
    // Its own first worker is busy with what it does not know to be lost.
    let again = works.recv().await.unwrap();
    assert_eq!(again.job.build, lost.job.build, "its order is whole, secrets and all");
    // The first one wakes up, and may store nothing.
    assert!(!lost.job.lease.storing().await.unwrap());
    assert!(again.job.lease.storing().await.unwrap());
    lost.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    again.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    let (run, text) = ended(&two, &run.id).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    let told = "one left this run; two begins it anew (attempt 2 of 3)";
    assert!(text.starts_with("half\r\n") && text.contains(told), "{text}");
}

#[tokio::test]
async fn a_run_that_loses_every_worker_ends() {
    let place = Place::new();
    let (runner, mut works) = handed();
    let mut workers = Vec::new();
    let watch = place.tasks(shared("watch")).await;
    let run = schedule(&watch, &[]).await;
    for n in 1..=3 {
        let worker = place.tasks(shared(&format!("w{n}"))).await;
        worker.start_workers(1, runner.clone());
        workers.push((works.recv().await.unwrap(), worker));
        watch.sweep(Timestamp::now().plus(HOUR)).await.unwrap();
        // Lest a worker takes it that has one already.
        assert_eq!(get(&watch, &run.id).await.status.is_final(), n == 3);
    }
    let (run, text) = ended(&watch, &run.id).await;
    assert_eq!(run.status, RunStatus::Error);
    let why = "3 workers in turn were lost during this run, the last of them w3";
    assert_eq!(run.error.as_deref(), Some(why));
    assert!(text.ends_with(&format!("{why}\r\n")), "{text}");
}

#[tokio::test]
async fn what_was_being_stored_is_not_repeated() {
    let place = Place::new();
    let (one, two) = (place.tasks(shared("one")).await, place.tasks(shared("two")).await);
    let (runner, mut works) = handed();
    one.start_workers(1, runner);
    let run = schedule(&one, &["app:v1"]).await;
    let lost = works.recv().await.unwrap();
    assert!(lost.job.lease.storing().await.unwrap());
    two.sweep(Timestamp::now().plus(HOUR)).await.unwrap();
    let (run, _) = ended(&two, &run.id).await;
    assert_eq!(run.status, RunStatus::Error);
    assert!(run.error.as_deref().unwrap().starts_with("one was lost while it stored what this run made"), "{run:?}");
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_gives_its_run_back() {
    let place = Place::new();
    // Not once may a worker be lost: this one is not.
    let config = |name| TasksConfig { attempts_max: 1, ..shared(name) };
    let (one, two) = (place.tasks(config("one")).await, place.tasks(config("two")).await);
    let (runner, mut works) = handed();
    one.start_workers(1, runner.clone());
    let run = schedule(&two, &[]).await;
    let work = works.recv().await.unwrap();
    let drained = tokio::spawn({
        let one = one.clone();
        async move { one.drain(Duration::ZERO).await }
    });
    assert_eq!(work.cancel.raised().await, StopReason::Shutdown);
    work.done.send(Outcome::Stopped).unwrap();
    drained.await.unwrap();
    assert_eq!(get(&two, &run.id).await.status, RunStatus::Queued);
    two.start_workers(1, runner);
    works.recv().await.unwrap().done.send(Outcome::Succeeded(Vec::new())).unwrap();
    let (run, text) = ended(&two, &run.id).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert!(text.contains("one left this run; two begins it anew (attempt 1 of 1)"), "{text}");
}

#[tokio::test]
async fn who_waits_is_told_his_place() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let runs = [schedule(&tasks, &[]).await, schedule(&tasks, &[]).await, schedule(&tasks, &[]).await];
    assert_eq!(tasks.tell_places(Timestamp::now()).await.unwrap(), 0, "who came just now is told nothing");
    let soon = Timestamp::now().plus(Duration::from_secs(5));
    assert_eq!(tasks.tell_places(soon).await.unwrap(), 3);
    assert_eq!(tasks.tell_places(soon).await.unwrap(), 0, "nothing has moved");
    tasks.cancel(REGISTRY, &runs[0].id, Timestamp::now()).await.unwrap();
    assert_eq!(tasks.tell_places(soon).await.unwrap(), 2);
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    for _ in 0..2 {
        works.recv().await.unwrap().done.send(Outcome::Succeeded(Vec::new())).unwrap();
    }
    let (_, text) = ended(&tasks, &runs[2].id).await;
    // A line begins with the time.
    let told: Vec<&str> = text.lines().filter_map(|l| l.get(20..)).filter(|l| l.contains("aiting")).collect();
    assert_eq!(
        told[..2],
        ["Waiting in the queue: 2 runs are before this one", "Waiting in the queue: 1 run is before this one"]
    );
    let (_, text) = ended(&tasks, &runs[1].id).await;
    assert!(text.contains(" Waiting for a worker: this run is the next\r\n"), "{text}");
}
