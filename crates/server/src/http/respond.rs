//! The few shapes of answer and of body that every front door needs.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use portolan_service::{Error, Kind};
use serde::Serialize;

use super::Response;

/// `application/json; charset=utf-8`, as ACR and ARM answer.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A JSON answer. A value that cannot be written as JSON (a map with keys that are not
/// text) is our fault and becomes an empty 500.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes_of(status, JSON, bytes.into()),
        Err(cause) => {
            tracing::error!(%cause, "write an answer as JSON");
            empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut res = Response::new(Body::empty());
    *res.status_mut() = status;
    res
}

/// An answer of plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    bytes_of(status, HeaderValue::from_static("text/plain; charset=utf-8"), text.into())
}

/// An answer of bytes that are already there, with their type.
pub fn bytes_of(status: StatusCode, content_type: HeaderValue, bytes: Bytes) -> Response {
    let mut res = Response::new(Body::from(bytes));
    *res.status_mut() = status;
    res.headers_mut().insert(header::CONTENT_TYPE, content_type);
    res
}

/// Read a whole body of at most `bytes_max` bytes, on the budget of [`super::memory`].
///
/// Errors: `TooLarge` (`SIZE_INVALID`) as soon as the limit is passed, `Invalid`
/// (`BODY_INVALID`) when the connection breaks off or stalls, `Unavailable` when there is no
/// memory for it.
pub async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Error> {
    super::memory::read_body(body, bytes_max).await
}

/// Read a form body (`application/x-www-form-urlencoded`) of at most `bytes_max` bytes:
/// its fields in order, decoded.
pub async fn form(body: Body, bytes_max: usize) -> Result<Vec<(String, String)>, Error> {
    let bytes = read_body(body, bytes_max).await?;
    serde_urlencoded::from_bytes(&bytes)
        .map_err(|cause| Error::new(Kind::Invalid, "invalid_request", format!("the form cannot be read: {cause}")))
}

/// The members of the query, in order, decoded; a query that cannot be decoded has none.
pub fn query(uri: &http::Uri) -> Vec<(String, String)> {
    uri.query().and_then(|q| serde_urlencoded::from_str(q).ok()).unwrap_or_default()
}

/// The first field of that name in a form or query.
pub fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn forms_and_queries_keep_repeated_fields_in_order() {
        let fields = form(Body::from("scope=a%3Ab&scope=c+d&x="), 100).await.unwrap();
        assert_eq!(fields, [("scope", "a:b"), ("scope", "c d"), ("x", "")].map(|(k, v)| (k.into(), v.into())));
        let uri: http::Uri = "/v2/_catalog?n=2&last=a%2Fb".parse().unwrap();
        assert_eq!(field(&query(&uri), "last"), Some("a/b"));
    }
}
