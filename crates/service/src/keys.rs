//! The signing keys' life: made on the first start, kept sealed in the database, replaced
//! without logging anyone out.

use portolan_auth::SigningKey;
use portolan_auth::master::KeyError;
use portolan_store::meta;
use portolan_types::Timestamp;

use crate::service::Service;
use crate::{Error, Kind, Result};

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
        let master = self.authority.master();
        let keys = rows.iter().map(|k| SigningKey::unseal(master, &k.kid, &k.sealed)).collect::<Result<_, _>>();
        self.authority.install(keys.map_err(key_error)?);
        Ok(())
    }

    /// Sign with a new key from now on. The old ones verify what they signed; those that
    /// no living token can have been signed with are ended.
    pub async fn rotate_signing_key(&self, now: Timestamp) -> Result<()> {
        let (kid, sealed) = self.new_signing_key().await?;
        let lifetimes = [
            self.config.directory_token_lifetime,
            self.config.refresh_token_lifetime,
            self.config.access_token_lifetime,
        ];
        let longest = lifetimes.into_iter().max().unwrap_or_default();
        let before = Timestamp(now.0.saturating_sub(i64::try_from(longest.as_micros()).unwrap_or(i64::MAX)));
        self.meta
            .write(move |tx| {
                meta::key::delete_inactive(tx, before)?;
                meta::key::insert(tx, &kid, &sealed, now)
            })
            .await?;
        self.load_signing_keys().await
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

pub(crate) fn key_error(e: KeyError) -> Error {
    Error::new(Kind::Internal, "InternalServerError", e.to_string()).with_source(e)
}
