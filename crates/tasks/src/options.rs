//! What a build may be ordered with beyond what Azure's own clients know: several platforms,
//! secrets, SSH keys, other contexts, caches, attestations.
//!
//! Some of it is secret, and more of it can be (an address with a password in it), so a run's
//! row keeps all of it sealed as one text, and no longer than until the run ends.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_types::{Platform, Secret};
use serde::{Deserialize, Serialize};

/// Options of a build; the usual one has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// What to build for when it is more than one platform; else empty, and the run's own
    /// platform counts.
    pub platforms: Vec<Platform>,
    /// `--secret`: what `RUN --mount=type=secret` may see.
    pub secrets: Vec<NamedSecret>,
    /// `--ssh`: what `RUN --mount=type=ssh` may sign with.
    pub ssh: Vec<SshAgent>,
    /// Who answers for the agents that are forwarded: who ordered the run, by object id.
    pub ssh_owner: Option<uuid::Uuid>,
    /// `--build-context`: other sources that the Dockerfile names.
    pub contexts: Vec<NamedSource>,
    /// `--cache-from`, as docker writes it: `type=registry,ref=…`.
    pub cache_from: Vec<String>,
    /// `--cache-to`, likewise.
    pub cache_to: Vec<String>,
    /// `--provenance`: `true`, `mode=max`, …
    pub provenance: Option<String>,
    /// `--sbom`, likewise.
    pub sbom: Option<String>,
    /// `--label`, in the order given.
    pub labels: Vec<(String, String)>,
    /// `--annotation`, as docker writes it: `[type[,type]…:]key=value`.
    pub annotations: Vec<String>,
    /// The time that everything in the image gets, in seconds since 1970.
    pub source_date_epoch: Option<u64>,
    /// What is built from when it was not uploaded: an address, by `source`; `name` is empty.
    pub source: Option<NamedSource>,
    /// Look at the Dockerfile and say what is wrong with it; build nothing.
    pub check: bool,
}

/// A secret of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSecret {
    /// What the Dockerfile calls it.
    pub id: String,
    /// Its bytes.
    pub value: Secret<Vec<u8>>,
}

/// An SSH agent of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAgent {
    /// What the Dockerfile calls it; `default` when it does not say.
    pub id: String,
    /// Private keys in a text form that OpenSSH reads.
    pub keys: Vec<Secret<Vec<u8>>>,
    /// Whether the agent is the client's own, asked through the server while the run goes on.
    pub forward: bool,
}

/// A context with a name.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedSource {
    /// What the Dockerfile calls it.
    pub name: String,
    /// `source/….tar.gz` for an uploaded one, else an address: `https://…`,
    /// `docker-image://…`. There may be a password in it.
    pub source: String,
}

impl std::fmt::Debug for NamedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

impl BuildOptions {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        *self == BuildOptions::default()
    }

    /// The secrets that are text, and the keys: what must not be seen in a log.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = Secret<String>> {
        let values = self.secrets.iter().map(|s| &s.value).chain(self.ssh.iter().flat_map(|s| &s.keys));
        let texts = values.filter_map(|v| String::from_utf8(v.expose().clone()).ok()).map(Secret::new);
        texts.chain(self.contexts.iter().chain(&self.source).flat_map(|c| passwords(&c.source)))
    }

    /// All of it as JSON, to be sealed.
    pub(crate) fn to_plain(&self) -> serde_json::Result<Secret<String>> {
        serde_json::to_string(&Plain::from(self)).map(Secret::new)
    }

    /// The inverse; `None` when it was not written by [`BuildOptions::to_plain`].
    pub(crate) fn from_plain(plain: &Secret<String>) -> Option<BuildOptions> {
        serde_json::from_str::<Plain>(plain.expose()).ok()?.open()
    }
}

/// Options as they are sealed. Bytes are base64.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Plain {
    platforms: Vec<Platform>,
    secrets: Vec<(String, String)>,
    ssh: Vec<(String, Vec<String>, bool)>,
    ssh_owner: Option<uuid::Uuid>,
    contexts: Vec<(String, String)>,
    cache_from: Vec<String>,
    cache_to: Vec<String>,
    provenance: Option<String>,
    sbom: Option<String>,
    labels: Vec<(String, String)>,
    annotations: Vec<String>,
    source_date_epoch: Option<u64>,
    source: Option<String>,
    check: bool,
}

/// What of an address nobody else must see: the user's part, and the password in it.
fn passwords(address: &str) -> Vec<Secret<String>> {
    let authority = address.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    let Some((user, _)) = authority.and_then(|a| a.rsplit_once('@')) else { return Vec::new() };
    let password = user.split_once(':').map_or(user, |(_, password)| password);
    // Such a word says nothing, and would be blotted out everywhere.
    [user, password].into_iter().filter(|t| t.len() > 3).map(|t| Secret::new(t.to_owned())).collect()
}

impl From<&BuildOptions> for Plain {
    fn from(options: &BuildOptions) -> Plain {
        let o = options.clone();
        let text = |bytes: &Secret<Vec<u8>>| STANDARD.encode(bytes.expose());
        Plain {
            platforms: o.platforms,
            secrets: o.secrets.iter().map(|s| (s.id.clone(), text(&s.value))).collect(),
            ssh: o.ssh.iter().map(|s| (s.id.clone(), s.keys.iter().map(text).collect(), s.forward)).collect(),
            ssh_owner: o.ssh_owner,
            contexts: o.contexts.into_iter().map(|c| (c.name, c.source)).collect(),
            cache_from: o.cache_from,
            cache_to: o.cache_to,
            provenance: o.provenance,
            sbom: o.sbom,
            labels: o.labels,
            annotations: o.annotations,
            source_date_epoch: o.source_date_epoch,
            source: o.source.map(|s| s.source),
            check: o.check,
        }
    }
}

impl Plain {
    fn open(self) -> Option<BuildOptions> {
        let bytes = |text: String| STANDARD.decode(text).ok().map(Secret::new);
        let secret = |(id, value)| Some(NamedSecret { id, value: bytes(value)? });
        let agent = |(id, keys, forward): (String, Vec<String>, bool)| {
            let keys = keys.into_iter().map(bytes).collect::<Option<_>>()?;
            Some(SshAgent { id, keys, forward })
        };
        Some(BuildOptions {
            platforms: self.platforms,
            secrets: self.secrets.into_iter().map(secret).collect::<Option<_>>()?,
            ssh_owner: self.ssh_owner,
            ssh: self.ssh.into_iter().map(agent).collect::<Option<_>>()?,
            contexts: self.contexts.into_iter().map(|(name, source)| NamedSource { name, source }).collect(),
            cache_from: self.cache_from,
            cache_to: self.cache_to,
            provenance: self.provenance,
            sbom: self.sbom,
            labels: self.labels,
            annotations: self.annotations,
            source_date_epoch: self.source_date_epoch,
            source: self.source.map(|source| NamedSource { name: String::new(), source }),
            check: self.check,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_whole() {
        let options = BuildOptions {
            platforms: vec!["linux/amd64".parse().unwrap(), "linux/arm/v7".parse().unwrap()],
            secrets: vec![NamedSecret { id: "token".into(), value: Secret::new(vec![0, 255, 10]) }],
            ssh: vec![SshAgent { id: "default".into(), keys: vec![Secret::new(b"key".to_vec())], forward: true }],
            ssh_owner: Some(uuid::Uuid::from_u128(7)),
            contexts: vec![NamedSource { name: "lib".into(), source: "https://u:hush@h/r.git".into() }],
            cache_from: vec!["type=registry,ref=a/b".into()],
            cache_to: vec!["type=inline".into()],
            provenance: Some("mode=max".into()),
            sbom: Some("true".into()),
            labels: vec![("a".into(), "b=c".into())],
            annotations: vec!["manifest:k=v".into()],
            source_date_epoch: Some(7),
            source: Some(NamedSource { name: String::new(), source: "https://token@h/r.git".into() }),
            check: true,
        };
        let plain = options.to_plain().unwrap();
        assert_eq!(BuildOptions::from_plain(&plain), Some(options.clone()));
        assert!(!options.is_empty() && BuildOptions::default().is_empty());
        let shown = format!("{options:?}");
        assert!(!shown.contains("hush") && !shown.contains("255"), "{shown}");
        let hidden: Vec<String> = options.secrets().map(Secret::into_exposed).collect();
        assert_eq!(hidden, ["key", "u:hush", "hush", "token", "token"], "what is no text cannot be in a log");
        assert!(BuildOptions::from_plain(&Secret::new("{\"secrets\":[[\"a\",\"%\"]]}".into())).is_none());
    }
}
