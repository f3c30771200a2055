//! `…/addPassword` and `…/removePassword` of applications and service principals.

use axum::body::Body;
use http::StatusCode;
use portolan_service::Error;
use portolan_service::directory::Holder;
use uuid::Uuid;

use super::wire::{self, key_id, password_input};
use super::{Ask, post_only, read_object};
use crate::http::{Response, respond};

pub(super) async fn add(ask: &Ask<'_>, holder: Holder, id: Uuid, body: Body) -> Result<Response, Error> {
    post_only(ask)?;
    let input = password_input(read_object(body).await?)?;
    let (info, secret) = ask.app.service.add_password(ask.ctx, holder, id, &input).await?;
    Ok(respond::json(StatusCode::OK, &wire::password(&info, Some(secret.expose()))))
}

pub(super) async fn remove(ask: &Ask<'_>, holder: Holder, id: Uuid, body: Body) -> Result<Response, Error> {
    post_only(ask)?;
    let which = key_id(read_object(body).await?)?;
    ask.app.service.remove_password(ask.ctx, holder, id, which).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}
