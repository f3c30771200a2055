//! Step records as other builders' caches have them: BuildKit's cache configuration
//! (`application/vnd.buildkit.cacheconfig.v0`).
//!
//! A configuration has *layers*, each standing on its parent, and *records*: a cache key, the
//! records it follows from, and the layers that are its result. An image manifest (or, as
//! BuildKit wrote it first, an index) names the configuration and all layers; that is what
//! lies in a registry under `--cache-to type=registry`. `type=inline` is the records alone,
//! in the image's configuration; the layers are the image's.
//!
//! The keys of our records are [ours](crate), as BuildKit's are BuildKit's: each reads what
//! the other wrote and finds nothing of its own in it.
//!
//! What is read here comes from a registry and may be anything: sizes, counts and depths are
//! bounded, and a record only ever leads to a layer that the manifest beside it names.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_types::Digest;
use portolan_types::oci::{Descriptor, ImageConfig};
use serde::{Deserialize, Serialize};

use crate::solve::imported_record;

/// The media type of a cache configuration.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// On a layer's descriptor: its uncompressed digest.
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// On a layer's descriptor: when it was made, RFC 3339.
pub const CREATED_AT: &str = "buildkit/createdat";
/// A cache configuration's size in bytes; BuildKit reads no larger one.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// Layers or records of one configuration.
const ITEMS_MAX: usize = 10_000;
/// Records in a row; no stage has as many steps.
const DEPTH_MAX: usize = 1_000;

/// A cache to put into a registry. Its layers are durable in [`crate::ports::Content`].
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// The configuration's bytes, of media type [`CONFIG_MEDIA_TYPE`].
    pub config: Vec<u8>,
    /// The layers it speaks of, each once, annotated as BuildKit does.
    pub layers: Vec<Descriptor>,
    /// How many steps it has records of.
    pub steps: usize,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<ConfigLayer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    records: Vec<ConfigRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ConfigLayer {
    blob: Digest,
    /// −1 for none. BuildKit leaves 0 out.
    #[serde(default)]
    parent: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct ConfigRecord {
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    results: Vec<ConfigResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Vec<ConfigInput>>,
    /// Ours, which others pass over: the SOURCE_DATE_EPOCH that the layer was made with.
    #[serde(default, rename = "epochSecs", skip_serializing_if = "Option::is_none")]
    epoch_secs: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ConfigResult {
    layer: usize,
    #[serde(default, rename = "createdAt", skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ConfigInput {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    selector: String,
    link: usize,
}

/// A layer with what makes it one: which bytes, what they unpack to, when it was made.
#[derive(Clone, Debug)]
pub(crate) struct CacheLayer {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) created: Option<String>,
}

/// Puts a configuration together, from below.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    config: Config,
    layers: Vec<Descriptor>,
    places: HashMap<(Digest, i64), usize>,
    known: HashMap<Digest, usize>,
    steps: usize,
    epoch_secs: Option<i64>,
}

/// A state that the next record may stand on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its topmost layer; −1 for the empty state.
    layer: i64,
    record: Option<usize>,
}

impl Writer {
    /// For layers that were made with this SOURCE_DATE_EPOCH.
    pub(crate) fn new(epoch_secs: Option<i64>) -> Writer {
        Writer { epoch_secs, ..Writer::default() }
    }

    /// The state of a base: its key, and its layers, lowest first.
    pub(crate) fn base(&mut self, key: &Digest, layers: &[CacheLayer]) -> Place {
        let top = layers.iter().fold(-1, |parent, layer| self.layer(layer, parent));
        let record =
            ConfigRecord { digest: Some(*key), results: results(top, layers.last()), ..ConfigRecord::default() };
        Place { layer: top, record: Some(self.record(key, record)) }
    }

    /// The state after a step on `below`.
    pub(crate) fn step(&mut self, key: &Digest, below: Place, layer: &CacheLayer) -> Place {
        let top = self.layer(layer, below.layer);
        let link = |link| vec![vec![ConfigInput { selector: String::new(), link }]];
        let record = ConfigRecord {
            digest: Some(*key),
            results: results(top, Some(layer)),
            inputs: below.record.map(link).unwrap_or_default(),
            epoch_secs: self.epoch_secs,
        };
        if !self.known.contains_key(key) {
            self.steps += 1;
        }
        Place { layer: top, record: Some(self.record(key, record)) }
    }

    fn record(&mut self, key: &Digest, record: ConfigRecord) -> usize {
        let records = &mut self.config.records;
        *self.known.entry(*key).or_insert_with(|| {
            records.push(record);
            records.len() - 1
        })
    }

    fn layer(&mut self, layer: &CacheLayer, parent: i64) -> i64 {
        let place = *self.places.entry((layer.blob.digest, parent)).or_insert_with(|| {
            self.config.layers.push(ConfigLayer { blob: layer.blob.digest, parent });
            if !self.layers.iter().any(|known| known.digest == layer.blob.digest) {
                let mut blob = layer.blob.clone();
                blob.annotations.insert(UNCOMPRESSED.to_owned(), layer.diff_id.to_string());
                if let Some(created) = &layer.created {
                    blob.annotations.insert(CREATED_AT.to_owned(), created.clone());
                }
                self.layers.push(blob);
            }
            self.config.layers.len() - 1
        });
        i64::try_from(place).unwrap_or(-1)
    }

    /// For a registry.
    pub(crate) fn finish(self) -> serde_json::Result<Exported> {
        Ok(Exported { config: serde_json::to_vec(&self.config)?, layers: self.layers, steps: self.steps })
    }

    /// For an image's configuration, whose layers are the ones given, lowest first. A record
    /// of anything else is left out by the caller.
    pub(crate) fn finish_inline(self) -> serde_json::Result<String> {
        Ok(STANDARD.encode(serde_json::to_vec(&self.config.records)?))
    }
}

fn results(top: i64, layer: Option<&CacheLayer>) -> Vec<ConfigResult> {
    let created_at = layer.and_then(|layer| layer.created.clone());
    usize::try_from(top).ok().map(|layer| ConfigResult { layer, created_at }).into_iter().collect()
}

/// One cache of several: the images of one build for several platforms.
pub fn merge(caches: &[&Exported]) -> Result<Exported, String> {
    let mut all = Exported::default();
    let mut config = Config::default();
    for cache in caches {
        let part: Config = serde_json::from_slice(&cache.config).map_err(|e| format!("read the build cache: {e}"))?;
        let (layers, records) = (config.layers.len(), config.records.len());
        let shift = i64::try_from(layers).unwrap_or(i64::MAX);
        config.layers.extend(part.layers.into_iter().map(|layer| ConfigLayer {
            parent: if layer.parent < 0 { -1 } else { layer.parent.saturating_add(shift) },
            ..layer
        }));
        config.records.extend(part.records.into_iter().map(|mut record| {
            record.results.iter_mut().for_each(|result| result.layer += layers);
            record.inputs.iter_mut().flatten().for_each(|input| input.link += records);
            record
        }));
        for blob in &cache.layers {
            if !all.layers.iter().any(|known| known.digest == blob.digest) {
                all.layers.push(blob.clone());
            }
        }
        all.steps += cache.steps;
    }
    all.config = serde_json::to_vec(&config).map_err(|e| format!("write the build cache: {e}"))?;
    Ok(all)
}

/// Read a cache configuration: the engine's own step records, by cache key, for a
/// [`StepCache`](crate::ports::StepCache). `layers` are those that the manifest names; a
/// record of another layer is left out, and so is one of another builder. Fails with a
/// sentence when the configuration is none.
pub fn read_config(config: &[u8], layers: &[Descriptor]) -> Result<HashMap<Digest, Vec<u8>>, String> {
    if config.len() > CONFIG_BYTES_MAX {
        return Err(format!("its configuration is larger than {CONFIG_BYTES_MAX} bytes"));
    }
    let config: Config =
        serde_json::from_slice(config).map_err(|e| format!("its configuration does not parse: {e}"))?;
    let mut named: HashMap<Digest, CacheLayer> = HashMap::new();
    for blob in layers {
        let Some(Ok(diff_id)) = blob.annotations.get(UNCOMPRESSED).map(|text| text.parse()) else { continue };
        let created = blob.annotations.get(CREATED_AT).cloned();
        // As the image will name it.
        let plain = Descriptor::new(&blob.media_type, blob.digest, blob.size);
        named.insert(blob.digest, CacheLayer { blob: plain, diff_id, created });
    }
    read(&config, &named)
}

/// Read the inline cache of an image: see [`read_config`]. An image without one has none.
pub fn read_inline(image: &ImageConfig, layers: &[Descriptor]) -> Result<HashMap<Digest, Vec<u8>>, String> {
    let Some(text) = &image.build_cache else { return Ok(HashMap::new()) };
    if text.len() > 2 * CONFIG_BYTES_MAX {
        return Err(format!("its inline cache is larger than {CONFIG_BYTES_MAX} bytes"));
    }
    let wrong = |e: &dyn std::fmt::Display| format!("its inline cache does not parse: {e}");
    let bytes = STANDARD.decode(text).map_err(|e| wrong(&e))?;
    let records: Vec<ConfigRecord> = serde_json::from_slice(&bytes).map_err(|e| wrong(&e))?;
    if layers.len() != image.rootfs.diff_ids.len() {
        return Err("its configuration does not belong to its layers".to_owned());
    }
    let mut config = Config { layers: Vec::new(), records };
    let mut named = HashMap::new();
    let mut dates = image.history.iter().filter(|entry| !entry.empty_layer).map(|entry| entry.created.clone());
    for ((parent, blob), diff_id) in (-1..).zip(layers).zip(&image.rootfs.diff_ids) {
        config.layers.push(ConfigLayer { blob: blob.digest, parent });
        let plain = Descriptor::new(&blob.media_type, blob.digest, blob.size);
        let layer = CacheLayer { blob: plain, diff_id: *diff_id, created: dates.next().flatten() };
        named.insert(blob.digest, layer);
    }
    read(&config, &named)
}

fn read(config: &Config, layers: &HashMap<Digest, CacheLayer>) -> Result<HashMap<Digest, Vec<u8>>, String> {
    if config.layers.len() > ITEMS_MAX || config.records.len() > ITEMS_MAX {
        return Err(format!("it has more than {ITEMS_MAX} layers or records"));
    }
    let mut ids: Vec<Option<Digest>> = vec![None; config.records.len()];
    let mut out = HashMap::new();
    // Records stand before what they follow from as often as behind: each chain is walked
    // down to something known, then up.
    for start in 0..config.records.len() {
        let mut chain = vec![start];
        while let Some(below) = chain.last().and_then(|at| input(config, *at))
            && ids.get(below).is_some_and(Option::is_none)
        {
            if chain.len() > DEPTH_MAX || chain.contains(&below) {
                return Err("its records go round in circles".to_owned());
            }
            chain.push(below);
        }
        while let Some(at) = chain.pop() {
            if ids[at].is_some() {
                continue;
            }
            let record = &config.records[at];
            let Some(key) = record.digest else { continue };
            let Some(below) = input(config, at) else {
                // A base: its key is the name of the state.
                ids[at] = Some(key);
                continue;
            };
            let layer = record.results.iter().find_map(|result| {
                let place = config.layers.get(result.layer)?;
                let layer = layers.get(&place.blob)?;
                let created = result.created_at.clone().or_else(|| layer.created.clone());
                Some(CacheLayer { created, ..layer.clone() })
            });
            let (Some(layer), Some(Some(parent))) = (layer, ids.get(below)) else { continue };
            let (id, record) = imported_record(parent, &key, &layer, record.epoch_secs);
            ids[at] = Some(id);
            if let Some(record) = record {
                out.insert(key, record);
            }
        }
    }
    Ok(out)
}

/// The record that a record follows from: ours have one at most, and what has more is not
/// ours.
fn input(config: &Config, record: usize) -> Option<usize> {
    match config.records.get(record)?.inputs.as_slice() {
        [one] => one.first().filter(|input| input.selector.is_empty()).map(|input| input.link),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> CacheLayer {
        let blob = Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of(name.as_bytes()), 7);
        let diff_id = Digest::of(format!("{name} unpacked").as_bytes());
        CacheLayer { blob, diff_id, created: Some("2026-01-02T03:04:05Z".into()) }
    }

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn written() -> Exported {
        let mut writer = Writer::default();
        let base = writer.base(&key("base"), &[layer("b1"), layer("b2")]);
        let one = writer.step(&key("one"), base, &layer("l1"));
        writer.step(&key("two"), one, &layer("l2"));
        // Another stage on the same base.
        let base = writer.base(&key("base"), &[layer("b1"), layer("b2")]);
        writer.step(&key("three"), base, &layer("l3"));
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let cache = written();
        assert_eq!((cache.layers.len(), cache.steps), (5, 3));
        let read = read_config(&cache.config, &cache.layers).unwrap();
        let mut keys: Vec<_> = read.keys().copied().collect();
        keys.sort_unstable();
        let mut wanted = vec![key("one"), key("two"), key("three")];
        wanted.sort_unstable();
        assert_eq!(keys, wanted);
        // Twice the same, so that what one build unpacked the next one finds.
        assert_eq!(read, read_config(&cache.config, &cache.layers).unwrap());
    }

    #[test]
    fn caches_of_two_platforms_are_one() {
        let mut writer = Writer::default();
        let base = writer.base(&key("other base"), &[layer("b3")]);
        writer.step(&key("four"), base, &layer("l1"));
        let other = writer.finish().unwrap();
        let both = merge(&[&written(), &other]).unwrap();
        assert_eq!((both.layers.len(), both.steps), (6, 4));
        let read = |cache: &Exported| read_config(&cache.config, &cache.layers).unwrap();
        let mut apart = read(&written());
        apart.extend(read(&other));
        assert_eq!(read(&both), apart);
    }

    #[test]
    fn a_record_counts_only_with_a_layer_that_is_named() {
        let mut cache = written();
        cache.layers.retain(|blob| blob.digest != layer("l1").blob.digest);
        let read = read_config(&cache.config, &cache.layers).unwrap();
        assert_eq!(read.len(), 1, "the step on it is of no use either");
        assert!(read.contains_key(&key("three")));
    }

    #[test]
    fn circles_and_nonsense_end() {
        let circle = format!(
            r#"{{"layers":[{{"blob":"{0}","parent":-1}}],"records":[{{"digest":"{0}","layers":[{{"layer":0}}],"inputs":[[{{"link":1}}]]}},{{"digest":"{1}","layers":[{{"layer":9}}],"inputs":[[{{"link":0}}]]}}]}}"#,
            key("a"),
            key("b"),
        );
        assert!(read_config(circle.as_bytes(), &[]).unwrap_err().contains("circles"));
        let oneself = format!(r#"{{"records":[{{"digest":"{}","inputs":[[{{"link":0}}]]}}]}}"#, key("a"));
        assert!(read_config(oneself.as_bytes(), &[]).unwrap_err().contains("circles"));
        let far = format!(r#"{{"records":[{{"digest":"{}","inputs":[[{{"link":77}}]]}}]}}"#, key("a"));
        assert!(read_config(far.as_bytes(), &[]).unwrap().is_empty());
        assert!(read_config(b"[]x", &[]).is_err());
        assert!(read_config(&vec![b' '; CONFIG_BYTES_MAX + 1], &[]).is_err());
    }

    #[test]
    fn buildkits_own_configuration_is_read_without_a_hit() {
        // As Docker 20.10 writes one: several inputs, selectors, no parent for the first layer.
        let text = format!(
            r#"{{"layers":[{{"blob":"{0}","parent":-1,"annotations":{{"mediaType":"x","size":3}}}},{{"blob":"{1}"}}],
            "records":[{{"layers":[{{"layer":0,"createdAt":"2021-01-01T00:00:00Z"}}],"digest":"{2}"}},
            {{"digest":"{3}","inputs":[[{{"link":0,"selector":"{0}"}}],[{{"link":0}}]],"layers":[{{"layer":1}}]}}]}}"#,
            key("a"),
            key("b"),
            key("c"),
            key("d"),
        );
        assert!(read_config(text.as_bytes(), &[layer("a").blob]).unwrap().is_empty());
    }

    #[test]
    fn an_inline_cache_speaks_of_the_images_layers() {
        let mut writer = Writer::default();
        let base = writer.base(&key("base"), &[layer("b1")]);
        writer.step(&key("one"), base, &layer("l1"));
        let mut image = ImageConfig { build_cache: Some(writer.finish_inline().unwrap()), ..ImageConfig::default() };
        image.rootfs.diff_ids = vec![layer("b1").diff_id, layer("l1").diff_id];
        let layers = [layer("b1").blob, layer("l1").blob];
        assert_eq!(read_inline(&image, &layers).unwrap().len(), 1);
        assert!(read_inline(&image, &layers[..1]).is_err());
        assert!(read_inline(&ImageConfig::default(), &[]).unwrap().is_empty());
        image.build_cache = Some("%%%".into());
        assert!(read_inline(&image, &layers).is_err());
    }
}
