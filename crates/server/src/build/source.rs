//! What a run builds from: the context that was sent, read once as the hostile archive it may
//! be, and the Dockerfile in it.
//!
//! Our own client sends only what the server lacks; the rest is in [`super::stock`], where
//! what came goes once the build has it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_builder::context::{Context, ContextError, ContextLimits, Received};
use portolan_builder::{BuildContext, Cancel};
use portolan_service::Registry;
use portolan_tasks::Job;
use portolan_types::limits;

use super::Builds;
use super::content::StreamReader;
use super::remote::Scratch;
use super::run::{Trouble, blocking};
use super::stock::{Owner, Shelf};

/// A context ready to build.
pub(super) struct Source {
    pub(super) context: BuildContext,
    pub(super) dockerfile: Vec<u8>,
    pub(super) dockerfile_name: String,
    pub(super) ignore: Option<String>,
    /// Where it was fetched from, as others may see it, and its revision.
    pub(super) origin: Option<(String, Option<String>)>,
    /// What must stay as long as the context is used.
    pub(super) fetched: Option<Arc<Scratch>>,
}

impl Source {
    pub(super) fn of(context: BuildContext, dockerfile: Vec<u8>, name: &str) -> Source {
        Source { context, dockerfile, dockerfile_name: name.to_owned(), ignore: None, origin: None, fetched: None }
    }
}

impl Builds {
    /// The context that was sent for a run. What is in its files goes to a file at `path`.
    pub(super) async fn uploaded(
        &self,
        job: &Job,
        registry: &Registry,
        path: &Path,
        stop: &Cancel,
    ) -> Result<Source, Trouble> {
        let owner = Owner { registry: registry.id, caller: job.build.caller };
        let (context, received) = self.received(&job.build.context, &owner, path, stop).await?;
        self.keep(owner, path.to_owned(), received);
        let name = job.build.dockerfile.clone();
        blocking(move || in_context(context, &name)).await?
    }

    /// Read the context that an object holds. Its new contents are in the file at `path`.
    pub(super) async fn received(
        &self,
        key: &str,
        owner: &Owner,
        path: &Path,
        stop: &Cancel,
    ) -> Result<(Context, Vec<Received>), Trouble> {
        let archive = self.archive(key).await?;
        let shelf = self.stock.shelf(owner).map_err(|e| server("open what earlier contexts left", e))?;
        let (path, stop) = (path.to_owned(), stop.clone());
        blocking(move || receive(archive, &path, &shelf, &stop)).await?
    }

    /// Keep what a context brought, beside the build, which has the file open and needs it no
    /// more than that.
    pub(super) fn keep(&self, owner: Owner, path: PathBuf, received: Vec<Received>) {
        if received.is_empty() {
            return;
        }
        let stock = self.stock.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = stock.keep(&owner, &path, &received) {
                tracing::warn!(%error, "keep the contents of a build context");
            }
        });
    }

    /// A packed context, for a thread that may block.
    pub(super) async fn archive(&self, key: &str) -> Result<Box<dyn Read + Send>, Trouble> {
        let blobs = &self.shared.service.blobs;
        let gone = |e: &dyn std::fmt::Display| Trouble::Server(format!("the build context cannot be read: {e}"));
        if let Some(path) = blobs.object_path(key) {
            return File::open(path).map(|f| Box::new(f) as _).map_err(|e| gone(&e));
        }
        let body = blobs.object_read(key, 0..u64::MAX).await.map_err(|e| gone(&e))?;
        Ok(Box::new(StreamReader::new(self.shared.runtime.clone(), body)))
    }
}

pub(super) fn server(what: &str, e: std::io::Error) -> Trouble {
    Trouble::Server(format!("{what}: {e}"))
}

/// Why a context cannot be built from.
pub(super) fn unreadable(error: ContextError) -> Trouble {
    match error {
        ContextError::Refused(why) => Trouble::Order(why),
        ContextError::Missing => Trouble::Order(portolan_builder::context::MISSING.to_owned()),
        ContextError::Cancelled => Trouble::Stopped,
        ContextError::Io(e) => server("read the build context", e),
    }
}

/// Read what was sent. The file at `path` has a name when this returns only if there is
/// something in it to keep.
pub(super) fn receive(
    archive: Box<dyn Read + Send>,
    path: &Path,
    shelf: &Shelf,
    stop: &Cancel,
) -> Result<(Context, Vec<Received>), Trouble> {
    let contents = contents_file(path)?;
    let read = Context::receive(archive, contents, shelf, &ContextLimits::default(), stop);
    if !matches!(&read, Ok((_, received)) if !received.is_empty()) {
        std::fs::remove_file(path).map_err(|e| server("remove a build context", e))?;
    }
    read.map_err(unreadable)
}

/// A new file for what is in a context's files.
pub(super) fn contents_file(path: &Path) -> Result<File, Trouble> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    file.map_err(|e| server("make a file for the build context", e))
}

/// The Dockerfile called `name` and what goes with it, taken out of a context.
pub(super) fn in_context(mut context: Context, name: &str) -> Result<Source, Trouble> {
    let text = dockerfile(&|path, max| context.file(path, max), &|path| context.holds_file(path), name)?;
    let (mut shown, mut ignore) = (name, None);
    if let Some(original) = client_copy(name) {
        // The client's extra copy is not part of what was to be built: left in place, it
        // would be in every `COPY . .`, under another name each time.
        context.remove(name);
        shown = original;
        // Our own client sends the ignore file it went by beside its copy: the copy lies at
        // the root, wherever the Dockerfile and its own ignore file came from.
        let beside = format!("{name}.dockerignore");
        let limit = limits::DOCKERFILE_BYTES_MAX as u64;
        let patterns = context.file(Path::new(&beside), limit).map_err(|e| server("read the ignore file", e))?;
        if let Some(patterns) = patterns {
            context.remove(&beside);
            ignore = Some(String::from_utf8_lossy(&patterns).into_owned());
        }
    }
    Ok(Source { ignore, ..Source::of(BuildContext::Packed(context), text, shown) })
}

/// The Dockerfile called `name` in files that were fetched.
pub(super) fn in_files(files: BuildContext, name: &str) -> Result<Source, Trouble> {
    let text = dockerfile(&|path, max| files.file(path, max), &|path| files.holds_file(path), name)?;
    Ok(Source::of(files, text, name.trim_start_matches("./")))
}

/// `Dockerfile` from `0123456789abcdef0123456789abcdef_Dockerfile`, the name under which
/// clients put a second copy of the Dockerfile at the root of the context.
fn client_copy(name: &str) -> Option<&str> {
    let (hex, original) = name.split_once('_')?;
    let is_hex = hex.len() == 32 && hex.bytes().all(|c| c.is_ascii_hexdigit());
    (is_hex && !original.is_empty() && !original.contains('/')).then_some(original)
}

/// Reads a file of a context, of at most so many bytes.
type ReadFile<'f> = dyn Fn(&Path, u64) -> std::io::Result<Option<Vec<u8>>> + 'f;

/// The Dockerfile, which must be in the context.
fn dockerfile(file: &ReadFile<'_>, holds: &dyn Fn(&Path) -> bool, name: &str) -> Result<Vec<u8>, Trouble> {
    let shown = client_copy(name).unwrap_or(name);
    let relative = Path::new(name.trim_start_matches("./"));
    let inside = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if !inside {
        return Err(Trouble::Order(format!("the Dockerfile's path {shown} leads out of the build context")));
    }
    // A link in the context may point to another place in it, and nowhere else.
    let read = |limit| {
        let text = file(relative, limit);
        text.map_err(|e| Trouble::Server(format!("read {shown}: {e}")))
    };
    let limit = limits::DOCKERFILE_BYTES_MAX as u64;
    if let Some(text) = read(limit)? {
        return Ok(text);
    }
    Err(Trouble::Order(match holds(relative) {
        true => format!("{shown} is larger than {limit} bytes"),
        false => {
            format!("{shown} was not found in the build context; hint: name it with -f, relative to the context's root")
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_copy_of_the_dockerfile() {
        assert_eq!(client_copy("0123456789abcdef0123456789abcdef_Dockerfile"), Some("Dockerfile"));
        assert_eq!(client_copy("0123456789abcdef0123456789abcdef_my_file"), Some("my_file"));
        for name in ["Dockerfile", "_x", "0123_Dockerfile", "0123456789abcdef0123456789abcdef_", "a/b_c"] {
            assert_eq!(client_copy(name), None, "{name}");
        }
    }

    fn context(pack: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Context {
        let mut archive = tar::Builder::new(Vec::new());
        pack(&mut archive);
        let archive = archive.into_inner().unwrap();
        let file = tempfile::tempfile().unwrap();
        Context::read(&archive[..], file, &ContextLimits::default(), &Cancel::new()).unwrap()
    }

    fn file(archive: &mut tar::Builder<Vec<u8>>, path: &str, text: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, text).unwrap();
    }

    #[test]
    fn a_dockerfile_is_read_from_the_context_only() {
        let context = context(|archive| {
            file(archive, "sub/Dockerfile", b"FROM scratch\n");
            file(archive, "big", &vec![b' '; limits::DOCKERFILE_BYTES_MAX + 1]);
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, "link", "sub/Dockerfile").unwrap();
        });
        for good in ["sub/Dockerfile", "./sub/Dockerfile", "link"] {
            assert_eq!(
                dockerfile(&|p, m| context.file(p, m), &|p| context.holds_file(p), good).ok().unwrap(),
                b"FROM scratch\n",
                "{good}"
            );
        }
        for bad in ["Dockerfile", "../outside", "/etc/passwd", "sub", "sub/../../outside"] {
            assert!(
                matches!(
                    dockerfile(&|p, m| context.file(p, m), &|p| context.holds_file(p), bad),
                    Err(Trouble::Order(_))
                ),
                "{bad} was read"
            );
        }
        assert!(
            matches!(dockerfile(&|p, m| context.file(p, m), &|p| context.holds_file(p), "big"), Err(Trouble::Order(why)) if why.contains("larger"))
        );
    }
}
