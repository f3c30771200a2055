//! `cargo xtask bench …`: side by side with other programs on one machine, and our own
//! promises on one core.

mod build;
mod registry;

use anyhow::{Result, bail};

/// Run the benchmark that the first argument names with the rest.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((which, rest)) if which == "build" => build::run(rest),
        Some((which, rest)) if which == "registry" => registry::run(rest),
        Some((which, rest)) if which == "tokens" => registry::tokens::run(rest),
        _ => bail!("usage: cargo xtask bench registry|build|tokens [--help]"),
    }
}
