//! Doing what is not done: stages side by side, layers written behind their backs.
//!
//! What has to happen is asked for from the end: the target's layers are wanted, a missing
//! step wants the state below it and what it copies from, and so on down. Every stage that
//! is asked for something gets a thread. A thread waits for other stages only before it
//! takes a permit, so that stages cannot block each other.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use portolan_types::Digest;

use super::content::copies_from;
use super::eval::Op;
use super::flight::{Lead, Turn};
use super::internal;
use super::key::Key;
use super::log::{Log, StepLog};
use super::mounts::Ready;
use super::plan::{Planned, StageBase, StagePlan};
use super::probe::{self, Dated, Done, LayerRecord, Record, StageDone};
use super::shared::{Common, Made, Part};
use crate::cancel::Cancel;
use crate::diff::{self, Layer};
use crate::error::{BuildError, ErrorKind, Source};
use crate::graph::Origin;
use crate::sbom::Inventory;
use crate::snapshot::Chain;
use crate::{BuildRequest, Engine};

/// What everybody who works on a build knows.
pub(super) struct Site<'a> {
    pub(super) engine: &'a Engine,
    pub(super) request: &'a BuildRequest,
    pub(super) source: &'a Source,
    pub(super) log: &'a Log<'a>,
    pub(super) planned: &'a Planned,
    pub(super) common: &'a Common<'a>,
    pub(super) part: Part<'a>,
    /// SOURCE_DATE_EPOCH.
    pub(super) epoch_secs: Option<i64>,
}

/// A build whose target is done: all its layers are there and durable.
pub(super) struct Worked<'a> {
    pub(super) stages: Vec<StageDone>,
    /// The step under which the documents are written.
    pub(super) export: StepLog<'a>,
    /// What is in the image, when that was asked for.
    pub(super) packages: Option<Inventory>,
}

/// What is asked of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Want {
    /// Its steps' layers.
    layers: bool,
    /// The state at its end.
    root: bool,
}

/// Why a stage's thread stopped.
pub(super) enum Stop {
    /// This stage failed.
    Failed(BuildError),
    /// Another one did, or the build was cancelled.
    Elsewhere,
}

impl From<BuildError> for Stop {
    fn from(error: BuildError) -> Stop {
        Stop::Failed(error)
    }
}

/// A layer to write.
struct LayerJob {
    stage: usize,
    step: usize,
    /// The result it is the layer of.
    id: Digest,
    from: Material,
}

/// What a layer is made from.
enum Material {
    /// The files that the step left.
    Files(Chain),
    /// The same layer, its times as they are.
    Layer(Box<Layer>),
}

/// What came of a [`LayerJob`].
struct Written {
    stage: usize,
    step: usize,
    layer: Result<Layer, BuildError>,
}

/// What a step stands on: a result's name and its files.
#[derive(Clone)]
pub(super) struct State {
    pub(super) id: Digest,
    pub(super) chain: Chain,
    /// Whether it may have come about in another way than the keys say: something in it was
    /// copied from a stage or an image, which may be another and have the same files.
    pub(super) by_content: bool,
}

/// A step that was done, or found on what it stands on.
pub(super) struct Stepped {
    pub(super) made: Made,
    pub(super) on: Option<Digest>,
    pub(super) found: Option<Done>,
}

/// The state at the end of a stage, once it is there.
#[derive(Default)]
struct Slot {
    value: Mutex<Option<Result<State, ()>>>,
    set: Condvar,
}

impl Slot {
    fn put(&self, state: Result<State, ()>) {
        self.value.lock().get_or_insert(state);
        self.set.notify_all();
    }

    fn wait(&self) -> Result<State, Stop> {
        let mut value = self.value.lock();
        loop {
            match &*value {
                Some(Ok(state)) => return Ok(state.clone()),
                Some(Err(())) => return Err(Stop::Elsewhere),
                None => self.set.wait(&mut value),
            }
        }
    }
}

/// A slot that somebody is going to fill.
struct Promise<'a>(&'a Slot);

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        // Does nothing to one that is filled.
        self.0.put(Err(()));
    }
}

/// One build's work under way.
pub(super) struct Crew<'a> {
    pub(super) site: &'a Site<'a>,
    /// Raised when the build is to end, by a failure too.
    pub(super) stop: Cancel,
    wants: Vec<Want>,
    slots: Vec<Slot>,
    /// Base images' states, unpacked once.
    bases: Mutex<HashMap<Digest, Chain>>,
    /// Makes names of results different from all others.
    nonce: u64,
    count: AtomicU64,
}

/// Do what is missing. Steps that were done are recorded, also when a later one fails or the
/// build is cancelled.
pub(super) fn work<'a>(
    site: &'a Site<'a>,
    mut stages: Vec<StageDone>,
    cancel: &Cancel,
) -> Result<Worked<'a>, BuildError> {
    let planned = site.planned;
    let stop = Cancel::new();
    let _link = cancel.on_cancel({
        let stop = stop.clone();
        move || stop.cancel()
    });
    let parallel = site.engine.config.parallel_max.max(1);
    let crew = Crew {
        site,
        stop,
        wants: wants(site.request, planned, &stages),
        slots: planned.stages.iter().map(|_| Slot::default()).collect(),
        bases: Mutex::new(HashMap::new()),
        nonce: RandomState::new().hash_one(planned.target),
        count: AtomicU64::new(0),
    };
    let written: Mutex<Vec<Written>> = Mutex::new(Vec::new());
    let (jobs, queue) = crossbeam_channel::unbounded::<LayerJob>();

    let (failure, export) = std::thread::scope(|scope| {
        for _ in 0..parallel.min(2) {
            scope.spawn(|| {
                for job in queue.iter() {
                    // Not stopped by a failed step: what is done is worth keeping.
                    let layer = crew.layer(&job, cancel);
                    if layer.is_err() {
                        crew.stop.cancel();
                    }
                    written.lock().push(Written { stage: job.stage, step: job.step, layer });
                }
            });
        }
        let failure = crew.stages(&mut stages, &jobs);
        drop(jobs);
        let export = failure.is_none().then(|| site.log.step(&site.part.title("exporting to image")));
        (failure, export)
    });

    let mut failure = failure;
    let mut fresh = Vec::new();
    for Written { stage, step, layer } in written.into_inner() {
        match layer {
            Ok(layer) => {
                // Whoever cancelled does not wait for the disk; the steps are found again by
                // their snapshots.
                if cancel.is_cancelled() {
                    continue;
                }
                fresh.push(layer.blob.digest);
                if let Some(done) = stages[stage].steps.get_mut(step) {
                    done.layer = Some(layer);
                }
            }
            Err(error) => failure = failure.filter(|f| f.kind != ErrorKind::Cancelled).or(Some(error)),
        }
    }
    let synced = match fresh.is_empty() {
        true => Ok(()),
        false => site.engine.content.sync(&fresh),
    };
    match synced {
        Ok(()) => crew.record(&stages),
        Err(error) => failure = failure.or(Some(internal("keep the layers", &error))),
    }
    let packages = match failure {
        None => crew.packages(cancel),
        Some(_) => Ok(None),
    };
    let packages = packages.unwrap_or_else(|error| {
        failure = Some(error);
        None
    });
    match (failure, export) {
        (None, Some(export)) => Ok(Worked { stages, export, packages }),
        (failure, export) => {
            let error = failure.unwrap_or_else(BuildError::cancelled);
            if let Some(export) = export {
                export.failed(&error.message);
            }
            Err(error)
        }
    }
}

/// What the target's image asks of every stage.
fn wants(request: &BuildRequest, planned: &Planned, stages: &[StageDone]) -> Vec<Want> {
    let mut wants = vec![Want::default(); planned.stages.len()];
    let mut todo = vec![(planned.target, Want { layers: true, root: request.attest.sbom })];
    while let Some((index, want)) = todo.pop() {
        let before = wants[index];
        let now = Want { layers: before.layers || want.layers, root: before.root || want.root };
        let (Some(plan), true) = (&planned.stages[index], now != before) else { continue };
        wants[index] = now;
        let done = stages[index].steps.len();
        let missing = &plan.stage.steps[done..];
        if let StageBase::Stage(base) = plan.base {
            // A stage of no steps at all is its base.
            let root = (!missing.is_empty() && done == 0) || (now.root && plan.stage.steps.is_empty());
            if now.layers || root {
                todo.push((base, Want { layers: now.layers, root }));
            }
        }
        for step in missing {
            for origin in step.op.origins() {
                if let Origin::Stage(from) = origin {
                    todo.push((*from, Want { layers: false, root: true }));
                }
            }
        }
    }
    if request.cache_export.registry == Some(true) {
        // Of every stage that is done, or going to be.
        for ((want, done), plan) in wants.iter_mut().zip(stages).zip(&planned.stages) {
            let ready = plan.as_ref().is_some_and(|plan| done.steps.len() == plan.stage.steps.len());
            want.layers |= ready || *want != Want::default();
        }
    }
    wants
}

impl<'a> Crew<'a> {
    fn engine(&self) -> &'a Engine {
        self.site.engine
    }

    /// What is in the image, if that was asked for.
    fn packages(&self, cancel: &Cancel) -> Result<Option<Inventory>, BuildError> {
        if !self.site.request.attest.sbom {
            return Ok(None);
        }
        let Ok(state) = self.slots[self.site.planned.target].wait() else {
            return Err(BuildError::new(ErrorKind::Internal, "the image's files are not at hand to look through"));
        };
        let step = self.site.log.step(&self.site.part.title("[internal] list packages"));
        let root = self.engine().snapshots.begin(&state.chain);
        match root.and_then(|root| crate::sbom::scan(root.root(), cancel)) {
            Ok(found) => {
                step.note(&format!("found {} packages", found.packages.len()));
                found.gaps.iter().for_each(|gap| step.note(gap));
                step.done();
                Ok(Some(found))
            }
            Err(error) => {
                let error = internal("list the image's packages", &error);
                step.failed(&error.message);
                Err(error)
            }
        }
    }

    fn raised(&self) -> Result<(), Stop> {
        self.stop.check().map_err(|_| Stop::Elsewhere)
    }

    /// Run every stage that is asked for something, each in a thread of its own. Returns the
    /// first failure.
    fn stages(&self, stages: &mut [StageDone], jobs: &crossbeam_channel::Sender<LayerJob>) -> Option<BuildError> {
        let failure: Mutex<Option<BuildError>> = Mutex::new(None);
        // Each thread adds to its own stage; all see what was done before.
        let known = &stages.to_vec();
        std::thread::scope(|scope| {
            for (index, done) in stages.iter_mut().enumerate() {
                let Some(plan) = &self.site.planned.stages[index] else { continue };
                if !self.has_work(plan, done, self.wants[index]) {
                    self.show_done(plan, done);
                    continue;
                }
                let failure = &failure;
                scope.spawn(move || {
                    // Whatever happens here, nobody waits for this stage for ever.
                    let slot = Promise(&self.slots[index]);
                    match self.stage(index, plan, done, known, jobs) {
                        Ok(Some(state)) => slot.0.put(Ok(state)),
                        Ok(None) => {}
                        Err(stop) => {
                            if let Stop::Failed(error) = stop {
                                failure.lock().get_or_insert(error);
                            }
                            self.stop.cancel();
                        }
                    }
                });
            }
        });
        let failure = failure.into_inner();
        match failure {
            None if self.stop.is_cancelled() => Some(BuildError::cancelled()),
            failure => failure,
        }
    }

    fn has_work(&self, plan: &StagePlan, done: &StageDone, want: Want) -> bool {
        let missing = done.steps.len() < plan.stage.steps.len();
        let unwritten = done.steps.iter().any(|s| s.layer.is_none());
        want.root || (want.layers && (missing || unwritten))
    }

    /// Show the steps of a stage of which nothing is asked.
    fn show_done(&self, plan: &StagePlan, done: &StageDone) {
        self.show_from(plan).into_iter().for_each(StepLog::cached);
        for ((step, key), _) in plan.stage.steps.iter().zip(&plan.keys).zip(&done.steps) {
            self.show(key, &step.title).cached();
        }
    }

    /// A step in the log, unless another platform shows it.
    fn show(&self, key: &Digest, title: &str) -> StepLog<'a> {
        match self.site.part.many {
            true => self.site.log.step_of(self.site.part.number, key, title),
            false => self.site.log.step(title),
        }
    }

    /// The `FROM` line of a stage on an image.
    fn show_from(&self, plan: &StagePlan) -> Option<StepLog<'a>> {
        plan.title_of_from().map(|title| self.show(&Key::new("from").text(&title).finish(), &title))
    }

    fn stage(
        &self,
        index: usize,
        plan: &StagePlan,
        done: &mut StageDone,
        known: &[StageDone],
        jobs: &crossbeam_channel::Sender<LayerJob>,
    ) -> Result<Option<State>, Stop> {
        let want = self.wants[index];
        let queue = |step: usize, id: &Digest, from: Material| {
            let job = LayerJob { stage: index, step, id: *id, from };
            jobs.send(job).map_err(|_| Stop::Elsewhere)
        };
        let ready = done.steps.len();
        let missing = ready < plan.stage.steps.len();
        let mut state = match missing || want.root {
            true => Some(self.state_so_far(index, plan, known)?),
            false => {
                self.show_from(plan).into_iter().for_each(StepLog::cached);
                None
            }
        };
        for (number, (step, done)) in plan.stage.steps.iter().zip(&done.steps).enumerate() {
            self.show(&plan.keys[number], &step.title).cached();
            if want.layers && done.layer.is_none() {
                match (&done.chain, &done.plain) {
                    (_, Some(layer)) => queue(number, &done.id, Material::Layer(Box::new(layer.clone())))?,
                    (Some(chain), None) => queue(number, &done.id, Material::Files(chain.clone()))?,
                    (None, None) => {}
                }
            }
        }
        for number in ready..plan.stage.steps.len() {
            let Some(below) = state.take() else { return Err(Stop::Elsewhere) };
            let Stepped { made: Made { id, created, chain }, on, found } = self.step(plan, number, &below)?;
            let by_content = below.by_content || copies_from(plan, number);
            let (layer, plain, record) = match found {
                Some(found) => (found.layer, found.plain, found.record),
                None => (None, None, None),
            };
            if want.layers && layer.is_none() {
                queue(number, &id, Material::Files(chain.clone()))?;
            }
            let (imported, chain) = (false, Some(chain));
            done.steps.push(Done { id, created, layer, plain, chain: chain.clone(), record, imported, on });
            state = chain.map(|chain| State { id, chain, by_content });
        }
        Ok(state)
    }

    /// A name for a result, different from all others.
    fn new_id(&self, key: &Digest) -> Digest {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        Key::new("result")
            .digest(key)
            .part(&self.nonce.to_le_bytes())
            .part(&self.site.request.created.0.to_le_bytes())
            .part(&count.to_le_bytes())
            .finish()
    }

    fn put(&self, key: &Digest, parent: &Digest, done: &Done) {
        let layer = done.layer.as_ref().map(LayerRecord::of);
        let new = Record { parent: *parent, id: done.id, created: done.created.clone(), layer: None, dated: None };
        let mut record = done.record.clone().unwrap_or(new);
        match self.site.epoch_secs {
            None => record.layer = layer,
            Some(epoch_secs) => record.dated = layer.map(|layer| Dated { epoch_secs, layer }).or(record.dated),
        }
        match serde_json::to_vec(&record) {
            Ok(bytes) => self.engine().cache.put(key, &bytes),
            Err(error) => tracing::warn!(%error, "write a step record"),
        }
    }

    /// Record what is done, now that its layers are durable. A step without a layer, because
    /// nobody wants it or the build was cut short, counts as long as its snapshot is there.
    fn record(&self, stages: &[StageDone]) {
        for &index in &self.site.planned.order {
            let Some(plan) = &self.site.planned.stages[index] else { continue };
            let Some(mut parent) = probe::base_id(self.site.planned, stages, index) else { continue };
            for (key, done) in plan.keys.iter().zip(&stages[index].steps) {
                // Those found in the cache are recorded already, unless a layer is new.
                let known = done.record.as_ref().filter(|_| done.chain.is_none() && !done.imported);
                if known.is_none_or(|record| !record.tells(done, self.site.epoch_secs)) {
                    self.put(key, &parent, done);
                    if let Some(on) = &done.on {
                        self.put(on, &parent, done);
                    }
                }
                parent = done.id;
            }
        }
    }

    /// The state below a stage's first missing step.
    fn state_so_far(&self, index: usize, plan: &StagePlan, known: &[StageDone]) -> Result<State, Stop> {
        let done = &known[index].steps;
        let Some(last) = done.last() else { return self.base_state(plan) };
        self.show_from(plan).into_iter().for_each(StepLog::cached);
        let by_content = self.by_content(index, done.len());
        self.cached_state(index, last, known).map(|chain| State { id: last.id, chain, by_content })
    }

    /// The state after a stage's last known step.
    fn cached_state(&self, index: usize, last: &Done, known: &[StageDone]) -> Result<Chain, Stop> {
        if let Some(chain) = last.chain.clone().or_else(|| self.engine().snapshots.find(&last.id)) {
            return Ok(chain);
        }
        // The snapshot is gone, the layers are not.
        let mut blobs = Vec::new();
        let mut diff_ids = Vec::new();
        let mut at = index;
        loop {
            for step in known[at].steps.iter().rev() {
                let layer = step.files().ok_or_else(|| {
                    BuildError::new(ErrorKind::Internal, "the state of a cached step is gone; build again")
                })?;
                blobs.push(layer.blob.clone());
                diff_ids.push(layer.diff_id);
            }
            match &self.site.planned.stage(at)?.base {
                StageBase::Scratch => break,
                StageBase::Image { image, .. } => {
                    blobs.extend(image.layers.iter().rev().cloned());
                    diff_ids.extend(image.config.rootfs.diff_ids.iter().rev());
                    break;
                }
                StageBase::Stage(base) => at = *base,
            }
        }
        blobs.reverse();
        diff_ids.reverse();
        let _permit = self.site.common.permits.take();
        self.raised()?;
        self.engine()
            .snapshots
            .base(&blobs, &diff_ids, &self.stop)
            .map_err(|e| self.machine("unpack cached layers", &e))
    }

    /// The state that a stage's `FROM` names.
    fn base_state(&self, plan: &StagePlan) -> Result<State, Stop> {
        let named = |chain| State { id: probe::id_of_base(plan), chain, by_content: false };
        match &plan.base {
            StageBase::Scratch => Ok(named(Chain::empty())),
            StageBase::Stage(base) => self.slots[*base].wait(),
            StageBase::Image { image, .. } => {
                let step = self.show_from(plan);
                let chain = self.image_state(image);
                match (&chain, step) {
                    (Ok(_), Some(step)) => step.done(),
                    (Err(Stop::Failed(error)), Some(step)) => step.failed(&error.message),
                    (Err(Stop::Elsewhere), Some(step)) => step.cancelled(),
                    (_, None) => {}
                }
                chain.map(named)
            }
        }
    }

    /// The state of an image.
    pub(super) fn image_state(&self, image: &crate::ports::BaseImage) -> Result<Chain, Stop> {
        if let Some(chain) = self.bases.lock().get(&image.digest) {
            return Ok(chain.clone());
        }
        let _permit = self.site.common.permits.take();
        self.raised()?;
        let chain = self
            .engine()
            .snapshots
            .base(&image.layers, &image.config.rootfs.diff_ids, &self.stop)
            .map_err(|e| self.machine("unpack the base image", &e))?;
        self.bases.lock().insert(image.digest, chain.clone());
        Ok(chain)
    }

    /// The state at the end of another stage.
    pub(super) fn stage_state(&self, index: usize) -> Result<State, Stop> {
        self.slots[index].wait()
    }

    /// The machine failed, or was told to stop.
    pub(super) fn machine(&self, what: &str, error: &std::io::Error) -> Stop {
        if Cancel::is_cause_of(error) || self.stop.is_cancelled() {
            return Stop::Elsewhere;
        }
        Stop::Failed(internal(what, error))
    }

    /// Do one step, or have it from somebody who does the same.
    fn step(&self, plan: &StagePlan, number: usize, below: &State) -> Result<Stepped, Stop> {
        let step = &plan.stage.steps[number];
        let key = &plan.keys[number];
        let common = self.site.common;
        // What it copies from first: waiting must not take a permit, nor keep others waiting.
        let from = match &step.op {
            Op::Copy(copy) => self.copy_source(copy, plan)?,
            _ => None,
        };
        let mut ready = match &step.op {
            Op::Run(run) => self.wait_for_states(&run.mounts, plan)?,
            _ => Ready::default(),
        };
        let on = self.on_key(plan, number, below, from.as_ref())?;
        if let Some(on) = &on
            && let Some(found) = self.found_on(on, below)?
        {
            self.show(key, &step.title).cached();
            return Ok(found);
        }
        let stepped = |made| Stepped { made, on, found: None };
        let flight = Key::new("flight").text(&self.site.request.tenant).digest(key).digest(&below.id);
        let flight = flight.option(from.as_ref().map(|state| state.id.to_string()).as_deref());
        let flight = ready.add_to(flight).finish();
        let mut log = None;
        let turn = common.shared.steps.join(&flight, &self.stop, common.build, || {
            let shown = self.show(key, &step.title);
            shown.note("waiting for another build that is doing the same");
            log = Some(shown);
        });
        let turn = match turn {
            Ok(turn) => turn,
            Err(_) => {
                log.into_iter().for_each(StepLog::cancelled);
                return Err(Stop::Elsewhere);
            }
        };
        let log = log.unwrap_or_else(|| self.show(key, &step.title));
        let lead = match turn {
            Turn::Done(made, held) => {
                common.keep(held);
                log.cached();
                return Ok(stepped(made));
            }
            Turn::Lead(lead) => Some(lead),
            Turn::Alone => None,
        };
        if let Op::Run(run) = &step.op
            && let Err(stop) = self.take_caches(step, &run.mounts, &mut ready)
        {
            match &stop {
                Stop::Failed(error) => log.failed(&error.message),
                Stop::Elsewhere => log.cancelled(),
            }
            return Err(stop);
        }
        self.do_step(plan, number, below, (from.as_ref(), ready), log, lead).map(stepped)
    }

    /// Do one step, show it, and name its result.
    fn do_step(
        &self,
        plan: &StagePlan,
        number: usize,
        below: &State,
        (from, ready): (Option<&State>, Ready),
        log: StepLog<'_>,
        lead: Option<Lead<Made>>,
    ) -> Result<Made, Stop> {
        let _permit = self.site.common.permits.take();
        let id = self.new_id(&plan.keys[number]);
        let done = self
            .raised()
            .and_then(|()| self.perform(plan, number, &below.chain, from.map(|state| &state.chain), ready, &log))
            .and_then(|active| active.commit(&id).map_err(|e| self.machine("keep the step's files", &e)));
        match done {
            Ok(chain) => {
                let made = Made { id, created: self.site.request.created.rfc3339(), chain };
                if let Some(lead) = lead {
                    self.site.common.keep(lead.done(made.clone()));
                }
                log.done();
                Ok(made)
            }
            Err(Stop::Failed(error)) if error.kind != ErrorKind::Cancelled => {
                log.failed(&error.message);
                lead.into_iter().for_each(Lead::failed);
                Err(Stop::Failed(error))
            }
            Err(stop) => {
                log.cancelled();
                Err(stop)
            }
        }
    }

    /// Write a layer, unless somebody else who stands on the same result does.
    fn layer(&self, job: &LayerJob, cancel: &Cancel) -> Result<Layer, BuildError> {
        let common = self.site.common;
        let write = || {
            let (content, epoch_secs) = (&*self.engine().content, self.site.epoch_secs);
            let layer = match (&job.from, epoch_secs) {
                (Material::Files(chain), _) => diff::write_layer(chain, content, epoch_secs, cancel),
                (Material::Layer(layer), Some(epoch_secs)) => diff::redate(layer, content, epoch_secs, cancel),
                (Material::Layer(layer), None) => Ok(Layer::clone(layer)),
            };
            layer.map_err(|e| internal("write a layer", &e))
        };
        let epoch = self.site.epoch_secs.map(|secs| secs.to_string());
        let key = Key::new("layer").digest(&job.id).option(epoch.as_deref()).finish();
        match common.shared.layers.join(&key, cancel, common.build, || {}) {
            Err(_) => Err(BuildError::cancelled()),
            Ok(Turn::Alone) => write(),
            Ok(Turn::Done(layer, held)) => {
                common.keep(held);
                Ok(layer)
            }
            Ok(Turn::Lead(lead)) => {
                let layer = write();
                match &layer {
                    Ok(layer) => common.keep(lead.done(layer.clone())),
                    Err(error) if error.kind == ErrorKind::Cancelled => drop(lead),
                    Err(_) => lead.failed(),
                }
                layer
            }
        }
    }
}
