//! The steps themselves: make a directory, copy, run.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use portolan_types::Platform;

use super::eval::{CopyOp, Op, RunOp, Step};
use super::key::Key;
use super::log::StepLog;
use super::plan::{StagePlan, copy_error, excluded};
use super::work::{Crew, State, Stop};
use crate::copy::{Chmod, CopyOpts, Plan, SelectOpts};
use crate::error::{BuildError, ErrorKind, Fault};
use crate::exec::{self, ExecConfig, ExecError, StepMount, StepSpec};
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
        log: &StepLog<'_>,
    ) -> Result<Active, Stop> {
        let step = &plan.stage.steps[number];
        let snapshots = &self.site.engine.snapshots;
        let active = snapshots.begin(below).map_err(|e| self.machine("mount the step's files", &e))?;
        match &step.op {
            Op::Mkdir { path, user } => self.make_dir(step, &active, path, user)?,
            Op::Copy(copy) => self.copy(step, copy, plan.copies[number].as_ref(), &active, from)?,
            Op::Run(run) => self.run(step, run, &plan.stage.platform, &active, log)?,
        }
        Ok(active)
    }

    fn refuse(&self, step: &Step, message: impl Into<String>) -> Stop {
        Stop::Failed(self.site.source.error(&Fault::new(step.span, message)))
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
        match &copy.from {
            None => Ok(None),
            Some(Origin::Scratch) => Ok(Some(State { id: Key::new("scratch").finish(), chain: Chain::empty() })),
            Some(Origin::Stage(index)) => self.stage_state(*index).map(Some),
            Some(Origin::Image(name)) => {
                let image =
                    self.site.planned.image(name, &plan.stage.platform).ok_or_else(|| {
                        BuildError::new(ErrorKind::Internal, format!("the image {name} was not fetched"))
                    })?;
                self.image_state(image).map(|chain| Some(State { id: image.digest, chain }))
            }
        }
    }

    fn copy(
        &self,
        step: &Step,
        copy: &CopyOp,
        planned: Option<&Plan>,
        active: &Active,
        from: Option<&Chain>,
    ) -> Result<(), Stop> {
        let wrong = |error| match copy_error(self.site.source, step.span, error) {
            error if error.kind == ErrorKind::Cancelled => Stop::Elsewhere,
            error => Stop::Failed(error),
        };
        let chown = match &copy.chown {
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
            let select = SelectOpts { hidden: None, exclude: exclude.as_ref(), parents: copy.parents };
            let plan = Plan::resolve(source.root(), &copy.sources, &select).map_err(wrong)?;
            apply(&plan, &opts).map_err(wrong)?;
        }
        if !copy.documents.is_empty() {
            let folder = self.folder()?;
            for (name, text) in &copy.documents {
                let name = file_name(name)
                    .ok_or_else(|| self.refuse(step, format!("a here-document cannot be called {name:?}")))?;
                std::fs::write(folder.path().join(&name), text)
                    .map_err(|e| self.machine("write a here-document", &e))?;
                let plan = Plan::resolve(folder.path(), &[name], &SelectOpts::default()).map_err(wrong)?;
                let mode = copy.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
                let opts = CopyOpts { chmod: Some(Chmod::from(mode)), unpack: false, keep_owner: false, ..opts.clone() };
                apply(&plan, &opts).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// A folder of this step's own, gone when dropped.
    fn folder(&self) -> Result<Folder, Stop> {
        let path = self.site.engine.scratch_dir();
        std::fs::create_dir_all(&path).map_err(|e| self.machine("make a folder", &e))?;
        Ok(Folder(path))
    }

    fn run(
        &self,
        step: &Step,
        run: &RunOp,
        platform: &Platform,
        active: &Active,
        log: &StepLog<'_>,
    ) -> Result<(), Stop> {
        let engine = self.site.engine;
        let user = user::lookup(active.root(), &run.user).map_err(|e| self.refuse(step, e))?;
        let mut mounts = Vec::new();
        let mut _folder = None;
        if let Some((target, text)) = &run.script {
            let folder = self.folder()?;
            let source = folder.path().join("script");
            write_script(&source, text).map_err(|e| self.machine("write a here-document", &e))?;
            mounts.push(StepMount::Bind { source, target: target.clone(), writable: false });
            _folder = Some(folder);
        }
        let spec = StepSpec {
            root: active.root(),
            argv: run.argv.clone(),
            env: run.env.iter().chain(&run.extra_env).cloned().collect(),
            cwd: run.cwd.clone(),
            user,
            limits: engine.config.limits,
            mounts,
            secret_env: Vec::new(),
            network: if run.network { exec::Network::Default } else { exec::Network::None },
            insecure: false,
            emulator: exec::emulator_for(platform, &engine.config.emulators_dir).map_err(|e| self.refuse(step, e))?,
        };
        let config = ExecConfig {
            step_command: engine.config.step_command.clone(),
            state_dir: engine.steps_dir(),
            cgroups: true,
        };
        let secrets = Blotter::new(&self.site.planned.secrets);
        let out = |stream, bytes: &[u8]| match &secrets {
            Some(secrets) => secrets.feed(stream, bytes, |bytes| log.output(stream, bytes)),
            None => log.output(stream, bytes),
        };
        let ended = exec::run(&config, &spec, &out, &self.stop);
        if let Some(secrets) = &secrets {
            secrets.finish(|stream, bytes| log.output(stream, bytes));
        }
        let command = self.redact(&run.argv.join(" "));
        let source = self.site.source;
        let fail = |kind, message: String| Err(Stop::Failed(source.fault_at(kind, &Fault::new(step.span, message))));
        match ended {
            Ok(exit) if exit.code == 0 => Ok(()),
            Ok(exit) => {
                let mut fault = format!("process {command:?} did not complete successfully: exit code: {}", exit.code);
                if exit.out_of_memory {
                    fault.push_str(" (it ran out of the memory a step may use)");
                }
                fail(ErrorKind::Step { exit_code: exit.code }, fault)
            }
            Err(ExecError::Cancelled) => Err(Stop::Elsewhere),
            Err(_) if self.stop.is_cancelled() => Err(Stop::Elsewhere),
            Err(error @ ExecError::TimedOut(_)) => fail(ErrorKind::Timeout, error.to_string()),
            Err(error @ ExecError::Start(_)) => fail(ErrorKind::Internal, error.to_string()),
            Err(ExecError::Io(error)) => Err(self.machine("run the step", &error)),
        }
    }

    fn redact(&self, text: &str) -> String {
        self.site.planned.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

/// A folder that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn path(&self) -> &Path {
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

fn write_script(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    // Any user may be the one to run it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Blots secret values out of output that comes in pieces cut anywhere.
struct Blotter {
    secrets: Vec<Vec<u8>>,
    /// What may be the beginning of a secret, of standard output and standard error.
    held: [parking_lot::Mutex<Vec<u8>>; 2],
}

impl Blotter {
    fn new(secrets: &[String]) -> Option<Blotter> {
        let secrets: Vec<Vec<u8>> = secrets.iter().map(|s| s.clone().into_bytes()).collect();
        (!secrets.is_empty()).then(|| Blotter { secrets, held: Default::default() })
    }

    fn held(&self, stream: exec::Stream) -> &parking_lot::Mutex<Vec<u8>> {
        match stream {
            exec::Stream::Stdout => &self.held[0],
            exec::Stream::Stderr => &self.held[1],
        }
    }

    fn feed(&self, stream: exec::Stream, bytes: &[u8], out: impl FnOnce(&[u8])) {
        let mut held = self.held(stream).lock();
        held.extend_from_slice(bytes);
        let mut clean = Vec::with_capacity(held.len());
        let mut at = 0;
        while at < held.len() {
            let rest = &held[at..];
            if let Some(secret) = self.secrets.iter().find(|s| rest.starts_with(s)) {
                clean.extend_from_slice(b"***");
                at += secret.len();
            } else if self.secrets.iter().any(|s| s.starts_with(rest)) {
                break;
            } else {
                clean.push(rest[0]);
                at += 1;
            }
        }
        held.drain(..at);
        if !clean.is_empty() {
            out(&clean);
        }
    }

    /// No more comes: what was held back was no secret.
    fn finish(&self, out: impl Fn(exec::Stream, &[u8])) {
        for stream in [exec::Stream::Stdout, exec::Stream::Stderr] {
            let held = std::mem::take(&mut *self.held(stream).lock());
            if !held.is_empty() {
                out(stream, &held);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blotted_out_however_the_output_is_cut() {
        let text = b"a secret, a sec, secretsecret: s";
        for cut in 0..=text.len() {
            let blotter = Blotter::new(&["secret".to_owned()]).unwrap();
            let seen = parking_lot::Mutex::new(Vec::new());
            let push = |bytes: &[u8]| seen.lock().extend_from_slice(bytes);
            blotter.feed(exec::Stream::Stdout, &text[..cut], push);
            blotter.feed(exec::Stream::Stdout, &text[cut..], push);
            blotter.finish(|_, bytes| push(bytes));
            assert_eq!(String::from_utf8(seen.into_inner()).unwrap(), "a ***, a sec, ******: s");
        }
        assert!(Blotter::new(&[]).is_none());
    }
}
