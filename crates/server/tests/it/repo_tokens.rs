//! Repository tokens and scope maps over HTTP: the control plane as `az acr token` and
//! `az acr scope-map` use it, and what a token may then do as docker.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::TestServer;

/// A registry with tokens.
struct Reg {
    t: TestServer,
    name: &'static str,
    login: String,
}

impl Reg {
    async fn start(name: &'static str) -> Reg {
        let t = TestServer::start().await;
        let login = t.site.make_registry(name).await.unwrap();
        Reg { t, name, login }
    }

    /// A control-plane request below the registry: status and body.
    async fn arm(&self, method: Method, rest: &str, body: Option<Value>) -> (u16, Value) {
        let path = format!("{}/{rest}", portolan_testkit::Site::registry_path(self.name));
        let res = self.t.site.arm(method, &path, body).await.unwrap();
        let status = res.status().as_u16();
        let text = res.text().await.unwrap();
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
    }

    fn id(&self, kind: &str, name: &str) -> String {
        let sub = &self.t.site.bootstrap.subscription_id;
        format!("/subscriptions/{sub}{}/{kind}/{name}", portolan_testkit::Site::registry_path(self.name))
    }

    async fn scope_map(&self, name: &str, actions: &[&str]) -> Value {
        let body = json!({"properties": {"actions": actions}});
        let (status, answer) = self.arm(Method::PUT, &format!("scopeMaps/{name}"), Some(body)).await;
        assert!(matches!(status, 200 | 201), "{answer}");
        answer
    }

    /// A token with this scope map and both passwords.
    async fn token(&self, name: &str, map: &str) -> [String; 2] {
        let body = json!({"properties": {"scopeMapId": self.id("scopeMaps", map), "status": "enabled"}});
        let (status, answer) = self.arm(Method::PUT, &format!("tokens/{name}"), Some(body)).await;
        assert!(matches!(status, 200 | 201), "{answer}");
        let made = self.generate(name, json!({})).await;
        [0, 1].map(|i| made["passwords"][i]["value"].as_str().unwrap().to_owned())
    }

    async fn generate(&self, name: &str, more: Value) -> Value {
        let mut body = json!({"tokenId": self.id("tokens", name)});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let (status, answer) = self.arm(Method::POST, "generateCredentials", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn patch(&self, rest: &str, properties: Value) -> Value {
        let (status, answer) = self.arm(Method::PATCH, rest, Some(json!({"properties": properties}))).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// What docker does: `GET /oauth2/token` with Basic. The token, or the status.
    async fn docker(&self, user: &str, password: &str, scope: &str) -> Result<String, u16> {
        let url = format!(
            "https://{0}/oauth2/token?account={user}&client_id=docker&offline_token=true&service={0}&scope={scope}",
            self.login
        );
        let res = self.t.site.client.get(url).basic_auth(user, Some(password)).send().await.unwrap();
        match res.status().as_u16() {
            200 => Ok(res.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned()),
            status => Err(status),
        }
    }

    /// A data-plane request with a bearer token: the status.
    async fn with(&self, token: &str, method: Method, path: &str) -> u16 {
        self.t.site.registry(&self.login, token, method, path).send().await.unwrap().status().as_u16()
    }

    /// A data-plane request with Basic: the status.
    async fn basic(&self, user: &str, password: &str, method: Method, path: &str) -> u16 {
        let url = format!("https://{}{path}", self.login);
        let req = self.t.site.client.request(method, url).basic_auth(user, Some(password));
        req.send().await.unwrap().status().as_u16()
    }
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// The grants of an access token: `repository:a:pull,push`.
fn grants(token: &str) -> String {
    let claims = claims(token);
    let one = |g: &Value| {
        let actions: Vec<&str> = g["actions"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        format!("{}:{}:{}", g["type"].as_str().unwrap(), g["name"].as_str().unwrap(), actions.join(","))
    };
    claims["access"].as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(" ")
}

const READ: &str = "repositories/a/content/read";

#[tokio::test]
async fn az_makes_a_token_with_a_scope_map_of_its_own() {
    let r = Reg::start("myreg").await;
    let (status, answer) = r.arm(Method::GET, "scopeMaps/token1-scope-map", None).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("ResourceNotFound")));
    let body = json!({"properties": {"description": "Created by token: token1", "actions": [READ, READ]}});
    let (status, map) = r.arm(Method::PUT, "scopeMaps/token1-scope-map", Some(body)).await;
    assert_eq!(status, 201, "{map}");
    assert_eq!(map["properties"]["actions"], json!([READ]), "each action once");
    assert_eq!(map["properties"]["type"], json!("UserDefined"));
    assert_eq!(map["id"], json!(r.id("scopeMaps", "token1-scope-map")));

    let body = json!({"properties": {"scopeMapId": map["id"], "status": "enabled"}});
    let (status, token) = r.arm(Method::PUT, "tokens/token1", Some(body)).await;
    assert_eq!(status, 201, "{token}");
    assert_eq!(token["properties"]["scopeMapId"], map["id"]);
    assert_eq!(token["properties"]["credentials"], json!({"passwords": []}));
    assert_eq!(token["properties"]["provisioningState"], json!("Succeeded"));

    let made = r.generate("token1", json!({"expiry": "9999-12-31T23:59:59.999999Z"})).await;
    assert_eq!(made["username"], json!("token1"));
    let names: Vec<&Value> = made["passwords"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, [&json!("password1"), &json!("password2")]);
    assert!(made["passwords"][0]["value"].as_str().unwrap().len() >= 40);

    // Values are shown once.
    let (_, shown) = r.arm(Method::GET, "tokens/token1", None).await;
    let text = shown.to_string();
    assert!(text.contains("password2") && !text.contains("\"value\""), "{text}");
    assert!(!text.contains(made["passwords"][0]["value"].as_str().unwrap()));

    // As `az acr token credential delete --password1` says it: the one that stays, and no expiry.
    let patch = json!({"credentials": {"passwords": [{"name": "password2"}]}});
    let left = r.patch("tokens/token1", patch.clone()).await;
    let left = left["properties"]["credentials"]["passwords"].as_array().unwrap().clone();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["name"], json!("password2"));
    assert!(left[0]["expiry"].as_str().unwrap().starts_with("9999-12-31"), "the expiry stays: {}", left[0]);
    let gone = json!({"properties": {"credentials": {"passwords": [{"name": "password1"}]}}});
    assert_eq!(r.arm(Method::PATCH, "tokens/token1", Some(gone)).await.0, 400);

    let (_, list) = r.arm(Method::GET, "tokens", None).await;
    assert_eq!(list["value"].as_array().unwrap().len(), 1);
    assert_eq!(r.arm(Method::DELETE, "tokens/token1", None).await.0, 200);
    assert_eq!(r.arm(Method::DELETE, "tokens/token1", None).await.0, 204);
    assert_eq!(r.arm(Method::GET, "tokens/token1", None).await.0, 404);
    r.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_registry_has_the_system_scope_maps() {
    let r = Reg::start("myreg").await;
    r.scope_map("zz-mine", &[READ]).await;
    let (_, list) = r.arm(Method::GET, "scopeMaps", None).await;
    let found: Vec<(String, String)> = list["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["name"].as_str().unwrap().to_owned(), m["properties"]["type"].as_str().unwrap().to_owned()))
        .collect();
    let system = |name: &str| (name.to_owned(), "SystemDefined".to_owned());
    for name in ["_repositories_admin", "_repositories_pull", "_repositories_push"] {
        assert!(found.contains(&system(name)), "{found:?}");
    }
    assert_eq!(found.last().unwrap(), &("zz-mine".to_owned(), "UserDefined".to_owned()));
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let body = (method != Method::DELETE).then(|| json!({"properties": {"actions": [READ]}}));
        let (status, answer) = r.arm(method.clone(), "scopeMaps/_Repositories_Pull", body).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("CannotModifySystemScopeMap")), "{method}");
    }
    let [password, _] = r.token("puller", "_repositories_pull").await;
    let token = r.docker("puller", &password, "repository:any/where:pull,push,delete").await.unwrap();
    assert_eq!(grants(&token), "repository:any/where:pull");
    let [password, _] = r.token("admin-token", "_repositories_admin").await;
    let token = r.docker("admin-token", &password, "repository:*:*%20registry:catalog:*").await.unwrap();
    assert_eq!(grants(&token), "repository:*:*", "and never the catalog");
    assert_eq!(r.with(&token, Method::GET, "/v2/_catalog").await, 401);
    assert_eq!(r.basic("admin-token", &password, Method::GET, "/v2/_catalog").await, 403);
    r.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_token_does_what_its_scope_map_says_and_nothing_else() {
    let r = Reg::start("myreg").await;
    for repo in ["a", "b", "team/x", "team/x/y"] {
        r.t.site.push_image(&r.login, repo, "v1", &[b"layer"]).await.unwrap();
    }
    r.scope_map("reader", &[READ, "repositories/team/*/content/read", "repositories/team/*/metadata/read"]).await;
    let [password, second] = r.token("Reader-1", "reader").await;
    for (user, password) in [("Reader-1", &password), ("reader-1", &second), ("READER-1", &password)] {
        assert_eq!(r.basic(user, password, Method::GET, "/v2/").await, 200);
        for (method, path, expected) in [
            (Method::GET, "/v2/a/manifests/v1", 200),
            (Method::GET, "/v2/team/x/manifests/v1", 200),
            (Method::GET, "/v2/team/x/y/manifests/v1", 200),
            (Method::GET, "/acr/v1/team/x/_tags", 200),
            (Method::GET, "/acr/v1/a/_tags", 403),
            (Method::GET, "/v2/b/manifests/v1", 403),
            (Method::POST, "/v2/a/blobs/uploads/", 403),
            (Method::DELETE, "/v2/a/manifests/v1", 403),
            (Method::DELETE, "/acr/v1/a", 403),
            (Method::GET, "/v2/_catalog", 403),
            (Method::GET, "/acr/v1/_catalog", 403),
        ] {
            assert_eq!(r.basic(user, password, method.clone(), path).await, expected, "{method} {path}");
        }
    }
    let scope = "repository:a:pull,push%20repository:b:pull&scope=repository:team/x:pull,metadata_read,delete";
    let token = r.docker("reader-1", &password, scope).await.unwrap();
    assert_eq!(grants(&token), "repository:a:pull repository:team/x:pull,metadata_read");
    assert_eq!(claims(&token)["sub"], json!("Reader-1"));
    assert_eq!(r.with(&token, Method::GET, "/v2/a/manifests/v1").await, 200);
    assert_eq!(r.with(&token, Method::GET, "/v2/b/manifests/v1").await, 401);
    // POST, with the grant of az and the SDKs.
    let form = [
        ("grant_type", "password"),
        ("service", &r.login),
        ("username", "reader-1"),
        ("password", &password),
        ("scope", "repository:a:pull"),
    ];
    let res = r.t.site.client.post(format!("https://{}/oauth2/token", r.login)).form(&form).send().await.unwrap();
    assert_eq!(grants(res.json::<Value>().await.unwrap()["access_token"].as_str().unwrap()), "repository:a:pull");
    // Neither the control plane nor another registry.
    let other = r.t.site.make_registry("other1").await.unwrap();
    let url = format!("https://{other}/v2/");
    let res = r.t.site.client.get(&url).basic_auth("reader-1", Some(&password)).send().await.unwrap();
    assert_eq!(res.status(), 401);
    assert_eq!(r.t.site.client.get(&url).bearer_auth(&token).send().await.unwrap().status(), 401);
    let url = format!("{}/subscriptions?api-version=2022-12-01", r.t.site.url);
    assert_eq!(r.t.site.client.get(&url).bearer_auth(&token).send().await.unwrap().status(), 401);
    r.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_changed_scope_map_is_effective_at_once() {
    let r = Reg::start("myreg").await;
    r.t.site.push_image(&r.login, "a", "v1", &[b"layer"]).await.unwrap();
    r.scope_map("first", &[READ, "repositories/a/content/write"]).await;
    r.scope_map("other", &["repositories/b/content/read"]).await;
    let [password, _] = r.token("token1", "first").await;
    let token = r.docker("token1", &password, "repository:a:pull,push").await.unwrap();
    let reads = async || r.with(&token, Method::GET, "/v2/a/manifests/v1").await;
    let writes = async || r.with(&token, Method::POST, "/v2/a/blobs/uploads/").await;
    assert_eq!((reads().await, writes().await), (200, 202));
    r.patch("scopeMaps/first", json!({"actions": [READ]})).await;
    assert_eq!((reads().await, writes().await), (200, 403), "the access token is the same");
    r.patch("tokens/token1", json!({"scopeMapId": r.id("scopeMaps", "OTHER")})).await;
    assert_eq!(reads().await, 403);
    r.patch("tokens/token1", json!({"scopeMapId": r.id("scopeMaps", "first")})).await;
    assert_eq!(reads().await, 200);
    // A scope map that went takes its permissions along; another of its name gives none back.
    assert_eq!(r.arm(Method::DELETE, "scopeMaps/first", None).await.0, 200);
    assert_eq!(reads().await, 403);
    r.scope_map("first", &[READ]).await;
    assert_eq!(reads().await, 403);
    let (_, shown) = r.arm(Method::GET, "tokens/token1", None).await;
    assert!(shown["properties"].get("scopeMapId").is_none());
    r.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_ends_a_password_ends_what_was_got_with_it() {
    let r = Reg::start("myreg").await;
    r.t.site.push_image(&r.login, "a", "v1", &[b"layer"]).await.unwrap();
    r.scope_map("reader", &[READ]).await;
    let [first, second] = r.token("token1", "reader").await;
    let ask = async |password: &str| r.docker("token1", password, "repository:a:pull").await;
    let pulls = async |token: &str| r.with(token, Method::GET, "/v2/a/manifests/v1").await;
    let (by_first, by_second) = (ask(&first).await.unwrap(), ask(&second).await.unwrap());
    assert_ne!(by_first, by_second);

    // Replaced.
    let made = r.generate("token1", json!({"name": "password1"})).await;
    assert_eq!(made["passwords"].as_array().unwrap().len(), 1);
    let renewed = made["passwords"][0]["value"].as_str().unwrap().to_owned();
    assert_eq!((ask(&first).await, pulls(&by_first).await), (Err(401), 401));
    assert_eq!(pulls(&by_second).await, 200, "the other password's goes on");
    let by_renewed = ask(&renewed).await.unwrap();

    // Disabled, and enabled again.
    r.patch("tokens/token1", json!({"status": "disabled"})).await;
    assert_eq!((ask(&renewed).await, pulls(&by_renewed).await, pulls(&by_second).await), (Err(401), 401, 401));
    assert_eq!(r.basic("token1", &renewed, Method::GET, "/v2/").await, 401);
    r.patch("tokens/token1", json!({"status": "enabled"})).await;
    assert_eq!(pulls(&by_renewed).await, 200);

    // Removed.
    r.patch("tokens/token1", json!({"credentials": {"passwords": [{"name": "password1"}]}})).await;
    assert_eq!((ask(&second).await, pulls(&by_second).await), (Err(401), 401));

    // Expired: a moment from now, which is waited for.
    let soon = portolan_types::Timestamp::now().plus(std::time::Duration::from_millis(1_500));
    let expiry = json!({"credentials": {"passwords": [{"name": "password1", "expiry": soon.rfc3339()}]}});
    r.patch("tokens/token1", expiry).await;
    while portolan_types::Timestamp::now() < soon {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!((ask(&renewed).await, pulls(&by_renewed).await), (Err(401), 401));

    // Deleted, and made again under the same name.
    let [again, _] = r.token("token1", "reader").await;
    let before = ask(&again).await.unwrap();
    assert_eq!(r.arm(Method::DELETE, "tokens/token1", None).await.0, 200);
    assert_eq!((ask(&again).await, pulls(&before).await), (Err(401), 401));
    r.token("token1", "reader").await;
    assert_eq!((ask(&again).await, pulls(&before).await), (Err(401), 401));
    r.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn wrong_passwords_get_one_answer_whoever_is_asked() {
    let r = Reg::start("myreg").await;
    r.scope_map("reader", &[READ]).await;
    let [good, _] = r.token("token1", "reader").await;
    let [disabled, _] = r.token("token2", "reader").await;
    r.patch("tokens/token2", json!({"status": "disabled"})).await;
    let owner = r.t.site.bootstrap.client_id.clone();
    let mut answers = Vec::new();
    for (user, password) in [
        ("token1", "wrong"),
        ("token1", ""),
        ("token1", &good[..good.len() - 1]),
        ("token1", &format!("{good}x")),
        ("token2", &disabled),
        ("token3", &good),
        ("myreg", &good),
        (&owner, &good),
        ("00000000-0000-0000-0000-000000000001", &good),
        ("", &good),
    ] {
        let url = format!("https://{0}/oauth2/token?service={0}&scope=repository:a:pull", r.login);
        let res = r.t.site.client.get(url).basic_auth(user, Some(password)).send().await.unwrap();
        answers.push((res.status().as_u16(), res.text().await.unwrap()));
    }
    assert_eq!(answers[0].0, 401);
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    assert!(r.docker("token1", &good, "repository:a:pull").await.is_ok(), "the owner is not locked out");
    r.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn bad_requests_change_nothing() {
    let r = Reg::start("myreg").await;
    r.scope_map("reader", &[READ]).await;
    let other = r.id("scopeMaps", "reader").replace("/myreg/", "/other1/");
    let put = async |rest: &str, properties: Value| {
        let (status, answer) = r.arm(Method::PUT, rest, Some(json!({"properties": properties}))).await;
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let map = r.id("scopeMaps", "reader");
    for (rest, properties, code) in [
        ("scopeMaps/tiny", json!({"actions": [READ]}), "InvalidResourceName"),
        ("scopeMaps/a%20b%20c", json!({"actions": [READ]}), "InvalidResourceName"),
        ("scopeMaps/newmap", json!({}), "InvalidParameter"),
        ("scopeMaps/newmap", json!({"actions": ["repositories/a/content/list"]}), "InvalidParameter"),
        ("scopeMaps/newmap", json!({"actions": ["repositories/../content/read"]}), "InvalidParameter"),
        ("scopeMaps/newmap", json!({"actions": vec![READ; 501]}), "InvalidParameter"),
        ("scopeMaps/newmap", json!({"actions": [READ], "description": "x".repeat(257)}), "InvalidParameter"),
        ("scopeMaps/newmap", json!({"actions": "all"}), "InvalidRequestContent"),
        ("tokens/newtoken", json!({"status": "enabled"}), "InvalidParameter"),
        ("tokens/newtoken", json!({"scopeMapId": other}), "InvalidScopeMapId"),
        ("tokens/newtoken", json!({"scopeMapId": "reader"}), "InvalidScopeMapId"),
        ("tokens/newtoken", json!({"scopeMapId": format!("{map}/../reader")}), "InvalidScopeMapId"),
        ("tokens/newtoken", json!({"scopeMapId": r.id("scopeMaps", "nowhere")}), "InvalidScopeMapId"),
        ("tokens/newtoken", json!({"scopeMapId": r.id("tokens", "reader")}), "InvalidScopeMapId"),
        ("tokens/newtoken", json!({"scopeMapId": map, "status": "on"}), "InvalidParameter"),
        ("tokens/MyReg", json!({"scopeMapId": map}), "InvalidResourceName"),
        ("tokens/00000000-0000-0000-0000-000000000000", json!({"scopeMapId": map}), "InvalidResourceName"),
        ("tokens/newtoken/passwords", json!({"scopeMapId": map}), "InvalidResourceType"),
    ] {
        let (status, got) = put(rest, properties.clone()).await;
        assert!(matches!(status, 400 | 404), "{rest} {properties} {status}");
        assert_eq!(got, code, "{rest} {properties}");
    }
    r.token("token1", "reader").await;
    for (body, code) in [
        (json!({}), "InvalidTokenId"),
        (json!({"tokenId": "token1"}), "InvalidTokenId"),
        (json!({"tokenId": r.id("tokens", "token1").replace("/myreg/", "/other1/")}), "InvalidTokenId"),
        (json!({"tokenId": r.id("tokens", "token9")}), "ResourceNotFound"),
        (json!({"tokenId": r.id("tokens", "token1"), "name": "password3"}), "InvalidParameter"),
        (json!({"tokenId": r.id("tokens", "token1"), "expiry": "2020-01-01T00:00:00Z"}), "InvalidParameter"),
        (json!({"tokenId": r.id("tokens", "token1"), "expiry": "soon"}), "InvalidParameter"),
    ] {
        let (_, answer) = r.arm(Method::POST, "generateCredentials", Some(body.clone())).await;
        assert_eq!(answer["error"]["code"], json!(code), "{body}");
    }
    let (_, maps) = r.arm(Method::GET, "scopeMaps", None).await;
    let (_, tokens) = r.arm(Method::GET, "tokens", None).await;
    let own = |list: &Value| {
        list["value"].as_array().unwrap().iter().filter(|m| m["properties"]["type"] != "SystemDefined").count()
    };
    assert_eq!((own(&maps), own(&tokens)), (1, 1));
    assert_eq!(r.arm(Method::PATCH, "tokens/token9", Some(json!({}))).await.0, 404);
    assert_eq!(r.arm(Method::PATCH, "scopeMaps/nowhere", Some(json!({}))).await.0, 404);
    assert_eq!(r.arm(Method::GET, "generateCredentials", None).await.0, 405);
    r.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn tokens_outlive_a_restart_and_not_their_registry() {
    let Reg { t, name, login } = Reg::start("myreg").await;
    let r = Reg { t, name, login };
    r.scope_map("reader", &[READ]).await;
    let [password, _] = r.token("token1", "reader").await;
    let Reg { t, name, login } = r;
    let data = t.data.clone();
    t.server.shutdown().await.unwrap();
    let t = TestServer::start_on(data, |_| {}).await;
    let port = t.site.url.rsplit_once(':').unwrap().1.to_owned();
    let login = format!("{}:{port}", login.rsplit_once(':').unwrap().0);
    let r = Reg { t, name, login };
    assert_eq!(r.basic("token1", &password, Method::GET, "/v2/").await, 200);
    let path = portolan_testkit::Site::registry_path("myreg");
    assert_eq!(r.t.site.arm(Method::DELETE, &path, None).await.unwrap().status(), 200);
    let login = r.t.site.make_registry("myreg").await.unwrap();
    let r = Reg { login, ..r };
    assert_eq!(r.basic("token1", &password, Method::GET, "/v2/").await, 401);
    assert_eq!(r.arm(Method::GET, "tokens", None).await.1["value"], json!([]));
    r.t.server.shutdown().await.unwrap();
}
