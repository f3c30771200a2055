//! A build's steps for the caches of other builders.

use super::plan::{Planned, StageBase};
use super::probe::{self, StageDone};
use crate::BuildRequest;
use crate::cache::{CacheLayer, Exported, Place, Writer};
use crate::error::{BuildError, ErrorKind};

/// What `--cache-to type=registry` asks for. `ancestry` are the stages that the image is made
/// of.
pub(super) fn registry(
    request: &BuildRequest,
    planned: &Planned,
    stages: &[StageDone],
    ancestry: &[usize],
    epoch_secs: Option<i64>,
) -> Result<Option<Exported>, BuildError> {
    let Some(max) = request.cache_export.registry else { return Ok(None) };
    let writer = write(planned, stages, epoch_secs, &|stage| max || ancestry.contains(&stage));
    writer.finish().map(Some).map_err(unwritable)
}

/// What `type=inline` puts into the image's configuration: the records of its own layers.
pub(super) fn inline(
    planned: &Planned,
    stages: &[StageDone],
    ancestry: &[usize],
    epoch_secs: Option<i64>,
) -> Result<Option<String>, BuildError> {
    let writer = write(planned, stages, epoch_secs, &|stage| ancestry.contains(&stage));
    writer.finish_inline().map(Some).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> BuildError {
    BuildError::new(ErrorKind::Internal, format!("write the build cache: {error}"))
}

fn write(planned: &Planned, stages: &[StageDone], epoch_secs: Option<i64>, wanted: &dyn Fn(usize) -> bool) -> Writer {
    let mut writer = Writer::new(epoch_secs);
    let mut ends: Vec<Option<Place>> = vec![None; planned.stages.len()];
    // Each after those it stands on.
    for &index in &planned.order {
        let (Some(Some(plan)), Some(done)) = (planned.stages.get(index), stages.get(index)) else { continue };
        if !wanted(index) {
            continue;
        }
        let mut place = match &plan.base {
            StageBase::Stage(below) => ends.get(*below).copied().flatten(),
            StageBase::Scratch => Some(writer.base(&probe::id_of_base(plan), &[])),
            StageBase::Image { image, .. } => {
                let layers: Vec<CacheLayer> = image
                    .layers
                    .iter()
                    .zip(&image.config.rootfs.diff_ids)
                    .map(|(blob, diff_id)| CacheLayer { blob: blob.clone(), diff_id: *diff_id, created: None })
                    .collect();
                Some(writer.base(&probe::id_of_base(plan), &layers))
            }
        };
        for (number, key) in plan.keys.iter().enumerate() {
            // A state without its layer ends the way.
            place = match (place, done.steps.get(number)) {
                (Some(below), Some(step)) => step.layer.as_ref().map(|layer| {
                    let created = Some(step.created.clone());
                    let layer = CacheLayer { blob: layer.blob.clone(), diff_id: layer.diff_id, created };
                    writer.step(key, below, &layer)
                }),
                _ => None,
            };
        }
        if let Some(end) = ends.get_mut(index) {
            *end = place;
        }
    }
    writer
}
