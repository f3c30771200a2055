//! Who trusts the server, and which certificate it shows.

use crate::support::TestServer;

#[tokio::test]
async fn clients_with_the_ca_trust_it_and_others_do_not() {
    let t = TestServer::start().await;
    assert_eq!(t.get(format!("{}/healthz", t.site.url)).await.status(), 200);
    let port = t.server.https.port();
    let by_ip = t.get(format!("https://127.0.0.1:{port}/healthz")).await;
    assert_eq!(by_ip.status(), 200);
    let by_sub_domain = t.get(format!("https://someregistry.localhost:{port}/healthz")).await;
    assert_eq!(by_sub_domain.status(), 200);

    let other = TestServer::start().await;
    let stranger = portolan_testkit::site::client(&other.site.ca_pem).unwrap();
    let refused = stranger.get(format!("{}/healthz", t.site.url)).send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    other.server.shutdown().await.unwrap();
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    let t = TestServer::start().await;
    let ca = reqwest::Certificate::from_pem(&t.site.ca_pem).unwrap();
    let builder = || reqwest::Client::builder().tls_certs_only([ca.clone()]);
    let url = format!("https://127.0.0.1:{}/healthz", t.server.https.port());
    let one = builder().http1_only().build().unwrap().get(&url).send().await.unwrap();
    assert_eq!((one.version(), one.status().as_u16()), (reqwest::Version::HTTP_11, 200));
    let two = builder().build().unwrap().get(&url).send().await.unwrap();
    assert_eq!((two.version(), two.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_operators_certificate_is_served_and_replaced_while_running() {
    let (one, two) = (TestServer::start().await, TestServer::start().await);
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let take = |from: &TestServer| {
        std::fs::copy(from.data.path().join("tls/server.pem"), &cert).unwrap();
        std::fs::copy(from.data.path().join("tls/server.key"), &key).unwrap();
    };
    take(&one);
    let data = tempfile::tempdir().unwrap();
    let mut settings = crate::support::settings(data.path());
    (settings.tls_cert, settings.tls_key) = (Some(cert.clone()), Some(key.clone()));
    let server = portolan_server::Server::start(settings).await.unwrap();
    assert_eq!(server.ca_file, None);
    let url = format!("{}/healthz", server.app.url);
    // A client of its own each time: an open connection keeps the certificate it began with.
    let trusts =
        async |ca: &TestServer| portolan_testkit::site::client(&ca.site.ca_pem).unwrap().get(&url).send().await.is_ok();
    assert!(trusts(&one).await && !trusts(&two).await);
    take(&two);
    server.reload();
    assert!(trusts(&two).await && !trusts(&one).await);
    std::fs::write(&key, "rubbish").unwrap();
    server.reload();
    assert!(trusts(&two).await, "a bad file leaves the good one in use");
    for server in [server, one.server, two.server] {
        server.shutdown().await.unwrap();
    }
}
