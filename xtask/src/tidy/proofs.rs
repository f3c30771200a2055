//! `docs/reference/oci.md` names a test for every statement: each must be there.

use std::collections::BTreeMap;

use super::{Finding, Source};

/// The page, and where the tests it names are.
const PAGE: &str = "docs/reference/oci.md";
const TESTS: &str = "crates/server/tests/it/";
/// The end-points of the specification's table.
const ENDPOINTS: [&str; 16] = [
    "end-1", "end-2", "end-3", "end-4a", "end-4b", "end-5", "end-6", "end-7", "end-8a", "end-8b", "end-9", "end-10",
    "end-11", "end-12a", "end-12b", "end-13",
];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(page) = sources.iter().find(|s| s.path == PAGE) else {
        // A repository of another shape, in the tests of other checks.
        return Vec::new();
    };
    let tests: BTreeMap<&str, &Source> = sources.iter().map(|s| (s.path.as_str(), s)).collect();
    let mut findings = Vec::new();
    let mut in_proofs = false;
    for (line, text) in page.text.lines().enumerate().map(|(i, text)| (i + 1, text)) {
        let cells: Vec<&str> = text.trim().trim_matches('|').split(" | ").map(str::trim).collect();
        if !text.starts_with('|') {
            in_proofs = false;
            continue;
        }
        match cells.last() {
            Some(&"proof") => in_proofs = true,
            Some(last) if in_proofs && !text.starts_with("|---") => {
                let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
                if named.is_empty() {
                    findings.push(Finding::new(PAGE, line, "the statement has no proof: name the test of it"));
                }
                for name in named {
                    if !exists(&tests, name) {
                        let what = format!("there is no test `{name}` under {TESTS}: name the one that proves it now");
                        findings.push(Finding::new(PAGE, line, what));
                    }
                }
            }
            _ => {}
        }
    }
    for endpoint in ENDPOINTS {
        let is_named = |cell: &str| cell.trim().split(", ").any(|id| id == endpoint);
        if !page.text.lines().any(|l| l.trim_matches('|').split(" | ").next().is_some_and(is_named)) {
            findings.push(Finding::new(PAGE, 0, format!("{endpoint} is not in the table of end-points")));
        }
    }
    findings
}

/// Whether `a::b::name` is a test function `name` in `a/b.rs` or `a/b/mod.rs`.
fn exists(tests: &BTreeMap<&str, &Source>, name: &str) -> bool {
    let Some((module, function)) = name.rsplit_once("::") else { return false };
    let file = module.replace("::", "/");
    [format!("{TESTS}{file}.rs"), format!("{TESTS}{file}/mod.rs")]
        .iter()
        .filter_map(|path| tests.get(path.as_str()))
        .any(|source| {
            let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
            let heads = [format!("async fn {function}("), format!("fn {function}(")];
            lines
                .windows(2)
                .any(|pair| pair[0].contains("test]") && heads.iter().any(|h| pair[1].starts_with(h.as_str())))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rows: &str) -> Vec<String> {
        let ids: String = ENDPOINTS.iter().map(|id| format!("| {id} | x |\n")).collect();
        let page = format!("| id | request |\n|---|---|\n{ids}\n| statement | answer | proof |\n|---|---|---|\n{rows}");
        let test = "#[tokio::test]\nasync fn it_is() {}\nasync fn a_helper() {}\n";
        let sources = [Source::new(PAGE, &page), Source::new("crates/server/tests/it/v2/pull.rs", test)];
        check(&sources).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn every_statement_names_tests_that_are_there() {
        assert!(findings("| a | b | `v2::pull::it_is` |\n").is_empty());
        for bad in ["`v2::pull::it_was`", "`v2::push::it_is`", "`it_is`", "`v2::pull::a_helper`", "see there", ""] {
            assert_eq!(findings(&format!("| a | b | {bad} |\n")).len(), 1, "{bad}");
        }
        assert_eq!(findings("| a | b | `v2::pull::it_is`, `v2::pull::it_was` |\n").len(), 1);
    }

    #[test]
    fn every_end_point_is_in_the_table() {
        let page = Source::new(PAGE, "| end-8a, end-8b | x |\n");
        assert_eq!(check(&[page]).len(), ENDPOINTS.len() - 2);
    }
}
