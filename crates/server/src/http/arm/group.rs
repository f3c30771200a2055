//! `/subscriptions/{s}/resourcegroups[/{g}]`

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_service::activity::Event;
use portolan_service::groups::Group;
use portolan_service::{Ctx, Error, Kind};
use portolan_types::ResourceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::filter::{self, Op, Term};
use super::{Response, group_name, json_body, list_of, no_such_method, operation, resources, respond};
use crate::App;

#[derive(Debug, Deserialize)]
struct GroupBody {
    location: Option<String>,
    tags: Option<Map<String, Value>>,
}

/// `GET …/resourcegroups[?$filter=tagName eq 'x' and tagValue eq 'y'][&$top=n]`
pub(super) async fn list(app: &App, ctx: &Ctx, parts: &Parts) -> Result<Response, Error> {
    if parts.method != Method::GET {
        return Err(no_such_method(&parts.method));
    }
    let query = respond::query(&parts.uri);
    let wanted = ByTag::of(&filter::parse(respond::field(&query, "$filter").unwrap_or_default())?)?;
    let top = resources::top(&query)?;
    let groups = app.service.list_groups(ctx).await?;
    let shown = groups.iter().filter(|g| wanted.takes(g)).take(top).map(|g| to_wire(app, g));
    Ok(list_of(shown.collect()))
}

/// The filter that Azure has for groups.
#[derive(Debug, Default)]
struct ByTag {
    name: Option<String>,
    value: Option<String>,
}

impl ByTag {
    fn of(terms: &[Term]) -> Result<ByTag, Error> {
        let mut wanted = ByTag::default();
        for term in terms {
            match term {
                Term::Compare { field, op: Op::Eq, value } if field.eq_ignore_ascii_case("tagname") => {
                    wanted.name = Some(value.to_lowercase());
                }
                Term::Compare { field, op: Op::Eq, value } if field.eq_ignore_ascii_case("tagvalue") => {
                    wanted.value = Some(value.clone());
                }
                _ => {
                    return Err(Error::new(
                        Kind::Invalid,
                        "InvalidFilterInQueryString",
                        "Invalid $filter: resource groups are found by tagName and tagValue with `eq`, joined by `and`.",
                    ));
                }
            }
        }
        Ok(wanted)
    }

    fn takes(&self, group: &Group) -> bool {
        let named = |(name, _): &(&String, &String)| self.name.as_ref().is_none_or(|n| name.to_lowercase() == *n);
        let valued = |(_, value): &(&String, &String)| self.value.as_ref().is_none_or(|v| v == *value);
        (self.name.is_none() && self.value.is_none()) || group.tags.iter().any(|tag| named(&tag) && valued(&tag))
    }
}

/// One group: PUT, PATCH, GET, HEAD, DELETE.
pub(super) async fn one(
    app: &Arc<App>,
    base: &str,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    name: &str,
) -> Result<Response, Error> {
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
            let group = service.patch_group(ctx, &name, given.tags.as_ref()).await?;
            Ok(respond::json(StatusCode::OK, &to_wire(app, &group)))
        }
        Method::DELETE => {
            let told = parts.extensions.get::<Event>().cloned();
            let operation = service.begin_group_deletion(ctx, &name, told).await?;
            drop(operation::start(app, &operation));
            Ok(operation::accepted(app, base, &operation, false))
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
    value["properties"] = json!({"provisioningState": if group.going { "Deleting" } else { "Succeeded" }});
    value
}
