//! The server end to end, over real sockets, on real folders.
//!
//! Most tests start a server inside this process ([`support::TestServer`]); those about
//! signals, crashes and the command line start the built binary (`portolan_testkit::Child`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where the world is not as it says")]

mod acr;
mod arm;
mod boot;
mod builds;
mod drain;
mod early;
mod faults;
mod hostile;
mod identity;
mod limits;
mod process;
mod settings;
mod support;
mod tls;
mod tokens;
mod transfer;
mod v2;
