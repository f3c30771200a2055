//! Telling compressions apart by their first bytes, as docker does.

use std::io::{self, BufReader, Cursor, Read};

/// How much compressed input is read at once, bytes.
const INPUT_BYTES: usize = 128 * 1024;

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

/// The stream without its compression. Bzip2 and xz are recognised and refused.
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
    let unsupported = |name: &str| {
        let sentence = format!("the archive is compressed with {name}, which is not supported: use gzip or zstd");
        Err(io::Error::new(io::ErrorKind::InvalidData, sentence))
    };
    match Compression::detect(&start[..filled]) {
        Compression::None => Ok(Box::new(whole)),
        Compression::Gzip => {
            Ok(Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(INPUT_BYTES, whole))))
        }
        Compression::Zstd => Ok(Box::new(ZstdErrors(zstd::stream::read::Decoder::new(whole)?))),
        Compression::Bzip2 => unsupported("bzip2"),
        Compression::Xz => unsupported("xz"),
    }
}

/// Damaged zstd data comes as an unspecific error; this tells it from a failing disk.
struct ZstdErrors<R>(R);

impl<R: Read> Read for ZstdErrors<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Other if error.raw_os_error().is_none() && !crate::Cancel::is_cause_of(&error) => {
                io::Error::new(io::ErrorKind::InvalidData, format!("the archive's zstd data is damaged: {error}"))
            }
            _ => error,
        })
    }
}
