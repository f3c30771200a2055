//! `portolan check`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use portolan_service::check::{self, GarbagePreview, Options, Report};
use portolan_types::Timestamp;

use super::open::{self, Store};
use super::progress::{At, Progress, bytes};
use super::{Output, block_on, print};
use crate::server::graces;

/// Lines of one kind that the text shows; JSON has more.
const LINES_MAX: usize = 50;
/// Entries of the collector's queue that `--garbage` looks at.
const REVIEWS_MAX: u64 = 100_000_000;

/// The flags of `portolan check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 nothing is wrong; 1 something was, and all of it is repaired; 2 problems
remain; 3 the store could not be checked.

A store with SQLite must not be in use by a server. One with PostgreSQL may be, but not
for --repair. Content that no row names, and uploads that were
given up, are garbage that a crash leaves by design: they are counted and are no problem.")]
pub struct CheckArgs {
    /// Settings file of the server (TOML); also PORTOLAN_CONFIG
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's data folder [default: ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Compare the sizes of blobs, and do not read them
    #[arg(long)]
    quick: bool,
    /// Repair what can be repaired; never removes a manifest or a tag
    #[arg(long, conflicts_with = "garbage")]
    repair: bool,
    /// Check nothing; list what garbage collection will remove, and how much that frees
    #[arg(long)]
    garbage: bool,
    /// With --garbage: as of so many seconds from now
    #[arg(long, value_name = "SECS", default_value_t = 0, requires = "garbage")]
    ahead_secs: u64,
    /// How the outcome is written
    #[arg(short, long, value_enum, value_name = "FORM", default_value = "table")]
    output: Output,
}

/// `portolan check`: look over a store; the exit code.
///
/// Errors: a store that is not there, is in use, or cannot be read.
pub fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let settings = open::settings(args.config.clone(), args.data.as_deref())?;
    block_on(async {
        let store = Store::existing(&settings).await?;
        if args.repair {
            store.alone().await?;
        }
        let now = Timestamp::now();
        let done = if args.garbage {
            let ahead = Duration::from_secs(args.ahead_secs);
            let found = check::preview(&store.meta, now, ahead, REVIEWS_MAX).await;
            found.context("look at the collector's queue").and_then(|found| {
                print(&match args.output {
                    Output::Json => serde_json::to_string_pretty(&found)?,
                    Output::Table => garbage_text(&found),
                });
                Ok(0)
            })
        } else {
            let options = Options { quick: args.quick, repair: args.repair, grace: graces(&settings).link, now };
            let line = Progress::new();
            let tell = |p: check::Progress| {
                line.tell(At { stage: p.stage, items: p.items, bytes: p.bytes, bytes_total: p.bytes_total });
            };
            let report = check::run(&store.meta, &store.blobs, options, &tell).await;
            line.end();
            report.context("check the store").and_then(|report| {
                print(&match args.output {
                    Output::Json => serde_json::to_string_pretty(&report)?,
                    Output::Table => text(&report),
                });
                Ok(report.exit_code())
            })
        };
        store.close().await;
        done
    })
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let c = &report.checked;
    let _ = writeln!(
        out,
        "checked {} repositories, {} manifests, {} tags, {} blobs ({} hashed), {} uploads, {} objects, {} events",
        c.repositories,
        c.manifests,
        c.tags,
        c.blobs,
        bytes(c.bytes_hashed),
        c.uploads,
        c.objects,
        c.events
    );
    let g = &report.garbage;
    for (count, what) in [
        (g.orphans, "blobs that no row names"),
        (g.stray_uploads, "uploads that were given up"),
        (g.empty_uploads, "uploads without content"),
        (g.empty_repositories, "empty repositories"),
        (g.stray_blocks, "blocks of contexts that were given up"),
    ] {
        if count > 0 {
            let size = if what.starts_with("blobs") { format!(" ({})", bytes(g.orphan_bytes)) } else { String::new() };
            let _ = writeln!(out, "garbage: {count} {what}{size}");
        }
    }
    if g.orphans_queued > 0 {
        let _ = writeln!(out, "garbage: {} of them were given to the collector", g.orphans_queued);
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    for problem in report.problems.iter().take(LINES_MAX) {
        let state = if problem.repaired { "repaired" } else { "PROBLEM" };
        let _ = writeln!(out, "{state}: {}: {}: {}", problem.code, problem.about, problem.message);
    }
    if report.problems_total > LINES_MAX as u64 {
        let _ = writeln!(out, "… {} problems in all; -o json has more of them", report.problems_total);
    }
    if report.damaged_images_total > 0 {
        let _ = writeln!(out, "images to push again:");
    }
    for image in report.damaged_images.iter().take(LINES_MAX) {
        let name = format!("{}/{}", image.registry, image.repository);
        match image.tags.as_slice() {
            [] => {
                let _ = writeln!(out, "  {name}@{}", image.digest);
            }
            tags => {
                for tag in tags {
                    let _ = writeln!(out, "  {name}:{tag}");
                }
            }
        }
    }
    let _ = match report.exit_code() {
        0 => writeln!(out, "the store is clean"),
        1 => writeln!(out, "{} problems, all repaired", report.problems_total),
        _ => writeln!(
            out,
            "{} problems, {} repaired{}",
            report.problems_total,
            report.repaired_total,
            if report.repaired_total == 0 { "; see `portolan check --help` for --repair" } else { "" }
        ),
    };
    out
}

fn garbage_text(found: &GarbagePreview) -> String {
    let mut out = String::new();
    for going in found.going.iter().take(LINES_MAX) {
        let from = going.repository.as_deref().map(|r| format!(" from {r}")).unwrap_or_default();
        let _ = writeln!(out, "{} {}{from}, {}, due {}", going.kind, going.digest, bytes(going.bytes), going.due);
    }
    if found.going.len() > LINES_MAX {
        let _ = writeln!(out, "…");
    }
    let _ = writeln!(
        out,
        "{} reviews are due: {} links and {} blobs would go, {} would be free",
        found.reviews,
        found.links,
        found.blobs,
        bytes(found.bytes)
    );
    out
}
