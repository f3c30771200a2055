//! A client of one running server: signs in and manages as the tools do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// The group that [`Site::make_registry`] uses.
pub const GROUP: &str = "testgroup";
/// The audience of registry tokens.
const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";

/// A client that trusts one server.
#[derive(Clone)]
pub struct Site {
    /// Base URL with TLS.
    pub url: String,
    /// Base URL without, when the server listens there.
    pub http_url: Option<String>,
    /// The owner's credentials.
    pub bootstrap: Bootstrap,
    /// The CA's certificate.
    pub ca_pem: Vec<u8>,
    /// Trusts the CA; resolves `*.localhost`; follows no redirects.
    pub client: reqwest::Client,
}

/// `bootstrap.json`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bootstrap {
    /// Base URL.
    pub server: String,
    /// Tenant.
    pub tenant_id: String,
    /// Subscription.
    pub subscription_id: String,
    /// Owner's application id.
    pub client_id: String,
    /// Owner's secret.
    pub client_secret: String,
    /// CA to trust.
    pub ca_file: PathBuf,
}

impl Site {
    /// From the server's `bootstrap.json`.
    pub fn open(bootstrap: &Path) -> anyhow::Result<Site> {
        let text = std::fs::read(bootstrap).with_context(|| format!("read {}", bootstrap.display()))?;
        let bootstrap: Bootstrap = serde_json::from_slice(&text).context("read bootstrap.json")?;
        let ca_pem = std::fs::read(&bootstrap.ca_file).context("read the CA")?;
        let client = client(&ca_pem)?;
        Ok(Site { url: bootstrap.server.clone(), http_url: None, bootstrap, ca_pem, client })
    }

    /// The answer to a client-credentials request for `scope`.
    pub async fn sign_in(&self, client_id: &str, secret: &str, scope: &str) -> anyhow::Result<Response> {
        let url = format!("{}/{}/oauth2/v2.0/token", self.url, self.bootstrap.tenant_id);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", secret),
            ("scope", scope),
        ];
        self.client.post(url).form(&form).send().await.context("ask for a directory token")
    }

    async fn directory_token(&self, audience: &str) -> anyhow::Result<String> {
        let Bootstrap { client_id, client_secret, .. } = &self.bootstrap;
        let res = self.sign_in(client_id, client_secret, &format!("{audience}/.default")).await?;
        member(res, "access_token").await
    }

    /// The owner's token for the control plane.
    pub async fn arm_token(&self) -> anyhow::Result<String> {
        self.directory_token(&self.url).await
    }

    /// A control-plane request as the owner. `path` begins behind the subscription.
    pub async fn arm(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Response> {
        let version = if path.contains('?') { "&" } else { "?" };
        let url = format!(
            "{}/subscriptions/{}{path}{version}api-version=2024-11-01",
            self.url, self.bootstrap.subscription_id
        );
        let mut req = self.client.request(method, url).bearer_auth(self.arm_token().await?);
        if let Some(body) = body {
            req = req.json(&body);
        }
        req.send().await.context("ask the control plane")
    }

    /// The path of a registry in [`GROUP`], behind the subscription.
    pub fn registry_path(name: &str) -> String {
        format!("/resourceGroups/{GROUP}/providers/Microsoft.ContainerRegistry/registries/{name}")
    }

    /// Make a registry (and its group) with the admin user on; its login server.
    pub async fn make_registry(&self, name: &str) -> anyhow::Result<String> {
        let group = format!("/resourcegroups/{GROUP}");
        let made = self.arm(Method::PUT, &group, Some(json!({"location": "local"}))).await?;
        if !made.status().is_success() {
            bail!("make a group: {} {}", made.status(), made.text().await?);
        }
        let body = json!({
            "location": "local",
            "sku": {"name": "Premium"},
            "properties": {"adminUserEnabled": true}
        });
        let made = self.arm(Method::PUT, &Self::registry_path(name), Some(body)).await?;
        if !made.status().is_success() {
            bail!("make a registry: {} {}", made.status(), made.text().await?);
        }
        let made: Value = made.json().await?;
        made["properties"]["loginServer"].as_str().map(str::to_owned).context("it has no login server")
    }

    /// The owner's refresh token for a registry, as `az acr login` gets it.
    pub async fn refresh_token(&self, login_server: &str) -> anyhow::Result<String> {
        let directory = self.directory_token(REGISTRY_AUDIENCE).await?;
        let form = [
            ("grant_type", "access_token"),
            ("service", login_server),
            ("tenant", &self.bootstrap.tenant_id),
            ("access_token", &directory),
        ];
        let res = self.client.post(format!("https://{login_server}/oauth2/exchange")).form(&form).send().await?;
        member(res, "refresh_token").await
    }

    /// The owner's access token for a scope such as `repository:a/b:pull,push`.
    pub async fn token(&self, login_server: &str, scope: &str) -> anyhow::Result<String> {
        let refresh = self.refresh_token(login_server).await?;
        let form =
            [("grant_type", "refresh_token"), ("service", login_server), ("scope", scope), ("refresh_token", &refresh)];
        let res = self.client.post(format!("https://{login_server}/oauth2/token")).form(&form).send().await?;
        member(res, "access_token").await
    }

    /// A data-plane request, not yet sent.
    pub fn registry(&self, login_server: &str, token: &str, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("https://{login_server}{path}")).bearer_auth(token)
    }
}

/// A client that trusts one CA and knows where `*.localhost` is.
pub fn client(ca_pem: &[u8]) -> anyhow::Result<reqwest::Client> {
    let ca = reqwest::Certificate::from_pem(ca_pem).context("read the CA")?;
    reqwest::Client::builder()
        .tls_certs_only([ca])
        .dns_resolver(Arc::new(Localhost))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("make a client")
}

/// `localhost` and every name under it is this machine, as RFC 6761 has it and not every
/// resolver does.
struct Localhost;

impl reqwest::dns::Resolve for Localhost {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let host = name.as_str();
            if host != "localhost" && !host.ends_with(".localhost") {
                return Err(format!("tests ask no other host than localhost: {host}").into());
            }
            let here: reqwest::dns::Addrs = Box::new(std::iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
            Ok(here)
        })
    }
}

/// A text member of a JSON answer that must be 200.
async fn member(res: Response, name: &str) -> anyhow::Result<String> {
    let (url, status) = (res.url().clone(), res.status());
    let text = res.text().await.with_context(|| format!("read the answer of {url}"))?;
    if status != StatusCode::OK {
        bail!("{url}: {status} {text}");
    }
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{url}: {text}"))?;
    value[name].as_str().map(str::to_owned).with_context(|| format!("{url}: no {name} in {text}"))
}
