//! Telling compressions apart by their first bytes, as docker does.

use std::io::{self, BufReader, Cursor, Read};

/// How much compressed input is read at once, bytes.
const INPUT_BYTES: usize = 128 * 1024;
/// The most memory that xz data may ask for, KiB: `xz -9` asks for 65 MiB.
const XZ_KIB_MAX: u32 = 256 * 1024;

/// What the first bytes of a stream say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    /// Read it off the first six bytes or fewer.
    pub(crate) fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            [b'B', b'Z', b'h', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Compression::Xz,
            _ => Compression::None,
        }
    }
}

/// The stream without its compression.
pub(crate) fn decompress<'a>(mut stream: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = [0u8; 6];
    let mut filled = 0;
    while filled < start.len() {
        match stream.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let whole = Cursor::new(start).take(filled as u64).chain(stream);
    match Compression::detect(&start[..filled]) {
        Compression::None => Ok(Box::new(whole)),
        Compression::Gzip => {
            Ok(Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(INPUT_BYTES, whole))))
        }
        Compression::Zstd => Ok(Box::new(DecodeErrors("zstd", zstd::stream::read::Decoder::new(whole)?))),
        Compression::Bzip2 => Ok(Box::new(DecodeErrors("bzip2", bzip2::read::MultiBzDecoder::new(whole)))),
        Compression::Xz => {
            Ok(Box::new(DecodeErrors("xz", lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_KIB_MAX))))
        }
    }
}

/// Damaged data comes as errors of many kinds; this tells them from a failing disk.
struct DecodeErrors<R>(&'static str, R);

impl<R: Read> Read for DecodeErrors<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1.read(buf).map_err(|error| {
            if error.raw_os_error().is_some()
                || error.kind() == io::ErrorKind::Interrupted
                || crate::Cancel::is_cause_of(&error)
            {
                return error;
            }
            io::Error::new(io::ErrorKind::InvalidData, format!("the archive's {} data is damaged: {error}", self.0))
        })
    }
}
