//! Doors for the fuzzer: Dockerfiles and tar archives, read as a build reads them, with the
//! properties that need this crate's own types.

use std::io::{self, Read};

use crate::expand::Lexer;
use crate::{instruct, parse, tarball};

/// What was found in a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Instructions, those behind `FROM` and those before.
    pub instructions: usize,
    /// Stages.
    pub stages: usize,
    /// The last line of any instruction, from 1.
    pub last_line: usize,
}

/// Read a Dockerfile down to its instructions; the refusal as it is shown.
pub fn dockerfile(bytes: &[u8]) -> Result<Dockerfile, String> {
    // As the log shows it: that looks for the guilty word in the text.
    let source = crate::error::Source::new("Dockerfile", &String::from_utf8_lossy(bytes));
    let text = |fault: crate::error::Fault| source.sentence(&fault);
    let file = parse::parse(bytes).map_err(text)?;
    let last_line = file.nodes.iter().map(|n| n.span.last).max().unwrap_or(0);
    for node in &file.nodes {
        assert!(node.span.first >= 1 && node.span.first <= node.span.last, "{:?}", node.span);
    }
    let instructions = file.nodes.len();
    let file = instruct::read(file).map_err(text)?;
    for finding in file.checks.filter(file.findings.iter().cloned()) {
        assert!(finding.span.first >= 1 && finding.span.first <= finding.span.last, "{finding:?}");
        assert!(finding.span.last <= last_line, "{finding:?}");
    }
    Ok(Dockerfile { instructions, stages: file.stages.len(), last_line })
}

/// Expand a word with every variable set to `value`; `None` when it is refused. What comes
/// out is bounded whatever the word says.
pub fn expand(word: &str, value: &str) -> Option<String> {
    Lexer::new('\\').word(word, &|_| Some(value.to_owned())).ok()
}

/// Read a `RUN --mount`, as it is written and with every variable set to `value`. What comes
/// out, as text; `None` where it is refused.
pub fn mount(text: &str, value: &str) -> (Option<String>, Option<String>) {
    let Ok(written) = instruct::Mount::read(text) else { return (None, None) };
    let lexer = Lexer::new('\\');
    let expand = |word: &str| lexer.word(word, &|_| Some(value.to_owned())).map_err(|e| e.to_string());
    let expanded = written.expanded(&expand).ok();
    if let Some(target) = expanded.as_ref().and_then(|mount| mount.target.as_deref()) {
        assert!(!target.is_empty() && !matches!(target, "/" | "//" | "/."), "a step's root cannot be covered");
    }
    (Some(format!("{written:?}")), expanded.map(|mount| format!("{mount:?}")))
}

pub use crate::exec::network::NameQuery;

/// Read a name query and the answer that may follow its question; `None` for what is none.
pub fn name_query(message: &[u8]) -> Option<NameQuery> {
    crate::exec::network::read_query(message)
}

/// Read what `# check=` says: whether findings end the build.
pub fn checks(text: &str) -> Option<bool> {
    crate::lint::Checks::parse(text).ok().map(|checks| checks.error)
}

/// The words of a line, and those of its JSON form.
pub fn words(line: &str) -> (Vec<String>, Option<Vec<String>>) {
    (parse::words(line, '\\'), parse::json_strings(line))
}

/// What was found in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// Entries.
    pub entries: u64,
    /// Bytes of contents that were read.
    pub content_bytes: u64,
    /// Whether it ended as archives end.
    pub whole: bool,
}

/// Read an archive to its end or first fault, the contents of its entries or only past them.
/// Whatever header we would write for an entry must be read back as that entry.
pub fn archive(bytes: &[u8], with_contents: bool) -> Archive {
    let mut found = Archive::default();
    let mut reader = tarball::Reader::new(bytes);
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                found.whole = true;
                return found;
            }
            Err(_) => return found,
        };
        found.entries += 1;
        written_and_read_again(&entry);
        if with_contents {
            match io::copy(&mut reader.by_ref(), &mut io::sink()) {
                Ok(n) => {
                    assert_eq!(n, entry.size, "contents are as long as the header says");
                    found.content_bytes += n;
                }
                Err(_) => return found,
            }
        }
    }
}

fn written_and_read_again(entry: &tarball::Entry) {
    let mut header = Vec::new();
    tarball::write_header(entry, &mut header);
    assert_eq!(header.len() % tarball::BLOCK, 0);
    let Ok(Some(again)) = tarball::Reader::new(&header[..]).next() else {
        panic!("what was written for {entry:?} cannot be read");
    };
    // Times are written in whole seconds; devices and names without their NULs fit always.
    let mut want = entry.clone();
    want.mtime.tv_nsec = again.mtime.tv_nsec;
    assert_eq!(again, want);
}

/// Read bytes as each of the files that tell of packages.
pub fn packages(bytes: &[u8]) -> crate::sbom::Inventory {
    crate::sbom::read_as_any(bytes)
}
