//! `portolan lock …`, and the same below `group` and `account`: what must not be changed or
//! deleted.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Context, signed_in};
use crate::error::{Failure, Result};
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan lock …`
#[derive(Debug, Args)]
pub struct LockArgs {
    #[command(subcommand)]
    command: LockCommand,
}

/// What is done with locks.
#[derive(Debug, Subcommand)]
pub(super) enum LockCommand {
    /// Create a lock.
    Create {
        /// Name of the lock.
        #[arg(short = 'n', long)]
        name: String,
        /// The type of lock restriction.
        #[arg(short = 't', long, value_enum, ignore_case = true)]
        lock_type: LockType,
        /// Notes about this lock.
        #[arg(long)]
        notes: Option<String>,
        #[command(flatten)]
        at: Place,
    },
    /// List locks.
    List {
        /// A filter, such as atScope().
        #[arg(long)]
        filter_string: Option<String>,
        #[command(flatten)]
        at: Place,
    },
    /// Show a lock.
    Show(Named),
    /// Change a lock.
    Update {
        #[command(flatten)]
        lock: Named,
        /// The type of lock restriction.
        #[arg(short = 't', long, value_enum, ignore_case = true)]
        lock_type: Option<LockType>,
        /// Notes about this lock.
        #[arg(long)]
        notes: Option<String>,
    },
    /// Delete a lock.
    Delete(Named),
}

/// A lock by name and place, or locks by id.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// Name of the lock.
    #[arg(short = 'n', long, required_unless_present = "ids")]
    name: Option<String>,
    /// Space-separated resource IDs of locks.
    #[arg(long, num_args = 1.., conflicts_with_all = ["name", "resource_group", "resource"])]
    ids: Vec<String>,
    #[command(flatten)]
    at: Place,
}

/// What is locked: the subscription, a group, a resource.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Name of the resource group.
    #[arg(short = 'g', long, value_name = "GROUP")]
    resource_group: Option<String>,
    /// Name or ID of the resource.
    #[arg(long, alias = "resource-name", value_name = "NAME|ID")]
    resource: Option<String>,
    /// The resource's type, such as Microsoft.ContainerRegistry/registries.
    #[arg(long, value_name = "TYPE")]
    resource_type: Option<String>,
    /// The provider's namespace, when the type does not name it.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The path of the resource's parent, when it has one.
    #[arg(long, value_name = "PATH")]
    parent: Option<String>,
}

/// How much is locked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LockType {
    /// It can be changed but not deleted.
    #[value(name = "CanNotDelete")]
    CanNotDelete,
    /// It can be neither changed nor deleted.
    #[value(name = "ReadOnly")]
    ReadOnly,
}

impl LockType {
    fn as_str(self) -> &'static str {
        match self {
            LockType::CanNotDelete => "CanNotDelete",
            LockType::ReadOnly => "ReadOnly",
        }
    }
}

impl Place {
    /// The scope's ARM id.
    fn scope(&self, subscription: &str) -> Result<String> {
        if let Some(resource) = self.resource.as_deref().filter(|r| r.starts_with('/')) {
            return Ok(resource.trim_end_matches('/').to_owned());
        }
        let Some(group) = &self.resource_group else {
            return match self.resource {
                None => Ok(subscription.to_owned()),
                Some(_) => Err(Failure::usage("--resource-group/-g is missing")),
            };
        };
        let group = format!("{subscription}/resourceGroups/{group}");
        let Some(name) = &self.resource else { return Ok(group) };
        let kind = self.resource_type.as_deref().ok_or_else(|| Failure::usage("--resource-type is missing"))?;
        let (namespace, kind) = match (&self.namespace, kind.split_once('/')) {
            (Some(namespace), _) => (namespace.as_str(), kind),
            (None, Some((namespace, kind))) => (namespace, kind),
            (None, None) => {
                return Err(Failure::usage("--namespace is missing, or write --resource-type NAMESPACE/TYPE"));
            }
        };
        let parent = self.parent.as_deref().map(|p| format!("{}/", p.trim_matches('/'))).unwrap_or_default();
        Ok(format!("{group}/providers/{namespace}/{parent}{kind}/{name}"))
    }
}

impl Named {
    fn ids(self, subscription: &str) -> Result<Vec<String>> {
        match self.name {
            Some(name) => Ok(vec![format!("{}/{name}", collection(&self.at.scope(subscription)?))]),
            None => Ok(self.ids),
        }
    }
}

fn collection(scope: &str) -> String {
    format!("{scope}/providers/Microsoft.Authorization/locks")
}

pub(super) async fn run(ctx: &Context, args: LockArgs) -> Result<Output> {
    signed_in(ctx, async |session: &Session| with(session, args.command).await).await
}

/// `portolan account lock …`: whatever the arguments say, the subscription is meant.
pub(super) async fn at_subscription(ctx: &Context, command: LockCommand) -> Result<Output> {
    signed_in(ctx, async |session: &Session| with(session, command).await).await
}

/// `portolan group lock …`: without a group there is nothing to lock.
pub(super) async fn at_group(ctx: &Context, command: LockCommand) -> Result<Output> {
    let (at, ids) = match &command {
        LockCommand::Create { at, .. } | LockCommand::List { at, .. } => (at, &[][..]),
        LockCommand::Show(lock) | LockCommand::Delete(lock) | LockCommand::Update { lock, .. } => {
            (&lock.at, &lock.ids[..])
        }
    };
    if at.resource_group.is_none() && ids.is_empty() {
        return Err(Failure::usage("--resource-group/-g is missing"));
    }
    signed_in(ctx, async |session: &Session| with(session, command).await).await
}

async fn with(session: &Session, command: LockCommand) -> Result<Output> {
    let arm = &session.arm;
    let subscription = arm.subscription_scope();
    Ok(match command {
        LockCommand::Create { name, lock_type, notes, at } => {
            let id = format!("{}/{name}", collection(&at.scope(&subscription)?));
            let mut properties = json!({"level": lock_type.as_str()});
            if let Some(notes) = notes {
                properties["notes"] = notes.into();
            }
            Output::value(shape::lock(arm.put_by_id(&id, &json!({"properties": properties})).await?))
        }
        LockCommand::List { filter_string, at } => {
            let locks = arm.all_of(&collection(&at.scope(&subscription)?), filter_string.as_deref()).await?;
            Output::value(shape::each(locks, shape::lock))
        }
        LockCommand::Show(lock) => {
            let mut shown = Vec::new();
            for id in lock.ids(&subscription)? {
                shown.push(shape::lock(arm.by_id(&id).await?));
            }
            Output::value(one_or_all(shown))
        }
        LockCommand::Update { lock, lock_type, notes } => {
            let mut updated = Vec::new();
            for id in lock.ids(&subscription)? {
                let mut now = arm.by_id(&id).await?;
                let mut properties = now.get_mut("properties").map(Value::take).unwrap_or_else(|| json!({}));
                if let Some(kind) = lock_type {
                    properties["level"] = kind.as_str().into();
                }
                if let Some(notes) = &notes {
                    properties["notes"] = notes.as_str().into();
                }
                updated.push(shape::lock(arm.put_by_id(&id, &json!({"properties": properties})).await?));
            }
            Output::value(one_or_all(updated))
        }
        LockCommand::Delete(lock) => {
            for id in lock.ids(&subscription)? {
                arm.delete_by_id(&id).await?;
            }
            Output::none()
        }
    })
}

fn one_or_all(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.remove(0) } else { Value::Array(values) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |group: Option<&str>, resource: Option<&str>, kind: Option<&str>| Place {
            resource_group: group.map(Into::into),
            resource: resource.map(Into::into),
            resource_type: kind.map(Into::into),
            namespace: None,
            parent: None,
        };
        let scope = |p: Place| p.scope("/subscriptions/s").map_err(|e| e.message);
        assert_eq!(scope(place(None, None, None)).unwrap(), "/subscriptions/s");
        assert_eq!(scope(place(Some("g"), None, None)).unwrap(), "/subscriptions/s/resourceGroups/g");
        assert_eq!(
            scope(place(Some("g"), Some("r"), Some("Microsoft.ContainerRegistry/registries"))).unwrap(),
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/r"
        );
        assert_eq!(scope(place(None, Some("/subscriptions/s/x/"), None)).unwrap(), "/subscriptions/s/x");
        assert!(scope(place(None, Some("r"), None)).is_err());
        assert!(scope(place(Some("g"), Some("r"), Some("registries"))).is_err());
    }
}
