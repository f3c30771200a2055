//! What the garbage collector would do, without doing it.

use std::time::Duration;

use portolan_store::meta::Meta;
use portolan_store::meta::check::{self, ReviewRow};
use portolan_types::Timestamp;
use serde::Serialize;

use super::PAGE_ITEMS;
use crate::{Error, Result};

/// Entries told one by one.
const TOLD_MAX: usize = 10_000;

/// Something that would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Going {
    /// `link` (a repository may read a blob), `blob`, or `file` (content without a row).
    pub kind: &'static str,
    /// `registry/repository`, for a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The blob.
    pub digest: String,
    /// Bytes of content that go with it; each blob's are counted once.
    pub bytes: u64,
    /// From when on.
    pub due: String,
}

/// What a round of the collector would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GarbagePreview {
    /// Reviews looked at.
    pub reviews: u64,
    /// Links that would go.
    pub links: u64,
    /// Blobs and files that would go once their links are gone.
    pub blobs: u64,
    /// Bytes that would be free then.
    pub bytes: u64,
    /// The first ten thousand entries.
    pub going: Vec<Going>,
}

/// Look at the collector's queue as it will be `ahead` from `now`, at most `reviews_max`
/// entries of it. Nothing is changed.
///
/// Errors: a store that cannot be read.
pub async fn preview(meta: &Meta, now: Timestamp, ahead: Duration, reviews_max: u64) -> Result<GarbagePreview> {
    let until = now.plus(ahead);
    let mut found = GarbagePreview::default();
    let mut after: Option<ReviewRow> = None;
    let registries = meta.read(|tx| check::registries(tx).map_err(Error::from)).await?;
    while found.reviews < reviews_max {
        let from = after.take();
        let tell = found.going.len() < TOLD_MAX;
        let page = meta.read(move |tx| {
            let page = check::preview(tx, from.as_ref(), now, until, PAGE_ITEMS)?;
            let mut named = Vec::with_capacity(page.len());
            for going in page {
                let name = match going.review.kind {
                    1 if tell && going.goes => check::repo_name(tx, going.review.repo)?,
                    _ => None,
                };
                named.push((going, name));
            }
            Ok::<_, Error>(named)
        });
        let page = page.await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.review.clone());
        for (going, name) in page {
            found.reviews += 1;
            if !going.goes {
                continue;
            }
            found.bytes += going.bytes;
            let kind = match going.review.kind {
                1 => "link",
                2 => "blob",
                _ => "file",
            };
            found.links += u64::from(kind == "link");
            found.blobs += u64::from(kind != "link" || going.bytes > 0);
            if found.going.len() < TOLD_MAX {
                let repository = name.map(|(id, name)| {
                    let registry = registries.iter().find(|(known, _)| *known == id).map(|(_, name)| name.as_str());
                    format!("{}/{name}", registry.unwrap_or("?"))
                });
                found.going.push(Going {
                    kind,
                    repository,
                    digest: going.review.digest.to_string(),
                    bytes: going.bytes,
                    due: going.review.due.rfc3339(),
                });
            }
        }
    }
    Ok(found)
}
