//! Build contexts from strangers.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use portolan_builder::Cancel;
use portolan_builder::context::{Context, ContextError, ContextInfo, ContextLimits};
use portolan_builder::copy::{CopyOpts, Plan, SelectOpts};

use crate::support::Tar;

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

fn read(archive: &[u8], limits: &ContextLimits) -> Result<Context, ContextError> {
    Context::read(archive, tempfile::tempfile().unwrap(), limits, &Cancel::new())
}

fn open(archive: &[u8]) -> Result<Context, ContextError> {
    read(archive, &ContextLimits::default())
}

fn plan(context: &Context, sources: &[&str]) -> Plan {
    let sources: Vec<String> = sources.iter().map(|source| source.to_string()).collect();
    Plan::resolve_context(context, &sources, &SelectOpts::default()).unwrap()
}

/// `COPY sources /` into a folder.
fn copy(context: &Context, sources: &[&str], dest: &Path) {
    plan(context, sources).apply(dest, "/", "/", &CopyOpts::default(), &Cancel::new()).unwrap();
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
    let context = open(&gzip(&tar)).unwrap();
    let info = context.info();
    copy(&context, &["."], dir.path());
    assert_eq!(info, ContextInfo { entries: 8, bytes: 13 });
    let main = std::fs::metadata(dir.path().join("src/main.py")).unwrap();
    assert_eq!((main.mode() & 0o7777, main.uid(), main.mtime(), main.nlink()), (0o755, 0, 1_600_000_000, 2));
    assert_eq!(std::fs::read_link(dir.path().join("src/link")).unwrap(), Path::new("../no/parents/f"));
    assert_eq!(std::fs::read(dir.path().join("später.txt")).unwrap(), b"umlaut");
    // Plain and zstd as well.
    for archive in [tar.clone(), zstd::encode_all(&tar[..], 1).unwrap()] {
        assert_eq!(open(&archive).unwrap().info(), info);
    }
}

#[test]
fn hostile_archives_are_refused_in_one_sentence() {
    use tar::EntryType::{Block, Char, Link, Regular, Symlink};
    let absolute = "/victim".to_owned();
    let long = vec![b'n'; 256];
    let deep = "d/".repeat(1_100);
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
        ("name that is too long", Tar::new().pax(&[("path", &long)]).file("x", 0o644, b"").done()),
        ("path that is too long", Tar::new().pax(&[("path", deep.as_bytes())]).file("x", 0o644, b"").done()),
        ("bzip2 data is damaged", b"BZh91AY&SY".to_vec()),
        ("xz data is damaged", vec![0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4, 1, 2, 3, 4, 5]),
    ];
    for (reason, tar) in cases {
        match open(&tar) {
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
    }
}

#[test]
fn what_comes_later_in_an_archive_replaces_what_was_there() {
    use tar::EntryType::{Directory, Regular, Symlink};
    let text = |context: &Context, path: &str| {
        context.file(Path::new(path), 1_000).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
    };
    // A link that is replaced stays a file of the context.
    let tar = Tar::new().file("a", 0o644, b"a").symlink("l", "a").raw(Regular, b"l", b"", b"new").done();
    let context = open(&tar).unwrap();
    assert_eq!((text(&context, "a").unwrap(), text(&context, "l").unwrap()), ("a".into(), "new".into()));
    // One of two names is replaced, the other keeps the contents.
    let tar = Tar::new().file("a", 0o644, b"a").hard_link("h", "a").file("a", 0o644, b"b").done();
    let context = open(&tar).unwrap();
    assert_eq!((text(&context, "a").unwrap(), text(&context, "h").unwrap()), ("b".into(), "a".into()));
    // A directory gives way with all that was in it, and what it hid does not come back.
    let tar = Tar::new().file("d/x", 0o644, b"x").file("d", 0o644, b"file").done();
    let context = open(&tar).unwrap();
    assert_eq!((text(&context, "d/x"), text(&context, "d").unwrap()), (None, "file".into()));
    let tar = Tar::new()
        .file("d/e/x", 0o644, b"x")
        .raw(Symlink, b"d", b"o", b"")
        .raw(Directory, b"d", b"", b"")
        .file("d/e/y", 0o644, b"y")
        .done();
    let context = open(&tar).unwrap();
    assert_eq!((text(&context, "d/e/x"), text(&context, "d/e/y").unwrap()), (None, "y".into()));
}

#[test]
fn links_are_followed_inside_a_context() {
    let tar = Tar::new()
        .file("real/deep/f", 0o644, b"f")
        .symlink("dir", "real/deep")
        .symlink("file", "dir/../deep/f")
        .symlink("loop", "loop")
        .symlink("dangling", "nowhere")
        .done();
    let mut context = open(&tar).unwrap();
    let text = |path: &str| context.file(Path::new(path), 10).unwrap();
    for path in ["real/deep/f", "dir/f", "file", "../dir/f", "/dir/f", "./dir/../../real/deep/f"] {
        assert_eq!(text(path).as_deref(), Some(&b"f"[..]), "{path}");
    }
    for path in ["", "dir", "loop", "loop/f", "dangling", "real/deep/f/x", "none"] {
        assert_eq!(text(path), None, "{path}");
    }
    assert_eq!(context.file(Path::new("file"), 0).unwrap(), None, "longer than asked for");
    let dir = tempfile::tempdir().unwrap();
    copy(&context, &["dir", "file", "r*/deep/*"], dir.path());
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["f", "file"]);
    for missing in ["loop", "dangling", "none"] {
        assert!(Plan::resolve_context(&context, &[missing.to_owned()], &SelectOpts::default()).is_err(), "{missing}");
    }
    assert!(!context.remove("real") && !context.remove("none"));
    assert!(context.remove("file") && context.file(Path::new("file"), 10).unwrap().is_none());
}

/// The same files, packed and on disk, are copied alike and have one checksum: a step done
/// from the one is a cache hit for the other.
#[test]
fn a_packed_context_is_like_the_folder_that_was_packed() {
    let dir = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let tar = Tar::new()
        .raw(tar::EntryType::Directory, b"src", b"", b"")
        .file("src/large", 0o640, &large)
        .file("src/empty", 0o4755, b"")
        .hard_link("src/second", "src/large")
        .symlink("src/link", "large")
        .pax(&[("SCHILY.xattr.user.note", b"n")])
        .file("src/noted", 0o600, b"noted")
        .done();
    let context = open(&tar).unwrap();
    let (once, twice) = (dir.path().join("once"), dir.path().join("twice"));
    std::fs::create_dir(&once).unwrap();
    std::fs::create_dir(&twice).unwrap();
    copy(&context, &["."], &once);
    let folder = Plan::resolve(&once, &[".".to_owned()], &SelectOpts::default()).unwrap();
    assert_eq!(folder.digest(&Cancel::new()).unwrap(), plan(&context, &["."]).digest(&Cancel::new()).unwrap());
    folder.apply(&twice, "/", "/", &CopyOpts::default(), &Cancel::new()).unwrap();
    let seen = |root: &PathBuf, path: &str| {
        let path = root.join("src").join(path);
        let stat = std::fs::symlink_metadata(&path).unwrap();
        (stat.mode(), stat.mtime(), stat.nlink(), stat.size(), std::fs::read(path).unwrap())
    };
    for path in ["large", "empty", "second", "link", "noted"] {
        assert!(seen(&once, path) == seen(&twice, path), "{path}");
    }
    assert!(std::fs::read(once.join("src/large")).unwrap() == large);
    assert_eq!(std::fs::metadata(once.join("src")).unwrap().mtime(), 1_600_000_000);
    assert_eq!(xattr::get(once.join("src/noted"), "user.note").unwrap().as_deref(), Some(&b"n"[..]));
}

#[test]
fn bombs_and_broken_compression_are_refused() {
    let limits = ContextLimits { entries_max: 100, bytes_max: 1 << 20 };
    let refused = |archive: &[u8]| match read(archive, &limits) {
        Err(ContextError::Refused(sentence)) => sentence,
        other => panic!("{other:?}"),
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
    let deep = Tar::new().file(&"d/".repeat(90), 0o755, b"").file(&"e/".repeat(50), 0o755, b"").done();
    assert!(refused(&deep).contains("more than"), "directories that the archive only implies count");
    refused(&good[..good.len() / 2]);
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    refused(&flipped);
    let cancel = Cancel::new();
    cancel.cancel();
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(Context::read(&good[..], file, &limits, &cancel), Err(ContextError::Cancelled)));
}

/// Contents of earlier contexts: one file.
struct Stocked(std::sync::Arc<std::fs::File>, Vec<u8>);

impl Stocked {
    fn of(text: &[u8]) -> Stocked {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        Stocked(std::sync::Arc::new(file), text.to_vec())
    }
}

impl portolan_builder::context::Stock for Stocked {
    fn find(&self, hash: &[u8; 32], size: u64) -> std::io::Result<Option<(std::sync::Arc<std::fs::File>, u64)>> {
        let known = hash_of(&self.1) == *hash && size == self.1.len() as u64;
        Ok(known.then(|| (self.0.clone(), 0)))
    }
}

fn hash_of(bytes: &[u8]) -> [u8; 32] {
    portolan_types::Digest::of(bytes).bytes().try_into().unwrap()
}

/// What our command line sends: a listing, and the contents of the files of these numbers.
fn parcel(listing: portolan_types::listing::Writer, sent: &[(u32, &[u8])]) -> Vec<u8> {
    use portolan_types::listing::{PARCEL_MAGIC, WHOLE};
    let listing = listing.finish();
    let mut out = [PARCEL_MAGIC, &[WHOLE], &(listing.len() as u64).to_le_bytes(), &listing].concat();
    out.extend((sent.len() as u32).to_le_bytes());
    sent.iter().for_each(|(number, _)| out.extend(number.to_le_bytes()));
    sent.iter().for_each(|(_, contents)| out.extend(*contents));
    zstd::encode_all(&out[..], 1).unwrap()
}

fn receive(parcel: &[u8]) -> Result<(Context, usize), ContextError> {
    let limits = ContextLimits { entries_max: 100, bytes_max: 1000 };
    let stock = Stocked::of(b"kept");
    let read = Context::receive(parcel, tempfile::tempfile().unwrap(), &stock, &limits, &Cancel::new());
    read.map(|(context, received)| (context, received.len()))
}

#[test]
fn a_parcel_brings_only_what_was_missing() {
    use portolan_types::listing::{Kind, Writer};
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &[u8]| Kind::File { size: text.len() as u64, hash: hash_of(text) };
    let mut listing = Writer::default();
    listing.push(b"d", 0o750, 7, Kind::Folder);
    listing.push(b"d/kept", 0o640, 1_600_000_000, file(b"kept"));
    listing.push(b"d/new", 0o755, 8, file(b"new"));
    listing.push(b"d/new-again", 0o644, 8, file(b"new"));
    listing.push(b"hard", 0o755, 8, Kind::HardLink(b"d/new"));
    listing.push(b"link", 0o777, 8, Kind::Link(b"d/kept"));
    let (context, received) = receive(&parcel(listing, &[(1, b"new")])).unwrap();
    assert_eq!((received, context.info()), (1, ContextInfo { entries: 6, bytes: 10 }));
    copy(&context, &["."], dir.path());
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!([text("d/kept"), text("d/new"), text("d/new-again"), text("link")], ["kept", "new", "new", "kept"]);
    let at = std::fs::metadata(dir.path().join("hard")).unwrap();
    assert_eq!((at.nlink(), at.mode() & 0o7777), (2, 0o755));
    assert_eq!(std::fs::metadata(dir.path().join("d/kept")).unwrap().mtime(), 1_600_000_000);
}

#[test]
fn hostile_parcels_are_refused() {
    use portolan_types::listing::{Kind, Writer};
    let file = |text: &[u8]| Kind::File { size: text.len() as u64, hash: hash_of(text) };
    let one = |path: &[u8], kind: Kind<'_>| {
        let mut listing = Writer::default();
        listing.push(path, 0o644, 0, kind);
        listing
    };
    let refused = |parcel: Vec<u8>, why: &str| match receive(&parcel) {
        Err(ContextError::Refused(said)) => assert!(said.contains(why), "{said}"),
        other => panic!("{why}: {other:?}"),
    };
    refused(parcel(one(b"a", file(b"abc")), &[(0, b"abX")]), "changed while it was sent");
    refused(parcel(one(b"a", file(b"abc")), &[(0, b"ab")]), "changed while it was sent");
    refused(parcel(one(b"../a", file(b"kept")), &[]), "..");
    refused(parcel(one(b"/a", file(b"kept")), &[]), "absolute");
    refused(parcel(one(b"a", Kind::Link(b"../x")), &[]), "outside");
    refused(parcel(one(b"a", Kind::HardLink(b"etc/passwd")), &[]), "not in it");
    refused(parcel(one(b"a", file(b"kept")), &[(5, b"abc")]), "does not list");
    let mut bomb = Writer::default();
    for n in 0..400 {
        bomb.push(format!("f{n}").as_bytes(), 0o644, 0, file(b"kept"));
    }
    refused(parcel(bomb, &[]), "more than 100 entries");
    let huge = Kind::File { size: u64::MAX, hash: [0; 32] };
    refused(parcel(one(b"a", huge), &[(0, b"x")]), "more than 1000 bytes");
    let cut = parcel(one(b"a", file(b"abc")), &[(0, b"abc")]);
    let plain = zstd::decode_all(&cut[..]).unwrap();
    for end in 19..plain.len() {
        assert!(receive(&plain[..end]).is_err(), "cut at {end}");
    }
    // Knowing a hash alone grants nothing.
    assert!(matches!(receive(&parcel(one(b"a", file(b"else")), &[])), Err(ContextError::Missing)));
    let short = Kind::File { size: 3, hash: hash_of(b"kept") };
    assert!(matches!(receive(&parcel(one(b"a", short), &[])), Err(ContextError::Missing)));
}
