//! What a build tells about itself while it runs.

use std::time::Duration;

use portolan_types::Digest;

pub use crate::exec::Stream;

/// A step's number in the log, from 1, in the order in which steps appear.
pub type StepId = u32;

/// One thing that happened. Events of one step come in order; those of steps that run side
/// by side are interleaved.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A step begins, or is found in the cache.
    StepStarted {
        /// Its number.
        step: StepId,
        /// What it is: `[builder 2/4] RUN pip install flask`, `[internal] load metadata for …`.
        title: String,
    },
    /// A `RUN` step wrote something.
    Output {
        /// Which step.
        step: StepId,
        /// Standard output or standard error.
        stream: Stream,
        /// The bytes, cut anywhere.
        bytes: Vec<u8>,
        /// Time since the step began.
        at: Duration,
    },
    /// A line about a step that the engine itself has to say (`pulling from …`).
    Note {
        /// Which step.
        step: StepId,
        /// The line.
        text: String,
        /// Time since the step began.
        at: Duration,
    },
    /// The step was done before; nothing ran.
    Cached {
        /// Which step.
        step: StepId,
    },
    /// The step is done.
    Done {
        /// Which step.
        step: StepId,
        /// How long it took.
        elapsed: Duration,
    },
    /// The step failed; the build will end.
    Failed {
        /// Which step.
        step: StepId,
        /// Why.
        message: String,
    },
    /// The step was stopped because the build ends.
    Cancelled {
        /// Which step.
        step: StepId,
    },
    /// Something about the Dockerfile or the request that is probably not meant.
    Warning {
        /// A sentence, with `file:line` where it has a place.
        text: String,
    },
    /// The image is complete.
    Exported {
        /// The manifest's digest.
        manifest: Digest,
        /// The configuration's digest: docker's image id.
        config: Digest,
    },
}
