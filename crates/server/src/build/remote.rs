//! Contexts that the server fetches for a run: git repositories, archives and Dockerfiles on
//! the web, OCI artifacts. Addresses are judged when they are connected to
//! ([`portolan_api::egress`]); what comes is as hostile as what a client sends.
//!
//! What a run fetches is below one folder ([`Scratch`]), which goes with the last who uses it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use portolan_api::registry::ByteStream;
use portolan_api::web::{Download, Validators};
use portolan_builder::context::{Assembly, Context, ContextError, ContextLimits};
use portolan_builder::remote::{Remote, without_password};
use portolan_builder::{BuildContext, Cancel, NamedContext};
use portolan_tasks::{BuildOptions, CancelFlag, Job, RunLog};
use portolan_types::oci::{Descriptor, ManifestKind, ManifestView};
use portolan_types::{ImageRef, Secret, limits};

use super::git::Git;
use super::images::RunImages;
use super::run::{Trouble, blocking};
use super::source::{Source, contents_file, in_files, server, unreadable};
use super::stock::Owner;
use super::{Builds, Shared};

/// What the address of a context means.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// A repository, or a file on the web.
    Remote(Remote),
    /// An OCI artifact: `oci://host/repository:tag`.
    Artifact(ImageRef),
}

impl Address {
    /// Read one. The error repeats nothing of it.
    pub(super) fn read(text: &str) -> Result<Address, String> {
        if let Some(name) = text.strip_prefix("oci://") {
            let name =
                name.parse().map_err(|_| "the artifact's name cannot be read: write oci://host/repository:tag")?;
            return Ok(Address::Artifact(name));
        }
        match Remote::of_context(text) {
            Ok(Some(remote)) => Ok(Address::Remote(remote)),
            Ok(None) => {
                Err("it is neither an uploaded context nor the address of a git repository (https://….git), of \
                             an archive (https://…) or of an OCI artifact (oci://…)"
                    .into())
            }
            Err(why) => Err(why.to_string()),
        }
    }
}

/// A folder of a run's own, gone when nobody uses it any more.
#[derive(Debug)]
pub(super) struct Scratch {
    dir: PathBuf,
    count: AtomicU64,
}

impl Scratch {
    pub(super) fn new(dir: PathBuf) -> io::Result<Arc<Scratch>> {
        std::fs::create_dir_all(&dir)?;
        Ok(Arc::new(Scratch { dir, count: AtomicU64::new(0) }))
    }

    /// A path below it that nobody else has.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(self.count.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let dir = std::mem::take(&mut self.dir);
        // A checkout may be a million files.
        std::thread::spawn(move || match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %dir.display(), "remove what a build fetched");
            }
            _ => {}
        });
    }
}

/// Fetches for one run.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    pub(super) git: Git,
    pub(super) cancel: CancelFlag,
    pub(super) scratch: Arc<Scratch>,
    /// Where downloads are kept for later builds.
    pub(super) kept: PathBuf,
    /// Whether a repository's own folder stays in a context (`BUILDKIT_CONTEXT_KEEP_GIT_DIR`).
    pub(super) keep_git_dir: bool,
}

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>, job: &Job, cancel: CancelFlag, dir: &Path) -> io::Result<Fetcher> {
        let owner = Owner { registry: job.registry, caller: job.build.caller };
        let git = Git {
            egress: shared.egress.clone(),
            local_root: shared.git_folder.clone(),
            cancel: cancel.clone(),
            credentials: credentials(&job.build.options),
            ca_file: shared.fetch_ca_file.clone(),
            web: shared.web.clone(),
        };
        let scratch = Scratch::new(dir.with_extension("fetched"))?;
        let kept = shared.fetched_dir.join(owner.folder());
        Ok(Fetcher { shared, kept, git, cancel, scratch, keep_git_dir: false })
    }

    /// Download into a file of the scratch folder; its path and bytes.
    pub(super) async fn save(&self, mut body: ByteStream, shown: &str) -> Result<(PathBuf, u64), String> {
        let failed = |why: &dyn std::fmt::Display| format!("fetch {shown}: {why}");
        let path = self.scratch.path();
        let mut file = File::create_new(&path).map_err(|e| failed(&e))?;
        let mut bytes = 0u64;
        let work = async {
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(|e| failed(&e))?;
                bytes += piece.len() as u64;
                if bytes > limits::CONTEXT_PACKED_BYTES_MAX {
                    return Err(failed(&format!("it is larger than {} bytes", limits::CONTEXT_PACKED_BYTES_MAX)));
                }
                // To the page cache; blocks of a few KiB.
                file.write_all(&piece).map_err(|e| failed(&e))?;
            }
            Ok(())
        };
        tokio::select! {
            done = work => done?,
            _ = self.cancel.raised() => return Err("the build was cancelled".into()),
        }
        Ok((path, bytes))
    }
}

/// What repositories are asked with: the secrets `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER`, for
/// one host (`GIT_AUTH_TOKEN.github.com`) or, without a host, for the context's and `ADD`'s.
fn credentials(options: &BuildOptions) -> Vec<(String, Secret<String>)> {
    let mut out = Vec::new();
    for secret in &options.secrets {
        let Ok(value) = std::str::from_utf8(secret.value.expose()) else { continue };
        let value = value.trim();
        let header = if let Some(host) = secret.id.strip_prefix("GIT_AUTH_TOKEN") {
            let basic = STANDARD.encode(format!("x-access-token:{value}"));
            Some((host, format!("Authorization: Basic {basic}")))
        } else {
            secret.id.strip_prefix("GIT_AUTH_HEADER").map(|host| (host, format!("Authorization: {value}")))
        };
        let fits = |host: &str| host.is_empty() || host.starts_with('.');
        if let Some((host, header)) =
            header.filter(|(host, _)| fits(host) && !value.is_empty() && !value.contains(['\r', '\n']))
        {
            out.push((host.trim_start_matches('.').to_owned(), Secret::new(header)));
        }
    }
    // One for a certain host before one for any.
    out.sort_by_key(|(host, _)| host.is_empty());
    out
}

impl Builds {
    /// What a run builds from: uploaded, or fetched here. `path` is for what comes.
    pub(super) async fn source(
        &self,
        job: &Job,
        images: &Arc<RunImages>,
        fetcher: &Fetcher,
        path: &Path,
        log: &RunLog,
        stop: &Cancel,
    ) -> Result<Source, Trouble> {
        let Some(named) = &job.build.options.source else {
            return self.uploaded(job, &images.registry, path, stop).await;
        };
        let address = Address::read(&named.source).map_err(Trouble::Order)?;
        let (files, origin) = self.files(&address, images, fetcher, path, log, stop).await?;
        let name = job.build.dockerfile.clone();
        let mut source = blocking(move || match files {
            Files::Tree(files) => in_files(files, &name),
            Files::Dockerfile(text, files) => Ok(Source::of(files, text, "Dockerfile")),
        })
        .await??;
        source.origin = origin;
        source.fetched = Some(fetcher.scratch.clone());
        Ok(source)
    }

    /// Fetch the files at an address. Also answers where they are from, as others may see it,
    /// and their revision.
    pub(super) async fn files(
        &self,
        address: &Address,
        images: &Arc<RunImages>,
        fetcher: &Fetcher,
        path: &Path,
        log: &RunLog,
        stop: &Cancel,
    ) -> Result<(Files, Option<(String, Option<String>)>), Trouble> {
        let stopped = |why: String| if stop.is_cancelled() { Trouble::Stopped } else { Trouble::Order(why) };
        match address {
            Address::Remote(Remote::Git(git)) => {
                let scratch = fetcher.scratch.path();
                std::fs::create_dir_all(&scratch).map_err(|e| server("make a folder", e))?;
                let commit = fetcher.git.commit(git, &scratch).await.map_err(stopped)?;
                log.note(&format!("Fetching {} at commit {commit}", git.shown()));
                let checkout =
                    fetcher.git.check_out(git, &commit, fetcher.keep_git_dir, &scratch).await.map_err(stopped)?;
                let origin = (without_password(&git.url), Some(commit));
                Ok((Files::Tree(BuildContext::Folder(checkout.root)), Some(origin)))
            }
            Address::Remote(Remote::File(url)) => {
                let shown = without_password(url);
                log.note(&format!("Fetching {shown}"));
                let got = fetcher.shared.web.get(url, &Validators::default()).await;
                let body = match got.map_err(|e| stopped(format!("fetch {shown}: {e}")))? {
                    Download::File { body, .. } => body,
                    Download::NotModified => return Err(Trouble::Server("an answer that was not asked for".into())),
                };
                let (file, _) = fetcher.save(body, &shown).await.map_err(stopped)?;
                let (path, stop) = (path.to_owned(), stop.clone());
                let files = blocking(move || from_file(&file, &path, &stop)).await??;
                Ok((files, Some((shown, None))))
            }
            Address::Artifact(name) => {
                log.note(&format!("Fetching the artifact {name}"));
                // Pulling tells how it goes, which is for a thread that may block.
                let (images, runtime, wanted) = (images.clone(), self.shared.runtime.clone(), name.clone());
                let pulled = blocking(move || runtime.block_on(artifact(&images, &wanted))).await?;
                let (digest, parts) = pulled.map_err(stopped)?;
                let (path, stop, runtime) = (path.to_owned(), stop.clone(), self.shared.runtime.clone());
                let blobs = self.shared.service.blobs.clone();
                let files = blocking(move || {
                    let open = |blob: &Descriptor| {
                        let body =
                            runtime.block_on(blobs.read(&blob.digest, 0..u64::MAX)).map_err(super::content::to_io)?;
                        Ok(super::content::StreamReader::new(runtime.clone(), body))
                    };
                    assembled(&parts, &open, &path, &stop)
                })
                .await??;
                Ok((Files::Tree(BuildContext::Packed(files)), Some((name.to_string(), Some(digest)))))
            }
        }
    }
}

impl Builds {
    /// The contexts that a build was given names for.
    pub(super) async fn named_contexts(
        &self,
        job: &Job,
        images: &Arc<RunImages>,
        fetcher: &Fetcher,
        log: &RunLog,
        stop: &Cancel,
    ) -> Result<Vec<(String, NamedContext)>, Trouble> {
        let mut out = Vec::new();
        for named in &job.build.options.contexts {
            let wrong = |why: String| Trouble::Order(format!("the context {}: {why}", named.name));
            let path = fetcher.scratch.path();
            let context = if let Some(key) = uploaded(job.registry, &named.source) {
                let owner = Owner { registry: job.registry, caller: job.build.caller };
                let (context, received) = self.received(&key, &owner, &path, stop).await?;
                self.keep(owner, path, received);
                NamedContext::Files(BuildContext::Packed(context))
            } else if let Some(name) = named.source.strip_prefix(IMAGE) {
                let name = name.parse().map_err(|e| wrong(format!("{name:?} is no image: {e}")))?;
                NamedContext::Image(name)
            } else {
                let address = Address::read(&named.source).map_err(wrong)?;
                match self.files(&address, images, fetcher, &path, log, stop).await?.0 {
                    Files::Tree(files) => NamedContext::Files(files),
                    Files::Dockerfile(..) => return Err(wrong("what was fetched is no archive".into())),
                }
            };
            out.push((named.name.clone(), context));
        }
        Ok(out)
    }
}

/// Before the name of an image that a name stands for.
const IMAGE: &str = "docker-image://";

/// The object of an uploaded context.
fn uploaded(registry: i64, source: &str) -> Option<String> {
    portolan_tasks::context_key(registry, source).filter(|_| portolan_tasks::is_uploaded(source))
}

/// Whether a name's source is one that builds understand. The error repeats nothing of it.
pub(crate) fn check_named(source: &str) -> Result<(), String> {
    if portolan_tasks::is_uploaded(source) {
        return Ok(());
    }
    match source.strip_prefix(IMAGE) {
        Some(name) => name.parse::<ImageRef>().map(drop).map_err(|_| "it is no image".into()),
        None => Address::read(source).map(drop),
    }
}

/// What was fetched.
pub(super) enum Files {
    /// A tree of files.
    Tree(BuildContext),
    /// A Dockerfile, and a context without any file.
    Dockerfile(Vec<u8>, BuildContext),
}

/// A downloaded file: an archive, or a Dockerfile alone.
fn from_file(file: &Path, path: &Path, stop: &Cancel) -> Result<Files, Trouble> {
    let mut archive = File::open(file).map_err(|e| server("open what was fetched", e))?;
    let mut head = Vec::new();
    (&mut archive).take(512).read_to_end(&mut head).map_err(|e| server("read what was fetched", e))?;
    archive.seek(SeekFrom::Start(0)).map_err(|e| server("read what was fetched", e))?;
    let contents = nameless(path)?;
    if is_archive(&head) {
        let read = Context::read(archive, contents, &ContextLimits::default(), stop).map_err(unreadable)?;
        return Ok(Files::Tree(BuildContext::Packed(read)));
    }
    let mut text = Vec::new();
    let limit = limits::DOCKERFILE_BYTES_MAX as u64;
    archive.take(limit + 1).read_to_end(&mut text).map_err(|e| server("read what was fetched", e))?;
    if text.len() as u64 > limit || std::str::from_utf8(&text).is_err() {
        return Err(Trouble::Order("what was fetched is neither a tar archive nor a Dockerfile".into()));
    }
    let empty = Assembly::new(contents, &ContextLimits::default(), stop).and_then(Assembly::finish);
    Ok(Files::Dockerfile(text, BuildContext::Packed(empty.map_err(unreadable)?)))
}

/// Told by the first bytes, as docker does.
fn is_archive(head: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z', 0]];
    magics.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
}

/// A file for contents without a name.
pub(super) fn nameless(path: &Path) -> Result<File, Trouble> {
    let file = contents_file(path)?;
    std::fs::remove_file(path).map_err(|e| server("make a file for the build context", e))?;
    Ok(file)
}

/// A layer of an artifact.
pub(super) struct Part {
    blob: Descriptor,
    /// A file's name; `None` for an archive.
    name: Option<String>,
}

/// The manifest's digest and the layers of an artifact, all of them in the store.
async fn artifact(images: &RunImages, name: &ImageRef) -> Result<(String, Vec<Part>), String> {
    let found = images.artifact(name).await?;
    let view = ManifestView::parse(&found.1, Some(&found.2)).map_err(|e| format!("{name}: {e}"))?;
    let ManifestKind::Image { layers, .. } = &view.kind else {
        return Err(format!("{name} is no artifact with files"));
    };
    let title = |blob: &Descriptor| blob.annotations.get("org.opencontainers.image.title").cloned();
    let flag = |blob: &Descriptor, key: &str| blob.annotations.get(key).is_some_and(|v| v == "true");
    let parts: Vec<Part> = layers
        .iter()
        .map(|blob| {
            // oras packs a folder as an archive and says so.
            let archive = flag(blob, "io.deis.oras.content.unpack") || blob.media_type.contains("tar");
            let name = title(blob).filter(|_| !archive);
            Part { blob: blob.clone(), name }
        })
        .collect();
    if parts.is_empty() {
        return Err(format!("{name} has no files"));
    }
    Ok((found.0, parts))
}

/// The files of an artifact as one context.
fn assembled<R: Read + Send>(
    parts: &[Part],
    open: &dyn Fn(&Descriptor) -> io::Result<R>,
    path: &Path,
    stop: &Cancel,
) -> Result<Context, Trouble> {
    let mut all = Assembly::new(nameless(path)?, &ContextLimits::default(), stop).map_err(unreadable)?;
    for part in parts {
        let body = open(&part.blob).map_err(|e| server("read the artifact", e))?;
        let done = match &part.name {
            Some(name) => all.file(name, 0o644, 0, body),
            None => all.archive(body),
        };
        done.map_err(|e| match e {
            ContextError::Refused(why) => Trouble::Order(format!("{}: {why}", part.blob.digest)),
            other => unreadable(other),
        })?;
    }
    all.finish().map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use portolan_tasks::NamedSecret;

    use super::*;

    #[test]
    fn tokens_are_for_their_hosts() {
        let secret =
            |id: &str, value: &str| NamedSecret { id: id.into(), value: Secret::new(value.as_bytes().to_vec()) };
        let options = BuildOptions {
            secrets: vec![
                secret("GIT_AUTH_TOKEN", "one\n"),
                secret("GIT_AUTH_HEADER.h.example", "Bearer two"),
                secret("GIT_AUTH_TOKENS", "no"),
                secret("GIT_AUTH_TOKEN.x", "a\nb"),
                secret("other", "no"),
            ],
            ..BuildOptions::default()
        };
        let found: Vec<(String, String)> =
            credentials(&options).into_iter().map(|(host, value)| (host, value.into_exposed())).collect();
        let basic = STANDARD.encode("x-access-token:one");
        assert_eq!(
            found,
            [
                ("h.example".to_owned(), "Authorization: Bearer two".to_owned()),
                (String::new(), format!("Authorization: Basic {basic}")),
            ]
        );
    }
}
