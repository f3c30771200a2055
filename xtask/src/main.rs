//! The repository's own tools: `cargo xtask …`.
//!
//! - `tidy`: the rules of the house as code; part of `./test`.
//! - `docs`: write the reference pages that come from code (`--check`: only compare).
//! - `fuzz`: libFuzzer over the parsers of hostile bytes; what it finds goes into the corpus.
//! - `bench registry`, `bench build`: side by side with other programs; `bench tokens`: what a
//!   token request costs.

mod bench;
mod docs;
mod fuzz;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask tidy
       cargo xtask docs [--check]
       cargo xtask fuzz [--secs N] [TARGET]…
       cargo xtask bench registry|build|tokens [--help]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["tidy"] => tidy::run(&root()?),
        ["docs"] => docs::run(&root()?, false),
        ["docs", "--check"] => docs::run(&root()?, true),
        ["fuzz", rest @ ..] => fuzz::run(&root()?, rest),
        ["bench", ..] => bench::run(args.get(1..).unwrap_or_default()),
        _ => bail!("{USAGE}"),
    }
}

/// The repository.
fn root() -> Result<PathBuf> {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().context("find the repository")
}
