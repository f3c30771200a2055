//! Limits on steps, by cgroups of version 1 or 2.
//!
//! The engine makes the groups itself, one per step below one of its own, and puts the
//! step's first process in before its program starts; everything the step starts is born
//! there. Version 1 (also in hybrid layouts) counts from the cgroup this process is in, so
//! that limits of the whole server hold for its steps; version 2 from the root, because a
//! group with processes cannot hand controllers down there.
//!
//! Where groups cannot be made, steps run without limits and the log says so once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use portolan_types::Digest;
use rustix::process::{Pid, Signal};

use super::StepLimits;

/// The accounting period of processor time, microseconds. The kernel's default.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// How often a group is made anew when the one above it vanishes.
const MAKE_TRIES: u32 = 20;
/// How often a group is asked to go while its last processes are being reaped.
const REMOVE_TRIES: u32 = 50;
/// Devices that a step may use, as version 1 spells them: docker's list. Nodes of any device
/// may be made, but not opened.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Where this machine has its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// Version 1: a folder for each controller that we use and that is there.
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
    devices: Option<PathBuf>,
    /// Version 2, where no version 1 controller is: the root.
    unified: Option<PathBuf>,
}

/// The groups of one step.
#[derive(Debug, Default)]
pub(super) struct Cgroup {
    memory: Option<PathBuf>,
    dirs: Vec<PathBuf>,
    /// Whether the group says which devices may be used.
    pub devices: bool,
}

impl Cgroup {
    /// Make the groups for a step with these limits.
    pub(super) fn create(state_dir: &Path, limits: &StepLimits) -> Cgroup {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        static TOLD: Once = Once::new();
        let layout = Layout::of_this_process();
        let name = format!("{}/{}-{}", family(state_dir), std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let mut group = Cgroup::default();
        if let Err(error) = group.fill(&layout, &name, limits) {
            TOLD.call_once(|| {
                tracing::warn!(%error, "cgroups cannot be used: build steps run without limits of memory, processes and processor time");
            });
        }
        group
    }

    /// Everything that can be had; the first thing that cannot is the error.
    fn fill(&mut self, layout: &Layout, name: &str, limits: &StepLimits) -> io::Result<()> {
        let memory = limits.memory_bytes_max.map(|bytes| bytes.to_string());
        let pids = limits.pids_max.map(|pids| pids.to_string());
        let quota = limits.cpus.map(|cpus| ((cpus * CPU_PERIOD_MICROS as f64) as u64).max(1_000).to_string());
        let period = CPU_PERIOD_MICROS.to_string();
        if layout.unified.is_some() {
            let cpu = quota.map(|quota| format!("{quota} {period}"));
            let files = [("memory.max", memory), ("pids.max", pids), ("cpu.max", cpu)];
            let files: Vec<(&str, &str)> =
                files.iter().filter_map(|(file, value)| Some((*file, value.as_deref()?))).collect();
            if files.is_empty() {
                return Ok(());
            }
            let (dir, result) = self.group(layout.unified.as_deref(), "unified", name, &files)?;
            // Without it the limit would only move pages to swap.
            let _ = write(&dir.join("memory.swap.max"), "0");
            self.memory = Some(dir);
            return result;
        }
        let mut results = Vec::new();
        if layout.devices.is_some() {
            let mut files = vec![("devices.deny", "a")];
            files.extend(DEVICES.map(|device| ("devices.allow", device)));
            let result = self.group(layout.devices.as_deref(), "devices", name, &files).and_then(|(_, result)| result);
            self.devices = result.is_ok();
            results.push(result);
        }
        if let Some(bytes) = memory {
            results.push(
                self.group(layout.memory.as_deref(), "memory", name, &[("memory.limit_in_bytes", &bytes)]).and_then(
                    |(dir, result)| {
                        // Not there when swap is not counted.
                        let _ = write(&dir.join("memory.memsw.limit_in_bytes"), &bytes);
                        self.memory = Some(dir);
                        result
                    },
                ),
            );
        }
        if let Some(pids) = pids {
            results.push(
                self.group(layout.pids.as_deref(), "pids", name, &[("pids.max", &pids)]).and_then(|(_, result)| result),
            );
        }
        if let Some(quota) = quota {
            let files = [("cpu.cfs_period_us", period.as_str()), ("cpu.cfs_quota_us", quota.as_str())];
            results.push(self.group(layout.cpu.as_deref(), "cpu", name, &files).and_then(|(_, result)| result));
        }
        results.into_iter().collect()
    }

    /// Make a group below `root` and write its files, all of them even where one fails.
    fn group(
        &mut self,
        root: Option<&Path>,
        controller: &str,
        name: &str,
        files: &[(&str, &str)],
    ) -> io::Result<(PathBuf, io::Result<()>)> {
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("the kernel has no {controller} controller here"));
        let root = root.ok_or_else(missing)?;
        let dir = root.join(name);
        if controller == "unified" {
            enable(root);
        }
        make(&dir).map_err(|error| io::Error::new(error.kind(), format!("make {}: {error}", dir.display())))?;
        if let (true, Some(family)) = (controller == "unified", dir.parent()) {
            enable(family);
        }
        self.dirs.push(dir.clone());
        let results: Vec<io::Result<()>> = files.iter().map(|(file, value)| write(&dir.join(file), value)).collect();
        Ok((dir, results.into_iter().collect()))
    }

    /// Put a process in.
    pub(super) fn add(&self, pid: Pid) -> io::Result<()> {
        let pid = pid.as_raw_nonzero().to_string();
        self.dirs.iter().try_for_each(|dir| write(&dir.join("cgroup.procs"), &pid))
    }

    /// Whether the memory limit has had a process killed.
    pub(super) fn out_of_memory(&self) -> bool {
        self.memory.as_ref().is_some_and(|dir| {
            ["memory.oom_control", "memory.events"].iter().any(|file| {
                let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
                text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
            })
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in &self.dirs {
            if let Err(error) = remove(dir) {
                tracing::warn!(path = %dir.display(), %error, "remove a step's cgroup");
            }
            // Goes with the last step of the engine.
            if let Some(family) = dir.parent() {
                let _ = fs::remove_dir(family);
            }
        }
    }
}

/// Kill what a killed engine with this state folder left running, and remove its groups.
pub(super) fn sweep(state_dir: &Path) -> io::Result<()> {
    let layout = Layout::of_this_process();
    let family = family(state_dir);
    for root in [layout.memory, layout.pids, layout.cpu, layout.devices, layout.unified].into_iter().flatten() {
        let Ok(entries) = fs::read_dir(root.join(&family)) else { continue };
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            remove(&entry.path())?;
        }
        // Made again with the next step.
        let _ = fs::remove_dir(root.join(&family));
    }
    Ok(())
}

/// One name per state folder, so that engines side by side leave each other alone.
fn family(state_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let real = fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    format!("portolan-{}", Digest::of(real.as_os_str().as_bytes()).short())
}

fn remove(dir: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if tries == REMOVE_TRIES => return Err(error),
            Err(_) => {}
        }
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        tries += 1;
        std::thread::sleep(std::time::Duration::from_millis(u64::from(tries)));
    }
}

/// Make a group and the one above it, which another step may be removing just now.
fn make(dir: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::create_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < MAKE_TRIES => tries += 1,
            other => return other,
        }
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    // Not created: a file that is not there is a controller that is not there.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|error| io::Error::new(error.kind(), format!("write {value} to {}: {error}", file.display())))
}

/// Hand controllers down to the groups below. What cannot be, shows when a limit is set.
fn enable(dir: &Path) {
    for controller in ["+memory", "+pids", "+cpu"] {
        let _ = write(&dir.join("cgroup.subtree_control"), controller);
    }
}

impl Layout {
    fn of_this_process() -> Layout {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Layout::parse(&mounts, &own)
    }

    /// From `/proc/self/mountinfo` and `/proc/self/cgroup`.
    fn parse(mounts: &str, own: &str) -> Layout {
        let mut layout = Layout::default();
        let mut unified = None;
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(root), Some(point), Some(kind), Some(options)) =
                (left.get(3), left.get(4), right.first(), right.get(2))
            else {
                continue;
            };
            match *kind {
                "cgroup2" => unified = unified.or(Some(PathBuf::from(point))),
                "cgroup" => {
                    for controller in options.split(',') {
                        let slot = match controller {
                            "memory" => &mut layout.memory,
                            "pids" => &mut layout.pids,
                            "cpu" => &mut layout.cpu,
                            "devices" => &mut layout.devices,
                            _ => continue,
                        };
                        if slot.is_none() {
                            *slot = Some(Path::new(point).join(own_group(own, controller, root)));
                        }
                    }
                }
                _ => {}
            }
        }
        if layout == Layout::default() {
            layout.unified = unified;
        }
        layout
    }
}

/// This process's group in a version 1 hierarchy, relative to its mount, which shows the
/// hierarchy from `root` down.
fn own_group(own: &str, controller: &str, root: &str) -> PathBuf {
    let path = own
        .lines()
        .filter_map(|line| line.split_once(':').and_then(|(_, rest)| rest.split_once(':')))
        .find(|(controllers, _)| controllers.split(',').any(|name| name == controller))
        .map_or("/", |(_, path)| path);
    let path = Path::new(path);
    path.strip_prefix(root).unwrap_or(path.strip_prefix("/").unwrap_or(path)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      31 24 0:27 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n\
                      32 24 0:28 /docker/ab /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/system.slice/x\n3:pids:/docker/ab/in\n2:cpu,cpuacct:/\n0::/init.scope\n";
        let layout = Layout::parse(hybrid, own);
        assert_eq!(layout.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory/system.slice/x")));
        assert_eq!(layout.pids.as_deref(), Some(Path::new("/sys/fs/cgroup/pids/in")));
        assert_eq!(layout.cpu.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/")));
        assert_eq!((layout.devices, layout.unified), (None, None));
        let pure = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Layout::parse(pure, "0::/a").unified.as_deref(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(Layout::parse("", ""), Layout::default());
    }
}
