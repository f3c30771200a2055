//! An engine with everything it needs, and builds to look at.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use expect_test::Expect;
use portolan_builder::ports::{BaseImage, Images, StepCache};
use portolan_builder::render::Plain;
use portolan_builder::{BuildError, BuildRequest, Built, Cancel, Engine, EngineConfig, Event, StepLimits};
use portolan_types::oci::{ContainerConfig, Descriptor, History, ImageConfig, Manifest, RootFs};
use portolan_types::{Digest, ImageRef, Platform, Timestamp, media_type};

use crate::support::{MemoryContent, busybox_tar};

/// Images by their whole name.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) images: Mutex<HashMap<String, BaseImage>>,
}

impl Images for Shelf {
    fn resolve(&self, image: &ImageRef, platform: &Platform, note: &dyn Fn(&str)) -> Result<BaseImage, String> {
        note("looking on the shelf");
        let images = self.images.lock().unwrap();
        let found = images.get(&format!("{image} {platform}")).or_else(|| images.get(&image.to_string()));
        found.cloned().ok_or_else(|| format!("{image}: not found"))
    }
}

#[derive(Default)]
pub(crate) struct Records(pub(crate) Mutex<HashMap<Digest, Vec<u8>>>);

impl StepCache for Records {
    fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn put(&self, key: &Digest, record: &[u8]) {
        self.0.lock().unwrap().insert(*key, record.to_vec());
    }
}

/// An engine with busybox on the shelf, and a context.
pub(crate) struct Kitchen {
    pub(crate) content: Arc<MemoryContent>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) records: Arc<Records>,
    engine: Option<Engine>,
    pub(crate) limits: StepLimits,
    pub(crate) emulators_dir: PathBuf,
    /// What else is to be different about the engine from the next restart on.
    pub(crate) setup: fn(&mut EngineConfig),
    dir: tempfile::TempDir,
}

/// What came of a build.
pub(crate) struct Outcome {
    pub(crate) result: Result<Built, BuildError>,
    pub(crate) events: Vec<Event>,
    pub(crate) log: String,
}

impl Kitchen {
    pub(crate) fn new() -> Kitchen {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("context")).unwrap();
        let content = Arc::new(MemoryContent::default());
        let mut kitchen = Kitchen {
            content,
            shelf: Arc::default(),
            records: Arc::default(),
            engine: None,
            limits: StepLimits::default(),
            emulators_dir: "/usr/bin".into(),
            setup: |_| {},
            dir,
        };
        let (layer, diff_id) = kitchen.content.layer(&busybox_tar());
        kitchen.shelve(
            "busybox",
            vec![layer],
            vec![diff_id],
            ContainerConfig {
                env: Some(vec!["PATH=/bin".into(), "FROM_BASE=yes".into()]),
                cmd: Some(vec!["sh".into()]),
                ..ContainerConfig::default()
            },
        );
        kitchen.restart();
        kitchen
    }

    pub(crate) fn shelve(&self, name: &str, layers: Vec<Descriptor>, diff_ids: Vec<Digest>, config: ContainerConfig) {
        let history = History {
            created: Some("2020-01-01T00:00:00Z".into()),
            created_by: Some("/bin/sh -c #(nop) ADD busybox".into()),
            ..History::default()
        };
        let config = ImageConfig {
            created: Some("2020-01-01T00:00:00Z".into()),
            architecture: Platform::host().architecture,
            os: "linux".into(),
            config,
            rootfs: RootFs { kind: "layers".into(), diff_ids },
            history: vec![history],
            ..ImageConfig::default()
        };
        let digest = Digest::of(&serde_json::to_vec(&config).unwrap());
        let name = name.parse::<ImageRef>().unwrap().to_string();
        self.shelf.images.lock().unwrap().insert(name, BaseImage { digest, config, layers });
    }

    /// A new engine on the same state, as after a restart of the server.
    pub(crate) fn restart(&mut self) {
        self.engine = None;
        let mut config = EngineConfig::new(self.dir.path().join("state"));
        config.step_command = vec![env!("CARGO_BIN_EXE_portolan-step").into()];
        config.parallel_max = 4;
        config.limits = self.limits;
        config.emulators_dir = self.emulators_dir.clone();
        (self.setup)(&mut config);
        let engine = Engine::open(config, self.content.clone(), self.shelf.clone(), self.records.clone());
        self.engine = Some(engine.unwrap());
    }

    /// Put an image on the shelf that is for one platform only.
    pub(crate) fn shelve_for(&self, platform: &str, name: &str, layer: Descriptor, diff_id: Digest) {
        self.shelve(name, vec![layer], vec![diff_id], ContainerConfig::default());
        let name = name.parse::<ImageRef>().unwrap().to_string();
        let mut images = self.shelf.images.lock().unwrap();
        let mut image = images.remove(&name).unwrap();
        let platform: Platform = platform.parse().unwrap();
        image.config.architecture = platform.architecture.clone();
        image.digest = Digest::of(&serde_json::to_vec(&image.config).unwrap());
        images.insert(format!("{name} {platform}"), image);
    }

    /// Build for several platforms.
    pub(crate) fn run_all(
        &self,
        request: &BuildRequest,
        platforms: &[&str],
    ) -> (Result<Vec<Built>, BuildError>, Vec<Event>) {
        let platforms: Vec<Platform> = platforms.iter().map(|p| p.parse().unwrap()).collect();
        let events = Mutex::new(Vec::new());
        let engine = self.engine.as_ref().unwrap();
        let built = engine.build_all(request, &platforms, &|event| events.lock().unwrap().push(event), &Cancel::new());
        (built, events.into_inner().unwrap())
    }

    /// Forget all snapshots.
    pub(crate) fn forget_snapshots(&mut self) {
        self.engine = None;
        std::fs::remove_dir_all(self.dir.path().join("state")).unwrap();
        self.restart();
    }

    /// From now on, step records of another builder count where there are none of ours.
    pub(crate) fn import(&mut self, records: HashMap<Digest, Vec<u8>>) {
        let imported: Arc<dyn StepCache> = Arc::new(Records(Mutex::new(records)));
        let engine = self.engine.take().unwrap();
        self.engine = Some(engine.for_build(self.shelf.clone(), self.records.clone(), Some(imported)));
    }

    /// Forget what was done before, as a builder that is new has it; blobs stay.
    pub(crate) fn forget(&mut self) {
        self.records.0.lock().unwrap().clear();
        self.forget_snapshots();
    }

    /// Where everything of the engine is that is on a disk.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.context().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn request(&self, dockerfile: &str) -> BuildRequest {
        let created = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
        BuildRequest::new(self.context().into(), dockerfile.as_bytes().to_vec(), Platform::host(), created)
    }

    pub(crate) fn run(&self, request: &BuildRequest) -> Outcome {
        self.run_until(request, &Cancel::new(), &|_| {})
    }

    pub(crate) fn run_until(
        &self,
        request: &BuildRequest,
        cancel: &Cancel,
        watch: &(dyn Fn(&Event) + Sync),
    ) -> Outcome {
        let events = Mutex::new(Vec::new());
        let result = self.engine.as_ref().unwrap().build(
            request,
            &|event| {
                watch(&event);
                events.lock().unwrap().push(event);
            },
            cancel,
        );
        let events = events.into_inner().unwrap();
        let mut log = String::new();
        let mut plain = Plain::new();
        let mut line = |text: &str| {
            log.push_str(text);
            log.push('\n');
        };
        events.iter().for_each(|e| plain.event(e, &mut line));
        plain.warnings(&mut line);
        if let Err(error) = &result {
            plain.failed(error, &mut line);
        }
        Outcome { result, events, log }
    }

    /// What the build checks say.
    pub(crate) fn check(&self, request: &BuildRequest) -> Result<Vec<String>, BuildError> {
        let warnings = self.engine.as_ref().unwrap().check(request, &|_| {}, &Cancel::new())?;
        Ok(warnings.iter().map(|w| format!("{}: {} (line {})", w.rule.name(), w.message, w.line)).collect())
    }

    /// Build and hand on the image.
    pub(crate) fn build(&self, dockerfile: &str) -> Image {
        self.image(self.run(&self.request(dockerfile)))
    }

    pub(crate) fn image(&self, outcome: Outcome) -> Image {
        let built = match outcome.result {
            Ok(built) => built,
            Err(error) => panic!("{error:?}\n{}", outcome.log),
        };
        let blobs = self.content.blobs.lock().unwrap();
        let config: ImageConfig = serde_json::from_slice(&blobs[&built.config.digest]).unwrap();
        let manifest: Manifest = serde_json::from_slice(&built.manifest).unwrap();
        assert_eq!(Digest::of(&built.manifest), built.digest);
        assert_eq!(manifest.layers, built.layers);
        assert_eq!(manifest.layers.len(), config.rootfs.diff_ids.len());
        assert_eq!(
            config.history.iter().filter(|h| !h.empty_layer).count(),
            built.layers.len(),
            "{:#?}",
            config.history
        );
        let mut files = BTreeMap::new();
        for layer in &built.layers {
            assert_eq!(layer.media_type, media_type::DOCKER_LAYER_GZIP);
            let blob = &blobs[&layer.digest];
            assert_eq!(blob.len() as u64, layer.size);
            flatten(blob, &mut files);
        }
        Image { built, config, files, log: outcome.log }
    }

    /// Build and hand on the error as the log shows it.
    pub(crate) fn fail(&self, dockerfile: &str, expect: Expect) -> BuildError {
        let outcome = self.run(&self.request(dockerfile));
        let error = outcome.result.expect_err(&outcome.log);
        let mut out = String::new();
        Plain::new().failed(&error, &mut |line| out.push_str(&format!("{line}\n")));
        expect.assert_eq(&out);
        error
    }
}

pub(crate) struct Image {
    pub(crate) built: Built,
    pub(crate) config: ImageConfig,
    /// What the layers amount to: for files their text.
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) log: String,
}

impl Image {
    pub(crate) fn cached(&self) -> usize {
        self.log.lines().filter(|l| l.ends_with(" CACHED")).count()
    }

    pub(crate) fn history(&self) -> String {
        self.config
            .history
            .iter()
            .map(|h| {
                let mark = if h.empty_layer { "-" } else { "L" };
                format!("{mark} {} | {}\n", h.created.as_deref().unwrap_or("?"), h.created_by.as_deref().unwrap_or("?"))
            })
            .collect()
    }
}

/// Apply a layer the simple way, with another reader than the engine's own.
fn flatten(blob: &[u8], files: &mut BTreeMap<String, String>) {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(blob).read_to_end(&mut tar).unwrap();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let path = path.trim_end_matches('/').to_owned();
        let name = Path::new(&path).file_name().map_or(String::new(), |n| n.to_string_lossy().into_owned());
        if let Some(gone) = name.strip_prefix(".wh.") {
            let gone = Path::new(&path).with_file_name(gone).display().to_string();
            files.retain(|p, _| p != &gone && !p.starts_with(&format!("{gone}/")));
            continue;
        }
        let header = entry.header();
        let owner = format!("{}:{} {:o}", header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap());
        let text = match header.entry_type() {
            tar::EntryType::Directory => format!("{owner} dir"),
            tar::EntryType::Regular if header.size().unwrap() < 10_000 => {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                format!("{owner} {text}")
            }
            _ => owner,
        };
        files.insert(path, text);
    }
}
