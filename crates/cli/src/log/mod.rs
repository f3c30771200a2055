//! A run's log while it is written: as it is, as a view that is drawn anew, or for machines.
//!
//! The life of it: [`follow`] asks for the log's bytes as they come, cuts them into lines and
//! hands each to whoever shows them: [`plain`], [`view`] or [`raw`]. All of them read the same
//! lines ([`read`]); nothing but the log comes from the server.

mod plain;
mod raw;
mod read;
mod view;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use portolan_api::HttpClient;
use portolan_api::blobs::{LogChunk, LogTail};
use tokio::sync::mpsc;

use crate::error::{Failure, Result};
use crate::talk::Talk;
use read::{Line, Reader};

/// How the log is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// Line by line.
    Plain,
    /// A view of all steps that is drawn anew.
    Tty,
    /// JSON objects, one a line, as BuildKit's `rawjson`.
    Rawjson,
    /// Nothing, unless it fails.
    #[value(alias = "none")]
    Quiet,
}

/// What the log said about the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The manifest's digest; the last one, which is the index if there is one.
    pub(crate) manifest: Option<String>,
    /// The configuration's digest, if there was one only.
    pub(crate) config: Option<String>,
    configs: usize,
}

impl Seen {
    fn line(&mut self, line: &Line<'_>) {
        let Line::Note(_, text) = line else { return };
        let digest = |text: &str| text.split(' ').next().filter(|d| d.starts_with("sha256:")).map(str::to_owned);
        if let Some(found) = text.strip_prefix("exporting config ").and_then(digest) {
            self.configs += 1;
            self.config = (self.configs == 1).then_some(found);
        }
        let manifest = ["exporting manifest ", "exporting manifest list ", "exporting index "];
        if let Some(found) = manifest.iter().find_map(|p| text.strip_prefix(p).and_then(digest)) {
            self.manifest = Some(found);
        }
    }
}

/// How a log ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `successful`, `failed`, `internalerror`, `timedout`, `canceled`.
    pub(crate) outcome: String,
    /// What it said.
    pub(crate) seen: Seen,
}

/// How often the view is drawn.
const DRAW_MILLIS: u64 = 100;
/// Chunks of the log that wait to be shown.
const CHUNKS_MAX: usize = 16;
/// The longest line that is kept together.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// Lines shown again when a quiet build fails.
const QUIET_LINES: usize = 60;

/// Says things while a log may be drawn: above the drawing, or on stderr as usual.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    waiting: RefCell<Option<Vec<String>>>,
}

impl Voice {
    /// Say something to know.
    pub(crate) fn say(&self, talk: &Talk, text: &str) {
        match &mut *self.waiting.borrow_mut() {
            Some(waiting) if talk.warnings => waiting.push(text.to_owned()),
            _ => talk.say(text),
        }
    }

    fn take(&self) -> Vec<String> {
        self.waiting.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// While it lives, what is said goes above the drawing.
struct Drawn<'v>(&'v Voice, Talk);

impl<'v> Drawn<'v> {
    fn new(voice: &'v Voice, talk: Talk) -> Drawn<'v> {
        *voice.waiting.borrow_mut() = Some(Vec::new());
        Drawn(voice, talk)
    }
}

impl Drop for Drawn<'_> {
    fn drop(&mut self) {
        let left = self.0.waiting.borrow_mut().take();
        left.into_iter().flatten().for_each(|text| self.1.say(text));
    }
}

/// Show the log of a run to its end.
pub(crate) async fn follow(
    http: &HttpClient,
    url: &str,
    style: Style,
    no_format: bool,
    talk: &Talk,
    voice: &Voice,
) -> Result<Ended> {
    let terminal = std::io::stdout().is_terminal();
    let capable = terminal && std::env::var_os("TERM").is_none_or(|t| t != "dumb" && !t.is_empty());
    let style = match style {
        Style::Auto if capable && !no_format => Style::Tty,
        Style::Auto => Style::Plain,
        Style::Tty if !terminal => {
            return Err(Failure::usage("--progress tty needs a terminal to draw on").hint("write --progress plain"));
        }
        style => style,
    };
    let mut lines = Lines::new(http, url)?;
    match style {
        Style::Tty => {
            let _drawn = Drawn::new(voice, *talk);
            view(&mut lines, talk.color_out, voice).await
        }
        Style::Rawjson => {
            let mut raw = raw::Raw::default();
            lines.each(|line, out| raw.line(line, out)).await
        }
        Style::Quiet => quiet(&mut lines).await,
        _ => {
            let plain = plain::Plain { color: talk.color_out && !no_format, terminal };
            lines.each(|line, out| plain.line(line, out)).await
        }
    }
}

/// Lines of the log as they come.
struct Lines {
    chunks: mpsc::Receiver<Result<LogChunk>>,
    pending: Vec<u8>,
    seen: Seen,
    reader: Reader,
}

impl Lines {
    fn new(http: &HttpClient, url: &str) -> Result<Lines> {
        let mut tail = LogTail::new(http.clone(), url)?;
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        // A task of its own: drawing must not break a request off.
        tokio::spawn(async move {
            loop {
                let chunk = tail.next().await.map_err(Failure::from);
                let last = chunk.as_ref().map_or(true, |c| c.outcome.is_some());
                if sender.send(chunk).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Lines { chunks, pending: Vec::new(), seen: Seen::default(), reader: Reader::default() })
    }

    /// The next chunk's whole lines, and the outcome once there are no more.
    async fn next(&mut self) -> Result<(Vec<u8>, Option<String>)> {
        let chunk = self.chunks.recv().await.unwrap_or_else(|| Err(Failure::new("the log broke off")))?;
        self.pending.extend_from_slice(&chunk.bytes);
        let whole = match (chunk.outcome.is_some() || self.pending.len() > LINE_BYTES_MAX, &mut self.pending) {
            (true, pending) => std::mem::take(pending),
            (false, pending) => match pending.iter().rposition(|b| *b == b'\n') {
                Some(end) => pending.drain(..=end).collect(),
                None => Vec::new(),
            },
        };
        Ok((whole, chunk.outcome))
    }

    /// Print each line as `show` has it.
    async fn each(&mut self, mut show: impl FnMut(Shown<'_>, &mut Vec<u8>)) -> Result<Ended> {
        loop {
            let (bytes, outcome) = self.next().await?;
            let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8);
            for line in split(&bytes) {
                let text = String::from_utf8_lossy(line);
                let means = self.reader.line(&text);
                self.seen.line(&means);
                show(Shown { bytes: line, means }, &mut out);
            }
            print(&out)?;
            if let Some(outcome) = outcome {
                return Ok(Ended { outcome, seen: self.seen.clone() });
            }
        }
    }
}

/// A line to be shown.
struct Shown<'a> {
    /// As it stands in the log, without its end.
    bytes: &'a [u8],
    /// What it says.
    means: Line<'a>,
}

/// Lines without their ends.
fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|b| *b == b'\n').map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

/// Write to stdout, at once.
fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout();
    // Somebody closed the pipe: there is no use in going on.
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|e| Failure::new(format!("cannot print the log: {e}")))
}

/// Show nothing; when the run fails, its last lines, on stderr.
async fn quiet(lines: &mut Lines) -> Result<Ended> {
    let mut last: VecDeque<String> = VecDeque::new();
    let ended = lines
        .each(|line, _| {
            if last.len() == QUIET_LINES {
                last.pop_front();
            }
            let text = String::from_utf8_lossy(line.bytes);
            last.push_back(portolan_types::terminal::harmless(&text, false).into_owned());
        })
        .await?;
    if !matches!(ended.outcome.as_str(), "successful" | "succeeded") {
        // From the failed step on, where the log says which it is.
        let from = last.iter().position(|l| l == "------").unwrap_or_else(|| last.len().saturating_sub(5));
        for line in last.iter().skip(from) {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
    Ok(ended)
}

/// Draw the steps until the run ends.
async fn view(lines: &mut Lines, color: bool, voice: &Voice) -> Result<Ended> {
    let mut view = view::View::new(color);
    let mut screen = view::Screen::default();
    let mut timer = tokio::time::interval(Duration::from_millis(DRAW_MILLIS));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => {
                voice.take().into_iter().for_each(|text| view.above(text));
                print(&screen.draw(&mut view, view::size(), false))?;
            }
            next = lines.next() => {
                let (bytes, outcome) = next?;
                for line in split(&bytes) {
                    let text = String::from_utf8_lossy(line);
                    let means = lines.reader.line(&text);
                    lines.seen.line(&means);
                    view.line(&means);
                }
                if let Some(outcome) = outcome {
                    voice.take().into_iter().for_each(|text| view.above(text));
                    view.finish();
                    print(&screen.draw(&mut view, view::size(), true))?;
                    return Ok(Ended { outcome, seen: lines.seen.clone() });
                }
            }
        }
    }
}

/// What a run's outcome means for the command that started it.
pub(crate) fn judge(outcome: &str) -> Result<()> {
    match outcome {
        "failed" => Err(Failure::new("Run failed")),
        "internalerror" => {
            Err(Failure::new("Run failed").hint("the fault is the server's, not the build's: its log says more"))
        }
        "timedout" => Err(Failure::new("Run timed out").hint("allow more time with --timeout SECONDS")),
        "canceled" => Err(Failure::new("Run was canceled")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        assert!(judge("successful").is_ok() && judge("succeeded").is_ok());
        assert_eq!(judge("failed").unwrap_err().message, "Run failed");
        assert_eq!(judge("canceled").unwrap_err().exit, 1);
    }

    #[test]
    fn digests_are_read_from_the_log() {
        let mut seen = Seen::default();
        seen.line(&Line::Note(9, "exporting manifest sha256:aa done"));
        seen.line(&Line::Note(9, "exporting config sha256:bb done"));
        assert_eq!((seen.manifest.as_deref(), seen.config.as_deref()), (Some("sha256:aa"), Some("sha256:bb")));
        seen.line(&Line::Note(9, "exporting config sha256:cc done"));
        seen.line(&Line::Note(9, "exporting manifest list sha256:dd done"));
        assert_eq!((seen.manifest.as_deref(), seen.config.as_deref()), (Some("sha256:dd"), None));
    }

    #[test]
    fn lines_end_in_either_way() {
        assert_eq!(split(b"a\r\n\r\nb\nc").collect::<Vec<_>>(), [b"a".as_slice(), b"", b"b", b"c"]);
    }
}
