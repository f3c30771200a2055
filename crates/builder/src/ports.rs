//! What the engine needs from the world: content by digest, base images, a place for
//! step records, and someone who listens. `server` implements these over the store.
//!
//! The engine is synchronous and runs on threads of its own, so these are plain blocking
//! traits; an implementation may block on async work as long as it needs.
//!
//! *Architecture invariant:* the engine reads and writes digests; it never sees a
//! repository, a registry, a token or a database.

use std::any::Any;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use portolan_types::oci::{Descriptor, ImageConfig};
use portolan_types::{Digest, ImageRef, Platform};

use crate::Cancel;
use crate::remote::GitSource;

/// Content by digest.
pub trait Content: Send + Sync {
    /// The content's bytes, or `NotFound`.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>>;
    /// Its size in bytes, or `None` when it is not here.
    fn size(&self, digest: &Digest) -> io::Result<Option<u64>>;
    /// Begin new content. Dropping the writer leaves nothing behind.
    fn create(&self) -> io::Result<Box<dyn ContentWriter>>;
    /// Make everything committed under these digests durable. `commit` alone need not be:
    /// a layer matters only once a manifest names it.
    fn sync(&self, digests: &[Digest]) -> io::Result<()>;
}

/// Content in the making.
pub trait ContentWriter: Write + Send {
    /// Give the bytes written their name. The caller computed `digest` while writing.
    fn commit(self: Box<Self>, digest: &Digest) -> io::Result<()>;
}

/// An image to build on, all of whose blobs [`Content`] can open.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// The digest of the image manifest that was chosen (for the platform).
    pub digest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first, one for each of `config.rootfs.diff_ids`.
    pub layers: Vec<Descriptor>,
}

/// Where `FROM` and `COPY --from=<image>` get images.
pub trait Images: Send + Sync {
    /// Find the image for the platform and bring all of it into [`Content`]. `note` takes
    /// lines for the build log (`pulling from …`). The error is a sentence for the log.
    fn resolve(&self, image: &ImageRef, platform: &Platform, note: &dyn Fn(&str)) -> Result<BaseImage, String>;
}

/// Records of steps done before, by cache key. Values are the engine's own JSON.
pub trait StepCache: Send + Sync {
    /// The record under `key`, if it is still kept.
    fn get(&self, key: &Digest) -> Option<Vec<u8>>;
    /// Keep a record. Losing it costs time, never correctness.
    fn put(&self, key: &Digest, record: &[u8]);
}

/// Keeps what was fetched for as long as somebody has it.
pub type Hold = Arc<dyn Any + Send + Sync>;

/// A file that was fetched.
#[derive(Clone)]
pub struct RemoteFile {
    /// Where it is on this machine; it is not changed.
    pub path: PathBuf,
    /// Of its contents, SHA-256.
    pub digest: Digest,
    /// What the server calls it, without folders.
    pub name: Option<String>,
    /// `Last-Modified` in seconds since 1970; 0 when the server does not say.
    pub mtime: i64,
    /// Keeps the file.
    pub hold: Hold,
}

impl std::fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.digest)
    }
}

/// A checked-out git repository.
pub struct RemoteTree {
    /// Its folder on this machine.
    pub root: PathBuf,
    /// Keeps the folder.
    pub hold: Hold,
}

/// Fetches what `ADD` names that is elsewhere. Errors are sentences for the log; none of them
/// repeats a password.
pub trait Remotes: Send + Sync {
    /// A file, by its `http` or `https` address. `note` takes lines for the log.
    fn file(&self, url: &str, note: &dyn Fn(&str)) -> Result<RemoteFile, String>;
    /// The commit that a source means now: 40 or 64 hexadecimal digits.
    fn commit(&self, source: &GitSource) -> Result<String, String>;
    /// That commit of the source, checked out.
    fn tree(&self, source: &GitSource, commit: &str, keep_git_dir: bool) -> Result<RemoteTree, String>;
}

/// An ssh agent: lists keys and signs with them.
pub trait SshAgent: Send + Sync {
    /// Answer a message of the agent's protocol (draft-miller-ssh-agent): a type and its
    /// contents, without the length that goes before them on a socket. Blocks as long as it
    /// takes, but no longer than until `stop` is raised. Programs of a step can only ask for
    /// the list of keys and for a signature. An error is told to the program as a failure.
    fn ask(&self, message: &[u8], stop: &Cancel) -> io::Result<Vec<u8>>;
}
