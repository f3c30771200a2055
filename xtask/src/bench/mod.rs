//! `cargo xtask bench …`: side by side with other programs on one machine.

mod build;
mod registry;

use anyhow::{Result, bail};

/// Run the benchmark that the first argument names with the rest.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((which, rest)) if which == "build" => build::run(rest),
        Some((which, rest)) if which == "registry" => registry::run(rest),
        _ => bail!("usage: cargo xtask bench registry|build [--help]"),
    }
}
