//! Registry sign-in over HTTP: the challenge, the exchange, and both forms of the token
//! endpoint, with every wrong credential.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::TestServer;

const NULL_USER: &str = "00000000-0000-0000-0000-000000000000";

async fn status_of(res: Response) -> (u16, String, String) {
    let header = |res: &Response| {
        res.headers().get("www-authenticate").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let (status, challenge) = (res.status().as_u16(), header(&res));
    (status, challenge, res.text().await.unwrap())
}

async fn form(t: &TestServer, login: &str, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let res = t.site.client.post(format!("https://{login}{path}")).form(form).send().await.unwrap();
    (res.status().as_u16(), res.json().await.unwrap())
}

/// `GET path` with a bearer token: the status.
async fn get(t: &TestServer, login: &str, token: &str, path: &str) -> u16 {
    t.site.registry(login, token, Method::GET, path).send().await.unwrap().status().as_u16()
}

async fn admin_passwords(t: &TestServer, name: &str) -> [String; 2] {
    let path = format!("{}/listCredentials", portolan_testkit::Site::registry_path(name));
    let res = t.site.arm(Method::POST, &path, None).await.unwrap();
    assert_eq!(res.status(), 200);
    let answer: Value = res.json().await.unwrap();
    assert_eq!(answer["username"], json!(name));
    [0, 1].map(|i| answer["passwords"][i]["value"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_challenge_is_what_clients_split() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("myreg").await.unwrap();
    let ask = async |path: &str| status_of(t.get(format!("https://{login}{path}")).await).await;
    let plain = format!(r#"Bearer realm="https://{login}/oauth2/token",service="{login}""#);
    let (status, challenge, body) = ask("/v2/").await;
    assert_eq!((status, &challenge), (401, &plain));
    assert!(body.contains(r#""code":"UNAUTHORIZED""#), "{body}");
    let (status, challenge, _) = ask("/v2/a/b/manifests/v1").await;
    assert_eq!((status, challenge), (401, format!(r#"{plain},scope="repository:a/b:pull""#)));
    let (status, challenge, _) = ask("/v2/_catalog").await;
    assert_eq!((status, challenge), (401, format!(r#"{plain},scope="registry:catalog:*""#)));
    // A bad credential is challenged like none at all.
    for header in ["Bearer nonsense", "Bearer ", "Basic !!", "Basic dTpw", "Negotiate x"] {
        let url = format!("https://{login}/v2/a/b/manifests/v1");
        let res = t.site.client.get(url).header("authorization", header).send().await.unwrap();
        let (status, challenge, _) = status_of(res).await;
        assert_eq!((status, challenge), (401, format!(r#"{plain},scope="repository:a/b:pull""#)), "{header}");
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn docker_gets_tokens_by_both_forms() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("myreg").await.unwrap();
    t.site.push_image(&login, "a", "v1", &[b"layer"]).await.unwrap();
    let refresh = t.site.refresh_token(&login).await.unwrap();
    let [first, second] = admin_passwords(&t, "myreg").await;
    let b = &t.site.bootstrap;
    let pairs =
        [(NULL_USER, refresh.as_str()), ("myreg", &first), ("myreg", &second), (&b.client_id, &b.client_secret)];
    for (user, password) in pairs {
        let url = format!(
            "https://{login}/oauth2/token?account={user}&client_id=docker&offline_token=true&scope=repository%3Aa%3Apull&service={login}"
        );
        let res = t.site.client.get(url).basic_auth(user, Some(password)).send().await.unwrap();
        assert_eq!(res.status(), 200, "{user}");
        let answer: Value = res.json().await.unwrap();
        assert_eq!(answer["access_token"], answer["token"]);
        assert!(answer["expires_in"].as_u64().unwrap() > 4_000);
        let token = answer["token"].as_str().unwrap();
        assert_eq!(get(&t, &login, token, "/v2/").await, 200);
        assert_eq!(get(&t, &login, token, "/v2/a/manifests/v1").await, 200);

        let (status, answer) = form(
            &t,
            &login,
            "/oauth2/token",
            &[
                ("grant_type", "password"),
                ("service", &login),
                ("username", user),
                ("password", password),
                ("scope", "repository:a:pull"),
                ("scope", "repository:b:pull registry:catalog:*"),
            ],
        )
        .await;
        assert_eq!(status, 200, "{answer}");
        let token = answer["access_token"].as_str().unwrap();
        assert_eq!(get(&t, &login, token, "/v2/a/manifests/v1").await, 200);
        assert_eq!(get(&t, &login, token, "/v2/_catalog").await, 200);

        // And Basic, straight on the data plane.
        for path in ["/v2/", "/v2/a/manifests/v1", "/v2/_catalog", "/acr/v1/a/_tags"] {
            let url = format!("https://{login}{path}");
            let res = t.site.client.get(url).basic_auth(user, Some(password)).send().await.unwrap();
            assert_eq!(res.status(), 200, "{user} {path}");
        }
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_get_no_token() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("myreg").await.unwrap();
    let refresh = t.site.refresh_token(&login).await.unwrap();
    let access = t.site.token(&login, "repository:a:pull").await.unwrap();
    let arm = t.site.arm_token().await.unwrap();
    let [first, _] = admin_passwords(&t, "myreg").await;
    for (user, password) in [
        ("myreg", "wrong"),
        ("MYREG", ""),
        ("other", &first),
        (NULL_USER, &first),
        (NULL_USER, &access),
        (NULL_USER, &arm),
        (NULL_USER, "a.b.c"),
        (&t.site.bootstrap.client_id, &first),
    ] {
        let url = format!("https://{login}/oauth2/token?service={login}&scope=repository:a:pull");
        let res = t.site.client.get(url).basic_auth(user, Some(password)).send().await.unwrap();
        let (status, _, body) = status_of(res).await;
        assert_eq!(status, 401, "{user}");
        assert!(body.contains("UNAUTHORIZED") && !body.contains(&first), "{body}");
    }
    // Nobody at all, where anonymous pull is off.
    assert_eq!(t.get(format!("https://{login}/oauth2/token?service={login}")).await.status(), 401);

    let exchange = |kind, token| [("grant_type", kind), ("service", login.as_str()), ("access_token", token)];
    for (fields, expected) in [
        (exchange("access_token", access.as_str()), 401),
        (exchange("access_token", refresh.as_str()), 401),
        (exchange("access_token", "nonsense"), 401),
        (exchange("access_token", ""), 400),
        (exchange("client_credentials", arm.as_str()), 400),
    ] {
        let (status, answer) = form(&t, &login, "/oauth2/exchange", &fields).await;
        assert_eq!(status, expected, "{answer}");
        assert!(answer["errors"][0]["code"].is_string());
    }
    let (status, _) = form(&t, &login, "/oauth2/exchange", &exchange("access_token", &arm)).await;
    assert_eq!(status, 200, "a token for the control plane may be exchanged");
    let unknown = [("grant_type", "refresh_token"), ("service", "nobody.example"), ("refresh_token", &refresh)];
    assert_eq!(form(&t, &login, "/oauth2/token", &unknown).await.0, 404);
    let url = format!("https://{login}/oauth2/token");
    assert_eq!(t.site.client.put(url).send().await.unwrap().status(), 405);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_token_opens_no_other_repository_and_no_other_registry() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("myreg").await.unwrap();
    let other = t.site.make_registry("other1").await.unwrap();
    for (login, repo) in [(&login, "a"), (&login, "b"), (&other, "a")] {
        t.site.push_image(login, repo, "v1", &[b"layer"]).await.unwrap();
    }
    let token = t.site.token(&login, "repository:a:pull").await.unwrap();
    assert_eq!(get(&t, &login, &token, "/v2/a/manifests/v1").await, 200);
    for path in ["/v2/b/manifests/v1", "/v2/a/b/manifests/v1", "/v2/_catalog", "/acr/v1/a/_tags", "/acr/v1/b"] {
        assert_eq!(get(&t, &login, &token, path).await, 401, "{path}");
    }
    for (method, path) in [
        (Method::POST, "/v2/a/blobs/uploads/"),
        (Method::PUT, "/v2/a/manifests/v2"),
        (Method::DELETE, "/v2/a/manifests/v1"),
        (Method::DELETE, "/acr/v1/a"),
    ] {
        let res = t.site.registry(&login, &token, method.clone(), path).send().await.unwrap();
        assert_eq!(res.status(), 401, "{method} {path}");
    }
    assert_eq!(get(&t, &other, &token, "/v2/a/manifests/v1").await, 401, "another registry");
    let refresh = t.site.refresh_token(&login).await.unwrap();
    let there = [
        ("grant_type", "refresh_token"),
        ("service", other.as_str()),
        ("scope", "repository:a:pull"),
        ("refresh_token", refresh.as_str()),
    ];
    assert_eq!(form(&t, &other, "/oauth2/token", &there).await.0, 401);
    // Nor the control plane.
    let url = format!("{}/subscriptions?api-version=2022-12-01", t.site.url);
    for token in [&token, &refresh] {
        let res = t.site.client.get(&url).bearer_auth(token).send().await.unwrap();
        assert_eq!(res.status(), 401);
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_renewed_password_ends_the_old_one() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("myreg").await.unwrap();
    let [first, second] = admin_passwords(&t, "myreg").await;
    let path = format!("{}/regenerateCredential", portolan_testkit::Site::registry_path("myreg"));
    let res = t.site.arm(Method::POST, &path, Some(json!({"name": "password"}))).await.unwrap();
    assert_eq!(res.status(), 200);
    let [renewed, same] = admin_passwords(&t, "myreg").await;
    assert!(renewed != first && same == second);
    let basic = async |password: &str| {
        let req = t.site.client.get(format!("https://{login}/v2/")).basic_auth("myreg", Some(password));
        req.send().await.unwrap().status().as_u16()
    };
    assert_eq!((basic(&first).await, basic(&renewed).await, basic(&second).await), (401, 200, 200));
    let res = t.site.arm(Method::POST, &path, Some(json!({"name": "password3"}))).await.unwrap();
    assert_eq!(res.status(), 400);
    t.server.shutdown().await.unwrap();
}
