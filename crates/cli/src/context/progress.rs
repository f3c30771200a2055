//! Progress: a bar on a terminal, a line at the end elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::talk::Talk;

/// Progress of something that moves bytes. Shared between threads by reference.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    bytes: AtomicU64,
    items: AtomicU64,
}

impl Progress {
    /// Bytes of a total that becomes known as it goes.
    pub(crate) fn bytes(talk: &Talk, what: &'static str) -> Progress {
        Progress::new(talk, what, "{prefix} {bytes}/{total_bytes} {wide_bar} {binary_bytes_per_sec}")
    }

    /// Bytes of files, of a total that may become known.
    pub(crate) fn files(talk: &Talk, what: &'static str) -> Progress {
        Progress::new(talk, what, "{prefix} {bytes} {wide_bar} {binary_bytes_per_sec} {msg}")
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    fn new(talk: &Talk, what: &'static str, template: &str) -> Progress {
        let bar = if talk.terminal && talk.warnings {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(what);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        } else {
            ProgressBar::hidden()
        };
        Progress { bar, bytes: AtomicU64::new(0), items: AtomicU64::new(0) }
    }

    /// So many bytes more are to come.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bar.set_length(self.bar.length().unwrap_or(0) + bytes);
    }

    /// Bytes went by.
    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    /// One file or blob is done.
    pub(crate) fn item(&self) {
        let items = self.items.fetch_add(1, Ordering::Relaxed) + 1;
        // Not for each of twenty thousand: drawing is slower than packing.
        if items.is_multiple_of(64) {
            self.bar.set_message(format!("{items} files"));
        }
    }

    /// Take the bar away. Answers items and bytes.
    pub(crate) fn finish(&self) -> (u64, u64) {
        self.bar.finish_and_clear();
        (self.items.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// `1.5 MiB`
pub(crate) fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
