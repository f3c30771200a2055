//! Operations that go on after their request was answered.

use portolan_types::{ResourceId, Timestamp};
use uuid::Uuid;

use super::{Row, RowExt, Tx, all, one};
use crate::Result;

/// The status of an operation that has not ended.
pub const IN_PROGRESS: &str = "InProgress";

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// Its id: hard to guess, since it is all that names it.
    pub id: Uuid,
    /// What it does: `group.delete`, `registry.delete`.
    pub kind: String,
    /// What it does it to.
    pub scope: ResourceId,
    /// Object id of who asked, as text.
    pub principal: String,
    /// JSON object: what the log is told when it ends.
    pub detail: String,
    /// [`IN_PROGRESS`], `Succeeded` or `Failed`.
    pub status: String,
    /// The error's code, when it failed.
    pub code: Option<String>,
    /// The error's sentence, when it failed.
    pub message: Option<String>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

const COLUMNS: &str = "id, kind, scope, principal, detail, status, code, message, created, ended";

fn read(row: &dyn Row) -> Result<OperationRow> {
    Ok(OperationRow {
        id: row.uuid(0)?,
        kind: row.text(1)?,
        scope: ResourceId(row.text(2)?),
        principal: row.text(3)?,
        detail: row.text(4)?,
        status: row.text(5)?,
        code: row.opt_text(6)?,
        message: row.opt_text(7)?,
        created: row.time(8)?,
        ended: row.opt_time(9)?,
    })
}

/// Write down what is to be done; nobody has it yet.
pub fn insert(tx: &mut dyn Tx, operation: &OperationRow) -> Result<()> {
    tx.execute(
        "INSERT INTO operation (id, kind, scope_key, scope, principal, detail, status, code, message, created, ended, \
         leased_until) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0)",
        &[
            operation.id.into(),
            (&operation.kind).into(),
            operation.scope.key().into(),
            (&operation.scope.0).into(),
            (&operation.principal).into(),
            (&operation.detail).into(),
            (&operation.status).into(),
            operation.code.as_deref().into(),
            operation.message.as_deref().into(),
            operation.created.into(),
            operation.ended.into(),
        ],
    )?;
    Ok(())
}

/// The operation of this id.
pub fn get(tx: &mut dyn Tx, id: Uuid) -> Result<Option<OperationRow>> {
    one(tx, &format!("SELECT {COLUMNS} FROM operation WHERE id = ?1"), &[id.into()], read)
}

/// The operation of this kind that is under way at exactly this scope.
pub fn under_way(tx: &mut dyn Tx, kind: &str, scope: &ResourceId) -> Result<Option<OperationRow>> {
    let sql = format!("SELECT {COLUMNS} FROM operation WHERE scope_key = ?1 AND kind = ?2 AND status = ?3 LIMIT 1");
    one(tx, &sql, &[scope.key().into(), kind.into(), IN_PROGRESS.into()], read)
}

/// Every operation that is under way, the oldest first, at most `items_max`.
pub fn all_under_way(tx: &mut dyn Tx, items_max: usize) -> Result<Vec<OperationRow>> {
    let sql = format!("SELECT {COLUMNS} FROM operation WHERE status = ?1 ORDER BY created, id LIMIT ?2");
    all(tx, &sql, &[IN_PROGRESS.into(), items_max.into()], read)
}

/// Take the oldest operation that nobody has, until `until`.
pub fn lease(tx: &mut dyn Tx, until: Timestamp, now: Timestamp) -> Result<Option<OperationRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM operation WHERE status = ?1 AND leased_until <= ?2 ORDER BY created, id LIMIT 1"
    );
    let found = one(tx, &sql, &[IN_PROGRESS.into(), now.into()], read)?;
    if let Some(operation) = &found {
        renew(tx, operation.id, until)?;
    }
    Ok(found)
}

/// Keep it until `until`.
pub fn renew(tx: &mut dyn Tx, id: Uuid, until: Timestamp) -> Result<()> {
    tx.execute("UPDATE operation SET leased_until = ?2 WHERE id = ?1", &[id.into(), until.into()])?;
    Ok(())
}

/// Let go of every operation that has not ended.
pub fn release_all(tx: &mut dyn Tx) -> Result<()> {
    tx.execute("UPDATE operation SET leased_until = 0 WHERE status = ?1", &[IN_PROGRESS.into()])?;
    Ok(())
}

/// End it; whether it had not ended before.
pub fn end(tx: &mut dyn Tx, id: Uuid, status: &str, error: Option<(&str, &str)>, now: Timestamp) -> Result<bool> {
    let changed = tx.execute(
        "UPDATE operation SET status = ?2, code = ?3, message = ?4, ended = ?5 WHERE id = ?1 AND status = ?6",
        &[
            id.into(),
            status.into(),
            error.map(|e| e.0).into(),
            error.map(|e| e.1).into(),
            now.into(),
            IN_PROGRESS.into(),
        ],
    )?;
    Ok(changed > 0)
}

/// Remove operations that ended before `oldest`, at most `items_max`. How many went.
pub fn prune(tx: &mut dyn Tx, oldest: Timestamp, items_max: usize) -> Result<u64> {
    tx.execute(
        "DELETE FROM operation WHERE id IN (SELECT id FROM operation WHERE ended < ?1 ORDER BY ended LIMIT ?2)",
        &[oldest.into(), items_max.into()],
    )
}
