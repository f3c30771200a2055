//! Variables, quotes and escapes in the words of a Dockerfile, as the reference's
//! "Environment replacement" has them and BuildKit's shell lexer does them.

mod pattern;

use std::fmt;

use pattern::Pattern;

/// Looks variables up. `None` is unset, which is not the same as empty.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How deep `${a:-${b:-…}}` may nest.
const DEPTH_MAX: usize = 64;
/// How large one expanded word may become, bytes.
const EXPANDED_BYTES_MAX: usize = 1024 * 1024;

/// The rules for one kind of text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexer {
    /// `\` or a backtick.
    pub(crate) escape: char,
    /// Keep quotes in the result.
    pub(crate) raw_quotes: bool,
    /// Keep escape characters in the result.
    pub(crate) raw_escapes: bool,
    /// Treat quotes as plain characters (here-documents).
    pub(crate) plain_quotes: bool,
    /// Leave variables that are unset as they are written.
    pub(crate) keep_unset: bool,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpandError(pub(crate) String);

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fail<T>(why: impl Into<String>) -> Result<T, ExpandError> {
    Err(ExpandError(why.into()))
}

impl Lexer {
    pub(crate) fn new(escape: char) -> Lexer {
        Lexer { escape, raw_quotes: false, raw_escapes: false, plain_quotes: false, keep_unset: false }
    }

    /// Expand to one word.
    pub(crate) fn word(&self, text: &str, lookup: Lookup<'_>) -> Result<String, ExpandError> {
        self.run(text, lookup).map(|(word, _)| word)
    }

    /// Expand to one word; names of variables that are used as they are (not with a default
    /// or a pattern) and are unset are added to `unset`.
    pub(crate) fn word_noting(
        &self,
        text: &str,
        lookup: Lookup<'_>,
        unset: &mut Vec<String>,
    ) -> Result<String, ExpandError> {
        let chars: Vec<char> = text.chars().collect();
        let mut run = Run { lexer: *self, chars: &chars, at: 0, lookup, depth: 0, unset: Vec::new() };
        let result = run.until(None, self.raw_escapes).map(|(word, _)| word);
        unset.append(&mut run.unset);
        result
    }

    /// Expand to words: cut at white space outside quotes, also at that which variables
    /// bring along.
    pub(crate) fn words(&self, text: &str, lookup: Lookup<'_>) -> Result<Vec<String>, ExpandError> {
        self.run(text, lookup).map(|(_, words)| words)
    }

    fn run(&self, text: &str, lookup: Lookup<'_>) -> Result<(String, Vec<String>), ExpandError> {
        let chars: Vec<char> = text.chars().collect();
        Run { lexer: *self, chars: &chars, at: 0, lookup, depth: 0, unset: Vec::new() }.until(None, self.raw_escapes)
    }
}

struct Run<'a> {
    lexer: Lexer,
    chars: &'a [char],
    at: usize,
    lookup: Lookup<'a>,
    depth: usize,
    /// Variables that were used as they are and have no value.
    unset: Vec<String>,
}

/// The words of a text in the making.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
    in_word: bool,
}

impl Words {
    /// A character of the text itself.
    fn char(&mut self, c: char) {
        if c.is_whitespace() {
            self.cut();
        } else {
            self.raw(c.encode_utf8(&mut [0; 4]));
        }
    }

    /// Text that is not cut: quoted or escaped.
    fn raw(&mut self, text: &str) {
        self.word.push_str(text);
        self.in_word = true;
    }

    fn cut(&mut self) {
        if std::mem::take(&mut self.in_word) {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.cut();
        self.done
    }
}

impl Run<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn eat(&mut self, c: char) -> bool {
        let is = self.peek() == Some(c);
        self.at += usize::from(is);
        is
    }

    /// Up to and with `stop`; to the end without one.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), ExpandError> {
        let before = std::mem::replace(&mut self.lexer.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.lexer.raw_escapes = before;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandError> {
        let mut result = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok((result, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.char(c));
                    result.push_str(&value);
                }
                '\'' | '"' if !self.lexer.plain_quotes => {
                    let text = if c == '\'' { self.single_quotes()? } else { self.double_quotes()? };
                    words.raw(&text);
                    result.push_str(&text);
                }
                c if c == self.lexer.escape => {
                    self.at += 1;
                    if self.lexer.raw_escapes {
                        words.raw(c.encode_utf8(&mut [0; 4]));
                        result.push(c);
                    }
                    // At the end it stands for nothing.
                    if let Some(c) = self.next() {
                        words.raw(c.encode_utf8(&mut [0; 4]));
                        result.push(c);
                    }
                }
                c => {
                    self.at += 1;
                    words.char(c);
                    result.push(c);
                }
            }
            if result.len() > EXPANDED_BYTES_MAX {
                return fail(format!("it expands to more than {EXPANDED_BYTES_MAX} bytes"));
            }
        }
        match stop {
            Some(stop) => fail(format!("unexpected end while looking for a matching `{stop}`")),
            None => Ok((result, words.finish())),
        }
    }

    fn single_quotes(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        let raw = self.lexer.raw_quotes;
        self.at += 1;
        out.extend(raw.then_some('\''));
        loop {
            match self.next() {
                None => return fail("a single quote has no matching one"),
                Some('\'') => {
                    out.extend(raw.then_some('\''));
                    return Ok(out);
                }
                Some(c) => out.push(c),
            }
        }
    }

    fn double_quotes(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        let raw = self.lexer.raw_quotes;
        self.at += 1;
        out.extend(raw.then_some('"'));
        loop {
            match self.peek() {
                None => return fail("a double quote has no matching one"),
                Some('"') => {
                    self.at += 1;
                    out.extend(raw.then_some('"'));
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) if c == self.lexer.escape => {
                    self.at += 1;
                    out.extend(self.lexer.raw_escapes.then_some(c));
                    match self.peek() {
                        None => {}
                        // Only these can be escaped; before others the escape character
                        // stands for itself.
                        Some(next) if next == '"' || next == '$' || next == c => {
                            self.at += 1;
                            out.push(next);
                        }
                        Some(_) => out.push(c),
                    }
                }
                Some(c) => {
                    self.at += 1;
                    out.push(c);
                }
            }
            if out.len() > EXPANDED_BYTES_MAX {
                return fail(format!("it expands to more than {EXPANDED_BYTES_MAX} bytes"));
            }
        }
    }

    /// `$x`, `${x…}`; a dollar before anything else stands for itself.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.at += 1;
        if !self.eat('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match (self.lookup)(&name) {
                Some(value) => value,
                None if self.lexer.keep_unset => format!("${name}"),
                None => {
                    self.unset.push(name);
                    String::new()
                }
            });
        }
        match self.peek() {
            None => return fail("a `${` has no `}`"),
            Some('{' | '}' | ':') => return fail("bad substitution: there is no variable name after `${`"),
            Some(_) => {}
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return fail(format!("substitutions nest deeper than {DEPTH_MAX}"));
        }
        let value = self.braces();
        self.depth -= 1;
        value
    }

    fn braces(&mut self) -> Result<String, ExpandError> {
        let name = self.name();
        let value = (self.lookup)(&name);
        let Some(mut modifier) = self.next() else { return fail("a `${` has no `}`") };
        let kept = |middle: String| Ok(format!("${{{name}{middle}}}"));
        if modifier == '}' {
            return match value {
                Some(value) => Ok(value),
                None if self.lexer.keep_unset => kept(String::new()),
                None => {
                    self.unset.push(name);
                    Ok(String::new())
                }
            };
        }
        if modifier == '/' {
            let all = self.eat('/');
            let pattern = self.until_closing('/')?;
            let replacement = self.until_closing('}')?;
            return match value {
                None if self.lexer.keep_unset => kept(format!("/{pattern}/{replacement}")),
                value => {
                    let pattern = Pattern::parse(&pattern)?;
                    pattern.replace(&value.unwrap_or_default(), &replacement, all)
                }
            };
        }
        // A colon makes an empty value count as an unset one.
        let colon = modifier == ':';
        if colon {
            match self.next() {
                Some(c) => modifier = c,
                None => return fail("a `${` has no `}`"),
            }
        }
        if !matches!(modifier, '-' | '+' | '?') && (colon || !matches!(modifier, '#' | '%')) {
            let colon = if colon { ":" } else { "" };
            return fail(format!("unsupported modifier `{colon}{modifier}` in `${{{name}…}}`"));
        }
        let raw = matches!(modifier, '#' | '%');
        let word = self.until(Some('}'), raw).map_err(|e| self.unclosed(e))?.0;
        if value.is_none() && self.lexer.keep_unset {
            let colon = if colon { ":" } else { "" };
            return kept(format!("{colon}{modifier}{word}"));
        }
        let given = value.as_ref().is_some_and(|v| !(colon && v.is_empty()));
        match modifier {
            '-' => Ok(if given { value.unwrap_or_default() } else { word }),
            '+' => Ok(if given { word } else { String::new() }),
            '?' if given => Ok(value.unwrap_or_default()),
            '?' => {
                let what = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                fail(format!("{name}: {}", if word.is_empty() { what } else { &word }))
            }
            end => {
                let value = value.unwrap_or_default();
                let (greedy, pattern) = match word.strip_prefix(end) {
                    Some(rest) => (true, rest),
                    None => (false, word.as_str()),
                };
                let pattern = Pattern::parse(pattern)?;
                if end == '#' { pattern.cut_front(&value, greedy) } else { pattern.cut_back(&value, greedy) }
            }
        }
    }

    fn until_closing(&mut self, stop: char) -> Result<String, ExpandError> {
        self.until(Some(stop), true).map(|(word, _)| word).map_err(|e| self.unclosed(e))
    }

    fn unclosed(&self, error: ExpandError) -> ExpandError {
        if self.peek().is_none() { ExpandError("a `${` has no `}`".to_owned()) } else { error }
    }

    /// A variable's name, a positional number or one special character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.at += 1;
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(c);
                self.at += 1;
            }
            _ => {
                while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.at += 1;
                }
            }
        }
        name
    }
}

#[cfg(test)]
mod tests;
