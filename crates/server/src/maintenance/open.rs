//! Opening a store without a server around it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use portolan_service::migrate;
use portolan_store::blob::Blobs;
use portolan_store::meta::{Meta, peer};
use portolan_types::Timestamp;

use crate::settings::{ServeArgs, Settings, Sources};

/// A store that this process has open.
pub(super) struct Store {
    pub(super) meta: Meta,
    pub(super) blobs: Arc<dyn Blobs>,
    /// The data folder, absolute.
    pub(super) data: PathBuf,
    /// Held until the end.
    _lock: Option<File>,
}

/// The settings of the server that the store belongs to.
pub(super) fn settings(config: Option<PathBuf>, data: Option<&Path>) -> anyhow::Result<Settings> {
    let data = data.map(|data| data.to_string_lossy().into_owned());
    let args = ServeArgs { config, data, ..ServeArgs::default() };
    load(&Sources::of_process(&args)?)
}

/// The settings that a file, and a data folder, say alone: with two stores in hand the
/// environment would be about both.
pub(super) fn plain_settings(config: Option<&Path>, data: Option<&Path>) -> anyhow::Result<Settings> {
    let file = match config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Some((path.to_owned(), text))
        }
        None => None,
    };
    let flags = data.map(|data| ("data", data.to_string_lossy().into_owned())).into_iter().collect();
    load(&Sources { file, env: Vec::new(), flags })
}

fn load(sources: &Sources) -> anyhow::Result<Settings> {
    let (settings, warnings) = Settings::load(sources)?;
    for warning in warnings {
        eprintln!("WARNING: {warning}");
    }
    Ok(settings)
}

impl Store {
    /// Open the store of a server; one that is not there is an error.
    pub(super) async fn existing(settings: &Settings) -> anyhow::Result<Store> {
        let database = settings.data.join("portolan.db");
        if settings.database.is_none() && !database.exists() {
            bail!("there is no store in {}: give its folder with --data DIR", settings.data.display());
        }
        Store::open(settings, None).await
    }

    /// Open a store, or make it, while `other` is open, whose data folder may be the same.
    pub(super) async fn beside(settings: &Settings, other: &Store) -> anyhow::Result<Store> {
        Store::open(settings, Some(&other.data)).await
    }

    async fn open(settings: &Settings, held: Option<&Path>) -> anyhow::Result<Store> {
        crate::files::private_dir(&settings.data)
            .with_context(|| format!("make the data folder {}", settings.data.display()))?;
        let data = std::fs::canonicalize(&settings.data)
            .with_context(|| format!("find the data folder {}", settings.data.display()))?;
        let lock = match held {
            Some(held) if held == data => None,
            _ => Some(crate::server::lock(&data).await?),
        };
        let settings = Settings { data: data.clone(), ..settings.clone() };
        let meta = crate::server::open_meta(&settings, &data.join("portolan.db")).await?;
        let opened = tokio::task::spawn_blocking(move || crate::storage::open(&settings)).await;
        let blobs = opened.context("open the blob store")??;
        Ok(Store { meta, blobs, data, _lock: lock })
    }

    /// Fail when a server has the database.
    pub(super) async fn alone(&self) -> anyhow::Result<()> {
        if !self.meta.is_shared() {
            // The lock of the data folder says so.
            return Ok(());
        }
        let now = Timestamp::now();
        let servers = self.meta.read(move |tx| peer::count(tx, now)).await.context("look for servers")?;
        if servers > 0 {
            bail!(
                "{servers} servers are running on this database: stop them first (one that was killed counts for \
                 a minute)"
            );
        }
        Ok(())
    }

    /// Close it.
    pub(super) async fn close(self) {
        self.meta.close().await;
    }
}

/// Fail when no server may serve this database: it has moved, or is half moved.
pub(crate) async fn refuse_moved(meta: &Meta) -> anyhow::Result<()> {
    match migrate::forbids_serving(meta).await.context("look for a migration")? {
        Some(why) => bail!(why),
        None => Ok(()),
    }
}
