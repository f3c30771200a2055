//! What happens in a build, told to the run's log.

use parking_lot::Mutex;
use portolan_builder::render::Plain;
use portolan_builder::{BuildError, ErrorKind, Event};
use portolan_tasks::RunLog;

use super::run::Trouble;

/// Writes a build's events into a log as they come.
pub(super) struct Teller<'l> {
    log: &'l RunLog,
    renderer: Mutex<Plain>,
}

impl<'l> Teller<'l> {
    pub(super) fn new(log: &'l RunLog) -> Teller<'l> {
        Teller { log, renderer: Mutex::new(Plain::new()) }
    }

    /// Tell one event. From any thread: one lock for rendering and writing keeps a step's lines
    /// in order; the lines of one event go out together.
    pub(super) fn event(&self, event: &Event) {
        let mut lines = Lines::default();
        let mut renderer = self.renderer.lock();
        renderer.event(event, &mut |line| lines.push(line));
        lines.write(self.log);
    }

    /// Tell what the build warned of, once it is over.
    pub(super) fn warnings(&self) {
        let mut lines = Lines::default();
        self.renderer.lock().warnings(&mut |line| lines.push(line));
        lines.write(self.log);
    }

    /// Tell why the build failed. What is to become of the run.
    pub(super) fn failed(&self, error: BuildError) -> Trouble {
        if error.kind == ErrorKind::Cancelled {
            return Trouble::Stopped;
        }
        self.warnings();
        let mut lines = Lines::default();
        self.renderer.lock().failed(&error, &mut |line| lines.push(line));
        lines.write(self.log);
        match error.kind {
            ErrorKind::Internal => {
                tracing::error!(error = error.message, "a build failed for a reason of ours");
                Trouble::Server(error.message)
            }
            _ => Trouble::Order(error.message),
        }
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn push(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn write(self, log: &RunLog) {
        if !self.0.is_empty() {
            log.line(&self.0);
        }
    }
}
