//! Lists: every order, every page, and what is hidden.

use std::time::Duration;

use portolan_types::{Digest, Timestamp};

use super::fixture::*;
use crate::{AttributesPatch, ListQuery, Order, Page};

fn hidden() -> AttributesPatch {
    AttributesPatch { list: Some(false), ..Default::default() }
}

/// Walk a list to its end, `limit` items at a time.
async fn walk<T, F>(order: Order, limit: usize, read: impl Fn(ListQuery) -> F) -> Vec<T>
where
    F: Future<Output = crate::Result<Page<T>>>,
{
    let (mut all, mut last) = (Vec::new(), None);
    loop {
        let page = read(ListQuery { order, last, limit }).await.unwrap();
        assert!(page.items.len() <= limit);
        all.extend(page.items);
        match page.next {
            None => return all,
            next => last = next,
        }
    }
}

fn minute(n: u64) -> Timestamp {
    start().plus(Duration::from_secs(60 * n))
}

#[tokio::test]
async fn tags_in_every_order_and_page_size() {
    let w = World::new().await;
    // Two share a time, so that the name has to decide.
    for (tag, at) in [("c", 3), ("a", 1), ("d", 1), ("b", 2), ("e", 5)] {
        w.image_at(minute(at), "app", tag, "same").await;
    }
    let read = |query: ListQuery| {
        let w = &w;
        async move { w.service.tags(&ctx(), &w.registry, &repo("app"), None, &query).await }
    };
    for limit in [1, 2, 3, 4, 5, 6, 1000] {
        for (order, expect) in [(Order::Name, "abcde"), (Order::TimeAsc, "adbce"), (Order::TimeDesc, "ecbad")] {
            let names: String = walk(order, limit, read).await.iter().map(|t| t.name.to_string()).collect();
            assert_eq!(names, expect, "{order:?} by {limit}");
        }
    }
    let named = ListQuery { order: Order::TimeDesc, last: Some("c".into()), limit: 9 };
    let rest: String = read(named).await.unwrap().items.iter().map(|t| t.name.to_string()).collect();
    assert_eq!(rest, "bad", "a plain tag name is a place in orders by time too");
    let none = read(ListQuery { limit: 0, ..Default::default() }).await.unwrap();
    assert!(none.items.is_empty() && none.next.is_none());
}

#[tokio::test]
async fn manifests_with_their_tags() {
    let w = World::new().await;
    let mut digests = Vec::new();
    for n in 0..5 {
        digests.push(w.image_at(minute(n), "app", &format!("v{n}"), &format!("content {n}")).await);
    }
    let untagged = w.image_at(minute(9), "app", "gone", "untagged").await;
    w.service.untag(&ctx(), &w.registry, &repo("app"), &"gone".parse().unwrap()).await.unwrap();
    let read = |query: ListQuery| {
        let w = &w;
        async move { w.service.manifests(&ctx(), &w.registry, &repo("app"), &query).await }
    };
    let newest_first = walk(Order::TimeDesc, 2, read).await;
    let found: Vec<Digest> = newest_first.iter().map(|m| m.info.digest).collect();
    assert_eq!(found, [untagged].into_iter().chain(digests.iter().rev().copied()).collect::<Vec<_>>());
    assert!(newest_first[0].tags.is_empty() && newest_first[1].tags[0].as_str() == "v4");
    let mut by_digest = found.clone();
    by_digest.sort();
    assert_eq!(walk(Order::Name, 3, read).await.iter().map(|m| m.info.digest).collect::<Vec<_>>(), by_digest);
}

#[tokio::test]
async fn tags_of_one_manifest() {
    let w = World::new().await;
    let one = w.image("app", "a", "one").await;
    w.put(start(), "app", "b", &image_of("one")).await.unwrap();
    w.image("app", "c", "two").await;
    let query = ListQuery { limit: 10, ..Default::default() };
    let found = w.service.tags(&ctx(), &w.registry, &repo("app"), Some(one), &query).await.unwrap();
    assert_eq!(found.items.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn the_catalog_shows_repositories_with_content() {
    let w = World::new().await;
    for name in ["b", "a/x", "c"] {
        w.image(name, "v1", name).await;
    }
    w.blob("only-a-blob", b"x").await;
    w.service.start_upload(&ctx(), &w.registry, &repo("only-an-upload")).await.unwrap();
    let read = |query: ListQuery| {
        let w = &w;
        async move { w.service.catalog(&ctx(), &w.registry, &query).await }
    };
    let names = |list: Vec<portolan_types::RepoName>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(walk(Order::Name, 1, read).await), ["a/x", "b", "c"]);
    w.service.update_repository(&ctx(), &w.registry, &repo("b"), hidden()).await.unwrap();
    assert_eq!(names(walk(Order::Name, 10, read).await), ["a/x", "c"]);
    let query = ListQuery { limit: 10, ..Default::default() };
    assert!(w.service.catalog(&ctx(), &w.other, &query).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn hidden_tags_and_manifests_are_still_there() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    w.image("app", "v2", "two").await;
    w.service.update_tag(&ctx(), &w.registry, &repo("app"), &"v1".parse().unwrap(), hidden()).await.unwrap();
    w.service.update_manifest(&ctx(), &w.registry, &repo("app"), one, hidden()).await.unwrap();
    let query = ListQuery { limit: 10, ..Default::default() };
    let tags = w.service.tag_names(&ctx(), &w.registry, &repo("app"), &query).await.unwrap();
    assert_eq!(tags.items.iter().map(|t| t.as_str()).collect::<Vec<_>>(), ["v2"]);
    let manifests = w.service.manifests(&ctx(), &w.registry, &repo("app"), &query).await.unwrap();
    assert_eq!(manifests.items.len(), 1);
    assert_eq!(w.get("app", "v1").await.unwrap().digest, one);
}

#[tokio::test]
async fn referrers_by_type() {
    let w = World::new().await;
    let one = w.image("app", "v1", "one").await;
    let sbom = w.put(start(), "app", "x1", &about(&one, "application/sbom")).await.unwrap().digest;
    let signature = w.put(start(), "app", "x2", &about(&one, "application/signature")).await.unwrap().digest;
    let query = ListQuery { limit: 10, ..Default::default() };
    let read = |kind: Option<&str>, subject: Digest| {
        let (w, kind, query) = (&w, kind.map(str::to_owned), &query);
        async move { w.service.referrers(&ctx(), &w.registry, &repo("app"), subject, kind, query).await.unwrap().items }
    };
    let mut both: Vec<Digest> = read(None, one).await.iter().map(|m| m.digest).collect();
    both.sort();
    let mut expect = vec![sbom, signature];
    expect.sort();
    assert_eq!(both, expect);
    let found = read(Some("application/sbom"), one).await;
    assert_eq!((found.len(), found[0].digest), (1, sbom));
    assert_eq!(found[0].annotations.as_deref(), Some(r#"{"note":"application/sbom"}"#));
    assert!(read(None, Digest::of(b"nothing")).await.is_empty());
    let one_each = walk(Order::Name, 1, |query: ListQuery| {
        let w = &w;
        async move { w.service.referrers(&ctx(), &w.registry, &repo("app"), one, None, &query).await }
    });
    assert_eq!(one_each.await.len(), 2);
}
