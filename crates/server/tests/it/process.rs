//! What only a process shows: its one line, its exit code, signals, `kill -9`.

use portolan_testkit::{Child, Site};
use portolan_types::Digest;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn child(data: &std::path::Path, more: &[&str]) -> Child {
    Child::start(data, more).await.unwrap()
}

#[tokio::test]
async fn it_says_one_line_and_ends_with_zero_on_sigterm_and_sigint() {
    for signal in [Signal::TERM, Signal::INT] {
        let data = tempfile::tempdir().unwrap();
        let child = child(data.path(), &["--listen-http", "127.0.0.1:0"]).await;
        let site = child.site().unwrap();
        assert!(
            child.ready.starts_with(&format!("portolan ready: {} (http://127.0.0.1:", site.url)),
            "{}",
            child.ready
        );
        assert!(child.ready.contains(" data=/") && child.ready.contains(" bootstrap=/"), "{}", child.ready);
        let healthy = site.client.get(format!("{}/healthz", site.http_url.as_ref().unwrap())).send().await.unwrap();
        assert_eq!(healthy.status(), StatusCode::OK);
        let signed = format!("{}/blob/a/b/c?sp=r&sig=SIGNATURE&se=1", site.url);
        assert!(site.client.get(signed).send().await.unwrap().status().is_client_error());
        child.signal(signal).unwrap();
        let (code, printed, log) = child.wait().await.unwrap();
        assert_eq!((code, printed.as_str()), (Some(0), ""), "{log}");
        let secret = &site.bootstrap.client_secret;
        assert!(log.contains("/blob/a/b/c"), "{log}");
        assert!(!log.contains(secret.as_str()) && !log.contains("SIGNATURE"), "the log holds a secret");
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused_with_a_reason() {
    let data = tempfile::tempdir().unwrap();
    let first = child(data.path(), &[]).await;
    let Err(refused) = Child::start(data.path(), &[]).await else { panic!("it was let in") };
    let refused = refused.to_string();
    assert!(refused.contains("another server is running on the data folder"), "{refused}");
    let site = first.site().unwrap();
    assert_eq!(site.client.get(format!("{}/healthz", site.url)).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(first.terminate().await.unwrap().0, Some(0));
}

#[tokio::test]
async fn bad_settings_are_named() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("p.toml");
    std::fs::write(&file, "lisen = ':1'\n").unwrap();
    let config = file.to_str().unwrap();
    for (args, reason) in [
        (&["--config", config][..], r#"unknown setting "lisen"; did you mean "listen"?"#),
        (&["--config", "/no/such/file"], "cannot read the settings file /no/such/file"),
        (&["--listen-http", "nowhere"], r#"flag --listen-http: "nowhere" is not an address"#),
    ] {
        let Err(refused) = Child::start(data.path(), args).await else { panic!("it was let in") };
        assert!(refused.to_string().contains(reason), "{refused}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_in_the_middle_of_a_push() {
    let data = tempfile::tempdir().unwrap();
    let first = child(data.path(), &[]).await;
    let site = first.site().unwrap();
    let login = site.make_registry("killed").await.unwrap();
    let pushed = site.push_image(&login, "a", "v1", &[b"a layer"]).await.unwrap();
    let token = site.token(&login, "repository:a:pull,push").await.unwrap();
    let upload = site.start_upload(&login, &token, "a").await.unwrap();
    let part = vec![7u8; 1024 * 1024];
    let patch = site.client.patch(&upload).bearer_auth(&token).body(part.clone()).send().await.unwrap();
    assert_eq!(patch.status(), StatusCode::ACCEPTED);
    let upload = Site::absolute(&login, patch.headers()["location"].to_str().unwrap());
    first.kill9().await.unwrap();

    let second = child(data.path(), &[]).await;
    let site = second.site().unwrap();
    let old_login = login;
    let login = site.url.trim_start_matches("https://").to_owned();
    let token = site.token(&login, "repository:a:pull,push").await.unwrap();
    let get = site.registry(&login, &token, Method::GET, "/v2/a/manifests/v1").send().await.unwrap();
    assert_eq!(get.bytes().await.unwrap(), pushed.manifest);
    // The upload goes on where it was.
    let upload = upload.replace(&old_login, &login);
    let res = site.client.put(Site::finish_url(&upload, &Digest::of(&part))).bearer_auth(&token).send().await.unwrap();
    assert_eq!(res.status(), StatusCode::CREATED, "{}", res.text().await.unwrap());
    assert_eq!(second.terminate().await.unwrap().0, Some(0));
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let data = tempfile::tempdir().unwrap();
    let child = child(data.path(), &["--listen-http", "127.0.0.1:0"]).await;
    let addr = child.site().unwrap().http_url.unwrap().trim_start_matches("http://").to_owned();
    let mut busy = TcpStream::connect(&addr).await.unwrap();
    let head = b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\ncontent-type: application/x-www-form-urlencoded\r\nexpect: 100-continue\r\n\r\n";
    busy.write_all(head).await.unwrap();
    let mut first = [0; 25];
    busy.read_exact(&mut first).await.unwrap();
    child.signal(Signal::TERM).unwrap();
    // Draining: no new connections, and the old one is waited for.
    while TcpStream::connect(&addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    child.signal(Signal::TERM).unwrap();
    let (code, _, log) = child.wait().await.unwrap();
    assert_eq!(code, Some(1), "{log}");
}
