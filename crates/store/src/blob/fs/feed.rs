//! From an async body to blocking file writes, with bounded memory.
//!
//! Pieces are gathered into a batch; each full batch goes to a blocking thread, and the
//! next one is gathered while it is written and hashed. So two batches are in memory at
//! most, and a slow client holds no thread. What does not fill a batch is left for the
//! caller to write in the hop that also syncs, which makes a small blob one hop in all.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::super::ByteStream;
use crate::{Error, Result};

/// Bytes in one batch. Half a MiB takes about half a millisecond to hash and write, long
/// beside the hop to the thread and short beside a disk's queue.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Pieces in one batch (what one `writev` takes), so that a body of tiny chunks does not
/// cost more in bookkeeping than in bytes.
const BATCH_PIECES_MAX: usize = 1024;

/// Where a body goes. Called on blocking threads, one call at a time.
pub(super) trait Sink: Send + 'static {
    /// Write all of the batch, or fail and keep the state before it.
    fn write(&mut self, batch: &[Bytes]) -> Result<()>;
}

/// A body that has ended, well or not, with its last bytes still to be written.
pub(super) struct Fed<S> {
    sink: S,
    tail: Vec<Bytes>,
    broken: Option<Error>,
}

impl<S: Sink> Fed<S> {
    /// Write the rest of a whole body; fails, and drops the sink, when it broke off. Blocks.
    pub(super) fn into_whole(self) -> Result<S> {
        match self.broken {
            Some(e) => Err(e),
            None => self.into_part().map(|(sink, _)| sink),
        }
    }

    /// Write what arrived; the sink and why the body broke off, if it did. Blocks.
    pub(super) fn into_part(mut self) -> Result<(S, Option<Error>)> {
        if !self.tail.is_empty() {
            self.sink.write(&self.tail)?;
        }
        Ok((self.sink, self.broken))
    }
}

/// Read `body` to its end, or until it breaks off (`Error::Interrupted`) or passes
/// `bytes_max` (`Error::TooLarge`; the piece that passes it is dropped). The outer error is
/// the sink's.
pub(super) async fn feed<S: Sink>(sink: S, mut body: ByteStream, bytes_max: u64) -> Result<Fed<S>> {
    let mut writer = Writer::Idle(sink);
    let mut batch: Vec<Bytes> = Vec::new();
    let (mut batch_len, mut total) = (0, 0u64);
    let broken = loop {
        let piece = match body.next().await {
            None => break None,
            Some(Err(e)) => break Some(Error::Interrupted(e)),
            Some(Ok(piece)) if piece.is_empty() => continue,
            Some(Ok(piece)) => piece,
        };
        total = total.saturating_add(piece.len() as u64);
        if total > bytes_max {
            break Some(Error::TooLarge { max: bytes_max });
        }
        batch_len += piece.len();
        batch.push(piece);
        if batch_len >= BATCH_BYTES_MAX || batch.len() >= BATCH_PIECES_MAX {
            let mut sink = writer.idle().await?;
            let full = std::mem::take(&mut batch);
            batch_len = 0;
            writer = Writer::Writing(tokio::task::spawn_blocking(move || sink.write(&full).map(|()| sink)));
        }
    };
    let sink = writer.idle().await?;
    Ok(Fed { sink, tail: batch, broken })
}

enum Writer<S> {
    Idle(S),
    Writing(tokio::task::JoinHandle<Result<S>>),
}

impl<S> Writer<S> {
    /// The sink, back from its last batch.
    async fn idle(self) -> Result<S> {
        match self {
            Writer::Idle(sink) => Ok(sink),
            Writer::Writing(task) => task.await.map_err(|e| Error::io("write a batch", io::Error::other(e)))?,
        }
    }
}

/// Write every piece at the file's cursor, many in one system call.
pub(super) fn write_all(mut file: &File, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
