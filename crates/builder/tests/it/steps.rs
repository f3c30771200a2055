//! Steps are shut off from the host, limited, and gone when they end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use portolan_builder::Cancel;
use portolan_builder::exec::{self, ExecError, Network, StepLimits, StepMount, Stream};
use portolan_builder::user::User;

use crate::support::{Lab, name, step};

#[test]
fn exit_status_output_and_environment_come_through() {
    let lab = Lab::new();
    assert_eq!(lab.sh("echo $GREETING $HOME; echo oops >&2; exit 7"), (7, "hello /root\noops\n".to_owned()));
    assert_eq!(lab.sh("kill -9 $$; :").0, 0, "the first process of a namespace ignores signals from inside");
    assert_eq!(lab.sh("sh -c 'kill -9 $$'; exit $?").0, 137);
    assert_eq!(lab.sh("cat; echo end").1, "end\n");
}

#[test]
fn programs_that_cannot_be_run_are_126_and_127() {
    let lab = Lab::new();
    let active = lab.begin();
    let run = |argv: &[&str]| {
        let mut spec = step(active.root(), "");
        spec.argv = argv.iter().map(|arg| arg.to_string()).collect();
        let (exit, output) = lab.run(&spec, &Cancel::new());
        (exit.unwrap().code, output)
    };
    assert_eq!(run(&["/bin/foo"]), (127, "exec /bin/foo: no such file or directory\n".to_owned()));
    assert_eq!(run(&["foo"]), (127, "exec foo: executable file not found in $PATH\n".to_owned()));
    assert_eq!(run(&["/etc/passwd"]), (126, "exec /etc/passwd: permission denied\n".to_owned()));
    assert_eq!(run(&["echo", "a", "b c"]), (0, "a b c\n".to_owned()));
}

#[test]
fn the_host_is_out_of_sight() {
    let lab = Lab::new();
    let marker = lab.dir.path().join("marker");
    std::fs::write(&marker, "x").unwrap();
    let (code, output) = lab.sh(&format!(
        "test ! -e {} && echo no-file; echo pid $$; ps -o pid,comm | wc -l; hostname; ls /; ls /proc | grep -c '^[0-9]'; ls /proc/self/fd | wc -l",
        marker.display()
    ));
    assert_eq!(code, 0);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "no-file");
    assert_eq!(lines[1], "pid 1");
    assert!(lines[2].trim().parse::<u32>().unwrap() <= 4, "{output}");
    assert_eq!(lines[3], "build");
    assert_eq!(&lines[4..11], ["bin", "dev", "etc", "home", "proc", "root", "sys"]);
    // Standard streams and the directory being listed.
    assert_eq!(lines.last().unwrap().trim(), "4", "{output}");
    assert_ne!(
        lab.sh("readlink /proc/self/ns/ipc").1.trim(),
        std::fs::read_link("/proc/self/ns/ipc").unwrap().to_str().unwrap()
    );
    // Neither the other mounts of the machine nor the step's own bundle.
    let mounts = lab.sh("cat /proc/self/mountinfo").1;
    assert!(!mounts.contains("config.json") && !mounts.contains(lab.dir.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn privileges_are_dockers_defaults() {
    let lab = Lab::new();
    let status = lab.sh("cat /proc/self/status").1;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((&*field("NoNewPrivs:"), &*field("Seccomp:")), ("1", "2"));
    for script in [
        "mount -t tmpfs none /tmp",
        "umount /proc",
        "echo 1 > /proc/sys/kernel/sysrq",
        "echo c > /proc/sysrq-trigger",
        "mkdir /sys/x",
        "cat /proc/kcore | head -c 1 | grep -q .",
        "ls /sys/firmware | grep -q .",
        "dd if=/proc/timer_list bs=1 count=1 2>&1 | grep -q '1+0 records in'",
        "hostname other",
        "chroot /proc/1/root/../../.. test -e /work",
    ] {
        assert_ne!(lab.sh(script).0, 0, "{script}");
    }
}

#[test]
fn the_hosts_devices_cannot_be_opened() {
    let mut lab = Lab::new();
    // The disk that this test runs on.
    use std::os::linux::fs::MetadataExt;
    let device = std::fs::metadata("/").unwrap().st_dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    // Where no cgroup keeps devices away, the mounts do.
    for cgroups in [true, false] {
        lab.config.cgroups = cgroups;
        let (code, output) = lab.sh(&format!(
            "for dir in /tmp /dev /dev/shm /root; do mknod $dir/disk b {major} {minor}; head -c 1 $dir/disk && echo OPEN; done; \
             mknod /dev/mem2 c 1 1; head -c 1 /dev/mem2 && echo OPEN; exit 0"
        ));
        assert_eq!(code, 0);
        assert!(!output.contains("OPEN"), "{output}");
        let (code, output) =
            lab.sh("echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 1 /dev/urandom | wc -c && echo x > /dev/shm/x && ls /dev");
        assert_eq!(code, 0, "{output}");
        assert_eq!(
            output,
            "3\n1\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
        );
    }
}

#[test]
fn a_step_runs_as_the_user_in_its_directory() {
    let lab = Lab::new();
    let active = lab.begin();
    let mut spec = step(active.root(), "id; pwd; echo $HOME; touch /etc/x; touch /home/app/new/dir/mine");
    spec.user = User { uid: 1000, gid: 1001, groups: vec![50], home: "/home/app".to_owned() };
    spec.cwd = "/home/app/new/dir".to_owned();
    let (exit, output) = lab.run(&spec, &Cancel::new());
    assert_eq!(exit.unwrap().code, 1);
    assert!(
        output.starts_with("uid=1000(app) gid=1001(app) groups=50(staff)\n/home/app/new/dir\n/home/app\n"),
        "{output}"
    );
    let status = {
        spec.argv = ["/bin/cat", "/proc/self/status"].map(str::to_owned).to_vec();
        lab.run(&spec, &Cancel::new()).1
    };
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("CapBnd:\t00000000a80425fb"), "{status}");
}

#[test]
fn mounts_and_the_network_are_as_told() {
    let lab = Lab::new();
    let cache = lab.dir.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::write(cache.join("kept"), "from the host").unwrap();
    let single = lab.dir.path().join("single");
    std::fs::write(&single, "one file").unwrap();
    let active = lab.begin();
    let mut spec = step(
        active.root(),
        "cat /var/cache/kept /run/secrets/s; echo >/run/secrets/s; echo new > /var/cache/new; echo t > /scratch/t; echo devices $(grep -c : /proc/net/dev)",
    );
    spec.network = Network::None;
    spec.mounts = vec![
        StepMount::Bind { source: cache.clone(), target: "/var/cache".to_owned(), writable: true },
        StepMount::Bind { source: single, target: "/run/secrets/s".to_owned(), writable: false },
        StepMount::Tmpfs { target: "/scratch".to_owned(), bytes_max: Some(1 << 20) },
    ];
    let (exit, output) = lab.run(&spec, &Cancel::new());
    assert_eq!(exit.unwrap().code, 0, "{output}");
    for part in ["from the hostone file", "Read-only file system", "devices 1\n"] {
        assert!(output.contains(part), "{output}");
    }
    assert_eq!(std::fs::read_to_string(cache.join("new")).unwrap(), "new\n");
    // Nothing of it is in the layer, not even the places.
    let chain = active.commit(&name("mounts")).unwrap();
    let layer = portolan_builder::diff::write_layer(&chain, &*lab.content, None, &Cancel::new()).unwrap();
    assert!(layer.empty, "{:?}", lab.entries(&layer));
}

#[test]
fn a_link_in_place_of_resolv_conf_stays_one() {
    let lab = Lab::new();
    let active = lab.begin();
    std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", active.root().join("etc/resolv.conf"))
        .unwrap();
    std::os::unix::fs::symlink("/etc/shadow", active.root().join("etc/hosts")).unwrap();
    let chain = active.commit(&name("linked")).unwrap();
    let active = lab.store.begin_for_step(&chain).unwrap();
    let (exit, output) = lab.run(
        &step(active.root(), "cat /run/systemd/resolve/stub-resolv.conf; grep localhost /etc/hosts; umask"),
        &Cancel::new(),
    );
    assert_eq!(exit.unwrap().code, 0);
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert!(
        output.starts_with(&host) && output.contains("127.0.0.1\tlocalhost build") && output.ends_with("0022\n"),
        "{output}"
    );
    let next = active.commit(&name("ran")).unwrap();
    assert!(portolan_builder::diff::write_layer(&next, &*lab.content, None, &Cancel::new()).unwrap().empty);
}

#[test]
fn memory_is_limited_and_the_end_told() {
    let lab = Lab::new();
    let active = lab.begin();
    let mut spec = step(
        active.root(),
        "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c; x=$(head -c 200000000 /dev/zero | tr '\\0' x)",
    );
    spec.argv[2] = "dd if=/dev/zero of=/dev/null bs=300M count=1".to_owned();
    spec.limits = StepLimits { memory_bytes_max: Some(64 << 20), ..StepLimits::default() };
    let (exit, output) = lab.run(&spec, &Cancel::new());
    let exit = exit.unwrap();
    assert!(exit.out_of_memory && exit.code == 137, "{exit:?} {output}");
    spec.limits = StepLimits {
        memory_bytes_max: Some(1 << 30),
        pids_max: Some(100),
        cpus: Some(1.5),
        secs_max: Some(60),
        ..StepLimits::default()
    };
    let exit = lab.run(&spec, &Cancel::new()).0.unwrap();
    assert!(!exit.out_of_memory && exit.code == 0, "{exit:?}");
}

#[test]
fn a_fork_bomb_is_contained_and_gone() {
    let lab = Lab::new();
    let active = lab.begin();
    let mut spec = step(active.root(), "b() { b | b & }; b; sleep 0.3; ls /proc | grep -c '^[0-9]'; exit 3");
    spec.limits = StepLimits { pids_max: Some(40), secs_max: Some(20), ..StepLimits::default() };
    let (exit, output) = lab.run(&spec, &Cancel::new());
    // The shell itself may be refused a process; either way it ends.
    assert!(matches!(exit, Ok(exit) if exit.code != 0), "{exit:?} {output}");
    assert!(output.contains("fork"), "{output}");
}

#[test]
fn the_time_limit_ends_a_step() {
    let lab = Lab::new();
    let active = lab.begin();
    let mut spec = step(active.root(), "trap '' TERM INT; echo started; sleep 1000");
    spec.limits.secs_max = Some(1);
    let (exit, output) = lab.run(&spec, &Cancel::new());
    assert!(matches!(exit, Err(ExecError::TimedOut(limit)) if limit == Duration::from_secs(1)), "{exit:?}");
    assert_eq!(output, "started\n");
}

/// Whether any process on the machine has this among its arguments.
fn running(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(marker))
    })
}

#[test]
fn background_children_end_with_the_step() {
    let lab = Lab::new();
    let (code, output) = lab.sh("setsid sleep 98761 & sleep 0.05; echo done");
    assert_eq!((code, output.as_str()), (0, "done\n"));
    assert!(!running("98761"));
}

#[test]
fn cancelling_kills_everything_at_once() {
    let lab = Lab::new();
    let active = lab.begin();
    let cancel = Cancel::new();
    let (started, on_started) = mpsc::channel();
    let spec =
        step(active.root(), "trap '' TERM; setsid sleep 98762 & (setsid sleep 98762 &); echo ready; sleep 98762");
    std::thread::scope(|scope| {
        let step = scope.spawn(|| {
            let started = std::sync::Mutex::new(started);
            exec::run(
                &lab.config,
                &spec,
                &|_: Stream, _: &[u8]| started.lock().unwrap().send(()).unwrap_or(()),
                &cancel,
            )
        });
        on_started.recv().unwrap();
        let at = Instant::now();
        cancel.cancel();
        assert!(matches!(step.join().unwrap(), Err(ExecError::Cancelled)));
        assert!(at.elapsed() < Duration::from_secs(2), "{:?}", at.elapsed());
    });
    assert!(!running("98762"));
    // And a build that is cancelled already starts nothing.
    assert!(matches!(lab.run(&spec, &cancel), (Err(ExecError::Cancelled), output) if output.is_empty()));
}

/// Not a test of its own: what the next one kills.
#[test]
#[ignore = "started by the test below"]
fn engine_that_gets_killed() {
    let lab = Lab::new();
    let active = lab.begin();
    let spec = step(active.root(), "setsid sleep 98763 & echo ready; sleep 98763");
    let _ = exec::run(
        &lab.config,
        &spec,
        &|_: Stream, _: &[u8]| eprintln!("READY {}", lab.dir.path().display()),
        &Cancel::new(),
    );
}

#[test]
fn killing_the_engine_kills_the_step() {
    let mut engine = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "steps::engine_that_gets_killed", "--nocapture"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(engine.stderr.take().unwrap()).lines();
    let dir = lines.find_map(|line| line.unwrap().strip_prefix("READY ").map(str::to_owned)).unwrap();
    assert!(running("98763"));
    engine.kill().unwrap();
    engine.wait().unwrap();
    // The step process sees its socket close. Nothing tells us when it is done with it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while running("98763") {
        assert!(Instant::now() < deadline, "the step outlived its engine");
        std::thread::yield_now();
    }
    let state = std::path::Path::new(&dir);
    exec::sweep(&state.join("exec")).unwrap();
    let groups = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!groups.contains(&dir), "a mount is left");
    let store = portolan_builder::snapshot::Store::open(
        &state.join("snapshots"),
        std::sync::Arc::new(crate::support::MemoryContent::default()),
    );
    drop(store.unwrap());
    assert_eq!(std::fs::read_dir(state.join("snapshots/work")).unwrap().count(), 0);
    std::fs::remove_dir_all(state).unwrap();
}

#[test]
fn secrets_are_on_no_command_line() {
    let lab = Lab::new();
    let active = lab.begin();
    let mut spec = step(active.root(), "echo ready; sleep 0.2");
    spec.env.push(("TOKEN".to_owned(), "s3cr3t-98764".to_owned()));
    let seen = std::sync::Mutex::new(false);
    exec::run(
        &lab.config,
        &spec,
        &|_: Stream, _: &[u8]| *seen.lock().unwrap() |= running("s3cr3t-98764"),
        &Cancel::new(),
    )
    .unwrap();
    assert!(!*seen.lock().unwrap());
}

/// Where the time of a step goes. Run with `--ignored --nocapture` on an idle machine.
#[test]
#[ignore = "prints times, asserts nothing"]
fn time_of_a_step() {
    let lab = Lab::new();
    let mut parts = [Duration::ZERO; 4];
    let rounds = 30;
    let mut chain = lab.base.clone();
    for n in 0..rounds {
        let mut at = Instant::now();
        let mut lap = |part: usize| {
            parts[part] += at.elapsed();
            at = Instant::now();
        };
        let active = lab.store.begin_for_step(&chain).unwrap();
        lap(0);
        let (exit, output) = lab.run(&step(active.root(), &format!("echo {n} > /tmp/f")), &Cancel::new());
        assert_eq!(exit.unwrap().code, 0, "{output}");
        lap(1);
        chain = active.commit(&name(&n.to_string())).unwrap();
        lap(2);
        portolan_builder::diff::write_layer(&chain, &*lab.content, None, &Cancel::new()).unwrap();
        lap(3);
    }
    println!("begin, run, commit, layer: {:?}", parts.map(|part| part / rounds));
}
