//! Signing in as a person, by a device code, as a managed identity; the directory's lists.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portolan_api::arm::ArmClient;
use portolan_api::graph::Graph;
use portolan_api::identity::{Credential, ManagedEndpoint, ManagedIdentity, SignIn, Which, person};
use portolan_api::transport::{self, TransportOptions};
use portolan_api::{HttpClient, Token};
use serde_json::json;

use super::site::{Say, Site};

fn http() -> HttpClient {
    transport::http_client(&TransportOptions::default()).unwrap()
}

fn sign_in(site: &Site, credential: Credential) -> SignIn {
    SignIn::with(http(), transport::base_url(&site.base).unwrap(), "ten", credential)
}

fn id_token() -> String {
    format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"tid":"ten","preferred_username":"ada@example.com"}"#))
}

#[tokio::test]
async fn each_refresh_token_is_answered_with_the_next() {
    let site =
        Site::start(|_| Say::json(json!({"access_token": "a", "refresh_token": "second", "expires_in": 60}))).await;
    let ada = sign_in(&site, Credential::Refresh(String::from("first").into()));
    // A copy for the data plane learns what the other did.
    let copy = ada.clone();
    ada.arm_token().await.unwrap();
    assert_eq!(copy.refresh_token().unwrap().expose(), "second");
    copy.token("https://containerregistry.azure.net").await.unwrap();
    let sent: Vec<String> = site.asked().iter().map(|a| a.text()).collect();
    assert!(sent[0].contains("refresh_token=first&"), "{sent:?}");
    assert!(sent[1].contains("refresh_token=second&"), "{sent:?}");
    assert!(sent.iter().all(|s| !s.contains("client_secret")), "{sent:?}");
}

#[tokio::test]
async fn a_device_code_is_asked_about_until_it_was_typed() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let site = Site::start(|asked| match asked.target.as_str() {
        "/organizations/oauth2/v2.0/devicecode" => Say::json(json!({"message": "type ABC", "user_code": "ABC",
            "verification_uri": "u", "device_code": "dev", "expires_in": 60, "interval": 1})),
        _ if ASKED.fetch_add(1, SeqCst) == 0 => {
            Say::status(400).body(r#"{"error":"authorization_pending","error_description":"not yet"}"#)
        }
        _ => Say::json(json!({"access_token": "a", "refresh_token": "r", "id_token": id_token()})),
    })
    .await;
    let base = transport::base_url(&site.base).unwrap();
    let code = person::device_code(&http(), &base, person::ANY_TENANT).await.unwrap();
    assert_eq!(code.message, "type ABC");
    let (ada, token) = person::by_device_code(&http(), &base, person::ANY_TENANT, &code).await.unwrap();
    assert_eq!(
        (ada.name.as_str(), ada.tenant.as_str(), token.secret.expose().as_str()),
        ("ada@example.com", "ten", "a")
    );
    assert_eq!(ASKED.load(SeqCst), 2);
}

#[tokio::test]
async fn managed_identities_are_asked_for_in_three_forms() {
    let site = Site::start(|_| Say::json(json!({"access_token": "a", "expires_on": "9999999999"}))).await;
    let which = || Which::ClientId("c".into());
    let url = format!("{}/msi", site.base);
    for endpoint in [
        ManagedEndpoint::AppService { url: url.clone(), header: String::from("proof").into() },
        ManagedEndpoint::Msi { url, secret: String::from("proof").into() },
        ManagedEndpoint::Imds { host: site.base.clone() },
    ] {
        let managed = ManagedIdentity { endpoint, which: which() };
        let token = sign_in(&site, Credential::Managed(managed)).token("https://r/").await.unwrap();
        assert_eq!(token.expires, 9_999_999_999);
    }
    let asked = site.asked();
    let targets: Vec<&str> = asked.iter().map(|a| a.target.as_str()).collect();
    assert_eq!(
        targets,
        [
            "/msi?api-version=2019-08-01&resource=https%3A%2F%2Fr&client_id=c",
            "/msi?api-version=2017-09-01&resource=https%3A%2F%2Fr&clientid=c",
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fr&client_id=c",
        ]
    );
    assert_eq!(asked[0].header("x-identity-header"), Some("proof"));
    assert_eq!(asked[1].header("secret"), Some("proof"));
    assert_eq!(asked[2].header("metadata"), Some("true"));
}

#[tokio::test]
async fn the_directorys_lists_stay_with_their_server() {
    let site = Site::start(|asked| match asked.target.as_str() {
        t if t.contains("page=2") => {
            Say::json(json!({"value": [2], "@odata.nextLink": "http://evil.example/v1.0/users"}))
        }
        _ => {
            let host = asked.header("host").unwrap_or_default();
            Say::json(json!({"value": [1], "@odata.nextLink": format!("http://{host}/v1.0/users?page=2")}))
        }
    })
    .await;
    let token = Token { secret: String::from("t").into(), expires: i64::MAX };
    let nobody = Credential::Secret { client_id: "app".into(), secret: String::new().into() };
    let arm = ArmClient::new(http(), sign_in(&site, nobody), "sub", Some(token));
    let error = Graph(&arm).list("users", Some("displayName eq 'a b'"), None).await.unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
    assert_eq!(site.lines()[0], "GET /v1.0/users?$filter=displayName%20eq%20%27a%20b%27");
    assert_eq!(Graph(&arm).list("users", None, Some(1)).await.unwrap(), [json!(1)], "no page more than is needed");
}
