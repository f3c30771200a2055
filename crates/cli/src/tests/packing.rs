//! Folders packed as docker would pack them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use expect_test::{Expect, expect};

use crate::args::Global;
use crate::context::Pack;
use crate::context::progress::Progress;
use crate::talk::Talk;

const UNIQUE: &str = "0123456789abcdef0123456789abcdef";

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn pack(root: &Path, dockerfile: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    let progress = Progress::files(&Talk::new(&Global { only_show_errors: true, ..Global::default() }), "");
    Pack::new(root, dockerfile, UNIQUE).unwrap().write(&mut out, &progress).unwrap();
    out
}

/// One line for each entry: kind, mode, path, and a link's target or a file's size.
fn listing(packed: &[u8]) -> String {
    let mut archive = tar::Archive::new(zstd::Decoder::new(packed).unwrap());
    let mut out = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        let path = entry.path().unwrap().display().to_string().replace(UNIQUE, "<unique>");
        let kind = header.entry_type();
        let what = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", entry.link_name().unwrap().unwrap().display())
        } else {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            format!("{} bytes", bytes.len())
        };
        out.push_str(&format!("{path} {what}\n"));
    }
    out
}

fn check(root: &Path, dockerfile: Option<&str>, expected: Expect) {
    expected.assert_eq(&listing(&pack(root, dockerfile)));
}

#[test]
fn everything_goes_in_the_order_of_names() {
    let dir = tree(&[
        ("Dockerfile", "FROM x\n"),
        ("b/z", "1"),
        ("b/a", "22"),
        ("a-b", ""),
        (".git/HEAD", "ref"),
        (".env", ""),
    ]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    symlink("../outside", dir.path().join("link")).unwrap();
    check(
        dir.path(),
        None,
        expect![[r#"
        <unique>_Dockerfile 7 bytes
        .env 0 bytes
        .git dir
        .git/HEAD 3 bytes
        Dockerfile 7 bytes
        a-b 0 bytes
        b dir
        b/a 2 bytes
        b/z 1 bytes
        empty dir
        link -> ../outside
    "#]],
    );
}

#[test]
fn the_same_folder_packs_to_the_same_bytes() {
    let files = [("Dockerfile", "FROM x\n"), ("src/one", "1"), ("src/two", "2")];
    let (one, two) = (tree(&files), tree(&files));
    for dir in [&one, &two] {
        for path in ["Dockerfile", "src/one", "src/two", "src"] {
            let path = dir.path().join(path);
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
            fs::File::open(&path).unwrap().set_modified(at).unwrap();
        }
    }
    assert_eq!(pack(one.path(), None), pack(two.path(), None));
}

#[test]
fn dockerignore_decides() {
    let dir = tree(&[
        ("Dockerfile", "FROM x\n"),
        (".dockerignore", "node_modules\n**/*.pyc\ndocs/*\n!docs/keep\n.dockerignore\n"),
        ("node_modules/a/index.js", "x"),
        ("src/app.py", "x"),
        ("src/app.pyc", "x"),
        ("docs/draft", "x"),
        ("docs/keep/me", "x"),
    ]);
    check(
        dir.path(),
        None,
        expect![[r#"
            <unique>_Dockerfile 7 bytes
            <unique>_Dockerfile.dockerignore 54 bytes
            Dockerfile 7 bytes
            docs dir
            docs/keep dir
            docs/keep/me 1 bytes
            src dir
            src/app.py 1 bytes
        "#]],
    );
}

#[test]
fn ignored_folders_appear_only_with_what_is_kept_in_them() {
    let dir = tree(&[
        ("Dockerfile", "FROM x\n"),
        (".dockerignore", "*\n!a/b/c\n"),
        ("a/b/c", "x"),
        ("a/b/d", "x"),
        ("e/f", "x"),
    ]);
    check(
        dir.path(),
        None,
        expect![[r#"
            <unique>_Dockerfile 7 bytes
            <unique>_Dockerfile.dockerignore 9 bytes
            a dir
            a/b dir
            a/b/c 1 bytes
        "#]],
    );
}

#[test]
fn the_dockerfiles_own_ignore_file_wins() {
    let dir = tree(&[
        (".dockerignore", "wanted\n"),
        ("deploy/App.Dockerfile", "FROM x\n"),
        ("deploy/App.Dockerfile.dockerignore", "unwanted\n"),
        ("wanted", ""),
        ("unwanted", ""),
    ]);
    check(
        dir.path(),
        Some("deploy/App.Dockerfile"),
        expect![[r#"
            <unique>_App.Dockerfile 7 bytes
            <unique>_App.Dockerfile.dockerignore 9 bytes
            .dockerignore 7 bytes
            deploy dir
            deploy/App.Dockerfile 7 bytes
            deploy/App.Dockerfile.dockerignore 9 bytes
            wanted 0 bytes
        "#]],
    );
}

#[test]
fn modes_times_and_long_names_are_kept() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let dir = tree(&[("Dockerfile", "FROM x\n"), (&long, "x"), ("run.sh", "#!")]);
    let script = dir.path().join("run.sh");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o751)).unwrap();
    let packed = pack(dir.path(), None);
    let mut archive = tar::Archive::new(zstd::Decoder::new(packed.as_slice()).unwrap());
    let mut seen = 0;
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        if path == Path::new("run.sh") {
            assert_eq!(entry.header().mode().unwrap(), 0o751);
            let modified = fs::metadata(&script).unwrap().modified().unwrap();
            let secs = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            assert_eq!(entry.header().mtime().unwrap(), secs);
            seen += 1;
        }
        if path == Path::new(&long) {
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn what_cannot_be_packed_says_why() {
    let dir = tree(&[("app/main.py", ""), (".dockerignore", "[")]);
    let fail = |root: &Path, file: Option<&str>| Pack::new(root, file, UNIQUE).unwrap_err();
    let missing = fail(dir.path(), None);
    assert!(missing.message.contains("Unable to find 'Dockerfile'") && missing.hint.is_some());
    assert!(fail(&dir.path().join("nope"), None).message.contains("Unable to find"));
    assert!(fail(&dir.path().join("app/main.py"), None).message.contains("not a folder"));
    let bad = fail(dir.path(), Some("app/main.py"));
    assert!(bad.message.contains(".dockerignore: line 1"), "{}", bad.message);
}

#[test]
fn a_lone_dockerfile_is_a_context() {
    let mut out = Vec::new();
    let progress = Progress::files(&Talk::new(&Global { only_show_errors: true, ..Global::default() }), "");
    let pack = Pack::dockerfile_only(b"FROM x\n".to_vec(), UNIQUE);
    pack.write(&mut out, &progress).unwrap();
    assert_eq!(pack.dockerfile_path(), format!("{UNIQUE}_Dockerfile"));
    expect![[r#"
        <unique>_Dockerfile 7 bytes
    "#]]
    .assert_eq(&listing(&out));
}
