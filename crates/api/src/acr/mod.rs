//! The registry's data plane as Azure Container Registry shapes it (`/acr/v1`).

use http::HeaderMap;
use http::header::LINK;
use reqwest::Url;

use crate::error::{Error, Result};

/// Pages one list may have: a server whose lists do not end is cut off here.
pub const PAGES_MAX: usize = 100_000;

/// The page that `Link: <…>; rel="next"` names. Only its query counts: the path stays, so
/// that a server behind a path or name of its own cannot lead a client astray.
pub fn next_page(current: &Url, headers: &HeaderMap) -> Result<Option<Url>> {
    let links = headers.get_all(LINK).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    for link in links {
        let Some((target, parameters)) = link.trim().strip_prefix('<').and_then(|l| l.split_once('>')) else {
            continue;
        };
        if !parameters.replace(['"', ' '], "").to_ascii_lowercase().contains("rel=next") {
            continue;
        }
        let target =
            current.join(target).map_err(|_| Error::protocol(current, "the link to the next page is broken"))?;
        let mut next = current.clone();
        next.set_query(target.query());
        if next == *current {
            return Err(Error::protocol(current, "the next page is the same page"));
        }
        return Ok(Some(next));
    }
    Ok(None)
}
