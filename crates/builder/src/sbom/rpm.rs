//! rpm's database, which is no text: SQLite today, Berkeley DB and ndb before. It is not
//! read; that an image has one is told, so that nobody takes the list for whole.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::Inventory;
use crate::fsys;

/// Where distributions have it.
const PLACES: [&str; 6] = [
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/Packages.db",
    "usr/share/rpm/rpmdb.sqlite",
];

pub(super) fn scan(root: BorrowedFd<'_>, found: &mut Inventory) {
    let there = |path: &&&str| fsys::open_in(root, Path::new(path), OFlags::PATH).is_ok();
    if let Some(path) = PLACES.iter().find(there) {
        found.gap(format!("{path}: packages installed by rpm are not listed"));
    }
}
