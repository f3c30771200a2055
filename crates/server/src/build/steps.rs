//! The engine's [`StepCache`]: records of steps done before, in the database, and leases
//! that keep the layers they name from being collected.
//!
//! A record is of the registry whose build made it: [`RegistrySteps`] is what a build sees, and
//! two registries that do the very same step have two records. What a step could see may have
//! been secret, and that a step was done before tells of it.
//!
//! The engine reads records on its way to an answer, so nothing here makes it wait for the
//! disk: a record put is visible at once from memory and written by a task of its own, in
//! batches; that a record was used is noted in memory and written with the next batch.
//! A record that is lost this way costs a step done again.
//!
//! A record and its leases last [`KEEP`] from their last use, or until the cache is larger
//! than it may be, oldest use first. The lease is taken under `step:<key>` on every digest
//! in the record that names content of ours (records are JSON, digests stand in them as
//! text).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_builder::ports::StepCache;
use portolan_service::{Error, Service};
use portolan_store::meta::{Meta, step};
use portolan_types::{Digest, Timestamp};
use tokio::sync::mpsc;

/// How long a record is kept that nobody uses.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Records of the whole cache.
const RECORDS_MAX: u64 = 200_000;
/// One record; a larger one is not kept.
const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Digests one record may hold on to.
const DIGESTS_MAX: usize = 1_000;
/// Records waiting to be written; more are dropped.
const WAITING_MAX: usize = 4_096;
/// How often uses are written down and old records are looked for.
const ROUND: Duration = Duration::from_secs(60);
/// Records evicted in one round.
const EVICTED_MAX: usize = 2_000;

/// Step records of one server.
pub(super) struct StoreSteps {
    meta: Meta,
    /// Put, and not yet in the database.
    waiting: Mutex<HashMap<Digest, Waiting>>,
    used: Mutex<HashSet<Digest>>,
    put: mpsc::Sender<Digest>,
}

/// A record on its way into the database, and whose it is.
#[derive(Clone)]
struct Waiting {
    registry: i64,
    record: Arc<[u8]>,
}

/// The step records of one registry.
pub(super) struct RegistrySteps {
    steps: Arc<StoreSteps>,
    registry: i64,
    /// Who shares them: the registry, or one of its callers.
    tenant: String,
}

impl RegistrySteps {
    pub(super) fn new(steps: Arc<StoreSteps>, registry: i64, tenant: String) -> RegistrySteps {
        RegistrySteps { steps, registry, tenant }
    }

    /// The key in the whole cache.
    fn key(&self, key: &Digest) -> Digest {
        Digest::of(format!("steps of {} {key}", self.tenant).as_bytes())
    }
}

impl StepCache for RegistrySteps {
    fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        self.steps.get(&self.key(key))
    }

    fn put(&self, key: &Digest, record: &[u8]) {
        self.steps.put(self.registry, &self.key(key), record);
    }
}

impl StoreSteps {
    /// Open the cache; its writer ends with the last clone of the answer. `bytes_max`: the
    /// content that records may keep alive.
    pub(super) fn open(service: &Arc<Service>, bytes_max: u64) -> Arc<StoreSteps> {
        let (put, queue) = mpsc::channel(WAITING_MAX);
        let steps =
            Arc::new(StoreSteps { meta: service.meta.clone(), waiting: Mutex::default(), used: Mutex::default(), put });
        tokio::spawn(write_behind(Arc::downgrade(&steps), Arc::downgrade(service), queue, bytes_max));
        steps
    }

    /// Write one waiting record down, and hold on to what it names.
    async fn write(&self, service: &Service, key: Digest, now: Timestamp) -> Result<(), Error> {
        let Some(Waiting { registry, record }) = self.waiting.lock().get(&key).cloned() else { return Ok(()) };
        let mut held = Vec::new();
        let mut bytes = 0;
        for digest in digests(&record) {
            if let Some(size) = service.blobs.size(&digest).await? {
                bytes += size;
                held.push(digest);
            }
        }
        service.hold_blobs(&holder(&key), &held, now.plus(KEEP)).await?;
        let row = record.clone();
        self.meta.write(move |tx| step::put(tx, registry, &key, &row, bytes, now).map_err(Error::from)).await?;
        let mut waiting = self.waiting.lock();
        if waiting.get(&key).is_some_and(|newest| Arc::ptr_eq(&newest.record, &record)) {
            waiting.remove(&key);
        }
        Ok(())
    }

    /// Write down what was used, and let go of what is old or too much.
    async fn round(&self, service: &Service, bytes_max: u64, now: Timestamp) -> Result<(), Error> {
        let used: Vec<Digest> = std::mem::take(&mut *self.used.lock()).into_iter().collect();
        for key in &used {
            let record = self.meta.read({
                let key = *key;
                move |tx| step::get(tx, &key).map_err(Error::from)
            });
            if let Some(record) = record.await? {
                service.hold_blobs(&holder(key), &digests(&record), now.plus(KEEP)).await?;
            }
        }
        self.meta.write(move |tx| step::touch(tx, &used, now).map_err(Error::from)).await?;
        let orphans = self.meta.read(|tx| step::orphans(tx, EVICTED_MAX).map_err(Error::from)).await?;
        for key in orphans {
            self.forget(service, key, now).await?;
        }
        let (mut records, mut bytes) = self.meta.read(|tx| step::totals(tx).map_err(Error::from)).await?;
        let oldest = self.meta.read(|tx| step::oldest(tx, EVICTED_MAX).map_err(Error::from)).await?;
        for old in oldest {
            let unused = now.since(old.last_used) > KEEP;
            if !unused && records <= RECORDS_MAX && bytes <= bytes_max {
                break;
            }
            self.forget(service, old.key, now).await?;
            records = records.saturating_sub(1);
            bytes = bytes.saturating_sub(old.bytes);
        }
        Ok(())
    }

    async fn forget(&self, service: &Service, key: Digest, now: Timestamp) -> Result<(), Error> {
        self.meta.write(move |tx| step::delete(tx, &key).map_err(Error::from)).await?;
        service.release_blobs(&holder(&key), now).await
    }

    fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        if let Some(waiting) = self.waiting.lock().get(key) {
            return Some(waiting.record.to_vec());
        }
        let wanted = *key;
        let found = self.meta.read_blocking(move |tx| step::get(tx, &wanted));
        match found {
            Ok(Some(record)) => {
                self.used.lock().insert(*key);
                Some(record)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "read a step record");
                None
            }
        }
    }

    fn put(&self, registry: i64, key: &Digest, record: &[u8]) {
        if record.len() > RECORD_BYTES_MAX {
            tracing::warn!(bytes = record.len(), "a step record is too large to keep");
            return;
        }
        self.waiting.lock().insert(*key, Waiting { registry, record: record.into() });
        if self.put.try_send(*key).is_err() {
            self.waiting.lock().remove(key);
            tracing::warn!("too many step records are waiting to be written; one is dropped");
        }
    }
}

async fn write_behind(
    steps: Weak<StoreSteps>,
    service: Weak<Service>,
    mut queue: mpsc::Receiver<Digest>,
    bytes_max: u64,
) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            key = queue.recv() => match key {
                Some(key) => Some(key),
                None => return,
            },
            _ = rounds.tick() => None,
        };
        let (Some(steps), Some(service)) = (steps.upgrade(), service.upgrade()) else { return };
        let now = Timestamp::now();
        let done = match next {
            Some(key) => {
                let done = steps.write(&service, key, now).await;
                if done.is_err() {
                    steps.waiting.lock().remove(&key);
                }
                done
            }
            None => steps.round(&service, bytes_max, now).await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, cause = error.source.as_deref().map(tracing::field::display), "keep step records");
        }
    }
}

fn holder(key: &Digest) -> String {
    format!("step:{}", key.hex())
}

/// Every digest in a record, each once.
pub(super) fn digests(record: &[u8]) -> Vec<Digest> {
    fn walk(value: &serde_json::Value, found: &mut Vec<Digest>) {
        match value {
            serde_json::Value::String(text) => {
                if let Ok(digest) = text.parse()
                    && found.len() < DIGESTS_MAX
                    && !found.contains(&digest)
                {
                    found.push(digest);
                }
            }
            serde_json::Value::Array(values) => values.iter().for_each(|v| walk(v, found)),
            serde_json::Value::Object(members) => members.values().for_each(|v| walk(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_slice(record) {
        walk(&value, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    use portolan_auth::{Authority, MasterKey};
    use portolan_service::ServiceConfig;
    use portolan_store::blob::{Blobs, FsBlobs};

    async fn service(dir: &std::path::Path) -> Arc<Service> {
        let meta = Meta::open_sqlite(&dir.join("portolan.db")).unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(FsBlobs::open(dir).unwrap());
        let authority = Arc::new(Authority::new(MasterKey::new(&[7; 32])));
        Arc::new(Service::open(meta, blobs, authority, ServiceConfig::default()).await.unwrap())
    }

    async fn get(steps: &Arc<StoreSteps>, key: Digest) -> Option<Vec<u8>> {
        let steps = steps.clone();
        tokio::task::spawn_blocking(move || steps.get(&key)).await.unwrap()
    }

    #[tokio::test]
    async fn a_record_holds_its_layers_until_it_is_evicted() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path()).await;
        // Not `open`: the test turns the crank itself.
        let (put, mut queue) = mpsc::channel(8);
        let steps =
            Arc::new(StoreSteps { meta: service.meta.clone(), waiting: Mutex::default(), used: Mutex::default(), put });
        let layer = Digest::of(b"layer");
        let body = bytes::Bytes::from_static(b"layer");
        let body = Box::pin(futures_util::stream::iter([Ok(body)]));
        service.blobs.put(&layer, body, 100).await.unwrap();
        let record = serde_json::json!({"layer": {"digest": layer}, "diffId": Digest::of(b"tar")}).to_string();
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        // Of no registry, so of none that may be gone.
        let registry = 0;
        steps.put(registry, &old, record.as_bytes());
        steps.put(registry, &new, record.as_bytes());
        assert_eq!(get(&steps, old).await.as_deref(), Some(record.as_bytes()), "visible before it is written");

        let start = Timestamp::now();
        for key in [old, new] {
            assert_eq!(queue.recv().await, Some(key));
            steps.write(&service, key, start).await.unwrap();
        }
        assert!(steps.waiting.lock().is_empty());
        let size = async || service.blobs.size(&layer).await.unwrap();
        let collect = async |now: Timestamp| service.collect_garbage(now).await.unwrap();

        // Used after some days: the one outlives the other, and the layer with it.
        let day = |n: u64| start.plus(Duration::from_secs(n * 24 * 3600));
        assert!(get(&steps, new).await.is_some());
        steps.round(&service, u64::MAX, day(5)).await.unwrap();
        steps.round(&service, u64::MAX, day(8)).await.unwrap();
        assert!(get(&steps, old).await.is_none() && get(&steps, new).await.is_some());
        collect(day(8)).await;
        assert_eq!(size().await, Some(5));

        // Over the limit: it goes, and what it held goes with the next collection.
        steps.round(&service, 4, day(9)).await.unwrap();
        assert!(get(&steps, new).await.is_none());
        collect(day(9)).await;
        assert_eq!(size().await, None);
    }

    #[tokio::test]
    async fn records_are_apart_by_tenant_and_go_with_their_registry() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path()).await;
        let (put, mut queue) = mpsc::channel(8);
        let steps =
            Arc::new(StoreSteps { meta: service.meta.clone(), waiting: Mutex::default(), used: Mutex::default(), put });
        let of = |registry, tenant: &str| RegistrySteps::new(steps.clone(), registry, tenant.to_owned());
        let key = Digest::of(b"step");
        of(7, "7").put(&key, b"{}");
        let found = async |steps: RegistrySteps| tokio::task::spawn_blocking(move || steps.get(&key)).await.unwrap();
        assert!(found(of(7, "7")).await.is_some());
        assert!(found(of(8, "8")).await.is_none() && found(of(7, "7-somebody")).await.is_none());

        let written = queue.recv().await.unwrap();
        let now = Timestamp::now();
        steps.write(&service, written, now).await.unwrap();
        assert!(found(of(7, "7")).await.is_some() && found(of(8, "8")).await.is_none());
        // There is no registry 7.
        steps.round(&service, u64::MAX, now).await.unwrap();
        assert!(found(of(7, "7")).await.is_none());
    }

    #[test]
    fn digests_are_found_wherever_they_stand() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let record = serde_json::json!({"layers": [{"digest": a, "size": 3}], "other": {"x": [b, a, "sha256:no"]}});
        assert_eq!(digests(record.to_string().as_bytes()), [a, b]);
        assert!(digests(b"not json").is_empty());
    }
}
