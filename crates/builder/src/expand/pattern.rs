//! The shell patterns of `${x#pattern}`, `${x%pattern}` and `${x/pattern/text}`.

use super::{ExpandError, fail};

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

    pub(super) fn cut_front(&self, value: &str, greedy: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        chars[self.front(&chars, greedy).unwrap_or(0)..].iter().collect()
    }

    pub(super) fn cut_back(&self, value: &str, greedy: bool) -> String {
        let reversed: Vec<char> = value.chars().rev().collect();
        let pattern = Pattern(self.0.iter().rev().copied().collect());
        let cut = pattern.front(&reversed, greedy).unwrap_or(0);
        reversed[cut..].iter().rev().collect()
    }

    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        while at < chars.len() {
            match self.front(&chars[at..], true) {
                Some(matched) if matched > 0 => {
                    out.push_str(replacement);
                    at += matched;
                    if !all {
                        break;
                    }
                }
                _ => {
                    out.push(chars[at]);
                    at += 1;
                }
            }
        }
        out.extend(&chars[at..]);
        out
    }
}
