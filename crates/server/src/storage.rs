//! The blob store, as the settings say.

use std::sync::Arc;

use anyhow::Context as _;
use portolan_store::blob::{self, BlobConfig, Blobs};

use crate::settings::Settings;

/// What [`portolan_store::blob::open`] is told.
pub(crate) fn config(settings: &Settings) -> BlobConfig {
    BlobConfig {
        url: settings.blobs.as_ref().map_or_else(String::new, |place| place.0.clone()),
        endpoint: settings.blob_endpoint.clone(),
        region: settings.blob_region.clone(),
        account: settings.blob_account.clone(),
        secret: settings.blob_secret.as_ref().map(|secret| secret.0.clone()),
        credentials_file: settings.blob_credentials_file.clone(),
        part_bytes: settings.blob_part_bytes.0,
        cache_bytes_max: settings.blob_cache_bytes_max.0,
    }
}

/// Open the blob store. Blocks.
pub(crate) fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Blobs>> {
    let config = config(settings);
    blob::open(&config, &settings.data).with_context(|| match config.is_bucket() {
        true => format!("open the blob store {} (setting blobs)", config.url),
        false => format!("open the blob store in {}", settings.data.display()),
    })
}

/// Its name in figures.
pub(crate) fn name(settings: &Settings) -> &'static str {
    match settings.blobs.as_ref().map(|place| place.0.as_str()) {
        Some(url) if url.starts_with("s3:") => "s3",
        Some(url) if url.starts_with("az:") => "azure",
        Some(_) => "gcs",
        None => "fs",
    }
}
