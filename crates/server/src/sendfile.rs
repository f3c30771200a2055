//! Files that go from the page cache to the socket without passing through this process.
//!
//! hyper writes what a body gives it, and a body can give bytes only. So for a file a body
//! gives *placeholders*: slices of one static region that nobody else has and nobody reads.
//! With each it queues what the slice stands for (file, offset, length) on the connection's
//! [`Files`]. hyper passes the slices on untouched and in order; [`Socket`], below hyper,
//! knows them by their address, and in their place has the kernel send the file.
//!
//! ```text
//! FileBody ── placeholder ──▶ hyper ── the same slice ──▶ Socket ── sendfile ──▶ kernel
//!     └────── Piece ──────▶ Files (first in, first out) ─────┘
//! ```
//!
//! What makes it exact:
//! * Only for HTTP/1 without TLS, where hyper writes slices as they are (`Queue`), one answer
//!   after the other. `listen` puts [`Files`] in those requests alone; all other answers
//!   stream bytes (`Reader::read`).
//! * Each placeholder begins at a place of its own in the region. A slice must begin and end
//!   exactly where the piece at the head of the queue says; on any difference (hyper dropped,
//!   merged or cut something) the connection fails. No byte of the region is ever sent.
//! * A file that has become shorter fails the connection, before its announced length.
//!
//! `sendfile` reads the disk for what is not in memory, and would hold an async thread for
//! it. So before a piece is queued it is looked at in steps of [`PROBE_STEP_BYTES`] with
//! reads that do not wait (`RWF_NOWAIT`); when one of them would, a blocking thread reads
//! the next [`WARM_BYTES`] into memory first and has the kernel begin with those after. What
//! is evicted between look and send costs a wait of one read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Bytes in one piece: what is sent at once, if the socket takes it.
const PIECE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Below this, copying costs less than a second open file and two more system calls.
pub(crate) const FILE_BYTES_MIN: u64 = 128 * 1024;
/// How far apart the bytes are that are looked for in memory. Files are read ahead and
/// dropped in runs of at least so much.
const PROBE_STEP_BYTES: usize = 64 * 1024;
/// What a blocking thread reads into memory in one go.
const WARM_BYTES: u64 = 4 * 1024 * 1024;
const WARM_READ_BYTES: usize = 128 * 1024;

/// Placeholders begin at one of so many places, so that two that follow each other differ.
const PLACES: usize = 64;
const PLACE_BYTES: usize = 64;
/// Never written and never read, so that it takes addresses and no memory.
static REGION: [u8; PIECE_BYTES_MAX + PLACES * PLACE_BYTES] = [0; PIECE_BYTES_MAX + PLACES * PLACE_BYTES];

/// Where in the region a slice begins, if it is a placeholder.
fn place_of(slice: &[u8]) -> Option<usize> {
    let at = slice.as_ptr().addr().checked_sub(REGION.as_ptr().addr())?;
    (at < REGION.len()).then_some(at)
}

/// What one placeholder stands for, less what was sent of it.
struct Piece {
    file: Arc<File>,
    at: u64,
    left: usize,
    /// Where in the region the rest of its placeholder begins.
    place: usize,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    turn: usize,
}

/// The pieces on their way through one connection. In the extensions of its requests.
#[derive(Clone, Default)]
pub(crate) struct Files(Arc<Mutex<Queue>>);

impl Files {
    /// Queue a piece of at most [`PIECE_BYTES_MAX`]; its placeholder.
    fn push(&self, file: &Arc<File>, at: u64, len: usize) -> Bytes {
        let mut queue = self.0.lock();
        let place = queue.turn * PLACE_BYTES;
        queue.turn = (queue.turn + 1) % PLACES;
        queue.pieces.push_back(Piece { file: Arc::clone(file), at, left: len, place });
        Bytes::from_static(&REGION[place..place + len])
    }

    /// Send some of the piece that `slice` stands for. Does not wait for the socket.
    fn send(&self, tcp: &TcpStream, place: usize, len: usize) -> io::Result<usize> {
        let mut queue = self.0.lock();
        let Some(piece) = queue.pieces.front_mut().filter(|piece| (piece.place, piece.left) == (place, len)) else {
            return Err(io::Error::other("an answer's pieces are out of order"));
        };
        let mut at = piece.at;
        let sent = loop {
            match rustix::fs::sendfile(tcp, &*piece.file, Some(&mut at), piece.left) {
                Err(Errno::INTR) => {}
                sent => break sent?,
            }
        };
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter while it was sent"));
        }
        piece.at += sent as u64;
        piece.place += sent;
        piece.left -= sent;
        if piece.left == 0 {
            queue.pieces.pop_front();
        }
        Ok(sent)
    }
}

/// An answer's body that is a range of a file.
pub(crate) struct FileBody {
    files: Files,
    file: Arc<File>,
    at: u64,
    end: u64,
    /// Up to here the file was in memory a moment ago.
    warm: u64,
    warming: Option<JoinHandle<io::Result<()>>>,
}

impl FileBody {
    /// The bytes in `range` of the file, to be sent on the connection of `files`.
    pub(crate) fn new(files: Files, file: File, range: Range<u64>) -> FileBody {
        FileBody { files, file: Arc::new(file), at: range.start, end: range.end, warm: range.start, warming: None }
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let body = &mut *self;
        let len = usize::try_from(body.end - body.at).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
        let until = body.at + len as u64;
        while body.warm < until {
            if let Some(task) = &mut body.warming {
                let warmed = ready!(Pin::new(task).poll(cx)).unwrap_or_else(|e| Err(io::Error::other(e)));
                body.warming = None;
                warmed?;
                body.warm = body.end.min(body.at + WARM_BYTES);
            } else if in_memory(&body.file, body.at..until)? {
                body.warm = until;
            } else {
                let (file, at, end) = (Arc::clone(&body.file), body.at, body.end);
                body.warming = Some(tokio::task::spawn_blocking(move || warm(&file, at, end)));
            }
        }
        let placeholder = body.files.push(&body.file, body.at, len);
        body.at = until;
        Poll::Ready(Some(Ok(Frame::data(placeholder))))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}

/// Whether the file's bytes in `range` seem to be in memory. Does not wait.
fn in_memory(file: &File, range: Range<u64>) -> io::Result<bool> {
    let last = range.end - 1;
    for at in range.step_by(PROBE_STEP_BYTES).chain([last]) {
        let mut byte = [0];
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            // It would wait, or the file system cannot tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

/// Read the next part of a file, up to `end`, into the kernel's memory. Blocks.
fn warm(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    let until = end.min(at + WARM_BYTES);
    let ahead = std::num::NonZeroU64::new(end.min(until + WARM_BYTES) - at);
    // Advice: where it is not taken, reading does the work.
    let _ = rustix::fs::fadvise(file, at, ahead, rustix::fs::Advice::WillNeed);
    let mut buffer = vec![0; WARM_READ_BYTES];
    while at < until {
        let len = usize::try_from(until - at).unwrap_or(usize::MAX).min(buffer.len());
        match rustix::io::pread(file, &mut buffer[..len], at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// A connection that sends files in the place of their placeholders.
pub(crate) struct Socket {
    tcp: TcpStream,
    files: Files,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> Socket {
        Socket { tcp, files: Files::default() }
    }

    /// The queue for requests of this connection.
    pub(crate) fn files(&self) -> Files {
        self.files.clone()
    }

    fn poll_send(&self, cx: &mut Context<'_>, place: usize, len: usize) -> Poll<io::Result<usize>> {
        loop {
            // Takes from the task's budget, so that a fast reader leaves room for others.
            ready!(self.tcp.poll_write_ready(cx))?;
            match self.tcp.try_io(Interest::WRITABLE, || self.files.send(&self.tcp, place, len)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match place_of(bytes) {
            Some(place) if !bytes.is_empty() => self.poll_send(cx, place, bytes.len()),
            _ => Pin::new(&mut self.tcp).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Empty slices stand for nothing, wherever they point.
        let file = slices.iter().position(|slice| !slice.is_empty() && place_of(slice).is_some());
        let Some(file) = file else { return Pin::new(&mut self.tcp).poll_write_vectored(cx, slices) };
        // What comes before the file goes first, in a write of its own.
        if slices[..file].iter().any(|slice| !slice.is_empty()) {
            return Pin::new(&mut self.tcp).poll_write_vectored(cx, &slices[..file]);
        }
        match place_of(&slices[file]) {
            Some(place) => self.poll_send(cx, place, slices[file].len()),
            None => Poll::Ready(Err(io::Error::other("a slice moved"))),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
