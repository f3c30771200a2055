//! Rates by identity and address: 429 with `Retry-After`, and nothing is done.

use portolan_testkit::Site;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::TestServer;

/// A refusal by a rate, in OCI's form.
async fn limited(res: Response) {
    let wait: u32 = res.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(wait >= 1);
    assert_eq!(res.status(), 429);
    let body: Value = res.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "TOOMANYREQUESTS", "{body}");
}

#[tokio::test]
async fn each_identity_has_its_own_rates_for_reads_and_writes() {
    let t = TestServer::start_with(|s| {
        // No test takes so long that more come back.
        (s.rate_reads_per_min, s.rate_writes_per_min) = (5, 20);
    })
    .await;
    let login = t.site.make_registry("rates").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    let get = || t.site.registry(&login, &token, Method::GET, "/v2/").send();
    let mut first_refused = None;
    for n in 0..8 {
        let res = get().await.unwrap();
        if res.status() == 429 {
            first_refused.get_or_insert(n);
            limited(res).await;
        } else {
            assert_eq!(res.status(), 200);
        }
    }
    assert_eq!(first_refused, Some(5));

    // Writes of the same identity have their own, of which making the registry took some.
    let mut written = 0;
    let refused = loop {
        let res = t.site.registry(&login, &token, Method::POST, "/v2/a/blobs/uploads/").send().await.unwrap();
        match res.status().as_u16() {
            202 => written += 1,
            _ => break res,
        }
        assert!(written < 20);
    };
    limited(refused).await;
    let metrics = t.get(format!("{}/metrics", t.http())).await.text().await.unwrap();
    let open = format!("portolan_uploads_open {written}");
    for line in
        [r#"portolan_rate_limited_total{class="read"} 3"#, r#"portolan_rate_limited_total{class="write"} 1"#, &open]
    {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }

    // The control plane says it in its own words.
    let res = t.site.arm(Method::GET, "/resourcegroups", None).await.unwrap();
    assert_eq!(res.status(), 429);
    assert!(res.headers().contains_key("retry-after"));
    assert_eq!(res.json::<Value>().await.unwrap()["error"]["code"], "TooManyRequests");

    // Somebody else is not held up; nor are those who only look whether we live.
    let path = format!("{}/listCredentials", Site::registry_path("rates"));
    assert_eq!(t.site.arm(Method::POST, &path, Some(json!({}))).await.unwrap().status(), 429);
    let nobody = t.site.client.get(format!("https://{login}/v2/")).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    for _ in 0..20 {
        assert_eq!(t.get(format!("{}/healthz", t.http())).await.status(), 200);
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn wrong_passwords_close_the_door_for_a_while() {
    let t = TestServer::start_with(|s| s.rate_failed_sign_ins_per_min = 4).await;
    let login = t.site.make_registry("doors").await.unwrap();
    let path = format!("{}/listCredentials", Site::registry_path("doors"));
    let admin: Value = t.site.arm(Method::POST, &path, Some(json!({}))).await.unwrap().json().await.unwrap();
    let password = admin["passwords"][0]["value"].as_str().unwrap().to_owned();
    let token = |user: &str, password: &str| {
        let url = format!("https://{login}/oauth2/token?service={login}&scope=repository:a:pull");
        t.site.client.get(url).basic_auth(user.to_owned(), Some(password.to_owned())).send()
    };
    let base = |password: &str| {
        t.site.client.get(format!("https://{login}/v2/")).basic_auth("doors", Some(password.to_owned())).send()
    };
    // Wherever the wrong ones are said.
    assert_eq!(token("doors", "wrong").await.unwrap().status(), 401);
    assert_eq!(base("wrong").await.unwrap().status(), 401);
    let stranger = "99999999-9999-9999-9999-999999999999";
    let wrong = t.site.sign_in(stranger, "wrong", "x/.default").await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert_eq!(token("other", "wrong").await.unwrap().status(), 401);
    // Now each name is looked at twice more, and then not even the right password.
    assert_eq!(token("doors", "wrong").await.unwrap().status(), 401);
    assert_eq!(token("doors", "wrong").await.unwrap().status(), 401);
    limited(token("doors", &password).await.unwrap()).await;
    limited(base(&password).await.unwrap()).await;
    // The owner has signed in from here before, and goes on.
    for _ in 0..10 {
        assert_eq!(t.site.arm(Method::GET, "/resourcegroups", None).await.unwrap().status(), 200);
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_a_rate_nobody_is_counted() {
    let t = TestServer::start_with(|s| {
        s.rate_failed_sign_ins_per_min = 0;
        s.rate_failed_sign_ins_per_identity_per_min = 0;
    })
    .await;
    let login = t.site.make_registry("freely").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull").await.unwrap();
    for _ in 0..50 {
        let res = t.site.registry(&login, &token, Method::GET, "/v2/").send().await.unwrap();
        assert_eq!(res.status(), 200);
    }
    assert_eq!(t.server.app.rates.remembered(), 0);
    t.server.shutdown().await.unwrap();
}
