//! Blobs: asking for one, reading, mounting, deleting, and taking over what a build wrote.
//!
//! A repository reads a blob because a row links the two, in the registry the request came
//! to. That another repository has the content, or that it is in the store, gives nothing.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use portolan_auth::access::{self, Action, Target};
use portolan_store::blob::ByteStream;
use portolan_store::meta::gc::{self, Review};
use portolan_store::meta::pull::{self, RepoBlob};
use portolan_store::meta::{Tx, blob, manifest, repo};
use portolan_types::oci::Descriptor;
use portolan_types::{Digest, RepoName, Timestamp};
use serde_json::json;

use crate::cache::Evict;
use crate::content::{DirectUpload, detached};
use crate::push::{Push, Source};
use crate::registries::Registry;
use crate::repos::disallowed;
use crate::service::Service;
use crate::tiers::check_storage;
use crate::usages::link_within;
use crate::{Ctx, Error, Kind, Result};

pub(crate) fn blob_unknown(digest: &Digest) -> Error {
    Error::new(Kind::NotFound, "BLOB_UNKNOWN", format!("blob {digest} is not found in this repository"))
        .with_detail(json!({ "digest": digest }))
}

/// Repositories that are looked at for one to mount from, when the client names none.
const MOUNT_SOURCES_MAX: usize = 64;

/// The challenge of `e`, if it has one, with the right to pull from `source` added to it.
fn with_source(mut e: Error, source: &RepoName) -> Error {
    if let Some(scope) = e.challenge.as_mut().filter(|scope| !scope.is_empty()) {
        scope.push(' ');
        scope.push_str(&access::scope_text(&Target::Repo(source.clone()), Action::Pull));
        // It told of one repository; the rim tells of all that the challenge names.
        e.detail = None;
    }
    e
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
        if self.is_shared() {
            return self.ask_for_blob(registry, name, digest).await.map(|(size, _)| size);
        }
        let id = self.readable_repo(registry, name, digest).await?;
        self.size_in(id, digest).await
    }

    /// The size of a blob that may be read, as the database says now, and its row.
    async fn ask_for_blob(&self, registry: &Registry, name: &RepoName, digest: &Digest) -> Result<(u64, RepoBlob)> {
        let (id, name, wanted) = (registry.id, name.clone(), *digest);
        let found = self.meta.read(move |tx| pull::blob(tx, id, &name, &wanted).map_err(Error::from)).await?;
        let found = found.ok_or_else(|| blob_unknown(digest))?;
        if !found.readable {
            return Err(disallowed("reading it is locked"));
        }
        Ok((found.size.ok_or_else(|| blob_unknown(digest))?, found))
    }

    /// Have the link's review, if there is one, wait for the manifest that the client is
    /// about to push. Mostly there is none, or it waits long enough, and nothing is written.
    async fn put_off_review(&self, digest: &Digest, size: u64, found: RepoBlob, now: Timestamp) -> Result<u64> {
        let until = now.plus(self.config.graces.touch);
        if found.review_due.is_none_or(|due| due >= until) {
            return Ok(size);
        }
        let digest = *digest;
        let still = self.meta.write(move |tx| {
            let size = blob::size_in(tx, found.repo, &digest)?;
            gc::put_off(tx, &Review::Link { repo: found.repo, digest }, until)?;
            Ok::<_, Error>(size)
        });
        still.await?.ok_or_else(|| blob_unknown(&digest))
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
        if self.is_shared() {
            let (size, found) = self.ask_for_blob(registry, name, digest).await?;
            return self.put_off_review(digest, size, found, ctx.now).await;
        }
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
        let mut push = Push::begin(self, vec![digest], Source::Direct(direct.id), ctx.now).await?;
        let blobs = Arc::clone(&self.blobs);
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.link);
        let (bytes_max, tier) = (self.config.blob_bytes_max, *self.tier(registry));
        // All of it runs to the end: when the client goes away its body breaks off, and what
        // came of it is thrown away.
        detached(async move {
            let id = direct.id;
            blobs.create(id).await?;
            let finish = async {
                blobs.append(id, Some(0), body, bytes_max).await?;
                push.ready().await?;
                blobs.finish(id, &digest).await.map_err(Error::from)
            };
            let size = match finish.await {
                Ok(size) => size,
                Err(e) => {
                    blobs.abort(id).await?;
                    return Err(e);
                }
            };
            push.land(move |tx| {
                let repo = repo::ensure(tx, &change, &name)?;
                link_within(tx, &tier, repo.id, (&digest, size), change.now, grace)
            })
            .await??;
            drop(direct);
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
    /// caller may pull from that one. With no `from`, from any such repository that the
    /// caller may pull from. False when there is none: the client then uploads the blob.
    ///
    /// Errors: `UNAUTHORIZED` with a challenge for both repositories when the caller may
    /// pull from the source and came with a token that does not say so.
    pub async fn mount_blob(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        digest: Digest,
        from: Option<&RepoName>,
    ) -> Result<bool> {
        // Whether the repository is locked is asked where it is written.
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Push).map_err(|e| match from {
            Some(from) if from != name => with_source(e, from),
            _ => e,
        })?;
        let sources = match from {
            Some(from) if self.may_mount(ctx, registry, name, from)? => vec![from.clone()],
            Some(_) => Vec::new(),
            None => {
                let id = registry.id;
                let holders = move |tx: &mut dyn Tx| blob::holders(tx, id, &digest, MOUNT_SOURCES_MAX);
                let mut found = self.meta.read(move |tx| holders(tx).map_err(Error::from)).await?;
                found.retain(|source| {
                    source == name || self.check(ctx, registry, &Target::Repo(source.clone()), Action::Pull).is_ok()
                });
                found
            }
        };
        if sources.is_empty() {
            return Ok(false);
        }
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.link);
        self.commit((), move |tx, _| {
            for source in &sources {
                let Some(source) = repo::find(tx, change.registry, source)? else { continue };
                let Some(size) = blob::size_in(tx, source.id, &digest)? else { continue };
                if source.attributes.read {
                    let repo = repo::ensure(tx, &change, &name)?;
                    if repo.visible && !repo.attributes.write {
                        return Err(disallowed(&format!("repository {name} is locked")));
                    }
                    blob::link(tx, repo.id, &digest, size, change.now, grace)?;
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// Whether the caller, who may push to `name`, may take blobs from `from`.
    fn may_mount(&self, ctx: &Ctx, registry: &Registry, name: &RepoName, from: &RepoName) -> Result<bool> {
        if from == name {
            return Ok(true);
        }
        let source = Target::Repo(from.clone());
        match self.check(ctx, registry, &source, Action::Pull) {
            Ok(()) => Ok(true),
            // The caller may, its token does not reach there: a token for both will.
            Err(e) if e.challenge.is_some() && self.may(&ctx.principal, Action::Pull, &registry.resource(&source)) => {
                let mut e = e;
                e.challenge = Some(access::scope_text(&Target::Repo(name.clone()), Action::Push));
                Err(with_source(e, from))
            }
            Err(_) => Ok(false),
        }
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
        let mut push = Push::begin(self, digests.clone(), Source::Store, ctx.now).await?;
        push.ready().await?;
        let store = Arc::clone(&self.blobs);
        let list = digests.clone();
        let synced = tokio::task::spawn_blocking(move || store.sync(&list)).await;
        synced
            .map_err(|e| Error::new(Kind::Internal, "UNKNOWN", "syncing the build's layers failed").with_source(e))??;
        let mut sizes = Vec::with_capacity(digests.len());
        for digest in digests {
            let size = self.blobs.size(&digest).await?.ok_or_else(|| blob_unknown(&digest))?;
            sizes.push((digest, size));
        }
        let (change, name, grace) = (self.change(ctx, registry), name.clone(), self.config.graces.link);
        let tier = *self.tier(registry);
        let land = push.land(move |tx| {
            let repo = repo::ensure(tx, &change, &name)?;
            for (digest, size) in &sizes {
                if let Some(held) = blob::link(tx, repo.id, digest, *size, change.now, grace)? {
                    check_storage(&tier, held)?;
                }
            }
            Ok(())
        });
        detached(land).await
    }

    /// Keep blobs in the store until then, whether or not a repository may read them:
    /// layers of a build under way, content that the build cache counts on. Each call
    /// replaces the time for its blobs. `holder` names who holds, e.g. `run:cb1`.
    pub async fn hold_blobs(&self, holder: &str, digests: &[Digest], until: Timestamp) -> Result<()> {
        let mut push = Push::begin(self, digests.to_vec(), Source::Store, Timestamp::now()).await?;
        push.ready().await?;
        let (holder, digests) = (holder.to_owned(), digests.to_vec());
        let land = push.hold(move |tx| {
            for digest in &digests {
                gc::hold(tx, &holder, digest, until)?;
            }
            Ok(())
        });
        detached(land).await
    }

    /// Let go of everything that `holder` holds; what nothing else needs is collected.
    pub async fn release_blobs(&self, holder: &str, now: Timestamp) -> Result<()> {
        let (meta, holder) = (self.meta.clone(), holder.to_owned());
        detached(async move { meta.write(move |tx| gc::release(tx, &holder, now).map_err(Error::from)).await }).await
    }
}
