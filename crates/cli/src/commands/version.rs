//! `portolan version`

use clap::Args;
use serde_json::Value;

use crate::error::Result;
use crate::output::Output;
use crate::output::shape::object;

/// Nothing.
#[derive(Debug, Args)]
pub struct VersionArgs {}

pub(super) fn run() -> Result<Output> {
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    Ok(Output::value(object([
        ("portolan", Value::from(env!("CARGO_PKG_VERSION"))),
        ("platform", Value::from(platform)),
    ])))
}
