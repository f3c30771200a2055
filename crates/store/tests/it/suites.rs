use std::fs;
use std::sync::Arc;

use portolan_store::blob::{Blobs, FsBlobs, Ingest as _, Reader as _, Sweep as _};
use portolan_store::meta::{Meta, PostgresConfig};
use portolan_store::testing::{Fault, Flaky, blob_suite, body, content, fault_suite, meta_suite};
use portolan_testkit::postgres;
use portolan_types::Digest;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    meta_suite(|| Meta::open_sqlite(&folder.path().join("meta.db"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_on_postgres() {
    let config = PostgresConfig::new(postgres::database());
    meta_suite(|| Meta::open_postgres(&config)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blobs_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    blob_suite(|| Ok(Arc::new(FsBlobs::open(folder.path())?) as Arc<dyn Blobs>)).await;
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0, "nothing half-written is left");
    assert_eq!(fs::read_dir(folder.path().join("staged")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path().join("objects")).unwrap().count(), 0, "empty folders go");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_behind_faults() {
    let folder = tempfile::tempdir().unwrap();
    blob_suite(|| Ok(Arc::new(Flaky::new(FsBlobs::open(folder.path())?, 0, Fault::Io)) as Arc<dyn Blobs>)).await;
    for fault in [Fault::Full, Fault::Io] {
        let folder = tempfile::tempdir().unwrap();
        fault_suite(&Flaky::new(FsBlobs::open(folder.path()).unwrap(), 0, fault)).await;
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("meta.db");
    let meta = Meta::open_sqlite(&database).unwrap();
    let blobs = FsBlobs::open(folder.path()).unwrap();
    let me = std::process::id().to_string();
    // Both wait a while for the first to go away, side by side here.
    let (second_meta, second_blobs) = std::thread::scope(|scope| {
        let meta = scope.spawn(|| Meta::open_sqlite(&database).map(drop).unwrap_err().to_string());
        let blobs = scope.spawn(|| FsBlobs::open(folder.path()).map(drop).unwrap_err().to_string());
        (meta.join().unwrap(), blobs.join().unwrap())
    });
    for refusal in [second_meta, second_blobs] {
        assert!(refusal.contains("in use") && refusal.contains(&me), "{refusal}");
    }
    meta.close().await;
    drop(blobs);
    Meta::open_sqlite(&database).unwrap().close().await;
    FsBlobs::open(folder.path()).unwrap();
}

/// A blob that was cut short behind our back is made whole by the next push of it.
#[tokio::test]
async fn a_damaged_blob_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FsBlobs::open(folder.path()).unwrap();
    let bytes = content(5000, 1);
    let digest = Digest::of(&bytes);
    blobs.put(&digest, body(&bytes, 1000), 5000).await.unwrap();
    fs::File::options().write(true).open(blobs.local_path(&digest).unwrap()).unwrap().set_len(10).unwrap();
    blobs.put(&digest, body(&bytes, 1000), 5000).await.unwrap();
    assert_eq!(blobs.size(&digest).await.unwrap(), Some(5000));
    assert_eq!(blobs.list(None, 10).await.unwrap(), [(digest, 5000)]);
}
