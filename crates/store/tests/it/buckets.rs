//! Blobs in buckets, on the servers of `testkit::bucket`.

use std::path::Path;
use std::sync::Arc;

use portolan_store::blob::{BlobConfig, Blobs, BucketBlobs, open};
use portolan_store::testing::{Fault, Flaky, blob_suite, fault_suite, shared_blob_suite};
use portolan_testkit::bucket::{Bucket, Service, bucket};

fn config(bucket: &Bucket) -> BlobConfig {
    BlobConfig {
        url: bucket.url.clone(),
        endpoint: Some(bucket.endpoint.clone()),
        account: bucket.account.clone(),
        secret: bucket.secret.clone().map(Into::into),
        credentials_file: bucket.credentials_file.clone(),
        ..BlobConfig::default()
    }
}

async fn suites(service: Service) {
    let folder = tempfile::tempdir().unwrap();
    let alone = config(&bucket(service));
    blob_suite(|| open(&alone, folder.path())).await;
    drop(open(&alone, folder.path()).unwrap());

    let shared = config(&bucket(service));
    let data = |n: usize| folder.path().join(format!("server{n}"));
    // A copy of more than 16 MiB goes by ranges where the service has them.
    let open = |n| Ok(Arc::new(BucketBlobs::open_copying(&shared, &data(n), 16 << 20)?) as Arc<dyn Blobs>);
    (0..2).for_each(|n| std::fs::create_dir(data(n)).unwrap());
    shared_blob_suite(open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3() {
    suites(Service::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn azure() {
    suites(Service::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gcs() {
    suites(Service::Gcs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_faults() {
    for (service, fault) in [(Service::S3, Fault::Full), (Service::Azure, Fault::Io), (Service::Gcs, Fault::Io)] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&bucket(service));
        let open = |folder: &Path| BucketBlobs::open(&config, folder);
        fault_suite(&Flaky::new(open(folder.path()).unwrap(), 0, fault)).await;
    }
}
