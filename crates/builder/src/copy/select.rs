//! Which files a `COPY` takes: patterns against the source tree, links followed inside it,
//! hidden files left out.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::glob::{Glob, has_wildcard};
use super::{CopyError, Hidden, Plan, SelectOpts};
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
    sources: Vec<Source>,
    count: usize,
}

/// Find what `patterns` name under `source_root`.
pub(super) fn resolve(root: Tree, patterns: &[String], opts: &SelectOpts<'_>) -> Result<Plan, CopyError> {
    let mut selection = Selection { root: &root, hidden: opts.hidden, sources: Vec::new(), count: 0 };
    for pattern in patterns {
        let path = fsys::clean(Path::new(pattern));
        let parts: Vec<&str> = path.to_str().unwrap_or_default().split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| has_wildcard(part)) {
            let mut found = Vec::new();
            selection.glob(pattern, PathBuf::new(), &parts, &mut found, 0)?;
            found.sort_unstable();
            found.dedup();
            for path in found {
                selection.source(&path)?;
            }
        } else if !selection.source(&path)? {
            return Err(CopyError::User(format!("\"/{}\": not found", path.display())));
        }
    }
    let sources = selection.sources;
    if sources.is_empty() {
        return Err(CopyError::User(format!("no source files were specified: nothing matches {}", patterns.join(" "))));
    }
    Ok(Plan { root, sources })
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

    /// Take in the source at `path`. False when there is none.
    fn source(&mut self, path: &Path) -> Result<bool, CopyError> {
        let real = self.root.resolve(path)?;
        let parent = match self.root.dir(real.parent().unwrap_or(Path::new(""))) {
            Ok(parent) => parent,
            Err(error) if fsys::is_missing(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        let stat = match real.file_name() {
            Some(last) => match parent.lstat(last)? {
                Some(stat) => stat,
                None => return Ok(false),
            },
            None => parent.stat()?,
        };
        let mut items = Vec::new();
        let dir = fsys::kind(&stat) == FileType::Directory;
        let hidden = !real.as_os_str().is_empty() && self.is_hidden(&real);
        if dir {
            if hidden && !self.hidden.is_some_and(|hidden| hidden.has_exceptions) {
                return Ok(false);
            }
            let at = self.root.dir(&real)?;
            self.walk(&at, &real, Path::new(""), &mut items, 0)?;
            if hidden && items.is_empty() {
                return Ok(false);
            }
        } else {
            if hidden {
                return Ok(false);
            }
            items.push(item(&parent, real.file_name().unwrap_or_default(), PathBuf::new(), stat)?);
        }
        self.sources.push(Source { path: real, name, dir, items });
        Ok(true)
    }

    fn walk(
        &mut self,
        dir: &Folder<'_>,
        real: &Path,
        rel: &Path,
        items: &mut Vec<Item>,
        depth: usize,
    ) -> Result<(), CopyError> {
        if depth > fsys::DEPTH_MAX {
            return Err(CopyError::User(format!("the directories of /{} are too deep", real.display())));
        }
        for name in dir.names()? {
            let Some(stat) = dir.lstat(&name)? else { continue };
            let (real, rel) = (real.join(&name), rel.join(&name));
            let hidden = self.is_hidden(&real);
            if fsys::kind(&stat) == FileType::Directory {
                if hidden && !self.hidden.is_some_and(|hidden| hidden.has_exceptions) {
                    continue;
                }
                let own = items.len();
                items.push(item(dir, &name, rel.clone(), stat)?);
                let inner = dir.dir(&name)?;
                self.walk(&inner, &real, &rel, items, depth + 1)?;
                if hidden && items.len() == own + 1 {
                    items.pop();
                }
            } else if !hidden && fsys::kind(&stat) != FileType::Socket {
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
