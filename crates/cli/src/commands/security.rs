//! `portolan security …`: plans, and what was found.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, signed_in};
use crate::error::Result;
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan security …`
#[derive(Debug, Args)]
pub struct SecurityArgs {
    #[command(subcommand)]
    command: SecurityCommand,
}

#[derive(Debug, Subcommand)]
enum SecurityCommand {
    /// Manage plans.
    #[command(subcommand)]
    Pricing(PricingCommand),
    /// See what was found.
    #[command(subcommand)]
    Assessment(AssessmentCommand),
}

#[derive(Debug, Subcommand)]
enum PricingCommand {
    /// Set a plan.
    Create {
        /// Name of the plan, such as ContainerRegistry.
        #[arg(short = 'n', long)]
        name: String,
        /// Free or Standard.
        #[arg(long)]
        tier: String,
        /// The plan's variant.
        #[arg(long)]
        subplan: Option<String>,
    },
    /// Show a plan.
    Show {
        /// Name of the plan, such as ContainerRegistry.
        #[arg(short = 'n', long)]
        name: String,
    },
    /// List plans.
    List,
}

#[derive(Debug, Subcommand)]
enum AssessmentCommand {
    /// List assessments of the subscription.
    List,
    /// Show an assessment.
    Show {
        /// Name of the assessment.
        #[arg(short = 'n', long)]
        name: String,
        /// The resource it is about; the subscription when not given.
        #[arg(long)]
        assessed_resource_id: Option<String>,
    },
}

pub(super) async fn run(ctx: &Context, args: SecurityArgs) -> Result<Output> {
    signed_in(ctx, async |session: &Session| {
        let arm = &session.arm;
        let at = |what: &str| format!("{}/providers/Microsoft.Security/{what}", arm.subscription_scope());
        Ok(match args.command {
            SecurityCommand::Pricing(PricingCommand::Create { name, tier, subplan }) => {
                let mut properties = json!({"pricingTier": tier});
                if let Some(subplan) = subplan {
                    properties["subPlan"] = subplan.into();
                }
                let id = format!("{}/{name}", at("pricings"));
                Output::value(shape::pricing(arm.put_by_id(&id, &json!({"properties": properties})).await?))
            }
            SecurityCommand::Pricing(PricingCommand::Show { name }) => {
                Output::value(shape::pricing(arm.by_id(&format!("{}/{name}", at("pricings"))).await?))
            }
            SecurityCommand::Pricing(PricingCommand::List) => {
                let plans = arm.all_of(&at("pricings"), None).await?;
                Output::value(json!({"value": shape::each(plans, shape::pricing)}))
            }
            SecurityCommand::Assessment(AssessmentCommand::List) => {
                Output::value(shape::each(arm.all_of(&at("assessments"), None).await?, shape::assessment))
            }
            SecurityCommand::Assessment(AssessmentCommand::Show { name, assessed_resource_id }) => {
                let scope = assessed_resource_id.unwrap_or_else(|| arm.subscription_scope());
                let id = format!("{scope}/providers/Microsoft.Security/assessments/{}", name);
                let shown: Value = arm.by_id(&id).await?;
                Output::value(shape::assessment(shown))
            }
        })
    })
    .await
}
