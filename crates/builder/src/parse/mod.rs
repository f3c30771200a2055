//! A Dockerfile's text into instructions as they are written: keyword, flags, the rest of
//! the line, heredocs. What they mean is `instruct`'s business.
//!
//! The grammar is the Dockerfile reference's ("Format", "Parser directives",
//! "Here-documents") with BuildKit's habits where that is silent: comment lines inside a
//! continued line vanish, empty ones vanish with a warning, a continuation character counts
//! only at the end of a line and not after another one.

mod heredoc;
mod words;

use portolan_types::limits;

use crate::error::{Fault, Span};
use crate::lint::{Finding, Rule};

pub(crate) use heredoc::{Heredoc, heredoc_word};
pub(crate) use words::{json_strings, words};

/// Comment lines that are kept for the instruction below them.
const COMMENTS_MAX: usize = 1_000;

/// A parsed Dockerfile.
#[derive(Debug)]
pub(crate) struct Dockerfile {
    /// `\` or, by `# escape=`, a backtick.
    pub(crate) escape: char,
    pub(crate) nodes: Vec<Node>,
    /// What is allowed and probably not meant, as far as it shows here.
    pub(crate) findings: Vec<Finding>,
    /// The value of `# check=`, and where it is.
    pub(crate) checks: Option<(String, Span)>,
}

/// One instruction as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The keyword, in the file's own spelling.
    pub(crate) keyword: String,
    /// `--name=value` words before the arguments, quotes resolved.
    pub(crate) flags: Vec<String>,
    /// Everything after the flags, trimmed.
    pub(crate) rest: String,
    /// The whole line, continuations joined.
    pub(crate) text: String,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The comment lines right above it, without `#`.
    pub(crate) comments: Vec<String>,
    pub(crate) span: Span,
}

/// `# key=value` lines at the top of the file.
#[derive(Default)]
struct Directives {
    over: bool,
    escape: Option<char>,
    syntax: bool,
    check: Option<(String, Span)>,
}

/// Parse a whole file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Dockerfile, Fault> {
    let at = |line| Span { first: line, last: line };
    if bytes.len() > limits::DOCKERFILE_BYTES_MAX {
        let max = limits::DOCKERFILE_BYTES_MAX;
        return Err(Fault::new(at(1), format!("the file is larger than {max} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Fault::new(at(line), "the file is not UTF-8 text")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Fault::new(at(1), "the file is empty").hint("a Dockerfile begins with FROM"));
    }
    Parser { lines: text.split_inclusive('\n').collect(), next: 0, directives: Directives::default() }.run()
}

/// Parse the single instruction of an `ONBUILD` trigger; its place is the `FROM` that pulled
/// it in.
pub(crate) fn parse_trigger(text: &str, escape: char, span: Span) -> Result<Node, Fault> {
    let directives = Directives { over: true, escape: Some(escape), ..Directives::default() };
    let parser = Parser { lines: text.split_inclusive('\n').collect(), next: 0, directives };
    let place = |fault: Fault| Fault { span, ..fault };
    let mut file = parser.run().map_err(place)?;
    match (file.nodes.pop(), file.nodes.pop()) {
        (Some(node), None) => Ok(Node { span, ..node }),
        _ => Err(Fault::new(span, format!("the ONBUILD trigger `{}` is not one instruction", text.trim()))),
    }
}

struct Parser<'a> {
    lines: Vec<&'a str>,
    next: usize,
    directives: Directives,
}

impl<'a> Parser<'a> {
    fn line(&mut self) -> Option<&'a str> {
        let line = self.lines.get(self.next).copied();
        self.next += usize::from(line.is_some());
        line
    }

    fn run(mut self) -> Result<Dockerfile, Fault> {
        let mut nodes = Vec::new();
        let mut findings = Vec::new();
        let mut comments: Vec<String> = Vec::new();
        while let Some(raw) = self.line() {
            let first = self.next;
            self.directives.read(raw, first)?;
            let line = trim_newline(raw).trim_start();
            if let Some(comment) = line.strip_prefix('#') {
                // Only what stands right above an instruction is asked for.
                if comments.len() >= COMMENTS_MAX {
                    comments.clear();
                }
                comments.push(comment.trim().to_owned());
                continue;
            }
            if line.is_empty() {
                comments.clear();
                continue;
            }
            let escape = self.directives.escape();
            let (mut joined, mut continued) = split_continuation(line, escape);
            let mut text = joined.to_owned();
            let mut empty_line = false;
            while continued {
                let Some(raw) = self.line() else { break };
                let line = trim_newline(raw);
                if line.trim_start().starts_with('#') {
                    continue;
                }
                if line.trim_start().is_empty() {
                    empty_line = true;
                    continue;
                }
                (joined, continued) = split_continuation(line, escape);
                text.push_str(joined);
            }
            if text.trim().is_empty() {
                continue;
            }
            let mut span = Span { first, last: self.next };
            if empty_line {
                // Told of the line where the instruction ends, as docker does.
                let place = Span { first: span.last, ..span };
                findings.push(Finding::new(Rule::NoEmptyContinuation, place, "Empty continuation line"));
            }
            let mut node = Node::split(&text, span)?;
            if node.takes_heredocs() && text.contains("<<") {
                self.heredocs(&mut node, escape)?;
                span.last = self.next;
            }
            node.span = span;
            node.comments = std::mem::take(&mut comments);
            nodes.push(node);
        }
        let (escape, checks) = (self.directives.escape(), self.directives.check);
        Ok(Dockerfile { escape, nodes, findings, checks })
    }

    fn heredocs(&mut self, node: &mut Node, escape: char) -> Result<(), Fault> {
        for mut heredoc in heredoc::find(&node.text, escape) {
            loop {
                let Some(raw) = self.line() else {
                    let name = &heredoc.name;
                    return Err(Fault::new(node.span, format!("the here-document `{name}` has no end"))
                        .at(name)
                        .hint(format!("write {name} on a line of its own after the text")));
                };
                let line = trim_newline(raw);
                let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
                if line == heredoc.name {
                    break;
                }
                heredoc.content.push_str(raw);
            }
            node.heredocs.push(heredoc);
        }
        Ok(())
    }
}

impl Node {
    fn split(line: &str, span: Span) -> Result<Node, Fault> {
        let line = line.trim();
        let blank = |c: char| matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ');
        let (keyword, rest) = match line.split_once(blank) {
            Some((keyword, rest)) => (keyword, rest.trim_start_matches(blank)),
            None => (line, ""),
        };
        let (flags, rest) = words::flags(rest);
        Ok(Node {
            keyword: keyword.to_owned(),
            flags,
            rest: rest.trim().to_owned(),
            text: line.to_owned(),
            heredocs: Vec::new(),
            comments: Vec::new(),
            span,
        })
    }

    /// The instruction behind `ONBUILD`, as a node of its own.
    pub(crate) fn inner(&self) -> Result<Node, Fault> {
        Node::split(&self.rest, self.span).map(|inner| Node { heredocs: self.heredocs.clone(), ..inner })
    }

    fn takes_heredocs(&self) -> bool {
        let keyword = self.keyword.to_ascii_uppercase();
        if keyword == "ONBUILD" {
            // One level: ONBUILD ONBUILD is refused later.
            let inner = Node::split(&self.rest, self.span);
            return inner.is_ok_and(|i| !i.keyword.eq_ignore_ascii_case("ONBUILD") && i.takes_heredocs());
        }
        matches!(keyword.as_str(), "ADD" | "COPY" | "RUN") && json_strings(&self.rest).is_none()
    }
}

impl Directives {
    fn escape(&self) -> char {
        self.escape.unwrap_or('\\')
    }

    fn read(&mut self, line: &str, number: usize) -> Result<(), Fault> {
        if self.over {
            return Ok(());
        }
        let Some((key, value)) = directive(line) else {
            self.over = true;
            return Ok(());
        };
        let span = Span { first: number, last: number };
        let seen = match key.as_str() {
            "escape" => self.escape.is_some(),
            "syntax" => std::mem::replace(&mut self.syntax, true),
            "check" => self.check.replace((value.to_owned(), span)).is_some(),
            _ => return Ok(()),
        };
        if seen {
            return Err(Fault::new(span, format!("only one {key} parser directive can be used")));
        }
        match (key.as_str(), value) {
            ("escape", "\\") => self.escape = Some('\\'),
            ("escape", "`") => self.escape = Some('`'),
            ("escape", other) => {
                return Err(Fault::new(span, format!("invalid escape character {other:?}"))
                    .at(other)
                    .hint("it can be a backslash or a backtick"));
            }
            ("syntax", image) if !is_builtin_syntax(image) => {
                return Err(foreign_syntax(span, image));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The fault of asking for a frontend that is not the built-in one.
pub(crate) fn foreign_syntax(span: Span, image: &str) -> Fault {
    Fault::new(span, format!("the syntax {image:?} is not available here")).at(image).hint(
        "the current docker/dockerfile syntax is built in and other frontends are not run: \
         remove the line or write docker/dockerfile:1",
    )
}

/// `# key = value`, with the key in lower case.
fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = trim_newline(line).strip_prefix('#')?.trim_start().split_once('=')?;
    let (key, value) = (key.trim_end(), value.trim());
    let is_word = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_word && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}

/// Whether a `# syntax=` image is one whose language this engine speaks itself: any version
/// of docker's frontend, from any mirror.
pub(crate) fn is_builtin_syntax(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    ["docker/dockerfile", "docker/dockerfile-upstream"]
        .iter()
        .any(|known| name == *known || name.strip_suffix(known).is_some_and(|host| host.ends_with('/')))
}

fn trim_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The line without a continuation character at its end, and whether there was one.
fn split_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests;
