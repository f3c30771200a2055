//! Servers that share a database: who is there, and what each has in hand.
//!
//! A server renews its row ([`renew`]) as long as it lives. What it has in hand hangs on
//! that row: content it is about to put in place ([`begin_push`]) and uploads it writes to
//! ([`claim_upload`]). When the row's time is over, [`expire`] takes it away with all of
//! that, and the next step of a server that was only slow finds its own row gone: that, and
//! not a clock, is what a push is judged by when it commits ([`end_push`]).

use portolan_types::{Digest, Timestamp, UploadId};

use super::gc::{self, Review};
use super::tx::{all, one};
use super::{RowExt, Tx};
use crate::Result;

/// Say that `server` lives until then.
pub fn renew(tx: &mut dyn Tx, server: &str, until: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO server (id, until) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET until = excluded.until",
        &[server.into(), until.into()],
    )?;
    Ok(())
}

/// Every server that has a row.
pub fn all_ids(tx: &mut dyn Tx) -> Result<Vec<String>> {
    all(tx, "SELECT id FROM server ORDER BY id", &[], |row| row.text(0))
}

/// Whether `server` has a row.
pub fn is_here(tx: &mut dyn Tx, server: &str) -> Result<bool> {
    Ok(one(tx, "SELECT 1 FROM server WHERE id = ?1", &[server.into()], |_| Ok(()))?.is_some())
}

/// How many servers live at `now`.
pub fn count(tx: &mut dyn Tx, now: Timestamp) -> Result<u64> {
    Ok(one(tx, "SELECT COUNT(*) FROM server WHERE until > ?1", &[now.into()], |row| row.uint(0))?.unwrap_or(0))
}

/// Forget `server`. Content that it may have put in place without committing a row for it
/// is reviewed at `now`.
pub fn leave(tx: &mut dyn Tx, server: &str, now: Timestamp) -> Result<()> {
    let digests = all(tx, "SELECT DISTINCT digest FROM push WHERE server = ?1", &[server.into()], |row| row.digest(0))?;
    for digest in digests {
        gc::enqueue(tx, Review::File(digest), now)?;
    }
    for table in ["push", "upload_writer", "duty"] {
        tx.execute(&format!("DELETE FROM {table} WHERE server = ?1"), &[server.into()])?;
    }
    tx.execute("DELETE FROM server WHERE id = ?1", &[server.into()])?;
    Ok(())
}

/// Forget the servers whose time was over at `clock`, as [`leave`] does; how many they were.
pub fn expire(tx: &mut dyn Tx, clock: Timestamp, now: Timestamp) -> Result<usize> {
    let dead = all(tx, "SELECT id FROM server WHERE until <= ?1", &[clock.into()], |row| row.text(0))?;
    for server in &dead {
        leave(tx, server, now)?;
    }
    Ok(dead.len())
}

/// From here until [`end_push`] nobody begins to delete this content. A deletion that has
/// begun goes on: see [`deleting`].
pub fn begin_push(
    tx: &mut dyn Tx,
    server: &str,
    n: i64,
    digests: &[Digest],
    upload: Option<UploadId>,
    until: Timestamp,
) -> Result<()> {
    if !is_here(tx, server)? {
        renew(tx, server, until)?;
    }
    let upload = upload.map(|id| id.to_string());
    for digest in digests {
        tx.execute(
            "INSERT INTO push (server, n, digest, upload) VALUES (?1, ?2, ?3, ?4)",
            &[server.into(), n.into(), digest.into(), upload.as_deref().into()],
        )?;
    }
    Ok(())
}

/// Those of `digests` that somebody may be deleting at `now`. A deletion whose time is over
/// is nobody's: its review is done away with, and the file, if it is there, is kept. Call it
/// after [`begin_push`].
pub fn deleting(tx: &mut dyn Tx, digests: &[Digest], now: Timestamp) -> Result<Vec<Digest>> {
    let mut busy = Vec::new();
    for digest in digests {
        match gc::due_of(tx, &Review::File(*digest))? {
            Some(due) if due > now => busy.push(*digest),
            Some(_) => gc::dequeue(tx, &Review::File(*digest))?,
            None => {}
        }
    }
    Ok(busy)
}

/// The push is over, its rows are written in this transaction; the upload that it claimed
/// under the same number is free. False when it was given up as dead: its content may be
/// gone, and nothing may be committed.
pub fn end_push(tx: &mut dyn Tx, server: &str, n: i64) -> Result<bool> {
    tx.execute("DELETE FROM upload_writer WHERE server = ?1 AND n = ?2", &[server.into(), n.into()])?;
    Ok(tx.execute("DELETE FROM push WHERE server = ?1 AND n = ?2", &[server.into(), n.into()])? > 0)
}

/// A push failed that may have put its content in place: have that reviewed. To be followed
/// by [`end_push`].
pub fn abandon_push(tx: &mut dyn Tx, server: &str, n: i64, now: Timestamp) -> Result<()> {
    let sql = "SELECT digest FROM push WHERE server = ?1 AND n = ?2";
    for digest in all(tx, sql, &[server.into(), n.into()], |row| row.digest(0))? {
        gc::enqueue(tx, Review::File(digest), now)?;
    }
    Ok(())
}

/// Whether a push of this content is under way.
pub fn is_pushed(tx: &mut dyn Tx, digest: &Digest) -> Result<bool> {
    Ok(one(tx, "SELECT 1 FROM push WHERE digest = ?1 LIMIT 1", &[digest.into()], |_| Ok(()))?.is_some())
}

/// Whether a push under way has its bytes in this upload.
pub fn is_pushing_from(tx: &mut dyn Tx, upload: UploadId) -> Result<bool> {
    Ok(one(tx, "SELECT 1 FROM push WHERE upload = ?1 LIMIT 1", &[upload.into()], |_| Ok(()))?.is_some())
}

/// Become the one request that writes to an upload. False while another does, on a server
/// that lives at `now`.
pub fn claim_upload(
    tx: &mut dyn Tx,
    upload: UploadId,
    server: &str,
    n: i64,
    until: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let sql = "SELECT s.until FROM upload_writer w JOIN server s ON s.id = w.server WHERE w.upload = ?1";
    if one(tx, sql, &[upload.into()], |row| row.time(0))?.is_some_and(|lives| lives > now) {
        return Ok(false);
    }
    if !is_here(tx, server)? {
        renew(tx, server, until)?;
    }
    tx.execute(
        "INSERT INTO upload_writer (upload, server, n) VALUES (?1, ?2, ?3) \
         ON CONFLICT (upload) DO UPDATE SET server = excluded.server, n = excluded.n",
        &[upload.into(), server.into(), n.into()],
    )?;
    Ok(true)
}

/// Let others write to the upload; does nothing when another already does.
pub fn release_upload(tx: &mut dyn Tx, upload: UploadId, server: &str, n: i64) -> Result<()> {
    tx.execute(
        "DELETE FROM upload_writer WHERE upload = ?1 AND server = ?2 AND n = ?3",
        &[upload.into(), server.into(), n.into()],
    )?;
    Ok(())
}

/// Take on, or keep, a duty until then. False while another server has it.
pub fn take_duty(tx: &mut dyn Tx, name: &str, server: &str, until: Timestamp, now: Timestamp) -> Result<bool> {
    let taken = tx.execute(
        "INSERT INTO duty (name, server, until) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE \
         SET server = excluded.server, until = excluded.until WHERE duty.server = excluded.server OR duty.until <= ?4",
        &[name.into(), server.into(), until.into(), now.into()],
    )?;
    Ok(taken > 0)
}
