//! Pulling a base image from the registry it comes from.
//!
//! The manifest is asked for anew each time, so a tag that moved is seen; blobs are fetched
//! only when this registry has not had them before: when one of its repositories may read
//! them, or when they came from the same upstream repository earlier (a lease under
//! `base:<host>/<repository>`, renewed by each use). That they are in the store is not
//! enough: a manifest from a stranger may name what belongs to somebody else.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use portolan_api::egress::Egress;
use portolan_api::registry::{ACCEPT_ALL, Credentials, RegistryClient};
use portolan_service::{Ctx, Error, Registry};
use portolan_store::meta::{blob, gc};
use portolan_types::oci::{Descriptor, ManifestKind, ManifestView};
use portolan_types::reference::DOCKER_HUB;
use portolan_types::{Digest, ImageRef, Platform, Reference, RepoName, limits, media_type};

use super::Shared;
use super::images::choose;
use super::meter::{Meters, counted};

/// How long a registry may take to take a connection, in seconds.
const CONNECT_SECS_MAX: u64 = 5;
/// How long it may take to answer with a manifest, tokens and second tries included, in
/// seconds.
const MANIFEST_SECS_MAX: u64 = 60;
/// Blobs fetched at one time.
const PARALLEL_MAX: usize = 4;
/// How long content without a repository is kept for later builds.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Clients kept for their connections and tokens.
const CLIENTS_MAX: usize = 64;

/// Pulls for one run.
pub(super) struct Upstream<'r> {
    pub(super) shared: &'r Arc<Shared>,
    pub(super) registry: &'r Arc<Registry>,
    pub(super) ctx: &'r Ctx,
}

/// An image manifest, all of whose blobs are in the store now.
pub(super) struct Pulled {
    pub(super) digest: Digest,
    pub(super) manifest: Bytes,
    pub(super) media_type: String,
}

impl Upstream<'_> {
    /// Bring an image in, and store it under `target` with the tag it has upstream. The
    /// error is why not, as in `cannot pull X: …`.
    pub(super) async fn pull(
        &self,
        image: &ImageRef,
        platform: &Platform,
        target: Option<&RepoName>,
        note: &dyn Fn(&str),
    ) -> Result<Pulled, String> {
        let begun = Instant::now();
        let client = self.client(&image.host).await?;
        let pulled = self.manifest(&client, image, platform).await?;
        let view = ManifestView::parse(&pulled.manifest, Some(&pulled.media_type)).map_err(|e| e.to_string())?;
        let blobs: Vec<Descriptor> = match &view.kind {
            ManifestKind::Image { config: Some(_), .. } => view.blobs().cloned().collect(),
            _ => return Err(format!("it is no image ({})", pulled.media_type)),
        };
        let bytes: u64 = blobs.iter().map(|b| b.size).sum();
        note(&format!("pulling {image} ({platform}, {} blobs, {})", blobs.len(), megabytes(bytes)));
        let fetched = self.fetch(&client, image, &blobs, note).await?;
        note(&format!("pulled {} in {:.1}s", megabytes(fetched), begun.elapsed().as_secs_f64()));
        if let Some(target) = target
            && let Err(error) = self.keep(image, target, &pulled, &blobs).await
        {
            // A lock on the tag, say. The image is here all the same.
            note(&format!("the image is not stored as {target}: {}", error.message));
        }
        Ok(pulled)
    }

    /// Bring an artifact in that is no image for any platform.
    pub(super) async fn artifact(&self, name: &ImageRef) -> Result<Pulled, String> {
        let client = self.client(&name.host).await?;
        let pulled = self.manifest(&client, name, &Platform::host()).await?;
        let view = ManifestView::parse(&pulled.manifest, Some(&pulled.media_type)).map_err(|e| e.to_string())?;
        let blobs: Vec<Descriptor> = view.blobs().cloned().collect();
        self.blobs(&client, name, &blobs).await?;
        Ok(pulled)
    }

    pub(super) async fn client(&self, host: &str) -> Result<RegistryClient, String> {
        let known = self.shared.upstreams.lock().get(host).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        reachable(host, &self.shared.egress).await?;
        let (ca, egress) = (self.shared.fetch_ca.as_deref(), self.shared.egress.clone());
        let client = RegistryClient::for_host_within(host, ca, Credentials::Anonymous, egress).await;
        let client = client.map_err(|e| e.to_string())?;
        let mut clients = self.shared.upstreams.lock();
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(host.to_owned(), client.clone());
        Ok(client)
    }

    async fn manifest(&self, client: &RegistryClient, image: &ImageRef, platform: &Platform) -> Result<Pulled, String> {
        let get = |reference: Reference| async move {
            let wait = Duration::from_secs(MANIFEST_SECS_MAX);
            let got = tokio::time::timeout(wait, client.manifest(&image.repo, &reference, ACCEPT_ALL)).await;
            match got {
                Err(_) => Err(format!("no answer within {MANIFEST_SECS_MAX} seconds")),
                Ok(Err(e)) => Err(match e.is_not_found() {
                    true => format!("{} does not exist there", image.repo_and_reference()),
                    false => e.to_string(),
                }),
                Ok(Ok(found)) => Ok(found),
            }
        };
        let mut found = get(image.reference()).await?;
        if media_type::is_index(&found.media_type) {
            let view = ManifestView::parse(&found.bytes, Some(&found.media_type)).map_err(|e| e.to_string())?;
            let child = choose(view.manifests(), platform).map_err(|why| format!("it {why}"))?;
            found = get(Reference::Digest(child.digest)).await?;
        }
        Ok(Pulled { digest: found.digest, manifest: found.bytes, media_type: found.media_type })
    }

    /// Fetch what is not here yet; the bytes fetched.
    pub(super) async fn blobs(
        &self,
        client: &RegistryClient,
        image: &ImageRef,
        blobs: &[Descriptor],
    ) -> Result<u64, String> {
        self.fetch(client, image, blobs, &|_| {}).await
    }

    /// The same, and tell `note` how far it is.
    async fn fetch(
        &self,
        client: &RegistryClient,
        image: &ImageRef,
        blobs: &[Descriptor],
        note: &dyn Fn(&str),
    ) -> Result<u64, String> {
        let service = &self.shared.service;
        let holder = format!("base:{}/{}", image.host, image.repo);
        let digests: Vec<Digest> = blobs.iter().map(|b| b.digest).collect();
        let failed = |e: Error| format!("the store failed: {}", e.message);
        let entitled = service.meta.read({
            let (registry, digests, holder, now) = (self.registry.id, digests.clone(), holder.clone(), self.ctx.now);
            move |tx| {
                let mut entitled = blob::in_registry(tx, registry, &digests)?;
                entitled.extend(gc::held(tx, &holder, now)?);
                Ok::<_, Error>(entitled)
            }
        });
        let entitled = entitled.await.map_err(failed)?;
        let mut wanted = Vec::new();
        for blob in blobs {
            if blob.size > limits::BLOB_BYTES_MAX {
                return Err(format!("its layer {} is larger than {} bytes", blob.digest, limits::BLOB_BYTES_MAX));
            }
            let here = entitled.contains(&blob.digest)
                && service.blobs.size(&blob.digest).await.map_err(|e| failed(e.into()))?.is_some();
            if !here && !wanted.iter().any(|w: &&Descriptor| w.digest == blob.digest) {
                wanted.push(blob);
            }
        }
        // In place before the content is, or the collector may take it for a leftover.
        service.hold_blobs(&holder, &digests, self.ctx.now.plus(KEEP)).await.map_err(failed)?;
        let mut meters = Meters::default();
        let wanted: Vec<_> =
            wanted.into_iter().map(|blob| (blob, meters.add(blob.digest.to_string(), blob.size))).collect();
        let fetching = stream::iter(wanted)
            .map(|(blob, moved)| async move {
                let (_, body) =
                    client.blob(&image.repo, &blob.digest).await.map_err(|e| format!("layer {}: {e}", blob.digest))?;
                let stored = service.blobs.put(&blob.digest, Box::pin(counted(body, moved)), blob.size).await;
                stored.map_err(|e| format!("layer {}: {}", blob.digest, causes(&e)))
            })
            .buffer_unordered(PARALLEL_MAX)
            .try_fold(0, |sum, n| async move { Ok(sum + n) });
        meters.during(note, fetching).await
    }

    /// Make the image one of this registry's.
    async fn keep(
        &self,
        image: &ImageRef,
        target: &RepoName,
        pulled: &Pulled,
        blobs: &[Descriptor],
    ) -> Result<(), Error> {
        let service = &self.shared.service;
        service.link_build_blobs(self.ctx, self.registry, target, blobs).await?;
        // Under the tag if nothing is there: another platform's image may be, and stays.
        let by_digest = Reference::Digest(pulled.digest);
        let taken = match image.reference() {
            Reference::Tag(tag) => {
                let reference = Reference::Tag(tag);
                let there = service.get_manifest(self.ctx, self.registry, target, &reference).await;
                if there.is_ok() { by_digest } else { reference }
            }
            Reference::Digest(_) => by_digest,
        };
        let (bytes, media_type) = (pulled.manifest.clone(), pulled.media_type.as_str());
        service.put_manifest(self.ctx, self.registry, target, &taken, bytes, Some(media_type)).await?;
        Ok(())
    }
}

/// Whether a connection comes about, so that a machine without a way out finds out at once
/// and not after every second try. Left out where a proxy makes the connections.
async fn reachable(host: &str, egress: &Egress) -> Result<(), String> {
    let proxies = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
    if proxies.iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty())) {
        return Ok(());
    }
    let server = if host == DOCKER_HUB { "registry-1.docker.io" } else { host };
    let (name, port) = match server.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) => {
            (name, port.parse().map_err(|_| format!("{server} has no such port"))?)
        }
        _ => (server, 443),
    };
    let connect = async {
        let addresses = egress.resolve(name, port).await.map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => e,
            kind => io::Error::new(kind, format!("the name {server} cannot be looked up ({e})")),
        })?;
        tokio::net::TcpStream::connect(addresses.as_slice())
            .await
            .map(drop)
            .map_err(|e| io::Error::new(e.kind(), format!("{server} does not take connections ({e})")))
    };
    match tokio::time::timeout(Duration::from_secs(CONNECT_SECS_MAX), connect).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("{server} cannot be reached within {CONNECT_SECS_MAX} seconds")),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
