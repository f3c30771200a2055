//! The engine's [`Images`] for one run: which image `FROM` and `COPY --from` mean.
//!
//! 1. A reference to the registry's own login server means its own content, nothing else.
//! 2. Otherwise the cache rule with the longest matching source names a repository of the
//!    registry; if that has the tag (or digest) for the platform, it is used. So whatever
//!    somebody pushed or built as `python:3.11-slim` is `FROM python:3.11-slim`.
//! 3. Otherwise the image is pulled from its own registry ([`super::upstream`]) and, when
//!    there is a rule, stored under the rule's name, where step 2 finds it next time.
//!
//! A build acts for its registry: it reads any repository of it, and nothing of any other
//! registry of this server.

use std::sync::Arc;

use parking_lot::Mutex;
use portolan_builder::ports::{BaseImage, Images};
use portolan_service::cache_rules::{self, CacheRule};
use portolan_service::{Ctx, Error, Kind, Registry, StoredManifest};
use portolan_store::meta::cache_rule;
use portolan_tasks::CancelFlag;
use portolan_types::oci::{Descriptor, ImageConfig, ManifestKind, ManifestView};
use portolan_types::{Digest, ImageRef, Platform, Reference, RepoName, media_type};

use super::Shared;
use super::upstream::Upstream;

/// An image configuration that a build reads into memory.
const CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Base images for one run.
pub(super) struct RunImages {
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Arc<Registry>,
    pub(super) ctx: Ctx,
    pub(super) cancel: CancelFlag,
    /// What was found: as the Dockerfile means it, with its layers.
    pub(super) found: Mutex<Vec<(ImageRef, BaseImage)>>,
}

/// Why an image of the registry cannot be used.
pub(super) enum Unusable {
    /// It is not there.
    Absent,
    /// It is there, but runs on something else: the sentence says on what.
    Platform(String),
    /// It cannot be read, or is no image.
    Broken(String),
}

impl Images for RunImages {
    fn resolve(&self, image: &ImageRef, platform: &Platform, note: &dyn Fn(&str)) -> Result<BaseImage, String> {
        let found = self.shared.runtime.block_on(async {
            tokio::select! {
                found = self.find(image, platform, note) => found,
                _ = self.cancel.raised() => Err("the build was cancelled".to_owned()),
            }
        })?;
        self.found.lock().push((image.clone(), found.clone()));
        Ok(found)
    }
}

impl RunImages {
    async fn find(&self, image: &ImageRef, platform: &Platform, note: &dyn Fn(&str)) -> Result<BaseImage, String> {
        let service = &self.shared.service;
        let host = image.host.to_ascii_lowercase();
        let of_this_server = match host == self.registry.login_server.to_ascii_lowercase() {
            true => Some(self.registry.clone()),
            // Another port of this machine is another server.
            false if port(&host) == port(&service.config.public_authority) => service.registry_by_host(&host),
            false => None,
        };
        match of_this_server {
            Some(registry) if registry.id == self.registry.id => {
                let name = image.repo_and_reference();
                return match self.own(&image.repo, &image.reference(), platform).await {
                    Ok(found) => Ok(found),
                    Err(Unusable::Absent) => Err(format!(
                        "{host}/{name} does not exist in this registry; \
                         hint: `acr repository show-tags` lists what does, or push it first"
                    )),
                    Err(Unusable::Platform(why) | Unusable::Broken(why)) => {
                        Err(format!("cannot use {host}/{name}: {why}"))
                    }
                };
            }
            Some(other) => {
                return Err(format!(
                    "{image} is in the registry {}, and a build of {} cannot read other registries; \
                     hint: push it to {}",
                    other.name, self.registry.name, self.registry.login_server
                ));
            }
            None => {}
        }
        let rules = self.rules().await?;
        let target = cache_rules::choose(&rules, image).map(|(_, target)| target);
        let Some(target) = target else {
            return self.pull(image, platform, None, note).await.map_err(|why| cannot_pull(image, &why, None));
        };
        let name = own_name(&target, &image.reference());
        match self.own(&target, &image.reference(), platform).await {
            Ok(found) => {
                note(&format!("using {name} of this registry for {image}"));
                Ok(found)
            }
            Err(Unusable::Absent) => self
                .pull(image, platform, Some(&target), note)
                .await
                .map_err(|why| cannot_pull(image, &why, Some(&name))),
            Err(Unusable::Platform(why)) => {
                note(&format!("{name} of this registry {why}"));
                self.pull(image, platform, Some(&target), note)
                    .await
                    .map_err(|e| format!("{name} of this registry {why}, and {image} cannot be pulled: {e}"))
            }
            Err(Unusable::Broken(why)) => Err(format!("cannot use {name} of this registry: {why}")),
        }
    }

    /// An artifact, all of whose blobs are in the store: digest, manifest and its media type.
    /// Of this registry by its own name, else pulled.
    pub(super) async fn artifact(&self, name: &ImageRef) -> Result<(String, Vec<u8>, String), String> {
        if name.host.eq_ignore_ascii_case(&self.registry.login_server) {
            let found = self.manifest(&name.repo, &name.reference()).await.map_err(|why| match why {
                Unusable::Absent => format!("{name} does not exist in this registry"),
                Unusable::Platform(why) | Unusable::Broken(why) => format!("cannot use {name}: {why}"),
            })?;
            return Ok((found.digest.to_string(), found.bytes.to_vec(), found.media_type.clone()));
        }
        let upstream = Upstream { shared: &self.shared, registry: &self.registry, ctx: &self.ctx };
        let pulled = tokio::select! {
            pulled = upstream.artifact(name) => pulled.map_err(|why| format!("cannot pull {name}: {why}"))?,
            _ = self.cancel.raised() => return Err("the build was cancelled".to_owned()),
        };
        Ok((pulled.digest.to_string(), pulled.manifest.to_vec(), pulled.media_type))
    }

    async fn rules(&self) -> Result<Vec<CacheRule>, String> {
        let id = self.registry.id;
        let meta = &self.shared.service.meta;
        let rules = meta.read(move |tx| cache_rule::list(tx, id, cache_rules::RULES_MAX).map_err(Error::from)).await;
        rules.map_err(|e| format!("cannot read the registry's cache rules: {e}"))
    }

    async fn pull(
        &self,
        image: &ImageRef,
        platform: &Platform,
        target: Option<&RepoName>,
        note: &dyn Fn(&str),
    ) -> Result<BaseImage, String> {
        let upstream = Upstream { shared: &self.shared, registry: &self.registry, ctx: &self.ctx };
        let pulled = upstream.pull(image, platform, target, note).await?;
        self.base(pulled.digest, &pulled.manifest, &pulled.media_type, platform).await.map_err(|e| match e {
            Unusable::Absent => "its content went missing".to_owned(),
            Unusable::Platform(why) => format!("it {why}"),
            Unusable::Broken(why) => why,
        })
    }

    /// An image of this registry, for the platform.
    async fn own(&self, repo: &RepoName, reference: &Reference, platform: &Platform) -> Result<BaseImage, Unusable> {
        let found = self.manifest(repo, reference).await?;
        let view =
            ManifestView::parse(&found.bytes, Some(&found.media_type)).map_err(|e| Unusable::Broken(e.to_string()))?;
        let ManifestKind::Index { manifests } = &view.kind else {
            return self.base(found.digest, &found.bytes, &found.media_type, platform).await;
        };
        let child = choose(manifests, platform).map_err(Unusable::Platform)?;
        let found = self.manifest(repo, &Reference::Digest(child.digest)).await?;
        self.base(found.digest, &found.bytes, &found.media_type, platform).await
    }

    async fn manifest(&self, repo: &RepoName, reference: &Reference) -> Result<Arc<StoredManifest>, Unusable> {
        let found = self.shared.service.get_manifest(&self.ctx, &self.registry, repo, reference).await;
        found.map_err(|e| match e.kind {
            Kind::NotFound => Unusable::Absent,
            _ => Unusable::Broken(e.message),
        })
    }

    /// Read an image manifest whose blobs are all in the store.
    async fn base(
        &self,
        digest: Digest,
        manifest: &[u8],
        media_type: &str,
        platform: &Platform,
    ) -> Result<BaseImage, Unusable> {
        let view = ManifestView::parse(manifest, Some(media_type)).map_err(|e| Unusable::Broken(e.to_string()))?;
        let ManifestKind::Image { config: Some(config), layers } = view.kind else {
            return Err(Unusable::Broken(format!("it is no image ({media_type})")));
        };
        if let Some(foreign) = layers.iter().find(|l| media_type::is_foreign_layer(&l.media_type)) {
            return Err(Unusable::Broken(format!("its layer {} is not kept in registries", foreign.digest)));
        }
        let bytes = self.blob(&config).await?;
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|e| Unusable::Broken(format!("its configuration does not parse ({e}); it may be no image")))?;
        if config.rootfs.diff_ids.len() != layers.len() {
            return Err(Unusable::Broken("its configuration does not belong to its layers".into()));
        }
        let made_for = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone().filter(|v| !v.is_empty()),
        };
        // Images made by hand may leave it out.
        if !made_for.architecture.is_empty() && !platform.accepts(&made_for) {
            return Err(Unusable::Platform(format!("is for {made_for}, the build wants {platform}")));
        }
        Ok(BaseImage { digest, config, layers })
    }

    async fn blob(&self, blob: &Descriptor) -> Result<Vec<u8>, Unusable> {
        use futures_util::TryStreamExt;
        if blob.size > CONFIG_BYTES_MAX {
            return Err(Unusable::Broken(format!("its configuration is larger than {CONFIG_BYTES_MAX} bytes")));
        }
        let broken = |e: &dyn std::fmt::Display| Unusable::Broken(format!("its configuration cannot be read: {e}"));
        let body = self.shared.service.blobs.read(&blob.digest, 0..CONFIG_BYTES_MAX).await.map_err(|e| broken(&e))?;
        let parts: Vec<bytes::Bytes> = body.try_collect().await.map_err(|e| broken(&e))?;
        Ok(parts.concat())
    }
}

/// The child of an index for the platform. The error says what there is, as in "it …".
pub(super) fn choose<'m>(manifests: &'m [Descriptor], platform: &Platform) -> Result<&'m Descriptor, String> {
    let found = manifests.iter().find(|m| m.platform.as_ref().is_some_and(|p| platform.accepts(p)));
    found.ok_or_else(|| {
        let mut have: Vec<String> =
            manifests.iter().filter_map(|m| m.platform.as_ref()).map(Platform::to_string).collect();
        have.retain(|p| p != "unknown/unknown");
        have.dedup();
        have.truncate(20);
        if have.is_empty() {
            return format!("names no platforms, the build wants {platform}");
        }
        format!("is for {}, the build wants {platform}", have.join(", "))
    })
}

/// The port of a host, if it names one.
fn port(host: &str) -> Option<&str> {
    host.rsplit_once(':').map(|(_, port)| port).filter(|port| port.bytes().all(|c| c.is_ascii_digit()))
}

fn own_name(repo: &RepoName, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{repo}:{tag}"),
        Reference::Digest(digest) => format!("{repo}@{digest}"),
    }
}

fn cannot_pull(image: &ImageRef, why: &str, own: Option<&str>) -> String {
    match own {
        Some(own) => format!(
            "cannot pull {image}: {why}; hint: push or build an image named {own} into this registry, \
             and the build will use it"
        ),
        None => format!("cannot pull {image}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        platforms
            .iter()
            .map(|p| {
                let mut d = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(p.as_bytes()), 1);
                d.platform = Some(p.parse().unwrap());
                d
            })
            .collect()
    }

    #[test]
    fn the_right_child_of_an_index() {
        let children = index(&["unknown/unknown", "linux/amd64", "linux/arm/v7", "linux/arm64/v8"]);
        let chosen = |p: &str| choose(&children, &p.parse().unwrap()).map(|d| d.digest);
        assert_eq!(chosen("linux/amd64"), Ok(Digest::of(b"linux/amd64")));
        assert_eq!(chosen("linux/arm64"), Ok(Digest::of(b"linux/arm64/v8")));
        assert_eq!(
            chosen("linux/s390x").unwrap_err(),
            "is for linux/amd64, linux/arm/v7, linux/arm64/v8, the build wants linux/s390x"
        );
    }

    #[test]
    fn the_sentence_of_an_air_gapped_machine() {
        let image: ImageRef = "python:3.11-slim".parse().unwrap();
        assert_eq!(
            cannot_pull(&image, "no route", Some("python:3.11-slim")),
            "cannot pull docker.io/library/python:3.11-slim: no route; hint: push or build an image named \
             python:3.11-slim into this registry, and the build will use it"
        );
    }
}
