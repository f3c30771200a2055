//! Fill a database with repositories and tags, as fast as the schema takes them.
//!
//! `cargo xtask bench registry` measures on what this makes: a registry of a million tags,
//! through the store's own statements, without the hour that pushing them would take. The
//! server must not be running. Ten tags that follow each other name one manifest, pushed at its
//! own time; all manifests share two blobs. The first repository, `bench/big`, gets one tag in
//! ten, the others (`bench/r000001`, …) the same number each.
//!
//! ```text
//! portolan-seed <portolan.db> <registry> <repositories> <tags> <config digest> <layer digest> <size of each>
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portolan_store::Error as StoreError;
use portolan_store::meta::event::{self, Change, EventKind, Stamp, Subject};
use portolan_store::meta::manifest::{self, NewManifest};
use portolan_store::meta::{Meta, RowExt as _, Tx, blob, one, repo, tag};
use portolan_types::{Digest, RepoName, Tag, Timestamp};

/// Tags of one manifest.
const TAGS_EACH: u64 = 10;
/// Tags written in one transaction: few enough for SQLite's cache of pages.
const BATCH_TAGS: u64 = 2_000;
/// So long nothing of it is looked at by the garbage collector.
const GRACE: Duration = Duration::from_secs(7 * 86_400);
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What all manifests share.
#[derive(Clone)]
struct Plan {
    registry: i64,
    repositories: u64,
    tags: u64,
    blobs: [Digest; 2],
    size: u64,
    begin: Timestamp,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [db, registry, repositories, tags, config, layer, size] = &args[..] else {
        return Err(
            "usage: portolan-seed <portolan.db> <registry> <repositories> <tags> <config> <layer> <size>".into()
        );
    };
    let meta = Meta::open_sqlite(Path::new(db))?;
    let key = registry.clone();
    let registry = meta.read_blocking(move |tx| {
        one(tx, "SELECT id FROM registry WHERE key = ?1", &[key.as_str().into()], |row| row.int(0))
    })?;
    let plan = Plan {
        registry: registry.ok_or("there is no such registry")?,
        repositories: repositories.parse()?,
        tags: tags.parse()?,
        blobs: [config.parse()?, layer.parse()?],
        size: size.parse()?,
        begin: Timestamp::now(),
    };
    let mut done = 0;
    while done < plan.tags {
        let (plan, from) = (plan.clone(), done);
        let until = plan.tags.min(from + BATCH_TAGS);
        meta.write_blocking(move |tx| (from..until).step_by(TAGS_EACH as usize).try_for_each(|n| put(tx, &plan, n)))?;
        done = until;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(meta.close());
    Ok(())
}

/// The repository of tag `n`.
fn place(plan: &Plan, n: u64) -> u64 {
    let big = plan.tags / 10;
    let others = (plan.repositories - 1).max(1);
    n.checked_sub(big).map_or(0, |n| 1 + n * others / (plan.tags - big))
}

/// Put the manifest that tag `n` and those after it name.
fn put(tx: &mut dyn Tx, plan: &Plan, n: u64) -> Result<(), StoreError> {
    let repository = place(plan, n);
    let name = match repository {
        0 => "bench/big".to_owned(),
        n => format!("bench/r{n:06}"),
    };
    let broken = |_| StoreError::Corrupt("the plan makes a name that is none".into());
    let name: RepoName = name.parse().map_err(broken)?;
    let tags: Vec<Tag> = (n..n + TAGS_EACH)
        .map(|n| {
            format!("t{n:07}").parse().map_err(|_| StoreError::Corrupt("the plan makes a tag that is none".into()))
        })
        .collect::<Result<_, _>>()?;
    let now = plan.begin.plus(Duration::from_micros(n));
    let hlc = now.0;
    let change = Change {
        registry: plan.registry,
        actor: "sp:seed".to_owned(),
        request: "seed".to_owned(),
        now,
        stamp: Stamp { hlc, region: Arc::from("home") },
    };
    let repo = repo::ensure(tx, &change, &name)?;
    let first = !repo.visible;
    if first {
        for digest in &plan.blobs {
            blob::link(tx, repo.id, digest, plan.size, now, GRACE)?;
        }
    }
    let [config, layer] = &plan.blobs;
    let size = plan.size;
    let bytes = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST_TYPE}\",\
         \"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"{config}\",\"size\":{size}}},\
         \"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"{layer}\",\"size\":{size}}}],\
         \"annotations\":{{\"n\":\"{n}\"}}}}"
    );
    let mut blobs = plan.blobs.to_vec();
    blobs.sort_unstable();
    blobs.dedup();
    let new = NewManifest {
        digest: Digest::of(bytes.as_bytes()),
        media_type: MANIFEST_TYPE.to_owned(),
        image_size: 2 * size,
        config_media_type: Some("application/vnd.oci.image.config.v1+json".to_owned()),
        architecture: Some("amd64".to_owned()),
        os: Some("linux".to_owned()),
        subject: None,
        artifact_type: None,
        annotations: Some(format!("{{\"n\":\"{n}\"}}")),
        blobs,
        manifests: Vec::new(),
        bytes: bytes.into(),
    };
    manifest::put(tx, &change, repo.id, &new)?;
    for tag in &tags {
        tag::put(tx, &change, repo.id, tag, &new.digest)?;
    }
    repo::touch(tx, &change, repo.id, first)?;
    let about = Subject {
        tag: tags.first(),
        digest: Some(&new.digest),
        media_type: Some(MANIFEST_TYPE),
        size: Some(new.bytes.len() as u64),
    };
    event::append(tx, &change, &name, EventKind::ManifestPushed, about)
}
