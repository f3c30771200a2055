//! What a run is to build, as its row keeps it: JSON in which the values of secret build
//! arguments and all [`BuildOptions`] are sealed. They are sealed when the run is ordered, opened when a worker takes
//! it, and gone when it ends; neither the database nor its write-ahead log ever holds them.

use std::io;

use portolan_types::{RunId, Secret};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{BuildArg, BuildOptions, BuildSpec, ImageName};

/// Keeps values that the database must not show. `server` implements it with the master key.
pub trait Seal: Send + Sync {
    /// `plain` as text that shows nothing of it. `label` is the name of the place it is kept
    /// at and must be given again to open it.
    ///
    /// Errors: no randomness, or the cryptographic library refused.
    fn seal(&self, label: &str, plain: &Secret<String>) -> io::Result<String>;

    /// The inverse; `None` when it was sealed with another key or label, or is damaged.
    fn open(&self, label: &str, sealed: &str) -> Option<Secret<String>>;
}

/// A [`BuildSpec`] with its secrets sealed. There is no other way to write one down.
#[derive(Serialize, Deserialize)]
pub(crate) struct SealedSpec {
    images: Vec<ImageName>,
    push: bool,
    no_cache: bool,
    dockerfile: String,
    target: Option<String>,
    args: Vec<SealedArg>,
    context: String,
    /// Absent in the orders of older servers.
    #[serde(default)]
    caller: Option<Uuid>,
    /// The options, sealed as one text; absent when there are none, and once the run has
    /// ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct SealedArg {
    name: String,
    /// Sealed if `secret`; then empty once the run has ended.
    value: String,
    #[serde(default)]
    secret: bool,
}

/// The place of one argument. Runs' names are never used twice in a registry, nor are
/// registries' ids.
fn label(registry: i64, run: &RunId, arg: usize) -> String {
    format!("{registry}/{run}/{arg}")
}

/// The place of the options.
fn options_label(registry: i64, run: &RunId) -> String {
    format!("{registry}/{run}/options")
}

impl SealedSpec {
    /// Seal the order of a run.
    pub(crate) fn seal(spec: BuildSpec, registry: i64, run: &RunId, seal: &dyn Seal) -> io::Result<SealedSpec> {
        let BuildSpec { images, push, no_cache, dockerfile, target, args, context, caller, options } = spec;
        let sealed = |(n, arg): (usize, BuildArg)| {
            let BuildArg { name, value, secret } = arg;
            let value = if secret { seal.seal(&label(registry, run, n), &value)? } else { value.into_exposed() };
            Ok(SealedArg { name, value, secret })
        };
        let args = args.into_iter().enumerate().map(sealed).collect::<io::Result<_>>()?;
        let options = match options.is_empty() {
            true => None,
            false => Some(seal.seal(&options_label(registry, run), &options.to_plain()?)?),
        };
        Ok(SealedSpec { images, push, no_cache, dockerfile, target, args, context, caller, options })
    }

    /// Open it; `None` when a secret cannot be opened.
    pub(crate) fn open(self, registry: i64, run: &RunId, seal: &dyn Seal) -> Option<BuildSpec> {
        let SealedSpec { images, push, no_cache, dockerfile, target, args, context, caller, options } = self;
        let opened = |(n, arg): (usize, SealedArg)| {
            let SealedArg { name, value, secret } = arg;
            let value = if secret { seal.open(&label(registry, run, n), &value)? } else { Secret::new(value) };
            Some(BuildArg { name, value, secret })
        };
        let args = args.into_iter().enumerate().map(opened).collect::<Option<_>>()?;
        let options = match options {
            None => BuildOptions::default(),
            Some(sealed) => BuildOptions::from_plain(&seal.open(&options_label(registry, run), &sealed)?)?,
        };
        Some(BuildSpec { images, push, no_cache, dockerfile, target, args, context, caller, options })
    }

    /// The secrets that can be opened, for masking them.
    pub(crate) fn secrets(&self, registry: i64, run: &RunId, seal: &dyn Seal) -> Vec<Secret<String>> {
        let secret = self.args.iter().enumerate().filter(|(_, arg)| arg.secret);
        let mut secrets: Vec<_> =
            secret.filter_map(|(n, arg)| seal.open(&label(registry, run, n), &arg.value)).collect();
        let options = self.options.as_ref().and_then(|sealed| seal.open(&options_label(registry, run), sealed));
        secrets.extend(options.and_then(|o| BuildOptions::from_plain(&o)).iter().flat_map(BuildOptions::secrets));
        secrets
    }

    /// What is kept of it once the run has ended.
    pub(crate) fn without_secrets(mut self) -> SealedSpec {
        for arg in self.args.iter_mut().filter(|arg| arg.secret) {
            arg.value = String::new();
        }
        self.options = None;
        self
    }
}
