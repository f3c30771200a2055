//! Lists over HTTP: catalog, tags, referrers; and how every list is paged.

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use portolan_service::{Error, Kind, ListQuery, Order};
use portolan_types::{Digest, RepoName, limits, media_type};
use serde_json::{Value, json};

use super::{Call, set};
use crate::http::{Response, respond};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// What needs no encoding in the value of a query parameter.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// `n`, `last` and `orderby` of a list; `default` items when `n` is absent.
///
/// Errors: `PAGINATION_NUMBER_INVALID`, `UNSUPPORTED` for an order that there is not.
pub(crate) fn page_of(parts: &Parts, default: usize) -> Result<ListQuery, Error> {
    let query = respond::query(&parts.uri);
    let limit = match respond::field(&query, "n").filter(|n| !n.is_empty()) {
        None => default,
        Some(n) if n.bytes().all(|c| c.is_ascii_digit()) => {
            n.parse().unwrap_or(limits::PAGE_ITEMS_MAX).min(limits::PAGE_ITEMS_MAX)
        }
        Some(_) => {
            return Err(Error::new(Kind::Invalid, "PAGINATION_NUMBER_INVALID", "`n` must be a number, 0 or more"));
        }
    };
    let order = match respond::field(&query, "orderby").unwrap_or("") {
        "" | "none" => Order::Name,
        "timeasc" => Order::TimeAsc,
        "timedesc" => Order::TimeDesc,
        _ => return Err(Error::new(Kind::Invalid, "UNSUPPORTED", "`orderby` must be timeasc or timedesc")),
    };
    Ok(ListQuery { order, last: respond::field(&query, "last").map(str::to_owned), limit })
}

/// Add the `Link` to the next page (RFC 8288), if there is one. `more` are further
/// parameters of the same list.
pub(crate) fn link(
    response: &mut Response,
    path: &str,
    query: &ListQuery,
    next: Option<&str>,
    more: &[(&str, &str)],
) -> Result<(), Error> {
    let Some(next) = next else { return Ok(()) };
    let mut url = format!("{path}?last={}&n={}", utf8_percent_encode(next, PLAIN), query.limit);
    let order = match query.order {
        Order::Name => None,
        Order::TimeAsc => Some(("orderby", "timeasc")),
        Order::TimeDesc => Some(("orderby", "timedesc")),
    };
    for (key, value) in order.iter().chain(more) {
        url.push_str(&format!("&{key}={}", utf8_percent_encode(value, PLAIN)));
    }
    set(response, header::LINK, &format!("<{url}>; rel=\"next\""))
}

pub(super) async fn catalog(call: &Call<'_>) -> Result<Response, Error> {
    let query = page_of(call.parts, limits::PAGE_ITEMS_DEFAULT)?;
    let page = call.service.catalog(&call.ctx, &call.registry, &query).await?;
    let mut response = respond::json(StatusCode::OK, &json!({ "repositories": page.items }));
    link(&mut response, "/v2/_catalog", &query, page.next.as_deref(), &[])?;
    Ok(response)
}

/// Without `n`, as many as a page may have: many clients never look at the link.
pub(super) async fn tags(call: &Call<'_>, name: &RepoName) -> Result<Response, Error> {
    let query = page_of(call.parts, limits::PAGE_ITEMS_MAX)?;
    let page = call.service.tag_names(&call.ctx, &call.registry, name, &query).await?;
    let mut response = respond::json(StatusCode::OK, &json!({ "name": name, "tags": page.items }));
    link(&mut response, &format!("/v2/{name}/tags/list"), &query, page.next.as_deref(), &[])?;
    Ok(response)
}

pub(super) async fn referrers(call: &Call<'_>, name: &RepoName, subject: Digest) -> Result<Response, Error> {
    let mut query = page_of(call.parts, limits::PAGE_ITEMS_MAX)?;
    query.order = Order::Name;
    let parameters = respond::query(&call.parts.uri);
    let filter = respond::field(&parameters, "artifactType").filter(|t| !t.is_empty());
    let page =
        call.service.referrers(&call.ctx, &call.registry, name, subject, filter.map(str::to_owned), &query).await?;
    let manifests: Vec<Value> = page
        .items
        .iter()
        .map(|m| {
            let mut descriptor = json!({ "mediaType": m.media_type, "digest": m.digest, "size": m.size });
            if let Some(artifact_type) = &m.artifact_type {
                descriptor["artifactType"] = json!(artifact_type);
            }
            if let Some(annotations) = m.annotations.as_deref().and_then(|a| serde_json::from_str(a).ok()) {
                descriptor["annotations"] = annotations;
            }
            descriptor
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests });
    let mut response = respond::json(StatusCode::OK, &index);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
    let more: Vec<(&str, &str)> = filter.map(|f| ("artifactType", f)).into_iter().collect();
    if filter.is_some() {
        response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    link(&mut response, &format!("/v2/{name}/referrers/{subject}"), &query, page.next.as_deref(), &more)?;
    Ok(response)
}
