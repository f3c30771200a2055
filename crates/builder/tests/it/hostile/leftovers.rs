//! Steps that do harm end with a clear reason or go on, and leave nothing: what there is of
//! everything is counted before and after. It happens in a process of its own, so that what
//! other tests do meanwhile is not counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portolan_builder::exec::network::Policy;
use portolan_builder::{Cancel, DefaultNetwork, DiskLimits, EngineConfig, ErrorKind, Event, StepLimits};

use crate::kitchen::{Kitchen, Outcome};

/// What there is of everything that a build could leave behind.
fn count(state: &Path) -> BTreeMap<&'static str, usize> {
    let entries = |dir: &Path| std::fs::read_dir(dir).map_or(0, Iterator::count);
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut counts = BTreeMap::new();
    counts.insert("mounts", text("/proc/self/mountinfo").lines().count());
    counts.insert("descriptors", entries(Path::new("/proc/self/fd")));
    counts.insert("threads", entries(Path::new("/proc/self/task")));
    for folder in ["snapshots/work", "snapshots/trash", "scratch", "steps"] {
        counts.insert(folder, entries(&state.join(folder)));
    }
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if let (Some(pid), Some(parent)) = (entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()), parent) {
            parents.insert(pid, parent);
        }
    }
    let ours = |mut pid: u32| {
        while let Some(&parent) = parents.get(&pid) {
            if parent == std::process::id() {
                return true;
            }
            pid = parent;
        }
        false
    };
    counts.insert("processes", parents.keys().filter(|pid| ours(**pid)).count());
    let mut groups = 0;
    let prefix = format!("{}-", std::process::id());
    for line in text("/proc/self/mountinfo").lines().filter(|line| line.contains(" - cgroup")) {
        let point = line.split(' ').nth(4).unwrap();
        let mut find = Command::new("find");
        find.args([point, "-maxdepth", "6", "-type", "d", "-name"]).arg(format!("{prefix}*"));
        groups += String::from_utf8_lossy(&find.output().unwrap().stdout).lines().count();
    }
    counts.insert("cgroups", groups);
    let loops = std::fs::read_dir("/sys/block").unwrap().flatten();
    counts.insert("loop devices", loops.filter(|e| e.path().join("loop/backing_file").exists()).count());
    let rules = Command::new("nft").args(["list", "ruleset"]).output();
    counts.insert("firewall rules", rules.map_or(0, |out| String::from_utf8_lossy(&out.stdout).lines().count()));
    counts
}

fn settled(state: &Path, before: &BTreeMap<&'static str, usize>, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let after = count(state);
        if after == *before {
            return;
        }
        assert!(Instant::now() < deadline, "{what} left something behind:\nbefore {before:?}\nafter  {after:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn limits(config: &mut EngineConfig) {
    config.limits = StepLimits {
        memory_bytes_max: Some(512 << 20),
        pids_max: Some(60),
        secs_max: Some(60),
        output_bytes_max: Some(1 << 20),
        ..StepLimits::default()
    };
    config.disk = DiskLimits {
        step_bytes_max: Some(64 << 20),
        step_files_max: Some(5_000),
        build_bytes_max: Some(96 << 20),
        free_bytes_min: None,
    };
    config.network = DefaultNetwork::Own(std::sync::Arc::new(Policy::default()));
}

/// What came of a step, in one word and its error.
fn run(kitchen: &Kitchen, script: &str) -> (Option<ErrorKind>, String, String) {
    let Outcome { result, log, .. } = kitchen.run(&kitchen.request(&format!("FROM busybox\n{script}\n")));
    match result {
        Ok(_) => (None, String::new(), log),
        Err(error) => (Some(error.kind), error.message, log),
    }
}

/// Not a test of its own: the next one runs it in a process where nothing else happens.
#[test]
#[ignore = "started by the test below"]
fn harm_is_done() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut kitchen = Kitchen::new();
    kitchen.setup = limits;
    kitchen.restart();
    let state = kitchen.context().parent().unwrap().join("state");
    // Whatever is set up once is set up now.
    assert_eq!(run(&kitchen, "RUN echo warm").0, None);
    super::network::wait(|| count(&state)["snapshots/trash"] == 0);
    std::thread::sleep(Duration::from_millis(200));
    let before = count(&state);
    settled(&state, &before, "counting");

    let limit = |script: &str, reason: &str| {
        let (kind, message, log) = run(&kitchen, script);
        assert_eq!(kind, Some(ErrorKind::Limit), "{script}: {message}\n{log}");
        assert!(message.contains(reason), "{script}: {message}");
        assert!(!log.contains("SURVIVED"), "{script}: {log}");
        settled(&state, &before, script);
    };
    limit("RUN dd if=/dev/zero of=/f bs=1M count=4000; echo SURV''IVED", "wrote more than 64 MiB");
    limit(
        "RUN i=0; while [ $i -lt 60000 ]; do : > /tmp/$i; i=$((i+1)); done; sleep 30; echo SURV''IVED",
        "made more than 5000 files",
    );
    limit("RUN busybox truncate -s 1024G /sparse", "wrote more than 64 MiB");
    limit("RUN mkdir -p $(printf 'd/%.0s' $(seq 1500))", "more than 1000 deep");
    limit(
        "RUN head -c 60000000 /dev/zero > /a\nRUN head -c 60000000 /dev/zero > /b",
        "steps of this build wrote more than 96 MiB",
    );
    kitchen.write("large", &"x".repeat(60_000_000));
    limit("COPY large /a\nCOPY large /b", "steps of this build wrote more than 96 MiB");
    std::fs::remove_file(kitchen.context().join("large")).unwrap();

    let (kind, message, log) = run(&kitchen, "RUN b() { b | b & }; b; sleep 1; exit 3");
    assert!(matches!(kind, Some(ErrorKind::Step { .. })), "{message}\n{log}");
    settled(&state, &before, "a fork bomb");
    let (kind, message, _) = run(
        &kitchen,
        "RUN (setsid sleep 1000 &); (setsid setsid sleep 1000 >/dev/null 2>&1 &); exec >&- 2>&-; sleep 0.2; exit 5",
    );
    assert_eq!(kind, Some(ErrorKind::Step { exit_code: 5 }), "{message}");
    settled(&state, &before, "a step that closes its output");
    let (kind, message, log) =
        run(&kitchen, "RUN head -c 300000000 /dev/zero | busybox tr '\\0' x; echo SURV''IVED > /f");
    assert_eq!(kind, None, "{message}");
    assert!(log.len() < 3 << 20 && log.contains("[output clipped: a step may print 1048576 bytes]"), "{}", log.len());
    let (kind, _, log) = run(
        &kitchen,
        "RUN for f in $(find / -xdev -name cgroup.procs 2>/dev/null); do echo 0 > $f && echo MOVED; done; \
         mkdir /sys/fs/cgroup/own && echo MOVED; for t in cgroup cgroup2; do mount -t $t none /mnt && echo MOVED; done; \
         mount -o remount,rw /sys && echo REMOUNTED; mount -o remount,rw,size=100% /dev && echo REMOUNTED; \
         mount -o remount,rw,exec,suid,dev / && echo REMOUNTED; umount /proc && echo REMOUNTED; \
         echo 1000000 > /proc/self/oom_score_adj; echo -1000 > /proc/self/oom_score_adj && echo RAISED; exit 0",
    );
    assert_eq!(kind, None, "{log}");
    assert!(
        !log.lines().any(|line| line.ends_with(" MOVED") || line.ends_with(" REMOUNTED") || line.ends_with(" RAISED")),
        "{log}"
    );
    settled(&state, &before, "a step that wants other limits");

    for script in [
        "trap '' TERM INT HUP; echo ready; (setsid sleep 1000 &); sleep 1000",
        "echo ready; b() { b | b & }; b; while :; do :; done",
        "echo ready; while :; do head -c 30000000 /dev/zero > /f; done",
        "echo ready; i=0; while :; do : > /tmp/f$((i % 4000)); i=$((i+1)); done",
        "yes ready",
        "echo ready; exec >&- 2>&-; sleep 1000",
        "echo ready; while :; do busybox nc -w 1 198.51.100.99 80 </dev/null >/dev/null 2>&1; done",
    ] {
        let cancel = Cancel::new();
        let ready = AtomicBool::new(false);
        let took = std::thread::scope(|scope| {
            let build = scope.spawn(|| {
                kitchen.run_until(&kitchen.request(&format!("FROM busybox\nRUN {script}")), &cancel, &|event| {
                    if matches!(event, Event::Output { .. }) {
                        ready.store(true, Ordering::SeqCst);
                    }
                })
            });
            super::network::wait(|| ready.load(Ordering::SeqCst));
            let at = Instant::now();
            cancel.cancel();
            let outcome = build.join().unwrap();
            assert_eq!(outcome.result.unwrap_err().kind, ErrorKind::Cancelled, "{script}");
            at.elapsed()
        });
        // What is asked of every build.
        assert!(took < Duration::from_secs(2), "{script}: {took:?}");
        println!("cancelled in {took:?}: {script}");
        settled(&state, &before, script);
    }

    kitchen.setup = |config| {
        limits(config);
        // More than any disk has.
        config.disk.free_bytes_min = Some(1 << 60);
    };
    kitchen.restart();
    let (kind, message, _) = run(&kitchen, "RUN head -c 40000000 /dev/zero > /f; sleep 30; echo SURV''IVED");
    assert_eq!(kind, Some(ErrorKind::Limit), "{message}");
    assert!(message.contains("the disk for builds is nearly full"), "{message}");
    settled(&state, &before, "a full disk");
}

#[test]
fn harm_is_ended_with_a_reason_and_leaves_nothing() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "hostile::leftovers::harm_is_done", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
}
