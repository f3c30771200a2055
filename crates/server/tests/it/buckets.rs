//! Servers whose blobs are in a bucket: what clients see is the same, but for redirects.

use std::sync::Arc;

use portolan_server::server::Server;
use portolan_server::settings::{BlobPlace, SecretText};
use portolan_testkit::bucket::{Service, again, bucket};
use portolan_types::Digest;
use reqwest::{Method, StatusCode, header};

use crate::support::{TestServer, keep_in, settings};

#[test]
fn the_same_on_s3() {
    // `kill -9` takes the last second of a log with it, which that test looks for.
    again(Service::S3, &["v2::", "builds::"], &["a_killed_server_ends_its_runs"]);
}

#[test]
fn the_same_on_azure() {
    again(Service::Azure, &["v2::", "builds::contexts_in_blocks_and_logs_in_windows"], &[]);
}

#[test]
fn the_same_on_gcs() {
    again(Service::Gcs, &["v2::"], &[]);
}

/// A client that goes where it is sent gets the right bytes, all of them or a range; who may
/// not read is not sent anywhere.
async fn redirects(service: Service) {
    let place = bucket(service);
    let server = TestServer::start_with(|s| {
        keep_in(s, &place);
        s.blob_redirect = true;
    })
    .await;
    let login_server = server.site.make_registry("redirects1").await.unwrap();
    let layer: Vec<u8> = (0..9_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let pushed = server.site.push_image(&login_server, "app", "v1", &[&layer]).await.unwrap();
    let token = server.site.token(&login_server, "repository:app:pull").await.unwrap();
    let path = format!("/v2/app/blobs/{}", pushed.layers[0]);
    let get = |range: Option<&str>| {
        let asked = server.site.registry(&login_server, &token, Method::GET, &path);
        range.into_iter().fold(asked, |asked, range| asked.header(header::RANGE, range))
    };

    let sent = get(None).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(sent.headers()["docker-content-digest"], pushed.layers[0].to_string());
    assert_eq!(sent.headers()[header::CACHE_CONTROL], "no-store");
    let url = sent.headers()[header::LOCATION].to_str().unwrap().to_owned();
    assert!(url.starts_with(&place.endpoint), "{url}");
    let secret = place.secret.as_deref().unwrap_or("no secret");
    assert!(!url.contains(secret));

    // The URL alone is enough, for the blob and for a range of it.
    let anybody = reqwest::Client::new();
    let whole = anybody.get(&url).send().await.unwrap();
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(Digest::of(&whole.bytes().await.unwrap()), pushed.layers[0]);
    let part = anybody.get(&url).header(header::RANGE, "bytes=5000-70000").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert!(part.bytes().await.unwrap() == layer[5000..=70000]);
    // … but not for another one.
    let other = url.replacen(&pushed.layers[0].hex(), &pushed.config.hex(), 1);
    // … which the translator does not check.
    if service != Service::Gcs {
        assert_eq!(anybody.get(&other).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    }

    let outside = get(Some("bytes=99999999-")).send().await.unwrap();
    assert_eq!(outside.status(), StatusCode::RANGE_NOT_SATISFIABLE, "what cannot be is said here");
    let head = server.site.registry(&login_server, &token, Method::HEAD, &path).send().await.unwrap();
    assert_eq!((head.status(), head.headers()[header::CONTENT_LENGTH].to_str().unwrap()), (StatusCode::OK, "9000000"));
    let tag = head.headers()[header::ETAG].clone();
    let unchanged = get(None).header(header::IF_NONE_MATCH, tag).send().await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);

    let stranger = server.site.client.get(format!("https://{login_server}{path}")).send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let elsewhere = server.site.token(&login_server, "repository:other:pull").await.unwrap();
    let denied = server.site.registry(&login_server, &elsewhere, Method::GET, &path).send().await.unwrap();
    assert!(denied.status().is_client_error(), "{}", denied.status());
    assert!(denied.headers().get(header::LOCATION).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_to_s3() {
    redirects(Service::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_to_azure() {
    redirects(Service::Azure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_to_gcs() {
    redirects(Service::Gcs).await;
}

/// A server that cannot use its bucket does not start, and says why in one sentence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_cannot_be_used() {
    for service in [Service::S3, Service::Azure] {
        let place = bucket(service);
        let refusal = async |change: &dyn Fn(&mut portolan_server::settings::Settings)| {
            let data = Arc::new(tempfile::tempdir().unwrap());
            let mut settings = settings(data.path());
            keep_in(&mut settings, &place);
            change(&mut settings);
            let error = Server::start(settings).await.err().expect("it must not start");
            let said = format!("{error:#}");
            assert!(!said.contains("not-this-secret") && !said.contains(place.secret.as_deref().unwrap()), "{said}");
            said
        };
        let noun = if service == Service::S3 { "bucket" } else { "container" };
        let absent = place.url.replace("bucket", "absent");
        let said = refusal(&|s| s.blobs = Some(BlobPlace(absent.clone()))).await;
        assert!(said.contains(&format!("there is no {noun} {absent}")), "{said}");
        // Azure's keys are base64.
        let said = refusal(&|s| s.blob_secret = Some(SecretText("bm90LXRoaXMtc2VjcmV0".to_owned().into()))).await;
        assert!(said.contains("does not let this server in"), "{said}");
        if service == Service::Azure {
            // That nobody answers takes its time to find out, and is found out the same way.
            continue;
        }
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let said = refusal(&|s| s.blob_endpoint = Some(format!("http://{nobody}"))).await;
        assert!(said.contains("cannot be reached") || said.contains("did not answer"), "{said}");
    }
    let data = Arc::new(tempfile::tempdir().unwrap());
    let mut on_disk = settings(data.path());
    on_disk.blobs = None;
    on_disk.blob_redirect = true;
    let said = format!("{:#}", Server::start(on_disk).await.err().expect("it must not start"));
    assert!(said.contains("blob_redirect is set, but blobs are in the data folder"), "{said}");
}
