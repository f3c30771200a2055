//! What is collected, what is not, and what happens when a push comes in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portolan_types::{Digest, Timestamp};

use super::fixture::*;
use super::gated::{Gate, Gated};
use crate::gc::{Collected, LINK_GRACE, TOUCH_GRACE, UNLINK_GRACE, UPLOAD_IDLE};

impl World {
    async fn collect(&self, now: Timestamp) -> Collected {
        self.service.collect_garbage(now).await.unwrap()
    }

    async fn delete_image(&self, digest: Digest) {
        let what = reference(&digest.to_string());
        self.service.delete_manifest(&ctx(), &self.registry, &repo("app"), &what).await.unwrap();
    }
}

#[tokio::test]
async fn a_blob_without_a_manifest_has_a_day() {
    let w = World::new().await;
    let blob = w.blob("app", b"left over").await;
    let just_before = Timestamp(start().plus(LINK_GRACE).0 - 1);
    assert_eq!(w.collect(just_before).await, Collected::default());
    assert_eq!(w.read("app", &blob).await.unwrap(), b"left over");
    let collected = w.collect(start().plus(LINK_GRACE)).await;
    assert_eq!((collected.links, collected.blobs, collected.failed), (1, 1, 0));
    assert!(!w.stored(&blob).await);
    assert_eq!(code(w.read("app", &blob).await), "BLOB_UNKNOWN");
    assert_eq!(w.collect(start().plus(LINK_GRACE * 9)).await, Collected::default(), "nothing is left to do");
}

#[tokio::test]
async fn what_a_manifest_needs_stays() {
    let w = World::new().await;
    w.image("app", "v1", "one").await;
    // Pushed again by a client that did not ask first: a second review.
    w.blob("app", b"one").await;
    assert_eq!(w.collect(start().plus(LINK_GRACE * 2)).await.blobs, 0);
    assert_eq!(w.read("app", &Digest::of(b"one")).await.unwrap(), b"one");
}

#[tokio::test]
async fn a_deleted_image_frees_what_nothing_else_needs() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.image("app", "v2", "two").await;
    w.image("else", "v1", "one").await;
    w.delete_image(one).await;
    assert_eq!(w.collect(start()).await.blobs, 0, "not at once");
    let collected = w.collect(start().plus(UNLINK_GRACE)).await;
    assert_eq!(
        (collected.links, collected.blobs),
        (1, 0),
        "the configuration is shared, the other repository has the layer"
    );
    assert_eq!(code(w.read("app", &Digest::of(b"one")).await), "BLOB_UNKNOWN", "and the cache knows");
    assert_eq!(w.read("else", &Digest::of(b"one")).await.unwrap(), b"one");
    w.service.delete_repository(&ctx(), &w.registry, &repo("else")).await.unwrap();
    let collected = w.collect(start().plus(UNLINK_GRACE)).await;
    assert_eq!((collected.links, collected.blobs), (2, 1));
    assert!(!w.stored(&Digest::of(b"one")).await && w.stored(&Digest::of(&config_bytes())).await);
}

#[tokio::test]
async fn a_blob_that_a_push_asked_about_stays_for_its_manifest() {
    let w = World::new().await;
    let blob = w.blob("app", b"layer").await;
    let due = start().plus(LINK_GRACE);
    w.service.blob_exists(&at(due), &w.registry, &repo("app"), &blob).await.unwrap();
    assert_eq!(w.collect(due).await.links, 0);
    w.blob("app", &config_bytes()).await;
    w.put(due, "app", "v1", &image_of("layer")).await.unwrap();
    assert_eq!(w.collect(due.plus(TOUCH_GRACE)).await.blobs, 0);
    assert!(w.stored(&blob).await);
    let asked = w.blob("app", b"asked only").await;
    let later = due.plus(LINK_GRACE);
    w.service.blob_exists(&at(later), &w.registry, &repo("app"), &asked).await.unwrap();
    assert_eq!(w.collect(later).await.blobs, 0);
    assert_eq!(w.collect(later.plus(TOUCH_GRACE)).await.blobs, 1);
}

#[tokio::test]
async fn held_blobs_stay_until_they_are_let_go_or_forgotten() {
    let w = World::new().await;
    let held = w.blob("app", b"held").await;
    let forgotten = w.blob("app", b"forgotten").await;
    let gone = start().plus(LINK_GRACE);
    w.service.hold_blobs("run:cb1", &[held], gone.plus(HOUR * 100)).await.unwrap();
    w.service.hold_blobs("run:cb2", &[forgotten], gone.plus(HOUR)).await.unwrap();
    assert_eq!(w.collect(gone).await.blobs, 0);
    assert!(w.stored(&held).await && w.stored(&forgotten).await);
    assert_eq!(code(w.read("app", &held).await), "BLOB_UNKNOWN", "holding is not reading");
    assert_eq!(w.collect(gone.plus(HOUR)).await.blobs, 1);
    assert!(!w.stored(&forgotten).await);
    w.service.release_blobs("run:cb1", gone.plus(HOUR)).await.unwrap();
    assert_eq!(w.collect(gone.plus(HOUR)).await.blobs, 1);
    assert!(!w.stored(&held).await);
}

#[tokio::test]
async fn idle_uploads_are_forgotten() {
    let w = World::new().await;
    let name = repo("app");
    let idle = w.service.start_upload(&ctx(), &w.registry, &name).await.unwrap();
    let used = w.service.start_upload(&ctx(), &w.registry, &name).await.unwrap();
    let almost = start().plus(UPLOAD_IDLE - HOUR);
    w.service.append_upload(&at(almost), &w.registry, &name, used, None, body("x"), None).await.unwrap();
    assert_eq!(w.collect(start().plus(UPLOAD_IDLE + HOUR)).await.uploads, 1);
    assert_eq!(code(w.service.upload_length(&ctx(), &w.registry, &name, idle).await), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(w.service.upload_length(&ctx(), &w.registry, &name, used).await.unwrap(), 1);
}

#[tokio::test]
async fn a_deletion_that_fails_is_tried_again() {
    let gate = Gate::new();
    let inside = gate.clone();
    let w = World::with_blobs(move |inner| Arc::new(Gated { inner, gate: inside })).await;
    let blob = w.blob("app", b"left over").await;
    gate.release.add_permits(2);
    gate.failures.store(1, Ordering::SeqCst);
    let now = start().plus(LINK_GRACE);
    let collected = w.collect(now).await;
    assert_eq!((collected.links, collected.blobs, collected.failed), (1, 0, 1));
    assert!(w.stored(&blob).await, "the row is gone, the file is not");
    assert_eq!(code(w.read("app", &blob).await), "BLOB_UNKNOWN");
    assert_eq!(w.collect(now).await.blobs, 1);
    assert!(!w.stored(&blob).await);
}

#[tokio::test]
async fn a_push_after_a_deletion_that_failed_keeps_the_file() {
    let gate = Gate::new();
    let inside = gate.clone();
    let w = World::with_blobs(move |inner| Arc::new(Gated { inner, gate: inside })).await;
    let blob = w.blob("app", b"content").await;
    gate.release.add_permits(2);
    gate.failures.store(1, Ordering::SeqCst);
    let now = start().plus(LINK_GRACE);
    assert_eq!(w.collect(now).await.failed, 1);
    w.image_at(now, "app", "v1", "content").await;
    assert_eq!(w.collect(now).await.blobs, 0);
    assert_eq!(w.read("app", &blob).await.unwrap(), b"content");
}

/// The race that `gc`'s documentation tells of: the collector has removed the row and not
/// yet the file when the same content is pushed again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_in_the_middle_of_a_deletion_is_kept() {
    let gate = Gate::new();
    let inside = gate.clone();
    let w = Arc::new(World::with_blobs(move |inner| Arc::new(Gated { inner, gate: inside })).await);
    let blob = w.blob("app", b"content").await;
    assert_eq!(gate.finished.load(Ordering::SeqCst), 1);

    let now = start().plus(LINK_GRACE);
    let round = tokio::spawn({
        let w = w.clone();
        async move { w.collect(now).await }
    });
    gate.entered.acquire().await.unwrap().forget();

    let push = tokio::spawn({
        let w = w.clone();
        let content = bytes::Bytes::from_static(b"content");
        async move { w.service.put_blob(&at(now), &w.registry, &repo("app"), blob, body(content)).await }
    });
    // Go on when the push waits for the collector, or, were there no lock, when its file
    // is in place.
    let waits = || w.service.content.locks.waiting.load(Ordering::SeqCst) > 0;
    while !waits() && gate.finished.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    gate.release.add_permits(1);
    assert_eq!(push.await.unwrap().unwrap(), 7);
    assert_eq!(round.await.unwrap().blobs, 1);
    assert_eq!(w.read("app", &blob).await.unwrap(), b"content", "acknowledged and readable");
}

/// A blob that comes in one request has a file and no row: it is the request's until that
/// ends, whatever the clock says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_one_request_is_left_to_its_request() {
    let w = Arc::new(World::new().await);
    let digest = Digest::of(b"content");
    let collecting = w.service.content.locks.exclusive(&digest).await;
    let push = tokio::spawn({
        let w = w.clone();
        async move { w.blob("app", b"content").await }
    });
    // All bytes are here, and nobody is writing to the file.
    while w.service.content.locks.waiting.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(w.collect(start().plus(UPLOAD_IDLE * 400)).await, Collected::default());
    drop(collecting);
    assert_eq!(push.await.unwrap(), digest);
    assert_eq!(w.read("app", &digest).await.unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_one_request_ends_with_its_client() {
    let w = Arc::new(World::new().await);
    let uploads = w.dir.path().join("blobs").join("uploads");
    let count = || std::fs::read_dir(&uploads).unwrap().count();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|piece| (piece, r)) });
    let push = tokio::spawn({
        let w = w.clone();
        let digest = Digest::of(b"never whole");
        async move { w.service.put_blob(&ctx(), &w.registry, &repo("app"), digest, Box::pin(stream)).await }
    });
    sender.send(Ok(bytes::Bytes::from_static(b"never"))).unwrap();
    while count() == 0 {
        tokio::task::yield_now().await;
    }
    // As the server does when a client is gone: nobody waits for the answer any more.
    push.abort();
    assert!(push.await.unwrap_err().is_cancelled());
    sender.send(Err(std::io::ErrorKind::ConnectionReset.into())).unwrap();
    while count() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Pushes, deletions and the collector over the same few blobs; everything acknowledged
/// and not deleted since can be pulled.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushing_deleting_and_collecting_at_once() {
    let w = Arc::new(World::new().await);
    let far = start().plus(LINK_GRACE * 3);
    let collector = tokio::spawn({
        let w = w.clone();
        async move {
            for _ in 0..60 {
                assert_eq!(w.collect(far).await.failed, 0);
                tokio::task::yield_now().await;
            }
        }
    });
    let pushers: Vec<_> = (0..4)
        .map(|n| {
            let w = w.clone();
            tokio::spawn(async move {
                let name = format!("app{n}");
                for round in 0..9 {
                    let content = format!("shared {}", round % 3);
                    // The collector runs far in the future, so a blob may go before its
                    // manifest comes: the client is told, and pushes again, as docker does.
                    let digest = loop {
                        w.blob(&name, &config_bytes()).await;
                        w.blob(&name, content.as_bytes()).await;
                        match w.put(start(), &name, "v1", &image_of(&content)).await {
                            Ok(put) => break put.digest,
                            Err(e) => assert_eq!(e.code, "MANIFEST_BLOB_UNKNOWN"),
                        }
                    };
                    assert_eq!(w.get(&name, "v1").await.unwrap().digest, digest);
                    let layer = Digest::of(content.as_bytes());
                    assert_eq!(w.read(&name, &layer).await.unwrap(), content.as_bytes());
                    let what = reference(&digest.to_string());
                    w.service.delete_manifest(&ctx(), &w.registry, &repo(&name), &what).await.unwrap();
                }
            })
        })
        .collect();
    for pusher in pushers {
        pusher.await.unwrap();
    }
    collector.await.unwrap();
    w.collect(far).await;
    for n in 0..3 {
        assert!(!w.stored(&Digest::of(format!("shared {n}").as_bytes())).await, "all of it was deleted");
    }
}
