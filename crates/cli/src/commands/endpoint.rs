//! What a registry has of private endpoints, replicas and webhooks: lists, to be seen.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Context, signed_in};
use crate::args::Registry;
use crate::error::Result;
use crate::output::table::{Columns, member};
use crate::output::{Output, shape};
use crate::session::Session;

/// A group of which there is only a list.
#[derive(Debug, Subcommand)]
pub(crate) enum ListOnly {
    /// List them.
    List {
        #[command(flatten)]
        registry: Named,
    },
}

/// A registry by name, in the two ways in which az writes it here.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The name of the container registry.
    #[arg(
        short = 'r',
        long = "registry",
        alias = "registry-name",
        value_name = "REGISTRY",
        env = "AZURE_DEFAULTS_ACR",
        hide_env = true
    )]
    registry: String,
    /// Name of the resource group; found by the registry's name when not given.
    #[arg(short = 'g', long, value_name = "GROUP")]
    resource_group: Option<String>,
}

/// What can be listed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    PrivateEndpointConnections,
    PrivateLinkResources,
    Replications,
    Webhooks,
}

impl Kind {
    fn collection(self) -> &'static str {
        match self {
            Kind::PrivateEndpointConnections => "privateEndpointConnections",
            Kind::PrivateLinkResources => "privateLinkResources",
            Kind::Replications => "replications",
            Kind::Webhooks => "webhooks",
        }
    }

    fn columns(self) -> Option<Columns> {
        match self {
            Kind::PrivateEndpointConnections | Kind::PrivateLinkResources => None,
            Kind::Replications => Some(|item| {
                vec![
                    ("NAME", member(item, &["name"])),
                    ("LOCATION", member(item, &["location"])),
                    ("PROVISIONING STATE", member(item, &["provisioningState"])),
                    ("STATUS", member(item, &["status", "displayStatus"])),
                    ("REGION ENDPOINT ENABLED", member(item, &["regionEndpointEnabled"])),
                ]
            }),
            Kind::Webhooks => Some(|item| {
                let actions = item.get("actions").and_then(Value::as_array);
                let actions: Vec<&str> = actions.into_iter().flatten().filter_map(Value::as_str).collect();
                vec![
                    ("NAME", member(item, &["name"])),
                    ("LOCATION", member(item, &["location"])),
                    ("ACTIONS", format!("['{}']", actions.join("', '"))),
                    ("SCOPE", member(item, &["scope"])),
                    ("STATUS", member(item, &["status"])),
                ]
            }),
        }
    }
}

pub(super) async fn run(ctx: &Context, kind: Kind, command: ListOnly) -> Result<Output> {
    let ListOnly::List { registry } = command;
    let registry = Registry { name: registry.registry, resource_group: registry.resource_group };
    signed_in(ctx, async |session: &Session| {
        let listed = session.below(&registry, kind.collection(), async |id| Ok(session.arm.all_of(id, None).await?));
        let listed = shape::each(listed.await?, shape::plain);
        Ok(match kind.columns() {
            Some(columns) => Output::with_columns(listed, columns),
            None => Output::value(listed),
        })
    })
    .await
}
