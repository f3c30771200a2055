//! Root in a step is nobody on the host.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::Mutex;

use portolan_builder::Cancel;
use portolan_builder::exec::{self, StepMount, Stream};
use portolan_builder::user::User;

use super::{labs, perl};
use crate::support::{Lab, name, step};

/// Do something while a step runs, with the id of a process of it, as the host sees it.
fn while_running(lab: &Lab, marker: &str, act: impl FnOnce(u32) + Send) {
    let active = lab.store.begin_for_step(&lab.base).unwrap();
    let spec = step(active.root(), &format!("echo ready; sleep {marker}"));
    let cancel = Cancel::new();
    let act = Mutex::new(Some(act));
    let _ = exec::run(
        &lab.config,
        &spec,
        &|_: Stream, _: &[u8]| {
            if let Some(act) = act.lock().unwrap().take() {
                act(pid_of(marker));
                cancel.cancel();
            }
        },
        &cancel,
    );
    assert!(act.into_inner().unwrap().is_none(), "the step did not run");
}

fn pid_of(marker: &str) -> u32 {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        assert!(std::time::Instant::now() < deadline, "the step's process is not to be seen");
        let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            line.split(|byte| *byte == 0).any(|word| word == marker.as_bytes()).then_some(pid)
        });
        if let Some(pid) = found {
            return pid;
        }
    }
}

fn uid(pid: u32) -> u32 {
    std::fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

#[test]
fn the_host_sees_a_stranger() {
    for (executor, lab) in labs(true, |_| {}) {
        while_running(&lab, "98771", |pid| assert_eq!(uid(pid), 1 << 31, "{executor}"));
    }
    for (executor, lab) in labs(false, |_| {}) {
        while_running(&lab, "98772", |pid| assert_eq!(uid(pid), 0, "{executor}"));
    }
}

/// What the root of a step could do who has got out of all but its user namespace.
fn escaped(pid: u32, command: &[&str]) -> bool {
    let pid = pid.to_string();
    let mut args = vec!["-t", &pid, "-U", "-S", "0", "-G", "0"];
    // Without a namespace of its own it would be this very one, which nobody can enter again.
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    if std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap() == own {
        args = vec!["-t", &pid, "-i"];
    }
    Command::new("nsenter").args(args).args(command).output().unwrap().status.success()
}

#[test]
fn who_gets_out_can_do_nothing_on_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("master.key");
    std::fs::write(&secret, "the server's").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let secret = secret.to_str().unwrap();
    let own = std::process::id().to_string();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let attacks: [&[&str]; 5] = [
        &["cat", secret],
        &["chown", "0", secret],
        &["kill", "-0", &own],
        &["ls", &format!("/proc/{own}/fd")],
        &["hostname", hostname.trim()],
    ];
    for (executor, lab) in labs(true, |_| {}) {
        while_running(&lab, "98773", |pid| {
            assert!(escaped(pid, &["true"]), "{executor}: the attack itself does not work");
            for attack in attacks {
                assert!(!escaped(pid, attack), "{executor} {attack:?}");
            }
        });
    }
    for (executor, lab) in labs(false, |_| {}) {
        while_running(&lab, "98774", |pid| {
            for attack in attacks {
                assert!(escaped(pid, attack), "{executor} {attack:?}");
            }
        });
    }
}

#[test]
fn ids_on_disk_stay_plain() {
    for (executor, lab) in labs(true, |_| {}) {
        let cache = lab.dir.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        std::fs::write(cache.join("theirs"), "x").unwrap();
        std::os::unix::fs::chown(cache.join("theirs"), Some(7), Some(8)).unwrap();
        let active = lab.store.begin_for_step(&lab.base).unwrap();
        let mut spec = step(
            active.root(),
            "id -u; stat -c '%u %g' /cache/theirs /etc/passwd; echo > /cache/ours; echo > /made; chown 5:70000 /made; \
             chown 2147483646:0 /etc/group; touch -h /etc/passwd; : > /dev/stderr && mkdir -p /new/dir && stat -c '%u %g' /made",
        );
        spec.cwd = "/job/deep".to_owned();
        spec.mounts = vec![StepMount::Bind { source: cache.clone(), target: "/cache".to_owned(), writable: true }];
        let (exit, output) = lab.run(&spec, &Cancel::new());
        assert_eq!((exit.unwrap().code, output.as_str()), (0, "0\n7 8\n0 0\n5 70000\n"), "{executor}");
        let owner = |path: &std::path::Path| std::fs::symlink_metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
        assert_eq!(owner(&cache.join("ours")), (0, 0), "{executor}");
        let chain = active.commit(&name("ids")).unwrap();
        let plain = lab.store.begin(&chain).unwrap();
        for (path, expected) in [
            ("made", (5, 70_000)),
            ("etc/group", (i32::MAX as u32 - 1, 0)),
            ("etc/passwd", (0, 0)),
            ("new/dir", (0, 0)),
            ("job/deep", (0, 0)),
            ("job", (0, 0)),
            ("", (0, 0)),
        ] {
            assert_eq!(owner(&plain.root().join(path)), expected, "{executor} {path}");
        }
        // A file of an id that a step has not got is nobody's there.
        let active = lab.store.begin(&chain).unwrap();
        std::os::unix::fs::chown(active.root().join("made"), Some(u32::MAX - 1), None).unwrap();
        let chain = active.commit(&name("beyond")).unwrap();
        let active = lab.store.begin_for_step(&chain).unwrap();
        let (_, output) =
            lab.run(&step(active.root(), "stat -c %u /made; chown 0 /made && echo TAKEN; exit 0"), &Cancel::new());
        assert!(output.starts_with("65534\n") && !output.contains("TAKEN"), "{executor} {output}");
    }
}

#[test]
fn keys_of_the_host_are_out_of_reach() {
    // The user keyring of root, of the namespace that the process is in.
    let add =
        format!("syscall({}, my $t = 'user', my $d = 'portolan-attack', my $v = 'value', 5, -4)", libc::SYS_add_key);
    let find = format!(
        "syscall({}, 10, -4, my $t = 'user', my $d = 'portolan-attack', 0) < 0 ? 'none' : 'found'",
        libc::SYS_keyctl
    );
    let added = Command::new("perl").args(["-e", &format!("exit({add} < 0)")]).status().unwrap();
    assert!(added.success(), "the kernel keeps no keys here");
    let find = format!("print {find}");
    for (executor, lab) in labs(true, |lab| lab.config.seccomp = false) {
        assert_eq!(perl(&lab, User::root(), &find, |_| {}), "none", "{executor}");
    }
    for (executor, lab) in labs(false, |_| {}) {
        assert_eq!(perl(&lab, User::root(), &find, |_| {}), "none", "{executor}: the filter alone");
    }
    for (executor, lab) in labs(false, |lab| lab.config.seccomp = false) {
        assert_eq!(perl(&lab, User::root(), &find, |_| {}), "found", "{executor}");
    }
    let clear = format!(
        "my $k = syscall({0}, 10, -4, my $t = 'user', my $d = 'portolan-attack', 0); exit(syscall({0}, 3, $k) < 0)",
        libc::SYS_keyctl
    );
    assert!(Command::new("perl").args(["-e", &clear]).status().unwrap().success());
}
