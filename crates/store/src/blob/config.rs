//! Which blob store to open, and where it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_types::Secret;

use super::bucket::{BucketBlobs, Place};
use super::{Blobs, FsBlobs};
use crate::Result;

/// Bytes in one part of a large transfer, where nothing else is said.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of content that builds may keep beside a bucket, where nothing else is said.
pub const CACHE_BYTES_MAX: u64 = 10 * 1024 * 1024 * 1024;

/// Where blobs are kept, and how to get in. The default is the data folder.
///
/// What is not said here is looked for where the tools of each cloud look: `AWS_*`,
/// `AZURE_STORAGE_*` and `GOOGLE_*` in the environment, then the machine's own identity.
#[derive(Clone, Debug)]
pub struct BlobConfig {
    /// Empty for the data folder, or `s3://BUCKET[/PREFIX]`, `az://CONTAINER[/PREFIX]`,
    /// `gs://BUCKET[/PREFIX]`.
    pub url: String,
    /// The service's address, for servers other than the cloud's own: `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// S3: the region.
    pub region: Option<String>,
    /// S3: the access key id. Azure: the storage account.
    pub account: Option<String>,
    /// S3: the secret access key. Azure: the account's key.
    pub secret: Option<Secret<String>>,
    /// S3: a credentials file as AWS's tools have it (`[default]`). Azure: a file with the
    /// account's key. GCS: a service account's JSON key.
    pub credentials_file: Option<PathBuf>,
    /// Bytes in one part of a large transfer; at least 5 MiB.
    pub part_bytes: u64,
    /// Bytes of content that builds may keep in the data folder, beside the bucket.
    pub cache_bytes_max: u64,
}

impl Default for BlobConfig {
    fn default() -> BlobConfig {
        BlobConfig {
            url: String::new(),
            endpoint: None,
            region: None,
            account: None,
            secret: None,
            credentials_file: None,
            part_bytes: PART_BYTES,
            cache_bytes_max: CACHE_BYTES_MAX,
        }
    }
}

impl BlobConfig {
    /// Whether blobs are in a bucket, which several servers can share.
    pub fn is_bucket(&self) -> bool {
        !self.url.is_empty()
    }

    /// Whether [`BlobConfig::url`] can be understood; the reason, for people, when not.
    pub fn check(&self) -> Result<(), String> {
        match self.is_bucket() {
            true => Place::parse(&self.url).map(drop),
            false => Ok(()),
        }
    }
}

/// Open the store that `config` names. `data` is the server's folder: blobs are in it, or,
/// with a bucket, only what is on its way there and what builds keep at hand.
///
/// Blocks; call it while starting. Fails with one clear sentence when the bucket is not
/// there, cannot be reached within seconds, or does not let us in.
pub fn open(config: &BlobConfig, data: &Path) -> Result<Arc<dyn Blobs>> {
    match config.is_bucket() {
        true => Ok(Arc::new(BucketBlobs::open(config, data)?)),
        false => Ok(Arc::new(FsBlobs::open(data)?)),
    }
}
