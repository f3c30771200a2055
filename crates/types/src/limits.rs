//! Every fixed limit of the formats and protocols, with its unit in its name.
//!
//! Limits that an operator may change are settings of the server (`server::settings`) and
//! take their defaults from here.

/// A manifest's size. ACR's figure; the OCI specification asks for at least this much.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Descriptors in one manifest. Docker stops at 127 layers; indexes are larger.
pub const MANIFEST_REFERENCES_MAX: usize = 10_000;
/// Tags that one push of a manifest may set.
pub const PUT_TAGS_MAX: usize = 100;
/// A repository name, all components and slashes.
pub const REPO_NAME_BYTES_MAX: usize = 255;
/// A tag.
pub const TAG_BYTES_MAX: usize = 128;
/// A blob. ACR's figure for a layer: 200 GiB.
pub const BLOB_BYTES_MAX: u64 = 200 * 1024 * 1024 * 1024;
/// A JSON or form body of the control plane.
pub const CONTROL_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// One block of a block-blob upload (az sends 4 MiB, SDKs up to 100).
pub const BLOCK_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Blocks in one block-blob upload.
pub const BLOCKS_MAX: usize = 50_000;
/// Results on one page of a list, whatever `n` says.
pub const PAGE_ITEMS_MAX: usize = 1_000;
/// Results on one page when `n` is absent.
pub const PAGE_ITEMS_DEFAULT: usize = 100;
/// Tags one build may give an image.
pub const BUILD_TAGS_MAX: usize = 64;
/// A build context, packed.
pub const CONTEXT_PACKED_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// A build context, unpacked.
pub const CONTEXT_UNPACKED_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// Entries in a build context.
pub const CONTEXT_ENTRIES_MAX: u64 = 2_000_000;
/// A Dockerfile.
pub const DOCKERFILE_BYTES_MAX: usize = 1024 * 1024;
/// A run's log; what follows is dropped with one line that says so.
pub const RUN_LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long a build may run when nobody says otherwise (ACR: one hour).
pub const RUN_SECS_DEFAULT: u64 = 3_600;
/// How long a build may be allowed to run (ACR: eight hours).
pub const RUN_SECS_MAX: u64 = 28_800;
