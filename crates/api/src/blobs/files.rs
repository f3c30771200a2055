//! What is asked before a build context is sent: which of it a build can need, and which of
//! that the server has not. Portolan's own; other registries give no address for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::transport;

/// Numbers of files, four bytes each.
const MISSING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Asks about one context.
#[derive(Debug)]
pub struct FileQuestions {
    http: reqwest::Client,
    url: Url,
}

/// What the Dockerfile alone decides.
#[derive(Clone, Debug, Default)]
pub struct BuildSketch {
    /// The Dockerfile's text.
    pub dockerfile: Vec<u8>,
    /// The stage to stop at.
    pub target: Option<String>,
    /// Build arguments that are no secrets.
    pub build_args: Vec<(String, String)>,
    /// What is built for.
    pub platform: Option<String>,
}

#[derive(Deserialize)]
struct Needs {
    all: bool,
    #[serde(default)]
    paths: Vec<String>,
}

impl FileQuestions {
    /// Nothing is sent yet.
    pub fn new(http: reqwest::Client, url: &str) -> Result<FileQuestions> {
        let url = Url::parse(url).map_err(|e| Error::Local(format!("bad address for questions: {e}")))?;
        Ok(FileQuestions { http, url })
    }

    /// The paths that a build can copy from, where a last component `*` stands for a pattern
    /// in that folder; `None` for everything.
    pub async fn needs(&self, sketch: &BuildSketch) -> Result<Option<Vec<String>>> {
        let question = json!({
            "dockerfile": STANDARD.encode(&sketch.dockerfile), "target": sketch.target,
            "buildArgs": sketch.build_args, "platform": sketch.platform,
        });
        let body = serde_json::to_vec(&question).map_err(|e| Error::Local(e.to_string()))?;
        let needs: Needs = transport::read_json(self.put("needs", body.into()).await?).await?;
        Ok((!needs.all).then_some(needs.paths))
    }

    /// The numbers of the files in a listing whose contents the server has not, ascending.
    pub async fn missing(&self, listing: &[u8]) -> Result<Vec<u32>> {
        let answer = self.put("listing", Bytes::copy_from_slice(listing)).await?;
        let bytes = transport::read_body(answer, "the list of files to send", MISSING_BYTES_MAX).await?;
        Ok(bytes.chunks_exact(4).map(|n| n.try_into().map(u32::from_le_bytes).unwrap_or_default()).collect())
    }

    async fn put(&self, comp: &str, body: Bytes) -> Result<reqwest::Response> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("comp", comp);
        transport::send_retried(&url, || self.http.put(url.clone()).body(body.clone())).await
    }
}
