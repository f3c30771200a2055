//! What is kept between commands: who is signed in where (`profile.json`), and tokens and
//! login servers that were asked for before (`cache.json`).
//!
//! Both live in `PORTOLAN_CONFIG_DIR` (else `$XDG_CONFIG_HOME/portolan`, else
//! `~/.config/portolan`), readable by their owner only. They are replaced as a whole by
//! rename, without locks: of two commands that finish together one's tokens are lost, which
//! costs a request. The cache may be deleted at any time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use portolan_api::Token;
use portolan_types::Secret;
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Result};

/// The folder of both files.
#[derive(Clone, Debug)]
pub(crate) struct ConfigDir(PathBuf);

impl ConfigDir {
    /// From the environment. Nothing is made yet.
    pub(crate) fn find() -> Result<ConfigDir> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = var("PORTOLAN_CONFIG_DIR")
            .or_else(|| var("XDG_CONFIG_HOME").map(|d| d.join("portolan")))
            .or_else(|| var("HOME").map(|d| d.join(".config").join("portolan")));
        dir.map(ConfigDir).ok_or_else(|| {
            Failure::new("there is no folder for the profile: neither PORTOLAN_CONFIG_DIR nor HOME is set")
        })
    }

    /// A given folder.
    #[cfg(test)]
    pub(crate) fn at(path: impl Into<PathBuf>) -> ConfigDir {
        ConfigDir(path.into())
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The profile, or `None` when nobody is signed in.
    pub(crate) fn profile(&self) -> Result<Option<Profile>> {
        let path = self.0.join("profile.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
        };
        serde_json::from_slice(&text).map(Some).map_err(|e| {
            Failure::new(format!("{} is damaged: {e}", path.display())).hint("sign in again: `portolan login`")
        })
    }

    /// Sign in: keep the profile, forget what belonged to the one before.
    pub(crate) fn set_profile(&self, profile: &Profile) -> Result<()> {
        self.replace("profile.json", profile)?;
        self.remove("cache.json")
    }

    /// Keep the same sign-in as it is now: another subscription, the next refresh token.
    pub(crate) fn update_profile(&self, profile: &Profile) -> Result<()> {
        self.replace("profile.json", profile)
    }

    /// Sign out.
    pub(crate) fn clear(&self) -> Result<()> {
        self.remove("profile.json")?;
        self.remove("cache.json")
    }

    /// The cache; empty when there is none or it does not parse.
    pub(crate) fn cache(&self) -> Cache {
        fs::read(self.0.join("cache.json")).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keep the cache.
    pub(crate) fn set_cache(&self, cache: &Cache) -> Result<()> {
        self.replace("cache.json", cache)
    }

    /// Make the folder, for its owner only.
    pub(crate) fn make(&self) -> Result<()> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|e| Failure::new(format!("cannot make {}: {e}", self.0.display())))
    }

    /// Put a file of this folder in place of the one there was, in one step.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> Result<PathBuf> {
        self.make()?;
        let path = self.0.join(name);
        let temporary = self.0.join(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(contents)?;
            fs::rename(&temporary, &path)
        })();
        written.map_err(|e| {
            let _ = fs::remove_file(&temporary);
            Failure::new(format!("cannot write {}: {e}", path.display()))
        })?;
        Ok(path)
    }

    fn replace(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec_pretty(value).map_err(|e| Failure::new(format!("cannot write {name}: {e}")))?;
        self.write(name, &text).map(drop)
    }

    fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::new(format!("cannot remove {}: {error}", self.0.join(name).display())))
            }
            _ => Ok(()),
        }
    }
}

/// Who is signed in where.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    /// The server's address, without a trailing slash.
    pub server: String,
    /// The tenant.
    pub tenant_id: String,
    /// The subscription in use.
    pub subscription_id: String,
    /// Its name.
    #[serde(default)]
    pub subscription_name: String,
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// Certificates (PEM) trusted beside the system's. Kept here, not as a path: the server's
    /// data folder is not for every client to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// Who is signed in, and what proves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(crate) enum Who {
    /// A service principal with a secret.
    Secret {
        /// Its application id.
        client_id: String,
        /// The secret.
        #[serde(serialize_with = "exposed")]
        client_secret: Secret<String>,
    },
    /// A service principal with a certificate. The file is read each time: the key stays
    /// where its owner put it.
    Certificate {
        /// Its application id.
        client_id: String,
        /// Key and certificate, PEM.
        certificate: PathBuf,
    },
    /// A service principal with a token of another issuer.
    Federated {
        /// Its application id.
        client_id: String,
        /// The token. It runs out, and the sign-in with it.
        #[serde(serialize_with = "exposed")]
        federated_token: Secret<String>,
    },
    /// A person.
    User {
        /// The name they sign in with.
        user_name: String,
        /// For new tokens.
        #[serde(serialize_with = "exposed")]
        refresh_token: Secret<String>,
    },
    /// What runs here; where to ask is in the environment of each command.
    Managed {
        /// Which one.
        managed_identity: Identity,
    },
}

/// Which managed identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Identity {
    /// The only one.
    Only,
    /// By application id.
    ClientId(String),
    /// By object id.
    ObjectId(String),
    /// By ARM id.
    ResourceId(String),
}

impl Who {
    /// As az shows it in `user`: name, type, and for managed identities what was named.
    pub(crate) fn shown(&self) -> serde_json::Value {
        use serde_json::json;
        let managed =
            |name: &str, info: String| json!({"assignedIdentityInfo": info, "name": name, "type": "servicePrincipal"});
        match self {
            Who::Secret { client_id, .. } | Who::Certificate { client_id, .. } | Who::Federated { client_id, .. } => {
                json!({"name": client_id, "type": "servicePrincipal"})
            }
            Who::User { user_name, .. } => json!({"name": user_name, "type": "user"}),
            Who::Managed { managed_identity } => match managed_identity {
                Identity::Only => managed("systemAssignedIdentity", "MSI".into()),
                Identity::ClientId(id) => managed("userAssignedIdentity", format!("MSIClient-{id}")),
                Identity::ObjectId(id) => managed("userAssignedIdentity", format!("MSIObject-{id}")),
                Identity::ResourceId(id) => managed("userAssignedIdentity", format!("MSIResource-{id}")),
            },
        }
    }

    /// The name to sign out by.
    pub(crate) fn name(&self) -> String {
        self.shown().get("name").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    }
}

/// `bootstrap.json`, which a server's first start leaves behind.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bootstrap {
    /// The server's address.
    pub server: String,
    /// The tenant it made.
    pub tenant_id: String,
    /// The subscription it made.
    pub subscription_id: String,
    /// The owner service principal.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret<String>,
    /// The CA's certificate, absolute or beside this file.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl Bootstrap {
    /// The owner's sign-in.
    pub(crate) fn into_profile(self, ca_pem: Option<String>) -> Profile {
        Profile {
            server: self.server.trim_end_matches('/').to_owned(),
            tenant_id: self.tenant_id,
            subscription_id: self.subscription_id,
            subscription_name: String::new(),
            who: Who::Secret { client_id: self.client_id, client_secret: self.client_secret },
            ca_pem,
        }
    }

    /// Read it, and the CA file it names.
    pub(crate) fn read(path: &Path) -> Result<(Bootstrap, Option<String>)> {
        let fail = |e: &dyn std::fmt::Display| Failure::new(format!("cannot read {}: {e}", path.display()));
        let text = fs::read(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                fail(&e).hint("the server writes it into its data folder at its first start: DATA/bootstrap.json")
            }
            std::io::ErrorKind::PermissionDenied => {
                fail(&e).hint("it holds the owner's secret and is readable by the server's user only")
            }
            _ => fail(&e),
        })?;
        let bootstrap: Bootstrap = serde_json::from_slice(&text).map_err(|e| fail(&e))?;
        let ca_pem = match &bootstrap.ca_file {
            Some(ca) => {
                let ca = path.parent().unwrap_or(Path::new("")).join(ca);
                let pem = fs::read_to_string(&ca)
                    .map_err(|e| Failure::new(format!("cannot read the CA file {}: {e}", ca.display())))?;
                Some(pem)
            }
            None => None,
        };
        Ok((bootstrap, ca_pem))
    }
}

/// What was asked for before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cache {
    /// For the control plane.
    pub arm: Option<KeptToken>,
    /// Registries by lower-case name.
    pub registries: BTreeMap<String, KeptRegistry>,
}

/// A registry seen before.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeptRegistry {
    /// Its name as it is written.
    pub name: String,
    /// Its resource group.
    pub group: String,
    /// Host and port of its data plane.
    pub login_server: String,
    /// The refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<KeptToken>,
    /// Access tokens by scope.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub access: BTreeMap<String, KeptToken>,
}

/// A token on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptToken {
    #[serde(serialize_with = "exposed")]
    token: Secret<String>,
    expires: i64,
}

impl From<Token> for KeptToken {
    fn from(token: Token) -> KeptToken {
        KeptToken { token: token.secret, expires: token.expires }
    }
}

impl From<KeptToken> for Token {
    fn from(kept: KeptToken) -> Token {
        Token { secret: kept.token, expires: kept.expires }
    }
}

/// The one place where secrets become text: files of mode 0600.
fn exposed<S: serde::Serializer>(secret: &Secret<String>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(secret.expose())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn profile() -> Profile {
        Profile {
            server: "https://localhost:8443".into(),
            tenant_id: "t".into(),
            subscription_id: "s".into(),
            subscription_name: "Local".into(),
            who: Who::Secret { client_id: "c".into(), client_secret: String::from("hush").into() },
            ca_pem: None,
        }
    }

    #[test]
    fn files_are_private_and_survive_the_round() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir::at(dir.path().join("a/b"));
        assert!(config.profile().unwrap().is_none());
        config.set_profile(&profile()).unwrap();
        let back = config.profile().unwrap().unwrap();
        assert!(matches!(&back.who, Who::Secret { client_secret, .. } if client_secret.expose() == "hush"));
        for who in [
            Who::Certificate { client_id: "c".into(), certificate: "/k.pem".into() },
            Who::Federated { client_id: "c".into(), federated_token: String::from("t").into() },
            Who::User { user_name: "a@b".into(), refresh_token: String::from("r").into() },
            Who::Managed { managed_identity: Identity::Only },
            Who::Managed { managed_identity: Identity::ClientId("c".into()) },
        ] {
            let shown = who.shown();
            config.update_profile(&Profile { who, ..profile() }).unwrap();
            assert_eq!(config.profile().unwrap().unwrap().who.shown(), shown);
        }
        let mode = fs::metadata(config.path().join("profile.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(config.path()).unwrap().permissions().mode() & 0o777, 0o700);

        let arm = Some(Token { secret: String::from("x").into(), expires: 7 }.into());
        let cache = Cache { arm, ..Cache::default() };
        config.set_cache(&cache).unwrap();
        assert_eq!(config.cache().arm.unwrap().expires, 7);
        config.set_profile(&profile()).unwrap();
        assert!(config.cache().arm.is_none(), "another sign-in begins with nothing");
        config.clear().unwrap();
        config.clear().unwrap();
        assert!(config.profile().unwrap().is_none());
    }

    #[test]
    fn a_damaged_cache_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir::at(dir.path());
        fs::write(dir.path().join("cache.json"), "{").unwrap();
        assert!(config.cache().registries.is_empty());
        fs::write(dir.path().join("profile.json"), "{").unwrap();
        assert!(config.profile().unwrap_err().hint.is_some());
    }

    #[test]
    fn bootstrap_names_its_ca() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bootstrap.json");
        fs::write(dir.path().join("ca.pem"), "PEM").unwrap();
        fs::write(
            &file,
            r#"{"server":"https://localhost:8443","tenantId":"t","subscriptionId":"s","clientId":"c","clientSecret":"x","caFile":"ca.pem"}"#,
        )
        .unwrap();
        let (bootstrap, ca) = Bootstrap::read(&file).unwrap();
        assert_eq!((bootstrap.server.as_str(), ca.as_deref()), ("https://localhost:8443", Some("PEM")));
        assert!(!format!("{bootstrap:?}").contains("\"x\""), "secrets do not print");
    }
}
