//! Text of strangers on somebody's terminal.
//!
//! What a build step prints can hold any sequence that a terminal obeys: move the cursor over
//! what was said before, change the window's title, ask the terminal to answer for the person
//! at it. Of all that only colours are let through.

use std::borrow::Cow;

/// The longest colour sequence that is taken for one.
const COLOUR_BYTES_MAX: usize = 32;

/// One line of text without what would do more to a terminal than show it. Escape sequences
/// and control characters are left out, except for tabs and, with `colours`, sequences that set
/// colours; after those the line ends in a reset. Marks that turn the direction of text, by
/// which a line can be made to read as another, are left out, too.
///
/// A line's end is a control character like others: give lines.
pub fn harmless(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut coloured = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '\u{1b}' | '\u{80}'..='\u{9f}' => {
                let after = sequence(c, after);
                let whole = &rest[..rest.len() - after.len()];
                if colours && is_colour(whole) {
                    out.push_str(whole);
                    coloured = true;
                }
                after
            }
            c => {
                if !is_harmful(c) {
                    out.push(c);
                }
                after
            }
        };
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    Cow::Owned(out)
}

fn is_harmful(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
}

/// `ESC [ numbers m`
fn is_colour(sequence: &str) -> bool {
    let numbers = sequence.strip_prefix("\x1b[").and_then(|s| s.strip_suffix('m'));
    numbers
        .is_some_and(|n| n.len() <= COLOUR_BYTES_MAX && n.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':'))
}

/// What follows an escape sequence that begins with `first` (ECMA-48, 5.3 to 5.6).
fn sequence(first: char, after: &str) -> &str {
    let (kind, body) = match first {
        '\u{1b}' => match after.chars().next() {
            Some(c) => (c, &after[c.len_utf8()..]),
            None => return after,
        },
        // The same introducers as one character.
        c => (char::from_u32(c as u32 - 0x40).unwrap_or('@'), after),
    };
    match kind {
        // Parameters, intermediates, one final character.
        '[' => {
            let end = body.find(|c: char| !matches!(c, ' '..='?')).unwrap_or(body.len());
            let mut chars = body[end..].chars();
            match chars.next() {
                // A stray control character breaks it off, and is looked at by itself.
                Some(c) if c.is_control() => &body[end..],
                _ => chars.as_str(),
            }
        }
        // Strings: up to BEL or the string terminator.
        ']' | 'P' | 'X' | '^' | '_' => {
            let end = body.find(['\u{7}', '\u{9c}', '\u{1b}']);
            match end {
                None => "",
                Some(at) => match body[at..].strip_prefix("\x1b\\") {
                    Some(rest) => rest,
                    None if body[at..].starts_with('\u{1b}') => &body[at..],
                    None => {
                        let mut chars = body[at..].chars();
                        chars.next();
                        chars.as_str()
                    }
                },
            }
        }
        // Intermediates and a final character, such as the choice of a character set.
        ' '..='/' => {
            let end = body.find(|c: char| !matches!(c, ' '..='/')).unwrap_or(body.len());
            let mut chars = body[end..].chars();
            match chars.next() {
                Some(c) if c.is_control() => &body[end..],
                _ => chars.as_str(),
            }
        }
        _ if first != '\u{1b}' => after,
        c if c.is_control() => after,
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_colours_get_through() {
        for (text, plain, coloured) in [
            ("a\tb ü 日本", "a\tb ü 日本", "a\tb ü 日本"),
            ("\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m\x1b[0m"),
            ("\x1b[38;2;1;2;3mrgb", "rgb", "\x1b[38;2;1;2;3mrgb\x1b[0m"),
            ("a\x1b[2J\x1b[Hb", "ab", "ab"),
            ("\x1b]0;title\x07x", "x", "x"),
            ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link", "link"),
            ("\x1b]52;c;aGk=", "", ""),
            ("\x1bP+q544e\x1b\\x", "x", "x"),
            ("\u{9b}2Jx", "x", "x"),
            ("\u{9b}31mx", "x", "x"),
            ("\x1b(Bx\x1b7y\x1bcz", "xyz", "xyz"),
            ("a\x08\x08b\x07\r", "ab", "ab"),
            ("a\u{202e}b\u{2066}c", "abc", "abc"),
            ("\x1b[\x1b[2Jx", "x", "x"),
            ("\x1b", "", ""),
            ("\x1b[", "", ""),
            ("\x1b[?25lx", "x", "x"),
            ("\x1b]0;a\x1b[31mx", "x", "\x1b[31mx\x1b[0m"),
        ] {
            assert_eq!(harmless(text, false), plain, "{text:?}");
            assert_eq!(harmless(text, true), coloured, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_but_colours_whatever_comes(text in "([\\x1b\\x9b\\[\\];:m?0-9a-zA-Z\\\\\\x07\\x08\\r ]|\\PC|\\pC){0,40}") {
            prop_assert!(!harmless(&text, false).chars().any(is_harmful));
            let coloured = harmless(&text, true);
            // Every escape that is left begins a colour.
            for (at, _) in coloured.match_indices('\x1b') {
                let end = coloured[at..].find('m').map(|n| at + n + 1);
                prop_assert!(end.is_some_and(|end| is_colour(&coloured[at..end])), "{:?}", coloured);
            }
            prop_assert!(!coloured.chars().any(|c| is_harmful(c) && c != '\x1b'));
            // Harmless text stays as it is.
            let again = harmless(&coloured, false).into_owned();
            prop_assert_eq!(harmless(&again, false), again.as_str());
        }
    }
}
