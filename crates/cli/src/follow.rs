//! A run's log on stdout while it is written.

use std::io::Write;

use portolan_api::HttpClient;
use portolan_api::blobs::LogTail;

use crate::error::{Failure, Result};
use crate::talk::{Paint, paint};

/// Print the log to its end. Answers the run's outcome: `successful`, `failed`,
/// `internalerror`, `timedout`, `canceled`.
pub(crate) async fn to_stdout(http: &HttpClient, url: &str, color: bool) -> Result<String> {
    let mut tail = LogTail::new(http.clone(), url)?;
    let mut lines = Lines { pending: Vec::new(), color };
    loop {
        let chunk = tail.next().await?;
        lines.print(&chunk.bytes, chunk.outcome.is_some())?;
        if let Some(outcome) = chunk.outcome {
            return Ok(outcome);
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

/// The log is printed by whole lines, ended as here usual.
struct Lines {
    pending: Vec<u8>,
    color: bool,
}

impl Lines {
    fn print(&mut self, bytes: &[u8], last: bool) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        let whole = match self.pending.iter().rposition(|b| *b == b'\n') {
            Some(end) => self.pending.drain(..=end).collect(),
            None => Vec::new(),
        };
        let mut out = Vec::with_capacity(whole.len());
        for line in whole.split_inclusive(|b| *b == b'\n') {
            self.push_line(&mut out, line);
        }
        if last && !self.pending.is_empty() {
            let rest = std::mem::take(&mut self.pending);
            self.push_line(&mut out, &rest);
        }
        let mut stdout = std::io::stdout();
        stdout.write_all(&out).and_then(|()| stdout.flush()).map_err(|e| {
            // Somebody closed the pipe: there is no use in going on.
            Failure::new(format!("cannot print the log: {e}"))
        })
    }

    fn push_line(&self, out: &mut Vec<u8>, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.color {
            out.extend_from_slice(colored(&String::from_utf8_lossy(line)).as_bytes());
        } else {
            out.extend_from_slice(line);
        }
        out.push(b'\n');
    }
}

/// `#5 [builder 2/4] RUN …`: the number dim, headings cyan, endings by their meaning.
fn colored(line: &str) -> String {
    let Some((number, rest)) = line
        .split_once(' ')
        .filter(|(n, _)| n.strip_prefix('#').is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())))
    else {
        return if line.starts_with("ERROR") || line.starts_with("error:") {
            paint(Paint::Red, line)
        } else {
            line.into()
        };
    };
    let number = paint(Paint::Dim, number);
    let rest = match rest.split([' ', ':']).next().unwrap_or_default() {
        "DONE" | "CACHED" => paint(Paint::Green, rest),
        "ERROR" | "CANCELED" => paint(Paint::Red, rest),
        "WARN" | "WARNING" => paint(Paint::Yellow, rest),
        heading if heading.starts_with('[') => paint(Paint::Cyan, rest),
        _ => rest.to_owned(),
    };
    format!("{number} {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours() {
        assert_eq!(colored("#5 DONE 1.2s"), "\x1b[2m#5\x1b[0m \x1b[32mDONE 1.2s\x1b[0m");
        assert_eq!(colored("#5 0.412 hello"), "\x1b[2m#5\x1b[0m 0.412 hello");
        assert_eq!(colored("# not a step"), "# not a step");
        assert!(colored("#7 [2/3] RUN true").contains("\x1b[36m[2/3] RUN true"));
    }

    #[test]
    fn outcomes() {
        assert!(judge("successful").is_ok() && judge("succeeded").is_ok());
        assert_eq!(judge("failed").unwrap_err().message, "Run failed");
        assert_eq!(judge("canceled").unwrap_err().exit, 1);
    }
}
