//! Which files a `COPY` takes: patterns against the source tree, links followed inside it,
//! hidden files left out.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use portolan_types::ignore::Ignore;
use rustix::fs::{FileType, Stat};

use super::glob::{Glob, has_wildcard};
use super::{CopyError, Hidden, Plan, SelectOpts};
use crate::cancel::Cancel;
use crate::fsys;
use crate::tree::{Folder, Hash, Tree};

/// Files one `COPY` may take.
const ITEMS_MAX: usize = 10_000_000;

/// One thing to copy.
#[derive(Debug)]
pub(super) struct Item {
    /// Where it goes, below the source's own destination; empty for a source that is no
    /// directory.
    pub rel: PathBuf,
    pub stat: Stat,
    /// Of a symbolic link.
    pub link: OsString,
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// Of a file's contents, where the source knows it.
    pub hash: Option<Hash>,
}

/// What one pattern, or one match of it, stands for.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it is below the source root, no links on the way.
    pub path: PathBuf,
    /// The last component as the pattern gave it; that of a link, not of its target.
    pub name: OsString,
    /// Whether its contents are copied, not it.
    pub dir: bool,
    /// Parents before children, names in order.
    pub items: Vec<Item>,
}

struct Selection<'a> {
    root: &'a Tree,
    hidden: Option<Hidden<'a>>,
    exclude: Option<&'a Ignore>,
    cancel: Option<&'a Cancel>,
    sources: Vec<Source>,
    count: usize,
}

/// What a walk takes: with `--parents` only what a pattern names.
#[derive(Clone, Copy)]
enum Take<'a> {
    All,
    Only(&'a Ignore),
}

/// Find what `patterns` name under `source_root`.
pub(super) fn resolve(root: Tree, patterns: &[String], opts: &SelectOpts<'_>) -> Result<Plan, CopyError> {
    let mut selection = Selection {
        root: &root,
        hidden: opts.hidden,
        exclude: opts.exclude,
        cancel: opts.cancel,
        sources: Vec::new(),
        count: 0,
    };
    let mut left_out = false;
    for pattern in patterns {
        let (base, only) = match opts.parents {
            true => with_parents(pattern)?,
            false => (pattern.as_str(), None),
        };
        let before = selection.sources.len();
        let path = fsys::clean(Path::new(base));
        let parts: Vec<&str> = path.to_str().unwrap_or_default().split('/').filter(|part| !part.is_empty()).collect();
        let take = only.as_ref().map_or(Take::All, |only| Take::Only(&only.only));
        let missing = || CopyError::Missing {
            path: fsys::clean(Path::new(pattern)).display().to_string(),
            pattern: pattern.clone(),
        };
        if parts.iter().any(|part| has_wildcard(part)) {
            let mut found = Vec::new();
            selection.glob(pattern, PathBuf::new(), &parts, &mut found, 0)?;
            found.sort_unstable();
            found.dedup();
            for path in found {
                left_out |= selection.source(&path, take)? == Found::LeftOut;
            }
        } else {
            match selection.source(&path, take)? {
                Found::Nothing => return Err(missing()),
                Found::LeftOut => left_out = true,
                Found::Empty | Found::Taken => {}
            }
        }
        // A path without wildcards must be there; with them it is enough that one of all is.
        if only.as_ref().is_some_and(|only| !only.wild) && selection.sources.len() == before && !left_out {
            return Err(missing());
        }
    }
    let sources = selection.sources;
    if sources.is_empty() && !left_out {
        return Err(CopyError::User(format!("no source files were specified: nothing matches {}", patterns.join(" "))));
    }
    Ok(Plan { root, sources })
}

/// What a source of `--parents` names below where it begins.
struct Only {
    only: Ignore,
    wild: bool,
}

/// Where a source of `--parents` begins, the pattern below that, and whether there are wildcards.
fn with_parents(source: &str) -> Result<(&str, Option<Only>), CopyError> {
    let (base, pattern) = source.split_once("/./").unwrap_or(("/", source));
    let wild = pattern.split('/').any(has_wildcard) || base.split('/').any(has_wildcard);
    let path = fsys::clean(Path::new(pattern));
    let text = path.to_str().unwrap_or_default().trim_start_matches('/');
    // The whole base is meant: everything in it.
    let text = if text.is_empty() { "**" } else { text };
    let only = Ignore::of([text])
        .map_err(|error| CopyError::User(format!("syntax error in pattern {source}: {}", error.why)))?;
    Ok((base, Some(Only { only, wild })))
}

/// What came of a source.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Nothing,
    /// It is there, but nothing that the pattern names is in it.
    Empty,
    /// It is there and everything of it is left out on purpose.
    LeftOut,
    Taken,
}

impl Selection<'_> {
    /// The paths below `at` that match the rest of a pattern.
    fn glob(
        &self,
        pattern: &str,
        at: PathBuf,
        rest: &[&str],
        found: &mut Vec<PathBuf>,
        depth: usize,
    ) -> Result<(), CopyError> {
        if depth > fsys::DEPTH_MAX || found.len() > ITEMS_MAX {
            return Err(CopyError::User(format!("{pattern} matches too much")));
        }
        let Some((part, rest)) = rest.split_first() else {
            found.push(at);
            return Ok(());
        };
        if !has_wildcard(part) {
            return self.glob(pattern, at.join(part), rest, found, depth + 1);
        }
        // Where a directory on the way is missing or none, nothing matches.
        let dir = match self.root.dir(&at) {
            Ok(dir) => dir,
            Err(error) if fsys::is_missing(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let names = dir.names()?;
        let glob = Glob::parse(part).map_err(|_| CopyError::User(format!("syntax error in pattern {pattern}")))?;
        for name in names.iter().filter(|name| glob.matches(&name.to_string_lossy())) {
            self.glob(pattern, at.join(name), rest, found, depth + 1)?;
        }
        Ok(())
    }

    /// Take in the source at `path`.
    fn source(&mut self, path: &Path, take: Take<'_>) -> Result<Found, CopyError> {
        let real = self.root.resolve(path)?;
        let parent = match self.root.dir(real.parent().unwrap_or(Path::new(""))) {
            Ok(parent) => parent,
            Err(error) if fsys::is_missing(&error) => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        let stat = match real.file_name() {
            Some(last) => match parent.lstat(last)? {
                Some(stat) => stat,
                None => return Ok(Found::Nothing),
            },
            None => parent.stat()?,
        };
        let mut items = Vec::new();
        let dir = fsys::kind(&stat) == FileType::Directory;
        let hidden = !real.as_os_str().is_empty() && self.is_hidden(&real);
        if dir {
            if hidden && !self.hidden.is_some_and(|hidden| hidden.has_exceptions) {
                return Ok(Found::Nothing);
            }
            let at = self.root.dir(&real)?;
            self.walk(&at, &real, Path::new(""), take, &mut items, 0)?;
            if matches!(take, Take::Only(_)) && items.is_empty() {
                return Ok(Found::Empty);
            }
            if hidden && items.is_empty() {
                return Ok(Found::Nothing);
            }
        } else {
            if hidden || matches!(take, Take::Only(_)) {
                return Ok(Found::Nothing);
            }
            if self.exclude.is_some_and(|exclude| exclude.matches(&name.to_string_lossy())) {
                return Ok(Found::LeftOut);
            }
            items.push(item(&parent, real.file_name().unwrap_or_default(), PathBuf::new(), stat)?);
        }
        self.sources.push(Source { path: real, name, dir, items });
        Ok(Found::Taken)
    }

    fn walk(
        &mut self,
        dir: &Folder<'_>,
        real: &Path,
        rel: &Path,
        take: Take<'_>,
        items: &mut Vec<Item>,
        depth: usize,
    ) -> Result<(), CopyError> {
        if depth > fsys::DEPTH_MAX {
            return Err(CopyError::User(format!("the directories of /{} are too deep", real.display())));
        }
        for name in dir.names()? {
            if self.cancel.is_some_and(Cancel::is_cancelled) {
                return Err(CopyError::Cancelled);
            }
            let Some(stat) = dir.lstat(&name)? else { continue };
            let (real, rel) = (real.join(&name), rel.join(&name));
            let hidden = self.is_hidden(&real);
            let below = rel.to_string_lossy();
            let excluded = self.exclude.is_some_and(|exclude| exclude.matches(&below));
            let named = match take {
                Take::All => true,
                Take::Only(only) => only.matches(&below),
            };
            if fsys::kind(&stat) == FileType::Directory {
                let brought_back = |is: bool, exceptions: bool| !is || exceptions;
                let enter = brought_back(hidden, self.hidden.is_some_and(|hidden| hidden.has_exceptions))
                    && brought_back(excluded, self.exclude.is_some_and(|e| e.may_include_below(&below)))
                    && match take {
                        Take::Only(only) if !named => only.may_match_below(&below),
                        _ => true,
                    };
                if !enter {
                    continue;
                }
                let own = items.len();
                items.push(item(dir, &name, rel.clone(), stat)?);
                let inner = dir.dir(&name)?;
                self.walk(&inner, &real, &rel, take, items, depth + 1)?;
                // Only the way to something that is taken counts.
                if (hidden || excluded || !named) && items.len() == own + 1 {
                    items.pop();
                }
            } else if !hidden && !excluded && named && fsys::kind(&stat) != FileType::Socket {
                drop(below);
                items.push(item(dir, &name, rel, stat)?);
            }
            self.count += 1;
            if self.count > ITEMS_MAX {
                return Err(CopyError::User(format!("there are more than {ITEMS_MAX} files to copy")));
            }
        }
        Ok(())
    }

    fn is_hidden(&self, path: &Path) -> bool {
        self.hidden.is_some_and(|hidden| (hidden.is)(&path.to_string_lossy()))
    }
}

fn item(dir: &Folder<'_>, name: &OsStr, rel: PathBuf, stat: Stat) -> io::Result<Item> {
    let link = if fsys::kind(&stat) == FileType::Symlink { dir.readlink(name)? } else { OsString::new() };
    let mut xattrs = dir.xattrs(name)?;
    xattrs.retain(|(key, _)| {
        use std::os::unix::ffi::OsStrExt;
        let key = key.as_bytes();
        key == b"security.capability" || (key.starts_with(b"user.") && crate::unpack::keep_xattr(key))
    });
    Ok(Item { rel, stat, link, xattrs, hash: dir.hash(name) })
}
