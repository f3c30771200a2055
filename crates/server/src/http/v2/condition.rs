//! Conditional requests (RFC 9110, section 13). The entity tag of a blob or a manifest is
//! its digest in quotes; a tag has that of the manifest it names.

use http::header;
use http::request::Parts;
use portolan_service::{Error, Kind, PutCondition};
use portolan_types::Digest;

use super::none_match;

/// What the conditions of a GET or HEAD come to when there is something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Answer.
    Go,
    /// 304: the client has it.
    NotModified,
}

/// Weigh `If-Match` and then `If-None-Match` for what has this entity tag (in its quotes).
/// `If-Modified-Since` is not looked at: nothing here has a modification date.
///
/// Errors: `PreconditionFailed` when `If-Match` names another.
pub(super) fn of_read(parts: &Parts, etag: &[u8]) -> Result<Read, Error> {
    if parts.headers.contains_key(header::IF_MATCH) && !matches(parts, etag) {
        let message = "If-Match names another entity than the one that is here";
        return Err(Error::new(Kind::PreconditionFailed, "DENIED", message));
    }
    Ok(if none_match(parts, etag) { Read::NotModified } else { Read::Go })
}

/// The conditions of a request that changes something.
pub(super) fn of_write(parts: &Parts) -> Vec<PutCondition> {
    let mut conditions = Vec::new();
    if parts.headers.contains_key(header::IF_MATCH) {
        conditions.push(match named(parts, header::IF_MATCH) {
            None => PutCondition::Present,
            Some(list) => PutCondition::OneOf(list),
        });
    }
    if parts.headers.contains_key(header::IF_NONE_MATCH) {
        conditions.push(match named(parts, header::IF_NONE_MATCH) {
            None => PutCondition::Absent,
            Some(list) => PutCondition::NoneOf(list),
        });
    }
    conditions
}

/// The entity tags of a list, as bytes.
fn tags(parts: &Parts, name: header::HeaderName) -> impl Iterator<Item = &[u8]> {
    parts.headers.get_all(name).into_iter().flat_map(|v| v.as_bytes().split(|c| *c == b',')).map(<[u8]>::trim_ascii)
}

/// The digests that a list of entity tags names; `None` for `*`. Tags that are no digests
/// are of something that was never here.
fn named(parts: &Parts, name: header::HeaderName) -> Option<Vec<Digest>> {
    let mut list = Vec::new();
    for tag in tags(parts, name) {
        if tag == b"*" {
            return None;
        }
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let digest: Option<Digest> = std::str::from_utf8(tag).ok().and_then(|t| t.trim_matches('"').parse().ok());
        list.extend(digest);
    }
    Some(list)
}

/// Whether `If-Match` names this entity tag, strongly.
fn matches(parts: &Parts, etag: &[u8]) -> bool {
    tags(parts, header::IF_MATCH).any(|candidate| candidate == b"*" || candidate == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut req = http::Request::builder().uri("/");
        for (name, value) in headers {
            req = req.header(*name, *value);
        }
        req.body(()).unwrap().into_parts().0
    }

    #[test]
    fn conditions_of_a_read() {
        let etag = b"\"x\"";
        for (headers, expect) in [
            (&[][..], Some(Read::Go)),
            (&[("if-none-match", "\"x\"")], Some(Read::NotModified)),
            (&[("if-none-match", "W/\"x\"")], Some(Read::NotModified)),
            (&[("if-none-match", "\"a\", \"x\"")], Some(Read::NotModified)),
            (&[("if-none-match", "\"a\""), ("if-none-match", "*")], Some(Read::NotModified)),
            (&[("if-none-match", "x")], Some(Read::NotModified)),
            (&[("if-none-match", "\"a\"")], Some(Read::Go)),
            (&[("if-match", "\"x\"")], Some(Read::Go)),
            (&[("if-match", "*")], Some(Read::Go)),
            (&[("if-match", "W/\"x\"")], None),
            (&[("if-match", "\"a\"")], None),
            (&[("if-match", "\"a\""), ("if-none-match", "\"x\"")], None),
        ] {
            assert_eq!(of_read(&parts(headers), etag).ok(), expect, "{headers:?}");
        }
    }

    #[test]
    fn conditions_of_a_write() {
        let digest = Digest::of(b"x");
        let tag = format!("\"{digest}\"");
        let of = |headers: &[(&str, &str)]| of_write(&parts(headers));
        assert!(of(&[]).is_empty());
        assert!(matches!(of(&[("if-match", "*")])[..], [PutCondition::Present]));
        assert!(matches!(of(&[("if-none-match", "*")])[..], [PutCondition::Absent]));
        assert!(matches!(&of(&[("if-match", &tag)])[..], [PutCondition::OneOf(list)] if list == &[digest]));
        assert!(matches!(&of(&[("if-match", "\"other\"")])[..], [PutCondition::OneOf(list)] if list.is_empty()));
        assert!(matches!(&of(&[("if-none-match", &tag)])[..], [PutCondition::NoneOf(list)] if list == &[digest]));
    }
}
