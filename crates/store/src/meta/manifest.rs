//! Manifests, byte for byte as pushed, and what they need.

use portolan_types::{Digest, Tag, Timestamp};

use super::event::Change;
use super::repo::{After, Attributes, Order, order_by, page_filter};
use super::tx::{all, digest_bytes, one};
use super::{Row, RowExt, Tx, Value};
use crate::Result;

/// What a manifest needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefKind {
    /// A configuration, layer or artifact blob.
    Blob,
    /// A child of an index.
    Manifest,
}

impl RefKind {
    fn code(self) -> i64 {
        match self {
            RefKind::Blob => 1,
            RefKind::Manifest => 2,
        }
    }
}

/// A manifest about to be stored.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Its digest, under which it was or will be asked for.
    pub digest: Digest,
    /// The type it is served under.
    pub media_type: String,
    /// The document.
    pub bytes: bytes::Bytes,
    /// Bytes of configuration and layers, as their descriptors say; for an index it is
    /// computed from the children.
    pub image_size: u64,
    /// The configuration's media type.
    pub config_media_type: Option<String>,
    /// The configuration's architecture.
    pub architecture: Option<String>,
    /// The configuration's operating system.
    pub os: Option<String>,
    /// The manifest this one is about.
    pub subject: Option<Digest>,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Annotations as a JSON object.
    pub annotations: Option<String>,
    /// The blobs it needs.
    pub blobs: Vec<Digest>,
    /// The manifests it needs.
    pub manifests: Vec<Digest>,
}

/// A stored manifest without its bytes.
#[derive(Clone, Debug)]
pub struct ManifestInfo {
    /// Its digest.
    pub digest: Digest,
    /// The type it is served under.
    pub media_type: String,
    /// Bytes of the document.
    pub size: u64,
    /// Bytes of everything it needs.
    pub image_size: u64,
    /// The configuration's media type.
    pub config_media_type: Option<String>,
    /// The configuration's architecture.
    pub architecture: Option<String>,
    /// The configuration's operating system.
    pub os: Option<String>,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Annotations as a JSON object.
    pub annotations: Option<String>,
    /// Its locks.
    pub attributes: Attributes,
    /// When it was first pushed.
    pub created: Timestamp,
    /// When it was last pushed, tagged or changed.
    pub updated: Timestamp,
}

const COLUMNS: &str = "digest, media_type, size, image_size, config_media_type, architecture, os, artifact_type, \
     annotations, attrs, created, updated";

fn map(row: &dyn Row) -> Result<ManifestInfo> {
    Ok(ManifestInfo {
        digest: row.digest(0)?,
        media_type: row.text(1)?,
        size: row.uint(2)?,
        image_size: row.uint(3)?,
        config_media_type: row.opt_text(4)?,
        architecture: row.opt_text(5)?,
        os: row.opt_text(6)?,
        artifact_type: row.opt_text(7)?,
        annotations: row.opt_text(8)?,
        attributes: Attributes::from_bits(row.int(9)?),
        created: row.time(10)?,
        updated: row.time(11)?,
    })
}

/// Store a manifest and what it needs; when it is already there, note the time and write its
/// text again, which heals one that was damaged (the row is written anew either way). True
/// when it is new. The caller has checked that what it needs is there.
pub fn put(tx: &mut dyn Tx, change: &Change, repo: i64, new: &NewManifest) -> Result<bool> {
    let (now, hlc, region) = (change.now, change.stamp.hlc, &*change.stamp.region);
    let known = tx.execute(
        "UPDATE manifest SET updated = ?3, hlc = ?4, region = ?5, size = ?6, bytes = ?7 WHERE repo = ?1 AND digest = ?2",
        &[
            repo.into(),
            new.digest.into(),
            now.into(),
            hlc.into(),
            region.into(),
            new.bytes.len().into(),
            (&new.bytes).into(),
        ],
    )?;
    if known > 0 {
        return Ok(false);
    }
    let mut image_size = new.image_size;
    for child in &new.manifests {
        let of_child = one(
            tx,
            "SELECT image_size FROM manifest WHERE repo = ?1 AND digest = ?2",
            &[repo.into(), child.into()],
            |row| row.uint(0),
        )?;
        image_size = image_size.saturating_add(of_child.unwrap_or(0));
    }
    tx.execute(
        "INSERT INTO manifest (repo, digest, media_type, size, image_size, config_media_type, architecture, os, subject, \
         artifact_type, annotations, attrs, created, updated, hlc, region, bytes) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13, ?14, ?15, ?16)",
        &[
            repo.into(),
            new.digest.into(),
            new.media_type.as_str().into(),
            new.bytes.len().into(),
            image_size.into(),
            new.config_media_type.as_deref().into(),
            new.architecture.as_deref().into(),
            new.os.as_deref().into(),
            new.subject.into(),
            new.artifact_type.as_deref().into(),
            new.annotations.as_deref().into(),
            Attributes::ALL.to_bits().into(),
            now.into(),
            hlc.into(),
            region.into(),
            (&new.bytes).into(),
        ],
    )?;
    for (kind, children) in [(RefKind::Blob, &new.blobs), (RefKind::Manifest, &new.manifests)] {
        for child in children {
            tx.execute(
                "INSERT INTO manifest_ref (repo, parent, kind, child) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (repo, parent, kind, child) DO NOTHING",
                &[repo.into(), new.digest.into(), kind.code().into(), child.into()],
            )?;
        }
    }
    Ok(true)
}

/// Those of `digests` that are not manifests of this repository.
pub fn missing(tx: &mut dyn Tx, repo: i64, digests: &[Digest]) -> Result<Vec<Digest>> {
    let mut missing = Vec::new();
    for digest in digests {
        let sql = "SELECT 1 FROM manifest WHERE repo = ?1 AND digest = ?2";
        if one(tx, sql, &[repo.into(), digest.into()], |_| Ok(()))?.is_none() {
            missing.push(*digest);
        }
    }
    Ok(missing)
}

/// A manifest without its bytes.
pub fn info(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<Option<ManifestInfo>> {
    let sql = format!("SELECT {COLUMNS} FROM manifest WHERE repo = ?1 AND digest = ?2");
    one(tx, &sql, &[repo.into(), digest.into()], map)
}

/// A manifest's bytes, media type and locks: what a pull needs.
pub fn content(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<Option<(Vec<u8>, String, Attributes)>> {
    one(
        tx,
        "SELECT bytes, media_type, attrs FROM manifest WHERE repo = ?1 AND digest = ?2",
        &[repo.into(), digest.into()],
        |row| Ok((row.bytes(0)?, row.text(1)?, Attributes::from_bits(row.int(2)?))),
    )
}

/// Listable manifests of a repository.
pub fn list(
    tx: &mut dyn Tx,
    repo: i64,
    order: Order,
    after: Option<After<Digest>>,
    limit: usize,
) -> Result<Vec<ManifestInfo>> {
    let mut params: Vec<Value<'_>> = vec![repo.into(), limit.into()];
    let mut filter = String::new();
    if let Some(after) = after {
        let time = match (order, after.time) {
            (Order::Name, _) | (_, Some(_)) => after.time,
            _ => info(tx, repo, &after.key)?.map(|m| m.updated),
        };
        filter = page_filter(order, "updated", "digest", &mut params, time, after.key.into());
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM manifest WHERE repo = ?1 AND (attrs & 4) <> 0{filter} ORDER BY {} LIMIT ?2",
        order_by(order, "updated", "digest"),
    );
    all(tx, &sql, &params, map)
}

/// Manifests whose subject is `subject`, by digest, after `after`.
pub fn referrers(
    tx: &mut dyn Tx,
    repo: i64,
    subject: &Digest,
    artifact_type: Option<&str>,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<ManifestInfo>> {
    let mut params: Vec<Value<'_>> = vec![
        repo.into(),
        subject.into(),
        limit.into(),
        Value::Blob(after.map(digest_bytes).unwrap_or_default().into()),
    ];
    let mut filter = "";
    if let Some(artifact_type) = artifact_type {
        params.push(artifact_type.into());
        filter = " AND artifact_type = ?5";
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM manifest WHERE repo = ?1 AND subject = ?2 AND digest > ?4{filter} ORDER BY digest LIMIT ?3"
    );
    all(tx, &sql, &params, map)
}

/// The digests that [`referrers`] would tell of, each with the bytes of its annotations: so
/// that a caller can bound what it asks for.
pub fn referrer_sizes(
    tx: &mut dyn Tx,
    repo: i64,
    subject: &Digest,
    artifact_type: Option<&str>,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<(Digest, u64)>> {
    let mut params: Vec<Value<'_>> = vec![
        repo.into(),
        subject.into(),
        limit.into(),
        Value::Blob(after.map(digest_bytes).unwrap_or_default().into()),
    ];
    let mut filter = "";
    if let Some(artifact_type) = artifact_type {
        params.push(artifact_type.into());
        filter = " AND artifact_type = ?5";
    }
    let sql = format!(
        "SELECT digest, COALESCE(OCTET_LENGTH(annotations), 0) FROM manifest \
         WHERE repo = ?1 AND subject = ?2 AND digest > ?4{filter} ORDER BY digest LIMIT ?3"
    );
    all(tx, &sql, &params, |row| Ok((row.digest(0)?, row.uint(1)?)))
}

/// What a manifest needs, of one kind.
pub fn needs(tx: &mut dyn Tx, repo: i64, parent: &Digest, kind: RefKind) -> Result<Vec<Digest>> {
    all(
        tx,
        "SELECT child FROM manifest_ref WHERE repo = ?1 AND parent = ?2 AND kind = ?3",
        &[repo.into(), parent.into(), kind.code().into()],
        |row| row.digest(0),
    )
}

/// Whether any manifest of the repository needs this blob.
pub fn needs_blob(tx: &mut dyn Tx, repo: i64, blob: &Digest) -> Result<bool> {
    let sql = "SELECT 1 FROM manifest_ref WHERE repo = ?1 AND child = ?2 AND kind = 1 LIMIT 1";
    Ok(one(tx, sql, &[repo.into(), blob.into()], |_| Ok(()))?.is_some())
}

/// Set the locks.
pub fn set_attributes(
    tx: &mut dyn Tx,
    change: &Change,
    repo: i64,
    digest: &Digest,
    attributes: Attributes,
) -> Result<()> {
    tx.execute(
        "UPDATE manifest SET attrs = ?3, updated = ?4, hlc = ?5, region = ?6 WHERE repo = ?1 AND digest = ?2",
        &[
            repo.into(),
            digest.into(),
            attributes.to_bits().into(),
            change.now.into(),
            change.stamp.hlc.into(),
            (&*change.stamp.region).into(),
        ],
    )?;
    Ok(())
}

/// A manifest that was deleted.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its digest.
    pub digest: Digest,
    /// The tags that went with it.
    pub tags: Vec<Tag>,
    /// The blobs it needed, for review.
    pub blobs: Vec<Digest>,
}

/// Delete a manifest and its tags; `None` when it is not there. Locks are the caller's
/// business, and so is the review of the blobs.
pub fn delete(tx: &mut dyn Tx, repo: i64, digest: &Digest) -> Result<Option<Deleted>> {
    let blobs = needs(tx, repo, digest, RefKind::Blob)?;
    let key: [Value<'_>; 2] = [repo.into(), digest.into()];
    // Not by the index on names, which would have all tags of the repository walked over.
    let tags =
        all(tx, "SELECT name FROM tag WHERE repo = ?1 AND digest = ?2 ORDER BY name || ''", &key, |row| row.parsed(0))?;
    tx.execute("DELETE FROM tag WHERE repo = ?1 AND digest = ?2", &key)?;
    tx.execute("DELETE FROM manifest_ref WHERE repo = ?1 AND parent = ?2", &key)?;
    let gone = tx.execute("DELETE FROM manifest WHERE repo = ?1 AND digest = ?2", &key)?;
    Ok((gone > 0).then_some(Deleted { digest: *digest, tags, blobs }))
}

/// Digests of every manifest of a repository with its locks, for deleting all of it.
pub fn all_digests(tx: &mut dyn Tx, repo: i64) -> Result<Vec<(Digest, Attributes)>> {
    all(tx, "SELECT digest, attrs FROM manifest WHERE repo = ?1 ORDER BY digest", &[repo.into()], |row| {
        Ok((row.digest(0)?, Attributes::from_bits(row.int(1)?)))
    })
}
