//! Who can reach what: repositories, registries and uploads are apart.

use portolan_types::Digest;

use super::fixture::*;

#[tokio::test]
async fn knowing_a_digest_gives_nothing() {
    let w = World::new().await;
    let layer = w.blob("private", b"secret").await;
    w.image("open", "v1", "public").await;
    assert_eq!(code(w.read("open", &layer).await), "BLOB_UNKNOWN");
    assert_eq!(code(w.read("nowhere", &layer).await), "BLOB_UNKNOWN");
    let there = w.service.blob_size(&ctx(), &w.other, &repo("private"), &layer).await;
    assert_eq!(code(there), "BLOB_UNKNOWN", "the same name in another registry is another repository");
    // Neither does naming it in a manifest.
    assert_eq!(code(w.put(start(), "open", "v2", &image_of("secret")).await), "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn mounts_need_the_right_to_pull_the_source() {
    let w = World::new().await;
    let layer = w.blob("source", b"layer").await;
    let (target, source) = (repo("target"), repo("source"));
    let mount = |c: crate::Ctx, registry: std::sync::Arc<crate::Registry>, from: Option<portolan_types::RepoName>| {
        let (w, target) = (&w, &target);
        async move { w.service.mount_blob(&c, &registry, target, layer, from.as_ref()).await }
    };
    let here = || w.registry.clone();
    // The token reaches too little, its holder may: another token is asked for.
    let only_target = limited(&w.registry, &[("target", &["pull", "push"])]);
    let refused = mount(only_target, here(), Some(source.clone())).await.unwrap_err();
    assert_eq!(refused.challenge.as_deref(), Some("repository:target:pull,push repository:source:pull"));
    let only_target = limited(&w.registry, &[("target", &["pull", "push"])]);
    assert!(!mount(only_target, here(), None).await.unwrap(), "what the token does not reach is not searched");
    assert_eq!(code(w.read("target", &layer).await), "BLOB_UNKNOWN");
    assert!(!mount(ctx(), w.other.clone(), None).await.unwrap(), "nor are other registries");
    assert!(!mount(ctx(), here(), Some(repo("nowhere"))).await.unwrap());
    assert!(!mount(ctx(), w.other.clone(), Some(source.clone())).await.unwrap(), "registries do not share");
    let both = limited(&w.registry, &[("target", &["pull", "push"]), ("source", &["pull"])]);
    assert!(mount(both, here(), Some(source)).await.unwrap());
    assert_eq!(w.read("target", &layer).await.unwrap(), b"layer");
    assert!(mount(ctx(), here(), None).await.unwrap(), "it is here now");
    let elsewhere = repo("elsewhere");
    let both = limited(&w.registry, &[("elsewhere", &["pull", "push"]), ("source", &["pull"])]);
    assert!(w.service.mount_blob(&both, &w.registry, &elsewhere, layer, None).await.unwrap(), "found in the source");
    assert_eq!(w.read("elsewhere", &layer).await.unwrap(), b"layer");
}

#[tokio::test]
async fn a_token_for_one_repository_opens_no_other() {
    let w = World::new().await;
    w.image("one", "v1", "a").await;
    w.image("two", "v1", "b").await;
    let c = limited(&w.registry, &[("one", &["pull"])]);
    let get = |name: &'static str| {
        let (w, c) = (&w, &c);
        async move { code(w.service.get_manifest(c, &w.registry, &repo(name), &reference("v1")).await) }
    };
    assert_eq!(get("one").await, "ok");
    assert_eq!(get("two").await, "UNAUTHORIZED");
    assert_eq!(get("nowhere").await, "UNAUTHORIZED", "what is there is not told either");
    assert_eq!(code(w.service.start_upload(&c, &w.registry, &repo("one")).await), "UNAUTHORIZED");
    let delete = w.service.delete_manifest(&c, &w.registry, &repo("one"), &reference("v1")).await;
    assert_eq!(code(delete), "UNAUTHORIZED");
    assert_eq!(code(w.service.delete_repository(&c, &w.registry, &repo("one")).await), "UNAUTHORIZED");
    let query = crate::ListQuery { limit: 10, ..Default::default() };
    assert_eq!(code(w.service.catalog(&c, &w.registry, &query).await), "UNAUTHORIZED");
}

#[tokio::test]
async fn an_upload_is_its_owners() {
    let w = World::new().await;
    let name = repo("app");
    let id = w.service.start_upload(&ctx(), &w.registry, &name).await.unwrap();
    let stranger = limited(&w.registry, &[("app", &["pull", "push"]), ("b", &["pull", "push"])]);
    let e = w.service.append_upload(&stranger, &w.registry, &name, id, None, body("x"), None).await;
    assert_eq!(code(e), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(code(w.service.cancel_upload(&stranger, &w.registry, &name, id).await), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(code(w.service.upload_length(&ctx(), &w.registry, &repo("b"), id).await), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(code(w.service.upload_length(&ctx(), &w.other, &name, id).await), "BLOB_UPLOAD_UNKNOWN");
    w.service.append_upload(&ctx(), &w.registry, &name, id, None, body("x"), None).await.unwrap();
    w.service.finish_upload(&ctx(), &w.registry, &name, id, Digest::of(b"x")).await.unwrap();
}
