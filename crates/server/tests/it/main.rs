//! The server end to end, over real sockets, on real folders.
//!
//! Most tests start a server inside this process ([`support::TestServer`]); those about
//! signals, crashes and the command line start the built binary (`portolan_testkit::Child`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where the world is not as it says")]

mod access;
mod acr;
mod arm;
mod boot;
mod bounds;
mod buckets;
mod builds;
mod contexts;
mod control;
mod delegated;
mod directory;
mod drain;
mod early;
mod faults;
mod governance;
mod hostile;
mod identity;
mod limits;
mod logs;
mod machines;
mod metrics;
mod orders;
mod otel;
mod people;
mod platforms;
mod process;
mod rates;
mod repo_tokens;
mod settings;
mod slow;
mod supply;
mod support;
mod tls;
mod tokens;
mod transfer;
mod two_servers;
mod two_servers_access;
mod v2;
mod workers;

/// What clients see does not depend on where the metadata is.
#[test]
fn the_same_on_postgres() {
    portolan_testkit::postgres::again(
        &["v2::", "acr::", "arm::", "tokens::", "builds::", "directory::", "machines::"],
        &[],
    );
}
