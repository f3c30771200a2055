//! Wildcards in the sources of `COPY` and `ADD`: Go's `filepath.Match`, component by
//! component; `**` is the same as `*`.

/// Whether a component has a wildcard in it.
pub(super) fn has_wildcard(component: &str) -> bool {
    let mut chars = component.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// A wrong pattern: a class that does not end, a backslash at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadPattern;

enum Token {
    Char(char),
    Any,
    Star,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A component with wildcards, ready to match.
pub(super) struct Glob(Vec<Token>);

impl Glob {
    pub(super) fn parse(pattern: &str) -> Result<Glob, BadPattern> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Char(chars.next().ok_or(BadPattern)?),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next() {
                        Some('\\') => chars.next().ok_or(BadPattern),
                        Some('-' | ']') | None => Err(BadPattern),
                        Some(c) => Ok(c),
                    };
                    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                        let low = one(&mut chars)?;
                        let high = if chars.next_if_eq(&'-').is_some() { one(&mut chars)? } else { low };
                        ranges.push((low, high));
                    }
                    Token::Class { negated, ranges }
                }
                c => Token::Char(c),
            });
        }
        Ok(Glob(tokens))
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // The usual two-pointer walk: on a mismatch only the last star takes one more.
        let (mut t, mut n) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        loop {
            match (self.0.get(t), name.get(n)) {
                (None, None) => return true,
                (Some(Token::Star), _) => {
                    back = Some((t, n));
                    t += 1;
                    continue;
                }
                (Some(token), Some(c)) if token.takes(*c) => {
                    t += 1;
                    n += 1;
                    continue;
                }
                _ => {}
            }
            match &mut back {
                Some((star, from)) if *from < name.len() => {
                    *from += 1;
                    t = *star + 1;
                    n = *from;
                }
                _ => return false,
            }
        }
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Token::Char(own) => *own == c,
            Token::Any => true,
            Token::Star => false,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_gos_filepath_match() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("[a-ζ]*", "α", true),
            ("[\\-x]", "-", true),
            ("*x", "xxx", true),
            ("arr[[]0].txt", "arr[0].txt", true),
            ("", "", true),
        ] {
            assert_eq!(Glob::parse(pattern).map(|glob| glob.matches(name)), Ok(expected), "{pattern} {name}");
        }
        for bad in ["[", "[^", "[a", "[]a]", "[-]", "[x-]", "[a-b-c]", "a\\"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
        assert!(has_wildcard("a[b") && !has_wildcard("a\\*b"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(pattern in ".{0,40}", name in ".{0,40}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                glob.matches(&name);
            }
        }
    }
}
