//! Names, digests, references, platforms, ids, times: the grammars of `portolan-types`.

use std::fmt::Display;
use std::str::FromStr;

use portolan_types::digest::InvalidDigest;
use portolan_types::{
    Digest, GroupName, ImageRef, Platform, Reference, RegistryName, RepoName, ResourceId, RunId, Tag, Timestamp,
    UploadId,
};

use super::{grammar, text};
use crate::Target;

/// Whether a text parses, and that it comes back as it was.
fn same_again<T: FromStr + Display>(text: &str) -> bool {
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string(), text);
            true
        }
        Err(_) => false,
    }
}

/// Print and read again; the value is the same. The text need not be: `linux/X86_64`.
fn stable<T: FromStr + Display + PartialEq + std::fmt::Debug>(value: &T) {
    let printed = value.to_string();
    let again = printed.parse::<T>().unwrap_or_else(|_| panic!("{printed:?} was printed and is refused"));
    assert_eq!(&again, value);
    assert_eq!(again.to_string(), printed);
}

pub(super) const REPO_NAME: Target = Target {
    name: "repo_name",
    run: |input| {
        let Some(text) = text(input) else { return };
        assert_eq!(same_again::<RepoName>(text), text.len() <= 255 && grammar::REPO_NAME.takes(text));
    },
    words: &["a/b", "__", "--", ".", "library/"],
    bytes_max: 400,
};

pub(super) const TAG: Target = Target {
    name: "tag",
    run: |input| {
        let Some(text) = text(input) else { return };
        assert_eq!(same_again::<Tag>(text), grammar::TAG.takes(text));
    },
    words: &["latest", "v1.2", "_"],
    bytes_max: 200,
};

pub(super) const DIGEST: Target = Target {
    name: "digest",
    run: |input| {
        let Some(text) = text(input) else { return };
        assert_eq!(same_again::<Digest>(text), grammar::DIGEST.takes(text));
        match text.parse::<Digest>() {
            Ok(digest) => {
                let (algorithm, hex) = text.split_once(':').expect("a digest has a colon");
                assert_eq!((digest.algorithm().as_str(), digest.hex().as_str()), (algorithm, hex));
                assert_eq!(digest.bytes().len() * 2, hex.len());
            }
            Err(InvalidDigest::Unsupported) => {
                assert!(text.contains(':') && !text.starts_with("sha256:") && !text.starts_with("sha512:"));
            }
            // What the specification calls a digest is told from what is none.
            Err(InvalidDigest::Malformed) => {
                let algorithm = grammar::ANY_DIGEST.parts(text).and_then(|p| p[0].map(str::to_owned));
                assert!(matches!(algorithm.as_deref(), None | Some("sha256" | "sha512")), "{text}");
            }
        }
    },
    words: &[
        "sha256:",
        "sha512:",
        "md5:",
        "sha256+b64u:",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ],
    bytes_max: 300,
};

pub(super) const REFERENCE: Target = Target {
    name: "reference",
    run: |input| {
        let Some(text) = text(input) else { return };
        let taken = same_again::<Reference>(text);
        assert_eq!(taken, grammar::TAG.takes(text) || grammar::DIGEST.takes(text));
        if let Ok(Reference::Digest(digest)) = text.parse() {
            assert_eq!(text.parse(), Ok(digest));
        }
    },
    words: &["sha256:", "latest", ":"],
    bytes_max: 300,
};

pub(super) const IMAGE_REF: Target = Target {
    name: "image_ref",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Ok(image) = text.parse::<ImageRef>() else { return };
        stable(&image);
        assert!(grammar::HOST.takes(&image.host), "host {:?}", image.host);
        assert!(grammar::REPO_NAME.takes(image.repo.as_str()));
        assert_eq!(image.digest.is_some(), text.contains('@'));
        // What it asks for can be asked for.
        stable(&image.reference());
        assert!(image.repo_and_reference().starts_with(image.repo.as_str()));
    },
    words: &["docker.io/", "localhost:5000/", "library/", "@sha256:", ":latest", "[::1]:5000/", "index.docker.io/"],
    bytes_max: 600,
};

pub(super) const REGISTRY_NAME: Target = Target {
    name: "registry_name",
    run: |input| {
        let Some(text) = text(input) else { return };
        assert_eq!(same_again::<RegistryName>(text), grammar::REGISTRY_NAME.takes(text));
        if let Ok(name) = text.parse::<RegistryName>() {
            let key: RegistryName = name.key().parse().expect("a key is a name");
            assert_eq!(key.key(), name.key());
        }
    },
    words: &["myregistry", "Reg01"],
    bytes_max: 80,
};

pub(super) const GROUP_NAME: Target = Target {
    name: "group_name",
    run: |input| {
        let Some(text) = text(input) else { return };
        assert_eq!(same_again::<GroupName>(text), grammar::GROUP_NAME.takes(text));
        if let Ok(name) = text.parse::<GroupName>() {
            assert!(!name.key().contains(['/', '\\', '\0']));
        }
    },
    words: &["rg-", "(x)", "é", "İ"],
    bytes_max: 400,
};

pub(super) const PLATFORM: Target = Target {
    name: "platform",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Ok(platform) = text.parse::<Platform>() else { return };
        stable(&platform);
        assert!(grammar::PLATFORM.takes(&platform.to_string()), "{platform}");
        assert!(platform.accepts(&platform));
        // As a document has it and as a name.
        let json = serde_json::to_string(&platform).expect("platforms are JSON");
        assert_eq!(serde_json::from_str::<Platform>(&json).expect("and come back"), platform);
    },
    words: &["linux/", "amd64", "arm64/v8", "x86_64", "x86-64", "aarch64", "i386", "windows/"],
    bytes_max: 150,
};

pub(super) const IDS: Target = Target {
    name: "ids",
    run: |input| {
        let Some(text) = text(input) else { return };
        match text.parse::<UploadId>() {
            Ok(id) => {
                assert!(grammar::UUID.takes(text), "{text}");
                stable(&id);
            }
            Err(_) => assert!(!grammar::UUID.takes(text), "{text}"),
        }
        let run = text.parse::<RunId>();
        assert_eq!(run.is_ok(), (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric()));
        if let Ok(run) = run {
            stable(&run);
            assert_eq!(serde_json::from_str::<RunId>(&serde_json::to_string(&run).unwrap()).unwrap(), run);
        }
        // A scope holds itself and what is below it, and nothing that only begins alike.
        let scope = ResourceId(text.to_owned());
        assert!(scope.is_within(&scope));
        assert!(scope.child("kind", "name").is_within(&scope));
        if !text.is_empty() && !text.ends_with('/') {
            assert!(!ResourceId(format!("{text}x")).is_within(&scope));
        }
    },
    words: &["/subscriptions/", "/resourceGroups/", "cb1", "67e55044-10b1-426f-9247-bb680e5fe0c8", "urn:uuid:"],
    bytes_max: 300,
};

pub(super) const TIMESTAMP: Target = Target {
    name: "timestamp",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Some(time) = Timestamp::parse(text) else { return };
        for printed in [time.rfc3339(), time.rfc3339_7(), time.rfc3339_arm()] {
            assert_eq!(Timestamp::parse(&printed), Some(time), "{printed}");
        }
        assert!(Timestamp::from_unix_secs(time.unix_secs()) <= time);
    },
    words: &["2026-11-20T10:00:00.123456Z", "+00:00", "-23:59", "0000-", "9999-"],
    bytes_max: 60,
};
