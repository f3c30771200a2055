//! Uploads, the collector's queue, leases, named objects, and the numbers given out.

use std::time::{Duration, SystemTime};

use portolan_store::meta::{check, object, upload, usage};
use portolan_types::UploadId;

use super::{Checker, PAGE_ITEMS};
use crate::{Error, Result};

/// A review further in the future than this was written under a wrong clock.
const DUE_DAYS_MAX: u64 = 400;
/// An upload's content younger than this may be that of a request under way.
const YOUNG_SECS: u64 = 60;

impl Checker<'_> {
    pub(super) async fn uploads(&mut self) -> Result<()> {
        let mut after = String::new();
        loop {
            let from = after.clone();
            let page = self.meta.read(move |tx| check::uploads(tx, &from, PAGE_ITEMS).map_err(Error::from)).await?;
            let Some(last) = page.last() else { break };
            after = last.to_string();
            for id in page {
                self.report.checked.uploads += 1;
                if self.blobs.length(id).await?.is_none() {
                    self.report.garbage.empty_uploads += 1;
                    self.repair(move |tx| Ok(upload::delete(tx, id).map(drop)?)).await?;
                }
            }
        }
        let older = SystemTime::now().checked_sub(Duration::from_secs(YOUNG_SECS)).unwrap_or(SystemTime::UNIX_EPOCH);
        for id in self.blobs.stale_uploads(older).await? {
            if !self.meta.read(move |tx| upload::exists(tx, id).map_err(Error::from)).await? {
                self.stray_upload(id).await?;
            }
        }
        self.tell("uploads", self.report.checked.uploads);
        Ok(())
    }

    async fn stray_upload(&mut self, id: UploadId) -> Result<()> {
        self.report.garbage.stray_uploads += 1;
        if self.options.repair {
            self.blobs.abort(id).await?;
        }
        Ok(())
    }

    pub(super) async fn reviews(&mut self) -> Result<()> {
        let mut after = (i64::MIN, 0, None);
        let latest = self.options.now.plus(Duration::from_secs(DUE_DAYS_MAX * 86_400));
        loop {
            let page = self.meta.read(move |tx| check::reviews(tx, after, PAGE_ITEMS).map_err(Error::from)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.kind, last.repo, Some(last.digest));
            for row in page {
                self.report.checked.reviews += 1;
                let about = row.digest.to_string();
                let known = match row.kind {
                    1 => true,
                    2 | 3 => row.repo == 0,
                    _ => false,
                };
                if !known {
                    let message = format!("the collector's queue has an entry of kind {} for it", row.kind);
                    let repaired = self.repair(move |tx| Ok(check::drop_review(tx, &row)?)).await?;
                    self.problem("review-unknown", about, message, repaired);
                } else if row.due > latest {
                    let due = self.options.now.plus(self.options.grace);
                    let message = format!("it is to be reviewed on {}: the clock was wrong", row.due.rfc3339());
                    let repaired = self.repair(move |tx| Ok(check::set_due(tx, &row, due)?)).await?;
                    self.problem("review-too-late", about, message, repaired);
                }
            }
            self.tell("reviews", self.report.checked.reviews);
        }
    }

    pub(super) async fn leases(&mut self) -> Result<()> {
        let mut after = (String::new(), None);
        loop {
            let from = after.clone();
            let page = self.meta.read(move |tx| check::leases(tx, (&from.0, from.1), PAGE_ITEMS).map_err(Error::from));
            let page = page.await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.holder.clone(), Some(last.digest));
            // A lease may be taken before its content comes, and its content lost in a crash:
            // builds ask for the content itself. It ends by itself.
            self.report.checked.leases += page.len() as u64;
            self.tell("leases", self.report.checked.leases);
        }
    }

    pub(super) async fn objects(&mut self) -> Result<()> {
        let mut after = String::new();
        loop {
            let from = after.clone();
            let page = self.meta.read(move |tx| check::objects(tx, &from, PAGE_ITEMS).map_err(Error::from)).await?;
            let Some(last) = page.last() else { break };
            after = last.key.clone();
            for row in page {
                self.report.checked.objects += 1;
                let expired = row.expires.is_some_and(|at| at <= self.options.now);
                let Some(size) = row.size.filter(|_| !expired) else { continue };
                let have = self.blobs.object_len(&row.key).await?;
                if have.is_none() {
                    let key = row.key.clone();
                    let repaired = self.repair(move |tx| Ok(object::delete(tx, &key)?)).await?;
                    let message = format!("a {} of {size} bytes that is not in the store", row.kind);
                    self.problem("object-missing", row.key, message, repaired);
                }
            }
            self.tell("objects", self.report.checked.objects);
        }
        let mut after = (String::new(), String::new());
        loop {
            let from = after.clone();
            let page = self.meta.read(move |tx| {
                let mut strays = 0u64;
                let page = check::object_blocks(tx, (&from.0, &from.1), PAGE_ITEMS)?;
                for (key, _) in &page {
                    strays += u64::from(object::get(tx, key)?.is_none());
                }
                Ok::<_, Error>((page.last().cloned(), strays))
            });
            let (last, strays) = page.await?;
            self.report.garbage.stray_blocks += strays;
            let Some(last) = last else { return Ok(()) };
            after = last;
        }
    }

    /// After everything else: what was repaired changed what is held.
    pub(super) async fn usage(&mut self) -> Result<()> {
        let wrong = self.meta.read(|tx| usage::wrong(tx).map_err(Error::from)).await?;
        if wrong > 0 {
            let repaired = self.repair(|tx| Ok(usage::rebuild(tx)?)).await?;
            let message = format!("{wrong} repositories and registries hold other sums of bytes than are written down");
            self.problem("usage-wrong", "storage", message, repaired);
        }
        Ok(())
    }

    pub(super) async fn sequences(&mut self) -> Result<()> {
        self.report.checked.events = self.meta.read(|tx| check::events(tx).map_err(Error::from)).await?;
        let found = self.meta.read(|tx| check::sequences(tx).map_err(Error::from)).await?;
        for row in found {
            if row.value < row.largest {
                let repaired = self.repair(move |tx| Ok(check::set_sequence(tx, row.name, row.largest)?)).await?;
                let message = format!("it stands at {}, and {} is in use", row.value, row.largest);
                self.problem("sequence-behind", row.name, message, repaired);
            }
        }
        self.tell("events", self.report.checked.events);
        Ok(())
    }
}
