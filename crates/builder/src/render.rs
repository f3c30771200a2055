//! Events as lines for people and logs.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use portolan_types::terminal::harmless;

use crate::error::{BuildError, ErrorKind};
use crate::event::{Event, StepId, Stream};

/// A line of output longer than this is broken.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Warnings of one build that are shown.
const WARNINGS_MAX: usize = 1000;
/// Lines of a failed step that are shown again at the end.
const TAIL_LINES: usize = 10;

/// Turns [`Event`]s into plain lines in docker's shape (`#5 [2/4] RUN …`, `#5 0.412 out`,
/// `#5 DONE 1.2s`). Lines come without their end; the log's owner adds it. Nothing in them but
/// colours is for a terminal to obey, whatever steps print: a log is read by others than those
/// who wrote the Dockerfile.
#[derive(Debug, Default)]
pub struct Plain {
    steps: BTreeMap<StepId, Running>,
    /// The step that the last line was about.
    current: Option<StepId>,
    failed: Option<Running>,
    /// What is probably not meant, for the end.
    warnings: Vec<String>,
}

/// A step that has begun and not ended.
#[derive(Debug, Default)]
struct Running {
    title: String,
    /// Output without a line's end so far: standard output, standard error.
    partial: [Vec<u8>; 2],
    /// The last lines.
    tail: VecDeque<String>,
    /// When it wrote last.
    last: Duration,
}

impl Plain {
    /// A renderer that has seen nothing.
    pub fn new() -> Plain {
        Plain::default()
    }

    /// Take one event; hand on the lines that are complete now.
    pub fn event(&mut self, event: &Event, line: &mut dyn FnMut(&str)) {
        match event {
            Event::StepStarted { step, title } => {
                // A here-document's command has many lines; its name is one.
                let title = harmless(&title.replace('\n', " "), false).into_owned();
                self.line(*step, &title, line);
                self.steps.insert(*step, Running { title, ..Running::default() });
            }
            Event::Output { step, stream, bytes, at } => self.output(*step, *stream, bytes, *at, line),
            Event::Note { step, text, .. } => self.line(*step, &clean(text), line),
            Event::Cached { step } => self.end(*step, Duration::ZERO, "CACHED", line),
            Event::Done { step, elapsed } => {
                self.end(*step, *elapsed, &format!("DONE {:.1}s", elapsed.as_secs_f64()), line);
            }
            Event::Failed { step, message } => {
                let last = self.steps.get(step).map(|running| running.last).unwrap_or_default();
                self.flush(*step, last, line);
                self.line(*step, &clean(&format!("ERROR: {message}")), line);
                if let Some(running) = self.steps.remove(step)
                    && self.failed.is_none()
                {
                    self.failed = Some(running);
                }
            }
            Event::Cancelled { step } => self.end(*step, Duration::ZERO, "CANCELED", line),
            Event::Warning { text } => {
                // Platforms that are built side by side have them in common.
                if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(text) {
                    self.warnings.push(text.clone());
                }
            }
            Event::Exported { .. } => {}
        }
    }

    /// The lines that close the log of a build, whatever came of it: warnings. Call it once,
    /// after the last event and before [`Plain::failed`].
    pub fn warnings(&mut self, line: &mut dyn FnMut(&str)) {
        let warnings = std::mem::take(&mut self.warnings);
        if warnings.is_empty() {
            return;
        }
        self.gap(None, line);
        let many = if warnings.len() == 1 { "" } else { "s" };
        line(&format!(" {} warning{many} found (use --check to expand):", warnings.len()));
        for text in warnings {
            line(&format!(" - {}", harmless(&text.replace('\n', " "), false)));
        }
        line("");
    }

    /// The lines that close the log of a failed build: the end of the failed step's output,
    /// the guilty part of the Dockerfile and the error. Call it once, after the last event.
    pub fn failed(&mut self, error: &BuildError, line: &mut dyn FnMut(&str)) {
        if let (Some(step), ErrorKind::Step { .. } | ErrorKind::Timeout) = (&self.failed, error.kind) {
            line("------");
            line(&format!(" > {}:", step.title));
            step.tail.iter().for_each(|text| line(text));
            line("------");
        }
        if let Some(excerpt) = &error.excerpt {
            excerpt.lines().for_each(|text| line(&harmless(text, false)));
        }
        match error.kind {
            ErrorKind::Cancelled => line("ERROR: the build was cancelled"),
            _ => format!("ERROR: failed to build: {error}").lines().for_each(|text| line(&harmless(text, false))),
        }
    }

    /// An empty line where the log goes over to another step.
    fn gap(&mut self, step: Option<StepId>, line: &mut dyn FnMut(&str)) {
        if self.current != step {
            if self.current.is_some() {
                line("");
            }
            self.current = step;
        }
    }

    fn line(&mut self, step: StepId, text: &str, line: &mut dyn FnMut(&str)) {
        self.gap(Some(step), line);
        // Every line of a text says whose it is, or it could be taken for another's.
        for text in text.split('\n') {
            line(format!("#{step} {text}").trim_end());
        }
    }

    fn end(&mut self, step: StepId, at: Duration, text: &str, line: &mut dyn FnMut(&str)) {
        self.flush(step, at, line);
        self.line(step, text, line);
        self.steps.remove(&step);
    }

    fn output(&mut self, step: StepId, stream: Stream, bytes: &[u8], at: Duration, line: &mut dyn FnMut(&str)) {
        let Some(running) = self.steps.get_mut(&step) else { return };
        running.last = at;
        let partial = &mut running.partial[index(stream)];
        let mut complete = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || partial.len() >= LINE_BYTES_MAX {
                complete.push(std::mem::take(partial));
            }
        }
        for text in complete {
            self.output_line(step, &text, at, line);
        }
    }

    /// What was written without a line's end at the end of a step.
    fn flush(&mut self, step: StepId, at: Duration, line: &mut dyn FnMut(&str)) {
        let Some(running) = self.steps.get_mut(&step) else { return };
        for text in std::mem::take(&mut running.partial) {
            if !text.is_empty() {
                self.output_line(step, &text, at, line);
            }
        }
    }

    fn output_line(&mut self, step: StepId, text: &[u8], at: Duration, line: &mut dyn FnMut(&str)) {
        let text = String::from_utf8_lossy(text);
        let text = text.trim_end_matches(['\n', '\r']);
        // A progress bar that is drawn over itself: its last state.
        let text = text.rsplit('\r').next().unwrap_or(text);
        let text = format!("{:.3} {}", at.as_secs_f64(), harmless(text, true));
        if let Some(running) = self.steps.get_mut(&step) {
            if running.tail.len() == TAIL_LINES {
                running.tail.pop_front();
            }
            running.tail.push_back(text.clone());
        }
        self.line(step, &text, line);
    }
}

/// The same lines without what a terminal would obey.
fn clean(text: &str) -> String {
    text.lines().map(|text| harmless(text, false)).collect::<Vec<_>>().join("\n")
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_build_that_fails() {
        let mut plain = Plain::new();
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text);
            out.push('\n');
        };
        let ms = Duration::from_millis;
        let started = |step, title: &str| Event::StepStarted { step, title: title.into() };
        let output = |step, text: &str, at| Event::Output {
            step,
            stream: Stream::Stdout,
            bytes: text.as_bytes().to_vec(),
            at: ms(at),
        };
        for event in [
            started(1, "[internal] load build definition from Dockerfile"),
            Event::Note { step: 1, text: "transferring dockerfile: 9B".into(), at: ms(0) },
            Event::Done { step: 1, elapsed: ms(2) },
            Event::Warning { text: "StageNameCasing: hm (line 3)".into() },
            Event::Warning { text: "StageNameCasing: hm (line 3)".into() },
            started(2, "[a 1/2] FROM x"),
            Event::Cached { step: 2 },
            started(3, "[a 2/2] RUN make"),
            output(3, "one\ntw", 12),
            started(4, "[b 1/1] RUN sleep"),
            output(3, "o\r\n10%\r20%\rdone\npartial", 1500),
            Event::Failed { step: 3, message: "exit code: 1".into() },
            Event::Cancelled { step: 4 },
        ] {
            plain.event(&event, &mut line);
        }
        plain.warnings(&mut line);
        let error = BuildError::new(ErrorKind::Step { exit_code: 1 }, "Dockerfile:2: exit code: 1")
            .with_excerpt("Dockerfile:2\n   2 | >>> RUN make".into());
        plain.failed(&error, &mut line);
        expect![[r#"
            #1 [internal] load build definition from Dockerfile
            #1 transferring dockerfile: 9B
            #1 DONE 0.0s

            #2 [a 1/2] FROM x
            #2 CACHED

            #3 [a 2/2] RUN make
            #3 0.012 one

            #4 [b 1/1] RUN sleep

            #3 1.500 two
            #3 1.500 done
            #3 1.500 partial
            #3 ERROR: exit code: 1

            #4 CANCELED

             1 warning found (use --check to expand):
             - StageNameCasing: hm (line 3)

            ------
             > [a 2/2] RUN make:
            0.012 one
            1.500 two
            1.500 done
            1.500 partial
            ------
            Dockerfile:2
               2 | >>> RUN make
            ERROR: failed to build: Dockerfile:2: exit code: 1
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn no_line_is_another_steps_and_none_commands_a_terminal() {
        let mut plain = Plain::new();
        let mut out = Vec::new();
        let ms = Duration::from_millis;
        let output = |stream, text: &[u8]| Event::Output { step: 1, stream, bytes: text.to_vec(), at: ms(5) };
        for event in [
            Event::StepStarted { step: 1, title: "[1/1] RUN <<EOF\n#2 DONE 1.0s\x1b[2J\nEOF".into() },
            output(Stream::Stdout, b"\x1b]0;owned\x07a\x1b[31mred\n"),
            output(Stream::Stderr, b"\xff\xfe\x08\n"),
            output(Stream::Stdout, b"10%\r20%\r\n\n"),
            output(Stream::Stdout, b"DONE 9.0s"),
            Event::Note { step: 1, text: "a\n#2 [2/2] RUN x".into(), at: ms(6) },
            Event::Failed { step: 1, message: "b\n#2 CACHED".into() },
        ] {
            plain.event(&event, &mut |text| out.push(text.to_owned()));
        }
        let expected = [
            "#1 [1/1] RUN <<EOF #2 DONE 1.0s EOF",
            "#1 0.005 a\x1b[31mred\x1b[0m",
            "#1 0.005 \u{fffd}\u{fffd}",
            "#1 0.005 20%",
            "#1 0.005",
            "#1 a",
            "#1 #2 [2/2] RUN x",
            "#1 0.005 DONE 9.0s",
            "#1 ERROR: b",
            "#1 #2 CACHED",
        ];
        assert_eq!(out, expected);
    }
}
