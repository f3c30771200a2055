//! Every parser of hostile bytes on its corpus and on what is made of it, and every grammar
//! on texts that are of it or nearly so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where the world is not as it says")]

mod bounded;
mod grammars;
