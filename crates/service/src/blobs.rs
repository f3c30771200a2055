//! Blobs: asking for one, reading, mounting, deleting, and taking over what a build wrote.
//!
//! A repository reads a blob because a row links the two, in the registry the request came
//! to. That another repository has the content, or that it is in the store, gives nothing.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use portolan_auth::access::{Action, Target};
use portolan_store::blob::ByteStream;
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::{blob, manifest, repo};
use portolan_types::oci::Descriptor;
use portolan_types::{Digest, RepoName, Timestamp, limits};
use serde_json::json;

use crate::cache::Evict;
use crate::content::{DirectUpload, detached};
use crate::registries::Registry;
use crate::repos::disallowed;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

pub(crate) fn blob_unknown(digest: &Digest) -> Error {
    Error::new(Kind::NotFound, "BLOB_UNKNOWN", format!("blob {digest} is not found in this repository"))
        .with_detail(json!({ "digest": digest }))
}

/// The error of reading a blob that the rows say is here.
fn missing(digest: &Digest, e: portolan_store::Error) -> Error {
    match e {
        portolan_store::Error::NotFound(_) => {
            Error::new(Kind::Internal, "UNKNOWN", format!("the content of {digest} is missing from the store"))
                .with_source(e)
        }
        e => e.into(),
    }
}

impl Service {
    /// The size of a blob in bytes, for pulling it.
    ///
    /// Errors: `BLOB_UNKNOWN`; `REGISTRY_DISALLOWED_OPERATION` when reading the repository
    /// is locked.
    pub async fn blob_size(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: &Digest,
    ) -> Result<u64> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Pull)?;
        let id = self.readable_repo(registry, name, digest).await?;
        self.size_in(id, digest).await
    }

    /// The size of a blob in bytes, for a client that will not push it again if it is here:
    /// the link then stays long enough for the manifest to come.
    ///
    /// Errors as in [`Service::blob_size`].
    pub async fn blob_exists(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: &Digest,
    ) -> Result<u64> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Pull)?;
        let id = self.readable_repo(registry, name, digest).await?;
        let _guard = self.content.locks.shared(digest).await;
        self.content.caches.touched.insert((id, *digest), ctx.now);
        self.size_in(id, digest).await
    }

    /// A blob's bytes in `range`. Ask [`Service::blob_size`] first: it decides who may.
    pub async fn read_blob(&self, digest: &Digest, range: Range<u64>) -> Result<ByteStream> {
        self.blobs.read(digest, range).await.map_err(|e| missing(digest, e))
    }

    /// A blob as an open file, if the store has it as one; otherwise it is to be read by
    /// [`Service::read_blob`]. Ask [`Service::blob_size`] first: it decides who may.
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        self.blobs.open(digest).await.map_err(|e| missing(digest, e))
    }

    /// The id of a repository whose blobs may be read. Before its first manifest comes
    /// nobody sees a repository, but whoever pushes to it may ask for its blobs.
    async fn readable_repo(&self, registry: &Registry, name: &RepoName, digest: &Digest) -> Result<i64> {
        match self.lookup_repo(registry, name).await {
            Ok(repo) if !repo.attributes.read => Err(disallowed("reading it is locked")),
            Ok(repo) => Ok(repo.id),
            Err(e) if e.code == "NAME_UNKNOWN" => {
                let (id, name) = (registry.id, name.clone());
                let found = self.meta.read(move |tx| repo::find(tx, id, &name).map_err(Error::from)).await?;
                found.map(|r| r.id).ok_or_else(|| blob_unknown(digest))
            }
            Err(e) => Err(e),
        }
    }

    async fn size_in(&self, repo: i64, digest: &Digest) -> Result<u64> {
        let key = (repo, *digest);
        if let Some(size) = self.content.caches.blobs.get(&key) {
            return Ok(size);
        }
        let load = async {
            let size = self.meta.read(move |tx| blob::size_in(tx, key.0, &key.1).map_err(Error::from)).await?;
            size.ok_or_else(|| blob_unknown(&key.1))
        };
        self.content.caches.blobs.get_or_insert_async(&key, load).await
    }

    /// The size of a blob that a repository, seen or not, may read.
    pub(crate) async fn linked_blob_size(
        &self,
        registry: &Registry,
        name: &RepoName,
        digest: &Digest,
    ) -> Result<Option<u64>> {
        let (id, name, digest) = (registry.id, name.clone(), *digest);
        self.meta
            .read(move |tx| match repo::find(tx, id, &name)? {
                Some(repo) => Ok(blob::size_in(tx, repo.id, &digest)?),
                None => Ok::<_, Error>(None),
            })
            .await
    }

    /// Store a blob that comes whole, in one request; its size.
    ///
    /// Errors: `DIGEST_INVALID`, `SIZE_INVALID`, `BLOB_UPLOAD_INVALID` when the body breaks
    /// off; nothing is stored then.
    pub async fn put_blob(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: Digest,
        body: ByteStream,
    ) -> Result<u64> {
        self.check_push(ctx, registry, name).await?;
        // Not one `put`: the lock is taken when all bytes are here, so that a slow client
        // does not hold up others.
        let direct = DirectUpload::begin(&self.content);
        let (meta, blobs, content) = (self.meta.clone(), Arc::clone(&self.blobs), Arc::clone(&self.content));
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.link);
        // All of it runs to the end: when the client goes away its body breaks off, and what
        // came of it is thrown away.
        detached(async move {
            let id = direct.id;
            blobs.create(id).await?;
            let finish = async {
                blobs.append(id, Some(0), body, limits::BLOB_BYTES_MAX).await?;
                let guard = content.locks.shared(&digest).await;
                blobs.finish(id, &digest).await.map(|size| (size, guard))
            };
            let (size, guard) = match finish.await {
                Ok(finished) => finished,
                Err(e) => {
                    blobs.abort(id).await?;
                    return Err(e.into());
                }
            };
            meta.write(move |tx| {
                let repo = repo::ensure(tx, &change, &name)?;
                Ok::<_, Error>(blob::link(tx, repo.id, &digest, size, change.now, grace)?)
            })
            .await?;
            drop((guard, direct));
            Ok(size)
        })
        .await
    }

    /// Whether the caller may push to a repository now: to be asked before bytes are read.
    pub async fn check_push(&self, ctx: &Ctx, registry: &Registry, name: &RepoName) -> Result<()> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Push)?;
        self.check_unlocked(registry, name).await
    }

    /// Refuse a push to a locked repository before its bytes come.
    async fn check_unlocked(&self, registry: &Registry, name: &RepoName) -> Result<()> {
        match self.lookup_repo(registry, name).await {
            Ok(repo) if !repo.attributes.write => Err(disallowed(&format!("repository {name} is locked"))),
            Err(e) if e.code != "NAME_UNKNOWN" => Err(e),
            _ => Ok(()),
        }
    }

    /// Let a repository read a blob that another repository of the registry has, if the
    /// caller may pull from that one. With no `from`, only when it has the blob already.
    /// False when that is not so: the client then uploads the blob.
    pub async fn mount_blob(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: Digest,
        from: Option<&RepoName>,
    ) -> Result<bool> {
        self.check_push(ctx, registry, name).await?;
        let from = from.unwrap_or(name).clone();
        if from != *name && self.check(ctx, registry, &Target::Repo(from.clone()), Action::Pull).is_err() {
            return Ok(false);
        }
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.link);
        self.commit((), move |tx, _| {
            let Some(source) = repo::find(tx, change.registry, &from)? else { return Ok(false) };
            let Some(size) = blob::size_in(tx, source.id, &digest)? else { return Ok(false) };
            if !source.attributes.read {
                return Ok(false);
            }
            let repo = repo::ensure(tx, &change, &name)?;
            blob::link(tx, repo.id, &digest, size, change.now, grace)?;
            Ok(true)
        })
        .await
    }

    /// Take a blob out of a repository.
    ///
    /// Errors: `BLOB_UNKNOWN`; `UNSUPPORTED` while a manifest of the repository needs it.
    pub async fn delete_blob(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: Digest,
    ) -> Result<()> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Delete)?;
        let (change, name) = (self.change(ctx, registry), name.clone());
        self.commit((), move |tx, evict| {
            let repo = repo::find(tx, change.registry, &name)?.ok_or_else(|| blob_unknown(&digest))?;
            if !repo.attributes.write {
                return Err(disallowed(&format!("repository {name} is locked")));
            }
            if manifest::needs_blob(tx, repo.id, &digest)? {
                let message = format!("a manifest in repository \"{name}\" needs {digest}: delete the manifest");
                return Err(Error::new(Kind::Unsupported, "UNSUPPORTED", message));
            }
            if !blob::unlink(tx, repo.id, &digest)? {
                return Err(blob_unknown(&digest));
            }
            gc::dequeue(tx, &Review::Link { repo: repo.id, digest })?;
            gc::enqueue(tx, Review::Blob(digest), change.now)?;
            repo::remove_if_unused(tx, repo.id)?;
            evict.push(Evict::Blob(repo.id, digest));
            Ok(())
        })
        .await
    }

    /// Let a repository read blobs that a build wrote into the store, and make them
    /// durable. Call it before [`Service::put_manifest`]; blobs the repository has already
    /// are fine.
    ///
    /// Errors: `BLOB_UNKNOWN` for one that is not in the store.
    pub async fn link_build_blobs(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        blobs: &[Descriptor],
    ) -> Result<()> {
        self.check_push(ctx, registry, name).await?;
        let digests: Vec<Digest> = blobs.iter().map(|b| b.digest).collect();
        let store = Arc::clone(&self.blobs);
        let list = digests.clone();
        let synced = tokio::task::spawn_blocking(move || store.sync(&list)).await;
        synced
            .map_err(|e| Error::new(Kind::Internal, "UNKNOWN", "syncing the build's layers failed").with_source(e))??;
        let guards = self.content.locks.shared_all(&digests).await;
        let mut sizes = Vec::with_capacity(digests.len());
        for digest in digests {
            let size = self.blobs.size(&digest).await?.ok_or_else(|| blob_unknown(&digest))?;
            sizes.push((digest, size));
        }
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.link);
        self.commit(guards, move |tx, _| {
            let repo = repo::ensure(tx, &change, &name)?;
            for (digest, size) in sizes {
                blob::link(tx, repo.id, &digest, size, change.now, grace)?;
            }
            Ok(())
        })
        .await
    }

    /// Keep blobs in the store until then, whether or not a repository may read them:
    /// layers of a build under way, content that the build cache counts on. Each call
    /// replaces the time for its blobs. `holder` names who holds, e.g. `run:cb1`.
    pub async fn hold_blobs(&self, holder: &str, digests: &[Digest], until: Timestamp) -> Result<()> {
        let guards = self.content.locks.shared_all(digests).await;
        let (holder, digests) = (holder.to_owned(), digests.to_vec());
        self.commit(guards, move |tx, _| {
            for digest in &digests {
                gc::hold(tx, &holder, digest, until)?;
            }
            Ok(())
        })
        .await
    }

    /// Let go of everything that `holder` holds; what nothing else needs is collected.
    pub async fn release_blobs(&self, holder: &str, now: Timestamp) -> Result<()> {
        let (meta, holder) = (self.meta.clone(), holder.to_owned());
        detached(async move { meta.write(move |tx| gc::release(tx, &holder, now).map_err(Error::from)).await }).await
    }
}
