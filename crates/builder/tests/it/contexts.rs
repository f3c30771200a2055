//! Build contexts from strangers.

use std::io::Write;
use std::path::Path;

use portolan_builder::Cancel;
use portolan_builder::context::{ContextError, ContextInfo, ContextLimits, unpack};

use crate::support::Tar;

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

fn open(archive: &[u8], dest: &Path) -> Result<ContextInfo, ContextError> {
    unpack(archive, dest, &ContextLimits::default(), &Cancel::new())
}

#[test]
fn an_archive_as_az_sends_it() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Tar::new()
        .raw(tar::EntryType::Directory, b"/", b"", b"")
        .raw(tar::EntryType::Directory, b"src", b"", b"")
        .file("src/main.py", 0o755, b"print()")
        .file("no/parents/f", 0o640, b"")
        .symlink("src/link", "../no/parents/f")
        .hard_link("src/hard", "src/main.py")
        .file("./dot", 0o644, b"")
        .pax(&[("path", "später.txt".as_bytes())])
        .file("short", 0o644, b"umlaut")
        .done();
    let info = open(&gzip(&tar), dir.path()).unwrap();
    assert_eq!(info, ContextInfo { entries: 8, bytes: 13 });
    use std::os::unix::fs::MetadataExt;
    let main = std::fs::metadata(dir.path().join("src/main.py")).unwrap();
    assert_eq!((main.mode() & 0o7777, main.uid(), main.mtime(), main.nlink()), (0o755, 0, 1_600_000_000, 2));
    assert_eq!(std::fs::read_link(dir.path().join("src/link")).unwrap(), Path::new("../no/parents/f"));
    assert_eq!(std::fs::read(dir.path().join("später.txt")).unwrap(), b"umlaut");
    // Plain and zstd as well.
    for archive in [tar.clone(), zstd::encode_all(&tar[..], 1).unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(&archive, dir.path()).unwrap(), info);
    }
}

#[test]
fn hostile_archives_are_refused_in_one_sentence() {
    use tar::EntryType::{Block, Char, Link, Regular, Symlink};
    let outer = tempfile::tempdir().unwrap();
    std::fs::write(outer.path().join("victim"), "untouched").unwrap();
    let absolute = format!("{}/victim", outer.path().display());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("\"..\": ../victim", Tar::new().raw(Regular, b"../victim", b"", b"x").done()),
        ("\"..\": a/../../victim", Tar::new().raw(Regular, b"a/../../victim", b"", b"x").done()),
        ("absolute path", Tar::new().raw(Regular, absolute.as_bytes(), b"", b"x").done()),
        ("hard link to something that is not in it", Tar::new().raw(Link, b"h", b"nothing", b"").done()),
        ("device", Tar::new().raw(Char, b"null", b"", b"").done()),
        ("device", Tar::new().raw(Block, b"disk", b"", b"").done()),
        ("leads outside: l to /etc/passwd", Tar::new().raw(Symlink, b"l", b"/etc/passwd", b"").done()),
        ("leads outside: a/l to ../../x", Tar::new().raw(Symlink, b"a/l", b"../../x", b"").done()),
        ("leads outside: l to a/../../x", Tar::new().raw(Symlink, b"l", b"a/../../x", b"").done()),
        ("leads outside: h to ../victim", Tar::new().raw(Link, b"h", b"../victim", b"").done()),
        ("leads outside: h to /", Tar::new().raw(Link, b"h", absolute.as_bytes(), b"").done()),
        ("through a link", Tar::new().dir("a/", 0o755).symlink("l", "a").file("l/x", 0o644, b"").done()),
        ("through a link", Tar::new().dir("a/", 0o755).symlink("l", "a").file("l/b/x", 0o644, b"").done()),
        ("no directory", Tar::new().file("f", 0o644, b"").file("f/b/x", 0o644, b"").done()),
        ("not a tar archive", vec![b'x'; 2_000]),
        ("middle of an entry", Tar::new().file("f", 0o644, &[1; 5_000]).done()[..3_000].to_vec()),
        ("zero byte", Tar::new().pax(&[("path", b"a\0b")]).file("x", 0o644, b"").done()),
        ("bzip2 data is damaged", b"BZh91AY&SY".to_vec()),
        ("xz data is damaged", vec![0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4, 1, 2, 3, 4, 5]),
    ];
    for (index, (reason, tar)) in cases.into_iter().enumerate() {
        let dest = outer.path().join(index.to_string());
        std::fs::create_dir(&dest).unwrap();
        match open(&tar, &dest) {
            Err(ContextError::Refused(sentence)) => {
                let reason = if reason == "zero byte" { "damaged PAX" } else { reason };
                assert!(
                    sentence.contains(reason) && sentence.starts_with("the build context was refused: "),
                    "{reason}: {sentence}"
                );
                assert!(!sentence.contains('\n'));
            }
            other => panic!("{reason}: {other:?}"),
        }
        assert_eq!(std::fs::read_to_string(outer.path().join("victim")).unwrap(), "untouched");
    }
    // A link that is replaced, and then written through, stays a file of the context.
    let dest = outer.path().join("replaced");
    std::fs::create_dir(&dest).unwrap();
    let tar = Tar::new().file("a", 0o644, b"a").symlink("l", "a").raw(Regular, b"l", b"", b"new").done();
    open(&tar, &dest).unwrap();
    assert_eq!(
        (std::fs::read(dest.join("a")).unwrap(), std::fs::read(dest.join("l")).unwrap()),
        (b"a".to_vec(), b"new".to_vec())
    );
}

#[test]
fn bombs_and_broken_compression_are_refused() {
    let limits = ContextLimits { entries_max: 100, bytes_max: 1 << 20 };
    let refused = |archive: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        match unpack(archive, dir.path(), &limits, &Cancel::new()) {
            Err(ContextError::Refused(sentence)) => sentence,
            other => panic!("{other:?}"),
        }
    };
    let zeros = gzip(&Tar::new().file("z", 0o644, &vec![0; 2 << 20]).done());
    assert!(zeros.len() < 50_000);
    assert!(refused(&zeros).contains("more than 1048576 bytes"));
    let mut many = Tar::new();
    for n in 0..101 {
        many = many.file(&n.to_string(), 0o644, b"");
    }
    assert!(refused(&many.done()).contains("more than 100 entries"));
    let good = gzip(&Tar::new().file("z", 0o644, &[1; 10_000]).done());
    refused(&good[..good.len() / 2]);
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    refused(&flipped);
    let cancel = Cancel::new();
    cancel.cancel();
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(unpack(&good[..], dir.path(), &limits, &cancel), Err(ContextError::Cancelled)));
}
