//! The layer of a build with SOURCE_DATE_EPOCH, from the same layer with all its times.

use std::io::{self, Read};

use portolan_types::media_type;
use portolan_types::oci::Descriptor;

use super::Layer;
use super::compress::Compressor;
use crate::cancel::Cancel;
use crate::ports::Content;
use crate::tarball::{self, BLOCK};
use crate::unpack;

/// Write `layer` again with no time later than `epoch_secs`: byte for byte what
/// [`super::write_layer`] makes of the same files with that limit.
pub fn redate(layer: &Layer, content: &dyn Content, epoch_secs: i64, cancel: &Cancel) -> io::Result<Layer> {
    let mut reader = tarball::Reader::new(unpack::decompress(content.open(&layer.blob.digest)?)?);
    let compressed = std::thread::scope(|scope| {
        let mut out = Compressor::new(scope, content.create()?)?;
        while let Some(mut entry) = reader.next()? {
            cancel.check()?;
            entry.mtime.tv_sec = entry.mtime.tv_sec.min(epoch_secs);
            entry.mtime.tv_nsec = 0;
            tarball::write_header(&entry, out.buffer());
            out.filled()?;
            let mut left = entry.size;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.room());
                let buffer = out.buffer();
                let start = buffer.len();
                buffer.resize(start + most, 0);
                let n = match reader.read(&mut buffer[start..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                    Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a layer ends too soon")),
                    other => other?,
                };
                buffer.truncate(start + n);
                left -= n as u64;
                out.filled()?;
                cancel.check()?;
            }
            let padding = tarball::padding(entry.size);
            let buffer = out.buffer();
            buffer.resize(buffer.len() + padding, 0);
            out.filled()?;
        }
        out.buffer().extend_from_slice(&[0; 2 * BLOCK]);
        out.filled()?;
        out.finish()
    })?;
    Ok(Layer {
        diff_id: compressed.diff_id,
        blob: Descriptor::new(media_type::DOCKER_LAYER_GZIP, compressed.blob, compressed.size),
        empty: layer.empty,
    })
}
