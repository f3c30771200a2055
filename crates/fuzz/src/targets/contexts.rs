//! What says where a build's files are: listings of contexts, addresses.

use portolan_builder::remote::{Remote, without_password};
use portolan_types::listing::{Entry, Reader, Writer};

use super::text;
use crate::Target;

pub(super) const LISTING: Target = Target {
    name: "listing",
    run: |input| {
        let Ok(reader) = Reader::new(input) else { return };
        let read: Vec<_> = reader.collect();
        let damaged = read.iter().filter(|entry| entry.is_err()).count();
        assert!(damaged <= 1 && read.iter().rev().skip(1).all(Result::is_ok), "damage is the end");
        let entries: Vec<Entry<'_>> = read.into_iter().flatten().collect();
        // No entry takes less than its kind and five numbers.
        assert!(entries.len() * 5 <= input.len());
        let mut writer = Writer::default();
        for entry in &entries {
            writer.push(&entry.path, entry.mode, entry.mtime, entry.kind);
        }
        let written = writer.finish();
        let again: Vec<Entry<'_>> = Reader::new(&written).into_iter().flatten().flatten().collect();
        assert_eq!(again, entries, "what was read is what would be written");
    },
    words: &["portolan listing 1\n", "\x01\0\x01a\0\0", "\x03\0\x01b\0\0\x01a", "\x7f", "../"],
    bytes_max: 4 * 1024,
};

pub(super) const ADDRESS: Target = Target {
    name: "address",
    run: |input| {
        let Some(text) = text(input) else { return };
        for read in [Remote::of_add(text), Remote::of_context(text)] {
            match read {
                Ok(Some(Remote::Git(git))) => {
                    assert!(!git.url.starts_with('-') && !git.url.contains(['\n', '\0', ' ', '#', '?']));
                    let plain = |t: &Option<String>| t.as_ref().is_none_or(|t| !t.is_empty() && !t.starts_with('-'));
                    assert!(plain(&git.reference), "no flag for git: {:?}", git.reference);
                    let inside = |s: &String| s.split('/').all(|part| part != "..");
                    assert!(git.subdir.as_ref().is_none_or(inside));
                    assert!(!authority(&git.shown()).contains('@') || !git.url.contains("://"), "{}", git.shown());
                }
                Ok(Some(Remote::File(url))) => assert!(url.is_ascii() || !url.contains(char::is_control)),
                Ok(None) => {}
                Err(why) => assert!(why.to_string().len() <= 8 * input.len() + 400),
            }
        }
        assert!(!text.contains("://") || !authority(&without_password(text)).contains('@'), "{text}");
    },
    words: &[
        "https://",
        "git@",
        "file://",
        "github.com/",
        ".git",
        "#main:sub",
        "?branch=",
        "&subdir=",
        "@",
        ":",
        "..",
        "%2e",
        "user:pass@",
        "/_git/",
        "refs/heads/",
    ],
    bytes_max: 1024,
};

/// What is between the scheme and the path.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}
