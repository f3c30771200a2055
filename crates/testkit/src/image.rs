//! Pushing content as docker does.

use anyhow::{Context, bail};
use portolan_types::Digest;
use portolan_types::media_type;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::Site;

/// An image that was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Of the manifest.
    pub digest: Digest,
    /// The manifest as sent.
    pub manifest: Vec<u8>,
    /// The configuration's digest.
    pub config: Digest,
    /// The layers' digests.
    pub layers: Vec<Digest>,
}

impl Site {
    /// The absolute form of a `Location`.
    pub fn absolute(login_server: &str, location: &str) -> String {
        if location.starts_with('/') { format!("https://{login_server}{location}") } else { location.to_owned() }
    }

    /// Begin an upload; its address.
    pub async fn start_upload(&self, login_server: &str, token: &str, repo: &str) -> anyhow::Result<String> {
        let path = format!("/v2/{repo}/blobs/uploads/");
        let res = self.registry(login_server, token, Method::POST, &path).send().await?;
        if res.status() != StatusCode::ACCEPTED {
            bail!("begin an upload: {} {}", res.status(), res.text().await?);
        }
        let location = res.headers().get("location").context("no Location")?.to_str()?;
        Ok(Self::absolute(login_server, location))
    }

    /// The address that finishes an upload.
    pub fn finish_url(upload: &str, digest: &Digest) -> String {
        format!("{upload}{}digest={digest}", if upload.contains('?') { '&' } else { '?' })
    }

    /// Push a blob in one piece.
    pub async fn push_blob(&self, login_server: &str, token: &str, repo: &str, bytes: &[u8]) -> anyhow::Result<Digest> {
        let digest = Digest::of(bytes);
        let upload = self.start_upload(login_server, token, repo).await?;
        let req = self.client.put(Self::finish_url(&upload, &digest)).bearer_auth(token).body(bytes.to_vec());
        let res = req.send().await?;
        if res.status() != StatusCode::CREATED {
            bail!("push a blob: {} {}", res.status(), res.text().await?);
        }
        Ok(digest)
    }

    /// Push a manifest; the answer.
    pub async fn put_manifest(
        &self,
        login_server: &str,
        token: &str,
        repo: &str,
        reference: &str,
        manifest: &[u8],
    ) -> anyhow::Result<reqwest::Response> {
        let path = format!("/v2/{repo}/manifests/{reference}");
        let req = self.registry(login_server, token, Method::PUT, &path);
        Ok(req.header("content-type", media_type::OCI_MANIFEST).body(manifest.to_vec()).send().await?)
    }

    /// Push an image of these layers under a tag, with the owner's token.
    pub async fn push_image(
        &self,
        login_server: &str,
        repo: &str,
        tag: &str,
        layers: &[&[u8]],
    ) -> anyhow::Result<Pushed> {
        let token = self.token(login_server, &format!("repository:{repo}:pull,push")).await?;
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| Digest::of(l).to_string()).collect::<Vec<_>>()}
        }))?;
        let config_digest = self.push_blob(login_server, &token, repo, &config).await?;
        let mut digests = Vec::new();
        let mut descriptors = Vec::new();
        for layer in layers {
            let digest = self.push_blob(login_server, &token, repo, layer).await?;
            descriptors.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest.to_string(),
                "size": layer.len()
            }));
            digests.push(digest);
        }
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": {
                "mediaType": media_type::OCI_CONFIG,
                "digest": config_digest.to_string(),
                "size": config.len()
            },
            "layers": descriptors
        }))?;
        let res = self.put_manifest(login_server, &token, repo, tag, &manifest).await?;
        if res.status() != StatusCode::CREATED {
            bail!("push a manifest: {} {}", res.status(), res.text().await?);
        }
        Ok(Pushed { digest: Digest::of(&manifest), manifest, config: config_digest, layers: digests })
    }
}
