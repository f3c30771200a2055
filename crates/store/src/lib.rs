//! Where Portolan keeps things: metadata in SQL ([`meta`]), content by digest ([`blob`]).
//!
//! *Architecture invariant:* SQL is written in this crate and nowhere else; nothing here
//! knows HTTP, tokens or who is asking.

pub mod blob;
mod error;
mod lock;
pub mod meta;
pub mod stats;
#[doc(hidden)]
pub mod testing;

pub use error::{Error, Result};
