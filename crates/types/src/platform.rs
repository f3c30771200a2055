//! Platforms: `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidName;

/// What an image runs on (OCI image-spec, image-index.md, "platform").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, …
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this binary runs on.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// Whether an image made for `image` is what `self` asks for. `arm64` means `arm64/v8`
    /// (containerd's normalisation).
    pub fn accepts(&self, image: &Platform) -> bool {
        let variant = |p: &Platform| match (p.architecture.as_str(), p.variant.as_deref()) {
            ("arm64", None | Some("v8" | "8")) => None,
            ("arm", None) => Some("v7".to_owned()),
            (_, v) => v.map(str::to_owned),
        };
        self.os == image.os && self.architecture == image.architecture && variant(self) == variant(image)
    }
}

impl FromStr for Platform {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Platform, InvalidName> {
        let err = InvalidName { what: "platform", why: "write os/architecture[/variant], for example linux/amd64" };
        let mut parts = text.split('/').map(|p| p.trim().to_ascii_lowercase());
        let word = |p: &String| {
            !p.is_empty() && p.len() <= 32 && p.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
        };
        let (os, second, variant) = (parts.next(), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(err);
        }
        let (os, architecture) = match (os, second) {
            (Some(os), Some(arch)) => (os, arch),
            (Some(os), None) if os == "linux" => (os, Platform::host().architecture),
            _ => return Err(err),
        };
        if !word(&os) || !word(&architecture) || variant.as_ref().is_some_and(|v| !word(v)) {
            return Err(err);
        }
        let architecture = match architecture.as_str() {
            "x86_64" | "x86-64" => "amd64".into(),
            "aarch64" => "arm64".into(),
            "x86" | "i386" => "386".into(),
            _ => architecture,
        };
        Ok(Platform { os, architecture, variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(v) => write!(f, "/{v}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_match() {
        let p: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(p.to_string(), "linux/arm64/v8");
        assert!("linux/arm64".parse::<Platform>().unwrap().accepts(&p));
        assert!(!"linux/amd64".parse::<Platform>().unwrap().accepts(&p));
        assert!("".parse::<Platform>().is_err() && "a/b/c/d".parse::<Platform>().is_err());
    }
}
