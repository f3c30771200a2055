//! Operations that go on after their request was answered, in the ARM way: 202 with where to
//! ask how it stands.
//!
//! `Location` is an address that answers 202 until the end, and then what the request would
//! have answered; `Azure-AsyncOperation` one that says the status in words.

use std::sync::Arc;
use std::time::Duration;

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use portolan_service::operations::{Operation, Status};
use portolan_service::{Ctx, Error, Kind};
use serde_json::json;
use uuid::Uuid;

use super::{Response, error, no_such_method, respond};
use crate::App;

const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");
/// What the addresses say the version is: clients take them as they are.
const VERSION: &str = "api-version=2024-11-01";
/// Where operations of registries say they are.
const LOCATION_WORD: &str = "local";
/// How long a short operation is waited for, so that its client has nothing to poll.
const WAIT: Duration = Duration::from_secs(2);

/// Let the operation go on, and do not wait.
pub(super) fn start(app: &Arc<App>, operation: &Operation) -> tokio::task::JoinHandle<Result<(), Error>> {
    let (service, id) = (app.service.clone(), operation.id);
    tokio::spawn(async move {
        let done = service.carry_out(id).await;
        if let Err(error) = &done {
            tracing::warn!(%id, %error, cause = ?error.source, "an operation did not succeed");
        }
        done
    })
}

/// Let the operation go on; 200 when it ends soon, else 202.
pub(super) async fn soon(app: &Arc<App>, base: &str, operation: &Operation) -> Result<Response, Error> {
    match tokio::time::timeout(WAIT, start(app, operation)).await {
        Ok(Ok(Ok(()))) => Ok(respond::empty(StatusCode::OK)),
        Ok(Ok(Err(e))) if !matches!(e.kind, Kind::Unavailable | Kind::Full | Kind::Internal) => Err(e),
        // It goes on, or begins again later.
        _ => Ok(accepted(app, base, operation, true)),
    }
}

/// 202, with where to ask.
pub(super) fn accepted(app: &App, base: &str, operation: &Operation, by_status: bool) -> Response {
    let subscription = format!("{base}/subscriptions/{}", app.service.subscription_id());
    let id = operation.id;
    let mut res = respond::empty(StatusCode::ACCEPTED);
    let headers = res.headers_mut();
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    put(LOCATION, format!("{subscription}/operationresults/{id}?{VERSION}"));
    if by_status {
        let at = format!("{subscription}/providers/Microsoft.ContainerRegistry/locations/{LOCATION_WORD}");
        put(ASYNC_OPERATION, format!("{at}/operationStatuses/{id}?{VERSION}"));
    }
    put(RETRY_AFTER, "1".to_owned());
    res
}

/// `/subscriptions/{s}/operationresults/{id}`: 202 until the end, then 200 or the error.
pub(super) async fn result(app: &App, base: &str, ctx: &Ctx, method: &Method, id: &str) -> Result<Response, Error> {
    let operation = find(app, ctx, method, id).await?;
    match &operation.status {
        Status::InProgress => Ok(accepted(app, base, &operation, false)),
        Status::Succeeded => Ok(respond::empty(StatusCode::OK)),
        Status::Failed { code, message } => {
            let mut res = respond::json(StatusCode::CONFLICT, &json!({"error": {"code": code, "message": message}}));
            res.extensions_mut().insert(error::Note { code: "OperationFailed", message: message.clone(), cause: None });
            Ok(res)
        }
    }
}

/// `…/locations/{l}/operationStatuses/{id}`: the status in words.
pub(super) async fn status(app: &App, ctx: &Ctx, parts: &http::request::Parts, id: &str) -> Result<Response, Error> {
    let operation = find(app, ctx, &parts.method, id).await?;
    let mut body = json!({
        "id": parts.uri.path(),
        "name": operation.id,
        "resourceId": operation.scope,
        "startTime": operation.created.rfc3339(),
    });
    let status = match &operation.status {
        Status::InProgress => "InProgress",
        Status::Succeeded => "Succeeded",
        Status::Failed { code, message } => {
            body["error"] = json!({"code": code, "message": message});
            "Failed"
        }
    };
    body["status"] = json!(status);
    if let Some(ended) = operation.ended {
        body["endTime"] = json!(ended.rfc3339());
    }
    let mut res = respond::json(StatusCode::OK, &body);
    if operation.status == Status::InProgress {
        res.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(res)
}

async fn find(app: &App, ctx: &Ctx, method: &Method, id: &str) -> Result<Operation, Error> {
    if method != Method::GET {
        return Err(no_such_method(method));
    }
    let id = Uuid::try_parse(id).map_err(|_| {
        Error::new(Kind::NotFound, "OperationNotFound", "The operation id is not one that this server gave out.")
    })?;
    app.service.show_operation(ctx, id).await
}
