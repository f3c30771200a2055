//! Every operation with the database failing at its n-th step, for every n: afterwards the
//! store holds together, and trying again succeeds.

use std::sync::Arc;
use std::time::Duration;

use portolan_store::meta::faults::{Failure, Faults, Point};
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
    w.service.collect_garbage(start()).await.unwrap();
    faults.counts();
    let large = cost("large").await;
    assert_eq!(small, large, "statements and rows of a push, a deletion and a round");
    let (_, _, (statements, rows)) = large;
    assert!(statements < 60 && rows < 30, "{statements} statements, {rows} rows");
    println!("statements and rows of push, deletion, round at 100,000 tags: {large:?}");
}

/// So many tags of one manifest.
async fn fill(w: &World, tags: i64) {
    let digest = w.get("app", "stays").await.unwrap().digest;
    let bytes = portolan_store::meta::digest_bytes(&digest);
    for from in (0..tags).step_by(10_000) {
        let bytes = bytes.clone();
        let filled = w.service.meta.write(move |tx| {
            for n in from..from + 10_000 {
                tx.execute(
                    "INSERT INTO tag (repo, name, digest, attrs, created, updated, hlc, region) \
                     SELECT repo, ?1, ?2, attrs, created, updated, hlc, region FROM tag WHERE name = 'stays'",
                    &[format!("t{n}").as_str().into(), bytes.clone().into()],
                )?;
                tx.execute(
                    "INSERT INTO blob (digest, size, created) VALUES (?1, 1, 0)",
                    &[portolan_store::meta::digest_bytes(&Digest::of(&n.to_le_bytes())).into()],
                )?;
            }
            Ok::<_, Error>(())
        });
        filled.await.unwrap();
    }
}
