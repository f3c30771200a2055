//! Where lines go: a buffer in memory, a thread that writes it, a file that may be opened anew.
//!
//! Three logs are made of this: the events of `crate::telemetry`, the access log and the
//! audit log. They differ in what happens when lines come faster than they are written:
//! an event makes its writer wait, an access line is dropped and counted, an audit line
//! is written at once by whoever has it, with everything that came before it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use portolan_types::Timestamp;

use crate::settings::Value;

/// Lines of an event log waiting to be written; when full, whoever has a line to say waits
/// for the write.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Access lines waiting to be written; when full, further ones are dropped.
const ACCESS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a line may wait for others before it is written.
const WAIT_MILLIS_MAX: u64 = 50;
/// Of a text from outside, no more than this stands in a line.
const FIELD_BYTES_MAX: usize = 2_048;

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    None,
    /// To standard error.
    Stderr,
    /// To the end of a file.
    File(PathBuf),
}

impl Value for LogTarget {
    const KIND: &'static str = "none, stderr or a path";
    fn parse(text: &str) -> Result<LogTarget, String> {
        match text {
            "" => Err("it must not be empty".to_owned()),
            "none" => Ok(LogTarget::None),
            "stderr" => Ok(LogTarget::Stderr),
            path => Ok(LogTarget::File(path.into())),
        }
    }
}

/// What a line does when lines come faster than they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// It is written now, after everything that came before it.
    Now,
    /// It is written soon; a full buffer is written first.
    Soon,
    /// It is written soon, or dropped when the buffer is full.
    OrDrop,
}

/// The buffer between those who have lines and the file. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Buffer(Arc<Shared>);

struct Shared {
    waiting: Mutex<Vec<u8>>,
    some: Condvar,
    /// Held while writing, so that lines keep their order.
    out: Mutex<Box<dyn Write + Send>>,
    dropped_total: AtomicU64,
    failed_total: AtomicU64,
    /// Whether the last write failed.
    failing: AtomicBool,
}

impl Buffer {
    /// A buffer before `out`, and the thread that writes it. The thread ends with the buffer.
    pub(crate) fn start(name: &str, out: impl Write + Send + 'static) -> Buffer {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Vec::new()),
            some: Condvar::new(),
            out: Mutex::new(Box::new(out)),
            dropped_total: AtomicU64::new(0),
            failed_total: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&shared);
        // Without its thread the buffer still works: it is written whenever it is full.
        let _ = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(shared) = weak.upgrade() {
                let mut waiting = shared.waiting.lock();
                if waiting.is_empty() {
                    shared.some.wait_for(&mut waiting, Duration::from_secs(1));
                    continue;
                }
                drop(waiting);
                std::thread::sleep(Duration::from_millis(WAIT_MILLIS_MAX));
                shared.flush();
            }
        });
        Buffer(shared)
    }

    /// Add a line, its end included.
    pub(crate) fn push(&self, line: &[u8], how: Push) {
        let shared = &*self.0;
        let mut waiting = shared.waiting.lock();
        let was_empty = waiting.is_empty();
        if how == Push::OrDrop && waiting.len() + line.len() > ACCESS_BYTES_MAX {
            drop(waiting);
            shared.dropped_total.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.extend_from_slice(line);
        let full = how == Push::Soon && waiting.len() > BUFFER_BYTES_MAX;
        drop(waiting);
        if how == Push::Now || full {
            shared.flush();
        } else if was_empty {
            shared.some.notify_one();
        }
    }

    /// Write everything that waits.
    pub(crate) fn flush(&self) {
        self.0.flush();
    }
}

impl Shared {
    fn flush(&self) {
        let mut out = self.out.lock();
        let lines = std::mem::take(&mut *self.waiting.lock());
        if lines.is_empty() {
            return;
        }
        let written = out.write_all(&lines).and_then(|()| out.flush());
        let failed = written.is_err();
        if failed {
            let count = lines.iter().filter(|c| **c == b'\n').count() as u64;
            self.failed_total.fetch_add(count, Ordering::Relaxed);
        }
        self.failing.store(failed, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.flush();
    }
}

/// One of the logs that people read with tools: a line of JSON for each thing that happened.
pub struct Sink {
    name: &'static str,
    path: Option<PathBuf>,
    buffer: Option<Buffer>,
}

impl Sink {
    /// Open a log. `name` is for messages: `access` or `audit`.
    ///
    /// Errors: a file that cannot be opened.
    pub fn open(name: &'static str, target: &LogTarget) -> io::Result<Sink> {
        Ok(match target {
            LogTarget::None => Sink { name, path: None, buffer: None },
            LogTarget::Stderr => Sink { name, path: None, buffer: Some(Buffer::start(name, io::stderr())) },
            LogTarget::File(path) => {
                let buffer = Buffer::start(name, append_to(path)?);
                Sink { name, path: Some(path.clone()), buffer: Some(buffer) }
            }
        })
    }

    /// Whether anybody reads it: without, no line need be made.
    pub fn is_on(&self) -> bool {
        self.buffer.is_some()
    }

    /// A line that may be dropped when the disk or pipe does not keep up.
    pub fn offer(&self, line: Line) {
        if let Some(buffer) = &self.buffer {
            buffer.push(&line.end(), Push::OrDrop);
        }
    }

    /// A line that is written, or its loss counted and logged, when this returns.
    pub fn write(&self, line: Line) {
        let Some(buffer) = &self.buffer else { return };
        let was_failing = buffer.0.failing.load(Ordering::Relaxed);
        buffer.push(&line.end(), Push::Now);
        if !was_failing && buffer.0.failing.load(Ordering::Relaxed) {
            tracing::error!(log = self.name, path = ?self.path, "lines of this log are lost: it cannot be written");
        }
    }

    /// Write everything that waits.
    pub fn flush(&self) {
        if let Some(buffer) = &self.buffer {
            buffer.flush();
        }
    }

    /// Open the file anew, after somebody moved it away. Nothing waiting is lost.
    ///
    /// Errors: a file that cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let (Some(path), Some(buffer)) = (&self.path, &self.buffer) else { return Ok(()) };
        let file = append_to(path)?;
        // What waits came before the change of files, and belongs into the old one.
        buffer.flush();
        *buffer.0.out.lock() = Box::new(file);
        Ok(())
    }

    /// Lines that were dropped because the buffer was full, and lines whose write failed.
    pub fn lost(&self) -> (u64, u64) {
        self.buffer.as_ref().map_or((0, 0), |buffer| {
            (buffer.0.dropped_total.load(Ordering::Relaxed), buffer.0.failed_total.load(Ordering::Relaxed))
        })
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sink({} to {:?})", self.name, self.path)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// A line of JSON in the making.
pub struct Line(String);

impl Line {
    /// Begin with the time.
    pub fn at(now: Timestamp) -> Line {
        let mut text = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _ = write!(text, "{{\"time\":\"{}\"", now.rfc3339());
        Line(text)
    }

    /// A text; from outside, so it is escaped, and cut at 2 KiB.
    pub fn text(&mut self, key: &'static str, value: &str) -> &mut Line {
        let end = if value.len() <= FIELD_BYTES_MAX { value.len() } else { value.floor_char_boundary(FIELD_BYTES_MAX) };
        self.key(key);
        self.0.push('"');
        escape(&mut self.0, &value[..end]);
        self.0.push('"');
        self
    }

    /// A text, when there is one.
    pub fn maybe(&mut self, key: &'static str, value: Option<&str>) -> &mut Line {
        if let Some(value) = value {
            self.text(key, value);
        }
        self
    }

    /// A number.
    pub fn number(&mut self, key: &'static str, value: u64) -> &mut Line {
        self.key(key);
        let _ = write!(self.0, "{value}");
        self
    }

    /// Microseconds as milliseconds.
    pub fn millis(&mut self, key: &'static str, micros: u64) -> &mut Line {
        self.key(key);
        let _ = write!(self.0, "{}.{:03}", micros / 1_000, micros % 1_000);
        self
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'static str, value: bool) -> &mut Line {
        self.key(key);
        self.0.push_str(if value { "true" } else { "false" });
        self
    }

    fn key(&mut self, key: &'static str) {
        self.0.push_str(",\"");
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push_str("}\n");
        self.0.into_bytes()
    }
}

/// As JSON has it; and nothing that a terminal might take for a command.
fn escape(out: &mut String, text: &str) {
    if !text.bytes().any(|c| c < 0x20 || c == b'"' || c == b'\\' || c >= 0x7f) {
        return out.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_urgent_line_takes_the_earlier_ones_with_it() {
        let out = Out::default();
        let lines = Buffer::start("test", out.clone());
        lines.push(b"one\n", Push::Soon);
        lines.push(b"two\n", Push::Now);
        assert_eq!(out.0.lock().as_slice(), b"one\ntwo\n");
    }

    #[test]
    fn a_full_buffer_is_written_by_whoever_fills_it() {
        let out = Out::default();
        let lines = Buffer::start("test", out.clone());
        let long = vec![b'x'; BUFFER_BYTES_MAX + 1];
        lines.push(&long, Push::Soon);
        assert_eq!(out.0.lock().len(), long.len());
    }

    #[test]
    fn what_may_be_dropped_is_dropped_and_counted_when_nobody_takes_it() {
        let out = Out::default();
        let lines = Buffer::start("test", out.clone());
        let stuck = lines.0.out.lock();
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..20 {
            // Never waits, though nothing can be written.
            lines.push(&line, Push::OrDrop);
        }
        assert!(lines.0.waiting.lock().len() <= ACCESS_BYTES_MAX);
        let dropped = lines.0.dropped_total.load(Ordering::Relaxed);
        drop(stuck);
        lines.flush();
        assert!(dropped >= 3, "{dropped}");
        assert_eq!(out.0.lock().len() as u64, (20 - dropped) * 1024 * 1024);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit.log"), dir.path().join("audit.log.1"));
        let sink = Sink::open("audit", &LogTarget::File(path.clone())).unwrap();
        let say = |what: &str| {
            let mut line = Line::at(Timestamp(0));
            line.text("what", what);
            sink.write(line);
        };
        say("one");
        std::fs::rename(&path, &old).unwrap();
        say("two");
        sink.reopen().unwrap();
        say("three");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert!(read(&old).contains("one") && read(&old).contains("two"));
        assert!(read(&path).contains("three") && !read(&path).contains("two"));
        assert_eq!(sink.lost(), (0, 0));
    }

    #[test]
    fn a_write_that_fails_is_counted() {
        let Ok(full) = File::options().write(true).open("/dev/full") else { return };
        let sink = Sink { name: "audit", path: None, buffer: Some(Buffer::start("audit", full)) };
        sink.write(Line::at(Timestamp(0)));
        assert_eq!(sink.lost(), (0, 1));
    }

    #[test]
    fn a_line_is_json_whatever_is_put_into_it() {
        let mut line = Line::at(Timestamp(0));
        let nasty = "a\"b\\c\nd\u{1b}[31m\u{202e}é\u{7f}";
        line.text("x", nasty).number("n", 7).millis("ms", 12_034).flag("whole", true).maybe("none", None);
        let long = "é".repeat(FIELD_BYTES_MAX);
        line.text("long", &long);
        let bytes = line.end();
        assert_eq!(bytes.iter().filter(|c| **c == b'\n').count(), 1);
        assert!(!bytes.contains(&0x1b));
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            (value["x"].as_str(), value["n"].as_u64(), value["ms"].as_f64()),
            (Some(nasty), Some(7), Some(12.034))
        );
        assert_eq!(value["long"].as_str().map(str::len), Some(FIELD_BYTES_MAX));
    }
}
