//! What the security commands tell: which plans are on, and what is known of each registry.
//!
//! A plan is kept as it was set, for clients that set it; none of them runs anything here.
//! Assessments are read off the registries when they are asked for, so they are never old.
//! Nothing scans images for vulnerabilities, and the assessment that would tell of that says
//! so instead of calling anything healthy.

use std::sync::Arc;

use portolan_auth::access::{Action, Target};
use portolan_store::meta;
use portolan_store::meta::security_plan::PlanRow;
use portolan_types::{ResourceId, Timestamp};
use serde_json::Value;
use uuid::{Uuid, uuid};

use crate::registries::Registry;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// The plans that are about what is here, as Azure calls them.
const PLANS: [&str; 3] = ["CloudPosture", "ContainerRegistry", "Containers"];
/// Extensions of a plan that are kept.
const EXTENSIONS_BYTES_MAX: usize = 8 * 1024;

/// A plan as it was set.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Azure's name.
    pub name: &'static str,
    /// Whether the tier is `Standard`, not `Free`.
    pub standard: bool,
    /// The sub-plan, if one was asked for.
    pub sub_plan: Option<String>,
    /// What was asked for with it: a JSON list.
    pub extensions: Value,
    /// When the tier became Standard.
    pub enabled: Option<Timestamp>,
    /// The plan that Azure has in its place.
    pub replaced_by: Option<&'static str>,
}

/// What to set a plan to.
#[derive(Clone, Debug, Default)]
pub struct PlanInput {
    /// `Free` or `Standard`, in any case.
    pub tier: Option<String>,
    /// The sub-plan.
    pub sub_plan: Option<String>,
    /// A JSON list, or null.
    pub extensions: Value,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Healthy,
    /// Not so.
    Unhealthy,
    /// Nobody can tell.
    NotApplicable,
}

impl Health {
    /// Azure's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "Healthy",
            Health::Unhealthy => "Unhealthy",
            Health::NotApplicable => "NotApplicable",
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// The assessment's name.
    pub id: Uuid,
    /// What should be.
    pub title: &'static str,
    /// Why.
    pub reason: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// `Low`, `Medium` or `High`.
    pub severity: &'static str,
}

/// What is known of one registry in one matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The matter.
    pub about: &'static Recommendation,
    /// The registry's id.
    pub resource: ResourceId,
    /// How it stands.
    pub health: Health,
    /// What it is read from, in one word; empty for what is healthy.
    pub cause: &'static str,
    /// The same in a sentence.
    pub description: &'static str,
}

const NETWORK: Recommendation = Recommendation {
    id: uuid!("9b828565-a0ed-61c2-6bf3-1afc99a9b2ca"),
    title: "Container registries should not allow unrestricted network access",
    reason: "A registry that answers every address can be tried by everybody.",
    remedy: "Allow only the addresses of your clients (`az acr network-rule add`) and deny the rest \
             (`az acr update --default-action Deny`), or turn public access off.",
    severity: "Medium",
};
const ADMIN: Recommendation = Recommendation {
    id: uuid!("5c7c7d5e-38c7-4d1e-9f0f-6f0f4b7d5a10"),
    title: "Container registries should have the admin user disabled",
    reason: "The admin user is one account that everybody shares: its use cannot be told apart nor limited.",
    remedy: "Give each client an identity or a repository token of its own, then turn the admin user off \
             (`az acr update --admin-enabled false`).",
    severity: "Medium",
};
const ANONYMOUS: Recommendation = Recommendation {
    id: uuid!("5c7c7d5e-38c7-4d1e-9f0f-6f0f4b7d5a11"),
    title: "Container registries should have anonymous pull disabled",
    reason: "Whoever reaches the registry can pull every image in it.",
    remedy: "Turn it off (`az acr update --anonymous-pull-enabled false`) unless the images are public.",
    severity: "Medium",
};
const VULNERABILITIES: Recommendation = Recommendation {
    id: uuid!("dbd0cb49-b563-45e7-9724-889e799fa648"),
    title: "Container registry images should have vulnerability findings resolved",
    reason: "Images with known vulnerabilities can be attacked.",
    remedy: "Scan the images with a scanner of your own; this server does not scan.",
    severity: "High",
};

impl Service {
    /// Every plan.
    pub async fn list_plans(&self, ctx: &Ctx) -> Result<Vec<Plan>> {
        self.check_control(ctx, &self.subscription_scope(), Action::PricingRead)?;
        let rows = self.meta.read(meta::security_plan::list).await?;
        Ok(PLANS.iter().map(|name| plan(name, rows.iter().find(|r| r.name == *name))).collect())
    }

    /// One plan. Errors: `PricingNotFound`.
    pub async fn show_plan(&self, ctx: &Ctx, name: &str) -> Result<Plan> {
        let plans = self.list_plans(ctx).await?;
        plans.into_iter().find(|p| p.name.eq_ignore_ascii_case(name)).ok_or_else(|| no_such_plan(name))
    }

    /// Set a plan. Errors: `PricingNotFound`, `InvalidPricingTier`, `InvalidRequestContent`.
    pub async fn put_plan(&self, ctx: &Ctx, name: &str, input: PlanInput) -> Result<Plan> {
        self.check_control(ctx, &self.subscription_scope(), Action::PricingWrite)?;
        let name = PLANS.into_iter().find(|p| p.eq_ignore_ascii_case(name)).ok_or_else(|| no_such_plan(name))?;
        let tier = input.tier.unwrap_or_default();
        let tier = ["Free", "Standard"].into_iter().find(|t| t.eq_ignore_ascii_case(&tier)).ok_or_else(|| {
            Error::new(Kind::Invalid, "InvalidPricingTier", "The pricing tier must be Free or Standard.")
        })?;
        let invalid = |why: &str| {
            Error::new(Kind::Invalid, "InvalidRequestContent", format!("The request content was invalid: {why}."))
        };
        let extensions = match input.extensions {
            Value::Null => "[]".to_owned(),
            list @ Value::Array(_) => list.to_string(),
            _ => return Err(invalid("`extensions` must be a list")),
        };
        if extensions.len() > EXTENSIONS_BYTES_MAX || input.sub_plan.as_ref().is_some_and(|s| s.len() > 64) {
            return Err(invalid("`extensions` or `subPlan` is too long"));
        }
        let now = ctx.now;
        let row = self
            .meta
            .write(move |tx| {
                let before = meta::security_plan::list(tx)?.into_iter().find(|r| r.name == name);
                let enabled = match (tier, before) {
                    ("Standard", Some(b)) if b.tier == "Standard" => b.enabled,
                    ("Standard", _) => Some(now),
                    _ => None,
                };
                let row = PlanRow {
                    name: name.to_owned(),
                    tier: tier.to_owned(),
                    sub_plan: input.sub_plan.filter(|s| !s.is_empty()),
                    extensions,
                    enabled,
                    updated: now,
                };
                meta::security_plan::put(tx, &row)?;
                Ok::<_, Error>(row)
            })
            .await?;
        Ok(plan(name, Some(&row)))
    }

    /// What is known of each registry within `scope` whose assessments the caller may see.
    pub fn list_assessments(&self, ctx: &Ctx, scope: &ResourceId) -> Result<Vec<Assessment>> {
        self.signed_in(ctx)?;
        let registries = self.snapshot.load().registries.clone();
        let seen = |r: &&Arc<Registry>| {
            r.resource_id.is_within(scope) && self.check(ctx, r, &Target::Registry, Action::AssessmentRead).is_ok()
        };
        Ok(registries.iter().filter(seen).flat_map(|r| assess(r)).collect())
    }

    /// One of them. Errors: `AssessmentNotFound`.
    pub fn show_assessment(&self, ctx: &Ctx, resource: &ResourceId, name: &str) -> Result<Assessment> {
        let all = self.list_assessments(ctx, resource)?;
        let id = Uuid::try_parse(name).unwrap_or_default();
        let same = |a: &Assessment| a.about.id == id && a.resource.key() == resource.key();
        all.into_iter().find(same).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "AssessmentNotFound",
                format!("There is no assessment '{}' of '{resource}'.", name.escape_debug()),
            )
        })
    }

    fn subscription_scope(&self) -> ResourceId {
        ResourceId::subscription(&self.subscription_id())
    }
}

fn plan(name: &'static str, row: Option<&PlanRow>) -> Plan {
    Plan {
        name,
        standard: row.is_some_and(|r| r.tier == "Standard"),
        sub_plan: row.and_then(|r| r.sub_plan.clone()),
        extensions: row
            .and_then(|r| serde_json::from_str(&r.extensions).ok())
            .unwrap_or_else(|| Value::Array(Vec::new())),
        enabled: row.and_then(|r| r.enabled),
        replaced_by: (name == "ContainerRegistry").then_some("Containers"),
    }
}

fn no_such_plan(name: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "PricingNotFound",
        format!("There is no plan '{}' here. The plans are {}.", name.escape_debug(), PLANS.join(", ")),
    )
}

/// Everything that is known of a registry.
fn assess(registry: &Registry) -> [Assessment; 4] {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let properties = &registry.properties;
    let public_off = text(properties.get("publicNetworkAccess")) == "disabled";
    let denied = text(properties.get("networkRuleSet").and_then(|r| r.get("defaultAction"))) == "deny";
    let one = |about: &'static Recommendation, good: bool, cause: &'static str, description: &'static str| Assessment {
        about,
        resource: registry.resource_id.clone(),
        health: if good { Health::Healthy } else { Health::Unhealthy },
        cause: if good { "" } else { cause },
        description: if good { "" } else { description },
    };
    [
        one(
            &NETWORK,
            public_off || denied,
            "PublicAccess",
            "The registry answers every address: the default action of its network rules is Allow.",
        ),
        one(&ADMIN, !registry.admin_enabled, "AdminUserEnabled", "The admin user may sign in."),
        one(&ANONYMOUS, !registry.anonymous_pull, "AnonymousPullEnabled", "Anybody may pull."),
        Assessment {
            health: Health::NotApplicable,
            cause: "NotScanned",
            description: "This server does not scan images for vulnerabilities.",
            ..one(&VULNERABILITIES, false, "", "")
        },
    ]
}
