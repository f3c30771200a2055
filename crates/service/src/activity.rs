//! The activity log: who did what to the control plane, and how it ended.
//!
//! A change has two events at least: `Started` is on disk before anything is done, so that
//! nothing can be changed without a line, and `Succeeded` or `Failed` is before the answer
//! (with what goes on afterwards `Accepted` is, and the end comes with the end). All events
//! of one request share its correlation id. Old ones go, by age and by number.
//!
//! A reader is shown the events of the resources that it may read the log of.

use std::time::Duration;

use portolan_auth::access::{Action, ActionSet};
use portolan_store::meta;
use portolan_store::meta::Tx;
use portolan_store::meta::activity::{ActivityRow, Place};
use portolan_types::{ResourceId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::service::Service;
use crate::{Ctx, Error, Result};

/// Events of one page.
pub const PAGE_ITEMS_MAX: usize = 200;
/// Events looked at for one page.
const LOOK_ITEMS_MAX: usize = 5_000;
/// Events read in one query.
const STEP_ITEMS: usize = 500;
/// Events removed in one transaction, of each kind.
const PRUNE_ITEMS_MAX: usize = 2_000;
/// Transactions of one pruning.
const PRUNE_STEPS_MAX: usize = 500;

/// What opens a registry's content in the legacy mode, though it has the names of control-plane
/// operations.
const CONTENT: ActionSet = ActionSet::of(&[
    Action::RegistryPull,
    Action::RegistryPush,
    Action::RegistryArtifactDelete,
    Action::RegistryMetadataRead,
    Action::RegistryMetadataWrite,
    Action::QuarantineRead,
    Action::QuarantineWrite,
    Action::SignWrite,
]);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its own id.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// What all events of one request have in common.
    pub correlation: String,
    /// Who: an object id, or the name of a user.
    pub caller: String,
    /// `Microsoft.ContainerRegistry/registries/write`
    pub operation: String,
    /// `Started`, `Accepted`, `Succeeded` or `Failed`.
    pub status: String,
    /// What it was done to.
    pub resource: ResourceId,
    /// The rest.
    pub detail: Detail,
}

/// What of an event is only shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Detail {
    /// Object id of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_id: Option<Uuid>,
    /// Application id of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<Uuid>,
    /// The caller's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<String>,
    /// What the client calls the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_request_id: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path, without its query.
    pub uri: String,
    /// The HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The error's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The error's sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    /// Say how what it tells of has ended.
    pub fn ended(&mut self, error: Option<(&str, &str)>) {
        self.status = if error.is_none() { "Succeeded" } else { "Failed" }.to_owned();
        self.detail.code = error.map(|e| e.0.to_owned());
        self.detail.message = error.map(|e| e.1.to_owned());
        if error.is_none() {
            self.detail.http_status = Some(200);
        }
    }

    fn from_row(row: ActivityRow) -> Result<Event> {
        let damaged = |_| portolan_store::Error::Corrupt(format!("JSON of activity {}", row.seq));
        let (id, detail): (Uuid, Detail) = serde_json::from_str(&row.detail).map_err(damaged)?;
        let ActivityRow { at, correlation, caller, operation, status, resource, .. } = row;
        Ok(Event { id, at, correlation, caller, operation, status, resource, detail })
    }

    /// The group that the resource is in, if it is in one.
    pub fn group(&self) -> Option<&str> {
        let mut parts = self.resource.0.split('/').filter(|p| !p.is_empty());
        let group = parts.nth(2).filter(|p| p.eq_ignore_ascii_case("resourceGroups"))?;
        let _ = group;
        parts.next()
    }

    /// The provider whose operation it is: `Microsoft.ContainerRegistry`.
    pub fn provider(&self) -> &str {
        self.operation.split('/').next().unwrap_or_default()
    }
}

/// Which events are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// From then on.
    pub from: Timestamp,
    /// Up to then.
    pub to: Timestamp,
    /// In this group.
    pub group: Option<String>,
    /// Of this resource and what is in it.
    pub resource: Option<ResourceId>,
    /// Of this provider.
    pub provider: Option<String>,
    /// Of this request.
    pub correlation: Option<String>,
    /// By this caller.
    pub caller: Option<String>,
    /// With this status.
    pub status: Option<String>,
    /// Of this operation.
    pub operation: Option<String>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            from: Timestamp(0),
            to: Timestamp(i64::MAX),
            group: None,
            resource: None,
            provider: None,
            correlation: None,
            caller: None,
            status: None,
            operation: None,
        }
    }
}

impl Wanted {
    fn takes(&self, event: &Event) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(is));
        let app = event.detail.app_id.map(|id| id.to_string());
        let object = event.detail.object_id.map(|id| id.to_string());
        let by = |id: &Option<String>| id.as_deref().is_some_and(|id| same(&self.caller, id));
        same(&self.group, event.group().unwrap_or_default())
            && self.resource.as_ref().is_none_or(|scope| event.resource.is_within(scope))
            && same(&self.provider, event.provider())
            && same(&self.correlation, &event.correlation)
            && (same(&self.caller, &event.caller) || by(&app) || by(&object))
            && same(&self.status, &event.status)
            && same(&self.operation, &event.operation)
    }
}

/// Some events, and where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// The newest first.
    pub items: Vec<Event>,
    /// What to ask for the next page with; none at the end.
    pub next: Option<String>,
}

/// Write an event in the transaction of what it tells of.
pub(crate) fn append(tx: &mut dyn Tx, event: &Event) -> Result<()> {
    let detail = serde_json::to_string(&(event.id, &event.detail))
        .map_err(|e| Error::from(portolan_store::Error::Corrupt(format!("an event: {e}"))))?;
    let row = ActivityRow {
        seq: 0,
        at: event.at,
        correlation: event.correlation.clone(),
        caller: event.caller.clone(),
        operation: event.operation.clone(),
        status: event.status.clone(),
        resource: event.resource.clone(),
        detail,
    };
    Ok(meta::activity::append(tx, &row)?)
}

impl Service {
    /// Whether the log is told of what this caller does there: of those who may change
    /// anything. Who may not must not be able to push out of the log what others did; that they
    /// were refused is in the audit log.
    pub fn is_told(&self, ctx: &Ctx, scope: &ResourceId) -> bool {
        let allowed = self.allowed_at(ctx, scope).without(CONTENT).without(ActionSet::DATA);
        allowed.iter().any(|action| !action.operation().ends_with("/read"))
    }

    /// Write an event; it is on disk when this returns.
    pub async fn note_activity(&self, event: Event) -> Result<()> {
        self.meta.write(move |tx| append(tx, &event)).await
    }

    /// The name that the log gives a principal of the directory: a user's name, else the
    /// object id.
    pub fn caller_name(&self, object_id: Uuid) -> String {
        let snapshot = self.snapshot.load();
        let name = snapshot.principals.get(&object_id).and_then(|p| p.user_name.clone());
        name.unwrap_or_else(|| object_id.to_string())
    }

    /// The events that are wanted and that the caller may see. A page may be short, or empty,
    /// and have a next one.
    ///
    /// Errors: `InvalidSkipToken` for a `page` that is not what an earlier answer said.
    pub async fn list_activity(&self, ctx: &Ctx, wanted: &Wanted, page: Option<&str>) -> Result<Events> {
        self.signed_in(ctx)?;
        let mut before = page.map(parse_place).transpose()?;
        let mut items = Vec::new();
        let mut looked = 0;
        while looked < LOOK_ITEMS_MAX {
            let (from, to, at) = (wanted.from, wanted.to, before);
            let rows = self.meta.read(move |tx| meta::activity::list(tx, from, to, at, STEP_ITEMS)).await?;
            let last = rows.len() < STEP_ITEMS;
            for row in rows {
                looked += 1;
                before = Some(Place { at: row.at, seq: row.seq });
                let event = Event::from_row(row)?;
                if wanted.takes(&event) && self.check_control(ctx, &event.resource, Action::ActivityRead).is_ok() {
                    items.push(event);
                    if items.len() == PAGE_ITEMS_MAX {
                        return Ok(Events { items, next: before.map(place_text) });
                    }
                }
            }
            if last {
                return Ok(Events { items, next: None });
            }
        }
        Ok(Events { items, next: before.map(place_text) })
    }

    /// Remove events older than `age`, and those beyond the newest `keep`. How many went.
    pub async fn prune_activity(&self, now: Timestamp, age: Duration, keep: u64) -> Result<u64> {
        let oldest = Timestamp(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
        let mut gone = 0;
        for _ in 0..PRUNE_STEPS_MAX {
            let step = self.meta.write(move |tx| meta::activity::prune(tx, oldest, keep, PRUNE_ITEMS_MAX)).await?;
            gone += step;
            if step < PRUNE_ITEMS_MAX as u64 {
                break;
            }
        }
        Ok(gone)
    }
}

fn place_text(place: Place) -> String {
    format!("{}.{}", place.at.0, place.seq)
}

fn parse_place(text: &str) -> Result<Place> {
    let place = text
        .split_once('.')
        .and_then(|(at, seq)| Some(Place { at: Timestamp(at.parse().ok()?), seq: seq.parse().ok()? }));
    place.ok_or_else(|| {
        Error::new(crate::Kind::Invalid, "InvalidSkipToken", "The $skipToken is not one that this list has given.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let sub = Uuid::nil();
        Event {
            id: Uuid::nil(),
            at: Timestamp(5),
            correlation: "c".into(),
            caller: "alice@example.com".into(),
            operation: "Microsoft.ContainerRegistry/registries/write".into(),
            status: "Succeeded".into(),
            resource: ResourceId::registry(&sub, "RG", "myreg"),
            detail: Detail { app_id: Some(Uuid::max()), ..Detail::default() },
        }
    }

    #[test]
    fn events_are_found_by_what_az_asks_with() {
        let text = |t: &str| Some(t.to_owned());
        let all = Wanted::default();
        for wanted in [
            all.clone(),
            Wanted { group: text("rg"), ..all.clone() },
            Wanted { provider: text("microsoft.containerregistry"), ..all.clone() },
            Wanted { caller: text("ALICE@example.com"), ..all.clone() },
            Wanted { caller: text(&Uuid::max().to_string()), ..all.clone() },
            Wanted { resource: Some(ResourceId::group(&Uuid::nil(), "rg")), ..all.clone() },
            Wanted { status: text("succeeded"), correlation: text("C"), ..all.clone() },
        ] {
            assert!(wanted.takes(&event()), "{wanted:?}");
        }
        for wanted in [
            Wanted { group: text("r"), ..all.clone() },
            Wanted { provider: text("Microsoft.Authorization"), ..all.clone() },
            Wanted { caller: text("bob"), ..all.clone() },
            Wanted { resource: Some(ResourceId::group(&Uuid::nil(), "r")), ..all.clone() },
            Wanted { status: text("Failed"), ..all },
        ] {
            assert!(!wanted.takes(&event()), "{wanted:?}");
        }
    }

    #[test]
    fn a_place_is_read_back_and_nothing_else_is() {
        let place = Place { at: Timestamp(12), seq: 7 };
        assert_eq!(parse_place(&place_text(place)).unwrap(), place);
        for bad in ["", ".", "1", "a.b", "1.2.3", "99999999999999999999.1"] {
            assert!(parse_place(bad).is_err(), "{bad}");
        }
    }
}
