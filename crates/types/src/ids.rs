//! Ids the server mints, each its own type so that one cannot stand for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::InvalidName;

/// An upload session, as it stands in the `Location` of `POST …/blobs/uploads/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UploadId(pub Uuid);

impl UploadId {
    /// A new random id.
    pub fn random() -> UploadId {
        UploadId(Uuid::new_v4())
    }
}

impl FromStr for UploadId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<UploadId, InvalidName> {
        Uuid::try_parse(text).map(UploadId).map_err(|_| InvalidName { what: "upload id", why: "it is not a UUID" })
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of a build or task: short, lower-case, unique in its registry (`cb1`, `cb2`, …),
/// as `az acr task logs --run-id` shows and takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The `n`-th run of a registry, counted from 1.
    pub fn nth(n: u64) -> RunId {
        let mut digits = Vec::new();
        let mut rest = n;
        loop {
            let d = (rest % 36) as u8;
            digits.push(if d < 10 { b'0' + d } else { b'a' + d - 10 });
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        digits.extend_from_slice(b"bc");
        digits.reverse();
        RunId(digits.into_iter().map(char::from).collect())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<RunId, InvalidName> {
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|c| c.is_ascii_alphanumeric()) {
            return Err(InvalidName { what: "run id", why: "it must be 1 to 64 letters and digits" });
        }
        Ok(RunId(text.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<RunId, InvalidName> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An ARM resource id: `/subscriptions/…/resourceGroups/…/providers/<ns>/<type>/<name>[/<type>/<name>]…`.
///
/// Kept as text in the case it came; [`ResourceId::key`] is the form to compare and store,
/// since every part of an ARM id is case-insensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceId(pub String);

impl ResourceId {
    /// `/subscriptions/{sub}`
    pub fn subscription(sub: &Uuid) -> ResourceId {
        ResourceId(format!("/subscriptions/{sub}"))
    }

    /// `/subscriptions/{sub}/resourceGroups/{group}`
    pub fn group(sub: &Uuid, group: &str) -> ResourceId {
        ResourceId(format!("/subscriptions/{sub}/resourceGroups/{group}"))
    }

    /// The id of a registry.
    pub fn registry(sub: &Uuid, group: &str, registry: &str) -> ResourceId {
        ResourceId(format!(
            "/subscriptions/{sub}/resourceGroups/{group}/providers/Microsoft.ContainerRegistry/registries/{registry}"
        ))
    }

    /// A child of this resource: `{self}/{kind}/{name}`.
    pub fn child(&self, kind: &str, name: &str) -> ResourceId {
        ResourceId(format!("{}/{kind}/{name}", self.0))
    }

    /// The lower-case form without a trailing slash.
    pub fn key(&self) -> String {
        self.0.trim_end_matches('/').to_lowercase()
    }

    /// Whether `self` is `scope` or lies below it, part by part.
    pub fn is_within(&self, scope: &ResourceId) -> bool {
        let (own, scope) = (self.key(), scope.key());
        own.strip_prefix(&scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_short_and_distinct() {
        assert_eq!(RunId::nth(1).as_str(), "cb1");
        assert_eq!(RunId::nth(35).as_str(), "cbz");
        assert_eq!(RunId::nth(36).as_str(), "cb10");
        assert!("cb1/..".parse::<RunId>().is_err());
    }

    #[test]
    fn scopes_nest_by_whole_parts() {
        let sub = ResourceId("/subscriptions/S".into());
        let rg = ResourceId("/SUBSCRIPTIONS/s/resourceGroups/rg".into());
        assert!(rg.is_within(&sub) && sub.is_within(&sub) && !sub.is_within(&rg));
        assert!(!ResourceId("/subscriptions/S2".into()).is_within(&sub));
    }
}
