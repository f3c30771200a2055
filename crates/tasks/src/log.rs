//! A run's log: lines that end in `\r\n`, appended while the run goes on and never changed.
//!
//! `az` prints a log up to the last `\r\n` it has seen, so every line is written in one
//! append, at once. The log is bounded: past [`RUN_LOG_BYTES_MAX`] one line says so and the
//! rest is dropped, except for the last words of the run ([`RunLog::end`]). Values of secret
//! build arguments are replaced before anything is written.
//!
//! [`RUN_LOG_BYTES_MAX`]: portolan_types::limits::RUN_LOG_BYTES_MAX

use std::sync::Arc;

use parking_lot::Mutex;
use portolan_store::blob::Blobs;
use portolan_types::{RunId, Secret, Timestamp};
use tokio::sync::watch;

/// What a secret looks like in the log.
const MASK: &str = "***";

/// Where a run's log is in the blob store.
pub fn log_key(registry: i64, id: &RunId) -> String {
    format!("logs/{registry}/{id}/rawtext.log")
}

/// The log of a run under way. Cheap to clone. Every call may block for the time of a small
/// write to a file.
#[derive(Clone)]
pub struct RunLog(Arc<Inner>);

struct Inner {
    blobs: Arc<dyn Blobs>,
    key: String,
    bytes_max: u64,
    masked: Vec<Secret<String>>,
    state: Mutex<State>,
    len: watch::Sender<u64>,
}

struct State {
    len: u64,
    full: bool,
    broken: bool,
}

impl RunLog {
    /// Go on with the log under `key`, which holds `len` bytes. `masked` are the values
    /// that must not appear in it.
    pub(crate) fn new(
        blobs: Arc<dyn Blobs>,
        key: String,
        len: u64,
        bytes_max: u64,
        masked: &[Secret<String>],
    ) -> RunLog {
        // A value of several lines is written line by line, so each is masked by itself;
        // longest first, so that a value inside another does not spoil it.
        let mut masked: Vec<Secret<String>> = masked
            .iter()
            .flat_map(|s| s.expose().split(['\r', '\n']))
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Secret::new(part.to_owned()))
            .collect();
        masked.sort_by_key(|s| std::cmp::Reverse(s.expose().len()));
        let state = Mutex::new(State { len, full: false, broken: false });
        RunLog(Arc::new(Inner { blobs, key, bytes_max, masked, state, len: watch::Sender::new(len) }))
    }

    /// Append text; each of its lines becomes a line of the log.
    pub fn line(&self, text: &str) {
        self.write(text, false);
    }

    /// Append a line with the time before it, as ACR's own lines have it:
    /// `2026/11/20 10:00:00 Downloading source code...`.
    pub fn note(&self, text: &str) {
        self.line(&format!("{} {text}", stamp(Timestamp::now())));
    }

    /// Append the last words of the run; they are kept even when the log is full. False
    /// when the store did not take them.
    pub fn end(&self, text: &str) -> bool {
        self.write(text, true)
    }

    /// `text` without what must not be seen.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.mask(text).unwrap_or_else(|| text.to_owned())
    }

    /// Bytes written so far; the sender wakes those who wait for more.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.len.subscribe()
    }

    fn write(&self, text: &str, last: bool) -> bool {
        let inner = &*self.0;
        let mut bytes = Vec::with_capacity(text.len() + 2);
        for line in text.trim_end_matches(['\r', '\n']).split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let masked = self.mask(line);
            bytes.extend_from_slice(masked.as_deref().unwrap_or(line).as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        let mut state = inner.state.lock();
        if !last {
            if state.full {
                return true;
            }
            if state.len + bytes.len() as u64 > inner.bytes_max {
                state.full = true;
                bytes = format!("[the log is longer than {} bytes; the rest is not kept]\r\n", inner.bytes_max).into();
            }
        }
        match inner.blobs.object_append(&inner.key, &bytes) {
            Ok(len) => {
                state.len = len;
                inner.len.send_replace(len);
                true
            }
            // The build is worth more than its log: a full disk ends it soon enough.
            Err(error) => {
                if !state.broken {
                    state.broken = true;
                    tracing::error!(%error, key = %inner.key, "append to a run's log");
                }
                false
            }
        }
    }

    fn mask(&self, line: &str) -> Option<String> {
        let mut masked: Option<String> = None;
        for secret in &self.0.masked {
            let text = masked.as_deref().unwrap_or(line);
            if text.contains(secret.expose().as_str()) {
                masked = Some(text.replace(secret.expose().as_str(), MASK));
            }
        }
        masked
    }
}

impl std::fmt::Debug for RunLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunLog({})", self.0.key)
    }
}

/// `2026/11/20 10:00:00`, UTC.
fn stamp(now: Timestamp) -> String {
    let text = now.rfc3339();
    text.get(..19).unwrap_or_default().replace('-', "/").replace('T', " ")
}

#[cfg(test)]
mod tests {
    use portolan_store::blob::FsBlobs;

    use super::*;

    fn written(bytes_max: u64, secrets: &[&str], use_log: impl FnOnce(&RunLog)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(FsBlobs::open(dir.path()).unwrap());
        let secrets: Vec<_> = secrets.iter().map(|s| Secret::new((*s).to_owned())).collect();
        let key = log_key(1, &RunId::nth(1));
        let log = RunLog::new(blobs.clone(), key.clone(), 0, bytes_max, &secrets);
        use_log(&log);
        let text = std::fs::read_to_string(blobs.object_path(&key).unwrap()).unwrap();
        assert_eq!(*log.watch().borrow(), text.len() as u64);
        text
    }

    #[test]
    fn every_line_ends_as_az_wants_it() {
        let text = written(1000, &[], |log| {
            log.line("one\ntwo\r\nthree\n");
            log.line("");
        });
        assert_eq!(text, "one\r\ntwo\r\nthree\r\n\r\n");
    }

    #[test]
    fn secrets_do_not_show() {
        let text = written(1000, &["hunter2", "hunter2-long", "two\nlines", ""], |log| {
            log.line("a hunter2-long b hunter2 c");
            log.line("two");
            assert!(log.end("lines hunter2"));
        });
        assert_eq!(text, "a *** b *** c\r\n***\r\n*** ***\r\n");
    }

    #[test]
    fn a_full_log_keeps_its_last_words() {
        let text = written(30, &[], |log| {
            log.line("0123456789");
            log.line(&"x".repeat(30));
            log.line("dropped");
            assert!(log.end("Run ID: cb1 failed"));
        });
        assert_eq!(
            text,
            "0123456789\r\n[the log is longer than 30 bytes; the rest is not kept]\r\nRun ID: cb1 failed\r\n"
        );
    }

    #[test]
    fn stamps() {
        assert_eq!(stamp(Timestamp::parse("2026-11-20T10:00:00.9Z").unwrap()), "2026/11/20 10:00:00");
    }
}
