//! `portolan migrate`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use portolan_service::check;
use portolan_service::migrate::{self, Half, Moved};
use portolan_types::Timestamp;

use super::open::{self, Store};
use super::progress::{At, Progress, bytes};
use super::{Output, block_on, print};
use crate::files;
use crate::settings::Settings;

/// The largest of the small files copied.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Files that move beside the master key and the CA.
const FILES: &[(&str, u32)] = &[("bootstrap.json", 0o600)];

/// The flags of `portolan migrate`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Moves a registry from one pair of engines to any other: SQLite and disk to PostgreSQL and a
bucket, and back. Neither store may be in use. The source is only read, and marked at the
end; the target must be empty, or this migration's own half-done work. Killed or failed, it
goes on where it was when it is run again. Settings come from the files and flags alone;
PORTOLAN_* is not looked at.

master.key, bootstrap.json and the CA are copied to the target's data folder unless they
are there. Give every further server of the target the same master.key.

Exit codes: 0 moved; 3 not moved, and why.")]
pub struct MigrateArgs {
    /// The source: the data folder of a server with SQLite and local disk
    #[arg(long, value_name = "DIR", required_unless_present = "from_config", conflicts_with = "from_config")]
    from_data: Option<PathBuf>,
    /// The source: the settings file of its server
    #[arg(long, value_name = "FILE")]
    from_config: Option<PathBuf>,
    /// The target: the settings file of the server that is to serve it
    #[arg(long, value_name = "FILE", required_unless_present = "take_back")]
    to_config: Option<PathBuf>,
    /// Begin the rows again, when the source was served in between; content stays
    #[arg(long, conflicts_with = "take_back")]
    restart: bool,
    /// Do not migrate: let the source of a finished migration be served again
    #[arg(long, conflicts_with = "to_config")]
    take_back: bool,
    /// How the outcome is written
    #[arg(short, long, value_enum, value_name = "FORM", default_value = "table")]
    output: Output,
}

/// `portolan migrate`: move a registry to other engines; the exit code.
///
/// Errors: stores that are in use, not there or not empty, and everything of
/// [`migrate::run`].
pub fn migrate(args: &MigrateArgs) -> anyhow::Result<u8> {
    let from = open::plain_settings(args.from_config.as_deref(), args.from_data.as_deref())?;
    let to = args.to_config.as_deref().map(|file| open::plain_settings(Some(file), None)).transpose()?;
    block_on(async {
        let source = Store::existing(&from).await.context("open the source")?;
        source.alone().await.context("open the source")?;
        let Some(to) = to else {
            let was = migrate::take_back(&source.meta).await.context("take the mark from the source")?;
            source.close().await;
            print(if was { "this store can be served again" } else { "this store was not moved" });
            return Ok(0);
        };
        let done = across(&source, &from, &to, args).await;
        source.close().await;
        let moved = done?;
        print(&match args.output {
            Output::Json => serde_json::to_string_pretty(&moved)?,
            Output::Table => text(&moved),
        });
        Ok(0)
    })
}

async fn across(source: &Store, from: &Settings, to: &Settings, args: &MigrateArgs) -> anyhow::Result<Moved> {
    let target = Store::beside(to, source).await.context("open the target")?;
    target.alone().await.context("open the target")?;
    keys(from, &source.data, to, &target.data)?;
    let name = args.to_config.as_deref().map(Path::display).map(|at| at.to_string()).unwrap_or_default();
    let line = Progress::new();
    let tell = |p: check::Progress| {
        line.tell(At { stage: p.stage, items: p.items, bytes: p.bytes, bytes_total: p.bytes_total });
    };
    let half = |store: &Store| Half { meta: store.meta.clone(), blobs: store.blobs.clone() };
    let moved = migrate::run(&half(source), &half(&target), &name, args.restart, Timestamp::now(), &tell).await;
    line.end();
    target.close().await;
    moved.map_err(|e| match &e.source {
        Some(cause) => anyhow::anyhow!("{}: {cause}", e.message),
        None => anyhow::anyhow!("{}", e.message),
    })
}

/// Copy what every sealed secret and every client's trust hangs on.
fn keys(source: &Settings, from: &Path, target: &Settings, to: &Path) -> anyhow::Result<()> {
    let read = |path: &Path| files::read(path, FILE_BYTES_MAX).with_context(|| format!("read {}", path.display()));
    let of =
        |settings: &Settings, data: &Path| settings.master_key_file.clone().unwrap_or_else(|| data.join("master.key"));
    let (theirs, ours) = (of(source, from), of(target, to));
    let Some(master) = read(&theirs)? else {
        bail!("{} is missing: without it nothing sealed in the database can be used", theirs.display());
    };
    match read(&ours)? {
        Some(there) if there.trim_ascii() != master.trim_ascii() => bail!(
            "{} is another key than the source's, and what is sealed in the database is sealed under that: give the \
             target the source's key, or a data folder of its own",
            ours.display()
        ),
        Some(_) => {}
        None => files::replace(&ours, &master, 0o600).with_context(|| format!("write {}", ours.display()))?,
    }
    if from == to {
        return Ok(());
    }
    let mut all: Vec<(PathBuf, u32)> = FILES.iter().map(|(name, mode)| (PathBuf::from(name), *mode)).collect();
    if let Ok(entries) = std::fs::read_dir(from.join("tls")) {
        files::private_dir(&to.join("tls")).context("make the target's tls folder")?;
        for entry in entries {
            let name = entry.context("list the source's tls folder")?.file_name();
            all.push((Path::new("tls").join(name), 0o600));
        }
    }
    for (name, mode) in all {
        let (source, target) = (from.join(&name), to.join(&name));
        if target.exists() {
            continue;
        }
        if let Some(content) = read(&source)? {
            files::replace(&target, &content, mode).with_context(|| format!("write {}", target.display()))?;
        }
    }
    Ok(())
}

fn text(moved: &Moved) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "moved {} rows, {} blobs ({} copied{}) and {} logs and contexts{}",
        moved.rows,
        moved.blobs,
        bytes(moved.bytes_copied),
        if moved.blobs_present > 0 { format!(", {} were there", moved.blobs_present) } else { String::new() },
        moved.objects,
        if moved.resumed { ", going on with what was begun" } else { "" }
    );
    for left in &moved.left {
        let _ = writeln!(out, "not moved: {left}");
    }
    let _ = writeln!(out, "rows and content were compared; the source says that it has moved, and will not be served");
    out
}
