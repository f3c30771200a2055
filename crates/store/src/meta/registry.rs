//! Registries: the rows everything else in the store belongs to, by `registry.id`.

use portolan_types::{GroupName, RegistryName, Timestamp};

use super::{Row, RowExt, Tx, all, next_id, one};
use crate::{Error, Result};

/// One registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRow {
    /// Its number, never used twice. 0 in a row that [`insert`] is to number.
    pub id: i64,
    /// Its name, in the case it was given.
    pub name: RegistryName,
    /// The group it is in, in the case the group was given.
    pub group: GroupName,
    /// Where it says it is.
    pub location: String,
    /// `Basic`, `Standard` or `Premium`.
    pub sku: String,
    /// Whether it answers at the server's own address when there is no domain.
    pub is_default: bool,
    /// Whether its admin user may sign in.
    pub admin_enabled: bool,
    /// How often each admin password was renewed.
    pub admin_generations: [u32; 2],
    /// JSON object of texts.
    pub tags: String,
    /// JSON object of ARM's settable properties.
    pub properties: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

const SELECT: &str = "SELECT r.id, r.name, g.name, r.location, r.sku, r.is_default, r.admin_enabled, \
    r.admin_generation, r.admin_generation2, r.tags, r.properties, r.created, r.updated \
    FROM registry r JOIN resource_group g ON g.key = r.group_key";

fn read(row: &dyn Row) -> Result<RegistryRow> {
    let generation =
        |i| u32::try_from(row.int(i)?).map_err(|_| Error::Corrupt("a password generation is out of range".into()));
    Ok(RegistryRow {
        id: row.int(0)?,
        name: row.parsed(1)?,
        group: row.parsed(2)?,
        location: row.text(3)?,
        sku: row.text(4)?,
        is_default: row.bool(5)?,
        admin_enabled: row.bool(6)?,
        admin_generations: [generation(7)?, generation(8)?],
        tags: row.text(9)?,
        properties: row.text(10)?,
        created: row.time(11)?,
        updated: row.time(12)?,
    })
}

/// The registry of this name, in any case.
pub fn get(tx: &mut dyn Tx, name: &RegistryName) -> Result<Option<RegistryRow>> {
    one(tx, &format!("{SELECT} WHERE r.key = ?1"), &[name.key().into()], read)
}

/// Every registry, in the order they were made.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<RegistryRow>> {
    all(tx, &format!("{SELECT} ORDER BY r.id"), &[], read)
}

/// The registries of a group, in the order they were made.
pub fn list_group(tx: &mut dyn Tx, group: &GroupName) -> Result<Vec<RegistryRow>> {
    all(tx, &format!("{SELECT} WHERE r.group_key = ?1 ORDER BY r.id"), &[group.key().into()], read)
}

/// Make a registry; its number. It becomes the default one when no other is.
/// `Error::Conflict` when the name is taken or the group is gone.
pub fn insert(tx: &mut dyn Tx, registry: &RegistryRow) -> Result<i64> {
    let id = next_id(tx, "registry")?;
    let taken = one(tx, "SELECT id FROM registry WHERE is_default = 1 LIMIT 1", &[], |row| row.int(0))?.is_some();
    tx.execute(
        "INSERT INTO registry (id, key, name, group_key, location, sku, is_default, admin_enabled, \
         admin_generation, admin_generation2, tags, properties, created, updated) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        &[
            id.into(),
            registry.name.key().into(),
            (&registry.name).into(),
            registry.group.key().into(),
            (&registry.location).into(),
            (&registry.sku).into(),
            (!taken).into(),
            registry.admin_enabled.into(),
            registry.admin_generations[0].into(),
            registry.admin_generations[1].into(),
            (&registry.tags).into(),
            (&registry.properties).into(),
            registry.created.into(),
            registry.updated.into(),
        ],
    )?;
    Ok(id)
}

/// Write what may change: SKU, admin user, generations, tags, properties.
/// `Error::NotFound` when it is gone.
pub fn update(tx: &mut dyn Tx, registry: &RegistryRow) -> Result<()> {
    let changed = tx.execute(
        "UPDATE registry SET sku = ?2, admin_enabled = ?3, admin_generation = ?4, admin_generation2 = ?5, \
         tags = ?6, properties = ?7, updated = ?8 WHERE id = ?1",
        &[
            registry.id.into(),
            (&registry.sku).into(),
            registry.admin_enabled.into(),
            registry.admin_generations[0].into(),
            registry.admin_generations[1].into(),
            (&registry.tags).into(),
            (&registry.properties).into(),
            registry.updated.into(),
        ],
    )?;
    if changed == 0 { Err(Error::NotFound(format!("registry {}", registry.name))) } else { Ok(()) }
}

/// Remove the row; whether it was there.
pub fn delete(tx: &mut dyn Tx, id: i64) -> Result<bool> {
    Ok(tx.execute("DELETE FROM registry WHERE id = ?1", &[id.into()])? > 0)
}
