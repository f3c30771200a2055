//! Who is meant: az lets people name applications, service principals and users in several
//! ways.

use std::collections::BTreeMap;

use portolan_api::graph::quoted;
use serde_json::Value;
use uuid::Uuid;

use crate::error::{Failure, Result};
use crate::session::Session;

/// An object's id and its kind in ARM's words.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Found {
    /// The object id.
    pub id: String,
    /// `User`, `ServicePrincipal` or `Group`.
    pub kind: Option<&'static str>,
}

fn id_of(object: &Value) -> String {
    object.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(super) fn is_guid(text: &str) -> bool {
    Uuid::try_parse(text).is_ok()
}

/// The kind of a directory object.
pub(in crate::commands) fn object_type(object: &Value) -> Option<&'static str> {
    match object.get("@odata.type").and_then(Value::as_str)? {
        "#microsoft.graph.user" => Some("User"),
        "#microsoft.graph.servicePrincipal" => Some("ServicePrincipal"),
        "#microsoft.graph.group" => Some("Group"),
        _ => None,
    }
}

/// An application's object id from its application id, object id or identifier URI.
pub(super) async fn application(session: &Session, identifier: &str) -> Result<String> {
    let by = if is_guid(identifier) {
        format!("appId eq {}", quoted(identifier))
    } else {
        format!("identifierUris/any(s:s eq {})", quoted(identifier))
    };
    match session.graph().list("applications", Some(&by), Some(1)).await?.first() {
        Some(found) => Ok(id_of(found)),
        // No application id, so perhaps an object id: whoever asks for it will see.
        None if is_guid(identifier) => Ok(identifier.to_owned()),
        None => Err(Failure::not_found(format!("Application with identifier URI '{identifier}' doesn't exist"))),
    }
}

/// A service principal's object id from any of its names or its object id.
pub(super) async fn service_principal(session: &Session, identifier: &str) -> Result<String> {
    let by = format!("servicePrincipalNames/any(c:c eq {})", quoted(identifier));
    match session.graph().list("servicePrincipals", Some(&by), Some(1)).await?.first() {
        Some(found) => Ok(id_of(found)),
        None if is_guid(identifier) => Ok(identifier.to_owned()),
        None => Err(Failure::not_found(format!("Service principal '{identifier}' doesn't exist"))),
    }
}

/// Whoever a role is to be given to: a user's sign-in name, a service principal's name, an
/// object id. Without the right to ask the directory, a GUID is taken for an object id.
pub(in crate::commands) async fn assignee(session: &Session, assignee: &str) -> Result<Found> {
    match look_up(session, assignee).await {
        Err(error) if error.status == Some(403) && is_guid(assignee) => {
            Ok(Found { id: assignee.to_owned(), kind: None })
        }
        answer => answer,
    }
}

async fn look_up(session: &Session, assignee: &str) -> Result<Found> {
    let graph = session.graph();
    if assignee.contains('@') {
        let by = format!("userPrincipalName eq {}", quoted(assignee));
        if let Some(user) = graph.list("users", Some(&by), Some(1)).await?.first() {
            return Ok(Found { id: id_of(user), kind: Some("User") });
        }
    }
    let by = format!("servicePrincipalNames/any(c:c eq {})", quoted(assignee));
    if let Some(principal) = graph.list("servicePrincipals", Some(&by), Some(1)).await?.first() {
        return Ok(Found { id: id_of(principal), kind: Some("ServicePrincipal") });
    }
    if is_guid(assignee)
        && let Some(object) = graph.by_ids(&[assignee.to_owned()]).await?.first()
    {
        return Ok(Found { id: id_of(object), kind: object_type(object) });
    }
    Err(Failure::new(format!(
        "Cannot find user or service principal in graph database for '{assignee}'. If the assignee is an appId, make sure the corresponding service principal is created with 'portolan ad sp create --id {assignee}'."
    )))
}

/// What people call these objects, by id.
pub(in crate::commands) async fn names_of(session: &Session, ids: &[String]) -> Result<BTreeMap<String, String>> {
    let objects = session.graph().by_ids(ids).await?;
    let text = |v: Option<&Value>| v.and_then(Value::as_str).map(str::to_owned);
    let name = |object: &Value| {
        text(object.get("userPrincipalName"))
            .or_else(|| text(object.pointer("/servicePrincipalNames/0")))
            .or_else(|| text(object.get("displayName")))
            .unwrap_or_default()
    };
    Ok(objects.iter().map(|o| (id_of(o), name(o))).collect())
}
