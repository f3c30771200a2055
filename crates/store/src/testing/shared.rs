//! What a blob store promises that several servers use at once.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use portolan_types::{Algorithm, Digest, UploadId};

use super::{body, broken_body, collect, content};
use crate::blob::Blobs;
use crate::{Error, Result};

const MIB: usize = 1024 * 1024;
const MAX: u64 = u64::MAX;
/// How long to wait for what another server is to see.
const WAIT_SECS_MAX: u64 = 30;

/// Run the suite on two servers of one store. `open(n)` opens the store as server `n` does,
/// after its last handle was dropped.
pub async fn shared_blob_suite(open: impl Fn(usize) -> Result<Arc<dyn Blobs>>) {
    let (a, b) = (open(0).unwrap(), open(1).unwrap());
    chunk_by_chunk(&*a, &*b).await;
    one_of_two_wins(&a, &b).await;
    aborted_elsewhere(&*a, &*b).await;
    half_by_each(&*a, &*b).await;
    large(&*a, &*b).await;
    abandoned(&a, &*b).await;
    build_results(&*a, &*b).await;
    logs(&*a, &*b).await;

    // A server ends with a log and an upload in the middle; another goes on, and so does
    // the first when it is back.
    let (log, upload) = ("runs/ends.log", UploadId::random());
    let bytes = content(9 * MIB, 900);
    a.object_append(log, b"before the end").unwrap();
    a.create(upload).await.unwrap();
    assert_eq!(a.append(upload, Some(0), body(&bytes.slice(..100), 10), MAX).await.unwrap(), 100);
    drop(a);
    assert_eq!(collect(b.object_read(log, 0..MAX).await.unwrap()).await.unwrap(), b"before the end");
    assert_eq!(b.append(upload, Some(100), body(&bytes.slice(100..8 * MIB), 65_536), MAX).await.unwrap(), 8 << 20);
    let a = open(0).unwrap();
    assert_eq!(a.object_append(log, b", and after").unwrap(), 25);
    assert_eq!(a.length(upload).await.unwrap(), Some(8 << 20));
    a.append(upload, None, body(&bytes.slice(8 * MIB..), 65_536), MAX).await.unwrap();
    assert_eq!(a.finish(upload, &Digest::of(&bytes)).await.unwrap(), bytes.len() as u64);
    assert!(whole(&*b, &Digest::of(&bytes)).await == bytes);
    a.object_sync(log).await.unwrap();
    assert_eq!(collect(b.object_read(log, 3..MAX).await.unwrap()).await.unwrap(), b"ore the end, and after");
}

async fn whole(blobs: &dyn Blobs, digest: &Digest) -> Vec<u8> {
    collect(blobs.read(digest, 0..MAX).await.unwrap()).await.unwrap()
}

/// One upload, its chunks to one server and the other in turns.
async fn chunk_by_chunk(a: &dyn Blobs, b: &dyn Blobs) {
    for (algorithm, with_offset) in
        [(Algorithm::Sha256, true), (Algorithm::Sha256, false), (Algorithm::Sha512, true), (Algorithm::Sha512, false)]
    {
        let (id, bytes) = (UploadId::random(), content(3 * MIB + 11, 800));
        let digest = Digest::of_with(algorithm, &bytes);
        a.create(id).await.unwrap();
        assert!(matches!(b.create(id).await, Err(Error::Conflict(_))));
        assert_eq!(b.length(id).await.unwrap(), Some(0));
        let mut at = 0;
        for (n, len) in [1, 63, 64, 100_000, MIB, 7, 2 * MIB].into_iter().enumerate() {
            let (server, other) = if n % 2 == 0 { (b, a) } else { (a, b) };
            let end = bytes.len().min(at + len);
            let chunk = bytes.slice(at..end);
            let offset = with_offset.then_some(at as u64);
            assert_eq!(server.append(id, offset, body(&chunk, 50_000), MAX).await.unwrap(), end as u64);
            assert_eq!(other.length(id).await.unwrap(), Some(end as u64));
            let late = other.append(id, Some(at as u64), body(&chunk, 50_000), MAX).await;
            assert!(matches!(late, Err(Error::OffsetMismatch { have, got }) if have == end as u64 && got == at as u64));
            at = end;
        }
        assert_eq!(at, bytes.len());
        assert!(matches!(a.finish(id, &Digest::of(b"other")).await, Err(Error::DigestMismatch { .. })));
        assert_eq!(a.finish(id, &digest).await.unwrap(), bytes.len() as u64);
        assert_eq!(b.length(id).await.unwrap(), None);
        assert!(matches!(a.finish(id, &digest).await, Err(Error::NotFound(_))));
        // The other server may not know yet; that the blob is there is all it can say.
        let again = b.finish(id, &digest).await;
        assert!(matches!(again, Ok(len) if len == bytes.len() as u64) || matches!(again, Err(Error::NotFound(_))));
        for server in [a, b] {
            assert!(whole(server, &digest).await == bytes);
        }
        assert!(b.delete(&digest).await.unwrap());
        assert_eq!(a.size(&digest).await.unwrap(), None);
    }
}

/// Two servers add at the same offset at the same time, again and again.
async fn one_of_two_wins(a: &Arc<dyn Blobs>, b: &Arc<dyn Blobs>) {
    let id = UploadId::random();
    a.create(id).await.unwrap();
    let mut all = Vec::new();
    for round in 0..20u64 {
        let mine = content(1000 + round as usize, 1000 + round);
        let theirs = content(1000 + round as usize, 2000 + round);
        let offset = (round % 2 == 0).then_some(all.len() as u64);
        let (one, two) =
            tokio::join!(a.append(id, offset, body(&mine, 100), MAX), b.append(id, offset, body(&theirs, 100), MAX));
        match (&one, &two) {
            (Ok(_), Err(Error::OffsetMismatch { .. } | Error::Conflict(_))) => all.extend_from_slice(&mine),
            (Err(Error::OffsetMismatch { .. } | Error::Conflict(_)), Ok(_)) => all.extend_from_slice(&theirs),
            // Without an offset the second may have begun behind the first.
            (Ok(first), Ok(second)) if offset.is_none() && first != second => {
                let in_order = if first < second { [&mine, &theirs] } else { [&theirs, &mine] };
                in_order.into_iter().for_each(|chunk| all.extend_from_slice(chunk));
            }
            other => panic!("round {round}: {other:?}"),
        }
        for server in [a, b] {
            assert_eq!(server.length(id).await.unwrap(), Some(all.len() as u64), "round {round}");
        }
    }
    let digest = Digest::of(&all);
    assert_eq!(b.finish(id, &digest).await.unwrap(), all.len() as u64);
    assert!(whole(&**a, &digest).await == all);
    let none: Vec<UploadId> = Vec::new();
    let left: Vec<_> = a.stale_uploads(hour_ahead()).await.unwrap().into_iter().filter(|left| *left == id).collect();
    assert_eq!(left, none, "nothing of it is left");
}

fn hour_ahead() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

async fn aborted_elsewhere(a: &dyn Blobs, b: &dyn Blobs) {
    let (id, bytes) = (UploadId::random(), content(1000, 810));
    a.create(id).await.unwrap();
    a.append(id, Some(0), body(&bytes, 100), MAX).await.unwrap();
    assert!(b.abort(id).await.unwrap());
    assert!(!b.abort(id).await.unwrap());
    assert_eq!(a.length(id).await.unwrap(), None);
    assert!(matches!(a.finish(id, &Digest::of(&bytes)).await, Err(Error::NotFound(_))));
    assert_eq!(a.size(&Digest::of(&bytes)).await.unwrap(), None);
}

/// A body of many parts breaks off at one server, and goes on at another.
async fn half_by_each(a: &dyn Blobs, b: &dyn Blobs) {
    let (id, bytes) = (UploadId::random(), content(38 * MIB + 5, 820));
    let cut = 21 * MIB + 3;
    a.create(id).await.unwrap();
    let broken = a.append(id, Some(0), broken_body(&bytes.slice(..cut), 30_000), MAX).await;
    assert!(matches!(broken, Err(Error::Interrupted(_))), "{broken:?}");
    assert_eq!(b.length(id).await.unwrap(), Some(cut as u64), "everything that arrived is kept");
    b.append(id, Some(cut as u64), body(&bytes.slice(cut..), 30_000), MAX).await.unwrap();
    assert_eq!(a.finish(id, &Digest::of(&bytes)).await.unwrap(), bytes.len() as u64);
    assert!(whole(b, &Digest::of(&bytes)).await == bytes);
    assert!(a.delete(&Digest::of(&bytes)).await.unwrap());
}

/// More than a hundred MiB: by upload in one chunk, in two, and stored whole.
async fn large(a: &dyn Blobs, b: &dyn Blobs) {
    let bytes = content(104 * MIB + 1, 830);
    let digest = Digest::of(&bytes);
    for cuts in [vec![], vec![60 * MIB]] {
        let id = UploadId::random();
        a.create(id).await.unwrap();
        let mut at = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            a.append(id, Some(at as u64), body(&bytes.slice(at..cut), 200_000), MAX).await.unwrap();
            at = cut;
        }
        assert_eq!(a.finish(id, &digest).await.unwrap(), bytes.len() as u64);
        assert_eq!(b.size(&digest).await.unwrap(), Some(bytes.len() as u64));
        let middle = 52 * MIB as u64 - 3..52 * MIB as u64 + 70_000;
        let read = collect(b.read(&digest, middle.clone()).await.unwrap()).await.unwrap();
        assert!(read == bytes[middle.start as usize..middle.end as usize]);
        assert!(whole(b, &digest).await == bytes);
        assert!(b.delete(&digest).await.unwrap());
    }
    assert_eq!(a.put(&digest, body(&bytes, 200_000), MAX).await.unwrap(), bytes.len() as u64);
    assert!(whole(b, &digest).await == bytes);
    assert!(b.delete(&digest).await.unwrap());
    let other = Digest::of(b"other");
    assert!(matches!(a.put(&other, body(&bytes, 200_000), MAX).await, Err(Error::DigestMismatch { .. })));
    assert_eq!(b.size(&other).await.unwrap(), None);
}

/// A process that dies in the middle of a large transfer leaves something to be swept.
async fn abandoned(a: &Arc<dyn Blobs>, b: &dyn Blobs) {
    let before = b.stale_uploads(hour_ahead()).await.unwrap();
    let bytes = content(20 * MIB, 840);
    let digest = Digest::of(&bytes);
    let upload = UploadId::random();
    a.create(upload).await.unwrap();
    let dying = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for stored_whole in [true, false] {
        let (a, body) = (Arc::clone(a), body(&bytes, 100_000).chain(stream::pending()));
        dying.spawn(async move {
            match stored_whole {
                true => a.put(&digest, Box::pin(body), MAX).await,
                false => a.append(upload, Some(0), Box::pin(body), MAX).await,
            }
        });
    }
    let begun = Instant::now();
    // The upload itself, and a name for what is stored whole.
    while b.stale_uploads(hour_ahead()).await.unwrap().len() < before.len() + 2 {
        // Small stores and slow ones: parts may be larger than what was sent.
        if begun.elapsed() > Duration::from_secs(WAIT_SECS_MAX / 10) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    dying.shutdown_background();
    assert!(b.stale_uploads(SystemTime::now() - Duration::from_secs(3600)).await.unwrap().is_empty());
    let begun = Instant::now();
    loop {
        let mut left = b.stale_uploads(hour_ahead()).await.unwrap();
        left.retain(|id| !before.contains(id));
        if left.is_empty() {
            break;
        }
        for id in left {
            b.abort(id).await.unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(WAIT_SECS_MAX), "it cannot be swept");
    }
    assert_eq!(b.size(&digest).await.unwrap(), None, "what was not whole never got its key");
}

/// What a build makes is its server's until it is synced.
async fn build_results(a: &dyn Blobs, b: &dyn Blobs) {
    let bytes = content(9 * MIB, 850);
    let digest = Digest::of(&bytes);
    let mut writer = a.writer().unwrap();
    std::io::Write::write_all(&mut writer, &bytes).unwrap();
    writer.commit(&digest).unwrap();
    assert!(whole(a, &digest).await == bytes);
    assert_eq!(b.size(&digest).await.unwrap(), None);
    assert!(matches!(b.sync(&[digest]), Err(Error::NotFound(_))));
    a.sync(&[digest]).unwrap();
    assert!(whole(b, &digest).await == bytes);
    b.sync(&[digest]).unwrap();
    for server in [a, b] {
        let path = server.fetch(&digest).await.unwrap().unwrap();
        assert!(std::fs::read(path).unwrap() == bytes);
        assert!(server.local_path(&digest).is_some());
    }
    assert!(matches!(b.fetch(&Digest::of(b"nowhere")).await, Err(Error::NotFound(_))));
    assert!(a.delete(&digest).await.unwrap());
}

async fn logs(a: &dyn Blobs, b: &dyn Blobs) {
    let key = "runs/cb9.log";
    let mut text = Vec::new();
    for n in 0..3000 {
        let line = format!("line {n} {}\r\n", "x".repeat(n % 900));
        text.extend_from_slice(line.as_bytes());
        assert_eq!(a.object_append(key, line.as_bytes()).unwrap(), text.len() as u64);
    }
    assert!(collect(a.object_read(key, 0..MAX).await.unwrap()).await.unwrap() == text, "readable here at once");
    let begun = Instant::now();
    while b.object_len(key).await.unwrap() != Some(text.len() as u64) {
        assert!(begun.elapsed() < Duration::from_secs(WAIT_SECS_MAX), "another server never saw the log");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (n, piece) in [(0u32, &b"more\r\n"[..]), (1, b"and more\r\n")] {
        text.extend_from_slice(piece);
        a.object_append(key, piece).unwrap();
        a.object_sync(key).await.unwrap();
        assert_eq!(b.object_len(key).await.unwrap(), Some(text.len() as u64), "{n}");
    }
    for server in [a, b] {
        for range in [0..text.len() as u64, 500..70_000, 1_000_000..1_300_000, 5..MAX] {
            let end = text.len().min(usize::try_from(range.end).unwrap_or(usize::MAX));
            let read = collect(server.object_read(key, range.clone()).await.unwrap()).await.unwrap();
            assert!(read == text[(range.start as usize).min(end)..end], "{range:?}");
        }
    }
    a.object_delete(key).await.unwrap();
    for server in [a, b] {
        assert_eq!(server.object_len(key).await.unwrap(), None);
    }
    // Whole objects and joined ones are everybody's at once.
    let bytes: Bytes = content(2 * MIB, 860);
    a.object_put("contexts/whole", body(&bytes, 9_000), MAX).await.unwrap();
    b.object_concat("contexts/two", &["contexts/whole".to_owned(), "contexts/whole".to_owned()]).await.unwrap();
    assert_eq!(a.object_len("contexts/two").await.unwrap(), Some(4 << 20));
    for key in ["contexts/whole", "contexts/two"] {
        b.object_delete(key).await.unwrap();
    }
}
