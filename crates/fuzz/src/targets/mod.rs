//! The list of targets, and what they share.

mod builds;
mod contexts;
mod directory;
mod documents;
mod headers;
mod names;
mod paths;
mod tokens;

pub use paths::signed_addresses;

use std::sync::OnceLock;

use regex::Regex;

use crate::Target;

/// Every target.
pub const ALL: &[&Target] = &[
    &names::REPO_NAME,
    &names::TAG,
    &names::DIGEST,
    &names::REFERENCE,
    &names::IMAGE_REF,
    &names::REGISTRY_NAME,
    &names::GROUP_NAME,
    &names::PLATFORM,
    &names::IDS,
    &names::TIMESTAMP,
    &headers::RANGE,
    &headers::CONTENT_RANGE,
    &headers::IF_NONE_MATCH,
    &headers::LOG_WINDOW,
    &headers::AUTHORIZATION,
    &headers::CHALLENGE,
    &headers::LINK,
    &headers::HOST,
    &headers::PROXIES,
    &headers::SCOPE,
    &headers::PAGE,
    &headers::FILTER,
    &paths::V2_PATH,
    &paths::ACR_PATH,
    &paths::ARM_PATH,
    &paths::SIGNED_URL,
    &documents::MANIFEST,
    &documents::CONFIG,
    &documents::ARM_BODY,
    &documents::BLOCK_LIST,
    &tokens::TOKEN,
    &tokens::SCOPE_MAP,
    &directory::FOREIGN_TOKEN,
    &directory::CERTIFICATE,
    &directory::SSH_KEY,
    &directory::GRAPH_FILTER,
    &directory::GRAPH_PATH,
    &builds::DOCKERFILE,
    &builds::EXPANSION,
    &builds::MOUNT,
    &builds::NAME_QUERY,
    &builds::REACH,
    &builds::MODE,
    &builds::CHECKS,
    &builds::IGNORE,
    &builds::BUILD_CACHE,
    &builds::PACKAGES,
    &builds::TAR,
    &contexts::LISTING,
    &contexts::ADDRESS,
];

/// A target by its name.
pub fn by_name(name: &str) -> Option<&'static Target> {
    ALL.iter().copied().find(|target| target.name == name)
}

/// Input as text. Parsers take `&str`: bytes that are not UTF-8 do not come to them.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// A text in two: what is before the first line break, and what is after it.
fn two(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

/// A request with a path and one header; `None` when HTTP cannot carry it.
fn request(uri: &str, name: &'static str, value: &[u8]) -> Option<http::request::Parts> {
    let value = http::HeaderValue::from_bytes(value).ok()?;
    let uri: http::Uri = uri.parse().ok()?;
    let mut request = http::Request::new(());
    *request.uri_mut() = uri;
    request.headers_mut().insert(name, value);
    Some(request.into_parts().0)
}

/// A published grammar, compiled once.
pub struct Grammar {
    pattern: &'static str,
    compiled: OnceLock<Regex>,
}

impl Grammar {
    const fn new(pattern: &'static str) -> Grammar {
        Grammar { pattern, compiled: OnceLock::new() }
    }

    /// Whether the whole of `text` is of this grammar.
    pub fn takes(&self, text: &str) -> bool {
        let compile = || Regex::new(&format!("^(?:{})$", self.pattern)).expect("the grammar compiles");
        self.compiled.get_or_init(compile).is_match(text)
    }

    /// What the groups of the grammar matched.
    pub fn parts<'t>(&self, text: &'t str) -> Option<Vec<Option<&'t str>>> {
        let compile = || Regex::new(&format!("^(?:{})$", self.pattern)).expect("the grammar compiles");
        let found = self.compiled.get_or_init(compile).captures(text)?;
        Some(found.iter().skip(1).map(|g| g.map(|g| g.as_str())).collect())
    }
}

/// The published grammars, as their specifications write them.
pub mod grammar {
    use super::Grammar;

    /// OCI distribution-spec 1.1, `<name>`, and at most 255 bytes.
    pub static REPO_NAME: Grammar =
        Grammar::new(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*");
    /// OCI distribution-spec 1.1, `<reference>` as a tag.
    pub static TAG: Grammar = Grammar::new(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}");
    /// OCI image-spec, descriptor.md, the registered algorithms.
    pub static DIGEST: Grammar = Grammar::new(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}");
    /// OCI image-spec, descriptor.md, any digest.
    pub static ANY_DIGEST: Grammar = Grammar::new(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):[a-zA-Z0-9=_-]+");
    /// Azure's rule for registries.
    pub static REGISTRY_NAME: Grammar = Grammar::new(r"[a-zA-Z0-9]{5,50}");
    /// Azure's rule for resource groups.
    pub static GROUP_NAME: Grammar = Grammar::new(r"[\p{Alphabetic}\p{N}_.()-]{0,89}[\p{Alphabetic}\p{N}_()-]");
    /// distribution/reference, `domain` with its port.
    pub static HOST: Grammar = Grammar::new(
        r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?",
    );
    /// One part of a platform.
    pub static PLATFORM: Grammar = Grammar::new(r"[a-z0-9_.-]{1,32}/[a-z0-9_.-]{1,32}(/[a-z0-9_.-]{1,32})?");
    /// RFC 6838, 4.2, `type-name "/" subtype-name`.
    pub static MEDIA_TYPE: Grammar =
        Grammar::new(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}");
    /// RFC 9110, 14.1.2, one range, with the blanks that we put up with.
    pub static RANGE: Grammar = Grammar::new(r"(?i)\s*bytes\s*=\s*([0-9]*)\s*-\s*([0-9]*)\s*");
    /// RFC 4122, and its other spellings.
    pub static UUID: Grammar = Grammar::new(
        r"(?i)(?:urn:uuid:)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}|\{[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}",
    );
}
