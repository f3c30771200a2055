//! Stores that older versions wrote, opened by this one. See `tests/stores/README.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use portolan_store::blob::{FsBlobs, Ingest as _, Reader as _, Uploads as _};
use portolan_store::meta::cache_rule::{self, CacheRule};
use portolan_store::meta::credential::{self, CredentialKind, CredentialRow};
use portolan_store::meta::event::{self, Change, EventKind, Stamp, Subject};
use portolan_store::meta::group::{self, GroupRow};
use portolan_store::meta::manifest::{self, NewManifest};
use portolan_store::meta::object::{self, Object};
use portolan_store::meta::principal::{self, PrincipalRow};
use portolan_store::meta::registry::{self, RegistryRow};
use portolan_store::meta::repo::{self, Attributes};
use portolan_store::meta::role::{self, AssignmentRow};
use portolan_store::meta::run::{self, Ending, RunFilter, RunImage, RunRow};
use portolan_store::meta::schema::MIGRATIONS;
use portolan_store::meta::{Meta, Tx, blob, gc, key, setting, step, tag, upload};
use portolan_store::testing::body;
use portolan_store::{Error, Result};
use portolan_types::{Digest, Platform, RepoName, ResourceId, RunId, Tag, Timestamp, UploadId};
use uuid::Uuid;

const T: Timestamp = Timestamp(1_795_435_200_000_000);
const GRACE: Duration = Duration::from_secs(60);
const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;
const LAYER: &[u8] = b"what the layer holds";
const PART: &[u8] = b"the first part";
const REST: &[u8] = b" and the rest";
const OWNER: &str = "admin:keeps";

fn stores() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores")
}

fn newest() -> i64 {
    MIGRATIONS.last().unwrap().number
}

fn name() -> RepoName {
    "team/app".parse().unwrap()
}

fn v1() -> Tag {
    "v1".parse().unwrap()
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn open_upload() -> UploadId {
    UploadId(id(9))
}

fn scope() -> ResourceId {
    ResourceId::registry(&id(1), "rg", "keeps")
}

fn change(hlc: i64) -> Change {
    let stamp = Stamp { hlc, region: Arc::from("here") };
    Change { registry: 1, actor: OWNER.into(), request: "request".into(), now: T, stamp }
}

/// One row of everything, in the words of today's code.
fn fill(tx: &mut dyn Tx) -> Result<()> {
    setting::put(tx, "tenant", "somebody")?;
    let group =
        GroupRow { name: "rg".parse().unwrap(), location: "local".into(), tags: "{}".into(), created: T, updated: T };
    group::put(tx, &group)?;
    let registry = RegistryRow {
        id: 0,
        name: "keeps".parse().unwrap(),
        group: group.name,
        location: "local".into(),
        sku: "Premium".into(),
        is_default: true,
        admin_enabled: true,
        admin_generations: [2, 1],
        tags: r#"{"a":"b"}"#.into(),
        properties: "{}".into(),
        created: T,
        updated: T,
    };
    assert_eq!(registry::insert(tx, &registry)?, 1);
    let owner = PrincipalRow {
        object_id: id(2),
        app_id: Some(id(3)),
        kind: "ServicePrincipal".into(),
        display_name: "owner".into(),
        enabled: true,
        valid_from: T,
        created: T,
        user_name: None,
        properties: "{}".into(),
    };
    principal::insert(tx, &owner)?;
    let secret = CredentialRow {
        id: id(4),
        owner: id(2),
        kind: CredentialKind::Password,
        name: Some("first".into()),
        value: vec![1, 2, 3],
        hint: None,
        created: T,
        starts: None,
        expires: None,
    };
    credential::insert(tx, &secret)?;
    let assignment = AssignmentRow {
        id: id(5),
        scope: scope(),
        principal: id(2),
        role: id(6),
        description: None,
        condition: None,
        created: T,
        created_by: None,
        updated: T,
        updated_by: None,
    };
    role::insert(tx, &assignment)?;
    key::insert(tx, "key-1", &[4, 5, 6], T)?;

    let repo = repo::ensure(tx, &change(1), &name())?.id;
    let layer = Digest::of(LAYER);
    blob::link(tx, repo, &layer, LAYER.len() as u64, T, GRACE)?;
    let image = NewManifest {
        digest: Digest::of(MANIFEST),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: Bytes::from_static(MANIFEST),
        image_size: 20,
        config_media_type: None,
        architecture: Some("amd64".into()),
        os: Some("linux".into()),
        subject: None,
        artifact_type: None,
        annotations: None,
        blobs: vec![layer],
        manifests: Vec::new(),
    };
    manifest::put(tx, &change(2), repo, &image)?;
    tag::put(tx, &change(3), repo, &v1(), &image.digest)?;
    tag::set_attributes(tx, &change(4), repo, &v1(), Attributes { write: false, ..Attributes::ALL })?;
    let about = Subject { tag: Some(&v1()), digest: Some(&image.digest), ..Subject::default() };
    event::append(tx, &change(5), &name(), EventKind::TagSet, about)?;
    upload::insert(tx, open_upload(), repo, OWNER, T)?;
    gc::hold(tx, "run:cb1", &layer, T.plus(GRACE))?;

    let seq = run::next_seq(tx, 1)?;
    let run = RunRow {
        registry: 1,
        seq,
        id: RunId::nth(seq),
        status: "Queued".into(),
        kind: "QuickBuild".into(),
        created: T,
        started: None,
        finished: None,
        updated: T,
        platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None },
        cpu: 2,
        timeout_secs: 3_600,
        archived: false,
        task: None,
        spec: "{}".into(),
        context: None,
        error: None,
        cancel: false,
        lease_owner: None,
    };
    run::insert(tx, &run)?;
    let images = [RunImage { repo: name(), tag: Some(v1()), digest: image.digest }];
    let end = Ending { status: "Succeeded", error: None, spec: "{}", images: &images, now: T };
    assert!(run::finish(tx, 1, seq, None, &end)?);
    let log = Object { key: "logs/1".into(), kind: "log".into(), registry: 1, size: Some(3), expires: None };
    object::insert(tx, &log, T)?;
    object::put_block(tx, "logs/1", "block", 3)?;
    step::put(tx, 1, &Digest::of(b"step"), b"record", 7, T)?;
    cache_rule::put(tx, 1, &rule())?;
    Ok(())
}

fn rule() -> CacheRule {
    CacheRule {
        name: "Hub".into(),
        source: "docker.io/library/*".into(),
        target: "*".into(),
        credential: None,
        created: T,
    }
}

/// Find what [`fill`] wrote.
fn find(tx: &mut dyn Tx) -> Result<()> {
    assert_eq!(setting::get(tx, "tenant")?.as_deref(), Some("somebody"));
    assert_eq!(group::get(tx, &"RG".parse().unwrap())?.unwrap().location, "local");
    let registry = registry::get(tx, &"keeps".parse().unwrap())?.unwrap();
    assert_eq!((registry.id, registry.sku.as_str(), registry.is_default), (1, "Premium", true));
    assert_eq!((registry.admin_generations, registry.tags.as_str()), ([2, 1], r#"{"a":"b"}"#));
    assert_eq!(principal::list(tx)?[0].app_id, Some(id(3)));
    assert_eq!(credential::of(tx, id(2))?[0].value, [1, 2, 3]);
    let assignment = &role::list(tx)?[0];
    assert_eq!((assignment.scope.key(), assignment.role), (scope().key(), id(6)));
    assert_eq!(key::list(tx)?[0].sealed, [4, 5, 6]);

    let repo = repo::find(tx, 1, &name())?.unwrap();
    assert!(repo.visible);
    let (repo, layer, image) = (repo.id, Digest::of(LAYER), Digest::of(MANIFEST));
    assert_eq!(blob::size_in(tx, repo, &layer)?, Some(LAYER.len() as u64));
    let (bytes, media_type, _) = manifest::content(tx, repo, &image)?.unwrap();
    assert_eq!((bytes.as_slice(), media_type.as_str()), (MANIFEST, "application/vnd.oci.image.manifest.v1+json"));
    assert_eq!(manifest::info(tx, repo, &image)?.unwrap().architecture.as_deref(), Some("amd64"));
    assert!(manifest::needs_blob(tx, repo, &layer)?);
    let tagged = tag::find(tx, repo, &v1())?.unwrap();
    assert_eq!((tagged.digest, tagged.created, tagged.attributes.write), (image, T, false));
    assert!(event::after(tx, 1, 0, 10)?.iter().any(|e| e.kind == "tag.set"));
    assert_eq!(event::last_hlc(tx)?, 5);
    assert_eq!(upload::find(tx, 1, &name(), open_upload(), OWNER)?.unwrap().repo, repo);
    assert_eq!(gc::held(tx, "run:cb1", T)?, [layer]);
    assert!(gc::due(tx, T.plus(GRACE), 10)?.contains(&gc::Review::Link { repo, digest: layer }));

    let runs = run::list(tx, 1, &RunFilter::default(), 10)?;
    assert_eq!((runs.len(), runs[0].status.as_str(), runs[0].finished), (1, "Succeeded", Some(T)));
    assert_eq!(run::images(tx, 1, runs[0].seq)?[0].digest, image);
    assert_eq!(object::get(tx, "logs/1")?.unwrap().size, Some(3));
    assert_eq!(object::blocks(tx, "logs/1", 10)?, [("block".to_owned(), 3)]);
    assert_eq!(step::get(tx, &Digest::of(b"step"))?.as_deref(), Some(&b"record"[..]));
    assert_eq!(cache_rule::get(tx, 1, "hub")?, Some(rule()));
    Ok(())
}

/// Go on as the old version would have: nothing it gave out is given out again.
fn go_on(tx: &mut dyn Tx) -> Result<()> {
    let repo = repo::find(tx, 1, &name())?.unwrap().id;
    tag::put(tx, &change(6), repo, &"v2".parse().unwrap(), &Digest::of(MANIFEST))?;
    event::append(tx, &change(6), &name(), EventKind::TagSet, Subject::default())?;
    assert_ne!(repo::ensure(tx, &change(7), &"other".parse().unwrap())?.id, repo);
    assert_eq!(run::next_seq(tx, 1)?, 2);
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn stores_of_older_versions_open_and_have_everything() {
    let mut seen = Vec::new();
    for entry in fs::read_dir(stores()).unwrap().map(|e| e.unwrap()) {
        let Some(number) = entry.file_name().to_str().unwrap().strip_prefix("schema-").map(str::to_owned) else {
            continue;
        };
        seen.push(number.parse::<i64>().unwrap());
        let folder = tempfile::tempdir().unwrap();
        copy(&entry.path(), folder.path());
        let database = folder.path().join("meta.db");

        let meta = Meta::open_sqlite(&database).unwrap();
        meta.read(|tx| find(tx)).await.unwrap();
        meta.write(|tx| go_on(tx)).await.unwrap();
        meta.close().await;
        let meta = Meta::open_sqlite(&database).unwrap();
        let both = meta.read(|tx| {
            let repo = repo::find(tx, 1, &name())?.unwrap().id;
            tag::of_manifest(tx, repo, &Digest::of(MANIFEST))
        });
        assert_eq!(both.await.map_err(|e: Error| e).unwrap().len(), 2);
        meta.close().await;

        let blobs = FsBlobs::open(folder.path()).unwrap();
        let mut layer = blobs.read(&Digest::of(LAYER), 0..LAYER.len() as u64).await.unwrap();
        assert_eq!(layer.next().await.unwrap().unwrap(), LAYER);
        let whole = Digest::of(&[PART, REST].concat());
        let offset = Some(PART.len() as u64);
        blobs.append(open_upload(), offset, body(&Bytes::from_static(REST), 5), 1_000).await.unwrap();
        blobs.finish(open_upload(), &whole).await.unwrap();
        assert_eq!(blobs.size(&whole).await.unwrap(), Some((PART.len() + REST.len()) as u64));
    }
    assert!(seen.contains(&newest()), "write a store of this schema: see tests/stores/README.md");
}

/// Writes the store of the newest schema step; see `tests/stores/README.md`.
#[tokio::test]
#[ignore = "a tool, not a test"]
async fn write_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("meta.db");
    let meta = Meta::open_sqlite(&database).unwrap();
    meta.write(|tx| fill(tx)).await.unwrap();
    meta.close().await;
    let to = stores().join(format!("schema-{}", newest()));
    assert!(!to.exists(), "{} is there: it never changes", to.display());
    fs::create_dir_all(&to).unwrap();
    // One file, with small pages: most tables have one row.
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA page_size = 512;").unwrap();
    connection.execute("VACUUM INTO ?1", [to.join("meta.db").to_str().unwrap()]).unwrap();

    let blobs = FsBlobs::open(folder.path()).unwrap();
    blobs.put(&Digest::of(LAYER), body(&Bytes::from_static(LAYER), 10), 1_000).await.unwrap();
    blobs.create(open_upload()).await.unwrap();
    blobs.append(open_upload(), Some(0), body(&Bytes::from_static(PART), 5), 1_000).await.unwrap();
    drop(blobs);
    for part in ["blobs", "uploads"] {
        copy_files(&folder.path().join(part), &to.join(part));
    }
}

/// Like [`copy`], without the empty folders, which do not survive in git anyway.
fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            fs::create_dir_all(to).unwrap();
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
