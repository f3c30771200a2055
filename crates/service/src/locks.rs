//! Management locks: what may not be changed, or not be removed, whoever asks.
//!
//! A lock is on a subscription, a group or a resource, and holds for all below it. It stands
//! behind the access decision: somebody who may do a thing is still refused while a lock is
//! over it, an owner too, and takes the lock away first if they may. It says nothing of a
//! registry's content: pushes and deletions of images are for their own locks
//! (`changeableAttributes`).
//!
//! Locks are in the snapshot, and every decision about a control-plane operation asks for
//! them there ([`Service::unlocked`], from `Service::check` and `Service::check_control`), so
//! that no handler can forget to. What removes a registry or a group asks again in the
//! transaction that removes it: a lock that was acknowledged by any server holds at once.

use portolan_auth::access::Action;
use portolan_store::meta;
use portolan_store::meta::Tx;
use portolan_store::meta::lock::LockRow;
use portolan_types::{ResourceId, Timestamp};

use crate::directory::identity_id;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::{Ctx, Error, Kind, Result};

/// Locks of one scope (Azure's number).
const SCOPE_LOCKS_MAX: usize = 20;
/// Locks in all: they are in memory.
const LOCKS_MAX: u64 = 10_000;
/// Characters of a name (Azure's number).
const NAME_CHARS_MAX: usize = 260;
/// Characters of the notes (Azure's number).
const NOTES_CHARS_MAX: usize = 512;

/// What a lock forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// To remove what is locked.
    CanNotDelete,
    /// To change or remove it, and every POST on it.
    ReadOnly,
}

impl Level {
    /// Azure's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::CanNotDelete => "CanNotDelete",
            Level::ReadOnly => "ReadOnly",
        }
    }
}

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What it is on.
    pub scope: ResourceId,
    /// Its name.
    pub name: String,
    /// What it forbids.
    pub level: Level,
    /// Why, for people.
    pub notes: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// [`ResourceId::key`] of the scope.
    pub(crate) scope_key: String,
}

impl Lock {
    pub(crate) fn from_row(row: LockRow) -> Result<Lock> {
        let level = level(&row.level)
            .ok_or_else(|| portolan_store::Error::Corrupt(format!("the level of lock {}", row.name.escape_debug())))?;
        Ok(Lock {
            scope_key: row.scope.key(),
            scope: row.scope,
            name: row.name,
            level,
            notes: row.notes,
            created: row.created,
            updated: row.updated,
        })
    }

    /// Its ARM id.
    pub fn id(&self) -> ResourceId {
        ResourceId(format!("{}/providers/Microsoft.Authorization/locks/{}", self.scope, self.name))
    }
}

/// Which locks a list is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those at the scope and below it: what `az lock list` means.
    Within,
    /// Those that hold at the scope: its own and those above (`$filter=atScope()`).
    Over,
}

/// What an operation does, as locks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Change,
    Removal,
}

/// What a control-plane action does; `None` for what no lock forbids: reading, everything on
/// a registry's content, the directory (which is beside the subscription, not in it), and the
/// work on locks themselves.
fn doing(action: Action) -> Option<Doing> {
    let beside = matches!(action, Action::LockWrite | Action::LockDelete | Action::PrincipalWrite);
    if action.is_data() || beside {
        return None;
    }
    let operation = action.operation();
    match operation.rsplit('/').next() {
        Some("write" | "action") => Some(Doing::Change),
        Some("delete") => Some(Doing::Removal),
        _ => None,
    }
}

impl Doing {
    fn word(self) -> &'static str {
        match self {
            Doing::Change => "write",
            Doing::Removal => "delete",
        }
    }

    fn is_forbidden_by(self, level: Level) -> bool {
        self == Doing::Removal || level == Level::ReadOnly
    }
}

impl Service {
    /// Whether no lock forbids `action` at the scope.
    ///
    /// Errors: `ScopeLocked`.
    pub(crate) fn unlocked(&self, scope: &ResourceId, action: Action) -> Result<()> {
        let Some(doing) = doing(action) else { return Ok(()) };
        let snapshot = self.snapshot.load();
        if snapshot.locks.is_empty() {
            return Ok(());
        }
        let key = scope.key();
        let held = snapshot.locks.iter().filter(|l| within(&key, &l.scope_key) && doing.is_forbidden_by(l.level));
        refuse(scope, doing, held)
    }

    /// Show a lock.
    pub fn show_lock(&self, ctx: &Ctx, scope: &ResourceId, name: &str) -> Result<Lock> {
        self.check_control(ctx, scope, Action::LockRead)?;
        let (key, name_key) = (scope.key(), name.to_lowercase());
        let snapshot = self.snapshot.load();
        let found = snapshot.locks.iter().find(|l| l.scope_key == key && l.name.to_lowercase() == name_key);
        found.cloned().ok_or_else(|| not_found(name))
    }

    /// The locks that the caller may see, by scope and name.
    pub fn list_locks(&self, ctx: &Ctx, scope: &ResourceId, which: Which) -> Result<Vec<Lock>> {
        self.check_control(ctx, scope, Action::LockRead)?;
        let key = scope.key();
        let shown = |l: &&Lock| match which {
            Which::Within => within(&l.scope_key, &key),
            Which::Over => within(&key, &l.scope_key),
        };
        Ok(self.snapshot.load().locks.iter().filter(shown).cloned().collect())
    }

    /// Lock a subscription, a group or a resource, or change a lock. Whether it is new.
    ///
    /// Errors: `InvalidLockName`, `InvalidLockLevel`, `InvalidLockNotes`; `TooManyLocks`;
    /// `ResourceNotFound` or `ResourceGroupNotFound` for what is not there;
    /// `LockScopeNotSupported` for a part of a resource.
    pub async fn put_lock(
        &self,
        ctx: &Ctx,
        scope: &ResourceId,
        name: &str,
        wanted: Option<&str>,
        notes: Option<String>,
    ) -> Result<(Lock, bool)> {
        self.check_control(ctx, scope, Action::LockWrite)?;
        check_name(name)?;
        let level = wanted.and_then(level).ok_or_else(|| {
            let given = wanted.unwrap_or_default().escape_debug().to_string();
            Error::new(
                Kind::Invalid,
                "InvalidLockLevel",
                format!("The lock level '{given}' is not valid. Use CanNotDelete or ReadOnly."),
            )
        })?;
        let notes = notes.filter(|n| !n.is_empty());
        if notes.as_ref().is_some_and(|n| n.chars().count() > NOTES_CHARS_MAX || n.contains('\0')) {
            return Err(Error::new(
                Kind::Invalid,
                "InvalidLockNotes",
                format!("The notes of a lock may have at most {NOTES_CHARS_MAX} characters."),
            ));
        }
        let scope = self.lockable(scope).await?;
        let (name, now) = (name.to_owned(), ctx.now);
        let (row, created) = self
            .alter(move |tx| {
                let row = LockRow { scope, name, level: level.as_str().to_owned(), notes, created: now, updated: now };
                let before = meta::lock::get(tx, &row.scope, &row.name)?;
                let key = row.scope.key();
                if before.is_none() {
                    let all = meta::lock::list(tx)?;
                    let here = all.iter().filter(|l| l.scope.key() == key).count();
                    if here >= SCOPE_LOCKS_MAX || all.len() as u64 >= LOCKS_MAX {
                        return Err(Error::new(
                            Kind::Conflict,
                            "TooManyLocks",
                            format!(
                                "There may be at most {SCOPE_LOCKS_MAX} locks at one scope and {LOCKS_MAX} in all."
                            ),
                        ));
                    }
                }
                crate::operations::not_going(tx, &row.scope)?;
                let created = meta::lock::put(tx, &row)?;
                let row = meta::lock::get(tx, &row.scope, &row.name)?.ok_or_else(|| not_found(&row.name))?;
                Ok((row, created))
            })
            .await?;
        Ok((Lock::from_row(row)?, created))
    }

    /// Take a lock away; whether it was there.
    pub async fn delete_lock(&self, ctx: &Ctx, scope: &ResourceId, name: &str) -> Result<bool> {
        self.check_control(ctx, scope, Action::LockDelete)?;
        let (scope, name) = (scope.clone(), name.to_owned());
        self.alter(move |tx| Ok(meta::lock::delete(tx, &scope, &name)?)).await
    }

    /// The id of a managed identity as it was given when it was made.
    async fn identity_id(&self, group: &str, name: &str) -> Result<Option<ResourceId>> {
        let (group, name) = (group.parse().map_err(|_| crate::groups::invalid_name(group))?, name.to_owned());
        let row = self.meta.read(move |tx| meta::managed_identity::get(tx, &group, &name)).await?;
        let id = |row: meta::managed_identity::IdentityRow| {
            identity_id(&self.subscription_id(), row.group.as_str(), &row.name)
        };
        Ok(row.map(id))
    }

    /// The id of what is to be locked as it was given when it was made, if it is there.
    async fn lockable(&self, scope: &ResourceId) -> Result<ResourceId> {
        let key = scope.key();
        let subscription = ResourceId::subscription(&self.subscription_id());
        if key == subscription.key() {
            return Ok(subscription);
        }
        let parts: Vec<&str> = scope.0.split('/').filter(|p| !p.is_empty()).collect();
        match parts.as_slice() {
            [_, _, _, group] => {
                let name = group.parse().map_err(|_| crate::groups::invalid_name(group))?;
                let row = self.meta.read(move |tx| {
                    meta::group::get(tx, &name)?.ok_or_else(|| crate::registries::group_not_found(&name))
                });
                Ok(ResourceId::group(&self.subscription_id(), row.await?.name.as_str()))
            }
            [_, _, _, group, _, _, kind, name] if kind.eq_ignore_ascii_case("registries") => {
                let found = self.snapshot.load().registry(&name.to_ascii_lowercase()).cloned();
                let found = found.filter(|r| r.scope == key);
                found.map(|r| r.resource_id.clone()).ok_or_else(|| resource_not_found(group, &parts[5..]))
            }
            [_, _, _, group, _, _, kind, name] if kind.eq_ignore_ascii_case("userAssignedIdentities") => {
                let there = self.identity_id(group, name).await?;
                there.filter(|id| id.key() == key).ok_or_else(|| resource_not_found(group, &parts[5..]))
            }
            [_, _, _, group, _, _, _, _] => Err(resource_not_found(group, &parts[5..])),
            _ => Err(Error::new(
                Kind::Invalid,
                "LockScopeNotSupported",
                "A subscription, a resource group or a whole resource can be locked, not a part of a resource.",
            )
            .with_hint("lock the registry; tags and manifests have locks of their own (`az acr repository update`)")),
        }
    }
}

/// Whether no lock forbids the removal of `scope`: none over it, none within.
///
/// Errors: `ScopeLocked`.
pub(crate) fn removable(tx: &mut dyn Tx, scope: &ResourceId) -> Result<()> {
    let key = scope.key();
    let locks = meta::lock::list(tx)?.into_iter().map(Lock::from_row).collect::<Result<Vec<_>>>()?;
    refuse(scope, Doing::Removal, locks.iter().filter(|l| within(&key, &l.scope_key) || within(&l.scope_key, &key)))
}

/// Refuse what these locks forbid; fine when there are none.
fn refuse<'a>(scope: &ResourceId, doing: Doing, held: impl Iterator<Item = &'a Lock>) -> Result<()> {
    let mut scopes: Vec<&str> = held.map(|l| l.scope.0.as_str()).collect();
    if scopes.is_empty() {
        return Ok(());
    }
    scopes.dedup();
    let word = doing.word();
    Err(Error::new(
        Kind::Conflict,
        "ScopeLocked",
        format!(
            "The scope '{scope}' cannot perform {word} operation because following scope(s) are locked: '{}'. \
             Please remove the lock and try again.",
            scopes.join(",")
        ),
    ))
}

pub(crate) fn read_all(tx: &mut dyn Tx, snapshot: &mut Snapshot) -> Result<()> {
    snapshot.locks = meta::lock::list(tx)?.into_iter().map(Lock::from_row).collect::<Result<_>>()?;
    Ok(())
}

/// In any case, as az takes them.
fn level(text: &str) -> Option<Level> {
    [Level::CanNotDelete, Level::ReadOnly].into_iter().find(|l| l.as_str().eq_ignore_ascii_case(text))
}

/// Whether `scope` is `outer` or lies below it; both in key form.
fn within(scope: &str, outer: &str) -> bool {
    scope.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_name(name: &str) -> Result<()> {
    let fine = (1..=NAME_CHARS_MAX).contains(&name.chars().count())
        && !name.chars().any(|c| c.is_control() || "<>%&:\\?/".contains(c));
    if fine {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        "InvalidLockName",
        format!(
            "A lock's name has 1 to {NAME_CHARS_MAX} characters, none of them < > % & : \\ ? / or a control character."
        ),
    ))
}

fn not_found(name: &str) -> Error {
    Error::new(Kind::NotFound, "LockNotFound", format!("The lock '{}' could not be found.", name.escape_debug()))
}

fn resource_not_found(group: &str, rest: &[&str]) -> Error {
    let what = rest.join("/");
    Error::new(
        Kind::NotFound,
        "ResourceNotFound",
        format!(
            "The Resource '{}' under resource group '{}' was not found.",
            what.escape_debug(),
            group.escape_debug()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_forbids_what_its_level_says_and_nothing_else() {
        for (action, can_not_delete, read_only) in [
            (Action::RegistryRead, false, false),
            (Action::Pull, false, false),
            (Action::Push, false, false),
            (Action::Delete, false, false),
            (Action::LockWrite, false, false),
            (Action::LockDelete, false, false),
            (Action::PrincipalWrite, false, false),
            (Action::RegistryWrite, false, true),
            (Action::ListCredentials, false, true),
            (Action::RegistryDelete, true, true),
            (Action::RoleAssignmentDelete, true, true),
        ] {
            let forbidden = |level| doing(action).is_some_and(|d| d.is_forbidden_by(level));
            assert_eq!(
                (forbidden(Level::CanNotDelete), forbidden(Level::ReadOnly)),
                (can_not_delete, read_only),
                "{action:?}"
            );
        }
    }

    #[test]
    fn scopes_nest_by_whole_parts() {
        assert!(within("/subscriptions/s/resourcegroups/g", "/subscriptions/s"));
        assert!(!within("/subscriptions/s/resourcegroups/g2", "/subscriptions/s/resourcegroups/g"));
    }

    #[test]
    fn names_that_could_not_stand_in_an_id_are_refused() {
        for bad in ["", "a/b", "a\\b", "a?b", "a%b", "a:b", "<a>", "a&b", "a\u{1}b", &"a".repeat(261)] {
            assert_eq!(check_name(bad).unwrap_err().code, "InvalidLockName", "{bad:?}");
        }
        assert!(check_name("Do not delete (prod)").is_ok());
    }
}
