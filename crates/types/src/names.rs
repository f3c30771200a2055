//! The names users choose: registries, resource groups, repositories, tags.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// Why a name was refused. The text is meant for the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {why}")]
pub struct InvalidName {
    /// What the name was to be: `repository name`, `tag`, …
    pub what: &'static str,
    /// The rule it broke, with the rule's numbers.
    pub why: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $check(text).map(|()| $name(Arc::from(text)))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A repository inside a registry: lower-case path components joined by `/`, at most
    /// 255 bytes in all. Grammar: OCI distribution-spec 1.1, "Pulling manifests", `<name>`.
    RepoName,
    check_repo
);
name_type!(
    /// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (OCI distribution-spec 1.1).
    Tag,
    check_tag
);
name_type!(
    /// A registry's own name: 5 to 50 letters and digits, kept in the case it was given;
    /// compare with [`RegistryName::key`] (ARM names are case-insensitive).
    RegistryName,
    check_registry
);
name_type!(
    /// A resource group: 1 to 90 of letters, digits, `_ - . ( )`, not ending in a period;
    /// compare with [`GroupName::key`].
    GroupName,
    check_group
);

name_type!(
    /// A repository token: 5 to 50 letters, digits, `-` and `_`; compare with
    /// [`TokenName::key`].
    TokenName,
    check_token
);
name_type!(
    /// A scope map: 5 to 50 letters, digits, `-` and `_`; compare with [`ScopeMapName::key`].
    ScopeMapName,
    check_scope_map
);

impl TokenName {
    /// The lower-case form, unique in a registry.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl ScopeMapName {
    /// The lower-case form, unique in a registry.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl RegistryName {
    /// The lower-case form, unique in a server: what rows and host names use.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl GroupName {
    /// The lower-case form, unique in a subscription.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

fn check_repo(text: &str) -> Result<(), InvalidName> {
    let err = |why| Err(InvalidName { what: "repository name", why });
    if text.is_empty() {
        return err("it is empty");
    }
    if text.len() > limits::REPO_NAME_BYTES_MAX {
        return err("it is longer than 255 characters");
    }
    if !text.split('/').all(is_path_component) {
        return err(
            "each part between slashes must be lower-case letters and digits, joined by one of `.`, `_`, `__` or dashes",
        );
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    bytes.split(|c| alnum(*c)).all(|separator| match separator {
        b"" | b"." | b"_" | b"__" => true,
        dashes => dashes.iter().all(|c| *c == b'-'),
    })
}

fn check_token(text: &str) -> Result<(), InvalidName> {
    check_child("token name", text)
}

fn check_scope_map(text: &str) -> Result<(), InvalidName> {
    check_child("scope map name", text)
}

/// What ARM takes as the name of a thing in a registry.
fn check_child(what: &'static str, text: &str) -> Result<(), InvalidName> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if (5..=50).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(());
    }
    Err(InvalidName { what, why: "it must be 5 to 50 letters, digits, dashes and underscores" })
}

fn check_tag(text: &str) -> Result<(), InvalidName> {
    let err = |why| Err(InvalidName { what: "tag", why });
    if text.is_empty() {
        return err("it is empty");
    }
    if text.len() > limits::TAG_BYTES_MAX {
        return err("it is longer than 128 characters");
    }
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    if !word(text.as_bytes()[0]) || !text.bytes().all(|c| word(c) || c == b'.' || c == b'-') {
        return err("it may hold letters, digits, `_`, `.` and `-`, and may not begin with `.` or `-`");
    }
    Ok(())
}

fn check_registry(text: &str) -> Result<(), InvalidName> {
    if !(5..=50).contains(&text.len()) || !text.bytes().all(|c| c.is_ascii_alphanumeric()) {
        return Err(InvalidName { what: "registry name", why: "it must be 5 to 50 letters and digits" });
    }
    Ok(())
}

fn check_group(text: &str) -> Result<(), InvalidName> {
    let err = |why| Err(InvalidName { what: "resource group name", why });
    let chars = text.chars().count();
    if !(1..=90).contains(&chars) {
        return err("it must be 1 to 90 characters");
    }
    if text.ends_with('.') {
        return err("it may not end with a period");
    }
    if !text.chars().all(|c| c.is_alphanumeric() || "_-.()".contains(c)) {
        return err("it may hold letters, digits, `_`, `-`, `.`, `(` and `)`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repositories() {
        for good in ["a", "flask-echo", "a/b/c", "a.b_c__d---e", "library/python", "0"] {
            assert!(good.parse::<RepoName>().is_ok(), "{good}");
        }
        for bad in
            ["", "A", "a/", "/a", "a//b", "-a", "a-", "a..b", "a___b", "a._b", "../etc", "a b", "é", &"a".repeat(256)]
        {
            assert!(bad.parse::<RepoName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_and_scope_maps() {
        for good in ["token", "_repositories_admin", "A-b_1", &"a".repeat(50)] {
            assert!(good.parse::<TokenName>().is_ok() && good.parse::<ScopeMapName>().is_ok(), "{good}");
        }
        for bad in ["", "tok1", "to ken", "a/b/c", "token\0", "tokén", "a.b.c", &"a".repeat(51)] {
            assert!(bad.parse::<TokenName>().is_err() && bad.parse::<ScopeMapName>().is_err(), "{bad}");
        }
        assert_eq!("MyToken".parse::<TokenName>().unwrap().key(), "mytoken");
    }

    #[test]
    fn tags() {
        for good in ["v1", "latest", "_x", "1.2.3-rc.1", &"a".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn registries_and_groups() {
        assert!("myreg".parse::<RegistryName>().is_ok());
        for bad in ["abcd", "my-reg", "my_reg", &"a".repeat(51)] {
            assert!(bad.parse::<RegistryName>().is_err(), "{bad}");
        }
        assert!("rg-containers".parse::<GroupName>().is_ok());
        for bad in ["", "rg.", "a/b", &"a".repeat(91)] {
            assert!(bad.parse::<GroupName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_renders_the_same(text in "[a-zA-Z0-9._/-]{0,40}") {
            if let Ok(name) = text.parse::<RepoName>() { prop_assert_eq!(name.to_string(), text.clone()); }
            if let Ok(tag) = text.parse::<Tag>() { prop_assert_eq!(tag.to_string(), text); }
        }
    }
}
