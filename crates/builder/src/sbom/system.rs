//! What the package managers of distributions keep: dpkg's and apk's lists, which are text.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::{DATABASE_BYTES_MAX, Inventory, Kind, METADATA_BYTES_MAX, Package, read};
use crate::fsys;

/// dpkg's list (dpkg(1), "FILES").
const DPKG_STATUS: &str = "var/lib/dpkg/status";
/// The same, a file for each package: images without dpkg itself.
const DPKG_STATUS_D: &str = "var/lib/dpkg/status.d";
/// apk's list (apk-tools, "installed database").
const APK_INSTALLED: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// Files in [`DPKG_STATUS_D`].
const STATUS_FILES_MAX: usize = 50_000;

pub(super) fn scan(root: BorrowedFd<'_>, found: &mut Inventory) -> io::Result<()> {
    if let Some(bytes) = read(root, DPKG_STATUS, DATABASE_BYTES_MAX) {
        dpkg(&String::from_utf8_lossy(&bytes), DPKG_STATUS, found);
    }
    if let Ok(dir) = fsys::dir_in(root, Path::new(DPKG_STATUS_D)) {
        for name in fsys::names(dir.as_fd())?.into_iter().take(STATUS_FILES_MAX) {
            let path = Path::new(DPKG_STATUS_D).join(&name);
            // Beside each list of files lies its checksums.
            if path.extension().is_none_or(|extension| extension != "md5sums")
                && let Some(bytes) = read(root, &path, METADATA_BYTES_MAX)
            {
                dpkg(&String::from_utf8_lossy(&bytes), &path.to_string_lossy(), found);
            }
        }
    }
    for path in APK_INSTALLED {
        if let Some(bytes) = read(root, path, DATABASE_BYTES_MAX) {
            apk(&String::from_utf8_lossy(&bytes), path, found);
            break;
        }
    }
    Ok(())
}

/// A value of `os-release`, without its quotes (os-release(5)).
pub(super) fn os_release(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Paragraphs of `Name: value` lines; what is not installed (removed, its configuration
/// kept) is left out.
pub(super) fn dpkg(text: &str, place: &str, found: &mut Inventory) {
    for paragraph in text.split("\n\n") {
        let fields: HashMap<&str, &str> = paragraph
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect();
        let Some(name) = fields.get("Package") else { continue };
        if fields.get("Status").is_some_and(|status| !status.ends_with(" installed")) {
            continue;
        }
        let field = |name: &str| fields.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
        found.add(Package {
            kind: Kind::Deb,
            name: (*name).to_owned(),
            version: field("Version").unwrap_or_default(),
            architecture: field("Architecture"),
            license: None,
            supplier: field("Maintainer"),
            found_in: place.to_owned(),
        });
    }
}

/// Paragraphs of lines of one letter, a colon and a value.
pub(super) fn apk(text: &str, place: &str, found: &mut Inventory) {
    for paragraph in text.split("\n\n") {
        let field = |letter: &str| {
            let value = paragraph.lines().find_map(|line| line.strip_prefix(letter)?.strip_prefix(':'));
            value.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let Some(name) = field("P") else { continue };
        found.add(Package {
            kind: Kind::Apk,
            name,
            version: field("V").unwrap_or_default(),
            architecture: field("A"),
            license: field("L"),
            supplier: field("m"),
            found_in: place.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpkgs_list() {
        let text = "Package: base-files\nStatus: install ok installed\nMaintainer: Santiago Vila <a@b.c>\n\
            Architecture: amd64\nVersion: 12.4+deb12u5\nDescription: x\n lines: of text\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
            Package: tzdata\nVersion: 2024a\n";
        let mut found = Inventory::default();
        dpkg(text, "status", &mut found);
        let told: Vec<_> =
            found.packages.iter().map(|p| format!("{} {} {:?}", p.name, p.version, p.architecture)).collect();
        assert_eq!(told, ["base-files 12.4+deb12u5 Some(\"amd64\")", "tzdata 2024a None"]);
        assert_eq!(found.packages[0].supplier.as_deref(), Some("Santiago Vila <a@b.c>"));
    }

    #[test]
    fn apks_list() {
        let text = "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nm:Somebody <s@alpine>\nF:lib\n\nP:busybox\nV:1.36\n";
        let mut found = Inventory::default();
        apk(text, "installed", &mut found);
        let told: Vec<_> = found.packages.iter().map(|p| format!("{} {} {:?}", p.name, p.version, p.license)).collect();
        assert_eq!(told, ["musl 1.2.5-r0 Some(\"MIT\")", "busybox 1.36 None"]);
    }

    #[test]
    fn whose_image_it_is() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!((os_release(text, "ID").as_str(), os_release(text, "VERSION_ID").as_str()), ("debian", "12"));
        assert_eq!(os_release("", "ID"), "");
    }
}
