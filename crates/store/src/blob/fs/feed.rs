//! From an async body to blocking file writes, with bounded memory.
//!
//! Bytes are gathered into a batch; each full batch goes to a blocking thread, and the next
//! one is gathered while it is written and hashed. So two batches are in memory at most, and
//! a slow client holds no thread. What does not fill a batch is left for the caller to write
//! in the hop that also syncs, which makes a small blob one hop in all.
//!
//! A batch begins as the pieces that arrive. When there are more than
//! [`PIECES_BYTES_MAX`] of them they are copied into a [block](Buffer) of
//! [`BLOCK_BYTES`], and so is everything after: the copy is from one cache to another, frees
//! the connection's buffer for its next read, and ends in memory that can go to the disk as
//! it is. Blocks are bounded for all bodies together ([`BLOCKS_MAX`]); who gets none goes on
//! with small batches of pieces.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::super::ByteStream;
use super::pool::{Buffer, Pool};
use crate::{Error, Result};

/// Bytes in one block. Takes about a millisecond to hash and write: long beside the hop to
/// the thread, and what a disk writes at its full rate.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Blocks begin where a disk's sector and a page of memory do.
pub(super) const BLOCK_ALIGN: usize = 4096;
/// Blocks in use by all bodies together.
const BLOCKS_MAX: usize = 64;
/// Blocks that are kept when no body needs them.
const BLOCKS_KEPT_MAX: usize = 4;
/// Bytes in one batch of pieces.
const PIECES_BYTES_MAX: usize = 128 * 1024;
/// Pieces in one batch (what one `pwritev` takes), so that a body of tiny chunks does not
/// cost more in bookkeeping than in bytes.
const PIECES_MAX: usize = 1024;

/// The blocks of a store.
pub(super) fn blocks() -> Pool {
    Pool::new(BLOCK_BYTES, BLOCK_ALIGN, BLOCKS_KEPT_MAX, BLOCKS_MAX)
}

/// Bytes to write.
#[derive(Debug)]
pub(super) enum Batch {
    /// As they arrived.
    Pieces(Vec<Bytes>),
    /// Copied into one; full but for the last of a body.
    Block(Buffer),
}

impl Batch {
    /// The bytes in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let (pieces, block) = match self {
            Batch::Pieces(pieces) => (&pieces[..], None),
            Batch::Block(block) => (&[][..], Some(block.as_ref())),
        };
        pieces.iter().map(AsRef::as_ref).chain(block)
    }

    fn is_empty(&self) -> bool {
        self.slices().all(<[u8]>::is_empty)
    }
}

/// Where a body goes. Called on blocking threads, one call at a time.
pub(super) trait Sink: Send + 'static {
    /// Write all of the batch, or fail and keep the state before it.
    fn write(&mut self, batch: Batch) -> Result<()>;
}

/// A body that has ended, well or not, with its last bytes still to be written.
pub(super) struct Fed<S> {
    sink: S,
    tail: Batch,
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
            self.sink.write(self.tail)?;
        }
        Ok((self.sink, self.broken))
    }
}

/// Read `body` to its end, or until it breaks off (`Error::Interrupted`) or passes
/// `bytes_max` (`Error::TooLarge`; the piece that passes it is dropped). The outer error is
/// the sink's.
pub(super) async fn feed<S: Sink>(sink: S, blocks: &Pool, mut body: ByteStream, bytes_max: u64) -> Result<Fed<S>> {
    let mut writer = Writer::Idle(sink);
    let mut batch = Batch::Pieces(Vec::new());
    let (mut pieces_len, mut total) = (0, 0u64);
    let broken = loop {
        let mut piece = match body.next().await {
            None => break None,
            Some(Err(e)) => break Some(Error::Interrupted(e)),
            Some(Ok(piece)) if piece.is_empty() => continue,
            Some(Ok(piece)) => piece,
        };
        total = total.saturating_add(piece.len() as u64);
        if total > bytes_max {
            break Some(Error::TooLarge { max: bytes_max });
        }
        if let Batch::Pieces(pieces) = &mut batch {
            pieces_len += piece.len();
            pieces.push(piece);
            if pieces_len < PIECES_BYTES_MAX && pieces.len() < PIECES_MAX {
                continue;
            }
            pieces_len = 0;
            let Some(block) = blocks.take() else {
                writer = writer.write(std::mem::replace(&mut batch, Batch::Pieces(Vec::new()))).await?;
                continue;
            };
            let pieces = std::mem::take(pieces);
            batch = Batch::Block(block);
            for piece in pieces {
                (writer, batch) = append(writer, blocks, batch, piece).await?;
            }
        } else {
            // One that fits costs no more than the copy.
            if let Batch::Block(block) = &mut batch {
                let taken = block.fill(&piece);
                bytes::Buf::advance(&mut piece, taken);
            }
            if !piece.is_empty() || matches!(&batch, Batch::Block(block) if block.room() == 0) {
                (writer, batch) = append(writer, blocks, batch, piece).await?;
            }
        }
    };
    let sink = writer.idle().await?;
    Ok(Fed { sink, tail: batch, broken })
}

/// Add a piece to a batch, and have the batch written each time it is a full block.
async fn append<S: Sink>(
    mut writer: Writer<S>,
    blocks: &Pool,
    mut batch: Batch,
    mut piece: Bytes,
) -> Result<(Writer<S>, Batch)> {
    loop {
        match &mut batch {
            Batch::Pieces(pieces) => {
                if !piece.is_empty() {
                    pieces.push(piece);
                }
                return Ok((writer, batch));
            }
            Batch::Block(block) => {
                let taken = block.fill(&piece);
                bytes::Buf::advance(&mut piece, taken);
                if block.room() > 0 {
                    return Ok((writer, batch));
                }
            }
        }
        writer = writer.write(batch).await?;
        // Taken when the one before is written: two are what a body has at most.
        batch = blocks.take().map_or_else(|| Batch::Pieces(Vec::new()), Batch::Block);
    }
}

enum Writer<S> {
    Idle(S),
    Writing(tokio::task::JoinHandle<Result<S>>),
}

impl<S: Sink> Writer<S> {
    /// Begin with the next batch when the one before is written.
    async fn write(self, batch: Batch) -> Result<Writer<S>> {
        let mut sink = self.idle().await?;
        Ok(Writer::Writing(tokio::task::spawn_blocking(move || sink.write(batch).map(|()| sink))))
    }

    /// The sink, back from its last batch.
    async fn idle(self) -> Result<S> {
        match self {
            Writer::Idle(sink) => Ok(sink),
            Writer::Writing(task) => task.await.map_err(|e| Error::io("write a batch", io::Error::other(e)))?,
        }
    }
}

/// Write all of it at `at`, many pieces in one system call. Blocks.
pub(super) fn write_all<'a>(file: &File, mut at: u64, slices: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = slices.map(IoSlice::new).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                at += n as u64;
                IoSlice::advance_slices(&mut rest, n);
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Do `aside` on another blocking thread while `here` runs on this one; on this one, after
/// it, when no other thread has come to it by then. An error when `aside` panicked.
pub(super) fn beside<A: Send + 'static, B>(
    aside: impl FnOnce() -> A + Send + 'static,
    here: impl FnOnce() -> B,
) -> (io::Result<A>, B) {
    let aside = Arc::new(Mutex::new(Some(aside)));
    let (done, result) = mpsc::sync_channel(1);
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let aside = Arc::clone(&aside);
        runtime.spawn_blocking(move || {
            let work = aside.lock().take();
            if let Some(work) = work {
                // Whoever waits for it is this function.
                let _ = done.send(work());
            }
        });
    }
    let here = here();
    let left = aside.lock().take();
    let aside = match left {
        Some(work) => Ok(work()),
        None => result.recv().map_err(io::Error::other),
    };
    (aside, here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_once_on_whatever_thread() {
        let (aside, here) = beside(|| 1, || 2);
        assert_eq!((aside.unwrap(), here), (1, 2), "without a runtime");
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let busy = runtime.block_on(async {
            // The only thread is this one: nobody comes to it.
            tokio::task::spawn_blocking(|| beside(|| 1, || 2)).await.unwrap()
        });
        assert_eq!((busy.0.unwrap(), busy.1), (1, 2));
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(2).build().unwrap();
        let both = runtime.block_on(async {
            let (tx, rx) = mpsc::channel();
            // Ends only when the other has begun.
            tokio::task::spawn_blocking(move || beside(move || tx.send(1), || rx.recv())).await.unwrap()
        });
        assert_eq!((both.0.unwrap(), both.1), (Ok(()), Ok(1)));
    }
}
