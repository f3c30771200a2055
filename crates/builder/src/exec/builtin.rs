//! The first executor: libcontainer, in this very process.
//!
//! What libcontainer does not do without a C library, the filter of system calls, is done by
//! the sandbox's first process itself, as its last act before it becomes the step's program.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::seccomp::Filter;
use super::step::{BASE, Sandbox};
use super::wire::Job;

/// A sandbox made by libcontainer.
pub(super) struct Builtin {
    container: Container,
    pid: Pid,
}

impl Builtin {
    /// Make the sandbox out of the bundle in [`BASE`]. The error is a sentence.
    pub(super) fn create(job: &Job) -> Result<Builtin, String> {
        let filter = match job.seccomp {
            true => Some(Filter::docker().map_err(|error| format!("filter the system calls: {error}"))?),
            false => None,
        };
        let executor =
            Program { argv: job.argv.clone(), env: job.env.clone(), filter, new_privileges: job.new_privileges };
        let container = ContainerBuilder::new("step".to_owned(), SyscallType::default())
            .with_executor(executor)
            .with_root_path(Path::new(BASE).join("state"))
            .map(|builder| builder.as_init(BASE).with_systemd(false).with_detach(false))
            .and_then(|builder| builder.build())
            .map_err(|error| format!("make the sandbox: {}", causes(&error)))?;
        let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw())).ok_or("the sandbox has no process")?;
        Ok(Builtin { container, pid })
    }
}

impl Sandbox for Builtin {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn start(&mut self) -> Result<(), String> {
        self.container.start().map_err(|error| causes(&error))
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// The last act inside the sandbox: become the step's program.
#[derive(Clone)]
struct Program {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    filter: Option<Filter>,
    new_privileges: bool,
}

impl Executor for Program {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let (code, sentence) = match self.confine() {
            Err(error) => (126, format!("filter the system calls: {error}")),
            Ok(()) => match self.become_program() {
                Err(failure) => failure,
                Ok(never) => match never {},
            },
        };
        let _ = rustix::io::write(io::stderr(), format!("{sentence}\n").as_bytes());
        std::process::exit(code)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // Runs in the sandbox's first process, which waits for its start after this. Should
        // the step process be killed by itself, that one is to die with it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| ExecutorValidationError::ArgValidationError(error.to_string()))
    }

    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment goes with the call that starts the program.
        Ok(())
    }
}

impl Program {
    /// Install the filter, and drop what was kept for it alone.
    fn confine(&self) -> io::Result<()> {
        let Some(filter) = &self.filter else { return Ok(()) };
        filter.install()?;
        if self.new_privileges {
            rustix::thread::remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN)?;
            let mut sets: CapabilitySets = rustix::thread::capabilities(None)?;
            sets.effective.remove(CapabilitySet::SYS_ADMIN);
            sets.permitted.remove(CapabilitySet::SYS_ADMIN);
            sets.inheritable.remove(CapabilitySet::SYS_ADMIN);
            rustix::thread::set_capabilities(None, sets)?;
        }
        Ok(())
    }

    /// Only comes back with a shell's status and a sentence.
    fn become_program(&self) -> Result<Infallible, (i32, String)> {
        let name = self.argv.first().map(String::as_str).unwrap_or_default();
        let path = if name.contains('/') {
            PathBuf::from(name)
        } else {
            self.search(name).ok_or_else(|| (127, format!("exec {name}: executable file not found in $PATH")))?
        };
        let error = Command::new(&path)
            .arg0(name)
            .args(self.argv.iter().skip(1))
            .env_clear()
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .exec();
        let (code, reason) = match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => (127, "no such file or directory".to_owned()),
            Some(Errno::NOTDIR) => (127, "not a directory".to_owned()),
            Some(Errno::ACCESS) => (126, "permission denied".to_owned()),
            Some(Errno::NOEXEC) => (126, "exec format error".to_owned()),
            Some(Errno::TOOBIG) => (126, "argument list too long".to_owned()),
            _ => (126, error.to_string()),
        };
        Err((code, format!("exec {name}: {reason}")))
    }

    fn search(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        if name.is_empty() {
            return None;
        }
        let path = self.env.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_str())?;
        path.split(':').map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name)).find(|file| {
            fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        })
    }
}
