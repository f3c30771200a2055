//! Doors for the fuzzer: what the edge reads of requests, as plain values.

use std::net::IpAddr;
use std::ops::Range;

use http::request::Parts;
use portolan_auth::Authority;
use portolan_types::{IpNet, Timestamp};

use super::{Conn, acr, arm, blob, caller, client, v2};
use crate::settings::{ProxyHeader, Settings};

pub use super::arm::path::{ArmPath, Extension, Place as ArmPlace};

/// A path of `/v2/` or `/acr/v1/` as it was read: what is wanted, of which repository, and
/// the reference, digest or upload id as text (empty when there is none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `base`, `catalog`, `tags`, `manifest`, …
    pub what: &'static str,
    /// The repository; empty where none is named.
    pub repo: String,
    /// What follows it.
    pub last: String,
}

fn named(what: &'static str, repo: impl ToString, last: impl ToString) -> Option<Named> {
    Some(Named { what, repo: repo.to_string(), last: last.to_string() })
}

/// Decode and read a path of `/v2/`; `None` when it is refused.
pub fn v2_path(path: &str) -> Option<Named> {
    use v2::path::Route;
    let decoded = v2::path::decode(path).ok()?;
    match v2::path::parse(&decoded).ok()? {
        Route::Base => named("base", "", ""),
        Route::Catalog => named("catalog", "", ""),
        Route::Tags(repo) => named("tags", repo, ""),
        Route::Manifest(repo, reference) => named("manifest", repo, reference),
        Route::Blob(repo, digest) => named("blob", repo, digest),
        Route::Uploads(repo) => named("uploads", repo, ""),
        Route::Upload(repo, id) => named("upload", repo, id),
        Route::Referrers(repo, digest) => named("referrers", repo, digest),
    }
}

/// Decode and read a path of `/acr/v1/`; `None` when it is refused.
pub fn acr_path(path: &str) -> Option<Named> {
    use acr::path::Route;
    let decoded = v2::path::decode(path).ok()?;
    match acr::path::parse(&decoded).ok()? {
        Route::Catalog => named("catalog", "", ""),
        Route::Repo(repo) => named("repo", repo, ""),
        Route::Tags(repo) => named("tags", repo, ""),
        Route::Tag(repo, tag) => named("tag", repo, tag),
        Route::Manifests(repo) => named("manifests", repo, ""),
        Route::Manifest(repo, digest) => named("manifest", repo, digest),
    }
}

/// What a `Range` header asks of `size` bytes: `None` is all, an empty range is nothing (416).
pub fn range(header: &str, size: u64) -> Option<Range<u64>> {
    match v2::range::wanted(Some(header), size) {
        v2::range::Wanted::All => None,
        v2::range::Wanted::Part(part) => Some(part),
        v2::range::Wanted::Outside => Some(0..0),
    }
}

/// The `Content-Range` of a chunk.
pub fn content_range(header: &str) -> Option<Range<u64>> {
    v2::range::chunk(header)
}

/// Whether `If-None-Match` takes the entity tag.
pub fn none_match(parts: &Parts, etag: &[u8]) -> bool {
    v2::none_match(parts, etag)
}

/// How many items a list request asks for at most and behind which; `None` when refused.
pub fn page(parts: &Parts, default: usize) -> Option<(usize, Option<String>)> {
    v2::list::page_of(parts, default).ok().map(|query| (query.limit, query.last))
}

/// The scope that a refused request is told to ask for.
pub fn scope_wanted(parts: &Parts) -> String {
    caller::scope_wanted(&parts.method, parts.uri.path())
}

/// The number of kinds of ARM body that bytes could be.
pub fn arm_bodies(bytes: &[u8]) -> usize {
    arm::bodies(bytes)
}

/// Whether a `$filter` of `/resources` is understood.
pub fn arm_filter(text: &str) -> bool {
    arm::filter(text)
}

/// The parts of a Graph path.
pub fn graph_path(path: &str) -> Option<Vec<String>> {
    super::graph::parts(path)
}

/// Whether a body of attributes is understood.
pub fn attributes(bytes: &[u8]) -> bool {
    acr::wire::patch(bytes).is_ok()
}

/// What a query opens of a signed path: `w`, `r` or nothing.
pub fn signed(authority: &Authority, path: &str, query: &str, now: Timestamp) -> Option<&'static str> {
    match blob::check(authority, path, &blob::Query::read(query), now)? {
        blob::Permission::Write => Some("w"),
        blob::Permission::Read => Some("r"),
    }
}

/// Where a signed path leads: the registry, and the run or the path of a context.
pub fn signed_place(path: &str) -> Option<(i64, String)> {
    match blob::place(path)? {
        blob::Place::Context { registry, relative_path } => Some((registry, relative_path)),
        blob::Place::Log { registry, run } => Some((registry, run.to_string())),
        blob::Place::Content { registry, digest } => Some((registry, digest.to_string())),
        blob::Place::Files(owner) => Some((owner.registry, owner.word())),
    }
}

/// The ids in a list of blocks.
pub fn block_list(xml: &[u8]) -> Option<Vec<Vec<u8>>> {
    blob::block_list(xml).ok()
}

/// The window of a log that headers ask for.
pub fn log_window(parts: &Parts) -> Option<Range<u64>> {
    blob::range(&parts.headers)
}

/// Whose request it is that came from `peer` with these lines of `X-Forwarded-For` (or
/// `Forwarded`), where `trusted` is the network of the proxies; `None` when it is refused.
pub fn client_address(lines: &[&[u8]], forwarded: bool, peer: IpAddr, trusted: IpNet) -> Option<IpAddr> {
    let (header, name) = match forwarded {
        true => (ProxyHeader::Forwarded, "forwarded"),
        false => (ProxyHeader::XForwardedFor, "x-forwarded-for"),
    };
    let settings = Settings { trusted_proxies: vec![trusted], proxy_header: header, ..Settings::defaults().ok()? };
    let mut headers = http::HeaderMap::new();
    for line in lines {
        headers.append(name, http::HeaderValue::from_bytes(line).ok()?);
    }
    let conn = Conn { scheme: "http", peer: (peer, 1).into() };
    client::behind_proxies(&settings, conn, &headers).ok().map(|conn| conn.peer.ip())
}
