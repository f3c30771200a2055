//! Contexts from their place to their end.

use std::time::Duration;

use portolan_store::meta::object;
use portolan_tasks::{CONTEXT_SECS_MAX, Error, Outcome, TasksConfig, log_key};
use portolan_types::Timestamp;

use super::*;

fn key(relative_path: &str) -> String {
    format!("contexts/{REGISTRY}/{}", relative_path.strip_prefix("source/").unwrap())
}

async fn content(place: &Place, relative_path: &str) -> Option<String> {
    let path = place.blobs.object_path(&key(relative_path))?;
    std::fs::read_to_string(path).ok()
}

#[tokio::test]
async fn blocks_in_the_order_of_the_list() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let path = tasks.stage_context(REGISTRY, Timestamp::now()).await.unwrap().relative_path;
    for (id, text) in [("b", "world"), ("a", "hallo "), ("x", "unused"), ("a", "hello ")] {
        tasks.put_block(REGISTRY, &path, id.as_bytes(), bytes(text)).await.unwrap();
    }
    let unknown = tasks.commit_blocks(REGISTRY, &path, &[b"a".to_vec(), b"c".to_vec()]).await.unwrap_err();
    assert!(matches!(unknown, Error::Invalid { code: "InvalidBlockList", .. }), "{unknown:?}");
    assert_eq!(content(&place, &path).await, None);
    let size = tasks.commit_blocks(REGISTRY, &path, &[b"a".to_vec(), b"b".to_vec()]).await.unwrap();
    assert_eq!(size, 11);
    assert_eq!(content(&place, &path).await.as_deref(), Some("hello world"));
    let context = key(&path);
    let left = place.meta.read(move |tx| object::blocks(tx, &context, 10)).await.unwrap();
    assert!(left.is_empty());
}

#[tokio::test]
async fn only_where_a_place_was_made() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let path = tasks.stage_context(REGISTRY, Timestamp::now()).await.unwrap().relative_path;
    for (registry, path) in [
        (REGISTRY + 1, path.as_str()),
        (REGISTRY, "source/00000000-0000-0000-0000-000000000000.tar.gz"),
        (REGISTRY, "x"),
    ] {
        let error = tasks.put_context(registry, path, bytes("x")).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{path}: {error:?}");
        assert!(matches!(tasks.put_block(registry, path, b"a", bytes("x")).await, Err(Error::NotFound(_))));
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_no_context() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let path = tasks.stage_context(REGISTRY, Timestamp::now()).await.unwrap().relative_path;
    let broken = [Ok(bytes::Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
    let error = tasks.put_context(REGISTRY, &path, Box::pin(futures_util::stream::iter(broken))).await.unwrap_err();
    assert!(matches!(error, Error::Store(portolan_store::Error::Interrupted(_))), "{error:?}");
    assert_eq!(content(&place, &path).await, None);
}

#[tokio::test]
async fn contexts_go_when_nothing_needs_them() {
    let place = Place::new();
    let tasks = place.tasks(TasksConfig::default()).await;
    let unused = tasks.stage_context(REGISTRY, Timestamp::now()).await.unwrap();
    tasks.put_context(REGISTRY, &unused.relative_path, bytes("unused")).await.unwrap();
    tasks.put_block(REGISTRY, &unused.relative_path, b"a", bytes("block")).await.unwrap();
    let new = order(&tasks, &[]).await;
    let used = new.build.context.clone();
    // Two runs of one context, as for two platforms.
    let (one, two) = (tasks.schedule(new.clone(), Timestamp::now()).await.unwrap(), new);
    let two = tasks.schedule(two, Timestamp::now()).await.unwrap();

    let day = Duration::from_secs(CONTEXT_SECS_MAX);
    tasks.sweep(Timestamp::now().plus(day)).await.unwrap();
    assert_eq!(content(&place, &unused.relative_path).await, None, "its time was over");
    assert!(content(&place, &used).await.is_some(), "a run waits for it");

    let (runner, mut works) = handed();
    tasks.start_workers(1, runner);
    works.recv().await.unwrap().done.send(Outcome::Succeeded(Vec::new())).unwrap();
    ended(&tasks, &one.id).await;
    tasks.sweep(Timestamp::now()).await.unwrap();
    assert!(content(&place, &used).await.is_some(), "another run needs it");
    works.recv().await.unwrap().done.send(Outcome::Failed("no".into())).unwrap();
    ended(&tasks, &two.id).await;
    tasks.sweep(Timestamp::now()).await.unwrap();
    assert_eq!(content(&place, &used).await, None);
}

#[tokio::test]
async fn old_runs_and_logs_go_unless_they_are_kept() {
    let place = Place::new();
    let config = TasksConfig { keep_secs: 1000, ..TasksConfig::default() };
    let tasks = place.tasks(config).await;
    for _ in 0..2 {
        let run = schedule(&tasks, &[]).await;
        tasks.cancel(REGISTRY, &run.id, Timestamp::now()).await.unwrap();
    }
    let (gone, kept) = (RunId::nth(1), RunId::nth(2));
    tasks.set_archived(REGISTRY, &kept, true, Timestamp::now()).await.unwrap();
    tasks.sweep(Timestamp::now().plus(Duration::from_secs(500))).await.unwrap();
    assert!(tasks.get(REGISTRY, &gone).await.unwrap().is_some());
    tasks.sweep(Timestamp::now().plus(Duration::from_secs(1001))).await.unwrap();
    assert!(tasks.get(REGISTRY, &gone).await.unwrap().is_none());
    assert_eq!(place.blobs.object_len(&log_key(REGISTRY, &gone)).await.unwrap(), None);
    assert!(tasks.log_state(REGISTRY, &kept).await.unwrap().is_some());
}
