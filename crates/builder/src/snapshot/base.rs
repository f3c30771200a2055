//! Unpacking the layers of an image, each once.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_types::oci::Descriptor;
use portolan_types::{Algorithm, Digest, Hasher};

use super::{Active, Chain, Store, WorkDir, copy_root};
use crate::cancel::Cancel;
use crate::fsys;
use crate::unpack::{self, Rules, UnpackError, Whiteouts};

/// Layers unpacked at one time.
const PARALLEL_MAX: usize = 2;
/// Entries in one layer.
const LAYER_ENTRIES_MAX: u64 = 10_000_000;
/// One layer, unpacked: as much as the largest blob.
const LAYER_BYTES_MAX: u64 = portolan_types::limits::BLOB_BYTES_MAX;
/// What may follow the end of a layer's archive (padding to a tape's record).
const TRAILER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How often a build that waits for another one's unpacking looks at its cancel flag.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// A layer that was unpacked beside others, not yet in its place.
enum Unpacked {
    Alone {
        work: WorkDir,
        /// Whether it says what the root directory looks like; else that is as below.
        root: bool,
    },
    /// It has to be unpacked again, over the layers below.
    NeedsLowers,
}

impl Store {
    /// The state of an image's `layers` (lowest first, with their uncompressed digests).
    /// Layers not unpacked before are unpacked, each checked against its `diff_id`.
    pub fn base(&self, layers: &[Descriptor], diff_ids: &[Digest], cancel: &Cancel) -> io::Result<Chain> {
        if layers.len() != diff_ids.len() {
            let sentence =
                format!("the image has {} layers but its configuration lists {}", layers.len(), diff_ids.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
        }
        let names = chain_names(diff_ids);
        if names.is_empty() {
            return Ok(Chain::empty());
        }
        let _unpacking = loop {
            cancel.check()?;
            if let Some(guard) = self.unpacking.try_lock_for(CANCEL_POLL) {
                break guard;
            }
        };
        let there = names.iter().enumerate().rev().find_map(|(index, name)| Some((index + 1, self.find(name)?)));
        let (first, mut chain) = there.unwrap_or((0, Chain::empty()));

        let slots: Vec<Mutex<Option<io::Result<Unpacked>>>> = (first..layers.len()).map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let slot = next.fetch_add(1, Ordering::Relaxed);
                let Some(place) = slots.get(slot) else { break };
                let index = first + slot;
                let result = self.unpack_alone(&layers[index], &diff_ids[index], index == 0, cancel);
                let failed = result.is_err();
                *place.lock() = Some(result);
                if failed {
                    // The rest would be thrown away.
                    next.store(slots.len(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..PARALLEL_MAX.min(slots.len()) {
                scope.spawn(work);
            }
            work();
        });
        // The first real failure, not the layers that were skipped because of it.
        let mut results = Vec::new();
        for slot in slots {
            match slot.into_inner() {
                Some(Err(error)) => return Err(error),
                other => results.push(other),
            }
        }
        for (offset, result) in results.into_iter().enumerate() {
            let index = first + offset;
            chain = match result {
                Some(Ok(Unpacked::Alone { work, root })) => {
                    if let (false, Some(below)) = (root, chain.layers.last()) {
                        copy_root(&below.path, &work.path.join("fs"))?;
                    }
                    self.shared.commit(&chain, &work, &names[index])?
                }
                Some(Ok(Unpacked::NeedsLowers)) => {
                    let active = self.begin(&chain)?;
                    self.unpack_merged(&active, &layers[index], &diff_ids[index], cancel)?;
                    active.commit(&names[index])?
                }
                Some(Err(error)) => return Err(error),
                None => return Err(io::Error::other("a layer was not unpacked")),
            };
        }
        Ok(chain)
    }

    /// The state of `below` with one more layer, found as `name` from now on.
    pub fn unpack_on(
        &self,
        below: &Chain,
        layer: &Descriptor,
        diff_id: &Digest,
        name: &Digest,
        cancel: &Cancel,
    ) -> io::Result<Chain> {
        let active = self.begin(below)?;
        self.unpack_merged(&active, layer, diff_id, cancel)?;
        active.commit(name)
    }

    fn unpack_alone(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        lowest: bool,
        cancel: &Cancel,
    ) -> io::Result<Unpacked> {
        let work = self.shared.work_dir()?;
        let dest = fsys::open_root(&work.path.join("fs"))?;
        let rules = Rules { whiteouts: Whiteouts::Mark, make_parents: lowest, ..layer_rules() };
        match self.unpack_checked(layer, diff_id, dest.as_fd(), &rules, cancel) {
            Ok(done) => Ok(Unpacked::Alone { work, root: done.root }),
            Err(UnpackError::NeedsLowers) => Ok(Unpacked::NeedsLowers),
            Err(error) => Err(layer_error(layer, error)),
        }
    }

    fn unpack_merged(&self, active: &Active, layer: &Descriptor, diff_id: &Digest, cancel: &Cancel) -> io::Result<()> {
        let rules = Rules { whiteouts: Whiteouts::Delete, make_parents: true, ..layer_rules() };
        self.unpack_checked(layer, diff_id, active.fd()?, &rules, cancel).map_err(|error| layer_error(layer, error))?;
        Ok(())
    }

    fn unpack_checked(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        dest: std::os::fd::BorrowedFd<'_>,
        rules: &Rules,
        cancel: &Cancel,
    ) -> Result<unpack::Unpacked, UnpackError> {
        let mut tar = HashingReader {
            inner: unpack::decompress(self.content.open(&layer.digest)?)?,
            hasher: Hasher::new(Algorithm::Sha256),
        };
        let done = unpack::unpack(&mut tar, dest, rules, cancel)?;
        let trailer = io::copy(&mut tar.by_ref().take(TRAILER_BYTES_MAX + 1), &mut io::sink())?;
        if trailer > TRAILER_BYTES_MAX {
            return Err(UnpackError::Refused("there is more data behind the end of the archive".to_owned()));
        }
        let digest = tar.hasher.finish();
        if digest != *diff_id {
            return Err(UnpackError::Refused(format!(
                "it unpacks to {digest}, but the image's configuration says {diff_id}"
            )));
        }
        Ok(done)
    }
}

fn layer_rules() -> Rules {
    Rules {
        whiteouts: Whiteouts::Mark,
        make_parents: false,
        owner: None,
        entries_max: LAYER_ENTRIES_MAX,
        bytes_max: LAYER_BYTES_MAX,
    }
}

fn layer_error(layer: &Descriptor, error: UnpackError) -> io::Error {
    match error {
        UnpackError::Cancelled(cancelled) => cancelled.into(),
        UnpackError::Io(error) if Cancel::is_cause_of(&error) => error,
        UnpackError::Io(error) => io::Error::new(error.kind(), format!("unpack layer {}: {error}", layer.digest)),
        other => io::Error::new(io::ErrorKind::InvalidData, format!("unpack layer {}: {other}", layer.digest)),
    }
}

/// A name for each prefix of the layers: image-spec's chain id, marked as ours.
fn chain_names(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut names = Vec::with_capacity(diff_ids.len());
    let mut text = "unpacked".to_owned();
    for diff_id in diff_ids {
        let name = Digest::of(format!("{text} {diff_id}").as_bytes());
        text = name.to_string();
        names.push(name);
    }
    names
}

struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}
