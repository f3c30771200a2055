//! `/v1.0/applications[/…]`

use axum::body::Body;
use http::{Method, StatusCode};
use portolan_service::directory::{ApplicationInput, Holder, Owner};
use portolan_service::{Error, Kind};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::wire::{self, federated_input, no_passwords, take_keys};
use super::{Ask, bad_request, id, no_such, no_such_method, no_such_path, password, read_object, take_text};
use crate::http::{Response, respond};

/// Members that Graph sets itself; command lines send them back.
const READ_ONLY: &[&str] = &["id", "appId", "createdDateTime", "deletedDateTime", "publisherDomain", "addIns"];

pub(super) async fn handle(ask: &Ask<'_>, rest: &[String], body: Body) -> Result<Response, Error> {
    let Some((which, inside)) = rest.split_first() else { return all(ask, body).await };
    let id = find(ask, which).await?;
    let words: Vec<String> = inside.iter().map(|w| w.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => one(ask, id, body).await,
        ["addpassword"] => password::add(ask, Holder::Application, id, body).await,
        ["removepassword"] => password::remove(ask, Holder::Application, id, body).await,
        ["federatedidentitycredentials"] => credentials(ask, id, body).await,
        ["federatedidentitycredentials", _] => credential(ask, id, &inside[1], body).await,
        ["owners"] => ask.nothing(&Method::GET),
        ["owners", ..] => Err(bad_request("Applications have no owners here; roles say who may change them.")),
        _ => Err(no_such_path()),
    }
}

/// An application in a path: an object id, or `appId='…'`.
async fn find(ask: &Ask<'_>, which: &str) -> Result<Uuid, Error> {
    match app_id(which) {
        Some(app_id) => Ok(ask.app.service.application_by_app_id(ask.ctx, app_id?).await?.object_id),
        None => id(which),
    }
}

/// The id in `appId='…'`.
pub(super) fn app_id(which: &str) -> Option<Result<Uuid, Error>> {
    let (name, value) = which.split_once('=')?;
    name.trim().eq_ignore_ascii_case("appId").then(|| id(value.trim().trim_matches('\'')))
}

async fn all(ask: &Ask<'_>, body: Body) -> Result<Response, Error> {
    match *ask.method {
        Method::GET => {
            let (filter, page) = ask.list()?;
            let found = ask.app.service.applications(ask.ctx, filter, page).await?;
            Ok(ask.page("applications", found, wire::application))
        }
        Method::POST => {
            let input = input(read_object(body).await?)?;
            let made = ask.app.service.create_application(ask.ctx, input).await?;
            Ok(ask.object(StatusCode::CREATED, "applications", wire::application(&made)))
        }
        _ => Err(no_such_method(ask.method)),
    }
}

async fn one(ask: &Ask<'_>, id: Uuid, body: Body) -> Result<Response, Error> {
    match *ask.method {
        Method::GET => {
            let found = ask.app.service.application(ask.ctx, id).await?;
            Ok(ask.object(StatusCode::OK, "applications", wire::application(&found)))
        }
        Method::PATCH => {
            let input = input(read_object(body).await?)?;
            ask.app.service.update_application(ask.ctx, id, input).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        Method::DELETE => {
            ask.app.service.delete_application(ask.ctx, id).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(no_such_method(ask.method)),
    }
}

fn input(mut body: Map<String, Value>) -> Result<ApplicationInput, Error> {
    body.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
    no_passwords(&mut body)?;
    Ok(ApplicationInput {
        display_name: take_text(&mut body, "displayName")?,
        keys: take_keys(&mut body)?,
        properties: body,
    })
}

async fn credentials(ask: &Ask<'_>, id: Uuid, body: Body) -> Result<Response, Error> {
    let owner = Owner::Application(id);
    match *ask.method {
        Method::GET => {
            let found = ask.app.service.federated(ask.ctx, &owner).await?;
            let value: Vec<Value> = found.iter().map(wire::federated).collect();
            Ok(respond::json(StatusCode::OK, &json!({"value": value})))
        }
        Method::POST => {
            let (name, input) = federated_input(read_object(body).await?)?;
            let name = name.ok_or_else(|| bad_request("Property 'name' is required."))?;
            let (made, _) = ask.app.service.put_federated(ask.ctx, &owner, &name, input, false).await?;
            Ok(respond::json(StatusCode::CREATED, &wire::federated(&made)))
        }
        _ => Err(no_such_method(ask.method)),
    }
}

async fn credential(ask: &Ask<'_>, id: Uuid, which: &str, body: Body) -> Result<Response, Error> {
    let owner = Owner::Application(id);
    let service = &ask.app.service;
    // `(name='…')`
    let which = which.split_once('=').map_or(which, |(_, name)| name.trim_matches('\''));
    match *ask.method {
        Method::GET => {
            let found = service.one_federated(ask.ctx, &owner, which).await?;
            Ok(respond::json(StatusCode::OK, &wire::federated(&found)))
        }
        Method::PATCH => {
            let (_, input) = federated_input(read_object(body).await?)?;
            match service.patch_federated(ask.ctx, &owner, which, input.clone()).await {
                // Graph's upsert: a name that is not there is made.
                Err(e) if e.kind == Kind::NotFound && Uuid::try_parse(which).is_err() => {
                    let (made, _) = service.put_federated(ask.ctx, &owner, which, input, false).await?;
                    Ok(respond::json(StatusCode::CREATED, &wire::federated(&made)))
                }
                done => done.map(|()| respond::empty(StatusCode::NO_CONTENT)),
            }
        }
        Method::DELETE => match service.delete_federated(ask.ctx, &owner, which).await? {
            true => Ok(respond::empty(StatusCode::NO_CONTENT)),
            false => Err(no_such(which)),
        },
        _ => Err(no_such_method(ask.method)),
    }
}
