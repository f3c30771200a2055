//! What a check finds, what a repair makes of it, and that what it asks for then heals it.

use std::path::PathBuf;

use portolan_store::meta::Tx;
use portolan_types::Digest;

use super::fixture::*;
use crate::Error;
use crate::check::{self, Options, Report};
use crate::gc::{LINK_GRACE, UNLINK_GRACE};

impl World {
    /// Check the store as it is.
    pub(super) async fn check(&self, repair: bool) -> Report {
        let options = Options { quick: false, repair, grace: LINK_GRACE, now: start() };
        check::run(&self.service.meta, &self.service.blobs, options, &|_| ()).await.unwrap()
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.path().join("blobs/blobs/sha256").join(&hex[..2]).join(hex)
    }

    /// Damage the database behind the rules' back.
    async fn damage(&self, sql: &'static str) {
        let changed = self.service.meta.write(move |tx: &mut dyn Tx| tx.execute(sql, &[]).map_err(Error::from));
        assert!(changed.await.unwrap() > 0, "{sql}");
    }
}

fn codes(report: &Report) -> Vec<&'static str> {
    report.problems.iter().map(|p| p.code).collect()
}

#[tokio::test]
async fn a_store_in_use_is_clean() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.image("app", "v1", "two").await;
    w.image("lib/base", "v1", "one").await;
    w.put(start(), "app", &Digest::of(b"").to_string(), &about(&one, "a/b")).await.unwrap_err();
    w.put(start(), "app", "note", &about(&one, "a/b")).await.unwrap();
    w.blob("app", b"waiting for its manifest").await;
    let deleted = w.image("app", "gone", "three").await;
    let what = reference(&deleted.to_string());
    w.service.delete_manifest(&ctx(), &w.registry, &repo("app"), &what).await.unwrap();
    w.service.start_upload(&ctx(), &w.registry, &repo("app")).await.unwrap();
    for now in [start(), start().plus(UNLINK_GRACE)] {
        w.service.collect_garbage(now).await.unwrap();
        let report = w.check(false).await;
        assert_eq!(report.exit_code(), 0, "{report:?}");
        assert_eq!(report.garbage, check::Garbage::default());
        let c = report.checked;
        assert_eq!((c.repositories, c.manifests, c.tags, c.uploads), (2, 4, 3, 1));
        assert!(c.events > 0 && c.bytes_hashed > 0 && c.blobs > 2);
    }
}

#[tokio::test]
async fn lost_content_is_told_by_image_and_a_push_heals_it() {
    let w = World::new().await;
    w.image("app", "v1", "one").await;
    w.image("app", "v2", "two").await;
    let layer = Digest::of(b"one");
    std::fs::remove_file(w.file(&layer)).unwrap();

    let found = w.check(false).await;
    assert_eq!((found.exit_code(), codes(&found)), (2, vec!["content-missing", "image-damaged"]));
    let image = &found.damaged_images[0];
    assert_eq!((image.registry.as_str(), image.repository.as_str()), ("first", "app"));
    assert_eq!((&image.tags[..], &image.missing[..]), (&["v1".to_owned()][..], &[layer.to_string()][..]));
    assert!(w.service.blob_exists(&ctx(), &w.registry, &repo("app"), &layer).await.is_ok(), "nothing was changed");

    let repaired = w.check(true).await;
    assert_eq!((repaired.exit_code(), repaired.repaired_total), (2, 1), "the image is still damaged");
    let w = w.reopened().await;
    let asked = w.service.blob_exists(&ctx(), &w.registry, &repo("app"), &layer).await;
    assert_eq!(code(asked), "BLOB_UNKNOWN", "a client sends it again");
    assert!(w.get("app", "v1").await.is_ok(), "the manifest is never removed");
    assert_eq!(codes(&w.check(false).await), ["image-damaged"]);
    w.image("app", "v1", "one").await;
    assert_eq!(w.check(false).await.exit_code(), 0);
    assert_eq!(w.read("app", &layer).await.unwrap(), b"one");
}

#[tokio::test]
async fn content_with_another_digest_is_put_aside() {
    let w = World::new().await;
    w.image("app", "v1", "one").await;
    let layer = Digest::of(b"one");
    std::fs::write(w.file(&layer), b"oNe").unwrap();
    let options = Options { quick: true, repair: false, grace: LINK_GRACE, now: start() };
    let quick = check::run(&w.service.meta, &w.service.blobs, options, &|_| ()).await.unwrap();
    assert_eq!((quick.exit_code(), quick.checked.bytes_hashed), (0, 0), "a quick check trusts a size");
    assert_eq!(codes(&w.check(false).await), ["content-damaged", "image-damaged"]);
    w.check(true).await;
    assert!(!w.stored(&layer).await);
    let aside = w.service.blobs.object_len(&format!("damaged/sha256-{}", layer.hex())).await.unwrap();
    assert_eq!(aside, Some(3));
    let w = w.reopened().await;
    w.image("app", "v1", "one").await;
    assert_eq!(w.check(false).await.exit_code(), 0);
}

#[tokio::test]
async fn a_damaged_manifest_is_healed_by_pushing_it_again() {
    let w = World::new().await;
    let digest = w.image("app", "v1", "one").await;
    w.damage("UPDATE manifest SET bytes = substr(bytes, 1, 2)").await;
    assert_eq!(codes(&w.check(true).await), ["image-damaged"]);
    let w = w.reopened().await;
    assert_eq!(w.image("app", "v1", "one").await, digest);
    assert_eq!(w.check(false).await.exit_code(), 0);
    let bytes = w.get("app", "v1").await.unwrap();
    assert_eq!(Digest::of(&bytes.bytes), digest);
}

#[tokio::test]
async fn rows_that_disagree_are_written_anew() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.put(start(), "app", "note", &about(&one, "a/b")).await.unwrap();
    w.blob("app", b"without a manifest").await;
    for (sql, code) in [
        (
            "DELETE FROM manifest_ref WHERE child = (SELECT child FROM manifest_ref ORDER BY child LIMIT 1)",
            "references-wrong",
        ),
        ("UPDATE manifest SET subject = NULL WHERE subject IS NOT NULL", "subject-wrong"),
        ("DELETE FROM gc_queue", "link-forgotten"),
        ("DELETE FROM repo_blob WHERE digest IN (SELECT child FROM manifest_ref)", "link-missing"),
        ("UPDATE blob SET size = size + 1", "blob-size"),
        ("UPDATE sequence SET value = 0 WHERE name = 'event'", "sequence-behind"),
        ("UPDATE storage_use SET bytes = bytes + 1", "usage-wrong"),
        ("UPDATE gc_queue SET due = 9000000000000000000", "review-too-late"),
        ("INSERT INTO gc_queue (kind, repo, digest, due) SELECT 7, 1, digest, 0 FROM blob", "review-unknown"),
    ] {
        w.damage(sql).await;
        let found = w.check(false).await;
        assert!(found.exit_code() == 2 && codes(&found).contains(&code), "{sql}: {found:?}");
        assert_eq!(w.check(true).await.exit_code(), 1, "{sql}");
        let after = w.check(false).await;
        assert_eq!(after.exit_code(), 0, "{sql}: {after:?}");
    }
    assert_eq!(w.read("app", &Digest::of(b"one")).await.unwrap(), b"one");
    w.image("app", "v2", "two").await;
}

#[tokio::test]
async fn orphans_are_no_problem_and_a_repair_gives_them_to_the_collector() {
    let w = World::new().await;
    w.image("app", "v1", "one").await;
    let (orphan, adopted) = (Digest::of(b"nobody's"), Digest::of(b"adopted"));
    for (digest, bytes) in [(orphan, &b"nobody's"[..]), (adopted, b"adopted")] {
        w.service.blobs.put(&digest, body(bytes), 100).await.unwrap();
    }
    let found = w.check(false).await;
    assert_eq!((found.exit_code(), found.garbage.orphans, found.garbage.orphan_bytes), (0, 2, 15));
    assert_eq!(w.check(true).await.garbage.orphans_queued, 2);
    assert_eq!(w.check(false).await.garbage.orphans, 0, "the collector knows of them");
    w.blob("app", b"adopted").await;
    w.image("app", "v2", "adopted").await;
    assert_eq!(w.service.collect_garbage(start()).await.unwrap().blobs, 0, "not at once");
    let preview = check::preview(&w.service.meta, start(), LINK_GRACE, 100).await.unwrap();
    assert_eq!(w.service.collect_garbage(start().plus(LINK_GRACE)).await.unwrap().blobs, preview.blobs);
    assert!(!w.stored(&orphan).await && w.stored(&adopted).await);
    assert_eq!(w.check(false).await.exit_code(), 0);
}

#[tokio::test]
async fn a_preview_says_what_the_collector_then_does() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.image("else", "v1", "one").await;
    w.blob("app", b"left over").await;
    w.blob("else", b"left over").await;
    let what = reference(&one.to_string());
    w.service.delete_manifest(&ctx(), &w.registry, &repo("app"), &what).await.unwrap();
    let preview = check::preview(&w.service.meta, start(), LINK_GRACE, 100).await.unwrap();
    assert_eq!((preview.links, preview.blobs, preview.bytes), (4, 1, 9), "{preview:?}");
    assert_eq!(preview, check::preview(&w.service.meta, start(), LINK_GRACE, 100).await.unwrap(), "nothing changed");
    let done = w.service.collect_garbage(start().plus(LINK_GRACE)).await.unwrap();
    assert_eq!((done.links, done.blobs), (4, 1));
}
