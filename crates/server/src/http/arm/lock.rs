//! `{scope}/providers/Microsoft.Authorization/locks[/{name}]`

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_service::locks::{Lock, Which};
use portolan_service::{Ctx, Error, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::path::Extension;
use super::{Response, json_body, list_of, no_such_method, no_such_type, respond};
use crate::App;

#[derive(Debug, Default, Deserialize)]
pub(super) struct LockBody {
    #[serde(default)]
    properties: LockProperties,
}

#[derive(Debug, Default, Deserialize)]
struct LockProperties {
    level: Option<String>,
    notes: Option<String>,
}

/// Answer what is about locks.
pub(super) async fn handle(app: &App, ctx: &Ctx, parts: &Parts, body: Body, on: &Extension) -> Result<Response, Error> {
    let (service, scope) = (&app.service, &on.scope);
    match (on.rest.as_slice(), &parts.method) {
        ([_], &Method::GET) => {
            let which = which(&parts.uri)?;
            Ok(list_of(service.list_locks(ctx, scope, which)?.iter().map(to_wire).collect()))
        }
        ([_, name], &Method::GET) => Ok(respond::json(StatusCode::OK, &to_wire(&service.show_lock(ctx, scope, name)?))),
        ([_, name], &Method::PUT) => {
            let LockBody { properties } = json_body(body).await?;
            let (lock, new) = service.put_lock(ctx, scope, name, properties.level.as_deref(), properties.notes).await?;
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &to_wire(&lock)))
        }
        ([_, name], &Method::DELETE) => {
            let existed = service.delete_lock(ctx, scope, name).await?;
            Ok(respond::empty(if existed { StatusCode::OK } else { StatusCode::NO_CONTENT }))
        }
        ([_] | [_, _], method) => Err(no_such_method(method)),
        _ => Err(no_such_type()),
    }
}

/// The one filter that Azure has here.
fn which(uri: &http::Uri) -> Result<Which, Error> {
    let query = respond::query(uri);
    match respond::field(&query, "$filter").map(str::trim).unwrap_or_default() {
        "" => Ok(Which::Within),
        filter if filter.eq_ignore_ascii_case("atScope()") => Ok(Which::Over),
        _ => Err(Error::new(
            Kind::Invalid,
            "InvalidFilterInQueryString",
            "Invalid $filter: the list of locks knows only atScope().",
        )),
    }
}

fn to_wire(lock: &Lock) -> Value {
    let mut properties = json!({"level": lock.level.as_str()});
    if let Some(notes) = &lock.notes {
        properties["notes"] = json!(notes);
    }
    json!({
        "id": lock.id(),
        "name": lock.name,
        "type": "Microsoft.Authorization/locks",
        "properties": properties,
        "systemData": {
            "createdAt": lock.created.rfc3339_arm(),
            "lastModifiedAt": lock.updated.rfc3339_arm(),
        },
    })
}
