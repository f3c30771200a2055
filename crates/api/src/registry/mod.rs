//! A client of any OCI registry (distribution-spec 1.1): what a build pulls its base
//! images with, and what the command line pulls and pushes with.
//!
//! Life of a request: the token kept for its scope goes along, if there is one; a 401
//! answer's challenge is met once and the request sent again; a broken connection, a 429
//! or a 5xx is tried again with growing waits, [`TRIES_MAX`](crate::transport) times in
//! all. Content is checked against its digest while it passes: a caller that reads a blob
//! to its end without an error has the right bytes.

mod blob;
pub(crate) mod challenge;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use portolan_types::{Digest, Reference, RepoName, Secret, limits, media_type};
use reqwest::Url;

pub use self::blob::ByteStream;
use self::challenge::Challenge;
use self::token::Tokens;
use crate::egress::{Egress, guarded_client};
use crate::error::{Error, Result};
use crate::transport::{self, TransportOptions};

/// Every manifest type that [`RegistryClient::manifest`]'s caller may want, newest first.
pub const ACCEPT_ALL: &[&str] = &[
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
    media_type::OCI_ARTIFACT,
];

/// Who we are to a registry.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Nobody: a token is fetched without credentials where one is asked for.
    #[default]
    Anonymous,
    /// A name and a password, sent to the token service (or to the registry, when it asks
    /// for Basic).
    Basic {
        /// The name.
        username: String,
        /// The password or access key.
        password: Secret<String>,
    },
    /// A refresh token, exchanged for access tokens by `POST`.
    Refresh(Secret<String>),
}

/// A manifest as it came.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// The bytes, which hash to `digest`.
    pub bytes: Bytes,
    /// The `Content-Type`, without parameters.
    pub media_type: String,
    /// The digest, computed here.
    pub digest: Digest,
}

/// A client of one registry. Cheap to clone; clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: reqwest::Client,
    base: Url,
    credentials: Credentials,
    tokens: Tokens,
    /// Where it may be sent to by others.
    egress: Arc<Egress>,
}

/// The address of a registry from the host in an image reference: `docker.io` is served
/// at `registry-1.docker.io`, every other host at itself.
pub fn base_of_host(host: &str) -> String {
    match host {
        "docker.io" | "index.docker.io" => "https://registry-1.docker.io".to_owned(),
        other => format!("https://{other}"),
    }
}

/// Whether an image reference's host means this machine, where docker, too, allows http.
pub fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl RegistryClient {
    /// A client for the registry at `base` (`https://host[:port]`, or `http://…`). Nothing
    /// is sent yet. `ca_pem`: certificates trusted beside the system's.
    pub fn new(base: &str, ca_pem: Option<&[u8]>, credentials: Credentials) -> Result<RegistryClient> {
        let options = TransportOptions { ca_pem: ca_pem.map(<[u8]>::to_vec), user_agent: None };
        RegistryClient::with_http(transport::http_client(&options)?, base, credentials)
    }

    /// As [`RegistryClient::new`], over connections that are there already.
    pub fn with_http(http: reqwest::Client, base: &str, credentials: Credentials) -> Result<RegistryClient> {
        let egress = Arc::new(Egress::open());
        RegistryClient::guarded(http, base, credentials, egress)
    }

    /// As [`RegistryClient::with_http`], asking nobody that `egress` does not permit. `http`
    /// must be [guarded](crate::egress::guarded_client) by the same.
    fn guarded(
        http: reqwest::Client,
        base: &str,
        credentials: Credentials,
        egress: Arc<Egress>,
    ) -> Result<RegistryClient> {
        let base = transport::base_url(base)?;
        let shared = Shared { http, base, credentials, tokens: Tokens::default(), egress };
        Ok(RegistryClient { shared: Arc::new(shared) })
    }

    /// A client for the host of an image reference. A loopback host that does not answer
    /// in TLS is spoken to in plain HTTP, as docker does; no other host ever is.
    pub async fn for_host(host: &str, ca_pem: Option<&[u8]>, credentials: Credentials) -> Result<RegistryClient> {
        RegistryClient::for_host_within(host, ca_pem, credentials, Arc::new(Egress::open())).await
    }

    /// As [`RegistryClient::for_host`], within rules about who may be asked.
    pub async fn for_host_within(
        host: &str,
        ca_pem: Option<&[u8]>,
        credentials: Credentials,
        egress: Arc<Egress>,
    ) -> Result<RegistryClient> {
        let options = TransportOptions { ca_pem: ca_pem.map(<[u8]>::to_vec), user_agent: None };
        let http = guarded_client(&options, egress.clone())?;
        let client = |base: &str| RegistryClient::guarded(http.clone(), base, credentials.clone(), egress.clone());
        let secure = client(&base_of_host(host))?;
        if !is_loopback_host(host) {
            return Ok(secure);
        }
        let probe = transport::join(&secure.shared.base, "/v2/")?;
        egress.check(&probe)?;
        match http.get(probe).send().await {
            Ok(_) => Ok(secure),
            Err(_) => client(&format!("http://{host}")),
        }
    }

    /// Whether the registry answers and lets us in: `GET /v2/`.
    pub async fn ping(&self) -> Result<()> {
        let url = transport::join(&self.shared.base, "/v2/")?;
        self.exchange(&url, "", |http| http.get(url.clone())).await.map(drop)
    }

    /// Get a manifest of one of the types in `accept` ([`ACCEPT_ALL`] for any). The bytes
    /// are checked against the digest, when the reference is one or the registry sent one.
    pub async fn manifest(&self, repo: &RepoName, reference: &Reference, accept: &[&str]) -> Result<FetchedManifest> {
        let url = self.url(repo, &format!("manifests/{reference}"))?;
        let accept = accept.join(", ");
        let response = self.exchange(&url, &pull(repo), |http| http.get(url.clone()).header(ACCEPT, &accept)).await?;
        let media_type = header(&response, CONTENT_TYPE.as_str())
            .and_then(|t| t.split(';').next().map(|t| t.trim().to_owned()))
            .unwrap_or_default();
        let stated: Option<Digest> = header(&response, "docker-content-digest").and_then(|d| d.parse().ok());
        let bytes = transport::read_body(response, "the manifest", limits::MANIFEST_BYTES_MAX).await?;
        let expected = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => stated,
        };
        let digest = match expected {
            Some(expected) => {
                let got = Digest::of_with(expected.algorithm(), &bytes);
                if got != expected {
                    return Err(Error::mismatch(expected, got));
                }
                got
            }
            None => Digest::of(&bytes),
        };
        Ok(FetchedManifest { bytes, media_type, digest })
    }

    /// The digest a tag has now, by `HEAD`; `None` when the registry does not say.
    pub async fn manifest_digest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        accept: &[&str],
    ) -> Result<Option<Digest>> {
        let url = self.url(repo, &format!("manifests/{reference}"))?;
        let accept = accept.join(", ");
        let response = self.exchange(&url, &pull(repo), |http| http.head(url.clone()).header(ACCEPT, &accept)).await?;
        Ok(header(&response, "docker-content-digest").and_then(|d| d.parse().ok()))
    }

    /// Put a manifest under a tag or its own digest. Answers the digest it has now.
    pub async fn push_manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest> {
        let url = self.url(repo, &format!("manifests/{reference}"))?;
        let digest = Digest::of(&bytes);
        let request =
            |http: &reqwest::Client| http.put(url.clone()).header(CONTENT_TYPE, media_type).body(bytes.clone());
        let response = self.exchange(&url, &push(repo), request).await?;
        let stated: Option<Digest> = header(&response, "docker-content-digest").and_then(|d| d.parse().ok());
        match stated {
            Some(got) if got.algorithm() == digest.algorithm() && got != digest => Err(Error::mismatch(digest, got)),
            _ => Ok(digest),
        }
    }

    /// The tags of a repository, all pages.
    pub async fn tags(&self, repo: &RepoName) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let first = self.url(repo, "tags/list?n=1000")?;
        let scope = pull(repo);
        let mut tags = Vec::new();
        let mut next = Some(first);
        let mut pages = 0;
        while let Some(url) = next {
            pages += 1;
            if pages > crate::acr::PAGES_MAX {
                return Err(Error::protocol(&url, "the list of tags does not end"));
            }
            let response = self.exchange(&url, &scope, |http| http.get(url.clone())).await?;
            next = crate::acr::next_page(&url, response.headers())?;
            let page: Page = transport::read_json(response).await?;
            tags.extend(page.tags.unwrap_or_default());
        }
        Ok(tags)
    }

    fn url(&self, repo: &RepoName, rest: &str) -> Result<Url> {
        // Repository names and references are of characters that need no encoding.
        transport::join(&self.shared.base, &format!("/v2/{repo}/{rest}"))
    }

    /// Send a request that can be made again, with authorization and second tries.
    async fn exchange(
        &self,
        url: &Url,
        scope: &str,
        request: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response> {
        let mut tries = 1;
        loop {
            let error = match self.exchange_once(url, scope, &request).await {
                Ok(response) => return Ok(response),
                Err((error, wait)) if error.is_transient() && tries < transport::TRIES_MAX => {
                    tokio::time::sleep(wait.unwrap_or_else(|| transport::backoff(tries))).await;
                    error
                }
                Err((error, _)) => return Err(error),
            };
            tracing::debug!(%error, tries, "trying again");
            tries += 1;
        }
    }

    async fn exchange_once(
        &self,
        url: &Url,
        scope: &str,
        request: &impl Fn(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, (Error, Option<std::time::Duration>)> {
        let shared = &*self.shared;
        shared.egress.check(url).map_err(|e| (e, None))?;
        let mut authorization = shared.tokens.kept(scope);
        let mut met = false;
        loop {
            let mut builder = request(&shared.http);
            if let Some(authorization) = &authorization {
                builder = authorization.apply(builder);
            }
            let response = builder.send().await.map_err(|e| (Error::transport(url, e), None))?;
            if response.status() == StatusCode::UNAUTHORIZED && !met {
                met = true;
                shared.tokens.forget(scope);
                if let Some(challenge) = Challenge::read(response.headers()) {
                    let answer = shared.tokens.meet(shared, challenge, scope);
                    authorization = answer.await.map_err(|e| (e, None))?;
                    if authorization.is_some() {
                        continue;
                    }
                }
            }
            if response.status().is_client_error() || response.status().is_server_error() {
                let wait = retry_after(&response);
                return Err((Error::Refused(transport::refusal(response).await), wait));
            }
            return Ok(response);
        }
    }
}

/// `Retry-After`, within bounds.
fn retry_after(response: &reqwest::Response) -> Option<std::time::Duration> {
    let secs: u64 = header(response, RETRY_AFTER.as_str())?.parse().ok()?;
    Some(std::time::Duration::from_secs(secs.min(transport::RETRY_AFTER_SECS_MAX)))
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

/// Where a response's `Location` points.
fn location(response: &reqwest::Response) -> Result<Url> {
    let text = header(response, LOCATION.as_str());
    let text = text.ok_or_else(|| Error::protocol(response.url(), "an upload was begun without a Location"))?;
    response.url().join(&text).map_err(|_| Error::protocol(response.url(), "the Location is not an address"))
}

fn pull(repo: &RepoName) -> String {
    format!("repository:{repo}:pull")
}

fn push(repo: &RepoName) -> String {
    format!("repository:{repo}:pull,push")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(base_of_host("docker.io"), "https://registry-1.docker.io");
        assert_eq!(base_of_host("h:5000"), "https://h:5000");
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "reg.localhost:8443"] {
            assert!(is_loopback_host(yes), "{yes}");
        }
        for no in ["docker.io", "127.0.0.1.example.com", "localhost.example.com:5000"] {
            assert!(!is_loopback_host(no), "{no}");
        }
    }
}
