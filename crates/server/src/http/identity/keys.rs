//! `POST /{tenant}/discovery/v2.0/keys`: another signing key, at once.
//!
//! Keys change by themselves (setting `signing_key_days_max`). This is for whoever must not
//! wait: who may write to the directory asks for it, with a token of the control plane. With
//! `{"endOthers": true}` the keys before end too, and with them every token they signed: that
//! is for a key that somebody else may have.

use axum::body::Body;
use http::StatusCode;
use http::request::Parts;
use portolan_service::{Error, Kind};
use serde::Deserialize;
use serde_json::json;

use super::known_tenant;
use crate::App;
use crate::http::{Response, caller, respond};

/// The largest body that is read.
const BODY_BYTES_MAX: usize = 4 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    end_others: bool,
}

/// Make the key; the answer is the key set as it is now.
pub(super) async fn renew(app: &App, parts: &Parts, tenant: &str, body: Body) -> Result<Response, Error> {
    known_tenant(app, tenant)?;
    let ctx = caller::control_plane(app, parts)?;
    let bytes = respond::read_body(body, BODY_BYTES_MAX).await?;
    let wish: Wish = match bytes.is_empty() {
        true => Wish::default(),
        false => serde_json::from_slice(&bytes)
            .map_err(|why| Error::new(Kind::Invalid, "invalid_request", format!("The body cannot be read: {why}.")))?,
    };
    app.service.renew_signing_key(&ctx, wish.end_others).await?;
    Ok(respond::json(StatusCode::CREATED, &json!({"keys": app.service.authority.jwks()})))
}
