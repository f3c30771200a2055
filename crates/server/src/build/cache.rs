//! The caches of other builders: `--cache-from` and `--cache-to`.
//!
//! A cache lies in a registry under a tag, as BuildKit writes it (`portolan_builder::cache` has
//! the format), or in an image's configuration. What is read is a help and no more: one that
//! cannot be read is told in the log and left out. What is written is what was asked for: when
//! it cannot be, the build fails, unless the order says `ignore-error=true`.
//!
//! Records are read when the build begins, and their layers when they are used: those in this
//! registry lie there already; from another one they are fetched as a base image's are, under
//! the same rules about what a build may reach and what it may read of the store.
//!
//! A cache is written to this registry only: a build has no credentials for others.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use portolan_api::registry::{ACCEPT_ALL, RegistryClient};
use portolan_builder::cache::{self, CONFIG_BYTES_MAX, CONFIG_MEDIA_TYPE, Exported};
use portolan_builder::ports::StepCache;
use portolan_builder::{Built, CacheExport};
use portolan_service::{Ctx, Registry};
use portolan_tasks::{BuildOptions, RunLog};
use portolan_types::oci::{Descriptor, ImageConfig, Index, Manifest, ManifestKind, ManifestView};
use portolan_types::{Digest, ImageRef, Platform, media_type};

use super::Shared;
use super::images::choose;
use super::run::Trouble;
use super::upstream::Upstream;

/// An image's configuration with an inline cache in it.
const IMAGE_CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What an order says of caches, read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wishes {
    /// Where to read, in the order given.
    pub(super) from: Vec<ImageRef>,
    /// Where to write.
    to: Vec<Target>,
    /// Records in the image itself.
    inline: bool,
}

#[derive(Debug, PartialEq)]
struct Target {
    image: ImageRef,
    max: bool,
    /// An image manifest, as BuildKit writes now, or an index, as it did first.
    as_image: bool,
    /// Not to fail the build.
    ignore_error: bool,
}

/// `key=value,…`, as docker's options are written: in the manner of CSV, so that a field with a
/// comma in it stands in quotes. A word without `=` is a key without a value.
pub(super) fn fields(text: &str) -> Vec<(String, String)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    let split = |word: &str| match word.split_once('=') {
        Some((key, value)) => (key.trim().to_ascii_lowercase(), value.to_owned()),
        None => (word.trim().to_ascii_lowercase(), String::new()),
    };
    words.iter().filter(|word| !word.trim().is_empty()).map(|word| split(word)).collect()
}

/// A switch among the fields: `true` and `false` as Go reads them.
pub(super) fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(format!("{key} is true or false")),
    }
}

impl Wishes {
    /// Read what an order says. The error is a sentence that names the option.
    pub(super) fn read(options: &BuildOptions) -> Result<Wishes, String> {
        let mut wishes = Wishes::default();
        for text in &options.cache_from {
            let wrong = |why: String| format!("--cache-from: {why}");
            wishes.from.extend(source(text).map_err(wrong)?);
        }
        for text in &options.cache_to {
            let wrong = |why: String| format!("--cache-to: {why}");
            match target(text).map_err(wrong)? {
                Some(target) => wishes.to.push(target),
                None => wishes.inline = true,
            }
        }
        Ok(wishes)
    }

    /// What the engine is to make.
    pub(super) fn export(&self) -> CacheExport {
        let registry = (!self.to.is_empty()).then(|| self.to.iter().any(|target| target.max));
        CacheExport { registry, inline: self.inline }
    }
}

fn reference(text: &str) -> Result<ImageRef, String> {
    text.parse().map_err(|_| "what it names is no reference; write host/repository:tag".to_owned())
}

fn other_type(kind: &str) -> String {
    format!("type={kind} cannot be used: builds run on the server; type=registry and type=inline can")
}

fn source(text: &str) -> Result<Option<ImageRef>, String> {
    if !text.contains('=') {
        return reference(text).map(Some);
    }
    let (mut kind, mut from) = (String::new(), None);
    for (key, value) in fields(text) {
        match key.as_str() {
            "type" => kind = value,
            "ref" => from = Some(reference(&value)?),
            "registry.insecure" => {}
            other => return Err(format!("there is no field {other:?}; type and ref are")),
        }
    }
    match kind.as_str() {
        "registry" => from.map(Some).ok_or_else(|| "ref is missing".to_owned()),
        "" => Err("type is missing".to_owned()),
        // In the image that is named by a type=registry, or nowhere.
        "inline" => Ok(None),
        kind => Err(other_type(kind)),
    }
}

/// `None` is `type=inline`.
fn target(text: &str) -> Result<Option<Target>, String> {
    if !text.contains('=') && text != "inline" {
        let image = reference(text)?;
        return Ok(Some(Target { image, max: false, as_image: true, ignore_error: false }));
    }
    let (mut kind, mut image) = (String::new(), None);
    let (mut max, mut as_image, mut ignore_error) = (false, true, false);
    for (key, value) in fields(text) {
        match key.as_str() {
            "type" => kind = value,
            "inline" => kind = key,
            "ref" => image = Some(reference(&value)?),
            "mode" => {
                max = match value.as_str() {
                    "min" => false,
                    "max" => true,
                    _ => return Err("mode is min or max".to_owned()),
                }
            }
            "image-manifest" => as_image = switch(&key, &value)?,
            "ignore-error" => ignore_error = switch(&key, &value)?,
            "oci-mediatypes" if switch(&key, &value)? => {}
            "oci-mediatypes" => return Err("oci-mediatypes=false cannot be used: a cache has OCI's types".to_owned()),
            // Layers are as the build wrote them; so they are shared with the image.
            "compression" if value == "gzip" => {}
            "force-compression" | "registry.insecure" => {}
            "compression" | "compression-level" => {
                return Err(format!("{key} cannot be used: layers are in gzip, as the image has them"));
            }
            other => return Err(format!("there is no field {other:?}")),
        }
    }
    match (kind.as_str(), image) {
        ("registry", Some(image)) => Ok(Some(Target { image, max, as_image, ignore_error })),
        ("registry", None) => Err("ref is missing".to_owned()),
        ("inline", _) => Ok(None),
        ("", _) => Err("type is missing".to_owned()),
        (kind, _) => Err(other_type(kind)),
    }
}

/// Who reads and writes for one run.
pub(super) struct Caches<'r> {
    pub(super) shared: &'r Arc<Shared>,
    pub(super) registry: &'r Arc<Registry>,
    pub(super) ctx: &'r Ctx,
}

/// Records that were read, for the engine.
struct Imported {
    sources: Vec<Source>,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    ctx: Ctx,
}

struct Source {
    records: HashMap<Digest, Vec<u8>>,
    /// Where its layers are fetched from, unless they are in this registry.
    remote: Option<(RegistryClient, ImageRef)>,
    layers: Vec<Descriptor>,
}

impl Caches<'_> {
    /// Read all caches that a build may begin with; `None` when there is nothing in them.
    pub(super) async fn import(
        &self,
        wishes: &Wishes,
        platforms: &[Platform],
        log: &RunLog,
    ) -> Option<Arc<dyn StepCache>> {
        let mut sources = Vec::new();
        for image in &wishes.from {
            match self.read(image, platforms).await {
                Ok(found) => {
                    let steps: usize = found.iter().map(|source| source.records.len()).sum();
                    log.note(&format!("Importing cache from {image}: {steps} steps"));
                    sources.extend(found);
                }
                Err(why) => log.note(&format!("Importing cache from {image} failed: {why}")),
            }
        }
        sources.retain(|source| !source.records.is_empty());
        if sources.is_empty() {
            return None;
        }
        let (shared, registry, ctx) = (self.shared.clone(), self.registry.clone(), self.ctx.clone());
        Some(Arc::new(Imported { sources, shared, registry, ctx }))
    }

    async fn read(&self, image: &ImageRef, platforms: &[Platform]) -> Result<Vec<Source>, String> {
        let own = image.host.eq_ignore_ascii_case(&self.registry.login_server);
        let upstream = Upstream { shared: self.shared, registry: self.registry, ctx: self.ctx };
        let remote = match own {
            true => None,
            false => Some((upstream.client(&image.host).await?, image.clone())),
        };
        let (bytes, kind) = self.manifest(image, remote.as_ref()).await?;
        let view = ManifestView::parse(&bytes, Some(&kind)).map_err(|e| e.to_string())?;
        match view.kind {
            ManifestKind::Image { config: Some(config), layers } => {
                Ok(self.of_image(&config, layers, remote).await?.into_iter().collect())
            }
            ManifestKind::Index { manifests } => {
                if let Some(at) = manifests.iter().position(|child| child.media_type == CONFIG_MEDIA_TYPE) {
                    let mut layers = manifests;
                    let config = layers.swap_remove(at);
                    return Ok(self.of_image(&config, layers, remote).await?.into_iter().collect());
                }
                // An image for several platforms: an inline cache in each.
                let mut found = Vec::new();
                for platform in platforms {
                    let Ok(child) = choose(&manifests, platform) else { continue };
                    let child = ImageRef { tag: None, digest: Some(child.digest), ..image.clone() };
                    let (bytes, kind) = self.manifest(&child, remote.as_ref()).await?;
                    let view = ManifestView::parse(&bytes, Some(&kind)).map_err(|e| e.to_string())?;
                    if let ManifestKind::Image { config: Some(config), layers } = view.kind {
                        found.extend(self.of_image(&config, layers, remote.clone()).await?);
                    }
                }
                Ok(found)
            }
            _ => Err(format!("it is no cache and no image ({kind})")),
        }
    }

    async fn manifest(
        &self,
        image: &ImageRef,
        remote: Option<&(RegistryClient, ImageRef)>,
    ) -> Result<(Bytes, String), String> {
        match remote {
            Some((client, _)) => {
                let found = client.manifest(&image.repo, &image.reference(), ACCEPT_ALL).await;
                found.map(|found| (found.bytes, found.media_type)).map_err(|e| match e.is_not_found() {
                    true => "it does not exist".to_owned(),
                    false => e.to_string(),
                })
            }
            None => {
                let service = &self.shared.service;
                let found = service.get_manifest(self.ctx, self.registry, &image.repo, &image.reference()).await;
                found.map(|found| (found.bytes.clone(), found.media_type.clone())).map_err(|e| e.message)
            }
        }
    }

    /// A cache by its configuration, or an image with one in it.
    async fn of_image(
        &self,
        config: &Descriptor,
        layers: Vec<Descriptor>,
        remote: Option<(RegistryClient, ImageRef)>,
    ) -> Result<Option<Source>, String> {
        let of_cache = config.media_type == CONFIG_MEDIA_TYPE;
        let bytes_max = if of_cache { CONFIG_BYTES_MAX as u64 } else { IMAGE_CONFIG_BYTES_MAX };
        if config.size > bytes_max {
            return Err(format!("its configuration is larger than {bytes_max} bytes"));
        }
        let unreadable = |e: &dyn std::fmt::Display| format!("its configuration cannot be read: {e}");
        let body = match &remote {
            Some((client, image)) => client.blob(&image.repo, &config.digest).await.map_err(|e| unreadable(&e))?.1,
            // The repository has what its manifest names.
            None => self.shared.service.blobs.read(&config.digest, 0..bytes_max).await.map_err(|e| unreadable(&e))?,
        };
        let mut body = body;
        let mut bytes = Vec::new();
        while let Some(part) = body.try_next().await.map_err(|e| unreadable(&e))? {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > bytes_max {
                return Err(format!("its configuration is larger than {bytes_max} bytes"));
            }
        }
        if Digest::of_with(config.digest.algorithm(), &bytes) != config.digest {
            return Err("its configuration has another digest than its manifest says".to_owned());
        }
        let records = match of_cache {
            true => cache::read_config(&bytes, &layers)?,
            false => match serde_json::from_slice::<ImageConfig>(&bytes) {
                Ok(image) => cache::read_inline(&image, &layers)?,
                Err(e) => return Err(unreadable(&e)),
            },
        };
        Ok(Some(Source { records, remote, layers }))
    }

    /// Write what the build made to all the places that were asked for.
    pub(super) async fn export(&self, wishes: &Wishes, built: &[Built], log: &RunLog) -> Result<(), Trouble> {
        if wishes.to.is_empty() {
            return Ok(());
        }
        let all: Vec<&Exported> = built.iter().filter_map(|image| image.cache.as_ref()).collect();
        let merged = cache::merge(&all).map_err(Trouble::Server)?;
        for target in &wishes.to {
            let image = &target.image;
            match self.write(target, &merged).await {
                Ok(digest) => log.note(&format!("Exported cache to {image}: {} steps, {digest}", merged.steps)),
                Err(why) if target.ignore_error => log.note(&format!("Exporting cache to {image} failed: {why}")),
                Err(why) => return Err(Trouble::Order(format!("cannot export the cache to {image}: {why}"))),
            }
        }
        Ok(())
    }

    async fn write(&self, target: &Target, cache: &Exported) -> Result<Digest, String> {
        let (service, image) = (&self.shared.service, &target.image);
        if !image.host.eq_ignore_ascii_case(&self.registry.login_server) {
            return Err(format!(
                "a build can write to its own registry only; hint: {}/{}",
                self.registry.login_server,
                image.repo_and_reference()
            ));
        }
        if cache.config.len() > CONFIG_BYTES_MAX {
            return Err(format!("its configuration is larger than {CONFIG_BYTES_MAX} bytes; mode=min has less in it"));
        }
        let failed = |e: &dyn std::fmt::Display| e.to_string();
        let digest = Digest::of(&cache.config);
        let config = Descriptor::new(CONFIG_MEDIA_TYPE, digest, cache.config.len() as u64);
        let body = Box::pin(stream::iter([Ok(Bytes::from(cache.config.clone()))]));
        service.blobs.put(&digest, body, config.size).await.map_err(|e| failed(&e))?;
        let mut blobs = cache.layers.clone();
        blobs.push(config.clone());
        service.link_build_blobs(self.ctx, self.registry, &image.repo, &blobs).await.map_err(|e| e.message)?;
        let (bytes, kind) = match target.as_image {
            true => {
                let manifest = Manifest {
                    schema_version: 2,
                    media_type: media_type::OCI_MANIFEST.to_owned(),
                    config,
                    layers: cache.layers.clone(),
                    annotations: Default::default(),
                };
                (serde_json::to_vec(&manifest), media_type::OCI_MANIFEST)
            }
            false => {
                let index = Index {
                    schema_version: 2,
                    media_type: media_type::OCI_INDEX.to_owned(),
                    manifests: blobs,
                    annotations: Default::default(),
                };
                (serde_json::to_vec(&index), media_type::OCI_INDEX)
            }
        };
        let bytes = Bytes::from(bytes.map_err(|e| failed(&e))?);
        let reference = image.reference();
        let put = service.put_manifest(self.ctx, self.registry, &image.repo, &reference, bytes, Some(kind));
        put.await.map(|put| put.digest).map_err(|e| e.message)
    }
}

impl StepCache for Imported {
    fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        let source = self.sources.iter().find(|source| source.records.contains_key(key))?;
        let record = source.records.get(key)?;
        let Some((client, image)) = &source.remote else { return Some(record.clone()) };
        // Only what is used is fetched: the engine asks for a step once all below it is found.
        let wanted = super::steps::digests(record);
        let layers: Vec<Descriptor> = source.layers.iter().filter(|l| wanted.contains(&l.digest)).cloned().collect();
        let upstream = Upstream { shared: &self.shared, registry: &self.registry, ctx: &self.ctx };
        match self.shared.runtime.block_on(upstream.blobs(client, image, &layers)) {
            Ok(_) => Some(record.clone()),
            Err(error) => {
                tracing::info!(%image, error, "fetch a layer of an imported cache");
                None
            }
        }
    }

    /// The registry's own records are elsewhere.
    fn put(&self, _: &Digest, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(from: &[&str], to: &[&str]) -> Result<Wishes, String> {
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        Wishes::read(&BuildOptions { cache_from: list(from), cache_to: list(to), ..BuildOptions::default() })
    }

    #[test]
    fn options_as_docker_writes_them() {
        let image = |text: &str| text.parse::<ImageRef>().unwrap();
        let wishes = read(&["reg.io/a/b:c", "type=registry,ref=reg.io/x", "type=inline"], &[]).unwrap();
        assert_eq!(wishes.from, [image("reg.io/a/b:c"), image("reg.io/x")]);
        assert_eq!(wishes.export(), CacheExport::default());

        let wishes = read(&[], &["type=registry,ref=reg.io/a:c,mode=max,image-manifest=false", "type=inline"]).unwrap();
        assert!(wishes.to[0].max && !wishes.to[0].as_image && !wishes.to[0].ignore_error);
        assert_eq!(wishes.export(), CacheExport { registry: Some(true), inline: true });
        let wishes = read(&[], &["reg.io/a:c"]).unwrap();
        assert_eq!(wishes.export(), CacheExport { registry: Some(false), inline: false });
        let quoted = read(&[], &["type=registry,\"ref=reg.io/a:c\",ignore-error=true"]).unwrap();
        assert!(quoted.to[0].ignore_error);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (from, to, why) in [
            (Some("type=gha"), None, "type=gha cannot be used"),
            (Some("type=registry"), None, "ref is missing"),
            (Some("ref=a/b"), None, "type is missing"),
            (Some("type=registry,ref=a/b,x=y"), None, "no field \"x\""),
            (Some("UPPER"), None, "is no reference"),
            (None, Some("type=local,dest=/x"), "no field \"dest\""),
            (None, Some("type=registry,ref=a/b,mode=most"), "min or max"),
            (None, Some("type=registry,ref=a/b,image-manifest=perhaps"), "true or false"),
            (None, Some("type=registry,ref=a/b,compression=zstd"), "compression cannot be used"),
            (None, Some("type=registry,ref=a/b,oci-mediatypes=false"), "oci-mediatypes=false"),
        ] {
            let error = read(from.as_slice(), to.as_slice()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
