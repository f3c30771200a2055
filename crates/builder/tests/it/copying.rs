//! `COPY` and `ADD`: what is taken, where it goes, what it looks like there.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use portolan_builder::Cancel;
use portolan_builder::copy::{CopyError, CopyOpts, Hidden, Plan, SelectOpts};
use portolan_types::Digest;
use portolan_types::ignore::Ignore;

use crate::support::Tar;

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    /// A source tree and a destination with something in it.
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("src");
        for (path, text) in [
            ("a.txt", "a"),
            ("b.txt", "b"),
            ("dir/one", "1"),
            ("dir/sub/two", "2"),
            ("dir/.hidden", "h"),
            ("x[1].md", "m"),
        ] {
            let path = source.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::set_permissions(source.join("dir/sub"), PermissionsExt::from_mode(0o750)).unwrap();
        std::fs::set_permissions(source.join("a.txt"), PermissionsExt::from_mode(0o4711)).unwrap();
        symlink("one", source.join("dir/link")).unwrap();
        symlink("dir", source.join("todir")).unwrap();
        symlink("/a.txt", source.join("absolute")).unwrap();
        symlink("../../../../../../etc/passwd", source.join("escape")).unwrap();
        symlink("nothing", source.join("dangling")).unwrap();
        let dest = dir.path().join("dest");
        std::fs::create_dir_all(dest.join("there")).unwrap();
        std::fs::write(dest.join("file"), "old").unwrap();
        symlink("/there", dest.join("tothere")).unwrap();
        symlink("/etc", dest.join("toetc")).unwrap();
        Case { dir }
    }

    fn source(&self) -> std::path::PathBuf {
        self.dir.path().join("src")
    }

    fn dest(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("dest").join(path)
    }

    fn plan(&self, sources: &[&str]) -> Result<Plan, CopyError> {
        Plan::resolve(
            &self.source(),
            &sources.iter().map(|source| source.to_string()).collect::<Vec<_>>(),
            &SelectOpts::default(),
        )
    }

    fn copy_with(&self, sources: &[&str], dest: &str, opts: &CopyOpts) -> Result<(), CopyError> {
        self.plan(sources)?.apply(&self.dir.path().join("dest"), dest, "/work", opts, &Cancel::new())
    }

    fn copy(&self, sources: &[&str], dest: &str) -> Result<(), CopyError> {
        self.copy_with(sources, dest, &CopyOpts::default())
    }

    /// All files in the destination that were not there from the start, with their text.
    fn found(&self) -> String {
        fn walk(root: &Path, dir: &Path, out: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let metadata = std::fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    walk(root, &path, out);
                } else if metadata.is_symlink() {
                    out.push(format!("{name}->{}", std::fs::read_link(&path).unwrap().display()));
                } else {
                    out.push(format!("{name}={}", std::fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut out = Vec::new();
        let root = self.dir.path().join("dest");
        walk(&root, &root, &mut out);
        out.retain(|line| !["file=old", "tothere->/there", "toetc->/etc"].contains(&line.as_str()));
        out.sort();
        out.join(" ")
    }
}

#[test]
fn where_things_go() {
    let whole_dir = |to: &str| format!("{to}/.hidden=h {to}/link->one {to}/one=1 {to}/sub/two=2");
    let cases: &[(&[&str], &str, &str)] = &[
        (&["a.txt"], "/new", "new=a"),
        (&["a.txt"], "/new/", "new/a.txt=a"),
        (&["a.txt"], "new", "work/new=a"),
        (&["a.txt"], ".", "work/a.txt=a"),
        (&["a.txt"], "./", "work/a.txt=a"),
        (&["a.txt"], "/there", "there/a.txt=a"),
        (&["a.txt"], "/p/q/r", "p/q/r=a"),
        (&["a.txt"], "/file", "file=a"),
        (&["a.txt"], "/tothere", "there/a.txt=a"),
        (&["a.txt"], "/tothere/x/", "there/x/a.txt=a"),
        (&["a.txt"], "/../../new", "new=a"),
        (&["/a.txt"], "/new", "new=a"),
        (&["../../a.txt"], "/new", "new=a"),
        (&["a.txt", "b.txt"], "/d/", "d/a.txt=a d/b.txt=b"),
        (&["*.txt"], "/d/", "d/a.txt=a d/b.txt=b"),
        (&["*.txt"], "/there", "there/a.txt=a there/b.txt=b"),
        (&["[ab].txt"], "/d/", "d/a.txt=a d/b.txt=b"),
        (&["?.txt", "dir/one"], "/d/", "d/a.txt=a d/b.txt=b d/one=1"),
        (&["d*/one"], "/d/", "d/one=1"),
        (&["**/one"], "/d/", "d/one=1"),
        (&["dir/**/*"], "/d/", "d/two=2"),
        (&["x[[]1].md"], "/d/", "d/x[1].md=m"),
        (&["a.txt", "missing*"], "/d/", "d/a.txt=a"),
        (&["dir/sub"], "/new", "new/two=2"),
        (&["dir/sub/"], "/there", "there/two=2"),
        (&["dir/sub", "a.txt"], "/d/", "d/a.txt=a d/two=2"),
        (&["todir/sub"], "/d", "d/two=2"),
        (&["absolute"], "/d/", "d/absolute=a"),
        (&["dir/link"], "/new", "new=1"),
    ];
    for (sources, dest, expected) in cases {
        let case = Case::new();
        case.copy(sources, dest).unwrap_or_else(|error| panic!("{sources:?} {dest}: {error}"));
        let mut expected: Vec<_> = expected.split(' ').collect();
        expected.sort();
        assert_eq!(case.found(), expected.join(" "), "{sources:?} {dest}");
    }
    for (sources, to) in [(["dir"], "/new"), (["todir"], "/new"), (["dir/"], "/new/")] {
        let case = Case::new();
        case.copy(&sources, to).unwrap();
        assert_eq!(case.found(), whole_dir("new"));
    }
    let case = Case::new();
    std::fs::remove_file(case.source().join("escape")).unwrap();
    case.copy(&["."], "/").unwrap();
    assert!(
        case.found().contains("dir/sub/two=2")
            && case.found().contains("dangling->nothing")
            && case.found().contains("todir->dir")
    );
}

#[test]
fn what_cannot_be_copied() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&["missing"], "/d", "\"/missing\": not found"),
        (&["a.txt", "missing"], "/d/", "\"/missing\": not found"),
        (&["missing*"], "/d", "no source files"),
        (&["dangling"], "/d", "not found"),
        (&["a.txt/x"], "/d", "not found"),
        (&["[a"], "/d/", "syntax error in pattern [a"),
        (&["*.txt"], "/file", "must be a directory"),
        (&["dir"], "/file", "cannot copy to non-directory: /file"),
        (&["a.txt"], "/file/", "cannot copy to non-directory: /file"),
        (&["a.txt"], "/file/x", "cannot copy to non-directory"),
    ];
    for (sources, dest, expected) in cases {
        let case = Case::new();
        match case.copy(sources, dest) {
            Err(error @ (CopyError::User(_) | CopyError::Missing { .. })) => {
                assert!(error.to_string().contains(expected), "{sources:?} {dest}: {error}");
            }
            other => panic!("{sources:?} {dest}: {other:?}"),
        }
    }
    let case = Case::new();
    std::fs::create_dir_all(case.dest("there/a.txt")).unwrap();
    assert!(case.copy(&["a.txt"], "/there").unwrap_err().to_string().contains("cannot replace directory /there/a.txt"));
    std::fs::write(case.dest("there/sub"), "").unwrap();
    assert!(case.copy(&["dir"], "/there").unwrap_err().to_string().contains("non-directory: /there/sub"));
}

#[test]
fn nothing_escapes_from_either_side() {
    let case = Case::new();
    // The host's /etc is not what the link in the image means.
    case.copy(&["a.txt"], "/toetc/portolan-test/").unwrap();
    assert!(case.dest("etc/portolan-test/a.txt").exists() && !Path::new("/etc/portolan-test").exists());
    // Nor is the host's file what the link in the context means.
    assert!(case.copy(&["escape"], "/x").unwrap_err().to_string().contains("not found"));
    std::fs::create_dir(case.source().join("etc")).unwrap();
    std::fs::write(case.source().join("etc/passwd"), "of the context").unwrap();
    case.copy(&["escape"], "/x").unwrap();
    assert_eq!(std::fs::read_to_string(case.dest("x")).unwrap(), "of the context");
}

#[test]
fn owners_modes_and_times() {
    let case = Case::new();
    let look = |path: &str| {
        let metadata = std::fs::symlink_metadata(case.dest(path)).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
    };
    std::os::unix::fs::chown(case.source().join("dir/one"), Some(7), Some(8)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    std::fs::File::open(case.source().join("dir/sub")).unwrap().set_modified(time).unwrap();
    std::fs::File::open(case.source().join("a.txt")).unwrap().set_modified(time).unwrap();
    case.copy(&["dir", "a.txt"], "/p/d/").unwrap();
    assert_eq!(
        (look("p"), look("p/d"), look("p/d/sub"), look("p/d/one")),
        ((0, 0, 0o755), (0, 0, 0o755), (0, 0, 0o750), (0, 0, 0o644))
    );
    assert_eq!(look("p/d/a.txt"), (0, 0, 0o4711));
    for path in ["p/d/sub", "p/d/a.txt"] {
        assert_eq!(std::fs::metadata(case.dest(path)).unwrap().modified().unwrap(), time, "{path}");
    }
    let opts = CopyOpts { chown: Some((1000, 1001)), chmod: Some(0o640.into()), ..CopyOpts::default() };
    case.copy_with(&["dir"], "/q/d", &opts).unwrap();
    assert_eq!(
        (look("q"), look("q/d"), look("q/d/sub"), look("q/d/one")),
        ((1000, 1001, 0o755), (1000, 1001, 0o755), (1000, 1001, 0o640), (1000, 1001, 0o640))
    );
    assert_eq!(look("q/d/link"), (1000, 1001, 0o777));
    case.copy_with(&["dir"], "/k", &CopyOpts { keep_owner: true, ..CopyOpts::default() }).unwrap();
    assert_eq!(look("k/one"), (7, 8, 0o644));
    // What was there before stays, with its own looks, when something is copied beside it.
    std::fs::set_permissions(case.dest("there"), PermissionsExt::from_mode(0o711)).unwrap();
    case.copy_with(&["a.txt"], "/there/", &opts).unwrap();
    assert_eq!((look("there"), look("there/a.txt")), ((0, 0, 0o711), (1000, 1001, 0o640)));
}

#[test]
fn special_files_hard_links_and_attributes() {
    let case = Case::new();
    std::fs::hard_link(case.source().join("dir/one"), case.source().join("dir/same")).unwrap();
    xattr::set(case.source().join("dir/one"), "user.note", b"n").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, case.source().join("dir/fifo"), rustix::fs::FileType::Fifo, 0o620.into(), 0)
        .unwrap();
    std::fs::set_permissions(case.source().join("dir/fifo"), PermissionsExt::from_mode(0o620)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(case.source().join("dir/socket")).unwrap();
    let large: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    std::fs::write(case.source().join("dir/large"), &large).unwrap();
    case.copy(&["dir"], "/d").unwrap();
    assert_eq!(
        std::fs::metadata(case.dest("d/one")).unwrap().ino(),
        std::fs::metadata(case.dest("d/same")).unwrap().ino()
    );
    assert_eq!(xattr::get(case.dest("d/one"), "user.note").unwrap().as_deref(), Some(&b"n"[..]));
    assert!(std::fs::read(case.dest("d/large")).unwrap() == large);
    let fifo = std::fs::symlink_metadata(case.dest("d/fifo")).unwrap();
    assert_eq!(fifo.mode(), 0o010620);
    assert!(!case.dest("d/socket").exists());
}

#[test]
fn hidden_files_are_not_there() {
    let case = Case::new();
    let plan = |hidden: &(dyn Fn(&str) -> bool + Sync), has_exceptions: bool, sources: &[&str]| {
        let opts = SelectOpts { hidden: Some(Hidden { is: hidden, has_exceptions }), ..SelectOpts::default() };
        Plan::resolve(&case.source(), &sources.iter().map(|source| source.to_string()).collect::<Vec<_>>(), &opts)
    };
    let copied = |plan: Plan| {
        let _ = std::fs::remove_dir_all(case.dest("d"));
        plan.apply(&case.dir.path().join("dest"), "/d/", "/", &CopyOpts::default(), &Cancel::new()).unwrap();
        case.found()
    };
    let no_txt = |path: &str| path.ends_with(".txt");
    assert!(plan(&no_txt, false, &["a.txt"]).unwrap_err().to_string().contains("not found"));
    assert!(plan(&no_txt, false, &["*.txt"]).unwrap_err().to_string().contains("no source files"));
    assert!(plan(&no_txt, false, &["absolute"]).is_err(), "a link to a hidden file");
    let no_dir = |path: &str| path == "dir" || path.starts_with("dir/");
    assert!(plan(&no_dir, false, &["dir"]).is_err());
    let but_two = |path: &str| no_dir(path) && path != "dir/sub/two";
    assert_eq!(copied(plan(&but_two, true, &["dir"]).unwrap()), "d/sub/two=2");
    let all_but_two = |path: &str| path != "dir/sub/two";
    assert_eq!(copied(plan(&all_but_two, true, &["."]).unwrap()), "d/dir/sub/two=2");
}

#[test]
fn the_checksum_is_of_what_matters() {
    let case = Case::new();
    let digest = |sources: &[&str]| case.plan(sources).unwrap().digest(&Cancel::new()).unwrap();
    let all = || digest(&["a.txt", "dir"]);
    let first = all();
    assert_eq!(first, all());
    std::fs::File::open(case.source().join("a.txt")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    std::fs::write(case.source().join("b.txt"), "not copied").unwrap();
    assert_eq!(first, all());
    // A directory stands for its contents, a file for its name too.
    std::fs::rename(case.source().join("dir"), case.source().join("renamed")).unwrap();
    assert_eq!(first, digest(&["a.txt", "renamed"]));
    std::fs::rename(case.source().join("renamed"), case.source().join("dir")).unwrap();
    let mut seen: Vec<Digest> = vec![first];
    let mut differs = |change: &dyn Fn()| {
        change();
        let now = all();
        assert!(!seen.contains(&now));
        seen.push(now);
    };
    differs(&|| std::fs::write(case.source().join("dir/sub/two"), "3").unwrap());
    differs(&|| std::fs::set_permissions(case.source().join("dir/one"), PermissionsExt::from_mode(0o600)).unwrap());
    differs(&|| std::fs::rename(case.source().join("dir/one"), case.source().join("dir/eins")).unwrap());
    differs(&|| symlink("y", case.source().join("dir/x")).unwrap());
    differs(&|| std::fs::create_dir(case.source().join("dir/empty")).unwrap());
    differs(&|| xattr::set(case.source().join("a.txt"), "user.x", b"y").unwrap());
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(matches!(case.plan(&["dir"]).unwrap().digest(&cancel), Err(CopyError::Cancelled)));
}

#[test]
fn archives_are_unpacked_by_add_alone() {
    let case = Case::new();
    let tar = Tar::new().dir("in/", 0o755).file("in/f", 0o640, b"packed").symlink("in/l", "f").done();
    let gzip = {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        gzip.finish().unwrap()
    };
    let bzip2 = {
        let mut out = Vec::new();
        std::io::Read::read_to_end(&mut bzip2::read::BzEncoder::new(&tar[..], bzip2::Compression::fast()), &mut out)
            .unwrap();
        out
    };
    let xz = {
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        std::io::Write::write_all(&mut xz, &tar).unwrap();
        xz.finish().unwrap()
    };
    let add = CopyOpts { unpack: true, ..CopyOpts::default() };
    for (name, bytes) in [
        ("x.tar", tar.clone()),
        ("x.tgz", gzip),
        ("x.bin", zstd::encode_all(&tar[..], 1).unwrap()),
        ("x.bz2", bzip2),
        ("x.xz", xz),
    ] {
        std::fs::write(case.source().join(name), bytes).unwrap();
        case.copy_with(&[name], "/out", &add).unwrap();
        assert_eq!(case.found(), "out/in/f=packed out/in/l->f", "{name}");
        std::fs::remove_dir_all(case.dest("out")).unwrap();
    }
    case.copy(&["x.tar"], "/there/").unwrap();
    assert!(case.dest("there/x.tar").is_file());
    case.copy_with(&["a.txt"], "/there/", &add).unwrap();
    assert!(case.dest("there/a.txt").is_file());
    case.copy_with(&["x.tar"], "/owned", &CopyOpts { chown: Some((3, 4)), ..add.clone() }).unwrap();
    assert_eq!(std::fs::metadata(case.dest("owned/in/f")).unwrap().uid(), 3);
    // A link in the image does not lead the archive's files to the host.
    std::fs::write(
        case.source().join("evil.tar"),
        Tar::new().symlink("l", "/tmp").file("l/portolan-evil", 0o644, b"x").done(),
    )
    .unwrap();
    case.copy_with(&["evil.tar"], "/toetc/", &add).unwrap();
    assert!(!Path::new("/tmp/portolan-evil").exists());
    // What only looks compressed is a file like any other.
    std::fs::write(case.source().join("no.xz"), [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4, 1, 2]).unwrap();
    case.copy_with(&["no.xz"], "/there/", &add).unwrap();
    assert!(case.dest("there/no.xz").is_file());
}

/// Where the time of a large `COPY` goes. Run with `--ignored --nocapture` on an idle machine.
#[test]
#[ignore = "prints times, asserts nothing"]
fn time_of_twenty_thousand_files() {
    let lab = crate::support::Lab::new();
    let source = lab.dir.path().join("many");
    for n in 0..20_000u32 {
        let path = source.join(format!("{}/{}/{n}", n % 10, n % 100));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text: Vec<u8> = (0..2_500u32).flat_map(|i| (i.wrapping_mul(n) % 1_000).to_le_bytes()).collect();
        std::fs::write(path, text).unwrap();
    }
    let mut at = std::time::Instant::now();
    let mut lap = |what: &str| {
        println!("{what}: {:?}", at.elapsed());
        at = std::time::Instant::now();
    };
    let plan = Plan::resolve(&source, &[".".to_owned()], &SelectOpts::default()).unwrap();
    lap("resolve");
    plan.digest(&Cancel::new()).unwrap();
    lap("digest");
    let active = lab.begin();
    plan.apply(active.root(), "/many/", "/", &CopyOpts::default(), &Cancel::new()).unwrap();
    lap("apply");
    let chain = active.commit(&crate::support::name("many")).unwrap();
    lap("commit");
    let layer = portolan_builder::diff::write_layer(&chain, &*lab.content, None, &Cancel::new()).unwrap();
    lap("layer");
    println!("{} bytes", layer.blob.size);
}

/// What `--parents` and `--exclude` leave of a tree, or why nothing is left.
fn selected(sources: &[&str], exclude: &[&str], parents: bool) -> String {
    let case = Case::new();
    for path in ["x/a.txt", "x/b.md", "x/y/c.txt", "x/y/.d", "z/a.txt"] {
        let path = case.source().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "-").unwrap();
    }
    std::fs::set_permissions(case.source().join("x"), PermissionsExt::from_mode(0o710)).unwrap();
    let exclude = Ignore::of(exclude.iter().copied()).unwrap();
    let opts = SelectOpts { exclude: (!exclude.is_empty()).then_some(&exclude), parents, ..SelectOpts::default() };
    let sources: Vec<String> = sources.iter().map(|source| source.to_string()).collect();
    let plan = match Plan::resolve(&case.source(), &sources, &opts) {
        Ok(plan) => plan,
        Err(error) => return error.to_string(),
    };
    plan.apply(&case.dir.path().join("dest"), "/out/", "/", &CopyOpts::default(), &Cancel::new()).unwrap();
    if parents && case.dest("out/x").exists() {
        // The way to a file comes along as it is.
        assert_eq!(std::fs::metadata(case.dest("out/x")).unwrap().permissions().mode() & 0o7777, 0o710);
    }
    case.found().replace("out/", "").replace("=-", "")
}

#[test]
fn parents_are_kept() {
    for (sources, expected) in [
        (&["x/a.txt", "z/a.txt"][..], "x/a.txt z/a.txt"),
        (&["./x/./y/c.txt"], "y/c.txt"),
        (&["/x/./y"], "y/.d y/c.txt"),
        (&["x/./*.md"], "b.md"),
        (&["*/a.txt"], "x/a.txt z/a.txt"),
        (&["x/**/*.txt"], "x/a.txt x/y/c.txt"),
        (&["**/a.txt"], "a.txt=a x/a.txt z/a.txt"),
        (&["x/y"], "x/y/.d x/y/c.txt"),
        (&["?/./a.txt"], "a.txt"),
        (&["x/none"], "\"/x/none\": not found"),
        (&["none/./a"], "\"/none/a\": not found"),
        (&["x/*.none"], "no source files were specified: nothing matches x/*.none"),
        // What climbs out of the source stays in it.
        (&["../../x/a.txt"], "x/a.txt"),
        (&["x/./../../z/a.txt"], "\"/z/a.txt\": not found"),
    ] {
        assert_eq!(selected(sources, &[], true), expected, "{sources:?}");
    }
}

#[test]
fn patterns_are_left_out() {
    for (sources, exclude, expected) in [
        (&["x"][..], &["*.txt"][..], "b.md y/.d y/c.txt"),
        (&["x"], &["**/*.txt"], "b.md y/.d"),
        (&["x"], &["y"], "a.txt b.md"),
        (&["x"], &["y", "!y/c.txt"], "a.txt b.md y/c.txt"),
        (&["x"], &["*", "!*.md"], "b.md"),
        (&["x/a.txt", "x/b.md"], &["*.txt"], "b.md"),
        (&["x/*"], &["*.txt"], ".d b.md"),
        (&["."], &["x", "dir", "to*", "*.txt", "x[[]1].md", "a*", "e*", "d*"], "z/a.txt"),
        // Everything left out on purpose is not a mistake.
        (&["x/a.txt"], &["*.txt"], ""),
    ] {
        assert_eq!(selected(sources, exclude, false), expected, "{sources:?} without {exclude:?}");
    }
    assert_eq!(selected(&["x/**/*.txt"], &["x/y"], true), "x/a.txt");
}

#[test]
fn what_is_left_out_is_not_in_the_digest() {
    let case = Case::new();
    let digest = || {
        let exclude = Ignore::of(["*.log"]).unwrap();
        let opts = SelectOpts { exclude: Some(&exclude), ..SelectOpts::default() };
        Plan::resolve(&case.source(), &[".".to_owned()], &opts).unwrap().digest(&Cancel::new()).unwrap()
    };
    let before = digest();
    std::fs::write(case.source().join("noise.log"), "x").unwrap();
    assert_eq!(digest(), before);
    std::fs::write(case.source().join("news.txt"), "x").unwrap();
    assert_ne!(digest(), before);
}

#[test]
fn letters_for_modes() {
    let case = Case::new();
    let opts = CopyOpts { chmod: Some("u=rwX,go=rX".parse().unwrap()), ..CopyOpts::default() };
    std::fs::set_permissions(case.source().join("b.txt"), PermissionsExt::from_mode(0o600)).unwrap();
    case.copy_with(&["dir", "a.txt", "b.txt"], "/m/", &opts).unwrap();
    let mode = |path: &str| std::fs::metadata(case.dest(path)).unwrap().permissions().mode() & 0o7777;
    // What somebody may run everybody may run; set-user-id goes with the `=`.
    assert_eq!(mode("m/a.txt"), 0o755);
    assert_eq!(mode("m/b.txt"), 0o644);
    assert_eq!(mode("m/sub"), 0o755);
}
