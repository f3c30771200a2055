//! A file being written: hashed on the way, gone when it is dropped unfinished.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_types::{Algorithm, Digest, Hasher};

use super::Inner;
use super::feed::{self, Batch};
use crate::{Error, Result};

/// A file under `tmp/` or `uploads/` on its way to a name. Removed when dropped.
pub(super) struct Temp {
    file: File,
    path: PathBuf,
    placed: bool,
}

impl Temp {
    pub(super) fn create(path: PathBuf) -> Result<Temp> {
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        Ok(Temp { file: file.map_err(|e| Error::io("make a temporary file", e))?, path, placed: false })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn len(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.len()).map_err(|e| Error::io("look at a temporary file", e))
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("sync blob", e))
    }

    pub(super) fn rename(mut self, to: &Path) -> Result<()> {
        self.try_rename(to).map_err(|e| Error::io("name blob", e))
    }

    /// As [`Temp::rename`], for callers that want to try again.
    pub(super) fn try_rename(&mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.placed
            && let Err(e) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), error = %e, "a temporary file was left behind");
        }
    }
}

/// A body on its way into a [`Temp`]. The file is made with the first bytes, in the same
/// hop to a blocking thread.
pub(super) struct Sink {
    inner: Arc<Inner>,
    temp: Option<Temp>,
    hasher: Option<Hasher>,
    len: u64,
}

impl Sink {
    /// Without `algorithm` nothing is hashed.
    pub(super) fn new(inner: Arc<Inner>, algorithm: Option<Algorithm>) -> Sink {
        Sink { inner, temp: None, hasher: algorithm.map(Hasher::new), len: 0 }
    }

    /// The file, its length, and the digest of what was written.
    pub(super) fn finish(self) -> Result<(Temp, u64, Option<Digest>)> {
        let temp = match self.temp {
            Some(temp) => temp,
            None => self.inner.temp()?,
        };
        Ok((temp, self.len, self.hasher.map(Hasher::finish)))
    }
}

impl feed::Sink for Sink {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let temp = match &self.temp {
            Some(temp) => temp,
            None => self.temp.insert(self.inner.temp()?),
        };
        feed::write_all(temp.file(), self.len, batch.slices()).map_err(|e| Error::io("write blob", e))?;
        for piece in batch.slices() {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(piece);
            }
            self.len += piece.len() as u64;
        }
        Ok(())
    }
}
