//! `cargo xtask tidy`: the rules of the house as code.
//!
//! Each check is a function from texts to findings, so that it is tested on texts. A
//! finding says the place, the rule, and what to do instead. There are no exceptions by
//! comment in the sources: one that is right is a line in the tables here, and is reviewed.

mod edges;
mod links;
mod proofs;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// One thing that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    /// From 1; 0 for the whole file.
    pub(crate) line: usize,
    /// The rule and what to do.
    pub(crate) what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// A text file of the repository.
pub(crate) struct Source {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

impl Source {
    #[cfg(test)]
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Check the repository; an error with the number of findings when there are any.
pub(crate) fn run(root: &Path) -> Result<()> {
    let (sources, all) = read(root)?;
    let findings = check(&sources, &all);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("tidy: 1 finding"),
        n => bail!("tidy: {n} findings"),
    }
}

/// All findings, in the order of their places. `all` are the paths of every file, texts or not.
fn check(sources: &[Source], all: &[String]) -> Vec<Finding> {
    let mut findings = edges::check(sources);
    findings.extend(sources.iter().flat_map(text::check));
    findings.extend(links::check(sources, all));
    findings.extend(proofs::check(sources));
    findings.sort();
    findings
}

/// The texts that git knows or would take up, and the paths of all files.
fn read(root: &Path) -> Result<(Vec<Source>, Vec<String>)> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("run git")?;
    if !listed.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    }
    let listed = String::from_utf8(listed.stdout).context("a file name is not UTF-8")?;
    let mut all: Vec<String> = listed.split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    all.sort();
    all.dedup();
    let mut sources = Vec::new();
    // Deleted and not yet committed: git still lists it.
    all.retain(|path| root.join(path).exists());
    for path in &all {
        let bytes = fs::read(root.join(path)).with_context(|| format!("read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path: path.clone(), text });
        }
    }
    Ok((sources, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_can_be_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (sources, all) = read(&root).unwrap();
        assert!(sources.iter().any(|s| s.path == "xtask/src/tidy/mod.rs"));
        assert!(all.len() >= sources.len());
    }

    #[test]
    fn a_finding_shows_its_place() {
        assert_eq!(Finding::new("a.rs", 3, "no").to_string(), "a.rs:3: no");
        assert_eq!(Finding::new("a.rs", 0, "no").to_string(), "a.rs: no");
    }
}
