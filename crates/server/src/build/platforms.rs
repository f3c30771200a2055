//! What a build gives to its registry: one image under its tags, or an index over the images
//! for several platforms and whatever else belongs to them.
//!
//! Everything that a manifest names is in the repository before the manifest, and the index
//! comes last: whoever sees a tag can pull all that is behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use portolan_builder::Built;
use portolan_service::{Ctx, Kind, Registry};
use portolan_tasks::{Job, OutputImage, RunLog};
use portolan_types::oci::{Descriptor, Index};
use portolan_types::{Digest, Reference, RepoName, media_type};

use super::Builds;
use super::attest::Wishes;
use super::run::Trouble;

/// A manifest to store, with what it names.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// The manifest.
    pub(super) bytes: Vec<u8>,
    /// As an index names it: with its platform, with annotations.
    pub(super) descriptor: Descriptor,
    /// Blobs it names, all of them durable.
    pub(super) blobs: Vec<Descriptor>,
}

impl Document {
    /// A manifest of `media_type`.
    pub(super) fn new(bytes: Vec<u8>, media_type: &str, blobs: Vec<Descriptor>) -> Document {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        Document { bytes, descriptor, blobs }
    }

    /// A built image.
    pub(super) fn of(built: &Built) -> Document {
        let mut blobs = vec![built.config.clone()];
        blobs.extend(built.layers.iter().cloned());
        let mut document = Document::new(built.manifest.clone(), &built.media_type, blobs);
        document.descriptor.platform = Some(built.platform.clone());
        document
    }
}

/// All that a build stores.
#[derive(Clone, Debug)]
pub(super) struct Package {
    /// Stored first, by digest: what `top` names if that is an index.
    parts: Vec<Document>,
    /// What the tags name.
    pub(super) top: Document,
    /// Stored last, by digest: what names `top` or a part as its subject.
    pub(super) referrers: Vec<Document>,
}

impl Package {
    /// One image alone is itself; several, or one with `children` that belong into its index
    /// (attestations as docker has them), become an index, with the annotations that were
    /// wished for.
    ///
    /// Errors: a sentence, when the index cannot be written.
    pub(super) fn of(built: &[Built], children: Vec<Document>, wishes: &Wishes) -> Result<Package, String> {
        let mut parts: Vec<Document> = built.iter().map(Document::of).collect();
        let alone = parts.len() + children.len() == 1 && !wishes.always_index;
        for part in parts.iter_mut().filter(|_| !alone) {
            wishes.describe(&mut part.descriptor);
        }
        parts.extend(children);
        if alone && let Some(top) = parts.pop() {
            return Ok(Package { parts, top, referrers: Vec::new() });
        }
        let descriptors: Vec<Descriptor> = parts.iter().map(|part| part.descriptor.clone()).collect();
        let top = index(descriptors, wishes.of_index.clone())?;
        Ok(Package { parts, top, referrers: Vec::new() })
    }
}

/// An index over these manifests. Docker's type as long as everything in it is of docker's
/// types: what BuildKit writes and every client reads.
pub(super) fn index(children: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Result<Document, String> {
    let docker = annotations.is_empty()
        && children.iter().all(|c| c.media_type == media_type::DOCKER_MANIFEST && c.annotations.is_empty());
    let kind = if docker { media_type::DOCKER_LIST } else { media_type::OCI_INDEX };
    let index = Index { schema_version: 2, media_type: kind.to_owned(), manifests: children, annotations };
    let bytes = serde_json::to_vec(&index).map_err(|error| format!("write the index: {error}"))?;
    Ok(Document::new(bytes, kind, Vec::new()))
}

impl Builds {
    /// Give what was built to every repository it is named in, under every tag.
    pub(super) async fn store(
        &self,
        job: &Job,
        registry: &Arc<Registry>,
        ctx: &Ctx,
        package: &Package,
        log: &RunLog,
    ) -> Result<Vec<OutputImage>, Trouble> {
        let service = &self.shared.service;
        if service.registry_by_id(registry.id).is_none() {
            return Err(Trouble::Server("the registry was deleted during this run".into()));
        }
        let refused = |name: &dyn std::fmt::Display, e: portolan_service::Error| {
            let why = format!("cannot store {name}: {}", e.message);
            match e.kind {
                Kind::Internal | Kind::Unavailable | Kind::Full => {
                    tracing::error!(error = %e, cause = ?e.source, run = %job.id, "store a built image");
                    Trouble::Server(why)
                }
                _ => Trouble::Order(why),
            }
        };
        let put = async |repo: &RepoName, reference: Reference, document: &Document| {
            let bytes = Bytes::from(document.bytes.clone());
            let kind = &document.descriptor.media_type;
            service.put_manifest(ctx, registry, repo, &reference, bytes, Some(kind)).await
        };
        let by_digest = |document: &Document| Reference::Digest(document.descriptor.digest);
        let documents = || package.parts.iter().chain([&package.top]).chain(&package.referrers);
        let mut given: Vec<&RepoName> = Vec::new();
        let mut stored = Vec::new();
        for name in &job.build.images {
            let fresh = !given.contains(&&name.repo);
            if fresh {
                let mut blobs: Vec<Descriptor> = Vec::new();
                for blob in documents().flat_map(|d| &d.blobs) {
                    if !blobs.iter().any(|b| b.digest == blob.digest) {
                        blobs.push(blob.clone());
                    }
                }
                let done = service.link_build_blobs(ctx, registry, &name.repo, &blobs).await;
                done.map_err(|e| refused(&name.repo, e))?;
                for part in &package.parts {
                    put(&name.repo, by_digest(part), part).await.map_err(|e| refused(name, e))?;
                    if let Some(platform) = part.descriptor.platform.as_ref().filter(|p| p.os != "unknown") {
                        log.note(&format!("Stored {platform}: {}@{}", name.repo, part.descriptor.digest));
                    }
                }
                given.push(&name.repo);
            }
            let done = put(&name.repo, Reference::Tag(name.tag.clone()), &package.top).await;
            let done = done.map_err(|e| refused(name, e))?;
            log.note(&format!("Stored image: {}/{name} digest: {}", registry.login_server, done.digest));
            stored.push(OutputImage { repo: name.repo.clone(), tag: Some(name.tag.clone()), digest: done.digest });
            if fresh {
                for referrer in &package.referrers {
                    put(&name.repo, by_digest(referrer), referrer).await.map_err(|e| refused(name, e))?;
                }
            }
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(platform: &str, kind: &str) -> Built {
        let manifest = format!("manifest for {platform}").into_bytes();
        Built {
            platform: platform.parse().unwrap(),
            digest: Digest::of(&manifest),
            manifest,
            media_type: kind.to_owned(),
            config: Descriptor::new(media_type::DOCKER_CONFIG, Digest::of(b"config"), 6),
            layers: vec![Descriptor::new(media_type::DOCKER_LAYER_GZIP, Digest::of(b"layer"), 5)],
            base_images: Vec::new(),
            cache: None,
            packages: None,
        }
    }

    #[test]
    fn one_image_is_itself_and_several_are_an_index() {
        let amd = built("linux/amd64", media_type::DOCKER_MANIFEST);
        let arm = built("linux/arm/v7", media_type::DOCKER_MANIFEST);
        let alone = Package::of(std::slice::from_ref(&amd), Vec::new(), &Wishes::default()).unwrap();
        assert!(alone.parts.is_empty());
        assert_eq!((alone.top.descriptor.digest, alone.top.blobs.len()), (amd.digest, 2));

        let both = Package::of(&[amd.clone(), arm], Vec::new(), &Wishes::default()).unwrap();
        assert_eq!(both.parts.len(), 2);
        let index: serde_json::Value = serde_json::from_slice(&both.top.bytes).unwrap();
        assert_eq!(index["mediaType"], media_type::DOCKER_LIST);
        assert_eq!(index["schemaVersion"], 2);
        let second = &index["manifests"][1];
        let platform = serde_json::json!({"os": "linux", "architecture": "arm", "variant": "v7"});
        assert_eq!((&second["platform"], &second["size"]), (&platform, &serde_json::json!(25)));

        // One that is asked to be an index all the same.
        let mut always = Wishes::default();
        always.always_index = true;
        let one = Package::of(std::slice::from_ref(&amd), Vec::new(), &always).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&one.top.bytes).unwrap();
        assert_eq!((&index["mediaType"], one.parts.len()), (&serde_json::json!(media_type::DOCKER_LIST), 1));

        let mut more = Document::new(b"{}".to_vec(), media_type::OCI_MANIFEST, Vec::new());
        more.descriptor.annotations.insert("a".into(), "b".into());
        let with = Package::of(&[amd], vec![more], &Wishes::default()).unwrap();
        assert_eq!(with.top.descriptor.media_type, media_type::OCI_INDEX);
    }
}
