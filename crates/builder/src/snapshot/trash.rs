//! What is thrown away is removed behind everybody's back.
//!
//! A step can leave millions of files, or directories thousands deep. Whoever waits for a
//! cancelled build does not wait for those: they are moved aside, which is one rename, and a
//! thread removes them. What it does not get to before the end is moved aside again at the next
//! start.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use crate::cancel::Cancel;
use crate::fsys;

/// A folder for what is to be removed, and the thread that does.
#[derive(Debug)]
pub(super) struct Trash {
    dir: PathBuf,
    next: AtomicU64,
    queue: Option<Sender<PathBuf>>,
    stop: Cancel,
    thread: Option<JoinHandle<()>>,
}

impl Trash {
    /// Use `dir`, which nobody else does, and begin to remove what an earlier process left
    /// in it.
    pub(super) fn open(dir: PathBuf) -> io::Result<Trash> {
        super::private_dir(&dir)?;
        let (queue, thrown) = crossbeam_channel::unbounded::<PathBuf>();
        let stop = Cancel::new();
        let mut next = 0;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            // Names of ours are numbers; what was moved up out of a deep tree has another.
            if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) {
                next = next.max(number + 1);
            }
            let _ = queue.send(entry.path());
        }
        let thread = std::thread::Builder::new().name("snapshot-trash".to_owned()).spawn({
            let stop = stop.clone();
            move || thrown.iter().take_while(|_| !stop.is_cancelled()).for_each(|path| remove(&path, &stop))
        })?;
        Ok(Trash { dir, next: AtomicU64::new(next), queue: Some(queue), stop, thread: Some(thread) })
    }

    /// Remove `path`, on the same file system as the trash, soon; it is gone from its place
    /// when this returns. Nothing there is fine.
    pub(super) fn throw(&self, path: &Path) -> io::Result<()> {
        let aside = self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::rename(path, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // On a file system without room for one more name, say.
            Err(_) => return super::remove(path),
        }
        if let Some(queue) = &self.queue {
            let _ = queue.send(aside);
        }
        Ok(())
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.queue = None;
        self.stop.cancel();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("removing what builds threw away failed");
        }
    }
}

fn remove(path: &Path, stop: &Cancel) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let removed = fsys::open_root(parent).and_then(|dir| fsys::remove_all_until(dir.as_fd(), name, stop));
    match removed {
        Err(error) if !Cancel::is_cause_of(&error) => {
            tracing::warn!(path = %path.display(), %error, "remove what a build threw away");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;

    #[test]
    fn deep_and_wide_trees_go_and_what_was_left_goes_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let (work, bin) = (dir.path().join("work"), dir.path().join("trash"));
        std::fs::create_dir_all(&work).unwrap();
        for n in 0..5_000 {
            std::fs::write(work.join(n.to_string()), "").unwrap();
        }
        let mut at = fsys::open_root(&work).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
            at = rustix::fs::openat(
                &at,
                "d",
                rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
                Mode::empty(),
            )
            .unwrap();
        }
        drop(at);
        // As if a process had been killed.
        super::super::private_dir(&bin).unwrap();
        std::fs::rename(&work, bin.join("7")).unwrap();
        let trash = Trash::open(bin.clone()).unwrap();
        std::fs::write(&work, "a file").unwrap();
        trash.throw(&work).unwrap();
        assert!(!work.exists());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::fs::read_dir(&bin).unwrap().next().is_some() {
            assert!(std::time::Instant::now() < deadline, "the trash is not emptied");
            std::thread::yield_now();
        }
    }
}
