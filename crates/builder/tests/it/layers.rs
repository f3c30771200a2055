//! Layers out of what steps did, and back onto disk.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use portolan_builder::Cancel;
use portolan_builder::diff::write_layer;
use portolan_builder::snapshot::{Chain, Store};
use portolan_types::Digest;
use portolan_types::oci::Descriptor;

use crate::support::{Lab, MemoryContent, Tar, busybox_tar, name, step};

/// What a whole tree looks like: every path with everything that a layer should carry.
fn listing(lab: &Lab, chain: &Chain) -> String {
    let active = lab.store.begin_for_step(chain).unwrap();
    let script = "find / -xdev -mindepth 1 ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path '/etc/hosts' ! -path '/etc/resolv.conf' \
                  ! -path '/bin/*' | sort | while read f; do stat -c '%n %f %u %g %s %t %T %h %Y' \"$f\" | sed 's/\\(\\/.* 4.*\\) .* 0 0 .*/\\1/'; \
                  test -L \"$f\" && readlink \"$f\"; test -f \"$f\" && head -c 50 \"$f\"; done";
    let (exit, output) = lab.run(&step(active.root(), script), &Cancel::new());
    assert_eq!(exit.unwrap().code, 0, "{output}");
    output
}

/// Unpack the same layers in a store of their own.
fn unpack_elsewhere(lab: &Lab, layers: &[(Descriptor, Digest)]) -> (tempfile::TempDir, Store, Chain) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), lab.content.clone()).unwrap();
    if let Some(ids) = &lab.config.userns {
        store.serve_steps(ids.clone()).unwrap();
    }
    let (descriptors, diff_ids): (Vec<_>, Vec<_>) = layers.iter().cloned().unzip();
    let chain = store.base(&descriptors, &diff_ids, &Cancel::new()).unwrap();
    (dir, store, chain)
}

#[test]
fn what_steps_do_survives_the_way_through_layers() {
    // In a user namespace nobody makes devices.
    through_layers(true, "mkfifo /null");
    through_layers(false, "mknod /null c 1 3");
}

fn through_layers(userns: bool, special: &str) {
    let lab = Lab::with(userns);
    let (base, base_id) = lab.content.layer(&busybox_tar());
    let mut layers = vec![(base, base_id)];
    let mut chain = lab.base.clone();
    for script in [
        "mkdir -p /a/b/c && echo one > /a/b/c/one && echo two > /a/two && ln -s b/c /a/link && ln -s /nowhere /a/dangling && mkfifo /a/fifo",
        &format!(
            "{special} && echo x > /h1 && ln /h1 /h2 && ln /h1 /a/h3 && chmod 4755 /h1 && mkdir -m 1777 /sticky && chown 5:6 /a/two"
        ),
        "rm /a/two && rm -r /a/b && mkdir /a/b && echo new > /a/b/new",
        "rm -r /home && echo file > /home && mv /a/link /moved && touch -d '2001-02-03 04:05:06' /a/b/new",
        "chmod 700 /a && ln /h2 /h4 && : > /empty && head -c 3000000 /dev/urandom > /noise && cp /bin/busybox /copy",
        "rm /home && mkdir -p /home/app && cd / && i=0; n=$(printf 'x%.0s' $(seq 1 120)); mkdir -p /$n/$n && echo deep > /$n/$n/f",
    ] {
        let (next, layer) = lab.layer(&chain, script);
        assert!(!layer.empty);
        layers.push((layer.blob, layer.diff_id));
        chain = next;
    }
    let expected = listing(&lab, &chain);
    assert!(expected.contains("/a/b/new") && !expected.contains("/a/b/c") && expected.contains("deep"), "{expected}");

    let (_dir, store, unpacked) = unpack_elsewhere(&lab, &layers);
    let elsewhere = Lab { store, ..Lab::with(userns) };
    assert_eq!(listing(&elsewhere, &unpacked), expected);
}

#[test]
fn a_layer_has_what_changed_and_nothing_else() {
    let lab = Lab::new();
    let (chain, layer) = lab.layer(&lab.base, "cat /etc/resolv.conf /etc/hosts > /dev/null; touch /tmp; true");
    // `touch` changed /tmp's time, so that is there.
    assert_eq!(lab.entries(&layer), ["Directory 1777 tmp/"]);
    let (chain, layer) = lab.layer(&chain, "ls / > /dev/null");
    assert!(layer.empty);
    assert_eq!(lab.entries(&layer), [""; 0]);
    let (chain, layer) = lab.layer(
        &chain,
        "mkdir -p /opt/app && echo a > /opt/app/a && ln /opt/app/a /opt/b && rm /etc/group && ln -s a /opt/app/l",
    );
    assert_eq!(
        lab.entries(&layer),
        [
            "Directory 755 etc/",
            "Regular 0 etc/.wh.group",
            "Directory 755 opt/",
            "Directory 755 opt/app/",
            "Regular 644 opt/app/a",
            "Symlink 777 opt/app/l -> a",
            "Link 644 opt/b -> opt/app/a",
        ]
    );
    let (_, layer) =
        lab.layer(&chain, "rm -r /opt/app && mkdir /opt/app && echo b > /opt/app/b && chmod 600 /etc/passwd");
    assert_eq!(
        lab.entries(&layer),
        [
            "Directory 755 etc/",
            "Regular 600 etc/passwd",
            "Directory 755 opt/",
            "Directory 755 opt/app/",
            "Regular 0 opt/app/.wh..wh..opq",
            "Regular 644 opt/app/b",
        ]
    );
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let lab = Lab::new();
    let (chain, first) = lab.layer(&lab.base, "for i in $(seq 1 50); do head -c 100000 /dev/urandom > /tmp/$i; done");
    let again = write_layer(&chain, &*lab.content, None, &Cancel::new()).unwrap();
    assert_eq!(first, again);
    let clamped = write_layer(&chain, &*lab.content, Some(1_000), &Cancel::new()).unwrap();
    assert_ne!(first.diff_id, clamped.diff_id);
    let cancelled = Cancel::new();
    cancelled.cancel();
    assert!(Cancel::is_cause_of(&write_layer(&chain, &*lab.content, None, &cancelled).unwrap_err()));
}

#[test]
fn attributes_travel_and_overlays_own_do_not() {
    let lab = Lab::new();
    let active = lab.store.begin(&lab.base).unwrap();
    let program = active.root().join("bin/tool");
    std::fs::write(&program, "x").unwrap();
    // CAP_NET_RAW, permitted and effective, as `setcap` writes it.
    let capability = [1u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(&program, "security.capability", &capability).unwrap();
    xattr::set(&program, "user.note", b"a\nb=c\0").unwrap();
    xattr::set(&program, "trusted.private", b"no").unwrap();
    let chain = active.commit(&name("attributes")).unwrap();
    let layer = write_layer(&chain, &*lab.content, None, &Cancel::new()).unwrap();
    let (base, base_id) = lab.content.layer(&busybox_tar());
    let (_dir, store, unpacked) = unpack_elsewhere(&lab, &[(base, base_id), (layer.blob, layer.diff_id)]);
    let active = store.begin(&unpacked).unwrap();
    let program = active.root().join("bin/tool");
    assert_eq!(xattr::get(&program, "security.capability").unwrap().as_deref(), Some(&capability[..]));
    assert_eq!(xattr::get(&program, "user.note").unwrap().as_deref(), Some(&b"a\nb=c\0"[..]));
    assert_eq!(xattr::get(&program, "trusted.private").unwrap(), None);
}

#[test]
fn capabilities_of_files_mean_the_same_in_a_step_and_in_a_layer() {
    let lab = Lab::new();
    // A base layer with a program that has one: root's, of no namespace.
    let active = lab.store.begin(&lab.base).unwrap();
    let tool = active.root().join("root/busybox");
    std::fs::copy("/bin/busybox", &tool).unwrap();
    std::fs::set_permissions(active.root().join("root"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let capability = [1u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(&tool, "security.capability", &capability).unwrap();
    let chain = active.commit(&name("with a capability")).unwrap();
    let mut config = lab.config.clone();
    config.new_privileges = true;
    let lab = Lab { config, ..lab };
    let active = lab.store.begin_for_step(&chain).unwrap();
    let mut spec = step(active.root(), "");
    spec.argv = ["/root/busybox", "grep", "CapEff", "/proc/self/status"].map(str::to_owned).to_vec();
    spec.user = portolan_builder::user::User { uid: 1000, gid: 1001, groups: Vec::new(), home: "/".to_owned() };
    let (exit, output) = lab.run(&spec, &Cancel::new());
    assert_eq!((exit.unwrap().code, output.as_str()), (0, "CapEff:\t0000000000002000\n"), "it counts in the step");
    // Copied up by the step, it is in the layer as it was, for whoever runs the image.
    spec.user = portolan_builder::user::User::root();
    spec.argv = ["/bin/sh", "-c", "chmod 750 /root/busybox"].map(str::to_owned).to_vec();
    assert_eq!(lab.run(&spec, &Cancel::new()).0.unwrap().code, 0);
    let next = active.commit(&name("copied up")).unwrap();
    let layer = write_layer(&next, &*lab.content, None, &Cancel::new()).unwrap();
    let (_dir, store, unpacked) =
        unpack_elsewhere(&lab, &[lab.content.layer(&busybox_tar()), (layer.blob, layer.diff_id)]);
    let active = store.begin(&unpacked).unwrap();
    let kept = xattr::get(active.root().join("root/busybox"), "security.capability").unwrap();
    assert_eq!(kept.as_deref(), Some(&capability[..]));
}

#[test]
fn a_hundred_layers_stack() {
    let lab = Lab::new();
    let mut chain = lab.base.clone();
    for n in 0..100 {
        let active = lab.store.begin(&chain).unwrap();
        std::fs::write(active.root().join(format!("tmp/{n}")), "x").unwrap();
        std::fs::write(active.root().join("etc/last"), n.to_string()).unwrap();
        chain = active.commit(&name(&format!("stack {n}"))).unwrap();
    }
    assert_eq!(chain.len(), 101);
    let active = lab.store.begin(&chain).unwrap();
    let (exit, output) = lab.run(&step(active.root(), "ls /tmp | wc -l; cat /etc/last"), &Cancel::new());
    assert_eq!((exit.unwrap().code, output.as_str()), (0, "100\n99"));
    let layer = write_layer(&chain, &*lab.content, None, &Cancel::new()).unwrap();
    assert_eq!(
        lab.entries(&layer),
        ["Directory 755 etc/", "Regular 644 etc/last", "Directory 1777 tmp/", "Regular 644 tmp/99"]
    );
}

#[test]
fn other_peoples_layers_are_understood() {
    let lab = Lab::new();
    // What the lower layers must be consulted for: a parent left out, a link to a lower
    // file, a path through a lower link, a whiteout beside its own replacement.
    let lower = Tar::new()
        .dir("etc/", 0o700)
        .file("etc/a", 0o644, b"a")
        .file("etc/b", 0o644, b"b")
        .dir("usr/", 0o755)
        .dir("usr/lib/", 0o755)
        .symlink("lib", "usr/lib")
        .dir("gone/", 0o755)
        .file("gone/x", 0o644, b"x")
        .dir("kept/", 0o755)
        .file("kept/old", 0o644, b"old")
        .done();
    let upper = Tar::new()
        .file("etc/new", 0o644, b"new")
        .file("etc/.wh.b", 0o0, b"")
        .hard_link("etc/hard", "etc/a")
        .file("lib/so", 0o755, b"so")
        .file(".wh.gone", 0o0, b"")
        .dir("kept/", 0o750)
        .file("kept/mine", 0o644, b"mine")
        .file("kept/.wh..wh..opq", 0o0, b"")
        .done();
    let layers = [lab.content.layer(&lower), lab.content.layer(&upper)];
    let (_dir, store, chain) = unpack_elsewhere(&lab, &layers);
    let active = store.begin(&chain).unwrap();
    let root = active.root();
    let names = |dir: &str| {
        let mut names: Vec<_> = std::fs::read_dir(root.join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["etc", "kept", "lib", "usr"]);
    assert_eq!(names("etc"), ["a", "hard", "new"]);
    assert_eq!(std::fs::metadata(root.join("etc")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(std::fs::read(root.join("etc/hard")).unwrap(), b"a");
    assert_eq!(std::fs::read(root.join("usr/lib/so")).unwrap(), b"so");
    assert!(std::fs::symlink_metadata(root.join("lib")).unwrap().is_symlink());
    assert_eq!(names("kept"), ["mine"]);

    // The root looks as the uppermost layer that mentions it says.
    let layers = [Tar::new().dir("./", 0o711).file("a", 0o644, b"").done(), Tar::new().file("b", 0o644, b"").done()];
    let (_dir, store, chain) = unpack_elsewhere(&lab, &layers.map(|tar| lab.content.layer(&tar)));
    let active = store.begin(&chain).unwrap();
    assert_eq!(std::fs::metadata(active.root()).unwrap().mode() & 0o7777, 0o711);

    // The same, standing alone: whiteouts become overlayfs's own.
    let upper = Tar::new()
        .dir("etc/", 0o755)
        .file("etc/.wh.a", 0, b"")
        .file(".wh.gone", 0, b"")
        .dir("gone/", 0o755)
        .file("gone/y", 0o644, b"y")
        .dir("kept/", 0o755)
        .file("kept/.wh..wh..opq", 0, b"")
        .file("kept/new", 0o644, b"")
        .done();
    let layers = [lab.content.layer(&lower), lab.content.layer(&upper)];
    let (_dir, store, chain) = unpack_elsewhere(&lab, &layers);
    let active = store.begin(&chain).unwrap();
    let names = |dir: &str| {
        let mut names: Vec<_> = std::fs::read_dir(active.root().join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        (names("etc"), names("gone"), names("kept")),
        (vec!["b".to_owned()], vec!["y".to_owned()], vec!["new".to_owned()])
    );
}

#[test]
fn hostile_and_wrong_layers_are_refused_and_leave_nothing() {
    let lab = Lab::new();
    let canary = lab.dir.path().join("canary");
    std::fs::write(&canary, "untouched").unwrap();
    let up = format!("{}{}", "../".repeat(20), canary.strip_prefix("/").unwrap().display());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), lab.content.clone()).unwrap();
    let refused = |tar: Vec<u8>, reason: &str| {
        let (layer, diff_id) = lab.content.layer(&tar);
        let error = store.base(&[layer], &[diff_id], &Cancel::new()).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "untouched");
        assert_eq!(std::fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(dir.path().join("names")).unwrap().count(), 0);
    };
    refused(Tar::new().raw(tar::EntryType::Regular, b"a/../../b", b"", b"x").done(), "\"..\"");
    refused(
        Tar::new()
            .raw(tar::EntryType::Regular, b"a", b"", b"x")
            .raw(tar::EntryType::Link, b"b", b"../../c", b"")
            .done(),
        "outside",
    );
    refused(Tar::new().file("a", 0o644, b"x").hard_link("b", "missing").done(), "hard link");
    refused(Tar::new().raw(tar::EntryType::Char, b"white", b"", b"").done(), "device 0:0");
    let mut cut = busybox_tar();
    cut.truncate(100_000);
    refused(cut, "middle of an entry");

    // Links stay inside: what goes through them lands in the layer.
    let tar = Tar::new()
        .dir("root/", 0o755)
        .symlink("root/abs", "/")
        .symlink("root/up", &up)
        .file("root/abs/inside", 0o644, b"x")
        .raw(tar::EntryType::Regular, b"root/up", b"", b"replaced")
        .raw(tar::EntryType::Regular, b"/absolute", b"", b"x")
        .done();
    let (layer, diff_id) = lab.content.layer(&tar);
    let chain = store.base(std::slice::from_ref(&layer), &[diff_id], &Cancel::new()).unwrap();
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "untouched");
    let active = store.begin(&chain).unwrap();
    assert!(active.root().join("inside").exists() && active.root().join("absolute").exists());

    let error = store.base(std::slice::from_ref(&layer), &[Digest::of(b"other")], &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("configuration says"), "{error}");
    let error = store.base(&[layer], &[], &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("1 layers"), "{error}");
    let cancel = Cancel::new();
    cancel.cancel();
    let (layer, diff_id) = lab.content.layer(&busybox_tar());
    assert!(Cancel::is_cause_of(&store.base(&[layer], &[diff_id], &cancel).unwrap_err()));
}

#[test]
fn zstd_and_plain_layers_unpack() {
    let lab = Lab::new();
    let tar = Tar::new().dir("d/", 0o755).file("d/f", 0o644, &[7; 100_000]).done();
    for blob in [tar.clone(), zstd::encode_all(&tar[..], 3).unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), lab.content.clone()).unwrap();
        let digest = Digest::of(&blob);
        let layer = Descriptor::new("whatever it says", digest, blob.len() as u64);
        lab.content.blobs.lock().unwrap().insert(digest, blob.clone());
        let chain = store.base(std::slice::from_ref(&layer), &[Digest::of(&tar)], &Cancel::new()).unwrap();
        assert_eq!(std::fs::read(store.begin(&chain).unwrap().root().join("d/f")).unwrap(), [7; 100_000]);
        // Damage is told as such.
        let mut damaged = blob;
        let middle = damaged.len() / 2;
        damaged.truncate(middle);
        let digest = Digest::of(&damaged);
        lab.content.blobs.lock().unwrap().insert(digest, damaged);
        let layer = Descriptor { digest, ..layer };
        assert!(store.base(&[layer], &[Digest::of(b"x")], &Cancel::new()).is_err());
    }
}

#[test]
fn a_snapshot_that_cannot_be_kept_leaves_nothing() {
    let lab = Lab::new();
    let snapshots = lab.dir.path().join("snapshots");
    let count = |sub: &str| std::fs::read_dir(snapshots.join(sub)).unwrap().count();
    let before = count("layers");
    let active = lab.begin();
    let (exit, output) = lab.run(&step(active.root(), "head -c 1000000 /dev/zero > /big"), &Cancel::new());
    assert_eq!(exit.unwrap().code, 0, "{output}");
    // Whatever keeps the name from being written, as a full disk does.
    let taken = snapshots.join("names").join(name("kept").to_string().replacen(':', "-", 1));
    std::fs::create_dir(&taken).unwrap();
    assert!(active.commit(&name("kept")).is_err());
    assert_eq!((count("layers"), count("work")), (before, 0), "what the step wrote is still there");
    std::fs::remove_dir(taken).unwrap();
    lab.begin().commit(&name("kept")).unwrap();
}

#[test]
fn snapshots_are_found_again_swept_and_evicted() {
    let content = Arc::new(MemoryContent::default());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), content.clone()).unwrap();
    let taken = Store::open(dir.path(), content.clone()).err().unwrap();
    assert!(taken.to_string().contains("in use"), "{taken}");

    let write = |chain: &Chain, text: &str, as_name: &str| {
        let active = store.begin(chain).unwrap();
        std::fs::write(active.root().join(text), vec![b'x'; 100_000]).unwrap();
        active.commit(&name(as_name)).unwrap()
    };
    let one = write(&Chain::empty(), "one", "one");
    let two = write(&one, "two", "two");
    // The first of two with one name stays.
    let twice = write(&one, "other", "two");
    assert!(store.begin(&twice).unwrap().root().join("two").exists());
    let abandoned = store.begin(&two).unwrap();
    std::fs::write(abandoned.root().join("x"), "x").unwrap();
    drop(abandoned);
    assert_eq!(std::fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
    drop((one, two, twice, store));

    // What a killed process leaves.
    std::fs::create_dir_all(dir.path().join("work/99/fs")).unwrap();
    std::fs::create_dir_all(dir.path().join("layers/98")).unwrap();
    std::fs::write(dir.path().join("names/sha256-nonsense"), "{").unwrap();
    let store = Store::open(dir.path(), content.clone()).unwrap();
    assert!(!dir.path().join("work/99").exists() && !dir.path().join("layers/98").exists());
    assert_eq!(std::fs::read_dir(dir.path().join("names")).unwrap().count(), 2);
    let two = store.find(&name("two")).unwrap();
    assert_eq!(two.len(), 2);
    assert!(store.find(&name("three")).is_none());

    // Held layers stay; the others go, the oldest first.
    assert!(store.evict(0).unwrap() >= 200_000);
    drop(two);
    let left = store.evict(150_000).unwrap();
    assert!(left <= 150_000, "{left}");
    assert!(
        store.find(&name("one")).is_some() != store.find(&name("two")).is_some() || store.find(&name("two")).is_none()
    );
    assert!(store.evict(0).unwrap() < 100_000);
    assert!(store.find(&name("one")).is_none() && store.find(&name("two")).is_none());
    drop(store);

    // Another boot of the machine: nothing on disk can be trusted to be whole.
    let store = Store::open(dir.path(), content.clone()).unwrap();
    let active = store.begin(&Chain::empty()).unwrap();
    active.commit(&name("one")).unwrap();
    drop(store);
    std::fs::write(dir.path().join("boot"), "another").unwrap();
    assert!(Store::open(dir.path(), content).unwrap().find(&name("one")).is_none());
}
