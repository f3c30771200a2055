//! A checksum over what a `COPY` takes.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use portolan_types::{Algorithm, Digest, Hasher};
use rustix::fs::FileType;

use super::select::Item;
use super::{CopyError, Plan};
use crate::cancel::Cancel;
use crate::fsys;

/// Threads that read files.
const WORKERS_MAX: usize = 4;
/// Files from which on a second thread is worth starting.
const FILES_PER_WORKER_MIN: usize = 64;
/// Files are read in pieces of this many bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Names, kinds, modes, owners, targets, contents and attributes of everything; not times.
pub(super) fn digest(plan: &Plan, cancel: &Cancel) -> Result<Digest, CopyError> {
    let files: Vec<(&Path, &Item)> = plan
        .sources
        .iter()
        .flat_map(|source| source.items.iter().map(move |item| (source.path.as_path(), item)))
        .filter(|(_, item)| fsys::kind(&item.stat) == FileType::RegularFile && item.hash.is_none())
        .collect();
    let mut contents = contents(plan, &files, cancel)?.into_iter();

    let mut hasher = Hasher::new(Algorithm::Sha256);
    // Every field has its length before it, so that two lists cannot read the same.
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for source in &plan.sources {
        field(if source.dir { b"dir" } else { source.name.as_bytes() });
        field(&(source.items.len() as u64).to_le_bytes());
        for item in &source.items {
            let stat = &item.stat;
            field(item.rel.as_os_str().as_bytes());
            field(&stat.st_mode.to_le_bytes());
            field(&[stat.st_uid.to_le_bytes(), stat.st_gid.to_le_bytes()].concat());
            field(item.link.as_bytes());
            if matches!(fsys::kind(stat), FileType::CharacterDevice | FileType::BlockDevice) {
                field(&stat.st_rdev.to_le_bytes());
            }
            if fsys::kind(stat) == FileType::RegularFile {
                match &item.hash {
                    Some(hash) => field(hash),
                    None => field(contents.next().unwrap_or_default().as_slice()),
                }
            }
            for (key, value) in &item.xattrs {
                field(key.as_bytes());
                field(value);
            }
        }
    }
    Ok(hasher.finish())
}

/// The hash of each file, in order.
fn contents(plan: &Plan, files: &[(&Path, &Item)], cancel: &Cancel) -> Result<Vec<Vec<u8>>, CopyError> {
    let hashes: Vec<Mutex<Vec<u8>>> = files.iter().map(|_| Mutex::new(Vec::new())).collect();
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<CopyError>> = Mutex::new(None);
    let work = || {
        let mut piece = vec![0u8; PIECE_BYTES];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some((base, item)), Some(slot)) = (files.get(index), hashes.get(index)) else { break };
            match hash(plan, base, item, &mut piece, cancel) {
                Ok(hash) => *slot.lock() = hash,
                Err(error) => {
                    *failure.lock() = Some(error);
                    next.store(files.len(), Ordering::Relaxed);
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(WORKERS_MAX));
    std::thread::scope(|scope| {
        for _ in 1..cores.min(files.len() / FILES_PER_WORKER_MIN) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(hashes.into_iter().map(Mutex::into_inner).collect()),
    }
}

fn hash(plan: &Plan, base: &Path, item: &Item, piece: &mut [u8], cancel: &Cancel) -> Result<Vec<u8>, CopyError> {
    cancel.check().map_err(|_| CopyError::Cancelled)?;
    let path = if item.rel.as_os_str().is_empty() { base.to_owned() } else { base.join(&item.rel) };
    let mut file = plan.root.file(&path)?;
    let size = usize::try_from(item.stat.st_size).unwrap_or(usize::MAX);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut total = 0;
    while total < size {
        match file.read(&mut *piece)? {
            0 => break,
            n => {
                hasher.update(&piece[..n]);
                total += n;
            }
        }
        cancel.check().map_err(|_| CopyError::Cancelled)?;
    }
    Ok(hasher.finish().bytes().to_vec())
}
