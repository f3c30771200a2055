//! What a build can be ordered with beyond Azure's own order: a member of our own in it,
//! `buildOptions`. A server that is not Portolan does not look at it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Options of a build. What is empty is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BuildOptions {
    /// `os/architecture[/variant]`, when it is more than one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Secrets for `RUN --mount=type=secret`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<BuildSecret>,
    /// Keys and agents for `RUN --mount=type=ssh`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<BuildSsh>,
    /// Other contexts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<BuildSource>,
    /// Caches to read: `type=registry,ref=…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_from: Vec<String>,
    /// Caches to write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_to: Vec<String>,
    /// Whether and how to say how the image was built: `true`, `false`, `mode=max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<String>,
    /// Whether to say what is in the image: `true`, `false`, `generator=…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<String>,
    /// Labels, over the Dockerfile's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<BuildLabel>,
    /// `[type[,type]…:]key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
    /// The time that everything in the image gets, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_date_epoch: Option<u64>,
    /// Look at the Dockerfile only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
}

impl BuildOptions {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        *self == BuildOptions::default()
    }
}

/// A secret of a build.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSecret {
    /// What the Dockerfile calls it.
    pub id: String,
    /// Its bytes in base64.
    pub value: String,
}

impl BuildSecret {
    /// A secret of these bytes.
    pub fn new(id: impl Into<String>, value: &[u8]) -> BuildSecret {
        BuildSecret { id: id.into(), value: STANDARD.encode(value) }
    }
}

impl fmt::Debug for BuildSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=***", self.id)
    }
}

/// An SSH agent of a build.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildSsh {
    /// What the Dockerfile calls it.
    pub id: String,
    /// Private keys, each in base64 of what its file holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The client's own agent answers, through the server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
}

impl BuildSsh {
    /// An agent with these keys.
    pub fn with_keys<'k>(id: impl Into<String>, keys: impl IntoIterator<Item = &'k [u8]>) -> BuildSsh {
        let keys = keys.into_iter().map(|k| STANDARD.encode(k)).collect();
        BuildSsh { id: id.into(), keys, forward: false }
    }

    /// The client's own agent.
    pub fn forwarded(id: impl Into<String>) -> BuildSsh {
        BuildSsh { id: id.into(), keys: Vec::new(), forward: true }
    }
}

impl fmt::Debug for BuildSsh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} keys, forward: {})", self.id, self.keys.len(), self.forward)
    }
}

/// A context with a name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSource {
    /// What the Dockerfile calls it.
    pub name: String,
    /// An uploaded context's `relativePath`, or an address. There may be a password in it.
    pub source: String,
}

impl fmt::Debug for BuildSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

/// A label of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLabel {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}
