//! The log of what was done to the control plane.

use portolan_types::{ResourceId, Timestamp};

use super::{Row, RowExt, Tx, all, next_id, one};
use crate::Result;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityRow {
    /// Its place in the log; 0 in a row that [`append`] is to number.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// What all events of one request have in common.
    pub correlation: String,
    /// Object id of who asked.
    pub caller: String,
    /// `Microsoft.ContainerRegistry/registries/write`
    pub operation: String,
    /// `Started`, `Accepted`, `Succeeded` or `Failed`.
    pub status: String,
    /// What it was done to.
    pub resource: ResourceId,
    /// JSON object: the rest.
    pub detail: String,
}

fn read(row: &dyn Row) -> Result<ActivityRow> {
    Ok(ActivityRow {
        seq: row.int(0)?,
        at: row.time(1)?,
        correlation: row.text(2)?,
        caller: row.text(3)?,
        operation: row.text(4)?,
        status: row.text(5)?,
        resource: ResourceId(row.text(6)?),
        detail: row.text(7)?,
    })
}

/// Add an event.
pub fn append(tx: &mut dyn Tx, event: &ActivityRow) -> Result<()> {
    let seq = next_id(tx, "activity")?;
    tx.execute(
        "INSERT INTO activity (seq, at, correlation, caller, operation, status, resource, detail) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        &[
            seq.into(),
            event.at.into(),
            (&event.correlation).into(),
            (&event.caller).into(),
            (&event.operation).into(),
            (&event.status).into(),
            (&event.resource.0).into(),
            (&event.detail).into(),
        ],
    )?;
    Ok(())
}

/// A place in the log, for reading on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When the event there was.
    pub at: Timestamp,
    /// Its number.
    pub seq: i64,
}

/// Events from `from` on and up to `to`, the newest first, those before `before` in that
/// order, at most `items_max`.
pub fn list(
    tx: &mut dyn Tx,
    from: Timestamp,
    to: Timestamp,
    before: Option<Place>,
    items_max: usize,
) -> Result<Vec<ActivityRow>> {
    let before = before.unwrap_or(Place { at: Timestamp(i64::MAX), seq: i64::MAX });
    all(
        tx,
        "SELECT seq, at, correlation, caller, operation, status, resource, detail FROM activity \
         WHERE at >= ?1 AND at <= ?2 AND (at < ?3 OR (at = ?3 AND seq < ?4)) ORDER BY at DESC, seq DESC LIMIT ?5",
        &[from.into(), to.into(), before.at.into(), before.seq.into(), items_max.into()],
        read,
    )
}

/// Remove events older than `oldest`, and those before the newest `keep`; at most
/// `items_max` of each. How many went.
pub fn prune(tx: &mut dyn Tx, oldest: Timestamp, keep: u64, items_max: usize) -> Result<u64> {
    let old = tx.execute(
        "DELETE FROM activity WHERE seq IN (SELECT seq FROM activity WHERE at < ?1 ORDER BY at, seq LIMIT ?2)",
        &[oldest.into(), items_max.into()],
    )?;
    let newest = one(tx, "SELECT MAX(seq) FROM activity", &[], |row| row.opt_int(0))?.flatten().unwrap_or(0);
    let first_kept = newest.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
    let over = tx.execute(
        "DELETE FROM activity WHERE seq IN (SELECT seq FROM activity WHERE seq <= ?1 ORDER BY seq LIMIT ?2)",
        &[first_kept.into(), items_max.into()],
    )?;
    Ok(old + over)
}
