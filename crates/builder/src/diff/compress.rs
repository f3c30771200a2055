//! From tar bytes to a blob: hash, compress, hash, write, each byte once.
//!
//! The tar is cut into pieces of one size, compressed apart from each other and put together
//! as one gzip member; the result depends on the bytes alone, not on how many threads there
//! were. A layer smaller than one piece, which most are, starts no thread. For others the
//! caller's thread makes and hashes the tar, workers compress, and one thread writes.

use std::io::{self, Write};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use portolan_types::{Algorithm, Digest, Hasher};

use crate::ports::ContentWriter;

/// What is compressed at a time, bytes. Smaller pieces compress worse, by about 1 % at this
/// size.
const PIECE_BYTES: usize = 1024 * 1024;
/// Threads that compress.
const WORKERS_MAX: usize = 4;
/// Pieces under way at one time, for each worker.
const QUEUE_PER_WORKER: usize = 2;
/// zlib's scale. Levels above cost much time for little; docker's 6 is of a slower zlib.
const LEVEL: u32 = 5;
/// RFC 1952: deflate, no name, no time, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// RFC 1951: an empty last block, at a byte's boundary.
const DEFLATE_END: [u8; 2] = [0x03, 0x00];

/// What came out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressed {
    /// Of the uncompressed bytes.
    pub diff_id: Digest,
    /// Of the blob.
    pub blob: Digest,
    /// The blob's size in bytes.
    pub size: u64,
}

struct Piece {
    bytes: Vec<u8>,
    crc: Crc,
}

struct Pipeline<'scope> {
    work: Sender<(Vec<u8>, Sender<io::Result<Piece>>)>,
    order: Sender<Receiver<io::Result<Piece>>>,
    output: ScopedJoinHandle<'scope, io::Result<Output>>,
}

/// Takes a tar and makes a blob of it.
pub(super) struct Compressor<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    buffer: Vec<u8>,
    hasher: Hasher,
    /// Until threads are started.
    output: Option<Output>,
    pipeline: Option<Pipeline<'scope>>,
}

/// The compressed side.
struct Output {
    writer: Box<dyn ContentWriter>,
    hasher: Hasher,
    size: u64,
    crc: Crc,
}

impl<'scope, 'env> Compressor<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, writer: Box<dyn ContentWriter>) -> io::Result<Self> {
        let mut output = Output { writer, hasher: Hasher::new(Algorithm::Sha256), size: 0, crc: Crc::new() };
        output.write(&GZIP_HEADER)?;
        Ok(Compressor {
            scope,
            buffer: Vec::with_capacity(64 * 1024),
            hasher: Hasher::new(Algorithm::Sha256),
            output: Some(output),
            pipeline: None,
        })
    }

    /// Where the next bytes go; call [`Compressor::filled`] after adding to it. Bytes that
    /// stand in it already must stay.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// How many bytes fit before the next piece begins; at least 1.
    pub(super) fn room(&self) -> usize {
        PIECE_BYTES.saturating_sub(self.buffer.len()).max(1)
    }

    /// Pass on what makes a whole piece.
    pub(super) fn filled(&mut self) -> io::Result<()> {
        while self.buffer.len() >= PIECE_BYTES {
            let rest = self.buffer.split_off(PIECE_BYTES);
            let mut piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES + 64 * 1024));
            self.buffer.extend_from_slice(&rest);
            piece.truncate(PIECE_BYTES);
            self.send(piece)?;
        }
        Ok(())
    }

    /// The end of the tar: finish the blob and commit it.
    pub(super) fn finish(mut self) -> io::Result<Compressed> {
        let last = std::mem::take(&mut self.buffer);
        let mut output = match self.output.take() {
            // Everything fits one piece: no thread was started.
            Some(mut output) => {
                self.hasher.update(&last);
                output.piece(deflate(&mut new_deflate(), &last)?)?;
                output
            }
            None => {
                if !last.is_empty() {
                    self.send(last)?;
                }
                self.join()?
            }
        };
        let mut end = DEFLATE_END.to_vec();
        end.extend_from_slice(&output.crc.sum().to_le_bytes());
        end.extend_from_slice(&output.crc.amount().to_le_bytes());
        output.write(&end)?;
        let blob = output.hasher.finish();
        output.writer.commit(&blob)?;
        Ok(Compressed { diff_id: self.hasher.finish(), blob, size: output.size })
    }

    fn send(&mut self, piece: Vec<u8>) -> io::Result<()> {
        if self.pipeline.is_none() {
            let output = self.output.take().ok_or_else(broken)?;
            self.pipeline = Some(Pipeline::start(self.scope, output));
        }
        let Some(pipeline) = &self.pipeline else { return Err(broken()) };
        self.hasher.update(&piece);
        let (done, result) = bounded(1);
        // Order first: its bound is what keeps the memory small.
        if pipeline.order.send(result).is_err() || pipeline.work.send((piece, done)).is_err() {
            // The writing thread has failed; its own error says more.
            return Err(self.join().err().unwrap_or_else(broken));
        }
        Ok(())
    }

    fn join(&mut self) -> io::Result<Output> {
        let pipeline = self.pipeline.take().ok_or_else(broken)?;
        drop((pipeline.work, pipeline.order));
        pipeline.output.join().map_err(|_| broken())?
    }
}

impl<'scope> Pipeline<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>, mut output: Output) -> Pipeline<'scope> {
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get().clamp(1, WORKERS_MAX));
        let (work, jobs) = bounded::<(Vec<u8>, Sender<io::Result<Piece>>)>(workers * QUEUE_PER_WORKER);
        let (order, results) = bounded::<Receiver<io::Result<Piece>>>(workers * QUEUE_PER_WORKER);
        for _ in 0..workers {
            let jobs = jobs.clone();
            scope.spawn(move || {
                let mut state = new_deflate();
                for (piece, done) in jobs {
                    // Nobody waits for it when writing has failed.
                    let _ = done.send(deflate(&mut state, &piece));
                }
            });
        }
        let output = scope.spawn(move || {
            for result in results {
                output.piece(result.recv().map_err(|_| broken())??)?;
            }
            Ok(output)
        });
        Pipeline { work, order, output }
    }
}

impl Output {
    fn piece(&mut self, piece: Piece) -> io::Result<()> {
        self.crc.combine(&piece.crc);
        self.write(&piece.bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.writer.write_all(bytes)
    }
}

fn new_deflate() -> Compress {
    Compress::new(Compression::new(LEVEL), false)
}

/// Compress one piece so that another can follow at a byte's boundary.
fn deflate(state: &mut Compress, bytes: &[u8]) -> io::Result<Piece> {
    state.reset();
    let mut crc = Crc::new();
    crc.update(bytes);
    let mut out = Vec::with_capacity(bytes.len() / 2 + 1024);
    loop {
        let consumed = usize::try_from(state.total_in()).unwrap_or(usize::MAX);
        let status = state
            .compress_vec(&bytes[consumed.min(bytes.len())..], &mut out, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        if status == Status::StreamEnd {
            return Err(broken());
        }
        // A flush is complete when there was room left over.
        if state.total_in() == bytes.len() as u64 && out.len() < out.capacity() {
            return Ok(Piece { bytes: out, crc });
        }
        out.reserve(out.capacity().max(1024));
    }
}

fn broken() -> io::Error {
    io::Error::other("the layer writer's threads broke off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::{Arc, Mutex};

    struct Memory(Vec<u8>, Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl ContentWriter for Memory {
        fn commit(self: Box<Self>, digest: &Digest) -> io::Result<()> {
            assert_eq!(Digest::of(&self.0), *digest);
            *self.1.lock().unwrap() = self.0;
            Ok(())
        }
    }

    #[test]
    fn any_gzip_reader_gets_the_bytes_back() {
        // Noise, so that pieces grow, and text, so that they shrink.
        let mut seed = 1u32;
        let noise = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
            (seed >> 24) as u8
        });
        let long: Vec<u8> = noise.take(PIECE_BYTES + 77).chain(b"portolan ".repeat(300_000)).collect();
        for bytes in [&b""[..], b"short", &long[..PIECE_BYTES], &long] {
            let blob = Arc::new(Mutex::new(Vec::new()));
            let out = std::thread::scope(|scope| {
                let mut compressor = Compressor::new(scope, Box::new(Memory(Vec::new(), blob.clone()))).unwrap();
                for chunk in bytes.chunks(100_000) {
                    compressor.buffer().extend_from_slice(chunk);
                    compressor.filled().unwrap();
                }
                compressor.finish().unwrap()
            });
            let blob = blob.lock().unwrap();
            assert_eq!(out.diff_id, Digest::of(bytes));
            assert_eq!(out.size, blob.len() as u64);
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut back).unwrap();
            assert!(back == bytes);
        }
    }
}
