//! Locks, and what deleting takes with it.

use portolan_types::Digest;

use super::fixture::*;
use crate::{Attributes, AttributesPatch, ListQuery};

const DISALLOWED: &str = "REGISTRY_DISALLOWED_OPERATION";

fn no_write() -> AttributesPatch {
    AttributesPatch { write: Some(false), ..Default::default() }
}

fn no_delete() -> AttributesPatch {
    AttributesPatch { delete: Some(false), ..Default::default() }
}

fn no_read() -> AttributesPatch {
    AttributesPatch { read: Some(false), ..Default::default() }
}

fn unlocked() -> AttributesPatch {
    AttributesPatch { delete: Some(true), write: Some(true), list: Some(true), read: Some(true) }
}

impl World {
    async fn lock_tag(&self, tag: &str, patch: AttributesPatch) {
        let tag = tag.parse().unwrap();
        self.service.update_tag(&ctx(), &self.registry, &repo("app"), &tag, patch).await.unwrap();
    }

    async fn lock_manifest(&self, digest: Digest, patch: AttributesPatch) {
        self.service.update_manifest(&ctx(), &self.registry, &repo("app"), digest, patch).await.unwrap();
    }

    async fn lock_repo(&self, patch: AttributesPatch) {
        self.service.update_repository(&ctx(), &self.registry, &repo("app"), patch).await.unwrap();
    }

    async fn delete(&self, what: &str) -> &'static str {
        code(self.service.delete_manifest(&ctx(), &self.registry, &repo("app"), &reference(what)).await)
    }

    async fn push(&self, tag: &str, content: &str) -> &'static str {
        self.blob("other", content.as_bytes()).await;
        let layer = Digest::of(content.as_bytes());
        match self.service.mount_blob(&ctx(), &self.registry, &repo("app"), layer, Some(&repo("other"))).await {
            Err(e) => e.code,
            Ok(_) => code(self.put(start(), "app", tag, &image_of(content)).await),
        }
    }
}

#[tokio::test]
async fn a_locked_tag_neither_moves_nor_goes() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.lock_tag("v1", no_write()).await;
    assert_eq!(w.push("v1", "two").await, DISALLOWED);
    assert_eq!(w.delete("v1").await, DISALLOWED);
    assert_eq!(w.delete(&one.to_string()).await, DISALLOWED, "its image cannot go either");
    assert_eq!(w.push("v2", "two").await, "ok", "other tags can");
    assert_eq!(code(w.service.delete_repository(&ctx(), &w.registry, &repo("app")).await), DISALLOWED);
    w.lock_tag("v1", unlocked()).await;
    w.lock_tag("v1", no_delete()).await;
    assert_eq!(w.push("v1", "two").await, "ok", "a tag that may not be deleted may move");
    assert_eq!(w.delete("v1").await, DISALLOWED);
    w.lock_tag("v1", unlocked()).await;
    assert_eq!(w.delete("v1").await, "ok");
}

#[tokio::test]
async fn a_locked_manifest_cannot_be_deleted() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    for patch in [no_delete(), no_write()] {
        w.lock_manifest(one, patch).await;
        assert_eq!(w.delete(&one.to_string()).await, DISALLOWED);
        assert_eq!(code(w.service.delete_repository(&ctx(), &w.registry, &repo("app")).await), DISALLOWED);
        w.lock_manifest(one, unlocked()).await;
    }
    assert_eq!(w.delete(&one.to_string()).await, "ok");
}

#[tokio::test]
async fn a_locked_repository() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.lock_repo(no_write()).await;
    assert_eq!(w.push("v2", "two").await, DISALLOWED);
    assert_eq!(code(w.service.start_upload(&ctx(), &w.registry, &repo("app")).await), DISALLOWED);
    assert_eq!(w.delete(&one.to_string()).await, DISALLOWED);
    assert_eq!(w.delete("v1").await, DISALLOWED);
    w.lock_repo(unlocked()).await;
    w.lock_repo(no_delete()).await;
    assert_eq!(code(w.service.delete_repository(&ctx(), &w.registry, &repo("app")).await), DISALLOWED);
    assert_eq!(w.delete(&one.to_string()).await, "ok", "its images can still go");
}

#[tokio::test]
async fn what_may_not_be_read_is_not_served_from_memory_either() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    let layer = Digest::of(b"one");
    let pull = || async { (code(w.get("app", "v1").await), code(w.get("app", &one.to_string()).await)) };
    assert_eq!(pull().await, ("ok", "ok"));
    w.read("app", &layer).await.unwrap();
    w.lock_tag("v1", no_read()).await;
    assert_eq!(pull().await, (DISALLOWED, "ok"));
    w.lock_tag("v1", unlocked()).await;
    w.lock_manifest(one, no_read()).await;
    assert_eq!(pull().await, (DISALLOWED, DISALLOWED));
    w.lock_manifest(one, unlocked()).await;
    w.lock_repo(no_read()).await;
    assert_eq!(pull().await, (DISALLOWED, DISALLOWED));
    assert_eq!(code(w.read("app", &layer).await), DISALLOWED);
    w.lock_repo(unlocked()).await;
    assert_eq!(pull().await, ("ok", "ok"));
}

#[tokio::test]
async fn deleting_a_manifest_takes_its_tags_and_referrers() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.put(start(), "app", "also", &image_of("one")).await.unwrap();
    let keep = w.image("app", "keep", "two").await;
    let signature = w.put(start(), "app", "sig", &about(&one, "application/signature")).await.unwrap();
    assert_eq!(signature.subject, Some(one));
    let counter = w.put(start(), "app", "countersig", &about(&signature.digest, "application/counter")).await.unwrap();
    assert_eq!(w.get("app", "also").await.unwrap().digest, one);
    assert_eq!(w.delete(&one.to_string()).await, "ok");
    for gone in ["v1", "also", "sig", "countersig", &one.to_string(), &counter.digest.to_string()] {
        assert_eq!(code(w.get("app", gone).await), "MANIFEST_UNKNOWN", "{gone}");
    }
    assert_eq!(w.get("app", "keep").await.unwrap().digest, keep);
    assert_eq!(w.delete(&one.to_string()).await, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn untagging_leaves_the_manifest() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    let tag = "v1".parse().unwrap();
    w.service.untag(&ctx(), &w.registry, &repo("app"), &tag).await.unwrap();
    assert_eq!(code(w.get("app", "v1").await), "MANIFEST_UNKNOWN");
    assert_eq!(w.get("app", &one.to_string()).await.unwrap().digest, one);
    assert_eq!(code(w.service.untag(&ctx(), &w.registry, &repo("app"), &tag).await), "TAG_UNKNOWN");
}

#[tokio::test]
async fn a_repository_goes_with_its_last_manifest_and_comes_back_new() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.lock_repo(AttributesPatch { delete: Some(false), list: Some(false), ..Default::default() }).await;
    assert_eq!(w.delete(&one.to_string()).await, "ok");
    assert_eq!(code(w.get("app", "v1").await), "NAME_UNKNOWN");
    let query = ListQuery { limit: 10, ..Default::default() };
    assert!(w.service.catalog(&ctx(), &w.registry, &query).await.unwrap().items.is_empty());
    let later = start().plus(HOUR);
    w.image_at(later, "app", "v1", "one").await;
    let detail = w.service.repository(&ctx(), &w.registry, &repo("app")).await.unwrap();
    assert_eq!((detail.created, detail.attributes), (later, Attributes::ALL));
    assert_eq!((detail.manifests, detail.tags), (1, 1));
}

#[tokio::test]
async fn deleting_a_repository_tells_what_went() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.put(start(), "app", "v0", &image_of("one")).await.unwrap();
    let two = w.image("app", "v2", "two").await;
    let gone = w.service.delete_repository(&ctx(), &w.registry, &repo("app")).await.unwrap();
    let mut expected = vec![one, two];
    expected.sort();
    assert_eq!(gone.manifests, expected);
    assert_eq!(gone.tags.iter().map(|t| t.as_str()).collect::<Vec<_>>(), ["v0", "v1", "v2"]);
    assert_eq!(code(w.service.delete_repository(&ctx(), &w.registry, &repo("app")).await), "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_blob_that_a_manifest_needs_stays() {
    let w = World::new().await;
    w.image("app", "v1", "one").await;
    let needed = Digest::of(b"one");
    let delete = |digest| {
        let w = &w;
        async move { code(w.service.delete_blob(&ctx(), &w.registry, &repo("app"), digest).await) }
    };
    assert_eq!(delete(needed).await, "UNSUPPORTED");
    let spare = w.blob("app", b"spare").await;
    w.read("app", &spare).await.unwrap();
    assert_eq!(delete(spare).await, "ok");
    assert_eq!(code(w.read("app", &spare).await), "BLOB_UNKNOWN");
    assert_eq!(delete(spare).await, "BLOB_UNKNOWN");
}
