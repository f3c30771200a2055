//! The listing of a build context: every name in it with its mode, its time and, for a file,
//! the SHA-256 of its contents.
//!
//! A client that builds the same folder again sends the listing and learns which contents the
//! server lacks. Twenty thousand files are a megabyte of listing, so it is binary; its
//! format is:
//!
//! ```text
//! listing  "portolan listing 1\n"  entry…
//! entry    kind:u8  shared:n  rest:text  mode:n  mtime:n  what the kind adds
//! kind     1 folder   2 file: size:n sha256:32 bytes   3 symbolic link: target:text
//!          4 another name of a file listed before: its path:text
//! n        a whole number, seven bits in a byte, the lowest first, 0x80 on all but the last
//! text     length:n, that many bytes
//! ```
//!
//! `shared` is how many bytes of the path before it a path begins with. Paths are relative,
//! without `.` or `..`; whoever reads them checks that again, as with any archive. Times are
//! seconds since 1970; what lies before counts as 0.

/// What a listing begins with.
pub const MAGIC: &[u8] = b"portolan listing 1\n";
/// What an archive begins with that holds a listing and the contents a server lacked.
pub const PARCEL_MAGIC: &[u8] = b"portolan parcel 1\n";
/// The byte after that when the listing has all of a context, and when it has only what its
/// Dockerfile can ask for.
pub const WHOLE: u8 = 0;
/// See [`WHOLE`].
pub const PARTIAL: u8 = 1;
/// A path or a link's target, bytes: what Linux takes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of a listing: the most entries of a context with paths of a usual length.
pub const LISTING_BYTES_MAX: usize = 192 * 1024 * 1024;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Bytes.
        size: u64,
        /// SHA-256 of its contents.
        hash: [u8; 32],
    },
    /// A symbolic link, with its target.
    Link(&'a [u8]),
    /// Another name of the file at that path, which was listed before.
    HardLink(&'a [u8]),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Relative to the context's root, `/` between components.
    pub path: Vec<u8>,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// What it is.
    pub kind: Kind<'a>,
}

/// The text is no listing; why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the listing of the build context is damaged: {0}")]
pub struct Damaged(pub &'static str);

/// Writes a listing.
#[derive(Clone, Debug)]
pub struct Writer {
    out: Vec<u8>,
    last: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { out: MAGIC.to_vec(), last: Vec::new() }
    }
}

impl Writer {
    /// Add an entry. Paths in order make the shortest listing.
    pub fn push(&mut self, path: &[u8], mode: u32, mtime: u64, kind: Kind<'_>) {
        let shared = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
        self.out.push(match kind {
            Kind::Folder => 1,
            Kind::File { .. } => 2,
            Kind::Link(_) => 3,
            Kind::HardLink(_) => 4,
        });
        number(&mut self.out, shared as u64);
        text(&mut self.out, &path[shared..]);
        number(&mut self.out, u64::from(mode));
        number(&mut self.out, mtime);
        match kind {
            Kind::Folder => {}
            Kind::File { size, hash } => {
                number(&mut self.out, size);
                self.out.extend_from_slice(&hash);
            }
            Kind::Link(target) | Kind::HardLink(target) => text(&mut self.out, target),
        }
        self.last.clear();
        self.last.extend_from_slice(path);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// The listing.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

fn number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a listing, entry by entry; the first damage ends it.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    last: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// Begin.
    pub fn new(listing: &'a [u8]) -> Result<Reader<'a>, Damaged> {
        if listing.len() > LISTING_BYTES_MAX {
            return Err(Damaged("it is too long"));
        }
        let rest = listing.strip_prefix(MAGIC).ok_or(Damaged("it is in another format"))?;
        Ok(Reader { rest, last: Vec::new() })
    }

    fn bytes(&mut self, count: u64) -> Result<&'a [u8], Damaged> {
        let count = usize::try_from(count).map_err(|_| Damaged("it ends too early"))?;
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Damaged("it ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    fn number(&mut self) -> Result<u64, Damaged> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.bytes(1)? else { return Err(Damaged("it ends too early")) };
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Damaged("a number is too large"))
    }

    fn text(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.number()?;
        if length > PATH_BYTES_MAX as u64 {
            return Err(Damaged("a path is too long"));
        }
        self.bytes(length)
    }

    fn entry(&mut self) -> Result<Entry<'a>, Damaged> {
        let [kind] = *self.bytes(1)? else { return Err(Damaged("it ends too early")) };
        let shared = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let rest = self.text()?;
        if shared > self.last.len() || shared + rest.len() > PATH_BYTES_MAX {
            return Err(Damaged("a path is too long"));
        }
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        let mode = u32::try_from(self.number()?).ok().filter(|mode| *mode <= 0o7777);
        let mode = mode.ok_or(Damaged("a mode is too large"))?;
        let mtime = self.number()?;
        if mtime > i64::MAX as u64 {
            return Err(Damaged("a time is too late"));
        }
        let kind = match kind {
            1 => Kind::Folder,
            2 => {
                let size = self.number()?;
                let hash = self.bytes(32)?.try_into().map_err(|_| Damaged("it ends too early"))?;
                Kind::File { size, hash }
            }
            3 => Kind::Link(self.text()?),
            4 => Kind::HardLink(self.text()?),
            _ => return Err(Damaged("it has an entry of an unknown kind")),
        };
        Ok(Entry { path: self.last.clone(), mode, mtime, kind })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Entry<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (Vec<u8>, u32, u64, u8, u64, [u8; 32], Vec<u8>);

    fn kind(owned: &Owned) -> Kind<'_> {
        match owned.3 {
            0 => Kind::Folder,
            1 => Kind::File { size: owned.4, hash: owned.5 },
            2 => Kind::Link(&owned.6),
            _ => Kind::HardLink(&owned.6),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in prop::collection::vec(
            ("[a-c/]{0,12}".prop_map(String::into_bytes), 0u32..0o10000, 0u64..=i64::MAX as u64, 0u8..4,
             any::<u64>(), any::<[u8; 32]>(), prop::collection::vec(any::<u8>(), 0..20)), 0..40,
        )) {
            let mut writer = Writer::default();
            for entry in &entries {
                writer.push(&entry.0, entry.1, entry.2, kind(entry));
            }
            let bytes = writer.finish();
            let read: Vec<Entry<'_>> = Reader::new(&bytes).unwrap().collect::<Result<_, _>>().unwrap();
            let expected: Vec<Entry<'_>> = entries.iter()
                .map(|e| Entry { path: e.0.clone(), mode: e.1, mtime: e.2, kind: kind(e) }).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn damage_is_an_error_and_the_end(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            bytes.splice(0..0, MAGIC.iter().copied());
            let entries: Vec<_> = Reader::new(&bytes).unwrap().collect();
            prop_assert!(entries.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert!(Reader::new(b"").is_err() && Reader::new(b"portolan listing 2\n").is_err());
        let cut = [MAGIC, &[2, 0, 1, b'a', 0, 0, 5, 1, 2]].concat();
        assert_eq!(Reader::new(&cut).unwrap().last(), Some(Err(Damaged("it ends too early"))));
    }
}
