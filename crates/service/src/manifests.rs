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
use portolan_store::meta::pull::{self, Named};
use portolan_store::meta::repo::{self, After, AttributesPatch, Repo};
use portolan_store::meta::tag::{self, TagInfo};
use portolan_store::meta::{Tx, blob};
use portolan_types::oci::{InvalidManifest, ManifestKind, ManifestView};
use portolan_types::{Digest, Reference, RepoName, Tag, limits, media_type};
use serde_json::json;

use crate::cache::{CachedTag, Evict, StoredManifest};
use crate::registries::Registry;
use crate::repos::{ListQuery, Page, disallowed, name_unknown, note_if_empty, remove_manifest, visible};
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

/// What a push of a manifest asks for besides its bytes and where they go.
#[derive(Clone, Debug, Default)]
pub struct PutOptions<'a> {
    /// The media type it came under, parameters and all; without one the document says it.
    pub content_type: Option<&'a str>,
    /// Tags it gets besides the reference it is put to.
    pub tags: &'a [Tag],
    /// What must be true of the reference before; all of it.
    pub conditions: &'a [PutCondition],
}

/// What must be true of a reference before it is changed (RFC 9110, "Conditional
/// Requests"): clients that keep a list under a tag so see that nobody changed it meanwhile.
#[derive(Clone, Debug)]
pub enum PutCondition {
    /// There is nothing there.
    Absent,
    /// There is something there.
    Present,
    /// One of these is there.
    OneOf(Vec<Digest>),
    /// None of these is there.
    NoneOf(Vec<Digest>),
}

impl PutCondition {
    pub(crate) fn check(&self, there: Option<&Digest>) -> Result<()> {
        let holds = match self {
            PutCondition::Absent => there.is_none(),
            PutCondition::Present => there.is_some(),
            PutCondition::OneOf(list) => there.is_some_and(|d| list.contains(d)),
            PutCondition::NoneOf(list) => there.is_none_or(|d| !list.contains(d)),
        };
        match (holds, there) {
            (true, _) => Ok(()),
            (false, Some(there)) => Err(unmet(&format!("the reference names {there} now"))),
            (false, None) => Err(unmet("the reference names nothing now")),
        }
    }
}

/// 412: a condition of the request is not met.
fn unmet(now: &str) -> Error {
    Error::new(Kind::PreconditionFailed, "DENIED", format!("a condition of the request is not met: {now}"))
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
        let options = PutOptions { content_type, ..PutOptions::default() };
        self.put_manifest_with(ctx, registry, name, reference, bytes, &options).await
    }

    /// [`Service::put_manifest`], with all that a request can ask for.
    ///
    /// Errors besides: `PreconditionFailed` (`DENIED`) when the condition does not hold.
    pub async fn put_manifest_with(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        reference: &Reference,
        bytes: Bytes,
        options: &PutOptions<'_>,
    ) -> Result<PutManifest> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Push)?;
        let view = ManifestView::parse(&bytes, options.content_type).map_err(|e| invalid(&e))?;
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
        let (change, name, conditions) = (self.change(ctx, registry), name.clone(), options.conditions.to_vec());
        let mut tags: Vec<Tag> = tag.iter().cloned().collect();
        for tag in options.tags {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        let created = self
            .commit_change(change, move |tx, change, evict| {
                check_conditions(tx, change, &name, tag.as_ref(), &new.digest, &conditions)?;
                store(tx, change, &name, &tags, &new, evict)
            })
            .await?;
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
        // BuildKit's first form of a cache: an index whose children are layers.
        if view.manifests().iter().any(|m| m.media_type == media_type::BUILDKIT_CACHE) {
            blobs.append(&mut manifests);
        }
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
        if self.is_shared() {
            return self.ask_for_manifest(registry, name, reference).await;
        }
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

    /// The image for Linux on amd64 in an index: what a client that knows no indexes is
    /// given for a tag of one, as Docker's registry does (its "manifest-v2-2", "Backward
    /// compatibility"). `None` when the index has no such child here.
    pub async fn image_of_index(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        index: &StoredManifest,
    ) -> Result<Option<Arc<StoredManifest>>> {
        let Ok(view) = ManifestView::parse(&index.bytes, Some(&index.media_type)) else { return Ok(None) };
        let child = view.manifests().iter().find(|child| {
            let platform = child.platform.as_ref();
            platform.is_some_and(|p| p.os == "linux" && p.architecture == "amd64")
        });
        let Some(child) = child else { return Ok(None) };
        match self.get_manifest(ctx, registry, name, &Reference::Digest(child.digest)).await {
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// A manifest as the database has it now. Its bytes are those of its digest, so they may
    /// come from memory.
    async fn ask_for_manifest(
        &self,
        registry: &Registry,
        name: &RepoName,
        reference: &Reference,
    ) -> Result<Arc<StoredManifest>> {
        let (id, wanted, what) = (registry.id, name.clone(), reference.clone());
        let (repo, digest, media_type) =
            match self.meta.read(move |tx| pull::manifest(tx, id, &wanted, &what).map_err(Error::from)).await? {
                Named::NoRepo => return Err(name_unknown(name)),
                Named::NoManifest => return Err(manifest_unknown(reference)),
                Named::Manifest { readable: false, .. } => return Err(disallowed("reading it is locked")),
                Named::Manifest { repo, digest, media_type, .. } => (repo, digest, media_type),
            };
        let key = (repo, digest);
        // Deleted and pushed again, it may have come under another type.
        if let Some(known) = self.content.caches.manifests.get(&key).filter(|m| m.media_type == media_type) {
            return Ok(known);
        }
        let found = self.meta.read(move |tx| manifest::content(tx, repo, &digest).map_err(Error::from)).await?;
        let (bytes, media_type, attributes) = found.ok_or_else(|| manifest_unknown(reference))?;
        let manifest = Arc::new(StoredManifest::new(digest, media_type, bytes, attributes));
        self.content.caches.manifests.insert(key, Arc::clone(&manifest));
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
        self.delete_manifest_if(ctx, registry, name, reference, &[]).await
    }

    /// [`Service::delete_manifest`] under conditions.
    ///
    /// Errors besides: `PreconditionFailed` (`DENIED`) when one does not hold.
    pub async fn delete_manifest_if(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        reference: &Reference,
        conditions: &[PutCondition],
    ) -> Result<()> {
        let digest = match reference {
            Reference::Tag(tag) => {
                let done = self.untag_if(ctx, registry, name, tag, conditions).await;
                return done.map_err(|e| if e.code == "TAG_UNKNOWN" { manifest_unknown(reference) } else { e });
            }
            Reference::Digest(digest) => *digest,
        };
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Delete)?;
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.unlink);
        let conditions = conditions.to_vec();
        self.commit_change(change, move |tx, change, evict| {
            let repo = visible(tx, change.registry, &name)?;
            if !repo.attributes.write {
                return Err(disallowed(&format!("repository {name} is locked")));
            }
            match lock_on(tx, repo.id, &digest)? {
                None => return Err(manifest_unknown(&Reference::Digest(digest))),
                Some(_) if conditions.iter().any(|c| c.check(Some(&digest)).is_err()) => {
                    return Err(unmet(&format!("the reference names {digest} now")));
                }
                Some(Some(lock)) => return Err(disallowed(&lock)),
                Some(None) => {}
            }
            remove_manifest(tx, change, &repo, &digest, grace, evict)?;
            remove_referrers(tx, change, &repo, digest, grace, evict)?;
            note_if_empty(tx, change, &repo, evict)
        })
        .await
    }

    /// Manifests that are about `subject`, whether or not it is here; by digest. With
    /// `artifact_type`, those of that type. A repository that is not there has none: clients
    /// take a 404 for a registry that does not know referrers at all. A page ends early when
    /// its annotations alone are as large as a manifest may be.
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
                let repo = match visible(tx, id, &name) {
                    Err(e) if e.code == "NAME_UNKNOWN" => return Ok((Vec::new(), 0)),
                    repo => repo?,
                };
                let (kind, after) = (artifact_type.as_deref(), after.as_ref());
                let sizes = manifest::referrer_sizes(tx, repo.id, &subject, kind, after, fetch)?;
                let wanted = fitting(sizes.iter().map(|(_, bytes)| *bytes)).min(fetch - 1);
                let items = match wanted {
                    0 => Vec::new(),
                    wanted => manifest::referrers(tx, repo.id, &subject, kind, after, wanted)?,
                };
                Ok::<_, Error>((items, sizes.len()))
            })
            .await?;
        let (items, there) = found;
        let next = items.last().filter(|_| there > items.len()).map(|last| last.digest.to_string());
        Ok(Page { items, next })
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
        self.commit_change(change, move |tx, change, evict| {
            let repo = visible(tx, change.registry, &name)?;
            let found = detail(tx, repo.id, &digest)?;
            manifest::set_attributes(tx, change, repo.id, &digest, patch.apply(found.info.attributes))?;
            let about = Subject { digest: Some(&digest), ..Subject::default() };
            event::append(tx, change, &name, EventKind::AttributesChanged, about)?;
            evict.push(Evict::Manifest(repo.id, digest));
            detail(tx, repo.id, &digest)
        })
        .await
    }
}

/// How many descriptors with annotations of these sizes go on one page: one at least, so
/// that the list goes on.
fn fitting(sizes: impl Iterator<Item = u64>) -> usize {
    let mut room = limits::MANIFEST_BYTES_MAX as u64;
    let fits = sizes.take_while(|bytes| {
        let fits = *bytes <= room;
        room = room.saturating_sub(*bytes);
        fits
    });
    fits.count().max(1)
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
    tags: &[Tag],
    new: &NewManifest,
    evict: &mut Vec<Evict>,
) -> Result<bool> {
    let repo = repo::ensure(tx, change, name)?;
    if !repo.attributes.write {
        return Err(disallowed(&format!("repository {name} is locked")));
    }
    let mut moves = Vec::with_capacity(tags.len());
    for tag in tags {
        let old = tag::find(tx, repo.id, tag)?;
        if old.as_ref().is_some_and(|old| !old.attributes.write) {
            return Err(disallowed(&format!("tag {tag} is locked")));
        }
        moves.push((tag, old.is_none_or(|old| old.digest != new.digest)));
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
    let about = |tag| Subject {
        tag,
        digest: Some(&new.digest),
        media_type: Some(&new.media_type),
        size: Some(new.bytes.len() as u64),
    };
    event::append(tx, change, name, EventKind::ManifestPushed, about(tags.first()))?;
    for (tag, moved) in moves {
        tag::put(tx, change, repo.id, tag, &new.digest)?;
        if moved {
            event::append(tx, change, name, EventKind::TagSet, about(Some(tag)))?;
        }
        evict.push(Evict::Tag(repo.id, tag.clone()));
    }
    if !repo.visible {
        evict.push(Evict::Repo(change.registry, name.clone()));
    }
    Ok(created)
}

/// Look what is under the reference of a push now: under its tag, or under the digest.
fn check_conditions(
    tx: &mut dyn Tx,
    change: &Change,
    name: &RepoName,
    tag: Option<&Tag>,
    digest: &Digest,
    conditions: &[PutCondition],
) -> Result<()> {
    if conditions.is_empty() {
        return Ok(());
    }
    let there = match (repo::find(tx, change.registry, name)?, tag) {
        (None, _) => None,
        (Some(repo), Some(tag)) => tag::find(tx, repo.id, tag)?.map(|found| found.digest),
        (Some(repo), None) => manifest::info(tx, repo.id, digest)?.map(|found| found.digest),
    };
    conditions.iter().try_for_each(|condition| condition.check(there.as_ref()))
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
    fn a_page_of_referrers_is_bounded_in_bytes() {
        const MAX: u64 = limits::MANIFEST_BYTES_MAX as u64;
        assert_eq!(fitting([1, 2, 3].into_iter()), 3);
        assert_eq!(fitting([MAX - 1, 1, 1].into_iter()), 2);
        assert_eq!(fitting([MAX + 1, 1].into_iter()), 1, "one at least");
        assert_eq!(fitting(std::iter::repeat_n(MAX / 4, 100)), 4);
    }

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
