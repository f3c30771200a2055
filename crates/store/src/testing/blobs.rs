//! What every blob store promises.

use std::io::Write as _;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use portolan_types::{Algorithm, Digest, UploadId};
use tokio::sync::oneshot;

use super::{Flaky, body, broken_body, collect, content};
use crate::blob::Blobs;
use crate::{Error, Result};

const MIB: usize = 1024 * 1024;

/// Run the suite. `open` opens the same store each time, after the last one was dropped.
pub async fn blob_suite(open: impl Fn() -> Result<Arc<dyn Blobs>>) {
    let blobs = open().unwrap();
    put_and_read(&*blobs).await;
    refused_puts(&*blobs).await;
    listing(&*blobs).await;
    uploads(&*blobs).await;
    large_uploads(&*blobs).await;
    one_append_at_a_time(&blobs).await;
    objects(&*blobs).await;
    hostile_keys(&*blobs).await;
    let upload = UploadId::random();
    let (synced, unsynced) = staged(&*blobs).await;
    half_an_upload(&*blobs, upload).await;
    drop(blobs);

    let blobs = open().unwrap();
    assert!(blobs.size(&synced).await.unwrap().is_some());
    assert_eq!(blobs.size(&unsynced).await.unwrap(), None, "what was not synced is not trusted after a restart");
    the_other_half(&*blobs, upload).await;
}

async fn whole(blobs: &dyn Blobs, digest: &Digest) -> Vec<u8> {
    collect(blobs.read(digest, 0..u64::MAX).await.unwrap()).await.unwrap()
}

async fn put_and_read(blobs: &dyn Blobs) {
    for (seed, len) in [0, 1, 10_000, 65_536, 65_537, 256 * 1024, 256 * 1024 + 1, 3 * MIB + 17].into_iter().enumerate()
    {
        let bytes = content(len, seed as u64);
        let algorithm = if len == 10_000 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let digest = Digest::of_with(algorithm, &bytes);
        assert_eq!(blobs.size(&digest).await.unwrap(), None);
        assert!(blobs.local_path(&digest).is_none());
        // Twice: content that is there already is fine.
        for piece_len in [7_001, 400_000] {
            assert_eq!(blobs.put(&digest, body(&bytes, piece_len), len as u64).await.unwrap(), len as u64);
        }
        assert_eq!(blobs.size(&digest).await.unwrap(), Some(len as u64));
        assert!(whole(blobs, &digest).await == bytes, "{len} bytes");
        let end = len as u64;
        for range in [0..1, 1..2, end / 3..end / 2, end.saturating_sub(1)..end, 0..end, end..end, end + 5..end + 9] {
            let (from, to) = (range.start.min(end) as usize, range.end.min(end) as usize);
            let read = collect(blobs.read(&digest, range.clone()).await.unwrap()).await.unwrap();
            assert!(read == bytes[from..to], "{range:?} of {len} bytes");
        }
        if let Some(path) = blobs.local_path(&digest) {
            assert!(std::fs::read(path).unwrap() == bytes);
        }
        assert!(blobs.delete(&digest).await.unwrap());
        assert!(!blobs.delete(&digest).await.unwrap());
        assert_eq!(blobs.size(&digest).await.unwrap(), None);
        assert!(matches!(blobs.read(&digest, 0..1).await, Err(Error::NotFound(_))));
    }
}

async fn refused_puts(blobs: &dyn Blobs) {
    for len in [1000, 2 * MIB] {
        let bytes = content(len, 40);
        let (digest, other) = (Digest::of(&bytes), Digest::of(b"other"));
        let mismatch = blobs.put(&other, body(&bytes, 5000), len as u64).await;
        assert!(
            matches!(mismatch, Err(Error::DigestMismatch { expected, actual }) if *expected == other && *actual == digest)
        );
        let too_large = blobs.put(&digest, body(&bytes, 5000), len as u64 - 1).await;
        assert!(matches!(too_large, Err(Error::TooLarge { max }) if max == len as u64 - 1));
        let broken = blobs.put(&digest, broken_body(&bytes, 5000), len as u64).await;
        assert!(matches!(broken, Err(Error::Interrupted(_))));
        for absent in [other, digest] {
            assert_eq!(blobs.size(&absent).await.unwrap(), None);
        }
    }
}

async fn listing(blobs: &dyn Blobs) {
    let mut expected = Vec::new();
    for n in 0..20u64 {
        let bytes = content(n as usize, 100 + n);
        let algorithm = if n % 5 == 0 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let digest = Digest::of_with(algorithm, &bytes);
        blobs.put(&digest, body(&bytes, 10), n).await.unwrap();
        expected.push((digest, n));
    }
    expected.sort_unstable();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = blobs.list(after, 7).await.unwrap();
        assert!(page.len() <= 7);
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        found.extend(page);
    }
    assert_eq!(found, expected);
    for (digest, _) in expected {
        blobs.delete(&digest).await.unwrap();
    }
}

async fn uploads(blobs: &dyn Blobs) {
    let (max, id) = (u64::MAX, UploadId::random());
    assert_eq!(blobs.length(id).await.unwrap(), None);
    assert!(matches!(blobs.append(id, None, body(&content(1, 1), 1), max).await, Err(Error::NotFound(_))));
    assert!(matches!(blobs.finish(id, &Digest::of(b"")).await, Err(Error::NotFound(_))));
    assert!(!blobs.abort(id).await.unwrap());

    let bytes = content(3 * MIB, 50);
    blobs.create(id).await.unwrap();
    assert!(matches!(blobs.create(id).await, Err(Error::Conflict(_))));
    assert_eq!(blobs.length(id).await.unwrap(), Some(0));
    assert_eq!(blobs.append(id, None, body(&bytes.slice(..10), 3), max).await.unwrap(), 10);
    let gap = blobs.append(id, Some(11), body(&bytes, 100), max).await;
    assert!(matches!(gap, Err(Error::OffsetMismatch { have: 10, got: 11 })));

    // A body that breaks off leaves what arrived; the client asks, and goes on from there.
    let broken = blobs.append(id, Some(10), broken_body(&bytes.slice(10..MIB), 9_999), max).await;
    assert!(matches!(broken, Err(Error::Interrupted(_))));
    assert_eq!(blobs.length(id).await.unwrap(), Some(MIB as u64));
    let too_large = blobs.append(id, None, body(&bytes.slice(MIB..), 9_999), 2 * MIB as u64).await;
    assert!(matches!(too_large, Err(Error::TooLarge { max }) if max == 2 * MIB as u64));
    let have = blobs.length(id).await.unwrap().unwrap();
    assert!((MIB as u64..=2 * MIB as u64).contains(&have));
    let rest = bytes.slice(have as usize..);
    assert_eq!(blobs.append(id, Some(have), body(&rest, 50_000), max).await.unwrap(), bytes.len() as u64);
    assert_eq!(blobs.append(id, None, body(&Bytes::new(), 1), max).await.unwrap(), bytes.len() as u64);

    let mismatch = blobs.finish(id, &Digest::of(b"other")).await;
    assert!(matches!(mismatch, Err(Error::DigestMismatch { actual, .. }) if *actual == Digest::of(&bytes)));
    assert_eq!(blobs.finish(id, &Digest::of(&bytes)).await.unwrap(), bytes.len() as u64);
    assert_eq!(blobs.length(id).await.unwrap(), None);
    assert!(matches!(blobs.finish(id, &Digest::of(&bytes)).await, Err(Error::NotFound(_))));
    assert!(whole(blobs, &Digest::of(&bytes)).await == bytes);

    // The same content again, under the other algorithm, and as an empty blob.
    for (bytes, algorithm) in
        [(bytes.clone(), Algorithm::Sha256), (bytes.clone(), Algorithm::Sha512), (Bytes::new(), Algorithm::Sha256)]
    {
        let (id, digest) = (UploadId::random(), Digest::of_with(algorithm, &bytes));
        blobs.create(id).await.unwrap();
        blobs.append(id, Some(0), body(&bytes, 100_000), max).await.unwrap();
        assert_eq!(blobs.finish(id, &digest).await.unwrap(), bytes.len() as u64);
        assert!(whole(blobs, &digest).await == bytes);
        blobs.delete(&digest).await.unwrap();
    }

    let id = UploadId::random();
    blobs.create(id).await.unwrap();
    let hour = Duration::from_secs(3600);
    assert!(!blobs.stale_uploads(SystemTime::now() - hour).await.unwrap().contains(&id));
    assert!(blobs.stale_uploads(SystemTime::now() + hour).await.unwrap().contains(&id));
    assert!(blobs.abort(id).await.unwrap());
    assert_eq!(blobs.length(id).await.unwrap(), None);
    assert!(!blobs.stale_uploads(SystemTime::now() + hour).await.unwrap().contains(&id));
}

/// Bodies of many sizes, one after the other and at once: past what a store gathers before
/// it writes, and past where it begins to write in another way.
async fn large_uploads(blobs: &dyn Blobs) {
    let bytes = content(14 * MIB + 4_099, 60);
    // Where one request ends and the next begins.
    let even = vec![0, 9 * MIB, 10 * MIB, bytes.len()];
    let odd = vec![0, 3 * MIB + 7, 9 * MIB + 4_095, 9 * MIB + 4_096, 12 * MIB + 1, bytes.len()];
    let one = vec![0, bytes.len()];
    let upload = async |cuts: Vec<usize>, piece_len: usize, seed: u64| {
        // Another content for each, so that each is written.
        let bytes: Bytes = [&seed.to_le_bytes()[..], &bytes].concat().into();
        let id = UploadId::random();
        blobs.create(id).await.unwrap();
        for part in cuts.windows(2) {
            let (from, to) = (part[0], if part[1] + 8 >= bytes.len() { bytes.len() } else { part[1] });
            let part = bytes.slice(from..to);
            assert_eq!(blobs.append(id, Some(from as u64), body(&part, piece_len), u64::MAX).await.unwrap(), to as u64);
        }
        let digest = Digest::of(&bytes);
        assert_eq!(blobs.finish(id, &digest).await.unwrap(), bytes.len() as u64);
        assert!(whole(blobs, &digest).await == bytes, "in pieces of {piece_len}");
        blobs.delete(&digest).await.unwrap();
    };
    upload(one.clone(), 256 * 1024, 1).await;
    upload(even.clone(), 16_384, 2).await;
    upload(odd.clone(), 100_003, 3).await;
    tokio::join!(
        upload(one.clone(), 3_999, 4),
        upload(odd, 1_500_000, 5),
        upload(even, 70_000, 6),
        upload(one, 5 * MIB, 7)
    );

    // Broken off in the middle of a large one: what is kept is what was sent.
    let id = UploadId::random();
    blobs.create(id).await.unwrap();
    let cut = 11 * MIB + 123;
    let broken = blobs.append(id, Some(0), broken_body(&bytes.slice(..cut), 65_536), u64::MAX).await;
    assert!(matches!(broken, Err(Error::Interrupted(_))));
    let have = blobs.length(id).await.unwrap().unwrap();
    assert!(have <= cut as u64);
    blobs.append(id, Some(have), body(&bytes.slice(have as usize..), 65_536), u64::MAX).await.unwrap();
    let digest = Digest::of(&bytes);
    blobs.finish(id, &digest).await.unwrap();
    assert!(whole(blobs, &digest).await == bytes);
    blobs.delete(&digest).await.unwrap();
}

async fn one_append_at_a_time(blobs: &Arc<dyn Blobs>) {
    let id = UploadId::random();
    blobs.create(id).await.unwrap();
    let (go, gate) = oneshot::channel::<()>();
    let (started, is_started) = oneshot::channel::<()>();
    let first = async move {
        started.send(()).unwrap();
        gate.await.unwrap();
        Ok(Bytes::from_static(b"first"))
    };
    let slow = tokio::spawn({
        let blobs = Arc::clone(blobs);
        async move { blobs.append(id, Some(0), Box::pin(stream::once(first)), 100).await }
    });
    is_started.await.unwrap();
    let second = blobs.append(id, None, body(&Bytes::from_static(b"second"), 10), 100).await;
    assert!(matches!(second, Err(Error::Conflict(_))));
    assert!(matches!(blobs.abort(id).await, Err(Error::Conflict(_))));
    assert!(matches!(blobs.finish(id, &Digest::of(b"first")).await, Err(Error::Conflict(_))));
    assert!(blobs.length(id).await.unwrap().is_some(), "asking is allowed");
    go.send(()).unwrap();
    assert_eq!(slow.await.unwrap().unwrap(), 5);

    // A request that is dropped in the middle leaves the upload free for the next.
    let endless = body(&Bytes::from_static(b" and"), 10).chain(stream::pending());
    let mut dropped = blobs.append(id, Some(5), Box::pin(endless), 100);
    let pending = std::future::poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_pending())).await;
    assert!(pending);
    drop(dropped);
    let have = blobs.length(id).await.unwrap().unwrap();
    assert_eq!(blobs.append(id, Some(have), body(&Bytes::from_static(b" last"), 10), 100).await.unwrap(), have + 5);
    assert!(blobs.abort(id).await.unwrap());
}

/// Durable and not durable content of a build; what `sync` was told of, and what not.
async fn staged(blobs: &dyn Blobs) -> (Digest, Digest) {
    let write = |bytes: &Bytes| {
        let mut writer = blobs.writer().unwrap();
        for piece in bytes.chunks(777) {
            writer.write_all(piece).unwrap();
        }
        assert_eq!(writer.commit(&Digest::of(bytes)).unwrap(), bytes.len() as u64);
        Digest::of(bytes)
    };
    let contents: Vec<_> = (0..12).map(|n| content(n * 50_000, 200 + n as u64)).collect();
    let digests: Vec<_> = contents.iter().map(write).collect();
    let unsynced = write(&content(5_000, 300));
    for (digest, bytes) in digests.iter().zip(&contents) {
        assert!(whole(blobs, digest).await == *bytes, "readable at once");
    }
    blobs.sync(&digests).unwrap();
    blobs.sync(&digests).unwrap();
    blobs.sync(&[]).unwrap();
    for (digest, bytes) in digests.iter().zip(&contents) {
        assert!(whole(blobs, digest).await == *bytes, "readable afterwards");
        write(bytes);
    }
    assert!(matches!(blobs.sync(&[Digest::of(b"absent")]), Err(Error::NotFound(_))));
    drop(blobs.writer().unwrap());
    let listed: Vec<_> = blobs.list(None, 1000).await.unwrap().into_iter().map(|(digest, _)| digest).collect();
    assert!(digests.iter().all(|d| listed.contains(d)) && !listed.contains(&unsynced));
    (digests[3], unsynced)
}

async fn half_an_upload(blobs: &dyn Blobs, id: UploadId) {
    blobs.create(id).await.unwrap();
    let bytes = content(2 * MIB, 60).slice(..MIB + 5);
    let broken = blobs.append(id, Some(0), broken_body(&bytes, 30_000), u64::MAX).await;
    assert!(matches!(broken, Err(Error::Interrupted(_))));
}

async fn the_other_half(blobs: &dyn Blobs, id: UploadId) {
    let bytes = content(2 * MIB, 60);
    let have = blobs.length(id).await.unwrap().unwrap();
    assert_eq!(have, MIB as u64 + 5);
    blobs.append(id, Some(have), body(&bytes.slice(have as usize..), 30_000), u64::MAX).await.unwrap();
    assert_eq!(blobs.finish(id, &Digest::of(&bytes)).await.unwrap(), bytes.len() as u64);
    assert!(whole(blobs, &Digest::of(&bytes)).await == bytes);
}

async fn objects(blobs: &dyn Blobs) {
    let key = "contexts/a1/source.tar.gz";
    assert_eq!(blobs.object_len(key).await.unwrap(), None);
    assert!(blobs.object_path(key).is_none());
    assert!(matches!(blobs.object_read(key, 0..1).await, Err(Error::NotFound(_))));
    blobs.object_delete(key).await.unwrap();

    let read = async |key: &str, range| collect(blobs.object_read(key, range).await.unwrap()).await.unwrap();
    let (old, new) = (content(MIB, 70), content(300_000, 71));
    for bytes in [&old, &new] {
        assert_eq!(blobs.object_put(key, body(bytes, 9_000), MIB as u64).await.unwrap(), bytes.len() as u64);
        assert_eq!(blobs.object_len(key).await.unwrap(), Some(bytes.len() as u64));
        assert!(read(key, 0..u64::MAX).await == *bytes);
        assert!(read(key, 10..20_000).await == bytes[10..20_000]);
    }
    assert!(matches!(blobs.object_put(key, body(&old, 9_000), 1000).await, Err(Error::TooLarge { max: 1000 })));
    assert!(matches!(blobs.object_put(key, broken_body(&old, 9_000), u64::MAX).await, Err(Error::Interrupted(_))));
    assert!(read(key, 0..u64::MAX).await == new, "a failed put leaves the old object");
    // On disk a folder is not an object; in a bucket there are no folders.
    let beside = blobs.object_put("contexts/a1", body(&old, 9_000), u64::MAX).await;
    assert_eq!(blobs.object_len("contexts/a1").await.unwrap(), beside.ok());
    assert!(read(key, 0..u64::MAX).await == new);
    blobs.object_delete("contexts/a1").await.unwrap();
    assert!(read(key, 0..u64::MAX).await == new);

    for (line, len) in [("one\r\n", 5), ("two\r\n", 10)] {
        assert_eq!(blobs.object_append("runs/cb1.log", line.as_bytes()).unwrap(), len);
    }
    assert_eq!(read("runs/cb1.log", 3..100).await, b"\r\ntwo\r\n");

    let parts = [key.to_owned(), "runs/cb1.log".to_owned(), key.to_owned()];
    let joined = blobs.object_concat("blocks/joined", &parts).await.unwrap();
    assert_eq!(joined, 2 * new.len() as u64 + 10);
    assert!(read("blocks/joined", new.len() as u64..new.len() as u64 + 10).await == b"one\r\ntwo\r\n");
    let missing = blobs.object_concat("blocks/joined", &["nowhere".to_owned()]).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));
    assert_eq!(blobs.object_concat("blocks/none", &[]).await.unwrap(), 0);

    for key in [key, "runs/cb1.log", "blocks/joined", "blocks/none"] {
        blobs.object_delete(key).await.unwrap();
        assert_eq!(blobs.object_len(key).await.unwrap(), None);
    }
}

async fn hostile_keys(blobs: &dyn Blobs) {
    for key in ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/", ".lock", "a/.b", "Upper", "a\0b", "a\\..\\b"] {
        let nothing = Bytes::from_static(b"x");
        assert!(blobs.object_put(key, body(&nothing, 1), 1).await.is_err(), "{key:?}");
        assert!(blobs.object_append(key, b"x").is_err(), "{key:?}");
        assert!(blobs.object_concat(key, &[]).await.is_err(), "{key:?}");
        assert_eq!(blobs.object_len(key).await.unwrap(), None, "{key:?}");
        assert!(blobs.object_read(key, 0..1).await.is_err(), "{key:?}");
        assert!(blobs.object_path(key).is_none(), "{key:?}");
        blobs.object_delete(key).await.unwrap();
    }
}

/// Whatever call fails first, the next attempt succeeds and nothing is left in between.
pub async fn fault_suite<B: Blobs>(flaky: &Flaky<B>) {
    let blobs: &dyn Blobs = flaky;
    let bytes = content(MIB, 80);
    let digest = Digest::of(&bytes);
    let max = u64::MAX;

    flaky.fail_next(2);
    for _ in 0..2 {
        assert!(blobs.put(&digest, body(&bytes, 10_000), max).await.is_err());
    }
    assert_eq!(blobs.size(&digest).await.unwrap(), None);
    blobs.put(&digest, body(&bytes, 10_000), max).await.unwrap();
    assert!(blobs.delete(&digest).await.unwrap());

    let id = UploadId::random();
    flaky.fail_next(1);
    assert!(blobs.create(id).await.is_err());
    blobs.create(id).await.unwrap();
    flaky.fail_next(1);
    assert!(blobs.append(id, Some(0), body(&bytes, 10_000), max).await.is_err());
    assert_eq!(blobs.append(id, Some(0), body(&bytes, 10_000), max).await.unwrap(), MIB as u64);
    flaky.fail_next(1);
    assert!(blobs.finish(id, &digest).await.is_err());
    assert_eq!(blobs.finish(id, &digest).await.unwrap(), MIB as u64);

    flaky.fail_next(1);
    assert!(blobs.writer().is_err());
    let mut writer = blobs.writer().unwrap();
    writer.write_all(b"layer").unwrap();
    let layer = Digest::of(b"layer");
    writer.commit(&layer).unwrap();
    flaky.fail_next(1);
    assert!(blobs.sync(&[layer]).is_err());
    blobs.sync(&[layer]).unwrap();
    assert_eq!(whole(blobs, &layer).await, b"layer");
    for digest in [digest, layer] {
        assert!(blobs.delete(&digest).await.unwrap());
    }
}
