//! `ADD` of what is elsewhere: a file on the web, a git repository.
//!
//! What a step would add is known before it is fetched where that can be: a repository by its
//! commit, a file by its checksum when the instruction says it. Any other file is fetched
//! first, as its contents are part of the step's key.
//!
//! Meaning: Dockerfile reference, "ADD": a file gets mode 0600 and the time of its
//! `Last-Modified`; a repository's files come without `.git` unless `--keep-git-dir`.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use portolan_types::Digest;

use super::eval::{CopyOp, Step};
use super::key::Key;
use super::plan::{Planner, copy_error, excluded};
use super::work::{Crew, Stop};
use crate::copy::{Chmod, CopyOpts, Plan, SelectOpts};
use crate::error::{BuildError, ErrorKind, Fault, Span};
use crate::ports::{RemoteFile, Remotes};
use crate::remote::{GitSource, Remote, without_password};
use crate::snapshot::Active;

/// The mode of a downloaded file.
const FILE_MODE: u32 = 0o600;

/// One source of an `ADD` that is elsewhere.
#[derive(Clone, Debug)]
pub(super) struct RemoteAdd {
    pub(super) remote: Remote,
    /// What a file must be.
    pub(super) checksum: Option<Digest>,
    pub(super) keep_git_dir: bool,
    /// What was found out about it, for carrying the step out.
    found: Arc<Mutex<Option<Found>>>,
}

#[derive(Clone, Debug)]
enum Found {
    File(RemoteFile),
    Commit(String),
}

impl RemoteAdd {
    /// Read a source; `None` when it is a path. The error is a sentence.
    pub(super) fn read(source: &str, checksum: Option<&str>, keep_git_dir: bool) -> Result<Option<RemoteAdd>, String> {
        let remote = Remote::of_add(source).map_err(|e| e.to_string())?;
        let Some(mut remote) = remote else { return Ok(None) };
        let mut file = None;
        match (&mut remote, checksum) {
            (Remote::File(_), Some(text)) => {
                file =
                    Some(text.parse().map_err(|_| format!("--checksum={text} is no digest such as sha256:24454f83…"))?);
            }
            (Remote::Git(git), Some(text)) => {
                if !(7..=64).contains(&text.len()) || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
                    return Err(format!("--checksum={text} is no commit of a git repository"));
                }
                git.commit = Some(text.to_owned());
            }
            (_, None) => {}
        }
        Ok(Some(RemoteAdd { remote, checksum: file, keep_git_dir, found: Arc::default() }))
    }
}

/// What a file is called when it is put into a directory: by the server, else by its address.
fn name_of(url: &str, given: Option<&str>) -> Option<String> {
    let plain = without_password(url);
    let path = plain.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = given.unwrap_or(last);
    (!matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])).then(|| name.to_owned())
}

impl Planner<'_> {
    /// Add to a step's key what it takes from elsewhere.
    pub(super) fn remote_keys(&self, mut key: Key, copy: &CopyOp, span: Span) -> Result<Key, BuildError> {
        for add in &copy.remotes {
            let remotes = self.remotes(span)?;
            let wrong = |why: String| self.source_error(&Fault::new(span, why));
            let shown = match &add.remote {
                Remote::File(url) => without_password(url),
                Remote::Git(git) => git.shown(),
            };
            key = match (&add.remote, &add.checksum) {
                // Known without looking; whether it is so is seen when the step is done.
                (Remote::File(url), Some(digest)) => {
                    key.text("file").digest(digest).option(name_of(url, None).as_deref())
                }
                (Remote::File(url), None) => {
                    let got = self.told(&format!("[internal] fetch {shown}"), |note| remotes.file(url, note));
                    let file = got.map_err(wrong)?;
                    let name = name_of(url, file.name.as_deref());
                    let key =
                        key.text("file").digest(&file.digest).option(name.as_deref()).text(&file.mtime.to_string());
                    *add.found.lock() = Some(Found::File(file));
                    key
                }
                (Remote::Git(git), _) => {
                    let got = self.told(&format!("[internal] look up {shown}"), |_| remotes.commit(git));
                    let commit = got.map_err(wrong)?;
                    let key = key.text("git").text(&commit).option(git.subdir.as_deref());
                    let key = key.flag(add.keep_git_dir).flag(git.no_submodules);
                    *add.found.lock() = Some(Found::Commit(commit));
                    key
                }
            };
        }
        Ok(key)
    }

    fn remotes(&self, span: Span) -> Result<&dyn Remotes, BuildError> {
        let none = || self.source_error(&Fault::new(span, "this build cannot fetch what ADD names"));
        self.fetching().ok_or_else(none)
    }
}

impl Crew<'_> {
    /// Add what is elsewhere.
    pub(super) fn add_remotes(&self, step: &Step, copy: &CopyOp, active: &Active, opts: &CopyOpts) -> Result<(), Stop> {
        for add in &copy.remotes {
            let remotes = self.site.request.remotes.as_deref().ok_or_else(|| {
                Stop::Failed(BuildError::new(ErrorKind::Internal, "there is nobody to fetch what ADD names"))
            })?;
            let found = add.found.lock().clone();
            match &add.remote {
                Remote::File(url) => {
                    let file = match found {
                        Some(Found::File(file)) => file,
                        _ => remotes.file(url, &|_| {}).map_err(|why| self.elsewhere(step, why))?,
                    };
                    if let Some(expected) = add.checksum.filter(|expected| *expected != file.digest) {
                        let why = format!("{} has the checksum {}, not {expected}", without_password(url), file.digest);
                        return Err(self.elsewhere(step, why));
                    }
                    self.add_file(step, copy, active, opts, url, &file)?;
                }
                Remote::Git(git) => {
                    let commit = match found {
                        Some(Found::Commit(commit)) => commit,
                        _ => remotes.commit(git).map_err(|why| self.elsewhere(step, why))?,
                    };
                    self.add_tree(step, copy, active, opts, (git, &commit, add.keep_git_dir), remotes)?;
                }
            }
        }
        Ok(())
    }

    fn elsewhere(&self, step: &Step, why: String) -> Stop {
        match self.stop.is_cancelled() {
            true => Stop::Elsewhere,
            false => Stop::Failed(self.site.source.error(&Fault::new(step.span, why))),
        }
    }

    fn wrong(&self, step: &Step, error: crate::copy::CopyError) -> Stop {
        match copy_error(self.site.source, step.span, error) {
            error if error.kind == ErrorKind::Cancelled => Stop::Elsewhere,
            error => Stop::Failed(error),
        }
    }

    fn add_file(
        &self,
        step: &Step,
        copy: &CopyOp,
        active: &Active,
        opts: &CopyOpts,
        url: &str,
        file: &RemoteFile,
    ) -> Result<(), Stop> {
        // With a file's own path as the destination its name does not matter.
        let name = match (copy.dest.ends_with('/'), name_of(url, file.name.as_deref())) {
            (_, Some(name)) => name,
            (false, None) => "file".to_owned(),
            (true, None) => {
                let why = format!("{} has no file name; hint: name the file in the destination", without_password(url));
                return Err(self.elsewhere(step, why));
            }
        };
        let folder = self.folder()?;
        let path = folder.path().join(&name);
        let put = || -> std::io::Result<()> {
            fs::copy(&file.path, &path)?;
            let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(file.mtime).unwrap_or(0));
            fs::File::options()
                .write(true)
                .open(&path)?
                .set_times(fs::FileTimes::new().set_modified(time.min(latest())))
        };
        put().map_err(|e| self.machine("keep what was fetched", &e))?;
        let plan = Plan::resolve(folder.path(), &[name], &SelectOpts::default()).map_err(|e| self.wrong(step, e))?;
        let chmod = opts.chmod.clone().or(Some(Chmod::from(FILE_MODE)));
        // Only where the instruction says so outright.
        let unpack = copy.unpack_fetched;
        let opts = CopyOpts { chmod, unpack, keep_owner: false, ..opts.clone() };
        plan.apply(active.root(), &copy.dest, "/", &opts, &self.stop).map_err(|e| self.wrong(step, e))
    }

    fn add_tree(
        &self,
        step: &Step,
        copy: &CopyOp,
        active: &Active,
        opts: &CopyOpts,
        (git, commit, keep_git_dir): (&GitSource, &str, bool),
        remotes: &dyn Remotes,
    ) -> Result<(), Stop> {
        let tree = remotes.tree(git, commit, keep_git_dir).map_err(|why| self.elsewhere(step, why))?;
        let exclude = excluded(copy);
        let select = SelectOpts { exclude: exclude.as_ref(), cancel: Some(&self.stop), ..SelectOpts::default() };
        let plan = Plan::resolve(&tree.root, &[".".to_owned()], &select).map_err(|e| self.wrong(step, e))?;
        let opts = CopyOpts { unpack: false, keep_owner: false, ..opts.clone() };
        plan.apply(active.root(), &copy.dest, "/", &opts, &self.stop).map_err(|e| self.wrong(step, e))
    }
}

/// No file's time is later: the year 2200.
fn latest() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(7_258_118_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads() {
        assert_eq!(name_of("https://h/a/b.tar?x=1", None).as_deref(), Some("b.tar"));
        assert_eq!(name_of("https://h/a/b.tar", Some("c")).as_deref(), Some("c"));
        for none in ["https://h", "https://h/", "https://h/a/", "https://h/.."] {
            assert_eq!(name_of(none, None), None, "{none}");
        }
    }

    #[test]
    fn sources_and_checksums() {
        let read = |source: &str, checksum: Option<&str>| RemoteAdd::read(source, checksum, false);
        assert!(read("src", None).unwrap().is_none());
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(read("https://h/x", Some(&digest)).unwrap().unwrap().checksum.is_some());
        let Remote::Git(git) = read("https://h/x.git", Some("0123456789")).unwrap().unwrap().remote else { panic!() };
        assert_eq!(git.commit.as_deref(), Some("0123456789"));
        assert!(read("https://h/x", Some("abc")).is_err() && read("https://h/x.git", Some(&digest)).is_err());
    }
}
