//! The OCI runtime configuration of a step: docker's defaults, written out.

use std::io;

use serde_json::{Value, json};

use super::seccomp;
use super::wire::{Job, JobMount};

/// What a container may do in docker, no more. Source: moby `oci/caps/defaults.go`.
pub(super) const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All that Linux has, by their numbers, for `--security=insecure`. Source: capabilities(7).
const CAPABILITIES_ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Files of the kernel that tell about the host. Source: moby `oci/defaults.go`.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Files of the kernel that change the host. Source: moby `oci/defaults.go`.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Open files of one process: enough for package managers, not so many that programs which
/// close "all possible" descriptors take minutes.
const OPEN_FILES_MAX: u64 = 65_536;

/// The configuration. `root` is where the root file system is mounted; `bind(i)` where the
/// i-th bind's source is; `file(i)` where the i-th generated file is.
pub(super) fn spec(
    job: &Job,
    root: &str,
    bind: impl Fn(usize) -> String,
    file: impl Fn(usize) -> String,
    secret: impl Fn(usize) -> String,
    sys: Option<&str>,
) -> io::Result<Value> {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": dev_options(job.lock_devices)}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
               "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
    ];
    let access = if job.insecure { "rw" } else { "ro" };
    mounts.push(match sys {
        Some(source) => json!({"destination": "/sys", "type": "bind", "source": source,
                               "options": ["bind", "nosuid", "noexec", "nodev", access]}),
        None if job.userns && job.network => {
            json!({"destination": "/sys", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "nodev", "ro"]})
        }
        None => json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
                       "options": ["nosuid", "noexec", "nodev", access]}),
    });
    let mut binds = 0;
    let mut secrets = 0;
    for mount in &job.mounts {
        mounts.push(match mount {
            JobMount::Bind { target, writable } => {
                let source = bind(binds);
                binds += 1;
                json!({"destination": target, "type": "bind", "source": source,
                       "options": ["bind", if *writable { "rw" } else { "ro" }, "nosuid", "nodev"]})
            }
            JobMount::Tmpfs { target, bytes_max } => {
                let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
                options.extend(bytes_max.map(|bytes| format!("size={bytes}")));
                json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options})
            }
            JobMount::Secret { target, .. } => {
                let source = secret(secrets);
                secrets += 1;
                json!({"destination": target, "type": "bind", "source": source,
                       "options": ["bind", "ro", "nosuid", "nodev", "noexec"]})
            }
        });
    }
    for (index, (target, _)) in job.files.iter().enumerate() {
        mounts.push(json!({"destination": target, "type": "bind", "source": file(index), "options": ["bind", "rw", "nosuid", "nodev"]}));
    }
    let mut namespaces =
        vec![json!({"type": "pid"}), json!({"type": "ipc"}), json!({"type": "uts"}), json!({"type": "mount"})];
    if !job.network {
        namespaces.push(json!({"type": "network"}));
    }
    let hard = open_files_hard().min(1_048_576);
    let (capabilities, masked, read_only) = match job.insecure {
        true => (capabilities_here(), &[][..], &[][..]),
        false => (CAPABILITIES.to_vec(), &MASKED[..], &READ_ONLY[..]),
    };
    // Arguments and environment are not here: they go to the program directly. `HOME` only
    // keeps the runtime from looking it up with the image's own name service modules.
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": job.uid, "gid": job.gid, "additionalGids": job.groups, "umask": 0o022},
            "args": ["step"],
            "env": ["PATH=/", "HOME=/"],
            "cwd": job.cwd,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": []
            },
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": hard, "soft": hard.min(OPEN_FILES_MAX)},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}
            ]
        },
        "root": {"path": root, "readonly": false},
        "hostname": job.hostname,
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": masked,
            "readonlyPaths": read_only,
            "cgroupsPath": ""
        }
    });
    if !job.new_privileges {
        spec["process"]["noNewPrivileges"] = true.into();
    } else if job.seccomp && job.runtime.is_none() {
        // Without that flag it takes this capability to install a filter; the program that
        // does drops it at once.
        for set in ["bounding", "effective", "permitted"] {
            if let Some(set) = spec["process"]["capabilities"][set].as_array_mut() {
                set.push("CAP_SYS_ADMIN".into());
            }
        }
    }
    if job.runtime.is_some() {
        // Its cgroups are its own and empty: the engine moves the step into others. In a user
        // namespace it has no right to any, and only without a name does it get over that.
        if !job.userns {
            spec["linux"]["cgroupsPath"] = format!("/portolan-runtime-{}", std::process::id()).into();
        }
        // Only in memory, and of a mount namespace of its own.
        spec["process"]["args"] = job.argv.clone().into();
        spec["process"]["env"] = job.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if job.seccomp {
            spec["linux"]["seccomp"] = seccomp::oci()?;
        }
    }
    Ok(spec)
}

fn dev_options(lock: bool) -> Vec<&'static str> {
    let mut options = vec!["nosuid", "strictatime", "mode=755", "size=65536k"];
    if lock {
        options.push("ro");
    }
    options
}

fn open_files_hard() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// What this process can hand on: a server in a container may have lost some.
fn capabilities_here() -> Vec<&'static str> {
    let own = rustix::thread::capabilities(None).map_or(u64::MAX, |sets| sets.permitted.bits());
    let all = CAPABILITIES_ALL.iter().enumerate();
    all.filter(|(number, _)| own & (1 << number) != 0).map(|(_, name)| *name).collect()
}
