//! Which steps were done before.

use portolan_types::Digest;
use portolan_types::oci::Descriptor;
use serde::{Deserialize, Serialize};

use super::key::Key;
use super::plan::{Planned, StageBase, StagePlan};
use crate::Engine;
use crate::cache::CacheLayer;
use crate::diff::Layer;
use crate::snapshot::Chain;

/// What the step cache keeps under a step's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The result that the step was done on.
    pub(super) parent: Digest,
    /// Names this result: in records of later steps, and the snapshot.
    pub(super) id: Digest,
    /// When the step was done first, RFC 3339.
    pub(super) created: String,
    /// Its layer. Steps of stages that end in no image have none until they are asked for.
    pub(super) layer: Option<LayerRecord>,
    /// The layer as a build with SOURCE_DATE_EPOCH has it; of the last such build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dated: Option<Dated>,
}

/// A layer in which no time is later than one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Dated {
    /// That time, in seconds since 1970.
    pub(super) epoch_secs: i64,
    pub(super) layer: LayerRecord,
}

impl Record {
    /// Whether it says all that is known of the step.
    pub(super) fn tells(&self, done: &Done, epoch_secs: Option<i64>) -> bool {
        self.layer_for(epoch_secs).map(|layer| layer.blob.digest) == done.layer.as_ref().map(|layer| layer.blob.digest)
    }

    /// The layer for a build with this epoch, or without one.
    fn layer_for(&self, epoch_secs: Option<i64>) -> Option<&LayerRecord> {
        match epoch_secs {
            None => self.layer.as_ref(),
            Some(secs) => self.dated.as_ref().filter(|dated| dated.epoch_secs == secs).map(|dated| &dated.layer),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) blob: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) empty: bool,
}

impl LayerRecord {
    pub(super) fn of(layer: &Layer) -> LayerRecord {
        LayerRecord { blob: layer.blob.clone(), diff_id: layer.diff_id, empty: layer.empty }
    }

    pub(super) fn layer(&self) -> Layer {
        Layer { diff_id: self.diff_id, blob: self.blob.clone(), empty: self.empty }
    }
}

/// A record of a step that another builder did, with the result it made: named by what it
/// stands on and by what is in it, so that importing it twice gives the same. Also what it
/// would be called when it cannot be written as one.
pub(crate) fn imported_record(
    parent: &Digest,
    key: &Digest,
    layer: &CacheLayer,
    epoch_secs: Option<i64>,
) -> (Digest, Option<Vec<u8>>) {
    let id = Key::new("imported").digest(parent).digest(key).digest(&layer.diff_id).finish();
    let layer_record = LayerRecord { blob: layer.blob.clone(), diff_id: layer.diff_id, empty: false };
    let (plain, dated) = match epoch_secs {
        None => (Some(layer_record), None),
        Some(epoch_secs) => (None, Some(Dated { epoch_secs, layer: layer_record })),
    };
    let record =
        Record { parent: *parent, id, created: layer.created.clone().unwrap_or_default(), layer: plain, dated };
    (id, serde_json::to_vec(&record).ok())
}

/// A step that is done.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) id: Digest,
    pub(super) created: String,
    /// Its layer in this build's image. `None` while it is being written, or when nobody
    /// wants it.
    pub(super) layer: Option<Layer>,
    /// Its layer with all its times, when it is there: what its state can be unpacked from,
    /// and what `layer` can be made from.
    pub(super) plain: Option<Layer>,
    /// The state after it, when it is at hand.
    pub(super) chain: Option<Chain>,
    /// The record that led to it.
    pub(super) record: Option<Record>,
    /// Whether that record came from elsewhere, and the registry has none.
    pub(super) imported: bool,
    /// By what it is found on its result, however that came about.
    pub(super) on: Option<Digest>,
}

impl Done {
    /// A layer that has the step's files.
    pub(super) fn files(&self) -> Option<&Layer> {
        self.plain.as_ref().or(self.layer.as_ref())
    }
}

/// How far a stage is done: its first steps, as many as there are items.
#[derive(Clone, Debug, Default)]
pub(super) struct StageDone {
    pub(super) steps: Vec<Done>,
    /// Whether the state after these steps can be put together from layers alone.
    pub(super) by_layers: bool,
}

/// Names what a stage on an image, or on nothing, stands on.
pub(super) fn id_of_base(plan: &StagePlan) -> Digest {
    Key::new("result").digest(&plan.base_key()).finish()
}

/// The result that a stage's first step stands on, when that is known already.
pub(super) fn base_id(planned: &Planned, stages: &[StageDone], index: usize) -> Option<Digest> {
    let plan = planned.stages.get(index)?.as_ref()?;
    match &plan.base {
        StageBase::Scratch | StageBase::Image { .. } => Some(id_of_base(plan)),
        StageBase::Stage(base) => final_id(planned, stages, *base),
    }
}

/// The result of a whole stage, when it is done.
pub(super) fn final_id(planned: &Planned, stages: &[StageDone], index: usize) -> Option<Digest> {
    let plan = planned.stages.get(index)?.as_ref()?;
    let done = &stages.get(index)?.steps;
    if done.len() < plan.stage.steps.len() {
        return None;
    }
    match done.last() {
        Some(last) => Some(last.id),
        None => base_id(planned, stages, index),
    }
}

/// Look every planned step up. Touches no file system but to see whether a snapshot is
/// there where no layer is.
///
/// Records that were imported stand on other results than the registry's own, so what leads
/// further depends on which are asked first: both are tried, and the longer way is taken.
pub(super) fn probe(engine: &Engine, planned: &Planned, no_cache: bool, epoch_secs: Option<i64>) -> Vec<StageDone> {
    let own = probe_from(engine, planned, no_cache, epoch_secs, false);
    if no_cache || engine.imported.is_none() {
        return own;
    }
    let length = |stages: &[StageDone]| stages.iter().map(|stage| stage.steps.len()).sum::<usize>();
    let steps: usize = planned.stages.iter().flatten().map(|plan| plan.keys.len()).sum();
    if length(&own) == steps {
        return own;
    }
    let imported = probe_from(engine, planned, no_cache, epoch_secs, true);
    if length(&imported) > length(&own) { imported } else { own }
}

fn probe_from(
    engine: &Engine,
    planned: &Planned,
    no_cache: bool,
    epoch_secs: Option<i64>,
    imported_first: bool,
) -> Vec<StageDone> {
    let mut stages: Vec<StageDone> = planned.stages.iter().map(|_| StageDone::default()).collect();
    for &index in &planned.order {
        let Some(plan) = &planned.stages[index] else { continue };
        let base_by_layers = match &plan.base {
            StageBase::Stage(base) => stages[*base].by_layers,
            _ => true,
        };
        let mut done = StageDone { steps: Vec::new(), by_layers: base_by_layers };
        let mut parent = base_id(planned, &stages, index);
        for key in &plan.keys {
            let Some(below) = parent.filter(|_| !no_cache) else { break };
            let Some(step) = look_up(engine, key, &below, done.by_layers, epoch_secs, imported_first) else {
                break;
            };
            done.by_layers &= step.files().is_some();
            parent = Some(step.id);
            done.steps.push(step);
        }
        stages[index] = done;
    }
    stages
}

/// The step under `key`, done on `parent`. `by_layers`: whether the state below can be put
/// together from layers.
pub(super) fn look_up(
    engine: &Engine,
    key: &Digest,
    parent: &Digest,
    by_layers: bool,
    epoch_secs: Option<i64>,
    imported_first: bool,
) -> Option<Done> {
    let mut caches = vec![(&engine.cache, false)];
    caches.extend(engine.imported.as_ref().map(|cache| (cache, true)));
    if imported_first {
        caches.reverse();
    }
    caches.into_iter().find_map(|(cache, imported)| {
        let record: Record = serde_json::from_slice(&cache.get(key)?).ok()?;
        found(engine, record, parent, by_layers, epoch_secs, imported)
    })
}

fn found(
    engine: &Engine,
    record: Record,
    parent: &Digest,
    by_layers: bool,
    epoch_secs: Option<i64>,
    imported: bool,
) -> Option<Done> {
    if record.parent != *parent {
        return None;
    }
    let here = |layer: &&LayerRecord| engine.content.size(&layer.blob.digest).ok().flatten() == Some(layer.blob.size);
    let layer = record.layer_for(epoch_secs).filter(here).map(LayerRecord::layer);
    let plain = match epoch_secs {
        None => layer.clone(),
        Some(_) => record.layer.as_ref().filter(here).map(LayerRecord::layer),
    };
    let chain = match (layer.is_some() || plain.is_some()) && by_layers {
        true => None,
        false => Some(engine.snapshots.find(&record.id)?),
    };
    let (id, created) = (record.id, record.created.clone());
    Some(Done { id, created, layer, plain, chain, record: Some(record), imported, on: None })
}
