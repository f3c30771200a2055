//! `RUN`: the program of a step, with what it may see and what may be seen of it.

use std::path::Path;

use super::blot::Blotter;
use super::eval::{RunOp, Step};
use super::log::StepLog;
use super::mounts::Ready;
use super::plan::StagePlan;
use super::work::{Crew, Stop};
use crate::error::{ErrorKind, Fault};
use crate::exec::{self, ExecError, StepMount, StepSpec};
use crate::snapshot::Active;
use crate::user;

impl Crew<'_> {
    pub(super) fn run(
        &self,
        (plan, number): (&StagePlan, usize),
        run: &RunOp,
        ready: Ready,
        active: &Active,
        log: &StepLog<'_>,
    ) -> Result<(), Stop> {
        let step: &Step = &plan.stage.steps[number];
        let engine = self.site.engine;
        let user = user::lookup(active.root(), &run.user).map_err(|e| self.refuse(step, e))?;
        let mut mounted = self.mount(step, &run.mounts, &plan.binds[number], ready)?;
        let mut _folder = None;
        if let Some((target, text)) = &run.script {
            let folder = self.folder()?;
            let source = folder.path().join("script");
            write_script(&source, text).map_err(|e| self.machine("write a here-document", &e))?;
            mounted.mounts.push(StepMount::Bind { source, target: target.clone(), writable: false });
            _folder = Some(folder);
        }
        let mut env: Vec<(String, String)> = run.env.iter().chain(&run.extra_env).cloned().collect();
        for (name, value) in &mounted.env {
            if !env.iter().any(|(known, _)| known == name) {
                env.push((name.clone(), value.clone()));
            }
        }
        let upper = active.upper();
        let spec = StepSpec {
            root: active.root(),
            argv: run.argv.clone(),
            env,
            cwd: run.cwd.clone(),
            user,
            limits: engine.config.limits,
            mounts: std::mem::take(&mut mounted.mounts),
            secret_env: std::mem::take(&mut mounted.secret_env),
            network: run.network,
            insecure: run.insecure,
            disk: Some(exec::StepDisk { upper: &upper, also: &mounted.written, build: &self.site.common.disk }),
            emulator: exec::emulator_for(&plan.stage.platform, &engine.config.emulators_dir)
                .map_err(|e| self.refuse(step, e))?,
        };
        let mut config = engine.exec_config();
        if let Some(hostname) = &run.hostname {
            config.hostname.clone_from(hostname);
        }
        let blots = &self.site.planned.blots;
        let blotter = Blotter::new(blots);
        let out = |stream, bytes: &[u8]| blotter.feed(stream, bytes, |bytes| log.output(stream, bytes));
        let ended = exec::run(&config, &spec, &out, &self.stop);
        blotter.finish(|stream, bytes| log.output(stream, bytes));
        for why in mounted.troubles() {
            log.note(&format!("ssh: {why}"));
        }
        drop(mounted);
        let command = run.argv.join(" ");
        let command = blots.text(&command);
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
            Err(error @ ExecError::Excess(_)) => fail(ErrorKind::Limit, error.to_string()),
            Err(error @ ExecError::Start(_)) => fail(ErrorKind::Internal, error.to_string()),
            Err(ExecError::Io(error)) => Err(self.machine("run the step", &error)),
        }
    }
}

fn write_script(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    // Any user may be the one to run it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}
