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
pub(crate) fn imported_record(parent: &Digest, key: &Digest, layer: &CacheLayer) -> (Digest, Option<Vec<u8>>) {
    let id = Key::new("imported").digest(parent).digest(key).digest(&layer.diff_id).finish();
    let record = Record {
        parent: *parent,
        id,
        created: layer.created.clone().unwrap_or_default(),
        layer: Some(LayerRecord { blob: layer.blob.clone(), diff_id: layer.diff_id, empty: false }),
    };
    (id, serde_json::to_vec(&record).ok())
}

/// A step that is done.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) id: Digest,
    pub(super) created: String,
    /// `None` while it is being written, or when nobody wants it.
    pub(super) layer: Option<Layer>,
    /// The state after it, when it is at hand.
    pub(super) chain: Option<Chain>,
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
pub(super) fn probe(engine: &Engine, planned: &Planned, no_cache: bool) -> Vec<StageDone> {
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
            let Some(step) = look_up(engine, key, &below, done.by_layers) else { break };
            done.by_layers &= step.layer.is_some();
            parent = Some(step.id);
            done.steps.push(step);
        }
        stages[index] = done;
    }
    stages
}

fn look_up(engine: &Engine, key: &Digest, parent: &Digest, by_layers: bool) -> Option<Done> {
    let record: Record = serde_json::from_slice(&engine.cache.get(key)?).ok()?;
    if record.parent != *parent {
        return None;
    }
    let here = |layer: &LayerRecord| engine.content.size(&layer.blob.digest).ok().flatten() == Some(layer.blob.size);
    let layer = record.layer.as_ref().filter(|layer| here(layer)).map(LayerRecord::layer);
    let chain = match layer.is_some() && by_layers {
        true => None,
        false => Some(engine.snapshots.find(&record.id)?),
    };
    Some(Done { id: record.id, created: record.created, layer, chain })
}
