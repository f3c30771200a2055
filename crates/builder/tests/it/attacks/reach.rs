//! What of the host a step can reach: sockets, processes, files of the kernel.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use portolan_builder::exec::Network;
use portolan_builder::user::User;

use super::{labs, perl};

#[test]
fn sockets_without_a_file_are_not_reached_from_another_network() {
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name("portolan-attack").unwrap()).unwrap();
    let script = "use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; \
                  print connect($s, pack('S a*', AF_UNIX, \"\\0portolan-attack\")) ? 'reached' : 'refused'";
    for (executor, lab) in labs(true, |_| {}) {
        assert_eq!(perl(&lab, User::root(), script, |spec| spec.network = Network::None), "refused", "{executor}");
        // Without a network of its own nothing keeps it away.
        assert_eq!(perl(&lab, User::root(), script, |spec| spec.network = Network::Host), "reached", "{executor}");
    }
}

#[test]
fn the_kernels_own_files_are_out_of_reach() {
    // A step that is told to be insecure shows that these attacks work where nothing hinders.
    let script = r#"
        my @read = grep { -e $_ and open(my $f, '<', $_) and (-d $_ ? eval { opendir(my $d, $_); grep !/^\.\.?$/, readdir $d } : sysread($f, my $b, 1)) }
            qw(/proc/kcore /proc/timer_list /proc/keys /proc/interrupts /sys/firmware);
        my @write = grep { -e $_ and open(my $f, '+<', $_) }
            qw(/proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /proc/sys/kernel/hostname
               /proc/irq/default_smp_affinity /sys/kernel/uevent_helper /sys/power/state);
        print "read @read; write @write";
    "#;
    for (executor, lab) in labs(true, |_| {}) {
        assert_eq!(perl(&lab, User::root(), script, |_| {}), "read ; write ", "{executor}");
    }
    for (executor, lab) in labs(false, |_| {}) {
        assert_eq!(perl(&lab, User::root(), script, |_| {}), "read ; write ", "{executor}: masks alone");
        let insecure = perl(&lab, User::root(), script, |spec| spec.insecure = true);
        assert!(
            insecure.contains("/proc/sys/kernel/core_pattern") && insecure.contains("/sys/power/state"),
            "{insecure}"
        );
    }
}

#[test]
fn nothing_of_the_server_is_open_in_a_step() {
    // Sockets, pipes and files of this process, and of the step process, would show here.
    let script = "opendir(my $d, '/proc/self/fd'); my @all = sort { $a <=> $b } grep !/^\\./, readdir $d; \
                  print join(' ', map { $_ . '=' . (readlink(\"/proc/self/fd/$_\") =~ /^([a-z]+:|\\/dev\\/null|\\/proc)/)[0] } @all), \"\\n\"; \
                  print join(' ', grep /^[0-9]+$/, map { (split '/')[2] } glob '/proc/[0-9]*'), \"\\n\"; \
                  print scalar(grep /portolan|config\\.json|master/, `cat /proc/self/mountinfo /proc/self/environ /proc/1/environ`)";
    for (executor, lab) in labs(true, |_| {}) {
        let output = perl(&lab, User::root(), script, |_| {});
        assert_eq!(output, "0=/dev/null 1=pipe: 2=pipe: 3=/proc\n1\n0", "{executor}");
    }
}
