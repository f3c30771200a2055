//! What packages are in an image: found in its files, told as SPDX.
//!
//! The final file system of a build is walked once. Package managers' own records say what
//! they installed ([`system`]: dpkg and apk; [`rpm`]); what languages' tools leave beside the
//! code says the rest ([`language`]: Python, npm, Go programs). Nothing in the image is run,
//! and no link is followed out of it. A record that cannot be read is left out and counted:
//! an image may hold anything, and a list with a gap that says so is worth more than none.
//!
//! [`spdx`] writes the document.

mod language;
mod rpm;
mod spdx;
mod system;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::cancel::Cancel;
use crate::fsys;

pub use spdx::{Subject, document};

/// Entries of the file system that are looked at.
const ENTRIES_MAX: u64 = 5_000_000;
/// Packages of one image.
const PACKAGES_MAX: usize = 200_000;
/// The list of packages that a package manager keeps, bytes.
const DATABASE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What a language's tool says of one package, bytes.
const METADATA_BYTES_MAX: u64 = 1024 * 1024;
/// A package's name or version, bytes; a longer one is none.
const WORD_BYTES_MAX: usize = 512;

/// Whose package it is: the `type` of a package URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Alpine's apk.
    Apk,
    /// Debian's dpkg.
    Deb,
    /// A Go module.
    Golang,
    /// Node's npm.
    Npm,
    /// Python's.
    Pypi,
    /// Red Hat's and others' rpm.
    Rpm,
}

impl Kind {
    /// As package URLs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Apk => "apk",
            Kind::Deb => "deb",
            Kind::Golang => "golang",
            Kind::Npm => "npm",
            Kind::Pypi => "pypi",
            Kind::Rpm => "rpm",
        }
    }
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Whose it is.
    pub kind: Kind,
    /// Its name: `python3.11`, `@types/node`, `golang.org/x/net`.
    pub name: String,
    /// Its version, as its tool writes it; empty when it is not told.
    pub version: String,
    /// What it was made for, in the words of its tool.
    pub architecture: Option<String>,
    /// The licence it declares.
    pub license: Option<String>,
    /// Who made the package.
    pub supplier: Option<String>,
    /// The file that told of it, relative to the image's root.
    pub found_in: String,
}

/// The packages of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// `ID` of the image's `os-release`: `debian`, `alpine`; empty when there is none.
    pub distribution: String,
    /// Its `VERSION_ID`.
    pub release: String,
    /// Sorted, each once.
    pub packages: Vec<Package>,
    /// Records that could not be read, in sentences.
    pub gaps: Vec<String>,
}

impl Inventory {
    fn add(&mut self, package: Package) {
        let fits = |word: &str| word.len() <= WORD_BYTES_MAX && !word.chars().any(char::is_control);
        if package.name.is_empty() || !fits(&package.name) || !fits(&package.version) {
            return;
        }
        if self.packages.len() < PACKAGES_MAX {
            self.packages.push(package);
        } else {
            self.gap(format!("there are more than {PACKAGES_MAX} packages"));
        }
    }

    fn gap(&mut self, sentence: String) {
        const GAPS_MAX: usize = 100;
        if self.gaps.len() < GAPS_MAX && !self.gaps.contains(&sentence) {
            self.gaps.push(sentence);
        }
    }
}

/// Look through the file system under `root`, a directory that nobody else writes to.
pub(crate) fn scan(root: &Path, cancel: &Cancel) -> io::Result<Inventory> {
    let root = fsys::open_root(root)?;
    let root = root.as_fd();
    let mut found = Inventory::default();
    for path in ["etc/os-release", "usr/lib/os-release"] {
        if let Some(text) = read(root, path, METADATA_BYTES_MAX) {
            let text = String::from_utf8_lossy(&text);
            found.distribution = system::os_release(&text, "ID");
            found.release = system::os_release(&text, "VERSION_ID");
            break;
        }
    }
    system::scan(root, &mut found)?;
    rpm::scan(root, &mut found);
    let mut walk = Walk { root, entries: 0, path: PathBuf::new(), cancel };
    walk.dir(root, &mut found, 0)?;
    found.packages.sort_unstable();
    found.packages.dedup_by(|a, b| {
        (a.kind, &a.name, &a.version, &a.architecture) == (b.kind, &b.name, &b.version, &b.architecture)
    });
    Ok(found)
}

/// For the fuzzer: the same bytes as each kind of file.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_as_any(bytes: &[u8]) -> Inventory {
    let text = String::from_utf8_lossy(bytes);
    let mut found =
        Inventory { distribution: system::os_release(&text, "ID"), release: String::new(), ..Inventory::default() };
    system::dpkg(&text, "x", &mut found);
    system::apk(&text, "x", &mut found);
    rpm::packages(bytes, "x", &mut found);
    let packages = language::python(&text, "x").into_iter().chain(language::npm(&text, "x"));
    packages.chain(language::modules(bytes, "x")).for_each(|package| found.add(package));
    found
}

/// A file of the image, links followed inside it; `None` when it is not there, is no file,
/// or is too long.
fn read(root: BorrowedFd<'_>, path: impl AsRef<Path>, bytes_max: u64) -> Option<Vec<u8>> {
    fsys::read_in(root, path.as_ref(), bytes_max).ok().flatten()
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    entries: u64,
    path: PathBuf,
    cancel: &'a Cancel,
}

impl Walk<'_> {
    fn dir(&mut self, dir: BorrowedFd<'_>, found: &mut Inventory, depth: usize) -> io::Result<()> {
        if depth > fsys::DEPTH_MAX {
            found.gap("directories that are too deep were left out".to_owned());
            return Ok(());
        }
        self.cancel.check()?;
        for name in fsys::names(dir)? {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                found.gap(format!("only {ENTRIES_MAX} files were looked at"));
                return Ok(());
            }
            let Some(stat) = fsys::lstat_at(dir, &name)? else { continue };
            self.path.push(&name);
            match fsys::kind(&stat) {
                FileType::Directory if !(depth == 0 && is_mounted(&name)) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let below = rustix::fs::openat(dir, &name, flags, Mode::empty())?;
                    self.dir(below.as_fd(), found, depth + 1)?;
                }
                FileType::RegularFile => {
                    self.file(&name, u64::try_from(stat.st_size).unwrap_or(0), stat.st_mode, found)
                }
                _ => {}
            }
            self.path.pop();
        }
        Ok(())
    }

    fn file(&self, name: &OsStr, size: u64, mode: u32, found: &mut Inventory) {
        let place = self.path.to_string_lossy();
        let text = || {
            let bytes = read(self.root, &self.path, METADATA_BYTES_MAX)?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        match name.as_bytes() {
            b"METADATA" | b"PKG-INFO" if language::is_python(&self.path) => {
                if let Some(package) = text().and_then(|text| language::python(&text, &place)) {
                    found.add(package);
                }
            }
            name if name.ends_with(b".egg-info") => {
                if let Some(package) = text().and_then(|text| language::python(&text, &place)) {
                    found.add(package);
                }
            }
            b"package.json" if language::is_npm(&self.path) => {
                if let Some(package) = text().and_then(|text| language::npm(&text, &place)) {
                    found.add(package);
                }
            }
            // A program; Go's say what they are made of.
            _ if mode & 0o111 != 0 && size > 4096 => match language::go_program(self.root, &self.path) {
                Ok(modules) => modules.into_iter().for_each(|package| found.add(package)),
                Err(error) => found.gap(format!("{place}: {error}")),
            },
            _ => {}
        }
    }
}

/// Where a running container has other file systems; what an image holds there is a stub.
fn is_mounted(name: &OsString) -> bool {
    ["proc", "sys", "dev"].iter().any(|mounted| name == mounted)
}
