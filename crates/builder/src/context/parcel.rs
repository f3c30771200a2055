//! What our own command line sends: a listing of the whole context, and the contents of those
//! files that the server said it had not.
//!
//! ```text
//! parcel    "portolan parcel 1\n"  part:u8  bytes:u64  listing  count:u32  number:u32…  contents…
//! ```
//!
//! `part` is 1 when the client listed only what the Dockerfile can ask for, else 0.
//! Whole numbers are little-endian. `number…` counts the listing's files from 0, ascending;
//! `contents` are those files' bytes end to end. Each is checked against the hash listed; a
//! file that is not sent must be like one sent before it, or in the [`Stock`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use portolan_types::listing::{self, LISTING_BYTES_MAX};
use rustix::fs::Timespec;

use super::{Context, ContextError, ContextInfo, ContextLimits, entry_error, from_io};
use crate::cancel::Cancel;
use crate::tarball::{Entry, Kind};
use crate::tree::{Builder, From, Hash, Piece};

/// Contents that earlier contexts left, by their SHA-256.
pub trait Stock: Sync {
    /// A file that holds contents of that hash and size from some offset on; `None` when
    /// there is none. The file must not change while anybody has it.
    fn find(&self, hash: &[u8; 32], size: u64) -> io::Result<Option<(Arc<File>, u64)>>;
}

/// A file's contents as they were received: where they are in the contents' file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// SHA-256.
    pub hash: [u8; 32],
    /// Offset in bytes.
    pub at: u64,
    /// Bytes.
    pub size: u64,
}

/// Read a parcel whose magic has been read. `contents` as for [`Context::read`].
pub(super) fn read(
    mut parcel: impl Read,
    contents: File,
    stock: &dyn Stock,
    limits: &ContextLimits,
    cancel: &Cancel,
) -> Result<(Context, Vec<Received>), ContextError> {
    let refused = |why: &dyn std::fmt::Display| ContextError::Refused(format!("the build context was refused: {why}"));
    let mut part = [0];
    parcel.read_exact(&mut part).map_err(cut)?;
    let partial = part == [listing::PARTIAL];
    let listing = listing(&mut parcel)?;
    let sent = numbers(&mut parcel, limits)?;
    let mut sent = sent.into_iter().peekable();
    let mut builder = Builder::new(contents, limits.entries_max, limits.bytes_max, cancel)?;
    let mut known: HashMap<Hash, Piece> = HashMap::new();
    let mut lent: Vec<(Arc<File>, u32)> = Vec::new();
    let mut received = Vec::new();
    let mut number = 0u32;
    for item in listing::Reader::new(&listing).map_err(|e| refused(&e))? {
        let item = item.map_err(|e| refused(&e))?;
        let entry = entry(&item);
        let listing::Kind::File { size, hash } = item.kind else {
            builder.entry(&entry, &mut io::empty()).map_err(entry_error)?;
            continue;
        };
        if sent.next_if_eq(&number).is_some() {
            let mut body = (&mut parcel).take(size);
            let piece = builder.entry_from(&entry, From::Here(&mut body)).map_err(entry_error)?;
            let shown = || String::from_utf8_lossy(&item.path).escape_debug().to_string();
            let Some(piece) = piece.filter(|p| p.size == size && p.hash == hash) else {
                let path = shown();
                return Err(refused(&format!("{path} changed while it was sent; hint: build again")));
            };
            received.push(Received { hash, at: piece.at, size });
            known.insert(hash, piece);
        } else {
            let piece = match known.get(&hash).filter(|p| p.size == size) {
                Some(piece) => piece.clone(),
                None => {
                    let found = stock.find(&hash, size)?;
                    let (file, at) = found.ok_or(ContextError::Missing)?;
                    let place = match lent.iter().find(|(f, _)| Arc::ptr_eq(f, &file)) {
                        Some((_, place)) => *place,
                        None => {
                            let place = builder.lend(file.clone())?;
                            lent.push((file, place));
                            place
                        }
                    };
                    let piece = Piece { file: place, at, size, hash };
                    known.insert(hash, piece.clone());
                    piece
                }
            };
            builder.entry_from(&entry, From::There(piece)).map_err(entry_error)?;
        }
        number = number.checked_add(1).ok_or_else(|| refused(&"it has too many files"))?;
    }
    if sent.next().is_some() {
        return Err(refused(&"it has contents of files that it does not list"));
    }
    let info = ContextInfo { entries: builder.entries, bytes: builder.bytes };
    Ok((Context { tree: Arc::new(builder.finish()?), info, partial }, received))
}

fn listing(parcel: &mut impl Read) -> Result<Vec<u8>, ContextError> {
    let mut length = [0; 8];
    parcel.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > LISTING_BYTES_MAX as u64 {
        return Err(ContextError::Refused(format!("its listing is larger than {LISTING_BYTES_MAX} bytes")));
    }
    // Memory as it comes, not as it is promised.
    let mut listing = Vec::new();
    let got = parcel.take(length).read_to_end(&mut listing).map_err(from_io)?;
    if got as u64 != length {
        return Err(cut(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(listing)
}

/// The numbers of the files that follow.
fn numbers(parcel: &mut impl Read, limits: &ContextLimits) -> Result<Vec<u32>, ContextError> {
    let mut count = [0; 4];
    parcel.read_exact(&mut count).map_err(cut)?;
    let count = u64::from(u32::from_le_bytes(count));
    if count > limits.entries_max {
        return Err(ContextError::Refused(format!("it has more than {} files", limits.entries_max)));
    }
    let mut bytes = Vec::new();
    let got = parcel.take(4 * count).read_to_end(&mut bytes).map_err(from_io)?;
    if got as u64 != 4 * count {
        return Err(cut(io::ErrorKind::UnexpectedEof.into()));
    }
    let number = |n: &[u8]| n.try_into().map(u32::from_le_bytes).unwrap_or_default();
    Ok(bytes.chunks_exact(4).map(number).collect())
}

fn cut(error: io::Error) -> ContextError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            ContextError::Refused("the build context was refused: it ends too early".into())
        }
        _ => from_io(error),
    }
}

fn entry(item: &listing::Entry<'_>) -> Entry {
    let (kind, size, link) = match item.kind {
        listing::Kind::Folder => (Kind::Dir, 0, &[][..]),
        listing::Kind::File { size, .. } => (Kind::File, size, &[][..]),
        listing::Kind::Link(target) => (Kind::Symlink, 0, target),
        listing::Kind::HardLink(target) => (Kind::HardLink, 0, target),
    };
    Entry {
        path: item.path.clone(),
        kind,
        mode: item.mode,
        uid: 0,
        gid: 0,
        size,
        mtime: Timespec { tv_sec: i64::try_from(item.mtime).unwrap_or(i64::MAX), tv_nsec: 0 },
        link: link.to_vec(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}
