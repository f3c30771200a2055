//! What registries and repositories hold, and how much more they may.
//!
//! The figures are the store's ([`usage`]): bytes of distinct blobs, right at every moment.
//! A push that would make a registry hold more than its tier allows is refused in the
//! transaction that would write it down.

use std::time::Duration;

use portolan_auth::access::Action;
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::usage;
pub use portolan_store::meta::usage::Figures;
use portolan_store::meta::{self, Tx, blob, repo};
use portolan_types::{Digest, GroupName, RegistryName, RepoName, Timestamp};

use crate::service::Service;
use crate::tiers::{Tier, check_storage};
use crate::{Ctx, Error, Registry, Result};

/// Repositories in one page of figures; one more may be asked for, to see whether there is one.
pub const PAGE_ITEMS_MAX: usize = 1_000;

/// One line of `show-usage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// `Size`, `Webhooks`, …
    pub name: &'static str,
    /// The most there may be; -1 for no limit.
    pub limit: i64,
    /// How much there is.
    pub current: i64,
    /// `Bytes` or `Count`.
    pub unit: &'static str,
}

impl Service {
    /// What a registry uses of what its tier includes, in ACR's order.
    pub async fn usages(&self, ctx: &Ctx, group: &GroupName, name: &RegistryName) -> Result<Vec<Usage>> {
        let registry = self.registry_in(ctx, group, name, Action::UsageRead)?;
        let id = registry.id;
        let (figures, maps, tokens) = self
            .meta
            .read(move |tx| {
                let figures = usage::of_registry(tx, id)?;
                Ok::<_, Error>((figures, meta::scope_map::count(tx, id)?, meta::repo_token::count(tx, id)?))
            })
            .await?;
        let tier = self.tier(&registry);
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let count =
            |name, limit, current| Usage { name, limit: signed(limit), current: signed(current), unit: "Count" };
        let size =
            Usage { name: "Size", limit: signed(tier.included_bytes), current: signed(figures.bytes), unit: "Bytes" };
        let replicas = Usage { name: "Geo-replications", limit: -1, current: 0, unit: "Count" };
        Ok(vec![
            size,
            count("Webhooks", tier.webhooks_max, 0),
            Usage { limit: if tier.replication { -1 } else { 0 }, ..replicas },
            count("IPRules", tier.ip_rules_max, registry.network.rules() as u64),
            count("VNetRules", 0, 0),
            count("PrivateEndpointConnections", tier.private_endpoints_max, 0),
            count("ScopeMaps", tier.scope_maps_max, maps),
            count("Tokens", tier.tokens_max, tokens),
        ])
    }

    /// What a registry holds, for handlers that have asked whether the caller may know.
    pub async fn storage_of(&self, registry: &Registry) -> Result<Figures> {
        let id = registry.id;
        self.meta.read(move |tx| usage::of_registry(tx, id).map_err(Error::from)).await
    }

    /// What the repositories of a registry hold, by name, after `after`; at most `limit`
    /// (see [`PAGE_ITEMS_MAX`]).
    pub async fn repo_usages(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &RegistryName,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(RepoName, Figures)>> {
        let registry = self.registry_in(ctx, group, name, Action::UsageRead)?;
        let (id, after, limit) = (registry.id, after.to_owned(), limit.clamp(1, PAGE_ITEMS_MAX + 1));
        self.meta.read(move |tx| usage::repos(tx, id, &after, limit).map_err(Error::from)).await
    }
}

/// Refuse an upload to a registry that is full already.
pub(crate) fn check_room(tx: &mut dyn Tx, tier: &Tier, registry: i64) -> Result<()> {
    check_storage(tier, usage::of_registry(tx, registry)?.bytes.saturating_add(1))
}

/// [`blob::link`] of content that has just come, unless the registry would then hold more
/// than its tier allows. What is refused leaves the content to the collector, in this
/// transaction: commit it, and tell the inner error.
pub(crate) fn link_within(
    tx: &mut dyn Tx,
    tier: &Tier,
    repo_id: i64,
    (digest, size): (&Digest, u64),
    now: Timestamp,
    grace: Duration,
) -> Result<Result<()>> {
    let Some(held) = blob::link(tx, repo_id, digest, size, now, grace)? else { return Ok(Ok(())) };
    let checked = check_storage(tier, held);
    if checked.is_err() {
        blob::unlink(tx, repo_id, digest)?;
        gc::enqueue(tx, Review::Blob(*digest), now)?;
        repo::remove_if_unused(tx, repo_id)?;
    }
    Ok(checked)
}
