use std::io;
use std::sync::Arc;

use bytes::Bytes;
use portolan_types::{Digest, UploadId, limits, media_type};
use serde_json::json;

use super::fixture::*;
use crate::Kind;

#[tokio::test]
async fn an_image_comes_back_byte_for_byte() {
    let w = World::new().await;
    let name = repo("team/app");
    let id = w.service.start_upload(&ctx(), &w.registry, &name).await.unwrap();
    for (offset, part) in [(Some(0), "lay"), (None, "er"), (Some(5), "!")] {
        w.service.append_upload(&ctx(), &w.registry, &name, id, offset, body(part), None).await.unwrap();
    }
    assert_eq!(w.service.upload_length(&ctx(), &w.registry, &name, id).await.unwrap(), 6);
    let layer = Digest::of(b"layer!");
    assert_eq!(w.service.finish_upload(&ctx(), &w.registry, &name, id, layer).await.unwrap(), 6);
    w.blob("team/app", &config_bytes()).await;

    // Odd spacing and an unknown member have to survive.
    let mut bytes = serde_json::to_vec_pretty(&image_of("layer!")).unwrap();
    bytes.splice(1..1, b"\n\n  \"x-unknown\": [1,  2],".iter().copied());
    let bytes = Bytes::from(bytes);
    let put = w.service.put_manifest(&ctx(), &w.registry, &name, &reference("v1"), bytes.clone(), None).await.unwrap();
    assert!(put.created && put.digest == Digest::of(&bytes) && put.subject.is_none());

    let by_tag = w.get("team/app", "v1").await.unwrap();
    let by_digest = w.get("team/app", &put.digest.to_string()).await.unwrap();
    assert_eq!(by_tag.bytes, bytes);
    assert_eq!(by_tag.media_type, media_type::OCI_MANIFEST);
    assert_eq!(by_tag.etag, format!("\"{}\"", put.digest));
    assert!(Arc::ptr_eq(&by_tag, &by_digest), "the second answer comes from memory");
    assert_eq!(w.read("team/app", &layer).await.unwrap(), b"layer!");

    let detail = w.service.manifest(&ctx(), &w.registry, &name, put.digest).await.unwrap();
    assert_eq!((detail.info.architecture.as_deref(), detail.info.os.as_deref()), (Some("arm64"), Some("linux")));
    assert_eq!(detail.info.config_media_type.as_deref(), Some(media_type::OCI_CONFIG));
    assert_eq!(detail.info.image_size, 6 + config_bytes().len() as u64);
    assert!(!w.put(start(), "team/app", "v2", &image_of("layer!")).await.unwrap().digest.hex().is_empty());
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let w = World::new().await;
    let digest = w.image("app", "v1", "one").await;
    let id = w.service.start_upload(&ctx(), &w.registry, &repo("app")).await.unwrap();
    w.service.append_upload(&ctx(), &w.registry, &repo("app"), id, None, body("first "), None).await.unwrap();
    let w = w.reopened().await;
    assert_eq!(w.get("app", "v1").await.unwrap().digest, digest);
    assert_eq!(w.read("app", &Digest::of(b"one")).await.unwrap(), b"one");
    w.service.append_upload(&ctx(), &w.registry, &repo("app"), id, Some(6), body("half"), None).await.unwrap();
    let whole = Digest::of(b"first half");
    w.service.finish_upload(&ctx(), &w.registry, &repo("app"), id, whole).await.unwrap();
    assert_eq!(w.read("app", &whole).await.unwrap(), b"first half");
}

#[tokio::test]
async fn a_moved_tag_is_seen_at_once() {
    let w = World::new().await;
    let one = w.image("app", "latest", "one").await;
    assert_eq!(w.get("app", "latest").await.unwrap().digest, one);
    let two = w.image("app", "latest", "two").await;
    assert_eq!(w.get("app", "latest").await.unwrap().digest, two);
    assert_eq!(w.get("app", &one.to_string()).await.unwrap().digest, one, "the old one stays, untagged");
}

#[tokio::test]
async fn readers_never_see_an_older_tag_than_was_acknowledged() {
    let w = Arc::new(World::new().await);
    let mut versions = Vec::new();
    for n in 0..8 {
        versions.push(w.image("app", &format!("v{n}"), &format!("content {n}")).await);
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (w, stop) = (w.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = w.get("app", "moving").await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..60 {
        let n = round % versions.len();
        w.put(start(), "app", "moving", &image_of(&format!("content {n}"))).await.unwrap();
        assert_eq!(w.get("app", "moving").await.unwrap().digest, versions[n], "round {round}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn a_manifest_without_its_blobs_is_refused_and_leaves_nothing() {
    let w = World::new().await;
    w.blob("app", &config_bytes()).await;
    let e = w.put(start(), "app", "v1", &image_of("missing")).await.unwrap_err();
    assert_eq!((e.kind, e.code), (Kind::NotFound, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(e.detail.unwrap()["missing"], json!([Digest::of(b"missing")]));
    assert_eq!(code(w.get("app", "v1").await), "NAME_UNKNOWN");
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [descriptor(media_type::OCI_MANIFEST, b"no such child")]});
    assert_eq!(code(w.put(start(), "app", "v1", &index).await), "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn foreign_layers_need_not_be_here() {
    let w = World::new().await;
    w.blob("app", &config_bytes()).await;
    let mut image = image_of("elsewhere");
    image["layers"][0]["mediaType"] = json!(media_type::DOCKER_FOREIGN_LAYER);
    assert_eq!(code(w.put(start(), "app", "v1", &image).await), "ok");
}

#[tokio::test]
async fn bad_manifests() {
    let w = World::new().await;
    let digest = w.image("app", "v1", "one").await;
    let put = |to: &'static str, bytes: &[u8], kind: Option<&'static str>| {
        let bytes = Bytes::copy_from_slice(bytes);
        let w = &w;
        async move { code(w.service.put_manifest(&ctx(), &w.registry, &repo("app"), &reference(to), bytes, kind).await) }
    };
    assert_eq!(put("v1", b"{", None).await, "MANIFEST_INVALID");
    assert_eq!(put("v1", b"", None).await, "MANIFEST_INVALID");
    assert_eq!(put("v1", b"\xff\xfe", Some(media_type::OCI_MANIFEST)).await, "MANIFEST_INVALID");
    assert_eq!(put("v1", &vec![b' '; limits::MANIFEST_BYTES_MAX + 1], None).await, "SIZE_INVALID");
    assert_eq!(put("v1", b"{}", Some("a/b\r\nset-cookie: x")).await, "MANIFEST_INVALID");
    let deep = "[".repeat(100_000);
    assert_eq!(put("v1", deep.as_bytes(), Some("application/x+json")).await, "MANIFEST_INVALID");
    let wrong = Digest::of(b"something else").to_string();
    let bytes = Bytes::from(serde_json::to_vec(&image_of("one")).unwrap());
    let e = w.service.put_manifest(&ctx(), &w.registry, &repo("app"), &reference(&wrong), bytes, None).await;
    assert_eq!(code(e), "DIGEST_INVALID");
    assert_eq!(w.get("app", "v1").await.unwrap().digest, digest, "the tag did not move");
    assert_eq!(put("own", br#"{"any": "thing"}"#, Some("application/vnd.example+json")).await, "ok");
    assert_eq!(w.get("app", "own").await.unwrap().bytes, br#"{"any": "thing"}"#.as_slice());
}

#[tokio::test]
async fn a_manifest_under_its_sha512() {
    let w = World::new().await;
    w.image("app", "v1", "one").await;
    let bytes = Bytes::from(serde_json::to_vec(&image_of("one")).unwrap());
    let long = Digest::of_with(portolan_types::Algorithm::Sha512, &bytes).to_string();
    w.service.put_manifest(&ctx(), &w.registry, &repo("app"), &reference(&long), bytes, None).await.unwrap();
    assert_eq!(w.get("app", &long).await.unwrap().digest.to_string(), long);
}

#[tokio::test]
async fn an_index_and_its_children() {
    let w = World::new().await;
    let child = w.image("app", "amd", "one").await;
    let size = w.get("app", "amd").await.unwrap().bytes.len();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST,
        "manifests": [{"mediaType": media_type::OCI_MANIFEST, "digest": child, "size": size}]});
    let put = w.put(start(), "app", "all", &index).await.unwrap();
    let detail = w.service.manifest(&ctx(), &w.registry, &repo("app"), put.digest).await.unwrap();
    assert_eq!(detail.references.len(), 1);
    assert_eq!(detail.references[0].architecture.as_deref(), Some("arm64"));
    assert_eq!(detail.info.image_size, detail.references[0].image_size);
}

#[tokio::test]
async fn content_with_another_digest_is_refused_and_gone() {
    let w = World::new().await;
    let promised = Digest::of(b"promised");
    let e = w.service.put_blob(&ctx(), &w.registry, &repo("app"), promised, body("came")).await;
    assert_eq!(code(e), "DIGEST_INVALID");
    let id = w.service.start_upload(&ctx(), &w.registry, &repo("app")).await.unwrap();
    w.service.append_upload(&ctx(), &w.registry, &repo("app"), id, None, body("came"), None).await.unwrap();
    assert_eq!(code(w.service.finish_upload(&ctx(), &w.registry, &repo("app"), id, promised).await), "DIGEST_INVALID");
    assert_eq!(code(w.service.upload_length(&ctx(), &w.registry, &repo("app"), id).await), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(code(w.read("app", &promised).await), "BLOB_UNKNOWN");
    assert!(!w.stored(&promised).await && !w.stored(&Digest::of(b"came")).await);
}

#[tokio::test]
async fn an_upload_that_broke_off_is_resumed() {
    let w = World::new().await;
    let name = repo("app");
    let id = w.service.start_upload(&ctx(), &w.registry, &name).await.unwrap();
    let broken = futures_util::stream::iter([Ok(Bytes::from("half ")), Err(io::Error::other("connection reset"))]);
    let e = w.service.append_upload(&ctx(), &w.registry, &name, id, Some(0), Box::pin(broken), None).await.unwrap_err();
    assert_eq!((e.kind, e.code), (Kind::Invalid, "BLOB_UPLOAD_INVALID"));
    assert_eq!(w.service.upload_length(&ctx(), &w.registry, &name, id).await.unwrap(), 5);
    let again =
        w.service.append_upload(&ctx(), &w.registry, &name, id, Some(0), body("half "), None).await.unwrap_err();
    assert_eq!(again.kind, Kind::RangeNotSatisfiable);
    w.service.append_upload(&ctx(), &w.registry, &name, id, Some(5), body("whole"), None).await.unwrap();
    w.service.finish_upload(&ctx(), &w.registry, &name, id, Digest::of(b"half whole")).await.unwrap();
}

#[tokio::test]
async fn a_chunk_may_not_be_longer_than_it_says() {
    let w = World::new().await;
    let id = w.service.start_upload(&ctx(), &w.registry, &repo("app")).await.unwrap();
    let e = w.service.append_upload(&ctx(), &w.registry, &repo("app"), id, Some(0), body("12345"), Some(3)).await;
    assert_eq!(code(e), "SIZE_INVALID");
}

#[tokio::test]
async fn cancelled_and_unknown_uploads() {
    let w = World::new().await;
    let id = w.service.start_upload(&ctx(), &w.registry, &repo("app")).await.unwrap();
    w.service.cancel_upload(&ctx(), &w.registry, &repo("app"), id).await.unwrap();
    for id in [id, UploadId::random()] {
        assert_eq!(code(w.service.upload_length(&ctx(), &w.registry, &repo("app"), id).await), "BLOB_UPLOAD_UNKNOWN");
        let e = w.service.append_upload(&ctx(), &w.registry, &repo("app"), id, None, body("x"), None).await;
        assert_eq!(code(e), "BLOB_UPLOAD_UNKNOWN");
        let e = w.service.finish_upload(&ctx(), &w.registry, &repo("app"), id, Digest::of(b"x")).await;
        assert_eq!(code(e), "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn an_empty_blob() {
    let w = World::new().await;
    let digest = w.blob("app", b"").await;
    assert_eq!(w.read("app", &digest).await.unwrap(), b"");
}

#[tokio::test]
async fn a_build_links_what_it_wrote() {
    let w = World::new().await;
    let blobs = w.service.blobs.clone();
    let bytes = b"built layer".to_vec();
    let digest = Digest::of(&bytes);
    tokio::task::spawn_blocking(move || {
        let mut writer = blobs.writer().unwrap();
        io::Write::write_all(&mut writer, &bytes).unwrap();
        writer.commit(&digest).unwrap();
    })
    .await
    .unwrap();
    assert_eq!(code(w.read("app", &digest).await), "BLOB_UNKNOWN", "in the store is not enough");
    let layer = portolan_types::oci::Descriptor::new(media_type::DOCKER_LAYER_GZIP, digest, 11);
    let absent = portolan_types::oci::Descriptor::new(media_type::DOCKER_LAYER_GZIP, Digest::of(b"absent"), 6);
    let link = |list: Vec<portolan_types::oci::Descriptor>| {
        let w = &w;
        async move { code(w.service.link_build_blobs(&ctx(), &w.registry, &repo("app"), &list).await) }
    };
    assert_ne!(link(vec![layer.clone(), absent]).await, "ok");
    assert_eq!(code(w.read("app", &digest).await), "BLOB_UNKNOWN");
    assert_eq!(link(vec![layer]).await, "ok");
    assert_eq!(w.read("app", &digest).await.unwrap(), b"built layer");
}
