//! Host names of registries besides their login servers, with their certificates.

use portolan_types::Timestamp;

use super::tx::{all, one};
use super::{Row, RowExt, Tx};
use crate::Result;

/// A host name of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    /// The name, in lower case.
    pub host: String,
    /// The number of the registry that answers there.
    pub registry: i64,
    /// Its certificate and what it was issued by (PEM), and its key, sealed under the master
    /// key; both or neither.
    pub certificate: Option<(String, Vec<u8>)>,
    /// When it was given to the registry.
    pub created: Timestamp,
    /// When its certificate last changed.
    pub updated: Timestamp,
}

const SELECT: &str = "SELECT host, registry, certificate, sealed_key, created, updated FROM registry_host";

fn read(row: &dyn Row) -> Result<HostRow> {
    Ok(HostRow {
        host: row.text(0)?,
        registry: row.int(1)?,
        certificate: row.opt_text(2)?.zip(row.opt_bytes(3)?),
        created: row.time(4)?,
        updated: row.time(5)?,
    })
}

/// The host of that name.
pub fn get(tx: &mut dyn Tx, host: &str) -> Result<Option<HostRow>> {
    one(tx, &format!("{SELECT} WHERE host = ?1"), &[host.into()], read)
}

/// All of them, by name.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<HostRow>> {
    all(tx, &format!("{SELECT} ORDER BY host"), &[], read)
}

/// How many a registry has.
pub fn count(tx: &mut dyn Tx, registry: i64) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM registry_host WHERE registry = ?1";
    Ok(one(tx, sql, &[registry.into()], |row| row.uint(0))?.unwrap_or(0))
}

/// Write a host down, new or not. The registry of one that is there, and when it came, stay.
pub fn put(tx: &mut dyn Tx, row: &HostRow) -> Result<()> {
    let (certificate, key) = row.certificate.as_ref().map(|(cert, key)| (cert.as_str(), key.as_slice())).unzip();
    tx.execute(
        "INSERT INTO registry_host (host, registry, certificate, sealed_key, created, updated) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (host) DO UPDATE SET \
         certificate = excluded.certificate, sealed_key = excluded.sealed_key, updated = excluded.updated",
        &[
            row.host.as_str().into(),
            row.registry.into(),
            certificate.into(),
            key.into(),
            row.created.into(),
            row.updated.into(),
        ],
    )?;
    Ok(())
}

/// Take a host away from a registry; whether it had it.
pub fn delete(tx: &mut dyn Tx, registry: i64, host: &str) -> Result<bool> {
    let sql = "DELETE FROM registry_host WHERE host = ?1 AND registry = ?2";
    Ok(tx.execute(sql, &[host.into(), registry.into()])? > 0)
}

/// Take all of them away from a registry.
pub fn delete_registry(tx: &mut dyn Tx, registry: i64) -> Result<()> {
    tx.execute("DELETE FROM registry_host WHERE registry = ?1", &[registry.into()])?;
    Ok(())
}
