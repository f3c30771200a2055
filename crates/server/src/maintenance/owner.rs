//! `portolan recover-owner`: a way in for the operator of a store whose owners' secrets are
//! all lost. Whoever can write the database is its owner already; this saves them the SQL.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use portolan_service::identity;
use portolan_types::Timestamp;

use super::open::{self, Store};
use super::{block_on, print};
use crate::bootstrap::Bootstrap;

/// The flags of `portolan recover-owner`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
The server (or all servers on the database) must be stopped. The new credentials are in
bootstrap.json in the data folder; a file that is there is put aside as bootstrap.json.old.
Owners that there are stay as they are.")]
pub struct RecoverOwnerArgs {
    /// Settings file of the server (TOML); also PORTOLAN_CONFIG
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's data folder [default: ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// `portolan recover-owner`: make one more owner; the exit code.
///
/// Errors: a store that is not there, is in use, or has no tenant yet.
pub fn recover_owner(args: &RecoverOwnerArgs) -> anyhow::Result<u8> {
    let settings = open::settings(args.config.clone(), args.data.as_deref())?;
    block_on(async {
        let store = Store::existing(&settings).await?;
        store.alone().await?;
        let path = store.data.join("bootstrap.json");
        let done = make(&store, &path).await;
        store.close().await;
        done?;
        print(&path.display().to_string());
        eprintln!("Start the server, then: portolan login --bootstrap {}", path.display());
        Ok(0)
    })
}

async fn make(store: &Store, path: &std::path::Path) -> anyhow::Result<()> {
    // The old file first: its address is the server's, and it must not be lost.
    let aside = path.with_extension("json.old");
    let before = Bootstrap::read(path).ok().flatten();
    if path.exists() {
        if aside.exists() {
            bail!("{} is there already: put it elsewhere first", aside.display());
        }
        std::fs::rename(path, &aside).with_context(|| format!("put {} aside", path.display()))?;
    }
    let owner = identity::recover_owner(&store.meta, Timestamp::now()).await.context("make an owner")?;
    // The next start writes the address and the CA that it has then.
    let (server, ca_file) =
        before.map_or_else(|| ("https://localhost:8443".to_owned(), None), |b| (b.server, b.ca_file));
    Bootstrap::of(owner, &server, ca_file).write(path)
}
