//! Hostile bytes for every parser that reads what comes from outside.
//!
//! A *target* takes any bytes, hands them to one parser and says what must hold of what
//! comes out: printing and reading again gives the same value, what is accepted is what the
//! published grammar accepts, ranges lie inside of their content, no path climbs, nothing
//! is opened without its signature. [`targets::ALL`] is the list.
//!
//! Three things run the same targets over the same corpus (`corpus/<target>.txt`, one
//! input a line, see [`corpus`]):
//!
//! - the tests of this crate, always: the whole corpus, then so many inputs made from it by
//!   [`mutate`] from a fixed seed, each under a limit of memory ([`bounded`]);
//! - `cargo xtask fuzz [TARGET]…`: libFuzzer, which is guided by the code it reaches. What
//!   it finds goes into the corpus, the smallest set that reaches the same code;
//! - `cargo run -p portolan-fuzz -- try TARGET INPUT`: one input, to look at.
//!
//! Private parsers are reached through `fuzzing` modules of their crates, which exist only
//! with the feature of that name.
//!
//! *Architecture invariant:* nothing depends on this crate.

// A target says what must hold; where it does not, it panics. That is how fuzzers hear it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a property that does not hold ends the run")]

pub mod bounded;
pub mod corpus;
pub mod mutate;
pub mod targets;

/// One parser and what must hold of it.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: also the corpus file's.
    pub name: &'static str,
    /// Try one input. Panics when a property does not hold.
    pub run: fn(&[u8]),
    /// Pieces of valid inputs, for the mutator and for libFuzzer's dictionary.
    pub words: &'static [&'static str],
    /// The longest input that is worth trying, bytes.
    pub bytes_max: usize,
}
