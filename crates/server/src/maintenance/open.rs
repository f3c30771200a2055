//! Opening a store without a server around it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use portolan_store::blob::{Blobs, FsBlobs};
use portolan_store::meta::Meta;

use crate::settings::{ServeArgs, Settings, Sources};

/// A store that this process has open.
pub(super) struct Store {
    pub(super) meta: Meta,
    pub(super) blobs: Arc<dyn Blobs>,
    /// The data folder, absolute.
    pub(super) data: PathBuf,
    /// Held until the end.
    _lock: File,
}

/// The settings of the server that the store belongs to.
pub(super) fn settings(config: Option<PathBuf>, data: Option<&Path>) -> anyhow::Result<Settings> {
    let data = data.map(|data| data.to_string_lossy().into_owned());
    let args = ServeArgs { config, data, ..ServeArgs::default() };
    let (settings, warnings) = Settings::load(&Sources::of_process(&args)?)?;
    for warning in warnings {
        eprintln!("WARNING: {warning}");
    }
    Ok(settings)
}

impl Store {
    /// Open the store of a server that is not running; one that is not there is an error.
    pub(super) async fn existing(settings: &Settings) -> anyhow::Result<Store> {
        let database = settings.data.join("portolan.db");
        if !database.exists() {
            bail!("there is no store in {}: give its folder with --data DIR", settings.data.display());
        }
        Store::open(settings).await
    }

    /// Open a store, or make it.
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Store> {
        crate::files::private_dir(&settings.data)
            .with_context(|| format!("make the data folder {}", settings.data.display()))?;
        let data = std::fs::canonicalize(&settings.data)
            .with_context(|| format!("find the data folder {}", settings.data.display()))?;
        let lock = crate::server::lock(&data).await?;
        let settings = Settings { data: data.clone(), ..settings.clone() };
        let opened = tokio::task::spawn_blocking(move || stores(&settings));
        let (meta, blobs) = opened.await.context("open the store")??;
        Ok(Store { meta, blobs, data, _lock: lock })
    }

    /// Close it.
    pub(super) async fn close(self) {
        self.meta.close().await;
    }
}

/// Both halves of a store, as the settings say. Blocks.
fn stores(settings: &Settings) -> anyhow::Result<(Meta, Arc<dyn Blobs>)> {
    let database = settings.data.join("portolan.db");
    let meta = Meta::open_sqlite(&database).with_context(|| format!("open the database {}", database.display()))?;
    let blobs: Arc<dyn Blobs> = Arc::new(
        FsBlobs::open(&settings.data).with_context(|| format!("open the blob store in {}", settings.data.display()))?,
    );
    Ok((meta, blobs))
}
