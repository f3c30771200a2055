//! What a build reads of a user's files: Dockerfiles, ignore files, archives.

use portolan_builder::cache;
use portolan_builder::copy::Chmod;
use portolan_builder::exec::network::Rule;
use portolan_builder::fuzzing as build;
use portolan_builder::sbom::{self, Package};
use portolan_types::ignore::Ignore;
use portolan_types::oci::Descriptor;
use portolan_types::{Digest, Timestamp, media_type};

use super::{text, two};
use crate::Target;

pub(super) const DOCKERFILE: Target = Target {
    name: "dockerfile",
    run: |input| {
        let lines = input.split(|b| *b == b'\n').count();
        match build::dockerfile(input) {
            Ok(found) => {
                assert!(found.stages >= 1 && found.stages <= found.instructions);
                assert!(found.last_line <= lines && found.instructions <= lines);
                // The same file with other line ends means the same.
                if let Some(text) = text(input)
                    && !text.contains('\r')
                {
                    assert_eq!(build::dockerfile(text.replace('\n', "\r\n").as_bytes()), Ok(found));
                }
            }
            Err(why) => assert!(why.len() <= 4 * input.len() + 1_000, "{why}"),
        }
        let Some(text) = text(input) else { return };
        let (words, json) = build::words(two(text).0);
        assert!(words.iter().all(|w| !w.is_empty()) && words.iter().map(String::len).sum::<usize>() <= text.len());
        assert!(json.is_none_or(|j| j.iter().map(String::len).sum::<usize>() <= 3 * text.len()));
    },
    words: &[
        "FROM ",
        "FROM scratch AS a\n",
        "RUN ",
        "COPY --from=a --chown=1:2 x /y\n",
        "ADD ",
        "ENV a=b\n",
        "ARG X=1\n",
        "LABEL ",
        "<<EOF\n",
        "EOF\n",
        "<<-'E F'",
        "\\\n",
        "# escape=`\n",
        "# syntax=docker/dockerfile:1\n",
        "[\"a\", \"b\"]",
        "ONBUILD ",
        "HEALTHCHECK --interval=5s CMD x\n",
        "EXPOSE 80/tcp\n",
        "VOLUME [\"/x\"]\n",
        "USER a:b\n",
        "WORKDIR /x\n",
        "SHELL [\"a\"]\n",
        "STOPSIGNAL 9\n",
        "RUN --mount=type=cache,target=/x ",
        "COPY --parents --exclude=*.a --chmod=u=rwX ./a/./b /c\n",
        "# check=skip=all;error=true\n",
        "FROM --platform=$TARGETPLATFORM a as B\n",
        "MAINTAINER x\n",
        "${a:-b}",
        "CMD ",
        "ENTRYPOINT ",
    ],
    bytes_max: 8 * 1024,
};

/// The value of every variable on the first line, the word after it.
pub(super) const EXPANSION: Target = Target {
    name: "expansion",
    run: |input| {
        let Some(text) = text(input) else { return };
        let (value, word) = two(text);
        let Some(expanded) = build::expand(word, value) else { return };
        assert!(expanded.len() <= 1024 * 1024 + value.len(), "{} bytes", expanded.len());
        if !word.contains(['$', '\\', '"', '\'']) {
            assert_eq!(expanded, word);
        }
    },
    words: &["$a", "${a}", "${a:-", "${a:+", "${a:?x}", "${a#*", "${a%%", "${a/x/y}", "${a//", "}", "\\$", "'", "\""],
    bytes_max: 2_000,
};

/// The value of every variable on the first line, what follows `--mount=` after it.
pub(super) const MOUNT: Target = Target {
    name: "mount",
    run: |input| {
        let Some(text) = text(input) else { return };
        let (value, mount) = two(text);
        let (written, expanded) = build::mount(mount, value);
        // Without variables, quotes and escapes both readings are one.
        if !mount.contains(['$', '\\', '"', '\'']) {
            assert_eq!(written, expanded);
        }
    },
    words: &[
        "type=",
        "bind",
        "cache",
        "tmpfs",
        "secret",
        "ssh",
        ",target=/a",
        ",source=/b",
        ",from=c",
        ",id=d",
        ",sharing=locked",
        ",sharing=$S",
        ",mode=0700",
        ",uid=1",
        ",gid=${G:-2}",
        ",size=64m",
        ",required",
        ",readonly=false",
        ",rw",
        ",env=E",
        "\"",
        "\"\"",
    ],
    bytes_max: 1_000,
};

/// A name query of a build step, and the answer to it.
pub(super) const NAME_QUERY: Target = Target {
    name: "name_query",
    run: |input| {
        let Some(found) = build::name_query(input) else { return };
        assert!(found.name.len() <= 255 && !found.name.ends_with('.'));
        assert!(found.addresses <= input.len() / 4);
        // An answer of ours is one to the same question, with the address that was put in.
        let again = build::name_query(&found.reply).map(|again| (again.name, again.addresses));
        assert_eq!(again, Some((found.name, 1)));
    },
    words: &["\x01\x00", "\x00\x01", "\x00\x1c", "\x03abc", "\x03com", "\x00", "\u{7f}", "\x00\x04"],
    bytes_max: 1_000,
};

/// What a build may reach, as the settings have it.
pub(super) const REACH: Target = Target {
    name: "reach",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Ok(rule) = text.parse::<Rule>() else { return };
        let written = rule.to_string();
        assert_eq!(written.parse::<Rule>().as_ref(), Ok(&rule), "{written}");
    },
    words: &["*", "host", "metadata", "private", "10.0.0.0/8", "[fd00::]/8", ":443", "-8100", "*.", "a.example"],
    bytes_max: 300,
};

/// A file's mode on the first line, in octal, what follows `--chmod=` after it.
pub(super) const MODE: Target = Target {
    name: "mode",
    run: |input| {
        let Some(text) = text(input) else { return };
        let (mode, chmod) = two(text);
        let mode = u32::from_str_radix(mode, 8).unwrap_or(0o644);
        let Ok(chmod) = chmod.parse::<Chmod>() else { return };
        for is_dir in [false, true] {
            assert!(chmod.apply(mode, is_dir) <= 0o7777, "only permission bits come out");
        }
        assert_eq!(chmod.as_str().parse(), Ok(chmod.clone()), "what was written is read again as itself");
        if chmod.as_str().starts_with(|c: char| c.is_ascii_digit()) {
            assert_eq!(chmod.apply(mode, false), chmod.apply(0, true), "a number is what it says");
        }
    },
    words: &["u=rwX", ",go=rX", "a+x", "g=u", "+t", "u+s", "o-rwx", "=", "0755", "7777"],
    bytes_max: 500,
};

/// What follows `# check=`.
pub(super) const CHECKS: Target = Target {
    name: "checks",
    run: |input| {
        let Some(text) = text(input) else { return };
        let error = build::checks(text);
        if error == Some(true) {
            assert!(text.contains("error"));
        }
        // The directive takes what is read alone, and nothing else.
        if !text.contains(['\n', '\r']) && !text.trim().is_empty() {
            let file = format!("# check={text}\nFROM a\n");
            assert_eq!(build::dockerfile(file.as_bytes()).is_ok(), build::checks(text.trim()).is_some());
        }
    },
    words: &["skip=", "error=", "experimental=", "all", "true", "false", ";", ",", "StageNameCasing"],
    bytes_max: 500,
};

/// The path on the first line, the patterns after it.
pub(super) const IGNORE: Target = Target {
    name: "ignore",
    run: |input| {
        let Some(text) = text(input) else { return };
        let (path, patterns) = two(text);
        let Ok(ignore) = Ignore::parse(patterns) else { return };
        let ignored = ignore.matches(path);
        if ignore.is_empty() {
            assert!(!ignored);
        }
        let clean = !path.is_empty()
            && !path.starts_with('/')
            && !path.split('/').any(|p| p.is_empty() || p == "." || p == "..");
        if clean && ignored && !ignore.has_exceptions() {
            assert!(ignore.matches(&format!("{path}/below")), "all that is below an ignored folder is ignored");
            assert!(!ignore.may_include_below(path));
        }
        // Where nothing can be included, nothing is.
        if clean && !ignore.may_include_below(path) {
            assert!(ignore.matches(&format!("{path}/x")), "{path:?}");
        }
        // A pattern more that takes everything back.
        if clean && let Ok(all) = Ignore::parse(&format!("{patterns}\n!**")) {
            assert!(!all.matches(path));
        }
    },
    words: &["**", "*/", "!", "**/", "/**", "[a-z]", "[^", "\\", "#", "?", "../", "./", ".git"],
    bytes_max: 1_000,
};

/// An archive. A header's checksum is put right first, or hardly any change would come
/// further than that.
/// Another builder's cache, all of whose layers are there.
pub(super) const BUILD_CACHE: Target = Target {
    name: "build_cache",
    run: |input| {
        let words = text(input).into_iter().flat_map(|text| text.split('"'));
        let digests = words.filter_map(|word| word.parse::<Digest>().ok());
        let layers: Vec<Descriptor> = digests
            .map(|digest| {
                let mut layer = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, 1);
                layer.annotations.insert(cache::UNCOMPRESSED.to_owned(), digest.to_string());
                layer
            })
            .collect();
        match cache::read_config(input, &layers) {
            Ok(records) => {
                assert!(records.len() <= input.len());
                // A record is small, whatever it was made from, and the same each time.
                assert!(records.values().all(|record| record.len() < 2_000 + input.len()));
                assert_eq!(cache::read_config(input, &layers), Ok(records));
            }
            Err(why) => assert!(why.len() <= 400 + input.len(), "{why}"),
        }
    },
    words: &[
        "{\"layers\":[",
        "{\"blob\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"parent\":-1}",
        "],\"records\":[",
        "\"digest\":\"sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"",
        "\"layers\":[{\"layer\":0,\"createdAt\":\"2026-01-01T00:00:00Z\"}]",
        "\"inputs\":[[{\"link\":0}]]",
        "\"selector\":\"x\"",
        "\"epochSecs\":1",
    ],
    bytes_max: 4_096,
};

/// What an image holds that tells of packages.
pub(super) const PACKAGES: Target = Target {
    name: "packages",
    run: |input| {
        let found = build::packages(input);
        assert!(found.packages.len() <= input.len());
        let told = |p: &Package| p.name.len() + p.version.len();
        assert!(found.packages.iter().all(|p| !p.name.is_empty() && told(p) <= 1_024));
        let subject = sbom::Subject { name: "x", digest: Digest::of(b"x"), created: Timestamp(0), tool: "x-1" };
        let document = sbom::document(&subject, &found);
        assert_eq!(document["packages"].as_array().map(Vec::len), Some(found.packages.len() + 1));
    },
    words: &[
        "Package: a\n",
        "Version: 1:2-3\n",
        "Status: install ok installed\n",
        "\n\n",
        "P:musl\nV:1\nL:MIT\n",
        "Name: x\n",
        "{\"name\":\"@a/b\",\"version\":\"1\",\"license\":\"MIT\"}",
        "\u{0}Go buildinf:",
        "dep\tgolang.org/x\tv1\n",
        "=>\ta\tv2\n",
    ],
    bytes_max: 4_096,
};

pub(super) const TAR: Target = Target {
    name: "tar",
    run: |input| {
        sound(input);
        let mut mended = input.to_vec();
        for block in mended.chunks_exact_mut(512) {
            if block[257..262] == *b"ustar" {
                block[148..156].copy_from_slice(b"        ");
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        sound(&mended);
    },
    words: &[
        "ustar\0",
        "ustar  \0",
        "PaxHeaders.0/x",
        "20 size=",
        "18446744073709551615\n",
        "27 SCHILY.xattr.user.a=",
        "path=",
        "linkpath=",
        "mtime=-1.5",
    ],
    bytes_max: 8 * 1024,
};

fn sound(archive: &[u8]) {
    let (read, skipped) = (build::archive(archive, true), build::archive(archive, false));
    for found in [&read, &skipped] {
        assert!(found.entries <= archive.len() as u64 / 512, "every entry has a header");
        assert!(found.content_bytes <= archive.len() as u64);
    }
    assert_eq!((read.entries, read.whole), (skipped.entries, skipped.whole), "past contents is where they end");
}
