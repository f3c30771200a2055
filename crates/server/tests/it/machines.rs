//! How programs sign in without a secret of their own: certificates, tokens of other issuers,
//! managed identities. And the keys that all tokens are signed with.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portolan_server::settings::{IdentityAddresses, Value as _};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, SigningKey as _};
use reqwest::Method;
use serde_json::{Value, json};

use crate::directory::{graph, graph_as, make, sign_in};
use crate::support::TestServer;

/// What a client with an assertion gets.
async fn assert_with(t: &TestServer, client_id: &str, assertion: &str) -> (u16, Value) {
    let url = format!("{}/{}/oauth2/v2.0/token", t.site.url, t.site.bootstrap.tenant_id);
    let scope = format!("{}/.default", t.site.url);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
        ("scope", &scope),
    ];
    let res = t.site.client.post(url).form(&form).send().await.unwrap();
    (res.status().as_u16(), res.json().await.unwrap())
}

/// A certificate in base64, and the key that signs with it.
fn certificate() -> (String, KeyPair) {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    (STANDARD.encode(certificate.der()), key)
}

fn signed(key: &KeyPair, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap());
    let head = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(head.as_bytes()).unwrap());
    format!("{head}.{signature}")
}

fn seconds() -> i64 {
    portolan_types::Timestamp::now().unix_secs()
}

#[tokio::test]
async fn a_certificate_signs_in() {
    let t = TestServer::start().await;
    let made = make(&t, "robot").await;
    let (text, key) = certificate();
    let audience = format!("{}/{}/oauth2/v2.0/token", t.site.url, t.site.bootstrap.tenant_id);
    let claims = |audience: &str| json!({"iss": made.app_id, "sub": made.app_id, "aud": audience, "exp": seconds() + 600, "jti": "1"});
    let good = signed(&key, &claims(&audience));
    assert_eq!(assert_with(&t, &made.app_id, &good).await.0, 401, "not registered yet");

    let app = format!("/applications/{}", made.app);
    let keys = json!({"keyCredentials": [{"key": text, "type": "AsymmetricX509Cert", "usage": "Verify", "displayName": "c1",
                      "keyId": "11111111-1111-1111-1111-111111111111"}]});
    assert_eq!(graph(&t, Method::PATCH, &app, Some(keys)).await.0, 204);
    let (status, answer) = assert_with(&t, &made.app_id, &good).await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["access_token"].as_str().unwrap().to_owned();
    let own = format!("/servicePrincipals/{}", made.principal);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 200);

    let (_, stranger) = certificate();
    let evil = claims("https://login.example/t/oauth2/v2.0/token");
    for (what, assertion) in [
        ("another key", signed(&stranger, &claims(&audience))),
        ("made for somebody else", signed(&key, &evil)),
        (
            "expired",
            signed(&key, &json!({"iss": made.app_id, "sub": made.app_id, "aud": audience, "exp": seconds() - 100})),
        ),
        ("rubbish", "x".to_owned()),
    ] {
        let (status, answer) = assert_with(&t, &made.app_id, &assertion).await;
        assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")), "{what}: {answer}");
        assert!(answer["error_description"].as_str().unwrap().starts_with("AADSTS"), "{what}");
    }
    let other = make(&t, "other").await;
    assert_eq!(assert_with(&t, &other.app_id, &good).await.0, 401, "another application's");

    // As `az ad app credential reset --append` does: what is there is sent back without its key.
    let (_, shown) = graph(&t, Method::GET, &app, None).await;
    assert_eq!(
        (&shown["keyCredentials"][0]["key"], &shown["keyCredentials"][0]["displayName"]),
        (&Value::Null, &json!("c1"))
    );
    let (second, second_key) = certificate();
    let both = json!({"keyCredentials": [shown["keyCredentials"][0], {"key": second}]});
    assert_eq!(graph(&t, Method::PATCH, &app, Some(both)).await.0, 204);
    for key in [&key, &second_key] {
        assert_eq!(assert_with(&t, &made.app_id, &signed(key, &claims(&audience))).await.0, 200);
    }
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 200, "nothing was taken away yet");
    // Taken away, it and the tokens got so far are worth nothing.
    let (_, shown) = graph(&t, Method::GET, &app, None).await;
    let only = json!({"keyCredentials": [shown["keyCredentials"][1]]});
    assert_eq!(graph(&t, Method::PATCH, &app, Some(only)).await.0, 204);
    assert_eq!(assert_with(&t, &made.app_id, &good).await.0, 401);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 401);
    assert_eq!(assert_with(&t, &made.app_id, &signed(&second_key, &claims(&audience))).await.0, 200);
    for bad in [json!("x"), json!([{"key": "AAAA"}]), json!([{"keyId": "22222222-2222-2222-2222-222222222222"}])] {
        assert_eq!(graph(&t, Method::PATCH, &app, Some(json!({"keyCredentials": bad}))).await.0, 400);
    }
    t.server.shutdown().await.unwrap();
}

/// What a workload of another issuer shows: a token of that server for some audience.
async fn workload(issuer: &TestServer, audience: &str) -> String {
    let b = &issuer.site.bootstrap;
    let res = issuer.site.sign_in(&b.client_id, &b.client_secret, &format!("{audience}/.default")).await.unwrap();
    let answer: Value = res.json().await.unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

fn claim(token: &str, name: &str) -> String {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&bytes).unwrap()[name].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn tokens_of_another_issuer_sign_in_where_they_are_trusted() {
    const EXCHANGE: &str = "api://AzureADTokenExchange";
    // The other issuer is a real one: a server of ours, whose tokens and keys are its own.
    let issuer = TestServer::start().await;
    let ca = issuer.server.ca_file.clone();
    let t = TestServer::start_with(|s| s.federation_ca_file = ca).await;
    let made = make(&t, "workload").await;
    let good = workload(&issuer, EXCHANGE).await;
    let (from, subject) = (claim(&good, "iss"), claim(&good, "sub"));
    let path = format!("/applications/{}/federatedIdentityCredentials", made.app);
    let trust = |name: &str, issuer: &str, subject: &str, audience: &str| json!({"name": name, "issuer": issuer, "subject": subject, "audiences": [audience], "description": "d"});
    let refusal = async |client: &str, assertion: &str| {
        let (status, answer) = assert_with(&t, client, assertion).await;
        assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")), "{answer}");
        answer["error_description"].as_str().unwrap().split(':').next().unwrap().to_owned()
    };
    assert_eq!(refusal(&made.app_id, &good).await, "AADSTS700211", "its issuer is not trusted: nothing is fetched");

    // Issuer, subject and audience must all be those of one credential.
    let (status, first) =
        graph(&t, Method::POST, &path, Some(trust("wrong-subject", &from, "someone-else", EXCHANGE))).await;
    assert_eq!(status, 201, "{first}");
    assert_eq!(refusal(&made.app_id, &good).await, "AADSTS700213");
    let body = trust("wrong-audience", &from, &subject, "api://Other");
    assert_eq!(graph(&t, Method::POST, &path, Some(body)).await.0, 201);
    assert_eq!(refusal(&made.app_id, &good).await, "AADSTS700212");
    let one = format!("{path}/wrong-audience");
    assert_eq!(graph(&t, Method::PATCH, &one, Some(json!({"audiences": [EXCHANGE]}))).await.0, 204);
    let (status, answer) = assert_with(&t, &made.app_id, &good).await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["access_token"].as_str().unwrap().to_owned();
    assert_eq!(claim(&token, "appid"), made.app_id);
    let own = format!("/servicePrincipals/{}", made.principal);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 200);

    // Another audience, a token that was tampered with, another application.
    assert_eq!(refusal(&made.app_id, &workload(&issuer, "https://elsewhere").await).await, "AADSTS700212");
    let (head, _) = good.rsplit_once('.').unwrap();
    assert_eq!(refusal(&made.app_id, &format!("{head}.{}", "A".repeat(342))).await, "AADSTS5000611");
    let other = make(&t, "other").await;
    assert_eq!(refusal(&other.app_id, &good).await, "AADSTS700211");

    // The issuer's keys change: the next token is known all the same.
    let url = format!("{}/{}/discovery/v2.0/keys", issuer.site.url, issuer.site.bootstrap.tenant_id);
    let renewed =
        issuer.site.client.post(url).bearer_auth(issuer.site.arm_token().await.unwrap()).send().await.unwrap();
    assert_eq!(renewed.status(), 201);

    // What cannot be trusted, and what is there already.
    for (body, expected) in [
        (trust("x1", "http://token.example", "s", EXCHANGE), 400),
        (trust("x1", "https://token.example?x=1", "s", EXCHANGE), 400),
        (trust("x1", "https://u@token.example", "s", EXCHANGE), 400),
        (trust("x1", "https://token.example", "", EXCHANGE), 400),
        (trust("x!", "https://token.example", "s", EXCHANGE), 400),
        (trust("x1", &from, &subject, EXCHANGE), 400),
        (trust("wrong-subject", "https://token.example", "s", EXCHANGE), 409),
        (json!({"name": "x1", "issuer": "https://token.example", "subject": "s"}), 400),
    ] {
        let (status, answer) = graph(&t, Method::POST, &path, Some(body.clone())).await;
        assert_eq!(status, expected, "{body}: {answer}");
    }
    // Taken away, it opens nothing, and the tokens it gave end.
    assert_eq!(graph(&t, Method::DELETE, &one, None).await.0, 204);
    assert_eq!(graph(&t, Method::DELETE, &one, None).await.0, 404);
    assert_eq!(refusal(&made.app_id, &good).await, "AADSTS700213");
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 401);
    t.server.shutdown().await.unwrap();
    issuer.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_not_a_wrong_assertion() {
    let t = TestServer::start().await;
    let made = make(&t, "workload").await;
    let path = format!("/applications/{}/federatedIdentityCredentials", made.app);
    let (_, key) = certificate();
    // Nobody listens there.
    let body = json!({"name": "gone", "issuer": "http://127.0.0.1:1", "subject": "s", "audiences": ["a"]});
    assert_eq!(graph(&t, Method::POST, &path, Some(body)).await.0, 201);
    let assertion = signed(&key, &json!({"iss": "http://127.0.0.1:1", "sub": "s", "aud": "a", "exp": seconds() + 60}));
    let (status, answer) = assert_with(&t, &made.app_id, &assertion).await;
    assert_eq!((status, &answer["error"]), (503, &json!("temporarily_unavailable")), "{answer}");
    t.server.shutdown().await.unwrap();
}

const RESOURCE: &str = "https://containerregistry.azure.net";

async fn identity(t: &TestServer, name: &str) -> Value {
    let group = t.site.arm(Method::PUT, "/resourcegroups/mygroup", Some(json!({"location": "local"}))).await.unwrap();
    assert!(group.status().is_success());
    let path = path_of(name);
    let made = t.site.arm(Method::PUT, &path, Some(json!({"location": "local", "tags": {"a": "b"}}))).await.unwrap();
    assert!(made.status().is_success(), "{}", made.status());
    made.json().await.unwrap()
}

fn path_of(name: &str) -> String {
    format!("/resourceGroups/mygroup/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}")
}

/// What an identity's endpoint answers.
async fn ask(t: &TestServer, query: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut req = t.site.client.get(format!("{}/msi/token?{query}", t.site.url));
    for (name, value) in headers {
        req = req.header(*name, *value);
    }
    let res = req.send().await.unwrap();
    (res.status().as_u16(), res.json().await.unwrap())
}

#[tokio::test]
async fn managed_identities_get_tokens_from_their_endpoints() {
    let t = TestServer::start().await;
    let one = identity(&t, "MyIdentity").await;
    let client_id = one["properties"]["clientId"].as_str().unwrap();
    assert_eq!(
        (&one["type"], &one["tags"]["a"]),
        (&json!("Microsoft.ManagedIdentity/userAssignedIdentities"), &json!("b"))
    );
    let again = identity(&t, "myidentity").await;
    assert_eq!(
        (&again["id"], &again["properties"]),
        (&one["id"], &one["properties"]),
        "names are compared without case"
    );
    identity(&t, "second").await;
    for path in [
        "/resourceGroups/mygroup/providers/Microsoft.ManagedIdentity/userAssignedIdentities",
        "/providers/Microsoft.ManagedIdentity/userAssignedIdentities",
    ] {
        let all: Value = t.site.arm(Method::GET, path, None).await.unwrap().json().await.unwrap();
        let names: Vec<&str> = all["value"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["MyIdentity", "second"]);
    }
    // It is a service principal of its own kind, whose credentials Graph leaves alone.
    let own = format!("/servicePrincipals/{}", one["properties"]["principalId"].as_str().unwrap());
    let (_, shown) = graph(&t, Method::GET, &own, None).await;
    assert_eq!((&shown["servicePrincipalType"], &shown["appId"]), (&json!("ManagedIdentity"), &json!(client_id)));
    assert_eq!(shown["alternativeNames"][1], one["id"]);
    assert_eq!(graph(&t, Method::POST, &format!("{own}/addPassword"), Some(json!({}))).await.0, 400);
    assert_eq!(graph(&t, Method::DELETE, &own, None).await.0, 400);

    let secret = async || {
        let path = format!("{}/generateEndpointSecret", path_of("myidentity"));
        let made: Value = t.site.arm(Method::POST, &path, None).await.unwrap().json().await.unwrap();
        assert_eq!(made["identityEndpoint"], json!(format!("{}/msi/token", t.site.url)));
        made["identityHeader"].as_str().unwrap().to_owned()
    };
    let header = secret().await;
    let (status, answer) = ask(
        &t,
        &format!("api-version=2019-08-01&resource={RESOURCE}"),
        &[("x-identity-header", &header), ("metadata", "true")],
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["access_token"].as_str().unwrap().to_owned();
    assert_eq!((claim(&token, "appid").as_str(), claim(&token, "aud").as_str()), (client_id, RESOURCE));
    assert_eq!((claim(&token, "tid"), &answer["client_id"]), (t.site.bootstrap.tenant_id.clone(), &json!(client_id)));
    assert!(answer["expires_on"].as_str().unwrap().parse::<i64>().unwrap() > seconds() + 3_000);
    // The older form, and every way to say which.
    let resource = one["id"].as_str().unwrap().to_uppercase();
    for which in [
        format!("clientid={client_id}"),
        format!("client_id={client_id}"),
        format!("mi_res_id={resource}"),
        format!("principal_id={}", one["properties"]["principalId"].as_str().unwrap()),
    ] {
        let query = format!("api-version=2017-09-01&resource={RESOURCE}&{which}");
        assert_eq!(ask(&t, &query, &[("secret", &header)]).await.0, 200, "{which}");
    }
    let other = identity(&t, "second").await;
    let query = format!("resource={RESOURCE}&client_id={}", other["properties"]["clientId"].as_str().unwrap());
    assert_eq!(ask(&t, &query, &[("x-identity-header", &header)]).await.0, 400, "one's secret is not another's");
    let (app_id, bare) = header.split_once('.').unwrap();
    let query = format!("resource={RESOURCE}");
    for wrong in ["", "x", bare, app_id, &format!("{app_id}.x"), &format!("{}.{bare}", t.site.bootstrap.client_id)] {
        assert_eq!(ask(&t, &query, &[("x-identity-header", wrong)]).await.0, 401, "{wrong}");
    }
    assert_eq!(ask(&t, &query, &[]).await.0, 401);
    assert_eq!(ask(&t, "", &[("secret", &header)]).await.0, 400);
    // Nor is it a password that signs in elsewhere.
    assert!(sign_in(&t, client_id, bare).await.is_err() && sign_in(&t, client_id, &header).await.is_err());

    // A new secret ends the old one and its tokens; deleting it ends all.
    let next = secret().await;
    assert_eq!(ask(&t, &query, &[("secret", &header)]).await.0, 401);
    let own_token = async || {
        let query = format!("resource={}", t.site.url);
        let (_, answer) = ask(&t, &query, &[("secret", &next)]).await;
        answer["access_token"].as_str().unwrap().to_owned()
    };
    let token = own_token().await;
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 200);
    assert_eq!(t.site.arm(Method::DELETE, &path_of("MYIDENTITY"), None).await.unwrap().status(), 200);
    assert_eq!(t.site.arm(Method::DELETE, &path_of("MYIDENTITY"), None).await.unwrap().status(), 204);
    assert_eq!(graph_as(&t, &token, Method::GET, &own, None).await.0, 401);
    assert_eq!(ask(&t, &query, &[("secret", &next)]).await.0, 401);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_machine_has_the_identity_that_its_address_was_given() {
    let t = TestServer::start().await;
    let one = identity(&t, "one-identity").await;
    let two = identity(&t, "two-identity").await;
    let id = |i: &Value| i["properties"]["clientId"].as_str().unwrap().to_owned();
    let data = t.data.clone();
    t.server.shutdown().await.unwrap();
    let url = |t: &TestServer| {
        format!("{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={RESOURCE}", t.http())
    };
    let get = async |t: &TestServer, more: &str, headers: &[(&str, &str)]| {
        let mut req = t.site.client.get(format!("{}{more}", url(t)));
        for (name, value) in headers {
            req = req.header(*name, *value);
        }
        let res = req.send().await.unwrap();
        (res.status().as_u16(), res.json::<Value>().await.unwrap())
    };
    // Off, unless the operator says otherwise.
    let t = TestServer::start_on(data.clone(), |_| {}).await;
    assert_eq!(get(&t, "", &[("metadata", "true")]).await.0, 400);
    t.server.shutdown().await.unwrap();

    let setting = format!("127.0.0.0/8={}, 10.0.0.1={}", id(&one), id(&two));
    let t = TestServer::start_on(data.clone(), |s| {
        s.managed_identity_addresses = IdentityAddresses::parse(&setting).unwrap()
    })
    .await;
    let (status, answer) = get(&t, "", &[("metadata", "true")]).await;
    assert_eq!((status, &answer["client_id"]), (200, &json!(id(&one))), "{answer}");
    for (what, more, headers) in [
        ("no header", String::new(), vec![]),
        ("another header", String::new(), vec![("metadata", "yes")]),
        ("through a proxy", String::new(), vec![("metadata", "true"), ("x-forwarded-for", "127.0.0.1")]),
        ("as another machine", String::new(), vec![("metadata", "true"), ("x-forwarded-for", "10.0.0.1")]),
        ("as another machine, too", String::new(), vec![("metadata", "true"), ("forwarded", "for=10.0.0.1")]),
        ("another's", format!("&client_id={}", id(&two)), vec![("metadata", "true")]),
        ("nobody's", "&client_id=x".to_owned(), vec![("metadata", "true")]),
    ] {
        let (status, answer) = get(&t, &more, &headers).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")), "{what}: {answer}");
    }
    t.server.shutdown().await.unwrap();
    // Two for one address: the client must say which.
    let setting = format!("127.0.0.1={}, 127.0.0.0/8={}", id(&one), id(&two));
    let t = TestServer::start_on(data, |s| s.managed_identity_addresses = IdentityAddresses::parse(&setting).unwrap())
        .await;
    assert_eq!(get(&t, "", &[("metadata", "true")]).await.0, 400);
    assert_eq!(
        get(&t, &format!("&client_id={}", id(&two)), &[("metadata", "true")]).await.1["client_id"],
        json!(id(&two))
    );
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn signing_keys_change_and_nobody_is_signed_out() {
    let t = TestServer::start().await;
    let url = format!("{}/{}/discovery/v2.0/keys", t.site.url, t.site.bootstrap.tenant_id);
    let kids = async || {
        let keys: Value = t.get(&url).await.json().await.unwrap();
        keys["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let kid = |token: &str| {
        let head = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    let renew = async |token: &str, body: Option<Value>| {
        let mut req = t.site.client.post(&url).bearer_auth(token);
        if let Some(body) = body {
            req = req.json(&body);
        }
        req.send().await.unwrap().status().as_u16()
    };
    let before = kids().await;
    let old = t.site.arm_token().await.unwrap();
    assert_eq!((before.len(), kid(&old)), (1, before[0].clone()));
    // Who may not write to the directory may not.
    let made = make(&t, "robot").await;
    let robot = sign_in(&t, &made.app_id, &made.secret).await.unwrap();
    assert_eq!(renew(&robot, None).await, 403);
    assert_eq!(t.site.client.post(&url).send().await.unwrap().status(), 401);
    assert_eq!((renew(&old, Some(json!({"x": 1}))).await, kids().await.len()), (400, 1));

    assert_eq!(renew(&old, None).await, 201);
    let after = kids().await;
    assert!(after.len() == 2 && after.contains(&before[0]), "the old key goes on verifying: {after:?}");
    let made_now = after.iter().find(|kid| **kid != before[0]).unwrap();
    let new = t.site.arm_token().await.unwrap();
    // Servers that share a database sign with a new key when all of them know it.
    assert!(kid(&new) == *made_now || t.server.app.service.is_shared());
    assert_eq!(graph_as(&t, &old, Method::GET, "/users", None).await.0, 200, "nobody is signed out");
    // By its age it changes by itself, once.
    let now = portolan_types::Timestamp::now();
    let day = std::time::Duration::from_secs(86_400);
    assert!(!t.server.app.service.rotate_old_signing_key(Some(day), now).await.unwrap());
    assert!(!t.server.app.service.rotate_old_signing_key(None, now.plus(day)).await.unwrap());
    assert!(t.server.app.service.rotate_old_signing_key(Some(day), now.plus(day)).await.unwrap());
    assert!(!t.server.app.service.rotate_old_signing_key(Some(day), now.plus(day)).await.unwrap());
    assert_eq!(kids().await.len(), 2, "the first key has outlived all that it signed");

    // A key that somebody else may have ends with everything it signed.
    let current = t.site.arm_token().await.unwrap();
    assert_eq!(renew(&current, Some(json!({"endOthers": true}))).await, 201);
    assert_eq!(kids().await.len(), 1);
    assert_eq!(graph_as(&t, &current, Method::GET, "/users", None).await.0, 401);
    assert_eq!(graph(&t, Method::GET, "/users", None).await.0, 200);
    t.server.shutdown().await.unwrap();
}
