//! The page about Dockerfiles, held to what there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use portolan_builder::lint::Rule;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The texts in backticks of a line.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of all tables whose last column is `tests`: the cells before it, and the tests.
fn rows(page: &str) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    let mut names_tests = false;
    for line in page.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|row| row.trim_end().strip_suffix('|')) else {
            names_tests = false;
            continue;
        };
        let (cells, last) = row.rsplit_once('|').unwrap();
        match last.trim() {
            "tests" => names_tests = true,
            dashes if dashes.starts_with("--") => {}
            tests if names_tests => {
                rows.push((cells.to_owned(), quoted(tests).into_iter().map(str::to_owned).collect()));
            }
            other => panic!("a table without a column of tests: {other}"),
        }
    }
    rows
}

/// `room::name` of every test of this crate: the room is the file or its folder.
fn own_tests() -> BTreeSet<String> {
    fn walk(dir: &Path, root: &Path, out: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let rooms: Vec<String> = path
                    .strip_prefix(root)
                    .unwrap()
                    .with_extension("")
                    .iter()
                    .map(|part| part.to_str().unwrap().to_owned())
                    .filter(|part| !["tests", "mod"].contains(&part.as_str()))
                    .collect();
                let text = std::fs::read_to_string(&path).unwrap();
                let mut lines = text.lines().map(str::trim);
                while let Some(line) = lines.next() {
                    if line != "#[test]" {
                        continue;
                    }
                    let named = lines.by_ref().find_map(|l| l.strip_prefix("fn ")).unwrap();
                    let name = named.split('(').next().unwrap();
                    // By the whole way to it, and by its room alone.
                    for first in 0..rooms.len() {
                        out.insert(format!("{}::{name}", rooms[first..].join("::")));
                    }
                }
            }
        }
    }
    let mut out = BTreeSet::new();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for root in [here.join("src"), here.join("tests/it")] {
        walk(&root, &root, &mut out);
    }
    out
}

/// The cases that are built by docker and by us.
fn cases() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("tests/external/compare")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        out.extend(text.lines().filter_map(|line| line.strip_prefix("=== ")).map(|name| name.trim().to_owned()));
    }
    out
}

#[test]
fn tests_named_here_exist() {
    let page = std::fs::read_to_string(root().join("docs/reference/dockerfile.md")).unwrap();
    let (own, cases) = (own_tests(), cases());
    let exists = |test: &str| match test.split_once('*') {
        _ if test.contains("::") => own.contains(test),
        Some((before, after)) => cases.iter().any(|case| case.starts_with(before) && case.ends_with(after)),
        None => cases.contains(test),
    };
    let rows = rows(&page);
    assert!(rows.len() > 80, "{} rows", rows.len());
    let mut missing = Vec::new();
    for (cells, tests) in &rows {
        if tests.is_empty() {
            missing.push(format!("no test: {cells}"));
        }
        missing.extend(tests.iter().filter(|test| !exists(test)).map(|test| format!("there is no {test}: {cells}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_word_of_the_language_has_a_line() {
    let page = std::fs::read_to_string(root().join("docs/reference/dockerfile.md")).unwrap();
    let rows = rows(&page);
    let first: Vec<&str> = rows.iter().filter_map(|(cells, _)| cells.split('|').next()).collect();
    let named = |word: &str| first.iter().any(|cell| quoted(cell).iter().any(|text| text.starts_with(word)));
    for rule in Rule::ALL {
        assert!(named(rule.name()), "{rule:?} has no line");
    }
    for word in [
        "ADD",
        "ADD --chmod",
        "ADD --chown",
        "ADD --exclude",
        "ADD --link",
        "ARG",
        "CMD",
        "COPY",
        "COPY --chmod",
        "COPY --chown",
        "COPY --exclude",
        "COPY --from",
        "COPY --link",
        "COPY --parents",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "FROM --platform",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "RUN --device",
        "RUN --mount=type=bind",
        "RUN --mount=type=cache",
        "RUN --mount=type=secret",
        "RUN --mount=type=ssh",
        "RUN --mount=type=tmpfs",
        "RUN --network",
        "RUN --security",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
        "# check",
        "# escape",
        "# syntax",
    ] {
        assert!(named(word), "{word} has no line");
    }
    for flag in ["ADD --checksum", "ADD --keep-git-dir", "ADD --unpack"] {
        assert!(rows.iter().any(|(cells, _)| cells.contains(flag)), "{flag} has no line");
    }
}
