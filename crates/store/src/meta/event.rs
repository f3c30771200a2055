//! The event log: what happened, in the order it was committed.
//!
//! An event is written in the transaction of the change it tells of, so that neither can
//! be without the other. Deletions live on here, with the stamp that replicas compare.

use std::sync::Arc;

use portolan_types::{Digest, RepoName, Tag, Timestamp};

use super::tx::{all, next_id, one};
use super::{RowExt, Tx};
use crate::Result;

/// Where and when a row was last written, in the order that all regions agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Hybrid logical clock: microseconds since 1970, pushed forward so that no two writes
    /// of one server share it.
    pub hlc: i64,
    /// The region that wrote it.
    pub region: Arc<str>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A manifest was pushed, new or again.
    ManifestPushed,
    /// A manifest was deleted.
    ManifestDeleted,
    /// A tag was made or moved.
    TagSet,
    /// A tag was removed, by itself or with its manifest.
    TagDeleted,
    /// A whole repository was deleted, or lost its last manifest.
    RepoDeleted,
    /// Locks of a repository, tag or manifest were changed.
    AttributesChanged,
}

impl EventKind {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::ManifestPushed => "manifest.pushed",
            EventKind::ManifestDeleted => "manifest.deleted",
            EventKind::TagSet => "tag.set",
            EventKind::TagDeleted => "tag.deleted",
            EventKind::RepoDeleted => "repo.deleted",
            EventKind::AttributesChanged => "attributes.changed",
        }
    }
}

/// Who changed something, when and by which request.
#[derive(Clone, Debug)]
pub struct Change {
    /// The registry's id.
    pub registry: i64,
    /// Who did it, as `kind:id`.
    pub actor: String,
    /// The request's id.
    pub request: String,
    /// When.
    pub now: Timestamp,
    /// The stamp of every row this change writes.
    pub stamp: Stamp,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The tag, for events about tags and pushes by tag.
    pub tag: Option<&'a Tag>,
    /// The manifest.
    pub digest: Option<&'a Digest>,
    /// The manifest's media type.
    pub media_type: Option<&'a str>,
    /// The manifest's size in bytes.
    pub size: Option<u64>,
}

/// A row of the log.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in the log.
    pub seq: i64,
    /// The repository it happened in.
    pub repo: RepoName,
    /// What happened, as [`EventKind::as_str`] has it.
    pub kind: String,
    /// The tag it is about.
    pub tag: Option<Tag>,
    /// The manifest it is about.
    pub digest: Option<Digest>,
    /// Who did it.
    pub actor: String,
    /// When.
    pub at: Timestamp,
}

/// Append an event.
pub fn append(tx: &mut dyn Tx, change: &Change, repo: &RepoName, kind: EventKind, about: Subject<'_>) -> Result<()> {
    let seq = next_id(tx, "event")?;
    tx.execute(
        "INSERT INTO event (seq, registry, repo, kind, tag, digest, media_type, size, actor, request, at, hlc, region) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        &[
            seq.into(),
            change.registry.into(),
            repo.into(),
            kind.as_str().into(),
            about.tag.into(),
            about.digest.into(),
            about.media_type.into(),
            about.size.into(),
            change.actor.as_str().into(),
            change.request.as_str().into(),
            change.now.into(),
            change.stamp.hlc.into(),
            (&*change.stamp.region).into(),
        ],
    )?;
    Ok(())
}

/// Events of a registry after `seq`, oldest first, at most `limit`.
pub fn after(tx: &mut dyn Tx, registry: i64, seq: i64, limit: usize) -> Result<Vec<Event>> {
    all(
        tx,
        "SELECT seq, repo, kind, tag, digest, actor, at FROM event \
         WHERE registry = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        &[registry.into(), seq.into(), limit.into()],
        |row| {
            Ok(Event {
                seq: row.int(0)?,
                repo: row.parsed(1)?,
                kind: row.text(2)?,
                tag: row.opt_parsed(3)?,
                digest: row.opt_digest(4)?,
                actor: row.text(5)?,
                at: row.time(6)?,
            })
        },
    )
}

/// The stamp of the newest event, so that a clock can go on from there after a restart;
/// 0 when nothing happened yet.
pub fn last_hlc(tx: &mut dyn Tx) -> Result<i64> {
    Ok(one(tx, "SELECT hlc FROM event ORDER BY seq DESC LIMIT 1", &[], |row| row.int(0))?.unwrap_or(0))
}
