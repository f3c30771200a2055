//! The build engine: a Dockerfile and a context in, an image in the blob store out.
//!
//! `parse → instruct → graph → solve → { exec, copy } → snapshot → diff → export`, arrows
//! only to the right.

pub mod ports;
