//! `/v1.0/users[/…]` and `/v1.0/me`

use axum::body::Body;
use http::{Method, StatusCode};
use portolan_service::Error;
use portolan_service::directory::UserInput;
use portolan_types::Secret;
use serde_json::{Map, Value, json};

use super::{Ask, bad_request, no_such_method, no_such_path, post_only, read_object, take_switch, take_text, wire};
use crate::http::{Response, respond};

/// Members that Graph sets itself; command lines send them back.
const READ_ONLY: &[&str] = &["id", "createdDateTime", "deletedDateTime"];

pub(super) async fn handle(ask: &Ask<'_>, rest: &[String], body: Body) -> Result<Response, Error> {
    let Some((who, inside)) = rest.split_first() else { return all(ask, body).await };
    let words: Vec<String> = inside.iter().map(|w| w.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => one(ask, who, body).await,
        ["getmembergroups" | "checkmembergroups" | "getmemberobjects" | "checkmemberobjects"] => {
            ask.nothing(&Method::POST)
        }
        ["memberof" | "transitivememberof" | "ownedobjects"] => ask.nothing(&Method::GET),
        ["revokesigninsessions" | "microsoft.graph.revokesigninsessions"] => {
            post_only(ask)?;
            ask.app.service.revoke_sessions(ask.ctx, who).await?;
            Ok(respond::json(StatusCode::OK, &json!({"value": true})))
        }
        _ => Err(no_such_path()),
    }
}

/// `GET /me`
pub(super) async fn me(ask: &Ask<'_>) -> Result<Response, Error> {
    match *ask.method {
        Method::GET => Ok(ask.object(StatusCode::OK, "users", wire::user(&ask.app.service.me(ask.ctx).await?))),
        _ => Err(no_such_method(ask.method)),
    }
}

async fn all(ask: &Ask<'_>, body: Body) -> Result<Response, Error> {
    match *ask.method {
        Method::GET => {
            let (filter, page) = ask.list()?;
            let found = ask.app.service.users(ask.ctx, filter, page).await?;
            Ok(ask.page("users", found, wire::user))
        }
        Method::POST => {
            let input = input(read_object(body).await?)?;
            let made = ask.app.service.create_user(ask.ctx, input).await?;
            Ok(ask.object(StatusCode::CREATED, "users", wire::user(&made)))
        }
        _ => Err(no_such_method(ask.method)),
    }
}

async fn one(ask: &Ask<'_>, who: &str, body: Body) -> Result<Response, Error> {
    match *ask.method {
        Method::GET => {
            let found = ask.app.service.user(ask.ctx, who).await?;
            Ok(ask.object(StatusCode::OK, "users", wire::user(&found)))
        }
        Method::PATCH => {
            let input = input(read_object(body).await?)?;
            ask.app.service.update_user(ask.ctx, who, input).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        Method::DELETE => {
            ask.app.service.delete_user(ask.ctx, who).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(no_such_method(ask.method)),
    }
}

fn input(mut body: Map<String, Value>) -> Result<UserInput, Error> {
    body.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
    let password = match body.remove("passwordProfile") {
        None | Some(Value::Null) => None,
        Some(Value::Object(mut profile)) => {
            // Saying yes to it and then not asking would be worse than saying no.
            for name in ["forceChangePasswordNextSignIn", "forceChangePasswordNextSignInWithMfa"] {
                if take_switch(&mut profile, name)? == Some(true) {
                    return Err(bad_request(&format!(
                        "'{name}' is not supported: people change their password on the server's page for it."
                    )));
                }
            }
            take_text(&mut profile, "password")?.map(Secret::new)
        }
        Some(_) => return Err(super::invalid("passwordProfile")),
    };
    Ok(UserInput {
        user_name: take_text(&mut body, "userPrincipalName")?,
        display_name: take_text(&mut body, "displayName")?,
        enabled: take_switch(&mut body, "accountEnabled")?,
        password,
        properties: body,
    })
}
