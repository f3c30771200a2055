//! Tests that look at more than one module.

mod grammar;
mod output;
mod packing;
