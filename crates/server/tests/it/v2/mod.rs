//! `/v2/` over HTTP, statement by statement of the OCI distribution specification 1.1 and of
//! Docker's registry API; `docs/reference/oci.md` has the table of what proves what. A room
//! for each part of it.

mod delete;
mod host;
mod isolation;
mod list;
mod mount;
mod pull;
mod push;
mod referrers;
mod upload;

use portolan_types::{Digest, media_type};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::TestServer;

/// The codes of the specification's table, and the one of its "Legacy Docker support error
/// codes" that is in use.
const CODES: [&str; 15] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "TAG_INVALID",
];

/// A server with one registry and a token for everything in a few repositories.
struct Hub {
    t: TestServer,
    login: String,
    token: String,
}

impl Hub {
    async fn start() -> Hub {
        let t = TestServer::start().await;
        let login = t.site.make_registry("hubtest").await.unwrap();
        let scope = "repository:app:pull,push,delete repository:team/sub/app:pull,push,delete \
                     repository:other:pull,push,delete registry:catalog:*";
        let token = t.site.token(&login, scope).await.unwrap();
        Hub { t, login, token }
    }

    fn ask(&self, method: Method, path: impl AsRef<str>) -> RequestBuilder {
        self.t.site.registry(&self.login, &self.token, method, path.as_ref())
    }

    async fn send(&self, method: Method, path: impl AsRef<str>) -> Response {
        self.ask(method, path).send().await.unwrap()
    }

    /// A request with one more header.
    async fn with(&self, method: Method, path: impl AsRef<str>, name: &str, value: &str) -> Response {
        self.ask(method, path).header(name, value).send().await.unwrap()
    }

    async fn json(&self, path: impl AsRef<str>) -> Value {
        self.send(Method::GET, path).await.json().await.unwrap()
    }

    async fn blob(&self, repo: &str, bytes: &[u8]) -> Digest {
        self.t.site.push_blob(&self.login, &self.token, repo, bytes).await.unwrap()
    }

    async fn image(&self, repo: &str, tag: &str, content: &str) -> portolan_testkit::Pushed {
        self.t.site.push_image(&self.login, repo, tag, &[content.as_bytes()]).await.unwrap()
    }

    async fn put(&self, repo: &str, reference: &str, manifest: &Value) -> Response {
        self.put_as(repo, reference, media_type::OCI_MANIFEST, serde_json::to_vec(manifest).unwrap()).await
    }

    async fn put_as(&self, repo: &str, reference: &str, kind: &str, bytes: impl Into<Vec<u8>>) -> Response {
        let req = self.ask(Method::PUT, format!("/v2/{repo}/manifests/{reference}"));
        req.header("content-type", kind).body(bytes.into()).send().await.unwrap()
    }

    async fn start_upload(&self, repo: &str) -> String {
        let res = self.send(Method::POST, format!("/v2/{repo}/blobs/uploads/")).await;
        assert_eq!(res.status(), StatusCode::ACCEPTED);
        head(&res, "location").to_owned()
    }

    async fn stop(self) {
        self.t.server.shutdown().await.unwrap();
    }
}

/// A header of an answer; empty when it is not there.
fn head<'a>(res: &'a Response, name: &str) -> &'a str {
    res.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

/// Status and first error code; the body must be the specification's, the code one of its.
async fn refusal(res: Response) -> (u16, String) {
    let status = res.status().as_u16();
    assert!(head(&res, "content-type").starts_with("application/json"), "{status}");
    let body: Value = res.json().await.unwrap();
    let first = &body["errors"][0];
    let code = first["code"].as_str().unwrap_or("?").to_owned();
    assert!(CODES.contains(&code.as_str()), "{body}");
    assert!(first["message"].is_string() && first.get("detail").is_some(), "{body}");
    (status, code)
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// An index of these manifests, with their platforms.
fn index_of(children: &[(&Digest, usize, &str)]) -> Value {
    let manifests: Vec<Value> = children
        .iter()
        .map(|(digest, size, architecture)| {
            json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": size,
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests})
}
