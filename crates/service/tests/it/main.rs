//! The rules over a real store in a temporary folder.

// A failed set-up is a failed test.
#![allow(clippy::unwrap_used)]

mod governance;
mod groups;
mod identity;
mod registries;
mod repo_tokens;
mod roles;
mod support;

#[test]
fn the_same_on_postgres() {
    portolan_testkit::postgres::again(&[], &[]);
}
