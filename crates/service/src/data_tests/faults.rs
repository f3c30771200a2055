//! Every operation with the database failing at its n-th step, for every n: afterwards the
//! store holds together, and trying again succeeds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use portolan_store::meta::faults::{Failure, Faults, Point};
use portolan_store::testing::{Fault, Flaky};
use portolan_types::{Digest, Timestamp};

use super::fixture::*;
use crate::gc::LINK_GRACE;
use crate::{Error, Result};

const POINTS: [Point; 4] = [Point::Begin, Point::Call, Point::Commit, Point::AfterCommit];
const FAILURES: [Failure; 3] = [Failure::Busy, Failure::Full, Failure::Database];
/// More steps than any operation here has.
const STEPS_MAX: u64 = 200;

async fn faulty() -> (World, Arc<Faults>) {
    let mut w = World::new().await;
    let faults = Arc::new(Faults::default());
    let service = Arc::get_mut(&mut w.service).expect("nobody else has it yet");
    service.meta = service.meta.with_faults(&faults);
    (w, faults)
}

async fn push(w: &World, content: &str) -> Result<Digest> {
    for bytes in [config_bytes(), content.as_bytes().to_vec()] {
        let digest = Digest::of(&bytes);
        w.service.put_blob(&ctx(), &w.registry, &repo("app"), digest, body(bytes)).await?;
    }
    Ok(w.put(start(), "app", "v1", &image_of(content)).await?.digest)
}

async fn chunked(w: &World, content: &str) -> Result<Digest> {
    let (name, digest) = (repo("app"), Digest::of(content.as_bytes()));
    let id = w.service.start_upload(&ctx(), &w.registry, &name).await?;
    let (first, last) = content.as_bytes().split_at(content.len() / 2);
    for part in [first.to_vec(), last.to_vec()] {
        w.service.append_upload(&ctx(), &w.registry, &name, id, None, body(part), None).await?;
    }
    w.service.finish_upload(&ctx(), &w.registry, &name, id, digest).await?;
    Ok(digest)
}

async fn mount(w: &World, content: &str) -> Result<Digest> {
    let (digest, from) = (Digest::of(content.as_bytes()), repo("app"));
    assert!(w.service.mount_blob(&ctx(), &w.registry, &repo("other"), digest, Some(&from)).await?);
    Ok(digest)
}

/// A deletion that did happen, though the answer said otherwise, is one.
async fn delete(w: &World, digest: Digest) -> Result<()> {
    let what = reference(&digest.to_string());
    match w.service.delete_manifest(&ctx(), &w.registry, &repo("app"), &what).await {
        Err(e) if e.code == "MANIFEST_UNKNOWN" || e.code == "NAME_UNKNOWN" => Ok(()),
        done => done,
    }
}

async fn clean(w: &World, what: &str) {
    let report = w.check(false).await;
    assert_eq!(report.exit_code(), 0, "{what}: {report:?}");
}

/// Run `operation` failing at each of its steps in turn; each time the store holds together
/// and a second try, without a fault, succeeds.
async fn at_every_step<F>(w: &World, faults: &Faults, name: &str, operation: F)
where
    F: AsyncFn(u64) -> Result<()>,
{
    let mut n = 0;
    for point in POINTS {
        for step in 1..STEPS_MAX {
            n += 1;
            let failure = FAILURES[(n % 3) as usize];
            faults.fail_at(point, step, failure);
            let failed: Result<(), Error> = operation(n).await;
            let fired = faults.clear();
            let what = format!("{name}, {point:?} {step}, {failure:?}");
            assert!(fired || failed.is_ok(), "{what}: it failed by itself: {failed:?}");
            clean(w, &what).await;
            let again = operation(n).await;
            assert!(again.is_ok(), "{what}: again: {again:?}");
            clean(w, &what).await;
            if !fired {
                break;
            }
            assert!(step + 1 < STEPS_MAX, "{name} has no end");
        }
    }
}

#[tokio::test]
async fn pushes_under_database_faults() {
    let (w, faults) = faulty().await;
    at_every_step(&w, &faults, "push", async |n| {
        let digest = push(&w, &format!("layer {n}")).await?;
        assert_eq!(w.get("app", "v1").await?.digest, digest);
        Ok(())
    })
    .await;
    at_every_step(&w, &faults, "chunked", async |n| {
        let content = format!("chunked layer {n}");
        let digest = chunked(&w, &content).await?;
        assert_eq!(w.read("app", &digest).await?, content.as_bytes());
        Ok(())
    })
    .await;
    w.blob("app", b"mounted").await;
    at_every_step(&w, &faults, "mount", async |_| mount(&w, "mounted").await.map(drop)).await;
}

#[tokio::test]
async fn deleting_and_collecting_under_database_faults() {
    let (w, faults) = faulty().await;
    let mut now = start();
    for point in POINTS {
        for step in 1..STEPS_MAX {
            let content = format!("{point:?} {step}");
            let digest = push(&w, &content).await.unwrap();
            faults.fail_at(point, step, FAILURES[(step % 3) as usize]);
            let deleted = delete(&w, digest).await;
            now = Timestamp(now.0.max(start().plus(LINK_GRACE).0)).plus(Duration::from_secs(1));
            let _ = w.service.collect_garbage(now).await;
            let fired = faults.clear();
            clean(&w, &content).await;
            if deleted.is_err() {
                delete(&w, digest).await.unwrap();
            }
            let collected = w.service.collect_garbage(now).await.unwrap();
            assert_eq!(collected.failed, 0);
            assert!(!w.stored(&Digest::of(content.as_bytes())).await, "{content}: it was collected in the end");
            clean(&w, &content).await;
            if !fired {
                break;
            }
        }
    }
}

/// The same with the blob store failing at its n-th call, before or after it did its work,
/// and with bodies that break off anywhere.
#[tokio::test]
async fn pushes_under_storage_faults() {
    for fault in [Fault::Full, Fault::Io] {
        let mut kept = None;
        let w = World::with_blobs(|fs| {
            let flaky = Arc::new(Flaky::new(fs, 0, fault));
            kept = Some(flaky.clone());
            flaky
        });
        let w = w.await;
        let flaky = kept.expect("it was made");
        for late in [false, true] {
            for nth in 1..100 {
                let content = format!("{fault:?} {late} {nth}");
                let what = format!("storage, {content}");
                flaky.fail_at(nth, late);
                let failed = match nth % 2 {
                    0 => chunked(&w, &content).await,
                    _ => push(&w, &content).await,
                };
                let fired = flaky.clear();
                clean(&w, &what).await;
                chunked(&w, &content).await.unwrap();
                push(&w, &content).await.unwrap();
                clean(&w, &what).await;
                assert_eq!(w.read("app", &Digest::of(content.as_bytes())).await.unwrap(), content.as_bytes());
                if !fired {
                    assert!(failed.is_ok(), "{what}: {failed:?}");
                    break;
                }
            }
        }
        flaky.set_latency(Duration::from_millis(2));
        for bytes in 0..19 {
            let content = format!("torn somewhere {bytes} {fault:?}");
            flaky.tear_at(bytes);
            assert!(
                w.service
                    .put_blob(&ctx(), &w.registry, &repo("app"), Digest::of(content.as_bytes()), body(content.clone()))
                    .await
                    .is_err()
            );
            assert!(flaky.clear());
            clean(&w, &content).await;
            w.blob("app", content.as_bytes()).await;
            flaky.tear_at(bytes);
            assert!(
                w.service
                    .read_blob(&Digest::of(content.as_bytes()), 0..content.len() as u64)
                    .await
                    .unwrap()
                    .next()
                    .await
                    .unwrap()
                    .is_err()
            );
        }
    }
}

/// The cost of an operation, and of a round of the collector, follows what changed.
#[tokio::test]
async fn cost_follows_change_and_not_size() {
    let (w, faults) = faulty().await;
    let cost = async |content: &str| {
        let digest = push(&w, content).await.unwrap();
        let push = faults.counts();
        delete(&w, digest).await.unwrap();
        let delete = faults.counts();
        w.service.collect_garbage(start().plus(LINK_GRACE)).await.unwrap();
        (push, delete, faults.counts())
    };
    // So that neither has anything to make.
    push(&w, "stays").await.unwrap();
    w.put(start(), "app", "stays", &image_of("stays")).await.unwrap();
    cost("warm").await;
    let small = cost("small").await;
    fill(&w, 100_000).await;
    faults.counts();
    let large = cost("large").await;
    assert_eq!(small, large, "statements and rows of a push, a deletion and a round");
    let (_, _, (statements, rows)) = large;
    assert!(statements < 60 && rows < 30, "{statements} statements, {rows} rows");
    println!("statements and rows of push, deletion, round with 100,000 tags and reviews: {large:?}");
}

/// So many tags of one manifest, and reviews that are not due.
async fn fill(w: &World, rows: i64) {
    let numbers = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)";
    let tags = format!(
        "{numbers} INSERT INTO tag (repo, name, digest, attrs, created, updated, hlc, region) \
         SELECT repo, 't' || n, digest, attrs, created, updated, hlc, region FROM tag, number WHERE name = 'stays'"
    );
    let reviews = format!(
        "{numbers} INSERT INTO gc_queue (kind, repo, digest, due) \
         SELECT 1, 1000000 + n, digest, 9000000000000000000 FROM tag, number WHERE name = 'stays'"
    );
    let filled = w.service.meta.write(move |tx| {
        for sql in [tags, reviews] {
            assert_eq!(tx.execute(&sql, &[rows.into()])?, rows.unsigned_abs());
        }
        Ok::<_, Error>(())
    });
    filled.await.unwrap();
}
