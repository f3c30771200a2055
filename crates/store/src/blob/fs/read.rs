//! Files as streams of chunks.
//!
//! What the kernel has in memory is read on the caller's thread, with a read that does not
//! wait (`RWF_NOWAIT`): copying a chunk takes some ten microseconds, less than a hop to a
//! blocking thread and back. Only what the disk has to be asked for takes the hop, and has
//! the kernel begin with what comes after.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, stream};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

use super::super::ByteStream;
use super::hop;
use super::pool::{Buffer, Pool};
use crate::{Error, Result};

/// Bytes in one chunk. Two or three of them stay in a core's cache.
pub(super) const CHUNK_BYTES_MAX: usize = 128 * 1024;
/// What the disk is asked for beyond the chunk that is waited for.
const AHEAD_BYTES: u64 = 2 * 1024 * 1024;

/// Open a file and stream the bytes in `range`, cut at its end. The first chunk is read in
/// the hop that opens the file, so that a small one takes no second.
pub(super) async fn stream(
    pool: Pool,
    open: impl FnOnce() -> Result<File> + Send + 'static,
    range: Range<u64>,
) -> Result<ByteStream> {
    let (file, first, range) = hop({
        let pool = pool.clone();
        move || {
            let file = open()?;
            let io = |e| Error::io("read blob", e);
            let end = range.end.min(file.metadata().map_err(io)?.len());
            let range = range.start.min(end)..end;
            let first = chunk(&pool, &file, &range).map_err(io)?;
            Ok((file, first, range))
        }
    })
    .await?;
    let at = range.start + first.len() as u64;
    let chunk = (!first.is_empty()).then_some(first);
    if at == range.end {
        return Ok(Box::pin(stream::iter(chunk.map(Ok))));
    }
    Ok(Box::pin(Chunks { pool, file: Arc::new(file), first: chunk, at, end: range.end, reading: None }))
}

struct Chunks {
    pool: Pool,
    file: Arc<File>,
    first: Option<Bytes>,
    at: u64,
    /// At `at` after an error, too.
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Stream for Chunks {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let read = match &mut this.reading {
            Some(task) => {
                let read = ready!(Pin::new(task).poll(cx)).unwrap_or_else(|e| Err(io::Error::other(e)));
                this.reading = None;
                read
            }
            None if this.at >= this.end => return Poll::Ready(None),
            None => {
                // A reader that is never kept waiting leaves room for others all the same.
                let budget = ready!(tokio::task::coop::poll_proceed(cx));
                match at_hand(&this.pool, &this.file, this.at..this.end) {
                    Ok(Some(bytes)) => {
                        budget.made_progress();
                        Ok(bytes)
                    }
                    Err(e) => Err(e),
                    Ok(None) => {
                        let (pool, file, range) = (this.pool.clone(), Arc::clone(&this.file), this.at..this.end);
                        this.reading = Some(tokio::task::spawn_blocking(move || {
                            // Advice: where it is not taken, reading does the work.
                            let ahead = NonZeroU64::new((range.end - range.start).min(AHEAD_BYTES));
                            let _ = rustix::fs::fadvise(&file, range.start, ahead, rustix::fs::Advice::WillNeed);
                            chunk(&pool, &file, &range)
                        }));
                        drop(budget);
                        return self.poll_next(cx);
                    }
                }
            }
        };
        match &read {
            Ok(bytes) => this.at += bytes.len() as u64,
            Err(_) => this.at = this.end,
        }
        Poll::Ready(Some(read))
    }
}

/// What of the next chunk is in memory; `None` when it is not, the file system cannot tell,
/// or so many streams are under way that the pool has no buffer. Does not wait.
fn at_hand(pool: &Pool, file: &File, range: Range<u64>) -> io::Result<Option<Bytes>> {
    let len = chunk_len(&range);
    let Some(mut buffer) = pool.take() else { return Ok(None) };
    let read = buffer.fill_with(|room| {
        rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut room[..len])], range.start, ReadWriteFlags::NOWAIT)
    });
    match read {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(Some(Bytes::from_owner(buffer))),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn chunk_len(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX)
}

/// The bytes at the start of `range`, as many as one chunk holds. A file that ends before
/// the range does is an error: its length was looked at when it was opened. Blocks.
fn chunk(pool: &Pool, file: &File, range: &Range<u64>) -> io::Result<Bytes> {
    let len = chunk_len(range);
    // A chunk that ends the file gets no more memory than it needs.
    if len == CHUNK_BYTES_MAX
        && let Some(mut buffer) = pool.take()
    {
        while buffer.room() > 0 {
            let at = range.start + buffer.as_ref().len() as u64;
            match buffer.fill_with(|room| rustix::io::pread(file, room, at)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        return Ok(Bytes::from_owner::<Buffer>(buffer));
    }
    let mut buffer = Vec::with_capacity(len);
    while buffer.len() < len {
        let at = range.start + buffer.len() as u64;
        // The spare capacity may be larger than was asked for; what is read beyond is cut.
        match rustix::io::pread(file, spare_capacity(&mut buffer), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    buffer.truncate(len);
    Ok(Bytes::from(buffer))
}
