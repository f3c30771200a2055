//! One way to make an HTTP client: who is trusted, how long to wait, how far to follow.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::Url;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::egress::Egress;
use crate::error::{Error, Result};

/// How long a connection may take to come about.
pub const CONNECT_SECS_MAX: u64 = 5;
/// How long a connection may stay silent while an answer is due.
pub const SILENCE_SECS_MAX: u64 = 120;
/// How many redirects are followed.
pub const REDIRECTS_MAX: usize = 5;
/// An answer that is read into memory whole: lists, tokens, errors.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// An error answer; what is beyond is not read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// What an [`http_client`] needs to know.
#[derive(Clone, Debug, Default)]
pub struct TransportOptions {
    /// Certificates (PEM, any number) trusted beside the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// The `User-Agent`; Portolan's own when absent.
    pub user_agent: Option<String>,
}

/// A client with our limits: connections within [`CONNECT_SECS_MAX`], at most
/// [`REDIRECTS_MAX`] redirects, never from https down to http, and no credentials carried
/// to another host.
pub fn http_client(options: &TransportOptions) -> Result<reqwest::Client> {
    client(options, redirects(), Arc::new(LocalhostNames))
}

/// As [`http_client`], for servers that have no business sending us elsewhere.
pub fn http_client_without_redirects(options: &TransportOptions) -> Result<reqwest::Client> {
    client(options, reqwest::redirect::Policy::none(), Arc::new(LocalhostNames))
}

/// As [`http_client`], connecting and redirected only to where the rules permit.
pub(crate) fn client_guarded(options: &TransportOptions, egress: Arc<Egress>) -> Result<reqwest::Client> {
    let usual = redirects();
    let names = Arc::new(GuardedNames(egress.clone()));
    let redirects = reqwest::redirect::Policy::custom(move |attempt| match egress.check(attempt.url()) {
        Ok(()) => usual.redirect(attempt),
        Err(why) => attempt.error(why.to_string()),
    });
    client(options, redirects, names)
}

fn client(
    options: &TransportOptions,
    redirects: reqwest::redirect::Policy,
    names: Arc<dyn reqwest::dns::Resolve>,
) -> Result<reqwest::Client> {
    let agent = options.user_agent.clone().unwrap_or_else(|| concat!("portolan/", env!("CARGO_PKG_VERSION")).into());
    let builder = reqwest::Client::builder()
        .user_agent(agent)
        .connect_timeout(Duration::from_secs(CONNECT_SECS_MAX))
        .read_timeout(Duration::from_secs(SILENCE_SECS_MAX))
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_nodelay(true)
        // Whole bodies one after the other on one connection: HTTP/2 would only add its
        // windows to large uploads and downloads.
        .http1_only()
        .dns_resolver(names)
        .redirect(redirects);
    let config = tls_config(options.ca_pem.as_deref())?;
    builder
        .tls_backend_preconfigured(config)
        .build()
        .map_err(|e| Error::Local(format!("cannot set up the HTTP client: {e}")))
}

fn redirects() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let from_https = attempt.previous().last().is_some_and(|u| u.scheme() == "https");
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if from_https && attempt.url().scheme() != "https" {
            attempt.error("it leads from https to http")
        } else {
            attempt.follow()
        }
    })
}

/// Names below `localhost` are this machine (RFC 6761, 6.3), whatever the system's resolver
/// thinks: a second registry on one machine is `NAME.localhost:8443`.
#[derive(Debug)]
struct LocalhostNames;

impl reqwest::dns::Resolve for LocalhostNames {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            // The port is the caller's to fill in.
            Ok(Box::new(lookup(name.as_str(), 0).await?.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// The addresses of a name.
pub(crate) async fn lookup(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    if host.to_ascii_lowercase().ends_with(".localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// The same, without addresses that the rules do not permit: what a name means is asked for
/// each connection, and what is connected to is what was judged.
#[derive(Debug)]
struct GuardedNames(Arc<Egress>);

impl reqwest::dns::Resolve for GuardedNames {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let egress = self.0.clone();
        Box::pin(
            async move { Ok(Box::new(egress.resolve(name.as_str(), 0).await?.into_iter()) as reqwest::dns::Addrs) },
        )
    }
}

fn tls_config(ca_pem: Option<&[u8]>) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let own = match ca_pem {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| Error::Local(format!("the CA file is not PEM: {e}")))?;
                roots.add(certificate).map_err(|e| Error::Local(format!("the CA file has a bad certificate: {e}")))?;
            }
            if roots.is_empty() {
                return Err(Error::Local("the CA file has no certificate in it".into()));
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|e| Error::Local(format!("the CA file cannot be used: {e}")))?;
            Some(verifier)
        }
        None => None,
    };
    let trust = Arc::new(Trust { own, system: OnceLock::new(), provider: provider.clone() });
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Local(format!("TLS cannot be set up: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(trust)
        .with_no_client_auth();
    Ok(config)
}

/// Own CA first, the system's roots second. The system's are read only when they are
/// needed: parsing a hundred and fifty certificates would be most of a short command.
/// "Dangerous" in rustls's words, though nothing is waved through here: a certificate
/// passes when one of the two verifiers of rustls passes it.
#[derive(Debug)]
struct Trust {
    own: Option<Arc<WebPkiServerVerifier>>,
    system: OnceLock<Result<Arc<dyn ServerCertVerifier>, rustls::Error>>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn system(&self) -> Result<&Arc<dyn ServerCertVerifier>, rustls::Error> {
        self.system
            .get_or_init(|| {
                rustls_platform_verifier::Verifier::new(self.provider.clone())
                    .map(|v| Arc::new(v) as Arc<dyn ServerCertVerifier>)
            })
            .as_ref()
            .map_err(Clone::clone)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let own = self.own.as_ref();
        let first = own.map(|v| v.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now));
        match first {
            Some(Ok(verified)) => Ok(verified),
            // A name or date that does not fit under our own CA is the error to show; that
            // the system does not know the CA either would only distract.
            Some(Err(error)) => self
                .system()
                .and_then(|v| v.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now))
                .map_err(|_| error),
            None => self.system()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Parse a base address: `http` or `https`, a host, no query; a trailing slash is dropped.
pub fn base_url(text: &str) -> Result<Url> {
    let bad = |why: &str| Error::Local(format!("bad server address {text:?}: {why}"));
    let url = Url::parse(text.trim_end_matches('/')).map_err(|e| bad(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it must begin with https:// or http://"));
    }
    if url.host_str().is_none() || url.query().is_some() || url.fragment().is_some() {
        return Err(bad("write scheme://host[:port]"));
    }
    Ok(url)
}

/// `base` and a path below it. The path must be percent-encoded where it needs to be.
pub fn join(base: &Url, path: &str) -> Result<Url> {
    let text = format!("{}/{}", base.as_str().trim_end_matches('/'), path.trim_start_matches('/'));
    Url::parse(&text).map_err(|e| Error::Local(format!("bad address: {e}")))
}

/// Send, and turn an error status into [`Error::Refused`].
pub(crate) async fn send(request: reqwest::RequestBuilder, url: &Url) -> Result<reqwest::Response> {
    let response = request.send().await.map_err(|e| Error::transport(url, e))?;
    if response.status().is_client_error() || response.status().is_server_error() {
        return Err(Error::Refused(refusal(response).await));
    }
    Ok(response)
}

/// As [`send`], for requests that may be made again: what is [transient](Error::is_transient)
/// is tried [`TRIES_MAX`] times. A server that is not there is reported at once: somebody
/// is waiting at a terminal.
pub(crate) async fn send_retried(
    url: &Url,
    request: impl Fn() -> reqwest::RequestBuilder,
) -> Result<reqwest::Response> {
    retried(url, request, |error| error.is_transient() && !error.is_no_connection()).await
}

/// As [`send`], for requests that must not be made twice: again only when the server says
/// that it did not look at them (429).
pub(crate) async fn send_limited(
    url: &Url,
    request: impl Fn() -> reqwest::RequestBuilder,
) -> Result<reqwest::Response> {
    retried(url, request, Error::is_limited).await
}

async fn retried(
    url: &Url,
    request: impl Fn() -> reqwest::RequestBuilder,
    may: impl Fn(&Error) -> bool,
) -> Result<reqwest::Response> {
    let mut tries = 1;
    loop {
        match send(request(), url).await {
            Err(error) if may(&error) && tries < TRIES_MAX => {
                tracing::debug!(%error, tries, "trying again");
                let wait = error.retry_after_secs().map(|secs| Duration::from_secs(secs.min(RETRY_AFTER_SECS_MAX)));
                tokio::time::sleep(wait.unwrap_or_else(|| backoff(tries))).await;
                tries += 1;
            }
            answer => return answer,
        }
    }
}

/// Read an error answer.
pub(crate) async fn refusal(mut response: reqwest::Response) -> crate::Refusal {
    let mut body = Vec::new();
    // An error body that breaks off is still worth what came of it.
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES_MAX - body.len())]);
        if body.len() >= ERROR_BYTES_MAX {
            break;
        }
    }
    crate::Refusal::read(response.status(), response.headers(), &body)
}

/// Read a whole answer of at most `bytes_max`.
pub(crate) async fn read_body(
    mut response: reqwest::Response,
    what: &'static str,
    bytes_max: usize,
) -> Result<bytes::Bytes> {
    let url = response.url().clone();
    let too_large = || Error::TooLarge { what, bytes_max: bytes_max as u64 };
    if response.content_length().is_some_and(|n| n > bytes_max as u64) {
        return Err(too_large());
    }
    let mut body = bytes::BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| Error::transport(&url, e))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Read a whole JSON answer.
pub(crate) async fn read_json<T: serde::de::DeserializeOwned>(response: reqwest::Response) -> Result<T> {
    let url = response.url().clone();
    let body = read_body(response, "the answer", ANSWER_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|e| Error::protocol(&url, format!("the answer does not parse: {e}")))
}

/// Percent-encode one path segment.
pub fn segment(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
    utf8_percent_encode(text, KEEP).to_string()
}

/// How a failed try is followed by the next: at most this many tries, with growing waits.
pub(crate) const TRIES_MAX: u32 = 4;
/// A server's `Retry-After` is obeyed up to so many seconds: a person or a build is waiting.
pub(crate) const RETRY_AFTER_SECS_MAX: u64 = 10;

/// The wait before try `n` (counted from 1 for the first retry), in milliseconds.
pub(crate) fn backoff(n: u32) -> Duration {
    Duration::from_millis(200u64.saturating_mul(3u64.saturating_pow(n.saturating_sub(1))).min(5_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(base_url("https://h:8443/").unwrap().as_str(), "https://h:8443/");
        assert_eq!(join(&base_url("https://h:8443").unwrap(), "/v2/").unwrap().as_str(), "https://h:8443/v2/");
        for bad in ["h:8443", "ftp://h", "https://", "https://h?x=1", ""] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        assert_eq!(segment("a b/ü"), "a%20b%2F%C3%BC");
    }

    #[test]
    fn a_ca_file_must_hold_certificates() {
        for bad in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let options = TransportOptions { ca_pem: Some(bad.into()), ..Default::default() };
            assert!(matches!(http_client(&options), Err(Error::Local(_))), "{bad}");
        }
        assert!(http_client(&TransportOptions::default()).is_ok());
    }
}
