//! The registry's data plane as Azure Container Registry shapes it: the token exchange
//! (`/oauth2`), the catalog (`/v2/_catalog`) and attributes, tags and manifests (`/acr/v1`).
//!
//! Life of a first request: a directory token is exchanged for a refresh token (three
//! hours), that for an access token of the scope the request needs (a good hour); both are
//! kept, here and, through [`AcrClient::kept`], by the caller for the next time.

mod client;

use http::HeaderMap;
use http::header::LINK;
use reqwest::Url;

pub use self::client::{AcrClient, AcrTokens, Login};
use crate::error::{Error, Result};

/// Pages one list may have: a server whose lists do not end is cut off here.
pub const PAGES_MAX: usize = 100_000;

/// The user name that says "the password is a refresh token".
pub const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

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

#[cfg(test)]
mod tests {
    use super::*;

    fn next(current: &str, link: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, link.parse().unwrap());
        next_page(&Url::parse(current).unwrap(), &headers).unwrap().map(Into::into)
    }

    #[test]
    fn links() {
        let page = "https://h:1/v2/_catalog?n=2";
        assert_eq!(
            next(page, r#"</v2/_catalog?last=b&n=2&orderby=>; rel="next""#).as_deref(),
            Some("https://h:1/v2/_catalog?last=b&n=2&orderby=")
        );
        assert_eq!(
            next(page, r#"<https://evil.example/elsewhere?last=b>; rel=next"#).as_deref(),
            Some("https://h:1/v2/_catalog?last=b"),
            "the host and path stay"
        );
        assert_eq!(next(page, r#"</v2/_catalog?last=a>; rel="prev""#), None);
    }
}
