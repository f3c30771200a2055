//! File system states of a build.

use std::io;
use std::path::Path;
use std::sync::Arc;

use portolan_types::Digest;
use portolan_types::oci::Descriptor;

use crate::cancel::Cancel;
use crate::ports::Content;

/// The snapshots of one engine.
pub struct Store {
    content: Arc<dyn Content>,
}

/// A file system state: read-only layers, lowest first. Cheap to clone; while one lives its
/// layers are not evicted.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    layers: Vec<Arc<LayerDir>>,
}

/// One layer on disk.
#[derive(Debug)]
pub struct LayerDir {}

/// A writable state under way: an overlay mount on top of a [`Chain`].
#[derive(Debug)]
pub struct Active {}

impl Store {
    /// Open the snapshots under `dir`, sweeping what a killed server left there.
    pub fn open(dir: &Path, content: Arc<dyn Content>) -> io::Result<Store> {
        let _ = dir;
        Ok(Store { content })
    }

    /// The state of an image's `layers` (lowest first, with their uncompressed digests).
    /// Layers not unpacked before are unpacked, each checked against its `diff_id`.
    pub fn base(&self, layers: &[Descriptor], diff_ids: &[Digest], cancel: &Cancel) -> io::Result<Chain> {
        let _ = (layers, diff_ids, cancel, &self.content);
        Err(io::Error::other("not here yet"))
    }

    /// A state committed under `name` before, now or by an earlier process.
    pub fn find(&self, name: &Digest) -> Option<Chain> {
        let _ = name;
        None
    }

    /// Begin a writable state on top of `chain`.
    pub fn begin(&self, chain: &Chain) -> io::Result<Active> {
        let _ = chain;
        Err(io::Error::other("not here yet"))
    }

    /// Remove the least recently used layers that nobody holds until at most `bytes_max`
    /// bytes are left; returns how many bytes are left.
    pub fn evict(&self, bytes_max: u64) -> io::Result<u64> {
        let _ = bytes_max;
        Ok(0)
    }
}

impl Chain {
    /// The empty file system (`FROM scratch`).
    pub fn empty() -> Chain {
        Chain::default()
    }

    /// How many layers it has.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether it is the empty file system.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

impl Active {
    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        Path::new("/nonexistent")
    }

    /// Make what was written the top layer of a new chain, to be found as `name` from now
    /// on. Where `name` is there already (another build ran the same step), that one is
    /// returned and this one dropped, so that a name always has one content.
    pub fn commit(self, name: &Digest) -> io::Result<Chain> {
        let _ = name;
        Err(io::Error::other("not here yet"))
    }
}
