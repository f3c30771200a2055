//! How much of the disk a step and a build may take.
//!
//! What a step writes lies in one directory of the host's (the upper one of its overlay). File
//! systems with project quotas are rare, and a file system of limited size for each step would
//! have to be copied from, so the directory is measured: while the step runs, whenever the
//! free space of the file system has shrunk by enough that a limit may be near, and now and
//! then, and once more when it has ended. A step that took too much is killed. How much it can
//! take beyond its limit is what the disk writes in [`LOOK_EVERY`] and the time of a walk.
//!
//! A file counts with its size or its blocks, whichever is more: a sparse file is small on the
//! disk, but not in the layer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustix::fs::{FileType, Mode, OFlags, StatVfs, fstatvfs};

use crate::cancel::Cancel;
use crate::fsys;

/// How often the free space is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The directory is measured at least this often, unless it is so large that a walk takes
/// more than a twentieth of the time.
const WALK_EVERY: Duration = Duration::from_secs(5);
const WALK_SHARE: u32 = 20;
/// Less than this is not worth a walk.
const SPENT_BYTES_MIN: u64 = 16 * 1024 * 1024;
const SPENT_FILES_MIN: u64 = 4_096;
/// A step that wrote less than this is not blamed for a full disk.
const BLAME_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Directories open at one time in a walk; deeper ones cannot be put in a layer anyway.
const DEPTH_MAX: usize = fsys::DEPTH_MAX;

/// Limits on what is written. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes of the files that one step writes.
    pub step_bytes_max: Option<u64>,
    /// Files, folders and links that one step writes.
    pub step_files_max: Option<u64>,
    /// Bytes of the files that all steps of a build write.
    pub build_bytes_max: Option<u64>,
    /// Bytes that stay free on the file system of the builds. A step that is writing when
    /// there is less is ended.
    pub free_bytes_min: Option<u64>,
}

/// What the steps of one build have written.
#[derive(Debug, Default)]
pub struct BuildDisk {
    limits: DiskLimits,
    bytes: AtomicU64,
}

/// A limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// The step's bytes: the limit.
    StepBytes(u64),
    /// The step's files: the limit.
    StepFiles(u64),
    /// The build's bytes: the limit.
    BuildBytes(u64),
    /// The machine's disk is nearly full.
    Full,
    /// Directories deeper than a layer may have them: the limit.
    Depth(u64),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::StepBytes(max) => write!(f, "the step wrote more than {}, which is the most it may", Size(*max)),
            Excess::StepFiles(max) => write!(f, "the step made more than {max} files, which is the most it may"),
            Excess::BuildBytes(max) => {
                write!(f, "the steps of this build wrote more than {}, which is the most they may", Size(*max))
            }
            Excess::Full => f.write_str("the disk for builds is nearly full, and the step went on writing"),
            Excess::Depth(max) => write!(f, "the step made directories more than {max} deep"),
        }
    }
}

struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >> shift > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

impl BuildDisk {
    /// Nothing is written yet.
    pub fn new(limits: DiskLimits) -> BuildDisk {
        BuildDisk { limits, bytes: AtomicU64::new(0) }
    }

    /// Look after what a step writes into `upper`, a directory of the host's that is empty or
    /// holds no more than its own attributes.
    ///
    /// `also` are the other folders that it can write to, each with the bytes that were in it
    /// before.
    pub fn watch<'a>(&'a self, upper: &Path, also: &[(PathBuf, u64)]) -> io::Result<Watch<'a>> {
        let dir = fsys::open_root(upper)?;
        let others = also.iter().map(|(folder, _)| fsys::open_root(folder)).collect::<io::Result<Vec<_>>>()?;
        let before = also.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let free = fstatvfs(&dir)?;
        Ok(Watch {
            build: self,
            dir,
            others,
            before,
            free,
            used: Use::default(),
            walked: Instant::now(),
            walk: Duration::ZERO,
        })
    }
}

/// What is in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    bytes: u64,
    files: u64,
}

/// Looks after one step.
pub struct Watch<'a> {
    build: &'a BuildDisk,
    dir: OwnedFd,
    /// What else it can write to, on the same file system.
    others: Vec<OwnedFd>,
    /// Bytes that were in those.
    before: u64,
    /// As it was at the last walk.
    free: StatVfs,
    used: Use,
    walked: Instant,
    /// How long the last walk took.
    walk: Duration,
}

impl Watch<'_> {
    /// While the step runs: cheap, unless a limit may have been passed.
    pub fn look(&mut self, cancel: &Cancel) -> io::Result<Option<Excess>> {
        let now = fstatvfs(&self.dir)?;
        let limits = &self.build.limits;
        let free = now.f_bavail.saturating_mul(now.f_frsize);
        let spent_bytes = (self.free.f_bfree.saturating_sub(now.f_bfree)).saturating_mul(now.f_frsize);
        let spent_files = self.free.f_ffree.saturating_sub(now.f_ffree);
        let room = |max: Option<u64>, used: u64, least: u64| max.map(|max| (max.saturating_sub(used) / 2).max(least));
        let low = limits.free_bytes_min.is_some_and(|min| free < min);
        let build = self.build.bytes.load(Ordering::Relaxed);
        let due = (low && spent_bytes > 0)
            || room(limits.step_bytes_max, self.used.bytes, SPENT_BYTES_MIN).is_some_and(|room| spent_bytes >= room)
            || room(limits.build_bytes_max, build, SPENT_BYTES_MIN).is_some_and(|room| spent_bytes >= room)
            || room(limits.step_files_max, self.used.files, SPENT_FILES_MIN).is_some_and(|room| spent_files >= room)
            || self.walked.elapsed() >= WALK_EVERY.max(self.walk * WALK_SHARE);
        if due { self.measure(low, cancel) } else { Ok(None) }
    }

    /// When the step has ended: the whole truth.
    pub fn last(mut self, cancel: &Cancel) -> io::Result<Option<Excess>> {
        self.measure(false, cancel)
    }

    fn measure(&mut self, low: bool, cancel: &Cancel) -> io::Result<Option<Excess>> {
        let begun = Instant::now();
        self.free = fstatvfs(&self.dir)?;
        let limits = &self.build.limits;
        let mut walk = Walk { limits, cancel, before: self.before, used: Use::default(), excess: None };
        walk.dir(self.dir.as_fd(), 0)?;
        for dir in &self.others {
            if walk.excess.is_none() {
                walk.dir(dir.as_fd(), 0)?;
            }
        }
        walk.used.bytes = walk.used.bytes.saturating_sub(self.before);
        let before = std::mem::replace(&mut self.used, walk.used);
        let more = self.used.bytes.saturating_sub(before.bytes);
        let less = before.bytes.saturating_sub(self.used.bytes);
        self.build.bytes.fetch_sub(less, Ordering::Relaxed);
        let build = self.build.bytes.fetch_add(more, Ordering::Relaxed) + more;
        self.walked = Instant::now();
        self.walk = begun.elapsed();
        if walk.excess.is_some() {
            return Ok(walk.excess);
        }
        if let Some(max) = limits.build_bytes_max.filter(|max| build > *max) {
            return Ok(Some(Excess::BuildBytes(max)));
        }
        Ok((low && self.used.bytes >= BLAME_BYTES_MIN).then_some(Excess::Full))
    }
}

struct Walk<'a> {
    limits: &'a DiskLimits,
    cancel: &'a Cancel,
    /// Bytes that do not count.
    before: u64,
    used: Use,
    excess: Option<Excess>,
}

impl Walk<'_> {
    /// Add up a directory, which somebody may be changing, until a limit is passed.
    fn dir(&mut self, dir: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            self.excess = Some(Excess::Depth(DEPTH_MAX as u64));
            return Ok(());
        }
        self.cancel.check()?;
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if fsys::is_missing(&error.into()) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(error) if fsys::is_missing(&error.into()) => continue,
                Err(error) => return Err(error.into()),
            };
            self.used.files += 1;
            let size = match fsys::kind(&stat) {
                FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(0),
                _ => 0,
            };
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
            // A file of several names is met several times.
            let links = u64::from(u32::try_from(stat.st_nlink).unwrap_or(u32::MAX)).max(1);
            let bytes = size.max(blocks);
            self.used.bytes += if fsys::kind(&stat) == FileType::Directory { bytes } else { bytes.div_ceil(links) };
            if let Some(max) = self.limits.step_files_max.filter(|max| self.used.files > *max) {
                self.excess = Some(Excess::StepFiles(max));
            }
            if let Some(max) =
                self.limits.step_bytes_max.filter(|max| self.used.bytes.saturating_sub(self.before) > *max)
            {
                self.excess = Some(Excess::StepBytes(max));
            }
            if self.excess.is_none() && fsys::kind(&stat) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(dir, name, flags, Mode::empty()) {
                    Ok(below) => self.dir(below.as_fd(), depth + 1)?,
                    // Replaced or removed meanwhile.
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if self.excess.is_some() {
                return Ok(());
            }
            if self.used.files.is_multiple_of(1_024) {
                self.cancel.check()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(limits: DiskLimits, fill: impl FnOnce(&Path)) -> Option<Excess> {
        let dir = tempfile::tempdir().unwrap();
        let build = BuildDisk::new(limits);
        let watch = build.watch(dir.path(), &[]).unwrap();
        fill(dir.path());
        watch.last(&Cancel::new()).unwrap()
    }

    #[test]
    fn what_was_in_a_cache_before_does_not_count_and_what_is_added_does() {
        let (upper, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |name: &str| std::fs::write(cache.path().join(name), vec![1u8; 200_000]).unwrap();
        write("before");
        let also = [(cache.path().to_owned(), crate::snapshot::disk_bytes(cache.path()).unwrap())];
        let build = BuildDisk::new(DiskLimits { step_bytes_max: Some(300_000), ..DiskLimits::default() });
        let look = || build.watch(upper.path(), &also).unwrap().last(&Cancel::new()).unwrap();
        write("one");
        assert_eq!(look(), None);
        write("two");
        assert_eq!(look(), Some(Excess::StepBytes(300_000)));
    }

    #[test]
    fn each_limit_is_told() {
        let none = DiskLimits::default();
        let fill = |dir: &Path| {
            std::fs::create_dir(dir.join("d")).unwrap();
            std::fs::write(dir.join("d/a"), vec![1; 300_000]).unwrap();
            std::fs::hard_link(dir.join("d/a"), dir.join("d/b")).unwrap();
        };
        assert_eq!(measured(none, fill), None);
        let step = |max| DiskLimits { step_bytes_max: Some(max), ..none };
        assert_eq!(measured(step(400_000), fill), None, "a file of two names counts once");
        assert_eq!(measured(step(200_000), fill), Some(Excess::StepBytes(200_000)));
        assert_eq!(measured(DiskLimits { step_files_max: Some(3), ..none }, fill), None);
        assert_eq!(measured(DiskLimits { step_files_max: Some(2), ..none }, fill), Some(Excess::StepFiles(2)));
        let build = DiskLimits { build_bytes_max: Some(100_000), ..none };
        assert_eq!(measured(build, fill), Some(Excess::BuildBytes(100_000)));
        let sparse = |dir: &Path| std::fs::File::create(dir.join("s")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(measured(step(1 << 30), sparse), Some(Excess::StepBytes(1 << 30)));
        assert_eq!(Excess::StepBytes(1 << 30).to_string(), "the step wrote more than 1 GiB, which is the most it may");
    }

    #[test]
    fn the_steps_of_a_build_add_up_and_what_is_removed_is_given_back() {
        let build = BuildDisk::new(DiskLimits { build_bytes_max: Some(1_000_000), ..DiskLimits::default() });
        let never = Cancel::new();
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let write = |n: usize| std::fs::write(dirs[n].path().join("f"), vec![1; 400_000]).unwrap();
        let mut watches: Vec<_> = dirs.iter().map(|dir| build.watch(dir.path(), &[]).unwrap()).collect();
        write(0);
        write(1);
        assert_eq!(watches[0].measure(false, &never).unwrap(), None);
        assert_eq!(watches[1].measure(false, &never).unwrap(), None);
        std::fs::remove_file(dirs[0].path().join("f")).unwrap();
        assert_eq!(watches[0].measure(false, &never).unwrap(), None);
        write(2);
        assert_eq!(watches[2].measure(false, &never).unwrap(), None);
        write(0);
        assert_eq!(watches[0].measure(false, &never).unwrap(), Some(Excess::BuildBytes(1_000_000)));
        never.cancel();
        assert!(Cancel::is_cause_of(&watches[0].measure(false, &never).unwrap_err()));
    }
}
