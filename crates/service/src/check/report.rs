//! What a check found, for people and for programs.

use serde::Serialize;

/// Problems told one by one; the rest is counted.
pub const PROBLEMS_MAX: usize = 1_000;
/// Damaged images told one by one; the rest is counted.
pub const IMAGES_MAX: usize = 1_000;

/// The outcome of a check. The member names are fixed; scripts read them.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was looked at.
    pub checked: Checked,
    /// What nobody needs, and what will become of it: no problem, only space.
    pub garbage: Garbage,
    /// Problems found, repaired or not.
    pub problems_total: u64,
    /// Problems repaired.
    pub repaired_total: u64,
    /// The first [`PROBLEMS_MAX`] problems.
    pub problems: Vec<Problem>,
    /// Images that cannot be pulled whole any more: push each again.
    pub damaged_images_total: u64,
    /// The first [`IMAGES_MAX`] of them.
    pub damaged_images: Vec<DamagedImage>,
    /// What an operator may want to know and need do nothing about.
    pub notes: Vec<String>,
}

impl Report {
    /// 0: no problem. 1: problems, all repaired. 2: problems remain.
    pub fn exit_code(&self) -> u8 {
        match (self.problems_total, self.repaired_total) {
            (0, _) => 0,
            (found, repaired) if found == repaired => 1,
            _ => 2,
        }
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Repositories.
    pub repositories: u64,
    /// Manifests, each hashed and read.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Links of repositories to blobs.
    pub links: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of blobs that were hashed; 0 in a quick check.
    pub bytes_hashed: u64,
    /// Uploads under way.
    pub uploads: u64,
    /// Reviews in the collector's queue.
    pub reviews: u64,
    /// Leases of builds and their cache.
    pub leases: u64,
    /// Build contexts and logs.
    pub objects: u64,
    /// Events in the log.
    pub events: u64,
}

/// What nobody needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Garbage {
    /// Content that no row names: a push ended between storing it and writing its rows.
    pub orphans: u64,
    /// Its bytes.
    pub orphan_bytes: u64,
    /// Orphans that a repair gave to the collector.
    pub orphans_queued: u64,
    /// Uploads with content and no row; the collector forgets them when they are idle.
    pub stray_uploads: u64,
    /// Uploads with a row and no content; nobody can go on with them.
    pub empty_uploads: u64,
    /// Repositories with nothing in them.
    pub empty_repositories: u64,
    /// Blocks of build contexts whose upload was given up.
    pub stray_blocks: u64,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What kind of problem, as listed in docs/operations.md: `content-missing`, …
    pub code: &'static str,
    /// What it is about: a digest, `registry/repository@digest`, a key.
    pub about: String,
    /// What is wrong, and what was or can be done.
    pub message: String,
    /// Whether it is no longer so.
    pub repaired: bool,
}

/// An image that cannot be pulled whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DamagedImage {
    /// Its registry's name.
    pub registry: String,
    /// Its repository.
    pub repository: String,
    /// Its digest.
    pub digest: String,
    /// Its tags, at most twenty.
    pub tags: Vec<String>,
    /// The content it lacks, at most twenty digests; empty when its own text is damaged.
    pub missing: Vec<String>,
}

/// Where a check is, for a progress line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being looked at.
    pub stage: &'static str,
    /// Items of this stage done.
    pub items: u64,
    /// Bytes hashed so far.
    pub bytes: u64,
    /// Bytes to hash in all; 0 in a quick check.
    pub bytes_total: u64,
}
