//! Logs: structured events to standard error, one line each.
//!
//! Lines are put into a buffer in memory and written by a thread of their own, so that a
//! request does not wait for a write to a pipe or disk. Warnings and errors are written at
//! once, by the thread that has them to say, after everything that came before them.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::{LogFormat, Settings, SettingsError};

/// Lines waiting to be written; when full, whoever has a line to say waits for the write.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// How long a line may wait for others before it is written.
const WAIT_MILLIS_MAX: u64 = 50;

/// Send events to standard error as the settings say. Call once for a process.
///
/// Errors: a filter that cannot be read.
pub(crate) fn init(settings: &Settings) -> Result<(), SettingsError> {
    let filter = EnvFilter::try_new(&settings.log_filter)
        .map_err(|why| SettingsError(format!("log_filter {:?}: {why}", settings.log_filter)))?;
    let writer = LINES.get_or_init(|| Lines::start(io::stderr())).clone();
    let text = match settings.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stderr().is_terminal(),
    };
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let result = if text {
        events.with_ansi(io::stderr().is_terminal()).try_init()
    } else {
        events.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    result.map_err(|why| SettingsError(format!("start logging: {why}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("(no message)");
        tracing::error!(target: "portolan::panic", at, what, "panic");
    }));
    Ok(())
}

/// Write everything logged so far; call before the process ends.
pub(crate) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.0.flush();
    }
}

static LINES: OnceLock<Lines> = OnceLock::new();

/// The buffer between those who log and the file.
#[derive(Clone)]
struct Lines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Vec<u8>>,
    some: Condvar,
    /// Held while writing, so that lines keep their order.
    out: Mutex<Box<dyn Write + Send>>,
}

impl Lines {
    fn start(out: impl Write + Send + 'static) -> Lines {
        let shared =
            Arc::new(Shared { waiting: Mutex::new(Vec::new()), some: Condvar::new(), out: Mutex::new(Box::new(out)) });
        let weak = Arc::downgrade(&shared);
        // Without its thread the buffer still works: it is written whenever it is full.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
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
        Lines(shared)
    }
}

impl Shared {
    fn flush(&self) {
        let mut out = self.out.lock();
        let lines = std::mem::take(&mut *self.waiting.lock());
        // There is nowhere left to complain to.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { lines: self.clone(), urgent: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line { lines: self.clone(), urgent: *meta.level() <= Level::WARN }
    }
}

/// One event being written.
struct Line {
    lines: Lines,
    urgent: bool,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let shared = &self.lines.0;
        let mut waiting = shared.waiting.lock();
        let was_empty = waiting.is_empty();
        waiting.extend_from_slice(bytes);
        let full = waiting.len() > BUFFER_BYTES_MAX;
        drop(waiting);
        if self.urgent || full {
            shared.flush();
        } else if was_empty {
            shared.some.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
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
        let sink = Sink::default();
        let lines = Lines::start(sink.clone());
        Line { lines: lines.clone(), urgent: false }.write_all(b"one\n").unwrap();
        Line { lines: lines.clone(), urgent: true }.write_all(b"two\n").unwrap();
        assert_eq!(sink.0.lock().as_slice(), b"one\ntwo\n");
    }

    #[test]
    fn a_full_buffer_is_written_by_whoever_fills_it() {
        let sink = Sink::default();
        let lines = Lines::start(sink.clone());
        let long = vec![b'x'; BUFFER_BYTES_MAX + 1];
        Line { lines, urgent: false }.write_all(&long).unwrap();
        assert_eq!(sink.0.lock().len(), long.len());
    }
}
