//! The identity provider over HTTP, as the Azure clients ask it.

use serde_json::{Value, json};

use crate::support::TestServer;

async fn json_of(t: &TestServer, path: &str) -> Value {
    let res = t.get(format!("{}{path}", t.site.url)).await;
    assert_eq!(res.status(), 200, "{path}");
    res.json().await.unwrap()
}

async fn token(t: &TestServer, tenant: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/{tenant}/oauth2/v2.0/token", t.site.url);
    let res = t.site.client.post(url).form(form).send().await.unwrap();
    (res.status().as_u16(), res.json().await.unwrap())
}

#[tokio::test]
async fn clients_find_everything_from_the_metadata() {
    let t = TestServer::start().await;
    let base = &t.site.url;
    let meta = json_of(&t, "/metadata/endpoints?api-version=2022-09-01").await;
    assert_eq!(meta["resourceManager"], json!(base));
    assert_eq!(meta["authentication"]["loginEndpoint"], json!(base));
    assert_eq!(meta["authentication"]["audiences"], json!([base]));
    assert_eq!(meta["suffixes"]["acrLoginServer"], json!(base.trim_start_matches("https://")));
    assert!(meta["name"].is_string());

    let tenant = &t.site.bootstrap.tenant_id;
    for named in [tenant.as_str(), "organizations", "common"] {
        let doc = json_of(&t, &format!("/{named}/v2.0/.well-known/openid-configuration")).await;
        assert_eq!(doc["issuer"], json!(format!("{base}/{tenant}/v2.0")));
        assert_eq!(doc["token_endpoint"], json!(format!("{base}/{tenant}/oauth2/v2.0/token")));
        assert!(doc["authorization_endpoint"].is_string());
        assert_eq!(doc["jwks_uri"], json!(format!("{base}/{tenant}/discovery/v2.0/keys")));
    }
    let keys = json_of(&t, &format!("/{tenant}/discovery/v2.0/keys")).await;
    let key = &keys["keys"][0];
    assert_eq!((&key["kty"], &key["alg"], &key["use"]), (&json!("RSA"), &json!("RS256"), &json!("sig")));
    assert!(key["n"].as_str().unwrap().len() > 300 && key.get("d").is_none());

    let stranger = "22222222-2222-2222-2222-222222222222";
    let res = t.get(format!("{base}/{stranger}/v2.0/.well-known/openid-configuration")).await;
    assert_eq!(res.status(), 400);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn urls_are_built_from_the_name_the_client_used_if_it_is_ours() {
    let t = TestServer::start().await;
    let port = t.server.https.port();
    let ask = async |host: String| {
        let req = t.site.client.get(format!("{}/metadata/endpoints", t.http())).header("host", host);
        req.send().await.unwrap().json::<Value>().await.unwrap()["portal"].clone()
    };
    assert_eq!(ask(format!("127.0.0.1:{port}")).await, json!(format!("http://127.0.0.1:{port}")));
    assert_eq!(ask("evil.example".into()).await, json!(format!("http://localhost:{port}")));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_service_principal_gets_a_token_for_its_secret() {
    let t = TestServer::start().await;
    let b = &t.site.bootstrap;
    let good = [
        ("grant_type", "client_credentials"),
        ("client_id", &b.client_id),
        ("client_secret", &b.client_secret),
        ("client_info", "1"),
        ("claims", r#"{"access_token": {"xms_cc": {"values": ["CP1"]}}}"#),
    ];
    for scope in [format!("{}/.default", t.site.url), "https://containerregistry.azure.net/.default".into()] {
        let mut form = good.to_vec();
        form.push(("scope", &scope));
        let (status, answer) = token(&t, &b.tenant_id, &form).await;
        assert_eq!((status, &answer["token_type"]), (200, &json!("Bearer")), "{answer}");
        assert!(answer["expires_in"].as_u64().unwrap() > 3_000 && answer["access_token"].is_string());
    }

    let scope = ("scope", "x/.default");
    let with = |i: usize, value| {
        let mut form = good.to_vec();
        form[i].1 = value;
        form.push(scope);
        form
    };
    for (form, status, error, number) in [
        (with(2, "wrong"), 401, "invalid_client", "AADSTS7000215: "),
        (with(1, "22222222-2222-2222-2222-222222222222"), 401, "invalid_client", "AADSTS7000215: "),
        (with(1, "' OR 1=1 --"), 401, "invalid_client", "AADSTS7000215: "),
        (with(0, "implicit"), 400, "unsupported_grant_type", "AADSTS70003: "),
        (good.to_vec(), 400, "invalid_request", "AADSTS900144: "),
        ([good.to_vec(), vec![("scope", "openid")]].concat(), 400, "invalid_scope", "AADSTS1002012: "),
        ([good[..2].to_vec(), vec![scope]].concat(), 401, "invalid_client", "AADSTS7000216: "),
        (vec![], 400, "invalid_request", "AADSTS900144: "),
    ] {
        let (got, answer) = token(&t, &b.tenant_id, &form).await;
        assert_eq!((got, &answer["error"]), (status, &json!(error)), "{answer}");
        let description = answer["error_description"].as_str().unwrap();
        assert!(description.starts_with(number), "{description}");
        assert!(!description.contains(&b.client_secret));
    }
    let (status, answer) = token(&t, "22222222-2222-2222-2222-222222222222", &with(2, &b.client_secret)).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_tenant")));

    // The secret as Basic, and the older address with `resource`.
    let url = format!("{}/{}/oauth2/token", t.site.url, b.tenant_id);
    let req = t.site.client.post(url).basic_auth(&b.client_id, Some(&b.client_secret));
    let res = req.form(&[("grant_type", "client_credentials"), ("resource", "https://x")]).send().await.unwrap();
    assert_eq!(res.status(), 200);
    assert_eq!(res.headers()["cache-control"], "no-store, no-cache");
    t.server.shutdown().await.unwrap();
}
