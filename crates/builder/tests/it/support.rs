//! What the tests stand on: content in memory, a busybox image, an executor.

use std::collections::HashMap;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use portolan_builder::Cancel;
use portolan_builder::diff::{Layer, write_layer};
use portolan_builder::exec::{self, ExecConfig, ExecError, Exit, Network, StepLimits, StepSpec, Stream, UserNs};
use portolan_builder::ports::{Content, ContentWriter};
use portolan_builder::snapshot::{Active, Chain, Store};
use portolan_builder::user::User;
use portolan_types::oci::Descriptor;
use portolan_types::{Digest, media_type};

/// Content that checks what it is told.
#[derive(Default)]
pub struct MemoryContent {
    pub blobs: Arc<Mutex<HashMap<Digest, Vec<u8>>>>,
}

struct MemoryWriter {
    bytes: Vec<u8>,
    blobs: Arc<Mutex<HashMap<Digest, Vec<u8>>>>,
}

impl Content for MemoryContent {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.blobs.lock().unwrap().get(digest).cloned();
        Ok(Box::new(Cursor::new(bytes.ok_or(io::ErrorKind::NotFound)?)))
    }

    fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        Ok(self.blobs.lock().unwrap().get(digest).map(|bytes| bytes.len() as u64))
    }

    fn create(&self) -> io::Result<Box<dyn ContentWriter>> {
        Ok(Box::new(MemoryWriter { bytes: Vec::new(), blobs: self.blobs.clone() }))
    }

    fn sync(&self, _: &[Digest]) -> io::Result<()> {
        Ok(())
    }
}

impl Write for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ContentWriter for MemoryWriter {
    fn commit(self: Box<Self>, digest: &Digest) -> io::Result<()> {
        assert_eq!(Digest::of(&self.bytes), *digest, "a blob was committed under a digest that is not its own");
        self.blobs.lock().unwrap().insert(*digest, self.bytes);
        Ok(())
    }
}

impl MemoryContent {
    /// Keep a layer given as a tar; gzip makes a blob of it.
    pub fn layer(&self, tar: &[u8]) -> (Descriptor, Digest) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(tar).unwrap();
        let blob = gzip.finish().unwrap();
        let digest = Digest::of(&blob);
        let descriptor = Descriptor::new(media_type::DOCKER_LAYER_GZIP, digest, blob.len() as u64);
        self.blobs.lock().unwrap().insert(digest, blob);
        (descriptor, Digest::of(tar))
    }
}

/// A tar in the making, by way of the `tar` crate, which our own reader does not share code
/// with.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Tar {
        Tar(tar::Builder::new(Vec::new()))
    }

    pub fn dir(mut self, path: &str, mode: u32) -> Tar {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, path, io::empty()).unwrap();
        self
    }

    pub fn file(mut self, path: &str, mode: u32, bytes: &[u8]) -> Tar {
        let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
        self.0.append_data(&mut header, path, bytes).unwrap();
        self
    }

    pub fn link(mut self, kind: tar::EntryType, path: &str, target: &str) -> Tar {
        let mut header = header(kind, 0o777, 0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.link(tar::EntryType::Symlink, path, target)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Tar {
        self.link(tar::EntryType::Link, path, target)
    }

    /// An entry whose name is written as it is, whatever it says.
    pub fn raw(mut self, kind: tar::EntryType, name: &[u8], link: &[u8], bytes: &[u8]) -> Tar {
        let mut header = header(kind, 0o644, bytes.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    /// The entry that follows has these PAX records.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Tar {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(1_600_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// busybox and what an image usually has.
pub fn busybox_tar() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("tests need /bin/busybox: apt-get install busybox-static");
    let mut tar = Tar::new().dir("bin/", 0o755).file("bin/busybox", 0o755, &busybox);
    for applet in APPLETS.split_whitespace() {
        tar = tar.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    tar.dir("etc/", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\napp:x:1001:\nstaff:x:50:other,app\n")
        .dir("tmp/", 0o1777)
        .dir("root/", 0o700)
        .dir("home/app/", 0o755)
        .done()
}

const APPLETS: &str = "sh ls cat echo mkdir rm rmdir mv cp ln touch chmod chown mknod ps id env hostname sleep true false \
    grep wc head tail find stat dd kill mount umount sync readlink test date nslookup ip printf setsid su chroot unshare timeout \
    mkfifo sed awk sort seq expr ping";

/// A store, an executor, and one image.
pub struct Lab {
    pub content: Arc<MemoryContent>,
    pub store: Store,
    pub config: ExecConfig,
    pub base: Chain,
    pub dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(true)
    }

    /// With user namespaces for steps, or without.
    pub fn with(userns: bool) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let content = Arc::new(MemoryContent::default());
        let store = Store::open(&dir.path().join("snapshots"), content.clone()).unwrap();
        let (layer, diff_id) = content.layer(&busybox_tar());
        let base = store.base(&[layer], &[diff_id], &Cancel::new()).unwrap();
        let command: Vec<std::ffi::OsString> = vec![env!("CARGO_BIN_EXE_portolan-step").into()];
        let mut config = ExecConfig::new(command.clone(), dir.path().join("exec"));
        // All tests of steps can be run with the other executor.
        config.runtime = std::env::var_os("PORTOLAN_TEST_RUNTIME").map(Into::into);
        if userns {
            let ids = Arc::new(UserNs::open(&command).unwrap());
            store.serve_steps(ids.clone()).unwrap();
            config.userns = Some(ids);
        }
        std::fs::create_dir_all(&config.state_dir).unwrap();
        Lab { content, store, config, base, dir }
    }

    pub fn begin(&self) -> Active {
        self.store.begin_for_step(&self.base).unwrap()
    }

    /// Run a shell script in a throw-away state; its status and all it printed.
    pub fn sh(&self, script: &str) -> (i32, String) {
        let active = self.begin();
        let (exit, output) = self.run(&step(active.root(), script), &Cancel::new());
        (exit.unwrap().code, output)
    }

    pub fn run(&self, step: &StepSpec<'_>, cancel: &Cancel) -> (Result<Exit, ExecError>, String) {
        let output = Mutex::new(Vec::new());
        let out = |_: Stream, bytes: &[u8]| output.lock().unwrap().extend_from_slice(bytes);
        let exit = exec::run(&self.config, step, &out, cancel);
        let output = output.into_inner().unwrap();
        (exit, String::from_utf8_lossy(&output).into_owned())
    }

    /// Run a script on `chain`, commit what it did, and write its layer.
    pub fn layer(&self, chain: &Chain, script: &str) -> (Chain, Layer) {
        let active = self.store.begin_for_step(chain).unwrap();
        let (exit, output) = self.run(&step(active.root(), script), &Cancel::new());
        assert_eq!(exit.unwrap().code, 0, "{script}: {output}");
        let next = active.commit(&name(&format!("{} {script}", chain.len()))).unwrap();
        let layer = write_layer(&next, &*self.content, None, &Cancel::new()).unwrap();
        (next, layer)
    }

    /// A layer's entries: name, as `ls -l` shows the kind, and the rest in short.
    pub fn entries(&self, layer: &Layer) -> Vec<String> {
        let blob = self.content.blobs.lock().unwrap()[&layer.blob.digest].clone();
        assert_eq!(blob.len() as u64, layer.blob.size);
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut tar).unwrap();
        assert_eq!(Digest::of(&tar), layer.diff_id);
        let mut archive = tar::Archive::new(&tar[..]);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display())).unwrap_or_default();
                format!(
                    "{:?} {:o} {}{link}",
                    header.entry_type(),
                    header.mode().unwrap(),
                    entry.path().unwrap().display()
                )
            })
            .collect()
    }
}

/// A step that runs a shell script as root, with the network and without limits.
pub fn step<'a>(root: &'a Path, script: &str) -> StepSpec<'a> {
    StepSpec {
        root,
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("GREETING".to_owned(), "hello".to_owned())],
        cwd: "/".to_owned(),
        user: User::root(),
        limits: StepLimits::default(),
        mounts: Vec::new(),
        secret_env: Vec::new(),
        network: Network::Default,
        insecure: false,
        disk: None,
        emulator: None,
    }
}

pub fn name(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}
