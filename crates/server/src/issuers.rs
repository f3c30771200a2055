//! Other issuers whose tokens are believed here: their keys, fetched and read once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use parking_lot::Mutex;
use portolan_api::openid::OpenId;
use portolan_auth::foreign::Keys;
use portolan_service::{Error, Kind};

/// Issuers whose keys are kept read.
const ISSUERS_MAX: usize = 256;
/// The largest file of certificates.
const CA_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The keys of other issuers. One per server.
pub struct Issuers {
    openid: OpenId,
    read: Mutex<HashMap<String, (Bytes, Arc<Keys>)>>,
}

impl Issuers {
    /// `ca_file`: certificates (PEM) trusted beside the system's.
    pub(crate) fn new(ca_file: Option<&Path>) -> anyhow::Result<Issuers> {
        let ca_pem = match ca_file {
            Some(path) => {
                let at = || format!("read {} (setting federation_ca_file)", path.display());
                Some(crate::files::read(path, CA_BYTES_MAX).with_context(at)?.with_context(at)?)
            }
            None => None,
        };
        let openid = OpenId::new(ca_pem).context("trust the certificates of the setting federation_ca_file")?;
        Ok(Issuers { openid, read: Mutex::default() })
    }

    /// The keys of an issuer, fetched anew when there is none of the id `kid` among them. Ask
    /// only for issuers that somebody here trusts.
    ///
    /// Errors: `Unavailable` when they cannot be had.
    pub async fn keys(&self, issuer: &str, kid: Option<&str>) -> Result<Arc<Keys>, Error> {
        let set = self.openid.key_set(issuer, None).await.map_err(|e| unavailable(issuer, e))?;
        let keys = self.parse(issuer, &set)?;
        if keys.may_know(kid) {
            return Ok(keys);
        }
        let fresh = self.openid.key_set(issuer, Some(&set)).await.map_err(|e| unavailable(issuer, e))?;
        self.parse(issuer, &fresh)
    }

    fn parse(&self, issuer: &str, set: &Bytes) -> Result<Arc<Keys>, Error> {
        if let Some((of, keys)) = self.read.lock().get(issuer)
            && of == set
        {
            return Ok(keys.clone());
        }
        let keys = Arc::new(Keys::parse(set).map_err(|e| unavailable(issuer, e))?);
        let mut read = self.read.lock();
        if read.len() >= ISSUERS_MAX && !read.contains_key(issuer) {
            read.clear();
        }
        read.insert(issuer.to_owned(), (set.clone(), keys.clone()));
        Ok(keys)
    }
}

fn unavailable(issuer: &str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    let shown: String = issuer.chars().take(256).collect();
    Error::new(
        Kind::Unavailable,
        "temporarily_unavailable",
        format!("AADSTS50166: The keys of the issuer '{}' cannot be read at the moment.", shown.escape_debug()),
    )
    .with_source(cause)
}
