//! `portolan acr …`: registries themselves, and the groups of commands below them.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::registry::{CreateArgs, UpdateArgs, create, show_endpoints, update};
use super::{
    Context, build, cache, config, credential, custom_domain, docker, endpoint, health, manifest, network_rule, pull,
    registry_identity, repository, run as runs, scope_map, token,
};
use crate::args::NamedRegistry;
use crate::error::Result;
use crate::output::table::{member, time};
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan acr …`
#[derive(Debug, Args)]
pub struct AcrArgs {
    #[command(subcommand)]
    command: AcrCommand,
}

#[derive(Debug, Subcommand)]
enum AcrCommand {
    /// Create a container registry.
    Create(Box<CreateArgs>),
    /// Show a container registry.
    Show {
        #[command(flatten)]
        registry: NamedRegistry,
    },
    /// List container registries.
    List {
        /// Only those of a resource group.
        #[arg(short = 'g', long, value_name = "GROUP")]
        resource_group: Option<String>,
    },
    /// Change a container registry.
    Update(Box<UpdateArgs>),
    /// Delete a container registry and everything in it.
    Delete {
        #[command(flatten)]
        registry: NamedRegistry,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
    /// Tell whether a registry name is valid and free.
    CheckName {
        /// The name to check.
        #[arg(short = 'n', long, value_name = "REGISTRY")]
        name: String,
        /// Taken for az's sake: names have no suffix here.
        #[arg(long, hide = true)]
        dnl_scope: Option<String>,
        /// Taken for az's sake.
        #[arg(short = 'g', long, hide = true)]
        resource_group: Option<String>,
    },
    /// Show the quotas of a registry and what is used of them.
    ShowUsage {
        #[command(flatten)]
        registry: NamedRegistry,
        /// Show the bytes of each repository instead: in all, and those that no other has.
        #[arg(long)]
        repositories: bool,
    },
    /// Show the addresses of a registry.
    ShowEndpoints {
        #[command(flatten)]
        registry: NamedRegistry,
    },
    /// Manage the admin user's passwords.
    Credential(credential::CredentialArgs),
    /// Log docker or podman in to a registry.
    Login(docker::LoginArgs),
    /// Find what is wrong with a registry, or with the way to it.
    CheckHealth(health::HealthArgs),
    /// Manage repository tokens.
    Token(token::TokenArgs),
    /// Manage scope maps: what repository tokens may do.
    ScopeMap(scope_map::ScopeMapArgs),
    /// Manage policies.
    Config(config::ConfigArgs),
    /// Manage host names of a registry's own, with their certificates.
    CustomDomain(custom_domain::CustomDomainArgs),
    /// Manage from where a registry can be reached (Premium).
    NetworkRule(network_rule::NetworkRuleArgs),
    /// Manage the identities of a registry.
    Identity(registry_identity::RegistryIdentityArgs),
    /// See whether a registry has a key of its own.
    Encryption(registry_identity::EncryptionArgs),
    /// See private endpoints.
    #[command(subcommand)]
    PrivateEndpointConnection(endpoint::ListOnly),
    /// See what private endpoints could lead to.
    #[command(subcommand)]
    PrivateLinkResource(endpoint::ListOnly),
    /// See replicas.
    #[command(subcommand)]
    Replication(endpoint::ListOnly),
    /// See webhooks.
    #[command(subcommand)]
    Webhook(endpoint::ListOnly),
    /// Build an image on the server and put it into the registry.
    ///
    /// Needs no docker. The folder is packed and sent as docker would: everything but what
    /// .dockerignore (or <Dockerfile>.dockerignore) leaves out, `.git` included; az leaves
    /// that out unasked. The log is shown live; Ctrl-C cancels the build on the server. The
    /// exit code is 0 when the build succeeded, 1 when it failed, 130 after Ctrl-C.
    Build(Box<build::BuildArgs>),
    /// Manage repositories: images, tags, attributes.
    Repository(repository::RepositoryArgs),
    /// Manage manifests.
    Manifest(manifest::ManifestArgs),
    /// Manage the runs of builds.
    Task(runs::TaskArgs),
    /// Manage cache rules: repositories that stand for ones of another registry.
    Cache(cache::CacheArgs),
    /// Pull an image into an OCI layout directory, without docker (not in az).
    ///
    /// This command is Portolan's own; az has none like it. What is there already is not
    /// fetched again. The directory can be copied on with `skopeo copy oci:DIR …` or loaded
    /// with `podman pull oci:DIR`.
    Pull(pull::PullArgs),
}

pub(super) async fn run(ctx: &Context, args: AcrArgs) -> Result<Output> {
    match args.command {
        AcrCommand::Credential(args) => credential::run(ctx, args).await,
        AcrCommand::Login(args) => docker::login(ctx, args).await,
        AcrCommand::CheckHealth(args) => health::run(ctx, args).await,
        AcrCommand::Token(args) => token::run(ctx, args).await,
        AcrCommand::ScopeMap(args) => scope_map::run(ctx, args).await,
        AcrCommand::Config(args) => config::run(ctx, args).await,
        AcrCommand::CustomDomain(args) => custom_domain::run(ctx, args).await,
        AcrCommand::NetworkRule(args) => network_rule::run(ctx, args).await,
        AcrCommand::Identity(args) => registry_identity::run(ctx, args).await,
        AcrCommand::Encryption(args) => registry_identity::encryption(ctx, args).await,
        AcrCommand::PrivateEndpointConnection(command) => {
            endpoint::run(ctx, endpoint::Kind::PrivateEndpointConnections, command).await
        }
        AcrCommand::PrivateLinkResource(command) => {
            endpoint::run(ctx, endpoint::Kind::PrivateLinkResources, command).await
        }
        AcrCommand::Replication(command) => endpoint::run(ctx, endpoint::Kind::Replications, command).await,
        AcrCommand::Webhook(command) => endpoint::run(ctx, endpoint::Kind::Webhooks, command).await,
        AcrCommand::Build(args) => build::run(ctx, *args).await,
        AcrCommand::Repository(args) => repository::run(ctx, args).await,
        AcrCommand::Manifest(args) => manifest::run(ctx, args).await,
        AcrCommand::Task(args) => runs::run(ctx, args).await,
        AcrCommand::Cache(args) => cache::run(ctx, args).await,
        AcrCommand::Pull(args) => pull::run(ctx, args).await,
        command => {
            if let AcrCommand::Delete { registry, yes } = &command {
                let question = format!("Are you sure you want to delete the registry '{}'?", registry.name);
                ctx.talk.confirm(&question, *yes)?;
            }
            let session = Session::open(&ctx.global)?;
            let output = registry(ctx, &session, command).await;
            session.keep();
            output
        }
    }
}

async fn registry(ctx: &Context, session: &Session, command: AcrCommand) -> Result<Output> {
    let arm = &session.arm;
    Ok(match command {
        AcrCommand::Create(args) => {
            let registry = create(ctx, session, *args).await?;
            // A name may have changed hands: what was kept of it is void.
            if let Some(name) = registry.get("name").and_then(Value::as_str) {
                session.forget(name);
            }
            session.saw_registry(&registry)?;
            shown(registry)
        }
        AcrCommand::Show { registry: r } => {
            let registry =
                session.with_registry(&r.name, r.resource_group.as_deref(), async |r| Ok(arm.registry(r).await?));
            let registry = registry.await?;
            session.saw_registry(&registry)?;
            shown(registry)
        }
        AcrCommand::List { resource_group } => Output::with_columns(
            shape::each(arm.registries(resource_group.as_deref()).await?, shape::registry),
            columns,
        ),
        AcrCommand::Update(args) => shown(update(ctx, session, *args).await?),
        AcrCommand::Delete { registry: r, .. } => {
            session
                .with_registry(&r.name, r.resource_group.as_deref(), async |r| Ok(arm.delete_registry(r).await?))
                .await?;
            session.forget(&r.name);
            Output::none()
        }
        AcrCommand::CheckName { name, .. } => Output::value(shape::name_check(arm.check_registry_name(&name).await?)),
        AcrCommand::ShowUsage { registry: r, repositories: true } => {
            let usages = session
                .with_registry(&r.name, r.resource_group.as_deref(), async |r| Ok(arm.repository_usages(r).await?));
            Output::with_columns(Value::from(usages.await?), |item| {
                vec![
                    ("NAME", member(item, &["name"])),
                    ("BYTES", member(item, &["bytes"])),
                    ("UNIQUE BYTES", member(item, &["uniqueBytes"])),
                    ("SHARED BYTES", member(item, &["sharedBytes"])),
                ]
            })
        }
        AcrCommand::ShowUsage { registry: r, .. } => {
            let usages = session
                .with_registry(&r.name, r.resource_group.as_deref(), async |r| Ok(arm.registry_usages(r).await?));
            Output::with_columns(usages.await?, |item| {
                vec![
                    ("NAME", member(item, &["name"])),
                    ("LIMIT", member(item, &["limit"])),
                    ("CURRENT VALUE", member(item, &["currentValue"])),
                    ("UNIT", member(item, &["unit"])),
                ]
            })
        }
        AcrCommand::ShowEndpoints { registry } => show_endpoints(ctx, session, &registry).await?,
        // The groups of commands were taken out before.
        _ => Output::none(),
    })
}

fn shown(registry: Value) -> Output {
    Output::with_columns(shape::registry(registry), columns)
}

fn columns(item: &Value) -> Vec<(&'static str, String)> {
    vec![
        ("NAME", member(item, &["name"])),
        ("RESOURCE GROUP", member(item, &["resourceGroup"])),
        ("LOCATION", member(item, &["location"])),
        ("SKU", member(item, &["sku", "name"])),
        ("LOGIN SERVER", member(item, &["loginServer"])),
        ("CREATION DATE", time(item, &["creationDate"])),
        ("ADMIN ENABLED", member(item, &["adminUserEnabled"])),
    ]
}
