//! `COPY` and `ADD` of local files.
//!
//! Two halves: [`Plan::resolve`] chooses (patterns, ignored files, links inside the source)
//! and looks at every file once; [`Plan::apply`] writes. Between them stands
//! [`Plan::digest`], the part of a step's cache key that stands for the files. Both ends
//! stay inside their roots whatever links there are.
//!
//! Meaning: what BuildKit does (Dockerfile reference, "COPY"); where a pattern matches
//! nothing, what the classic builder does: it is an error if all of them do.

mod apply;
mod chmod;
mod digest;
mod glob;
mod select;

use std::io;
use std::path::Path;
use std::sync::Arc;

use portolan_types::Digest;
use portolan_types::ignore::Ignore;

use self::select::Source;

pub use chmod::{Chmod, InvalidMode};

use crate::cancel::Cancel;
use crate::context::Context;
use crate::fsys;
use crate::tree::Tree;

/// Which files of the source are hidden (`.dockerignore`, `--exclude`).
#[derive(Clone, Copy)]
pub struct Hidden<'a> {
    /// Whether the path (relative to the source root, `/` between components, no leading
    /// one) is hidden.
    pub is: &'a (dyn Fn(&str) -> bool + Sync),
    /// Whether something under a hidden directory may be visible (there are `!` patterns).
    /// Without it, hidden directories are not even read.
    pub has_exceptions: bool,
}

/// How to choose.
#[derive(Clone, Copy, Default)]
pub struct SelectOpts<'a> {
    /// What is hidden.
    pub hidden: Option<Hidden<'a>>,
    /// What is left out (`--exclude`): paths below a source that is a directory, or the name
    /// of a source that is none.
    pub exclude: Option<&'a Ignore>,
    /// Keep the directories that sources are in (`--parents`), from the source's root or from
    /// the `/./` in its path on. Patterns are then those of ignore files: `**` is any number
    /// of directories.
    pub parents: bool,
    /// Raised to stop looking.
    pub cancel: Option<&'a Cancel>,
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct CopyOpts {
    /// Owner and group of everything written; 0:0 when absent and `keep_owner` is not set.
    pub chown: Option<(u32, u32)>,
    /// Permission bits of everything copied.
    pub chmod: Option<Chmod>,
    /// Unpack local archives (`ADD`).
    pub unpack: bool,
    /// Keep owners as they are in the source (`COPY --from`).
    pub keep_owner: bool,
}

/// What a `COPY` is to copy: resolved, not yet copied.
#[derive(Debug)]
pub struct Plan {
    root: Tree,
    sources: Vec<Source>,
}

/// Why a copy cannot be done, in words for the log, or a failure of the machine.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source that is not there, a pattern that matches nothing, a destination that does
    /// not fit.
    #[error("{0}")]
    User(String),
    /// A source that is not there.
    #[error("\"/{path}\": not found")]
    Missing {
        /// Its path from the root of what is copied from, without the slash before it.
        path: String,
        /// As the instruction has it, variables expanded.
        pattern: String,
    },
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// The machine failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Plan {
    /// Find what `patterns` name under `source_root`.
    pub fn resolve(source_root: &Path, patterns: &[String], opts: &SelectOpts<'_>) -> Result<Plan, CopyError> {
        select::resolve(Tree::Disk(fsys::open_root(source_root)?), patterns, opts)
    }

    /// Find what `patterns` name in a context.
    pub fn resolve_context(context: &Context, patterns: &[String], opts: &SelectOpts<'_>) -> Result<Plan, CopyError> {
        select::resolve(Tree::Packed(Arc::clone(context.tree())), patterns, opts)
    }

    /// What the first source is called where it is copied to; `None` for a directory, whose
    /// contents are copied without it.
    pub(crate) fn file_name(&self) -> Option<&std::ffi::OsStr> {
        self.sources.first().filter(|source| !source.dir).map(|source| source.name.as_os_str())
    }

    /// A checksum of everything that will be copied: names, kinds, modes, owners, link
    /// targets, contents, extended attributes; not modification times. Two plans of equal
    /// digest copy the same.
    pub fn digest(&self, cancel: &Cancel) -> Result<Digest, CopyError> {
        digest::digest(self, cancel)
    }

    /// Copy to `dest` (relative to `workdir`, both paths inside `dest_root`). Missing parents
    /// are made with mode 0755 and the owner of `opts.chown`, else root.
    pub fn apply(
        &self,
        dest_root: &Path,
        dest: &str,
        workdir: &str,
        opts: &CopyOpts,
        cancel: &Cancel,
    ) -> Result<(), CopyError> {
        apply::apply(self, dest_root, dest, workdir, opts, cancel)
    }
}
