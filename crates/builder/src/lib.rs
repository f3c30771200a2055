//! The build engine: a Dockerfile and a context in, an image in the blob store out.
//!
//! `parse → instruct → graph → solve → { exec, copy } → snapshot → diff → export`, arrows
//! only to the right.

pub mod cancel;
pub mod context;
pub mod copy;
pub mod diff;
pub mod exec;
pub mod ports;
pub mod snapshot;
pub mod user;
