//! How many bytes registries and repositories hold, kept up to date with every link.
//!
//! A blob that several repositories may read is stored once. Of a repository these figures
//! say how many bytes of distinct blobs it may read, and how many of them no other
//! repository of its registry has: what deleting it gives back. Of a registry the same,
//! among the registries.
//!
//! Reading a figure is one row, whatever the store holds. For that, each link that comes or
//! goes moves the figures on, in its transaction: the number of holders of the blob tells
//! whose figures change, and the sum of the holders' numbers tells who the only one is, so
//! that nobody has to look for it. [`rebuild`] counts all anew.

use portolan_types::{Digest, RepoName};

use super::tx::{all, one};
use super::{Row, RowExt, Tx, Value};
use crate::{Error, Result};

/// What a registry or a repository holds, in bytes of distinct blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// All of them.
    pub bytes: u64,
    /// Those that no other one of the same kind has.
    pub unique_bytes: u64,
}

impl Figures {
    /// Those that another one has too.
    pub fn shared_bytes(self) -> u64 {
        self.bytes.saturating_sub(self.unique_bytes)
    }
}

fn figures(row: &dyn Row, i: usize) -> Result<Figures> {
    Ok(Figures { bytes: row.uint(i)?, unique_bytes: row.uint(i + 1)? })
}

/// What a registry holds.
pub fn of_registry(tx: &mut dyn Tx, registry: i64) -> Result<Figures> {
    let sql = "SELECT bytes, unique_bytes FROM storage_use WHERE repo = 0 AND registry = ?1";
    Ok(one(tx, sql, &[registry.into()], |row| figures(row, 0))?.unwrap_or_default())
}

/// What a repository holds.
pub fn of_repo(tx: &mut dyn Tx, registry: i64, repo: i64) -> Result<Figures> {
    let sql = "SELECT bytes, unique_bytes FROM storage_use WHERE repo = ?1 AND registry = ?2";
    Ok(one(tx, sql, &[repo.into(), registry.into()], |row| figures(row, 0))?.unwrap_or_default())
}

/// What the repositories of a registry hold that people see, by name, after `after`.
pub fn repos(tx: &mut dyn Tx, registry: i64, after: &str, limit: usize) -> Result<Vec<(RepoName, Figures)>> {
    let sql = "SELECT r.name, COALESCE(u.bytes, 0), COALESCE(u.unique_bytes, 0) FROM repo r \
         LEFT JOIN storage_use u ON u.repo = r.id AND u.registry = r.registry \
         WHERE r.registry = ?1 AND r.name > ?2 AND EXISTS (SELECT 1 FROM manifest m WHERE m.repo = r.id) \
         ORDER BY r.name LIMIT ?3";
    all(tx, sql, &[registry.into(), after.into(), limit.into()], |row| Ok((row.parsed(0)?, figures(row, 1)?)))
}

/// How many holders a blob has after a change, the sum of their numbers, its size.
struct Holders {
    registry: i64,
    size: i64,
    count: i64,
    sum: i64,
}

const HOLDERS: &str = "RETURNING registry, size, holders, holder_sum";

fn holders(row: &dyn Row) -> Result<Holders> {
    Ok(Holders { registry: row.int(0)?, size: row.int(1)?, count: row.int(2)?, sum: row.int(3)? })
}

/// A change of one row of `storage_use`.
#[derive(Clone, Copy)]
struct Change {
    repo: i64,
    registry: i64,
    bytes: i64,
    unique_bytes: i64,
}

impl Change {
    fn of(repo: i64, registry: i64, bytes: i64, unique_bytes: i64) -> Change {
        Change { repo, registry, bytes, unique_bytes }
    }
}

/// Apply changes; what the registry of a change with repo 0 that was given first holds then.
///
/// Two of one row become one: PostgreSQL refuses to change a row twice in a statement. There
/// are such only where rows disagreed and are being repaired.
fn apply(tx: &mut dyn Tx, given: &[Change]) -> Result<Vec<(i64, i64, i64)>> {
    let mut changes: Vec<Change> = Vec::with_capacity(given.len());
    for new in given {
        match changes.iter_mut().find(|c| (c.repo, c.registry) == (new.repo, new.registry)) {
            Some(same) => {
                same.bytes += new.bytes;
                same.unique_bytes += new.unique_bytes;
            }
            None => changes.push(*new),
        }
    }
    let rows: Vec<String> = (0..changes.len())
        .map(|i| format!("(?{}, ?{}, ?{}, ?{})", i * 4 + 1, i * 4 + 2, i * 4 + 3, i * 4 + 4))
        .collect();
    let sql = format!(
        "INSERT INTO storage_use (repo, registry, bytes, unique_bytes) VALUES {} \
         ON CONFLICT (repo, registry) DO UPDATE SET bytes = storage_use.bytes + excluded.bytes, \
         unique_bytes = storage_use.unique_bytes + excluded.unique_bytes RETURNING repo, registry, bytes",
        rows.join(", ")
    );
    let params: Vec<Value<'_>> =
        changes.iter().flat_map(|c| [c.repo, c.registry, c.bytes, c.unique_bytes]).map(Value::from).collect();
    all(tx, &sql, &params, |row| Ok((row.int(0)?, row.int(1)?, row.int(2)?)))
}

/// A repository may read a blob that it might not before. What its registry holds now, when
/// that is more than before.
pub(super) fn linked(tx: &mut dyn Tx, repo: i64, digest: &Digest, size: u64) -> Result<Option<u64>> {
    let sql = format!(
        "INSERT INTO blob_use (registry, digest, size, holders, holder_sum) \
         VALUES ((SELECT registry FROM repo WHERE id = ?1), ?2, ?3, 1, ?1) \
         ON CONFLICT (registry, digest) DO UPDATE SET holders = blob_use.holders + 1, \
         holder_sum = blob_use.holder_sum + excluded.holder_sum {HOLDERS}"
    );
    let now = one(tx, &sql, &[repo.into(), digest.into(), size.into()], holders)?;
    let now = now.ok_or_else(|| Error::Database("a blob's use has no row".into()))?;
    let (registry, size) = (now.registry, now.size);
    let mut changes = vec![Change::of(repo, registry, size, if now.count == 1 { size } else { 0 })];
    if now.count == 2 {
        changes.push(Change::of(now.sum - repo, registry, 0, -size));
    }
    if now.count > 1 {
        apply(tx, &changes)?;
        return Ok(None);
    }
    let sql = format!(
        "INSERT INTO blob_use (registry, digest, size, holders, holder_sum) VALUES (0, ?1, ?2, 1, ?3) \
         ON CONFLICT (registry, digest) DO UPDATE SET holders = blob_use.holders + 1, \
         holder_sum = blob_use.holder_sum + excluded.holder_sum {HOLDERS}"
    );
    let registries = one(tx, &sql, &[digest.into(), size.into(), registry.into()], holders)?;
    let registries = registries.ok_or_else(|| Error::Database("a blob's use has no row".into()))?;
    changes.push(Change::of(0, registry, size, if registries.count == 1 { size } else { 0 }));
    if registries.count == 2 {
        changes.push(Change::of(0, registries.sum - registry, 0, -size));
    }
    let after = apply(tx, &changes)?;
    let held = after.iter().find(|(repo, of, _)| *repo == 0 && *of == registry).map(|(_, _, bytes)| *bytes);
    Ok(held.and_then(|bytes| u64::try_from(bytes).ok()))
}

/// A repository may no longer read a blob.
pub(super) fn unlinked(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<()> {
    let sql = format!(
        "UPDATE blob_use SET holders = holders - 1, holder_sum = holder_sum - ?1 \
         WHERE registry = (SELECT registry FROM repo WHERE id = ?1) AND digest = ?2 {HOLDERS}"
    );
    let Some(now) = one(tx, &sql, &[repo.into(), digest.into()], holders)? else { return Ok(()) };
    let (registry, size) = (now.registry, now.size);
    let mut changes = vec![Change::of(repo, registry, -size, if now.count == 0 { -size } else { 0 })];
    if now.count == 1 {
        changes.push(Change::of(now.sum, registry, 0, size));
    }
    if now.count == 0 {
        forget(tx, registry, digest)?;
        let sql = format!(
            "UPDATE blob_use SET holders = holders - 1, holder_sum = holder_sum - ?1 \
             WHERE registry = 0 AND digest = ?2 {HOLDERS}"
        );
        if let Some(registries) = one(tx, &sql, &[registry.into(), digest.into()], holders)? {
            changes.push(Change::of(0, registry, -size, if registries.count == 0 { -size } else { 0 }));
            match registries.count {
                0 => forget(tx, 0, digest)?,
                1 => changes.push(Change::of(0, registries.sum, 0, size)),
                _ => {}
            }
        }
    }
    apply(tx, &changes)?;
    Ok(())
}

fn forget(tx: &mut dyn Tx, registry: i64, digest: &Digest) -> Result<()> {
    tx.execute("DELETE FROM blob_use WHERE registry = ?1 AND digest = ?2", &[registry.into(), digest.into()])?;
    Ok(())
}

/// A repository is gone, with all its links.
pub(super) fn repo_removed(tx: &mut dyn Tx, repo: i64) -> Result<()> {
    tx.execute("DELETE FROM storage_use WHERE repo = ?1", &[repo.into()])?;
    Ok(())
}

/// All repositories of a registry are about to go.
pub(super) fn registry_removed(tx: &mut dyn Tx, registry: i64) -> Result<()> {
    let of = &[registry.into()];
    // What only one other registry has besides is that one's alone now.
    tx.execute(
        "INSERT INTO storage_use (repo, registry, bytes, unique_bytes) \
         SELECT 0, a.holder_sum - ?1, 0, CAST(SUM(a.size) AS BIGINT) FROM blob_use a \
         JOIN blob_use u ON u.registry = ?1 AND u.digest = a.digest \
         WHERE a.registry = 0 AND a.holders = 2 GROUP BY a.holder_sum \
         ON CONFLICT (repo, registry) DO UPDATE SET unique_bytes = storage_use.unique_bytes + excluded.unique_bytes",
        of,
    )?;
    let own = "(SELECT digest FROM blob_use WHERE registry = ?1)";
    tx.execute(
        &format!(
            "UPDATE blob_use SET holders = holders - 1, holder_sum = holder_sum - ?1 \
             WHERE registry = 0 AND digest IN {own}"
        ),
        of,
    )?;
    tx.execute(&format!("DELETE FROM blob_use WHERE registry = 0 AND holders = 0 AND digest IN {own}"), of)?;
    tx.execute("DELETE FROM blob_use WHERE registry = ?1", of)?;
    tx.execute("DELETE FROM storage_use WHERE repo IN (SELECT id FROM repo WHERE registry = ?1)", of)?;
    tx.execute("DELETE FROM storage_use WHERE repo = 0 AND registry = ?1", of)?;
    Ok(())
}

/// Every repository's and registry's figures, counted from the links.
const COUNTED: &str = "SELECT r.id AS repo, r.registry AS registry, CAST(SUM(b.size) AS BIGINT) AS bytes, \
       CAST(SUM(CASE WHEN h.n = 1 THEN b.size ELSE 0 END) AS BIGINT) AS unique_bytes \
     FROM repo_blob l JOIN repo r ON r.id = l.repo JOIN blob b ON b.digest = l.digest \
     JOIN (SELECT r2.registry AS registry, l2.digest AS digest, COUNT(*) AS n FROM repo_blob l2 \
           JOIN repo r2 ON r2.id = l2.repo GROUP BY r2.registry, l2.digest) h \
       ON h.registry = r.registry AND h.digest = l.digest \
     GROUP BY r.id, r.registry \
     UNION ALL \
     SELECT 0, x.registry, CAST(SUM(b.size) AS BIGINT), \
       CAST(SUM(CASE WHEN g.n = 1 THEN b.size ELSE 0 END) AS BIGINT) \
     FROM (SELECT DISTINCT r.registry AS registry, l.digest AS digest FROM repo_blob l \
           JOIN repo r ON r.id = l.repo) x \
     JOIN blob b ON b.digest = x.digest \
     JOIN (SELECT l.digest AS digest, COUNT(DISTINCT r.registry) AS n FROM repo_blob l \
           JOIN repo r ON r.id = l.repo GROUP BY l.digest) g ON g.digest = x.digest \
     GROUP BY x.registry";

/// How many repositories and registries have other figures than their links say. Counts
/// everything: for the offline check.
pub fn wrong(tx: &mut dyn Tx) -> Result<u64> {
    let kept = "SELECT repo, registry, bytes, unique_bytes FROM storage_use WHERE bytes <> 0 OR unique_bytes <> 0";
    let mut wrong = 0;
    for (some, others) in [(kept, COUNTED), (COUNTED, kept)] {
        let sql = format!(
            "SELECT COUNT(*) FROM (SELECT * FROM ({some}) a EXCEPT SELECT * FROM ({others}) b) c \
             WHERE bytes <> 0 OR unique_bytes <> 0"
        );
        wrong += one(tx, &sql, &[], |row| row.uint(0))?.unwrap_or(0);
    }
    Ok(wrong)
}

/// Count everything anew.
pub fn rebuild(tx: &mut dyn Tx) -> Result<()> {
    for sql in [
        "DELETE FROM blob_use",
        "DELETE FROM storage_use",
        "INSERT INTO blob_use (registry, digest, size, holders, holder_sum) \
         SELECT r.registry, l.digest, MAX(b.size), COUNT(*), CAST(SUM(r.id) AS BIGINT) \
         FROM repo_blob l JOIN repo r ON r.id = l.repo JOIN blob b ON b.digest = l.digest GROUP BY r.registry, l.digest",
        "INSERT INTO blob_use (registry, digest, size, holders, holder_sum) \
         SELECT 0, digest, MAX(size), COUNT(*), CAST(SUM(registry) AS BIGINT) FROM blob_use GROUP BY digest",
        &format!("INSERT INTO storage_use (repo, registry, bytes, unique_bytes) {COUNTED}"),
    ] {
        tx.execute(sql, &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portolan_types::Timestamp;

    use super::super::event::{Change as Event, Stamp};
    use super::super::group::{self, GroupRow};
    use super::super::registry::{self, RegistryRow};
    use super::super::{Meta, blob, repo};
    use super::*;

    const T: Timestamp = Timestamp(1_000_000);
    const GRACE: Duration = Duration::from_secs(60);

    fn digest(n: u64) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    /// A repository of a registry; both are made when they are not there.
    fn open(tx: &mut dyn Tx, registry: i64, name: &str) -> Result<i64> {
        let there = one(tx, "SELECT 1 FROM registry WHERE id = ?1", &[registry.into()], |_| Ok(()))?;
        if there.is_none() {
            let group = GroupRow {
                name: "rg".parse().unwrap(),
                location: "here".into(),
                tags: "{}".into(),
                created: T,
                updated: T,
            };
            group::put(tx, &group)?;
            while registry::insert(tx, &row())? < registry {}
        }
        let stamp = Stamp { hlc: 1, region: "here".into() };
        let change = Event { registry, actor: "t".into(), request: "r".into(), now: T, stamp };
        Ok(repo::ensure(tx, &change, &name.parse().unwrap())?.id)
    }

    fn row() -> RegistryRow {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        RegistryRow {
            id: 0,
            name: format!("registry{}", NEXT.fetch_add(1, Ordering::Relaxed)).parse().unwrap(),
            group: "rg".parse().unwrap(),
            location: "here".into(),
            sku: "Premium".into(),
            is_default: false,
            admin_enabled: false,
            admin_generations: [0, 0],
            tags: "{}".into(),
            properties: "{}".into(),
            created: T,
            updated: T,
        }
    }

    fn both(tx: &mut dyn Tx, registry: i64, repo: i64) -> Result<[(u64, u64); 2]> {
        let plain = |f: Figures| (f.bytes, f.shared_bytes());
        Ok([plain(of_registry(tx, registry)?), plain(of_repo(tx, registry, repo)?)])
    }

    #[tokio::test]
    async fn what_is_shared_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open_sqlite(&dir.path().join("meta.db")).unwrap();
        let done = meta.write(|tx| {
            let (a, b, far) = (open(tx, 1, "a")?, open(tx, 1, "b")?, open(tx, 2, "a")?);
            let link = |tx: &mut dyn Tx, repo, n, size| blob::link(tx, repo, &digest(n), size, T, GRACE);
            assert_eq!(link(tx, a, 1, 100)?, Some(100));
            assert_eq!(link(tx, a, 1, 100)?, None, "again");
            assert_eq!(both(tx, 1, a)?, [(100, 0), (100, 0)]);
            assert_eq!(link(tx, b, 1, 100)?, None, "the registry has it");
            assert_eq!(both(tx, 1, a)?, [(100, 0), (100, 100)]);
            assert_eq!(both(tx, 1, b)?, [(100, 0), (100, 100)]);
            assert_eq!(link(tx, b, 2, 10)?, Some(110));
            assert_eq!(link(tx, far, 1, 100)?, Some(100));
            assert_eq!(both(tx, 1, b)?, [(110, 100), (110, 100)]);
            assert_eq!(both(tx, 2, far)?, [(100, 100), (100, 0)]);
            assert!(blob::unlink(tx, a, &digest(1))? && !blob::unlink(tx, a, &digest(1))?);
            assert_eq!(both(tx, 1, b)?, [(110, 100), (110, 0)]);
            assert_eq!(both(tx, 1, a)?[1], (0, 0));
            repo::delete_registry(tx, 1, T)?;
            assert_eq!(both(tx, 1, b)?, [(0, 0), (0, 0)]);
            assert_eq!(both(tx, 2, far)?, [(100, 0), (100, 0)]);
            assert_eq!(wrong(tx)?, 0);
            tx.execute("UPDATE storage_use SET bytes = bytes + 1 WHERE repo = 0", &[])?;
            assert!(wrong(tx)? > 0);
            rebuild(tx)?;
            assert_eq!((both(tx, 2, far)?, wrong(tx)?), ([(100, 0), (100, 0)], 0));
            Ok::<_, Error>(())
        });
        done.await.unwrap();
        meta.close().await;
    }

    /// Any links and unlinks, in any order, leave what counting finds.
    #[tokio::test]
    async fn figures_are_what_counting_finds() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open_sqlite(&dir.path().join("meta.db")).unwrap();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let steps: Vec<(u64, i64, u64, u64)> =
            (0..600).map(|_| (random(10), 1 + random(3) as i64, random(4), random(12))).collect();
        let done = meta.write(move |tx| {
            for (n, (what, registry, name, blob)) in steps.into_iter().enumerate() {
                let name = format!("repo{name}");
                match what {
                    0 => {
                        repo::delete_registry(tx, registry, T)?;
                    }
                    1..=3 => {
                        if let Some(found) = repo::find(tx, registry, &name.parse().unwrap())? {
                            blob::unlink(tx, found.id, &digest(blob))?;
                            repo::remove_if_unused(tx, found.id)?;
                        }
                    }
                    _ => {
                        let id = open(tx, registry, &name)?;
                        blob::link(tx, id, &digest(blob), blob * 7 + 1, T, GRACE)?;
                    }
                }
                if n % 20 == 0 {
                    assert_eq!(wrong(tx)?, 0, "after step {n}");
                }
            }
            assert_eq!(wrong(tx)?, 0);
            let kept =
                all(tx, "SELECT repo, registry, bytes, unique_bytes FROM storage_use WHERE bytes > 0", &[], |r| {
                    Ok((r.int(0)?, r.int(1)?, r.int(2)?, r.int(3)?))
                })?;
            rebuild(tx)?;
            assert!(!kept.is_empty() && wrong(tx)? == 0);
            Ok::<_, Error>(())
        });
        done.await.unwrap();
        meta.close().await;
    }
}
