//! Manifests: pushing, pulling, deleting, referrers and attributes.
//!
//! A push is one transaction: what the manifest needs is there, the manifest and its
//! references are written, the tag moves, the events are logged. A pull is answered from
//! memory when it was answered before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use portolan_auth::access::{Action, Target};
use portolan_store::meta::event::{self, Change, EventKind, Subject};
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::manifest::{self, ManifestInfo, NewManifest, RefKind};
use portolan_store::meta::repo::{self, After, AttributesPatch, Repo};
use portolan_store::meta::tag::{self, TagInfo};
use portolan_store::meta::{Tx, blob};
use portolan_types::oci::{InvalidManifest, ManifestKind, ManifestView};
use portolan_types::{Digest, Reference, RepoName, Tag, limits, media_type};
use serde_json::json;

use crate::cache::{CachedTag, Evict, StoredManifest};
use crate::registries::Registry;
use crate::repos::{ListQuery, Page, disallowed, note_if_empty, remove_manifest, visible};
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// A pushed manifest.
#[derive(Clone, Debug)]
pub struct PutManifest {
    /// The digest it can be pulled by.
    pub digest: Digest,
    /// The manifest it is about, when it names one: for the `OCI-Subject` header.
    pub subject: Option<Digest>,
    /// Whether the repository did not have it before.
    pub created: bool,
}

/// A manifest with everything that ACR tells about it.
#[derive(Clone, Debug)]
pub struct ManifestDetail {
    /// The manifest.
    pub info: ManifestInfo,
    /// Its tags, but those hidden from lists.
    pub tags: Vec<Tag>,
    /// The children of an index that are here.
    pub references: Vec<ManifestInfo>,
}

/// A configuration is read for its platform up to this size, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

fn manifest_unknown(reference: &Reference) -> Error {
    let message = match reference {
        Reference::Tag(tag) => format!("manifest tagged by \"{tag}\" is not found"),
        Reference::Digest(digest) => format!("manifest {digest} is not found"),
    };
    Error::new(Kind::NotFound, "MANIFEST_UNKNOWN", message).with_detail(json!({ "reference": reference.to_string() }))
}

fn invalid(cause: &InvalidManifest) -> Error {
    let (kind, code) = match cause {
        InvalidManifest::TooLarge => (Kind::TooLarge, "SIZE_INVALID"),
        _ => (Kind::Invalid, "MANIFEST_INVALID"),
    };
    Error::new(kind, code, cause.to_string())
}

/// The document is served under its media type, so that must be one.
fn check_media_type(text: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"!#$&-^_.+/".contains(&c);
    if text.len() > 255 || !text.contains('/') || !text.bytes().all(fine) {
        return Err(Error::new(Kind::Invalid, "MANIFEST_INVALID", "the manifest's media type is not a media type"));
    }
    Ok(())
}

impl Service {
    /// Store a manifest under a tag or its digest.
    ///
    /// Errors: `MANIFEST_INVALID`; `SIZE_INVALID` over 4 MiB; `DIGEST_INVALID` when the
    /// digest in the reference is another; `MANIFEST_BLOB_UNKNOWN` with everything it needs
    /// and the repository lacks; `REGISTRY_DISALLOWED_OPERATION` when the repository or
    /// the tag is locked. Nothing is stored then.
    pub async fn put_manifest(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        reference: &Reference,
        bytes: Bytes,
        content_type: Option<&str>,
    ) -> Result<PutManifest> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Push)?;
        let view = ManifestView::parse(&bytes, content_type).map_err(|e| invalid(&e))?;
        check_media_type(&view.media_type)?;
        let (digest, tag) = match reference {
            Reference::Tag(tag) => (Digest::of(&bytes), Some(tag.clone())),
            Reference::Digest(expected) => {
                let actual = Digest::of_with(expected.algorithm(), &bytes);
                if actual != *expected {
                    let message = format!("the manifest has digest {actual}, not {expected}");
                    return Err(Error::new(Kind::Invalid, "DIGEST_INVALID", message)
                        .with_detail(json!({ "expected": expected, "actual": actual })));
                }
                (actual, None)
            }
        };
        let new = self.describe(registry, name, &view, digest, bytes).await?;
        let subject = new.subject;
        let (change, name) = (self.change(ctx, registry), name.clone());
        let created = self.commit((), move |tx, evict| store(tx, &change, &name, tag.as_ref(), &new, evict)).await?;
        Ok(PutManifest { digest, subject, created })
    }

    /// What a row says of a manifest: what the document says, and the platform that its
    /// configuration says.
    async fn describe(
        &self,
        registry: &Registry,
        name: &RepoName,
        view: &ManifestView,
        digest: Digest,
        bytes: Bytes,
    ) -> Result<NewManifest> {
        let config = match &view.kind {
            ManifestKind::Image { config, .. } => config.as_ref(),
            _ => None,
        };
        let mut platform = Platform::default();
        if let Some(config) = config
            && matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
            && let Some(size) = self.linked_blob_size(registry, name, &config.digest).await?
            && size <= CONFIG_BYTES_MAX
        {
            platform = self.read_platform(&config.digest, size).await;
        }
        let mut blobs: Vec<Digest> = view.blobs().map(|b| b.digest).collect();
        let mut manifests: Vec<Digest> = view.manifests().iter().map(|m| m.digest).collect();
        for list in [&mut blobs, &mut manifests] {
            list.sort_unstable();
            list.dedup();
        }
        Ok(NewManifest {
            digest,
            media_type: view.media_type.clone(),
            bytes,
            image_size: view.blobs().fold(0, |sum, b| sum.saturating_add(b.size)),
            config_media_type: config.map(|c| c.media_type.clone()),
            architecture: platform.architecture.filter(|a| !a.is_empty()),
            os: platform.os.filter(|o| !o.is_empty()),
            subject: view.subject.as_ref().map(|s| s.digest),
            artifact_type: view.artifact_type.clone(),
            annotations: match view.annotations.is_empty() {
                true => None,
                false => serde_json::to_string(&view.annotations).ok(),
            },
            blobs,
            manifests,
        })
    }

    /// Best effort: a configuration that cannot be read or parsed has no platform.
    async fn read_platform(&self, config: &Digest, size: u64) -> Platform {
        let Ok(mut stream) = self.blobs.read(config, 0..size).await else { return Platform::default() };
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(_) => return Platform::default(),
            }
        }
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// A manifest for pulling, as it was pushed. Whatever type it has: the stored type is
    /// in the answer, and clients that cannot use it say so better than a 404 would.
    ///
    /// Errors: `NAME_UNKNOWN`, `MANIFEST_UNKNOWN`; `REGISTRY_DISALLOWED_OPERATION` when
    /// reading is locked.
    pub async fn get_manifest(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        reference: &Reference,
    ) -> Result<Arc<StoredManifest>> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Pull)?;
        let repo = self.lookup_repo(registry, name).await?;
        let mut readable = repo.attributes.read;
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let found = self.lookup_tag(repo.id, tag).await?;
                readable &= found.attributes.read;
                found.digest
            }
        };
        let key = (repo.id, digest);
        let manifest = match self.content.caches.manifests.get(&key) {
            Some(manifest) => manifest,
            None => {
                let load = async {
                    let found =
                        self.meta.read(move |tx| manifest::content(tx, key.0, &key.1).map_err(Error::from)).await?;
                    let (bytes, media_type, attributes) = found.ok_or_else(|| manifest_unknown(reference))?;
                    Ok::<_, Error>(Arc::new(StoredManifest::new(digest, media_type, bytes, attributes)))
                };
                self.content.caches.manifests.get_or_insert_async(&key, load).await?
            }
        };
        if !readable || !manifest.attributes.read {
            return Err(disallowed("reading it is locked"));
        }
        Ok(manifest)
    }

    async fn lookup_tag(&self, repo: i64, tag: &Tag) -> Result<CachedTag> {
        let key = (repo, tag.clone());
        if let Some(found) = self.content.caches.tags.get(&key) {
            return Ok(found);
        }
        let name = tag.clone();
        let load = async {
            let found = self.meta.read(move |tx| tag::find(tx, repo, &name).map_err(Error::from)).await?;
            let found = found.ok_or_else(|| manifest_unknown(&Reference::Tag(tag.clone())))?;
            Ok(CachedTag { digest: found.digest, attributes: found.attributes })
        };
        self.content.caches.tags.get_or_insert_async(&key, load).await
    }

    /// Delete by digest: the manifest, its tags, and whatever refers to it as its subject
    /// and is not locked. Delete by tag: that tag (OCI distribution-spec, "Deleting tags").
    ///
    /// Errors: `NAME_UNKNOWN`, `MANIFEST_UNKNOWN`; `REGISTRY_DISALLOWED_OPERATION` when
    /// the repository (for writing), the manifest or one of its tags is locked.
    pub async fn delete_manifest(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        reference: &Reference,
    ) -> Result<()> {
        let digest = match reference {
            Reference::Tag(tag) => {
                let done = self.untag(ctx, registry, name, tag).await;
                return done.map_err(|e| if e.code == "TAG_UNKNOWN" { manifest_unknown(reference) } else { e });
            }
            Reference::Digest(digest) => *digest,
        };
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Delete)?;
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.unlink);
        self.commit((), move |tx, evict| {
            let repo = visible(tx, change.registry, &name)?;
            if !repo.attributes.write {
                return Err(disallowed(&format!("repository {name} is locked")));
            }
            match lock_on(tx, repo.id, &digest)? {
                None => return Err(manifest_unknown(&Reference::Digest(digest))),
                Some(Some(lock)) => return Err(disallowed(&lock)),
                Some(None) => {}
            }
            remove_manifest(tx, &change, &repo, &digest, grace, evict)?;
            remove_referrers(tx, &change, &repo, digest, grace, evict)?;
            note_if_empty(tx, &change, &repo, evict)
        })
        .await
    }

    /// Manifests that are about `subject`, whether or not it is here; by digest. With
    /// `artifact_type`, those of that type.
    ///
    /// Errors: `NAME_UNKNOWN`.
    pub async fn referrers(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        subject: Digest,
        artifact_type: Option<String>,
        query: &ListQuery,
    ) -> Result<Page<ManifestInfo>> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Pull)?;
        let (id, name, fetch) = (registry.id, name.clone(), query.fetch());
        let after = query.last.as_deref().and_then(|l| l.parse::<Digest>().ok());
        let found = self
            .meta
            .read(move |tx| {
                let repo = visible(tx, id, &name)?;
                manifest::referrers(tx, repo.id, &subject, artifact_type.as_deref(), after.as_ref(), fetch)
                    .map_err(Error::from)
            })
            .await?;
        Ok(query.page(found, |m| (m.updated, m.digest.to_string())))
    }

    /// A repository's manifests with their attributes and tags.
    ///
    /// Errors: `NAME_UNKNOWN`.
    pub async fn manifests(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        query: &ListQuery,
    ) -> Result<Page<ManifestDetail>> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::MetadataRead)?;
        let (id, name, order, fetch) = (registry.id, name.clone(), query.order, query.fetch());
        let after = query.after().and_then(|a| Some(After { time: a.time, key: a.key.parse::<Digest>().ok()? }));
        let found = self
            .meta
            .read(move |tx| {
                let repo = visible(tx, id, &name)?;
                let mut details = Vec::new();
                for info in manifest::list(tx, repo.id, order, after, fetch)? {
                    let tags = listable(tag::of_manifest(tx, repo.id, &info.digest)?);
                    details.push(ManifestDetail { info, tags, references: Vec::new() });
                }
                Ok::<_, Error>(details)
            })
            .await?;
        Ok(query.page(found, |m| (m.info.updated, m.info.digest.to_string())))
    }

    /// A manifest with its attributes, tags and children.
    ///
    /// Errors: `NAME_UNKNOWN`, `MANIFEST_UNKNOWN`.
    pub async fn manifest(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: Digest,
    ) -> Result<ManifestDetail> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::MetadataRead)?;
        let (id, name) = (registry.id, name.clone());
        self.meta
            .read(move |tx| {
                let repo = visible(tx, id, &name)?;
                detail(tx, repo.id, &digest)
            })
            .await
    }

    /// Change a manifest's locks.
    ///
    /// Errors: `NAME_UNKNOWN`, `MANIFEST_UNKNOWN`.
    pub async fn update_manifest(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: Digest,
        patch: AttributesPatch,
    ) -> Result<ManifestDetail> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::MetadataWrite)?;
        let (change, name) = (self.change(ctx, registry), name.clone());
        self.commit((), move |tx, evict| {
            let repo = visible(tx, change.registry, &name)?;
            let found = detail(tx, repo.id, &digest)?;
            manifest::set_attributes(tx, &change, repo.id, &digest, patch.apply(found.info.attributes))?;
            let about = Subject { digest: Some(&digest), ..Subject::default() };
            event::append(tx, &change, &name, EventKind::AttributesChanged, about)?;
            evict.push(Evict::Manifest(repo.id, digest));
            detail(tx, repo.id, &digest)
        })
        .await
    }
}

/// The part of an image configuration that a list shows.
#[derive(Default, serde::Deserialize)]
struct Platform {
    architecture: Option<String>,
    os: Option<String>,
}

fn listable(tags: Vec<TagInfo>) -> Vec<Tag> {
    tags.into_iter().filter(|t| t.attributes.list).map(|t| t.name).collect()
}

fn detail(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<ManifestDetail> {
    let info = manifest::info(tx, repo, digest)?.ok_or_else(|| manifest_unknown(&Reference::Digest(*digest)))?;
    let tags = listable(tag::of_manifest(tx, repo, digest)?);
    let mut references = Vec::new();
    if media_type::is_index(&info.media_type) {
        for child in manifest::needs(tx, repo, digest, RefKind::Manifest)? {
            references.extend(manifest::info(tx, repo, &child)?);
        }
    }
    Ok(ManifestDetail { info, tags, references })
}

/// The transaction of a push. True when the manifest is new to the repository.
fn store(
    tx: &mut dyn Tx,
    change: &Change,
    name: &RepoName,
    tag: Option<&Tag>,
    new: &NewManifest,
    evict: &mut Vec<Evict>,
) -> Result<bool> {
    let repo = repo::ensure(tx, change, name)?;
    if !repo.attributes.write {
        return Err(disallowed(&format!("repository {name} is locked")));
    }
    let old = match tag {
        Some(tag) => tag::find(tx, repo.id, tag)?,
        None => None,
    };
    if let Some(old) = &old
        && !old.attributes.write
    {
        return Err(disallowed(&format!("tag {} is locked", old.name)));
    }
    let mut missing = blob::missing(tx, repo.id, &new.blobs)?;
    missing.extend(manifest::missing(tx, repo.id, &new.manifests)?);
    if !missing.is_empty() {
        let list = missing.iter().map(Digest::to_string).collect::<Vec<_>>();
        let message = format!(
            "the manifest needs content that repository \"{name}\" does not have: {}",
            list.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")
        );
        return Err(Error::new(Kind::NotFound, "MANIFEST_BLOB_UNKNOWN", message)
            .with_detail(json!({ "digest": list.first(), "missing": list })));
    }
    let created = manifest::put(tx, change, repo.id, new)?;
    for digest in &new.blobs {
        // The manifest holds the link from now on.
        gc::dequeue(tx, &Review::Link { repo: repo.id, digest: *digest })?;
    }
    repo::touch(tx, change, repo.id, !repo.visible)?;
    let about = Subject {
        tag,
        digest: Some(&new.digest),
        media_type: Some(&new.media_type),
        size: Some(new.bytes.len() as u64),
    };
    event::append(tx, change, name, EventKind::ManifestPushed, about)?;
    if let Some(tag) = tag {
        tag::put(tx, change, repo.id, tag, &new.digest)?;
        if old.is_none_or(|old| old.digest != new.digest) {
            event::append(tx, change, name, EventKind::TagSet, about)?;
        }
        evict.push(Evict::Tag(repo.id, tag.clone()));
    }
    if !repo.visible {
        evict.push(Evict::Repo(change.registry, name.clone()));
    }
    Ok(created)
}

/// What locks a manifest against deletion: `None` when there is no such manifest.
fn lock_on(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<Option<Option<String>>> {
    let Some(info) = manifest::info(tx, repo, digest)? else { return Ok(None) };
    if !info.attributes.deletable() {
        return Ok(Some(Some(format!("manifest {digest} is locked"))));
    }
    let locked = tag::of_manifest(tx, repo, digest)?.into_iter().find(|t| !t.attributes.deletable());
    Ok(Some(locked.map(|t| format!("tag {} is locked", t.name))))
}

/// Delete what is about a deleted manifest, and what is about that, but for what is locked.
fn remove_referrers(
    tx: &mut dyn Tx,
    change: &Change,
    repo: &Repo,
    subject: Digest,
    grace: Duration,
    evict: &mut Vec<Evict>,
) -> Result<()> {
    let mut subjects = vec![subject];
    while let Some(subject) = subjects.pop() {
        let mut after = None;
        loop {
            let page = manifest::referrers(tx, repo.id, &subject, None, after.as_ref(), limits::PAGE_ITEMS_MAX)?;
            let Some(last) = page.last() else { break };
            after = Some(last.digest);
            for info in &page {
                if lock_on(tx, repo.id, &info.digest)? == Some(None) {
                    remove_manifest(tx, change, repo, &info.digest, grace, evict)?;
                    subjects.push(info.digest);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_fit_a_header() {
        for good in [media_type::OCI_MANIFEST, media_type::OCI_LAYER_GZIP, "text/plain"] {
            assert!(check_media_type(good).is_ok(), "{good}");
        }
        for bad in ["", "plain", "a/b\r\nx: y", "a/b c", "a/é", &format!("a/{}", "b".repeat(300))] {
            assert!(check_media_type(bad).is_err(), "{bad}");
        }
    }
}
