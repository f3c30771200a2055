//! A layer out of the top of a [`Chain`].

use std::io;

use portolan_types::Digest;
use portolan_types::oci::Descriptor;

use crate::cancel::Cancel;
use crate::ports::Content;
use crate::snapshot::Chain;

/// A layer in the content store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The compressed blob, of media type [`portolan_types::media_type::DOCKER_LAYER_GZIP`].
    pub blob: Descriptor,
    /// Whether it holds no entry at all.
    pub empty: bool,
}

/// Write the top layer of `chain`, as it differs from the layers below, to `content` (not
/// yet durable). May run on any thread, beside steps that build on the same chain.
/// `epoch_secs_max` clamps modification times (SOURCE_DATE_EPOCH).
pub fn write_layer(
    chain: &Chain,
    content: &dyn Content,
    epoch_secs_max: Option<i64>,
    cancel: &Cancel,
) -> io::Result<Layer> {
    let _ = (chain, content, epoch_secs_max, cancel);
    Err(io::Error::other("not here yet"))
}
