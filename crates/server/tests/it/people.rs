//! People sign in: with a password, by a code from elsewhere, in a browser, and at the pages
//! themselves. And everything that somebody else might try with these.

use portolan_auth::access::ACR_PULL;
use portolan_auth::foreign::Keys;
use portolan_service::sign_in::device;
use portolan_store::meta;
use portolan_store::meta::principal::PrincipalRow;
use portolan_store::meta::role::AssignmentRow;
use portolan_types::{ResourceId, Secret, Timestamp};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::TestServer;

/// The Azure CLI's id.
pub(crate) const AZ: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
const POWERSHELL: &str = "1950a258-227b-4e31-a9cf-717495945fc2";
const REGISTRY: &str = "https://containerregistry.azure.net/.default";
pub(crate) const PASSWORD: &str = "Correct-Horse-7";

/// Make a user with [`PASSWORD`]; the object id.
pub(crate) async fn user(t: &TestServer, name: &str) -> Uuid {
    let row = PrincipalRow {
        object_id: Uuid::new_v4(),
        app_id: None,
        kind: "User".into(),
        display_name: format!("{name} <the first>"),
        enabled: true,
        valid_from: Timestamp(0),
        created: Timestamp::now(),
        user_name: Some(format!("{name}@example.com")),
        properties: "{}".into(),
    };
    let id = row.object_id;
    let service = &t.server.app.service;
    // Who may do nothing in a registry gets no token of it.
    let now = row.created;
    let role = AssignmentRow {
        id: Uuid::new_v4(),
        scope: ResourceId::subscription(&service.subscription_id()),
        principal: id,
        role: ACR_PULL,
        description: None,
        condition: None,
        created: now,
        created_by: None,
        updated: now,
        updated_by: None,
    };
    let written = service.meta.write(move |tx| {
        meta::principal::insert(tx, &row)?;
        meta::role::insert(tx, &role)
    });
    written.await.unwrap();
    service.set_password(id, &Secret::new(PASSWORD.to_owned()), Timestamp::now()).await.unwrap();
    id
}

async fn enable(t: &TestServer, id: Uuid, enabled: bool) {
    let service = &t.server.app.service;
    service.meta.write(move |tx| meta::principal::set_enabled(tx, id, enabled, Timestamp::now())).await.unwrap();
    service.refresh().await.unwrap();
}

fn endpoint(t: &TestServer, what: &str) -> String {
    format!("{}/{}/oauth2/v2.0/{what}", t.site.url, t.site.bootstrap.tenant_id)
}

pub(crate) async fn token(t: &TestServer, form: &[(&str, &str)]) -> (u16, Value) {
    let res = t.site.client.post(endpoint(t, "token")).form(form).send().await.unwrap();
    (res.status().as_u16(), res.json().await.unwrap())
}

async fn with_password(t: &TestServer, user: &str, password: &str) -> (u16, Value) {
    let scope = format!("{REGISTRY} offline_access openid profile");
    let form = [
        ("grant_type", "password"),
        ("client_id", AZ),
        ("username", user),
        ("password", password),
        ("scope", &scope),
        ("client_info", "1"),
    ];
    token(t, &form).await
}

async fn with_refresh(t: &TestServer, client: &str, refresh: &str) -> (u16, Value) {
    token(t, &[("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", refresh), ("scope", REGISTRY)])
        .await
}

/// Whether a registry takes a directory token.
async fn is_good(t: &TestServer, login: &str, access: &str) -> bool {
    let form = [("grant_type", "access_token"), ("service", login), ("access_token", access)];
    let res = t.site.client.post(format!("https://{login}/oauth2/exchange")).form(&form).send().await.unwrap();
    assert!([200, 401].contains(&res.status().as_u16()), "{}", res.status());
    res.status() == 200
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}"))
}

#[tokio::test]
async fn a_person_gets_tokens_for_a_password() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("people").await.unwrap();
    let id = user(&t, "alice").await;
    let realm = t.get(format!("{}/common/userrealm/alice@example.com?api-version=1.0", t.site.url)).await;
    let realm: Value = realm.json().await.unwrap();
    assert_eq!(realm["account_type"], "Managed");

    let (status, answer) = with_password(&t, "Alice@Example.com", PASSWORD).await;
    assert_eq!(status, 200, "{answer}");
    assert!(is_good(&t, &login, text(&answer, "access_token")).await);
    let keys = t.get(format!("{}/{}/discovery/v2.0/keys", t.site.url, t.site.bootstrap.tenant_id)).await;
    let keys = Keys::parse(&keys.bytes().await.unwrap()).unwrap();
    let issuer = format!("{}/{}/v2.0", t.site.url, t.site.bootstrap.tenant_id);
    let claims = keys.verify(text(&answer, "id_token"), &issuer, |a| a == AZ, Timestamp::now()).unwrap().all;
    assert_eq!(claims["preferred_username"], json!("alice@example.com"));
    assert_eq!((&claims["oid"], &claims["name"]), (&json!(id), &json!("alice <the first>")));
    assert_eq!(answer["scope"], json!(format!("{REGISTRY} offline_access openid profile")));
    assert!(text(&answer, "client_info").len() > 80);

    // Wrong in every way, with one answer.
    let (status, wrong) = with_password(&t, "alice@example.com", "Correct-Horse-8").await;
    assert_eq!((status, &wrong["error"]), (400, &json!("invalid_grant")));
    assert!(text(&wrong, "error_description").starts_with("AADSTS50126"), "{wrong}");
    let (_, nobody) = with_password(&t, "nobody@example.com", PASSWORD).await;
    assert_eq!(nobody["error_codes"], wrong["error_codes"]);
    let (_, program) = with_password(&t, "portolan-owner", &t.site.bootstrap.client_secret).await;
    assert_eq!(program["error_codes"], wrong["error_codes"]);
    // Without offline_access no refresh token; an unknown client nothing.
    let form =
        [("grant_type", "password"), ("client_id", AZ), ("username", "alice@example.com"), ("password", PASSWORD)];
    let mut narrow = form.to_vec();
    narrow.push(("scope", REGISTRY));
    assert!(token(&t, &narrow).await.1.get("refresh_token").is_none());
    narrow[1].1 = "99999999-9999-9999-9999-999999999999";
    assert_eq!(token(&t, &narrow).await.1["error"], "unauthorized_client");

    // That somebody is disabled learns who has the password.
    enable(&t, id, false).await;
    assert!(!is_good(&t, &login, text(&answer, "access_token")).await);
    let (_, disabled) = with_password(&t, "alice@example.com", PASSWORD).await;
    assert_eq!(disabled["error_codes"], json!([50057]));
    assert_eq!(with_password(&t, "alice@example.com", "x").await.1["error_codes"], json!([50126]));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn refresh_tokens_end_with_the_password_the_principal_and_the_session() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("people").await.unwrap();
    let id = user(&t, "alice").await;
    let service = t.server.app.service.clone();
    let sign_in = async || {
        let answer = with_password(&t, "alice@example.com", PASSWORD).await.1;
        (text(&answer, "refresh_token").to_owned(), text(&answer, "access_token").to_owned())
    };
    let (first, _) = sign_in().await;
    let (status, answer) = with_refresh(&t, AZ, &first).await;
    assert_eq!(status, 200, "{answer}");
    assert!(is_good(&t, &login, text(&answer, "access_token")).await);
    let second = text(&answer, "refresh_token").to_owned();
    assert_eq!(with_refresh(&t, AZ, &second).await.0, 200);

    // Not by another client, not changed, not another kind of token.
    assert_eq!(with_refresh(&t, POWERSHELL, &first).await.1["error_codes"], json!([70000]));
    let mut changed = first.clone().into_bytes();
    changed[40] = if changed[40] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for forged in [changed.as_str(), "x", text(&answer, "access_token"), text(&answer, "id_token")] {
        assert_eq!(with_refresh(&t, AZ, forged).await.1["error"], "invalid_grant");
    }
    // The id token opens nothing.
    assert!(!is_good(&t, &login, text(&answer, "id_token")).await);

    // Replayed after the password was renewed; after the sessions were ended; after somebody
    // was disabled, also once they may again.
    let gone = async |refresh: &str, access: &str| {
        assert_eq!(with_refresh(&t, AZ, refresh).await.1["error_codes"], json!([50173]));
        assert!(!is_good(&t, &login, access).await);
    };
    let (refresh, access) = sign_in().await;
    service.set_password(id, &Secret::new(PASSWORD.to_owned()), Timestamp::now()).await.unwrap();
    gone(&refresh, &access).await;
    gone(&first, text(&answer, "access_token")).await;
    gone(&second, text(&answer, "access_token")).await;
    let (refresh, access) = sign_in().await;
    assert!(is_good(&t, &login, &access).await, "at once after the change");
    service.end_sessions(id, Timestamp::now()).await.unwrap();
    gone(&refresh, &access).await;
    let (refresh, access) = sign_in().await;
    enable(&t, id, false).await;
    gone(&refresh, &access).await;
    enable(&t, id, true).await;
    gone(&refresh, &access).await;
    assert_eq!(with_password(&t, "alice@example.com", PASSWORD).await.0, 200);
    t.server.shutdown().await.unwrap();
}

/// A browser: one cookie, and forms.
pub(crate) struct Browser<'a> {
    pub(crate) t: &'a TestServer,
    pub(crate) cookie: Option<String>,
}

impl Browser<'_> {
    pub(crate) fn new(t: &TestServer) -> Browser<'_> {
        Browser { t, cookie: None }
    }

    pub(crate) async fn send(&mut self, req: reqwest::RequestBuilder) -> Response {
        let req = match &self.cookie {
            Some(cookie) => req.header("cookie", cookie),
            None => req,
        };
        let res = req.send().await.unwrap();
        if let Some(set) = res.headers().get("set-cookie") {
            let set = set.to_str().unwrap();
            assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        res
    }

    pub(crate) async fn get(&mut self, url: &str) -> Response {
        let req = self.t.site.client.get(url);
        self.send(req).await
    }

    /// Fill in the form of a page.
    pub(crate) async fn submit(&mut self, page: &str, fields: &[(&str, &str)]) -> Response {
        let slip = value_of(page, "slip");
        let action = attribute(page, "<form method=\"post\"", "action");
        let mut form = vec![("slip", slip.as_str())];
        form.extend(fields);
        let req = self.t.site.client.post(format!("{}{action}", self.t.site.url)).form(&form);
        self.send(req).await
    }
}

pub(crate) fn attribute(page: &str, after: &str, name: &str) -> String {
    let rest = &page[page.find(after).unwrap_or_else(|| panic!("no {after} in {page}"))..];
    let start = rest.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
    let end = rest[start..].find('"').unwrap();
    rest[start..start + end]
        .replace("&#39;", "'")
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

pub(crate) fn value_of(page: &str, field: &str) -> String {
    attribute(page, &format!("name=\"{field}\""), "value")
}

async fn page(res: Response) -> (StatusCode, String) {
    let policy = res.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(
        (&res.headers()["x-frame-options"], &res.headers()["cache-control"]),
        (&"DENY".parse().unwrap(), &"no-store".parse().unwrap())
    );
    (res.status(), res.text().await.unwrap())
}

async fn begin(t: &TestServer) -> Value {
    let form = [("client_id", AZ), ("scope", "https://containerregistry.azure.net/.default offline_access openid")];
    let res = t.site.client.post(endpoint(t, "devicecode")).form(&form).send().await.unwrap();
    assert_eq!(res.status(), 200);
    res.json().await.unwrap()
}

async fn poll(t: &TestServer, begun: &Value) -> (u16, Value) {
    let code = text(begun, "device_code");
    token(
        t,
        &[
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", AZ),
            ("device_code", code),
            ("code", code),
        ],
    )
    .await
}

#[tokio::test]
async fn a_person_signs_in_elsewhere_for_a_client_that_waits() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("people").await.unwrap();
    user(&t, "alice").await;
    let begun = begin(&t).await;
    let code = text(&begun, "user_code");
    assert!(text(&begun, "message").contains(code) && begun["interval"].as_u64().unwrap() > 0);
    assert_eq!(poll(&t, &begun).await.1["error"], "authorization_pending");

    let mut browser = Browser::new(&t);
    let (_, first) = page(browser.get(text(&begun, "verification_uri")).await).await;
    assert!(first.contains("name=\"user_code\""), "{first}");
    let (status, unknown) = page(browser.get(&format!("{}/devicelogin?user_code=BBBBBBBBB", t.site.url)).await).await;
    assert!(status == 400 && unknown.contains("role=\"alert\""), "{unknown}");
    // As people type it.
    let typed = format!("{}-{}", &code[..4].to_lowercase(), &code[4..]);
    let (status, form) = page(browser.get(&format!("{}/devicelogin?user_code={typed}", t.site.url)).await).await;
    assert!(status == 200 && form.contains("Azure CLI") && form.contains("127.0.0.1"), "{form}");

    let wrong = [("username", "alice@example.com"), ("password", "no"), ("do", "password")];
    let (status, again) = page(browser.submit(&form, &wrong).await).await;
    assert!(status == 403 && again.contains("wrong") && !again.contains("\"no\""), "{again}");
    assert_eq!(value_of(&again, "username"), "alice@example.com");
    assert_eq!(poll(&t, &begun).await.1["error"], "authorization_pending");
    let right = [("username", "alice@example.com"), ("password", PASSWORD), ("do", "password")];
    let (status, done) = page(browser.submit(&again, &right).await).await;
    assert!(status == 200 && done.contains("You are signed in"), "{done}");

    // Another client does not get it; this one does, once.
    let other = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", POWERSHELL),
        ("device_code", text(&begun, "device_code")),
    ];
    assert_eq!(token(&t, &other).await.1["error"], "bad_verification_code");
    let (status, answer) = poll(&t, &begun).await;
    assert_eq!(status, 200, "{answer}");
    assert!(is_good(&t, &login, text(&answer, "access_token")).await);
    assert_eq!(with_refresh(&t, AZ, text(&answer, "refresh_token")).await.0, 200);
    assert_eq!(poll(&t, &begun).await.1["error"], "bad_verification_code");
    // The form again: nobody waits any more.
    assert_eq!(browser.submit(&again, &right).await.status(), 400);

    let begun = begin(&t).await;
    let url = text(&begun, "verification_uri_complete").to_owned();
    let (_, form) = page(browser.get(&url).await).await;
    let (status, _) = page(browser.submit(&form, &[("do", "cancel")]).await).await;
    assert_eq!(status, 200);
    assert_eq!(poll(&t, &begun).await.1["error"], "authorization_declined");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_device_sign_in_ends_after_a_while() {
    let t = TestServer::start().await;
    let begun = begin(&t).await;
    let service = &t.server.app.service;
    let client = service.sign_in_client(AZ).unwrap();
    let later = Timestamp::now().plus(device::LIFE);
    let late = service.redeem_device(&t.site.url, &client, text(&begun, "device_code"), later).await.unwrap_err();
    assert_eq!(late.code, "expired_token");
    assert!(service.waiting_device(text(&begun, "user_code"), later).await.is_err());
    // One place cannot fill the table.
    let now = Timestamp::now();
    let mut refused = None;
    for _ in 0..200 {
        if let Err(e) = service.begin_device(&client, "", "10.0.0.1", now).await {
            refused = Some(e.code);
            break;
        }
    }
    assert_eq!(refused, Some("temporarily_unavailable"));
    assert!(service.begin_device(&client, "", "10.0.0.2", now).await.is_ok());
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_form_is_good_in_the_browser_that_was_given_it_only() {
    let t = TestServer::start().await;
    user(&t, "mallory").await;
    let begun = begin(&t).await;
    let url = text(&begun, "verification_uri_complete").to_owned();
    let mut mallory = Browser::new(&t);
    let (_, form) = page(mallory.get(&url).await).await;
    let fields = [("username", "mallory@example.com"), ("password", PASSWORD), ("do", "password")];
    // Mallory's page has Mallory's form sent by a victim's browser: without a cookie, with the
    // victim's own, and as browsers mark what another site sends.
    let mut victim = Browser::new(&t);
    assert_eq!(victim.submit(&form, &fields).await.status(), 403);
    victim.get(&format!("{}/common/oauth2/v2.0/logout", t.site.url)).await;
    assert!(victim.cookie.is_some() && victim.cookie != mallory.cookie);
    assert_eq!(victim.submit(&form, &fields).await.status(), 403);
    let slip = value_of(&form, "slip");
    let mut all = vec![("slip", slip.as_str())];
    all.extend(fields);
    let crossed = t.site.client.post(format!("{}/common/oauth2/v2.0/sign-in", t.site.url)).form(&all);
    let crossed = mallory.send(crossed.header("sec-fetch-site", "cross-site")).await;
    assert_eq!(crossed.status(), 403);
    assert_eq!(poll(&t, &begun).await.1["error"], "authorization_pending", "nothing happened");
    // A slip for one end does not serve another.
    let (_, logout) = page(mallory.get(&format!("{}/common/oauth2/v2.0/logout", t.site.url)).await).await;
    let slip = value_of(&logout, "slip");
    let mut all = vec![("slip", slip.as_str())];
    all.extend(fields);
    let change = t.site.client.post(format!("{}/common/oauth2/v2.0/password", t.site.url)).form(&all);
    assert_eq!(mallory.send(change).await.status(), 403);
    // In their own browser it is good.
    assert_eq!(mallory.submit(&form, &fields).await.status(), 200);
    t.server.shutdown().await.unwrap();
}

/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://localhost:8400/";

fn authorize(t: &TestServer, change: &[(&str, &str)]) -> String {
    let mut query = vec![
        ("client_id", AZ),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT),
        ("scope", "https://containerregistry.azure.net/.default offline_access openid profile"),
        ("state", "s\"><script>alert(1)</script>"),
        ("nonce", "n-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("prompt", "select_account"),
        ("client_info", "1"),
    ];
    for (name, value) in change {
        query.retain(|(n, _)| n != name);
        query.push((name, value));
    }
    format!("{}?{}", endpoint(t, "authorize"), serde_urlencoded::to_string(query).unwrap())
}

async fn redeem(t: &TestServer, change: &[(&str, &str)], code: &str) -> (u16, Value) {
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("client_id", AZ),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
        ("client_info", "1"),
    ];
    for (name, value) in change {
        form.retain(|(n, _)| n != name);
        form.push((name, value));
    }
    token(t, &form).await
}

const RIGHT: [(&str, &str); 3] = [("username", "alice@example.com"), ("password", PASSWORD), ("do", "password")];

#[tokio::test]
async fn a_person_signs_in_with_a_browser() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("people").await.unwrap();
    user(&t, "alice").await;
    let mut browser = Browser::new(&t);
    // As az does it: the answer is posted to its port.
    let (status, form) = page(browser.get(&authorize(&t, &[("response_mode", "form_post")])).await).await;
    assert!(status == 200 && form.contains("Azure CLI") && !form.contains("<script"), "{form}");
    let res = browser.submit(&form, &RIGHT).await;
    let policy = res.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("form-action 'self' http://localhost:8400;"), "{policy}");
    let (_, back) = page(res).await;
    assert!(!back.contains("<script>") && back.matches("<script").count() == 1, "{back}");
    assert_eq!(attribute(&back, "<form", "action"), REDIRECT);
    assert_eq!(value_of(&back, "state"), "s\"><script>alert(1)</script>");
    let code = value_of(&back, "code");

    let wrong = |answer: (u16, Value)| (answer.0, answer.1["error"].clone());
    let invalid = (400, json!("invalid_grant"));
    for change in [
        ("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXX"),
        ("code_verifier", CHALLENGE),
        ("redirect_uri", "http://localhost:8401/"),
        ("client_id", POWERSHELL),
    ] {
        assert_eq!(wrong(redeem(&t, &[change], &code).await), invalid, "{change:?}");
    }
    assert_eq!(redeem(&t, &[("code_verifier", "")], &code).await.1["error"], "invalid_request");
    let (status, answer) = redeem(&t, &[], &code).await;
    assert_eq!(status, 200, "{answer}");
    assert!(is_good(&t, &login, text(&answer, "access_token")).await);
    let id: Value = serde_json::from_slice(
        &base64::Engine::decode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            text(&answer, "id_token").split('.').nth(1).unwrap(),
        )
        .unwrap(),
    )
    .unwrap();
    assert_eq!((&id["nonce"], &id["aud"]), (&json!("n-1"), &json!(AZ)));
    assert_eq!(redeem(&t, &[], &code).await.1["error_codes"], json!([54005]), "once");

    // In the query; and when the person declines.
    let (_, form) = page(browser.get(&authorize(&t, &[("state", "a b&c")])).await).await;
    let res = browser.submit(&form, &RIGHT).await;
    assert_eq!(res.status(), 303);
    let to = res.headers()["location"].to_str().unwrap().to_owned();
    assert!(to.starts_with("http://localhost:8400/?code=") && to.ends_with("&state=a+b%26c"), "{to}");
    let res = browser.submit(&form, &[("do", "cancel")]).await;
    let to = res.headers()["location"].to_str().unwrap();
    assert!(to.starts_with("http://localhost:8400/?error=access_denied"), "{to}");
    let res = browser.get(&authorize(&t, &[("prompt", "none")])).await;
    assert!(res.headers()["location"].to_str().unwrap().contains("error=login_required"));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_browser_is_not_sent_to_strangers() {
    let t = TestServer::start().await;
    let mut browser = Browser::new(&t);
    for change in [
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", "http://localhost.evil.example:8400/"),
        ("redirect_uri", "http://localhost@evil.example/"),
        ("redirect_uri", ""),
        ("client_id", "99999999-9999-9999-9999-999999999999"),
        ("client_id", "\"><script>"),
        ("code_challenge_method", "plain"),
        ("code_challenge", "short"),
        ("response_type", "token"),
        ("response_type", "id_token"),
        ("response_mode", "fragment"),
    ] {
        for prompt in ["select_account", "none"] {
            let res = browser.get(&authorize(&t, &[change, ("prompt", prompt)])).await;
            let (status, text) = page(res).await;
            assert_eq!(status, 400, "{change:?} {text}");
            assert!(!text.contains("<form") && !text.contains("<script>"), "{text}");
        }
    }
    let strange = format!("{}/22222222-2222-2222-2222-222222222222/oauth2/v2.0/authorize", t.site.url);
    assert_eq!(browser.get(&strange).await.status(), 400);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_person_changes_the_password_and_ends_all_sessions() {
    let t = TestServer::start().await;
    user(&t, "alice").await;
    let refresh =
        with_password(&t, "alice@example.com", PASSWORD).await.1["refresh_token"].as_str().unwrap().to_owned();
    let mut browser = Browser::new(&t);
    let url = format!("{}/common/oauth2/v2.0/password", t.site.url);
    let (_, form) = page(browser.get(&url).await).await;
    let change = |password, new, again| {
        [("username", "alice@example.com"), ("password", password), ("new", new), ("again", again)]
    };
    for (fields, status) in [
        (change("wrong", "New-Password-1", "New-Password-1"), 403),
        (change(PASSWORD, "New-Password-1", "New-Password-2"), 400),
        (change(PASSWORD, "weak", "weak"), 400),
        (change(PASSWORD, PASSWORD, PASSWORD), 400),
    ] {
        let (got, text) = page(browser.submit(&form, &fields).await).await;
        assert!(got == status && text.contains("role=\"alert\"") && !text.contains(PASSWORD), "{text}");
    }
    assert_eq!(with_refresh(&t, AZ, &refresh).await.0, 200, "nothing changed");
    let new = "New-Password-1";
    assert_eq!(browser.submit(&form, &change(PASSWORD, new, new)).await.status(), 200);
    assert_eq!(with_refresh(&t, AZ, &refresh).await.0, 400);
    assert_eq!(with_password(&t, "alice@example.com", PASSWORD).await.0, 400);
    let (status, answer) = with_password(&t, "alice@example.com", new).await;
    assert_eq!(status, 200);

    let (_, form) = page(browser.get(&format!("{}/common/oauth2/v2.0/logout", t.site.url)).await).await;
    let fields = [("username", "alice@example.com"), ("password", new), ("do", "password")];
    assert_eq!(browser.submit(&form, &fields).await.status(), 200);
    assert_eq!(with_refresh(&t, AZ, text(&answer, "refresh_token")).await.1["error_codes"], json!([50173]));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_switched_off_is_off() {
    let t = TestServer::start_with(|s| {
        s.sign_in_passwords = false;
        s.sign_in_device_codes = false;
    })
    .await;
    user(&t, "alice").await;
    assert_eq!(with_password(&t, "alice@example.com", PASSWORD).await.1["error_codes"], json!([50034]));
    let res = t.site.client.post(endpoint(&t, "devicecode")).form(&[("client_id", AZ)]).send().await.unwrap();
    assert_eq!(res.status(), 400);
    let mut browser = Browser::new(&t);
    let (_, form) = page(browser.get(&authorize(&t, &[])).await).await;
    assert!(!form.contains("type=\"password\""), "{form}");
    assert_eq!(browser.submit(&form, &RIGHT).await.status(), 400);
    let res =
        browser.get(&format!("{}/common/oauth2/v2.0/provider?slip={}", t.site.url, value_of(&form, "slip"))).await;
    assert_eq!(res.status(), 404);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn guesses_are_slowed_and_the_owner_comes_in() {
    let t = TestServer::start_with(|s| {
        s.rate_failed_sign_ins_per_identity_per_min = 4;
        s.rate_failed_sign_ins_per_min = 1_000;
    })
    .await;
    user(&t, "alice").await;
    user(&t, "bob").await;
    let mut statuses = Vec::new();
    for n in 0..10 {
        statuses.push(with_password(&t, "alice@example.com", &format!("guess-{n}")).await.0);
    }
    assert_eq!(statuses, [400, 400, 400, 400, 400, 400, 429, 429, 429, 429]);
    // Not with the right one either, and in no other form, from here; and bob is not alice.
    assert_eq!(with_password(&t, "ALICE@example.com", PASSWORD).await.0, 429);
    let mut browser = Browser::new(&t);
    let (_, form) = page(browser.get(&authorize(&t, &[])).await).await;
    let res = browser.submit(&form, &RIGHT).await;
    assert!(res.status() == 429 && res.headers().contains_key("retry-after"));
    assert_eq!(with_password(&t, "bob@example.com", PASSWORD).await.0, 200);
    t.server.shutdown().await.unwrap();

    // Where the owner has signed in before, the guesses of others do not shut them out.
    let t = TestServer::start_with(|s| s.rate_failed_sign_ins_per_min = 4).await;
    user(&t, "alice").await;
    assert_eq!(with_password(&t, "alice@example.com", PASSWORD).await.0, 200);
    for n in 0..40 {
        with_password(&t, &format!("user{n}@example.com"), "guess").await;
    }
    assert_eq!(with_password(&t, "user41@example.com", "guess").await.0, 400, "slowly");
    for _ in 0..5 {
        assert_eq!(with_password(&t, "alice@example.com", "mistyped").await.0, 400, "looked at");
    }
    assert_eq!(with_password(&t, "alice@example.com", PASSWORD).await.0, 200);
    t.server.shutdown().await.unwrap();
}
