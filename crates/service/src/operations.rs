//! What goes on after its request was answered: the removal of a group or of a registry.
//!
//! The request checks the caller's right and the locks, and writes down what is to be done;
//! that row is the promise. Whoever has the row's lease does the work: the server that took
//! the request at once, another (or the same one, started anew) when the lease has run out.
//! The work is done in steps, a registry in each, so that no transaction is longer than the
//! removal of one registry; each can be done again. The end of the work and the end of the
//! row are one transaction.
//!
//! While a group is going it can be seen (`provisioningState` is `Deleting`), and nothing can
//! be made in it. A step that fails since the store does is tried again later; one that is
//! refused ends the operation as `Failed`, with the reason.

use std::time::Duration;

use portolan_auth::access::{Action, Principal};
use portolan_store::meta;
use portolan_store::meta::Tx;
use portolan_store::meta::operation::{IN_PROGRESS, OperationRow};
use portolan_types::{GroupName, RegistryName, ResourceId, Timestamp};
use uuid::Uuid;

use crate::activity::{self, Event};
use crate::registries::{delete_with_contents, group_not_found};
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::{Ctx, Error, Kind, Result, locks};

const GROUP_DELETE: &str = "group.delete";
const REGISTRY_DELETE: &str = "registry.delete";
/// How long one step may take until somebody else begins it too.
const LEASE: Duration = Duration::from_secs(30);
/// How long the end of an operation can be asked for.
pub const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Operations under way at one time.
const UNDER_WAY_MAX: usize = 1_000;
/// Rows removed in one transaction.
const PRUNE_ITEMS_MAX: usize = 1_000;

/// How an operation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has not ended.
    InProgress,
    /// What was asked for is done.
    Succeeded,
    /// It was not, or not all of it.
    Failed {
        /// The error's code.
        code: String,
        /// Its sentence.
        message: String,
    },
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its id: hard to guess, since it is all that names it.
    pub id: Uuid,
    /// What it is done to.
    pub scope: ResourceId,
    /// How it stands.
    pub status: Status,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl From<OperationRow> for Operation {
    fn from(row: OperationRow) -> Operation {
        let status = match row.status.as_str() {
            IN_PROGRESS => Status::InProgress,
            "Succeeded" => Status::Succeeded,
            _ => Status::Failed {
                code: row.code.unwrap_or_else(|| "OperationFailed".to_owned()),
                message: row.message.unwrap_or_else(|| "The operation failed.".to_owned()),
            },
        };
        Operation { id: row.id, scope: row.scope, status, created: row.created, ended: row.ended }
    }
}

impl Service {
    /// Write down that a group is to be removed with all that is in it. `told` is the event
    /// that the activity log gets at its end. The operation is under way when another request
    /// has asked for the same before.
    ///
    /// Errors: `ResourceGroupNotFound`, `ScopeLocked`, `TooManyRequests`.
    pub async fn begin_group_deletion(&self, ctx: &Ctx, name: &GroupName, told: Option<Event>) -> Result<Operation> {
        let scope = ResourceId::group(&self.subscription_id(), name.as_str());
        self.check_control(ctx, &scope, Action::GroupDelete)?;
        let (name, row) = (name.clone(), new_row(ctx, GROUP_DELETE, &scope, told));
        let row = self
            .alter(move |tx| {
                let group = meta::group::get(tx, &name)?.ok_or_else(|| group_not_found(&name))?;
                locks::removable(tx, &row.scope)?;
                let name = group.name.as_str();
                let scope =
                    ResourceId(row.scope.0.rsplit_once('/').map_or(String::new(), |(b, _)| format!("{b}/{name}")));
                begin(tx, OperationRow { scope, ..row })
            })
            .await?;
        Ok(row.into())
    }

    /// Write down that a registry is to be removed with all that is in it; `None` when it is
    /// not there. See [`Service::begin_group_deletion`].
    ///
    /// Errors: `ScopeLocked`, `TooManyRequests`.
    pub async fn begin_registry_deletion(
        &self,
        ctx: &Ctx,
        group: &GroupName,
        name: &RegistryName,
        told: Option<Event>,
    ) -> Result<Option<Operation>> {
        let scope = ResourceId::registry(&self.subscription_id(), group.as_str(), name.as_str());
        self.check_control(ctx, &scope, Action::RegistryDelete)?;
        let (group, name, row) = (group.clone(), name.clone(), new_row(ctx, REGISTRY_DELETE, &scope, told));
        let row = self
            .alter(move |tx| match meta::registry::get(tx, &name)? {
                Some(registry) if registry.group.key() == group.key() => {
                    locks::removable(tx, &row.scope)?;
                    begin(tx, row).map(Some)
                }
                _ => Ok(None),
            })
            .await?;
        Ok(row.map(Operation::from))
    }

    /// Remove a group with every registry in it, and wait until that is done.
    ///
    /// Errors: as [`Service::begin_group_deletion`], and what the work fails with.
    pub async fn delete_group(&self, ctx: &Ctx, name: &GroupName) -> Result<()> {
        let operation = self.begin_group_deletion(ctx, name, None).await?;
        self.carry_out(operation.id).await
    }

    /// Remove a registry and all that is in it, and wait until that is done; whether it was
    /// there. Its name is free then; the space of its blobs comes back when the collector has
    /// looked at them.
    pub async fn delete_registry(&self, ctx: &Ctx, group: &GroupName, name: &RegistryName) -> Result<bool> {
        match self.begin_registry_deletion(ctx, group, name, None).await? {
            Some(operation) => self.carry_out(operation.id).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// How an operation stands. Whoever asked for it may know, and who may read what it is
    /// done to.
    pub async fn show_operation(&self, ctx: &Ctx, id: Uuid) -> Result<Operation> {
        self.signed_in(ctx)?;
        let row = self.meta.read(move |tx| meta::operation::get(tx, id)).await?;
        let unknown = || {
            Error::new(
                Kind::NotFound,
                "OperationNotFound",
                format!("The operation '{id}' is not known, or not any more."),
            )
        };
        let row = row.ok_or_else(unknown)?;
        if row.principal != caller(&ctx.principal) && self.check_control(ctx, &row.scope, Action::GroupRead).is_err() {
            return Err(unknown());
        }
        Ok(row.into())
    }

    /// Do what an operation says, to its end.
    ///
    /// Errors: what it fails with. When the store failed it goes on later.
    pub async fn carry_out(&self, id: Uuid) -> Result<()> {
        let until = Timestamp::now().plus(LEASE);
        let row = self
            .meta
            .write(move |tx| {
                meta::operation::renew(tx, id, until)?;
                meta::operation::get(tx, id)
            })
            .await?;
        match row {
            Some(row) if row.status == IN_PROGRESS => self.work(row).await,
            _ => Ok(()),
        }
    }

    /// Do what operations say that nobody has in hand. How many ended.
    pub async fn resume_operations(&self) -> Result<u64> {
        let mut ended = 0;
        for _ in 0..UNDER_WAY_MAX {
            let now = Timestamp::now();
            let found = self.meta.write(move |tx| meta::operation::lease(tx, now.plus(LEASE), now)).await?;
            let Some(row) = found else { break };
            let (id, scope) = (row.id, row.scope.clone());
            if let Err(error) = self.work(row).await {
                tracing::warn!(%id, %scope, %error, "an operation did not succeed");
            }
            ended += 1;
        }
        Ok(ended)
    }

    /// Take back what this server had in hand when it ended, at its start. Where servers share
    /// a database another may have it by now: there the leases say.
    pub async fn reclaim_operations(&self) -> Result<()> {
        if self.is_shared() {
            return Ok(());
        }
        Ok(self.meta.write(|tx| meta::operation::release_all(tx)).await?)
    }

    /// Forget operations that ended long ago.
    pub async fn prune_operations(&self, now: Timestamp) -> Result<u64> {
        let oldest = Timestamp(now.0.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX)));
        let prune = self.meta.write(move |tx| meta::operation::prune(tx, oldest, PRUNE_ITEMS_MAX));
        Ok(prune.await?)
    }

    async fn work(&self, row: OperationRow) -> Result<()> {
        let done = match row.kind.as_str() {
            GROUP_DELETE => self.remove_group(&row).await,
            REGISTRY_DELETE => self.remove_registry(&row).await,
            other => Err(Error::new(
                Kind::Unsupported,
                "OperationNotSupported",
                format!("This version does not know the operation '{}'.", other.escape_debug()),
            )),
        };
        match done {
            // The store's trouble, not the operation's: later.
            Err(e) if matches!(e.kind, Kind::Unavailable | Kind::Full | Kind::Internal) => Err(e),
            Err(e) => {
                let (id, now, code, message) = (row.id, Timestamp::now(), e.code, e.message.clone());
                self.alter(move |tx| {
                    if meta::operation::end(tx, id, "Failed", Some((code, &message)), now)? {
                        tell(tx, &row, Some((code, &message)), now)?;
                    }
                    Ok(())
                })
                .await?;
                Err(e)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Registry by registry, then the group, with the end of the operation.
    async fn remove_group(&self, row: &OperationRow) -> Result<()> {
        let (name, subscription) = (group_of(&row.scope)?, self.subscription_id());
        loop {
            let (name, row) = (name.clone(), row.clone());
            let more = self
                .alter(move |tx| {
                    let now = Timestamp::now();
                    if !is_under_way(tx, &row)? {
                        return Ok(false);
                    }
                    if let Some(registry) = meta::registry::list_group(tx, &name)?.into_iter().next() {
                        let scope = ResourceId::registry(&subscription, name.as_str(), registry.name.as_str());
                        delete_with_contents(tx, registry.id, &scope, now)?;
                        meta::operation::renew(tx, row.id, now.plus(LEASE))?;
                        return Ok(true);
                    }
                    crate::groups::delete_row(tx, &name, &row.scope)?;
                    succeed(tx, &row, now)?;
                    Ok(false)
                })
                .await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn remove_registry(&self, row: &OperationRow) -> Result<()> {
        let (name, row) = (last_part(&row.scope), row.clone());
        let name: RegistryName = name.parse().map_err(|_| damaged(&row))?;
        self.alter(move |tx| {
            let now = Timestamp::now();
            if is_under_way(tx, &row)? {
                if let Some(registry) = meta::registry::get(tx, &name)? {
                    delete_with_contents(tx, registry.id, &row.scope, now)?;
                }
                succeed(tx, &row, now)?;
            }
            Ok(())
        })
        .await
    }
}

/// Refuse what is to be made in a group or registry that is going.
///
/// Errors: `ResourceGroupBeingDeleted`, `ResourceBeingDeleted`.
pub(crate) fn not_going(tx: &mut dyn Tx, scope: &ResourceId) -> Result<()> {
    let parts: Vec<&str> = scope.0.split('/').filter(|p| !p.is_empty()).collect();
    let up_to = |n: usize| (parts.len() >= n).then(|| ResourceId(format!("/{}", parts[..n].join("/"))));
    if let Some(group) = up_to(4)
        && meta::operation::under_way(tx, GROUP_DELETE, &group)?.is_some()
    {
        return Err(Error::new(
            Kind::Conflict,
            "ResourceGroupBeingDeleted",
            format!(
                "The resource group '{}' is in deprovisioning state and cannot perform this operation.",
                parts[3].escape_debug()
            ),
        ));
    }
    if let Some(registry) = up_to(8)
        && meta::operation::under_way(tx, REGISTRY_DELETE, &registry)?.is_some()
    {
        return Err(Error::new(
            Kind::Conflict,
            "ResourceBeingDeleted",
            format!(
                "The resource '{}' is being deleted; no operation can be performed on it.",
                parts[7].escape_debug()
            ),
        ));
    }
    Ok(())
}

pub(crate) fn read_all(tx: &mut dyn Tx, snapshot: &mut Snapshot) -> Result<()> {
    let rows = meta::operation::all_under_way(tx, UNDER_WAY_MAX)?;
    snapshot.going = rows.into_iter().map(|row| row.scope.key()).collect();
    Ok(())
}

/// Who asked, as operations and the activity log name them.
pub(crate) fn caller(principal: &Principal) -> String {
    match principal {
        Principal::Directory { object_id, .. } => object_id.to_string(),
        Principal::AdminUser(name) => name.to_string(),
        Principal::Token { name, .. } => name.clone(),
        Principal::System => "system".to_owned(),
        Principal::Anonymous => "anonymous".to_owned(),
    }
}

fn new_row(ctx: &Ctx, kind: &str, scope: &ResourceId, told: Option<Event>) -> OperationRow {
    OperationRow {
        id: Uuid::new_v4(),
        kind: kind.to_owned(),
        scope: scope.clone(),
        principal: caller(&ctx.principal),
        detail: told.and_then(|event| serde_json::to_string(&event).ok()).unwrap_or_else(|| "null".to_owned()),
        status: IN_PROGRESS.to_owned(),
        code: None,
        message: None,
        created: ctx.now,
        ended: None,
    }
}

/// Write it down, or find the same that is under way.
fn begin(tx: &mut dyn Tx, row: OperationRow) -> Result<OperationRow> {
    if let Some(same) = meta::operation::under_way(tx, &row.kind, &row.scope)? {
        return Ok(same);
    }
    if meta::operation::all_under_way(tx, UNDER_WAY_MAX)?.len() >= UNDER_WAY_MAX {
        return Err(Error::new(
            Kind::TooMany { retry_after_secs: 30 },
            "TooManyRequests",
            format!("{UNDER_WAY_MAX} operations are under way; try again later."),
        ));
    }
    meta::operation::insert(tx, &row)?;
    Ok(row)
}

fn is_under_way(tx: &mut dyn Tx, row: &OperationRow) -> Result<bool> {
    Ok(meta::operation::get(tx, row.id)?.is_some_and(|r| r.status == IN_PROGRESS))
}

fn succeed(tx: &mut dyn Tx, row: &OperationRow, now: Timestamp) -> Result<()> {
    meta::operation::end(tx, row.id, "Succeeded", None, now)?;
    tell(tx, row, None, now)
}

/// The event of its end, in the transaction of its end.
fn tell(tx: &mut dyn Tx, row: &OperationRow, error: Option<(&str, &str)>, now: Timestamp) -> Result<()> {
    let Ok(Some(mut event)) = serde_json::from_str::<Option<Event>>(&row.detail) else { return Ok(()) };
    event.id = Uuid::new_v4();
    event.at = now;
    event.ended(error);
    activity::append(tx, &event)
}

fn group_of(scope: &ResourceId) -> Result<GroupName> {
    last_part(scope)
        .parse()
        .map_err(|_| Error::from(portolan_store::Error::Corrupt(format!("the operation's {scope}"))))
}

fn last_part(scope: &ResourceId) -> &str {
    scope.0.rsplit('/').next().unwrap_or_default()
}

fn damaged(row: &OperationRow) -> Error {
    portolan_store::Error::Corrupt(format!("the scope of operation {}", row.id)).into()
}
