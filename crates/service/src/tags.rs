//! Tags: listing, attributes, untagging.

use std::sync::Arc;

use portolan_auth::access::{Action, Target};
use portolan_store::meta::event::{self, EventKind, Subject};
use portolan_store::meta::repo::AttributesPatch;
use portolan_store::meta::tag::{self, TagInfo};
use portolan_store::meta::{Tx, repo};
use portolan_types::{Digest, RepoName, Tag};
use serde_json::json;

use crate::cache::Evict;
use crate::manifests::PutCondition;
use crate::registries::Registry;
use crate::repos::{ListQuery, Page, disallowed, visible};
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// 404: no such tag.
pub(crate) fn tag_unknown(name: &Tag) -> Error {
    Error::new(Kind::NotFound, "TAG_UNKNOWN", format!("the tag \"{name}\" does not exist"))
        .with_detail(json!({ "tag": name }))
}

impl Service {
    /// The names of a repository's tags, for those who may pull.
    ///
    /// Errors: `NAME_UNKNOWN`.
    pub async fn tag_names(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        query: &ListQuery,
    ) -> Result<Page<Tag>> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Pull)?;
        let page = self.list_tags(registry, name, None, query).await?;
        Ok(Page { items: page.items.into_iter().map(|t| t.name).collect(), next: page.next })
    }

    /// A repository's tags with their attributes, of one manifest when `digest` is given.
    ///
    /// Errors: `NAME_UNKNOWN`.
    pub async fn tags(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: Option<Digest>,
        query: &ListQuery,
    ) -> Result<Page<TagInfo>> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::MetadataRead)?;
        self.list_tags(registry, name, digest, query).await
    }

    async fn list_tags(
        &self,
        registry: &Registry,
        name: &RepoName,
        digest: Option<Digest>,
        query: &ListQuery,
    ) -> Result<Page<TagInfo>> {
        let (id, name) = (registry.id, name.clone());
        let (order, after, fetch) = (query.order, query.after(), query.fetch());
        let found = self
            .meta
            .read(move |tx| {
                let repo = visible(tx, id, &name)?;
                tag::list(tx, repo.id, digest.as_ref(), order, after, fetch).map_err(Error::from)
            })
            .await?;
        Ok(query.page(found, |t| (t.updated, t.name.to_string())))
    }

    /// A tag with its attributes.
    ///
    /// Errors: `NAME_UNKNOWN`, `TAG_UNKNOWN`.
    pub async fn tag(&self, ctx: &Ctx, registry: &Arc<Registry>, name: &RepoName, tag: &Tag) -> Result<TagInfo> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::MetadataRead)?;
        let (id, name, tag) = (registry.id, name.clone(), tag.clone());
        self.meta.read(move |tx| find(tx, id, &name, &tag).map(|(_, found)| found)).await
    }

    /// Change a tag's locks.
    ///
    /// Errors: `NAME_UNKNOWN`, `TAG_UNKNOWN`.
    pub async fn update_tag(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        tag: &Tag,
        patch: AttributesPatch,
    ) -> Result<TagInfo> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::MetadataWrite)?;
        let (change, name, tag) = (self.change(ctx, registry), name.clone(), tag.clone());
        self.commit_change(change, move |tx, change, evict| {
            let (repo, found) = find(tx, change.registry, &name, &tag)?;
            tag::set_attributes(tx, change, repo.id, &tag, patch.apply(found.attributes))?;
            let about = Subject { tag: Some(&tag), digest: Some(&found.digest), ..Subject::default() };
            event::append(tx, change, &name, EventKind::AttributesChanged, about)?;
            evict.push(Evict::Tag(repo.id, tag.clone()));
            find(tx, change.registry, &name, &tag).map(|(_, found)| found)
        })
        .await
    }

    /// Remove a tag and leave its manifest.
    ///
    /// Errors: `NAME_UNKNOWN`, `TAG_UNKNOWN`; `REGISTRY_DISALLOWED_OPERATION` when the tag
    /// or the repository is locked.
    pub async fn untag(&self, ctx: &Ctx, registry: &Arc<Registry>, name: &RepoName, tag: &Tag) -> Result<()> {
        self.untag_if(ctx, registry, name, tag, &[]).await
    }

    /// [`Service::untag`] under conditions on the manifest that the tag names.
    pub(crate) async fn untag_if(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        tag: &Tag,
        conditions: &[PutCondition],
    ) -> Result<()> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Delete)?;
        let (change, name, tag) = (self.change(ctx, registry), name.clone(), tag.clone());
        let conditions = conditions.to_vec();
        self.commit_change(change, move |tx, change, evict| {
            let (repo, found) = find(tx, change.registry, &name, &tag)?;
            conditions.iter().try_for_each(|condition| condition.check(Some(&found.digest)))?;
            if !repo.attributes.write || !found.attributes.deletable() {
                return Err(disallowed(&format!("tag {tag} is locked")));
            }
            tag::delete(tx, repo.id, &tag)?;
            let about = Subject { tag: Some(&tag), digest: Some(&found.digest), ..Subject::default() };
            event::append(tx, change, &name, EventKind::TagDeleted, about)?;
            repo::touch(tx, change, repo.id, false)?;
            evict.push(Evict::Tag(repo.id, tag.clone()));
            Ok(())
        })
        .await
    }
}

fn find(tx: &mut dyn Tx, registry: i64, name: &RepoName, tag: &Tag) -> Result<(repo::Repo, TagInfo)> {
    let repo = visible(tx, registry, name)?;
    let found = tag::find(tx, repo.id, tag)?.ok_or_else(|| tag_unknown(tag))?;
    Ok((repo, found))
}
