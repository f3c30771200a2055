//! File contents that earlier build contexts left, so that a client need not send them again.
//!
//! ```text
//! stock/r<registry>[-<caller>]/<n>.pack    contents, end to end, as they came
//! stock/r<registry>[-<caller>]/<n>.index   sha256:32 bytes, offset:u64, size:u64 of each
//! ```
//!
//! A *shelf* is what one registry's builds share; where roles are asked for each repository,
//! what one caller's builds share, for who may build there may not read what others build. A
//! context's new contents become a *pack* when the build has been given them: first the
//! contents are made durable, then the index gets its name. A pack without an index is none,
//! and goes with the next start. A pack is never changed. The ones not used for longest go
//! first; a pack somebody was told of within [`PROMISE_SECS`] stays, and while there is no
//! room without it, nothing is added. Builds that hold a pack's file keep it.
//!
//! The stock is this machine's own. It is offered only by a server that is alone on its
//! database: the worker that gets a run must have what the client was told of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portolan_builder::context::{Received, Stock};
use portolan_types::Digest;
use uuid::Uuid;

/// How long a client that was told that contents are here may take until its build has them,
/// in seconds: it sends the rest, and the run waits in the queue.
const PROMISE_SECS: u64 = 3_600;
/// Packs of one shelf. Each is a file that a build may have to open.
const PACKS_MAX: usize = 256;
/// Files that one shelf may know: what they take in memory.
const FILES_MAX: usize = 4_000_000;
/// An index's entry.
const RECORD_BYTES: usize = 48;

/// Contents by registry.
pub(crate) struct Shelves {
    dir: PathBuf,
    bytes_max: u64,
    shelves: Mutex<BTreeMap<String, Arc<Shelf>>>,
}

/// Whose contents: a registry's, or one caller's in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// `registry.id`.
    pub(crate) registry: i64,
    /// Whose builds, where that matters.
    pub(crate) caller: Option<Uuid>,
}

impl Owner {
    /// `all`, or the caller's id: a part of an address.
    pub(crate) fn word(&self) -> String {
        self.caller.map_or_else(|| "all".to_owned(), |caller| caller.to_string())
    }

    /// The name of a folder of this owner's.
    pub(crate) fn folder(&self) -> String {
        match self.caller {
            None => format!("r{}", self.registry),
            Some(caller) => format!("r{}-{caller}", self.registry),
        }
    }

    /// The inverse.
    pub(crate) fn of_word(registry: i64, word: &str) -> Option<Owner> {
        let caller = match word {
            "all" => None,
            id => Some(Uuid::try_parse(id).ok().filter(|parsed| parsed.to_string() == id)?),
        };
        Some(Owner { registry, caller })
    }
}

/// What one owner's builds share.
pub(crate) struct Shelf {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    packs: BTreeMap<u64, Pack>,
    /// Where contents are: pack, offset, size.
    files: HashMap<[u8; 32], (u64, u64, u64)>,
    next: u64,
    /// Dockerfiles whose builds need more of the context than they say, by SHA-256.
    whole: HashSet<[u8; 32]>,
}

/// Dockerfiles that are remembered so.
const WHOLE_MAX: usize = 1_000;

struct Pack {
    bytes: u64,
    file: Option<Arc<File>>,
    used: Instant,
    /// Whether a client was told of it, and when.
    promised: Option<Instant>,
}

impl Shelves {
    /// The stock below `dir`, of at most `bytes_max` bytes. What was left half-written goes.
    pub(crate) fn open(dir: PathBuf, bytes_max: u64) -> io::Result<Shelves> {
        fs::create_dir_all(&dir)?;
        Ok(Shelves { dir, bytes_max, shelves: Mutex::default() })
    }

    /// Whether there is any room.
    pub(crate) fn keeps_something(&self) -> bool {
        self.bytes_max > 0
    }

    /// The shelf of an owner; read from the disk when it is first asked for.
    pub(crate) fn shelf(&self, owner: &Owner) -> io::Result<Arc<Shelf>> {
        let name = owner.folder();
        let mut shelves = self.shelves.lock();
        if let Some(shelf) = shelves.get(&name) {
            return Ok(shelf.clone());
        }
        let shelf = Arc::new(Shelf::open(self.dir.join(&name))?);
        shelves.insert(name, shelf.clone());
        Ok(shelf)
    }

    /// Keep what a context brought: the file at `path` becomes a pack of the owner's shelf,
    /// or is removed. Blocks until it is durable; a build need not wait for it.
    pub(crate) fn keep(&self, owner: &Owner, path: &Path, received: &[Received]) -> io::Result<bool> {
        let kept = self.try_keep(owner, path, received);
        if !matches!(kept, Ok(true)) {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        kept
    }

    fn try_keep(&self, owner: &Owner, path: &Path, received: &[Received]) -> io::Result<bool> {
        let bytes: u64 = received.iter().map(|r| r.size).sum();
        if received.is_empty() || received.len() > FILES_MAX || !self.make_room(bytes)? {
            return Ok(false);
        }
        File::open(path)?.sync_data()?;
        self.shelf(owner)?.add(path, received, bytes).map(|()| true)
    }

    /// Whether so many bytes more fit, once packs nobody counts on have gone.
    fn make_room(&self, bytes: u64) -> io::Result<bool> {
        if bytes > self.bytes_max {
            return Ok(false);
        }
        // Those of owners that were not asked for since the start count, too.
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Some(owner) = owner_of(&entry.file_name().to_string_lossy()) {
                self.shelf(&owner)?;
            }
        }
        let shelves: Vec<Arc<Shelf>> = self.shelves.lock().values().cloned().collect();
        loop {
            let held: u64 = shelves.iter().map(|s| s.bytes()).sum();
            if held.saturating_add(bytes) <= self.bytes_max {
                return Ok(true);
            }
            let oldest = shelves.iter().filter_map(|s| Some((s.oldest()?, s))).min_by_key(|((used, _), _)| *used);
            let Some(((_, pack), shelf)) = oldest else { return Ok(false) };
            shelf.remove(pack)?;
        }
    }

    /// Drop what belongs to registries that are gone.
    pub(crate) fn retain(&self, exists: &dyn Fn(i64) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if owner_of(&name).is_none_or(|owner| !exists(owner.registry)) {
                self.shelves.lock().remove(&name);
                fs::remove_dir_all(self.dir.join(&name))?;
            }
        }
        Ok(())
    }
}

/// Whose folder it is.
fn owner_of(name: &str) -> Option<Owner> {
    let rest = name.strip_prefix('r')?;
    let (registry, word) = rest.split_once('-').unwrap_or((rest, "all"));
    Owner::of_word(registry.parse().ok()?, word)
}

impl Shelf {
    fn open(dir: PathBuf) -> io::Result<Shelf> {
        fs::create_dir_all(&dir)?;
        let mut state = State::default();
        let now = Instant::now();
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_suffix(".index").and_then(|n| n.parse::<u64>().ok());
            match number {
                // Read by a file's time: the last that was added is the last to go.
                Some(number) => found.push((entry.metadata()?.modified()?, number)),
                None if name.ends_with(".pack") && dir.join(name.replace(".pack", ".index")).exists() => {}
                None => fs::remove_file(entry.path())?,
            }
        }
        found.sort_unstable();
        let count = found.len() as u64;
        for (age, (_, number)) in found.into_iter().enumerate() {
            let pack = dir.join(format!("{number}.pack"));
            let index = dir.join(format!("{number}.index"));
            let records = fs::metadata(&pack).and_then(|meta| Ok((meta.len(), read_index(&index)?)));
            let (length, records) = match records {
                Ok(read) => read,
                Err(error) => {
                    tracing::warn!(%error, path = %index.display(), "forget contents of build contexts");
                    remove(&index)?;
                    remove(&pack)?;
                    continue;
                }
            };
            let fits = |r: &Received| r.at.checked_add(r.size).is_some_and(|end| end <= length);
            for r in records.iter().filter(|r| fits(r)) {
                state.files.insert(r.hash, (number, r.at, r.size));
            }
            let used = now.checked_sub(Duration::from_millis(count - age as u64)).unwrap_or(now);
            state.packs.insert(number, Pack { bytes: length, file: None, used, promised: None });
            state.next = state.next.max(number + 1);
        }
        Ok(Shelf { dir, state: Mutex::new(state) })
    }

    /// Which of these contents are not here, by their place in the list. The ones that are
    /// will be for as long as a promise holds.
    pub(crate) fn missing(&self, wanted: &[([u8; 32], u64)]) -> Vec<u32> {
        let state = &mut *self.state.lock();
        let now = Instant::now();
        let mut out = Vec::new();
        let mut told: Vec<u64> = Vec::new();
        for (number, (hash, size)) in wanted.iter().enumerate() {
            match state.files.get(hash) {
                Some((pack, _, length)) if length == size => {
                    if told.last() != Some(pack) {
                        told.push(*pack);
                    }
                }
                _ => out.push(u32::try_from(number).unwrap_or(u32::MAX)),
            }
        }
        for pack in told {
            if let Some(pack) = state.packs.get_mut(&pack) {
                (pack.used, pack.promised) = (now, Some(now));
            }
        }
        out
    }

    /// Whether builds of a Dockerfile must be sent all of their context.
    pub(crate) fn is_whole(&self, dockerfile: &[u8]) -> bool {
        self.state.lock().whole.contains(&hash_of(dockerfile))
    }

    /// From now on, until the server starts again, they are.
    pub(crate) fn send_whole(&self, dockerfile: &[u8]) {
        let mut state = self.state.lock();
        if state.whole.len() >= WHOLE_MAX {
            state.whole.clear();
        }
        state.whole.insert(hash_of(dockerfile));
    }

    fn bytes(&self) -> u64 {
        self.state.lock().packs.values().map(|p| p.bytes).sum()
    }

    /// The pack that may go and was not used for longest.
    fn oldest(&self) -> Option<(Instant, u64)> {
        let state = self.state.lock();
        let free = |p: &Pack| p.promised.is_none_or(|at| at.elapsed() > Duration::from_secs(PROMISE_SECS));
        state.packs.iter().filter(|(_, p)| free(p)).map(|(number, p)| (p.used, *number)).min()
    }

    fn remove(&self, pack: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.packs.remove(&pack);
        state.files.retain(|_, (p, _, _)| *p != pack);
        // The index first: without it the pack is nothing.
        remove(&self.dir.join(format!("{pack}.index")))?;
        remove(&self.dir.join(format!("{pack}.pack")))
    }

    fn add(&self, path: &Path, received: &[Received], bytes: u64) -> io::Result<()> {
        let number = {
            let mut state = self.state.lock();
            state.next += 1;
            state.next - 1
        };
        loop {
            let full = {
                let state = self.state.lock();
                state.packs.len() >= PACKS_MAX || state.files.len() + received.len() > FILES_MAX
            };
            match self.oldest().filter(|_| full) {
                Some((_, pack)) => self.remove(pack)?,
                None if full => return Err(io::Error::other("there is no room for contents of build contexts")),
                None => break,
            }
        }
        let pack = self.dir.join(format!("{number}.pack"));
        fs::rename(path, &pack)?;
        let mut index = Vec::with_capacity(received.len() * RECORD_BYTES);
        for r in received {
            index.extend_from_slice(&r.hash);
            index.extend_from_slice(&r.at.to_le_bytes());
            index.extend_from_slice(&r.size.to_le_bytes());
        }
        let draft = self.dir.join(format!("{number}.draft"));
        let mut file = File::create(&draft)?;
        file.write_all(&index)?;
        file.sync_data()?;
        fs::rename(&draft, self.dir.join(format!("{number}.index")))?;
        let mut state = self.state.lock();
        state.packs.insert(number, Pack { bytes, file: None, used: Instant::now(), promised: None });
        for r in received {
            state.files.insert(r.hash, (number, r.at, r.size));
        }
        Ok(())
    }
}

impl Stock for Shelf {
    fn find(&self, hash: &[u8; 32], size: u64) -> io::Result<Option<(Arc<File>, u64)>> {
        let mut state = self.state.lock();
        let Some((number, at, _)) = state.files.get(hash).copied().filter(|(_, _, length)| *length == size) else {
            return Ok(None);
        };
        let Some(pack) = state.packs.get_mut(&number) else { return Ok(None) };
        pack.used = Instant::now();
        let file = match &pack.file {
            Some(file) => file.clone(),
            None => {
                let file = match File::open(self.dir.join(format!("{number}.pack"))) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    file => Arc::new(file?),
                };
                pack.file = Some(file.clone());
                file
            }
        };
        Ok(Some((file, at)))
    }
}

fn hash_of(bytes: &[u8]) -> [u8; 32] {
    Digest::of(bytes).bytes().try_into().unwrap_or_default()
}

fn read_index(path: &Path) -> io::Result<Vec<Received>> {
    let mut bytes = Vec::new();
    File::open(path)?.take((FILES_MAX * RECORD_BYTES) as u64).read_to_end(&mut bytes)?;
    let number = |n: &[u8]| n.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let records = bytes.chunks_exact(RECORD_BYTES).filter_map(|r| {
        let hash = r[..32].try_into().ok()?;
        Some(Received { hash, at: number(&r[32..40]), size: number(&r[40..48]) })
    });
    Ok(records.collect())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const OWNER: Owner = Owner { registry: 7, caller: None };

    fn keep(shelves: &Shelves, dir: &Path, owner: &Owner, texts: &[&str]) -> bool {
        let path = dir.join("incoming");
        fs::write(&path, texts.concat()).unwrap();
        let mut at = 0;
        let received: Vec<Received> = texts
            .iter()
            .map(|text| {
                at += text.len() as u64;
                Received { hash: hash(text), at: at - text.len() as u64, size: text.len() as u64 }
            })
            .collect();
        let kept = shelves.keep(owner, &path, &received).unwrap();
        assert!(!path.exists());
        kept
    }

    fn hash(text: &str) -> [u8; 32] {
        portolan_types::Digest::of(text.as_bytes()).bytes().try_into().unwrap()
    }

    fn read(shelves: &Shelves, owner: &Owner, text: &str) -> Option<String> {
        let (file, at) = shelves.shelf(owner).unwrap().find(&hash(text), text.len() as u64).unwrap()?;
        let mut bytes = vec![0; text.len()];
        file.read_exact_at(&mut bytes, at).unwrap();
        Some(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_one_build_brings_others_find_after_a_restart_and_strangers_never() {
        let dir = tempfile::tempdir().unwrap();
        let stock = dir.path().join("stock");
        let shelves = Shelves::open(stock.clone(), 1000).unwrap();
        assert!(keep(&shelves, dir.path(), &OWNER, &["one", "two"]));
        assert_eq!(read(&shelves, &OWNER, "two").as_deref(), Some("two"));
        let wanted = [(hash("one"), 3), (hash("three"), 5), (hash("two"), 4)];
        assert_eq!(shelves.shelf(&OWNER).unwrap().missing(&wanted), [1, 2], "a hash without its size is not enough");
        fs::write(stock.join("r7/9.pack"), "half").unwrap();
        let again = Shelves::open(stock.clone(), 1000).unwrap();
        assert_eq!(read(&again, &OWNER, "one").as_deref(), Some("one"));
        assert!(!stock.join("r7/9.pack").exists(), "a pack without an index goes");
        for other in [Owner { registry: 8, caller: None }, Owner { registry: 7, caller: Some(Uuid::nil()) }] {
            assert_eq!(read(&again, &other, "one"), None);
            assert_eq!(Owner::of_word(other.registry, &other.word()), Some(other));
        }
        again.retain(&|registry| registry != 7).unwrap();
        assert!(!stock.join("r7").exists() && stock.join("r8").exists());
    }

    #[test]
    fn the_least_recently_used_goes_and_a_promise_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let shelves = Shelves::open(dir.path().join("stock"), 10).unwrap();
        for text in ["aaaa", "bbbb"] {
            assert!(keep(&shelves, dir.path(), &OWNER, &[text]));
        }
        assert!(read(&shelves, &OWNER, "aaaa").is_some());
        assert!(keep(&shelves, dir.path(), &OWNER, &["cccc"]));
        assert_eq!((read(&shelves, &OWNER, "bbbb"), read(&shelves, &OWNER, "aaaa").is_some()), (None, true));
        assert!(shelves.shelf(&OWNER).unwrap().missing(&[(hash("aaaa"), 4), (hash("cccc"), 4)]).is_empty());
        assert!(!keep(&shelves, dir.path(), &OWNER, &["dddd"]), "both were promised");
        assert!(read(&shelves, &OWNER, "aaaa").is_some() && read(&shelves, &OWNER, "dddd").is_none());
        assert!(!keep(&shelves, dir.path(), &OWNER, &["larger than all"]));
    }
}
