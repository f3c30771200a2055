//! Every stage that the target needs, evaluated, its steps with their keys.
//!
//! Images are fetched here (all that the file names, side by side) and the parts of the
//! context that are copied are read for their checksums; nothing is run or unpacked.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_types::ignore::Ignore;
use portolan_types::{Digest, ImageRef, Platform, limits};

use super::blot::Blots;
use super::eval::{self, Allowed, Begin, CopyOp, Eval, Inputs, Op, RunOp};
use super::flight::Turn;
use super::internal;
use super::key::Key;
use super::log::Log;
use super::mounts::RunMount;
use super::shared::{Common, Part};
use crate::cancel::Cancel;
use crate::copy::{Chmod, CopyError, Hidden, Plan, SelectOpts};
use crate::error::{BuildError, ErrorKind, Fault, Source, Span};
use crate::exec::Network;
use crate::graph::{Globals, Graph, Origin};
use crate::instruct::{File, Instruction};
use crate::lint::{Finding, Rule};
use crate::named::NamedContext;
use crate::ports::{BaseImage, Remotes};
use crate::{BuildContext, BuildRequest, Engine, fsys, instruct, needs, parse};

/// An ignore file's size.
const IGNORE_BYTES_MAX: u64 = limits::DOCKERFILE_BYTES_MAX as u64;

/// How many stages may wait for a stage that only a trigger of a base image has named.
const TRIGGER_DEPTH_MAX: usize = 8;

/// All that is needed, planned.
pub(super) struct Planned {
    /// By the stage's number in the file; `None` when the target does not need it.
    pub(super) stages: Vec<Option<StagePlan>>,
    /// The needed ones, each after those it stands on.
    pub(super) order: Vec<usize>,
    pub(super) target: usize,
    /// Images in the order of first use: as the file names them, as they are.
    pub(super) images: Vec<Image>,
    /// What base images and sources have that is probably not meant.
    findings: Vec<Finding>,
    /// What must not be seen.
    pub(super) blots: Blots,
}

/// An image that is used.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) name: ImageRef,
    pub(super) platform: Platform,
    pub(super) image: Arc<BaseImage>,
}

pub(super) struct StagePlan {
    pub(super) label: String,
    pub(super) base: StageBase,
    pub(super) stage: eval::Stage,
    /// For each step, its key.
    pub(super) keys: Vec<Digest>,
    /// For each step, what it does, whatever it stands on.
    pub(super) ops: Vec<Digest>,
    /// For each step that copies from the context, what it copies.
    pub(super) copies: Vec<Option<Plan>>,
    /// For each step, and each of its mounts that shows files of the context, which.
    pub(super) binds: Vec<Vec<Option<(Digest, Plan)>>>,
    /// The state below the first step.
    base_key: Digest,
}

/// What a planned stage stands on.
pub(super) enum StageBase {
    Scratch,
    Image { name: ImageRef, image: Arc<BaseImage> },
    Stage(usize),
}

impl StagePlan {
    /// Names the state after the last step.
    pub(super) fn final_key(&self) -> Digest {
        *self.keys.last().unwrap_or(&self.base_key)
    }

    /// Names the state below the first step.
    pub(super) fn base_key(&self) -> Digest {
        self.base_key
    }

    /// The title of the `FROM` line in the log, for an image.
    pub(super) fn title_of_from(&self) -> Option<String> {
        let StageBase::Image { name, image, .. } = &self.base else { return None };
        let prefix = eval::prefix(&self.label, 1, self.stage.total);
        Some(format!("{prefix}FROM {}@{}", with_tag(name), image.digest))
    }
}

impl Planned {
    pub(super) fn stage(&self, index: usize) -> Result<&StagePlan, BuildError> {
        self.stages
            .get(index)
            .and_then(Option::as_ref)
            .ok_or_else(|| BuildError::new(ErrorKind::Internal, format!("stage {index} was not planned")))
    }

    /// The image behind an origin that was planned.
    pub(super) fn image(&self, name: &ImageRef, platform: &Platform) -> Option<&Arc<BaseImage>> {
        self.images.iter().find(|i| i.name == *name && i.platform == *platform).map(|i| &i.image)
    }

    /// What build checks have found.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let stages = self.stages.iter().flatten();
        self.findings.iter().chain(stages.flat_map(|stage| &stage.stage.findings)).cloned()
    }

    /// What is probably not meant, in sentences.
    pub(super) fn warnings(&self, request: &BuildRequest, globals: &Globals) -> Vec<String> {
        let mut out = Vec::new();
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for stage in self.stages.iter().flatten() {
            known.extend(stage.stage.args_seen.iter().map(String::as_str));
        }
        let automatic = |name: &str| {
            // Those of the global scope are the file's own global ARGs and the automatic ones.
            eval::is_predefined(name)
                || globals.get(name).is_some()
                || name == "SOURCE_DATE_EPOCH"
                || name.starts_with("BUILDKIT_")
        };
        let unused: BTreeSet<&str> = request
            .build_args
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !known.contains(name) && !automatic(name))
            .collect();
        if !unused.is_empty() {
            let names: Vec<&str> = unused.into_iter().collect();
            out.push(format!("One or more build-args [{}] were not consumed", names.join(" ")));
        }
        out
    }
}

/// `docker.io/library/python:latest`: the tag that is meant, written out.
fn with_tag(name: &ImageRef) -> String {
    match (&name.tag, &name.digest) {
        (None, None) => format!("{name}:latest"),
        (_, Some(_)) => ImageRef { digest: None, ..name.clone() }.to_string(),
        _ => name.to_string(),
    }
}

pub(super) struct Planner<'a> {
    engine: &'a Engine,
    request: &'a BuildRequest,
    source: &'a Source,
    log: &'a Log<'a>,
    file: &'a File,
    common: &'a Common<'a>,
    part: Part<'a>,
    graph: &'a Graph,
    globals: &'a Globals,
    cancel: &'a Cancel,
    blots: Blots,
    ignore: Ignore,
    images: Mutex<Vec<Image>>,
    stages: Vec<Option<StagePlan>>,
    order: Vec<usize>,
    /// Stages under way, outermost first.
    open: Vec<usize>,
    findings: Vec<Finding>,
    checks_only: bool,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        common: &'a Common<'a>,
        part: Part<'a>,
        graph: &'a Graph,
        globals: &'a Globals,
        cancel: &'a Cancel,
    ) -> Result<Planner<'a>, BuildError> {
        let Common { engine, request, source, log, file, .. } = *common;
        let ignore = read_ignore(request)?;
        Ok(Planner {
            engine,
            request,
            source,
            log,
            file,
            common,
            part,
            graph,
            globals,
            cancel,
            blots: Blots::new(request.confidential()),
            ignore,
            images: Mutex::new(Vec::new()),
            stages: graph.bases.iter().map(|_| None).collect(),
            order: Vec::new(),
            open: Vec::new(),
            findings: Vec::new(),
            checks_only: false,
        })
    }

    /// Plan for the build checks alone: what is copied is not looked at.
    pub(super) fn only_checks(mut self) -> Self {
        self.checks_only = true;
        self
    }

    pub(super) fn plan(mut self) -> Result<Planned, BuildError> {
        let fault = |fault| self.source.error(&fault);
        let reachable = self.graph.reachable(self.graph.target, self.file).map_err(fault)?;
        self.fetch(&self.graph.images(&reachable, self.file).map_err(fault)?)?;
        self.stage(self.graph.target, self.file.stages[self.graph.target].span)?;
        Ok(Planned {
            stages: self.stages,
            order: self.order,
            target: self.graph.target,
            images: self.images.into_inner(),
            findings: self.findings,
            blots: self.blots,
        })
    }

    /// Fetch images side by side.
    fn fetch(&self, images: &[(ImageRef, Platform, Span)]) -> Result<(), BuildError> {
        let todo = Mutex::new(images.iter().enumerate());
        let found: Mutex<Vec<Option<Result<Image, BuildError>>>> = Mutex::new(images.iter().map(|_| None).collect());
        let threads = images.len().min(self.engine.config.parallel_max.max(1));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let Some((index, (name, platform, span))) = todo.lock().next() else { return };
                        let image = self.fetch_one(name, platform, *span);
                        found.lock()[index] = Some(image);
                    }
                });
            }
        });
        for image in found.into_inner().into_iter().flatten() {
            self.images.lock().push(image?);
        }
        Ok(())
    }

    fn fetch_one(&self, name: &ImageRef, platform: &Platform, span: Span) -> Result<Image, BuildError> {
        self.cancel.check().map_err(|_| BuildError::cancelled())?;
        if !self.part.many {
            return self.fetch_alone(name, platform, span, "internal");
        }
        // Another platform may want it too.
        let key = Key::new("image").text(&name.to_string()).text(&platform.to_string()).finish();
        match self.common.images.join(&key, self.cancel, 0, || {}) {
            Err(_) => Err(BuildError::cancelled()),
            Ok(Turn::Done(image, _)) => Ok(image),
            Ok(Turn::Alone) => self.fetch_alone(name, platform, span, &format!("{platform} internal")),
            Ok(Turn::Lead(lead)) => {
                let image = self.fetch_alone(name, platform, span, &format!("{platform} internal"))?;
                self.common.keep(lead.done(image.clone()));
                Ok(image)
            }
        }
    }

    fn fetch_alone(&self, name: &ImageRef, platform: &Platform, span: Span, who: &str) -> Result<Image, BuildError> {
        let step = self.log.step(&format!("[{who}] load metadata for {}", with_tag(name)));
        let resolved = self.engine.images.resolve(name, platform, &|line| step.note(line));
        if self.cancel.is_cancelled() {
            step.cancelled();
            return Err(BuildError::cancelled());
        }
        // As the file has it.
        let written = self.file.stages.iter().find(|stage| stage.span == span).map_or("", |stage| stage.base.as_str());
        let refuse = |message: String| self.source.error(&Fault::new(span, message).at(written));
        match resolved {
            Ok(image) if image.layers.len() != image.config.rootfs.diff_ids.len() => {
                let (layers, ids) = (image.layers.len(), image.config.rootfs.diff_ids.len());
                let message = format!("the image {name} has {layers} layers but its configuration names {ids}");
                step.failed(&message);
                Err(refuse(message))
            }
            Ok(image) => {
                step.done();
                Ok(Image { name: name.clone(), platform: platform.clone(), image: Arc::new(image) })
            }
            Err(message) => {
                step.failed(&message);
                Err(refuse(message))
            }
        }
    }

    /// An image that may have been fetched.
    fn image(&self, name: &ImageRef, platform: &Platform, span: Span) -> Result<Arc<BaseImage>, BuildError> {
        let found = self.images.lock().iter().find(|i| i.name == *name && i.platform == *platform).cloned();
        match found {
            Some(image) => Ok(image.image),
            None => {
                let image = self.fetch_one(name, platform, span)?;
                self.images.lock().push(image.clone());
                Ok(image.image)
            }
        }
    }

    /// Plan a stage and all that it stands on. `span` is who wants it.
    fn stage(&mut self, index: usize, span: Span) -> Result<(), BuildError> {
        if self.stages[index].is_some() {
            return Ok(());
        }
        // In order, so that no stage finds one below it missing: chains can be long. Only
        // triggers of base images lead back here.
        if self.open.len() >= TRIGGER_DEPTH_MAX {
            return Err(self.source.error(&Fault::new(span, "ONBUILD triggers of base images nest too deep")));
        }
        for index in self.graph.reachable(index, self.file).map_err(|f| self.source.error(&f))? {
            if self.open.contains(&index) {
                let fault = self.graph.cycle(index, span, self.open.iter().copied());
                return Err(self.source.error(&fault));
            }
            if self.stages[index].is_none() {
                self.open.push(index);
                let plan = self.plan_stage(index)?;
                self.open.pop();
                self.stages[index] = Some(plan);
                self.order.push(index);
            }
        }
        Ok(())
    }

    fn plan_stage(&mut self, index: usize) -> Result<StagePlan, BuildError> {
        let file = self.file;
        let graph = self.graph;
        let own = &file.stages[index];
        let platform = &graph.platforms[index];
        let base = match &graph.bases[index] {
            Origin::Scratch | Origin::Files(_) => StageBase::Scratch,
            Origin::Image(name) => {
                let image = self.image(name, platform, own.span)?;
                self.check_platform(name, &image, platform, own.span);
                StageBase::Image { name: name.clone(), image }
            }
            Origin::Stage(base) => {
                self.stage(*base, own.span)?;
                StageBase::Stage(*base)
            }
        };
        let (begin, base_key) = match &base {
            StageBase::Scratch => (Begin::Scratch, Key::new("scratch").finish()),
            StageBase::Image { image, .. } => (Begin::Image(image), Key::new("image").digest(&image.digest).finish()),
            StageBase::Stage(index) => {
                let base = self.stages[*index]
                    .as_ref()
                    .ok_or_else(|| BuildError::new(ErrorKind::Internal, format!("stage {index} was not planned")))?;
                (Begin::Stage(&base.stage), base.final_key())
            }
        };
        let texts = match &begin {
            Begin::Scratch => None,
            Begin::Image(image) => image.config.config.on_build.as_ref(),
            Begin::Stage(stage) => stage.image.config.on_build.as_ref(),
        };
        let triggers: Vec<Instruction> = texts
            .into_iter()
            .flatten()
            .map(|text| {
                let node = parse::parse_trigger(text, file.escape, own.span)?;
                instruct::instruction(&node, file.escape)
            })
            .collect::<Result<_, Fault>>()
            .map_err(|f| self.source.error(&f))?;
        if matches!(base, StageBase::Image { .. })
            && matches!(&self.request.context, BuildContext::Packed(context) if context.is_partial())
            && triggers.iter().any(|trigger| needs::takes_files(&trigger.command))
        {
            return Err(self.source.error(&Fault::new(own.span, needs::INCOMPLETE)));
        }
        let config = &self.engine.config;
        let inputs = Inputs {
            globals: self.globals,
            escape: file.escape,
            build_args: &self.request.build_args,
            blots: &self.blots,
            allowed: Allowed { host_network: config.allow_host_network, insecure: config.allow_insecure },
            cancel: self.cancel,
            source: &|from, span| graph.source(from, span),
        };
        let label = self.part.label(&graph.labels[index], platform, own);
        let stage =
            Eval::begin(&inputs, &label, platform, &begin).run(&triggers, &own.instructions).map_err(|fault| {
                if self.cancel.is_cancelled() { BuildError::cancelled() } else { self.source.error(&fault) }
            })?;

        let mut plan = StagePlan {
            label,
            base,
            stage,
            keys: Vec::new(),
            ops: Vec::new(),
            copies: Vec::new(),
            binds: Vec::new(),
            base_key,
        };
        for number in 0..plan.stage.steps.len() {
            self.cancel.check().map_err(|_| BuildError::cancelled())?;
            let parent = plan.final_key();
            // What it does comes first by itself: a step is found again also on a result that
            // came about in another way.
            let nobody = Key::new("parent").finish();
            let binds = self.binds(&plan, number)?;
            let files = self.files(&plan, number, &binds)?;
            let step = &plan.stage.steps[number];
            let (op, copy) = match &step.op {
                Op::Mkdir { path, user } => (Key::new("mkdir").digest(&nobody).text(path).text(user).finish(), None),
                Op::Run(run) => (self.run_key(&nobody, run, &files), None),
                Op::Copy(copy) => self.copy_key(&nobody, copy, &plan.stage.platform, &step.title, step.span)?,
            };
            plan.keys.push(Key::new("step").digest(&parent).digest(&op).finish());
            plan.ops.push(op);
            plan.copies.push(copy);
            plan.binds.push(binds);
        }
        Ok(plan)
    }

    fn copy_key(
        &mut self,
        parent: &Digest,
        copy: &CopyOp,
        platform: &Platform,
        title: &str,
        span: Span,
    ) -> Result<(Digest, Option<Plan>), BuildError> {
        let mut key = copy_flags(Key::new("copy").digest(parent), copy);
        if !self.checks_only {
            key = self.remote_keys(key, copy, span)?;
        }
        let mut plan = None;
        match &copy.from {
            None if copy.sources.is_empty() => {}
            None if self.checks_only => self.check_ignored(title, copy, span),
            None => {
                self.check_ignored(title, copy, span);
                let (digest, resolved) = self.read_context(copy, title, span)?;
                key = key.text("context").digest(&digest);
                plan = Some(resolved);
            }
            Some(Origin::Files(number)) => {
                let opts = SelectOpts { cancel: Some(self.cancel), ..SelectOpts::default() };
                let files = self.request.named_contexts.get(*number).map(|(_, context)| context);
                let (digest, resolved) = self.digested(resolve(files, copy, &opts), title, span)?;
                key = key.text("context").digest(&digest);
                plan = Some(resolved);
            }
            Some(origin) => {
                let from = self.origin_key(origin, platform, parent, span)?;
                key = key.text("from").digest(&from).list(copy.sources.iter().map(String::as_str));
            }
        }
        Ok((key.finish(), plan))
    }

    /// Who fetches what `ADD` names.
    pub(super) fn fetching(&self) -> Option<&dyn Remotes> {
        self.request.remotes.as_deref()
    }

    pub(super) fn source_error(&self, fault: &Fault) -> BuildError {
        if self.cancel.is_cancelled() { BuildError::cancelled() } else { self.source.error(fault) }
    }

    /// Do something that takes its time, and show it.
    pub(super) fn told<T>(
        &self,
        title: &str,
        work: impl FnOnce(&dyn Fn(&str)) -> Result<T, String>,
    ) -> Result<T, String> {
        let step = self.log.step(title);
        let done = work(&|line| step.note(line));
        match &done {
            Ok(_) => step.done(),
            Err(_) if self.cancel.is_cancelled() => step.cancelled(),
            Err(why) => step.failed(why),
        }
        done
    }

    /// What a step's mounts show of the context.
    fn binds(&self, plan: &StagePlan, number: usize) -> Result<Vec<Option<(Digest, Plan)>>, BuildError> {
        let step = &plan.stage.steps[number];
        let Op::Run(run) = &step.op else { return Ok(Vec::new()) };
        let read = |mount: &RunMount| {
            let Some(source) = mount.of_context() else { return Ok(None) };
            self.read_sources(&[source.to_owned()], (None, false), &step.title, step.span).map(Some)
        };
        run.mounts.iter().map(read).collect()
    }

    /// For each mount of a step, what names the files that it shows.
    fn files(
        &mut self,
        plan: &StagePlan,
        number: usize,
        binds: &[Option<(Digest, Plan)>],
    ) -> Result<Vec<Option<Digest>>, BuildError> {
        let step = &plan.stage.steps[number];
        let Op::Run(run) = &step.op else { return Ok(Vec::new()) };
        let mut files = Vec::new();
        for (mount, bind) in run.mounts.iter().zip(binds) {
            files.push(match (mount.origin(), bind) {
                (Some(origin), _) => {
                    Some(self.origin_key(origin, &plan.stage.platform, &plan.final_key(), step.span)?)
                }
                (None, Some((digest, _))) => Some(*digest),
                (None, None) => None,
            });
        }
        Ok(files)
    }

    /// Names what a step takes from: an image, or a stage, which is planned where it is not.
    fn origin_key(
        &mut self,
        origin: &Origin,
        platform: &Platform,
        parent: &Digest,
        span: Span,
    ) -> Result<Digest, BuildError> {
        Ok(match origin {
            Origin::Scratch | Origin::Files(_) => Key::new("scratch").finish(),
            Origin::Image(name) => Key::new("image").digest(&self.image(name, platform, span)?.digest).finish(),
            Origin::Stage(index) => {
                self.stage(*index, span)?;
                self.stages[*index].as_ref().map_or(*parent, StagePlan::final_key)
            }
        })
    }

    /// A key tells a step from all others, and must tell nothing about a secret: where one is
    /// among the variables, it goes in together with what nobody can guess.
    fn run_key(&self, parent: &Digest, run: &RunOp, files: &[Option<Digest>]) -> Digest {
        let mut env: Vec<&(String, String)> = run.env.iter().collect();
        env.sort();
        let (path, text) = match &run.script {
            Some((path, text)) => (Some(path.as_str()), Some(text.as_str())),
            None => (None, None),
        };
        let mut key = Key::new("run")
            .digest(parent)
            .list(run.argv.iter().map(String::as_str))
            .list(env.iter().map(|(name, _)| name.as_str()))
            .list(env.iter().map(|(_, value)| value.as_str()))
            .text(&run.cwd)
            .text(&run.user)
            .flag(run.network != Network::None)
            .option(path)
            .option(text);
        if run.network == Network::Host || run.insecure {
            key = key.text("host network").flag(run.network == Network::Host).text("insecure").flag(run.insecure);
        }
        if let Some(hostname) = &run.hostname {
            key = key.text("hostname").text(hostname);
        }
        if !run.mounts.is_empty() {
            key =
                run.mounts.iter().zip(files).fold(key.text("mounts"), |key, (m, files)| m.add_to(key, files.as_ref()));
        }
        if env.iter().any(|(_, value)| self.blots.are_in(value)) {
            key = key.text("secret").part(self.engine.config.key_salt.expose());
        }
        key.finish()
    }

    /// Note a base image that is for something else than the stage.
    fn check_platform(&mut self, name: &ImageRef, image: &BaseImage, platform: &Platform, span: Span) {
        let config = &image.config;
        let said = !config.os.is_empty() && !config.architecture.is_empty();
        if said && (config.os != platform.os || config.architecture != platform.architecture) {
            let pulled = format!("{}/{}", config.os, config.architecture);
            let message = format!(
                "Base image {name} was pulled with platform {pulled:?}, expected {:?} for current build",
                platform.to_string()
            );
            self.findings.push(Finding::new(Rule::InvalidBaseImagePlatform, span, message));
        }
    }

    /// Note sources that the ignore file hides. With `!` patterns nobody can tell without
    /// looking at the files.
    fn check_ignored(&mut self, title: &str, copy: &CopyOp, span: Span) {
        if self.ignore.has_exceptions() || copy.parents {
            return;
        }
        let verb = if title.contains("] ADD ") || title.contains("ONBUILD ADD ") { "Add" } else { "Copy" };
        for source in &copy.sources {
            let path = fsys::clean(std::path::Path::new(source));
            let path = path.to_string_lossy();
            let path = path.trim_start_matches('/');
            if !path.is_empty() && self.ignore.matches(path) {
                let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.findings.push(Finding::new(Rule::CopyIgnoredFile, span, message));
            }
        }
    }

    fn read_context(&self, copy: &CopyOp, title: &str, span: Span) -> Result<(Digest, Plan), BuildError> {
        let exclude = excluded(copy);
        self.read_sources(&copy.sources, (exclude.as_ref(), copy.parents), title, span)
    }

    fn read_sources(
        &self,
        sources: &[String],
        (exclude, parents): (Option<&Ignore>, bool),
        title: &str,
        span: Span,
    ) -> Result<(Digest, Plan), BuildError> {
        let is_hidden = |path: &str| self.ignore.matches(path);
        let hidden = Hidden { is: &is_hidden, has_exceptions: self.ignore.has_exceptions() };
        let hidden = (!self.ignore.is_empty()).then_some(hidden);
        let opts = SelectOpts { hidden, exclude, parents, cancel: Some(self.cancel) };
        let plan = match &self.request.context {
            BuildContext::Folder(folder) => Plan::resolve(folder, sources, &opts),
            BuildContext::Packed(context) => Plan::resolve_context(context, sources, &opts),
        };
        self.digested(plan, title, span)
    }

    /// What is to be copied, with its digest; a failure is shown as the step's.
    fn digested(&self, plan: Result<Plan, CopyError>, title: &str, span: Span) -> Result<(Digest, Plan), BuildError> {
        let read = plan.and_then(|plan| plan.digest(self.cancel).map(|digest| (digest, plan)));
        read.map_err(|error| {
            let error = copy_error(self.source, span, error);
            let step = self.log.step(title);
            match error.kind {
                ErrorKind::Cancelled => step.cancelled(),
                _ => step.failed(&error.message),
            }
            error
        })
    }
}

/// What to copy of a named context.
fn resolve(files: Option<&NamedContext>, copy: &CopyOp, opts: &SelectOpts<'_>) -> Result<Plan, CopyError> {
    match files {
        Some(NamedContext::Files(BuildContext::Folder(folder))) => Plan::resolve(folder, &copy.sources, opts),
        Some(NamedContext::Files(BuildContext::Packed(context))) => Plan::resolve_context(context, &copy.sources, opts),
        _ => Err(CopyError::User("there is no such context".to_owned())),
    }
}

/// How a copy is done, without what it copies. All of it: two copies of the same files that
/// agree in this give the same.
pub(super) fn copy_flags(key: Key, copy: &CopyOp) -> Key {
    key.text(&copy.dest)
        .option(copy.chown.as_deref())
        .option(copy.chmod.as_ref().map(Chmod::as_str))
        .flag(copy.unpack)
        .flag(copy.unpack_fetched)
        .flag(copy.link)
        .flag(copy.parents)
        .list(copy.exclude.iter().map(String::as_str))
        .list(copy.documents.iter().map(|(name, _)| name.as_str()))
        .list(copy.documents.iter().map(|(_, text)| text.as_str()))
}

/// What `--exclude` leaves out; the patterns were read before.
pub(super) fn excluded(copy: &CopyOp) -> Option<Ignore> {
    let patterns = copy.exclude.iter().map(String::as_str);
    Ignore::of(patterns).ok().filter(|exclude| !exclude.is_empty())
}

/// The build's error for a copy that failed.
pub(super) fn copy_error(source: &Source, span: Span, error: CopyError) -> BuildError {
    match error {
        CopyError::User(message) => source.error(&Fault::new(span, message)),
        CopyError::Missing { pattern: ref word, .. } => {
            let hint = "paths begin at the root of what is copied from, without what the ignore file hides";
            source.error(&Fault::new(span, error.to_string()).at(word).hint(hint))
        }
        CopyError::Cancelled => BuildError::cancelled(),
        CopyError::Io(error) => internal("copy files", &error),
    }
}

/// The ignore file that goes with the Dockerfile.
fn read_ignore(request: &BuildRequest) -> Result<Ignore, BuildError> {
    let parse = |name: &str, text: &str| {
        Ignore::parse(text).map_err(|e| BuildError::new(ErrorKind::Dockerfile, format!("{name}: {e}")))
    };
    if let Some(text) = &request.ignore {
        return parse(".dockerignore", text);
    }
    for name in [format!("{}.dockerignore", request.dockerfile_name), ".dockerignore".to_owned()] {
        let path = std::path::Path::new(&name);
        let bytes = match &request.context {
            BuildContext::Folder(folder) => fsys::open_root(folder).and_then(|root| {
                use std::os::fd::AsFd;
                fsys::read_in(root.as_fd(), path, IGNORE_BYTES_MAX)
            }),
            BuildContext::Packed(context) => context.file(path, IGNORE_BYTES_MAX),
        };
        let bytes = bytes.map_err(|e| internal("read the ignore file", &e))?;
        if let Some(bytes) = bytes {
            return parse(&name, &String::from_utf8_lossy(&bytes));
        }
    }
    Ok(Ignore::default())
}
