//! The engine's [`Remotes`] for one run: what `ADD` names that is elsewhere.
//!
//! Files of the web are kept, with what their servers know them by (`ETag`,
//! `Last-Modified`), and asked for again with that: a file that has not changed is not sent.
//! Each registry, and where roles are asked for each repository each caller, has its own.
//!
//! ```text
//! fetched/r<registry>[-<caller>]/<sha256 of the address>.json   what is known of it
//! fetched/r<registry>[-<caller>]/<sha256 of the contents>       the contents
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use portolan_api::web::{Download, Validators};
use portolan_builder::ports::{RemoteFile, RemoteTree, Remotes};
use portolan_builder::remote::{GitSource, without_password};
use portolan_types::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::remote::Fetcher;

/// Bytes of one owner's downloads that are kept.
const KEPT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Downloads that are kept.
const KEPT_MAX: usize = 10_000;
/// What is written about one.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Record {
    etag: Option<String>,
    last_modified: Option<String>,
    digest: Digest,
    name: Option<String>,
}

impl Remotes for Fetcher {
    fn file(&self, url: &str, note: &dyn Fn(&str)) -> Result<RemoteFile, String> {
        let shown = without_password(url);
        fs::create_dir_all(&self.kept).map_err(|e| format!("make a folder for downloads: {e}"))?;
        let record_path = self.kept.join(format!("{}.json", Digest::of(url.as_bytes()).hex()));
        let record = read_record(&record_path).filter(|r| self.kept.join(r.digest.hex()).is_file());
        let known = record.as_ref().map_or_else(Validators::default, |r| Validators {
            etag: r.etag.clone(),
            last_modified: r.last_modified.clone(),
        });
        let asked = self.shared.runtime.block_on(async {
            tokio::select! {
                got = self.shared.web.get(url, &known) => got.map_err(|e| format!("fetch {shown}: {e}")),
                _ = self.cancel.raised() => Err("the build was cancelled".to_owned()),
            }
        })?;
        let (digest, name, last_modified, path) = match asked {
            Download::NotModified => {
                let record = record.ok_or_else(|| format!("fetch {shown}: an answer that was not asked for"))?;
                note("it has not changed");
                let kept = self.kept.join(record.digest.hex());
                // The least recently used goes first.
                if let Ok(file) = File::options().append(true).open(&kept) {
                    let _ = file.set_modified(SystemTime::now());
                }
                let path = self.scratch.path();
                fs::hard_link(&kept, &path).map_err(|e| format!("fetch {shown}: {e}"))?;
                (record.digest, record.name, record.last_modified, path)
            }
            Download::File { body, validators, name, .. } => {
                let (path, bytes) = self.shared.runtime.block_on(self.save(body, &shown))?;
                let digest = digest_of(&path).map_err(|e| format!("fetch {shown}: {e}"))?;
                note(&format!("{bytes} bytes, {digest}"));
                let record = Record {
                    etag: validators.etag,
                    last_modified: validators.last_modified.clone(),
                    digest,
                    name: name.clone(),
                };
                if let Err(error) = self.keep(&path, &record_path, &record) {
                    tracing::warn!(%error, "keep a download");
                }
                (digest, name, validators.last_modified, path)
            }
        };
        let mtime = last_modified.as_deref().and_then(http_date).unwrap_or(0);
        Ok(RemoteFile { path, digest, name, mtime, hold: self.scratch.clone() })
    }

    fn commit(&self, source: &GitSource) -> Result<String, String> {
        let scratch = self.scratch.path();
        fs::create_dir_all(&scratch).map_err(|e| format!("make a folder: {e}"))?;
        self.shared.runtime.block_on(self.git.commit(source, &scratch))
    }

    fn tree(&self, source: &GitSource, commit: &str, keep_git_dir: bool) -> Result<RemoteTree, String> {
        let scratch = self.scratch.path();
        fs::create_dir_all(&scratch).map_err(|e| format!("make a folder: {e}"))?;
        let checkout = self.shared.runtime.block_on(self.git.check_out(source, commit, keep_git_dir, &scratch))?;
        Ok(RemoteTree { root: checkout.root, hold: self.scratch.clone() })
    }
}

impl Fetcher {
    /// Keep a download for the next build that asks for it.
    fn keep(&self, path: &Path, record_path: &Path, record: &Record) -> io::Result<()> {
        if record.etag.is_none() && record.last_modified.is_none() {
            return Ok(());
        }
        let kept = self.kept.join(record.digest.hex());
        match fs::hard_link(path, &kept) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let draft = self.scratch.path();
        fs::write(&draft, serde_json::to_vec(record)?)?;
        fs::rename(&draft, record_path)?;
        make_room(&self.kept)
    }
}

/// Remove what was not used for longest while there is too much.
fn make_room(dir: &Path) -> io::Result<()> {
    let mut all: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let at = entry.metadata()?;
        all.push((at.modified()?, at.len(), entry.path()));
    }
    all.sort();
    let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
    let mut count = all.len();
    for (_, size, path) in all {
        if bytes <= KEPT_BYTES_MAX && count <= 2 * KEPT_MAX {
            break;
        }
        fs::remove_file(path)?;
        (bytes, count) = (bytes - size, count - 1);
    }
    Ok(())
}

fn read_record(path: &Path) -> Option<Record> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(RECORD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&piece[..n]),
        }
    }
}

/// Seconds since 1970 of an HTTP date (RFC 9110, 5.6.7, the form that is to be sent).
fn http_date(text: &str) -> Option<i64> {
    let form =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let secs = PrimitiveDateTime::parse(text.trim(), form).ok()?.assume_utc().unix_timestamp();
    Some(secs.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Sunday, 06-Nov-94 08:49:37 GMT"), None);
    }
}
