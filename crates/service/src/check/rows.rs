//! Repositories, manifests, references, tags and links: do the rows agree with the
//! manifests' own text, and with each other?

use portolan_store::meta::check::{self, ManifestRow};
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::manifest::{self, RefKind};
use portolan_store::meta::{Tx, blob, repo};
use portolan_types::oci::ManifestView;
use portolan_types::{Digest, RepoName};

use super::{Checker, DamagedImage, PAGE_ITEMS};
use crate::{Error, Result};

/// Manifests looked at in one transaction: each is read whole, one at a time.
const MANIFESTS_PAGE: usize = 200;
/// Tags and missing digests told of one damaged image.
const TOLD_MAX: usize = 20;

/// What one manifest's text and rows said.
#[derive(Default)]
struct Verdict {
    /// The text is not what its digest says, or cannot be read.
    damaged: Option<String>,
    /// `manifest_ref` says something else than the text.
    refs: bool,
    /// The subject's column says something else.
    subject: bool,
    /// Blobs it needs and its repository may not read, though they are stored.
    unlinked: Vec<(Digest, u64)>,
    /// Blobs it needs that are not stored.
    missing: Vec<Digest>,
    /// Children that are not there.
    children: u64,
    /// What the text needs.
    needs: (Vec<Digest>, Vec<Digest>, Option<Digest>),
}

fn judge(tx: &mut dyn Tx, row: &ManifestRow) -> Result<Option<Verdict>> {
    let (repo, digest) = (row.repo, row.digest);
    // Deleted since the page was read.
    let Some((bytes, media_type, _)) = manifest::content(tx, repo, &digest)? else { return Ok(None) };
    let mut verdict = Verdict::default();
    let actual = Digest::of_with(digest.algorithm(), &bytes);
    if actual != digest || bytes.len() as u64 != row.size {
        verdict.damaged =
            Some(format!("its {} bytes have digest {actual} ({} bytes were stored)", bytes.len(), row.size));
        return Ok(Some(verdict));
    }
    let view = match ManifestView::parse(&bytes, Some(&media_type)) {
        Ok(view) => view,
        Err(e) => {
            verdict.damaged = Some(format!("it cannot be read as {media_type}: {e}"));
            return Ok(Some(verdict));
        }
    };
    let mut blobs: Vec<Digest> = view.blobs().map(|b| b.digest).collect();
    let mut manifests: Vec<Digest> = view.manifests().iter().map(|m| m.digest).collect();
    let mut same = true;
    for (list, kind) in [(&mut blobs, RefKind::Blob), (&mut manifests, RefKind::Manifest)] {
        list.sort_unstable();
        list.dedup();
        let mut rows = manifest::needs(tx, repo, &digest, kind)?;
        rows.sort_unstable();
        same &= rows == *list;
    }
    verdict.refs = !same;
    let subject = view.subject.as_ref().map(|s| s.digest);
    verdict.subject = subject != row.subject;
    for lacking in blob::missing(tx, repo, &blobs)? {
        match blob::stored_size(tx, &lacking)? {
            Some(size) => verdict.unlinked.push((lacking, size)),
            None => verdict.missing.push(lacking),
        }
    }
    verdict.children = manifest::missing(tx, repo, &manifests)?.len() as u64;
    verdict.needs = (blobs, manifests, subject);
    Ok(Some(verdict))
}

impl Checker<'_> {
    pub(super) async fn repos(&mut self) -> Result<()> {
        let mut after = 0;
        loop {
            let page = self.meta.read(move |tx| check::repos(tx, after, PAGE_ITEMS).map_err(Error::from)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for row in page {
                self.report.checked.repositories += 1;
                let about = format!("{}/{}", self.registry(row.registry), row.name);
                if !row.registry_there {
                    let message = "its registry is not there; nobody can reach it";
                    self.problem("repository-without-registry", about, message, false);
                } else if row.name.parse::<RepoName>().is_err() {
                    self.problem("repository-name", about, "its name is not one", false);
                } else if !row.used {
                    self.report.garbage.empty_repositories += 1;
                    self.repair(move |tx| Ok(repo::remove_if_unused(tx, row.id).map(drop)?)).await?;
                }
            }
            self.tell("repositories", self.report.checked.repositories);
        }
    }

    pub(super) async fn manifests(&mut self) -> Result<()> {
        let mut after = (0, None);
        loop {
            let page = self.meta.read(move |tx| {
                let rows = check::manifests(tx, after, MANIFESTS_PAGE)?;
                let judged = rows.into_iter().map(|row| judge(tx, &row).map(|verdict| (row, verdict)));
                judged.collect::<Result<Vec<_>, Error>>()
            });
            let page = page.await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = (last.repo, Some(last.digest));
            for (row, verdict) in page {
                self.report.checked.manifests += 1;
                if let Some(verdict) = verdict {
                    self.settle(row, verdict).await?;
                }
            }
            self.tell("manifests", self.report.checked.manifests);
        }
    }

    async fn settle(&mut self, row: ManifestRow, mut verdict: Verdict) -> Result<()> {
        let (repo, digest) = (row.repo, row.digest);
        for needed in &verdict.needs.0 {
            if self.bad.contains(needed) && !verdict.missing.contains(needed) {
                verdict.missing.push(*needed);
            }
        }
        let fine = verdict.damaged.is_none()
            && verdict.missing.is_empty()
            && verdict.unlinked.is_empty()
            && !verdict.refs
            && !verdict.subject;
        if verdict.children > 0 {
            self.incomplete_index(repo, &digest, verdict.children).await?;
        }
        if fine {
            return Ok(());
        }
        let (registry, repository) = self.repo_name(repo).await?;
        let about = format!("{registry}/{repository}@{digest}");
        let (blobs, manifests, subject) = verdict.needs;
        if verdict.refs {
            let repaired = self.repair(move |tx| Ok(check::set_refs(tx, repo, &digest, &blobs, &manifests)?)).await?;
            let message = "the table of references does not agree with its text";
            self.problem("references-wrong", &about, message, repaired);
        }
        if verdict.subject {
            let repaired = self.repair(move |tx| Ok(check::set_subject(tx, repo, &digest, subject)?)).await?;
            self.problem("subject-wrong", &about, "its row says it is about something else", repaired);
        }
        for (needed, size) in verdict.unlinked {
            if self.bad.contains(&needed) {
                continue;
            }
            let (now, grace) = (self.options.now, self.options.grace);
            let repaired =
                self.repair(move |tx| Ok(blob::link(tx, repo, &needed, size, now, grace).map(drop)?)).await?;
            let message = format!("it needs {needed}, which is stored and which its repository may not read");
            self.problem("link-missing", &about, message, repaired);
        }
        let tags = move |tx: &mut dyn Tx| check::tags_of(tx, repo, &digest, TOLD_MAX).map_err(Error::from);
        if verdict.damaged.is_some() || !verdict.missing.is_empty() {
            let message = match &verdict.damaged {
                Some(why) => format!("{why}; push it again"),
                None => format!("it needs {} blobs that are gone or damaged; push it again", verdict.missing.len()),
            };
            self.problem("image-damaged", about, message, false);
            let missing = verdict.missing.iter().take(TOLD_MAX).map(Digest::to_string).collect();
            let tags = self.meta.read(tags).await?;
            self.damaged(DamagedImage { registry, repository, digest: digest.to_string(), tags, missing });
        }
        Ok(())
    }

    /// A client may delete a child of an index, as in ACR; the index stays.
    async fn incomplete_index(&mut self, repo: i64, digest: &Digest, children: u64) -> Result<()> {
        if self.report.notes.len() < TOLD_MAX {
            let (registry, repository) = self.repo_name(repo).await?;
            let note = format!("{registry}/{repository}@{digest}: {children} of the manifests it lists were deleted");
            self.report.notes.push(note);
        }
        Ok(())
    }

    pub(super) async fn stray_refs(&mut self) -> Result<()> {
        let found = self.meta.read(|tx| check::stray_refs(tx, PAGE_ITEMS).map_err(Error::from)).await?;
        for (repo, parent) in found {
            let repaired = self.repair(move |tx| Ok(check::set_refs(tx, repo, &parent, &[], &[])?)).await?;
            let message = "there are references of this manifest, and there is no such manifest";
            self.problem("references-stray", parent.to_string(), message, repaired);
        }
        Ok(())
    }

    pub(super) async fn tags(&mut self) -> Result<()> {
        let mut after = (0, String::new());
        loop {
            let from = after.clone();
            let page =
                self.meta.read(move |tx| check::tags(tx, (from.0, &from.1), PAGE_ITEMS).map_err(Error::from)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.repo, last.name.clone());
            for row in page {
                self.report.checked.tags += 1;
                if !row.there {
                    let (registry, repository) = self.repo_name(row.repo).await?;
                    let about = format!("{registry}/{repository}:{}", row.name);
                    let message = format!("it points at {}, which is not there; push it again", row.digest);
                    self.problem("tag-dangling", about, message, false);
                }
            }
            self.tell("tags", self.report.checked.tags);
        }
    }

    pub(super) async fn links(&mut self) -> Result<()> {
        let mut after = (0, None);
        loop {
            let page = self.meta.read(move |tx| check::links(tx, after, PAGE_ITEMS).map_err(Error::from)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.repo, Some(last.digest));
            for row in page {
                self.report.checked.links += 1;
                let (repo, digest) = (row.repo, row.digest);
                if !row.there {
                    let repaired = self.repair(move |tx| Ok(check::forget_blob(tx, &digest)?)).await?;
                    let message = "a repository may read this blob, and there is no such blob";
                    self.problem("link-dangling", digest.to_string(), message, repaired);
                } else if !row.kept {
                    let due = self.options.now.plus(self.options.grace);
                    let review = Review::Link { repo, digest };
                    let repaired = self.repair(move |tx| Ok(gc::enqueue(tx, review, due)?)).await?;
                    let message = "no manifest needs it and the collector does not know of it";
                    self.problem("link-forgotten", digest.to_string(), message, repaired);
                }
            }
            self.tell("links", self.report.checked.links);
        }
    }
}
