//! The second executor: an OCI runtime (`runc`, `crun`) in place of libcontainer.
//!
//! The step process prepares the same bundle in the same namespaces and then has the runtime
//! make the sandbox (`create`) and let the program go (`start`). All else is the engine's as
//! always: the cgroup, the output, the time. The runtime's own state is on the step process's
//! file system in memory and goes with it, and so does its first process, which falls to
//! the step process when `create` is done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use super::step::Sandbox;

/// Where the bundle is: a folder that every machine has, covered in this mount namespace only.
pub(super) const BASE: &str = "/tmp";
/// What the container is called; nobody else sees the runtime's state.
const NAME: &str = "step";
/// How much of a runtime's complaint is passed on, bytes.
const COMPLAINT_BYTES_MAX: usize = 4 * 1024;

/// A sandbox made by an OCI runtime.
pub(super) struct Runc {
    program: PathBuf,
    pid: Pid,
}

impl Runc {
    /// Make the sandbox out of the bundle in [`BASE`]. The error is a sentence.
    pub(super) fn create(program: &str) -> Result<Runc, String> {
        // Its first process becomes this one's child when the runtime has gone.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| format!("adopt the sandbox's process: {}", io::Error::from(error)))?;
        let program = PathBuf::from(program);
        let pid_file = Path::new(BASE).join("pid");
        let pid_path = pid_file.display().to_string();
        command(&program, &["create", "--no-pivot=false", "--bundle", BASE, "--pid-file", &pid_path, NAME], false)?;
        let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| format!("{} made no process", program.display()))?;
        Ok(Runc { program, pid })
    }
}

impl Sandbox for Runc {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn start(&mut self) -> Result<(), String> {
        command(&self.program, &["start", NAME], true)
    }
}

/// Run the runtime. `create` hands its standard streams to the program; its complaints
/// are in its log.
fn command(program: &Path, args: &[&str], quiet: bool) -> Result<(), String> {
    let log = Path::new(BASE).join("log");
    let mut command = Command::new(program);
    command.arg("--root").arg(Path::new(BASE).join("state")).arg("--log").arg(&log).args(args);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(BASE);
    if quiet {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let status = command.status().map_err(|error| format!("start {}: {error}", program.display()))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read(&log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(COMPLAINT_BYTES_MAX)..]).into_owned();
    // `create` that failed half way leaves nobody behind that would wait.
    Err(format!("{} {}: {status}: {}", program.display(), args[0], complaint(&said)))
}

/// What the last line of a runtime's log says.
fn complaint(log: &str) -> String {
    let line = log.lines().rev().find(|line| line.contains("level=error")).unwrap_or(log).trim();
    line.split_once("msg=").map_or(line, |(_, message)| message.trim_matches('"')).to_owned()
}

impl Drop for Runc {
    fn drop(&mut self) {
        // Ended already when all went well. This removes the runtime's own, empty cgroups.
        if command(&self.program, &["delete", "--force", NAME], true).is_err() {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_complaint_is_one_sentence() {
        let log = "time=\"x\" level=warning msg=\"no\"\ntime=\"y\" level=error msg=\"runc create failed: EPERM\"\n";
        assert_eq!(super::complaint(log), "runc create failed: EPERM");
        assert_eq!(super::complaint(""), "");
    }
}
