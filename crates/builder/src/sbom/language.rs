//! What languages' tools leave beside the code: Python's metadata, npm's `package.json`, the
//! list of modules in a Go program.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::OFlags;
use serde::Deserialize;

use super::{Kind, Package};
use crate::fsys;

/// Lines of a Go program's list of modules.
const MODULES_MAX: usize = 20_000;
/// A Go program's list of modules, bytes.
const MODULES_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Sections of a program; the format has 16 bits.
const SECTIONS_MAX: u64 = 65_536;
/// What a section of the list begins with (Go, `debug/buildinfo`).
const BUILD_INFO: &[u8; 14] = b"\xff Go buildinf:";

/// Whether a file of metadata is where Python's tools put one.
pub(super) fn is_python(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::extension);
    folder.is_some_and(|extension| extension == "dist-info" || extension == "egg-info")
}

/// Python's core metadata: the headers before the first empty line.
pub(super) fn python(text: &str, place: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = text.lines().take_while(|line| !line.trim().is_empty());
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?.trim();
        (!value.is_empty() && value != "UNKNOWN").then(|| value.to_owned())
    };
    Some(Package {
        kind: Kind::Pypi,
        name: field("Name")?,
        version: field("Version").unwrap_or_default(),
        architecture: None,
        license: field("License-Expression").or_else(|| field("License")),
        supplier: field("Author"),
        found_in: place.to_owned(),
    })
}

/// Whether a `package.json` is that of an installed package: right below `node_modules`,
/// or below a scope there.
pub(super) fn is_npm(path: &Path) -> bool {
    let mut above = path.parent().into_iter().flat_map(Path::ancestors).skip(1);
    let mut next = || above.next().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    match next() {
        "node_modules" => true,
        scope if scope.starts_with('@') => next() == "node_modules",
        _ => false,
    }
}

/// npm's `package.json`.
pub(super) fn npm(text: &str, place: &str) -> Option<Package> {
    #[derive(Deserialize)]
    struct File {
        name: String,
        #[serde(default)]
        version: String,
        #[serde(default)]
        license: serde_json::Value,
    }
    let file: File = serde_json::from_str(text).ok()?;
    let license = file.license.as_str().or_else(|| file.license.get("type")?.as_str());
    Some(Package {
        kind: Kind::Npm,
        name: file.name,
        version: file.version,
        architecture: None,
        license: license.map(str::to_owned),
        supplier: None,
        found_in: place.to_owned(),
    })
}

/// The modules in a Go program (1.18 and later); none for any other file. The error is a
/// program that begins to tell and does not end.
pub(super) fn go_program(root: BorrowedFd<'_>, path: &Path) -> io::Result<Vec<Package>> {
    let Ok(file) = fsys::open_in(root, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK) else {
        return Ok(Vec::new());
    };
    let mut file = std::fs::File::from(file);
    let read_at = |file: &std::fs::File, at: u64, bytes: &mut [u8]| {
        use std::os::unix::fs::FileExt;
        file.read_exact_at(bytes, at)
    };
    let mut head = [0u8; 64];
    // Anything that is shorter is no program.
    if file.read_exact(&mut head).is_err() || !head.starts_with(b"\x7fELF") {
        return Ok(Vec::new());
    }
    let Some(elf) = Elf::new(&head) else { return Ok(Vec::new()) };
    let mut section = vec![0u8; elf.entry];
    for number in 0..elf.sections {
        let at = elf.table.saturating_add(number * elf.entry as u64);
        if read_at(&file, at, &mut section).is_err() {
            return Ok(Vec::new());
        }
        let (offset, size) = elf.place(&section);
        if size < 32 {
            continue;
        }
        let mut start = [0u8; 14];
        if read_at(&file, offset, &mut start).is_ok() && start == *BUILD_INFO {
            let mut bytes = vec![0u8; usize::try_from(size.min(MODULES_BYTES_MAX)).unwrap_or(0)];
            read_at(&file, offset, &mut bytes)?;
            return Ok(modules(&bytes, &path.to_string_lossy()));
        }
    }
    Ok(Vec::new())
}

/// Where a program's table of sections is.
struct Elf {
    wide: bool,
    little: bool,
    table: u64,
    entry: usize,
    sections: u64,
}

impl Elf {
    /// Of the first 64 bytes; `None` for one without sections.
    fn new(head: &[u8; 64]) -> Option<Elf> {
        let wide = match head[4] {
            1 => false,
            2 => true,
            _ => return None,
        };
        let little = head[5] == 1;
        let mut elf = Elf { wide, little, table: 0, entry: 0, sections: 0 };
        let (table, entry, count) = if wide { (0x28, 0x3a, 0x3c) } else { (0x20, 0x2e, 0x30) };
        elf.table = if wide { elf.number(head, table, 8)? } else { elf.number(head, table, 4)? };
        elf.entry = usize::try_from(elf.number(head, entry, 2)?).ok()?;
        elf.sections = elf.number(head, count, 2)?.min(SECTIONS_MAX);
        let least = if wide { 0x40 } else { 0x28 };
        (elf.table != 0 && (least..=1024).contains(&elf.entry)).then_some(elf)
    }

    fn number(&self, bytes: &[u8], at: usize, width: usize) -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(width)?)?;
        let fold = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) })
    }

    /// A section's place in the file, and its size.
    fn place(&self, section: &[u8]) -> (u64, u64) {
        let (offset, size, width) = if self.wide { (0x18, 0x20, 8) } else { (0x10, 0x14, 4) };
        (self.number(section, offset, width).unwrap_or(0), self.number(section, size, width).unwrap_or(0))
    }
}

/// The list of modules behind the 32 bytes of its header: two strings, each with its length
/// before it; the second is the list, between two marks of 16 bytes.
pub(super) fn modules(section: &[u8], place: &str) -> Vec<Package> {
    const FLAG_INLINE: u8 = 2;
    if section.get(15).is_none_or(|flags| flags & FLAG_INLINE == 0) {
        // Before Go 1.18: pointers into a memory image.
        return Vec::new();
    }
    let strings = section.get(32..).and_then(|rest| {
        let (go, rest) = string(rest)?;
        let (list, _) = string(rest)?;
        Some((go, list))
    });
    let Some((go, list)) = strings else { return Vec::new() };
    let list = list.get(16..list.len().saturating_sub(16)).unwrap_or_default();
    let package = |name: &str, version: &str| Package {
        kind: Kind::Golang,
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: None,
        license: None,
        supplier: None,
        found_in: place.to_owned(),
    };
    let mut found = vec![package("stdlib", String::from_utf8_lossy(go).split(' ').next().unwrap_or_default())];
    for line in String::from_utf8_lossy(list).lines().take(MODULES_MAX) {
        let words: Vec<&str> = line.split('\t').collect();
        match words.as_slice() {
            ["mod" | "dep", name, version, ..] => found.push(package(name, version)),
            // In place of the one before.
            ["=>", name, version, ..] if found.len() > 1 => {
                found.pop();
                found.push(package(name, version));
            }
            _ => {}
        }
    }
    found
}

/// A string with its length before it, as a varint, and what follows.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0u64;
    for (n, byte) in bytes.iter().take(10).enumerate() {
        length |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * n).ok()?)?;
        if byte & 0x80 == 0 {
            return bytes.get(n + 1..)?.split_at_checked(usize::try_from(length).ok()?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_metadata() {
        let text = "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0.2\nLicense: BSD-3-Clause\n\nName: not this\n";
        let flask = python(text, "x").unwrap();
        assert_eq!((flask.name.as_str(), flask.version.as_str()), ("Flask", "3.0.2"));
        assert!(python("Version: 1\n", "x").is_none());
        assert!(is_python(Path::new("usr/lib/python3/dist-packages/flask-3.0.dist-info/METADATA")));
        assert!(!is_python(Path::new("srv/METADATA")));
    }

    #[test]
    fn npms_packages_are_those_installed() {
        for (path, installed) in [
            ("srv/node_modules/express/package.json", true),
            ("srv/node_modules/@types/node/package.json", true),
            ("srv/node_modules/a/node_modules/b/package.json", true),
            ("srv/package.json", false),
            ("srv/node_modules/a/test/package.json", false),
            ("package.json", false),
        ] {
            assert_eq!(is_npm(Path::new(path)), installed, "{path}");
        }
        let old = npm(r#"{"name":"a","version":"1.0.0","license":{"type":"MIT"}}"#, "x").unwrap();
        assert_eq!(old.license.as_deref(), Some("MIT"));
        assert!(npm("[]", "x").is_none());
    }

    #[test]
    fn gos_modules() {
        let mut section = BUILD_INFO.to_vec();
        section.extend([8, 2]);
        section.resize(32, 0);
        let list = "path\tx\nmod\texample.com/app\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:a=\n=>\tgolang.org/x/net\tv0.2.0\n";
        let marked = [&[b'<'; 16], list.as_bytes(), &[b'>'; 16]].concat();
        section.push(8);
        section.extend(b"go1.22.1");
        let length = marked.len();
        section.extend([u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()]);
        section.extend(&marked);
        let told: Vec<_> = modules(&section, "x").iter().map(|p| format!("{} {}", p.name, p.version)).collect();
        assert_eq!(told, ["stdlib go1.22.1", "example.com/app (devel)", "golang.org/x/net v0.2.0"]);
        for cut in 0..section.len() {
            modules(&section[..cut], "x");
        }
        assert!(string(&[0xff; 12]).is_none());
    }
}
