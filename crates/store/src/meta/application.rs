//! Applications of the directory: what service principals stand for.

use portolan_types::Timestamp;
use uuid::Uuid;

use super::{Row, RowExt, Tx, all, one};
use crate::Result;

/// One application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationRow {
    /// Object id: not that of its service principal.
    pub object_id: Uuid,
    /// What clients name it by.
    pub app_id: Uuid,
    /// For people.
    pub display_name: String,
    /// JSON object: what else Graph was told of it.
    pub properties: String,
    /// When it was made.
    pub created: Timestamp,
}

const COLUMNS: &str = "object_id, app_id, display_name, properties, created";

fn read(row: &dyn Row) -> Result<ApplicationRow> {
    Ok(ApplicationRow {
        object_id: row.uuid(0)?,
        app_id: row.uuid(1)?,
        display_name: row.text(2)?,
        properties: row.text(3)?,
        created: row.time(4)?,
    })
}

/// The application with this object id.
pub fn get(tx: &mut dyn Tx, object_id: Uuid) -> Result<Option<ApplicationRow>> {
    one(tx, &format!("SELECT {COLUMNS} FROM directory_application WHERE object_id = ?1"), &[object_id.into()], read)
}

/// The application with this application id.
pub fn by_app(tx: &mut dyn Tx, app_id: Uuid) -> Result<Option<ApplicationRow>> {
    one(tx, &format!("SELECT {COLUMNS} FROM directory_application WHERE app_id = ?1"), &[app_id.into()], read)
}

/// Every application: object id and application id.
pub fn ids(tx: &mut dyn Tx) -> Result<Vec<(Uuid, Uuid)>> {
    all(tx, "SELECT object_id, app_id FROM directory_application", &[], |row| Ok((row.uuid(0)?, row.uuid(1)?)))
}

/// Applications in the order of their object ids, after the id `after`, at most `items_max`.
pub fn page(tx: &mut dyn Tx, after: &str, items_max: usize) -> Result<Vec<ApplicationRow>> {
    let sql = format!("SELECT {COLUMNS} FROM directory_application WHERE object_id > ?1 ORDER BY object_id LIMIT ?2");
    all(tx, &sql, &[after.into(), items_max.into()], read)
}

/// How many applications there are.
pub fn count(tx: &mut dyn Tx) -> Result<u64> {
    Ok(one(tx, "SELECT COUNT(*) FROM directory_application", &[], |row| row.uint(0))?.unwrap_or(0))
}

/// Make an application. `Error::Conflict` when one of its ids is taken.
pub fn insert(tx: &mut dyn Tx, application: &ApplicationRow) -> Result<()> {
    tx.execute(
        "INSERT INTO directory_application (object_id, app_id, display_name, properties, created) \
         VALUES (?1, ?2, ?3, ?4, ?5)",
        &[
            application.object_id.into(),
            application.app_id.into(),
            (&application.display_name).into(),
            (&application.properties).into(),
            application.created.into(),
        ],
    )?;
    Ok(())
}

/// Write its name and properties; whether it is there.
pub fn update(tx: &mut dyn Tx, application: &ApplicationRow) -> Result<bool> {
    let changed = tx.execute(
        "UPDATE directory_application SET display_name = ?2, properties = ?3 WHERE object_id = ?1",
        &[application.object_id.into(), (&application.display_name).into(), (&application.properties).into()],
    )?;
    Ok(changed > 0)
}

/// Remove an application; whether it was there. What hangs on it is for the caller to remove.
pub fn delete(tx: &mut dyn Tx, object_id: Uuid) -> Result<bool> {
    Ok(tx.execute("DELETE FROM directory_application WHERE object_id = ?1", &[object_id.into()])? > 0)
}
