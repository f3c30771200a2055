//! [`RegistryClient`]: tokens, redirects, broken downloads, wrong content, uploads.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use portolan_api::registry::ACCEPT_ALL;
use portolan_api::{Credentials, Error, RegistryClient};
use portolan_types::{Digest, Reference, RepoName, limits, media_type};
use serde_json::json;

use super::site::{Asked, Say, Site};

fn repo() -> RepoName {
    "a/b".parse().unwrap()
}

fn tag(text: &str) -> Reference {
    text.parse().unwrap()
}

fn client(site: &Site, credentials: Credentials) -> RegistryClient {
    RegistryClient::new(&site.base, None, credentials).unwrap()
}

fn challenge(asked: &Asked) -> Say {
    let host = asked.header("host").unwrap();
    Say::status(401).header(
        "www-authenticate",
        format!("Bearer realm=\"http://{host}/token\",service=\"{host}\",scope=\"repository:a/b:pull\""),
    )
}

fn manifest() -> &'static str {
    r#"{"schemaVersion":2}"#
}

fn oci_manifest() -> Say {
    Say::ok(manifest()).header("content-type", format!("{}; charset=utf-8", media_type::OCI_MANIFEST))
}

#[tokio::test]
async fn a_token_is_fetched_once_for_a_scope() {
    let site = Site::start(|asked| match asked.target.as_str() {
        t if t.starts_with("/token?") => Say::json(json!({"token": "t1"})),
        _ if asked.header("authorization") == Some("Bearer t1") => oci_manifest(),
        _ => challenge(asked),
    })
    .await;
    let client = client(&site, Credentials::Anonymous);
    for _ in 0..2 {
        let got = client.manifest(&repo(), &tag("v1"), ACCEPT_ALL).await.unwrap();
        assert_eq!(got.media_type, media_type::OCI_MANIFEST);
        assert_eq!(got.digest, Digest::of(manifest().as_bytes()));
    }
    let lines = site.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let host = site.base.trim_start_matches("http://").replace(':', "%3A");
    assert_eq!(lines[1], format!("GET /token?service={host}&scope=repository%3Aa%2Fb%3Apull"));
    let accept = site.asked()[0].header("accept").unwrap().to_owned();
    assert!(accept.contains(media_type::OCI_INDEX) && accept.contains(media_type::DOCKER_MANIFEST));
}

#[tokio::test]
async fn a_password_goes_to_the_token_service_and_a_refresh_token_by_post() {
    let answer = |asked: &Asked| match asked.target.split('?').next().unwrap() {
        "/token" => Say::json(json!({"access_token": "t2", "expires_in": 300})),
        _ if asked.header("authorization") == Some("Bearer t2") => oci_manifest(),
        _ => challenge(asked),
    };
    let site = Site::start(answer).await;
    let basic = Credentials::Basic { username: "me".into(), password: String::from("pw").into() };
    client(&site, basic).manifest(&repo(), &tag("v1"), ACCEPT_ALL).await.unwrap();
    let token = &site.asked()[1];
    assert_eq!(token.header("authorization"), Some("Basic bWU6cHc="));
    assert!(token.target.contains("account=me"), "{}", token.target);

    let site = Site::start(answer).await;
    client(&site, Credentials::Refresh(String::from("rt").into()))
        .manifest(&repo(), &tag("v1"), ACCEPT_ALL)
        .await
        .unwrap();
    let token = &site.asked()[1];
    assert_eq!(token.line(), "POST /token");
    assert!(token.text().contains("grant_type=refresh_token") && token.text().contains("refresh_token=rt"));
}

#[tokio::test]
async fn a_refused_token_ends_the_request() {
    let site = Site::start(challenge).await;
    let error = client(&site, Credentials::Anonymous).manifest(&repo(), &tag("v1"), ACCEPT_ALL).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert_eq!(site.asked().len(), 2, "one try, one token request");
}

#[tokio::test]
async fn a_redirect_takes_no_credentials_along() {
    let content = Bytes::from_static(b"layer");
    let elsewhere = Site::start(|_| Say::ok("layer")).await;
    let target = format!("{}/signed?x=1", elsewhere.base);
    let site = Site::start(move |asked| match asked.target.as_str() {
        t if t.starts_with("/token") => Say::json(json!({"token": "t"})),
        _ if asked.header("authorization").is_some() => Say::status(307).header("location", target.clone()),
        _ => challenge(asked),
    })
    .await;
    let (length, body) = client(&site, Credentials::Anonymous).blob(&repo(), &Digest::of(&content)).await.unwrap();
    let got: Vec<Bytes> = body.try_collect().await.unwrap();
    assert_eq!((length, got.concat()), (5, content.to_vec()));
    assert_eq!(elsewhere.asked()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_broken_download_is_taken_up_where_it_broke() {
    let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let digest = Digest::of(&content);
    let served = content.clone();
    let site = Site::start(move |asked| match asked.header("range") {
        None => Say::ok(served.clone()).cut(60_000),
        Some(range) => {
            let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            let end = served.len();
            let part = served[from..].to_vec();
            let whole = Say::status(206).header("content-range", format!("bytes {from}-{}/{end}", end - 1)).body(part);
            if from < 80_000 { whole.cut(30_000) } else { whole }
        }
    })
    .await;
    let (length, body) = client(&site, Credentials::Anonymous).blob(&repo(), &digest).await.unwrap();
    let got: Vec<Bytes> = body.try_collect().await.unwrap();
    assert_eq!(length, 100_000);
    assert_eq!(Digest::of(&got.concat()), digest);
    assert!(site.asked().len() >= 3, "{:?}", site.lines());
}

#[tokio::test]
async fn wrong_content_is_never_taken_for_right() {
    let site = Site::start(|asked| match asked.target.as_str() {
        "/v2/a/b/manifests/lied" => oci_manifest().header("docker-content-digest", Digest::of(b"other").to_string()),
        t if t.contains("/manifests/big") => Say::ok(vec![b' '; limits::MANIFEST_BYTES_MAX + 1]),
        t if t.contains("/manifests/") => oci_manifest(),
        _ => Say::ok("other bytes"),
    })
    .await;
    let client = client(&site, Credentials::Anonymous);
    let wanted = Digest::of(b"wanted");
    let by_digest = client.manifest(&repo(), &Reference::Digest(wanted), ACCEPT_ALL).await.unwrap_err();
    assert!(matches!(by_digest, Error::Mismatch { .. }), "{by_digest}");
    let lied = client.manifest(&repo(), &tag("lied"), ACCEPT_ALL).await.unwrap_err();
    assert!(matches!(lied, Error::Mismatch { .. }), "{lied}");
    let big = client.manifest(&repo(), &tag("big"), ACCEPT_ALL).await.unwrap_err();
    assert!(matches!(big, Error::TooLarge { .. }), "{big}");
    let (_, mut body) = client.blob(&repo(), &wanted).await.unwrap();
    let mut last = body.next().await;
    while let Some(Ok(_)) = last {
        last = body.next().await;
    }
    assert_eq!(last.unwrap().unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let tries = AtomicUsize::new(0);
    let site = Site::start(move |asked| match asked.target.as_str() {
        t if t.ends_with("/gone") => {
            Say::status(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
        }
        _ if tries.fetch_add(1, Ordering::Relaxed) < 2 => Say::status(503),
        _ => oci_manifest(),
    })
    .await;
    let client = client(&site, Credentials::Anonymous);
    client.manifest(&repo(), &tag("v1"), ACCEPT_ALL).await.unwrap();
    assert_eq!(site.asked().len(), 3);
    let gone = client.manifest(&repo(), &tag("gone"), ACCEPT_ALL).await.unwrap_err();
    assert!(gone.is_not_found());
    assert_eq!(gone.to_string(), "(MANIFEST_UNKNOWN) manifest unknown");
    assert_eq!(site.asked().len(), 4);
}

#[tokio::test]
async fn blobs_are_pushed_once_and_manifests_checked() {
    let content = Bytes::from_static(b"layer");
    let site = Site::start(|asked| match (asked.method.as_str(), asked.target.split('?').next().unwrap()) {
        ("HEAD", t) if t.contains(&Digest::of(b"there").to_string()) => Say::status(200),
        ("HEAD", _) => Say::status(404),
        ("POST", "/v2/a/b/blobs/uploads/") => Say::status(202).header("location", "/v2/a/b/blobs/uploads/7?state=s"),
        ("PUT", t) if t.starts_with("/v2/a/b/blobs/uploads/7") => Say::status(201),
        ("PUT", "/v2/a/b/manifests/v1") => {
            Say::status(201).header("docker-content-digest", Digest::of(&asked.body).to_string())
        }
        _ => Say::status(500),
    })
    .await;
    let client = client(&site, Credentials::Anonymous);
    let body = || -> portolan_api::ByteStream { Box::pin(stream::iter([Ok(Bytes::from_static(b"layer"))])) };
    assert!(client.push_blob_if_missing(&repo(), &Digest::of(&content), 5, body).await.unwrap());
    assert!(!client.push_blob_if_missing(&repo(), &Digest::of(b"there"), 5, body).await.unwrap());
    let digest = client.push_manifest(&repo(), &tag("v1"), media_type::OCI_MANIFEST, Bytes::from(manifest())).await;
    assert_eq!(digest.unwrap(), Digest::of(manifest().as_bytes()));
    let put = site.asked().into_iter().find(|a| a.method == "PUT").unwrap();
    assert_eq!((put.text().as_str(), put.header("content-length")), ("layer", Some("5")));
    let digest = Digest::of(b"layer").to_string().replace(':', "%3A");
    assert_eq!(put.target, format!("/v2/a/b/blobs/uploads/7?state=s&digest={digest}"));
}

#[tokio::test]
async fn tags_come_page_by_page() {
    let site = Site::start(|asked| match asked.target.as_str() {
        "/v2/a/b/tags/list?n=1000" => Say::json(json!({"name": "a/b", "tags": ["a"]}))
            .header("link", "</v2/a/b/tags/list?last=a&n=1000>; rel=\"next\""),
        _ => Say::json(json!({"name": "a/b", "tags": ["b"]})),
    })
    .await;
    assert_eq!(client(&site, Credentials::Anonymous).tags(&repo()).await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn a_loopback_registry_without_tls_is_found() {
    let site = Site::start(|_| oci_manifest()).await;
    let host = site.base.trim_start_matches("http://").to_owned();
    let client = RegistryClient::for_host(&host, None, Credentials::Anonymous).await.unwrap();
    client.manifest(&repo(), &tag("v1"), ACCEPT_ALL).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = RegistryClient::new(&format!("http://{free}"), None, Credentials::Anonymous).unwrap();
    let error = client.ping().await.unwrap_err();
    assert!(error.is_no_connection());
    assert!(error.to_string().contains(&free.to_string()) && error.to_string().contains("refused"), "{error}");
}
