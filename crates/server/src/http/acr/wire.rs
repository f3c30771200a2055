//! The JSON of `/acr/v1/`, with times as ACR prints them: seven fractional digits.

use portolan_service::{Attributes, AttributesPatch, Error, Kind, ManifestDetail, RepoDetail, TagInfo};
use serde::Deserialize;
use serde_json::{Value, json};

fn attributes(a: Attributes) -> Value {
    json!({ "deleteEnabled": a.delete, "writeEnabled": a.write, "readEnabled": a.read, "listEnabled": a.list })
}

pub(super) fn repository(server: &str, repo: &RepoDetail) -> Value {
    json!({
        "registry": server,
        "imageName": repo.name,
        "createdTime": repo.created.rfc3339_7(),
        "lastUpdateTime": repo.updated.rfc3339_7(),
        "manifestCount": repo.manifests,
        "tagCount": repo.tags,
        "changeableAttributes": attributes(repo.attributes),
    })
}

pub(super) fn tag(tag: &TagInfo) -> Value {
    json!({
        "name": tag.name,
        "digest": tag.digest,
        "createdTime": tag.created.rfc3339_7(),
        "lastUpdateTime": tag.updated.rfc3339_7(),
        "signed": false,
        "changeableAttributes": attributes(tag.attributes),
    })
}

/// Members that do not apply are absent, `tags` of an untagged manifest too: `az` and the
/// scripts around it take both absent and null for "untagged".
pub(super) fn manifest(manifest: &ManifestDetail) -> Value {
    let info = &manifest.info;
    let mut value = json!({
        "digest": info.digest,
        "imageSize": info.image_size,
        "createdTime": info.created.rfc3339_7(),
        "lastUpdateTime": info.updated.rfc3339_7(),
    });
    // An image without a type of its own is shown by its configuration's, once.
    let artifact_type = info.artifact_type.clone().filter(|t| info.config_media_type.as_ref() != Some(t));
    if let Value::Object(members) = &mut value {
        let optional = [
            ("architecture", &info.architecture),
            ("os", &info.os),
            ("mediaType", &Some(info.media_type.clone())),
            ("configMediaType", &info.config_media_type),
            ("artifactType", &artifact_type),
        ];
        for (name, member) in optional {
            if let Some(text) = member {
                members.insert(name.to_owned(), json!(text));
            }
        }
        if !manifest.tags.is_empty() {
            members.insert("tags".to_owned(), json!(manifest.tags));
        }
        if !manifest.references.is_empty() {
            let references: Vec<Value> = manifest
                .references
                .iter()
                .map(|r| json!({ "digest": r.digest, "architecture": r.architecture, "os": r.os }))
                .collect();
            members.insert("references".to_owned(), json!(references));
        }
        members.insert("changeableAttributes".to_owned(), attributes(info.attributes));
    }
    value
}

/// Members that are absent or null stay as they are; others (quarantine) are not ours yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Patch {
    delete_enabled: Option<bool>,
    write_enabled: Option<bool>,
    list_enabled: Option<bool>,
    read_enabled: Option<bool>,
}

pub(crate) fn patch(bytes: &[u8]) -> Result<AttributesPatch, Error> {
    let patch: Patch = serde_json::from_slice(bytes)
        .map_err(|e| Error::new(Kind::Invalid, "UNSUPPORTED", format!("the attributes cannot be read: {e}")))?;
    Ok(AttributesPatch {
        delete: patch.delete_enabled,
        write: patch.write_enabled,
        list: patch.list_enabled,
        read: patch.read_enabled,
    })
}
