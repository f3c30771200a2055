//! Upload of content whose length is not known beforehand: small content goes in one Put
//! Blob, larger content in blocks as they fill, so that packing and sending overlap and
//! nothing is written to disk.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use reqwest::Url;

use crate::error::{Error, Result};
use crate::transport;

/// The size of a block, and of the largest content sent in one piece.
pub const BLOCK_BYTES: usize = 8 * 1024 * 1024;

/// An upload under way. Dropped unfinished, it leaves nothing that anyone can see.
#[derive(Debug)]
pub struct Upload {
    http: reqwest::Client,
    url: Url,
    pending: BytesMut,
    blocks: Vec<String>,
}

impl Upload {
    /// Begin. Nothing is sent yet.
    pub fn new(http: reqwest::Client, url: &str) -> Result<Upload> {
        let url = Url::parse(url).map_err(|e| Error::Local(format!("bad upload address: {e}")))?;
        Ok(Upload { http, url, pending: BytesMut::new(), blocks: Vec::new() })
    }

    /// Take the next bytes; sends a block when one is full.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        while self.pending.len() > BLOCK_BYTES {
            let block = self.pending.split_to(BLOCK_BYTES).freeze();
            self.put_block(block).await?;
        }
        Ok(())
    }

    /// Send what is left and make the whole of it the content.
    pub async fn finish(mut self) -> Result<()> {
        let rest = self.pending.split().freeze();
        if self.blocks.is_empty() {
            return self.put(&self.url, rest, &[("x-ms-blob-type", "BlockBlob")]).await;
        }
        if !rest.is_empty() {
            self.put_block(rest).await?;
        }
        let latest: String = self.blocks.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{latest}</BlockList>");
        self.put(&with_query(&self.url, &[("comp", "blocklist")]), list.into(), &[]).await
    }

    async fn put_block(&mut self, block: Bytes) -> Result<()> {
        // Every id in a blob must have one length.
        let id = STANDARD.encode(format!("block-{:08}", self.blocks.len()));
        let url = with_query(&self.url, &[("comp", "block"), ("blockid", &id)]);
        self.put(&url, block, &[]).await?;
        self.blocks.push(id);
        Ok(())
    }

    async fn put(&self, url: &Url, body: Bytes, headers: &[(&str, &str)]) -> Result<()> {
        let request = || {
            let request = self.http.put(url.clone()).header(CONTENT_TYPE, "application/octet-stream");
            headers.iter().fold(request, |r, (name, value)| r.header(*name, *value)).body(body.clone())
        };
        transport::send_retried(url, request).await.map(drop)
    }
}

/// The signature's own parameters stay first, as they came.
fn with_query(url: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_addresses() {
        let url = Url::parse("https://h/blob/a/b/c?se=1&sp=w&sig=x_-").unwrap();
        assert_eq!(
            with_query(&url, &[("comp", "block"), ("blockid", "YQ==")]).as_str(),
            "https://h/blob/a/b/c?se=1&sp=w&sig=x_-&comp=block&blockid=YQ%3D%3D"
        );
    }
}
