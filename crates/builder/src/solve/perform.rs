//! The steps themselves: make a directory, copy, run.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::eval::{CopyOp, Op, Step};
use super::key::Key;
use super::log::StepLog;
use super::mounts::Ready;
use super::plan::{StagePlan, copy_error, excluded};
use super::work::{Crew, State, Stop};
use crate::copy::{Chmod, CopyOpts, Plan, SelectOpts};
use crate::error::{BuildError, ErrorKind, Fault};
use crate::graph::Origin;
use crate::snapshot::{Active, Chain};
use crate::{fsys, user};

impl Crew<'_> {
    /// Do a step on top of `below`; what it wrote is in the state returned.
    pub(super) fn perform(
        &self,
        plan: &StagePlan,
        number: usize,
        below: &Chain,
        from: Option<&Chain>,
        ready: Ready,
        log: &StepLog<'_>,
    ) -> Result<Active, Stop> {
        let step = &plan.stage.steps[number];
        let snapshots = &self.site.engine.snapshots;
        let active = match &step.op {
            Op::Copy(copy) if copy.link => snapshots.begin_apart(below),
            Op::Run(run) if !run.insecure => snapshots.begin_for_step(below),
            _ => snapshots.begin(below),
        };
        let active = active.map_err(|e| self.machine("mount the step's files", &e))?;
        match &step.op {
            Op::Mkdir { path, user } => self.make_dir(step, &active, path, user)?,
            Op::Copy(copy) => {
                let watch = self
                    .site
                    .common
                    .disk
                    .watch(&active.upper(), &[])
                    .map_err(|e| self.machine("look at the disk", &e))?;
                self.copy(step, copy, plan.copies[number].as_ref(), &active, below, from)?;
                let excess = watch.last(&self.stop).map_err(|e| self.machine("measure what was copied", &e))?;
                if let Some(excess) = excess {
                    let fault = Fault::new(step.span, excess.to_string());
                    return Err(Stop::Failed(self.site.source.fault_at(ErrorKind::Limit, &fault)));
                }
            }
            Op::Run(run) => self.run((plan, number), run, ready, &active, log)?,
        }
        Ok(active)
    }

    pub(super) fn refuse(&self, step: &Step, message: impl Into<String>) -> Stop {
        Stop::Failed(self.site.source.error(&Fault::new(step.span, message)))
    }

    pub(super) fn refuse_hint(&self, step: &Step, message: String, hint: String) -> Stop {
        Stop::Failed(self.site.source.error(&Fault::new(step.span, message).hint(hint)))
    }

    fn make_dir(&self, step: &Step, active: &Active, path: &str, user: &str) -> Result<(), Stop> {
        // Without a USER nobody is made the owner: a set-group-ID folder passes its group on.
        let owner = match user {
            "" => None,
            user => Some(user::lookup(active.root(), user).map_err(|e| self.refuse(step, e))?),
        };
        let root = active.fd().map_err(|e| self.machine("open the step's files", &e))?;
        let made = fsys::make_dirs(root.as_fd(), Path::new(path), owner.map(|owner| (owner.uid, owner.gid)), None);
        made.map(drop).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotADirectory => self.refuse(step, format!("{path} cannot be made: not a directory")),
            _ => self.machine(&format!("make {path}"), &error),
        })
    }

    /// The state of the stage or image that a step copies from. May wait for a stage.
    pub(super) fn copy_source(&self, copy: &CopyOp, plan: &StagePlan) -> Result<Option<State>, Stop> {
        let origin = copy.from.as_ref().filter(|origin| !matches!(origin, Origin::Files(_)));
        origin.map(|origin| self.state_of(origin, plan)).transpose()
    }

    /// The state of a stage or image. May wait for a stage.
    pub(super) fn state_of(&self, origin: &Origin, plan: &StagePlan) -> Result<State, Stop> {
        match origin {
            Origin::Scratch | Origin::Files(_) => {
                Ok(State { id: Key::new("scratch").finish(), chain: Chain::empty(), by_content: false })
            }
            Origin::Stage(index) => self.stage_state(*index),
            Origin::Image(name) => {
                let image =
                    self.site.planned.image(name, &plan.stage.platform).ok_or_else(|| {
                        BuildError::new(ErrorKind::Internal, format!("the image {name} was not fetched"))
                    })?;
                self.image_state(image).map(|chain| State { id: image.digest, chain, by_content: false })
            }
        }
    }

    fn copy(
        &self,
        step: &Step,
        copy: &CopyOp,
        planned: Option<&Plan>,
        active: &Active,
        below: &Chain,
        from: Option<&Chain>,
    ) -> Result<(), Stop> {
        let wrong = |error| match copy_error(self.site.source, step.span, error) {
            error if error.kind == ErrorKind::Cancelled => Stop::Elsewhere,
            error => Stop::Failed(error),
        };
        let chown = match &copy.chown {
            // Names are those of the files below, also where the copy does not look at them.
            Some(spec) if copy.link => {
                let names = self.site.engine.snapshots.begin(below);
                let names = names.map_err(|e| self.machine("mount the step's files", &e))?;
                Some(user::lookup_owner(names.root(), spec).map_err(|e| self.refuse(step, e))?)
            }
            Some(spec) => Some(user::lookup_owner(active.root(), spec).map_err(|e| self.refuse(step, e))?),
            None => None,
        };
        let opts = CopyOpts { chown, chmod: copy.chmod.clone(), unpack: copy.unpack, keep_owner: from.is_some() };
        let apply = |plan: &Plan, opts: &CopyOpts| plan.apply(active.root(), &copy.dest, "/", opts, &self.stop);
        if let Some(plan) = planned {
            apply(plan, &opts).map_err(wrong)?;
        }
        if let (Some(chain), false) = (from, copy.sources.is_empty()) {
            let snapshots = &self.site.engine.snapshots;
            let source = snapshots.begin(chain).map_err(|e| self.machine("mount the files to copy", &e))?;
            let exclude = excluded(copy);
            let select =
                SelectOpts { hidden: None, exclude: exclude.as_ref(), parents: copy.parents, cancel: Some(&self.stop) };
            let plan = Plan::resolve(source.root(), &copy.sources, &select).map_err(wrong)?;
            apply(&plan, &opts).map_err(wrong)?;
        }
        self.add_remotes(step, copy, active, &opts)?;
        if !copy.documents.is_empty() {
            let folder = self.folder()?;
            for (name, text) in &copy.documents {
                let name = file_name(name)
                    .ok_or_else(|| self.refuse(step, format!("a here-document cannot be called {name:?}")))?;
                std::fs::write(folder.path().join(&name), text)
                    .map_err(|e| self.machine("write a here-document", &e))?;
                let plan = Plan::resolve(folder.path(), &[name], &SelectOpts::default()).map_err(wrong)?;
                let mode = copy.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
                let opts =
                    CopyOpts { chmod: Some(Chmod::from(mode)), unpack: false, keep_owner: false, ..opts.clone() };
                apply(&plan, &opts).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// A folder of this step's own, gone when dropped.
    pub(super) fn folder(&self) -> Result<Folder, Stop> {
        let path = self.site.engine.scratch_dir();
        std::fs::create_dir_all(&path).map_err(|e| self.machine("make a folder", &e))?;
        Ok(Folder(path))
    }
}

/// A folder that goes with this value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "remove a step's folder");
        }
    }
}

/// The last component of a here-document's name, which is what the file is called.
fn file_name(name: &str) -> Option<String> {
    Path::new(name).file_name().and_then(|n| n.to_str()).map(str::to_owned)
}
