//! Signed addresses: where build contexts go and run logs come from. As much of the block
//! blob protocol as Azure's own clients use (Put Blob, Put Block, Put Block List, ranges).

mod files;
mod log;
mod upload;

pub use files::{BuildSketch, FileQuestions};
pub use log::{LogChunk, LogTail};
pub use upload::{BLOCK_BYTES, Upload};
