//! Uploads: a blob that arrives in several requests.
//!
//! An upload is a row (whose it is) and a file (its bytes), both under one random id. It
//! belongs to a repository and to whoever began it; for anybody else it is not there. It
//! ends when it becomes a blob, when its owner cancels it, when its content has not the
//! digest promised, or after [`crate::gc::UPLOAD_IDLE`] without a byte.
//!
//! Any server on the same database and blob store may take the next chunk. One request at a
//! time writes: the blob store sees to that within a server, and a row (`Claim`) between them,
//! which is given back before the client is answered.

use std::sync::Arc;
use std::time::Duration;

use portolan_auth::access::{Action, Target};
use portolan_store::Error as StoreError;
use portolan_store::blob::ByteStream;
use portolan_store::meta::repo;
use portolan_store::meta::upload::{self, Upload};
use portolan_types::{Digest, RepoName, UploadId};

use crate::content::{detached, owner};
use crate::push::{Push, Source};
use crate::registries::Registry;
use crate::service::Service;
use crate::usages::{check_room, link_within};
use crate::{Ctx, Error, Kind, Result};

/// An append notes its time when the last note is older.
const NOTE_EVERY: Duration = Duration::from_secs(3_600);

fn upload_unknown(id: UploadId) -> Error {
    Error::new(
        Kind::NotFound,
        "BLOB_UPLOAD_UNKNOWN",
        format!("there is no upload {id}: it is finished, expired or was never begun"),
    )
}

pub(crate) fn busy() -> Error {
    Error::new(Kind::Conflict, "BLOB_UPLOAD_INVALID", "another request is writing to this upload")
}

impl Service {
    /// Begin an upload.
    ///
    /// Errors: `TOOMANYREQUESTS` when too many are open in the registry;
    /// `REGISTRY_DISALLOWED_OPERATION` when it holds all that its tier allows.
    pub async fn start_upload(&self, ctx: &Ctx, registry: &Arc<Registry>, name: &RepoName) -> Result<UploadId> {
        self.check_push(ctx, registry, name).await?;
        let id = UploadId::random();
        let (change, name, max) = (self.change(ctx, registry), name.clone(), self.config.uploads_max);
        let (own_max, tier) = (self.config.uploads_per_identity_max, *self.tier(registry));
        self.commit((), move |tx, _| {
            check_room(tx, &tier, change.registry)?;
            let open = upload::count(tx, change.registry, &change.actor)?;
            let message = if open.registry >= max as u64 {
                format!("{max} uploads are open in this registry; finish or cancel some")
            } else if open.owner >= own_max as u64 {
                format!("you have {own_max} uploads open in this registry; finish or cancel some")
            } else {
                String::new()
            };
            if !message.is_empty() {
                return Err(Error::new(Kind::TooMany { retry_after_secs: 60 }, "TOOMANYREQUESTS", message));
            }
            let repo = repo::ensure(tx, &change, &name)?;
            Ok(upload::insert(tx, id, repo.id, &change.actor, change.now)?)
        })
        .await?;
        self.blobs.create(id).await?;
        Ok(id)
    }

    async fn find_upload(&self, ctx: &Ctx, registry: &Registry, name: &RepoName, id: UploadId) -> Result<Upload> {
        self.check(ctx, registry, &Target::Repo(name.clone()), Action::Push)?;
        let (registry, name, owner) = (registry.id, name.clone(), owner(&ctx.principal));
        let found =
            self.meta.read(move |tx| upload::find(tx, registry, &name, id, &owner).map_err(Error::from)).await?;
        found.ok_or_else(|| upload_unknown(id))
    }

    /// How many bytes an upload holds.
    ///
    /// Errors: `BLOB_UPLOAD_UNKNOWN`.
    pub async fn upload_length(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        id: UploadId,
    ) -> Result<u64> {
        self.find_upload(ctx, registry, name, id).await?;
        self.blobs.length(id).await?.ok_or_else(|| upload_unknown(id))
    }

    /// Add bytes to an upload; how many it holds then. With `offset`, it must hold exactly
    /// so many before. At most `bytes_max` bytes are taken from the body.
    ///
    /// Errors: `BLOB_UPLOAD_UNKNOWN`; `BLOB_UPLOAD_INVALID` as `RangeNotSatisfiable` for
    /// another offset, as `Invalid` when the body broke off (what came is kept), as
    /// `Conflict` while another request writes; `SIZE_INVALID`.
    #[allow(clippy::too_many_arguments, reason = "one argument for each part of the request")]
    pub async fn append_upload(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        id: UploadId,
        offset: Option<u64>,
        body: ByteStream,
        bytes_max: Option<u64>,
    ) -> Result<u64> {
        let found = self.find_upload(ctx, registry, name, id).await?;
        if ctx.now.since(found.updated) > NOTE_EVERY {
            let now = ctx.now;
            self.meta.write(move |tx| upload::touch(tx, id, now).map_err(Error::from)).await?;
        }
        let claim = self.claim_upload(id).await?.ok_or_else(busy)?;
        let total_max = match bytes_max {
            None => self.config.blob_bytes_max,
            Some(bytes_max) => {
                let have = self.blobs.length(id).await?.ok_or_else(|| upload_unknown(id))?;
                offset.unwrap_or(have).saturating_add(bytes_max).min(self.config.blob_bytes_max)
            }
        };
        let done = self.blobs.append(id, offset, body, total_max).await.map_err(|e| upload_error(e, id));
        // The client's next chunk may go to another server.
        claim.release().await?;
        done
    }

    /// Turn an upload into a blob of its repository; the blob's size. When the content has
    /// another digest the upload is gone.
    ///
    /// Errors: `BLOB_UPLOAD_UNKNOWN`, `DIGEST_INVALID`.
    pub async fn finish_upload(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        id: UploadId,
        digest: Digest,
    ) -> Result<u64> {
        let found = self.find_upload(ctx, registry, name, id).await?;
        let mut push = Push::begin(self, vec![digest], Source::Upload(id), ctx.now).await?;
        let (meta, blobs, now) = (self.meta.clone(), Arc::clone(&self.blobs), ctx.now);
        let (grace, tier) = (self.config.graces.link, *self.tier(registry));
        detached(async move {
            push.ready().await?;
            let size = match blobs.finish(id, &digest).await {
                Ok(size) => size,
                Err(e @ StoreError::DigestMismatch { .. }) => {
                    blobs.abort(id).await?;
                    meta.write(move |tx| {
                        upload::delete(tx, id)?;
                        repo::remove_if_unused(tx, found.repo)?;
                        Ok::<_, Error>(())
                    })
                    .await?;
                    return Err(e.into());
                }
                Err(e) => return Err(upload_error(e, id)),
            };
            push.land(move |tx| {
                upload::delete(tx, id)?;
                link_within(tx, &tier, found.repo, (&digest, size), now, grace)
            })
            .await??;
            Ok(size)
        })
        .await
    }

    /// How many uploads are under way in all registries, for the operator's gauge.
    pub async fn uploads_open(&self) -> Result<u64> {
        self.meta.read(|tx| upload::count_all(tx).map_err(Error::from)).await
    }

    /// Forget an upload.
    ///
    /// Errors: `BLOB_UPLOAD_UNKNOWN`; `BLOB_UPLOAD_INVALID` while a request writes to it.
    pub async fn cancel_upload(
        &self,
        ctx: &Ctx,
        registry: &Arc<Registry>,
        name: &RepoName,
        id: UploadId,
    ) -> Result<()> {
        let found = self.find_upload(ctx, registry, name, id).await?;
        let claim = self.claim_upload(id).await?.ok_or_else(busy)?;
        self.blobs.abort(id).await.map_err(|e| upload_error(e, id))?;
        self.commit((), move |tx, _| {
            upload::delete(tx, id)?;
            repo::remove_if_unused(tx, found.repo)?;
            Ok(())
        })
        .await?;
        claim.release().await
    }
}

fn upload_error(e: StoreError, id: UploadId) -> Error {
    match e {
        StoreError::NotFound(_) => upload_unknown(id),
        StoreError::Conflict(_) => busy().with_source(e),
        e => e.into(),
    }
}
