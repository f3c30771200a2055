//! `portolan acr pull`: an image into an OCI layout directory (OCI image-spec,
//! image-layout.md), for machines without docker.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt;
use portolan_api::RegistryClient;
use portolan_api::registry::ACCEPT_ALL;
use portolan_types::oci::{Descriptor, ManifestView};
use portolan_types::{Digest, Platform, Reference, RepoName, media_type};
use serde_json::{Value, json};

use super::Context;
use crate::args::RegistryLogin;
use crate::context::progress::Progress;
use crate::error::{Failure, Result};
use crate::image::{Image, Which, split_server};
use crate::output::Output;
use crate::output::shape::object;
use crate::session::Session;

/// Indexes inside indexes.
const INDEX_DEPTH_MAX: usize = 8;

/// `portolan acr pull`
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image: <login server>/name:tag, or name:tag with --name.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The directory; made if it is not there, added to if it is.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The name of the container registry, when the image does not say.
    #[arg(short = 'n', long = "name", value_name = "REGISTRY", env = "AZURE_DEFAULTS_ACR", hide_env = true)]
    name: Option<String>,
    /// Of an image for many platforms, only this one, such as linux/amd64; all when not given.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    login: RegistryLogin,
}

pub(super) async fn run(ctx: &Context, args: PullArgs) -> Result<Output> {
    let (server, name) = split_server(&args.image);
    let registry = match (server, &args.name) {
        (Some(server), _) => server,
        (None, Some(name)) => name,
        (None, None) => {
            return Err(Failure::usage(format!("'{}' does not say which registry", args.image))
                .hint("write <login server>/name:tag, or add -n REGISTRY"));
        }
    };
    let image = Image::parse(name)?;
    let session = Session::open(&ctx.global)?;
    let kept = session.registry_to_use(registry, None).await?;
    let client = session.oci_client(&kept, &args.login).await?;
    session.keep();
    let progress = Progress::bytes(&ctx.talk, "Pulling");
    let layout = Layout::open(&args.to)?;
    let pull = Pull { client, repo: image.repo.clone(), layout, progress, platform: args.platform };
    let reference = match &image.which {
        Which::Tag(tag) => Reference::Tag(tag.clone()),
        Which::Digest(digest) => Reference::Digest(*digest),
    };
    let root = pull.image(&reference).await?;
    let tag = match &image.which {
        Which::Tag(tag) => Some(tag.to_string()),
        Which::Digest(_) => None,
    };
    let laid_out = pull.layout.in_oci_words(root.clone(), 0)?;
    pull.layout.name(laid_out.clone(), tag)?;
    let (blobs, bytes) = pull.progress.finish();
    ctx.talk.say(format_args!(
        "Pulled {}/{name} into {}: {blobs} blobs, {}",
        kept.login_server,
        args.to.display(),
        crate::context::progress::human_bytes(bytes)
    ));
    Ok(Output::value(object([
        ("digest", Value::from(root.digest.to_string())),
        ("directory", Value::from(args.to.display().to_string())),
        // Another than the registry's where Docker's media types were put into OCI's words.
        ("layoutDigest", Value::from(laid_out.digest.to_string())),
        ("mediaType", Value::from(laid_out.media_type)),
    ])))
}

/// A pull under way.
struct Pull {
    client: RegistryClient,
    repo: RepoName,
    layout: Layout,
    progress: Progress,
    platform: Option<Platform>,
}

impl Pull {
    /// The manifest a name stands for and everything below it; answers its descriptor.
    async fn image(&self, reference: &Reference) -> Result<Descriptor> {
        let top = self.client.manifest(&self.repo, reference, ACCEPT_ALL).await?;
        let mut root = self.descriptor(&top.media_type, top.digest, &top.bytes);
        let mut queue = vec![(top.digest, top.media_type, top.bytes)];
        // An index may hold indexes; each manifest once, and not without end.
        let mut seen = std::collections::BTreeSet::new();
        while let Some((digest, kind, bytes)) = queue.pop() {
            if !seen.insert(digest) {
                continue;
            }
            if seen.len() > portolan_types::limits::MANIFEST_REFERENCES_MAX {
                return Err(Failure::new("the image has too many manifests"));
            }
            let view = ManifestView::parse(&bytes, Some(&kind)).map_err(|e| Failure::new(e.to_string()))?;
            for blob in view.blobs() {
                self.blob(blob).await?;
            }
            let children: Vec<&Descriptor> = view.manifests().iter().filter(|m| self.wants(m)).collect();
            if children.is_empty() && !view.manifests().is_empty() {
                let there: Vec<String> =
                    view.manifests().iter().filter_map(|m| m.platform.as_ref().map(Platform::to_string)).collect();
                return Err(Failure::new("the image is not there for this platform")
                    .hint(format!("it is there for: {}", there.join(", "))));
            }
            if let (Some(_), [only]) = (&self.platform, children.as_slice()) {
                // One platform was asked for: the layout names its manifest, not the index.
                root = (*only).clone();
            } else {
                self.layout.put(&digest, &bytes)?;
            }
            for child in children {
                let reference = Reference::Digest(child.digest);
                let manifest = self.client.manifest(&self.repo, &reference, ACCEPT_ALL).await?;
                self.layout.put(&manifest.digest, &manifest.bytes)?;
                queue.push((manifest.digest, child.media_type.clone(), manifest.bytes));
            }
        }
        Ok(root)
    }

    fn descriptor(&self, media_type: &str, digest: Digest, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    fn wants(&self, child: &Descriptor) -> bool {
        match (&self.platform, &child.platform) {
            (Some(wanted), Some(there)) => wanted.accepts(there),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    async fn blob(&self, blob: &Descriptor) -> Result<()> {
        if self.layout.has(&blob.digest, blob.size) {
            return Ok(());
        }
        let (length, mut body) = self.client.blob(&self.repo, &blob.digest).await?;
        self.progress.expect(length);
        let mut file = self.layout.begin()?;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| Failure::new(format!("cannot pull {}: {e}", blob.digest)))?;
            file.write_all(&chunk)?;
            self.progress.add(chunk.len() as u64);
        }
        self.progress.item();
        self.layout.keep(file, &blob.digest)
    }
}

/// An OCI layout directory.
struct Layout {
    root: PathBuf,
}

impl Layout {
    fn open(root: &Path) -> Result<Layout> {
        let cannot = |e: std::io::Error| Failure::new(format!("cannot make {}: {e}", root.display()));
        fs::create_dir_all(root.join("blobs")).map_err(cannot)?;
        let marker = root.join("oci-layout");
        if !marker.exists() {
            fs::write(&marker, r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(cannot)?;
        }
        Ok(Layout { root: root.to_owned() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Whether the blob is here. Its name was given it only after its bytes were checked.
    fn has(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|m| m.len() == size)
    }

    fn begin(&self) -> Result<Partial> {
        let path = self.root.join("blobs").join(format!(".{}", uuid::Uuid::new_v4().simple()));
        let file =
            fs::File::create_new(&path).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
        Ok(Partial { path, file, kept: false })
    }

    fn keep(&self, mut partial: Partial, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent)?;
        fs::rename(&partial.path, &path)?;
        partial.kept = true;
        Ok(())
    }

    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let mut file = self.begin()?;
        file.write_all(bytes)?;
        self.keep(file, digest)
    }

    /// The manifest in OCI's media types, and all below it. Tools that read layouts (skopeo,
    /// umoci) pass over Docker's types, which the builder and docker itself write. What is
    /// OCI already stays as it is, digest and all.
    fn in_oci_words(&self, descriptor: Descriptor, depth: usize) -> Result<Descriptor> {
        if depth > INDEX_DEPTH_MAX {
            return Err(Failure::new("the image's indexes are nested too deeply"));
        }
        let bytes = fs::read(self.path(&descriptor.digest))?;
        let Ok(mut document) = serde_json::from_slice::<Value>(&bytes) else { return Ok(descriptor) };
        let before = document.clone();
        let reword = |value: &mut Value| {
            if let Some(Value::String(word)) = value.get_mut("mediaType") {
                *word = media_type::oci_equivalent(word).to_owned();
            }
        };
        reword(&mut document);
        if let Some(config) = document.get_mut("config") {
            reword(config);
        }
        for layer in document.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten() {
            reword(layer);
        }
        for child in document.get_mut("manifests").and_then(Value::as_array_mut).into_iter().flatten() {
            let there: Descriptor = serde_json::from_value(child.clone())
                .map_err(|e| Failure::new(format!("an index of the image does not parse: {e}")))?;
            // With --platform, the others were not pulled.
            if self.has(&there.digest, there.size) {
                *child = serde_json::to_value(self.in_oci_words(there, depth + 1)?)
                    .map_err(|e| Failure::new(format!("cannot write the index: {e}")))?;
            }
        }
        if document == before {
            return Ok(descriptor);
        }
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        self.put(&digest, &bytes)?;
        fs::remove_file(self.path(&descriptor.digest))?;
        Ok(Descriptor {
            media_type: media_type::oci_equivalent(&descriptor.media_type).to_owned(),
            digest,
            size: bytes.len() as u64,
            ..descriptor
        })
    }

    /// Enter a manifest in `index.json`, under its tag; an entry of the same tag goes.
    fn name(&self, mut manifest: Descriptor, tag: Option<String>) -> Result<()> {
        const NAME: &str = "org.opencontainers.image.ref.name";
        let path = self.root.join("index.json");
        let index: Value = fs::read(&path).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default();
        let old = index.get("manifests").cloned().unwrap_or_default();
        let mut manifests: Vec<Descriptor> = serde_json::from_value(old).unwrap_or_default();
        manifests.retain(|m| match (&tag, m.annotations.get(NAME)) {
            (Some(tag), Some(name)) => tag != name,
            (None, None) => m.digest != manifest.digest,
            _ => true,
        });
        manifest.annotations = tag.map(|tag| BTreeMap::from([(NAME.to_owned(), tag)])).unwrap_or_default();
        manifests.push(manifest);
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
        let temporary = self.root.join(".index.json.new");
        fs::write(&temporary, index.to_string())?;
        fs::rename(&temporary, &path)?;
        Ok(())
    }
}

/// A blob in the making; goes when it is not kept.
struct Partial {
    path: PathBuf,
    file: fs::File,
    kept: bool,
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_images_are_laid_out_in_oci_words() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let put = |document: Value| {
            let bytes = document.to_string().into_bytes();
            let digest = Digest::of(&bytes);
            layout.put(&digest, &bytes).unwrap();
            Descriptor::new(document["mediaType"].as_str().unwrap(), digest, bytes.len() as u64)
        };
        let content = |kind: &str| Descriptor::new(kind, Digest::of(b"content"), 7);
        let image = |manifest: &str, config: &str, layer: &str| json!({"schemaVersion": 2, "mediaType": manifest, "config": content(config), "layers": [content(layer)]});
        let docker = put(image(media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_GZIP));
        let oci = put(image(media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP));
        let list = put(json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST, "manifests": [docker]}));

        assert_eq!(layout.in_oci_words(oci.clone(), 0).unwrap(), oci);
        let index = layout.in_oci_words(list, 0).unwrap();
        assert_eq!(index.media_type, media_type::OCI_INDEX);
        let read: Value = serde_json::from_slice(&fs::read(layout.path(&index.digest)).unwrap()).unwrap();
        assert_eq!(read["manifests"], json!([oci]), "the same image in the same words is the same content");
    }

    #[test]
    fn layouts_name_tags_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let descriptor = |text: &str| {
            layout.put(&Digest::of(text.as_bytes()), text.as_bytes()).unwrap();
            Descriptor::new(media_type::OCI_MANIFEST, Digest::of(text.as_bytes()), text.len() as u64)
        };
        layout.name(descriptor("one"), Some("v1".into())).unwrap();
        layout.name(descriptor("two"), Some("latest".into())).unwrap();
        layout.name(descriptor("three"), Some("v1".into())).unwrap();
        let index: Value = serde_json::from_slice(&fs::read(dir.path().join("index.json")).unwrap()).unwrap();
        let names: Vec<&Value> = index["manifests"].as_array().unwrap().iter().map(|m| &m["digest"]).collect();
        assert_eq!(names, [&json!(Digest::of(b"two")), &json!(Digest::of(b"three"))]);
        assert!(layout.has(&Digest::of(b"one"), 3) && !layout.has(&Digest::of(b"one"), 4));
        assert_eq!(fs::read_dir(dir.path().join("blobs")).unwrap().count(), 1, "nothing half-written stays");
    }
}
