//! The directory over HTTP: Graph as command lines ask it, and what follows from it for
//! whoever is in it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::TestServer;

/// A Graph request with some token.
pub(crate) async fn graph_as(
    t: &TestServer,
    token: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let url = if path.starts_with("https://") { path.to_owned() } else { format!("{}/v1.0{path}", t.site.url) };
    let mut req = t.site.client.request(method, url).bearer_auth(token);
    if let Some(body) = body {
        req = req.json(&body);
    }
    let res = req.send().await.unwrap();
    let status = res.status().as_u16();
    let text = res.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// A Graph request as the owner.
pub(crate) async fn graph(t: &TestServer, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    graph_as(t, &t.site.arm_token().await.unwrap(), method, path, body).await
}

/// A token for this server with a secret, or the error.
pub(crate) async fn sign_in(t: &TestServer, client_id: &str, secret: &str) -> Result<String, Value> {
    let res = t.site.sign_in(client_id, secret, &format!("{}/.default", t.site.url)).await.unwrap();
    let answer: Value = res.json().await.unwrap();
    answer["access_token"].as_str().map(str::to_owned).ok_or(answer)
}

/// An application with a service principal and a secret, made as `az ad sp create-for-rbac`
/// does.
pub(crate) struct Made {
    pub(crate) app: String,
    pub(crate) app_id: String,
    pub(crate) principal: String,
    pub(crate) secret: String,
    pub(crate) key_id: String,
}

pub(crate) async fn make(t: &TestServer, name: &str) -> Made {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (status, app) =
        graph(t, Method::POST, "/applications", Some(json!({"displayName": name, "keyCredentials": []}))).await;
    assert_eq!(status, 201, "{app}");
    assert_eq!(app["passwordCredentials"], json!([]));
    let path = format!("/applications/{}/addPassword", text(&app["id"]));
    let body = json!({"passwordCredential": {"displayName": "rbac", "startDateTime": "2020-01-01T00:00:00Z",
                      "endDateTime": "2099-01-01T00:00:00Z"}});
    let (status, password) = graph(t, Method::POST, &path, Some(body)).await;
    assert_eq!((status, &password["displayName"]), (200, &json!("rbac")), "{password}");
    let body = json!({"appId": app["appId"], "accountEnabled": true});
    let (status, principal) = graph(t, Method::POST, "/servicePrincipals", Some(body)).await;
    assert_eq!((status, &principal["servicePrincipalNames"]), (201, &json!([app["appId"]])), "{principal}");
    Made {
        app: text(&app["id"]),
        app_id: text(&app["appId"]),
        principal: text(&principal["id"]),
        secret: text(&password["secretText"]),
        key_id: text(&password["keyId"]),
    }
}

#[tokio::test]
async fn applications_and_their_principals_live_and_die() {
    let t = TestServer::start().await;
    let made = make(&t, "my robot").await;
    let token = sign_in(&t, &made.app_id, &made.secret).await.unwrap();

    // What az looks them up by.
    for filter in [
        "displayName eq 'My Robot'",
        "startswith(displayName,'my')",
        &format!("servicePrincipalNames/any(c:c eq '{}')", made.app_id),
        &format!("appId eq '{}'", made.app_id),
        "displayName eq 'my robot' and accountEnabled eq true",
    ] {
        let path = format!("/servicePrincipals?$filter={}", filter.replace(' ', "%20").replace('\'', "%27"));
        let (status, found) = graph(&t, Method::GET, &path, None).await;
        assert_eq!((status, &found["value"][0]["id"]), (200, &json!(made.principal)), "{filter}: {found}");
        assert_eq!(found["value"].as_array().unwrap().len(), 1, "{filter}");
    }
    let ids = json!({"ids": [made.principal, "00000000-0000-0000-0000-000000000001"],
                     "types": ["user", "group", "servicePrincipal", "directoryObjectPartnerReference"]});
    let (_, found) = graph(&t, Method::POST, "/directoryObjects/getByIds", Some(ids)).await;
    assert_eq!(found["value"][0]["@odata.type"], "#microsoft.graph.servicePrincipal");
    assert_eq!(found["value"].as_array().unwrap().len(), 1);
    // Nobody ever sees the secret again.
    let (_, app) = graph(&t, Method::GET, &format!("/applications/{}", made.app), None).await;
    assert_eq!(app["passwordCredentials"][0]["secretText"], Value::Null);
    assert_eq!(app["passwordCredentials"][0]["hint"], json!(&made.secret[..3]));
    assert!(!app.to_string().contains(&made.secret));
    let (status, again) = graph(&t, Method::POST, "/servicePrincipals", Some(json!({"appId": made.app_id}))).await;
    assert_eq!((status, &again["error"]["code"]), (409, &json!("Request_MultipleObjectsWithSameKeyValue")));
    let stranger = json!({"appId": "00000000-0000-0000-0000-000000000001"});
    let (status, again) = graph(&t, Method::POST, "/servicePrincipals", Some(stranger)).await;
    assert!(status == 400 && again["error"]["message"].as_str().unwrap().contains(" does not reference "), "{again}");

    // Disabled: its tokens are dead at once, and it gets none; enabled again, the old stay dead.
    let own = format!("/servicePrincipals/{}", made.principal);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 200, "it may read of itself");
    let switch = async |on: bool| graph(&t, Method::PATCH, &own, Some(json!({"accountEnabled": on}))).await.0;
    assert_eq!(switch(false).await, 204);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 401);
    assert!(sign_in(&t, &made.app_id, &made.secret).await.is_err());
    assert_eq!(switch(true).await, 204);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 401);
    let token = sign_in(&t, &made.app_id, &made.secret).await.unwrap();
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 200);

    // A password taken away ends what was got with it; the next one works at once.
    let password = async |verb: &str, body: Value| {
        graph(&t, Method::POST, &format!("/applications/{}/{verb}", made.app), Some(body)).await
    };
    assert_eq!(password("removePassword", json!({"keyId": made.key_id})).await.0, 204);
    assert_eq!(password("removePassword", json!({"keyId": made.key_id})).await.0, 400);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 401);
    assert!(sign_in(&t, &made.app_id, &made.secret).await.is_err());
    let (_, next) = password("addPassword", json!({})).await;
    let token = sign_in(&t, &made.app_id, next["secretText"].as_str().unwrap()).await.unwrap();
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 200);
    let past = json!({"passwordCredential": {"endDateTime": "2020-01-01T00:00:00Z"}});
    assert_eq!(password("addPassword", past).await.0, 400);
    // One of the principal's own opens the same door.
    let (_, own_password) = graph(&t, Method::POST, &format!("{own}/addPassword"), Some(json!({}))).await;
    assert!(sign_in(&t, &made.app_id, own_password["secretText"].as_str().unwrap()).await.is_ok());

    // Unknown members are refused, known ones kept; a new name is the principal's too.
    let app = format!("/applications/{}", made.app);
    let change = async |body: Value| graph(&t, Method::PATCH, &app, Some(body)).await.0;
    assert_eq!(change(json!({"secret": 1})).await, 400);
    assert_eq!(change(json!({"passwordCredentials": [{"keyId": made.key_id}]})).await, 400);
    assert_eq!(
        change(
            json!({"displayName": "robot two", "identifierUris": ["api://robot"], "web": {"homePageUrl": "https://x"}})
        )
        .await,
        204
    );
    let (_, shown) = graph(&t, Method::GET, &app, None).await;
    assert_eq!((&shown["displayName"], &shown["web"]["homePageUrl"]), (&json!("robot two"), &json!("https://x")));
    let path = "/servicePrincipals?$filter=servicePrincipalNames/any(c:c%20eq%20%27api://robot%27)";
    let (_, found) = graph(&t, Method::GET, path, None).await;
    assert_eq!(
        (&found["value"][0]["id"], &found["value"][0]["displayName"]),
        (&json!(made.principal), &json!("robot two"))
    );
    let (status, other) =
        graph(&t, Method::POST, "/applications", Some(json!({"displayName": "x", "identifierUris": ["api://robot"]})))
            .await;
    assert_eq!(status, 400, "{other}");

    // It goes with its principal and its tokens.
    assert_eq!(graph(&t, Method::DELETE, &app, None).await.0, 204);
    assert_eq!(graph(&t, Method::GET, &own, None).await.0, 404);
    assert_eq!(graph(&t, Method::DELETE, &app, None).await.0, 404);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 401);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_directory_is_for_those_who_may() {
    let t = TestServer::start().await;
    let (one, two) = (make(&t, "one").await, make(&t, "two").await);
    let token = sign_in(&t, &one.app_id, &one.secret).await.unwrap();
    let user = json!({"displayName": "Eve", "userPrincipalName": "eve@example.com", "mailNickname": "eve",
                      "accountEnabled": true, "passwordProfile": {"password": "Correct-Horse-7"}});
    assert_eq!(graph(&t, Method::POST, "/users", Some(user.clone())).await.0, 201);
    // Without a role: itself, and nothing else.
    for (method, path, body) in [
        (Method::GET, "/users".to_owned(), None),
        (Method::GET, "/users/eve@example.com".to_owned(), None),
        (Method::GET, "/applications".to_owned(), None),
        (Method::GET, format!("/applications/{}", one.app), None),
        (Method::GET, "/servicePrincipals".to_owned(), None),
        (Method::GET, format!("/servicePrincipals/{}", two.principal), None),
        (Method::GET, format!("/servicePrincipals?$filter=appId%20eq%20%27{}%27", two.app_id), None),
        (Method::POST, "/directoryObjects/getByIds".to_owned(), Some(json!({"ids": [one.principal, two.principal]}))),
        (Method::POST, "/directoryObjects/getByIds".to_owned(), Some(json!({"ids": []}))),
        (Method::POST, "/users".to_owned(), Some(user.clone())),
        (Method::PATCH, "/users/eve@example.com".to_owned(), Some(json!({"displayName": "x"}))),
        (Method::DELETE, "/users/eve@example.com".to_owned(), None),
        (Method::POST, "/users/eve@example.com/revokeSignInSessions".to_owned(), None),
        (Method::POST, "/applications".to_owned(), Some(json!({"displayName": "x"}))),
        (Method::PATCH, format!("/applications/{}", one.app), Some(json!({"displayName": "x"}))),
        (Method::DELETE, format!("/applications/{}", one.app), None),
        (Method::POST, format!("/applications/{}/addPassword", one.app), Some(json!({}))),
        (Method::POST, format!("/applications/{}/removePassword", one.app), Some(json!({"keyId": one.key_id}))),
        (Method::POST, format!("/servicePrincipals/{}/addPassword", one.principal), Some(json!({}))),
        (Method::PATCH, format!("/servicePrincipals/{}", one.principal), Some(json!({"accountEnabled": true}))),
        (Method::DELETE, format!("/servicePrincipals/{}", two.principal), None),
        (Method::POST, format!("/applications/{}/federatedIdentityCredentials", one.app), Some(json!({"name": "gha"}))),
    ] {
        let (status, body) = graph_as(&t, &token, method.clone(), &path, body).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (403, &json!("Authorization_RequestDenied")),
            "{method} {path}: {body}"
        );
    }
    let (status, own) =
        graph_as(&t, &token, Method::POST, "/directoryObjects/getByIds", Some(json!({"ids": [one.principal]}))).await;
    assert_eq!((status, own["value"].as_array().unwrap().len()), (200, 1));
    // The owner, too, cannot do to themselves what they could not undo.
    let filter = format!("/servicePrincipals?$filter=appId%20eq%20%27{}%27", t.site.bootstrap.client_id);
    let (_, owner) = graph(&t, Method::GET, &filter, None).await;
    let owner = format!("/servicePrincipals/{}", owner["value"][0]["id"].as_str().unwrap());
    assert_eq!(graph(&t, Method::DELETE, &owner, None).await.0, 400);
    assert_eq!(graph(&t, Method::PATCH, &owner, Some(json!({"accountEnabled": false}))).await.0, 400);
    // Nobody, and tokens for somebody else.
    let res = t.get(format!("{}/v1.0/users", t.site.url)).await;
    assert_eq!(res.status(), 401);
    assert!(res.headers().contains_key("www-authenticate"));
    let b = &t.site.bootstrap;
    let elsewhere =
        t.site.sign_in(&b.client_id, &b.client_secret, "https://containerregistry.azure.net/.default").await.unwrap();
    let elsewhere: Value = elsewhere.json().await.unwrap();
    assert_eq!(graph_as(&t, elsewhere["access_token"].as_str().unwrap(), Method::GET, "/users", None).await.0, 401);
    let azure = t.site.sign_in(&b.client_id, &b.client_secret, "https://graph.microsoft.com/.default").await.unwrap();
    let azure: Value = azure.json().await.unwrap();
    assert_eq!(graph_as(&t, azure["access_token"].as_str().unwrap(), Method::GET, "/users", None).await.0, 200);
    t.server.shutdown().await.unwrap();
}

/// A person's token for this server with a password, or the error.
async fn person(t: &TestServer, name: &str, password: &str) -> Result<Value, Value> {
    let url = format!("{}/{}/oauth2/v2.0/token", t.site.url, t.site.bootstrap.tenant_id);
    let scope = format!("{}/.default offline_access openid profile", t.site.url);
    let form = [
        ("grant_type", "password"),
        ("client_id", "04b07795-8ddb-461a-bbee-02f9e1bf7b46"),
        ("username", name),
        ("password", password),
        ("scope", &scope),
    ];
    let answer: Value = t.site.client.post(url).form(&form).send().await.unwrap().json().await.unwrap();
    if answer["access_token"].is_string() { Ok(answer) } else { Err(answer) }
}

#[tokio::test]
async fn users_are_made_renamed_disabled_and_deleted() {
    let t = TestServer::start().await;
    let new = |name: &str, password: &str| {
        json!({"displayName": "Alice", "userPrincipalName": name, "mailNickname": "alice", "accountEnabled": true,
               "passwordProfile": {"password": password, "forceChangePasswordNextSignIn": false}})
    };
    let post = async |body: Value| graph(&t, Method::POST, "/users", Some(body)).await;
    let (status, alice) = post(new("Alice@Example.com", "Correct-Horse-7")).await;
    assert_eq!(
        (status, &alice["userPrincipalName"], &alice["mailNickname"]),
        (201, &json!("Alice@Example.com"), &json!("alice")),
        "{alice}"
    );
    assert!(!alice.to_string().contains("Correct"));
    for (body, why) in [
        (new("alice@example.COM", "Correct-Horse-7"), "already exists"),
        (new("alice", "Correct-Horse-7"), "userPrincipalName"),
        (new("a b@example.com", "Correct-Horse-7"), "userPrincipalName"),
        (new("bob@example.com", "short"), "complexity"),
        (json!({"userPrincipalName": "c@example.com"}), "displayName"),
    ] {
        let (status, answer) = post(body).await;
        assert!(status == 400 && answer["error"]["message"].as_str().unwrap().contains(why), "{answer}");
        assert_eq!(answer["error"]["code"], "Request_BadRequest");
    }
    let mut forced = new("dora@example.com", "Correct-Horse-7");
    forced["passwordProfile"]["forceChangePasswordNextSignIn"] = json!(true);
    assert_eq!(post(forced).await.0, 400, "what is not done is not promised");

    let (_, found) =
        graph(&t, Method::GET, "/users?$filter=userPrincipalName%20eq%20%27alice@example.com%27", None).await;
    assert_eq!(found["value"][0]["id"], alice["id"]);
    for path in [
        "/users/alice@example.com",
        "/users('alice@example.com')",
        &format!("/users/{}", alice["id"].as_str().unwrap()),
    ] {
        assert_eq!(graph(&t, Method::GET, path, None).await.1["id"], alice["id"], "{path}");
    }
    let tokens = person(&t, "alice@example.com", "Correct-Horse-7").await.unwrap();
    let token = tokens["access_token"].as_str().unwrap();
    let (status, me) = graph_as(&t, token, Method::GET, "/me", None).await;
    assert_eq!((status, &me["id"]), (200, &alice["id"]));
    assert_eq!(graph(&t, Method::GET, "/me", None).await.0, 400, "a service principal is no user");

    // Another password ends what was got with the one before.
    let change = async |body: Value| graph(&t, Method::PATCH, "/users/alice@example.com", Some(body)).await.0;
    assert_eq!(change(json!({"passwordProfile": {"password": "Battery-Staple-8"}})).await, 204);
    assert_eq!(graph_as(&t, token, Method::GET, "/me", None).await.0, 401);
    assert!(person(&t, "alice@example.com", "Correct-Horse-7").await.is_err());
    let tokens = person(&t, "alice@example.com", "Battery-Staple-8").await.unwrap();
    let token = tokens["access_token"].as_str().unwrap();
    assert_eq!(graph_as(&t, token, Method::GET, "/me", None).await.0, 200);
    // So does ending the sessions, and being disabled.
    let (status, _) = graph(&t, Method::POST, "/users/alice@example.com/revokeSignInSessions", None).await;
    assert_eq!((status, graph_as(&t, token, Method::GET, "/me", None).await.0), (200, 401));
    assert_eq!(change(json!({"accountEnabled": "false", "displayName": "Alice B", "jobTitle": "CTO"})).await, 204);
    assert!(person(&t, "alice@example.com", "Battery-Staple-8").await.is_err());
    assert_eq!(change(json!({"accountEnabled": true, "userPrincipalName": "al@example.com"})).await, 204);
    assert!(person(&t, "al@example.com", "Battery-Staple-8").await.is_ok());
    let (_, shown) = graph(&t, Method::GET, "/users/al@example.com", None).await;
    assert_eq!((&shown["displayName"], &shown["jobTitle"]), (&json!("Alice B"), &json!("CTO")));

    assert_eq!(graph(&t, Method::DELETE, "/users/al@example.com", None).await.0, 204);
    assert_eq!(graph(&t, Method::GET, "/users/al@example.com", None).await.0, 404);
    assert!(person(&t, "al@example.com", "Battery-Staple-8").await.is_err());
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn lists_come_in_pages() {
    let t = TestServer::start().await;
    for n in 0..7 {
        let body = json!({"displayName": format!("app {n}")});
        assert_eq!(graph(&t, Method::POST, "/applications", Some(body)).await.0, 201);
    }
    let mut seen = Vec::new();
    let mut next = "/applications?$top=3&$filter=startswith(displayName,%27app%27)".to_owned();
    let mut pages = 0;
    loop {
        let (status, page) = graph(&t, Method::GET, &next, None).await;
        assert_eq!(status, 200, "{page}");
        let items = page["value"].as_array().unwrap();
        assert!(items.len() <= 3 && !items.is_empty());
        seen.extend(items.iter().map(|i| i["displayName"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["@odata.nextLink"].as_str() {
            Some(link) => next = link.to_owned(),
            None => break,
        }
    }
    seen.sort();
    assert_eq!((pages, seen), (3, (0..7).map(|n| format!("app {n}")).collect()));
    for bad in [
        "$top=0",
        "$top=1000",
        "$top=x",
        "$skiptoken=x",
        "$search=x",
        "$orderby=displayName",
        "$filter=secret%20eq%20%27x%27",
        "$filter=x",
    ] {
        let (status, answer) = graph(&t, Method::GET, &format!("/applications?{bad}"), None).await;
        assert!(status == 400 && answer["error"]["code"].is_string(), "{bad}: {answer}");
    }
    for (path, empty) in [
        ("/groups", true),
        ("/me/ownedObjects", true),
        ("/groups/x", false),
        ("/nothing", false),
        ("/users/a/b", false),
    ] {
        let (status, answer) = graph(&t, Method::GET, path, None).await;
        assert_eq!((status == 200, answer["value"] == json!([])), (empty, empty), "{path}: {answer}");
    }
    t.server.shutdown().await.unwrap();
}
