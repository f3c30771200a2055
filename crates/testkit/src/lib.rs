//! What end-to-end tests share: a server as a child process, and a client that speaks to
//! any running server the way the tools do.
//!
//! [`Site`] is the client: built from a `bootstrap.json`, it trusts the server's CA, gets
//! tokens by the real flows and pushes real content. [`Child`] runs the built binary in a
//! folder of its own, for what only a process can show: `kill -9`, signals, two servers on
//! one folder. A server inside the test's process is `portolan_server::Server`, which this
//! crate does not depend on.
//!
//! Test code: an error is a panic with its reason where that reads best.

#![allow(clippy::expect_used, reason = "a test without what it stands on has failed")]

pub mod bucket;
pub mod child;
pub mod image;
pub mod postgres;
pub mod site;

pub use child::{Child, binary};
pub use image::Pushed;
pub use portolan_types::Digest;
pub use site::Site;
