//! Links between the pages: every relative one leads to a file, and to a heading in it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Source};

pub(super) fn check(sources: &[Source], all: &[String]) -> Vec<Finding> {
    let files: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    let folders: BTreeSet<&str> = all.iter().flat_map(|path| ancestors(path)).collect();
    let pages: Vec<&Source> = sources.iter().filter(|s| s.path.ends_with(".md")).collect();
    let headings: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|page| (page.path.as_str(), slugs(&page.text))).collect();
    let mut findings = Vec::new();
    for page in &pages {
        for (line, target) in links(&page.text) {
            let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            let full = if path.is_empty() { Some(page.path.clone()) } else { resolve(&page.path, path) };
            let Some(full) = full.filter(|full| files.contains(full.as_str()) || folders.contains(full.as_str()))
            else {
                findings.push(Finding::new(&page.path, line, format!("`{target}` leads nowhere")));
                continue;
            };
            let known = headings.get(full.as_str());
            if let (Some(anchor), Some(known)) = (anchor, known)
                && !known.contains(anchor)
            {
                findings.push(Finding::new(&page.path, line, format!("{full} has no heading `#{anchor}`")));
            }
        }
    }
    findings
}

/// The folders above a path.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// A relative path as seen from a page; `None` when it leaves the repository.
fn resolve(page: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The lines outside code blocks, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return None;
        }
        (!in_code).then_some((i + 1, line))
    })
}

/// The relative targets of `[text](target)`, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    for (number, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let Some(end) = rest.find([')', ' ']) else { continue };
            let target = &rest[..end];
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !outside {
                all.push((number, target));
            }
        }
    }
    all
}

/// The anchors of a page's headings, as GitHub makes them.
fn slugs(text: &str) -> BTreeSet<String> {
    let mut slugs = BTreeSet::new();
    for (_, line) in prose(text) {
        let Some(title) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) else { continue };
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut unique = slug.clone();
        let mut n = 0;
        while !slugs.insert(unique.clone()) {
            n += 1;
            unique = format!("{slug}-{n}");
        }
    }
    slugs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pages: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = pages.iter().map(|(path, text)| Source::new(path, text)).collect();
        let all: Vec<String> = pages.iter().map(|(path, _)| (*path).to_owned()).collect();
        check(&sources, &all).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_to_pages_folders_and_headings() {
        let guide = "# The `guide`: how to\n\n## Again\n## Again\n";
        let fine = "[a](docs/guide.md) [b](./docs/) [c](docs/guide.md#the-guide-how-to) [d](docs/guide.md#again-1) [e](https://example.com/x)\n\
                    ```\n[not](a-link.md)\n```\n";
        assert_eq!(of(&[("README.md", fine), ("docs/guide.md", guide)]), [] as [String; 0]);
        let broken = "x\n[a](docs/gone.md) [b](../up.md) [c](docs/guide.md#no)";
        assert_eq!(
            of(&[("README.md", broken), ("docs/guide.md", guide)]),
            [
                "README.md:2: `docs/gone.md` leads nowhere",
                "README.md:2: `../up.md` leads nowhere",
                "README.md:2: docs/guide.md has no heading `#no`"
            ]
        );
        assert_eq!(
            of(&[("docs/guide.md", "[up](../README.md) [here](#top)\n# Top"), ("README.md", "")]),
            [] as [String; 0]
        );
    }
}
