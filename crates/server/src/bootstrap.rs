//! What only a first start makes: the master key and the owner's credentials.
//!
//! `master.key` (mode 0600) is what every key and derived password hangs on; a database that
//! has one is not opened without it, or with another. Servers that share a database share it. `bootstrap.json` (mode 0600) holds
//! the owner's credentials. It is on disk before the database takes them up, so that a
//! crash in between leaves a file whose credentials the next start makes good, and never a
//! server that nobody can sign in to.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use portolan_auth::MasterKey;
use portolan_service::{Service, identity};
use portolan_types::digest::hex;
use portolan_types::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files;

/// The largest of these files read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Read the master key; `None` before the first start. `named`: the operator's file, which
/// must be there.
pub(crate) fn read_master_key(data: &Path, named: Option<&Path>) -> anyhow::Result<Option<MasterKey>> {
    let path = named.map_or_else(|| data.join("master.key"), Path::to_owned);
    let at = path.display();
    match files::read(&path, FILE_BYTES_MAX).with_context(|| format!("read {at}"))? {
        Some(text) => match unhex(text.trim_ascii()) {
            Some(bytes) => Ok(Some(MasterKey::new(&bytes))),
            None => bail!("{at} is damaged: it must hold 64 hex digits; restore it from a backup"),
        },
        None if named.is_some() => {
            bail!("{at} (setting master_key_file) is missing; hint: `openssl rand -hex 32` makes a new key")
        }
        None => Ok(None),
    }
}

/// Make the master key of a database that has none yet. `used`: what is there of one that
/// has, in words.
pub(crate) fn make_master_key(data: &Path, used: Option<&str>) -> anyhow::Result<MasterKey> {
    let path = data.join("master.key");
    let at = path.display();
    if let Some(used) = used {
        bail!(
            "{at} is missing, but {used}; restore the key from a backup, or copy it from another server on this \
             database: without it no stored key or password can be used"
        );
    }
    let bytes = MasterKey::generate().context("make the master key")?;
    files::replace(&path, format!("{}\n", hex(&bytes)).as_bytes(), 0o600).with_context(|| format!("write {at}"))?;
    Ok(MasterKey::new(&bytes))
}

fn unhex(text: &[u8]) -> Option<[u8; MasterKey::BYTES]> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = [0; MasterKey::BYTES];
    if text.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// `bootstrap.json`: what a client needs to sign in as the owner. The members are fixed;
/// both command lines and scripts read them.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// Base URL of the server.
    pub server: String,
    /// The tenant.
    pub tenant_id: Uuid,
    /// The subscription.
    pub subscription_id: Uuid,
    /// The owner's application id.
    pub client_id: Uuid,
    /// The owner's secret.
    pub client_secret: String,
    /// The CA to trust; absent when the operator's own certificate is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl Bootstrap {
    /// Read the file; `None` when there is none.
    pub fn read(path: &Path) -> anyhow::Result<Option<Bootstrap>> {
        let at = path.display();
        let Some(bytes) = files::read(path, FILE_BYTES_MAX).with_context(|| format!("read {at}"))? else {
            return Ok(None);
        };
        let bootstrap = serde_json::from_slice(&bytes)
            .with_context(|| format!("{at} is damaged; restore it, or remove it if you no longer need it"))?;
        Ok(Some(bootstrap))
    }

    /// New credentials.
    fn new(server: &str, ca_file: Option<PathBuf>) -> anyhow::Result<Bootstrap> {
        let owner = identity::Bootstrap::generate().context("make the owner's credentials")?;
        Ok(Bootstrap::of(owner, server, ca_file))
    }

    /// The file of these credentials.
    pub(crate) fn of(owner: identity::Bootstrap, server: &str, ca_file: Option<PathBuf>) -> Bootstrap {
        Bootstrap {
            server: server.to_owned(),
            tenant_id: owner.tenant_id,
            subscription_id: owner.subscription_id,
            client_id: owner.client_id,
            client_secret: owner.client_secret.into_exposed(),
            ca_file,
        }
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).context("write bootstrap.json")?;
        text.push(b'\n');
        files::replace(path, &text, 0o600).with_context(|| format!("write {}", path.display()))
    }
}

/// Make sure that the server has an owner, and that `bootstrap.json`, when it is there,
/// names the server's present address.
///
/// A file that the operator has removed after the first start is not made again: its
/// secret is kept nowhere else. For the same reason only the first server of a database has
/// the file; another makes neither an owner nor a file.
pub(crate) async fn ensure(
    service: &Service,
    path: &Path,
    server: &str,
    ca_file: Option<PathBuf>,
    now: Timestamp,
) -> anyhow::Result<()> {
    let mut on_disk = Bootstrap::read(path)?;
    let adopted = !service.needs_bootstrap();
    if adopted && on_disk.as_ref().is_some_and(|file| file.tenant_id != service.tenant_id()) {
        let aside = path.with_extension("json.old");
        std::fs::rename(path, &aside).with_context(|| format!("put {} aside", path.display()))?;
        tracing::warn!(file = %aside.display(), "these credentials are of another database's owner; put aside");
        on_disk = None;
    }
    let made_here = on_disk.is_none();
    let wanted = match on_disk.clone() {
        Some(file) => Bootstrap { server: server.to_owned(), ca_file, ..file },
        None if adopted => return Ok(()),
        None => Bootstrap::new(server, ca_file)?,
    };
    if on_disk.as_ref() != Some(&wanted) {
        wanted.write(path)?;
    }
    if !adopted {
        let owner = identity::Bootstrap {
            tenant_id: wanted.tenant_id,
            subscription_id: wanted.subscription_id,
            client_id: wanted.client_id,
            client_secret: Secret::new(wanted.client_secret),
        };
        match service.adopt_bootstrap(&owner, now).await {
            // Another server on this database was first: its credentials are the owner's.
            Err(e) if made_here && service.is_shared() && e.code == "TenantExists" => {
                std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
                service.refresh().await.context("read who owns this database")?;
            }
            done => done.context("take up the owner's credentials")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_key_is_made_once_and_never_beside_a_database() {
        let dir = tempfile::tempdir().unwrap();
        let read = || read_master_key(dir.path(), None);
        assert!(read().unwrap().is_none());
        let key = make_master_key(dir.path(), None).unwrap();
        assert_eq!(key.hmac("x", b"y"), read().unwrap().unwrap().hmac("x", b"y"));
        let file = dir.path().join("master.key");
        let named = read_master_key(Path::new("/nowhere"), Some(&file)).unwrap().unwrap();
        assert_eq!(key.hmac("x", b"y"), named.hmac("x", b"y"));

        std::fs::write(&file, "rubbish").unwrap();
        assert!(format!("{:#}", read().unwrap_err()).contains("damaged"));
        std::fs::remove_file(&file).unwrap();
        let why = make_master_key(dir.path(), Some("the database is there")).unwrap_err();
        assert!(format!("{why:#}").contains("is missing, but the database is there"), "{why:#}");
        assert!(read().unwrap().is_none(), "none is made beside a database");
        let why = read_master_key(dir.path(), Some(&file)).unwrap_err();
        assert!(format!("{why:#}").contains("master_key_file"), "{why:#}");
    }

    #[test]
    fn the_file_has_the_members_that_clients_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bootstrap.json");
        let one = Bootstrap::new("https://localhost:8443", Some("/x/ca.pem".into())).unwrap();
        one.write(&path).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let members: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["server", "tenantId", "subscriptionId", "clientId", "clientSecret", "caFile"]);
        assert!(Bootstrap::read(&path).unwrap() == Some(one));
        std::fs::write(&path, "{}").unwrap();
        assert!(Bootstrap::read(&path).is_err());
    }
}
