//! rpm's database: packages as headers of rpm's own, in a table of an SQLite file.
//!
//! Just enough of both is read. Of SQLite (its "Database File Format"): the pages of one table,
//! walked from its root, with contents that go on in overflow pages. Of rpm (its "RPM V4
//! format"): the index of a header, and the few tags that name a package. The older databases,
//! Berkeley DB and ndb, are not read; that an image has one is told.
//!
//! The file is a stranger's: every page is looked at once at most, so what is read is no more
//! than what is there.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::{DATABASE_BYTES_MAX, Inventory, Kind, Package, read};
use crate::fsys;

/// Where distributions have it, the one that is read first.
const SQLITE: [&str; 3] =
    ["var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "usr/share/rpm/rpmdb.sqlite"];
const OLDER: [&str; 4] = [
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
    "usr/lib/sysimage/rpm/Packages.db",
    "usr/lib/sysimage/rpm/Packages",
];
/// How deep a table's pages may nest; SQLite's own files have a handful of levels.
const DEPTH_MAX: usize = 32;
/// A package's header, bytes (rpm's own limit).
const HEADER_BYTES_MAX: usize = 256 * 1024 * 1024;

pub(super) fn scan(root: BorrowedFd<'_>, found: &mut Inventory) {
    for path in SQLITE {
        if let Some(bytes) = read(root, path, DATABASE_BYTES_MAX) {
            if packages(&bytes, path, found).is_none() {
                found.gap(format!("{path}: the rpm database cannot be read"));
            }
            return;
        }
        if there(root, path) {
            return found.gap(format!("{path}: the rpm database is larger than {DATABASE_BYTES_MAX} bytes"));
        }
    }
    if let Some(path) = OLDER.iter().find(|path| there(root, path)) {
        found.gap(format!("{path}: packages in an rpm database of this form are not listed"));
    }
}

fn there(root: BorrowedFd<'_>, path: &str) -> bool {
    fsys::open_in(root, Path::new(path), OFlags::PATH).is_ok()
}

/// Every package in the file; `None` when it is no database, or has no such table.
pub(super) fn packages(file: &[u8], place: &str, found: &mut Inventory) -> Option<()> {
    let database = Database::open(file)?;
    // The schema is a table like any other, on the first page: type, name, table, root page.
    let mut root = None;
    database.walk(1, &mut |record| {
        let columns = columns(&record);
        let is = |at: usize, text: &str| columns.get(at).is_some_and(|column| *column == text.as_bytes());
        if is(0, "table") && is(1, "Packages") {
            root = columns.get(3).and_then(|page| usize::try_from(integer(page)).ok());
        }
    });
    database.walk(root?, &mut |record| {
        if let Some(header) = columns(&record).get(1)
            && let Some(package) = package(header, place)
        {
            found.add(package);
        }
    });
    Some(())
}

/// A whole SQLite file.
struct Database<'a> {
    file: &'a [u8],
    page_bytes: usize,
    /// What of a page is used.
    usable: usize,
}

impl<'a> Database<'a> {
    fn open(file: &'a [u8]) -> Option<Database<'a>> {
        if !file.starts_with(b"SQLite format 3\0") {
            return None;
        }
        let page_bytes = match u16_at(file, 16)? {
            1 => 65_536,
            bytes => usize::from(bytes),
        };
        let usable = page_bytes.checked_sub(usize::from(*file.get(20)?))?;
        (page_bytes >= 512 && usable >= 480).then_some(Database { file, page_bytes, usable })
    }

    /// A page by its number, from 1.
    fn page(&self, number: usize) -> Option<&'a [u8]> {
        let start = number.checked_sub(1)?.checked_mul(self.page_bytes)?;
        self.file.get(start..start.checked_add(self.page_bytes)?)
    }

    /// Hand on every record of the table whose root is the page.
    fn walk(&self, root: usize, each: &mut dyn FnMut(Vec<u8>)) {
        let mut seen = HashSet::new();
        let mut todo = vec![(root, 0)];
        while let Some((number, depth)) = todo.pop() {
            // A page leads to a page twice only in a file that was made to.
            if depth > DEPTH_MAX || !seen.insert(number) {
                continue;
            }
            let Some(page) = self.page(number) else { continue };
            let head = if number == 1 { 100 } else { 0 };
            let (Some(kind), Some(cells)) = (page.get(head), u16_at(page, head + 3)) else { continue };
            let (interior, list) = match kind {
                5 => (true, head + 12),
                13 => (false, head + 8),
                _ => continue,
            };
            let cells = (0..usize::from(cells)).filter_map(|n| u16_at(page, list + 2 * n)).map(usize::from);
            if interior {
                let children = cells.filter_map(|at| u32_at(page, at)).chain(u32_at(page, head + 8));
                todo.extend(children.filter_map(|child| Some((usize::try_from(child).ok()?, depth + 1))));
                continue;
            }
            for at in cells {
                if let Some(record) = page.get(at..).and_then(|cell| self.record(cell, &mut seen)) {
                    each(record);
                }
            }
        }
    }

    /// The content of a cell of a leaf, put together from its pages.
    fn record(&self, cell: &[u8], seen: &mut HashSet<usize>) -> Option<Vec<u8>> {
        let (size, cell) = varint(cell)?;
        let (_, cell) = varint(cell)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= HEADER_BYTES_MAX.min(self.file.len()))?;
        // How much of it is on the leaf ("B-tree Cell Format").
        let most = self.usable - 35;
        if size <= most {
            return cell.get(..size).map(<[u8]>::to_vec);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let rest = least + (size - least) % (self.usable - 4);
        let local = if rest <= most { rest } else { least };
        let mut record = cell.get(..local)?.to_vec();
        let mut next = usize::try_from(u32_at(cell, local)?).ok()?;
        while next != 0 && record.len() < size {
            if !seen.insert(next) {
                return None;
            }
            let page = self.page(next)?;
            let part = page.get(4..self.usable)?;
            record.extend_from_slice(part.get(..part.len().min(size - record.len()))?);
            next = usize::try_from(u32_at(page, 0)?).ok()?;
        }
        (record.len() == size).then_some(record)
    }
}

/// The columns of a record, as bytes ("Record Format").
fn columns(record: &[u8]) -> Vec<&[u8]> {
    let whole = || {
        let (head_bytes, mut types) = varint(record)?;
        let head_bytes = usize::try_from(head_bytes).ok()?;
        let mut body = record.get(head_bytes..)?;
        types = types.get(..head_bytes.checked_sub(record.len() - types.len())?)?;
        let mut columns = Vec::new();
        while !types.is_empty() {
            let (kind, rest) = varint(types)?;
            types = rest;
            let bytes = match kind {
                0 | 8 | 9 => 0,
                1..=4 => kind,
                5 => 6,
                6 | 7 => 8,
                10 | 11 => return None,
                text => (text - 12) / 2,
            };
            let (column, rest) = body.split_at_checked(usize::try_from(bytes).ok()?)?;
            columns.push(column);
            body = rest;
        }
        Some(columns)
    };
    whole().unwrap_or_default()
}

/// Tags of a header (rpm, `rpmtag.h`).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const ARCHITECTURE: u32 = 1022;

/// A package by its header: the number of entries and of bytes, the entries (tag, type, place,
/// count), the bytes.
fn package(header: &[u8], place: &str) -> Option<Package> {
    let entries = usize::try_from(u32_at(header, 0)?).ok()?;
    let store = header.get(8usize.checked_add(entries.checked_mul(16)?)?..)?;
    let find = |wanted: u32| {
        let mut index = header.get(8..)?.chunks_exact(16).take(entries);
        let entry = index.find(|entry| u32_at(entry, 0) == Some(wanted))?;
        store.get(usize::try_from(u32_at(entry, 8)?).ok()?..)
    };
    let text = |tag: u32| {
        let bytes = find(tag)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned()).filter(|text| !text.is_empty())
    };
    let (name, version) = (text(NAME)?, text(VERSION)?);
    // Keys that packages are checked with are kept as packages.
    if name == "gpg-pubkey" {
        return None;
    }
    let epoch = find(EPOCH).and_then(|bytes| u32_at(bytes, 0)).filter(|epoch| *epoch != 0);
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let release = text(RELEASE).map(|release| format!("-{release}")).unwrap_or_default();
    Some(Package {
        kind: Kind::Rpm,
        name,
        version: format!("{epoch}{version}{release}"),
        architecture: text(ARCHITECTURE),
        license: text(LICENSE),
        supplier: text(VENDOR),
        found_in: place.to_owned(),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A column that is a number.
fn integer(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// SQLite's varint: seven bits a byte, the highest first; the ninth byte is whole.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (n, byte) in bytes.iter().enumerate().take(9) {
        if n == 8 {
            return Some(((value << 8) | u64::from(*byte), bytes.get(9..)?));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(n + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with these texts, and an epoch.
    fn header(texts: &[(u32, &str)], epoch: u32) -> Vec<u8> {
        let mut index = Vec::new();
        let mut store = Vec::new();
        let mut entry = |tag: u32, kind: u32, at: usize| {
            for word in [tag, kind, u32::try_from(at).unwrap(), 1] {
                index.extend(word.to_be_bytes());
            }
        };
        entry(EPOCH, 4, 0);
        store.extend(epoch.to_be_bytes());
        for (tag, text) in texts {
            entry(*tag, 6, store.len());
            store.extend(text.as_bytes());
            store.push(0);
        }
        let entries = u32::try_from(index.len() / 16).unwrap();
        [&entries.to_be_bytes()[..], &u32::try_from(store.len()).unwrap().to_be_bytes(), &index, &store].concat()
    }

    #[test]
    fn a_header_names_its_package() {
        let texts = [
            (NAME, "bash"),
            (VERSION, "5.2"),
            (RELEASE, "3.fc40"),
            (ARCHITECTURE, "x86_64"),
            (LICENSE, "GPL-3.0-or-later"),
        ];
        let told = package(&header(&texts, 2), "x").unwrap();
        assert_eq!((told.name.as_str(), told.version.as_str()), ("bash", "2:5.2-3.fc40"));
        assert_eq!(told.architecture.as_deref(), Some("x86_64"));
        assert_eq!(package(&header(&texts[..2], 0), "x").unwrap().version, "5.2");
        assert!(package(&header(&[(NAME, "gpg-pubkey"), (VERSION, "1")], 0), "x").is_none());
        let whole = header(&texts, 2);
        for cut in 0..whole.len() {
            package(&whole[..cut], "x");
        }
    }

    /// A file as SQLite itself writes it, by way of Python's module; `None` without Python.
    fn database(headers: &[Vec<u8>]) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let script = "import sqlite3, sys, os\n\
            db = sqlite3.connect(sys.argv[1])\n\
            db.execute('PRAGMA page_size = 512')\n\
            db.execute('CREATE TABLE Other (x TEXT)')\n\
            db.execute('CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)')\n\
            for n in range(len(os.listdir(sys.argv[2]))):\n\
            \x20   db.execute('INSERT INTO Packages VALUES (NULL, ?)', (open(f'{sys.argv[2]}/{n}', 'rb').read(),))\n\
            db.commit()\n";
        let headers_dir = dir.path().join("headers");
        std::fs::create_dir(&headers_dir).unwrap();
        for (n, header) in headers.iter().enumerate() {
            std::fs::write(headers_dir.join(n.to_string()), header).unwrap();
        }
        let file = dir.path().join("rpmdb.sqlite");
        let python = std::process::Command::new("python3").arg("-c").arg(script).arg(&file).arg(&headers_dir).status();
        python.ok().filter(std::process::ExitStatus::success)?;
        std::fs::read(file).ok()
    }

    #[test]
    fn a_table_of_many_pages_is_read_whole() {
        let long = "x".repeat(20_000);
        let headers: Vec<Vec<u8>> = (0..300)
            .map(|n| {
                let name = format!("package-{n:03}");
                // Some go on in overflow pages.
                let license = if n % 3 == 0 { long.as_str() } else { "MIT" };
                header(&[(NAME, name.as_str()), (VERSION, "1"), (LICENSE, license)], 0)
            })
            .collect();
        let file = database(&headers).expect("this test needs python3 with sqlite3");
        let mut found = Inventory::default();
        packages(&file, "x", &mut found).unwrap();
        found.packages.sort();
        let names: Vec<_> = found.packages.iter().map(|p| p.name.clone()).collect();
        assert_eq!(names, (0..300).map(|n| format!("package-{n:03}")).collect::<Vec<_>>());
        assert_eq!(found.packages[0].license.as_deref().map(str::len), Some(20_000));

        // A file that is not whole, or leads in circles, ends.
        for cut in [0, 15, 16, 99, 100, 512, 600, 5_000, file.len() - 1] {
            packages(&file[..cut], "x", &mut Inventory::default());
        }
        let mut wild = file.clone();
        for at in (100..wild.len()).step_by(37) {
            wild[at] = wild[at].wrapping_mul(31).wrapping_add(7);
        }
        packages(&wild, "x", &mut Inventory::default());
        assert!(packages(b"SQLite format 3\0", "x", &mut Inventory::default()).is_none());
    }
}
