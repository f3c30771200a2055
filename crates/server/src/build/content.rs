//! The engine's [`Content`] over the blob store.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use portolan_builder::ports::{Content, ContentWriter};
use portolan_store::Error;
use portolan_store::blob::{BlobWriter, Blobs, ByteStream};
use portolan_types::Digest;
use tokio::runtime::Handle;

/// How often to look again for a file that moved between its path and its opening.
const LOOKS_MAX: u32 = 3;

/// Content by digest for threads of the engine.
pub(super) struct StoreContent {
    blobs: Arc<dyn Blobs>,
    runtime: Handle,
}

impl StoreContent {
    pub(super) fn new(blobs: Arc<dyn Blobs>, runtime: Handle) -> StoreContent {
        StoreContent { blobs, runtime }
    }

    /// Do something with the blob's file, for stores that have one.
    fn with_file<T>(&self, digest: &Digest, act: impl Fn(&std::path::Path) -> io::Result<T>) -> Option<io::Result<T>> {
        for _ in 0..LOOKS_MAX {
            match act(&self.blobs.local_path(digest)?) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => return Some(other),
            }
        }
        None
    }
}

impl Content for StoreContent {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        // A store without files fetches one, verified, if it is not too large to be kept: a
        // layer is read more than once.
        for look in 0..LOOKS_MAX {
            if let Some(file) = self.with_file(digest, |path| File::open(path)) {
                return Ok(Box::new(file?));
            }
            let fetched = self.runtime.block_on(self.blobs.fetch(digest)).map_err(to_io)?;
            let Some(path) = fetched.filter(|_| look + 1 < LOOKS_MAX) else { break };
            match File::open(path) {
                Ok(file) => return Ok(Box::new(file)),
                // Removed for others at once.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let body = self.runtime.block_on(self.blobs.read(digest, 0..u64::MAX)).map_err(to_io)?;
        Ok(Box::new(StreamReader { runtime: self.runtime.clone(), body, rest: Bytes::new() }))
    }

    fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        if let Some(meta) = self.with_file(digest, |path| std::fs::metadata(path)) {
            return meta.map(|m| Some(m.len()));
        }
        self.runtime.block_on(self.blobs.size(digest)).map_err(to_io)
    }

    fn create(&self) -> io::Result<Box<dyn ContentWriter>> {
        Ok(Box::new(Writer(self.blobs.writer().map_err(to_io)?)))
    }

    fn sync(&self, digests: &[Digest]) -> io::Result<()> {
        self.blobs.sync(digests).map_err(to_io)
    }
}

struct Writer(Box<dyn BlobWriter>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl ContentWriter for Writer {
    fn commit(self: Box<Self>, digest: &Digest) -> io::Result<()> {
        self.0.commit(digest).map(drop).map_err(to_io)
    }
}

/// A stream read by a thread that may block.
pub(super) struct StreamReader {
    runtime: Handle,
    body: ByteStream,
    rest: Bytes,
}

impl StreamReader {
    pub(super) fn new(runtime: Handle, body: ByteStream) -> StreamReader {
        StreamReader { runtime, body, rest: Bytes::new() }
    }
}

impl Read for StreamReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.runtime.block_on(self.body.next()) {
                Some(bytes) => self.rest = bytes?,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(into.len());
        into[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

/// A failure of the store in the engine's words.
pub(super) fn to_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound(_) => io::ErrorKind::NotFound,
        Error::Full => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use portolan_store::blob::FsBlobs;

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(FsBlobs::open(dir.path()).unwrap());
        let content = StoreContent::new(blobs.clone(), runtime.handle().clone());
        let digest = Digest::of(b"layer");
        assert_eq!(content.size(&digest).unwrap(), None);
        assert_eq!(content.open(&digest).err().unwrap().kind(), io::ErrorKind::NotFound);

        let mut writer = content.create().unwrap();
        writer.write_all(b"layer").unwrap();
        writer.commit(&digest).unwrap();
        content.sync(&[digest]).unwrap();
        assert_eq!(content.size(&digest).unwrap(), Some(5));
        let mut text = String::new();
        content.open(&digest).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "layer");

        let body = runtime.block_on(blobs.read(&digest, 0..u64::MAX)).unwrap();
        let mut text = String::new();
        StreamReader::new(runtime.handle().clone(), body).read_to_string(&mut text).unwrap();
        assert_eq!(text, "layer");
        assert!(content.sync(&[Digest::of(b"other")]).is_err());
    }
}
