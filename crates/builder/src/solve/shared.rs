//! What builds share while they go on, and what the parts of one build share.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use portolan_types::{Digest, Platform};

use super::flight::{Flights, Held};
use super::log::Log;
use super::plan::Image;
use crate::diff::Layer;
use crate::error::Source;
use crate::exec::BuildDisk;
use crate::instruct::{Command, File, Stage};
use crate::snapshot::Chain;
use crate::{BuildRequest, Engine};

/// What the builds of one engine share while they go on.
#[derive(Default)]
pub(crate) struct Shared {
    pub(super) steps: Flights<Made>,
    pub(super) layers: Flights<Layer>,
}

/// What came of a step.
#[derive(Clone)]
pub(super) struct Made {
    /// Names the result.
    pub(super) id: Digest,
    /// When it was done, RFC 3339.
    pub(super) created: String,
    /// The state after it.
    pub(super) chain: Chain,
}

/// What the parts of one build share.
pub(super) struct Common<'a> {
    pub(super) engine: &'a Engine,
    pub(super) request: &'a BuildRequest,
    pub(super) source: &'a Source,
    pub(super) log: &'a Log<'a>,
    pub(super) file: &'a File,
    /// Different from all other builds'.
    pub(super) build: u64,
    /// Images that were found.
    pub(super) images: Flights<Image>,
    /// Steps and layers. A build that does everything anew shares with nobody else's.
    pub(super) shared: Arc<Shared>,
    pub(super) permits: Permits,
    /// What the build has written.
    pub(super) disk: BuildDisk,
    /// Results that others are to find until the build has ended and records are written.
    kept: Mutex<Vec<Box<dyn Send>>>,
}

impl<'a> Common<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        request: &'a BuildRequest,
        source: &'a Source,
        log: &'a Log<'a>,
        file: &'a File,
    ) -> Common<'a> {
        Common {
            engine,
            request,
            source,
            log,
            file,
            build: RandomState::new().hash_one("build"),
            images: Flights::default(),
            shared: if request.no_cache { Arc::default() } else { engine.flights.clone() },
            permits: Permits::new(engine.config.parallel_max.max(1)),
            disk: BuildDisk::new(engine.config.disk),
            kept: Mutex::default(),
        }
    }

    /// Let others find a result until this build has ended.
    pub(super) fn keep<T: Send + 'static>(&self, held: Held<T>)
    where
        Held<T>: Send,
    {
        self.kept.lock().push(Box::new(held));
    }
}

/// One platform's part of a build.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// Counted from 0.
    pub(super) number: usize,
    /// What its image runs on.
    pub(super) platform: &'a Platform,
    /// Whether there are others.
    pub(super) many: bool,
}

impl Part<'_> {
    /// What the log calls a stage: with its platform when there are several, and with what it
    /// makes things for when it asks. The shape is BuildKit's: `linux/amd64->arm64 builder`.
    pub(super) fn label(&self, label: &str, platform: &Platform, stage: &Stage) -> String {
        if !self.many {
            return label.to_owned();
        }
        let mut shown = platform.to_string();
        let asks = |name: &str| name.starts_with("TARGET") && name != "TARGETSTAGE";
        let crosses = stage
            .instructions
            .iter()
            .any(|i| matches!(&i.command, Command::Arg(args) if args.iter().any(|(name, _)| asks(name))));
        if crosses && *platform != *self.platform {
            shown.push_str("->");
            shown.push_str(&match platform.os == self.platform.os {
                true => match &self.platform.variant {
                    Some(variant) => format!("{}/{variant}", self.platform.architecture),
                    None => self.platform.architecture.clone(),
                },
                false => self.platform.to_string(),
            });
        }
        if !label.is_empty() {
            shown.push(' ');
            shown.push_str(label);
        }
        shown
    }

    /// A title with the platform before it, when there are several.
    pub(super) fn title(&self, title: &str) -> String {
        match self.many {
            true => format!("[{}] {title}", self.platform),
            false => title.to_owned(),
        }
    }
}

/// How many may work at once.
pub(super) struct Permits {
    free: Mutex<usize>,
    given_back: Condvar,
}

pub(super) struct Permit<'a>(&'a Permits);

impl Permits {
    fn new(free: usize) -> Permits {
        Permits { free: Mutex::new(free), given_back: Condvar::new() }
    }

    pub(super) fn take(&self) -> Permit<'_> {
        let mut free = self.free.lock();
        while *free == 0 {
            self.given_back.wait(&mut free);
        }
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.given_back.notify_one();
    }
}
