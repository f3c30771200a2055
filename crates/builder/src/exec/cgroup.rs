//! Limits on steps, by cgroups of version 1 or 2.
//!
//! The engine makes the groups itself, one per step below one of its own, and puts the
//! step's first process in before its program starts; everything the step starts is born
//! there. Version 1 (also in hybrid layouts) counts from the cgroup this process is in, so
//! that limits of the whole server hold for its steps; so does version 2 where that cgroup was
//! delegated to it, and from the root else.
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

/// The group that this process moves itself to where it has to make room for those of steps.
const SERVER_LEAF: &str = "portolan-server";

/// Where this machine has its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// Version 1: a folder for each controller that we use and that is there.
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
    io: Option<PathBuf>,
    devices: Option<PathBuf>,
    /// Version 2, where no version 1 controller is: the group to make others in.
    unified: Option<PathBuf>,
}

/// A group to make, and what to write in its files.
#[derive(Debug, PartialEq, Eq)]
struct Want {
    controller: &'static str,
    files: Vec<(&'static str, String)>,
    /// Not there on every kernel, and not missed much.
    extra: Vec<(&'static str, String)>,
}

/// The groups of one step.
#[derive(Debug, Default)]
pub(super) struct Cgroup {
    memory: Option<PathBuf>,
    dirs: Vec<PathBuf>,
    /// Whether the group says which devices may be used.
    pub devices: bool,
}

/// What limits are in the words of version 1, a group for each controller, or of version 2,
/// one for all. `disk` is the device that input and output are counted on.
fn wants(limits: &StepLimits, unified: bool, disk: Option<&str>) -> Vec<Want> {
    let memory = limits.memory_bytes_max.map(|bytes| bytes.to_string());
    let pids = limits.pids_max.map(|pids| pids.to_string());
    let quota = limits.cpus.map(|cpus| ((cpus * CPU_PERIOD_MICROS as f64) as u64).max(1_000).to_string());
    let period = CPU_PERIOD_MICROS.to_string();
    let io = limits.io_bytes_per_sec_max.zip(disk);
    if unified {
        let mut all = Want { controller: "unified", files: Vec::new(), extra: Vec::new() };
        if let Some(memory) = memory {
            all.files.push(("memory.max", memory));
            // Without it the limit would only move pages to swap.
            all.extra.push(("memory.swap.max", "0".to_owned()));
            // All of a step's processes go together: half of one is of no use.
            all.extra.push(("memory.oom.group", "1".to_owned()));
        }
        all.files.extend(pids.map(|pids| ("pids.max", pids)));
        all.files.extend(quota.map(|quota| ("cpu.max", format!("{quota} {period}"))));
        all.files.extend(io.map(|(bytes, disk)| ("io.max", format!("{disk} rbps={bytes} wbps={bytes}"))));
        return if all.files.is_empty() { Vec::new() } else { vec![all] };
    }
    let mut wants = Vec::new();
    let mut want = |controller, files, extra| wants.push(Want { controller, files, extra });
    if let Some(bytes) = memory {
        // Not there when swap is not counted.
        let extra = vec![("memory.memsw.limit_in_bytes", bytes.clone())];
        want("memory", vec![("memory.limit_in_bytes", bytes)], extra);
    }
    if let Some(pids) = pids {
        want("pids", vec![("pids.max", pids)], Vec::new());
    }
    if let Some(quota) = quota {
        want("cpu", vec![("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota)], Vec::new());
    }
    if let Some((bytes, disk)) = io {
        let value = format!("{disk} {bytes}");
        let files = vec![("blkio.throttle.read_bps_device", value.clone()), ("blkio.throttle.write_bps_device", value)];
        want("io", files, Vec::new());
    }
    wants
}

/// The disk that a folder is on, as the kernel counts it: not a part of one.
fn disk_of(dir: &Path) -> Option<String> {
    use std::os::linux::fs::MetadataExt;
    let device = fs::metadata(dir).ok()?.st_dev();
    let name = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let at = Path::new("/sys/dev/block").join(&name);
    if !at.exists() {
        // A file system of no device of its own.
        return None;
    }
    if at.join("partition").exists() {
        return fs::read_to_string(at.join("../dev")).ok().map(|text| text.trim().to_owned());
    }
    Some(name)
}

impl Cgroup {
    /// Make the groups for a step with these limits.
    pub(super) fn create(state_dir: &Path, limits: &StepLimits) -> Cgroup {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        static TOLD: Once = Once::new();
        let layout = Layout::of_this_process();
        let name = format!("{}/{}-{}", family(state_dir), std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let disk = limits.io_bytes_per_sec_max.and_then(|_| disk_of(state_dir));
        let mut group = Cgroup::default();
        if let Err(error) = group.fill(&layout, &name, limits, disk.as_deref()) {
            TOLD.call_once(|| {
                tracing::warn!(%error, "cgroups cannot be used as set: build steps run without some of the limits of memory, processes, processor time and disk speed");
            });
        }
        group
    }

    /// Everything that can be had; the first thing that cannot is the error.
    fn fill(&mut self, layout: &Layout, name: &str, limits: &StepLimits, disk: Option<&str>) -> io::Result<()> {
        let mut results = Vec::new();
        if layout.devices.is_some() {
            let mut files = vec![("devices.deny", "a".to_owned())];
            files.extend(DEVICES.map(|device| ("devices.allow", device.to_owned())));
            let want = Want { controller: "devices", files, extra: Vec::new() };
            let result = self.group(layout.devices.as_deref(), name, &want).and_then(|(_, result)| result);
            self.devices = result.is_ok();
            results.push(result);
        }
        if limits.io_bytes_per_sec_max.is_some() && disk.is_none() {
            results.push(Err(io::Error::other(
                "the file system of the builds is on no single disk whose speed could be limited",
            )));
        }
        for want in wants(limits, layout.unified.is_some(), disk) {
            let root = match want.controller {
                "memory" => &layout.memory,
                "pids" => &layout.pids,
                "cpu" => &layout.cpu,
                "io" => &layout.io,
                _ => &layout.unified,
            };
            results.push(self.group(root.as_deref(), name, &want).and_then(|(dir, result)| {
                if matches!(want.controller, "memory" | "unified") {
                    self.memory = Some(dir);
                }
                result
            }));
        }
        results.into_iter().collect()
    }

    /// Make a group below `root` and write its files, all of them even where one fails.
    fn group(&mut self, root: Option<&Path>, name: &str, want: &Want) -> io::Result<(PathBuf, io::Result<()>)> {
        let controller = want.controller;
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("the kernel has no {controller} controller here"));
        let root = root.ok_or_else(missing)?;
        let dir = root.join(name);
        let controllers: Vec<&str> = want.files.iter().filter_map(|(file, _)| Some(file.split_once('.')?.0)).collect();
        if controller == "unified" {
            hand_down(root, &controllers)?;
        }
        make(&dir).map_err(|error| io::Error::new(error.kind(), format!("make {}: {error}", dir.display())))?;
        if let (true, Some(family)) = (controller == "unified", dir.parent()) {
            hand_down(family, &controllers)?;
        }
        self.dirs.push(dir.clone());
        let results: Vec<io::Result<()>> =
            want.files.iter().map(|(file, value)| write(&dir.join(file), value)).collect();
        for (file, value) in &want.extra {
            let _ = write(&dir.join(file), value);
        }
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
    let roots = [layout.memory, layout.pids, layout.cpu, layout.io, layout.devices, layout.unified];
    for root in roots.into_iter().flatten() {
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
    // Version 2, from Linux 5.14: all at once, however fast they fork.
    if dir.join("cgroup.kill").exists() {
        let _ = write(&dir.join("cgroup.kill"), "1");
    }
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

/// Version 2: hand controllers down to the groups below. A group that does so may hold no
/// processes itself (the root of all may), so where this one does, they are moved to one below
/// it. A controller that is not there shows when its limit is set.
fn hand_down(dir: &Path, controllers: &[&str]) -> io::Result<()> {
    let control = dir.join("cgroup.subtree_control");
    for controller in controllers {
        let word = format!("+{controller}");
        let Err(error) = fs::write(&control, &word) else { continue };
        if rustix::io::Errno::from_io_error(&error) != Some(rustix::io::Errno::BUSY) {
            continue;
        }
        make_room(dir)?;
        fs::write(&control, &word)
            .map_err(|error| io::Error::new(error.kind(), format!("write {word} to {}: {error}", control.display())))?;
    }
    Ok(())
}

/// Move the processes of a group to one below it.
fn make_room(dir: &Path) -> io::Result<()> {
    let leaf = dir.join(SERVER_LEAF);
    make(&leaf)?;
    // Some may fork meanwhile; what is born after its parent was moved is born there.
    for _ in 0..MAKE_TRIES {
        let procs = fs::read_to_string(dir.join("cgroup.procs"))?;
        if procs.trim().is_empty() {
            break;
        }
        for pid in procs.lines() {
            match write(&leaf.join("cgroup.procs"), pid) {
                // Gone already.
                Err(error) if error.to_string().contains("No such process") => {}
                other => other?,
            }
        }
    }
    Ok(())
}

impl Layout {
    fn of_this_process() -> Layout {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Layout::parse(&mounts, &own, &is_delegated)
    }

    /// From `/proc/self/mountinfo` and `/proc/self/cgroup`; `delegated` says whether a group
    /// of version 2 is ours to change.
    fn parse(mounts: &str, own: &str, delegated: &dyn Fn(&Path) -> bool) -> Layout {
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
                "cgroup2" => unified = unified.or(Some(unified_base(Path::new(point), own, root, delegated))),
                "cgroup" => {
                    for controller in options.split(',') {
                        let slot = match controller {
                            "memory" => &mut layout.memory,
                            "pids" => &mut layout.pids,
                            "cpu" => &mut layout.cpu,
                            "blkio" => &mut layout.io,
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

/// Version 2: where to make groups. This process's own group, if whoever looks after the
/// machine's groups gave it away (`Delegate=yes` of systemd), so that limits of the whole
/// server hold for its steps; else the root.
fn unified_base(point: &Path, own: &str, root: &str, delegated: &dyn Fn(&Path) -> bool) -> PathBuf {
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    // Where this process was moved to before.
    let path = path.strip_suffix(SERVER_LEAF).unwrap_or(path).trim_end_matches('/');
    let path = Path::new(path);
    let path = path.strip_prefix(root).unwrap_or(path.strip_prefix("/").unwrap_or(path));
    let group = point.join(path);
    if delegated(&group) { group } else { point.to_owned() }
}

/// As systemd marks it. Source: systemd, CGROUP_DELEGATION.md.
fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0u8; 8];
        rustix::fs::getxattr(group, *name, &mut value[..]).is_ok_and(|n| value[..n] == *b"1")
    })
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
        let layout = Layout::parse(hybrid, own, &|_| false);
        assert_eq!(layout.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory/system.slice/x")));
        assert_eq!(layout.pids.as_deref(), Some(Path::new("/sys/fs/cgroup/pids/in")));
        assert_eq!(layout.cpu.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/")));
        assert_eq!((layout.devices, layout.unified), (None, None));
        let pure = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Layout::parse(pure, "0::/a", &|_| false).unified.as_deref(), Some(Path::new("/sys/fs/cgroup")));
        let at = |own: &str| Layout::parse(pure, own, &|_| true).unified.unwrap();
        assert_eq!(at("0::/system.slice/portolan.service"), Path::new("/sys/fs/cgroup/system.slice/portolan.service"));
        assert_eq!(at("0::/a/portolan-server"), Path::new("/sys/fs/cgroup/a"));
        assert_eq!(at("0::/portolan-server"), Path::new("/sys/fs/cgroup"));
        assert_eq!(Layout::parse("", "", &|_| true), Layout::default());
    }

    #[test]
    fn limits_are_written_in_the_words_of_both_versions() {
        let limits = StepLimits {
            memory_bytes_max: Some(1 << 30),
            pids_max: Some(100),
            cpus: Some(1.5),
            io_bytes_per_sec_max: Some(5_000_000),
            ..StepLimits::default()
        };
        let text = |unified| {
            let lines = wants(&limits, unified, Some("8:0")).into_iter().flat_map(|want| {
                let files = want.files.into_iter().chain(want.extra);
                files.map(move |(file, value)| format!("{}/{file} {value}\n", want.controller))
            });
            lines.collect::<String>()
        };
        expect_test::expect![[r#"
            memory/memory.limit_in_bytes 1073741824
            memory/memory.memsw.limit_in_bytes 1073741824
            pids/pids.max 100
            cpu/cpu.cfs_period_us 100000
            cpu/cpu.cfs_quota_us 150000
            io/blkio.throttle.read_bps_device 8:0 5000000
            io/blkio.throttle.write_bps_device 8:0 5000000
        "#]]
        .assert_eq(&text(false));
        expect_test::expect![[r#"
            unified/memory.max 1073741824
            unified/pids.max 100
            unified/cpu.max 150000 100000
            unified/io.max 8:0 rbps=5000000 wbps=5000000
            unified/memory.swap.max 0
            unified/memory.oom.group 1
        "#]]
        .assert_eq(&text(true));
        assert_eq!(wants(&StepLimits::default(), true, None), []);
        assert_eq!(wants(&StepLimits::default(), false, None), []);
    }

    #[test]
    fn the_state_folders_disk_is_a_whole_one() {
        if let Some(disk) = disk_of(Path::new("/var/tmp")) {
            assert!(!Path::new("/sys/dev/block").join(disk).join("partition").exists());
        }
        assert_eq!(disk_of(Path::new("/proc")), None);
    }

    /// On the machine's own hierarchy of version 2, with whatever controllers it has.
    #[test]
    fn a_group_with_processes_makes_room_to_hand_controllers_down() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let point = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let Some(point) = point.map(Path::new) else { return };
        let controllers = fs::read_to_string(point.join("cgroup.controllers")).unwrap();
        let Some(controller) = controllers.split_whitespace().find(|c| matches!(*c, "hugetlb" | "memory" | "io"))
        else {
            return;
        };
        hand_down(point, &[controller]).unwrap();
        let base = point.join(format!("portolan-test-{}", std::process::id()));
        make(&base).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        write(&base.join("cgroup.procs"), &child.id().to_string()).unwrap();
        assert!(write(&base.join("cgroup.subtree_control"), &format!("+{controller}")).is_err(), "no room is needed");
        hand_down(&base, &[controller]).unwrap();
        assert_eq!(fs::read_to_string(base.join("cgroup.subtree_control")).unwrap().trim(), controller);
        let leaf = base.join(SERVER_LEAF);
        assert_eq!(fs::read_to_string(leaf.join("cgroup.procs")).unwrap().trim(), child.id().to_string());
        let below = base.join("step");
        make(&below).unwrap();
        assert!(
            fs::read_dir(&below).unwrap().flatten().any(|e| e.file_name().to_string_lossy().starts_with(controller))
        );
        remove(&below).unwrap();
        // With the process in it.
        remove(&leaf).unwrap();
        child.wait().unwrap();
        remove(&base).unwrap();
    }
}
