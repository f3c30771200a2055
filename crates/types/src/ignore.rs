//! `.dockerignore`: which files of a build context do not belong to the build.
//!
//! The rules are docker's, which are neither git's nor the shell's
//! (docs.docker.com/build/concepts/context, "dockerignore files"; where that is silent, what
//! docker and BuildKit do):
//!
//! - One pattern a line. A line whose first character is `#` is a comment; space around a
//!   pattern is cut off; a leading slash means nothing; `..`, `.` and double slashes are
//!   resolved first, so a trailing slash means nothing either.
//! - `*` and `?` stop at slashes, `**` does not, `[a-z]` and `\x` are as in Go's
//!   `filepath.Match`. A pattern is anchored at the context's root: `x` is not `a/x`.
//! - A pattern that matches a directory matches everything below it.
//! - `!pattern` takes back. The last pattern that matches a path (or one of its parents)
//!   decides.
//!
//! Both ends use it: the client that packs a context, and the engine when it copies.

use std::fmt;

/// Patterns of one ignore file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
    has_exceptions: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    exception: bool,
    text: String,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    /// No wildcard at all.
    Exact,
    /// `**` and plain text after it: docker compares the end of the path, so `**file` also
    /// takes `a/xfile`. The text may begin with a slash, as in `**/file`.
    Suffix(String),
    /// Everything else.
    Glob(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**` or `**/` before something: nothing, or any number of whole components.
    Deep,
    /// `**` at the end: anything.
    Rest,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Why an ignore file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidIgnore {
    /// The line, from 1.
    pub line: usize,
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for InvalidIgnore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: pattern {:?}: {}", self.line, self.pattern, self.why)
    }
}

impl std::error::Error for InvalidIgnore {}

impl Ignore {
    /// Read the text of an ignore file. Nothing is ignored by an empty one.
    pub fn parse(text: &str) -> Result<Ignore, InvalidIgnore> {
        let mut ignore = Ignore::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if line.is_empty() {
                continue;
            }
            let invalid = |why| InvalidIgnore { line: index + 1, pattern: line.to_owned(), why };
            if pattern.is_empty() {
                return Err(invalid("there is no pattern after the `!`"));
            }
            let cleaned = clean(pattern);
            let cleaned = match cleaned.strip_prefix('/') {
                Some(rest) if !rest.is_empty() => rest.to_owned(),
                _ => cleaned,
            };
            ignore.has_exceptions |= exception;
            ignore.patterns.push(Pattern::compile(exception, cleaned).map_err(invalid)?);
        }
        Ok(ignore)
    }

    /// Patterns as they are, one each, without what a file has around them (comments, space).
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Ignore, InvalidIgnore> {
        let mut ignore = Ignore::default();
        for (index, text) in patterns.into_iter().enumerate() {
            let (exception, pattern) = match text.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, text),
            };
            let invalid = |why| InvalidIgnore { line: index + 1, pattern: text.to_owned(), why };
            if pattern.is_empty() {
                return Err(invalid("there is no pattern"));
            }
            let cleaned = clean(pattern);
            let cleaned = match cleaned.strip_prefix('/') {
                Some(rest) if !rest.is_empty() => rest.to_owned(),
                _ => cleaned,
            };
            ignore.has_exceptions |= exception;
            ignore.patterns.push(Pattern::compile(exception, cleaned).map_err(invalid)?);
        }
        Ok(ignore)
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether some pattern takes others back (`!`).
    pub fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }

    /// Whether the file or directory at `path` is ignored, by itself or with a parent.
    /// `path` is relative to the context's root, `/` between components, none at the ends.
    pub fn matches(&self, path: &str) -> bool {
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.exception != ignored {
                continue;
            }
            if pattern.matches(path) || parents(path).any(|parent| pattern.matches(parent)) {
                ignored = !pattern.exception;
            }
        }
        ignored
    }

    /// Whether a walk has to go into the directory `dir`: it is not ignored, or some `!`
    /// pattern may take back something below it. Errs on the side of going in.
    pub fn may_include_below(&self, dir: &str) -> bool {
        !self.matches(dir) || self.patterns.iter().any(|p| p.exception && p.may_match_below(dir))
    }
}

impl Ignore {
    /// Whether some pattern may match something below the directory `dir`. Errs on the side
    /// of saying so.
    pub fn may_match_below(&self, dir: &str) -> bool {
        self.patterns.iter().any(|p| p.may_match_below(dir))
    }
}

/// The proper parents of a path, nearest the root first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).filter(|parent| !parent.is_empty())
}

/// Go's `path.Clean`: the shortest path that names the same thing.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut out: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if out.last().is_some_and(|last| *last != "..") => {
                out.pop();
            }
            ".." if rooted => {}
            part => out.push(part),
        }
    }
    let joined = out.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

impl Pattern {
    fn compile(exception: bool, text: String) -> Result<Pattern, &'static str> {
        let tokens = tokens(&text)?;
        let literal = |tokens: &[Token]| -> Option<String> {
            tokens.iter().map(|t| if let Token::Char(c) = t { Some(*c) } else { None }).collect()
        };
        let how = match tokens.as_slice() {
            // An escape makes it a glob in docker too, but a glob of plain characters is an
            // exact comparison with the escapes taken away.
            all if !text.contains('\\') && literal(all).is_some() => How::Exact,
            [Token::Rest] => How::Suffix(String::new()),
            [Token::Deep, rest @ ..] if !text.contains('\\') && literal(rest).is_some() => {
                How::Suffix(text["**".len()..].to_owned())
            }
            _ => How::Glob(tokens),
        };
        Ok(Pattern { exception, text, how })
    }

    fn matches(&self, path: &str) -> bool {
        match &self.how {
            How::Exact => path == self.text,
            How::Suffix(suffix) => path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path),
            How::Glob(tokens) => glob(tokens, path),
        }
    }

    fn may_match_below(&self, dir: &str) -> bool {
        let mut pattern = self.text.split('/');
        for component in dir.split('/') {
            match pattern.next() {
                // The pattern names a parent of `dir`; what it took back is decided by
                // `matches` on the way down.
                None => return true,
                Some(p) if p.contains(['*', '?', '[', '\\']) => return true,
                Some(p) if p != component => return false,
                Some(_) => {}
            }
        }
        true
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, &'static str> {
    let mut out = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                }
                if chars.peek().is_some() { Token::Deep } else { Token::Rest }
            }
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Char(chars.next().ok_or("it ends in a backslash that escapes nothing")?),
            '[' => class(&mut chars)?,
            c => Token::Char(c),
        });
    }
    Ok(out)
}

/// What follows `[`, as Go's `filepath.Match` reads it.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "a `[` has no `]`";
    fn one(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
        match chars.next() {
            Some('-' | ']') => Err("a `[…]` has a range without an end, or nothing in it"),
            Some('\\') => chars.next().ok_or(OPEN),
            c => c.ok_or(OPEN),
        }
    }
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = one(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { one(chars)? } else { low };
        ranges.push((low, high));
    }
    Ok(Token::Class { negated, ranges })
}

/// Run the tokens over the path as a set of states, so that no pattern can make it slow:
/// the work is at most pattern length times path length.
fn glob(tokens: &[Token], path: &str) -> bool {
    // States are "the next token to match"; entering one that may match nothing enters the
    // one after it too.
    fn enter(states: &mut [bool], tokens: &[Token], mut at: usize) {
        loop {
            states[at] = true;
            match tokens.get(at) {
                Some(Token::Star | Token::Rest | Token::Deep) => at += 1,
                _ => return,
            }
        }
    }
    let mut now = vec![false; tokens.len() + 1];
    let mut next = now.clone();
    enter(&mut now, tokens, 0);
    for c in path.chars() {
        next.fill(false);
        for (at, token) in tokens.iter().enumerate() {
            if !now[at] {
                continue;
            }
            match token {
                Token::Char(want) if *want == c => enter(&mut next, tokens, at + 1),
                Token::Any if c != '/' => enter(&mut next, tokens, at + 1),
                Token::Star if c != '/' => enter(&mut next, tokens, at),
                Token::Rest => enter(&mut next, tokens, at),
                Token::Deep => {
                    // Inside a component: stay, without matching nothing from here.
                    next[at] = true;
                    if c == '/' {
                        enter(&mut next, tokens, at + 1);
                    }
                }
                Token::Class { negated, ranges }
                    if ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated =>
                {
                    enter(&mut next, tokens, at + 1);
                }
                _ => {}
            }
        }
        std::mem::swap(&mut now, &mut next);
        if now.iter().all(|s| !s) {
            return false;
        }
    }
    now[tokens.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ignored(patterns: &str, path: &str) -> bool {
        Ignore::parse(patterns).unwrap().matches(path)
    }

    #[test]
    fn one_pattern() {
        let yes = true;
        let no = false;
        for (pattern, path, want) in [
            // plain names: anchored, and with all that is below
            ("a", "a", yes),
            ("a", "a/b/c", yes),
            ("a", "b/a", no),
            ("a", "ab", no),
            ("a/", "a/b", yes),
            ("/a", "a", yes),
            ("./a", "a", yes),
            ("a//b/../c", "a/c", yes),
            ("../a", "a", no),
            (".", "a", no),
            ("/", "a", no),
            // stars
            ("*", "a", yes),
            ("*", "a/b", yes),
            ("*.go", "x.go", yes),
            ("*.go", "a/x.go", no),
            ("*/*.go", "a/x.go", yes),
            ("*/b", "a/b/c", yes),
            ("a*", "abc/d", yes),
            ("*c", "abc", yes),
            ("a*/b", "abc/b", yes),
            ("a*/b", "a/c/b", no),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", yes),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", no),
            (".*", ".git", yes),
            (".*", "git", no),
            ("a?c", "abc", yes),
            ("a?c", "a/c", no),
            ("a?c", "ac", no),
            ("a?b", "a☺b", yes),
            // double stars
            ("**", "a/b", yes),
            ("**/", "a", yes),
            ("**/**", "a/b", yes),
            ("a/**", "a/b/c", yes),
            ("a/**", "a", no),
            ("a**", "abc/d", yes),
            ("**/a", "a", yes),
            ("**/a", "x/y/a", yes),
            ("**/a", "x/y/a/z", yes),
            ("**/a", "x/ya", no),
            ("**a", "x/ya", yes),
            ("**/*.txt", "a/b/c.txt", yes),
            ("**/*.txt", "c.txt", yes),
            ("**/a*txt", "x/a.txt", yes),
            ("**/**/*.txt", "d/e/f.txt", yes),
            ("**/**/*.txt2", "d/e/f.txt", no),
            ("a**/*.txt", "a/d/d/f.txt", yes),
            ("a/*.txt", "a/d/f.txt", no),
            ("a/*.txt**", "a/f.txt", yes),
            ("**/d2/*", "d/d2/f", yes),
            ("**/d2/**", "d/d2/d3/f", yes),
            ("a/**/b", "a/b", yes),
            ("a/**/b", "a/x/y/b", yes),
            ("a/**/b", "a/xb", no),
            ("**/.foo", "bar.foo", no),
            ("**/foo/bar", "d/e/foo/bar", yes),
            // classes and escapes
            ("a[b-d]e", "ace", yes),
            ("a[b-d]e", "aae", no),
            ("a[^b-d]e", "aze", yes),
            ("[x\\-]", "-", yes),
            ("[\\]a]", "]", yes),
            ("a\\*b", "a*b", yes),
            ("a\\*b", "axb", no),
            ("a\\\\", "a\\", yes),
            // characters that mean something only in regular expressions
            ("a.|)$(}+{bc", "a.|)$(}+{bc", yes),
            ("abc.def", "abcZdef", no),
            ("  a  ", "a", yes),
            ("#a", "#a", no),
            (" #a", "#a", yes),
        ] {
            assert_eq!(ignored(pattern, path), want, "pattern {pattern:?}, path {path:?}");
        }
    }

    #[test]
    fn the_last_match_decides() {
        for (patterns, path, want) in [
            ("docs\n!docs/README.md", "docs/README.md", false),
            ("docs\n!docs/README.md", "docs/x", true),
            ("docs/*\n!docs/README.md", "docs/README.md", false),
            ("!a.go\n*.go", "a.go", true),
            ("*.go\n!a.go", "a.go", false),
            ("**\n!util/web", "util/web/foo", false),
            ("**\n!util/web\nutil/web/foo", "util/web/foo", true),
            ("*\n!src\n!Dockerfile\nsrc/*.tmp", "src/a.tmp", true),
            ("*\n!src\n!Dockerfile\nsrc/*.tmp", "src/a.c", false),
            ("*\n! src", "src/a.c", false),
            ("*\n!/src", "src/a.c", false),
            ("\u{feff}# list\r\n\r\n*.log\r\n!keep.log\r\n", "keep.log", false),
            ("\u{feff}# list\r\n\r\n*.log\r\n!keep.log\r\n", "a.log", true),
        ] {
            assert_eq!(ignored(patterns, path), want, "patterns {patterns:?}, path {path:?}");
        }
    }

    #[test]
    fn pruning() {
        let below = |patterns: &str, dir: &str| Ignore::parse(patterns).unwrap().may_include_below(dir);
        assert!(!below("node_modules", "node_modules"));
        assert!(!below("node_modules\n!src/x", "node_modules"));
        assert!(below("node_modules\n!node_modules/keep/x", "node_modules"));
        assert!(below("node_modules\n!node_modules/keep/x", "node_modules/keep"));
        assert!(!below("node_modules\n!node_modules/keep/x", "node_modules/other"));
        assert!(below("*\n!**/*.go", "anything/at/all"));
        assert!(below("a", "b"));
    }

    #[test]
    fn refusals() {
        for bad in ["!", "[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[^bc", "a[", "\\", "x\n! "] {
            assert!(Ignore::parse(bad).is_err(), "{bad:?}");
        }
        let error = Ignore::parse("ok\n[").unwrap_err();
        assert_eq!(error.to_string(), r#"line 2: pattern "[": a `[` has no `]`"#);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-!#*?\\[\\]\\\\/.a\n ]{0,40}", path in "[-*./a]{0,20}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                let _ = ignore.matches(&path);
                let _ = ignore.may_include_below(&path);
            }
        }

        #[test]
        fn below_an_ignored_directory_everything_is(dir in "[a-c/]{1,8}", patterns in "[a-c*/\n]{0,20}") {
            let ignore = Ignore::parse(&patterns).unwrap();
            let dir = dir.trim_matches('/');
            if !dir.is_empty() && ignore.matches(dir) {
                let child = format!("{dir}/x");
                prop_assert!(ignore.matches(&child));
                prop_assert!(!ignore.may_include_below(dir));
            }
        }
    }
}
