//! People sign in at another provider: a second server of ours plays the organisation's.

use reqwest::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::people::{AZ, Browser, PASSWORD, attribute, token, user};
use crate::support::TestServer;

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT: &str = "http://localhost:8400/";

/// The organisation's provider, and a server that sends people there.
async fn pair(change: impl FnOnce(&mut portolan_server::Settings)) -> (TestServer, TestServer) {
    let theirs = TestServer::start().await;
    let issuer = format!("{}/{}/v2.0", theirs.site.url, theirs.site.bootstrap.tenant_id);
    let ca = theirs.site.bootstrap.ca_file.clone();
    let ours = TestServer::start_with(|s| {
        s.openid_issuer = Some(issuer);
        s.openid_client_id = Some(AZ.into());
        s.openid_ca_file = Some(ca);
        s.openid_user_claim = "preferred_username".into();
        s.openid_name = "Example & Co".into();
        change(s);
    })
    .await;
    (theirs, ours)
}

fn location(res: &Response) -> String {
    assert_eq!(res.status(), 303);
    res.headers()["location"].to_str().unwrap().to_owned()
}

/// Ask our server for a code, over its plain listener: the provider of the test sends people
/// back to loopback addresses only.
async fn ask(browser: &mut Browser<'_>) -> String {
    let query = [
        ("client_id", AZ),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT),
        ("scope", "https://containerregistry.azure.net/.default offline_access openid profile"),
        ("state", "s1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let query = serde_urlencoded::to_string(query).unwrap();
    let tenant = &browser.t.site.bootstrap.tenant_id;
    let url = format!("{}/{tenant}/oauth2/v2.0/authorize?{query}", browser.t.http());
    let res = browser.get(&url).await;
    assert_eq!(res.status(), 200);
    let page = res.text().await.unwrap();
    assert!(page.contains("Continue with Example &amp; Co"), "{page}");
    format!("{}{}", browser.t.http(), attribute(&page, "<a class=\"button", "href"))
}

/// Sign in at the provider; where its browser is sent back to.
async fn there(theirs: &TestServer, to: &str, name: &str) -> String {
    let mut browser = Browser::new(theirs);
    let form = browser.get(to).await;
    assert_eq!(form.status(), 200, "{}", form.text().await.unwrap());
    let form = form.text().await.unwrap();
    let name = format!("{name}@example.com");
    let fields = [("username", name.as_str()), ("password", PASSWORD), ("do", "password")];
    location(&browser.submit(&form, &fields).await)
}

/// The whole way; the answer at our callback.
async fn travel<'a>(theirs: &TestServer, browser: &mut Browser<'a>, name: &str) -> Response {
    let leave = ask(browser).await;
    let to = location(&browser.get(&leave).await);
    assert!(to.starts_with(&theirs.site.url), "{to}");
    let back = there(theirs, &to, name).await;
    assert!(back.starts_with(browser.t.http()), "{back}");
    browser.get(&back).await
}

/// What the client gets for the code that the browser was sent on with.
async fn redeem(t: &TestServer, res: &Response) -> (u16, Value) {
    let to = location(res);
    assert!(to.starts_with(REDIRECT) && to.ends_with("state=s1"), "{to}");
    let code = to.split(['?', '&']).find_map(|pair| pair.strip_prefix("code=")).unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", AZ),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    token(t, &form).await
}

fn claims(answer: &Value) -> Value {
    use base64::Engine as _;
    let part = answer["id_token"].as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn somebody_of_the_organisation_becomes_a_user_and_stays_who_they_are() {
    let (theirs, ours) = pair(|s| {
        s.openid_create_users = true;
        s.openid_domains = Some("example.com, @example.org".into());
    })
    .await;
    let there_id = user(&theirs, "alice").await;
    let mut browser = Browser::new(&ours);
    let res = travel(&theirs, &mut browser, "alice").await;
    let (status, answer) = redeem(&ours, &res).await;
    assert_eq!(status, 200, "{answer}");
    let first = claims(&answer);
    assert_eq!((&first["preferred_username"], &first["amr"]), (&json!("alice@example.com"), &json!(["fed"])));
    let id: Uuid = first["oid"].as_str().unwrap().parse().unwrap();
    assert_ne!(id, there_id);
    // Again, and with another name there: the same user.
    let service = &theirs.server.app.service;
    let mut row =
        service.meta.read(move |tx| portolan_store::meta::principal::get(tx, there_id)).await.unwrap().unwrap();
    row.user_name = Some("alice.smith@example.com".into());
    service.meta.write(move |tx| portolan_store::meta::principal::update(tx, &row)).await.unwrap();
    service.refresh().await.unwrap();
    let res = travel(&theirs, &mut browser, "alice.smith").await;
    let (_, answer) = redeem(&ours, &res).await;
    assert_eq!(claims(&answer)["oid"], json!(id));

    // A password there is none here.
    let form =
        [("grant_type", "password"), ("client_id", AZ), ("username", "alice@example.com"), ("password", PASSWORD)];
    assert_eq!(token(&ours, &form).await.1["error"], "invalid_grant");
    // Disabled here, whatever the provider says.
    let service = &ours.server.app.service;
    let now = portolan_types::Timestamp::now();
    service.meta.write(move |tx| portolan_store::meta::principal::set_enabled(tx, id, false, now)).await.unwrap();
    service.refresh().await.unwrap();
    assert_eq!(travel(&theirs, &mut browser, "alice.smith").await.status(), 400);
    let refresh = answer["refresh_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("client_id", AZ), ("refresh_token", refresh)];
    assert_eq!(token(&ours, &form).await.1["error_codes"], json!([50173]));
    theirs.server.shutdown().await.unwrap();
    ours.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn not_everybody_of_the_organisation_may_come() {
    let refused = async |create: bool, link: bool, domains: &str, known: bool| {
        let (theirs, ours) = pair(|s| {
            s.openid_create_users = create;
            s.openid_link_users = link;
            s.openid_domains = (!domains.is_empty()).then(|| domains.to_owned());
        })
        .await;
        user(&theirs, "alice").await;
        if known {
            user(&ours, "alice").await;
        }
        let res = travel(&theirs, &mut Browser::new(&ours), "alice").await;
        let status = res.status().as_u16();
        theirs.server.shutdown().await.unwrap();
        ours.server.shutdown().await.unwrap();
        status
    };
    // Nobody is made a user unasked; another domain; a user of that name is not theirs to be.
    assert_eq!(refused(false, false, "", false).await, 403);
    assert_eq!(refused(true, true, "example.org", false).await, 403);
    assert_eq!(refused(true, false, "", true).await, 403);
    assert_eq!(refused(false, true, "", true).await, 303, "unless the operator says so");
}

#[tokio::test]
async fn the_way_back_belongs_to_the_browser_that_left() {
    let (theirs, ours) = pair(|s| s.openid_create_users = true).await;
    user(&theirs, "mallory").await;
    // Mallory leaves, signs in there, and has a victim's browser come back in their place: with
    // no cookie, and with its own.
    let mut mallory = Browser::new(&ours);
    let leave = ask(&mut mallory).await;
    let to = location(&mallory.get(&leave).await);
    let back = there(&theirs, &to, "mallory").await;
    let mut victim = Browser::new(&ours);
    assert_eq!(victim.get(&back).await.status(), 403);
    ask(&mut victim).await;
    assert!(victim.cookie.is_some());
    assert_eq!(victim.get(&back).await.status(), 403);
    // An answer of another sign-in of their own: the code does not fit its nonce and verifier.
    let leave = ask(&mut mallory).await;
    let other = location(&mallory.get(&leave).await);
    let state = |url: &str| url.split(['?', '&']).find(|pair| pair.starts_with("state=")).unwrap().to_owned();
    let mixed = back.replace(&state(&back), &state(&other));
    assert_eq!(mallory.get(&mixed).await.status(), 403);
    // And an answer that says it is another provider's (RFC 9207).
    assert_eq!(mallory.get(&format!("{back}&iss=https://evil.example")).await.status(), 403);
    // A code that the provider does not know, and what it says when somebody declines.
    let code = back.split(['?', '&']).find(|pair| pair.starts_with("code=")).unwrap();
    assert_eq!(mallory.get(&back.replace(code, "code=x")).await.status(), 403);
    let res = mallory.get(&back.replace(code, "error=access_denied&error_description=%3Cb%3Eno")).await;
    assert_eq!(res.status(), 403);
    let text = res.text().await.unwrap();
    assert!(text.contains("&lt;b&gt;no") && !text.contains("<b>"), "{text}");
    // Their own way back is good.
    assert_eq!(mallory.get(&back).await.status(), 303);
    theirs.server.shutdown().await.unwrap();
    ours.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_away_is_said_to_be() {
    let (theirs, ours) = pair(|s| s.openid_create_users = true).await;
    theirs.server.shutdown().await.unwrap();
    let mut browser = Browser::new(&ours);
    let leave = ask(&mut browser).await;
    let res = browser.get(&leave).await;
    assert_eq!(res.status(), 503);
    assert!(res.text().await.unwrap().contains("Example &amp; Co cannot be asked"));
    ours.server.shutdown().await.unwrap();
}
