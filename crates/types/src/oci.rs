//! OCI and Docker documents, as much of them as Portolan itself reads or writes.
//!
//! A manifest that a client pushed is kept and served byte for byte; [`ManifestView`] is
//! what the registry reads out of it (which blobs it needs, what it refers to) and is
//! never written back. The builder writes documents of its own from the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Platform, limits, media_type};

/// A pointer to content (image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else it may be had; kept, never followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free-form annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the child runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In an index or referrers list: the child's artifact type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor with nothing optional.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }
}

/// An image manifest, as the builder writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::OCI_MANIFEST`] or [`media_type::DOCKER_MANIFEST`].
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free-form annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index, as the builder writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::OCI_INDEX`] or [`media_type::DOCKER_LIST`].
    pub media_type: String,
    /// The children.
    pub manifests: Vec<Descriptor>,
    /// Free-form annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What the registry reads out of a pushed manifest of any kind.
#[derive(Clone, Debug)]
pub struct ManifestView {
    /// The media type it is stored and served under.
    pub media_type: String,
    /// Index, image, or a document of a type we do not know (kept verbatim, references nothing).
    pub kind: ManifestKind,
    /// The manifest this one is about (`subject`), present or not.
    pub subject: Option<Descriptor>,
    /// `artifactType`, or the config's media type for an image with a subject but no such field.
    pub artifact_type: Option<String>,
    /// Annotations, copied into the referrers list.
    pub annotations: BTreeMap<String, String>,
}

/// The shapes a manifest can have.
#[allow(clippy::large_enum_variant, reason = "one lives at a time, beside the manifest it was read from")]
#[derive(Clone, Debug)]
pub enum ManifestKind {
    /// A configuration and layers.
    Image {
        /// The configuration; `None` for OCI artifact manifests, which have only blobs.
        config: Option<Descriptor>,
        /// Layers or artifact blobs.
        layers: Vec<Descriptor>,
    },
    /// Other manifests.
    Index {
        /// The children.
        manifests: Vec<Descriptor>,
    },
    /// A type that is not known here.
    Unknown,
}

/// Why a pushed manifest was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// Over [`limits::MANIFEST_BYTES_MAX`].
    #[error("the manifest is larger than {} bytes", limits::MANIFEST_BYTES_MAX)]
    TooLarge,
    /// Not JSON, or not the members its media type calls for.
    #[error("the manifest does not parse: {0}")]
    Malformed(String),
    /// Docker schema 1.
    #[error("Docker schema 1 manifests are not accepted: push with a client from 2017 or later")]
    Schema1,
    /// The document's `mediaType` differs from the request's `Content-Type`.
    #[error("the manifest says it is {inside}, the Content-Type header says {outside}")]
    TypeMismatch {
        /// What the document says.
        inside: String,
        /// What the request said.
        outside: String,
    },
    /// More references than [`limits::MANIFEST_REFERENCES_MAX`].
    #[error("the manifest refers to more than {} items", limits::MANIFEST_REFERENCES_MAX)]
    TooManyReferences,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawManifest {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: List,
    manifests: List,
    blobs: List,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// A list of a document: absent, or there. Go writes a list of nothing as `null`, and tools
/// push that; it is a list all the same.
#[derive(Clone, Default)]
struct List(Option<Vec<Descriptor>>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<List, D::Error> {
        Ok(List(Some(Option::<Vec<Descriptor>>::deserialize(d)?.unwrap_or_default())))
    }
}

/// What the registry looks at in a document of a type it does not know.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForeignManifest {
    media_type: Option<serde_json::Value>,
    subject: Option<serde_json::Value>,
    artifact_type: Option<serde_json::Value>,
    annotations: Option<serde_json::Value>,
}

impl From<ForeignManifest> for RawManifest {
    /// Members of other shapes than ours mean something else there, and are left alone.
    fn from(foreign: ForeignManifest) -> RawManifest {
        fn read<T: serde::de::DeserializeOwned>(value: Option<serde_json::Value>) -> Option<T> {
            serde_json::from_value(value?).ok()
        }
        RawManifest {
            media_type: read(foreign.media_type),
            subject: read(foreign.subject),
            artifact_type: read(foreign.artifact_type),
            annotations: read(foreign.annotations),
            ..RawManifest::default()
        }
    }
}

/// Whether documents of this type have the shapes that this module knows.
fn is_known(media_type: &str) -> bool {
    matches!(
        media_type,
        media_type::OCI_MANIFEST
            | media_type::OCI_INDEX
            | media_type::DOCKER_MANIFEST
            | media_type::DOCKER_LIST
            | media_type::OCI_ARTIFACT
    )
}

impl ManifestView {
    /// Read a manifest that came with `content_type` (parameters such as `; charset` are cut
    /// off; `None` when the header was absent, then the document must say what it is).
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<ManifestView, InvalidManifest> {
        if bytes.len() > limits::MANIFEST_BYTES_MAX {
            return Err(InvalidManifest::TooLarge);
        }
        let outside = content_type.and_then(|t| t.split(';').next()).map(str::trim).filter(|t| !t.is_empty());
        if matches!(outside, Some(media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED)) {
            return Err(InvalidManifest::Schema1);
        }
        let unreadable = |e: serde_json::Error| InvalidManifest::Malformed(e.to_string());
        let raw: RawManifest = match outside {
            Some(outside) if outside != "application/json" && !is_known(outside) => {
                serde_json::from_slice::<ForeignManifest>(bytes).map_err(unreadable)?.into()
            }
            _ => serde_json::from_slice(bytes).map_err(unreadable)?,
        };
        if raw.schema_version == Some(1) && raw.config.is_none() && raw.manifests.0.is_none() {
            return Err(InvalidManifest::Schema1);
        }
        if let (Some(inside), Some(outside)) = (raw.media_type.as_deref(), outside)
            && inside != outside
            && outside != "application/json"
        {
            return Err(InvalidManifest::TypeMismatch { inside: inside.to_owned(), outside: outside.to_owned() });
        }
        let media_type = match (outside, raw.media_type.as_deref()) {
            (Some("application/json") | None, Some(inside)) => inside.to_owned(),
            (Some(outside), _) => outside.to_owned(),
            (None, None) if raw.manifests.0.is_some() => media_type::OCI_INDEX.to_owned(),
            (None, None) => media_type::OCI_MANIFEST.to_owned(),
        };
        let malformed = |why: &str| InvalidManifest::Malformed(why.to_owned());
        // It goes out again in a header with every pull.
        if !media_type::is_media_type(&media_type) {
            return Err(malformed("its media type is none: write it as type/subtype"));
        }
        let version2 = |raw: &RawManifest| match raw.schema_version {
            Some(2) => Ok(()),
            _ => Err(malformed("schemaVersion must be 2")),
        };
        let kind = match media_type.as_str() {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                version2(&raw)?;
                if raw.manifests.0.is_some() {
                    return Err(malformed("an image manifest cannot have `manifests`"));
                }
                ManifestKind::Image {
                    config: Some(raw.config.clone().ok_or_else(|| malformed("`config` is missing"))?),
                    layers: raw.layers.0.clone().ok_or_else(|| malformed("`layers` is missing"))?,
                }
            }
            media_type::OCI_INDEX | media_type::DOCKER_LIST => {
                version2(&raw)?;
                if raw.config.is_some() || raw.layers.0.is_some() {
                    return Err(malformed("an index cannot have `config` or `layers`"));
                }
                ManifestKind::Index {
                    manifests: raw.manifests.0.clone().ok_or_else(|| malformed("`manifests` is missing"))?,
                }
            }
            media_type::OCI_ARTIFACT => {
                ManifestKind::Image { config: None, layers: raw.blobs.0.clone().unwrap_or_default() }
            }
            _ => ManifestKind::Unknown,
        };
        let references = match &kind {
            ManifestKind::Image { layers, .. } => layers.len() + 1,
            ManifestKind::Index { manifests } => manifests.len(),
            ManifestKind::Unknown => 0,
        };
        if references > limits::MANIFEST_REFERENCES_MAX {
            return Err(InvalidManifest::TooManyReferences);
        }
        // Empty is as good as missing (distribution-spec, "Listing Referrers").
        let artifact_type = raw.artifact_type.filter(|t| !t.is_empty()).or_else(|| match &kind {
            ManifestKind::Image { config: Some(config), .. } => Some(config.media_type.clone()),
            _ => None,
        });
        Ok(ManifestView {
            media_type,
            kind,
            subject: raw.subject,
            artifact_type,
            annotations: raw.annotations.unwrap_or_default(),
        })
    }

    /// The blobs that must be in the repository before this manifest may be: the
    /// configuration and every layer but foreign ones.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, layers): (Option<&Descriptor>, &[Descriptor]) = match &self.kind {
            ManifestKind::Image { config, layers } => (config.as_ref(), layers),
            _ => (None, &[]),
        };
        config.into_iter().chain(layers.iter().filter(|l| !media_type::is_foreign_layer(&l.media_type)))
    }

    /// The children of an index.
    pub fn manifests(&self) -> &[Descriptor] {
        match &self.kind {
            ManifestKind::Index { manifests } => manifests,
            _ => &[],
        }
    }
}

/// An image configuration (image-spec, config.md, with Docker's extra members), as the
/// builder reads it from a base image and writes it for a new one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// `MAINTAINER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `amd64`, …
    #[serde(default)]
    pub architecture: String,
    /// `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `linux`, …
    #[serde(default)]
    pub os: String,
    /// How a container is started.
    #[serde(default)]
    pub config: ContainerConfig,
    /// The uncompressed layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// One entry for each instruction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// BuildKit's inline cache: records of the steps behind the layers, JSON as base64.
    #[serde(default, rename = "moby.buildkit.cache.v0", skip_serializing_if = "Option::is_none")]
    pub build_cache: Option<String>,
}

/// `config` of an image configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `USER`
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `EXPOSE`: `8080/tcp` → {}
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `ENV`, as `K=V`, in the order first set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// `ENTRYPOINT`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `HEALTHCHECK`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// True when the command line is one shell string (Windows).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// `VOLUME`
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// `WORKDIR`
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `ONBUILD`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// `LABEL`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// `STOPSIGNAL`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// `SHELL`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// JSON's `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// `HEALTHCHECK`; durations in nanoseconds, 0 = inherit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between probes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time a probe may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time before failures count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between probes during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// `rootfs` of an image configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// One entry of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// `MAINTAINER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Which builder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// True when the instruction made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str) -> serde_json::Value {
        serde_json::json!({"mediaType": media_type, "digest": Digest::of(b"x"), "size": 1})
    }

    fn parse(value: serde_json::Value, content_type: Option<&str>) -> Result<ManifestView, InvalidManifest> {
        ManifestView::parse(value.to_string().as_bytes(), content_type)
    }

    #[test]
    fn images_and_indexes() {
        let image = serde_json::json!({"schemaVersion": 2, "config": descriptor(media_type::OCI_CONFIG),
            "layers": [descriptor(media_type::OCI_LAYER_GZIP), descriptor(media_type::DOCKER_FOREIGN_LAYER)]});
        let view = parse(image, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).unwrap();
        assert_eq!(view.blobs().count(), 2, "foreign layers need not be present");
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(media_type::OCI_MANIFEST)]});
        assert_eq!(parse(index, None).unwrap().manifests().len(), 1);
    }

    #[test]
    fn refusals() {
        assert!(matches!(ManifestView::parse(b"{", None), Err(InvalidManifest::Malformed(_))));
        assert_eq!(
            ManifestView::parse(&vec![b' '; limits::MANIFEST_BYTES_MAX + 1], None).unwrap_err(),
            InvalidManifest::TooLarge
        );
        let both = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []});
        assert!(matches!(parse(both, Some(media_type::OCI_MANIFEST)), Err(InvalidManifest::TypeMismatch { .. })));
        let schema1 = serde_json::json!({"schemaVersion": 1, "fsLayers": []});
        assert_eq!(parse(schema1, None).unwrap_err(), InvalidManifest::Schema1);
    }

    #[test]
    fn a_type_that_no_header_can_carry_is_refused() {
        for (inside, outside) in [("a\nb/c", None), ("text", None), ("", Some("é/x")), ("", Some("a/b c")), ("/", None)]
        {
            let document = match inside {
                "" => serde_json::json!({}),
                inside => serde_json::json!({"mediaType": inside}),
            };
            assert!(matches!(parse(document, outside), Err(InvalidManifest::Malformed(_))), "{inside:?} {outside:?}");
        }
    }

    #[test]
    fn unknown_types_are_kept() {
        let theirs = serde_json::json!({"layers": 1, "config": "x", "schemaVersion": "9", "annotations": [],
            "subject": descriptor(media_type::OCI_MANIFEST), "artifactType": "application/vnd.example.thing"});
        let view = parse(theirs, Some("application/vnd.example+json")).unwrap();
        assert!(matches!(view.kind, ManifestKind::Unknown));
        assert_eq!((view.blobs().count(), view.annotations.len()), (0, 0));
        assert_eq!(view.subject.unwrap().digest, Digest::of(b"x"), "what has our shape is read");
        assert_eq!(view.artifact_type.as_deref(), Some("application/vnd.example.thing"));
        let other = serde_json::json!({"mediaType": "application/vnd.other+json"});
        assert!(matches!(
            parse(other, Some("application/vnd.example+json")),
            Err(InvalidManifest::TypeMismatch { .. })
        ));
        assert!(ManifestView::parse(b"not json", Some("application/vnd.example+json")).is_err());
    }

    #[test]
    fn lists_that_are_null_are_empty() {
        let image =
            serde_json::json!({"schemaVersion": 2, "config": descriptor(media_type::OCI_CONFIG), "layers": null});
        assert_eq!(parse(image, Some(media_type::OCI_MANIFEST)).unwrap().blobs().count(), 1);
        let index = serde_json::json!({"schemaVersion": 2, "manifests": null});
        assert!(parse(index, Some(media_type::OCI_INDEX)).unwrap().manifests().is_empty());
        let neither = serde_json::json!({"schemaVersion": 2, "config": descriptor(media_type::OCI_CONFIG)});
        assert!(parse(neither, Some(media_type::OCI_MANIFEST)).is_err());
    }

    #[test]
    fn an_artifact_type_that_is_empty_is_missing() {
        let image = serde_json::json!({"schemaVersion": 2, "config": descriptor("application/vnd.example.config"),
            "layers": [], "artifactType": ""});
        let of_image = parse(image, Some(media_type::OCI_MANIFEST)).unwrap().artifact_type;
        assert_eq!(of_image.as_deref(), Some("application/vnd.example.config"));
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [], "artifactType": ""});
        assert_eq!(parse(index, Some(media_type::OCI_INDEX)).unwrap().artifact_type, None);
    }
}
