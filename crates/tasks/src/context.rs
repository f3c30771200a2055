//! Packed build contexts between their upload and the run that uses them.
//!
//! Life: [`Tasks::stage_context`] makes the place and its row; the client puts the archive
//! there whole ([`Tasks::put_context`]) or in blocks ([`Tasks::put_block`],
//! [`Tasks::commit_blocks`]); a run takes it over, which keeps it from expiring; after the
//! run it goes. What no run takes goes after [`CONTEXT_SECS_MAX`].

use std::collections::HashMap;
use std::time::Duration;

use portolan_store::blob::ByteStream;
use portolan_store::meta::object::{self, Object};
use portolan_types::{Digest, Timestamp, limits};
use uuid::Uuid;

use crate::{Error, Result, Tasks};

/// How long a context is kept that no run takes.
pub const CONTEXT_SECS_MAX: u64 = 24 * 3600;

/// A place for a context.
#[derive(Clone, Debug)]
pub struct StagedContext {
    /// What `scheduleRun` calls it: `source/<uuid>.tar.gz`.
    pub relative_path: String,
    /// When it goes if no run takes it.
    pub expires: Timestamp,
}

/// Whether a source is the relative path of an uploaded context, and no address.
pub fn is_uploaded(source: &str) -> bool {
    source.starts_with("source/") && !source.contains("://")
}

/// The object for a relative path of a registry; `None` when it is not of our making.
pub fn context_key(registry: i64, relative_path: &str) -> Option<String> {
    let name = relative_path.strip_prefix("source/")?;
    let id = name.strip_suffix(".tar.gz")?;
    let id = Uuid::try_parse(id).ok().filter(|parsed| parsed.to_string() == id)?;
    Some(format!("contexts/{registry}/{id}.tar.gz"))
}

fn block_key(context: &str, block: &[u8]) -> String {
    format!("{context}.blocks/{}", Digest::of(block).hex())
}

impl Tasks {
    /// Make a place for a context.
    pub async fn stage_context(&self, registry: i64, now: Timestamp) -> Result<StagedContext> {
        let relative_path = format!("source/{}.tar.gz", Uuid::new_v4());
        let expires = now.plus(Duration::from_secs(CONTEXT_SECS_MAX));
        let key = context_key(registry, &relative_path).ok_or_else(|| Error::invalid("no place for the context"))?;
        let object = Object { key, kind: object::CONTEXT.into(), registry, size: None, expires: Some(expires) };
        self.meta.write(move |tx| object::insert(tx, &object, now).map_err(Error::from)).await?;
        Ok(StagedContext { relative_path, expires })
    }

    /// Store a context whole; its bytes.
    pub async fn put_context(&self, registry: i64, relative_path: &str, body: ByteStream) -> Result<u64> {
        let key = self.staged(registry, relative_path).await?;
        let size = self.blobs.object_put(&key, body, limits::CONTEXT_PACKED_BYTES_MAX).await?;
        self.meta.write(move |tx| object::set_size(tx, &key, size).map_err(Error::from)).await?;
        Ok(size)
    }

    /// Store one block of a context under the client's id for it.
    pub async fn put_block(&self, registry: i64, relative_path: &str, block: &[u8], body: ByteStream) -> Result<()> {
        let context = self.staged(registry, relative_path).await?;
        let (count, bytes) = self
            .meta
            .read({
                let context = context.clone();
                move |tx| object::blocks_total(tx, &context).map_err(Error::from)
            })
            .await?;
        let room = limits::CONTEXT_PACKED_BYTES_MAX.saturating_sub(bytes);
        if count >= limits::BLOCKS_MAX as u64 || room == 0 {
            return Err(too_large());
        }
        let key = block_key(&context, block);
        let size = self.blobs.object_put(&key, body, room.min(limits::BLOCK_BYTES_MAX as u64)).await?;
        self.meta.write(move |tx| object::put_block(tx, &context, &key, size).map_err(Error::from)).await
    }

    /// Put a context together from blocks, in the order given; its bytes. Blocks that are
    /// not named are thrown away.
    pub async fn commit_blocks(&self, registry: i64, relative_path: &str, blocks: &[Vec<u8>]) -> Result<u64> {
        let context = self.staged(registry, relative_path).await?;
        let known: HashMap<String, u64> = self.blocks(&context).await?.into_iter().collect();
        let mut parts = Vec::with_capacity(blocks.len());
        let mut total = 0u64;
        for block in blocks {
            let key = block_key(&context, block);
            let Some(size) = known.get(&key) else {
                return Err(Error::Invalid {
                    code: "InvalidBlockList",
                    message: "The specified block list is invalid: it names a block that was not uploaded.".into(),
                });
            };
            total = total.saturating_add(*size);
            parts.push(key);
        }
        if total > limits::CONTEXT_PACKED_BYTES_MAX {
            return Err(too_large());
        }
        let size = self.blobs.object_concat(&context, &parts).await?;
        for key in known.keys() {
            self.blobs.object_delete(key).await?;
        }
        self.meta
            .write(move |tx| {
                object::delete_blocks(tx, &context)?;
                object::set_size(tx, &context, size).map_err(Error::from)
            })
            .await?;
        Ok(size)
    }

    async fn staged(&self, registry: i64, relative_path: &str) -> Result<String> {
        let missing = || Error::NotFound(format!("there is no build context at {relative_path}"));
        let key = context_key(registry, relative_path).ok_or_else(missing)?;
        let found = self
            .meta
            .read({
                let key = key.clone();
                move |tx| object::get(tx, &key).map_err(Error::from)
            })
            .await?;
        found.map(|_| key).ok_or_else(missing)
    }

    pub(crate) async fn blocks(&self, context: &str) -> Result<Vec<(String, u64)>> {
        let context = context.to_owned();
        self.meta.read(move |tx| object::blocks(tx, &context, limits::BLOCKS_MAX).map_err(Error::from)).await
    }
}

fn too_large() -> Error {
    Error::Store(portolan_store::Error::TooLarge { max: limits::CONTEXT_PACKED_BYTES_MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_our_making_lead_anywhere() {
        let id = Uuid::nil();
        assert_eq!(context_key(7, &format!("source/{id}.tar.gz")).unwrap(), format!("contexts/7/{id}.tar.gz"));
        for bad in [
            "",
            "source/",
            "source/x.tar.gz",
            "source/../8/x.tar.gz",
            "https://example.com/a.git",
            "source/00000000000000000000000000000000.tar.gz",
            "source/{00000000-0000-0000-0000-000000000000}.tar.gz",
        ] {
            assert_eq!(context_key(7, bad), None, "{bad}");
        }
    }
}
