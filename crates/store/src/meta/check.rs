//! What `portolan check` asks of the database: every table in pages, in the order of its
//! key, so that the memory it takes does not grow with the store; and the few statements
//! that repair.
//!
//! A page begins after the last key of the one before. Whether a row leans on something
//! that is there is answered with the row.

use portolan_types::{Digest, Timestamp, UploadId};

use super::tx::{all, digest_bytes, one};
use super::{Row, RowExt, Tx, Value, blob};
use crate::Result;

/// Lines that one self-check of SQLite's may say.
const SELF_CHECK_LINES_MAX: usize = 100;

fn key(digest: Option<&Digest>) -> Value<'static> {
    Value::Blob(digest.map(digest_bytes).unwrap_or_default().into())
}

/// SQLite's own check of its file, and of its foreign keys; empty when it finds nothing.
/// `quick` leaves out the comparison of indexes with their tables. Not for PostgreSQL,
/// whose pages the operator checks with `pg_amcheck`.
pub fn sqlite_self_check(tx: &mut dyn Tx, quick: bool) -> Result<Vec<String>> {
    let pragma = if quick { "quick_check" } else { "integrity_check" };
    let sql = format!("PRAGMA {pragma}({SELF_CHECK_LINES_MAX})");
    let mut lines: Vec<String> = all(tx, &sql, &[], |row| row.text(0))?;
    lines.retain(|line| line != "ok");
    tx.query("PRAGMA foreign_key_check", &[], &mut |row| {
        if lines.len() < SELF_CHECK_LINES_MAX {
            lines.push(format!("a row of {} leans on a row of {} that is not there", row.text(0)?, row.text(2)?));
        }
        Ok(())
    })?;
    Ok(lines)
}

/// Numbers and names of all registries.
pub fn registries(tx: &mut dyn Tx) -> Result<Vec<(i64, String)>> {
    all(tx, "SELECT id, name FROM registry ORDER BY id", &[], |row| Ok((row.int(0)?, row.text(1)?)))
}

/// A repository, and whether anything keeps it.
#[derive(Clone, Debug)]
pub struct RepoRow {
    /// Its id.
    pub id: i64,
    /// Its registry's number.
    pub registry: i64,
    /// Its name, as stored.
    pub name: String,
    /// Whether the registry is there.
    pub registry_there: bool,
    /// Whether a manifest, a link or an upload is in it.
    pub used: bool,
}

/// Repositories after `after`, by id.
pub fn repos(tx: &mut dyn Tx, after: i64, limit: usize) -> Result<Vec<RepoRow>> {
    let sql = "SELECT id, registry, name, \
         CASE WHEN EXISTS (SELECT 1 FROM registry WHERE registry.id = repo.registry) THEN 1 ELSE 0 END, \
         CASE WHEN EXISTS (SELECT 1 FROM manifest WHERE manifest.repo = repo.id) \
           OR EXISTS (SELECT 1 FROM repo_blob WHERE repo_blob.repo = repo.id) \
           OR EXISTS (SELECT 1 FROM upload WHERE upload.repo = repo.id) THEN 1 ELSE 0 END \
         FROM repo WHERE id > ?1 ORDER BY id LIMIT ?2";
    all(tx, sql, &[after.into(), limit.into()], |row| {
        Ok(RepoRow {
            id: row.int(0)?,
            registry: row.int(1)?,
            name: row.text(2)?,
            registry_there: row.bool(3)?,
            used: row.bool(4)?,
        })
    })
}

/// The registry's number and the name of a repository.
pub fn repo_name(tx: &mut dyn Tx, id: i64) -> Result<Option<(i64, String)>> {
    one(tx, "SELECT registry, name FROM repo WHERE id = ?1", &[id.into()], |row| Ok((row.int(0)?, row.text(1)?)))
}

/// A stored blob's row, and what keeps it.
#[derive(Clone, Copy, Debug)]
pub struct BlobRow {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes, as the row says.
    pub size: u64,
    /// Whether a repository may read it.
    pub linked: bool,
    /// Whether a lease or a review will have the collector look at it.
    pub watched: bool,
}

const WATCHED: &str = "EXISTS (SELECT 1 FROM lease WHERE lease.digest = blob.digest) \
     OR EXISTS (SELECT 1 FROM gc_queue WHERE gc_queue.kind IN (2, 3) AND gc_queue.repo = 0 AND gc_queue.digest = blob.digest)";

/// Blobs after `after`, by digest.
pub fn blobs(tx: &mut dyn Tx, after: Option<&Digest>, limit: usize) -> Result<Vec<BlobRow>> {
    let sql = format!(
        "SELECT digest, size, \
         CASE WHEN EXISTS (SELECT 1 FROM repo_blob WHERE repo_blob.digest = blob.digest) THEN 1 ELSE 0 END, \
         CASE WHEN {WATCHED} THEN 1 ELSE 0 END FROM blob WHERE digest > ?1 ORDER BY digest LIMIT ?2"
    );
    all(tx, &sql, &[key(after), limit.into()], |row| {
        Ok(BlobRow { digest: row.digest(0)?, size: row.uint(1)?, linked: row.bool(2)?, watched: row.bool(3)? })
    })
}

/// How many blobs there are, and their bytes.
pub fn blob_totals(tx: &mut dyn Tx) -> Result<(u64, u64)> {
    let sql = "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blob";
    Ok(one(tx, sql, &[], |row| Ok((row.uint(0)?, row.uint(1)?)))?.unwrap_or((0, 0)))
}

/// Whether anything knows of content that has no blob row: a lease, or a review that will
/// remove it.
pub fn is_watched(tx: &mut dyn Tx, digest: &Digest) -> Result<bool> {
    let sql = "SELECT 1 FROM lease WHERE digest = ?1 UNION ALL \
         SELECT 1 FROM gc_queue WHERE kind IN (2, 3) AND repo = 0 AND digest = ?1 LIMIT 1";
    Ok(one(tx, sql, &[digest.into()], |_| Ok(()))?.is_some())
}

/// A manifest without its bytes.
#[derive(Clone, Debug)]
pub struct ManifestRow {
    /// Its repository's id.
    pub repo: i64,
    /// Its digest.
    pub digest: Digest,
    /// Bytes of the document, as the row says.
    pub size: u64,
    /// What the row says it is about.
    pub subject: Option<Digest>,
}

/// Manifests after `after`, by repository and digest.
pub fn manifests(tx: &mut dyn Tx, after: (i64, Option<Digest>), limit: usize) -> Result<Vec<ManifestRow>> {
    let sql = "SELECT repo, digest, size, subject FROM manifest WHERE (repo, digest) > (?1, ?2) \
         ORDER BY repo, digest LIMIT ?3";
    all(tx, sql, &[after.0.into(), key(after.1.as_ref()), limit.into()], |row| {
        Ok(ManifestRow { repo: row.int(0)?, digest: row.digest(1)?, size: row.uint(2)?, subject: row.opt_digest(3)? })
    })
}

/// Write anew what a manifest needs.
pub fn set_refs(tx: &mut dyn Tx, repo: i64, parent: &Digest, blobs: &[Digest], manifests: &[Digest]) -> Result<()> {
    tx.execute("DELETE FROM manifest_ref WHERE repo = ?1 AND parent = ?2", &[repo.into(), parent.into()])?;
    for (kind, children) in [(1, blobs), (2, manifests)] {
        for child in children {
            tx.execute(
                "INSERT INTO manifest_ref (repo, parent, kind, child) VALUES (?1, ?2, ?3, ?4)",
                &[repo.into(), parent.into(), kind.into(), child.into()],
            )?;
        }
    }
    Ok(())
}

/// Write anew what a manifest is about.
pub fn set_subject(tx: &mut dyn Tx, repo: i64, digest: &Digest, subject: Option<Digest>) -> Result<()> {
    tx.execute(
        "UPDATE manifest SET subject = ?3 WHERE repo = ?1 AND digest = ?2",
        &[repo.into(), digest.into(), subject.into()],
    )?;
    Ok(())
}

/// References without their manifest: repository and manifest, at most `limit`.
pub fn stray_refs(tx: &mut dyn Tx, limit: usize) -> Result<Vec<(i64, Digest)>> {
    let sql = "SELECT DISTINCT repo, parent FROM manifest_ref WHERE NOT EXISTS (SELECT 1 FROM manifest \
         WHERE manifest.repo = manifest_ref.repo AND manifest.digest = manifest_ref.parent) LIMIT ?1";
    all(tx, sql, &[limit.into()], |row| Ok((row.int(0)?, row.digest(1)?)))
}

/// A tag, and whether its manifest is there.
#[derive(Clone, Debug)]
pub struct TagRow {
    /// Its repository's id.
    pub repo: i64,
    /// Its name, as stored.
    pub name: String,
    /// What it points at.
    pub digest: Digest,
    /// Whether that is there.
    pub there: bool,
}

/// Tags after `after`, by repository and name.
pub fn tags(tx: &mut dyn Tx, after: (i64, &str), limit: usize) -> Result<Vec<TagRow>> {
    let sql = "SELECT repo, name, digest, CASE WHEN EXISTS (SELECT 1 FROM manifest \
         WHERE manifest.repo = tag.repo AND manifest.digest = tag.digest) THEN 1 ELSE 0 END \
         FROM tag WHERE (repo, name) > (?1, ?2) ORDER BY repo, name LIMIT ?3";
    all(tx, sql, &[after.0.into(), after.1.into(), limit.into()], |row| {
        Ok(TagRow { repo: row.int(0)?, name: row.text(1)?, digest: row.digest(2)?, there: row.bool(3)? })
    })
}

/// Names of tags of a manifest, at most `limit`.
pub fn tags_of(tx: &mut dyn Tx, repo: i64, digest: &Digest, limit: usize) -> Result<Vec<String>> {
    let sql = "SELECT name FROM tag WHERE repo = ?1 AND digest = ?2 ORDER BY name LIMIT ?3";
    all(tx, sql, &[repo.into(), digest.into(), limit.into()], |row| row.text(0))
}

/// A repository's link to a blob, and what keeps it.
#[derive(Clone, Copy, Debug)]
pub struct LinkRow {
    /// The repository's id.
    pub repo: i64,
    /// The blob.
    pub digest: Digest,
    /// Whether the blob has a row.
    pub there: bool,
    /// Whether a manifest needs it or a review will look at it.
    pub kept: bool,
}

/// Links after `after`, by repository and digest.
pub fn links(tx: &mut dyn Tx, after: (i64, Option<Digest>), limit: usize) -> Result<Vec<LinkRow>> {
    let sql = "SELECT repo, digest, \
         CASE WHEN EXISTS (SELECT 1 FROM blob WHERE blob.digest = l.digest) THEN 1 ELSE 0 END, \
         CASE WHEN EXISTS (SELECT 1 FROM manifest_ref r WHERE r.repo = l.repo AND r.child = l.digest AND r.kind = 1) \
           OR EXISTS (SELECT 1 FROM gc_queue q WHERE q.kind = 1 AND q.repo = l.repo AND q.digest = l.digest) \
           THEN 1 ELSE 0 END \
         FROM repo_blob l WHERE (repo, digest) > (?1, ?2) ORDER BY repo, digest LIMIT ?3";
    all(tx, sql, &[after.0.into(), key(after.1.as_ref()), limit.into()], |row| {
        Ok(LinkRow { repo: row.int(0)?, digest: row.digest(1)?, there: row.bool(2)?, kept: row.bool(3)? })
    })
}

/// Forget that a blob is stored, and every link to it, because its content is gone: then a
/// push that asks for it is told to send it again.
pub fn forget_blob(tx: &mut dyn Tx, digest: &Digest) -> Result<()> {
    for repo in all(tx, "SELECT repo FROM repo_blob WHERE digest = ?1", &[digest.into()], |row| row.int(0))? {
        blob::unlink(tx, repo, digest)?;
    }
    tx.execute("DELETE FROM blob WHERE digest = ?1", &[digest.into()])?;
    Ok(())
}

/// Write down how long a blob is.
pub fn set_blob_size(tx: &mut dyn Tx, digest: &Digest, size: u64) -> Result<()> {
    tx.execute("UPDATE blob SET size = ?2 WHERE digest = ?1", &[digest.into(), size.into()])?;
    Ok(())
}

/// Uploads after `after`, by id.
pub fn uploads(tx: &mut dyn Tx, after: &str, limit: usize) -> Result<Vec<UploadId>> {
    let sql = "SELECT id FROM upload WHERE id > ?1 ORDER BY id LIMIT ?2";
    all(tx, sql, &[after.into(), limit.into()], |row| row.parsed(0))
}

/// An entry of the review queue, unread.
#[derive(Clone, Debug)]
pub struct ReviewRow {
    /// 1 link, 2 blob, 3 file.
    pub kind: i64,
    /// The repository's id; 0 for kinds 2 and 3.
    pub repo: i64,
    /// The content.
    pub digest: Digest,
    /// When it is due.
    pub due: Timestamp,
}

/// Reviews after `after`, by kind, repository and digest.
pub fn reviews(tx: &mut dyn Tx, after: (i64, i64, Option<Digest>), limit: usize) -> Result<Vec<ReviewRow>> {
    let sql = "SELECT kind, repo, digest, due FROM gc_queue WHERE (kind, repo, digest) > (?1, ?2, ?3) \
         ORDER BY kind, repo, digest LIMIT ?4";
    all(tx, sql, &[after.0.into(), after.1.into(), key(after.2.as_ref()), limit.into()], |row| {
        Ok(ReviewRow { kind: row.int(0)?, repo: row.int(1)?, digest: row.digest(2)?, due: row.time(3)? })
    })
}

/// Take a review out, whatever it says.
pub fn drop_review(tx: &mut dyn Tx, row: &ReviewRow) -> Result<()> {
    tx.execute(
        "DELETE FROM gc_queue WHERE kind = ?1 AND repo = ?2 AND digest = ?3",
        &[row.kind.into(), row.repo.into(), (&row.digest).into()],
    )?;
    Ok(())
}

/// Have a review come at another time.
pub fn set_due(tx: &mut dyn Tx, row: &ReviewRow, due: Timestamp) -> Result<()> {
    tx.execute(
        "UPDATE gc_queue SET due = ?4 WHERE kind = ?1 AND repo = ?2 AND digest = ?3",
        &[row.kind.into(), row.repo.into(), (&row.digest).into(), due.into()],
    )?;
    Ok(())
}

/// A lease.
#[derive(Clone, Debug)]
pub struct LeaseRow {
    /// Who holds.
    pub holder: String,
    /// What.
    pub digest: Digest,
    /// Until when.
    pub until: Timestamp,
}

/// Leases after `after`, by holder and digest.
pub fn leases(tx: &mut dyn Tx, after: (&str, Option<Digest>), limit: usize) -> Result<Vec<LeaseRow>> {
    let sql = "SELECT holder, digest, until FROM lease WHERE (holder, digest) > (?1, ?2) \
         ORDER BY holder, digest LIMIT ?3";
    all(tx, sql, &[after.0.into(), key(after.1.as_ref()), limit.into()], |row| {
        Ok(LeaseRow { holder: row.text(0)?, digest: row.digest(1)?, until: row.time(2)? })
    })
}

/// A named object's row.
#[derive(Clone, Debug)]
pub struct ObjectRow {
    /// Its key.
    pub key: String,
    /// Its kind.
    pub kind: String,
    /// Bytes, once it is whole.
    pub size: Option<u64>,
    /// When it may go.
    pub expires: Option<Timestamp>,
}

/// Named objects after `after`, by key.
pub fn objects(tx: &mut dyn Tx, after: &str, limit: usize) -> Result<Vec<ObjectRow>> {
    let sql = "SELECT key, kind, size, expires FROM object WHERE key > ?1 ORDER BY key LIMIT ?2";
    all(tx, sql, &[after.into(), limit.into()], |row| {
        Ok(ObjectRow { key: row.text(0)?, kind: row.text(1)?, size: row.opt_uint(2)?, expires: row.opt_time(3)? })
    })
}

/// Blocks of objects in the making after `after`: the object's key and the block's, by both.
pub fn object_blocks(tx: &mut dyn Tx, after: (&str, &str), limit: usize) -> Result<Vec<(String, String)>> {
    let sql = "SELECT object, block FROM object_block WHERE (object, block) > (?1, ?2) \
         ORDER BY object, block LIMIT ?3";
    all(tx, sql, &[after.0.into(), after.1.into(), limit.into()], |row| Ok((row.text(0)?, row.text(1)?)))
}

/// A sequence beside the largest number it gave out.
#[derive(Clone, Debug)]
pub struct SequenceRow {
    /// Its name.
    pub name: &'static str,
    /// The number it gave out last; 0 for one that was never used.
    pub value: i64,
    /// The largest number in use.
    pub largest: i64,
}

/// The sequences, and the largest numbers in use. `event` numbers changes of runs too.
pub fn sequences(tx: &mut dyn Tx) -> Result<Vec<SequenceRow>> {
    let mut found = Vec::new();
    for (name, queries) in [
        ("registry", &["SELECT MAX(id) FROM registry"][..]),
        ("repo", &["SELECT MAX(id) FROM repo"]),
        ("event", &["SELECT MAX(seq) FROM event", "SELECT MAX(seq) FROM run_event"]),
    ] {
        let value = one(tx, "SELECT value FROM sequence WHERE name = ?1", &[name.into()], |row| row.int(0))?;
        let mut largest = 0;
        for sql in queries {
            largest = largest.max(one(tx, sql, &[], |row| row.opt_int(0))?.flatten().unwrap_or(0));
        }
        found.push(SequenceRow { name, value: value.unwrap_or(0), largest });
    }
    Ok(found)
}

/// Have a sequence go on after `value`.
pub fn set_sequence(tx: &mut dyn Tx, name: &str, value: i64) -> Result<()> {
    tx.execute(
        "INSERT INTO sequence (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &[name.into(), value.into()],
    )?;
    Ok(())
}

/// How many events there are.
pub fn events(tx: &mut dyn Tx) -> Result<u64> {
    Ok(one(tx, "SELECT COUNT(*) FROM event", &[], |row| row.uint(0))?.unwrap_or(0))
}

/// A review that would take something away, and what goes with it.
#[derive(Clone, Debug)]
pub struct Going {
    /// The review.
    pub review: ReviewRow,
    /// Whether its link or content would go.
    pub goes: bool,
    /// Bytes of content that would go with it; each blob's are counted at one of its reviews.
    pub bytes: u64,
}

/// The review queue as a round of the collector would decide it at `now`, were everything
/// due that is due at `until`; after `after`, by time. Nothing is changed.
pub fn preview(
    tx: &mut dyn Tx,
    after: Option<&ReviewRow>,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Going>> {
    let sql = "SELECT kind, repo, digest, due FROM gc_queue WHERE due <= ?1 AND (due, kind, repo, digest) > (?2, ?3, ?4, ?5) \
         ORDER BY due, kind, repo, digest LIMIT ?6";
    let first = ReviewRow { kind: 0, repo: 0, digest: Digest::Sha256([0; 32]), due: Timestamp(i64::MIN) };
    let from = after.unwrap_or(&first);
    let params =
        [until.into(), from.due.into(), from.kind.into(), from.repo.into(), (&from.digest).into(), limit.into()];
    let rows = all(tx, sql, &params, review)?;
    rows.into_iter().map(|review| decide(tx, review, now, until)).collect()
}

fn review(row: &dyn Row) -> Result<ReviewRow> {
    Ok(ReviewRow { kind: row.int(0)?, repo: row.int(1)?, digest: row.digest(2)?, due: row.time(3)? })
}

fn decide(tx: &mut dyn Tx, review: ReviewRow, now: Timestamp, until: Timestamp) -> Result<Going> {
    let digest: Value<'_> = (&review.digest).into();
    let mut ask = |sql: &str, params: &[Value<'_>]| -> Result<Option<i64>> {
        Ok(one(tx, sql, params, |row| row.opt_int(0))?.flatten())
    };
    let size = ask("SELECT size FROM blob WHERE digest = ?1", std::slice::from_ref(&digest))?;
    let leased = ask("SELECT 1 FROM lease WHERE digest = ?1 AND until > ?2 LIMIT 1", &[digest.clone(), now.into()])?;
    // Links that stay: a manifest needs the blob, or no review of theirs is due.
    let stays = "SELECT 1 FROM repo_blob l WHERE l.digest = ?1 AND (\
         EXISTS (SELECT 1 FROM manifest_ref r WHERE r.repo = l.repo AND r.child = l.digest AND r.kind = 1) \
         OR NOT EXISTS (SELECT 1 FROM gc_queue q WHERE q.kind = 1 AND q.repo = l.repo AND q.digest = l.digest \
         AND q.due <= ?2)) LIMIT 1";
    let blob_goes = leased.is_none() && ask(stays, &[digest.clone(), until.into()])?.is_none();
    let bytes = u64::try_from(size.unwrap_or(0)).unwrap_or(0);
    let (goes, counted) = match review.kind {
        1 => {
            let needed = "SELECT 1 FROM manifest_ref WHERE repo = ?1 AND child = ?2 AND kind = 1 LIMIT 1";
            let linked = "SELECT 1 FROM repo_blob WHERE repo = ?1 AND digest = ?2";
            let key = [review.repo.into(), digest.clone()];
            let goes = ask(linked, &key)?.is_some() && ask(needed, &key)?.is_none();
            let first = ask("SELECT MIN(repo) FROM repo_blob WHERE digest = ?1", &[digest])? == Some(review.repo);
            (goes, first)
        }
        2 => {
            let linked = ask("SELECT 1 FROM repo_blob WHERE digest = ?1 LIMIT 1", &[digest])?.is_some();
            (blob_goes && !linked, true)
        }
        _ => (size.is_none() && leased.is_none(), false),
    };
    Ok(Going { bytes: if goes && counted && blob_goes { bytes } else { 0 }, goes, review })
}
