//! The clients against a server on a socket that says what the test wants said.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod arm;
mod blobs;
mod identity;
mod registry;
mod site;
