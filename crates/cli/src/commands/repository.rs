//! `portolan acr repository …`: what is in a registry, with az's meaning of every command.

use clap::{Args, Subcommand, ValueEnum};
use portolan_api::acr::AcrClient;
use serde_json::{Map, Value, json};

use super::Context;
use crate::args::{self, NamedRegistry, RegistryLogin};
use crate::error::{Failure, Result};
use crate::image::{Image, Which};
use crate::output::Output;
use crate::output::shape::object;
use crate::session::Session;
use crate::talk::Talk;

/// `portolan acr repository …`
#[derive(Debug, Args)]
pub(crate) struct RepositoryArgs {
    #[command(subcommand)]
    command: RepositoryCommand,
}

/// How a list is ordered.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OrderBy {
    /// Oldest first.
    #[value(name = "time_asc")]
    TimeAsc,
    /// Newest first.
    #[value(name = "time_desc")]
    TimeDesc,
}

impl OrderBy {
    /// The word the data plane takes.
    pub(super) fn wire(self) -> &'static str {
        match self {
            OrderBy::TimeAsc => "timeasc",
            OrderBy::TimeDesc => "timedesc",
        }
    }
}

/// The registry, and how to get in.
#[derive(Debug, Args)]
pub(super) struct Target {
    #[command(flatten)]
    pub(super) registry: NamedRegistry,
    #[command(flatten)]
    pub(super) login: RegistryLogin,
}

/// What of a list.
#[derive(Debug, Args)]
pub(super) struct Listing {
    /// Limit the number of items.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) top: Option<u32>,
    /// Order by time; by name when not given.
    #[arg(long, value_enum, ignore_case = true)]
    pub(super) orderby: Option<OrderBy>,
}

impl Listing {
    pub(super) fn top(&self) -> Option<usize> {
        self.top.map(|n| n as usize)
    }

    pub(super) fn order(&self) -> Option<&'static str> {
        self.orderby.map(OrderBy::wire)
    }
}

/// Locks.
#[derive(Debug, Args)]
pub(super) struct Attributes {
    /// Whether it may be deleted.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    delete_enabled: Option<bool>,
    /// Whether it shows in lists.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    list_enabled: Option<bool>,
    /// Whether it may be read.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    read_enabled: Option<bool>,
    /// Whether it may be written or deleted.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    write_enabled: Option<bool>,
}

impl Attributes {
    pub(super) fn wire(&self) -> Map<String, Value> {
        let members = [
            ("deleteEnabled", self.delete_enabled),
            ("listEnabled", self.list_enabled),
            ("readEnabled", self.read_enabled),
            ("writeEnabled", self.write_enabled),
        ];
        members.into_iter().filter_map(|(k, v)| v.map(|v| (k.to_owned(), Value::Bool(v)))).collect()
    }
}

/// A repository, or an image in one: exactly one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// The name of the repository.
    #[arg(long, value_name = "NAME", group = "subject")]
    repository: Option<String>,
    /// The image, as name:tag or name@digest.
    #[arg(short = 't', long, value_name = "IMAGE", group = "subject")]
    image: Option<String>,
}

#[derive(Debug, Subcommand)]
enum RepositoryCommand {
    /// List repositories.
    List {
        #[command(flatten)]
        target: Target,
        /// Limit the number of items.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        top: Option<u32>,
    },
    /// Show the tags of a repository.
    ShowTags {
        #[command(flatten)]
        target: Target,
        /// The name of the repository.
        #[arg(long, value_name = "NAME")]
        repository: String,
        #[command(flatten)]
        listing: Listing,
        /// Show what is known of each tag, not only its name.
        #[arg(long)]
        detail: bool,
    },
    /// Show the manifests of a repository (az's older form of `acr manifest list-metadata`).
    ShowManifests {
        #[command(flatten)]
        target: Target,
        /// The name of the repository.
        #[arg(long, value_name = "NAME")]
        repository: String,
        #[command(flatten)]
        listing: Listing,
        /// Show all that is known of each manifest.
        #[arg(long)]
        detail: bool,
    },
    /// Show the attributes of a repository, a tag or a manifest.
    Show {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        subject: Subject,
    },
    /// Change the attributes of a repository, a tag or a manifest.
    Update {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        attributes: Attributes,
    },
    /// Delete a repository, or a manifest with all tags on it.
    ///
    /// As with az, `--image name:tag` deletes the manifest under the tag, and so every other
    /// tag of that manifest too. `untag` takes away one tag only.
    Delete {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        subject: Subject,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
    /// Take a tag away; the manifest stays.
    Untag {
        #[command(flatten)]
        target: Target,
        /// The image, as name:tag.
        #[arg(short = 't', long, value_name = "IMAGE")]
        image: String,
    },
}

pub(super) async fn run(ctx: &Context, args: RepositoryArgs) -> Result<Output> {
    let session = Session::open(&ctx.global)?;
    let output = dispatch(&session, &ctx.talk, &args.command).await;
    session.keep();
    output
}

async fn dispatch(session: &Session, talk: &Talk, command: &RepositoryCommand) -> Result<Output> {
    use RepositoryCommand as C;
    let (C::List { target, .. }
    | C::ShowTags { target, .. }
    | C::ShowManifests { target, .. }
    | C::Show { target, .. }
    | C::Update { target, .. }
    | C::Delete { target, .. }
    | C::Untag { target, .. }) = command;
    let group = target.registry.resource_group.as_deref();
    session.with_data_plane(&target.registry.name, group, &target.login, async |acr| on(acr, talk, command).await).await
}

async fn on(acr: &AcrClient, talk: &Talk, command: &RepositoryCommand) -> Result<Output> {
    use RepositoryCommand as C;
    match command {
        C::List { top, .. } => {
            let top = top.map(|n| n as usize);
            Ok(Output::value(acr.list("/v2/_catalog", "registry:catalog:*", "repositories", top, None).await?))
        }
        C::ShowTags { repository, listing, detail, .. } => {
            let repo = repository_name(repository)?;
            let path = format!("/acr/v1/{repo}/_tags");
            let tags = acr.list(&path, &read(&repo), "tags", listing.top(), listing.order()).await?;
            if *detail {
                return Ok(Output::value(tags));
            }
            let names = tags.iter().filter_map(|t| t.get("name").cloned());
            Ok(Output::value(Value::Array(names.collect())))
        }
        C::ShowManifests { repository, listing, detail, .. } => {
            let manifests = manifests(acr, repository, listing).await?;
            if *detail {
                return Ok(Output::value(manifests));
            }
            let short = manifests.iter().map(|m| {
                let get = |key: &str, none: Value| m.get(key).cloned().unwrap_or(none);
                object([
                    ("digest", get("digest", "".into())),
                    ("tags", get("tags", json!([]))),
                    ("timestamp", get("lastUpdateTime", "".into())),
                ])
            });
            Ok(Output::value(Value::Array(short.collect())))
        }
        C::Show { subject, .. } => {
            let place = Place::of(subject)?;
            Ok(Output::value(place.shown(acr.get(&place.path, &read(&place.repo)).await?)))
        }
        C::Update { subject, attributes, .. } => {
            let place = Place::of(subject)?;
            let change = attributes.wire();
            if change.is_empty() {
                return Ok(Output::value(place.shown(acr.get(&place.path, &read(&place.repo)).await?)));
            }
            let scope = format!("repository:{}:metadata_write,metadata_read", place.repo);
            Ok(Output::value(place.shown(acr.patch(&place.path, &scope, &Value::Object(change)).await?)))
        }
        C::Delete { subject, yes, .. } => delete(acr, talk, subject, *yes).await,
        C::Untag { image, .. } => {
            let image = Image::parse(image)?;
            let Which::Tag(tag) = &image.which else {
                return Err(Failure::usage("--image names a digest: untag takes a tag, as name:tag"));
            };
            let scope = format!("repository:{}:delete", image.repo);
            acr.delete(&format!("/acr/v1/{}/_tags/{tag}", image.repo), &scope).await?;
            Ok(Output::none())
        }
    }
}

/// The manifests of a repository, with all that is known of them.
pub(super) async fn manifests(acr: &AcrClient, repository: &str, listing: &Listing) -> Result<Vec<Value>> {
    let repo = repository_name(repository)?;
    let path = format!("/acr/v1/{repo}/_manifests");
    Ok(acr.list(&path, &read(&repo), "manifests", listing.top(), listing.order()).await?)
}

pub(super) fn read(repo: &str) -> String {
    format!("repository:{repo}:metadata_read")
}

pub(super) fn repository_name(text: &str) -> Result<String> {
    let name: Result<portolan_types::RepoName, _> = text.parse();
    name.map(|n| n.to_string()).map_err(|e| Failure::new(e.to_string()))
}

/// Where a repository, tag or manifest has its attributes.
pub(super) struct Place {
    pub(super) repo: String,
    pub(super) path: String,
    member: Option<&'static str>,
}

impl Place {
    fn of(subject: &Subject) -> Result<Place> {
        if let Some(image) = &subject.image {
            return Ok(Place::of_image(&Image::parse(image)?));
        }
        let repo = repository_name(subject.repository.as_deref().unwrap_or_default())?;
        Ok(Place { path: format!("/acr/v1/{repo}"), repo, member: None })
    }

    pub(super) fn of_image(image: &Image) -> Place {
        let repo = image.repo.to_string();
        match &image.which {
            Which::Tag(tag) => Place { path: format!("/acr/v1/{repo}/_tags/{tag}"), repo, member: Some("tag") },
            Which::Digest(digest) => {
                Place { path: format!("/acr/v1/{repo}/_manifests/{digest}"), repo, member: Some("manifest") }
            }
        }
    }

    /// What az prints of the answer.
    pub(super) fn shown(&self, mut answer: Value) -> Value {
        match self.member.and_then(|m| answer.get_mut(m)) {
            Some(member) => member.take(),
            None => answer,
        }
    }
}

async fn delete(acr: &AcrClient, talk: &Talk, subject: &Subject, yes: bool) -> Result<Output> {
    let Some(image) = &subject.image else {
        let repo = repository_name(subject.repository.as_deref().unwrap_or_default())?;
        let question = format!("Are you sure you want to delete the repository '{repo}' and all images under it?");
        talk.confirm(&question, yes)?;
        let scope = format!("repository:{repo}:delete,metadata_read");
        let gone = acr.delete(&format!("/acr/v1/{repo}"), &scope).await?;
        return Ok(gone.map_or_else(Output::none, Output::value));
    };
    delete_image(acr, talk, &Image::parse(image)?, yes).await
}

/// Delete a manifest by tag or digest, having said which tags go with it.
pub(super) async fn delete_image(acr: &AcrClient, talk: &Talk, image: &Image, yes: bool) -> Result<Output> {
    let repo = &image.repo;
    let scope = format!("repository:{repo}:delete,metadata_read");
    let digest = match &image.which {
        Which::Digest(digest) => digest.to_string(),
        Which::Tag(tag) => {
            let shown: Value = acr.get(&format!("/acr/v1/{repo}/_tags/{tag}"), &scope).await?;
            let digest = shown.pointer("/tag/digest").and_then(Value::as_str);
            let none = || Failure::new(format!("Could not get the manifest digest for image '{repo}:{tag}'."));
            digest.ok_or_else(none)?.to_owned()
        }
    };
    let tags = acr.list(&format!("/acr/v1/{repo}/_tags"), &scope, "tags", None, None).await?;
    let text = |t: &Value, key: &str| t.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let names: Vec<String> =
        tags.iter().filter(|t| text(t, "digest") == digest).map(|t| format!("'{repo}:{}'", text(t, "name"))).collect();
    let mut message = format!("This operation will delete the manifest '{digest}'");
    if !names.is_empty() {
        message.push_str(" and all the following images: ");
        message.push_str(&names.join(", "));
    }
    if yes {
        talk.warn(&message);
    } else {
        talk.confirm(&format!("{message}.\nAre you sure you want to continue?"), false)?;
    }
    acr.delete(&format!("/v2/{repo}/manifests/{digest}"), &scope).await?;
    Ok(Output::none())
}
