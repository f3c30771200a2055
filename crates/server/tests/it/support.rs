//! A server inside the test.

use std::path::Path;
use std::sync::Arc;

use portolan_server::settings::{BlobPlace, DatabaseUrl, Positive, SecretText};
use portolan_server::sink::LogTarget;
use portolan_server::{RunningServer, Server, Settings};
use portolan_testkit::bucket::{self, Bucket};
use portolan_testkit::{Site, postgres};

/// A server on free ports in a folder of its own, with a client for it.
pub(crate) struct TestServer {
    pub(crate) server: RunningServer,
    pub(crate) site: Site,
    pub(crate) data: Arc<tempfile::TempDir>,
}

/// Defaults on free ports: TLS and plain HTTP.
pub(crate) fn settings(data: &Path) -> Settings {
    let mut settings = Settings {
        data: data.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        listen_http: Some(([127, 0, 0, 1], 0).into()),
        // Those tests that read them give them a file.
        access_log: LogTarget::None,
        audit_log: LogTarget::None,
        // The same for the same folder, when the suite is run on PostgreSQL.
        database: postgres::chosen_for(data).map(|url| DatabaseUrl(url.into())),
        database_readers: Positive(2),
        ..Settings::defaults().unwrap()
    };
    if let Some(bucket) = bucket::chosen_for(data) {
        keep_in(&mut settings, &bucket);
    }
    settings
}

/// Keep blobs in a bucket.
pub(crate) fn keep_in(settings: &mut Settings, bucket: &Bucket) {
    settings.blobs = Some(BlobPlace(bucket.url.clone()));
    settings.blob_endpoint = Some(bucket.endpoint.clone());
    settings.blob_account = bucket.account.clone();
    settings.blob_secret = bucket.secret.clone().map(|secret| SecretText(secret.into()));
    settings.blob_credentials_file = bucket.credentials_file.clone();
}

impl TestServer {
    pub(crate) async fn start() -> TestServer {
        Self::start_with(|_| {}).await
    }

    /// Start with other settings than the defaults.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> TestServer {
        Self::start_on(Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    /// Start on a folder that another server has used.
    pub(crate) async fn start_on(data: Arc<tempfile::TempDir>, change: impl FnOnce(&mut Settings)) -> TestServer {
        let mut settings = settings(data.path());
        change(&mut settings);
        let server = Server::start(settings).await.unwrap();
        let mut site = Site::open(&server.bootstrap).unwrap();
        site.http_url = server.http.map(|addr| format!("http://{addr}"));
        TestServer { server, site, data }
    }

    /// Base URL of the plain listener.
    pub(crate) fn http(&self) -> &str {
        self.site.http_url.as_deref().unwrap()
    }

    pub(crate) async fn get(&self, url: impl AsRef<str>) -> reqwest::Response {
        self.site.client.get(url.as_ref()).send().await.unwrap()
    }
}
