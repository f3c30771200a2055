//! Large files of git repositories (git-lfs): the pointers in a checkout are replaced with
//! what they point to.
//!
//! Specification: git-lfs, docs/api/batch.md and docs/spec.md. What comes is checked against
//! the pointer; where it comes from is judged like any other address.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use portolan_types::{Algorithm, Hasher, limits};
use serde_json::{Value, json};

use super::git::Git;

/// A pointer is shorter than this (git-lfs, docs/spec.md).
const POINTER_BYTES_MAX: u64 = 1024;
/// Objects asked for at once.
const BATCH_MAX: usize = 100;
/// Large files of one checkout.
const FILES_MAX: usize = 50_000;
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

/// A large file that is a pointer still.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pointer {
    path: PathBuf,
    oid: String,
    size: u64,
}

/// Fetch the large files of a checkout of the repository at `url`, asked with `headers`.
pub(super) async fn fetch(git: &Git, url: &str, headers: &[(String, String)], root: &Path) -> Result<(), String> {
    let pointers = tokio::task::spawn_blocking({
        let root = root.to_owned();
        move || pointers(&root)
    })
    .await
    .map_err(|e| e.to_string())?
    .map_err(|e| format!("look for large files: {e}"))?;
    let bytes: u64 = pointers.iter().map(|p| p.size).fold(0, u64::saturating_add);
    if bytes > limits::CONTEXT_UNPACKED_BYTES_MAX {
        return Err(format!("the repository's large files are more than {} bytes", limits::CONTEXT_UNPACKED_BYTES_MAX));
    }
    if let Some(path) = url.strip_prefix("file://") {
        return from_folder(&git.local(path)?, &pointers);
    }
    for batch in pointers.chunks(BATCH_MAX) {
        let work = from_server(git, url, headers, batch);
        tokio::select! {
            done = work => done?,
            _ = git.cancel.raised() => return Err("the build was cancelled".to_owned()),
        }
    }
    Ok(())
}

/// From the objects of a repository on this machine.
fn from_folder(repository: &Path, pointers: &[Pointer]) -> Result<(), String> {
    let folder = [repository.join(".git/lfs/objects"), repository.join("lfs/objects")].into_iter().find(|p| p.is_dir());
    for pointer in pointers {
        let object = folder.as_ref().map(|f| f.join(&pointer.oid[..2]).join(&pointer.oid[2..4]).join(&pointer.oid));
        // Not what a link there leads to.
        let object = object.filter(|o| fs::symlink_metadata(o).is_ok_and(|at| at.is_file()));
        let object = object.ok_or_else(|| absent(pointer))?;
        let mut file = fs::File::open(object).map_err(|e| format!("read a large file: {e}"))?;
        let mut writer = Replace::begin(pointer)?;
        let mut piece = vec![0; 256 * 1024];
        loop {
            match file.read(&mut piece).map_err(|e| format!("read a large file: {e}"))? {
                0 => break,
                n => writer.write(&piece[..n])?,
            }
        }
        writer.finish()?;
    }
    Ok(())
}

async fn from_server(git: &Git, url: &str, headers: &[(String, String)], batch: &[Pointer]) -> Result<(), String> {
    let base = url.trim_end_matches('/');
    let base = if base.ends_with(".git") { base.to_owned() } else { format!("{base}.git") };
    let objects: Vec<Value> = batch.iter().map(|p| json!({"oid": p.oid, "size": p.size})).collect();
    let ask = json!({"operation": "download", "transfers": ["basic"], "objects": objects, "hash_algo": "sha256"});
    let answer = git.web.post_json(&format!("{base}/info/lfs/objects/batch"), MEDIA_TYPE, headers, &ask).await;
    let answer = answer.map_err(|e| format!("ask for the repository's large files: {e}"))?;
    for pointer in batch {
        let listed = answer["objects"].as_array().into_iter().flatten();
        let object = listed.into_iter().find(|o| o["oid"] == pointer.oid.as_str());
        let action = object.map(|o| &o["actions"]["download"]);
        let Some(href) = action.and_then(|a| a["href"].as_str()) else { return Err(absent(pointer)) };
        let given = action.and_then(|a| a["header"].as_object()).into_iter().flatten();
        let given: Vec<(String, String)> =
            given.filter_map(|(n, v)| Some((n.clone(), v.as_str()?.to_owned()))).take(32).collect();
        let failed = |why: &dyn std::fmt::Display| format!("fetch the large file {}: {why}", pointer.oid);
        let mut body = git.web.get_with(href, &given).await.map_err(|e| failed(&e))?;
        let mut writer = Replace::begin(pointer)?;
        while let Some(piece) = body.next().await {
            writer.write(&piece.map_err(|e| failed(&e))?)?;
        }
        writer.finish()?;
    }
    Ok(())
}

fn absent(pointer: &Pointer) -> String {
    format!(
        "the repository's large file {} (sha256 {}) is not to be had",
        pointer.path.file_name().unwrap_or_default().display(),
        pointer.oid
    )
}

/// Puts a large file in the place of its pointer.
struct Replace<'p> {
    pointer: &'p Pointer,
    draft: PathBuf,
    file: fs::File,
    hasher: Hasher,
    written: u64,
}

impl<'p> Replace<'p> {
    fn begin(pointer: &'p Pointer) -> Result<Replace<'p>, String> {
        let mut name = pointer.path.file_name().unwrap_or_default().to_owned();
        name.push(".portolan-lfs");
        let draft = pointer.path.with_file_name(name);
        let file = fs::File::options().write(true).create_new(true).open(&draft);
        let file = file.map_err(|e| format!("write a large file: {e}"))?;
        Ok(Replace { pointer, draft, file, hasher: Hasher::new(Algorithm::Sha256), written: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.written += bytes.len() as u64;
        if self.written > self.pointer.size {
            return Err(self.wrong());
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|e| format!("write a large file: {e}"))
    }

    fn wrong(&self) -> String {
        format!("the large file {} is not what its pointer says", self.pointer.oid)
    }

    fn finish(self) -> Result<(), String> {
        let wrong = self.wrong();
        if self.written != self.pointer.size || self.hasher.finish().hex() != self.pointer.oid {
            return Err(wrong);
        }
        let put = || -> io::Result<()> {
            fs::set_permissions(&self.draft, fs::symlink_metadata(&self.pointer.path)?.permissions())?;
            fs::rename(&self.draft, &self.pointer.path)
        };
        put().map_err(|e| format!("write a large file: {e}"))
    }
}

/// The pointers below a folder; links are not followed, `.git` is not looked into.
fn pointers(root: &Path) -> io::Result<Vec<Pointer>> {
    let mut out = Vec::new();
    // Without an attribute that says so there are none.
    if !has_attributes(root, 0)? {
        return Ok(out);
    }
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let at = entry.metadata()?;
            if at.is_dir() {
                if entry.file_name() != ".git" {
                    todo.push(entry.path());
                }
            } else if at.is_file() && at.len() < POINTER_BYTES_MAX {
                let mut text = Vec::new();
                fs::File::open(entry.path())?.take(POINTER_BYTES_MAX).read_to_end(&mut text)?;
                if let Some((oid, size)) = pointer(&text) {
                    out.push(Pointer { path: entry.path(), oid, size });
                }
                if out.len() > FILES_MAX {
                    return Err(io::Error::other(format!("there are more than {FILES_MAX}")));
                }
            }
        }
    }
    Ok(out)
}

/// Whether any `.gitattributes` speaks of large files.
fn has_attributes(dir: &Path, depth: usize) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() && entry.file_name() == ".gitattributes" {
            let mut text = Vec::new();
            fs::File::open(entry.path())?.take(limits::DOCKERFILE_BYTES_MAX as u64).read_to_end(&mut text)?;
            if text.windows(10).any(|w| w == b"filter=lfs") {
                return Ok(true);
            }
        }
        let into = kind.is_dir() && entry.file_name() != ".git" && depth < 256;
        if into && has_attributes(&entry.path(), depth + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Object and size of a pointer's text.
fn pointer(text: &[u8]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.lines();
    let version = lines.next()?.strip_prefix("version ")?;
    if !matches!(version, "https://git-lfs.github.com/spec/v1" | "http://git-media.io/v/2") {
        return None;
    }
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    let oid = field("oid")?.strip_prefix("sha256:")?;
    let fine = oid.len() == 64 && oid.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    Some((oid.to_owned(), field("size")?.parse().ok()?)).filter(|_| fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_read() {
        let oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let text = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12345\n");
        assert_eq!(pointer(text.as_bytes()), Some((oid.to_owned(), 12345)));
        for other in [
            "",
            "version https://git-lfs.github.com/spec/v1\n",
            &text.replace("4d7a", "../.."),
            &text.replace("size", "sise"),
        ] {
            assert_eq!(pointer(other.as_bytes()), None, "{other}");
        }
    }
}
