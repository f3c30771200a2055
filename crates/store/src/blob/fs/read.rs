//! Files as streams of large chunks, with one chunk read ahead.

use std::fs::File;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream;
use rustix::buffer::spare_capacity;
use tokio::task::JoinHandle;

use super::super::ByteStream;
use super::hop;
use crate::{Error, Result};

/// Bytes in one chunk.
const CHUNK_BYTES_MAX: u64 = 256 * 1024;

struct Reading {
    next: Next,
    at: u64,
    end: u64,
}

enum Next {
    /// A chunk, and the file to read on in.
    Ready(File, Bytes),
    Reading(JoinHandle<io::Result<(File, Bytes)>>),
}

/// Open a file and stream the bytes in `range`, cut at its end. The first chunk is read in
/// the hop that opens the file, so that a small one takes no second.
pub(super) async fn stream(
    open: impl FnOnce() -> Result<File> + Send + 'static,
    range: Range<u64>,
) -> Result<ByteStream> {
    let (file, first, range) = hop(move || {
        let file = open()?;
        let io = |e| Error::io("read blob", e);
        let end = range.end.min(file.metadata().map_err(io)?.len());
        let range = range.start.min(end)..end;
        let first = chunk(&file, &range).map_err(io)?;
        Ok((file, first, range))
    })
    .await?;
    let at = range.start + first.len() as u64;
    if at == range.end {
        let chunk = (!first.is_empty()).then_some(Ok(first));
        return Ok(Box::pin(stream::iter(chunk)));
    }
    let start = Some(Reading { next: Next::Ready(file, first), at, end: range.end });
    Ok(Box::pin(stream::unfold(start, |reading| async move {
        let Reading { next, at, end } = reading?;
        let read = match next {
            Next::Ready(file, bytes) => Ok((file, bytes)),
            Next::Reading(task) => task.await.unwrap_or_else(|e| Err(io::Error::other(e))),
        };
        match read {
            Err(e) => Some((Err(e), None)),
            Ok((_, bytes)) if at == end => Some((Ok(bytes), None)),
            Ok((file, bytes)) => {
                let task = tokio::task::spawn_blocking(move || {
                    let bytes = chunk(&file, &(at..end))?;
                    Ok((file, bytes))
                });
                let at = at + CHUNK_BYTES_MAX.min(end - at);
                Some((Ok(bytes), Some(Reading { next: Next::Reading(task), at, end })))
            }
        }
    })))
}

/// The bytes at the start of `range`, as many as one chunk holds. A file that ends before
/// the range does is an error: its length was looked at when it was opened.
fn chunk(file: &File, range: &Range<u64>) -> io::Result<Bytes> {
    let len = CHUNK_BYTES_MAX.min(range.end - range.start) as usize;
    let mut buffer = Vec::with_capacity(len);
    while buffer.len() < len {
        let at = range.start + buffer.len() as u64;
        // The spare capacity may be larger than was asked for; what is read beyond is cut.
        match rustix::io::pread(file, spare_capacity(&mut buffer), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    buffer.truncate(len);
    Ok(Bytes::from(buffer))
}
