//! From instructions to an image.
//!
//! `eval` says what a stage amounts to, `plan` does so for every stage that the target needs
//! and gives each step its key, `probe` finds the steps that were done before, `work` does
//! the others, `image` writes the documents.
//!
//! A build for several platforms is one *part* for each: graph, plan and work of its own, side
//! by side. What has the same key is done once, by way of `flight`, which also keeps builds
//! that run at the same time from doing one thing twice.
//!
//! A step's *key* says what it would do; its *result* is what came of doing it once. Records
//! in the step cache lead from keys to results, and a record counts only on top of the very
//! result it was made on: steps that give something else each time are never mixed.

mod blot;
mod checks;
mod content;
mod eval;
mod exports;
mod flight;
mod history;
mod image;
mod key;
mod log;
mod mounts;
mod perform;
mod plan;
mod probe;
mod remote;
mod run;
mod shared;
mod signal;
mod work;

use crate::cancel::Cancel;
use crate::error::{BuildError, ErrorKind, Source};
use crate::event::Event;
use crate::graph::{Globals, Graph};
use crate::{BuildRequest, Built, Engine, PLATFORMS_MAX};
use portolan_types::Platform;

pub(crate) use checks::check;
use log::Log;
use plan::Planner;
pub(crate) use probe::imported_record;
pub(crate) use shared::Shared;
use shared::{Common, Part};

/// Build what `request` asks for, for each of the platforms.
pub(crate) fn build(
    engine: &Engine,
    request: &BuildRequest,
    platforms: &[Platform],
    events: &(dyn Fn(Event) + Sync),
    cancel: &Cancel,
) -> Result<Vec<Built>, BuildError> {
    let refuse = |why: String| Err(BuildError::new(ErrorKind::Dockerfile, why));
    if platforms.is_empty() || platforms.len() > PLATFORMS_MAX {
        return refuse(format!("a build is for 1 to {PLATFORMS_MAX} platforms, not for {}", platforms.len()));
    }
    if let Some(twice) = platforms.iter().enumerate().find(|(n, p)| platforms[..*n].contains(p)) {
        return refuse(format!("the platform {} is named twice", twice.1));
    }
    let mut changed = None;
    let request = match (request.source_date_epoch, checks::truth(request, "BUILDKIT_INLINE_CACHE")) {
        (None, false) => request,
        (secs, inline) => {
            let request = changed.insert(request.clone());
            // Instructions that ask for it see it, whichever way it was given.
            request.build_args.extend(secs.map(|secs| ("SOURCE_DATE_EPOCH".to_owned(), secs.to_string())));
            request.cache_export.inline |= inline;
            request
        }
    };
    let log = Log::new(events);
    let source = Source::new(&request.dockerfile_name, &String::from_utf8_lossy(&request.dockerfile));
    let definition = log.step(&format!("[internal] load build definition from {}", request.dockerfile_name));
    let file = match checks::read(request) {
        Ok(file) => file,
        Err(error) => {
            definition.failed(&source.sentence(&error));
            return Err(source.error(&error));
        }
    };
    definition.note(&format!("transferring dockerfile: {}B", request.dockerfile.len()));
    definition.done();

    let common = Common::new(engine, request, &source, &log, &file);
    if let [platform] = platforms {
        let part = Part { number: 0, platform, many: false };
        return build_part(&common, part, cancel).map(|built| vec![built]);
    }
    // One that fails ends the others.
    let stop = Cancel::new();
    let _link = cancel.on_cancel({
        let stop = stop.clone();
        move || stop.cancel()
    });
    let parts: Vec<Result<Built, BuildError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(number, platform)| {
                let (common, stop) = (&common, &stop);
                scope.spawn(move || {
                    let built = build_part(common, Part { number, platform, many: true }, stop);
                    if built.is_err() {
                        stop.cancel();
                    }
                    built
                })
            })
            .collect();
        let panicked = || Err(BuildError::new(ErrorKind::Internal, "the build of a platform failed"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    if cancel.is_cancelled() {
        return Err(BuildError::cancelled());
    }
    let mut built = Vec::new();
    let mut cancelled = None;
    for part in parts {
        match part {
            Ok(image) => built.push(image),
            Err(error) if error.kind == ErrorKind::Cancelled => cancelled = Some(error),
            Err(error) => return Err(error),
        }
    }
    cancelled.map_or(Ok(built), Err)
}

/// Build the image for one platform.
fn build_part(common: &Common<'_>, part: Part<'_>, cancel: &Cancel) -> Result<Built, BuildError> {
    let Common { engine, request, source, log, file, .. } = common;
    let fault = |fault| source.error(&fault);
    let build_arg = |name: &str| request.build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let target = request.target.as_deref().filter(|t| !t.is_empty());
    let globals = Globals::new(file, part.platform, target, &build_arg).map_err(fault)?;
    let graph = Graph::new(file, &globals, part.platform, target).map_err(fault)?;
    cancel.check().map_err(|_| BuildError::cancelled())?;

    let epoch_secs = request.epoch_secs()?;
    let planned = Planner::new(common, part, &graph, &globals, cancel)?.plan()?;
    checks::report(file, &graph, &planned, source, log)?;
    for warning in planned.warnings(request, &globals) {
        log.warning(&warning);
    }
    let probed = probe::probe(engine, &planned, request.no_cache, epoch_secs);
    let site = work::Site { engine, request, source, log, planned: &planned, common, part, epoch_secs };
    match work::work(&site, probed, cancel) {
        Ok(worked) => image::export(engine, request, epoch_secs, part.platform, log, &planned, worked),
        Err(_) if cancel.is_cancelled() => Err(BuildError::cancelled()),
        Err(error) => Err(error),
    }
}

/// A failure of the machine, or the build's end when that is what stopped the work.
fn internal(what: &str, error: &std::io::Error) -> BuildError {
    if Cancel::is_cause_of(error) {
        return BuildError::cancelled();
    }
    BuildError::new(ErrorKind::Internal, format!("{what}: {error}"))
}
