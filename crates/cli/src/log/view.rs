//! All steps of a build on a terminal, drawn anew while they go on, in the shape of docker's:
//!
//! ```text
//! [+] Building 3.2s (5/7)
//!  => CACHED [1/4] FROM docker.io/library/python:3.11                       0.0s
//!  => [2/4] RUN pip install flask                                           2.1s
//!  => => # Collecting flask
//! ```
//!
//! [`View`] knows the steps and says what a frame looks like in so many columns and rows;
//! [`Screen`] puts a frame in the place of the one before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use portolan_types::terminal::harmless;

use super::plain::other;
use super::read::Line;
use crate::talk::{Paint, paint};

/// Lines of a running step's output that are shown.
const TAIL_LINES: usize = 6;
/// What is moved at one time that is shown of a step.
const BARS_MAX: usize = 8;
/// Columns of a bar.
const BAR_COLUMNS: usize = 20;
/// Lines that wait to be printed above the drawing.
const ABOVE_MAX: usize = 10_000;

/// Columns and rows.
pub(super) type Size = (usize, usize);

/// The terminal's size now; it changes when its window does.
pub(super) fn size() -> Size {
    let (rows, columns) = console::Term::stdout().size();
    (usize::from(columns).max(20), usize::from(rows).max(4))
}

/// A step.
#[derive(Debug)]
struct Step {
    title: String,
    begun: Instant,
    end: Option<End>,
    tail: VecDeque<String>,
    bars: Vec<(String, u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Done(f64),
    Cached,
    Failed(f64),
    Cancelled,
}

/// The steps of a build as its log tells of them.
#[derive(Debug)]
pub(super) struct View {
    color: bool,
    begun: Instant,
    steps: BTreeMap<u32, Step>,
    /// To be printed once, above the drawing or, when it is the last one, below it.
    above: Vec<String>,
    below: Vec<String>,
    finished: Option<f64>,
}

impl View {
    pub(super) fn new(color: bool) -> View {
        let (steps, above, below) = Default::default();
        View { color, begun: Instant::now(), steps, above, below, finished: None }
    }

    /// Print a line above the drawing.
    pub(super) fn above(&mut self, text: String) {
        if self.above.len() < ABOVE_MAX {
            self.above.push(text);
        }
    }

    /// Take a line of the log.
    pub(super) fn line(&mut self, line: &Line<'_>) {
        let text = |text: &str| harmless(text, self.color).into_owned();
        match line {
            Line::Title(step, title) => {
                let title = harmless(title, false).into_owned();
                let (tail, bars) = Default::default();
                self.steps.insert(*step, Step { title, begun: Instant::now(), end: None, tail, bars });
            }
            Line::Output(step, _, output) => {
                let output = text(output);
                self.on(*step, |step| step.say(output));
            }
            Line::Note(step, note) => {
                let note = text(note);
                self.on(*step, |step| step.say(note));
            }
            Line::Moved(step, what, done, all) => {
                let what = harmless(what, false).into_owned();
                self.on(*step, |step| step.moved(what, *done, *all));
            }
            Line::Done(step, secs) => self.on(*step, |step| step.end = Some(End::Done(*secs))),
            Line::Cached(step) => self.on(*step, |step| step.end = Some(End::Cached)),
            Line::Failed(step, _) => {
                self.on(*step, |step| step.end = Some(End::Failed(step.begun.elapsed().as_secs_f64())));
            }
            Line::Cancelled(step) => self.on(*step, |step| step.end = Some(End::Cancelled)),
            Line::Gap => {}
            // Lines of the run around its steps. What comes when all are over sums up, or says
            // why, and stands below.
            Line::Other(line) => {
                let line = text(line);
                let line = if self.color { other(&line) } else { line };
                let over = !self.steps.is_empty() && self.steps.values().all(|s| s.end.is_some());
                match over {
                    true if self.below.len() < ABOVE_MAX => self.below.push(line),
                    true => {}
                    false => self.above(line),
                }
            }
        }
    }

    fn on(&mut self, step: u32, act: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.get_mut(&step) {
            act(step);
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) {
        self.finished = Some(self.begun.elapsed().as_secs_f64());
    }

    /// What the drawing looks like in so many columns and rows; with `whole`, in as many rows
    /// as it takes.
    fn frame(&self, (columns, rows): Size, whole: bool) -> Vec<String> {
        if self.steps.is_empty() {
            return Vec::new();
        }
        let done = self.steps.values().filter(|s| s.end.is_some()).count();
        let secs = self.finished.unwrap_or_else(|| self.begun.elapsed().as_secs_f64());
        let head = format!("[+] Building {secs:.1}s ({done}/{})", self.steps.len());
        let head = if self.finished.is_some() { format!("{head} FINISHED") } else { head };
        // One row is left for what the person types.
        let room = if whole { usize::MAX } else { rows.saturating_sub(2) };
        let running = self.steps.values().filter(|s| s.end.is_none()).count();
        let ended = self.steps.len() - running;
        // Steps that go on come first, then their output, then what is over, newest last.
        let tails: usize = self.steps.values().map(|s| s.details(TAIL_LINES).count()).sum();
        let hidden = (running + ended + tails).saturating_sub(room).min(ended);
        let left = room.saturating_sub(running + ended - hidden);
        let each = left.checked_div(running).unwrap_or(0).min(TAIL_LINES);
        let mut out = vec![cut(&head, columns)];
        let mut skip = hidden;
        for step in self.steps.values() {
            if step.end.is_some() && skip > 0 {
                skip -= 1;
                continue;
            }
            if out.len() > room {
                break;
            }
            out.push(self.row(step, columns));
            for detail in step.details(if whole { TAIL_LINES } else { each }) {
                if out.len() > room {
                    break;
                }
                let detail = cut(&format!(" => => {detail}"), columns);
                out.push(if self.color { paint(Paint::Dim, detail) } else { detail });
            }
        }
        out
    }

    /// ` => CACHED [1/2] FROM x      0.0s`
    fn row(&self, step: &Step, columns: usize) -> String {
        let (mark, secs, color) = match step.end {
            None => ("", step.begun.elapsed().as_secs_f64(), None),
            Some(End::Done(secs)) => ("", secs, Some(Paint::Green)),
            Some(End::Cached) => ("CACHED ", 0.0, Some(Paint::Green)),
            Some(End::Failed(secs)) => ("ERROR ", secs, Some(Paint::Red)),
            Some(End::Cancelled) => ("CANCELED ", 0.0, Some(Paint::Yellow)),
        };
        let time = format!("{secs:.1}s");
        let left = cut(&format!(" => {mark}{}", step.title), columns.saturating_sub(time.len() + 2));
        let gap = columns.saturating_sub(console::measure_text_width(&left) + time.len() + 1);
        let row = format!("{left}{}{time}", " ".repeat(gap));
        match color {
            Some(color) if self.color => paint(color, row),
            _ => row,
        }
    }
}

impl Step {
    fn say(&mut self, text: String) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(text);
    }

    fn moved(&mut self, what: String, done: u64, all: u64) {
        match self.bars.iter_mut().find(|(name, ..)| *name == what) {
            Some(bar) => *bar = (what, done, all),
            None => {
                // What is done makes room.
                if self.bars.len() == BARS_MAX {
                    let over = self.bars.iter().position(|(_, done, all)| done >= all).unwrap_or(0);
                    self.bars.remove(over);
                }
                self.bars.push((what, done, all));
            }
        }
    }

    /// Bars and the end of the output of a step that goes on.
    fn details(&self, lines: usize) -> impl Iterator<Item = String> {
        let lines = if self.end.is_some() { 0 } else { lines };
        let tail = self.tail.len().min(lines.saturating_sub(self.bars.len()));
        let bars = self.bars.iter().rev().take(lines).rev().map(|(what, done, all)| bar(what, *done, *all));
        bars.chain(self.tail.iter().skip(self.tail.len() - tail).map(|t| format!("# {t}")))
    }
}

/// `sha256:…  [=====>    ] 1.1MB / 29.1MB`
fn bar(what: &str, done: u64, all: u64) -> String {
    let short = if what.len() > 24 && what.starts_with("sha256:") { &what[..19] } else { what };
    let filled =
        if all == 0 { BAR_COLUMNS } else { (done.min(all) as u128 * BAR_COLUMNS as u128 / all as u128) as usize };
    let head = if filled < BAR_COLUMNS { ">" } else { "" };
    let empty = " ".repeat(BAR_COLUMNS - filled - head.len());
    let mb = |n: u64| format!("{:.1}MB", n as f64 / 1e6);
    format!("{short} [{}{head}{empty}] {} / {}", "=".repeat(filled), mb(done), mb(all))
}

/// Not more than so many columns.
fn cut(text: &str, columns: usize) -> String {
    // A tab has no width of its own.
    let text = text.replace('\t', "    ");
    let short = console::truncate_str(&text, columns.saturating_sub(1), "…");
    // A colour that was cut off must not run on.
    if short.contains('\x1b') { format!("{short}\x1b[0m") } else { short.into_owned() }
}

/// Where the last drawing is.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Columns that each of its lines takes.
    drawn: Vec<usize>,
}

impl Screen {
    /// The bytes that put the view in the place of what was drawn before; with `last`, it stays
    /// as it is then, with all its steps.
    pub(super) fn draw(&mut self, view: &mut View, size: Size, last: bool) -> Vec<u8> {
        let mut out = String::new();
        // A window that became narrower has broken our lines.
        let rows: usize = self.drawn.iter().map(|columns| columns.div_ceil(size.0).max(1)).sum();
        if rows > 0 {
            out.push_str(&format!("\x1b[{}A", rows.min(size.1)));
        }
        out.push_str("\r\x1b[J");
        for line in view.above.drain(..) {
            out.push_str(&line);
            out.push_str("\r\n");
        }
        let frame = view.frame(size, last);
        self.drawn = frame.iter().map(|line| console::measure_text_width(line)).collect();
        for line in &frame {
            out.push_str(line);
            out.push_str("\r\n");
        }
        if last {
            for line in view.below.drain(..) {
                out.push_str(&line);
                out.push_str("\r\n");
            }
            self.drawn.clear();
        }
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Reader;
    use super::*;

    fn view(lines: &[&str]) -> View {
        let mut view = View::new(false);
        let mut reader = Reader::default();
        for line in lines {
            view.line(&reader.line(line));
        }
        view
    }

    /// A frame without its times.
    fn frame(view: &View, size: Size) -> String {
        let lines = view.frame(size, false);
        assert!(lines.iter().all(|l| console::measure_text_width(l) < size.0), "{lines:?}");
        assert!(lines.len() < size.1, "{lines:?}");
        let text: Vec<_> =
            lines.iter().map(|l| l.trim_start().split("  ").next().unwrap_or_default().to_owned()).collect();
        text[1..].join("\n")
    }

    const LOG: &[&str] = &[
        "#1 [internal] load build definition",
        "#1 DONE 0.1s",
        "",
        "#2 [1/3] FROM x",
        "#2 CACHED",
        "#3 [2/3] RUN make",
        "#3 0.1 \x1b[2Jone",
        "#3 0.100 two\tx",
        "#4 [1/1] FROM y",
        "#4 sha256:0123456789abcdef0123456789 1.00MB / 2.00MB 0.1s",
    ];

    #[test]
    fn steps_with_their_output() {
        let view = view(LOG);
        expect_test::expect![[r#"
             => [internal] load build definition
             => CACHED [1/3] FROM x
             => [2/3] RUN make
             => => # 0.1 one
             => => # two
             => [1/1] FROM y
             => => sha256:0123456789ab [==========>"#]]
        .assert_eq(&frame(&view, (80, 30)));
        assert!(
            view.frame((80, 30), false)[0].starts_with("[+] Building 0.")
                && view.frame((80, 30), false)[0].ends_with("s (2/4)")
        );
    }

    #[test]
    fn what_goes_on_is_seen_in_few_rows() {
        let view = view(LOG);
        expect_test::expect![[r#"
             => [2/3] RUN make
             => => # two
             => [1/1] FROM y
             => => sha256:0123456789ab [==========>"#]]
        .assert_eq(&frame(&view, (80, 6)));
        for columns in [20, 33, 200] {
            for rows in 4..12 {
                frame(&view, (columns, rows));
            }
        }
    }

    #[test]
    fn a_drawing_takes_the_place_of_the_last() {
        let mut seen = view(LOG);
        let mut screen = Screen::default();
        let draw =
            |screen: &mut Screen, seen: &mut View, size| String::from_utf8(screen.draw(seen, size, false)).unwrap();
        let first = draw(&mut screen, &mut seen, (80, 30));
        assert!(first.starts_with("\r\x1b[J[+]"), "{first:?}");
        seen.above("a note".to_owned());
        let second = draw(&mut screen, &mut seen, (80, 30));
        assert!(second.starts_with("\x1b[8A\r\x1b[Ja note\r\n[+]"), "{second:?}");
        // Half as wide: every full line takes two rows now.
        let third = draw(&mut screen, &mut seen, (40, 30));
        let up: usize = third[2..third.find('A').unwrap()].parse().unwrap();
        assert!(up > 8 && up <= 16, "{third:?}");
    }

    #[test]
    fn the_reason_stands_below() {
        let mut seen = view(&["Queued", "#1 RUN x", "#1 ERROR: exit code: 1", "------", "ERROR: failed to build"]);
        seen.finish();
        let out = String::from_utf8(Screen::default().draw(&mut seen, (80, 24), true)).unwrap();
        let at = |text: &str| out.find(text).unwrap_or_else(|| panic!("{text} in {out:?}"));
        assert!(at("Queued") < at("FINISHED") && at(" => ERROR RUN x") < at("------"));
        assert!(at("------") < at("ERROR: failed"));
    }
}
