//! A disk that is full, for real: the test starts its own binary again in a mount
//! namespace with a small tmpfs under the store.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use portolan_store::blob::{FsBlobs, Ingest as _, Objects as _, Reader as _, Uploads as _};
use portolan_store::meta::{Meta, RowExt as _, one};
use portolan_store::testing::{body, content};
use portolan_store::{Error, Result};
use portolan_types::{Digest, UploadId};

const STORE: &str = "PORTOLAN_TEST_FULL_STORE";
const MIB: usize = 1024 * 1024;

#[test]
fn full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=8m none "$STORE" || exit 77
                    exec "$SELF" full::writer --exact --nocapture"#;
    let unshared = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script.replace("$STORE", &format!("${STORE}"))])
        .env("SELF", std::env::current_exe().unwrap())
        .env(STORE, folder.path())
        .output();
    match unshared {
        Err(e) => println!("skipped: unshare cannot be run: {e}"),
        Ok(done) if done.status.code() == Some(77) || done.stdout.is_empty() => {
            println!("skipped: no mount namespace here: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(done) => {
            let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success() && text.contains("all of it ran"), "{text}");
        }
    }
}

/// Does nothing unless it is started by the test above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer() {
    let Some(folder) = std::env::var_os(STORE) else { return };
    let folder = Path::new(&folder);
    let blobs = FsBlobs::open(&folder.join("content")).unwrap();
    let meta = Meta::open_sqlite(&folder.join("meta.db")).unwrap();
    meta.write(|tx| tx.execute("CREATE TABLE big (id BIGINT PRIMARY KEY, data BLOB)", &[])).await.unwrap();
    let (small, large) = (content(1000, 1), content(16 * MIB, 2));
    let (small_digest, large_digest, max) = (Digest::of(&small), Digest::of(&large), u64::MAX);

    let full = blobs.put(&large_digest, body(&large, 100_000), max).await;
    assert!(matches!(full, Err(Error::Full)), "{full:?}");
    assert_eq!(blobs.size(&large_digest).await.unwrap(), None);
    blobs.put(&small_digest, body(&small, 100), max).await.unwrap();
    let full = blobs.object_put("context", body(&large, 100_000), max).await;
    assert!(matches!(full, Err(Error::Full)), "{full:?}");

    // An upload keeps what was written and can go on when there is room again.
    let id = UploadId::random();
    blobs.create(id).await.unwrap();
    let full = blobs.append(id, Some(0), body(&large, 100_000), max).await;
    assert!(matches!(full, Err(Error::Full)), "{full:?}");
    let have = blobs.length(id).await.unwrap().unwrap() as usize;
    assert!(have > 0 && have < large.len());

    let big = vec![7u8; MIB];
    let full: Result<u64> =
        meta.write(move |tx| tx.execute("INSERT INTO big (id, data) VALUES (1, ?1)", &[big.into()])).await;
    assert!(matches!(full, Err(Error::Full)), "{full:?}");

    // Room again: everything goes on, and nothing half-written is to be seen.
    let short: Bytes = large.slice(..have.min(2 * MIB));
    assert!(blobs.abort(id).await.unwrap());
    blobs.put(&Digest::of(&short), body(&short, 100_000), max).await.unwrap();
    let rows = meta
        .write(|tx| {
            tx.execute("INSERT INTO big (id, data) VALUES (2, ?1)", &["x".into()])?;
            one(tx, "SELECT COUNT(*) FROM big", &[], |row| row.int(0))
        })
        .await
        .map_err(|e: Error| e)
        .unwrap();
    assert_eq!(rows, Some(1));
    assert_eq!(std::fs::read_dir(folder.join("content/tmp")).unwrap().count(), 0);
    meta.close().await;
    println!("all of it ran");
}
