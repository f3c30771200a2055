//! `/subscriptions/{s}/resourcegroups[/{g}]`

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_service::groups::Group;
use portolan_service::{Ctx, Error, Kind};
use portolan_types::ResourceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Response, group_name, json_body, list_of, no_such_method, respond};
use crate::App;

#[derive(Debug, Deserialize)]
struct GroupBody {
    location: Option<String>,
    tags: Option<Map<String, Value>>,
}

/// `GET …/resourcegroups`
pub(super) async fn list(app: &App, ctx: &Ctx, method: &Method) -> Result<Response, Error> {
    if method != Method::GET {
        return Err(no_such_method(method));
    }
    let groups = app.service.list_groups(ctx).await?;
    Ok(list_of(groups.iter().map(|g| to_wire(app, g)).collect()))
}

/// One group: PUT, PATCH, GET, HEAD, DELETE.
pub(super) async fn one(app: &App, ctx: &Ctx, parts: &Parts, body: Body, name: &str) -> Result<Response, Error> {
    let name = group_name(name)?;
    let service = &app.service;
    match parts.method {
        Method::GET => Ok(respond::json(StatusCode::OK, &to_wire(app, &service.show_group(ctx, &name).await?))),
        // Whether it exists is all that HEAD asks: 204 or 404, without a body.
        Method::HEAD => match service.show_group(ctx, &name).await {
            Ok(_) => Ok(respond::empty(StatusCode::NO_CONTENT)),
            Err(e) if e.kind == Kind::NotFound => Ok(respond::empty(StatusCode::NOT_FOUND)),
            Err(e) => Err(e),
        },
        Method::PUT => {
            let given: GroupBody = json_body(body).await?;
            let (group, created) =
                service.put_group(ctx, &name, given.location.as_deref(), given.tags.as_ref()).await?;
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &to_wire(app, &group)))
        }
        Method::PATCH => {
            let given: GroupBody = json_body(body).await?;
            let group = service.show_group(ctx, &name).await?;
            let (group, _) = service.put_group(ctx, &name, Some(&group.location), given.tags.as_ref()).await?;
            Ok(respond::json(StatusCode::OK, &to_wire(app, &group)))
        }
        Method::DELETE => {
            service.delete_group(ctx, &name).await?;
            Ok(respond::empty(StatusCode::OK))
        }
        _ => Err(no_such_method(&parts.method)),
    }
}

fn to_wire(app: &App, group: &Group) -> Value {
    let mut value = json!({
        "id": ResourceId::group(&app.service.subscription_id(), group.name.as_str()),
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
    });
    if !group.tags.is_empty() {
        value["tags"] = json!(group.tags);
    }
    value["properties"] = json!({"provisioningState": "Succeeded"});
    value
}
