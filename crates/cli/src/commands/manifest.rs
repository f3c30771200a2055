//! `portolan acr manifest …`

use clap::{Args, Subcommand};
use portolan_api::acr::AcrClient;
use serde_json::Value;

use super::Context;
use super::repository::{Attributes, Listing, Place, delete_image, manifests, read};
use crate::args::RegistryLogin;
use crate::error::{Failure, Result};
use crate::image::{Image, Which, split_server};
use crate::output::Output;
use crate::output::table::member;
use crate::session::Session;
use crate::talk::Talk;

/// `portolan acr manifest …`
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    #[command(subcommand)]
    command: ManifestCommand,
}

/// A manifest or repository: `<login server>/name…` in one word, or `-r REGISTRY -n name…`.
#[derive(Debug, Args)]
struct Target {
    /// The manifest or repository with its login server, such as localhost:8443/app:v1.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// The name of the container registry.
    #[arg(short = 'r', long = "registry", value_name = "REGISTRY", env = "AZURE_DEFAULTS_ACR", hide_env = true)]
    registry: Option<String>,
    /// The manifest or repository, as name, name:tag or name@digest.
    #[arg(short = 'n', long = "name", value_name = "NAME", conflicts_with = "id")]
    name: Option<String>,
    #[command(flatten)]
    login: RegistryLogin,
}

impl Target {
    /// The registry and what is in it.
    fn parts(&self) -> Result<(&str, &str)> {
        if let Some(id) = &self.id {
            return match split_server(id) {
                (Some(server), name) => Ok((server, name)),
                (None, _) => Err(Failure::usage(format!("'{id}' has no login server in it"))
                    .hint("write localhost:8443/name:tag, or -r REGISTRY -n name:tag")),
            };
        }
        match (&self.registry, &self.name) {
            (Some(registry), Some(name)) => Ok((registry, name)),
            _ => Err(Failure::usage("say which manifest: <login server>/name:tag, or -r REGISTRY -n name:tag")),
        }
    }
}

#[derive(Debug, Subcommand)]
enum ManifestCommand {
    /// Show a manifest as it was pushed.
    Show {
        #[command(flatten)]
        target: Target,
        /// Print its bytes unchanged.
        #[arg(long)]
        raw: bool,
    },
    /// List what is known of a repository's manifests.
    ListMetadata {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show what is known of a manifest.
    ShowMetadata {
        #[command(flatten)]
        target: Target,
    },
    /// Change the attributes of a manifest or tag.
    UpdateMetadata {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        attributes: Attributes,
    },
    /// List the artifacts that refer to a manifest.
    ListReferrers {
        #[command(flatten)]
        target: Target,
        /// Only those of a type.
        #[arg(long, value_name = "TYPE")]
        artifact_type: Option<String>,
    },
    /// Delete a manifest and all tags on it.
    Delete {
        #[command(flatten)]
        target: Target,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
}

pub(super) async fn run(ctx: &Context, args: ManifestArgs) -> Result<Output> {
    use ManifestCommand as C;
    let command = &args.command;
    let (C::Show { target, .. }
    | C::ListMetadata { target, .. }
    | C::ShowMetadata { target }
    | C::UpdateMetadata { target, .. }
    | C::ListReferrers { target, .. }
    | C::Delete { target, .. }) = command;
    let (registry, name) = target.parts()?;
    let session = Session::open(&ctx.global)?;
    let work = async |acr: &AcrClient| on(acr, &ctx.talk, command, name).await;
    let output = session.with_data_plane(registry, None, &target.login, work).await;
    session.keep();
    output
}

async fn on(acr: &AcrClient, talk: &Talk, command: &ManifestCommand, name: &str) -> Result<Output> {
    use ManifestCommand as C;
    if let C::ListMetadata { listing, .. } = command {
        return Ok(Output::value(manifests(acr, name, listing).await?));
    }
    let image = Image::parse(name)?;
    let repo = &image.repo;
    match command {
        C::Show { raw, .. } => {
            let reference = match &image.which {
                Which::Tag(tag) => tag.to_string(),
                Which::Digest(digest) => digest.to_string(),
            };
            let bytes = acr.manifest(repo.as_str(), &reference).await?;
            if *raw {
                use std::io::Write;
                std::io::stdout().write_all(&bytes)?;
                return Ok(Output::none());
            }
            let manifest: Value = serde_json::from_slice(&bytes)
                .map_err(|e| Failure::new(format!("the manifest does not parse: {e}")).hint("use --raw"))?;
            Ok(Output::value(manifest))
        }
        C::ShowMetadata { .. } => {
            let place = Place::of_image(&image);
            Ok(Output::value(place.shown(acr.get(&place.path, &read(&place.repo)).await?)))
        }
        C::UpdateMetadata { attributes, .. } => {
            let scope = format!("repository:{repo}:metadata_write,metadata_read");
            let place = Place::of_image(&image);
            Ok(Output::value(place.shown(acr.patch(&place.path, &scope, &Value::Object(attributes.wire())).await?)))
        }
        C::ListReferrers { artifact_type, .. } => {
            let digest = digest_of(acr, &image).await?;
            let filter = artifact_type
                .as_ref()
                .map_or_else(String::new, |t| format!("?artifactType={}", portolan_api::transport::segment(t)));
            let scope = format!("repository:{repo}:pull");
            let mut found: Value = acr.get(&format!("/v2/{repo}/referrers/{digest}{filter}"), &scope).await?;
            let list = found.get_mut("manifests").map(Value::take).unwrap_or_default();
            Ok(Output::with_columns(crate::output::shape::object([("references", list)]), referrer_columns))
        }
        C::Delete { yes, .. } => delete_image(acr, talk, &image, *yes).await,
        C::ListMetadata { .. } => Ok(Output::none()),
    }
}

async fn digest_of(acr: &AcrClient, image: &Image) -> Result<String> {
    let repo = &image.repo;
    match &image.which {
        Which::Digest(digest) => Ok(digest.to_string()),
        Which::Tag(tag) => {
            let scope = format!("repository:{repo}:metadata_read");
            let shown: Value = acr.get(&format!("/acr/v1/{repo}/_tags/{tag}"), &scope).await?;
            let digest = shown.pointer("/tag/digest").and_then(Value::as_str);
            let none = || Failure::new(format!("Could not get the manifest digest for image '{repo}:{tag}'."));
            Ok(digest.ok_or_else(none)?.to_owned())
        }
    }
}

fn referrer_columns(item: &Value) -> Vec<(&'static str, String)> {
    vec![
        ("Digest", member(item, &["digest"])),
        ("ArtifactType", member(item, &["artifactType"])),
        ("MediaType", member(item, &["mediaType"])),
        ("Size", member(item, &["size"])),
    ]
}
