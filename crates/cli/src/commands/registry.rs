//! Making and changing registries: every setting that az knows of one.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::Context;
use crate::args::{self, Change, NamedRegistry};
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::output::table::member;
use crate::session::Session;

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

impl OnOff {
    fn as_str(self) -> &'static str {
        match self {
            OnOff::Enabled => "Enabled",
            OnOff::Disabled => "Disabled",
        }
    }
}

/// What addresses a registry is reached at.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    #[value(name = "IPv4")]
    V4,
    #[value(name = "IPv4AndIPv6")]
    V4AndV6,
}

/// How far a login server's name may be used again.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DnlScope {
    #[value(name = "Unsecure")]
    Unsecure,
    #[value(name = "TenantReuse")]
    TenantReuse,
    #[value(name = "SubscriptionReuse")]
    SubscriptionReuse,
    #[value(name = "ResourceGroupReuse")]
    ResourceGroupReuse,
    #[value(name = "NoReuse")]
    NoReuse,
}

impl DnlScope {
    fn as_str(self) -> &'static str {
        match self {
            DnlScope::Unsecure => "Unsecure",
            DnlScope::TenantReuse => "TenantReuse",
            DnlScope::SubscriptionReuse => "SubscriptionReuse",
            DnlScope::ResourceGroupReuse => "ResourceGroupReuse",
            DnlScope::NoReuse => "NoReuse",
        }
    }
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
    /// Regional endpoints (Premium).
    #[arg(long, value_enum, ignore_case = true)]
    regional_endpoints: Option<OnOff>,
    /// The addresses it is reached at: kept and shown.
    #[arg(long, value_enum, ignore_case = true)]
    endpoint_protocol: Option<Protocol>,
    /// Whether metadata can be searched: kept and shown.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = args::three_state, value_name = "true|false")]
    allow_metadata_search: Option<bool>,
    /// Whether repositories behind cache rules may be written to.
    #[arg(long, value_enum, ignore_case = true)]
    writable_cache_repos: Option<OnOff>,
    /// Space-separated tags: key[=value] [key[=value] ...]. Use '' to clear.
    #[arg(long, num_args = 0.., value_name = "KEY=VALUE")]
    tags: Option<Vec<String>>,
}

impl Settings {
    fn warn(&self, ctx: &Context) {
        if self.public_network_enabled == Some(false) {
            ctx.talk.warn("Disabling the public endpoint overrides all firewall configurations.");
        }
    }

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
        set("regionalEndpoints", self.regional_endpoints.map(|v| v.as_str().into()));
        set("writableCacheRepos", self.writable_cache_repos.map(|v| v.as_str().into()));
        set("metadataSearch", self.allow_metadata_search.map(on_off));
        set(
            "endpointProtocol",
            self.endpoint_protocol.map(|protocol| match protocol {
                Protocol::V4 => "IPv4".into(),
                Protocol::V4AndV6 => "IPv4AndIPv6".into(),
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
pub(crate) struct CreateArgs {
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
    /// How far the login server's name may be used again: kept and shown.
    #[arg(long, value_enum, ignore_case = true)]
    dnl_scope: Option<DnlScope>,
    /// Key vaults and keys of one's own are Azure's.
    #[arg(long, hide = true)]
    key_encryption_key: Option<String>,
    /// The identity for such a key.
    #[arg(long, hide = true)]
    identity: Option<String>,
    /// Log Analytics is Azure's.
    #[arg(long, hide = true)]
    workspace: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// `portolan acr update`
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
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
    #[command(flatten)]
    change: Change,
}

pub(super) async fn create(ctx: &Context, session: &Session, args: CreateArgs) -> Result<Value> {
    if args.name.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(Failure::new("argument error: Registry name must use only lowercase."));
    }
    if args.name.contains('-') {
        return Err(Failure::new("argument error: Registry name cannot contain dashes."));
    }
    if args.settings.default_action.is_some() && !matches!(args.sku, SkuName::Premium) {
        return Err(Failure::new(NETWORK_RULES_PREMIUM));
    }
    if args.key_encryption_key.is_some() || args.identity.is_some() {
        return Err(Failure::new(
            "Keys of one's own are kept in a key vault, a service of Azure, which is not part of this server.",
        )
        .hint("put the data folder or the bucket on encrypted storage"));
    }
    if args.workspace.is_some() {
        return Err(Failure::new("Log Analytics is a service of Azure, which is not part of this server.")
            .hint("the server writes its log as JSON lines: send them where your logs are kept"));
    }
    args.settings.warn(ctx);
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
    if let Some(scope) = args.dnl_scope {
        properties.insert("autoGeneratedDomainNameLabelScope".into(), scope.as_str().into());
    }
    let mut body = json!({"location": location, "sku": {"name": args.sku.as_str()}, "properties": properties});
    if let Some(tags) = &args.settings.tags {
        body["tags"] = args::tags(tags);
    }
    let registry = portolan_api::arm::RegistryRef { group: args.resource_group, name: args.name };
    Ok(session.arm.put_registry(&registry, &body).await?)
}

pub(super) async fn update(ctx: &Context, session: &Session, args: UpdateArgs) -> Result<Value> {
    args.settings.warn(ctx);
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
    if !args.change.is_empty() {
        set_members(&args.change, &mut body)?;
    }
    if body.pointer("/properties/networkRuleSet").is_some()
        && !args.sku.is_some_and(|sku| matches!(sku, SkuName::Premium))
    {
        session.premium(&args.registry, NETWORK_RULES_PREMIUM).await?;
    }
    let group = args.registry.resource_group.as_deref();
    session.with_registry(&args.registry.name, group, async |r| Ok(session.arm.patch_registry(r, &body).await?)).await
}

/// `--set` and `--remove` name members as they are shown: those of `properties` beside the
/// others.
fn set_members(change: &Change, body: &mut Value) -> Result<()> {
    const OUTER: &[&str] = &["tags", "sku", "identity", "location"];
    let Value::Object(mut shown) = body.take() else { return Ok(()) };
    if let Some(Value::Object(properties)) = shown.remove("properties") {
        shown.extend(properties);
    }
    let mut shown = Value::Object(shown);
    change.apply(&mut shown)?;
    let (mut outer, mut properties) = (Map::new(), Map::new());
    if let Value::Object(members) = shown {
        for (key, value) in members {
            if OUTER.contains(&key.as_str()) {
                outer.insert(key, value)
            } else {
                properties.insert(key, value)
            };
        }
    }
    if !properties.is_empty() {
        outer.insert("properties".into(), properties.into());
    }
    *body = Value::Object(outer);
    Ok(())
}

const NETWORK_RULES_PREMIUM: &str = "Network rules are only supported for managed registries in Premium SKU.";

/// `portolan acr show-endpoints`
pub(super) async fn show_endpoints(ctx: &Context, session: &Session, registry: &NamedRegistry) -> Result<Output> {
    let shown = session.registry_object(registry).await?;
    let text = |pointer: &str| shown.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    // `name.region.…` says the region.
    let endpoints = |pointer: &str| -> Vec<Value> {
        let hosts = shown.pointer(pointer).and_then(Value::as_array);
        hosts
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|host| json!({"endpoint": host, "region": host.split('.').nth(1)}))
            .collect()
    };
    let mut all = json!({"loginServer": text("/properties/loginServer")});
    if shown.pointer("/properties/dataEndpointEnabled") == Some(&Value::Bool(true)) {
        all["dataEndpoints"] = endpoints("/properties/dataEndpointHostNames").into();
    } else {
        ctx.talk.warn(format_args!(
            "Blobs come from the login server itself. For a host name of their own, use \"portolan acr update --name {} --data-endpoint-enabled\".",
            registry.name
        ));
        all["dataEndpoints"] = json!([{"endpoint": text("/properties/loginServer"), "region": text("/location")}]);
    }
    if text("/properties/regionalEndpoints") == "Enabled" {
        all["regionalEndpoints"] = endpoints("/properties/regionalEndpointHostNames").into();
    }
    let rows = all.get("dataEndpoints").and_then(Value::as_array).into_iter().flatten();
    let rows: Vec<Value> = rows
        .map(|row| json!({"loginServer": text("/properties/loginServer"), "region": row["region"], "endpoint": row["endpoint"]}))
        .collect();
    Ok(Output::with_rows(all, rows, |item| {
        [("LoginServer", "loginServer"), ("Region", "region"), ("Endpoint", "endpoint")]
            .into_iter()
            .map(|(header, key)| (header, member(item, &[key])))
            .collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_set_where_they_are() {
        #[derive(Debug, clap::Parser)]
        struct Only {
            #[command(flatten)]
            change: Change,
        }
        use clap::Parser;
        let only = Only::parse_from(["x", "--set", "tags.a=b", "adminUserEnabled=true"]);
        let mut body = json!({"properties": {"anonymousPullEnabled": true}});
        set_members(&only.change, &mut body).unwrap();
        assert_eq!(
            body,
            json!({"tags": {"a": "b"}, "properties": {"anonymousPullEnabled": true, "adminUserEnabled": true}})
        );
    }
}
