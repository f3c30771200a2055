//! Objects: files by key.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{BoxFuture, ByteStream, Objects, is_key};
use super::feed::feed;
use super::temp::{Sink, Temp};
use super::{FsBlobs, Inner, hop, read, remove, sync_folder};
use crate::{Error, Result};

/// How often a folder that a delete removes under our feet is made again.
const FOLDER_TRIES_MAX: usize = 16;

fn missing(key: &str) -> Error {
    Error::NotFound(format!("object {}", key.escape_debug()))
}

impl Inner {
    fn object_path(&self, key: &str) -> Result<PathBuf> {
        if !is_key(key) {
            return Err(missing(key));
        }
        Ok(self.root.join("objects").join(key))
    }

    fn open_object(&self, key: &str) -> Result<File> {
        let file = File::open(self.object_path(key)?).map_err(|e| not_here(e, key))?;
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(file),
            Ok(_) => Err(missing(key)),
            Err(e) => Err(Error::io("open object", e)),
        }
    }

    /// Give a written file its key, durably.
    fn place_object(&self, mut temp: Temp, key: &str) -> Result<()> {
        let path = self.object_path(key)?;
        temp.sync()?;
        in_folder(&path, || temp.try_rename(&path)).map_err(|e| taken(e, key))?;
        let root = self.root.join("objects");
        for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(&root)) {
            match sync_folder(folder) {
                // Removed together with the object by a delete that came right after.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// Make the folder of `path` and do `work` in it, again if it was removed in between.
fn in_folder<T>(path: &Path, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 1;
    loop {
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        match made.and_then(|()| work()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && tries < FOLDER_TRIES_MAX => tries += 1,
            done => return done,
        }
    }
}

/// A key that is a folder of other keys, or below another key, is not there.
fn not_here(e: io::Error, key: &str) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(key),
        _ => Error::io("open object", e),
    }
}

/// … and cannot be made.
fn taken(e: io::Error, key: &str) -> Error {
    match e.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
            Error::Conflict(format!("object {key} is above or below another"))
        }
        _ => Error::io("write object", e),
    }
}

impl Objects for FsBlobs {
    fn object_put(&self, key: &str, body: ByteStream, bytes_max: u64) -> BoxFuture<'_, Result<u64>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        Box::pin(async move {
            inner.object_path(&key)?;
            let fed = feed(Sink::new(Arc::clone(&inner), None), &inner.blocks, body, bytes_max).await?;
            hop(move || {
                let (temp, len, _) = fed.into_whole()?.finish()?;
                inner.place_object(temp, &key)?;
                Ok(len)
            })
            .await
        })
    }

    fn object_append(&self, key: &str, bytes: &[u8]) -> Result<u64> {
        let path = self.0.object_path(key)?;
        let mut file =
            in_folder(&path, || File::options().append(true).create(true).open(&path)).map_err(|e| taken(e, key))?;
        let io = |e| Error::io("write object", e);
        let before = file.metadata().map_err(io)?.len();
        if let Err(cause) = file.write_all(bytes) {
            // A full disk takes a part; whoever tries again must not find it.
            let _ = file.set_len(before);
            return Err(io(cause));
        }
        file.metadata().map(|m| m.len()).map_err(io)
    }

    fn object_len(&self, key: &str) -> BoxFuture<'_, Result<Option<u64>>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        hop(move || match inner.open_object(&key) {
            Ok(file) => file.metadata().map(|m| Some(m.len())).map_err(|e| Error::io("look at object", e)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        })
    }

    fn object_read(&self, key: &str, range: Range<u64>) -> BoxFuture<'_, Result<ByteStream>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        Box::pin(read::stream(inner.chunks.clone(), move || inner.open_object(&key), range))
    }

    fn object_path(&self, key: &str) -> Option<PathBuf> {
        self.0.object_path(key).ok().filter(|path| path.is_file())
    }

    fn object_delete(&self, key: &str) -> BoxFuture<'_, Result<()>> {
        let (inner, key) = (Arc::clone(&self.0), key.to_owned());
        hop(move || {
            let Ok(path) = inner.object_path(&key) else { return Ok(()) };
            match remove(&path) {
                Ok(_) => {}
                Err(Error::Io { source, .. })
                    if matches!(source.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory) =>
                {
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
            // Empty folders go with their last object; the first that is not empty ends it.
            let root = inner.root.join("objects");
            for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn object_concat(&self, key: &str, parts: &[String]) -> BoxFuture<'_, Result<u64>> {
        let (inner, key, parts) = (Arc::clone(&self.0), key.to_owned(), parts.to_vec());
        hop(move || {
            inner.object_path(&key)?;
            let temp = inner.temp()?;
            let mut len = 0;
            for part in &parts {
                // On file systems that can, this shares or moves blocks inside the kernel.
                len += io::copy(&mut inner.open_object(part)?, &mut temp.file())
                    .map_err(|e| Error::io("write object", e))?;
            }
            inner.place_object(temp, &key)?;
            Ok(len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys() {
        for good in ["a", "runs/cb1/log.txt", "a-b_c.d/0", "a..b"] {
            assert!(is_key(good), "{good}");
        }
        let (long, deep) = ("a".repeat(201), "a/".repeat(16) + "a");
        for bad in
            ["", "/a", "a/", "a//b", ".", "..", "a/../b", ".hidden", "A", "a b", "a\\b", "a\0", "ä", &long, &deep]
        {
            assert!(!is_key(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_stays_below_its_root(key in "[a-z0-9./_A-Z\\\\\0-]{0,40}") {
            if is_key(&key) {
                let path = Path::new("/root").join(&key);
                prop_assert!(path.starts_with("/root"));
                prop_assert!(path.components().skip(2).all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }
    }
}
