//! System calls that docker's profile forbids, and programs that want more rights.

use portolan_builder::Cancel;
use portolan_builder::exec::StepLimits;
use portolan_builder::user::User;

use super::{host_programs, labs, nobody, perl};
use crate::support::{Lab, step};

/// Make a call with these arguments; its result, or the number of its error.
fn call(lab: &Lab, user: User, number: i64, arguments: &str) -> String {
    let comma = if arguments.is_empty() { "" } else { ", " };
    let script = format!("my $r = syscall({number}{comma}{arguments}); print $r < 0 ? 'error ' . ($! + 0) : 'done'");
    perl(lab, user, &script, |_| {})
}

const REFUSED: &str = "error 1";

#[test]
fn forbidden_calls_are_refused() {
    let all: &[(&str, i64, &str)] = &[
        ("mount", libc::SYS_mount, "0, 0, 0, 0, 0"),
        ("umount2", libc::SYS_umount2, "0, 0"),
        ("unshare", libc::SYS_unshare, "0x10000000"),
        ("setns", libc::SYS_setns, "0, 0"),
        ("keyctl", libc::SYS_keyctl, "0, -4, 0"),
        ("add_key", libc::SYS_add_key, "my $t = 'user', my $d = 'a', my $v = 'b', 1, -4"),
        ("request_key", libc::SYS_request_key, "my $t = 'user', my $d = 'a', 0, 0"),
        ("bpf", libc::SYS_bpf, "0, 0, 0"),
        ("perf_event_open", libc::SYS_perf_event_open, "0, 0, -1, -1, 0"),
        ("userfaultfd", libc::SYS_userfaultfd, "1"),
        ("io_uring_setup", libc::SYS_io_uring_setup, "1, 0"),
        ("finit_module", libc::SYS_finit_module, "0, 0, 0"),
        ("kexec_load", libc::SYS_kexec_load, "0, 0, 0, 0"),
        ("reboot", libc::SYS_reboot, "0, 0, 0, 0"),
        ("swapon", libc::SYS_swapon, "0, 0"),
        ("acct", libc::SYS_acct, "0"),
        ("pivot_root", libc::SYS_pivot_root, "0, 0"),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, "0, 0, 0"),
        ("syslog", libc::SYS_syslog, "3, 0, 0"),
        ("settimeofday", libc::SYS_settimeofday, "0, 0"),
        ("open_tree", libc::SYS_open_tree, "-100, my $p = '/', 1"),
        ("fsopen", libc::SYS_fsopen, "my $f = 'tmpfs', 0"),
        ("mount_setattr", libc::SYS_mount_setattr, "0, 0, 0, 0, 0"),
        ("move_mount", libc::SYS_move_mount, "0, 0, 0, 0, 0"),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, "0, 0, 0"),
    ];
    let script: String = all
        .iter()
        .map(|(name, number, arguments)| {
            format!(
                "{{ my $r = syscall({number}, {arguments}); print \"{name} \", $r < 0 ? $! + 0 : 'done', \"\\n\"; }}\n"
            )
        })
        .collect();
    for (executor, lab) in labs(true, |_| {}) {
        let output = perl(&lab, User::root(), &script, |_| {});
        let expected: String = all.iter().map(|(name, _, _)| format!("{name} 1\n")).collect();
        assert_eq!(output, expected, "{executor}");
        // What programs need goes on: threads by the older call, tracing of one's own.
        assert_eq!(call(&lab, User::root(), libc::SYS_clone3, "0, 0"), "error 38", "{executor}");
        assert_eq!(call(&lab, User::root(), libc::SYS_ptrace, "0, 0, 0, 0"), "done", "{executor}");
        assert_eq!(call(&lab, User::root(), 700, ""), "error 38", "{executor}: a call of the future");
    }
    // Nothing else refuses these: it is the filter that does.
    for (executor, lab) in labs(true, |lab| lab.config.seccomp = false) {
        for name in ["unshare", "keyctl", "add_key", "request_key", "userfaultfd", "io_uring_setup"] {
            let (_, number, arguments) = all.iter().find(|(other, _, _)| *other == name).unwrap();
            assert_ne!(call(&lab, User::root(), *number, arguments), REFUSED, "{executor} {name}");
        }
    }
}

#[test]
fn clone_makes_no_namespaces() {
    // A child in a user namespace of its own would have every capability there.
    let script = format!(
        "my $r = syscall({}, 0x10000000 | 17, 0, 0, 0, 0); if ($r == 0) {{ syscall({}, 0) }} print $r < 0 ? 'refused' : 'made'",
        libc::SYS_clone,
        libc::SYS_exit_group
    );
    for (executor, lab) in labs(true, |_| {}) {
        assert_eq!(perl(&lab, nobody(), &script, |_| {}), "refused", "{executor}");
    }
    for (executor, lab) in labs(true, |lab| lab.config.seccomp = false) {
        assert_eq!(perl(&lab, nobody(), &script, |_| {}), "made", "{executor}");
    }
}

#[test]
fn the_filter_holds_for_children_and_other_users() {
    let script = format!(
        "print `/usr/bin/perl -e 'print syscall({}, 0, -4, 0) < 0 ? qq(refused) : qq(done)'`",
        libc::SYS_keyctl
    );
    for (executor, lab) in labs(true, |_| {}) {
        for user in [User::root(), nobody()] {
            assert_eq!(perl(&lab, user, &script, |_| {}), "refused", "{executor}");
        }
    }
    // With new privileges it is installed in another way.
    for (executor, lab) in labs(true, |lab| lab.config.new_privileges = true) {
        for user in [User::root(), nobody()] {
            assert_eq!(perl(&lab, user, &script, |_| {}), "refused", "{executor}");
        }
        // And what was kept for that is gone.
        let status = perl(&lab, User::root(), "print grep /^Cap|^NoNew|^Seccomp:/, `cat /proc/self/status`", |_| {});
        assert!(status.contains("CapBnd:\t00000000a80425fb"), "{executor} {status}");
        assert!(status.contains("CapEff:\t00000000a80425fb"), "{executor} {status}");
        assert!(status.contains("NoNewPrivs:\t0") && status.contains("Seccomp:\t2"), "{executor} {status}");
    }
    for (executor, lab) in labs(true, |lab| lab.config.seccomp = false) {
        assert_eq!(perl(&lab, User::root(), &script, |_| {}), "done", "{executor}");
    }
}

#[test]
fn set_user_id_programs_give_no_rights() {
    let run = |lab: &Lab| {
        let active = lab.store.begin_for_step(&lab.base).unwrap();
        let mut spec = step(active.root(), "cp /usr/bin/id /tool && chmod 6755 /tool");
        spec.mounts = host_programs();
        spec.limits = StepLimits::default();
        let (exit, output) = lab.run(&spec, &Cancel::new());
        assert_eq!(exit.unwrap().code, 0, "{output}");
        spec.argv = vec!["/tool".to_owned(), "-u".to_owned()];
        spec.user = nobody();
        lab.run(&spec, &Cancel::new()).1
    };
    for (executor, lab) in labs(true, |_| {}) {
        assert_eq!(run(&lab), "1000\n", "{executor}");
    }
    for (executor, lab) in labs(true, |lab| lab.config.new_privileges = true) {
        assert_eq!(run(&lab), "0\n", "{executor}");
    }
}
