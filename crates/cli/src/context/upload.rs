//! Packing and sending at once: a thread packs into a small queue, this side sends from it.

use std::io::{self, Write};
use std::sync::Arc;

use portolan_api::HttpClient;
use portolan_api::blobs::Upload;
use tokio::sync::mpsc;

use super::progress::Progress;
use crate::error::{Failure, Result};

/// What is queued between the two sides, in chunks.
const QUEUE_CHUNKS: usize = 16;
/// The size of a chunk.
const CHUNK_BYTES: usize = 256 * 1024;

/// Run `pack` on a thread and send what it writes to the signed address `url`. Answers what
/// `pack` answers, and the bytes sent.
pub(crate) async fn upload<T: Send + 'static>(
    http: &HttpClient,
    url: &str,
    progress: &Arc<Progress>,
    pack: impl FnOnce(&mut dyn Write, &Progress) -> Result<T> + Send + 'static,
) -> Result<(T, u64)> {
    let (sender, mut chunks) = mpsc::channel(QUEUE_CHUNKS);
    let shared = progress.clone();
    let packing = tokio::task::spawn_blocking(move || {
        let mut out = Chunks { sender, pending: Vec::with_capacity(CHUNK_BYTES) };
        let packed = pack(&mut out, &shared)?;
        out.flush().map_err(|e| Failure::new(e.to_string()))?;
        Ok(packed)
    });
    let mut upload = Upload::new(http.clone(), url)?;
    let mut sent = 0u64;
    let mut refused = None;
    while let Some(chunk) = chunks.recv().await {
        sent += chunk.len() as u64;
        if let Err(error) = upload.write(&chunk).await {
            refused = Some(error);
            break;
        }
    }
    // With the queue gone the packing thread stops at its next chunk.
    drop(chunks);
    let packed: Result<T> =
        packing.await.map_err(|e| Failure::new(format!("packing the build context broke off: {e}")))?;
    if let Some(error) = refused {
        return Err(Failure::from(error));
    }
    let packed = packed?;
    upload.finish().await?;
    Ok((packed, sent))
}

/// Writes into the queue, a chunk at a time.
struct Chunks {
    sender: mpsc::Sender<Vec<u8>>,
    pending: Vec<u8>,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK_BYTES));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload ended");
        self.sender.blocking_send(chunk).map_err(gone)
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(CHUNK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&bytes[..take]);
        if self.pending.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() { Ok(()) } else { self.send() }
    }
}
