//! Moving a registry from one pair of engines to another: `portolan migrate`.
//!
//! The source is read and not changed, until the end, when a mark is left in it. Content
//! goes first, every byte hashed on its way by the target's own store, which keeps nothing
//! under a digest it has not; then rows, page by page. The target's database remembers in
//! the transaction of each page how far rows have come, and content says itself that it is
//! there. So a move that was killed at any moment goes on where it was when it is started
//! again. At the end rows are summed up on both sides, and content is listed on both sides.
//!
//! What does not move: uploads under way and build contexts in the making (clients begin
//! them again), content that no row names, and what a repair put aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use portolan_store::blob::{Blobs, ByteStream};
use portolan_store::meta::transfer::{self, LEFT, Sum, TABLES, Table, Values};
use portolan_store::meta::{Meta, Tx, Value, blob, check as rows, setting};
use portolan_types::{Algorithm, Digest, Hasher, Timestamp};
use serde::{Deserialize, Serialize};

use crate::check::Progress;
use crate::{Error, Kind, Result};

/// In the target: how far the move has come.
const PROGRESS: &str = "migrate.progress";
/// In the source: where it has gone.
const MOVED: &str = "migrate.moved";
/// Blobs copied at one time.
const PARALLEL_MAX: usize = 8;
/// Content listed at one time.
const PAGE_ITEMS: usize = 1_000;

/// Both halves of a store.
#[derive(Clone)]
pub struct Half {
    /// The database.
    pub meta: Meta,
    /// The blob store.
    pub blobs: Arc<dyn Blobs>,
}

/// What a move did. The member names are fixed; scripts read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Whether this run went on with what an earlier one had begun.
    pub resumed: bool,
    /// Rows that are in the target now.
    pub rows: u64,
    /// Blobs that are in the target now.
    pub blobs: u64,
    /// Bytes of blobs that this run copied.
    pub bytes_copied: u64,
    /// Blobs that were there already.
    pub blobs_present: u64,
    /// Build contexts and logs.
    pub objects: u64,
    /// What was left behind, and why.
    pub left: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct State {
    /// The source, by its tenant: a target takes one source only.
    source: String,
    /// How many events the source had when the move began.
    events: i64,
    /// The table that rows are being copied of, and the last key copied.
    table: usize,
    after: Vec<Part>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
enum Part {
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Part {
    fn of(value: &Value<'_>) -> Result<Part> {
        Ok(match value {
            Value::Int(n) => Part::Int(*n),
            Value::Text(text) => Part::Text(text.to_string()),
            Value::Blob(bytes) => Part::Blob(bytes.to_vec()),
            Value::Null => return Err(refused("a key of the source is NULL: check the source first")),
        })
    }

    fn value(&self) -> Value<'static> {
        match self {
            Part::Int(n) => Value::Int(*n),
            Part::Text(text) => Value::Text(text.clone().into()),
            Part::Blob(bytes) => Value::Blob(bytes.clone().into()),
        }
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Kind::Conflict, "MIGRATION_REFUSED", message)
}

/// Why no server may serve this store: it has moved, or is half moved. `None` when one may.
///
/// Errors: a store that cannot be read.
pub async fn forbids_serving(meta: &Meta) -> Result<Option<String>> {
    let (progress, moved) =
        meta.read(|tx| Ok::<_, Error>((setting::get(tx, PROGRESS)?, setting::get(tx, MOVED)?))).await?;
    Ok(match (progress, moved) {
        (Some(_), _) => Some(
            "a migration into this store has begun and not ended: run `portolan migrate` again to go on with it"
                .to_owned(),
        ),
        (None, Some(moved)) => Some(format!(
            "this store was moved to {moved}: serve that one. To go back to this one and lose what was pushed to the \
             other since: `portolan migrate --take-back`"
        )),
        (None, None) => None,
    })
}

/// Take the mark of a finished move from its source; whether there was one.
///
/// Errors: a store that cannot be written.
pub async fn take_back(source: &Meta) -> Result<bool> {
    source
        .write(|tx| {
            let was = setting::get(tx, MOVED)?.is_some();
            setting::delete(tx, MOVED)?;
            Ok(was)
        })
        .await
}

/// Move everything from `from` to `to`. `to_name` is what the source will say of where it
/// has gone. With `restart`, rows of a half-done move in the target are done away with
/// first.
///
/// Errors: a target that holds anything else than this move's half-done work; a source that
/// was moved already, was written to since the move began, or lacks content; a store that
/// fails. Running it again goes on.
pub async fn run(
    from: &Half,
    to: &Half,
    to_name: &str,
    restart: bool,
    now: Timestamp,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Moved> {
    if from.meta.read(|tx| setting::get(tx, MOVED).map_err(Error::from)).await?.is_some() {
        return Err(refused("the source was moved before; see `portolan migrate --take-back`"));
    }
    let (state, resumed) = begin(from, to, restart).await?;
    let mut moved = Moved { resumed, ..Moved::default() };
    content(from, to, &mut moved, progress).await?;
    objects(from, to, &mut moved, progress).await?;
    copy_rows(from, to, state, progress).await?;
    moved.rows = compare_rows(from, to, progress).await?;
    compare_content(from, to, &mut moved, progress).await?;
    for (table, why) in LEFT {
        let count = from.meta.read(move |tx| transfer::count(tx, table).map_err(Error::from)).await?;
        if count > 0 && *table != "migration" {
            moved.left.push(format!("{count} rows of {table}: {why}"));
        }
    }
    // First the target is whole, then the source is done with: killed in between, the next
    // run finds a whole target and says so.
    to.meta.write(|tx| setting::delete(tx, PROGRESS).map(drop).map_err(Error::from)).await?;
    let mark = format!("{to_name} on {}", now.rfc3339());
    from.meta.write(move |tx| setting::put(tx, MOVED, &mark).map_err(Error::from)).await?;
    Ok(moved)
}

/// Find out where the move is, or that there must not be one.
async fn begin(from: &Half, to: &Half, restart: bool) -> Result<(State, bool)> {
    let source = from.meta.read(|tx| {
        let tenant = setting::get(tx, "tenant")?;
        let events = rows::sequences(tx)?.into_iter().find(|row| row.name == "event").map_or(0, |row| row.value);
        Ok::<_, Error>((tenant, events))
    });
    let (tenant, events) = source.await?;
    let source = tenant.ok_or_else(|| refused("the source was never served: there is nothing to move"))?;
    let fresh = State { source: source.clone(), events, table: 0, after: Vec::new() };
    let text = to.meta.read(|tx| setting::get(tx, PROGRESS).map_err(Error::from)).await?;
    let Some(text) = text else {
        let state = fresh.clone();
        let begun = to.meta.write(move |tx| {
            for table in TABLES {
                if !transfer::is_empty(tx, table)? {
                    return Err(refused(format!(
                        "the target is not empty: its table {} has rows. Give an empty database",
                        table.name
                    )));
                }
            }
            put(tx, &state)
        });
        begun.await?;
        // Content in the target's store may be an earlier run's, and names itself.
        return Ok((fresh, false));
    };
    let state: State = serde_json::from_str(&text)
        .map_err(|cause| refused("the target's note on its migration cannot be read").with_source(cause))?;
    if state.source != source {
        return Err(refused("the target is the half-done work of a migration from another registry"));
    }
    if restart {
        let state = fresh.clone();
        to.meta
            .write(move |tx| {
                for table in TABLES.iter().rev() {
                    transfer::clear(tx, table)?;
                }
                put(tx, &state)
            })
            .await?;
        return Ok((fresh, true));
    }
    if state.events != events {
        return Err(refused(
            "the source was written to since the migration began: run it again with --restart (content that is there \
             stays there)",
        ));
    }
    Ok((state, true))
}

fn put(tx: &mut dyn Tx, state: &State) -> Result<()> {
    let text = serde_json::to_string(state)
        .map_err(|cause| Error::new(Kind::Internal, "UNKNOWN", "write down the progress").with_source(cause))?;
    Ok(setting::put(tx, PROGRESS, &text)?)
}

async fn copy_rows(from: &Half, to: &Half, mut state: State, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
    let mut items = 0;
    while let Some(table) = TABLES.get(state.table) {
        let after: Values = state.after.iter().map(Part::value).collect();
        let mut page = from.meta.read(move |tx| transfer::page(tx, table, &after).map_err(Error::from)).await?;
        let last = page.len() < table.page_items;
        match page.last() {
            Some(row) if !last => {
                state.after = transfer::key_of(table, row).iter().map(Part::of).collect::<Result<_>>()?;
            }
            _ => {
                state.table += 1;
                state.after.clear();
            }
        }
        page.retain(|row| !transfer::is_own(table, row));
        items += page.len() as u64;
        let note = state.clone();
        to.meta
            .write(move |tx| {
                transfer::insert(tx, table, &page)?;
                put(tx, &note)
            })
            .await?;
        progress(Progress { stage: "rows", items, bytes: 0, bytes_total: 0 });
    }
    Ok(())
}

async fn sum(meta: &Meta, table: &'static Table) -> Result<Sum> {
    let (mut sum, mut after) = (Sum::default(), Values::new());
    loop {
        let from = std::mem::take(&mut after);
        let page = meta.read(move |tx| transfer::page(tx, table, &from).map_err(Error::from)).await?;
        page.iter().filter(|row| !transfer::is_own(table, row)).for_each(|row| sum.add(row));
        match page.last() {
            Some(row) if page.len() == table.page_items => after = transfer::key_of(table, row),
            _ => return Ok(sum),
        }
    }
}

async fn compare_rows(from: &Half, to: &Half, progress: &(dyn Fn(Progress) + Sync)) -> Result<u64> {
    let mut items = 0;
    for table in TABLES {
        let (source, target) = (sum(&from.meta, table).await?, sum(&to.meta, table).await?);
        if source != target {
            return Err(refused(format!(
                "table {} differs: {} rows in the source, {} in the target. Was the source served meanwhile? Run it \
                 again with --restart",
                table.name, source.rows, target.rows
            )));
        }
        items += source.rows;
        progress(Progress { stage: "rows compared", items, bytes: 0, bytes_total: 0 });
    }
    Ok(items)
}

/// Copy every blob that a row or a lease names.
async fn content(from: &Half, to: &Half, moved: &mut Moved, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
    let (_, bytes_total) = from.meta.read(|tx| rows::blob_totals(tx).map_err(Error::from)).await?;
    let (copied, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let (mut after, mut orphans) = (None, 0u64);
    loop {
        let page = from.blobs.list(after, PAGE_ITEMS).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        let all = page.len() as u64;
        let named = from.meta.read(move |tx| {
            let mut named = Vec::with_capacity(page.len());
            for (digest, len) in page {
                if blob::exists(tx, &digest)? || rows::is_watched(tx, &digest)? {
                    named.push((digest, len));
                }
            }
            Ok::<_, Error>(named)
        });
        let named = named.await?;
        orphans += all - named.len() as u64;
        moved.blobs += named.len() as u64;
        let mut copies = futures_util::stream::iter(named)
            .map(|(digest, len)| async move {
                let (source, target) = (Arc::clone(&from.blobs), Arc::clone(&to.blobs));
                let copy = tokio::spawn(async move {
                    if target.size(&digest).await? == Some(len) {
                        return Ok::<_, portolan_store::Error>(false);
                    }
                    let body = source.read(&digest, 0..len).await?;
                    target.put(&digest, body, len).await.map(|_| true)
                });
                let done = copy.await.map_err(|cause| {
                    Error::new(Kind::Internal, "UNKNOWN", "copying a blob failed").with_source(cause)
                })?;
                match done {
                    Ok(new) => Ok((len, new)),
                    Err(e @ portolan_store::Error::DigestMismatch { .. }) => Err(refused(format!(
                        "the source's blob {digest} is damaged: run `portolan check --repair` on the source first"
                    ))
                    .with_source(e)),
                    Err(e) => Err(Error::from(e)),
                }
            })
            .buffer_unordered(PARALLEL_MAX);
        while let Some((len, new)) = copies.try_next().await? {
            if new {
                copied.fetch_add(len, Ordering::Relaxed);
            } else {
                moved.blobs_present += 1;
            }
            let bytes = done.fetch_add(len, Ordering::Relaxed) + len;
            progress(Progress { stage: "content", items: moved.blobs, bytes, bytes_total });
        }
    }
    moved.bytes_copied = copied.into_inner();
    if orphans > 0 {
        moved.left.push(format!("{orphans} blobs that no row names"));
    }
    Ok(())
}

/// Every blob row of the target has its content there, of the size the row says.
async fn compare_content(
    from: &Half,
    to: &Half,
    moved: &mut Moved,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    let mut after = None;
    let mut items = 0;
    loop {
        let page = from.meta.read(move |tx| rows::blobs(tx, after.as_ref(), PAGE_ITEMS).map_err(Error::from)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.digest);
        items += page.len() as u64;
        let checks = futures_util::stream::iter(page)
            .map(|row| async move { Ok::<_, Error>((row, to.blobs.size(&row.digest).await?)) })
            .buffer_unordered(PARALLEL_MAX);
        let wrong: Vec<String> = checks
            .try_filter_map(|(row, have)| async move {
                let fine = have == Some(row.size);
                Ok((!fine).then(|| format!("{} ({have:?} bytes, its row says {})", row.digest, row.size)))
            })
            .try_collect()
            .await?;
        if let Some(first) = wrong.first() {
            return Err(refused(format!(
                "the source lacks the content of {} blobs, among them {first}: run `portolan check --repair` on it first",
                wrong.len()
            )));
        }
        progress(Progress { stage: "content compared", items, bytes: 0, bytes_total: 0 });
        let _ = &moved;
    }
}

async fn hash(mut body: ByteStream) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    while let Some(piece) = body.next().await {
        let piece: Bytes = piece.map_err(|e| portolan_store::Error::io("read an object", e))?;
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}

/// Copy build contexts and logs, and read each again.
async fn objects(from: &Half, to: &Half, moved: &mut Moved, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
    let mut after = String::new();
    loop {
        let start = after.clone();
        let page = from.meta.read(move |tx| rows::objects(tx, &start, PAGE_ITEMS).map_err(Error::from)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.key.clone();
        for row in page {
            let Some(len) = from.blobs.object_len(&row.key).await? else { continue };
            moved.objects += 1;
            progress(Progress { stage: "logs and contexts", items: moved.objects, bytes: 0, bytes_total: 0 });
            let expected = hash(from.blobs.object_read(&row.key, 0..len).await?).await?;
            if to.blobs.object_len(&row.key).await? == Some(len)
                && hash(to.blobs.object_read(&row.key, 0..len).await?).await? == expected
            {
                continue;
            }
            to.blobs.object_put(&row.key, from.blobs.object_read(&row.key, 0..len).await?, len).await?;
            if hash(to.blobs.object_read(&row.key, 0..len).await?).await? != expected {
                return Err(refused(format!("the object {} came out otherwise than it went in", row.key)));
            }
        }
    }
}
