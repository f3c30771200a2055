//! Why a build ended without an image.

use std::fmt;

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The Dockerfile cannot be built: a syntax error, an unknown stage, a source file that
    /// is not there, a base image that cannot be had.
    Dockerfile,
    /// A `RUN` step ended with this status (128 + n when signal n ended it).
    Step {
        /// The exit status.
        exit_code: i32,
    },
    /// The build was cancelled.
    Cancelled,
    /// A step ran longer than it may.
    Timeout,
    /// The steps took more of the disk than they may.
    Limit,
    /// The machine or the engine failed (a full disk, say).
    Internal,
}

/// Why a build ended without an image.
#[derive(Clone, Debug)]
pub struct BuildError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// A sentence for the log, with `file:line` and a hint where there is one.
    pub message: String,
    /// The lines of the Dockerfile around the guilty one, numbered and marked with `>>>`.
    pub excerpt: Option<String>,
}

impl BuildError {
    /// An error without a place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> BuildError {
        BuildError { kind, message: message.into(), excerpt: None }
    }

    /// The build was cancelled.
    pub fn cancelled() -> BuildError {
        BuildError::new(ErrorKind::Cancelled, "the build was cancelled")
    }

    /// With the guilty lines of the Dockerfile.
    pub fn with_excerpt(mut self, excerpt: String) -> BuildError {
        self.excerpt = Some(excerpt);
        self
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BuildError {}

/// Lines of a Dockerfile, from 1, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// Something wrong in a Dockerfile, before it is put in words for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// What is wrong, as it is written in those lines: where it stands is the fault's place.
    pub(crate) word: Option<String>,
}

impl Fault {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Fault {
        Fault { span, message: message.into(), hint: None, word: None }
    }

    /// With the guilty word, unless a closer one is known already.
    pub(crate) fn at(mut self, word: &str) -> Fault {
        if self.word.is_none() && !word.trim().is_empty() {
            self.word = Some(word.trim().to_owned());
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}

/// A Dockerfile's name and text, to show where a fault is.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    name: String,
    lines: Vec<String>,
}

/// Lines shown before and after the guilty ones.
const EXCERPT_MARGIN_LINES: usize = 2;
/// Guilty lines shown at most (a long heredoc is cut).
const EXCERPT_LINES_MAX: usize = 20;
/// Lines that are searched for a guilty word.
const PLACE_LINES_MAX: usize = 10_000;

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Source {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Source { name: name.to_owned(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// Line and column of a fault, from 1, the column in characters: of the guilty word, else
    /// of the first word of the first line.
    fn place(&self, fault: &Fault) -> (usize, usize) {
        let line = |number: usize| self.lines.get(number.wrapping_sub(1)).map(String::as_str);
        let column = |text: &str, at: usize| text[..at].chars().count() + 1;
        let first = fault.span.first.max(1);
        // A word of several lines is where its first line is.
        let word = fault.word.as_deref().and_then(|word| word.lines().next()).map(str::trim).filter(|w| !w.is_empty());
        // Quotes may stand where they were taken away: the name before a `=` is found then.
        for word in word.into_iter().flat_map(|word| [Some(word), word.split_once('=').map(|(name, _)| name)]).flatten()
        {
            let last = fault.span.last.max(first).min(first.saturating_add(PLACE_LINES_MAX));
            for number in first..=last {
                let Some(text) = line(number) else { break };
                if let Some(at) = find_word(text, word) {
                    return (number, column(text, at));
                }
            }
        }
        let start = line(first).map_or(1, |text| column(text, text.len() - text.trim_start().len()));
        (first, start)
    }

    /// `Dockerfile:12:1: unknown instruction: RNU (did you mean RUN?)`
    pub(crate) fn sentence(&self, fault: &Fault) -> String {
        let (line, column) = self.place(fault);
        let mut out = format!("{}:{line}:{column}: {}", self.name, fault.message);
        if let Some(hint) = &fault.hint {
            out.push_str(&format!(" ({hint})"));
        }
        out
    }

    /// The lines around `span`, numbered, the guilty ones marked.
    pub(crate) fn excerpt(&self, span: Span) -> String {
        let first = span.first.max(1);
        let last = span.last.max(first).min(first + EXCERPT_LINES_MAX - 1).min(self.lines.len().max(first));
        let from = first.saturating_sub(EXCERPT_MARGIN_LINES).max(1);
        let to = (last + EXCERPT_MARGIN_LINES).min(self.lines.len());
        let rule = "-".repeat(20);
        let mut out = format!("{}:{}\n{rule}\n", self.name, first);
        for number in from..=to {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            let text = self.lines.get(number - 1).map_or("", String::as_str);
            out.push_str(format!("{number:>4} | {mark} {text}").trim_end());
            out.push('\n');
        }
        out.push_str(&rule);
        out
    }

    /// The fault as the build's error, with its place.
    pub(crate) fn error(&self, fault: &Fault) -> BuildError {
        BuildError::new(ErrorKind::Dockerfile, self.sentence(fault)).with_excerpt(self.excerpt(fault.span))
    }

    /// The same, as an error of another kind.
    pub(crate) fn fault_at(&self, kind: ErrorKind, fault: &Fault) -> BuildError {
        BuildError { kind, ..self.error(fault) }
    }
}

/// Where `word` is in a line: where it stands alone, else where it is part of something.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let mut any = None;
    for (at, _) in text.match_indices(word) {
        let before = text[..at].chars().next_back().is_some_and(joins);
        let after = text[at + word.len()..].chars().next().is_some_and(joins);
        if !before && !after {
            return Some(at);
        }
        any = any.or(Some(at));
    }
    any
}

/// The word among `known` that was probably meant by `word`.
pub(crate) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    // A third of the letters may be wrong, one at least: RNU is RUN, FORM is FROM.
    let bound = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|k| (distance(&word, &k.to_ascii_lowercase()), k))
        .filter(|(d, k)| *d <= bound && *d < k.len())
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Edits between two words, where swapping neighbours is one edit (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
