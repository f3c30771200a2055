//! `kill -9` in the middle of writing: what was acknowledged is there, and whole.
//!
//! The test starts its own binary again as the writer; the name of the store in the
//! environment tells the writer that it is one.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use portolan_store::Error;
use portolan_store::blob::{FsBlobs, Ingest as _, Reader as _, Sweep as _, Uploads as _};
use portolan_store::meta::{Meta, RowExt as _, all};
use portolan_store::testing::{body, collect, content};
use portolan_types::{Digest, UploadId};

const STORE: &str = "PORTOLAN_TEST_CRASH_STORE";
const ACKNOWLEDGED_MIN: usize = 40;

#[test]
fn kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for _ in 0..2 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::writer", "--exact", "--nocapture", "--test-threads=1"])
            .env(STORE, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = acknowledged.len() + ACKNOWLEDGED_MIN;
        for line in lines {
            let line = line.unwrap();
            if let Some(digest) = line.split_once("acknowledged ").map(|(_, digest)| digest) {
                acknowledged.push(digest.parse::<Digest>().unwrap());
            }
            if acknowledged.len() == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= enough, "the writer ended by itself");
        check(folder.path(), &acknowledged);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn check(folder: &Path, acknowledged: &[Digest]) {
    let blobs = FsBlobs::open(&folder.join("content")).unwrap();
    let meta = Meta::open_sqlite(&folder.join("meta.db")).unwrap();
    let rows = meta
        .read(|tx| all(tx, "SELECT digest FROM written", &[], |row| row.digest(0)))
        .await
        .map_err(|e: Error| e)
        .unwrap();
    for digest in acknowledged {
        assert!(rows.contains(digest), "{digest} was acknowledged");
    }
    let listed = blobs.list(None, 100_000).await.unwrap();
    for digest in &rows {
        assert!(listed.iter().any(|(listed, _)| listed == digest), "{digest} has a row");
    }
    for (digest, _) in listed {
        let bytes = collect(blobs.read(&digest, 0..u64::MAX).await.unwrap()).await.unwrap();
        assert_eq!(Digest::of(&bytes), digest);
    }
    assert_eq!(std::fs::read_dir(folder.join("content/tmp")).unwrap().count(), 0);
    meta.close().await;
}

/// Does nothing unless it is started by the test above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer() {
    let Some(folder) = std::env::var_os(STORE) else { return };
    let folder = Path::new(&folder);
    let blobs = Arc::new(FsBlobs::open(&folder.join("content")).unwrap());
    let meta = Meta::open_sqlite(&folder.join("meta.db")).unwrap();
    meta.write(|tx| tx.execute("CREATE TABLE IF NOT EXISTS written (digest BLOB PRIMARY KEY)", &[])).await.unwrap();
    let seed = std::process::id() as u64 * 1_000_000;
    let tasks = (0..4).map(|task| {
        let (meta, blobs) = (meta.clone(), Arc::clone(&blobs));
        tokio::spawn(async move {
            for n in 0..100_000 {
                let seed = seed + task * 100_000 + n;
                let bytes = content(1000 + (seed as usize % 7) * 100_000, seed);
                let (digest, max) = (Digest::of(&bytes), u64::MAX);
                if n % 2 == 0 {
                    blobs.put(&digest, body(&bytes, 16_000), max).await.unwrap();
                } else {
                    let id = UploadId::random();
                    blobs.create(id).await.unwrap();
                    blobs.append(id, Some(0), body(&bytes, 16_000), max).await.unwrap();
                    blobs.finish(id, &digest).await.unwrap();
                }
                meta.write(move |tx| tx.execute("INSERT INTO written (digest) VALUES (?1)", &[digest.into()]))
                    .await
                    .unwrap();
                println!("acknowledged {digest}");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}
