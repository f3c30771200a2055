//! `portolan acr …`: registries themselves, and the groups of commands below them.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{Context, build, cache, credential, docker, manifest, pull, repository, run as runs};
use crate::args::{self, NamedRegistry};
use crate::error::{Failure, Result};
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
    },
    /// Show the quotas of a registry and what is used of them.
    ShowUsage {
        #[command(flatten)]
        registry: NamedRegistry,
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

/// The tiers.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SkuName {
    /// For development and learning.
    #[value(name = "Basic")]
    Basic,
    /// For most production uses.
    #[value(name = "Standard")]
    Standard,
    /// For the highest volumes.
    #[value(name = "Premium")]
    Premium,
}

impl SkuName {
    fn as_str(self) -> &'static str {
        match self {
            SkuName::Basic => "Basic",
            SkuName::Standard => "Standard",
            SkuName::Premium => "Premium",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleMode {
    #[value(name = "rbac")]
    Rbac,
    #[value(name = "rbac-abac")]
    RbacAbac,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnOff {
    #[value(name = "Enabled")]
    Enabled,
    #[value(name = "Disabled")]
    Disabled,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DefaultAction {
    #[value(name = "Allow")]
    Allow,
    #[value(name = "Deny")]
    Deny,
}

/// Settings that both `create` and `update` take.
#[derive(Debug, Args)]
struct Settings {
    /// Whether the admin user is enabled.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    admin_enabled: Option<bool>,
    /// Whether the registry can be reached from public networks.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    public_network_enabled: Option<bool>,
    /// What happens when no network rule matches (Premium).
    #[arg(long, value_enum, ignore_case = true)]
    default_action: Option<DefaultAction>,
    /// Whether trusted services pass network rules.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    allow_trusted_services: Option<bool>,
    /// Whether artifacts may be exported.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    allow_exports: Option<bool>,
    /// Whether there is a data endpoint of its own.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    data_endpoint_enabled: Option<bool>,
    /// How roles are assigned: rbac, for the registry, or rbac-abac, with conditions by repository.
    #[arg(long, value_enum, ignore_case = true)]
    role_assignment_mode: Option<RoleMode>,
    /// Space-separated tags: key[=value] [key[=value] ...]. Use '' to clear.
    #[arg(long, num_args = 0.., value_name = "KEY=VALUE")]
    tags: Option<Vec<String>>,
}

impl Settings {
    fn properties(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(key.into(), value);
            }
        };
        let on_off = |b: bool| Value::from(if b { "Enabled" } else { "Disabled" });
        set("adminUserEnabled", self.admin_enabled.map(Value::from));
        set("publicNetworkAccess", self.public_network_enabled.map(on_off));
        set("dataEndpointEnabled", self.data_endpoint_enabled.map(Value::from));
        let bypass = |b: bool| Value::from(if b { "AzureServices" } else { "None" });
        set("networkRuleBypassOptions", self.allow_trusted_services.map(bypass));
        set(
            "roleAssignmentMode",
            self.role_assignment_mode.map(|mode| match mode {
                RoleMode::Rbac => "LegacyRegistryPermissions".into(),
                RoleMode::RbacAbac => "AbacRepositoryPermissions".into(),
            }),
        );
        let action = self.default_action.or_else(|| {
            // Closing the public endpoint closes every rule's door.
            (self.public_network_enabled == Some(false)).then_some(DefaultAction::Deny)
        });
        set(
            "networkRuleSet",
            action.map(|action| match action {
                DefaultAction::Allow => json!({"defaultAction": "Allow"}),
                DefaultAction::Deny => json!({"defaultAction": "Deny"}),
            }),
        );
        let export = |b: bool| json!({"exportPolicy": {"status": if b { "enabled" } else { "disabled" }}});
        set("policies", self.allow_exports.map(export));
        out
    }
}

/// `portolan acr create`
#[derive(Debug, Args)]
struct CreateArgs {
    /// The name: 5 to 50 lower-case letters and digits.
    #[arg(short = 'n', long, value_name = "REGISTRY")]
    name: String,
    /// Name of the resource group.
    #[arg(short = 'g', long, value_name = "GROUP", env = "AZURE_DEFAULTS_GROUP", hide_env = true)]
    resource_group: String,
    /// The tier.
    #[arg(long, value_enum, ignore_case = true)]
    sku: SkuName,
    /// Location; the resource group's when not given.
    #[arg(short = 'l', long, value_parser = args::location, env = "AZURE_DEFAULTS_LOCATION", hide_env = true)]
    location: Option<String>,
    /// Zone redundancy: kept and shown.
    #[arg(long, value_enum, ignore_case = true)]
    zone_redundancy: Option<OnOff>,
    #[command(flatten)]
    settings: Settings,
}

/// `portolan acr update`
#[derive(Debug, Args)]
struct UpdateArgs {
    #[command(flatten)]
    registry: NamedRegistry,
    /// The tier.
    #[arg(long, value_enum, ignore_case = true)]
    sku: Option<SkuName>,
    /// Whether anyone may pull without signing in.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    anonymous_pull_enabled: Option<bool>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(ctx: &Context, args: AcrArgs) -> Result<Output> {
    match args.command {
        AcrCommand::Credential(args) => credential::run(ctx, args).await,
        AcrCommand::Login(args) => docker::login(ctx, args).await,
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
            let output = registry(&session, command).await;
            session.keep();
            output
        }
    }
}

async fn registry(session: &Session, command: AcrCommand) -> Result<Output> {
    let arm = &session.arm;
    Ok(match command {
        AcrCommand::Create(args) => {
            let registry = create(session, *args).await?;
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
        AcrCommand::Update(args) => shown(update(session, *args).await?),
        AcrCommand::Delete { registry: r, .. } => {
            session
                .with_registry(&r.name, r.resource_group.as_deref(), async |r| Ok(arm.delete_registry(r).await?))
                .await?;
            session.forget(&r.name);
            Output::none()
        }
        AcrCommand::CheckName { name } => Output::value(shape::name_check(arm.check_registry_name(&name).await?)),
        AcrCommand::ShowUsage { registry: r } => {
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
        AcrCommand::ShowEndpoints { registry: r } => {
            let registry = session.find_registry(&r.name, r.resource_group.as_deref()).await?;
            Output::value(json!({"loginServer": registry.login_server, "dataEndpoints": []}))
        }
        // The groups of commands were taken out before.
        _ => Output::none(),
    })
}

async fn create(session: &Session, args: CreateArgs) -> Result<Value> {
    if args.name.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(Failure::new("argument error: Registry name must use only lowercase."));
    }
    args.name.parse::<portolan_types::RegistryName>().map_err(|e| Failure::new(e.to_string()))?;
    let location = match args.location {
        Some(location) => location,
        None => {
            let group = session.arm.group(&args.resource_group).await?;
            group.get("location").and_then(Value::as_str).unwrap_or("local").to_owned()
        }
    };
    let mut properties = args.settings.properties();
    properties.entry("adminUserEnabled").or_insert(Value::Bool(false));
    if let Some(zones) = args.zone_redundancy {
        let zones = if matches!(zones, OnOff::Enabled) { "Enabled" } else { "Disabled" };
        properties.insert("zoneRedundancy".into(), zones.into());
    }
    let mut body = json!({"location": location, "sku": {"name": args.sku.as_str()}, "properties": properties});
    if let Some(tags) = &args.settings.tags {
        body["tags"] = args::tags(tags);
    }
    let registry = portolan_api::arm::RegistryRef { group: args.resource_group, name: args.name };
    Ok(session.arm.put_registry(&registry, &body).await?)
}

async fn update(session: &Session, args: UpdateArgs) -> Result<Value> {
    let mut properties = args.settings.properties();
    if let Some(anonymous) = args.anonymous_pull_enabled {
        properties.insert("anonymousPullEnabled".into(), anonymous.into());
    }
    let mut body = json!({});
    if !properties.is_empty() {
        body["properties"] = Value::Object(properties);
    }
    if let Some(sku) = args.sku {
        body["sku"] = json!({"name": sku.as_str()});
    }
    if let Some(tags) = &args.settings.tags {
        body["tags"] = args::tags(tags);
    }
    let group = args.registry.resource_group.as_deref();
    session.with_registry(&args.registry.name, group, async |r| Ok(session.arm.patch_registry(r, &body).await?)).await
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
