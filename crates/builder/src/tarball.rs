//! The tar format: what docker, BuildKit and GNU tar write, and what we write.
//!
//! Reading understands ustar, PAX and GNU long names and large numbers. Nothing an archive
//! says makes it use more memory than [`EXTENSION_BYTES_MAX`]. Writing gives the same bytes
//! for the same entries, always: plain ustar headers, with a PAX header before those whose
//! values do not fit. Format: POSIX.1-2017, pax, "ustar Interchange Format".

use std::io::{self, Read};

use rustix::fs::Timespec;

/// One header or the granularity of contents, bytes.
pub(crate) const BLOCK: usize = 512;
/// The largest PAX header or long name that is read: paths are at most 4 KiB, attribute
/// values at most 64 KiB.
const EXTENSION_BYTES_MAX: u64 = 1024 * 1024;
/// Headers that may stand in a row before the entry they belong to.
const EXTENSIONS_MAX: usize = 16;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Dir,
    Fifo,
}

/// One entry, without its contents.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// As written, not cleaned.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of contents that follow; 0 for everything but files.
    pub size: u64,
    pub mtime: Timespec,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn invalid(sentence: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, sentence.to_owned())
}

/// Reads entries one after the other. The contents of the entry that [`Reader::next`] gave
/// last are read from the reader itself; what is left of them is skipped.
pub(crate) struct Reader<R> {
    inner: R,
    content_left: u64,
    padding_left: u64,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Timespec>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(inner: R) -> Reader<R> {
        Reader { inner, content_left: 0, padding_left: 0 }
    }

    /// The next entry, or `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        for _ in 0..EXTENSIONS_MAX {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let kind = header[156];
            let mut size = number(&header[124..136])?;
            match kind {
                b'x' => extensions.read_pax(&self.extension(size)?)?,
                b'g' => drop(self.extension(size)?),
                b'L' => extensions.path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => extensions.link = Some(until_nul(&self.extension(size)?).to_vec()),
                _ => {
                    if let Some(pax) = extensions.size {
                        size = pax;
                    }
                    return self.entry(&header, size, extensions).map(Some);
                }
            }
        }
        Err(invalid("the archive has too many extension headers in a row"))
    }

    fn entry(&mut self, header: &[u8; BLOCK], size: u64, ext: Extensions) -> io::Result<Entry> {
        let path = ext.path.unwrap_or_else(|| {
            let name = until_nul(&header[..100]);
            let prefix = until_nul(&header[345..500]);
            // GNU keeps other things where ustar has the prefix.
            if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
                [prefix, b"/", name].concat()
            } else {
                name.to_vec()
            }
        });
        let kind = match header[156] {
            b'0' | 0 | b'7' if path.ends_with(b"/") && size == 0 => Kind::Dir,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            b'S' => {
                return Err(invalid("the archive has sparse files, which are not supported: pack it without --sparse"));
            }
            _ => return Err(invalid("the archive has an entry of an unknown type")),
        };
        // Some writers give links the size of what they link to, without contents.
        let size = if kind == Kind::File { size } else { 0 };
        self.content_left = size;
        self.padding_left = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let narrow =
            |value: u64| u32::try_from(value).map_err(|_| invalid("the archive has a number that is too large"));
        let seconds = i64::try_from(signed_number(&header[136..148])?).unwrap_or(0);
        Ok(Entry {
            path,
            kind,
            mode: (number(&header[100..108])? & 0o7777) as u32,
            uid: ext.uid.map_or_else(|| narrow(number(&header[108..116])?), Ok)?,
            gid: ext.gid.map_or_else(|| narrow(number(&header[116..124])?), Ok)?,
            size,
            mtime: ext.mtime.unwrap_or(Timespec { tv_sec: seconds, tv_nsec: 0 }),
            link: ext.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec()),
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => {
                    (narrow(number(&header[329..337])?)?, narrow(number(&header[337..345])?)?)
                }
                _ => (0, 0),
            },
            xattrs: ext.xattrs,
        })
    }

    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut header = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ends_early()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let stored = number(&header[148..156])?;
        let sum = |byte: fn(u8) -> i64| -> i64 {
            let blanks = 8 * i64::from(b' ');
            header[..148].iter().chain(&header[156..]).map(|b| byte(*b)).sum::<i64>() + blanks
        };
        // Some old writers summed the bytes as signed.
        let stored = i64::try_from(stored).unwrap_or(-1);
        if stored != sum(i64::from) && stored != sum(|b| i64::from(b as i8)) {
            return Err(invalid("not a tar archive, or a damaged one: a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX {
            return Err(invalid("the archive has an extension header that is too large"));
        }
        let mut bytes = vec![0u8; size as usize];
        self.inner.read_exact(&mut bytes).map_err(early)?;
        self.padding_left = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = self.content_left + self.padding_left;
        if rest > 0 {
            let skipped = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink())?;
            if skipped < rest {
                return Err(ends_early());
            }
        }
        self.content_left = 0;
        self.padding_left = 0;
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.content_left == 0 || buf.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.content_left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.inner.read(&mut buf[..most])?;
        if n == 0 {
            return Err(ends_early());
        }
        self.content_left -= n as u64;
        Ok(n)
    }
}

fn ends_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of an entry")
}

fn early(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { ends_early() } else { error }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// A header number that cannot be negative.
fn number(field: &[u8]) -> io::Result<u64> {
    u64::try_from(signed_number(field)?).map_err(|_| invalid("the archive has a negative number where none can be"))
}

/// A header number: octal digits, or GNU's big-endian binary with the top bit set.
fn signed_number(field: &[u8]) -> io::Result<i128> {
    let too_large = || invalid("the archive has a number that is too large");
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in std::iter::once(&(first & 0x7f | if negative { 0x80 } else { 0 })).chain(rest).enumerate()
        {
            if index + 9 < field.len() && *byte != if negative { 0xff } else { 0 } {
                return Err(too_large());
            }
            value = (value << 8) | i128::from(*byte);
        }
        return if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) { Err(too_large()) } else { Ok(value) };
    }
    let digits = field.iter().filter(|byte| !matches!(byte, 0 | b' '));
    let mut value: i128 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(invalid("not a tar archive, or a damaged one: a header has a number that is none"));
        }
        value = value * 8 + i128::from(digit - b'0');
    }
    Ok(value)
}

impl Extensions {
    fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let damaged = || invalid("the archive has a damaged PAX header");
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let length: usize = ascii(&records[..blank]).and_then(|text| text.parse().ok()).ok_or_else(damaged)?;
            if length <= blank + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(damaged());
            }
            let record = &records[blank + 1..length - 1];
            records = &records[length..];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let whole = || ascii(value).and_then(|text| text.parse::<u64>().ok()).ok_or_else(damaged);
            match key {
                // A NUL would cut the name short in every call to the kernel.
                b"path" | b"linkpath" if value.contains(&0) => return Err(damaged()),
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                // No file is larger, and contents and their padding must not pass what u64 counts.
                b"size" if whole()? > i64::MAX as u64 => return Err(damaged()),
                b"size" => self.size = Some(whole()?),
                b"uid" => self.uid = Some(u32::try_from(whole()?).map_err(|_| damaged())?),
                b"gid" => self.gid = Some(u32::try_from(whole()?).map_err(|_| damaged())?),
                b"mtime" => self.mtime = Some(ascii(value).and_then(pax_time).ok_or_else(damaged)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(invalid(
                        "the archive has sparse files, which are not supported: pack it without --sparse",
                    ));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                        && !name.is_empty()
                        && !name.contains(&0)
                    {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn pax_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{:0<9.9}", fraction).parse().ok()?;
    Some(match (negative, nanos) {
        (true, 1..) => Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanos },
        _ => Timespec { tv_sec: seconds, tv_nsec: nanos },
    })
}

/// Append the header of `entry`. Its contents, if any, follow, padded by [`padding`].
pub(crate) fn write_header(entry: &Entry, out: &mut Vec<u8>) {
    let mut pax = Vec::new();
    if entry.path.len() > 100 || !entry.path.is_ascii() {
        pax_record(&mut pax, b"path", &entry.path);
    }
    if entry.link.len() > 100 || !entry.link.is_ascii() {
        pax_record(&mut pax, b"linkpath", &entry.link);
    }
    if entry.size >= 1 << 33 {
        pax_record(&mut pax, b"size", entry.size.to_string().as_bytes());
    }
    if entry.uid >= 1 << 21 {
        pax_record(&mut pax, b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid >= 1 << 21 {
        pax_record(&mut pax, b"gid", entry.gid.to_string().as_bytes());
    }
    if !(0..1 << 33).contains(&entry.mtime.tv_sec) {
        pax_record(&mut pax, b"mtime", entry.mtime.tv_sec.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        pax_record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    if !pax.is_empty() {
        let base = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let base = base.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let name: Vec<u8> = b"PaxHeaders.0/".iter().chain(base).copied().filter(u8::is_ascii).take(100).collect();
        block(out, b'x', &name, &[], (0o644, 0, 0), pax.len() as u64, 0, (0, 0));
        let length = pax.len() as u64;
        out.append(&mut pax);
        out.resize(out.len() + padding(length), 0);
    }
    let flag = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
    };
    block(
        out,
        flag,
        &entry.path,
        &entry.link,
        (entry.mode, entry.uid, entry.gid),
        entry.size,
        entry.mtime.tv_sec,
        entry.device,
    );
}

/// How many zero bytes follow contents of `size` bytes.
pub(crate) fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

fn pax_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The record's length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[allow(clippy::too_many_arguments, reason = "the fields of one header, written in one place")]
fn block(
    out: &mut Vec<u8>,
    flag: u8,
    path: &[u8],
    link: &[u8],
    (mode, uid, gid): (u32, u32, u32),
    size: u64,
    mtime: i64,
    device: (u32, u32),
) {
    let mut header = [0u8; BLOCK];
    let mut text = |at: usize, bytes: &[u8], most: usize| {
        let n = bytes.len().min(most);
        header[at..at + n].copy_from_slice(&bytes[..n]);
    };
    // A value that does not fit stands in the PAX header and is cut or zero here.
    let octal = |value: u64, width: usize| {
        let fits = value < 1 << (3 * (width - 1)).min(63);
        format!("{:0>1$o}", if fits { value } else { 0 }, width - 1)
    };
    text(0, path, 100);
    text(100, octal(u64::from(mode), 8).as_bytes(), 7);
    text(108, octal(u64::from(uid), 8).as_bytes(), 7);
    text(116, octal(u64::from(gid), 8).as_bytes(), 7);
    text(124, octal(size, 12).as_bytes(), 11);
    text(136, octal(u64::try_from(mtime).unwrap_or(0), 12).as_bytes(), 11);
    text(148, b"        ", 8);
    text(156, &[flag], 1);
    text(157, link, 100);
    text(257, b"ustar\x0000", 8);
    text(329, octal(u64::from(device.0), 8).as_bytes(), 7);
    text(337, octal(u64::from(device.1), 8).as_bytes(), 7);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &[u8]) -> Entry {
        Entry {
            path: path.to_vec(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timespec { tv_sec: 1, tv_nsec: 0 },
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn what_does_not_fit_a_header_comes_back() {
        let mut long = entry("päth/".repeat(60).as_bytes());
        long.path.push(b'f');
        long.uid = u32::MAX - 1;
        long.gid = 1 << 21;
        long.mtime = Timespec { tv_sec: -5, tv_nsec: 0 };
        long.mode = 0o6755;
        long.xattrs = vec![(b"security.capability".to_vec(), vec![0, 1, b'\n', b'=', 255])];
        let mut link = entry(b"l");
        link.kind = Kind::HardLink;
        link.link = vec![b'x'; 300];
        let mut device = entry(b"dev/x");
        device.kind = Kind::BlockDevice;
        device.device = (254, 70_000);
        let mut out = Vec::new();
        for entry in [&long, &link, &device] {
            write_header(entry, &mut out);
        }
        let mut reader = Reader::new(&out[..]);
        for entry in [long, link, device] {
            assert_eq!(reader.next().unwrap(), Some(entry));
        }
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn gnu_tar_and_the_tar_crate_are_understood() {
        let mut builder = tar::Builder::new(Vec::new());
        let name = "a/".repeat(80) + "file";
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o600);
        header.set_mtime(77);
        header.set_uid(5_000_000_000 % 4_000_000_000);
        header.set_cksum();
        builder.append_data(&mut header, &name, &b"abc"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut reader = Reader::new(&bytes[..]);
        let entry = reader.next().unwrap().unwrap();
        assert_eq!(entry.path, name.as_bytes());
        assert_eq!((entry.uid, entry.mode, entry.mtime.tv_sec, entry.size), (1_000_000_000, 0o600, 77, 3));
        let mut contents = Vec::new();
        reader.read_to_end(&mut contents).unwrap();
        assert_eq!(contents, b"abc");
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn a_cut_archive_is_an_error_and_a_large_extension_too() {
        let mut out = Vec::new();
        let mut file = entry(b"f");
        file.size = 1_000;
        write_header(&file, &mut out);
        out.extend_from_slice(&[7; 600]);
        let mut reader = Reader::new(&out[..]);
        assert!(reader.next().unwrap().is_some());
        assert_eq!(reader.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut out = Vec::new();
        block(&mut out, b'L', b"x", b"", (0, 0, 0), 1 << 32, 0, (0, 0));
        assert!(Reader::new(&out[..]).next().unwrap_err().to_string().contains("too large"));
        for size in [u64::MAX, 1 << 63] {
            let mut record = Vec::new();
            pax_record(&mut record, b"size", size.to_string().as_bytes());
            assert!(Extensions::default().read_pax(&record).is_err(), "{size}");
        }
        assert_eq!(pax_time("-1.25"), Some(Timespec { tv_sec: -2, tv_nsec: 750_000_000 }));
        assert_eq!(pax_time("12.5"), Some(Timespec { tv_sec: 12, tv_nsec: 500_000_000 }));
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048), fix in any::<bool>()) {
            if fix && bytes.len() >= BLOCK {
                bytes[148..156].copy_from_slice(b"        ");
                let sum: u32 = bytes[..BLOCK].iter().map(|b| u32::from(*b)).sum();
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut reader = Reader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next() {}
        }

        #[test]
        fn round_trip(path in proptest::collection::vec(1u8..=255, 1..300), size in 0u64..1 << 40, mtime in -100i64..1 << 40, uid: u32, mode in 0u32..0o10000) {
            let mut e = entry(&path);
            if path.ends_with(b"/") { e.kind = Kind::Dir; } else { e.size = size; }
            e.mtime.tv_sec = mtime;
            e.uid = uid;
            e.mode = mode;
            let mut out = Vec::new();
            write_header(&e, &mut out);
            prop_assert_eq!(out.len() % BLOCK, 0);
            prop_assert_eq!(Reader::new(&out[..]).next().unwrap(), Some(e));
        }
    }
}
