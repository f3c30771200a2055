//! Folders of `RUN --mount=type=cache`, which last from build to build.
//!
//! The nouns: a *cache* is what a Dockerfile means by an id; its key is made of all that tells
//! it from others (whose builds they are, the id, what it begins with, who owns it). A *slot*
//! is a folder of a cache. A cache has one slot for as long as steps share it or wait for each
//! other; steps that want one for themselves while it is in use get another, which is kept
//! too.
//!
//! The life of a step: [`Caches::take`] finds or makes a slot and waits for it where the
//! mount says `locked`; the folder is mounted into the step; dropping the [`Hold`] measures
//! the folder and gives it back. What is over the limit then goes, the least recently used
//! first.
//!
//! On disk, below the folder of the caches:
//! ```text
//! <key>/<n>/fs/    what the step sees
//! <key>/<n>/bytes  how much that was after its last use; its time is when that was
//! gone/<n>/        on its way out
//! ```
//! A slot without `bytes` was never complete and goes at the next open, as does `gone`. What
//! was in use when the machine died is kept, as package managers keep their own.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex};
use portolan_types::Digest;
use rustix::fs::Mode;

use crate::cancel::Cancel;
use crate::fsys;
use crate::instruct::Sharing;

/// All caches of one engine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Caches(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    bytes_max: u64,
    next: AtomicU64,
    state: Mutex<HashMap<String, BTreeMap<u64, Slot>>>,
    /// Told when a slot is given back.
    given_back: Condvar,
}

/// One folder of a cache, and who is using it.
struct Slot {
    /// Steps that share it.
    sharing: usize,
    /// Whether one step has it for itself.
    taken: bool,
    /// Whether it is being filled, to be shared after that.
    filling: bool,
    used: SystemTime,
    bytes: u64,
}

impl Slot {
    fn is_free(&self) -> bool {
        self.sharing == 0 && !self.taken
    }
}

/// How a new folder is to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A cache's folder in use by one step.
pub(crate) struct Hold {
    caches: Caches,
    key: String,
    slot: u64,
    alone: bool,
    /// What was in it when it was taken.
    bytes: u64,
}

impl Caches {
    /// The caches under `dir`, which nobody else uses, of at most `bytes_max` bytes.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> io::Result<Caches> {
        private_dir(dir)?;
        remove(&dir.join("gone"))?;
        private_dir(&dir.join("gone"))?;
        let mut state: HashMap<String, BTreeMap<u64, Slot>> = HashMap::new();
        let mut next = 1;
        for cache in fs::read_dir(dir)? {
            let cache = cache?;
            let Some(key) = cache.file_name().to_str().map(str::to_owned).filter(|key| key != "gone") else { continue };
            let mut slots = BTreeMap::new();
            for entry in fs::read_dir(cache.path())? {
                let entry = entry?;
                let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
                match (number, measured(&entry.path())) {
                    (Some(number), Some((bytes, used))) => {
                        next = next.max(number + 1);
                        slots.insert(number, Slot { sharing: 0, taken: false, filling: false, used, bytes });
                    }
                    _ => remove(&entry.path())?,
                }
            }
            if slots.is_empty() {
                remove(&cache.path())?;
            } else {
                state.insert(key, slots);
            }
        }
        let caches = Caches(Arc::new(Shared {
            dir: dir.to_owned(),
            bytes_max,
            next: AtomicU64::new(next),
            state: Mutex::new(state),
            given_back: Condvar::new(),
        }));
        caches.evict()?;
        Ok(caches)
    }

    /// A folder of the cache `key` for one step. `fill` puts into a new one what it begins
    /// with. Waits for a locked one until `cancel` is raised.
    pub(crate) fn take(
        &self,
        key: &Digest,
        sharing: Sharing,
        owner: Owner,
        cancel: &Cancel,
        fill: &dyn Fn(&Path) -> io::Result<()>,
    ) -> io::Result<Hold> {
        let key = key.hex().to_string();
        // Wakes the wait below; it takes the lock so that it cannot fall between look and wait.
        let _wake = cancel.on_cancel({
            let shared = self.0.clone();
            move || {
                drop(shared.state.lock());
                shared.given_back.notify_all();
            }
        });
        let mut state = self.0.state.lock();
        loop {
            cancel.check()?;
            let slots = state.entry(key.clone()).or_default();
            let shared = slots.iter().find(|(_, slot)| slot.sharing > 0).map(|(number, _)| *number);
            let free = slots.iter().find(|(_, slot)| slot.is_free()).map(|(number, _)| *number);
            let found = match sharing {
                Sharing::Shared => shared.or(free),
                Sharing::Private | Sharing::Locked => free,
            };
            if let Some(number) = found {
                let alone = sharing != Sharing::Shared;
                if let Some(slot) = slots.get_mut(&number) {
                    if alone { slot.taken = true } else { slot.sharing += 1 }
                }
                let bytes = slots.get(&number).map_or(0, |slot| slot.bytes);
                return Ok(Hold { caches: self.clone(), key, slot: number, alone, bytes });
            }
            // One that is to be shared is waited for while it is being filled.
            let coming = sharing == Sharing::Shared && slots.values().any(|slot| slot.filling);
            if coming || (sharing == Sharing::Locked && !slots.is_empty()) {
                self.0.given_back.wait(&mut state);
                continue;
            }
            // Taken while it is being filled, by whoever asked first.
            let number = self.0.next.fetch_add(1, Ordering::Relaxed);
            let filling = sharing == Sharing::Shared;
            slots.insert(number, Slot { sharing: 0, taken: true, filling, used: SystemTime::now(), bytes: 0 });
            drop(state);
            let hold = Hold { caches: self.clone(), key, slot: number, alone: true, bytes: 0 };
            return self.make(hold, sharing, owner, fill);
        }
    }

    fn make(
        &self,
        mut hold: Hold,
        sharing: Sharing,
        owner: Owner,
        fill: &dyn Fn(&Path) -> io::Result<()>,
    ) -> io::Result<Hold> {
        let made = || {
            let slot = hold.dir();
            private_dir(&slot)?;
            let path = hold.path();
            fs::create_dir(&path)?;
            fill(&path)?;
            rustix::fs::chown(&path, fsys::uid(owner.uid), fsys::gid(owner.gid))?;
            rustix::fs::chmod(&path, Mode::from_raw_mode(owner.mode))?;
            fs::write(slot.join("bytes"), "0")
        };
        if let Err(error) = made() {
            self.forget(&hold.key, hold.slot);
            return Err(error);
        }
        if sharing == Sharing::Shared {
            let mut state = self.0.state.lock();
            if let Some(slot) = state.get_mut(&hold.key).and_then(|slots| slots.get_mut(&hold.slot)) {
                slot.taken = false;
                slot.filling = false;
                slot.sharing += 1;
            }
            hold.alone = false;
            drop(state);
            self.0.given_back.notify_all();
        }
        Ok(hold)
    }

    /// Take a slot out and remove its folder.
    fn forget(&self, key: &str, number: u64) {
        let mut state = self.0.state.lock();
        if let Some(slots) = state.get_mut(key) {
            slots.remove(&number);
            if slots.is_empty() {
                state.remove(key);
            }
        }
        // Out of the way while nobody can find it: its number is never used again.
        let gone = self.0.dir.join("gone").join(number.to_string());
        let from = self.0.dir.join(key).join(number.to_string());
        let moved = fs::rename(&from, &gone);
        let empty = !state.contains_key(key);
        if empty {
            let _ = fs::remove_dir(self.0.dir.join(key));
        }
        drop(state);
        self.0.given_back.notify_all();
        let removed = match moved {
            Ok(()) => remove(&gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %from.display(), %error, "remove a cache of build steps");
        }
    }

    /// Remove what was not used for longest until the rest is within the limit. Returns how
    /// many bytes are left.
    pub(crate) fn evict(&self) -> io::Result<u64> {
        loop {
            let state = self.0.state.lock();
            let all = || state.iter().flat_map(|(key, slots)| slots.iter().map(move |(n, slot)| (key, *n, slot)));
            let bytes = all().fold(0u64, |sum, (_, _, slot)| sum.saturating_add(slot.bytes));
            if bytes <= self.0.bytes_max {
                return Ok(bytes);
            }
            let oldest = all().filter(|(_, _, slot)| slot.is_free()).min_by_key(|(_, _, slot)| slot.used);
            let Some((key, number)) = oldest.map(|(key, number, _)| (key.clone(), number)) else { return Ok(bytes) };
            drop(state);
            self.forget_free(&key, number);
        }
    }

    /// Take a slot out unless somebody took it meanwhile.
    fn forget_free(&self, key: &str, number: u64) {
        let mut state = self.0.state.lock();
        let Some(slot) = state.get_mut(key).and_then(|slots| slots.get_mut(&number)) else { return };
        if !slot.is_free() {
            return;
        }
        slot.taken = true;
        drop(state);
        self.forget(key, number);
    }
}

impl Hold {
    fn dir(&self) -> PathBuf {
        self.caches.0.dir.join(&self.key).join(self.slot.to_string())
    }

    /// How many bytes were in it when it was taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The folder that the step is to see.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir().join("fs")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A tree that cannot be measured is not one to keep.
        let bytes = crate::snapshot::disk_bytes(&self.path()).unwrap_or(u64::MAX);
        let written = fs::write(self.dir().join("bytes"), bytes.to_string());
        let mut state = self.caches.0.state.lock();
        let Some(slot) = state.get_mut(&self.key).and_then(|slots| slots.get_mut(&self.slot)) else { return };
        if self.alone {
            slot.taken = false;
        } else {
            slot.sharing = slot.sharing.saturating_sub(1);
        }
        slot.bytes = bytes;
        slot.used = SystemTime::now();
        drop(state);
        self.caches.0.given_back.notify_all();
        if let Err(error) = written.and_then(|()| self.caches.evict().map(drop)) {
            tracing::warn!(%error, "put a cache of build steps in order");
        }
    }
}

/// What `bytes` of a slot says, and when it was written.
fn measured(slot: &Path) -> Option<(u64, SystemTime)> {
    let path = slot.join("bytes");
    let bytes = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    let used = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
    slot.join("fs").is_dir().then_some((bytes, used))
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    use std::os::fd::AsFd;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    fsys::remove_all(fsys::open_root(parent)?.as_fd(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { mode: 0o750, uid: 0, gid: 0 };

    fn take(caches: &Caches, name: &str, sharing: Sharing) -> Hold {
        caches.take(&Digest::of(name.as_bytes()), sharing, OWNER, &Cancel::new(), &|_| Ok(())).unwrap()
    }

    #[test]
    fn sharing_is_as_told() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::open(dir.path(), u64::MAX).unwrap();
        let (a, b) = (take(&caches, "x", Sharing::Shared), take(&caches, "x", Sharing::Shared));
        assert_eq!(a.path(), b.path());
        let own = take(&caches, "x", Sharing::Private);
        assert_ne!(own.path(), a.path());
        assert_ne!(take(&caches, "y", Sharing::Shared).path(), a.path(), "another cache");
        let cancel = Cancel::new();
        let waiting = std::thread::spawn({
            let (caches, cancel) = (caches.clone(), cancel.clone());
            move || caches.take(&Digest::of(b"x"), Sharing::Locked, OWNER, &cancel, &|_| Ok(())).map(drop)
        });
        assert!(!waiting.is_finished());
        cancel.cancel();
        assert!(Cancel::is_cause_of(&waiting.join().unwrap().unwrap_err()), "a wait ends with its build");
        let path = own.path();
        drop(own);
        assert_eq!(take(&caches, "x", Sharing::Locked).path(), path, "any that is free will do");
    }

    #[test]
    fn a_locked_one_is_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::open(dir.path(), u64::MAX).unwrap();
        let inside = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let hold = take(&caches, "x", Sharing::Locked);
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two steps are in one locked cache");
                    fs::write(hold.path().join("f"), "x").unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "one cache, and the folder of what goes");
    }

    #[test]
    fn the_least_recently_used_goes_and_the_rest_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::open(dir.path(), 300_000).unwrap();
        for name in ["a", "b", "c"] {
            let hold = take(&caches, name, Sharing::Shared);
            fs::write(hold.path().join("f"), vec![7u8; 80_000]).unwrap();
        }
        drop(take(&caches, "a", Sharing::Shared));
        let kept = |caches: &Caches, name: &str| take(caches, name, Sharing::Shared).path().join("f").exists();
        let hold = take(&caches, "d", Sharing::Locked);
        fs::write(hold.path().join("f"), vec![7u8; 80_000]).unwrap();
        drop(hold);
        drop(caches);
        // Made by a process that died before it was complete.
        fs::create_dir_all(dir.path().join("half/1/fs")).unwrap();
        let caches = Caches::open(dir.path(), 300_000).unwrap();
        assert!(!dir.path().join("half").exists());
        assert!(kept(&caches, "a") && kept(&caches, "c") && kept(&caches, "d"));
        assert!(!kept(&caches, "b"), "it was used longest ago");
        drop(caches);
        let caches = Caches::open(dir.path(), 1).unwrap();
        assert!(["a", "c", "d"].iter().all(|name| !kept(&caches, name)), "a smaller limit holds at once");
    }

    #[test]
    fn one_that_is_being_filled_is_shared_too() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::open(dir.path(), u64::MAX).unwrap();
        let (filling, begun) = crossbeam_channel::bounded(1);
        let (go, may_go) = crossbeam_channel::bounded::<()>(1);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                let fill = |_: &Path| {
                    filling.send(()).map_err(io::Error::other)?;
                    may_go.recv().map_err(io::Error::other)
                };
                caches.take(&Digest::of(b"x"), Sharing::Shared, OWNER, &Cancel::new(), &fill).unwrap()
            });
            begun.recv().unwrap();
            let second = scope.spawn(|| take(&caches, "x", Sharing::Shared));
            go.send(()).unwrap();
            assert_eq!(first.join().unwrap().path(), second.join().unwrap().path());
        });
    }

    #[test]
    fn a_cache_that_cannot_be_filled_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::open(dir.path(), u64::MAX).unwrap();
        let key = Digest::of(b"x");
        let fail = |path: &Path| {
            fs::write(path.join("half"), "")?;
            Err(io::Error::other("no"))
        };
        assert!(caches.take(&key, Sharing::Locked, OWNER, &Cancel::new(), &fail).is_err());
        let hold = take(&caches, "x", Sharing::Locked);
        assert_eq!(fs::read_dir(hold.path()).unwrap().count(), 0);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(hold.path()).unwrap().permissions().mode() & 0o7777, 0o750);
    }
}
