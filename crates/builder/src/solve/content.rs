//! Steps found by what they have before them, not by how that came about.
//!
//! A step's key says how all below it is made, so a comment in a stage gives new keys to every
//! stage that copies from it. What such a copy takes is often the same as before: the program
//! that was compiled again is the same program. So where the state below and the files to
//! copy are at hand, the step is looked up by these, and what follows it by the state that it
//! led to. Steps that nothing of the kind lies below have only one way to come about and are
//! looked up by their keys alone.

use portolan_types::Digest;

use super::eval::{CopyOp, Op};
use super::key::Key;
use super::plan::{StageBase, StagePlan, copy_flags, excluded};
use super::probe::{self, Done};
use super::shared::Made;
use super::work::{Crew, State, Stepped, Stop};
use crate::cancel::Cancel;
use crate::copy::{CopyError, Plan, SelectOpts};

/// Whether a step copies from a stage or an image.
pub(super) fn copies_from(plan: &StagePlan, number: usize) -> bool {
    let step = plan.stage.steps.get(number);
    step.is_some_and(|step| matches!(&step.op, Op::Copy(copy) if copy.from.is_some()))
}

impl Crew<'_> {
    /// Whether one of a stage's first steps, or something below them, copies from elsewhere.
    pub(super) fn by_content(&self, index: usize, steps: usize) -> bool {
        let (mut at, mut steps) = (index, steps);
        while let Some(Some(plan)) = self.site.planned.stages.get(at) {
            if (0..steps.min(plan.stage.steps.len())).any(|number| copies_from(plan, number)) {
                return true;
            }
            match plan.base {
                StageBase::Stage(below) => (at, steps) = (below, usize::MAX),
                _ => break,
            }
        }
        false
    }

    /// By what a step is found on the very state below it, where there is more than one way
    /// to that.
    pub(super) fn on_key(
        &self,
        plan: &StagePlan,
        number: usize,
        below: &State,
        from: Option<&State>,
    ) -> Result<Option<Digest>, Stop> {
        let (Some(step), Some(op)) = (plan.stage.steps.get(number), plan.ops.get(number)) else { return Ok(None) };
        let op = match (&step.op, from) {
            (Op::Copy(copy), Some(from)) if !copy.sources.is_empty() => match self.copied(copy, from)? {
                Some(op) => op,
                None => return Ok(None),
            },
            _ if below.by_content => *op,
            _ => return Ok(None),
        };
        Ok(Some(Key::new("on").digest(&below.id).digest(&op).finish()))
    }

    /// What a copy from elsewhere does, by the files it takes; `None` when they cannot be
    /// found, which the copy itself says better.
    fn copied(&self, copy: &CopyOp, from: &State) -> Result<Option<Digest>, Stop> {
        let _permit = self.site.common.permits.take();
        let snapshots = &self.site.engine.snapshots;
        let source = snapshots.begin(&from.chain).map_err(|e| self.machine("mount the files to copy", &e))?;
        let exclude = excluded(copy);
        let select =
            SelectOpts { hidden: None, exclude: exclude.as_ref(), parents: copy.parents, cancel: Some(&self.stop) };
        let files = Plan::resolve(source.root(), &copy.sources, &select).and_then(|plan| plan.digest(&self.stop));
        match files {
            Ok(files) => {
                let key = copy_flags(Key::new("copy files"), copy).digest(&files);
                // With these, names below the destination come from the patterns.
                let patterns = copy.sources.iter().filter(|_| copy.parents).map(String::as_str);
                Ok(Some(key.list(patterns.collect::<Vec<_>>().into_iter()).finish()))
            }
            Err(CopyError::User(_) | CopyError::Missing { .. }) => Ok(None),
            Err(CopyError::Cancelled) => Err(Stop::Elsewhere),
            Err(CopyError::Io(error)) if Cancel::is_cause_of(&error) => Err(Stop::Elsewhere),
            Err(CopyError::Io(error)) => Err(self.machine("read the files to copy", &error)),
        }
    }

    /// A step that was done on this very state before, with the state it led to.
    pub(super) fn found_on(&self, on: &Digest, below: &State) -> Result<Option<Stepped>, Stop> {
        let engine = self.site.engine;
        if self.site.request.no_cache {
            return Ok(None);
        }
        let Some(found) = probe::look_up(engine, on, &below.id, true, self.site.epoch_secs, false) else {
            return Ok(None);
        };
        let chain = match (engine.snapshots.find(&found.id), found.files()) {
            (Some(chain), _) => chain,
            (None, Some(layer)) => {
                let _permit = self.site.common.permits.take();
                engine
                    .snapshots
                    .unpack_on(&below.chain, &layer.blob, &layer.diff_id, &found.id, &self.stop)
                    .map_err(|e| self.machine("unpack a cached layer", &e))?
            }
            (None, None) => return Ok(None),
        };
        let made = Made { id: found.id, created: found.created.clone(), chain };
        Ok(Some(Stepped { made, on: Some(*on), found: Some(Done { on: Some(*on), ..found }) }))
    }
}
