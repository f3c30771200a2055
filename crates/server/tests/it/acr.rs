//! `/acr/v1/` over HTTP, as `az acr repository` asks and reads.

use portolan_testkit::Pushed;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::TestServer;

struct Hub {
    t: TestServer,
    login: String,
    token: String,
}

const REPO: &str = "team/app";

impl Hub {
    async fn start() -> Hub {
        let t = TestServer::start().await;
        let login = t.site.make_registry("acrtest").await.unwrap();
        let scope = "repository:team/app:pull,push,delete,metadata_read,metadata_write registry:catalog:*";
        let token = t.site.token(&login, scope).await.unwrap();
        Hub { t, login, token }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let mut req = self.t.site.registry(&self.login, &self.token, method, path);
        if let Some(body) = body {
            req = req.json(&body);
        }
        req.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let res = self.send(Method::GET, path, None).await;
        assert_eq!(res.status(), StatusCode::OK, "{path}");
        res.json().await.unwrap()
    }

    async fn image(&self, tag: &str, content: &str) -> Pushed {
        self.t.site.push_image(&self.login, REPO, tag, &[content.as_bytes()]).await.unwrap()
    }

    async fn retag(&self, tag: &str, image: &Pushed) {
        let res = self.t.site.put_manifest(&self.login, &self.token, REPO, tag, &image.manifest).await.unwrap();
        assert_eq!(res.status(), StatusCode::CREATED);
    }

    async fn refused(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let res = self.send(method, path, body).await;
        let status = res.status().as_u16();
        let body: Value = res.json().await.unwrap();
        (status, body["errors"][0]["code"].as_str().unwrap_or("?").to_owned())
    }

    async fn stop(self) {
        self.t.server.shutdown().await.unwrap();
    }
}

fn is_acr_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or("");
    text.len() == "2026-11-20T10:00:00.1234560Z".len() && text.ends_with('Z') && text.as_bytes()[19] == b'.'
}

fn all_enabled() -> Value {
    json!({"deleteEnabled": true, "writeEnabled": true, "readEnabled": true, "listEnabled": true})
}

#[tokio::test]
async fn shapes() {
    let h = Hub::start().await;
    let image = h.image("v1", "one").await;
    let digest = image.digest.to_string();

    let repo = h.get("/acr/v1/team/app").await;
    assert!(is_acr_time(&repo["createdTime"]) && is_acr_time(&repo["lastUpdateTime"]), "{repo}");
    assert_eq!((&repo["registry"], &repo["imageName"]), (&json!(h.login), &json!(REPO)));
    assert_eq!((&repo["manifestCount"], &repo["tagCount"]), (&json!(1), &json!(1)));
    assert_eq!(repo["changeableAttributes"], all_enabled());

    let tags = h.get("/acr/v1/team/app/_tags").await;
    assert_eq!((&tags["registry"], &tags["imageName"]), (&json!(h.login), &json!(REPO)));
    let tag = &tags["tags"][0];
    assert_eq!((&tag["name"], &tag["digest"], &tag["signed"]), (&json!("v1"), &json!(digest), &json!(false)));
    assert!(is_acr_time(&tag["createdTime"]) && is_acr_time(&tag["lastUpdateTime"]));
    assert_eq!(h.get("/acr/v1/team%2Fapp/_tags/v1").await["tag"], *tag, "SDKs encode the slash");

    let manifests = h.get("/acr/v1/team/app/_manifests").await;
    let manifest = &manifests["manifests"][0];
    assert_eq!((&manifest["digest"], &manifest["tags"]), (&json!(digest), &json!(["v1"])));
    assert_eq!((&manifest["architecture"], &manifest["os"]), (&json!("amd64"), &json!("linux")));
    assert_eq!(manifest["configMediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert!(manifest["imageSize"].as_u64().unwrap() > 3 && is_acr_time(&manifest["createdTime"]));
    let one = h.get(&format!("/acr/v1/team/app/_manifests/{digest}")).await;
    assert_eq!(one["manifest"], *manifest);

    assert_eq!(h.get("/acr/v1/_catalog").await, json!({"repositories": [REPO]}));
    assert_eq!(h.refused(Method::GET, "/acr/v1/team/app/_tags/none", None).await, (404, "TAG_UNKNOWN".into()));
    let unknown = format!("/acr/v1/team/app/_manifests/{}", portolan_types::Digest::of(b"x"));
    assert_eq!(h.refused(Method::GET, &unknown, None).await, (404, "MANIFEST_UNKNOWN".into()));
    assert_eq!(h.refused(Method::GET, "/acr/v1/elsewhere", None).await, (401, "UNAUTHORIZED".into()));
    assert_eq!(h.refused(Method::PUT, "/acr/v1/team/app", None).await, (405, "UNSUPPORTED".into()));
    h.stop().await;
}

#[tokio::test]
async fn pages_in_the_order_of_time() {
    let h = Hub::start().await;
    let image = h.image("b", "one").await;
    for tag in ["c", "a"] {
        h.retag(tag, &image).await;
    }
    // As az does: it keeps only the query of the link.
    let walk = async |orderby: &str| {
        let (mut names, mut query) = (Vec::new(), format!("n=1{orderby}"));
        loop {
            let res = h.send(Method::GET, &format!("/acr/v1/team/app/_tags?{query}"), None).await;
            let link = res.headers().get("link").map(|l| l.to_str().unwrap().to_owned());
            let body: Value = res.json().await.unwrap();
            names.extend(body["tags"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()));
            match link {
                None => return names.concat(),
                Some(link) => {
                    query = link.split_once('?').unwrap().1.split_once('>').unwrap().0.to_owned();
                }
            }
        }
    };
    assert_eq!(walk("").await, "abc");
    assert_eq!(walk("&orderby=timeasc").await, "bca");
    assert_eq!(walk("&orderby=timedesc").await, "acb");
    let other = h.image("x", "two").await;
    let filtered = h.get(&format!("/acr/v1/team/app/_tags?digest={}", other.digest)).await;
    assert_eq!(filtered["tags"].as_array().unwrap().len(), 1);
    let manifests = h.get("/acr/v1/team/app/_manifests?orderby=timedesc&n=1").await;
    assert_eq!(manifests["manifests"][0]["digest"], json!(other.digest));
    h.stop().await;
}

#[tokio::test]
async fn locks_and_untagging() {
    let h = Hub::start().await;
    let image = h.image("v1", "one").await;
    let tag = "/acr/v1/team/app/_tags/v1";
    let manifest = format!("/acr/v1/team/app/_manifests/{}", image.digest);
    let disallowed = (405, "REGISTRY_DISALLOWED_OPERATION".to_owned());
    let locked = h.send(Method::PATCH, tag, Some(json!({"writeEnabled": false}))).await;
    assert_eq!(locked.status(), StatusCode::OK);
    let body: Value = locked.json().await.unwrap();
    assert_eq!(body["tag"]["changeableAttributes"]["writeEnabled"], false);
    assert_eq!(body["tag"]["changeableAttributes"]["deleteEnabled"], true);
    assert_eq!(h.refused(Method::DELETE, tag, None).await, disallowed);
    h.send(Method::PATCH, tag, Some(json!({"writeEnabled": true}))).await;
    h.send(Method::PATCH, &manifest, Some(json!({"deleteEnabled": false}))).await;
    let by_digest = format!("/v2/team/app/manifests/{}", image.digest);
    // Under the code that the OCI's table has for it.
    assert_eq!(h.refused(Method::DELETE, &by_digest, None).await, (405, "DENIED".into()));
    let repo = h.send(Method::PATCH, "/acr/v1/team/app", Some(json!({"deleteEnabled": null, "x": 1}))).await;
    assert_eq!(repo.json::<Value>().await.unwrap()["changeableAttributes"], all_enabled());
    let nonsense = h.refused(Method::PATCH, tag, Some(json!({"writeEnabled": "no"}))).await;
    assert_eq!(nonsense, (400, "UNSUPPORTED".into()));

    assert_eq!(h.send(Method::DELETE, tag, None).await.status(), StatusCode::ACCEPTED);
    let untagged = h.get(&manifest).await;
    assert!(untagged["manifest"].get("tags").is_none(), "{untagged}");
    h.stop().await;
}

#[tokio::test]
async fn deleting_as_az_does() {
    let h = Hub::start().await;
    let image = h.image("v1", "one").await;
    h.retag("also", &image).await;
    // `az acr repository delete --image app:v1`: the tag's manifest, and so both tags.
    let tag = h.get("/acr/v1/team/app/_tags/v1").await;
    let digest = tag["tag"]["digest"].as_str().unwrap().to_owned();
    let gone = h.send(Method::DELETE, &format!("/v2/team/app/manifests/{digest}"), None).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    assert_eq!(h.refused(Method::GET, "/acr/v1/team/app", None).await, (404, "NAME_UNKNOWN".into()));
    let image = h.image("v1", "one").await;
    h.retag("v2", &image).await;
    let gone = h.send(Method::DELETE, "/acr/v1/team/app", None).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    let body: Value = gone.json().await.unwrap();
    assert_eq!(body, json!({"manifestsDeleted": [image.digest], "tagsDeleted": ["v1", "v2"]}));
    assert_eq!(h.get("/acr/v1/_catalog").await, json!({"repositories": []}));
    h.stop().await;
}
