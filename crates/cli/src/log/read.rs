//! Lines of a run's log, read back: which step they are of, and what they say of it.
//!
//! The log is text for people, in the shape of docker's plain progress. Everything that is
//! shown in other ways is read from it, so that whoever has the log has all there is.

use std::collections::HashSet;

/// One line of a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line<'a> {
    /// The first line of a step: its name.
    Title(u32, &'a str),
    /// What the step wrote, with the seconds since it began.
    Output(u32, f64, &'a str),
    /// So much of something in a step is done: what, bytes, bytes in all.
    Moved(u32, &'a str, u64, u64),
    /// Something else about a step.
    Note(u32, &'a str),
    /// The step took so many seconds.
    Done(u32, f64),
    /// The step was done before.
    Cached(u32),
    /// The step failed, and why.
    Failed(u32, &'a str),
    /// The step was stopped.
    Cancelled(u32),
    /// The gap where the log goes over to another step.
    Gap,
    /// A line of no step.
    Other(&'a str),
}

/// Steps that a log may have before they are no longer told apart.
const STEPS_MAX: usize = 100_000;

/// Reads a log from its first line on.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    begun: HashSet<u32>,
}

impl Reader {
    /// What a line, without its end, says.
    pub(crate) fn line<'a>(&mut self, line: &'a str) -> Line<'a> {
        if line.is_empty() {
            return Line::Gap;
        }
        let Some((step, rest)) = numbered(line) else { return Line::Other(line) };
        if !self.begun.contains(&step) {
            if self.begun.len() < STEPS_MAX {
                self.begun.insert(step);
            }
            return Line::Title(step, rest);
        }
        if rest == "CACHED" {
            return Line::Cached(step);
        }
        if rest == "CANCELED" {
            return Line::Cancelled(step);
        }
        if let Some(secs) = rest.strip_prefix("DONE ").and_then(|r| r.strip_suffix('s')).and_then(|s| s.parse().ok()) {
            return Line::Done(step, secs);
        }
        if let Some(why) = rest.strip_prefix("ERROR: ") {
            return Line::Failed(step, why);
        }
        if let Some((secs, text)) = timed(rest) {
            return Line::Output(step, secs, text);
        }
        match moved(rest) {
            Some((what, done, all)) => Line::Moved(step, what, done, all),
            None => Line::Note(step, rest),
        }
    }
}

/// `#5 rest`
fn numbered(line: &str) -> Option<(u32, &str)> {
    let rest = line.strip_prefix('#')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..end].parse().ok()?;
    match rest[end..].strip_prefix(' ') {
        Some(text) => Some((number, text)),
        None => rest[end..].is_empty().then_some((number, "")),
    }
}

/// `0.412 text`; what was written may be nothing.
fn timed(rest: &str) -> Option<(f64, &str)> {
    let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let (whole, part) = number.split_once('.')?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || part.len() != 3 || !digits(part) {
        return None;
    }
    Some((number.parse().ok()?, text))
}

/// `sha256:… 1.05MB / 29.13MB 0.3s`
fn moved(rest: &str) -> Option<(&str, u64, u64)> {
    let (left, right) = rest.split_once(" / ")?;
    let (what, done) = left.rsplit_once(' ')?;
    let all = right.split(' ').next()?;
    Some((what, bytes(done)?, bytes(all)?))
}

/// docker's units: powers of a thousand.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let factor = match &text[end..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    };
    let number: f64 = text[..end].parse().ok()?;
    Some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log() {
        let mut reader = Reader::default();
        for (line, means) in [
            (
                "2026/11/20 10:00:00 Downloading source code...",
                Line::Other("2026/11/20 10:00:00 Downloading source code..."),
            ),
            ("#1 [internal] load build definition", Line::Title(1, "[internal] load build definition")),
            ("#1 transferring dockerfile: 9B", Line::Note(1, "transferring dockerfile: 9B")),
            ("#1 DONE 0.1s", Line::Done(1, 0.1)),
            ("", Line::Gap),
            ("#12 [2/4] RUN make", Line::Title(12, "[2/4] RUN make")),
            ("#12 0.412 DONE 1.0s", Line::Output(12, 0.412, "DONE 1.0s")),
            ("#12 0.500", Line::Output(12, 0.5, "")),
            ("#12 sha256:ab 1.05MB / 29.13MB 0.3s", Line::Moved(12, "sha256:ab", 1_050_000, 29_130_000)),
            ("#12 a / b", Line::Note(12, "a / b")),
            ("#12 ERROR: exit code: 1", Line::Failed(12, "exit code: 1")),
            ("#3 x", Line::Title(3, "x")),
            ("#3 CACHED", Line::Cached(3)),
            ("#3 CANCELED", Line::Cancelled(3)),
            ("#", Line::Other("#")),
            ("# comment", Line::Other("# comment")),
            ("#99999999999 x", Line::Other("#99999999999 x")),
        ] {
            assert_eq!(reader.line(line), means, "{line}");
        }
    }
}
