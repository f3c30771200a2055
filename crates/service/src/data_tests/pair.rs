//! Two servers on one database and one blob store: what each says must be what one would say.
//!
//! On SQLite two services share one handle of the database and are told that they are not
//! alone; on PostgreSQL each has its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_auth::{Authority, MasterKey};
use portolan_store::blob::{Blobs, FsBlobs};
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::{self, Meta, PostgresConfig, event, peer, tag};
use portolan_testkit::postgres;
use portolan_types::{Digest, Timestamp};

use super::fixture::*;
use super::gated::{Gate, Gated};
use crate::gc::{CLAIM, Collected, LINK_GRACE, TOUCH_GRACE, UNLINK_GRACE};
use crate::push::{Push, Source};
use crate::{AttributesPatch, Error, Service, ServiceConfig};

#[derive(Clone, Copy, Debug)]
pub(super) enum Engine {
    Sqlite,
    Postgres,
}

pub(super) const BOTH: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];

pub(super) struct Pair {
    pub(super) a: Arc<World>,
    pub(super) b: Arc<World>,
}

impl Pair {
    pub(super) async fn new(engine: Engine) -> Pair {
        Pair::with_blobs(engine, |fs| Arc::new(fs)).await
    }

    async fn with_blobs(engine: Engine, wrap: impl FnOnce(FsBlobs) -> Arc<dyn Blobs>) -> Pair {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let blobs = wrap(FsBlobs::open(&dir.path().join("blobs")).unwrap());
        let (one, two) = match engine {
            Engine::Sqlite => {
                let meta = Meta::open_sqlite(&dir.path().join("meta.db")).unwrap();
                (meta.clone(), meta)
            }
            Engine::Postgres => {
                let config = PostgresConfig::new(postgres::database());
                let open = || {
                    let config = config.clone();
                    async { tokio::task::spawn_blocking(move || Meta::open_postgres(&config)).await.unwrap().unwrap() }
                };
                (open().await, open().await)
            }
        };
        let serve = |meta| {
            let authority = Arc::new(Authority::new(MasterKey::new(&[7; 32])));
            Service::open_as(true, meta, blobs.clone(), authority, ServiceConfig::default())
        };
        let (one, two) = (serve(one).await.unwrap(), serve(two).await.unwrap());
        seed(&one).await;
        let world = |service| Arc::new(World::around(Arc::new(service), dir.clone()));
        Pair { a: world(one), b: world(two) }
    }
}

impl World {
    async fn gc(&self, now: Timestamp) -> Collected {
        self.service.collect_garbage(now).await.unwrap()
    }

    /// What others do to a server that they take for dead.
    async fn declare_dead(&self) {
        let id = self.service.content.peer.as_ref().unwrap().id.clone();
        self.service.meta.write(move |tx| peer::leave(tx, &id, start()).map_err(Error::from)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_moved_at_one_is_moved_at_the_other_at_once() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        for n in 0..100 {
            for (here, there) in [(&a, &b), (&b, &a)] {
                let digest = here.image("app", "v1", &format!("content {}", n % 7)).await;
                assert_eq!(there.get("app", "v1").await.unwrap().digest, digest, "{engine:?}, round {n}");
                assert_eq!(here.get("app", "v1").await.unwrap().digest, digest, "{engine:?}, round {n}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_deleted_or_locked_at_one_is_so_at_the_other_at_once() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let digest = a.image("app", "v1", "one").await;
        let layer = Digest::of(b"one");
        let (app, by_digest) = (repo("app"), digest.to_string());
        assert!(b.get("app", "v1").await.is_ok() && b.get("app", &by_digest).await.is_ok());
        assert_eq!(b.read("app", &layer).await.unwrap(), b"one");

        let patch = |read| AttributesPatch { read: Some(read), ..AttributesPatch::default() };
        let tag = "v1".parse().unwrap();
        a.service.update_tag(&ctx(), &a.registry, &app, &tag, patch(false)).await.unwrap();
        assert_eq!(code(b.get("app", "v1").await), "REGISTRY_DISALLOWED_OPERATION");
        assert!(b.get("app", &by_digest).await.is_ok(), "only the tag is locked");
        a.service.update_tag(&ctx(), &a.registry, &app, &tag, patch(true)).await.unwrap();
        a.service.update_manifest(&ctx(), &a.registry, &app, digest, patch(false)).await.unwrap();
        assert_eq!(code(b.get("app", &by_digest).await), "REGISTRY_DISALLOWED_OPERATION");
        a.service.update_manifest(&ctx(), &a.registry, &app, digest, patch(true)).await.unwrap();
        a.service.update_repository(&ctx(), &a.registry, &app, patch(false)).await.unwrap();
        assert_eq!(code(b.get("app", "v1").await), "REGISTRY_DISALLOWED_OPERATION");
        assert_eq!(code(b.read("app", &layer).await), "REGISTRY_DISALLOWED_OPERATION");
        a.service.update_repository(&ctx(), &a.registry, &app, patch(true)).await.unwrap();
        assert_eq!(b.read("app", &layer).await.unwrap(), b"one");

        a.service.untag(&ctx(), &a.registry, &app, &tag).await.unwrap();
        assert_eq!(code(b.get("app", "v1").await), "MANIFEST_UNKNOWN");
        assert!(b.get("app", &by_digest).await.is_ok());
        a.service.delete_manifest(&ctx(), &a.registry, &app, &reference(&by_digest)).await.unwrap();
        assert_eq!(code(b.get("app", &by_digest).await), "NAME_UNKNOWN");
        a.service.delete_blob(&ctx(), &a.registry, &app, layer).await.unwrap();
        assert_eq!(code(b.read("app", &layer).await), "BLOB_UNKNOWN");
    }
}

/// The same bytes under another media type are another document to a client.
#[tokio::test]
async fn a_manifest_pushed_again_under_another_type_is_served_under_it() {
    let Pair { a, b } = Pair::new(Engine::Sqlite).await;
    let bytes = bytes::Bytes::from_static(b"{\"some\":\"document\"}");
    let digest = Digest::of(&bytes).to_string();
    for media_type in ["text/one", "text/two"] {
        let (app, v1) = (repo("app"), reference("v1"));
        a.service.put_manifest(&ctx(), &a.registry, &app, &v1, bytes.clone(), Some(media_type)).await.unwrap();
        assert_eq!(b.get("app", "v1").await.unwrap().media_type, media_type);
        a.service.delete_manifest(&ctx(), &a.registry, &repo("app"), &reference(&digest)).await.unwrap();
    }
}

/// The race that `gc` tells of, across servers: *C* at one, then *P* at the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_in_the_middle_of_a_deletion_by_another_server_is_kept() {
    for engine in BOTH {
        let gate = Gate::new();
        let inside = gate.clone();
        let pair = Pair::with_blobs(engine, move |inner| Arc::new(Gated { inner, gate: inside })).await;
        let Pair { a, b } = pair;
        let blob = a.blob("app", b"content").await;
        let now = start().plus(LINK_GRACE);
        let round = tokio::spawn({
            let a = a.clone();
            async move { a.gc(now).await }
        });
        gate.entered.acquire().await.unwrap().forget();

        let push = tokio::spawn({
            let b = b.clone();
            let content = bytes::Bytes::from_static(b"content");
            async move { b.service.put_blob(&at(now), &b.registry, &repo("app"), blob, body(content)).await }
        });
        // Go on when the push waits for the collector, or, if it does not wait, when its
        // file is in place.
        let waits = || b.service.content.locks.waiting.load(Ordering::SeqCst) > 0;
        while !waits() && gate.finished.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        gate.release.add_permits(1);
        assert_eq!(push.await.unwrap().unwrap(), 7);
        assert_eq!(round.await.unwrap().blobs, 1);
        assert_eq!(a.read("app", &blob).await.unwrap(), b"content", "{engine:?}: acknowledged and readable");
    }
}

/// *P* at one, then *C* at the other: nothing is removed under a push.
#[tokio::test]
async fn a_collector_leaves_what_another_server_pushes() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let blob = a.blob("app", b"content").await;
        let now = start().plus(LINK_GRACE);
        let mut push = Push::begin(&b.service, vec![blob], Source::Store, now).await.unwrap();
        assert_eq!((a.gc(now).await.links, a.stored(&blob).await), (1, true));
        push.ready().await.unwrap();
        push.hold(move |tx| Ok(gc::hold(tx, "test", &blob, now.plus(HOUR))?)).await.unwrap();
        assert_eq!(a.gc(now.plus(HOUR / 2)).await.blobs, 0, "held");
        assert_eq!(a.gc(now.plus(HOUR)).await.blobs, 1);
        assert!(!b.stored(&blob).await);
    }
}

/// A server that is taken for dead between *P* and *L*.
#[tokio::test]
async fn a_push_that_was_given_up_commits_nothing_that_is_gone() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let now = start().plus(LINK_GRACE);
        let put = async |bytes: &'static [u8]| {
            let digest = Digest::of(bytes);
            let mut push = Push::begin(&b.service, vec![digest], Source::Store, now).await.unwrap();
            push.ready().await.unwrap();
            b.service.blobs.put(&digest, body(bytes), 100).await.unwrap();
            (digest, push)
        };
        let link = |digest: Digest| {
            move |tx: &mut dyn portolan_store::meta::Tx| Ok(gc::hold(tx, "test", &digest, start().plus(HOUR * 99))?)
        };
        // Its file was collected.
        let (gone, push) = put(b"gone").await;
        b.declare_dead().await;
        assert_eq!(a.gc(now).await.blobs, 1);
        assert_eq!(code(push.land(link(gone)).await), "UNAVAILABLE");
        // Nobody came by.
        let (kept, push) = put(b"kept").await;
        b.declare_dead().await;
        push.land(link(kept)).await.unwrap();
        a.gc(now).await;
        assert!(!b.stored(&gone).await && b.stored(&kept).await, "{engine:?}");
        let held = b.service.meta.read(|tx| gc::held(tx, "test", start()).map_err(Error::from)).await.unwrap();
        assert_eq!(held, [kept]);
    }
}

/// A collector that dies between *C* and *E*, and a push that comes then.
#[tokio::test]
async fn a_deletion_that_nobody_ends_is_taken_over() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let now = start().plus(LINK_GRACE);
        for (content, pushed) in [(&b"pushed"[..], true), (b"not pushed", false)] {
            let blob = a.blob("app", content).await;
            let claim = now.plus(Duration::from_millis(300));
            let at_it = move |tx: &mut dyn portolan_store::meta::Tx, blob| gc::review_file(tx, &blob, now, now);
            let begun = a.service.meta.write(move |tx| {
                let id = meta::repo::find(tx, 1, &repo("app"))?.unwrap().id;
                gc::review_link(tx, id, &blob, now, now)?;
                gc::review_blob(tx, &blob, now, claim).map_err(Error::from)
            });
            assert!(begun.await.unwrap());
            let again = b.service.meta.write(move |tx| at_it(tx, blob).map_err(Error::from)).await;
            assert!(!again.unwrap(), "somebody is at it");
            if pushed {
                for bytes in [config_bytes(), content.to_vec()] {
                    let digest = Digest::of(&bytes);
                    b.service.put_blob(&at(now), &b.registry, &repo("app"), digest, body(bytes)).await.unwrap();
                }
                b.put(now, "app", "v1", &image_of("pushed")).await.unwrap();
            }
            assert_eq!(a.gc(now.plus(CLAIM)).await.blobs, u64::from(!pushed));
            assert_eq!(b.stored(&blob).await, pushed);
        }
        assert_eq!(a.read("app", &Digest::of(b"pushed")).await.unwrap(), b"pushed");
    }
}

/// A server that dies after *F* and before *L* leaves no file.
#[tokio::test]
async fn a_file_that_a_dead_server_put_in_place_goes() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let digest = Digest::of(b"orphan");
        let mut push = Push::begin(&b.service, vec![digest], Source::Store, start()).await.unwrap();
        push.ready().await.unwrap();
        b.service.blobs.put(&digest, body(&b"orphan"[..]), 100).await.unwrap();
        // As `kill -9` does: nothing is cleaned up.
        std::mem::forget(push);
        assert_eq!((a.gc(start()).await.blobs, a.stored(&digest).await), (0, true), "it lives, for all that is known");
        b.declare_dead().await;
        assert_eq!((a.gc(start()).await.blobs, a.stored(&digest).await), (1, false));
    }
}

#[tokio::test]
async fn a_blob_that_a_push_asked_another_server_about_stays_for_its_manifest() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let blob = a.blob("app", b"layer").await;
        let due = start().plus(LINK_GRACE);
        b.service.blob_exists(&at(due), &b.registry, &repo("app"), &blob).await.unwrap();
        assert_eq!(a.gc(due).await.links, 0);
        let later = due.plus(TOUCH_GRACE);
        assert_eq!(a.gc(later).await.links, 1);

        // A manifest held it when the push asked; then the manifest went.
        let image = a.image_at(later, "app", "v1", "two").await;
        let two = Digest::of(b"two");
        b.service.blob_exists(&at(later), &b.registry, &repo("app"), &two).await.unwrap();
        a.service.delete_manifest(&at(later), &a.registry, &repo("app"), &reference(&image.to_string())).await.unwrap();
        let soon = later.plus(UNLINK_GRACE);
        assert_eq!((a.gc(soon).await.links, a.stored(&two).await), (0, true));
        a.put(soon, "app", "v2", &image_of("two")).await.unwrap();
        a.gc(soon.plus(LINK_GRACE * 2)).await;
        assert_eq!(b.read("app", &two).await.unwrap(), b"two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_upload_goes_to_and_fro_between_servers() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let name = repo("app");
        let id = a.service.start_upload(&ctx(), &a.registry, &name).await.unwrap();
        let mut all = Vec::new();
        for n in 0..10u8 {
            let (here, there) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let chunk = vec![n; 1000];
            let at = Some(all.len() as u64);
            let len =
                here.service.append_upload(&ctx(), &here.registry, &name, id, at, body(chunk.clone()), None).await;
            all.extend_from_slice(&chunk);
            assert_eq!(len.unwrap(), all.len() as u64);
            let seen = there.service.upload_length(&ctx(), &there.registry, &name, id).await.unwrap();
            assert_eq!(seen, all.len() as u64);
        }

        // One at a time, wherever: `a` writes until it gets the rest of its body.
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let (asked, was_asked) = tokio::sync::oneshot::channel();
        let stream = futures_util::stream::unfold((Some(asked), receiver), |(asked, mut r)| async move {
            if let Some(asked) = asked {
                asked.send(()).unwrap();
            }
            r.recv().await.map(|piece| (piece, (None, r)))
        });
        let writing = tokio::spawn({
            let (a, name) = (a.clone(), name.clone());
            async move { a.service.append_upload(&ctx(), &a.registry, &name, id, None, Box::pin(stream), None).await }
        });
        was_asked.await.unwrap();
        let append = b.service.append_upload(&ctx(), &b.registry, &name, id, None, body("x"), None).await;
        assert_eq!(append.unwrap_err().kind, crate::Kind::Conflict);
        let digest = Digest::of(&all);
        let finish = b.service.finish_upload(&ctx(), &b.registry, &name, id, digest).await;
        assert_eq!(finish.unwrap_err().kind, crate::Kind::Conflict);
        assert_eq!(
            b.service.cancel_upload(&ctx(), &b.registry, &name, id).await.unwrap_err().kind,
            crate::Kind::Conflict
        );
        sender.send(Ok(bytes::Bytes::from_static(b"end"))).unwrap();
        drop(sender);
        all.extend_from_slice(b"end");
        assert_eq!(writing.await.unwrap().unwrap(), all.len() as u64);

        // `a` dies while it writes: the upload goes on elsewhere.
        let claim = a.service.claim_upload(id).await.unwrap().unwrap();
        std::mem::forget(claim);
        assert!(b.service.claim_upload(id).await.unwrap().is_none());
        a.declare_dead().await;
        let digest = Digest::of(&all);
        let size = b.service.finish_upload(&ctx(), &b.registry, &name, id, digest).await.unwrap();
        assert_eq!(size, all.len() as u64);
        assert_eq!(a.read("app", &digest).await.unwrap(), all);
        assert_eq!(code(a.service.upload_length(&ctx(), &a.registry, &name, id).await), "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn a_push_that_breaks_off_leaves_nothing_behind() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let (right, wrong) = (Digest::of(b"right"), Digest::of(b"wrong"));
        let put = b.service.put_blob(&ctx(), &b.registry, &repo("app"), right, body(&b"wrong"[..])).await;
        assert_eq!(code(put), "DIGEST_INVALID");
        let rows = || a.service.meta.read(move |tx| Ok::<_, Error>(peer::is_pushed(tx, &right)?));
        while rows().await.unwrap() {
            tokio::task::yield_now().await;
        }
        a.gc(start()).await;
        assert!(!a.stored(&right).await && !a.stored(&wrong).await);
        // And keeps nobody waiting.
        assert_eq!(a.blob("app", b"right").await, right);
    }
}

#[tokio::test]
async fn one_server_collects_until_it_is_gone() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        a.blob("app", b"left over").await;
        assert_eq!(a.gc(start()).await, Collected::default());
        let now = start().plus(LINK_GRACE);
        assert_eq!(b.gc(now).await, Collected::default(), "it is the other's duty");
        assert_eq!(b.service.servers().await.unwrap(), 2);
        a.service.leave().await.unwrap();
        assert_eq!(b.service.servers().await.unwrap(), 1);
        assert_eq!(b.gc(now).await.blobs, 1);
    }
}

#[tokio::test]
async fn a_server_that_starts_again_gives_up_what_it_had_in_hand() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let start = |name: &str| {
            let authority = Arc::new(Authority::new(MasterKey::new(&[7; 32])));
            let config = ServiceConfig { server: Some(name.to_owned()), ..ServiceConfig::default() };
            Service::open_as(true, b.service.meta.clone(), b.service.blobs.clone(), authority, config)
        };
        let (one, two) = (start("one").await.unwrap(), start("two").await.unwrap());
        let id = a.service.start_upload(&ctx(), &a.registry, &repo("app")).await.unwrap();
        let other = a.service.start_upload(&ctx(), &a.registry, &repo("app")).await.unwrap();
        std::mem::forget(one.claim_upload(id).await.unwrap().unwrap());
        std::mem::forget(two.claim_upload(other).await.unwrap().unwrap());
        assert!(a.service.claim_upload(id).await.unwrap().is_none());
        start("one").await.unwrap();
        assert!(a.service.claim_upload(id).await.unwrap().is_some());
        assert!(a.service.claim_upload(other).await.unwrap().is_none(), "the other lives");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_registry_is_known_to_the_other_without_a_request() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        for w in [&a, &b] {
            w.service.refresh().await.unwrap();
        }
        let keeping_up = tokio::spawn({
            let b = b.clone();
            async move { b.service.keep_up(|_| {}).await }
        });
        assert!(b.service.registry("first").is_ok());
        let (group, name) = ("rg".parse().unwrap(), "first".parse().unwrap());
        assert!(a.service.delete_registry(&ctx(), &group, &name).await.unwrap());
        while b.service.registry("first").is_ok() {
            tokio::task::yield_now().await;
        }
        let kid = |w: &World| w.service.authority.jwks().first().map(|k| k.kid.clone());
        let before = kid(&a);
        assert_eq!(kid(&b), before);
        // Made in the future: it stays too young to sign.
        a.service.rotate_signing_key(Timestamp::now().plus(HOUR)).await.unwrap();
        while b.service.authority.jwks().len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!((kid(&a), kid(&b)), (before.clone(), before), "no key signs before all know it");
        assert_eq!(a.service.authority.jwks().len(), 2);
        keeping_up.abort();
    }
}

#[tokio::test]
async fn another_master_key_is_refused() {
    for engine in BOTH {
        let Pair { a, .. } = Pair::new(engine).await;
        let authority = Arc::new(Authority::new(MasterKey::new(&[8; 32])));
        let (meta, blobs) = (a.service.meta.clone(), a.service.blobs.clone());
        let refused = Service::open_as(true, meta, blobs, authority, ServiceConfig::default()).await.unwrap_err();
        assert_eq!(refused.code, "MasterKeyMismatch");
        assert!(refused.hint.unwrap().contains("master_key_file"));
    }
}

/// Servers have clocks of their own; what was committed later has the later stamp.
#[tokio::test]
async fn stamps_go_up_in_the_order_of_commits() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let mut last = 0;
        for n in 0..6 {
            let (w, now) = if n % 2 == 0 { (&a, start().plus(HOUR)) } else { (&b, start()) };
            w.image_at(now, "app", "v1", &format!("{n}")).await;
            let hlc = w.service.meta.read(|tx| event::last_hlc(tx).map_err(Error::from)).await.unwrap();
            assert!(hlc > last, "{engine:?}: {hlc} after {last}");
            last = hlc;
        }
    }
}

/// Pushes at one, the collector at the other, over the same few blobs; everything
/// acknowledged and not deleted since can be pulled from either.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushing_at_one_and_collecting_at_the_other() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let far = start().plus(LINK_GRACE * 3);
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let collector = tokio::spawn({
            let (a, done) = (a.clone(), done.clone());
            async move {
                let mut blobs = 0;
                while !done.load(Ordering::SeqCst) {
                    let collected = a.gc(far).await;
                    assert_eq!(collected.failed, 0);
                    blobs += collected.blobs;
                    tokio::task::yield_now().await;
                }
                blobs
            }
        });
        let pushers: Vec<_> = (0..4)
            .map(|n| {
                // Three of them at the other server, one beside the collector.
                let (w, other) = if n == 0 { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
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
                        assert_eq!(other.get(&name, "v1").await.unwrap().digest, digest);
                        let layer = Digest::of(content.as_bytes());
                        assert_eq!(other.read(&name, &layer).await.unwrap(), content.as_bytes());
                        let what = reference(&digest.to_string());
                        other.service.delete_manifest(&ctx(), &other.registry, &repo(&name), &what).await.unwrap();
                    }
                })
            })
            .collect();
        for pusher in pushers {
            pusher.await.unwrap();
        }
        done.store(true, Ordering::SeqCst);
        let during = collector.await.unwrap();
        let after = a.gc(far.plus(CLAIM)).await.blobs;
        println!("{engine:?}: {during} deletions while 36 pushes went on, {after} after them");
        for n in 0..3 {
            let content = format!("shared {n}");
            assert!(!a.stored(&Digest::of(content.as_bytes())).await, "{engine:?}: all of it was deleted");
        }
    }
}

/// What the queue says of content that is pushed and collected must not stay for ever.
#[tokio::test]
async fn nothing_stays_in_the_queue() {
    let Pair { a, b } = Pair::new(Engine::Sqlite).await;
    let blob = a.blob("app", b"content").await;
    let now = start().plus(LINK_GRACE);
    a.gc(now).await;
    b.image_at(now, "app", "v1", "content").await;
    a.gc(now.plus(LINK_GRACE * 2)).await;
    let left = a.service.meta.read(move |tx| {
        let review = [Review::Blob(blob), Review::File(blob), Review::Link { repo: 1, digest: blob }];
        let left: Result<Vec<_>, _> = review.iter().map(|r| gc::due_of(tx, r)).collect();
        Ok::<_, Error>((left?, tag::find(tx, 1, &"v1".parse().unwrap())?.is_some()))
    });
    let (left, _) = left.await.unwrap();
    assert_eq!(left, [None, None, None]);
}
