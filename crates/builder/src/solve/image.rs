//! The documents at the end: configuration and manifest.

use std::collections::BTreeMap;
use std::io::Write;

use portolan_types::oci::{Descriptor, History, Manifest};
use portolan_types::{Digest, Platform, Timestamp, media_type};

use super::log::Log;
use super::plan::{Planned, StageBase};
use super::probe::StageDone;
use super::work::Worked;
use super::{exports, internal};
use crate::error::{BuildError, ErrorKind};
use crate::{BuildRequest, Built, Engine};

/// Write the configuration, make it durable, put the manifest together. The layers are
/// durable already.
pub(super) fn export(
    engine: &Engine,
    request: &BuildRequest,
    epoch_secs: Option<i64>,
    platform: &Platform,
    log: &Log<'_>,
    planned: &Planned,
    worked: Worked<'_>,
) -> Result<Built, BuildError> {
    let step = worked.export;
    match assemble(engine, request, epoch_secs, platform, planned, &worked.stages) {
        Ok(built) => {
            let built = Built { packages: worked.packages, ..built };
            if let Some(cache) = &built.cache {
                step.note(&format!("preparing build cache for export: {} steps", cache.steps));
            }
            step.note(&format!("exporting {} layers done", built.layers.len()));
            step.note(&format!("exporting manifest {} done", built.digest));
            step.note(&format!("exporting config {} done", built.config.digest));
            step.done();
            log.exported(built.digest, built.config.digest);
            Ok(built)
        }
        Err(error) => {
            step.failed(&error.message);
            Err(error)
        }
    }
}

fn assemble(
    engine: &Engine,
    request: &BuildRequest,
    epoch_secs: Option<i64>,
    platform: &Platform,
    planned: &Planned,
    stages: &[StageDone],
) -> Result<Built, BuildError> {
    let target = planned.stage(planned.target)?;
    let mut config = target.stage.image.clone();

    // From the target down to the image that everything stands on.
    let mut ancestry = vec![planned.target];
    let mut base = None;
    loop {
        match &planned.stage(ancestry[ancestry.len() - 1])?.base {
            StageBase::Scratch => break,
            StageBase::Image { image, .. } => {
                base = Some(image);
                break;
            }
            StageBase::Stage(below) => ancestry.push(*below),
        }
    }
    let epoch = epoch_secs.map(|secs| Timestamp::from_unix_secs(secs).rfc3339());
    let mut layers: Vec<Descriptor> = base.map(|image| image.layers.clone()).unwrap_or_default();
    let mut diff_ids: Vec<Digest> = base.map(|image| image.config.rootfs.diff_ids.clone()).unwrap_or_default();
    let mut times: Vec<Option<String>> = vec![None; layers.len()];
    for stage in ancestry.iter().rev() {
        for step in &stages[*stage].steps {
            let layer = step
                .layer
                .as_ref()
                .ok_or_else(|| BuildError::new(ErrorKind::Internal, format!("a step of stage {stage} has no layer")))?;
            layers.push(layer.blob.clone());
            diff_ids.push(layer.diff_id);
            times.push(Some(epoch.clone().unwrap_or_else(|| step.created.clone())));
        }
    }
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = diff_ids;
    date(&mut config.history, &times);
    config.created = config.history.last().and_then(|h| h.created.clone());
    if let (Some(secs), Some(epoch)) = (epoch_secs, epoch) {
        // Whatever the base says of itself: nothing in the image is later.
        let limit = Timestamp::from_unix_secs(secs);
        for entry in &mut config.history {
            if entry.created.as_deref().and_then(Timestamp::parse).is_some_and(|created| created > limit) {
                entry.created = Some(epoch.clone());
            }
        }
        config.created = Some(epoch);
    }
    config.build_cache = None;
    if request.cache_export.inline {
        config.build_cache = exports::inline(planned, stages, &ancestry, epoch_secs)?;
    }
    for (key, value) in &request.origin_labels {
        let of_base = base.and_then(|image| image.config.config.labels.as_ref()?.get(key));
        let labels: &mut BTreeMap<_, _> = config.config.labels.get_or_insert_default();
        if labels.get(key) == of_base {
            labels.insert(key.clone(), value.clone());
        }
    }
    if !request.labels.is_empty() {
        let labels: &mut BTreeMap<_, _> = config.config.labels.get_or_insert_default();
        labels.extend(request.labels.iter().cloned());
    }

    // Docker's media types, which every client reads; they have no word for zstd.
    let ours = request.annotations.iter().filter(|a| a.platform.as_ref().is_none_or(|p| p == platform));
    let annotations: BTreeMap<String, String> = ours.map(|a| (a.key.clone(), a.value.clone())).collect();
    let plain = annotations.is_empty() && !request.oci_types;
    let docker = plain && layers.iter().all(|layer| docker_layer(&layer.media_type).is_some());
    let (manifest_type, config_type) = match docker {
        true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    for layer in &mut layers {
        let name = if docker { docker_layer(&layer.media_type) } else { oci_layer(&layer.media_type) };
        if let Some(name) = name {
            layer.media_type = name.to_owned();
        }
    }
    let json = |error: serde_json::Error| BuildError::new(ErrorKind::Internal, format!("write JSON: {error}"));
    let bytes = serde_json::to_vec(&config).map_err(json)?;
    let digest = Digest::of(&bytes);
    let write = || {
        if engine.content.size(&digest)? != Some(bytes.len() as u64) {
            let mut writer = engine.content.create()?;
            writer.write_all(&bytes)?;
            writer.commit(&digest)?;
        }
        engine.content.sync(&[digest])
    };
    write().map_err(|e| internal("keep the image's configuration", &e))?;

    let manifest = Manifest {
        schema_version: 2,
        media_type: manifest_type.to_owned(),
        config: Descriptor::new(config_type, digest, bytes.len() as u64),
        layers,
        annotations,
    };
    let manifest_bytes = serde_json::to_vec(&manifest).map_err(json)?;
    Ok(Built {
        platform: platform.clone(),
        cache: exports::registry(request, planned, stages, &ancestry, epoch_secs)?,
        packages: None,
        digest: Digest::of(&manifest_bytes),
        manifest: manifest_bytes,
        media_type: manifest_type.to_owned(),
        config: manifest.config,
        layers: manifest.layers,
        base_images: planned.images.iter().map(|i| (i.name.to_string(), i.image.digest)).collect(),
    })
}

fn docker_layer(name: &str) -> Option<&'static str> {
    match name {
        media_type::DOCKER_LAYER_GZIP | media_type::OCI_LAYER_GZIP => Some(media_type::DOCKER_LAYER_GZIP),
        media_type::DOCKER_LAYER | media_type::OCI_LAYER => Some(media_type::DOCKER_LAYER),
        media_type::DOCKER_FOREIGN_LAYER => Some(media_type::DOCKER_FOREIGN_LAYER),
        _ => None,
    }
}

fn oci_layer(name: &str) -> Option<&'static str> {
    match name {
        media_type::DOCKER_LAYER_GZIP => Some(media_type::OCI_LAYER_GZIP),
        media_type::DOCKER_LAYER => Some(media_type::OCI_LAYER),
        _ => None,
    }
}

/// Fill in when things were made: entries with layers from the layers' own times, the others
/// from the new layer after them or the layer before, as BuildKit does. So a build that
/// finds everything done gives the very same image.
fn date(history: &mut [History], times: &[Option<String>]) {
    let mut times = times.iter();
    for entry in history.iter_mut().filter(|h| !h.empty_layer) {
        let time = times.next().cloned().flatten();
        if entry.created.is_none() {
            entry.created = time;
        }
    }
    // The first new layer's time, for instructions before it.
    let mut current = None;
    let mut gap = false;
    for entry in history.iter() {
        match &entry.created {
            Some(time) => {
                current = Some(time.clone());
                if gap {
                    break;
                }
            }
            None => gap = true,
        }
    }
    let mut gap = false;
    for entry in history.iter_mut() {
        match &entry.created {
            Some(time) if gap => current = Some(time.clone()),
            Some(_) => {}
            None => {
                gap = true;
                entry.created.clone_from(&current);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dates(history: &[(bool, Option<&str>)], layers: &[Option<&str>]) -> Vec<String> {
        let mut entries: Vec<History> = history
            .iter()
            .map(|(empty_layer, created)| History {
                empty_layer: *empty_layer,
                created: created.map(str::to_owned),
                ..History::default()
            })
            .collect();
        let layers: Vec<Option<String>> = layers.iter().map(|l| l.map(str::to_owned)).collect();
        date(&mut entries, &layers);
        entries.into_iter().map(|h| h.created.unwrap_or_default()).collect()
    }

    #[test]
    fn history_is_dated_by_its_layers() {
        let old = (false, Some("old"));
        let (meta, layer) = ((true, None), (false, None));
        assert_eq!(dates(&[old, meta, layer, meta], &[None, Some("new")]), ["old", "new", "new", "new"]);
        assert_eq!(dates(&[old, meta], &[None]), ["old", "old"]);
        assert_eq!(dates(&[meta, layer, layer], &[Some("a"), Some("b")]), ["a", "a", "b"]);
        assert_eq!(dates(&[meta], &[]), [""]);
    }
}
