//! Repositories: looking one up, its attributes, deleting it.

use std::sync::Arc;
use std::time::Duration;

use portolan_auth::access::{Action, Target};
use portolan_store::meta::event::{self, Change, EventKind, Subject};
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::repo::{self, After, Attributes, AttributesPatch, Order, Repo};
use portolan_store::meta::{Tx, manifest, tag};
use portolan_types::{Digest, RepoName, Tag, Timestamp};
use serde_json::json;

use crate::cache::{CachedRepo, Evict};
use crate::registries::Registry;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// A repository as people see it.
#[derive(Clone, Debug)]
pub struct RepoDetail {
    /// Its name.
    pub name: RepoName,
    /// Its locks.
    pub attributes: Attributes,
    /// When its first manifest came.
    pub created: Timestamp,
    /// When something in it last changed.
    pub updated: Timestamp,
    /// Manifests in it.
    pub manifests: u64,
    /// Tags in it.
    pub tags: u64,
}

/// What went with a repository.
#[derive(Clone, Debug, Default)]
pub struct DeletedRepo {
    /// Manifests.
    pub manifests: Vec<Digest>,
    /// Tags.
    pub tags: Vec<Tag>,
}

/// A page of a list to read.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// In what order.
    pub order: Order,
    /// Where the last page ended: [`Page::next`], or a name or digest.
    pub last: Option<String>,
    /// How many items, at most `limits::PAGE_ITEMS_MAX`. None of them with 0.
    pub limit: usize,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to give as [`ListQuery::last`] for the next page; `None` at the end.
    pub next: Option<String>,
}

impl ListQuery {
    /// The limit within bounds, and one more to see whether there is a next page.
    pub(crate) fn fetch(&self) -> usize {
        self.limit.min(portolan_types::limits::PAGE_ITEMS_MAX) + 1
    }

    /// Where to go on. In orders by time [`Page::next`] is `<microseconds>!<key>`; no key
    /// has a `!` in it, so a plain key, whose time is looked up, is taken as well.
    pub(crate) fn after(&self) -> Option<After<String>> {
        let last = self.last.as_deref().filter(|l| !l.is_empty())?;
        Some(match (self.order, last.split_once('!')) {
            (Order::TimeAsc | Order::TimeDesc, Some((time, key))) => {
                After { time: time.parse().ok().map(Timestamp), key: key.to_owned() }
            }
            _ => After { time: None, key: last.to_owned() },
        })
    }

    /// Cut what was fetched with [`ListQuery::fetch`] into a page.
    pub(crate) fn page<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> (Timestamp, String)) -> Page<T> {
        let limit = self.fetch() - 1;
        let more = items.len() > limit && limit > 0;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|item| match (self.order, key(item)) {
            (Order::Name, (_, key)) => key,
            (_, (time, key)) => format!("{}!{key}", time.0),
        });
        Page { items, next }
    }
}

/// 404: no such repository, or nothing in it.
pub(crate) fn name_unknown(name: &RepoName) -> Error {
    Error::new(Kind::NotFound, "NAME_UNKNOWN", format!("repository \"{name}\" is not found"))
        .with_detail(json!({ "name": name }))
}

/// 405, in ACR's words: a lock forbids it.
pub(crate) fn disallowed(what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        "REGISTRY_DISALLOWED_OPERATION",
        format!("The operation is disallowed on this registry, repository or image: {what}"),
    )
    .with_hint("see its locks with `acr repository show`, and unlock it with `acr repository update --write-enabled true --delete-enabled true`")
}

impl Service {
    /// A repository that has a manifest, from memory when it was asked for before. The
    /// caller has checked access.
    pub(crate) async fn lookup_repo(&self, registry: &Registry, name: &RepoName) -> Result<CachedRepo> {
        let key = (registry.id, name.clone());
        let (id, wanted) = key.clone();
        if self.is_shared() {
            let repo = self.meta.read(move |tx| visible(tx, id, &wanted)).await?;
            return Ok(CachedRepo { id: repo.id, attributes: repo.attributes });
        }
        if let Some(repo) = self.content.caches.repos.get(&key) {
            return Ok(repo);
        }
        self.content
            .caches
            .repos
            .get_or_insert_async(&key, async {
                let repo = self.meta.read(move |tx| visible(tx, id, &wanted)).await?;
                Ok(CachedRepo { id: repo.id, attributes: repo.attributes })
            })
            .await
    }

    /// A repository's attributes and counts.
    ///
    /// Errors: `NAME_UNKNOWN`.
    pub async fn repository(&self, ctx: &Ctx, registry: &Arc<Registry>, name: &RepoName) -> Result<RepoDetail> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::MetadataRead)?;
        let (id, name) = (registry.id, name.clone());
        self.meta.read(move |tx| detail(tx, id, &name)).await
    }

    /// Change a repository's locks.
    ///
    /// Errors: `NAME_UNKNOWN`.
    pub async fn update_repository(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        patch: AttributesPatch,
    ) -> Result<RepoDetail> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::MetadataWrite)?;
        let (change, name) = (self.change(ctx, registry), name.clone());
        self.commit_change(change, move |tx, change, evict| {
            let repo = visible(tx, change.registry, &name)?;
            repo::set_attributes(tx, change, repo.id, patch.apply(repo.attributes))?;
            event::append(tx, change, &name, EventKind::AttributesChanged, Subject::default())?;
            evict.push(Evict::Repo(change.registry, name.clone()));
            detail(tx, change.registry, &name)
        })
        .await
    }

    /// Delete a repository with everything in it.
    ///
    /// Errors: `NAME_UNKNOWN`; `REGISTRY_DISALLOWED_OPERATION` when the repository, or a
    /// manifest or tag in it, is locked.
    pub async fn delete_repository(&self, ctx: &Ctx, registry: &Arc<Registry>, name: &RepoName) -> Result<DeletedRepo> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Delete)?;
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.unlink);
        self.commit_change(change, move |tx, change, evict| {
            let repo = visible(tx, change.registry, &name)?;
            if !repo.attributes.deletable() {
                return Err(disallowed(&format!("repository {name} is locked")));
            }
            let mut deleted = DeletedRepo::default();
            for (digest, attributes) in manifest::all_digests(tx, repo.id)? {
                if !attributes.deletable() {
                    return Err(disallowed(&format!("manifest {digest} in it is locked")));
                }
                if let Some(locked) = tag::of_manifest(tx, repo.id, &digest)?.iter().find(|t| !t.attributes.deletable())
                {
                    return Err(disallowed(&format!("tag {} in it is locked", locked.name)));
                }
                let gone = remove_manifest(tx, change, &repo, &digest, grace, evict)?;
                deleted.manifests.push(digest);
                deleted.tags.extend(gone);
            }
            note_if_empty(tx, change, &repo, evict)?;
            deleted.tags.sort();
            Ok(deleted)
        })
        .await
    }
}

/// The repository of that name, if a manifest is in it.
pub(crate) fn visible(tx: &mut dyn Tx, registry: i64, name: &RepoName) -> Result<Repo> {
    repo::find(tx, registry, name)?.filter(|r| r.visible).ok_or_else(|| name_unknown(name))
}

fn detail(tx: &mut dyn Tx, registry: i64, name: &RepoName) -> Result<RepoDetail> {
    let repo = visible(tx, registry, name)?;
    let (manifests, tags) = repo::counts(tx, repo.id)?;
    Ok(RepoDetail {
        name: repo.name,
        attributes: repo.attributes,
        created: repo.created,
        updated: repo.updated,
        manifests,
        tags,
    })
}

/// Delete a manifest with its tags, log it and have its blobs reviewed after `grace`; the tags that went.
/// The caller has looked at the locks.
pub(crate) fn remove_manifest(
    tx: &mut dyn Tx,
    change: &Change,
    repo: &Repo,
    digest: &Digest,
    grace: Duration,
    evict: &mut Vec<Evict>,
) -> Result<Vec<Tag>> {
    let info = manifest::info(tx, repo.id, digest)?;
    let Some(gone) = manifest::delete(tx, repo.id, digest)? else { return Ok(Vec::new()) };
    for name in &gone.tags {
        let about = Subject { tag: Some(name), digest: Some(digest), ..Subject::default() };
        event::append(tx, change, &repo.name, EventKind::TagDeleted, about)?;
        evict.push(Evict::Tag(repo.id, name.clone()));
    }
    let about = Subject {
        tag: None,
        digest: Some(digest),
        media_type: info.as_ref().map(|i| i.media_type.as_str()),
        size: info.as_ref().map(|i| i.size),
    };
    event::append(tx, change, &repo.name, EventKind::ManifestDeleted, about)?;
    evict.push(Evict::Manifest(repo.id, *digest));
    for blob in gone.blobs {
        gc::enqueue(tx, Review::Link { repo: repo.id, digest: blob }, change.now.plus(grace))?;
    }
    Ok(gone.tags)
}

/// After a deletion: when the last manifest went, the repository went with it.
pub(crate) fn note_if_empty(tx: &mut dyn Tx, change: &Change, repo: &Repo, evict: &mut Vec<Evict>) -> Result<()> {
    if repo::find(tx, change.registry, &repo.name)?.is_some_and(|r| r.visible) {
        return Ok(repo::touch(tx, change, repo.id, false)?);
    }
    event::append(tx, change, &repo.name, EventKind::RepoDeleted, Subject::default())?;
    repo::remove_if_unused(tx, repo.id)?;
    evict.push(Evict::Repo(change.registry, repo.name.clone()));
    Ok(())
}
