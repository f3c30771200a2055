//! One test suite per port, run on every implementation, and a blob store that fails on
//! purpose. For tests of this crate and of those above it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation here is a failed test")]

mod blobs;
mod engines;
mod flaky;
mod meta;
mod shared;

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

pub use blobs::{blob_suite, fault_suite};
pub use engines::servers_suite;
pub use flaky::{Fault, Flaky};
pub use meta::meta_suite;
pub use shared::shared_blob_suite;

use crate::blob::ByteStream;

/// `len` bytes that differ for every `seed` and do not repeat soon.
pub fn content(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

/// `bytes` as a body of pieces of `piece_len` bytes.
pub fn body(bytes: &Bytes, piece_len: usize) -> ByteStream {
    let (bytes, len) = (bytes.clone(), bytes.len());
    let pieces = (0..len).step_by(piece_len).map(move |at| Ok(bytes.slice(at..len.min(at + piece_len))));
    Box::pin(stream::iter(pieces))
}

/// As [`body`], and then it breaks off.
pub fn broken_body(bytes: &Bytes, piece_len: usize) -> ByteStream {
    let end = stream::iter([Err(io::ErrorKind::ConnectionReset.into())]);
    Box::pin(body(bytes, piece_len).chain(end))
}

/// All of a stream.
pub async fn collect(mut stream: ByteStream) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await {
        out.extend_from_slice(&piece?);
    }
    Ok(out)
}
