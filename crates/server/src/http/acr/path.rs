//! The paths of `/acr/v1/`. No part of a repository name begins with `_`, so the first
//! part that does ends the name.

use portolan_service::Error;
use portolan_types::{Digest, RepoName};

use crate::http::v2::path::{digest, nothing_here, repo};

/// What a path names. A tag is still text: a bad one is simply not there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/acr/v1/_catalog`
    Catalog,
    /// `/acr/v1/<name>`
    Repo(RepoName),
    /// `/acr/v1/<name>/_tags`
    Tags(RepoName),
    /// `/acr/v1/<name>/_tags/<tag>`
    Tag(RepoName, &'a str),
    /// `/acr/v1/<name>/_manifests`
    Manifests(RepoName),
    /// `/acr/v1/<name>/_manifests/<digest>`
    Manifest(RepoName, Digest),
}

/// Read a decoded path that begins with `/acr/v1`.
///
/// Errors: `NAME_INVALID`, `DIGEST_INVALID`, 404 for a path that names nothing.
pub(crate) fn parse(path: &str) -> Result<Route<'_>, Error> {
    let rest = path.strip_prefix("/acr/v1/").ok_or_else(nothing_here)?;
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    let Some(at) = rest.find("/_") else {
        return Ok(Route::Repo(repo(rest)?));
    };
    let (name, more) = (repo(&rest[..at])?, &rest[at + 1..]);
    match more.split_once('/') {
        None if more == "_tags" => Ok(Route::Tags(name)),
        None if more == "_manifests" => Ok(Route::Manifests(name)),
        Some(("_tags", tag)) => Ok(Route::Tag(name, tag)),
        Some(("_manifests", text)) => Ok(Route::Manifest(name, digest(text)?)),
        _ => Err(nothing_here()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route() {
        let name = |text: &str| text.parse::<RepoName>().unwrap();
        let d = Digest::of(b"x");
        assert_eq!(parse("/acr/v1/_catalog").unwrap(), Route::Catalog);
        assert_eq!(parse("/acr/v1/a/b").unwrap(), Route::Repo(name("a/b")));
        assert_eq!(parse("/acr/v1/a/b/_tags").unwrap(), Route::Tags(name("a/b")));
        assert_eq!(parse("/acr/v1/a/_tags/v1").unwrap(), Route::Tag(name("a"), "v1"));
        assert_eq!(parse("/acr/v1/a/_manifests").unwrap(), Route::Manifests(name("a")));
        assert_eq!(parse(&format!("/acr/v1/a/_manifests/{d}")).unwrap(), Route::Manifest(name("a"), d));
        for (bad, code) in [
            ("/acr/v1/", "NAME_INVALID"),
            ("/acr/v1/A", "NAME_INVALID"),
            ("/acr/v1/a/_other", "UNSUPPORTED"),
            ("/acr/v1/a/_manifests/v1", "DIGEST_INVALID"),
            ("/acr/v2/a", "UNSUPPORTED"),
            ("/acr", "UNSUPPORTED"),
        ] {
            assert_eq!(parse(bad).unwrap_err().code, code, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(path in "[a-z_/:%]{0,60}") {
            let _ = parse(&format!("/acr/v1/{path}"));
        }
    }
}
