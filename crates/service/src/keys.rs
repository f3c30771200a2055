//! The signing keys' life: made on the first start, kept sealed in the database, replaced
//! without logging anyone out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_auth::master::KeyError;
use portolan_auth::{Authority, SigningKey};
use portolan_store::meta::key::KeyRow;
use portolan_store::meta::{self, Meta};
use portolan_types::Timestamp;

use crate::peers::KEY_SETTLE;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// How far apart the clocks of servers may be: a key is kept so much longer than the tokens it
/// signed.
const CLOCKS_APART: Duration = Duration::from_secs(300);

impl Service {
    /// Open the stored keys and give them to the authority; make the first when there is none.
    pub(crate) async fn load_signing_keys(&self) -> Result<()> {
        let mut rows = self.meta.read(|tx| meta::key::list(tx)).await?;
        if rows.is_empty() {
            let (kid, sealed) = self.new_signing_key().await?;
            let now = Timestamp::now();
            // Two servers may start at once on one database: the first to write wins.
            rows = self
                .meta
                .write(move |tx| {
                    if meta::key::list(tx)?.is_empty() {
                        meta::key::insert(tx, &kid, &sealed, now)?;
                    }
                    meta::key::list(tx)
                })
                .await?;
        }
        let now = Timestamp::now();
        if let Some(own) = &self.content.peer {
            // Until every server knows a new key, the one before it signs.
            let young = |key: &KeyRow| now.since(key.created) < KEY_SETTLE;
            let unsettled = rows.len() > 1 && rows.first().is_some_and(young);
            if unsettled {
                let at = rows.iter().position(|key| !young(key)).unwrap_or(rows.len() - 1);
                rows[..=at].rotate_right(1);
            }
            own.unsettled.store(unsettled, Ordering::Relaxed);
        }
        let wanted: Vec<&str> = rows.iter().map(|key| key.kid.as_str()).collect();
        if self.authority.jwks().iter().map(|key| key.kid.as_str()).eq(wanted) {
            return Ok(());
        }
        let master = self.authority.master();
        let keys = rows.iter().map(|k| SigningKey::unseal(master, &k.kid, &k.sealed)).collect::<Result<_, _>>();
        self.authority.install(keys.map_err(key_error)?);
        Ok(())
    }

    /// Sign with a new key from now on. The old ones verify what they signed; those that
    /// no living token can have been signed with are ended.
    pub async fn rotate_signing_key(&self, now: Timestamp) -> Result<()> {
        let (kid, sealed) = self.new_signing_key().await?;
        let before = self.outlived(now);
        self.alter(move |tx| {
            meta::key::delete_inactive(tx, before)?;
            Ok(meta::key::insert(tx, &kid, &sealed, now)?)
        })
        .await?;
        self.load_signing_keys().await
    }

    /// Sign with a new key from now on, for whoever asks. `end_others`: the old keys end too,
    /// and every token they signed with them.
    ///
    /// Errors: for a caller who may not write to the directory.
    pub async fn renew_signing_key(&self, ctx: &Ctx, end_others: bool) -> Result<()> {
        self.may_write_directory(ctx)?;
        self.rotate_signing_key(ctx.now).await?;
        if end_others {
            self.alter(|tx| Ok(meta::key::delete_inactive(tx, Timestamp(i64::MAX))?)).await?;
            self.load_signing_keys().await?;
        }
        tracing::warn!(end_others, "another signing key was asked for");
        Ok(())
    }

    /// Sign with a new key when the one in use is older than `age_max`, and end the old ones
    /// that no living token can have been signed with. Whether there is a new one. Several
    /// servers may ask at once: one of them makes it.
    pub async fn rotate_old_signing_key(&self, age_max: Option<Duration>, now: Timestamp) -> Result<bool> {
        let keys = self.meta.read(|tx| meta::key::list(tx)).await?;
        let before = self.outlived(now);
        if keys.iter().any(|key| key.inactive_since.is_some_and(|since| since < before)) {
            self.alter(move |tx| Ok(meta::key::delete_inactive(tx, before)?)).await?;
            self.load_signing_keys().await?;
        }
        let old = move |keys: &[KeyRow]| {
            keys.first().zip(age_max).is_some_and(|(key, age_max)| now.since(key.created) >= age_max)
        };
        if !old(&keys) {
            return Ok(false);
        }
        let (kid, sealed) = self.new_signing_key().await?;
        let made = self
            .alter(move |tx| {
                // Another server may have been first.
                let still = meta::key::list(tx)?;
                if !old(&still) {
                    return Ok(false);
                }
                meta::key::insert(tx, &kid, &sealed, now)?;
                Ok(true)
            })
            .await?;
        self.load_signing_keys().await?;
        Ok(made)
    }

    /// A key that has not signed since then signed nothing that is alive.
    fn outlived(&self, now: Timestamp) -> Timestamp {
        let lifetimes = [
            self.config.directory_token_lifetime,
            self.config.refresh_token_lifetime,
            self.config.access_token_lifetime,
        ];
        let longest = lifetimes.into_iter().max().unwrap_or_default() + CLOCKS_APART;
        Timestamp(now.0.saturating_sub(i64::try_from(longest.as_micros()).unwrap_or(i64::MAX)))
    }

    /// A new key's id and its sealed form.
    async fn new_signing_key(&self) -> Result<(String, Vec<u8>)> {
        let authority = self.authority.clone();
        // Finding two primes takes a while: not on a thread that serves requests.
        let made = tokio::task::spawn_blocking(move || {
            let (key, pkcs8) = SigningKey::generate()?;
            let sealed = SigningKey::seal(authority.master(), key.kid(), &pkcs8)?;
            Ok::<_, KeyError>((key.kid().to_owned(), sealed))
        });
        made.await
            .map_err(|e| Error::new(Kind::Internal, "InternalServerError", "making a key failed").with_source(e))?
            .map_err(key_error)
    }
}

/// The setting that tells one master key from another.
const MASTER_KEY: &str = "master_key";

fn fingerprint(authority: &Authority) -> String {
    portolan_types::digest::hex(&authority.hmac("fingerprint", b"master key"))
}

/// Refuse a master key that is not this database's. [`Service::open`] does so; ask before,
/// where something else is opened with the key first.
///
/// Errors: `MasterKeyMismatch`, with a hint.
pub async fn check_master_key(meta: &Meta, authority: &Authority) -> Result<()> {
    let own = fingerprint(authority);
    match meta.read(|tx| meta::setting::get(tx, MASTER_KEY)).await? {
        Some(theirs) if theirs != own => Err(wrong_master_key()),
        _ => Ok(()),
    }
}

/// Write down which master key this database belongs to, now that it has opened what is
/// sealed in it. Of two servers that start at once with different keys, one is refused.
pub(crate) async fn note_master_key(meta: &Meta, authority: &Authority) -> Result<()> {
    let own = fingerprint(authority);
    let theirs = meta
        .write(move |tx| match meta::setting::get(tx, MASTER_KEY)? {
            Some(theirs) => Ok(theirs == own),
            None => meta::setting::put(tx, MASTER_KEY, &own).map(|()| true),
        })
        .await?;
    if theirs { Ok(()) } else { Err(wrong_master_key()) }
}

/// Whether a master key was chosen for this database: then a server must not make another.
pub async fn has_master_key(meta: &Meta) -> Result<bool> {
    let chosen = meta
        .read(|tx| {
            Ok::<_, portolan_store::Error>(
                meta::setting::get(tx, MASTER_KEY)?.is_some() || !meta::key::list(tx)?.is_empty(),
            )
        })
        .await?;
    Ok(chosen)
}

fn wrong_master_key() -> Error {
    Error::new(Kind::Conflict, "MasterKeyMismatch", "this server's master key is not the one that the database was set up with")
        .with_hint(
            "copy master.key from the data folder of a server that uses this database (or name it with the setting master_key_file), or restore it from a backup",
        )
}

pub(crate) fn key_error(e: KeyError) -> Error {
    Error::new(Kind::Internal, "InternalServerError", e.to_string()).with_source(e)
}
