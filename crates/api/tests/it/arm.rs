//! The control and data planes: sign-in, kept tokens, pages, long-running operations.

use std::sync::atomic::Ordering::SeqCst;

use expect_test::expect;
use portolan_api::acr::{AcrClient, AcrTokens, Login};
use portolan_api::arm::{
    Argument, ArmClient, BuildOptions, BuildSecret, BuildSource, BuildSsh, DockerBuildRequest, RegistryRef, Run,
    RunPlatform,
};
use portolan_api::identity::SignIn;
use portolan_api::transport::{self, TransportOptions};
use portolan_api::{HttpClient, Token};
use serde_json::{Value, json};

use super::site::{Asked, Say, Site};

fn http() -> HttpClient {
    transport::http_client(&TransportOptions::default()).unwrap()
}

fn sign_in(site: &Site) -> SignIn {
    SignIn::new(http(), transport::base_url(&site.base).unwrap(), "ten", "app", String::from("s3cret").into())
}

fn arm(site: &Site, token: Option<Token>) -> ArmClient {
    ArmClient::new(http(), sign_in(site), "sub", token)
}

fn registry() -> RegistryRef {
    RegistryRef { group: "rg".into(), name: "myreg".into() }
}

fn token(asked: &Asked) -> Option<Say> {
    (asked.target == "/ten/oauth2/v2.0/token").then(|| Say::json(json!({"access_token": "new", "expires_in": 3599})))
}

#[tokio::test]
async fn a_stale_token_is_replaced_and_the_new_one_kept() {
    let site = Site::start(|asked| {
        token(asked).unwrap_or_else(|| match asked.header("authorization") {
            Some("Bearer new") => Say::json(json!({"value": [{"name": "rg"}]})),
            _ => Say::status(401).body(r#"{"error":{"code":"InvalidAuthenticationToken","message":"no"}}"#),
        })
    })
    .await;
    let arm = arm(&site, Some(Token { secret: String::from("old").into(), expires: i64::MAX }));
    assert_eq!(arm.groups().await.unwrap(), [json!({"name": "rg"})]);
    assert_eq!(arm.kept_token().unwrap().secret.expose(), "new");
    let sent = site.asked().into_iter().find(|a| a.method == "POST").unwrap().text();
    let scope = site.base.replace(':', "%3A").replace('/', "%2F");
    assert_eq!(
        sent,
        format!("grant_type=client_credentials&client_id=app&client_secret=s3cret&scope={scope}%2F.default")
    );
}

#[tokio::test]
async fn lists_go_on_and_stay_with_their_server() {
    let site = Site::start(|asked| {
        let host = asked.header("host").unwrap_or_default();
        token(asked).unwrap_or_else(|| match asked.target.as_str() {
            t if t.contains("page=2") => Say::json(json!({"value": [2], "nextLink": "http://evil.example/page=3"})),
            _ => Say::json(json!({"value": [1], "nextLink": format!("http://{host}/x?page=2")})),
        })
    })
    .await;
    let error = arm(&site, None).registries(None).await.unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
    assert!(
        site.lines()[1]
            .starts_with("GET /subscriptions/sub/providers/Microsoft.ContainerRegistry/registries?api-version=")
    );
}

#[tokio::test]
async fn operations_are_waited_for() {
    let site = Site::start(|asked| {
        let host = asked.header("host").unwrap_or_default();
        token(asked).unwrap_or_else(|| match (asked.method.as_str(), asked.target.split('?').next().unwrap()) {
            ("DELETE", _) => Say::status(202).header("location", format!("http://{host}/operations/1")),
            ("GET", "/operations/1") => Say::status(200),
            ("PUT", _) => Say::status(201).header("azure-asyncoperation", "/operations/2").body("{}"),
            ("GET", "/operations/2") => {
                Say::json(json!({"status": "Failed", "error": {"code": "Quota", "message": "no room"}}))
            }
            _ => Say::status(500),
        })
    })
    .await;
    let arm = arm(&site, None);
    arm.delete_group("rg", true).await.unwrap();
    let error = arm.put_group("rg", "eastus", None).await.unwrap_err();
    assert_eq!(error.to_string(), "(Quota) no room");
}

#[tokio::test]
async fn a_build_on_the_wire() {
    let site = Site::start(|asked| {
        token(asked).unwrap_or_else(|| match asked.target.split(['?']).next().unwrap().rsplit('/').next().unwrap() {
            "listBuildSourceUploadUrl" => {
                Say::json(json!({"relativePath": "source/x.tar.gz", "uploadUrl": "https://h/blob/a/b/c?sig=1"}))
            }
            "scheduleRun" => Say::json(json!({"id": "/…/runs/cb1", "name": "cb1",
                "type": "Microsoft.ContainerRegistry/registries/runs",
                "properties": {"runId": "cb1", "status": "Queued", "runType": "QuickBuild", "task": null}})),
            "listLogSasUrl" => Say::json(json!({"logLink": "https://h/blob/a/logs/l?sig=2", "logArtifactLink": null})),
            _ => Say::status(500),
        })
    })
    .await;
    let arm = arm(&site, None);
    assert_eq!(arm.source_upload(&registry()).await.unwrap().relative_path, "source/x.tar.gz");
    let request = DockerBuildRequest {
        image_names: vec!["flask-echo:v1.0.0".into(), "flask-echo:latest".into()],
        is_push_enabled: true,
        no_cache: false,
        source_location: Some("source/x.tar.gz".into()),
        platform: RunPlatform { os: "linux".into(), architecture: Some("amd64".into()), variant: None },
        docker_file_path: "00112233445566778899aabbccddeeff_Dockerfile".into(),
        target: None,
        arguments: vec![Argument::new("APP_ENV", "production", false), Argument::new("KEY", "hush", true)],
        timeout: None,
        log_template: None,
        credentials: None,
        build_options: BuildOptions {
            secrets: vec![BuildSecret::new("token", b"hush")],
            ssh: vec![BuildSsh::forwarded("default"), BuildSsh::with_keys("git", [b"hush".as_slice()])],
            contexts: vec![BuildSource { name: "lib".into(), source: "https://u:hush@h/r".into() }],
            check: true,
            ..BuildOptions::default()
        },
    };
    let shown = format!("{request:?}");
    assert!(!shown.contains("hush") && !shown.contains("aHVzaA"), "secrets do not print: {shown}");
    let run: Run = serde_json::from_value(arm.schedule_build(&registry(), &request).await.unwrap()).unwrap();
    assert_eq!((run.properties.run_id.as_str(), run.is_over()), ("cb1", false));
    assert_eq!(arm.log_url(&registry(), "cb1").await.unwrap(), "https://h/blob/a/logs/l?sig=2");
    let sent = site.asked().into_iter().find(|a| a.target.contains("scheduleRun")).unwrap();
    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
    expect![[r#"
        {
          "type": "DockerBuildRequest",
          "imageNames": [
            "flask-echo:v1.0.0",
            "flask-echo:latest"
          ],
          "isPushEnabled": true,
          "noCache": false,
          "sourceLocation": "source/x.tar.gz",
          "platform": {
            "os": "linux",
            "architecture": "amd64"
          },
          "dockerFilePath": "00112233445566778899aabbccddeeff_Dockerfile",
          "arguments": [
            {
              "type": "Argument",
              "name": "APP_ENV",
              "value": "production",
              "isSecret": false
            },
            {
              "type": "Argument",
              "name": "KEY",
              "value": "hush",
              "isSecret": true
            }
          ],
          "buildOptions": {
            "secrets": [
              {
                "id": "token",
                "value": "aHVzaA=="
              }
            ],
            "ssh": [
              {
                "id": "default",
                "forward": true
              },
              {
                "id": "git",
                "keys": [
                  "aHVzaA=="
                ]
              }
            ],
            "contexts": [
              {
                "name": "lib",
                "source": "https://u:hush@h/r"
              }
            ],
            "check": true
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&sent).unwrap());
}

#[tokio::test]
async fn filters_and_names_are_encoded() {
    let site = Site::start(|asked| token(asked).unwrap_or_else(|| Say::json(json!({"value": [1, 2, 3]})))).await;
    let arm = arm(&site, None);
    let runs = arm.runs(&registry(), Some("TaskName eq 'x y'"), 2).await.unwrap();
    assert_eq!(runs, [1, 2]);
    assert!(site.lines()[1].ends_with("&$top=2&$filter=TaskName%20eq%20%27x%20y%27"), "{}", site.lines()[1]);
    arm.group("a b/../c").await.unwrap();
    assert!(site.lines()[2].contains("/resourceGroups/a%20b%2F..%2Fc?"), "{}", site.lines()[2]);
}

fn data_plane(asked: &Asked) -> Say {
    token(asked).unwrap_or_else(|| match asked.target.split('?').next().unwrap() {
        "/oauth2/exchange" => Say::json(json!({"refresh_token": "refresh"})),
        "/oauth2/token" if asked.text().contains("refresh_token=stale") => {
            Say::status(401).body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"expired"}]}"#)
        }
        "/oauth2/token" => Say::json(json!({"access_token": "access"})),
        _ if asked.header("authorization") != Some("Bearer access") => Say::status(401),
        "/v2/_catalog" if asked.target.contains("last=b") => Say::json(json!({"repositories": ["c", "d"]})),
        "/v2/_catalog" => {
            Say::json(json!({"repositories": ["a", "b"]})).header("link", "</v2/_catalog?last=b&n=2>; rel=\"next\"")
        }
        _ => Say::status(404),
    })
}

#[tokio::test]
async fn a_first_request_exchanges_and_a_second_does_not() {
    let site = Site::start(data_plane).await;
    let acr = AcrClient::new(http(), &site.base, Login::Directory(sign_in(&site)), AcrTokens::default()).unwrap();
    let all = acr.list("/v2/_catalog", "registry:catalog:*", "repositories", None, None).await.unwrap();
    assert_eq!(all, ["a", "b", "c", "d"]);
    assert_eq!(site.asked().len(), 5, "sign in, exchange, token, two pages");
    let three =
        acr.list("/v2/_catalog", "registry:catalog:*", "repositories", Some(3), Some("timedesc")).await.unwrap();
    assert_eq!(three, ["a", "b", "c"]);
    assert_eq!(site.asked()[5].target, "/v2/_catalog?n=3&orderby=timedesc");
    assert!(site.asked()[0].text().contains("containerregistry.azure.net"));
    let exchange = site.asked()[1].text();
    assert!(exchange.starts_with("grant_type=access_token&service=127.0.0.1%3A"), "{exchange}");

    let again = AcrClient::new(http(), &site.base, Login::Directory(sign_in(&site)), acr.kept()).unwrap();
    again.list("/v2/_catalog", "registry:catalog:*", "repositories", Some(1), None).await.unwrap();
    assert_eq!(site.asked().len(), 8, "with kept tokens one request is enough");
}

#[tokio::test]
async fn kept_tokens_that_no_longer_hold_are_replaced() {
    let site = Site::start(data_plane).await;
    let stale = |text: &str| Token { secret: text.to_owned().into(), expires: i64::MAX };
    let kept =
        AcrTokens { refresh: Some(stale("stale")), access: [("registry:catalog:*".to_owned(), stale("old"))].into() };
    let acr = AcrClient::new(http(), &site.base, Login::Directory(sign_in(&site)), kept).unwrap();
    let all = acr.list("/v2/_catalog", "registry:catalog:*", "repositories", None, None).await.unwrap();
    assert_eq!(all.len(), 4);
    assert_eq!(acr.kept().refresh.unwrap().secret.expose(), "refresh");
}

#[tokio::test]
async fn a_password_needs_no_directory() {
    let site = Site::start(data_plane).await;
    let login = Login::Password { username: "myreg".into(), password: String::from("pw").into() };
    let acr = AcrClient::new(http(), &site.base, login, AcrTokens::default()).unwrap();
    acr.list("/v2/_catalog", "registry:catalog:*", "repositories", Some(1), None).await.unwrap();
    assert_eq!(site.asked().len(), 2);
    let sent = site.asked()[0].text();
    assert!(sent.contains("grant_type=password") && sent.contains("username=myreg&password=pw"), "{sent}");
}

#[tokio::test]
async fn a_request_over_a_rate_is_made_again_when_the_server_says() {
    let left = std::sync::atomic::AtomicU32::new(2);
    let site = Site::start(move |asked| {
        token(asked).unwrap_or_else(|| {
            match left.fetch_update(SeqCst, SeqCst, |n: u32| n.checked_sub(1)) {
                // Nothing else would make the client wait for less than its own pauses.
                Ok(_) => Say::status(429).header("retry-after", "0"),
                Err(_) => Say::json(json!({"value": [{"name": "rg"}]})),
            }
        })
    })
    .await;
    assert_eq!(arm(&site, None).groups().await.unwrap(), [json!({"name": "rg"})]);
    let asked = site.lines().iter().filter(|line| line.starts_with("GET")).count();
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn even_a_post_is_made_again_after_a_429_and_not_after_a_500() {
    for (status, expected) in [(429, 4), (500, 1)] {
        let site =
            Site::start(move |asked| token(asked).unwrap_or_else(|| Say::status(status).header("retry-after", "0")))
                .await;
        let refused = arm(&site, None).source_upload(&registry()).await.unwrap_err();
        assert!(matches!(&refused, portolan_api::Error::Refused(r) if r.status == status), "{refused}");
        let posts = site.asked().iter().filter(|a| a.method == "POST" && !a.target.contains("token")).count();
        assert_eq!(posts, expected, "{status}");
    }
}
