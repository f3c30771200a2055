//! The list as an SPDX 2.3 document, in JSON.
//!
//! The same image gives the same document: its name in the world is made from the image's
//! digest, and its time is the caller's.

use std::fmt::Write;

use portolan_types::{Digest, Timestamp};
use serde_json::{Value, json};

use super::{Inventory, Kind, Package};

/// What the document is about.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// What to call the image.
    pub name: &'a str,
    /// Its manifest.
    pub digest: Digest,
    /// When the list was made.
    pub created: Timestamp,
    /// Who made it, with a version: `portolan-1.0`.
    pub tool: &'a str,
}

/// SPDX for "nobody has said".
const UNKNOWN: &str = "NOASSERTION";

/// The document (SPDX 2.3, JSON).
pub fn document(subject: &Subject<'_>, found: &Inventory) -> Value {
    let image = "SPDXRef-Image";
    let mut packages = vec![json!({
        "SPDXID": image,
        "name": subject.name,
        "versionInfo": subject.digest.to_string(),
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": subject.digest.hex() }],
    })];
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": image,
    })];
    for (number, package) in found.packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{}-{}-{number}", package.kind.as_str(), word(&package.name));
        relationships.push(json!({
            "spdxElementId": image, "relationshipType": "CONTAINS", "relatedSpdxElement": id,
        }));
        let mut told = json!({
            "SPDXID": id,
            "name": package.name,
            "downloadLocation": UNKNOWN,
            "filesAnalyzed": false,
            "licenseConcluded": UNKNOWN,
            "licenseDeclared": package.license.as_deref().filter(|text| is_expression(text)).unwrap_or(UNKNOWN),
            "copyrightText": UNKNOWN,
            "sourceInfo": format!("found in {}", package.found_in),
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl(package, found),
            }],
        });
        if !package.version.is_empty() {
            told["versionInfo"] = json!(package.version);
        }
        if let Some(supplier) = &package.supplier {
            told["supplier"] = json!(format!("Person: {}", one_line(supplier)));
        }
        packages.push(told);
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/portolan-{}", subject.digest.hex()),
        "creationInfo": {
            "created": seconds(subject.created),
            "creators": [format!("Tool: {}", subject.tool)],
        },
        "packages": packages,
        "relationships": relationships,
    });
    if !found.gaps.is_empty() {
        document["comment"] = json!(format!("Not everything could be listed: {}", found.gaps.join("; ")));
    }
    document
}

/// SPDX's times have no fractions.
fn seconds(time: Timestamp) -> String {
    let text = time.rfc3339();
    format!("{}Z", text.split('.').next().unwrap_or(&text))
}

/// What an SPDX id may hold of a name.
fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).take(100).collect()
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// Whether a declared licence has the form of an SPDX expression; many are prose, and a
/// document with one of those is refused by its readers.
fn is_expression(text: &str) -> bool {
    let mut ids = true;
    let mut words = text.split([' ', '(', ')']).filter(|word| !word.is_empty());
    let fine = !text.is_empty()
        && text.len() <= 500
        && words.all(|word| {
            let joins = matches!(word, "AND" | "OR" | "WITH");
            // Two ids in a row are prose.
            let fits = joins != ids && word.bytes().all(|c| c.is_ascii_alphanumeric() || b".-+".contains(&c));
            ids = joins;
            fits
        });
    let depth = text.chars().try_fold(0i32, |depth, c| match c {
        '(' => Some(depth + 1),
        ')' if depth > 0 => Some(depth - 1),
        ')' => None,
        _ => Some(depth),
    });
    fine && !ids && depth == Some(0)
}

/// A package URL (package-url/purl-spec).
fn purl(package: &Package, found: &Inventory) -> String {
    let mut url = format!("pkg:{}/", package.kind.as_str());
    let distribution = found.distribution.as_str();
    let fallback = match package.kind {
        Kind::Deb => "debian",
        Kind::Apk => "alpine",
        Kind::Rpm => "redhat",
        _ => "",
    };
    let system = !fallback.is_empty();
    if system {
        url.push_str(&escaped(if distribution.is_empty() { fallback } else { distribution }));
        url.push('/');
    }
    let name = match package.kind {
        Kind::Pypi => package.name.to_ascii_lowercase().replace('_', "-"),
        _ => package.name.clone(),
    };
    let parts: Vec<String> = name.split('/').map(escaped).collect();
    url.push_str(&parts.join("/"));
    if !package.version.is_empty() {
        url.push('@');
        url.push_str(&escaped(&package.version));
    }
    let mut qualifiers = Vec::new();
    if system {
        if let Some(architecture) = &package.architecture {
            qualifiers.push(format!("arch={}", escaped(architecture)));
        }
        if !found.release.is_empty() && !distribution.is_empty() {
            qualifiers.push(format!("distro={}-{}", escaped(distribution), escaped(&found.release)));
        }
    }
    if !qualifiers.is_empty() {
        url.push('?');
        url.push_str(&qualifiers.join("&"));
    }
    url
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => out.push(char::from(byte)),
            // Writing into a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(kind: Kind, name: &str, version: &str) -> Package {
        Package {
            kind,
            name: name.into(),
            version: version.into(),
            architecture: Some("amd64".into()),
            license: None,
            supplier: None,
            found_in: "x".into(),
        }
    }

    #[test]
    fn package_urls() {
        let debian = Inventory { distribution: "debian".into(), release: "12".into(), ..Inventory::default() };
        for (kind, name, version, url) in [
            (
                Kind::Deb,
                "libstdc++6",
                "12.2.0-14",
                "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=debian-12",
            ),
            (Kind::Deb, "x", "1:2+b1", "pkg:deb/debian/x@1:2%2Bb1?arch=amd64&distro=debian-12"),
            (Kind::Pypi, "Typing_Extensions", "4.9", "pkg:pypi/typing-extensions@4.9"),
            (Kind::Npm, "@types/node", "20.1.0", "pkg:npm/%40types/node@20.1.0"),
            (Kind::Golang, "golang.org/x/net", "v0.2.0", "pkg:golang/golang.org/x/net@v0.2.0"),
        ] {
            assert_eq!(purl(&package(kind, name, version), &debian), url);
        }
        assert_eq!(purl(&package(Kind::Apk, "musl", "1"), &Inventory::default()), "pkg:apk/alpine/musl@1?arch=amd64");
    }

    #[test]
    fn licences_that_are_prose_are_not_told() {
        for (text, told) in [
            ("MIT", true),
            ("GPL-2.0-only WITH Linux-syscall-note", true),
            ("(MIT OR Apache-2.0) AND BSD-3-Clause", true),
            ("BSD License", false),
            ("Copyright 2020, somebody", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT)", false),
            ("", false),
        ] {
            assert_eq!(is_expression(text), told, "{text}");
        }
    }

    #[test]
    fn a_document() {
        let mut found = Inventory { distribution: "debian".into(), release: "12".into(), ..Inventory::default() };
        found.packages.push(package(Kind::Deb, "bash", "5.2"));
        found.gaps.push("something".into());
        let subject = Subject {
            name: "app",
            digest: Digest::of(b"image"),
            created: Timestamp::parse("2026-01-02T03:04:05.5Z").unwrap(),
            tool: "portolan-1",
        };
        let told = document(&subject, &found);
        assert_eq!(told["creationInfo"]["created"], "2026-01-02T03:04:05Z");
        assert_eq!(told["packages"][1]["SPDXID"], "SPDXRef-Package-deb-bash-0");
        assert_eq!(told["packages"][1]["versionInfo"], "5.2");
        assert_eq!(told["relationships"].as_array().unwrap().len(), 2);
        assert_eq!(told, document(&subject, &found), "twice the same");
        assert!(told["comment"].as_str().unwrap().contains("something"));
    }
}
