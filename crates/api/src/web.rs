//! Downloads from anywhere, within rules about where.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use http::header::{
    ACCEPT, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::Url;

use crate::egress::{Egress, guarded_client};
use crate::error::{Error, Result};
use crate::registry::ByteStream;
use crate::transport::{self, TransportOptions};

/// Downloads files.
#[derive(Clone, Debug)]
pub struct WebClient {
    http: reqwest::Client,
    egress: Arc<Egress>,
}

/// By what a server knows whether a file is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
}

/// What a server answered.
pub enum Download {
    /// The file is as it was.
    NotModified,
    /// A file.
    File {
        /// Its bytes.
        body: ByteStream,
        /// How many, where the server says so.
        length: Option<u64>,
        /// For asking again.
        validators: Validators,
        /// The media type, without parameters.
        media_type: String,
        /// What the server calls it, without folders.
        name: Option<String>,
    },
}

impl WebClient {
    /// `ca_pem`: certificates trusted beside the system's.
    pub fn new(egress: Arc<Egress>, ca_pem: Option<&[u8]>) -> Result<WebClient> {
        let options = TransportOptions { ca_pem: ca_pem.map(<[u8]>::to_vec), user_agent: None };
        Ok(WebClient { http: guarded_client(&options, egress.clone())?, egress })
    }

    /// Fetch what is at an address, unless it is as `known` says. A user and password in the
    /// address are sent to its host alone.
    pub async fn get(&self, url: &str, known: &Validators) -> Result<Download> {
        let url = self.address(url)?;
        let mut request = self.http.get(url.clone()).header(ACCEPT, "*/*");
        if let Some(etag) = &known.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(time) = &known.last_modified {
            request = request.header(IF_MODIFIED_SINCE, time);
        }
        let response = self.send(request, &url).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Download::NotModified);
        }
        let text = |name: http::HeaderName| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let validators = Validators { etag: text(ETAG), last_modified: text(LAST_MODIFIED) };
        let media_type = text(CONTENT_TYPE).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let name = text(CONTENT_DISPOSITION).as_deref().and_then(attachment);
        let length = text(CONTENT_LENGTH).and_then(|n| n.parse().ok());
        Ok(Download::File { body: body(response), length, validators, media_type, name })
    }

    /// Post JSON; the answer's JSON, of at most 16 MiB.
    pub async fn post_json(
        &self,
        url: &str,
        media_type: &str,
        headers: &[(String, String)],
        value: &serde_json::Value,
    ) -> Result<serde_json::Value> {
        let url = self.address(url)?;
        let bytes = serde_json::to_vec(value).map_err(|e| Error::Local(e.to_string()))?;
        let request = self.http.post(url.clone()).header(ACCEPT, media_type).header(CONTENT_TYPE, media_type);
        let request = headers.iter().fold(request, |r, (name, value)| r.header(name, value)).body(bytes);
        transport::read_json(self.send(request, &url).await?).await
    }

    /// Fetch with headers of one's own.
    pub async fn get_with(&self, url: &str, headers: &[(String, String)]) -> Result<ByteStream> {
        let url = self.address(url)?;
        let request = headers.iter().fold(self.http.get(url.clone()), |r, (name, value)| r.header(name, value));
        Ok(body(self.send(request, &url).await?))
    }

    fn address(&self, url: &str) -> Result<Url> {
        // The address itself is not repeated: it may hold a password.
        let url = Url::parse(url).map_err(|e| Error::Local(format!("the address cannot be used: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Local("the address is neither http nor https".into()));
        }
        self.egress.check(&url)?;
        Ok(url)
    }

    async fn send(&self, request: reqwest::RequestBuilder, url: &Url) -> Result<reqwest::Response> {
        let mut shown = url.clone();
        // Neither has anything to say where there is no host.
        let _ = (shown.set_username(""), shown.set_password(None));
        shown.set_query(None);
        let response = request.send().await.map_err(|e| Error::transport(&shown, e.without_url()))?;
        if response.status().is_client_error() || response.status().is_server_error() {
            return Err(Error::Refused(transport::refusal(response).await));
        }
        Ok(response)
    }
}

fn body(response: reqwest::Response) -> ByteStream {
    let broken = |e: reqwest::Error| std::io::Error::other(e.without_url());
    Box::pin(response.bytes_stream().map(move |piece: reqwest::Result<Bytes>| piece.map_err(broken)))
}

/// The file name of `attachment; filename="x.tar"`.
fn attachment(text: &str) -> Option<String> {
    let value = text.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("filename").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    let name = value.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    (!name.is_empty() && name != "." && name != ".." && !name.contains('\0')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_attachments() {
        assert_eq!(attachment("attachment; filename=\"a b.tar\"").as_deref(), Some("a b.tar"));
        assert_eq!(attachment("inline; x=1; FileName=../../etc/passwd").as_deref(), Some("passwd"));
        for none in ["attachment", "attachment; filename=\"..\"", "attachment; filename=", "a; b"] {
            assert_eq!(attachment(none), None, "{none}");
        }
    }
}
