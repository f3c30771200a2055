//! The activity log: what a request is called in it, and
//! `/subscriptions/{s}/providers/Microsoft.Insights/eventtypes/management/values`.

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use portolan_auth::access::Principal;
use portolan_service::activity::{Detail, Event, Wanted};
use portolan_service::{Ctx, Error, Kind};
use portolan_types::{ResourceId, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::caller::peer;
use super::super::error::Note;
use super::path::Extension;
use super::{Response, filter, naming, no_such_method, no_such_type, respond};
use crate::App;

/// Characters of a path that the log keeps.
const URI_CHARS_MAX: usize = 1_024;
/// Characters of an error's sentence that the log keeps.
const MESSAGE_CHARS_MAX: usize = 1_024;
/// Characters of a client's own id for its request.
const CLIENT_ID_CHARS_MAX: usize = 64;

/// The log's side of one request.
pub(super) struct Told {
    event: Event,
}

impl Told {
    /// Note that a change is about to be tried; `None` for what changes nothing. On disk
    /// when this returns, if there will be something to undo it from.
    ///
    /// Errors: the store's. Then nothing may be changed.
    pub(super) async fn begin(app: &App, ctx: &Ctx, parts: &Parts) -> Result<Option<Told>, Error> {
        let Some((operation, resource)) = naming::of(&parts.method, parts.uri.path()) else { return Ok(None) };
        let (object_id, app_id) = match &ctx.principal {
            Principal::Directory { object_id, app_id } => (Some(*object_id), *app_id),
            _ => (None, None),
        };
        let event = Event {
            id: Uuid::new_v4(),
            at: ctx.now,
            correlation: correlation(&parts.headers).unwrap_or_else(|| ctx.request_id.clone()),
            caller: object_id.map_or_else(|| "unknown".to_owned(), |id| app.service.caller_name(id)),
            operation,
            status: "Started".to_owned(),
            resource,
            detail: Detail {
                object_id,
                app_id,
                client_ip: Some(peer(parts).to_string()),
                client_request_id: header(&parts.headers, "x-ms-client-request-id"),
                method: parts.method.as_str().to_owned(),
                uri: parts.uri.path().chars().take(URI_CHARS_MAX).collect(),
                http_status: None,
                code: None,
                message: None,
            },
        };
        // Another's subscription is told so, and nothing else.
        let ours = ResourceId::subscription(&app.service.subscription_id());
        if !event.resource.is_within(&ours) || !app.service.is_told(ctx, &event.resource) {
            return Ok(None);
        }
        // What a POST asks for is shown, renewed or scheduled in one transaction, or none.
        if parts.method != Method::POST {
            app.service.note_activity(event.clone()).await?;
        }
        Ok(Some(Told { event }))
    }

    /// The event for the end of what goes on after the answer.
    pub(super) fn event(&self) -> Event {
        self.event.clone()
    }

    /// Note how it ended. A log that cannot be written is said so in the server's own: what
    /// was done is done.
    pub(super) async fn end(self, app: &App, status: StatusCode, note: Option<Note>) {
        let mut event = self.event;
        event.id = Uuid::new_v4();
        event.at = Timestamp::now();
        match (status, note.as_ref()) {
            (StatusCode::ACCEPTED, _) => event.status = "Accepted".to_owned(),
            (s, _) if s.is_success() => event.ended(None),
            (_, note) => {
                let message: String =
                    note.map(|n| n.message.chars().take(MESSAGE_CHARS_MAX).collect()).unwrap_or_default();
                event.ended(Some((note.map_or("Failed", |n| n.code), &message)));
            }
        }
        event.detail.http_status = Some(status.as_u16());
        if let Err(error) = app.service.note_activity(event).await {
            tracing::error!(%error, cause = ?error.source, "write the activity log");
        }
    }
}

/// The client's id for all the requests that belong together, when it is harmless.
fn correlation(headers: &HeaderMap) -> Option<String> {
    header(headers, "x-ms-correlation-request-id")
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    let harmless = (1..=CLIENT_ID_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
    harmless.then(|| text.to_owned())
}

/// `…/eventtypes/management/values`, and the digest of it that some clients ask.
pub(super) async fn handle(app: &App, ctx: &Ctx, parts: &Parts, base: &str, on: &Extension) -> Result<Response, Error> {
    let service = &app.service;
    let words: Vec<String> = on.rest.iter().map(|w| w.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words != ["eventtypes", "management", "values"]
        || on.scope.key() != ResourceId::subscription(&service.subscription_id()).key()
    {
        return Err(no_such_type());
    }
    if parts.method != Method::GET {
        return Err(no_such_method(&parts.method));
    }
    let query = respond::query(&parts.uri);
    let text = respond::field(&query, "$filter").unwrap_or_default();
    let wanted = wanted(&filter::parse(text)?)?;
    let select = select(respond::field(&query, "$select").unwrap_or_default());
    let page = service.list_activity(ctx, &wanted, respond::field(&query, "$skipToken")).await?;
    let items: Vec<Value> = page.items.iter().map(|e| to_wire(app, e, &select)).collect();
    let mut body = json!({"value": items});
    if let Some(next) = page.next {
        let mut kept: Vec<(&str, &str)> =
            query.iter().map(|(k, v)| (k.as_str(), v.as_str())).filter(|(k, _)| *k != "$skipToken").collect();
        kept.push(("$skipToken", &next));
        let query = serde_urlencoded::to_string(kept).unwrap_or_default();
        body["nextLink"] = json!(format!("{base}{}?{query}", parts.uri.path()));
    }
    Ok(respond::json(StatusCode::OK, &body))
}

/// What Azure's `$filter` can ask for: a span of time and one of the fields.
fn wanted(terms: &[filter::Term]) -> Result<Wanted, Error> {
    let invalid = |why: &str| {
        Error::new(
            Kind::Invalid,
            "InvalidFilterInQueryString",
            format!(
                "Invalid $filter: {why}. Use eventTimestamp with `ge` and `le`, and resourceGroupName, resourceId, \
                 resourceUri, resourceProvider, correlationId, caller, status or operationName with `eq`, joined by `and`."
            ),
        )
    };
    let mut wanted = Wanted::default();
    for term in terms {
        let (field, op, value) = match term {
            filter::Term::Compare { field, op, value } => (field.to_ascii_lowercase(), *op, value),
            filter::Term::Call { .. } => return Err(invalid("it calls a function")),
        };
        if field == "eventtimestamp" {
            let at = time(value).ok_or_else(|| invalid("a time cannot be read"))?;
            match op {
                filter::Op::Ge | filter::Op::Gt => wanted.from = at,
                filter::Op::Le | filter::Op::Lt => wanted.to = at,
                _ => return Err(invalid("times are compared with `ge` and `le`")),
            }
            continue;
        }
        if op != filter::Op::Eq {
            return Err(invalid("texts are compared with `eq`"));
        }
        let value = value.clone();
        match field.as_str() {
            "resourcegroupname" | "resourcegroup" => wanted.group = Some(value),
            "resourceid" | "resourceuri" => wanted.resource = Some(ResourceId(value)),
            "resourceprovider" => wanted.provider = Some(value),
            "correlationid" => wanted.correlation = Some(value),
            "caller" => wanted.caller = Some(value),
            "status" => wanted.status = Some(value),
            "operationname" | "operations" => wanted.operation = Some(value),
            "eventchannels" | "levels" => {}
            _ => return Err(invalid("it has a field that is not known")),
        }
    }
    Ok(wanted)
}

/// A time as az writes it: with or without its zone (UTC), or a date alone.
fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    Timestamp::parse(text)
        .or_else(|| Timestamp::parse(&format!("{text}Z")))
        .or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
        .or_else(|| Timestamp::parse(&format!("{text}:00Z")))
}

/// The members asked for; all when there are none.
fn select(text: &str) -> Vec<String> {
    text.split(',').map(|w| w.trim().to_ascii_lowercase()).filter(|w| !w.is_empty()).collect()
}

/// An event as Azure shows it.
fn to_wire(app: &App, event: &Event, select: &[String]) -> Value {
    let said = |text: &str| json!({"value": text, "localizedValue": text});
    let detail = &event.detail;
    let mut claims = Map::new();
    if let Some(id) = detail.object_id {
        claims.insert("http://schemas.microsoft.com/identity/claims/objectidentifier".into(), json!(id));
    }
    if let Some(id) = detail.app_id {
        claims.insert("appid".into(), json!(id));
    }
    let mut properties = Map::new();
    if let Some(status) = detail.http_status {
        let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
        properties.insert("statusCode".into(), json!(reason.replace(' ', "")));
    }
    if let Some(code) = &detail.code {
        let message = json!({"error": {"code": code, "message": detail.message}});
        properties.insert("statusMessage".into(), json!(message.to_string()));
    }
    let ended = event.status != "Started";
    let sub_status = detail.http_status.filter(|_| ended).map(|s| s.to_string()).unwrap_or_default();
    let micros = event.at.rfc3339();
    let mut all = json!({
        "authorization": {"action": event.operation, "scope": event.resource},
        "caller": event.caller,
        "category": said("Administrative"),
        "channels": "Operation",
        "claims": claims,
        "correlationId": event.correlation,
        "description": "",
        "eventDataId": event.id,
        "eventName": said(if ended { "EndRequest" } else { "BeginRequest" }),
        "eventTimestamp": micros,
        "httpRequest": {
            "clientRequestId": detail.client_request_id,
            "clientIpAddress": detail.client_ip,
            "method": detail.method,
            "uri": detail.uri,
        },
        "id": format!("{}/events/{}/ticks/{}", event.resource, event.id, event.at.0),
        "level": if event.status == "Failed" { "Error" } else { "Informational" },
        "operationId": event.correlation,
        "operationName": said(&event.operation),
        "properties": properties,
        "resourceGroupName": event.group().unwrap_or_default(),
        "resourceId": event.resource,
        "resourceProviderName": said(event.provider()),
        "resourceType": said(event.operation.rsplit_once('/').map_or("", |(kind, _)| kind)),
        "status": said(&event.status),
        "subStatus": said(&sub_status),
        "submissionTimestamp": micros,
        "subscriptionId": app.service.subscription_id(),
        "tenantId": app.service.tenant_id(),
    });
    if !select.is_empty()
        && let Value::Object(members) = &mut all
    {
        members.retain(|name, _| select.contains(&name.to_ascii_lowercase()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_as_az_writes_them() {
        let expected = Timestamp::parse("2026-11-20T10:00:00Z");
        assert!(expected.is_some());
        for text in [
            "2026-11-20T10:00:00",
            "2026-11-20T10:00:00Z",
            "2026-11-20T10:00:00.000000",
            "2026-11-20T10:00:00+00:00",
            "2026-11-20T10:00",
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        assert_eq!(time("2026-11-20"), Timestamp::parse("2026-11-20T00:00:00Z"));
        for bad in ["", "yesterday", "2026-13-01", "2026"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn filters_are_those_of_azure() {
        let of = |text: &str| filter::parse(text).and_then(|terms| wanted(&terms));
        let w = of("eventTimestamp ge 2026-11-20T10:00:00.123456 and eventTimestamp le '2026-11-21T10:00:00Z' and resourceGroupName eq 'rg'").unwrap();
        assert_eq!(w.group.as_deref(), Some("rg"));
        assert!(w.from < w.to && w.from.0 > 0);
        for bad in [
            "eventTimestamp ge tomorrow",
            "eventTimestamp eq 2026-11-20",
            "caller ne 'x'",
            "colour eq 'x'",
            "startswith(caller, 'x')",
            "caller eq",
        ] {
            assert_eq!(of(bad).unwrap_err().code, "InvalidFilterInQueryString", "{bad}");
        }
    }
}
