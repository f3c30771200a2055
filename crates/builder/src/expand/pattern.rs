//! The shell patterns of `${x#pattern}`, `${x%pattern}` and `${x/pattern/text}`.

use super::{ExpandError, fail};

/// A pattern's length, in characters and stars.
const TOKENS_MAX: usize = 256;
/// How long a value may be that a pattern is tried on, and what replacing may make of it.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// `*`, `?`, plain characters.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Char(char),
    Any,
    Star,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Pattern, ExpandError> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(c),
                    Some(c) => return fail(format!("invalid escape `\\{c}` in a pattern")),
                    None => return fail("a pattern ends in a backslash"),
                },
                c => Token::Char(c),
            });
            if tokens.len() > TOKENS_MAX {
                return fail(format!("a pattern is longer than {TOKENS_MAX} characters"));
            }
        }
        Ok(Pattern(tokens))
    }

    /// How many characters from the front of `text` match: the most or the fewest.
    fn front(&self, text: &[char], greedy: bool) -> Option<usize> {
        // A set of states run over the text, so the work is bounded by the product of the
        // two lengths whatever the pattern.
        let tokens = &self.0;
        let close = |states: &mut Vec<bool>| {
            for at in 0..tokens.len() {
                if states[at] && tokens[at] == Token::Star {
                    states[at + 1] = true;
                }
            }
        };
        let mut states = vec![false; tokens.len() + 1];
        states[0] = true;
        close(&mut states);
        let mut found = states[tokens.len()].then_some(0);
        for (at, c) in text.iter().enumerate() {
            if found.is_some() && !greedy {
                break;
            }
            let mut next = vec![false; tokens.len() + 1];
            for (i, token) in tokens.iter().enumerate().filter(|(i, _)| states[*i]) {
                match token {
                    Token::Char(want) if want == c => next[i + 1] = true,
                    Token::Any => next[i + 1] = true,
                    Token::Star => next[i] = true,
                    Token::Char(_) => {}
                }
            }
            close(&mut next);
            states = next;
            if states[tokens.len()] {
                found = Some(at + 1);
            }
            if states.iter().all(|s| !s) {
                break;
            }
        }
        found
    }

    /// For every place in `text`, whether a match can begin there: one run from the end, so
    /// that looking for a place to replace is not a run for each.
    fn starts(&self, text: &[char]) -> Vec<bool> {
        let tokens = &self.0;
        let mut out = vec![false; text.len() + 1];
        // Whether what is left of the pattern matches something at the place.
        let mut after = vec![false; tokens.len() + 1];
        for at in (0..=text.len()).rev() {
            let mut now = vec![false; tokens.len() + 1];
            now[tokens.len()] = true;
            for i in (0..tokens.len()).rev() {
                now[i] = match tokens[i] {
                    Token::Star => now[i + 1] || after[i],
                    Token::Any => at < text.len() && after[i + 1],
                    Token::Char(c) => text.get(at) == Some(&c) && after[i + 1],
                };
            }
            out[at] = now[0];
            after = now;
        }
        out
    }

    pub(super) fn cut_front(&self, value: &str, greedy: bool) -> Result<String, ExpandError> {
        let chars = characters(value)?;
        Ok(chars[self.front(&chars, greedy).unwrap_or(0)..].iter().collect())
    }

    pub(super) fn cut_back(&self, value: &str, greedy: bool) -> Result<String, ExpandError> {
        let mut reversed = characters(value)?;
        reversed.reverse();
        let pattern = Pattern(self.0.iter().rev().copied().collect());
        let cut = pattern.front(&reversed, greedy).unwrap_or(0);
        Ok(reversed[cut..].iter().rev().collect())
    }

    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> Result<String, ExpandError> {
        let chars = characters(value)?;
        let starts = self.starts(&chars);
        let mut out = String::new();
        let mut at = 0;
        while at < chars.len() {
            let matched = if starts[at] { self.front(&chars[at..], true).unwrap_or(0) } else { 0 };
            if matched == 0 {
                out.push(chars[at]);
                at += 1;
                continue;
            }
            out.push_str(replacement);
            at += matched;
            if out.len() > VALUE_BYTES_MAX {
                return fail(format!("replacing makes more than {VALUE_BYTES_MAX} bytes"));
            }
            if !all {
                break;
            }
        }
        out.extend(&chars[at..]);
        Ok(out)
    }
}

fn characters(value: &str) -> Result<Vec<char>, ExpandError> {
    if value.len() > VALUE_BYTES_MAX {
        return fail(format!("a pattern is tried on more than {VALUE_BYTES_MAX} bytes"));
    }
    Ok(value.chars().collect())
}
