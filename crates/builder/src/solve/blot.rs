//! Keeping secrets out of the log.
//!
//! A step may print what it was trusted with. Its output comes in pieces cut anywhere, so
//! what may be the beginning of a secret is held back until it is clear.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;

use crate::exec::Stream;

/// What is written in a secret's place.
const MASK: &str = "***";
/// Lines of a secret of several lines that are shorter stay: blotting out every `}` hides
/// nothing and spoils the log.
const LINE_BYTES_MIN: usize = 6;
/// Values that are shorter are not looked for in base64.
const ENCODED_BYTES_MIN: usize = 8;
/// Patterns at most; a secret of very many lines is a file that only counts as a whole.
const PATTERNS_MAX: usize = 4_096;

/// Values that must not be seen.
#[derive(Clone, Default)]
pub(super) struct Blots {
    /// Longest first, so that a value inside another does not spoil it.
    patterns: Vec<Vec<u8>>,
    /// Whether a pattern begins with this byte.
    first: Vec<bool>,
}

impl Blots {
    /// Look for `values` as they stand, without the white space around them, line by line, and
    /// in base64.
    pub(super) fn new<'a>(values: impl Iterator<Item = &'a [u8]>) -> Blots {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        for value in values {
            let whole = value.trim_ascii();
            if whole.is_empty() {
                continue;
            }
            patterns.push(whole.to_vec());
            if whole.len() >= ENCODED_BYTES_MIN {
                // With and without the line's end that `echo` and editors leave.
                for text in [value, whole] {
                    patterns.push(STANDARD_NO_PAD.encode(text).into_bytes());
                    patterns.push(URL_SAFE_NO_PAD.encode(text).into_bytes());
                }
            }
            let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            patterns.extend(lines.filter(|line| line.len() >= LINE_BYTES_MIN).map(<[u8]>::to_vec));
        }
        patterns.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        patterns.dedup();
        patterns.truncate(PATTERNS_MAX);
        let mut first = vec![false; 256];
        for pattern in &patterns {
            first[usize::from(pattern[0])] = true;
        }
        Blots { patterns, first }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Move what is clear from `held` to `clean`, secrets blotted out. What may go on as a
    /// secret stays, unless it is the `last`.
    fn pass(&self, held: &mut Vec<u8>, clean: &mut Vec<u8>, last: bool) {
        let mut at = 0;
        while at < held.len() {
            let rest = &held[at..];
            if !self.first[usize::from(rest[0])] {
                let plain = rest.iter().position(|byte| self.first[usize::from(*byte)]).unwrap_or(rest.len());
                clean.extend_from_slice(&rest[..plain]);
                at += plain;
                continue;
            }
            // The longest comes first: while one may still become whole, no shorter one counts.
            let hit = self.patterns.iter().find(|p| rest.starts_with(p) || (!last && p.starts_with(rest)));
            match hit {
                Some(pattern) if rest.starts_with(pattern) => {
                    clean.extend_from_slice(MASK.as_bytes());
                    at += pattern.len();
                }
                Some(_) => break,
                None => {
                    clean.push(rest[0]);
                    at += 1;
                }
            }
        }
        held.drain(..at);
    }

    /// Whether one is in `text`.
    pub(super) fn are_in(&self, text: &str) -> bool {
        self.text(text) != text
    }

    /// A text without secrets.
    pub(super) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut clean = Vec::with_capacity(text.len());
        self.pass(&mut text.as_bytes().to_vec(), &mut clean, true);
        Cow::Owned(String::from_utf8_lossy(&clean).into_owned())
    }
}

/// Blots secrets out of one step's output.
pub(super) struct Blotter<'a> {
    blots: &'a Blots,
    /// What may be the beginning of a secret, of standard output and standard error.
    held: [Mutex<Vec<u8>>; 2],
}

impl Blotter<'_> {
    pub(super) fn new(blots: &Blots) -> Blotter<'_> {
        Blotter { blots, held: Default::default() }
    }

    fn held(&self, stream: Stream) -> &Mutex<Vec<u8>> {
        match stream {
            Stream::Stdout => &self.held[0],
            Stream::Stderr => &self.held[1],
        }
    }

    /// Take a piece; hand on what is clear now.
    pub(super) fn feed(&self, stream: Stream, bytes: &[u8], out: impl FnOnce(&[u8])) {
        if self.blots.is_empty() {
            return out(bytes);
        }
        let mut held = self.held(stream).lock();
        held.extend_from_slice(bytes);
        let mut clean = Vec::with_capacity(held.len());
        self.blots.pass(&mut held, &mut clean, false);
        if !clean.is_empty() {
            out(&clean);
        }
    }

    /// No more comes: what was held back is as clear as it gets.
    pub(super) fn finish(&self, out: impl Fn(Stream, &[u8])) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut held = std::mem::take(&mut *self.held(stream).lock());
            let mut clean = Vec::new();
            self.blots.pass(&mut held, &mut clean, true);
            if !clean.is_empty() {
                out(stream, &clean);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen of `text` when it comes in two pieces, for every cut; the same for all.
    fn seen(values: &[&str], text: &str) -> String {
        let blots = Blots::new(values.iter().map(|v| v.as_bytes()));
        let text = text.as_bytes();
        let mut all = None;
        for cut in 0..=text.len() {
            let blotter = Blotter::new(&blots);
            let seen = Mutex::new(Vec::new());
            let push = |bytes: &[u8]| seen.lock().extend_from_slice(bytes);
            blotter.feed(Stream::Stdout, &text[..cut], push);
            blotter.feed(Stream::Stdout, &text[cut..], push);
            blotter.finish(|_, bytes| push(bytes));
            let seen = String::from_utf8(seen.into_inner()).unwrap();
            assert_eq!(*all.get_or_insert(seen.clone()), seen, "cut at {cut}");
        }
        all.unwrap()
    }

    #[test]
    fn secrets_are_blotted_out_however_the_output_is_cut() {
        assert_eq!(seen(&["secret"], "a secret, a sec, secretsecret: s"), "a ***, a sec, ******: s");
        assert_eq!(seen(&[], "secret"), "secret");
    }

    #[test]
    fn the_longest_counts() {
        assert_eq!(seen(&["abc", "abcdef"], "abcdef abcde abc ab"), "*** ***de *** ab");
        // A beginning of a long one that holds a short one.
        assert_eq!(seen(&["bcd", "abcdx"], "abcdy abcd"), "a***y a***");
    }

    #[test]
    fn a_file_of_several_lines_is_found_line_by_line() {
        let key = "-----BEGIN KEY-----\nb3BlbnNzaC1rZXk\n}\n-----END KEY-----\n";
        assert_eq!(seen(&[key], "x\nb3BlbnNzaC1rZXk\r\n}\n"), "x\n***\r\n}\n");
        assert_eq!(seen(&[key], &format!("<{key}>")), "<***\n>");
    }

    #[test]
    fn base64_hides_nothing() {
        let encoded = base64::engine::general_purpose::STANDARD.encode("correct horse\n");
        assert_eq!(seen(&["correct horse\n"], &encoded), "***=");
        assert_eq!(Blots::new([&b"hunter2!"[..]].into_iter()).text("a hunter2! aHVudGVyMiE="), "a *** ***=");
    }
}
