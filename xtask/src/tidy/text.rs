//! What must and must not stand in a source.

use super::{Finding, Source};

/// Lines of one Rust file.
const LINES_MAX: usize = 900;

/// Words for work that was put off. In pieces, so that this file does not find itself.
const PUT_OFF: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("todo", "!("),
    concat!("unimpl", "emented!("),
];

/// Paths of one person's machine.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/Us", "ers/"), concat!("/var/tmp/", "target"), concat!("/.car", "go/reg")];

/// Hosts that may stand in a URL, with everything below them. Anything else is a person's
/// mirror, a company's proxy, or a dependency on somebody's server that nobody has decided on.
const HOSTS: &[&str] = &[
    "localhost",
    "example",
    "example.com",
    "example.org",
    "test",
    "invalid",
    // Where base images come from.
    "docker.io",
    "mcr.microsoft.com",
    "ghcr.io",
    "quay.io",
    // Names that Azure's clients put into audiences and messages.
    "azure.net",
    "azure.com",
    "windows.net",
    "microsoft.com",
    "microsoftonline.com",
    "azurecr.io",
    "aka.ms",
    // Specifications, licences, sources of packages for people.
    "github.com",
    "opencontainers.org",
    "docker.com",
    "apache.org",
    "ietf.org",
    "rfc-editor.org",
    "w3.org",
    "jmespath.org",
    "json-schema.org",
    "kernel.org",
    "man7.org",
    "debian.org",
    "python.org",
    "pypi.org",
    "rust-lang.org",
    "rustup.rs",
    "docs.rs",
    "crates.io",
    "sqlite.org",
    "postgresql.org",
    "openid.net",
    "spdx.org",
    "spdx.dev",
    "slsa.dev",
    "in-toto.io",
    "git-media.io",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    // What fuzzing found is not written for people.
    if source.path == "Cargo.lock" || source.path.starts_with("crates/fuzz/corpus/") {
        return findings;
    }
    if source.is_rust() {
        whole_file(source, &mut findings);
    }
    let in_builder = source.path.starts_with("crates/builder/");
    let in_http = source.path.starts_with("crates/server/src/http/");
    // In Markdown a blank at the end breaks a line; in a Dockerfile under test it is the test.
    let blanks_mean_something = source.path.ends_with(".md") || source.path.starts_with("tests/external/compare/");
    for (i, line) in source.text.lines().enumerate() {
        let mut add = |what: String| findings.push(Finding::new(&source.path, i + 1, what));
        for word in PUT_OFF.iter().filter(|word| line.contains(**word)) {
            add(format!("`{word}`: do it now, or open an issue"));
        }
        for path in MACHINE_PATHS.iter().filter(|path| has_path(line, path)) {
            add(format!("`{path}` is a path of one machine"));
        }
        for host in hosts(line).filter(|host| !is_known(host)) {
            add(format!(
                "the host `{host}` is not in xtask/src/tidy/text.rs: use example.com, or add it there with its reason"
            ));
        }
        if line.ends_with([' ', '\t']) && !blanks_mean_something {
            add("a blank at the end of the line".to_owned());
        }
        if source.is_rust() {
            let code = code(line);
            if !in_builder && has_word(code, concat!("uns", "afe")) && !code.contains("unsafe_code") {
                add("`unsafe` is builder's alone".to_owned());
            }
            if in_http && (code.contains("store::meta") || code.contains("store::{meta")) {
                add("a handler does not name tables: put the rule into service".to_owned());
            }
        }
    }
    findings
}

fn whole_file(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        findings.push(Finding::new(
            &source.path,
            0,
            format!("{lines} lines; {LINES_MAX} are the most: give the second room a file of its own"),
        ));
    }
    let is_root = source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs");
    if is_root && !source.text.starts_with("//!") {
        findings.push(Finding::new(&source.path, 1, "begin with `//!`: what this crate is for"));
    }
}

/// A line without its comment and without what stands in plain string literals. Good
/// enough for lines as rustfmt leaves them.
fn code(line: &str) -> &str {
    let line = line.find("//").map_or(line, |at| &line[..at]);
    line.find('"').map_or(line, |at| &line[..at])
}

/// A path of a machine, not the end of a longer one (`/usr/home/` is fine in an image).
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || "._-/}$".contains(c))
    })
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part) && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// The hosts of the URLs in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    ["http://", "https://"].into_iter().flat_map(move |scheme| {
        line.match_indices(scheme).map(move |(at, _)| {
            let rest = &line[at + scheme.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !".-".contains(c)).unwrap_or(rest.len());
            rest[..end].trim_end_matches('.')
        })
    })
}

/// A host in the list or below one; a word without a dot and an address are made up.
fn is_known(host: &str) -> bool {
    !host.contains('.')
        || host.bytes().all(|c| c.is_ascii_digit() || c == b'.')
        || HOSTS.iter().any(|known| host.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text)).into_iter().map(|f| format!("{}: {}", f.line, f.what)).collect()
    }

    #[test]
    fn work_put_off_is_found() {
        let text = format!("//! x\nfn f() {{\n    {}\n}}\n", concat!("todo", "!()"));
        assert!(of("crates/a/src/lib.rs", &text)[0].starts_with("3: "));
        assert_eq!(of("a.sh", concat!("# TO", "DO later")).len(), 1);
    }

    #[test]
    fn machine_paths_are_found_and_paths_in_images_are_not() {
        assert_eq!(of("a.sh", concat!("cd /wo", "rk/main")).len(), 1);
        assert_eq!(of("a.sh", "cd $x/work/main").len(), 0);
        assert_eq!(of("a.sh", "cp /usr/home/x .").len(), 0);
    }

    #[test]
    fn unknown_hosts_are_found() {
        for fine in [
            "https://registry.example.com/x",
            "http://127.0.0.1:80",
            "https://{host}/",
            "https://h:1",
            "https://myreg.azurecr.io",
        ] {
            assert_eq!(of("a.md", fine), [] as [String; 0], "{fine}");
        }
        assert_eq!(of("a.md", concat!("see https", "://mirror.corp.internal/pypi")).len(), 1);
        assert_eq!(of("a.md", concat!("see https", "://notexample.com")).len(), 1);
    }

    #[test]
    fn rules_of_rust_files() {
        assert!(of("crates/a/src/lib.rs", "fn f() {}\n")[0].contains("what this crate is for"));
        assert_eq!(of("crates/a/src/x.rs", "fn f() {}\n"), [] as [String; 0]);
        let long = "fn f() {}\n".repeat(LINES_MAX + 1);
        assert!(of("crates/a/src/x.rs", &long)[0].contains("901 lines"));
        let block = concat!("let x = uns", "afe { f() };");
        assert_eq!(of("crates/a/src/x.rs", block).len(), 1);
        assert_eq!(of("crates/builder/src/x.rs", block).len(), 0);
        assert_eq!(of("crates/a/src/x.rs", concat!("// uns", "afe words")).len(), 0);
        assert_eq!(of("crates/server/src/http/x.rs", "use portolan_store::meta::tag;").len(), 1);
        assert_eq!(of("crates/server/src/server.rs", "use portolan_store::meta::Meta;").len(), 0);
        assert_eq!(of("crates/a/src/x.rs", "fn f() {} \n").len(), 1);
    }
}
