//! A build stops at once wherever it is.

use std::time::{Duration, Instant};

use portolan_builder::{Cancel, ErrorKind, Event};
use portolan_types::oci::ContainerConfig;

use crate::kitchen::Kitchen;
use crate::support::Tar;

/// Cancel when `at` says so, from inside the very phase, and see how long it takes.
fn cancelled(kitchen: &Kitchen, dockerfile: &str, at: fn(&Event) -> bool) {
    let cancel = Cancel::new();
    let when = std::sync::Mutex::new(None);
    let outcome = kitchen.run_until(&kitchen.request(dockerfile), &cancel, &|event| {
        if at(event) && when.lock().unwrap().replace(Instant::now()).is_none() {
            cancel.cancel();
        }
    });
    let took = when.into_inner().unwrap().unwrap_or_else(|| panic!("it never came there: {}", outcome.log)).elapsed();
    assert_eq!(outcome.result.map(drop).unwrap_err().kind, ErrorKind::Cancelled, "{}", outcome.log);
    assert!(took < Duration::from_secs(2), "{dockerfile}: {took:?}");
}

fn begins(event: &Event, what: &str) -> bool {
    matches!(event, Event::StepStarted { title, .. } if title.contains(what))
}

#[test]
fn every_phase_is_left_at_once() {
    let mut kitchen = Kitchen::new();
    // Bytes that do not compress, so that reading, copying and writing them all take long.
    let mut state = 1u64;
    let noise: Vec<u8> = (0..150_000_000 / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    std::fs::write(kitchen.context().join("large"), &noise).unwrap();
    let mut tar = Tar::new();
    for n in 0..60_000 {
        tar = tar.file(&format!("many/{n}"), 0o644, b"");
    }
    let (layer, diff_id) = kitchen.content.layer(&tar.file("large", 0o644, &noise).done());
    kitchen.shelve("heavy", vec![layer], vec![diff_id], ContainerConfig::default());

    cancelled(&kitchen, "FROM heavy\nCOPY --from=busybox /bin /bin\n", |event| {
        begins(event, "FROM docker.io/library/heavy")
    });
    cancelled(&kitchen, "FROM busybox\nCOPY large /large\n", |event| begins(event, "load metadata"));
    cancelled(&kitchen, "FROM busybox\nCOPY large /large\n", |event| begins(event, "COPY large"));
    cancelled(&kitchen, "FROM busybox\nCOPY large /other\n", |event| begins(event, "exporting to image"));
    cancelled(&kitchen, "FROM busybox\nCOPY --from=heavy / /all\n", |event| begins(event, "COPY --from"));
    kitchen.forget_snapshots();
    cancelled(&kitchen, "FROM busybox\nRUN sleep 100\n", |event| begins(event, "RUN sleep"));
    // And nothing of it is in the way of a build that is let finish.
    kitchen.build("FROM busybox\nRUN echo done\n");
}
