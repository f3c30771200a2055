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

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::step::Sandbox;
use super::wire::Job;

/// Where the bundle is: a folder that every machine has, covered in this mount namespace only.
pub(super) const BASE: &str = "/tmp";
/// What the container is called; nobody else sees the runtime's state.
const NAME: &str = "step";
/// How much of a runtime's complaint is passed on, bytes.
const COMPLAINT_BYTES_MAX: usize = 4 * 1024;

/// Why there is no sandbox.
pub(super) enum Refusal {
    /// The program cannot be run: a shell's status, and why.
    NotRun(i32, &'static str),
    /// Something else; a sentence.
    Failed(String),
}

/// A sandbox made by an OCI runtime.
pub(super) struct Runc {
    program: PathBuf,
    pid: Pid,
}

impl Runc {
    /// Make the sandbox out of the bundle in [`BASE`].
    pub(super) fn create(job: &Job, program: &str) -> Result<Runc, Refusal> {
        if let Some((code, why)) = missing(job) {
            return Err(Refusal::NotRun(code, why));
        }
        // Its first process becomes this one's child when the runtime has gone.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| Refusal::Failed(format!("adopt the sandbox's process: {}", io::Error::from(error))))?;
        let program = PathBuf::from(program);
        let pid_file = Path::new(BASE).join("pid");
        let pid_path = pid_file.display().to_string();
        command(&program, &["create", "--bundle", BASE, "--pid-file", &pid_path, NAME], false).map_err(|reason| {
            // It looks for the program before it has a process to wait.
            not_run(&reason).map_or(Refusal::Failed(reason), |(code, why)| Refusal::NotRun(code, why))
        })?;
        let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Refusal::Failed(format!("{} made no process", program.display())))?;
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

/// A shell's status and words for a program that cannot be run, seen before the runtime is
/// asked: it would complain on the step's own standard error.
fn missing(job: &Job) -> Option<(i32, &'static str)> {
    const DENIED: (i32, &str) = (126, "permission denied");
    // What is mounted into the step is not there yet, and may be where the program is.
    if !job.mounts.is_empty() {
        return None;
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(Path::new(BASE).join("root"), flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let look = |path: &Path| -> Result<(), (i32, &'static str)> {
        let inside = Path::new(&job.cwd).join(path);
        let file = rustix::fs::openat2(&root, inside, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        let file = file.map_err(|error| match error {
            Errno::NOTDIR => (127, "not a directory"),
            Errno::ACCESS => DENIED,
            _ => (127, "no such file or directory"),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(|_| DENIED)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if regular && stat.st_mode & 0o111 != 0 { Ok(()) } else { Err(DENIED) }
    };
    let name = job.argv.first()?;
    if name.contains('/') {
        return look(Path::new(name)).err();
    }
    let path = job.env.iter().rev().find(|(key, _)| key == "PATH").map_or("", |(_, value)| value.as_str());
    let found = path.split(':').any(|dir| look(&Path::new(if dir.is_empty() { "." } else { dir }).join(name)).is_ok());
    if found { None } else { Some((127, "executable file not found in $PATH")) }
}

/// A shell's status and words for a program that cannot be run, if that is why the runtime
/// made no sandbox.
fn not_run(reason: &str) -> Option<(i32, &'static str)> {
    let (_, reason) = reason.split_once("exec: ")?;
    let known = [
        (127, "executable file not found in $PATH"),
        (127, "no such file or directory"),
        (127, "not a directory"),
        (126, "permission denied"),
        (126, "is a directory"),
        (126, "exec format error"),
    ];
    known.into_iter().find(|(_, words)| reason.ends_with(words))
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
        let told = "runc create failed: unable to start container process: exec: \"/foo\": stat /foo: no such file or directory";
        assert_eq!(super::not_run(told), Some((127, "no such file or directory")));
        assert_eq!(super::not_run("runc create failed: no such file or directory"), None);
    }
}
