//! Running programs that are made for another processor.
//!
//! The kernel hands such a program to an emulator when one is registered with it
//! (`binfmt_misc`). When the host has one registered, that is used. Else each step gets a
//! table of its own: since Linux 6.7 every user namespace can have one. The step process is in
//! the step's user namespace before the sandbox is made; it mounts the table out of the step's
//! sight and registers the emulator. The table lives as long as its mount, so as long as the
//! step process. The kernel opens the emulator when it is registered (flag `F`), so it need
//! not be in the image, and nothing of the host changes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use portolan_types::Platform;
use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};

/// Where the host's table is mounted.
const TABLE: &str = "/proc/sys/fs/binfmt_misc";
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

/// Register the emulator for the user namespace that this process is in, `userns` saying
/// whether that is the step's own. The table is mounted in `folder`, out of the step's sight.
/// The error is a sentence.
pub(super) fn register(emulator: &Emulator, userns: bool, folder: &Path) -> Result<(), String> {
    let program = emulator.program.display();
    if !userns {
        return Err(format!(
            "{program} has to be registered with the kernel, and this step has no user namespace, in which it could \
             be done for the step alone; hint: on Debian and Ubuntu `apt-get install binfmt-support qemu-user-static` \
             registers it for the whole machine"
        ));
    }
    let failed = |what: &str, error: io::Error| format!("cannot register {program} for this step: {what}: {error}");
    let table = folder.join("binfmt");
    fs::create_dir(&table).map_err(|error| failed("make a folder", error))?;
    mount("binfmt_misc", &table, "binfmt_misc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(|error| {
            let why = failed("mount a table of its own", error.into());
            format!(
                "{why}; it takes Linux 6.7 with binfmt_misc; hint: on older kernels register emulators for the whole \
                 machine, on Debian and Ubuntu with `apt-get install binfmt-support qemu-user-static`"
            )
        })?;
    let register = fs::OpenOptions::new().write(true).open(table.join("register"));
    let mut register = register.map_err(|error| failed("open the table", error))?;
    register.write_all(emulator.line.as_bytes()).map_err(|error| failed("write the table", error))
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
