//! The list of repositories.

use std::sync::Arc;

use portolan_auth::access::{Action, Target};
use portolan_store::meta::repo;
use portolan_types::RepoName;

use crate::registries::Registry;
use crate::repos::{ListQuery, Page};
use crate::service::Service;
use crate::{Ctx, Error, Result};

impl Service {
    /// The registry's repositories that have a manifest and are not hidden from lists.
    pub async fn catalog(&self, ctx: &Ctx, registry: &Arc<Registry>, query: &ListQuery) -> Result<Page<RepoName>> {
        self.check(ctx, registry, &Target::Registry, Action::CatalogList)?;
        let (id, order, after, fetch) = (registry.id, query.order, query.after(), query.fetch());
        let found = self.meta.read(move |tx| repo::list(tx, id, order, after, fetch).map_err(Error::from)).await?;
        let page = query.page(found, |r| (r.updated, r.name.to_string()));
        Ok(Page { items: page.items.into_iter().map(|r| r.name).collect(), next: page.next })
    }
}
