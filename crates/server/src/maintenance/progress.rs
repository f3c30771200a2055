//! A progress line on standard error: what is being done, how fast, and how much longer.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines on a terminal, where each takes the place of the one before.
const TERMINAL_MILLIS: u64 = 250;
/// Between two lines elsewhere.
const LOG_SECS: u64 = 10;

/// How far something is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    pub(super) stage: &'static str,
    pub(super) items: u64,
    pub(super) bytes: u64,
    /// 0 when it is not known.
    pub(super) bytes_total: u64,
}

/// Writes the line, now and then.
pub(super) struct Progress {
    terminal: bool,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    last: Option<Instant>,
    bytes_began: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let began = Instant::now();
        Progress {
            terminal: std::io::stderr().is_terminal(),
            began,
            state: Mutex::new(State { last: None, bytes_began: None }),
        }
    }

    pub(super) fn tell(&self, at: At) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if at.bytes > 0 && state.bytes_began.is_none() {
            state.bytes_began = Some(now);
        }
        let every = if self.terminal { Duration::from_millis(TERMINAL_MILLIS) } else { Duration::from_secs(LOG_SECS) };
        // A short run says nothing.
        if now.duration_since(state.last.unwrap_or(self.began)) < every {
            return;
        }
        state.last = Some(now);
        let line = line(at, state.bytes_began.map_or(Duration::ZERO, |began| now.duration_since(began)));
        let mut out = std::io::stderr().lock();
        // Nobody reading it is no reason to stop.
        let _ = if self.terminal { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }

    /// Take the line away.
    pub(super) fn end(&self) {
        if self.terminal && self.state.lock().last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(at: At, took: Duration) -> String {
    let mut line = format!("{}: {}", at.stage, at.items);
    if at.bytes == 0 {
        return line;
    }
    let rate = at.bytes as f64 / took.as_secs_f64().max(0.001);
    line.push_str(&format!(", {} of content", bytes(at.bytes)));
    if at.bytes_total >= at.bytes {
        line.push_str(&format!(" of {}", bytes(at.bytes_total)));
    }
    line.push_str(&format!(", {}/s", bytes(rate as u64)));
    if at.bytes_total > at.bytes {
        let secs = ((at.bytes_total - at.bytes) as f64 / rate) as u64;
        line.push_str(&format!(", {} left", clock(secs)));
    }
    line
}

/// `1.5 GiB`.
pub(super) fn bytes(n: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| n >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", n as f64 / (1u64 << shift) as f64),
        None => format!("{n} bytes"),
    }
}

/// `1:02:03`.
fn clock(secs: u64) -> String {
    match (secs / 3_600, secs / 60 % 60, secs % 60) {
        (0, minutes, secs) => format!("{minutes}:{secs:02}"),
        (hours, minutes, secs) => format!("{hours}:{minutes:02}:{secs:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_and_time_left() {
        let at = At { stage: "content", items: 3, bytes: 1 << 30, bytes_total: 3 << 30 };
        assert_eq!(
            line(at, Duration::from_secs(10)),
            "content: 3, 1.0 GiB of content of 3.0 GiB, 102.4 MiB/s, 0:20 left"
        );
        assert_eq!(line(At { stage: "tags", items: 7, ..At::default() }, Duration::ZERO), "tags: 7");
        assert_eq!((clock(3_723), bytes(1_023)), ("1:02:03".to_owned(), "1023 bytes".to_owned()));
    }
}
