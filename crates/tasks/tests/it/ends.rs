//! Ending a run while the store does not take it: the outcome is kept and written later.

use std::time::Duration;

use portolan_store::testing::{Fault, Flaky};
use portolan_tasks::{Outcome, RunStatus, TasksConfig};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn last_words_are_tried_again_and_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open_meta(&dir.path().join("portolan.db"));
    let blobs = Arc::new(Flaky::new(FsBlobs::open(dir.path()).unwrap(), 0, Fault::Full));
    let tasks = Tasks::open(meta, blobs.clone(), Arc::new(Keyed(1)), TasksConfig::default()).await.unwrap();
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let run = schedule(&tasks, &[]).await;
    let work = works.recv().await.unwrap();
    blobs.fail_next(2);
    work.done.send(Outcome::Succeeded(Vec::new())).unwrap();
    // Draining waits for the worker, and so for the end of its run.
    tasks.drain(MINUTE).await;
    let (run, text) = ended(&tasks, &run.id).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert!(text.starts_with("Run ID: cb1 was successful after ") && text.lines().count() == 1, "{text}");
}

#[tokio::test]
async fn a_row_that_cannot_be_written_is_tried_again() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    let run = schedule(&tasks, &[]).await;
    let work = works.recv().await.unwrap();
    let (refuse, allow) = if postgres::is_chosen() {
        ("ALTER TABLE run ADD CONSTRAINT refuse CHECK (finished IS NULL)", "ALTER TABLE run DROP CONSTRAINT refuse")
    } else {
        (
            "CREATE TRIGGER refuse BEFORE UPDATE OF finished ON run BEGIN SELECT RAISE(ABORT, 'no'); END",
            "DROP TRIGGER refuse",
        )
    };
    place.meta.write(|tx| tx.execute(refuse, &[])).await.unwrap();
    work.done.send(Outcome::Failed("no such file".into())).unwrap();
    // The row is written, or not, right after the last words.
    let said = tasks.log_wait(REGISTRY, &run.id, 0, MINUTE).await.unwrap().unwrap();
    assert_eq!(said.complete, None, "no end without its row");
    place.meta.write(|tx| tx.execute(allow, &[])).await.unwrap();
    tasks.drain(MINUTE).await;
    let (run, text) = ended(&tasks, &run.id).await;
    assert_eq!((run.status, run.error.as_deref()), (RunStatus::Failed, Some("no such file")));
    assert_eq!(text.lines().count(), 1, "{text}");
}
