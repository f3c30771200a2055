//! The system calls that a step may use: docker's default profile, as a filter of our own.
//!
//! The kernel runs a *filter* (a classic BPF program) at every system call. libcontainer
//! installs one only with a C library that we do not want to depend on, and without it
//! silently none; so the filter is assembled here and installed by the step's first process
//! right before its program starts (see [`super::step`]). `runc` gets the same rules as the
//! section of its configuration ([`oci`]). Both come from one table (`seccomp/calls.txt`).
//!
//! What the rules keep away: everything that mounts, makes or enters namespaces, loads
//! modules or BPF programs, reads the kernel's keys and logs, sets clocks, and what exploits
//! of the kernel like best (`userfaultfd`, `io_uring`, `perf_event_open`). A call that is
//! newer than the table is answered with `ENOSYS`, so that a C library falls back to what it
//! knows; any other that is not allowed, with `EPERM`.
//!
//! Source of the rules: moby `profiles/seccomp/default_linux.go`, for containers without
//! further capabilities.

use std::io;

use serde_json::{Value, json};

/// One row for each call: its name and its numbers.
const CALLS: &str = include_str!("seccomp/calls.txt");
/// Calls whose arguments count; each has its own rule below.
const BY_ARGUMENT: [&str; 4] = ["clone", "clone3", "personality", "socket"];
/// Calls that the processors' tables place out of line have numbers above this.
const NUMBER_MAX: u32 = 0x0f_0000;
/// The bit that x32 programs set in call numbers. Source: `asm/unistd.h`.
const X32_BIT: u32 = 0x4000_0000;

/// Flags of `clone` that make namespaces. Source: `linux/sched.h`.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// Kinds of program that `personality` may ask for: Linux, the 32-bit kind, those without
/// address randomisation (`UNAME26` apart from them), and the question which one it is.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Sockets to virtual machines and their host. Source: `linux/socket.h`.
const AF_VSOCK: u32 = 40;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// What a filter answers. Source: `linux/seccomp.h`.
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// Offsets in what a filter is given: number, processor, arguments. Source: `linux/seccomp.h`.
const AT_NUMBER: u32 = 0;
const AT_PROCESSOR: u32 = 4;
const AT_ARGUMENTS: u32 = 16;

/// Instructions of classic BPF. Source: `linux/bpf_common.h`.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
/// The kernel takes no longer program. Source: `BPF_MAXINSNS`.
const INSTRUCTIONS_MAX: usize = 4_096;

/// A way in which this machine's programs call the kernel.
struct Calling {
    /// As the kernel tells processors apart. Source: `linux/audit.h`.
    audit: u32,
    /// As OCI configurations name it.
    oci: &'static str,
    /// Which column of the table, after the name.
    column: usize,
    /// Set in every number.
    bit: u32,
    /// Where the flags of `clone` are.
    clone_flags: u32,
}

const AMD64: Calling = Calling { audit: 0xc000_003e, oci: "SCMP_ARCH_X86_64", column: 1, bit: 0, clone_flags: 0 };
const X86: Calling = Calling { audit: 0x4000_0003, oci: "SCMP_ARCH_X86", column: 2, bit: 0, clone_flags: 0 };
const ARM64: Calling = Calling { audit: 0xc000_00b7, oci: "SCMP_ARCH_AARCH64", column: 3, bit: 0, clone_flags: 0 };
const ARM: Calling = Calling { audit: 0x4000_0028, oci: "SCMP_ARCH_ARM", column: 4, bit: 0, clone_flags: 0 };
const X32: Calling = Calling { audit: 0xc000_003e, oci: "SCMP_ARCH_X32", column: 5, bit: X32_BIT, clone_flags: 0 };

/// How programs of this machine's own processor call the kernel. Emulated ones call it as
/// their emulator does, which is such a program.
fn callings() -> io::Result<&'static [Calling]> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(&[AMD64, X86, X32]),
        "aarch64" => Ok(&[ARM64, ARM]),
        other => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("no filter of system calls is known for {other}")))
        }
    }
}

/// An instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    value: u32,
}

/// A filter, ready to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter(Vec<Instruction>);

impl Filter {
    /// Docker's default profile for this machine.
    pub(super) fn docker() -> io::Result<Filter> {
        let mut program = Vec::new();
        let callings = callings()?;
        let mut seen = Vec::new();
        for calling in callings {
            if seen.contains(&calling.audit) {
                continue;
            }
            seen.push(calling.audit);
            let mut block = vec![step(LOAD, AT_NUMBER)];
            for same in callings.iter().filter(|other| other.audit == calling.audit) {
                block.extend(rules(same)?);
            }
            // What is above all ranges, and the table's other numbers.
            block.push(answer(ERRNO | ENOSYS));
            program.push(step(LOAD, AT_PROCESSOR));
            program.push(Instruction { code: JUMP_EQUAL, yes: 1, no: 0, value: calling.audit });
            program.push(step(JUMP, block.len() as u32));
            program.extend(block);
        }
        // A processor's other way of calling that we know nothing about.
        program.push(answer(KILL_PROCESS));
        if program.len() > INSTRUCTIONS_MAX {
            return Err(io::Error::other("the filter of system calls is too long"));
        }
        Ok(Filter(program))
    }

    /// Put this process, and all that it starts, under the filter. It takes either the
    /// *no new privileges* flag or the right to administer the process's user namespace.
    #[allow(unsafe_code, reason = "the kernel reads the program through a pointer")]
    pub(super) fn install(&self) -> io::Result<()> {
        let length = u16::try_from(self.0.len()).map_err(|_| io::Error::other("the filter is too long"))?;
        let program = libc::sock_fprog { len: length, filter: self.0.as_ptr() as *mut libc::sock_filter };
        // SAFETY: an `Instruction` is laid out as a `sock_filter`, `len` of them are alive
        // until the call returns, and the kernel only reads them.
        let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn step(code: u16, value: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, value }
}

fn answer(value: u32) -> Instruction {
    step(RETURN, value)
}

/// The rules for one way of calling. The number is loaded; a number that no rule answers
/// falls through.
fn rules(calling: &Calling) -> io::Result<Vec<Instruction>> {
    let mut program = Vec::new();
    let mut plain = Vec::new();
    for (name, number) in calls(calling.column)? {
        if !BY_ARGUMENT.contains(&name) {
            plain.push(number | calling.bit);
            continue;
        }
        let rule = match name {
            // It hides its flags behind a pointer; the C library knows the older call.
            "clone3" => vec![answer(ERRNO | ENOSYS)],
            "clone" => vec![
                step(LOAD, AT_ARGUMENTS + 8 * calling.clone_flags),
                Instruction { code: JUMP_ANY_BIT, yes: 0, no: 1, value: CLONE_NAMESPACES },
                answer(ERRNO | EPERM),
                answer(ALLOW),
            ],
            "socket" => vec![
                step(LOAD, AT_ARGUMENTS),
                Instruction { code: JUMP_EQUAL, yes: 0, no: 1, value: AF_VSOCK },
                answer(ERRNO | EPERM),
                answer(ALLOW),
            ],
            _ => {
                let mut rule = vec![step(LOAD, AT_ARGUMENTS)];
                for kind in PERSONALITIES {
                    rule.push(Instruction { code: JUMP_EQUAL, yes: 0, no: 1, value: kind });
                    rule.push(answer(ALLOW));
                }
                rule.push(answer(ERRNO | EPERM));
                rule
            }
        };
        let no = u8::try_from(rule.len()).map_err(|_| io::Error::other("a rule is too long"))?;
        program.push(Instruction { code: JUMP_EQUAL, yes: 0, no, value: number | calling.bit });
        program.extend(rule);
    }
    plain.sort_unstable();
    plain.dedup();
    let known = plain.iter().copied().filter(|n| n & !X32_BIT < NUMBER_MAX).max().unwrap_or(0);
    for (index, (low, high)) in ranges(&plain).into_iter().enumerate() {
        // Ascending: what is below this range and above the last one is no call to allow.
        let unknown = index == 0 || low > known;
        program.push(Instruction { code: JUMP_GREATER, yes: 3, no: 0, value: high });
        program.push(Instruction { code: JUMP_AT_LEAST, yes: 0, no: 1, value: low });
        program.push(answer(ALLOW));
        program.push(answer(if unknown { ERRNO | ENOSYS } else { ERRNO | EPERM }));
    }
    Ok(program)
}

/// Ascending numbers as ranges without gaps, both ends included.
fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 == number => *high = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// The calls that a column of the table has numbers for.
fn calls(column: usize) -> io::Result<Vec<(&'static str, u32)>> {
    let wrong = |line: &str| io::Error::other(format!("the table of system calls is wrong: {line}"));
    let mut calls = Vec::new();
    for line in CALLS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let name = words.next().ok_or_else(|| wrong(line))?;
        match words.nth(column - 1).ok_or_else(|| wrong(line))? {
            "-" => {}
            number => calls.push((name, number.parse().map_err(|_| wrong(line))?)),
        }
    }
    Ok(calls)
}

/// The same rules as the `seccomp` section of an OCI configuration.
pub(super) fn oci() -> io::Result<Value> {
    let callings = callings()?;
    let mut names: Vec<&str> = Vec::new();
    for calling in callings {
        for (name, _) in calls(calling.column)? {
            if !BY_ARGUMENT.contains(&name) && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let only = |name: &str, value: u32, op: &str| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": op}]});
    let mut syscalls = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
        only("socket", AF_VSOCK, "SCMP_CMP_NE"),
    ];
    syscalls.extend(PERSONALITIES.map(|kind| only("personality", kind, "SCMP_CMP_EQ")));
    Ok(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": callings.iter().map(|calling| calling.oci).collect::<Vec<_>>(),
        "syscalls": syscalls,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, worked out as the kernel does.
    fn ask(filter: &Filter, audit: u32, number: u32, first: u32) -> u32 {
        let (mut at, mut loaded) = (0usize, 0u32);
        for _ in 0..INSTRUCTIONS_MAX {
            let i = filter.0[at];
            at += 1;
            let (yes, no) = (usize::from(i.yes), usize::from(i.no));
            match i.code {
                LOAD => {
                    loaded = match i.value {
                        AT_NUMBER => number,
                        AT_PROCESSOR => audit,
                        AT_ARGUMENTS => first,
                        other => panic!("loads {other}"),
                    }
                }
                JUMP_EQUAL => at += if loaded == i.value { yes } else { no },
                JUMP_GREATER => at += if loaded > i.value { yes } else { no },
                JUMP_AT_LEAST => at += if loaded >= i.value { yes } else { no },
                JUMP_ANY_BIT => at += if loaded & i.value != 0 { yes } else { no },
                JUMP => at += i.value as usize,
                RETURN => return i.value,
                other => panic!("instruction {other:#x}"),
            }
        }
        panic!("no answer");
    }

    #[test]
    fn the_filter_says_of_every_number_what_the_table_says() {
        let filter = Filter::docker().unwrap();
        for calling in callings().unwrap() {
            let table = calls(calling.column).unwrap();
            assert!(table.len() > 280, "{}", calling.oci);
            let last = table.iter().map(|(_, n)| *n).filter(|n| *n < NUMBER_MAX).max().unwrap();
            for number in 0..700 {
                let named = table.iter().find(|(_, n)| *n == number).map(|(name, _)| *name);
                let expected = match named {
                    Some("clone3") => ERRNO | ENOSYS,
                    Some(_) => ALLOW,
                    None if number > last => ERRNO | ENOSYS,
                    None => ERRNO | EPERM,
                };
                let answer = ask(&filter, calling.audit, number | calling.bit, 0);
                assert_eq!(answer, expected, "{} {number} {named:?}", calling.oci);
            }
        }
        assert_eq!(ask(&filter, 0x8000_0016, 1, 0), KILL_PROCESS, "a processor that this is not");
    }

    #[test]
    fn arguments_count_where_they_matter() {
        let filter = Filter::docker().unwrap();
        let calling = &callings().unwrap()[0];
        let number = |wanted: &str| calls(calling.column).unwrap().iter().find(|(name, _)| *name == wanted).unwrap().1;
        let ask = |name: &str, first: u32| ask(&filter, calling.audit, number(name), first);
        // A thread, a process; each kind of namespace.
        assert_eq!(ask("clone", 0x003d_0f00), ALLOW);
        for bit in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(ask("clone", 0x11 | bit), ERRNO | EPERM, "{bit:#x}");
        }
        for family in [1, 2, 10, 16, 17] {
            assert_eq!(ask("socket", family), ALLOW);
        }
        assert_eq!(ask("socket", AF_VSOCK), ERRNO | EPERM);
        assert_eq!(ask("personality", 0xffff_ffff), ALLOW);
        assert_eq!(ask("personality", 0x40_0000), ERRNO | EPERM, "programs that may execute all they can read");
    }

    #[test]
    fn what_an_attacker_would_use_is_not_in_the_table() {
        let names: Vec<&str> = calls(1).unwrap().into_iter().map(|(name, _)| name).collect();
        for name in [
            "mount",
            "umount2",
            "unshare",
            "setns",
            "keyctl",
            "add_key",
            "request_key",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "init_module",
            "finit_module",
            "kexec_load",
            "reboot",
            "swapon",
            "acct",
            "pivot_root",
            "open_by_handle_at",
            "syslog",
            "settimeofday",
            "clock_settime",
            "quotactl",
            "open_tree",
            "move_mount",
            "fsopen",
            "fsmount",
            "mount_setattr",
            "kcmp",
            "pidfd_getfd",
            "process_madvise",
            "mbind",
            "iopl",
            "ioperm",
            "vhangup",
            "sethostname",
            "setdomainname",
            "nfsservctl",
            "lookup_dcookie",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
    }
}
