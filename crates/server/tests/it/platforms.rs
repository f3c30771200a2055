//! Builds for several platforms, over HTTP: one index under the tags, and bases out of it.

use portolan_types::media_type;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::builds::{Yard, dockerfile};

const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox:1 AS build
RUN echo common
ARG TARGETARCH
RUN echo for $TARGETARCH | tee /arch
FROM scratch
COPY --from=build /arch /arch
";

async fn manifest(yard: &Yard, repo: &str, reference: &str) -> (String, Value) {
    let token = yard.site.token(&yard.login_server, &format!("repository:{repo}:pull")).await.unwrap();
    let path = format!("/v2/{repo}/manifests/{reference}");
    let req = yard.site.registry(&yard.login_server, &token, Method::GET, &path);
    let accept = [media_type::DOCKER_LIST, media_type::OCI_INDEX, media_type::DOCKER_MANIFEST].join(", ");
    let res = req.header("accept", accept).send().await.unwrap();
    assert_eq!(res.status(), StatusCode::OK, "{repo}:{reference}");
    let kind = res.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, res.json().await.unwrap())
}

#[tokio::test]
async fn an_index_over_the_platforms() {
    let yard = Yard::start().await;
    yard.base().await;
    let both = json!({"platforms": ["linux/amd64", "linux/arm64"]});
    let order = json!({"imageNames": ["app:v1", "app:latest", "other:v1"], "buildOptions": both});
    let done = yard.built(dockerfile(CROSS), order).await;
    let shown = |text: &str| done.log.matches(text).count();
    // A step's title says the command too.
    assert_eq!(shown(" common\r\n"), 2, "one line of output and one title:\n{}", done.log);
    assert_eq!((shown(" for amd64\r\n"), shown(" for arm64\r\n")), (1, 1), "{}", done.log);
    assert_eq!(shown("Stored image: "), 3, "{}", done.log);

    let (kind, index) = manifest(&yard, "app", "v1").await;
    assert_eq!(kind, media_type::DOCKER_LIST);
    let children = index["manifests"].as_array().unwrap();
    let platforms: Vec<&Value> = children.iter().map(|child| &child["platform"]).collect();
    let platform = |architecture: &str| json!({"os": "linux", "architecture": architecture});
    assert_eq!(platforms, [&platform("amd64"), &platform("arm64")]);
    for child in children {
        let (kind, image) = manifest(&yard, "app", child["digest"].as_str().unwrap()).await;
        assert_eq!(kind, media_type::DOCKER_MANIFEST);
        assert_eq!(image["layers"].as_array().unwrap().len(), 1);
    }
    for (repo, tag) in [("app", "latest"), ("other", "v1")] {
        assert_eq!(manifest(&yard, repo, tag).await.1, index, "{repo}:{tag}");
    }
    let run = &done.run["properties"]["outputImages"];
    assert_eq!(run.as_array().unwrap().len(), 3, "{run}");

    // The right child is what a later build stands on.
    let order = json!({"imageNames": ["next:v1"], "platform": {"os": "linux", "architecture": "arm64"}});
    yard.built(dockerfile("FROM app:v1\nLABEL a=b\n"), order).await;
    let (_, next) = manifest(&yard, "next", "v1").await;
    let (_, arm) = manifest(&yard, "app", children[1]["digest"].as_str().unwrap()).await;
    assert_eq!(next["layers"], arm["layers"]);

    // One alone is an image, however it was asked for.
    let order = json!({"imageNames": ["one:v1"], "buildOptions": {"platforms": ["linux/arm64"]}});
    yard.built(dockerfile(CROSS), order).await;
    assert_eq!(manifest(&yard, "one", "v1").await.0, media_type::DOCKER_MANIFEST);
}

#[tokio::test]
async fn a_platform_without_a_base_fails_all() {
    let yard = Yard::start().await;
    yard.base().await;
    let order = json!({"imageNames": ["app:v1"], "buildOptions": {"platforms": ["linux/amd64", "linux/s390x"]}});
    let run = yard.order(dockerfile("FROM busybox:1\nRUN true\n"), order).await;
    let ended = yard.ended(&run).await;
    assert_eq!(ended.status(), "Failed");
    assert!(ended.log.contains("the build wants linux/s390x"), "{}", ended.log);
    assert!(!ended.log.contains("Stored"), "{}", ended.log);
}
