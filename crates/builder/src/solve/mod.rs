//! From instructions to an image.
//!
//! `eval` says what a stage amounts to, `plan` does so for every stage that the target needs
//! and gives each step its key, `probe` finds the steps that were done before, `work` does
//! the others, `image` writes the documents.
//!
//! A step's *key* says what it would do; its *result* is what came of doing it once. Records
//! in the step cache lead from keys to results, and a record counts only on top of the very
//! result it was made on: steps that give something else each time are never mixed.

mod eval;
mod history;
mod image;
mod key;
mod log;
mod perform;
mod plan;
mod probe;
mod signal;
mod work;

use crate::cancel::Cancel;
use crate::error::{BuildError, ErrorKind, Source};
use crate::event::Event;
use crate::graph::{Globals, Graph};
use crate::{BuildRequest, Built, Engine, instruct, parse};

use log::Log;
use plan::Planner;

/// Build what `request` asks for.
pub(crate) fn build(
    engine: &Engine,
    request: &BuildRequest,
    events: &(dyn Fn(Event) + Sync),
    cancel: &Cancel,
) -> Result<Built, BuildError> {
    let log = Log::new(events);
    let source = Source::new(&request.dockerfile_name, &String::from_utf8_lossy(&request.dockerfile));
    let fault = |fault| source.error(&fault);

    let definition = log.step(&format!("[internal] load build definition from {}", request.dockerfile_name));
    let file = match parse::parse(&request.dockerfile).and_then(instruct::read) {
        Ok(file) => file,
        Err(error) => {
            definition.failed(&source.sentence(&error));
            return Err(source.error(&error));
        }
    };
    definition.note(&format!("transferring dockerfile: {}B", request.dockerfile.len()));
    definition.done();
    for warning in &file.warnings {
        log.warning(&source.sentence(warning));
    }

    let build_arg = |name: &str| request.build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let target = request.target.as_deref().filter(|t| !t.is_empty());
    let globals = Globals::new(&file, &request.platform, target, &build_arg).map_err(fault)?;
    let graph = Graph::new(&file, &globals, &request.platform, target).map_err(fault)?;
    cancel.check().map_err(|_| BuildError::cancelled())?;

    let planned = Planner::new(engine, request, &source, &log, &file, &graph, &globals, cancel)?.plan()?;
    for warning in planned.warnings(request, &globals) {
        log.warning(&warning);
    }
    let probed = probe::probe(engine, &planned, request.no_cache);
    let site = work::Site { engine, request, source: &source, log: &log, planned: &planned };
    match work::work(&site, probed, cancel) {
        Ok(worked) => image::export(engine, request, &log, &planned, worked),
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
