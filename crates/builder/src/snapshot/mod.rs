//! File system states of a build.
//!
//! The nouns: a *layer* is a read-only directory in overlayfs's own format (whiteouts are
//! devices 0:0, hidden directories carry an attribute). A [`Chain`] is a list of layers,
//! lowest first: a whole file system. An [`Active`] is an overlay mount over a chain that
//! somebody writes into. Committing it turns what was written into one more layer and gives
//! the new chain a *name*, by which it is found again, also by a later process.
//!
//! The life of a build: `base` unpacks an image's layers once each; `begin` a state on
//! them, run a step in it, `commit` it under the step's cache key; `begin` the next on that.
//! Dropping an `Active` throws away what was written.
//!
//! On disk, below the store's folder:
//! ```text
//! lock             held while a store is open
//! boot             which boot of the machine wrote this
//! layers/<n>/      one layer
//! layers/empty/    what FROM scratch stands on
//! names/<hex>      a chain: the numbers of its layers, as JSON; written last
//! work/<n>/        what is under way: fs/ becomes a layer, work/ is overlayfs's own
//! trash/<n>/       what is being removed
//! ```
//! A killed process leaves things in `work`, and layers that no name mentions: both are
//! swept at the next open. All of it is a cache that content in the blob store can rebuild,
//! so nothing is synced to disk, and after the machine itself went down it is thrown away.

mod base;
mod mount;
mod trash;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use portolan_types::Digest;
use rustix::fs::{FlockOperation, Mode, OFlags, XattrFlags};
use serde::{Deserialize, Serialize};

use crate::exec::UserNs;
use crate::fsys;
use crate::ports::Content;

use self::trash::Trash;
pub(crate) use mount::detached_copy;

/// Which boot of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The layer below `FROM scratch`: an overlay needs one.
const EMPTY: &str = "empty";

/// The snapshots of one engine. Only one store at a time can be open on a folder.
pub struct Store {
    shared: Arc<Shared>,
    content: Arc<dyn Content>,
    /// Held while base layers are unpacked, so that two builds on one image unpack it once.
    unpacking: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    layers: OwnedFd,
    next: AtomicU64,
    trash: Arc<Trash>,
    state: Mutex<State>,
    for_steps: OnceLock<ForSteps>,
    _lock: File,
}

/// The store's folder with the ids of steps' user namespaces.
#[derive(Debug)]
struct ForSteps {
    ids: Arc<UserNs>,
    /// The mount: it goes when this is closed.
    _store: OwnedFd,
    layers: OwnedFd,
    work: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    layers: BTreeMap<u64, Arc<LayerDir>>,
    names: HashMap<Digest, Named>,
}

#[derive(Debug)]
struct Named {
    layers: Vec<u64>,
    used: SystemTime,
}

/// What a file under `names` says.
#[derive(Serialize, Deserialize)]
struct NameFile {
    layers: Vec<u64>,
}

/// One layer on disk.
#[derive(Debug)]
pub(crate) struct LayerDir {
    id: u64,
    path: PathBuf,
}

/// A file system state: read-only layers, lowest first. Cheap to clone; while one lives its
/// layers are not evicted.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    layers: Vec<Arc<LayerDir>>,
}

/// A writable state under way: an overlay mount on top of a [`Chain`].
#[derive(Debug)]
pub struct Active {
    shared: Arc<Shared>,
    below: Chain,
    /// `None` once committed.
    mount: Option<OwnedFd>,
    root: PathBuf,
    work: WorkDir,
}

/// A folder under `work`, removed when dropped.
#[derive(Debug)]
struct WorkDir {
    path: PathBuf,
    trash: Arc<Trash>,
}

impl Store {
    /// Open the snapshots under `dir`, sweeping what a killed process left there. Fails when
    /// another process has them open.
    pub fn open(dir: &Path, content: Arc<dyn Content>) -> io::Result<Store> {
        private_dir(dir)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("{} is in use by another process: {error}", dir.display()))
        })?;
        let boot = fs::read_to_string(BOOT_ID)?;
        if fs::read_to_string(dir.join("boot")).is_ok_and(|written| written != boot) {
            remove(&dir.join("names"))?;
            remove(&dir.join("layers"))?;
        }
        let trash = Arc::new(Trash::open(dir.join("trash"))?);
        trash.throw(&dir.join("work"))?;
        for sub in ["names", "layers", "work"] {
            private_dir(&dir.join(sub))?;
        }
        // The root of a file system made from scratch, so not private.
        fs::create_dir_all(dir.join("layers").join(EMPTY))?;
        rustix::fs::chmod(dir.join("layers").join(EMPTY), Mode::from_raw_mode(0o755))?;
        fs::write(dir.join("boot"), boot)?;

        let mut state = State::default();
        for entry in fs::read_dir(dir.join("names"))? {
            let entry = entry?;
            match read_name(&entry.path(), dir) {
                Some((name, named)) => {
                    for id in &named.layers {
                        state
                            .layers
                            .entry(*id)
                            .or_insert_with(|| Arc::new(LayerDir { id: *id, path: layer_path(dir, *id) }));
                    }
                    state.names.insert(name, named);
                }
                None => remove(&entry.path())?,
            }
        }
        let mut next = 1;
        for entry in fs::read_dir(dir.join("layers"))? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            match id {
                Some(id) if state.layers.contains_key(&id) => next = next.max(id + 1),
                _ if entry.file_name() == EMPTY => {}
                _ => remove(&entry.path())?,
            }
        }
        Ok(Store {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                layers: fsys::open_root(&dir.join("layers"))?,
                next: AtomicU64::new(next),
                trash,
                state: Mutex::new(state),
                for_steps: OnceLock::new(),
                _lock: lock,
            }),
            content,
            unpacking: Mutex::new(()),
        })
    }

    /// A state committed under `name` before, now or by an earlier process.
    pub fn find(&self, name: &Digest) -> Option<Chain> {
        self.shared.find(name)
    }

    /// Begin a writable state on top of `chain`.
    pub fn begin(&self, chain: &Chain) -> io::Result<Active> {
        Active::begin(&self.shared, chain, None)
    }

    /// Begin a writable state on top of `chain` that is written as if there were nothing below
    /// it: what `COPY --link` makes. Directories of both are one once it is committed; a link
    /// or file below that is in the way of a directory gives way to it.
    pub fn begin_apart(&self, chain: &Chain) -> io::Result<Active> {
        Active::begin_apart(&self.shared, chain)
    }

    /// Begin a writable state on top of `chain` for a step in a user namespace: who looks
    /// into it from outside sees everything belong to the ids that the namespace has on the
    /// host. What is written has plain ids on disk, as always. The same as [`Store::begin`]
    /// while [`Store::serve_steps`] was not called.
    pub fn begin_for_step(&self, chain: &Chain) -> io::Result<Active> {
        Active::begin(&self.shared, chain, self.shared.for_steps.get())
    }

    /// Serve steps in user namespaces with these ids from now on. Fails where the kernel or
    /// the file system cannot; the error says why. To be called once at most.
    pub fn serve_steps(&self, ids: Arc<UserNs>) -> io::Result<()> {
        let Some(namespace) = ids.idmap() else { return Ok(()) };
        let store = mount::mapped(&self.shared.dir, namespace)?;
        let folder = |name: &str| fsys::open_root(Path::new(&format!("/proc/self/fd/{}/{name}", store.as_raw_fd())));
        let (layers, work) = (folder("layers")?, folder("work")?);
        let for_steps = ForSteps { ids, _store: store, layers, work };
        self.shared.for_steps.set(for_steps).map_err(|_| io::Error::other("the store serves steps already"))
    }

    /// Remove the least recently used layers that nobody holds until at most `bytes_max`
    /// bytes are left; returns how many bytes are left. Walks every layer once.
    pub fn evict(&self, bytes_max: u64) -> io::Result<u64> {
        let all: Vec<Arc<LayerDir>> = self.shared.state.lock().layers.values().cloned().collect();
        let mut sizes = HashMap::new();
        for layer in &all {
            sizes.insert(layer.id, disk_bytes(&layer.path)?);
        }
        drop(all);
        let mut bytes: u64 = sizes.values().sum();
        let mut order: Vec<(SystemTime, Digest)> =
            self.shared.state.lock().names.iter().map(|(name, named)| (named.used, *name)).collect();
        order.sort_unstable();
        for (_, name) in order {
            if bytes <= bytes_max {
                break;
            }
            let removed = self.shared.state.lock().forget(&name);
            if let Some(removed) = removed {
                remove(&name_path(&self.shared.dir, &name))?;
                for layer in removed {
                    remove(&layer.path)?;
                    bytes -= sizes.get(&layer.id).copied().unwrap_or(0);
                }
            }
        }
        Ok(bytes)
    }
}

impl State {
    /// Forget a name unless one of its layers is held. Returns the layers that no name
    /// mentions any more.
    fn forget(&mut self, name: &Digest) -> Option<Vec<Arc<LayerDir>>> {
        let named = self.names.get(name)?;
        if named.layers.iter().any(|id| self.layers.get(id).is_some_and(|layer| Arc::strong_count(layer) > 1)) {
            return None;
        }
        let named = self.names.remove(name)?;
        let kept: HashSet<u64> = self.names.values().flat_map(|named| named.layers.iter().copied()).collect();
        Some(named.layers.iter().filter(|id| !kept.contains(id)).filter_map(|id| self.layers.remove(id)).collect())
    }
}

impl Shared {
    fn find(&self, name: &Digest) -> Option<Chain> {
        let mut state = self.state.lock();
        let State { layers, names } = &mut *state;
        let named = names.get_mut(name)?;
        let chain = named.layers.iter().map(|id| layers.get(id).cloned()).collect::<Option<Vec<_>>>()?;
        named.used = SystemTime::now();
        drop(state);
        // Only so that a later process knows what was used last.
        if let Ok(file) = File::options().write(true).open(name_path(&self.dir, name)) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(Chain { layers: chain })
    }

    /// Make `fs` of a work folder the top layer over `below`, under `name`.
    fn commit(&self, below: &Chain, work: &WorkDir, name: &Digest) -> io::Result<Chain> {
        if let Some(chain) = self.find(name) {
            return Ok(chain);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = layer_path(&self.dir, id);
        let layer = Arc::new(LayerDir { id, path });
        let mut layers = below.layers.clone();
        layers.push(layer.clone());
        let ids: Vec<u64> = layers.iter().map(|layer| layer.id).collect();
        // Written first: on a full disk this fails, and the layer is still in the work
        // folder, which goes with all that filled the disk.
        let temporary = work.path.join("name");
        fs::write(&temporary, serde_json::to_vec(&NameFile { layers: ids.clone() })?)?;
        fs::rename(work.path.join("fs"), &layer.path)?;
        let mut state = self.state.lock();
        if state.names.contains_key(name) {
            // Another build was faster by a hair.
            drop(state);
            remove(&layer.path)?;
            return self.find(name).ok_or_else(|| io::Error::other("a snapshot vanished"));
        }
        if let Err(error) = fs::rename(&temporary, name_path(&self.dir, name)) {
            // A layer without a name is found by nobody, not even to be evicted.
            drop(state);
            remove(&layer.path)?;
            return Err(error);
        }
        state.layers.insert(id, layer);
        state.names.insert(*name, Named { layers: ids, used: SystemTime::now() });
        Ok(Chain { layers })
    }

    fn mount_for_step(&self, for_steps: &ForSteps, lowers: &[String], work: &WorkDir) -> io::Result<OwnedFd> {
        let name = work.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let active = rustix::fs::openat(&for_steps.work, name, flags, Mode::empty())?;
        let layers = for_steps.layers.as_fd();
        match mount::overlay(&mount::Overlay { layers, lowers, active: active.as_fd() }) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            other => return other,
        }
        let namespace = for_steps.ids.idmap().ok_or_else(|| io::Error::other("there is no user namespace"))?;
        mount::overlay_attached(&self.dir, namespace, lowers, &format!("work/{name}"))
    }

    fn work_dir(&self) -> io::Result<WorkDir> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let work = WorkDir { path: self.dir.join("work").join(id.to_string()), trash: self.trash.clone() };
        private_dir(&work.path)?;
        fs::create_dir(work.path.join("fs"))?;
        rustix::fs::chmod(work.path.join("fs"), Mode::from_raw_mode(0o755))?;
        Ok(work)
    }
}

impl Chain {
    /// The empty file system (`FROM scratch`).
    pub fn empty() -> Chain {
        Chain::default()
    }

    /// How many layers it has.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether it is the empty file system.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The layers' directories, lowest first.
    pub(crate) fn dirs(&self) -> impl DoubleEndedIterator<Item = &Path> {
        self.layers.iter().map(|layer| layer.path.as_path())
    }
}

impl Active {
    fn begin(shared: &Arc<Shared>, chain: &Chain, for_steps: Option<&ForSteps>) -> io::Result<Active> {
        let work = shared.work_dir()?;
        fs::create_dir(work.path.join("work"))?;
        if let Some(top) = chain.layers.last() {
            copy_root(&top.path, &work.path.join("fs"))?;
        }
        let names: Vec<String> = match &chain.layers[..] {
            [] => vec![EMPTY.to_owned()],
            layers => layers.iter().map(|layer| layer.id.to_string()).collect(),
        };
        let mount = match for_steps {
            None => {
                let active = fsys::open_root(&work.path)?;
                mount::overlay(&mount::Overlay {
                    layers: shared.layers.as_fd(),
                    lowers: &names,
                    active: active.as_fd(),
                })?
            }
            Some(for_steps) => shared.mount_for_step(for_steps, &names, &work)?,
        };
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Active { shared: shared.clone(), below: chain.clone(), mount: Some(mount), root, work })
    }

    fn begin_apart(shared: &Arc<Shared>, chain: &Chain) -> io::Result<Active> {
        let work = shared.work_dir()?;
        let fs = work.path.join("fs");
        if let Some(top) = chain.layers.last() {
            copy_root(&top.path, &fs)?;
        }
        // No overlay: that would mark what is new as hiding what is below, where the layer is
        // to add to it.
        let mount = fsys::open_root(&fs)?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Active { shared: shared.clone(), below: chain.clone(), mount: Some(mount), root, work })
    }

    /// Where it is mounted: a path of this process only, good while this value lives. Do not
    /// follow links below it with plain file functions (an absolute one would lead to the
    /// host's files), and do not canonicalise it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the host's that holds what was written, and nothing else.
    pub fn upper(&self) -> PathBuf {
        self.work.path.join("fs")
    }

    /// The root as a directory descriptor.
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.mount.as_ref().map(|mount| mount.as_fd()).ok_or_else(|| io::Error::other("the snapshot was committed"))
    }

    /// Make what was written the top layer of a new chain, to be found as `name` from now
    /// on. Where `name` is there already (another build ran the same step), that one is
    /// returned and this one dropped, so that a name always has one content.
    pub fn commit(mut self, name: &Digest) -> io::Result<Chain> {
        self.mount = None;
        self.shared.commit(&self.below, &self.work, name)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = self.trash.throw(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "remove a snapshot's work folder");
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // Before the folder goes, which is a field and dropped after this.
        self.mount = None;
    }
}

fn layer_path(dir: &Path, id: u64) -> PathBuf {
    dir.join("layers").join(id.to_string())
}

fn name_path(dir: &Path, name: &Digest) -> PathBuf {
    dir.join("names").join(format!("{}-{}", name.algorithm().as_str(), name.hex()))
}

fn read_name(path: &Path, dir: &Path) -> Option<(Digest, Named)> {
    let name: Digest = path.file_name()?.to_str()?.replacen('-', ":", 1).parse().ok()?;
    let file: NameFile = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let whole = file.layers.iter().all(|id| layer_path(dir, *id).is_dir());
    let used = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    whole.then_some((name, Named { layers: file.layers, used }))
}

/// The root directory of the merged tree takes its looks from the uppermost layer.
fn copy_root(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (fsys::open_root(from)?, fsys::open_root(to)?);
    let stat = rustix::fs::fstat(&from)?;
    rustix::fs::fchown(&to, fsys::uid(stat.st_uid), fsys::gid(stat.st_gid))?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut list = vec![0u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(&from, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0u8; 64 * 1024];
    for key in list[..length].split(|byte| *byte == 0).filter(|key| !key.is_empty() && crate::unpack::keep_xattr(key)) {
        let length = rustix::fs::fgetxattr(&from, key, &mut value[..])?;
        rustix::fs::fsetxattr(&to, key, &value[..length], XattrFlags::empty())?;
    }
    rustix::fs::futimens(&to, &fsys::mtime_only(fsys::mtime(&stat)))?;
    Ok(())
}

/// A folder that only we may look into: layers hold other people's setuid programs.
fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    fsys::remove_all(fsys::open_root(parent)?.as_fd(), name)
}

/// What a tree takes up on disk.
pub(crate) fn disk_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut todo = vec![path.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            use std::os::unix::fs::MetadataExt;
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
