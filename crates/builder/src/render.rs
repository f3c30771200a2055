//! Events as lines for people and logs.

use crate::error::BuildError;
use crate::event::Event;

/// Turns [`Event`]s into plain lines in docker's shape (`#5 [2/4] RUN …`, `#5 0.412 out`,
/// `#5 DONE 1.2s`). Lines come without their end; the log's owner adds it.
#[derive(Debug, Default)]
pub struct Plain {}

impl Plain {
    /// A renderer that has seen nothing.
    pub fn new() -> Plain {
        Plain::default()
    }

    /// Take one event; hand on the lines that are complete now.
    pub fn event(&mut self, event: &Event, line: &mut dyn FnMut(&str)) {
        let _ = (event, line);
    }

    /// The lines that close the log of a failed build: the guilty part of the Dockerfile and
    /// the error. Call it once, after the last event.
    pub fn failed(&mut self, error: &BuildError, line: &mut dyn FnMut(&str)) {
        line(&format!("ERROR: {error}"));
    }
}
