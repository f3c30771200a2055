//! One build for several platforms, and several builds that do the same.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use portolan_builder::{BuildRequest, Cancel, Event, PLATFORMS_MAX};
use portolan_types::Platform;
use portolan_types::oci::ImageConfig;

use crate::kitchen::{Kitchen, Outcome};
use crate::support::Tar;

/// For what must happen by itself.
const WAIT: Duration = Duration::from_secs(60);
/// Neither of these is what the tests run on.
const OTHERS: [&str; 2] = ["linux/riscv64", "linux/s390x"];

/// What the log calls its steps, sorted: platforms are built side by side.
fn titles(events: &[Event]) -> Vec<String> {
    let title = |event: &Event| match event {
        Event::StepStarted { title, .. } => Some(title.clone()),
        _ => None,
    };
    let mut titles: Vec<String> = events.iter().filter_map(title).collect();
    titles.sort();
    titles
}

fn output(events: &[Event]) -> String {
    let text = |event: &Event| match event {
        Event::Output { bytes, .. } => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

#[test]
fn a_stage_of_the_build_platform_is_run_once() {
    let kitchen = Kitchen::new();
    kitchen.write("own", "x");
    let dockerfile = "
FROM --platform=$BUILDPLATFORM busybox AS build
RUN echo ran once; cat /proc/sys/kernel/random/uuid > /out
FROM --platform=$BUILDPLATFORM build AS cross
ARG TARGETARCH
RUN echo made for $TARGETARCH; echo $TARGETARCH > /arch
FROM scratch
COPY --from=build /out /out
COPY --from=cross /arch /arch
COPY own /own
";
    let request = kitchen.request(dockerfile);
    let (built, events) = kitchen.run_all(&request, &OTHERS);
    let built = built.unwrap();
    let host = Platform::host();
    let out = output(&events);
    assert_eq!(out.matches("ran once").count(), 1, "{out}");
    for arch in ["riscv64", "s390x"] {
        assert_eq!(out.matches(&format!("made for {arch}")).count(), 1, "{out}");
    }
    let cross = "RUN echo made for $TARGETARCH; echo $TARGETARCH > /arch";
    let cross = |arch: &str| format!("[{host}->{arch} cross 1/1] {}", cross.replacen("$TARGETARCH", arch, 2));
    let mut expected = vec![
        "[internal] load build definition from Dockerfile".to_owned(),
        format!("[{host} internal] load metadata for docker.io/library/busybox:latest"),
        format!("[{host} build 2/2] RUN echo ran once; cat /proc/sys/kernel/random/uuid > /out"),
        cross("riscv64"),
        cross("s390x"),
    ];
    let from = format!("[{host} build 1/2] FROM docker.io/library/busybox:latest@");
    for platform in OTHERS {
        expected.push(format!("[{platform}] exporting to image"));
    }
    // What is copied is the same for both, and so is shown once.
    let seen = titles(&events);
    let (froms, rest): (Vec<String>, Vec<String>) = seen.into_iter().partition(|t| t.starts_with(&from));
    assert_eq!(froms.len(), 1, "{froms:?}");
    let (copies, rest): (Vec<String>, Vec<String>) = rest.into_iter().partition(|t| t.contains("] COPY "));
    expected.sort();
    assert_eq!(rest, expected);
    // Onto nothing the first copy is one and the same; the others stand on different results.
    let copies_of = |what: &str| copies.iter().filter(|t| t.ends_with(what)).count();
    assert_eq!((copies_of("/out /out"), copies_of("/arch /arch"), copies_of("own /own")), (1, 2, 2), "{copies:?}");

    let configs: Vec<ImageConfig> = {
        let blobs = kitchen.content.blobs.lock().unwrap();
        built.iter().map(|b| serde_json::from_slice(&blobs[&b.config.digest]).unwrap()).collect()
    };
    let platforms: Vec<String> = built.iter().map(|b| b.platform.to_string()).collect();
    assert_eq!(platforms, OTHERS);
    let architectures: Vec<&str> = configs.iter().map(|c| c.architecture.as_str()).collect();
    assert_eq!(architectures, ["riscv64", "s390x"]);
    assert_eq!(built[0].layers[0], built[1].layers[0], "the stage that ran once is in both");
    assert_ne!(built[0].layers[1], built[1].layers[1]);

    // Again: all of it is known, and nothing is said twice.
    let (again, events) = kitchen.run_all(&request, &OTHERS);
    let digests = |all: &[portolan_builder::Built]| all.iter().map(|b| b.digest).collect::<Vec<_>>();
    assert_eq!(digests(&again.unwrap()), digests(&built));
    assert_eq!(output(&events), "");
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Done { .. })).count(), 4, "definition, image, two exports");

    // Anew: still once for both.
    let (anew, events) = kitchen.run_all(&BuildRequest { no_cache: true, ..request }, &OTHERS);
    assert_ne!(digests(&anew.unwrap()), digests(&built));
    assert_eq!(output(&events).matches("ran once").count(), 1);
}

#[test]
fn one_platform_that_fails_ends_the_build() {
    let kitchen = Kitchen::new();
    let request = kitchen.request(
        "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH\nRUN if [ $TARGETARCH = s390x ]; then exit 3; else sleep 600; fi\n",
    );
    let (built, events) = kitchen.run_all(&request, &OTHERS);
    let error = built.unwrap_err();
    assert_eq!(error.kind, portolan_builder::ErrorKind::Step { exit_code: 3 }, "{error:?}");
    assert!(events.iter().any(|e| matches!(e, Event::Cancelled { .. })), "{events:?}");
}

#[test]
fn platforms_that_cannot_be_asked_for() {
    let kitchen = Kitchen::new();
    let request = kitchen.request("FROM scratch\nCOPY . /\n");
    let why = |platforms: &[&str]| kitchen.run_all(&request, platforms).0.unwrap_err().message;
    assert_eq!(why(&["linux/amd64", "linux/amd64"]), "the platform linux/amd64 is named twice");
    assert_eq!(why(&[]), "a build is for 1 to 16 platforms, not for 0");
    let many: Vec<String> = (0..=PLATFORMS_MAX).map(|n| format!("linux/p{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(why(&many), "a build is for 1 to 16 platforms, not for 17");
}

/// Two builds that get into each other's way: the first one's step does not end before the
/// second has said `met`.
fn two_builds(kitchen: &Kitchen, first: &BuildRequest, second: &BuildRequest, met: fn(&Event) -> bool) -> [Outcome; 2] {
    let (begun, has_begun): (Sender<()>, Receiver<()>) = channel();
    let (say, said): (Sender<()>, Receiver<()>) = channel();
    let once = Mutex::new(Some((begun, said)));
    std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            kitchen.run_until(first, &Cancel::new(), &|event| {
                if !matches!(event, Event::Output { .. }) {
                    return;
                }
                if let Some((begun, said)) = once.lock().unwrap().take() {
                    begun.send(()).unwrap();
                    said.recv_timeout(WAIT).expect("the second build gets that far");
                }
            })
        });
        let two = scope.spawn(move || {
            has_begun.recv_timeout(WAIT).unwrap();
            let say = Mutex::new(say);
            kitchen.run_until(second, &Cancel::new(), &|event| {
                if met(event) {
                    let _ = say.lock().unwrap().send(());
                }
            })
        });
        [one.join().unwrap(), two.join().unwrap()]
    })
}

const RANDOM: &str = "FROM busybox\nRUN echo begun; cat /proc/sys/kernel/random/uuid > /out\n";

#[test]
fn what_two_builds_want_at_once_is_run_once() {
    let kitchen = Kitchen::new();
    let request = kitchen.request(RANDOM);
    let waits = |event: &Event| matches!(event, Event::Note { text, .. } if text.contains("another build"));
    let [one, two] = two_builds(&kitchen, &request, &request, waits);
    let files = |outcome| -> BTreeMap<String, String> { kitchen.image(outcome).files };
    assert_eq!(output(&two.events), "", "{}", two.log);
    assert!(two.log.contains("CACHED"), "{}", two.log);
    assert_eq!(files(one)["out"], files(two)["out"]);
}

#[test]
fn builds_of_different_tenants_share_nothing() {
    let kitchen = Kitchen::new();
    let request = kitchen.request(RANDOM);
    let stranger = BuildRequest { tenant: "another".into(), ..request.clone() };
    let runs = |event: &Event| matches!(event, Event::Output { .. });
    let [one, two] = two_builds(&kitchen, &request, &stranger, runs);
    let files = |outcome| -> BTreeMap<String, String> { kitchen.image(outcome).files };
    assert_ne!(files(one)["out"], files(two)["out"]);
}

#[test]
fn two_builds_where_the_first_is_stopped() {
    let kitchen = Kitchen::new();
    let request = kitchen.request("FROM busybox\nRUN echo begun; sleep 600 & wait $!\n");
    let quick = kitchen.request("FROM busybox\nRUN echo begun; sleep 600 & wait $!\n");
    let (first, second) = (Cancel::new(), Cancel::new());
    let (begun, has_begun) = channel();
    let begun = Mutex::new(begun);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            kitchen.run_until(&request, &first, &|event| {
                if matches!(event, Event::Output { .. }) {
                    let _ = begun.lock().unwrap().send(());
                }
            })
        });
        has_begun.recv_timeout(WAIT).unwrap();
        // It waits for the first, then runs the step itself: that one was stopped.
        let two = kitchen.run_until(&quick, &second, &|event| match event {
            Event::Note { text, .. } if text.contains("another build") => first.cancel(),
            Event::Output { .. } => second.cancel(),
            _ => {}
        });
        assert!(two.log.contains(" begun"), "{}", two.log);
        assert_eq!(one.join().unwrap().result.unwrap_err().kind, portolan_builder::ErrorKind::Cancelled);
    });
}

/// A program for 64-bit ARM that says so, by hand: an ELF header, one segment, and
/// `write(1, text); exit(0)`.
fn arm_program() -> Vec<u8> {
    let text = b"hello from aarch64\n";
    let code: [u32; 8] = [
        0xd280_0020,                            // mov x0, #1
        0x1000_00e1,                            // adr x1, 28 bytes on
        0xd280_0002 | (text.len() as u32) << 5, // mov x2, #len
        0xd280_0808,                            // mov x8, #64
        0xd400_0001,                            // svc #0
        0xd280_0000,                            // mov x0, #0
        0xd280_0ba8,                            // mov x8, #93
        0xd400_0001,                            // svc #0
    ];
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\x00\xb7\x00\x01\0\0\0".to_vec();
    let base = 0x40_0000u64;
    let size = 120 + 4 * code.len() as u64 + text.len() as u64;
    elf.extend((base + 120).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend([0; 8 + 4]); // no sections, no flags
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1u32, 5] {
        elf.extend(word.to_le_bytes()); // load, to read and execute
    }
    for long in [0, base, base, size, size, 0x1000] {
        elf.extend(long.to_le_bytes());
    }
    code.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    elf.extend(text);
    elf
}

#[test]
fn programs_of_another_processor_are_emulated() {
    if Platform::host().architecture == "arm64" {
        return;
    }
    let mut kitchen = Kitchen::new();
    let tar = Tar::new().file("hello", 0o755, &arm_program()).done();
    let (layer, diff_id) = kitchen.content.layer(&tar);
    kitchen.shelve_for("linux/arm64", "tiny", layer, diff_id);
    let request =
        BuildRequest { platform: "linux/arm64".parse().unwrap(), ..kitchen.request("FROM tiny\nRUN [\"/hello\"]\n") };
    let outcome = kitchen.run(&request);
    assert!(outcome.log.contains(" hello from aarch64\n"), "{}", outcome.log);
    let config = outcome.result.unwrap().config.digest;
    let config: ImageConfig = serde_json::from_slice(&kitchen.content.blobs.lock().unwrap()[&config]).unwrap();
    assert_eq!(config.architecture, "arm64");

    let empty = tempfile::tempdir().unwrap();
    kitchen.emulators_dir = empty.path().to_owned();
    kitchen.restart();
    let outcome = kitchen.run(&BuildRequest { no_cache: true, ..request });
    let error = outcome.result.unwrap_err();
    let wanted = "runs programs for linux/arm64 by emulation only, and there is no qemu-aarch64-static in";
    assert!(error.message.contains(wanted), "{}", error.message);
}
