//! How a manifest is named: by tag or digest inside a repository ([`Reference`]), or by
//! a whole image reference as a Dockerfile writes it ([`ImageRef`]).

use std::fmt;
use std::str::FromStr;

use crate::{Digest, InvalidName, RepoName, Tag};

/// The last part of `/v2/<name>/manifests/<reference>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A name that can move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = InvalidName;

    /// A text with a colon is a digest or nothing; any other is a tag.
    fn from_str(text: &str) -> Result<Reference, InvalidName> {
        if text.contains(':') {
            text.parse().map(Reference::Digest).map_err(|_| InvalidName {
                what: "reference",
                why: "it is neither a tag nor a sha256 or sha512 digest",
            })
        } else {
            text.parse().map(Reference::Tag)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

/// An image as people write it: `[host[:port]/]name[:tag][@digest]`.
///
/// The first component is a host when it has a dot or a colon or is `localhost`, as in
/// docker; else the image is Docker Hub's, and a bare word is in `library/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// The registry's host and port; `docker.io` when none was written.
    pub host: String,
    /// The repository, with Docker Hub's `library/` filled in.
    pub repo: RepoName,
    /// The tag, when one was written. With neither tag nor digest, `latest` is meant.
    pub tag: Option<Tag>,
    /// The digest, when one was written; it wins over the tag.
    pub digest: Option<Digest>,
}

/// The host that a reference without one means.
pub const DOCKER_HUB: &str = "docker.io";

impl ImageRef {
    /// What to ask the registry for.
    pub fn reference(&self) -> Reference {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Reference::Digest(*digest),
            (None, Some(tag)) => Reference::Tag(tag.clone()),
            (None, None) => Reference::Tag(latest()),
        }
    }

    /// `repo:tag` or `repo@digest`, without the host.
    pub fn repo_and_reference(&self) -> String {
        match self.reference() {
            Reference::Digest(d) => format!("{}@{d}", self.repo),
            Reference::Tag(t) => format!("{}:{t}", self.repo),
        }
    }
}

fn latest() -> Tag {
    match "latest".parse() {
        Ok(tag) => tag,
        Err(_) => unreachable!("`latest` is a tag"),
    }
}

/// A host name, an IPv4 address or an IPv6 address in brackets, with or without a port
/// (github.com/distribution/reference, `domain`).
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|p| p.is_empty() || !p.bytes().all(|c| c.is_ascii_digit())) {
        return false;
    }
    if let Some(inner) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        return !inner.is_empty() && inner.bytes().all(|c| c.is_ascii_hexdigit() || c == b':');
    }
    name.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    })
}

impl FromStr for ImageRef {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<ImageRef, InvalidName> {
        let err = |why| InvalidName { what: "image reference", why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| err("what follows `@` is not a sha256 or sha512 digest"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (host, path) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            _ => (DOCKER_HUB, rest),
        };
        if !is_host(host) {
            return Err(err("the registry host is not a name or address, with or without a port"));
        }
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            other => other,
        };
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag.parse()?)),
            None => (path, None),
        };
        let repo =
            if host == DOCKER_HUB && !name.contains('/') { format!("library/{name}").parse()? } else { name.parse()? };
        Ok(ImageRef { host: host.to_owned(), repo, tag, digest })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repo)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_references() {
        let check = |text: &str, host: &str, repo: &str, reference: &str| {
            let r: ImageRef = text.parse().unwrap();
            assert_eq!((r.host.as_str(), r.repo.as_str(), r.reference().to_string().as_str()), (host, repo, reference));
            assert_eq!(r.to_string().parse::<ImageRef>().unwrap(), r);
        };
        check("python:3.11-slim", "docker.io", "library/python", "3.11-slim");
        check("docker.io/python", "docker.io", "library/python", "latest");
        check("grafana/grafana", "docker.io", "grafana/grafana", "latest");
        check("localhost:8443/a/b:v1", "localhost:8443", "a/b", "v1");
        check("mcr.microsoft.com/x/y", "mcr.microsoft.com", "x/y", "latest");
        let d = Digest::of(b"x").to_string();
        check(&format!("a/b:v1@{d}"), "docker.io", "a/b", &d);
        for bad in
            ["", ":v1", "a@sha256:1", "UPPER/x", "a/b:", "ho st.com/a", "a..b/c", "h:/a", "[::1/a", "-a.b/c", "h:5x/a"]
        {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn references() {
        assert!(matches!("v1".parse(), Ok(Reference::Tag(_))));
        assert!(matches!(Digest::of(b"").to_string().parse(), Ok(Reference::Digest(_))));
        assert!("a:b".parse::<Reference>().is_err());
    }
}
