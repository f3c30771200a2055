//! JSON and XML bodies: manifests, configurations, the control plane's, lists of blocks.

use portolan_server::http::fuzzing as edge;
use portolan_types::oci::{ImageConfig, Index, InvalidManifest, Manifest, ManifestKind, ManifestView};
use portolan_types::{limits, media_type};

use super::{grammar, text};
use crate::Target;

/// The first line is the `Content-Type` (empty: none was sent), the rest the document.
pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    run: |input| {
        let at = input.iter().position(|b| *b == b'\n').unwrap_or(0);
        let (content_type, body) = (text(&input[..at]), &input[(at + 1).min(input.len())..]);
        let view = match ManifestView::parse(body, content_type) {
            Ok(view) => view,
            Err(InvalidManifest::TooLarge) => panic!("{} bytes", body.len()),
            // Refusals are shown: they must not be larger than what they refuse.
            Err(e) => return assert!(e.to_string().len() <= body.len() + input.len() + 400, "{e}"),
        };
        // What is kept goes out again in a header.
        assert!(grammar::MEDIA_TYPE.takes(&view.media_type), "{:?}", view.media_type);
        if let Some(sent) = content_type.and_then(|t| t.split(';').next()).map(str::trim)
            && !sent.is_empty()
            && sent != "application/json"
        {
            assert_eq!(view.media_type, sent);
        }
        let blobs = view.blobs().count();
        assert!(blobs + view.manifests().len() <= limits::MANIFEST_REFERENCES_MAX);
        match &view.kind {
            ManifestKind::Image { config, layers } => {
                let foreign = layers.iter().filter(|l| media_type::is_foreign_layer(&l.media_type)).count();
                assert_eq!(blobs, layers.len() - foreign + usize::from(config.is_some()));
                assert!(!media_type::is_index(&view.media_type));
            }
            ManifestKind::Index { .. } => assert!(media_type::is_index(&view.media_type) && blobs == 0),
            ManifestKind::Unknown => assert!(blobs == 0 && view.manifests().is_empty()),
        }
        // As the builder and the clients read it; what they write they can read.
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(body) {
            let again = serde_json::to_vec(&manifest).expect("a manifest is JSON");
            let again: Manifest = serde_json::from_slice(&again).expect("and comes back");
            assert_eq!((again.config, again.layers), (manifest.config, manifest.layers));
        }
        if let Ok(index) = serde_json::from_slice::<Index>(body) {
            let again = serde_json::to_vec(&index).expect("an index is JSON");
            assert_eq!(serde_json::from_slice::<Index>(&again).expect("and comes back").manifests, index.manifests);
        }
    },
    words: &[
        "\"schemaVersion\":2",
        "\"mediaType\":",
        "\"config\":",
        "\"layers\":[",
        "\"manifests\":[",
        "\"subject\":",
        "\"artifactType\":",
        "\"annotations\":{",
        "\"digest\":\"sha256:",
        "\"size\":",
        "\"urls\":[",
        "\"data\":",
        "\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}",
        "\"blobs\":[",
        "\\u0000",
        "\\ud800",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/json",
        "; charset=utf-8",
    ],
    bytes_max: 16 * 1024,
};

pub(super) const CONFIG: Target = Target {
    name: "config",
    run: |input| {
        let Ok(config) = serde_json::from_slice::<ImageConfig>(input) else { return };
        let written = serde_json::to_vec(&config).expect("a configuration is JSON");
        let again: ImageConfig = serde_json::from_slice(&written).expect("and comes back");
        assert_eq!(again, config);
        assert_eq!(
            serde_json::to_vec(&again).expect("again"),
            written,
            "the same bytes: their digest is an image's id"
        );
    },
    words: &[
        "\"architecture\":\"amd64\"",
        "\"os\":\"linux\"",
        "\"config\":{",
        "\"Env\":[",
        "\"Cmd\":",
        "\"ExposedPorts\":{\"80/tcp\":{}}",
        "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[",
        "\"history\":[{",
        "\"Healthcheck\":{\"Test\":[",
        "null",
        "\"Labels\":{",
    ],
    bytes_max: 8 * 1024,
};

pub(super) const ARM_BODY: Target = Target {
    name: "arm_body",
    run: |input| {
        assert!(edge::arm_bodies(input) <= 6);
        let _ = edge::attributes(input);
    },
    words: &[
        "\"location\":\"local\"",
        "\"sku\":{\"name\":\"Premium\"}",
        "\"properties\":{",
        "\"tags\":{",
        "\"adminUserEnabled\":true",
        "\"type\":\"DockerBuildRequest\"",
        "\"imageNames\":[",
        "\"arguments\":[{\"name\":\"a\",\"value\":\"b\",\"isSecret\":true}]",
        "\"platform\":{\"os\":\"Linux\"}",
        "\"timeout\":",
        "\"sourceLocation\":\"source/x\"",
        "\"deleteEnabled\":false",
        "\"sourceRepository\":\"docker.io/library/*\"",
    ],
    bytes_max: 8 * 1024,
};

pub(super) const BLOCK_LIST: Target = Target {
    name: "block_list",
    run: |input| {
        let Some(ids) = edge::block_list(input) else { return };
        assert!(ids.len() <= limits::BLOCKS_MAX);
        assert!(ids.iter().all(|id| (1..=64).contains(&id.len())));
        // No entity, no declaration gives more than it is long.
        assert!(ids.iter().map(Vec::len).sum::<usize>() <= input.len());
        let xml: String = ids.iter().map(|id| format!("<Latest>{}</Latest>", base64(id))).collect();
        assert_eq!(edge::block_list(format!("<BlockList>{xml}</BlockList>").as_bytes()), Some(ids));
    },
    words: &[
        "<?xml version=\"1.0\"?>",
        "<BlockList>",
        "</BlockList>",
        "<Latest>YQ==</Latest>",
        "<Uncommitted>",
        "</Uncommitted>",
        "<!DOCTYPE x [<!ENTITY a \"b\">]>",
        "&a;",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<BlockList/>",
    ],
    bytes_max: 4 * 1024,
};

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
