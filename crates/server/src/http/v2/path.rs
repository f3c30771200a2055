//! The paths of `/v2/`, read from their end.
//!
//! A repository name has slashes in it, and any of its parts may be `manifests` or `tags`,
//! so a router that reads from the left cannot tell where the name ends. From the right it
//! is unambiguous: the last parts say what is wanted, and what is before them is the name.

use std::borrow::Cow;

use portolan_service::{Error, Kind};
use portolan_types::{Digest, RepoName};

/// What a path names. References, digests and upload ids are still text: a bad one is
/// another error for each method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(RepoName),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(RepoName, &'a str),
    /// `/v2/<name>/blobs/<digest>`
    Blob(RepoName, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(RepoName),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(RepoName, &'a str),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(RepoName, Digest),
}

impl Route<'_> {
    /// The methods that there are at such a path.
    pub(crate) fn methods(&self) -> &'static [&'static str] {
        match self {
            Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => &["GET", "HEAD"],
            Route::Manifest(..) => &["GET", "HEAD", "PUT", "DELETE"],
            Route::Blob(..) => &["GET", "HEAD", "DELETE"],
            Route::Uploads(_) => &["POST"],
            Route::Upload(..) => &["GET", "HEAD", "PATCH", "PUT", "DELETE"],
        }
    }
}

/// The path with its percent-encodings undone. SDKs write `sha256%3A…` and `a%2Fb`; after
/// decoding everything is checked against a grammar that has neither.
pub(crate) fn decode(path: &str) -> Result<Cow<'_, str>, Error> {
    percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| Error::new(Kind::Invalid, "NAME_INVALID", "the path is not UTF-8"))
}

/// Read a decoded path that begins with `/v2`.
///
/// Errors: `NAME_INVALID`, `DIGEST_INVALID`, `UNSUPPORTED` as 404 for a path that names
/// nothing.
pub(crate) fn parse(path: &str) -> Result<Route<'_>, Error> {
    let Some(rest) = path.strip_prefix("/v2") else { return Err(nothing_here()) };
    let rest = match rest {
        "" | "/" => return Ok(Route::Base),
        "/_catalog" => return Ok(Route::Catalog),
        rest => rest.strip_prefix('/').ok_or_else(nothing_here)?,
    };
    if let Some(name) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
        return Ok(Route::Uploads(repo(name)?));
    }
    let (head, last) = rest.rsplit_once('/').ok_or_else(nothing_here)?;
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        return Ok(Route::Upload(repo(name)?, last));
    }
    let (name, what) = head.rsplit_once('/').ok_or_else(nothing_here)?;
    match (what, last) {
        ("manifests", reference) => Ok(Route::Manifest(repo(name)?, reference)),
        ("blobs", digest) => Ok(Route::Blob(repo(name)?, self::digest(digest)?)),
        ("referrers", digest) => Ok(Route::Referrers(repo(name)?, self::digest(digest)?)),
        ("tags", "list") => Ok(Route::Tags(repo(name)?)),
        _ => Err(nothing_here()),
    }
}

pub(crate) fn nothing_here() -> Error {
    Error::new(Kind::NotFound, "UNSUPPORTED", "nothing is served at this path")
}

/// A repository name from a path or query.
pub(crate) fn repo(text: &str) -> Result<RepoName, Error> {
    text.parse().map_err(|e| {
        Error::new(Kind::Invalid, "NAME_INVALID", format!("{e}"))
            .with_detail(serde_json::json!({ "name": text.chars().take(300).collect::<String>() }))
    })
}

/// A digest from a path or query.
pub(crate) fn digest(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(|e| Error::new(Kind::Invalid, "DIGEST_INVALID", format!("{e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepoName {
        text.parse().unwrap()
    }

    #[test]
    fn every_route() {
        let d = Digest::of(b"x");
        let text = d.to_string();
        assert_eq!(parse("/v2").unwrap(), Route::Base);
        assert_eq!(parse("/v2/").unwrap(), Route::Base);
        assert_eq!(parse("/v2/_catalog").unwrap(), Route::Catalog);
        assert_eq!(parse("/v2/a/tags/list").unwrap(), Route::Tags(name("a")));
        assert_eq!(parse("/v2/a/b/c/manifests/v1").unwrap(), Route::Manifest(name("a/b/c"), "v1"));
        assert_eq!(parse(&format!("/v2/a/blobs/{text}")).unwrap(), Route::Blob(name("a"), d));
        assert_eq!(parse(&format!("/v2/a/referrers/{text}")).unwrap(), Route::Referrers(name("a"), d));
        assert_eq!(parse("/v2/a/blobs/uploads/").unwrap(), Route::Uploads(name("a")));
        assert_eq!(parse("/v2/a/blobs/uploads").unwrap(), Route::Uploads(name("a")));
        assert_eq!(parse("/v2/a/blobs/uploads/123").unwrap(), Route::Upload(name("a"), "123"));
    }

    #[test]
    fn names_may_hold_the_words_of_the_paths() {
        assert_eq!(parse("/v2/tags/manifests/list").unwrap(), Route::Manifest(name("tags"), "list"));
        assert_eq!(parse("/v2/manifests/tags/list").unwrap(), Route::Tags(name("manifests")));
        assert_eq!(parse("/v2/a/manifests/b/manifests/v1").unwrap(), Route::Manifest(name("a/manifests/b"), "v1"));
        assert_eq!(parse("/v2/blobs/uploads/blobs/uploads/").unwrap(), Route::Uploads(name("blobs/uploads")));
    }

    #[test]
    fn bad_names_and_paths() {
        for (path, code) in [
            ("/v2/A/tags/list", "NAME_INVALID"),
            ("/v2/../../etc/manifests/passwd", "NAME_INVALID"),
            ("/v2//manifests/v1", "NAME_INVALID"),
            ("/v2/a//b/manifests/v1", "NAME_INVALID"),
            ("/v2/manifests/v1", "UNSUPPORTED"),
            ("/v2/a/blobs/sha256:1", "DIGEST_INVALID"),
            ("/v2/a/blobs/md5:abcd", "DIGEST_INVALID"),
            ("/v2/a/referrers/x", "DIGEST_INVALID"),
            ("/v2/a", "UNSUPPORTED"),
            ("/v2/a/tags/other", "UNSUPPORTED"),
            ("/v2x/a", "UNSUPPORTED"),
        ] {
            assert_eq!(parse(path).unwrap_err().code, code, "{path}");
        }
        assert_eq!(decode("/v2/a%ff").unwrap_err().code, "NAME_INVALID");
        assert_eq!(decode("/v2/a%2Fb/manifests/sha256%3Aab").unwrap(), "/v2/a/b/manifests/sha256:ab");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(path in ".{0,80}", inside in "[a-z0-9/:%_.-]{0,60}") {
            for text in [path, format!("/v2/{inside}")] {
                if let Ok(decoded) = decode(&text) { let _ = parse(&decoded); }
            }
        }

        #[test]
        fn any_name_comes_back(parts in proptest::collection::vec("(manifests|tags|blobs|uploads|list|[a-z0-9]{1,8})", 1..5), tag in "[a-z0-9]{1,8}") {
            let repo = name(&parts.join("/"));
            let manifest = format!("/v2/{repo}/manifests/{tag}");
            proptest::prop_assert_eq!(parse(&manifest).unwrap(), Route::Manifest(repo.clone(), tag.as_str()));
            let tags = format!("/v2/{repo}/tags/list");
            proptest::prop_assert_eq!(parse(&tags).unwrap(), Route::Tags(repo.clone()));
            let uploads = format!("/v2/{repo}/blobs/uploads/");
            proptest::prop_assert_eq!(parse(&uploads).unwrap(), Route::Uploads(repo));
        }
    }
}
