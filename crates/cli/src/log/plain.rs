//! The log line by line: for files, pipes and machines as it is, on a terminal in colour and
//! without what steps may want a terminal to do.

use portolan_types::terminal::harmless;

use super::Shown;
use super::read::Line;
use crate::talk::{Paint, paint};

/// Shows lines as they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    /// Numbers dim, headings cyan, endings by their meaning.
    pub(super) color: bool,
    /// Somebody's terminal is what reads it.
    pub(super) terminal: bool,
}

impl Plain {
    pub(super) fn line(&self, line: Shown<'_>, out: &mut Vec<u8>) {
        if self.color {
            out.extend_from_slice(colored(&line.means, &String::from_utf8_lossy(line.bytes)).as_bytes());
        } else if self.terminal {
            out.extend_from_slice(harmless(&String::from_utf8_lossy(line.bytes), false).as_bytes());
        } else {
            out.extend_from_slice(line.bytes);
        }
        out.push(b'\n');
    }
}

fn colored(means: &Line<'_>, whole: &str) -> String {
    let number = |step: &u32| paint(Paint::Dim, format!("#{step}"));
    // What follows the step's number, on a line whose meaning has a text of its own shape.
    let rest = || harmless(whole.split_once(' ').map_or("", |(_, rest)| rest), false);
    match means {
        Line::Title(step, text) => format!("{} {}", number(step), paint(Paint::Cyan, harmless(text, false))),
        Line::Output(step, ..) => {
            let text = harmless(whole.split_once(' ').map_or("", |(_, rest)| rest), true);
            format!("{} {text}", number(step))
        }
        Line::Moved(step, ..) => format!("{} {}", number(step), rest()),
        Line::Note(step, text) => {
            let text = harmless(text, true);
            match text.split([' ', ':']).next() {
                Some("WARN" | "WARNING") => format!("{} {}", number(step), paint(Paint::Yellow, text)),
                _ => format!("{} {text}", number(step)),
            }
        }
        Line::Done(step, _) | Line::Cached(step) => format!("{} {}", number(step), paint(Paint::Green, rest())),
        Line::Failed(step, _) | Line::Cancelled(step) => format!("{} {}", number(step), paint(Paint::Red, rest())),
        Line::Gap => String::new(),
        Line::Other(text) => other(&harmless(text, true)),
    }
}

/// A line of no step.
pub(super) fn other(text: &str) -> String {
    if text.starts_with("ERROR") || text.starts_with("error:") {
        paint(Paint::Red, text)
    } else if text.starts_with("WARNING") {
        paint(Paint::Yellow, text)
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Reader;
    use super::*;

    fn shown(reader: &mut Reader, line: &str, color: bool, terminal: bool) -> String {
        let mut out = Vec::new();
        Plain { color, terminal }.line(Shown { bytes: line.as_bytes(), means: reader.line(line) }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn colours() {
        let reader = &mut Reader::default();
        assert_eq!(shown(reader, "#5 [2/3] RUN x", true, true), "\x1b[2m#5\x1b[0m \x1b[36m[2/3] RUN x\x1b[0m\n");
        assert_eq!(shown(reader, "#5 0.412 hello", true, true), "\x1b[2m#5\x1b[0m 0.412 hello\n");
        assert_eq!(shown(reader, "#5 DONE 1.2s", true, true), "\x1b[2m#5\x1b[0m \x1b[32mDONE 1.2s\x1b[0m\n");
        assert_eq!(shown(reader, "# not a step", true, true), "# not a step\n");
        assert_eq!(shown(reader, "", true, true), "\n");
    }

    #[test]
    fn steps_do_not_command_a_terminal() {
        let reader = &mut Reader::default();
        let line = "#5 0.412 a\x1b[2Jb\x1b[32mc";
        shown(reader, "#5 RUN", false, false);
        assert_eq!(shown(reader, line, true, true), "\x1b[2m#5\x1b[0m 0.412 ab\x1b[32mc\x1b[0m\n");
        assert_eq!(shown(reader, line, false, true), "#5 0.412 abc\n");
        assert_eq!(shown(reader, line, false, false), format!("{line}\n"), "a file gets the log as it is");
    }
}
