//! Content beside the rows that name it.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt as _;
use portolan_store::Error as StoreError;
use portolan_store::blob::Blobs;
use portolan_store::meta::check::{self, BlobRow};
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::{Meta, blob, peer};
use portolan_types::{Digest, Hasher};

use super::{BAD_ITEMS_MAX, Checker, PAGE_ITEMS};
use crate::{Error, Kind, Result};

/// Blobs hashed at one time.
const PARALLEL_MAX: usize = 4;

/// Rows of blobs in order of digests, a page at a time.
struct Rows<'a> {
    meta: &'a Meta,
    page: VecDeque<BlobRow>,
    after: Option<Digest>,
    ended: bool,
}

impl Rows<'_> {
    async fn peek(&mut self) -> Result<Option<BlobRow>> {
        if self.page.is_empty() && !self.ended {
            let after = self.after;
            self.page = self
                .meta
                .read(move |tx| check::blobs(tx, after.as_ref(), PAGE_ITEMS).map_err(Error::from))
                .await?
                .into();
            self.ended = self.page.len() < PAGE_ITEMS;
            self.after = self.page.back().map(|row| row.digest);
        }
        Ok(self.page.front().copied())
    }
}

/// Stored content in order of digests, a page at a time.
struct Files<'a> {
    blobs: &'a Arc<dyn Blobs>,
    page: VecDeque<(Digest, u64)>,
    after: Option<Digest>,
    ended: bool,
}

impl Files<'_> {
    async fn peek(&mut self) -> Result<Option<(Digest, u64)>> {
        if self.page.is_empty() && !self.ended {
            self.page = self.blobs.list(self.after, PAGE_ITEMS).await?.into();
            self.ended = self.page.len() < PAGE_ITEMS;
            self.after = self.page.back().map(|(digest, _)| *digest);
        }
        Ok(self.page.front().copied())
    }
}

/// What hashing said of one blob.
enum Hashed {
    /// It has its digest, and so many bytes.
    Right(u64),
    /// It has another.
    Wrong(u64),
    /// It is gone, or cannot be read; why.
    Unreadable(String),
}

async fn hash(blobs: Arc<dyn Blobs>, digest: Digest) -> Hashed {
    let read = async {
        let mut stream = blobs.read(&digest, 0..u64::MAX).await?;
        let (mut hasher, mut len) = (Hasher::new(digest.algorithm()), 0u64);
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|e| StoreError::io("read a blob", e))?;
            len += piece.len() as u64;
            hasher.update(&piece);
        }
        Ok::<_, StoreError>((hasher.finish(), len))
    };
    match read.await {
        Ok((actual, len)) if actual == digest => Hashed::Right(len),
        Ok((_, len)) => Hashed::Wrong(len),
        Err(e) => Hashed::Unreadable(e.to_string()),
    }
}

impl Checker<'_> {
    /// Walk over rows and content together.
    pub(super) async fn content(&mut self) -> Result<()> {
        let (_, bytes) = self.meta.read(|tx| check::blob_totals(tx).map_err(Error::from)).await?;
        self.bytes_total = if self.options.quick { 0 } else { bytes };
        let mut rows = Rows { meta: self.meta, page: VecDeque::new(), after: None, ended: false };
        let mut files = Files { blobs: self.blobs, page: VecDeque::new(), after: None, ended: false };
        let mut both: Vec<(BlobRow, u64)> = Vec::new();
        loop {
            match (rows.peek().await?, files.peek().await?) {
                (None, None) => break,
                (Some(row), Some((digest, len))) if row.digest == digest => {
                    both.push((row, len));
                    rows.page.pop_front();
                    files.page.pop_front();
                }
                (Some(row), file) if file.is_none_or(|(digest, _)| row.digest < digest) => {
                    rows.page.pop_front();
                    self.report.checked.blobs += 1;
                    self.without_content(row).await?;
                }
                (_, Some((digest, len))) => {
                    files.page.pop_front();
                    self.without_row(digest, len).await?;
                }
                // The arm before takes every row that has no file beside it.
                (Some(_), None) => break,
            }
            if both.len() >= PAGE_ITEMS {
                self.compare(std::mem::take(&mut both)).await?;
            }
        }
        self.compare(both).await
    }

    async fn compare(&mut self, page: Vec<(BlobRow, u64)>) -> Result<()> {
        for (row, _) in &page {
            if !row.linked && !row.watched {
                let digest = row.digest;
                let due = self.options.now.plus(self.options.grace);
                let again = self.meta.read(move |tx| {
                    Ok::<_, Error>(
                        blob::exists(tx, &digest)?
                            && !blob::is_linked(tx, &digest)?
                            && !check::is_watched(tx, &digest)?,
                    )
                });
                if again.await? {
                    let repaired = self.repair(move |tx| Ok(gc::enqueue(tx, Review::Blob(digest), due)?)).await?;
                    let message = "nothing needs this blob and the collector does not know of it";
                    self.problem("blob-forgotten", digest.to_string(), message, repaired);
                }
            }
        }
        let quick = self.options.quick;
        let (certain, doubtful): (Vec<_>, Vec<_>) = page.into_iter().partition(|(row, len)| quick && row.size == *len);
        self.report.checked.blobs += certain.len() as u64;
        let blobs = self.blobs;
        let mut hashes = futures_util::stream::iter(doubtful)
            .map(|(row, _)| async move {
                // A task of its own, so that several are hashed at the same time.
                let hashing = tokio::spawn(hash(Arc::clone(blobs), row.digest));
                (row, hashing.await)
            })
            .buffer_unordered(PARALLEL_MAX);
        while let Some((row, hashed)) = hashes.next().await {
            let hashed = hashed
                .map_err(|cause| Error::new(Kind::Internal, "UNKNOWN", "hashing a blob failed").with_source(cause))?;
            self.report.checked.blobs += 1;
            if let Hashed::Right(len) | Hashed::Wrong(len) = hashed {
                self.report.checked.bytes_hashed += len;
            }
            match hashed {
                Hashed::Right(len) if len == row.size => {}
                Hashed::Right(len) => {
                    let digest = row.digest;
                    let repaired = self.repair(move |tx| Ok(check::set_blob_size(tx, &digest, len)?)).await?;
                    let message = format!("its row says {} bytes, it has {len}", row.size);
                    self.problem("blob-size", digest.to_string(), message, repaired);
                }
                Hashed::Wrong(len) => self.wrong_content(row, len).await?,
                Hashed::Unreadable(why) => {
                    if self.blobs.size(&row.digest).await?.is_none() {
                        self.without_content(row).await?;
                    } else {
                        let message = format!("its content cannot be read: {why}");
                        self.note_bad(row.digest);
                        self.problem("content-unreadable", row.digest.to_string(), message, false);
                    }
                }
            }
            self.tell("content", self.report.checked.blobs);
        }
        drop(hashes);
        self.tell("content", self.report.checked.blobs);
        Ok(())
    }

    fn note_bad(&mut self, digest: Digest) {
        if self.bad.len() < BAD_ITEMS_MAX {
            self.bad.insert(digest);
        } else if self.bad.len() == BAD_ITEMS_MAX && self.bad.insert(digest) {
            let note = format!("more than {BAD_ITEMS_MAX} blobs are bad: not all damaged images are named");
            self.report.notes.push(note);
        }
    }

    /// A row says that a blob is stored, and it is not.
    async fn without_content(&mut self, row: BlobRow) -> Result<()> {
        let digest = row.digest;
        // Beside a server: it may have been collected, or put in place, since.
        let still = self.meta.read(move |tx| blob::exists(tx, &digest).map_err(Error::from)).await?;
        if !still || self.blobs.size(&digest).await?.is_some() {
            return Ok(());
        }
        self.note_bad(digest);
        let repaired = self.repair(move |tx| Ok(check::forget_blob(tx, &digest)?)).await?;
        let message = format!("its row says {} bytes are stored, and there is nothing", row.size);
        self.problem("content-missing", digest.to_string(), message, repaired);
        Ok(())
    }

    /// Content that has not the digest it is stored under.
    async fn wrong_content(&mut self, row: BlobRow, len: u64) -> Result<()> {
        let digest = row.digest;
        self.note_bad(digest);
        let aside = format!("damaged/{}-{}", digest.algorithm().as_str(), digest.hex());
        let mut message = format!("its {len} bytes have another digest ({} bytes were stored)", row.size);
        if self.options.repair {
            let body = self.blobs.read(&digest, 0..u64::MAX).await?;
            self.blobs.object_put(&aside, body, u64::MAX).await?;
            // The rows first: until the content is gone nobody is told that it is here.
            self.meta.write(move |tx| check::forget_blob(tx, &digest).map_err(Error::from)).await?;
            self.blobs.delete(&digest).await?;
            message.push_str(&format!("; what was there is kept as the object {aside}"));
        }
        self.problem("content-damaged", digest.to_string(), message, self.options.repair);
        Ok(())
    }

    /// Content that no blob row names: a build's, an orphan, or one on its way out.
    async fn without_row(&mut self, digest: Digest, len: u64) -> Result<()> {
        let known = self.meta.read(move |tx| {
            Ok::<_, Error>(
                check::is_watched(tx, &digest)? || blob::exists(tx, &digest)? || peer::is_pushed(tx, &digest)?,
            )
        });
        if known.await? {
            return Ok(());
        }
        self.report.garbage.orphans += 1;
        self.report.garbage.orphan_bytes += len;
        let due = self.options.now.plus(self.options.grace);
        let queued = self.repair(move |tx| Ok(gc::enqueue(tx, Review::File(digest), due)?)).await?;
        self.report.garbage.orphans_queued += u64::from(queued);
        Ok(())
    }
}
