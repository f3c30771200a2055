//! Mounting blobs across repositories, and what it asks of the caller.

use super::*;

async fn mount(h: &Hub, query: &str) -> Response {
    h.send(Method::POST, format!("/v2/app/blobs/uploads/?{query}")).await
}

#[tokio::test]
async fn from_a_repository_that_has_it() {
    let h = Hub::start().await;
    let source = h.blob("other", b"shared").await;
    let res = mount(&h, &format!("mount={source}&from=other")).await;
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(head(&res, "docker-content-digest"), source.to_string());
    assert_eq!(head(&res, "location"), format!("/v2/app/blobs/{source}"));
    assert_eq!(h.send(Method::GET, head(&res, "location")).await.text().await.unwrap(), "shared");
    // From itself.
    assert_eq!(mount(&h, &format!("mount={source}&from=app")).await.status(), StatusCode::CREATED);
    h.stop().await;
}

#[tokio::test]
async fn from_wherever_it_can_be_found() {
    let h = Hub::start().await;
    let blob = h.blob("team/sub/app", b"shared").await;
    for query in [format!("mount={blob}"), format!("mount={blob}&from=")] {
        let res = mount(&h, &query).await;
        assert_eq!((res.status(), head(&res, "location")), (StatusCode::CREATED, &*format!("/v2/app/blobs/{blob}")));
        assert_eq!(h.send(Method::DELETE, format!("/v2/app/blobs/{blob}")).await.status(), StatusCode::ACCEPTED);
    }
    // What the token does not reach is not found.
    let only = h.t.site.token(&h.login, "repository:app:pull,push").await.unwrap();
    let req = h.t.site.registry(&h.login, &only, Method::POST, &format!("/v2/app/blobs/uploads/?mount={blob}"));
    assert_eq!(req.send().await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(h.send(Method::HEAD, format!("/v2/app/blobs/{blob}")).await.status(), StatusCode::NOT_FOUND);
    h.stop().await;
}

#[tokio::test]
async fn what_cannot_be_mounted_is_uploaded() {
    let h = Hub::start().await;
    let source = h.blob("other", b"shared").await;
    let absent = Digest::of(b"absent");
    for query in [
        format!("mount={absent}&from=other"),
        format!("mount={absent}"),
        format!("mount={absent}&from=app"),
        format!("mount={source}&from=BAD"),
        "mount=nonsense&from=other".to_owned(),
        "mount=&from=other".to_owned(),
    ] {
        let res = mount(&h, &query).await;
        assert_eq!(res.status(), StatusCode::ACCEPTED, "{query}");
        assert!(head(&res, "location").starts_with("/v2/app/blobs/uploads/"), "{query}");
        assert_eq!(h.send(Method::DELETE, head(&res, "location")).await.status(), StatusCode::NO_CONTENT);
    }
    h.stop().await;
}

#[tokio::test]
async fn a_token_for_the_target_alone_is_asked_to_reach_further() {
    let h = Hub::start().await;
    let source = h.blob("other", b"shared").await;
    let only = h.t.site.token(&h.login, "repository:app:pull,push").await.unwrap();
    let path = format!("/v2/app/blobs/uploads/?mount={source}&from=other");
    for token in [Some(&only), None] {
        let mut req = h.t.site.client.post(format!("https://{}{path}", h.login));
        if let Some(token) = token {
            req = req.bearer_auth(token);
        }
        let res = req.send().await.unwrap();
        let challenge = head(&res, "www-authenticate");
        assert!(challenge.ends_with(",scope=\"repository:app:pull,push repository:other:pull\""), "{challenge}");
        let body: Value = res.json().await.unwrap();
        assert_eq!(body["errors"][0]["detail"][2], json!({"Type": "repository", "Name": "other", "Action": "pull"}));
    }
    // With what the challenge asks for it is mounted.
    let both = h.t.site.token(&h.login, "repository:app:pull,push repository:other:pull").await.unwrap();
    let res = h.t.site.registry(&h.login, &both, Method::POST, &path).send().await.unwrap();
    assert_eq!(res.status(), StatusCode::CREATED);
    h.stop().await;
}
