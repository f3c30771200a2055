//! Does the store hold together? What `portolan check` finds out, and repairs.
//!
//! Everything is read in pages in the order of its key, so that memory does not grow with
//! the store. Content and blob rows are compared in one walk over both, since both come in
//! the order of digests. A problem is what breaks a promise: content that is gone or has
//! another digest, references that do not agree with the manifests' own text, rows that
//! nothing will ever collect. Garbage (content that no row names, uploads that nobody goes
//! on with) is counted and is no problem: a crash leaves it by design.
//!
//! **Repair** goes in one direction only: rows are made to say what is really there. What
//! is left out can be pushed again, what is said to be there can be read. A manifest or a
//! tag is never removed. A blob row whose content is gone is, because while it stands
//! clients are told that the content is here and do not send it again; the manifests that
//! need it stay and are named in the report. Orphans are not deleted here but given to the
//! garbage collector, which deletes them after a day under its own locks, and leaves what
//! was pushed or claimed in between.
//!
//! A check may run beside servers on the same store: what looks wrong is looked at again
//! before it is a problem. A repair may not.

mod content;
mod preview;
mod report;
mod rows;
mod upkeep;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use portolan_store::blob::Blobs;
use portolan_store::meta::{Meta, Tx, check};
use portolan_types::{Digest, Timestamp};

pub use preview::{GarbagePreview, Going, preview};
pub use report::{Checked, DamagedImage, Garbage, IMAGES_MAX, PROBLEMS_MAX, Problem, Progress, Report};

use crate::{Error, Result};

/// Rows in one page.
const PAGE_ITEMS: usize = 1_000;
/// Digests of bad content kept, to name the images that need them.
const BAD_ITEMS_MAX: usize = 100_000;

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Compare sizes of blobs and do not hash them.
    pub quick: bool,
    /// Repair what can be. The store must be nobody else's meanwhile.
    pub repair: bool,
    /// How long the collector leaves alone what a repair gives to it.
    pub grace: Duration,
    /// The time.
    pub now: Timestamp,
}

/// Check a store. `progress` is told now and then where the check is.
///
/// Errors: a store that cannot be read at all. Whatever is wrong in it is in the report.
pub async fn run(
    meta: &Meta,
    blobs: &Arc<dyn Blobs>,
    options: Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report> {
    let names = meta.read(|tx| check::registries(tx).map_err(Error::from)).await?;
    let mut checker = Checker {
        meta,
        blobs,
        options,
        progress,
        report: Report::default(),
        registries: names.into_iter().collect(),
        bad: HashSet::new(),
        bytes_total: 0,
    };
    checker.engine().await?;
    checker.repos().await?;
    checker.content().await?;
    checker.manifests().await?;
    checker.stray_refs().await?;
    checker.tags().await?;
    checker.links().await?;
    checker.uploads().await?;
    checker.reviews().await?;
    checker.leases().await?;
    checker.objects().await?;
    checker.sequences().await?;
    checker.usage().await?;
    Ok(checker.report)
}

struct Checker<'a> {
    meta: &'a Meta,
    blobs: &'a Arc<dyn Blobs>,
    options: Options,
    progress: &'a (dyn Fn(Progress) + Sync),
    report: Report,
    registries: HashMap<i64, String>,
    /// Content that is gone or damaged.
    bad: HashSet<Digest>,
    bytes_total: u64,
}

impl Checker<'_> {
    fn tell(&self, stage: &'static str, items: u64) {
        let (bytes, bytes_total) = (self.report.checked.bytes_hashed, self.bytes_total);
        (self.progress)(Progress { stage, items, bytes, bytes_total });
    }

    fn problem(&mut self, code: &'static str, about: impl Into<String>, message: impl Into<String>, repaired: bool) {
        self.report.problems_total += 1;
        self.report.repaired_total += u64::from(repaired);
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(Problem { code, about: about.into(), message: message.into(), repaired });
        }
    }

    fn damaged(&mut self, image: DamagedImage) {
        self.report.damaged_images_total += 1;
        if self.report.damaged_images.len() < IMAGES_MAX {
            self.report.damaged_images.push(image);
        }
    }

    /// Run a statement that repairs; whether it was asked for.
    async fn repair<F>(&self, f: F) -> Result<bool>
    where
        F: FnOnce(&mut dyn Tx) -> Result<()> + Send + 'static,
    {
        if self.options.repair {
            self.meta.write(f).await?;
        }
        Ok(self.options.repair)
    }

    /// `registry/repository`, for messages.
    async fn repo_name(&self, id: i64) -> Result<(String, String)> {
        let found = self.meta.read(move |tx| check::repo_name(tx, id).map_err(Error::from)).await?;
        Ok(match found {
            Some((registry, name)) => (self.registry(registry), name),
            None => ("?".to_owned(), format!("repository {id}")),
        })
    }

    fn registry(&self, id: i64) -> String {
        self.registries.get(&id).cloned().unwrap_or_else(|| format!("registry {id}"))
    }

    /// The database's own check.
    async fn engine(&mut self) -> Result<()> {
        self.tell("database", 0);
        if self.meta.is_shared() {
            return Ok(());
        }
        let quick = self.options.quick;
        let lines = self.meta.read(move |tx| check::sqlite_self_check(tx, quick).map_err(Error::from)).await?;
        for line in lines {
            let message = format!("{line}; restore the database from a backup");
            self.problem("database-damaged", "portolan.db", message, false);
        }
        Ok(())
    }
}
