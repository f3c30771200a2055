//! `portolan acr config …`: a registry's policies.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Context, signed_in};
use crate::args::{NamedRegistry, Registry};
use crate::error::Result;
use crate::output::Output;
use crate::session::Session;

/// `portolan acr config …`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Manage how long untagged manifests are kept (Premium).
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Manage how long deleted things can be restored.
    #[command(subcommand)]
    SoftDelete(SoftDeleteCommand),
    /// Manage whether tokens for the control plane open the registry.
    #[command(subcommand)]
    AuthenticationAsArm(PolicyCommand),
    /// Manage content trust, which can only be off.
    #[command(subcommand)]
    ContentTrust(ContentTrustCommand),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Enabled,
    Disabled,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Enabled => "enabled",
            Status::Disabled => "disabled",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RetentionType {
    #[value(name = "UntaggedManifests")]
    UntaggedManifests,
}

#[derive(Debug, Subcommand)]
enum RetentionCommand {
    /// Show the policy.
    Show {
        #[command(flatten)]
        registry: Registry,
    },
    /// Change the policy.
    Update {
        #[command(flatten)]
        registry: Registry,
        /// Whether the policy is enabled.
        #[arg(long, value_enum, ignore_case = true)]
        status: Option<Status>,
        /// Days to keep an untagged manifest, 0 to 365.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(i64).range(0..=365))]
        days: i64,
        /// What is kept.
        #[arg(long = "type", value_enum, ignore_case = true)]
        kind: RetentionType,
    },
}

#[derive(Debug, Subcommand)]
enum SoftDeleteCommand {
    /// Show the policy.
    Show {
        #[command(flatten)]
        registry: Registry,
    },
    /// Change the policy.
    Update {
        #[command(flatten)]
        registry: Registry,
        /// Whether the policy is enabled.
        #[arg(long, value_enum, ignore_case = true)]
        status: Option<Status>,
        /// Days to keep what was deleted, 1 to 90.
        #[arg(long)]
        days: Option<i64>,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Show the policy.
    Show {
        #[command(flatten)]
        registry: Registry,
    },
    /// Change the policy.
    Update {
        #[command(flatten)]
        registry: Registry,
        /// Whether the policy is enabled.
        #[arg(long, value_enum, ignore_case = true)]
        status: Option<Status>,
    },
}

#[derive(Debug, Subcommand)]
enum ContentTrustCommand {
    /// Show the policy.
    Show {
        #[command(flatten)]
        registry: Registry,
    },
    /// Change the policy.
    Update {
        #[command(flatten)]
        registry: Registry,
        /// `disabled`: there is nothing to enable any more.
        #[arg(long, value_parser = ["disabled"])]
        status: Option<String>,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
}

const NOT_SUPPORTED: &str = "Policies are only supported for managed registries in Premium SKU.";

/// One policy: its member's name, and whether it is for Premium registries only.
struct Policy {
    member: &'static str,
    premium: bool,
}

const RETENTION: Policy = Policy { member: "retentionPolicy", premium: true };
const SOFT_DELETE: Policy = Policy { member: "softDeletePolicy", premium: false };
const AS_ARM: Policy = Policy { member: "azureADAuthenticationAsArmPolicy", premium: false };
const CONTENT_TRUST: Policy = Policy { member: "trustPolicy", premium: true };

pub(super) async fn run(ctx: &Context, args: ConfigArgs) -> Result<Output> {
    signed_in(ctx, async |session: &Session| match args.command {
        ConfigCommand::Retention(RetentionCommand::Show { registry }) => RETENTION.show(session, registry).await,
        ConfigCommand::Retention(RetentionCommand::Update { registry, status, days, .. }) => {
            let change = json!({"days": days});
            RETENTION.update(session, registry, status, change).await
        }
        ConfigCommand::SoftDelete(SoftDeleteCommand::Show { registry }) => SOFT_DELETE.show(session, registry).await,
        ConfigCommand::SoftDelete(SoftDeleteCommand::Update { registry, status, days, yes }) => {
            let now = SOFT_DELETE.now(session, &registry).await?;
            let shorter = days.is_some_and(|d| now.get("retentionDays").and_then(Value::as_i64).is_some_and(|n| n > d));
            if shorter {
                ctx.talk.confirm("Soft-delete purge scheduling is determined by a registry's current soft-delete retention days policy at the time of purge. By reducing the retention days policy, you are changing the scheduled purge date of previously deleted artifacts. In doing so, you may be scheduling some artifacts in a soft-deleted state for immediate purge. Do you wish to proceed?", yes)?;
            }
            let ends = matches!(status, Some(Status::Disabled)) && now.get("status").is_some_and(|s| s == "enabled");
            if ends {
                ctx.talk.warn("Disabling soft-delete does not affect purge behavior for previously deleted artifacts. Artifacts currently in a soft-deleted state will continue to be purged in accordance with the current soft-delete retention days policy.");
            }
            let change = days.map_or_else(|| json!({}), |days| json!({"retentionDays": days}));
            SOFT_DELETE.update(session, registry, status, change).await
        }
        ConfigCommand::AuthenticationAsArm(PolicyCommand::Show { registry }) => AS_ARM.show(session, registry).await,
        ConfigCommand::AuthenticationAsArm(PolicyCommand::Update { registry, status }) => {
            AS_ARM.update(session, registry, status, json!({})).await
        }
        ConfigCommand::ContentTrust(ContentTrustCommand::Show { registry }) => {
            CONTENT_TRUST.show(session, registry).await
        }
        ConfigCommand::ContentTrust(ContentTrustCommand::Update { registry, status, yes }) => {
            ctx.talk.confirm("Content Trust is deprecated. It cannot be enabled once disabled. Are you sure you want to disable content trust?", yes)?;
            CONTENT_TRUST.update(session, registry, status.map(|_| Status::Disabled), json!({})).await
        }
    })
    .await
}

impl Policy {
    fn of(&self, registry: &Value) -> Value {
        registry.pointer(&format!("/properties/policies/{}", self.member)).cloned().unwrap_or(Value::Null)
    }

    /// As az shows it: times that are not known are `null`.
    fn shown(&self, registry: &Value) -> Output {
        let mut policy = self.of(registry);
        if let (Value::Object(members), "retentionPolicy" | "softDeletePolicy") = (&mut policy, self.member) {
            members.entry("lastUpdatedTime").or_insert(Value::Null);
        }
        Output::value(policy)
    }

    async fn registry(&self, session: &Session, registry: &Registry) -> Result<Value> {
        let named = NamedRegistry { name: registry.name.clone(), resource_group: registry.resource_group.clone() };
        match self.premium {
            true => session.premium(&named, NOT_SUPPORTED).await,
            false => session.registry_object(&named).await,
        }
    }

    async fn now(&self, session: &Session, registry: &Registry) -> Result<Value> {
        Ok(self.of(&self.registry(session, registry).await?))
    }

    async fn show(&self, session: &Session, registry: Registry) -> Result<Output> {
        Ok(self.shown(&self.registry(session, &registry).await?))
    }

    async fn update(
        &self,
        session: &Session,
        registry: Registry,
        status: Option<Status>,
        change: Value,
    ) -> Result<Output> {
        let now = self.registry(session, &registry).await?;
        let mut policies =
            now.pointer("/properties/policies").filter(|p| p.is_object()).cloned().unwrap_or_else(|| json!({}));
        let policy = &mut policies[self.member];
        if !policy.is_object() {
            *policy = json!({});
        }
        if let Some(status) = status {
            policy["status"] = status.as_str().into();
        }
        if let Value::Object(change) = change {
            for (key, value) in change {
                policy[key.as_str()] = value;
            }
        }
        // When things were changed is the server's to say.
        for name in ["retentionPolicy", "softDeletePolicy"] {
            if let Some(Value::Object(policy)) = policies.get_mut(name) {
                policy.remove("lastUpdatedTime");
            }
        }
        let body = json!({"properties": {"policies": policies}});
        let group = registry.resource_group.as_deref();
        let patched =
            session.with_registry(&registry.name, group, async |r| Ok(session.arm.patch_registry(r, &body).await?));
        Ok(self.shown(&patched.await?))
    }
}
