//! Answers kept in memory: name → repository, tag → digest, digest → manifest, and which
//! blob a repository may read.
//!
//! The database is the truth and every cache is bounded. Only what is there is kept; a
//! "not found" is asked anew each time. Coherence rests on one property of the cache: an
//! entry that is being filled when it is removed is handed to whoever waits, but not kept.
//! A writer removes after its commit and before it answers, so a reader that began before
//! the commit cannot leave the old value behind, and one that begins after it reads the
//! new one.

use std::sync::Arc;

use bytes::Bytes;
use portolan_store::meta::repo::Attributes;
use portolan_types::{Digest, RepoName, Tag, Timestamp};
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

/// Memory for manifests, in bytes of documents.
pub const MANIFEST_CACHE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Tags kept.
pub const TAG_CACHE_ITEMS_MAX: usize = 100_000;
/// Repository names kept.
pub const REPO_CACHE_ITEMS_MAX: usize = 20_000;
/// Links from repositories to blobs kept.
pub const BLOB_CACHE_ITEMS_MAX: usize = 200_000;
/// Blobs remembered as asked about by a push under way.
pub const TOUCH_ITEMS_MAX: usize = 200_000;

/// A manifest as it is served, with its header values ready made.
#[derive(Debug)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// The type it is served under.
    pub media_type: String,
    /// The document, byte for byte as pushed.
    pub bytes: Bytes,
    /// The media type as a header value.
    pub content_type: Bytes,
    /// The digest as text.
    pub digest_text: Bytes,
    /// The digest in quotes.
    pub etag: Bytes,
    /// Its locks.
    pub(crate) attributes: Attributes,
}

impl StoredManifest {
    pub(crate) fn new(digest: Digest, media_type: String, bytes: Vec<u8>, attributes: Attributes) -> StoredManifest {
        let digest_text = digest.to_string();
        StoredManifest {
            digest,
            content_type: Bytes::copy_from_slice(media_type.as_bytes()),
            media_type,
            bytes: bytes.into(),
            etag: format!("\"{digest_text}\"").into(),
            digest_text: digest_text.into(),
            attributes,
        }
    }
}

/// A repository that people see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedRepo {
    pub(crate) id: i64,
    pub(crate) attributes: Attributes,
}

/// Where a tag points.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedTag {
    pub(crate) digest: Digest,
    pub(crate) attributes: Attributes,
}

/// By document size, with what an entry costs besides.
#[derive(Clone)]
pub(crate) struct ByBytes;

impl Weighter<(i64, Digest), Arc<StoredManifest>> for ByBytes {
    fn weight(&self, _: &(i64, Digest), manifest: &Arc<StoredManifest>) -> u64 {
        manifest.bytes.len() as u64 + 512
    }
}

pub(crate) struct Caches {
    pub(crate) repos: Cache<(i64, RepoName), CachedRepo>,
    pub(crate) tags: Cache<(i64, Tag), CachedTag>,
    pub(crate) manifests: Cache<(i64, Digest), Arc<StoredManifest>, ByBytes>,
    pub(crate) blobs: Cache<(i64, Digest), u64>,
    /// When a push last asked whether the repository has the blob.
    pub(crate) touched: Cache<(i64, Digest), Timestamp>,
}

/// How one cache does.
#[derive(Clone, Copy, Debug)]
pub struct CacheFigures {
    /// What is in it.
    pub name: &'static str,
    /// Looks that found what they were for.
    pub hits: u64,
    /// Looks that did not.
    pub misses: u64,
    /// Entries.
    pub entries: u64,
}

impl crate::service::Service {
    /// How the caches do.
    pub fn cache_figures(&self) -> [CacheFigures; 4] {
        let caches = &self.content.caches;
        let of = |name, hits, misses, entries: usize| CacheFigures { name, hits, misses, entries: entries as u64 };
        [
            of("repositories", caches.repos.hits(), caches.repos.misses(), caches.repos.len()),
            of("tags", caches.tags.hits(), caches.tags.misses(), caches.tags.len()),
            of("manifests", caches.manifests.hits(), caches.manifests.misses(), caches.manifests.len()),
            of("blobs", caches.blobs.hits(), caches.blobs.misses(), caches.blobs.len()),
        ]
    }
}

/// An entry that a write made untrue.
#[derive(Debug)]
pub(crate) enum Evict {
    Repo(i64, RepoName),
    Tag(i64, Tag),
    Manifest(i64, Digest),
    Blob(i64, Digest),
}

impl Caches {
    pub(crate) fn new() -> Caches {
        // Few shards: an entry must fit into one, and the largest manifest is 4 MiB.
        let options = OptionsBuilder::new()
            .shards(16)
            .estimated_items_capacity(16_384)
            .weight_capacity(MANIFEST_CACHE_BYTES_MAX)
            .build();
        let manifests = match options {
            Ok(options) => Cache::with_options(options, ByBytes, Default::default(), Default::default()),
            Err(_) => Cache::with_weighter(16_384, MANIFEST_CACHE_BYTES_MAX, ByBytes),
        };
        Caches {
            repos: Cache::new(REPO_CACHE_ITEMS_MAX),
            tags: Cache::new(TAG_CACHE_ITEMS_MAX),
            manifests,
            blobs: Cache::new(BLOB_CACHE_ITEMS_MAX),
            touched: Cache::new(TOUCH_ITEMS_MAX),
        }
    }

    pub(crate) fn evict(&self, entries: Vec<Evict>) {
        for entry in entries {
            match entry {
                Evict::Repo(registry, name) => drop(self.repos.remove(&(registry, name))),
                Evict::Tag(repo, tag) => drop(self.tags.remove(&(repo, tag))),
                Evict::Manifest(repo, digest) => drop(self.manifests.remove(&(repo, digest))),
                Evict::Blob(repo, digest) => drop(self.blobs.remove(&(repo, digest))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_being_read_while_it_was_evicted_is_not_kept() {
        let caches = Caches::new();
        let key = (1, "v1".parse::<Tag>().unwrap());
        let old = CachedTag { digest: Digest::of(b"old"), attributes: Attributes::ALL };
        let read = caches.tags.get_or_insert_async(&key, async {
            // The writer commits and evicts after this reader took its snapshot.
            caches.evict(vec![Evict::Tag(key.0, key.1.clone())]);
            Ok::<_, ()>(old)
        });
        assert_eq!(read.await.unwrap().digest, old.digest);
        assert!(caches.tags.get(&key).is_none(), "the old value stayed");
    }

    #[test]
    fn the_largest_manifest_fits() {
        let caches = Caches::new();
        let bytes = vec![b' '; portolan_types::limits::MANIFEST_BYTES_MAX];
        let digest = Digest::of(&bytes);
        let manifest = StoredManifest::new(digest, "a/b".into(), bytes, Attributes::ALL);
        caches.manifests.insert((1, digest), Arc::new(manifest));
        assert!(caches.manifests.get(&(1, digest)).is_some());
    }
}
