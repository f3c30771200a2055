//! What a build says of its image: provenance, a list of packages, annotations.
//!
//! An attestation is an in-toto statement (v1) about one image, in a blob of its own. It is
//! attached in both ways that clients know:
//!
//! * as docker has it: a manifest of platform `unknown/unknown` beside the image in the index
//!   that the tag names, with `vnd.docker.reference.digest` saying which image it is about
//!   (`docker buildx imagetools` reads these). So an image with attestations has an index;
//! * as referrers (distribution-spec 1.1): one artifact for each attestation whose `subject`
//!   is the image, and one whose subject is the index, because that is what a tag leads to
//!   (`oras discover`, `az acr manifest list-referrers`, cosign).
//!
//! With SOURCE_DATE_EPOCH nothing in an attestation changes from one build to the next: it
//! tells no time of its own and no run.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use portolan_builder::{Annotation, Attest, Built, sbom};
use portolan_service::Registry;
use portolan_tasks::{BuildOptions, Job};
use portolan_types::oci::Descriptor;
use portolan_types::{Digest, ImageRef, Platform, Timestamp, media_type};
use serde_json::{Value, json};

use super::Shared;
use super::cache::{fields, switch};
use super::platforms::Document;
use super::run::Trouble;

/// What a statement says what it is (in-toto, Statement v1).
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";
/// How these builds are described: docs/reference/attestations.md.
const BUILD_TYPE: &str = "urn:portolan:build:dockerfile:v1";
/// On a layer: which kind of statement it is.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// The blob that an artifact without a configuration names (image-spec, "empty descriptor").
const EMPTY: &[u8] = b"{}";

/// What an order asks for, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wishes {
    provenance: Option<Provenance>,
    sbom: bool,
    /// For manifests.
    pub(super) annotations: Vec<Annotation>,
    /// For the index.
    pub(super) of_index: BTreeMap<String, String>,
    /// For what the index says of an image.
    of_descriptors: Vec<Annotation>,
    /// An index also where one image would do (`BUILDKIT_MULTI_PLATFORM`).
    pub(super) always_index: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Provenance {
    max: bool,
    builder_id: Option<String>,
}

impl Wishes {
    /// Read what an order says. The error is a sentence that names the option.
    pub(super) fn read(options: &BuildOptions) -> Result<Wishes, String> {
        let mut wishes = Wishes::default();
        if let Some(text) = &options.provenance {
            wishes.provenance = provenance(text).map_err(|why| format!("--provenance: {why}"))?;
        }
        if let Some(text) = &options.sbom {
            wishes.sbom = sbom_wanted(text).map_err(|why| format!("--sbom: {why}"))?;
        }
        for text in &options.annotations {
            wishes.annotation(text).map_err(|why| format!("--annotation: {why}"))?;
        }
        let index = options.platforms.len() > 1 || wishes.attests();
        let of_index = !wishes.of_index.is_empty() || !wishes.of_descriptors.is_empty();
        if of_index && !index {
            return Err("--annotation: this build makes no index; one for several platforms or with attestations does"
                .to_owned());
        }
        Ok(wishes)
    }

    /// Whether there is anything to attach.
    pub(super) fn attests(&self) -> bool {
        self.provenance.is_some() || self.sbom
    }

    /// What the engine is to find out.
    pub(super) fn attest(&self) -> Attest {
        Attest { sbom: self.sbom }
    }

    /// `[type[,type…]:]key=value`, a type with its platform in brackets.
    fn annotation(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text.split_once('=').ok_or("write key=value")?;
        let (types, key) = key.split_once(':').unwrap_or(("manifest", key));
        if key.is_empty() || key.chars().any(char::is_whitespace) {
            return Err("the key is empty or has a space in it".to_owned());
        }
        for kind in types.split(',') {
            let (kind, platform) = match kind.split_once('[').map(|(kind, rest)| (kind, rest.strip_suffix(']'))) {
                None => (kind, None),
                Some((kind, Some(platform))) => {
                    let platform: Platform =
                        platform.parse().map_err(|_| "what is in brackets is no platform".to_owned())?;
                    (kind, Some(platform))
                }
                Some((_, None)) => return Err("a bracket is not closed".to_owned()),
            };
            let annotation = Annotation { platform, key: key.to_owned(), value: value.to_owned() };
            match kind {
                "manifest" => self.annotations.push(annotation),
                "manifest-descriptor" => self.of_descriptors.push(annotation),
                "index" => {
                    self.of_index.insert(annotation.key, annotation.value);
                }
                "index-descriptor" => {
                    return Err("a registry has no place for annotations of an index's descriptor".to_owned());
                }
                _ => return Err("before the colon stands none of manifest, index, manifest-descriptor".to_owned()),
            }
        }
        Ok(())
    }

    /// Annotate manifests that are annotated, or stand in an index, with where their sources
    /// came from.
    pub(super) fn tell_origin(&mut self, labels: &[(String, String)]) {
        if !self.attests() && self.annotations.is_empty() {
            return;
        }
        for (key, value) in labels {
            if !self.annotations.iter().any(|annotation| annotation.key == *key) {
                self.annotations.push(Annotation { platform: None, key: key.clone(), value: value.clone() });
            }
        }
    }

    /// Put on what the index says of an image what was asked for.
    pub(super) fn describe(&self, descriptor: &mut Descriptor) {
        for annotation in &self.of_descriptors {
            if annotation.platform.is_none() || annotation.platform == descriptor.platform {
                descriptor.annotations.insert(annotation.key.clone(), annotation.value.clone());
            }
        }
    }
}

fn provenance(text: &str) -> Result<Option<Provenance>, String> {
    let mut wanted = Provenance::default();
    for (key, value) in fields(text) {
        match key.as_str() {
            "true" | "1" | "false" | "0" if value.is_empty() => {
                if !switch("it", &key)? {
                    return Ok(None);
                }
            }
            "type" if value == "provenance" => {}
            "disabled" => {
                if switch(&key, &value)? {
                    return Ok(None);
                }
            }
            "mode" => {
                wanted.max = match value.as_str() {
                    "min" => false,
                    "max" => true,
                    _ => return Err("mode is min or max".to_owned()),
                }
            }
            "builder-id" => wanted.builder_id = Some(value),
            "version" if value == "v1" => {}
            "version" => return Err("of versions, v1 can be made".to_owned()),
            other => return Err(format!("there is no field {other:?}; mode, builder-id, version and disabled are")),
        }
    }
    Ok(Some(wanted))
}

fn sbom_wanted(text: &str) -> Result<bool, String> {
    let mut wanted = true;
    for (key, value) in fields(text) {
        match key.as_str() {
            "true" | "1" | "false" | "0" if value.is_empty() => wanted = switch("it", &key)?,
            "type" if value == "sbom" => {}
            "disabled" => wanted = !switch(&key, &value)?,
            "generator" => {
                return Err("packages are listed by the server itself; it runs no other generator".to_owned());
            }
            other => return Err(format!("there is no field {other:?}")),
        }
    }
    Ok(wanted)
}

/// The labels that tell where an image's sources came from (image-spec, "Pre-Defined Annotation
/// Keys").
pub(super) fn origin_labels(origin: Option<&(String, Option<String>)>) -> Vec<(String, String)> {
    let Some((url, revision)) = origin else { return Vec::new() };
    let mut labels = vec![("org.opencontainers.image.source".to_owned(), url.clone())];
    labels.extend(revision.iter().map(|it| ("org.opencontainers.image.revision".to_owned(), it.clone())));
    labels
}

/// What a provenance tells that only the run knows.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Where the context came from, without anything secret, and its revision.
    pub(super) source: Option<(String, Option<String>)>,
    /// What the Dockerfile is called, and its text.
    pub(super) dockerfile: (String, Vec<u8>),
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
    /// Whether nothing may differ from one build to the next.
    pub(super) reproducible: Option<Timestamp>,
}

/// Attestations for what was built, ready to store.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// For the index.
    pub(super) children: Vec<Document>,
    /// About each image: its descriptor, and blobs with what they are.
    statements: Vec<(Descriptor, Vec<(Descriptor, &'static str)>)>,
    created: Option<Timestamp>,
}

/// Writes attestations for one run.
pub(super) struct Attester<'r> {
    pub(super) shared: &'r Arc<Shared>,
    pub(super) registry: &'r Registry,
    pub(super) job: &'r Job,
}

impl Attester<'_> {
    /// Write what was asked for about every image.
    pub(super) async fn attest(&self, wishes: &Wishes, built: &[Built], facts: &Facts) -> Result<Attached, Trouble> {
        let mut attached = Attached { created: facts.reproducible.or(Some(facts.finished)), ..Attached::default() };
        if !wishes.attests() {
            return Ok(attached);
        }
        for image in built {
            let mut predicates = Vec::new();
            if let Some(found) = &image.packages {
                let name = self.name(image);
                let created = facts.reproducible.unwrap_or(facts.finished);
                let tool = concat!("portolan-", env!("CARGO_PKG_VERSION"));
                let subject = sbom::Subject { name: &name, digest: image.digest, created, tool };
                predicates.push((SPDX, sbom::document(&subject, found)));
            }
            if let Some(wanted) = &wishes.provenance {
                predicates.push((PROVENANCE, self.provenance(wanted, image, facts)));
            }
            let mut blobs = Vec::new();
            for (kind, predicate) in predicates {
                let statement = json!({
                    "_type": STATEMENT,
                    "predicateType": kind,
                    "subject": self.subjects(image),
                    "predicate": predicate,
                });
                let mut blob = self.put(media_type::IN_TOTO, statement.to_string().into_bytes()).await?;
                blob.annotations.insert(PREDICATE_TYPE.to_owned(), kind.to_owned());
                blobs.push((blob, kind));
            }
            let layers: Vec<&Descriptor> = blobs.iter().map(|(blob, _)| blob).collect();
            let diff_ids: Vec<Digest> = layers.iter().map(|blob| blob.digest).collect();
            let config = json!({
                "architecture": "unknown", "os": "unknown", "config": {},
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            });
            let config = self.put(media_type::OCI_CONFIG, config.to_string().into_bytes()).await?;
            let manifest = json!({
                "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
            });
            let mut named: Vec<Descriptor> = layers.into_iter().cloned().collect();
            named.push(config);
            let mut child = Document::new(manifest.to_string().into_bytes(), media_type::OCI_MANIFEST, named);
            child.descriptor.platform =
                Some(Platform { os: "unknown".into(), architecture: "unknown".into(), variant: None });
            let about =
                [(REFERENCE_TYPE, "attestation-manifest".to_owned()), (REFERENCE_DIGEST, image.digest.to_string())];
            child.descriptor.annotations.extend(about.map(|(key, value)| (key.to_owned(), value)));
            attached.children.push(child);
            let subject = Descriptor::new(&image.media_type, image.digest, image.manifest.len() as u64);
            attached.statements.push((subject, blobs));
        }
        Ok(attached)
    }

    /// The artifacts that refer to the images and to `top`, which the tags name.
    pub(super) async fn referrers(&self, attached: &Attached, top: &Descriptor) -> Result<Vec<Document>, Trouble> {
        if attached.statements.is_empty() {
            return Ok(Vec::new());
        }
        let empty = self.put(media_type::OCI_EMPTY, EMPTY.to_vec()).await?;
        let created = attached.created.map(Timestamp::rfc3339).unwrap_or_default();
        let top = Descriptor::new(&top.media_type, top.digest, top.size);
        let mut referrers = Vec::new();
        for (image, blobs) in &attached.statements {
            let subjects = [image, &top];
            for subject in subjects.into_iter().take(if image.digest == top.digest { 1 } else { 2 }) {
                for (blob, kind) in blobs {
                    let manifest = json!({
                        "schemaVersion": 2,
                        "mediaType": media_type::OCI_MANIFEST,
                        "artifactType": media_type::IN_TOTO,
                        "config": empty,
                        "layers": [blob],
                        "subject": subject,
                        "annotations": { PREDICATE_TYPE: kind, "org.opencontainers.image.created": created },
                    });
                    let named = vec![empty.clone(), blob.clone()];
                    referrers.push(Document::new(manifest.to_string().into_bytes(), media_type::OCI_MANIFEST, named));
                }
            }
        }
        Ok(referrers)
    }

    async fn put(&self, kind: &str, bytes: Vec<u8>) -> Result<Descriptor, Trouble> {
        let blob = Descriptor::new(kind, Digest::of(&bytes), bytes.len() as u64);
        let body = Box::pin(stream::iter([Ok(Bytes::from(bytes))]));
        let put = self.shared.service.blobs.put(&blob.digest, body, blob.size).await;
        put.map_err(|e| Trouble::Server(format!("write an attestation: {e}")))?;
        Ok(blob)
    }

    /// What to call an image that may have several names, or none.
    fn name(&self, image: &Built) -> String {
        match self.job.build.images.first() {
            Some(name) => format!("{}/{name}", self.registry.login_server),
            None => image.digest.to_string(),
        }
    }

    /// The image under each of its names, as package URLs.
    fn subjects(&self, image: &Built) -> Value {
        let digest = json!({ image.digest.algorithm().as_str(): image.digest.hex() });
        let names = self.job.build.images.iter().map(|name| {
            let host = &self.registry.login_server;
            purl(&format!("{host}/{}", name.repo), Some(name.tag.as_str()), &image.platform)
        });
        let mut subjects: Vec<Value> = names.map(|name| json!({ "name": name, "digest": digest })).collect();
        if subjects.is_empty() {
            subjects.push(json!({ "name": "image", "digest": digest }));
        }
        Value::Array(subjects)
    }

    /// The predicate (SLSA, provenance v1).
    fn provenance(&self, wanted: &Provenance, image: &Built, facts: &Facts) -> Value {
        let build = &self.job.build;
        let (name, text) = &facts.dockerfile;
        let mut source = json!({ "path": name });
        let mut dependencies: Vec<Value> = image
            .base_images
            .iter()
            .map(|(base, digest)| {
                let uri = match base.parse::<ImageRef>() {
                    Ok(base) => {
                        let repo = match base.host.as_str() {
                            "docker.io" => base.repo.to_string().trim_start_matches("library/").to_owned(),
                            host => format!("{host}/{}", base.repo),
                        };
                        purl(&repo, base.tag.as_ref().map(|tag| tag.as_str()), &image.platform)
                    }
                    Err(_) => base.clone(),
                };
                json!({ "uri": uri, "digest": { digest.algorithm().as_str(): digest.hex() } })
            })
            .collect();
        if let Some((uri, revision)) = &facts.source {
            source["uri"] = json!(uri);
            let mut dependency = json!({ "uri": uri });
            if let Some(revision) = revision {
                source["digest"] = json!({ "sha1": revision });
                dependency["digest"] = source["digest"].clone();
            }
            dependencies.push(dependency);
        }
        let mut request = json!({ "frontend": "dockerfile.v0" });
        if wanted.max {
            // Names of what is secret, never its value.
            let mut args: BTreeMap<String, String> = BTreeMap::new();
            for arg in &build.args {
                let value = if arg.secret { "***".to_owned() } else { arg.value.expose().clone() };
                args.insert(format!("build-arg:{}", arg.name), value);
            }
            args.extend(build.options.labels.iter().map(|(key, value)| (format!("label:{key}"), value.clone())));
            args.extend(build.target.iter().map(|target| ("target".to_owned(), target.clone())));
            args.extend(build.no_cache.then(|| ("no-cache".to_owned(), String::new())));
            request["args"] = json!(args);
            let named = |id: &String| json!({ "id": id });
            request["secrets"] = build.options.secrets.iter().map(|secret| named(&secret.id)).collect();
            request["ssh"] = build.options.ssh.iter().map(|agent| named(&agent.id)).collect();
        }
        let builder = wanted.builder_id.clone().unwrap_or_else(|| format!("https://{}", self.registry.login_server));
        let mut metadata = json!({});
        if facts.reproducible.is_none() {
            metadata["invocationId"] = json!(self.job.id);
            metadata["startedOn"] = json!(facts.started.rfc3339());
            metadata["finishedOn"] = json!(facts.finished.rfc3339());
        }
        if wanted.max {
            let layers: Vec<&Digest> = image.layers.iter().map(|layer| &layer.digest).collect();
            metadata["portolan"] = json!({
                "dockerfile": { "path": name, "data": STANDARD.encode(text) },
                "layers": layers,
            });
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "configSource": source, "request": request },
                "internalParameters": { "builderPlatform": Platform::host().to_string() },
                "resolvedDependencies": dependencies,
            },
            "runDetails": { "builder": { "id": builder }, "metadata": metadata },
        })
    }
}

/// `pkg:docker/repo@tag?platform=linux%2Famd64`.
fn purl(repo: &str, tag: Option<&str>, platform: &Platform) -> String {
    let tag = tag.map(|tag| format!("@{tag}")).unwrap_or_default();
    let platform = platform.to_string().replace('/', "%2F");
    format!("pkg:docker/{}{tag}?platform={platform}", repo.replace(':', "%3A"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(provenance: Option<&str>, sbom: Option<&str>, annotations: &[&str]) -> Result<Wishes, String> {
        Wishes::read(&BuildOptions {
            provenance: provenance.map(str::to_owned),
            sbom: sbom.map(str::to_owned),
            annotations: annotations.iter().map(|a| (*a).to_owned()).collect(),
            ..BuildOptions::default()
        })
    }

    #[test]
    fn options_as_docker_writes_them() {
        for (text, wanted) in [
            ("true", Some(Provenance::default())),
            ("mode=min", Some(Provenance::default())),
            ("type=provenance,mode=max", Some(Provenance { max: true, builder_id: None })),
            (
                "mode=max,builder-id=https://ci/7",
                Some(Provenance { max: true, builder_id: Some("https://ci/7".into()) }),
            ),
            ("version=v1", Some(Provenance::default())),
            ("false", None),
            ("disabled=true", None),
        ] {
            assert_eq!(read(Some(text), None, &[]).unwrap().provenance, wanted, "{text}");
        }
        for (text, wanted) in [("true", true), ("false", false), ("type=sbom", true), ("disabled=true", false)] {
            assert_eq!(read(None, Some(text), &[]).unwrap().sbom, wanted, "{text}");
        }
        assert!(!read(None, None, &[]).unwrap().attests());
    }

    #[test]
    fn annotations_go_where_they_are_for() {
        let wishes = read(
            Some("true"),
            None,
            &["a=b=c", "manifest[linux/arm64]:d=e", "index,manifest-descriptor:f=g", "org.x.y="],
        )
        .unwrap();
        let told: Vec<_> = wishes.annotations.iter().map(|a| (a.key.as_str(), a.value.as_str())).collect();
        assert_eq!(told, [("a", "b=c"), ("d", "e"), ("org.x.y", "")]);
        assert_eq!(wishes.annotations[1].platform, Some("linux/arm64".parse().unwrap()));
        assert_eq!(wishes.of_index["f"], "g");
        let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"x"), 1);
        wishes.describe(&mut descriptor);
        assert_eq!(descriptor.annotations["f"], "g");
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (provenance, sbom, annotation, why) in [
            (Some("mode=all"), None, None, "min or max"),
            (Some("version=v0.2"), None, None, "v1 can be made"),
            (Some("x=y"), None, None, "no field"),
            (None, Some("generator=scanner"), None, "no other generator"),
            (None, None, Some("novalue"), "key=value"),
            (None, None, Some("index:a=b"), "makes no index"),
            (None, None, Some("other:a=b"), "none of"),
            (None, None, Some("index-descriptor:a=b"), "no place"),
            (None, None, Some("manifest[x:a=b"), "not closed"),
        ] {
            let error = read(provenance, sbom, annotation.as_slice()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
