//! A first start, the operations' pages, and a second start on the same folder.

use std::os::unix::fs::PermissionsExt;

use portolan_server::bootstrap::Bootstrap;

use crate::support::TestServer;

#[tokio::test]
async fn a_first_start_makes_everything_and_answers_on_both_listeners() {
    let t = TestServer::start().await;
    let data = t.data.path();
    let mode = |path: &str| std::fs::metadata(data.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for private in ["master.key", "bootstrap.json", "tls/ca.key", "tls/server.key"] {
        assert_eq!(mode(private), 0o600, "{private}");
    }
    assert_eq!(t.site.url, format!("https://localhost:{}", t.server.https.port()));
    let line = t.server.ready_line();
    assert!(line.starts_with(&format!("portolan ready: {} (http://127.0.0.1:", t.site.url)), "{line}");
    assert!(line.ends_with(&format!("bootstrap={}", t.server.bootstrap.display())), "{line}");

    for base in [&t.site.url, t.http()] {
        for page in ["/healthz", "/readyz"] {
            assert_eq!(t.get(format!("{base}{page}")).await.status(), 200, "{base}{page}");
        }
    }
    let metrics = t.get(format!("{}/metrics", t.site.url)).await.text().await.unwrap();
    for line in [
        r#"portolan_http_requests_total{route="/healthz",method="GET",status="2xx"} 2"#,
        "portolan_runs_queued 0",
        "portolan_uploads_open 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_owner_can_sign_in_and_only_with_the_right_secret() {
    let t = TestServer::start().await;
    t.site.arm_token().await.unwrap();
    let wrong = t.site.sign_in(&t.site.bootstrap.client_id, "wrong", "x/.default").await.unwrap();
    assert_eq!(wrong.status(), 401);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_second_start_keeps_the_owner_the_ca_and_the_content() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("keepers").await.unwrap();
    let pushed = t.site.push_image(&login, "a/b", "v1", &[b"layer one", b"layer two"]).await.unwrap();
    let before = Bootstrap::read(&t.server.bootstrap).unwrap().unwrap();
    let (data, ca) = (t.data.clone(), t.site.ca_pem.clone());
    t.server.shutdown().await.unwrap();

    let t = TestServer::start_on(data, |_| {}).await;
    let after = Bootstrap::read(&t.server.bootstrap).unwrap().unwrap();
    assert_eq!(after.server, t.site.url, "the file follows the port");
    assert!(Bootstrap { server: before.server.clone(), ..after } == before, "the credentials stay");
    assert_eq!(t.site.ca_pem, ca);

    // The port is another one now, and the first registry answers at the server's address.
    let login = t.site.url.trim_start_matches("https://").to_owned();
    let token = t.site.token(&login, "repository:a/b:pull").await.unwrap();
    let res = t.site.registry(&login, &token, reqwest::Method::GET, "/v2/a/b/manifests/v1").send().await.unwrap();
    assert_eq!(res.status(), 200);
    assert_eq!(res.bytes().await.unwrap(), pushed.manifest);
    for layer in &pushed.layers {
        let path = format!("/v2/a/b/blobs/{layer}");
        let res = t.site.registry(&login, &token, reqwest::Method::GET, &path).send().await.unwrap();
        assert_eq!(res.status(), 200);
        assert_eq!(&portolan_types::Digest::of(&res.bytes().await.unwrap()), layer);
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_removed_bootstrap_file_is_not_made_again() {
    let t = TestServer::start().await;
    let data = t.data.clone();
    t.server.shutdown().await.unwrap();
    std::fs::remove_file(data.path().join("bootstrap.json")).unwrap();
    let server = portolan_server::Server::start(crate::support::settings(data.path())).await.unwrap();
    assert!(!server.bootstrap.exists());
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_start_after_a_crash_before_the_owner_was_taken_up_uses_the_file() {
    let t = TestServer::start().await;
    let data = t.data.clone();
    t.server.shutdown().await.unwrap();
    // As if the crash came between the file and the database.
    for entry in std::fs::read_dir(data.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("portolan.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let t = TestServer::start_on(data, |_| {}).await;
    t.site.arm_token().await.unwrap();
    t.server.shutdown().await.unwrap();
}
