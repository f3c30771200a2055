//! The control plane: resource groups, registries, runs, in Azure Resource Manager's shapes.
//!
//! Objects are passed through as JSON where they are only shown, so that a server newer
//! than the client loses nothing; the types here are what the client itself reads.

mod agent;
mod build_options;
mod cache_rule;
mod custom_domain;
mod extension;
mod group;
mod registry;
mod run;

use std::sync::Mutex;
use std::time::Duration;

use portolan_types::Timestamp;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::agent::{AgentAnswer, AgentQuestion, AgentQuestions};
pub use self::build_options::{BuildLabel, BuildOptions, BuildSecret, BuildSource, BuildSsh};
pub use self::extension::path_of;
pub use self::registry::{Registry, RegistryProperties, RegistryRef, Sku};
pub use self::run::{Argument, DockerBuildRequest, Run, RunCredentials, RunPlatform, RunProperties, SourceUpload};
use crate::error::{Error, Result};
use crate::identity::SignIn;
use crate::token::Token;
use crate::transport;

/// The api-version sent. The server takes any; this one says which shapes we read.
pub const API_VERSION: &str = "2025-11-01";
/// Pages one list may have.
const PAGES_MAX: usize = 10_000;
/// How long a long-running operation is waited for.
const OPERATION_SECS_MAX: u64 = 1_800;
/// When a long-running operation is first asked about.
const FIRST_POLL: Duration = Duration::from_millis(100);

/// A client of one subscription.
#[derive(Debug)]
pub struct ArmClient {
    http: reqwest::Client,
    sign_in: SignIn,
    subscription: String,
    token: Mutex<Option<Token>>,
}

impl ArmClient {
    /// `token`: one kept from before, if it is still good. Nothing is sent yet.
    pub fn new(http: reqwest::Client, sign_in: SignIn, subscription: impl Into<String>, token: Option<Token>) -> Self {
        ArmClient { http, sign_in, subscription: subscription.into(), token: Mutex::new(token) }
    }

    /// The subscription's id.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The token now in use, to be kept for the next time.
    pub fn kept_token(&self) -> Option<Token> {
        self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// `/subscriptions/{sub}`
    pub(crate) fn subscription_path(&self) -> String {
        format!("/subscriptions/{}", transport::segment(&self.subscription))
    }

    /// `/subscriptions/{sub}/resourceGroups/{group}`
    pub(crate) fn group_path(&self, group: &str) -> String {
        format!("{}/resourceGroups/{}", self.subscription_path(), transport::segment(group))
    }

    /// One request; the answer as JSON, `null` when it has no body. A long-running
    /// operation is waited for.
    pub async fn request<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T> {
        let url = self.url(path, "")?;
        let response = self.send(&method, &url, body).await?;
        let response = self.wait_for(&method, response).await?;
        json_or_null(response).await
    }

    /// One request whose long-running operation is not waited for.
    pub async fn request_no_wait(&self, method: Method, path: &str) -> Result<()> {
        let url = self.url(path, "")?;
        self.send(&method, &url, None).await.map(drop)
    }

    /// `GET path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request(Method::GET, path, None).await
    }

    /// All items of a list, page after page. `query` begins with `&` when not empty.
    pub async fn list(&self, path: &str, query: &str) -> Result<Vec<Value>> {
        #[derive(serde::Deserialize)]
        struct Page {
            value: Option<Vec<Value>>,
            #[serde(rename = "nextLink")]
            next_link: Option<String>,
        }
        let mut items = Vec::new();
        let mut url = self.url(path, query)?;
        for _ in 0..PAGES_MAX {
            let page: Page = transport::read_json(self.send(&Method::GET, &url, None).await?).await?;
            items.extend(page.value.unwrap_or_default());
            match page.next_link.filter(|l| !l.is_empty()) {
                Some(next) => url = self.same_server(&url, &next)?,
                None => return Ok(items),
            }
        }
        Err(Error::protocol(&url, "the list does not end"))
    }

    fn url(&self, path: &str, query: &str) -> Result<Url> {
        transport::join(self.sign_in.base(), &format!("{path}?api-version={API_VERSION}{query}"))
    }

    /// The server's address.
    pub(crate) fn base(&self) -> &Url {
        self.sign_in.base()
    }

    /// Who is signed in.
    pub fn sign_in(&self) -> &SignIn {
        &self.sign_in
    }

    /// One request to an address of this server, without an api-version.
    pub(crate) async fn exchange(&self, method: Method, url: &Url, body: Option<&Value>) -> Result<Value> {
        json_or_null(self.send(&method, url, body).await?).await
    }

    /// What stands behind a registry's name in its login server, as the server tells clouds'
    /// clients (`/metadata/endpoints`); without a leading dot.
    pub async fn login_server_suffix(&self) -> Result<Option<String>> {
        let url = transport::join(self.base(), "/metadata/endpoints?api-version=2022-09-01")?;
        let metadata = self.exchange(Method::GET, &url, None).await?;
        let suffix = metadata.pointer("/suffixes/acrLoginServer").and_then(Value::as_str);
        Ok(suffix.map(|s| s.trim_start_matches('.').to_owned()).filter(|s| !s.is_empty()))
    }

    /// An address the server gave, which must be its own: our token goes there.
    pub(crate) fn same_server(&self, current: &Url, text: &str) -> Result<Url> {
        let url = current.join(text).map_err(|_| Error::protocol(current, "it gave an address that does not parse"))?;
        if url.origin() != self.sign_in.base().origin() {
            return Err(Error::protocol(current, format!("it sent us on to another server, {}", url.authority())));
        }
        Ok(url)
    }

    /// Send with a token; on a 401 with a kept token, sign in again and send once more.
    async fn send(&self, method: &Method, url: &Url, body: Option<&Value>) -> Result<reqwest::Response> {
        let kept = self.kept_token().filter(|t| t.is_fresh(Timestamp::now()));
        let was_kept = kept.is_some();
        let token = match kept {
            Some(token) => token,
            None => self.new_token().await?,
        };
        match self.send_with(&token, method, url, body).await {
            Err(error) if error.status() == Some(401) && was_kept => {
                let token = self.new_token().await?;
                self.send_with(&token, method, url, body).await
            }
            answer => answer,
        }
    }

    async fn new_token(&self) -> Result<Token> {
        let token = self.sign_in.arm_token().await?;
        *self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    async fn send_with(
        &self,
        token: &Token,
        method: &Method,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<reqwest::Response> {
        let request = || {
            let request = self.http.request(method.clone(), url.clone()).bearer_auth(token.secret.expose());
            match body {
                Some(body) => request.json(body),
                None if *method == Method::POST || *method == Method::PUT => request.body(""),
                None => request,
            }
        };
        // Every ARM request may be made again but a POST, which may have begun something.
        if *method == Method::POST {
            transport::send_limited(url, request).await
        } else {
            transport::send_retried(url, request).await
        }
    }

    /// Wait for a long-running operation (ARM RPC, "asynchronous operations").
    async fn wait_for(&self, method: &Method, first: reqwest::Response) -> Result<reqwest::Response> {
        let header =
            |r: &reqwest::Response, name: &str| r.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        if !matches!(first.status().as_u16(), 201 | 202) {
            return Ok(first);
        }
        let resource = first.url().clone();
        let (watched, by_status) = match (header(&first, "azure-asyncoperation"), header(&first, "location")) {
            (Some(operation), _) => (self.same_server(&resource, &operation)?, true),
            (None, Some(location)) if first.status().as_u16() == 202 => {
                (self.same_server(&resource, &location)?, false)
            }
            _ => return Ok(first),
        };
        let begun = std::time::Instant::now();
        let mut pause_secs = header(&first, "retry-after").and_then(|s| s.parse().ok()).unwrap_or(1u64);
        // Most have ended when they are first asked about.
        let mut pause = FIRST_POLL;
        while begun.elapsed().as_secs() < OPERATION_SECS_MAX {
            tokio::time::sleep(pause).await;
            let answer = self.send(&Method::GET, &watched, None).await?;
            pause_secs = header(&answer, "retry-after").and_then(|s| s.parse().ok()).unwrap_or(pause_secs);
            pause = Duration::from_secs(pause_secs.clamp(1, 30));
            if !by_status {
                if answer.status().as_u16() != 202 {
                    return Ok(answer);
                }
                continue;
            }
            let status: OperationStatus = transport::read_json(answer).await?;
            match status.status.to_ascii_lowercase().as_str() {
                "succeeded" if *method == Method::DELETE || *method == Method::POST => return Ok(first),
                "succeeded" => return self.send(&Method::GET, &resource, None).await,
                "failed" | "canceled" => return Err(Error::Refused(status.into_refusal())),
                _ => {}
            }
        }
        Err(Error::protocol(&watched, "the operation takes longer than half an hour"))
    }
}

#[derive(serde::Deserialize)]
struct OperationStatus {
    status: String,
    error: Option<OperationError>,
}

#[derive(serde::Deserialize)]
struct OperationError {
    code: Option<String>,
    message: Option<String>,
}

impl OperationStatus {
    fn into_refusal(self) -> crate::Refusal {
        let error = self.error.unwrap_or(OperationError { code: None, message: None });
        crate::Refusal {
            status: 200,
            code: error.code.unwrap_or_else(|| "OperationFailed".into()),
            message: error.message.unwrap_or_else(|| format!("the operation ended as {}", self.status)),
            request_id: None,
            retry_after_secs: None,
        }
    }
}

async fn json_or_null<T: DeserializeOwned>(response: reqwest::Response) -> Result<T> {
    let url = response.url().clone();
    let body = transport::read_body(response, "the answer", transport::ANSWER_BYTES_MAX).await?;
    let body: &[u8] = if body.iter().all(u8::is_ascii_whitespace) { b"null" } else { &body };
    serde_json::from_slice(body).map_err(|e| Error::protocol(&url, format!("the answer does not parse: {e}")))
}
