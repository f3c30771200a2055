//! `portolan acr network-rule …`: from where a registry can be reached.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, signed_in};
use crate::args::NamedRegistry;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::session::Session;

/// `portolan acr network-rule …`
#[derive(Debug, Args)]
pub(crate) struct NetworkRuleArgs {
    #[command(subcommand)]
    command: NetworkRuleCommand,
}

#[derive(Debug, Subcommand)]
enum NetworkRuleCommand {
    /// Let an address or a range of addresses in.
    Add(RuleArgs),
    /// Take an address or a range of addresses off the list.
    Remove(RuleArgs),
    /// List rules.
    List {
        #[command(flatten)]
        registry: NamedRegistry,
    },
}

#[derive(Debug, Args)]
struct RuleArgs {
    #[command(flatten)]
    registry: NamedRegistry,
    /// IPv4 or IPv6 address or CIDR range.
    #[arg(long, value_name = "ADDRESS|CIDR")]
    ip_address: Option<String>,
    /// Virtual networks are Azure's.
    #[arg(long, hide = true)]
    subnet: Option<String>,
    /// Virtual networks are Azure's.
    #[arg(long, hide = true)]
    vnet_name: Option<String>,
}

const NOT_SUPPORTED: &str = "Network rules are only supported for managed registries in Premium SKU.";

pub(super) async fn run(ctx: &Context, args: NetworkRuleArgs) -> Result<Output> {
    signed_in(ctx, async |session: &Session| {
        let (registry, rule, adding) = match &args.command {
            NetworkRuleCommand::List { registry } => {
                let now = session.premium(registry, NOT_SUPPORTED).await?;
                let mut shown = shown(&now)["networkRuleSet"].take();
                if let Some(set) = shown.as_object_mut() {
                    set.remove("defaultAction");
                }
                return Ok(Output::value(shown));
            }
            NetworkRuleCommand::Add(rule) => (&rule.registry, rule, true),
            NetworkRuleCommand::Remove(rule) => (&rule.registry, rule, false),
        };
        if rule.subnet.is_some() || rule.vnet_name.is_some() {
            return Err(Failure::new("Virtual networks are a service of Azure, which is not part of this server.")
                .hint("name the network's addresses: --ip-address 10.0.0.0/8"));
        }
        let now = session.premium(registry, NOT_SUPPORTED).await?;
        let mut set = now.pointer("/properties/networkRuleSet").filter(|s| s.is_object()).cloned();
        let set = set.get_or_insert_with(|| json!({"defaultAction": "Allow"}));
        let mut rules: Vec<Value> = set.get("ipRules").and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(address) = &rule.ip_address {
            match adding {
                true => rules.push(json!({"action": "Allow", "value": address})),
                false => rules.retain(|r| r.get("value").and_then(Value::as_str) != Some(address)),
            }
        }
        set["ipRules"] = rules.into();
        let body = json!({"properties": {"networkRuleSet": set}});
        let group = registry.resource_group.as_deref();
        let patched =
            session.with_registry(&registry.name, group, async |r| Ok(session.arm.patch_registry(r, &body).await?));
        Ok(Output::value(shown(&patched.await?)))
    })
    .await
}

/// As az shows what has changed.
fn shown(registry: &Value) -> Value {
    let rules = registry.pointer("/properties/networkRuleSet/ipRules").and_then(Value::as_array);
    let rules: Vec<Value> = rules
        .into_iter()
        .flatten()
        .map(|r| {
            let action = r.get("action").filter(|a| a.is_string()).cloned().unwrap_or_else(|| "Allow".into());
            json!({"action": action, "ipAddressOrRange": r.get("value")})
        })
        .collect();
    json!({
        "name": registry.get("name"),
        "networkRuleSet": {
            "defaultAction": registry.pointer("/properties/networkRuleSet/defaultAction"),
            "ipRules": rules,
            "virtualNetworkRules": [],
        },
        "provisioningState": registry.pointer("/properties/provisioningState"),
    })
}
