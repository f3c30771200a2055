//! Images as commands name them: `repository[:tag|@digest]`, inside a registry.

use portolan_types::{Digest, RepoName, Tag};

use crate::error::{Failure, Result};

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// The repository.
    pub repo: RepoName,
    /// What of it.
    pub which: Which,
}

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

impl Image {
    /// Parse; without tag and digest, `latest` is meant, as in az.
    pub(crate) fn parse(text: &str) -> Result<Image> {
        let fail = |why: String| Failure::new(format!("The image '{text}' is not a valid one: {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; with a digest the tag is only for people.
        let (repo, tag) = match rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((repo, tag)) => (repo, Some(tag)),
            None => (rest, None),
        };
        let repo: RepoName = repo.parse().map_err(|e: portolan_types::InvalidName| fail(e.to_string()))?;
        let which = match (digest, tag) {
            (Some(digest), _) => {
                Which::Digest(digest.parse().map_err(|e: portolan_types::digest::InvalidDigest| fail(e.to_string()))?)
            }
            (None, tag) => Which::Tag(
                tag.unwrap_or("latest").parse().map_err(|e: portolan_types::InvalidName| fail(e.to_string()))?,
            ),
        };
        Ok(Image { repo, which })
    }
}

/// `<login server>/repository[:tag|@digest]` split into the server and the rest; `None` for
/// the server when the text has no host in it.
pub(crate) fn split_server(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, repo: &str, which: &str| {
            let image = Image::parse(text).unwrap();
            let got = match image.which {
                Which::Tag(t) => t.to_string(),
                Which::Digest(d) => d.to_string(),
            };
            assert_eq!((image.repo.as_str(), got.as_str()), (repo, which));
        };
        let digest = Digest::of(b"x").to_string();
        check("flask-echo:v1.0.0", "flask-echo", "v1.0.0");
        check("a/b", "a/b", "latest");
        check(&format!("a@{digest}"), "a", &digest);
        check(&format!("a:v1@{digest}"), "a", &digest);
        for bad in ["", "A:v1", "a:", "a:b:c", "a@sha256:zz", ":v1"] {
            assert!(Image::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(split_server("localhost:8443/a/b:v1"), (Some("localhost:8443"), "a/b:v1"));
        assert_eq!(split_server("a/b:v1"), (None, "a/b:v1"));
    }
}
