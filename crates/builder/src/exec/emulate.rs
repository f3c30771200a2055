//! Running programs that are made for another processor.
//!
//! The kernel hands such a program to an emulator when one is registered with it
//! (`binfmt_misc`). When the host has one registered, that is used. Else each step gets a
//! table of its own: since Linux 6.7 every user namespace can have one, and a step is in a
//! user namespace. The step process starts a *registrar* (this program once more, see
//! [`registrar_main`]) that enters the namespace after the sandbox is made and before its
//! program starts, mounts the table out of the step's sight, registers the emulator and
//! stays until the step process is gone: the table lives as long as its mount. The kernel
//! opens the emulator when it is registered (flag `F`), so it need not be in the image, and
//! nothing of the host changes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use portolan_types::Platform;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

/// Where the kernel's table is mounted, on the host as in the registrar's own namespace.
const TABLE: &str = "/proc/sys/fs/binfmt_misc";
/// Tells the program that it is to be a registrar; the value is a [`Charge`].
const CHARGE: &str = "PORTOLAN_REGISTRAR";
/// What the registrar says when the emulator is registered.
const READY: u8 = b'r';
/// The longest reason it gives, bytes.
const REASON_BYTES_MAX: u64 = 4 * 1024;
/// Entries looked at in the host's table, and one entry's size.
const ENTRIES_MAX: usize = 1_000;
const ENTRY_BYTES_MAX: u64 = 4 * 1024;

/// A processor: its name in platforms and in QEMU, and how its programs begin (ELF).
struct Processor {
    name: &'static str,
    qemu: &'static str,
    bits: u8,
    little: bool,
    machine: u16,
}

/// Source of the numbers: the ELF header's `e_machine`, as in `linux/elf-em.h`.
const PROCESSORS: [Processor; 11] = [
    Processor { name: "amd64", qemu: "x86_64", bits: 64, little: true, machine: 62 },
    Processor { name: "386", qemu: "i386", bits: 32, little: true, machine: 3 },
    Processor { name: "arm64", qemu: "aarch64", bits: 64, little: true, machine: 183 },
    Processor { name: "arm", qemu: "arm", bits: 32, little: true, machine: 40 },
    Processor { name: "riscv64", qemu: "riscv64", bits: 64, little: true, machine: 243 },
    Processor { name: "ppc64le", qemu: "ppc64le", bits: 64, little: true, machine: 21 },
    Processor { name: "s390x", qemu: "s390x", bits: 64, little: false, machine: 22 },
    Processor { name: "mips64le", qemu: "mips64el", bits: 64, little: true, machine: 8 },
    Processor { name: "mips64", qemu: "mips64", bits: 64, little: false, machine: 8 },
    Processor { name: "ppc64", qemu: "ppc64", bits: 64, little: false, machine: 21 },
    Processor { name: "loong64", qemu: "loongarch64", bits: 64, little: true, machine: 258 },
];

/// An emulator to register for one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// The emulator, on the host.
    pub program: PathBuf,
    /// The line that registers it, as the kernel wants it.
    line: String,
}

/// What a registrar has to do.
#[derive(Debug, Serialize, Deserialize)]
struct Charge {
    /// Whose user namespace to enter; `None` when the step process is in it already.
    pid: Option<i32>,
    line: String,
}

/// What a step needs so that programs for `platform` run on this machine: nothing when it
/// runs them itself or has an emulator registered, else an emulator out of `folder`.
///
/// The error is a sentence that says what to install.
pub fn emulator_for(platform: &Platform, folder: &Path) -> Result<Option<Emulator>, String> {
    emulator(platform, &Platform::host(), folder, Path::new(TABLE))
}

fn emulator(platform: &Platform, host: &Platform, folder: &Path, table: &Path) -> Result<Option<Emulator>, String> {
    if is_native(&platform.architecture, &host.architecture) {
        return Ok(None);
    }
    let Some(processor) = PROCESSORS.iter().find(|p| p.name == platform.architecture) else {
        return Err(format!(
            "this machine ({host}) cannot run programs for {platform}, and no emulator of it is known"
        ));
    };
    if is_registered(processor, table) {
        return Ok(None);
    }
    let names = [format!("qemu-{}-static", processor.qemu), format!("qemu-{}", processor.qemu)];
    let program = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let Some(program) = program else {
        return Err(format!(
            "this machine ({host}) runs programs for {platform} by emulation only, and there is no {} in {}; hint: on \
             Debian and Ubuntu `apt-get install qemu-user-static` on the machine that builds, or name its folder in \
             the setting build_emulators_dir",
            names[0],
            folder.display()
        ));
    };
    let Some(path) = program.to_str().filter(|path| !path.contains([':', '\\', '\n'])) else {
        return Err(format!("an emulator cannot be registered from {}", program.display()));
    };
    let line = registration(processor, path);
    Ok(Some(Emulator { program, line }))
}

/// Whether a processor runs another's programs by itself.
fn is_native(wanted: &str, host: &str) -> bool {
    wanted == host || (wanted == "386" && host == "amd64")
}

/// The first bytes of the processor's programs. The two that tell a program's kind stay 2
/// (a program at a fixed place); the mask lets 3 (at any place) pass.
fn magic(processor: &Processor) -> [u8; 20] {
    let mut magic = [0; 20];
    magic[..4].copy_from_slice(b"\x7fELF");
    magic[4] = processor.bits / 32;
    magic[5] = if processor.little { 1 } else { 2 };
    magic[6] = 1;
    let word = |n: u16| if processor.little { n.to_le_bytes() } else { n.to_be_bytes() };
    magic[16..18].copy_from_slice(&word(2));
    magic[18..20].copy_from_slice(&word(processor.machine));
    magic
}

/// Which bits of [`magic`] count: not the operating system's, not the last of the kind.
fn mask(processor: &Processor) -> [u8; 20] {
    let mut mask = [0xff; 20];
    mask[7] = 0;
    mask[if processor.little { 16 } else { 17 }] = 0xfe;
    mask
}

/// `:name:type:offset:magic:mask:interpreter:flags`, as the kernel's `binfmt-misc.rst` has it.
/// Flags: keep the program's name (`P`), hand the program over open and with its own rights
/// (`OC`), open the emulator now (`F`).
fn registration(processor: &Processor, program: &str) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("\\x{b:02x}")).collect::<String>();
    format!(":{}:M::{}:{}:{program}:POCF", processor.qemu, hex(&magic(processor)), hex(&mask(processor)))
}

/// Whether the host's table has an emulator that works whatever the root folder is.
fn is_registered(processor: &Processor, table: &Path) -> bool {
    let status = |name: &str| read(&table.join(name)).is_some_and(|text| text.starts_with("enabled"));
    if !status("status") {
        return false;
    }
    let wanted: String = magic(processor).iter().map(|b| format!("{b:02x}")).collect();
    let Ok(entries) = fs::read_dir(table) else { return false };
    entries.flatten().take(ENTRIES_MAX).any(|entry| {
        let Some(text) = read(&entry.path()).filter(|text| text.starts_with("enabled")) else { return false };
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        value("flags:").is_some_and(|flags| flags.contains('F'))
            && value("offset").is_some_and(|offset| offset == "0")
            && value("magic").is_some_and(|magic| wanted.starts_with(magic) && magic.len() == wanted.len())
    })
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(ENTRY_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A registrar at work. When this is dropped, it ends, and the table with it.
pub(super) struct Registrar {
    child: Child,
    /// The registrar stays until this is closed.
    _line: UnixStream,
}

impl Drop for Registrar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Register the emulator for the processes in the user namespace of `pid`, which is this
/// process's own when `in_user_ns` says that this one made one. The error is a sentence.
pub(super) fn register(emulator: &Emulator, pid: Pid, in_user_ns: bool) -> Result<Registrar, String> {
    let failed = |error: io::Error| format!("register {}: {error}", emulator.program.display());
    let own = fs::read_link("/proc/self/ns/user").map_err(failed)?
        == fs::read_link(format!("/proc/{}/ns/user", pid.as_raw_nonzero())).map_err(failed)?;
    if own && !in_user_ns {
        return Err(format!(
            "{} has to be registered with the kernel: builds of this server have no user namespace, in which it \
             could be done for the step alone; hint: on Debian and Ubuntu `apt-get install binfmt-support \
             qemu-user-static` registers it for the whole machine",
            emulator.program.display()
        ));
    }
    let charge = Charge { pid: if own { None } else { Some(pid.as_raw_nonzero().get()) }, line: emulator.line.clone() };
    let charge = serde_json::to_string(&charge).map_err(|error| failed(error.into()))?;
    let (mine, its) = UnixStream::pair().map_err(failed)?;
    let child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env_clear()
        .env(CHARGE, charge)
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(its)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let registrar = Registrar { child, _line: mine };
    let mut said = Vec::new();
    let mut first = [0u8];
    let n = (&registrar._line).read(&mut first).map_err(failed)?;
    if n == 1 && first[0] == READY {
        return Ok(registrar);
    }
    said.extend_from_slice(&first[..n]);
    (&registrar._line).take(REASON_BYTES_MAX).read_to_end(&mut said).map_err(failed)?;
    let why = String::from_utf8_lossy(&said).into_owned();
    Err(format!(
        "{} cannot be registered for this step: {}",
        emulator.program.display(),
        if why.is_empty() { "the registrar died" } else { &why }
    ))
}

/// Be a registrar, if that is what this process was started for; its exit status.
pub(super) fn registrar_main() -> Option<i32> {
    let charge = std::env::var(CHARGE).ok()?;
    // The socket is standard input.
    let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).ok()?);
    Some(match registered(&charge) {
        Ok(_table) => {
            let stays = (&socket).write_all(&[READY]).is_ok();
            if stays {
                // Until the other end is closed.
                let _ = (&socket).read(&mut [0u8]);
            }
            0
        }
        Err(why) => {
            let _ = (&socket).write_all(why.as_bytes());
            1
        }
    })
}

/// Enter the namespace and register; what keeps the table there.
fn registered(charge: &str) -> Result<File, String> {
    let text = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {}", io::Error::from(error));
    let charge: Charge = serde_json::from_str(charge).map_err(|error| format!("read the charge: {error}"))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(text("die with the step process"))?;
    if let Some(pid) = charge.pid {
        let namespace = File::open(format!("/proc/{pid}/ns/user"))
            .map_err(|error| format!("open the step's user namespace: {error}"))?;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::User))
            .map_err(text("enter the step's user namespace"))?;
    }
    unshare_mounts().map_err(text("make a mount namespace"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(text("keep mounts private"))?;
    mount("binfmt_misc", "/proc", "binfmt_misc", MountFlags::NOSUID | MountFlags::NODEV, None).map_err(|error| {
        format!(
            "mount a table of its own: {} (it takes Linux 6.7 with binfmt_misc); hint: on older kernels register \
             emulators for the whole machine, on Debian and Ubuntu with `apt-get install binfmt-support \
             qemu-user-static`",
            io::Error::from(error)
        )
    })?;
    let mut register = fs::OpenOptions::new()
        .write(true)
        .open("/proc/register")
        .map_err(|error| format!("open the table: {error}"))?;
    register.write_all(charge.line.as_bytes()).map_err(|error| format!("write the table: {error}"))?;
    // Any open file of it keeps the table's mount.
    File::open("/proc").map_err(|error| format!("open the table: {error}"))
}

#[allow(unsafe_code, reason = "the call can take descriptors away from other threads; this flag does not")]
fn unshare_mounts() -> rustix::io::Result<()> {
    // SAFETY: only the mount namespace is made new, and this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn the_line_for_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let (host, arm) = (platform("linux/amd64"), platform("linux/arm64"));
        let none = folder.path().join("none");
        for native in ["linux/amd64", "linux/386", "linux/amd64/v3"] {
            assert_eq!(emulator(&platform(native), &host, folder.path(), &none), Ok(None), "{native}");
        }
        let why = emulator(&arm, &host, folder.path(), &none).unwrap_err();
        assert!(why.contains("there is no qemu-aarch64-static in ") && why.contains("apt-get install"), "{why}");
        fs::write(folder.path().join("qemu-aarch64-static"), "").unwrap();
        let found = emulator(&arm, &host, folder.path(), &none).unwrap().unwrap();
        let path = folder.path().join("qemu-aarch64-static");
        // As /usr/lib/binfmt.d/qemu-aarch64.conf of Debian has it, but for its flags.
        let magic = r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
        assert_eq!(found.line, format!(":aarch64:M::{magic}:{mask}:{}:POCF", path.display()));
        let why = emulator(&platform("linux/vax"), &host, folder.path(), &none).unwrap_err();
        assert!(why.contains("no emulator of it is known"), "{why}");
        assert!(emulator(&arm, &host, &folder.path().join("a:b"), &none).is_err());
    }

    #[test]
    fn what_the_host_has_registered_is_enough() {
        let table = tempfile::tempdir().unwrap();
        let (host, s390) = (platform("linux/amd64"), platform("linux/s390x"));
        let none = table.path().join("none");
        let ask = || emulator(&s390, &host, &none, table.path()).is_ok();
        let entry = |first: &str, flags: &str| {
            let magic = "7f454c4602020100000000000000000000020016";
            let mask = "ffffffffffffff00fffffffffffffffffffeffff";
            let text =
                format!("{first}\ninterpreter /usr/bin/q\nflags: {flags}\noffset 0\nmagic {magic}\nmask {mask}\n");
            fs::write(table.path().join("qemu-s390x"), text).unwrap();
        };
        entry("enabled", "OCF");
        assert!(!ask(), "a table without a status is none");
        fs::write(table.path().join("status"), "enabled\n").unwrap();
        assert!(ask());
        entry("disabled", "OCF");
        assert!(!ask());
        // Without F the emulator would have to be in the image.
        entry("enabled", "OC");
        assert!(!ask());
        entry("enabled", "F");
        fs::write(table.path().join("status"), "disabled\n").unwrap();
        assert!(!ask());
    }
}
